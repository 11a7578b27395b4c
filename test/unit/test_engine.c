/*
 * test_engine.c
 *	  The engine against page servers that behave and that do not, with both
 *	  methods of the loop.
 *
 * Each test is one history; clocks are the test's, nothing sleeps.  Every page
 * that arrives is compared byte by byte with what the server of that shard sends
 * for that key.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine_world.h"
#include "nc/net/late.h"
#include "nc/net/net.h"
#include "nc/net/yield.h"
#include "nc/shard/shard_map.h"

static NcLoopMethod method;

/* The system's memory is used up. */
static bool no_memory;

/* Instead of the library's; what the engine's stores grow by. */
void *
aligned_alloc(size_t alignment, size_t bytes)
{
	void	   *p;

	return !no_memory && posix_memalign(&p, alignment, bytes) == 0 ? p : NULL;
}

static int
use_uring(void **state)
{
	method = NC_LOOP_URING;
	return 0;
}

static int
use_epoll(void **state)
{
	method = NC_LOOP_EPOLL;
	return 0;
}

static World *
open_world(uint32_t nrings, uint32_t nservers)
{
	return world_open(method, nrings, nservers);
}

static void
expect_pages(World *w, const WorldRead *r)
{
	world_wait(w, r->ring, r->slot);
	assert_int_equal(world_collect(w, r->ring, r->slot), NC_SLOT_RESULT_OK);
	assert_true(world_pages_right(w, r));
}

/* Turns until a server holds so many requests back. */
static void
wait_held(World *w, const MockPs *server, uint32_t n)
{
	for (int i = 0; i < WORLD_TURNS_MAX && mock_ps_held(server) < n; i++)
		world_turn(w);
	if (mock_ps_held(server) < n)
		fail_msg("%u requests are held after %d turns; log:\n%s", mock_ps_held(server), WORLD_TURNS_MAX,
				 w->log);
}

/* ---- it works ---- */

static void
test_single_page(void **state)
{
	World	   *w = open_world(2, 1);
	WorldRead	r = {.ring = 1, .slot = 3, .rel = 100, .block = 7, .dest = 5};

	world_start(w);
	assert_string_equal(nc_engine_io_method(w->engine),
						method == NC_LOOP_URING ? "io_uring" : "epoll");
	world_submit(w, &r);
	expect_pages(w, &r);
	assert_int_equal(nc_engine_busy(w->engine), 0);
	assert_int_equal(world_counter(w, NC_COUNTER_PAGES_RECEIVED), 1);
	assert_int_equal(world_rows_in(w, NC_CONN_READY), 1);
	assert_string_equal(mock_ps_last_command(w->servers[0]),
						"pagestream_v3 11223344556677889900aabbccddeeff "
						"ffeeddccbbaa00998877665544332211");
	assert_string_equal(mock_ps_last_param(w->servers[0], "user"), "neon_comm");
	assert_string_equal(mock_ps_last_param(w->servers[0], "database"), "neon_comm");
	assert_string_equal(mock_ps_last_param(w->servers[0], "options"),
						"-c neon.compute_mode=primary -c neon_comm_identity=ab.cd");
	world_close(w);
}

typedef struct Forbidden
{
	World	   *w;
	bool		forbidden;
	NcEngine   *by_itself;
	NcEngine   *demanded;
	char		err[256];
} Forbidden;

/* A thread that may not set up an io_uring; only it, and for as long as it lives. */
static void *
create_forbidden(void *arg)
{
	Forbidden  *f = arg;
	World	   *w = f->w;
	NcHost		host = world_host(w);
	char		unused[256];
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)
	};
	struct sock_fprog program = {.len = sizeof(code) / sizeof(code[0]), .filter = code};

	f->forbidden = prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
		prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
	if (!f->forbidden)
		return NULL;
	f->demanded = nc_engine_create(&w->config, NC_LOOP_URING, &w->area, &w->counters, w->rows,
								   &host, NULL, 0, f->err, sizeof(f->err));
	f->by_itself = nc_engine_create(&w->config, NC_LOOP_AUTO, &w->area, &w->counters, w->rows,
									&host, NULL, 0, unused, sizeof(unused));
	return NULL;
}

/* Where io_uring is not allowed, as in many containers, epoll is used unless that was forbidden. */
static void
test_traced(void **state)
{
	World	   *w = open_world(2, 1);
	WorldRead	told = {.ring = 1, .slot = 3, .rel = 100, .block = 7, .dest = 5};
	WorldRead	untold = {.ring = 1, .slot = 4, .rel = 100, .block = 8, .dest = 6};
	WorldRead	not = {.ring = 0, .slot = 4, .rel = 100, .block = 9, .dest = 7};
	NcSlotTrace *t;
	NcTraceContext at;

	world_trace(w);
	nc_slot_trace(&w->area, 1, 3)->sampled = NC_TRACE_SAMPLED | NC_TRACE_TELL;
	memset(&nc_slot_trace(&w->area, 1, 3)->at, 0x11, sizeof(at));
	nc_slot_trace(&w->area, 1, 4)->sampled = NC_TRACE_SAMPLED;
	memset(&nc_slot_trace(&w->area, 1, 4)->at, 0x22, sizeof(at));
	world_start(w);
	world_submit(w, &told);
	world_submit(w, &untold);
	world_submit(w, &not);
	expect_pages(w, &told);
	expect_pages(w, &untold);
	expect_pages(w, &not);
	assert_int_equal(mock_ps_traced(w->servers[0], &at), 1);
	assert_memory_equal(&at, &nc_slot_trace(&w->area, 1, 3)->at, sizeof(at));
	for (uint32_t slot = 3; slot <= 4; slot++)
	{
		t = nc_slot_trace(&w->area, 1, slot);
		assert_true(t->reqid != 0 && t->taken_us != 0);
		assert_true(t->taken_us <= t->sent_us && t->sent_us <= t->received_us);
		assert_true(t->received_us <= t->reached_us && t->reached_us <= t->done_us);
	}
	assert_int_equal(nc_slot_trace(&w->area, 0, 4)->done_us, 0);
	assert_int_equal(w->traced, 0);
	world_close(w);
}

static void
test_uring_forbidden(void **state)
{
	World	   *w = world_open(NC_LOOP_AUTO, 1, 1);
	WorldRead	r = {.rel = 100, .block = 7};
	Forbidden	f = {.w = w};
	pthread_t	thread;

	assert_int_equal(pthread_create(&thread, NULL, create_forbidden, &f), 0);
	assert_int_equal(pthread_join(thread, NULL), 0);
	if (!f.forbidden)
	{
		world_close(w);
		skip();
	}
	assert_null(f.demanded);
	assert_non_null(strstr(f.err, "io_uring cannot be set up"));
	assert_non_null(f.by_itself);
	assert_non_null(strstr(w->log, "using epoll: io_uring cannot be set up"));
	w->engine = f.by_itself;
	assert_string_equal(nc_engine_io_method(w->engine), "epoll");
	nc_engine_set_shard_map(w->engine, &w->map);
	world_submit(w, &r);
	expect_pages(w, &r);
	world_close(w);
}

/* Work that is there at once is found without a sleep; when none comes, looking for it ends. */
static void
test_spinning(void **state)
{
	World	   *w = open_world(1, 1);
	uint64_t	lost;

	w->config.spin_us = 20;
	w->wait_ms = 1;
	world_start(w);
	/* here every second sleep is in vain, so it is tried now and then; and not in step with us */
	for (uint32_t i = 0; i < 500; i++)
	{
		WorldRead	r = {.rel = 100, .block = i};

		world_submit(w, &r);
		expect_pages(w, &r);
		if (i % 7 == 0)
			world_turns(w, 1);
	}
	assert_true(world_counter(w, NC_COUNTER_SPINS_WON) > 0);
	world_turns(w, 100);
	lost = world_counter(w, NC_COUNTER_SPINS_LOST);
	assert_true(lost > 0);
	world_turns(w, 100);
	assert_true(world_counter(w, NC_COUNTER_SPINS_LOST) - lost <= 2);
	world_close(w);

	w = open_world(1, 1);
	w->wait_ms = 1;
	world_start(w);
	world_turns(w, 20);
	assert_int_equal(world_counter(w, NC_COUNTER_SPINS_LOST), 0);
	world_close(w);
}

/* Who gets the processor back late, because somebody computes there, looks less and less often. */
static void
test_spinning_crowded(void **state)
{
	World	   *w = open_world(1, 1);
	uint64_t	lost;

	w->config.spin_us = 20;
	w->wait_ms = 1;
	world_start(w);
	lost = world_counter(w, NC_COUNTER_SPINS_LOST);
	w->clock_step_us = 1000;
	/* after 128, 256 and 512 sleeps; nine times if it was only in vain */
	world_turns(w, 1150);
	assert_in_range(world_counter(w, NC_COUNTER_SPINS_LOST) - lost, 2, 4);
	world_close(w);
}

static void
test_version_2(void **state)
{
	World	   *w = open_world(2, 1);
	WorldRead	r = {.rel = 100, .block = 7, .nblocks = 9};

	w->config.protocol_version = 2;
	world_start(w);
	world_submit(w, &r);
	expect_pages(w, &r);
	assert_non_null(strstr(mock_ps_last_command(w->servers[0]), "pagestream_v2 "));
	world_close(w);
}

/* A range over four shards with stripe 1: every block is somebody else's. */
static void
test_range_over_shards(void **state)
{
	World	   *w = open_world(2, 4);
	WorldRead	r = {.rel = 16384, .block = 1000, .nblocks = 32, .dest = 40};

	world_start(w);
	world_submit(w, &r);
	expect_pages(w, &r);
	for (uint32_t i = 0; i < 4; i++)
		assert_true(mock_ps_requests(w->servers[i]) > 0);
	assert_int_equal(world_counter(w, NC_COUNTER_PAGES_REQUESTED), 32);
	world_close(w);
}

static void
test_other_kinds(void **state)
{
	World	   *w = open_world(1, 4);
	WorldRead	r[] = {
		{.slot = 0, .kind = NC_SLOT_KIND_EXISTS, .rel = 100},
		{.slot = 1, .kind = NC_SLOT_KIND_EXISTS, .rel = 101},
		{.slot = 2, .kind = NC_SLOT_KIND_NBLOCKS, .rel = 100},
		{.slot = 3, .kind = NC_SLOT_KIND_DBSIZE, .rel = 0}
	};
	uint64_t	want[] = {1, 0, 107, 5 * NC_PAGE_BYTES};

	world_start(w);
	for (int i = 0; i < 4; i++)
		world_submit(w, &r[i]);
	for (uint32_t i = 0; i < 4; i++)
	{
		world_wait(w, 0, i);
		assert_int_equal(world_slot(w, 0, i)->value, want[i]);
		assert_int_equal(world_collect(w, 0, i), NC_SLOT_RESULT_OK);
	}
	assert_int_equal(mock_ps_requests(w->servers[0]), 4);
	world_close(w);
}

