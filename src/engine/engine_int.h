/*
 * engine_int.h
 *	  State of the engine, shared by its files.  Private to src/engine.
 *
 * A slot that was taken becomes one NcJob; each message of it that goes to a
 * page server is one NcPart.  Files by subject:
 *
 *	engine.c   create, turn, destroy
 *	take.c     slot -> job: copy, validate, take
 *	route.c    part -> shard, and what a new map does
 *	deliver.c  answer -> slot, wakes
 *	twin.c     messages that were sent twice
 *	watch.c    the look at everything once a second
 *	store.c    memory
 *
 * All of it is memory of one thread, the communicator's: nothing here is atomic.
 * What it shares with others is reached through `area` (slots, doorbell, see
 * nc/ring/), `counters`, `rows` and `host.latency`.
 */
#ifndef NC_ENGINE_ENGINE_INT_H
#define NC_ENGINE_ENGINE_INT_H

#include "nc/engine/engine.h"
#include "nc/net/net.h"
#include "store.h"

/*
 * Messages queued or in flight, of all shards; take.c says which of them one shard
 * may have.  A range takes up to NC_SLOT_BLOCKS_MAX of them, a job at least one.
 */
#define NC_PARTS_MAX 65536

/* Slots for which there was no room are looked at again at most this often. */
#define NC_DEFERRED_RETRY_US 1000

/* How long a block is asked for although the server says that it is not the right one. */
#define NC_MISROUTED_US 10000000

/* How often the watchdog looks at every slot. */
#define NC_WATCH_INTERVAL_US 1000000

#define NC_EXTRA_FDS_MAX 8

/*
 * One taken slot.  No pointer into the slot or to a client's buffer: the client may
 * be gone, and both be somebody else's, when an answer comes.
 */
typedef struct NcJob
{
	uint32_t	ring;
	uint32_t	slot;
	uint64_t	word;			/* of the slot, in TAKEN: every later move must find it */

	/* private copy of the request */
	NcRelKey	rel;
	uint32_t	block;
	NcLsn		request_lsn;
	NcLsn		not_modified_since;
	uint64_t	submit_us;
	uint64_t	taken_us;
	uint64_t	reached_us;		/* the last answer */

	/* of a traced one: its context, and what is told of its last answer */
	uint32_t	traced;			/* NcSlotTrace.sampled */
	uint32_t	shard;
	NcTraceContext trace;
	uint64_t	reqid;
	uint64_t	sent_us;
	uint64_t	received_us;

	NcSlotKind	kind;
	NcSlotClass class;
	uint32_t	nblocks;		/* messages: blocks of GETPAGE, else 1 */
	uint32_t	dests[NC_SLOT_BLOCKS_MAX];
	uint64_t	group;			/* of its flights */

	/* progress */
	uint32_t	outstanding;	/* parts queued or in flight: the job lives as long as any */
	uint32_t	missing;		/* answers that are not here: none, and the slot is DONE */
	bool		finished;		/* slot completed, or not ours any more */
	bool		cancelled;		/* finished because its client withdrew it */
	bool		promoted;		/* a read ahead that somebody has come to wait for */
} NcJob;

/*
 * One message of a job.  It outlives the interest in it: while it is on a connection
 * it keeps its place in the order of answers, without a job if need be.
 */
typedef struct NcPart
{
	NcFlight	flight;			/* first, so that one becomes the other */
	NcJob	   *job;			/* NULL: another part has it, the answer is ignored */
	uint32_t	index;			/* block of the range */
	struct NcPart *twin;		/* asks the same over another connection, or NULL */
	bool		beaten;			/* the other one was answered first */
} NcPart;

typedef struct NcExtraFd
{
	struct NcEngine *engine;
	int			fd;
	uint32_t	bit;
	NcOp		op;
} NcExtraFd;

struct NcEngine
{
	uint32_t	spin_us;
	NcHost		host;
	NcEndedFn	ended;			/* NULL = nobody wants to know */
	void	   *ended_ctx;
	NcRingArea	area;
	NcCounters *counters;
	NcConnRow  *rows;
	NcLoop	   *loop;
	NcNet	   *net;
	NcShardMap	map;
	uint64_t	now_us;

	/* memory */
	NcStore		jobs;
	NcStore		parts;
	uint64_t	last_group;
	uint32_t	unfinished;		/* jobs */
	NcJob	  **job_of;			/* [nrings * NC_RING_SLOTS]: the unfinished job of a slot, or NULL;
								 * for promotions, which name a slot and no job */

