/*
 * local.c
 *	  The shared index of local blocks and of relation persistence.
 *
 * Two partitioned hash tables (table.c).  The chunk table says which blocks are local.
 * The relation table says whether a relation is unlogged, and how far its
 * chunks reach, so that dropping a relation need not search the whole table.
 * An entry of the relation table without chunks, whose maker has ended, is only
 * a cache: it may be thrown away and found again by looking for the INIT fork.
 * Until then it holds where WAL stood when the relation was made, which cannot
 * be found again.
 */
#include "postgres.h"

#include <unistd.h>

#include "catalog/pg_tablespace_d.h"
#include "common/relpath.h"
#include "miscadmin.h"
#include "storage/proc.h"
#include "storage/shmem.h"

#include "nc/shared/settings.h"
#include "nc/shared/shmem.h"
#include "nc/shared/test_point.h"
#include "nc/smgr/keep.h"
#include "nc/smgr/local.h"
#include "nc/smgr/lwlsn.h"
#include "nc/smgr/table.h"

/* All chunk locks are held together by nc_local_collect(); a process may hold 200 LWLocks. */
#define LOCAL_PARTITIONS NC_TABLE_PARTITIONS

/*
 * The last entries, one of so many, are for processes that write pages of
 * others: checkpointer, background writer, readers that need a buffer.
 */
#define RESERVE_SHARE 8

/* Relations remembered; the persistence of more is looked up in the directory each time. */
#define RELATIONS_MAX Max(65536, nc_guc_local_chunks)

typedef struct RelKey
{
	Oid			spc;
	Oid			db;
	Oid			rel;
} RelKey;

typedef struct RelState
{
	RelKey		key;			/* hash key */
	bool		unlogged;
	bool		whole;			/* see NcRelInfo */
	bool		marks;			/* the file has marks without a bit in the index, since the start */
	bool		scrubbed;		/* the file holds nothing from before the start but sequences and marks */
	uint8		absent;			/* see NcRelInfo */
	XLogRecPtr	born;			/* see NcRelInfo */
	FullTransactionId born_until;	/* no live transaction below this can have made it */
	uint32		builder;		/* who builds it without WAL: index of the process + 1, 0 nobody */
	LocalTransactionId build;	/* in which transaction; over when that is */
	uint32		nchunks;		/* entries of the chunk table */
	uint32		chunk_max;		/* highest chunk number ever entered */
} RelState;

static NcTable chunks;
static NcTable relations;
static LWLockPadded *chunk_locks;
static LWLockPadded *relation_locks;
static LWLockPadded *file_locks;

Size
nc_local_shmem_bytes(void)
{
	return add_size(nc_table_shmem_bytes(nc_guc_local_chunks, sizeof(NcLocalChunk)),
					nc_table_shmem_bytes(RELATIONS_MAX, sizeof(RelState)));
}

void
nc_local_shmem_startup(void)
{
	nc_table_shmem_startup(&chunks, "neon_comm local chunks", nc_guc_local_chunks,
						   sizeof(NcLocalKey), sizeof(NcLocalChunk));
	nc_table_shmem_startup(&relations, "neon_comm local relations", RELATIONS_MAX,
						   sizeof(RelKey), sizeof(RelState));
	chunk_locks = GetNamedLWLockTranche("neon_comm_local_chunk");
	relation_locks = GetNamedLWLockTranche("neon_comm_relation");
	file_locks = GetNamedLWLockTranche("neon_comm_file");
}

long
nc_local_chunks_used(void)
{
	return nc_table_count(&chunks);
}

bool
nc_local_in_reserve(void)
{
	long		reserve = nc_guc_local_chunks / RESERVE_SHARE;

	return nc_local_chunks_used() >= nc_guc_local_chunks - reserve;
}

/* ---- relations ---- */

static RelKey
rel_key(const NcRelKey *rel)
{
	return (RelKey) {rel->spc, rel->db, rel->rel};
}

