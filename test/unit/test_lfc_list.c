/*
 * Proves of the list of cached pages that it survives encoding, that any damage
 * of its head is noticed, and that items sort hottest first with neighbours
 * together.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "nc/cache/lfc_list.h"

static NcLfcListHead
example(void)
{
	NcLfcListHead head = {.system_id = UINT64_C(0x1122334455667788), .items = 77,
		.items_hash = UINT64_MAX - 5, .final = true, .checkpoint_lsn = 0x3000028,
		.checkpoint_time = 1795000000, .next_xid = UINT64_C(1) << 33, .nsets = 128,
		.dev = 65024, .ino = UINT64_C(1) << 40};

	memset(head.tenant_id, 'a', 32);
	memset(head.timeline_id, 'b', 32);
	return head;
}

static void
test_head_round_trip(void **state)
{
	NcLfcListHead head = example();
	NcLfcListHead back;
	uint8_t		bytes[NC_LFC_LIST_HEAD_BYTES];

	nc_lfc_list_encode_head(&head, bytes);
	assert_true(nc_lfc_list_decode_head(bytes, &back));
	assert_int_equal(back.system_id, head.system_id);
	assert_string_equal(back.tenant_id, head.tenant_id);
	assert_string_equal(back.timeline_id, head.timeline_id);
	assert_int_equal(back.items, head.items);
	assert_int_equal(back.items_hash, head.items_hash);
	assert_true(back.final);
	assert_int_equal(back.checkpoint_lsn, head.checkpoint_lsn);
	assert_int_equal(back.checkpoint_time, head.checkpoint_time);
	assert_int_equal(back.next_xid, head.next_xid);
	assert_int_equal(back.nsets, head.nsets);
	assert_int_equal(back.dev, head.dev);
	assert_int_equal(back.ino, head.ino);
}

static void
test_any_damage_of_the_head_is_noticed(void **state)
{
	NcLfcListHead head = example();
	NcLfcListHead back;
	uint8_t		bytes[NC_LFC_LIST_HEAD_BYTES];

	nc_lfc_list_encode_head(&head, bytes);
	for (int bit = 0; bit < NC_LFC_LIST_HEAD_BYTES * 8; bit++)
	{
		bytes[bit / 8] ^= 1 << bit % 8;
		assert_false(nc_lfc_list_decode_head(bytes, &back));
		bytes[bit / 8] ^= 1 << bit % 8;
	}
	assert_true(nc_lfc_list_decode_head(bytes, &back));
	memset(bytes, 0, sizeof(bytes));
	assert_false(nc_lfc_list_decode_head(bytes, &back));
}

static void
test_items_round_trip_and_hash(void **state)
{
	NcLfcItem	item = {1663, 5, 16384, UINT32_MAX - 1, 77, 0xdeadbeef, 7};
	NcLfcItem	back;
	uint8_t		bytes[NC_LFC_LIST_ITEM_BYTES];
	uint64_t	hash;

	nc_lfc_list_encode_item(&item, bytes);
	nc_lfc_list_decode_item(bytes, &back);
	assert_memory_equal(&item, &back, sizeof(item));
	hash = nc_lfc_list_hash(NC_LFC_LIST_HASH_START, bytes, sizeof(bytes));
	/* the hash of the whole is that of the parts in order */
	assert_int_equal(hash, nc_lfc_list_hash(nc_lfc_list_hash(NC_LFC_LIST_HASH_START, bytes, 10),
											bytes + 10, sizeof(bytes) - 10));
	bytes[3] ^= 1;
	assert_int_not_equal(hash, nc_lfc_list_hash(NC_LFC_LIST_HASH_START, bytes, sizeof(bytes)));
}

static void
test_order(void **state)
{
	/* blocks 2, 3 and 4 of relation 20 are one group, 40 is of another one */
	NcLfcItem	items[] = {
		{1663, 5, 20, 4, 0, 0, 0}, {1663, 5, 20, 40, 0, 0, 6}, {1663, 5, 20, 3, 0, 0, 7},
		{1663, 5, 10, 9, 0, 0, 7}, {1663, 5, 20, 2, 0, 0, 1}, {1663, 4, 30, 1, 0, 0, 4},
		{1663, 5, 20, 16, 0, 0, 5}
	};
	uint32_t	blocks[] = {9, 2, 3, 4, 40, 16, 1};
	uint32_t	heats[] = {7, 7, 7, 7, 6, 5, 4};

	nc_lfc_list_sort(items, 7);
	for (int i = 0; i < 7; i++)
	{
		assert_int_equal(items[i].block, blocks[i]);
		assert_int_equal(items[i].heat, heats[i]);
	}
	nc_lfc_list_sort(items, 0);
}

/* Pages of random heat do not tear neighbours apart. */
static void
test_order_keeps_neighbours(void **state)
{
	enum
	{
		N = 4096
	};
	NcLfcItem  *items = calloc(N, sizeof(*items));
	int			runs = 1;

	for (uint32_t i = 0; i < N; i++)
		items[i] = (NcLfcItem) {1663, 5, 20, i * 1103 % N, 0, 0, i * 7919 % 104729 % 8};
	nc_lfc_list_sort(items, N);
	for (int i = 1; i < N; i++)
	{
		assert_true(items[i].heat <= items[i - 1].heat);
		runs += items[i].block != items[i - 1].block + 1;
	}
	assert_true(runs <= N / NC_LFC_LIST_GROUP);
	free(items);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_head_round_trip),
		cmocka_unit_test(test_any_damage_of_the_head_is_noticed),
		cmocka_unit_test(test_items_round_trip_and_hash),
		cmocka_unit_test(test_order),
		cmocka_unit_test(test_order_keeps_neighbours),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
