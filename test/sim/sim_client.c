/*
 * sim_client.c
 *	  Processes that ask for pages: each owns a ring, fills slots, rings the
 *	  doorbell, sleeps, is woken, checks what it got, cancels, times out.
 *
 * They follow the rules of src/client: nothing of a request is looked at before
 * DONE, a slot is given back by compare-and-swap, after which its destinations
 * and entries are used again at once.  They act between turns, while the engine
 * sleeps, and at any point of a turn at which it calls out (sim_poke).
 */
#include "sim.h"

#include <stdio.h>
#include <stdlib.h>

#include "nc/lsn/request_lsn.h"

extern bool __real_nc_slot_move(NcSlot *slot, uint64_t seen, NcSlotState to);

/* ---- destinations ---- */

uint64_t *
sim_dest(uint32_t ring, uint32_t page)
{
	return (uint64_t *) (void *) (sim.pages +
								  ((size_t) ring * SIM_DEST_PAGES + page) * NC_PAGE_BYTES);
}

/* First and last word of a page that nobody may have written. */
uint64_t
sim_canary(uint32_t ring, uint32_t page)
{
	return UINT64_C(0xca4a000000000000) | (uint64_t) ring << 32 | page;
}

void
sim_give_dest(uint32_t ring, uint32_t page)
{
	uint64_t   *p = sim_dest(ring, page);

	p[0] = p[SIM_PAGE_WORDS - 1] = sim_canary(ring, page);
	sim.rings[ring].dest_used[page] = false;
}

uint32_t
sim_take_dest(uint32_t ring)
{
	SimRing    *r = &sim.rings[ring];
	uint32_t	page = sim_below(SIM_DEST_PAGES);

	/* mostly the one that was free last: a late answer finds somebody there */
	if (sim_below(2) == 0)
		page = 0;
	for (uint32_t i = 0; i < SIM_DEST_PAGES; i++)
	{
		uint32_t	at = (page + i) % SIM_DEST_PAGES;

		if (!r->dest_used[at])
		{
			r->dest_used[at] = true;
			return at;
		}
	}
	return UINT32_MAX;
}

/* n pages in a row, for a read ahead; NC_DEST_NONE when there are none. */
static uint32_t
take_run(uint32_t ring, uint32_t n)
{
	SimRing    *r = &sim.rings[ring];
	uint32_t	length = 0;

	for (uint32_t at = 0; at < SIM_DEST_PAGES; at++)
	{
		length = r->dest_used[at] ? 0 : length + 1;
		if (length < n)
			continue;
		for (uint32_t i = 0; i < n; i++)
			r->dest_used[at - i] = true;
		return at - n + 1;
	}
	return NC_DEST_NONE;
}

/* A read ahead names its first page only. */
static uint32_t
entries_of(const SimAsk *a)
{
	return a->class == NC_SLOT_CLASS_PREFETCH ? 1 : a->nblocks;
}

/* n entries of the ring's array in a row, or -1. */
static int
take_entries(SimRing *r, uint32_t n)
{
	for (uint32_t at = 0; at + n <= NC_RING_DESTS; at++)
	{
		uint64_t	mask = (n == 64 ? ~UINT64_C(0) : (UINT64_C(1) << n) - 1) << at;

		if ((r->dest_entries & mask) == 0)
		{
			r->dest_entries |= mask;
			return (int) at;
		}
	}
	return -1;
}

/* The request is over: what it used is free. */
static void
end_ask(uint32_t ring, uint32_t slot)
{
	SimRing    *r = &sim.rings[ring];
	SimAsk	   *a = &r->asks[slot];

	if (a->kind == NC_SLOT_KIND_GETPAGE)
	{
		for (uint32_t i = 0; i < a->nblocks; i++)
			if (a->dests[i] < SIM_DEST_PAGES)
				sim_give_dest(ring, a->dests[i]);
		r->dest_entries &= ~(((UINT64_C(1) << entries_of(a)) - 1) << a->dest_first);
	}
	a->active = false;
	r->active--;
	sim.pending--;
}

/* ---- asking ---- */