static LWLock *
lock_relation(const RelKey *key, LWLockMode mode, uint32 *hash)
{
	LWLock	   *lock;

	*hash = nc_table_hash(&relations, key);
	lock = &relation_locks[*hash % LOCAL_PARTITIONS].lock;
	LWLockAcquire(lock, mode);
	return lock;
}

/* Not to know it is an error: taken for a permanent relation, an unlogged one would lose its pages. */
static bool
init_fork_exists(const NcRelKey *rel)
{
	char		path[MAXPGPATH];
	bool		exists;

	nc_pg_fork_path(rel, INIT_FORKNUM, path);
	exists = !NC_TEST_FAULT_REL("init-fork", rel->rel) && access(path, F_OK) == 0;
	if (!exists && errno != ENOENT)
		ereport(ERROR,
				(errcode_for_file_access(), errmsg("could not access file \"%s\": %m", path)));
	return exists;
}

/* The entry, made when missing; NULL when the table is full. Lock held exclusive. */
static RelState *
enter_relation(const RelKey *key, uint32 hash)
{
	return nc_table_enter(&relations, key, hash);
}

/* Only for as long as the builder's transaction: it need not say that it has failed. */
static bool
is_being_built(const RelState *state)
{
	return state->builder != 0 &&
		*(volatile LocalTransactionId *) &NC_PROC_LXID(&ProcGlobal->allProcs[state->builder - 1]) == state->build;
}

/* Nothing but a cache: no chunks, and whoever made the relation, or its INIT fork, is done. */
static bool
evictable(const RelState *state, FullTransactionId horizon)
{
	return state->nchunks == 0 && !state->marks && !is_being_built(state) && state->whole == state->unlogged &&
		FullTransactionIdFollowsOrEquals(horizon, state->born_until);
}

/*
 * Throws away entries that are only a cache.  Scanning a partitioned table
 * needs all its locks; no lock of a relation may be held by the caller.
 */
static void
evict_relations(void)
{
	uint32		at = 0;
	RelState   *state;
	FullTransactionId horizon = nc_keep_horizon();

	for (int i = 0; i < LOCAL_PARTITIONS; i++)
		LWLockAcquire(&relation_locks[i].lock, LW_EXCLUSIVE);
	while ((state = nc_table_next(&relations, &at)) != NULL)
		if (evictable(state, horizon))
			nc_table_remove(&relations, &state->key, nc_table_hash(&relations, &state->key));
	for (int i = LOCAL_PARTITIONS - 1; i >= 0; i--)
		LWLockRelease(&relation_locks[i].lock);
}

void
nc_local_recovery_ended(void)
{
	evict_relations();
}

static NcRelInfo
info_of(const RelState *state)
{
	return (NcRelInfo) {.unlogged = state->unlogged, .whole = state->whole, .born = is_being_built(state) ? NC_LSN_MAX : state->born,
		.has_local = state->nchunks > 0, .has_marks = state->marks, .scrubbed = state->scrubbed,
		.absent = state->absent};
}

NcRelInfo
nc_local_relation(SMgrRelation reln)
{
	NcRelKey	rel = nc_reln_key(reln, MAIN_FORKNUM);
	RelKey		key = rel_key(&rel);
	NcRelInfo	info = {0};
	uint32		hash;
	LWLock	   *lock = lock_relation(&key, LW_SHARED, &hash);
	RelState   *state = nc_table_find(&relations, &key, hash);
	bool		found = state != NULL;

	if (found)
		info = info_of(state);
	LWLockRelease(lock);
	if (found)
		return info;

	/*
	 * Look under the lock, so that an INIT fork made meanwhile is not
	 * recorded as missing after its maker has recorded it.
	 */
	lock = lock_relation(&key, LW_EXCLUSIVE, &hash);
	state = nc_table_find(&relations, &key, hash);
	if (state == NULL)
	{
		info.unlogged = info.whole = init_fork_exists(&rel);
		state = enter_relation(&key, hash);
		if (state != NULL)
			state->unlogged = state->whole = info.unlogged;
	}
	else
		info = info_of(state);
	LWLockRelease(lock);
	if (state == NULL)
		evict_relations();
	return info;
}

