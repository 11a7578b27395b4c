/*
 * neon_comm.c
 *	  Module entry point: the list of what is made ready at the start, and the
 *	  hooks and calls that go through it.  Nobody else knows all modules.
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/guc.h"

#include "nc/check/scrub.h"
#include "nc/feed/feed.h"
#include "nc/feed/lease.h"
#include "nc/filecache/filecache.h"
#include "nc/metrics/metrics.h"
#include "nc/safety/directory.h"
#include "nc/safety/environment.h"
#include "nc/safety/kind_of_server.h"
#include "nc/safety/workers.h"
#include "nc/shared/alone.h"
#include "nc/shared/map_settings.h"
#include "nc/shared/settings.h"
#include "nc/shared/shmem.h"
#include "nc/shared/test_point.h"
#include "nc/shared/waits.h"
#include "nc/smgr/abi.h"
#include "nc/smgr/database.h"
#include "nc/smgr/doors.h"
#include "nc/smgr/lengths.h"
#include "nc/smgr/local.h"
#include "nc/smgr/lwlsn.h"
#include "nc/smgr/skeleton.h"
#include "nc/smgr/stock_trap.h"
#include "nc/tracing/tracing.h"
#include "nc/worker/overtaken.h"
#include "nc/worker/programs.h"

#include "explain.h"
#include "ext.h"
#include "statement.h"

PG_MODULE_MAGIC;

StaticAssertDecl(BLCKSZ == NC_PAGE_BYTES, "neon_comm needs a server with 8 kB blocks");

extern PGDLLEXPORT void _PG_init(void);

static void
check_ids(void)
{
	if (*nc_guc_tenant_id == '\0' || *nc_guc_timeline_id == '\0')
		ereport(FATAL,
				(errmsg("neon_comm.tenant_id and neon_comm.timeline_id must be set when neon_comm.page_servers is"),
				 errhint("They name this cluster on its page servers; \"neon_dev init\" makes them.")));
}

/* ---- the list ---- */

/* Locks per tranche; the modules that use them index modulo this. */
#define LOCKS_PER_TRANCHE 128

/* What a part needs at the start; NULL = nothing. */
typedef struct Part
{
	void		(*settings) (void); /* defines them; what they alone switch on starts here, too */
	Size		(*shmem_bytes) (void);
	void		(*shmem_startup) (void);	/* with AddinShmemInitLock held */
	const char *locks[3];		/* names of tranches */
	void		(*start) (void);	/* in a compute: hooks and workers */
} Part;

/* It runs in a server without page servers of its own, too. */
static void
begin_feed(void)
{
	nc_feed_init();
	if (nc_feed_enabled())
		nc_feed_register();
}

/* The same. */
static void
begin_metrics(void)
{
	nc_metrics_init();
	if (nc_metrics_enabled())
		nc_exporter_register();
}

static void
start_smgr(void)
{
	nc_skeleton_check_start();
	nc_smgr_install();
	nc_doors_init();
	nc_sizes_init();
	nc_database_init();
}

static Size
aio_shmem_bytes(void)
{
	return nc_smgr_abi()->aio != NULL ? nc_smgr_abi()->aio->shmem_bytes() : 0;
}

static void
aio_shmem_startup(void)
{
	if (nc_smgr_abi()->aio != NULL)
		nc_smgr_abi()->aio->shmem_startup();
}

static void
start_statements(void)
{
	nc_statement_init();
	nc_explain_init();
}

