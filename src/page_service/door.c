/*
 * door.c
 *	  The page service as the host of its door (docs/serve.md): certificate and
 *	  keys, listening sockets, who may come in.
 *
 * Runs in page service workers, and for the check of files in the postmaster.
 */
#include "page_service.h"

#include <time.h>

#include "postmaster/postmaster.h"
#include "storage/fd.h"
#include "utils/timestamp.h"

/* For a client to take a last message, and to close. */
#define PATIENCE_US (5 * USECS_PER_SEC)

NcDoor		nc_svc_door;

static NcGuard guard;

/* Clients refused by earlier processes of this worker. */
static uint64 refused_before = 0;

static NcSvcSession *
session_of(NcVisitor *v)
{
	return (NcSvcSession *) v;
}

/* ---- certificate and keys ---- */

/* What of it could be loaded is in use; the number of reasons why not all. */
static int
load_service_guard(NcGuard *into, char why[NC_GUARD_REASONS][NC_GUARD_REASON_BYTES])
{
	NcGuardSettings settings = {
		.prefix = "neon_page_service.",
		.cert_file = nc_svc_ssl_cert_file,
		.key_file = nc_svc_ssl_key_file,
		.auth_key_file = nc_svc_auth_public_key_file,
		.others_connect = !nc_svc_allow_unauthenticated &&
			!nc_listen_is_loopback(nc_svc_listen_addresses),
		.had_certificate = nc_svc_had_certificate
	};

	return nc_guard_take(into, &settings, why);
}

void
nc_svc_door_check_files(void)
{
	NcGuard		probe = {0};
	char		why[NC_GUARD_REASONS][NC_GUARD_REASON_BYTES];

	if (load_service_guard(&probe, why) > 0)
		ereport(FATAL,
				(errcode(ERRCODE_CONFIG_FILE_ERROR),
				 errmsg("the page service cannot start: %s", why[0]),
				 errhint("See neon_page_service.ssl_cert_file, neon_page_service.ssl_key_file and "
						 "neon_page_service.auth_public_key_file.")));
	if (probe.asks && nc_svc_tenant_id[0] == '\0')
		ereport(FATAL,
				(errcode(ERRCODE_CONFIG_FILE_ERROR),
				 errmsg("neon_page_service.auth_public_key_file needs neon_page_service.tenant_id"),
				 errdetail("Otherwise the token of every tenant would do.")));
	nc_guard_clear(&probe);
}

static NcDoorSettings
load_service_settings(void)
{
	char		why[NC_GUARD_REASONS][NC_GUARD_REASON_BYTES];
	int			n = load_service_guard(&guard, why);

	for (int i = 0; i < n; i++)
		ereport(LOG, (errmsg("page service: %s", why[i])));
	if (guard.asks && nc_svc_tenant_id[0] == '\0')
		ereport(LOG, (errmsg("page service: neon_page_service.auth_public_key_file needs "
							 "neon_page_service.tenant_id: nobody gets in")));
	return (NcDoorSettings)
	{
		.require_ssl = nc_svc_require_ssl,
		.tenant_id = nc_svc_tenant_id,
		.login_us = (uint64) AuthenticationTimeout * USECS_PER_SEC,
		.silence_us = (uint64) nc_svc_idle_timeout * 1000,
		.patience_us = PATIENCE_US,
		.strangers_max = NC_SVC_LOGINS_MAX
	};
}

void
nc_svc_door_reload(void)
{
	NcDoorSettings settings = load_service_settings();

	nc_door_set(&nc_svc_door, &settings);
	if (nc_svc_worker_index == 0)
		nc_svc_warn_of_clear_text();
}

/* ---- listening ---- */

static void
report_fault(const NcListenFault *fault)
{
	if (fault->error == 0)
		ereport(LOG, (errmsg("page service: could not resolve listen address \"%s\": %s",
							 fault->address, fault->text)));
	else
		ereport(LOG,
				(errmsg("page service: could not listen on address \"%s\", port %d: %s",
						fault->address, nc_svc_port, fault->text),
				 fault->error == EADDRINUSE ?
				 errhint("Is another server using the port? Otherwise choose another one "
						 "with neon_page_service.port.") : 0));
}

/* A lock makes "first" certain; see src/serve/listener.c for what that is for. */
bool
nc_svc_door_listen(void)
{
	LWLock	   *lock = &nc_svc_shared->locks[NC_SVC_LOCK_LISTEN].lock;
	NcListenHow how = {.addresses = nc_svc_listen_addresses,.port = nc_svc_port,.names = true,
	.shared = true,.first = true};
	NcListenFault fault;
	int			fds[NC_LISTENERS_MAX];
	int			n;

	LWLockAcquire(lock, LW_EXCLUSIVE);
	for (int i = 0; i < nc_svc_workers; i++)
		how.first = how.first && !nc_svc_shared->workers[i].listening;
	n = nc_listen_open(&how, fds, &fault);
	nc_svc_self()->listening = n > 0;
	LWLockRelease(lock);
	if (n == 0)
	{
		report_fault(&fault);
		return false;
	}
	nc_door_listen(&nc_svc_door, fds, n);
	ereport(LOG, (errmsg("page service: worker %d listens on \"%s\", port %d",
						 nc_svc_worker_index, nc_svc_listen_addresses, nc_svc_port)));
	return true;
}

