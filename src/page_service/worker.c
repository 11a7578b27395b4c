/*
 * worker.c
 *	  The loop of one page service worker.
 *
 * The door (docs/serve.md) has the sessions in its lists.  PARKED are those whose
 * first request waits for replay, and those whose request rate is used up; each turn
 * ends with a look which of them may go on.
 *
 * Guarantees: nothing in the loop waits for a client, so SIGTERM and the death of
 * the postmaster end the worker within a turn; memory is bounded by the number of
 * sessions; nothing is allocated per page.  While requests wait for replay the loop
 * looks every fraction of a millisecond, otherwise it sleeps.
 */
#include "page_service.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "access/xlog.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "postmaster/postmaster.h"
#include "storage/ipc.h"
#include "storage/pmsignal.h"
#include "utils/guc.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

/* How often replay is looked at: at first, and once a wait has lasted a while. */
#define LSN_POLL_US 200
#define LSN_POLL_SLOW_US 1000
#define LSN_POLL_FAST_FOR_MS 50

#define WATCH_MS 1000			/* the identity is looked at this often */
#define LISTEN_RETRY_MS 5000
#define SLOW_WAIT_MS 10000		/* a wait for an LSN this long is logged */

typedef struct Worker
{
	NcLoop	   *loop;
	NcOp		wake;
	NcOp		life;
	bool		listens;
	TimestampTz now;			/* of this turn; this and all timers by nc_svc_clock() */
	TimestampTz next_watch;
	TimestampTz next_listen;	/* try to open the sockets again */
	TimestampTz waiting_since;	/* somebody waits for replay since */
	uint32		waiting;		/* so many do */
	TimestampTz resume_at;		/* the next one whose rate allows a request; 0 = nobody's */
} Worker;

/* Written by signal handlers, polled by the loop; made before they are installed. */
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
on_wake(NcOp *op)
{
	Worker	   *worker = op->owner;
	uint64		count;

	(void) !read(wake_fd, &count, sizeof(count));
	nc_loop_poll(worker->loop, op, wake_fd, POLLIN);
}

static void
on_life_line(NcOp *op)
{
	Worker	   *worker = op->owner;

	if (!PostmasterIsAlive())
		proc_exit(1);
	nc_loop_poll(worker->loop, op, postmaster_alive_fds[POSTMASTER_FD_WATCH], POLLIN);
}

/* ---- sessions that wait ---- */

static void
log_slow_wait(Worker *worker, NcSvcSession *s)
{
	char		replay[512];

	if (s->wait_logged || worker->now < TimestampTzPlusMilliseconds(s->wait_since, SLOW_WAIT_MS))
		return;
	s->wait_logged = true;
	nc_svc_source_describe_replay(replay, sizeof(replay));
	ereport(LOG,
			(errmsg("page service: a %s request has been waiting for " NC_LSN_FMT " for %d s",
					nc_ps_request_name(s->waiting_for.tag),
					NC_LSN_ARGS(s->waiting_for.not_modified_since), SLOW_WAIT_MS / 1000),
			 errdetail_internal("%s", replay)));
}

static void
look_for_replay(Worker *worker, NcSvcSession *s)
{
	if (nc_svc_session_may_go(s) ||
		worker->now >= TimestampTzPlusMilliseconds(s->wait_since, nc_svc_wait_lsn_timeout))
	{
		nc_visitor_wake(&s->v);
		return;
	}
	worker->waiting++;
	log_slow_wait(worker, s);
}

static void
look_at_parked(NcVisitor *v, void *arg)
{
	Worker	   *worker = arg;
	NcSvcSession *s = (NcSvcSession *) v;

	if (s->wait_since != 0)
		look_for_replay(worker, s);
	else if (worker->now >= s->resume_at)
		nc_visitor_wake(v);
	else if (worker->resume_at == 0 || s->resume_at < worker->resume_at)
		worker->resume_at = s->resume_at;
}

/* Lets those go on who can; notes what the others wait for. */
static void
release_parked(Worker *worker)
{
	worker->waiting = 0;
	worker->resume_at = 0;
	nc_door_each_at(&nc_svc_door, NC_PLACE_PARKED, look_at_parked, worker);
	if (worker->waiting == 0)
		worker->waiting_since = 0;
	else if (worker->waiting_since == 0)
		worker->waiting_since = worker->now;
	pg_atomic_write_u32(&nc_svc_self()->waiting, worker->waiting);
}

static uint64
lsn_poll_interval(const Worker *worker)
{
	bool		long_wait = worker->waiting_since != 0 &&
		worker->now > TimestampTzPlusMilliseconds(worker->waiting_since, LSN_POLL_FAST_FOR_MS);

	return long_wait ? LSN_POLL_SLOW_US : LSN_POLL_US;
}

/* ---- room ---- */

typedef struct Choice
{
	NcSvcSession *leaves;
	uint32		most;
} Choice;

static TimestampTz
active(const NcSvcSession *s)
{
	return (TimestampTz) Max(s->v.heard_us, s->v.sent_us);
}

