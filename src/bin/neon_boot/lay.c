/*
 * lay.c
 *	  See lay.h.
 *
 * Names have been judged by the reader of the tar: they are relative and lead
 * nowhere else.  All files are made new, so an entry that comes twice is an error.
 */
#include "lay.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "nc/identity/files.h"
#include "neon_form.h"

#define SUFFIX ".neon_boot"

/* What makes the partial directory ours to remove. */
#define NOTE "neon_boot.partial"

#define SEGMENT_BLOCKS 131072	/* of a relation, 1 GB */

/* With its first line neon_comm takes the file away at a start (src/smgr/stock_trap.c). */
static const char trap[] =
"# neon_comm: do not remove this file.\n"
"#\n"
"# The tables of this cluster are on page servers. PostgreSQL does not start while this file is here;\n"
"# neon_comm takes it away at each start and puts it back when recovery is over.\n";

bool
lay_complain(Lay *lay, const char *fmt,...)
{
	va_list		args;

	va_start(args, fmt);
	vsnprintf(lay->why, sizeof(lay->why), fmt, args);
	va_end(args);
	return false;
}

/* ---- files ---- */

static bool
write_all(Lay *lay, int fd, const void *data, size_t bytes)
{
	const char *from = data;

	while (bytes > 0)
	{
		ssize_t		n = write(fd, from, bytes);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return lay_complain(lay, "could not write %s/%s: %s", lay->partial, lay->entry.name,
							strerror(n == 0 ? ENOSPC : errno));
		from += n;
		bytes -= (size_t) n;
	}
	return true;
}

static int
make_file(Lay *lay, const char *name)
{
	int			fd = openat(lay->dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);

	if (fd < 0)
		(void) lay_complain(lay, "could not make %s/%s: %s", lay->partial, name, strerror(errno));
	return fd;
}

static bool
close_file(Lay *lay, int *fd)
{
	int			closing = *fd;

	*fd = -1;
	if (closing < 0 || close(closing) == 0)
		return true;
	return lay_complain(lay, "could not write %s/%s: %s", lay->partial, lay->entry.name, strerror(errno));
}

static bool
write_file(Lay *lay, const char *name, const char *text)
{
	int			fd = make_file(lay, name);

	if (fd < 0)
		return false;
	if (!write_all(lay, fd, text, strlen(text)))
	{
		close(fd);
		return false;
	}
	return close_file(lay, &fd);
}

static int
remove_one(const char *path, const struct stat *st, int kind, struct FTW *walk)
{
	return remove(path);
}

static void
remove_tree(const char *path)
{
	(void) nftw(path, remove_one, 32, FTW_DEPTH | FTW_PHYS);
}

/* ---- the beginning ---- */

/* Is there nothing, or an empty directory? That one is replaced at the end. */
static bool
target_is_free(Lay *lay)
{
	DIR		   *dir = opendir(lay->target);
	struct dirent *entry;
	bool		empty = true;

	if (dir == NULL && errno == ENOENT)
		return true;
	if (dir == NULL)
		return lay_complain(lay, "%s is in the way: %s", lay->target, strerror(errno));
	while ((entry = readdir(dir)) != NULL)
		empty = empty && (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0);
	closedir(dir);
	return empty || lay_complain(lay, "%s is not empty: a compute is laid into a directory of its own", lay->target);
}

/* Does another call work there?  Whoever works there holds the lock. */
static bool
is_at_work(const char *partial)
{
	int			fd = open(partial, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	bool		busy = fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) != 0;

	if (fd >= 0)
		close(fd);
	return busy;
}

/* One that an earlier call was killed in; of somebody else's directory nothing is removed. */
static bool
remove_leftover(Lay *lay)
{
	char		note[PATH_MAX + 32];
	struct stat st;

	if (lstat(lay->partial, &st) != 0 && errno == ENOENT)
		return true;
	if (is_at_work(lay->partial))
		return lay_complain(lay, "%s is in the way: another neon_boot is at work there", lay->partial);
	snprintf(note, sizeof(note), "%s/" NOTE, lay->partial);
	if (lstat(note, &st) == 0)
		remove_tree(lay->partial);
	else
		(void) rmdir(lay->partial);
	if (lstat(lay->partial, &st) != 0 && errno == ENOENT)
		return true;
	return lay_complain(lay, "%s is in the way: it was not left by neon_boot, or cannot be removed", lay->partial);
}

