/*
 * nc/smgr/local.h
 *	  The index of local blocks and the persistence of relations, in shared memory.
 *
 * A local block is a page of a permanent main fork whose content is kept in
 * the skeleton file because WAL cannot rebuild it as it is now (docs/local_pages.md).
 * The index is the truth: bytes in the file that the index does not name are
 * leftovers without meaning.
 *
 * An entry is a chunk of NC_LOCAL_CHUNK_BLOCKS blocks with one bit a block.
 * Whoever reads a local block holds the chunk's lock shared, whoever writes or
 * punches one holds it exclusive, so that nobody sees halves.
 *
 * Lock order: file lock, chunk lock, relation lock. No other lock is taken under
 * either, except those that md and the WAL pointers need (leaf locks).
 */
#ifndef NC_SMGR_LOCAL_H
#define NC_SMGR_LOCAL_H

#include "nc/compat/pg.h"

#include "access/transam.h"
#include "access/xlogdefs.h"
#include "storage/lwlock.h"

#define NC_LOCAL_CHUNK_BLOCKS 64

/* Why a page is kept. */
typedef enum NcKeep
{
	NC_KEEP_NOT = 0,			/* page servers can rebuild it */
	NC_KEEP_LOW_LSN,			/* changed without WAL so far */
	NC_KEEP_SEQUENCE,
	NC_KEEP_COMMAND_ID,			/* command id, combo cid or speculative token of a live xid */
	NC_KEEP_CYCLE_ID			/* btree page of a running VACUUM */
} NcKeep;

typedef struct NcLocalKey
{
	Oid			spc;
	Oid			db;
	Oid			rel;
	uint32		chunk;
} NcLocalKey;

typedef struct NcLocalChunk
{
	NcLocalKey	key;			/* hash key */
	uint64		local;			/* bit per block: its content is in the file */
	uint64		sequence;		/* subset of local, by reason */
	uint64		low_lsn;
	uint64		command_id;
	uint64		cycle_id;

	/*
	 * Subset of sequence: found in the file at a start or after a copy; counts
	 * only if its LSN is that of the page server's version (see ops.c).
	 */
	uint64		unverified;

	/*
	 * Not local: the file has a mark that the block was never logged (empty.c).
	 * May be lost, the mark is what counts.
	 */
	uint64		empty;

	/* No live transaction below this needs any of the blocks. */
	FullTransactionId keep_until;
} NcLocalChunk;

/* A locked place in the index. */
typedef struct NcLocalRef
{
	LWLock	   *lock;
	uint32		hash;
	NcLocalKey	key;
	NcLocalChunk *chunk;		/* NULL when the index has no entry */
	uint64		bit;
} NcLocalRef;

extern Size nc_local_shmem_bytes(void);
extern void nc_local_shmem_startup(void);

/* What is known of a relation. */
typedef struct NcRelInfo
{
	bool		unlogged;		/* a local INIT fork exists, and md serves the main fork */

	/*
	 * Or it is being made, and the file is all there is of the relation: pages are
	 * written to it under their chunk's lock, and nothing of it is punched but marks.
	 */
	bool		whole;

	/*
	 * WAL position when this server made the main fork; 0 when it was not made
	 * since the start.  A page with an older LSN was never logged under this name:
	 * it may belong to an unlogged relation whose INIT fork is still to come.
	 */
	XLogRecPtr	born;

	/* false: no block of it is local, except some that another process is writing just now */
	bool		has_local;

	/* the file has marks of blocks never logged that the index does not name */
	bool		has_marks;

	/* false: its file may hold what an earlier life of the server left (nc_skeleton_relation) */
	bool		scrubbed;

	/* bit per fork: page servers have said that it does not exist; what is made since has a file */
	uint8		absent;
} NcRelInfo;

/*
 * Any process; may look at the directory, and raises an error when it cannot.  Who reads or changes blocks asks
 * nc_skeleton_relation() instead, unless it or its caller has done so.
 */
extern NcRelInfo nc_local_relation(SMgrRelation reln);

/* Page servers say so; forgotten when the table is full. */
extern void nc_local_set_absent(const NcRelKey *rel, ForkNumber fork);

/* How often relations of the same file lock were made or dropped; raised with that lock held. */
extern uint32 nc_local_changes(const NcRelKey *rel);
extern void nc_local_note_change(const NcRelKey *rel);

