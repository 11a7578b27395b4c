/*
 * communicator.c
 *	  The background worker that hosts the engine: a thin shell of signals,
 *	  settings and destinations around nc_engine_tick().
 *
 * Starts with the postmaster, because recovery is its first customer.  SIGTERM
 * does not end it at once: backends that exit still read pages, so it goes on
 * until no other process is left and then exits with code 1 (0 would
 * deregister it).  A SIGTERM while the server is not stopping comes from a
 * person: it then exits between two turns and is started again.  It may be restarted at any time between two turns; slots
 * are in shared memory and its successor takes them up.
 *
 * Nothing here raises an error inside a turn.
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

#include "miscadmin.h"
#include "postmaster/interrupt.h"
#include "postmaster/postmaster.h"
#include "storage/bufmgr.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/pmsignal.h"
#include "storage/proc.h"
#include "utils/pidfile.h"
#include "utils/memutils.h"
#include "utils/ps_status.h"

#include "nc/base/clock.h"
#include "nc/engine/engine.h"
#include "nc/shared/alone.h"
#include "nc/shared/identity.h"
#include "nc/shared/map_settings.h"
#include "nc/shared/settings.h"
#include "nc/shared/shmem.h"
#include "nc/shared/test_point.h"
#include "nc/smgr/abi.h"
#include "nc/tracing/tracing.h"
#include "nc/worker/programs.h"

#include "program.h"
#include "recording.h"

/* The longest sleep: bounds how late a flag without a wake-up is seen. */
#define TURN_MAX_MS 1000

/* Descriptors of this process that are not for connections. */
#define FDS_RESERVED 48

/* While shutting down it looks this often whether it is alone. */
#define DRAIN_TURN_MAX_MS 20

PGDLLEXPORT void nc_communicator_main(Datum arg);

static void
kick(void)
{
	nc_ring_kick(&nc_rings);
}

static const NcProgram program = {
	.name = "neon_comm communicator",
	.main = "nc_communicator_main",
	.starts = BgWorkerStart_PostmasterStart,
	.kick = kick
};

/* ---- what the engine needs from us ---- */

static uint64_t
host_now_us(void *ctx)
{
	return nc_clock_us();
}

static void
host_wake(void *ctx, uint32_t ring)
{
	NC_TEST_POINT("communicator-wake");
	if (ring < nc_rings.aio_first && !nc_ring_wake_word(&nc_rings.rings[ring]))
		SetLatch(&ProcGlobal->allProcs[ring].procLatch);
}

static uint8_t *
host_dest_page(void *ctx, uint32_t ring, uint32_t dest)
{
	/* asked for twice a page: when the slot is taken, and when it is being copied */
	NC_TEST_POINT("communicator-dest");
	if (ring >= nc_rings.aio_first)
		return nc_smgr_abi()->aio->dest_page(nc_aio_handle(&nc_rings, ring, NC_DEST_AIO_SLOT(dest)),
											 NC_DEST_AIO_INDEX(dest));
	if ((dest & (NC_DEST_BOUNCE | NC_DEST_STAGING)) == NC_DEST_STAGING)
	{
		dest &= ~NC_DEST_STAGING;
		return dest / NC_STAGING_CHUNK_PAGES < nc_staging.nchunks ?
			(uint8_t *) nc_staging.pages + (Size) dest * BLCKSZ : NULL;
	}
	if ((dest & NC_DEST_BOUNCE) == 0)
		return dest < (uint32) NBuffers ? (uint8_t *) BufferBlocks + (Size) dest * BLCKSZ : NULL;
	dest &= ~NC_DEST_BOUNCE;
	return dest < NC_BOUNCE_PAGES ? (uint8_t *) nc_bounce + (Size) dest * BLCKSZ : NULL;
}

static void
host_aio_complete(void *ctx, uint32_t handle, uint64_t handle_generation, NcSlotResult result,
				  const char *text)
{
	/* why it failed is told to its owner when he asks again */
	nc_smgr_abi()->aio->complete(handle, handle_generation, result == NC_SLOT_RESULT_OK);
}

static void
host_traced(void *ctx, uint32_t ring, uint32_t slot)
{
	nc_tracing_end(ring, slot, 0, false);
}

static void
host_log(void *ctx, NcLogLevel level, const char *message)
{
	switch (level)
	{
		case NC_LOG_DEBUG:
			elog(DEBUG1, "communicator: %s", message);
			break;
		case NC_LOG_INFO:
			ereport(LOG, (errmsg("communicator: %s", message)));
			break;
		case NC_LOG_WARNING:
			ereport(LOG, (errmsg("communicator: warning: %s", message)));
			break;
	}
}