bool
lay_begin(Lay *lay, const char *pgdata)
{
	size_t		length = strlen(pgdata);
	lay->dir = lay->fd = lay->also = -1;
	while (length > 1 && pgdata[length - 1] == '/')
		length--;
	if (length + strlen(SUFFIX) >= PATH_MAX || length == 0)
		return lay_complain(lay, "the name of the data directory is too long");
	memcpy(lay->target, pgdata, length);
	if (!target_is_free(lay))
		return false;
	snprintf(lay->partial, sizeof(lay->partial), "%.*s" SUFFIX, (int) length, pgdata);
	if (!remove_leftover(lay) || mkdir(lay->partial, 0700) != 0)
	{
		if (lay->why[0] == '\0')
			(void) lay_complain(lay, "could not make %s: %s", lay->partial, strerror(errno));
		lay->partial[0] = '\0';
		return false;
	}
	lay->dir = open(lay->partial, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (lay->dir < 0 || flock(lay->dir, LOCK_EX | LOCK_NB) != 0)
		return lay_complain(lay, "could not open %s: %s", lay->partial, strerror(errno));
	/* before anything that a server could take for its own */
	return write_file(lay, NOTE, "neon_boot makes this directory, and removes what is left of it.\n") &&
		write_file(lay, "recovery.conf", trap);
}

/* ---- entries ---- */

static bool
is_wal(const char *name)
{
	static const char dir[] = "pg_wal/";
	const char *file = name + strlen(dir);

	return strncmp(name, dir, strlen(dir)) == 0 && strlen(file) == 24 &&
		strspn(file, "0123456789ABCDEF") == 24;
}

/* The main fork of an unlogged relation begins as its INIT fork; "" for other files. */
static void
name_of_main(const char *name, char to[NC_TAR_NAME_BYTES])
{
	const char *fork = strstr(name, "_init");

	to[0] = '\0';
	if (fork != NULL && (fork[5] == '\0' || fork[5] == '.'))
		snprintf(to, NC_TAR_NAME_BYTES, "%.*s%s", (int) (fork - name), name, fork + 5);
}

static bool
lay_fork(void *arg, const NcBootFork *fork)
{
	Lay		   *lay = arg;
	char		path[NC_BOOT_PATH_BYTES];
	uint32_t	left = fork->blocks;

	for (uint32_t segment = 0; segment == 0 || left > 0; segment++)
	{
		uint32_t	blocks = left < SEGMENT_BLOCKS ? left : SEGMENT_BLOCKS;
		int			fd;

		(void) nc_boot_fork_path(fork, lay->description.tablespace_directory, segment, path);
		fd = make_file(lay, path);
		if (fd < 0)
			return false;
		if (ftruncate(fd, (off_t) blocks * NC_PAGE_BYTES) != 0)
			(void) lay_complain(lay, "could not extend %s/%s: %s", lay->partial, path, strerror(errno));
		(void) close_file(lay, &fd);
		if (lay->why[0] != '\0')
			return false;
		left -= blocks;
	}
	lay->relations++;
	return true;
}

static bool
begin_text(Lay *lay)
{
	if (lay->described || lay->has_signal || lay->entry.bytes >= NC_BOOT_DESCRIPTION_BYTES_MAX)
		return lay_complain(lay, "the image describes itself twice, or too long");
	lay->text_bytes = 0;
	lay->text = calloc(1, NC_BOOT_DESCRIPTION_BYTES_MAX);
	return lay->text != NULL || lay_complain(lay, "out of memory");
}

static bool
begin_file(Lay *lay)
{
	char		main_fork[NC_TAR_NAME_BYTES] = "";

	/* in Neon's form it comes by itself */
	if (!lay->neon)
		name_of_main(lay->entry.name, main_fork);
	lay->fd = make_file(lay, lay->entry.name);
	if (lay->fd >= 0 && main_fork[0] != '\0')
		lay->also = make_file(lay, main_fork);
	return lay->fd >= 0 && (main_fork[0] == '\0' || lay->also >= 0);
}

/* In Neon's form directories come twice, and without those that they are in. */
static bool
make_directory(Lay *lay, const char *name)
{
	char		above[NC_TAR_NAME_BYTES];

	for (const char *slash = strchr(name, '/'); lay->neon && slash != NULL; slash = strchr(slash + 1, '/'))
	{
		snprintf(above, sizeof(above), "%.*s", (int) (slash - name), name);
		(void) mkdirat(lay->dir, above, 0700);
	}
	if (mkdirat(lay->dir, name, 0700) == 0 || (lay->neon && errno == EEXIST))
		return true;
	return lay_complain(lay, "could not make %s/%s: %s", lay->partial, name, strerror(errno));
}

/* Configuration is not taken over, and of two signal files one is enough. */
static bool
is_of_no_use(const char *name)
{
	static const char *const names[] = {
		"postgresql.conf", "postgresql.auto.conf", "pg_hba.conf", "pg_ident.conf", "zenith.signal", "restart.lsn"
	};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (strcmp(name, names[i]) == 0)
			return true;
	return false;
}

static bool
begin_neon_file(Lay *lay)
{
	lay->skipped = is_of_no_use(lay->entry.name);
	if (lay->skipped)
		return true;
	return strcmp(lay->entry.name, "neon.signal") == 0 ? begin_text(lay) : begin_file(lay);
}

static bool
lay_entry(void *arg, const NcTarEntry *entry)
{
	Lay		   *lay = arg;

	lay->entry = *entry;
	if (strcmp(entry->name, NC_BOOT_DESCRIPTION) == 0 && !entry->directory && !lay->neon)
		return begin_text(lay);
	if (!lay->described)
		lay->neon = true;
	if (entry->directory)
		return make_directory(lay, entry->name);
	if (lay->neon)
		return begin_neon_file(lay);
	if (strcmp(entry->name, NC_BOOT_FORKS) == 0)
		return true;
	return begin_file(lay);
}

static bool
lay_content(void *arg, const uint8_t *data, size_t bytes)
{
	Lay		   *lay = arg;

	lay->bytes += bytes;
	if (lay->skipped)
		return true;
	if (lay->text != NULL)
	{
		memcpy(lay->text + lay->text_bytes, data, bytes);
		lay->text_bytes += bytes;
		return true;
	}
	if (lay->fd >= 0)
		return write_all(lay, lay->fd, data, bytes) && (lay->also < 0 || write_all(lay, lay->also, data, bytes));
	return nc_boot_fork_read(&lay->forks, (const char *) data, bytes, lay_fork, lay) ||
		(lay->why[0] != '\0' ? false : lay_complain(lay, "the list of forks is not understood"));
}

static bool
end_description(Lay *lay)
{
	const char *wrong = nc_boot_description_parse(lay->text, lay->text_bytes, &lay->description);

	free(lay->text);
	lay->text = NULL;
	if (wrong != NULL)
		return lay_complain(lay, "the image cannot be used: %s", wrong);
	if (lay->description.lineage.n == 0)
		return lay_complain(lay, "the image cannot be used: its page server has followed no compute");
	lay->described = true;
	return true;
}

static bool
end_signal(Lay *lay)
{
	lay->has_signal = neon_signal_parse(lay->text, &lay->prev);
	free(lay->text);
	lay->text = NULL;
	return lay->has_signal || lay_complain(lay, "the image cannot be used: its %s is not understood", lay->entry.name);
}

static bool
end_file(Lay *lay)
{
	/* behind the last record a segment is empty */
	if (!lay->neon && is_wal(lay->entry.name) && ftruncate(lay->fd, lay->description.segment_bytes) != 0)
		return lay_complain(lay, "could not extend %s/%s: %s", lay->partial, lay->entry.name, strerror(errno));
	if (!close_file(lay, &lay->fd) || !close_file(lay, &lay->also))
		return false;
	if (strcmp(lay->entry.name, "PG_VERSION") == 0)
		lay->has_version = true;
	else if (strcmp(lay->entry.name, "global/pg_control") == 0)
		lay->has_control = true;
	return true;
}

static bool
lay_end(void *arg)
{
	Lay		   *lay = arg;

	if (lay->entry.directory)
		return true;
	if (lay->skipped)
	{
		lay->skipped = false;
		return true;
	}
	if (lay->text != NULL)
		return lay->neon ? end_signal(lay) : end_description(lay);
	if (lay->fd >= 0)
		return end_file(lay);
	if (!nc_boot_fork_read_done(&lay->forks))
		return lay_complain(lay, "the list of forks ends in the middle");
	lay->has_forks = true;
	return true;
}

NcTarSink
lay_sink(Lay *lay)
{
	return (NcTarSink) {lay, lay_entry, lay_content, lay_end};
}

/* ---- the end ---- */

/* Of a lineage that an image in Neon's form does not have there is none. */
static NcId
last_life(const NcLineage *lineage)
{
	return lineage->n > 0 ? lineage->at[lineage->n - 1].id : (NcId) {0};
}

/*
 * The same compute, in a life that began at the cut.  Whatever earlier ones wrote behind it is of another
 * history now, also where one of them is known to have begun there.
 */
static bool
lay_identity(Lay *lay)
{
	static NcComputeIdentity identity;
	NcId		life;

	identity.birth = lay->description.birth;
	identity.lineage = lay->description.lineage;
	for (uint32_t i = 0; i < identity.lineage.n; i++)
	{
		if (identity.lineage.at[i].began > lay->description.cut)
			identity.lineage.at[i].began = lay->description.cut;
	}
	/* they wrote nothing that counts; page servers may have followed them all the same */
	for (int i = 0; i < lay->nunbegun; i++)
	{
		if (nc_lineage_find(&identity.lineage, &lay->unbegun[i]) < 0)
			nc_lineage_append(&identity.lineage, &lay->unbegun[i], 0);
	}
	identity.booted = last_life(&identity.lineage);
	if (!nc_id_is_none(&lay->life))
		life = lay->life;
	else if (!nc_id_make(&life))
		return lay_complain(lay, "the system has no random bytes");
	nc_lineage_append(&identity.lineage, &life, lay->description.cut);
	if (!nc_place_of(lay->partial, identity.place) || !nc_compute_identity_save(lay->partial, &identity))
		return lay_complain(lay, "could not write %s/%s: %s", lay->partial, NC_COMPUTE_IDENTITY, strerror(errno));
	return true;
}

/* Tells neon_comm where contents and lengths are; which blocks were never logged it does not say. */
static bool
lay_marker(Lay *lay)
{
	char		text[256];

	snprintf(text, sizeof(text), "neon_comm skeleton 1\nsystem_identifier=%" PRIu64 "\ndata_checksums=%s\n%s",
			 lay->description.system_identifier, lay->description.checksums ? "on" : "off",
			 lay->neon ? "lengths=asked\n" : "");
	return write_file(lay, "neon_comm.skeleton", text);
}

/* Everything is on disk before the directory has its name, and the name before we say so. */
static bool
give_name(Lay *lay)
{
	char		parent[PATH_MAX];
	char	   *slash;
	int			fd;
	bool		ok;

	strcpy(parent, lay->target);
	slash = strrchr(parent, '/');
	if (slash == NULL)
		strcpy(parent, ".");
	else
		slash[slash == parent ? 1 : 0] = '\0';
	if (unlinkat(lay->dir, NOTE, 0) != 0 || syncfs(lay->dir) != 0)
		return lay_complain(lay, "could not make %s durable: %s", lay->partial, strerror(errno));
	if (rename(lay->partial, lay->target) != 0)
		return lay_complain(lay, "could not rename %s to %s: %s", lay->partial, lay->target, strerror(errno));
	lay->partial[0] = '\0';
	fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	ok = fd >= 0 && fsync(fd) == 0;
	if (!ok)
		(void) lay_complain(lay, "could not make the name %s durable: %s", lay->target, strerror(errno));
	if (fd >= 0)
		close(fd);
	return ok;
}

bool
lay_finish(Lay *lay)
{
	if (!(lay->neon ? lay->has_signal : lay->described && lay->has_forks) || !lay->has_version || !lay->has_control)
		return lay_complain(lay, "the image lacks something that a compute needs");
	if (lay->neon && (!lay_neon_describe(lay) || !lay_neon_checkpoint(lay)))
		return false;
	return write_file(lay, "postgresql.conf", "") && write_file(lay, "pg_hba.conf", "") &&
		write_file(lay, "pg_ident.conf", "") && lay_identity(lay) && lay_marker(lay) && give_name(lay);
}

void
lay_abandon(Lay *lay)
{
	free(lay->text);
	lay->text = NULL;
	(void) close_file(lay, &lay->fd);
	(void) close_file(lay, &lay->also);
	if (lay->dir >= 0)
		close(lay->dir);
	lay->dir = -1;
	if (lay->partial[0] != '\0')
		remove_tree(lay->partial);
}
