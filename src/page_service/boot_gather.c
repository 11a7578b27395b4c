/*
 * boot_gather.c
 *	  Gathers a boot image into a file: everything of a data directory that is not
 *	  content of tables, of one moment.
 *
 * Runs in a page service worker.  While replay is held (the cut, gate.c) it copies
 * what replay changes: SLRUs, prepared transactions, origins, relation maps, INIT
 * forks, free space and visibility maps, lengths.  WAL before the cut and what is
 * made of values that were taken under it come after.
 *
 * No file of a main fork is opened.  Memory is bounded but for the names of one
 * directory.  ERRORs go to the caller, who lets replay go on (boot.c).
 *
 * In Neon's form (neon_page_service.boot_image) lengths, maps and WAL stay out, and
 * what is left has the names and the order that Neon's page servers give it.
 */
#include "page_service.h"

#include <sys/stat.h>
#include <unistd.h>

#include "access/twophase.h"
#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "access/xlogreader.h"
#include "access/xlogutils.h"
#include "catalog/pg_control.h"
#include "catalog/pg_tablespace_d.h"
#include "common/relpath.h"
#include "miscadmin.h"
#include "port/pg_crc32c.h"
#include "replication/origin.h"
#include "storage/bufmgr.h"
#include "storage/bufpage.h"
#include "storage/fd.h"
#include "storage/smgr.h"

#include "compat.h"
#include "nc/boot/image.h"
#include "nc/boot/tar.h"

#define SPOOL_BYTES (64 * 1024)

/* As in twophase.c. */
#define PREPARED "pg_twophase"

/* As replorigin_checkpoint begins (origin.c). */
#define ORIGINS_MAGIC ((uint32) 0x1257DADE)

/* A file that is being written. */
typedef struct Spool
{
	int			fd;
	off_t		written;
	int			used;
	char		buffer[SPOOL_BYTES];
} Spool;

typedef struct Gather
{
	Spool		tar;
	Spool		forks;			/* a text that becomes an entry of the tar at the end */
	NcSvcBootEnd end;
	bool		neon;			/* in Neon's form */
	BufferAccessStrategy strategy;
	uint8_t		segment[NC_SLRU_SEGMENT_BLOCKS * NC_PAGE_BYTES];
	NcBootDescription description;
} Gather;

/* ---- the file ---- */

static void
flush(Spool *spool)
{
	if (pg_pwrite(spool->fd, spool->buffer, spool->used, spool->written) != spool->used)
	{
		if (errno == 0)
			errno = ENOSPC;
		ereport(ERROR, (errcode_for_file_access(), errmsg("could not write the file of a boot image: %m")));
	}
	spool->written += spool->used;
	spool->used = 0;
}

static void
put_spool(Spool *spool, const void *data, size_t bytes)
{
	const char *from = data;

	while (bytes > 0)
	{
		size_t		n = Min(bytes, SPOOL_BYTES - spool->used);

		memcpy(spool->buffer + spool->used, from, n);
		spool->used += n;
		from += n;
		bytes -= n;
		if (spool->used == SPOOL_BYTES)
		{
			errno = 0;
			flush(spool);
		}
	}
}

static void
put_content(void *arg, const void *data, size_t bytes)
{
	put_spool(&((Gather *) arg)->tar, data, bytes);
}

static void
put_header(Gather *g, const char *name, bool directory, uint64 bytes)
{
	NcTarEntry	entry = {.directory = directory, .bytes = bytes};
	uint8_t		header[NC_TAR_BLOCK_BYTES];

	if (strlcpy(entry.name, name, sizeof(entry.name)) >= sizeof(entry.name) ||
		!nc_tar_header(&entry, header))
		ereport(ERROR, (errmsg("\"%s\" cannot be in a boot image", name)));
	put_spool(&g->tar, header, sizeof(header));
}

static void
put_padding(Gather *g, uint64 bytes)
{
	static const char zeroes[NC_TAR_BLOCK_BYTES];

	put_spool(&g->tar, zeroes, nc_tar_padding(bytes));
}

