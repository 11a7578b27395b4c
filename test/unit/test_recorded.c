/*
 * test_recorded.c
 *	  What a page server of Neon answered, recorded (test/wire): for each of the 83 exchanges, what this client
 *	  makes of it.
 *
 * Each request that a client may send is decoded, encoded again, and must be the same bytes; each answer is cut
 * into frames, decoded, compared with its request and judged, as a connection does it.  Long messages were cut
 * when they were recorded, and end with zeroes here.
 *
 * Those that this client can take part in are played, too: a process says what was recorded, whenever it has been
 * asked as it was when it was recorded, and the engine of the communicator is at the other end.
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

#include <arpa/inet.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine_world.h"
#include "nc/wire/pagestream.h"
#include "nc/wire/session.h"

#define FRAMES "test/wire/neon_frames.txt"
#define EXCHANGES 83
#define PLAYED 42
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
	uint32_t	sent;			/* messages inside the stream, requests or not */
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
	x->sent++;
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

	judge(x, kind == NC_ERROR_FINAL || kind == NC_ERROR_HOST ? FINAL : TRANSIENT, 0);
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

/* ---- one that is played ---- */

/* What the player tells. */
#define TOLD_AGAIN 'a'			/* asked again, on this connection or on another one */
#define TOLD_OTHERWISE 'o'		/* asked otherwise than when it was recorded */

#define LINES_MAX 64

typedef struct Script
{
	char	   *lines[LINES_MAX];
	int			n;
	int			version;
	int			told;			/* written to */
} Script;

/* False at the end of the connection. */
static bool
take(int fd, uint8_t *to, size_t bytes)
{
	return bytes == 0 || recv(fd, to, bytes, MSG_WAITALL) == (ssize_t) bytes;
}

static size_t
length_at(const uint8_t *at)
{
	return (size_t) at[0] << 24 | (size_t) at[1] << 16 | (size_t) at[2] << 8 | at[3];
}

static void
tell(const Script *s, char what)
{
	if (write(s->told, &what, 1) != 1)
		_exit(1);
}

/* What a client says, into `got`; false at the end of the connection. */
static bool
take_message(int fd, bool startup, uint8_t *got, size_t *bytes)
{
	size_t		head = startup ? 4 : 5;

	if (!take(fd, got, head))
		return false;
	*bytes = length_at(got + head - 4) + head - 4;
	return *bytes <= 20000 && take(fd, got + head, *bytes - head);
}

/* The request id is the client's own. */
static bool
is_as_recorded(const Script *s, const uint8_t *got, size_t bytes, const char *line)
{
	size_t		recorded = unhex(line);

	if (got[0] != 'd')
		return got[0] == message[0];
	if (recorded == bytes && s->version == 3)
		memcpy(message + 6, got + 6, 8);
	return recorded == bytes && memcmp(message, got, bytes) == 0;
}

/* Plays until the end of the connection; `again`: up to the first request, which is a repetition. */
static void
play_connection(const Script *s, int fd, bool again)
{
	static uint8_t got[32768];
	uint8_t		ids[REQUESTS_MAX][8];
	size_t		bytes;
	int			asked = 0;
	int			answered = 0;

	for (int i = 0; i < s->n; i++)
	{
		const char *line = s->lines[i];

		if (strncmp(line, "> ", 2) == 0)
		{
			if (!take_message(fd, i == 0, got, &bytes))
				return;
			if (i > 0 && !is_as_recorded(s, got, bytes, line + 2))
				tell(s, TOLD_OTHERWISE);
			if (got[0] != 'd')
				continue;
			memcpy(ids[asked++], got + 6, 8);
			if (again)
				tell(s, TOLD_AGAIN);
		}
		else if (strncmp(line, "< ", 2) == 0)
		{
			bytes = unhex(line + 2);
			if (message[0] == 'd' && s->version == 3)
				memcpy(message + 6, ids[answered++], 8);
			if (send(fd, message, bytes, MSG_NOSIGNAL) != (ssize_t) bytes)
				return;
		}
		else if (strcmp(line, "<< closed") == 0)
			return;
	}
	while (take_message(fd, false, got, &bytes))
		tell(s, TOLD_AGAIN);
}

static void
play(const Script *s, int listener)
{
	for (int i = 0;; i++)
	{
		int			fd = accept(listener, NULL, NULL);

		if (fd < 0)
			_exit(1);
		play_connection(s, fd, i > 0);
		close(fd);
	}
}

/* ---- the engine at the other end ---- */

static int
listen_here(char *conninfo, size_t bytes)
{
	int			fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t	length = sizeof(at);

	assert_true(fd >= 0);
	assert_int_equal(bind(fd, (struct sockaddr *) &at, sizeof(at)), 0);
	assert_int_equal(listen(fd, 8), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *) &at, &length), 0);
	snprintf(conninfo, bytes, "host=127.0.0.1 port=%d sslmode=disable gssencmode=disable", ntohs(at.sin_port));
	return fd;
}

static const NcSlotKind kind_of[] = {
	[NC_REQ_EXISTS] = NC_SLOT_KIND_EXISTS, [NC_REQ_NBLOCKS] = NC_SLOT_KIND_NBLOCKS,
	[NC_REQ_GETPAGE] = NC_SLOT_KIND_GETPAGE, [NC_REQ_DBSIZE] = NC_SLOT_KIND_DBSIZE
};

