/*
 * engine_world.c
 *	  The bench of the engine's tests, see engine_world.h.
 */
#include "engine_world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

static uint64_t
host_now(void *ctx)
{
	World	   *w = ctx;

	w->now_us += w->clock_step_us;
	return w->now_us;
}

static void
host_wake(void *ctx, uint32_t ring)
{
	World	   *w = ctx;

	assert_true(ring < w->area.nrings);
	w->wakes++;
}

static uint8_t *
host_dest(void *ctx, uint32_t ring, uint32_t dest)
{
	World	   *w = ctx;

	assert_true(dest != NC_DEST_NONE);
	if (ring >= w->area.aio_first)
		return w->no_handle_pages ? NULL :
			world_handle_page(w, nc_aio_handle(&w->area, ring, NC_DEST_AIO_SLOT(dest)),
							  NC_DEST_AIO_INDEX(dest));
	return dest < WORLD_DEST_PAGES ? w->dest + (size_t) dest * NC_PAGE_BYTES : NULL;
}

uint8_t *
world_handle_page(World *w, uint32_t handle, uint32_t index)
{
	return w->dest + ((size_t) handle * NC_SLOT_BLOCKS_MAX + index) * NC_PAGE_BYTES;
}

static void
host_aio_complete(void *ctx, uint32_t handle, uint64_t handle_generation, NcSlotResult result,
				  const char *text)
{
	World	   *w = ctx;
	WorldHandle *h = &w->handles[handle];

	/* its owner may submit it again from here on */
	assert_int_equal(nc_slot_word_state(nc_slot_load(nc_aio_slot(&w->area, handle))), NC_SLOT_FREE);
	h->completed++;
	h->generation = handle_generation;
	h->result = result;
	snprintf(h->text, sizeof(h->text), "%s", text == NULL ? "" : text);
}

static void
host_log(void *ctx, NcLogLevel level, const char *message)
{
	World	   *w = ctx;
	size_t		used = strlen(w->log);

	snprintf(w->log + used, sizeof(w->log) - used, "%s\n", message);
	if (getenv("NC_TEST_VERBOSE") != NULL)
		fprintf(stderr, "%.4f %s\n", (double) w->now_us / 1e6, message);
}

World *
world_open(NcLoopMethod io, uint32_t nrings, uint32_t nservers)
{
	World	   *w = calloc(1, sizeof(*w));

	assert_non_null(w);
	w->io = io;
	w->area_memory = malloc(nc_ring_area_bytes(nrings));
	w->dest = calloc(WORLD_DEST_PAGES, NC_PAGE_BYTES);
	assert_non_null(w->area_memory);
	assert_non_null(w->dest);
	nc_ring_area_attach(&w->area, w->area_memory, nrings,
						eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), true);
	w->now_us = 1000000;
	w->config = (NcNetSettings) {
		.protocol_version = 3,
		.tenant_id = "11223344556677889900aabbccddeeff",
		.timeline_id = "ffeeddccbbaa00998877665544332211",
		.connections_per_shard_max = 4,
		.depth_max = 8,
		.readahead_yields = true,
		.connect_timeout_ms = 5000,
		.silence_timeout_ms = 20000,
		.idle_timeout_ms = 60000,
		.options = "-c neon_comm_identity=ab.cd"
	};
	for (uint32_t i = 0; i < nservers; i++)
		w->servers[i] = mock_ps_open(i);
	w->nservers = nservers;
	world_map(w, nservers, 1);
	return w;
}

World *
world_open_aio(NcLoopMethod io, uint32_t nrings, uint32_t nhandles, uint32_t nservers)
{
	World	   *w = world_open(io, nrings + nc_aio_rings(nhandles), nservers);

	assert_true(nhandles <= WORLD_HANDLES_MAX);
	w->area.aio_first = nrings;
	return w;
}

