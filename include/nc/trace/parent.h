/*
 * nc/trace/parent.h
 *	  The traceparent of a statement: a comment as sqlcommenter writes it, with the
 *	  value of W3C's Trace Context.
 *
 *		the comment traceparent='00-<32 digits>-<16 digits>-<2 digits>'
 */
#ifndef NC_TRACE_PARENT_H
#define NC_TRACE_PARENT_H

#include "nc/base/trace_id.h"

/*
 * Looks for one in the comments of a statement; the first that is well-formed counts.  True:
 * there is one, *sampled is its flag.  Never fails; what is malformed is not there.
 */
extern bool nc_trace_parent_find(const char *statement, NcTraceContext *parent, bool *sampled);

#endif							/* NC_TRACE_PARENT_H */
