/*
 * test_door.c
 *	  The door: every way through the login and every way of not getting in, whole
 *	  and byte by byte; room, timers, turns and ends; with both methods of the loop.
 *
 * Runs without a server.  Clients are sockets of the test, its clock stands unless
 * the test moves it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "nc/serve/door.h"
#include "tls_files.h"
#include "tokens.h"

#define TENANT "0123456789abcdef0123456789abcdef"
#define HEADER "{\"alg\":\"EdDSA\",\"typ\":\"JWT\"}"
#define NOW_S UINT64_C(1700000000)
#define SECOND UINT64_C(1000000)

#define IN_BYTES 16384
#define OUT_BYTES 16384
#define ANSWER_BYTES 4096

/* Turns after which something is stuck. */
#define TURNS_MAX 3000

/* Packets; the two that go on need one more NUL, the end of their parameters. */
#define GOOD "\0\0\0\x10\0\3\0\0user\0u\0"
#define EVIL "\0\0\0\x13\0\3\0\0user\0evil\0"
#define SSL_REQUEST "\0\0\0\x08\x04\xd2\x16\x2f"
#define GSS_REQUEST "\0\0\0\x08\x04\xd2\x16\x30"

static const char ssl_request[] = "\0\0\0\x08\x04\xd2\x16\x2f";

/* Bytes of a literal, without the NUL that the compiler adds. */
#define LITERAL(text) text, sizeof(text) - 1

/* ---- the host ---- */

typedef struct Guest
{
	NcVisitor	v;
	int			messages;
	bool		told;
	char		tenant[NC_JWT_TENANT_DIGITS + 1];
} Guest;

typedef struct World
{
	NcLoop	   *loop;
	NcDoor		door;
	NcGuard		guard;
	NcDoorSettings settings;
	Guest	   *last;			/* who came last; NULL once he is gone */
	int			came;
	int			gone;
	int			opened;
	int			asked_room;
	bool		full;			/* came() says no */
	bool		no_place;		/* place() says no */
	bool		park;			/* message() parks */
	bool		spare_the_silent;
	uint32_t	guests_max;		/* 0 = no limit */
	int			lines;
	char		line[1024];
	char		detail[256];
	NcVisitorState left_from;
	char		order[2048];	/* of the messages that were handled, their letters */
	int			norder;
} World;

static World *world;
static uint64_t clock_us;
static TlsFiles files;
static char key_file[] = "/tmp/nc_door_keys_XXXXXX";
static EVP_PKEY *key;
static int	accept_fails;	/* errno of every accept; 0 = they are made */

static uint64_t
now_us(void)
{
	return clock_us;
}

static uint64_t
unix_s(void)
{
	return NOW_S;
}

static void
log_line(NcDoor *door, const char *text, const char *detail)
{
	world->lines++;
	snprintf(world->line, sizeof(world->line), "%s", text);
	snprintf(world->detail, sizeof(world->detail), "%s", detail == NULL ? "" : detail);
}

static bool
came(NcVisitor *v)
{
	if (world->full)
		return false;
	world->came++;
	world->last = (Guest *) v;
	return true;
}

static bool
startup(NcVisitor *v, const NcStartup *packet, NcRefusal *no)
{
	const char *user = nc_startup_param(packet, "user");

	assert_int_equal(v->state, NC_VISITOR_STARTUP);
	if (user == NULL || strcmp(user, "evil") != 0)
		return true;
	*no = (NcRefusal) {"0A000", "not for you", "a detail", "a hint"};
	return false;
}

static bool
place(NcVisitor *v, NcRefusal *no)
{
	assert_int_equal(v->state, world->door.guard->asks ? NC_VISITOR_TOKEN : NC_VISITOR_STARTUP);
	assert_false(v->logged_in);
	if (world->no_place)
		*no = (NcRefusal) {.sqlstate = "53300",.message = "too many of your kind"};
	return !world->no_place;
}

static void
opened(NcVisitor *v, const NcJwt *token)
{
	world->opened++;
	if (token != NULL)
		snprintf(((Guest *) v)->tenant, sizeof(((Guest *) v)->tenant), "%s", token->tenant_id);
}

/*
 * Answers each letter with itself, 'B' with a thousand bytes; 'S' swallows all that is
 * there, 'X' leaves, 'E' ends, 'F' floods.
 */
static NcStep
message(NcVisitor *v)
{
	size_t		bytes;
	const uint8_t *input = nc_channel_input(&v->channel, &bytes);
	NcRefusal	end = {"57P01", "the end", NULL, NULL};
	NcWriter	w;
	char		letter;

	assert_int_equal(v->state, NC_VISITOR_OPEN);
	assert_true(nc_channel_unsent(&v->channel) < v->full);
	if (bytes == 0)
		return NC_STEP_INPUT;
	if (world->park)
		return NC_STEP_PARK;
	letter = (char) input[0];
	if (world->norder < (int) sizeof(world->order))
		world->order[world->norder++] = letter;
	((Guest *) v)->messages++;
	nc_channel_take(&v->channel, letter == 'S' ? bytes : 1);
	w = nc_visitor_writer(v);
	assert_true((size_t) (w.end - w.at) >= ANSWER_BYTES);
	if (letter == 'X')
		nc_visitor_leave(v);
	else if (letter == 'E')
		nc_visitor_end(v, "FATAL", &end);
	else
	{
		for (int i = letter == 'B' ? 1000 : letter == 'F' ? OUT_BYTES + 1 : 1; i > 0; i--)
			nc_write_u8(&w, (uint8_t) letter);
		nc_visitor_commit(v, &w);
	}
	return NC_STEP_MORE;
}

static bool
is_guest(const NcVisitor *v)
{
	return v->state == NC_VISITOR_OPEN;
}

