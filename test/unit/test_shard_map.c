/*
 * test_shard_map.c
 *	  The shard hash against published vectors, and the list of page servers
 *	  with every mistake that it may contain.
 *
 * Runs without a server.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "nc/shard/shard_map.h"

#define STRIPE 2048

/* ---- the hash ---- */

typedef struct HashCase
{
	uint32_t	rel;
	uint32_t	block;
	uint32_t	hash;
	uint32_t	shard[4];		/* of 2, 4, 8, 16 */
} HashCase;

static const HashCase hash_cases[] = {
	{1259, 0, 0xbef60bf2, {0, 2, 2, 2}},
	{1259, 2047, 0xbef60bf2, {0, 2, 2, 2}},
	{1259, 2048, 0x6c0422bd, {1, 1, 5, 13}},
	{1249, 0, 0x5457a3bd, {1, 1, 5, 13}},
	{16384, 0, 0x2607364c, {0, 0, 4, 12}},
	{16384, 2048, 0x9555de87, {1, 3, 7, 7}},
	{16384, 4096, 0xf50c7356, {0, 2, 6, 6}},
	{16385, 131071, 0xc5323ed1, {1, 1, 1, 1}},
	{24576, 1000000, 0x4d532d81, {1, 1, 1, 1}},
};

#define HASH_CASES (sizeof(hash_cases) / sizeof(hash_cases[0]))

static void
blocks_go_where_the_vectors_say(void **state)
{
	for (size_t i = 0; i < HASH_CASES; i++)
	{
		const HashCase *c = &hash_cases[i];
		NcRelKey	rel = {1663, 5, c->rel, NC_FORK_MAIN};
		uint32_t	h = nc_hash_combine(nc_murmur32(c->rel), nc_murmur32(c->block / STRIPE));

		assert_int_equal(h, c->hash);
		for (int n = 0; n < 4; n++)
			assert_int_equal(nc_shard_of_block(2u << n, STRIPE, &rel, c->block), c->shard[n]);
		assert_int_equal(nc_shard_of_block(1, STRIPE, &rel, c->block), 0);
		assert_int_equal(nc_shard_of_block(127, STRIPE, &rel, c->block), c->hash % 127);
	}
}

static void
the_page_servers_own_vectors_hold(void **state)
{
	NcRelKey	rel = {1663, 5, 0x400c, NC_FORK_MAIN};

	assert_int_equal(nc_murmur32(0), 0);
	assert_int_equal(nc_hash_combine(0xb1ff3b40, 0), 0xfb7923c9);
	assert_int_equal(nc_shard_of_block(10, 32768, &rel, 0x7d06), 8);
	assert_int_equal(nc_murmur32(1259), 0xde2c5f0e);
	assert_int_equal(nc_murmur32(1249), 0xf331893a);
	assert_int_equal(nc_murmur32(16384), 0x53085746);
	assert_int_equal(nc_murmur32(16385), 0x0aebc140);
	assert_int_equal(nc_murmur32(24576), 0x2571a304);
}

/* CREATE DATABASE copies files between databases; they must not change shard. */
static void
only_relation_and_stripe_are_hashed(void **state)
{
	NcRelKey	rel = {1663, 5, 16384, NC_FORK_MAIN};
	NcRelKey	moved = {99, 77, 16384, NC_FORK_FSM};

	for (uint32_t block = 0; block < 100 * STRIPE; block += STRIPE / 2)
	{
		assert_int_equal(nc_shard_of_block(16, STRIPE, &moved, block),
						 nc_shard_of_block(16, STRIPE, &rel, block));
		assert_int_equal(nc_shard_of_block(16, STRIPE, &rel, block + STRIPE / 2 - 1),
						 nc_shard_of_block(16, STRIPE, &rel, block));
	}
}

