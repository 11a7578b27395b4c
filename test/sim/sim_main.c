/*
 * sim_main.c
 *	  Runs seeds: chooses a world, turns the engine until all requests have
 *	  ended, stops the faults, checks that everything comes to rest.
 *
 *	sim [--seed N | --seeds N [--first N]] [--trace]
 *
 * --seeds also runs the first seeds twice: the same seed must give the same
 * history.  The status is 1 when an invariant broke.
 */
#include "sim.h"

#include <malloc.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
#include <unistd.h>

/* Seeds that are run twice. */
#define TWICE 3

/* Virtual time that faults last at most, and that everything has to end in afterwards. */
#define RUN_MAX_US UINT64_C(60000000)
#define REST_MAX_US UINT64_C(90000000)

/* Real time after which a seed counts as an endless loop. */
#define SEED_SECONDS_MAX 120

Sim			sim;

/* ---- the engine's host ---- */

static uint64_t
host_now(void *ctx)
{
	sim_poke();
	return sim.now_us;
}

static void
host_wake(void *ctx, uint32_t ring)
{
	sim_client_wake(ring);
	sim_at(1 + sim_below(60), SIM_EV_CLIENT, ring, 0, 0);
}

static uint8_t *
host_dest(void *ctx, uint32_t ring, uint32_t dest)
{
	sim_poke();
	if (ring >= sim.nrings)
		return sim_aio_page(ring, dest);
	return dest < SIM_DEST_PAGES ? (uint8_t *) sim_dest(ring, dest) : NULL;
}

static void
host_log(void *ctx, NcLogLevel level, const char *message)
{
	SIM_TRACE("log: %s", message);
}

static void
start_engine(void)
{
	NcHost		host = {
		.now_us = host_now,
		.wake = host_wake,
		.dest_page = host_dest,
		.aio_complete = sim_aio_complete,
		.log = host_log
	};
	char		err[256] = "";

	sim.engine = nc_engine_create(&sim.config, NC_LOOP_EPOLL, &sim.area, &sim.counters, sim.rows,
								  &host, NULL, 0, err, sizeof(err));
	if (sim.engine == NULL)
		sim_fail("no engine: %s", err);
	if (sim.small_stores)
	{
		/* the least with which a shard that has nothing gets its first range, as with the real bound */
		sim.engine->parts.max = 2 * NC_SLOT_BLOCKS_MAX * sim.nservers;
	}
	sim.map_changes++;
	nc_engine_set_shard_map(sim.engine, &sim.maps[sim.nmaps - 1]);
	sim_check_forget_pools();
}

/* ---- what an administrator does ---- */

static bool
maps_equal(const NcShardMap *a, const NcShardMap *b)
{
	if (a->shard_count != b->shard_count || a->stripe_blocks != b->stripe_blocks)
		return false;
	for (uint32_t i = 0; i < a->shard_count; i++)
		if (strcmp(a->conninfo[i], b->conninfo[i]) != 0)
			return false;
	return true;
}

static void
change_map(void)
{
	if (sim.nmaps == SIM_MAPS_MAX)
		return;
	sim_new_map();
	sim.total_maps++;
	SIM_TRACE("map %u: %u shards, stripe %u", sim.nmaps, sim.maps[sim.nmaps - 1].shard_count,
			  sim.maps[sim.nmaps - 1].stripe_blocks);
	if (!maps_equal(&sim.maps[sim.nmaps - 1], &sim.maps[sim.nmaps - 2]))
		sim.map_changes++;
	nc_engine_set_shard_map(sim.engine, &sim.maps[sim.nmaps - 1]);
	sim_check_forget_pools();
}

static void
change_config(void)
{
	NcNetSettings *c = &sim.config;

	c->connections_per_shard_max = 1 + sim_below(5);
	c->depth_max = 1 + sim_below(64);
	c->idle_timeout_ms = 20 + sim_below(2000);
	c->hedged_reads = sim_below(4) != 0;
	if (sim_below(4) == 0)
		c->timeline_id[0] = c->timeline_id[0] == 'b' ? 'c' : 'b';
	SIM_TRACE("settings change");
	nc_engine_configure(sim.engine, c);
}

static void
restart_engine(void)
{
	sim.total_restarts++;
	SIM_TRACE("the communicator restarts");
	nc_engine_destroy(sim.engine);
	sim.engine = NULL;
	if (sim.open_fds != 0)
		sim_fail("%u descriptors are open after the communicator ended", sim.open_fds);
	for (uint32_t i = 0; i < sim.nservers; i++)
		sim.servers[i].failed_us = 0;
	start_engine();
}

static jmp_buf exit_turn;

void
sim_exit_turn(void)
{
	longjmp(exit_turn, 1);
}

