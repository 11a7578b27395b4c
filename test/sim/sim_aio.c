/*
 * sim_aio.c
 *	  AIO handles: processes that submit them in batches and use them again, and
 *	  processes that wait for one, some of them since long ago, and wait no longer.
 *
 * A handle is completed once in each life, by the communicator or by who took the
 * read away from it.  From then on its pages are anybody's, and often somebody's at
 * once: what is written to them later is found there.
 */
#include "sim.h"

static uint32_t
index_of(uint32_t handle)
{
	return handle / SIM_HANDLE_STEP;
}

static uint32_t
handle_of(uint32_t index)
{
	return index * SIM_HANDLE_STEP;
}

static SimAsk *
ask_of(uint32_t index)
{
	return &sim.rings[SIM_AIO_ASKS].asks[index];
}

static NcSlot *
slot_of(uint32_t index)
{
	return nc_aio_slot(&sim.area, handle_of(index));
}

static void
give_pages(uint32_t index)
{
	SimAsk	   *a = ask_of(index);

	for (uint32_t i = 0; i < a->nblocks; i++)
		sim_give_dest(SIM_AIO_ASKS, a->dests[i]);
	a->nblocks = 0;
}

/* ---- completion ---- */

/* As pgaio_io_process_completion(): by one process, once in a life. */
static void
complete(uint32_t index, uint64_t generation)
{
	SimHandle  *h = &sim.handles[index];
	SimAsk	   *a = ask_of(index);

	if (!h->submitted || h->generation != generation)
		sim_fail("handle %u is completed in life %llu, it is in life %llu%s", handle_of(index),
				 (unsigned long long) generation, (unsigned long long) h->generation,
				 h->submitted ? "" : ", which has ended");
	h->submitted = false;
	a->active = false;
	sim.pending--;
	give_pages(index);
	/* its owner gives it its next life at once, or a little later: it cannot be told */
	h->generation++;
}

static void
check_result(uint32_t index, NcSlotResult result, const char *text)
{
	const SimAsk *a = ask_of(index);

	if ((result == NC_SLOT_RESULT_BAD_REQUEST) != a->wrong)
		sim_fail("handle %u #%llu: result %u of a %s request", handle_of(index),
				 (unsigned long long) a->number, result, a->wrong ? "wrong" : "right");
	if (result == NC_SLOT_RESULT_OK)
		for (uint32_t i = 0; i < a->nblocks; i++)
			sim_check_page(SIM_AIO_ASKS, index, a, i);
	else if (result == NC_SLOT_RESULT_PS_ERROR)
		sim_check_error(SIM_AIO_ASKS, index, a, text);
	else if (result != NC_SLOT_RESULT_BAD_REQUEST)
		sim_fail("handle %u #%llu: given up by the engine, result %u: %s", handle_of(index),
				 (unsigned long long) a->number, result, text);
}

/* ---- submitting ---- */

/* False when there are no pages left. */
static bool
choose(uint32_t index)
{
	SimAsk	   *a = ask_of(index);
	uint32_t	rel = sim_below(SIM_RELS);

	memset(a, 0, sizeof(*a));
	a->kind = NC_SLOT_KIND_GETPAGE;
	a->class = NC_SLOT_CLASS_AIO;
	a->rel = sim_rel(rel);
	a->nblocks = 1 + sim_below(sim_below(4) == 0 ? NC_SLOT_BLOCKS_MAX : 3);
	a->block = sim_below(SIM_BLOCKS - a->nblocks + 1);
	for (uint32_t i = 0; i < a->nblocks; i++)
	{
		a->exact[i] = sim_newest(rel, a->block + i);
		a->dests[i] = sim_take_dest(SIM_AIO_ASKS);
		if (a->dests[i] == UINT32_MAX)
			a->nblocks = i;
	}
	return a->nblocks > 0;
}

static void
fill(uint32_t index)
{
	SimAsk	   *a = ask_of(index);
	NcAioRead	read = {.rel = a->rel, .block = a->block, .nblocks = a->nblocks,
		.request_lsn = NC_LSN_MAX};

	for (uint32_t i = 0; i < a->nblocks; i++)
		if (a->exact[i] > read.not_modified_since)
			read.not_modified_since = a->exact[i];
	if (!nc_aio_fill(&sim.area, handle_of(index), sim.handles[index].generation, &read))
		sim_fail("handle %u cannot be submitted: its slot is %s", handle_of(index),
				 nc_slot_state_name(nc_slot_word_state(nc_slot_load(slot_of(index)))));
	if (sim_below(200) == 0)
	{
		slot_of(index)->kind = NC_SLOT_KIND_NBLOCKS;
		a->wrong = true;
	}
}

