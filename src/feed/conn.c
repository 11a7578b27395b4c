/*
 * conn.c
 *	  One connection of the WAL feed: bytes in, bytes out, and its end.
 *
 * Runs in the feed.  Guarantees that no connection can block, kill or starve
 * the others: sockets are non-blocking, buffers are allocated once and bounded,
 * work per turn is bounded, and every failure ends this connection only.
 */
#include "postgres.h"

#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "postmaster/postmaster.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "feed_internal.h"

/* What a connection may send before the others have their turn. */
#define TURN_BYTES (1024 * 1024)

/* How long the last answer may take to leave, and the peer to close. */
#define CLOSE_PATIENCE_MS 1000

NcFeedConn *
nc_feed_conn_create(int fd, const char *address, TimestampTz now)
{
	NcFeedConn *conn = MemoryContextAllocExtended(TopMemoryContext, sizeof(NcFeedConn),
												  MCXT_ALLOC_NO_OOM);

	if (conn == NULL)
		return NULL;
	memset(conn, 0, offsetof(NcFeedConn, in));
	conn->fd = fd;
	conn->slot = -1;
	conn->segment.fd = -1;
	conn->connected_at = now;
	conn->connected_since = GetCurrentTimestamp();
	conn->heard_at = now;
	strlcpy(conn->address, address, sizeof(conn->address));
	return conn;
}

void
nc_feed_conn_free(NcFeedConn *conn)
{
	if (conn->slot >= 0)
		nc_feed_slot_detach(conn->slot, conn);
	nc_feed_wal_close(&conn->segment);
	nc_tls_end(conn->tls);
	close(conn->fd);
	pfree(conn);
}

/* ---- the socket ---- */

/* Reads inside TLS that a turn makes at most, beyond what epoll told of. */
#define TLS_READS_PER_TURN 16

static bool
encrypted(const NcFeedConn *conn)
{
	return conn->tls != NULL && conn->state != NC_FEED_TLS;
}

static bool
would_block(void)
{
	return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
}

/* Bytes, 0 = not now, -1 = the peer is gone. */
static ssize_t
read_some(NcFeedConn *conn, void *to, size_t room)
{
	NcTlsFault	fault;
	ssize_t		got;

	if (!encrypted(conn))
	{
		got = recv(conn->fd, to, room, MSG_DONTWAIT);
		if (got < 0)
			return would_block() ? 0 : -1;
		return got == 0 ? -1 : got;
	}
	got = nc_tls_read(conn->tls, to, room, &fault);
	conn->tls_wants_write = got == 0 && nc_tls_wants_write(conn->tls);
	return got;
}

