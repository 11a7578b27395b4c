/*
 * sim_door.c
 *	  Simulation of the door: honest, lying and slow clients at once, from one seed.
 *
 * The door runs unchanged, with sockets of this process and a clock that is ours;
 * a seed chooses the method of the loop, certificate, keys, bounds, and what each
 * client does.  Honest ones log in, as they are asked to, and say letters that come
 * back; liars say what nobody should, at any point of a login that began well; slow
 * ones send bytes one by one, take nothing, or fall silent; all may vanish.
 *
 * After each turn: every visitor passes nc_visitor_check(), nobody is beyond his
 * time, no kind beyond its bound, nobody is in who should not be.  What comes back
 * to an honest client is what he said, in order.  When the liars and the slow have
 * been there long enough, somebody new gets in at once, and when all have gone
 * nothing is left.
 *
 *	sim_door [--seeds N] [--first N] [--seed N]
 */
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "nc/serve/door.h"
#include "tls_files.h"
#include "tokens.h"

#define TENANT "0123456789abcdef0123456789abcdef"
#define HEADER "{\"alg\":\"EdDSA\",\"typ\":\"JWT\"}"
#define CLAIMS "{\"scope\":\"tenant\",\"tenant_id\":\"" TENANT "\"}"

#define SECOND UINT64_C(1000000)
#define LOGIN_US (60 * SECOND)
#define SILENCE_US (120 * SECOND)
#define PATIENCE_US (2 * SECOND)
/* The door looks at timers now and then, and time goes in steps of ours. */
#define GRACE_US (2 * SECOND)
#define STEP_US_MAX (SECOND)

#define CLIENTS_MAX 48
#define STEPS 1500
#define IN_BYTES 12288
#define OUT_BYTES 8192
#define FULL_BYTES 2048

/* ---- the seed ---- */

static uint64_t seed;
static uint64_t random_state;

static uint32_t
below(uint32_t n)
{
	random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (uint32_t) (random_state >> 33) % n;
}

static void fail(const char *fmt, ...) NC_PRINTF(1, 2) __attribute__((noreturn));

static void
fail(const char *fmt, ...)
{
	va_list		args;

	fprintf(stderr, "door: seed %llu: ", (unsigned long long) seed);
	va_start(args, fmt);
	vfprintf(stderr, fmt, args);
	va_end(args);
	fprintf(stderr, "\nreplay: sim_door --seed %llu\n", (unsigned long long) seed);
	exit(1);
}

#define CHECK(fact) ((fact) ? (void) 0 : fail("%s:%d: not %s", __FILE__, __LINE__, #fact))

/* ---- the world ---- */

typedef enum Kind
{
	HONEST,
	LIAR,						/* honest up to some byte, then anything */
	TRICKLER,					/* honest, one byte now and then */
	DEAF,						/* honest, but takes nothing once he is in */
	SILENT,						/* says nothing at all */
	KINDS
} Kind;

static const char *const kind_names[] = {"honest", "lying", "trickling", "deaf", "silent"};

typedef enum Stage
{
	ASKS_TLS,
	SHAKES,
	STARTS,
	GIVES_TOKEN,
	TALKS
} Stage;

typedef struct Client
{
	bool		here;
	Kind		kind;
	int			fd;
	SSL		   *ssl;
	Stage		stage;
	uint32_t	honest_bytes;	/* LIAR: so many of his bytes are right */
	uint8_t		to_say[8192];
	size_t		said;			/* of to_say */
	size_t		length;
	uint8_t		heard[8192];
	size_t		nheard;
	char		next_said;		/* TALKS: letters go round */
	char		next_heard;
	bool		ended;			/* the door has ended him */
	bool		waits;			/* TALKS: says more when he has heard what he said */
	uint32_t	letters_said;
	uint32_t	letters;
} Client;

typedef struct Guest
{
	NcVisitor	v;
	bool		parked;			/* once for each letter 'p' */
} Guest;

static uint64_t clock_us;
static NcLoop *loop;
static NcDoor door;
static NcGuard guard;
static NcTlsContext *certificate;
static NcAuthKeys *keys;
static SSL_CTX *client_context;
static char *token;
static bool require_ssl;
static uint32_t strangers_max;
static uint32_t guests_max;
static bool healed;				/* the host lets everybody in, and ends nobody */
static Client clients[CLIENTS_MAX];

static uint64_t total_came;
static uint64_t total_opened;
static uint64_t total_refused;
static uint64_t total_letters;
static uint64_t total_kinds[KINDS];