/* A wake only for who sleeps, and one for all that a turn completed. */
static void
test_wakes(void **state)
{
	World	   *w = open_world(2, 1);
	WorldRead	a = {.ring = 0, .slot = 0, .rel = 100, .block = 1, .dest = 0};
	WorldRead	b = {.ring = 1, .slot = 0, .rel = 100, .block = 2, .dest = 1};
	WorldRead	c = {.ring = 1, .slot = 1, .rel = 100, .block = 3, .dest = 2};

	world_start(w);
	atomic_store(&w->area.rings[1].client_asleep, 1);
	mock_ps_fault(w->servers[0], MOCK_HOLD, 0, 1);
	world_submit(w, &a);
	world_submit(w, &b);
	world_submit(w, &c);
	wait_held(w, w->servers[0], 3);
	mock_ps_release(w->servers[0]);
	expect_pages(w, &a);
	expect_pages(w, &b);
	expect_pages(w, &c);
	assert_int_equal(w->wakes, 1);
	assert_int_equal(world_counter(w, NC_COUNTER_WAKES), 1);
	world_close(w);
}

static void
test_password(void **state)
{
	World	   *w = open_world(1, 1);
	WorldRead	r = {.rel = 100, .block = 7};
	FILE	   *f;

	snprintf(w->config.token_file, sizeof(w->config.token_file), "/tmp/nc_token_XXXXXX");
	close(mkstemp(w->config.token_file));
	mock_ps_password(w->servers[0], "token-2");
	f = fopen(w->config.token_file, "w");
	fputs("token-1\n", f);
	fclose(f);
	world_start(w);
	world_submit(w, &r);
	world_wait_counter(w, NC_COUNTER_CONNECT_FAILURES, 1);
	assert_null(strstr(w->log, "token"));
	assert_non_null(strstr(w->log, "JWT authentication error"));

	/* the token rotates; it is read at each connect */
	f = fopen(w->config.token_file, "w");
	fputs("token-2\n", f);
	fclose(f);
	w->now_us += 2 * NC_BACKOFF_MAX_US;
	expect_pages(w, &r);
	assert_non_null(strstr(w->log, "works again"));
	unlink(w->config.token_file);
	world_close(w);
}

/* A name is resolved in a thread; its end wakes the loop. */
static void
test_host_name(void **state)
{
	World	   *w = open_world(1, 1);
	WorldRead	r = {.rel = 100, .block = 7};

	snprintf(w->map.conninfo[0], sizeof(w->map.conninfo[0]),
			 "postgresql://localhost:%u/?sslmode=disable", mock_ps_port(w->servers[0]));
	w->wait_ms = 1;
	world_start(w);
	world_submit(w, &r);
	world_wait(w, 0, 0);
	assert_int_equal(world_collect(w, 0, 0), NC_SLOT_RESULT_OK);
	assert_true(mock_page_is(w->dest, 0, &(NcRelKey) {1663, 5, 100, 0}, 7));
	world_close(w);
}

/* ---- what clients may get wrong ---- */

static void
expect_bad(World *w, const WorldRead *r)
{
	world_submit(w, r);
	world_wait(w, r->ring, r->slot);
	assert_int_equal(world_collect(w, r->ring, r->slot), NC_SLOT_RESULT_BAD_REQUEST);
}

static void
test_bad_requests(void **state)
{
	World	   *w = open_world(1, 1);
	NcSlot	   *s;

	world_start(w);
	expect_bad(w, &(WorldRead) {.rel = 1, .kind = (NcSlotKind) 9});
	expect_bad(w, &(WorldRead) {.rel = 1, .class = NC_SLOT_CLASS_AIO});
	expect_bad(w, &(WorldRead) {.rel = 1, .nblocks = 33});
	expect_bad(w, &(WorldRead) {.rel = 1, .nblocks = 2, .block = 0xfffffffe});
	expect_bad(w, &(WorldRead) {.rel = 1, .dest = WORLD_DEST_PAGES});
	expect_bad(w, &(WorldRead) {.rel = 1, .nblocks = 2, .dest = WORLD_DEST_PAGES - 1});
	expect_bad(w, &(WorldRead) {.rel = 1, .dest = NC_DEST_NONE});

	/* destinations beyond the ring's array */
	world_submit_quietly(w, &(WorldRead) {.rel = 1, .nblocks = 4});
	s = world_slot(w, 0, 0);
	s->dest_first = NC_RING_DESTS - 3;
	nc_ring_notify(&w->area, 0, 0);
	world_wait(w, 0, 0);
	assert_int_equal(world_collect(w, 0, 0), NC_SLOT_RESULT_BAD_REQUEST);
	assert_int_equal(mock_ps_requests(w->servers[0]), 0);
	assert_int_equal(nc_engine_busy(w->engine), 0);
	world_close(w);
}

static void
test_no_server(void **state)
{
	World	   *w = open_world(1, 1);
	WorldRead	r = {.rel = 100, .block = 7};

	w->map.shard_count = 0;
	world_start(w);
	world_submit(w, &r);
	world_wait(w, 0, 0);
	assert_int_equal(world_collect(w, 0, 0), NC_SLOT_RESULT_NO_SERVER);
	world_close(w);
}

/* ---- the end of requests is told ---- */

typedef struct Ends
{
	uint32_t	count;
	NcEnded		last;
} Ends;

static void
note_end(void *ctx, const NcEnded *ended)
{
	Ends	   *ends = ctx;

	ends->count++;
	ends->last = *ended;
}

/* Each request once, with what it asked, by which map, and how it ended. */
static void
test_ends_are_told(void **state)
{
	World	   *w = open_world(1, 4);
	WorldRead	r = {.rel = 100, .block = 1000, .nblocks = 32};
	WorldRead	length = {.kind = NC_SLOT_KIND_NBLOCKS, .rel = 100};
	Ends		ends = {0};

	world_start(w);
	nc_engine_tell_ends(w->engine, note_end, &ends);
	world_submit(w, &r);
	expect_pages(w, &r);
	assert_int_equal(ends.count, 1);
	assert_int_equal(ends.last.rel.rel, 100);
	assert_int_equal(ends.last.block, 1000);
	assert_int_equal(ends.last.nblocks, 32);
	assert_int_equal(ends.last.kind, NC_SLOT_KIND_GETPAGE);
	assert_int_equal(ends.last.class, NC_SLOT_CLASS_DEMAND);
	assert_int_equal(ends.last.result, NC_SLOT_RESULT_OK);
	assert_int_equal(ends.last.request_lsn, NC_LSN_MAX);
	assert_int_equal(ends.last.shards, 4);
	assert_int_equal(ends.last.stripe_blocks, w->map.stripe_blocks);
	assert_true(ends.last.ended_us > ends.last.submit_us && ends.last.ended_us <= w->now_us);
	assert_false(ends.last.cancelled || ends.last.promoted);

	world_submit(w, &length);
	world_wait(w, 0, 0);
	assert_int_equal(world_collect(w, 0, 0), NC_SLOT_RESULT_OK);
	assert_int_equal(ends.count, 2);
	assert_int_equal(ends.last.kind, NC_SLOT_KIND_NBLOCKS);
	assert_int_equal(ends.last.nblocks, 1);

	expect_bad(w, &(WorldRead) {.rel = 1, .nblocks = 33});
	assert_int_equal(ends.count, 3);
	assert_int_equal(ends.last.result, NC_SLOT_RESULT_BAD_REQUEST);

	/* given up on its way: told when its answer comes */
	r.nblocks = 1;
	for (int i = 0; i < 4; i++)
		mock_ps_fault(w->servers[i], MOCK_HOLD, 0, 1);
	world_submit(w, &r);
	world_turns(w, 50);
	assert_true(world_cancel(w, 0, 0));
	for (int i = 0; i < 4; i++)
		mock_ps_release(w->servers[i]);
	for (int i = 0; i < WORLD_TURNS_MAX && nc_engine_busy(w->engine) > 0; i++)
		world_turn(w);
	assert_int_equal(ends.count, 4);
	assert_true(ends.last.cancelled);

	nc_engine_tell_ends(w->engine, NULL, NULL);
	r.slot = 5;
	world_submit(w, &r);
	expect_pages(w, &r);
	assert_int_equal(ends.count, 4);
	world_close(w);
}

/* ---- cancellation ---- */

static void
test_cancel_before_take(void **state)
{
	World	   *w = open_world(1, 1);
	WorldRead	r = {.rel = 100, .block = 7};

	world_start(w);
	world_wait_counter(w, NC_COUNTER_CONNECTS, 1);
	world_submit(w, &r);
	assert_true(world_cancel(w, 0, 0));
	world_turns(w, 50);
	assert_int_equal(world_counter(w, NC_COUNTER_REQUESTS), 0);
	assert_int_equal(mock_ps_requests(w->servers[0]), 0);
	world_close(w);
}

/* Cancelled in flight, the slot and its buffer used again: the late page goes nowhere. */
static void
test_cancel_in_flight(void **state)
{
	World	   *w = open_world(1, 1);
	WorldRead	r = {.rel = 100, .block = 7, .dest = 0};
	WorldRead	again = {.rel = 200, .block = 9, .dest = 0};

	world_start(w);
	mock_ps_fault(w->servers[0], MOCK_HOLD, 0, 1);
	world_submit(w, &r);
	wait_held(w, w->servers[0], 1);
	assert_true(world_cancel(w, 0, 0));
	memset(w->dest, 0x5a, NC_PAGE_BYTES);
	world_submit(w, &again);
	wait_held(w, w->servers[0], 2);
	mock_ps_release(w->servers[0]);
	expect_pages(w, &again);
	assert_int_equal(world_counter(w, NC_COUNTER_LATE_ANSWERS), 1);
	assert_int_equal(nc_engine_busy(w->engine), 0);
	world_close(w);
}

/* A range of which some pages are here is cancelled: nothing of it is written. */
static void
test_cancel_half_a_range(void **state)
{
	World	   *w = open_world(1, 1);
	WorldRead	r = {.rel = 100, .block = 7, .nblocks = 6, .dest = 0};

	world_start(w);
	mock_ps_fault(w->servers[0], MOCK_HOLD, 3, 1);
	world_submit(w, &r);
	world_wait_counter(w, NC_COUNTER_PAGES_RECEIVED, 3);
	memset(w->dest, 0x5a, 6 * NC_PAGE_BYTES);
	assert_true(world_cancel(w, 0, 0));
	mock_ps_release(w->servers[0]);
	world_wait_counter(w, NC_COUNTER_LATE_ANSWERS, 3);
	for (size_t i = 0; i < 6 * NC_PAGE_BYTES; i++)
		assert_int_equal(w->dest[i], 0x5a);
	assert_int_equal(nc_engine_busy(w->engine), 0);
	world_close(w);
}

/* Cancelled while the server is away: the queue is emptied by the watchdog's sweep. */
static void
test_cancel_queued(void **state)
{
	World	   *w = open_world(1, 1);
	WorldRead	r = {.rel = 100, .block = 7, .nblocks = 32};

	mock_ps_down(w->servers[0]);
	world_start(w);
	world_submit(w, &r);
	world_turns(w, 20);
	assert_int_equal(nc_engine_busy(w->engine), 1);
	assert_true(world_cancel(w, 0, 0));
	w->now_us += 1100000;
	world_turns(w, 2);
	assert_int_equal(nc_engine_busy(w->engine), 0);
	mock_ps_up(w->servers[0]);
	w->now_us += 2000000;
	world_wait_counter(w, NC_COUNTER_CONNECTS, 1);
	world_turns(w, 20);
	assert_int_equal(mock_ps_requests(w->servers[0]), 0);
	world_close(w);
}

