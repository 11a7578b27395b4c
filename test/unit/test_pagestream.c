/*
 * test_pagestream.c
 *	  The codec against frames that were made by another program, against
 *	  itself, and against bytes that are too few, too many or wrong.
 *
 * Runs without a server.  Bodies under test lie in heap blocks of exactly
 * their size, so that a sanitizer sees a read of one byte too many.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

#include "nc/wire/pagestream.h"
#include "nc/wire/session.h"

#define REQID UINT64_C(0x0000109200000007)
#define NMS UINT64_C(0x1A2B3C8)
#define REL {1663, 5, 16396, NC_FORK_MAIN}
#define REQ_HEAD .reqid = REQID, .request_lsn = NC_LSN_MAX, .not_modified_since = NMS
#define HEAD_V2 .request_lsn = NC_LSN_MAX, .not_modified_since = NMS

static uint8_t segment[NC_SLRU_SEGMENT_BLOCKS * NC_PAGE_BYTES];
static uint8_t buffer[NC_RESPONSE_BYTES_MAX + 64];

static int
fill_segment(void **state)
{
	for (size_t i = 0; i < sizeof(segment); i++)
		segment[i] = (uint8_t) (i * 7 + i / NC_PAGE_BYTES);
	return 0;
}

/* ---- golden vectors ---- */

typedef struct GoldenRequest
{
	const char *name;
	int			version;
	const char *frame;
	NcPsRequest req;
} GoldenRequest;

static const GoldenRequest golden_requests[] = {
	{"GetPage v3", 3,
		"640000002e020000109200000007ffffffffffffffff0000000001a2b3c8"
		"0000067f000000050000400c0000007d06",
		{NC_REQ_GETPAGE, REQ_HEAD, .rel = REL, .block = 32006}},
	{"GetPage v2", 2,
		"640000002602ffffffffffffffff0000000001a2b3c8"
		"0000067f000000050000400c0000007d06",
		{NC_REQ_GETPAGE, HEAD_V2, .rel = REL, .block = 32006}},
	{"Nblocks v3", 3,
		"640000002a010000109200000007ffffffffffffffff0000000001a2b3c8"
		"0000067f000000050000400c00",
		{NC_REQ_NBLOCKS, REQ_HEAD, .rel = REL}},
	{"Exists v3", 3,
		"640000002a000000109200000007ffffffffffffffff0000000001a2b3c8"
		"0000067f000000050000400c00",
		{NC_REQ_EXISTS, REQ_HEAD, .rel = REL}},
	{"DbSize v3", 3,
		"6400000021030000109200000007ffffffffffffffff0000000001a2b3c800000005",
		{NC_REQ_DBSIZE, REQ_HEAD, .db = 5}},
	{"SLRU v3", 3,
		"6400000022040000109200000007ffffffffffffffff0000000001a2b3c80100000003",
		{NC_REQ_SLRU, REQ_HEAD, .slru_kind = NC_SLRU_MULTIXACT_MEMBERS, .slru_segno = 3}},
};

typedef struct GoldenResponse
{
	const char *name;
	int			version;
	const char *frame;
	NcPsResponse resp;
} GoldenResponse;

static const GoldenResponse golden_responses[] = {
	{"Nblocks v3", 3,
		"640000002e650000109200000007ffffffffffffffff0000000001a2b3c8"
		"0000067f000000050000400c000000004d",
		{NC_RESP_NBLOCKS, REQ_HEAD, .rel = REL, .nblocks = 77}},
	{"Exists v3", 3,
		"640000002b640000109200000007ffffffffffffffff0000000001a2b3c8"
		"0000067f000000050000400c0001",
		{NC_RESP_EXISTS, REQ_HEAD, .rel = REL, .exists = true}},
	{"DbSize v3", 3,
		"6400000029680000109200000007ffffffffffffffff0000000001a2b3c8"
		"000000050000000000700000",
		{NC_RESP_DBSIZE, REQ_HEAD, .db = 5, .db_bytes = 7 << 20}},
	{"Error v3", 3,
		"6400000028670000109200000007ffffffffffffffff0000000001a2b3c8"
		"52656164206572726f7200",
		{NC_RESP_ERROR, REQ_HEAD, .message = "Read error", .message_bytes = 10}},
	{"Error v2", 2, "64000000106752656164206572726f7200",
		{NC_RESP_ERROR, .message = "Read error", .message_bytes = 10}},
	{"Nblocks v2", 2, "6400000009650000004d", {NC_RESP_NBLOCKS, .nblocks = 77}},
};

