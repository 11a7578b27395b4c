/*
 * test_aio.c
 *	  Reads of AIO handles: completed by the engine, taken away by who waits, used
 *	  again while an old answer is on its way, left behind by a communicator.
 *
 * One thread; test_aio_threads.c has the processes side by side.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <string.h>
#include <unistd.h>

#include "engine_world.h"
#include "nc/net/conn.h"

#define HANDLES 100

static NcLoopMethod method;

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
open_world(uint32_t nservers)
{
	return world_open_aio(method, 2, HANDLES, nservers);
}

static void
fill(World *w, uint32_t handle, uint64_t generation, uint32_t rel, uint32_t block, uint32_t nblocks)
{
	assert_true(nc_aio_fill(&w->area, handle, generation, &(NcAioRead) {
		.rel = world_rel(rel), .block = block, .nblocks = nblocks,
		.request_lsn = NC_LSN_MAX, .not_modified_since = 0x1000
	}));
}

static void
submit(World *w, uint32_t handle, uint64_t generation, uint32_t rel, uint32_t block, uint32_t nblocks)
{
	fill(w, handle, generation, rel, block, nblocks);
	nc_aio_submit(&w->area, handle, w->now_us);
	(void) nc_ring_bell(&w->area);
}

static NcSlotState
state_of(World *w, uint32_t handle)
{
	return nc_slot_word_state(nc_slot_load(nc_aio_slot(&w->area, handle)));
}

static void
wait_completed(World *w, uint32_t handle, uint32_t times)
{
	for (int i = 0; i < WORLD_TURNS_MAX && w->handles[handle].completed < times; i++)
		world_turn(w);
	if (w->handles[handle].completed != times)
		fail_msg("handle %u was completed %u times, not %u; its slot is %s; log:\n%s", handle,
				 w->handles[handle].completed, times, nc_slot_state_name(state_of(w, handle)), w->log);
}

static void
wait_held(World *w, uint32_t n)
{
	for (int i = 0; i < WORLD_TURNS_MAX && mock_ps_held(w->servers[0]) < n; i++)
		world_turn(w);
	assert_true(mock_ps_held(w->servers[0]) >= n);
}

static void
expect_pages(World *w, uint32_t handle, uint64_t generation, uint32_t rel, uint32_t block, uint32_t nblocks)
{
	const WorldHandle *h = &w->handles[handle];
	WorldRead	r = {.rel = rel, .block = block, .nblocks = nblocks,
		.dest = handle * NC_SLOT_BLOCKS_MAX};

	assert_int_equal(h->generation, generation);
	assert_int_equal(h->result, NC_SLOT_RESULT_OK);
	assert_string_equal(h->text, "");
	assert_true(world_pages_right(w, &r));
}

/* The pages of the handle's read are lent no more: nobody may write there. */
static void
take_back(World *w, uint32_t handle)
{
	memset(world_handle_page(w, handle, 0), 0x5a, NC_SLOT_BLOCKS_MAX * NC_PAGE_BYTES);
}

static void
expect_untouched(World *w, uint32_t handle)
{
	const uint8_t *page = world_handle_page(w, handle, 0);

	for (size_t i = 0; i < NC_SLOT_BLOCKS_MAX * NC_PAGE_BYTES; i++)
		assert_int_equal(page[i], 0x5a);
}

/* ---- it works ---- */

static void
test_read(void **state)
{
	World	   *w = open_world(1);

	world_start(w);
	/* two rings of handles, the first and the last of them */
	submit(w, 0, 5, 100, 7, 1);
	submit(w, HANDLES - 1, 1, 200, 9, 1);
	wait_completed(w, 0, 1);
	wait_completed(w, HANDLES - 1, 1);
	expect_pages(w, 0, 5, 100, 7, 1);
	expect_pages(w, HANDLES - 1, 1, 200, 9, 1);
	assert_int_equal(nc_engine_busy(w->engine), 0);
	/* nobody's latch */
	assert_int_equal(w->wakes, 0);
	/* and again */
	submit(w, 0, 6, 100, 8, 1);
	wait_completed(w, 0, 2);
	expect_pages(w, 0, 6, 100, 8, 1);
	world_close(w);
}

