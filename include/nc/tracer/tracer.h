/*
 * nc/tracer/tracer.h
 *	  A process that takes traced requests out of shared memory and writes them to a
 *	  file and to a collector; for both libraries.  See docs/tracing.md.
 *
 * Nobody waits for it.  What its outlets do not take is dropped and counted; the log says
 * so once a minute at most.
 */
#ifndef NC_TRACER_TRACER_H
#define NC_TRACER_TRACER_H

#include "postgres.h"

#include "nc/trace/record.h"

typedef struct NcTracer
{
	const char *service;		/* service.name of its spans, and who speaks in the log */
	char	  **file;			/* empty: none */
	int		   *file_size_kb;
	char	  **collector;		/* empty: none; else good */
	NcTraceBuffer **buffer;
} NcTracer;

/* Has it an outlet? */
extern bool nc_tracer_enabled(const NcTracer *tracer);

/* Is that an address of a collector, or empty?  False: GUC_check_errdetail says why. */
extern bool nc_tracer_collector_good(const char *collector);

/* In the process: once, then one turn after the other, at last the end. */
extern void nc_tracer_begin(const NcTracer *tracer);

/* Takes, writes, posts; waits a moment when there is nothing to do, or until the latch is set. */
extern void nc_tracer_turn(uint32 wait_event);

/* What is left goes to the file; the collector gets no more. */
extern void nc_tracer_end(void);

#endif							/* NC_TRACER_TRACER_H */
