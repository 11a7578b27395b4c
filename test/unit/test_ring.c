/*
 * test_ring.c
 *	  The area, the doorbell and the completion handshake: step by step, and with
 *	  threads that would hang if a wake-up could be lost.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/time.h>
#include <unistd.h>

#include "nc/base/clock.h"
#include "nc/base/futex.h"
#include "nc/ring/ring.h"

typedef struct Area
{
	NcRingArea	area;
	char	   *memory;
} Area;

static Area
make_area(uint32_t nrings, size_t misalign)
{
	Area		a;

	a.memory = malloc(nc_ring_area_bytes(nrings) + misalign);
	assert_non_null(a.memory);
	memset(a.memory, 0xa5, nc_ring_area_bytes(nrings) + misalign);
	nc_ring_area_attach(&a.area, a.memory + misalign, nrings,
						eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), true);
	return a;
}

static void
drop_area(Area *a)
{
	close(a->area.eventfd);
	free(a->memory);
}

static bool
bell_rang(const NcRingArea *area)
{
	uint64_t	count;

	return read(area->eventfd, &count, sizeof(count)) == sizeof(count);
}

static void
test_layout(void **state)
{
	for (size_t misalign = 0; misalign < 64; misalign += 8)
	{
		Area		a = make_area(130, misalign);
		char	   *end = a.memory + misalign + nc_ring_area_bytes(130);

		assert_int_equal((uintptr_t) a.area.rings % NC_CACHE_LINE_BYTES, 0);
		assert_true((char *) &a.area.rings[130] <= end);
		assert_true((char *) &a.area.doorbell->pending[3] <= (char *) a.area.rings);
		assert_int_equal(nc_doorbell_words(&a.area), 3);
		for (uint32_t r = 0; r < 130; r++)
			for (uint32_t s = 0; s < NC_RING_SLOTS; s++)
				assert_true(nc_slot_load(&a.area.rings[r].slots[s]) ==
							nc_slot_word(0, NC_SLOT_FREE));
		drop_area(&a);
	}
}

/* A second attach without init sees what is there. */
static void
test_attach_again(void **state)
{
	Area		a = make_area(3, 0);
	NcRingArea	other;

	a.area.rings[2].dests[5] = 77;
	nc_ring_area_attach(&other, a.memory, 3, -1, false);
	assert_int_equal(other.rings[2].dests[5], 77);
	assert_false(nc_ring_notify(&other, 2, 3));
	assert_true(nc_doorbell_take(&a.area, 0) == 4);
	drop_area(&a);
}

static void
test_bits(void **state)
{
	Area		a = make_area(130, 0);

	assert_false(nc_ring_notify(&a.area, 0, 3));
	assert_false(nc_ring_notify(&a.area, 63, 3));
	assert_false(nc_ring_notify(&a.area, 63, 3));
	assert_false(nc_ring_notify(&a.area, 129, 3));
	assert_true(nc_doorbell_take(&a.area, 0) == (UINT64_C(1) << 63 | 1));
	assert_true(nc_doorbell_take(&a.area, 0) == 0);
	assert_true(nc_doorbell_take(&a.area, 1) == 0);
	assert_true(nc_doorbell_take(&a.area, 2) == 2);
	/* awake: the bit was enough */
	assert_false(bell_rang(&a.area));
	drop_area(&a);
}

/* Which slots of a ring were submitted since somebody looked. */
static void
test_marks(void **state)
{
	Area		a = make_area(2, 0);

	assert_false(nc_ring_notify(&a.area, 1, 0));
	assert_false(nc_ring_notify(&a.area, 1, 63));
	nc_ring_announce(&a.area, 1, 5);
	/* nobody submits by saying that he waits */
	nc_ring_promote(&a.area, 0, 7);
	assert_true(nc_doorbell_take(&a.area, 0) == 3);
	assert_true(nc_ring_take_marks(&a.area.rings[0]) == 0);
	assert_true(nc_ring_take_marks(&a.area.rings[1]) == (UINT64_C(1) << 63 | 1 << 5 | 1));
	assert_true(nc_ring_take_marks(&a.area.rings[1]) == 0);
	drop_area(&a);
}

static void
test_sleep(void **state)
{
	Area		a = make_area(130, 0);

	/* something pending in the last word: stays awake, nobody needs to ring */
	assert_false(nc_ring_notify(&a.area, 129, 3));
	assert_false(nc_doorbell_sleep(&a.area));
	assert_int_equal(atomic_load(&a.area.doorbell->asleep), 0);
	(void) nc_doorbell_take(&a.area, 2);

	assert_true(nc_doorbell_sleep(&a.area));
	assert_true(nc_ring_notify(&a.area, 5, 3));
	assert_true(bell_rang(&a.area));
	nc_doorbell_awake(&a.area);
	assert_false(nc_ring_notify(&a.area, 6, 3));
	assert_false(bell_rang(&a.area));
	drop_area(&a);
}

static void
test_kick(void **state)
{
	Area		a = make_area(1, 0);

	nc_ring_kick(&a.area);
	nc_ring_kick(&a.area);
	assert_true(bell_rang(&a.area));
	assert_false(bell_rang(&a.area));
	drop_area(&a);
}

