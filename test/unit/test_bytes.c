/*
 * test_bytes.c
 *	  The cursors: byte order, bounds, and that a failure sticks.
 *
 * Runs without a server.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

#include "nc/base/bytes.h"

static const uint8_t sample[] = {
	0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xfe, 0xdc, 0xba, 0x98, 0x76, 0x54, 0x32, 0x10
};

static void
integers_are_written_big_endian_and_unpadded(void **state)
{
	uint8_t		buf[sizeof(sample)];
	NcWriter	w = nc_writer(buf, sizeof(buf));

	nc_write_u8(&w, 0x01);
	nc_write_u16(&w, 0x2345);
	nc_write_u32(&w, 0x6789abcd);
	nc_write_u64(&w, UINT64_C(0xfedcba9876543210));
	assert_false(w.failed);
	assert_int_equal(nc_writer_bytes(&w), sizeof(sample));
	assert_memory_equal(buf, sample, sizeof(sample));
}

static void
integers_are_read_big_endian(void **state)
{
	NcReader	r = nc_reader(sample, sizeof(sample));

	assert_int_equal(nc_read_u8(&r), 0x01);
	assert_int_equal(nc_read_u16(&r), 0x2345);
	assert_int_equal(nc_read_u32(&r), 0x6789abcd);
	assert_true(nc_read_u64(&r) == UINT64_C(0xfedcba9876543210));
	assert_false(r.failed);
	assert_int_equal(nc_reader_left(&r), 0);
}

static void
a_read_past_the_end_gives_zero_and_sticks(void **state)
{
	uint8_t    *heap = malloc(3);
	NcReader	r;

	memset(heap, 0xff, 3);
	r = nc_reader(heap, 3);
	assert_int_equal(nc_read_u32(&r), 0);
	assert_true(r.failed);
	/* Three bytes are there, yet a cursor that failed gives none of them. */
	assert_int_equal(nc_read_u8(&r), 0);
	assert_int_equal(nc_read_u16(&r), 0);
	assert_null(nc_read_bytes(&r, 1));
	assert_null(nc_read_cstring(&r));
	assert_true(r.failed);
	free(heap);
}

static void
half_an_u64_is_a_failure(void **state)
{
	NcReader	r = nc_reader(sample, 7);

	(void) nc_read_u64(&r);
	assert_true(r.failed);
}

static void
a_huge_length_does_not_wrap_around(void **state)
{
	NcReader	r = nc_reader(sample, sizeof(sample));
	uint8_t		buf[4];
	NcWriter	w = nc_writer(buf, sizeof(buf));

	assert_null(nc_read_bytes(&r, SIZE_MAX));
	assert_true(r.failed);
	assert_null(nc_write_space(&w, SIZE_MAX));
	assert_true(w.failed);
}

static void
zero_bytes_at_the_end_are_readable(void **state)
{
	NcReader	r = nc_reader(sample, 1);

	(void) nc_read_u8(&r);
	assert_ptr_equal(nc_read_bytes(&r, 0), sample + 1);
	assert_false(r.failed);
}

static void
a_string_needs_its_nul_inside_the_buffer(void **state)
{
	static const char text[] = {'a', 'b', 0, 0, 'c', 'd'};
	NcReader	r = nc_reader(text, sizeof(text));

	assert_string_equal(nc_read_cstring(&r), "ab");
	assert_string_equal(nc_read_cstring(&r), "");
	assert_null(nc_read_cstring(&r));
	assert_true(r.failed);
}

static void
a_write_past_the_end_writes_nothing_and_sticks(void **state)
{
	uint8_t		buf[6];
	NcWriter	w = nc_writer(buf, 4);

	memset(buf, 0x5a, sizeof(buf));
	nc_write_u16(&w, 0x0102);
	nc_write_u32(&w, 0x03040506);
	assert_true(w.failed);
	nc_write_u8(&w, 0x07);		/* would fit, but the message is already broken */
	assert_int_equal(nc_writer_bytes(&w), 2);
	assert_memory_equal(buf, "\x01\x02\x5a\x5a\x5a\x5a", 6);
}

static void
a_length_counts_itself_and_what_follows(void **state)
{
	uint8_t		buf[16];
	NcWriter	w = nc_writer(buf, sizeof(buf));
	uint8_t    *at;

	nc_write_u8(&w, 'd');
	at = nc_write_space(&w, 4);
	nc_write_cstring(&w, "xyz");
	nc_write_length_at(&w, at);
	assert_false(w.failed);
	assert_int_equal(nc_writer_bytes(&w), 9);
	assert_memory_equal(buf, "d\0\0\0\x08xyz\0", 9);
}

static void
a_length_is_not_patched_after_a_failure(void **state)
{
	uint8_t		buf[6];
	NcWriter	w = nc_writer(buf, sizeof(buf));
	uint8_t    *at;

	memset(buf, 0x5a, sizeof(buf));
	at = nc_write_space(&w, 4);
	nc_write_cstring(&w, "too long");
	nc_write_length_at(&w, at);
	assert_true(w.failed);
	assert_memory_equal(buf, "\x5a\x5a\x5a\x5a\x5a\x5a", 6);
	nc_write_length_at(&w, NULL);	/* what a failed nc_write_space gave */
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(integers_are_written_big_endian_and_unpadded),
		cmocka_unit_test(integers_are_read_big_endian),
		cmocka_unit_test(a_read_past_the_end_gives_zero_and_sticks),
		cmocka_unit_test(half_an_u64_is_a_failure),
		cmocka_unit_test(a_huge_length_does_not_wrap_around),
		cmocka_unit_test(zero_bytes_at_the_end_are_readable),
		cmocka_unit_test(a_string_needs_its_nul_inside_the_buffer),
		cmocka_unit_test(a_write_past_the_end_writes_nothing_and_sticks),
		cmocka_unit_test(a_length_counts_itself_and_what_follows),
		cmocka_unit_test(a_length_is_not_patched_after_a_failure),
	};

	return cmocka_run_group_tests_name("bytes", tests, NULL, NULL);
}
