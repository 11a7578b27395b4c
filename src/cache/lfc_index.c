/*
 * lfc_index.c
 *	  The index of the local file cache: sets, their locks and queues, staging
 *	  pages.  The rules are in lfc_index.h, the reasons in docs/lfc.md.
 *
 * Runs in every process of the compute.  Guarantees that a page is found only in
 * the version last put, and that nothing waits for I/O.  Trusts nobody's file:
 * what is read from it is compared with the checksum kept here.
 */
#include "nc/cache/lfc_index.h"

#include <sched.h>
#include <string.h>
#include <time.h>

#define NONE 0xff				/* no way */

/* A page that was asked for more often counts no higher. */
#define USES_MAX 3

/* Spins before the processor is given up, yields before a real sleep. */
#define LOCK_SPINS 100
#define LOCK_YIELDS 50

/* Fewer would be full before a wake reaches the writer. */
#define STAGE_MIN 64

/* Staging pages in words of 64 bits. */
#define STAGE_WORDS (NC_LFC_STAGE_MAX / 64)

typedef struct Entry
{
	_Atomic uint64_t word;		/* version << 2 | NcLfcState; changed under the set's lock */
	uint32_t	spc;
	uint32_t	db;
	uint32_t	rel;
	uint32_t	block;
	uint32_t	sum;
	uint16_t	stage;			/* STAGED: which staging page */
	uint8_t		uses;			/* since it entered its queue, at most USES_MAX */
	uint8_t		in_main;
} Entry;

NC_STATIC_ASSERT(sizeof(Entry) == 32, "two entries a cache line");

/* A queue through the ways of a set, oldest first. */
typedef struct Queue
{
	uint8_t		head;
	uint8_t		tail;
	uint8_t		count;
} Queue;

typedef struct Set
{
	_Alignas(NC_CACHE_LINE_BYTES) _Atomic uint32_t lock;
	Queue		small;
	Queue		main;
	uint8_t		ghost_at;		/* next to be overwritten */
	uint16_t	tags[NC_LFC_WAYS];	/* 0 = place is free */
	uint16_t	ghosts[NC_LFC_WAYS];	/* tags of what was pushed out of the small queue; 0 = none */
	uint8_t		next[NC_LFC_WAYS];
	uint8_t		prev[NC_LFC_WAYS];
	Entry		entries[NC_LFC_WAYS];
} Set;

typedef struct Stage
{
	NcLfcRef	ref;
} Stage;

struct NcLfc
{
	uint32_t	nsets;
	uint32_t	nstage;
	_Atomic uint32_t on;
	_Atomic uint32_t shape;		/* halvings << 8 | ways in use */
	_Alignas(NC_CACHE_LINE_BYTES) _Atomic uint64_t used;
	_Atomic uint32_t staged;

	/* Bit i: staging page i is taken; it waits for the writer. */
	_Alignas(NC_CACHE_LINE_BYTES) _Atomic uint64_t taken[STAGE_WORDS];
	_Alignas(NC_CACHE_LINE_BYTES) _Atomic uint64_t queued[STAGE_WORDS];
	Stage		stages[NC_LFC_STAGE_MAX];
	Set			sets[];			/* [nsets], then nstage pages */
};

/* ---- sizes ---- */

uint32_t
nc_lfc_sets(uint64_t blocks)
{
	uint64_t	n = blocks / NC_LFC_WAYS;

	return n == 0 ? 1 : n > UINT32_MAX / NC_LFC_WAYS ? UINT32_MAX / NC_LFC_WAYS : (uint32_t) n;
}

uint32_t
nc_lfc_stage_pages(uint64_t blocks)
{
	uint64_t	n = blocks / 2048;

	return n < STAGE_MIN ? STAGE_MIN : n > NC_LFC_STAGE_MAX ? NC_LFC_STAGE_MAX : (uint32_t) n;
}

size_t
nc_lfc_bytes(uint32_t nsets, uint32_t nstage)
{
	return sizeof(NcLfc) + (size_t) nsets * sizeof(Set) + (size_t) nstage * NC_PAGE_BYTES;
}

static uint8_t *
stage_page(NcLfc *c, uint32_t i)
{
	return (uint8_t *) &c->sets[c->nsets] + (size_t) i * NC_PAGE_BYTES;
}

