/*
 * test_recorded.c
 *	  What a page server of Neon answered, recorded (test/wire): for each of the 83 exchanges, what this client
 *	  makes of it.
 *
 * Each request that a client may send is decoded, encoded again, and must be the same bytes; each answer is cut
 * into frames, decoded, compared with its request and judged, as a connection does it.  Long messages were cut
 * when they were recorded, and end with zeroes here.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "nc/wire/pagestream.h"
#include "nc/wire/session.h"

#define FRAMES "test/wire/neon_frames.txt"
#define EXCHANGES 83
#define LINE_BYTES 65536
#define REQUESTS_MAX 4

/* What becomes of an exchange. */
typedef enum Outcome
{
	VALUE,						/* a number */
	PAGE,						/* a page with content */
	ZEROES,						/* a page without */
	SEGMENT,					/* pages of an SLRU */
	FINAL,						/* Error; asking again gives the same */
	TRANSIENT,					/* Error; asked again */
	STREAM_ENDS,				/* ErrorResponse: the connection ends, requests go to another one */
	REFUSED,					/* ErrorResponse to a query: no stream */
	OPENED,						/* a stream, or a login, and nothing asked */
	ROWS,						/* an answer to a query that opens no stream */
	NO_SECURITY,				/* "N" */
	CLOSED						/* without a word */
} Outcome;

typedef struct Expected
{
	const char *name;			/* of protocol 2 and 3 without "v2 " and "v3 " */
	Outcome		outcome;
	uint64_t	value;			/* VALUE; SEGMENT: blocks; PAGE, ZEROES: how many */
} Expected;

static const Expected expected[] = {
	{"exists, there", VALUE, 1},
	{"exists, not there", VALUE, 0},
	{"nblocks", VALUE, 0x8013},
	{"nblocks of a visibility map", VALUE, 2},
	{"nblocks, relation not there", FINAL, 0},
	{"getpage block 0", PAGE, 1},
	{"getpage past the end", ZEROES, 1},
	{"getpage, relation not there", FINAL, 0},
	{"database size", VALUE, 0x1a0de000},
	{"database size, not there", FINAL, 0},
	{"SLRU clog segment 0", SEGMENT, 1},
	{"SLRU multixact members segment 0", SEGMENT, 1},
	{"SLRU multixact offsets segment 0", SEGMENT, 1},
	{"SLRU clog segment 9", FINAL, 0},
	{"SLRU of kind 3", FINAL, 0},
	{"getpage, request below not-modified-since", FINAL, 0},
	{"getpage, request LSN 0", FINAL, 0},
	{"getpage, exact LSN", PAGE, 1},
	{"getpage, not-modified-since 0", PAGE, 1},
	{"getpage, far future", TRANSIENT, 0},
	{"getpage, request LSN one byte above", PAGE, 1},
	{"three pipelined, answers in order", PAGE, 3},
	{"CopyDone, then a query", STREAM_ENDS, 0},
	{"CopyFail", STREAM_ENDS, 0},
	{"Flush and Sync inside the stream", STREAM_ENDS, 0},
	{"unknown tag", STREAM_ENDS, 0},
	{"truncated getpage", STREAM_ENDS, 0},
	{"empty CopyData", STREAM_ENDS, 0},
	{"wrong tenant, getpage", STREAM_ENDS, 0},
	{"wrong tenant, nblocks", STREAM_ENDS, 0},
	{"wrong timeline, getpage", TRANSIENT, 0},
	{"wrong timeline, nblocks", STREAM_ENDS, 0},
	{"select 1", REFUSED, 0},
	{"set", ROWS, 0},
	{"pagestream without version", REFUSED, 0},
	{"pagestream_v3 with one argument", REFUSED, 0},
	{"pagestream_v3, tenant with a shard suffix", REFUSED, 0},
	{"pagestream_v3, no hex", REFUSED, 0},
	{"empty query", REFUSED, 0},
	{"PAGESTREAM_V3 in capitals", OPENED, 0},
	{"lease lsn", ROWS, 0},
	{"basebackup of a wrong timeline", REFUSED, 0},
	{"SSLRequest", NO_SECURITY, 0},
	{"GSSENCRequest", NO_SECURITY, 0},
	{"CancelRequest", CLOSED, 0},
	{"protocol 2.0", CLOSED, 0},
	{"protocol 3.2", OPENED, 0},
	{"startup without user", OPENED, 0},
	{"startup of 20000 bytes", CLOSED, 0},
	{"Parse (extended protocol)", ROWS, 0},
	{"Terminate inside the stream", OPENED, 0}
};

/* An exchange that is being read. */
typedef struct Exchange
{
	const Expected *expected;
	int			version;		/* 0: none */
	bool		streams;		/* CopyBoth has come */
	bool		said;			/* any message has come */
	bool		judged;			/* the outcome is there: what follows is about something else */
	Outcome		outcome;
	uint64_t	value;
	NcPsRequest requests[REQUESTS_MAX];
	uint32_t	asked;
	uint32_t	answered;
} Exchange;

static uint8_t message[1 << 20];

static const Expected *
find_expected(const char *name)
{
	for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++)
		if (strcmp(expected[i].name, name) == 0)
			return &expected[i];
	print_error("nothing is expected of \"%s\"\n", name);
	fail();
	return NULL;
}

/* Hexadecimal digits, and perhaps " +N": zeroes behind them. Returns the bytes. */
static size_t
unhex(const char *text)
{
	size_t		n = 0;
	unsigned int byte;

	memset(message, 0, sizeof(message));
	for (; sscanf(text, "%2x", &byte) == 1 && *text != ' '; text += 2)
		message[n++] = (uint8_t) byte;
	if (*text == ' ')
		n += strtoul(text + 2, NULL, 10);
	assert_true(n < sizeof(message));
	return n;
}

