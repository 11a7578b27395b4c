/*
 * disk.c
 *	  The identity files and takeover files on disk, and where a directory is.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "nc/base/file.h"
#include "nc/identity/files.h"

#include "text.h"

#define MACHINE_ID_FILE "/etc/machine-id"
#define MACHINE_ID_BYTES 40

/* Room that a spare file has beyond its text: a text grows by a line or two. */
#define SPARE_BYTES 4096

/* ---- small files ---- */

static bool
read_identity_file(int fd, char *to, size_t room, size_t *bytes)
{
	*bytes = 0;
	for (;;)
	{
		ssize_t		got = read(fd, to + *bytes, room - *bytes);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return got == 0;
		*bytes += (size_t) got;
		if (*bytes == room)
		{
			errno = EFBIG;
			return false;
		}
	}
}

static bool
write_all(int fd, const char *from, size_t bytes)
{
	while (bytes > 0)
	{
		ssize_t		put = write(fd, from, bytes);

		if (put < 0 && errno == EINTR)
			continue;
		if (put <= 0)
		{
			if (put == 0)
				errno = ENOSPC;
			return false;
		}
		from += put;
		bytes -= (size_t) put;
	}
	return true;
}

static bool
sync_directory(const char *directory)
{
	int			fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	bool		ok = fd >= 0 && fsync(fd) == 0;
	int			saved = errno;

	if (fd >= 0)
		close(fd);
	errno = saved;
	return ok;
}

static bool
path_of(const char *directory, const char *name, const char *suffix, char path[PATH_MAX])
{
	int			n = snprintf(path, PATH_MAX, "%s/%s%s", directory, name, suffix);

	if (n > 0 && n < PATH_MAX)
		return true;
	errno = ENAMETOOLONG;
	return false;
}

static NcFileResult
load_identity_file(const char *directory, const char *name, char *to, size_t room, size_t *bytes)
{
	char		path[PATH_MAX];
	int			fd;
	bool		ok;
	int			saved;

	if (!path_of(directory, name, "", path))
		return NC_FILE_ERROR;
	fd = nc_file_open(path, O_RDONLY, 0);
	if (fd < 0)
		return errno == ENOENT ? NC_FILE_ABSENT : NC_FILE_ERROR;
	ok = read_identity_file(fd, to, room, bytes);
	saved = errno;
	close(fd);
	errno = saved;
	return ok ? NC_FILE_OK : NC_FILE_ERROR;
}

/* Our name: what is no file there is in the way. */
static int
open_spare(const char *path)
{
	int			fd = nc_file_open(path, O_WRONLY | O_CREAT, 0600);

	if (fd < 0 && errno == NC_NOT_A_FILE && unlink(path) == 0)
		fd = nc_file_open(path, O_WRONLY | O_CREAT, 0600);
	return fd;
}

/*
 * Writes over what is there and cuts off the rest: the blocks that the file has are used
 * again.  And some that the next text may need are asked for, while there may be room.
 */
static bool
write_spare(const char *path, const char *from, size_t bytes)
{
	int			fd = open_spare(path);
	struct stat st;
	bool		ok;
	int			saved;

	if (fd < 0)
		return false;
	ok = write_all(fd, from, bytes) && fstat(fd, &st) == 0 &&
		(st.st_size <= (off_t) bytes || ftruncate(fd, (off_t) bytes) == 0);
	if (ok)
		(void) fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, (off_t) bytes + SPARE_BYTES);
	ok = ok && fsync(fd) == 0;
	saved = errno;
	if (close(fd) != 0 && ok)
		return false;
	errno = saved;
	return ok;
}

/*
 * The new text takes the name, and the old one becomes the spare file that the next
 * text is written to.  So a full disk, on which a server has to come up again after a
 * crash, is no hindrance.  The first time, and on file systems that cannot do it, there
 * is no spare file.
 */
static bool
take_name(const char *spare, const char *path)
{
	return renameat2(AT_FDCWD, spare, AT_FDCWD, path, RENAME_EXCHANGE) == 0 ||
		rename(spare, path) == 0;
}

/*
 * The directory first: whoever exchanged the names last may have been killed before that was durable,
 * and on disk the spare file has the name then.
 */
static bool
save_identity_file(const char *directory, const char *name, const char *from, size_t bytes)
{
	char		path[PATH_MAX];
	char		spare[PATH_MAX];

	return path_of(directory, name, "", path) && path_of(directory, name, ".new", spare) &&
		sync_directory(directory) && write_spare(spare, from, bytes) &&
		take_name(spare, path) && sync_directory(directory);
}

/* ---- identity files ---- */

typedef const char *(*Parse) (const char *text, size_t bytes, void *out);
typedef size_t (*Write) (const void *identity, char *to, size_t room);

static const char *
parse_compute(const char *text, size_t bytes, void *out)
{
	return nc_compute_identity_parse(text, bytes, out);
}

static const char *
parse_member(const char *text, size_t bytes, void *out)
{
	return nc_member_identity_parse(text, bytes, out);
}

static const char *
parse_unjudged(const char *text, size_t bytes, void *out)
{
	return nc_unjudged_parse(text, bytes, out);
}

static const char *
parse_promise(const char *text, size_t bytes, void *out)
{
	return nc_promise_parse(text, bytes, out);
}

static size_t
write_promise(const void *promise, char *to, size_t room)
{
	return nc_promise_write(promise, to, room);
}

static size_t
write_compute(const void *identity, char *to, size_t room)
{
	return nc_compute_identity_write(identity, to, room);
}

static size_t
write_member(const void *identity, char *to, size_t room)
{
	return nc_member_identity_write(identity, to, room);
}

