/*
 * test_latency.c
 *	  Buckets of the latency histograms: every duration has one, in order, and its
 *	  borders are those that the view shows.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdbool.h>
#include <string.h>

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

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_borders),
		cmocka_unit_test(test_width),
		cmocka_unit_test(test_note)
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
