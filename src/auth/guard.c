/*
 * guard.c
 *	  Loading certificate and keys, first and again.
 *
 * Runs in the page service and the WAL feed.
 */
#include "nc/auth/guard.h"

#include <stdio.h>

bool
nc_guard_take_certificate(NcGuard *guard, const char *cert_file, const char *key_file, char *err,
						  size_t err_bytes)
{
	NcTlsContext *tls = NULL;

	if ((cert_file[0] == '\0') != (key_file[0] == '\0'))
	{
		snprintf(err, err_bytes, "a certificate needs its private key and the other way round: only "
				 "one of the two files is set");
		return false;
	}
	if (cert_file[0] != '\0')
	{
		tls = nc_tls_context_load(cert_file, key_file, err, err_bytes);
		if (tls == NULL)
			return false;
	}
	nc_tls_context_free(guard->tls);
	guard->tls = tls;
	return true;
}

bool
nc_guard_take_keys(NcGuard *guard, const char *key_file, char *err, size_t err_bytes)
{
	NcAuthKeys *keys = NULL;

	if (key_file[0] != '\0')
	{
		guard->asks = true;
		keys = nc_auth_keys_load(key_file, err, err_bytes);
		if (keys == NULL)
			return false;
	}
	nc_auth_keys_free(guard->keys);
	guard->keys = keys;
	guard->asks = keys != NULL;
	return true;
}

int
nc_guard_take(NcGuard *guard, const char *cert_file, const char *key_file,
			  const char *auth_key_file, char why[NC_GUARD_REASONS][NC_GUARD_REASON_BYTES])
{
	int			n = 0;

	if (!nc_guard_take_certificate(guard, cert_file, key_file, why[n], NC_GUARD_REASON_BYTES))
		n++;
	if (!nc_guard_take_keys(guard, auth_key_file, why[n], NC_GUARD_REASON_BYTES))
		n++;
	return n;
}

const char *
nc_guard_judge(const NcGuard *guard, const uint8_t *password, size_t bytes, NcJwtScope wide,
			   const char *tenant_id, uint64_t now, NcJwt *jwt)
{
	if (bytes == 0 || password[bytes - 1] != '\0')
		return "it is not terminated";
	return nc_auth_judge(guard->keys, (const char *) password, bytes - 1, wide, tenant_id, now, jwt);
}

void
nc_guard_clear(NcGuard *guard)
{
	nc_tls_context_free(guard->tls);
	nc_auth_keys_free(guard->keys);
	*guard = (NcGuard) {0};
}
