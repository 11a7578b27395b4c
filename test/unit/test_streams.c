/*
 * Proves that streams of reads are found whatever the number of blocks that one read
 * brings: what follows is asked for ahead, nothing is asked for that is being read or
 * was asked for, and a window that is not read shrinks.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "nc/ahead/streams.h"

#define BLOCKS 8192

/* ---- a process that reads, and what it asked for ---- */

static struct
{
	uint8_t		asked[BLOCKS];	/* ahead */
	uint32_t	reading,		/* the read that is being told of */
				reading_end;
	uint32_t	waiting;		/* asked for and not read */
	uint32_t	most_waiting;
	uint32_t	ahead,			/* of the blocks read: asked for ahead, or not */
				demanded;
	uint32_t	unread[NC_AHEAD_STREAMS];
	uint32_t	shrunk;
}			process;

static NcAhead ahead;
static uint32_t sure;			/* of what is read */
static const NcRelKey table = {1663, 5, 20000, 0};

static bool
ask(const NcRelKey *rel, uint32_t first, int n, int stream)
{
	assert_true(nc_rel_key_equal(rel, &table));
	assert_in_range(n, 1, 32);
	assert_in_range(stream, 0, NC_AHEAD_STREAMS - 1);
	for (uint32_t block = first; block < first + n; block++)
	{
		assert_in_range(block, 0, BLOCKS - 1);
		assert_false(block >= process.reading && block < process.reading_end);
		process.waiting += !process.asked[block];
		process.asked[block] = 1;
	}
	if (process.waiting > process.most_waiting)
		process.most_waiting = process.waiting;
	return true;
}

static void
shrunk(void)
{
	process.shrunk++;
}

static const NcAheadHost host = {
	.ask = ask,
	.shrunk = shrunk,
	.unread = process.unread,
	.ask_max = 32
};

static void
begin(void)
{
	memset(&process, 0, sizeof(process));
	memset(&ahead, 0, sizeof(ahead));
	ahead.host = &host;
	sure = 0;
}

static void
read_as(uint32_t block, uint32_t n, uint32_t most, bool parallel)
{
	process.reading = block;
	process.reading_end = block + n;
	nc_ahead_read(&ahead, &(NcAheadRead) {
				  .rel = table, .block = block, .nblocks = n, .length = BLOCKS, .most = most,
				  .parallel = parallel, .sure = sure
	});
	for (uint32_t i = block; i < block + n; i++)
	{
		process.waiting -= process.asked[i];
		process.ahead += process.asked[i];
		process.demanded += !process.asked[i];
	}
}

static void
read_blocks(uint32_t block, uint32_t n)
{
	read_as(block, n, 1024, false);
}

static int
streams_used(void)
{
	int			n = 0;

	for (int i = 0; i < NC_AHEAD_STREAMS; i++)
		n += ahead.streams[i].rel.rel != 0;
	return n;
}

/* ---- sequences ---- */

/* A scan in runs of n: one stream, and nearly all of it ahead. */
static void
scan(uint32_t n)
{
	begin();
	for (uint32_t block = 0; block < BLOCKS; block += n)
		read_blocks(block, n);
	assert_int_equal(streams_used(), 1);
	assert_true(process.demanded <= 2 + 2 * n + 64);
	assert_int_equal(process.ahead + process.demanded, BLOCKS);
	assert_true(process.most_waiting <= 1024);
	assert_true(process.most_waiting >= 256);
	assert_int_equal(process.shrunk, 0);
}

static void
test_scan_of_single_blocks(void **state)
{
	scan(1);
	assert_int_equal(process.demanded, 2);
}

static void
test_scan_of_16_blocks(void **state)
{
	scan(16);
}

static void
test_scan_of_128_blocks(void **state)
{
	scan(128);
}

/* Runs that grow from one block, as a read stream begins. */
static void
test_scan_that_grows(void **state)
{
	uint32_t	n = 1;

	begin();
	for (uint32_t block = 0; block < 4096; block += n, n = n < 16 ? n * 2 : 16)
		read_blocks(block, n);
	assert_int_equal(streams_used(), 1);
	assert_true(process.demanded <= 8);
}

/* A window smaller than a read: no more waits than may. */
static void
test_window_smaller_than_a_read(void **state)
{
	begin();
	for (uint32_t block = 0; block < 4096; block += 128)
		read_as(block, 128, 32, false);
	assert_int_equal(streams_used(), 1);
	assert_true(process.most_waiting <= 32);
	assert_true(process.ahead > 16 * 20);
}