/* Cancelled between two sweeps, the server comes back: it is not asked. */
static void
test_cancel_not_sent(void **state)
{
	World	   *w = open_world(2, 1);
	WorldRead	r = {.ring = 0, .rel = 100, .block = 7};
	WorldRead	other = {.ring = 1, .rel = 200, .block = 8, .dest = 1};

	mock_ps_down(w->servers[0]);
	world_start(w);
	world_submit(w, &r);
	world_submit(w, &other);
	world_turns(w, 3);
	assert_true(world_cancel(w, 0, 0));
	mock_ps_up(w->servers[0]);
	expect_pages(w, &other);
	assert_int_equal(mock_ps_requests(w->servers[0]), 1);
	assert_int_equal(nc_engine_busy(w->engine), 0);
	world_close(w);
}

/* Cancelled behind one that is still wanted, while the server is away: swept. */
static void
test_cancel_swept(void **state)
{
	World	   *w = open_world(2, 1);
	WorldRead	r = {.ring = 0, .rel = 100, .block = 7};
	WorldRead	other = {.ring = 1, .rel = 200, .block = 8, .nblocks = 32};

	mock_ps_down(w->servers[0]);
	world_start(w);
	world_submit(w, &r);
	world_turns(w, 3);
	world_submit(w, &other);
	world_turns(w, 3);
	assert_true(world_cancel(w, 1, 0));
	assert_int_equal(nc_engine_busy(w->engine), 2);
	w->now_us += 1100000;
	world_turns(w, 2);
	assert_int_equal(nc_engine_busy(w->engine), 1);
	world_close(w);
}

/* ---- page servers that fail ---- */

/* What is sent again comes first, and in its order. */
static void
test_resend_order(void **state)
{
	World	   *w = open_world(1, 1);
	WorldRead	r = {.rel = 100, .block = 50, .nblocks = 20};
	uint32_t	before;

	w->config.connections_per_shard_max = 1;
	w->config.depth_max = 6;
	world_start(w);
	mock_ps_fault(w->servers[0], MOCK_HOLD, 0, 1);
	world_submit(w, &r);
	wait_held(w, w->servers[0], 6);
	before = mock_ps_requests(w->servers[0]);
	mock_ps_drop_all(w->servers[0]);
	expect_pages(w, &r);
	for (uint32_t i = 0; i < 20; i++)
		assert_int_equal(mock_ps_block_of_request(w->servers[0], before + i), 50 + i);
	assert_int_equal(world_counter(w, NC_COUNTER_RESENT), 6);
	world_close(w);
}

static void
lost_and_resent(MockFault fault, NcCounter counter)
{
	World	   *w = open_world(1, 1);
	WorldRead	r = {.rel = 100, .block = 7, .nblocks = 8, .dest = 3};

	w->config.connections_per_shard_max = 1;
	world_start(w);
	mock_ps_fault(w->servers[0], fault, 2, 1);
	world_submit(w, &r);
	world_wait_counter(w, counter, 1);
	w->now_us += NC_BACKOFF_MAX_US;
	expect_pages(w, &r);
	assert_int_equal(world_counter(w, counter), 1);
	assert_true(world_counter(w, NC_COUNTER_RESENT) > 0);
	assert_int_equal(world_counter(w, NC_COUNTER_DISCONNECTS), 1);
	assert_int_equal(world_counter(w, NC_COUNTER_CONNECTS), 2);
	assert_int_equal(world_rows_in(w, NC_CONN_READY), 1);
	assert_int_equal(world_rows_in(w, NC_CONN_CLOSING), 0);
	world_close(w);
}

static void
test_lost(void **state)
{
	lost_and_resent(MOCK_CLOSE, NC_COUNTER_DISCONNECTS);
}

static void
test_lost_mid_frame(void **state)
{
	lost_and_resent(MOCK_CLOSE_MID_FRAME, NC_COUNTER_DISCONNECTS);
}

static void
test_stream_error(void **state)
{
	lost_and_resent(MOCK_STREAM_ERROR, NC_COUNTER_DISCONNECTS);
}

static void
test_poison_wrong_id(void **state)
{
	lost_and_resent(MOCK_WRONG_ID, NC_COUNTER_POISONED);
}

static void
test_poison_wrong_block(void **state)
{
	lost_and_resent(MOCK_WRONG_BLOCK, NC_COUNTER_POISONED);
}

static void
test_poison_wrong_tag(void **state)
{
	lost_and_resent(MOCK_WRONG_TAG, NC_COUNTER_POISONED);
}

static void
test_poison_swapped(void **state)
{
	lost_and_resent(MOCK_SWAP, NC_COUNTER_POISONED);
}

static void
test_poison_garbage(void **state)
{
	lost_and_resent(MOCK_GARBAGE, NC_COUNTER_POISONED);
}

static void
test_poison_length(void **state)
{
	lost_and_resent(MOCK_LONG_FRAME, NC_COUNTER_POISONED);
}

/* The last answer comes twice: the second has no request. */
static void
test_poison_unasked(void **state)
{
	World	   *w = open_world(1, 1);
	WorldRead	r = {.rel = 100, .block = 7};

	world_start(w);
	mock_ps_fault(w->servers[0], MOCK_UNASKED, 0, 1);
	world_submit(w, &r);
	expect_pages(w, &r);
	world_wait_counter(w, NC_COUNTER_POISONED, 1);
	assert_non_null(strstr(w->log, "nobody asked for"));
	world_close(w);
}

static void
test_stream_error_text(void **state)
{
	World	   *w = open_world(1, 1);
	WorldRead	r = {.rel = 100, .block = 7};

	world_start(w);
	mock_ps_fault(w->servers[0], MOCK_STREAM_ERROR, 0, 1);
	world_submit(w, &r);
	world_wait_counter(w, NC_COUNTER_DISCONNECTS, 1);
	assert_non_null(strstr(w->log, "shutdown (SQLSTATE 57P01)"));
	world_close(w);
}

/* A prefetch is not sent again: nobody waits for it. */
static void
test_prefetch_dropped(void **state)
{
	World	   *w = open_world(1, 1);
	WorldRead	p = {.slot = 40, .class = NC_SLOT_CLASS_PREFETCH, .rel = 100, .block = 7,
	.dest = NC_DEST_NONE};
	WorldRead	r = {.slot = 0, .rel = 100, .block = 8};

	w->config.connections_per_shard_max = 1;
	world_start(w);
	mock_ps_fault(w->servers[0], MOCK_HOLD, 0, 1);
	world_submit(w, &p);
	world_submit(w, &r);
	wait_held(w, w->servers[0], 2);
	mock_ps_drop_all(w->servers[0]);
	world_wait(w, 0, 40);
	assert_int_equal(world_collect(w, 0, 40), NC_SLOT_RESULT_UNREACHABLE);
	expect_pages(w, &r);
	assert_int_equal(world_counter(w, NC_COUNTER_RESENT), 1);
	world_close(w);
}

static void
test_prefetch_answered(void **state)
{
	World	   *w = open_world(1, 1);
	WorldRead	p = {.slot = 40, .class = NC_SLOT_CLASS_PREFETCH, .rel = 100, .block = 7,
	.nblocks = 5, .dest = NC_DEST_NONE};

	world_start(w);
	world_submit(w, &p);
	world_wait(w, 0, 40);
	assert_int_equal(world_collect(w, 0, 40), NC_SLOT_RESULT_OK);
	world_close(w);
}

/* The silent connection is abandoned, its requests move to the next one in their order. */
static void
test_silent(void **state)
{
	World	   *w = open_world(1, 1);
	WorldRead	r = {.rel = 100, .block = 7, .nblocks = 5};

	w->config.silence_timeout_ms = 2000;
	world_start(w);
	mock_ps_fault(w->servers[0], MOCK_SILENT, 1, 1);
	world_submit(w, &r);
	world_wait_counter(w, NC_COUNTER_PAGES_RECEIVED, 1);
	world_turns(w, 100);
	assert_int_equal(world_counter(w, NC_COUNTER_SILENT), 0);
	w->now_us += 2000000;
	expect_pages(w, &r);
	assert_int_equal(world_counter(w, NC_COUNTER_SILENT), 1);
	assert_int_equal(world_counter(w, NC_COUNTER_RESENT), 4);
	world_close(w);
}

/*
 * A server that throttles answers in the end: each answer gives it time for the
 * next, and no other connection is opened because it takes long.
 */
static void
test_throttled(void **state)
{
	World	   *w = open_world(1, 1);
	WorldRead	r = {.rel = 100, .block = 7, .nblocks = 8};

	w->config.silence_timeout_ms = 2000;
	world_start(w);
	mock_ps_fault(w->servers[0], MOCK_HOLD, 0, 1);
	world_submit(w, &r);
	while (mock_ps_held(w->servers[0]) < 8)
		world_turn(w);
	for (uint32_t i = 0; i < 8; i++)
	{
		w->now_us += 1500000;
		world_turns(w, 5);
		mock_ps_release_some(w->servers[0], 1);
		world_wait_counter(w, NC_COUNTER_PAGES_RECEIVED, i + 1);
	}
	expect_pages(w, &r);
	assert_int_equal(world_counter(w, NC_COUNTER_SILENT), 0);
	assert_int_equal(world_counter(w, NC_COUNTER_RESENT), 0);
	assert_int_equal(mock_ps_accepted(w->servers[0]), 1);
	world_close(w);
}

static void
test_error_text(void **state)
{
	World	   *w = open_world(1, 1);
	WorldRead	r = {.slot = 6, .rel = 100, .block = 7};
	WorldRead	next = {.slot = 7, .rel = 100, .block = 8};
	char		want[128];
	char		huge[500];

	world_start(w);
	mock_ps_error_text(w->servers[0], "Read error:\n\tlayer is lost");
	mock_ps_fault(w->servers[0], MOCK_ERROR, 0, 1);
	world_submit(w, &r);
	world_wait(w, 0, 6);
	assert_int_equal(world_collect(w, 0, 6), NC_SLOT_RESULT_PS_ERROR);
	snprintf(want, sizeof(want), "shard 0 (127.0.0.1:%u): Read error: layer is lost",
			 mock_ps_port(w->servers[0]));
	assert_string_equal(w->area.rings[0].errors[6], want);
	assert_int_equal(world_counter(w, NC_COUNTER_PS_ERRORS), 1);

	/* the stream goes on, and a long text is cut */
	memset(huge, 'x', sizeof(huge) - 1);
	huge[sizeof(huge) - 1] = '\0';
	mock_ps_error_text(w->servers[0], huge);
	mock_ps_fault(w->servers[0], MOCK_ERROR, 0, 1);
	world_submit(w, &r);
	world_wait(w, 0, 6);
	assert_int_equal(world_collect(w, 0, 6), NC_SLOT_RESULT_PS_ERROR);
	assert_true(strlen(w->area.rings[0].errors[6]) >= NC_RING_ERROR_BYTES - 2);
	world_submit(w, &next);
	expect_pages(w, &next);
	assert_int_equal(world_counter(w, NC_COUNTER_DISCONNECTS), 0);
	world_close(w);
}

