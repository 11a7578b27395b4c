/*
 * abi_17.c
 *	  The storage-manager table of PostgreSQL 17, adapted to smgr/abi.h.
 *
 * The struct is private to the server's smgr.c.  Since 15 reads and writes have become
 * vectored, and extending by zeroes has an entry of its own; smgr_registersync is md's:
 * it asks for a sync of each segment, as a skeleton needs it.
 */
#include "postgres.h"

#include "storage/md.h"

#include "abi_vectored.h"
#include "nc/smgr/abi.h"

/* The row of md in smgrsw[], in the order of 17's f_smgr; NULL is smgr_shutdown. */
static void *theirs[] = {
	mdinit, NULL, mdopen, mdclose, mdcreate, mdexists, mdunlink, mdextend, mdzeroextend,
	mdprefetch, mdreadv, mdwritev, mdwriteback, mdnblocks, mdtruncate, mdimmedsync,
	mdregistersync
};

static void *ours[] = {
	mdinit, NULL, mdopen, abi_close, nc_smgr_create, nc_smgr_exists, nc_smgr_unlink, abi_extend,
	abi_zeroextend, nc_smgr_prefetch, abi_readv, abi_writev, nc_smgr_writeback, nc_smgr_nblocks,
	nc_smgr_truncate, mdimmedsync, mdregistersync
};

static const int tested[] = {170012};

const NcSmgrAbi *
nc_smgr_abi(void)
{
	static const NcSmgrAbi abi = {
		.way = "table",
		.n = lengthof(theirs),
		.theirs = theirs,
		.ours = ours,
		.has_read_streams = true,
		.tested = tested,
		.ntested = lengthof(tested)
	};

	StaticAssertStmt(lengthof(theirs) == lengthof(ours), "tables of equal length");
	return &abi;
}