/* ---- the host ---- */

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
log_line(NcDoor *of, const char *text, const char *detail)
{
	/* no token may be in it */
	CHECK(strstr(text, "eyJ") == NULL);
}

static bool
came(NcVisitor *v)
{
	total_came++;
	return healed || below(50) > 0;
}

static bool
startup(NcVisitor *v, const NcStartup *packet, NcRefusal *no)
{
	*no = (NcRefusal) {"0A000", "not for you", NULL, NULL};
	CHECK(!require_ssl || v->channel.secure);
	return nc_startup_param(packet, "user") != NULL;
}

static void
opened(NcVisitor *v, const NcJwt *said)
{
	total_opened++;
	CHECK(!guard.asks || said != NULL);
	CHECK(said == NULL || strcmp(said->tenant_id, TENANT) == 0);
	CHECK(!require_ssl || v->channel.secure);
}

static NcStep
message(NcVisitor *v)
{
	Guest	   *g = (Guest *) v;
	size_t		bytes;
	const uint8_t *input = nc_channel_input(&v->channel, &bytes);
	NcRefusal	end = {"57P01", "the end", NULL, NULL};
	NcWriter	w;

	CHECK(v->state == NC_VISITOR_OPEN && v->logged_in);
	CHECK(nc_channel_unsent(&v->channel) < v->full);
	if (bytes == 0)
		return NC_STEP_INPUT;
	if (input[0] == 'p' && !g->parked)
	{
		g->parked = true;
		return NC_STEP_PARK;
	}
	g->parked = false;
	if (!healed && below(500) == 0)
	{
		nc_visitor_end(v, "FATAL", &end);
		return NC_STEP_MORE;
	}
	w = nc_visitor_writer(v);
	nc_write_u8(&w, input[0]);
	CHECK(nc_visitor_commit(v, &w));
	nc_channel_take(&v->channel, 1);
	return NC_STEP_MORE;
}

static bool
is_guest(const NcVisitor *v)
{
	return v->state == NC_VISITOR_OPEN;
}

static void
room(NcDoor *of)
{
	nc_door_limit(of, is_guest, guests_max, "there are many");
}

static bool
silent(NcVisitor *v)
{
	return v->place != NC_PLACE_PARKED;
}

static const char *const parameters[][2] = {{"server_version", "15"}, {NULL, NULL}};

static const NcDoorHost host = {
	.name = "simulated",
	.visitor_bytes = sizeof(Guest),
	.in_bytes = IN_BYTES,
	.out_bytes = OUT_BYTES,
	.answer_bytes = 512,
	.full = FULL_BYTES,
	.scope = NC_SCOPE_PAGE_SERVER,
	.parameters = parameters,
	.tls_wanted = {"28000", "must connect with TLS", NULL, NULL},
	.now_us = now_us,
	.unix_s = unix_s,
	.log = log_line,
	.came = came,
	.startup = startup,
	.opened = opened,
	.message = message,
	.room = room,
	.silent = silent
};

/* ---- what must hold ---- */

static void
check_visitor(NcVisitor *v, void *arg)
{
	uint32_t   *count = arg;

	CHECK(nc_visitor_check(v));
	if (!v->logged_in)
	{
		count[0]++;
		CHECK(clock_us < v->came_us + LOGIN_US + PATIENCE_US + GRACE_US);
	}
	if (v->state < NC_VISITOR_OPEN)
		CHECK(clock_us < v->came_us + LOGIN_US + GRACE_US);
	if (v->state == NC_VISITOR_OPEN)
		count[1]++;
	if (v->state == NC_VISITOR_OPEN && v->place != NC_PLACE_PARKED)
		CHECK(clock_us < v->heard_us + SILENCE_US + GRACE_US);
	if (v->state == NC_VISITOR_CLOSING)
		CHECK(clock_us < v->close_us + GRACE_US);
	count[2]++;
}

static void
wake_parked(NcVisitor *v, void *arg)
{
	if (below(3) == 0)
		nc_visitor_wake(v);
}

static void
turn(void)
{
	uint32_t	count[3] = {0};

	nc_loop_wait(loop, 0);
	nc_door_turn(&door);
	nc_door_each_at(&door, NC_PLACE_PARKED, wake_parked, NULL);
	nc_door_each(&door, check_visitor, count);
	CHECK(count[0] <= strangers_max);
	CHECK(count[1] <= guests_max);
	CHECK(count[2] == door.visitors);
}

