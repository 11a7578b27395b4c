/*
 * abi_15.c
 *	  The storage-manager table of PostgreSQL 15, adapted to smgr/abi.h.
 *
 * The struct is private to the server's smgr.c.  smgr_truncate got its
 * old_blocks argument in 15.11; older minors are not in the tested list.
 */
#include "postgres.h"

#include "storage/md.h"

#include "abi_single.h"
#include "nc/smgr/abi.h"

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
		.way = "table",
		.n = lengthof(theirs),
		.theirs = theirs,
		.ours = ours,
		.tested = tested,
		.ntested = lengthof(tested)
	};

	StaticAssertStmt(lengthof(theirs) == lengthof(ours), "tables of equal length");
	return &abi;
}
