/*
 * skeleton_start.c
 *	  What happens to skeleton files as a whole: the cleaning after each start and
 *	  after a database was copied, and measuring what is kept.
 *
 * After a stop, clean or not, every local block is void, its owners being dead; only
 * sequences have a reason to be remembered.  The index is empty then, which says so of
 * all blocks at once, and a start need not look at thousands of files: a
 * relation's file is scrubbed when the relation is used for the first time, whoever does
 * it, and the sweeper scrubs the rest after recovery
 * (docs/decisions/0022-files-are-scrubbed-when-used.md).
 */
#include "postgres.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "access/xlog.h"
#include "catalog/pg_control.h"
#include "catalog/pg_tablespace_d.h"
#include "common/controldata_utils.h"
#include "common/file_perm.h"
#include "common/relpath.h"
#include "miscadmin.h"
#include "storage/fd.h"

#include "nc/base/file.h"
#include "nc/feed/feed.h"
#include "nc/safety/directory.h"
#include "nc/shared/settings.h"
#include "nc/shared/shmem.h"
#include "nc/shared/test_point.h"
#include "nc/smgr/empty.h"
#include "nc/smgr/keep.h"
#include "nc/smgr/local.h"
#include "nc/smgr/skeleton.h"

/*
 * A line of the marker file: the directory has the content of its tables still, as
 * neon_dev leaves it.  The first start looks for blocks without content and puts the
 * other line in its place.
 */
#define LINE_WHOLE "content=whole"
#define LINE_MARKED "empty_blocks=marked"

/* The directory was laid without lengths (lengths.c). */
#define LINE_LENGTHS "lengths=asked"

/* ---- walking the relation files ---- */

typedef struct RelFile
{
	NcRelKey	rel;			/* main fork */
	BlockNumber segno;
	struct stat st;
	const char *path;
} RelFile;

typedef void (*FileVisitor) (const RelFile *file, void *arg);

/* "16384" or "16384.2": a main fork's segment. */
static bool
parse_main_fork(const char *name, Oid *rel, BlockNumber *segno)
{
	char	   *end;
	unsigned long v = strtoul(name, &end, 10);

	if (end == name || name[0] == '0' || v == 0 || v > PG_UINT32_MAX)
		return false;
	*rel = (Oid) v;
	*segno = 0;
	if (*end == '\0')
		return true;
	if (*end != '.' || end[1] < '1' || end[1] > '9')
		return false;
	*segno = (BlockNumber) strtoul(end + 1, &end, 10);
	return *end == '\0';
}

/* Has the relation of this main fork segment an INIT fork, or can that not be told? */
static bool
init_fork_beside(const char *path)
{
	char		init[MAXPGPATH];
	char	   *dot;

	strlcpy(init, path, sizeof(init));
	dot = strchr(last_dir_separator(init), '.');
	if (dot != NULL)
		*dot = '\0';
	strlcat(init, "_init", sizeof(init));
	return access(init, F_OK) == 0 || errno != ENOENT;
}

static void
walk_directory(const char *dir, Oid spc, Oid db, FileVisitor visit, void *arg)
{
	DIR		   *d = opendir(dir);
	struct dirent *de;
	char		path[MAXPGPATH];

	if (d == NULL)
		return;
	while ((de = readdir(d)) != NULL)
	{
		RelFile		file = {.rel = {.spc = spc, .db = db, .fork = MAIN_FORKNUM}, .path = path};

		/* There may be thousands of files: no path to walk for each. */
		if (!parse_main_fork(de->d_name, &file.rel.rel, &file.segno) ||
			fstatat(dirfd(d), de->d_name, &file.st, 0) != 0 || !S_ISREG(file.st.st_mode))
			continue;
		snprintf(path, sizeof(path), "%s/%s", dir, de->d_name);
		visit(&file, arg);
	}
	closedir(d);
}

/* Every directory below `parent` whose name is a number is a database's. */
static void
walk_databases(const char *parent, Oid spc, Oid only_db, FileVisitor visit, void *arg)
{
	DIR		   *d = opendir(parent);
	struct dirent *de;
	char		path[MAXPGPATH];

	if (d == NULL)
		return;
	while ((de = readdir(d)) != NULL)
	{
		char	   *end;
		unsigned long db = strtoul(de->d_name, &end, 10);

		if (end == de->d_name || *end != '\0' || db == 0 ||
			(OidIsValid(only_db) && db != only_db))
			continue;
		snprintf(path, sizeof(path), "%s/%s", parent, de->d_name);
		walk_directory(path, spc, (Oid) db, visit, arg);
	}
	closedir(d);
}