/* ---- clients ---- */

static void
queue(Client *c, const void *bytes, size_t n)
{
	CHECK(n <= sizeof(c->to_say));
	memcpy(c->to_say, bytes, n);
	c->said = 0;
	c->length = n;
}

static void
queue_startup(Client *c)
{
	queue(c, "\0\0\0\x10\0\3\0\0user\0u\0\0", 16);
	c->stage = STARTS;
}

static void
queue_token(Client *c)
{
	uint8_t		frame[1024];
	NcWriter	w = nc_writer(frame, sizeof(frame));

	nc_write_u8(&w, 'p');
	nc_write_u32(&w, (uint32_t) strlen(token) + 5);
	nc_write_cstring(&w, token);
	queue(c, frame, nc_writer_bytes(&w));
	c->stage = GIVES_TOKEN;
}

static void
arrive(Client *c, Kind kind)
{
	struct sockaddr_storage peer = {0};
	struct sockaddr_in *v4 = (struct sockaddr_in *) &peer;
	int			small = 2048;
	int			fds[2];

	memset(c, 0, offsetof(Client, to_say));
	c->said = c->length = c->nheard = 0;
	c->next_said = c->next_heard = 'a';
	c->ended = c->waits = false;
	c->letters_said = c->letters = 0;
	c->here = true;
	c->kind = kind;
	c->honest_bytes = below(3) == 0 ? 0 : below(900);
	total_kinds[kind]++;
	v4->sin_family = AF_INET;
	v4->sin_addr.s_addr = htonl(0x0a000001 + below(5));
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) != 0)
		fail("socketpair: %s", strerror(errno));
	setsockopt(fds[1], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
	c->fd = fds[0];
	(void) nc_door_admit(&door, fds[1], &peer);
	/* a liar may also come in clear text where TLS is wanted */
	if (guard.tls != NULL && ((require_ssl && kind != LIAR) || below(2) == 0))
	{
		queue(c, "\0\0\0\x08\x04\xd2\x16\x2f", 8);
		c->stage = ASKS_TLS;
	}
	else
		queue_startup(c);
}

static void
go(Client *c)
{
	if (c->here)
	{
		SSL_free(c->ssl);
		close(c->fd);
	}
	c->here = false;
}

/* A liar's bytes are wrong from some point on. */
static void
spoil(Client *c, uint8_t *bytes, size_t n)
{
	if (c->kind != LIAR)
		return;
	for (size_t i = 0; i < n; i++)
	{
		if (c->honest_bytes > 0)
			c->honest_bytes--;
		else if (below(4) > 0)
			bytes[i] = (uint8_t) below(256);
	}
}

static ssize_t
send_some(Client *c, const void *bytes, size_t n)
{
	uint8_t		copy[8192];
	ssize_t		rc;

	memcpy(copy, bytes, n);
	spoil(c, copy, n);
	if (c->ssl == NULL || c->stage < STARTS)
		rc = send(c->fd, copy, n, MSG_DONTWAIT | MSG_NOSIGNAL);
	else if (c->kind == LIAR && c->honest_bytes == 0 && below(4) == 0)
		rc = send(c->fd, copy, n, MSG_DONTWAIT | MSG_NOSIGNAL);	/* beside TLS */
	else
		rc = SSL_write(c->ssl, copy, (int) n);
	if (rc < 0 && c->ssl == NULL && errno != EAGAIN)
		c->ended = true;
	return rc;
}

static void
say(Client *c)
{
	size_t		left = c->length - c->said;
	ssize_t		n;

	if (c->kind == SILENT || left == 0)
		return;
	if (c->kind == TRICKLER)
		left = 1;
	else if (below(3) == 0)
		left = 1 + below((uint32_t) left);
	n = send_some(c, c->to_say + c->said, left);
	if (n > 0)
		c->said += (size_t) n;
}

static void
hear(Client *c)
{
	size_t		room_for = sizeof(c->heard) - c->nheard;
	ssize_t		n;

	if ((c->kind == DEAF && c->stage == TALKS) || c->stage == SHAKES || room_for == 0)
		return;
	/* the letter that grants TLS is all that he may take before */
	if (c->stage == ASKS_TLS)
		room_for = 1;
	if (c->ssl != NULL)
	{
		n = SSL_read(c->ssl, c->heard + c->nheard, (int) room_for);
		if (n <= 0 && SSL_get_error(c->ssl, (int) n) != SSL_ERROR_WANT_READ)
			c->ended = true;
	}
	else
	{
		n = recv(c->fd, c->heard + c->nheard, room_for, MSG_DONTWAIT);
		if (n == 0 || (n < 0 && errno != EAGAIN))
			c->ended = true;
	}
	if (n > 0)
		c->nheard += (size_t) n;
}

