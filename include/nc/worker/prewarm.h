/*
 * nc/worker/prewarm.h
 *	  Fills the local file cache from page servers by a saved list.
 */
#ifndef NC_WORKER_PREWARM_H
#define NC_WORKER_PREWARM_H

#include "postgres.h"

/*
 * Starts workers that bring the pages of the list, hottest first.  False and a
 * reason when there is no cache or list, or a prewarm is running.  Any process
 * that may register background workers.
 */
extern bool nc_prewarm_start(int workers, char *err, size_t err_bytes);

/*
 * Once after each start of the server, as soon as the cache is on.  False: it is
 * not on yet, ask again.  By the sweeper.
 */
extern bool nc_prewarm_at_start(void);

/* Asks the workers to end; true when some were running. */
extern bool nc_prewarm_stop(void);

#endif							/* NC_WORKER_PREWARM_H */
