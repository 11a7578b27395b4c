/*
 * Proves of the index of the local file cache: a page is found only in the
 * version last put, whatever else happens between the lookup and the read of
 * the file; a scan does not push out what is used; the size limit holds.  By
 * single steps, by random operations against an array that remembers
 * everything, and by threads on a real file.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <cmocka.h>

#include "../../src/cache/lfc_int.h"
#include "nc/cache/lfc_index.h"

typedef union Page
{
	uint8_t		bytes[NC_PAGE_BYTES];
	uint64_t	words[NC_PAGE_BYTES / 8];
} Page;

static NcLfc *
make(uint32_t nsets, uint32_t noutbox)
{
	NcLfc	   *c = aligned_alloc(NC_CACHE_LINE_BYTES,
								  (nc_lfc_bytes(nsets, noutbox) + 63) / 64 * 64);

	nc_lfc_init(c, nsets, noutbox);
	nc_lfc_switch(c, true);
	return c;
}

/* With other lanes than so many sets would have. */
static NcLfc *
make_lanes(uint32_t nsets, uint32_t noutbox, uint32_t lanes)
{
	NcLfc	   *c = make(nsets, noutbox);

	c->lanes = lanes;
	return c;
}

static NcPageKey
key(uint32_t rel, uint32_t block)
{
	return (NcPageKey) {{1663, 5, rel, NC_FORK_MAIN}, block};
}

static void
paint(Page *page, uint32_t block, uint64_t version)
{
	for (int i = 0; i < NC_PAGE_BYTES / 8; i++)
		page->words[i] = version * UINT64_C(0x9e3779b97f4a7c15) + block + (uint64_t) i;
}

static NcLfcPut
put(NcLfc *c, uint32_t block, uint64_t version)
{
	NcPageKey	k = key(7, block);
	Page		page;
	NcLfcNote	note;

	paint(&page, block, version);
	return nc_lfc_put(c, &k, page.bytes, &note);
}

/* The file of single-threaded tests. */
static Page *file;

static void
make_file(uint32_t nsets)
{
	file = realloc(file, (size_t) nsets * NC_LFC_WAYS * sizeof(Page));
	memset(file, 0xee, (size_t) nsets * NC_LFC_WAYS * sizeof(Page));
}

static void
write_all(NcLfc *c)
{
	NcLfcJob	job;

	while (nc_lfc_next(c, &job))
	{
		memcpy(&file[job.ref.place], job.page, sizeof(Page));
		nc_lfc_done(c, &job, true);
	}
}

/* Reads a block as a backend does: 0 = miss, else the version is compared. */
static bool
read_is(NcLfc *c, uint32_t block, uint64_t version)
{
	NcPageKey	k = key(7, block);
	Page		page,
				want;
	NcLfcRef	ref;

	switch (nc_lfc_find(c, &k, page.bytes, &ref))
	{
		case NC_LFC_MISS:
			return false;
		case NC_LFC_ON_DISK:
			page = file[ref.place];
			if (!nc_lfc_still(c, &ref) || nc_lfc_sum(&k, page.bytes) != ref.sum)
				return false;
			break;
		case NC_LFC_COPIED:
			assert_int_equal(nc_lfc_sum(&k, page.bytes), ref.sum);
			break;
	}
	paint(&want, block, version);
	assert_memory_equal(&page, &want, sizeof(page));
	return true;
}

/* ---- single steps ---- */

static void
test_put_is_found_before_and_after_it_is_written(void **state)
{
	NcLfc	   *c = make(2, 16);

	make_file(2);
	assert_false(read_is(c, 1, 1));
	assert_int_equal(put(c, 1, 1), NC_LFC_PUT_NEW);
	assert_true(read_is(c, 1, 1));
	assert_int_equal(nc_lfc_outbox_used(c), 1);
	write_all(c);
	assert_int_equal(nc_lfc_outbox_used(c), 0);
	assert_true(read_is(c, 1, 1));
	assert_int_equal(put(c, 1, 2), NC_LFC_PUT_REPLACED);
	assert_true(read_is(c, 1, 2));
	write_all(c);
	assert_true(read_is(c, 1, 2));
	assert_int_equal(nc_lfc_used(c), 1);
	assert_int_equal(nc_lfc_forget(c, &(NcPageKey) {{1663, 5, 7, 0}, 1}), 1);
	assert_false(read_is(c, 1, 2));
	assert_int_equal(nc_lfc_used(c), 0);
	free(c);
}

static void
test_change_between_lookup_and_read_is_a_miss(void **state)
{
	NcLfc	   *c = make(1, 16);
	NcPageKey	k = key(7, 3);
	NcLfcRef	ref;
	Page		page;

	make_file(1);
	put(c, 3, 1);
	write_all(c);
	assert_int_equal(nc_lfc_find(c, &k, page.bytes, &ref), NC_LFC_ON_DISK);
	assert_true(nc_lfc_still(c, &ref));
	put(c, 3, 2);
	assert_false(nc_lfc_still(c, &ref));
	write_all(c);
	assert_false(nc_lfc_still(c, &ref));
	assert_int_equal(nc_lfc_find(c, &k, page.bytes, &ref), NC_LFC_ON_DISK);
	nc_lfc_forget(c, &k);
	put(c, 3, 2);
	write_all(c);
	assert_false(nc_lfc_still(c, &ref));
	free(c);
}