static void
drop_heard(Client *c, size_t n)
{
	memmove(c->heard, c->heard + n, c->nheard - n);
	c->nheard -= n;
}

static bool
may_be_odd(const Client *c)
{
	return c->kind == LIAR;
}

/* One message of the login; false = there is none. */
static bool
understand_login(Client *c)
{
	NcFrame		f;
	NcFrameResult result = nc_frame_parse(c->heard, c->nheard, sizeof(c->heard), &f);

	if (result == NC_FRAME_INCOMPLETE)
		return false;
	if (result == NC_FRAME_INVALID)
	{
		if (!may_be_odd(c))
			fail("a %s client hears no message", kind_names[c->kind]);
		c->nheard = 0;
		return false;
	}
	if (f.type == 'E' && c->kind == HONEST)
		fail("an honest client is refused in stage %d", (int) c->stage);
	if (f.type == 'R' && f.body_bytes == 4 && f.body[3] == 3 && !may_be_odd(c))
		queue_token(c);
	else if (f.type == 'R' && f.body_bytes == 4 && f.body[3] == 3 && c->stage == STARTS)
		queue_token(c);
	if (f.type == 'Z')
		c->stage = TALKS;
	drop_heard(c, f.consumed);
	return true;
}

static void
understand_letters(Client *c)
{
	for (size_t i = 0; i < c->nheard; i++)
	{
		if (may_be_odd(c))
			continue;
		/* the host has ended him: the rest are words of an error */
		if (c->heard[i] == 'E')
		{
			c->ended = true;
			break;
		}
		if (c->heard[i] != (uint8_t) c->next_heard)
			fail("a %s client hears '%c' instead of '%c'", kind_names[c->kind], c->heard[i],
				 c->next_heard);
		c->next_heard = c->next_heard == 'z' ? 'a' : (char) (c->next_heard + 1);
		total_letters++;
		c->letters++;
	}
	c->nheard = 0;
	if (c->said < c->length || (c->waits && c->letters < c->letters_said))
		return;
	for (c->length = 0; c->length < (c->waits ? 3000 : 1 + below(300)); c->length++)
	{
		c->letters_said++;
		c->to_say[c->length] = (uint8_t) c->next_said;
		c->next_said = c->next_said == 'z' ? 'a' : (char) (c->next_said + 1);
	}
	c->said = 0;
}

