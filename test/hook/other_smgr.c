/*
 * other_smgr.c
 *	  Another library with a storage manager, for tests of servers that have the hook, or
 *	  register storage managers (18).
 *
 * other_smgr.mode, fixed at the start:
 *	pass	asks the hook that it found, or owns nothing; and counts who is asked about
 *	take	serves everything by md, and asks nobody
 */
#include "postgres.h"

#include <link.h>

#include "access/relation.h"
#include "access/xlog.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/md.h"
#include "storage/smgr.h"
#include "utils/guc.h"
#include "utils/pg_lsn.h"
#include "utils/rel.h"

PG_MODULE_MAGIC;

#if PG_VERSION_NUM >= 160000
typedef RelFileLocator OtherRel;
#define OTHER_REL(relation) ((relation)->rd_locator)
#else
typedef RelFileNode OtherRel;
#define OTHER_REL(relation) ((relation)->rd_node)
#endif
#if PG_VERSION_NUM >= 170000
typedef ProcNumber OtherBackend;
#define NOBODY INVALID_PROC_NUMBER
#else
typedef BackendId OtherBackend;
#define NOBODY InvalidBackendId
#endif

extern PGDLLEXPORT void _PG_init(void);

static char *mode;
static int64 asked = 0;

#if PG_VERSION_NUM >= 180000
static bool
owns(OtherRel rel, OtherBackend backend, char persistence)
{
	asked++;
	return strcmp(mode, "take") == 0;
}