/* A counter that is full blocks nobody, and nobody learns of it. */
static void
test_saturated(void **state)
{
	Area		a = make_area(1, 0);
	uint64_t	full = UINT64_MAX - 1;

	assert_int_equal(write(a.area.eventfd, &full, sizeof(full)), sizeof(full));
	assert_true(nc_doorbell_sleep(&a.area));
	errno = ERANGE;
	for (int i = 0; i < 1000; i++)
		assert_true(nc_ring_notify(&a.area, 0, 3));
	assert_int_equal(errno, ERANGE);
	assert_true(bell_rang(&a.area));
	assert_false(bell_rang(&a.area));
	assert_true(nc_doorbell_take(&a.area, 0) == 1);
	drop_area(&a);
}

static void
test_completion(void **state)
{
	Area		a = make_area(1, 0);

	assert_false(nc_ring_client_needs_wake(&a.area.rings[0]));
	atomic_store(&a.area.rings[0].client_asleep, 1);
	assert_true(nc_ring_client_needs_wake(&a.area.rings[0]));
	drop_area(&a);
}

static void
must_move(NcSlot *slot, uint64_t seen, NcSlotState to)
{
	if (!nc_slot_move(slot, seen, to))
		abort();
}

/* Which of the two ways to wake somebody: on a word it is made here, on a latch it is the host's. */
static void
test_ways_to_wake(void **state)
{
	Area		a = make_area(1, 0);
	NcRing	   *ring = &a.area.rings[0];
	const uint32_t any_word = NC_RING_ASLEEP_ON_WORD;

	assert_true(nc_ring_wake_word(ring));
	atomic_store(&ring->client_asleep, NC_RING_ASLEEP);
	assert_false(nc_ring_wake_word(ring));
	atomic_store(&ring->client_asleep, NC_RING_ASLEEP_FOR(3));
	assert_false(nc_ring_wake_word(ring));
	errno = ERANGE;
	atomic_store(&ring->client_asleep, NC_RING_ASLEEP_FOR(NC_RING_SLOTS - 1) | any_word);
	assert_true(nc_ring_wake_word(ring));
	assert_int_equal(errno, ERANGE);
	/* a number that is no slot's: the latch does no harm */
	atomic_store(&ring->client_asleep, NC_RING_ASLEEP_FOR(NC_RING_SLOTS) | any_word);
	assert_false(nc_ring_wake_word(ring));
	atomic_store(&ring->client_asleep, any_word);
	assert_false(nc_ring_wake_word(ring));

	/* asleep on a word is asleep: for the end of that slot, and of no other */
	atomic_store(&ring->client_asleep, NC_RING_ASLEEP_FOR(3) | any_word);
	must_move(&ring->slots[3], nc_slot_load(&ring->slots[3]), NC_SLOT_FILLING);
	must_move(&ring->slots[3], nc_slot_load(&ring->slots[3]), NC_SLOT_SUBMITTED);
	assert_false(nc_ring_client_needs_wake(ring));
	must_move(&ring->slots[3], nc_slot_load(&ring->slots[3]), NC_SLOT_TAKEN);
	must_move(&ring->slots[3], nc_slot_load(&ring->slots[3]), NC_SLOT_COPYING);
	assert_false(nc_ring_client_needs_wake(ring));
	must_move(&ring->slots[3], nc_slot_load(&ring->slots[3]), NC_SLOT_DONE);
	assert_true(nc_ring_client_needs_wake(ring));
	drop_area(&a);
}

static volatile sig_atomic_t signalled;

static void
on_signal(int signo)
{
	signalled = 1;
}

/* A word that is not as it was seen, a signal handler that changes one, and the time, end a sleep. */
static void
test_futex(void **state)
{
	uint32_t	word = 7;
	uint64_t	began_us = nc_clock_us();
	NcFutexWord words[] = {
		{.word = &word,.seen = 6,.shared = true},
		{.word = &signalled,.seen = 0}
	};
	struct sigaction action = {.sa_handler = on_signal,.sa_flags = SA_RESTART};
	struct itimerval soon = {.it_value = {.tv_usec = 20000}};

	if (!nc_futex_can())
		skip();
#ifdef __SANITIZE_THREAD__
	/* its handlers are run later, at a call that it knows, and this system call is none */
	skip();
#endif
	errno = ERANGE;
	nc_futex_sleep(words, 2, UINT64_C(60000000) + nc_clock_us());
	assert_int_equal(errno, ERANGE);
	words[0].seen = 7;
	/* the handler runs before or during the sleep: system calls are begun again after it, this one too */
	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &soon, NULL);
	nc_futex_sleep(words, 2, UINT64_C(60000000) + nc_clock_us());
	assert_int_equal(signalled, 1);
	signalled = 0;
	assert_true(raise(SIGALRM) == 0);
	nc_futex_sleep(words, 2, UINT64_C(60000000) + nc_clock_us());
	words[1].seen = 1;
	nc_futex_sleep(words, 2, nc_clock_us() + 1000);
	assert_true(nc_clock_us() - began_us < UINT64_C(50000000));
	signal(SIGALRM, SIG_DFL);
}

