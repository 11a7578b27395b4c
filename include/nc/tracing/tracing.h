/*
 * nc/tracing/tracing.h
 *	  Which requests of a compute are traced, and their records.  See docs/tracing.md.
 *
 * Without an outlet (neon_comm.trace_file, neon_comm.trace_collector) there is no memory
 * for it: nc_rings.traces is NULL, and that is all that a request looks at.
 */
#ifndef NC_TRACING_TRACING_H
#define NC_TRACING_TRACING_H

#include "postgres.h"

#include "nc/shared/shmem.h"

/* For the process that writes them out; nc/tracer/tracer.h. */
extern const struct NcTracer nc_tracing_tracer;

extern void nc_tracing_init(void);
extern bool nc_tracing_enabled(void);
extern Size nc_tracing_shmem_bytes(void);
extern void nc_tracing_shmem_startup(void);

/* Spans recorded and dropped since shared memory was made; zeroes when nothing is traced. */
extern void nc_tracing_counts(uint64 *recorded, uint64 *dropped);

/* Parts of the two below. */
extern void nc_tracing_choose(NcSlotTrace *trace);
extern void nc_tracing_record(uint32 ring, uint32 slot, uint64 woken_us, bool unanswered);

/* Any process, in FILLING of each life of a slot: decides whether it is traced. */
static inline void
nc_tracing_begin(uint32 ring, uint32 slot)
{
	if (nc_rings.traces != NULL)
		nc_tracing_choose(nc_slot_trace(&nc_rings, ring, slot));
}

/*
 * Whose slot it is, in DONE; or, unanswered, when he has withdrawn it.  woken_us: when he ran
 * again; 0 if he did not wait.  Never waits or fails.
 */
static inline void
nc_tracing_end(uint32 ring, uint32 slot, uint64 woken_us, bool unanswered)
{
	if (nc_rings.traces != NULL && nc_slot_trace(&nc_rings, ring, slot)->sampled != 0)
		nc_tracing_record(ring, slot, woken_us, unanswered);
}

#endif							/* NC_TRACING_TRACING_H */
