/*
 * lfc_index.c
 *	  The index of the local file cache: lookups, pages that come and go, the size
 *	  limit, lists.  The rules are in nc/cache/lfc_index.h, the reasons in
 *	  docs/lfc.md.
 *
 * Runs in every process of the compute.  Guarantees that a page is found only in
 * the version last put, and that nobody waits for I/O, nor for long for a lock:
 * its holder may have been stopped.  Trusts nobody's file:
 * what is read from it is compared with the checksum kept here.
 */
#include "lfc_int.h"

#include <string.h>

/* Fewer outbox pages would be full before a wake reaches the writer. */
#define OUTBOX_MIN 64

/* One outbox page for so many blocks: a tenth of a percent. */
#define OUTBOX_SHARE 1024

/* ---- sizes ---- */

/* As many as there can be without leaving out more than 1/32 of the sets. */
static uint32_t
lanes_for(uint32_t nsets)
{
	uint32_t	lanes = NC_LFC_LANES_MAX;

	while (nsets % lanes * 32 > nsets || nsets < lanes)
		lanes /= 2;
	return lanes;
}

uint32_t
nc_lfc_sets(uint64_t blocks)
{
	uint64_t	most = UINT32_MAX / NC_LFC_WAYS;
	uint64_t	n = blocks / NC_LFC_WAYS;
	uint32_t	nsets = n == 0 ? 1 : (uint32_t) (n > most ? most : n);

	return nsets - nsets % lanes_for(nsets);
}

uint32_t
nc_lfc_outbox_pages(uint64_t blocks)
{
	uint64_t	n = blocks / OUTBOX_SHARE;

	return n < OUTBOX_MIN ? OUTBOX_MIN : n > NC_LFC_OUTBOX_MAX ? NC_LFC_OUTBOX_MAX : (uint32_t) n;
}

size_t
nc_lfc_bytes(uint32_t nsets, uint32_t noutbox)
{
	return sizeof(NcLfc) + (size_t) nsets * sizeof(NcLfcSet) + (size_t) noutbox * NC_PAGE_BYTES;
}

void
nc_lfc_init(NcLfc *c, uint32_t nsets, uint32_t noutbox)
{
	NC_ASSERT(nsets > 0 && nsets % lanes_for(nsets) == 0 && noutbox > 0 && noutbox <= NC_LFC_OUTBOX_MAX);
	memset(c, 0, sizeof(NcLfc) + (size_t) nsets * sizeof(NcLfcSet));
	c->nsets = nsets;
	c->lanes = lanes_for(nsets);
	c->noutbox = noutbox;
	atomic_init(&c->shape, NC_LFC_WAYS);
	for (uint32_t s = 0; s < nsets; s++)
	{
		c->sets[s].small = (NcLfcQueue) {NC_LFC_NONE, NC_LFC_NONE, 0};
		c->sets[s].main = (NcLfcQueue) {NC_LFC_NONE, NC_LFC_NONE, 0};
	}
	/* bits beyond the last outbox page are never free */
	for (uint32_t i = noutbox; i < NC_LFC_OUTBOX_MAX; i++)
		c->taken[i / 64] |= UINT64_C(1) << i % 64;
}

uint32_t
nc_lfc_nsets(const NcLfc *c)
{
	return c->nsets;
}

uint32_t
nc_lfc_lanes(const NcLfc *c)
{
	return c->lanes;
}

uint64_t
nc_lfc_used(const NcLfc *c)
{
	return atomic_load_explicit(&c->used, memory_order_relaxed);
}

uint32_t
nc_lfc_outbox_used(const NcLfc *c)
{
	return atomic_load_explicit(&c->outbox_used, memory_order_relaxed);
}

uint32_t
nc_lfc_given_up(const NcLfc *c)
{
	return atomic_load_explicit(&c->given_up, memory_order_relaxed);
}

bool
nc_lfc_urgent(const NcLfc *c)
{
	return nc_lfc_outbox_used(c) * 2 >= c->noutbox;
}

uint64_t
nc_lfc_limit(const NcLfc *c)
{
	uint32_t	shape = nc_lfc_shape(c);

	return (uint64_t) nc_lfc_shape_sets(c, shape) * nc_lfc_shape_ways(shape);
}

NcLfcFile
nc_lfc_file(const NcLfc *c)
{
	uint32_t	shape = nc_lfc_shape(c);
	uint32_t	ways = nc_lfc_shape_ways(shape);

	return (NcLfcFile) {.stretches = ways == 0 ? 0 : nc_lfc_shape_sets(c, shape) / c->lanes,
		.blocks = NC_LFC_WAYS * c->lanes, .used = ways * c->lanes};
}

