/*
 * engine.c
 *	  The engine as its process sees it: create, turn, destroy.
 *
 * Runs in the communicator, one thread.  Guarantees: a slot taken is completed,
 * left TAKEN for a successor, or was withdrawn by its client; nothing outside
 * COPYING writes to a client's memory; no call blocks except the wait of
 * nc_engine_tick().  Never throws, never reads a clock but its host's, holds no
 * lock.  Its siblings are listed in engine_int.h.
 */
#include "engine_int.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

NC_STATIC_ASSERT(NC_CONN_ROWS == NC_CONNS_MAX, "one row for each connection");
NC_STATIC_ASSERT(NC_SHARDS_MAX == NC_NET_SHARDS_MAX, "hosts for each shard");

#define JOBS_PER_SLAB 64
#define PARTS_PER_SLAB 256

/*
 * Spinning: looks for each microsecond of the setting, and between two readings of the
 * clock; a failure costs so many successes.
 */
#define SPIN_LOOKS 16
#define SPIN_PRICE 4
#define SPIN_CREDIT_MAX 64

/* Sleeps without spinning after which it is tried again; more while others want the processor. */
#define SPIN_RETRY 128
#define SPIN_RETRY_MAX 65536

/* Who gets the processor back so late shares it with somebody who computes. */
#define SPIN_CROWDED_US 1000

/* How long destroy waits for the kernel to let go of buffers, which it normally does at once. */
#define DESTROY_ROUNDS 200
#define DESTROY_ROUND_US 10000

/* ---- callbacks ---- */

static void
engine_log(void *ctx, NcNetLevel level, const char *message)
{
	NcEngine   *e = ctx;

	e->host.log(e->host.ctx, level == NC_NET_WARNING ? NC_LOG_WARNING : NC_LOG_INFO, message);
}

static void
bell_ready(NcOp *op)
{
	/*
	 * The bits say who rang; it has ended a wait, and its counter is 0 again.  Nobody
	 * else drains it: a kick is drained by the very operation whose completion ends the
	 * wait, so none can be swallowed between the last look at the bits and the sleep.
	 */
}

static void
extra_ready(NcOp *op)
{
	NcExtraFd  *x = op->owner;

	if (op->result > 0)
		x->engine->extra_ready |= x->bit;
}

/* ---- create ---- */

static bool
take_engine_memory(NcEngine *e)
{
	uint32_t	nrings = e->area.nrings;

	/* each has a message, or is about to get one: what bounds those bounds these */
	nc_store_init(&e->jobs, sizeof(NcJob), JOBS_PER_SLAB, NC_PARTS_MAX + 1);
	nc_store_init(&e->parts, sizeof(NcPart), PARTS_PER_SLAB, NC_PARTS_MAX);
	e->deferred = calloc(nc_doorbell_words(&e->area), sizeof(*e->deferred));
	e->wake_list = calloc(nrings, sizeof(*e->wake_list));
	e->wake_marked = calloc(nrings, sizeof(*e->wake_marked));
	e->seen = calloc((size_t) nrings * NC_RING_SLOTS, sizeof(*e->seen));
	e->job_of = calloc((size_t) nrings * NC_RING_SLOTS, sizeof(NcJob *));
	return e->deferred != NULL && e->wake_list != NULL && e->wake_marked != NULL &&
		e->seen != NULL && e->job_of != NULL;
}

static void
free_engine(NcEngine *e)
{
	if (e->net != NULL)
		nc_net_free(e->net);
	if (e->loop != NULL)
		nc_loop_destroy(e->loop);
	nc_store_destroy(&e->jobs);
	nc_store_destroy(&e->parts);
	free(e->deferred);
	free(e->wake_list);
	free(e->wake_marked);
	free(e->seen);
	free(e->job_of);
	free(e);
}

