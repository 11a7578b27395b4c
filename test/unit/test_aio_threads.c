/*
 * test_aio_threads.c
 *	  AIO handles with threads in the place of processes: owners that submit and use
 *	  their handles again at once, waiters that take reads away, a communicator that
 *	  ends and begins again.
 *
 * Each handle must be completed once in each life, by whoever; what it has read must
 * be right; and memory of a read that was taken away must stay as its owner left it.
 * `make unit-tsan` runs it under ThreadSanitizer, for which a late write is a race.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "mock_ps.h"
#include "nc/base/clock.h"
#include "nc/engine/engine.h"

#define OWNERS 3
#define WAITERS 2
#define OWN 5					/* handles of each owner */
#define HANDLES (OWNERS * OWN)
#define BLOCKS 4
#define SERVERS 2

/* Batches of each owner; NC_THREAD_ROUNDS changes it. */
#define ROUNDS 1000

#define STUCK_US UINT64_C(120000000)
#define TURNS_OF_LIFE 700

/* As the server sees it. */
typedef enum HandleState
{
	HANDLE_IDLE = 0,
	HANDLE_SUBMITTED,
	HANDLE_COMPLETED
} HandleState;

typedef struct Handle
{
	_Atomic uint64_t generation;
	_Atomic uint32_t state;
	bool		failed;			/* in COMPLETED */
	uint32_t	rel;
	uint32_t	block;
	uint32_t	nblocks;
	uint8_t		pages[BLOCKS][NC_PAGE_BYTES];
} Handle;

static NcRingArea area;
static NcCounters counters;
static NcConnRow rows[NC_CONN_ROWS];
static NcShardMap map;
static MockPs *servers[SERVERS];
static Handle handles[HANDLES];
static _Atomic bool stop;
static _Atomic uint32_t wrong;
static _Atomic uint32_t stuck;
static _Atomic uint32_t read_right;
static _Atomic uint32_t claimed;
static uint32_t rounds = ROUNDS;
static uint32_t lives;

static uint32_t
below(uint64_t *random, uint32_t n)
{
	*random ^= *random << 13;
	*random ^= *random >> 7;
	*random ^= *random << 17;
	return (uint32_t) (*random >> 20) % n;
}

/* As pgaio_io_process_completion(): by one process, once in a life. */
static void
complete(uint32_t handle, uint64_t generation, bool failed)
{
	Handle	   *h = &handles[handle];

	if (atomic_load(&h->generation) != generation || atomic_load(&h->state) != HANDLE_SUBMITTED)
		atomic_fetch_add(&wrong, 1);
	h->failed = failed;
	atomic_store(&h->state, HANDLE_COMPLETED);
}

/* ---- the communicator's thread ---- */

static uint64_t
host_now(void *ctx)
{
	return nc_clock_us();
}

static void
host_wake(void *ctx, uint32_t ring)
{
	atomic_fetch_add(&wrong, 1);
}

static uint8_t *
host_dest(void *ctx, uint32_t ring, uint32_t dest)
{
	return handles[nc_aio_handle(&area, ring, NC_DEST_AIO_SLOT(dest))].pages[NC_DEST_AIO_INDEX(dest)];
}

static void
host_complete(void *ctx, uint32_t handle, uint64_t generation, NcSlotResult result, const char *text)
{
	if (result != NC_SLOT_RESULT_OK)
		atomic_fetch_add(&wrong, 1);
	complete(handle, generation, result != NC_SLOT_RESULT_OK);
}

static void
host_log(void *ctx, NcLogLevel level, const char *message)
{
}

