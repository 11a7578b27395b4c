/*
 * abi_io_18.h
 *	  What both ways into a PostgreSQL 18 have in common: reads that are started, and
 *	  the I/O method.  Private to src/smgr; included once, by abi_18.c or abi_hook_18.c.
 *
 * The buffer manager reads through smgr_startreadv: it fills an AIO handle, and whoever
 * executes that handle completes it.  Forks that are md's go md's way.  Others are left to
 * the communicator where that is possible (aio_18.c).  Else the pages are brought while the
 * handle is being defined, where an error may be raised and a wait be cancelled as on older
 * servers; the handle is then staged with a descriptor that no file has, and the I/O
 * method's submit, which is ours, has only to say that all bytes are there.
 *
 * pgaio_method_ops is set by io_method, before libraries are preloaded; its struct is
 * copied with three functions replaced.  Its other members see only what md started.
 */
#ifndef NC_SMGR_ABI_IO_18_H
#define NC_SMGR_ABI_IO_18_H

#include "postgres.h"

#include "miscadmin.h"
#include "storage/aio.h"
#include "storage/aio_internal.h"
#include "storage/ipc.h"
#include "storage/md.h"
#include "utils/resowner.h"

#include "nc/shared/shmem.h"
#include "nc/smgr/abi.h"
#include "nc/smgr/lengths.h"
#include "aio_18.h"

static const IoMethodOps *stock_method;
static IoMethodOps our_method;

static bool
is_ours(const PgAioHandle *ioh)
{
	return ioh->op == PGAIO_OP_READV && (ioh->op_data.read.fd == NC_FD_ANSWERED ||
										 ioh->op_data.read.fd == NC_FD_ASKED);
}

static void
release_resources(int code, Datum arg)
{
	ReleaseAuxProcessResources(false);
}

/*
 * Recovery may be told to end while it waits for a page.  It has no transaction whose abort
 * gives the handle back, and the server releases an auxiliary process's resources behind
 * pgaio_shutdown(), when handles cannot be given back any more; no read of md's is left so.
 */
static void
be_ready_to_exit(void)
{
	static bool ready = false;

	if (ready || CurrentResourceOwner != AuxProcessResourceOwner || AuxProcessResourceOwner == NULL)
		return;
	/* the callback that was registered last is called first */
	before_shmem_exit(release_resources, 0);
	ready = true;
}

static void
abi_startreadv(PgAioHandle *ioh, SMgrRelation reln, ForkNumber fork, BlockNumber first,
			   void **buffers, BlockNumber nblocks)
{
	nc_lengths_ensure(reln, fork);
	if (nc_smgr_is_plain(reln, fork))
	{
		mdstartreadv(ioh, reln, fork, first, buffers, nblocks);
		return;
	}
	be_ready_to_exit();
	if (nc_aio_start(ioh, reln, first, buffers, nblocks))
		return;
	if (nc_aio_overlaps(ioh))
		nc_smgr_readv_of_stream(reln, first, (char **) buffers, (int) nblocks);
	else
		nc_smgr_readv(reln, fork, first, (char **) buffers, (int) nblocks);
	nc_aio_stage(ioh, reln, fork, first, buffers, nblocks, NC_FD_ANSWERED);
}

/* A read of ours is one slot. */
static uint32
abi_maxcombine(SMgrRelation reln, ForkNumber fork, BlockNumber block)
{
	uint32		most = mdmaxcombine(reln, fork, block);

	return fork == MAIN_FORKNUM ? Min(most, NC_SLOT_BLOCKS_MAX) : most;
}

static bool
needs_synchronous_execution(PgAioHandle *ioh)
{
	return !is_ours(ioh) && stock_method->needs_synchronous_execution != NULL &&
		stock_method->needs_synchronous_execution(ioh);
}

/* Always called in a critical section. */
static int
submit(uint16 n, PgAioHandle **staged)
{
	PgAioHandle *foreign[PGAIO_SUBMIT_BATCH_SIZE];
	uint16		nforeign = 0;
	bool		asked = false;

	for (int i = 0; i < n; i++)
	{
		PgAioHandle *ioh = staged[i];

		if (!is_ours(ioh))
		{
			foreign[nforeign++] = ioh;
			continue;
		}
		if (ioh->op_data.read.fd == NC_FD_ASKED)
		{
			nc_aio_hand_over(ioh);
			asked = true;
			continue;
		}
		/* who waits for it sleeps until it is told, and asks no I/O method */
		ioh->flags |= PGAIO_HF_SYNCHRONOUS;
		pgaio_io_prepare_submit(ioh);
		pgaio_io_process_completion(ioh, ioh->target_data.smgr.nblocks * BLCKSZ);
	}
	if (nforeign > 0 && stock_method->submit(nforeign, foreign) != nforeign)
		elog(PANIC, "I/O method submitted fewer requests than it was given");
	if (asked)
		(void) nc_ring_bell(&nc_rings);
	return n;
}

static void
wait_one(PgAioHandle *ioh, uint64 generation)
{
	nc_aio_wait(ioh, generation, stock_method->wait_one);
}

static void
change_io_method(void)
{
	stock_method = pgaio_method_ops;
	our_method = *stock_method;
	our_method.needs_synchronous_execution = needs_synchronous_execution;
	our_method.submit = submit;
	our_method.wait_one = wait_one;
	pgaio_method_ops = &our_method;
	nc_aio_install();
}

#endif							/* NC_SMGR_ABI_IO_18_H */