/* Requests of one process fail in one turn: each has its own text, and none keeps that of an earlier life. */
static void
test_texts_apart(void **state)
{
	World	   *w = open_world(1, 1);
	WorldRead	a = {.slot = 0, .rel = 100, .block = 5};
	WorldRead	b = {.slot = 1, .rel = 100, .block = 6};
	WorldRead	ahead = {.slot = 40, .class = NC_SLOT_CLASS_PREFETCH, .rel = 100, .block = 64,
		.nblocks = 4};
	WorldRead	bad = {.slot = 0, .rel = 100, .block = 7, .dest = WORLD_DEST_PAGES};

	w->config.connections_per_shard_max = 1;
	world_start(w);
	mock_ps_fault(w->servers[0], MOCK_ERROR, 0, 1);
	mock_ps_error_text(w->servers[0], "one");
	world_submit(w, &a);
	world_wait(w, 0, 0);
	mock_ps_fault(w->servers[0], MOCK_ERROR, 0, 2);
	mock_ps_error_text(w->servers[0], "two");
	world_submit(w, &b);
	world_submit(w, &ahead);
	world_wait(w, 0, 1);
	world_wait(w, 0, 40);
	assert_non_null(strstr(w->area.rings[0].errors[0], ": one"));
	assert_non_null(strstr(w->area.rings[0].errors[1], ": two"));
	(void) world_collect(w, 0, 0);
	world_submit(w, &bad);
	world_wait(w, 0, 0);
	assert_int_equal(world_collect(w, 0, 0), NC_SLOT_RESULT_BAD_REQUEST);
	assert_null(strstr(w->area.rings[0].errors[0], ": one"));
	assert_non_null(strstr(w->area.rings[0].errors[1], ": two"));
	world_close(w);
}

/* One block of a range fails: the slot ends at once, the other answers are ignored. */
static void
test_error_in_range(void **state)
{
	World	   *w = open_world(1, 1);
	WorldRead	r = {.rel = 100, .block = 7, .nblocks = 8};

	world_start(w);
	mock_ps_fault(w->servers[0], MOCK_ERROR, 3, 2);
	world_submit(w, &r);
	world_wait(w, 0, 0);
	assert_int_equal(world_collect(w, 0, 0), NC_SLOT_RESULT_PS_ERROR);
	world_submit(w, &r);
	expect_pages(w, &r);
	assert_int_equal(nc_engine_busy(w->engine), 0);
	assert_int_equal(world_counter(w, NC_COUNTER_LATE_ANSWERS), 0);
	world_close(w);
}

/* "Not now" is asked again until it is now; the trouble is shown while it lasts, told once. */
static void
test_transient_error(void **state)
{
	World	   *w = open_world(1, 1);
	WorldRead	r = {.slot = 6, .rel = 100, .block = 7};
	WorldRead	p = {.slot = 40, .class = NC_SLOT_CLASS_PREFETCH, .rel = 100, .block = 8,
	.dest = NC_DEST_NONE};
	uint32_t	lines = 0;

	world_start(w);
	mock_ps_error_text(w->servers[0], "LSN timeout: WAL is late");
	mock_ps_fault(w->servers[0], MOCK_ERROR, 0, 5);
	world_submit(w, &r);
	world_wait_counter(w, NC_COUNTER_PS_ERRORS, 4);
	assert_int_equal(world_state(w, 0, 6), NC_SLOT_TAKEN);
	assert_string_equal(w->rows[0].last_error, "LSN timeout: WAL is late");
	assert_int_equal(w->rows[0].failures, 4);
	expect_pages(w, &r);
	assert_int_equal(world_counter(w, NC_COUNTER_PS_ERRORS), 5);
	assert_int_equal(world_counter(w, NC_COUNTER_DISCONNECTS), 0);
	assert_string_equal(w->rows[0].last_error, "");
	for (char *at = w->log; (at = strstr(at, "LSN timeout")) != NULL; at++)
		lines++;
	assert_int_equal(lines, 1);
	assert_non_null(strstr(w->log, "works again after 5 failures"));

	/* nobody waits for a prefetch */
	mock_ps_fault(w->servers[0], MOCK_ERROR, 0, 1);
	world_submit(w, &p);
	world_wait(w, 0, 40);
	assert_int_equal(world_collect(w, 0, 40), NC_SLOT_RESULT_UNREACHABLE);
	world_close(w);
}

/* The pauses grow to a second, a cancel ends them, and so does a new map. */
static void
test_transient_pauses(void **state)
{
	World	   *w = open_world(1, 2);
	WorldRead	r = {.slot = 6, .rel = 100, .block = 7};
	uint64_t	errors;

	world_map(w, 1, 8);
	world_start(w);
	mock_ps_error_text(w->servers[0], "not ready: recovery is not consistent yet");
	mock_ps_fault(w->servers[0], MOCK_ERROR, 0, 1000000);
	world_submit(w, &r);
	for (int i = 0; i < 1000; i++)
	{
		w->now_us += 10000;
		world_turn(w);
	}
	errors = world_counter(w, NC_COUNTER_PS_ERRORS);
	assert_in_range(errors, 10, 25);

	/* cancelled while it waits to be asked again: gone at the next look at everything */
	assert_true(world_cancel(w, 0, 6));
	w->now_us += 2000000;
	world_turns(w, 10);
	assert_int_equal(nc_engine_busy(w->engine), 0);
	assert_true(world_counter(w, NC_COUNTER_PS_ERRORS) <= errors + 1);

	/* moved to another server: asked there at once, whatever the pause was */
	world_submit(w, &r);
	world_wait_counter(w, NC_COUNTER_PS_ERRORS, errors + 2);
	world_map(w, 2, 8);
	memcpy(w->map.conninfo[0], w->map.conninfo[1], sizeof(w->map.conninfo[0]));
	w->map.shard_count = 1;
	nc_engine_set_shard_map(w->engine, &w->map);
	world_wait(w, 0, 6);
	assert_int_equal(world_collect(w, 0, 6), NC_SLOT_RESULT_OK);
	assert_int_equal(mock_ps_requests(w->servers[1]), 1);
	world_close(w);
}

/* Between two refusals a connection has nothing in flight: that it stands proves nothing. */
static void
test_refused_stands(void **state)
{
	World	   *w = open_world(1, 1);
	WorldRead	r = {.slot = 6, .rel = 100, .block = 7};

	mock_ps_error_text(w->servers[0], "not ready: recovery is not consistent yet");
	mock_ps_fault(w->servers[0], MOCK_ERROR, 0, 1000000);
	world_start(w);
	world_submit(w, &r);
	world_wait_counter(w, NC_COUNTER_PS_ERRORS, 1);
	for (int i = 0; i < 1000; i++)
	{
		w->now_us += 10000;
		world_turn(w);
		assert_string_equal(w->rows[0].last_error, "not ready: recovery is not consistent yet");
		assert_int_equal(w->rows[0].failures, world_counter(w, NC_COUNTER_PS_ERRORS));
	}

	/* who waited has left: nothing better is known of this connection */
	assert_true(world_cancel(w, 0, 6));
	w->now_us += 10 * NC_AGAIN_MAX_US;
	world_turns(w, 100);
	assert_int_equal(nc_engine_busy(w->engine), 0);
	assert_string_equal(w->rows[0].last_error, "not ready: recovery is not consistent yet");
	assert_null(strstr(w->log, "again"));

	/* of a new one something is: it stands, and nobody was refused over it */
	mock_ps_drop_all(w->servers[0]);
	world_wait_counter(w, NC_COUNTER_CONNECTS, 2);
	w->now_us += 2 * NC_AGAIN_MAX_US;
	world_turns(w, 10);
	assert_string_equal(w->rows[0].last_error, "");
	assert_non_null(strstr(w->log, "connected again, nothing asked yet, after"));
	world_close(w);
}

/* Nor that another one stands, over which nothing was asked. */
static void
test_refused_elsewhere(void **state)
{
	World	   *w = open_world(1, 1);
	WorldRead	first = {.slot = 1, .rel = 100, .block = 7};
	WorldRead	second = {.slot = 2, .rel = 100, .block = 8};
	WorldRead	third = {.slot = 3, .rel = 100, .block = 9};

	w->config.depth_max = 1;
	mock_ps_error_text(w->servers[0], "not ready: recovery is not consistent yet");
	mock_ps_fault(w->servers[0], MOCK_HOLD, 0, 1);
	mock_ps_fault(w->servers[0], MOCK_ERROR, 0, 1000000);
	world_start(w);
	world_submit(w, &first);
	wait_held(w, w->servers[0], 1);
	/* the connection that is made for it is not needed any more */
	world_submit(w, &second);
	for (int i = 0; i < WORLD_TURNS_MAX && world_rows_in(w, NC_CONN_READY) + world_rows_in(w, NC_CONN_CONNECTING) < 2; i++)
		world_turn(w);
	assert_true(world_cancel(w, 0, 2));
	world_wait_counter(w, NC_COUNTER_CONNECTS, 2);
	mock_ps_release(w->servers[0]);
	world_wait(w, 0, 1);
	assert_int_equal(mock_ps_requests(w->servers[0]), 1);
	world_submit(w, &third);
	world_wait_counter(w, NC_COUNTER_PS_ERRORS, 1);
	for (int i = 0; i < 1000; i++)
	{
		w->now_us += 10000;
		world_turn(w);
		assert_string_equal(w->rows[0].last_error, "not ready: recovery is not consistent yet");
	}
	assert_null(strstr(w->log, "again"));
	world_close(w);
}

/* "Not mine" may be a map that is about to change, but only for some seconds. */
static void
test_misrouted(void **state)
{
	World	   *w = open_world(1, 1);
	WorldRead	r = {.slot = 6, .rel = 100, .block = 7};

	world_start(w);
	mock_ps_error_text(w->servers[0], "wrong shard: block 7 belongs to shard 1");
	mock_ps_fault(w->servers[0], MOCK_ERROR, 0, 3);
	world_submit(w, &r);
	expect_pages(w, &r);

	mock_ps_fault(w->servers[0], MOCK_ERROR, 0, 1000000);
	world_submit(w, &r);
	world_turns(w, 500);
	assert_int_equal(world_state(w, 0, 6), NC_SLOT_TAKEN);
	for (int i = 0; i < 30 && world_state(w, 0, 6) == NC_SLOT_TAKEN; i++)
	{
		w->now_us += 1000000;
		world_turns(w, 20);
	}
	assert_int_equal(world_state(w, 0, 6), NC_SLOT_DONE);
	assert_int_equal(world_collect(w, 0, 6), NC_SLOT_RESULT_PS_ERROR);
	assert_non_null(strstr(w->area.rings[0].errors[6], ", attempt "));
	assert_non_null(strstr(w->area.rings[0].errors[6], "wrong shard: block 7"));
	world_close(w);
}

/* ---- answers that stall ---- */