/* Acquire pairs with nc_lfc_switch(): who sees it on sees which file it is. */
bool
nc_lfc_is_on(const NcLfc *c)
{
	return atomic_load_explicit(&c->on, memory_order_acquire) != 0;
}

/* ---- lookups ---- */

NcLfcFound
nc_lfc_find(NcLfc *c, const NcPageKey *key, uint8_t *page, NcLfcRef *ref)
{
	uint64_t	hash = nc_lfc_hash(key);
	NcLfcSet   *set;
	NcLfcFound	found = NC_LFC_MISS;
	uint8_t		w;

	if (!nc_lfc_is_on(c))
		return NC_LFC_MISS;
	set = nc_lfc_lock_home(c, hash, NC_LFC_PATIENCE_LOOK);
	if (set == NULL)
		return NC_LFC_MISS;
	w = nc_lfc_find_way(set, key, nc_lfc_tag(hash));
	if (w != NC_LFC_NONE)
	{
		NcLfcEntry *e = &set->entries[w];

		*ref = nc_lfc_ref(c, set, w);
		if (nc_lfc_state(ref->word) == NC_LFC_VALID)
			found = NC_LFC_ON_DISK;
		else if (nc_lfc_state(ref->word) == NC_LFC_OUTBOX)
		{
			memcpy(page, nc_lfc_outbox_page(c, e->box), NC_PAGE_BYTES);
			found = NC_LFC_COPIED;
		}
		if (found != NC_LFC_MISS && e->uses < NC_LFC_USES_MAX)
			e->uses++;
	}
	nc_lfc_unlock(set);
	return found;
}

/* Notes the page at this place, if it is the one of this key, and can be read from the file. */
static bool
find_at(NcLfc *c, const NcPageKey *key, uint32_t place, NcLfcRef *ref)
{
	uint8_t		w;
	NcLfcSet   *set = nc_lfc_set_of_place(c, place, &w);
	NcLfcEntry *e = &set->entries[w];
	bool		found;

	if (!nc_lfc_lock(c, set, NC_LFC_PATIENCE_NONE))
		return false;
	/* as nc_lfc_lock_home(): a page that belongs elsewhere by now may have a newer version there */
	found = nc_lfc_state(nc_lfc_word(e)) == NC_LFC_VALID && nc_lfc_entry_is_page(e, key) &&
		nc_lfc_home(c, nc_lfc_hash(key), nc_lfc_shape(c)) == set;
	if (found)
	{
		*ref = nc_lfc_ref(c, set, w);
		if (e->uses < NC_LFC_USES_MAX)
			e->uses++;
	}
	nc_lfc_unlock(set);
	return found;
}

uint32_t
nc_lfc_find_behind(NcLfc *c, const NcPageKey *key, const NcLfcRef *ref, uint32_t most,
				   NcLfcRef *refs)
{
	uint32_t	rest = c->lanes - 1 - ref->place % c->lanes;
	uint32_t	n = 0;

	if (most > rest)
		most = rest;
	/* each is two lines of memory that no CPU may have: they come all at once */
	for (uint32_t i = 1; i <= most; i++)
	{
		uint8_t		w;
		NcLfcSet   *set = nc_lfc_set_of_place(c, ref->place + i, &w);

		__builtin_prefetch(set, 1);
		__builtin_prefetch(&set->entries[w], 1);
	}
	for (; n < most; n++)
	{
		NcPageKey	next = {key->rel, key->block + n + 1};

		if (!find_at(c, &next, ref->place + n + 1, &refs[n]))
			break;
	}
	return n;
}

bool
nc_lfc_still(NcLfc *c, const NcLfcRef *ref)
{
	uint8_t		w;
	NcLfcSet   *set = nc_lfc_set_of_place(c, ref->place, &w);

	/*
	 * Behind the read of the file.  Pairs with nc_lfc_set_state(): a place changes its
	 * version before the writer can get what is to be written there, so whoever has read
	 * any byte of that finds the version changed.  A set that is void may have a change
	 * in it that no version tells.
	 */
	atomic_thread_fence(memory_order_seq_cst);
	return atomic_load_explicit(&set->entries[w].word, memory_order_seq_cst) == ref->word &&
		atomic_load_explicit(&set->voided, memory_order_seq_cst) == 0;
}

