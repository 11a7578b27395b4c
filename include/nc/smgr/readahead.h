/*
 * nc/smgr/readahead.h
 *	  Which blocks to ask for before they are read.
 */
#ifndef NC_SMGR_READAHEAD_H
#define NC_SMGR_READAHEAD_H

#include "nc/compat/pg.h"

#include "storage/smgr.h"

/*
 * The executor says that it will read these blocks (smgrprefetch).  Blocks past
 * the end, local ones and those that are here or on their way are skipped.
 */
extern void nc_readahead_asked(SMgrRelation reln, const NcRelKey *rel, BlockNumber first,
							   int nblocks);

/*
 * Blocks of a permanent main fork are about to be read together, the first of which is
 * remote; the fork has `length` blocks.  Finds out whether they belong to a sequential or
 * strided read and asks for what comes next, not for them.  Never waits, never fails.
 */
extern void nc_readahead_read(const NcRelKey *rel, BlockNumber first, int nblocks,
							  BlockNumber length);

#endif							/* NC_SMGR_READAHEAD_H */