/* In this order; identity is first to touch the directory. */
static const Part parts[] = {
	{
		.shmem_bytes = nc_identity_shmem_bytes,
		.shmem_startup = nc_identity_shmem_startup
	},
	{
		.settings = nc_guc_init,
		.shmem_bytes = nc_shared_shmem_bytes,
		.shmem_startup = nc_shared_shmem_startup,
		.start = nc_map_settings_init
	},
	{.shmem_startup = nc_waits_shmem_startup},
	{
		.shmem_bytes = nc_lwlsn_shmem_bytes,
		.shmem_startup = nc_lwlsn_shmem_startup,
		.locks = {"neon_comm_lwlsn"}
	},
	{
		.shmem_bytes = nc_local_shmem_bytes,
		.shmem_startup = nc_local_shmem_startup,
		.locks = {"neon_comm_local_chunk", "neon_comm_relation", "neon_comm_file"}
	},
	{
		.settings = begin_feed,
		.shmem_bytes = nc_feed_shmem_bytes,
		.shmem_startup = nc_feed_shmem_startup
	},
	{.settings = begin_metrics},
	{
		.settings = nc_tracing_init,
		.shmem_bytes = nc_tracing_shmem_bytes,
		.shmem_startup = nc_tracing_shmem_startup,
		.start = nc_tracer_register
	},
	{
		.shmem_bytes = nc_lease_shmem_bytes,
		.shmem_startup = nc_lease_shmem_startup
	},
	{
		.shmem_bytes = aio_shmem_bytes,
		.shmem_startup = aio_shmem_startup,
		.start = start_smgr
	},
	{
		.settings = nc_statement_guc_init,
		.start = start_statements
	},
	{
		.shmem_bytes = nc_scrub_shmem_bytes,
		.shmem_startup = nc_scrub_shmem_startup
	},
	{.start = nc_communicator_register},
	{.start = nc_sweeper_register},
	{
		.shmem_bytes = nc_filecache_shmem_bytes,
		.shmem_startup = nc_filecache_shmem_startup,
		.start = nc_filecache_writer_register
	},
	{
		.shmem_bytes = nc_worker_alone_shmem_bytes,
		.shmem_startup = nc_worker_alone_shmem_startup
	},
#ifdef NC_TEST_RULES
	{
		.settings = nc_test_point_guc_init,
		.shmem_bytes = nc_test_point_shmem_bytes,
		.shmem_startup = nc_test_point_shmem_startup
	},
#endif
};

/* ---- shared memory ---- */

static shmem_request_hook_type next_request = NULL;
static shmem_startup_hook_type next_startup = NULL;

static void
on_request(void)
{
	if (next_request != NULL)
		next_request();

	for (int i = 0; i < lengthof(parts); i++)
	{
		if (parts[i].shmem_bytes != NULL)
			RequestAddinShmemSpace(parts[i].shmem_bytes());
		for (int k = 0; k < lengthof(parts[i].locks); k++)
			if (parts[i].locks[k] != NULL)
				RequestNamedLWLockTranche(parts[i].locks[k], LOCKS_PER_TRANCHE);
	}
}

/* In the postmaster, again after each crash restart. */
static void
on_startup(void)
{
	if (next_startup != NULL)
		next_startup();

	/* the startup process looks for recovery modes again, too; before anything of the directory is touched */
	if (nc_enabled && !IsUnderPostmaster)
		nc_directory_check_primary();

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	for (int i = 0; i < lengthof(parts); i++)
		if (parts[i].shmem_startup != NULL)
			parts[i].shmem_startup();
	LWLockRelease(AddinShmemInitLock);

	/* All processes of an earlier life are dead: nothing of theirs is worth keeping. */
	if (nc_enabled && !IsUnderPostmaster)
	{
		nc_smgr_check_installed();
		nc_stock_trap_open();
		nc_skeleton_startup();
	}
}

static void
install_hooks(void)
{
	next_request = shmem_request_hook;
	shmem_request_hook = on_request;
	next_startup = shmem_startup_hook;
	shmem_startup_hook = on_startup;
}

/* ---- entry ---- */

static void
start_compute(void)
{
	check_ids();
	nc_guc_check_token();
	for (int i = 0; i < lengthof(parts); i++)
		if (parts[i].start != NULL)
			parts[i].start();
}

void
_PG_init(void)
{
	nc_kind_of_server_check("neon_comm");
	if (!process_shared_preload_libraries_in_progress)
		return;					/* SQL functions then say that it must be preloaded */

	/* before the settings are judged: libpq helps with that */
	nc_environment_forget("They would change what connection strings mean.");
	for (int i = 0; i < lengthof(parts); i++)
		if (parts[i].settings != NULL)
			parts[i].settings();
	MarkGUCPrefixReserved("neon_comm");
	install_hooks();

	/* Without page servers this is an ordinary server whose WAL feed may run. */
	nc_enabled = *nc_guc_page_servers != '\0';
	if (nc_enabled || nc_feed_enabled())
		nc_identity_check_start();
	if (nc_enabled)
		nc_overtaken_check();
	if (nc_enabled)
		start_compute();
	else
		nc_skeleton_check_absent();
	nc_workers_check("neon_comm");
}
