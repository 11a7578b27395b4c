/*
 * nc/worker/overtaken.h
 *	  Page servers are asked whether a newer compute has taken the place of this one
 *	  (docs/takeover.md).
 *
 * Those that come to the feed tell it there.  These are asked where pages are read from, for
 * page servers may follow another address by then, and never come.
 */
#ifndef NC_WORKER_OVERTAKEN_H
#define NC_WORKER_OVERTAKEN_H

/*
 * Postmaster, from _PG_init, before anything of the directory is changed: FATAL when it was
 * overtaken.  Takes 3 s at most.
 */
extern void nc_overtaken_check(void);

/*
 * Has them asked every 5 s for as long as leases do not hold; the server ends when it was
 * overtaken.  By the feed, once a turn; never waits.
 */
extern void nc_overtaken_turn(void);

#endif							/* NC_WORKER_OVERTAKEN_H */
