/*
 * fuzz_jwt.c
 *	  Any bytes as a token, and any bytes as the header and the claims of one.
 *
 * Checked: what is accepted is within its bounds, and the same bytes get the
 * same verdict again.
 */
#include "nc/auth/jwt.h"

#include <stdlib.h>
#include <string.h>

int			LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
check(bool fact)
{
	if (!fact)
		abort();
}

static void
parse(const char *token, size_t bytes)
{
	NcJwt		jwt;
	NcJwt		again;
	const char *wrong = nc_jwt_parse(token, bytes, &jwt);

	check(nc_jwt_parse(token, bytes, &again) == wrong);
	if (wrong != NULL)
		return;
	check(bytes <= NC_JWT_BYTES_MAX && jwt.signed_bytes < bytes && token[jwt.signed_bytes] == '.');
	check(jwt.tenant_id[0] == '\0' || strlen(jwt.tenant_id) == NC_JWT_TENANT_DIGITS);
	check(nc_jwt_check_time(&jwt, jwt.exp) == NULL || jwt.nbf > jwt.exp);
	if (jwt.scope == NC_SCOPE_TENANT && jwt.tenant_id[0] != '\0')
		check(nc_jwt_check_scope(&jwt, NC_SCOPE_PAGE_SERVER, jwt.tenant_id) == NULL);
	if (jwt.scope == NC_SCOPE_OTHER)
		check(nc_jwt_check_scope(&jwt, NC_SCOPE_OTHER, "") != NULL);
}

static size_t
encode(const uint8_t *data, size_t bytes, char *out)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
	size_t		n = 0;

	for (size_t bit = 0; bit < bytes * 8; bit += 6)
	{
		unsigned	pair = (unsigned) data[bit / 8] << 8 |
			(bit / 8 + 1 < bytes ? data[bit / 8 + 1] : 0);

		out[n++] = digits[pair >> (10 - bit % 8) & 63];
	}
	return n;
}

/* The bytes up to the first 0 are the header, the rest is the claims. */
static void
parse_parts(const uint8_t *data, size_t size)
{
	static const char good_header[] = "{\"alg\":\"EdDSA\"}";
	const uint8_t *nul = memchr(data, 0, size);
	const uint8_t *claims = nul == NULL ? data : nul + 1;
	uint8_t		signature[NC_JWT_SIGNATURE_BYTES] = {0};
	char	   *token = malloc(size * 2 + 200);
	size_t		n;

	if (nul == NULL)
		n = encode((const uint8_t *) good_header, strlen(good_header), token);
	else
		n = encode(data, (size_t) (nul - data), token);
	token[n++] = '.';
	n += encode(claims, (size_t) (data + size - claims), token + n);
	token[n++] = '.';
	n += encode(signature, sizeof(signature), token + n);
	parse(token, n);
	free(token);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	parse((const char *) data, size);
	parse_parts(data, size);
	return 0;
}