static size_t
from_hex(const char *hex, uint8_t *out)
{
	size_t		n = strlen(hex) / 2;

	for (size_t i = 0; i < n; i++)
	{
		char		pair[3] = {hex[2 * i], hex[2 * i + 1], 0};

		out[i] = (uint8_t) strtoul(pair, NULL, 16);
	}
	return n;
}

static void
assert_requests_equal(const NcPsRequest *a, const NcPsRequest *b)
{
	assert_int_equal(a->tag, b->tag);
	assert_true(a->reqid == b->reqid);
	assert_true(a->request_lsn == b->request_lsn);
	assert_true(a->not_modified_since == b->not_modified_since);
	assert_true(nc_rel_key_equal(&a->rel, &b->rel));
	assert_int_equal(a->block, b->block);
	assert_int_equal(a->db, b->db);
	assert_int_equal(a->slru_kind, b->slru_kind);
	assert_int_equal(a->slru_segno, b->slru_segno);
}

static void
assert_answers_equal(const NcPsResponse *a, const NcPsResponse *b)
{
	assert_int_equal(a->exists, b->exists);
	assert_int_equal(a->nblocks, b->nblocks);
	assert_true(a->db_bytes == b->db_bytes);
	assert_int_equal(a->message_bytes, b->message_bytes);
	if (a->message_bytes > 0)
		assert_memory_equal(a->message, b->message, a->message_bytes);
	assert_int_equal(a->page == NULL, b->page == NULL);
	if (a->tag == NC_RESP_GETPAGE)
		assert_memory_equal(a->page, b->page, NC_PAGE_BYTES);
	if (a->tag == NC_RESP_SLRU)
		assert_memory_equal(a->page, b->page, (size_t) a->nblocks * NC_PAGE_BYTES);
}

static void
assert_responses_equal(const NcPsResponse *a, const NcPsResponse *b)
{
	assert_int_equal(a->tag, b->tag);
	assert_true(a->reqid == b->reqid);
	assert_true(a->request_lsn == b->request_lsn);
	assert_true(a->not_modified_since == b->not_modified_since);
	assert_true(nc_rel_key_equal(&a->rel, &b->rel));
	assert_int_equal(a->block, b->block);
	assert_int_equal(a->db, b->db);
	assert_int_equal(a->slru_kind, b->slru_kind);
	assert_int_equal(a->slru_segno, b->slru_segno);
	assert_answers_equal(a, b);
}

static void
golden_requests_decode_and_encode(void **state)
{
	for (size_t i = 0; i < sizeof(golden_requests) / sizeof(golden_requests[0]); i++)
	{
		const GoldenRequest *g = &golden_requests[i];
		uint8_t		frame[128];
		uint8_t		made[128];
		size_t		n = from_hex(g->frame, frame);
		NcWriter	w = nc_writer(made, sizeof(made));
		uint8_t    *length_at;
		NcFrame		f;
		NcPsRequest req;

		print_message("golden request %s\n", g->name);
		assert_int_equal(nc_frame_parse(frame, n, NC_REQUEST_BYTES_MAX, &f), NC_FRAME_OK);
		assert_int_equal(f.type, 'd');
		assert_int_equal(f.consumed, n);
		assert_true(nc_ps_request_decode(f.body, f.body_bytes, g->version, &req));
		assert_requests_equal(&req, &g->req);

		length_at = nc_frame_begin(&w, 'd');
		assert_true(nc_ps_request_encode(&w, g->version, &g->req));
		nc_frame_end(&w, length_at);
		assert_int_equal(nc_writer_bytes(&w), n);
		assert_memory_equal(made, frame, n);
	}
}

static void
golden_responses_decode_and_encode(void **state)
{
	for (size_t i = 0; i < sizeof(golden_responses) / sizeof(golden_responses[0]); i++)
	{
		const GoldenResponse *g = &golden_responses[i];
		uint8_t		frame[128];
		uint8_t		made[128];
		size_t		n = from_hex(g->frame, frame);
		NcWriter	w = nc_writer(made, sizeof(made));
		uint8_t    *length_at;
		NcFrame		f;
		NcPsResponse resp;

		print_message("golden response %s\n", g->name);
		assert_int_equal(nc_frame_parse(frame, n, NC_RESPONSE_BYTES_MAX, &f), NC_FRAME_OK);
		assert_int_equal(f.consumed, n);
		assert_true(nc_ps_response_decode(f.body, f.body_bytes, g->version, &resp));
		assert_responses_equal(&resp, &g->resp);

		length_at = nc_frame_begin(&w, 'd');
		assert_true(nc_ps_response_encode(&w, g->version, &g->resp));
		nc_frame_end(&w, length_at);
		assert_int_equal(nc_writer_bytes(&w), n);
		assert_memory_equal(made, frame, n);
	}
}

