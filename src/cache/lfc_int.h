/*
 * lfc_int.h
 *	  What the files of the file cache's index share: the memory itself, and the
 *	  steps that are taken with a set's lock held.
 *
 *	  lfc_set.c		one set: its lock, its entries, what gives way
 *	  lfc_outbox.c	outbox pages, and the writer's side of them
 *	  lfc_index.c	lookups, pages that come and go, the limit, lists
 */
#ifndef LFC_INT_H
#define LFC_INT_H

#include "nc/cache/lfc_index.h"

#define NC_LFC_NONE 0xff		/* no way */

/* A page that was asked for more often counts no higher. */
#define NC_LFC_USES_MAX 3

/* Outbox pages in words of 64 bits. */
#define NC_LFC_OUTBOX_WORDS (NC_LFC_OUTBOX_MAX / 64)

/*
 * One place.  All of it is written and read under the set's lock, by any process, but
 * for `word`, at which nc_lfc_still() looks without, and for nc_lfc_adopt(), which runs
 * before anybody else can see the index.
 */
typedef struct NcLfcEntry
{
	_Atomic uint64_t word;		/* version << 2 | NcLfcState; changed by nc_lfc_set_state() only */
	uint32_t	spc;
	uint32_t	db;
	uint32_t	rel;
	uint32_t	block;
	uint32_t	sum;			/* OUTBOX, VALID: nc_lfc_sum() of what was put */
	uint16_t	box;			/* OUTBOX: which outbox page */
	uint8_t		uses;			/* since it entered its queue, at most NC_LFC_USES_MAX */
	uint8_t		in_main;
} NcLfcEntry;

NC_STATIC_ASSERT(sizeof(NcLfcEntry) == 32, "two entries a cache line");

/* A queue through the ways of a set, oldest first. */
typedef struct NcLfcQueue
{
	uint8_t		head;
	uint8_t		tail;
	uint8_t		count;
} NcLfcQueue;

typedef struct NcLfcSet
{
	/* 1 = held: no owner is remembered, since nobody could do anything with it */
	_Alignas(NC_CACHE_LINE_BYTES) _Atomic uint32_t lock;

	/*
	 * All of it is void: whoever gets the lock next empties it.  Set by who could not get
	 * the lock, at any moment, also while it is held; cleared by a holder only.
	 */
	_Atomic uint32_t voided;

	/* The rest is written and read by who holds the lock. */
	NcLfcQueue	small;
	NcLfcQueue	main;
	uint8_t		ghost_at;		/* next to be overwritten */
	uint16_t	tags[NC_LFC_WAYS];	/* 0 = place is free */
	uint16_t	ghosts[NC_LFC_WAYS];	/* tags of what was pushed out of the small queue; 0 = none */
	uint8_t		next[NC_LFC_WAYS];
	uint8_t		prev[NC_LFC_WAYS];
	NcLfcEntry	entries[NC_LFC_WAYS];
} NcLfcSet;

/* Written by who has taken the outbox page, before it is queued; then the writer's. */
typedef struct NcLfcOutboxPage
{
	NcLfcRef	ref;
} NcLfcOutboxPage;

struct NcLfc
{
	/* Set by nc_lfc_init() and never again. */
	uint32_t	nsets;			/* a multiple of lanes */
	uint32_t	noutbox;
	uint32_t	lanes;			/* neighbouring sets that share a stretch of the file; a power of two */

	/* Written by the process that writes the file; read by everybody. */
	_Atomic uint32_t on;
	_Atomic uint32_t shape;		/* halvings << 8 | ways in use */

	/* Counted by everybody.  They order nothing, but for what nc_lfc_enter() says of used. */
	_Alignas(NC_CACHE_LINE_BYTES) _Atomic uint64_t used;
	_Atomic uint32_t outbox_used;
	_Atomic uint32_t given_up;	/* times that a lock was not got */

	/*
	 * Bit i: outbox page i is taken; it waits for the writer.  Anybody sets a bit of
	 * `taken`, and clears it as long as he has not queued the page; from then on, and
	 * in `queued`, only the writer clears.
	 */
	_Alignas(NC_CACHE_LINE_BYTES) _Atomic uint64_t taken[NC_LFC_OUTBOX_WORDS];
	_Alignas(NC_CACHE_LINE_BYTES) _Atomic uint64_t queued[NC_LFC_OUTBOX_WORDS];
	NcLfcOutboxPage outbox[NC_LFC_OUTBOX_MAX];
	NcLfcSet	sets[];			/* [nsets], then noutbox pages */
};

static inline uint8_t *
nc_lfc_outbox_page(NcLfc *c, uint32_t i)
{
	return (uint8_t *) &c->sets[c->nsets] + (size_t) i * NC_PAGE_BYTES;
}

/* ---- the shape ---- */

/*
 * Sets and ways in use. The number of groups of sets is halved as often as the limit allows.  One
 * word, so that nobody sees the sets of one limit with the ways of another.
 */
static inline uint32_t
nc_lfc_shape(const NcLfc *c)
{
	return atomic_load_explicit(&c->shape, memory_order_seq_cst);
}

static inline uint32_t
nc_lfc_shape_ways(uint32_t shape)
{
	return shape & 0xff;
}

static inline uint32_t
nc_lfc_shape_sets(const NcLfc *c, uint32_t shape)
{
	uint32_t	groups = c->nsets / c->lanes >> (shape >> 8);

	return (groups > 0 ? groups : 1) * c->lanes;
}

