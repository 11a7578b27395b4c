/*
 * worker.c
 *	  The event loop of one page service worker.
 *
 * A session is in exactly one list: runnable (its next message can be handled),
 * waiting (its first request waits for replay), throttled (its request rate is
 * used up) or idle (epoll will say).  A turn of the loop collects events, moves
 * sessions, then runs each runnable one.
 *
 * Guarantees: nothing in the loop waits for a client, so SIGTERM and the death of
 * the postmaster end the worker within a turn; memory is bounded by the number of
 * sessions; nothing is allocated per page.  While requests wait for replay the loop
 * looks every fraction of a millisecond, otherwise it sleeps.
 */
#include "page_service.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "access/xlog.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "postmaster/postmaster.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/pmsignal.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#define EVENTS_PER_TURN 64
#define ACCEPTS_PER_TURN 16

/* How often replay is looked at: at first, and once a wait has lasted a while. */
#define LSN_POLL_US 200
#define LSN_POLL_SLOW_US 1000
#define LSN_POLL_FAST_FOR_MS 50

#define SWEEP_MS 1000			/* timeouts are checked this often */
#define LISTEN_RETRY_MS 5000
#define ACCEPT_PAUSE_MS 200		/* after running out of descriptors or memory */
#define CLOSING_MS 5000			/* for a client to take a last message */
#define SLOW_WAIT_MS 10000		/* a wait for an LSN this long is logged */

/* Clients beyond max_connections that are told so; more are closed without a word. */
#define SURPLUS_SESSIONS 64

typedef struct Worker
{
	int			epoll_fd;
	int			listen_fds[NC_SVC_LISTENERS_MAX];
	int			nlisten;
	int			nsessions;
	dlist_head	runnable;
	dlist_head	waiting;
	dlist_head	throttled;
	dlist_head	idle;
	TimestampTz now;			/* of this turn; this and all timers by nc_svc_clock() */
	TimestampTz next_sweep;
	TimestampTz next_listen;	/* try to open the sockets, or to accept again */
	TimestampTz waiting_since;	/* the waiting list is not empty since */
	bool		accept_paused;
} Worker;

/* Written by signal handlers, read by epoll; made before they are installed. */
static int	wake_fd = -1;

/* ---- signals ---- */

static void
wake_loop(void)
{
	uint64		one = 1;

	/* Full means a wake is pending already. */
	(void) !write(wake_fd, &one, sizeof(one));
}

static void
handle_sigterm(SIGNAL_ARGS)
{
	int			save_errno = errno;

	ShutdownRequestPending = true;
	wake_loop();
	SetLatch(MyLatch);
	errno = save_errno;
}

static void
handle_sighup(SIGNAL_ARGS)
{
	int			save_errno = errno;

	ConfigReloadPending = true;
	wake_loop();
	SetLatch(MyLatch);
	errno = save_errno;
}

static void
drain_wake(void)
{
	uint64		count;

	(void) !read(wake_fd, &count, sizeof(count));
}

/* ---- epoll ---- */

/* tag: a session, or one of the addresses below for the fixed descriptors. */
static void
watch(Worker *worker, int op, int fd, uint32 events, void *tag)
{
	struct epoll_event event = {.events = events, .data.ptr = tag};

	if (epoll_ctl(worker->epoll_fd, op, fd, &event) != 0)
		ereport(ERROR, (errmsg("page service: epoll_ctl failed: %m")));
}

static int
wait_for_events(Worker *worker, struct epoll_event *events, int64 timeout_us)
{
	int			n;

	pgstat_report_wait_start(PG_WAIT_EXTENSION);
	if (timeout_us < 0)
		n = epoll_wait(worker->epoll_fd, events, EVENTS_PER_TURN, -1);
	else
	{
		struct timespec ts = {.tv_sec = timeout_us / 1000000,
		.tv_nsec = timeout_us % 1000000 * 1000};

		n = epoll_pwait2(worker->epoll_fd, events, EVENTS_PER_TURN, &ts, NULL);
		/* Kernels before 5.11 count in milliseconds. */
		if (n < 0 && errno == ENOSYS)
			n = epoll_wait(worker->epoll_fd, events, EVENTS_PER_TURN, (timeout_us + 999) / 1000);
	}
	pgstat_report_wait_end();
	if (n < 0 && errno != EINTR)
		ereport(ERROR, (errmsg("page service: epoll_wait failed: %m")));
	return Max(n, 0);
}

