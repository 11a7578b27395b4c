/*
 * test_jwt.c
 *	  Tokens: the good ones, and every way of not being one.
 *
 * Runs without a server.  Tokens lie in heap blocks of exactly their size, so
 * that a sanitizer sees a read of one byte too many.  Keys are made by OpenSSL in
 * the test, signatures are real.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include <openssl/evp.h>
#include <openssl/pem.h>

#include "nc/auth/guard.h"
#include "tokens.h"

#define TENANT "0123456789abcdef0123456789abcdef"
#define OTHER_TENANT "ffffffffffffffffffffffffffffffff"
#define HEADER "{\"alg\":\"EdDSA\",\"typ\":\"JWT\"}"
#define NOW UINT64_C(1700000000)

static EVP_PKEY *key1;
static EVP_PKEY *key2;
static char key_file[] = "/tmp/nc_keys_XXXXXX";

/* ---- making tokens ---- */

/* The verdict on a token in a block of its size; frees it. */
static const char *
judge(const NcAuthKeys *keys, char *token, const char *tenant)
{
	size_t		bytes = strlen(token);
	char	   *exact = malloc(bytes ? bytes : 1);
	NcJwt		jwt;
	const char *wrong;

	memcpy(exact, token, bytes);
	free(token);
	wrong = nc_auth_judge(keys, exact, bytes, NC_SCOPE_PAGE_SERVER, tenant, NOW, &jwt);
	free(exact);
	return wrong;
}

static NcAuthKeys *
load_keys(void)
{
	char		err[256] = "";
	NcAuthKeys *keys = nc_auth_keys_load(key_file, err, sizeof(err));

	assert_string_equal(keys ? "" : err, "");
	return keys;
}

static void
expect(const char *claims, const char *verdict)
{
	NcAuthKeys *keys = load_keys();
	const char *wrong = judge(keys, tokens_make(key1, HEADER, claims), TENANT);

	assert_string_equal(wrong ? wrong : "", verdict);
	nc_auth_keys_free(keys);
}

static void
expect_header(const char *header, const char *verdict)
{
	NcAuthKeys *keys = load_keys();
	const char *wrong = judge(keys, tokens_make(key1, header,
											   "{\"scope\":\"tenant\",\"tenant_id\":\"" TENANT "\"}"),
							  TENANT);

	assert_string_equal(wrong ? wrong : "", verdict);
	nc_auth_keys_free(keys);
}

/* ---- tests ---- */

static void
test_good_claims(void **state)
{
	expect("{\"scope\":\"tenant\",\"tenant_id\":\"" TENANT "\"}", "");
	expect("{\"scope\":\"tenant\",\"tenant_id\":\"0123456789ABCDEF0123456789ABCDEF\"}", "");
	expect(" { \"scope\" : \"tenant\" , \"x\" : [ 1 , { \"y\" : null } , true , -1.5e3 ] ,\n"
		   "\"tenant_id\" : \"" TENANT "\" } ", "");
	expect("{\"scope\":\"pageserverapi\"}", "");
	expect("{\"scope\":\"pageserverapi\",\"tenant_id\":null}", "");
	expect("{\"s\\u0063ope\":\"pageserver\\u0061pi\"}", "");
	expect("{\"scope\":\"pageserverapi\",\"exp\":1700000001,\"nbf\":1699999999.5}", "");
	expect("{\"scope\":\"pageserverapi\",\"exp\":1699999941}", "");
	expect("{\"scope\":\"pageserverapi\",\"nbf\":1700000060}", "");
}

