/*
 * ops.c
 *	  The storage-manager operations of neon_comm.
 *
 * Each block comes from one of four places, looked at in this order:
 *
 *	plain		temporary and unlogged relations, INIT, FSM and VM forks: md does it
 *	local		a block named by the index: its content is in the skeleton file
 *	cache		a page of the local file cache, read by the backend itself
 *	remote		everything else: the skeleton holds length, page servers hold content
 *
 * Runs in every process of the compute.  Rules about which page stays local
 * are in keep.c, about LSNs in lwlsn.c.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "access/xlogutils.h"
#include "storage/bufpage.h"
#include "storage/md.h"

#include "nc/cache/lfc_index.h"
#include "nc/client/client.h"
#include "nc/client/prefetch.h"
#include "nc/feed/throttle.h"
#include "nc/filecache/filecache.h"
#include "nc/lsn/request_lsn.h"
#include "nc/shared/settings.h"
#include "nc/shared/shmem.h"
#include "nc/shared/test_point.h"
#include "nc/smgr/abi.h"
#include "nc/smgr/database.h"
#include "nc/smgr/empty.h"
#include "nc/smgr/keep.h"
#include "nc/smgr/lengths.h"
#include "nc/smgr/local.h"
#include "nc/smgr/lwlsn.h"
#include "nc/smgr/readahead.h"
#include "nc/smgr/shadow.h"
#include "nc/smgr/skeleton.h"
#include "nc/smgr/sweeper.h"

static const PGIOAlignedBlock zero_page;

static bool
is_temp(SMgrRelation reln)
{
	return NC_RELN_BACKEND(reln) != NC_NO_BACKEND;
}

/* Local by nature: md serves the fork. If not, *info says what is known of the relation. */
static bool
is_plain_or(SMgrRelation reln, ForkNumber fork, NcRelInfo *info)
{
	if (fork != MAIN_FORKNUM || is_temp(reln))
		return true;
	*info = nc_skeleton_relation(reln);
	return info->unlogged;
}

bool
nc_smgr_is_plain(SMgrRelation reln, ForkNumber fork)
{
	NcRelInfo	info;

	return is_plain_or(reln, fork, &info);
}

/* ---- existence ---- */

bool
nc_smgr_exists(SMgrRelation reln, ForkNumber fork)
{
	/* who drops the relations of a prepared transaction asks which forks they have, and must not fail */
	if (!nc_database_finishes_prepared())
		nc_lengths_ensure(reln, fork);
	return mdexists(reln, fork);
}

BlockNumber
nc_smgr_nblocks(SMgrRelation reln, ForkNumber fork)
{
	nc_lengths_ensure(reln, fork);
	return mdnblocks(reln, fork);
}

void
nc_smgr_create(SMgrRelation reln, ForkNumber fork, bool is_redo)
{
	NcRelKey	rel = nc_reln_key(reln, MAIN_FORKNUM);

	/* what redo finds must be as long as it is; and no number is given away that page servers know */
	nc_lengths_ensure(reln, fork);
	mdcreate(reln, fork, is_redo);
	if (is_temp(reln))
		return;
	nc_lengths_changed(&rel, false);
	if (fork == INIT_FORKNUM)
	{
		nc_local_set_whole(&rel);
		/* who has begun to scrub the file before it could see the fork ends before the file counts */
		LWLockRelease(nc_local_lock_file(&rel, LW_SHARED));
		nc_empty_wipe(&rel);
		/* after the marks: from now on pages are written to the file without a lock */
		nc_local_set_unlogged(&rel);
		nc_filecache_forget(&rel, 0, nc_skeleton_length(&rel));
	}
	else if (fork == MAIN_FORKNUM)
	{
		nc_lwlsn_set_relation(&rel, nc_lsn_now());
		if (!is_redo && !RecoveryInProgress())
			nc_local_set_born(&rel, nc_lsn_now());

		/*
		 * Where the server says so there is no need to wait for the INIT fork; the file is new
		 * and has no marks.  Until that fork is there nothing else tells, so what is known is
		 * not thrown away before this transaction ends.
		 */
		if (!is_redo && NC_RELN_IS_SAID_TO_BE_UNLOGGED(reln))
		{
			nc_local_set_unlogged(&rel);
			nc_local_set_building(&rel, true);
		}
	}
}

