/*
 * door.c
 *	  The WAL feed as the host of its door (docs/serve.md): certificate and keys,
 *	  who may come in, where a message goes, who has to make room.
 *
 * Runs in the feed.  Never reads a catalog, so it knows no users: who may connect
 * is decided by a token, or by the listen addresses where none is asked for.
 */
#include "postgres.h"

#include <time.h>

#include "postmaster/postmaster.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "feed_internal.h"
#include "nc/shared/settings.h"

/* How long the last answer may take to leave, and the peer to close. */
#define CLOSE_PATIENCE_US 1000000

static NcGuard guard;
static NcDoor door;

/* Of the turn in which the door asks. */
static const NcFeedTurn *current;

static NcFeedConn *
conn_of(NcVisitor *v)
{
	return (NcFeedConn *) v;
}

/* ---- certificate and keys ---- */

/* What of it could be loaded is in use; the number of reasons why not all. */
static int
load_feed_guard(NcGuard *into, char why[NC_GUARD_REASONS][NC_GUARD_REASON_BYTES])
{
	NcGuardSettings settings = {
		.prefix = "neon_comm.wal_feed_",
		.cert_file = nc_feed_ssl_cert_file,
		.key_file = nc_feed_ssl_key_file,
		.auth_key_file = nc_feed_auth_public_key_file,
		.others_connect = !nc_listen_is_loopback(nc_feed_listen_addresses),
		.had_certificate = nc_feed_had_certificate
	};

	return nc_guard_take(into, &settings, why);
}

void
nc_feed_door_check_files(void)
{
	NcGuard		probe = {0};
	char		why[NC_GUARD_REASONS][NC_GUARD_REASON_BYTES];

	if (load_feed_guard(&probe, why) > 0)
		ereport(FATAL,
				(errcode(ERRCODE_CONFIG_FILE_ERROR),
				 errmsg("the WAL feed cannot start: %s", why[0]),
				 errhint("See neon_comm.wal_feed_ssl_cert_file, neon_comm.wal_feed_ssl_key_file and "
						 "neon_comm.wal_feed_auth_public_key_file.")));
	nc_guard_clear(&probe);
}

static NcDoorSettings
load_feed_settings(void)
{
	char		why[NC_GUARD_REASONS][NC_GUARD_REASON_BYTES];
	int			n = load_feed_guard(&guard, why);

	for (int i = 0; i < n; i++)
		ereport(LOG, (errmsg("WAL feed: %s", why[i])));
	if (guard.asks && nc_guc_tenant_id[0] == '\0')
		ereport(LOG, (errmsg("WAL feed: neon_comm.wal_feed_auth_public_key_file needs "
							 "neon_comm.tenant_id: nobody gets in")));
	return (NcDoorSettings)
	{
		.require_ssl = nc_feed_require_ssl,
		.tenant_id = nc_guc_tenant_id,
		.login_us = (uint64) AuthenticationTimeout * USECS_PER_SEC,
		.silence_us = (uint64) nc_feed_timeout_ms * 1000,
		.patience_us = CLOSE_PATIENCE_US,
		.strangers_max = NC_FEED_STRANGERS
	};
}

void
nc_feed_door_reload(void)
{
	NcDoorSettings settings = load_feed_settings();

	nc_door_set(&door, &settings);
	nc_feed_warn_of_clear_text();
}

/* ---- what is said of a connection's end ---- */

void
nc_feed_conn_error(NcFeedConn *conn, const char *sqlstate, const char *message,
				   const char *detail, const char *hint)
{
	NcWriter	w = nc_visitor_writer(&conn->v);

	nc_session_error(&w, "ERROR", sqlstate, message, detail, hint);
	nc_session_ready(&w);
	nc_visitor_commit(&conn->v, &w);
	ereport(LOG,
			(errmsg("WAL feed refused %s: %s", conn->v.address, message),
			 detail ? errdetail_internal("%s", detail) : 0,
			 hint ? errhint("%s", hint) : 0));
}

void
nc_feed_conn_fatal(NcFeedConn *conn, const char *sqlstate, const char *message,
				   const char *detail, const char *hint)
{
	NcRefusal	why = {sqlstate, message, detail, hint};

	if (conn->v.state >= NC_VISITOR_CLOSING)
		return;
	nc_visitor_end(&conn->v, "FATAL", &why);
	ereport(LOG,
			(errmsg("WAL feed disconnects %s%s%s: %s",
					conn->slot >= 0 ? nc_feed_slot_names[conn->slot] : "",
					conn->slot >= 0 ? " at " : "", conn->v.address, message),
			 detail ? errdetail_internal("%s", detail) : 0,
			 hint ? errhint("%s", hint) : 0));
}

typedef struct Parting
{
	const NcId *member;
	const NcJoinAnswer *answer;
} Parting;

static void
end_if_member(NcVisitor *v, void *arg)
{
	const Parting *p = arg;
	NcFeedConn *conn = conn_of(v);

	if (conn->joined && nc_id_equal(&conn->member, p->member))
		nc_feed_conn_fatal(conn, "NC001", p->answer->message, p->answer->detail, p->answer->hint);
}

/* ---- the host of the door ---- */

static uint64_t
feed_now_us(void)
{
	return (uint64_t) nc_feed_clock();
}

static uint64_t
feed_unix_s(void)
{
	return (uint64_t) time(NULL);
}

static void
feed_log_line(NcDoor *of, const char *text, const char *detail)
{
	ereport(LOG,
			(errmsg("%s", text),
			 detail ? errdetail_internal("%s", detail) : 0));
}

static bool
feed_came(NcVisitor *v)
{
	NcFeedConn *conn = conn_of(v);

	conn->slot = -1;
	conn->segment.fd = -1;
	conn->connected_since = GetCurrentTimestamp();
	return true;
}

