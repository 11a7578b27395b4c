/*
 * shmem.c
 *	  Requests and initialises the shared memory of all modules.  Runs in the
 *	  postmaster, again after each crash restart; children inherit the pointers.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"

#include "nc/compat/pg.h"
#include "nc/ext/guc.h"
#include "nc/ext/shmem.h"
#include "nc/ext/test_point.h"
#include "nc/feed/feed.h"
#include "nc/filecache/filecache.h"
#include "nc/smgr/local.h"
#include "nc/smgr/lwlsn.h"
#include "nc/smgr/skeleton.h"
#include "nc/worker/alone.h"

#include "storage/proc.h"

/* Locks per tranche; the modules that use them index modulo this. */
#define LOCKS_PER_TRANCHE 128

NcShared   *nc_shared = NULL;
NcRingArea	nc_rings = {.eventfd = -1};
char	   *nc_bounce = NULL;
NcStaging	nc_staging;

static shmem_request_hook_type next_request = NULL;
static shmem_startup_hook_type next_startup = NULL;

static Size
bounce_bytes(void)
{
	return (Size) (NC_BOUNCE_PAGES + 1) * BLCKSZ;
}

static uint32
staging_chunks(void)
{
	return nc_guc_staging_size / NC_STAGING_CHUNK_PAGES;
}

static Size
staging_bytes(void)
{
	Size		pages = (Size) staging_chunks() * NC_STAGING_CHUNK_PAGES;

	return (pages + 1) * BLCKSZ + MAXALIGN(staging_chunks() * sizeof(uint32));
}

static void
init_staging(void)
{
	bool		found;
	char	   *memory = ShmemInitStruct("neon_comm staging", staging_bytes(), &found);

	nc_staging.nchunks = staging_chunks();
	nc_staging.pages = (char *) TYPEALIGN(BLCKSZ, memory);
	nc_staging.owner = (_Atomic uint32_t *) (nc_staging.pages +
											 (Size) nc_staging.nchunks * NC_STAGING_CHUNK_PAGES * BLCKSZ);
	if (!found)
		memset(nc_staging.owner, 0, nc_staging.nchunks * sizeof(uint32));
}

static void
on_request(void)
{
	if (next_request != NULL)
		next_request();

	RequestAddinShmemSpace(MAXALIGN(sizeof(NcShared)));
	RequestAddinShmemSpace(nc_ring_area_bytes(NC_PROC_COUNT()));
	RequestAddinShmemSpace(bounce_bytes());
	RequestAddinShmemSpace(staging_bytes());
	RequestAddinShmemSpace(nc_lwlsn_shmem_bytes());
	RequestAddinShmemSpace(nc_local_shmem_bytes());
	RequestAddinShmemSpace(nc_feed_shmem_bytes());
	RequestAddinShmemSpace(nc_filecache_shmem_bytes());
	RequestAddinShmemSpace(nc_worker_alone_shmem_bytes());
	RequestAddinShmemSpace(nc_test_point_shmem_bytes());
	RequestNamedLWLockTranche("neon_comm_lwlsn", LOCKS_PER_TRANCHE);
	RequestNamedLWLockTranche("neon_comm_local_chunk", LOCKS_PER_TRANCHE);
	RequestNamedLWLockTranche("neon_comm_relation", LOCKS_PER_TRANCHE);
}

static void
init_shared(void)
{
	bool		found;
	void	   *rings;

	nc_shared = ShmemInitStruct("neon_comm", sizeof(NcShared), &found);
	if (!found)
		memset(nc_shared, 0, sizeof(NcShared));
	rings = ShmemInitStruct("neon_comm rings", nc_ring_area_bytes(NC_PROC_COUNT()), &found);
	nc_ring_area_attach(&nc_rings, rings, NC_PROC_COUNT(), nc_rings.eventfd, !found);
	nc_bounce = (char *) TYPEALIGN(BLCKSZ,
								   ShmemInitStruct("neon_comm bounce", bounce_bytes(), &found));
}

static void
on_startup(void)
{
	if (next_startup != NULL)
		next_startup();

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	init_shared();
	init_staging();
	nc_lwlsn_shmem_startup();
	nc_local_shmem_startup();
	nc_feed_shmem_startup();
	nc_filecache_shmem_startup();
	nc_worker_alone_shmem_startup();
	nc_test_point_shmem_startup();
	LWLockRelease(AddinShmemInitLock);

	/* All processes of an earlier life are dead: nothing of theirs is worth keeping. */
	if (nc_enabled && !IsUnderPostmaster)
		nc_skeleton_startup();
}

void
nc_shmem_init(void)
{
	next_request = shmem_request_hook;
	shmem_request_hook = on_request;
	next_startup = shmem_startup_hook;
	shmem_startup_hook = on_startup;
}
