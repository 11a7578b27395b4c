/*
 * test_http.c
 *	  Requests by HTTP: heads taken apart, whole and byte by byte; answers; and at a
 *	  door who gets one, in clear text and inside TLS, with a token and without.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "nc/serve/http.h"
#include "tls_files.h"
#include "tokens.h"

#define TENANT "0123456789abcdef0123456789abcdef"
#define HEADER "{\"alg\":\"EdDSA\",\"typ\":\"JWT\"}"
#define SECOND UINT64_C(1000000)
#define OUT_BYTES 16384
#define TURNS_MAX 3000
#define LONG_PAGE 100000

/* ---- heads ---- */

static NcHttpResult
parse(const char *text, NcHttpRequest *request)
{
	/* nothing behind it may be looked at */
	size_t		bytes = strlen(text);
	uint8_t    *copy = malloc(bytes + 1);
	NcHttpResult result;

	memcpy(copy, text, bytes);
	result = nc_http_parse(copy, bytes, request);
	free(copy);
	return result;
}

static void
test_good_heads(void **state)
{
	static const char head[] = "GET /metrics?x=1 HTTP/1.1\r\nHost: a:1\r\nauthorization:  bearer  abc \r\n"
		"Accept: application/openmetrics-text\r\nEmpty:\r\n\r\nrest";
	NcHttpRequest r;

	for (size_t n = 0; n < sizeof(head) - 5; n++)
		assert_int_equal(nc_http_parse((const uint8_t *) head, n, &r), NC_HTTP_INCOMPLETE);
	assert_int_equal(nc_http_parse((const uint8_t *) head, sizeof(head) - 1, &r), NC_HTTP_OK);
	assert_int_equal(r.consumed, sizeof(head) - 5);
	assert_int_equal(r.path_bytes, 8);
	assert_memory_equal(r.path, "/metrics", 8);
	assert_int_equal(r.token_bytes, 3);
	assert_memory_equal(r.token, "abc", 3);
	assert_true(r.openmetrics);
	assert_false(r.head_only);
	assert_int_equal(parse("HEAD / HTTP/1.0\r\n\r\n", &r), NC_HTTP_OK);
	assert_true(r.head_only);
	assert_null(r.token);
	assert_int_equal(parse("GET / HTTP/1.1\r\nContent-Length: 0\r\n\r\n", &r), NC_HTTP_OK);
}