static bool
feed_startup(NcVisitor *v, const NcStartup *packet, NcRefusal *no)
{
	const char *replication = nc_startup_param(packet, "replication");
	bool		physical = false;

	if (replication != NULL && parse_bool(replication, &physical) && physical)
		return true;
	*no = (NcRefusal)
	{
		.sqlstate = "0A000",
		.message = replication != NULL && strcmp(replication, "database") == 0
			? "the WAL feed does not serve logical replication"
			: "the WAL feed does not serve ordinary connections",
		.detail = "It sends WAL to page servers by physical replication.",
		.hint = "Connect with replication=true, or use the server's own port."
	};
	return false;
}

static NcStep
feed_message(NcVisitor *v)
{
	NcFeedConn *conn = conn_of(v);
	size_t		bytes;
	const uint8_t *input = nc_channel_input(&v->channel, &bytes);
	NcFrame		frame;

	switch (nc_frame_parse(input, bytes, NC_FEED_IN_BYTES - 5, &frame))
	{
		case NC_FRAME_INCOMPLETE:
			return NC_STEP_INPUT;
		case NC_FRAME_INVALID:
			nc_feed_conn_fatal(conn, "08P01", "message has an invalid length", NULL, NULL);
			return NC_STEP_MORE;
		case NC_FRAME_OK:
			break;
	}
	conn->ping_sent = false;
	if (conn->streaming)
		nc_feed_stream_message(conn, current, &frame);
	else
		nc_feed_session_command(conn, current, &frame);
	nc_channel_take(&v->channel, frame.consumed);
	return NC_STEP_MORE;
}

static bool
is_guest(const NcVisitor *v)
{
	return v->logged_in && !nc_feed_streams((const NcFeedConn *) v);
}

/*
 * A page server is a stranger, then a guest, for a moment each: neither kind may
 * take the room of the other, nor that of those who stream.
 */
static void
room(NcDoor *of)
{
	nc_door_limit(of, is_guest, nc_feed_nslots + NC_FEED_GUESTS,
				  "it does not stream, and made room for a newer connection");
}

static bool
feed_silent(NcVisitor *v)
{
	int			slot = conn_of(v)->slot;

	ereport(LOG,
			(errmsg("WAL feed drops %s at %s: nothing heard from it for %d ms",
					slot >= 0 ? nc_feed_slot_names[slot] : "connection",
					v->address, nc_feed_timeout_ms)));
	return true;
}

static void
feed_gone(NcVisitor *v)
{
	NcFeedConn *conn = conn_of(v);

	if (conn->streaming && v->left_from == NC_VISITOR_OPEN)
		ereport(LOG, (errmsg("WAL feed: connection of %s at %s has ended",
							 nc_feed_slot_names[conn->slot], v->address)));
	if (conn->slot >= 0)
		nc_feed_slot_detach(conn->slot, conn);
	nc_feed_wal_close(&conn->segment);
}

static const char *const parameters[][2] = {
	{"server_version", PG_VERSION},
	{"integer_datetimes", "on"},
	{"client_encoding", "SQL_ASCII"},
	{"server_encoding", "SQL_ASCII"},
	{"DateStyle", "ISO, MDY"},
	{"IntervalStyle", "postgres"},
	{"TimeZone", "GMT"},
	{"standard_conforming_strings", "on"},
	{"is_superuser", "off"},
	{NULL, NULL}
};

/* A command is taken only when the answer to the one before has left: full is 1. */
static const NcDoorHost host = {
	.name = "WAL feed",
	.visitor_bytes = sizeof(NcFeedConn),
	.in_bytes = NC_FEED_IN_BYTES,
	.out_bytes = NC_FEED_OUT_BYTES,
	.answer_bytes = NC_FEED_CONTROL_BYTES,
	.full = 1,
	.scope = NC_SCOPE_SAFEKEEPER,
	.parameters = parameters,
	.tls_wanted = {
		.sqlstate = "28000",
		.message = "must connect with TLS",
		.hint = "Set sslmode=verify-full in primary_conninfo, or turn "
		"neon_comm.wal_feed_require_ssl off."
	},
	.now_us = feed_now_us,
	.unix_s = feed_unix_s,
	.log = feed_log_line,
	.came = feed_came,
	.startup = feed_startup,
	.message = feed_message,
	.room = room,
	.silent = feed_silent,
	.gone = feed_gone
};

/* ---- the door and the feed's turn ---- */

NcDoor *
nc_feed_door_open(NcLoop *loop)
{
	NcListenHow how = {.addresses = nc_feed_listen_addresses,.port = nc_feed_port};
	NcDoorSettings settings = load_feed_settings();
	NcListenFault fault;
	int			fds[NC_LISTENERS_MAX];
	int			n = nc_listen_open(&how, fds, &fault);

	errno = fault.error;
	if (n == 0)
		ereport(FATAL,
				(errcode_for_socket_access(),
				 errmsg("neon_comm could not listen for page servers on %s port %d: %s",
						fault.address, nc_feed_port, fault.text),
				 errhint("Is another server using the port? Otherwise set another "
						 "neon_comm.wal_feed_port and tell the page servers. It is tried again "
						 "every second.")));
	nc_door_init(&door, &host, loop, &guard, &settings);
	nc_door_listen(&door, fds, n);
	return &door;
}

void
nc_feed_door_turn(const NcFeedTurn *turn)
{
	current = turn;
	nc_door_turn(&door);
}

void
nc_feed_end_member(const NcId *member, const NcJoinAnswer *answer)
{
	Parting		p = {member, answer};

	nc_door_each(&door, end_if_member, &p);
}
