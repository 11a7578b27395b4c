/*
 * test_trace.c
 *	  Traced requests: the traceparent of a statement, records through memory, spans as
 *	  JSON to the byte, addresses of collectors, the file that is put aside, the post.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "nc/base/file.h"
#include "nc/trace/otlp.h"
#include "nc/trace/outlet.h"
#include "nc/trace/parent.h"

#define TRACE "4bf92f3577b34da6a3ce929d0e0e4736"
#define SPAN "00f067aa0ba902b7"

static void
test_parent(void **state)
{
	static const struct
	{
		const char *text;
		bool		found;
		bool		sampled;
	}			rows[] = {
		{"SELECT 1 /*traceparent='00-" TRACE "-" SPAN "-01'*/", true, true},
		{"SELECT 1 /*a='b',traceparent='00-" TRACE "-" SPAN "-00',z='1'*/", true, false},
		{"/* x */ SELECT 1 /* traceparent = '00-" TRACE "-" SPAN "-03' */;", true, true},
		/* a later version may have more */
		{"SELECT 1 /*traceparent='01-" TRACE "-" SPAN "-01-more'*/", true, true},
		{"SELECT 1 /*traceparent='00-" TRACE "-" SPAN "-01-more'*/", false, false},
		{"SELECT 1 /*traceparent='ff-" TRACE "-" SPAN "-01'*/", false, false},
		{"SELECT 1 /*traceparent='00-" TRACE "-" SPAN "-0'*/", false, false},
		{"SELECT 1 /*traceparent='00-" TRACE "-" SPAN "-01", false, false},
		{"SELECT 'traceparent=''00-" TRACE "-" SPAN "-01'''", false, false},
		{"SELECT 1 /*traceparent='00-00000000000000000000000000000000-" SPAN "-01'*/", false, false},
		{"SELECT 1 /*traceparent='00-" TRACE "-0000000000000000-01'*/", false, false},
		{"SELECT 1 /*traceparent='00-4BF92f3577b34da6a3ce929d0e0e4736-" SPAN "-01'*/", false, false},
		{"SELECT 1 /*traceparent=*/", false, false},
		{"SELECT 1 /*traceparent*/", false, false},
		{"/*", false, false},
		{"", false, false}
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
	{
		NcTraceContext at;
		bool		sampled = false;

		assert_int_equal(nc_trace_parent_find(rows[i].text, &at, &sampled), rows[i].found);
		if (!rows[i].found)
			continue;
		assert_int_equal(sampled, rows[i].sampled);
		assert_memory_equal(at.trace_id, "\x4b\xf9\x2f\x35\x77\xb3\x4d\xa6\xa3\xce\x92\x9d\x0e\x0e\x47\x36", 16);
		assert_memory_equal(at.span_id, "\x00\xf0\x67\xaa\x0b\xa9\x02\xb7", 8);
	}
}

static NcTraceBuffer buffer;

static void
test_buffer(void **state)
{
	static NcTraceRecord out[NC_TRACE_CELLS];
	NcTraceRecord record = {0};

	assert_int_equal(nc_trace_take(&buffer, out, NC_TRACE_CELLS), 0);
	for (uint32_t i = 0; i < NC_TRACE_CELLS; i++)
	{
		record.block = i;
		assert_true(nc_trace_put(&buffer, &record));
	}
	/* no room: dropped, and the others are as they were */
	assert_false(nc_trace_put(&buffer, &record));
	assert_int_equal(buffer.dropped, 1);
	assert_int_equal(buffer.recorded, NC_TRACE_CELLS);

	/* one that is being written is left alone, and keeps nobody else */
	buffer.cells[7].state = NC_TRACE_WRITING;
	assert_int_equal(nc_trace_take(&buffer, out, 3), 3);
	assert_int_equal(out[0].block, 1);
	assert_int_equal(nc_trace_take(&buffer, out, NC_TRACE_CELLS), NC_TRACE_CELLS - 4);
	assert_int_equal(out[0].block, 4);
	assert_int_equal(out[3].block, 8);
	assert_int_equal(out[NC_TRACE_CELLS - 5].block, 0);
	buffer.cells[7].state = NC_TRACE_FULL;
	assert_int_equal(nc_trace_take(&buffer, out, NC_TRACE_CELLS), 1);
	assert_int_equal(out[0].block, 7);
	assert_int_equal(nc_trace_take(&buffer, out, NC_TRACE_CELLS), 0);
}