static void
test_write_overtaken_by_a_newer_version_is_not_published(void **state)
{
	NcLfc	   *c = make(1, 16);
	NcLfcJob	old,
				job;

	make_file(1);
	put(c, 3, 1);
	assert_true(nc_lfc_next(c, &old));
	put(c, 3, 2);
	memcpy(&file[old.ref.place], old.page, sizeof(Page));
	nc_lfc_done(c, &old, true);
	/* the old page is in the file, and nobody may take it for the new one */
	assert_true(read_is(c, 3, 2));
	assert_true(nc_lfc_next(c, &job));
	nc_lfc_done(c, &job, false);
	assert_false(read_is(c, 3, 2));
	assert_false(nc_lfc_next(c, &job));
	assert_int_equal(nc_lfc_outbox_used(c), 0);
	assert_int_equal(nc_lfc_used(c), 0);
	free(c);
}

static void
test_foreign_and_torn_blocks_do_not_pass(void **state)
{
	NcLfc	   *c = make(1, 16);
	NcPageKey	k = key(7, 3),
				other = key(8, 3);
	NcLfcRef	ref;
	Page		page;

	make_file(1);
	put(c, 3, 1);
	write_all(c);
	assert_true(read_is(c, 3, 1));
	assert_int_equal(nc_lfc_find(c, &k, page.bytes, &ref), NC_LFC_ON_DISK);
	assert_int_not_equal(nc_lfc_sum(&other, file[ref.place].bytes), ref.sum);
	for (int bit = 0; bit < NC_PAGE_BYTES * 8; bit += 997)
	{
		file[ref.place].bytes[bit / 8] ^= 1 << bit % 8;
		assert_false(read_is(c, 3, 1));
		file[ref.place].bytes[bit / 8] ^= 1 << bit % 8;
	}
	/* halves of two versions */
	paint(&page, 3, 2);
	memcpy(&file[ref.place].bytes[4096], &page.bytes[4096], 4096);
	assert_false(read_is(c, 3, 1));
	nc_lfc_discard(c, &ref);
	assert_int_equal(nc_lfc_used(c), 0);
	free(c);
}

/* Words that changed places, and any bit, change the sum, also of pages full of one byte. */
static void
test_sum_sees_bits_and_order(void **state)
{
	NcPageKey	k = key(7, 3);
	Page		page;

	for (int fill = 0; fill < 3; fill++)
	{
		uint32_t	sum;
		Page		swapped;

		memset(page.bytes, fill == 0 ? 0 : 0xff, sizeof(page));
		if (fill == 2)
			paint(&page, 3, 1);
		sum = nc_lfc_sum(&k, page.bytes);
		for (int bit = 0; bit < NC_PAGE_BYTES * 8; bit += 3)
		{
			page.bytes[bit / 8] ^= 1 << bit % 8;
			assert_int_not_equal(nc_lfc_sum(&k, page.bytes), sum);
			page.bytes[bit / 8] ^= 1 << bit % 8;
		}
		/* two words that differ, at distances of a word, a lane's step and half a page */
		memset(page.bytes, 0x5a, 8);
		memset(page.bytes + NC_PAGE_BYTES / 2, 0xa5, 8);
		sum = nc_lfc_sum(&k, page.bytes);
		for (size_t distance = 8; distance <= NC_PAGE_BYTES / 2; distance *= 2)
		{
			swapped = page;
			memcpy(swapped.bytes, page.bytes + distance, 8);
			memcpy(swapped.bytes + distance, page.bytes, 8);
			assert_int_not_equal(nc_lfc_sum(&k, swapped.bytes), sum);
		}
	}
}

static void
test_reservation_ends_when_the_page_changes(void **state)
{
	NcLfc	   *c = make(1, 16);
	NcPageKey	k = key(7, 3);
	NcRelKey	rel = k.rel;
	NcLfcRef	ref;
	Page		page;

	make_file(1);
	paint(&page, 3, 1);
	assert_true(nc_lfc_reserve(c, &k, &ref));
	assert_false(nc_lfc_reserve(c, &k, &ref));
	assert_false(read_is(c, 3, 1));
	put(c, 3, 2);
	assert_false(nc_lfc_fill(c, &k, &ref, page.bytes));
	assert_true(read_is(c, 3, 2));
	nc_lfc_forget_range(c, &rel, 3, 4);

	assert_true(nc_lfc_reserve(c, &k, &ref));
	nc_lfc_forget_range(c, &rel, 0, UINT32_MAX);
	assert_false(nc_lfc_fill(c, &k, &ref, page.bytes));
	assert_true(nc_lfc_reserve(c, &k, &ref));
	nc_lfc_forget_database(c, 5);
	assert_false(nc_lfc_fill(c, &k, &ref, page.bytes));
	assert_true(nc_lfc_reserve(c, &k, &ref));
	assert_true(nc_lfc_fill(c, &k, &ref, page.bytes));
	assert_true(read_is(c, 3, 1));
	write_all(c);
	assert_true(read_is(c, 3, 1));
	assert_int_equal(nc_lfc_outbox_used(c), 0);
	free(c);
}

static void
test_without_staging_page_the_old_version_is_gone(void **state)
{
	NcLfc	   *c = make(4, 2);

	make_file(4);
	put(c, 1, 1);
	write_all(c);
	put(c, 2, 1);
	put(c, 3, 1);
	assert_int_equal(put(c, 1, 2), NC_LFC_PUT_DROPPED);
	assert_false(read_is(c, 1, 1));
	assert_int_equal(put(c, 4, 1), NC_LFC_PUT_DROPPED);
	write_all(c);
	assert_int_equal(put(c, 4, 1), NC_LFC_PUT_NEW);
	free(c);
}

static uint64_t
file_blocks(const NcLfc *c)
{
	NcLfcFile	f = nc_lfc_file(c);

	return (uint64_t) f.stretches * f.blocks;
}

static uint32_t
file_used(const NcLfc *c)
{
	NcLfcFile	f = nc_lfc_file(c);

	return f.stretches * f.used;
}

