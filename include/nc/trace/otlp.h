/*
 * nc/trace/otlp.h
 *	  Records as OTLP in JSON: one ExportTraceServiceRequest, which is what a
 *	  collector is sent and what a line of the file is.
 */
#ifndef NC_TRACE_OTLP_H
#define NC_TRACE_OTLP_H

#include "nc/base/bytes.h"
#include "nc/trace/record.h"

/* No span is longer, so a batch of n fits NC_OTLP_SPAN_BYTES * n + NC_OTLP_HEAD_BYTES. */
#define NC_OTLP_SPAN_BYTES 2560
#define NC_OTLP_HEAD_BYTES 1024

/*
 * Appends the records.  service, instance: who traces, instance at most 255 bytes.  ahead_us:
 * microseconds from CLOCK_MONOTONIC to those since 1970.  w->failed when there was no room.
 */
extern void nc_otlp_write(NcWriter *w, const char *service, const char *instance,
						  const NcTraceRecord *records, uint32_t n, uint64_t ahead_us);

#endif							/* NC_TRACE_OTLP_H */
