/*
 * test_session.c
 *	  Startup packets and frames of good, bad and hostile clients, and the
 *	  server's messages byte by byte.
 *
 * Runs without a server.  Windows lie in heap blocks of exactly their size, so
 * that a sanitizer sees a read of one byte too many.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

#include "nc/wire/session.h"

#define VERSION_3_0 (3u << 16)

/* Makes a startup packet: its length, the code, then the bytes given. */
static size_t
make_packet(uint8_t *out, size_t room, uint32_t code, const void *rest, size_t bytes)
{
	NcWriter	w = nc_writer(out, room);
	uint8_t    *length_at = nc_write_space(&w, 4);

	nc_write_u32(&w, code);
	nc_write_bytes(&w, rest, bytes);
	nc_write_length_at(&w, length_at);
	assert_false(w.failed);
	return nc_writer_bytes(&w);
}

/* Parses a window that ends exactly where the heap block ends; strings are not kept. */
static NcStartup
parse_exact(const uint8_t *data, size_t bytes)
{
	uint8_t    *window = malloc(bytes ? bytes : 1);
	NcStartup	s;

	memcpy(window, data, bytes);
	nc_startup_parse(window, bytes, &s);
	for (int i = 0; i < s.nparams; i++)
		assert_true(strlen(s.params[i].name) > 0 && strlen(s.params[i].value) < bytes);
	free(window);
	return s;
}

static NcStartup
parse_made(uint32_t code, const void *rest, size_t bytes)
{
	uint8_t		packet[NC_STARTUP_BYTES_MAX];
	size_t		n = make_packet(packet, sizeof(packet), code, rest, bytes);

	return parse_exact(packet, n);
}

#define LITERAL(text) text, sizeof(text) - 1

/* ---- startup ---- */

static void
a_startup_packet_gives_its_parameters(void **state)
{
	static const char params[] = "user\0alice\0database\0db1\0options\0-c a=b\0application_name\0\0";
	uint8_t		packet[256];
	size_t		n = make_packet(packet, sizeof(packet), VERSION_3_0, params, sizeof(params));
	NcStartup	s;

	nc_startup_parse(packet, n, &s);
	assert_int_equal(s.kind, NC_STARTUP_V3);
	assert_int_equal(s.consumed, n);
	assert_int_equal(s.nparams, 4);
	assert_string_equal(nc_startup_param(&s, "user"), "alice");
	assert_string_equal(nc_startup_param(&s, "database"), "db1");
	assert_string_equal(nc_startup_param(&s, "options"), "-c a=b");
	assert_string_equal(nc_startup_param(&s, "application_name"), "");
	assert_null(nc_startup_param(&s, "use"));
	assert_null(nc_startup_param(&s, "replication"));
}

static void
the_last_of_two_equal_parameters_counts(void **state)
{
	uint8_t		packet[256];
	size_t		n = make_packet(packet, sizeof(packet), VERSION_3_0, LITERAL("a\0first\0a\0last\0\0"));
	NcStartup	s;

	nc_startup_parse(packet, n, &s);
	assert_int_equal(s.kind, NC_STARTUP_V3);
	assert_string_equal(nc_startup_param(&s, "a"), "last");
}

static void
startup_needs_no_parameters_and_takes_any_minor_version(void **state)
{
	assert_int_equal(parse_made(VERSION_3_0, LITERAL("\0")).kind, NC_STARTUP_V3);
	assert_int_equal(parse_made(VERSION_3_0 + 2, LITERAL("\0")).kind, NC_STARTUP_V3);
}

static void
the_special_requests_are_recognised(void **state)
{
	assert_int_equal(parse_made(80877103, "", 0).kind, NC_STARTUP_SSL);
	assert_int_equal(parse_made(80877103, "", 0).consumed, 8);
	assert_int_equal(parse_made(80877104, "", 0).kind, NC_STARTUP_GSSENC);
	assert_int_equal(parse_made(80877104, "", 0).consumed, 8);
	assert_int_equal(parse_made(80877102, LITERAL("pid.key.")).kind, NC_STARTUP_CANCEL);
	assert_int_equal(parse_made(80877102, LITERAL("pid.key.")).consumed, 16);
}