void
nc_lfc_init(NcLfc *c, uint32_t nsets, uint32_t nstage)
{
	NC_ASSERT(nsets > 0 && nstage > 0 && nstage <= NC_LFC_STAGE_MAX);
	memset(c, 0, sizeof(NcLfc) + (size_t) nsets * sizeof(Set));
	c->nsets = nsets;
	c->nstage = nstage;
	atomic_init(&c->shape, NC_LFC_WAYS);
	for (uint32_t s = 0; s < nsets; s++)
	{
		c->sets[s].small = (Queue) {NONE, NONE, 0};
		c->sets[s].main = (Queue) {NONE, NONE, 0};
	}
	/* bits beyond the last staging page are never free */
	for (uint32_t i = nstage; i < NC_LFC_STAGE_MAX; i++)
		c->taken[i / 64] |= UINT64_C(1) << i % 64;
}

uint32_t
nc_lfc_nsets(const NcLfc *c)
{
	return c->nsets;
}

uint64_t
nc_lfc_used(const NcLfc *c)
{
	return atomic_load_explicit(&c->used, memory_order_relaxed);
}

uint32_t
nc_lfc_staged(const NcLfc *c)
{
	return atomic_load_explicit(&c->staged, memory_order_relaxed);
}

bool
nc_lfc_urgent(const NcLfc *c)
{
	return nc_lfc_staged(c) * 2 >= c->nstage;
}

/* Sets and ways in use. The number of sets is halved as often as the limit allows. */
static uint32_t
shape_of(const NcLfc *c)
{
	return atomic_load_explicit(&c->shape, memory_order_seq_cst);
}

static uint32_t
shape_ways(uint32_t shape)
{
	return shape & 0xff;
}

static uint32_t
shape_sets(const NcLfc *c, uint32_t shape)
{
	uint32_t	n = c->nsets >> (shape >> 8);

	return n > 0 ? n : 1;
}

uint64_t
nc_lfc_limit(const NcLfc *c)
{
	uint32_t	shape = shape_of(c);

	return (uint64_t) shape_sets(c, shape) * shape_ways(shape);
}

uint64_t
nc_lfc_file_blocks(const NcLfc *c, uint32_t *nsets, uint32_t *ways)
{
	uint32_t	shape = shape_of(c);

	*nsets = shape_sets(c, shape);
	*ways = shape_ways(shape);
	return *ways == 0 ? 0 : (uint64_t) *nsets * NC_LFC_WAYS;
}

bool
nc_lfc_is_on(const NcLfc *c)
{
	return atomic_load_explicit(&c->on, memory_order_acquire) != 0;
}

/* ---- names and sums ---- */

static uint64_t
mix(uint64_t h)
{
	h ^= h >> 32;
	h *= UINT64_C(0xd6e8feb86659fd93);
	h ^= h >> 32;
	h *= UINT64_C(0xd6e8feb86659fd93);
	return h ^ h >> 32;
}

static uint64_t
hash_of(const NcPageKey *key)
{
	uint64_t	a = (uint64_t) key->rel.rel << 32 | key->block;
	uint64_t	b = (uint64_t) key->rel.spc << 32 | key->rel.db;

	return mix(a ^ mix(b + UINT64_C(0x9e3779b97f4a7c15)));
}

static Set *
home_of(NcLfc *c, uint64_t hash, uint32_t shape)
{
	return &c->sets[(hash >> 32) % shape_sets(c, shape)];
}

/* From other bits than the set, and never 0. */
static uint16_t
tag_of(uint64_t hash)
{
	uint16_t	tag = (uint16_t) hash;

	return tag == 0 ? 1 : tag;
}

#define LANES 8

uint32_t
nc_lfc_sum(const NcPageKey *key, const uint8_t *page)
{
	uint64_t	lane[LANES];
	uint64_t	h = hash_of(key);

	/* independent lanes, so that multiplications overlap */
	for (int i = 0; i < LANES; i++)
		lane[i] = h + (uint64_t) i * UINT64_C(0x9e3779b97f4a7c15);
	for (size_t at = 0; at < NC_PAGE_BYTES; at += LANES * sizeof(uint64_t))
	{
#pragma GCC unroll 8
		for (int i = 0; i < LANES; i++)
		{
			uint64_t	w;

			memcpy(&w, page + at + i * sizeof(w), sizeof(w));
			lane[i] = (lane[i] ^ w) * UINT64_C(0xff51afd7ed558ccd);
			lane[i] ^= lane[i] >> 29;
		}
	}
	for (int i = 0; i < LANES; i++)
		h = mix(h ^ lane[i]);
	return (uint32_t) (h ^ h >> 32);
}

