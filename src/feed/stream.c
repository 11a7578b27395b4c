/*
 * stream.c
 *	  A connection of the WAL feed while it streams.
 *
 * Runs in the feed.  Guarantees that messages end where a walsender's would (at
 * the limit or at a WAL page boundary: a walreceiver relies on it), that a page
 * server which has WAL the compute does not have is disconnected, and that what
 * a page server confirms only ever moves its retention forward.
 *
 * A walreceiver asks for whole segments, so its start tells little.  It is asked
 * for its positions first and gets no WAL while they are ahead of ours: WAL that
 * differs from ours must not be overwritten, it is how we know.
 */
#include "postgres.h"

#include "utils/timestamp.h"

#include "feed_internal.h"
#include "nc/identity/lease.h"
#include "nc/shared/shmem.h"
#include "nc/shared/test_point.h"

/* How often a page server for which writers pause is asked where it is. */
/* Whoever has said nothing for so long is asked, so that one that hangs is noticed while nobody needs it. */
#define QUIET_MS 1000

#define NEWS_PERIOD_MS 100

/* How long replay may stand before it is stuck, and how often it is asked for meanwhile. */
#define STUCK_MS 100
#define STUCK_NEWS_MS 20

/* What a connection may send before the others have their turn. */
#define TURN_BYTES (1024 * 1024)

void
nc_feed_stream_begin(NcFeedConn *conn, const NcFeedTurn *turn, int slot, XLogRecPtr start)
{
	NcWriter	w = nc_visitor_writer(&conn->v);

	nc_session_copy_both(&w);
	if (!nc_visitor_commit(&conn->v, &w))
		return;
	conn->streaming = true;
	conn->v.full = SIZE_MAX;
	conn->slot = slot;
	/* or it has joined there, and was told less than members need to know */
	conn->from_recovery = turn->limit.in_recovery || (nc_feed_write_quorum > 0 && conn->joined_early);
	conn->timeline = turn->limit.timeline;
	conn->greeted = false;
	conn->caught_up = false;
	conn->ping_sent = false;
	conn->lease_asked = false;
	conn->lease_asked_at = 0;
	conn->stuck_since = 0;
	conn->sent = start;
	conn->write = conn->flush = conn->apply = InvalidXLogRecPtr;
	nc_feed_slot_attach(slot, conn);
	nc_stat(NC_COUNTER_FEED_CONNECTS, 1);
	ereport(LOG,
			(errmsg("WAL feed streams to %s at %s from %X/%X on timeline %u%s",
					nc_feed_slot_names[slot], conn->v.address, LSN_FORMAT_ARGS(start),
					turn->limit.timeline, turn->limit.in_recovery ? " (in recovery)" : "")));
}

/* The furthest position that the page server has by its own account. */
XLogRecPtr
nc_feed_stream_theirs(const NcFeedConn *conn)
{
	return Max(conn->flush, conn->apply);
}

/* The page server has applied or made durable what this compute does not have. */
static void
refuse_diverged(NcFeedConn *conn, const NcFeedTurn *turn, XLogRecPtr theirs)
{
	char		message[NC_FEED_WHY_BYTES];

	snprintf(message, sizeof(message),
			 "page server \"%s\" has WAL up to %X/%X, this compute only up to %X/%X",
			 nc_feed_slot_names[conn->slot], LSN_FORMAT_ARGS(theirs),
			 LSN_FORMAT_ARGS(turn->limit.lsn));
	nc_feed_conn_fatal(conn, "55000", message,
					   "The compute has lost WAL that the page server has: their data differ.",
					   NC_FEED_KEEP_BOTH);
}

