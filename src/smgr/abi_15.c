/*
 * abi_15.c
 *	  The storage-manager table of PostgreSQL 15, adapted to smgr/abi.h.
 *
 * The struct is private to the server's smgr.c.  smgr_truncate got its
 * old_blocks argument in 15.11; older minors are not in the tested list.
 */
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

/* The row of md in smgrsw[], in the order of 15's f_smgr; NULL is smgr_shutdown. */
static void *theirs[] = {
	mdinit, NULL, mdopen, mdclose, mdcreate, mdexists, mdunlink, mdextend, mdprefetch, mdread,
	mdwrite, mdwriteback, mdnblocks, mdtruncate, mdimmedsync
};

static void *ours[] = {
	mdinit, NULL, mdopen, abi_close, nc_smgr_create, nc_smgr_exists, nc_smgr_unlink, abi_extend,
	abi_prefetch, abi_read, abi_write, nc_smgr_writeback, nc_smgr_nblocks, nc_smgr_truncate, mdimmedsync
};

static const int tested[] = {150018, 150020};

const NcSmgrAbi *
nc_smgr_abi(void)
{
	static const NcSmgrAbi abi = {
		.n = lengthof(theirs),
		.theirs = theirs,
		.ours = ours,
		.tested = tested,
		.ntested = lengthof(tested)
	};

	StaticAssertStmt(lengthof(theirs) == lengthof(ours), "tables of equal length");
	return &abi;
}
