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
extern void __real_nc_net_turn(NcNet *net, uint64_t now_us);
extern void __wrap_nc_net_turn(NcNet *net, uint64_t now_us);
extern void __real_nc_deliver_wakes(NcEngine *e);
extern void __wrap_nc_deliver_wakes(NcEngine *e);

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

static const NcConn *
conn_of(const NcPool *pool, const NcFlight *flight)
{
	for (uint32_t i = 0; i < pool->nconns; i++)
		for (const NcFlight *f = pool->conns[i]->in_flight.head; f != NULL; f = f->next)
			if (f == flight)
				return pool->conns[i];
	return NULL;
}

/* The connection of any host of the shard that has it. */
static const NcConn *
conn_of_shard(const NcPool *pool, const NcFlight *flight)
{
	const NcNet *net = pool->net;
	const NcHosts *hosts = &net->hosts[pool->shard];
	const NcConn *c = NULL;

	for (uint32_t i = 0; i < hosts->count && c == NULL; i++)
		c = conn_of(net->pools[hosts->first + i], flight);
	return c;
}

/*
 * A request is sent a second time: elsewhere, not because of WAL that is missing, unless to another
 * host, and not too often.
 */
static void
check_hedge(const NcConn *c, const NcPart *first)
{
	const NcConn *before = conn_of_shard(c->pool, &first->flight);
	uint32_t	server = sim_server_of(c->pool->conninfo);

	sim.hedged++;
	if (before == NULL || before == c)
		sim_fail("a request that is not on its way elsewhere is sent a second time");
	if (before->pool != c->pool)
	{
		sim.elsewhere++;
		sim.total_elsewhere++;
		sim.late_us[before->pool - sim.engine->net->store] = sim.now_us;
		return;
	}
	if (before->in_flight.head->msg.not_modified_since > sim.servers[server].applied)
		sim_fail("a request is sent a second time although its page server waits for WAL");
	if (sim.admin_mean_us == 0 && sim.exit_rate == 0 &&
		sim.hedged - sim.elsewhere > (uint64_t) NC_LATE_BURST * sim.nservers * (sim.hosts ? sim.nservers : 1) +
		sim.foreground / NC_LATE_PRICE)
		sim_fail("%llu of %llu requests were sent a second time", (unsigned long long) sim.hedged,
				 (unsigned long long) sim.foreground);
}

/* Is there another host that can be asked? */
static bool
another_is_usable(const NcPool *pool)
{
	const NcNet *net = pool->net;
	const NcHosts *hosts = &net->hosts[pool->shard];

	for (uint32_t i = 0; i < hosts->count; i++)
		if (net->pools[hosts->first + i] != pool && nc_host_usable(net->pools[hosts->first + i]))
			return true;
	return false;
}

/* A request goes to a host that was found late, and there is one that nothing is held against. */
static bool
goes_to_late_host(const NcPool *pool)
{
	const NcNet *net = pool->net;
	const NcHosts *hosts = &net->hosts[pool->shard];
	uint64_t	late_us = sim.late_us[pool - net->store];
	bool		better = false;

	for (uint32_t i = 0; i < hosts->count; i++)
	{
		const NcPool *other = net->pools[hosts->first + i];

		better = better || (other != pool && other->share == NC_SHARE_ALL && nc_host_usable(other));
	}
	return better && (pool->share == 0 || (late_us != 0 && sim.now_us - late_us < NC_HOST_REST_MIN_US));
}

void
__wrap_nc_conn_send(NcConn *c, NcFlight *flight)
{
	NcPart	   *part = nc_part_of(flight);

	if (part->job == NULL || part->job->finished ||
		nc_slot_load(nc_job_slot(sim.engine, part->job)) != part->job->word)
		sim_fail("a request that nobody waits for is sent");
	if (c->stalled)
		sim_fail("a request is put on a connection that makes no progress");
	if (part->twin != NULL && !flight->was_sent)
		check_hedge(c, part->twin);
	else if (!flight->background && !flight->was_sent && !flight->hedged)
		sim.foreground++;
	if (!flight->hedged && !flight->was_sent && goes_to_late_host(c->pool))
		sim_fail("a request is sent to a host that was left, and another one could be asked");
	if (c->pool != sim.engine->net->pools[sim.engine->net->hosts[c->pool->shard].first])
		sim.total_other_host++;
	if (flight->was_sent)
		sim.sent_again++;
	if (flight->msg.tag == NC_REQ_GETPAGE)
		sim.page_requests++;
	__real_nc_conn_send(c, flight);
}

/* ---- hooks: the communicator may end after any piece of its turn, between DONE and the wake too ---- */

static void
may_exit(void)
{
	if (sim.in_turn && !sim.healed && sim_chance(sim.exit_rate))
		sim_exit_turn();
}