bool
nc_lfc_has(NcLfc *c, const NcPageKey *key)
{
	uint64_t	hash = nc_lfc_hash(key);
	NcLfcSet   *set = nc_lfc_lock_home(c, hash, NC_LFC_PATIENCE_LOOK);
	bool		has;

	if (set == NULL)
		return false;
	has = nc_lfc_find_way(set, key, nc_lfc_tag(hash)) != NC_LFC_NONE;
	nc_lfc_unlock(set);
	return has;
}

/* ---- bringing pages ---- */

NcLfcPut
nc_lfc_put(NcLfc *c, const NcPageKey *key, const uint8_t *page, NcLfcNote *note)
{
	uint64_t	hash = nc_lfc_hash(key);
	NcLfcSet   *set;
	int			box = nc_lfc_is_on(c) ? nc_lfc_outbox_take(c) : -1;
	NcLfcPut	done = NC_LFC_PUT_DROPPED;
	NcLfcRef	ref;
	uint32_t	sum;
	uint8_t		w;

	*note = (NcLfcNote) {.urgent = nc_lfc_urgent(c)};
	/* not cached is fine, an older version is not: whatever the reason, that must go */
	if (box < 0)
	{
		(void) nc_lfc_forget(c, key);
		return nc_lfc_is_on(c) ? NC_LFC_PUT_DROPPED : NC_LFC_PUT_OFF;
	}
	/* the sum is of the copy: the caller's page may be a shared buffer whose hint bits change */
	memcpy(nc_lfc_outbox_page(c, (uint32_t) box), page, NC_PAGE_BYTES);
	sum = nc_lfc_sum(key, nc_lfc_outbox_page(c, (uint32_t) box));

	set = nc_lfc_lock_home(c, hash, NC_LFC_PATIENCE_CHANGE);
	if (set == NULL)
	{
		nc_lfc_void_home(c, hash);
		nc_lfc_outbox_free(c, (uint32_t) box);
		return NC_LFC_PUT_DROPPED;
	}
	w = nc_lfc_find_way(set, key, nc_lfc_tag(hash));
	if (!nc_lfc_is_on(c))
	{
		/* switched off meanwhile, which has emptied this set or will */
		if (w != NC_LFC_NONE)
			nc_lfc_remove(c, set, w);
		w = NC_LFC_NONE;
		done = NC_LFC_PUT_OFF;
	}
	else if (w != NC_LFC_NONE)
		done = NC_LFC_PUT_REPLACED;
	else
	{
		w = nc_lfc_enter(c, set, key, nc_lfc_tag(hash), &note->evicted);
		if (w != NC_LFC_NONE)
			done = NC_LFC_PUT_NEW;
	}
	if (w != NC_LFC_NONE)
	{
		nc_lfc_outbox_point(&set->entries[w], (uint32_t) box, sum);
		ref = nc_lfc_ref(c, set, w);
	}
	nc_lfc_unlock(set);

	/* if the place was changed again since the lock was let go, the writer finds that out */
	if (w != NC_LFC_NONE)
		nc_lfc_outbox_post(c, (uint32_t) box, &ref);
	else
		nc_lfc_outbox_free(c, (uint32_t) box);
	return done;
}

bool
nc_lfc_reserve(NcLfc *c, const NcPageKey *key, NcLfcRef *ref)
{
	uint64_t	hash = nc_lfc_hash(key);
	NcLfcSet   *set = nc_lfc_lock_home(c, hash, NC_LFC_PATIENCE_LOOK);
	uint8_t		w = NC_LFC_NONE;

	if (set == NULL)
		return false;
	if (nc_lfc_is_on(c) && nc_lfc_find_way(set, key, nc_lfc_tag(hash)) == NC_LFC_NONE)
		w = nc_lfc_enter(c, set, key, nc_lfc_tag(hash), NULL);
	if (w != NC_LFC_NONE)
	{
		nc_lfc_set_state(&set->entries[w], NC_LFC_RESERVED);
		*ref = nc_lfc_ref(c, set, w);
	}
	nc_lfc_unlock(set);
	return w != NC_LFC_NONE;
}