static void
limit_and_switch(uint32_t lanes)
{
	NcLfc	   *c = make_lanes(4, 256, lanes);
	uint32_t	found = 0;

	make_file(4);
	for (uint32_t b = 0; b < 1000; b++)
	{
		put(c, b, 1);
		write_all(c);
	}
	assert_int_equal(nc_lfc_used(c), 4 * NC_LFC_WAYS);
	nc_lfc_set_limit(c, 4 * 12);
	assert_int_equal(nc_lfc_limit(c), 48);
	assert_int_equal(file_blocks(c), 64 * lanes);
	assert_int_equal(file_used(c), 48);
	assert_in_range(nc_lfc_used(c), 1, 48);
	/* nothing behind the places in use is looked at */
	for (int i = 48; i < 4 * NC_LFC_WAYS; i++)
		memset(&file[i], 0xdd, sizeof(Page));
	for (uint32_t b = 0; b < 1000; b++)
		found += read_is(c, b, 1);
	assert_int_equal(found, nc_lfc_used(c));
	for (uint32_t b = 1000; b < 2000; b++)
	{
		put(c, b, 1);
		write_all(c);
		assert_in_range(nc_lfc_used(c), 1, 48);
	}
	assert_int_equal(nc_lfc_used(c), 48);
	/* sets are halved as long as they can hold the rest, and odd numbers are no trouble */
	nc_lfc_set_limit(c, 200);
	assert_int_equal(file_blocks(c), 4 * NC_LFC_WAYS);
	assert_int_equal(file_used(c), 200);
	nc_lfc_set_limit(c, 128);
	assert_int_equal(file_blocks(c), (lanes == 4 ? 4 : 2) * NC_LFC_WAYS);
	assert_int_equal(file_used(c), 128);
	assert_int_equal(nc_lfc_limit(c), 128);
	for (uint32_t b = 0; b < 1000; b++)
	{
		put(c, b, 1);
		write_all(c);
	}
	assert_int_equal(nc_lfc_used(c), 128);
	nc_lfc_set_limit(c, 0);
	assert_int_equal(file_blocks(c), 0);
	assert_int_equal(nc_lfc_used(c), 0);
	assert_int_equal(put(c, 1, 1), NC_LFC_PUT_DROPPED);
	nc_lfc_set_limit(c, UINT64_MAX);
	assert_int_equal(nc_lfc_limit(c), 4 * NC_LFC_WAYS);
	assert_int_equal(put(c, 1, 1), NC_LFC_PUT_NEW);
	nc_lfc_switch(c, false);
	assert_int_equal(nc_lfc_used(c), 0);
	assert_int_equal(put(c, 1, 1), NC_LFC_PUT_OFF);
	assert_false(read_is(c, 1, 1));
	nc_lfc_switch(c, true);
	assert_int_equal(put(c, 1, 2), NC_LFC_PUT_NEW);
	write_all(c);
	assert_true(read_is(c, 1, 2));
	free(c);
}

static void
test_limit_and_switch(void **state)
{
	limit_and_switch(1);
	limit_and_switch(2);
	limit_and_switch(4);
}

/* ---- neighbours ---- */

static void
test_each_place_has_one_block_of_the_file(void **state)
{
	static const uint32_t sizes[] = {1, 3, 4, 16, 200, 512};

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
	{
		uint32_t	n = sizes[i];
		NcLfc	   *c = make(n, 16);
		uint8_t    *seen = calloc(n, NC_LFC_WAYS);

		assert_int_equal(nc_lfc_lanes(c), n == 200 ? 8 : n == 3 ? 1 : n < 16 ? n : 16);
		for (uint32_t s = 0; s < n; s++)
		{
			for (uint32_t w = 0; w < NC_LFC_WAYS; w++)
			{
				uint32_t	place = nc_lfc_place(c, s, w);
				uint8_t		way;

				assert_in_range(place, 0, n * NC_LFC_WAYS - 1);
				assert_int_equal(seen[place]++, 0);
				assert_ptr_equal(nc_lfc_set_of_place(c, place, &way), &c->sets[s]);
				assert_int_equal(way, w);
			}
		}
		free(seen);
		free(c);
	}
	/* what is left out of sizes that no number of lanes divides is less than 1/32 */
	for (uint64_t n = 1; n < 5000; n++)
		assert_in_range(nc_lfc_sets(n * NC_LFC_WAYS), n - n / 32, n);
}

/* The first block of a group: as many as there are lanes are behind it, itself included. */
static uint32_t
group_start(NcLfc *c, uint32_t block)
{
	for (;; block++)
	{
		NcPageKey	k = key(7, block);

		if ((nc_lfc_home(c, nc_lfc_hash(&k), nc_lfc_shape(c)) - c->sets) % c->lanes == 0)
			return block;
	}
}

static uint32_t
find_behind(NcLfc *c, uint32_t block, uint32_t most, NcLfcRef *refs)
{
	NcPageKey	k = key(7, block);
	NcLfcRef	ref;
	Page		page;
	uint32_t	n;

	assert_int_equal(nc_lfc_find(c, &k, page.bytes, &ref), NC_LFC_ON_DISK);
	n = nc_lfc_find_behind(c, &k, &ref, most, refs);
	for (uint32_t i = 0; i < n; i++)
		assert_int_equal(refs[i].place, ref.place + i + 1);
	return n;
}

