/*
 * lfc_list.c
 *	  Encodes and decodes the list of cached pages.
 */
#include "nc/cache/lfc_list.h"

#include <stdlib.h>
#include <string.h>

#include "nc/base/bytes.h"

static const char magic[8] = "NCLFC01";

#define HASHED_BYTES (NC_LFC_LIST_HEAD_BYTES - sizeof(uint64_t))

uint64_t
nc_lfc_list_hash(uint64_t hash, const uint8_t *bytes, size_t n)
{
	for (size_t i = 0; i < n; i++)
		hash = (hash ^ bytes[i]) * UINT64_C(0x100000001b3);
	return hash;
}

void
nc_lfc_list_encode_head(const NcLfcListHead *head, uint8_t *bytes)
{
	NcWriter	w = nc_writer(bytes, NC_LFC_LIST_HEAD_BYTES);

	memset(bytes, 0, NC_LFC_LIST_HEAD_BYTES);
	nc_write_bytes(&w, magic, sizeof(magic));
	nc_write_u64(&w, head->system_id);
	nc_write_bytes(&w, head->tenant_id, sizeof(head->tenant_id));
	nc_write_bytes(&w, head->timeline_id, sizeof(head->timeline_id));
	nc_write_u64(&w, head->items);
	nc_write_u64(&w, head->items_hash);
	nc_write_u8(&w, head->final ? 1 : 0);
	nc_write_u64(&w, head->checkpoint_lsn);
	nc_write_u64(&w, head->checkpoint_time);
	nc_write_u64(&w, head->next_xid);
	nc_write_u32(&w, head->nsets);
	nc_write_u64(&w, head->dev);
	nc_write_u64(&w, head->ino);
	nc_write_u32(&w, head->lanes);
	NC_ASSERT(!w.failed && nc_writer_bytes(&w) <= HASHED_BYTES);
	w = nc_writer(bytes + HASHED_BYTES, sizeof(uint64_t));
	nc_write_u64(&w, nc_lfc_list_hash(NC_LFC_LIST_HASH_START, bytes, HASHED_BYTES));
}

static void
read_head_text(NcReader *r, char *text, size_t n)
{
	const uint8_t *bytes = nc_read_bytes(r, n);

	/* ended here, whatever the file says */
	memset(text, 0, n);
	if (bytes != NULL)
		memcpy(text, bytes, n - 1);
}

bool
nc_lfc_list_decode_head(const uint8_t *bytes, NcLfcListHead *head)
{
	NcReader	r = nc_reader(bytes + HASHED_BYTES, sizeof(uint64_t));
	uint64_t	hash = nc_read_u64(&r);

	memset(head, 0, sizeof(*head));
	if (memcmp(bytes, magic, sizeof(magic)) != 0 ||
		hash != nc_lfc_list_hash(NC_LFC_LIST_HASH_START, bytes, HASHED_BYTES))
		return false;
	r = nc_reader(bytes + sizeof(magic), HASHED_BYTES - sizeof(magic));
	head->system_id = nc_read_u64(&r);
	read_head_text(&r, head->tenant_id, sizeof(head->tenant_id));
	read_head_text(&r, head->timeline_id, sizeof(head->timeline_id));
	head->items = nc_read_u64(&r);
	head->items_hash = nc_read_u64(&r);
	head->final = nc_read_u8(&r) == 1;
	head->checkpoint_lsn = nc_read_u64(&r);
	head->checkpoint_time = nc_read_u64(&r);
	head->next_xid = nc_read_u64(&r);
	head->nsets = nc_read_u32(&r);
	head->dev = nc_read_u64(&r);
	head->ino = nc_read_u64(&r);
	head->lanes = nc_read_u32(&r);
	return !r.failed;
}

void
nc_lfc_list_encode_item(const NcLfcItem *item, uint8_t *bytes)
{
	NcWriter	w = nc_writer(bytes, NC_LFC_LIST_ITEM_BYTES);

	nc_write_u32(&w, item->spc);
	nc_write_u32(&w, item->db);
	nc_write_u32(&w, item->rel);
	nc_write_u32(&w, item->block);
	nc_write_u32(&w, item->place);
	nc_write_u32(&w, item->sum);
	nc_write_u32(&w, item->heat);
}

void
nc_lfc_list_decode_item(const uint8_t *bytes, NcLfcItem *item)
{
	NcReader	r = nc_reader(bytes, NC_LFC_LIST_ITEM_BYTES);

	item->spc = nc_read_u32(&r);
	item->db = nc_read_u32(&r);
	item->rel = nc_read_u32(&r);
	item->block = nc_read_u32(&r);
	item->place = nc_read_u32(&r);
	item->sum = nc_read_u32(&r);
	item->heat = nc_read_u32(&r);
}

static int
compare_u32(uint32_t a, uint32_t b)
{
	return a < b ? -1 : a > b;
}

static int
compare_place(const NcLfcItem *x, const NcLfcItem *y)
{
	int			c = compare_u32(x->spc, y->spc);

	if (c == 0)
		c = compare_u32(x->db, y->db);
	if (c == 0)
		c = compare_u32(x->rel, y->rel);
	return c != 0 ? c : compare_u32(x->block, y->block);
}

static int
by_place(const void *a, const void *b)
{
	return compare_place(a, b);
}

static int
by_heat(const void *a, const void *b)
{
	const NcLfcItem *x = a;
	const NcLfcItem *y = b;
	int			c = compare_u32(y->heat, x->heat);

	return c != 0 ? c : compare_place(x, y);
}

/* Are two items of one relation, and of one group of its blocks? */
static bool
same_group(const NcLfcItem *x, const NcLfcItem *y)
{
	return x->rel == y->rel && x->db == y->db && x->spc == y->spc &&
		x->block / NC_LFC_LIST_GROUP == y->block / NC_LFC_LIST_GROUP;
}

void
nc_lfc_list_sort(NcLfcItem *items, uint64_t n)
{
	uint64_t	end;

	qsort(items, n, sizeof(items[0]), by_place);
	for (uint64_t at = 0; at < n; at = end)
	{
		uint32_t	heat = items[at].heat;

		for (end = at + 1; end < n && same_group(&items[at], &items[end]); end++)
			heat = items[end].heat > heat ? items[end].heat : heat;
		for (uint64_t i = at; i < end; i++)
			items[i].heat = heat;
	}
	qsort(items, n, sizeof(items[0]), by_heat);
}
