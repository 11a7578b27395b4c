/*
 * sim_world.c
 *	  Random numbers, events in virtual time, versions of pages, shard maps, and
 *	  what a seed decides.
 *
 * Pages identify themselves: every word follows from key, version, page server
 * and whether the connection it came from had misbehaved.
 */
#include "sim.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- random numbers: splitmix64 ---- */

static uint64_t
mix(uint64_t x)
{
	x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
	return x ^ x >> 31;
}

uint64_t
sim_random(void)
{
	sim.random += UINT64_C(0x9e3779b97f4a7c15);
	return mix(sim.random);
}

uint32_t
sim_below(uint32_t n)
{
	return n == 0 ? 0 : (uint32_t) (sim_random() >> 16) % n;
}

bool
sim_chance(uint32_t of_65536)
{
	return of_65536 > 0 && (sim_random() & 0xffff) < of_65536;
}

const char *
sim_fault_name(SimFault fault)
{
	static const char *const names[] = {
#define F(id, text) text,
		SIM_FAULTS(F)
#undef F
	};

	return names[fault];
}

bool
sim_fault(SimFault fault)
{
	if (sim.healed || sim.rate[fault] == 0 || !sim_chance(sim.rate[fault]))
		return false;
	sim.fault_count[fault]++;
	SIM_TRACE("fault: %s", sim_fault_name(fault));
	return true;
}

/* ---- trace ---- */

void
sim_note(uint64_t what)
{
	sim.hash = mix(sim.hash ^ what ^ sim.now_us << 20);
}

void
sim_trace(const char *fmt, ...)
{
	va_list		args;

	printf("%12.6f  ", (double) sim.now_us / 1e6);
	va_start(args, fmt);
	vprintf(fmt, args);
	va_end(args);
	putchar('\n');
}

void
sim_fail(const char *fmt, ...)
{
	va_list		args;

	printf("seed %llu: broken at %.6f s, step %llu: ", (unsigned long long) sim.seed,
		   (double) sim.now_us / 1e6, (unsigned long long) sim.steps);
	va_start(args, fmt);
	vprintf(fmt, args);
	va_end(args);
	printf("\nreplay: make sim SEED=%llu\n", (unsigned long long) sim.seed);
	fflush(stdout);
	_Exit(1);
}

/* ---- events: a binary heap, equal times in order of creation ---- */

static bool
before(const SimEvent *a, const SimEvent *b)
{
	return a->at_us != b->at_us ? a->at_us < b->at_us : a->order < b->order;
}

void
sim_at(uint64_t delay_us, SimEventKind kind, uint32_t index, uint64_t serial, uint64_t bytes)
{
	SimEvent	e = {sim.now_us + delay_us, ++sim.order, kind, index, serial, bytes};
	uint32_t	i = sim.nevents++;

	if (sim.nevents > sim.events_max)
	{
		sim.events_max = sim.events_max * 2 + 1024;
		sim.events = realloc(sim.events, sim.events_max * sizeof(*sim.events));
	}
	while (i > 0 && before(&e, &sim.events[(i - 1) / 2]))
	{
		sim.events[i] = sim.events[(i - 1) / 2];
		i = (i - 1) / 2;
	}
	sim.events[i] = e;
}

uint64_t
sim_next_event_us(void)
{
	return sim.nevents > 0 ? sim.events[0].at_us : UINT64_MAX;
}

static SimEvent
pop(void)
{
	SimEvent	first = sim.events[0];
	SimEvent	last = sim.events[--sim.nevents];
	uint32_t	i = 0;

	for (;;)
	{
		uint32_t	child = 2 * i + 1;

		if (child >= sim.nevents)
			break;
		if (child + 1 < sim.nevents && before(&sim.events[child + 1], &sim.events[child]))
			child++;
		if (!before(&sim.events[child], &last))
			break;
		sim.events[i] = sim.events[child];
		i = child;
	}
	if (sim.nevents > 0)
		sim.events[i] = last;
	return first;
}

