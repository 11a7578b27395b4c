/*
 * nc/safety/workers.h
 *	  Background workers without which a server is of no use.
 */
#ifndef NC_SAFETY_WORKERS_H
#define NC_SAFETY_WORKERS_H

#include "postgres.h"

#include "postmaster/bgworker.h"

/* RegisterBackgroundWorker(), which only logs that max_worker_processes are there already. */
extern void nc_workers_register(BackgroundWorker *worker);

/*
 * FATAL if there was no room for one of them.  In the postmaster, while libraries are
 * preloaded, when all are registered.
 */
extern void nc_workers_check(const char *library);

#endif							/* NC_SAFETY_WORKERS_H */