bool
nc_lfc_fill(NcLfc *c, const NcPageKey *key, const NcLfcRef *ref, const uint8_t *page)
{
	uint8_t		w;
	NcLfcSet   *set = nc_lfc_set_of_place(c, ref->place, &w);
	int			box = nc_lfc_outbox_take(c);
	NcLfcRef	now;
	uint32_t	sum;
	bool		stands;

	if (box < 0)
	{
		nc_lfc_discard(c, ref);
		return false;
	}
	memcpy(nc_lfc_outbox_page(c, (uint32_t) box), page, NC_PAGE_BYTES);
	sum = nc_lfc_sum(key, nc_lfc_outbox_page(c, (uint32_t) box));
	if (!nc_lfc_lock(c, set, NC_LFC_PATIENCE_CHANGE))
	{
		/* or the reservation would stay for ever */
		nc_lfc_void(set);
		nc_lfc_outbox_free(c, (uint32_t) box);
		return false;
	}
	/* the version names the reservation: no other life of the place has the same */
	stands = nc_lfc_word(&set->entries[w]) == ref->word;
	if (stands)
	{
		nc_lfc_outbox_point(&set->entries[w], (uint32_t) box, sum);
		now = nc_lfc_ref(c, set, w);
	}
	nc_lfc_unlock(set);
	if (stands)
		nc_lfc_outbox_post(c, (uint32_t) box, &now);
	else
		nc_lfc_outbox_free(c, (uint32_t) box);
	return stands;
}

void
nc_lfc_discard(NcLfc *c, const NcLfcRef *ref)
{
	uint8_t		w;
	NcLfcSet   *set = nc_lfc_set_of_place(c, ref->place, &w);

	if (!nc_lfc_lock(c, set, NC_LFC_PATIENCE_CHANGE))
	{
		nc_lfc_void(set);
		return;
	}
	if (nc_lfc_word(&set->entries[w]) == ref->word)
		nc_lfc_remove(c, set, w);
	nc_lfc_unlock(set);
}

/* ---- forgetting ---- */

uint64_t
nc_lfc_forget(NcLfc *c, const NcPageKey *key)
{
	uint64_t	hash = nc_lfc_hash(key);
	NcLfcSet   *set = nc_lfc_lock_home(c, hash, NC_LFC_PATIENCE_CHANGE);
	uint8_t		w;

	if (set == NULL)
	{
		nc_lfc_void_home(c, hash);
		return 0;
	}
	w = nc_lfc_find_way(set, key, nc_lfc_tag(hash));
	if (w != NC_LFC_NONE)
		nc_lfc_remove(c, set, w);
	nc_lfc_unlock(set);
	return w != NC_LFC_NONE;
}

typedef struct Which
{
	const NcRelKey *rel;		/* NULL: any relation */
	uint32_t	from;
	uint32_t	end;
	uint32_t	db;				/* with rel NULL and some = true: of this database */
	bool		some;			/* false: everything */
} Which;

static bool
entry_is_wanted(const NcLfcEntry *e, const Which *which)
{
	if (which->rel != NULL)
		return e->rel == which->rel->rel && e->db == which->rel->db && e->spc == which->rel->spc &&
			e->block >= which->from && e->block < which->end;
	return !which->some || e->db == which->db;
}

/* Looks at every entry, set by set. */
static uint64_t
forget_scan(NcLfc *c, const Which *which)
{
	uint64_t	n = 0;

	for (uint32_t s = 0; s < c->nsets; s++)
	{
		NcLfcSet   *set = &c->sets[s];

		if (!nc_lfc_lock(c, set, NC_LFC_PATIENCE_CHANGE))
		{
			nc_lfc_void(set);
			continue;
		}
		for (uint32_t w = 0; w < NC_LFC_WAYS; w++)
		{
			if (set->tags[w] != 0 && entry_is_wanted(&set->entries[w], which))
			{
				nc_lfc_remove(c, set, (uint8_t) w);
				n++;
			}
		}
		nc_lfc_unlock(set);
	}
	return n;
}

uint64_t
nc_lfc_forget_range(NcLfc *c, const NcRelKey *rel, uint32_t from, uint32_t end)
{
	Which		which = {.rel = rel, .from = from, .end = end};
	uint64_t	n = 0;

	/* a place that is being reserved is counted before its reserver looks at what we have changed */
	if (from >= end || atomic_load_explicit(&c->used, memory_order_seq_cst) == 0)
		return 0;
	/* one search a block, unless looking at everything is less */
	if ((uint64_t) (end - from) > (uint64_t) c->nsets * (NC_LFC_WAYS / 8))
		return forget_scan(c, &which);
	for (uint32_t b = from; b < end; b++)
		n += nc_lfc_forget(c, &(NcPageKey) {*rel, b});
	return n;
}

uint64_t
nc_lfc_forget_database(NcLfc *c, uint32_t db)
{
	return forget_scan(c, &(Which) {.db = db, .some = true});
}

void
nc_lfc_switch(NcLfc *c, bool on)
{
	atomic_store_explicit(&c->on, on ? 1 : 0, memory_order_seq_cst);
	/* what enters a set looks at the switch under the set's lock, so nothing stays behind */
	if (!on)
		(void) forget_scan(c, &(Which) {.some = false});
}

