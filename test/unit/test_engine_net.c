/*
 * test_engine_net.c
 *	  Connections of the engine where the system around them is the trouble: full
 *	  sockets, no descriptors, names, options, and many who try at once.
 *
 * As test_engine.c.  Names are resolved by the getaddrinfo() of this file, which
 * libpq and the core find before the system's.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <dlfcn.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "engine_world.h"
#include "nc/net/net.h"
#include "tls_files.h"

/*
 * A call that blocks would block the test for ever; valgrind on a busy machine is no such call.
 * Who expects one says sooner when it is over (test/without.sh).
 */
#define HANG_SECONDS 600
#define HANG_VARIABLE "NC_TEST_HANG_SECONDS"

static void
expect_an_end(void)
{
	const char *seconds = getenv(HANG_VARIABLE);

	alarm(seconds != NULL ? (unsigned int) atoi(seconds) : HANG_SECONDS);
}

static NcLoopMethod method;
static NcTlsContext *tls_context;

static int
use_uring(void **state)
{
	method = NC_LOOP_URING;
	expect_an_end();
	return 0;
}

static int
use_epoll(void **state)
{
	method = NC_LOOP_EPOLL;
	expect_an_end();
	return 0;
}

static void
on_alarm(int signal)
{
	static const char text[] = "[  ERROR   ] --- the engine is blocked\n";

	if (write(STDERR_FILENO, text, sizeof(text) - 1) > 0)
		_exit(1);
	_exit(2);
}

static void
expect_page(World *w, const WorldRead *r)
{
	world_wait(w, r->ring, r->slot);
	assert_int_equal(world_collect(w, r->ring, r->slot), NC_SLOT_RESULT_OK);
	assert_true(world_pages_right(w, r));
}

/* ---- sockets ---- */

#define FDS_MAX 4096

/* The engine's end of its connection to a server, -1 = none. */
static int
client_socket(const MockPs *server)
{
	struct sockaddr_in peer;

	for (int fd = 3; fd < FDS_MAX; fd++)
	{
		socklen_t	bytes = sizeof(peer);

		if (getpeername(fd, (struct sockaddr *) &peer, &bytes) == 0 &&
			peer.sin_family == AF_INET && ntohs(peer.sin_port) == mock_ps_port(server))
			return fd;
	}
	return -1;
}

static int
option_of(int fd, int level, int name)
{
	int			value = -1;
	socklen_t	bytes = sizeof(value);

	assert_int_equal(getsockopt(fd, level, name, &value, &bytes), 0);
	return value;
}

/* A connection that nothing is asked on is watched by the system. */
static void
test_keepalive(void **state)
{
	World	   *w = world_open(method, 1, 1);
	WorldRead	r = {.rel = 100, .block = 7};
	int			fd;

	w->config.silence_timeout_ms = 17000;
	world_start(w);
	world_submit(w, &r);
	expect_page(w, &r);
	fd = client_socket(w->servers[0]);
	assert_int_equal(option_of(fd, SOL_SOCKET, SO_KEEPALIVE), 1);
	assert_in_range(option_of(fd, IPPROTO_TCP, TCP_KEEPIDLE), 1, 30);
	assert_in_range(option_of(fd, IPPROTO_TCP, TCP_KEEPINTVL), 1, 30);
	assert_in_range(option_of(fd, IPPROTO_TCP, TCP_KEEPCNT), 1, 5);
	assert_int_equal(option_of(fd, IPPROTO_TCP, TCP_USER_TIMEOUT), 17000);
	world_close(w);
}

/* ---- a server that does not read ---- */

#define MANY_RINGS 32
#define MANY (MANY_RINGS * NC_RING_SLOTS)

static WorldRead
one_of_many(uint32_t i)
{
	return (WorldRead) {.ring = i / NC_RING_SLOTS, .slot = i % NC_RING_SLOTS, .rel = 100, .block = i,
		.dest = i};
}

static void
submit_many(World *w)
{
	for (uint32_t i = 0; i < MANY; i++)
	{
		WorldRead	r = one_of_many(i);

		world_submit(w, &r);
	}
}

