/*
 * tokens.h
 *	  Tokens with real signatures, for tests.
 */
#ifndef TOKENS_H
#define TOKENS_H

#include <openssl/evp.h>
#include <stdint.h>

/* Writes the text and a NUL; its length. */
extern size_t tokens_base64url(const void *data, size_t bytes, char *out);

extern void tokens_sign(EVP_PKEY *key, const char *text, size_t bytes, uint8_t signature[64]);

/* A token on the heap. */
extern char *tokens_make(EVP_PKEY *key, const char *header, const char *claims);

/* Makes a file of public keys with a name like the template's. */
extern void tokens_write_keys(char *path_template, EVP_PKEY *key);

#endif							/* TOKENS_H */
