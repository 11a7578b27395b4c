/*
 * nc/smgr/lengths.h
 *	  Forks whose existence and length the skeleton does not know yet: a compute that was laid
 *	  from an image in Neon's form asks page servers when a fork is first used (docs/local_pages.md).
 */
#ifndef NC_SMGR_LENGTHS_H
#define NC_SMGR_LENGTHS_H

#include "nc/compat/pg.h"

#include "nc/shared/shmem.h"

/*
 * Looks whether the fork's file is there or known not to be; if neither, asks and lays it.  Waits and raises
 * errors as a read does.  Asks nobody in a critical section, nor outside of transactions but for recovery:
 * who ends a transaction drops relations, and must not fail.
 */
extern void nc_lengths_look(SMgrRelation reln, ForkNumber fork);

/* The same; any process, before md is asked about the fork.  Costs nothing on other computes. */
static inline void
nc_lengths_ensure(SMgrRelation reln, ForkNumber fork)
{
	if (nc_shared->lengths_asked != 0 && reln->md_num_open_segs[fork] == 0)
		nc_lengths_look(reln, fork);
}

/*
 * The relation is about to be dropped, or has been made: who is asking about it asks again.  Before files are
 * removed: one is left of the main fork until the next checkpoint, as that of others, so that nobody is given
 * its number before.
 */
extern void nc_lengths_changed(const NcRelKey *rel, bool dropped);

/* Functions of SQL that look at files by themselves see what page servers have; in the postmaster, from _PG_init. */
extern void nc_sizes_init(void);

/*
 * Bytes of a database: `here` is what is in its directories, and counts if page servers do
 * not know of more.  In a session that may know; may wait for them, and raise what a read does.
 */
extern int64 nc_sizes_of_database(Oid db, int64 here);

#endif							/* NC_SMGR_LENGTHS_H */