/* ---- the host of the door ---- */

static uint64_t
service_now_us(void)
{
	return (uint64_t) nc_svc_clock();
}

static uint64_t
service_unix_s(void)
{
	return (uint64_t) time(NULL);
}

static void
service_log_line(NcDoor *door, const char *text, const char *detail)
{
	ereport(LOG,
			(errmsg("%s", text),
			 detail ? errdetail_internal("%s", detail) : 0));
}

static void
publish(uint32 sessions)
{
	pg_atomic_write_u32(&nc_svc_self()->sessions, sessions);
	pg_atomic_write_u64(&nc_svc_self()->refused, refused_before + nc_svc_door.refused);
}

static bool
service_came(NcVisitor *v)
{
	ReserveExternalFD();
	publish(v->door->visitors + 1);
	return true;
}

static bool
service_startup(NcVisitor *v, const NcStartup *packet, NcRefusal *no)
{
	NcSvcSession *s = session_of(v);
	const char *options = nc_startup_param(packet, "options");
	int			found = options == NULL ? 0 : nc_reader_from_options(options, &s->reader);

	s->has_reader = found > 0;
	if (found < 0)
		*no = (NcRefusal) {.sqlstate = "22023",.message = "malformed neon_comm_identity in options"};
	return found >= 0;
}

/* Not before: strangers at a compute's address would take its places. */
static bool
service_place(NcVisitor *v, NcRefusal *no)
{
	if (nc_svc_max_connections_per_client == 0 ||
		nc_svc_client_sessions(v->machine) < nc_svc_max_connections_per_client)
		return true;
	*no = (NcRefusal)
	{
		.sqlstate = "53300",.message = "too many connections from one client: "
			"neon_page_service.max_connections_per_client is reached"
	};
	return false;
}

static void
opened(NcVisitor *v, const NcJwt *token)
{
	NcSvcSession *s = session_of(v);

	if (token != NULL && token->scope == NC_SCOPE_TENANT)
		strlcpy(s->token_tenant, token->tenant_id, sizeof(s->token_tenant));
	s->client = v->machine;
	nc_svc_client_add(s);
	nc_svc_client_logged_in(s);
}

static NcStep
service_message(NcVisitor *v)
{
	return nc_svc_session_message(session_of(v), (TimestampTz) v->door->now_us);
}

/* Who waits for us is not silent, nor who takes what we send. */
static bool
service_silent(NcVisitor *v)
{
	if (session_of(v)->wait_since != 0 || v->place == NC_PLACE_PARKED ||
		v->door->now_us < v->sent_us + v->door->settings.silence_us)
		return false;
	if (nc_channel_unsent(&v->channel) > 0)
		return true;
	nc_svc_session_end(session_of(v), "ERROR", "08006", "timeout: nothing received within "
					   "neon_page_service.idle_timeout");
	return false;
}

static void
service_gone(NcVisitor *v)
{
	NcSvcSession *s = session_of(v);

	nc_svc_boot_forget(s);
	nc_svc_cache_list_forget(s);
	nc_svc_client_leaves(s);
	nc_svc_client_remove(s);
	ReleaseExternalFD();
	publish(v->door->visitors);
}

static const char *const parameters[][2] = {
	{"client_encoding", "UTF8"},
	{"integer_datetimes", "on"},
	{"server_version", PG_VERSION},
	{NULL, NULL}
};

static const NcDoorHost host = {
	.name = "page service",
	.visitor_bytes = sizeof(NcSvcSession),
	.in_bytes = NC_SVC_IN_BYTES,
	.out_bytes = NC_SVC_OUT_BYTES,
	.answer_bytes = NC_SVC_ANSWER_BYTES,
	.full = NC_SVC_FLUSH_BYTES,
	.scope = NC_SCOPE_PAGE_SERVER,
	.parameters = parameters,
	.tls_wanted = {
		.sqlstate = "28000",
		.message = "must connect with TLS: set sslmode=verify-full (or turn "
		"neon_page_service.require_ssl off)"
	},
	.now_us = service_now_us,
	.unix_s = service_unix_s,
	.log = service_log_line,
	.came = service_came,
	.startup = service_startup,
	.place = service_place,
	.opened = opened,
	.message = service_message,
	.silent = service_silent,
	.gone = service_gone
};

void
nc_svc_door_init(NcLoop *loop)
{
	NcDoorSettings settings = load_service_settings();

	refused_before = pg_atomic_read_u64(&nc_svc_self()->refused);
	nc_door_init(&nc_svc_door, &host, loop, &guard, &settings);
}

void
nc_svc_door_turn(void)
{
	nc_door_turn(&nc_svc_door);
	publish(nc_svc_door.visitors);
}
