/*
 * abi_vectored.h
 *	  What the tables of 17 and 18 have in common: their vectored entries, and md under
 *	  neutral names.  Private to src/smgr; included once, by abi_NN.c.
 */
#ifndef NC_SMGR_ABI_VECTORED_H
#define NC_SMGR_ABI_VECTORED_H

#include "postgres.h"

#include "storage/md.h"

#include "nc/smgr/abi.h"

uint64		nc_smgr_close_calls = 0;

static void
abi_close(SMgrRelation reln, ForkNumber fork)
{
	nc_smgr_close_calls++;
	mdclose(reln, fork);
}

static void
abi_extend(SMgrRelation reln, ForkNumber fork, BlockNumber block, const void *buffer,
		   bool skip_fsync)
{
	const char *page = buffer;

	nc_smgr_extendv(reln, fork, block, &page, 1, skip_fsync);
}

static void
abi_zeroextend(SMgrRelation reln, ForkNumber fork, BlockNumber first, int nblocks,
			   bool skip_fsync)
{
	nc_smgr_extendv(reln, fork, first, NULL, nblocks, skip_fsync);
}

static void
abi_readv(SMgrRelation reln, ForkNumber fork, BlockNumber first, void **buffers,
		  BlockNumber nblocks)
{
	nc_smgr_readv(reln, fork, first, (char **) buffers, (int) nblocks);
}

static void
abi_writev(SMgrRelation reln, ForkNumber fork, BlockNumber first, const void **buffers,
		   BlockNumber nblocks, bool skip_fsync)
{
	nc_smgr_writev(reln, fork, first, (const char *const *) buffers, (int) nblocks, skip_fsync);
}

void
nc_md_read(SMgrRelation reln, ForkNumber fork, BlockNumber block, char *page)
{
	void	   *buffer = page;

	mdreadv(reln, fork, block, &buffer, 1);
}

void
nc_md_write(SMgrRelation reln, ForkNumber fork, BlockNumber block, const char *page,
			bool skip_fsync)
{
	const void *buffer = page;

	mdwritev(reln, fork, block, &buffer, 1, skip_fsync);
}

void
nc_md_extend(SMgrRelation reln, ForkNumber fork, BlockNumber block, const char *page,
			 bool skip_fsync)
{
	mdextend(reln, fork, block, page, skip_fsync);
}

void
nc_md_truncate(SMgrRelation reln, ForkNumber fork, BlockNumber from, BlockNumber nblocks)
{
	mdtruncate(reln, fork, from, nblocks);
}

void
nc_md_unlink(NcPgRelBackend rel, ForkNumber fork, bool is_redo)
{
	mdunlink(rel, fork, is_redo);
}

void
nc_md_writeback(SMgrRelation reln, ForkNumber fork, BlockNumber first, BlockNumber nblocks)
{
	mdwriteback(reln, fork, first, nblocks);
}

bool
nc_md_prefetch(SMgrRelation reln, ForkNumber fork, BlockNumber first, int nblocks)
{
	return mdprefetch(reln, fork, first, nblocks);
}

#endif							/* NC_SMGR_ABI_VECTORED_H */
