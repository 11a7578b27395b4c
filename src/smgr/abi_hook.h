/*
 * abi_hook.h
 *	  What servers with smgr_hook have in common: setting it.  Private to src/smgr; included
 *	  once, by abi_hook_15.c or abi_hook_17.c.
 */
#ifndef NC_SMGR_ABI_HOOK_H
#define NC_SMGR_ABI_HOOK_H

#include "postgres.h"

#include <dlfcn.h>

#include "storage/smgr.h"

#include "hook.h"
#include "nc/compat/pg.h"

#define HOOK_NOT_ASKED "another library has set the storage-manager hook and does not ask neon_comm"
#define HOOK_NOT_ASKED_HINT "It has to ask the hook that it found; if it cannot, take it or neon_comm out of shared_preload_libraries."

/* A server without them loads the library all the same, and _PG_init says what is wrong instead of the loader. */
#pragma weak smgr_hook
#pragma weak smgr_standard

/* Temporary relations are the server's. */
static const f_smgr *
serve(NcPgBackend backend, NcPgRel rel)
{
	return backend == NC_NO_BACKEND ? &nc_hook_functions : smgr_standard(backend, rel);
}

void
nc_hook_become_manager(void)
{
	if (smgr_hook != NULL)
	{
		Dl_info		who = {0};

		(void) dladdr((void *) smgr_hook, &who);
		ereport(FATAL,
				(errmsg("neon_comm: another library has set the storage-manager hook before"),
				 errdetail("It is \"%s\".", who.dli_fname != NULL ? who.dli_fname : "not known"),
				 errhint("Put neon_comm before it in shared_preload_libraries; a library that asks the hook it found then works with neon_comm.")));
	}
	smgr_hook = serve;
}

#endif							/* NC_SMGR_ABI_HOOK_H */
