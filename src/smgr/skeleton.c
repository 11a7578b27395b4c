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

#include "nc/smgr/abi.h"
#include "nc/smgr/skeleton.h"

#define SEGMENT_BYTES ((off_t) RELSEG_SIZE * BLCKSZ)

/* Asks for a sync of one segment at the next checkpoint; syncs it here when the queue is full. */
static void
register_sync(SMgrRelation reln, BlockNumber segno)
{
	FileTag		tag;

	memset(&tag, 0, sizeof(tag));
	tag.handler = SYNC_HANDLER_MD;
	tag.forknum = MAIN_FORKNUM;
	tag.rnode = reln->smgr_rnode.node;
	tag.segno = segno;
	if (!RegisterSyncRequest(&tag, SYNC_REQUEST, false) &&
		FileSync(NC_MD_SEG(reln, MAIN_FORKNUM, segno), WAIT_EVENT_DATA_FILE_SYNC) < 0)
		ereport(data_sync_elevel(ERROR),
				(errcode_for_file_access(),
				 errmsg("could not fsync file \"%s\": %m",
						FilePathName(NC_MD_SEG(reln, MAIN_FORKNUM, segno)))));
}

static void
punch_fd(int fd, off_t offset, off_t bytes)
{
	/* A file system without holes only keeps the space: the index says what counts. */
	(void) fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, bytes);
}

/* Makes the segment exist and open; md writes a block for that, which is given back. */
static void
create_segment(SMgrRelation reln, BlockNumber segno)
{
	PGAlignedBlock zero;

	memset(zero.data, 0, BLCKSZ);
	nc_md_extend(reln, MAIN_FORKNUM, segno * RELSEG_SIZE, zero.data, false);
	Assert(reln->md_num_open_segs[MAIN_FORKNUM] > segno);
	punch_fd(FileGetRawDesc(NC_MD_SEG(reln, MAIN_FORKNUM, segno)), 0, BLCKSZ);
}

static void
grow_segment(SMgrRelation reln, BlockNumber segno, off_t bytes)
{
	File		file = NC_MD_SEG(reln, MAIN_FORKNUM, segno);
	off_t		now = FileSize(file);

	if (now < 0 ||
		(now < bytes && FileTruncate(file, bytes, WAIT_EVENT_DATA_FILE_EXTEND) < 0))
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not extend file \"%s\": %m", FilePathName(file)),
				 errhint("Check free disk space.")));

	/* Later writes may register nothing, because their pages are dropped: this is the only chance. */
	register_sync(reln, segno);
}

void
nc_skeleton_extend(SMgrRelation reln, BlockNumber block)
{
	BlockNumber now = mdnblocks(reln, MAIN_FORKNUM);
	BlockNumber last = block / RELSEG_SIZE;

	if (block == InvalidBlockNumber)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("cannot extend file \"%s\" beyond %u blocks",
						relpath(reln->smgr_rnode, MAIN_FORKNUM), InvalidBlockNumber)));
	if (block < now)
		return;
	for (BlockNumber seg = now / RELSEG_SIZE; seg <= last; seg++)
	{
		if (seg >= reln->md_num_open_segs[MAIN_FORKNUM])
			create_segment(reln, seg);
		grow_segment(reln, seg,
					 seg < last ? SEGMENT_BYTES : (off_t) (block % RELSEG_SIZE + 1) * BLCKSZ);
	}
}

/*
 * Name of a segment below the data directory.  GetRelationPath() allocates, which
 * code that runs in critical sections must not.
 */
static void
segment_path(const NcRelKey *rel, BlockNumber segno, char *path)
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
open_segment(const NcRelKey *rel, BlockNumber block)
{
	char		path[MAXPGPATH];

	segment_path(rel, block / RELSEG_SIZE, path);
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
		segment_path(rel, seg, path);
		if (stat(path, &st) != 0)
			break;
		length += st.st_size / BLCKSZ;
	}
	return (BlockNumber) Min(length, MaxBlockNumber);
}

void
nc_skeleton_punch(const NcRelKey *rel, BlockNumber block, BlockNumber nblocks)
{
	int			fd = open_segment(rel, block);

	/* chunks divide segments, so a run inside a chunk is inside a segment */
	Assert(block / RELSEG_SIZE == (block + nblocks - 1) / RELSEG_SIZE);
	if (fd < 0)
		return;
	punch_fd(fd, (off_t) (block % RELSEG_SIZE) * BLCKSZ, (off_t) nblocks * BLCKSZ);
	close(fd);
}

bool
nc_skeleton_pread(const NcRelKey *rel, BlockNumber block, char *page)
{
	int			fd = open_segment(rel, block);
	ssize_t		got;

	if (fd < 0)
		return false;
	got = pg_pread(fd, page, BLCKSZ, (off_t) (block % RELSEG_SIZE) * BLCKSZ);
	close(fd);
	return got == BLCKSZ;
}