/* Who makes room first: of the address that has most who is idle longest. */
static void
choose_idlest(NcVisitor *v, void *arg)
{
	Choice	   *choice = arg;
	NcSvcSession *s = (NcSvcSession *) v;

	if (v->state != NC_VISITOR_OPEN ||
		(s->client != 0 && nc_svc_client_sessions(s->client) < choice->most))
		return;
	if (choice->leaves == NULL || active(s) < active(choice->leaves))
		choice->leaves = s;
}

/* Newer clients have logged in here or in another worker, and got the places of these. */
static void
displace(void)
{
	static const NcRefusal why = {.sqlstate = "53300",.message = "made room for a newer client: "
	"neon_page_service.max_connections is reached"};
	uint32		n = pg_atomic_read_u32(&nc_svc_self()->displace);

	if (n == 0)
		return;
	pg_atomic_fetch_sub_u32(&nc_svc_self()->displace, n);
	for (; n > 0; n--)
	{
		Choice		choice = {.most = nc_svc_client_most()};

		nc_door_each(&nc_svc_door, choose_idlest, &choice);
		if (choice.leaves == NULL)
			return;
		nc_svc_client_leaves(choice.leaves);
		nc_svc_client_remove(choice.leaves);
		nc_visitor_refuse(&choice.leaves->v, &why);
	}
}

/* ---- the loop ---- */

static uint64
sleep_us(const Worker *worker)
{
	uint64		us = nc_door_sleep_us(&nc_svc_door);

	if (worker->resume_at != 0)
		us = Min(us, (uint64) Max(worker->resume_at - worker->now, 0));
	if (worker->waiting > 0)
		us = Min(us, lsn_poll_interval(worker));
	if (!worker->listens || nc_svc_worker_index == 0 || nc_svc_door.visitors > 0)
		us = Min(us, WATCH_MS * UINT64CONST(1000));
	return us;
}

static void
wait_for_service_events(Worker *worker)
{
	uint64		us = sleep_us(worker);

	pgstat_report_wait_start(nc_svc_wait_main);
	nc_loop_wait(worker->loop, us);
	pgstat_report_wait_end();
	/* before signals are looked at: their bell is answered here */
	nc_door_events(&nc_svc_door);
}

static void
take_reload(void)
{
	if (!ConfigReloadPending)
		return;
	ConfigReloadPending = false;
	ProcessConfigFile(PGC_SIGHUP);
	nc_svc_door_reload();
}

static void
start_listening(Worker *worker)
{
	if (worker->listens || worker->now < worker->next_listen)
		return;
	worker->next_listen = TimestampTzPlusMilliseconds(worker->now, LISTEN_RETRY_MS);
	worker->listens = nc_svc_door_listen();
}

static void
watch_identity(Worker *worker)
{
	if (worker->now < worker->next_watch)
		return;
	worker->next_watch = TimestampTzPlusMilliseconds(worker->now, WATCH_MS);
	nc_svc_identity_watch();
	if (nc_svc_worker_index == 0)
		nc_svc_publish();
}

static void
loop_turn(Worker *worker)
{
	wait_for_service_events(worker);
	CHECK_FOR_INTERRUPTS();
	take_reload();
	worker->now = nc_svc_clock();
	nc_svc_door_turn();
	nc_svc_publish_buffers();
	displace();
	start_listening(worker);
	watch_identity(worker);
	/* at the end: whoever has come to wait in this turn is among them */
	release_parked(worker);
}

/* ---- beginning and end ---- */

static void
say_goodbye(NcVisitor *v, void *arg)
{
	nc_svc_session_end((NcSvcSession *) v, "FATAL", "57P01", "page service is shutting down");
	(void) nc_visitor_flush(v);
}

/* One attempt to tell every client; nobody is waited for. */
static void
farewell(void)
{
	nc_door_each(&nc_svc_door, say_goodbye, NULL);
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
	pg_atomic_write_u32(&nc_svc_self()->logged_in, 0);
	pg_atomic_write_u32(&nc_svc_self()->displace, 0);
	pg_atomic_write_u32(&nc_svc_self()->waiting, 0);
	nc_svc_client_forget_all();
}

static void
worker_init(Worker *worker)
{
	char		err[256] = "no eventfd";

	*worker = (Worker) {.now = nc_svc_clock()};
	if (wake_fd >= 0)
		worker->loop = nc_loop_create(NC_LOOP_EPOLL, err, sizeof(err));
	if (worker->loop == NULL)
		ereport(ERROR, (errmsg("page service: could not create the event loop: %s", err)));
	worker->wake = (NcOp) {.complete = on_wake,.owner = worker};
	worker->life = (NcOp) {.complete = on_life_line,.owner = worker};
	nc_loop_poll(worker->loop, &worker->wake, wake_fd, POLLIN);
	nc_loop_poll(worker->loop, &worker->life, postmaster_alive_fds[POSTMASTER_FD_WATCH], POLLIN);
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
	nc_svc_boot_init();
	nc_svc_door_init(worker.loop);
	start_listening(&worker);
	while (!ShutdownRequestPending)
		loop_turn(&worker);

	farewell();
	/* Code 0 would keep the postmaster from ever starting the worker again. */
	proc_exit(1);
}