/* md's, but for the name and what it owns. */
static const f_smgr md = {
	.name = "other",
	.smgr_owns = owns,
#else
static smgr_hook_type next = NULL;

static const f_smgr *
choose(OtherBackend backend, OtherRel rel)
{
	asked++;
	if (strcmp(mode, "pass") == 0 && next != NULL)
		return next(backend, rel);
	return smgr_standard(backend, rel);
}

static const f_smgr md = {
#endif
	.smgr_init = mdinit,
	.smgr_open = mdopen,
	.smgr_close = mdclose,
	.smgr_create = mdcreate,
	.smgr_exists = mdexists,
	.smgr_unlink = mdunlink,
	.smgr_extend = mdextend,
#if PG_VERSION_NUM >= 160000
	.smgr_zeroextend = mdzeroextend,
#endif
	.smgr_prefetch = mdprefetch,
#if PG_VERSION_NUM >= 170000
	.smgr_readv = mdreadv,
	.smgr_writev = mdwritev,
	.smgr_registersync = mdregistersync,
#else
	.smgr_read = mdread,
	.smgr_write = mdwrite,
#endif
	.smgr_writeback = mdwriteback,
	.smgr_nblocks = mdnblocks,
	.smgr_truncate = mdtruncate,
	.smgr_immedsync = mdimmedsync,
#if PG_VERSION_NUM >= 180000
	.smgr_maxcombine = mdmaxcombine,
	.smgr_startreadv = mdstartreadv,
	.smgr_fd = mdfd,
#endif
};

void
_PG_init(void)
{
	if (!process_shared_preload_libraries_in_progress)
		return;
	DefineCustomStringVariable("other_smgr.mode", "pass or take", NULL, &mode, "pass", PGC_POSTMASTER, 0, NULL,
							   NULL, NULL);
#if PG_VERSION_NUM >= 180000
	(void) smgrregister(&md);
#else
	next = smgr_hook;
	smgr_hook = choose;
#endif
}

/* How often this process has been asked. */
PG_FUNCTION_INFO_V1(other_smgr_asked);
Datum
other_smgr_asked(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64(asked);
}

#if PG_VERSION_NUM >= 180000
/* dl_iterate_phdr: the first object is the main program. How often are md's entries in its constant data? */
static int
count_md(struct dl_phdr_info *info, size_t size, void *found)
{
	const Size	skip = offsetof(f_smgr, smgr_init);

	for (int i = 0; i < info->dlpi_phnum; i++)
	{
		char	   *at = (char *) (info->dlpi_addr + info->dlpi_phdr[i].p_vaddr);
		char	   *end = at + info->dlpi_phdr[i].p_memsz - (sizeof(md) - skip);

		for (at = (char *) MAXALIGN(at); info->dlpi_phdr[i].p_type == PT_GNU_RELRO && at <= end; at += sizeof(void *))
			*(int *) found += memcmp(at, (char *) &md + skip, sizeof(md) - skip) == 0;
	}
	return 1;
}

static bool
table_is_mds(void)
{
	int			found = 0;

	dl_iterate_phdr(count_md, &found);
	return found == 1;
}

#define SERVED_BY_OTHER(relation) (RelationGetSmgr(relation)->smgr_which != 0)
#else
static bool
table_is_mds(void)
{
	OtherRel	nowhere = {0};

	return memcmp(smgr_standard(NOBODY, nowhere), &md, sizeof(md)) == 0;
}

#define SERVED_BY_OTHER(relation) (RelationGetSmgr(relation)->smgr != smgr_standard(NOBODY, OTHER_REL(relation)))
#endif

/* Is the server's own table md's, entry by entry? */
PG_FUNCTION_INFO_V1(other_smgr_table_is_mds);
Datum
other_smgr_table_is_mds(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(table_is_mds());
}

/* Is the relation's storage manager another than the server's own? */
PG_FUNCTION_INFO_V1(other_smgr_serves);
Datum
other_smgr_serves(PG_FUNCTION_ARGS)
{
	Relation	rel = relation_open(PG_GETARG_OID(0), AccessShareLock);
	bool		other = SERVED_BY_OTHER(rel);

	relation_close(rel, AccessShareLock);
	PG_RETURN_BOOL(other);
}

/* What the server says when it builds an index without WAL: "start", "complete" or "end". */
PG_FUNCTION_INFO_V1(other_smgr_build);
Datum
other_smgr_build(PG_FUNCTION_ARGS)
{
	Relation	rel = relation_open(PG_GETARG_OID(0), AccessExclusiveLock);
	char	   *what = PG_GETARG_CSTRING(1);

	if (strcmp(what, "start") == 0)
		smgr_start_unlogged_build(RelationGetSmgr(rel));
	else if (strcmp(what, "complete") == 0)
		smgr_finish_unlogged_build_phase_1(RelationGetSmgr(rel));
	else
		smgr_end_unlogged_build(RelationGetSmgr(rel));
	relation_close(rel, NoLock);
	PG_RETURN_VOID();
}

/* What the server says when it logs a page that passes by shared buffers. */
PG_FUNCTION_INFO_V1(other_smgr_logged);
Datum
other_smgr_logged(PG_FUNCTION_ARGS)
{
	Relation	rel = relation_open(PG_GETARG_OID(0), AccessShareLock);
	XLogRecPtr	held = InvalidXLogRecPtr;

	if (set_lwlsn_block_hook != NULL)
		held = set_lwlsn_block_hook(PG_GETARG_LSN(2), OTHER_REL(rel), MAIN_FORKNUM, PG_GETARG_INT32(1));
	relation_close(rel, AccessShareLock);
	PG_RETURN_LSN(held);
}

/*
 * What the server says by one of its hooks for LSNs of the blocks from one on: "block", "range", "v",
 * "relation", "db" or "max".  By "v" blocks but the last have the LSN 1.  NULL where nobody listens.
 */
PG_FUNCTION_INFO_V1(other_smgr_tell);
Datum
other_smgr_tell(PG_FUNCTION_ARGS)
{
	char	   *what = PG_GETARG_CSTRING(0);
	Relation	rel = relation_open(PG_GETARG_OID(1), AccessShareLock);
	OtherRel	name = OTHER_REL(rel);
	BlockNumber from = PG_GETARG_INT32(2);
	int			n = PG_GETARG_INT32(3);
	XLogRecPtr	lsn = PG_GETARG_LSN(4);
	XLogRecPtr *lsns = palloc(n * sizeof(XLogRecPtr));
	XLogRecPtr	held = InvalidXLogRecPtr;

	relation_close(rel, AccessShareLock);
	for (int i = 0; i < n; i++)
		lsns[i] = i < n - 1 ? 1 : lsn;
	if (strcmp(what, "block") == 0 && set_lwlsn_block_hook)
		held = set_lwlsn_block_hook(lsn, name, MAIN_FORKNUM, from);
	if (strcmp(what, "range") == 0 && set_lwlsn_block_range_hook)
		held = set_lwlsn_block_range_hook(lsn, name, MAIN_FORKNUM, from, n);
	if (strcmp(what, "v") == 0 && set_lwlsn_block_v_hook)
		held = set_lwlsn_block_v_hook(lsns, name, MAIN_FORKNUM, from, n);
	if (strcmp(what, "relation") == 0 && set_lwlsn_relation_hook)
		held = set_lwlsn_relation_hook(lsn, name, MAIN_FORKNUM);
	if (strcmp(what, "db") == 0 && set_lwlsn_db_hook)
		held = set_lwlsn_db_hook(lsn);
	if (strcmp(what, "max") == 0 && set_max_lwlsn_hook)
	{
		set_max_lwlsn_hook(lsn);
		held = lsn;
	}
	if (held == InvalidXLogRecPtr)
		PG_RETURN_NULL();
	PG_RETURN_LSN(held);
}
