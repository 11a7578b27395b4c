/*
 * page_service.c
 *	  Module entry: settings, shared memory and workers of the page service.
 *
 * _PG_init runs in the postmaster while libraries are preloaded.  It refuses a
 * configuration that would expose pages to the network without authentication,
 * and a directory that is not a standby's; everything that can fail later (a port
 * in use, a promotion) is the workers' business and never keeps the server from
 * starting.
 */
#include "page_service.h"

#include <ctype.h>
#include <limits.h>

#include "fmgr.h"
#include "catalog/pg_authid.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "storage/shmem.h"
#include "utils/guc.h"

#include "access/xlog.h"
#include "access/xlogrecovery.h"
#include "compat.h"
#include "nc/safety/directory.h"
#include "nc/safety/environment.h"
#include "nc/safety/kind_of_server.h"
#include "nc/safety/settings.h"
#include "nc/safety/workers.h"
#include "nc/shard/shard_map.h"

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
bool		nc_svc_allow_token_in_clear;
bool		nc_svc_had_certificate = false;
char	   *nc_svc_auth_public_key_file;
char	   *nc_svc_tenant_id;
char	   *nc_svc_timeline_id;
bool		nc_svc_lazy_replay;
int			nc_svc_boot_form = NC_SVC_BOOT_OWN;
bool		nc_svc_allow_unauthenticated;
bool		nc_svc_allow_any_primary;
bool		nc_svc_allow_unsafe;
int			nc_svc_wait_lsn_timeout;
int			nc_svc_idle_timeout;
int			nc_svc_lease_ms = NC_LEASE_DEFAULT_MS;
char	   *nc_svc_metrics_listen_addresses;
int			nc_svc_metrics_port;
char	   *nc_svc_metrics_ssl_cert_file;
char	   *nc_svc_metrics_ssl_key_file;
bool		nc_svc_metrics_require_ssl;
char	   *nc_svc_metrics_auth_public_key_file;
bool		nc_svc_metrics_had_certificate = false;

NcSvcShared *nc_svc_shared;
int			nc_svc_worker_index;

uint32		nc_svc_wait_main;		/* a worker without work */
uint32		nc_svc_wait_lazy_replay;	/* replay that nobody demands */
uint32		nc_svc_wait_exporter;	/* nobody asks for metrics */
uint32		nc_svc_wait_tracer;		/* nothing is traced */

static shmem_request_hook_type previous_shmem_request;
static shmem_startup_hook_type previous_shmem_startup;

extern PGDLLEXPORT void _PG_init(void);

/* ---- settings ---- */

static const struct config_enum_entry boot_forms[] = {
	{"own", NC_SVC_BOOT_OWN, false},
	{"neon", NC_SVC_BOOT_NEON, false},
	{NULL, 0, false}
};

/* Empty, or 32 hexadecimal digits. */
static bool
check_service_id(char **newval, void **extra, GucSource source)
{
	size_t		digits = strspn(*newval, "0123456789abcdefABCDEF");

	if ((*newval)[digits] == '\0' && (digits == 0 || digits == ID_DIGITS))
		return true;
	GUC_check_errdetail("An id is %d hexadecimal digits, or empty to accept every id.", ID_DIGITS);
	return false;
}