/* ---- one of each message, every field different from every other ---- */

#define ODD_REL {0x01020304, 0x11121314, 0x21222324, NC_FORK_VM}
#define ODD_HEAD .reqid = UINT64_C(0x3132333435363738), \
	.request_lsn = UINT64_C(0x4142434445464748), .not_modified_since = UINT64_C(0x5152535455565758)

typedef struct RequestCase
{
	size_t		bytes_v2;
	size_t		bytes_v3;
	NcPsRequest req;
} RequestCase;

static const RequestCase request_cases[] = {
	{30, 38, {NC_REQ_EXISTS, ODD_HEAD, .rel = ODD_REL}},
	{30, 38, {NC_REQ_NBLOCKS, ODD_HEAD, .rel = ODD_REL}},
	{34, 42, {NC_REQ_GETPAGE, ODD_HEAD, .rel = ODD_REL, .block = 0x61626364}},
	{21, 29, {NC_REQ_DBSIZE, ODD_HEAD, .db = 0x71727374}},
	{22, 30, {NC_REQ_SLRU, ODD_HEAD, .slru_kind = NC_SLRU_MULTIXACT_OFFSETS,
			.slru_segno = 0x81828384}},
};

typedef struct ResponseCase
{
	size_t		bytes_v2;
	size_t		bytes_v3;
	NcPsResponse resp;
} ResponseCase;

static const ResponseCase response_cases[] = {
	{2, 39, {NC_RESP_EXISTS, ODD_HEAD, .rel = ODD_REL, .exists = true}},
	{2, 39, {NC_RESP_EXISTS, ODD_HEAD, .rel = ODD_REL, .exists = false}},
	{5, 42, {NC_RESP_NBLOCKS, ODD_HEAD, .rel = ODD_REL, .nblocks = 0xfffffffe}},
	{8193, 8234, {NC_RESP_GETPAGE, ODD_HEAD, .rel = ODD_REL, .block = 0x61626364,
			.page = segment}},
	{2 + 4, 26 + 4, {NC_RESP_ERROR, ODD_HEAD, .message = "oops", .message_bytes = 4}},
	{2, 26, {NC_RESP_ERROR, ODD_HEAD, .message = "", .message_bytes = 0}},
	{9, 37, {NC_RESP_DBSIZE, ODD_HEAD, .db = 0x71727374,
			.db_bytes = INT64_C(0x1112131415161718)}},
	{5, 34, {NC_RESP_SLRU, ODD_HEAD, .slru_segno = 9, .nblocks = 0, .page = segment}},
	{5 + 8192 * 2, 34 + 8192 * 2, {NC_RESP_SLRU, ODD_HEAD,
			.slru_kind = NC_SLRU_MULTIXACT_OFFSETS, .slru_segno = 0x81828384, .nblocks = 2,
			.page = segment}},
	{5 + 8192 * 32, NC_RESPONSE_BYTES_MAX, {NC_RESP_SLRU, ODD_HEAD, .slru_segno = 9,
			.nblocks = 32, .page = segment}},
};

#define REQUEST_CASES (sizeof(request_cases) / sizeof(request_cases[0]))
#define RESPONSE_CASES (sizeof(response_cases) / sizeof(response_cases[0]))

static NcPsRequest
without_v3_request(const NcPsRequest *req)
{
	NcPsRequest v2 = *req;

	v2.reqid = 0;
	return v2;
}

static NcPsResponse
without_echo(const NcPsResponse *resp)
{
	return (NcPsResponse) {
		.tag = resp->tag, .exists = resp->exists, .nblocks = resp->nblocks,
		.db_bytes = resp->db_bytes, .page = resp->page, .message = resp->message,
		.message_bytes = resp->message_bytes
	};
}

static uint8_t *
exact_copy(const uint8_t *data, size_t n)
{
	uint8_t    *copy = malloc(n ? n : 1);

	memcpy(copy, data, n);
	return copy;
}

static size_t
encode_request(const NcPsRequest *req, int version)
{
	NcWriter	w = nc_writer(buffer, sizeof(buffer));

	assert_true(nc_ps_request_encode(&w, version, req));
	return nc_writer_bytes(&w);
}