static bool
make_loop(NcEngine *e, NcLoopMethod io, char *err, size_t err_bytes)
{
	char		line[256];

	e->loop = nc_loop_create(io, err, err_bytes);
	if (e->loop == NULL)
		return false;
	if (err[0] != '\0')
	{
		snprintf(line, sizeof(line), "using epoll: %s", err);
		e->host.log(e->host.ctx, NC_LOG_INFO, line);
	}
	return true;
}

static bool
make_net(NcEngine *e, const NcNetSettings *settings, uint64_t epoch)
{
	NcNetHost	host = {
		.ctx = e,
		.answer = nc_deliver_answer,
		.keep = nc_deliver_keep,
		.promoted = nc_deliver_promoted,
		.twin = nc_twin_make,
		.unwanted = nc_deliver_unwanted,
		.dropped = nc_deliver_dropped,
		.rerouted = nc_route_again,
		.log = engine_log
	};

	e->net = nc_net_create(e->loop, settings, &host, e->counters, e->area.eventfd, epoch);
	return e->net != NULL;
}

static void
watch_fds(NcEngine *e, const int *extra_fds, int nextra_fds)
{
	e->bell_op.complete = bell_ready;
	e->bell_op.owner = e;
	e->nextra = nextra_fds;
	for (int i = 0; i < nextra_fds; i++)
	{
		NcExtraFd  *x = &e->extra[i];

		x->engine = e;
		x->fd = extra_fds[i];
		x->bit = UINT32_C(1) << i;
		x->op.complete = extra_ready;
		x->op.owner = x;
	}
}

NcEngine *
nc_engine_create(const NcNetSettings *settings, NcLoopMethod io, NcRingArea *area,
				 NcCounters *counters, NcConnRow *rows, const NcHost *host,
				 const int *extra_fds, int nextra_fds, char *err, size_t err_bytes)
{
	NcEngine   *e;
	uint64_t	epoch;

	if (nextra_fds < 0 || nextra_fds > NC_EXTRA_FDS_MAX)
	{
		snprintf(err, err_bytes, "too many descriptors to watch");
		return NULL;
	}
	e = calloc(1, sizeof(*e));
	if (e == NULL)
	{
		snprintf(err, err_bytes, "out of memory");
		return NULL;
	}
	e->spin_us = settings->spin_us;
	e->spin_retry = SPIN_RETRY;
	e->host = *host;
	e->area = *area;
	e->counters = counters;
	e->rows = rows;
	e->now_us = host->now_us(host->ctx);
	watch_fds(e, extra_fds, nextra_fds);
	if (!make_loop(e, io, err, err_bytes))
	{
		free_engine(e);
		return NULL;
	}
	if (area->eventfd >= 0)
		nc_loop_adopt(e->loop, area->eventfd);
	/* one communicator at a time writes it: atomic for views, which read it */
	epoch = atomic_fetch_add_explicit(&area->doorbell->epoch, 1, memory_order_seq_cst) + 1;
	if (!take_engine_memory(e) || !make_net(e, settings, epoch))
	{
		snprintf(err, err_bytes, "out of memory");
		free_engine(e);
		return NULL;
	}
	/* before the first turn: what a predecessor has left, in all three, is nobody's otherwise */
	memset(rows, 0, sizeof(*rows) * NC_CONN_ROWS);
	nc_doorbell_awake(&e->area);
	nc_take_over(e);
	return e;
}

const char *
nc_engine_io_method(const NcEngine *engine)
{
	return nc_loop_name(engine->loop);
}

void
nc_engine_configure(NcEngine *e, const NcNetSettings *settings)
{
	e->spin_us = settings->spin_us;
	e->now_us = e->host.now_us(e->host.ctx);
	nc_net_configure(e->net, settings, e->now_us);
}

void
nc_engine_tell_ends(NcEngine *e, NcEndedFn ended, void *ctx)
{
	e->ended = ended;
	e->ended_ctx = ctx;
}

uint32_t
nc_engine_busy(const NcEngine *engine)
{
	return engine->unfinished;
}

/* ---- rows ---- */