static void
submit(uint32_t index)
{
	SimHandle  *h = &sim.handles[index];
	SimAsk	   *a = ask_of(index);

	if (!choose(index))
		return;
	fill(index);
	if (sim_below(30) == 0)
	{
		/* an error before it was submitted: the slot stays as it is */
		give_pages(index);
		h->generation++;
		return;
	}
	if (sim_below(20) == 0)
	{
		/* the server calls it submitted already, and somebody waits */
		nc_aio_promote(&sim.area, handle_of(index), h->generation);
		a->joined = true;
	}
	a->active = true;
	a->submitted_us = sim.now_us;
	a->deadline_us = sim_below(8) == 0 ? sim.now_us + 1000 + sim_below(2000000) : UINT64_MAX;
	a->map = sim.nmaps - 1;
	a->number = ++sim.asked;
	h->submitted = true;
	sim.pending++;
	SIM_TRACE("handle %u life %llu asks #%llu rel %u block %u+%u", handle_of(index),
			  (unsigned long long) h->generation, (unsigned long long) a->number, a->rel.rel, a->block,
			  a->nblocks);
	nc_aio_submit(&sim.area, handle_of(index), sim.now_us);
}

/* ---- waiting ---- */

/* Somebody takes the read away, or finds that it is not the one he waits for. */
static void
claim(uint32_t index, uint64_t generation, uint64_t until_us)
{
	SimHandle  *h = &sim.handles[index];
	NcSlotState state = nc_slot_word_state(nc_slot_load(slot_of(index)));
	/* later states: it is being completed */
	bool		may = h->submitted && h->generation == generation &&
		(state == NC_SLOT_SUBMITTED || state == NC_SLOT_TAKEN) &&
		ask_of(index)->submitted_us <= until_us;

	if (nc_aio_claim(&sim.area, handle_of(index), generation, until_us) != may)
		sim_fail("handle %u in life %llu, its slot %s, is %s who waits for life %llu", handle_of(index),
				 (unsigned long long) h->generation, nc_slot_state_name(state),
				 may ? "kept from" : "given to", (unsigned long long) generation);
	if (!may)
		return;
	SIM_TRACE("handle %u #%llu taken away", handle_of(index),
			  (unsigned long long) ask_of(index)->number);
	sim.total_claims++;
	sim_note(generation);
	complete(index, generation);
}

/* Somebody comes to wait, for this life or one that is over. */
static void
promote(uint32_t index, uint64_t generation)
{
	SimHandle  *h = &sim.handles[index];

	nc_aio_promote(&sim.area, handle_of(index), generation);
	if (!h->submitted || h->generation != generation)
		return;
	ask_of(index)->joined = true;
	sim.total_promoted++;
}

static void
wait_for(uint32_t index)
{
	SimHandle  *h = &sim.handles[index];
	const SimAsk *a = ask_of(index);

	/* found in a buffer, now or long ago */
	if (sim_below(8) == 0)
		h->waited = h->generation;
	else if (sim_below(16) == 0)
		promote(index, h->waited);
	else if (sim_below(64) == 0)
		claim(index, h->waited, sim.healed ? 0 : sim.now_us);
	if (!h->submitted)
		return;
	if (sim.now_us >= a->deadline_us)
		claim(index, h->generation, sim.now_us);
	else if (!sim.healed && sim_chance(sim.cancel_rate))
		/* not so old, or an owner that ends */
		claim(index, h->generation, a->submitted_us - sim_below(2));
}

void
sim_aio_act(void)
{
	uint32_t	n = sim.nhandles > 0 ? sim_below(4) : 0;
	bool		submitted = false;

	while (n-- > 0)
	{
		uint32_t	index = sim_below(sim.nhandles);

		if (sim.handles[index].submitted)
			wait_for(index);
		else if (!sim.healed && sim.asked < sim.requests_max)
		{
			submit(index);
			submitted = true;
		}
	}
	if (submitted)
		(void) nc_ring_bell(&sim.area);
}