static size_t
encode_response(const NcPsResponse *resp, int version)
{
	NcWriter	w = nc_writer(buffer, sizeof(buffer));

	assert_true(nc_ps_response_encode(&w, version, resp));
	return nc_writer_bytes(&w);
}

static void
requests_survive_a_round_trip(void **state)
{
	for (size_t i = 0; i < REQUEST_CASES; i++)
	{
		const RequestCase *c = &request_cases[i];
		NcPsRequest v2 = without_v3_request(&c->req);
		NcPsRequest back;

		assert_int_equal(encode_request(&c->req, 2), c->bytes_v2);
		assert_true(nc_ps_request_decode(buffer, c->bytes_v2, 2, &back));
		assert_requests_equal(&back, &v2);
		assert_int_equal(encode_request(&c->req, 3), c->bytes_v3);
		assert_true(c->bytes_v3 <= NC_REQUEST_BYTES_MAX);
		assert_true(nc_ps_request_decode(buffer, c->bytes_v3, 3, &back));
		assert_requests_equal(&back, &c->req);
	}
}

static void
responses_survive_a_round_trip(void **state)
{
	for (size_t i = 0; i < RESPONSE_CASES; i++)
	{
		const ResponseCase *c = &response_cases[i];
		NcPsResponse v2 = without_echo(&c->resp);
		NcPsResponse back;

		assert_int_equal(encode_response(&c->resp, 2), c->bytes_v2);
		assert_true(nc_ps_response_decode(buffer, c->bytes_v2, 2, &back));
		assert_responses_equal(&back, &v2);
		assert_int_equal(encode_response(&c->resp, 3), c->bytes_v3);
		assert_true(nc_ps_response_decode(buffer, c->bytes_v3, 3, &back));
		assert_responses_equal(&back, &c->resp);
	}
}

/* Offsets no golden vector covers: the page answer and the SLRU answer. */
static void
page_and_slru_answers_lie_where_the_protocol_says(void **state)
{
	(void) encode_response(&response_cases[3].resp, 3);
	assert_int_equal(buffer[0], 102);
	assert_memory_equal(buffer + 1, "\x31\x32\x33\x34\x35\x36\x37\x38", 8);
	assert_memory_equal(buffer + 9, "\x41\x42\x43\x44\x45\x46\x47\x48", 8);
	assert_memory_equal(buffer + 17, "\x51\x52\x53\x54\x55\x56\x57\x58", 8);
	assert_memory_equal(buffer + 25, "\x01\x02\x03\x04\x11\x12\x13\x14\x21\x22\x23\x24\x02", 13);
	assert_memory_equal(buffer + 38, "\x61\x62\x63\x64", 4);
	assert_memory_equal(buffer + 42, segment, NC_PAGE_BYTES);

	(void) encode_response(&response_cases[8].resp, 3);
	assert_int_equal(buffer[0], 105);
	assert_int_equal(buffer[25], 2);
	assert_memory_equal(buffer + 26, "\x81\x82\x83\x84\0\0\0\x02", 8);
	assert_memory_equal(buffer + 34, segment, 2 * NC_PAGE_BYTES);

	(void) encode_response(&response_cases[8].resp, 2);
	assert_memory_equal(buffer, "\x69\0\0\0\x02", 5);
	assert_memory_equal(buffer + 5, segment, 2 * NC_PAGE_BYTES);
}

/* ---- too few and too many bytes ---- */

static void
truncated_requests_are_refused_at_every_length(void **state)
{
	for (size_t i = 0; i < REQUEST_CASES; i++)
	{
		for (int version = 2; version <= 3; version++)
		{
			size_t		n = encode_request(&request_cases[i].req, version);

			for (size_t cut = 0; cut < n; cut++)
			{
				uint8_t    *body = exact_copy(buffer, cut);
				NcPsRequest req;

				assert_false(nc_ps_request_decode(body, cut, version, &req));
				free(body);
			}
		}
	}
}

/* Every length near the fields, and a sample of those inside pages. */
static size_t
next_cut(size_t cut)
{
	return cut < 128 ? cut + 1 : cut + 1021;
}

static void
truncated_responses_are_refused(void **state)
{
	for (size_t i = 0; i < RESPONSE_CASES; i++)
	{
		for (int version = 2; version <= 3; version++)
		{
			size_t		n = encode_response(&response_cases[i].resp, version);

			for (size_t cut = 0; cut < n; cut = next_cut(cut))
			{
				uint8_t    *body = exact_copy(buffer, cut);
				NcPsResponse resp;

				assert_false(nc_ps_response_decode(body, cut, version, &resp));
				free(body);
			}
		}
	}
}

