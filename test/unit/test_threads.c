/*
 * test_threads.c
 *	  Many clients and one communicator at the same time: threads in the place of
 *	  processes, real ring memory, real sockets, the real doorbell.
 *
 * What a single thread cannot show: the order of memory between the two sides.
 * `make unit-tsan` runs it under ThreadSanitizer; a page that is written after
 * its client has left the slot is a race there, besides a wrong mark here.  Seen
 * to fail with relaxed order in nc_slot_move().
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "mock_ps.h"
#include "nc/base/clock.h"
#include "nc/base/futex.h"
#include "nc/engine/engine.h"

#define CLIENTS 5
#define SLOTS 4
#define PAGES (SLOTS * 8)
#define SERVERS 2

/* Requests of each client; NC_THREAD_ROUNDS changes it. */
#define ROUNDS 2000

/* A wait that takes so long is a lost wake-up. */
#define STUCK_SECONDS 120

/* The communicator ends and another one begins after so many turns. */
#define TURNS_OF_LIFE 1000

typedef struct Client
{
	pthread_t	thread;
	uint32_t	ring;
	uint64_t	random;
	sem_t		latch;
	uint8_t		pages[PAGES][NC_PAGE_BYTES];
	uint32_t	wrong;			/* pages or results */
	uint32_t	stuck;
	uint32_t	done;
	uint32_t	cancelled;
} Client;

typedef struct Ask
{
	uint32_t	rel;
	uint32_t	block;
	uint32_t	nblocks;
	bool		active;
} Ask;

static NcRingArea area;
static NcCounters counters;
static NcConnRow rows[NC_CONN_ROWS];
static NcShardMap map;
static MockPs *servers[SERVERS];
static Client clients[CLIENTS];
static _Atomic bool stop;
static uint32_t rounds = ROUNDS;
static uint32_t lives;

/* ---- the communicator's thread ---- */

static uint64_t
host_now(void *ctx)
{
	return nc_clock_us();
}

static void
host_wake(void *ctx, uint32_t ring)
{
	if (!nc_ring_wake_word(&area.rings[ring]))
		sem_post(&clients[ring].latch);
}

