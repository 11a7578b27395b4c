/*
 * abi_hook_15.c
 *	  The way into a PostgreSQL 15 that has a storage-manager hook: our functions as its
 *	  public f_smgr wants them, adapted to smgr/abi.h.  Its own table is not touched.
 */
#include "postgres.h"

#include "storage/md.h"

#include "abi_hook.h"
#include "abi_single.h"
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
	.smgr_prefetch = abi_prefetch,
	.smgr_read = abi_read,
	.smgr_write = abi_write,
	.smgr_writeback = nc_smgr_writeback,
	.smgr_nblocks = nc_smgr_nblocks,
	.smgr_truncate = nc_smgr_truncate,
	.smgr_immedsync = mdimmedsync,
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
		.way = "hook"
	};

	return &abi;
}
