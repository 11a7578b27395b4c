/*
 * feed.c
 *	  The WAL feed: a worker that streams the compute's WAL to page servers.
 *
 * Runs from the start of the postmaster, through recovery, until no process is
 * left that could need a page.  Guarantees that one page server can neither
 * block another nor end the worker.  Never reads a catalog or any page, so that
 * page servers can always get the WAL that readers wait for.
 *
 * One loop: epoll over all connections, the doorbell that backends ring when
 * they wait for WAL to arrive, and the postmaster's life line.  Ordinary commits
 * do not ring, so the loop also looks at the flush position now and then.
 */
#include "postgres.h"

#include <signal.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "libpq/pqsignal.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/postmaster.h"
#include "storage/ipc.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "feed_internal.h"
#include "nc/ext/test_point.h"
#include "nc/feed/throttle.h"
#include "nc/worker/alone.h"

#define CONNS_MAX (NC_FEED_SLOTS_MAX + NC_FEED_SPARE_CONNS)
#define LISTENERS_MAX 8
#define EVENTS_PER_TURN 64
#define ACCEPTS_PER_TURN 16

/* While WAL moves the flush position is looked at often, on an idle server rarely. */
#define POLL_MIN_MS 5
#define POLL_MAX_MS 200
#define POLL_UNUSED_MS 500
#define POLL_STOPPING_MS 20

/* After the last other process has gone: how long to go on sending. */
#define LAST_WORDS_MS 1000

static NcFeedConn *conns[CONNS_MAX];
static int	nconns = 0;
static int	listeners[LISTENERS_MAX];
static int	nlisteners = 0;
static int	epoll_fd = -1;
static int	poll_ms = POLL_MIN_MS;
static XLogRecPtr polled_lsn = InvalidXLogRecPtr;

static volatile sig_atomic_t stop_requested = false;
static volatile sig_atomic_t reload_requested = false;

PGDLLEXPORT void nc_feed_main(Datum arg);

/* ---- signals ---- */

static void
handle_stop(SIGNAL_ARGS)
{
	stop_requested = true;
	nc_feed_doorbell_press();
}

static void
handle_reload(SIGNAL_ARGS)
{
	reload_requested = true;
	nc_feed_doorbell_press();
}

static void
take_reload(void)
{
	if (!reload_requested)
		return;
	reload_requested = false;
	ProcessConfigFile(PGC_SIGHUP);
	nc_feed_check_settings(WARNING);
	nc_feed_guard_load(true);
}

/* ---- connections ---- */

static void
watch(int op, int fd, uint32 events, void *tag)
{
	struct epoll_event event = {.events = events, .data.ptr = tag};

	if (epoll_ctl(epoll_fd, op, fd, &event) < 0)
		ereport(FATAL,
				(errcode_for_socket_access(),
				 errmsg("neon_comm WAL feed: epoll_ctl failed: %m")));
}

static void
update_interest(NcFeedConn *conn)
{
	uint32		wanted = 0;

	if (!conn->tls_wants_write &&
		(conn->state == NC_FEED_CLOSING || conn->in_bytes < sizeof(conn->in)))
		wanted |= EPOLLIN;
	if (!nc_feed_conn_drained(conn) || conn->tls_wants_write)
		wanted |= EPOLLOUT;
	if (wanted == conn->interest)
		return;
	watch(EPOLL_CTL_MOD, conn->fd, wanted, conn);
	conn->interest = wanted;
}

/* Who makes room first: strangers before those who have logged in, then the oldest. */
static bool
sooner(const NcFeedConn *a, const NcFeedConn *b)
{
	if (a->logged_in != b->logged_in)
		return !a->logged_in;
	return a->connected_at < b->connected_at;
}

/* A full house: somebody who has connected and does not stream makes room. */
static void
make_room(void)
{
	NcFeedConn *oldest = NULL;

	for (int i = 0; i < nconns; i++)
	{
		if (conns[i]->state != NC_FEED_STREAMING && !conns[i]->dead &&
			(oldest == NULL || sooner(conns[i], oldest)))
			oldest = conns[i];
	}
	if (oldest != NULL)
		oldest->dead = true;
}

static void
bury_the_dead(void)
{
	int			kept = 0;

	for (int i = 0; i < nconns; i++)
	{
		if (conns[i]->dead)
		{
			if (conns[i]->state == NC_FEED_STREAMING)
				ereport(LOG, (errmsg("WAL feed: connection of %s at %s has ended",
									 nc_feed_slot_names[conns[i]->slot], conns[i]->address)));
			nc_feed_conn_free(conns[i]);
		}
		else
			conns[kept++] = conns[i];
	}
	nconns = kept;
}