static void
walk_tablespaces(Oid only_db, FileVisitor visit, void *arg)
{
	DIR		   *d = opendir("pg_tblspc");
	struct dirent *de;
	char		path[MAXPGPATH];

	if (d == NULL)
		return;
	while ((de = readdir(d)) != NULL)
	{
		char	   *end;
		unsigned long spc = strtoul(de->d_name, &end, 10);

		if (end == de->d_name || *end != '\0' || spc == 0)
			continue;
		snprintf(path, sizeof(path), "pg_tblspc/%s/%s", de->d_name,
				 TABLESPACE_VERSION_DIRECTORY);
		walk_databases(path, (Oid) spc, only_db, visit, arg);
	}
	closedir(d);
}

/* All main forks of one database, or (InvalidOid) of all and the shared ones. */
static void
walk_main_forks(Oid only_db, FileVisitor visit, void *arg)
{
	if (!OidIsValid(only_db))
		walk_directory("global", GLOBALTABLESPACE_OID, InvalidOid, visit, arg);
	walk_databases("base", DEFAULTTABLESPACE_OID, only_db, visit, arg);
	walk_tablespaces(only_db, visit, arg);
}

/* ---- blocks that were never logged ---- */

#define CHUNK_BYTES ((off_t) NC_LOCAL_CHUNK_BLOCKS * BLCKSZ)

/* Has the directory its content still: the first start of a skeleton. */
static bool first_start = false;

static void
fail_file(const char *what, const char *path)
{
	const char *why = nc_file_error(errno);

	ereport(FATAL,
			(errcode_for_file_access(), errmsg("could not %s file \"%s\": %s", what, path, why)));
}

/* The marker file's text, palloc'd. */
static char *
read_marker(void)
{
	FILE	   *file = nc_file_fopen(NC_SKELETON_MARKER, "r");
	char	   *text = palloc0(8192);

	if (file == NULL || (fread(text, 1, 8191, file) == 0 && ferror(file)))
		fail_file("read", NC_SKELETON_MARKER);
	fclose(file);
	return text;
}

/* The line in the marker, or NULL. */
static char *
marker_line(char *text, const char *line)
{
	char	   *at = strstr(text, line);

	if (at == NULL || (at > text && at[-1] != '\n') || strcspn(at, "\r\n") != strlen(line))
		return NULL;
	return at;
}

/* Puts a line of the marker in the place of another one, durably. */
static void
replace_marker_line(char *text, const char *from, const char *to)
{
	char	   *at = marker_line(text, from);
	const char *temporary = NC_SKELETON_MARKER ".new";
	FILE	   *file = nc_file_fopen(temporary, "w");

	if (file == NULL ||
		fprintf(file, "%.*s%s%s", (int) (at - text), text, to, at + strlen(from)) < 0 ||
		fclose(file) != 0)
		fail_file("write", temporary);
	(void) durable_rename(temporary, NC_SKELETON_MARKER, FATAL);
}