/* False when the table is full. */
static bool
try_set_born(const NcRelKey *rel, XLogRecPtr now)
{
	RelKey		key = rel_key(rel);
	FullTransactionId next = ReadNextFullTransactionId();
	uint32		hash;
	LWLock	   *lock = lock_relation(&key, LW_EXCLUSIVE, &hash);
	RelState   *state = NC_TEST_TRUE("relations-full") ? NULL : enter_relation(&key, hash);

	if (state != NULL)
	{
		state->unlogged = state->whole = false;
		state->marks = false;
		state->scrubbed = true;
		state->born = now;
		state->born_until = next;
	}
	LWLockRelease(lock);
	return state != NULL;
}

void
nc_local_set_born(const NcRelKey *rel, XLogRecPtr now)
{
	if (try_set_born(rel, now))
		return;
	evict_relations();
	if (try_set_born(rel, now))
		return;

	/* without it pages of a relation whose INIT fork is still to come could be dropped */
	ereport(ERROR,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("the table of relations is full"),
			 errdetail("All of its %d entries are in use.", RELATIONS_MAX),
			 errhint("End long transactions, or raise neon_comm.local_index_chunks (needs a restart).")));
}

LWLock *
nc_local_lock_file(const NcRelKey *rel, LWLockMode mode)
{
	RelKey		key = rel_key(rel);
	LWLock	   *lock = &file_locks[nc_table_hash(&relations, &key) % LOCAL_PARTITIONS].lock;

	LWLockAcquire(lock, mode);
	return lock;
}

bool
nc_local_is_scrubbed(const NcRelKey *rel)
{
	RelKey		key = rel_key(rel);
	uint32		hash;
	LWLock	   *lock = lock_relation(&key, LW_SHARED, &hash);
	RelState   *state = nc_table_find(&relations, &key, hash);
	bool		scrubbed = state != NULL && state->scrubbed;

	LWLockRelease(lock);
	return scrubbed;
}

void
nc_local_set_scrubbed(const NcRelKey *rel)
{
	RelKey		key = rel_key(rel);
	uint32		hash;
	LWLock	   *lock = lock_relation(&key, LW_EXCLUSIVE, &hash);
	RelState   *state = nc_table_find(&relations, &key, hash);

	/* without an entry it is scrubbed again when it is used: nothing else is lost */
	if (state != NULL)
		state->scrubbed = true;
	LWLockRelease(lock);
}

void
nc_local_set_absent(const NcRelKey *rel, ForkNumber fork)
{
	RelKey		key = rel_key(rel);
	uint32		hash;
	LWLock	   *lock = lock_relation(&key, LW_EXCLUSIVE, &hash);
	RelState   *state = nc_table_find(&relations, &key, hash);

	/* who has no entry asks again */
	if (state != NULL)
		state->absent |= (uint8) (1 << fork);
	LWLockRelease(lock);
}

StaticAssertDecl(NC_FORK_CHANGES == LOCAL_PARTITIONS, "a count for each file lock");

static _Atomic uint32_t *
changes_of(const NcRelKey *rel)
{
	RelKey		key = rel_key(rel);

	return &nc_shared->fork_changes[nc_table_hash(&relations, &key) % LOCAL_PARTITIONS];
}

uint32
nc_local_changes(const NcRelKey *rel)
{
	return atomic_load(changes_of(rel));
}

void
nc_local_note_change(const NcRelKey *rel)
{
	atomic_fetch_add(changes_of(rel), 1);
}

static void
note_init_fork(const NcRelKey *rel, bool unlogged)
{
	RelKey		key = rel_key(rel);
	uint32		hash;
	LWLock	   *lock = lock_relation(&key, LW_EXCLUSIVE, &hash);
	RelState   *state = enter_relation(&key, hash);

	if (state != NULL)
	{
		state->whole = true;
		state->unlogged = unlogged;
	}
	LWLockRelease(lock);
}

void
nc_local_set_whole(const NcRelKey *rel)
{
	note_init_fork(rel, false);
}

