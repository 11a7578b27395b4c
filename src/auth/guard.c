/*
 * guard.c
 *	  Loading certificate and keys, first and again.
 *
 * Runs in the page service and the WAL feed.
 */
#include "nc/auth/guard.h"

#include <stdio.h>
#include <string.h>

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

static void
add_what_stays(char *why, bool loaded)
{
	size_t		n = strlen(why);

	if (loaded)
		snprintf(why + n, NC_GUARD_REASON_BYTES - n, ": what was loaded before stays in use");
}

static bool
certificate(NcGuard *guard, const NcGuardSettings *settings, char *why)
{
	bool		emptied = settings->cert_file[0] == '\0' && settings->key_file[0] == '\0';

	guard->certified = guard->certified || settings->had_certificate ||
		settings->cert_file[0] != '\0';
	if (emptied && guard->certified)
		snprintf(why, NC_GUARD_REASON_BYTES, "%sssl_cert_file was emptied while the server runs: %s "
				 "(%srequire_ssl = off lets clients in without TLS)", settings->prefix,
				 guard->tls != NULL ? "the certificate loaded before stays in use" :
				 "this process has no certificate, and nobody gets in", settings->prefix);
	else if (nc_guard_take_certificate(guard, settings->cert_file, settings->key_file, why,
									   NC_GUARD_REASON_BYTES))
		return true;
	else
		add_what_stays(why, guard->tls != NULL);
	return false;
}

static bool
keys(NcGuard *guard, const NcGuardSettings *settings, char *why)
{
	if (settings->auth_key_file[0] == '\0' && settings->others_connect)
	{
		guard->asks = true;
		snprintf(why, NC_GUARD_REASON_BYTES, "%sauth_public_key_file was emptied, but other hosts "
				 "can connect: %s", settings->prefix, guard->keys != NULL ?
				 "the keys loaded before stay in force" :
				 "this process has no keys, and nobody gets in");
	}
	else if (nc_guard_take_keys(guard, settings->auth_key_file, why, NC_GUARD_REASON_BYTES))
		return true;
	else
		add_what_stays(why, guard->keys != NULL);
	return false;
}

int
nc_guard_take(NcGuard *guard, const NcGuardSettings *settings,
			  char why[NC_GUARD_REASONS][NC_GUARD_REASON_BYTES])
{
	int			n = 0;

	if (!certificate(guard, settings, why[n]))
		n++;
	if (!keys(guard, settings, why[n]))
		n++;
	return n;
}

const char *
nc_guard_judge(const NcGuard *guard, const uint8_t *password, size_t bytes, NcJwtScope wide,
			   const char *tenant_id, uint64_t now, NcJwt *jwt)
{
	if (bytes == 0 || password[bytes - 1] != '\0')
		return "it is not terminated";
	if (tenant_id[0] == '\0')
		return "tenant_id is not set here, and the token of every tenant would do";
	return nc_auth_judge(guard->keys, (const char *) password, bytes - 1, wide, tenant_id, now, jwt);
}

void
nc_guard_clear(NcGuard *guard)
{
	nc_tls_context_free(guard->tls);
	nc_auth_keys_free(guard->keys);
	*guard = (NcGuard) {0};
}