static void
a_response_short_by_one_byte_is_refused(void **state)
{
	for (size_t i = 0; i < RESPONSE_CASES; i++)
	{
		for (int version = 2; version <= 3; version++)
		{
			size_t		n = encode_response(&response_cases[i].resp, version);
			uint8_t    *body = exact_copy(buffer, n - 1);
			NcPsResponse resp;

			assert_false(nc_ps_response_decode(body, n - 1, version, &resp));
			free(body);
		}
	}
}

static void
over_long_responses_are_refused(void **state)
{
	for (size_t i = 0; i < RESPONSE_CASES; i++)
	{
		for (int version = 2; version <= 3; version++)
		{
			size_t		n = encode_response(&response_cases[i].resp, version);
			NcPsResponse resp;

			buffer[n] = 0;
			assert_false(nc_ps_response_decode(buffer, n + 1, version, &resp));
			buffer[n] = 'x';
			assert_false(nc_ps_response_decode(buffer, n + 1, version, &resp));
		}
	}
}

static void
trailing_bytes_in_requests_are_ignored(void **state)
{
	for (size_t i = 0; i < REQUEST_CASES; i++)
	{
		size_t		n = encode_request(&request_cases[i].req, 3);
		NcPsRequest req;

		memset(buffer + n, 0xee, 17);
		assert_true(nc_ps_request_decode(buffer, n + 17, 3, &req));
		assert_requests_equal(&req, &request_cases[i].req);
	}
}

/* Behind v3 only; and what is nearly the context of a trace is as any other byte. */
static void
the_context_of_a_trace_goes_behind_a_request(void **state)
{
	static const NcTraceContext trace = {.trace_id = "0123456789abcde",.span_id = "ABCDEFG"};

	for (size_t i = 0; i < REQUEST_CASES; i++)
	{
		NcPsRequest traced = request_cases[i].req;
		NcPsRequest req;
		size_t		plain = encode_request(&request_cases[i].req, 3);
		size_t		n;

		traced.trace = &trace;
		assert_int_equal(encode_request(&traced, 2), encode_request(&request_cases[i].req, 2));
		n = encode_request(&traced, 3);
		assert_int_equal(n, plain + NC_REQUEST_TRACE_BYTES);
		assert_true(n <= NC_REQUEST_BYTES_MAX);
		assert_int_equal(buffer[plain], NC_REQUEST_TRACE_MARK);
		assert_memory_equal(buffer + plain + 1, "0123456789abcde\0ABCDEFG", 24);
		assert_true(nc_ps_request_decode(buffer, n, 3, &req));
		assert_requests_equal(&req, &request_cases[i].req);
		assert_non_null(req.trace);
		assert_memory_equal(req.trace, &trace, sizeof(trace));

		assert_true(nc_ps_request_decode(buffer, n - 1, 3, &req));
		assert_null(req.trace);
		buffer[n] = 0;
		assert_true(nc_ps_request_decode(buffer, n + 1, 3, &req));
		assert_null(req.trace);
		buffer[plain]++;
		assert_true(nc_ps_request_decode(buffer, n, 3, &req));
		assert_null(req.trace);
		buffer[plain]--;
		memset(buffer + plain + 1, 0, NC_TRACE_ID_BYTES);
		assert_true(nc_ps_request_decode(buffer, n, 3, &req));
		assert_null(req.trace);
	}
}

/* ---- wrong contents ---- */

static const uint8_t *
oversized_segment(void)
{
	static uint8_t body[5 + 33 * NC_PAGE_BYTES] = {NC_RESP_SLRU, 0, 0, 0, 33};

	return body;
}

