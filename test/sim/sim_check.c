/*
 * sim_check.c
 *	  What must hold after every step, when the communicator goes to sleep, and
 *	  at the end; and the hooks at the engine's own steps.
 */
#include "sim.h"

#include "net_int.h"

/* A request may take this long while things go wrong, and this long after they stopped. */
#define REQUEST_MAX_US UINT64_C(120000000)

extern bool __real_nc_slot_move(NcSlot *slot, uint64_t seen, NcSlotState to);
extern bool __wrap_nc_slot_move(NcSlot *slot, uint64_t seen, NcSlotState to);
extern void __real_nc_conn_send(NcConn *c, NcFlight *flight);
extern void __wrap_nc_conn_send(NcConn *c, NcFlight *flight);
extern bool __real_nc_doorbell_sleep(NcRingArea *area);
extern bool __wrap_nc_doorbell_sleep(NcRingArea *area);

/* ---- hooks: any process may act before and after each move of a slot ---- */

bool
__wrap_nc_slot_move(NcSlot *slot, uint64_t seen, NcSlotState to)
{
	NcSlotState from = nc_slot_word_state(seen);
	bool		moved;

	sim_poke();
	moved = __real_nc_slot_move(slot, seen, to);
	if (moved && from == NC_SLOT_SUBMITTED && to == NC_SLOT_TAKEN)
		sim.taken++;
	if (moved && from == NC_SLOT_TAKEN && to == NC_SLOT_SUBMITTED)
		sim.requeued++;
	sim_poke();
	return moved;
}

bool
__wrap_nc_doorbell_sleep(NcRingArea *area)
{
	bool		sleeps;

	sim_poke();
	sleeps = __real_nc_doorbell_sleep(area);
	sim_poke();
	return sleeps;
}

void
__wrap_nc_conn_send(NcConn *c, NcFlight *flight)
{
	NcPart	   *part = nc_part_of(flight);

	if (part->job == NULL || part->job->finished ||
		nc_slot_load(nc_job_slot(sim.engine, part->job)) != part->job->word)
		sim_fail("a request that nobody waits for is sent");
	if (flight->was_sent)
		sim.sent_again++;
	if (flight->msg.tag == NC_REQ_GETPAGE)
		sim.page_requests++;
	__real_nc_conn_send(c, flight);
}

/* ---- after every step ---- */

/* May pages of a request be there already?  Those of a range read ahead come one by one. */
static bool
may_be_written(const SimAsk *a, NcSlotState state)
{
	return state == NC_SLOT_DONE || (a->class == NC_SLOT_CLASS_PREFETCH && a->nblocks > 1);
}

/* Whatever is not DONE has not been written to. */
static void
check_pages(uint32_t ring)
{
	const SimRing *r = &sim.rings[ring];
	bool		skip[SIM_DEST_PAGES] = {false};

	for (uint32_t i = 0; i < NC_RING_SLOTS && r->active > 0; i++)
	{
		const SimAsk *a = &r->asks[i];

		if (a->active && a->kind == NC_SLOT_KIND_GETPAGE &&
			may_be_written(a, nc_slot_word_state(nc_slot_load(&sim.area.rings[ring].slots[i]))))
			for (uint32_t b = 0; b < a->nblocks; b++)
				if (a->dests[b] < SIM_DEST_PAGES)
					skip[a->dests[b]] = true;
	}
	for (uint32_t i = 0; i < SIM_DEST_PAGES; i++)
	{
		const uint64_t *page = sim_dest(ring, i);

		if (!skip[i] && (page[0] != sim_canary(ring, i) ||
						 page[SIM_PAGE_WORDS - 1] != sim_canary(ring, i)))
			sim_fail("a page of ring %u was written that %s: block %u of relation %u arrived", ring,
					 r->dest_used[i] ? "waits for an answer" : "nobody waits for",
					 (uint32_t) page[1], (uint32_t) (page[1] >> 32));
	}
}

static void
check_slots(uint32_t ring)
{
	SimRing    *r = &sim.rings[ring];

	for (uint32_t i = 0; i < NC_RING_SLOTS; i++)
	{
		NcSlotState state = nc_slot_word_state(nc_slot_load(&sim.area.rings[ring].slots[i]));
		const SimAsk *a = &r->asks[i];

		if (a->active != (state != NC_SLOT_FREE))
			sim_fail("slot %u of ring %u is %s but %s", i, ring, nc_slot_state_name(state),
					 a->active ? "in use" : "not in use");
		if (state == NC_SLOT_COPYING || state == NC_SLOT_FILLING)
			sim_fail("slot %u of ring %u is %s between turns", i, ring, nc_slot_state_name(state));
		if (state == NC_SLOT_DONE && r->asleep && !r->woken &&
			(r->asleep_for == NC_RING_SLOTS || r->asleep_for == i))
			sim_fail("ring %u sleeps, its slot %u is done and nobody woke it", ring, i);
		if (a->active && sim.now_us - a->submitted_us > REQUEST_MAX_US)
			sim_fail("request #%llu of ring %u slot %u (%s) has waited for %llu s",
					 (unsigned long long) a->number, ring, i, nc_slot_state_name(state),
					 (unsigned long long) ((sim.now_us - a->submitted_us) / 1000000));
	}
}

