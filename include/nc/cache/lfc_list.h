/*
 * nc/cache/lfc_list.h
 *	  Format of the list of cached pages on disk: a head and items, hottest first.
 *
 * The list says which pages to bring in again.  If it was written at a clean stop
 * its head also names that stop, and the places and checksums of the items are
 * those of the cache file.  Bytes of a file are never trusted: both halves carry
 * a hash, and every number is checked where it is used.
 */
#ifndef NC_CACHE_LFC_LIST_H
#define NC_CACHE_LFC_LIST_H

#include "nc/cache/lfc_index.h"

#define NC_LFC_LIST_HEAD_BYTES 192
#define NC_LFC_LIST_ITEM_BYTES 28

/* What a hash of no items is; pass it on to nc_lfc_list_hash(). */
#define NC_LFC_LIST_HASH_START UINT64_C(0xcbf29ce484222325)

typedef struct NcLfcListHead
{
	uint64_t	system_id;
	char		tenant_id[33];
	char		timeline_id[33];
	uint64_t	items;
	uint64_t	items_hash;

	/* Of a clean stop only; otherwise final is false and these mean nothing. */
	bool		final;
	uint64_t	checkpoint_lsn;
	uint64_t	checkpoint_time;
	uint64_t	next_xid;
	uint32_t	nsets;
	uint32_t	lanes;			/* 0 in lists from before there were any */
	uint64_t	dev;			/* the cache file */
	uint64_t	ino;
} NcLfcListHead;

extern void nc_lfc_list_encode_head(const NcLfcListHead *head, uint8_t *bytes);

/* False when the bytes are no head of ours, or damaged. */
NC_MUST_USE extern bool nc_lfc_list_decode_head(const uint8_t *bytes, NcLfcListHead *head);

extern void nc_lfc_list_encode_item(const NcLfcItem *item, uint8_t *bytes);
extern void nc_lfc_list_decode_item(const uint8_t *bytes, NcLfcItem *item);

/* The hash of all items so far and these bytes. */
extern uint64_t nc_lfc_list_hash(uint64_t hash, const uint8_t *bytes, size_t n);

/* Neighbours that are brought in together. */
#define NC_LFC_LIST_GROUP 16

/*
 * Puts the hottest first, but keeps neighbours together: each group of
 * NC_LFC_LIST_GROUP blocks is as hot as its hottest page, which becomes the heat
 * of all its items.  Heat alone would tear a table that is read at random into
 * single pages, each a round trip.
 */
extern void nc_lfc_list_sort(NcLfcItem *items, uint64_t n);

#endif							/* NC_CACHE_LFC_LIST_H */