static void
test_neighbours_are_behind_each_other(void **state)
{
	NcLfc	   *c = make(32, 64);
	NcLfcRef	refs[NC_LFC_LANES_MAX - 1];
	uint32_t	b = group_start(c, 100);
	NcPageKey	k;
	Page		page;
	NcLfcNote	note;

	make_file(32);
	for (uint32_t i = 0; i < 3 * NC_LFC_LANES_MAX; i++)
		put(c, b + i, 1);
	write_all(c);
	assert_int_equal(find_behind(c, b, 15, refs), 15);
	for (uint32_t i = 0; i < 15; i++)
	{
		k = key(7, b + 1 + i);
		assert_true(nc_lfc_still(c, &refs[i]));
		assert_int_equal(nc_lfc_sum_of_copy(&k, file[refs[i].place].bytes, page.bytes), refs[i].sum);
		assert_memory_equal(&page, &file[refs[i].place], sizeof(page));
	}
	/* not more than was asked for, and not of the next group */
	assert_int_equal(find_behind(c, b, 4, refs), 4);
	assert_int_equal(find_behind(c, b + 10, 15, refs), 5);
	assert_int_equal(find_behind(c, b + 15, 15, refs), 0);

	/* what has changed since is told by its place; one that is to be written is not read */
	assert_int_equal(find_behind(c, b, 15, refs), 15);
	put(c, b + 5, 2);
	assert_true(nc_lfc_still(c, &refs[3]));
	assert_false(nc_lfc_still(c, &refs[4]));
	assert_int_equal(find_behind(c, b, 15, refs), 4);
	write_all(c);
	assert_false(nc_lfc_still(c, &refs[4]));
	assert_int_equal(find_behind(c, b, 15, refs), 15);

	/* one that was forgotten, and one of another relation in its place */
	k = key(7, b + 7);
	nc_lfc_forget(c, &k);
	assert_false(nc_lfc_still(c, &refs[6]));
	assert_int_equal(find_behind(c, b, 15, refs), 6);
	for (uint32_t other = 0; find_behind(c, b, 15, refs) == 6 && other < 100000; other++)
	{
		NcLfcRef	ref;

		k = key(23, other);
		paint(&page, other, 3);
		nc_lfc_put(c, &k, page.bytes, &note);
		write_all(c);
		if (nc_lfc_find(c, &k, page.bytes, &ref) == NC_LFC_ON_DISK && ref.place == refs[0].place + 6)
			break;
		nc_lfc_forget(c, &k);
	}
	assert_int_equal(find_behind(c, b, 15, refs), 6);
	free(c);
}

/* When the number of sets changes, a page that is left behind is not found behind another either. */
static void
test_neighbours_that_belong_elsewhere(void **state)
{
	NcLfc	   *c = make_lanes(64, 64, 16);
	uint32_t	b = 0;
	uint32_t	half = 1 << 8 | NC_LFC_WAYS;
	NcLfcRef	refs[NC_LFC_LANES_MAX - 1];
	NcLfcRef	ref;
	NcPageKey	k;
	Page		page;

	make_file(64);
	do
	{
		b = group_start(c, b + 1);
		k = key(7, b);
	} while (nc_lfc_home(c, nc_lfc_hash(&k), nc_lfc_shape(c)) == nc_lfc_home(c, nc_lfc_hash(&k), half));
	put(c, b, 1);
	put(c, b + 1, 1);
	write_all(c);
	assert_int_equal(nc_lfc_find(c, &k, page.bytes, &ref), NC_LFC_ON_DISK);
	assert_int_equal(nc_lfc_find_behind(c, &k, &ref, 15, refs), 1);
	/* as nc_lfc_set_limit() between its two steps: the newer version goes to another set */
	atomic_store(&c->shape, half);
	put(c, b + 1, 2);
	assert_int_equal(nc_lfc_find_behind(c, &k, &ref, 15, refs), 0);
	free(c);
}

/* Pages of small relations spread over all sets. */
static void
test_small_relations_spread(void **state)
{
	NcLfc	   *c = make(64, 64);
	uint32_t	most = 0;
	uint32_t	n[64] = {0};

	for (uint32_t rel = 16384; rel < 16384 + 6400; rel++)
	{
		NcPageKey	k = key(rel, 0);
		uint32_t	s = (uint32_t) (nc_lfc_home(c, nc_lfc_hash(&k), nc_lfc_shape(c)) - c->sets);

		if (++n[s] > most)
			most = n[s];
	}
	assert_in_range(most, 100, 160);
	free(c);
}

/* All places of a set busy: a put gives up instead of waiting or pushing out. */
static void
test_all_places_busy(void **state)
{
	NcLfc	   *c = make(1, 256);

	make_file(1);
	for (uint32_t b = 0; b < NC_LFC_WAYS; b++)
		assert_int_equal(put(c, b, 1), NC_LFC_PUT_NEW);
	assert_int_equal(put(c, 100, 1), NC_LFC_PUT_DROPPED);
	assert_true(read_is(c, 5, 1));
	write_all(c);
	assert_int_equal(put(c, 100, 1), NC_LFC_PUT_NEW);
	free(c);
}

static void
test_scan_does_not_push_out_what_is_used(void **state)
{
	uint32_t	nsets = 32,
				hot = nsets * NC_LFC_WAYS / 2,
				after = 0;
	NcLfc	   *c = make(nsets, 256);

	make_file(nsets);
	for (int round = 0; round < 4; round++)
	{
		for (uint32_t b = 0; b < hot; b++)
		{
			if (!read_is(c, b, 1))
				put(c, b, 1);
			write_all(c);
		}
	}
	/* ten times the cache, each page once, while the hot pages are used now and then */
	for (uint32_t b = 0; b < 10 * nsets * NC_LFC_WAYS; b++)
	{
		put(c, 1000000 + b, 1);
		write_all(c);
		if (b % 20 == 0)
		{
			uint32_t	h = b / 20 % hot;

			if (!read_is(c, h, 1))
				put(c, h, 1);
		}
	}
	for (uint32_t b = 0; b < hot; b++)
		after += read_is(c, b, 1);
	printf("%u of %u hot pages are there after a scan of 10 times the cache\n", after, hot);
	assert_in_range(after, hot * 97 / 100, hot);
	free(c);
}