/*
 * Only the communicator writes rows, and a view may see half of a change.  The state
 * comes last: who sees a new one sees the texts that go with it, or later ones.
 */
static void
show_conn(NcConnRow *row, NcConn *c)
{
	row->in_flight = c->in_flight.count;
	row->requests = c->requests;
	/* texts are long and change seldom: these are not copied in each turn */
	if (row->since_us == c->since_us && !c->row_changed &&
		atomic_load_explicit(&row->state, memory_order_relaxed) == (uint32_t) c->state)
		return;
	row->shard = c->shard;
	row->failures = c->failures;
	row->since_us = c->since_us;
	memcpy(row->address, c->address, sizeof(row->address));
	memcpy(row->last_error, c->last_error, sizeof(row->last_error));
	atomic_store_explicit(&row->state, (uint32_t) c->state, memory_order_release);
	c->row_changed = false;
}

static void
show_conns(NcEngine *e)
{
	uint32_t	used = nc_net_conns_used(e->net);

	for (uint32_t i = 0; i < used; i++)
		show_conn(&e->rows[i], nc_net_conn(e->net, i));
}

/* ---- the turn ---- */

/*
 * Once before the wait and once after it, so that timers and stamps of a turn agree;
 * only the latencies of somebody who waits are measured by a clock read for them.
 * The heartbeat is for views and orders nothing.
 */
static void
read_clock(NcEngine *e)
{
	e->now_us = e->host.now_us(e->host.ctx);
	nc_net_set_now(e->net, e->now_us);
	atomic_store_explicit(&e->area.doorbell->heartbeat_us, e->now_us, memory_order_relaxed);
}

static void
arm_fds(NcEngine *e)
{
	if (e->area.eventfd >= 0 && e->bell_op.state == NC_OP_IDLE)
		nc_loop_read(e->loop, &e->bell_op, e->area.eventfd, &e->bell_count,
					 sizeof(e->bell_count));
	for (int i = 0; i < e->nextra; i++)
		if (e->extra[i].op.state == NC_OP_IDLE)
			nc_loop_poll(e->loop, &e->extra[i].op, e->extra[i].fd, POLLIN);
}

/* Takes, routes and sends; what can be said to clients is said. */
static void
work(NcEngine *e)
{
	nc_take_all(e);
	if (e->now_us >= e->watch_next_us)
	{
		e->watch_next_us = e->now_us + NC_WATCH_INTERVAL_US;
		nc_watch(e);
	}
	/* a wake costs more than a send: page servers get their work first */
	nc_net_turn(e->net, e->now_us);
	nc_deliver_wakes(e);
}

/* How long nothing has to be done. */
static uint64_t
wait_us(const NcEngine *e, int wait_max_ms)
{
	uint64_t	until = nc_net_deadline_us(e->net);
	uint64_t	max_us = wait_max_ms > 0 ? (uint64_t) wait_max_ms * 1000 : 0;

	/* deferred and nothing given back: only an answer or the watch changes that */
	if (e->any_deferred && e->freed && e->retry_us < until)
		until = e->retry_us;
	if (e->watch_next_us < until)
		until = e->watch_next_us;
	if (until <= e->now_us)
		return 0;
	return until - e->now_us < max_us ? until - e->now_us : max_us;
}

static void
spin_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ __volatile__("isb" ::: "memory");
#endif
}

/*
 * One look after another for at most spin_us; true when something came.  Whoever else is
 * ready to run on this processor goes first: the process that is being waited for may be.
 */