/* So many turns are later than late. */
#define LATE_TURNS (2 * NC_LATE_UNKNOWN_US / WORLD_TURN_US)

/* A world that has read some pages, with a connection for the foreground to spare. */
static World *
open_hedging(uint32_t connections)
{
	World	   *w = open_world(2, 1);

	w->config.connections_per_shard_max = connections;
	w->config.depth_max = 1;
	w->config.hedged_reads = true;
	w->config.silence_timeout_ms = 3600000;
	world_start(w);
	for (uint32_t i = 0; i < 8; i++)
	{
		WorldRead	a = {.ring = 0, .rel = 100, .block = i, .dest = 0};
		WorldRead	b = {.ring = 1, .rel = 100, .block = i, .dest = 1};

		world_submit(w, &a);
		world_submit(w, &b);
		expect_pages(w, &a);
		expect_pages(w, &b);
	}
	return w;
}

/* An answer stalls half-way: the page comes over another connection, and what comes later is dropped. */
static void
test_stalled(void **state)
{
	World	   *w = open_hedging(4);
	WorldRead	r = {.rel = 100, .block = 50, .dest = 4};
	WorldRead	next = {.rel = 100, .block = 51, .dest = 5};

	mock_ps_fault(w->servers[0], MOCK_STALL, 0, 1);
	world_submit(w, &r);
	expect_pages(w, &r);
	assert_int_equal(world_counter(w, NC_COUNTER_HEDGED), 1);
	assert_int_equal(world_counter(w, NC_COUNTER_HEDGED_LATE), 0);
	assert_int_equal(world_counter(w, NC_COUNTER_DISCONNECTS), 0);
	/* nothing new is put behind it */
	for (int i = 0; i < 20; i++)
	{
		world_submit(w, &next);
		expect_pages(w, &next);
	}
	assert_int_equal(world_counter(w, NC_COUNTER_HEDGED), 1);
	mock_ps_go_on(w->servers[0]);
	world_wait_counter(w, NC_COUNTER_HEDGED_LATE, 1);
	assert_int_equal(world_counter(w, NC_COUNTER_LATE_ANSWERS), 0);
	assert_true(world_pages_right(w, &r));
	assert_int_equal(nc_engine_busy(w->engine), 0);
	world_close(w);
}

/* A range: its pages are counted once, whichever answers come. */
static void
test_stalled_range(void **state)
{
	World	   *w = open_hedging(4);
	WorldRead	r = {.rel = 100, .block = 40, .nblocks = 3, .dest = 8};

	mock_ps_fault(w->servers[0], MOCK_STALL, 0, 1);
	world_submit(w, &r);
	expect_pages(w, &r);
	mock_ps_go_on(w->servers[0]);
	world_wait_counter(w, NC_COUNTER_HEDGED_LATE, 1);
	world_turns(w, 10);
	assert_int_equal(nc_engine_busy(w->engine), 0);
	world_close(w);
}

/* No byte of the answer is here, and the WAL it needs may not be there: the copy would wait as long. */
static void
test_not_hedged_for_wal(void **state)
{
	World	   *w = open_hedging(4);
	WorldRead	waits = {.rel = 100, .block = 50, .dest = 4};
	WorldRead	known = {.ring = 1, .rel = 100, .block = 51, .dest = 5};

	mock_ps_fault(w->servers[0], MOCK_HOLD, 0, 1);
	world_submit_quietly(w, &waits);
	world_slot(w, 0, 0)->not_modified_since = 0x2000;
	(void) nc_ring_notify(&w->area, 0, 0);
	world_turns(w, LATE_TURNS);
	assert_int_equal(world_counter(w, NC_COUNTER_HEDGED), 0);
	/* what was asked with an LSN that has been answered is not late because of WAL */
	mock_ps_fault(w->servers[0], MOCK_HOLD, 0, 1);
	world_submit(w, &known);
	expect_pages(w, &known);
	assert_int_equal(world_counter(w, NC_COUNTER_HEDGED), 1);
	mock_ps_release(w->servers[0]);
	expect_pages(w, &waits);

	/* of another timeline nothing is known */
	w->config.timeline_id[0] ^= 1;
	nc_engine_configure(w->engine, &w->config);
	mock_ps_fault(w->servers[0], MOCK_HOLD, 0, 1);
	world_submit(w, &known);
	world_turns(w, LATE_TURNS);
	assert_int_equal(world_counter(w, NC_COUNTER_HEDGED), 1);
	mock_ps_release(w->servers[0]);
	expect_pages(w, &known);
	world_close(w);
}

/* The other connection is lost, or only one is allowed: nothing is lost with it, nothing is asked in vain. */
static void
test_hedge_lost(void **state)
{
	World	   *w = open_hedging(4);
	WorldRead	r = {.rel = 100, .block = 50, .dest = 4};

	mock_ps_fault(w->servers[0], MOCK_STALL, 0, 1);
	mock_ps_fault(w->servers[0], MOCK_CLOSE, 0, 1);
	world_submit(w, &r);
	expect_pages(w, &r);
	assert_int_equal(world_counter(w, NC_COUNTER_HEDGED), 2);
	world_close(w);

	w = open_hedging(1);
	mock_ps_fault(w->servers[0], MOCK_STALL, 0, 1);
	world_submit(w, &r);
	world_turns(w, LATE_TURNS);
	assert_int_equal(world_counter(w, NC_COUNTER_HEDGED), 0);
	mock_ps_go_on(w->servers[0]);
	expect_pages(w, &r);
	world_close(w);
}

/* Every answer stalls: one request in twenty is sent twice, no more. */
static void
test_hedge_budget(void **state)
{
	World	   *w = open_hedging(8);
	WorldRead	r = {.rel = 100, .dest = 4};
	uint32_t	n;

	for (n = 0; n < NC_LATE_BURST; n++)
	{
		r.block = n;
		mock_ps_fault(w->servers[0], MOCK_STALL, 0, 1);
		world_submit(w, &r);
		expect_pages(w, &r);
		mock_ps_go_on(w->servers[0]);
		world_turns(w, 10);
	}
	assert_int_equal(world_counter(w, NC_COUNTER_HEDGED), NC_LATE_BURST);
	mock_ps_fault(w->servers[0], MOCK_STALL, 0, 1);
	world_submit(w, &r);
	world_turns(w, LATE_TURNS);
	assert_int_equal(world_state(w, 0, 0), NC_SLOT_TAKEN);
	assert_int_equal(world_counter(w, NC_COUNTER_HEDGED), NC_LATE_BURST);
	/* others pay */
	for (n = 0; n < NC_LATE_PRICE; n++)
	{
		WorldRead	other = {.ring = 1, .rel = 100, .block = n, .dest = 5};

		world_submit(w, &other);
		expect_pages(w, &other);
	}
	expect_pages(w, &r);
	assert_int_equal(world_counter(w, NC_COUNTER_HEDGED), NC_LATE_BURST + 1);
	world_close(w);
}

/* ---- connecting ---- */

/* A shard that refuses and that nobody asks is seen all the same, and its end too. */
static void
test_idle_refusing(void **state)
{
	World	   *w = open_world(1, 1);

	mock_ps_down(w->servers[0]);
	world_start(w);
	world_wait_counter(w, NC_COUNTER_CONNECT_FAILURES, 1);
	for (int i = 0; i < 300; i++)
	{
		w->now_us += 10000;
		world_turn(w);
		assert_int_equal(world_rows_in(w, NC_CONN_BACKOFF) +
						 world_rows_in(w, NC_CONN_CONNECTING), 1);
	}
	assert_non_null(strstr(w->rows[0].last_error, "refused"));
	assert_true(w->rows[0].failures > 3);
	mock_ps_up(w->servers[0]);
	w->now_us += 2 * NC_BACKOFF_MAX_US;
	world_wait_counter(w, NC_COUNTER_CONNECTS, 1);
	/* that it stands proves it after a while, since nobody asks */
	w->now_us += 2000000;
	world_turns(w, 5);
	assert_int_equal(world_rows_in(w, NC_CONN_READY), 1);
	assert_string_equal(w->rows[0].last_error, "");
	assert_int_equal(w->rows[0].failures, 0);
	world_close(w);
}

/* Attempts thin out to about one a second, messages to one in five seconds. */
static void
test_back_off(void **state)
{
	World	   *w = open_world(1, 1);
	WorldRead	r = {.rel = 100, .block = 7};
	uint64_t	first;
	uint32_t	lines = 0;

	mock_ps_down(w->servers[0]);
	world_start(w);
	world_submit(w, &r);
	for (int i = 0; i < 1000; i++)
	{
		w->now_us += 10000;
		world_turn(w);
	}
	first = world_counter(w, NC_COUNTER_CONNECT_FAILURES);
	assert_true(first >= 15 && first <= 40);
	for (char *at = w->log; (at = strstr(at, "cannot connect")) != NULL; at++)
		lines++;
	assert_true(lines >= 2 && lines <= 3);
	assert_non_null(strstr(w->log, "1 requests waiting"));
	assert_int_equal(world_rows_in(w, NC_CONN_BACKOFF), 1);
	assert_non_null(strstr(w->rows[0].last_error, "refused"));

	/* a success resets it: the next loss is repaired within milliseconds */
	mock_ps_up(w->servers[0]);
	w->now_us += 2000000;
	expect_pages(w, &r);
	assert_non_null(strstr(w->log, "works again"));
	mock_ps_drop_all(w->servers[0]);
	world_wait_counter(w, NC_COUNTER_DISCONNECTS, 1);
	world_turns(w, 40);
	assert_int_equal(world_counter(w, NC_COUNTER_CONNECTS), 2);
	world_close(w);
}

/*
 * A shard that has moved away accepts connections and ends them when it is asked: that it
 * can be reached is no sign that it works, and what its answer means is said.
 */
static void
test_moved_away(void **state)
{
	World	   *w = open_world(1, 1);
	WorldRead	r = {.rel = 100, .block = 7};

	mock_ps_error_text(w->servers[0], "reconnect");
	mock_ps_fault(w->servers[0], MOCK_STREAM_ERROR, 0, 3);
	world_start(w);
	world_submit(w, &r);
	for (int i = 0; i < WORLD_TURNS_MAX && world_counter(w, NC_COUNTER_DISCONNECTS) < 3; i++)
	{
		w->now_us += 10000;
		world_turn(w);
	}
	assert_int_equal(world_counter(w, NC_COUNTER_DISCONNECTS), 3);
	assert_non_null(strstr(w->log, "reconnect (SQLSTATE 08006): this tenant or shard is not"));
	mock_ps_fault(w->servers[0], MOCK_HOLD, 0, 1);
	w->now_us += 2 * NC_BACKOFF_MAX_US;
	wait_held(w, w->servers[0], 1);

	/* connected for long enough, but what it was asked is not answered */
	for (int i = 0; i < 300; i++)
	{
		w->now_us += 10000;
		world_turn(w);
	}
	assert_null(strstr(w->log, "again after"));
	assert_true(w->rows[0].failures > 0);
	mock_ps_release(w->servers[0]);
	expect_pages(w, &r);
	assert_non_null(strstr(w->log, "works again after 3 failures"));
	world_close(w);
}

