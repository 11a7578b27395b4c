/*
 * nc/worker/cache_list.h
 *	  The list of the file cache's pages goes elsewhere and comes back: to page servers,
 *	  in whose boot images it is, and by commands of the operator,
 *	  neon_comm.lfc_list_save_command and lfc_list_restore_command.
 *
 * A background worker of its own does it, so that nobody waits for it who serves
 * pages or writes the cache.
 */
#ifndef NC_WORKER_CACHE_LIST_H
#define NC_WORKER_CACHE_LIST_H

#include "postgres.h"

/*
 * Writes the list, gives it to page servers and runs the save command, as is set, in a
 * while.  Any process that may register background workers.
 */
extern void nc_cache_list_send(void);

/* The same every neon_comm.lfc_list_save_interval.  By the sweeper, once a round. */
extern void nc_cache_list_turn(void);

/*
 * Runs the restore command, or takes the list of a boot image that neon_comm.lfc_path has
 * led away from, and if that is a list of this cluster starts a prewarm.  False: there is
 * neither.  By the sweeper, after a start that
 * has found no list.
 */
extern bool nc_cache_list_fetch(void);

#endif							/* NC_WORKER_CACHE_LIST_H */
