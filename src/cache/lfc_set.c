/*
 * lfc_set.c
 *	  One set of the file cache's index: names and checksums, the lock, entries and
 *	  queues, and what gives way (S3-FIFO).
 *
 * Runs in every process of the compute.  A lock is held for some hundred
 * instructions and at most one copy of a page.
 */
#include "lfc_int.h"

#include <sched.h>
#include <string.h>
#include <time.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

/* Spins before the processor is given up, yields before a real sleep. */
#define LOCK_SPINS 100
#define LOCK_YIELDS 50

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

uint64_t
nc_lfc_hash(const NcPageKey *key)
{
	uint64_t	home = mix(((uint64_t) key->rel.spc << 32 | key->rel.db) + UINT64_C(0x9e3779b97f4a7c15));

	/* groups begin elsewhere in each relation, or small ones would all want the same lanes */
	uint64_t	block = (uint64_t) key->block + key->rel.rel % NC_LFC_LANES_MAX;
	uint64_t	group = mix(((uint64_t) key->rel.rel << 32 | block / NC_LFC_LANES_MAX) ^ home);
	uint32_t	lane = (uint32_t) (block % NC_LFC_LANES_MAX);

	return (group >> 36 << 4 | lane) << 32 | (uint32_t) mix(group + lane);
}

/*
 * The checksum: lanes of 64 bits, each of which takes every 16th word.  A step is
 * one of a multiply-with-carry generator, low half * MULTIPLIER + high half: a
 * multiplication of 32 bits is all that SSE2 has, and enough to carry every bit of
 * a word upwards and down again.  Lanes do not wait for each other.
 */
#define LANES 16
#define MULTIPLIER UINT64_C(0xfffffeb9)
#define GOLDEN UINT64_C(0x9e3779b97f4a7c15)

#ifdef __SSE2__
static inline __attribute__((always_inline)) void
sum_words(uint64_t *lane, const uint8_t *page, uint8_t *copy)
{
	__m128i		pair[LANES / 2];
	const __m128i multiplier = _mm_set1_epi64x((int64_t) MULTIPLIER);

	memcpy(pair, lane, sizeof(pair));
	for (size_t at = 0; at < NC_PAGE_BYTES; at += sizeof(pair))
	{
#pragma GCC unroll 8
		for (int i = 0; i < LANES / 2; i++)
		{
			__m128i		w = _mm_loadu_si128((const __m128i *) (const void *) (page + at) + i);
			__m128i		x = _mm_xor_si128(pair[i], w);

			if (copy != NULL)
				_mm_storeu_si128((__m128i *) (void *) (copy + at) + i, w);
			pair[i] = _mm_add_epi64(_mm_mul_epu32(x, multiplier), _mm_srli_epi64(x, 32));
		}
	}
	memcpy(lane, pair, sizeof(pair));
}
#else
static inline void
sum_words(uint64_t *lane, const uint8_t *page, uint8_t *copy)
{
	for (size_t at = 0; at < NC_PAGE_BYTES; at += LANES * sizeof(uint64_t))
	{
		for (int i = 0; i < LANES; i++)
		{
			uint64_t	x;

			memcpy(&x, page + at + i * sizeof(x), sizeof(x));
			if (copy != NULL)
				memcpy(copy + at + i * sizeof(x), &x, sizeof(x));
			x ^= lane[i];
			lane[i] = (x & UINT32_MAX) * MULTIPLIER + (x >> 32);
		}
	}
}
#endif

/* Inline, so that whoever makes no copy does not ask at each word. */
static inline __attribute__((always_inline)) uint32_t
sum_page(const NcPageKey *key, const uint8_t *page, uint8_t *copy)
{
	uint64_t	lane[LANES];
	uint64_t	h = nc_lfc_hash(key);

	for (int i = 0; i < LANES; i++)
		lane[i] = h + (uint64_t) i * GOLDEN;
	sum_words(lane, page, copy);
	for (int i = 0; i < LANES; i++)
		h ^= mix(lane[i] + (uint64_t) i * GOLDEN);
	h = mix(h);
	return (uint32_t) (h ^ h >> 32);
}

uint32_t
nc_lfc_sum(const NcPageKey *key, const uint8_t *page)
{
	return sum_page(key, page, NULL);
}

uint32_t
nc_lfc_sum_of_copy(const NcPageKey *key, const uint8_t *page, uint8_t *copy)
{
	return sum_page(key, page, copy);
}

/* ---- the lock of a set ---- */

static inline void
lock_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#endif
}

