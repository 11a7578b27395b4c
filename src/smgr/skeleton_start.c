/*
 * skeleton_start.c
 *	  What happens to skeleton files as a whole: the checks before a start, the
 *	  cleaning at each start and after a database was copied, and measuring what
 *	  is kept.
 *
 * The checks and the cleaning at a start run in the postmaster.  After a stop,
 * clean or not, every local block is void, its owners being dead; only sequences
 * have a reason to be remembered.
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

#include "nc/ext/guc.h"
#include "nc/ext/shmem.h"
#include "nc/feed/feed.h"
#include "nc/smgr/keep.h"
#include "nc/smgr/local.h"
#include "nc/smgr/skeleton.h"

#define MARKER_FIRST_LINE "neon_comm skeleton 1"

/* ---- before a start ---- */

static uint64
system_identifier(void)
{
	bool		crc_ok;
	ControlFileData *control = get_controlfile(DataDir, &crc_ok);
	uint64		id = control->system_identifier;

	pfree(control);
	return id;
}

static void
check_marker(void)
{
	FILE	   *file = fopen(NC_SKELETON_MARKER, "r");
	char		line[128] = "";
	unsigned long long id = 0;

	if (file == NULL)
		ereport(FATAL,
				(errmsg("data directory \"%s\" is not a neon_comm skeleton", DataDir),
				 errdetail("The file \"%s\" is missing: this directory may hold the only copy of its tables, and neon_comm would empty them.",
						   NC_SKELETON_MARKER),
				 errhint("Make a cluster with \"neon_dev init\", or turn this one into one with \"neon_dev adopt\"; to run it as it is, set neon_comm.page_servers = ''.")));
	if (fgets(line, sizeof(line), file) == NULL ||
		strncmp(line, MARKER_FIRST_LINE, strlen(MARKER_FIRST_LINE)) != 0 ||
		fscanf(file, "system_identifier=%llu", &id) != 1)
	{
		fclose(file);
		ereport(FATAL,
				(errmsg("file \"%s\" is not understood", NC_SKELETON_MARKER),
				 errdetail("Expected \"%s\" and a line \"system_identifier=N\".",
						   MARKER_FIRST_LINE)));
	}
	fclose(file);
	if (id != system_identifier())
		ereport(FATAL,
				(errmsg("file \"%s\" belongs to another cluster", NC_SKELETON_MARKER),
				 errdetail("It names system identifier %llu, this is %llu.", id,
						   (unsigned long long) system_identifier())));
}

void
nc_skeleton_check_absent(void)
{
	if (access(NC_SKELETON_MARKER, F_OK) == 0)
		ereport(FATAL,
				(errmsg("data directory \"%s\" is a neon_comm skeleton, but neon_comm.page_servers is empty or invalid",
						DataDir),
				 errdetail("Its tables are on page servers; the local files hold no content."),
				 errhint("Set neon_comm.page_servers to the connection strings of the page servers.")));
}

/*
 * Page servers of the same host follow the same link: emptying files there would
 * empty theirs.
 */
static void
check_tablespaces(void)
{
	DIR		   *d = opendir("pg_tblspc");
	struct dirent *de;
	char		path[MAXPGPATH];
	struct stat st;

	if (d == NULL)
		return;
	while ((de = readdir(d)) != NULL)
	{
		snprintf(path, sizeof(path), "pg_tblspc/%s", de->d_name);
		if (lstat(path, &st) == 0 && S_ISLNK(st.st_mode))
			ereport(FATAL,
					(errmsg("tablespace %s has a location, which a neon_comm skeleton cannot have",
							de->d_name),
					 errdetail("Page servers replay the same WAL and would use the same directory."),
					 errhint("Move its tables to pg_default before the cluster is adopted.")));
	}
	closedir(d);
}

static void
refuse(const char *what, const char *why)
{
	ereport(nc_guc_allow_unsafe ? WARNING : FATAL,
			(errmsg("neon_comm does not work with %s", what),
			 errdetail("%s", why),
			 errhint("Change the setting, or set neon_comm.allow_unsafe = on for a cluster whose data may be lost.")));
}