static bool
check_service_addresses(char **newval, void **extra, GucSource source)
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
							   "Addresses the page service listens on.",
							   "IP addresses or localhost, separated by commas. One that is not loopback needs auth_public_key_file or allow_unauthenticated.",
							   &nc_svc_listen_addresses, "127.0.0.1", PGC_POSTMASTER, 0,
							   check_service_addresses, NULL, NULL);
	DefineCustomIntVariable(LIBRARY ".port", "Port the page service listens on.",
							"It is another one than the server's own.",
							&nc_svc_port, 64000, 1, 65535, PGC_POSTMASTER, 0, NULL, NULL, NULL);
	DefineCustomBoolVariable(LIBRARY ".allow_unauthenticated",
							 "Serves pages to other hosts although nobody is authenticated.",
							 "To whoever reaches the port: for networks that are closed by other means.",
							 &nc_svc_allow_unauthenticated, false, PGC_POSTMASTER, 0,
							 NULL, NULL, NULL);
	DefineCustomIntVariable(LIBRARY ".workers", "Number of page service processes.",
							"Count them in max_worker_processes.",
							&nc_svc_workers, 2, 1, NC_SVC_WORKERS_MAX, PGC_POSTMASTER, 0,
							NULL, NULL, NULL);
	DefineCustomIntVariable(LIBRARY ".max_connections",
							"Largest number of page service clients that have logged in.",
							"One more displaces the most idle one of the address that has most.",
							&nc_svc_max_connections, 500, 1, 10000, PGC_POSTMASTER, 0,
							NULL, NULL, NULL);
	DefineCustomIntVariable(LIBRARY ".max_connections_per_client",
							"Largest number of clients from one address that have logged in.",
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

/* Also runs in the postmaster, whose memory every later process begins with. */
static void
assign_service_cert_file(const char *newval, void *extra)
{
	nc_svc_had_certificate = nc_svc_had_certificate || newval[0] != '\0';
}

static void
define_security_settings(void)
{
	DefineCustomStringVariable(LIBRARY ".ssl_cert_file", "Certificate (chain) shown to clients.",
							   "Empty: TLS is not offered.", &nc_svc_ssl_cert_file, "",
							   PGC_SIGHUP, GUC_SUPERUSER_ONLY, NULL, assign_service_cert_file,
							   NULL);
	DefineCustomStringVariable(LIBRARY ".ssl_key_file", "Private key of the certificate.",
							   "Without a passphrase, mode 0600 (0640 if it belongs to root).",
							   &nc_svc_ssl_key_file, "", PGC_SIGHUP, GUC_SUPERUSER_ONLY,
							   NULL, NULL, NULL);
	DefineCustomBoolVariable(LIBRARY ".allow_token_in_clear",
							 "Sends the token of primary_conninfo also to machines whose certificate is not verified.",
							 "For networks that are closed by other means. Each start warns.",
							 &nc_svc_allow_token_in_clear, false, PGC_POSTMASTER, 0,
							 NULL, NULL, NULL);
	DefineCustomBoolVariable(LIBRARY ".require_ssl",
							 "Refuses clients without TLS, if there is a certificate.",
							 "Without a certificate it has no effect.",
							 &nc_svc_require_ssl, true, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomStringVariable(LIBRARY ".auth_public_key_file",
							   "Ed25519 public keys (PEM) of who issues tokens.",
							   "Empty: clients are not authenticated.",
							   &nc_svc_auth_public_key_file, "", PGC_SIGHUP, GUC_SUPERUSER_ONLY,
							   NULL, NULL, NULL);
}

static bool
check_metrics_addresses(char **newval, void **extra, GucSource source)
{
	return nc_exporter_addresses_good(*newval);
}

static void
assign_metrics_cert_file(const char *newval, void *extra)
{
	nc_svc_metrics_had_certificate = nc_svc_metrics_had_certificate || newval[0] != '\0';
}

static void
define_metrics_settings(void)
{
	DefineCustomStringVariable(LIBRARY ".metrics_listen_addresses", "Addresses on which the exporter answers, and paths of Unix sockets.",
							   "IP addresses, localhost or absolute paths, separated by commas. One that is neither loopback nor a path needs metrics_auth_public_key_file.",
							   &nc_svc_metrics_listen_addresses, "127.0.0.1", PGC_POSTMASTER, 0,
							   check_metrics_addresses, NULL, NULL);
	DefineCustomIntVariable(LIBRARY ".metrics_port", "TCP port on which the exporter answers; 0 = on none.",
							"It is a background worker: count it in max_worker_processes.",
							&nc_svc_metrics_port, 0, 0, 65535, PGC_POSTMASTER, 0, NULL, NULL, NULL);
	DefineCustomStringVariable(LIBRARY ".metrics_ssl_cert_file", "Certificate (chain) that the exporter shows.",
							   "Empty: TLS is not offered.", &nc_svc_metrics_ssl_cert_file, "",
							   PGC_SIGHUP, GUC_SUPERUSER_ONLY, NULL, assign_metrics_cert_file, NULL);
	DefineCustomStringVariable(LIBRARY ".metrics_ssl_key_file", "Private key of the certificate of the exporter.",
							   "Without a passphrase, mode 0600 (0640 if it belongs to root).",
							   &nc_svc_metrics_ssl_key_file, "", PGC_SIGHUP, GUC_SUPERUSER_ONLY,
							   NULL, NULL, NULL);
	DefineCustomBoolVariable(LIBRARY ".metrics_require_ssl",
							 "Refuses to answer without TLS, if there is a certificate.",
							 "Without a certificate it has no effect.",
							 &nc_svc_metrics_require_ssl, true, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomStringVariable(LIBRARY ".metrics_auth_public_key_file",
							   "Ed25519 public keys (PEM) of who issues tokens.",
							   "Empty: who asks for metrics is not authenticated.",
							   &nc_svc_metrics_auth_public_key_file, "", PGC_SIGHUP, GUC_SUPERUSER_ONLY,
							   NULL, NULL, NULL);
}

static void
define_serving_settings(void)
{
	DefineCustomBoolVariable(LIBRARY ".allow_unsafe",
							 "Allows settings of the server with which pages can be lost or wrong.",
							 "Each start with such a setting warns. Also lets a directory start after pg_resetwal.",
							 &nc_svc_allow_unsafe, false, PGC_POSTMASTER, 0, NULL, NULL, NULL);
	DefineCustomStringVariable(LIBRARY ".tenant_id", "Tenant whose pages are served.",
							   "Empty accepts every tenant.", &nc_svc_tenant_id, "",
							   PGC_SIGHUP, 0, check_service_id, NULL, NULL);
	DefineCustomStringVariable(LIBRARY ".timeline_id", "Timeline whose pages are served.",
							   "Empty accepts every timeline.", &nc_svc_timeline_id, "",
							   PGC_SIGHUP, 0, check_service_id, NULL, NULL);
	DefineCustomIntVariable(LIBRARY ".wait_lsn_timeout",
							"Time a request waits for WAL before it is answered with an error.",
							"The compute then asks again.",
							&nc_svc_wait_lsn_timeout, 300 * 1000, 1, INT_MAX, PGC_SIGHUP,
							GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable(LIBRARY ".lease",
							"How long a compute may answer after it has asked this page server.",
							"A takeover waits as long for a compute that cannot be reached.",
							&nc_svc_lease_ms, NC_LEASE_DEFAULT_MS, NC_LEASE_MIN_MS, NC_LEASE_MAX_MS, PGC_POSTMASTER,
							GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomBoolVariable(LIBRARY ".allow_any_primary",
							 "Follows a server that is no compute with a WAL feed.",
							 "Nothing then tells whether their histories are the same.",
							 &nc_svc_allow_any_primary, false, PGC_POSTMASTER, 0, NULL, NULL, NULL);
	DefineCustomBoolVariable(LIBRARY ".lazy_replay",
							 "Replays WAL only as far as requests demand (a test aid).",
							 "Finds reads that ask for too old a version.",
							 &nc_svc_lazy_replay, false, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomEnumVariable(LIBRARY ".boot_image", "Form of the image that a new compute begins with.",
							 "\"neon\" is that of Neon's page servers: no lengths, no maps, no WAL.",
							 &nc_svc_boot_form, NC_SVC_BOOT_OWN, boot_forms, PGC_SIGHUP, 0, NULL, NULL, NULL);
	nc_svc_shards_define();
}

/*
 * What a page server loses, or takes for right although it is not, is lost for good:
 * compute and page servers have one copy of each page. WAL comes from the compute
 * alone, and all of it.
 */
static const NcSafeSetting safe_settings[] = {
	{"fsync", "on", NULL,
	"After a crash this server would lack WAL that it has confirmed, and the compute keeps it no longer."},
	{"zero_damaged_pages", "off", NULL,
	"A damaged page would be replaced by an empty one, and the empty one served."},
	{"ignore_checksum_failure", "off", NULL,
	"A damaged page would be served, with a checksum that is right."},
	{"ignore_invalid_pages", "off", NULL,
	"Replay would pass over changes of pages that it does not find."},
	{"data_sync_retry", "off", NULL,
	"What a failed fsync has lost would be taken for written."},
	{"restore_command", "", NULL,
	"WAL from elsewhere may be of another history than the compute's."},
	{"recovery_target", "", NULL, "Replay would end before the compute's WAL does."},
	{"recovery_target_lsn", "", NULL, "Replay would end before the compute's WAL does."},
	{"recovery_target_name", "", NULL, "Replay would end before the compute's WAL does."},
	{"recovery_target_time", "", NULL, "Replay would end before the compute's WAL does."},
	{"recovery_target_xid", "", NULL, "Replay would end before the compute's WAL does."},
	{"sync_replication_slots", "off", NULL,
	"The WAL feed that primary_conninfo leads to has no slots to copy, and would be asked for them again and again."},
	{"recovery_min_apply_delay", "0", NULL, "Every read of a page that was changed lately would wait for as long."},
	{"promote_trigger_file", "", NULL,
	"A page server that is promoted writes WAL of its own and can never be one again."},
};

/* With hot_standby = off: nobody can log in, and some processes are never started. */
static const NcSafeSetting without_queries[] = {
	{"summarize_wal", "off", NULL,
	"With hot_standby = off nothing summarizes WAL, and all of it is kept until that is done: the disk would fill up."},
};

static const char *const setting_names[] = {
	LIBRARY ".listen_addresses", LIBRARY ".port", LIBRARY ".allow_unauthenticated", LIBRARY ".allow_unsafe",
	LIBRARY ".allow_token_in_clear",
	LIBRARY ".workers", LIBRARY ".max_connections", LIBRARY ".idle_timeout",
	LIBRARY ".max_connections_per_client", LIBRARY ".max_requests_per_second",
	LIBRARY ".ssl_cert_file", LIBRARY ".ssl_key_file", LIBRARY ".require_ssl",
	LIBRARY ".auth_public_key_file",
	LIBRARY ".tenant_id", LIBRARY ".timeline_id", LIBRARY ".wait_lsn_timeout",
	LIBRARY ".lazy_replay", LIBRARY ".boot_image", LIBRARY ".shard_count", LIBRARY ".shard_number",
	LIBRARY ".stripe_size", LIBRARY ".allow_any_primary", LIBRARY ".lease",
	LIBRARY ".metrics_listen_addresses", LIBRARY ".metrics_port", LIBRARY ".metrics_ssl_cert_file",
	LIBRARY ".metrics_ssl_key_file", LIBRARY ".metrics_require_ssl", LIBRARY ".metrics_auth_public_key_file",
	LIBRARY ".trace_collector", LIBRARY ".trace_file", LIBRARY ".trace_file_size",
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
	define_metrics_settings();
	nc_svc_trace_define();
	nc_svc_fault_define();
	MarkGUCPrefixReserved(LIBRARY);
	for (int i = 0; i < lengthof(setting_names); i++)
	{
		/* Only validates: the value is not changed.  The postmaster has no user whose right that were. */
		if (configured[i] != NULL)
			(void) set_config_option_ext(setting_names[i], configured[i], PGC_POSTMASTER, PGC_S_TEST,
										 BOOTSTRAP_SUPERUSERID, GUC_ACTION_SET, false, FATAL, false);
	}
}

/* Pages hold everything, so whoever connects from elsewhere must prove who they are. */
static void
refuse_open_network(void)
{
	if (nc_listen_is_loopback(nc_svc_listen_addresses))
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
	nc_svc_warn_of_clear_text();
}

void
nc_svc_warn_of_clear_text(void)
{
	if (!nc_listen_is_loopback(nc_svc_listen_addresses) &&
		(!nc_svc_had_certificate || !nc_svc_require_ssl))
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
	RequestAddinShmemSpace(MAXALIGN(nc_svc_prepared_shmem_bytes()));
	RequestAddinShmemSpace(nc_svc_trace_shmem_bytes());
	RequestNamedLWLockTranche(LIBRARY, NC_SVC_LOCKS);
}

static void
init_service_shared(NcSvcShared *shared)
{
	memset(shared, 0, sizeof(*shared));
	pg_atomic_init_u64(&shared->generation, 0);
	pg_atomic_init_u32(&shared->gate_closing, 0);
	pg_atomic_init_u32(&shared->cut_wanted, 0);
	pg_atomic_init_u32(&shared->consistent, 0);
	pg_atomic_init_u32(&shared->came_to_end, 0);
	pg_atomic_init_u64(&shared->boot_images, 0);
	pg_atomic_init_u64(&shared->boot_held_us, 0);
	pg_atomic_init_u64(&shared->demanded_lsn, 0);
	pg_atomic_init_u32(&shared->join_wanted, 0);
	pg_atomic_init_u32(&shared->startup_waits, 0);
	SpinLockInit(&shared->replayed_lock);
	pg_atomic_init_u64(&shared->judged_lsn, 0);
	pg_atomic_init_u32(&shared->unjudged, NC_UNJUDGED_NONE);
	pg_atomic_init_u32(&shared->unjudged_kept, 0);
	SpinLockInit(&shared->joins_lock);
	pg_atomic_init_u32(&shared->joins_changes, 0);
	pg_atomic_init_u32(&shared->promises, 0);
	pg_atomic_init_u32(&shared->joined_under, 0);
	pg_atomic_init_u32(&shared->joined_pid, 0);
	pg_atomic_init_u32(&shared->published_at, 0);
	shared->locks = GetNamedLWLockTranche(LIBRARY);
	for (int i = 0; i < NC_SVC_WORKERS_MAX; i++)
	{
		for (int n = 0; n < NC_SVC_CLIENTS; n++)
		{
			pg_atomic_init_u64(&shared->workers[i].clients[n].key, 0);
			pg_atomic_init_u32(&shared->workers[i].clients[n].sessions, 0);
		}
		pg_atomic_init_u64(&shared->workers[i].refused, 0);
		pg_atomic_init_u64(&shared->workers[i].over_rate, 0);
		pg_atomic_init_u64(&shared->workers[i].pages, 0);
		pg_atomic_init_u64(&shared->workers[i].requests, 0);
		pg_atomic_init_u64(&shared->workers[i].errors, 0);
		pg_atomic_init_u32(&shared->workers[i].sessions, 0);
		pg_atomic_init_u32(&shared->workers[i].logged_in, 0);
		pg_atomic_init_u32(&shared->workers[i].displace, 0);
		pg_atomic_init_u32(&shared->workers[i].waiting, 0);
		for (int n = 0; n < NC_SVC_CLASSES; n++)
			pg_atomic_init_u64(&shared->workers[i].by_class[n], 0);
		pg_atomic_init_u64(&shared->workers[i].buffer_hits, 0);
		pg_atomic_init_u64(&shared->workers[i].buffer_reads, 0);
	}
}

/* In the postmaster, again after each crash restart. */
static void
startup_shmem(void)
{
	bool		found;

	if (previous_shmem_startup != NULL)
		previous_shmem_startup();
	/* the startup process looks for recovery modes again, too */
	if (!IsUnderPostmaster)
		nc_directory_check_standby();
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	nc_svc_shared = ShmemInitStruct(LIBRARY, sizeof(NcSvcShared), &found);
	if (!found)
	{
		init_service_shared(nc_svc_shared);
		nc_svc_promise_start();
		nc_svc_lease_start();
	}
	nc_svc_prepared_shmem_init();
	nc_svc_trace_shmem_init();
	LWLockRelease(AddinShmemInitLock);
	/* children inherit them: while they wait they look nothing up */
	nc_svc_wait_main = nc_svc_wait_event("NeonPageServiceMain");
	nc_svc_wait_lazy_replay = nc_svc_wait_event("NeonLazyReplay");
	nc_svc_wait_exporter = nc_svc_wait_event("NeonExporterMain");
	nc_svc_wait_tracer = nc_svc_wait_event("NeonTracerMain");
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
	nc_workers_register(&worker);
}

static void
register_exporter(void)
{
	BackgroundWorker worker = {
		.bgw_flags = BGWORKER_SHMEM_ACCESS,
		.bgw_start_time = BgWorkerStart_PostmasterStart,
		.bgw_restart_time = 1,
	};

	strlcpy(worker.bgw_library_name, LIBRARY, BGW_MAXLEN);
	strlcpy(worker.bgw_function_name, "nc_svc_exporter_main", BGW_MAXLEN);
	strlcpy(worker.bgw_type, nc_svc_exporter.name, BGW_MAXLEN);
	strlcpy(worker.bgw_name, nc_svc_exporter.name, BGW_MAXLEN);
	nc_workers_register(&worker);
}

/*
 * Tablespaces of a compute have no location: they are directories in pg_tblspc.  The
 * server makes and drops them in redo as it is told, but at a later start recovery
 * would take them for leftovers and PANIC.  Nothing can lift this in a file.
 */
static void
take_directories_for_tablespaces(void)
{
	SetConfigOption("allow_in_place_tablespaces", "on", PGC_POSTMASTER, PGC_S_OVERRIDE);
}

void
_PG_init(void)
{
	nc_kind_of_server_check(LIBRARY);
	if (!process_shared_preload_libraries_in_progress)
		ereport(FATAL,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%s must be preloaded", LIBRARY),
				 errhint("Add it to shared_preload_libraries and restart the server.")));

	nc_environment_forget("They would change what primary_conninfo means.");
	define_settings();
	nc_directory_check_upgrade("page server");
	/* before anything is written into the directory */
	nc_directory_check_standby();
	nc_directory_check_reset("page server", nc_svc_allow_unsafe);
	nc_directory_check_checksums("page server", LIBRARY ".checksums");
	nc_safe_settings(safe_settings, lengthof(safe_settings), LIBRARY ".allow_unsafe", nc_svc_allow_unsafe);
	if (!EnableHotStandby)
		nc_safe_settings(without_queries, lengthof(without_queries), LIBRARY ".allow_unsafe", nc_svc_allow_unsafe);
	refuse_open_network();
	nc_svc_check_primary_conninfo(PrimaryConnInfo, FATAL);
	nc_svc_door_check_files();
	nc_exporter_check(&nc_svc_exporter);
	nc_svc_identity_start();

	previous_shmem_request = shmem_request_hook;
	shmem_request_hook = request_shmem;
	previous_shmem_startup = shmem_startup_hook;
	shmem_startup_hook = startup_shmem;

	for (int i = 0; i < nc_svc_workers; i++)
		register_worker(i);
	if (nc_exporter_wanted(&nc_svc_exporter))
		register_exporter();
	nc_svc_trace_register();
	nc_workers_check(LIBRARY);
	nc_svc_gate_install();
	nc_svc_join_install();
	take_directories_for_tablespaces();
}
