/*
 * slru_source.c
 *	  Reads a whole segment of pg_xact, pg_multixact or pg_commit_ts in its newest state.
 *
 * Runs in page service workers.  The newest state of an SLRU page is in the SLRU's
 * own buffers in shared memory if it is there at all, otherwise in the file; the
 * files alone lag behind replay until the next restartpoint.  So each page is
 * looked up in the buffers under its lock (the SLRU's, or its bank's) and read from the
 * file under the same lock if it is not there: a page moves between the two only with
 * that lock held exclusively, and redo changes a page in the buffers only that way too.
 *
 * A reader therefore sees at least everything replayed before it came.  It never
 * loads a page into the SLRU and never writes one.
 */
#include "page_service.h"

#include <fcntl.h>
#include <unistd.h>

#include "storage/fd.h"

#include "compat.h"

static SlruCtlData slru[NC_SVC_SLRU_KINDS];

static SlruCtl
slru_of_kind(int kind)
{
	SlruCtl		ctl = &slru[kind];

	if (ctl->shared == NULL)
		nc_svc_slru_attach(ctl, kind);
	return ctl;
}

/* A slot whose page is being read holds nothing yet, the file does. */
static bool
slot_holds_page(SlruShared shared, int slot)
{
	return shared->page_status[slot] == SLRU_PAGE_VALID ||
		shared->page_status[slot] == SLRU_PAGE_WRITE_IN_PROGRESS;
}

static bool
read_from_buffers(SlruShared shared, int pageno, uint8_t *page)
{
	for (int slot = 0; slot < shared->num_slots; slot++)
	{
		if (slot_holds_page(shared, slot) && shared->page_number[slot] == pageno)
		{
			memcpy(page, shared->page_buffer[slot], NC_PAGE_BYTES);
			return true;
		}
	}
	return false;
}

/* A page the file does not have yet, or only a part of, is zeroes from there on. */
static bool
read_from_file(int fd, int index, uint8_t *page)
{
	ssize_t		got = 0;

	memset(page, 0, NC_PAGE_BYTES);
	if (fd >= 0)
		got = pg_pread(fd, page, NC_PAGE_BYTES, (off_t) index * NC_PAGE_BYTES);
	if (got < 0)
		ereport(ERROR, (errcode_for_file_access(), errmsg("could not read SLRU segment: %m")));
	return got > 0;
}

static int
open_slru_segment(SlruCtl ctl, uint32 segno)
{
	char		path[MAXPGPATH];
	int			fd;

	snprintf(path, sizeof(path), "%s/%04X", ctl->Dir, segno);
	fd = OpenTransientFile(path, O_RDONLY | PG_BINARY);
	if (fd < 0 && errno != ENOENT)
		ereport(ERROR, (errcode_for_file_access(), errmsg("could not open file \"%s\": %m", path)));
	return fd;
}

uint32
nc_svc_slru_read_segment(int kind, uint32 segno, uint8_t *pages)
{
	SlruCtl		ctl = slru_of_kind(kind);
	uint32		nblocks = 0;
	int			fd = -1;

	/* Page numbers are ints in the server; a segment beyond them cannot exist. */
	if (segno >= PG_INT32_MAX / NC_SLRU_SEGMENT_BLOCKS)
		return 0;
	for (int i = 0; i < NC_SLRU_SEGMENT_BLOCKS; i++)
	{
		uint8_t    *page = pages + (size_t) i * NC_PAGE_BYTES;
		int			pageno = segno * NC_SLRU_SEGMENT_BLOCKS + i;
		LWLock	   *lock = nc_svc_slru_lock(ctl, pageno);

		LWLockAcquire(lock, LW_SHARED);
		/* Under the lock, so that a file created by an eviction is not missed. */
		if (fd < 0)
			fd = open_slru_segment(ctl, segno);
		if (read_from_buffers(ctl->shared, pageno, page) || read_from_file(fd, i, page))
			nblocks = i + 1;
		LWLockRelease(lock);
	}
	if (fd >= 0)
		CloseTransientFile(fd);
	return nblocks;
}

/* ---- which segments there are ---- */

const char *
nc_svc_slru_directory(int kind)
{
	return slru_of_kind(kind)->Dir;
}

typedef struct Segments
{
	uint32	   *at;
	int			n;
	int			room;
} Segments;

static void
add_segment(Segments *s, uint32 segno)
{
	if (s->n == s->room)
	{
		s->room = s->room == 0 ? 64 : s->room * 2;
		s->at = s->at == NULL ? palloc(s->room * sizeof(uint32)) :
			repalloc_huge(s->at, (Size) s->room * sizeof(uint32));
	}
	s->at[s->n++] = segno;
}

static void
add_segments_of_files(Segments *s, const char *path)
{
	DIR		   *dir = AllocateDir(path);
	struct dirent *entry;

	while ((entry = ReadDir(dir, path)) != NULL)
	{
		size_t		digits = strspn(entry->d_name, "0123456789ABCDEF");

		if (digits >= 4 && digits <= 7 && entry->d_name[digits] == '\0')
			add_segment(s, strtoul(entry->d_name, NULL, 16));
	}
	FreeDir(dir);
}

static int
compare_segments(const void *a, const void *b)
{
	uint32		x = *(const uint32 *) a;
	uint32		y = *(const uint32 *) b;

	return x < y ? -1 : x > y;
}

uint32 *
nc_svc_slru_segments(int kind, int *n)
{
	SlruCtl		ctl = slru_of_kind(kind);
	Segments	s = {0};
	int			kept = 0;

	add_segments_of_files(&s, ctl->Dir);
	for (int slot = 0; slot < ctl->shared->num_slots; slot++)
	{
		if (slot_holds_page(ctl->shared, slot))
			add_segment(&s, ctl->shared->page_number[slot] / SLRU_PAGES_PER_SEGMENT);
	}
	if (s.n > 0)
		qsort(s.at, s.n, sizeof(uint32), compare_segments);
	for (int i = 0; i < s.n; i++)
	{
		if (kept == 0 || s.at[kept - 1] != s.at[i])
			s.at[kept++] = s.at[i];
	}
	*n = kept;
	return s.at;
}