static void
choose_dests(uint32_t ring, SimAsk *a)
{
	uint32_t	run = NC_DEST_NONE;

	if (a->class == NC_SLOT_CLASS_PREFETCH && sim_below(3) != 0)
		run = take_run(ring, a->nblocks);
	for (uint32_t i = 0; i < a->nblocks; i++)
	{
		if (a->class == NC_SLOT_CLASS_PREFETCH)
			a->dests[i] = run == NC_DEST_NONE ? NC_DEST_NONE : run + i;
		else
			a->dests[i] = sim_take_dest(ring);
		if (a->dests[i] == NC_DEST_NONE && a->class != NC_SLOT_CLASS_PREFETCH)
			a->wrong = true;
	}
	if (a->nblocks == 1 && sim_below(200) == 0)
	{
		/* beyond what this process may name */
		if (a->dests[0] < SIM_DEST_PAGES)
			sim_give_dest(ring, a->dests[0]);
		a->dests[0] = SIM_DEST_PAGES + sim_below(1000);
		a->wrong = true;
	}
}

/* Chooses what to ask; false when the ring has no room for it. */
static bool
choose_ask(uint32_t ring, SimAsk *a)
{
	SimRing    *r = &sim.rings[ring];
	uint32_t	rel = sim_below(SIM_RELS);
	int			first;

	memset(a, 0, sizeof(*a));
	a->kind = sim_below(20) == 0 ? (NcSlotKind) (1 + sim_below(3)) : NC_SLOT_KIND_GETPAGE;
	a->class = sim_below(4) == 0 ? (NcSlotClass) (1 + sim_below(2)) : NC_SLOT_CLASS_DEMAND;
	a->rel = sim_rel(rel);
	a->nblocks = 1;
	if (a->kind != NC_SLOT_KIND_GETPAGE)
		return true;
	if (sim_below(sim.small_stores ? 2 : 6) == 0)
		a->nblocks = 1 + sim_below(NC_SLOT_BLOCKS_MAX);
	a->block = sim_below(SIM_BLOCKS - a->nblocks + 1);
	first = take_entries(r, entries_of(a));
	if (first < 0)
		return false;
	a->dest_first = (uint32_t) first;
	for (uint32_t i = 0; i < a->nblocks; i++)
		a->exact[i] = sim_newest(rel, a->block + i);
	choose_dests(ring, a);
	return true;
}

static void
fill_slot(uint32_t ring, uint32_t index, const SimAsk *a)
{
	NcRing	   *r = &sim.area.rings[ring];
	NcSlot	   *slot = &r->slots[index];
	NcLsn		since = 0;

	/* what somebody waited for in an earlier life of the slot */
	atomic_fetch_and(&r->promoted, ~(UINT64_C(1) << index));
	slot->spc = a->rel.spc;
	slot->db = a->rel.db;
	slot->rel = a->rel.rel;
	slot->fork = (uint8_t) a->rel.fork;
	slot->kind = (uint8_t) a->kind;
	slot->class = (uint8_t) a->class;
	slot->nblocks = (uint8_t) a->nblocks;
	slot->block = a->block;
	slot->dest_first = (uint16_t) a->dest_first;
	slot->result = NC_SLOT_RESULT_OK;
	slot->value = 0;
	slot->submit_us = sim.now_us;
	for (uint32_t i = 0; i < a->nblocks && a->kind == NC_SLOT_KIND_GETPAGE; i++)
	{
		if (i < entries_of(a))
			r->dests[a->dest_first + i] = a->dests[i];
		if (a->exact[i] > since)
			since = a->exact[i];
	}
	/* the map of last-written LSNs forgets upwards */
	if (sim_below(3) == 0)
		since += (sim.lsn - since) / (1 + sim_below(4));
	slot->not_modified_since = since;
	slot->request_lsn = sim_below(8) == 0 ? since + sim_below(1000) : NC_LSN_MAX;
}

static void
move(NcSlot *slot, NcSlotState to)
{
	if (!__real_nc_slot_move(slot, nc_slot_load(slot), to))
		sim_fail("a slot changed by itself");
}

