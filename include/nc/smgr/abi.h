/*
 * nc/smgr/abi.h
 *	  Our storage-manager operations, vectored and version-neutral, and what a
 *	  server version must provide for them.
 *
 * src/smgr/abi_NN.c holds the private table type of that server, adapts its
 * entries to these operations, and offers md's functions under neutral names.
 */
#ifndef NC_SMGR_ABI_H
#define NC_SMGR_ABI_H

#include "nc/compat/pg.h"

/* ---- our operations, called through the server's table; contracts as in smgr.c ---- */
extern void nc_smgr_create(SMgrRelation reln, ForkNumber fork, bool is_redo);
extern void nc_smgr_unlink(NcPgRelBackend rel, ForkNumber fork, bool is_redo);

/*
 * Adds blocks first..first+nblocks-1; pages[i] is the content of each, or
 * pages is NULL for zeroes.
 */
extern void nc_smgr_extendv(SMgrRelation reln, ForkNumber fork, BlockNumber first,
							const char *const *pages, int nblocks, bool skip_fsync);
extern bool nc_smgr_prefetch(SMgrRelation reln, ForkNumber fork, BlockNumber first, int nblocks);
extern void nc_smgr_readv(SMgrRelation reln, ForkNumber fork, BlockNumber first, char **pages,
						  int nblocks);
extern void nc_smgr_writev(SMgrRelation reln, ForkNumber fork, BlockNumber first,
						   const char *const *pages, int nblocks, bool skip_fsync);
extern void nc_smgr_writeback(SMgrRelation reln, ForkNumber fork, BlockNumber first,
							  BlockNumber nblocks);
extern void nc_smgr_truncate(SMgrRelation reln, ForkNumber fork, BlockNumber from,
							 BlockNumber nblocks);

/* ---- md under neutral names, by abi_NN.c ---- */
extern void nc_md_read(SMgrRelation reln, ForkNumber fork, BlockNumber block, char *page);
extern void nc_md_write(SMgrRelation reln, ForkNumber fork, BlockNumber block, const char *page,
						bool skip_fsync);
extern void nc_md_extend(SMgrRelation reln, ForkNumber fork, BlockNumber block, const char *page,
						 bool skip_fsync);
extern void nc_md_truncate(SMgrRelation reln, ForkNumber fork, BlockNumber from,
						   BlockNumber nblocks);
extern void nc_md_unlink(NcPgRelBackend rel, ForkNumber fork, bool is_redo);
extern void nc_md_writeback(SMgrRelation reln, ForkNumber fork, BlockNumber first,
							BlockNumber nblocks);
extern bool nc_md_prefetch(SMgrRelation reln, ForkNumber fork, BlockNumber first, int nblocks);

/* ---- the table, by abi_NN.c ---- */

/* Pointers of md's row of the table, in order, and of ours; n entries. */
typedef struct NcSmgrAbi
{
	int			n;
	void	  **theirs;
	void	  **ours;

	/* Server versions (server_version_num) this file was tested with. */
	const int  *tested;
	int			ntested;
} NcSmgrAbi;

extern const NcSmgrAbi *nc_smgr_abi(void);

/*
 * How often the close entry of the table was called: install's self-test
 * watches it move.  Not open or init: their index is a constant there, so the
 * compiler calls md directly.
 */
extern uint64 nc_smgr_close_calls;

/*
 * Swaps the table. In the postmaster, from _PG_init; FATAL with a remedy when
 * the server is not known or its table is not found exactly once.
 */
extern void nc_smgr_install(void);

#endif							/* NC_SMGR_ABI_H */
