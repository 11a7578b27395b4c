/*
 * skeleton.c
 *	  Growing and emptying the sparse files of permanent main forks.
 *
 * Used by every process that extends or drops pages, and by the sweeper.  Own
 * descriptors are opened for each punch and each sweeping read: processes
 * without a database get no invalidations and must not keep any.
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "catalog/pg_tablespace_d.h"
#include "common/relpath.h"
#include "storage/fd.h"
#include "storage/md.h"
#include "storage/sync.h"
#include "utils/wait_event.h"

#include "nc/shared/test_point.h"
#include "nc/smgr/abi.h"
#include "nc/smgr/empty.h"
#include "nc/smgr/skeleton.h"

#define SEGMENT_BYTES ((off_t) RELSEG_SIZE * BLCKSZ)

/* Asks for a sync of one segment at the next checkpoint; false when the queue is full. */
static bool
request_sync(const NcRelKey *rel, BlockNumber segno)
{
	FileTag		tag;

	memset(&tag, 0, sizeof(tag));
	tag.handler = SYNC_HANDLER_MD;
	tag.forknum = MAIN_FORKNUM;
	NC_FILETAG_REL(&tag) = NC_PGREL_MAKE(rel);
	tag.segno = segno;
	return RegisterSyncRequest(&tag, SYNC_REQUEST, false);
}

/* The same; syncs it here when the queue is full. */
static void
register_sync(SMgrRelation reln, BlockNumber segno)
{
	NcRelKey	rel = nc_reln_key(reln, MAIN_FORKNUM);

	if (!request_sync(&rel, segno) &&
		FileSync(NC_MD_SEG(reln, MAIN_FORKNUM, segno), WAIT_EVENT_DATA_FILE_SYNC) < 0)
		ereport(data_sync_elevel(ERROR),
				(errcode_for_file_access(),
				 errmsg("could not fsync file \"%s\": %m",
						FilePathName(NC_MD_SEG(reln, MAIN_FORKNUM, segno)))));
}

/* False where the file system makes no hole: it only keeps the space, and the index says what counts. */
static bool
punch_fd(int fd, off_t offset, off_t bytes)
{
	return fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, bytes) == 0;
}

/*
 * A first block that could not be punched may be a sequence's, which whoever scrubs the
 * file would find again, older than what its values have come to, under the same LSN.
 */
static void
wipe_first_block(int fd, const NcRelKey *rel)
{
	static const PGAlignedBlock zeroes;
	struct stat st;

	/* never makes a file longer */
	if (fstat(fd, &st) == 0 && st.st_size >= BLCKSZ &&
		pg_pwrite(fd, zeroes.data, BLCKSZ, 0) != BLCKSZ)
		ereport(LOG,
				(errcode_for_file_access(),
				 errmsg("could not wipe block 0 of relation %u/%u/%u: %m", rel->spc, rel->db,
						rel->rel)));
}

/*
 * Makes the segment exist and open; md writes a block for that.  A block without content
 * has its mark in it from the start, because md's write makes the relation longer.  The
 * mark is at the block's end: a write that was cut short has made no block.
 */
static void
create_segment(SMgrRelation reln, BlockNumber segno, bool marked)
{
	BlockNumber first = segno * RELSEG_SIZE;
	PGIOAlignedBlock page;

	memset(page.data, 0, BLCKSZ);
	if (marked)
		nc_empty_make_mark(first, page.data + NC_EMPTY_MARK_AT);
	nc_md_extend(reln, MAIN_FORKNUM, first, page.data, false);
	Assert(reln->md_num_open_segs[MAIN_FORKNUM] > segno);
	(void) punch_fd(FileGetRawDesc(NC_MD_SEG(reln, MAIN_FORKNUM, segno)), 0,
					marked ? NC_EMPTY_MARK_AT : BLCKSZ);
	NC_TEST_POINT_REL("segment-made", NC_RELN_REL(reln));
}

