/*
 * lwlsn_map.c
 *	  Set-associative map of last-written LSNs that forgets upwards.
 */
#include "nc/cache/lwlsn_map.h"

#include <stddef.h>

static uint32_t
lw_bucket_count(uint32_t nentries)
{
	uint32_t	n = (nentries + NC_LW_BUCKET_ENTRIES - 1) / NC_LW_BUCKET_ENTRIES;

	return n > 0 ? n : 1;
}

size_t
nc_lw_map_bytes(uint32_t nentries)
{
	return sizeof(NcLwMap) +
		(size_t) lw_bucket_count(nentries) * NC_LW_BUCKET_ENTRIES * sizeof(NcLwEntry);
}

void
nc_lw_map_init(NcLwMap *map, uint32_t nentries)
{
	map->nbuckets = lw_bucket_count(nentries);
}

uint32_t
nc_lw_map_bucket(const NcLwMap *map, const NcPageKey *key)
{
	return nc_page_key_hash(key) % map->nbuckets;
}

static NcLwEntry *
find_in_bucket(NcLwEntry *bucket, const NcPageKey *key)
{
	for (int i = 0; i < NC_LW_BUCKET_ENTRIES; i++)
		if (bucket[i].used && nc_page_key_equal(&bucket[i].key, key))
			return &bucket[i];
	return NULL;
}

/* A free place, or that of the entry whose loss raises the floor least. */
static NcLwEntry *
victim(NcLwEntry *bucket)
{
	NcLwEntry  *lowest = &bucket[0];

	for (int i = 0; i < NC_LW_BUCKET_ENTRIES; i++)
	{
		if (!bucket[i].used)
			return &bucket[i];
		if (bucket[i].nms < lowest->nms)
			lowest = &bucket[i];
	}
	return lowest;
}

void
nc_lw_map_set(NcLwMap *map, const NcPageKey *key, NcLsn nms, NcLsn exact)
{
	NcLwEntry  *bucket = &map->entries[(size_t) nc_lw_map_bucket(map, key) * NC_LW_BUCKET_ENTRIES];
	NcLwEntry  *e = find_in_bucket(bucket, key);

	if (e == NULL)
	{
		e = victim(bucket);
		/* before the entry goes, and under the lock: who does not find it finds the floor raised */
		if (e->used)
			nc_lw_raise(&map->floor, e->nms);
		if (e->used && e->key.block == NC_LW_RELATION)
			nc_lw_raise(&map->rel_floor, e->nms);
		e->used = 1;
		e->key = *key;
		e->nms = 0;
	}
	/* a bound from above may only rise; exact is what the page has now, whatever it had */
	if (nms > e->nms)
		e->nms = nms;
	e->exact = exact;
}

void
nc_lw_map_forget_database(NcLwMap *map, uint32_t bucket, uint32_t db)
{
	NcLwEntry  *e = &map->entries[(size_t) bucket * NC_LW_BUCKET_ENTRIES];

	for (int i = 0; i < NC_LW_BUCKET_ENTRIES; i++)
		if (e[i].used && e[i].key.rel.db == db)
			e[i].exact = 0;
}

bool
nc_lw_map_get(const NcLwMap *map, const NcPageKey *key, NcLsn *nms, NcLsn *exact)
{
	const NcLwEntry *bucket =
		&map->entries[(size_t) nc_lw_map_bucket(map, key) * NC_LW_BUCKET_ENTRIES];

	for (int i = 0; i < NC_LW_BUCKET_ENTRIES; i++)
	{
		if (bucket[i].used && nc_page_key_equal(&bucket[i].key, key))
		{
			*nms = bucket[i].nms;
			*exact = bucket[i].exact;
			return true;
		}
	}
	return false;
}

void
nc_lw_map_fetch(const NcLwMap *map, const NcPageKey *key)
{
	const char *bucket =
		(const char *) &map->entries[(size_t) nc_lw_map_bucket(map, key) * NC_LW_BUCKET_ENTRIES];

	for (size_t at = 0; at < NC_LW_BUCKET_ENTRIES * sizeof(NcLwEntry); at += NC_CACHE_LINE_BYTES)
		__builtin_prefetch(bucket + at);
}

void
nc_lw_raise(_Atomic uint64_t *floor, NcLsn lsn)
{
	uint64_t	seen = atomic_load_explicit(floor, memory_order_relaxed);

	/* pairs with the loads in nc_lw_combine(); who loses looks again at the winner's value */
	while (seen < lsn && !atomic_compare_exchange_weak(floor, &seen, lsn))
		;
}

static NcLsn
max_lsn(NcLsn a, NcLsn b)
{
	return a > b ? a : b;
}

void
nc_lw_combine(const NcLwMap *map, bool page_found, NcLsn page_nms, NcLsn page_exact,
			  bool rel_found, NcLsn rel_nms, NcLsn *nms, NcLsn *exact)
{
	/*
	 * Behind both lookups, never before: an entry may have given way between, and then the
	 * floor that stands for it was raised before its bucket's lock was let go.
	 */
	NcLsn		floor = atomic_load(&map->floor);
	NcLsn		hard = atomic_load(&map->hard_floor);
	NcLsn		rel = max_lsn(rel_found ? rel_nms : floor, hard);
	NcLsn		rel_changed = rel_found ? rel_nms : atomic_load(&map->rel_floor);

	*nms = max_lsn(page_found ? page_nms : floor, rel);
	*exact = page_found && page_exact > rel_changed ? page_exact : 0;
}