static void
test_items_come_back_and_senseless_ones_do_not(void **state)
{
	NcLfc	   *a = make(3, 64);
	NcLfc	   *b = make(3, 64);
	NcLfcItem	items[NC_LFC_WAYS];
	uint32_t	total = 0;

	make_file(3);
	for (uint32_t i = 0; i < 100; i++)
	{
		put(a, i, 1);
		write_all(a);
		if (i % 2 == 0)
			(void) read_is(a, i, 1);
	}
	for (uint32_t s = 0; s < 3; s++)
	{
		uint32_t	n = nc_lfc_list(a, s, items);

		for (uint32_t i = 0; i < n; i++)
		{
			NcLfcItem	bad = items[i];

			bad.place = 3 * NC_LFC_WAYS;
			assert_false(nc_lfc_adopt(b, &bad));
			bad.place = UINT32_MAX;
			assert_false(nc_lfc_adopt(b, &bad));
			bad.place = items[i].place + NC_LFC_WAYS;
			assert_false(nc_lfc_adopt(b, &bad));
			assert_true(nc_lfc_adopt(b, &items[i]));
			assert_false(nc_lfc_adopt(b, &items[i]));
			total++;
		}
	}
	assert_int_equal(total, nc_lfc_used(a));
	assert_int_equal(total, nc_lfc_used(b));
	for (uint32_t i = 0; i < 100; i++)
		assert_int_equal(read_is(b, i, 1), read_is(a, i, 1));
	free(a);
	free(b);
}

static void
test_memory_is_small(void **state)
{
	for (uint64_t mb = 512; mb <= 1024 * 1024; mb *= 4)
	{
		uint64_t	blocks = mb * 128;
		size_t		bytes = nc_lfc_bytes(nc_lfc_sets(blocks), nc_lfc_outbox_pages(blocks));

		assert_in_range(bytes, 0, mb * 1024 * 1024 / 1000 * 6);
	}
	assert_int_equal(nc_lfc_sets(0), 1);
	assert_int_equal(nc_lfc_sets(128), 2);
}

/* ---- random operations against an array that remembers everything ---- */

#define BLOCKS 700

/* What a process keeps that has read pages with the one before them. */
typedef struct Reader
{
	uint32_t	next;
	uint32_t	at;
	uint32_t	n;
	NcLfcRef	refs[NC_LFC_LANES_MAX - 1];
	Page		pages[NC_LFC_LANES_MAX - 1];
} Reader;

/* Has the page been kept, and is it still what it was? 0 = no, 1 = it is this version, -1 = wrong. */
static int
take_behind(NcLfc *c, Reader *r, uint32_t block, uint64_t version)
{
	NcPageKey	k = key(7, block);
	Page		page,
				want;
	uint32_t	at = r->at;

	if (at >= r->n || r->next != block)
		return 0;
	r->at++;
	r->next++;
	if (!nc_lfc_still(c, &r->refs[at]) ||
		nc_lfc_sum_of_copy(&k, r->pages[at].bytes, page.bytes) != r->refs[at].sum)
		return 0;
	paint(&want, block, version);
	return memcmp(&page, &want, sizeof(page)) == 0 ? 1 : -1;
}

static void
random_operations(uint32_t nsets, uint32_t lanes)
{
	static Reader readers[4];
	uint32_t	behind = 0;
	static uint64_t truth[BLOCKS];	/* version last put or dropped; what a page server has */
	static NcLfcRef reserved[BLOCKS];
	static uint64_t promised[BLOCKS];	/* version read after the reservation; 0 = none */
	NcLfc	   *c = make_lanes(nsets, 20, lanes);
	NcRelKey	rel = key(7, 0).rel;
	NcLfcJob	job = {0};
	bool		writing = false;
	unsigned	seed = 20261120;
	uint32_t	hits = 0;

	printf("seed %u\n", seed);
	make_file(nsets);
	memset(readers, 0, sizeof(readers));
	for (uint32_t b = 0; b < BLOCKS; b++)
	{
		truth[b] = 1;
		promised[b] = 0;
	}
	for (int step = 0; step < 300000; step++)
	{
		uint32_t	b = rand_r(&seed) % BLOCKS;
		NcPageKey	k = key(7, b);
		Page		page;
		NcLfcRef	ref;
		Reader	   *r = &readers[rand_r(&seed) % 4];
		int			got;

		switch (rand_r(&seed) % 18)
		{
			case 0:				/* a newer version is evicted */
			case 1:
			case 2:
				put(c, b, ++truth[b]);
				break;
			case 3:				/* changed and kept elsewhere, or truncated */
				truth[b]++;
				nc_lfc_forget(c, &k);
				break;
			case 4:
				if (rand_r(&seed) % 50 == 0)
				{
					uint32_t	from = rand_r(&seed) % BLOCKS;

					for (uint32_t i = from; i < BLOCKS; i++)
						truth[i]++;
					nc_lfc_forget_range(c, &rel, from, rand_r(&seed) % 2 ? BLOCKS : UINT32_MAX);
				}
				break;
			case 5:
				if (rand_r(&seed) % 200 == 0)
				{
					nc_lfc_forget_database(c, 6);
					for (uint32_t i = 0; i < BLOCKS; i++)
						truth[i]++;
					nc_lfc_forget_database(c, 5);
				}
				break;
			case 6:
				if (promised[b] == 0 && nc_lfc_reserve(c, &k, &reserved[b]))
					promised[b] = truth[b];
				break;
			case 7:
				if (promised[b] != 0)
				{
					paint(&page, b, promised[b]);
					if (nc_lfc_fill(c, &k, &reserved[b], page.bytes))
						assert_int_equal(promised[b], truth[b]);
					promised[b] = 0;
				}
				break;
			case 8:
				if (rand_r(&seed) % 100 == 0)
					nc_lfc_set_limit(c, rand_r(&seed) % (nsets * NC_LFC_WAYS + 1));
				else if (rand_r(&seed) % 400 == 0)
					nc_lfc_switch(c, rand_r(&seed) % 4 != 0);
				else if (nc_lfc_limit(c) < 24 || !nc_lfc_is_on(c))
				{
					nc_lfc_switch(c, true);
					nc_lfc_set_limit(c, UINT64_MAX);
				}
				break;
			case 9:				/* the writer, in two steps */
			case 10:
			case 11:
				if (!writing)
					writing = nc_lfc_next(c, &job);
				else
				{
					memcpy(&file[job.ref.place], job.page, sizeof(Page));
					nc_lfc_done(c, &job, rand_r(&seed) % 20 != 0);
					writing = false;
				}
				break;
			case 12:			/* reads a page, and those behind it in the file */
				/* that come together, as by a scan; the writer has one page at a time in its hands */
				for (uint32_t i = b; !writing && i < b + NC_LFC_LANES_MAX && i < BLOCKS; i++)
				{
					nc_lfc_forget(c, &(NcPageKey) {rel, i});
					put(c, i, truth[i]);
					write_all(c);
				}
				if (nc_lfc_find(c, &k, page.bytes, &ref) != NC_LFC_ON_DISK)
					break;
				r->next = b + 1;
				r->at = 0;
				r->n = nc_lfc_find_behind(c, &k, &ref, rand_r(&seed) % NC_LFC_LANES_MAX, r->refs);
				for (uint32_t i = 0; i < r->n; i++)
					r->pages[i] = file[r->refs[i].place];
				break;
			case 13:
				got = r->next < BLOCKS ? take_behind(c, r, r->next, truth[r->next]) : 0;
				assert_int_not_equal(got, -1);
				behind += (uint32_t) got;
				break;
			default:			/* a read; after a miss the page server's version comes in */
				if (read_is(c, b, truth[b]))
					hits++;
				else
					put(c, b, truth[b]);
				break;
		}
		assert_in_range(nc_lfc_used(c), 0, nsets * NC_LFC_WAYS);
	}
	printf("%u hits, %u of pages that were read with others\n", hits, behind);
	if (lanes > 1)
		assert_in_range(behind, 100, 300000);
	assert_in_range(hits, 5000, 300000);
	if (writing)
		nc_lfc_done(c, &job, true);
	write_all(c);
	assert_int_equal(nc_lfc_outbox_used(c), 0);
	free(c);
}

