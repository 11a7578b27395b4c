/*
 * login.c
 *	  The beginning of a connection to the WAL feed: TLS, startup packet, token.
 *
 * Runs in the feed.  Never reads a catalog, so it knows no users: who may connect
 * is decided by a token, or by the listen addresses where none is asked for.  A
 * token is never kept, logged or sent back; what is said of a refused one is why.
 */
#include "postgres.h"

#include <time.h>

#include "postmaster/postmaster.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/timestamp.h"

#include "feed_internal.h"
#include "nc/ext/guc.h"

/* Requests for TLS or GSSAPI that one connection may make in clear text. */
#define NEGOTIATIONS_MAX 4

/* Refusals are logged at most this often. */
#define LOG_INTERVAL_MS 1000

static NcGuard guard;

/* ---- certificate and keys ---- */

/* What of it could be loaded is in use; false with the first reason why not all, others are logged. */
static bool
load(NcGuard *into, const char *auth_key_file, char why[NC_GUARD_REASON_BYTES])
{
	char		reasons[NC_GUARD_REASONS][NC_GUARD_REASON_BYTES];
	int			n = nc_guard_take(into, nc_feed_ssl_cert_file, nc_feed_ssl_key_file, auth_key_file,
								  reasons);

	for (int i = 1; i < n; i++)
		ereport(LOG, (errmsg("WAL feed: %s", reasons[i])));
	if (n > 0)
		strlcpy(why, reasons[0], NC_GUARD_REASON_BYTES);
	return n == 0;
}

void
nc_feed_guard_check_files(void)
{
	NcGuard		probe = {0};
	char		err[NC_GUARD_REASON_BYTES];

	if (!load(&probe, nc_feed_auth_public_key_file, err))
		ereport(FATAL,
				(errcode(ERRCODE_CONFIG_FILE_ERROR),
				 errmsg("the WAL feed cannot start: %s", err),
				 errhint("See neon_comm.wal_feed_ssl_cert_file, neon_comm.wal_feed_ssl_key_file and "
						 "neon_comm.wal_feed_auth_public_key_file.")));
	nc_guard_clear(&probe);
}

void
nc_feed_guard_load(bool again)
{
	const char *key_file = nc_feed_auth_public_key_file;
	char		err[NC_GUARD_REASON_BYTES];

	if (key_file[0] == '\0' && guard.asks && !nc_feed_listens_on_loopback())
	{
		ereport(LOG, (errmsg("WAL feed: neon_comm.wal_feed_auth_public_key_file was emptied, but other "
							 "hosts can connect: the keys loaded before stay in force")));
		if (!nc_guard_take_certificate(&guard, nc_feed_ssl_cert_file, nc_feed_ssl_key_file, err,
									   sizeof(err)))
			ereport(LOG, (errmsg("WAL feed: %s: what was loaded before stays in use", err)));
	}
	else if (!load(&guard, key_file, err))
		ereport(LOG, (errmsg("WAL feed: %s%s", err,
							 again ? ": what was loaded before stays in use" : "")));
}

/* ---- refusals ---- */

void
nc_feed_login_refused(const NcFeedConn *conn, TimestampTz now, const char *reason)
{
	static TimestampTz next_log = 0;
	static int	silent = 0;

	if (now < next_log)
	{
		silent++;
		return;
	}
	ereport(LOG,
			(errmsg("WAL feed refused %s: %s", conn->address, reason),
			 silent > 0 ? errdetail_internal("%d others were refused since the last such message.",
											 silent) : 0));
	silent = 0;
	next_log = TimestampTzPlusMilliseconds(now, LOG_INTERVAL_MS);
}

static void
refuse(NcFeedConn *conn, const NcFeedTurn *turn, const char *sqlstate, const char *message,
	   const char *detail, const char *hint)
{
	NcWriter	w = nc_feed_conn_writer(conn);

	nc_session_error(&w, "FATAL", sqlstate, message, detail, hint);
	nc_feed_conn_commit(conn, &w);
	nc_feed_conn_close(conn, turn->now);
	nc_feed_login_refused(conn, turn->now, message);
}

/* ---- welcome ---- */

static void
write_parameter(NcWriter *w, const char *name)
{
	const char *value = GetConfigOption(name, true, false);

	if (value != NULL)
		nc_session_parameter_status(w, name, value);
}

static void
welcome(NcFeedConn *conn)
{
	NcWriter	w = nc_feed_conn_writer(conn);

	nc_session_auth_ok(&w);
	write_parameter(&w, "server_version");
	write_parameter(&w, "integer_datetimes");
	nc_session_parameter_status(&w, "client_encoding", "SQL_ASCII");
	nc_session_parameter_status(&w, "server_encoding", "SQL_ASCII");
	nc_session_parameter_status(&w, "DateStyle", "ISO, MDY");
	nc_session_parameter_status(&w, "IntervalStyle", "postgres");
	nc_session_parameter_status(&w, "TimeZone", "GMT");
	nc_session_parameter_status(&w, "standard_conforming_strings", "on");
	nc_session_parameter_status(&w, "is_superuser", "off");
	nc_session_ready(&w);
	if (nc_feed_conn_commit(conn, &w))
	{
		conn->state = NC_FEED_COMMAND;
		conn->logged_in = true;
	}
}