/* A range that crosses shards is completed once, when all of it is there. */
static void
test_range(void **state)
{
	World	   *w = open_world(3);

	world_map(w, 3, 2);
	world_start(w);
	mock_ps_fault(w->servers[0], MOCK_HOLD, 0, 1);
	submit(w, 3, 1, 100, 11, NC_SLOT_BLOCKS_MAX);
	wait_held(w, 1);
	world_turns(w, 100);
	assert_int_equal(w->handles[3].completed, 0);
	assert_int_equal(state_of(w, 3), NC_SLOT_TAKEN);
	mock_ps_release(w->servers[0]);
	wait_completed(w, 3, 1);
	expect_pages(w, 3, 1, 100, 11, NC_SLOT_BLOCKS_MAX);
	world_close(w);
}

/* A batch over two rings: the sleeper is looked for once, after the last of it. */
static void
test_batch(void **state)
{
	World	   *w = open_world(1);
	uint64_t	count;

	assert_true(nc_doorbell_sleep(&w->area));
	for (uint32_t h = 60; h < 68; h++)
	{
		fill(w, h, 1, 100, h, 1);
		nc_aio_submit(&w->area, h, w->now_us);
	}
	assert_int_equal(read(w->area.eventfd, &count, sizeof(count)), -1);
	assert_true(nc_ring_bell(&w->area));
	assert_int_equal(read(w->area.eventfd, &count, sizeof(count)), sizeof(count));
	assert_int_equal(count, 1);
	nc_doorbell_awake(&w->area);
	assert_false(nc_ring_bell(&w->area));

	world_start(w);
	for (uint32_t h = 60; h < 68; h++)
	{
		wait_completed(w, h, 1);
		expect_pages(w, h, 1, 100, h, 1);
	}
	assert_int_equal(world_counter(w, NC_COUNTER_FOUND_LATE), 0);
	world_close(w);
}

/* Handles come in any order; their reads are asked for in that of their submits. */
static void
test_order(void **state)
{
	static const uint32_t handles[] = {9, 63, 2, 40, 0};
	World	   *w = open_world(1);

	world_start(w);
	submit(w, 1, 1, 100, 1, 1);
	wait_completed(w, 1, 1);
	mock_ps_fault(w->servers[0], MOCK_HOLD, 3, 1);
	for (uint32_t i = 0; i < 5; i++)
	{
		fill(w, handles[i], 1, 100, 7 + i, 1);
		nc_aio_submit(&w->area, handles[i], w->now_us + i);
	}
	(void) nc_ring_bell(&w->area);
	wait_held(w, 2);
	for (uint32_t i = 0; i < 5; i++)
		assert_int_equal(w->handles[handles[i]].completed, i < 3 ? 1 : 0);
	mock_ps_release(w->servers[0]);
	wait_completed(w, 0, 1);
	wait_completed(w, 40, 1);
	world_close(w);
}

static void
test_error(void **state)
{
	World	   *w = open_world(1);

	world_start(w);
	mock_ps_error_text(w->servers[0], "no such\nrelation");
	mock_ps_fault(w->servers[0], MOCK_ERROR, 1, 1);
	submit(w, 0, 1, 100, 7, 3);
	wait_completed(w, 0, 1);
	assert_int_equal(w->handles[0].result, NC_SLOT_RESULT_PS_ERROR);
	assert_non_null(strstr(w->handles[0].text, "no such relation"));
	/* the rest of its answers come and concern nobody */
	take_back(w, 0);
	world_turns(w, 100);
	expect_untouched(w, 0);
	assert_int_equal(w->handles[0].completed, 1);
	assert_int_equal(nc_engine_busy(w->engine), 0);
	world_close(w);
}

/* ---- who waits no longer ---- */