static void
test_random_operations(void **state)
{
	random_operations(3, 1);
	random_operations(8, 4);
	random_operations(16, 16);
}

/* ---- threads and a file ---- */

#define THREADS 4
#define KEYS 512

typedef struct World
{
	NcLfc	   *c;
	int			fd;
	pthread_mutex_t buffer[KEYS];	/* whoever reads or writes a page has its buffer */
	_Atomic uint64_t server[KEYS];	/* the version a page server would give */
	_Atomic uint32_t stop;
	_Atomic uint64_t hits;
	_Atomic uint64_t behind;
	_Atomic uint64_t filled;
	_Atomic uint32_t wrong;
} World;

static World world;

/* Reads the page as a backend does; 1 = it is this version, 0 = miss, -1 = wrong. */
static int
read_file(uint32_t block, uint64_t version)
{
	NcPageKey	k = key(7, block);
	Page		page,
				want;
	NcLfcRef	ref;
	NcLfcFound	found = nc_lfc_find(world.c, &k, page.bytes, &ref);

	if (found == NC_LFC_MISS)
		return 0;
	if (found == NC_LFC_ON_DISK &&
		(pread(world.fd, &page, sizeof(page), (off_t) ref.place * NC_PAGE_BYTES) != sizeof(page) ||
		 !nc_lfc_still(world.c, &ref) || nc_lfc_sum(&k, page.bytes) != ref.sum))
		return 0;
	paint(&want, block, version);
	return memcmp(&page, &want, sizeof(page)) == 0 ? 1 : -1;
}

/* Reads the page and what is behind it, which others change meanwhile. */
static void
read_with_behind(Reader *r, uint32_t block)
{
	NcPageKey	k = key(7, block);
	NcLfcRef	ref;
	Page		page;

	r->at = r->n = 0;
	if (nc_lfc_find(world.c, &k, page.bytes, &ref) != NC_LFC_ON_DISK)
		return;
	r->n = nc_lfc_find_behind(world.c, &k, &ref, NC_LFC_LANES_MAX - 1, r->refs);
	r->next = block + 1;
	for (uint32_t i = 0; i < r->n; i++)
		if (pread(world.fd, &r->pages[i], sizeof(Page), (off_t) r->refs[i].place * NC_PAGE_BYTES) != sizeof(Page))
			r->n = i;
}

static void *
backend(void *arg)
{
	unsigned	seed = (unsigned) (uintptr_t) arg;
	Reader	   *r = calloc(1, sizeof(*r));

	while (!atomic_load(&world.stop))
	{
		uint32_t	b = rand_r(&seed) % KEYS;
		NcPageKey	k = key(7, b);
		uint64_t	version;
		int			got;

		/* goes on with what it has, as a scan does */
		if (r->at < r->n && r->next < KEYS && rand_r(&seed) % 4 != 0)
		{
			b = r->next;
			k = key(7, b);
		}
		pthread_mutex_lock(&world.buffer[b]);
		version = atomic_load(&world.server[b]);
		got = take_behind(world.c, r, b, version);
		if (got < 0)
			atomic_fetch_add(&world.wrong, 1);
		else if (got > 0)
			atomic_fetch_add(&world.behind, 1);
		switch (rand_r(&seed) % 10)
		{
			case 8:
			case 9:
				read_with_behind(r, b);
				break;
			case 0:				/* evicted: the LSN is remembered first, then the cache is told */
				atomic_store(&world.server[b], version + 1);
				put(world.c, b, version + 1);
				break;
			case 1:
				atomic_store(&world.server[b], version + 1);
				nc_lfc_forget(world.c, &k);
				break;
			default:
				got = read_file(b, version);
				if (got < 0)
					atomic_fetch_add(&world.wrong, 1);
				else if (got > 0)
					atomic_fetch_add(&world.hits, 1);
				else
					put(world.c, b, version);
				break;
		}
		pthread_mutex_unlock(&world.buffer[b]);
	}
	free(r);
	return NULL;
}