static NcTraceRecord
a_read(void)
{
	NcTraceRecord r = {
		.parent_id = {0, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 0x02, 0xb7},
		.tag = NC_REQ_GETPAGE,
		.class = NC_TRACE_AHEAD,
		.time_us = {1, 2, 3, 4, 5, 6, 7},
		.reqid = UINT64_C(0xfedcba9876543210),
		.not_modified_since = UINT64_C(0x100000abc),
		.rel = {1663, 5, 16384, 0},
		.block = 42,
		.nblocks = 16,
		.shard = 3,
		.pid = 4711
	};

	memset(r.at.trace_id, 0xab, sizeof(r.at.trace_id));
	memset(r.at.span_id, 0x1f, sizeof(r.at.span_id));
	return r;
}

#define ATTRIBUTE(key, type, value) "{\"key\":\"" key "\",\"value\":{\"" type "\":\"" value "\"}}"
#define EVENT(us, name) "{\"timeUnixNano\":\"170000000000000" us "000\",\"name\":\"" name "\"}"

static void
test_otlp(void **state)
{
	static char text[NC_OTLP_HEAD_BYTES + 2 * NC_OTLP_SPAN_BYTES];
	NcWriter	w = nc_writer(text, sizeof(text));
	NcTraceRecord r = a_read();

	nc_otlp_write(&w, "neon_comm", "a\"b:5432", &r, 1, UINT64_C(1700000000000000));
	nc_write_u8(&w, 0);
	assert_false(w.failed);
	assert_string_equal(text, "{\"resourceSpans\":[{\"resource\":{\"attributes\":["
						ATTRIBUTE("service.name", "stringValue", "neon_comm") ","
						ATTRIBUTE("service.instance.id", "stringValue", "a\\\"b:5432")
						"]},\"scopeSpans\":[{\"scope\":{\"name\":\"neon_comm\"},\"spans\":["
						"{\"traceId\":\"abababababababababababababababab\",\"spanId\":\"1f1f1f1f1f1f1f1f\","
						"\"parentSpanId\":\"00f067aa0ba902b7\",\"name\":\"neon.read\",\"kind\":3,"
						"\"startTimeUnixNano\":\"1700000000000001000\",\"endTimeUnixNano\":\"1700000000000007000\","
						"\"attributes\":["
						ATTRIBUTE("neon.request_id", "stringValue", "fedcba9876543210") ","
						ATTRIBUTE("neon.request", "stringValue", "GetPage") ","
						ATTRIBUTE("neon.class", "stringValue", "ahead") ","
						ATTRIBUTE("neon.relation", "stringValue", "1663/5/16384") ","
						ATTRIBUTE("neon.fork", "intValue", "0") ","
						ATTRIBUTE("neon.block", "intValue", "42") ","
						ATTRIBUTE("neon.blocks", "intValue", "16") ","
						ATTRIBUTE("neon.not_modified_since", "stringValue", "1/ABC") ","
						ATTRIBUTE("neon.shard", "intValue", "3") ","
						ATTRIBUTE("process.pid", "intValue", "4711") "],\"events\":["
						EVENT("2", "taken") "," EVENT("3", "sent") "," EVENT("4", "received") ","
						EVENT("5", "reached") "," EVENT("6", "done") "],\"status\":{}}]}]}]}");
}