void
nc_smgr_unlink(NcPgRelBackend backend_rel, ForkNumber fork, bool is_redo)
{
	NcRelKey	rel = NC_PGREL_BACKEND_KEY(backend_rel, MAIN_FORKNUM);
	BlockNumber length = 0;

	NC_TEST_POINT_REL("smgr-unlink", rel.rel);
	if (!NC_PGREL_BACKEND_IS_TEMP(backend_rel))
	{
		if (fork == MAIN_FORKNUM || fork == InvalidForkNumber)
		{
			length = nc_skeleton_length(&rel);
			nc_local_forget_blocks(&rel, 0);
			nc_lwlsn_set_relation(&rel, nc_lsn_now());
		}
		nc_lengths_changed(&rel, fork == MAIN_FORKNUM && !is_redo);
	}
	NC_TEST_POINT_REL("smgr-unlink-md", rel.rel);
	nc_md_unlink(backend_rel, fork, is_redo);
	/* after md: whoever brings a page without its buffer looks at the length first */
	nc_filecache_forget(&rel, 0, length);
	if (!NC_PGREL_BACKEND_IS_TEMP(backend_rel) &&
		(fork == INIT_FORKNUM || fork == InvalidForkNumber))
		nc_local_forget_persistence(&rel);
}

/*
 * Runs in a critical section: md first, then only what neither fails nor
 * waits for another process's I/O.
 */
void
nc_smgr_truncate(SMgrRelation reln, ForkNumber fork, BlockNumber from, BlockNumber nblocks)
{
	NcRelKey	rel = nc_reln_key(reln, MAIN_FORKNUM);

	NC_TEST_POINT_REL("smgr-truncate", rel.rel);
	nc_md_truncate(reln, fork, from, nblocks);
	if (fork != MAIN_FORKNUM || is_temp(reln))
		return;
	nc_local_forget_blocks(&rel, nblocks);
	nc_lwlsn_set_relation(&rel, nc_lsn_now());
	nc_filecache_forget(&rel, nblocks, from);
}

/* ---- writing ---- */

static void
count_kept(NcKeep why)
{
	nc_tally(why == NC_KEEP_NOT ? NC_TALLY_DROPPED : NC_TALLY_KEPT, 1);
	switch (why)
	{
		case NC_KEEP_NOT:
			nc_stat(NC_COUNTER_WRITES_REMOTE, 1);
			break;
		case NC_KEEP_LOW_LSN:
			nc_stat(NC_COUNTER_WRITES_LOCAL_LOW_LSN, 1);
			break;
		case NC_KEEP_SEQUENCE:
			nc_stat(NC_COUNTER_WRITES_LOCAL_SEQUENCE, 1);
			break;
		case NC_KEEP_COMMAND_ID:
			nc_stat(NC_COUNTER_WRITES_LOCAL_COMMAND_ID, 1);
			break;
		case NC_KEEP_CYCLE_ID:
			nc_stat(NC_COUNTER_WRITES_LOCAL_CYCLE_ID, 1);
			break;
	}
}

/* md's write of a local block; what it raises, a test can have raised. */
static void
write_local(SMgrRelation reln, BlockNumber block, const char *page, bool skip_fsync)
{
	if (NC_TEST_FAULT_REL("smgr-keep-write", nc_reln_key(reln, MAIN_FORKNUM).rel))
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not write block %u of local file: %m", block)));
	nc_md_write(reln, MAIN_FORKNUM, block, page, skip_fsync);
}

/*
 * Has an INIT fork come since the caller looked?  Then the file is all there is, and gets
 * the page.  The chunk's lock is held exclusive.
 */
