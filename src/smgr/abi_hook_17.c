/*
 * abi_hook_17.c
 *	  The way into a PostgreSQL 17 that has a storage-manager hook: our functions as its
 *	  public f_smgr wants them, adapted to smgr/abi.h.  Its own table is not touched.
 */
#include "postgres.h"

#include "storage/md.h"

#include "abi_hook.h"
#include "abi_vectored.h"
#include "hook.h"
#include "nc/smgr/abi.h"

/* What is missing has no function in md either, or nothing to do here. */
const f_smgr nc_hook_functions = {
	.smgr_open = mdopen,
	.smgr_close = abi_close,
	.smgr_create = nc_smgr_create,
	.smgr_exists = nc_smgr_exists,
	.smgr_unlink = nc_smgr_unlink,
	.smgr_extend = abi_extend,
	.smgr_zeroextend = abi_zeroextend,
	.smgr_prefetch = nc_smgr_prefetch,
	.smgr_readv = abi_readv,
	.smgr_writev = abi_writev,
	.smgr_writeback = nc_smgr_writeback,
	.smgr_nblocks = nc_smgr_nblocks,
	.smgr_truncate = nc_smgr_truncate,
	.smgr_immedsync = mdimmedsync,
	.smgr_registersync = mdregistersync,
	.smgr_start_unlogged_build = nc_smgr_build_begins,
	.smgr_finish_unlogged_build_phase_1 = nc_smgr_build_complete,
};

const NcSmgrAbi *
nc_smgr_abi(void)
{
	static const NcSmgrAbi abi = {
		.enter = nc_hook_enter,
		.not_asked = HOOK_NOT_ASKED,
		.not_asked_hint = HOOK_NOT_ASKED_HINT,
		.has_read_streams = true,
		.way = "hook"
	};

	return &abi;
}
