/*
 * nc/smgr/table.h
 *	  A hash table of fixed size in shared memory that is empty when its memory is
 *	  all zeroes: making it touches one page, whatever its size, so that a start
 *	  does not pay for room that is not used yet.
 *
 * Partitioned like the server's: keys with the same hash modulo NC_TABLE_PARTITIONS
 * are under one lock, which is the caller's.  Finding needs it shared, entering and
 * removing exclusive, nc_table_next() all of them at least shared.
 */
#ifndef NC_SMGR_TABLE_H
#define NC_SMGR_TABLE_H

#include "nc/compat/pg.h"

#define NC_TABLE_PARTITIONS 128

struct NcTableShared;

/* Of this process: where the table is. */
typedef struct NcTable
{
	struct NcTableShared *shared;
	uint32	   *buckets;		/* number of an entry + 1; 0 for none */
	char	   *entries;
	uint32		bucket_mask;
	uint32		capacity;
	Size		key_bytes;
	Size		entry_bytes;	/* with what stands before it */
} NcTable;

/* What a table of so many entries takes; entry_bytes includes the key, which comes first. */
extern Size nc_table_shmem_bytes(uint32 capacity, Size entry_bytes);

/* In the postmaster, in fresh shared memory, which is zero. */
extern void nc_table_shmem_startup(NcTable *table, const char *name, uint32 capacity,
								   Size key_bytes, Size entry_bytes);

extern uint32 nc_table_hash(const NcTable *table, const void *key);
extern void *nc_table_find(const NcTable *table, const void *key, uint32 hash);

/* The entry, a new one with a zeroed rest when it is missing; NULL when the table is full. */
extern void *nc_table_enter(const NcTable *table, const void *key, uint32 hash);

/* Nothing happens when there is no such entry. */
extern void nc_table_remove(const NcTable *table, const void *key, uint32 hash);

/* The next entry from *at on, which begins at 0; NULL after the last. The one returned may be removed. */
extern void *nc_table_next(const NcTable *table, uint32 *at);

/* Entries now; without any lock. */
extern uint32 nc_table_count(const NcTable *table);

#endif							/* NC_SMGR_TABLE_H */