/* Marks every block without content in a file whose content is there. */
static void
mark_empty_blocks(const RelFile *file, void *arg)
{
	int			fd;
	char	   *content = arg;
	char		mark[NC_EMPTY_MARK_BYTES];
	ssize_t		got;
	bool		any = false;

	if (init_fork_beside(file->path))
		return;
	fd = open(file->path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		fail_file("open", file->path);
	for (off_t at = 0; (got = pg_pread(fd, content, CHUNK_BYTES, at)) > 0; at += CHUNK_BYTES)
	{
		for (int i = 0; (i + 1) * BLCKSZ <= got; i++)
		{
			if (!nc_page_is_zero(content + i * BLCKSZ))
				continue;
			nc_empty_make_mark(file->segno * RELSEG_SIZE + at / BLCKSZ + i, mark);
			any = true;
			if (pg_pwrite(fd, mark, sizeof(mark), at + i * BLCKSZ + NC_EMPTY_MARK_AT) != sizeof(mark))
				fail_file("write", file->path);
		}
	}
	if (got < 0)
		fail_file("read", file->path);
	if (any && pg_fsync(fd) != 0)
		fail_file("fsync", file->path);
	close(fd);
}

/*
 * Learns whether lengths may be still to come, and whether blocks that were never logged can be told.  A skeleton made before
 * there were marks has blocks of both kinds without one: nothing can be said of them.
 */
static void
learn_empty_blocks(void)
{
	char	   *text = read_marker();
	char	   *content;

	first_start = marker_line(text, LINE_WHOLE) != NULL;
	if (first_start)
	{
		ereport(LOG, (errmsg("first start of this skeleton: reading all tables for blocks that hold nothing")));
		content = palloc(CHUNK_BYTES);
		walk_main_forks(InvalidOid, mark_empty_blocks, content);
		pfree(content);
		replace_marker_line(text, LINE_WHOLE, LINE_MARKED);
	}
	nc_shared->lengths_asked = marker_line(text, LINE_LENGTHS) != NULL;
	nc_shared->empty_marked = first_start || marker_line(text, LINE_MARKED) != NULL;
	if (!nc_shared->empty_marked)
		ereport(LOG,
				(errmsg("this skeleton does not say which blocks were never logged: empty pages of page servers are not checked"),
				 errdetail("There is no line \"%s\" in file \"%s\".", LINE_MARKED, NC_SKELETON_MARKER)));
	pfree(text);
}

/*
 * The first block from this one on, in the chunk at `at`, that the file has anything of;
 * NC_LOCAL_CHUNK_BLOCKS when it has of none.
 */
static int
next_with_data(int fd, off_t at, int block)
{
	off_t		data = lseek(fd, at + (off_t) block * BLCKSZ, SEEK_DATA);

	if (data < 0)
		return errno == ENXIO ? NC_LOCAL_CHUNK_BLOCKS : block;
	return (int) Min(NC_LOCAL_CHUNK_BLOCKS, (data - at) / BLCKSZ);
}

/*
 * Which of the blocks of a chunk from `at` on, which begins with `first`, say that they
 * were never logged, and which has the file anything of?  Holes are not read: others
 * wait meanwhile, and most of a large file is holes.
 */
static uint64
empty_blocks(int fd, off_t at, BlockNumber first, uint64 *has_data)
{
	PGAlignedBlock page;
	uint64		empty = 0;

	*has_data = 0;
	for (int i = next_with_data(fd, at, 0); i < NC_LOCAL_CHUNK_BLOCKS;
		 i = next_with_data(fd, at, i + 1))
	{
		*has_data |= UINT64CONST(1) << i;
		if (pg_pread(fd, page.data, BLCKSZ, at + (off_t) i * BLCKSZ) != BLCKSZ)
			continue;
		if (first_start ? nc_empty_is_mark(page.data, first + i) :
			nc_empty_says(page.data, first + i))
			empty |= UINT64CONST(1) << i;
	}
	return empty;
}

/* ---- cleaning ---- */

/*
 * A sequence found in a file that nobody has told the index about: its state may
 * be newer than what WAL says, because WAL logs sequences ahead.  It is entered
 * as unverified and judged when it is read.  The chunk's lock is held.
 */
static void
adopt_sequence(NcLocalRef *ref, int fd)
{
	PGAlignedBlock page;

	if ((ref->chunk != NULL && (ref->chunk->local & 1) != 0) ||
		pg_pread(fd, page.data, BLCKSZ, 0) != BLCKSZ || !nc_page_is_sequence(page.data, 0))
		return;
	if (!nc_local_try_ensure(ref))
	{
		ereport(LOG,
				(errmsg("the index of local blocks is full: a sequence falls back to its logged state"),
				 errhint("Raise neon_comm.local_index_chunks.")));
		return;
	}
	ref->bit = 1;
	nc_local_mark(ref, NC_KEEP_SEQUENCE, FullTransactionIdFromU64(0));
	ref->chunk->unverified |= 1;
}

/* Where the first chunk from `at` on begins that is not all hole; behind any file's end when there is none. */
static off_t
next_scrub_chunk(int fd, off_t at)
{
	off_t		data = lseek(fd, at, SEEK_DATA);

	if (data < 0)
		return errno == ENXIO ? PG_INT64_MAX : at;
	return data / CHUNK_BYTES * CHUNK_BYTES;
}

/* Gives back the space of these blocks (a bit each) of the chunk at `at`. */
static void
punch_blocks(int fd, off_t at, uint64 blocks)
{
	for (int i = 0; i < NC_LOCAL_CHUNK_BLOCKS; i++)
	{
		int			n = 0;

		while (i + n < NC_LOCAL_CHUNK_BLOCKS && (blocks >> (i + n) & 1) != 0)
			n++;
		if (n > 0)
			(void) fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
							 at + (off_t) i * BLCKSZ, (off_t) n * BLCKSZ);
		i += n;
	}
}

