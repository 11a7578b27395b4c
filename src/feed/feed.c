/*
 * feed.c
 *	  The WAL feed: a worker that streams the compute's WAL to page servers.
 *
 * Runs from the start of the postmaster, through recovery, until no process is
 * left that could need a page.  Guarantees that one page server can neither
 * block another nor end the worker.  Never reads a catalog or any page, so that
 * page servers can always get the WAL that readers wait for.
 *
 * One loop: the door's connections, the doorbell that backends ring when they wait
 * for WAL to arrive, and the postmaster's life line.  Ordinary commits do not ring,
 * so the loop also looks at the flush position now and then; while commits wait for
 * page servers, whoever flushes WAL wakes it (sync.c).
 */
#include "postgres.h"

#include <poll.h>

#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgwriter.h"
#include "postmaster/postmaster.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "feed_internal.h"
#include "nc/compat/server.h"
#include "nc/feed/throttle.h"
#include "nc/shared/alone.h"
#include "nc/shared/test_point.h"
#include "nc/shared/waits.h"

/* While WAL moves the flush position is looked at often, on an idle server rarely. */
#define POLL_MIN_MS 5
#define POLL_MAX_MS 200
#define POLL_UNUSED_MS 500
#define POLL_STOPPING_MS 20

/* Until who waits can be released. */
#define POLL_OWED_MS 1

/* Until slots are held that the startup process restores. */
#define POLL_START_MS 5

/* After the last other process has gone: how long to go on sending. */
#define LAST_WORDS_MS 1000

static NcLoop *loop = NULL;
static NcDoor *door = NULL;
static NcOp bell_op;
static NcOp life_op;

/* The loop's descriptor and the latch that who flushes WAL sets. */
static WaitEventSet *wal_waits = NULL;
static int	poll_ms = POLL_MIN_MS;
static XLogRecPtr polled_lsn = InvalidXLogRecPtr;

/* The server stops. */
static bool stop_requested = false;

/* ---- a turn ---- */

static void
publish_row(int slot, const NcFeedTurn *turn)
{
	NcFeedConn *conn = nc_feed_slot_conn(slot);
	NcFeedPeer	row;

	nc_feed_row_read(slot, &row);
	row.retained_from = nc_feed_slot_retained_from(slot);
	row.throttles = nc_feed_lag_exceeded(slot);
	row.sync_priority = nc_feed_sync_priority(slot);
	memset(row.state, 0, sizeof(row.state));
	memset(row.address, 0, sizeof(row.address));
	memset(row.reason, 0, sizeof(row.reason));
	memset(row.sync_state, 0, sizeof(row.sync_state));
	row.asked_us = conn != NULL && conn->ping_sent ? nc_feed_clock_us(conn->pinged_at) : 0;
	if (conn == NULL)
	{
		const char *state;

		strlcpy(row.reason, nc_feed_join_reason(slot, &state), sizeof(row.reason));
		strlcpy(row.state, row.reason[0] != '\0' ? state : "absent", sizeof(row.state));
		row.connected_since = 0;
		memset(&row.member, 0, sizeof(row.member));
	}
	else
	{
		strlcpy(row.state, nc_feed_stream_state(conn, &turn->limit), sizeof(row.state));
		strlcpy(row.address, conn->v.address, sizeof(row.address));
		strlcpy(row.sync_state, nc_feed_sync_state(slot), sizeof(row.sync_state));
		row.sent = conn->sent;
		row.write = conn->write;
		row.flush = conn->flush;
		row.apply = conn->apply;
		row.reply_time = conn->reply_time;
		row.connected_since = conn->connected_since;
		row.member = conn->member;
	}
	nc_feed_row_write(slot, &row);
}

/*
 * Position up to which every streaming page server has been sent WAL, or has it
 * anyway; all ones when none streams.
 */
static XLogRecPtr
sent_by_all(void)
{
	XLogRecPtr	sent = PG_UINT64_MAX;

	for (int i = nc_feed_slot_after(-1); i >= 0; i = nc_feed_slot_after(i))
	{
		NcFeedConn *conn = nc_feed_slot_conn(i);

		if (conn != NULL && nc_feed_streams(conn))
			sent = Min(sent, Max(conn->sent, nc_feed_stream_theirs(conn)));
	}
	return sent;
}