void
__wrap_nc_net_turn(NcNet *net, uint64_t now_us)
{
	may_exit();
	__real_nc_net_turn(net, now_us);
}

void
__wrap_nc_deliver_wakes(NcEngine *e)
{
	may_exit();
	__real_nc_deliver_wakes(e);
}

/* ---- after every step ---- */

/* May pages of a request be there already?  Those of a range come one by one. */
static bool
may_be_written(const SimAsk *a, NcSlotState state)
{
	return state == NC_SLOT_DONE || a->nblocks > 1;
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

/*
 * A slot is left SUBMITTED for want of room only when its shards have messages of
 * their own: what others fill concerns nobody else.  New maps make copies.
 */
static void
check_room(uint32_t ring, uint32_t index)
{
	SimAsk	   *a = &sim.rings[ring].asks[index];
	const NcShardMap *map = &sim.engine->map;

	if (sim.nmaps > 1)
		return;
	for (uint32_t i = 0; i < a->nblocks; i++)
	{
		uint32_t	shard = a->kind != NC_SLOT_KIND_GETPAGE ? 0 :
			nc_shard_of_block(map->shard_count, map->stripe_blocks, &a->rel, a->block + i);

		if (nc_net_load(sim.engine->net, shard) > 0)
		{
			a->refused_us = 0;
			return;
		}
	}
	if (a->refused_us == 0)
		a->refused_us = sim.now_us;
	if (sim.now_us - a->refused_us > 10 * NC_DEFERRED_RETRY_US)
		sim_fail("request #%llu of ring %u slot %u finds no room, and its page servers have nothing to do",
				 (unsigned long long) a->number, ring, index);
}

static void
check_slots(uint32_t ring)
{
	SimRing    *r = &sim.rings[ring];
	bool		rung = (atomic_load(&sim.area.doorbell->pending[0]) >> ring & 1) != 0;

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
		if (state == NC_SLOT_SUBMITTED && !rung)
			check_room(ring, i);
		if (a->active && sim.now_us - a->submitted_us > REQUEST_MAX_US)
			sim_fail("request #%llu of ring %u slot %u (%s) has waited for %llu s",
					 (unsigned long long) a->number, ring, i, nc_slot_state_name(state),
					 (unsigned long long) ((sim.now_us - a->submitted_us) / 1000000));
	}
}

/* Nothing that somebody has come to wait for stands among what nobody waits for, once that was announced. */
static void
check_queue(const NcFlightList *queue)
{
	for (const NcFlight *f = queue->head; f != NULL; f = f->next)
	{
		const NcJob *job = ((const NcPart *) f)->job;
		const SimAsk *a;

		if (job == NULL || job->finished || nc_slot_load(nc_job_slot(sim.engine, job)) != job->word)
			continue;
		a = job->ring >= sim.area.aio_first ? sim_aio_ask(job) : &sim.rings[job->ring].asks[job->slot];
		if (a->joined && (atomic_load(&sim.area.doorbell->pending[0]) >> job->ring & 1) == 0)
			sim_fail("request #%llu of ring %u slot %u is waited for and queued as if it were not",
					 (unsigned long long) a->number, job->ring, job->slot);
	}
}

static void
check_promotions(void)
{
	const NcNet *net = sim.engine->net;

	for (uint32_t i = 0; i < net->npools; i++)
		check_queue(&net->pools[i]->background);
}

static bool
somebody_waits(const NcFlight *flight)
{
	const NcJob *job = ((const NcPart *) flight)->job;

	return job != NULL && !job->finished && nc_slot_load(nc_job_slot(sim.engine, job)) == job->word;
}

/* A process waits behind an answer that has stalled half-way, may be helped, and is not. */
static bool
waits_behind(const NcPool *pool, const NcConn *c)
{
	const NcFlight *head = c->in_flight.head;

	return c->state == NC_CONN_READY && head != NULL && !head->background &&
		c->recv_start < c->recv_end && c->recv_buffer[c->recv_start] == 'd' &&
		sim.now_us - nc_conn_silent_since(c) >= nc_late_after_us(&pool->late) &&
		nc_late_may_spend(&pool->late) && ((const NcPart *) head)->twin == NULL &&
		somebody_waits(head);
}

static bool
has_idle(const NcPool *pool)
{
	for (uint32_t i = 0; i < pool->nconns; i++)
		if (pool->conns[i]->state == NC_CONN_READY && pool->conns[i]->in_flight.count == 0)
			return true;
	return false;
}

/* A copy takes a message: at their bound nobody is asked a second time. */
static bool
has_message_for_copy(void)
{
	const NcStore *parts = &sim.engine->parts;

	return parts->free_count > parts->reserved || parts->made < parts->max;
}