/* ---- the lock of a set ---- */

static inline void
relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#endif
}

static void
lock_set(Set *set)
{
	uint32_t	free_value = 0;
	int			tries = 0;

	while (!atomic_compare_exchange_weak_explicit(&set->lock, &free_value, 1, memory_order_acquire,
												  memory_order_relaxed))
	{
		struct timespec pause = {0, 50000};

		free_value = 0;
		if (++tries < LOCK_SPINS)
			relax();
		else if (tries < LOCK_SPINS + LOCK_YIELDS)
			sched_yield();
		else
			nanosleep(&pause, NULL);
	}
}

static void
unlock_set(Set *set)
{
	atomic_store_explicit(&set->lock, 0, memory_order_release);
}

/*
 * Locks the set where a page belongs.  If the number of sets changed before the
 * lock was got, it belongs elsewhere: whoever changes the number visits all sets
 * afterwards, under their locks, and removes what does not belong there.
 */
static Set *
lock_home(NcLfc *c, uint64_t hash)
{
	for (;;)
	{
		uint32_t	shape = shape_of(c);
		Set		   *set = home_of(c, hash, shape);

		lock_set(set);
		if (home_of(c, hash, shape_of(c)) == set)
			return set;
		unlock_set(set);
	}
}

/* ---- entries; the set's lock is held ---- */

static uint64_t
word_of(const Entry *e)
{
	return atomic_load_explicit(&e->word, memory_order_relaxed);
}

static NcLfcState
state_of(uint64_t word)
{
	return (NcLfcState) (word & 3);
}

/* Every change of a place goes through here: the version advances. */
static void
set_state(Entry *e, NcLfcState state)
{
	/*
	 * A reader that saw the old version must not be told "still the same" after
	 * what follows has become visible: seq_cst keeps the store in front of it.
	 */
	atomic_store_explicit(&e->word, ((word_of(e) >> 2) + 1) << 2 | (uint64_t) state,
						  memory_order_seq_cst);
}

static bool
is_page(const Entry *e, const NcPageKey *key)
{
	return e->block == key->block && e->rel == key->rel.rel && e->db == key->rel.db &&
		e->spc == key->rel.spc;
}

/* The way that has the page, or NONE. */
static uint8_t
find_way(const Set *set, const NcPageKey *key, uint16_t tag)
{
	for (int w = 0; w < NC_LFC_WAYS; w++)
		if (set->tags[w] == tag && is_page(&set->entries[w], key))
			return (uint8_t) w;
	return NONE;
}

static void
unlink_way(Set *set, Queue *q, uint8_t w)
{
	if (set->prev[w] != NONE)
		set->next[set->prev[w]] = set->next[w];
	else
		q->head = set->next[w];
	if (set->next[w] != NONE)
		set->prev[set->next[w]] = set->prev[w];
	else
		q->tail = set->prev[w];
	q->count--;
}

static void
append_way(Set *set, Queue *q, uint8_t w)
{
	set->next[w] = NONE;
	set->prev[w] = q->tail;
	if (q->tail != NONE)
		set->next[q->tail] = w;
	else
		q->head = w;
	q->tail = w;
	q->count++;
	set->entries[w].in_main = q == &set->main;
}

static Queue *
queue_of(Set *set, const Entry *e)
{
	return e->in_main ? &set->main : &set->small;
}

/* Empties a place. */
static void
remove_way(NcLfc *c, Set *set, uint8_t w)
{
	Entry	   *e = &set->entries[w];

	unlink_way(set, queue_of(set, e), w);
	set->tags[w] = 0;
	set_state(e, NC_LFC_EMPTY);
	atomic_fetch_sub_explicit(&c->used, 1, memory_order_relaxed);
}

/* ---- what gives way ---- */

/* Was this page pushed out of the small queue not long ago? Asking uses the memory up. */
static bool
take_ghost(Set *set, uint16_t tag)
{
	for (int i = 0; i < NC_LFC_WAYS; i++)
	{
		if (set->ghosts[i] == tag)
		{
			set->ghosts[i] = 0;
			return true;
		}
	}
	return false;
}