static void
publish_feed(const NcFeedTurn *turn)
{
	nc_feed_publish_turn(&turn->limit);
	nc_feed_publish_sent(sent_by_all());
	nc_feed_lag_tick(turn);
	for (int i = nc_feed_slot_after(-1); i >= 0; i = nc_feed_slot_after(i))
		publish_row(i, turn);
}

/* How long to sleep when nothing happens. */
static int
choose_sleep(const NcFeedTurn *turn)
{
	bool		moved = turn->limit.lsn != polled_lsn;

	polled_lsn = turn->limit.lsn;
	if (turn->limit.in_recovery && !nc_feed_retain_holds_all())
		poll_ms = POLL_START_MS;
	else if (sent_by_all() == PG_UINT64_MAX)
		poll_ms = POLL_UNUSED_MS;
	else if (moved || poll_ms > POLL_MAX_MS)
		poll_ms = POLL_MIN_MS;
	else
		poll_ms = Min(poll_ms * 2, POLL_MAX_MS);
	poll_ms = Min(poll_ms, nc_feed_lease_sleep_ms());
	if (nc_feed_sync_owed())
		return POLL_OWED_MS;
	return stop_requested ? Min(poll_ms, POLL_STOPPING_MS) : poll_ms;
}

static void
read_clocks(NcFeedTurn *turn)
{
	turn->now = nc_feed_clock();
	turn->wall = GetCurrentTimestamp();
}

/* As nc_loop_wait(), and until WAL is flushed. */
static void
wait_for_wal(const NcFeedTurn *turn, uint64 timeout_us)
{
	WaitEvent	event;

	ResetLatch(MyLatch);
	nc_pg_wal_flush_expect();
	nc_loop_flush(loop);
	if (nc_feed_wal_limit().lsn <= turn->limit.lsn && !nc_loop_ready(loop))
		(void) WaitEventSetWait(wal_waits, (long) ((timeout_us + 999) / 1000), &event, 1,
								nc_wait_event(NC_WAIT_FEED_MAIN));
	nc_pg_wal_flush_expected();
	nc_loop_wait(loop, 0);
}

/*
 * Waits for events, but not when somebody has rung since the turn began and
 * there is WAL for him.  Other WAL waits for the poll, which makes messages of
 * a decent size out of many small commits, unless commits wait for page servers.
 */
static void
wait_for_feed_events(const NcFeedTurn *turn, int timeout_ms)
{
	uint64		timeout_us = Min((uint64) timeout_ms * 1000, nc_door_sleep_us(door));

	if (timeout_us > 0 && nc_feed_sleep_begin() && nc_feed_wal_limit().lsn > turn->limit.lsn)
		timeout_us = 0;
	if (timeout_us > 0 && nc_feed_sync_awaited())
		wait_for_wal(turn, timeout_us);
	else
	{
		pgstat_report_wait_start(nc_wait_event(NC_WAIT_FEED_MAIN));
		nc_loop_wait(loop, timeout_us);
		pgstat_report_wait_end();
	}
	nc_feed_sleep_end();
	nc_door_events(door);
}

/* True when somebody could be sent more at once. */
static bool
stream(const NcFeedTurn *turn)
{
	bool		more = false;

	for (int i = nc_feed_slot_after(-1); i >= 0; i = nc_feed_slot_after(i))
	{
		NcFeedConn *conn = nc_feed_slot_conn(i);

		if (conn != NULL)
			more |= nc_feed_stream_turn(conn, turn);
	}
	return more;
}

static bool
one_turn(NcFeedTurn *turn)
{
	bool		more;

	NC_TEST_POINT("feed-turn");
	read_clocks(turn);
	turn->limit = nc_feed_wal_limit();
	nc_feed_join_tick(turn);
	nc_feed_retain_tick(turn);
	nc_feed_door_turn(turn);
	more = stream(turn);
	nc_feed_quorum_tick(turn);
	nc_feed_members_tick(turn);
	nc_feed_lease_tick(turn);
	nc_feed_sync_tick(turn);
	publish_feed(turn);
	return more;
}

/* ---- life ---- */

