/*
 * request_lsn.c
 *	  Pure rules about the LSNs of a request and of its answer.
 */
#include "nc/lsn/request_lsn.h"

/* Header sizes of WAL pages, SizeOfXLogShortPHD and SizeOfXLogLongPHD of the server. */
#define WAL_PAGE_BYTES 8192
#define WAL_SHORT_HEADER_BYTES 24
#define WAL_LONG_HEADER_BYTES 40

NcLsn
nc_lsn_before_page_header(NcLsn lsn, uint64_t segment_bytes)
{
	if (lsn % segment_bytes == WAL_LONG_HEADER_BYTES)
		return lsn - WAL_LONG_HEADER_BYTES;
	if (lsn % WAL_PAGE_BYTES == WAL_SHORT_HEADER_BYTES)
		return lsn - WAL_SHORT_HEADER_BYTES;
	return lsn;
}

NcAnswerVerdict
nc_answer_verdict(NcLsn page_lsn, NcLsn exact, NcLsn flush)
{
	if (page_lsn < exact)
		return NC_ANSWER_STALE;
	if (flush != NC_LSN_INVALID && page_lsn > flush)
		return NC_ANSWER_FUTURE;
	return NC_ANSWER_OK;
}