static void
door_fails(MockDoor door, const char *text, uint64_t advance_us)
{
	World	   *w = open_world(1, 1);
	WorldRead	r = {.rel = 100, .block = 7};

	mock_ps_door(w->servers[0], door);
	world_start(w);
	world_submit(w, &r);
	world_turns(w, 50);
	w->now_us += advance_us;
	world_wait_counter(w, NC_COUNTER_CONNECT_FAILURES, 1);
	if (strstr(w->log, text) == NULL)
		fail_msg("\"%s\" is not in the log:\n%s", text, w->log);
	assert_int_equal(world_counter(w, NC_COUNTER_CONNECTS), 0);
	mock_ps_door(w->servers[0], MOCK_DOOR_OPEN);
	w->now_us += 10000000;
	expect_pages(w, &r);
	world_close(w);
}

static void
test_command_refused(void **state)
{
	door_fails(MOCK_DOOR_REFUSES, "tenant is not here", 0);
}

static void
test_command_no_copy(void **state)
{
	door_fails(MOCK_DOOR_SELECT, "CopyBoth", 0);
}

static void
test_connect_closed(void **state)
{
	door_fails(MOCK_DOOR_CLOSES, "cannot connect", 0);
}

static void
test_connect_timeout(void **state)
{
	door_fails(MOCK_DOOR_SILENT, "timed out while connecting", 5000000);
}

/* ---- pools ---- */

static void
test_pool_cap(void **state)
{
	World	   *w = open_world(200, 2);

	world_start(w);
	for (int round = 0; round < 3; round++)
	{
		for (uint32_t i = 0; i < 200; i++)
			world_submit(w, &(WorldRead) {.ring = i, .slot = 0, .rel = 100 + i, .block = i,
				.nblocks = 8, .dest = 8 * i});
		for (uint32_t i = 0; i < 200; i++)
			expect_pages(w, &(WorldRead) {.ring = i, .slot = 0, .rel = 100 + i, .block = i,
				.nblocks = 8, .dest = 8 * i});
	}
	/* one of the four is kept for what nobody waits for, and comes with it */
	for (int s = 0; s < 2; s++)
		assert_int_equal(mock_ps_open_max(w->servers[s]), 3);
	assert_int_equal(world_counter(w, NC_COUNTER_PAGES_RECEIVED), 4800);
	for (uint32_t i = 0; i < 200; i++)
		world_submit(w, &(WorldRead) {.ring = i, .slot = 40, .class = NC_SLOT_CLASS_PREFETCH,
			.rel = 100 + i, .block = i, .nblocks = 8, .dest = 8 * i});
	for (uint32_t i = 0; i < 200; i++)
		expect_pages(w, &(WorldRead) {.ring = i, .slot = 40, .rel = 100 + i, .block = i,
			.nblocks = 8, .dest = 8 * i});
	for (int s = 0; s < 2; s++)
		assert_int_equal(mock_ps_open_max(w->servers[s]), 4);
	assert_int_equal(world_counter(w, NC_COUNTER_PAGES_RECEIVED), 6400);
	assert_int_equal(world_counter(w, NC_COUNTER_FOUND_LATE), 0);

	/* what is idle goes, the first of each shard stays */
	w->now_us += 61000000;
	world_turns(w, 20);
	for (int s = 0; s < 2; s++)
		assert_int_equal(mock_ps_open_now(w->servers[s]), 1);
	assert_int_equal(world_counter(w, NC_COUNTER_DISCONNECTS), 0);
	world_close(w);
}

/* What somebody waits for does not queue behind what nobody waits for. */
static void
test_bulk_apart(void **state)
{
	World	   *w = open_world(2, 1);
	WorldRead	p = {.ring = 1, .slot = 40, .class = NC_SLOT_CLASS_PREFETCH, .rel = 100,
	.nblocks = 32};
	WorldRead	r = {.slot = 0, .rel = 101, .block = 8, .dest = 4000};

	w->config.connections_per_shard_max = 2;
	world_start(w);
	for (uint32_t i = 0; i < 3; i++)
	{
		p.slot = 40 + i;
		p.block = p.dest = 32 * i;
		world_submit(w, &p);
	}
	/* a first page of each kind, so that both connections stand */
	world_wait_counter(w, NC_COUNTER_CONNECTS, 2);
	for (uint32_t i = 0; i < 3; i++)
	{
		WorldRead	done = p;

		done.slot = 40 + i;
		done.block = done.dest = 32 * i;
		expect_pages(w, &done);
	}
	mock_ps_fault(w->servers[0], MOCK_HOLD, 0, 1);
	for (uint32_t i = 0; i < 3; i++)
	{
		p.slot = 40 + i;
		p.block = p.dest = 32 * i;
		world_submit(w, &p);
	}
	wait_held(w, w->servers[0], 64);
	world_submit(w, &r);
	expect_pages(w, &r);
	assert_int_equal(world_state(w, 1, 40), NC_SLOT_TAKEN);
	mock_ps_release(w->servers[0]);
	for (uint32_t i = 0; i < 3; i++)
		world_wait(w, 1, 40 + i);
	assert_int_equal(mock_ps_open_max(w->servers[0]), 2);
	world_close(w);
}

/* Three ranges of 32 blocks are asked for ahead; then they are there. */
static void
three_ahead(World *w, bool expect)
{
	for (uint32_t i = 0; i < 3; i++)
	{
		WorldRead	p = {.ring = 1, .slot = 40 + i, .class = NC_SLOT_CLASS_PREFETCH, .rel = 100,
			.block = 32 * i, .nblocks = 32, .dest = 32 * i};

		if (expect)
			expect_pages(w, &p);
		else
			world_submit(w, &p);
	}
}

/* While pages that somebody waits for come late, less is read ahead at a time. */
static void
readahead_yields(bool on)
{
	World	   *w = open_world(2, 1);
	WorldRead	r = {.slot = 0, .rel = 101, .block = 8, .dest = 4000};

	w->config.connections_per_shard_max = 2;
	w->config.readahead_yields = on;
	world_start(w);
	/* both connections, and the least time of a read */
	three_ahead(w, false);
	three_ahead(w, true);
	world_submit(w, &r);
	expect_pages(w, &r);

	for (int i = 0; i < 30; i++)
	{
		mock_ps_fault(w->servers[0], MOCK_HOLD, 0, 1);
		world_submit(w, &r);
		wait_held(w, w->servers[0], 1);
		w->now_us += 10000;
		mock_ps_release(w->servers[0]);
		expect_pages(w, &r);
	}
	assert_in_range(world_counter(w, NC_COUNTER_YIELDS), on ? 5 : 0, on ? 20 : 0);

	mock_ps_fault(w->servers[0], MOCK_HOLD, 0, 1);
	three_ahead(w, false);
	wait_held(w, w->servers[0], NC_YIELD_MIN);
	world_turns(w, 50);
	assert_int_equal(mock_ps_held(w->servers[0]), on ? NC_YIELD_MIN : NC_CONN_BULK_DEPTH);
	/* nobody has waited for a while: no limit but that of the connection */
	w->now_us += NC_YIELD_FRESH_US;
	wait_held(w, w->servers[0], NC_CONN_BULK_DEPTH);
	mock_ps_release(w->servers[0]);
	three_ahead(w, true);
	world_close(w);
}

static void
test_readahead_yields(void **state)
{
	readahead_yields(true);
	readahead_yields(false);
}

/* A read ahead that somebody comes to wait for leaves the queue behind which it was. */
static void
test_promoted(void **state)
{
	World	   *w = open_world(1, 1);
	WorldRead	p = {.class = NC_SLOT_CLASS_PREFETCH, .rel = 100, .nblocks = 32};

	w->config.connections_per_shard_max = 1;
	w->config.depth_max = 8;
	world_start(w);
	mock_ps_fault(w->servers[0], MOCK_HOLD, 0, 1);
	for (uint32_t i = 0; i < 4; i++)
	{
		p.slot = 40 + i;
		p.block = p.dest = 32 * i;
		world_submit(w, &p);
	}
	wait_held(w, w->servers[0], 4);
	nc_ring_promote(&w->area, 0, 43);
	nc_ring_promote(&w->area, 0, 5);
	world_wait_counter(w, NC_COUNTER_PREFETCH_PROMOTED, 1);
	mock_ps_release(w->servers[0]);
	world_wait(w, 0, 43);
	assert_int_not_equal(world_state(w, 0, 42), NC_SLOT_DONE);
	for (uint32_t i = 0; i < 4; i++)
	{
		p.slot = 40 + i;
		p.block = p.dest = 32 * i;
		expect_pages(w, &p);
	}
	assert_int_equal(world_counter(w, NC_COUNTER_PREFETCH_PROMOTED), 1);
	world_close(w);
}

/* Who waits for a read ahead still waits when the communicator is another one. */
static void
test_promoted_kept(void **state)
{
	World	   *w = open_world(1, 1);
	WorldRead	p = {.class = NC_SLOT_CLASS_PREFETCH, .rel = 100, .nblocks = 32};

	w->config.connections_per_shard_max = 1;
	w->config.depth_max = 8;
	mock_ps_fault(w->servers[0], MOCK_HOLD, 0, 1);
	for (int round = 0; round < 2; round++)
	{
		world_start(w);
		for (uint32_t i = 0; i < 4; i++)
		{
			p.slot = 40 + i;
			p.block = p.dest = 32 * i;
			if (round == 0)
				world_submit(w, &p);
		}
		wait_held(w, w->servers[0], 4);
		if (round == 1)
			break;
		nc_ring_promote(&w->area, 0, 43);
		world_wait_counter(w, NC_COUNTER_PREFETCH_PROMOTED, 1);
		world_stop(w);
		mock_ps_drop_all(w->servers[0]);
		mock_ps_fault(w->servers[0], MOCK_HOLD, 0, 1);
	}
	mock_ps_release(w->servers[0]);
	world_wait(w, 0, 43);
	assert_int_not_equal(world_state(w, 0, 42), NC_SLOT_DONE);
	for (uint32_t i = 0; i < 4; i++)
	{
		p.slot = 40 + i;
		p.block = p.dest = 32 * i;
		expect_pages(w, &p);
	}
	world_close(w);
}

/* The client goes between two pages of a range: nothing is written to its memory any more. */
/* What a scan has come to wait for stays among its like: a point read does not queue behind it. */
static void
test_promoted_apart(void **state)
{
	World	   *w = open_world(2, 1);
	WorldRead	r = {.slot = 0, .rel = 101, .block = 8, .dest = 4000};
	uint32_t	sent;

	w->config.connections_per_shard_max = 2;
	world_start(w);
	three_ahead(w, false);
	three_ahead(w, true);
	world_submit(w, &r);
	expect_pages(w, &r);

	mock_ps_fault(w->servers[0], MOCK_HOLD, 0, 1);
	three_ahead(w, false);
	wait_held(w, w->servers[0], NC_CONN_BULK_DEPTH);
	sent = mock_ps_requests(w->servers[0]);
	nc_ring_promote(&w->area, 1, 42);
	world_wait_counter(w, NC_COUNTER_PREFETCH_PROMOTED, 1);
	world_submit(w, &r);
	expect_pages(w, &r);
	assert_int_equal(mock_ps_requests(w->servers[0]), sent + 1);
	mock_ps_release(w->servers[0]);
	three_ahead(w, true);
	world_close(w);
}