static void
fail_extend(File file, bool short_write)
{
	if (short_write)
		errno = ENOSPC;
	ereport(ERROR,
			(errcode_for_file_access(),
			 errmsg("could not extend file \"%s\": %m", FilePathName(file)),
			 errhint("Check free disk space.")));
}

/* Writes the mark of one block; where that is the last of the file, this makes it so long. */
static void
mark_in(File file, BlockNumber block)
{
	char		mark[NC_EMPTY_MARK_BYTES];
	int			written;

	nc_empty_make_mark(block, mark);
	written = NC_TEST_FAULT("mark-write") ? -1 :
		FileWrite(file, mark, sizeof(mark),
				  (off_t) (block % RELSEG_SIZE) * BLCKSZ + NC_EMPTY_MARK_AT,
				  WAIT_EVENT_DATA_FILE_EXTEND);
	if (written != sizeof(mark))
		fail_extend(file, written >= 0);
}

/* Makes the segment hold blocks up to end; those of [mark_first, mark_end) get marks. */
static void
grow_segment(SMgrRelation reln, BlockNumber segno, BlockNumber end, BlockNumber mark_first,
			 BlockNumber mark_end)
{
	File		file = NC_MD_SEG(reln, MAIN_FORKNUM, segno);
	off_t		bytes = (off_t) (end - segno * RELSEG_SIZE) * BLCKSZ;
	off_t		now;

	mark_first = Max(mark_first, segno * RELSEG_SIZE);
	for (BlockNumber block = mark_first; block < Min(mark_end, end); block++)
		mark_in(file, block);
	now = FileSize(file);
	if (now < 0 ||
		(now < bytes && FileTruncate(file, bytes, WAIT_EVENT_DATA_FILE_EXTEND) < 0))
		fail_extend(file, false);

	/* Later writes may register nothing, because their pages are dropped: this is the only chance. */
	register_sync(reln, segno);
}

void
nc_skeleton_extend(SMgrRelation reln, BlockNumber block, BlockNumber mark_first,
				   BlockNumber mark_end)
{
	BlockNumber now = mdnblocks(reln, MAIN_FORKNUM);
	BlockNumber last = block / RELSEG_SIZE;

	if (block == InvalidBlockNumber)
	{
		NcRelKey	rel = nc_reln_key(reln, MAIN_FORKNUM);
		char		path[MAXPGPATH];

		nc_pg_fork_path(&rel, MAIN_FORKNUM, path);
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("cannot extend file \"%s\" beyond %u blocks", path,
						InvalidBlockNumber)));
	}
	if (block < now)
		return;
	for (BlockNumber seg = now / RELSEG_SIZE; seg <= last; seg++)
	{
		if (seg >= reln->md_num_open_segs[MAIN_FORKNUM])
			create_segment(reln, seg, seg * RELSEG_SIZE >= mark_first && seg * RELSEG_SIZE < mark_end);
		grow_segment(reln, seg, seg < last ? (seg + 1) * RELSEG_SIZE : block + 1,
					 Max(mark_first, now), mark_end);
	}
}

/*
 * Name of a segment below the data directory.  GetRelationPath() allocates, which
 * code that runs in critical sections must not.
 */
void
nc_skeleton_segment_path(const NcRelKey *rel, BlockNumber segno, char *path)
{
	char		suffix[16] = "";

	if (segno > 0)
		snprintf(suffix, sizeof(suffix), ".%u", segno);
	if (rel->spc == GLOBALTABLESPACE_OID)
		snprintf(path, MAXPGPATH, "global/%u%s", rel->rel, suffix);
	else if (rel->spc == DEFAULTTABLESPACE_OID)
		snprintf(path, MAXPGPATH, "base/%u/%u%s", rel->db, rel->rel, suffix);
	else
		snprintf(path, MAXPGPATH, "pg_tblspc/%u/%s/%u/%u%s", rel->spc,
				 TABLESPACE_VERSION_DIRECTORY, rel->db, rel->rel, suffix);
}