void
nc_local_set_unlogged(const NcRelKey *rel)
{
	note_init_fork(rel, true);

	/*
	 * What was kept while it looked permanent stays in the file.  After the flags:
	 * who keeps a page looks at them again when it has an entry of the index, under
	 * the chunk's lock.
	 */
	nc_local_forget_blocks(rel, 0);
}

void
nc_local_set_building(const NcRelKey *rel, bool building)
{
	RelKey		key = rel_key(rel);
	XLogRecPtr	now = nc_lsn_now();
	FullTransactionId next = ReadNextFullTransactionId();
	uint32		hash;
	LWLock	   *lock = lock_relation(&key, LW_EXCLUSIVE, &hash);
	RelState   *state = nc_table_find(&relations, &key, hash);

	if (state != NULL && building && LocalTransactionIdIsValid(NC_PROC_LXID(MyProc)))
	{
		state->builder = NC_MY_PROC_INDEX() + 1;
		state->build = NC_PROC_LXID(MyProc);
	}
	else if (state != NULL && !building)
	{
		state->builder = 0;
		state->born = now;
		state->born_until = next;
	}
	LWLockRelease(lock);
}

void
nc_local_forget_persistence(const NcRelKey *rel)
{
	RelKey		key = rel_key(rel);
	uint32		hash;
	LWLock	   *lock = lock_relation(&key, LW_EXCLUSIVE, &hash);
	RelState   *state = nc_table_find(&relations, &key, hash);

	if (state != NULL && state->nchunks == 0)
		nc_table_remove(&relations, &key, hash);
	else if (state != NULL)
		state->unlogged = state->whole = false;
	LWLockRelease(lock);
}

/* Notes that a chunk entry came or went. The chunk's lock is held. False when the table is full. */
static bool
count_chunk(const NcLocalKey *chunk, int delta)
{
	RelKey		key = {chunk->spc, chunk->db, chunk->rel};
	uint32		hash;
	LWLock	   *lock = lock_relation(&key, LW_EXCLUSIVE, &hash);
	RelState   *state = enter_relation(&key, hash);

	if (state != NULL)
	{
		state->nchunks += delta;
		if (delta > 0 && chunk->chunk > state->chunk_max)
			state->chunk_max = chunk->chunk;
	}
	LWLockRelease(lock);
	return state != NULL;
}

/* ---- chunks ---- */

static void
lock_chunk(const NcLocalKey *key, LWLockMode mode, NcLocalRef *ref)
{
	ref->key = *key;
	ref->hash = nc_table_hash(&chunks, key);
	ref->lock = &chunk_locks[ref->hash % LOCAL_PARTITIONS].lock;
	LWLockAcquire(ref->lock, mode);
	ref->chunk = nc_table_find(&chunks, key, ref->hash);
}

static NcLocalKey
chunk_key(const NcRelKey *rel, BlockNumber block)
{
	return (NcLocalKey) {rel->spc, rel->db, rel->rel, block / NC_LOCAL_CHUNK_BLOCKS};
}

bool
nc_local_begin_read(const NcRelKey *rel, BlockNumber block, NcLocalRef *ref)
{
	NcLocalKey	key = chunk_key(rel, block);

	ref->bit = UINT64CONST(1) << (block % NC_LOCAL_CHUNK_BLOCKS);
	lock_chunk(&key, LW_SHARED, ref);
	if (ref->chunk != NULL && (ref->chunk->local & ref->bit) != 0)
		return true;
	LWLockRelease(ref->lock);
	return false;
}

NcBlockPlace
nc_local_look(const NcRelKey *rel, BlockNumber block)
{
	NcLocalKey	key = chunk_key(rel, block);
	uint64		bit = UINT64CONST(1) << (block % NC_LOCAL_CHUNK_BLOCKS);
	NcBlockPlace place = NC_BLOCK_REMOTE;
	NcLocalRef	ref;

	lock_chunk(&key, LW_SHARED, &ref);
	if (ref.chunk != NULL && (ref.chunk->local & bit) != 0)
		place = NC_BLOCK_LOCAL;
	else if (ref.chunk != NULL && (ref.chunk->empty & bit) != 0)
		place = NC_BLOCK_EMPTY;
	LWLockRelease(ref.lock);
	return place;
}

