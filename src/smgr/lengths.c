/*
 * lengths.c
 *	  Lays the file of a fork that only page servers know: lazily, as soon as somebody uses it.
 *
 * A fork without a file is one that nobody has used since the compute was laid, or one that is no more.
 * Which of the two page servers know: nothing has changed the first kind since the image, and of the second
 * kind the map of last-written LSNs knows when it was dropped, or dates it later.  From then on the file is
 * the truth, as ever.
 *
 * The file is made under another name, one that a server removes at its start, and gets its own when it is as
 * long as it will be, and durable.  Whoever drops or makes a relation while it is asked for says so under the
 * file lock, and the answer is thrown away.  Nobody asks with that lock held.
 *
 * Free space and visibility maps are md's alone later, so they come with their content.
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "access/xact.h"
#include "common/file_perm.h"
#include "common/relpath.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "storage/md.h"

#include "nc/cache/lwlsn_map.h"
#include "nc/client/client.h"
#include "nc/shared/shmem.h"
#include "nc/shared/test_point.h"
#include "nc/smgr/keep.h"
#include "nc/smgr/lengths.h"
#include "nc/smgr/local.h"
#include "nc/smgr/lwlsn.h"
#include "nc/smgr/skeleton.h"

#define SEGMENT_BYTES ((off_t) RELSEG_SIZE * BLCKSZ)

/* Temporary relations have names of the same pattern, with numbers of backends, which are small. */
#define NAME_ABOVE_BACKENDS 1000000

/* A fork that is being learned. */
typedef struct Learned
{
	NcRelKey	rel;			/* with its fork */
	char		path[MAXPGPATH];
	bool		exists;
	BlockNumber nblocks;
	XLogRecPtr	nms;
	BlockNumber made;			/* segments that have a file under another name */
} Learned;

/* ---- names ---- */

static void
segment_path(const Learned *l, BlockNumber segno, char to[MAXPGPATH])
{
	if (segno == 0)
		strlcpy(to, l->path, MAXPGPATH);
	else
		snprintf(to, MAXPGPATH, "%s.%u", l->path, segno);
}

/* "base/5/1259_vm" becomes "base/5/t1004711_1259_vm". */
static void
other_path(const Learned *l, BlockNumber segno, char to[MAXPGPATH])
{
	char		path[MAXPGPATH];
	char	   *name;

	segment_path(l, segno, path);
	name = last_dir_separator(path) + 1;
	snprintf(to, MAXPGPATH, "%.*st%d_%s", (int) (name - path), path, NAME_ABOVE_BACKENDS + MyProcPid, name);
}

static void
fsync_directory(const Learned *l)
{
	char		path[MAXPGPATH];

	strlcpy(path, l->path, sizeof(path));
	*last_dir_separator(path) = '\0';
	fsync_fname(path, true);
}

/* ---- asking ---- */

static void
ask(Learned *l)
{
	NcRelKey	main_fork = l->rel;
	XLogRecPtr	exact;

	main_fork.fork = MAIN_FORKNUM;
	nc_lwlsn_query(&main_fork, NC_LW_RELATION, &l->nms, &exact);
	l->exists = nc_client_ask(NC_SLOT_KIND_EXISTS, &l->rel, l->nms) != 0;
	l->nblocks = l->exists ? (BlockNumber) nc_client_ask(NC_SLOT_KIND_NBLOCKS, &l->rel, l->nms) : 0;
	NC_TEST_POINT_REL("lengths-asked", l->rel.rel);
}

/* ---- the file under another name ---- */

pg_noreturn static void
fail_lay(const char *what, const char *path)
{
	if (errno == 0)
		errno = ENOSPC;
	ereport(ERROR, (errcode_for_file_access(), errmsg("could not %s file \"%s\": %m", what, path)));
}

/* Blocks from this one on, of one segment. */
static void
copy_blocks(const Learned *l, int fd, BlockNumber first, int n, const char *path)
{
	PGAlignedBlock *blocks = palloc(n * sizeof(PGAlignedBlock));
	char	   *pages[NC_SLOT_BLOCKS_MAX];
	XLogRecPtr	exact[NC_SLOT_BLOCKS_MAX] = {0};
	NcRead		read = {.rel = l->rel, .block = first, .nblocks = n, .pages = pages, .exact = exact,
	.request_lsn = NC_LSN_MAX, .not_modified_since = l->nms};

	for (int i = 0; i < n; i++)
		pages[i] = blocks[i].data;
	nc_client_read(&read);
	for (int i = 0; i < n; i++)
	{
		errno = 0;
		if (!nc_page_is_zero(pages[i]) &&
			pg_pwrite(fd, pages[i], BLCKSZ, (off_t) ((first + i) % RELSEG_SIZE) * BLCKSZ) != BLCKSZ)
			fail_lay("write", path);
	}
	pfree(blocks);
}