static void
submit(World *w, const Exchange *x)
{
	const NcPsRequest *req = &x->requests[0];
	NcSlot	   *s = world_slot(w, 0, 0);

	assert_true(nc_slot_move(s, nc_slot_load(s), NC_SLOT_FILLING));
	s->spc = req->rel.spc;
	s->db = req->tag == NC_REQ_DBSIZE ? req->db : req->rel.db;
	s->rel = req->rel.rel;
	s->fork = (uint8_t) req->rel.fork;
	s->kind = (uint8_t) kind_of[req->tag];
	s->class = NC_SLOT_CLASS_DEMAND;
	s->nblocks = (uint8_t) x->asked;
	s->block = req->block;
	s->dest_first = 0;
	s->request_lsn = req->request_lsn;
	s->not_modified_since = req->not_modified_since;
	s->value = 0;
	for (uint32_t i = 0; i < x->asked; i++)
		w->area.rings[0].dests[i] = i;
	assert_true(nc_slot_move(s, nc_slot_load(s), NC_SLOT_SUBMITTED));
	(void) nc_ring_notify(&w->area, 0, 0);
}

/* Turns until the slot is done, or the player tells something: that, or 0. */
static char
turn_until(World *w, int told)
{
	char		what;

	for (int i = 0; i < WORLD_TURNS_MAX; i++)
	{
		world_turn(w);
		w->now_us += 1000;
		if (read(told, &what, 1) == 1)
			return what;
		if (world_state(w, 0, 0) == NC_SLOT_DONE)
			return 0;
	}
	fail_msg("nothing comes of it: %s", w->log);
	return 0;
}

static void
expect_done(World *w, const Exchange *x)
{
	uint64_t	value = world_slot(w, 0, 0)->value;

	assert_int_equal(world_collect(w, 0, 0), x->outcome == FINAL ? NC_SLOT_RESULT_PS_ERROR : NC_SLOT_RESULT_OK);
	if (x->outcome == VALUE)
		assert_int_equal(value, x->value);
	for (uint32_t i = 0; i < x->asked && (x->outcome == PAGE || x->outcome == ZEROES); i++)
		assert_int_equal(is_zero(w->dest + (size_t) i * NC_PAGE_BYTES, NC_PAGE_BYTES), x->outcome == ZEROES);
}

static void
meet_player(const Exchange *x, const char *conninfo, int told)
{
	World	   *w = world_open(NC_LOOP_EPOLL, 1, 0);
	char		what;

	w->config.protocol_version = x->version;
	w->config.connections_per_shard_max = 1;
	w->config.connect_timeout_ms = w->config.silence_timeout_ms = 3600000;
	strcpy(w->config.tenant_id, "6859ba5e23f1241ce5eb54f2d47ff929");
	strcpy(w->config.timeline_id, "dbc9886da0c99e9a31587570683deba7");
	w->map.shard_count = 1;
	w->map.stripe_blocks = 1;
	snprintf(w->map.conninfo[0], sizeof(w->map.conninfo[0]), "%s", conninfo);
	w->wait_ms = 1;
	memset(w->dest, 0xff, (size_t) REQUESTS_MAX * NC_PAGE_BYTES);
	world_start(w);
	submit(w, x);
	what = turn_until(w, told);
	if (x->outcome == TRANSIENT || x->outcome == STREAM_ENDS)
	{
		assert_int_equal(what, TOLD_AGAIN);
		assert_int_equal(world_state(w, 0, 0), NC_SLOT_TAKEN);
	}
	else
	{
		assert_int_equal(what, 0);
		expect_done(w, x);
	}
	world_close(w);
}

/* Could our client have sent all of it, and nothing else? */
static bool
is_for_us(const Exchange *x)
{
	return x->streams && x->asked > 0 && x->asked == x->sent && x->requests[0].tag != NC_REQ_SLRU;
}

static void
meet(const Exchange *x, Script *script)
{
	char		conninfo[128];
	int			listener = listen_here(conninfo, sizeof(conninfo));
	int			told[2];
	pid_t		player;

	assert_int_equal(pipe2(told, O_NONBLOCK | O_CLOEXEC), 0);
	script->version = x->version;
	script->told = told[1];
	player = fork();
	assert_true(player >= 0);
	if (player == 0)
		play(script, listener);
	meet_player(x, conninfo, told[0]);
	kill(player, SIGKILL);
	waitpid(player, NULL, 0);
	close(told[0]);
	close(told[1]);
	close(listener);
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
clear_script(Script *script)
{
	while (script->n > 0)
		free(script->lines[--script->n]);
}

static void
test_played(void **state)
{
	static char line[LINE_BYTES];
	static Script script;
	FILE	   *file = fopen(FRAMES, "r");
	Exchange	x = {0};
	int			played = 0;
	bool		more = true;

	assert_non_null(file);
	while (more)
	{
		more = fgets(line, sizeof(line), file) != NULL;
		line[strcspn(line, "\n")] = '\0';
		if (!more || strncmp(line, "# ", 2) == 0)
		{
			if (is_for_us(&x))
			{
				meet(&x, &script);
				played++;
			}
			clear_script(&script);
			if (more)
				begin_exchange(&x, line + 2);
			continue;
		}
		assert_true(script.n < LINES_MAX);
		script.lines[script.n++] = strdup(line);
		if (strncmp(line, "> ", 2) == 0)
			sent(&x, line + 2);
		else if (strncmp(line, "< ", 2) == 0)
			came(&x, line + 2);
	}
	fclose(file);
	assert_int_equal(played, PLAYED);
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
		cmocka_unit_test(test_recorded),
		cmocka_unit_test(test_played)
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