static void
put_file(Gather *g, const char *name, const void *content, size_t bytes)
{
	put_header(g, name, false, bytes);
	put_spool(&g->tar, content, bytes);
	put_padding(g, bytes);
}

static void
put_directory(Gather *g, const char *name)
{
	put_header(g, name, true, 0);
}

/* So many bytes of an open file become an entry; behind_too: more bytes that follow them. */
static void
put_open_file(Gather *g, const char *name, int fd, off_t bytes)
{
	char		block[NC_PAGE_BYTES];

	put_header(g, name, false, bytes);
	for (off_t at = 0; at < bytes; at += sizeof(block))
	{
		ssize_t		n = Min((off_t) sizeof(block), bytes - at);

		if (pg_pread(fd, block, n, at) != n)
			ereport(ERROR, (errcode_for_file_access(), errmsg("could not read file \"%s\"", name)));
		put_spool(&g->tar, block, n);
	}
	put_padding(g, bytes);
}

/* A file of the data directory as it is. */
static void
put_copy(Gather *g, const char *name)
{
	int			fd = OpenTransientFile(name, O_RDONLY | PG_BINARY);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) != 0)
		ereport(ERROR, (errcode_for_file_access(), errmsg("could not open file \"%s\": %m", name)));
	put_open_file(g, name, fd, st.st_size);
	CloseTransientFile(fd);
}

static void
put_copy_if_there(Gather *g, const char *name)
{
	struct stat st;

	if (stat(name, &st) == 0 && S_ISREG(st.st_mode))
		put_copy(g, name);
}

/* ---- who it is ---- */

static void
describe_image(Gather *g)
{
	NcBootDescription *d = &g->description;
	const NcMemberIdentity *me = nc_svc_identity_current();
	char	   *text = palloc(NC_BOOT_DESCRIPTION_BYTES_MAX);
	size_t		bytes;

	if (me == NULL || nc_id_is_none(&me->birth) || me->followed.n == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this page server has not followed a compute yet")));
	memset(d, 0, sizeof(*d));
	d->system_identifier = g->end.control->system_identifier;
	d->timeline = g->end.timeline;
	d->segment_bytes = wal_segment_size;
	d->checksums = DataChecksumsEnabled();
	strlcpy(d->tablespace_directory, TABLESPACE_VERSION_DIRECTORY, sizeof(d->tablespace_directory));
	d->cut = g->end.cut;
	d->checkpoint = g->end.checkpoint;
	d->birth = me->birth;
	d->lineage = me->followed;
	bytes = nc_boot_description_write(d, text, NC_BOOT_DESCRIPTION_BYTES_MAX);
	put_file(g, NC_BOOT_DESCRIPTION, text, bytes);
	pfree(text);
}

/* ---- directories ---- */

static const char *const directories[] = {
	"base", "global", "pg_commit_ts", "pg_dynshmem", "pg_logical", "pg_logical/mappings",
	"pg_logical/snapshots", "pg_multixact", "pg_multixact/members", "pg_multixact/offsets",
	"pg_notify", "pg_replslot", "pg_serial", "pg_stat", "pg_stat_tmp", "pg_subtrans", "pg_tblspc",
	"pg_twophase", "pg_wal", "pg_wal/archive_status", "pg_xact"
};

static const char *const neon_directories[] = {
	"global", "pg_wal/archive_status", "pg_commit_ts", "pg_dynshmem", "pg_notify", "pg_serial", "pg_snapshots",
	"pg_subtrans", "pg_twophase", "pg_multixact", "pg_multixact/members", "pg_multixact/offsets", "base",
	"pg_replslot", "pg_tblspc", "pg_stat", "pg_stat_tmp", "pg_xact", "pg_logical", "pg_logical/snapshots",
	"pg_logical/mappings"
};

/* A number that is an object's, and nothing else in the name. */
static Oid
number_of(const char *name)
{
	char	   *end;
	unsigned long number = strtoul(name, &end, 10);

	return name[0] >= '1' && name[0] <= '9' && *end == '\0' && number <= PG_UINT32_MAX ? number : InvalidOid;
}

/* Calls visit for each database's directory below `parent`, which holds those of one tablespace. */
static void
each_database(Gather *g, const char *parent, Oid spc, void (*visit) (Gather *g, const char *path, Oid spc, Oid db))
{
	DIR		   *dir = AllocateDir(parent);
	struct dirent *entry;
	char		path[MAXPGPATH];

	if (dir == NULL && errno == ENOENT)
		return;
	while ((entry = ReadDir(dir, parent)) != NULL)
	{
		Oid			db = number_of(entry->d_name);

		if (db == InvalidOid)
			continue;
		snprintf(path, sizeof(path), "%s/%s", parent, entry->d_name);
		visit(g, path, spc, db);
	}
	FreeDir(dir);
}

static void
each_tablespace(Gather *g, void (*visit) (Gather *g, const char *path, Oid spc))
{
	DIR		   *dir = AllocateDir("pg_tblspc");
	struct dirent *entry;
	char		path[MAXPGPATH];
	struct stat st;

	while ((entry = ReadDir(dir, "pg_tblspc")) != NULL)
	{
		Oid			spc = number_of(entry->d_name);

		if (spc == InvalidOid)
			continue;
		snprintf(path, sizeof(path), "pg_tblspc/%s", entry->d_name);
		if (lstat(path, &st) != 0 || !S_ISDIR(st.st_mode))
			ereport(ERROR, (errmsg("tablespace %u has a location, which a compute cannot have", spc)));
		visit(g, path, spc);
	}
	FreeDir(dir);
}

/* The directory of a database and its files that are no relations. */
static void
put_database(Gather *g, const char *path, Oid spc, Oid db)
{
	char		file[MAXPGPATH];

	put_directory(g, path);
	snprintf(file, sizeof(file), "%s/PG_VERSION", path);
	put_copy_if_there(g, file);
	snprintf(file, sizeof(file), "%s/pg_filenode.map", path);
	put_copy_if_there(g, file);
}

static void
put_tablespace(Gather *g, const char *path, Oid spc)
{
	char		inner[MAXPGPATH];
	struct stat st;

	put_directory(g, path);
	snprintf(inner, sizeof(inner), "%s/%s", path, TABLESPACE_VERSION_DIRECTORY);
	if (stat(inner, &st) != 0)
		return;
	put_directory(g, inner);
	each_database(g, inner, spc, put_database);
}

static void
refuse_tablespace(Gather *g, const char *path, Oid spc)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("an image in Neon's form has no tablespaces, but there is tablespace %u", spc)));
}

