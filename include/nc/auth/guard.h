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

extern void nc_guard_clear(NcGuard *guard);

#endif							/* NC_AUTH_GUARD_H */