/* Asks epoll for what the session can use now. */
static void
update_interest(Worker *worker, NcSvcSession *s)
{
	uint32		events = EPOLLRDHUP;
	bool		blocked = s->out_end > s->out_start;

	if (blocked || s->tls_wants_write)
		events |= EPOLLOUT;
	if (s->state != NC_SVC_SESSION_CLOSING && !s->tls_wants_write &&
		s->in_end - s->in_start < NC_SVC_IN_BYTES &&
		s->out_end - s->out_start < NC_SVC_FLUSH_BYTES)
		events |= EPOLLIN;
	if (events != s->events)
	{
		watch(worker, EPOLL_CTL_MOD, s->fd, events, s);
		s->events = events;
	}
}

/* ---- sessions ---- */

static void
close_session(Worker *worker, NcSvcSession *s)
{
	dlist_delete(&s->link);
	nc_svc_client_remove(s);
	nc_svc_channel_close(s);
	ReleaseExternalFD();
	pfree(s);
	worker->nsessions--;
	pg_atomic_write_u32(&nc_svc_self()->sessions, worker->nsessions);
}

static void
move_session(NcSvcSession *s, dlist_head *list)
{
	dlist_delete(&s->link);
	dlist_push_tail(list, &s->link);
}

/* Clients that never log in may not keep others out: the oldest of too many makes room. */
static void
limit_logins(Worker *worker)
{
	NcSvcSession *oldest = NULL;
	int			logins = 0;
	dlist_iter	iter;

	dlist_foreach(iter, &worker->idle)
	{
		NcSvcSession *s = dlist_container(NcSvcSession, link, iter.cur);

		if (s->logged_in || s->state == NC_SVC_SESSION_CLOSING)
			continue;
		logins++;
		if (oldest == NULL || s->opened < oldest->opened)
			oldest = s;
	}
	if (logins < NC_SVC_LOGINS_MAX)
		return;
	nc_svc_login_refused(oldest, worker->now, "it did not log in, and newer clients want to");
	/* not freed here: an event of this turn may still name it */
	oldest->state = NC_SVC_SESSION_CLOSING;
	oldest->out_start = oldest->out_end = 0;
	move_session(oldest, &worker->runnable);
}

static void
open_session(Worker *worker, int fd)
{
	uint32		total = 0;
	NcSvcSession *s = NULL;

	limit_logins(worker);
	for (int i = 0; i < nc_svc_workers; i++)
		total += pg_atomic_read_u32(&nc_svc_shared->workers[i].sessions);
	if (total < nc_svc_max_connections + SURPLUS_SESSIONS)
		s = MemoryContextAllocExtended(TopMemoryContext, sizeof(NcSvcSession), MCXT_ALLOC_NO_OOM);
	if (s == NULL)
	{
		close(fd);
		return;
	}
	ReserveExternalFD();
	nc_svc_session_init(s, fd, worker->now);
	nc_svc_client_identify(s);
	if (total >= nc_svc_max_connections)
		s->surplus = NC_SVC_SURPLUS_TOTAL;
	else if (nc_svc_max_connections_per_client > 0 &&
			 nc_svc_client_sessions(s->client) >= nc_svc_max_connections_per_client)
		s->surplus = NC_SVC_SURPLUS_CLIENT;
	nc_svc_client_add(s);
	s->events = EPOLLIN | EPOLLRDHUP;
	watch(worker, EPOLL_CTL_ADD, fd, s->events, s);
	dlist_push_tail(&worker->idle, &s->link);
	worker->nsessions++;
	pg_atomic_write_u32(&nc_svc_self()->sessions, worker->nsessions);
}

/* What epoll cannot tell of: the handshake of TLS, and bytes inside TLS. False = gone. */
static bool
run_tls(Worker *worker, NcSvcSession *s, NcSvcStep *step)
{
	if (s->state == NC_SVC_SESSION_TLS && s->out_start == s->out_end)
	{
		if (!nc_svc_channel_handshake(s, worker->now))
			return false;
		*step = s->state == NC_SVC_SESSION_TLS ? NC_SVC_STEP_INPUT : NC_SVC_STEP_MORE;
	}
	else if (*step == NC_SVC_STEP_INPUT && nc_svc_channel_pending(s))
	{
		*step = NC_SVC_STEP_MORE;
		return nc_svc_channel_receive(s, worker->now);
	}
	return true;
}

