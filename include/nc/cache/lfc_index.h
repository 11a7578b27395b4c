/*
 * nc/cache/lfc_index.h
 *	  The index of the local file cache, in memory that all processes share: which
 *	  page is at which place of the file, which places wait to be written, and
 *	  what gives way.
 *
 * The cache is set-associative.  A page's key names its set; a set has
 * NC_LFC_WAYS places.  The blocks of a group belong to as many sets side by side,
 * which share a stretch of the file: first place 0 of each, then place 1, and so on.
 * A smaller limit uses half, a quarter, ... of the sets, and for sizes between
 * not all ways.  Each set has one lock, held for a search and at most one copy of
 * a page, never for I/O.  Whoever does not get it, because its holder does not get on,
 * goes without: a lookup is a miss, a change makes the whole set void.
 *
 *	state      content of the page is    left by
 *	EMPTY      nowhere                   put, reserve
 *	RESERVED   coming (prewarm)          fill -> OUTBOX; forget, discard -> EMPTY
 *	OUTBOX     in an outbox page         the writer -> VALID; put -> OUTBOX again; forget -> EMPTY
 *	VALID      in the file               put -> OUTBOX; forget, eviction -> EMPTY
 *
 * Each change of a place advances its version.  Whoever looked a page up, or
 * promised to bring one, holds {place, version} and does its I/O without a lock;
 * what it then has counts only if the version is still the same.  That one rule
 * makes late fills, torn reads and reused places harmless.
 *
 * One process at a time writes the file (nc_lfc_next, nc_lfc_done); it never
 * writes two pages to one place at once, because it writes one at a time.
 *
 * Eviction is S3-FIFO within a set: what comes in for the first time waits in a
 * small queue and reaches the main queue only if it is used again, so a scan
 * pushes out other pages of scans.
 *
 * Plain C, no allocation, no system call but a yield when a lock is taken.
 */
#ifndef NC_CACHE_LFC_INDEX_H
#define NC_CACHE_LFC_INDEX_H

#include <stdatomic.h>

#include "nc/base/check.h"
#include "nc/base/key.h"
#include "nc/base/units.h"

/* Places of a set. */
#define NC_LFC_WAYS 64

/*
 * Neighbouring blocks that are neighbours in the file as long as they come and go together;
 * in a small cache fewer.
 */
#define NC_LFC_LANES_MAX 16

/* Outbox pages at most. */
#define NC_LFC_OUTBOX_MAX 256

typedef enum NcLfcState
{
	NC_LFC_EMPTY = 0,
	NC_LFC_RESERVED,
	NC_LFC_OUTBOX,
	NC_LFC_VALID
} NcLfcState;

typedef struct NcLfc NcLfc;

/* A place as it was seen: version << 2 | state in word. */
typedef struct NcLfcRef
{
	uint32_t	place;			/* block of the file */
	uint32_t	sum;			/* nc_lfc_sum() of key and page */
	uint64_t	word;
} NcLfcRef;

/* Sums of what happened, counted by the callers' counters. */
typedef enum NcLfcPut
{
	NC_LFC_PUT_NEW = 1,			/* entered */
	NC_LFC_PUT_REPLACED,		/* took the place of an older version */
	NC_LFC_PUT_DROPPED,			/* no outbox page or place: not cached, an older version is gone */
	NC_LFC_PUT_OFF				/* the cache is switched off: an older version is gone */
} NcLfcPut;

typedef enum NcLfcFound
{
	NC_LFC_MISS = 0,
	NC_LFC_ON_DISK,				/* read block ref->place, then ask nc_lfc_still() and compare the sum */
	NC_LFC_COPIED				/* it had not been written yet and is in the caller's page */
} NcLfcFound;

/* What else a put has to tell. */
typedef struct NcLfcNote
{
	bool		urgent;			/* half of the outbox pages are in use */
	bool		evicted;		/* another page gave way */
} NcLfcNote;

/* What the writer has to write: page to block `ref.place`. */
typedef struct NcLfcJob
{
	uint32_t	box;
	NcLfcRef	ref;
	const uint8_t *page;
} NcLfcJob;

/* A page in the cache, for lists that are saved. */
typedef struct NcLfcItem
{
	uint32_t	spc;
	uint32_t	db;
	uint32_t	rel;
	uint32_t	block;
	uint32_t	place;
	uint32_t	sum;
	uint32_t	heat;			/* 0 = came once and was not asked for again; higher is hotter */
} NcLfcItem;

/* Checksum of a page and its name, so that a foreign page does not pass. Any process. */
extern uint32_t nc_lfc_sum(const NcPageKey *key, const uint8_t *page);

/* The same, of a page that is copied meanwhile. */
extern uint32_t nc_lfc_sum_of_copy(const NcPageKey *key, const uint8_t *page, uint8_t *copy);

/* Sets for a file of this many blocks, at least one; outbox pages for it. */
extern uint32_t nc_lfc_sets(uint64_t blocks);
extern uint32_t nc_lfc_outbox_pages(uint64_t blocks);

/* Bytes of shared memory: index and outbox pages. The memory must be aligned to a cache line. */
extern size_t nc_lfc_bytes(uint32_t nsets, uint32_t noutbox);