/* Recovery has ended under a connection: now everything can be judged that had to wait. */
static bool
recheck(NcFeedConn *conn, const NcFeedTurn *turn)
{
	XLogRecPtr	theirs = Max(conn->sent, nc_feed_stream_theirs(conn));
	const char *why;

	if (!conn->from_recovery || turn->limit.in_recovery)
		return true;
	if (conn->timeline != turn->limit.timeline)
		nc_feed_conn_fatal(conn, "55000", "this compute has changed its timeline",
						   "It was promoted, which a compute never is.",
						   NC_FEED_KEEP_BOTH);
	else if (nc_feed_wal_beyond(&turn->limit, theirs))
		refuse_diverged(conn, turn, theirs);
	else if (!nc_feed_slot_ensure(conn->slot, turn->now, &why))
		nc_feed_conn_fatal(conn, "55000", "no WAL can be kept for this page server",
						   why, "The compute's log says more.");
	else if (nc_feed_write_quorum > 0)
		/* what it has written down does not say where the WAL begins that comes now */
		nc_feed_conn_fatal(conn, "57P01", "recovery has ended: join again", NULL, NULL);
	else
		conn->from_recovery = false;
	return nc_feed_streams(conn);
}

static XLogRecPtr
message_end(XLogRecPtr start, XLogRecPtr limit)
{
	XLogRecPtr	end = start + NC_FEED_WAL_BYTES;

	if (limit <= end)
		return limit;
	return end - end % XLOG_BLCKSZ;
}

/* Puts the next piece of WAL into the empty buffer; false when there is none. */
static bool
fill(NcFeedConn *conn, const NcFeedTurn *turn)
{
	char		why[NC_FEED_WHY_BYTES];
	XLogRecPtr	end;
	NcWriter	w;
	uint8_t    *length_at;
	uint8_t    *wal;

	if (!nc_feed_streams(conn) || turn->limit.lsn <= conn->sent)
		return false;
	if (!conn->greeted || nc_feed_stream_theirs(conn) > turn->limit.lsn ||
		NC_TEST_TRUE("feed-withhold"))
		return false;
	end = message_end(conn->sent, turn->limit.lsn);
	w = nc_visitor_writer(&conn->v);
	length_at = nc_frame_begin(&w, 'd');
	nc_write_u8(&w, 'w');
	nc_write_u64(&w, conn->sent);
	nc_write_u64(&w, turn->limit.lsn);
	nc_write_u64(&w, (uint64) turn->wall);
	wal = nc_write_space(&w, end - conn->sent);
	if (wal != NULL &&
		!nc_feed_wal_read(&conn->segment, turn->limit.timeline, conn->sent,
						  end - conn->sent, wal, why))
	{
		nc_feed_conn_fatal(conn, "58P01", why, NULL,
						   "Bring the segment back into pg_wal of the compute; if it is gone for "
						   "good, put a copy of another page server in place of this one.");
		return false;
	}
	nc_frame_end(&w, length_at);
	if (!nc_visitor_commit(&conn->v, &w))
		return false;
	nc_stat(NC_COUNTER_FEED_BYTES, end - conn->sent);
	conn->sent = end;
	return true;
}

/*
 * A walreceiver that gets nothing tells its positions every ten seconds only.
 * Writers that pause produce nothing for it and must not wait for that.
 */
static bool
writers_wait_for_news(const NcFeedConn *conn, const NcFeedTurn *turn)
{
	return nc_feed_lag_exceeded(conn->slot) &&
		TimestampDifferenceExceeds(conn->replied_at, turn->now, NEWS_PERIOD_MS);
}

/*
 * A directory that was laid from a boot image goes on where the last record ended that a page
 * server had replayed.  Of the record that the compute before began there page servers may have
 * a part, and their startup processes then wait for the rest of it: they read the place again
 * when their stream has ended, and not before there is as much WAL as that record had.
 */
static void
note_stuck(NcFeedConn *conn, const NcFeedTurn *turn)
{
	XLogRecPtr	laid_at = nc_feed_join_laid_at();

	if (laid_at == InvalidXLogRecPtr || conn->apply > laid_at || conn->flush <= laid_at)
		conn->stuck_since = 0;
	else if (conn->stuck_since == 0)
		conn->stuck_since = turn->now;
}