static void
add_ghost(Set *set, uint16_t tag)
{
	set->ghosts[set->ghost_at] = tag;
	set->ghost_at = (uint8_t) ((set->ghost_at + 1) % NC_LFC_WAYS);
}

/* One step of S3-FIFO: looks at the oldest of a queue. True when its place was freed. */
static bool
pass_oldest(NcLfc *c, Set *set, Queue *q)
{
	uint8_t		w = q->head;
	Entry	   *e = &set->entries[w];
	bool		busy = state_of(word_of(e)) != NC_LFC_VALID;

	if (!busy && e->uses == 0)
	{
		if (q == &set->small)
			add_ghost(set, set->tags[w]);
		remove_way(c, set, w);
		return true;
	}
	unlink_way(set, q, w);
	if (busy)
		append_way(set, q, w);
	else
	{
		/* used while it waited: it stays, and has to be used again to stay longer */
		e->uses = q == &set->small ? 0 : (uint8_t) (e->uses - 1);
		append_way(set, &set->main, w);
	}
	return false;
}

/*
 * A free place below the limit.  If there is none another page gives way, which
 * *evicted tells; with evicted NULL none does.  NONE when all are busy.
 */
static uint8_t
free_way(NcLfc *c, Set *set, bool *evicted)
{
	uint32_t	limit = shape_ways(shape_of(c));
	uint32_t	small_share = limit / 10 > 0 ? limit / 10 : 1;

	for (int steps = 0;; steps++)
	{
		for (uint32_t w = 0; w < limit; w++)
			if (set->tags[w] == 0)
				return (uint8_t) w;
		for (;; steps++)
		{
			Queue	   *q = set->small.count > small_share || set->main.count == 0 ?
				&set->small : &set->main;

			/* each way is passed at most USES_MAX + 1 times, and once more when busy */
			if (evicted == NULL || limit == 0 || steps > NC_LFC_WAYS * (USES_MAX + 2) || q->count == 0)
				return NONE;
			if (pass_oldest(c, set, q))
			{
				*evicted = true;
				break;
			}
		}
	}
}

/* Makes an entry in a free place. */
static uint8_t
enter(NcLfc *c, Set *set, const NcPageKey *key, uint16_t tag, bool *evicted)
{
	uint8_t		w = free_way(c, set, evicted);
	Entry	   *e;

	if (w == NONE)
		return NONE;
	e = &set->entries[w];
	e->spc = key->rel.spc;
	e->db = key->rel.db;
	e->rel = key->rel.rel;
	e->block = key->block;
	e->uses = 0;
	set->tags[w] = tag;
	append_way(set, take_ghost(set, tag) ? &set->main : &set->small, w);
	atomic_fetch_add_explicit(&c->used, 1, memory_order_seq_cst);
	return w;
}

static NcLfcRef
ref_of(NcLfc *c, const Set *set, uint8_t w)
{
	const Entry *e = &set->entries[w];

	return (NcLfcRef) {.place = (uint32_t) (set - c->sets) * NC_LFC_WAYS + w,
		.sum = e->sum, .word = word_of(e)};
}

static Set *
set_of_place(NcLfc *c, uint32_t place, uint8_t *way)
{
	NC_ASSERT(place / NC_LFC_WAYS < c->nsets);
	*way = (uint8_t) (place % NC_LFC_WAYS);
	return &c->sets[place / NC_LFC_WAYS];
}

/* ---- staging pages ---- */

/* A free staging page, or -1. */
static int
take_stage(NcLfc *c)
{
	for (uint32_t i = 0; i < STAGE_WORDS; i++)
	{
		uint64_t	bits = atomic_load_explicit(&c->taken[i], memory_order_relaxed);

		while (bits != UINT64_MAX)
		{
			int			b = __builtin_ctzll(~bits);

			if (atomic_compare_exchange_weak_explicit(&c->taken[i], &bits,
													  bits | UINT64_C(1) << b,
													  memory_order_acquire, memory_order_relaxed))
			{
				atomic_fetch_add_explicit(&c->staged, 1, memory_order_relaxed);
				return (int) i * 64 + b;
			}
		}
	}
	return -1;
}