static void
administrate(void)
{
	sim.admin_due = false;
	switch (sim_below(8))
	{
		case 0:
		case 1:
			change_config();
			break;
		case 2:
			restart_engine();
			break;
		default:
			change_map();
			break;
	}
	sim_at(sim.admin_mean_us / 2 + sim_below(sim.admin_mean_us), SIM_EV_ADMIN, 0, 0, 0);
}

/* ---- one seed ---- */

static void
forget_last_seed(void)
{
	SimEvent   *events = sim.events;
	uint32_t	events_max = sim.events_max;
	SimVersion *versions = sim.versions;
	uint32_t	versions_max = sim.versions_max;
	uint8_t    *pages = sim.pages;
	void	   *area = sim.area_memory;
	static SimConn conns[SIM_CONNS_MAX];

	/* all but the sums at its beginning; memory is used again */
	memcpy(conns, sim.conns, sizeof(conns));
	memset((char *) &sim + offsetof(Sim, seed), 0, sizeof(sim) - offsetof(Sim, seed));
	memcpy(sim.conns, conns, sizeof(conns));
	sim.events = events;
	sim.events_max = events_max;
	sim.versions = versions;
	sim.versions_max = versions_max;
	sim.pages = pages;
	sim.area_memory = area;
}

static void
make_world(uint64_t seed)
{
	forget_last_seed();
	sim_choose(seed);
	if (sim.area_memory == NULL)
	{
		sim.area_memory = malloc(nc_ring_area_bytes(SIM_RINGS_MAX + SIM_AIO_RINGS));
		sim.pages = malloc((size_t) (SIM_RINGS_MAX + 1) * SIM_DEST_PAGES * NC_PAGE_BYTES);
	}
	nc_ring_area_attach(&sim.area, sim.area_memory,
						sim.nrings + (sim.nhandles > 0 ? SIM_AIO_RINGS : 0), SIM_EVENT_FD, true);
	sim.area.aio_first = sim.nrings;
	for (uint32_t r = 0; r <= SIM_RINGS_MAX; r++)
		for (uint32_t i = 0; i < SIM_DEST_PAGES; i++)
			sim_give_dest(r, i);
	for (uint32_t r = 0; r < sim.nrings; r++)
		sim_at(sim_below(1000), SIM_EV_CLIENT, r, 0, 1);
	for (uint32_t i = 0; i < sim.nservers; i++)
	{
		sim_at(sim_below(1000), SIM_EV_APPLY, i, 0, 0);
		sim_at(sim_below(50000), SIM_EV_SERVER, i, 0, 0);
	}
	if (sim.admin_mean_us > 0)
		sim_at(sim_below(sim.admin_mean_us), SIM_EV_ADMIN, 0, 0, 0);
	start_engine();
}

static void
turn(void)
{
	sim.in_turn = true;
	if (setjmp(exit_turn) == 0)
		(void) nc_engine_tick(sim.engine, 1000);
	else
	{
		sim.in_turn = false;
		sim.total_exits++;
		restart_engine();
	}
	sim.in_turn = false;
	sim_check_step();
	/* a turn takes time */
	sim.now_us += sim_below(8);
}

/* Faults end; requests that are there get their answers. */
static void
heal(void)
{
	uint64_t	healed_us;

	SIM_TRACE("faults end");
	sim.healed = true;
	sim_server_heal();
	healed_us = sim.now_us;
	while (sim.pending > 0 || nc_engine_busy(sim.engine) > 0)
	{
		turn();
		if (sim.now_us - healed_us > REST_MAX_US)
			sim_fail("%llu requests have not ended %llu s after the last fault",
					 (unsigned long long) sim.pending,
					 (unsigned long long) (REST_MAX_US / 1000000));
	}
	/*
	 * Answers to what was cancelled arrive, connections that fell silent are noticed:
	 * so long after their last answer, which may have stalled, as the setting says.
	 */
	healed_us = sim.now_us;
	while (sim.now_us - healed_us < 5000000 ||
		   (!sim_at_rest() && sim.now_us - healed_us < REST_MAX_US))
		turn();
	sim_check_idle();
}

static uint64_t
run_seed(uint64_t seed)
{
	make_world(seed);
	while (sim.asked < sim.requests_max && sim.now_us < RUN_MAX_US)
	{
		turn();
		if (sim.admin_due)
			administrate();
	}
	heal();
	nc_engine_destroy(sim.engine);
	sim.engine = NULL;
	while (sim.resolving == 0 && sim.nevents > 0 && sim.events[0].kind == SIM_EV_RESOLVED)
		sim_run_event();
	sim_check_end();
	sim.total_hedged += sim.hedged;
	sim.total_hedged_late += nc_counter_value(&sim.counters, NC_COUNTER_HEDGED_LATE);
	sim.total_requests += sim.asked;
	return sim.hash;
}

