/*
 * Proves the pause that lagging page servers cost a writer of WAL: none up to
 * the limit, growing without jumps above it, doubling by sixteenths of the
 * limit, and no overflow for any arguments.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <cmocka.h>

#include "nc/lsn/throttle.h"

#define MB (UINT64_C(1) << 20)

static void
test_nothing_up_to_the_limit(void **state)
{
	assert_int_equal(nc_throttle_pause_us(MB, 100 * MB, 100 * MB), 0);
	assert_int_equal(nc_throttle_pause_us(MB, 0, 100 * MB), 0);
	assert_int_equal(nc_throttle_pause_us(0, 1000 * MB, 100 * MB), 0);
}

static void
test_off_is_off(void **state)
{
	assert_int_equal(nc_throttle_pause_us(UINT64_MAX, UINT64_MAX, 0), 0);
}

static void
test_starts_gently(void **state)
{
	/* just above: the base rate */
	assert_int_equal(nc_throttle_pause_us(MB, 160 * MB + 1, 160 * MB),
					 MB / NC_THROTTLE_BYTES_PER_US);
}

static void
test_doubles_by_sixteenths(void **state)
{
	uint64_t	base = MB / NC_THROTTLE_BYTES_PER_US;

	for (int i = 1; i < 12; i++)
		assert_int_equal(nc_throttle_pause_us(MB, (160 + 10 * i) * MB, 160 * MB), base << i);
	/* half way between two powers, the mean of them */
	assert_int_equal(nc_throttle_pause_us(MB, 165 * MB, 160 * MB), base * 3 / 2);
}

static void
test_grows_without_jumps(void **state)
{
	uint64_t	before = nc_throttle_pause_us(MB, 64 * MB + 1, 64 * MB);

	for (uint64_t lag = 64 * MB + 1; lag < 96 * MB; lag += MB / 64)
	{
		uint64_t	pause = nc_throttle_pause_us(MB, lag, 64 * MB);

		assert_true(pause >= before);
		assert_true(pause <= before + before / 32 + 1);
		before = pause;
	}
}

static void
test_bytes_count(void **state)
{
	assert_int_equal(nc_throttle_pause_us(8 * MB, 80 * MB, 64 * MB),
					 8 * nc_throttle_pause_us(MB, 80 * MB, 64 * MB));
}

static void
test_extremes_do_not_overflow(void **state)
{
	uint64_t	most = nc_throttle_pause_us(UINT64_MAX, UINT64_MAX, 1);

	assert_true(most > nc_throttle_pause_us(MB, UINT64_MAX, 1));
	assert_int_equal(most, nc_throttle_pause_us(UINT64_MAX, UINT64_MAX, MB));
	assert_true(nc_throttle_pause_us(MB, UINT64_MAX, UINT64_MAX - 1) > 0);
	assert_true(nc_throttle_pause_us(MB, UINT64_MAX, UINT64_MAX / 2) >
				nc_throttle_pause_us(MB, UINT64_MAX / 2 + 2, UINT64_MAX / 2));
	/* tiny limits have a step of a byte */
	assert_true(nc_throttle_pause_us(MB, 2, 1) > 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_nothing_up_to_the_limit),
		cmocka_unit_test(test_off_is_off),
		cmocka_unit_test(test_starts_gently),
		cmocka_unit_test(test_doubles_by_sixteenths),
		cmocka_unit_test(test_grows_without_jumps),
		cmocka_unit_test(test_bytes_count),
		cmocka_unit_test(test_extremes_do_not_overflow)
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