/* One turn of a session; afterwards it is in the list of what it needs, or closed. */
static void
run_session(Worker *worker, NcSvcSession *s)
{
	NcSvcStep	step = nc_svc_session_step(s, worker->now);
	bool		sent_all;

	if (!nc_svc_channel_send(s, worker->now) || !run_tls(worker, s, &step))
	{
		close_session(worker, s);
		return;
	}
	sent_all = s->out_start == s->out_end;
	if (s->state == NC_SVC_SESSION_CLOSING && sent_all)
	{
		close_session(worker, s);
		return;
	}
	if (step == NC_SVC_STEP_LSN)
		move_session(s, &worker->waiting);
	else if (step == NC_SVC_STEP_TIME)
		move_session(s, &worker->throttled);
	else if (step == NC_SVC_STEP_MORE || (step == NC_SVC_STEP_ROOM && sent_all))
		move_session(s, &worker->runnable);
	else
		move_session(s, &worker->idle);
	update_interest(worker, s);
}

/* A session that waits for replay or time stays where it is: more input does not help it. */
static void
session_event(Worker *worker, NcSvcSession *s, uint32 events)
{
	bool		alive = (events & (EPOLLERR | EPOLLHUP)) == 0;

	if (alive && ((events & EPOLLIN) != 0 || s->tls_wants_write))
		alive = nc_svc_channel_receive(s, worker->now);
	else if ((events & EPOLLRDHUP) != 0)
		alive = false;
	if (alive && (events & EPOLLOUT) != 0)
		alive = nc_svc_channel_send(s, worker->now);
	if (!alive)
		close_session(worker, s);
	else if (s->wait_since != 0 || worker->now < s->resume_at)
		update_interest(worker, s);
	else
		move_session(s, &worker->runnable);
}

/* ---- accepting ---- */

static void
watch_listeners(Worker *worker, int op)
{
	for (int i = 0; i < worker->nlisten; i++)
		watch(worker, op, worker->listen_fds[i], EPOLLIN, &worker->listen_fds[i]);
}

static void
accept_sessions(Worker *worker, int listen_fd)
{
	for (int i = 0; i < ACCEPTS_PER_TURN; i++)
	{
		int			fd = nc_svc_listener_accept(listen_fd);

		if (fd >= 0)
			open_session(worker, fd);
		else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
		{
			ereport(LOG, (errmsg("page service: could not accept a connection: %m")));
			watch_listeners(worker, EPOLL_CTL_DEL);
			worker->accept_paused = true;
			worker->next_listen = TimestampTzPlusMilliseconds(worker->now, ACCEPT_PAUSE_MS);
			return;
		}
		else if (errno != EINTR && errno != ECONNABORTED)
			return;
	}
}

/* Opens the sockets, now or after a failure, or watches them again after a pause. */
static void
start_listening(Worker *worker)
{
	if ((worker->nlisten > 0 && !worker->accept_paused) || worker->now < worker->next_listen)
		return;
	if (worker->nlisten == 0)
	{
		worker->nlisten = nc_svc_listener_open(worker->listen_fds);
		worker->next_listen = TimestampTzPlusMilliseconds(worker->now, LISTEN_RETRY_MS);
		if (worker->nlisten > 0)
			ereport(LOG, (errmsg("page service: worker %d listens on \"%s\", port %d",
								 nc_svc_worker_index, nc_svc_listen_addresses, nc_svc_port)));
	}
	worker->accept_paused = false;
	watch_listeners(worker, EPOLL_CTL_ADD);
}

/* ---- timeouts ---- */

static void
log_slow_wait(Worker *worker, NcSvcSession *s)
{
	char		replay[256];

	if (s->wait_since == 0 || s->wait_logged ||
		worker->now < TimestampTzPlusMilliseconds(s->wait_since, SLOW_WAIT_MS))
		return;
	s->wait_logged = true;
	nc_svc_source_describe_replay(replay, sizeof(replay));
	ereport(LOG,
			(errmsg("page service: a %s request has been waiting for " NC_LSN_FMT " for %d s",
					nc_ps_request_name(s->waiting_for.tag),
					NC_LSN_ARGS(s->waiting_for.not_modified_since), SLOW_WAIT_MS / 1000),
			 errdetail_internal("%s", replay)));
}

