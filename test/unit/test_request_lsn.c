/*
 * Proves the two pure LSN rules: positions after WAL page headers are moved
 * back (a request for them would hang), and answers are judged by the page
 * last dropped and by the end of our own WAL.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "nc/lsn/request_lsn.h"

#define SEGMENT (UINT64_C(16) << 20)

static void
test_after_short_header_moves_to_page_start(void **state)
{
	assert_int_equal(nc_lsn_before_page_header(SEGMENT + 8192 + 24, SEGMENT), SEGMENT + 8192);
}

static void
test_after_long_header_moves_to_segment_start(void **state)
{
	assert_int_equal(nc_lsn_before_page_header(3 * SEGMENT + 40, SEGMENT), 3 * SEGMENT);
	/* 24 bytes into a segment is inside the long header, never a position; it too moves back */
	assert_int_equal(nc_lsn_before_page_header(3 * SEGMENT + 24, SEGMENT), 3 * SEGMENT);
}

static void
test_other_positions_stay(void **state)
{
	assert_int_equal(nc_lsn_before_page_header(SEGMENT + 8192 + 40, SEGMENT), SEGMENT + 8232);
	assert_int_equal(nc_lsn_before_page_header(SEGMENT + 8192 + 32, SEGMENT), SEGMENT + 8224);
	assert_int_equal(nc_lsn_before_page_header(SEGMENT + 8192, SEGMENT), SEGMENT + 8192);
}

static void
test_old_answer_is_stale(void **state)
{
	assert_int_equal(nc_answer_verdict(99, 100, 1000), NC_ANSWER_STALE);
	assert_int_equal(nc_answer_verdict(0, 100, 1000), NC_ANSWER_STALE);
	assert_int_equal(nc_answer_verdict(100, 100, 1000), NC_ANSWER_OK);
	assert_int_equal(nc_answer_verdict(0, 0, 1000), NC_ANSWER_OK);
}

static void
test_answer_beyond_our_wal_is_refused_outside_recovery(void **state)
{
	assert_int_equal(nc_answer_verdict(1001, 0, 1000), NC_ANSWER_FUTURE);
	assert_int_equal(nc_answer_verdict(1000, 0, 1000), NC_ANSWER_OK);
	assert_int_equal(nc_answer_verdict(1001, 0, NC_LSN_INVALID), NC_ANSWER_OK);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_after_short_header_moves_to_page_start),
		cmocka_unit_test(test_after_long_header_moves_to_segment_start),
		cmocka_unit_test(test_other_positions_stay),
		cmocka_unit_test(test_old_answer_is_stale),
		cmocka_unit_test(test_answer_beyond_our_wal_is_refused_outside_recovery),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