static void
the_init_fork_is_on_shard_zero(void **state)
{
	for (size_t i = 0; i < HASH_CASES; i++)
	{
		NcRelKey	rel = {1663, 5, hash_cases[i].rel, NC_FORK_INIT};

		for (uint32_t n = 1; n <= NC_SHARDS_MAX; n++)
			assert_int_equal(nc_shard_of_block(n, STRIPE, &rel, hash_cases[i].block), 0);
	}
}

/* ---- the list ---- */

static NcShardMap map;
static char err[160];

static bool
parse(const char *list)
{
	memset(err, 0, sizeof(err));
	return nc_shard_map_parse(list, STRIPE, &map, err, sizeof(err));
}

/* The list is refused, the reason names the element, and the map is as it was. */
static void
assert_refused(const char *list, uint32_t stripe, const char *named)
{
	static NcShardMap before;

	memset(&map, 0x5a, sizeof(map));
	before = map;
	memset(err, 0, sizeof(err));
	assert_false(nc_shard_map_parse(list, stripe, &map, err, sizeof(err)));
	assert_memory_equal(&map, &before, sizeof(map));
	if (strstr(err, named) == NULL)
		fail_msg("\"%s\" does not name \"%s\"", err, named);
}

static void
a_list_becomes_numbered_shards(void **state)
{
	memset(&map, 0x5a, sizeof(map));
	assert_true(parse("postgresql://no_user@a:64000,host=b port=64001 ,\thost=c\n"));
	assert_int_equal(map.shard_count, 3);
	assert_int_equal(map.stripe_blocks, STRIPE);
	assert_string_equal(map.conninfo[0], "postgresql://no_user@a:64000");
	assert_string_equal(map.conninfo[1], "host=b port=64001");
	assert_string_equal(map.conninfo[2], "host=c");
	assert_string_equal(map.conninfo[3], "");
	assert_string_equal(err, "");
}

static void
one_trailing_comma_is_ignored(void **state)
{
	assert_true(parse("host=a,"));
	assert_int_equal(map.shard_count, 1);
	assert_string_equal(map.conninfo[0], "host=a");
	assert_true(parse("host=a,host=b , "));
	assert_int_equal(map.shard_count, 2);
}

/* As libpq's own strings name them. */
static void
a_shard_may_name_several_hosts(void **state)
{
	static const struct
	{
		const char *list;
		uint32_t	count;
		const char *first;
		const char *second;
	}			of[] = {
		{"host=a,b port=1,2", 1, "host=a,b port=1,2", ""},
		{"host=a,b port=1,2,host=c,d port=3", 2, "host=a,b port=1,2", "host=c,d port=3"},
		{"port=1,2 host=a,b , port = 3", 2, "port=1,2 host=a,b", "port = 3"},
		{"postgresql://a:1,b:2/x?sslmode=disable,host=c", 2, "postgresql://a:1,b:2/x?sslmode=disable", "host=c"},
		{"host=c,postgres://a,b", 2, "host=c", "postgres://a,b"},
		{"hostaddr=10.0.0.1,::1 port=1 , host=c,", 2, "hostaddr=10.0.0.1,::1 port=1", "host=c"},
		{"host=a,b=c", 2, "host=a", "b=c"},
	};

	for (size_t i = 0; i < sizeof(of) / sizeof(of[0]); i++)
	{
		assert_true(parse(of[i].list));
		assert_int_equal(map.shard_count, of[i].count);
		assert_string_equal(map.conninfo[0], of[i].first);
		assert_string_equal(map.conninfo[1], of[i].second);
	}
	assert_refused("host=a,b,,host=c", STRIPE, "shard 1");
}

static void
an_empty_list_is_no_page_server(void **state)
{
	static const char *const empty[] = {"", " ", " \t\r\n", NULL};

	for (size_t i = 0; i < sizeof(empty) / sizeof(empty[0]); i++)
	{
		memset(&map, 0x5a, sizeof(map));
		assert_true(parse(empty[i]));
		assert_int_equal(map.shard_count, 0);
		assert_int_equal(map.stripe_blocks, STRIPE);
	}
}

