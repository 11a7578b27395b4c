/*
 * page_service.c
 *	  Module entry: settings, shared memory and workers of the page service.
 *
 * _PG_init runs in the postmaster while libraries are preloaded.  It refuses a
 * configuration that would expose pages to the network without authentication;
 * everything that can fail later (a port in use, a server that is no standby) is
 * the workers' business and never keeps the server from starting.
 */
#include "page_service.h"

#include <ctype.h>
#include <limits.h>

#include "fmgr.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "storage/shmem.h"
#include "utils/guc.h"

#include "compat.h"

PG_MODULE_MAGIC;

#define LIBRARY "neon_page_service"
#define ID_DIGITS 32

char	   *nc_svc_listen_addresses;
int			nc_svc_port;
int			nc_svc_workers;
int			nc_svc_max_connections;
int			nc_svc_max_connections_per_client;
int			nc_svc_max_requests_per_second;
char	   *nc_svc_ssl_cert_file;
char	   *nc_svc_ssl_key_file;
bool		nc_svc_require_ssl;
char	   *nc_svc_auth_public_key_file;
char	   *nc_svc_tenant_id;
char	   *nc_svc_timeline_id;
bool		nc_svc_lazy_replay;
bool		nc_svc_allow_unauthenticated;
int			nc_svc_wait_lsn_timeout;
int			nc_svc_idle_timeout;
int			nc_svc_shard_count;
int			nc_svc_shard_number;
int			nc_svc_stripe_size;

NcSvcShared *nc_svc_shared;
int			nc_svc_worker_index;

static shmem_request_hook_type previous_shmem_request;
static shmem_startup_hook_type previous_shmem_startup;

extern PGDLLEXPORT void _PG_init(void);

/* ---- settings ---- */

/* Empty, or 32 hexadecimal digits. */
static bool
check_id(char **newval, void **extra, GucSource source)
{
	size_t		digits = strspn(*newval, "0123456789abcdefABCDEF");

	if ((*newval)[digits] == '\0' && (digits == 0 || digits == ID_DIGITS))
		return true;
	GUC_check_errdetail("An id is %d hexadecimal digits, or empty to accept every id.", ID_DIGITS);
	return false;
}

static bool
check_listen_addresses(char **newval, void **extra, GucSource source)
{
	if ((*newval)[strspn(*newval, ", \t")] != '\0')
		return true;
	GUC_check_errdetail("At least one address is needed.");
	return false;
}

static void
define_network_settings(void)
{
	DefineCustomStringVariable(LIBRARY ".listen_addresses",
							   "Addresses the page service listens on.", NULL,
							   &nc_svc_listen_addresses, "127.0.0.1", PGC_POSTMASTER, 0,
							   check_listen_addresses, NULL, NULL);
	DefineCustomIntVariable(LIBRARY ".port", "Port the page service listens on.", NULL,
							&nc_svc_port, 64000, 1, 65535, PGC_POSTMASTER, 0, NULL, NULL, NULL);
	DefineCustomBoolVariable(LIBRARY ".allow_unauthenticated",
							 "Serves pages to other hosts although nobody is authenticated.", NULL,
							 &nc_svc_allow_unauthenticated, false, PGC_POSTMASTER, 0,
							 NULL, NULL, NULL);
	DefineCustomIntVariable(LIBRARY ".workers", "Number of page service processes.", NULL,
							&nc_svc_workers, 2, 1, NC_SVC_WORKERS_MAX, PGC_POSTMASTER, 0,
							NULL, NULL, NULL);
	DefineCustomIntVariable(LIBRARY ".max_connections",
							"Largest number of page service clients.", NULL,
							&nc_svc_max_connections, 500, 1, 10000, PGC_POSTMASTER, 0,
							NULL, NULL, NULL);
	DefineCustomIntVariable(LIBRARY ".max_connections_per_client",
							"Largest number of connections from one address.",
							"0 is no limit.",
							&nc_svc_max_connections_per_client, 0, 0, 10000, PGC_SIGHUP, 0,
							NULL, NULL, NULL);
	DefineCustomIntVariable(LIBRARY ".max_requests_per_second",
							"Requests that one connection may make; more are answered later.",
							"0 is no limit.",
							&nc_svc_max_requests_per_second, 0, 0, 1000000, PGC_SIGHUP, 0,
							NULL, NULL, NULL);
	DefineCustomIntVariable(LIBRARY ".idle_timeout",
							"Time without a byte from a client after which it is disconnected.",
							"0 disables the timeout.",
							&nc_svc_idle_timeout, 600 * 1000, 0, INT_MAX, PGC_SIGHUP, GUC_UNIT_MS,
							NULL, NULL, NULL);
}

