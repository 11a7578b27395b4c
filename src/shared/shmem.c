/*
 * shmem.c
 *	  Shared memory that belongs to no module alone.  Made in the postmaster,
 *	  again after each crash restart; children inherit the pointers.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/proc.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"

#include "nc/compat/aio.h"
#include "nc/compat/pg.h"
#include "nc/ring/aio.h"
#include "nc/shared/settings.h"
#include "nc/shared/shmem.h"

NcShared   *nc_shared = NULL;
NcRingArea	nc_rings = {.eventfd = -1};
char	   *nc_bounce = NULL;
NcStaging	nc_staging;

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

	return (pages + 1) * BLCKSZ + staging_chunks() * 2 * sizeof(uint64);
}

static void
init_staging(void)
{
	bool		found;
	char	   *memory = ShmemInitStruct("neon_comm staging", staging_bytes(), &found);

	nc_staging.nchunks = staging_chunks();
	nc_staging.pages = (char *) TYPEALIGN(BLCKSZ, memory);
	nc_staging.owner = (_Atomic uint64_t *) (nc_staging.pages +
											 (Size) nc_staging.nchunks * NC_STAGING_CHUNK_PAGES * BLCKSZ);
	nc_staging.used_us = nc_staging.owner + nc_staging.nchunks;
	if (!found)
		memset(nc_staging.owner, 0, nc_staging.nchunks * 2 * sizeof(uint64));
}

static void
init_compute_shared(void)
{
	uint32		nrings = NC_PROC_COUNT() + nc_aio_rings(nc_pg_aio_handles());
	bool		found;
	void	   *rings;

	nc_shared = ShmemInitStruct("neon_comm", sizeof(NcShared), &found);
	if (!found)
	{
		memset(nc_shared, 0, sizeof(NcShared));
		atomic_store(&nc_shared->baseline.at, GetCurrentTimestamp());
	}
	rings = ShmemInitStruct("neon_comm rings", nc_ring_area_bytes(nrings), &found);
	/* not cleared: fresh memory is zero, and clearing would make it real, page by page */
	nc_ring_area_attach(&nc_rings, rings, nrings, nc_rings.eventfd, false);
	nc_rings.aio_first = NC_PROC_COUNT();
	nc_bounce = (char *) TYPEALIGN(BLCKSZ,
								   ShmemInitStruct("neon_comm bounce", bounce_bytes(), &found));
}

int
nc_ring_owner_pid(uint32 ring, uint32 slot)
{
	uint32		handle;

	if (ring < nc_rings.aio_first)
		return ProcGlobal->allProcs[ring].pid;
	handle = nc_aio_handle(&nc_rings, ring, slot);
	return handle < nc_pg_aio_handles() ? ProcGlobal->allProcs[nc_pg_aio_owner(handle)].pid : 0;
}

Size
nc_shared_shmem_bytes(void)
{
	uint32		nrings = NC_PROC_COUNT() + nc_aio_rings(nc_pg_aio_handles_max());

	return nc_tally_shmem_bytes() + MAXALIGN(sizeof(NcShared)) + MAXALIGN(nc_ring_area_bytes(nrings)) +
		MAXALIGN(bounce_bytes()) + MAXALIGN(staging_bytes());
}

void
nc_shared_shmem_startup(void)
{
	init_compute_shared();
	init_staging();
	nc_tally_shmem_startup();
}