static bool
write_whole(SMgrRelation reln, NcLocalRef *ref, BlockNumber block, const char *page,
			bool skip_fsync)
{
	if (!nc_local_relation(reln).whole)
		return false;
	nc_local_clear(ref);
	nc_md_write(reln, MAIN_FORKNUM, block, page, skip_fsync);
	return true;
}

/* A page of zeroes was written, and may be read again as that; rare. */
static void
drop_empty(SMgrRelation reln, const NcRelKey *rel, BlockNumber block)
{
	NcLocalRef	ref;

	if (nc_local_look(rel, block) == NC_BLOCK_EMPTY)
		return;
	nc_local_begin_change(rel, block, &ref);
	if (write_whole(reln, &ref, block, zero_page.data, false))
	{
		nc_local_end(&ref);
		return;
	}
	nc_skeleton_punch(rel, block, 1);
	nc_local_clear(&ref);
	PG_TRY();
	{
		nc_skeleton_mark(rel, block);
		nc_local_note_empty(&ref, ref.bit);
	}
	PG_FINALLY();
	{
		nc_local_end(&ref);
	}
	PG_END_TRY();
}

/* Page servers can rebuild this page: let go of it. */
static void
drop_page(SMgrRelation reln, const NcRelKey *rel, BlockNumber block, const char *page)
{
	NcLocalRef	ref;

	/* the LSN first: whoever then finds the block not local asks for the right version */
	nc_lwlsn_page_dropped(rel, block, page, InvalidXLogRecPtr);
	NC_TEST_POINT_REL("smgr-drop-page", rel->rel);
	if (nc_page_is_zero(page))
	{
		drop_empty(reln, rel, block);
		return;
	}
	if (!nc_shadow_on() && nc_local_look(rel, block) == NC_BLOCK_REMOTE &&
		!nc_local_relation(reln).has_marks)
		return;
	nc_local_begin_change(rel, block, &ref);
	if (write_whole(reln, &ref, block, page, false))
	{
		nc_local_end(&ref);
		return;
	}
	nc_local_clear(&ref);
	if (nc_shadow_on())
		nc_shadow_write(reln, block, page);
	else
		nc_skeleton_punch(rel, block, 1);
	nc_local_end(&ref);
}

/* Makes sure of an entry; the reserve is not for pages of one's own transaction. */
static bool
find_room(NcLocalRef *ref, const NcRelKey *rel, const char *page, NcKeep why)
{
	if (ref->chunk == NULL && nc_local_in_reserve() && nc_keep_is_own(rel, page, why))
		return false;
	return nc_local_try_ensure(ref);
}

/*
 * Locks the block's place in the index, with an entry if there is room for one.
 * Before anybody is told that there is none, what ended transactions have left
 * is swept: the sweeper's next round may be far.
 */
static void
begin_keep(const NcRelKey *rel, BlockNumber block, const char *page, NcKeep why, NcLocalRef *ref)
{
	nc_local_begin_change(rel, block, ref);
	if (find_room(ref, rel, page, why))
		return;
	nc_local_end(ref);
	nc_sweep_for_room();
	nc_local_begin_change(rel, block, ref);
}

/* Keeps the page in the skeleton file and says so in the index. */
static void
keep_page(SMgrRelation reln, const NcRelKey *rel, BlockNumber block, const char *page, NcKeep why,
		  FullTransactionId keep_until, bool skip_fsync)
{
	NcLocalRef	ref;
	bool		room;

	begin_keep(rel, block, page, why, &ref);
	/* before the look: who makes an INIT fork passes by chunks that have an entry */
	room = find_room(&ref, rel, page, why);
	if (write_whole(reln, &ref, block, page, skip_fsync))
	{
		nc_local_end(&ref);
		return;
	}
	if (!room)
		nc_local_fail_full(&ref);
	write_local(reln, block, page, skip_fsync);
	nc_local_mark(&ref, why, keep_until);
	nc_local_end(&ref);
}

