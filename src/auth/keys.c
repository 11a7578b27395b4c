/*
 * keys.c
 *	  Ed25519 public keys by OpenSSL.
 *
 * Runs in the page service and the WAL feed, and in their postmasters at the
 * start.  Keys that cannot be used as a whole are not used in part: who mistypes
 * a rotation hears of it.
 */
#include "nc/auth/keys.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct NcAuthKeys
{
	int			count;
	EVP_PKEY   *keys[NC_AUTH_KEYS_MAX];
};

void
nc_auth_keys_free(NcAuthKeys *keys)
{
	if (keys == NULL)
		return;
	for (int i = 0; i < keys->count; i++)
		EVP_PKEY_free(keys->keys[i]);
	free(keys);
}

int
nc_auth_keys_count(const NcAuthKeys *keys)
{
	return keys == NULL ? 0 : keys->count;
}

/* The bytes of a small regular file; -1 with a reason. */
static ssize_t
read_key_file(const char *path, char *to, size_t bytes, char *err, size_t err_bytes)
{
	struct stat st;
	ssize_t		n = -1;
	int			fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

	if (fd >= 0 && fstat(fd, &st) == 0 && !S_ISREG(st.st_mode))
		snprintf(err, err_bytes, "\"%s\" is not a file", path);
	else if (fd < 0 || (n = read(fd, to, bytes)) < 0)
		snprintf(err, err_bytes, "cannot read \"%s\": %s", path, strerror(errno));
	else if ((size_t) n == bytes)
	{
		snprintf(err, err_bytes, "\"%s\" is too long for a file of public keys", path);
		n = -1;
	}
	if (fd >= 0)
		close(fd);
	return n;
}

/* The next block of the file as a key; NULL at the end or, with a reason, when it is none. */
static EVP_PKEY *
next_key(BIO *bio, const char *path, int number, char *err, size_t err_bytes)
{
	char	   *name = NULL;
	char	   *header = NULL;
	unsigned char *data = NULL;
	const unsigned char *at;
	long		bytes = 0;
	EVP_PKEY   *key = NULL;

	err[0] = '\0';
	if (PEM_read_bio(bio, &name, &header, &data, &bytes) == 1)
	{
		at = data;
		if (strcmp(name, "PUBLIC KEY") == 0)
			key = d2i_PUBKEY(NULL, &at, bytes);
		if (key == NULL)
			snprintf(err, err_bytes, "block %d of \"%s\" is not a public key", number, path);
		else if (EVP_PKEY_base_id(key) != EVP_PKEY_ED25519)
			snprintf(err, err_bytes, "key %d of \"%s\" is not an Ed25519 key", number, path);
	}
	else if (ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE)
		snprintf(err, err_bytes, "block %d of \"%s\" is damaged", number, path);
	OPENSSL_free(name);
	OPENSSL_free(header);
	OPENSSL_free(data);
	if (err[0] != '\0')
	{
		EVP_PKEY_free(key);
		key = NULL;
	}
	return key;
}

/* Reads keys until there is none; false with a reason. */
static bool
read_keys(BIO *bio, const char *path, NcAuthKeys *keys, char *err, size_t err_bytes)
{
	EVP_PKEY   *key;

	while ((key = next_key(bio, path, keys->count + 1, err, err_bytes)) != NULL)
	{
		if (keys->count == NC_AUTH_KEYS_MAX)
		{
			EVP_PKEY_free(key);
			snprintf(err, err_bytes, "\"%s\" holds more than %d keys", path, NC_AUTH_KEYS_MAX);
			return false;
		}
		keys->keys[keys->count++] = key;
	}
	if (err[0] == '\0' && keys->count == 0)
		snprintf(err, err_bytes, "\"%s\" holds no public key in PEM format", path);
	return err[0] == '\0';
}

NcAuthKeys *
nc_auth_keys_load(const char *path, char *err, size_t err_bytes)
{
	NcAuthKeys *keys = calloc(1, sizeof(*keys));
	char	   *text = malloc(NC_AUTH_FILE_BYTES_MAX + 1);
	BIO		   *bio = NULL;
	ssize_t		n = -1;
	bool		ok = false;

	ERR_clear_error();
	snprintf(err, err_bytes, "out of memory");
	if (keys != NULL && text != NULL)
		n = read_key_file(path, text, NC_AUTH_FILE_BYTES_MAX, err, err_bytes);
	if (n >= 0)
	{
		text[n] = '\0';
		if (strstr(text, "PRIVATE KEY") != NULL)
			snprintf(err, err_bytes, "\"%s\" holds a private key; it belongs to the issuer of tokens, "
					 "only its public key belongs here", path);
		else if ((bio = BIO_new_mem_buf(text, (int) n)) != NULL)
			ok = read_keys(bio, path, keys, err, err_bytes);
	}
	BIO_free(bio);
	ERR_clear_error();
	free(text);
	if (ok)
		return keys;
	nc_auth_keys_free(keys);
	return NULL;
}

static bool
verify_with(EVP_PKEY *key, const char *token, const NcJwt *jwt)
{
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	bool		good = ctx != NULL && EVP_DigestVerifyInit(ctx, NULL, NULL, NULL, key) == 1 &&
		EVP_DigestVerify(ctx, jwt->signature, NC_JWT_SIGNATURE_BYTES, (const uint8_t *) token,
						 jwt->signed_bytes) == 1;

	EVP_MD_CTX_free(ctx);
	ERR_clear_error();
	return good;
}

const char *
nc_auth_judge(const NcAuthKeys *keys, const char *token, size_t bytes, NcJwtScope wide,
			  const char *tenant, uint64_t now_s, NcJwt *out)
{
	const char *wrong = nc_jwt_parse(token, bytes, out);
	bool		good = false;

	if (wrong != NULL)
		return wrong;
	for (int i = 0; i < nc_auth_keys_count(keys) && !good; i++)
		good = verify_with(keys->keys[i], token, out);
	if (!good)
		return "its signature was made by no key that is known here";
	wrong = nc_jwt_check_time(out, now_s);
	return wrong != NULL ? wrong : nc_jwt_check_scope(out, wide, tenant);
}
