/*
 * nc/auth/guard.h
 *	  What stands at the door of a port of ours: the TLS certificate and the keys
 *	  that tokens are judged by.
 *
 * One in each process that accepts connections.  Loading anew replaces what can
 * be loaded and keeps what was there when it cannot; a guard that was told to
 * ask for tokens and never got a key lets nobody in.
 */
#ifndef NC_AUTH_GUARD_H
#define NC_AUTH_GUARD_H

#include "nc/auth/keys.h"
#include "nc/auth/tls.h"

typedef struct NcGuard
{
	NcTlsContext *tls;			/* NULL = TLS is not offered */
	NcAuthKeys *keys;			/* NULL = none, see asks */
	bool		asks;			/* a token is demanded */
} NcGuard;

/*
 * Takes a certificate and its key; both "" = no TLS.  False with a reason when
 * they cannot be used: then what was there stays.
 */
NC_MUST_USE extern bool nc_guard_take_certificate(NcGuard *guard, const char *cert_file,
												  const char *key_file, char *err,
												  size_t err_bytes);

/* The same for the file of public keys; "" = tokens are not asked for. */
NC_MUST_USE extern bool nc_guard_take_keys(NcGuard *guard, const char *key_file, char *err,
										   size_t err_bytes);

/*
 * Takes certificate and keys.  The number of reasons why not all of it could be
 * taken, each in `why`: 0, 1 or NC_GUARD_REASONS.
 */
#define NC_GUARD_REASONS 2
#define NC_GUARD_REASON_BYTES 512
NC_MUST_USE extern int nc_guard_take(NcGuard *guard, const char *cert_file, const char *key_file,
									 const char *auth_key_file,
									 char why[NC_GUARD_REASONS][NC_GUARD_REASON_BYTES]);

/*
 * Judges what a client sent as its password: `bytes` bytes that have to end with
 * NUL.  NULL when it is a token that may come in, else why not; the rest as
 * nc_auth_judge().
 */
NC_MUST_USE extern const char *nc_guard_judge(const NcGuard *guard, const uint8_t *password,
											  size_t bytes, NcJwtScope wide, const char *tenant_id,
											  uint64_t now, NcJwt *jwt);

extern void nc_guard_clear(NcGuard *guard);

#endif							/* NC_AUTH_GUARD_H */