static void
write_permanent(SMgrRelation reln, BlockNumber block, const char *page, bool skip_fsync)
{
	NcRelKey	rel = nc_reln_key(reln, MAIN_FORKNUM);
	FullTransactionId keep_until;
	NcKeep		why = nc_keep_page(page, block, nc_local_relation(reln).born, &keep_until);

	NC_TEST_POINT_REL("smgr-write", rel.rel);
	count_kept(why);
	if (why == NC_KEEP_NOT)
	{
		drop_page(reln, &rel, block, page);
		nc_filecache_written(&rel, block, page);
		return;
	}
	keep_page(reln, &rel, block, page, why, keep_until, skip_fsync);
	/* after the index names it: whoever brings a page without its buffer looks there first */
	nc_filecache_forget(&rel, block, block + 1);
}

void
nc_smgr_writev(SMgrRelation reln, ForkNumber fork, BlockNumber first, const char *const *pages,
			   int nblocks, bool skip_fsync)
{
	bool		plain;

	nc_lengths_ensure(reln, fork);
	plain = nc_smgr_is_plain(reln, fork);
	for (int i = 0; i < nblocks; i++)
	{
		if (plain)
		{
			nc_stat(NC_COUNTER_WRITES_PLAIN, 1);
			nc_md_write(reln, fork, first + i, pages[i], skip_fsync);
		}
		else
			write_permanent(reln, first + i, pages[i], skip_fsync);
	}
}

static void
extend_plain(SMgrRelation reln, ForkNumber fork, BlockNumber first, const char *const *pages,
			 int nblocks, bool skip_fsync)
{
	for (int i = 0; i < nblocks; i++)
		nc_md_extend(reln, fork, first + i, pages != NULL ? pages[i] : zero_page.data, skip_fsync);
}

/* Tells the index of the marks of new blocks. */
static void
note_marks(const NcRelKey *rel, BlockNumber from, BlockNumber end)
{
	while (from < end)
	{
		int			shift = from % NC_LOCAL_CHUNK_BLOCKS;
		int			n = Min(end - from, (BlockNumber) (NC_LOCAL_CHUNK_BLOCKS - shift));
		NcLocalRef	ref;

		nc_local_begin_change(rel, from, &ref);
		nc_local_note_empty(&ref, ~UINT64CONST(0) >> (NC_LOCAL_CHUNK_BLOCKS - n) << shift);
		nc_local_end(&ref);
		from += n;
	}
}

/* Makes the file, of this length, reach up to the block; page is its content or NULL. */
static void
extend_to(SMgrRelation reln, const NcRelKey *rel, BlockNumber length, BlockNumber block,
		  const char *page)
{
	bool		empty = page == NULL || nc_page_is_zero(page);
	LWLock	   *file_lock;
	BlockNumber mark_end = empty ? block + 1 : block;

	/* CREATE DATABASE jumps to the end and then logs each block, empty ones too, or is undone */
	BlockNumber mark_first = nc_database_copies() ? block : length;

	/*
	 * Builders of new relations come block by block and are undone by a crash.
	 * Who jumps (hash) extends an index that is there: its last block has no mark,
	 * so what logs it must be durable when the length may be.
	 */
	if (!empty && block > length && !RecoveryInProgress() &&
		XLogNeedsFlush(PageGetLSN(unconstify(char *, page))))
		XLogFlush(PageGetLSN(unconstify(char *, page)));
	file_lock = nc_local_lock_file(rel, LW_SHARED);
	nc_skeleton_extend(reln, block, mark_first, mark_end);
	note_marks(rel, mark_first, mark_end);
	LWLockRelease(file_lock);
}