static void
test_claim(void **state)
{
	World	   *w = open_world(1);
	uint64_t	submitted_us;

	world_start(w);
	/* nothing is there yet */
	assert_false(nc_aio_claim(&w->area, 0, 0, UINT64_MAX));
	fill(w, 0, 5, 100, 7, 2);
	assert_true(nc_aio_is_ours(&w->area, 0, 5));
	assert_false(nc_aio_is_ours(&w->area, 0, 4));
	assert_false(nc_aio_claim(&w->area, 0, 5, UINT64_MAX));
	assert_true(nc_aio_fill(&w->area, 0, 6, &(NcAioRead) {.rel = world_rel(100), .nblocks = 1}));

	mock_ps_fault(w->servers[0], MOCK_HOLD, 0, 2);
	submitted_us = w->now_us;
	submit(w, 0, 7, 100, 7, 2);
	wait_held(w, 2);
	/* of another life, or not so old */
	assert_false(nc_aio_claim(&w->area, 0, 6, UINT64_MAX));
	assert_false(nc_aio_claim(&w->area, 0, 8, UINT64_MAX));
	assert_false(nc_aio_claim(&w->area, 0, 7, submitted_us - 1));
	assert_int_equal(state_of(w, 0), NC_SLOT_TAKEN);
	assert_true(nc_aio_claim(&w->area, 0, 7, submitted_us));
	/* one of them only */
	assert_false(nc_aio_claim(&w->area, 0, 7, UINT64_MAX));
	take_back(w, 0);
	mock_ps_release(w->servers[0]);
	world_wait_counter(w, NC_COUNTER_LATE_ANSWERS, 2);
	expect_untouched(w, 0);
	assert_int_equal(w->handles[0].completed, 0);
	assert_int_equal(nc_engine_busy(w->engine), 0);
	world_close(w);
}

/* Before the communicator has seen it: it is never asked for. */
static void
test_claim_before_take(void **state)
{
	World	   *w = open_world(1);

	world_start(w);
	world_wait_counter(w, NC_COUNTER_CONNECTS, 1);
	submit(w, 0, 1, 100, 7, 1);
	assert_true(nc_aio_claim(&w->area, 0, 1, w->now_us));
	world_turns(w, 50);
	assert_int_equal(mock_ps_requests(w->servers[0]), 0);
	assert_int_equal(w->handles[0].completed, 0);
	world_close(w);
}

/* Taken away, used again for something else, and then the old answer comes. */
static void
test_late_answer(void **state)
{
	World	   *w = open_world(1);

	world_start(w);
	mock_ps_fault(w->servers[0], MOCK_HOLD, 0, 2);
	submit(w, 4, 1, 100, 7, 1);
	wait_held(w, 1);
	assert_true(nc_aio_claim(&w->area, 4, 1, w->now_us));
	submit(w, 4, 2, 200, 9, 1);
	wait_held(w, 2);
	/* the old waiter has not seen yet that it is over */
	assert_false(nc_aio_claim(&w->area, 4, 1, UINT64_MAX));
	take_back(w, 4);
	mock_ps_release_some(w->servers[0], 1);
	world_wait_counter(w, NC_COUNTER_LATE_ANSWERS, 1);
	expect_untouched(w, 4);
	assert_int_equal(w->handles[4].completed, 0);
	mock_ps_release(w->servers[0]);
	wait_completed(w, 4, 1);
	expect_pages(w, 4, 2, 200, 9, 1);
	world_close(w);
}

/* Half of a range is there. */
static void
test_claim_half(void **state)
{
	World	   *w = open_world(1);

	world_start(w);
	mock_ps_fault(w->servers[0], MOCK_HOLD, 3, 1);
	submit(w, 0, 1, 100, 7, 6);
	world_wait_counter(w, NC_COUNTER_PAGES_RECEIVED, 3);
	assert_true(nc_aio_claim(&w->area, 0, 1, w->now_us));
	take_back(w, 0);
	mock_ps_release(w->servers[0]);
	world_wait_counter(w, NC_COUNTER_LATE_ANSWERS, 3);
	expect_untouched(w, 0);
	assert_int_equal(w->handles[0].completed, 0);
	world_close(w);
}