static void
free_stage(NcLfc *c, uint32_t stage)
{
	atomic_fetch_sub_explicit(&c->staged, 1, memory_order_relaxed);
	atomic_fetch_and_explicit(&c->taken[stage / 64], ~(UINT64_C(1) << stage % 64),
							  memory_order_release);
}

static void
queue_stage(NcLfc *c, uint32_t stage, const NcLfcRef *ref)
{
	c->stages[stage].ref = *ref;
	atomic_fetch_or_explicit(&c->queued[stage / 64], UINT64_C(1) << stage % 64,
							 memory_order_release);
}

/* The place has the page of this staging page now. Lock held. */
static void
point_at_stage(Entry *e, uint32_t stage, uint32_t sum)
{
	e->stage = (uint16_t) stage;
	e->sum = sum;
	set_state(e, NC_LFC_STAGED);
}

/* ---- lookups ---- */

NcLfcFound
nc_lfc_find(NcLfc *c, const NcPageKey *key, uint8_t *page, NcLfcRef *ref)
{
	uint64_t	hash = hash_of(key);
	Set		   *set;
	NcLfcFound	found = NC_LFC_MISS;
	uint8_t		w;

	if (!nc_lfc_is_on(c))
		return NC_LFC_MISS;
	set = lock_home(c, hash);
	w = find_way(set, key, tag_of(hash));
	if (w != NONE)
	{
		Entry	   *e = &set->entries[w];

		*ref = ref_of(c, set, w);
		if (state_of(ref->word) == NC_LFC_VALID)
			found = NC_LFC_ON_DISK;
		else if (state_of(ref->word) == NC_LFC_STAGED)
		{
			memcpy(page, stage_page(c, e->stage), NC_PAGE_BYTES);
			found = NC_LFC_COPIED;
		}
		if (found != NC_LFC_MISS && e->uses < USES_MAX)
			e->uses++;
	}
	unlock_set(set);
	return found;
}

bool
nc_lfc_still(NcLfc *c, const NcLfcRef *ref)
{
	uint8_t		w;
	Set		   *set = set_of_place(c, ref->place, &w);

	/* after the read of the file, which is a system call, and in front of nothing that matters */
	atomic_thread_fence(memory_order_seq_cst);
	return atomic_load_explicit(&set->entries[w].word, memory_order_seq_cst) == ref->word;
}

bool
nc_lfc_has(NcLfc *c, const NcPageKey *key)
{
	uint64_t	hash = hash_of(key);
	Set		   *set = lock_home(c, hash);
	bool		has;

	has = find_way(set, key, tag_of(hash)) != NONE;
	unlock_set(set);
	return has;
}

/* ---- bringing pages ---- */

NcLfcPut
nc_lfc_put(NcLfc *c, const NcPageKey *key, const uint8_t *page, NcLfcNote *note)
{
	uint64_t	hash = hash_of(key);
	Set		   *set;
	int			stage = nc_lfc_is_on(c) ? take_stage(c) : -1;
	NcLfcPut	done = NC_LFC_PUT_DROPPED;
	NcLfcRef	ref;
	uint32_t	sum;
	uint8_t		w;

	*note = (NcLfcNote) {.urgent = nc_lfc_urgent(c)};
	if (stage < 0)
	{
		(void) nc_lfc_forget(c, key);
		return nc_lfc_is_on(c) ? NC_LFC_PUT_DROPPED : NC_LFC_PUT_OFF;
	}
	/* the sum is of the copy: the caller's page may be a shared buffer whose hint bits change */
	memcpy(stage_page(c, (uint32_t) stage), page, NC_PAGE_BYTES);
	sum = nc_lfc_sum(key, stage_page(c, (uint32_t) stage));

	set = lock_home(c, hash);
	w = find_way(set, key, tag_of(hash));
	if (!nc_lfc_is_on(c))
	{
		/* switched off meanwhile, which has emptied this set or will */
		if (w != NONE)
			remove_way(c, set, w);
		w = NONE;
		done = NC_LFC_PUT_OFF;
	}
	else if (w != NONE)
		done = NC_LFC_PUT_REPLACED;
	else
	{
		w = enter(c, set, key, tag_of(hash), &note->evicted);
		if (w != NONE)
			done = NC_LFC_PUT_NEW;
	}
	if (w != NONE)
	{
		point_at_stage(&set->entries[w], (uint32_t) stage, sum);
		ref = ref_of(c, set, w);
	}
	unlock_set(set);

	if (w != NONE)
		queue_stage(c, (uint32_t) stage, &ref);
	else
		free_stage(c, (uint32_t) stage);
	return done;
}