/* ---- settings ---- */

static bool
parse_map(NcShardMap *map)
{
	static uint32 version = 0;
	NcMapSettings in_force = nc_map_settings();
	char		err[256];

	if (!nc_shard_map_parse(in_force.page_servers, in_force.stripe_size, map, err, sizeof(err)))
	{
		ereport(LOG,
				(errmsg("neon_comm.page_servers is not usable: %s", err),
				 errhint("The previous shard map stays in force.")));
		return false;
	}
	map->version = ++version;
	return true;
}

/*
 * Descriptors are shared with what the server itself opens here: log, settings,
 * event loop, name resolution.  Connections get what is left.
 */
static uint32
connections_max(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY ||
		limit.rlim_cur >= NC_CONN_ROWS + FDS_RESERVED)
		return NC_CONN_ROWS;
	return limit.rlim_cur > FDS_RESERVED ? limit.rlim_cur - FDS_RESERVED : 1;
}

static void
read_settings(NcNetSettings *settings)
{
	memset(settings, 0, sizeof(*settings));
	settings->protocol_version = nc_guc_protocol_version;
	strlcpy(settings->tenant_id, nc_guc_tenant_id, sizeof(settings->tenant_id));
	strlcpy(settings->timeline_id, nc_guc_timeline_id, sizeof(settings->timeline_id));
	settings->connections_per_shard_max = nc_guc_connections_per_shard;
	settings->connections_max = connections_max();
	settings->depth_max = nc_guc_connection_depth;
	settings->spin_us = nc_spin_us(nc_guc_spin_time, 0);
	settings->connect_timeout_ms = nc_guc_connect_timeout;
	settings->silence_timeout_ms = nc_guc_silence_timeout;
	settings->idle_timeout_ms = nc_guc_idle_timeout;
	settings->readahead_yields = nc_guc_readahead_yields;
	settings->hedged_reads = nc_guc_hedged_reads;
	strlcpy(settings->token_file, nc_guc_token_file, sizeof(settings->token_file));
	nc_identity_options(settings->options, sizeof(settings->options));
	settings->token_in_clear = nc_guc_allow_token_in_clear;
}

/* Right when shards are added, and bad when a line was lost: so it is said. */
static void
tell_change(uint32 shards, uint32 stripe_blocks)
{
	static uint32 shards_before = 0;
	static uint32 stripe_before = 0;

	if (shards_before != 0 && (shards != shards_before || stripe_blocks != stripe_before))
		ereport(WARNING,
				(errmsg("the shard map changes from %u shards with stripes of %u blocks to %u shards with stripes of %u blocks",
						shards_before, stripe_before, shards, stripe_blocks),
				 errdetail("Blocks belong to other shards now. Page servers that do not have them will refuse."),
				 errhint("If this was not meant, set neon_comm.page_servers and neon_comm.stripe_size as before and reload: what waits goes on.")));
	shards_before = shards;
	stripe_before = stripe_blocks;
}

/* Once, not at each reload until it is put right; the server says itself what was refused, and why. */
static void
tell_refused(const char *setting)
{
	static const char *told = NULL;

	if (setting != NULL && setting != told)
		ereport(WARNING,
				(errmsg("the shard map stays as it was, because %s was refused", setting),
				 errdetail("neon_comm.page_servers and neon_comm.stripe_size are taken over together."),
				 errhint("Correct it and reload the configuration.")));
	told = setting;
}

static void
apply_settings(NcEngine *engine)
{
	static NcShardMap map;
	NcNetSettings settings;

	read_settings(&settings);
	nc_engine_configure(engine, &settings);
	tell_refused(nc_map_refused());
	if (!parse_map(&map))
		return;
	tell_change(map.shard_count, map.stripe_blocks);
	nc_engine_set_shard_map(engine, &map);
}

/* ---- life ---- */

static void
on_exit_mark(int code, Datum arg)
{
	atomic_store(&nc_shared->communicator_pid, 0);
}

