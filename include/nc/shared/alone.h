/*
 * nc/shared/alone.h
 *	  Which processes of the compute are ours, and whether any other is left.
 *
 * Backends that are told to exit still read pages (temporary tables are dropped
 * at exit), so a worker that serves them ignores SIGTERM until it is alone.
 */
#ifndef NC_SHARED_ALONE_H
#define NC_SHARED_ALONE_H

#include "postgres.h"

/* Shared memory; the startup function runs with AddinShmemInitLock held. */
extern Size nc_worker_alone_shmem_bytes(void);
extern void nc_worker_alone_shmem_startup(void);

/* Enters the calling process as a worker of ours; it leaves by itself when it exits. */
extern void nc_worker_register_self(void);

/*
 * True when no process is left that could need a page or WAL: no backend, no
 * background worker but our own, no autovacuum, no startup process.
 *
 * Walsenders do not count (the postmaster ends them after the workers), nor do
 * the checkpointer, the WAL writer, the background writer and the archiver.
 */
extern bool nc_worker_alone(void);

#endif							/* NC_SHARED_ALONE_H */
