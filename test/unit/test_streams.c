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

/* Of a relation that is read at random places. */
#define MANY_BLOCKS 100000

/* ---- a process that reads, and what it asked for ---- */

static struct
{
	uint8_t		asked[MANY_BLOCKS];	/* ahead and not read: the stream's number + 1 */
	uint32_t	reading,		/* the read that is being told of */
				reading_end;
	uint32_t	waiting;		/* asked for and not read */
	uint32_t	most_waiting;
	uint32_t	ahead,			/* of the blocks read: asked for ahead, or not */
				demanded;
	uint32_t	unread[NC_AHEAD_STREAMS];
	uint32_t	shrunk;
	uint32_t	forgotten;		/* blocks that will not be read, as streams have told */
	uint32_t	told;			/* blocks that were asked for ahead */
}			process;

static NcAhead ahead;
static uint32_t sure;			/* of what is read */
static uint32_t length;
static const NcRelKey table = {1663, 5, 20000, 0};

static bool
ask(const NcRelKey *rel, uint32_t first, int n, int stream)
{
	assert_true(nc_rel_key_equal(rel, &table));
	assert_in_range(n, 1, 32);
	assert_in_range(stream, 0, NC_AHEAD_STREAMS - 1);
	for (uint32_t block = first; block < first + n; block++)
	{
		assert_in_range(block, 0, length - 1);
		assert_false(block >= process.reading && block < process.reading_end);
		process.waiting += !process.asked[block];
		process.told += !process.asked[block];
		process.asked[block] = (uint8_t) (stream + 1);
	}
	if (process.waiting > process.most_waiting)
		process.most_waiting = process.waiting;
	return true;
}

/* What is left of it is dropped unread. */
static void
forget(int stream)
{
	for (uint32_t block = 0; block < length; block++)
	{
		if (process.asked[block] != stream + 1)
			continue;
		process.asked[block] = 0;
		process.waiting--;
		process.unread[stream]++;
		process.forgotten++;
	}
}

static void
shrunk(void)
{
	process.shrunk++;
}

static const NcAheadHost host = {
	.ask = ask,
	.forget = forget,
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
	length = BLOCKS;
}

