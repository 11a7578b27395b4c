/*
 * nc/smgr/stock_trap.h
 *	  A file that keeps a server without neon_comm from starting on a compute's directory.
 */
#ifndef NC_SMGR_STOCK_TRAP_H
#define NC_SMGR_STOCK_TRAP_H

/* Takes the file away. In the postmaster, before the startup process is there; FATAL if it cannot. */
extern void nc_stock_trap_open(void);

/* Puts it there, if it is not. After recovery, in any process; a LOG line if it cannot. */
extern void nc_stock_trap_set(void);

#endif							/* NC_SMGR_STOCK_TRAP_H */