static void
define_security_settings(void)
{
	DefineCustomStringVariable(LIBRARY ".ssl_cert_file", "Certificate (chain) shown to clients.",
							   "Empty: TLS is not offered.", &nc_svc_ssl_cert_file, "",
							   PGC_SIGHUP, GUC_SUPERUSER_ONLY, NULL, NULL, NULL);
	DefineCustomStringVariable(LIBRARY ".ssl_key_file", "Private key of the certificate.", NULL,
							   &nc_svc_ssl_key_file, "", PGC_SIGHUP, GUC_SUPERUSER_ONLY,
							   NULL, NULL, NULL);
	DefineCustomBoolVariable(LIBRARY ".require_ssl",
							 "Refuses clients without TLS, if there is a certificate.", NULL,
							 &nc_svc_require_ssl, true, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomStringVariable(LIBRARY ".auth_public_key_file",
							   "Ed25519 public keys (PEM) of who issues tokens.",
							   "Empty: clients are not authenticated.",
							   &nc_svc_auth_public_key_file, "", PGC_SIGHUP, GUC_SUPERUSER_ONLY,
							   NULL, NULL, NULL);
}

static void
define_serving_settings(void)
{
	DefineCustomStringVariable(LIBRARY ".tenant_id", "Tenant whose pages are served.",
							   "Empty accepts every tenant.", &nc_svc_tenant_id, "",
							   PGC_SIGHUP, 0, check_id, NULL, NULL);
	DefineCustomStringVariable(LIBRARY ".timeline_id", "Timeline whose pages are served.",
							   "Empty accepts every timeline.", &nc_svc_timeline_id, "",
							   PGC_SIGHUP, 0, check_id, NULL, NULL);
	DefineCustomIntVariable(LIBRARY ".wait_lsn_timeout",
							"Time a request waits for WAL before it is answered with an error.",
							NULL, &nc_svc_wait_lsn_timeout, 300 * 1000, 1, INT_MAX, PGC_SIGHUP,
							GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomBoolVariable(LIBRARY ".lazy_replay",
							 "Replays WAL only as far as requests demand (a test aid).", NULL,
							 &nc_svc_lazy_replay, false, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable(LIBRARY ".shard_count", "Number of shards of the tenant.",
							"0 serves every block.", &nc_svc_shard_count, 0, 0, 128, PGC_SIGHUP, 0,
							NULL, NULL, NULL);
	DefineCustomIntVariable(LIBRARY ".shard_number", "Which shard is served.", NULL,
							&nc_svc_shard_number, 0, 0, 127, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable(LIBRARY ".stripe_size", "Blocks per stripe, if there are shards.",
							NULL, &nc_svc_stripe_size, 0, 0, INT_MAX, PGC_SIGHUP, 0,
							NULL, NULL, NULL);
}

static const char *const setting_names[] = {
	LIBRARY ".listen_addresses", LIBRARY ".port", LIBRARY ".allow_unauthenticated",
	LIBRARY ".workers", LIBRARY ".max_connections", LIBRARY ".idle_timeout",
	LIBRARY ".max_connections_per_client", LIBRARY ".max_requests_per_second",
	LIBRARY ".ssl_cert_file", LIBRARY ".ssl_key_file", LIBRARY ".require_ssl",
	LIBRARY ".auth_public_key_file",
	LIBRARY ".tenant_id", LIBRARY ".timeline_id", LIBRARY ".wait_lsn_timeout",
	LIBRARY ".lazy_replay", LIBRARY ".shard_count", LIBRARY ".shard_number",
	LIBRARY ".stripe_size",
};

/*
 * The server takes the default, with a warning, for a value in the configuration
 * file that turns out to be invalid once the library defines its setting.  Here that
 * could mean another tenant's pages, so such a value ends the start.
 */
static void
define_settings(void)
{
	char	   *configured[lengthof(setting_names)];

	for (int i = 0; i < lengthof(setting_names); i++)
	{
		const char *value = GetConfigOption(setting_names[i], true, false);

		configured[i] = value == NULL ? NULL : pstrdup(value);
	}
	define_network_settings();
	define_security_settings();
	define_serving_settings();
	nc_svc_fault_define();
	MarkGUCPrefixReserved(LIBRARY);
	for (int i = 0; i < lengthof(setting_names); i++)
	{
		/* Only validates: the value is not changed. */
		if (configured[i] != NULL)
			(void) set_config_option(setting_names[i], configured[i], PGC_POSTMASTER, PGC_S_TEST,
									 GUC_ACTION_SET, false, FATAL, false);
	}
}

/* Pages hold everything, so whoever connects from elsewhere must prove who they are. */
static void
refuse_open_network(void)
{
	if (nc_svc_listener_is_loopback(nc_svc_listen_addresses))
		return;
	if (nc_svc_auth_public_key_file[0] == '\0' && !nc_svc_allow_unauthenticated)
		ereport(FATAL,
				(errcode(ERRCODE_CONFIG_FILE_ERROR),
				 errmsg("the page service would serve every page to everybody who reaches \"%s\"",
						nc_svc_listen_addresses),
				 errdetail("Clients are not authenticated, so only loopback addresses are allowed."),
				 errhint("Set %s.auth_public_key_file, or %s.listen_addresses to 127.0.0.1, or, in a "
						 "network that is closed by other means, %s.allow_unauthenticated to on.",
						 LIBRARY, LIBRARY, LIBRARY)));
	if (nc_svc_ssl_cert_file[0] == '\0' || !nc_svc_require_ssl)
		ereport(WARNING,
				(errmsg("the page service does not insist on TLS: pages and tokens can be read on "
						"the way to \"%s\"", nc_svc_listen_addresses),
				 errhint("Set %s.ssl_cert_file, %s.ssl_key_file and %s.require_ssl.",
						 LIBRARY, LIBRARY, LIBRARY)));
}

/* ---- shared memory ---- */

static void
request_shmem(void)
{
	if (previous_shmem_request != NULL)
		previous_shmem_request();
	RequestAddinShmemSpace(MAXALIGN(sizeof(NcSvcShared)));
	RequestNamedLWLockTranche(LIBRARY, NC_SVC_LOCKS);
}

static void
init_shared(NcSvcShared *shared)
{
	memset(shared, 0, sizeof(*shared));
	pg_atomic_init_u64(&shared->generation, 0);
	pg_atomic_init_u32(&shared->gate_closing, 0);
	pg_atomic_init_u32(&shared->consistent, 0);
	pg_atomic_init_u64(&shared->demanded_lsn, 0);
	pg_atomic_init_u32(&shared->startup_waits, 0);
	shared->locks = GetNamedLWLockTranche(LIBRARY);
	for (int i = 0; i < NC_SVC_WORKERS_MAX; i++)
	{
		for (int n = 0; n < NC_SVC_CLIENTS; n++)
		{
			pg_atomic_init_u64(&shared->workers[i].clients[n].key, 0);
			pg_atomic_init_u32(&shared->workers[i].clients[n].sessions, 0);
		}
		pg_atomic_init_u64(&shared->workers[i].refused, 0);
		pg_atomic_init_u64(&shared->workers[i].throttled, 0);
		pg_atomic_init_u64(&shared->workers[i].pages, 0);
		pg_atomic_init_u64(&shared->workers[i].requests, 0);
		pg_atomic_init_u64(&shared->workers[i].errors, 0);
		pg_atomic_init_u32(&shared->workers[i].sessions, 0);
		pg_atomic_init_u32(&shared->workers[i].waiting, 0);
	}
}

static void
startup_shmem(void)
{
	bool		found;

	if (previous_shmem_startup != NULL)
		previous_shmem_startup();
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	nc_svc_shared = ShmemInitStruct(LIBRARY, sizeof(NcSvcShared), &found);
	if (!found)
		init_shared(nc_svc_shared);
	LWLockRelease(AddinShmemInitLock);
}

/* ---- entry ---- */

static void
register_worker(int index)
{
	BackgroundWorker worker = {
		.bgw_flags = BGWORKER_SHMEM_ACCESS,
		.bgw_start_time = BgWorkerStart_PostmasterStart,
		.bgw_restart_time = 1,
		.bgw_main_arg = Int32GetDatum(index),
	};

	strlcpy(worker.bgw_library_name, LIBRARY, BGW_MAXLEN);
	strlcpy(worker.bgw_function_name, "nc_svc_worker_main", BGW_MAXLEN);
	strlcpy(worker.bgw_type, "neon page service", BGW_MAXLEN);
	snprintf(worker.bgw_name, BGW_MAXLEN, "neon page service %d", index);
	RegisterBackgroundWorker(&worker);
}

void
_PG_init(void)
{
	if (!process_shared_preload_libraries_in_progress)
		ereport(FATAL,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%s must be preloaded", LIBRARY),
				 errhint("Add it to shared_preload_libraries and restart the server.")));

	define_settings();
	refuse_open_network();
	nc_svc_guard_check_files();

	previous_shmem_request = shmem_request_hook;
	shmem_request_hook = request_shmem;
	previous_shmem_startup = shmem_startup_hook;
	shmem_startup_hook = startup_shmem;

	for (int i = 0; i < nc_svc_workers; i++)
		register_worker(i);
	nc_svc_gate_install();
}