/* Brings pages without their buffers. */
static void *
prewarmer(void *arg)
{
	uint32_t	b = 0;

	while (!atomic_load(&world.stop))
	{
		NcPageKey	k = key(7, b);
		NcLfcRef	ref;
		Page		page;

		b = (b + 1) % KEYS;
		if (!nc_lfc_reserve(world.c, &k, &ref))
			continue;
		paint(&page, k.block, atomic_load(&world.server[k.block]));
		if (nc_lfc_fill(world.c, &k, &ref, page.bytes))
			atomic_fetch_add(&world.filled, 1);
	}
	return NULL;
}

static void *
writer(void *arg)
{
	unsigned	seed = 77;
	NcLfcJob	job;

	for (uint64_t n = 1; !atomic_load(&world.stop); n++)
	{
		while (nc_lfc_next(world.c, &job))
		{
			bool		ok = pwrite(world.fd, job.page, NC_PAGE_BYTES,
									(off_t) job.ref.place * NC_PAGE_BYTES) == NC_PAGE_BYTES;

			nc_lfc_done(world.c, &job, ok);
		}
		if (n % 200 == 0)
		{
			nc_lfc_set_limit(world.c, 30 + rand_r(&seed) % (6 * NC_LFC_WAYS));
			if (ftruncate(world.fd, (off_t) file_blocks(world.c) * NC_PAGE_BYTES) != 0)
				atomic_fetch_add(&world.wrong, 1);
		}
		if (n % 1500 == 0)
		{
			nc_lfc_switch(world.c, false);
			nc_lfc_switch(world.c, true);
		}
	}
	return NULL;
}

static void
test_threads_on_a_file(void **state)
{
	char		path[] = "/tmp/nc_lfc_XXXXXX";
	pthread_t	threads[THREADS + 2];
	int			seconds = getenv("LFC_SECONDS") != NULL ? atoi(getenv("LFC_SECONDS")) : 2;

	world.c = make_lanes(16, 32, 4);
	world.fd = mkstemp(path);
	assert_int_not_equal(world.fd, -1);
	unlink(path);
	for (int i = 0; i < KEYS; i++)
	{
		pthread_mutex_init(&world.buffer[i], NULL);
		atomic_store(&world.server[i], 1);
	}
	for (uintptr_t i = 0; i < THREADS; i++)
		pthread_create(&threads[i], NULL, backend, (void *) (i + 1));
	pthread_create(&threads[THREADS], NULL, prewarmer, NULL);
	pthread_create(&threads[THREADS + 1], NULL, writer, NULL);
	sleep((unsigned) seconds);
	/* who of them runs when is the machine's business */
	for (int i = 0; i < 300 && (atomic_load(&world.hits) < 100 || atomic_load(&world.behind) < 20); i++)
		sleep(1);
	atomic_store(&world.stop, 1);
	for (int i = 0; i < THREADS + 2; i++)
		pthread_join(threads[i], NULL);
	printf("%lu hits, %lu of pages read with others, %lu filled without a buffer\n",
		   (unsigned long) world.hits, (unsigned long) world.behind, (unsigned long) world.filled);
	assert_int_equal(world.wrong, 0);
	assert_in_range(world.hits, 100, UINT64_MAX);
	assert_in_range(world.behind, 20, UINT64_MAX);
	close(world.fd);
	free(world.c);
}

/* ---- the limit changes while somebody waits for the lock of a set ---- */

typedef struct Putter
{
	NcLfc	   *c;
	uint32_t	block;
	_Atomic long thread;
	NcLfcPut	done;
} Putter;

static void *
put_one(void *arg)
{
	Putter	   *p = arg;

	atomic_store(&p->thread, syscall(SYS_gettid));
	p->done = put(p->c, p->block, 1);
	return NULL;
}

/* How often a thread has gone to sleep, -1 when it has ended. */
static long
sleeps_of(long thread)
{
	char		path[64];
	char		line[256];
	long		n = 0;
	FILE	   *f;

	snprintf(path, sizeof(path), "/proc/self/task/%ld/status", thread);
	f = fopen(path, "r");
	if (f == NULL)
		return -1;
	while (fgets(line, sizeof(line), f) != NULL)
		(void) sscanf(line, "voluntary_ctxt_switches: %ld", &n);
	fclose(f);
	return n;
}

/* Until it sleeps again and again, which nobody does but for a lock. */
static void
wait_for_waiter(const Putter *p)
{
	long		from;
	long		now;

	while (atomic_load(&p->thread) == 0)
		usleep(100);
	from = now = sleeps_of(p->thread);
	for (int i = 0; i < 100000 && now >= 0 && now < from + 3; i++)
	{
		usleep(100);
		now = sleeps_of(p->thread);
	}
}