void
sim_run_event(void)
{
	SimEvent	e = pop();

	if (e.at_us > sim.now_us)
		sim.now_us = e.at_us;
	sim.stuck_turns = 0;
	sim_note((uint64_t) e.kind << 32 | e.index);
	switch (e.kind)
	{
		case SIM_EV_HANDSHAKE:
		case SIM_EV_TO_SERVER:
		case SIM_EV_TO_CLIENT:
		case SIM_EV_SERVE:
		case SIM_EV_WINDOW:
		case SIM_EV_TRICKLE:
			sim_conn_event(&e);
			break;
		case SIM_EV_CLIENT:
			sim_client_act(e.index, e.bytes != 0);
			break;
		case SIM_EV_APPLY:
			sim_server_apply(e.index);
			break;
		case SIM_EV_SERVER:
			sim_server_toggle(e.index);
			break;
		case SIM_EV_RESOLVED:
			sim_resolve_event(e.serial);
			break;
		case SIM_EV_ADMIN:
			sim.admin_due = true;
			/* as a signal handler would */
			nc_ring_kick(&sim.area);
			break;
	}
}

/* ---- relations and versions ---- */

NcRelKey
sim_rel(uint32_t r)
{
	return (NcRelKey) {1663, 5, 16384 + r * 7, r == SIM_RELS - 1 ? NC_FORK_VM : NC_FORK_MAIN};
}

uint32_t
sim_rel_index(const NcRelKey *rel)
{
	uint32_t	r = (rel->rel - 16384) / 7;
	NcRelKey	same;

	if (r >= SIM_RELS)
		return UINT32_MAX;
	same = sim_rel(r);
	return nc_rel_key_equal(&same, rel) ? r : UINT32_MAX;
}

/* A process changes a page: it gets a new version. */
void
sim_write(uint32_t r, uint32_t block)
{
	if (sim.nversions == sim.versions_max)
	{
		sim.versions_max = sim.versions_max * 2 + 4096;
		sim.versions = realloc(sim.versions, sim.versions_max * sizeof(*sim.versions));
	}
	sim.lsn += 8 + 8 * sim_below(64);
	sim.versions[sim.nversions] = (SimVersion) {sim.lsn, sim.newest[r][block]};
	sim.newest[r][block] = ++sim.nversions;
}

NcLsn
sim_newest(uint32_t r, uint32_t block)
{
	return sim.versions[sim.newest[r][block] - 1].lsn;
}

/* The version of a page that a reader at this LSN sees; 0 when it was not there yet. */
NcLsn
sim_version_at(uint32_t r, uint32_t block, NcLsn lsn)
{
	uint32_t	v = sim.newest[r][block];

	while (v != 0 && sim.versions[v - 1].lsn > lsn)
		v = sim.versions[v - 1].older;
	return v != 0 ? sim.versions[v - 1].lsn : 0;
}

void
sim_page_fill(uint64_t *page, const NcRelKey *rel, uint32_t block, NcLsn lsn, uint32_t server,
			  bool poison)
{
	uint64_t	x = mix((uint64_t) nc_rel_key_hash(rel) << 32 ^ block ^ lsn << 8 ^
						(uint64_t) server << 56 ^ (poison ? UINT64_C(0x5000000000000000) : 0));

	page[0] = lsn;
	page[1] = (uint64_t) rel->rel << 32 | block;
	page[2] = (uint64_t) server << 32 | (poison ? 1 : 0);
	for (uint32_t i = 3; i < SIM_PAGE_WORDS; i++)
		page[i] = x + i * UINT64_C(0x9e3779b97f4a7c15);
}

uint64_t
sim_value(NcSlotKind kind, const NcRelKey *rel)
{
	switch (kind)
	{
		case NC_SLOT_KIND_EXISTS:
			return rel->rel % 2;
		case NC_SLOT_KIND_NBLOCKS:
			return rel->rel % 1000;
		case NC_SLOT_KIND_DBSIZE:
			return (uint64_t) rel->db * 3 * NC_PAGE_BYTES;
		case NC_SLOT_KIND_GETPAGE:
			break;
	}
	return 0;
}