static uint8_t *
host_dest(void *ctx, uint32_t ring, uint32_t dest)
{
	return dest < PAGES ? clients[ring].pages[dest] : NULL;
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

/* ---- a client's thread ---- */

static uint32_t
below(Client *c, uint32_t n)
{
	c->random ^= c->random << 13;
	c->random ^= c->random >> 7;
	c->random ^= c->random << 17;
	return (uint32_t) (c->random >> 20) % n;
}

static void
submit(Client *c, uint32_t index, Ask *a)
{
	NcRing	   *ring = &area.rings[c->ring];
	NcSlot	   *slot = &ring->slots[index];

	*a = (Ask) {16384 + below(c, 4), below(c, 1000), 1 + below(c, 8), true};
	if (!nc_slot_move(slot, nc_slot_load(slot), NC_SLOT_FILLING))
		c->wrong++;
	slot->spc = 1663;
	slot->db = 5;
	slot->rel = a->rel;
	slot->fork = NC_FORK_MAIN;
	slot->kind = NC_SLOT_KIND_GETPAGE;
	slot->class = NC_SLOT_CLASS_DEMAND;
	slot->nblocks = (uint8_t) a->nblocks;
	slot->block = a->block;
	slot->dest_first = (uint16_t) (index * 8);
	slot->request_lsn = NC_LSN_MAX;
	slot->not_modified_since = 0x1000;
	for (uint32_t i = 0; i < a->nblocks; i++)
	{
		ring->dests[index * 8 + i] = index * 8 + i;
		memset(c->pages[index * 8 + i], 0, 64);
	}
	if (!nc_slot_move(slot, nc_slot_load(slot), NC_SLOT_SUBMITTED))
		c->wrong++;
	(void) nc_ring_notify(&area, c->ring, index);
}

static bool
pages_right(const Client *c, uint32_t index, const Ask *a)
{
	NcRelKey	rel = {1663, 5, a->rel, NC_FORK_MAIN};

	for (uint32_t i = 0; i < a->nblocks; i++)
	{
		uint32_t	shard = nc_shard_of_block(map.shard_count, map.stripe_blocks, &rel, a->block + i);

		if (!mock_page_is(c->pages[index * 8 + i], shard, &rel, a->block + i))
			return false;
	}
	return true;
}

static void
collect(Client *c, uint32_t index, Ask *a)
{
	NcSlot	   *slot = &area.rings[c->ring].slots[index];

	if (slot->result != NC_SLOT_RESULT_OK || !pages_right(c, index, a))
		c->wrong++;
	if (!nc_slot_move(slot, nc_slot_load(slot), NC_SLOT_FREE))
		c->wrong++;
	a->active = false;
	c->done++;
}

/* As a client that is cancelled: afterwards the pages are its own again. */
static void
withdraw(Client *c, uint32_t index, Ask *a)
{
	NcSlot	   *slot = &area.rings[c->ring].slots[index];

	for (;;)
	{
		uint64_t	word = nc_slot_load(slot);

		if (nc_slot_word_state(word) == NC_SLOT_COPYING)
			sched_yield();
		else if (nc_slot_move(slot, word, NC_SLOT_FREE))
			break;
	}
	for (uint32_t i = 0; i < a->nblocks; i++)
		memset(c->pages[index * 8 + i], 0xee, NC_PAGE_BYTES);
	a->active = false;
	c->cancelled++;
}

static bool
any_done(const Client *c, const Ask *asks)
{
	for (uint32_t i = 0; i < SLOTS; i++)
		if (asks[i].active &&
			nc_slot_word_state(nc_slot_load(&area.rings[c->ring].slots[i])) == NC_SLOT_DONE)
			return true;
	return false;
}

/* As sleep_on_word() of src/client: for the end of one slot; false when nobody ever woke us. */
static bool
sleep_on_word(Client *c, uint32_t index)
{
	NcRing	   *ring = &area.rings[c->ring];
	const NcSlot *slot = &ring->slots[index];
	uint64_t	until_us = nc_clock_us() + STUCK_SECONDS * UINT64_C(1000000);
	uint64_t	word;

	for (;;)
	{
		NcFutexWord waits[] = {{.word = nc_slot_futex(slot),.shared = true}};

		atomic_store(&ring->client_asleep, NC_RING_ASLEEP_FOR(index) | NC_RING_ASLEEP_ON_WORD);
		atomic_thread_fence(memory_order_seq_cst);
		word = nc_slot_load(slot);
		waits[0].seen = (uint32_t) word;
		if (nc_slot_word_state(word) != NC_SLOT_DONE)
			nc_futex_sleep(waits, 1, until_us);
		atomic_store(&ring->client_asleep, 0);
		/* its end may have come, but nobody said so */
		if (nc_clock_us() >= until_us)
			return false;
		if (nc_slot_word_state(nc_slot_load(slot)) == NC_SLOT_DONE)
			return true;
	}
}

/* As sleep_on_latch() of src/client; false when nobody ever woke us. */
static bool
sleep_until_done(Client *c, const Ask *asks)
{
	NcRing	   *ring = &area.rings[c->ring];
	struct timespec until;
	bool		woken = true;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += STUCK_SECONDS;
	while (woken && !any_done(c, asks))
	{
		atomic_store(&ring->client_asleep, 1);
		if (!any_done(c, asks))
			while (sem_timedwait(&c->latch, &until) != 0)
				if (errno != EINTR)
				{
					woken = false;
					break;
				}
		atomic_store(&ring->client_asleep, 0);
	}
	return woken || any_done(c, asks);
}

static void *
client(void *arg)
{
	Client	   *c = arg;
	Ask			asks[SLOTS] = {0};

	for (uint32_t round = 0; round < rounds && c->stuck == 0; round++)
	{
		uint32_t	n = 1 + below(c, SLOTS);

		for (uint32_t i = 0; i < n; i++)
			submit(c, i, &asks[i]);
		for (uint32_t left = n; left > 0 && c->stuck == 0;)
		{
			uint32_t	one = below(c, n);

			if (below(c, 2) != 0 && asks[one].active && nc_futex_can())
				c->stuck += sleep_on_word(c, one) ? 0 : 1;
			else if (below(c, 4) != 0 && !sleep_until_done(c, asks))
				c->stuck++;
			for (uint32_t i = 0; i < n; i++)
			{
				if (!asks[i].active)
					continue;
				if (nc_slot_word_state(nc_slot_load(&area.rings[c->ring].slots[i])) == NC_SLOT_DONE)
					collect(c, i, &asks[i]);
				else if (below(c, 16) == 0)
					withdraw(c, i, &asks[i]);
				left -= asks[i].active ? 0 : 1;
			}
		}
	}
	return NULL;
}

/* ---- the test ---- */

static void
open_world(void)
{
	size_t		bytes = nc_ring_area_bytes(CLIENTS);

	nc_ring_area_attach(&area, malloc(bytes), CLIENTS, eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), true);
	map.version = 1;
	map.shard_count = SERVERS;
	map.stripe_blocks = 4;
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
	pthread_t	thread;
	uint32_t	done = 0;
	uint32_t	cancelled = 0;

	open_world();
	assert_int_equal(pthread_create(&thread, NULL, communicator, NULL), 0);
	for (uint32_t i = 0; i < CLIENTS; i++)
	{
		Client	   *c = &clients[i];

		c->ring = i;
		c->random = 88172645463325252 + i;
		sem_init(&c->latch, 0, 0);
	}
	for (uint32_t i = 0; i < CLIENTS; i++)
		assert_int_equal(pthread_create(&clients[i].thread, NULL, client, &clients[i]), 0);
	for (uint32_t i = 0; i < CLIENTS; i++)
	{
		Client	   *c = &clients[i];

		pthread_join(c->thread, NULL);
		assert_int_equal(c->stuck, 0);
		assert_int_equal(c->wrong, 0);
		done += c->done;
		cancelled += c->cancelled;
	}
	atomic_store(&stop, true);
	nc_ring_kick(&area);
	pthread_join(thread, NULL);

	print_message("%u done, %u withdrawn, %u communicators\n", done, cancelled, lives + 1);
	assert_true(done > 0 && cancelled > 0);
	assert_int_equal(nc_counter_value(&counters, NC_COUNTER_FOUND_LATE), 0);
	for (uint32_t r = 0; r < CLIENTS; r++)
		for (uint32_t s = 0; s < NC_RING_SLOTS; s++)
			assert_int_equal(nc_slot_word_state(nc_slot_load(&area.rings[r].slots[s])), NC_SLOT_FREE);
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
