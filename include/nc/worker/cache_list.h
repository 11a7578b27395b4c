/*
 * nc/worker/cache_list.h
 *	  The list of the file cache's pages goes elsewhere and comes back, by commands
 *	  of the operator: neon_comm.lfc_list_save_command, lfc_list_restore_command.
 *
 * Commands are run by a background worker of their own, so that nobody waits for
 * one who serves pages or writes the cache.
 */
#ifndef NC_WORKER_CACHE_LIST_H
#define NC_WORKER_CACHE_LIST_H

#include "postgres.h"

/*
 * Writes the list and runs the save command, if there is one, in a while.  Any
 * process that may register background workers.
 */
extern void nc_cache_list_send(void);

/* The same every neon_comm.lfc_list_save_interval.  By the sweeper, once a round. */
extern void nc_cache_list_turn(void);

/*
 * Runs the restore command and, if it brought a list of this cluster, starts a
 * prewarm.  False: there is no such command.  By the sweeper, after a start that
 * has found no list.
 */
extern bool nc_cache_list_fetch(void);

#endif							/* NC_WORKER_CACHE_LIST_H */
