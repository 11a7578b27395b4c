/*
 * shadow.c
 *	  neon_comm.verify = shadow: full local files beside the page servers, to
 *	  compare every page with that is read.
 *
 * The skeleton file itself takes the bytes: a page that would be let go is
 * written to its place, where the index of local blocks does not name it, so
 * that creation, truncation, unlink and moves need nothing of their own.
 * After a start the bytes of a relation that no index names are wiped before its
 * first use (skeleton_start.c), and once more where that it was done has been
 * forgotten.  Hence what is found in a place was written, or read and found good,
 * by this run of the server; a page of zeroes or one that says that the block was never logged
 * (empty.c) means that nothing is known.
 *
 * Pages are compared as PostgreSQL's wal_consistency_checking does it, with the
 * mask functions of the access methods: hint bits, holes, command ids and dead
 * item marks are not in WAL.  An answer with an older LSN is a lost write, one
 * with a newer LSN a page of the future; both are mismatches, except that a
 * recovering server asks page servers which are ahead of it, and that the flag
 * all-visible need not move the LSN.
 *
 * Runs in every process that reads and writes pages.  Never changes the page
 * that is checked.
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "access/brin_page.h"
#include "access/brin_xlog.h"
#include "access/generic_xlog.h"
#include "access/gin_private.h"
#include "access/ginxlog.h"
#include "access/gist.h"
#include "access/gistxlog.h"
#include "access/hash.h"
#include "access/hash_xlog.h"
#include "access/heapam_xlog.h"
#include "access/nbtree.h"
#include "access/nbtxlog.h"
#include "access/spgist_private.h"
#include "access/spgxlog.h"
#include "access/xlog.h"
#include "common/file_perm.h"
#include "common/relpath.h"
#include "storage/bufpage.h"
#include "storage/fd.h"

#include "nc/shared/settings.h"
#include "nc/shared/shmem.h"
#include "nc/smgr/abi.h"
#include "nc/smgr/empty.h"
#include "nc/smgr/keep.h"
#include "nc/smgr/local.h"
#include "nc/smgr/shadow.h"
#include "nc/smgr/skeleton.h"

#define MISMATCH_DIRECTORY "neon_comm_mismatch"

bool
nc_shadow_on(void)
{
	return nc_guc_verify == NC_VERIFY_SHADOW;
}

void
nc_shadow_write(SMgrRelation reln, BlockNumber block, const char *page)
{
	NcRelKey	rel = nc_reln_key(reln, MAIN_FORKNUM);

	if (page == NULL || nc_page_is_zero(page))
		nc_skeleton_punch(&rel, block, 1);
	else
		nc_md_write(reln, MAIN_FORKNUM, block, page, true);
}

/* ---- what WAL does not carry ---- */

static bool
header_is_valid(const char *page)
{
	const PageHeaderData *h = (const PageHeaderData *) page;

	return PageGetPageSize((Page) unconstify(char *, page)) == BLCKSZ &&
		h->pd_lower >= SizeOfPageHeaderData && h->pd_lower <= h->pd_upper &&
		h->pd_upper <= h->pd_special && h->pd_special <= BLCKSZ &&
		h->pd_special == MAXALIGN(h->pd_special);
}

/* The meta page caches in which pages there was room, and no WAL says so. */
static void
mask_spgist(char *page, BlockNumber block)
{
	spg_mask(page, block);
	if (block == SPGIST_METAPAGE_BLKNO)
		memset(&SpGistPageGetMeta(page)->lastUsedPages, 0, sizeof(SpGistLUPCache));
}

/*
 * Access methods mark their pages in the last two bytes, as pg_filedump knows
 * them too; btree has its cycle id there, which is below all the others.  GIN
 * has flags there, also below, and is told from SP-GiST and BRIN by that.
 */
static void
mask_index_page(char *page, BlockNumber block)
{
	int			special = BLCKSZ - ((PageHeader) page)->pd_special;
	uint16		mark = *(uint16 *) (page + BLCKSZ - sizeof(uint16));

	if (special == MAXALIGN(sizeof(BTPageOpaqueData)))
	{
		if (mark == HASHO_PAGE_ID)
			hash_mask(page, block);
		else if (mark == GIST_PAGE_ID)
			gist_mask(page, block);
		else if (mark <= MAX_BT_CYCLE_ID)
			btree_mask(page, block);
		else
			generic_mask(page, block);
	}
	else if (special == MAXALIGN(sizeof(SpGistPageOpaqueData)))
	{
		if (mark == SPGIST_PAGE_ID)
			mask_spgist(page, block);
		else if (mark == BRIN_PAGETYPE_META || mark == BRIN_PAGETYPE_REVMAP ||
				 mark == BRIN_PAGETYPE_REGULAR)
			brin_mask(page, block);
		else if ((mark & ~0x1FF) == 0)
			gin_mask(page, block);
		else
			generic_mask(page, block);
	}
	else
		generic_mask(page, block);
}