/* ---- the engine's host ---- */

uint8_t *
sim_aio_page(uint32_t ring, uint32_t dest)
{
	uint32_t	index = index_of(nc_aio_handle(&sim.area, ring, NC_DEST_AIO_SLOT(dest)));
	const SimAsk *a = ask_of(index);

	/* the server knows where they go while the handle is on its way */
	if (!sim.handles[index].submitted || NC_DEST_AIO_INDEX(dest) >= a->nblocks)
		sim_fail("handle %u is not on its way and its page %u is asked for", handle_of(index),
				 NC_DEST_AIO_INDEX(dest));
	return (uint8_t *) sim_dest(SIM_AIO_ASKS, a->dests[NC_DEST_AIO_INDEX(dest)]);
}

const SimAsk *
sim_aio_ask(const NcJob *job)
{
	return ask_of(index_of(nc_aio_handle(&sim.area, job->ring, job->slot)));
}

void
sim_aio_complete(void *ctx, uint32_t handle, uint64_t generation, NcSlotResult result,
				 const char *text)
{
	uint32_t	index = index_of(handle);

	SIM_TRACE("handle %u #%llu done, result %d", handle, (unsigned long long) ask_of(index)->number,
			  (int) result);
	sim_note(result);
	if (nc_slot_word_state(nc_slot_load(slot_of(index))) != NC_SLOT_FREE)
		sim_fail("handle %u is completed and cannot be used again: its slot is %s", handle,
				 nc_slot_state_name(nc_slot_word_state(nc_slot_load(slot_of(index)))));
	sim_poke();
	if (sim.handles[index].submitted && sim.handles[index].generation == generation)
		check_result(index, result, text == NULL ? "" : text);
	complete(index, generation);
	sim.total_handles++;
	/* its owner runs on another processor */
	if (!sim.healed && !sim.in_client && sim_below(4) == 0 && sim.asked < sim.requests_max)
	{
		sim.in_client = true;
		submit(index);
		(void) nc_ring_bell(&sim.area);
		sim.in_client = false;
	}
}

/* ---- after every step ---- */

static void
check_handle(uint32_t index)
{
	const SimAsk *a = ask_of(index);
	NcSlotState state = nc_slot_word_state(nc_slot_load(slot_of(index)));
	bool		asks = state == NC_SLOT_SUBMITTED || state == NC_SLOT_TAKEN;

	if (sim.handles[index].submitted != asks || (!asks && state != NC_SLOT_FREE && state != NC_SLOT_FILLING))
		sim_fail("handle %u is %s and its slot is %s", handle_of(index),
				 sim.handles[index].submitted ? "on its way" : "not on its way", nc_slot_state_name(state));
	if (a->active && sim.now_us - a->submitted_us > UINT64_C(120000000))
		sim_fail("handle %u #%llu (%s) has waited for %llu s", handle_of(index),
				 (unsigned long long) a->number, nc_slot_state_name(state),
				 (unsigned long long) ((sim.now_us - a->submitted_us) / 1000000));
}

void
sim_aio_check(void)
{
	bool		lent[SIM_DEST_PAGES] = {false};

	for (uint32_t i = 0; i < sim.nhandles; i++)
	{
		const SimAsk *a = ask_of(i);

		check_handle(i);
		/* those of a range come one by one */
		for (uint32_t b = 0; a->active && a->nblocks > 1 && b < a->nblocks; b++)
			lent[a->dests[b]] = true;
	}
	for (uint32_t i = 0; i < SIM_DEST_PAGES && sim.nhandles > 0; i++)
	{
		const uint64_t *page = sim_dest(SIM_AIO_ASKS, i);

		if (!lent[i] && (page[0] != sim_canary(SIM_AIO_ASKS, i) ||
						 page[SIM_PAGE_WORDS - 1] != sim_canary(SIM_AIO_ASKS, i)))
			sim_fail("a page of a handle was written that %s: block %u of relation %u arrived",
					 sim.rings[SIM_AIO_ASKS].dest_used[i] ? "waits for an answer" : "nobody waits for",
					 (uint32_t) page[1], (uint32_t) (page[1] >> 32));
	}
}
