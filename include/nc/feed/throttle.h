/*
 * nc/feed/throttle.h
 *	  Backpressure: processes that write WAL pause while page servers lag too far
 *	  behind (neon_comm.max_write_lag and its sisters).
 */
#ifndef NC_FEED_THROTTLE_H
#define NC_FEED_THROTTLE_H

#include "postgres.h"

/* Where a process can be made to pause, by what it holds there. */
typedef enum NcThrottlePlace
{
	NC_THROTTLE_STATEMENT,		/* between rows or statements: nothing that others need at once */
	NC_THROTTLE_STORAGE			/* in smgr: a buffer's I/O or an extension lock */
} NcThrottlePlace;

/* Installs the hooks of the executor and of utility statements; from _PG_init. */
extern void nc_throttle_init(void);

/*
 * Any process: pauses if this process has written WAL since it was here last
 * and page servers lag more than the settings allow; at most a second, in
 * storage a tenth of that, the rest is owed.  Does nothing where
 * interrupts are held (LWLocks, critical sections), since a pause must be
 * cancellable; raises the error of a cancel.  Costs a comparison for a process
 * that writes nothing.
 */
extern void nc_throttle(NcThrottlePlace place);

#endif							/* NC_FEED_THROTTLE_H */