static void
put_neon_directories(Gather *g)
{
	for (int i = 0; i < lengthof(neon_directories); i++)
		put_directory(g, neon_directories[i]);
	put_file(g, "pg_hba.conf", "", 0);
	put_file(g, "pg_ident.conf", "", 0);
	put_file(g, "postgresql.auto.conf", "", 0);
	put_copy(g, "global/pg_filenode.map");
	each_database(g, "base", DEFAULTTABLESPACE_OID, put_database);
	each_tablespace(g, refuse_tablespace);
}

static void
put_directories(Gather *g)
{
	if (g->neon)
	{
		put_neon_directories(g);
		return;
	}
	for (int i = 0; i < lengthof(directories); i++)
		put_directory(g, directories[i]);
	put_copy(g, "global/pg_filenode.map");
	each_database(g, "base", DEFAULTTABLESPACE_OID, put_database);
	each_tablespace(g, put_tablespace);
}

/* ---- transactions ---- */

static void
put_slru(Gather *g, int kind)
{
	char		name[MAXPGPATH];
	int			n;
	uint32	   *segments = nc_svc_slru_segments(kind, &n);

	for (int i = 0; i < n; i++)
	{
		uint32		blocks = nc_svc_slru_read_segment(kind, segments[i], g->segment);

		snprintf(name, sizeof(name), "%s/%04X", nc_svc_slru_directory(kind), segments[i]);
		if (blocks > 0)
			put_file(g, name, g->segment, (size_t) blocks * NC_PAGE_BYTES);
	}
	if (segments != NULL)
		pfree(segments);
}