static void
read_as(uint32_t block, uint32_t n, uint32_t most, bool parallel)
{
	process.reading = block;
	process.reading_end = block + n;
	nc_ahead_read(&ahead, &(NcAheadRead) {
				  .rel = table, .block = block, .nblocks = n, .length = length, .most = most,
				  .parallel = parallel, .sure = sure
	});
	for (uint32_t i = block; i < block + n; i++)
	{
		process.waiting -= process.asked[i] != 0;
		process.ahead += process.asked[i] != 0;
		process.demanded += !process.asked[i];
		process.asked[i] = 0;
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

/* ---- runs of neighbours at random places ---- */

static uint32_t chance;

static void
begin_many(void)
{
	begin();
	length = MANY_BLOCKS;
}

static uint32_t
random_below(uint32_t n)
{
	chance = chance * 1103515245 + 12345;
	return (chance >> 8) % n;
}

/* So many runs of n blocks, `step` apart; what was moved by them alone. */
static void
runs(uint32_t count, uint32_t n, int step)
{
	process.ahead = process.demanded = process.told = 0;
	for (uint32_t i = 0; i < count; i++)
	{
		int64_t		first = 100 + random_below(length - 200);

		for (uint32_t k = 0; k < n; k++)
			read_blocks((uint32_t) (first + (int64_t) k * step), 1);
	}
	assert_int_equal(process.ahead + process.demanded, count * n);
}

/* Blocks that were brought for each one read, in hundredths. */
static uint32_t
brought(void)
{
	return (process.told + process.demanded) * 100 / (process.ahead + process.demanded);
}

static uint32_t
served_ahead(void)
{
	return process.ahead * 100 / (process.ahead + process.demanded);
}

/* What runs have of blocks is asked for when the second of them is read, and no more. */
static void
test_short_runs(void **state)
{
	static const int steps[] = {1, -1};

	for (int i = 0; i < 2; i++)
	{
		begin_many();
		runs(40, 9, steps[i]);
		runs(300, 9, steps[i]);
		assert_in_range(served_ahead(), 75, 78);
		assert_in_range(brought(), 0, 102);
		assert_true(process.waiting <= 16 * 2);
	}
	/* every third block: one more is needed to see a step */
	begin_many();
	runs(40, 9, 3);
	runs(300, 9, 3);
	assert_in_range(served_ahead(), 60, 68);
	assert_in_range(brought(), 0, 105);
}

/* After pairs nothing is asked for, but of a scan. */
static void
test_pairs(void **state)
{
	begin_many();
	runs(1000, 2, 1);
	assert_in_range(brought(), 0, 110);
	runs(1000, 2, 1);
	assert_in_range(brought(), 0, 102);
	process.ahead = process.demanded = 0;
	for (uint32_t block = 0; block < 8192; block++)
		read_blocks(block, 1);
	assert_true(process.demanded <= 4);
	assert_true(process.most_waiting >= 256);
}

/* Half of the runs are longer: they are seen to be when they go on. */
static void
test_mixed_runs(void **state)
{
	begin_many();
	for (int i = 0; i < 200; i++)
		runs(1, i % 3 == 0 ? 9 : 3, 1);
	process.told = process.forgotten = 0;
	for (int i = 0; i < 200; i++)
		runs(1, i % 3 == 0 ? 9 : 3, 1);
	assert_true(process.forgotten <= 60);
}

/* Relations do not learn of each other; what a scan was is no bound for it. */
static void
test_scan_among_runs(void **state)
{
	uint32_t	at = 0;

	begin_many();
	runs(100, 2, 1);
	process.ahead = process.demanded = 0;
	for (int i = 0; i < 1000; i++)
	{
		uint32_t	first = 4000 + random_below(length - 4100);

		read_blocks(at++, 1);
		read_blocks(first, 1);
		read_blocks(first + 1, 1);
	}
	assert_true(process.ahead >= 990);
}

/*
 * A block here and there of what would be a sequence with gaps: what was passed over is not
 * read, and less and less is asked for.
 */
static void
pass_over(uint32_t n)
{
	begin_many();
	for (int i = 0; i < 200; i++)
	{
		uint32_t	first = 100 + random_below(length - 800);

		if (i == 50)
			process.ahead = process.demanded = process.told = 0;
		read_blocks(first, 1);
		for (uint32_t k = 0; k < n; k++)
			read_blocks(first + 1 + 14 * k, 1);
	}
	assert_in_range(brought(), 0, 110);
}

static void
test_passed_over(void **state)
{
	pass_over(40);
	pass_over(3);
	pass_over(6);

	/* runs whose blocks are all read come into their own again */
	runs(400, 9, 1);
	runs(100, 9, 1);
	assert_in_range(served_ahead(), 75, 78);
	/* as does a scan */
	process.ahead = process.demanded = 0;
	for (uint32_t block = 0; block < BLOCKS; block++)
		read_blocks(block, 1);
	assert_true(process.demanded <= 4);
}

/* Who stops after each block has nothing of what was asked for: less and less is asked for. */
static void
test_runs_in_vain(void **state)
{
	begin_many();
	runs(100, 9, 1);
	process.told = 0;
	for (int i = 0; i < 100; i++)
	{
		uint32_t	first = 100 + random_below(length - 200);

		for (uint32_t k = 0; k < 9; k++)
		{
			read_blocks(first + k, 1);
			/* the end of a transaction */
			for (int s = 0; s < NC_AHEAD_STREAMS; s++)
				forget(s);
		}
	}
	assert_in_range(process.told, 0, 200);
}

/* What was asked for and not read goes when its stream does. */
static void
test_ended_streams_keep_nothing(void **state)
{
	begin_many();
	for (uint32_t i = 0; i < 400; i++)
	{
		/* runs of all lengths: some is asked for in vain */
		runs(1, 2 + random_below(12), 1);
		assert_true(process.waiting <= NC_AHEAD_STREAMS * 32);
	}
	assert_true(process.forgotten > 0);
	for (uint32_t i = 0; i < NC_AHEAD_STREAMS; i++)
		runs(1, 1, 1);
	for (uint32_t i = 0; i < NC_AHEAD_STREAMS * 4; i++)
		runs(1, 3, 1);
	assert_true(process.waiting <= NC_AHEAD_STREAMS * 8);
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
		cmocka_unit_test(test_short_runs),
		cmocka_unit_test(test_pairs),
		cmocka_unit_test(test_mixed_runs),
		cmocka_unit_test(test_scan_among_runs),
		cmocka_unit_test(test_passed_over),
		cmocka_unit_test(test_runs_in_vain),
		cmocka_unit_test(test_ended_streams_keep_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
