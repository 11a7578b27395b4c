/*
 * nc/worker/scrub.h
 *	  The process that compares page servers.
 */
#ifndef NC_WORKER_SCRUB_H
#define NC_WORKER_SCRUB_H

/* The sweeper: starts it, if neon_comm.scrub_rate wants it and it does not run. */
extern void nc_scrub_start(void);

#endif							/* NC_WORKER_SCRUB_H */
