/*
 * nc/shared/shmem.h
 *	  The shared memory that belongs to no module alone: one struct of small
 *	  things, the ring area, memory for pages.
 */
#ifndef NC_SHARED_SHMEM_H
#define NC_SHARED_SHMEM_H

#include "postgres.h"

#include "nc/base/key.h"
#include "nc/obs/conn_row.h"
#include "nc/obs/counters.h"
#include "nc/obs/latency.h"
#include "nc/ring/ring.h"
#include "nc/shared/tally.h"

/* Pages for reads into private memory, shared by all processes: such reads are rare. */
#define NC_BOUNCE_WORDS 3
#define NC_BOUNCE_PAGES (NC_BOUNCE_WORDS * 64)

/* One for each partition of the table of relations. */
#define NC_FORK_CHANGES 128

typedef enum NcRecordingState
{
	NC_RECORDING_OFF = 0,
	NC_RECORDING_STARTING,
	NC_RECORDING_ON,
	NC_RECORDING_FULL,			/* the size was reached; ended until it is asked for anew */
	NC_RECORDING_FAILED			/* error says why */
} NcRecordingState;

#define NC_RECORDING_PATH_BYTES 1024
#define NC_RECORDING_ERROR_BYTES 256

/*
 * The present recording of requests, or the last one.  Written by the communicator, texts
 * before the state; a view may see half of a change.
 */
typedef struct NcRecordingRow
{
	_Atomic uint32_t state;		/* NcRecordingState */
	_Atomic uint64_t requests;
	_Atomic uint64_t dropped;
	_Atomic uint64_t bytes;
	char		path[NC_RECORDING_PATH_BYTES];
	char		error[NC_RECORDING_ERROR_BYTES];
} NcRecordingRow;

/*
 * What counters and histograms said when neon_comm.reset() was last called; views subtract it.
 * The figures themselves only ever grow: metrics go on from them.  Written word by word
 * without a lock, each after the figure was read: who reads this word first, with acquire, and
 * then the figure never finds less than the word.
 */
typedef struct NcBaseline
{
	NcCounters	counters;
	NcLatency	latency;
	_Atomic int64_t at;			/* TimestampTz: that call, or when shared memory was made */
} NcBaseline;

typedef struct NcShared
{
	NcCounters	counters;
	NcLatency	latency;
	NcBaseline	baseline;

	/* Written by the communicator's engine, read by views. */
	NcConnRow	conns[NC_CONN_ROWS];

	/* Written by the communicator, read by a view. */
	NcRecordingRow recording;

	/* Communicator: its pid (0 when none runs), how it waits; set by it. */
	_Atomic uint32_t communicator_pid;
	_Atomic uint32_t io_uring_in_use;

	/*
	 * 1 when the server stops: the communicator goes as soon as nobody waits.  Whoever
	 * outlives it asks for himself then.
	 */
	_Atomic uint32_t communicator_leaves;

	/* Set by neon_comm.restart_communicator(); taken by the communicator. */
	_Atomic uint32_t restart_requested;

	/* Where this start of the server began: redo pointer of its control file. */
	uint64_t	start_lsn;

	/* 1 once the floor of the last-written LSNs has been set after recovery. */
	_Atomic uint32_t lwlsn_ready;

	/* 1 when every block that was never logged has a mark; by the postmaster (smgr/empty.h). */
	uint32_t	empty_marked;

	/* 1 when forks without a file may be there on page servers; by the postmaster (smgr/lengths.h). */
	uint32_t	lengths_asked;

	/* How often relations of each file lock were made or dropped (smgr/local.h). */
	_Atomic uint32_t fork_changes[NC_FORK_CHANGES];

	/* When this start began, by the clock of the file system, in nanoseconds since 1970; by the postmaster. */
	uint64_t	started_ns;

	/* 1 once every skeleton file from before this start has been scrubbed. */
	_Atomic uint32_t skeleton_clean;

	/* When a waiting process last said so in the log; one speaks for all. */
	_Atomic uint64_t wait_logged_us;

	/* When a damaged page was last told. */
	_Atomic uint64_t damaged_logged_us;

	/* Bit i: bounce page i is taken. */
	_Atomic uint64_t bounce_taken[NC_BOUNCE_WORDS];
} NcShared;

extern NcShared *nc_shared;
extern NcRingArea nc_rings;
extern char *nc_bounce;			/* NC_BOUNCE_PAGES pages, I/O aligned */

/*
 * Staging memory: pages asked for ahead.  Lent to one process at a time, by
 * chunks of NC_STAGING_CHUNK_PAGES; the low half of owner[i] is the index of its ring
 * + 1, or 0.  A process takes a free chunk by compare-and-swap and gives back its own;
 * inside it is alone, but for the communicator's copying windows.  A chunk that its
 * owner has not used for long may be taken from him (src/client/prefetch.c says how);
 * the high half tells that the owner is at it, or who is taking it.
 */
#define NC_STAGING_CHUNK_PAGES NC_SLOT_BLOCKS_MAX

typedef struct NcStaging
{
	uint32_t	nchunks;
	_Atomic uint64_t *owner;	/* [nchunks] */
	_Atomic uint64_t *used_us;	/* [nchunks] when the owner last used it */
	char	   *pages;			/* [nchunks * NC_STAGING_CHUNK_PAGES] */
} NcStaging;

extern NcStaging nc_staging;

/* The process that a slot belongs to, 0 when it is gone. */
extern int	nc_ring_owner_pid(uint32 ring, uint32 slot);

/* Room for all of the above; the startup function runs with AddinShmemInitLock held. */
extern Size nc_shared_shmem_bytes(void);
extern void nc_shared_shmem_startup(void);

/*
 * "shard 1 (host:port), 1 of 2 connections ready; connection refused (4 failures)":
 * where a block is asked for, and how that fares.  Any process; asks nobody.
 */
extern void nc_describe_shard(const NcRelKey *rel, uint32 block, char *text, Size bytes);

static inline void
nc_stat(NcCounter id, uint64 n)
{
	nc_count(&nc_shared->counters, id, n);
}

#endif							/* NC_SHARED_SHMEM_H */
