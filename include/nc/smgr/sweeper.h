/*
 * nc/smgr/sweeper.h
 *	  Gives local blocks back once no live transaction needs them.
 */
#ifndef NC_SMGR_SWEEPER_H
#define NC_SMGR_SWEEPER_H

#include "postgres.h"

/*
 * One round over the index: every block that nobody needs any more is dropped,
 * its last-written LSN restored, its space punched.  Returns the number of
 * blocks given back.  Any process outside recovery; heeds interrupts between
 * chunks; takes no sync request and keeps no descriptor.
 */
extern uint64 nc_sweep(void);

/*
 * A round for a process that finds the index full while it writes a page; not
 * too often, and not in a critical section.  No chunk lock is held.
 */
extern void nc_sweep_for_room(void);

#endif							/* NC_SMGR_SWEEPER_H */