/* What did not come about is left out; what failed says so; an answer is a server's. */
static void
test_otlp_failed(void **state)
{
	static char text[NC_OTLP_HEAD_BYTES + 2 * NC_OTLP_SPAN_BYTES];
	NcWriter	w = nc_writer(text, sizeof(text));
	NcTraceRecord r[2] = {a_read(), a_read()};

	memset(r[0].time_us + 1, 0, 5 * sizeof(uint64_t));
	memset(r[0].parent_id, 0, sizeof(r[0].parent_id));
	r[0].failed = true;
	r[1].kind = NC_TRACE_ANSWER;
	memset(r[1].time_us + 3, 0, 4 * sizeof(uint64_t));
	nc_otlp_write(&w, "s", "i", r, 2, UINT64_C(1700000000000000));
	nc_write_u8(&w, 0);
	assert_non_null(strstr(text, "\"events\":[],\"status\":{\"code\":2}"));
	assert_true(strstr(text, "\"parentSpanId\"") > strstr(text, "\"status\""));
	assert_non_null(strstr(text, "\"name\":\"neon.answer\",\"kind\":2"));
	assert_non_null(strstr(text, "\"events\":[" EVENT("2", "replayed") "]"));
	assert_non_null(strstr(text, "\"endTimeUnixNano\":\"1700000000000003000\""));
}

/* The longest one fits the bound, with numbers as long as they can be. */
static void
test_otlp_bound(void **state)
{
	static char text[NC_OTLP_HEAD_BYTES + NC_OTLP_SPAN_BYTES];
	NcWriter	w = nc_writer(text, sizeof(text));
	NcTraceRecord r = a_read();
	char		instance[256];

	memset(instance, '"', sizeof(instance) - 1);
	instance[sizeof(instance) - 1] = '\0';
	for (int i = 0; i < NC_TRACE_TIMES; i++)
		r.time_us[i] = UINT64_MAX / 1000;
	r.rel = (NcRelKey) {UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX};
	r.block = r.nblocks = r.shard = r.pid = UINT32_MAX;
	r.not_modified_since = UINT64_MAX;
	r.failed = true;
	nc_otlp_write(&w, "neon_page_service", instance, &r, 1, 0);
	assert_false(w.failed);
	/* and one without room says so */
	w = nc_writer(text, 100);
	nc_otlp_write(&w, "neon_page_service", instance, &r, 1, 0);
	assert_true(w.failed);
}

static void
test_url(void **state)
{
	static const char *const bad[] = {
		"", "127.0.0.1:4318", "https://127.0.0.1/", "http://", "http://10.0.0.1/", "http://collector/",
		"http://127.0.0.1:0/", "http://127.0.0.1:65536/", "http://127.0.0.1:x/", "http://127.0.0.1:/",
		"http://[::1", "http://[::1]x/", "http://[::2]/", "http://127.0.0.1/a b", "http://127.0.0.1/a\r\nHost: b",
		"http://127.0.0.1?x", "http://user@127.0.0.1/", NULL
	};
	NcTraceUrl	url;

	for (int i = 0; bad[i] != NULL; i++)
		assert_non_null(nc_trace_url_parse(bad[i], &url));
	assert_null(nc_trace_url_parse("http://127.0.0.1", &url));
	assert_string_equal(url.host, "127.0.0.1");
	assert_string_equal(url.path, "/v1/traces");
	assert_int_equal(url.port, 4318);
	assert_null(nc_trace_url_parse("http://localhost:1/otlp/v1/traces?a=b", &url));
	assert_string_equal(url.host, "127.0.0.1");
	assert_string_equal(url.path, "/otlp/v1/traces?a=b");
	assert_int_equal(url.port, 1);
	assert_null(nc_trace_url_parse("http://[::1]:65535/", &url));
	assert_string_equal(url.host, "::1");
	assert_int_equal(url.port, 65535);
}

static long
size_of(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 ? (long) st.st_size : -1;
}

static void
test_file(void **state)
{
	char		dir[] = "/tmp/test_trace_XXXXXX";
	char		path[64];
	char		older[64];
	struct stat st;

	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/t", dir);
	snprintf(older, sizeof(older), "%s/t.1", dir);
	for (int i = 0; i < 3; i++)
		assert_true(nc_trace_file_append(path, 12, "abc\n", 4));
	assert_int_equal(size_of(path), 12);
	assert_int_equal(size_of(older), -1);
	assert_true(nc_trace_file_append(path, 12, "d\n", 2));
	assert_int_equal(size_of(path), 2);
	assert_int_equal(size_of(older), 12);
	/* longer than may be: by itself, and what was there before is put aside */
	assert_true(nc_trace_file_append(path, 12, "0123456789abcdef\n", 17));
	assert_int_equal(size_of(path), 17);
	assert_int_equal(size_of(older), 2);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	/* what is no file is not waited for */
	unlink(path);
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_false(nc_trace_file_append(path, 12, "x", 1));
	assert_int_equal(errno, NC_NOT_A_FILE);
	unlink(path);
	unlink(older);
	assert_int_equal(rmdir(dir), 0);
	assert_false(nc_trace_file_append(path, 12, "x", 1));
	assert_int_equal(errno, ENOENT);
}