/* Those that a restartpoint has written. */
static void
put_prepared_files(Gather *g)
{
	DIR		   *dir = AllocateDir(PREPARED);
	struct dirent *entry;
	char		path[MAXPGPATH];

	while ((entry = ReadDir(dir, PREPARED)) != NULL)
	{
		size_t		digits = strspn(entry->d_name, "0123456789ABCDEF");

		if ((digits != 8 && digits != 16) || entry->d_name[digits] != '\0')
			continue;
		snprintf(path, sizeof(path), PREPARED "/%s", entry->d_name);
		put_copy(g, path);
	}
	FreeDir(dir);
}

/* As RecreateTwoPhaseFile() writes it: the record's data, and their checksum. */
static void
put_prepared_record(Gather *g, const char *name, XLogReaderState *reader, XLogRecPtr at)
{
	char	   *why = NULL;
	uint32		bytes;
	pg_crc32c	crc;

	XLogBeginRead(reader, at);
	if (XLogReadRecord(reader, &why) == NULL || XLogRecGetRmid(reader) != RM_XACT_ID ||
		(XLogRecGetInfo(reader) & XLOG_XACT_OPMASK) != XLOG_XACT_PREPARE)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("could not read the record of a prepared transaction at %X/%X: %s", LSN_FORMAT_ARGS(at),
						why != NULL ? why : "it is another one")));
	bytes = XLogRecGetDataLen(reader);
	INIT_CRC32C(crc);
	COMP_CRC32C(crc, XLogRecGetData(reader), bytes);
	FIN_CRC32C(crc);
	put_header(g, name, false, bytes + sizeof(crc));
	put_spool(&g->tar, XLogRecGetData(reader), bytes);
	put_spool(&g->tar, &crc, sizeof(crc));
	put_padding(g, bytes + sizeof(crc));
}