static void
test_bad_claims(void **state)
{
	expect("{\"scope\":\"tenant\",\"tenant_id\":\"" OTHER_TENANT "\"}", "it is for another tenant");
	expect("{\"scope\":\"tenant\"}", "its scope is tenant and it names no tenant_id");
	expect("{\"scope\":\"safekeeperdata\"}", "its scope does not allow this");
	expect("{\"scope\":\"admin\"}", "its scope does not allow this");
	expect("{\"scope\":\"tenant \",\"tenant_id\":\"" TENANT "\"}", "its scope does not allow this");
	expect("{\"tenant_id\":\"" TENANT "\"}", "it has no scope");
	expect("{\"scope\":[\"tenant\"]}", "its scope is not a string");
	expect("{\"scope\":\"tenant\",\"tenant_id\":\"" TENANT "-0001\"}",
		   "its tenant_id is not 32 hexadecimal digits");
	expect("{\"scope\":\"tenant\",\"tenant_id\":7}", "its tenant_id is not 32 hexadecimal digits");
	expect("{\"scope\":\"admin\",\"scope\":\"pageserverapi\"}", "it says something twice");
	expect("{\"scope\":\"admin\",\"s\\u0063ope\":\"pageserverapi\"}", "it says something twice");
	expect("{\"scope\":\"pageserverapi\",\"aud\":\"x\"}", "it is meant for somebody else (aud)");
}

static void
test_times(void **state)
{
	expect("{\"scope\":\"pageserverapi\",\"exp\":1699999939}", "it has expired");
	expect("{\"scope\":\"pageserverapi\",\"exp\":0}", "it has expired");
	expect("{\"scope\":\"pageserverapi\",\"nbf\":1700000061}", "it is not valid yet");
	expect("{\"scope\":\"pageserverapi\",\"exp\":\"1800000000\"}", "its exp is not a time");
	expect("{\"scope\":\"pageserverapi\",\"exp\":-1}", "its exp is not a time");
	expect("{\"scope\":\"pageserverapi\",\"exp\":1e99}", "its exp is not a time");
	expect("{\"scope\":\"pageserverapi\",\"exp\":null}", "its exp is not a time");
	expect("{\"scope\":\"pageserverapi\",\"exp\":18446744073709551616}", "its exp is not a time");
	expect("{\"scope\":\"pageserverapi\",\"nbf\":{}}", "its nbf is not a time");
}

static void
test_bad_json(void **state)
{
	char		deep[600];

	expect("", "it is not a JSON object");
	expect("[]", "it is not a JSON object");
	expect("{}", "it is not valid JSON");
	expect("{\"scope\":\"pageserverapi\"", "it is not valid JSON");
	expect("{\"scope\":\"pageserverapi\"}x", "it is not valid JSON");
	expect("{\"scope\":\"pageserverapi\",}", "it is not valid JSON");
	expect("{\"x\":tru,\"scope\":\"pageserverapi\"}", "it is not valid JSON");
	expect("{\"x\":01,\"scope\":\"pageserverapi\"}", "it is not valid JSON");
	expect("{\"x\":\"\\q\",\"scope\":\"pageserverapi\"}", "it is not valid JSON");
	expect("{\"x\":\"\\u12\",\"scope\":\"pageserverapi\"}", "it is not valid JSON");
	expect("{\"x\":\"\n\",\"scope\":\"pageserverapi\"}", "it is not valid JSON");
	expect("{\"x\":\"", "it is not valid JSON");
	memset(deep, '[', sizeof(deep));
	memcpy(deep, "{\"x\":", 5);
	deep[sizeof(deep) - 1] = '\0';
	expect(deep, "it is not valid JSON");
}

static void
test_bad_headers(void **state)
{
	expect_header(HEADER, "");
	expect_header("{\"alg\":\"none\"}", "its algorithm is not EdDSA");
	expect_header("{\"alg\":\"HS256\"}", "its algorithm is not EdDSA");
	expect_header("{\"alg\":\"eddsa\"}", "its algorithm is not EdDSA");
	expect_header("{\"alg\":null}", "its header's alg is not a string");
	expect_header("{\"typ\":\"JWT\"}", "its header names no algorithm");
	expect_header("{\"alg\":\"EdDSA\",\"crit\":[\"x\"]}",
				  "its header demands an extension that is not known here");
	expect_header("{\"alg\":\"EdDSA\",\"b64\":false}",
				  "its header demands an extension that is not known here");
	expect_header("{\"alg\":\"EdDSA\",\"alg\":\"none\"}", "it says something twice");
}