bool
nc_lfc_reserve(NcLfc *c, const NcPageKey *key, NcLfcRef *ref)
{
	uint64_t	hash = hash_of(key);
	Set		   *set = lock_home(c, hash);
	uint8_t		w = NONE;

	if (nc_lfc_is_on(c) && find_way(set, key, tag_of(hash)) == NONE)
		w = enter(c, set, key, tag_of(hash), NULL);
	if (w != NONE)
	{
		set_state(&set->entries[w], NC_LFC_RESERVED);
		*ref = ref_of(c, set, w);
	}
	unlock_set(set);
	return w != NONE;
}

bool
nc_lfc_fill(NcLfc *c, const NcPageKey *key, const NcLfcRef *ref, const uint8_t *page)
{
	uint8_t		w;
	Set		   *set = set_of_place(c, ref->place, &w);
	int			stage = take_stage(c);
	NcLfcRef	now;
	uint32_t	sum;
	bool		stands;

	if (stage < 0)
	{
		nc_lfc_discard(c, ref);
		return false;
	}
	memcpy(stage_page(c, (uint32_t) stage), page, NC_PAGE_BYTES);
	sum = nc_lfc_sum(key, stage_page(c, (uint32_t) stage));
	lock_set(set);
	stands = word_of(&set->entries[w]) == ref->word;
	if (stands)
	{
		point_at_stage(&set->entries[w], (uint32_t) stage, sum);
		now = ref_of(c, set, w);
	}
	unlock_set(set);
	if (stands)
		queue_stage(c, (uint32_t) stage, &now);
	else
		free_stage(c, (uint32_t) stage);
	return stands;
}

void
nc_lfc_discard(NcLfc *c, const NcLfcRef *ref)
{
	uint8_t		w;
	Set		   *set = set_of_place(c, ref->place, &w);

	lock_set(set);
	if (word_of(&set->entries[w]) == ref->word)
		remove_way(c, set, w);
	unlock_set(set);
}

/* ---- forgetting ---- */

uint64_t
nc_lfc_forget(NcLfc *c, const NcPageKey *key)
{
	uint64_t	hash = hash_of(key);
	Set		   *set = lock_home(c, hash);
	uint8_t		w;

	w = find_way(set, key, tag_of(hash));
	if (w != NONE)
		remove_way(c, set, w);
	unlock_set(set);
	return w != NONE;
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
is_wanted(const Entry *e, const Which *which)
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
		Set		   *set = &c->sets[s];

		lock_set(set);
		for (uint32_t w = 0; w < NC_LFC_WAYS; w++)
		{
			if (set->tags[w] != 0 && is_wanted(&set->entries[w], which))
			{
				remove_way(c, set, (uint8_t) w);
				n++;
			}
		}
		unlock_set(set);
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

	while (shape_sets(c, halvings << 8) > 1 &&
		   (uint64_t) shape_sets(c, (halvings + 1) << 8) * NC_LFC_WAYS >= blocks)
		halvings++;
	ways = blocks / shape_sets(c, halvings << 8);
	return halvings << 8 | (uint32_t) (ways < NC_LFC_WAYS ? ways : NC_LFC_WAYS);
}

/* Removes what is behind the ways in use or does not belong to its set any more. */
static void
remove_misplaced(NcLfc *c, Set *set, uint32_t shape)
{
	for (uint32_t w = 0; w < NC_LFC_WAYS; w++)
	{
		const Entry *e = &set->entries[w];
		NcPageKey	key = {{e->spc, e->db, e->rel, NC_FORK_MAIN}, e->block};

		if (set->tags[w] != 0 &&
			(w >= shape_ways(shape) || home_of(c, hash_of(&key), shape) != set))
			remove_way(c, set, (uint8_t) w);
	}
}

