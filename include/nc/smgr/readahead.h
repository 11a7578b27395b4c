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
 * A remote block of a permanent main fork is about to be read; the fork has
 * `length` blocks.  Finds out whether it belongs to a sequential or strided read
 * and asks for what comes next.  Never waits, never fails.
 */
extern void nc_readahead_read(const NcRelKey *rel, BlockNumber block, BlockNumber length);

#endif							/* NC_SMGR_READAHEAD_H */
