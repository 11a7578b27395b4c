/*
 * table.c
 *	  A hash table of fixed size that zeroed shared memory is, empty.
 *
 * The server's own puts every entry on a list of free ones when it is made, and so
 * touches all of its memory: for the index of local blocks 13 MB at each start, a
 * quarter of the time that a start took.  Here entries that were never used are those
 * behind a counter, and only removed ones are on a list.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "port/atomics.h"
#include "port/pg_bitutils.h"
#include "storage/shmem.h"
#include "storage/spin.h"

#include "nc/smgr/table.h"

typedef struct NcTableShared
{
	slock_t		lock;			/* of ever_used and free */
	uint32		ever_used;		/* entries behind these were never used */
	uint32		free;			/* the first removed entry + 1; 0 for none */
	pg_atomic_uint32 count;
} NcTableShared;

/* Stands before each entry. */
typedef struct Link
{
	uint32		next;			/* of the bucket or of the free ones: number + 1; 0 for none */
	uint32		live;
} Link;

static uint32
table_bucket_count(uint32 capacity)
{
	return pg_nextpower2_32(Max(capacity, NC_TABLE_PARTITIONS));
}

static Size
link_bytes(Size entry_bytes)
{
	return MAXALIGN(sizeof(Link) + entry_bytes);
}

Size
nc_table_shmem_bytes(uint32 capacity, Size entry_bytes)
{
	Size		bytes = add_size(MAXALIGN(sizeof(NcTableShared)),
								 mul_size(table_bucket_count(capacity), sizeof(uint32)));

	return add_size(bytes, mul_size(capacity, link_bytes(entry_bytes)));
}

void
nc_table_shmem_startup(NcTable *table, const char *name, uint32 capacity, Size key_bytes,
					   Size entry_bytes)
{
	bool		found;
	char	   *memory = ShmemInitStruct(name, nc_table_shmem_bytes(capacity, entry_bytes), &found);

	table->shared = (NcTableShared *) memory;
	table->buckets = (uint32 *) (memory + MAXALIGN(sizeof(NcTableShared)));
	table->entries = (char *) (table->buckets + table_bucket_count(capacity));
	table->bucket_mask = table_bucket_count(capacity) - 1;
	table->capacity = capacity;
	table->key_bytes = key_bytes;
	table->entry_bytes = link_bytes(entry_bytes);
	if (found)
		return;
	SpinLockInit(&table->shared->lock);
	pg_atomic_init_u32(&table->shared->count, 0);
}

uint32
nc_table_hash(const NcTable *table, const void *key)
{
	return hash_bytes(key, (int) table->key_bytes);
}

static Link *
link_at(const NcTable *table, uint32 number)
{
	return (Link *) (table->entries + (Size) number * table->entry_bytes);
}

/* Where the number of this key's entry stands: in the bucket, or in the entry before it. */
static uint32 *
find_place(const NcTable *table, const void *key, uint32 hash)
{
	uint32	   *place = &table->buckets[hash & table->bucket_mask];

	while (*place != 0)
	{
		Link	   *link = link_at(table, *place - 1);

		if (memcmp(link + 1, key, table->key_bytes) == 0)
			break;
		place = &link->next;
	}
	return place;
}

void *
nc_table_find(const NcTable *table, const void *key, uint32 hash)
{
	uint32	   *place = find_place(table, key, hash);

	return *place == 0 ? NULL : link_at(table, *place - 1) + 1;
}

/* Number + 1 of an entry that nobody uses; 0 when there is none. */
static uint32
take_free(const NcTable *table)
{
	NcTableShared *shared = table->shared;
	uint32		taken = 0;

	SpinLockAcquire(&shared->lock);
	if (shared->free != 0)
	{
		taken = shared->free;
		shared->free = link_at(table, taken - 1)->next;
	}
	else if (shared->ever_used < table->capacity)
		taken = ++shared->ever_used;
	SpinLockRelease(&shared->lock);
	return taken;
}

void *
nc_table_enter(const NcTable *table, const void *key, uint32 hash)
{
	uint32	   *place = find_place(table, key, hash);
	Link	   *link;
	uint32		taken;

	if (*place != 0)
		return link_at(table, *place - 1) + 1;
	taken = take_free(table);
	if (taken == 0)
		return NULL;
	link = link_at(table, taken - 1);
	memset(link, 0, table->entry_bytes);
	memcpy(link + 1, key, table->key_bytes);
	link->live = 1;
	*place = taken;
	pg_atomic_fetch_add_u32(&table->shared->count, 1);
	return link + 1;
}

void
nc_table_remove(const NcTable *table, const void *key, uint32 hash)
{
	NcTableShared *shared = table->shared;
	uint32	   *place = find_place(table, key, hash);
	uint32		number = *place;
	Link	   *link;

	if (number == 0)
		return;
	link = link_at(table, number - 1);
	*place = link->next;
	link->live = 0;
	SpinLockAcquire(&shared->lock);
	link->next = shared->free;
	shared->free = number;
	SpinLockRelease(&shared->lock);
	pg_atomic_fetch_sub_u32(&shared->count, 1);
}

void *
nc_table_next(const NcTable *table, uint32 *at)
{
	while (*at < table->shared->ever_used)
	{
		Link	   *link = link_at(table, (*at)++);

		if (link->live != 0)
			return link + 1;
	}
	return NULL;
}

uint32
nc_table_count(const NcTable *table)
{
	return pg_atomic_read_u32(&table->shared->count);
}
