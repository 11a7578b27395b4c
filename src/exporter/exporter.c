/*
 * exporter.c
 *	  The exporter as the host of its door (docs/serve.md), and its loop.
 *
 * Runs in the worker "neon_comm exporter" of a compute and "neon page service
 * exporter" of a page server, and for the check of settings in the postmaster.
 * Guarantees bounded memory and time whoever asks: one request to a connection, few
 * connections, an answer of a bounded length that must be taken soon.
 */
#include "postgres.h"

#include <arpa/inet.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "miscadmin.h"
#include "postmaster/postmaster.h"
#include "storage/ipc.h"
#include "storage/pmsignal.h"
#include "utils/guc.h"
#include "utils/wait_event.h"

#include "nc/base/clock.h"
#include "nc/exporter/exporter.h"

/* Visitors who have not asked yet, and as many whose answer is on its way. */
#define VISITORS_MAX 16

/* The longest answer. Nothing of it is touched before it is needed. */
#define ANSWER_BYTES (1024 * 1024)

/* For an answer to be taken. */
#define PATIENCE_US (10 * UINT64CONST(1000000))

#define LISTEN_RETRY_US (5 * UINT64CONST(1000000))

static const NcExporter *self;
static NcDoorHost host;
static NcGuard guard;
static NcDoor door;
static NcLoop *loop;
static NcOp wake_op;
static NcOp life_op;
static int	wake_fd = -1;
static bool listens = false;
static uint64 next_listen_us = 0;
static uint64 requests = 0;

/* ---- settings ---- */

bool
nc_exporter_addresses_good(const char *addresses)
{
	char		address[NC_LISTEN_ADDRESS_BYTES];
	struct in6_addr any;
	int			n = 0;

	for (; nc_listen_next(&addresses, address); n++)
	{
		if (strcmp(address, "localhost") == 0 || inet_pton(AF_INET, address, &any) == 1 ||
			inet_pton(AF_INET6, address, &any) == 1 || nc_listen_address_is_path(address))
			continue;
		GUC_check_errdetail("\"%s\" is neither an IP address, nor localhost, nor an absolute path that a Unix socket can have.",
							address);
		return false;
	}
	if (n == 0)
		GUC_check_errdetail("At least one address is needed.");
	return n > 0;
}

bool
nc_exporter_wanted(const NcExporter *x)
{
	const char *list = *x->listen_addresses;
	char		address[NC_LISTEN_ADDRESS_BYTES];
	bool		wanted = *x->port != 0;

	while (!wanted && nc_listen_next(&list, address))
		wanted = nc_listen_address_is_path(address);
	return wanted;
}

/* What of it could be loaded is in use; the number of reasons why not all. */
static int
load_exporter_guard(const NcExporter *x, NcGuard *into,
					char why[NC_GUARD_REASONS][NC_GUARD_REASON_BYTES])
{
	NcGuardSettings settings = {
		.prefix = x->prefix,
		.cert_file = *x->ssl_cert_file,
		.key_file = *x->ssl_key_file,
		.auth_key_file = *x->auth_public_key_file,
		.others_connect = !nc_listen_is_loopback(*x->listen_addresses),
		.had_certificate = *x->had_certificate
	};

	return nc_guard_take(into, &settings, why);
}

static void
warn_of_exporter_clear_text(const NcExporter *x)
{
	if (!nc_listen_is_loopback(*x->listen_addresses) && (!*x->had_certificate || !*x->require_ssl))
		ereport(WARNING,
				(errmsg("the %s does not insist on TLS: figures and tokens can be read on the way to \"%s\"",
						x->name, *x->listen_addresses),
				 errhint("Set %sssl_cert_file, %sssl_key_file and %srequire_ssl.",
						 x->prefix, x->prefix, x->prefix)));
}

static void
check_exporter_files(const NcExporter *x)
{
	NcGuard		probe = {0};
	char		why[NC_GUARD_REASONS][NC_GUARD_REASON_BYTES];

	if (load_exporter_guard(x, &probe, why) > 0)
		ereport(FATAL,
				(errcode(ERRCODE_CONFIG_FILE_ERROR),
				 errmsg("the %s cannot start: %s", x->name, why[0]),
				 errhint("See %sssl_cert_file, %sssl_key_file and %sauth_public_key_file.",
						 x->prefix, x->prefix, x->prefix)));
	if (probe.asks && (*x->tenant_id)[0] == '\0')
		ereport(FATAL,
				(errcode(ERRCODE_CONFIG_FILE_ERROR),
				 errmsg("%sauth_public_key_file needs %s", x->prefix, x->tenant_setting),
				 errdetail("Otherwise the token of every tenant would do.")));
	nc_guard_clear(&probe);
}

void
nc_exporter_check(const NcExporter *x)
{
	if (!nc_exporter_wanted(x))
		return;
	if (!nc_listen_is_loopback(*x->listen_addresses) && (*x->auth_public_key_file)[0] == '\0')
		ereport(FATAL,
				(errcode(ERRCODE_CONFIG_FILE_ERROR),
				 errmsg("the %s would tell its figures to everybody who reaches \"%s\"",
						x->name, *x->listen_addresses),
				 errdetail("Who asks is not authenticated, so only loopback addresses are allowed."),
				 errhint("Set %sauth_public_key_file, or %slisten_addresses to 127.0.0.1.",
						 x->prefix, x->prefix)));
	check_exporter_files(x);
	warn_of_exporter_clear_text(x);
}