static void
test_form(void **state)
{
	NcAuthKeys *keys = load_keys();
	char	   *longest = malloc(NC_JWT_BYTES_MAX + 2);

	assert_string_equal(judge(keys, strdup(""), TENANT), "it is empty");
	assert_string_equal(judge(keys, strdup("a secret"), TENANT), "it is not a JSON web token");
	assert_string_equal(judge(keys, strdup(".."), TENANT), "it is not a JSON object");
	assert_string_equal(judge(keys, strdup("a.b.c.d"), TENANT), "it is not a JSON web token");
	assert_string_equal(judge(keys, strdup("a.b"), TENANT), "it is not a JSON web token");
	/* padding, the other alphabet, bits that belong to no byte, a lone character */
	assert_string_equal(judge(keys, strdup("e30=.e30.e30"), TENANT), "it is not a JSON web token");
	assert_string_equal(judge(keys, strdup("e+/_.e30.e30"), TENANT), "it is not a JSON web token");
	assert_string_equal(judge(keys, strdup("e31.e30.e30"), TENANT), "it is not a JSON web token");
	assert_string_equal(judge(keys, strdup("e.e30.e30"), TENANT), "it is not a JSON web token");
	memset(longest, 'A', NC_JWT_BYTES_MAX + 1);
	longest[NC_JWT_BYTES_MAX + 1] = '\0';
	assert_string_equal(judge(keys, strdup(longest), TENANT), "it is too long");
	longest[NC_JWT_BYTES_MAX] = '\0';
	assert_string_equal(judge(keys, longest, TENANT), "it is not a JSON web token");
	nc_auth_keys_free(keys);
}

/* Every single character of a token matters. */
static void
test_tampered(void **state)
{
	NcAuthKeys *keys = load_keys();
	char	   *good = tokens_make(key1, HEADER, "{\"scope\":\"tenant\",\"tenant_id\":\"" TENANT "\"}");

	for (size_t i = 0; i < strlen(good); i++)
	{
		char	   *bad = strdup(good);

		bad[i] = bad[i] == 'A' ? 'B' : 'A';
		assert_non_null(judge(keys, bad, TENANT));
	}
	for (size_t i = 0; i < strlen(good); i++)
		assert_non_null(judge(keys, strndup(good, i), TENANT));
	assert_null(judge(keys, good, TENANT));
	nc_auth_keys_free(keys);
}

static void
test_scopes_of_the_feed(void **state)
{
	NcJwt		jwt = {.scope = NC_SCOPE_PAGE_SERVER};

	assert_non_null(nc_jwt_check_scope(&jwt, NC_SCOPE_SAFEKEEPER, TENANT));
	jwt.scope = NC_SCOPE_SAFEKEEPER;
	assert_null(nc_jwt_check_scope(&jwt, NC_SCOPE_SAFEKEEPER, TENANT));
	jwt.scope = NC_SCOPE_OTHER;
	assert_non_null(nc_jwt_check_scope(&jwt, NC_SCOPE_OTHER, TENANT));
	jwt.scope = NC_SCOPE_TENANT;
	strcpy(jwt.tenant_id, TENANT);
	assert_null(nc_jwt_check_scope(&jwt, NC_SCOPE_SAFEKEEPER, ""));
	assert_non_null(nc_jwt_check_scope(&jwt, NC_SCOPE_SAFEKEEPER, OTHER_TENANT));
}

/* ---- files of keys ---- */

static void
write_key_file(const char *text, EVP_PKEY *const *keys, int nkeys)
{
	FILE	   *f = fopen(key_file, "w");

	fputs(text, f);
	for (int i = 0; i < nkeys; i++)
		PEM_write_PUBKEY(f, keys[i]);
	fclose(f);
}

