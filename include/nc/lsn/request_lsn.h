/*
 * nc/lsn/request_lsn.h
 *	  Pure rules about the LSNs of a request and of its answer.
 */
#ifndef NC_LSN_REQUEST_LSN_H
#define NC_LSN_REQUEST_LSN_H

#include "nc/base/check.h"
#include "nc/base/units.h"

/*
 * The insert pointer may stand just past a WAL page header (24 bytes, 40 at
 * the start of a segment) where no record ends.  A page server never reaches
 * such a position until more WAL is written, so a request for it would hang.
 * Moves such a position back to the start of its page; any other is returned
 * as it is.  segment_bytes: the server's WAL segment size.
 */
extern NcLsn nc_lsn_before_page_header(NcLsn lsn, uint64_t segment_bytes);

typedef enum NcAnswerVerdict
{
	NC_ANSWER_OK = 0,
	NC_ANSWER_STALE,			/* older than the version known to exist */
	NC_ANSWER_FUTURE			/* newer than any WAL this compute has made durable */
} NcAnswerVerdict;

/*
 * Is the page of an answer acceptable?  page_lsn: of the page received, 0 for
 * an all-zero one.  exact: LSN of the page as it was last dropped here, 0 if
 * unknown.  flush: this compute's flush position, or NC_LSN_INVALID in
 * recovery, when pages from the future are expected.
 */
extern NcAnswerVerdict nc_answer_verdict(NcLsn page_lsn, NcLsn exact, NcLsn flush);

#endif							/* NC_LSN_REQUEST_LSN_H */
