/*
 * nc/cache/lwlsn_map.h
 *	  Bounded map from page or relation to its last-written LSN.
 *
 * A map of fixed size in memory that the caller gives and locks.  It is an
 * array of small buckets; a full bucket gives up its entry with the lowest
 * LSN and raises the floor to it, so that an answer may be late but is never
 * too old.  A relation as a whole is the key with block NC_LW_RELATION.
 *
 * Per entry:
 *	nms		not_modified_since: no change of the object is newer than this
 *	exact	LSN that the page has at least: mostly that of the page as it was last
 *			dropped by this compute; 0 unknown
 */
#ifndef NC_CACHE_LWLSN_MAP_H
#define NC_CACHE_LWLSN_MAP_H

#include <stdatomic.h>

#include "nc/base/check.h"
#include "nc/base/key.h"
#include "nc/base/units.h"

#define NC_LW_RELATION UINT32_MAX
#define NC_LW_BUCKET_ENTRIES 8

/* Under the caller's lock for its bucket, all of it. */
typedef struct NcLwEntry
{
	NcPageKey	key;
	uint32_t	used;
	NcLsn		nms;
	NcLsn		exact;
} NcLwEntry;

typedef struct NcLwMap
{
	uint32_t	nbuckets;

	/*
	 * What is assumed for an object without an entry; raised, never lowered.  The three
	 * floors are raised by any process, with or without a bucket's lock.
	 */
	_Atomic uint64_t floor;

	/* The same for relations only: when the last one changed that has no entry any more. */
	_Atomic uint64_t rel_floor;

	/* What is assumed for every object, entry or not (whole databases changed). */
	_Atomic uint64_t hard_floor;

	_Alignas(NC_CACHE_LINE_BYTES) NcLwEntry entries[];
} NcLwMap;

extern size_t nc_lw_map_bytes(uint32_t nentries);

/*
 * Makes an empty map, all floors 0, of memory that is zero: it is not touched but for
 * the head, since most of it is not needed for long. nentries as for nc_lw_map_bytes.
 */
extern void nc_lw_map_init(NcLwMap *map, uint32_t nentries);

/* The bucket of a key: whoever reads or changes it holds the caller's lock for this number. */
extern uint32_t nc_lw_map_bucket(const NcLwMap *map, const NcPageKey *key);

/*
 * Raises nms (never lowers it) and replaces exact.  Needs the bucket's lock,
 * exclusive.  May give up another entry and raise the floor.
 */
extern void nc_lw_map_set(NcLwMap *map, const NcPageKey *key, NcLsn nms, NcLsn exact);

/*
 * Forgets the exact LSNs of one database in one bucket, whose files were copied or
 * removed as a whole.  Needs the bucket's lock, exclusive.
 */
extern void nc_lw_map_forget_database(NcLwMap *map, uint32_t bucket, uint32_t db);

/* Finds an entry. Needs the bucket's lock, shared. */
NC_MUST_USE extern bool nc_lw_map_get(const NcLwMap *map, const NcPageKey *key, NcLsn *nms,
									  NcLsn *exact);

/* Has the memory of a key's bucket brought into the CPU's cache, for a look at it soon. Needs no lock. */
extern void nc_lw_map_fetch(const NcLwMap *map, const NcPageKey *key);

/* Raise a floor to at least lsn; lock-free. */
extern void nc_lw_raise(_Atomic uint64_t *floor, NcLsn lsn);

/*
 * Combines what is known of a page and of its relation (found flags and
 * values) with the floors: the not_modified_since to ask with, and the exact
 * LSN that an answer must reach.  A change of the whole relation after the
 * page was dropped, or when it was, makes its exact LSN meaningless; what other
 * objects' changes do to the floors does not.
 */
extern void nc_lw_combine(const NcLwMap *map, bool page_found, NcLsn page_nms, NcLsn page_exact,
						  bool rel_found, NcLsn rel_nms, NcLsn *nms, NcLsn *exact);

#endif							/* NC_CACHE_LWLSN_MAP_H */