static void
room(NcDoor *door)
{
	world->asked_room++;
	if (world->guests_max > 0)
		nc_door_limit(door, is_guest, world->guests_max, "guests are many");
}

static bool
silent(NcVisitor *v)
{
	return !world->spare_the_silent;
}

static void
gone(NcVisitor *v)
{
	Guest	   *g = (Guest *) v;

	assert_false(g->told);
	g->told = true;
	world->gone++;
	world->left_from = v->left_from;
	if (world->last == g)
		world->last = NULL;
}

static const char *const parameters[][2] = {{"server_version", "15"}, {NULL, NULL}};

static const NcDoorHost host = {
	.name = "test service",
	.visitor_bytes = sizeof(Guest),
	.in_bytes = IN_BYTES,
	.out_bytes = OUT_BYTES,
	.answer_bytes = ANSWER_BYTES,
	.full = 8192,
	.scope = NC_SCOPE_PAGE_SERVER,
	.parameters = parameters,
	.tls_wanted = {"28000", "must connect with TLS", NULL, "set sslmode"},
	.now_us = now_us,
	.unix_s = unix_s,
	.log = log_line,
	.came = came,
	.startup = startup,
	.place = place,
	.opened = opened,
	.message = message,
	.room = room,
	.silent = silent,
	.gone = gone
};

static int
setup(void **state, NcLoopMethod method)
{
	char		err[128] = "";

	world = calloc(1, sizeof(*world));
	clock_us = 5 * SECOND;
	world->loop = nc_loop_create(method, err, sizeof(err));
	if (world->loop == NULL)
		fail_msg("%s", err);
	world->settings = (NcDoorSettings) {true, TENANT, 60 * SECOND, 0, 2 * SECOND, 64};
	nc_door_init(&world->door, &host, world->loop, &world->guard, &world->settings);
	return 0;
}

static int
setup_uring(void **state)
{
	return setup(state, NC_LOOP_URING);
}

static int
setup_epoll(void **state)
{
	return setup(state, NC_LOOP_EPOLL);
}

static int
teardown(void **state)
{
	nc_door_shut(&world->door);
	assert_int_equal(world->door.visitors, 0);
	for (int i = 0; i < NC_VISITOR_STATES; i++)
		assert_int_equal(world->door.count[i], 0);
	assert_int_equal(world->came, world->gone);
	assert_int_equal(nc_loop_started(world->loop), 0);
	nc_loop_destroy(world->loop);
	nc_guard_clear(&world->guard);
	free(world);
	return 0;
}

static void
use_tls(void)
{
	char		err[256];

	assert_true(nc_guard_take_certificate(&world->guard, files.cert, files.key, err, sizeof(err)));
}

static void
use_tokens(void)
{
	char		err[256];

	assert_true(nc_guard_take_keys(&world->guard, key_file, err, sizeof(err)));
}

/* ---- turns ---- */

static void
turn(void)
{
	nc_loop_wait(world->loop, 0);
	nc_door_turn(&world->door);
}

/* Until nothing is left to do at once; io_uring may tell of a poll a turn later. */
static void
settle(void)
{
	for (int i = 0; i < TURNS_MAX; i++)
	{
		turn();
		if (nc_door_sleep_us(&world->door) > 0 && !nc_loop_ready(world->loop) &&
			world->door.count[NC_VISITOR_GONE] == 0)
			return;
	}
	fail_msg("the door does not come to rest");
}

static void
pass(uint64_t us)
{
	clock_us += us;
	settle();
}

/* ---- clients ---- */