static bool
spin_look(NcEngine *e, bool *crowded)
{
	uint64_t	now_us = e->host.now_us(e->host.ctx);
	uint64_t	until_us = now_us + e->spin_us;
	uint32_t	looks_max = e->spin_us * SPIN_LOOKS;	/* a simulated clock may stand still */

	for (uint32_t looks = 0; looks < looks_max; looks++)
	{
		uint64_t	before_us = now_us;

		if (nc_doorbell_pending(&e->area) || nc_loop_ready(e->loop))
			return true;
		spin_relax();
		if (looks % SPIN_LOOKS != SPIN_LOOKS - 1)
			continue;
		sched_yield();
		now_us = e->host.now_us(e->host.ctx);
		*crowded = now_us - before_us >= SPIN_CROWDED_US;
		if (now_us >= until_us)
			break;
	}
	return nc_doorbell_pending(&e->area) || nc_loop_ready(e->loop);
}

/*
 * Whoever sleeps has to be woken, which costs the waker more than a page, and
 * comes back late.  So where the next piece of work comes within microseconds,
 * as it does while processes read page after page over a fast network, it is
 * looked for instead.  Where it does not, a few failures end this for a while; and one
 * look does, for longer and longer, where somebody computes on the same processor, because
 * who is awake and waits for his turn is behind where who is woken comes first.
 *
 * `asleep` stays 0 meanwhile, so clients write to no eventfd.
 */
static bool
spin_for_work(NcEngine *e)
{
	bool		crowded = false;
	bool		found;

	if (e->spin_us == 0)
		return false;
	if (e->spin_credit <= 0)
	{
		if (++e->spin_skipped < e->spin_retry)
			return false;
		e->spin_skipped = 0;
		e->spin_credit = 1;
	}
	/* what was started must be with the kernel, or its completion cannot be seen */
	nc_loop_flush(e->loop);
	found = spin_look(e, &crowded);
	nc_count(e->counters, found ? NC_COUNTER_SPINS_WON : NC_COUNTER_SPINS_LOST, 1);
	e->spin_credit += found ? 1 : -SPIN_PRICE;
	if (e->spin_credit > SPIN_CREDIT_MAX)
		e->spin_credit = SPIN_CREDIT_MAX;
	if (!crowded)
		e->spin_retry = SPIN_RETRY;
	else
	{
		e->spin_credit = 0;
		e->spin_retry = e->spin_retry < SPIN_RETRY_MAX ? e->spin_retry * 2 : SPIN_RETRY_MAX;
	}
	return found;
}

uint32_t
nc_engine_tick(NcEngine *e, int wait_max_ms)
{
	uint64_t	timeout_us;

	nc_count(e->counters, NC_COUNTER_LOOP_TURNS, 1);
	e->extra_ready = 0;
	read_clock(e);
	arm_fds(e);
	/* what came or became due since the last turn */
	work(e);

	timeout_us = wait_us(e, wait_max_ms);
	/* nc_doorbell_sleep() has the last look at the bits: nothing stands between it and the wait */
	if (timeout_us > 0 && !spin_for_work(e) && nc_doorbell_sleep(&e->area))
	{
		nc_loop_wait(e->loop, timeout_us);
		nc_doorbell_awake(&e->area);
	}
	else
		nc_loop_wait(e->loop, 0);

	/* answers first: they free messages for what is taken then, and both share the wakes */
	read_clock(e);
	nc_loop_run(e->loop);
	work(e);
	show_conns(e);
	return e->extra_ready;
}

/* ---- destroy ---- */

static void
cancel_fds(NcEngine *e)
{
	nc_loop_cancel(e->loop, &e->bell_op);
	for (int i = 0; i < e->nextra; i++)
		nc_loop_cancel(e->loop, &e->extra[i].op);
}

void
nc_engine_destroy(NcEngine *e)
{
	nc_net_close(e->net, e->host.now_us(e->host.ctx));
	cancel_fds(e);
	for (int i = 0; i < DESTROY_ROUNDS && nc_loop_started(e->loop) > 0; i++)
	{
		nc_loop_wait(e->loop, DESTROY_ROUND_US);
		nc_loop_run(e->loop);
	}
	show_conns(e);
	/* The kernel still holds buffers: losing the memory is better than writing to it freed. */
	if (nc_loop_started(e->loop) > 0)
		return;
	free_engine(e);
}