void
nc_lfc_set_limit(NcLfc *c, uint64_t blocks)
{
	uint32_t	shape = shape_for(c, blocks);

	if (shape == shape_of(c))
		return;
	atomic_store_explicit(&c->shape, shape, memory_order_seq_cst);
	for (uint32_t s = 0; s < c->nsets; s++)
	{
		lock_set(&c->sets[s]);
		remove_misplaced(c, &c->sets[s], shape);
		unlock_set(&c->sets[s]);
	}
}

/* ---- the writer ---- */

/* Is the staging page still what its place is to have? Else its work is over. */
static bool
is_wanted_still(NcLfc *c, const NcLfcRef *ref)
{
	uint8_t		w;
	Set		   *set = set_of_place(c, ref->place, &w);
	bool		same;

	lock_set(set);
	same = word_of(&set->entries[w]) == ref->word;
	unlock_set(set);
	return same;
}

bool
nc_lfc_has_work(const NcLfc *c)
{
	for (uint32_t i = 0; i < STAGE_WORDS; i++)
		if (atomic_load_explicit(&c->queued[i], memory_order_seq_cst) != 0)
			return true;
	return false;
}

bool
nc_lfc_next(NcLfc *c, NcLfcJob *job)
{
	for (uint32_t i = 0; i < STAGE_WORDS; i++)
	{
		uint64_t	bits;

		while ((bits = atomic_load_explicit(&c->queued[i], memory_order_acquire)) != 0)
		{
			uint64_t	bit = bits & -bits;

			job->stage = i * 64 + (uint32_t) __builtin_ctzll(bits);
			job->ref = c->stages[job->stage].ref;
			job->page = stage_page(c, job->stage);
			atomic_fetch_and_explicit(&c->queued[i], ~bit, memory_order_relaxed);
			if (is_wanted_still(c, &job->ref))
				return true;
			free_stage(c, job->stage);
		}
	}
	return false;
}

void
nc_lfc_done(NcLfc *c, const NcLfcJob *job, bool written)
{
	uint8_t		w;
	Set		   *set = set_of_place(c, job->ref.place, &w);

	lock_set(set);
	if (word_of(&set->entries[w]) == job->ref.word)
	{
		if (written)
			set_state(&set->entries[w], NC_LFC_VALID);
		else
			remove_way(c, set, w);
	}
	unlock_set(set);
	free_stage(c, job->stage);
}

/* ---- lists ---- */

uint32_t
nc_lfc_list(NcLfc *c, uint32_t s, NcLfcItem *items)
{
	Set		   *set = &c->sets[s];
	uint32_t	n = 0;

	lock_set(set);
	for (int w = 0; w < NC_LFC_WAYS; w++)
	{
		const Entry *e = &set->entries[w];

		if (set->tags[w] == 0 || state_of(word_of(e)) != NC_LFC_VALID)
			continue;
		items[n++] = (NcLfcItem) {.spc = e->spc, .db = e->db, .rel = e->rel, .block = e->block,
			.place = s * NC_LFC_WAYS + (uint32_t) w, .sum = e->sum,
			.heat = e->in_main ? 4u + e->uses : e->uses};
	}
	unlock_set(set);
	return n;
}

bool
nc_lfc_adopt(NcLfc *c, const NcLfcItem *item)
{
	NcPageKey	key = {{item->spc, item->db, item->rel, NC_FORK_MAIN}, item->block};
	uint64_t	hash = hash_of(&key);
	Set		   *set = home_of(c, hash, shape_of(c));
	uint32_t	w = item->place % NC_LFC_WAYS;
	Entry	   *e;

	if (w >= shape_ways(shape_of(c)) || item->place / NC_LFC_WAYS >= c->nsets ||
		&c->sets[item->place / NC_LFC_WAYS] != set || set->tags[w] != 0 ||
		find_way(set, &key, tag_of(hash)) != NONE)
		return false;
	e = &set->entries[w];
	e->spc = item->spc;
	e->db = item->db;
	e->rel = item->rel;
	e->block = item->block;
	e->sum = item->sum;
	e->uses = (uint8_t) (item->heat % 4 < USES_MAX ? item->heat % 4 : USES_MAX);
	set->tags[w] = tag_of(hash);
	append_way(set, item->heat >= 4 ? &set->main : &set->small, (uint8_t) w);
	set_state(e, NC_LFC_VALID);
	atomic_fetch_add_explicit(&c->used, 1, memory_order_relaxed);
	return true;
}
