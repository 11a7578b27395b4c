/*
 * hook.h
 *	  Between hook.c and abi_hook_NN.c.  Private to src/smgr.
 */
#ifndef NC_SMGR_HOOK_H
#define NC_SMGR_HOOK_H

#include "storage/smgr.h"

/* Our functions, by abi_hook_NN.c. */
extern const f_smgr nc_hook_functions;

/* By abi_hook_NN.c: from here on the server asks for our functions. FATAL if it cannot be. */
extern void nc_hook_become_manager(void);

/* See NcSmgrAbi. */
extern void nc_hook_enter(void);

#endif							/* NC_SMGR_HOOK_H */
