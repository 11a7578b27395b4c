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

#include "nc/net/conn_state.h"
#include "nc/obs/counters.h"
#include "nc/obs/latency.h"
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

	void		(*log) (void *ctx, NcLogLevel level, const char *message);

	/* Where to note how long requests took, stage by stage; NULL = nowhere. */
	NcLatency  *latency;
} NcHost;

typedef enum NcIoMethod
{
	NC_IO_AUTO = 0,				/* io_uring when the probe succeeds, else epoll */
	NC_IO_URING,
	NC_IO_EPOLL
} NcIoMethod;

/* Settings that may change while the engine runs, see nc_engine_configure. */
typedef struct NcEngineConfig
{
	int			protocol_version;	/* 2 or 3 */
	char		tenant_id[33];	/* 32 hex digits */
	char		timeline_id[33];
	uint32_t	connections_per_shard_max;	/* pool cap, >= 1 */
	uint32_t	connections_max;	/* of all shards, 0 = as many as there are rows */
	uint32_t	depth_max;		/* requests in flight per connection, >= 1 */
	uint32_t	spin_us;		/* look for work this long before a sleep, 0 = sleep at once */
	uint32_t	connect_timeout_ms;
	uint32_t	silence_timeout_ms; /* oldest request of a connection unanswered for this long:
									 * abandon the connection, move its requests */
	uint32_t	idle_timeout_ms;	/* close an idle connection that is not the last of its shard */
	bool		readahead_yields;	/* less is read ahead while somebody waits longer than usual */
	char		token_file[1024];	/* token read at each connect; empty = none */
} NcEngineConfig;

/* One row of neon_comm.connections; the engine writes, anyone reads, torn reads are tolerated. */
typedef struct NcConnRow
{
	_Atomic uint32_t state;		/* NcConnState */
	uint32_t	shard;
	uint32_t	in_flight;
	uint64_t	since_us;		/* when it entered this state */
	uint64_t	requests;		/* sent over its life */
	uint32_t	failures;		/* of its shard since the present trouble began */
	char		address[128];	/* host:port, never a password */
	char		last_error[128];
} NcConnRow;

#define NC_CONN_ROWS 512

typedef struct NcEngine NcEngine;

/*
 * Makes an engine.  The area, counters and rows belong to the caller and
 * outlive it.  Slots found TAKEN (a communicator ended before us) are moved
 * back to SUBMITTED and taken again.  None can be COPYING: an engine ends
 * only between turns, and a crash clears the area.
 * extra_fds (may be empty): descriptors whose readability ends a wait of
 * nc_engine_tick (the postmaster's death pipe).  NULL and a reason on failure.
 */
NC_MUST_USE extern NcEngine *nc_engine_create(const NcEngineConfig *config, NcIoMethod io,
											  NcRingArea *area, NcCounters *counters,
											  NcConnRow *rows, const NcHost *host,
											  const int *extra_fds, int nextra_fds,
											  char *err, size_t err_bytes);

/* "io_uring" or "epoll". */
extern const char *nc_engine_io_method(const NcEngine *engine);

/* Applies a new map as a whole; requests in flight are routed again by it. Same map: no effect. */
extern void nc_engine_set_shard_map(NcEngine *engine, const NcShardMap *map);

/* Applies new settings; connections that they concern (version, ids) are replaced. */
extern void nc_engine_configure(NcEngine *engine, const NcEngineConfig *config);

/*
 * One turn: take slots, send, wait for events at most wait_max_ms (0 = do not
 * wait), receive, deliver, expire, wake.  Returns a bitmask of extra_fds that
 * became readable.  Also returns when the doorbell's eventfd was written or a
 * signal arrived.
 */
extern uint32_t nc_engine_tick(NcEngine *engine, int wait_max_ms);

/* Requests that are queued or in flight. */
extern uint32_t nc_engine_busy(const NcEngine *engine);

/* Closes everything; slots stay as they are, for a successor. */
extern void nc_engine_destroy(NcEngine *engine);

#endif							/* NC_ENGINE_ENGINE_H */