/* Nobody does so for long while another connection is idle. */
static void
check_stalled(const NcPool *pool, const NcConn *c)
{
	uint64_t   *since_us = &sim.waits_behind_us[c - sim.engine->net->conns];

	/* switched on again, the engine has its time from then on */
	if (!sim.config.hedged_reads || !waits_behind(pool, c) || !has_idle(pool) || !has_message_for_copy())
		*since_us = 0;
	else if (*since_us == 0)
		*since_us = sim.now_us;
	else if (sim.now_us - *since_us > 3 * NC_LATE_MIN_US)
		sim_fail("a request waits behind an answer that stalled %llu us ago, and another connection is idle",
				 (unsigned long long) (sim.now_us - nc_conn_silent_since(c)));
}

/*
 * With several hosts: nothing is queued where nothing can be sent while there is another one;
 * a process does not wait for ever for a host that is late while another one is idle; and a
 * host that was left comes back step by step, after a rest.
 */
static void
check_host(const NcPool *pool)
{
	uint32_t	p = (uint32_t) (pool - sim.engine->net->store);
	bool		strands = nc_pool_queued(pool) > 0 && !nc_host_usable(pool) && another_is_usable(pool);

	if (!strands)
		sim.queued_since_us[p] = 0;
	else if (sim.queued_since_us[p] == 0)
		sim.queued_since_us[p] = sim.now_us;
	else if (sim.now_us - sim.queued_since_us[p] > 20000)
		sim_fail("requests are queued for a host that has no connection, and another one has");
	if (pool->share == sim.share_seen[p] && sim.share_seen_us[p] != 0)
		return;
	if (sim.share_seen_us[p] != 0 && pool->share > sim.share_seen[p] + 1)
		sim_fail("the share of a host rose from %u to %u", sim.share_seen[p], pool->share);
	if (sim.share_seen_us[p] != 0 && pool->share > sim.share_seen[p] &&
		sim.now_us - sim.share_seen_us[p] < (sim.share_seen[p] == 0 ? NC_HOST_REST_MIN_US : NC_HOST_STEP_US) / 2)
		sim_fail("the share of a host rose after %llu us", (unsigned long long) (sim.now_us - sim.share_seen_us[p]));
	sim.share_seen[p] = pool->share;
	/* since when it has its first one is not known */
	sim.share_seen_us[p] = sim.share_seen_us[p] == 0 ? 1 : sim.now_us;
}

void
sim_check_forget_pools(void)
{
	memset(sim.late_us, 0, sizeof(sim.late_us));
	memset(sim.queued_since_us, 0, sizeof(sim.queued_since_us));
	memset(sim.share_seen_us, 0, sizeof(sim.share_seen_us));
}

/* Who waits for WAL of one host, or behind its answer, is helped by another one that is idle. */
static bool
is_left_alone(const NcPool *pool, const NcConn *c)
{
	const NcFlight *head = c->in_flight.head;
	const NcNet *net = pool->net;
	const NcHosts *hosts = &net->hosts[pool->shard];
	bool		idle = false;

	for (uint32_t i = 0; i < hosts->count; i++)
		idle = idle || (net->pools[hosts->first + i] != pool && has_idle(net->pools[hosts->first + i]));
	return idle && c->state == NC_CONN_READY && head != NULL && !head->background &&
		sim.now_us - nc_conn_silent_since(c) >= nc_late_after_us(&pool->late) + NC_HOST_WAL_US + 3 * NC_LATE_MIN_US &&
		((const NcPart *) head)->twin == NULL && somebody_waits(head) && has_message_for_copy();
}

static void
check_hosts(void)
{
	const NcNet *net = sim.engine->net;

	for (uint32_t i = 0; i < net->npools; i++)
	{
		const NcPool *pool = net->pools[i];

		if (net->hosts[pool->shard].count == 1)
			continue;
		check_host(pool);
		for (uint32_t k = 0; k < pool->nconns && sim.config.hedged_reads; k++)
		{
			uint64_t   *since_us = &sim.left_alone_us[pool->conns[k] - net->conns];

			if (!is_left_alone(pool, pool->conns[k]))
				*since_us = 0;
			else if (*since_us == 0)
				*since_us = sim.now_us;
			else if (sim.now_us - *since_us > 3 * NC_LATE_MIN_US)
				sim_fail("a request waits for a host since %llu us, and another one is idle",
						 (unsigned long long) (sim.now_us - nc_conn_silent_since(pool->conns[k])));
		}
	}
}

static void
check_hedging(void)
{
	const NcNet *net = sim.engine->net;

	for (uint32_t i = 0; i < net->npools; i++)
		for (uint32_t k = 0; k < net->pools[i]->nconns; k++)
			check_stalled(net->pools[i], net->pools[i]->conns[k]);
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
	EQUAL(HEDGED, sim.hedged);
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
	sim_aio_check();
	check_counters();
	check_promotions();
	check_hedging();
	check_hosts();
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

bool
sim_at_rest(void)
{
	return pools_empty(sim.engine->net);
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