static int
admit_from(const char *address)
{
	struct sockaddr_storage peer = {0};
	struct sockaddr_in *v4 = (struct sockaddr_in *) &peer;
	int			fds[2];
	int			small = 4096;

	v4->sin_family = AF_INET;
	v4->sin_addr.s_addr = inet_addr(address);
	v4->sin_port = htons(1234);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
	setsockopt(fds[1], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
	clock_us++;
	world->door.now_us = clock_us;
	(void) nc_door_admit(&world->door, fds[1], &peer);
	return fds[0];
}

static int
admit(void)
{
	return admit_from("127.0.0.1");
}

/* The peer may be gone already, and then nobody reads it. */
static void
say(int fd, const char *bytes, size_t n)
{
	(void) !send(fd, bytes, n, MSG_NOSIGNAL);
	settle();
}

/* What has come; the length, with the end of the stream told apart. */
static size_t
hear(int fd, char *to, size_t room_for, bool *end)
{
	size_t		have = 0;
	ssize_t		n;

	*end = false;
	while (have < room_for && (n = recv(fd, to + have, room_for - have, MSG_DONTWAIT)) != -1)
	{
		*end = n == 0;
		if (n == 0)
			break;
		have += (size_t) n;
	}
	if (have < room_for && !*end && errno == ECONNRESET)
		*end = true;
	return have;
}

static bool
is_cut(int fd)
{
	char		rest[4096];
	bool		end;

	(void) hear(fd, rest, sizeof(rest), &end);
	return end;
}

static void
log_in(int fd)
{
	char		answer[256];
	bool		end;

	say(fd, LITERAL(GOOD "\0"));
	assert_true(hear(fd, answer, sizeof(answer), &end) > 9);
	assert_false(end);
}

static char *
password_message(const char *token, size_t *bytes)
{
	size_t		n = strlen(token) + 1;
	char	   *message = malloc(n + 5);
	NcWriter	w = nc_writer(message, n + 5);

	nc_write_u8(&w, 'p');
	nc_write_u32(&w, (uint32_t) (n + 4));
	nc_write_bytes(&w, token, n);
	*bytes = n + 5;
	return message;
}

/* ---- the login in clear text ---- */

typedef struct Case
{
	const char *name;
	bool		tls;			/* there is a certificate */
	bool		insists;
	const char *said;
	size_t		bytes;
	NcVisitorState state;		/* GONE: he is gone */
	const char *heard;			/* letters of the answers */
	const char *logged;			/* part of the line, NULL = none */
} Case;

/* First letters of what the server says; of an error its text is looked for by the caller. */
static void
letters(const char *said, size_t n, int negotiations, char *out)
{
	while (n > 0 && negotiations-- > 0 && (*said == 'N' || *said == 'S'))
	{
		*out++ = *said++;
		n--;
	}
	while (n >= 5)
	{
		uint32_t	length;

		memcpy(&length, said + 1, 4);
		length = ntohl(length) + 1;
		assert_true(length <= n);
		*out++ = *said;
		said += length;
		n -= length;
	}
	*out = '\0';
	assert_int_equal(n, 0);
}

static void
run_case(const Case *c, bool in_pieces, int negotiations)
{
	char		answer[4096];
	char		heard[64];
	bool		end;
	int			lines = world->lines;
	int			fd = admit();
	size_t		n;

	world->settings.require_ssl = c->insists;
	world->guard.certified = c->insists;
	nc_door_set(&world->door, &world->settings);
	for (size_t i = 0; i < c->bytes && in_pieces; i++)
		say(fd, c->said + i, 1);
	if (!in_pieces)
		say(fd, c->said, c->bytes);
	n = hear(fd, answer, sizeof(answer), &end);
	letters(answer, n, negotiations, heard);
	if (strcmp(heard, c->heard) != 0)
		fail_msg("%s: heard \"%s\" instead of \"%s\"", c->name, heard, c->heard);
	if (c->state == NC_VISITOR_GONE ? world->last != NULL :
		world->last == NULL || world->last->v.state != c->state)
		fail_msg("%s: not in state %d but %d", c->name, (int) c->state,
				 world->last == NULL ? -1 : (int) world->last->v.state);
	assert_int_equal(end, c->state >= NC_VISITOR_CLOSING);
	assert_int_equal(world->lines - lines, c->logged != NULL);
	if (c->logged != NULL && strstr(world->line, c->logged) == NULL)
		fail_msg("%s: logged \"%s\"", c->name, world->line);
	close(fd);
	pass(3 * SECOND);
	assert_null(world->last);
}

#define SAYS(text) .said = text, .bytes = sizeof(text) - 1

static const Case clear_cases[] = {
	{"good", SAYS(GOOD "\0"), .state = NC_VISITOR_OPEN, .heard = "RSZ"},
	{"nothing", SAYS(""), .state = NC_VISITOR_STARTUP, .heard = ""},
	{"half", SAYS("\0\0\0\x10\0\3"), .state = NC_VISITOR_STARTUP, .heard = ""},
	{"no TLS here", SAYS(SSL_REQUEST), .state = NC_VISITOR_STARTUP, .heard = "N"},
	{"no GSSAPI", SAYS(GSS_REQUEST), .state = NC_VISITOR_STARTUP, .heard = "N"},
	{"both, then in", SAYS(GSS_REQUEST SSL_REQUEST GOOD "\0"), .state = NC_VISITOR_OPEN,
	.heard = "NNRSZ"},
	{"asks four times", SAYS(SSL_REQUEST GSS_REQUEST SSL_REQUEST SSL_REQUEST),
	.state = NC_VISITOR_STARTUP, .heard = "NNNN"},
	{"asks for ever", SAYS(SSL_REQUEST GSS_REQUEST SSL_REQUEST SSL_REQUEST SSL_REQUEST),
	.state = NC_VISITOR_GONE, .heard = "NNNN"},
	{"cancel", SAYS("\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\0\0\0\0\0"), .state = NC_VISITOR_GONE,
	.heard = ""},
	{"too short", SAYS("\0\0\0\x07"), .state = NC_VISITOR_GONE, .heard = ""},
	{"too long", SAYS("\0\0\x27\x11"), .state = NC_VISITOR_GONE, .heard = ""},
	{"http", SAYS("GET / HTTP/1.0\r\n"), .state = NC_VISITOR_GONE, .heard = ""},
	{"old protocol", SAYS("\0\0\0\x08\0\2\0\0"), .state = NC_VISITOR_GONE, .heard = ""},
	{"the host says no", SAYS(EVIL "\0"), .state = NC_VISITOR_CLOSING, .heard = "E",
	.logged = "test service refused 127.0.0.1:1234: not for you"},
	{"TLS is wanted", .insists = true, SAYS(GOOD "\0"), .state = NC_VISITOR_CLOSING,
	.heard = "E", .logged = "must connect with TLS"},
	{"TLS is wanted first", .insists = true, SAYS(EVIL "\0"), .state = NC_VISITOR_CLOSING,
	.heard = "E", .logged = "must connect with TLS"},
	{"clear text behind TLS", .tls = true, SAYS(SSL_REQUEST GOOD "\0"),
	.state = NC_VISITOR_GONE, .heard = ""}
};

static void
test_clear(void **state)
{
	for (size_t i = 0; i < sizeof(clear_cases) / sizeof(clear_cases[0]); i++)
	{
		const Case *c = &clear_cases[i];

		if (c->tls)
			use_tls();
		run_case(c, false, 9);
		/* in pieces the handshake has begun when more comes: another test */
		if (!c->tls)
			run_case(c, true, 9);
	}
	assert_true(world->opened >= 4);
}

/* An error has all its parts, with FATAL. */
static void
test_refusal(void **state)
{
	static const char wanted[] = "SFATAL\0VFATAL\0C0A000\0Mnot for you\0Da detail\0Ha hint\0";
	char		answer[256];
	bool		end;
	int			fd = admit();
	size_t		n;

	say(fd, EVIL "\0", sizeof(EVIL));
	n = hear(fd, answer, sizeof(answer), &end);
	assert_int_equal(answer[0], 'E');
	assert_non_null(memmem(answer, n, wanted, sizeof(wanted) - 1));
	assert_true(end);
	assert_int_equal(world->door.refused, 1);
	close(fd);
}

/* Who may come in, and for whom there is no place: he hears nothing but that. */
static void
test_no_place(void **state)
{
	static const char wanted[] = "SFATAL\0VFATAL\0C53300\0Mtoo many of your kind\0";
	char		answer[256];
	bool		end;
	int			fd = admit();
	size_t		n;

	world->no_place = true;
	say(fd, GOOD "\0", sizeof(GOOD));
	n = hear(fd, answer, sizeof(answer), &end);
	assert_int_equal(answer[0], 'E');
	assert_non_null(memmem(answer, n, wanted, sizeof(wanted) - 1));
	assert_true(end);
	assert_int_equal(world->opened, 0);
	assert_int_equal(world->door.refused, 1);
	close(fd);
}

/* ---- tokens ---- */

static const char claims_good[] = "{\"scope\":\"tenant\",\"tenant_id\":\"" TENANT "\"}";

/* Logs in up to the token, says these bytes; whether he is in. */
static bool
with_token(const char *bytes, size_t n, bool in_pieces, const char *heard_wanted)
{
	char		answer[512];
	char		heard[64];
	bool		end;
	bool		in;
	int			fd = admit();

	say(fd, GOOD "\0", sizeof(GOOD));
	assert_int_equal(world->last->v.state, NC_VISITOR_TOKEN);
	letters(answer, hear(fd, answer, sizeof(answer), &end), 0, heard);
	assert_string_equal(heard, "R");
	for (size_t i = 0; i < n && in_pieces; i++)
		say(fd, bytes + i, 1);
	if (!in_pieces)
		say(fd, bytes, n);
	letters(answer, hear(fd, answer, sizeof(answer), &end), 0, heard);
	assert_string_equal(heard, heard_wanted);
	in = world->last != NULL && world->last->v.state == NC_VISITOR_OPEN;
	assert_int_equal(end, !in && (world->last == NULL || world->last->v.state != NC_VISITOR_TOKEN));
	/* nothing of a token stays, whatever came of it */
	if (world->last != NULL && world->last->v.state != NC_VISITOR_TOKEN && n > 40)
	{
		const NcBuffer *b = &world->last->v.channel.in;

		assert_null(memmem(b->bytes, IN_BYTES, bytes + 5, 16));
		assert_int_equal(b->high, b->end);
	}
	if (in)
		assert_string_equal(world->last->tenant, TENANT);
	close(fd);
	pass(3 * SECOND);
	return in;
}

static void
test_tokens(void **state)
{
	char	   *good = tokens_make(key, HEADER, claims_good);
	char	   *old = tokens_make(key, HEADER, "{\"scope\":\"pageserverapi\",\"exp\":1600000000}");
	size_t		n;
	char	   *message_good = password_message(good, &n);
	size_t		old_n;
	char	   *message_old = password_message(old, &old_n);
	char		terminate[] = "X\0\0\0\4";

	use_tokens();
	for (int pieces = 0; pieces < 2; pieces++)
	{
		assert_true(with_token(message_good, n, pieces, "RSZ"));
		assert_false(with_token(message_old, old_n, pieces, "E"));
		assert_non_null(strstr(world->line, "the token is refused: "));
		assert_false(with_token(message_good, n - 1, pieces, ""));
		assert_false(with_token(terminate, 5, pieces, ""));
		assert_false(with_token("Q\0\0\0\6a\0", 7, pieces, "E"));
		assert_non_null(strstr(world->line, "a token was expected, as password"));
		assert_false(with_token("p\0\0\x20\0", 5, pieces, "E"));
		assert_non_null(strstr(world->line, "it is too long"));
		assert_false(with_token("p\0\0\0\3", 5, pieces, "E"));
		assert_false(with_token("p\0\0\0\4", 5, pieces, "E"));
	}
	/* a good one, but no place; a bad one does not learn that */
	world->no_place = true;
	assert_false(with_token(message_good, n, false, "E"));
	assert_non_null(strstr(world->line, "too many of your kind"));
	assert_false(with_token(message_old, old_n, false, "E"));
	assert_non_null(strstr(world->line, "the token is refused: "));
	world->no_place = false;
	/* a byte of it changed, each of them */
	for (size_t i = 5; i + 1 < n; i += 7)
	{
		message_good[i] ^= 1;
		assert_false(with_token(message_good, n, false, "E"));
		message_good[i] ^= 1;
	}
	/* who knows no tenant lets nobody in */
	world->settings.tenant_id = "";
	nc_door_set(&world->door, &world->settings);
	assert_false(with_token(message_good, n, false, "E"));
	free(good);
	free(old);
	free(message_good);
	free(message_old);
}

/* A token and a message in one piece: the message is not lost. */
static void
test_message_behind_token(void **state)
{
	char	   *good = tokens_make(key, HEADER, claims_good);
	size_t		n;
	char	   *message_good = password_message(good, &n);
	char		answer[256];
	bool		end;
	int			fd = admit();

	use_tokens();
	say(fd, GOOD "\0", sizeof(GOOD));
	(void) !send(fd, message_good, n, MSG_MORE);
	(void) !send(fd, "ab", 2, 0);
	settle();
	n = hear(fd, answer, sizeof(answer), &end);
	assert_memory_equal(answer + n - 2, "ab", 2);
	close(fd);
	free(good);
	free(message_good);
}

/* ---- TLS ---- */

typedef struct Tls
{
	SSL_CTX    *context;
	SSL		   *ssl;
	int			fd;
} Tls;

static Tls
tls_client(int fd)
{
	Tls			t = {.fd = fd};

	t.context = SSL_CTX_new(TLS_client_method());
	t.ssl = SSL_new(t.context);
	SSL_set_fd(t.ssl, fd);
	SSL_set_connect_state(t.ssl);
	return t;
}

static void
tls_close(Tls *t)
{
	SSL_free(t->ssl);
	SSL_CTX_free(t->context);
	close(t->fd);
}

static Tls
tls_connect(void)
{
	Tls			t;
	char		letter = 0;
	int			rc = 0;
	int			fd = admit();

	say(fd, LITERAL(ssl_request));
	assert_int_equal(recv(fd, &letter, 1, 0), 1);
	assert_int_equal(letter, 'S');
	assert_int_equal(world->last->v.state, NC_VISITOR_HANDSHAKE);
	t = tls_client(fd);
	for (int i = 0; i < TURNS_MAX && (rc = SSL_do_handshake(t.ssl)) != 1; i++)
		settle();
	assert_int_equal(rc, 1);
	settle();
	assert_int_equal(world->last->v.state, NC_VISITOR_STARTUP);
	return t;
}

static size_t
tls_hear(Tls *t, char *to, size_t bytes)
{
	size_t		have = 0;
	int			n = 1;

	for (int i = 0; i < 3; i++)
	{
		settle();
		while (have < bytes && (n = SSL_read(t->ssl, to + have, (int) (bytes - have))) > 0)
			have += (size_t) n;
	}
	return have;
}

static void
test_tls(void **state)
{
	char	   *good = tokens_make(key, HEADER, claims_good);
	size_t		n;
	char	   *message_good = password_message(good, &n);
	char		answer[256];
	char		heard[64];
	Tls			t;

	use_tls();
	use_tokens();
	world->guard.certified = true;
	t = tls_connect();
	/* inside TLS there is no other TLS */
	assert_int_equal(SSL_write(t.ssl, ssl_request, 8), 8);
	assert_int_equal(tls_hear(&t, answer, sizeof(answer)), 1);
	assert_int_equal(answer[0], 'N');
	assert_int_equal(SSL_write(t.ssl, GOOD "\0", sizeof(GOOD)), sizeof(GOOD));
	letters(answer, tls_hear(&t, answer, sizeof(answer)), 0, heard);
	assert_string_equal(heard, "R");
	assert_int_equal(SSL_write(t.ssl, message_good, (int) n), n);
	letters(answer, tls_hear(&t, answer, sizeof(answer)), 0, heard);
	assert_string_equal(heard, "RSZ");
	assert_int_equal(world->last->v.state, NC_VISITOR_OPEN);
	/* messages in one record, more than a turn takes */
	memset(answer, 'm', 200);
	assert_int_equal(SSL_write(t.ssl, answer, 200), 200);
	assert_int_equal(tls_hear(&t, answer, sizeof(answer)), 200);
	/* an orderly end is seen at once */
	SSL_shutdown(t.ssl);
	settle();
	assert_null(world->last);
	tls_close(&t);
	free(good);
	free(message_good);
}

/* What hangs, lies or ends within the handshake. */
static void
test_tls_failures(void **state)
{
	int			fd;
	Tls			t;

	use_tls();
	fd = admit();
	say(fd, LITERAL(ssl_request));
	say(fd, LITERAL("GET / HTTP/1.0\r\n\r\n"));
	assert_null(world->last);
	assert_non_null(strstr(world->line, "test service refused 127.0.0.1:1234: TLS: "));
	close(fd);

	/* who just goes says nothing worth a line */
	fd = admit();
	say(fd, LITERAL(ssl_request));
	close(fd);
	settle();
	assert_null(world->last);
	assert_int_equal(world->lines, 1);

	/* who hangs is dropped in time, and holds nobody up */
	fd = admit();
	say(fd, LITERAL(ssl_request));
	pass(61 * SECOND);
	assert_null(world->last);
	assert_non_null(strstr(world->line, "did not log in within authentication_timeout"));
	assert_true(is_cut(fd));
	close(fd);

	/* rubbish in place of a record, after the handshake */
	t = tls_connect();
	say(t.fd, LITERAL("no record of TLS at all"));
	assert_null(world->last);
	tls_close(&t);

	/* a handshake byte by byte is one */
	fd = admit();
	say(fd, LITERAL(ssl_request));
	say(fd, "\x16", 1);
	say(fd, "\3", 1);
	assert_int_equal(world->last->v.state, NC_VISITOR_HANDSHAKE);
	/* and can be ended from our side in its middle */
	nc_visitor_close(&world->last->v);
	settle();
	assert_null(world->last);
	assert_int_equal(world->left_from, NC_VISITOR_HANDSHAKE);
	close(fd);
}

/* Records that TLS has read already are handled although no poll tells of them. */
static void
test_tls_pending(void **state)
{
	char		big[3 * IN_BYTES];
	char		answer[3 * IN_BYTES];
	size_t		have = 0;
	size_t		sent = 0;
	Tls			t;

	use_tls();
	t = tls_connect();
	assert_int_equal(SSL_write(t.ssl, GOOD "\0", sizeof(GOOD)), sizeof(GOOD));
	assert_true(tls_hear(&t, answer, sizeof(answer)) > 0);
	memset(big, 'm', sizeof(big));
	SSL_set_mode(t.ssl, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	for (int i = 0; i < TURNS_MAX && have < sizeof(big); i++)
	{
		int			n = sent < sizeof(big) ?
			SSL_write(t.ssl, big + sent, (int) (sizeof(big) - sent)) : 0;

		sent += n > 0 ? (size_t) n : 0;
		have += tls_hear(&t, answer, sizeof(answer));
	}
	assert_int_equal(have, sizeof(big));
	assert_int_equal(world->last->messages, sizeof(big));

	/* a record that does not fit: its rest is handled when what was there is gone */
	world->last->messages = 0;
	world->park = true;
	assert_int_equal(SSL_write(t.ssl, "S123456789", 10), 10);
	settle();
	assert_int_equal(SSL_write(t.ssl, big, IN_BYTES), IN_BYTES);
	settle();
	assert_false(nc_channel_has_room(&world->last->v.channel));
	world->park = false;
	nc_visitor_wake(&world->last->v);
	assert_int_equal(tls_hear(&t, answer, sizeof(answer)), 11);
	assert_int_equal(world->last->messages, 11);
	tls_close(&t);
}

/* ---- slow and silent ---- */

/* Bytes do not count before the login. */
static void
test_trickle(void **state)
{
	int			fd = admit();

	for (int i = 0; i < 59; i++)
	{
		clock_us += SECOND;
		say(fd, i == 2 ? "\1" : "\0", 1);
		assert_non_null(world->last);
	}
	pass(2 * SECOND);
	assert_null(world->last);
	assert_int_equal(world->door.refused, 1);
	assert_true(is_cut(fd));
	close(fd);
}

static void
test_silence(void **state)
{
	int			fd = admit();

	world->settings.silence_us = 10 * SECOND;
	nc_door_set(&world->door, &world->settings);
	log_in(fd);
	pass(9 * SECOND);
	say(fd, "a", 1);
	pass(9 * SECOND);
	assert_non_null(world->last);
	world->spare_the_silent = true;
	pass(9 * SECOND);
	assert_non_null(world->last);
	world->spare_the_silent = false;
	pass(1 * SECOND);
	assert_null(world->last);
	assert_int_equal(world->left_from, NC_VISITOR_OPEN);
	assert_int_equal(world->door.refused, 0);
	close(fd);
}

/* The door says until when the host may sleep. */
static void
test_sleep(void **state)
{
	int			fd;

	settle();
	assert_int_equal(nc_door_sleep_us(&world->door), UINT64_MAX);
	fd = admit();
	settle();
	assert_true(nc_door_sleep_us(&world->door) <= SECOND);
	assert_true(nc_door_sleep_us(&world->door) > 0);
	nc_visitor_leave(&world->last->v);
	assert_int_equal(nc_door_sleep_us(&world->door), 0);
	close(fd);
}

/* ---- the end ---- */

/* Our last word waits for who is slow to take it, for a while. */
static void
test_patience(void **state)
{
	char		rest[4096];
	bool		end;
	int			fd = admit();

	log_in(fd);
	world->last->v.full = 12000;
	say(fd, "BBBBBBBBBBBE", 12);
	assert_int_equal(world->last->v.state, NC_VISITOR_CLOSING);
	assert_true(nc_channel_unsent(&world->last->v.channel) > 0);
	pass(1 * SECOND);
	for (size_t n = 0; n < 11000; settle())
		n += hear(fd, rest, sizeof(rest), &end);
	assert_true(world->last->v.half_closed);
	/* he goes on talking: nobody listens, and no reset takes the answer away */
	say(fd, "aaaa", 4);
	assert_int_equal(world->last->messages, 12);
	pass(2 * SECOND);
	assert_null(world->last);
	assert_int_equal(world->left_from, NC_VISITOR_CLOSING);
	close(fd);

	/* who takes nothing at all */
	fd = admit();
	log_in(fd);
	world->last->v.full = 12000;
	say(fd, "BBBBBBBBBBBE", 12);
	assert_true(nc_channel_unsent(&world->last->v.channel) > 0);
	pass(3 * SECOND);
	assert_null(world->last);
	close(fd);

	/* who has heard it and goes is gone before patience ends */
	fd = admit();
	log_in(fd);
	say(fd, "E", 1);
	assert_non_null(world->last);
	close(fd);
	settle();
	assert_null(world->last);
}

static void
test_ends(void **state)
{
	int			fd = admit();

	/* the host ends him within his message */
	log_in(fd);
	say(fd, "abX", 3);
	assert_null(world->last);
	assert_true(is_cut(fd));
	close(fd);

	/* an answer that does not fit */
	fd = admit();
	log_in(fd);
	say(fd, "F", 1);
	assert_null(world->last);
	close(fd);

	/* there is no place */
	world->full = true;
	fd = admit();
	assert_true(is_cut(fd));
	assert_int_equal(world->door.visitors, 0);
	close(fd);
	world->full = false;

	/* in each state of a stranger */
	fd = admit();
	close(fd);
	settle();
	assert_null(world->last);
	assert_int_equal(world->lines, 0);
}

/* ---- turns ---- */

/* Nobody keeps the others from their turn. */
static void
test_turns(void **state)
{
	char		many[1000];
	int			a = admit();
	int			b = admit();

	log_in(a);
	log_in(b);
	memset(many, 'a', sizeof(many));
	(void) !send(a, many, sizeof(many), 0);
	(void) !send(b, "b", 1, 0);
	settle();
	assert_int_equal(world->norder, 1001);
	assert_true(memchr(world->order, 'b', sizeof(world->order)) < (void *) (world->order + 130));
	close(a);
	close(b);
}

/* No message is handled while too much is not sent; input stays bounded, too. */
static void
test_output_full(void **state)
{
	char		many[IN_BYTES];
	char		rest[4096];
	size_t		said = 0;
	size_t		heard = 0;
	bool		end;
	int			messages;
	int			fd = admit();

	log_in(fd);
	memset(many, 'B', sizeof(many));
	for (ssize_t n = 0; n >= 0; settle())
	{
		n = send(fd, many, 100, MSG_DONTWAIT);
		said += n > 0 ? (size_t) n : 0;
	}
	messages = world->last->messages;
	assert_true(messages < 20);
	assert_true(nc_channel_unsent(&world->last->v.channel) >= world->last->v.full);
	pass(SECOND);
	assert_int_equal(world->last->messages, messages);
	for (int i = 0; i < TURNS_MAX * 20 && heard < said * 1000; i++)
	{
		heard += hear(fd, rest, sizeof(rest), &end);
		turn();
	}
	assert_int_equal(heard, said * 1000);
	assert_int_equal(world->last->messages, said);
	close(fd);
}

/* Who waits for the host is not asked again by more input, and his end is seen. */
static void
test_parked(void **state)
{
	int			fd = admit();

	log_in(fd);
	world->park = true;
	say(fd, "a", 1);
	assert_int_equal(world->last->v.place, NC_PLACE_PARKED);
	say(fd, "bcd", 3);
	assert_int_equal(world->last->v.place, NC_PLACE_PARKED);
	world->park = false;
	settle();
	assert_int_equal(world->last->messages, 0);
	nc_visitor_wake(&world->last->v);
	assert_int_equal(nc_door_sleep_us(&world->door), 0);
	settle();
	assert_int_equal(world->last->messages, 4);
	world->park = true;
	say(fd, "a", 1);
	close(fd);
	settle();
	assert_null(world->last);
}

/* ---- room ---- */

static void
test_strangers(void **state)
{
	int			flood[200];
	int			other;
	int			newest;

	other = admit_from("10.0.0.1");
	for (int i = 0; i < 200; i++)
		flood[i] = admit_from("10.0.0.2");
	settle();
	assert_int_equal(world->door.visitors, 64);
	/* who floods displaces himself, the oldest first */
	assert_false(is_cut(other));
	assert_true(is_cut(flood[0]));
	assert_true(is_cut(flood[136]));
	assert_false(is_cut(flood[137]));
	assert_false(is_cut(flood[199]));
	assert_int_equal(world->door.refused, 137);
	assert_int_equal(world->lines, 1);
	assert_non_null(strstr(world->line, "made room for a newer connection"));
	pass(SECOND);
	/* one from elsewhere: the newest never makes room */
	newest = admit_from("10.0.0.3");
	settle();
	assert_false(is_cut(newest));
	assert_false(is_cut(other));
	assert_true(is_cut(flood[137]));
	assert_string_equal(world->detail, "136 others were refused since the last such message.");
	/* whose refusal is on its way leaves before anybody */
	say(newest, EVIL "\0", sizeof(EVIL));
	close(admit_from("10.0.0.4"));
	assert_false(is_cut(flood[138]));
	for (int i = 0; i < 200; i++)
		close(flood[i]);
	close(other);
	close(newest);
}

/* Guests of the host have places of their own. */
static void
test_guests(void **state)
{
	int			guests[10];
	int			strangers[100];

	world->guests_max = 4;
	for (int i = 0; i < 10; i++)
	{
		guests[i] = admit();
		log_in(guests[i]);
	}
	for (int i = 0; i < 100; i++)
		strangers[i] = admit();
	settle();
	assert_int_equal(world->door.count[NC_VISITOR_OPEN], 4);
	assert_int_equal(world->door.count[NC_VISITOR_STARTUP], 64);
	assert_true(is_cut(guests[5]));
	assert_false(is_cut(guests[6]));
	assert_false(is_cut(guests[9]));
	for (int i = 0; i < 10; i++)
		close(guests[i]);
	for (int i = 0; i < 100; i++)
		close(strangers[i]);
}

/* Who was told his end and stays costs a descriptor: of these there are only so many, too. */
static void
test_leaving(void **state)
{
	int			stranger = admit_from("10.0.0.1");
	int			leaving[100];

	for (int i = 0; i < 100; i++)
	{
		leaving[i] = admit_from("10.0.0.2");
		log_in(leaving[i]);
		say(leaving[i], "E", 1);
	}
	close(admit_from("10.0.0.3"));
	settle();
	assert_int_equal(world->door.count[NC_VISITOR_CLOSING], 64);
	/* they leave for each other, and no stranger for them */
	assert_null(world->last);
	assert_int_equal(world->door.count[NC_VISITOR_STARTUP], 1);
	assert_false(is_cut(stranger));
	assert_int_equal(world->door.refused, 0);
	for (int i = 0; i < 100; i++)
		close(leaving[i]);
	close(stranger);
}

/* ---- listeners ---- */

static int
port_of(int fd)
{
	struct sockaddr_in address;
	socklen_t	bytes = sizeof(address);

	assert_int_equal(getsockname(fd, (struct sockaddr *) &address, &bytes), 0);
	return ntohs(address.sin_port);
}

static int
connect_to(int port)
{
	struct sockaddr_in address = {.sin_family = AF_INET,.sin_port = htons((uint16_t) port),
	.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int			fd = socket(AF_INET, SOCK_STREAM, 0);

	assert_int_equal(connect(fd, (struct sockaddr *) &address, sizeof(address)), 0);
	return fd;
}

static void
test_listeners(void **state)
{
	NcListenHow how = {.addresses = "127.0.0.1, 127.0.0.2"};
	NcListenFault fault;
	int			fds[NC_LISTENERS_MAX];
	int			again[NC_LISTENERS_MAX];
	int			a;

	assert_int_equal(nc_listen_open(&how, fds, &fault), 2);
	close(fds[1]);
	how.addresses = "127.0.0.1";
	how.port = port_of(fds[0]);
	assert_int_equal(nc_listen_open(&how, again, &fault), 0);
	assert_int_equal(fault.error, EADDRINUSE);
	assert_string_equal(fault.address, "127.0.0.1");
	/* the first of those who share does not share with others */
	how.shared = how.first = true;
	assert_int_equal(nc_listen_open(&how, again, &fault), 0);
	nc_door_listen(&world->door, fds, 1);
	a = connect_to(how.port);
	for (int i = 0; i < TURNS_MAX && world->came == 0; i++)
	{
		nc_loop_wait(world->loop, SECOND);
		nc_door_turn(&world->door);
	}
	assert_int_equal(world->came, 1);
	assert_memory_equal(world->last->v.address, "127.0.0.1:", 10);
	log_in(a);
	close(a);

	how.port = 0;
	assert_int_equal(nc_listen_open(&how, fds, &fault), 1);
	how.port = port_of(fds[0]);
	how.first = false;
	assert_int_equal(nc_listen_open(&how, again, &fault), 1);
	close(again[0]);
	close(fds[0]);

	how.addresses = "127.0.0.1 no-number";
	assert_int_equal(nc_listen_open(&how, fds, &fault), 0);
	assert_string_equal(fault.address, "no-number");
	how.addresses = " , ";
	assert_int_equal(nc_listen_open(&how, fds, &fault), 0);
}

/* The system's, unless the test has used up all descriptors. */
int
accept4(int fd, struct sockaddr *peer, socklen_t *bytes, int flags)
{
	if (accept_fails == 0)
		return (int) syscall(SYS_accept4, fd, peer, bytes, flags);
	errno = accept_fails;
	return -1;
}

/* When no accept succeeds accepting pauses, and goes on afterwards. */
static void
accept_again_after(int error)
{
	NcListenHow how = {.addresses = "127.0.0.1"};
	NcListenFault fault;
	int			fds[NC_LISTENERS_MAX];
	int			a;

	assert_int_equal(nc_listen_open(&how, fds, &fault), 1);
	nc_door_listen(&world->door, fds, 1);
	a = connect_to(port_of(fds[0]));
	accept_fails = error;
	for (int i = 0; i < TURNS_MAX && world->lines == 0; i++)
		turn();
	accept_fails = 0;
	assert_non_null(strstr(world->line, "test service: could not accept a connection: "));
	settle();
	assert_int_equal(world->came, 0);
	assert_true(nc_door_sleep_us(&world->door) > 0 && nc_door_sleep_us(&world->door) <= SECOND);
	pass(SECOND);
	for (int i = 0; i < TURNS_MAX && world->came == 0; i++)
		turn();
	assert_int_equal(world->came, 1);
	assert_int_equal(world->lines, 1);
	close(a);
}

static void
test_no_descriptors(void **state)
{
	accept_again_after(EMFILE);
}

/* Whatever the reason is: he who waits keeps the socket readable. */
static void
test_may_not_accept(void **state)
{
	accept_again_after(EPERM);
}

static void
test_addresses(void **state)
{
	struct sockaddr_storage peer = {0};
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *) &peer;
	char		text[NC_PEER_BYTES];
	uint64_t	machine;

	assert_true(nc_listen_is_loopback("127.0.0.1,localhost ::1"));
	assert_true(nc_listen_is_loopback(""));
	assert_true(nc_listen_is_loopback("/run/a,127.0.0.1"));
	assert_false(nc_listen_address_is_path("run/a"));
	assert_false(nc_listen_is_loopback("127.0.0.1,*"));
	assert_false(nc_listen_is_loopback("0.0.0.0"));
	assert_false(nc_listen_is_loopback("127.0.0.1, localhost.example.org"));
	assert_int_equal(nc_peer_machine(&peer), 1);
	nc_peer_text(&peer, text);
	assert_string_equal(text, "an unknown address");
	v6->sin6_family = AF_INET6;
	v6->sin6_port = htons(5);
	inet_pton(AF_INET6, "2001:db8:1:2:3:4:5:6", &v6->sin6_addr);
	nc_peer_text(&peer, text);
	assert_string_equal(text, "[2001:db8:1:2:3:4:5:6]:5");
	machine = nc_peer_machine(&peer);
	inet_pton(AF_INET6, "2001:db8:1:2::9", &v6->sin6_addr);
	assert_int_equal(nc_peer_machine(&peer), machine);
	inet_pton(AF_INET6, "2001:db8:1:3::9", &v6->sin6_addr);
	assert_int_not_equal(nc_peer_machine(&peer), machine);
	inet_pton(AF_INET6, "::1", &v6->sin6_addr);
	assert_int_not_equal(nc_peer_machine(&peer), 0);
}

#define BOTH(test) \
	cmocka_unit_test_setup_teardown(test, setup_uring, teardown), \
	cmocka_unit_test_setup_teardown(test, setup_epoll, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		BOTH(test_clear),
		BOTH(test_refusal),
		BOTH(test_no_place),
		BOTH(test_tokens),
		BOTH(test_message_behind_token),
		BOTH(test_tls),
		BOTH(test_tls_failures),
		BOTH(test_tls_pending),
		BOTH(test_trickle),
		BOTH(test_silence),
		BOTH(test_sleep),
		BOTH(test_patience),
		BOTH(test_ends),
		BOTH(test_turns),
		BOTH(test_output_full),
		BOTH(test_parked),
		BOTH(test_strangers),
		BOTH(test_guests),
		BOTH(test_leaving),
		BOTH(test_listeners),
		BOTH(test_no_descriptors),
		BOTH(test_may_not_accept),
		cmocka_unit_test(test_addresses)
	};
	int			rc;

	signal(SIGPIPE, SIG_IGN);
	key = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
	tls_files_make(&files);
	tokens_write_keys(key_file, key);
	rc = cmocka_run_group_tests(tests, NULL, NULL);
	tls_files_remove(&files);
	unlink(key_file);
	EVP_PKEY_free(key);
	return rc;
}