/* Ends the session if it used up its time; it may be gone afterwards. */
static void
check_session_timeout(Worker *worker, NcSvcSession *s)
{
	TimestampTz limit;

	if (s->state == NC_SVC_SESSION_CLOSING)
		limit = TimestampTzPlusMilliseconds(s->active, CLOSING_MS);
	else if (!s->logged_in)
		limit = TimestampTzPlusMilliseconds(s->opened, AuthenticationTimeout * 1000);
	else if (s->wait_since == 0 && nc_svc_idle_timeout > 0)
		limit = TimestampTzPlusMilliseconds(s->active, nc_svc_idle_timeout);
	else
		return;
	if (worker->now < limit)
		return;
	if (!s->logged_in && s->state != NC_SVC_SESSION_CLOSING)
		nc_svc_login_refused(s, worker->now, "it did not log in within authentication_timeout");
	else if (s->state != NC_SVC_SESSION_CLOSING && s->out_end == s->out_start)
	{
		nc_svc_session_end(s, "ERROR", "08006", "timeout: nothing received within "
						   "neon_page_service.idle_timeout");
		(void) nc_svc_channel_send(s, worker->now);
	}
	close_session(worker, s);
}

static void
sweep_list(Worker *worker, dlist_head *list)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, list)
	{
		NcSvcSession *s = dlist_container(NcSvcSession, link, iter.cur);

		log_slow_wait(worker, s);
		check_session_timeout(worker, s);
	}
}

static void
sweep(Worker *worker)
{
	if (worker->now < worker->next_sweep)
		return;
	worker->next_sweep = TimestampTzPlusMilliseconds(worker->now, SWEEP_MS);
	sweep_list(worker, &worker->idle);
	sweep_list(worker, &worker->waiting);
	sweep_list(worker, &worker->throttled);
}

/* ---- waiting for time ---- */

/* Lets those go on whose time has come; microseconds until the next one's, -1 = nobody waits. */
static int64
release_throttled(Worker *worker)
{
	dlist_mutable_iter iter;
	int64		next = -1;

	dlist_foreach_modify(iter, &worker->throttled)
	{
		NcSvcSession *s = dlist_container(NcSvcSession, link, iter.cur);

		if (worker->now >= s->resume_at)
			move_session(s, &worker->runnable);
		else if (next < 0 || s->resume_at - worker->now < next)
			next = s->resume_at - worker->now;
	}
	return next;
}

/* ---- waiting for replay ---- */

static void
release_waiting(Worker *worker)
{
	dlist_mutable_iter iter;
	uint32		left = 0;

	dlist_foreach_modify(iter, &worker->waiting)
	{
		NcSvcSession *s = dlist_container(NcSvcSession, link, iter.cur);

		if (nc_svc_source_readiness(&s->waiting_for) == NC_SVC_READY ||
			worker->now >= TimestampTzPlusMilliseconds(s->wait_since, nc_svc_wait_lsn_timeout))
			move_session(s, &worker->runnable);
		else
			left++;
	}
	if (left == 0)
		worker->waiting_since = 0;
	else if (worker->waiting_since == 0)
		worker->waiting_since = worker->now;
	pg_atomic_write_u32(&nc_svc_self()->waiting, left);
}

static int64
lsn_poll_interval(const Worker *worker)
{
	bool		long_wait = worker->waiting_since != 0 &&
		worker->now > TimestampTzPlusMilliseconds(worker->waiting_since, LSN_POLL_FAST_FOR_MS);

	return long_wait ? LSN_POLL_SLOW_US : LSN_POLL_US;
}

/* ---- the loop ---- */

static int64
sleep_time(Worker *worker)
{
	int64		throttled = release_throttled(worker);

	if (!dlist_is_empty(&worker->runnable))
		return 0;
	if (throttled >= 0)
		return dlist_is_empty(&worker->waiting) ? throttled : lsn_poll_interval(worker);
	if (!dlist_is_empty(&worker->waiting))
		return lsn_poll_interval(worker);
	if (worker->accept_paused)
		return ACCEPT_PAUSE_MS * INT64CONST(1000);
	if (worker->nsessions > 0 || worker->nlisten == 0)
		return SWEEP_MS * INT64CONST(1000);
	return -1;
}