static void
an_slru_count_above_a_segment_is_refused(void **state)
{
	static const uint32_t counts[] = {33, 0x7fffffff, 0x80000000, 0x80001, 0xffffffff};
	NcPsResponse resp = {.tag = NC_RESP_SLRU, .page = segment};
	NcPsResponse back;

	for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++)
	{
		NcWriter	w = nc_writer(buffer, sizeof(buffer));

		nc_write_u8(&w, NC_RESP_SLRU);
		nc_write_u32(&w, counts[i]);
		assert_false(nc_ps_response_decode(buffer, 5 + NC_PAGE_BYTES * 32, 2, &back));
		assert_false(nc_ps_response_decode(buffer, 5, 2, &back));

		resp.nblocks = counts[i];
		w = nc_writer(buffer, sizeof(buffer));
		assert_false(nc_ps_response_encode(&w, 2, &resp));
	}
	/* One block too many, and all its bytes are there. */
	assert_false(nc_ps_response_decode(oversized_segment(), 5 + 33 * NC_PAGE_BYTES, 2, &back));
	/* A count that is in bounds, but not what was sent. */
	resp.nblocks = 3;
	(void) encode_response(&resp, 2);
	assert_false(nc_ps_response_decode(buffer, 5 + 2 * NC_PAGE_BYTES, 2, &back));
	assert_false(nc_ps_response_decode(buffer, 5 + 4 * NC_PAGE_BYTES, 2, &back));
}

static void
unknown_tags_are_refused(void **state)
{
	for (int tag = 0; tag <= 255; tag++)
	{
		uint8_t		body[64] = {(uint8_t) tag};
		NcPsRequest req;
		NcPsResponse resp;

		assert_int_equal(nc_ps_request_decode(body, sizeof(body), 3, &req), tag <= 4);
		if (tag < 100 || tag > 105)
		{
			for (size_t n = 0; n <= sizeof(body); n++)
			{
				assert_false(nc_ps_response_decode(body, n, 2, &resp));
				assert_false(nc_ps_response_decode(body, n, 3, &resp));
			}
		}
	}
}

static void
unknown_tags_and_versions_are_not_encoded(void **state)
{
	static const int versions[] = {-1, 0, 1, 4, 99};
	NcPsRequest req = {.tag = (NcReqTag) 5};
	NcPsResponse resp = {.tag = (NcRespTag) 106};
	NcWriter	w = nc_writer(buffer, sizeof(buffer));

	assert_false(nc_ps_request_encode(&w, 3, &req));
	w = nc_writer(buffer, sizeof(buffer));
	assert_false(nc_ps_response_encode(&w, 3, &resp));
	w = nc_writer(buffer, sizeof(buffer));
	assert_false(nc_ps_response_encode(&w, 2, &resp));
	for (size_t i = 0; i < sizeof(versions) / sizeof(versions[0]); i++)
	{
		size_t		n = encode_request(&request_cases[0].req, 3);
		NcPsRequest r;
		NcPsResponse s;

		assert_false(nc_ps_request_decode(buffer, n, versions[i], &r));
		n = encode_response(&response_cases[0].resp, 2);
		assert_false(nc_ps_response_decode(buffer, n, versions[i], &s));
		w = nc_writer(buffer, sizeof(buffer));
		assert_false(nc_ps_request_encode(&w, versions[i], &request_cases[0].req));
		w = nc_writer(buffer, sizeof(buffer));
		assert_false(nc_ps_response_encode(&w, versions[i], &response_cases[0].resp));
	}
}

static void
a_boolean_is_zero_or_one(void **state)
{
	NcPsResponse resp;

	for (int v = 0; v <= 255; v++)
	{
		uint8_t		body[2] = {NC_RESP_EXISTS, (uint8_t) v};

		assert_int_equal(nc_ps_response_decode(body, sizeof(body), 2, &resp), v <= 1);
		if (v <= 1)
			assert_int_equal(resp.exists, v);
	}
}

static void
an_error_text_ends_with_its_only_nul(void **state)
{
	NcPsResponse resp;
	NcPsResponse cut = {.tag = NC_RESP_ERROR, .message = "a\0b", .message_bytes = 3};
	NcPsResponse none = {.tag = NC_RESP_ERROR, .message = NULL, .message_bytes = 0};

	assert_false(nc_ps_response_decode((const uint8_t *) "gno nul", 7, 2, &resp));
	assert_false(nc_ps_response_decode((const uint8_t *) "ga\0b", 5, 2, &resp));
	assert_true(nc_ps_response_decode((const uint8_t *) "gab", 4, 2, &resp));
	assert_int_equal(resp.message_bytes, 2);
	/* What this side sends must be acceptable to it, whatever the text holds. */
	assert_int_equal(encode_response(&cut, 2), 3);
	assert_true(nc_ps_response_decode(buffer, 3, 2, &resp));
	assert_string_equal(resp.message, "a");
	assert_int_equal(encode_response(&none, 2), 2);
}