void
nc_local_begin_change(const NcRelKey *rel, BlockNumber block, NcLocalRef *ref)
{
	NcLocalKey	key = chunk_key(rel, block);

	ref->bit = UINT64CONST(1) << (block % NC_LOCAL_CHUNK_BLOCKS);
	lock_chunk(&key, LW_EXCLUSIVE, ref);
}

void
nc_local_begin_change_key(const NcLocalKey *key, NcLocalRef *ref)
{
	ref->bit = 0;
	lock_chunk(key, LW_EXCLUSIVE, ref);
}

void
nc_local_end(NcLocalRef *ref)
{
	LWLockRelease(ref->lock);
}

void
nc_local_fail_full(NcLocalRef *ref)
{
	LWLockRelease(ref->lock);
	ereport(ERROR,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("the index of local blocks is full"),
			 errdetail("%ld of its %d entries of %d blocks are in use.", nc_local_chunks_used(),
					   nc_guc_local_chunks, NC_LOCAL_CHUNK_BLOCKS),
			 errhint("End long transactions and wait for the sweeper, or raise neon_comm.local_index_chunks (needs a restart).")));
}

bool
nc_local_try_ensure(NcLocalRef *ref)
{
	if (ref->chunk != NULL)
		return true;
	if (!count_chunk(&ref->key, +1))
	{
		evict_relations();
		if (!count_chunk(&ref->key, +1))
			return false;
	}
	ref->chunk = nc_table_enter(&chunks, &ref->key, ref->hash);
	if (ref->chunk == NULL)
	{
		count_chunk(&ref->key, -1);
		return false;
	}
	return true;
}

static void
clear_bits(NcLocalChunk *chunk, uint64 bits)
{
	chunk->local &= ~bits;
	chunk->sequence &= ~bits;
	chunk->low_lsn &= ~bits;
	chunk->command_id &= ~bits;
	chunk->cycle_id &= ~bits;
	chunk->unverified &= ~bits;
	chunk->empty &= ~bits;
}

void
nc_local_mark(NcLocalRef *ref, NcKeep why, FullTransactionId keep_until)
{
	NcLocalChunk *chunk = ref->chunk;

	clear_bits(chunk, ref->bit);
	chunk->local |= ref->bit;
	switch (why)
	{
		case NC_KEEP_NOT:
			Assert(false);
			break;
		case NC_KEEP_LOW_LSN:
			chunk->low_lsn |= ref->bit;
			break;
		case NC_KEEP_SEQUENCE:
			chunk->sequence |= ref->bit;
			break;
		case NC_KEEP_COMMAND_ID:
			chunk->command_id |= ref->bit;
			break;
		case NC_KEEP_CYCLE_ID:
			chunk->cycle_id |= ref->bit;
			break;
	}
	if (FullTransactionIdPrecedes(chunk->keep_until, keep_until))
		chunk->keep_until = keep_until;
}

static void
drop_if_empty(NcLocalRef *ref)
{
	if (ref->chunk == NULL || (ref->chunk->local | ref->chunk->empty) != 0)
		return;
	nc_table_remove(&chunks, &ref->key, ref->hash);
	ref->chunk = NULL;
	count_chunk(&ref->key, -1);
}

void
nc_local_clear(NcLocalRef *ref)
{
	if (ref->chunk == NULL)
		return;
	clear_bits(ref->chunk, ref->bit);
	drop_if_empty(ref);
}

/* There are marks of this relation that the index does not know. */
static void
note_unknown_marks(const NcLocalKey *chunk)
{
	RelKey		key = {chunk->spc, chunk->db, chunk->rel};
	uint32		hash;
	LWLock	   *lock = lock_relation(&key, LW_EXCLUSIVE, &hash);
	RelState   *state = enter_relation(&key, hash);

	if (state != NULL)
		state->marks = true;
	LWLockRelease(lock);
}