void
nc_skeleton_check_start(void)
{
	if (!IsPostmasterEnvironment)
		ereport(FATAL,
				(errmsg("a neon_comm skeleton cannot run in single-user mode"),
				 errdetail("Its tables are on page servers, and nobody would fetch their pages."),
				 errhint("Start the server normally.")));
	check_marker();
	check_tablespaces();
	if (wal_level == WAL_LEVEL_MINIMAL)
		ereport(FATAL,
				(errmsg("neon_comm needs wal_level \"replica\" or \"logical\""),
				 errdetail("With \"minimal\" the contents of new relations would not be in the WAL that page servers get.")));
	if (!fullPageWrites)
		refuse("full_page_writes = off",
			   "Page servers recover from their own crashes with the full pages in WAL.");
	if (!enableFsync)
		refuse("fsync = off",
			   "After a crash page servers could have WAL that this server has lost.");
}

/* ---- walking the relation files ---- */

typedef struct RelFile
{
	NcRelKey	rel;			/* main fork */
	BlockNumber segno;
	bool		unlogged;
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

/* Has the relation of this main fork segment an INIT fork? */
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
	return access(init, F_OK) == 0;
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

		if (!parse_main_fork(de->d_name, &file.rel.rel, &file.segno))
			continue;
		snprintf(path, sizeof(path), "%s/%s", dir, de->d_name);
		file.unlogged = init_fork_beside(path);
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

/*
 * Punches everything that the index does not name, chunk by chunk under the
 * chunk's lock, so that blocks kept meanwhile by others stay.  An INIT fork may
 * come meanwhile, and then the file is all there is: looked at under the lock,
 * since whoever makes one passes by all chunks after it.
 */
static void
scrub_file(const RelFile *file, void *arg)
{
	struct stat st;
	int			fd;

	if (file->unlogged || stat(file->path, &st) != 0 || st.st_blocks == 0)
		return;
	fd = open(file->path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return;
	for (off_t at = 0; at < st.st_size; at += (off_t) NC_LOCAL_CHUNK_BLOCKS * BLCKSZ)
	{
		BlockNumber block = file->segno * RELSEG_SIZE + at / BLCKSZ;
		NcLocalRef	ref;
		uint64		keep;

		nc_local_begin_change(&file->rel, block, &ref);
		if (init_fork_beside(file->path))
		{
			nc_local_end(&ref);
			break;
		}
		if (block == 0)
			adopt_sequence(&ref, fd);
		keep = ref.chunk != NULL ? ref.chunk->local : 0;
		for (int i = 0; i < NC_LOCAL_CHUNK_BLOCKS; i++)
		{
			int			n = 1;

			if ((keep >> i & 1) != 0)
				continue;
			while (i + n < NC_LOCAL_CHUNK_BLOCKS && (keep >> (i + n) & 1) == 0)
				n++;
			(void) fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
							 at + (off_t) i * BLCKSZ, (off_t) n * BLCKSZ);
			i += n;
		}
		nc_local_end(&ref);
	}
	close(fd);
}

void
nc_skeleton_scrub_database(Oid db)
{
	walk_main_forks(db, scrub_file, NULL);
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
	walk_main_forks(InvalidOid, scrub_file, NULL);
}

/* ---- measuring ---- */

static void
measure_file(const RelFile *file, void *arg)
{
	NcLocalBytes *out = arg;
	NcLocalRef	ref;
	struct stat st;

	if (file->unlogged || stat(file->path, &st) != 0)
		return;
	out->files++;
	out->apparent += st.st_size;
	out->allocated += (uint64) st.st_blocks * 512;
	if (file->segno != 0 || st.st_blocks == 0)
		return;
	nc_local_begin_change(&file->rel, 0, &ref);
	if (ref.chunk != NULL && (ref.chunk->sequence & 1) != 0)
		out->sequences += (uint64) st.st_blocks * 512;
	nc_local_end(&ref);
}

void
nc_skeleton_measure(NcLocalBytes *out)
{
	memset(out, 0, sizeof(*out));
	walk_main_forks(InvalidOid, measure_file, out);
}