/* ---- shard maps ---- */

static size_t
write_host(char *out, size_t bytes, uint32_t server)
{
	if (sim.names)
		return (size_t) snprintf(out, bytes, "ps%u.sim", server);
	return (size_t) snprintf(out, bytes, "10.0.0.%u", server + 1);
}

/* The server first, and with several hosts some of the others. */
static void
write_conninfo(char *out, size_t bytes, uint32_t server)
{
	size_t		at = (size_t) snprintf(out, bytes, "host=");
	uint32_t	more = sim.hosts ? sim_below(3) : 0;

	at += write_host(out + at, bytes - at, server);
	for (uint32_t i = 1; i <= more && i < sim.nservers; i++)
	{
		at += (size_t) snprintf(out + at, bytes - at, ",");
		at += write_host(out + at, bytes - at, (server + i) % sim.nservers);
	}
	snprintf(out + at, bytes - at, " port=64000 sslmode=disable");
}

bool
sim_is_host(const char *conninfo, uint32_t server)
{
	char		host[32];
	size_t		n = write_host(host, sizeof(host), server);
	const char *at = conninfo;

	while ((at = strstr(at, host)) != NULL)
	{
		if (at[n] == ',' || at[n] == ' ')
			return true;
		at += n;
	}
	return false;
}

uint32_t
sim_server_of(const char *text)
{
	const char *at = strstr(text, "10.0.0.");

	if (at != NULL)
		return (uint32_t) atoi(at + 7) - 1;
	at = strstr(text, "host=ps");
	return at != NULL ? (uint32_t) atoi(at + 7) : UINT32_MAX;
}

/* Another map, in force for page servers and processes from now on. */
void
sim_new_map(void)
{
	NcShardMap *map = &sim.maps[sim.nmaps];
	uint32_t	order[SIM_SERVERS_MAX];

	memset(map, 0, sizeof(*map));
	map->version = sim.nmaps + 1;
	map->shard_count = 1 + sim_below(sim.nservers);
	map->stripe_blocks = 1u << sim_below(6);
	for (uint32_t i = 0; i < sim.nservers; i++)
		order[i] = i;
	for (uint32_t i = 0; i < map->shard_count; i++)
	{
		uint32_t	j = i + sim_below(sim.nservers - i);
		uint32_t	s = order[j];

		order[j] = order[i];
		order[i] = s;
		if (sim.same_address && i > 0 && sim_below(3) == 0)
			s = order[sim_below(i)];
		write_conninfo(map->conninfo[i], sizeof(map->conninfo[i]), s);
	}
	sim.nmaps++;
}

uint32_t
sim_owner(uint32_t m, const NcRelKey *rel, uint32_t block)
{
	const NcShardMap *map = &sim.maps[m];

	return sim_server_of(map->conninfo[nc_shard_of_block(map->shard_count, map->stripe_blocks,
														 rel, block)]);
}

bool
sim_owns(uint32_t server, uint32_t m, const NcRelKey *rel, uint32_t block)
{
	const NcShardMap *map = &sim.maps[m];

	return sim_is_host(map->conninfo[nc_shard_of_block(map->shard_count, map->stripe_blocks,
													   rel, block)], server);
}

/*
 * Has each host of the shard said since then that it cannot answer?  Of the shard under one of
 * the maps since that one.
 */
bool
sim_all_hosts_refused(const NcRelKey *rel, uint32_t block, bool is_page, uint32_t first_map, uint64_t since_us)
{
	for (uint32_t m = first_map; m < sim.nmaps; m++)
	{
		bool		all = true;

		for (uint32_t s = 0; s < sim.nservers; s++)
		{
			bool		is_host = is_page ? sim_owns(s, m, rel, block) : sim_is_host(sim.maps[m].conninfo[0], s);
			uint64_t	us = sim.servers[s].refused_us[is_page ? sim_rel_index(rel) : SIM_RELS][is_page ? block : 0];

			all = all && (!is_host || us >= since_us);
		}
		if (all)
			return true;
	}
	return false;
}