/* A connection with little room in both sockets, whose server has stopped to read. */
static World *
open_deaf(NcTlsContext *tls, uint32_t conns, uint32_t depth, int version)
{
	World	   *w = world_open(method, MANY_RINGS, 1);
	int			bytes = 4096;

	w->config.connections_per_shard_max = conns;
	w->config.depth_max = depth;
	w->config.protocol_version = version;
	w->wait_ms = 1;
	/* also the system's, which is in real time */
	w->config.silence_timeout_ms = 1000000;
	mock_ps_small_buffer(w->servers[0], bytes);
	if (tls != NULL)
	{
		mock_ps_tls(w->servers[0], tls, 4099);
		snprintf(w->map.conninfo[0], sizeof(w->map.conninfo[0]),
				 "host=127.0.0.1 port=%u sslmode=require", mock_ps_port(w->servers[0]));
	}
	world_start(w);
	world_wait_counter(w, NC_COUNTER_CONNECTS, 1);
	assert_int_equal(setsockopt(client_socket(w->servers[0]), SOL_SOCKET, SO_SNDBUF, &bytes,
								sizeof(bytes)), 0);
	mock_ps_deaf(w->servers[0], true);
	return w;
}

/*
 * The socket is full: nothing blocks, no more than the depth is put on this
 * connection, another takes the rest, and what was left is sent in the end.
 */
static void
slow_reader(NcTlsContext *tls, bool new_keys)
{
	World	   *w = open_deaf(tls, 3, MANY / 2, 3);
	uint64_t	sent;

	if (!new_keys)
		mock_ps_same_keys(w->servers[0]);

	submit_many(w);
	world_wait_counter(w, NC_COUNTER_PAGES_RECEIVED, MANY / 2);
	assert_int_equal(w->rows[0].in_flight, MANY / 2);
	assert_int_equal(w->rows[1].in_flight, 0);
	assert_int_equal(nc_engine_busy(w->engine), MANY / 2);
	sent = world_counter(w, NC_COUNTER_BYTES_SENT);
	mock_ps_deaf(w->servers[0], false);
	for (uint32_t i = 0; i < MANY; i++)
	{
		WorldRead	r = one_of_many(i);

		expect_page(w, &r);
	}
	/* or it was not full at all */
	assert_true(world_counter(w, NC_COUNTER_BYTES_SENT) > sent);

	/*
	 * OpenSSL 3.0 fails ("bad length") when new keys are asked for twice while a
	 * write is under way: that connection is lost like any, and nothing with it.
	 */
	if (!new_keys)
		assert_int_equal(world_counter(w, NC_COUNTER_DISCONNECTS), 0);
	assert_int_equal(mock_ps_open_max(w->servers[0]), 2);
	world_close(w);
}

static void
test_slow_reader(void **state)
{
	slow_reader(NULL, false);
}

static void
test_slow_reader_tls(void **state)
{
	slow_reader(tls_context, false);
}

static void
test_slow_reader_new_keys(void **state)
{
	slow_reader(tls_context, true);
}

/*
 * In v2 a page may be the answer to any request, also to one that is not sent
 * yet: a server that sends and does not read must not make the queue of unsent
 * requests grow.
 */
static void
test_answers_ahead(void **state)
{
	World	   *w = open_deaf(NULL, 1, 4, 2);

	submit_many(w);
	world_turns(w, 3);
	for (uint32_t i = 0; i < MANY && world_counter(w, NC_COUNTER_POISONED) == 0; i++)
	{
		mock_ps_say_page(w->servers[0]);
		world_turn(w);
	}
	assert_int_equal(world_counter(w, NC_COUNTER_POISONED), 1);
	assert_non_null(strstr(w->log, "nobody asked for"));
	assert_true(world_counter(w, NC_COUNTER_PAGES_RECEIVED) > 8);
	assert_true(nc_engine_busy(w->engine) > 0);
	world_close(w);
}

/* ---- too many ---- */

#define SOME 20

static void
submit_some(World *w)
{
	for (uint32_t i = 0; i < SOME; i++)
	{
		WorldRead	r = one_of_many(i);

		world_submit(w, &r);
	}
}

static void
expect_some(World *w)
{
	for (uint32_t i = 0; i < SOME; i++)
	{
		WorldRead	r = one_of_many(i);

		expect_page(w, &r);
	}
}