/* ---- who has come to wait ---- */

/* Four reads of the longest, of which half a connection's depth of one is on its way. */
static World *
open_queued(void)
{
	World	   *w = open_world(1);

	w->config.connections_per_shard_max = 1;
	w->config.depth_max = 8;
	world_start(w);
	mock_ps_fault(w->servers[0], MOCK_HOLD, 0, 1);
	for (uint32_t h = 0; h < 4; h++)
		submit(w, h, 7, 100, NC_SLOT_BLOCKS_MAX * h, NC_SLOT_BLOCKS_MAX);
	wait_held(w, 4);
	world_turns(w, 20);
	assert_int_equal(mock_ps_held(w->servers[0]), 4);
	return w;
}

/* Handle 3 goes before 1 and 2, which were submitted before it; or after them. */
static void
expect_third_first(World *w, bool first)
{
	mock_ps_release(w->servers[0]);
	wait_completed(w, first ? 3 : 2, 1);
	assert_int_equal(w->handles[first ? 2 : 3].completed, 0);
	for (uint32_t h = 0; h < 4; h++)
	{
		wait_completed(w, h, 1);
		expect_pages(w, h, 7, 100, NC_SLOT_BLOCKS_MAX * h, NC_SLOT_BLOCKS_MAX);
	}
}

static void
test_promoted(void **state)
{
	World	   *w = open_queued();

	nc_aio_promote(&w->area, 3, 7);
	/* again, by another process */
	nc_aio_promote(&w->area, 3, 7);
	world_wait_counter(w, NC_COUNTER_PREFETCH_PROMOTED, 1);
	expect_third_first(w, true);
	assert_int_equal(world_counter(w, NC_COUNTER_PREFETCH_PROMOTED), 1);
	world_close(w);
}

/* Who waits for a life that is over, or sees the handle in a later one, changes nothing. */
static void
test_promoted_other_life(void **state)
{
	World	   *w = open_queued();

	nc_aio_promote(&w->area, 3, 6);
	nc_aio_promote(&w->area, 3, 8);
	world_turns(w, 50);
	expect_third_first(w, false);
	assert_int_equal(world_counter(w, NC_COUNTER_PREFETCH_PROMOTED), 0);
	world_close(w);
}

/* Said of the life before: forgotten when the next one begins. */
static void
test_promoted_last_life(void **state)
{
	World	   *w = open_world(1);

	world_start(w);
	submit(w, 0, 1, 100, 7, 1);
	nc_aio_promote(&w->area, 0, 1);
	wait_completed(w, 0, 1);
	assert_int_equal(atomic_load(&w->area.rings[w->area.aio_first].promoted), 1);
	fill(w, 0, 2, 100, 8, 1);
	assert_int_equal(atomic_load(&w->area.rings[w->area.aio_first].promoted), 0);
	world_close(w);
}

/* The server calls it submitted a moment before its slot is. */
static void
test_promoted_before_submit(void **state)
{
	World	   *w = open_queued();

	fill(w, 4, 7, 100, 200, NC_SLOT_BLOCKS_MAX);
	nc_aio_promote(&w->area, 4, 7);
	world_turns(w, 20);
	nc_aio_submit(&w->area, 4, w->now_us);
	(void) nc_ring_bell(&w->area);
	world_wait_counter(w, NC_COUNTER_PREFETCH_PROMOTED, 1);
	mock_ps_release(w->servers[0]);
	wait_completed(w, 4, 1);
	assert_int_equal(w->handles[3].completed, 0);
	wait_completed(w, 3, 1);
	world_close(w);
}

/* Who waits still waits when the communicator is another one. */
static void
test_promoted_kept(void **state)
{
	World	   *w = open_queued();

	nc_aio_promote(&w->area, 3, 7);
	world_wait_counter(w, NC_COUNTER_PREFETCH_PROMOTED, 1);
	world_stop(w);
	mock_ps_drop_all(w->servers[0]);
	mock_ps_fault(w->servers[0], MOCK_HOLD, 0, 1);
	world_start(w);
	wait_held(w, 4);
	expect_third_first(w, true);
	world_close(w);
}