/* Those whose record is all there is. */
static void
put_prepared_records(Gather *g)
{
	int			n;
	NcSvcPrepared *prepared = nc_svc_prepared_get(&n);
	XLogReaderState *reader;

	if (n == 0)
		return;
	reader = XLogReaderAllocate(wal_segment_size, NULL,
								XL_ROUTINE(.page_read = &read_local_xlog_page,
										   .segment_open = &wal_segment_open,
										   .segment_close = &wal_segment_close), NULL);
	if (reader == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	for (int i = 0; i < n; i++)
	{
		char		name[NC_SVC_TWO_PHASE_BYTES];
		struct stat st;

		nc_svc_two_phase_file(prepared[i].xid, name);
		if (stat(name, &st) != 0)
			put_prepared_record(g, name, reader, prepared[i].at);
	}
	XLogReaderFree(reader);
}

/* As CheckPointReplicationOrigin() writes them; the struct is its own. */
static void
put_origins(Gather *g)
{
	typedef struct Progress
	{
		RepOriginId id;
		XLogRecPtr	remote;
	} Progress;
	StringInfoData text;
	uint32		magic = ORIGINS_MAGIC;
	pg_crc32c	crc;

	initStringInfo(&text);
	appendBinaryStringInfo(&text, (char *) &magic, sizeof(magic));
	for (uint32 id = InvalidRepOriginId + 1; id < DoNotReplicateId; id++)
	{
		Progress	progress;

		memset(&progress, 0, sizeof(progress));
		progress.id = id;
		progress.remote = replorigin_get_progress(id, false);
		if (progress.remote != InvalidXLogRecPtr)
			appendBinaryStringInfo(&text, (char *) &progress, sizeof(progress));
	}
	INIT_CRC32C(crc);
	COMP_CRC32C(crc, text.data, text.len);
	FIN_CRC32C(crc);
	appendBinaryStringInfo(&text, (char *) &crc, sizeof(crc));
	if (text.len > sizeof(magic) + sizeof(crc))
		put_file(g, "pg_logical/replorigin_checkpoint", text.data, text.len);
	pfree(text.data);
}

/* ---- relations ---- */

/* A segment of a fork, as the directory tells. */
typedef struct Segment
{
	Oid			rel;
	int			fork;			/* -1 = none */
	uint32		number;
	BlockNumber blocks;
} Segment;

typedef struct Segments
{
	Segment    *at;
	int			n;
	int			room;
} Segments;

/* "1259", "1259_fsm.1"; false for any other name. */
static bool
parse_name(const char *name, Segment *segment)
{
	char		text[32];
	char	   *fork;
	char	   *number;

	if (name[0] < '1' || name[0] > '9' || strlcpy(text, name, sizeof(text)) >= sizeof(text))
		return false;
	number = strchr(text, '.');
	if (number != NULL)
		*number++ = '\0';
	fork = strchr(text, '_');
	if (fork != NULL)
		*fork++ = '\0';
	segment->rel = number_of(text);
	segment->number = number == NULL ? 0 : number_of(number);
	segment->fork = fork == NULL ? MAIN_FORKNUM : -1;
	for (int i = FSM_FORKNUM; fork != NULL && i <= MAX_FORKNUM; i++)
	{
		if (strcmp(fork, forkNames[i]) == 0)
			segment->fork = i;
	}
	return segment->rel != InvalidOid && segment->fork >= 0 && (number == NULL || segment->number > 0);
}

static int
compare_relation_segments(const void *a, const void *b)
{
	const Segment *x = a;
	const Segment *y = b;

	if (x->rel != y->rel)
		return x->rel < y->rel ? -1 : 1;
	if (x->fork != y->fork)
		return x->fork < y->fork ? -1 : 1;
	return x->number < y->number ? -1 : x->number > y->number;
}

static void
add_relation_segment(Segments *s, const Segment *segment)
{
	if (s->n == s->room)
	{
		s->room = Max(256, s->room * 2);
		s->at = s->at == NULL ? palloc(s->room * sizeof(Segment)) :
			repalloc_huge(s->at, (Size) s->room * sizeof(Segment));
	}
	s->at[s->n++] = *segment;
}

static Segments
read_relations(const char *path)
{
	DIR		   *dir = AllocateDir(path);
	struct dirent *entry;
	Segments	s = {0};
	struct stat st;

	while ((entry = ReadDir(dir, path)) != NULL)
	{
		Segment		segment;

		if (!parse_name(entry->d_name, &segment))
			continue;
		if (fstatat(dirfd(dir), entry->d_name, &st, 0) != 0)
			ereport(ERROR,
					(errcode_for_file_access(), errmsg("could not stat file \"%s/%s\": %m", path, entry->d_name)));
		segment.blocks = st.st_size / BLCKSZ;
		add_relation_segment(&s, &segment);
	}
	FreeDir(dir);
	if (s.n > 0)
		qsort(s.at, s.n, sizeof(Segment), compare_relation_segments);
	return s;
}

/* The length of a fork whose segments begin at i; the server ignores those behind one that is not full. */
static BlockNumber
length_of(const Segments *s, int i)
{
	BlockNumber blocks = 0;

	for (uint32 number = 0; i + number < s->n; number++)
	{
		const Segment *segment = &s->at[i + number];

		if (segment->rel != s->at[i].rel || segment->fork != s->at[i].fork || segment->number != number)
			break;
		blocks += segment->blocks;
		if (segment->blocks < RELSEG_SIZE)
			break;
	}
	return blocks;
}

/* A page of a map or an INIT fork, as it is in shared buffers. */
static void
put_page(Gather *g, const NcRelKey *rel, BlockNumber block)
{
	Buffer		buffer = ReadBufferWithoutRelcache(NC_SVC_REL_FILE(rel), rel->fork, block,
												   rel->fork == NC_FORK_INIT ? RBM_NORMAL : RBM_ZERO_ON_ERROR,
												   g->strategy, rel->fork != NC_FORK_INIT);
	PGAlignedBlock copy;

	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	memcpy(copy.data, BufferGetPage(buffer), BLCKSZ);
	UnlockReleaseBuffer(buffer);
	PageSetChecksumInplace((Page) copy.data, block);
	put_spool(&g->tar, copy.data, BLCKSZ);
}

/* An INIT fork may be put under the name of the main fork that begins as it. */
static void
put_fork(Gather *g, const char *path, const NcRelKey *rel, BlockNumber blocks, bool as_main)
{
	const char *suffix = as_main ? "" : psprintf("_%s", forkNames[rel->fork]);
	char		name[MAXPGPATH];

	for (BlockNumber from = 0; from < blocks; from += RELSEG_SIZE)
	{
		BlockNumber upto = Min(blocks, from + RELSEG_SIZE);
		uint64		bytes = (uint64) (upto - from) * BLCKSZ;

		if (from == 0)
			snprintf(name, sizeof(name), "%s/%u%s", path, rel->rel, suffix);
		else
			snprintf(name, sizeof(name), "%s/%u%s.%u", path, rel->rel, suffix, from / RELSEG_SIZE);
		put_header(g, name, false, bytes);
		for (BlockNumber block = from; block < upto; block++)
			put_page(g, rel, block);
		put_padding(g, bytes);
	}
	if (blocks == 0)
	{
		snprintf(name, sizeof(name), "%s/%u%s", path, rel->rel, suffix);
		put_file(g, name, "", 0);
	}
}

/* Everything of one relation, whose segments begin at i. */
static void
put_relation(Gather *g, const char *path, Oid spc, Oid db, const Segments *s, int i)
{
	Oid			rel = s->at[i].rel;
	int			first[MAX_FORKNUM + 1];
	NcRelKey	key = {.spc = spc, .db = db, .rel = rel};

	memset(first, -1, sizeof(first));
	for (; i < s->n && s->at[i].rel == rel; i++)
	{
		if (s->at[i].number == 0)
			first[s->at[i].fork] = i;
	}
	if (first[INIT_FORKNUM] >= 0)
	{
		/* unlogged: nothing else of it counts */
		key.fork = NC_FORK_INIT;
		put_fork(g, path, &key, length_of(s, first[INIT_FORKNUM]), false);
		if (g->neon)
			put_fork(g, path, &key, length_of(s, first[INIT_FORKNUM]), true);
		return;
	}
	if (g->neon)
		return;
	if (first[MAIN_FORKNUM] >= 0)
	{
		NcBootFork	fork = {spc, db, rel, length_of(s, first[MAIN_FORKNUM])};
		char		line[NC_BOOT_FORK_BYTES];

		put_spool(&g->forks, line, nc_boot_fork_write(&fork, line));
	}
	for (key.fork = NC_FORK_FSM; key.fork <= NC_FORK_VM; key.fork++)
	{
		if (first[key.fork] >= 0)
			put_fork(g, path, &key, length_of(s, first[key.fork]), false);
	}
}

static void
put_relations(Gather *g, const char *path, Oid spc, Oid db)
{
	Segments	s = read_relations(path);

	for (int i = 0; i < s.n; i++)
	{
		if (i == 0 || s.at[i].rel != s.at[i - 1].rel)
			put_relation(g, path, spc, db, &s, i);
	}
	if (s.at != NULL)
		pfree(s.at);
	/* it knows each relation whose pages were read */
	nc_svc_close_all();
}

static void
put_tablespace_relations(Gather *g, const char *path, Oid spc)
{
	char		inner[MAXPGPATH];

	snprintf(inner, sizeof(inner), "%s/%s", path, TABLESPACE_VERSION_DIRECTORY);
	each_database(g, inner, spc, put_relations);
}

/* ---- what comes after the cut ---- */

static void
put_forks(Gather *g)
{
	errno = 0;
	flush(&g->forks);
	put_open_file(g, NC_BOOT_FORKS, g->forks.fd, g->forks.written);
}

/* The WAL of a segment up to the cut, and the pages of the tail that are in it. */
static void
put_segment(Gather *g, XLogSegNo segment, const char *tail, int tail_pages)
{
	char		file[MAXFNAMELEN];
	char		name[MAXPGPATH];
	XLogRecPtr	tail_at = g->end.cut - g->end.cut % XLOG_BLCKSZ;
	XLogRecPtr	start;
	uint32		before;
	int			from = 0;
	int			pages = 0;

	XLogSegNoOffsetToRecPtr(segment, 0, wal_segment_size, start);
	before = tail_at <= start ? 0 : Min(tail_at - start, (XLogRecPtr) wal_segment_size);
	for (int i = 0; i < tail_pages; i++)
	{
		if (XLByteInSeg(tail_at + (XLogRecPtr) i * XLOG_BLCKSZ, segment, wal_segment_size) && pages++ == 0)
			from = i;
	}
	XLogFileName(file, g->end.timeline, segment, wal_segment_size);
	snprintf(name, sizeof(name), XLOGDIR "/%s", file);
	put_header(g, name, false, before + (uint64) pages * XLOG_BLCKSZ);
	if (before > 0)
		nc_svc_boot_wal_copy(g->end.timeline, segment, before, put_content, g);
	put_spool(&g->tar, tail + (size_t) from * XLOG_BLCKSZ, (size_t) pages * XLOG_BLCKSZ);
	put_padding(g, before + (uint64) pages * XLOG_BLCKSZ);
}

static void
put_histories(Gather *g)
{
	DIR		   *dir = AllocateDir(XLOGDIR);
	struct dirent *entry;
	char		path[MAXPGPATH];

	while ((entry = ReadDir(dir, XLOGDIR)) != NULL)
	{
		if (!IsTLHistoryFileName(entry->d_name))
			continue;
		snprintf(path, sizeof(path), XLOGDIR "/%s", entry->d_name);
		put_copy(g, path);
	}
	FreeDir(dir);
}

static void
put_wal(Gather *g, const NcSvcBootWish *wish)
{
	char	   *tail = palloc(NC_SVC_BOOT_TAIL_PAGES * XLOG_BLCKSZ);
	int			pages = nc_svc_boot_tail(&g->end, tail);
	XLogRecPtr	tail_at = g->end.cut - g->end.cut % XLOG_BLCKSZ;
	XLogRecPtr	from = g->end.last;
	XLogSegNo	segment;
	XLogSegNo	last;

	if (wish->wal_from != InvalidXLogRecPtr && wish->wal_from < from)
		from = wish->wal_from;
	XLByteToSeg(from, segment, wal_segment_size);
	XLByteToSeg(tail_at + (XLogRecPtr) (pages - 1) * XLOG_BLCKSZ, last, wal_segment_size);
	put_histories(g);
	for (; segment <= last; segment++)
		put_segment(g, segment, tail, pages);
	pfree(tail);
}

/* What the compute's file cache held, as a compute finds it that starts. */
static void
put_cache_list(Gather *g)
{
	int			fd = OpenTransientFile(NC_SVC_CACHE_LIST, O_RDONLY | PG_BINARY);
	struct stat st;

	if (fd < 0)
		return;
	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size <= NC_BOOT_CACHE_LIST_BYTES_MAX)
		put_open_file(g, NC_BOOT_CACHE_LIST, fd, st.st_size);
	CloseTransientFile(fd);
}

