/*
 * nc/shared/tally.h
 *	  What each process has read, waited for and written, in shared memory.
 *
 * A process counts in lines of its own, which nobody else writes: a load, an addition
 * and a store, without a lock prefix.  Others read at any time.  Parallel workers add what
 * their part of a query came to to lines of their leader, once for each query.
 */
#ifndef NC_SHARED_TALLY_H
#define NC_SHARED_TALLY_H

#include "postgres.h"

#include <stdatomic.h>

#include "nc/base/check.h"

typedef enum NcTallyId
{
#define NC_TALLY(id, column, words) NC_TALLY_##id,
#include "nc/obs/tally.def"
#undef NC_TALLY
	NC_TALLIES
} NcTallyId;

/* A process's lines; all zero for one that has not counted yet. */
typedef struct NcTally
{
	/* whose figures these are: they are void while the PGPROC belongs to another pid */
	_Alignas(NC_CACHE_LINE_BYTES) _Atomic uint32_t pid;

	/* by the process alone, since it began */
	_Atomic uint64_t value[NC_TALLIES];

	/* by its parallel workers, since it began; they add */
	_Alignas(NC_CACHE_LINE_BYTES) _Atomic uint64_t workers[NC_TALLIES];
} NcTally;

/* Figures at a moment, or differences of them. */
typedef struct NcTallyCounts
{
	uint64		value[NC_TALLIES];
} NcTallyCounts;

/* This process's lines; NULL until it counts. */
extern NcTally *nc_my_tally;

/*
 * Makes this process's lines its own and returns them.  Any process that has a PGPROC, in a
 * critical section, too; never fails.  Without a PGPROC: lines that nobody sees.
 */
extern NcTally *nc_tally_attach(void);

/* Any process; adds n to a figure of its own. */
static inline void
nc_tally(NcTallyId id, uint64 n)
{
	NcTally    *t = nc_my_tally != NULL ? nc_my_tally : nc_tally_attach();

	atomic_store_explicit(&t->value[id],
						  atomic_load_explicit(&t->value[id], memory_order_relaxed) + n,
						  memory_order_relaxed);
}

/* This process's figures now; its workers' apart (NULL: not wanted). */
extern void nc_tally_now(NcTallyCounts *own, NcTallyCounts *workers);

/* Adds to `sum` what has come since `before`. */
extern void nc_tally_add_since(NcTallyCounts *sum, const NcTallyCounts *now,
							   const NcTallyCounts *before);

/* A parallel worker: tells its leader what it has counted since `before`. Its group must stand. */
extern void nc_tally_give_leader(const NcTallyCounts *since);

/*
 * Figures of the process with this index (0 to NC_PROC_COUNT() - 1): zeroes when it has not counted yet.
 * Returns its pid, 0 when there is no such process.
 */
extern int	nc_tally_of(uint32 index, NcTallyCounts *own);

/* Pages that shared buffers did not have. */
static inline uint64
nc_tally_pages(const NcTallyCounts *c)
{
	return c->value[NC_TALLY_LOCAL] + c->value[NC_TALLY_CACHED] + c->value[NC_TALLY_AHEAD] +
		c->value[NC_TALLY_WAITED];
}

/* Room for the lines; the startup function runs with AddinShmemInitLock held. */
extern Size nc_tally_shmem_bytes(void);
extern void nc_tally_shmem_startup(void);

#endif							/* NC_SHARED_TALLY_H */