static void
test_rotation(void **state)
{
	static const char claims[] = "{\"scope\":\"pageserverapi\"}";
	EVP_PKEY   *both[] = {key2, key1};
	NcAuthKeys *keys;

	write_key_file("", &key1, 1);
	keys = load_keys();
	assert_int_equal(nc_auth_keys_count(keys), 1);
	assert_null(judge(keys, tokens_make(key1, HEADER, claims), TENANT));
	assert_string_equal(judge(keys, tokens_make(key2, HEADER, claims), TENANT),
						"its signature was made by no key that is known here");
	nc_auth_keys_free(keys);

	write_key_file("the next and the present key\n", both, 2);
	keys = load_keys();
	assert_int_equal(nc_auth_keys_count(keys), 2);
	assert_null(judge(keys, tokens_make(key1, HEADER, claims), TENANT));
	assert_null(judge(keys, tokens_make(key2, HEADER, claims), TENANT));
	nc_auth_keys_free(keys);
	write_key_file("", &key1, 1);
}

static void
refuse_file(const char *part)
{
	char		err[256] = "";

	assert_null(nc_auth_keys_load(key_file, err, sizeof(err)));
	if (strstr(err, part) == NULL)
		fail_msg("\"%s\" does not say \"%s\"", err, part);
}

static void
test_bad_key_files(void **state)
{
	EVP_PKEY   *rsa = EVP_RSA_gen(2048);
	EVP_PKEY   *mixed[] = {key1, rsa};
	char		err[256];
	FILE	   *f;

	write_key_file("", NULL, 0);
	refuse_file("holds no public key");
	write_key_file("", mixed, 2);
	refuse_file("key 2 of");
	write_key_file("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", &key1, 1);
	refuse_file("block 1 of");
	f = fopen(key_file, "w");
	PEM_write_PrivateKey(f, key1, NULL, NULL, 0, NULL, NULL);
	fclose(f);
	refuse_file("holds a private key");
	assert_null(nc_auth_keys_load("/nowhere/keys", err, sizeof(err)));
	assert_non_null(strstr(err, "/nowhere/keys"));
	assert_null(nc_auth_keys_load("/tmp", err, sizeof(err)));
	assert_non_null(strstr(err, "is not a file"));
	EVP_PKEY_free(rsa);
	write_key_file("", &key1, 1);
}

/* A guard that was told to ask and cannot judge lets nobody in. */
static void
test_guard(void **state)
{
	NcGuard		guard = {0};
	char		err[256];
	NcJwt		jwt;

	assert_false(nc_guard_take_keys(&guard, "/nowhere/keys", err, sizeof(err)));
	assert_true(guard.asks);
	assert_non_null(nc_auth_judge(guard.keys, "x.x.x", 5, NC_SCOPE_PAGE_SERVER, TENANT, NOW, &jwt));
	assert_true(nc_guard_take_keys(&guard, key_file, err, sizeof(err)));
	assert_true(guard.asks && guard.keys != NULL);
	assert_false(nc_guard_take_keys(&guard, "/nowhere/keys", err, sizeof(err)));
	assert_int_equal(nc_auth_keys_count(guard.keys), 1);
	assert_true(nc_guard_take_keys(&guard, "", err, sizeof(err)));
	assert_false(guard.asks);
	assert_false(nc_guard_take_certificate(&guard, "a", "", err, sizeof(err)));
	nc_guard_clear(&guard);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_good_claims),
		cmocka_unit_test(test_bad_claims),
		cmocka_unit_test(test_times),
		cmocka_unit_test(test_bad_json),
		cmocka_unit_test(test_bad_headers),
		cmocka_unit_test(test_form),
		cmocka_unit_test(test_tampered),
		cmocka_unit_test(test_scopes_of_the_feed),
		cmocka_unit_test(test_rotation),
		cmocka_unit_test(test_bad_key_files),
		cmocka_unit_test(test_guard),
	};
	int			rc;

	key1 = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
	key2 = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
	close(mkstemp(key_file));
	write_key_file("", &key1, 1);
	rc = cmocka_run_group_tests(tests, NULL, NULL);
	unlink(key_file);
	EVP_PKEY_free(key1);
	EVP_PKEY_free(key2);
	return rc;
}
