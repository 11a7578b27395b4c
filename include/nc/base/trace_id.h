/*
 * nc/base/trace_id.h
 *	  Which trace a request belongs to: what W3C's Trace Context calls trace-id and
 *	  parent-id.  docs/tracing.md has the whole picture.
 */
#ifndef NC_BASE_TRACE_ID_H
#define NC_BASE_TRACE_ID_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define NC_TRACE_ID_BYTES 16
#define NC_SPAN_ID_BYTES 8

typedef struct NcTraceContext
{
	uint8_t		trace_id[NC_TRACE_ID_BYTES];
	uint8_t		span_id[NC_SPAN_ID_BYTES];	/* of the span that asks */
} NcTraceContext;

/* Neither id may be all zero: that is what stands for none. */
static inline bool
nc_trace_context_valid(const NcTraceContext *c)
{
	static const NcTraceContext none;

	return memcmp(c->trace_id, none.trace_id, NC_TRACE_ID_BYTES) != 0 &&
		memcmp(c->span_id, none.span_id, NC_SPAN_ID_BYTES) != 0;
}

#endif							/* NC_BASE_TRACE_ID_H */