/* One that nobody is known to wait for: at some time somebody is taken to. */
static void
test_promoted_old(void **state)
{
	World	   *w = open_queued();
	uint64_t	submitted_us = w->now_us;

	while (w->now_us - submitted_us < 900000)
		world_turns(w, 100);
	assert_int_equal(world_counter(w, NC_COUNTER_PREFETCH_PROMOTED), 0);
	while (w->now_us - submitted_us < 2100000)
		world_turns(w, 100);
	assert_int_equal(world_counter(w, NC_COUNTER_PREFETCH_PROMOTED), 4);
	expect_third_first(w, false);
	world_close(w);
}

/* A process that waits for one page does not queue behind the reads of a scan. */
static void
test_apart(void **state)
{
	World	   *w = open_world(1);
	WorldRead	r = {.slot = 0, .rel = 101, .block = 8, .dest = 4000};

	w->config.connections_per_shard_max = 2;
	world_start(w);
	submit(w, 0, 1, 100, 0, 1);
	wait_completed(w, 0, 1);
	world_wait_counter(w, NC_COUNTER_CONNECTS, 2);
	mock_ps_fault(w->servers[0], MOCK_HOLD, 0, 1);
	for (uint32_t h = 0; h < 10; h++)
		submit(w, h, 2, 100, NC_SLOT_BLOCKS_MAX * h, NC_SLOT_BLOCKS_MAX);
	wait_held(w, NC_CONN_BULK_DEPTH);
	nc_aio_promote(&w->area, 9, 2);
	world_submit(w, &r);
	world_wait(w, 0, 0);
	assert_true(world_pages_right(w, &r));
	assert_int_equal(world_collect(w, 0, 0), NC_SLOT_RESULT_OK);
	mock_ps_release(w->servers[0]);
	for (uint32_t h = 1; h < 10; h++)
		wait_completed(w, h, 1);
	/* a scan is no measure of what is usual */
	assert_int_equal(world_counter(w, NC_COUNTER_YIELDS), 0);
	world_close(w);
}

/* Its end is awaited, so a lost connection is no reason to fail it. */
static void
test_asked_again(void **state)
{
	World	   *w = open_queued();

	mock_ps_drop_all(w->servers[0]);
	for (uint32_t h = 0; h < 4; h++)
	{
		wait_completed(w, h, 1);
		expect_pages(w, h, 7, 100, NC_SLOT_BLOCKS_MAX * h, NC_SLOT_BLOCKS_MAX);
	}
	assert_int_equal(world_counter(w, NC_COUNTER_RESENT), 4);
	world_close(w);
}

/* ---- communicators come and go ---- */

static void
test_adoption(void **state)
{
	World	   *w = open_world(1);

	world_start(w);
	mock_ps_fault(w->servers[0], MOCK_HOLD, 0, 1);
	submit(w, 70, 1, 100, 7, 1);
	submit(w, 71, 1, 100, 8, 1);
	wait_held(w, 2);
	world_stop(w);
	assert_int_equal(state_of(w, 70), NC_SLOT_TAKEN);
	/* nobody is there, and somebody waits no longer */
	assert_true(nc_aio_claim(&w->area, 71, 1, w->now_us));
	submit(w, 72, 1, 100, 9, 1);
	world_start(w);
	assert_int_equal(world_counter(w, NC_COUNTER_REQUEUED), 1);
	wait_completed(w, 70, 1);
	wait_completed(w, 72, 1);
	expect_pages(w, 70, 1, 100, 7, 1);
	expect_pages(w, 72, 1, 100, 9, 1);
	world_turns(w, 50);
	assert_int_equal(w->handles[70].completed, 1);
	assert_int_equal(w->handles[71].completed, 0);
	world_close(w);
}

/* ---- what may be wrong ---- */

