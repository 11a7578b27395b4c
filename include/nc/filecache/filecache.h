/*
 * nc/filecache/filecache.h
 *	  The local file cache as the storage manager sees it, and its writer.
 *
 * Any process may look up, bring and forget pages; none of these calls waits for
 * I/O of another process, raises an error or allocates, so they may run in
 * critical sections.  One process writes the file: the worker "neon_comm cache
 * writer", and once it has ended at a stop, the checkpointer and the postmaster.
 *
 * Trouble with the file switches the cache off; it is never an error of a query.
 */
#ifndef NC_FILECACHE_FILECACHE_H
#define NC_FILECACHE_FILECACHE_H

#include "postgres.h"

#include "storage/block.h"

#include "nc/cache/lfc_index.h"
#include "nc/obs/counters.h"

typedef enum NcFileCacheState
{
	NC_FILECACHE_OFF = 0,		/* neon_comm.lfc_size is 0 */
	NC_FILECACHE_STARTING,		/* the writer has not opened the file yet */
	NC_FILECACHE_ON,
	NC_FILECACHE_LIMIT_ZERO,	/* neon_comm.lfc_size_limit is too small for anything */
	NC_FILECACHE_FAILED			/* last_error says why; tried again by itself and at a reload */
} NcFileCacheState;

#define NC_FILECACHE_ERROR_BYTES 160

#define NC_PREWARM_WORKERS_MAX 8

/* Progress of a prewarm; one at a time. */
typedef enum NcPrewarmState
{
	NC_PREWARM_NONE = 0,
	NC_PREWARM_RUNNING,
	NC_PREWARM_DONE,
	NC_PREWARM_STOPPED,
	NC_PREWARM_FAILED
} NcPrewarmState;

typedef struct NcPrewarm
{
	_Atomic uint32_t state;		/* NcPrewarmState */
	_Atomic uint32_t stop;		/* somebody asked for an end */
	_Atomic uint32_t workers;	/* at work */
	_Atomic uint64_t next_run;	/* runs of the list are taken in order */
	_Atomic uint64_t total;
	_Atomic uint64_t loaded;
	_Atomic uint64_t skipped;	/* gone, local, there already, or no room */
	_Atomic uint64_t failed;
	_Atomic uint64_t started_us;
	_Atomic uint64_t ended_us;
	_Atomic uint64_t paused_us; /* spent waiting so that others are served first */
	_Atomic uint32_t trouble;	/* a worker ended with an error */
	_Atomic uint32_t at_start;	/* the prewarm at the server's start has been thought of */
	_Atomic uint32_t pids[NC_PREWARM_WORKERS_MAX];
} NcPrewarm;

/* In shared memory. */
typedef struct NcFileCache
{
	_Atomic uint32_t state;		/* NcFileCacheState, by the writer */

	/* Which file: advanced after dev and ino were set. Readers open it again when it changed. */
	_Atomic uint32_t generation;
	_Atomic uint64_t dev;
	_Atomic uint64_t ino;

	/* errno of a reader's trouble, taken by the writer; 0 = none. */
	_Atomic uint32_t complaint;

	/* Who may write the file: pid, 0 = nobody. */
	_Atomic uint32_t owner;

	/* PGPROC index of the worker + 1, and how deep it sleeps (NcNap). */
	_Atomic uint32_t worker;
	_Atomic uint32_t nap;

	/* The index came from a clean stop. */
	_Atomic uint32_t adopted;

	/* Is a command for the list at work (src/worker/cache_list.c)? */
	_Atomic uint32_t list_work;
	char		last_error[NC_FILECACHE_ERROR_BYTES];
	NcPrewarm	prewarm;
} NcFileCache;

/* As views and metrics say them. */
extern const char *nc_filecache_state_name(uint32 state);
extern const char *nc_prewarm_state_name(uint32 state);

/* NULL when neon_comm.lfc_size is 0. */
extern NcFileCache *nc_filecache;
extern NcLfc *nc_filecache_index;

extern Size nc_filecache_shmem_bytes(void);

/* In the postmaster, at each start of shared memory; first = no crash has come before. */
extern void nc_filecache_shmem_startup(void);

/* True when pages can be found: configured, switched on, recovery over. */
extern bool nc_filecache_usable(void);

/* Looks the page up and reads it. False: not there; the page's bytes are then undefined. */
extern bool nc_filecache_read(const NcRelKey *rel, BlockNumber block, char *page);

/*
 * A page that came from a page server into a shared buffer whose I/O is ours, so
 * that nobody can have a newer version.
 */
extern void nc_filecache_received(const NcRelKey *rel, BlockNumber block, const char *page);

/* A page that was evicted and that page servers can rebuild: replaces any older version. */
extern void nc_filecache_written(const NcRelKey *rel, BlockNumber block, const char *page);

/* Blocks from..end-1 of the relation, or all pages of a database, must not be found any more. */
extern void nc_filecache_forget(const NcRelKey *rel, BlockNumber from, BlockNumber end);
extern void nc_filecache_forget_database(Oid db);

/* Wakes the writer if it sleeps; after something came into the outbox. */
extern void nc_filecache_wake(bool urgent);

/* The file's name, and that of the list of its pages. */
extern const char *nc_filecache_path(void);
extern const char *nc_filecache_list_path(void);

/* ---- the writer ---- */

/* Empties the outbox if nobody else is there to do it: the checkpointer and postmaster at a stop. */
extern void nc_filecache_drain(void);

/* Bytes of the file's places in use, by the limit. */
extern uint64 nc_filecache_limit_bytes(void);

/* ---- the list of pages (saved.c) ---- */

/* Does the control file say that the server has been shut down cleanly? */
extern bool nc_filecache_server_stopped(void);

/*
 * Writes the list.  Outside the postmaster's exit it only names pages; with
 * `final` it also says that the file agrees with a server that has stopped.
 * Returns the number of pages, or -1 with a reason in err.
 */
extern int64 nc_filecache_save(bool final, char *err, size_t err_bytes);

/* In the postmaster: takes over the index of a clean stop if nothing can have changed since. */
extern bool nc_filecache_adopt(void);

/* The file becomes the list, if it is a whole one of this cluster; else a reason. */
extern bool nc_filecache_take_list(const char *path, char *err, size_t err_bytes);

/*
 * The list as it is on disk, palloc'd; of one that would be longer than max its hottest pages,
 * as a whole list.  NULL and a reason when there is none.
 */
extern uint8 *nc_filecache_list_bytes(size_t max, size_t *bytes, char *err, size_t err_bytes);

/* The pages of the list, hottest first, palloc'd; NULL and a reason when there is no usable list. */
extern NcLfcItem *nc_filecache_load(uint64 *n, char *err, size_t err_bytes);

#endif							/* NC_FILECACHE_FILECACHE_H */