static void
judge(Exchange *x, Outcome outcome, uint64_t value)
{
	if (x->judged)
		return;
	x->outcome = outcome;
	x->value = value;
}

/* ---- what was sent ---- */

static void
sent(Exchange *x, const char *text)
{
	size_t		bytes;
	NcFrame		frame;
	NcPsRequest *req = &x->requests[x->asked];
	uint8_t		again[NC_REQUEST_BYTES_MAX];
	NcWriter	w = nc_writer(again, sizeof(again));

	if (!x->streams || *text == '<')
		return;
	bytes = unhex(text);
	assert_int_equal(nc_frame_parse(message, bytes, NC_CLIENT_MESSAGE_BYTES_MAX, &frame), NC_FRAME_OK);
	/* others were sent to see what comes of it */
	if (frame.type != 'd' || !nc_ps_request_decode(frame.body, frame.body_bytes, x->version, req))
		return;
	assert_true(nc_ps_request_encode(&w, x->version, req));
	assert_int_equal(nc_writer_bytes(&w), frame.body_bytes);
	assert_memory_equal(again, frame.body, frame.body_bytes);
	x->asked++;
	assert_true(x->asked < REQUESTS_MAX);
}

/* ---- what came ---- */

static bool
is_zero(const uint8_t *bytes, size_t n)
{
	while (n > 0 && *bytes == 0)
		bytes++, n--;
	return n == 0;
}

static void
judge_error(Exchange *x, const NcPsResponse *resp)
{
	NcErrorKind kind = nc_ps_error_kind(resp->message, resp->message_bytes);

	judge(x, kind == NC_ERROR_FINAL ? FINAL : TRANSIENT, 0);
	assert_int_not_equal(kind, NC_ERROR_MISROUTED);
}

static void
answered(Exchange *x, const NcFrame *frame)
{
	NcPsResponse resp;

	assert_true(nc_ps_response_decode(frame->body, frame->body_bytes, x->version, &resp));
	assert_true(x->answered < x->asked);
	assert_null(nc_ps_response_mismatch(&resp, &x->requests[x->answered], x->version));
	x->answered++;
	switch (resp.tag)
	{
		case NC_RESP_EXISTS:
			judge(x, VALUE, resp.exists ? 1 : 0);
			break;
		case NC_RESP_NBLOCKS:
			judge(x, VALUE, resp.nblocks);
			break;
		case NC_RESP_DBSIZE:
			judge(x, VALUE, (uint64_t) resp.db_bytes);
			break;
		case NC_RESP_GETPAGE:
			judge(x, is_zero(resp.page, NC_PAGE_BYTES) ? ZEROES : PAGE, x->answered);
			break;
		case NC_RESP_SLRU:
			judge(x, SEGMENT, resp.nblocks);
			break;
		case NC_RESP_ERROR:
			judge_error(x, &resp);
			break;
	}
}

static void
came(Exchange *x, const char *text)
{
	size_t		bytes = unhex(text);
	NcFrame		frame;

	x->said = true;
	if (bytes == 1)
	{
		assert_int_equal(message[0], 'N');
		judge(x, NO_SECURITY, 0);
		return;
	}
	assert_int_equal(nc_frame_parse(message, bytes, NC_RESPONSE_BYTES_MAX, &frame), NC_FRAME_OK);
	assert_int_equal(frame.consumed, bytes);
	if (frame.type == 'W')
	{
		x->streams = true;
		judge(x, OPENED, 0);
	}
	else if (frame.type == 'd')
		answered(x, &frame);
	else if (frame.type == 'E')
	{
		judge(x, x->streams ? STREAM_ENDS : REFUSED, 0);
		x->judged = true;
	}
	else if (frame.type == 'R')
		judge(x, OPENED, 0);
	else if (frame.type == 'C' || frame.type == '1')
		judge(x, ROWS, 0);
}

/* ---- all of them ---- */

static void
end_exchange(const Exchange *x)
{
	if (x->expected == NULL)
		return;
	if (x->outcome != x->expected->outcome || x->value != x->expected->value || x->answered > x->asked)
	{
		print_error("\"%s\", protocol %d: outcome %d, %llu\n", x->expected->name, x->version, (int) x->outcome,
					(unsigned long long) x->value);
		fail();
	}
}

static void
begin_exchange(Exchange *x, const char *name)
{
	memset(x, 0, sizeof(*x));
	x->outcome = CLOSED;
	x->version = strstr(name, "v2 ") == name ? 2 : 3;
	if (strncmp(name, "v2 ", 3) == 0 || strncmp(name, "v3 ", 3) == 0)
		name += 3;
	x->expected = find_expected(name);
}

static void
test_recorded(void **state)
{
	static char line[LINE_BYTES];
	FILE	   *file = fopen(FRAMES, "r");
	Exchange	x = {0};
	int			n = 0;

	assert_non_null(file);
	while (fgets(line, sizeof(line), file) != NULL)
	{
		line[strcspn(line, "\n")] = '\0';
		if (strncmp(line, "# ", 2) == 0)
		{
			end_exchange(&x);
			begin_exchange(&x, line + 2);
			n++;
		}
		else if (strncmp(line, "> ", 2) == 0)
			sent(&x, line + 2);
		else if (strncmp(line, "< ", 2) == 0)
			came(&x, line + 2);
	}
	end_exchange(&x);
	fclose(file);
	assert_int_equal(n, EXCHANGES);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_recorded)
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