bool
nc_shadow_mask(char *page, BlockNumber block)
{
	if (!header_is_valid(page))
		return false;
	if (((PageHeader) page)->pd_special == BLCKSZ)
		heap_mask(page, block);
	else
		mask_index_page(page, block);
	return true;
}

static bool
same_content(const char *a, const char *b, BlockNumber block)
{
	PGAlignedBlock left;
	PGAlignedBlock right;

	memcpy(left.data, a, BLCKSZ);
	memcpy(right.data, b, BLCKSZ);
	if (nc_shadow_mask(left.data, block) && nc_shadow_mask(right.data, block))
		return memcmp(left.data, right.data, BLCKSZ) == 0;
	return memcmp(a, b, BLCKSZ) == 0;
}

/* ---- a mismatch ---- */

/* Best effort: what cannot be dumped is still reported. */
static void
dump_page(const NcRelKey *rel, BlockNumber block, const char *what, const char *page)
{
	char		path[MAXPGPATH];
	int			fd;

	(void) MakePGDirectory(MISMATCH_DIRECTORY);
	snprintf(path, sizeof(path), "%s/%u_%u_%u_%u.%s", MISMATCH_DIRECTORY, rel->spc, rel->db,
			 rel->rel, block, what);
	fd = BasicOpenFilePerm(path, O_CREAT | O_TRUNC | O_WRONLY | PG_BINARY, pg_file_create_mode);
	if (fd < 0 || write(fd, page, BLCKSZ) != BLCKSZ)
		ereport(LOG,
				(errcode_for_file_access(), errmsg("could not write file \"%s\": %m", path)));
	if (fd >= 0)
		close(fd);
}

static void
report_mismatch(const NcRelKey *rel, BlockNumber block, const char *page, const char *shadow,
				const char *why)
{
	char		path[MAXPGPATH];

	nc_pg_fork_path(rel, MAIN_FORKNUM, path);
	nc_stat(NC_COUNTER_VERIFY_MISMATCHES, 1);
	dump_page(rel, block, "read", page);
	dump_page(rel, block, "shadow", shadow);
	ereport(ERROR,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("verification failed: block %u of relation %s %s", block, path, why),
			 errdetail("The page read has LSN %X/%X, the one kept has %X/%X.",
					   LSN_FORMAT_ARGS(PageGetLSN(unconstify(char *, page))),
					   LSN_FORMAT_ARGS(PageGetLSN(unconstify(char *, shadow)))),
			 errhint("Both pages are in directory \"%s\" of the data directory.",
					 MISMATCH_DIRECTORY)));
}

/* ---- the comparison ---- */

/* What differs, or NULL. */
static const char *
compare(const char *page, const char *shadow, BlockNumber block)
{
	XLogRecPtr	lsn = PageGetLSN(unconstify(char *, page));
	XLogRecPtr	kept = PageGetLSN(unconstify(char *, shadow));
	bool		lag = nc_page_lsn_may_lag(page) || nc_page_lsn_may_lag(shadow);

	if (lsn < kept && !lag)
		return "is older than the version that was written";
	if (lsn > kept && !lag)
		return "is newer than any version that was written";
	if (!same_content(page, shadow, block))
		return "differs from the version that was written";
	return NULL;
}

/* Nothing was known of the block, or recovery reads ahead of itself. */
static void
learn(SMgrRelation reln, const NcRelKey *rel, BlockNumber block, const char *page)
{
	NcLocalRef	ref;

	nc_local_begin_change(rel, block, &ref);
	/* of an empty page there is nothing to learn, and what the file says of it stays */
	if ((ref.chunk == NULL || (ref.chunk->local & ref.bit) == 0) &&
		!nc_page_is_zero(page) && !nc_local_relation(reln).unlogged)
		nc_shadow_write(reln, block, page);
	nc_local_end(&ref);
	nc_stat(NC_COUNTER_VERIFY_LEARNED, 1);
}

void
nc_shadow_check(SMgrRelation reln, BlockNumber block, const char *page)
{
	NcRelKey	rel = nc_reln_key(reln, MAIN_FORKNUM);
	PGIOAlignedBlock shadow;
	const char *why;

	nc_md_read(reln, MAIN_FORKNUM, block, shadow.data);
	if (nc_page_is_zero(shadow.data) || nc_empty_says(shadow.data, block) ||
		(RecoveryInProgress() &&
		 PageGetLSN(unconstify(char *, page)) > PageGetLSN(shadow.data)))
	{
		learn(reln, &rel, block, page);
		return;
	}
	nc_stat(NC_COUNTER_VERIFY_PAGES, 1);
	why = compare(page, shadow.data, block);
	if (why != NULL)
		report_mismatch(&rel, block, page, shadow.data, why);
}
