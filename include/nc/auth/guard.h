/*
 * nc/auth/guard.h
 *	  What stands at the door of a port of ours: the TLS certificate and the keys
 *	  that tokens are judged by.
 *
 * One in each process that accepts connections.  Loading anew replaces what can
 * be loaded and keeps what was there when it cannot.  A process that loads for the
 * first time has nothing to keep: then the door is shut.  Whatever a reload has
 * done to the settings, no process lets anybody in whom the server would not have
 * let in at its start.
 */
#ifndef NC_AUTH_GUARD_H
#define NC_AUTH_GUARD_H

#include "nc/auth/keys.h"
#include "nc/auth/tls.h"

typedef struct NcGuard
{
	NcTlsContext *tls;			/* NULL = TLS is not offered */
	NcAuthKeys *keys;			/* NULL = none, see asks */
	bool		asks;			/* a token is demanded; without keys none will do */
	bool		certified;		/* there is or was a certificate: TLS can be insisted on */
} NcGuard;

/* The settings of a port, and what they were when the server started. */
typedef struct NcGuardSettings
{
	const char *prefix;			/* of their names, for people */
	const char *cert_file;		/* "" = no TLS */
	const char *key_file;
	const char *auth_key_file;	/* "" = tokens are not asked for */
	bool		others_connect; /* from other machines, and nobody has allowed that without tokens */
	bool		had_certificate;	/* since the start of the server, now or before */
} NcGuardSettings;

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
 * taken, each in `why`: 0, 1 or NC_GUARD_REASONS.  A certificate that was there is
 * not given up by an empty setting, nor are keys while other machines can connect.
 */
#define NC_GUARD_REASONS 2
#define NC_GUARD_REASON_BYTES 512
NC_MUST_USE extern int nc_guard_take(NcGuard *guard, const NcGuardSettings *settings,
									 char why[NC_GUARD_REASONS][NC_GUARD_REASON_BYTES]);

/* Is a start-up packet in clear text to be refused, on a port that requires TLS or does not? */
static inline bool
nc_guard_insists(const NcGuard *guard, bool require_ssl)
{
	return require_ssl && guard->certified;
}

/*
 * Judges what a client sent as its password: `bytes` bytes that have to end with
 * NUL.  NULL when it is a token that may come in, else why not; the rest as
 * nc_auth_judge().  A port that does not know its tenant ("") lets nobody in: the
 * token of any tenant would do.
 */
NC_MUST_USE extern const char *nc_guard_judge(const NcGuard *guard, const uint8_t *password,
											  size_t bytes, NcJwtScope wide, const char *tenant_id,
											  uint64_t now, NcJwt *jwt);

extern void nc_guard_clear(NcGuard *guard);

#endif							/* NC_AUTH_GUARD_H */
