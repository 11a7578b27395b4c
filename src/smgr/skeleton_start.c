/*
 * skeleton_start.c
 *	  What happens to skeleton files as a whole: the checks before a start, the
 *	  cleaning at each start, sequences remembered over a clean stop, and
 *	  measuring what is kept.
 *
 * The checks and the cleaning run in the postmaster.  After an unclean stop
 * every local block is void, its owners being dead; after a clean one only
 * sequences have a reason to be remembered.
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
#include "port/pg_crc32c.h"
#include "storage/fd.h"
#include "storage/ipc.h"

#include "nc/ext/guc.h"
#include "nc/ext/shmem.h"
#include "nc/feed/feed.h"
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

static bool
has_init_fork(const char *dir, Oid rel)
{
	char		path[MAXPGPATH];

	snprintf(path, sizeof(path), "%s/%u_init", dir, rel);
	return access(path, F_OK) == 0;
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
		file.unlogged = has_init_fork(dir, file.rel.rel);
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
 * Punches everything that the index does not name, chunk by chunk under the
 * chunk's lock, so that blocks kept meanwhile by others stay.
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

/* ---- sequences over a clean stop ---- */

#define SEQUENCES_MAGIC 0x4e435351	/* "NCSQ" */

typedef struct SequencesHeader
{
	uint32		magic;
	uint32		count;
	uint64		system_identifier;
	uint64		checkpoint;		/* LSN of the shutdown checkpoint it belongs to */
} SequencesHeader;

static bool
is_sequence_chunk(const NcLocalChunk *c, void *arg)
{
	return c->sequence != 0;
}

static void
write_sequences(const ControlFileData *control)
{
	int			n;
	NcLocalChunk *found = nc_local_collect(is_sequence_chunk, NULL, &n);
	SequencesHeader header = {SEQUENCES_MAGIC, n, control->system_identifier,
		control->checkPoint};
	Size		bytes = n * sizeof(NcLocalKey);
	NcLocalKey *keys = palloc(bytes + 1);
	pg_crc32c	crc;
	int			fd;
	bool		ok;

	for (int i = 0; i < n; i++)
		keys[i] = found[i].key;
	INIT_CRC32C(crc);
	COMP_CRC32C(crc, &header, sizeof(header));
	COMP_CRC32C(crc, keys, bytes);
	FIN_CRC32C(crc);

	fd = OpenTransientFile(NC_SEQUENCES_FILE ".tmp", O_CREAT | O_TRUNC | O_WRONLY | PG_BINARY);
	ok = fd >= 0 && write(fd, &header, sizeof(header)) == sizeof(header) &&
		write(fd, keys, bytes) == (ssize_t) bytes && write(fd, &crc, sizeof(crc)) == sizeof(crc);
	if (fd >= 0)
		CloseTransientFile(fd);
	if (!ok || durable_rename(NC_SEQUENCES_FILE ".tmp", NC_SEQUENCES_FILE, LOG) != 0)
		ereport(LOG,
				(errmsg("could not write \"%s\": %m", NC_SEQUENCES_FILE),
				 errdetail("Sequences may skip up to 32 values at the next start.")));
	pfree(keys);
	pfree(found);
}

/*
 * The postmaster's last act, after every other process: remembers local
 * sequences if the stop was clean.  Also called, without effect, before shared
 * memory is made anew after a crash.
 */
static void
save_sequences(int code, Datum arg)
{
	bool		crc_ok;
	ControlFileData *control = get_controlfile(DataDir, &crc_ok);

	if (crc_ok && control->state == DB_SHUTDOWNED)
		write_sequences(control);
	pfree(control);
}

/* Takes over the sequences of the clean stop that this start follows; the file is used once. */
static void
read_sequences(const ControlFileData *control)
{
	FILE	   *file = fopen(NC_SEQUENCES_FILE, "rb");
	SequencesHeader header;
	NcLocalKey *keys = NULL;
	pg_crc32c	crc,
				stored;
	bool		ok;

	if (file == NULL)
		return;
	ok = fread(&header, sizeof(header), 1, file) == 1 && header.magic == SEQUENCES_MAGIC &&
		header.system_identifier == control->system_identifier &&
		header.checkpoint == control->checkPoint && control->state == DB_SHUTDOWNED &&
		header.count <= 100 * 1000 * 1000;
	if (ok)
	{
		keys = malloc((Size) header.count * sizeof(NcLocalKey) + 1);
		ok = keys != NULL &&
			fread(keys, sizeof(NcLocalKey), header.count, file) == header.count &&
			fread(&stored, sizeof(stored), 1, file) == 1;
	}
	fclose(file);
	/* gone before anything can change a sequence: a crash must not find it */
	durable_unlink(NC_SEQUENCES_FILE, LOG);
	if (ok)
	{
		INIT_CRC32C(crc);
		COMP_CRC32C(crc, &header, sizeof(header));
		COMP_CRC32C(crc, keys, header.count * sizeof(NcLocalKey));
		FIN_CRC32C(crc);
		ok = EQ_CRC32C(crc, stored);
	}
	for (uint32 i = 0; ok && i < header.count; i++)
	{
		NcLocalRef	ref;

		nc_local_begin_change_key(&keys[i], &ref);
		nc_local_ensure(&ref);
		ref.bit = 1;
		nc_local_mark(&ref, NC_KEEP_SEQUENCE, FullTransactionIdFromU64(0));
		nc_local_end(&ref);
	}
	free(keys);
}

void
nc_skeleton_startup(void)
{
	bool		crc_ok;
	ControlFileData *control = get_controlfile(DataDir, &crc_ok);

	if (!crc_ok)
		ereport(FATAL, (errmsg("neon_comm: pg_control has a wrong checksum")));
	nc_shared->start_lsn = control->checkPointCopy.redo;
	read_sequences(control);
	pfree(control);
	walk_main_forks(InvalidOid, scrub_file, NULL);
	before_shmem_exit(save_sequences, 0);
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