/* Scrubs a chunk under its lock; false when the file is all there is of the relation. */
static bool
scrub_chunk(const RelFile *file, int fd, off_t at)
{
	BlockNumber block = file->segno * RELSEG_SIZE + at / BLCKSZ;
	off_t		nblocks = (file->st.st_size - at) / BLCKSZ;
	NcLocalRef	ref;
	uint64		keep,
				empty,
				has_data;

	nc_local_begin_change(&file->rel, block, &ref);
	if (init_fork_beside(file->path))
	{
		nc_local_end(&ref);
		return false;
	}
	if (block == 0)
		adopt_sequence(&ref, fd);
	keep = ref.chunk != NULL ? ref.chunk->local : 0;
	empty = empty_blocks(fd, at, block, &has_data) & ~keep;
	if (empty != 0)
		nc_local_note_empty(&ref, empty);

	/* blocks behind the length that was seen are somebody's who makes the file longer */
	if (nblocks < NC_LOCAL_CHUNK_BLOCKS)
		has_data &= (UINT64CONST(1) << nblocks) - 1;
	punch_blocks(fd, at, has_data & ~keep & ~empty);
	nc_local_end(&ref);
	NC_TEST_POINT_REL("skeleton-scrub", file->rel.rel);
	return true;
}

/*
 * Punches everything that the index does not name and that does not say that the
 * block was never logged, chunk by chunk under the chunk's lock, so that blocks
 * kept meanwhile by others stay.  An INIT fork may come meanwhile, and then the
 * file is all there is: looked at under the lock, since whoever makes one passes
 * by all chunks after it.  False then, and when the file could not be looked at.
 */
static bool
scrub_file(const RelFile *file)
{
	bool		done = true;
	int			fd;

	if (file->st.st_blocks == 0)
		return true;
	if (init_fork_beside(file->path))
		return false;
	/* closes another file where the process has as many open as it can have */
	fd = NC_TEST_FAULT_REL("skeleton-open", file->rel.rel) ? -1 :
		BasicOpenFile(file->path, O_RDWR | PG_BINARY);
	if (fd < 0)
		return errno == ENOENT;
	for (off_t at = next_scrub_chunk(fd, 0); done && at < file->st.st_size;
		 at = next_scrub_chunk(fd, at + CHUNK_BYTES))
		done = scrub_chunk(file, fd, at);
	close(fd);
	return done;
}

static void
scrub_visited(const RelFile *file, void *arg)
{
	(void) scrub_file(file);
}

void
nc_skeleton_scrub_database(Oid db)
{
	walk_main_forks(db, scrub_visited, NULL);
}

/* Scrubs the files of a relation; false when not all were: whoever uses it next tries again. */
static bool
scrub_segments(const NcRelKey *rel)
{
	char		path[MAXPGPATH];
	RelFile		file = {.rel = *rel, .path = path};

	for (;; file.segno++)
	{
		nc_skeleton_segment_path(rel, file.segno, path);
		if (stat(path, &file.st) != 0)
			return errno == ENOENT;
		if (!scrub_file(&file))
			return false;
	}
}

/* Scrubs the file of a relation, if nobody has since the start. */
static void
scrub_relation(const NcRelKey *rel)
{
	LWLock	   *lock = nc_local_lock_file(rel, LW_EXCLUSIVE);

	if (!nc_local_is_scrubbed(rel) && scrub_segments(rel))
		nc_local_set_scrubbed(rel);
	LWLockRelease(lock);
}

NcRelInfo
nc_skeleton_relation(SMgrRelation reln)
{
	NcRelInfo	info = nc_local_relation(reln);
	NcRelKey	rel = nc_reln_key(reln, MAIN_FORKNUM);

	if (info.scrubbed || info.unlogged)
		return info;
	scrub_relation(&rel);
	return nc_local_relation(reln);
}

/*
 * A file that was written since the start is somebody's work: whoever uses its relation
 * scrubs it, and who copies a whole database, whose INIT forks may come after what they
 * belong to, does so at the end.
 */
