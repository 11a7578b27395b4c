/*
 * nc/auth/keys.h
 *	  Public keys of who issues tokens, and the whole judgement of a token.
 *
 * Several keys are for rotation: a token is good when one of them made it.
 */
#ifndef NC_AUTH_KEYS_H
#define NC_AUTH_KEYS_H

#include "nc/auth/jwt.h"

#define NC_AUTH_KEYS_MAX 16

/* A file of keys longer than this is not one. */
#define NC_AUTH_FILE_BYTES_MAX (64 * 1024)

typedef struct NcAuthKeys NcAuthKeys;

/* Reads the Ed25519 public keys of a PEM file; NULL and a reason that names the file. */
NC_MUST_USE extern NcAuthKeys *nc_auth_keys_load(const char *path, char *err, size_t err_bytes);
extern void nc_auth_keys_free(NcAuthKeys *keys);
extern int	nc_auth_keys_count(const NcAuthKeys *keys);

/*
 * Judges a token: form, signature, time, scope; see nc_jwt_check_scope() for wide
 * and tenant.  NULL when it is good and out holds its claims, otherwise the
 * reason, as the end of a sentence that begins with "the token is refused: ".
 */
NC_MUST_USE extern const char *nc_auth_judge(const NcAuthKeys *keys, const char *token,
											 size_t bytes, NcJwtScope wide, const char *tenant,
											 uint64_t now_s, NcJwt *out);

#endif							/* NC_AUTH_KEYS_H */