static void
a_fork_number_that_does_not_fit_is_not_squeezed(void **state)
{
	NcPsRequest req = {.tag = NC_REQ_GETPAGE, .rel.fork = 256};
	NcPsResponse resp = {.tag = NC_RESP_NBLOCKS, .rel.fork = UINT32_MAX};
	NcWriter	w = nc_writer(buffer, sizeof(buffer));

	assert_false(nc_ps_request_encode(&w, 3, &req));
	w = nc_writer(buffer, sizeof(buffer));
	assert_false(nc_ps_response_encode(&w, 3, &resp));
}

static void
encoders_stay_inside_a_small_buffer(void **state)
{
	for (size_t i = 0; i < REQUEST_CASES; i++)
	{
		for (size_t room = 0; room < request_cases[i].bytes_v3; room++)
		{
			uint8_t    *small = malloc(room ? room : 1);
			NcWriter	w = nc_writer(small, room);

			assert_false(nc_ps_request_encode(&w, 3, &request_cases[i].req));
			assert_true(nc_writer_bytes(&w) <= room);
			free(small);
		}
	}
	for (size_t i = 0; i < RESPONSE_CASES; i++)
	{
		for (size_t room = 0; room < response_cases[i].bytes_v3; room = next_cut(room))
		{
			uint8_t    *small = malloc(room ? room : 1);
			NcWriter	w = nc_writer(small, room);

			assert_false(nc_ps_response_encode(&w, 3, &response_cases[i].resp));
			assert_true(nc_writer_bytes(&w) <= room);
			free(small);
		}
	}
}

/* ---- pairing ---- */

static const NcPsRequest page_request = {NC_REQ_GETPAGE, ODD_HEAD, .rel = ODD_REL, .block = 7};
static const NcPsResponse page_response = {NC_RESP_GETPAGE, ODD_HEAD, .rel = ODD_REL, .block = 7};

/* Adds one to the field of the response and expects its name. */
#define EXPECT_MISMATCH(request, response, field, expected) \
	do { \
		NcPsResponse changed = (response); \
		changed.field++; \
		assert_null(nc_ps_response_mismatch(&(response), &(request), 3)); \
		assert_string_equal(nc_ps_response_mismatch(&changed, &(request), 3), expected); \
	} while (0)

static void
each_field_of_a_page_echo_is_compared(void **state)
{
	EXPECT_MISMATCH(page_request, page_response, reqid, "request id");
	EXPECT_MISMATCH(page_request, page_response, request_lsn, "request LSN");
	EXPECT_MISMATCH(page_request, page_response, not_modified_since, "not-modified-since LSN");
	EXPECT_MISMATCH(page_request, page_response, rel.spc, "tablespace");
	EXPECT_MISMATCH(page_request, page_response, rel.db, "database");
	EXPECT_MISMATCH(page_request, page_response, rel.rel, "relation");
	EXPECT_MISMATCH(page_request, page_response, rel.fork, "fork");
	EXPECT_MISMATCH(page_request, page_response, block, "block");
}

static void
each_field_of_the_other_echoes_is_compared(void **state)
{
	static const NcReqTag rel_tags[] = {NC_REQ_EXISTS, NC_REQ_NBLOCKS};
	NcPsRequest db = {NC_REQ_DBSIZE, ODD_HEAD, .db = 5};
	NcPsResponse db_answer = {NC_RESP_DBSIZE, ODD_HEAD, .db = 5};
	NcPsRequest slru = {NC_REQ_SLRU, ODD_HEAD, .slru_kind = 1, .slru_segno = 3};
	NcPsResponse slru_answer = {NC_RESP_SLRU, ODD_HEAD, .slru_kind = 1, .slru_segno = 3};

	for (int i = 0; i < 2; i++)
	{
		NcPsRequest rel = {rel_tags[i], ODD_HEAD, .rel = ODD_REL};
		NcPsResponse rel_answer = {(NcRespTag) (rel_tags[i] + 100), ODD_HEAD, .rel = ODD_REL};

		EXPECT_MISMATCH(rel, rel_answer, reqid, "request id");
		EXPECT_MISMATCH(rel, rel_answer, rel.spc, "tablespace");
		EXPECT_MISMATCH(rel, rel_answer, rel.db, "database");
		EXPECT_MISMATCH(rel, rel_answer, rel.rel, "relation");
		EXPECT_MISMATCH(rel, rel_answer, rel.fork, "fork");
	}
	EXPECT_MISMATCH(db, db_answer, reqid, "request id");
	EXPECT_MISMATCH(db, db_answer, db, "database");
	EXPECT_MISMATCH(slru, slru_answer, reqid, "request id");
	EXPECT_MISMATCH(slru, slru_answer, slru_kind, "SLRU kind");
	EXPECT_MISMATCH(slru, slru_answer, slru_segno, "SLRU segment");
}

