/*
 * nc/engine/engine.h
 *	  The engine: takes submitted slots, schedules them over pooled pagestream
 *	  connections, verifies answers, delivers pages, completes slots.
 *
 * Plain C: it reaches its process only through NcHost.  One thread, one
 * process.  All state is in one NcEngine; nothing is global.  Memory is taken
 * at creation and when a connection is opened, never in the steady state.
 */
#ifndef NC_ENGINE_ENGINE_H
#define NC_ENGINE_ENGINE_H

#include "nc/io/loop.h"
#include "nc/net/settings.h"
#include "nc/obs/conn_row.h"
#include "nc/obs/counters.h"
#include "nc/obs/latency.h"
#include "nc/ring/aio.h"
#include "nc/ring/ring.h"
#include "nc/shard/shard_map.h"

typedef enum NcLogLevel
{
	NC_LOG_DEBUG,
	NC_LOG_INFO,
	NC_LOG_WARNING
} NcLogLevel;

/* What an engine needs from its process. Every call returns quickly and never throws. */
typedef struct NcHost
{
	void	   *ctx;

	/* CLOCK_MONOTONIC in microseconds. A simulator gives its own. */
	uint64_t	(*now_us) (void *ctx);

	/* Wake the sleeping owner of a ring (SetLatch). Called at most once per ring and turn. */
	void		(*wake) (void *ctx, uint32_t ring);

	/*
	 * Address of a destination of this ring, or NULL when it is out of range.
	 * The engine writes NC_PAGE_BYTES there, in COPYING only.
	 */
	uint8_t    *(*dest_page) (void *ctx, uint32_t ring, uint32_t dest);

	/*
	 * The read of an AIO handle has ended and its pages are where dest_page said; the
	 * slot is FREE.  Called once, by the one who may: from here on the handle can be
	 * used again.  text: why it failed, or NULL.  Not called while no ring is of handles.
	 */
	void		(*aio_complete) (void *ctx, uint32_t handle, uint64_t handle_generation,
								 NcSlotResult result, const char *text);

	/*
	 * A traced request of an AIO handle is DONE, all of its fields are right, and nobody
	 * else comes to look.  May be NULL when the area has no traces.
	 */
	void		(*traced) (void *ctx, uint32_t ring, uint32_t slot);

	void		(*log) (void *ctx, NcLogLevel level, const char *message);

	/* Where to note how long requests took, stage by stage; NULL = nowhere. */
	NcLatency  *latency;
} NcHost;

/* A request that has ended: what was asked, by which map, and how it went. */
typedef struct NcEnded
{
	NcRelKey	rel;			/* not checked where the request was refused */
	uint32_t	block;
	uint32_t	nblocks;		/* 1 unless GETPAGE */
	NcSlotKind	kind;
	NcSlotClass class;
	bool		promoted;		/* a read ahead that somebody had come to wait for */
	bool		cancelled;		/* given up by its client; result says nothing then */
	NcSlotResult result;
	NcLsn		request_lsn;
	NcLsn		not_modified_since;
	uint64_t	submit_us;		/* by its client's clock, CLOCK_MONOTONIC as ours */
	uint64_t	ended_us;		/* the last answer, or when it was known to be over */
	uint32_t	shards;			/* of the map now */
	uint32_t	stripe_blocks;
} NcEnded;

/* Within a turn: returns quickly, never throws, and calls nothing of the engine. */
typedef void (*NcEndedFn) (void *ctx, const NcEnded *ended);

typedef struct NcEngine NcEngine;

/*
 * Makes an engine.  The area, counters and rows belong to the caller and
 * outlive it.  Slots found TAKEN (a communicator ended before us) are moved
 * back to SUBMITTED and taken again.  None can be COPYING: an engine ends
 * only between turns, and a crash clears the area.
 * extra_fds (may be empty): descriptors whose readability ends a wait of
 * nc_engine_tick (the postmaster's death pipe).  NULL and a reason on failure.
 */
NC_MUST_USE extern NcEngine *nc_engine_create(const NcNetSettings *settings, NcLoopMethod io,
											  NcRingArea *area, NcCounters *counters,
											  NcConnRow *rows, const NcHost *host,
											  const int *extra_fds, int nextra_fds,
											  char *err, size_t err_bytes);

/* "io_uring" or "epoll". */
extern const char *nc_engine_io_method(const NcEngine *engine);

/* Applies a new map as a whole; requests in flight are routed again by it. Same map: no effect. */
extern void nc_engine_set_shard_map(NcEngine *engine, const NcShardMap *map);

/* Applies new settings; connections that they concern (version, ids) are replaced. */
extern void nc_engine_configure(NcEngine *engine, const NcNetSettings *settings);

/*
 * One turn: take slots, send, wait for events at most wait_max_ms (0 = do not
 * wait), receive, deliver, expire, wake.  Returns a bitmask of extra_fds that
 * became readable.  Also returns when the doorbell's eventfd was written or a
 * signal arrived.
 */
extern uint32_t nc_engine_tick(NcEngine *engine, int wait_max_ms);

/* From now on `ended` is told of each request that ends; NULL = nobody is. */
extern void nc_engine_tell_ends(NcEngine *engine, NcEndedFn ended, void *ctx);

/* Requests that are queued or in flight. */
extern uint32_t nc_engine_busy(const NcEngine *engine);

/* Closes everything; slots stay as they are, for a successor. */
extern void nc_engine_destroy(NcEngine *engine);

#endif							/* NC_ENGINE_ENGINE_H */