static void
test_prefetch_withdrawn(void **state)
{
	World	   *w = open_world(1, 1);
	WorldRead	p = {.slot = 40, .class = NC_SLOT_CLASS_PREFETCH, .rel = 100, .nblocks = 8};
	WorldRead	again = {.slot = 40, .class = NC_SLOT_CLASS_PREFETCH, .rel = 200, .nblocks = 8,
	.dest = 100};

	world_start(w);
	mock_ps_fault(w->servers[0], MOCK_HOLD, 3, 1);
	world_submit(w, &p);
	world_wait_counter(w, NC_COUNTER_PAGES_RECEIVED, 3);
	assert_int_equal(world_state(w, 0, 40), NC_SLOT_TAKEN);
	assert_true(world_cancel(w, 0, 40));
	memset(w->dest, 0xee, 8 * NC_PAGE_BYTES);
	world_submit(w, &again);
	mock_ps_release(w->servers[0]);
	expect_pages(w, &again);
	for (size_t i = 0; i < 8 * NC_PAGE_BYTES; i++)
		assert_int_equal(w->dest[i], 0xee);
	world_close(w);
}

/* Only the end of the slot that is waited for wakes. */
static void
test_wake_for_slot(void **state)
{
	World	   *w = open_world(1, 1);
	WorldRead	p = {.slot = 40, .class = NC_SLOT_CLASS_PREFETCH, .rel = 100, .nblocks = 8};
	WorldRead	r = {.slot = 41, .class = NC_SLOT_CLASS_PREFETCH, .rel = 101, .nblocks = 4,
	.dest = 20};

	w->config.connections_per_shard_max = 1;
	world_start(w);
	atomic_store(&w->area.rings[0].client_asleep, NC_RING_ASLEEP_FOR(41));
	world_submit(w, &p);
	world_wait(w, 0, 40);
	world_turns(w, 3);
	assert_int_equal(w->wakes, 1);	/* 41 is free: who says that he waits for it is woken */
	(void) world_collect(w, 0, 40);
	mock_ps_fault(w->servers[0], MOCK_HOLD, 8, 1);
	world_submit(w, &p);
	world_submit(w, &r);
	world_wait(w, 0, 40);
	world_turns(w, 3);
	assert_int_equal(w->wakes, 1);
	mock_ps_release(w->servers[0]);
	world_wait(w, 0, 41);
	world_turns(w, 1);
	assert_int_equal(w->wakes, 2);
	world_close(w);
}

/* Few descriptors: each shard has one connection before any has two, and nobody is stuck. */
static void
test_few_descriptors(void **state)
{
	World	   *w = open_world(8, 4);
	uint32_t	open = 0;

	w->config.connections_max = 5;
	w->config.connections_per_shard_max = 8;
	w->config.depth_max = 1;
	world_start(w);
	for (uint32_t ring = 0; ring < 8; ring++)
	{
		WorldRead	r = {.ring = ring, .rel = 100, .block = ring * 32, .nblocks = 32, .dest = ring * 32};

		world_submit(w, &r);
	}
	for (uint32_t ring = 0; ring < 8; ring++)
	{
		WorldRead	r = {.ring = ring, .rel = 100, .block = ring * 32, .nblocks = 32, .dest = ring * 32};

		expect_pages(w, &r);
	}
	for (uint32_t i = 0; i < 4; i++)
	{
		assert_true(mock_ps_open_max(w->servers[i]) >= 1);
		open += mock_ps_open_max(w->servers[i]);
	}
	assert_int_equal(open, 5);
	world_close(w);
}

/* Work for one connection opens one. */
static void
test_pool_lazy(void **state)
{
	World	   *w = open_world(1, 1);
	WorldRead	r = {.rel = 100, .block = 7, .nblocks = 8};

	world_start(w);
	world_submit(w, &r);
	expect_pages(w, &r);
	assert_int_equal(mock_ps_accepted(w->servers[0]), 1);
	world_close(w);
}

/* Blocks of one range go to one connection while it has room: servers batch them. */
static void
test_range_together(void **state)
{
	World	   *w = open_world(1, 1);
	WorldRead	r = {.rel = 100, .nblocks = 16};
	uint64_t	before[2];

	world_start(w);
	world_submit(w, &r);
	expect_pages(w, &r);
	assert_int_equal(world_rows_in(w, NC_CONN_READY), 2);
	for (int i = 0; i < 2; i++)
		before[i] = w->rows[i].requests;
	r.nblocks = 8;
	world_submit(w, &r);
	expect_pages(w, &r);
	assert_true((w->rows[0].requests - before[0] == 8 && w->rows[1].requests == before[1]) ||
				(w->rows[1].requests - before[1] == 8 && w->rows[0].requests == before[0]));
	world_close(w);
}

/* ---- the shard map ---- */

/* In flight on a server that stays and on one that goes; all are answered by the new map. */
static void
test_map_change(void **state)
{
	World	   *w = open_world(4, 3);
	WorldRead	r[4];

	/* one connection each, so that no page of the old map is answered before the change */
	w->config.connections_per_shard_max = 1;
	w->config.depth_max = 64;
	world_map(w, 2, 1);
	world_start(w);
	for (int s = 0; s < 2; s++)
		mock_ps_fault(w->servers[s], MOCK_HOLD, 0, 1);
	for (uint32_t i = 0; i < 4; i++)
	{
		r[i] = (WorldRead) {.ring = i, .slot = i, .rel = 100 + i, .nblocks = 16, .dest = 16 * i};
		world_submit(w, &r[i]);
	}
	wait_held(w, w->servers[0], 1);
	wait_held(w, w->servers[1], 1);

	/* server 0 stays shard 0, server 1 goes, server 2 comes, stripe changes */
	snprintf(w->map.conninfo[1], sizeof(w->map.conninfo[1]), "%s",
			 mock_ps_conninfo(w->servers[2]));
	w->map.stripe_blocks = 4;
	nc_engine_set_shard_map(w->engine, &w->map);
	mock_ps_fault(w->servers[2], MOCK_HOLD, 0, 1);
	world_turns(w, 100);
	mock_ps_release(w->servers[0]);
	mock_ps_release(w->servers[2]);
	for (uint32_t i = 0; i < 4; i++)
		expect_pages(w, &r[i]);
	assert_int_equal(mock_ps_open_now(w->servers[1]), 0);
	assert_int_equal(world_counter(w, NC_COUNTER_MAP_CHANGES), 2);
	assert_int_equal(world_counter(w, NC_COUNTER_POISONED), 0);
	assert_int_equal(nc_engine_busy(w->engine), 0);

	/* the same map again: nothing happens */
	nc_engine_set_shard_map(w->engine, &w->map);
	assert_int_equal(world_counter(w, NC_COUNTER_MAP_CHANGES), 2);
	world_close(w);
}

/* Addresses swap places: both keep their connections. */
static void
test_map_swap(void **state)
{
	World	   *w = open_world(1, 2);
	WorldRead	r = {.rel = 100, .nblocks = 16};
	uint32_t	accepted;

	w->config.depth_max = 16;
	world_start(w);
	world_submit(w, &r);
	expect_pages(w, &r);
	accepted = mock_ps_accepted(w->servers[0]) + mock_ps_accepted(w->servers[1]);
	snprintf(w->map.conninfo[0], sizeof(w->map.conninfo[0]), "%s", mock_ps_conninfo(w->servers[1]));
	snprintf(w->map.conninfo[1], sizeof(w->map.conninfo[1]), "%s", mock_ps_conninfo(w->servers[0]));
	nc_engine_set_shard_map(w->engine, &w->map);
	world_submit(w, &r);
	expect_pages(w, &r);
	assert_int_equal(mock_ps_accepted(w->servers[0]) + mock_ps_accepted(w->servers[1]), accepted);
	world_close(w);
}

static void
test_map_removed(void **state)
{
	World	   *w = open_world(1, 1);
	WorldRead	r = {.rel = 100, .nblocks = 4};

	world_start(w);
	mock_ps_fault(w->servers[0], MOCK_HOLD, 0, 1);
	world_submit(w, &r);
	wait_held(w, w->servers[0], 1);
	w->map.shard_count = 0;
	nc_engine_set_shard_map(w->engine, &w->map);
	world_wait(w, 0, 0);
	assert_int_equal(world_collect(w, 0, 0), NC_SLOT_RESULT_NO_SERVER);
	assert_int_equal(nc_engine_busy(w->engine), 0);
	world_close(w);
}

/* Another protocol version: connections are replaced, requests survive. */
static void
test_configure(void **state)
{
	World	   *w = open_world(1, 1);
	WorldRead	r = {.rel = 100, .nblocks = 4};

	world_start(w);
	mock_ps_fault(w->servers[0], MOCK_HOLD, 0, 1);
	world_submit(w, &r);
	wait_held(w, w->servers[0], 1);
	w->config.protocol_version = 2;
	nc_engine_configure(w->engine, &w->config);
	expect_pages(w, &r);
	assert_non_null(strstr(mock_ps_last_command(w->servers[0]), "pagestream_v2"));
	assert_int_equal(world_counter(w, NC_COUNTER_DISCONNECTS), 0);
	world_close(w);
}

/* ---- life ---- */

/* An engine ends between turns; the next one serves what the first had taken. */
static void
test_takeover(void **state)
{
	World	   *w = open_world(2, 1);
	WorldRead	a = {.ring = 0, .rel = 100, .block = 1, .nblocks = 4, .dest = 0};
	WorldRead	b = {.ring = 1, .rel = 200, .block = 2, .dest = 10};

	world_start(w);
	mock_ps_fault(w->servers[0], MOCK_HOLD, 0, 1);
	world_submit(w, &a);
	wait_held(w, w->servers[0], 1);
	assert_int_equal(world_state(w, 0, 0), NC_SLOT_TAKEN);
	world_stop(w);
	assert_int_equal(world_state(w, 0, 0), NC_SLOT_TAKEN);
	/* submitted, and its bit taken by the dead one */
	world_submit_quietly(w, &b);
	world_start(w);
	expect_pages(w, &a);
	expect_pages(w, &b);
	assert_int_equal(world_counter(w, NC_COUNTER_REQUEUED), 1);
	assert_int_equal(world_counter(w, NC_COUNTER_FOUND_LATE), 0);
	assert_int_equal(atomic_load(&w->area.doorbell->epoch), 2);
	world_close(w);
}