/* ---- the post ---- */

static int
listener(NcTraceUrl *url)
{
	struct sockaddr_in at = {.sin_family = AF_INET,.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t	bytes = sizeof(at);
	int			fd = socket(AF_INET, SOCK_STREAM, 0);

	assert_int_equal(bind(fd, (struct sockaddr *) &at, sizeof(at)), 0);
	assert_int_equal(listen(fd, 5), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *) &at, &bytes), 0);
	*url = (NcTraceUrl) {.host = "127.0.0.1",.path = "/p",.port = ntohs(at.sin_port)};
	return fd;
}

static void
until_ended(NcTracePost *p)
{
	while (!nc_trace_post_turn(p, 0))
	{
		struct pollfd fd = {.fd = p->fd,.events = p->state == NC_TRACE_POST_RECEIVING ? POLLIN : POLLOUT};

		assert_int_equal(poll(&fd, 1, 20000), 1);
	}
}

/* Sends a body and lets the other side answer; "" = it only closes. */
static void
post(const char *answer, const char *error)
{
	NcTraceUrl	url;
	NcTracePost p = {0};
	char		got[1000];
	size_t		n = 0;
	int			at = listener(&url);
	int			fd;

	assert_true(nc_trace_post_begin(&p, &url, "{\"a\":1}", 7, 0));
	while (p.state != NC_TRACE_POST_RECEIVING)
		assert_false(nc_trace_post_turn(&p, 0));
	fd = accept(at, NULL, NULL);
	while (n < 7 || memcmp(got + n - 7, "{\"a\":1}", 7) != 0)
	{
		ssize_t		more = read(fd, got + n, sizeof(got) - n);

		assert_true(more > 0);
		n += (size_t) more;
	}
	assert_memory_equal(got, "POST /p HTTP/1.1\r\nHost: 127.0.0.1:", 34);
	assert_int_equal(write(fd, answer, strlen(answer)), strlen(answer));
	close(fd);
	until_ended(&p);
	assert_int_equal(p.state, NC_TRACE_POST_IDLE);
	assert_string_equal(p.error, error);
	close(at);
}

static void
test_post(void **state)
{
	NcTraceUrl	url;
	NcTracePost p = {0};
	int			at;

	post("HTTP/1.1 200 OK\r\n\r\n{}", "");
	post("HTTP/1.0 202 Accepted\r\n", "");
	post("HTTP/1.1 503 Service \x01 Unavailable\r\n\r\n", "the collector refused: HTTP/1.1 503 Service ");
	post("SSH-2.0-OpenSSH_9.2\r\n", "the collector refused: SSH-2.0-OpenSSH_9.2");
	post("", "the collector did not answer: the connection was closed");

	/* one that does not answer */
	at = listener(&url);
	assert_true(nc_trace_post_begin(&p, &url, "x", 1, 1000));
	while (p.state != NC_TRACE_POST_RECEIVING)
		assert_false(nc_trace_post_turn(&p, 1000));
	assert_false(nc_trace_post_turn(&p, 1000 + NC_TRACE_POST_US - 1));
	assert_true(nc_trace_post_turn(&p, 1000 + NC_TRACE_POST_US));
	assert_string_equal(p.error, "the collector did not answer: too late");
	close(at);

	/* nobody there */
	if (nc_trace_post_begin(&p, &url, "x", 1, 0))
		until_ended(&p);
	assert_string_equal(p.error, "could not connect: Connection refused");
	assert_false(nc_trace_post_turn(&p, 0));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parent),
		cmocka_unit_test(test_buffer),
		cmocka_unit_test(test_otlp),
		cmocka_unit_test(test_otlp_failed),
		cmocka_unit_test(test_otlp_bound),
		cmocka_unit_test(test_url),
		cmocka_unit_test(test_file),
		cmocka_unit_test(test_post),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
