/*
 * nc/net/yield.h
 *	  NcYield: how much readahead may be on its way to a shard while somebody waits
 *	  for a page of it.
 *
 * A page server, a network and a machine have queues that a scan fills, and
 * whoever waits for one page then waits for them.  So what a foreground request
 * takes is compared with the least that one has taken lately.  When it takes
 * longer, readahead gets less to have on its way, else a little more; without
 * foreground requests there is no limit.
 *
 * Plain memory of a pool, in the communicator.  Time is told, nothing is read.
 */
#ifndef NC_NET_YIELD_H
#define NC_NET_YIELD_H

#include <stdbool.h>
#include <stdint.h>

/* Background requests that may always be on their way to a shard. */
#define NC_YIELD_MIN 32

/* More than all connections for bulk carry. */
#define NC_YIELD_MAX 1024

/* Foreground requests older than this say nothing about now. */
#define NC_YIELD_FRESH_US 50000

/* The least time is that of this interval and the one before. */
#define NC_YIELD_WINDOW_US 30000000

typedef struct NcYield
{
	uint64_t	last_us;		/* when the last foreground answer came; 0 = none yet */
	uint64_t	window_us;		/* when this interval began */
	uint64_t	least_us;		/* in this interval */
	uint64_t	least_before_us;	/* in the one before */
	uint64_t	adjusted_us;	/* when the limit was last changed */
	uint32_t	limit;
} NcYield;

/* A foreground answer came, so long after it was sent. True: the limit was lowered for it. */
extern bool nc_yield_note(NcYield *y, uint64_t now_us, uint64_t took_us);

/* How many background requests may be on their way. */
extern uint32_t nc_yield_limit(const NcYield *y, uint64_t now_us);

#endif							/* NC_NET_YIELD_H */