static void
test_bad_heads(void **state)
{
	static const struct
	{
		const char *head;
		int			status;
	}			bad[] = {
		{"\x16\x03\x01", 400},
		{"get / HTTP/1.1\r\n\r\n", 400},
		{"GET\r\n\r\n", 400},
		{"GET /\r\n\r\n", 400},
		{"GET metrics HTTP/1.1\r\n\r\n", 400},
		{"GET  / HTTP/1.1\r\n\r\n", 400},
		{"GET / HTTP/1.x\r\n\r\n", 400},
		{"GET / FTTP/1.1\r\n\r\n", 400},
		{"GET / HTTP/2.0\r\n\r\n", 505},
		{"GET / HTTP/1.11\r\n\r\n", 505},
		{"POST / HTTP/1.1\r\n\r\n", 405},
		{"GET / HTTP/1.1\nHost: a\r\n\r\n", 400},
		{"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400},
		{"GET / HTTP/1.1\r\n: x\r\n\r\n", 400},
		{"GET / HTTP/1.1\r\nHost : x\r\n\r\n", 400},
		{"GET / HTTP/1.1\r\nA: b\r\n folded\r\n\r\n", 400},
		{"GET / HTTP/1.1\r\nA: \x01\r\n\r\n", 400},
		{"GET / HTTP/1.1\r\nA: \x7f\r\n\r\n", 400},
		{"GET / HTTP/1.1\r\nAuthorization: Basic eA==\r\n\r\n", 401},
		{"GET / HTTP/1.1\r\nAuthorization:\r\n\r\n", 401},
		{"GET / HTTP/1.1\r\nAuthorization: Bearer a\r\nAuthorization: Bearer b\r\n\r\n", 400},
		{"GET / HTTP/1.1\r\nContent-Length: 5\r\n\r\n", 400},
		{"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 400}
	};
	char	   *endless = malloc(NC_HTTP_HEAD_MAX + 10);
	NcHttpRequest r;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
	{
		if (parse(bad[i].head, &r) != NC_HTTP_INVALID || r.status != bad[i].status)
			fail_msg("%s: %d, not %d", bad[i].head, r.status, bad[i].status);
	}
	memset(endless, 'A', NC_HTTP_HEAD_MAX + 10);
	assert_int_equal(nc_http_parse((uint8_t *) endless, NC_HTTP_HEAD_MAX - 1, &r), NC_HTTP_INCOMPLETE);
	assert_int_equal(nc_http_parse((uint8_t *) endless, NC_HTTP_HEAD_MAX, &r), NC_HTTP_INVALID);
	assert_int_equal(r.status, 431);
	/* a head that ends beyond the bound is too long, however much of it is there */
	memcpy(endless + NC_HTTP_HEAD_MAX - 2, "\r\n\r\n", 4);
	assert_int_equal(nc_http_parse((uint8_t *) endless, NC_HTTP_HEAD_MAX + 2, &r), NC_HTTP_INVALID);
	assert_int_equal(r.status, 431);
	free(endless);
}

static void
test_formats(void **state)
{
	static const struct
	{
		const char *accept;
		bool		open;
	}			of[] = {
		{"*/*", false},
		{"text/plain", false},
		{"", false},
		{"application/openmetrics-text", true},
		{"application/openmetrics-text; version=1.0.0", true},
		{"application/openmetrics-text;version=1.0.0;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1", true},
		{"text/plain;version=0.0.4;q=0.5,application/openmetrics-text;q=0.25", false},
		{"text/plain;q=0.25, Application/OpenMetrics-Text;Q=0.5", true},
		{"application/openmetrics-text;q=0", false},
		{"application/openmetrics-text;q=0.000", false},
		{"application/openmetrics-text;q=.5", false},
		{"application/openmetrics-textual", false},
		{",,;q=1,application/openmetrics-text", true}
	};

	for (size_t i = 0; i < sizeof(of) / sizeof(of[0]); i++)
	{
		char		head[300];
		NcHttpRequest r;

		snprintf(head, sizeof(head), "GET / HTTP/1.1\r\nAccept: %s\r\n\r\n", of[i].accept);
		assert_int_equal(parse(head, &r), NC_HTTP_OK);
		if (r.openmetrics != of[i].open)
			fail_msg("%s", of[i].accept);
	}
}

/* ---- answers ---- */

static int
write_metrics(NcWriter *w, bool openmetrics)
{
	nc_write_bytes(w, openmetrics ? "open" : "plain", openmetrics ? 4 : 5);
	return 200;
}

static int
write_unready(NcWriter *w, bool openmetrics)
{
	nc_write_bytes(w, "{}", 2);
	return 503;
}

static int
write_long(NcWriter *w, bool openmetrics)
{
	(void) nc_write_space(w, LONG_PAGE);
	return 200;
}

static const NcHttpPage pages[] = {
	{"/metrics", true, write_metrics},
	{"/readyz", false, write_unready},
	{"/long", false, write_long},
	{NULL, false, NULL}
};

static const char *
answer(const char *request_text)
{
	static char text[OUT_BYTES + 1];
	NcWriter	w = nc_writer(text, OUT_BYTES);
	NcHttpRequest r;

	assert_int_equal(nc_http_parse((const uint8_t *) request_text, strlen(request_text), &r), NC_HTTP_OK);
	nc_http_answer(&w, &r, pages);
	assert_false(w.failed);
	text[nc_writer_bytes(&w)] = '\0';
	return text;
}

/* Status, a header that is in it, and exactly this body. */
static void
check_answer(const char *text, int status, const char *header, const char *body, bool with_body)
{
	const char *end = strstr(text, "\r\n\r\n");
	char		line[80];

	assert_non_null(end);
	snprintf(line, sizeof(line), "HTTP/1.1 %d ", status);
	assert_memory_equal(text, line, strlen(line));
	snprintf(line, sizeof(line), "Content-Length: %010zu\r\n", strlen(body));
	assert_non_null(strstr(text, line));
	assert_non_null(strstr(text, header));
	assert_non_null(strstr(text, "Connection: close\r\n"));
	assert_string_equal(end + 4, with_body ? body : "");
}

static void
test_answers(void **state)
{
	check_answer(answer("GET /metrics HTTP/1.1\r\n\r\n"), 200, "text/plain; version=0.0.4", "plain", true);
	check_answer(answer("GET /metrics HTTP/1.1\r\nAccept: application/openmetrics-text\r\n\r\n"), 200,
				 "application/openmetrics-text; version=1.0.0", "open", true);
	check_answer(answer("HEAD /metrics HTTP/1.1\r\n\r\n"), 200, "version=0.0.4", "plain", false);
	check_answer(answer("GET /readyz HTTP/1.1\r\n\r\n"), 503, "application/json", "{}", true);
	check_answer(answer("GET /metric HTTP/1.1\r\n\r\n"), 404, "text/plain", "no such page\n", true);
	check_answer(answer("GET /metrics/ HTTP/1.1\r\n\r\n"), 404, "text/plain", "no such page\n", true);
	check_answer(answer("GET /long HTTP/1.1\r\n\r\n"), 500, "text/plain",
				 "the answer would be longer than this server lets it be\n", true);
}

/* ---- at a door ---- */

typedef struct World
{
	NcLoop	   *loop;
	NcDoor		door;
	NcGuard		guard;
	int			gone;
	int			lines;
	char		line[1024];
} World;

static World *world;
static uint64_t clock_us;
static TlsFiles files;
static char key_file[] = "/tmp/nc_http_keys_XXXXXX";
static EVP_PKEY *key;

static uint64_t
now_us(void)
{
	return clock_us;
}

static uint64_t
unix_s(void)
{
	return UINT64_C(1700000000);
}

static void
log_line(NcDoor *door, const char *text, const char *detail)
{
	world->lines++;
	snprintf(world->line, sizeof(world->line), "%s", text);
}

static bool
silent(NcVisitor *v)
{
	return true;
}

static void
gone(NcVisitor *v)
{
	world->gone++;
}

static const NcDoorHost host = {
	.name = "exporter",
	.visitor_bytes = sizeof(NcVisitor),
	.in_bytes = NC_HTTP_HEAD_MAX,
	.out_bytes = OUT_BYTES,
	.answer_bytes = OUT_BYTES,
	.full = 1,
	.scope = NC_SCOPE_METRICS,
	.pages = pages,
	.tls_wanted = {"403", "must connect with TLS", NULL, NULL},
	.now_us = now_us,
	.unix_s = unix_s,
	.log = log_line,
	.message = nc_http_message,
	.silent = silent,
	.gone = gone
};

static int
set_up(void **state)
{
	NcDoorSettings settings = {true, TENANT, 60 * SECOND, 0, 2 * SECOND, 4};
	char		err[128] = "";

	world = calloc(1, sizeof(*world));
	clock_us = 5 * SECOND;
	world->loop = nc_loop_create(NC_LOOP_EPOLL, err, sizeof(err));
	assert_non_null(world->loop);
	nc_door_init(&world->door, &host, world->loop, &world->guard, &settings);
	return 0;
}

static int
tear_down(void **state)
{
	nc_door_shut(&world->door);
	assert_int_equal(world->door.visitors, 0);
	nc_loop_destroy(world->loop);
	nc_guard_clear(&world->guard);
	free(world);
	return 0;
}

static void
settle(void)
{
	for (int i = 0; i < TURNS_MAX; i++)
	{
		nc_loop_wait(world->loop, 0);
		nc_door_turn(&world->door);
		if (nc_door_sleep_us(&world->door) > 0 && !nc_loop_ready(world->loop) &&
			world->door.count[NC_VISITOR_GONE] == 0)
			return;
	}
	fail_msg("the door does not come to rest");
}

static int
admit(void)
{
	struct sockaddr_storage peer = {0};
	int			fds[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
	clock_us++;
	world->door.now_us = clock_us;
	assert_true(nc_door_admit(&world->door, fds[1], &peer));
	settle();
	return fds[0];
}

static void
say(int fd, const char *text, size_t piece)
{
	size_t		bytes = strlen(text);

	for (size_t at = 0; at < bytes; at += piece)
	{
		(void) !send(fd, text + at, piece < bytes - at ? piece : bytes - at, MSG_NOSIGNAL);
		settle();
	}
}

/* All that was said, which must have come to an end. */
static const char *
hear(int fd)
{
	static char text[OUT_BYTES + 1];
	size_t		have = 0;
	ssize_t		n;

	while ((n = recv(fd, text + have, OUT_BYTES - have, MSG_DONTWAIT)) > 0)
		have += (size_t) n;
	/* what he said and nobody took makes it a reset */
	assert_true(n == 0 || errno == ECONNRESET);
	text[have] = '\0';
	return text;
}

static const char *
ask(const char *text, size_t piece)
{
	static char copy[OUT_BYTES + 1];
	int			fd = admit();

	say(fd, text, piece);
	snprintf(copy, sizeof(copy), "%s", hear(fd));
	close(fd);
	settle();
	assert_int_equal(world->door.visitors, 0);
	return copy;
}

static void
test_door_answers_once(void **state)
{
	check_answer(ask("GET /metrics HTTP/1.1\r\n\r\n", 1000), 200, "0.0.4", "plain", true);
	check_answer(ask("GET /metrics HTTP/1.1\r\n\r\n", 1), 200, "0.0.4", "plain", true);
	/* what comes behind a request is not answered */
	check_answer(ask("GET /metrics HTTP/1.1\r\n\r\nGET /readyz HTTP/1.1\r\n\r\n", 1000), 200, "0.0.4", "plain", true);
	check_answer(ask("POST /metrics HTTP/1.1\r\n\r\n", 1), 405, "Allow: GET, HEAD",
				 "this is not a request that is answered here\n", true);
	check_answer(ask("x", 1), 400, "text/plain",
				 "this is not a request that is answered here\n", true);
	assert_int_equal(world->gone, 5);
}

/* TLS where there is no certificate: nothing can be said. */
static void
test_no_certificate(void **state)
{
	int			fd = admit();

	say(fd, "\x16", 1);
	assert_string_equal(hear(fd), "");
	assert_int_equal(world->gone, 1);
	close(fd);
}

static void
test_who_says_nothing_leaves(void **state)
{
	int			quiet = admit();
	int			slow = admit();

	say(slow, "GET /met", 1);
	clock_us += 59 * SECOND;
	settle();
	assert_int_equal(world->door.visitors, 2);
	clock_us += 2 * SECOND;
	settle();
	assert_int_equal(world->door.visitors, 0);
	assert_string_equal(hear(quiet), "");
	assert_string_equal(hear(slow), "");
	close(quiet);
	close(slow);
}

/* Who does not take his answer has his patience, and no more than a few have it at once. */
static void
test_who_takes_nothing_leaves(void **state)
{
	int			fds[8];

	for (int i = 0; i < 8; i++)
	{
		fds[i] = admit();
		say(fds[i], "GET /metrics HTTP/1.1\r\n\r\n", 1000);
		assert_true(world->door.visitors <= 5);
	}
	clock_us += 3 * SECOND;
	settle();
	assert_int_equal(world->door.visitors, 0);
	for (int i = 0; i < 8; i++)
		close(fds[i]);
}

static void
use_tokens(void)
{
	char		err[256];

	assert_true(nc_guard_take_keys(&world->guard, key_file, err, sizeof(err)));
}

static const char *
ask_with(const char *claims)
{
	char	   *token = tokens_make(key, HEADER, claims);
	char		text[1000];

	snprintf(text, sizeof(text), "GET /metrics HTTP/1.1\r\nAuthorization: Bearer %s\r\n\r\n", token);
	free(token);
	return ask(text, 1000);
}

static void
test_tokens(void **state)
{
	static const char refused[] = "the token is refused: its scope does not allow this\n";

	use_tokens();
	check_answer(ask("GET /metrics HTTP/1.1\r\n\r\n", 1000), 401, "WWW-Authenticate: Bearer",
				 "the token is refused: there is none\n", true);
	check_answer(ask("GET /nowhere HTTP/1.1\r\nAuthorization: Bearer x\r\n\r\n", 1000), 401, "Bearer",
				 "the token is refused: it is not a JSON web token\n", true);
	check_answer(ask_with("{\"scope\":\"metrics\"}"), 200, "0.0.4", "plain", true);
	check_answer(ask_with("{\"scope\":\"tenant\",\"tenant_id\":\"" TENANT "\"}"), 200, "0.0.4", "plain", true);
	check_answer(ask_with("{\"scope\":\"pageserverapi\"}"), 401, "Bearer", refused, true);
	check_answer(ask_with("{\"scope\":\"safekeeperdata\"}"), 401, "Bearer", refused, true);
}

static void
test_tls_is_insisted_on(void **state)
{
	char		err[256];

	assert_true(nc_guard_take_certificate(&world->guard, files.cert, files.key, err, sizeof(err)));
	world->guard.certified = true;
	check_answer(ask("GET /metrics HTTP/1.1\r\n\r\n", 1000), 403, "text/plain", "must connect with TLS\n", true);
	world->door.settings.require_ssl = false;
	check_answer(ask("GET /metrics HTTP/1.1\r\n\r\n", 1), 200, "0.0.4", "plain", true);
}

/* From the first byte on, and a token inside. */
static void
test_tls(void **state)
{
	SSL_CTX    *context = SSL_CTX_new(TLS_client_method());
	char	   *token = tokens_make(key, HEADER, "{\"scope\":\"metrics\"}");
	char		text[OUT_BYTES + 1] = "";
	char		err[256];
	size_t		have = 0;
	bool		asked = false;
	SSL		   *ssl;
	int			fd;

	use_tokens();
	assert_true(nc_guard_take_certificate(&world->guard, files.cert, files.key, err, sizeof(err)));
	world->guard.certified = true;
	fd = admit();
	ssl = SSL_new(context);
	SSL_set_fd(ssl, fd);
	for (int i = 0; i < TURNS_MAX && SSL_connect(ssl) <= 0; i++)
		settle();
	for (int i = 0; i < TURNS_MAX; i++)
	{
		int			n;

		if (!asked)
		{
			snprintf(text, sizeof(text), "GET /metrics HTTP/1.1\r\nAuthorization: Bearer %s\r\n\r\n", token);
			asked = SSL_write(ssl, text, (int) strlen(text)) > 0;
		}
		settle();
		n = SSL_read(ssl, text + have, (int) (OUT_BYTES - have));
		have += n > 0 ? (size_t) n : 0;
		if (n <= 0 && SSL_get_error(ssl, n) == SSL_ERROR_ZERO_RETURN)
			break;
	}
	text[have] = '\0';
	check_answer(text, 200, "0.0.4", "plain", true);
	SSL_free(ssl);
	SSL_CTX_free(context);
	close(fd);
	free(token);
	settle();
	assert_int_equal(world->door.visitors, 0);
}

int
main(void)
{
#define AT_DOOR(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_good_heads),
		cmocka_unit_test(test_bad_heads),
		cmocka_unit_test(test_formats),
		cmocka_unit_test(test_answers),
		AT_DOOR(test_door_answers_once),
		AT_DOOR(test_no_certificate),
		AT_DOOR(test_who_says_nothing_leaves),
		AT_DOOR(test_who_takes_nothing_leaves),
		AT_DOOR(test_tokens),
		AT_DOOR(test_tls_is_insisted_on),
		AT_DOOR(test_tls)
	};
	int			failed;

	signal(SIGPIPE, SIG_IGN);
	tls_files_make(&files);
	key = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
	tokens_write_keys(key_file, key);
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	tls_files_remove(&files);
	unlink(key_file);
	EVP_PKEY_free(key);
	return failed;
}