/* ---- threads ---- */

#define CLIENTS 3
#define ROUNDS 4000

typedef struct Client
{
	NcRingArea *area;
	uint32_t	ring;
	int			latch;			/* an eventfd that stands for the process latch */
} Client;

typedef struct Server
{
	NcRingArea *area;
	Client	   *clients;
	uint64_t	served;
	uint64_t	sleeps;
} Server;

/* Waits for a descriptor with a long bound: a lost wake-up ends the test, not the machine. */
static void
wait_readable(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	uint64_t	count;

	if (poll(&p, 1, 60000) != 1)
	{
		fprintf(stderr, "a wake-up was lost\n");
		abort();
	}
	if (read(fd, &count, sizeof(count)) < 0)
		abort();
}

static void *
client_main(void *arg)
{
	Client	   *c = arg;
	NcRing	   *ring = &c->area->rings[c->ring];
	NcSlot	   *slot = &ring->slots[c->ring];

	for (uint32_t i = 0; i < ROUNDS; i++)
	{
		must_move(slot, nc_slot_load(slot), NC_SLOT_FILLING);
		slot->block = i;
		must_move(slot, nc_slot_load(slot), NC_SLOT_SUBMITTED);
		(void) nc_ring_notify(c->area, c->ring, c->ring);
		for (;;)
		{
			if (nc_slot_word_state(nc_slot_load(slot)) == NC_SLOT_DONE)
				break;
			atomic_store(&ring->client_asleep, 1);
			atomic_thread_fence(memory_order_seq_cst);
			if (nc_slot_word_state(nc_slot_load(slot)) != NC_SLOT_DONE)
				wait_readable(c->latch);
			atomic_store(&ring->client_asleep, 0);
		}
		if (slot->value != i + UINT64_C(1000))
			abort();
		must_move(slot, nc_slot_load(slot), NC_SLOT_FREE);
	}
	return NULL;
}

static void
serve(Server *s, uint32_t ring_index)
{
	NcRing	   *ring = &s->area->rings[ring_index];
	NcSlot	   *slot = &ring->slots[ring_index];
	uint64_t	one = 1;
	uint64_t	word;

	if ((nc_ring_take_marks(ring) >> ring_index & 1) == 0)
		return;
	word = nc_slot_load(slot);
	if (nc_slot_word_state(word) != NC_SLOT_SUBMITTED)
		return;
	must_move(slot, word, NC_SLOT_TAKEN);
	must_move(slot, nc_slot_load(slot), NC_SLOT_COPYING);
	slot->value = slot->block + UINT64_C(1000);
	must_move(slot, nc_slot_load(slot), NC_SLOT_DONE);
	s->served++;
	if (nc_ring_client_needs_wake(ring) &&
		write(s->clients[ring_index].latch, &one, sizeof(one)) < 0)
		abort();
}

static void *
server_main(void *arg)
{
	Server	   *s = arg;

	while (s->served < (uint64_t) CLIENTS * ROUNDS)
	{
		uint64_t	bits = nc_doorbell_take(s->area, 0);

		for (uint32_t r = 0; r < CLIENTS; r++)
			if ((bits >> r & 1) != 0)
				serve(s, r);
		if (bits == 0 && nc_doorbell_sleep(s->area))
		{
			s->sleeps++;
			wait_readable(s->area->eventfd);
			nc_doorbell_awake(s->area);
		}
	}
	return NULL;
}

/* Both handshakes under contention: no round is lost, and both sides really sleep. */
static void
test_threads(void **state)
{
	Area		a = make_area(CLIENTS, 0);
	Client		clients[CLIENTS];
	Server		server = {.area = &a.area, .clients = clients};
	pthread_t	threads[CLIENTS + 1];

	for (uint32_t i = 0; i < CLIENTS; i++)
		clients[i] = (Client) {&a.area, i, eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)};
	for (uint32_t i = 0; i < CLIENTS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, client_main, &clients[i]), 0);
	assert_int_equal(pthread_create(&threads[CLIENTS], NULL, server_main, &server), 0);
	for (uint32_t i = 0; i <= CLIENTS; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	assert_int_equal(server.served, CLIENTS * ROUNDS);
	for (uint32_t i = 0; i < CLIENTS; i++)
	{
		assert_int_equal(nc_slot_word_generation(nc_slot_load(&a.area.rings[i].slots[i])),
						 ROUNDS);
		close(clients[i].latch);
	}
	drop_area(&a);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_layout),
		cmocka_unit_test(test_attach_again),
		cmocka_unit_test(test_bits),
		cmocka_unit_test(test_marks),
		cmocka_unit_test(test_sleep),
		cmocka_unit_test(test_kick),
		cmocka_unit_test(test_saturated),
		cmocka_unit_test(test_completion),
		cmocka_unit_test(test_ways_to_wake),
		cmocka_unit_test(test_futex),
		cmocka_unit_test(test_threads)
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