static void
scrub_if_old(const RelFile *file, void *arg)
{
	uint64		written_ns = (uint64) file->st.st_mtim.tv_sec * 1000000000 + file->st.st_mtim.tv_nsec;

	if (file->st.st_blocks == 0 || written_ns >= nc_shared->started_ns || ProcDiePending ||
		QueryCancelPending)
		return;
	NC_TEST_POINT_REL("skeleton-rest", file->rel.rel);
	scrub_relation(&file->rel);
}

void
nc_skeleton_scrub_rest(void)
{
	if (RecoveryInProgress() || atomic_load(&nc_shared->skeleton_clean) != 0)
		return;
	walk_main_forks(InvalidOid, scrub_if_old, NULL);
	if (!ProcDiePending && !QueryCancelPending)
		atomic_store(&nc_shared->skeleton_clean, 1);
}

/* Remembers when this start began, by the clock that dates files. */
static void
note_start(void)
{
	struct stat st;

	if (utimensat(AT_FDCWD, NC_SKELETON_MARKER, NULL, 0) != 0 || stat(NC_SKELETON_MARKER, &st) != 0)
		fail_file("touch", NC_SKELETON_MARKER);
	nc_shared->started_ns = (uint64) st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
}

void
nc_skeleton_startup(void)
{
	bool		crc_ok;
	ControlFileData *control = get_controlfile(DataDir, &crc_ok);

	if (!crc_ok)
		ereport(FATAL, (errmsg("neon_comm: pg_control has a wrong checksum")));
	nc_shared->start_lsn = control->checkPointCopy.redo;
	pfree(control);
	note_start();
	learn_empty_blocks();
	if (first_start)
	{
		walk_main_forks(InvalidOid, scrub_visited, NULL);
		atomic_store(&nc_shared->skeleton_clean, 1);
	}
	first_start = false;
}

/* ---- measuring ---- */

/* Bytes that marks, known to the index, take in a file. */
static uint64
measure_marks(const RelFile *file)
{
	int			fd = BasicOpenFile(file->path, O_RDONLY | PG_BINARY);
	uint64		bytes = 0;
	off_t		data = 0;

	while (fd >= 0 && (data = lseek(fd, data, SEEK_DATA)) >= 0)
	{
		BlockNumber block = data / BLCKSZ;
		off_t		end = (off_t) (block + 1) * BLCKSZ;
		off_t		hole = lseek(fd, data, SEEK_HOLE);

		if (hole < end && hole >= 0)
			end = hole;
		if (nc_local_look(&file->rel, file->segno * RELSEG_SIZE + block) == NC_BLOCK_EMPTY)
			bytes += end - data;
		data = end;
	}
	if (fd >= 0)
		close(fd);
	return bytes;
}

static void
measure_file(const RelFile *file, void *arg)
{
	NcLocalBytes *out = arg;
	NcLocalRef	ref;

	if (init_fork_beside(file->path))
		return;
	out->files++;
	out->apparent += file->st.st_size;
	out->allocated += (uint64) file->st.st_blocks * 512;
	if (file->st.st_blocks == 0)
		return;
	out->empty += measure_marks(file);
	if (file->segno != 0)
		return;
	nc_local_begin_change(&file->rel, 0, &ref);
	if (ref.chunk != NULL && (ref.chunk->sequence & 1) != 0)
		out->sequences += (uint64) file->st.st_blocks * 512;
	nc_local_end(&ref);
}

void
nc_skeleton_measure(NcLocalBytes *out)
{
	memset(out, 0, sizeof(*out));
	walk_main_forks(InvalidOid, measure_file, out);
}

/* ---- naming ---- */

typedef struct RelList
{
	NcRelKey   *keys;
	uint64		n;
	uint64		room;
	uint64		blocks;
} RelList;

static void
list_file(const RelFile *file, void *arg)
{
	RelList    *list = arg;

	if (init_fork_beside(file->path))
		return;
	list->blocks += file->st.st_size / BLCKSZ;
	if (file->segno != 0)
		return;
	if (list->n == list->room)
	{
		list->room *= 2;
		list->keys = repalloc_huge(list->keys, list->room * sizeof(NcRelKey));
	}
	list->keys[list->n++] = file->rel;
}

NcRelKey *
nc_skeleton_list(uint64 *n, uint64 *blocks)
{
	RelList		list = {.room = 1024};

	list.keys = palloc(list.room * sizeof(NcRelKey));
	walk_main_forks(InvalidOid, list_file, &list);
	*n = list.n;
	*blocks = list.blocks;
	return list.keys;
}
