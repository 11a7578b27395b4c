/*
 * test_latency.c
 *	  Buckets of the latency histograms: every duration has one, in order, and its
 *	  borders are those that the view shows.  And the clock behind them, which
 *	  must be the one that never jumps.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdbool.h>
#include <string.h>
#include <time.h>

#include "nc/base/clock.h"
#include "nc/obs/latency.h"

static void
test_borders(void **state)
{
	for (uint32_t i = 0; i < NC_LATENCY_BUCKETS; i++)
	{
		uint64_t	from = nc_latency_from_us(i);

		assert_int_equal(nc_latency_bucket(from), i);
		if (i + 1 < NC_LATENCY_BUCKETS)
		{
			assert_true(nc_latency_from_us(i + 1) > from);
			assert_int_equal(nc_latency_bucket(nc_latency_from_us(i + 1) - 1), i);
		}
	}
	assert_int_equal(nc_latency_bucket(UINT64_MAX), NC_LATENCY_BUCKETS - 1);
}

/* A bucket is at most a quarter wider than where it begins. */
static void
test_width(void **state)
{
	for (uint32_t i = 4; i + 1 < NC_LATENCY_BUCKETS; i++)
		assert_true((nc_latency_from_us(i + 1) - nc_latency_from_us(i)) * 4 <=
					nc_latency_from_us(i));
}

static void
test_note(void **state)
{
	static NcLatency l;

	nc_latency_note(&l, NC_STAGE_SERVER, NC_LATENCY_DEMAND, 100, 350);
	nc_latency_note(&l, NC_STAGE_SERVER, NC_LATENCY_DEMAND, 100, 90);
	assert_int_equal(l.of[NC_STAGE_SERVER][NC_LATENCY_DEMAND].bucket[nc_latency_bucket(250)], 1);
	assert_int_equal(l.of[NC_STAGE_SERVER][NC_LATENCY_DEMAND].bucket[0], 1);
	assert_int_equal(l.of[NC_STAGE_SERVER][NC_LATENCY_DEMAND].sum_us, 250);
}

static uint64_t
monotonic_us(void)
{
	struct timespec ts;

	assert_int_equal(clock_gettime(CLOCK_MONOTONIC, &ts), 0);
	return (uint64_t) ts.tv_sec * 1000000 + (uint64_t) ts.tv_nsec / 1000;
}

/* The wall clock is decades away from it, and a jump of it is not seen. */
static void
test_clock(void **state)
{
	uint64_t	before = monotonic_us();
	uint64_t	now = nc_clock_us();

	assert_true(before <= now);
	assert_true(now <= monotonic_us());
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_borders),
		cmocka_unit_test(test_width),
		cmocka_unit_test(test_note),
		cmocka_unit_test(test_clock)
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