static void
make_segment(Learned *l, BlockNumber segno, BlockNumber end)
{
	BlockNumber first = segno * RELSEG_SIZE;
	char		path[MAXPGPATH];
	int			fd;

	other_path(l, segno, path);
	fd = OpenTransientFile(path, O_RDWR | O_CREAT | O_TRUNC | PG_BINARY);
	if (fd < 0)
		fail_lay("create", path);
	l->made = segno + 1;
	if (ftruncate(fd, (off_t) (end - first) * BLCKSZ) != 0)
		fail_lay("extend", path);
	for (BlockNumber at = first; l->rel.fork != MAIN_FORKNUM && at < end; at += NC_SLOT_BLOCKS_MAX)
		copy_blocks(l, fd, at, (int) Min(end - at, NC_SLOT_BLOCKS_MAX), path);
	if (pg_fsync(fd) != 0)
		fail_lay("fsync", path);
	CloseTransientFile(fd);
}

static void
make_segments(Learned *l)
{
	BlockNumber segno = 0;

	do
	{
		make_segment(l, segno, Min(l->nblocks, (segno + 1) * RELSEG_SIZE));
		segno++;
	} while (segno * RELSEG_SIZE < l->nblocks);
}

static void
remove_made(const Learned *l)
{
	char		path[MAXPGPATH];

	for (BlockNumber segno = 0; segno < l->made; segno++)
	{
		other_path(l, segno, path);
		(void) unlink(path);
	}
}

/* ---- its own name ---- */

static void
rename_segment(const Learned *l, BlockNumber segno)
{
	char		from[MAXPGPATH];
	char		to[MAXPGPATH];

	other_path(l, segno, from);
	segment_path(l, segno, to);
	if (rename(from, to) != 0)
		fail_lay("rename", from);
}

/*
 * The first segment last: where it is not, the others are nobody's, and one that was left by who was killed
 * here must not stand behind it.  The file lock is held.
 */
static void
give_names(const Learned *l)
{
	char		path[MAXPGPATH];

	for (BlockNumber segno = l->made;; segno++)
	{
		segment_path(l, segno, path);
		if (unlink(path) != 0)
			break;
	}
	for (BlockNumber segno = l->made - 1; segno > 0; segno--)
		rename_segment(l, segno);
	if (l->made > 1)
		fsync_directory(l);
	NC_TEST_POINT_REL("lengths-name", l->rel.rel);
	rename_segment(l, 0);
	fsync_directory(l);
}

/* False: the relation was made or dropped since `changes`, the answer may be of before. */
static bool
settle(const Learned *l, uint32 changes)
{
	LWLock	   *lock = nc_local_lock_file(&l->rel, LW_EXCLUSIVE);
	bool		valid = nc_local_changes(&l->rel) == changes;

	/* another process that asked at the same time may have been first */
	if (valid && l->exists && access(l->path, F_OK) != 0)
		give_names(l);
	if (valid && !l->exists)
		nc_local_set_absent(&l->rel, l->rel.fork);
	LWLockRelease(lock);
	return valid;
}

static bool
learn_once(Learned *l)
{
	uint32		changes = nc_local_changes(&l->rel);
	bool		valid;

	ask(l);
	l->made = 0;
	if (l->exists)
		make_segments(l);
	valid = settle(l, changes);
	remove_made(l);
	return valid;
}

static void
learn(Learned *l)
{
	PG_TRY();
	{
		while (!learn_once(l))
			;
	}
	PG_CATCH();
	{
		remove_made(l);
		PG_RE_THROW();
	}
	PG_END_TRY();
	nc_stat(NC_COUNTER_LENGTHS_ASKED, 1);
}

/* ---- when ---- */

/* Is it the file, or that there is none, that counts, as on other computes? */
static bool
is_known(SMgrRelation reln, ForkNumber fork, const char *path)
{
	NcRelInfo	info;

	if (access(path, F_OK) == 0 || errno != ENOENT)
		return true;
	/* those that were made here, and what is unlogged, page servers do not know better */
	info = nc_local_relation(reln);
	return info.unlogged || info.born != InvalidXLogRecPtr || (info.absent >> fork & 1) != 0;
}

void
nc_lengths_look(SMgrRelation reln, ForkNumber fork)
{
	Learned		l = {.rel = nc_reln_key(reln, fork)};

	/* INIT forks are in every image */
	if (NC_RELN_BACKEND(reln) != NC_NO_BACKEND || fork == INIT_FORKNUM || CritSectionCount > 0 ||
		!(AmStartupProcess() || IsTransactionState()))
		return;
	nc_pg_fork_path(&l.rel, fork, l.path);
	if (!is_known(reln, fork, l.path))
		learn(&l);
}

void
nc_lengths_changed(const NcRelKey *rel, bool dropped)
{
	LWLock	   *lock;

	if (nc_shared->lengths_asked == 0)
		return;
	lock = nc_local_lock_file(rel, LW_EXCLUSIVE);
	nc_local_note_change(rel);
	if (dropped)
	{
		char		path[MAXPGPATH];
		int			fd;

		nc_skeleton_segment_path(rel, 0, path);
		fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, pg_file_create_mode);
		if (fd >= 0)
			close(fd);
	}
	LWLockRelease(lock);
}
