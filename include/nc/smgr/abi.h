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

#include "access/xlogdefs.h"

/* ---- our operations, called through the server's table; contracts as in smgr.c ---- */
extern bool nc_smgr_exists(SMgrRelation reln, ForkNumber fork);
extern BlockNumber nc_smgr_nblocks(SMgrRelation reln, ForkNumber fork);
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

/* The same of a main fork for who keeps reads in flight himself: nothing is read ahead for him. */
extern void nc_smgr_readv_of_stream(SMgrRelation reln, BlockNumber first, char **pages,
									int nblocks);
extern void nc_smgr_writev(SMgrRelation reln, ForkNumber fork, BlockNumber first,
						   const char *const *pages, int nblocks, bool skip_fsync);
extern void nc_smgr_writeback(SMgrRelation reln, ForkNumber fork, BlockNumber first,
							  BlockNumber nblocks);
extern void nc_smgr_truncate(SMgrRelation reln, ForkNumber fork, BlockNumber from,
							 BlockNumber nblocks);

/*
 * Are these blocks of a permanent main fork page servers' alone, and what is to be asked:
 * an LSN for all and the one that each answer must reach.  May wait for the throttle.
 */
extern bool nc_smgr_plan_remote(SMgrRelation reln, BlockNumber first, int nblocks, XLogRecPtr *nms,
								XLogRecPtr *exact);

/*
 * Servers with a front door say when an index is built whose pages are logged as a whole when
 * it is complete, and when it is.  What is written in between is kept, whatever its LSN;
 * other relations are left alone.  In the process that builds, in a transaction.
 */
extern void nc_smgr_build_begins(SMgrRelation reln);
extern void nc_smgr_build_complete(SMgrRelation reln);

/* Does md serve this fork, without us? */
extern bool nc_smgr_is_plain(SMgrRelation reln, ForkNumber fork);

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

/* Reads that the communicator completes (docs/async.md); rings of handles are in nc_rings. */
typedef struct NcSmgrAio
{
	Size		(*shmem_bytes) (void);
	void		(*shmem_startup) (void);

	/* In the communicator: where block `index` of a handle's read goes, or NULL; in COPYING. */
	uint8_t    *(*dest_page) (uint32 handle, uint32 index);

	/* In the communicator: completes a handle whose slot has become FREE. Never fails or waits. */
	void		(*complete) (uint32 handle, uint64 generation, bool answered);
} NcSmgrAio;

/* How a server is entered. */
typedef struct NcSmgrAbi
{
	/* "table", "hook" or "registered": see docs/interposition.md */
	const char *way;

	/*
	 * With a front door: enters by it, and what is the matter if calls do not arrive then. In
	 * the postmaster, from _PG_init; FATAL with a remedy if it is not ours to enter.
	 */
	void		(*enter) (void);
	const char *not_asked;
	const char *not_asked_hint;

	/* Without: pointers of md's row of the table, in order, and of ours; n entries. */
	int			n;
	void	  **theirs;
	void	  **ours;

	/* What the server has besides the table, changed in the postmaster after it; or NULL. */
	void		(*change_more) (void);

	/* Has it read streams, which name blocks by smgrprefetch that they have buffers for already? */
	bool		has_read_streams;

	/* Asynchronous reads, or NULL where there are no AIO handles. */
	const NcSmgrAio *aio;

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
 * Swaps the table or enters by the front door. In the postmaster, from _PG_init; FATAL
 * with a remedy when the server is not known, its table is not found exactly once, or its
 * door is another library's.
 */
extern void nc_smgr_install(void);

/*
 * Do calls still arrive here, after all libraries have been loaded?  FATAL if not.  In
 * the postmaster; looks at servers with a front door only.
 */
extern void nc_smgr_check_installed(void);

/* Writes into a constant table of the server. In the postmaster, while libraries are preloaded; FATAL if it may not. */
extern void nc_relro_write(void *at, const void *what, size_t bytes);

#endif							/* NC_SMGR_ABI_H */