	/* rings left with submitted slots because there was no room for them */
	uint64_t   *deferred;		/* bitmap as the doorbell's */
	bool		any_deferred;
	bool		freed;			/* something was given back since */
	uint64_t	retry_us;		/* they are not looked at again before */
	uint32_t	take_first;		/* word of the bitmap to begin with, for fairness */

	/* rings to wake at the end of the turn */
	uint32_t   *wake_list;		/* [nrings] */
	bool	   *wake_marked;	/* [nrings] */
	uint32_t	nwake;

	/* watchdog */
	uint64_t	watch_next_us;
	uint64_t   *seen;			/* [nrings * NC_RING_SLOTS]: words found SUBMITTED last time */

	/* flights that a map change took off connections that stay */
	NcFlightList rerouted;

	int			spin_credit;	/* spinning pays as long as this is positive */
	uint32_t	spin_skipped;	/* sleeps without it since it stopped to pay */
	uint32_t	spin_retry;		/* after so many it is tried again */

	uint64_t	bell_count;		/* what it reads */
	NcOp		bell_op;		/* readability of the doorbell's eventfd */
	NcExtraFd	extra[NC_EXTRA_FDS_MAX];
	int			nextra;
	uint32_t	extra_ready;
};

static inline NcSlot *
nc_job_slot(const NcEngine *e, const NcJob *job)
{
	return &e->area.rings[job->ring].slots[job->slot];
}

static inline NcPart *
nc_part_of(NcFlight *flight)
{
	return (NcPart *) flight;
}

/* Notes how long a job was in a stage. */
static inline void
nc_job_note(const NcEngine *e, const NcJob *job, NcStage stage, uint64_t from_us,
			uint64_t until_us)
{
	if (e->host.latency != NULL)
		nc_latency_note(e->host.latency, stage, nc_slot_class_ahead(job->class) ?
						NC_LATENCY_AHEAD : NC_LATENCY_DEMAND, from_us, until_us);
}

/* ---- take.c ---- */
extern void nc_take_all(NcEngine *e);

/* The slots that are marked, and those of `marks`. */
extern void nc_take_ring(NcEngine *e, uint32_t ring, uint64_t marks);

/* Somebody has come to wait for a read ahead. Of any other job: nothing. */
extern void nc_take_promote(NcEngine *e, NcJob *job);

/*
 * What a new communicator does first: a predecessor's TAKEN slots become SUBMITTED
 * again, bits of all that is submitted are set, and who sleeps although his slot has
 * ended is woken.
 */
extern void nc_take_over(NcEngine *e);

/* ---- route.c ---- */
extern uint32_t nc_route(const NcEngine *e, const NcPsRequest *msg);

/* The same for a block of a job that has no parts yet. */
extern uint32_t nc_route_block(const NcEngine *e, const NcJob *job, uint32_t index);

/* Makes the parts of a job (reserved before) and queues them. */
extern void nc_route_job(NcEngine *e, NcJob *job);

/* NcNetHost.rerouted */
extern bool nc_route_again(void *ctx, NcFlight *flight, uint32_t shard);

/* ---- deliver.c ---- */

/* Callbacks of NcNetHost. */
extern bool nc_deliver_answer(void *ctx, NcConn *conn, NcFlight *flight,
							  const NcPsResponse *resp);
extern bool nc_deliver_keep(void *ctx, const NcFlight *flight);
extern bool nc_deliver_promoted(void *ctx, const NcFlight *flight);
extern void nc_deliver_unwanted(void *ctx, NcFlight *flight);
extern void nc_deliver_dropped(void *ctx, NcFlight *flight, const char *reason);

/* Completes the slot of an unfinished job without data. text may be NULL. */
extern void nc_deliver_result(NcEngine *e, NcJob *job, NcSlotResult result, const char *text);

/* Frees a part; its job too when it was finished and this was the last one. */
extern void nc_part_free(NcEngine *e, NcPart *part);
extern void nc_job_free(NcEngine *e, NcJob *job);

/* At the end of the turn the owner of a ring is woken, if he sleeps and what he waits for has ended. */
extern void nc_deliver_mark_wake(NcEngine *e, uint32_t ring);

/* Wakes those that were marked. */
extern void nc_deliver_wakes(NcEngine *e);

/* ---- twin.c ---- */

/* NcNetHost.twin */
extern NcFlight *nc_twin_make(void *ctx, NcFlight *flight);

/* Answered: the job is this part's alone. */
extern void nc_twin_answered(NcPart *part);

/* The job is left to the twin; the answer to this part concerns nobody. */
extern void nc_twin_disown(NcPart *part);

/* The two know each other no longer. */
extern void nc_twin_leave(NcPart *part);

/* ---- watch.c ---- */
extern void nc_watch(NcEngine *e);

#endif							/* NC_ENGINE_ENGINE_INT_H */
