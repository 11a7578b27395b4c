/*
 * abi_hook_18.c
 *	  The way into a PostgreSQL 18 that registers storage managers: our functions as its
 *	  public f_smgr wants them, adapted to smgr/abi.h.  Its own table is not touched.
 */
#include "postgres.h"

#include "storage/md.h"
#include "storage/smgr.h"

#include "abi_io_18.h"
#include "abi_vectored.h"
#include "aio_18.h"
#include "hook.h"
#include "nc/smgr/abi.h"

/* A server without it loads the library all the same, and _PG_init says what is wrong. */
#pragma weak smgrregister

/* Temporary relations are the server's. Who opens a file for an I/O worker does not know more than this. */
static bool
owns(NcPgRel rel, NcPgBackend backend, char persistence)
{
	return backend == NC_NO_BACKEND;
}

/* The first is the name. What is missing has no function in md either, or nothing to do here. */
const f_smgr nc_hook_functions = {
	"neon_comm",
	.smgr_owns = owns,
	.smgr_open = mdopen,
	.smgr_close = abi_close,
	.smgr_create = nc_smgr_create,
	.smgr_exists = nc_smgr_exists,
	.smgr_unlink = nc_smgr_unlink,
	.smgr_extend = abi_extend,
	.smgr_zeroextend = abi_zeroextend,
	.smgr_prefetch = nc_smgr_prefetch,
	.smgr_maxcombine = abi_maxcombine,
	.smgr_readv = abi_readv,
	.smgr_startreadv = abi_startreadv,
	.smgr_writev = abi_writev,
	.smgr_writeback = nc_smgr_writeback,
	.smgr_nblocks = nc_smgr_nblocks,
	.smgr_truncate = nc_smgr_truncate,
	.smgr_immedsync = mdimmedsync,
	.smgr_registersync = mdregistersync,
	.smgr_fd = mdfd,
	.smgr_start_unlogged_build = nc_smgr_build_begins,
	.smgr_finish_unlogged_build_phase_1 = nc_smgr_build_complete,
};

void
nc_hook_become_manager(void)
{
	(void) smgrregister(&nc_hook_functions);
}

const NcSmgrAbi *
nc_smgr_abi(void)
{
	static const NcSmgrAbi abi = {
		.enter = nc_hook_enter,
		.not_asked = "another library has registered a storage manager that takes what is neon_comm's",
		.not_asked_hint = "Exchange the two in shared_preload_libraries; if that does not help, take one of them out.",
		.has_read_streams = true,
		.change_more = change_io_method,
		.aio = &nc_smgr_aio,
		.way = "registered"
	};

	return &abi;
}