#define EQUAL(id, expected) \
	do { \
		uint64_t value_ = nc_counter_value(&sim.counters, NC_COUNTER_##id); \
		if (value_ != (uint64_t) (expected)) \
			sim_fail("counter " #id " is %llu, %llu were seen", (unsigned long long) value_, \
					 (unsigned long long) (expected)); \
	} while (0)

static void
check_counters(void)
{
	EQUAL(REQUESTS, sim.taken);
	EQUAL(REQUEUED, sim.requeued);
	EQUAL(WAKES, sim.wakes);
	EQUAL(FOUND_LATE, 0);
	EQUAL(RESENT, sim.sent_again);
	EQUAL(PAGES_REQUESTED, sim.page_requests);
	EQUAL(MAP_CHANGES, sim.map_changes);
	EQUAL(CONNECTS, sim.streams);
	/* nobody is blamed for what he did not do */
	if (nc_counter_value(&sim.counters, NC_COUNTER_POISONED) > sim.tainted_conns)
		sim_fail("%llu connections were closed for wrong answers, %llu gave one",
				 (unsigned long long) nc_counter_value(&sim.counters, NC_COUNTER_POISONED),
				 (unsigned long long) sim.tainted_conns);
}

void
sim_check_step(void)
{
	sim.steps++;
	if (++sim.stuck_turns > 100000)
		sim_fail("100000 turns and nothing happened");
	for (uint32_t r = 0; r < sim.nrings; r++)
	{
		check_slots(r);
		/* pages are many: each ring in its turn, all of them when one is small */
		if ((sim.steps + r) % 4 == 0)
			check_pages(r);
	}
	check_counters();
}

/* The communicator is about to wait. */
void
sim_check_sleep(void)
{
	if (atomic_load(&sim.area.doorbell->asleep) == 0)
		return;
	for (uint32_t w = 0; w < nc_doorbell_words(&sim.area); w++)
		if (atomic_load(&sim.area.doorbell->pending[w]) != 0 && sim.bell == 0)
			sim_fail("the communicator goes to sleep although a request was announced");
}

/* ---- the engine when nothing is asked ---- */

static void
check_store(const char *name, const NcStore *s)
{
	if (s->free_count != s->made || s->reserved != 0)
		sim_fail("%s: %u of %u are free and %u reserved, although nothing is asked", name,
				 s->free_count, s->made, s->reserved);
}

static bool
pools_empty(const NcNet *net)
{
	for (uint32_t i = 0; i < net->npools; i++)
	{
		const NcPool *pool = net->pools[i];

		if (pool->foreground.count + pool->promoted.count + pool->background.count + pool->again.count > 0)
			return false;
		for (uint32_t c = 0; c < pool->nconns; c++)
			if (pool->conns[c]->in_flight.count > 0)
				return false;
	}
	return true;
}

/* Descriptors belong to connections of the table. */
static void
check_descriptors(const NcNet *net)
{
	uint32_t	have = 0;

	for (uint32_t i = 0; i < NC_CONNS_MAX; i++)
	{
		const NcConn *c = &net->conns[i];

		if (c->handshake != NULL && nc_handshake_socket(c->handshake) >= 0)
			have++;
		if (c->state == NC_CONN_UNUSED && (c->recv_buffer != NULL || c->send_buffer != NULL))
			sim_fail("connection %u is unused and has buffers", i);
	}
	if (have != sim.open_fds)
		sim_fail("%u descriptors are open, connections have %u", sim.open_fds, have);
}

void
sim_check_idle(void)
{
	NcEngine   *e = sim.engine;

	if (e->unfinished != 0 || nc_engine_busy(e) != 0)
		sim_fail("%u requests are unfinished, although nothing is asked", e->unfinished);
	if (!pools_empty(e->net))
		sim_fail("requests are queued or in flight, although nothing is asked");
	check_store("jobs", &e->jobs);
	check_store("messages", &e->parts);
	check_store("staging pages", &e->pages);
	check_descriptors(e->net);
	for (uint32_t r = 0; r < sim.nrings; r++)
		check_pages(r);
}

/* After the engine has gone. */
void
sim_check_end(void)
{
	uint64_t	ended = nc_counter_value(&sim.counters, NC_COUNTER_DISCONNECTS);

	if (sim.open_fds != 0)
		sim_fail("%u descriptors are open at the end", sim.open_fds);
	if (sim.resolving != 0)
		sim_fail("%u names are being resolved for nobody", sim.resolving);
	if (ended > sim.streams)
		sim_fail("%llu connections were lost, %llu were made", (unsigned long long) ended,
				 (unsigned long long) sim.streams);
	if (!sim.tls)
	{
		if (nc_counter_value(&sim.counters, NC_COUNTER_BYTES_RECEIVED) > sim.bytes_in ||
			nc_counter_value(&sim.counters, NC_COUNTER_BYTES_SENT) > sim.bytes_out)
			sim_fail("more bytes were counted than there were");
	}
	if (sim.nevents > 0 && sim.pending != 0)
		sim_fail("%llu requests did not end", (unsigned long long) sim.pending);
}