static void
understand(Client *c)
{
	if (c->stage == ASKS_TLS && c->nheard > 0)
	{
		if (c->heard[0] != 'S' && !may_be_odd(c))
			fail("TLS is not granted");
		drop_heard(c, 1);
		c->stage = SHAKES;
		c->ssl = SSL_new(client_context);
		SSL_set_fd(c->ssl, c->fd);
		SSL_set_connect_state(c->ssl);
		SSL_set_mode(c->ssl, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	}
	if (c->stage == SHAKES)
	{
		int			rc = SSL_do_handshake(c->ssl);

		if (c->kind == LIAR && below(8) == 0)
			(void) !send(c->fd, "GET / HTTP/1.0\r\n", 16, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (rc == 1)
			queue_startup(c);
		else if (SSL_get_error(c->ssl, rc) != SSL_ERROR_WANT_READ)
			c->ended = true;
	}
	while ((c->stage == STARTS || c->stage == GIVES_TOKEN) && understand_login(c))
		;
	if (c->stage == TALKS)
		understand_letters(c);
}

static void
act(Client *c)
{
	say(c);
	hear(c);
	understand(c);
	if (c->ended || below(400) == 0 || (c->kind == LIAR && below(60) == 0))
		go(c);
}

/* ---- a seed ---- */

static void
choose_world(void)
{
	NcDoorSettings settings = {.tenant_id = TENANT,.login_us = LOGIN_US,.silence_us = SILENCE_US,
	.patience_us = PATIENCE_US};
	char		err[128];

	guard = (NcGuard) {0};
	guard.tls = below(3) > 0 ? certificate : NULL;
	guard.keys = below(3) > 0 ? keys : NULL;
	guard.asks = guard.keys != NULL;
	require_ssl = guard.tls != NULL && below(2) == 0;
	guard.certified = guard.tls != NULL;
	settings.require_ssl = require_ssl;
	strangers_max = settings.strangers_max = 1 + below(12);
	guests_max = 1 + below(20);
	clock_us = 10 * SECOND;
	loop = nc_loop_create(seed % 2 == 0 ? NC_LOOP_EPOLL : NC_LOOP_URING, err, sizeof(err));
	if (loop == NULL)
		fail("%s", err);
	nc_door_init(&door, &host, loop, &guard, &settings);
}

/*
 * Somebody new, when nobody else comes: he is in within a few turns, whoever is there, and
 * hears what he says, which is more than his socket takes at a time.
 */
static void
let_in_somebody(void)
{
	static Client newest;

	healed = true;
	arrive(&newest, HONEST);
	newest.waits = true;
	for (int i = 0; i < 3000 && newest.letters < 9000; i++)
	{
		say(&newest);
		hear(&newest);
		understand(&newest);
		turn();
		if (newest.ended || (i > 400 && newest.stage < TALKS))
			break;
	}
	if (newest.letters < 9000)
		fail("a newcomer hangs in stage %d after %u letters%s", (int) newest.stage, newest.letters,
			 newest.ended ? ", ended" : "");
	go(&newest);
}

static void
run_seed(void)
{
	uint32_t	nclients = 1 + below(CLIENTS_MAX);
	bool		slow_clock = below(2) == 0;

	healed = false;
	choose_world();
	for (int step = 0; step < STEPS; step++)
	{
		Client	   *c = &clients[below(nclients)];

		if (!c->here)
			arrive(c, below(3) == 0 ? HONEST : (Kind) below(KINDS));
		else
			act(c);
		if (below(3) > 0)
			turn();
		if (below(slow_clock ? 40 : 4) == 0)
			clock_us += below(STEP_US_MAX);
	}
	let_in_somebody();
	for (int i = 0; i < CLIENTS_MAX; i++)
		go(&clients[i]);
	for (int i = 0; i < 400 && (door.visitors > 0 || door.count[NC_VISITOR_GONE] > 0); i++)
	{
		clock_us += SECOND;
		turn();
	}
	CHECK(door.visitors == 0 && door.count[NC_VISITOR_GONE] == 0);
	total_refused += door.refused;
	nc_door_shut(&door);
	CHECK(nc_loop_started(loop) == 0);
	nc_loop_destroy(loop);
}

static void
set_up(void)
{
	TlsFiles	files;
	char		key_file[] = "/tmp/nc_sim_keys_XXXXXX";
	char		err[256] = "";
	EVP_PKEY   *key = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");

	signal(SIGPIPE, SIG_IGN);
	tls_files_make(&files);
	tokens_write_keys(key_file, key);
	certificate = nc_tls_context_load(files.cert, files.key, err, sizeof(err));
	keys = nc_auth_keys_load(key_file, err, sizeof(err));
	token = tokens_make(key, HEADER, CLAIMS);
	client_context = SSL_CTX_new(TLS_client_method());
	tls_files_remove(&files);
	unlink(key_file);
	EVP_PKEY_free(key);
	if (certificate == NULL || keys == NULL)
		fail("%s", err);
}

int
main(int argc, char **argv)
{
	uint64_t	seeds = 100;
	uint64_t	first = 1;

	for (int i = 1; i + 1 < argc; i += 2)
	{
		uint64_t	n = strtoull(argv[i + 1], NULL, 10);

		if (strcmp(argv[i], "--seeds") == 0)
			seeds = n;
		else
			first = n;
		if (strcmp(argv[i], "--seed") == 0)
			seeds = 1;
	}
	set_up();
	for (seed = first; seed < first + seeds; seed++)
	{
		random_state = seed * UINT64_C(0x9e3779b97f4a7c15);
		run_seed();
	}
	printf("door: %llu seeds, %llu came, %llu logged in, %llu refused or displaced, %llu letters;",
		   (unsigned long long) seeds, (unsigned long long) total_came,
		   (unsigned long long) total_opened, (unsigned long long) total_refused,
		   (unsigned long long) total_letters);
	for (int i = 0; i < KINDS; i++)
	{
		printf(" %llu %s", (unsigned long long) total_kinds[i], kind_names[i]);
		if (total_kinds[i] == 0 && seeds > 50)
			fail("no client was %s", kind_names[i]);
	}
	printf("\n");
	return 0;
}