static NcEngine *
start_engine(void)
{
	NcHost		host = {
		.now_us = host_now_us,
		.wake = host_wake,
		.dest_page = host_dest_page,
		.aio_complete = host_aio_complete,
		.traced = host_traced,
		.log = host_log,
		.latency = &nc_shared->latency
	};
	NcNetSettings settings;
	char		err[256] = "";
	NcEngine   *engine;

	read_settings(&settings);
	engine = nc_engine_create(&settings, nc_guc_io_method, &nc_rings, &nc_shared->counters,
							  nc_shared->conns, &host,
							  &postmaster_alive_fds[POSTMASTER_FD_WATCH], 1, err, sizeof(err));
	if (engine == NULL)
	{
		ereport(LOG, (errmsg("communicator: could not start its event loop: %s", err),
					  errhint("Try neon_comm.io_method = epoll.")));
		proc_exit(1);
	}
	atomic_store(&nc_shared->io_uring_in_use,
				 strcmp(nc_engine_io_method(engine), "io_uring") == 0);
	ereport(LOG, (errmsg("communicator: started, event loop %s", nc_engine_io_method(engine))));
	if (settings.connections_max < NC_CONN_ROWS)
		ereport(LOG,
				(errmsg("communicator: at most %u page-server connections, because the limit of open files is low",
						settings.connections_max),
				 errhint("Raise \"ulimit -n\" of the server.")));
	return engine;
}

/*
 * Does the postmaster stop the server?  It says so in its lock file before it
 * signals anybody.  When the file cannot be read, yes: that only means to stay.
 */
static bool
server_stops(void)
{
	static const char stopping[] = PM_STATUS_STOPPING;
	char		text[1024];
	char		path[MAXPGPATH];
	int			fd;
	ssize_t		n;

	snprintf(path, sizeof(path), "%s/%s", DataDir, "postmaster.pid");
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return true;
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (n <= 0)
		return true;
	text[n] = '\0';
	return strstr(text, stopping) != NULL;
}

/* Walsenders, which are not counted among those that may, wait like any other. */
static bool
somebody_waits(void)
{
	for (uint32 r = 0; r < nc_rings.aio_first; r++)
	{
		for (int i = 0; i < NC_RING_SLOTS; i++)
		{
			const NcSlot *slot = &nc_rings.rings[r].slots[i];
			NcSlotState state = nc_slot_word_state(nc_slot_load(slot));

			/* what is being filled may have the class of its last life */
			if (state == NC_SLOT_FILLING ||
				((state == NC_SLOT_SUBMITTED || state == NC_SLOT_TAKEN) && slot->class != NC_SLOT_CLASS_PREFETCH))
				return true;
		}
	}
	return false;
}

static void
run_communicator(NcEngine *engine)
{
	bool		stopping = false;

	for (;;)
	{
		bool		draining = stopping;

		NC_TEST_POINT("communicator-turn");
		if (nc_engine_tick(engine, draining ? DRAIN_TURN_MAX_MS : TURN_MAX_MS) != 0 &&
			!PostmasterIsAlive())
			_exit(1);
		if (nc_program_reload())
		{
			apply_settings(engine);
			nc_recording_apply(engine);
		}
		nc_recording_turn(engine);
		if (atomic_exchange(&nc_shared->restart_requested, 0) != 0)
		{
			ereport(LOG, (errmsg("communicator: restarting on request")));
			return;
		}
		if (ShutdownRequestPending && !stopping)
		{
			stopping = server_stops();
			if (!stopping)
			{
				ereport(LOG, (errmsg("communicator: restarting, because it was terminated while the server runs")));
				return;
			}
			atomic_store(&nc_shared->communicator_leaves, 1);
		}
		/* what is still in flight then was withdrawn: nobody waits for it */
		if (draining && nc_worker_alone() && !somebody_waits())
			return;
		MemoryContextReset(CurrentMemoryContext);
	}
}

void
nc_communicator_main(Datum arg)
{
	NcEngine   *engine;

	nc_program_begin(&program);
	atomic_store(&nc_shared->communicator_pid, MyProcPid);
	before_shmem_exit(on_exit_mark, 0);

	engine = start_engine();
	apply_settings(engine);
	nc_recording_apply(engine);
	nc_program_turn_memory(&program);
	run_communicator(engine);
	nc_recording_end(engine);
	nc_engine_destroy(engine);
	nc_program_end();
}

void
nc_communicator_register(void)
{
	/* Made once; children inherit it, and it survives the reset after a crash. */
	nc_rings.eventfd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (nc_rings.eventfd < 0)
		ereport(FATAL, (errmsg("neon_comm: could not make an eventfd: %m")));
	nc_program_register(&program);
}