static void
host_traced(void *ctx, uint32_t ring, uint32_t slot)
{
	World	   *w = ctx;

	/* nobody may use it again yet, and all is there */
	assert_int_equal(nc_slot_word_state(nc_slot_load(&w->area.rings[ring].slots[slot])), NC_SLOT_COPYING);
	assert_true(nc_slot_trace(&w->area, ring, slot)->done_us != 0);
	w->traced++;
}

void
world_trace(World *w)
{
	w->traces = calloc((size_t) w->area.nrings * NC_RING_SLOTS, sizeof(NcSlotTrace));
	assert_non_null(w->traces);
	w->area.traces = w->traces;
}

NcHost
world_host(World *w)
{
	return (NcHost) {.ctx = w, .now_us = host_now, .wake = host_wake, .dest_page = host_dest,
		.aio_complete = host_aio_complete, .traced = host_traced, .log = host_log, .latency = &w->latency};
}

void
world_start(World *w)
{
	NcHost		host = world_host(w);
	char		err[256] = "";

	w->engine = nc_engine_create(&w->config, w->io, &w->area, &w->counters, w->rows, &host,
								 w->extra_fds, w->nextra_fds, err, sizeof(err));
	if (w->engine == NULL)
		fail_msg("%s", err);
	nc_engine_set_shard_map(w->engine, &w->map);
}

void
world_stop(World *w)
{
	nc_engine_destroy(w->engine);
	w->engine = NULL;
}

void
world_close(World *w)
{
	if (w->engine != NULL)
		world_stop(w);
	for (uint32_t i = 0; i < w->nservers; i++)
		mock_ps_close(w->servers[i]);
	close(w->area.eventfd);
	free(w->area_memory);
	free(w->traces);
	free(w->dest);
	free(w);
}

void
world_map(World *w, uint32_t n, uint32_t stripe)
{
	w->map.version++;
	w->map.shard_count = n;
	w->map.stripe_blocks = stripe;
	for (uint32_t i = 0; i < n; i++)
		snprintf(w->map.conninfo[i], sizeof(w->map.conninfo[i]), "%s",
				 mock_ps_conninfo(w->servers[i]));
}

void
world_turn(World *w)
{
	w->now_us += WORLD_TURN_US;
	for (uint32_t i = 0; i < w->nservers; i++)
		mock_ps_step(w->servers[i]);
	if (w->engine != NULL)
		nc_engine_tick(w->engine, w->wait_ms);
}

void
world_turns(World *w, uint32_t n)
{
	while (n-- > 0)
		world_turn(w);
}

void
world_wait(World *w, uint32_t ring, uint32_t slot)
{
	for (int i = 0; i < WORLD_TURNS_MAX; i++)
	{
		if (world_state(w, ring, slot) == NC_SLOT_DONE)
			return;
		world_turn(w);
	}
	fail_msg("ring %u slot %u is %s after %d turns; log:\n%s", ring, slot,
			 nc_slot_state_name(world_state(w, ring, slot)), WORLD_TURNS_MAX, w->log);
}

void
world_wait_counter(World *w, NcCounter id, uint64_t value)
{
	for (int i = 0; i < WORLD_TURNS_MAX; i++)
	{
		if (world_counter(w, id) >= value)
			return;
		world_turn(w);
	}
	fail_msg("counter %d is %llu after %d turns; log:\n%s", (int) id,
			 (unsigned long long) world_counter(w, id), WORLD_TURNS_MAX, w->log);
}

NcSlot *
world_slot(World *w, uint32_t ring, uint32_t slot)
{
	return &w->area.rings[ring].slots[slot];
}

NcSlotState
world_state(World *w, uint32_t ring, uint32_t slot)
{
	return nc_slot_word_state(nc_slot_load(world_slot(w, ring, slot)));
}

static void
move(World *w, uint32_t ring, uint32_t slot, NcSlotState from, NcSlotState to)
{
	NcSlot	   *s = world_slot(w, ring, slot);
	uint64_t	word = nc_slot_load(s);

	assert_int_equal(nc_slot_word_state(word), from);
	assert_true(nc_slot_move(s, word, to));
}