static void
put_control(Gather *g)
{
	char	   *file = palloc0(PG_CONTROL_FILE_SIZE);

	if (g->neon)
		nc_svc_boot_forget_checkpoint(&g->end);
	memcpy(file, g->end.control, sizeof(ControlFileData));
	if (!g->neon)
		put_copy(g, "PG_VERSION");
	put_file(g, XLOG_CONTROL_FILE, file, PG_CONTROL_FILE_SIZE);
	pfree(file);
}

/* ---- the end of an image in Neon's form ---- */

/* Where the last record begins: what the next one has to name. */
static void
put_neon_signals(Gather *g)
{
	char	   *text = psprintf("PREV LSN: %X/%X", LSN_FORMAT_ARGS(g->end.last));

	put_copy(g, "PG_VERSION");
	put_file(g, "neon.signal", text, strlen(text));
	put_file(g, "zenith.signal", text, strlen(text));
	pfree(text);
}

/* A page of the one segment; of a record nothing but that it ends where the next one begins. */
static void
put_neon_page(Gather *g, XLogRecPtr page)
{
	XLogRecPtr	next = g->end.checkpoint;
	size_t		header = nc_svc_boot_page_header_bytes(page);
	PGAlignedXLogBlock block;

	memset(block.data, 0, sizeof(block.data));
	if (next / XLOG_BLCKSZ == page / XLOG_BLCKSZ)
		nc_svc_boot_empty_page(&g->end, page, next % XLOG_BLCKSZ - header, block.data);
	else if (XLogSegmentOffset(page, wal_segment_size) == 0)
		nc_svc_boot_empty_page(&g->end, page, 0, block.data);
	put_spool(&g->tar, block.data, XLOG_BLCKSZ);
}

