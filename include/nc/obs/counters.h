/*
 * nc/obs/counters.h
 *	  Counters in shared memory, readable when every worker is stuck.
 *
 * One atomic word each; any process adds, relaxed.
 */
#ifndef NC_OBS_COUNTERS_H
#define NC_OBS_COUNTERS_H

#include <stdatomic.h>
#include <stdint.h>

typedef enum NcCounter
{
#define NC_COUNTER(id, name, meaning) NC_COUNTER_##id,
#include "nc/obs/counters.def"
#undef NC_COUNTER
	NC_COUNTERS
} NcCounter;

typedef struct NcCounters
{
	_Atomic uint64_t value[NC_COUNTERS];
} NcCounters;

static inline void
nc_count(NcCounters *c, NcCounter id, uint64_t n)
{
	atomic_fetch_add_explicit(&c->value[id], n, memory_order_relaxed);
}

static inline uint64_t
nc_counter_value(NcCounters *c, NcCounter id)
{
	return atomic_load_explicit(&c->value[id], memory_order_relaxed);
}

#endif							/* NC_OBS_COUNTERS_H */