static void
last_word(NcVisitor *v, void *arg)
{
	const NcFeedTurn *turn = arg;
	NcFeedConn *conn = (NcFeedConn *) v;

	if (!nc_feed_streams(conn))
		nc_visitor_close(v);
	else if (conn->sent >= turn->limit.lsn && nc_channel_unsent(&v->channel) == 0)
		nc_feed_stream_finish(conn);
}

/*
 * The server's own last checkpoint comes when we have gone, so page servers would have
 * none since long, and what they replayed would be replayed again at their next start.
 * This one reaches them, and leaves little to do for the other.
 */
static void
make_last_checkpoint(void)
{
	MemoryContext context = CurrentMemoryContext;

	if (RecoveryInProgress() || sent_by_all() == PG_UINT64_MAX)
		return;
	PG_TRY();
	{
		RequestCheckpoint(CHECKPOINT_IMMEDIATE | CHECKPOINT_WAIT);
	}
	PG_CATCH();
	{
		/* page servers replay more; the server says itself what is wrong */
		MemoryContextSwitchTo(context);
		FlushErrorState();
	}
	PG_END_TRY();
}

/* Everybody else is gone: what is flushed should still reach the page servers. */
static bool
last_words_said(NcFeedTurn *turn)
{
	nc_door_each(door, last_word, turn);
	return door->visitors == 0;
}

bool
nc_feed_turn(bool stopping)
{
	static NcFeedTurn turn;
	static TimestampTz alone_since = 0;
	bool		more;

	stop_requested = stopping;
	more = one_turn(&turn);
	if (stop_requested && alone_since == 0 && nc_worker_alone())
	{
		make_last_checkpoint();
		alone_since = nc_feed_clock();
		/* its record is sent by the next turn */
		return true;
	}
	if (alone_since != 0)
	{
		if (last_words_said(&turn) ||
			TimestampDifferenceExceeds(alone_since, turn.now, LAST_WORDS_MS))
			return false;
	}
	wait_for_feed_events(&turn, more ? 0 : choose_sleep(&turn));
	return true;
}

static void
on_bell(NcOp *op)
{
	nc_feed_doorbell_answer();
	nc_loop_poll(loop, op, nc_feed_doorbell(), POLLIN);
}

static void
on_postmaster_death(NcOp *op)
{
	proc_exit(1);
}

static void
set_up(void)
{
	char		err[256];

	loop = nc_loop_create(NC_LOOP_EPOLL, err, sizeof(err));
	if (loop == NULL)
		ereport(FATAL, (errmsg("neon_comm WAL feed: %s", err)));
	bell_op.complete = on_bell;
	nc_loop_poll(loop, &bell_op, nc_feed_doorbell(), POLLIN);
	life_op.complete = on_postmaster_death;
	nc_loop_poll(loop, &life_op, postmaster_alive_fds[POSTMASTER_FD_WATCH], POLLIN);
	wal_waits = nc_pg_wait_event_set(2);
	AddWaitEventToSet(wal_waits, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
	AddWaitEventToSet(wal_waits, WL_SOCKET_READABLE, nc_loop_fd(loop), NULL, NULL);
	door = nc_feed_door_open(loop);
}

void
nc_feed_begin(void)
{
	nc_feed_wal_init();
	nc_feed_join_init();
	nc_feed_quorum_begin();
	nc_feed_registry_init();
	nc_feed_retain_init();
	nc_feed_registry_reloaded();
	nc_feed_sync_init();
	set_up();
	ereport(LOG, (errmsg("WAL feed listens on %s port %d for %d page servers",
						 nc_feed_listen_addresses, nc_feed_port, nc_feed_nslots)));
}

void
nc_feed_reloaded(void)
{
	nc_feed_door_reload();
	nc_feed_registry_reloaded();
	nc_feed_sync_reloaded();
}

bool
nc_feed_enabled(void)
{
	return nc_feed_port != 0;
}

void
nc_feed_init(void)
{
	nc_feed_guc_init();
	if (!process_shared_preload_libraries_in_progress || nc_feed_port == 0)
		return;
	nc_feed_check_settings();
	nc_feed_quorum_check_settings();
	nc_feed_check_network();
	nc_feed_door_check_files();
	nc_feed_doorbell_create();
	nc_throttle_init();
	nc_feed_places_init();
	nc_feed_quorum_init();
}
