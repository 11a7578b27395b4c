/*
 * abi_18.c
 *	  The storage-manager table of PostgreSQL 18, adapted to smgr/abi.h.
 */
#include "postgres.h"

#include "storage/md.h"

#include "abi_io_18.h"
#include "abi_vectored.h"
#include "nc/smgr/abi.h"
#include "aio_18.h"

/* The row of md in smgrsw[], in the order of 18's f_smgr; NULL is smgr_shutdown. */
static void *theirs[] = {
	mdinit, NULL, mdopen, mdclose, mdcreate, mdexists, mdunlink, mdextend, mdzeroextend,
	mdprefetch, mdmaxcombine, mdreadv, mdstartreadv, mdwritev, mdwriteback, mdnblocks, mdtruncate,
	mdimmedsync, mdregistersync, mdfd
};

static void *ours[] = {
	mdinit, NULL, mdopen, abi_close, nc_smgr_create, nc_smgr_exists, nc_smgr_unlink, abi_extend,
	abi_zeroextend, nc_smgr_prefetch, abi_maxcombine, abi_readv, abi_startreadv, abi_writev,
	nc_smgr_writeback, nc_smgr_nblocks, nc_smgr_truncate, mdimmedsync, mdregistersync, mdfd
};

static const int tested[] = {180006};

const NcSmgrAbi *
nc_smgr_abi(void)
{
	static const NcSmgrAbi abi = {
		.way = "table",
		.n = lengthof(theirs),
		.theirs = theirs,
		.ours = ours,
		.has_read_streams = true,
		.change_more = change_io_method,
		.aio = &nc_smgr_aio,
		.tested = tested,
		.ntested = lengthof(tested)
	};

	StaticAssertStmt(lengthof(theirs) == lengthof(ours), "tables of equal length");
	return &abi;
}