void
nc_smgr_extendv(SMgrRelation reln, ForkNumber fork, BlockNumber first, const char *const *pages,
				int nblocks, bool skip_fsync)
{
	NcRelKey	rel = nc_reln_key(reln, MAIN_FORKNUM);
	XLogRecPtr	now;
	BlockNumber length;

	nc_lengths_ensure(reln, fork);
	if (nc_smgr_is_plain(reln, fork))
	{
		extend_plain(reln, fork, first, pages, nblocks, skip_fsync);
		return;
	}
	nc_throttle(NC_THROTTLE_STORAGE);
	length = mdnblocks(reln, MAIN_FORKNUM);
	for (int i = 0; i < nblocks; i++)
		extend_to(reln, &rel, Max(length, i > 0 ? first + i : 0), first + i,
				  pages != NULL ? pages[i] : NULL);
	nc_stat(NC_COUNTER_EXTENDS, nblocks);
	nc_keep_note_extended(&rel);

	/* Blocks between the old end and the first one came into being too, without a name of their own. */
	now = nc_lsn_now();
	if (first > length)
		nc_lwlsn_set_relation(&rel, now);
	for (int i = 0; i < nblocks; i++)
		nc_lwlsn_set_page(&rel, first + i, now, 0);
	/* after the LSNs: whoever brings a page without its buffer asks for these */
	nc_filecache_forget(&rel, Min(length, first), first + nblocks);
	for (int i = 0; i < nblocks; i++)
	{
		if (pages != NULL && !nc_page_is_zero(pages[i]))
			write_permanent(reln, first + i, pages[i], skip_fsync);
		else if (first + i < length)
			drop_page(reln, &rel, first + i, zero_page.data);
	}
}

void
nc_smgr_build_begins(SMgrRelation reln)
{
	NcRelKey	rel = nc_reln_key(reln, MAIN_FORKNUM);

	if (!nc_smgr_is_plain(reln, MAIN_FORKNUM))
		nc_local_set_building(&rel, true);
}

void
nc_smgr_build_complete(SMgrRelation reln)
{
	NcRelKey	rel = nc_reln_key(reln, MAIN_FORKNUM);

	if (!nc_smgr_is_plain(reln, MAIN_FORKNUM))
		nc_local_set_building(&rel, false);
}

void
nc_smgr_writeback(SMgrRelation reln, ForkNumber fork, BlockNumber first, BlockNumber nblocks)
{
	/* a skeleton has nothing to write back; local blocks wait for the checkpoint's sync */
	if (nc_smgr_is_plain(reln, fork))
		nc_md_writeback(reln, fork, first, nblocks);
}

/* ---- reading ---- */

bool
nc_smgr_prefetch(SMgrRelation reln, ForkNumber fork, BlockNumber first, int nblocks)
{
	NcRelKey	rel = nc_reln_key(reln, MAIN_FORKNUM);

	nc_lengths_ensure(reln, fork);
	if (nc_smgr_is_plain(reln, fork))
		return nc_md_prefetch(reln, fork, first, nblocks);

	/* recovery wants to know whether the file is there */
	if (InRecovery)
		return mdexists(reln, fork);
	nc_readahead_asked(reln, &rel, first, nblocks);
	return true;
}

/* A page that was asked for ahead, if it is what a request would bring now. */
static bool
read_staged(const NcRelKey *rel, BlockNumber block, char *page)
{
	XLogRecPtr	nms,
				exact;

	if (nc_prefetch_live() == 0)
		return nc_prefetch_take(rel, block, InvalidXLogRecPtr, InvalidXLogRecPtr, page);
	nc_lwlsn_query(rel, block, &nms, &exact);
	return nc_prefetch_take(rel, block, nms, exact, page);
}

static void
read_remote(const NcRelKey *rel, BlockNumber first, char **pages, int nblocks, bool may_have_mark)
{
	XLogRecPtr	exact[NC_SLOT_BLOCKS_MAX];
	NcRead		read = {.rel = *rel, .block = first, .nblocks = nblocks, .pages = pages,
		.exact = exact, .request_lsn = NC_LSN_MAX};

	nc_throttle(NC_THROTTLE_STORAGE);

	/* one not_modified_since for the run, the newest: page servers batch equal ones */
	for (int i = 0; i < nblocks; i++)
	{
		XLogRecPtr	nms;

		nc_lwlsn_query(rel, first + i, &nms, &exact[i]);
		read.not_modified_since = Max(read.not_modified_since, nms);
	}
	NC_TEST_POINT_REL("smgr-read-remote", rel->rel);
	nc_client_read(&read);
	for (int i = 0; i < nblocks; i++)
		nc_empty_check(rel, first + i, pages[i], may_have_mark);
}