/* An engine ended between DONE and the wake: the next one wakes who sleeps, and nobody else. */
static void
test_takeover_wakes(void **state)
{
	World	   *w = open_world(3, 1);
	WorldRead	ended = {.ring = 0, .rel = 100, .block = 1, .dest = 0};
	WorldRead	waits = {.ring = 1, .rel = 200, .block = 2, .dest = 10};

	world_start(w);
	world_submit(w, &ended);
	world_wait(w, 0, 0);
	mock_ps_fault(w->servers[0], MOCK_HOLD, 0, 1);
	world_submit(w, &waits);
	wait_held(w, w->servers[0], 1);
	assert_int_equal(w->wakes, 0);
	world_stop(w);
	atomic_store(&w->area.rings[0].client_asleep, NC_RING_ASLEEP_FOR(0));
	atomic_store(&w->area.rings[1].client_asleep, NC_RING_ASLEEP_FOR(0));
	world_start(w);
	assert_int_equal(w->wakes, 1);
	assert_int_equal(world_counter(w, NC_COUNTER_WAKES), 1);
	expect_pages(w, &ended);
	expect_pages(w, &waits);
	world_close(w);
}

/* A slot without a doorbell is served, and counted because that must not happen. */
static void
test_found_late(void **state)
{
	World	   *w = open_world(1, 1);
	WorldRead	r = {.rel = 100, .block = 7};

	world_start(w);
	world_wait_counter(w, NC_COUNTER_CONNECTS, 1);
	world_submit_quietly(w, &r);
	w->now_us += 1100000;
	world_turn(w);
	assert_int_equal(world_counter(w, NC_COUNTER_FOUND_LATE), 0);
	w->now_us += 1100000;
	expect_pages(w, &r);
	assert_int_equal(world_counter(w, NC_COUNTER_FOUND_LATE), 1);
	world_close(w);
}

/* Two engines in one process do not know of each other. */
static void
test_two_engines(void **state)
{
	World	   *a = open_world(1, 1);
	World	   *b = open_world(1, 1);
	WorldRead	r = {.rel = 100, .block = 7, .nblocks = 3};

	world_start(a);
	world_start(b);
	world_submit(a, &r);
	world_submit(b, &r);
	expect_pages(a, &r);
	expect_pages(b, &r);
	world_close(a);
	world_submit(b, &r);
	expect_pages(b, &r);
	world_close(b);
}

/* A descriptor of the host that becomes readable is reported, every turn. */
static void
test_extra_fds(void **state)
{
	World	   *w = open_world(1, 1);
	int			fds[2];

	assert_int_equal(pipe(fds), 0);
	w->extra_fds[0] = fds[0];
	w->nextra_fds = 1;
	world_start(w);
	assert_int_equal(nc_engine_tick(w->engine, 0), 0);
	assert_int_equal(write(fds[1], "x", 1), 1);
	assert_int_equal(nc_engine_tick(w->engine, 0), 1);
	assert_int_equal(nc_engine_tick(w->engine, 0), 1);
	close(fds[1]);
	world_close(w);
	close(fds[0]);
}

/* What nobody waits for has half of a shard's messages, and the rest is for who waits; nothing is forgotten. */
static void
test_messages_bound(void **state)
{
	World	   *w = open_world(50, 1);
	WorldRead	r = {.ring = 0, .slot = 0, .rel = 99, .block = 5, .dest = 1};

	mock_ps_down(w->servers[0]);
	world_start(w);
	for (uint32_t i = 0; i < 40 * 32; i++)
		world_submit(w, &(WorldRead) {.ring = i / 32, .slot = 32 + i % 32, .class = NC_SLOT_CLASS_PREFETCH,
			.rel = 100, .block = 32 * i, .nblocks = 32, .dest = NC_DEST_NONE});
	world_turns(w, 20);
	assert_int_equal(nc_engine_busy(w->engine), 1024);
	world_submit(w, &r);
	world_turns(w, 20);
	assert_int_equal(world_state(w, 0, 0), NC_SLOT_TAKEN);
	/* who has come to wait for one of those that were left is no less */
	assert_int_equal(world_state(w, 39, 63), NC_SLOT_SUBMITTED);
	nc_ring_promote(&w->area, 39, 63);
	world_turns(w, 20);
	assert_int_equal(world_state(w, 39, 63), NC_SLOT_TAKEN);
	w->now_us += 5000000;
	world_turns(w, 10);
	mock_ps_up(w->servers[0]);
	w->now_us += 2000000;
	expect_pages(w, &r);
	for (uint32_t i = 0; i < 40 * 32; i++)
	{
		world_wait(w, i / 32, 32 + i % 32);
		assert_int_equal(world_collect(w, i / 32, 32 + i % 32), NC_SLOT_RESULT_OK);
	}
	assert_int_equal(world_counter(w, NC_COUNTER_FOUND_LATE), 0);
	assert_int_equal(world_counter(w, NC_COUNTER_PAGES_RECEIVED), 40 * 32 * 32 + 1);
	world_close(w);
}

static uint32_t
shard_of(const World *w, uint32_t rel)
{
	NcRelKey	key = world_rel(rel);

	return nc_shard_of_block(w->map.shard_count, w->map.stripe_blocks, &key, 0);
}

/* A shard that does not answer fills its own share of the messages: another one serves at once. */
static void
test_shares(void **state)
{
	World	   *w = open_world(80, 2);
	WorldRead	r = {.ring = 79, .slot = 0, .rel = 100, .dest = 1};
	uint32_t	frozen = 100;

	world_map(w, 2, 1000000);
	while (shard_of(w, r.rel) != 1)
		r.rel++;
	while (shard_of(w, frozen) != 0)
		frozen++;
	world_start(w);
	world_submit(w, &r);
	expect_pages(w, &r);
	mock_ps_fault(w->servers[0], MOCK_SILENT, 0, UINT32_MAX);
	for (uint32_t i = 0; i < 70 * 32; i++)
		world_submit(w, &(WorldRead) {.ring = i / 32, .slot = i % 32, .rel = frozen,
			.block = 32 * i, .nblocks = 32, .dest = 0});
	world_turns(w, 20);
	world_submit(w, &r);
	world_turns(w, 20);
	assert_int_equal(world_state(w, 79, 0), NC_SLOT_DONE);
	assert_int_equal(nc_engine_busy(w->engine), 1024);
	expect_pages(w, &r);
	world_close(w);
}

/* Memory that the system refused is there again: who waits is served although nobody else asks. */
static void
test_memory_refused(void **state)
{
	World	   *w = open_world(2, 1);
	WorldRead	r = {.ring = 1, .rel = 100, .block = 7, .nblocks = 5};
	void	   *volatile given;

	world_start(w);
	world_wait_counter(w, NC_COUNTER_CONNECTS, 1);
	no_memory = true;
	given = aligned_alloc(NC_CACHE_LINE_BYTES, NC_CACHE_LINE_BYTES);
	if (given != NULL)
	{
		/* valgrind has one of its own */
		no_memory = false;
		free(given);
		world_close(w);
		skip();
	}
	world_submit(w, &r);
	world_turns(w, 10);
	w->now_us += 5000000;
	world_turns(w, 10);
	no_memory = false;
	assert_int_equal(world_state(w, 1, 0), NC_SLOT_SUBMITTED);
	w->now_us += 1100000;
	expect_pages(w, &r);
	assert_int_equal(world_counter(w, NC_COUNTER_FOUND_LATE), 0);
	world_close(w);
}

/* ---- the table of connection states, written down a second time ---- */

static void
test_conn_states(void **state)
{
	static const uint8_t pairs[][2] = {
		{NC_CONN_UNUSED, NC_CONN_BACKOFF}, {NC_CONN_UNUSED, NC_CONN_CONNECTING},
		{NC_CONN_BACKOFF, NC_CONN_CONNECTING}, {NC_CONN_BACKOFF, NC_CONN_UNUSED},
		{NC_CONN_CONNECTING, NC_CONN_STARTING}, {NC_CONN_CONNECTING, NC_CONN_READY},
		{NC_CONN_CONNECTING, NC_CONN_CLOSING}, {NC_CONN_STARTING, NC_CONN_READY},
		{NC_CONN_STARTING, NC_CONN_CLOSING}, {NC_CONN_READY, NC_CONN_CLOSING},
		{NC_CONN_CLOSING, NC_CONN_UNUSED}
	};

	for (int from = 0; from < NC_CONN_STATES; from++)
	{
		for (int to = 0; to < NC_CONN_STATES; to++)
		{
			bool		listed = false;

			for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++)
				listed = listed || (pairs[i][0] == from && pairs[i][1] == to);
			assert_int_equal(nc_conn_move_allowed(from, to), listed);
		}
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		BOTH(test_single_page),
		BOTH(test_traced),
		cmocka_unit_test(test_uring_forbidden),
		BOTH(test_spinning),
		BOTH(test_spinning_crowded),
		BOTH(test_version_2),
		BOTH(test_range_over_shards),
		BOTH(test_other_kinds),
		BOTH(test_wakes),
		BOTH(test_password),
		BOTH(test_host_name),
		BOTH(test_bad_requests),
		BOTH(test_no_server),
		BOTH(test_ends_are_told),
		BOTH(test_cancel_before_take),
		BOTH(test_cancel_in_flight),
		BOTH(test_cancel_half_a_range),
		BOTH(test_cancel_queued),
		BOTH(test_cancel_not_sent),
		BOTH(test_cancel_swept),
		BOTH(test_resend_order),
		BOTH(test_lost),
		BOTH(test_lost_mid_frame),
		BOTH(test_stream_error),
		BOTH(test_poison_wrong_id),
		BOTH(test_poison_wrong_block),
		BOTH(test_poison_wrong_tag),
		BOTH(test_poison_swapped),
		BOTH(test_poison_garbage),
		BOTH(test_poison_length),
		BOTH(test_poison_unasked),
		BOTH(test_stream_error_text),
		BOTH(test_prefetch_dropped),
		BOTH(test_prefetch_answered),
		BOTH(test_silent),
		BOTH(test_stalled),
		BOTH(test_stalled_range),
		BOTH(test_not_hedged_for_wal),
		BOTH(test_hedge_lost),
		BOTH(test_hedge_budget),
		BOTH(test_throttled),
		BOTH(test_error_text),
		BOTH(test_texts_apart),
		BOTH(test_error_in_range),
		BOTH(test_transient_error),
		BOTH(test_transient_pauses),
		BOTH(test_refused_stands),
		BOTH(test_refused_elsewhere),
		BOTH(test_misrouted),
		BOTH(test_idle_refusing),
		BOTH(test_back_off),
		BOTH(test_moved_away),
		BOTH(test_command_refused),
		BOTH(test_command_no_copy),
		BOTH(test_connect_closed),
		BOTH(test_connect_timeout),
		BOTH(test_pool_cap),
		BOTH(test_bulk_apart),
		BOTH(test_readahead_yields),
		BOTH(test_promoted),
		BOTH(test_promoted_kept),
		BOTH(test_promoted_apart),
		BOTH(test_prefetch_withdrawn),
		BOTH(test_wake_for_slot),
		BOTH(test_pool_lazy),
		BOTH(test_few_descriptors),
		BOTH(test_range_together),
		BOTH(test_map_change),
		BOTH(test_map_swap),
		BOTH(test_map_removed),
		BOTH(test_configure),
		BOTH(test_takeover),
		BOTH(test_takeover_wakes),
		BOTH(test_found_late),
		BOTH(test_two_engines),
		BOTH(test_extra_fds),
		BOTH(test_messages_bound),
		BOTH(test_shares),
		BOTH(test_memory_refused),
		cmocka_unit_test(test_conn_states)
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