static void
test_begin_again(void **state)
{
	World	   *w = open_world(1);
	NcAioRead	read = {.rel = world_rel(100), .block = 1, .nblocks = 1, .request_lsn = NC_LSN_MAX};

	world_start(w);
	/* an error came before it was submitted */
	fill(w, 0, 1, 100, 7, 1);
	submit(w, 0, 2, 200, 9, 1);
	/* and one that has not ended does not begin again */
	assert_false(nc_aio_fill(&w->area, 0, 3, &read));
	wait_completed(w, 0, 1);
	expect_pages(w, 0, 2, 200, 9, 1);
	assert_int_equal(mock_ps_requests(w->servers[0]), 1);
	world_close(w);
}

static void
expect_bad(World *w, uint32_t handle)
{
	nc_aio_submit(&w->area, handle, w->now_us);
	(void) nc_ring_bell(&w->area);
	wait_completed(w, handle, 1);
	assert_int_equal(w->handles[handle].result, NC_SLOT_RESULT_BAD_REQUEST);
	assert_int_equal(nc_engine_busy(w->engine), 0);
}

/* Whatever is wrong, the handle is completed. */
static void
test_bad_requests(void **state)
{
	World	   *w = open_world(1);

	world_start(w);
	fill(w, 0, 1, 100, 7, NC_SLOT_BLOCKS_MAX + 1);
	expect_bad(w, 0);
	fill(w, 1, 1, 100, 7, 1);
	nc_aio_slot(&w->area, 1)->class = NC_SLOT_CLASS_DEMAND;
	expect_bad(w, 1);
	fill(w, 2, 1, 100, 7, 1);
	nc_aio_slot(&w->area, 2)->kind = NC_SLOT_KIND_NBLOCKS;
	expect_bad(w, 2);
	fill(w, 3, 1, 100, UINT32_MAX - 1, 2);
	expect_bad(w, 3);
	assert_int_equal(mock_ps_requests(w->servers[0]), 0);
	w->no_handle_pages = true;
	fill(w, 4, 1, 100, 7, 2);
	expect_bad(w, 4);
	world_close(w);
}

static void
test_no_server(void **state)
{
	World	   *w = open_world(1);

	w->map.shard_count = 0;
	world_start(w);
	submit(w, 0, 1, 100, 7, 1);
	wait_completed(w, 0, 1);
	assert_int_equal(w->handles[0].result, NC_SLOT_RESULT_NO_SERVER);
	world_close(w);
}

/* Nobody comes to look at a handle's slot: the host is told while it is still its. */
static void
test_traced(void **state)
{
	World	   *w = open_world(1);
	NcTraceContext at;

	world_trace(w);
	world_start(w);
	fill(w, 5, 1, 100, 40, 3);
	nc_slot_trace(&w->area, nc_aio_ring(&w->area, 5), 5)->sampled = NC_TRACE_SAMPLED | NC_TRACE_TELL;
	memset(&nc_slot_trace(&w->area, nc_aio_ring(&w->area, 5), 5)->at, 0x11, sizeof(at));
	nc_aio_submit(&w->area, 5, w->now_us);
	(void) nc_ring_bell(&w->area);
	submit(w, 6, 1, 100, 50, 1);
	wait_completed(w, 5, 1);
	wait_completed(w, 6, 1);
	assert_int_equal(w->traced, 1);
	assert_int_equal(mock_ps_traced(w->servers[0], &at), 3);
	world_close(w);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		BOTH(test_read),
		BOTH(test_traced),
		BOTH(test_range),
		BOTH(test_batch),
		BOTH(test_order),
		BOTH(test_error),
		BOTH(test_claim),
		BOTH(test_claim_before_take),
		BOTH(test_late_answer),
		BOTH(test_claim_half),
		BOTH(test_promoted),
		BOTH(test_promoted_other_life),
		BOTH(test_promoted_last_life),
		BOTH(test_promoted_before_submit),
		BOTH(test_promoted_kept),
		BOTH(test_promoted_old),
		BOTH(test_apart),
		BOTH(test_asked_again),
		BOTH(test_adoption),
		BOTH(test_begin_again),
		BOTH(test_bad_requests),
		BOTH(test_no_server)
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