/*
 * A sequence's block that was found in the file, at a start or after a database
 * was copied: WAL logs sequences ahead, so the file holds the newer state if,
 * and only if, it has the LSN of the page server's version.
 */
static void
verify_sequence(const NcRelKey *rel, BlockNumber block, char *page)
{
	PGAlignedBlock remote;
	char	   *pages[1] = {remote.data};
	NcLocalRef	ref;

	read_remote(rel, block, pages, 1, false);
	nc_local_begin_change(rel, block, &ref);
	if (PageGetLSN(remote.data) == PageGetLSN(page))
	{
		if (ref.chunk != NULL)
			ref.chunk->unverified &= ~ref.bit;
	}
	else
	{
		memcpy(page, remote.data, BLCKSZ);
		nc_local_clear(&ref);
		nc_skeleton_punch(rel, block, 1);
	}
	nc_local_end(&ref);
}

static bool
read_local(SMgrRelation reln, const NcRelKey *rel, BlockNumber block, char *page)
{
	NcLocalRef	ref;
	bool		unverified;

	if (!nc_local_begin_read(rel, block, &ref))
		return false;
	unverified = (ref.chunk->unverified & ref.bit) != 0;
	if (unverified && RecoveryInProgress())
	{
		/* redo writes sequences as a whole; what it does not touch is judged later */
		nc_local_end(&ref);
		return false;
	}
	nc_md_read(reln, MAIN_FORKNUM, block, page);
	nc_local_end(&ref);
	if (unverified)
		verify_sequence(rel, block, page);
	nc_stat(NC_COUNTER_READS_LOCAL, 1);
	nc_tally(NC_TALLY_LOCAL, 1);
	return true;
}

/*
 * From the local file cache.  What is found there is the version last dropped or
 * a newer one (docs/lfc.md); that it is not older is looked at all the same.
 */
static bool
read_cached(const NcRelKey *rel, BlockNumber block, char *page)
{
	/* comes while the file is read, or while what is behind it in the file is copied */
	nc_lwlsn_fetch(rel, block);
	if (!nc_filecache_read(rel, block, page))
		return false;
	nc_lwlsn_fetch(rel, block + 1);
	if (!NC_TEST_TRUE("lfc-stale") &&
		nc_answer_verdict(PageIsNew(page) ? 0 : PageGetLSN(page), nc_lwlsn_exact(rel, block),
						  InvalidXLogRecPtr) == NC_ANSWER_OK &&
		nc_empty_may_be(rel, block, page))
		return true;
	nc_stat(NC_COUNTER_LFC_STALE, 1);
	nc_filecache_forget(rel, block, block + 1);
	return false;
}

/*
 * Reads the block without a page server, if that is where it is.  Neither the
 * index of local blocks nor the cache knows blocks past the end: truncation
 * forgets them.  So the file is not asked for its length first.  Nobody else
 * makes a block local while we read it: that needs the buffer that we fill.
 */
static bool
read_page_here(SMgrRelation reln, const NcRelKey *rel, const NcRelInfo *info, BlockNumber block,
			   char *page)
{
	if (info->has_local && read_local(reln, rel, block, page))
		return true;
	if (!read_cached(rel, block, page))
		return false;
	nc_tally(NC_TALLY_CACHED, 1);
	if (nc_shadow_on())
		nc_shadow_check(reln, block, page);
	return true;
}

/* Is the page in the file cache, or asked for already? */
static bool
is_cached_or_asked(const NcRelKey *rel, BlockNumber block)
{
	NcPageKey	key = {*rel, block};

	return (nc_filecache_usable() && nc_lfc_has(nc_filecache_index, &key)) ||
		(nc_prefetch_live() > 0 && nc_prefetch_known(rel, block));
}

/* Is the block where this process would read it without asking a page server, or asked for already? */
static bool
is_nearer(const NcRelKey *rel, const NcRelInfo *info, BlockNumber block)
{
	return (info->has_local && nc_local_look(rel, block) != NC_BLOCK_REMOTE) ||
		is_cached_or_asked(rel, block);
}

