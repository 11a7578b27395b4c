/*
 * Proves how readahead makes room for who waits: no limit without foreground
 * requests, lowered once for each round trip that took too long, never below the
 * least, raised again by good ones, and the least time is forgotten in the end.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <cmocka.h>

#include "nc/net/yield.h"

#define MS UINT64_C(1000)

static void
test_no_limit_unless_somebody_waits(void **state)
{
	NcYield		y = {0};

	assert_int_equal(nc_yield_limit(&y, 5), UINT32_MAX);
	assert_false(nc_yield_note(&y, 10 * MS, 1 * MS));
	assert_true(nc_yield_limit(&y, 10 * MS) >= NC_YIELD_MIN);
	assert_int_equal(nc_yield_limit(&y, 10 * MS + NC_YIELD_FRESH_US), y.limit);
	assert_int_equal(nc_yield_limit(&y, 10 * MS + NC_YIELD_FRESH_US + 1), UINT32_MAX);
}

static void
test_late_answers_lower_it(void **state)
{
	NcYield		y = {0};
	uint64_t	now = 1000 * MS;
	uint32_t	before;
	int			times = 0;

	assert_false(nc_yield_note(&y, now, 1 * MS));
	before = y.limit;
	do
	{
		now += 3 * MS;
		assert_true(times++ < 100);
		if (!nc_yield_note(&y, now, 3 * MS))
			break;
		assert_true(y.limit < before);
		before = y.limit;
		/* another answer of the same round trip says nothing new */
		assert_false(nc_yield_note(&y, now + MS, 3 * MS));
		assert_int_equal(y.limit, before);
	} while (true);
	assert_int_equal(y.limit, NC_YIELD_MIN);
	assert_true(times > 5);
}

static void
test_good_answers_raise_it(void **state)
{
	NcYield		y = {0};
	uint64_t	now = 1000 * MS;

	(void) nc_yield_note(&y, now, 1 * MS);
	for (int i = 0; i < 50; i++)
		(void) nc_yield_note(&y, now += 5 * MS, 5 * MS);
	assert_int_equal(y.limit, NC_YIELD_MIN);
	/* a little later than the least is not late */
	for (int i = 1; i <= 10; i++)
	{
		uint32_t	before = y.limit;

		assert_false(nc_yield_note(&y, now += 2 * MS, 1 * MS + 200));
		assert_true(y.limit > before);
	}
	for (int i = 0; i < 1000; i++)
		assert_false(nc_yield_note(&y, now += 2 * MS, 1 * MS));
	assert_in_range(y.limit, NC_YIELD_MAX, NC_YIELD_MAX + 16);
}

/* A way that got longer for good is what is normal, after two intervals. */
static void
test_least_is_forgotten(void **state)
{
	NcYield		y = {0};
	uint64_t	now = 1000 * MS;

	(void) nc_yield_note(&y, now, 1 * MS);
	for (uint64_t end = now + 2 * NC_YIELD_WINDOW_US + 200 * MS; now < end;)
		(void) nc_yield_note(&y, now += 10 * MS, 10 * MS);
	assert_true(y.limit > NC_YIELD_MIN);
	assert_false(nc_yield_note(&y, now += 10 * MS, 10 * MS));
	/* and a shorter one is noticed at once */
	(void) nc_yield_note(&y, now += 10 * MS, 1 * MS);
	assert_true(nc_yield_note(&y, now += 10 * MS, 10 * MS));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_no_limit_unless_somebody_waits),
		cmocka_unit_test(test_late_answers_lower_it),
		cmocka_unit_test(test_good_answers_raise_it),
		cmocka_unit_test(test_least_is_forgotten),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