static NcEngine *
start_engine(void)
{
	NcHost		host = {
		.now_us = host_now,
		.wake = host_wake,
		.dest_page = host_dest,
		.aio_complete = host_complete,
		.log = host_log
	};
	NcNetSettings config = {
		.protocol_version = 3,
		.tenant_id = "11223344556677889900aabbccddeeff",
		.timeline_id = "ffeeddccbbaa00998877665544332211",
		.connections_per_shard_max = 2,
		.depth_max = 8,
		.connect_timeout_ms = 60000,
		.silence_timeout_ms = 60000,
		.idle_timeout_ms = 60000
	};
	char		err[256] = "";
	NcEngine   *engine = nc_engine_create(&config, NC_LOOP_EPOLL, &area, &counters, rows, &host,
										  NULL, 0, err, sizeof(err));

	if (engine == NULL)
	{
		fprintf(stderr, "%s\n", err);
		abort();
	}
	nc_engine_set_shard_map(engine, &map);
	return engine;
}

static void *
communicator(void *arg)
{
	NcEngine   *engine = start_engine();

	for (uint32_t turn = 1; !atomic_load(&stop); turn++)
	{
		for (uint32_t i = 0; i < SERVERS; i++)
			mock_ps_step(servers[i]);
		(void) nc_engine_tick(engine, nc_engine_busy(engine) > 0 ? 0 : 1);
		if (turn % 500 == 0)
			mock_ps_fault(servers[turn / 500 % SERVERS], MOCK_CLOSE, 2, 1);
		if (turn % TURNS_OF_LIFE != 0)
			continue;
		nc_engine_destroy(engine);
		engine = start_engine();
		lives++;
	}
	nc_engine_destroy(engine);
	return NULL;
}

/* ---- who waits ---- */

static bool
claim(uint32_t handle, uint64_t generation)
{
	if (!nc_aio_claim(&area, handle, generation, nc_clock_us()))
		return false;
	atomic_fetch_add(&claimed, 1);
	complete(handle, generation, true);
	return true;
}

/* Any process that has a reference to a handle's read; often an old one. */
static void *
waiter(void *arg)
{
	uint64_t	random = 7331 + (uint64_t) (uintptr_t) arg;
	uint64_t	generation[HANDLES] = {0};

	while (!atomic_load(&stop))
	{
		uint32_t	h = below(&random, HANDLES);

		if (below(&random, 4) == 0 && atomic_load(&handles[h].state) == HANDLE_SUBMITTED)
			generation[h] = atomic_load(&handles[h].generation);
		if (below(&random, 3) == 0)
			(void) claim(h, generation[h]);
		usleep(below(&random, 100));
	}
	return NULL;
}

/* ---- an owner's thread ---- */

static void
fill(uint32_t handle, uint64_t *random)
{
	Handle	   *h = &handles[handle];

	h->rel = 16384 + below(random, 4);
	h->block = below(random, 1000);
	h->nblocks = 1 + below(random, BLOCKS);
	memset(h->pages, 0, sizeof(h->pages));
	if (!nc_aio_fill(&area, handle, atomic_load(&h->generation), &(NcAioRead) {
			.rel = {1663, 5, h->rel, NC_FORK_MAIN}, .block = h->block, .nblocks = h->nblocks,
			.request_lsn = NC_LSN_MAX, .not_modified_since = 0x1000
		}))
		atomic_fetch_add(&wrong, 1);
}

static bool
pages_right(const Handle *h)
{
	NcRelKey	rel = {1663, 5, h->rel, NC_FORK_MAIN};

	for (uint32_t i = 0; i < h->nblocks; i++)
	{
		uint32_t	shard = nc_shard_of_block(map.shard_count, map.stripe_blocks, &rel, h->block + i);

		if (!mock_page_is(h->pages[i], shard, &rel, h->block + i))
			return false;
	}
	return true;
}

/* Waits as an owner does, sometimes without patience; then the handle is its own again. */
static void
reclaim(uint32_t handle, uint64_t *random)
{
	Handle	   *h = &handles[handle];
	uint64_t	until_us = nc_clock_us() + STUCK_US;

	while (atomic_load(&h->state) != HANDLE_COMPLETED)
	{
		if (below(random, 256) == 0)
			(void) claim(handle, atomic_load(&h->generation));
		if (nc_clock_us() > until_us)
		{
			atomic_fetch_add(&stuck, 1);
			return;
		}
		usleep(20);
	}
	if (h->failed)
		memset(h->pages, 0xee, sizeof(h->pages));
	else if (pages_right(h))
		atomic_fetch_add(&read_right, 1);
	else
		atomic_fetch_add(&wrong, 1);
	atomic_fetch_add(&h->generation, 1);
	atomic_store(&h->state, HANDLE_IDLE);
}