/* How many of the blocks from here on are to be asked for together. */
static int
remote_run(const NcRelKey *rel, BlockNumber first, int most)
{
	int			run = 1;
	NcLocalRef	ref;

	/*
	 * A block found remote stays so until it is read: whoever could write it
	 * needs the buffer that we are filling.
	 */
	while (run < most && run < NC_SLOT_BLOCKS_MAX && !is_cached_or_asked(rel, first + run))
	{
		if (nc_local_begin_read(rel, first + run, &ref))
		{
			nc_local_end(&ref);
			break;
		}
		run++;
	}
	return run;
}

bool
nc_smgr_plan_remote(SMgrRelation reln, BlockNumber first, int nblocks, XLogRecPtr *nms,
					XLogRecPtr *exact)
{
	NcRelKey	rel = nc_reln_key(reln, MAIN_FORKNUM);
	NcRelInfo	info;

	nc_lengths_ensure(reln, MAIN_FORKNUM);
	if (is_plain_or(reln, MAIN_FORKNUM, &info))
		return false;
	for (int i = 0; i < nblocks; i++)
		if (is_nearer(&rel, &info, first + i))
			return false;
	if (first + nblocks > mdnblocks(reln, MAIN_FORKNUM))
		return false;
	nc_throttle(NC_THROTTLE_STORAGE);
	*nms = InvalidXLogRecPtr;
	for (int i = 0; i < nblocks; i++)
	{
		XLogRecPtr	block_nms;

		nc_lwlsn_query(&rel, first + i, &block_nms, &exact[i]);
		*nms = Max(*nms, block_nms);
	}
	return true;
}

/* "told": readahead need not know of this read. */
static void
read_blocks(SMgrRelation reln, ForkNumber fork, BlockNumber first, char **pages, int nblocks,
			bool told)
{
	NcRelKey	rel = nc_reln_key(reln, MAIN_FORKNUM);
	NcRelInfo	info;
	bool		plain;
	BlockNumber length;
	int			run;

	nc_lengths_ensure(reln, fork);
	plain = is_plain_or(reln, fork, &info);
	for (int i = 0; i < nblocks; i += run)
	{
		run = 1;
		if (!plain && read_page_here(reln, &rel, &info, first + i, pages[i]))
			continue;
		length = plain ? 0 : mdnblocks(reln, fork);
		if (first + i >= length)
		{
			/* past the end md's errors and recovery's zeroes stay what they are */
			nc_md_read(reln, fork, first + i, pages[i]);
			continue;
		}
		if (!told)
			nc_readahead_read(&rel, first + i, Min(nblocks - i, (int) (length - (first + i))), length);
		told = true;
		/* an empty page that may not be is told by the read that follows */
		if (!read_staged(&rel, first + i, pages[i]) ||
			!nc_empty_may_be(&rel, first + i, pages[i]))
		{
			run = remote_run(&rel, first + i, Min(nblocks - i, (int) (length - (first + i))));
			read_remote(&rel, first + i, pages + i, run, info.has_local);
		}
		else
			nc_empty_check(&rel, first + i, pages[i], info.has_local);
		for (int k = 0; k < run && nc_shadow_on(); k++)
			nc_shadow_check(reln, first + i + k, pages[i + k]);
		/* who accepts a missing page does not keep it for others */
		for (int k = 0; k < run; k++)
			if (!nc_guc_accept_missing_pages || nc_empty_may_be(&rel, first + i + k, pages[i + k]))
				nc_filecache_received(&rel, first + i + k, pages[i + k]);
	}
}

void
nc_smgr_readv(SMgrRelation reln, ForkNumber fork, BlockNumber first, char **pages, int nblocks)
{
	read_blocks(reln, fork, first, pages, nblocks, false);
}

void
nc_smgr_readv_of_stream(SMgrRelation reln, BlockNumber first, char **pages, int nblocks)
{
	read_blocks(reln, MAIN_FORKNUM, first, pages, nblocks, true);
}
