/*
 * Proves when an answer is late: several times what is usual, within bounds, and
 * not usual because one was stuck; and that one request in twenty pays for one
 * that is sent twice.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <cmocka.h>

#include "nc/net/late.h"

#define MS UINT64_C(1000)

static void
note(NcLate *l, uint64_t took_us, int times)
{
	while (times-- > 0)
		nc_late_note(l, took_us);
}

static void
test_several_times_what_is_usual(void **state)
{
	NcLate		l;

	nc_late_init(&l);
	assert_int_equal(nc_late_after_us(&l), NC_LATE_UNKNOWN_US);
	note(&l, 100 * MS, 50);
	assert_in_range(nc_late_after_us(&l), NC_LATE_TIMES * 100 * MS, NC_LATE_TIMES * 101 * MS);
	/* where they differ by themselves, more */
	for (int i = 0; i < 50; i++)
		nc_late_note(&l, i % 2 == 0 ? 50 * MS : 150 * MS);
	assert_true(nc_late_after_us(&l) > NC_LATE_TIMES * 130 * MS);
}

static void
test_bounds(void **state)
{
	NcLate		l;

	nc_late_init(&l);
	note(&l, 0, 3);
	note(&l, 200, 50);
	assert_int_equal(nc_late_after_us(&l), NC_LATE_MIN_US);
	/* one that was stuck for an hour is forgotten after some that were not */
	nc_late_note(&l, 3600000 * MS);
	assert_true(nc_late_after_us(&l) <= NC_LATE_MAX_US);
	note(&l, 200, 60);
	assert_int_equal(nc_late_after_us(&l), NC_LATE_MIN_US);
	note(&l, 3600000 * MS, 60);
	assert_int_equal(nc_late_after_us(&l), NC_LATE_MAX_US);
}

static void
test_budget(void **state)
{
	NcLate		l;
	int			spent = 0;

	nc_late_init(&l);
	for (int i = 0; i < 10000; i++)
	{
		nc_late_earn(&l);
		if (!nc_late_may_spend(&l))
			continue;
		nc_late_spend(&l);
		spent++;
	}
	assert_in_range(spent, 10000 / NC_LATE_PRICE, 10000 / NC_LATE_PRICE + NC_LATE_BURST);
	/* a long time without trouble saves no more than this */
	for (int i = 0; i < 10000; i++)
		nc_late_earn(&l);
	for (spent = 0; nc_late_may_spend(&l); spent++)
		nc_late_spend(&l);
	assert_int_equal(spent, NC_LATE_BURST);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_several_times_what_is_usual),
		cmocka_unit_test(test_bounds),
		cmocka_unit_test(test_budget)
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