/* ---- arguments ---- */

static void
on_signal(int signal_number)
{
	static char text[128];
	int			n = snprintf(text, sizeof(text),
							 "seed %llu: broken: %s\nreplay: make sim SEED=%llu\n",
							 (unsigned long long) sim.seed,
							 signal_number == SIGABRT ? "an assertion failed" :
							 signal_number == SIGVTALRM ? "an endless loop" : "a crash",
							 (unsigned long long) sim.seed);

	if (write(1, text, (size_t) n) < 0)
		_exit(2);
	_exit(1);
}

static void
guard_against_loops(void)
{
	struct itimerval limit = {{0, 0}, {SEED_SECONDS_MAX, 0}};

	setitimer(ITIMER_VIRTUAL, &limit, NULL);
}

static void
print_sums(uint64_t seeds)
{
	printf("%llu seeds, %llu requests, %llu pages right, %llu given up, %llu refused by LSN, "
		   "%llu errors (%llu after all hosts were asked), %llu restarts (%llu within a turn), %llu maps, %llu connections, %llu asked twice (%llu answered twice, %llu of another host), %llu asked of another host, "
		   "%llu reads of AIO handles (%llu taken away, %llu times waited for)\n",
		   (unsigned long long) seeds, (unsigned long long) sim.total_requests,
		   (unsigned long long) sim.total_pages, (unsigned long long) sim.total_cancels,
		   (unsigned long long) sim.total_refused, (unsigned long long) sim.total_errors,
		   (unsigned long long) sim.total_host_errors,
		   (unsigned long long) sim.total_restarts, (unsigned long long) sim.total_exits,
		   (unsigned long long) sim.total_maps,
		   (unsigned long long) sim.total_connects,
		   (unsigned long long) sim.total_hedged, (unsigned long long) sim.total_hedged_late,
		   (unsigned long long) sim.total_elsewhere, (unsigned long long) sim.total_other_host,
		   (unsigned long long) sim.total_handles, (unsigned long long) sim.total_claims,
		   (unsigned long long) sim.total_promoted);
}

/* A simulation of faults that do not happen proves nothing. */
static int
print_faults(uint64_t seeds)
{
	int			never = 0;

	for (int f = 0; f < SIM_FAULT_COUNT; f++)
	{
		printf("  %10llu  %s\n", (unsigned long long) sim.fault_count[f],
			   sim_fault_name((SimFault) f));
		if (sim.fault_count[f] == 0 && seeds >= 200)
		{
			printf("this fault never happened\n");
			never = 1;
		}
	}
	return never;
}

static int
run_seeds(uint64_t first, uint64_t n)
{
	for (uint64_t i = 0; i < n; i++)
	{
		uint64_t	hash;

		guard_against_loops();
		hash = run_seed(first + i);
		if (i < TWICE && n > 1 && run_seed(first + i) != hash)
			sim_fail("the seed gave two histories");
	}
	print_sums(n);
	if (n >= 200 && (sim.total_elsewhere == 0 || sim.total_other_host == 0))
	{
		printf("no other host was ever asked\n");
		return 1;
	}
	if (n >= 200 && sim.total_host_errors == 0)
	{
		printf("no request was ever refused by all hosts of its shard\n");
		return 1;
	}
	return n > 1 ? print_faults(n) : 0;
}

int
main(int argc, char **argv)
{
	uint64_t	first = 1;
	uint64_t	n = 20;

	for (int i = 1; i < argc; i++)
	{
		const char *value = i + 1 < argc ? argv[i + 1] : "";

		if (strcmp(argv[i], "--trace") == 0)
			sim.trace = true;
		else if (strcmp(argv[i], "--seed") == 0 && value[0] != '\0')
		{
			first = strtoull(argv[++i], NULL, 10);
			n = 1;
		}
		else if (strcmp(argv[i], "--first") == 0 && value[0] != '\0')
			first = strtoull(argv[++i], NULL, 10);
		else if (strcmp(argv[i], "--seeds") == 0 && value[0] != '\0')
			n = strtoull(argv[++i], NULL, 10);
		else
		{
			fprintf(stderr, "usage: sim [--seed N | --seeds N [--first N]] [--trace]\n");
			return 2;
		}
	}
	signal(SIGABRT, on_signal);
	signal(SIGSEGV, on_signal);
	signal(SIGVTALRM, on_signal);
	/* receive buffers of connections come and go */
	mallopt(M_MMAP_THRESHOLD, 64 << 20);
	mallopt(M_TRIM_THRESHOLD, 256 << 20);
	return run_seeds(first, n);
}
