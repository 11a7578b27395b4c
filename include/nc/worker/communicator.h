/*
 * nc/worker/communicator.h
 *	  The background worker that hosts the engine.
 */
#ifndef NC_WORKER_COMMUNICATOR_H
#define NC_WORKER_COMMUNICATOR_H

#include "postgres.h"

/* Registers the worker and makes its eventfd; called once by _PG_init in the postmaster. */
extern void nc_communicator_register(void);

extern PGDLLEXPORT void nc_communicator_main(Datum arg);

#endif							/* NC_WORKER_COMMUNICATOR_H */