static bool
is_stuck_without_news(const NcFeedConn *conn, const NcFeedTurn *turn)
{
	return conn->stuck_since != 0 && TimestampDifferenceExceeds(conn->replied_at, turn->now, STUCK_NEWS_MS);
}

static bool ended[NC_FEED_SLOTS_MAX];

void
nc_feed_stream_forget(int slot)
{
	ended[slot] = false;
}

/* Once: replay may stand there because somebody has paused it. */
static void
end_if_stuck(NcFeedConn *conn, const NcFeedTurn *turn)
{
	if (conn->stuck_since == 0 || conn->slot < 0 || ended[conn->slot] ||
		!TimestampDifferenceExceeds(conn->stuck_since, conn->replied_at, STUCK_MS))
		return;
	ended[conn->slot] = true;
	nc_feed_conn_fatal(conn, "55000", "WAL has to be read again from where this compute was laid",
					   psprintf("Replay stands at " NC_LSN_FMT ", and WAL was received up to " NC_LSN_FMT
								": a part of a record of the compute before was there.",
								NC_LSN_ARGS(conn->apply), NC_LSN_ARGS(conn->flush)), NULL);
}

/* Answers a request; asks for positions at first, when they are needed, and when it is quiet. */
static void
keepalive(NcFeedConn *conn, const NcFeedTurn *turn)
{
	bool		quiet = TimestampDifferenceExceeds((TimestampTz) conn->v.heard_us, turn->now,
												   Min(QUIET_MS, nc_feed_timeout_ms / 2));
	bool		ping = !conn->ping_sent &&
		(quiet || !conn->greeted || writers_wait_for_news(conn, turn) || is_stuck_without_news(conn, turn));
	NcWriter	w;
	uint8_t    *length_at;

	if (!ping && !conn->keepalive_owed)
		return;
	w = nc_visitor_writer(&conn->v);
	length_at = nc_frame_begin(&w, 'd');
	nc_write_u8(&w, 'k');
	nc_write_u64(&w, conn->sent);
	nc_write_u64(&w, (uint64) turn->wall);
	nc_write_u8(&w, ping ? 1 : 0);
	nc_frame_end(&w, length_at);

	/* No room behind what is pending: it is sent in a later turn. */
	if (w.failed)
		return;
	nc_visitor_commit(&conn->v, &w);
	conn->keepalive_owed = false;
	conn->ping_sent |= ping;
	if (ping)
		conn->pinged_at = turn->now;
}

/* Sends WAL until there is none, the socket is full, or others should have their turn. */
static bool
push_wal(NcFeedConn *conn, const NcFeedTurn *turn)
{
	for (size_t sent = 0; sent < TURN_BYTES; sent += NC_FEED_WAL_BYTES)
	{
		if (!nc_visitor_flush(&conn->v) || !fill(conn, turn))
			return false;
	}
	return nc_visitor_flush(&conn->v);
}

static bool
has_all(const NcFeedConn *conn, const NcFeedLimit *limit)
{
	return conn->sent >= limit->lsn && nc_channel_unsent(&conn->v.channel) == 0;
}

bool
nc_feed_stream_turn(NcFeedConn *conn, const NcFeedTurn *turn)
{
	bool		more;

	if (!nc_feed_streams(conn) || !recheck(conn, turn))
		return false;
	more = push_wal(conn, turn);
	if (nc_feed_streams(conn))
		keepalive(conn, turn);
	if (nc_feed_streams(conn))
		nc_feed_lease_ask(conn, turn);
	if (nc_feed_streams(conn))
		end_if_stuck(conn, turn);
	(void) nc_visitor_flush(&conn->v);
	conn->caught_up |= conn->greeted && !turn->limit.in_recovery && has_all(conn, &turn->limit);
	nc_visitor_arm(&conn->v);
	return more && nc_feed_streams(conn);
}