static void
special_requests_with_more_inside_are_invalid(void **state)
{
	assert_int_equal(parse_made(80877103, "x", 1).kind, NC_STARTUP_INVALID);
	assert_int_equal(parse_made(80877104, "x", 1).kind, NC_STARTUP_INVALID);
}

/* What follows in the window belongs to the next packet. */
static void
only_the_first_packet_is_consumed(void **state)
{
	uint8_t		window[64];
	size_t		n = make_packet(window, sizeof(window), 80877103, "", 0);
	size_t		m = make_packet(window + n, sizeof(window) - n, VERSION_3_0, LITERAL("a\0b\0\0"));
	NcStartup	s;

	nc_startup_parse(window, n + m, &s);
	assert_int_equal(s.kind, NC_STARTUP_SSL);
	assert_int_equal(s.consumed, n);
	nc_startup_parse(window + n, m, &s);
	assert_int_equal(s.kind, NC_STARTUP_V3);
	assert_int_equal(s.consumed, m);
	assert_string_equal(nc_startup_param(&s, "a"), "b");
}

static void
every_shorter_window_is_incomplete(void **state)
{
	uint8_t		packet[64];
	size_t		n = make_packet(packet, sizeof(packet), VERSION_3_0, LITERAL("user\0x\0\0"));

	for (size_t cut = 0; cut < n; cut++)
	{
		NcStartup	s = parse_exact(packet, cut);

		assert_int_equal(s.kind, NC_STARTUP_INCOMPLETE);
		assert_int_equal(s.consumed, 0);
		assert_int_equal(s.nparams, 0);
	}
}

static NcStartupKind
kind_for_length(uint32_t length)
{
	uint8_t		window[4];
	NcWriter	w = nc_writer(window, sizeof(window));

	nc_write_u32(&w, length);
	return parse_exact(window, sizeof(window)).kind;
}

/* Decided as soon as the length is there: nobody waits for four gigabytes. */
static void
lengths_out_of_bounds_are_invalid_at_once(void **state)
{
	assert_int_equal(kind_for_length(0), NC_STARTUP_INVALID);
	assert_int_equal(kind_for_length(7), NC_STARTUP_INVALID);
	assert_int_equal(kind_for_length(8), NC_STARTUP_INCOMPLETE);
	assert_int_equal(kind_for_length(10000), NC_STARTUP_INCOMPLETE);
	assert_int_equal(kind_for_length(10001), NC_STARTUP_INVALID);
	assert_int_equal(kind_for_length(0x7fffffff), NC_STARTUP_INVALID);
	assert_int_equal(kind_for_length(0xffffffff), NC_STARTUP_INVALID);
	/* A TLS client that did not ask first, and one that speaks HTTP. */
	assert_int_equal(kind_for_length(0x16030102), NC_STARTUP_INVALID);
	assert_int_equal(kind_for_length(0x47455420), NC_STARTUP_INVALID);
}

static void
other_protocol_versions_are_invalid(void **state)
{
	assert_int_equal(parse_made(2u << 16, LITERAL("\0")).kind, NC_STARTUP_INVALID);
	assert_int_equal(parse_made(4u << 16, LITERAL("\0")).kind, NC_STARTUP_INVALID);
	assert_int_equal(parse_made(0, LITERAL("\0")).kind, NC_STARTUP_INVALID);
	assert_int_equal(parse_made(80877105, LITERAL("\0")).kind, NC_STARTUP_INVALID);
}