static void
submit(uint32_t ring)
{
	SimRing    *r = &sim.rings[ring];
	uint32_t	index = sim_below(sim.active_max * 2 < NC_RING_SLOTS ? sim.active_max * 2 : NC_RING_SLOTS);
	SimAsk	   *a = &r->asks[index];
	NcSlot	   *slot = &sim.area.rings[ring].slots[index];

	if (a->active || !choose_ask(ring, a))
		return;
	a->active = true;
	a->submitted_us = sim.now_us;
	a->deadline_us = sim_below(8) == 0 ? sim.now_us + 1000 + sim_below(2000000) : UINT64_MAX;
	a->map = sim.nmaps - 1;
	a->number = ++sim.asked;
	r->active++;
	sim.pending++;
	move(slot, NC_SLOT_FILLING);
	fill_slot(ring, index, a);
	/* a request may be given up before it was submitted */
	if (sim_below(200) == 0)
	{
		move(slot, NC_SLOT_FREE);
		end_ask(ring, index);
		return;
	}
	move(slot, NC_SLOT_SUBMITTED);
	SIM_TRACE("ring %u slot %u asks #%llu kind %d class %d rel %u block %u+%u since %llx", ring, index,
			  (unsigned long long) a->number, (int) a->kind, (int) a->class, a->rel.rel, a->block,
			  a->nblocks, (unsigned long long) slot->not_modified_since);
	(void) nc_ring_notify(&sim.area, ring, index);
}

/* ---- getting ---- */

static bool
served_by_owner(const SimAsk *a, uint32_t server, uint32_t block)
{
	for (uint32_t m = a->map; m < sim.nmaps; m++)
		if (sim_owns(server, m, &a->rel, block))
			return true;
	return false;
}

/* One page that was delivered; the process refuses what nc_answer_verdict() refuses. */
void
sim_check_page(uint32_t ring, uint32_t slot, const SimAsk *a, uint32_t i)
{
	static uint64_t want[SIM_PAGE_WORDS];
	const uint64_t *page = sim_dest(ring, a->dests[i]);
	uint32_t	block = a->block + i;
	uint32_t	server = (uint32_t) (page[2] >> 32);
	NcLsn		lsn = page[0];

	if (lsn == sim_canary(ring, a->dests[i]))
		sim_fail("ring %u slot %u #%llu: DONE, but block %u was not written", ring, slot,
				 (unsigned long long) a->number, block);
	if (page[2] & 1)
		sim_fail("ring %u slot %u #%llu block %u: the page of an answer that is not to be used",
				 ring, slot, (unsigned long long) a->number, block);
	if (page[1] != ((uint64_t) a->rel.rel << 32 | block))
		sim_fail("ring %u slot %u #%llu: block %u of relation %u instead of block %u of %u", ring,
				 slot, (unsigned long long) a->number, (uint32_t) page[1],
				 (uint32_t) (page[1] >> 32), block, a->rel.rel);
	sim_page_fill(want, &a->rel, block, lsn, server, false);
	if (memcmp(want, page, NC_PAGE_BYTES) != 0)
		sim_fail("ring %u slot %u #%llu: the page of block %u is mixed", ring, slot,
				 (unsigned long long) a->number, block);
	if (!served_by_owner(a, server, block))
		sim_fail("ring %u slot %u #%llu: block %u came from server %u, which never had it", ring,
				 slot, (unsigned long long) a->number, block, server);
	if (nc_answer_verdict(lsn, a->exact[i], sim.lsn) != NC_ANSWER_OK)
	{
		sim.total_refused++;
		return;
	}
	if (lsn < a->exact[i] || lsn > sim.lsn)
		sim_fail("ring %u slot %u #%llu: block %u at %llx was accepted, %llx is known", ring, slot,
				 (unsigned long long) a->number, block, (unsigned long long) lsn,
				 (unsigned long long) a->exact[i]);
	sim.total_pages++;
}

/* What the slot says went wrong; the upper ones say nothing. */
static const char *
error_text(uint32_t ring, uint32_t index)
{
	return index < NC_RING_DEMAND_SLOTS ? sim.area.rings[ring].errors[index] : "";
}

/* Does the text speak of one of the blocks that were asked for? */
static bool
is_own_error(const SimAsk *a, const char *text)
{
	char		own[64];

	for (uint32_t i = 0; i < a->nblocks; i++)
	{
		snprintf(own, sizeof(own), SIM_ERROR_TEXT,
				 a->kind == NC_SLOT_KIND_DBSIZE ? 0 : a->rel.rel, a->block + i);
		if (strstr(text, own) != NULL)
			return true;
	}
	return false;
}

/* Which block of the request the error is of; UINT32_MAX = of none. */
static uint32_t
block_of_error(const SimAsk *a, const char *text)
{
	char		own[64];

	for (uint32_t i = 0; i < a->nblocks; i++)
	{
		snprintf(own, sizeof(own), SIM_ERROR_TEXT, a->rel.rel, a->block + i);
		if (strstr(text, own) != NULL)
			return a->block + i;
	}
	return UINT32_MAX;
}