static NcFileResult
load_identity(const char *directory, const char *name, Parse parse, void *out, const char **why)
{
	char	   *text = malloc(NC_IDENTITY_FILE_BYTES_MAX);
	size_t		bytes;
	NcFileResult result = NC_FILE_ERROR;
	int			saved;

	*why = NULL;
	if (text == NULL)
		return NC_FILE_ERROR;
	result = load_identity_file(directory, name, text, NC_IDENTITY_FILE_BYTES_MAX, &bytes);
	if (result == NC_FILE_OK)
		*why = parse(text, bytes, out);
	else if (result == NC_FILE_ERROR && errno == NC_NOT_A_FILE)
		*why = nc_file_error(errno);
	saved = errno;
	free(text);
	errno = saved;
	return *why != NULL ? NC_FILE_INVALID : result;
}

static bool
save_identity(const char *directory, const char *name, Write write, const void *identity)
{
	char	   *text = malloc(NC_IDENTITY_FILE_BYTES_MAX);
	size_t		bytes;
	bool		ok;
	int			saved;

	if (text == NULL)
		return false;
	bytes = write(identity, text, NC_IDENTITY_FILE_BYTES_MAX);
	if (bytes == 0)
		errno = EFBIG;
	ok = bytes > 0 && save_identity_file(directory, name, text, bytes);
	saved = errno;
	free(text);
	errno = saved;
	return ok;
}

NcFileResult
nc_compute_identity_load(const char *directory, NcComputeIdentity *out, const char **why)
{
	return load_identity(directory, NC_COMPUTE_IDENTITY, parse_compute, out, why);
}

NcFileResult
nc_member_identity_load(const char *directory, NcMemberIdentity *out, const char **why)
{
	return load_identity(directory, NC_MEMBER_IDENTITY, parse_member, out, why);
}

bool
nc_compute_identity_save(const char *directory, const NcComputeIdentity *identity)
{
	return save_identity(directory, NC_COMPUTE_IDENTITY, write_compute, identity);
}

bool
nc_member_identity_save(const char *directory, const NcMemberIdentity *identity)
{
	return save_identity(directory, NC_MEMBER_IDENTITY, write_member, identity);
}

NcFileResult
nc_promise_load(const char *directory, const char *name, NcPromise *out, const char **why)
{
	return load_identity(directory, name, parse_promise, out, why);
}

bool
nc_promise_save(const char *directory, const char *name, const NcPromise *promise)
{
	return save_identity(directory, name, write_promise, promise);
}

NcFileResult
nc_unjudged_load(const char *directory, NcUnjudgedWal *out, const char **why)
{
	return load_identity(directory, NC_MEMBER_UNJUDGED, parse_unjudged, out, why);
}

bool
nc_unjudged_save(const char *directory, const NcUnjudgedWal *wal)
{
	char		text[NC_UNJUDGED_BYTES_MAX];

	return save_identity_file(directory, NC_MEMBER_UNJUDGED, text, nc_unjudged_write(wal, text));
}

/* ---- place ---- */

/* One word; "-" where the machine has no id. */
static void
machine_id(char to[MACHINE_ID_BYTES])
{
	char		text[MACHINE_ID_BYTES];
	size_t		bytes = 0;
	int			fd = nc_file_open(MACHINE_ID_FILE, O_RDONLY, 0);

	if (fd >= 0)
	{
		if (!read_identity_file(fd, text, sizeof(text) - 1, &bytes))
			bytes = 0;
		close(fd);
	}
	text[bytes] = '\0';
	text[strcspn(text, " \n")] = '\0';
	nc_one_line(text[0] != '\0' ? text : "-", to, MACHINE_ID_BYTES);
}

static bool
file_system_id(const char *directory, char *to, size_t room)
{
	struct statvfs fs;

	if (statvfs(directory, &fs) != 0)
		return false;
	snprintf(to, room, "f%lx", fs.f_fsid);
	return true;
}

bool
nc_place_of(const char *directory, char place[NC_PLACE_BYTES])
{
	char		machine[MACHINE_ID_BYTES];
	char		made[40];
	struct statx st;

	if (statx(AT_FDCWD, directory, 0, STATX_INO | STATX_BTIME, &st) != 0)
		return false;
	if ((st.stx_mask & STATX_BTIME) != 0)
		snprintf(made, sizeof(made), "b%lld.%09u", (long long) st.stx_btime.tv_sec,
				 st.stx_btime.tv_nsec);
	else if (!file_system_id(directory, made, sizeof(made)))
		return false;
	machine_id(machine);
	snprintf(place, NC_PLACE_BYTES, "%s/%llu/%s", machine, (unsigned long long) st.stx_ino, made);
	return true;
}

/* ---- takeover ---- */

char *
nc_takeover_word(const char *kept, const char *place, char word[NC_TAKEOVER_WORD])
{
	uint32_t	hash = 2166136261u;

	for (const char *p = kept; *p != '\0'; p++)
		hash = (hash ^ (uint8_t) *p) * 16777619u;
	hash = (hash ^ ' ') * 16777619u;
	for (const char *p = place; *p != '\0'; p++)
		hash = (hash ^ (uint8_t) *p) * 16777619u;
	snprintf(word, NC_TAKEOVER_WORD, "%08x", hash);
	return word;
}

bool
nc_takeover_granted(const char *directory, const char *name, const char *word)
{
	char		text[64];
	size_t		bytes;

	if (load_identity_file(directory, name, text, sizeof(text) - 1, &bytes) != NC_FILE_OK)
		return false;
	text[bytes] = '\0';
	text[strcspn(text, " \r\n")] = '\0';
	return strcmp(text, word) == 0;
}

bool
nc_takeover_done(const char *directory, const char *name)
{
	char		path[PATH_MAX];

	return path_of(directory, name, "", path) && (unlink(path) == 0 || errno == ENOENT) &&
		sync_directory(directory);
}