static void
a_missing_terminator_is_invalid(void **state)
{
	assert_int_equal(parse_made(VERSION_3_0, "", 0).kind, NC_STARTUP_INVALID);
	assert_int_equal(parse_made(VERSION_3_0, LITERAL("user\0x\0")).kind, NC_STARTUP_INVALID);
	assert_int_equal(parse_made(VERSION_3_0, LITERAL("user\0x")).kind, NC_STARTUP_INVALID);
	assert_int_equal(parse_made(VERSION_3_0, LITERAL("user\0")).kind, NC_STARTUP_INVALID);
	assert_int_equal(parse_made(VERSION_3_0, LITERAL("user")).kind, NC_STARTUP_INVALID);
	assert_int_equal(parse_made(VERSION_3_0, LITERAL("user\0x\0\0y")).kind, NC_STARTUP_INVALID);
}

static void
no_parameter_of_an_invalid_packet_is_handed_out(void **state)
{
	NcStartup	s = parse_made(VERSION_3_0, LITERAL("user\0x\0"));

	assert_int_equal(s.nparams, 0);
	assert_null(nc_startup_param(&s, "user"));
}

static NcStartupKind
kind_for_params(int n)
{
	char		rest[NC_STARTUP_BYTES_MAX] = {0};

	for (int i = 0; i < n; i++)
		memcpy(rest + i * 4, "a\0b", 4);
	return parse_made(VERSION_3_0, rest, (size_t) n * 4 + 1).kind;
}

static void
the_number_of_parameters_is_bounded(void **state)
{
	assert_int_equal(kind_for_params(NC_STARTUP_PARAMS_MAX), NC_STARTUP_V3);
	assert_int_equal(kind_for_params(NC_STARTUP_PARAMS_MAX + 1), NC_STARTUP_INVALID);
	assert_int_equal(kind_for_params(2000), NC_STARTUP_INVALID);
}

/* ---- frames ---- */

static NcFrameResult
frame_exact(const void *data, size_t bytes, size_t body_max, NcFrame *f)
{
	uint8_t    *window = malloc(bytes ? bytes : 1);
	NcFrameResult result;

	memcpy(window, data, bytes);
	result = nc_frame_parse(window, bytes, body_max, f);
	if (result == NC_FRAME_OK)
	{
		assert_ptr_equal(f->body, window + 5);
		assert_true(5 + f->body_bytes == f->consumed && f->consumed <= bytes);
	}
	else
		assert_true(f->body == NULL && f->consumed == 0);
	free(window);
	return result;
}

static void
a_frame_is_split_off_the_window(void **state)
{
	static const char data[] = "Q\0\0\0\x08" "abc\0" "X\0\0\0\x04";
	NcFrame		f;

	assert_int_equal(frame_exact(data, 14, 100, &f), NC_FRAME_OK);
	assert_int_equal(f.type, 'Q');
	assert_int_equal(f.body_bytes, 4);
	assert_int_equal(f.consumed, 9);
	assert_int_equal(frame_exact(data + 9, 5, 100, &f), NC_FRAME_OK);
	assert_int_equal(f.type, 'X');
	assert_int_equal(f.body_bytes, 0);
	for (size_t cut = 0; cut < 9; cut++)
		assert_int_equal(frame_exact(data, cut, 100, &f), NC_FRAME_INCOMPLETE);
}

static void
frame_lengths_are_bounded_before_they_are_waited_for(void **state)
{
	NcFrame		f;

	for (int length = 0; length < 4; length++)
	{
		uint8_t		head[5] = {'d', 0, 0, 0, (uint8_t) length};

		assert_int_equal(frame_exact(head, 5, 100, &f), NC_FRAME_INVALID);
		assert_int_equal(frame_exact(head, 5, SIZE_MAX, &f), NC_FRAME_INVALID);
	}
	assert_int_equal(frame_exact("d\0\0\0\x68", 5, 100, &f), NC_FRAME_INCOMPLETE);
	assert_int_equal(frame_exact("d\0\0\0\x69", 5, 100, &f), NC_FRAME_INVALID);
	assert_int_equal(frame_exact("d\x7f\xff\xff\xff", 5, 100, &f), NC_FRAME_INVALID);
	assert_int_equal(frame_exact("d\xff\xff\xff\xff", 5, 100, &f), NC_FRAME_INVALID);
	assert_int_equal(frame_exact("c\0\0\0\x04", 5, 0, &f), NC_FRAME_OK);
	assert_int_equal(frame_exact("c\0\0\0\x05", 5, 0, &f), NC_FRAME_INVALID);
}

