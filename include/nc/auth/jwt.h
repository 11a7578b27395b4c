/*
 * nc/auth/jwt.h
 *	  JSON Web Tokens as page servers take them: their parts and what they claim.
 *
 * A token is three base64url texts joined by dots: a JSON header, JSON claims,
 * an Ed25519 signature.  Here the text is taken apart and judged; keys.h knows
 * whether the signature is right, and only then do the claims mean anything.
 * Nothing here allocates, and no reason that is given holds any of the token.
 */
#ifndef NC_AUTH_JWT_H
#define NC_AUTH_JWT_H

#include "nc/base/check.h"

/* Longer tokens are refused before they are looked at; real ones have some 300 bytes. */
#define NC_JWT_BYTES_MAX 4096

/* Clocks of issuer and server may differ by so much, in seconds. */
#define NC_JWT_LEEWAY_S 60

#define NC_JWT_SIGNATURE_BYTES 64
#define NC_JWT_TENANT_DIGITS 32

typedef enum NcJwtScope
{
	NC_SCOPE_OTHER = 0,			/* one that opens nothing here */
	NC_SCOPE_TENANT,			/* "tenant": one tenant, tenant_id says which */
	NC_SCOPE_PAGE_SERVER,		/* "pageserverapi": every tenant of page servers */
	NC_SCOPE_SAFEKEEPER,		/* "safekeeperdata": the WAL of every tenant */
	NC_SCOPE_METRICS			/* "metrics": figures of every tenant, and no data of any */
} NcJwtScope;

typedef struct NcJwt
{
	NcJwtScope	scope;
	char		tenant_id[NC_JWT_TENANT_DIGITS + 1];	/* lower case; "" = none */
	bool		has_exp;
	bool		has_nbf;
	uint64_t	exp;			/* seconds since 1970 */
	uint64_t	nbf;
	size_t		signed_bytes;	/* the signature is over the first so many bytes of the text */
	uint8_t		signature[NC_JWT_SIGNATURE_BYTES];
} NcJwt;

/*
 * Takes a token apart.  NULL when it is well formed, says alg EdDSA and claims
 * nothing that is not understood but matters; otherwise the reason.
 */
NC_MUST_USE extern const char *nc_jwt_parse(const char *token, size_t bytes, NcJwt *out);

/* NULL when it is valid at this time (seconds since 1970), otherwise the reason. */
NC_MUST_USE extern const char *nc_jwt_check_time(const NcJwt *jwt, uint64_t now_s);

/*
 * NULL when it opens the data of the tenant; wide is the scope that opens every
 * tenant's.  tenant "" = not known yet: a token for some tenant will do for now.
 */
NC_MUST_USE extern const char *nc_jwt_check_scope(const NcJwt *jwt, NcJwtScope wide,
												  const char *tenant);

#endif							/* NC_AUTH_JWT_H */
