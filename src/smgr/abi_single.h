/*
 * abi_single.h
 *	  What both ways into a PostgreSQL 15 have in common: entries for one block, and md
 *	  under neutral names.  Private to src/smgr; included once, by abi_15.c or abi_hook_15.c.
 */
#ifndef NC_SMGR_ABI_SINGLE_H
#define NC_SMGR_ABI_SINGLE_H

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
abi_extend(SMgrRelation reln, ForkNumber fork, BlockNumber block, char *buffer, bool skip_fsync)
{
	const char *page = buffer;

	nc_smgr_extendv(reln, fork, block, &page, 1, skip_fsync);
}

static bool
abi_prefetch(SMgrRelation reln, ForkNumber fork, BlockNumber block)
{
	return nc_smgr_prefetch(reln, fork, block, 1);
}

static void
abi_read(SMgrRelation reln, ForkNumber fork, BlockNumber block, char *buffer)
{
	nc_smgr_readv(reln, fork, block, &buffer, 1);
}

static void
abi_write(SMgrRelation reln, ForkNumber fork, BlockNumber block, char *buffer, bool skip_fsync)
{
	const char *page = buffer;

	nc_smgr_writev(reln, fork, block, &page, 1, skip_fsync);
}

void
nc_md_read(SMgrRelation reln, ForkNumber fork, BlockNumber block, char *page)
{
	mdread(reln, fork, block, page);
}

void
nc_md_write(SMgrRelation reln, ForkNumber fork, BlockNumber block, const char *page,
			bool skip_fsync)
{
	mdwrite(reln, fork, block, unconstify(char *, page), skip_fsync);
}

void
nc_md_extend(SMgrRelation reln, ForkNumber fork, BlockNumber block, const char *page,
			 bool skip_fsync)
{
	mdextend(reln, fork, block, unconstify(char *, page), skip_fsync);
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
	Assert(nblocks == 1);
	return mdprefetch(reln, fork, first);
}

#endif							/* NC_SMGR_ABI_SINGLE_H */