/* Opens the segment with this block; -1 when it is not there. */
static int
open_skeleton_segment(const NcRelKey *rel, BlockNumber block)
{
	char		path[MAXPGPATH];

	nc_skeleton_segment_path(rel, block / RELSEG_SIZE, path);
	return BasicOpenFile(path, O_RDWR | PG_BINARY);
}

BlockNumber
nc_skeleton_length(const NcRelKey *rel)
{
	uint64		length = 0;
	char		path[MAXPGPATH];
	struct stat st;

	for (BlockNumber seg = 0;; seg++)
	{
		nc_skeleton_segment_path(rel, seg, path);
		if (stat(path, &st) != 0)
			break;
		length += st.st_size / BLCKSZ;
	}
	return (BlockNumber) Min(length, MaxBlockNumber);
}

void
nc_skeleton_punch(const NcRelKey *rel, BlockNumber block, BlockNumber nblocks)
{
	int			fd = open_skeleton_segment(rel, block);

	/* chunks divide segments, so a run inside a chunk is inside a segment */
	Assert(block / RELSEG_SIZE == (block + nblocks - 1) / RELSEG_SIZE);
	if (fd < 0)
		return;
	if ((NC_TEST_FAULT_REL("skeleton-punch", rel->rel) ||
		 !punch_fd(fd, (off_t) (block % RELSEG_SIZE) * BLCKSZ, (off_t) nblocks * BLCKSZ)) &&
		block == 0)
		wipe_first_block(fd, rel);
	close(fd);
}

bool
nc_skeleton_pread(const NcRelKey *rel, BlockNumber block, char *page)
{
	int			fd = open_skeleton_segment(rel, block);
	ssize_t		got;

	if (fd < 0)
		return false;
	got = pg_pread(fd, page, BLCKSZ, (off_t) (block % RELSEG_SIZE) * BLCKSZ);
	close(fd);
	return got == BLCKSZ;
}

void
nc_skeleton_mark(const NcRelKey *rel, BlockNumber block)
{
	int			fd = open_skeleton_segment(rel, block);
	char		mark[NC_EMPTY_MARK_BYTES];
	ssize_t		written = -1;
	bool		synced = false;

	nc_empty_make_mark(block, mark);
	if (fd >= 0)
	{
		written = pg_pwrite(fd, mark, sizeof(mark),
							(off_t) (block % RELSEG_SIZE) * BLCKSZ + NC_EMPTY_MARK_AT);
		/* the checkpoint that passes the record of this empty page relies on it */
		synced = written == sizeof(mark) &&
			(request_sync(rel, block / RELSEG_SIZE) || pg_fsync(fd) == 0);
		close(fd);
	}
	if (synced)
		return;
	if (written == sizeof(mark))
		ereport(data_sync_elevel(ERROR),
				(errcode_for_file_access(),
				 errmsg("could not fsync the mark of block %u of relation %u/%u/%u: %m", block,
						rel->spc, rel->db, rel->rel)));
	if (written >= 0)
		errno = ENOSPC;
	ereport(ERROR,
			(errcode_for_file_access(),
			 errmsg("could not mark block %u of relation %u/%u/%u as empty: %m", block, rel->spc,
					rel->db, rel->rel)));
}

BlockNumber
nc_skeleton_next_data(const NcRelKey *rel, BlockNumber block)
{
	for (;;)
	{
		int			fd = open_skeleton_segment(rel, block);
		off_t		at;

		if (fd < 0)
			return InvalidBlockNumber;
		at = lseek(fd, (off_t) (block % RELSEG_SIZE) * BLCKSZ, SEEK_DATA);
		/* a file system that does not know holes has data everywhere */
		if (at < 0 && errno != ENXIO)
			at = (off_t) (block % RELSEG_SIZE) * BLCKSZ;
		close(fd);
		if (at >= 0)
			return block / RELSEG_SIZE * RELSEG_SIZE + at / BLCKSZ;
		block = (block / RELSEG_SIZE + 1) * RELSEG_SIZE;
	}
}
