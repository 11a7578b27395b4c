/*
 * nc/check/verify.h
 *	  Compares what page servers have of a relation, block by block, with each other
 *	  and with what this compute knows.
 *
 * In a session that may wait and raise errors.  Changes nothing.
 */
#ifndef NC_CHECK_VERIFY_H
#define NC_CHECK_VERIFY_H

#include "postgres.h"

#include "storage/block.h"

typedef enum NcVerifyState
{
	NC_VERIFY_SAME = 0,			/* never told */
	NC_VERIFY_BUSY,				/* changed so often that nothing could be compared */
	NC_VERIFY_LOST,				/* a page server gives no answers; no block */
	NC_VERIFY_DAMAGED,			/* it cannot read the block, or nobody could */
	NC_VERIFY_MISSING,			/* it has nothing of a block that was logged */
	NC_VERIFY_FUTURE,			/* newer than our WAL */
	NC_VERIFY_LONGER,			/* the whole relation is; no block */
	NC_VERIFY_DIFFERS			/* two page servers have different pages at one LSN */
} NcVerifyState;

extern const char *nc_verify_state_name(NcVerifyState state);

/* block -1 = none; the addresses of two page servers when they differ. */
typedef void (*NcVerifyPut) (void *arg, int64 block, const char *page_server, NcVerifyState state,
							 const char *what);

/*
 * Blocks first.. of the main fork, -1 = all from there on.  Nothing for relations that are not
 * there, or have nothing on page servers.  Each batch of blocks is waited for `seconds` at most.
 */
extern void nc_verify_relation(Oid relation, BlockNumber first, int64 blocks, int seconds,
							   NcVerifyPut put, void *arg);

#endif							/* NC_CHECK_VERIFY_H */