/* ---- startup packets ---- */

static void
ask_for_token(NcFeedConn *conn)
{
	NcWriter	w = nc_feed_conn_writer(conn);

	nc_session_auth_cleartext(&w);
	if (nc_feed_conn_commit(conn, &w))
		conn->state = NC_FEED_PASSWORD;
}

static void
start_session(NcFeedConn *conn, const NcFeedTurn *turn, const NcStartup *startup)
{
	const char *replication = nc_startup_param(startup, "replication");
	bool		physical = false;

	if (nc_feed_require_ssl && nc_feed_ssl_cert_file[0] != '\0' && conn->tls == NULL)
		refuse(conn, turn, "28000", "must connect with TLS", NULL,
			   "Set sslmode=verify-full in primary_conninfo, or turn "
			   "neon_comm.wal_feed_require_ssl off.");
	else if (replication == NULL || !parse_bool(replication, &physical) || !physical)
	{
		bool		logical = replication != NULL && strcmp(replication, "database") == 0;

		refuse(conn, turn, "0A000",
			   logical ? "the WAL feed does not serve logical replication"
			   : "the WAL feed does not serve ordinary connections",
			   "It sends WAL to page servers by physical replication.",
			   "Connect with replication=true, or use the server's own port.");
	}
	else if (guard.asks)
		ask_for_token(conn);
	else
		welcome(conn);
}

/*
 * Answers SSLRequest and GSSENCRequest.  Behind a request that is granted nothing
 * may follow in clear text: it would be taken for bytes that came inside TLS.
 */
static void
negotiate(NcFeedConn *conn, const NcStartup *packet)
{
	NcWriter	w = nc_feed_conn_writer(conn);
	bool		yes = packet->kind == NC_STARTUP_SSL && guard.tls != NULL && conn->tls == NULL;

	if (++conn->negotiations > NEGOTIATIONS_MAX || (yes && conn->in_bytes != packet->consumed))
	{
		conn->dead = true;
		return;
	}
	if (yes)
		conn->tls = nc_tls_start(guard.tls, conn->fd);
	yes = yes && conn->tls != NULL;
	nc_write_u8(&w, yes ? 'S' : 'N');
	if (nc_feed_conn_commit(conn, &w) && yes)
		conn->state = NC_FEED_TLS;
}

size_t
nc_feed_login_startup(NcFeedConn *conn, const NcFeedTurn *turn)
{
	NcStartup	startup;

	nc_startup_parse(conn->in, conn->in_bytes, &startup);
	switch (startup.kind)
	{
		case NC_STARTUP_INCOMPLETE:
			return 0;
		case NC_STARTUP_SSL:
		case NC_STARTUP_GSSENC:
			negotiate(conn, &startup);
			break;
		case NC_STARTUP_V3:
			start_session(conn, turn, &startup);
			break;
		case NC_STARTUP_CANCEL:
		case NC_STARTUP_INVALID:
			conn->dead = true;
			return 0;
	}
	return startup.consumed;
}

/* ---- the token ---- */

static void
judge(NcFeedConn *conn, const NcFeedTurn *turn, const NcFrame *frame)
{
	char		text[160];
	NcJwt		jwt;
	const char *wrong = nc_guard_judge(&guard, frame->body, frame->body_bytes, NC_SCOPE_SAFEKEEPER,
									   nc_guc_tenant_id, (uint64_t) time(NULL), &jwt);

	if (wrong == NULL)
	{
		welcome(conn);
		return;
	}
	snprintf(text, sizeof(text), "the token is refused: %s", wrong);
	refuse(conn, turn, "28P01", text, NULL, NULL);
}

size_t
nc_feed_login_password(NcFeedConn *conn, const NcFeedTurn *turn)
{
	NcFrame		frame;

	if (conn->in[0] == 'X')
	{
		/* so ends libpq when it has no password to send */
		conn->dead = true;
		return 0;
	}
	if (conn->in[0] != 'p')
	{
		refuse(conn, turn, "08P01", "a token was expected, as password", NULL, NULL);
		return 0;
	}
	switch (nc_frame_parse(conn->in, conn->in_bytes, NC_JWT_BYTES_MAX + 1, &frame))
	{
		case NC_FRAME_INCOMPLETE:
			return 0;
		case NC_FRAME_INVALID:
			refuse(conn, turn, "28P01", "the token is refused: it is too long", NULL, NULL);
			return 0;
		case NC_FRAME_OK:
			break;
	}
	judge(conn, turn, &frame);
	explicit_bzero(conn->in, frame.consumed);
	return frame.consumed;
}