/* What stands goes on; more is tried now and then, and works once there are descriptors. */
static void
test_no_descriptors(void **state)
{
	World	   *w = world_open(method, 1, 1);
	struct rlimit before;
	struct rlimit none;
	int			next;

	w->config.depth_max = 1;
	w->config.connections_per_shard_max = 8;
	world_start(w);
	world_wait_counter(w, NC_COUNTER_CONNECTS, 1);
	next = dup(STDERR_FILENO);
	close(next);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
	none = (struct rlimit) {(rlim_t) next, before.rlim_max};
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	mock_ps_fault(w->servers[0], MOCK_HOLD, 0, 1);
	submit_some(w);
	for (int i = 0; i < 1000; i++)
	{
		w->now_us += 10000;
		world_turn(w);
	}
	assert_in_range(world_counter(w, NC_COUNTER_CONNECT_FAILURES), 10, 40);
	assert_non_null(strstr(w->log, "Too many open files"));
	mock_ps_release(w->servers[0]);
	expect_some(w);
	assert_int_equal(mock_ps_accepted(w->servers[0]), 1);
	assert_int_equal(world_counter(w, NC_COUNTER_DISCONNECTS), 0);

	assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
	mock_ps_fault(w->servers[0], MOCK_HOLD, 0, 1);
	submit_some(w);
	w->now_us += 2 * NC_BACKOFF_MAX_US;
	world_wait_counter(w, NC_COUNTER_CONNECTS, 2);
	mock_ps_release(w->servers[0]);
	expect_some(w);
	world_close(w);
}

/* Who fails together does not try again together. */
static void
test_jitter(void **state)
{
	World	   *w = world_open(method, 1, 4);
	uint64_t	seen = 0;
	uint32_t	together = 0;
	uint32_t	apart = 0;

	for (int i = 0; i < 4; i++)
		mock_ps_down(w->servers[i]);
	world_start(w);
	for (int i = 0; i < 6000; i++)
	{
		uint64_t	failures;

		w->now_us += 1000;
		world_turn(w);
		failures = world_counter(w, NC_COUNTER_CONNECT_FAILURES);
		if (failures == seen + 4)
			together++;
		else if (failures > seen)
			apart++;
		seen = failures;
	}
	assert_true(together + apart > 8);
	assert_true(apart > together);
	world_close(w);
}

/* ---- names ---- */

#define NAME "page-server.test"

typedef int (*GetAddrInfo) (const char *, const char *, const struct addrinfo *,
							struct addrinfo **);

static GetAddrInfo system_getaddrinfo;
static pthread_t loop_thread;
static const char *_Atomic name_is; /* address, NULL = there is none */
static _Atomic uint32_t asked;
static _Atomic uint32_t asked_in_loop;
static _Atomic bool hold_answers;
static sem_t may_answer;

int
getaddrinfo(const char *restrict node, const char *restrict service,
			const struct addrinfo *restrict hints, struct addrinfo **restrict result)
{
	const char *address;
	bool		hold = atomic_load(&hold_answers);

	if (node == NULL || strcmp(node, NAME) != 0)
		return system_getaddrinfo(node, service, hints, result);
	/* from here on the test may let answers go: looked at before */
	atomic_fetch_add(&asked, 1);
	if (pthread_equal(pthread_self(), loop_thread))
		atomic_fetch_add(&asked_in_loop, 1);
	else if (hold)
		while (sem_wait(&may_answer) != 0)
			continue;
	address = atomic_load(&name_is);
	return address == NULL ? EAI_NONAME : system_getaddrinfo(address, service, hints, result);
}

static World *
open_named(uint32_t nservers)
{
	World	   *w = world_open(method, 2, nservers);

	snprintf(w->map.conninfo[0], sizeof(w->map.conninfo[0]), "host=" NAME " port=%u sslmode=disable",
			 mock_ps_port(w->servers[0]));
	w->wait_ms = 1;
	atomic_store(&asked, 0);
	atomic_store(&asked_in_loop, 0);
	return w;
}