static void
test_limit_changes_while_a_put_waits(void **state)
{
	NcLfc	   *c = NULL;
	Putter		p = {.done = NC_LFC_PUT_DROPPED};
	uint32_t	half = 1 << 8 | NC_LFC_WAYS;

	/* on a busy machine he may lose patience before we go on: that is another test's */
	for (int i = 0; i < 100 && p.done == NC_LFC_PUT_DROPPED; i++)
	{
		uint32_t	full;
		uint64_t	hash;
		NcLfcSet   *set;
		pthread_t	thread;

		free(c);
		c = p.c = make_lanes(4, 16, 1);
		make_file(4);
		full = nc_lfc_shape(c);
		p.block = 0;
		atomic_store(&p.thread, 0);
		do
		{
			NcPageKey	k = key(7, ++p.block);

			hash = nc_lfc_hash(&k);
		} while (nc_lfc_home(c, hash, full) == nc_lfc_home(c, hash, half));
		set = nc_lfc_home(c, hash, full);

		/* as nc_lfc_set_limit(): the shape first, then a visit; this set has nothing to be removed */
		assert_true(nc_lfc_lock(c, set, NC_LFC_PATIENCE_NONE));
		pthread_create(&thread, NULL, put_one, &p);
		wait_for_waiter(&p);
		atomic_store(&c->shape, half);
		nc_lfc_unlock(set);
		pthread_join(thread, NULL);
	}

	assert_true(read_is(c, p.block, 1));
	/* nor does an old version come to light when the limit is the old one again */
	put(c, p.block, 2);
	write_all(c);
	assert_true(read_is(c, p.block, 2));
	nc_lfc_set_limit(c, UINT64_MAX);
	assert_false(read_is(c, p.block, 2));
	free(c);
}

/* ---- a process is stopped while it holds the lock of a set ---- */

/* Nobody waits for it, and nothing that changed meanwhile is found afterwards. */
static void
test_stopped_holder(void **state)
{
	NcLfc	   *c = make(1, 16);
	NcLfcSet   *set = &c->sets[0];
	NcLfcRef	ref;
	NcLfcJob	job;
	NcPageKey	k1 = key(7, 1);
	NcPageKey	k2 = key(7, 2);
	NcPageKey	k3 = key(7, 3);
	Page		page;

	make_file(1);
	put(c, 1, 1);
	write_all(c);
	put(c, 2, 1);
	assert_true(nc_lfc_reserve(c, &k3, &ref));

	assert_true(nc_lfc_lock(c, set, NC_LFC_PATIENCE_NONE));
	alarm(60);					/* whoever waits for ever is ended */
	assert_false(read_is(c, 1, 1));
	assert_false(nc_lfc_has(c, &k1));
	/* the outbox page may be what the holder copies from: it stays */
	assert_false(nc_lfc_next(c, &job));
	assert_int_equal(nc_lfc_outbox_used(c), 1);
	assert_int_equal(put(c, 1, 2), NC_LFC_PUT_DROPPED);
	assert_int_equal(nc_lfc_outbox_used(c), 1);
	assert_int_equal(atomic_load(&set->voided), 1);
	assert_int_equal(nc_lfc_forget(c, &k2), 0);
	assert_false(nc_lfc_fill(c, &k3, &ref, page.bytes));
	assert_in_range(nc_lfc_given_up(c), 6, 100);
	alarm(0);
	nc_lfc_unlock(set);

	/* not the version from before, nor what was forgotten, nor a reservation for ever */
	assert_false(read_is(c, 1, 1));
	assert_false(nc_lfc_has(c, &k2));
	assert_false(nc_lfc_has(c, &k3));
	assert_int_equal(nc_lfc_used(c), 0);
	write_all(c);
	assert_int_equal(nc_lfc_outbox_used(c), 0);
	put(c, 1, 2);
	write_all(c);
	assert_true(read_is(c, 1, 2));
	free(c);
}

/* A page that the writer has written, but could not say so, is written again. */
static void
test_stopped_holder_and_writer(void **state)
{
	NcLfc	   *c = make(1, 16);
	NcLfcJob	job;

	make_file(1);
	put(c, 1, 1);
	assert_true(nc_lfc_next(c, &job));
	assert_true(nc_lfc_lock(c, &c->sets[0], NC_LFC_PATIENCE_NONE));
	nc_lfc_done(c, &job, true);
	assert_false(nc_lfc_next(c, &job));
	nc_lfc_unlock(&c->sets[0]);
	write_all(c);
	assert_int_equal(nc_lfc_outbox_used(c), 0);
	assert_true(read_is(c, 1, 1));
	free(c);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_put_is_found_before_and_after_it_is_written),
		cmocka_unit_test(test_change_between_lookup_and_read_is_a_miss),
		cmocka_unit_test(test_write_overtaken_by_a_newer_version_is_not_published),
		cmocka_unit_test(test_foreign_and_torn_blocks_do_not_pass),
		cmocka_unit_test(test_sum_sees_bits_and_order),
		cmocka_unit_test(test_reservation_ends_when_the_page_changes),
		cmocka_unit_test(test_without_staging_page_the_old_version_is_gone),
		cmocka_unit_test(test_limit_and_switch),
		cmocka_unit_test(test_each_place_has_one_block_of_the_file),
		cmocka_unit_test(test_neighbours_are_behind_each_other),
		cmocka_unit_test(test_neighbours_that_belong_elsewhere),
		cmocka_unit_test(test_small_relations_spread),
		cmocka_unit_test(test_all_places_busy),
		cmocka_unit_test(test_scan_does_not_push_out_what_is_used),
		cmocka_unit_test(test_items_come_back_and_senseless_ones_do_not),
		cmocka_unit_test(test_memory_is_small),
		cmocka_unit_test(test_random_operations),
		cmocka_unit_test(test_threads_on_a_file),
		cmocka_unit_test(test_limit_changes_while_a_put_waits),
		cmocka_unit_test(test_stopped_holder),
		cmocka_unit_test(test_stopped_holder_and_writer),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