static bool
try_lock(NcLfcSet *set)
{
	uint32_t	free_value = 0;

	return atomic_compare_exchange_strong_explicit(&set->lock, &free_value, 1, memory_order_acquire,
												   memory_order_relaxed);
}

static bool
is_void(const NcLfcSet *set)
{
	return atomic_load_explicit(&set->voided, memory_order_seq_cst) != 0;
}

/* Somebody could not get the lock and has changed a page of this set. */
static void
empty(NcLfc *c, NcLfcSet *set)
{
	/* first the mark: one that is set again from here on is seen by the next */
	atomic_store_explicit(&set->voided, 0, memory_order_seq_cst);
	for (uint32_t w = 0; w < NC_LFC_WAYS; w++)
		if (set->tags[w] != 0)
			nc_lfc_remove(c, set, (uint8_t) w);
}

bool
nc_lfc_lock(NcLfc *c, NcLfcSet *set, int patience)
{
	struct timespec pause = {0, 50000};

	for (int tries = 0; !try_lock(set); tries++)
	{
		if (tries < LOCK_SPINS)
			lock_relax();
		else if (tries < LOCK_SPINS + LOCK_YIELDS)
			sched_yield();
		/* void already: whoever waited here before us has waited in vain */
		else if (tries >= LOCK_SPINS + LOCK_YIELDS + patience || is_void(set))
		{
			atomic_fetch_add_explicit(&c->given_up, 1, memory_order_relaxed);
			return false;
		}
		else
			nanosleep(&pause, NULL);
	}
	/* set before this look: done here.  Set behind it: as if it had come after this holder */
	if (is_void(set))
		empty(c, set);
	return true;
}

void
nc_lfc_void(NcLfcSet *set)
{
	atomic_store_explicit(&set->voided, 1, memory_order_seq_cst);
}

/* As nc_lfc_lock_home(): a page that has moved while we were at it is void where it is now, too. */
void
nc_lfc_void_home(NcLfc *c, uint64_t hash)
{
	NcLfcSet   *set;

	do
	{
		set = nc_lfc_home(c, hash, nc_lfc_shape(c));
		nc_lfc_void(set);
	} while (nc_lfc_home(c, hash, nc_lfc_shape(c)) != set);
}

/*
 * Locks the set where a page belongs.  If the number of sets changed before the
 * lock was got, it belongs elsewhere: whoever changes the number visits all sets
 * afterwards, under their locks, and removes what does not belong there.
 */
NcLfcSet *
nc_lfc_lock_home(NcLfc *c, uint64_t hash, int patience)
{
	for (;;)
	{
		uint32_t	shape = nc_lfc_shape(c);
		NcLfcSet   *set = nc_lfc_home(c, hash, shape);

		if (!nc_lfc_lock(c, set, patience))
			return NULL;
		if (nc_lfc_home(c, hash, nc_lfc_shape(c)) == set)
			return set;
		nc_lfc_unlock(set);
	}
}

/* ---- entries; the set's lock is held ---- */

/* Every change of a place goes through here: the version advances. */
void
nc_lfc_set_state(NcLfcEntry *e, NcLfcState state)
{
	/*
	 * A reader that saw the old version must not be told "still the same" after
	 * what follows has become visible: seq_cst keeps the store in front of it.
	 * Pairs with nc_lfc_still(), which takes no lock.
	 */
	atomic_store_explicit(&e->word, ((nc_lfc_word(e) >> 2) + 1) << 2 | (uint64_t) state,
						  memory_order_seq_cst);
}

bool
nc_lfc_entry_is_page(const NcLfcEntry *e, const NcPageKey *key)
{
	return e->block == key->block && e->rel == key->rel.rel && e->db == key->rel.db &&
		e->spc == key->rel.spc;
}

/* The way that has the page, or NC_LFC_NONE. */
uint8_t
nc_lfc_find_way(const NcLfcSet *set, const NcPageKey *key, uint16_t tag)
{
	/* 128 bytes of tags instead of 2 kB of entries; two pages share a tag once in 65536 */
	for (int w = 0; w < NC_LFC_WAYS; w++)
		if (set->tags[w] == tag && nc_lfc_entry_is_page(&set->entries[w], key))
			return (uint8_t) w;
	return NC_LFC_NONE;
}

static void
unlink_way(NcLfcSet *set, NcLfcQueue *q, uint8_t w)
{
	if (set->prev[w] != NC_LFC_NONE)
		set->next[set->prev[w]] = set->next[w];
	else
		q->head = set->next[w];
	if (set->next[w] != NC_LFC_NONE)
		set->prev[set->next[w]] = set->prev[w];
	else
		q->tail = set->prev[w];
	q->count--;
}

