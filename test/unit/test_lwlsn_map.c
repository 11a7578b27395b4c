/*
 * Proves that the bounded map of last-written LSNs may forget but never
 * answers too old: against an unbounded reference, every query of a small map
 * is at least the true LSN, whatever was given up.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "nc/cache/lwlsn_map.h"

static NcLwMap *
make(uint32_t entries)
{
	NcLwMap    *map = aligned_alloc(NC_CACHE_LINE_BYTES,
									(nc_lw_map_bytes(entries) + 63) / 64 * 64);

	memset(map, 0, nc_lw_map_bytes(entries));
	nc_lw_map_init(map, entries);
	return map;
}

static NcPageKey
key(uint32_t rel, uint32_t block)
{
	return (NcPageKey) {{1663, 5, rel, 0}, block};
}

static void
query(NcLwMap *map, uint32_t rel, uint32_t block, NcLsn *nms, NcLsn *exact)
{
	NcPageKey	page = key(rel, block);
	NcPageKey	relation = key(rel, NC_LW_RELATION);
	NcLsn		page_nms = 0,
				page_exact = 0,
				rel_nms = 0,
				unused = 0;
	bool		page_found = nc_lw_map_get(map, &page, &page_nms, &page_exact);
	bool		rel_found = nc_lw_map_get(map, &relation, &rel_nms, &unused);

	nc_lw_combine(map, page_found, page_nms, page_exact, rel_found, rel_nms, nms, exact);
}

static void
test_set_raises_and_replaces_exact(void **state)
{
	NcLwMap    *map = make(64);
	NcPageKey	k = key(7, 3);
	NcLsn		nms,
				exact;

	nc_lw_map_set(map, &k, 100, 90);
	nc_lw_map_set(map, &k, 50, 45);
	assert_true(nc_lw_map_get(map, &k, &nms, &exact));
	assert_int_equal(nms, 100);
	assert_int_equal(exact, 45);
	k.block = 4;
	assert_false(nc_lw_map_get(map, &k, &nms, &exact));
	free(map);
}

static void
test_relation_change_covers_its_pages_and_voids_exact(void **state)
{
	NcLwMap    *map = make(64);
	NcPageKey	page = key(7, 3);
	NcPageKey	relation = key(7, NC_LW_RELATION);
	NcLsn		nms,
				exact;

	nc_lw_map_set(map, &page, 100, 100);
	query(map, 7, 3, &nms, &exact);
	assert_int_equal(exact, 100);
	nc_lw_map_set(map, &relation, 200, 0);
	query(map, 7, 3, &nms, &exact);
	assert_int_equal(nms, 200);
	assert_int_equal(exact, 0);
	/* dropped again after the change: exact counts again */
	nc_lw_map_set(map, &page, 300, 300);
	query(map, 7, 3, &nms, &exact);
	assert_int_equal(exact, 300);
	free(map);
}

static void
test_floors_cover_known_pages_and_leave_exact(void **state)
{
	NcLwMap    *map = make(64);
	NcPageKey	page = key(7, 3);
	NcLsn		nms,
				exact;

	nc_lw_map_set(map, &page, 100, 100);
	nc_lw_raise(&map->hard_floor, 500);
	nc_lw_raise(&map->hard_floor, 400);
	query(map, 7, 3, &nms, &exact);
	assert_int_equal(nms, 500);
	assert_int_equal(exact, 100);
	nc_lw_raise(&map->floor, 600);
	query(map, 7, 3, &nms, &exact);
	assert_int_equal(nms, 600);
	assert_int_equal(exact, 100);
	/* a relation that was forgotten may have been this one */
	nc_lw_raise(&map->rel_floor, 100);
	query(map, 7, 3, &nms, &exact);
	assert_int_equal(exact, 0);
	free(map);
}

static void
test_forgotten_relation_voids_exact(void **state)
{
	NcLwMap    *map = make(8);	/* one bucket */
	NcPageKey	page = key(7, 3);
	NcPageKey	relation = key(7, NC_LW_RELATION);
	NcLsn		nms,
				exact;

	nc_lw_map_set(map, &relation, 90, 0);
	nc_lw_map_set(map, &page, 100, 95);
	query(map, 7, 3, &nms, &exact);
	assert_int_equal(exact, 95);
	for (uint32_t block = 10; block < 17; block++)
	{
		NcPageKey	other = key(8, block);

		nc_lw_map_set(map, &other, 1000 + block, 1000 + block);
	}
	/* the relation gave way first; it changed before the page was dropped */
	query(map, 7, 3, &nms, &exact);
	assert_int_equal(exact, 95);
	assert_int_equal(atomic_load(&map->rel_floor), 90);
	free(map);
}

static void
test_database_voids_exact(void **state)
{
	NcLwMap    *map = make(64);
	NcPageKey	page = key(7, 3);
	NcPageKey	other = {{1663, 6, 7, 0}, 3};
	NcLsn		nms,
				exact;

	nc_lw_map_set(map, &page, 100, 100);
	nc_lw_map_set(map, &other, 100, 100);
	for (uint32_t b = 0; b < map->nbuckets; b++)
		nc_lw_map_forget_database(map, b, 5);
	assert_true(nc_lw_map_get(map, &page, &nms, &exact));
	assert_int_equal(nms, 100);
	assert_int_equal(exact, 0);
	assert_true(nc_lw_map_get(map, &other, &nms, &exact));
	assert_int_equal(exact, 100);
	free(map);
}

#define RELS 4
#define BLOCKS 200

static void
test_small_map_is_late_but_never_too_old(void **state)
{
	static NcLsn truth[RELS][BLOCKS],
				last_drop[RELS][BLOCKS],
				rel_truth[RELS];
	NcLwMap    *map = make(64);
	unsigned	seed = 20261120;
	NcLsn		now = 1000;

	printf("seed %u\n", seed);
	for (int step = 0; step < 200000; step++)
	{
		uint32_t	rel = rand_r(&seed) % RELS;
		uint32_t	block = rand_r(&seed) % BLOCKS;
		NcLsn		nms,
					exact;

		now += 8;
		if (rand_r(&seed) % 50 == 0)
		{
			NcPageKey	relation = key(rel, NC_LW_RELATION);

			nc_lw_map_set(map, &relation, now, 0);
			rel_truth[rel] = now;
		}
		else if (rand_r(&seed) % 2 == 0)
		{
			NcPageKey	page = key(rel, block);

			nc_lw_map_set(map, &page, now, now);
			truth[rel][block] = last_drop[rel][block] = now;
		}
		query(map, rel, block, &nms, &exact);
		assert_true(nms >= truth[rel][block]);
		assert_true(nms >= rel_truth[rel]);
		assert_true(exact == 0 || exact == last_drop[rel][block]);
		assert_true(exact == 0 || exact > rel_truth[rel]);
		assert_true(nms <= now);
	}
	free(map);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_set_raises_and_replaces_exact),
		cmocka_unit_test(test_relation_change_covers_its_pages_and_voids_exact),
		cmocka_unit_test(test_floors_cover_known_pages_and_leave_exact),
		cmocka_unit_test(test_forgotten_relation_voids_exact),
		cmocka_unit_test(test_database_voids_exact),
		cmocka_unit_test(test_small_map_is_late_but_never_too_old),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