static void *
owner(void *arg)
{
	uint32_t	first = (uint32_t) (uintptr_t) arg * OWN;
	uint64_t	random = 88172645463325252 + first;

	for (uint32_t round = 0; round < rounds && atomic_load(&stuck) == 0; round++)
	{
		uint32_t	n = 1 + below(&random, OWN);

		for (uint32_t i = 0; i < n; i++)
		{
			fill(first + i, &random);
			/* given up before it was submitted, begun again in another life */
			if (below(&random, 16) == 0)
			{
				atomic_fetch_add(&handles[first + i].generation, 1);
				fill(first + i, &random);
			}
		}
		for (uint32_t i = 0; i < n; i++)
		{
			atomic_store(&handles[first + i].state, HANDLE_SUBMITTED);
			nc_aio_submit(&area, first + i, nc_clock_us());
		}
		(void) nc_ring_bell(&area);
		for (uint32_t i = 0; i < n; i++)
			reclaim(first + i, &random);
	}
	return NULL;
}

/* ---- the test ---- */

static void
open_world(void)
{
	/* one ring of a process that asks for nothing */
	uint32_t	nrings = 1 + nc_aio_rings(HANDLES);

	nc_ring_area_attach(&area, malloc(nc_ring_area_bytes(nrings)), nrings,
						eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), true);
	area.aio_first = 1;
	map.version = 1;
	map.shard_count = SERVERS;
	map.stripe_blocks = 2;
	for (uint32_t i = 0; i < SERVERS; i++)
	{
		servers[i] = mock_ps_open(i);
		snprintf(map.conninfo[i], sizeof(map.conninfo[i]), "%s", mock_ps_conninfo(servers[i]));
	}
	if (getenv("NC_THREAD_ROUNDS") != NULL)
		rounds = (uint32_t) atoi(getenv("NC_THREAD_ROUNDS"));
}

static void
test_threads(void **state)
{
	pthread_t	engine_thread;
	pthread_t	owners[OWNERS];
	pthread_t	waiters[WAITERS];

	open_world();
	assert_int_equal(pthread_create(&engine_thread, NULL, communicator, NULL), 0);
	for (uintptr_t i = 0; i < WAITERS; i++)
		assert_int_equal(pthread_create(&waiters[i], NULL, waiter, (void *) i), 0);
	for (uintptr_t i = 0; i < OWNERS; i++)
		assert_int_equal(pthread_create(&owners[i], NULL, owner, (void *) i), 0);
	for (uint32_t i = 0; i < OWNERS; i++)
		pthread_join(owners[i], NULL);
	atomic_store(&stop, true);
	nc_ring_kick(&area);
	for (uint32_t i = 0; i < WAITERS; i++)
		pthread_join(waiters[i], NULL);
	pthread_join(engine_thread, NULL);

	print_message("%u read, %u taken away, %u communicators\n", atomic_load(&read_right),
				  atomic_load(&claimed), lives + 1);
	assert_int_equal(atomic_load(&stuck), 0);
	assert_int_equal(atomic_load(&wrong), 0);
	assert_true(atomic_load(&read_right) > 0 && atomic_load(&claimed) > 0);
	assert_int_equal(nc_counter_value(&counters, NC_COUNTER_FOUND_LATE), 0);
	for (uint32_t h = 0; h < HANDLES; h++)
		assert_int_equal(nc_slot_word_state(nc_slot_load(nc_aio_slot(&area, h))), NC_SLOT_FREE);
	for (uint32_t i = 0; i < SERVERS; i++)
		mock_ps_close(servers[i]);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