static inline NcLfcSet *
nc_lfc_home(NcLfc *c, uint64_t hash, uint32_t shape)
{
	uint32_t	at = (uint32_t) (hash >> 32);

	return &c->sets[at / c->lanes % (nc_lfc_shape_sets(c, shape) / c->lanes) * c->lanes + at % c->lanes];
}

/* ---- names ---- */

/*
 * The upper half says where a page belongs; blocks of which NC_LFC_LANES_MAX make a group have
 * successive ones.
 */
extern uint64_t nc_lfc_hash(const NcPageKey *key);

/* From other bits than the set, and never 0. */
static inline uint16_t
nc_lfc_tag(uint64_t hash)
{
	uint16_t	tag = (uint16_t) hash;

	return tag == 0 ? 1 : tag;
}

/* ---- a set (lfc_set.c) ---- */

/*
 * How long one tries to get a lock, in sleeps of a tenth of a millisecond.  Its holder
 * may have been stopped, by a debugger or for good, and nobody waits for that:
 * who looks has a miss then, who changes something makes the whole set void.
 */
#define NC_LFC_PATIENCE_NONE 0	/* the writer, who comes again */
#define NC_LFC_PATIENCE_LOOK 20
#define NC_LFC_PATIENCE_CHANGE 2000

/*
 * For a moment only: no I/O and no other lock while it is held.  False when it was not
 * got.  A set that was made void meanwhile is empty when this returns true.
 */
NC_MUST_USE extern bool nc_lfc_lock(NcLfc *c, NcLfcSet *set, int patience);

/* Makes a set void without its lock: nothing that it has now will be found. */
extern void nc_lfc_void(NcLfcSet *set);

/* The same for the set where a page belongs. */
extern void nc_lfc_void_home(NcLfc *c, uint64_t hash);

/* Pairs with the acquire in try_lock(): the next holder sees what this one has done. */
static inline void
nc_lfc_unlock(NcLfcSet *set)
{
	atomic_store_explicit(&set->lock, 0, memory_order_release);
}

/* Locks the set where a page belongs now; NULL when its lock was not got. */
NC_MUST_USE extern NcLfcSet *nc_lfc_lock_home(NcLfc *c, uint64_t hash, int patience);

/* The rest of this section: the set's lock is held. */

/* Relaxed: the lock orders it. */
static inline uint64_t
nc_lfc_word(const NcLfcEntry *e)
{
	return atomic_load_explicit(&e->word, memory_order_relaxed);
}

static inline NcLfcState
nc_lfc_state(uint64_t word)
{
	return (NcLfcState) (word & 3);
}

/* Every change of a place goes through here: the version advances. */
extern void nc_lfc_set_state(NcLfcEntry *e, NcLfcState state);

extern bool nc_lfc_entry_is_page(const NcLfcEntry *e, const NcPageKey *key);

/* The way that has the page, or NC_LFC_NONE. */
extern uint8_t nc_lfc_find_way(const NcLfcSet *set, const NcPageKey *key, uint16_t tag);

/* Puts a way at the end of a queue. */
extern void nc_lfc_append(NcLfcSet *set, NcLfcQueue *q, uint8_t w);

/* Empties a place. */
extern void nc_lfc_remove(NcLfc *c, NcLfcSet *set, uint8_t w);

/*
 * Makes an entry in a free place; unless evicted is NULL another page may give way
 * for it.  NC_LFC_NONE when all places are busy.
 */
extern uint8_t nc_lfc_enter(NcLfc *c, NcLfcSet *set, const NcPageKey *key, uint16_t tag,
							bool *evicted);

/*
 * Place of the file of a way of a set.  Sets of one group share a stretch of it, way by way:
 * neighbours that came together have the same way, and so they are neighbours in the file.
 */
static inline uint32_t
nc_lfc_place(const NcLfc *c, uint32_t s, uint32_t w)
{
	return (s / c->lanes * NC_LFC_WAYS + w) * c->lanes + s % c->lanes;
}

static inline NcLfcRef
nc_lfc_ref(NcLfc *c, const NcLfcSet *set, uint8_t w)
{
	const NcLfcEntry *e = &set->entries[w];

	return (NcLfcRef) {.place = nc_lfc_place(c, (uint32_t) (set - c->sets), w),
		.sum = e->sum, .word = nc_lfc_word(e)};
}

static inline NcLfcSet *
nc_lfc_set_of_place(NcLfc *c, uint32_t place, uint8_t *way)
{
	uint32_t	group = place / c->lanes / NC_LFC_WAYS;

	NC_ASSERT(place / NC_LFC_WAYS < c->nsets);
	*way = (uint8_t) (place / c->lanes % NC_LFC_WAYS);
	return &c->sets[group * c->lanes + place % c->lanes];
}

/* ---- outbox pages (lfc_outbox.c) ---- */

/* A free outbox page, or -1; and back. */
extern int	nc_lfc_outbox_take(NcLfc *c);
extern void nc_lfc_outbox_free(NcLfc *c, uint32_t box);

/* The place has the page of this outbox page now. The set's lock is held. */
extern void nc_lfc_outbox_point(NcLfcEntry *e, uint32_t box, uint32_t sum);

/* Gives it to the writer. */
extern void nc_lfc_outbox_post(NcLfc *c, uint32_t box, const NcLfcRef *ref);

#endif							/* LFC_INT_H */