/* What one host cannot do is no error as long as another one may. */
static void
check_host_error(uint32_t ring, uint32_t index, const SimAsk *a, const char *text)
{
	static const char *const texts[] = SIM_HOST_ERRORS;
	bool		is_page = a->kind == NC_SLOT_KIND_GETPAGE;
	uint32_t	block = block_of_error(a, text);

	if ((strstr(text, texts[0]) == NULL && strstr(text, texts[1]) == NULL) ||
		(is_page && block == UINT32_MAX) || a->class == NC_SLOT_CLASS_PREFETCH)
		return;
	sim.total_host_errors++;
	if (!sim_all_hosts_refused(&a->rel, block, is_page, a->map, a->submitted_us))
		sim_fail("ring %u slot %u #%llu: another host was not asked: %s", ring, index,
				 (unsigned long long) a->number, text);
}

void
sim_check_error(uint32_t ring, uint32_t index, const SimAsk *a, const char *text)
{
	sim.total_errors++;
	if (strstr(text, "a block of another shard") != NULL)
		sim_fail("ring %u slot %u #%llu: asked of the wrong shard: %s", ring, index,
				 (unsigned long long) a->number, text);
	if (index < NC_RING_DEMAND_SLOTS && strstr(text, "wrong shard") == NULL && !is_own_error(a, text))
		sim_fail("ring %u slot %u #%llu: an error of something else: \"%s\"", ring, index,
				 (unsigned long long) a->number, text);
	check_host_error(ring, index, a, text);
	if (sim.quiet && a->class != NC_SLOT_CLASS_PREFETCH)
		sim_fail("ring %u slot %u #%llu: an error without a fault: %s", ring, index,
				 (unsigned long long) a->number, text);
}

static void
collect(uint32_t ring, uint32_t index)
{
	SimAsk	   *a = &sim.rings[ring].asks[index];
	NcSlot	   *slot = &sim.area.rings[ring].slots[index];

	SIM_TRACE("ring %u slot %u #%llu done, result %u", ring, index,
			  (unsigned long long) a->number, slot->result);
	sim_note(slot->result);
	if ((slot->result == NC_SLOT_RESULT_BAD_REQUEST) != a->wrong)
		sim_fail("ring %u slot %u #%llu: result %u of a %s request", ring, index,
				 (unsigned long long) a->number, slot->result, a->wrong ? "wrong" : "right");
	switch ((NcSlotResult) slot->result)
	{
		case NC_SLOT_RESULT_OK:
			if (a->kind != NC_SLOT_KIND_GETPAGE && slot->value != sim_value(a->kind, &a->rel))
				sim_fail("ring %u slot %u #%llu: value %llu", ring, index,
						 (unsigned long long) a->number, (unsigned long long) slot->value);
			for (uint32_t i = 0; a->kind == NC_SLOT_KIND_GETPAGE && i < a->nblocks; i++)
				if (a->dests[i] != NC_DEST_NONE)
					sim_check_page(ring, index, a, i);
			break;
		case NC_SLOT_RESULT_PS_ERROR:
			sim_check_error(ring, index, a, error_text(ring, index));
			break;
		case NC_SLOT_RESULT_UNREACHABLE:
			if (a->class != NC_SLOT_CLASS_PREFETCH)
				sim_fail("ring %u slot %u #%llu: given up by the engine while somebody waits: %s", ring,
						 index, (unsigned long long) a->number, error_text(ring, index));
			sim.total_errors++;
			break;
		case NC_SLOT_RESULT_BAD_REQUEST:
			break;
		case NC_SLOT_RESULT_NO_SERVER:
			sim_fail("ring %u slot %u: no server, but there is a map", ring, index);
	}
	move(slot, NC_SLOT_FREE);
	end_ask(ring, index);
}

/* A cancel, a time-out, an exit: wins unless pages are being copied or are there. */
static void
give_up(uint32_t ring, uint32_t index)
{
	SimAsk	   *a = &sim.rings[ring].asks[index];
	NcSlot	   *slot = &sim.area.rings[ring].slots[index];
	uint64_t	word = nc_slot_load(slot);
	NcSlotState state = nc_slot_word_state(word);

	if (state == NC_SLOT_DONE)
		collect(ring, index);
	else if (state != NC_SLOT_COPYING)
	{
		if (!__real_nc_slot_move(slot, word, NC_SLOT_FREE))
			sim_fail("a slot changed by itself");
		SIM_TRACE("ring %u slot %u #%llu given up while %s", ring, index,
				  (unsigned long long) a->number, nc_slot_state_name(state));
		sim.total_cancels++;
		end_ask(ring, index);
	}
}