static NcDoorSettings
load_exporter_settings(void)
{
	char		why[NC_GUARD_REASONS][NC_GUARD_REASON_BYTES];
	int			n = load_exporter_guard(self, &guard, why);

	for (int i = 0; i < n; i++)
		ereport(LOG, (errmsg("%s: %s", self->name, why[i])));
	if (guard.asks && (*self->tenant_id)[0] == '\0')
		ereport(LOG, (errmsg("%s: %sauth_public_key_file needs %s: nobody gets in",
							 self->name, self->prefix, self->tenant_setting)));
	return (NcDoorSettings)
	{
		.require_ssl = *self->require_ssl,
		.tenant_id = *self->tenant_id,
		.login_us = (uint64) AuthenticationTimeout * UINT64CONST(1000000),
		.patience_us = PATIENCE_US,
		.strangers_max = VISITORS_MAX
	};
}

/* ---- the host of the door ---- */

static uint64_t
exporter_unix_s(void)
{
	return (uint64_t) time(NULL);
}

static void
exporter_log_line(NcDoor *of, const char *text, const char *detail)
{
	ereport(LOG,
			(errmsg("%s", text),
			 detail ? errdetail_internal("%s", detail) : 0));
}

static void
exporter_opened(NcVisitor *v, const NcJwt *token)
{
	requests++;
}

/* Nobody stays OPEN: his request is there when he comes in, and is answered at once. */
static bool
exporter_silent(NcVisitor *v)
{
	return true;
}

static void
make_host(void)
{
	host = (NcDoorHost)
	{
		.name = self->name,
		.visitor_bytes = sizeof(NcVisitor),
		.in_bytes = NC_HTTP_HEAD_MAX,
		.out_bytes = ANSWER_BYTES,
		.answer_bytes = ANSWER_BYTES,
		.full = 1,
		.scope = NC_SCOPE_METRICS,
		.pages = self->pages,
		.tls_wanted = {.sqlstate = "403",.message = "must connect with TLS"},
		.now_us = nc_clock_us,
		.unix_s = exporter_unix_s,
		.log = exporter_log_line,
		.opened = exporter_opened,
		.message = nc_http_message,
		.silent = exporter_silent
	};
}

/* ---- the loop ---- */

void
nc_exporter_kick(void)
{
	uint64		one = 1;

	/* full means a wake is pending already */
	(void) !write(wake_fd, &one, sizeof(one));
}

static void
on_exporter_wake(NcOp *op)
{
	uint64		count;

	(void) !read(wake_fd, &count, sizeof(count));
	nc_loop_poll(loop, op, wake_fd, POLLIN);
}

static void
on_exporter_life_line(NcOp *op)
{
	if (!PostmasterIsAlive())
		proc_exit(1);
	nc_loop_poll(loop, op, postmaster_alive_fds[POSTMASTER_FD_WATCH], POLLIN);
}

/* Of a process that ends as it should nothing is left. */
static void
remove_paths(int code, Datum arg)
{
	const char *list = *self->listen_addresses;
	char		address[NC_LISTEN_ADDRESS_BYTES];

	while (nc_listen_next(&list, address))
		if (nc_listen_address_is_path(address))
			(void) unlink(address);
}

/* A port in use is no reason for the server not to be there. */
static void
try_to_listen(void)
{
	NcListenHow how = {.addresses = *self->listen_addresses,.port = *self->port,.paths = true};
	NcListenFault fault;
	int			fds[NC_LISTENERS_MAX];
	int			n;

	if (listens || nc_clock_us() < next_listen_us)
		return;
	next_listen_us = nc_clock_us() + LISTEN_RETRY_US;
	n = nc_listen_open(&how, fds, &fault);
	if (n == 0)
	{
		ereport(LOG,
				(errmsg("%s: could not listen on %s, port %d: %s", self->name, fault.address,
						*self->port, fault.text),
				 errhint("Is another server using the port, or the path? Otherwise set another %sport, or other "
						 "%slisten_addresses. It is tried again every few seconds.", self->prefix, self->prefix)));
		return;
	}
	listens = true;
	on_proc_exit(remove_paths, 0);
	nc_door_listen(&door, fds, n);
	ereport(LOG, (errmsg("%s listens on %s port %d", self->name, *self->listen_addresses, *self->port)));
}

void
nc_exporter_prepare(void)
{
	wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
}

void
nc_exporter_begin(const NcExporter *exporter)
{
	NcDoorSettings settings;
	char		err[256] = "no eventfd";

	self = exporter;
	if (wake_fd >= 0)
		loop = nc_loop_create(NC_LOOP_EPOLL, err, sizeof(err));
	if (loop == NULL)
		ereport(FATAL, (errmsg("%s: could not create its event loop: %s", self->name, err)));
	wake_op.complete = on_exporter_wake;
	nc_loop_poll(loop, &wake_op, wake_fd, POLLIN);
	life_op.complete = on_exporter_life_line;
	nc_loop_poll(loop, &life_op, postmaster_alive_fds[POSTMASTER_FD_WATCH], POLLIN);
	make_host();
	settings = load_exporter_settings();
	nc_door_init(&door, &host, loop, &guard, &settings);
	try_to_listen();
}

void
nc_exporter_turn(uint32 wait_event)
{
	uint64		us = nc_door_sleep_us(&door);

	pgstat_report_wait_start(wait_event);
	nc_loop_wait(loop, listens ? us : Min(us, LISTEN_RETRY_US));
	pgstat_report_wait_end();
	nc_door_turn(&door);
	try_to_listen();
}

void
nc_exporter_reloaded(void)
{
	NcDoorSettings settings = load_exporter_settings();

	nc_door_set(&door, &settings);
	warn_of_exporter_clear_text(self);
}

uint64
nc_exporter_requests(void)
{
	return requests;
}

uint64
nc_exporter_refused(void)
{
	return door.refused;
}