/* The shape for so many blocks: as few sets as can hold them, so that sets stay large. */
static uint32_t
shape_for(const NcLfc *c, uint64_t blocks)
{
	uint32_t	halvings = 0;
	uint64_t	ways;

	while (nc_lfc_shape_sets(c, halvings << 8) > c->lanes &&
		   (uint64_t) nc_lfc_shape_sets(c, (halvings + 1) << 8) * NC_LFC_WAYS >= blocks)
		halvings++;
	ways = blocks / nc_lfc_shape_sets(c, halvings << 8);
	return halvings << 8 | (uint32_t) (ways < NC_LFC_WAYS ? ways : NC_LFC_WAYS);
}

/* Removes what is behind the ways in use or does not belong to its set any more. */
static void
remove_misplaced(NcLfc *c, NcLfcSet *set, uint32_t shape)
{
	for (uint32_t w = 0; w < NC_LFC_WAYS; w++)
	{
		const NcLfcEntry *e = &set->entries[w];
		NcPageKey	key = {{e->spc, e->db, e->rel, NC_FORK_MAIN}, e->block};

		if (set->tags[w] != 0 &&
			(w >= nc_lfc_shape_ways(shape) || nc_lfc_home(c, nc_lfc_hash(&key), shape) != set))
			nc_lfc_remove(c, set, (uint8_t) w);
	}
}

void
nc_lfc_set_limit(NcLfc *c, uint64_t blocks)
{
	uint32_t	shape = shape_for(c, blocks);

	if (shape == nc_lfc_shape(c))
		return;
	/*
	 * First the shape, then each set under its lock.  Whoever enters a page by the old one
	 * has the lock before us, and we remove the page, or after us, and then sees the new
	 * one when he looks again (nc_lfc_lock_home()).
	 */
	atomic_store_explicit(&c->shape, shape, memory_order_seq_cst);
	for (uint32_t s = 0; s < c->nsets; s++)
	{
		if (!nc_lfc_lock(c, &c->sets[s], NC_LFC_PATIENCE_CHANGE))
		{
			nc_lfc_void(&c->sets[s]);
			continue;
		}
		remove_misplaced(c, &c->sets[s], shape);
		nc_lfc_unlock(&c->sets[s]);
	}
}

/* ---- lists ---- */

uint32_t
nc_lfc_list(NcLfc *c, uint32_t s, NcLfcItem *items)
{
	NcLfcSet   *set = &c->sets[s];
	uint32_t	n = 0;

	if (!nc_lfc_lock(c, set, NC_LFC_PATIENCE_LOOK))
		return 0;
	for (int w = 0; w < NC_LFC_WAYS; w++)
	{
		const NcLfcEntry *e = &set->entries[w];

		if (set->tags[w] == 0 || nc_lfc_state(nc_lfc_word(e)) != NC_LFC_VALID)
			continue;
		items[n++] = (NcLfcItem) {.spc = e->spc, .db = e->db, .rel = e->rel, .block = e->block,
			.place = nc_lfc_place(c, s, (uint32_t) w), .sum = e->sum,
			.heat = e->in_main ? 4u + e->uses : e->uses};
	}
	nc_lfc_unlock(set);
	return n;
}

bool
nc_lfc_adopt(NcLfc *c, const NcLfcItem *item)
{
	NcPageKey	key = {{item->spc, item->db, item->rel, NC_FORK_MAIN}, item->block};
	uint64_t	hash = nc_lfc_hash(&key);
	NcLfcSet   *set = nc_lfc_home(c, hash, nc_lfc_shape(c));
	uint8_t		w;
	NcLfcEntry *e;

	if (item->place / NC_LFC_WAYS >= c->nsets || nc_lfc_set_of_place(c, item->place, &w) != set ||
		w >= nc_lfc_shape_ways(nc_lfc_shape(c)) || set->tags[w] != 0 ||
		nc_lfc_find_way(set, &key, nc_lfc_tag(hash)) != NC_LFC_NONE)
		return false;
	e = &set->entries[w];
	e->spc = item->spc;
	e->db = item->db;
	e->rel = item->rel;
	e->block = item->block;
	e->sum = item->sum;
	e->uses = (uint8_t) (item->heat % 4 < NC_LFC_USES_MAX ? item->heat % 4 : NC_LFC_USES_MAX);
	set->tags[w] = nc_lfc_tag(hash);
	nc_lfc_append(set, item->heat >= 4 ? &set->main : &set->small, w);
	nc_lfc_set_state(e, NC_LFC_VALID);
	atomic_fetch_add_explicit(&c->used, 1, memory_order_relaxed);
	return true;
}