static void
put_neon_wal(Gather *g)
{
	char		file[MAXFNAMELEN];
	char		name[MAXPGPATH];
	XLogSegNo	segment;
	XLogRecPtr	start;

	XLByteToSeg(g->end.checkpoint, segment, wal_segment_size);
	XLogSegNoOffsetToRecPtr(segment, 0, wal_segment_size, start);
	XLogFileName(file, g->end.timeline, segment, wal_segment_size);
	snprintf(name, sizeof(name), XLOGDIR "/%s", file);
	put_header(g, name, false, wal_segment_size);
	for (XLogRecPtr page = start; page < start + wal_segment_size; page += XLOG_BLCKSZ)
		put_neon_page(g, page);
	put_padding(g, wal_segment_size);
}

static void
put_neon_end(Gather *g)
{
	put_neon_signals(g);
	put_control(g);
	put_neon_wal(g);
}

/* ---- all of it ---- */

static void
put_what_replay_changes(Gather *g)
{
	nc_svc_boot_end(&g->end);
	if (!g->neon)
		describe_image(g);
	put_directories(g);
	put_relations(g, "global", GLOBALTABLESPACE_OID, InvalidOid);
	each_database(g, "base", DEFAULTTABLESPACE_OID, put_relations);
	each_tablespace(g, put_tablespace_relations);
	/* last, far from what was looked at first: a test sees it if replay goes on meanwhile */
	for (int kind = 0; kind < NC_SVC_SLRU_KINDS; kind++)
	{
		if (!g->neon || kind != NC_SVC_SLRU_COMMIT_TS)
			put_slru(g, kind);
	}
	put_prepared_files(g);
	put_prepared_records(g);
	put_origins(g);
}