/* ---- what a seed decides ---- */

static void
choose_faults(void)
{
	sim.quiet = sim_below(12) == 0;
	memset(sim.rate, 0, sizeof(sim.rate));
	for (uint32_t f = 0; f < SIM_FAULT_COUNT && !sim.quiet; f++)
		if (sim_below(4) == 0)
			sim.rate[f] = 65536 / (20u << sim_below(7));
	/* these come up with each operation, or put a whole page server out of use */
	sim.rate[SIM_IO_ERROR] /= 8;
	sim.rate[SIM_DOWN] /= 2;
	sim.rate[SIM_DOWN_SILENT] /= 2;
}

static void
choose_config(void)
{
	static const uint32_t depth[] = {1, 2, 4, 8, 32, 128};
	NcNetSettings *c = &sim.config;

	memset(c, 0, sizeof(*c));
	c->protocol_version = sim_below(8) == 0 ? 2 : 3;
	memset(c->tenant_id, 'a', 32);
	memset(c->timeline_id, 'b', 32);
	c->connections_per_shard_max = 1 + sim_below(5);
	c->connections_max = sim_below(4) == 0 ? SIM_SERVERS_MAX + sim_below(8) : 0;
	c->depth_max = depth[sim_below(6)];
	c->readahead_yields = sim_below(4) != 0;
	c->hedged_reads = sim_below(4) != 0;
	c->spin_us = sim_below(3) == 0 ? 1 + sim_below(8) : 0;
	c->connect_timeout_ms = 50 + sim_below(500);
	c->silence_timeout_ms = sim_below(2) == 0 ? 50 + sim_below(1000) : 5000;
	c->idle_timeout_ms = 20 + sim_below(2000);
}

static void
choose_world(void)
{
	sim.now_us = 1000000;
	sim.lsn = 0x10000;
	for (uint32_t r = 0; r < SIM_RELS; r++)
		for (uint32_t b = 0; b < SIM_BLOCKS; b++)
		{
			sim_write(r, b);
			if (sim_below(4) == 0)
				sim_write(r, b);
		}
	for (uint32_t i = 0; i < sim.nservers; i++)
		sim.servers[i].applied = sim.lsn;
	sim_new_map();
}

void
sim_choose(uint64_t seed)
{
	sim.seed = seed;
	sim.random = mix(seed + 1);
	sim.hash = seed;
	sim.nrings = 1 + sim_below(SIM_RINGS_MAX);
	sim.nservers = 1 + sim_below(SIM_SERVERS_MAX);
	sim.requests_max = 500 + sim_below(3000);
	sim.poke_rate = 1u << sim_below(7);
	sim.cancel_rate = sim_below(3) == 0 ? 0 : 65536 / (30u << sim_below(6));
	sim.write_rate = sim_below(20000);
	sim.active_max = 1 + sim_below(8);
	sim.delay_us = 20 + sim_below(400);
	sim.foreign = sim_below(2);
	sim.eager_send = sim_below(2) == 0;
	sim.late_cancel = sim_below(2) == 0;
	sim.tls = sim_below(5) == 0;
	sim.names = sim_below(4) == 0;
	sim.same_address = sim_below(6) == 0;
	sim.small_stores = sim_below(4) == 0;
	sim.admin_mean_us = sim_below(3) == 0 ? 0 : 5000u << sim_below(7);
	sim.exit_rate = sim_below(3) == 0 ? 65536 / (400u << sim_below(6)) : 0;
	if (sim.small_stores)
		sim.active_max = 8 + sim_below(24);
	sim.nhandles = sim_below(2) == 0 ? 1 + sim_below(SIM_HANDLES_MAX) : 0;
	sim.hosts = sim_below(3) == 0;
	choose_faults();
	choose_config();
	choose_world();
}