static void
a_frame_built_is_a_frame_parsed(void **state)
{
	uint8_t		buf[32];
	NcWriter	w = nc_writer(buf, sizeof(buf));
	uint8_t    *length_at = nc_frame_begin(&w, 'd');
	NcFrame		f;

	nc_write_u64(&w, 42);
	nc_frame_end(&w, length_at);
	assert_int_equal(nc_writer_bytes(&w), 13);
	assert_int_equal(nc_frame_parse(buf, 13, 8, &f), NC_FRAME_OK);
	assert_int_equal(f.type, 'd');
	assert_int_equal(f.body_bytes, 8);
}

static void
a_frame_without_room_fails_the_writer(void **state)
{
	uint8_t		buf[12];

	for (size_t room = 0; room < sizeof(buf); room++)
	{
		NcWriter	w = nc_writer(buf, room);
		uint8_t    *length_at = nc_frame_begin(&w, 'd');

		nc_write_bytes(&w, "sevench", 7);
		nc_frame_end(&w, length_at);
		assert_true(w.failed);
	}
}

/* ---- what a server says ---- */

#define EXPECT_BYTES(call, expected) \
	do { \
		uint8_t		buf[256]; \
		NcWriter	w = nc_writer(buf, sizeof(buf)); \
		call; \
		assert_false(w.failed); \
		assert_int_equal(nc_writer_bytes(&w), sizeof(expected) - 1); \
		assert_memory_equal(buf, expected, sizeof(expected) - 1); \
	} while (0)

static void
session_messages_have_their_bytes(void **state)
{
	EXPECT_BYTES(nc_session_auth_ok(&w), "R\0\0\0\x08\0\0\0\0");
	EXPECT_BYTES(nc_session_auth_cleartext(&w), "R\0\0\0\x08\0\0\0\x03");
	EXPECT_BYTES(nc_session_parameter_status(&w, "client_encoding", "UTF8"),
				 "S\0\0\0\x19" "client_encoding\0UTF8\0");
	EXPECT_BYTES(nc_session_ready(&w), "Z\0\0\0\x05I");
	EXPECT_BYTES(nc_session_command_complete(&w, "SELECT 1"), "C\0\0\0\x0dSELECT 1\0");
	EXPECT_BYTES(nc_session_copy_both(&w), "W\0\0\0\x07\0\0\0");
	EXPECT_BYTES(nc_session_copy_out(&w), "H\0\0\0\x07\0\0\0");
	EXPECT_BYTES(nc_session_copy_done(&w), "c\0\0\0\x04");
}

static void
errors_have_their_fields_and_leave_out_what_is_null(void **state)
{
	EXPECT_BYTES(nc_session_error(&w, "ERROR", "XX000", "boom", NULL, NULL),
				 "E\0\0\0\x20SERROR\0VERROR\0CXX000\0Mboom\0\0");
	EXPECT_BYTES(nc_session_error(&w, "FATAL", "08P01", "m", "d", "h"),
				 "E\0\0\0\x23SFATAL\0VFATAL\0C08P01\0Mm\0Dd\0Hh\0\0");
	EXPECT_BYTES(nc_session_error(&w, "FATAL", "08P01", "m", NULL, "h"),
				 "E\0\0\0\x20SFATAL\0VFATAL\0C08P01\0Mm\0Hh\0\0");
}

