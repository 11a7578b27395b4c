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
	NcLfcItem	items[] = {
		{1663, 5, 20, 4, 0, 0, 0}, {1663, 5, 20, 3, 0, 0, 7}, {1663, 5, 10, 9, 0, 0, 7},
		{1663, 5, 20, 2, 0, 0, 7}, {1663, 4, 30, 1, 0, 0, 4}
	};
	uint32_t	blocks[] = {9, 2, 3, 1, 4};

	qsort(items, 5, sizeof(items[0]), nc_lfc_list_compare);
	for (int i = 0; i < 5; i++)
		assert_int_equal(items[i].block, blocks[i]);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_head_round_trip),
		cmocka_unit_test(test_any_damage_of_the_head_is_noticed),
		cmocka_unit_test(test_items_round_trip_and_hash),
		cmocka_unit_test(test_order),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