static void
only_the_own_answer_tag_or_an_error_matches(void **state)
{
	static const NcRespTag own[] = {
		NC_RESP_EXISTS, NC_RESP_NBLOCKS, NC_RESP_GETPAGE, NC_RESP_DBSIZE, NC_RESP_SLRU
	};

	for (int req_tag = 0; req_tag <= 4; req_tag++)
	{
		for (int resp_tag = 0; resp_tag <= 255; resp_tag++)
		{
			NcPsRequest req = {.tag = (NcReqTag) req_tag};
			NcPsResponse resp = {.tag = (NcRespTag) resp_tag};
			bool		fits = resp_tag == (int) own[req_tag] || resp_tag == NC_RESP_ERROR;

			for (int version = 2; version <= 3; version++)
			{
				const char *field = nc_ps_response_mismatch(&resp, &req, version);

				assert_int_equal(field == NULL, fits);
				if (!fits)
					assert_string_equal(field, "tag");
			}
		}
	}
}

static void
an_error_answer_matches_by_its_header(void **state)
{
	NcPsResponse error = {NC_RESP_ERROR, ODD_HEAD, .message = "x", .message_bytes = 1};

	EXPECT_MISMATCH(page_request, error, reqid, "request id");
	EXPECT_MISMATCH(page_request, error, request_lsn, "request LSN");
	EXPECT_MISMATCH(page_request, error, not_modified_since, "not-modified-since LSN");
}

static void
version_two_has_nothing_but_the_tag_to_compare(void **state)
{
	NcPsResponse page = {.tag = NC_RESP_GETPAGE};

	assert_null(nc_ps_response_mismatch(&page, &page_request, 2));
	assert_non_null(nc_ps_response_mismatch(&page, &page_request, 3));
}

static void
requests_have_names(void **state)
{
	assert_string_equal(nc_ps_request_name(NC_REQ_EXISTS), "Exists");
	assert_string_equal(nc_ps_request_name(NC_REQ_NBLOCKS), "Nblocks");
	assert_string_equal(nc_ps_request_name(NC_REQ_GETPAGE), "GetPage");
	assert_string_equal(nc_ps_request_name(NC_REQ_DBSIZE), "DbSize");
	assert_string_equal(nc_ps_request_name(NC_REQ_SLRU), "GetSlruSegment");
	assert_string_equal(nc_ps_request_name((NcReqTag) 77), "unknown request");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(golden_requests_decode_and_encode),
		cmocka_unit_test(golden_responses_decode_and_encode),
		cmocka_unit_test(requests_survive_a_round_trip),
		cmocka_unit_test(responses_survive_a_round_trip),
		cmocka_unit_test(page_and_slru_answers_lie_where_the_protocol_says),
		cmocka_unit_test(truncated_requests_are_refused_at_every_length),
		cmocka_unit_test(truncated_responses_are_refused),
		cmocka_unit_test(a_response_short_by_one_byte_is_refused),
		cmocka_unit_test(over_long_responses_are_refused),
		cmocka_unit_test(trailing_bytes_in_requests_are_ignored),
		cmocka_unit_test(the_context_of_a_trace_goes_behind_a_request),
		cmocka_unit_test(an_slru_count_above_a_segment_is_refused),
		cmocka_unit_test(unknown_tags_are_refused),
		cmocka_unit_test(unknown_tags_and_versions_are_not_encoded),
		cmocka_unit_test(a_boolean_is_zero_or_one),
		cmocka_unit_test(an_error_text_ends_with_its_only_nul),
		cmocka_unit_test(a_fork_number_that_does_not_fit_is_not_squeezed),
		cmocka_unit_test(encoders_stay_inside_a_small_buffer),
		cmocka_unit_test(each_field_of_a_page_echo_is_compared),
		cmocka_unit_test(each_field_of_the_other_echoes_is_compared),
		cmocka_unit_test(only_the_own_answer_tag_or_an_error_matches),
		cmocka_unit_test(an_error_answer_matches_by_its_header),
		cmocka_unit_test(version_two_has_nothing_but_the_tag_to_compare),
		cmocka_unit_test(requests_have_names),
	};

	return cmocka_run_group_tests_name("pagestream", tests, (CMFixtureFunction) fill_segment,
									   NULL);
}
