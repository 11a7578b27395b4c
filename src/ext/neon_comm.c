/*
 * neon_comm.c
 *	  Module entry point: a list of named calls.
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "utils/guc.h"

#include "nc/ext/guc.h"
#include "nc/ext/shmem.h"
#include "nc/ext/test_point.h"
#include "nc/feed/feed.h"
#include "nc/filecache/filecache.h"
#include "nc/smgr/abi.h"
#include "nc/smgr/database.h"
#include "nc/smgr/skeleton.h"
#include "nc/smgr/sweeper.h"
#include "nc/worker/communicator.h"

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

void
_PG_init(void)
{
	if (!process_shared_preload_libraries_in_progress)
		return;					/* SQL functions then say that it must be preloaded */

	nc_guc_init();
	nc_test_point_guc_init();
	nc_feed_init();
	MarkGUCPrefixReserved("neon_comm");
	nc_shmem_init();

	/* Without page servers this is an ordinary server whose WAL feed may run. */
	nc_enabled = *nc_guc_page_servers != '\0';
	if (!nc_enabled)
	{
		nc_skeleton_check_absent();
		return;
	}
	check_ids();
	nc_skeleton_check_start();
	nc_smgr_install();
	nc_database_init();
	nc_communicator_register();
	nc_sweeper_register();
	nc_filecache_writer_register();
}