/* Replay is held from here to there. */
static void
gather_held(Gather *g)
{
	TimestampTz since;

	nc_svc_cut_begin();
	since = nc_svc_clock();
	/* for descriptors only: nobody closes the gate now */
	(void) nc_svc_gate_enter();
	put_what_replay_changes(g);
	nc_svc_gate_leave();
	pg_atomic_write_u64(&nc_svc_shared->boot_held_us, nc_svc_clock() - since);
	nc_svc_cut_end();
}

off_t
nc_svc_boot_gather(int fd, int forks_fd, const NcSvcBootWish *wish)
{
	static const char zeroes[NC_TAR_END_BYTES];
	Gather	   *g = palloc_extended(sizeof(Gather), MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);

	g->tar.fd = fd;
	g->forks.fd = forks_fd;
	g->neon = nc_svc_boot_form == NC_SVC_BOOT_NEON;
	g->strategy = GetAccessStrategy(BAS_BULKREAD);
	gather_held(g);
	if (g->neon)
		put_neon_end(g);
	else
	{
		put_forks(g);
		put_wal(g, wish);
		put_cache_list(g);
		put_control(g);
	}
	put_spool(&g->tar, zeroes, sizeof(zeroes));
	errno = 0;
	flush(&g->tar);
	pg_atomic_fetch_add_u64(&nc_svc_shared->boot_images, 1);
	ereport(LOG,
			(errmsg("page service: a boot image of %lld bytes was gathered at %X/%X", (long long) g->tar.written,
					LSN_FORMAT_ARGS(g->end.cut)),
			 errdetail("Replay was held for %llu us.",
					   (unsigned long long) pg_atomic_read_u64(&nc_svc_shared->boot_held_us))));
	return g->tar.written;
}