void
world_submit_quietly(World *w, const WorldRead *r)
{
	NcSlot	   *s = world_slot(w, r->ring, r->slot);
	NcRelKey	rel = world_rel(r->rel);
	uint32_t	nblocks = r->nblocks > 0 ? r->nblocks : 1;
	bool		run = r->class == NC_SLOT_CLASS_PREFETCH;
	uint32_t	dest_first = nblocks > 1 && !run ? 0 : r->slot;
	uint32_t	ndests = run ? 1 : nblocks;

	move(w, r->ring, r->slot, NC_SLOT_FREE, NC_SLOT_FILLING);
	s->spc = rel.spc;
	s->db = rel.db;
	s->rel = rel.rel;
	s->fork = (uint8_t) rel.fork;
	s->kind = (uint8_t) r->kind;
	s->class = (uint8_t) r->class;
	s->nblocks = (uint8_t) nblocks;
	s->block = r->block;
	s->dest_first = (uint16_t) dest_first;
	s->request_lsn = NC_LSN_MAX;
	s->not_modified_since = 0x1000;
	for (uint32_t i = 0; i < ndests && dest_first + i < NC_RING_DESTS; i++)
		w->area.rings[r->ring].dests[dest_first + i] =
			r->dest == NC_DEST_NONE ? NC_DEST_NONE : r->dest + i;
	move(w, r->ring, r->slot, NC_SLOT_FILLING, NC_SLOT_SUBMITTED);
}

void
world_submit(World *w, const WorldRead *r)
{
	world_submit_quietly(w, r);
	(void) nc_ring_notify(&w->area, r->ring, r->slot);
}

NcSlotResult
world_collect(World *w, uint32_t ring, uint32_t slot)
{
	NcSlotResult result = (NcSlotResult) world_slot(w, ring, slot)->result;

	move(w, ring, slot, NC_SLOT_DONE, NC_SLOT_FREE);
	return result;
}

bool
world_cancel(World *w, uint32_t ring, uint32_t slot)
{
	NcSlot	   *s = world_slot(w, ring, slot);
	uint64_t	word = nc_slot_load(s);
	NcSlotState state = nc_slot_word_state(word);

	return (state == NC_SLOT_SUBMITTED || state == NC_SLOT_TAKEN) &&
		nc_slot_move(s, word, NC_SLOT_FREE);
}

bool
world_pages_right(World *w, const WorldRead *r)
{
	NcRelKey	rel = world_rel(r->rel);
	uint32_t	nblocks = r->nblocks > 0 ? r->nblocks : 1;

	for (uint32_t i = 0; i < nblocks; i++)
	{
		uint32_t	block = r->block + i;
		uint32_t	shard = w->map.shard_count == 1 ? 0 :
			nc_shard_of_block(w->map.shard_count, w->map.stripe_blocks, &rel, block);

		/* servers know themselves by their place in the first map */
		for (uint32_t s = 0; s < w->nservers; s++)
			if (strcmp(w->map.conninfo[shard], mock_ps_conninfo(w->servers[s])) == 0 &&
				!mock_page_is(w->dest + (size_t) (r->dest + i) * NC_PAGE_BYTES, s, &rel, block))
				return false;
	}
	return true;
}

NcRelKey
world_rel(uint32_t rel)
{
	return (NcRelKey) {1663, 5, rel, NC_FORK_MAIN};
}

uint64_t
world_counter(World *w, NcCounter id)
{
	return nc_counter_value(&w->counters, id);
}

uint32_t
world_rows_in(World *w, NcConnState state)
{
	uint32_t	n = 0;

	for (uint32_t i = 0; i < NC_CONN_ROWS; i++)
		if (atomic_load(&w->rows[i].state) == (uint32_t) state)
			n++;
	return n;
}