static void
dispatch(Worker *worker, const struct epoll_event *event)
{
	void	   *tag = event->data.ptr;
	int		   *listen_fd = tag;

	if (tag == &wake_fd)
		drain_wake();
	else if (tag == &postmaster_alive_fds)
	{
		if (!PostmasterIsAlive())
			proc_exit(1);
	}
	else if (listen_fd >= worker->listen_fds &&
			 listen_fd < worker->listen_fds + NC_SVC_LISTENERS_MAX)
		accept_sessions(worker, *listen_fd);
	else
		session_event(worker, tag, event->events);
}

/* Each session that is runnable now has one turn; it may come back for the next. */
static void
run_sessions(Worker *worker)
{
	dlist_head	turn = DLIST_STATIC_INIT(turn);

	while (!dlist_is_empty(&worker->runnable))
		dlist_push_tail(&turn, dlist_pop_head_node(&worker->runnable));
	while (!dlist_is_empty(&turn) && !ShutdownRequestPending)
		run_session(worker, dlist_container(NcSvcSession, link, dlist_head_node(&turn)));
	while (!dlist_is_empty(&turn))
		dlist_push_tail(&worker->runnable, dlist_pop_head_node(&turn));
}

static void
loop_turn(Worker *worker)
{
	struct epoll_event events[EVENTS_PER_TURN];
	int			n = wait_for_events(worker, events, sleep_time(worker));

	CHECK_FOR_INTERRUPTS();
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
		nc_svc_guard_load(true);
	}
	worker->now = nc_svc_clock();
	for (int i = 0; i < n; i++)
		dispatch(worker, &events[i]);
	release_waiting(worker);
	run_sessions(worker);
	start_listening(worker);
	sweep(worker);
}

/* ---- beginning and end ---- */

static void
farewell_list(Worker *worker, dlist_head *list)
{
	dlist_iter	iter;

	dlist_foreach(iter, list)
	{
		NcSvcSession *s = dlist_container(NcSvcSession, link, iter.cur);

		nc_svc_session_end(s, "FATAL", "57P01", "page service is shutting down");
		(void) nc_svc_channel_send(s, worker->now);
	}
}

/* One attempt to tell every client; nobody is waited for. */
static void
farewell(Worker *worker)
{
	farewell_list(worker, &worker->runnable);
	farewell_list(worker, &worker->waiting);
	farewell_list(worker, &worker->throttled);
	farewell_list(worker, &worker->idle);
	ereport(LOG,
			(errmsg("page service: %llu pages served by worker %d",
					(unsigned long long) pg_atomic_read_u64(&nc_svc_self()->pages),
					nc_svc_worker_index)));
}

/* The slot in shared memory outlives the process: it must not count sessions of the dead. */
static void
leave_shared(int code, Datum arg)
{
	nc_svc_self()->listening = false;
	pg_atomic_write_u32(&nc_svc_self()->sessions, 0);
	pg_atomic_write_u32(&nc_svc_self()->waiting, 0);
	nc_svc_client_forget_all();
}

static void
worker_init(Worker *worker)
{
	*worker = (Worker) {.epoll_fd = epoll_create1(EPOLL_CLOEXEC)};
	dlist_init(&worker->runnable);
	dlist_init(&worker->waiting);
	dlist_init(&worker->throttled);
	dlist_init(&worker->idle);
	worker->now = nc_svc_clock();
	if (worker->epoll_fd < 0 || wake_fd < 0)
		ereport(ERROR, (errmsg("page service: could not create the event loop: %m")));
	watch(worker, EPOLL_CTL_ADD, wake_fd, EPOLLIN, &wake_fd);
	watch(worker, EPOLL_CTL_ADD, postmaster_alive_fds[POSTMASTER_FD_WATCH], EPOLLIN,
		  &postmaster_alive_fds);
	/* Polls of 200 µs are not worth much with the default slack of 50 µs. */
	(void) prctl(PR_SET_TIMERSLACK, 5000UL, 0, 0, 0);
}

void
nc_svc_worker_main(Datum arg)
{
	Worker		worker;

	nc_svc_worker_index = DatumGetInt32(arg);
	wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	pqsignal(SIGTERM, handle_sigterm);
	pqsignal(SIGHUP, handle_sighup);
	BackgroundWorkerUnblockSignals();
	on_shmem_exit(leave_shared, 0);

	worker_init(&worker);
	nc_svc_source_init();
	nc_svc_guard_load(false);
	start_listening(&worker);
	while (!ShutdownRequestPending)
		loop_turn(&worker);

	farewell(&worker);
	/* Code 0 would keep the postmaster from ever starting the worker again. */
	proc_exit(1);
}