/* Blocks between two reads were in shared buffers. */
static void
test_gaps_continue(void **state)
{
	begin();
	for (uint32_t block = 0; block < 4000; block += 16 + 15)
		read_blocks(block, 16);
	assert_int_equal(streams_used(), 1);
	begin();
	for (uint32_t block = 0; block < 4000; block += 16 + 16)
		read_blocks(block, 16);
	assert_true(streams_used() > 1);
}

/* A read of several blocks never continues a step that is not one, nor one backwards. */
static void
test_steps(void **state)
{
	begin();
	for (uint32_t block = 4000; block > 3000; block--)
		read_blocks(block, 1);
	assert_int_equal(streams_used(), 1);
	assert_int_equal(process.demanded, 2);
	read_blocks(2990, 10);
	assert_int_equal(streams_used(), 2);

	begin();
	for (uint32_t block = 0; block < 4000; block += 7)
		read_blocks(block, 1);
	assert_int_equal(streams_used(), 1);
	assert_true(process.demanded <= 3);
	read_blocks(4004, 2);
	assert_int_equal(streams_used(), 2);
}

/* Reads here and there ask for a first window each, and for no more. */
static void
test_no_sequence(void **state)
{
	uint32_t	random = 1;

	begin();
	for (uint32_t i = 0; i < 100; i++)
	{
		random = random * 1103515245 + 12345;
		read_blocks((random >> 16) % BLOCKS, 1);
	}
	assert_true(process.waiting <= 16);
	begin();
	for (uint32_t i = 0; i < 20; i++)
		read_blocks(i * 400, 16);
	assert_true(process.waiting <= 20 * 4);
}

static void
test_unread_shrinks(void **state)
{
	begin();
	for (uint32_t block = 0; block < 1024; block += 16)
		read_blocks(block, 16);
	assert_int_equal(process.shrunk, 0);
	process.unread[0] += 1024;
	for (uint32_t block = 1024; process.shrunk == 0 && block < 4096; block += 16)
		read_blocks(block, 16);
	assert_int_equal(process.shrunk, 1);
}

/* A reader of a parallel scan asks for nothing beyond its chunk, which is 4 blocks here. */
static void
parallel_scan(uint32_t n)
{
	begin();
	for (uint32_t chunk = 0; chunk < BLOCKS / 4; chunk += 3)
	{
		for (uint32_t i = 0; i < 4; i += n)
			read_as(chunk * 4 + i, n, 1024, true);
		for (uint32_t block = chunk * 4 + 4; block < (chunk + 3) * 4 && block < BLOCKS; block++)
			assert_false(process.asked[block]);
	}
	assert_int_equal(streams_used(), 1);
}

static void
test_parallel(void **state)
{
	parallel_scan(1);
	parallel_scan(2);
	parallel_scan(4);
}

/*
 * A reader with a view of his own, who goes through a bitmap: neighbours here and there, and
 * gaps that a sequence might have.  Nothing is asked for but behind a sequence, and that as ever.
 */
static void
test_sure(void **state)
{
	static const uint32_t gaps[] = {1, 3, 1, 12, 2, 2, 2, 2, 7, 1, 1, 1, 5};
	uint32_t	block = 0;

	for (int parallel = 0; parallel < 2; parallel++)
	{
		begin();
		sure = 16;
		block = 0;
		for (int i = 0; i < 600; i++)
		{
			uint32_t	n = i % 5 == 4 ? 3 : 1;

			read_as(block, n, 1024, parallel);
			block += n - 1 + gaps[i % 13];
		}
		assert_int_equal(process.ahead + process.waiting, 0);
	}

	begin();
	sure = 16;
	for (block = 0; block < 4096; block += 16)
		read_blocks(block, 16);
	assert_true(process.ahead >= 4096 - 96);
	/* some of it was in shared buffers */
	for (block = 4100; block < BLOCKS; block += 16)
		read_blocks(block, 12);
	assert_true(process.demanded <= 200);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_scan_of_single_blocks),
		cmocka_unit_test(test_scan_of_16_blocks),
		cmocka_unit_test(test_scan_of_128_blocks),
		cmocka_unit_test(test_scan_that_grows),
		cmocka_unit_test(test_window_smaller_than_a_read),
		cmocka_unit_test(test_gaps_continue),
		cmocka_unit_test(test_steps),
		cmocka_unit_test(test_no_sequence),
		cmocka_unit_test(test_unread_shrinks),
		cmocka_unit_test(test_parallel),
		cmocka_unit_test(test_sure),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