static ssize_t
write_some(NcFeedConn *conn, const void *from, size_t bytes)
{
	NcTlsFault	fault;
	ssize_t		sent;

	if (encrypted(conn))
		return nc_tls_write(conn->tls, from, bytes, &fault);
	sent = send(conn->fd, from, bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
	return sent >= 0 ? sent : would_block() ? 0 : -1;
}

static bool
pending(const NcFeedConn *conn)
{
	return encrypted(conn) && nc_tls_pending(conn->tls);
}

/* The answer to the request has left in clear text; what follows is TLS. */
static void
shake_hands(NcFeedConn *conn, const NcFeedTurn *turn)
{
	NcTlsFault	fault;
	int			rc = nc_tls_handshake(conn->tls, &fault);

	conn->tls_wants_write = rc == 0 && nc_tls_wants_write(conn->tls);
	if (rc > 0)
		conn->state = NC_FEED_STARTUP;
	if (rc < 0 && fault.text[0] != '\0')
		nc_feed_login_refused(conn, turn->now, fault.text);
	if (rc < 0)
		conn->dead = true;
}

/* ---- output ---- */

NcWriter
nc_feed_conn_writer(NcFeedConn *conn)
{
	if (nc_feed_conn_drained(conn))
		conn->out_at = conn->out_end = 0;
	return nc_writer(conn->out + conn->out_end, sizeof(conn->out) - conn->out_end);
}

/* The buffer is dimensioned for every answer: one that does not fit comes from a peer's flood. */
bool
nc_feed_conn_commit(NcFeedConn *conn, const NcWriter *w)
{
	if (w->failed)
	{
		conn->dead = true;
		return false;
	}
	conn->out_end = (size_t) (w->at - conn->out);
	return true;
}

/* Sends what is pending; true when all of it is gone. */
bool
nc_feed_conn_flush(NcFeedConn *conn)
{
	while (!conn->dead && !nc_feed_conn_drained(conn))
	{
		ssize_t		sent = write_some(conn, conn->out + conn->out_at,
									  conn->out_end - conn->out_at);

		if (sent == 0)
			return false;
		if (sent > 0)
			conn->out_at += (size_t) sent;
		else
			conn->dead = true;
	}
	return !conn->dead;
}

void
nc_feed_conn_error(NcFeedConn *conn, const char *sqlstate, const char *message,
				   const char *detail, const char *hint)
{
	NcWriter	w = nc_feed_conn_writer(conn);

	nc_session_error(&w, "ERROR", sqlstate, message, detail, hint);
	nc_session_ready(&w);
	nc_feed_conn_commit(conn, &w);
	ereport(LOG,
			(errmsg("WAL feed refused %s: %s", conn->address, message),
			 detail ? errdetail_internal("%s", detail) : 0,
			 hint ? errhint("%s", hint) : 0));
}

void
nc_feed_conn_close(NcFeedConn *conn, TimestampTz now)
{
	if (conn->state == NC_FEED_CLOSING)
		return;
	conn->state = NC_FEED_CLOSING;
	conn->close_by = TimestampTzPlusMilliseconds(now, CLOSE_PATIENCE_MS);
}

void
nc_feed_conn_fatal(NcFeedConn *conn, TimestampTz now, const char *sqlstate, const char *message,
				   const char *detail, const char *hint)
{
	NcWriter	w = nc_feed_conn_writer(conn);

	if (conn->state == NC_FEED_CLOSING)
		return;
	nc_session_error(&w, "FATAL", sqlstate, message, detail, hint);
	nc_feed_conn_commit(conn, &w);
	nc_feed_conn_close(conn, now);
	ereport(LOG,
			(errmsg("WAL feed disconnects %s%s%s: %s",
					conn->slot >= 0 ? nc_feed_slot_names[conn->slot] : "",
					conn->slot >= 0 ? " at " : "", conn->address, message),
			 detail ? errdetail_internal("%s", detail) : 0,
			 hint ? errhint("%s", hint) : 0));
}

/* ---- input ---- */

/* A closing connection only drains, so that its last answer is not lost to a reset. */
void
nc_feed_conn_receive(NcFeedConn *conn, const NcFeedTurn *turn)
{
	ssize_t		got;

	if (conn->state == NC_FEED_CLOSING)
		conn->in_bytes = 0;
	if (conn->dead || conn->state == NC_FEED_TLS || conn->in_bytes == sizeof(conn->in))
		return;
	got = read_some(conn, conn->in + conn->in_bytes, sizeof(conn->in) - conn->in_bytes);
	if (got > 0)
	{
		conn->in_bytes += (size_t) got;
		conn->heard_at = turn->now;
		conn->ping_sent = false;
	}
	else if (got < 0)
		conn->dead = true;
}

static size_t
take_message(NcFeedConn *conn, const NcFeedTurn *turn)
{
	switch (conn->state)
	{
		case NC_FEED_STARTUP:
			return nc_feed_login_startup(conn, turn);
		case NC_FEED_TLS:
			return 0;
		case NC_FEED_PASSWORD:
			return nc_feed_login_password(conn, turn);
		case NC_FEED_COMMAND:
			return nc_feed_session_command(conn, turn);
		case NC_FEED_STREAMING:
			return nc_feed_stream_message(conn, turn);
		case NC_FEED_CLOSING:
			return conn->in_bytes;
	}
	return 0;
}

/* A command is taken only when the answer to the one before has left. */
static void
take_messages(NcFeedConn *conn, const NcFeedTurn *turn)
{
	while (!conn->dead && conn->in_bytes > 0)
	{
		size_t		taken;

		if (conn->state != NC_FEED_STREAMING && conn->state != NC_FEED_CLOSING &&
			!nc_feed_conn_flush(conn))
			return;
		taken = take_message(conn, turn);
		if (taken == 0 && conn->in_bytes == sizeof(conn->in))
			nc_feed_conn_fatal(conn, turn->now, "08P01", "message is too long", NULL, NULL);
		if (taken == 0)
			return;
		conn->in_bytes -= taken;
		memmove(conn->in, conn->in + taken, conn->in_bytes);
	}
}

/* ---- a turn ---- */

/* Sends WAL until there is none, the socket is full, or others should have their turn. */
static bool
push_wal(NcFeedConn *conn, const NcFeedTurn *turn)
{
	for (size_t sent = 0; sent < TURN_BYTES; sent += NC_FEED_WAL_BYTES)
	{
		if (!nc_feed_conn_flush(conn) || !nc_feed_stream_fill(conn, turn))
			return false;
	}
	return nc_feed_conn_flush(conn);
}

/* Bytes do not count before the login: who trickles them is not there yet. */
static void
check_silence(NcFeedConn *conn, const NcFeedTurn *turn)
{
	if (!conn->logged_in)
	{
		if (!TimestampDifferenceExceeds(conn->connected_at, turn->now, AuthenticationTimeout * 1000))
			return;
		nc_feed_login_refused(conn, turn->now, "it did not log in within authentication_timeout");
		conn->dead = true;
		return;
	}
	if (!TimestampDifferenceExceeds(conn->heard_at, turn->now, nc_feed_timeout_ms))
		return;
	ereport(LOG,
			(errmsg("WAL feed drops %s at %s: nothing heard from it for %d ms",
					conn->slot >= 0 ? nc_feed_slot_names[conn->slot] : "connection",
					conn->address, nc_feed_timeout_ms)));
	conn->dead = true;
}

static void
closing_step(NcFeedConn *conn, const NcFeedTurn *turn)
{
	if (turn->now >= conn->close_by)
		conn->dead = true;
	else if (nc_feed_conn_flush(conn) && !conn->half_closed)
	{
		nc_tls_goodbye(conn->tls);
		shutdown(conn->fd, SHUT_WR);
		conn->half_closed = true;
	}
}

bool
nc_feed_conn_pump(NcFeedConn *conn, const NcFeedTurn *turn)
{
	bool		more = false;

	if (conn->state == NC_FEED_TLS && nc_feed_conn_flush(conn))
		shake_hands(conn, turn);
	take_messages(conn, turn);
	/* what is inside TLS already no event tells of */
	for (int i = 0; i < TLS_READS_PER_TURN && !conn->dead && pending(conn); i++)
	{
		nc_feed_conn_receive(conn, turn);
		take_messages(conn, turn);
	}
	if (conn->state == NC_FEED_STREAMING && nc_feed_stream_recheck(conn, turn))
	{
		more = push_wal(conn, turn);
		if (conn->state == NC_FEED_STREAMING)
			nc_feed_stream_keepalive(conn, turn);
	}
	(void) nc_feed_conn_flush(conn);
	if (conn->dead)
		return false;
	if (conn->state == NC_FEED_CLOSING)
		closing_step(conn, turn);
	else
		check_silence(conn, turn);
	return (more && conn->state == NC_FEED_STREAMING) || (!conn->dead && pending(conn));
}
