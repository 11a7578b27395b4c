/*
 * owner.c
 *	  Whose file stands at neon_comm.lfc_path: the first block of the cache's file
 *	  says which cluster it belongs to.
 *
 * Runs in the process that writes the file, and for the list in any.  What is not
 * ours is neither written nor cut nor replaced: the path may be a mistake.
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "access/xlog.h"

#include "nc/base/file.h"
#include "nc/cache/lfc_list.h"
#include "nc/filecache/filecache.h"
#include "nc/shared/settings.h"

#include "filecache_int.h"

#define FIRST_LINE "neon_comm file cache 1\n"

/* The first block of our file. */
static void
make_head(char *block)
{
	memset(block, 0, BLCKSZ);
	snprintf(block, BLCKSZ, FIRST_LINE "system_identifier=" UINT64_FORMAT "\ntenant_id=%s\ntimeline_id=%s\n",
			 GetSystemIdentifier(), nc_guc_tenant_id, nc_guc_timeline_id);
}

/* NULL: ours, or empty, which is nobody's. Else the reason. */
static const char *
stranger(int fd)
{
	PGAlignedBlock ours;
	PGAlignedBlock there;
	struct stat st;
	ssize_t		got;

	if (fstat(fd, &st) != 0)
		return "cannot be looked at";
	if (!S_ISREG(st.st_mode))
		return "is not a regular file";
	got = pg_pread(fd, there.data, BLCKSZ, 0);
	if (got < 0)
		return "cannot be read";
	make_head(ours.data);
	if (memcmp(there.data, ours.data, got) == 0)
		return NULL;
	if (got >= (ssize_t) strlen(FIRST_LINE) &&
		memcmp(there.data, FIRST_LINE, strlen(FIRST_LINE)) == 0)
		return "is the file cache of another server";
	return "is not a file of the local file cache";
}

bool
nc_filecache_is_ours(int fd)
{
	return stranger(fd) == NULL;
}

int
nc_filecache_open_ours(const char **why)
{
	const char *path = nc_filecache_path();
	int			fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	*why = NULL;
	/* never wait: the path may name a fifo */
	if (fd < 0 && errno == EEXIST)
		fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return -1;
	/* the lock first: whoever makes a file says next whose it is */
	if (flock(fd, LOCK_EX | LOCK_NB) != 0)
		*why = "is in use by another server";
	else
		*why = stranger(fd);
	if (*why == NULL)
		return fd;
	close(fd);
	return -1;
}

bool
nc_filecache_cut_to_head(int fd)
{
	PGAlignedBlock head;

	make_head(head.data);
	return ftruncate(fd, 0) == 0 && pg_pwrite(fd, head.data, BLCKSZ, 0) == BLCKSZ;
}

bool
nc_filecache_list_is_ours(const char **why)
{
	FILE	   *file = nc_file_fopen(nc_filecache_list_path(), "rb");
	uint8		bytes[NC_LFC_LIST_HEAD_BYTES];
	NcLfcListHead head;
	bool		read;

	*why = NULL;
	if (file == NULL)
	{
		if (errno != ENOENT)
			*why = errno == NC_NOT_A_FILE ? "is not a regular file" : "cannot be read";
		return *why == NULL;
	}
	read = fread(bytes, 1, sizeof(bytes), file) == sizeof(bytes);
	fclose(file);
	if (!read || !nc_lfc_list_decode_head(bytes, &head))
		*why = "is not a list of cached pages";
	else if (head.system_id != GetSystemIdentifier() ||
			 strcmp(head.tenant_id, nc_guc_tenant_id) != 0 ||
			 strcmp(head.timeline_id, nc_guc_timeline_id) != 0)
		*why = "is the list of another server";
	return *why == NULL;
}