static void
accept_connections(int listener, TimestampTz now)
{
	for (int i = 0; i < ACCEPTS_PER_TURN && nconns < CONNS_MAX; i++)
	{
		NcFeedConn *conn = nc_feed_accept(listener, now);

		if (conn == NULL)
			return;
		conn->interest = EPOLLIN;
		watch(EPOLL_CTL_ADD, conn->fd, conn->interest, conn);
		conns[nconns++] = conn;
		if (nconns >= nc_feed_nslots + NC_FEED_SPARE_CONNS)
		{
			make_room();
			return;
		}
	}
}

/* ---- a turn ---- */

static void
take_event(const struct epoll_event *event, const NcFeedTurn *turn)
{
	void	   *tag = event->data.ptr;

	if (tag == &stop_requested)
		nc_feed_doorbell_answer();
	else if (tag == postmaster_alive_fds)
		proc_exit(1);
	else if ((int *) tag >= listeners && (int *) tag < listeners + nlisteners)
		accept_connections(*(int *) tag, turn->now);
	else if ((event->events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0 ||
			 ((NcFeedConn *) tag)->tls_wants_write)
		nc_feed_conn_receive(tag, turn);
}

/* Pumps all connections; true when at least one could do more at once. */
static bool
pump_connections(const NcFeedTurn *turn)
{
	bool		more = false;

	for (int i = 0; i < nconns; i++)
	{
		if (!conns[i]->dead)
			more |= nc_feed_conn_pump(conns[i], turn);
	}
	bury_the_dead();
	for (int i = 0; i < nconns; i++)
		update_interest(conns[i]);
	return more;
}

static void
publish_row(int slot, const NcFeedTurn *turn)
{
	NcFeedConn *conn = nc_feed_slot_conn(slot);
	NcFeedPeer	row;

	nc_feed_row_read(slot, &row);
	row.retained_from = nc_feed_slot_retained_from(slot);
	row.throttles = nc_feed_lag_exceeded(slot);
	memset(row.state, 0, sizeof(row.state));
	memset(row.address, 0, sizeof(row.address));
	if (conn == NULL)
	{
		strlcpy(row.state, "absent", sizeof(row.state));
		row.connected_since = 0;
	}
	else
	{
		strlcpy(row.state, nc_feed_stream_state(conn, &turn->limit), sizeof(row.state));
		strlcpy(row.address, conn->address, sizeof(row.address));
		row.sent = conn->sent;
		row.write = conn->write;
		row.flush = conn->flush;
		row.apply = conn->apply;
		row.reply_time = conn->reply_time;
		row.connected_since = conn->connected_since;
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

	for (int i = 0; i < nc_feed_nslots; i++)
	{
		NcFeedConn *conn = nc_feed_slot_conn(i);

		if (conn != NULL && conn->state == NC_FEED_STREAMING)
			sent = Min(sent, Max(conn->sent, nc_feed_stream_theirs(conn)));
	}
	return sent;
}

static void
publish(const NcFeedTurn *turn)
{
	nc_feed_publish_sent(sent_by_all());
	nc_feed_lag_tick(turn);
	for (int i = 0; i < nc_feed_nslots; i++)
		publish_row(i, turn);
}

/* How long to sleep when nothing happens. */
static int
choose_sleep(const NcFeedTurn *turn)
{
	bool		moved = turn->limit.lsn != polled_lsn;

	polled_lsn = turn->limit.lsn;
	if (sent_by_all() == PG_UINT64_MAX)
		poll_ms = POLL_UNUSED_MS;
	else if (moved || poll_ms > POLL_MAX_MS)
		poll_ms = POLL_MIN_MS;
	else
		poll_ms = Min(poll_ms * 2, POLL_MAX_MS);
	return stop_requested ? Min(poll_ms, POLL_STOPPING_MS) : poll_ms;
}

static void
read_clocks(NcFeedTurn *turn)
{
	turn->now = nc_feed_clock();
	turn->wall = GetCurrentTimestamp();
}

/*
 * Waits for events, but not when somebody has rung since the turn began and
 * there is WAL for him.  Other WAL waits for the poll, which makes messages of
 * a decent size out of many small commits.
 */
static void
wait_for_events(NcFeedTurn *turn, int timeout_ms)
{
	struct epoll_event events[EVENTS_PER_TURN];
	int			n;

	if (timeout_ms > 0 && nc_feed_sleep_begin() && nc_feed_wal_limit().lsn > turn->limit.lsn)
		timeout_ms = 0;
	pgstat_report_wait_start(PG_WAIT_EXTENSION);
	n = epoll_wait(epoll_fd, events, EVENTS_PER_TURN, timeout_ms);
	pgstat_report_wait_end();
	nc_feed_sleep_end();
	read_clocks(turn);
	for (int i = 0; i < n; i++)
		take_event(&events[i], turn);
}

static bool
one_turn(NcFeedTurn *turn)
{
	bool		more;

	NC_TEST_POINT("feed-turn");
	read_clocks(turn);
	turn->limit = nc_feed_wal_limit();
	nc_feed_retain_tick(turn);
	more = pump_connections(turn);
	publish(turn);
	return more;
}

/* ---- life ---- */

/* Everybody else is gone: what is flushed should still reach the page servers. */
static bool
last_words_said(const NcFeedTurn *turn)
{
	int			open = 0;

	for (int i = 0; i < nconns; i++)
	{
		NcFeedConn *conn = conns[i];

		if (conn->state == NC_FEED_STREAMING && conn->sent >= turn->limit.lsn &&
			nc_feed_conn_drained(conn))
			nc_feed_stream_finish(conn, turn->now);
		else if (conn->state != NC_FEED_STREAMING && conn->state != NC_FEED_CLOSING)
			nc_feed_conn_close(conn, turn->now);
		open++;
	}
	return open == 0;
}

static void
run(void)
{
	NcFeedTurn	turn = {0};
	TimestampTz alone_since = 0;
	MemoryContext context = AllocSetContextCreate(TopMemoryContext, "neon_comm WAL feed turn",
												  ALLOCSET_DEFAULT_SIZES);

	MemoryContextSwitchTo(context);
	for (;;)
	{
		bool		more;

		MemoryContextReset(context);
		take_reload();
		more = one_turn(&turn);
		if (stop_requested && alone_since == 0 && nc_worker_alone())
			alone_since = turn.now;
		if (alone_since != 0)
		{
			if (last_words_said(&turn) ||
				TimestampDifferenceExceeds(alone_since, turn.now, LAST_WORDS_MS))
				return;
		}
		wait_for_events(&turn, more ? 0 : choose_sleep(&turn));
	}
}

static void
set_up(void)
{
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (epoll_fd < 0)
		ereport(FATAL,
				(errcode_for_socket_access(),
				 errmsg("neon_comm WAL feed could not make its epoll instance: %m")));
	watch(EPOLL_CTL_ADD, nc_feed_doorbell(), EPOLLIN, (void *) &stop_requested);
	watch(EPOLL_CTL_ADD, postmaster_alive_fds[POSTMASTER_FD_WATCH], EPOLLIN,
		  postmaster_alive_fds);
	nlisteners = nc_feed_listen(listeners, LISTENERS_MAX);
	for (int i = 0; i < nlisteners; i++)
		watch(EPOLL_CTL_ADD, listeners[i], EPOLLIN, &listeners[i]);
}

void
nc_feed_main(Datum arg)
{
	pqsignal(SIGTERM, handle_stop);
	pqsignal(SIGHUP, handle_reload);
	BackgroundWorkerUnblockSignals();

	nc_worker_register_self();
	nc_feed_wal_init();
	nc_feed_retain_init();
	nc_feed_guard_load(false);
	set_up();
	ereport(LOG, (errmsg("WAL feed listens on %s port %d for %d page servers",
						 nc_feed_listen_addresses, nc_feed_port, nc_feed_nslots)));
	run();

	/* 0 would make the postmaster forget this worker. */
	proc_exit(1);
}

void
nc_feed_init(void)
{
	BackgroundWorker worker = {0};

	nc_feed_guc_init();
	if (!process_shared_preload_libraries_in_progress || nc_feed_port == 0)
		return;
	nc_feed_check_settings(FATAL);
	nc_feed_check_network();
	nc_feed_guard_check_files();
	nc_feed_doorbell_create();
	nc_throttle_init();

	worker.bgw_flags = BGWORKER_SHMEM_ACCESS;
	worker.bgw_start_time = BgWorkerStart_PostmasterStart;
	worker.bgw_restart_time = 1;
	strlcpy(worker.bgw_library_name, "neon_comm", sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, "nc_feed_main", sizeof(worker.bgw_function_name));
	strlcpy(worker.bgw_name, "neon_comm WAL feed", sizeof(worker.bgw_name));
	strlcpy(worker.bgw_type, "neon_comm WAL feed", sizeof(worker.bgw_type));
	RegisterBackgroundWorker(&worker);
}