/* The end of a server that shuts down in order, as a walsender says it. */
void
nc_feed_stream_finish(NcFeedConn *conn)
{
	NcWriter	w = nc_visitor_writer(&conn->v);

	nc_session_command_complete(&w, "COPY 0");
	nc_visitor_commit(&conn->v, &w);
	nc_visitor_close(&conn->v);
}

const char *
nc_feed_stream_state(const NcFeedConn *conn, const NcFeedLimit *limit)
{
	if (conn->v.state == NC_VISITOR_CLOSING)
		return "closing";
	if (!nc_feed_streams(conn))
		return "absent";
	if (limit->in_recovery && Max(conn->sent, nc_feed_stream_theirs(conn)) > limit->lsn)
		return "waiting";
	return has_all(conn, limit) ? "streaming" : "catchup";
}

/* ---- what the page server says ---- */

static void
take_status(NcFeedConn *conn, const NcFeedTurn *turn, NcReader *r)
{
	XLogRecPtr	write = nc_read_u64(r);
	XLogRecPtr	flush = nc_read_u64(r);
	XLogRecPtr	apply = nc_read_u64(r);
	XLogRecPtr	furthest;
	bool		reply;

	(void) nc_read_u64(r);		/* their clock */
	reply = nc_read_u8(r) != 0;
	if (r->failed)
	{
		nc_feed_conn_fatal(conn, "08P01", "status update is too short", NULL, NULL);
		return;
	}
	conn->write = write;
	conn->flush = flush;
	conn->apply = apply;
	conn->replied_at = turn->now;
	conn->reply_time = turn->wall;
	conn->greeted = true;
	conn->keepalive_owed |= reply;
	note_stuck(conn, turn);
	if (turn->limit.in_recovery)
		return;
	furthest = Max(write, nc_feed_stream_theirs(conn));
	if (nc_feed_wal_beyond(&turn->limit, furthest))
		refuse_diverged(conn, turn, furthest);
	else if (flush != InvalidXLogRecPtr)
		nc_feed_slot_confirm(conn->slot, flush, turn);
}

static void
take_copy_data(NcFeedConn *conn, const NcFeedTurn *turn, const NcFrame *frame)
{
	NcReader	r = nc_reader(frame->body, frame->body_bytes);

	switch (nc_read_u8(&r))
	{
		case 'r':
			take_status(conn, turn, &r);
			break;
		case NC_LEASE_MESSAGE:
			nc_feed_lease_take(conn, &r);
			break;
		case 'h':
			/* Hot standby feedback: page servers run no queries that it could protect. */
			break;
		default:
			nc_feed_conn_fatal(conn, "08P01", "unexpected message while streaming",
							   NULL, NULL);
			break;
	}
}

/* The page server wants to stop; the connection can take commands again, as a walsender's. */
static void
take_copy_done(NcFeedConn *conn)
{
	NcWriter	w = nc_visitor_writer(&conn->v);

	nc_session_copy_done(&w);
	nc_session_command_complete(&w, "START_STREAMING");
	nc_session_command_complete(&w, "START_REPLICATION");
	nc_session_ready(&w);
	nc_visitor_commit(&conn->v, &w);
	nc_feed_slot_detach(conn->slot, conn);
	nc_feed_wal_close(&conn->segment);
	conn->slot = -1;
	conn->streaming = false;
	conn->v.full = 1;
}

void
nc_feed_stream_message(NcFeedConn *conn, const NcFeedTurn *turn, const NcFrame *frame)
{
	switch (frame->type)
	{
		case 'd':
			take_copy_data(conn, turn, frame);
			break;
		case 'c':
			take_copy_done(conn);
			break;
		case 'X':
			nc_visitor_leave(&conn->v);
			break;
		default:
			nc_feed_conn_fatal(conn, "08P01", "unexpected message while streaming",
							   NULL, NULL);
			break;
	}
}
