/*
 * tokens.c
 *	  See tokens.h.
 */
#include "tokens.h"

#include <openssl/pem.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

size_t
tokens_base64url(const void *data, size_t bytes, char *out)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
	const uint8_t *p = data;
	size_t		n = 0;

	for (size_t bit = 0; bit < bytes * 8; bit += 6)
	{
		unsigned	pair = (unsigned) p[bit / 8] << 8 | (bit / 8 + 1 < bytes ? p[bit / 8 + 1] : 0);

		out[n++] = digits[pair >> (10 - bit % 8) & 63];
	}
	out[n] = '\0';
	return n;
}

void
tokens_sign(EVP_PKEY *key, const char *text, size_t bytes, uint8_t signature[64])
{
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	size_t		n = 64;

	if (EVP_DigestSignInit(ctx, NULL, NULL, NULL, key) != 1 ||
		EVP_DigestSign(ctx, signature, &n, (const uint8_t *) text, bytes) != 1)
		abort();
	EVP_MD_CTX_free(ctx);
}

char *
tokens_make(EVP_PKEY *key, const char *header, const char *claims)
{
	char	   *token = malloc(2 * (strlen(header) + strlen(claims)) + 200);
	uint8_t		signature[64];
	size_t		n = tokens_base64url(header, strlen(header), token);

	token[n++] = '.';
	n += tokens_base64url(claims, strlen(claims), token + n);
	tokens_sign(key, token, n, signature);
	token[n++] = '.';
	tokens_base64url(signature, sizeof(signature), token + n);
	return token;
}

void
tokens_write_keys(char *path_template, EVP_PKEY *key)
{
	int			fd = mkstemp(path_template);
	FILE	   *f = fd < 0 ? NULL : fdopen(fd, "w");

	if (f == NULL || PEM_write_PUBKEY(f, key) != 1)
		abort();
	fclose(f);
}