/* Makes an empty index, switched off, all ways in use. Before anybody else can see it. */
extern void nc_lfc_init(NcLfc *c, uint32_t nsets, uint32_t noutbox);

extern uint32_t nc_lfc_nsets(const NcLfc *c);

/* How many neighbours the layout of the file keeps together. */
extern uint32_t nc_lfc_lanes(const NcLfc *c);

/* Pages in the cache, those in the outbox included; outbox pages in use; blocks allowed by the limit. */
extern uint64_t nc_lfc_used(const NcLfc *c);
extern uint32_t nc_lfc_outbox_used(const NcLfc *c);
extern uint64_t nc_lfc_limit(const NcLfc *c);

/* How often a lock was not got, which tells of a process that was stopped while it held it. */
extern uint32_t nc_lfc_given_up(const NcLfc *c);

/*
 * The file under the present limit: so many stretches of so many blocks, of each of
 * which only the first ones are used.
 */
typedef struct NcLfcFile
{
	uint32_t	stretches;		/* 0: nothing is used */
	uint32_t	blocks;			/* of each */
	uint32_t	used;			/* of these */
} NcLfcFile;

extern NcLfcFile nc_lfc_file(const NcLfc *c);

/* Are half of the outbox pages in use? Is anything ready for the writer? */
extern bool nc_lfc_urgent(const NcLfc *c);
extern bool nc_lfc_has_work(const NcLfc *c);

/*
 * Off: nothing is found and nothing enters.  Switching off empties the cache.
 * By the process that writes the file.
 */
extern void nc_lfc_switch(NcLfc *c, bool on);
extern bool nc_lfc_is_on(const NcLfc *c);

/*
 * Changes how many blocks may be used, rounded down to what sets and ways allow
 * (by less than 1/32); 0 = none.  Pages that belong elsewhere then go: about half
 * of them when the number of sets is halved or doubled.  By the writer, or before
 * anybody else can see the index.
 */
extern void nc_lfc_set_limit(NcLfc *c, uint64_t blocks);

/* Looks a page up; `page` is written only if the answer is NC_LFC_COPIED. */
extern NcLfcFound nc_lfc_find(NcLfc *c, const NcPageKey *key, uint8_t *page, NcLfcRef *ref);

/*
 * Pages that are behind the one at `ref`, which has this key, in the relation and in the
 * file: at most so many, of a group at most.  Counts as a use of each.  Returns how many.
 */
extern uint32_t nc_lfc_find_behind(NcLfc *c, const NcPageKey *key, const NcLfcRef *ref,
								   uint32_t most, NcLfcRef *refs);

/* After reading the file: is the place still what nc_lfc_find() saw? */
extern bool nc_lfc_still(NcLfc *c, const NcLfcRef *ref);

/* Is there an entry for the page, in any state? Counts as no use of it. */
extern bool nc_lfc_has(NcLfc *c, const NcPageKey *key);

/*
 * The page is now this: enters it, or replaces what is there.  The caller makes
 * sure that nobody can have a newer version (it holds the buffer's I/O, or wrote
 * the page).  When it returns no older version can be found any more, whatever
 * the answer.
 */
extern NcLfcPut nc_lfc_put(NcLfc *c, const NcPageKey *key, const uint8_t *page, NcLfcNote *note);

/*
 * A page that is brought without its buffer's lock: reserve, then find out which
 * version is needed and read it, then fill.  Anything that changes the page
 * meanwhile ends the reservation, and fill refuses.  A reservation evicts
 * nothing: false when there is no free place or the page is there.
 */
NC_MUST_USE extern bool nc_lfc_reserve(NcLfc *c, const NcPageKey *key, NcLfcRef *ref);
NC_MUST_USE extern bool nc_lfc_fill(NcLfc *c, const NcPageKey *key, const NcLfcRef *ref,
									const uint8_t *page);

/* Empties the place if it is still as seen: a reservation given up, content that is wrong. */
extern void nc_lfc_discard(NcLfc *c, const NcLfcRef *ref);

/* Forget: afterwards nothing of it is found, and fills under way for it fail. Returns how many. */
extern uint64_t nc_lfc_forget(NcLfc *c, const NcPageKey *key);
extern uint64_t nc_lfc_forget_range(NcLfc *c, const NcRelKey *rel, uint32_t from, uint32_t end);
extern uint64_t nc_lfc_forget_database(NcLfc *c, uint32_t db);

/* The writer's work: the next page to write; false when there is none. */
extern bool nc_lfc_next(NcLfc *c, NcLfcJob *job);

/* It was written, or could not be: publishes it or drops it, and frees the outbox page. */
extern void nc_lfc_done(NcLfc *c, const NcLfcJob *job, bool written);

/*
 * Valid pages of one set, at most NC_LFC_WAYS; returns how many. For lists; and
 * the way back, into an index that nobody uses yet: false when the item makes no
 * sense here.
 */
extern uint32_t nc_lfc_list(NcLfc *c, uint32_t set, NcLfcItem *items);
NC_MUST_USE extern bool nc_lfc_adopt(NcLfc *c, const NcLfcItem *item);

#endif							/* NC_CACHE_LFC_INDEX_H */