/* ---- life ---- */

/* Takes what is done; cancels what it has no patience for. */
static void
look(uint32_t ring)
{
	SimRing    *r = &sim.rings[ring];

	for (uint32_t i = 0; i < NC_RING_SLOTS && r->active > 0; i++)
	{
		SimAsk	   *a = &r->asks[i];

		if (!a->active)
			continue;
		if (nc_slot_word_state(nc_slot_load(&sim.area.rings[ring].slots[i])) == NC_SLOT_DONE)
			collect(ring, i);
		else if (sim.now_us >= a->deadline_us || (!sim.healed && sim_chance(sim.cancel_rate)))
			give_up(ring, i);
		else if (a->class == NC_SLOT_CLASS_PREFETCH && sim_below(16) == 0)
		{
			/* somebody waits for what was read ahead */
			a->joined = true;
			nc_ring_promote(&sim.area, ring, i);
		}
	}
}

/* Says that it sleeps, then looks once more, as sleep_once() of src/client does. */
static void
go_to_sleep(uint32_t ring)
{
	NcRing	   *shared = &sim.area.rings[ring];

	uint32_t	only = NC_RING_SLOTS;

	/* sometimes only the end of one request is worth a wake */
	if (sim_below(3) == 0)
		only = sim_below(NC_RING_SLOTS);
	if (only < NC_RING_SLOTS && !sim.rings[ring].asks[only].active)
		only = NC_RING_SLOTS;
	sim.rings[ring].asleep = true;
	sim.rings[ring].asleep_for = only;
	sim.rings[ring].woken = false;
	atomic_store(&shared->client_asleep, only < NC_RING_SLOTS ? NC_RING_ASLEEP_FOR(only) :
				 NC_RING_ASLEEP);
	for (uint32_t i = 0; i < NC_RING_SLOTS; i++)
		if ((only == NC_RING_SLOTS || i == only) &&
			nc_slot_word_state(nc_slot_load(&shared->slots[i])) == NC_SLOT_DONE)
		{
			sim.rings[ring].asleep = false;
			atomic_store(&shared->client_asleep, 0);
			collect(ring, i);
		}
}

static void
act(uint32_t ring)
{
	SimRing    *r = &sim.rings[ring];
	uint32_t	burst = 1 + sim_below(sim.active_max);

	r->asleep = false;
	atomic_store(&sim.area.rings[ring].client_asleep, 0);
	look(ring);
	while (!sim.healed && burst-- > 0 && r->active < sim.active_max &&
		   sim.asked < sim.requests_max)
	{
		if (sim_chance(sim.write_rate))
			sim_write(sim_below(SIM_RELS), sim_below(SIM_BLOCKS));
		submit(ring);
	}
	sim_aio_act();
	go_to_sleep(ring);
}

/* periodic: of its own accord; else it was woken. */
void
sim_client_act(uint32_t ring, bool periodic)
{
	bool		nested = sim.in_client;

	sim.in_client = true;
	act(ring);
	sim.in_client = nested;
	/* the next time: new work, or a look at deadlines */
	if (periodic)
		sim_at(100 + sim_below(sim.healed ? 100000 : 3000), SIM_EV_CLIENT, ring, 0, 1);
}

void
sim_client_wake(uint32_t ring)
{
	sim.rings[ring].woken = true;
	sim.wakes++;
}

/* Some process acts right now, within a turn of the engine. */
void
sim_poke(void)
{
	if (sim.in_client || (sim_random() & 1023) >= sim.poke_rate)
		return;
	sim.in_client = true;
	act(sim_below(sim.nrings));
	sim.in_client = false;
}

void
sim_client_give_up_all(void)
{
	sim.in_client = true;
	for (uint32_t r = 0; r < sim.nrings; r++)
		for (uint32_t i = 0; i < NC_RING_SLOTS; i++)
			if (sim.rings[r].asks[i].active)
				give_up(r, i);
	sim.in_client = false;
}