static uint32_t
block_on_shard(const World *w, uint32_t rel, uint32_t shard)
{
	NcRelKey	key = world_rel(rel);
	uint32_t	block = 0;

	while (nc_shard_of_block(w->map.shard_count, w->map.stripe_blocks, &key, block) != shard)
		block++;
	return block;
}

static void
expect_named_page(World *w, const WorldRead *r)
{
	NcRelKey	rel = world_rel(r->rel);

	world_wait(w, r->ring, r->slot);
	assert_int_equal(world_collect(w, r->ring, r->slot), NC_SLOT_RESULT_OK);
	assert_true(mock_page_is(w->dest + (size_t) r->dest * NC_PAGE_BYTES, 0, &rel, r->block));
}

/* While a name is being asked for, other shards go on: nobody asks in the loop. */
static void
test_slow_name(void **state)
{
	World	   *w = open_named(2);
	WorldRead	named = {.ring = 0, .rel = 100, .block = block_on_shard(w, 100, 0)};
	WorldRead	other = {.ring = 1, .rel = 100, .block = block_on_shard(w, 100, 1), .dest = 1};

	atomic_store(&name_is, "127.0.0.1");
	atomic_store(&hold_answers, true);
	world_start(w);
	world_submit(w, &named);
	world_submit(w, &other);
	expect_page(w, &other);
	for (int i = 0; i < WORLD_TURNS_MAX && atomic_load(&asked) == 0; i++)
		world_turn(w);
	world_turns(w, 50);
	assert_int_equal(atomic_load(&asked_in_loop), 0);
	assert_int_equal(world_state(w, 0, 0), NC_SLOT_TAKEN);
	atomic_store(&hold_answers, false);
	sem_post(&may_answer);
	expect_named_page(w, &named);
	assert_int_equal(atomic_load(&asked), 1);
	world_close(w);
}

/* A name that is not known yet, then one of a wrong address, then moves. */
static void
test_name_changes(void **state)
{
	World	   *w = open_named(1);
	WorldRead	r = {.rel = 100, .block = 7};
	uint32_t	before;

	atomic_store(&name_is, NULL);
	world_start(w);
	world_submit(w, &r);
	world_wait_counter(w, NC_COUNTER_CONNECT_FAILURES, 1);
	assert_non_null(strstr(w->log, "cannot resolve the host name"));

	/* nobody is there */
	atomic_store(&name_is, "127.0.0.2");
	for (int i = 0; i < 1000 && strstr(w->rows[0].last_error, "refused") == NULL; i++)
	{
		w->now_us += 100000;
		world_turn(w);
	}
	assert_non_null(strstr(w->rows[0].last_error, "refused"));
	before = atomic_load(&asked);
	atomic_store(&name_is, "127.0.0.1");
	for (int i = 0; i < 30; i++)
	{
		w->now_us += 100000;
		world_turn(w);
	}
	/* an address is good for some seconds */
	assert_int_equal(atomic_load(&asked), before);
	w->now_us += 6000000;
	expect_named_page(w, &r);
	assert_int_equal(atomic_load(&asked), before + 1);
	assert_int_equal(atomic_load(&asked_in_loop), 0);
	world_close(w);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		BOTH(test_keepalive),
		BOTH(test_slow_reader),
		BOTH(test_slow_reader_tls),
		BOTH(test_slow_reader_new_keys),
		BOTH(test_answers_ahead),
		BOTH(test_no_descriptors),
		BOTH(test_jitter),
		BOTH(test_slow_name),
		BOTH(test_name_changes)
	};
	TlsFiles	files;
	char		err[256];
	int			rc;

	signal(SIGPIPE, SIG_IGN);
	signal(SIGALRM, on_alarm);
	loop_thread = pthread_self();
	system_getaddrinfo = (GetAddrInfo) dlsym(RTLD_NEXT, "getaddrinfo");
	sem_init(&may_answer, 0, 0);
	tls_files_make(&files);
	tls_context = nc_tls_context_load(files.cert, files.key, err, sizeof(err));
	if (tls_context == NULL)
	{
		fprintf(stderr, "%s\n", err);
		return 1;
	}
	rc = cmocka_run_group_tests(tests, NULL, NULL);
	nc_tls_context_free(tls_context);
	tls_files_remove(&files);
	return rc;
}