static void
empty_elements_are_refused_by_number(void **state)
{
	assert_refused(",", STRIPE, "shard 0");
	assert_refused(",host=a", STRIPE, "shard 0");
	assert_refused("host=a,,", STRIPE, "shard 1");
	assert_refused("host=a, ,host=c", STRIPE, "shard 1");
	assert_refused("host=a,host=b, \t,", STRIPE, "shard 2");
}

static void
a_stripe_of_nothing_is_refused(void **state)
{
	assert_refused("host=a", 0, "stripe size");
	assert_refused("", 0, "stripe size");
}

/* "port=N," repeated; the last one without its comma. */
static char *
list_of(int n)
{
	char	   *list = calloc(1, (size_t) n * 9 + 1);
	size_t		at = 0;

	for (int i = 0; i < n; i++)
		at += (size_t) sprintf(list + at, "%sport=%d", i > 0 ? "," : "", i);
	return list;
}

static void
the_number_of_shards_is_bounded(void **state)
{
	char	   *most = list_of(NC_SHARDS_MAX);
	char	   *more = list_of(NC_SHARDS_MAX + 1);
	char		trailing[NC_SHARDS_MAX * 9 + 2];

	assert_true(parse(most));
	assert_int_equal(map.shard_count, 128);
	assert_string_equal(map.conninfo[0], "port=0");
	assert_string_equal(map.conninfo[127], "port=127");
	snprintf(trailing, sizeof(trailing), "%s,", most);
	assert_true(parse(trailing));
	assert_int_equal(map.shard_count, 128);
	assert_refused(more, STRIPE, "shard 128");
	free(most);
	free(more);
}

static void
the_length_of_a_connection_string_is_bounded(void **state)
{
	char		list[NC_CONNINFO_BYTES_MAX + 128];

	snprintf(list, sizeof(list), "host=a, port=%0250d ", 1);
	assert_true(parse(list));
	assert_int_equal(map.shard_count, 2);
	assert_int_equal(strlen(map.conninfo[1]), 255);
	snprintf(list, sizeof(list), "host=a,port=%0251d", 1);
	assert_refused(list, STRIPE, "shard 1");
	assert_non_null(strstr(err, "256 bytes"));
}

/* A connection string may hold a password; it must not reach a log. */
static void
reasons_do_not_quote_the_list(void **state)
{
	char		list[NC_CONNINFO_BYTES_MAX + 128];

	snprintf(list, sizeof(list), "host=a password=secret %0300d", 1);
	assert_refused(list, STRIPE, "shard 0");
	assert_null(strstr(err, "secret"));
}

static void
a_small_error_buffer_is_respected(void **state)
{
	char		small[9];

	memset(small, 0x5a, sizeof(small));
	assert_false(nc_shard_map_parse(",", STRIPE, &map, small, 8));
	assert_string_equal(small, "shard 0");
	assert_int_equal(small[8], 0x5a);
	assert_false(nc_shard_map_parse(",", STRIPE, &map, NULL, 0));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(blocks_go_where_the_vectors_say),
		cmocka_unit_test(the_page_servers_own_vectors_hold),
		cmocka_unit_test(only_relation_and_stripe_are_hashed),
		cmocka_unit_test(the_init_fork_is_on_shard_zero),
		cmocka_unit_test(a_list_becomes_numbered_shards),
		cmocka_unit_test(one_trailing_comma_is_ignored),
		cmocka_unit_test(a_shard_may_name_several_hosts),
		cmocka_unit_test(an_empty_list_is_no_page_server),
		cmocka_unit_test(empty_elements_are_refused_by_number),
		cmocka_unit_test(a_stripe_of_nothing_is_refused),
		cmocka_unit_test(the_number_of_shards_is_bounded),
		cmocka_unit_test(the_length_of_a_connection_string_is_bounded),
		cmocka_unit_test(reasons_do_not_quote_the_list),
		cmocka_unit_test(a_small_error_buffer_is_respected),
	};

	return cmocka_run_group_tests_name("shard_map", tests, NULL, NULL);
}