/*
 * The lock of what happens to a relation's file outside of the locks of its chunks:
 * exclusive for who scrubs it, shared for who makes it longer or gives it an INIT
 * fork.  Order: before the lock of a chunk.
 */
extern LWLock *nc_local_lock_file(const NcRelKey *rel, LWLockMode mode);

/* Has the file been scrubbed since the start? That it has.  Under its lock, exclusive. */
extern bool nc_local_is_scrubbed(const NcRelKey *rel);
extern void nc_local_set_scrubbed(const NcRelKey *rel);

/* smgrcreate of a main fork, outside recovery. Raises an error when nothing more can be remembered. */
extern void nc_local_set_born(const NcRelKey *rel, XLogRecPtr now);

/* Recovery is over: forget what was learned of relations that it may have replaced. */
extern void nc_local_recovery_ended(void);

/*
 * smgrcreate of an INIT fork: before marks are taken out of the main fork's file, and after.
 * In between others write pages of it under the locks under which marks are looked for.
 */
extern void nc_local_set_whole(const NcRelKey *rel);
extern void nc_local_set_unlogged(const NcRelKey *rel);

/*
 * This process builds the relation, whose pages are not logged yet whatever LSN they
 * have, or is done: those are logged from now on.  Until then, or until its transaction
 * ends, what is known of the relation is not thrown away.  Of a relation that is not known
 * (nc_local_relation()) nothing is remembered: then the LSNs of its pages tell.
 */
extern void nc_local_set_building(const NcRelKey *rel, bool building);

/* smgrunlink of INIT. */
extern void nc_local_forget_persistence(const NcRelKey *rel);

/* Drops all entries of a relation with blocks >= from; punches nothing. Cannot fail. */
extern void nc_local_forget_blocks(const NcRelKey *rel, BlockNumber from);

/* What the index says of a block. */
typedef enum NcBlockPlace
{
	NC_BLOCK_REMOTE,
	NC_BLOCK_LOCAL,
	NC_BLOCK_EMPTY				/* remote, with a mark that it was never logged */
} NcBlockPlace;

extern NcBlockPlace nc_local_look(const NcRelKey *rel, BlockNumber block);

/*
 * Notes that these blocks of the chunk (a bit each) have a mark, and are not
 * local; where the index has no room to spare only that the relation has marks.
 * Chunk's lock held exclusive.
 */
extern void nc_local_note_empty(NcLocalRef *ref, uint64 bits);

/* True, with the chunk's lock held shared, when the block is local; else false, no lock. */
extern bool nc_local_begin_read(const NcRelKey *rel, BlockNumber block, NcLocalRef *ref);

/* Takes the chunk's lock exclusive; ref->chunk may be NULL. */
extern void nc_local_begin_change(const NcRelKey *rel, BlockNumber block, NcLocalRef *ref);

/* Makes sure that ref->chunk exists; false (lock still held) when the index is full. */
extern bool nc_local_try_ensure(NcLocalRef *ref);

/* True when only the reserve is left, which is not for pages of one's own transaction. */
extern bool nc_local_in_reserve(void);

/* Releases the lock and raises the error that the index is full. */
pg_noreturn extern void nc_local_fail_full(NcLocalRef *ref);

/* Marks the block as local for this reason. ref->chunk exists. */
extern void nc_local_mark(NcLocalRef *ref, NcKeep why, FullTransactionId keep_until);

/* The block is not local any more; drops an empty chunk. */
extern void nc_local_clear(NcLocalRef *ref);

extern void nc_local_end(NcLocalRef *ref);

/*
 * Copies all chunks for which want() says true into palloc'd memory. Locks the
 * whole index shared while it looks.
 */
extern NcLocalChunk *nc_local_collect(bool (*want) (const NcLocalChunk *c, void *arg), void *arg,
									  int *n);

/*
 * Drops what is keyed by this database: chunks of tablespaces where its directory
 * is gone, and everything that is only remembered of its relations.
 */
extern void nc_local_forget_database(Oid db);

/* Locks the chunk with this key exclusive, as nc_local_begin_change. */
extern void nc_local_begin_change_key(const NcLocalKey *key, NcLocalRef *ref);

/* Number of chunks now, for views. */
extern long nc_local_chunks_used(void);

#endif							/* NC_SMGR_LOCAL_H */