static void
a_row_description_has_text_columns_of_no_table(void **state)
{
	static const NcColumn cols[] = {{"systemid", 25, -1}, {"timeline", 23, 4}};

	EXPECT_BYTES(nc_session_row_description(&w, cols, 2),
				 "T\0\0\0\x3c\0\x02"
				 "systemid\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0"
				 "timeline\0\0\0\0\0\0\0\0\0\0\x17\0\x04\xff\xff\xff\xff\0\0");
	EXPECT_BYTES(nc_session_row_description(&w, NULL, 0), "T\0\0\0\x06\0\0");
}

static void
a_data_row_tells_null_from_empty(void **state)
{
	const char *values[] = {"abc", NULL, ""};
	int			lens[] = {3, -1, 0};

	EXPECT_BYTES(nc_session_data_row(&w, 3, values, lens),
				 "D\0\0\0\x15\0\x03\0\0\0\x03" "abc\xff\xff\xff\xff\0\0\0\0");
	EXPECT_BYTES(nc_session_data_row(&w, 0, NULL, NULL), "D\0\0\0\x06\0\0");
}

static void
messages_follow_one_another_in_one_writer(void **state)
{
	uint8_t		buf[256];
	NcWriter	w = nc_writer(buf, sizeof(buf));
	const uint8_t *at = buf;
	const char *types = "RSCZWcE";

	nc_session_auth_ok(&w);
	nc_session_parameter_status(&w, "a", "b");
	nc_session_command_complete(&w, "SELECT 1");
	nc_session_ready(&w);
	nc_session_copy_both(&w);
	nc_session_copy_done(&w);
	nc_session_error(&w, "ERROR", "XX000", "m", "d", "h");
	assert_false(w.failed);
	for (; *types; types++)
	{
		NcFrame		f;

		assert_int_equal(nc_frame_parse(at, (size_t) (w.at - at), 100, &f), NC_FRAME_OK);
		assert_int_equal(f.type, *types);
		at += f.consumed;
	}
	assert_ptr_equal(at, w.at);
}

static void
a_message_without_room_fails_the_writer(void **state)
{
	uint8_t		buf[31];

	for (size_t room = 0; room <= sizeof(buf); room++)
	{
		NcWriter	w = nc_writer(buf, room);

		nc_session_error(&w, "ERROR", "XX000", "boom", NULL, NULL);
		assert_true(w.failed);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_startup_packet_gives_its_parameters),
		cmocka_unit_test(the_last_of_two_equal_parameters_counts),
		cmocka_unit_test(startup_needs_no_parameters_and_takes_any_minor_version),
		cmocka_unit_test(the_special_requests_are_recognised),
		cmocka_unit_test(special_requests_with_more_inside_are_invalid),
		cmocka_unit_test(only_the_first_packet_is_consumed),
		cmocka_unit_test(every_shorter_window_is_incomplete),
		cmocka_unit_test(lengths_out_of_bounds_are_invalid_at_once),
		cmocka_unit_test(other_protocol_versions_are_invalid),
		cmocka_unit_test(a_missing_terminator_is_invalid),
		cmocka_unit_test(no_parameter_of_an_invalid_packet_is_handed_out),
		cmocka_unit_test(the_number_of_parameters_is_bounded),
		cmocka_unit_test(a_frame_is_split_off_the_window),
		cmocka_unit_test(frame_lengths_are_bounded_before_they_are_waited_for),
		cmocka_unit_test(a_frame_built_is_a_frame_parsed),
		cmocka_unit_test(a_frame_without_room_fails_the_writer),
		cmocka_unit_test(session_messages_have_their_bytes),
		cmocka_unit_test(errors_have_their_fields_and_leave_out_what_is_null),
		cmocka_unit_test(a_row_description_has_text_columns_of_no_table),
		cmocka_unit_test(a_data_row_tells_null_from_empty),
		cmocka_unit_test(messages_follow_one_another_in_one_writer),
		cmocka_unit_test(a_message_without_room_fails_the_writer),
	};

	return cmocka_run_group_tests_name("session", tests, NULL, NULL);
}