void
nc_local_note_empty(NcLocalRef *ref, uint64 bits)
{
	/* half of the index is for what must be in it */
	if (ref->chunk == NULL &&
		(nc_local_chunks_used() >= nc_guc_local_chunks / 2 || !nc_local_try_ensure(ref)))
	{
		note_unknown_marks(&ref->key);
		return;
	}
	clear_bits(ref->chunk, bits);
	ref->chunk->empty |= bits;
}

void
nc_local_forget_blocks(const NcRelKey *rel, BlockNumber from)
{
	RelKey		key = rel_key(rel);
	uint32		hash;
	LWLock	   *lock = lock_relation(&key, LW_SHARED, &hash);
	RelState   *state = nc_table_find(&relations, &key, hash);
	bool		any = state != NULL && state->nchunks > 0;
	uint32		last = any ? state->chunk_max : 0;

	LWLockRelease(lock);
	if (!any)
		return;
	for (uint32 c = from / NC_LOCAL_CHUNK_BLOCKS; c <= last; c++)
	{
		NcLocalRef	ref;
		NcLocalKey	ckey = {rel->spc, rel->db, rel->rel, c};
		uint32		keep = c == from / NC_LOCAL_CHUNK_BLOCKS ? from % NC_LOCAL_CHUNK_BLOCKS : 0;

		nc_local_begin_change_key(&ckey, &ref);
		if (ref.chunk != NULL)
		{
			clear_bits(ref.chunk, ~((UINT64CONST(1) << keep) - 1));
			drop_if_empty(&ref);
		}
		nc_local_end(&ref);
	}
}

NcLocalChunk *
nc_local_collect(bool (*want) (const NcLocalChunk *c, void *arg), void *arg, int *n)
{
	int			room = 1024;
	NcLocalChunk *found = palloc(room * sizeof(NcLocalChunk));
	uint32		at = 0;
	NcLocalChunk *chunk;

	*n = 0;
	for (int i = 0; i < LOCAL_PARTITIONS; i++)
		LWLockAcquire(&chunk_locks[i].lock, LW_SHARED);
	while ((chunk = nc_table_next(&chunks, &at)) != NULL)
	{
		if (!want(chunk, arg))
			continue;
		if (*n == room)
		{
			room *= 2;
			found = repalloc_huge(found, room * sizeof(NcLocalChunk));
		}
		found[(*n)++] = *chunk;
	}
	for (int i = LOCAL_PARTITIONS - 1; i >= 0; i--)
		LWLockRelease(&chunk_locks[i].lock);
	return found;
}

static bool
of_database(const NcLocalChunk *c, void *arg)
{
	return c->key.db == *(Oid *) arg;
}

/* Is the directory that holds this relation's files still there? */
static bool
directory_exists(Oid db, Oid spc)
{
	char	   *path = GetDatabasePath(db, spc);
	bool		exists = access(path, F_OK) == 0;

	pfree(path);
	return exists;
}

static void
forget_relations_of(Oid db)
{
	uint32		at = 0;
	RelState   *state;

	for (int i = 0; i < LOCAL_PARTITIONS; i++)
		LWLockAcquire(&relation_locks[i].lock, LW_EXCLUSIVE);
	while ((state = nc_table_next(&relations, &at)) != NULL)
		if (state->key.db == db && state->nchunks == 0)
			nc_table_remove(&relations, &state->key, nc_table_hash(&relations, &state->key));
	for (int i = LOCAL_PARTITIONS - 1; i >= 0; i--)
		LWLockRelease(&relation_locks[i].lock);
}

void
nc_local_forget_database(Oid db)
{
	int			n;
	NcLocalChunk *gone = nc_local_collect(of_database, &db, &n);

	for (int i = 0; i < n; i++)
	{
		NcLocalRef	ref;

		if (directory_exists(gone[i].key.db, gone[i].key.spc))
			continue;
		nc_local_begin_change_key(&gone[i].key, &ref);
		if (ref.chunk != NULL)
		{
			clear_bits(ref.chunk, ~UINT64CONST(0));
			drop_if_empty(&ref);
		}
		nc_local_end(&ref);
	}
	pfree(gone);
	forget_relations_of(db);
}