void
nc_lfc_append(NcLfcSet *set, NcLfcQueue *q, uint8_t w)
{
	set->next[w] = NC_LFC_NONE;
	set->prev[w] = q->tail;
	if (q->tail != NC_LFC_NONE)
		set->next[q->tail] = w;
	else
		q->head = w;
	q->tail = w;
	q->count++;
	set->entries[w].in_main = q == &set->main;
}

static NcLfcQueue *
queue_of(NcLfcSet *set, const NcLfcEntry *e)
{
	return e->in_main ? &set->main : &set->small;
}

/* Empties a place. */
void
nc_lfc_remove(NcLfc *c, NcLfcSet *set, uint8_t w)
{
	NcLfcEntry *e = &set->entries[w];

	unlink_way(set, queue_of(set, e), w);
	set->tags[w] = 0;
	/* its outbox page is the writer's to free, who finds the version changed */
	nc_lfc_set_state(e, NC_LFC_EMPTY);
	atomic_fetch_sub_explicit(&c->used, 1, memory_order_relaxed);
}

/* ---- what gives way ---- */

/* Was this page pushed out of the small queue not long ago? Asking uses the memory up. */
static bool
take_ghost(NcLfcSet *set, uint16_t tag)
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
add_ghost(NcLfcSet *set, uint16_t tag)
{
	set->ghosts[set->ghost_at] = tag;
	set->ghost_at = (uint8_t) ((set->ghost_at + 1) % NC_LFC_WAYS);
}

/* One step of S3-FIFO: looks at the oldest of a queue. True when its place was freed. */
static bool
pass_oldest(NcLfc *c, NcLfcSet *set, NcLfcQueue *q)
{
	uint8_t		w = q->head;
	NcLfcEntry *e = &set->entries[w];
	bool		busy = nc_lfc_state(nc_lfc_word(e)) != NC_LFC_VALID;

	if (!busy && e->uses == 0)
	{
		if (q == &set->small)
			add_ghost(set, set->tags[w]);
		nc_lfc_remove(c, set, w);
		return true;
	}
	unlink_way(set, q, w);
	if (busy)
		nc_lfc_append(set, q, w);
	else
	{
		/* used while it waited: it stays, and has to be used again to stay longer */
		e->uses = q == &set->small ? 0 : (uint8_t) (e->uses - 1);
		nc_lfc_append(set, &set->main, w);
	}
	return false;
}

/*
 * A free place below the limit.  If there is none another page gives way, which
 * *evicted tells; with evicted NULL none does.  NC_LFC_NONE when all are busy.
 */
static uint8_t
free_way(NcLfc *c, NcLfcSet *set, bool *evicted)
{
	uint32_t	limit = nc_lfc_shape_ways(nc_lfc_shape(c));
	uint32_t	small_share = limit / 10 > 0 ? limit / 10 : 1;

	for (int steps = 0;; steps++)
	{
		for (uint32_t w = 0; w < limit; w++)
			if (set->tags[w] == 0)
				return (uint8_t) w;
		for (;; steps++)
		{
			NcLfcQueue *q = set->small.count > small_share || set->main.count == 0 ?
				&set->small : &set->main;

			/* each way is passed at most NC_LFC_USES_MAX + 1 times, and once more when busy */
			if (evicted == NULL || limit == 0 || q->count == 0 ||
				steps > NC_LFC_WAYS * (NC_LFC_USES_MAX + 2))
				return NC_LFC_NONE;
			if (pass_oldest(c, set, q))
			{
				*evicted = true;
				break;
			}
		}
	}
}

/* Makes an entry in a free place. */
uint8_t
nc_lfc_enter(NcLfc *c, NcLfcSet *set, const NcPageKey *key, uint16_t tag, bool *evicted)
{
	uint8_t		w = free_way(c, set, evicted);
	NcLfcEntry *e;

	if (w == NC_LFC_NONE)
		return NC_LFC_NONE;
	e = &set->entries[w];
	e->spc = key->rel.spc;
	e->db = key->rel.db;
	e->rel = key->rel.rel;
	e->block = key->block;
	e->uses = 0;
	set->tags[w] = tag;
	nc_lfc_append(set, take_ghost(set, tag) ? &set->main : &set->small, w);
	/*
	 * Pairs with the look at it in nc_lfc_forget_range(): a prewarm counts its place and
	 * then looks at what others have changed, they change and then look whether there is
	 * anything to forget.  One of the two sees the other.
	 */
	atomic_fetch_add_explicit(&c->used, 1, memory_order_seq_cst);
	return w;
}
