/*
 * filecache.c
 *	  The local file cache in every process: shared memory, lookups, pages that
 *	  come and go.  docs/lfc.md argues why a page found here is the newest one.
 *
 * Each process reads the file itself, with a descriptor of its own; nobody is
 * asked and no lock is held.  Never raises an error, never allocates.
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "access/xlog.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/bufmgr.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "storage/shmem.h"

#include "nc/base/clock.h"
#include "nc/compat/page.h"
#include "nc/filecache/filecache.h"
#include "nc/shared/settings.h"
#include "nc/shared/shmem.h"
#include "nc/shared/test_point.h"

#include "filecache_int.h"

/* A process that could not open the file tries again after this time. */
#define REOPEN_US 1000000

NcFileCache *nc_filecache = NULL;
NcLfc	   *nc_filecache_index = NULL;

/* This process's descriptor for reading, and which generation of the file it is. */
static int	read_fd = -1;
static uint32 read_generation = 0;
static uint64 reopen_after_us = 0;

/* ---- shared memory ---- */

static uint64
size_in_blocks(void)
{
	return (uint64) nc_guc_lfc_size * (1024 * 1024 / BLCKSZ);
}

static bool
is_configured(void)
{
	return nc_enabled && nc_guc_lfc_size > 0;
}

Size
nc_filecache_shmem_bytes(void)
{
	uint64		blocks = size_in_blocks();

	if (!is_configured())
		return 0;
	return add_size(add_size(MAXALIGN(sizeof(NcFileCache)), 2 * NC_CACHE_LINE_BYTES),
					nc_lfc_bytes(nc_lfc_sets(blocks), nc_lfc_outbox_pages(blocks)));
}

static void
save_cache_at_stop(int code, Datum arg)
{
	char		err[NC_FILECACHE_ERROR_BYTES];

	/*
	 * Not after a crash, and not in children, which drop this callback when they
	 * are forked.  An immediate stop exits with 0 too, and then a process may have
	 * died with the lock of a set.
	 */
	if (code != 0 || !nc_lfc_is_on(nc_filecache_index) || !nc_filecache_server_stopped())
		return;
	nc_filecache_drain();
	if (nc_filecache_save(true, err, sizeof(err)) < 0)
		ereport(LOG, (errmsg("neon_comm: the list of cached pages was not saved: %s", err)));
}

void
nc_filecache_shmem_startup(void)
{
	static bool started_before = false;
	uint64		blocks = size_in_blocks();
	uint32		nsets = nc_lfc_sets(blocks);
	uint32		noutbox = nc_lfc_outbox_pages(blocks);
	bool		found;
	char	   *memory;

	if (!is_configured())
		return;
	nc_filecache = ShmemInitStruct("neon_comm file cache", sizeof(NcFileCache), &found);
	if (!found)
		memset(nc_filecache, 0, sizeof(*nc_filecache));
	memory = ShmemInitStruct("neon_comm file cache index",
							 nc_lfc_bytes(nsets, noutbox) + NC_CACHE_LINE_BYTES, &found);
	nc_filecache_index = (NcLfc *) TYPEALIGN(NC_CACHE_LINE_BYTES, memory);
	if (found)
		return;
	nc_lfc_init(nc_filecache_index, nsets, noutbox);
	nc_lfc_set_limit(nc_filecache_index, nc_filecache_limit_setting());
	atomic_store(&nc_filecache->state, NC_FILECACHE_STARTING);
	if (IsUnderPostmaster)
		return;
	/* after a crash of a process the file is worth nothing */
	if (!started_before && nc_filecache_adopt())
		atomic_store(&nc_filecache->state, NC_FILECACHE_ON);
	started_before = true;
	on_shmem_exit(save_cache_at_stop, (Datum) 0);
}

uint64
nc_filecache_limit_setting(void)
{
	return (uint64) Min(nc_guc_lfc_size_limit, nc_guc_lfc_size) * (1024 * 1024 / BLCKSZ);
}

const char *
nc_filecache_state_name(uint32 state)
{
	switch ((NcFileCacheState) state)
	{
		case NC_FILECACHE_OFF:
			return "off";
		case NC_FILECACHE_STARTING:
			return "starting";
		case NC_FILECACHE_ON:
			return "on";
		case NC_FILECACHE_LIMIT_ZERO:
			return "limit is 0";
		case NC_FILECACHE_FAILED:
			return "failed";
	}
	return "invalid";
}

const char *
nc_prewarm_state_name(uint32 state)
{
	switch ((NcPrewarmState) state)
	{
		case NC_PREWARM_NONE:
			return "none";
		case NC_PREWARM_RUNNING:
			return "running";
		case NC_PREWARM_DONE:
			return "done";
		case NC_PREWARM_STOPPED:
			return "stopped";
		case NC_PREWARM_FAILED:
			return "failed";
	}
	return "invalid";
}

uint64
nc_filecache_limit_bytes(void)
{
	return nc_lfc_limit(nc_filecache_index) * BLCKSZ;
}

const char *
nc_filecache_path(void)
{
	return nc_guc_lfc_path;
}

const char *
nc_filecache_list_path(void)
{
	static char path[MAXPGPATH];

	snprintf(path, sizeof(path), "%s.index", nc_guc_lfc_path);
	return path;
}

bool
nc_filecache_usable(void)
{
	return nc_filecache_index != NULL && nc_lfc_is_on(nc_filecache_index) && !RecoveryInProgress();
}

/* ---- waking the writer ---- */

void
nc_filecache_wake(bool urgent)
{
	uint32		nap,
				worker;

	/* pairs with nap() of the writer: post, full barrier, look how deep it sleeps */
	atomic_thread_fence(memory_order_seq_cst);
	nap = atomic_load(&nc_filecache->nap);
	if (nap == NC_NAP_AWAKE || (nap == NC_NAP_SHORT && !urgent))
		return;
	if (atomic_exchange(&nc_filecache->nap, NC_NAP_AWAKE) == NC_NAP_AWAKE)
		return;
	worker = atomic_load(&nc_filecache->worker);
	if (worker != 0)
		SetLatch(&ProcGlobal->allProcs[worker - 1].procLatch);
}

static void
complain(int error)
{
	uint32		none = 0;

	if (atomic_compare_exchange_strong(&nc_filecache->complaint, &none, (uint32) error))
		nc_filecache_wake(true);
}

/* ---- reading ---- */

bool
nc_filecache_is_file(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 && (uint64) st.st_dev == atomic_load(&nc_filecache->dev) &&
		(uint64) st.st_ino == atomic_load(&nc_filecache->ino);
}

static void
close_cache_for_reads(void)
{
	if (read_fd < 0)
		return;
	close(read_fd);
	ReleaseExternalFD();
	read_fd = -1;
}

/* Opens the file of this generation. Whoever cannot open it goes without the cache for a while. */
static bool
open_cache_for_reads(uint32 generation)
{
	int			fd;

	if (reopen_after_us != 0 && nc_clock_us() < reopen_after_us)
		return false;
	close_cache_for_reads();
	fd = NC_TEST_FAULT("lfc-open") ? -1 : BasicOpenFile(nc_guc_lfc_path, O_RDONLY | O_NONBLOCK | PG_BINARY | O_CLOEXEC);
	if (fd >= 0 && !nc_filecache_is_file(fd))
	{
		/* moved away, and another one has its name */
		close(fd);
		fd = -1;
		errno = ESTALE;
	}
	if (fd < 0)
	{
		nc_stat(NC_COUNTER_LFC_ERRORS, 1);
		reopen_after_us = nc_clock_us() + REOPEN_US;
		/* a process without descriptors says nothing about the file */
		if (errno != EMFILE && errno != ENFILE && errno != ENOMEM && errno != EINTR)
			complain(errno);
		return false;
	}
	ReserveExternalFD();
	read_fd = fd;
	read_generation = generation;
	reopen_after_us = 0;
	return true;
}

typedef enum ReadResult
{
	READ_OK,
	READ_NO_FILE,
	READ_FAILED
} ReadResult;

/*
 * Pages of the file that are behind the one that was read last, read with it.  They are in this
 * process's memory, and count only if their places are still what they were before they were read:
 * then nobody has changed, forgotten or moved the page since, however long ago that is.
 */
typedef struct Behind
{
	NcPageKey	next;			/* of the first that was not taken */
	uint32		at;				/* which that is */
	uint32		n;
	NcLfcRef	refs[NC_LFC_LANES_MAX - 1];
} Behind;

static Behind behind;
static PGAlignedBlock behind_pages[NC_LFC_LANES_MAX - 1];

/* How many pages were read in order, so that what is read ahead is at most as much. */
static NcPageKey in_order_next;
static uint32 in_order = 0;

static void
note_order(const NcPageKey *key)
{
	in_order = nc_page_key_equal(key, &in_order_next) ? Min(in_order + 1, NC_LFC_LANES_MAX) : 0;
	in_order_next = *key;
	in_order_next.block++;
}

/* The page, if it was read with one before it and nothing has happened to it since. */
static bool
take_behind(const NcPageKey *key, char *page)
{
	NcLfcRef   *ref = &behind.refs[behind.at];
	char	   *read = behind_pages[behind.at].data;

	if (behind.at >= behind.n || !nc_page_key_equal(key, &behind.next))
		return false;
	behind.at++;
	behind.next.block++;
	if (!nc_lfc_still(nc_filecache_index, ref) ||
		nc_lfc_sum_of_copy(key, (const uint8_t *) read, (uint8_t *) page) != ref->sum)
		return false;
	nc_stat(NC_COUNTER_LFC_HITS_BEHIND, 1);
	return true;
}

/* Looks for what to read with the page at `ref`; returns how many there are. */
static uint32
find_behind(const NcPageKey *key, const NcLfcRef *ref)
{
	behind.at = behind.n = 0;
	if (in_order == 0)
		return 0;
	behind.next = *key;
	behind.next.block++;
	return nc_lfc_find_behind(nc_filecache_index, key, ref, Min(in_order, NC_LFC_LANES_MAX - 1), behind.refs);
}

/* The page at the place, and with it so many behind it. */
static ReadResult
read_cache_place(uint32 place, char *page, uint32 more)
{
	struct iovec iov[2] = {{page, BLCKSZ}, {behind_pages, (size_t) more * BLCKSZ}};
	uint32		generation = atomic_load(&nc_filecache->generation);
	ssize_t		got;

	if ((read_fd < 0 || read_generation != generation) && !open_cache_for_reads(generation))
		return READ_NO_FILE;
	pgstat_report_wait_start(WAIT_EVENT_DATA_FILE_READ);
	got = NC_TEST_FAULT("lfc-read") ? -1 : preadv(read_fd, iov, more > 0 ? 2 : 1, nc_filecache_offset(place));
	pgstat_report_wait_end();
	if (got >= BLCKSZ)
	{
		behind.n = (uint32) (got / BLCKSZ) - 1;
		return READ_OK;
	}
	if (got >= 0)
		errno = EIO;			/* shorter than it should be */
	return READ_FAILED;
}

/* Judges what was read from a place. */
static bool
read_is_page(const NcPageKey *key, const NcLfcRef *ref, const char *page)
{
	if (nc_lfc_sum(key, (const uint8_t *) page) == ref->sum)
		return true;
	nc_stat(NC_COUNTER_LFC_MISMATCHES, 1);
	nc_lfc_discard(nc_filecache_index, ref);
	return false;
}

/* One lookup; *again: the place changed while it was read. */
static bool
read_cached_once(const NcPageKey *key, char *page, bool *again)
{
	NcLfcRef	ref;
	ReadResult	result;

	*again = false;
	switch (nc_lfc_find(nc_filecache_index, key, (uint8_t *) page, &ref))
	{
		case NC_LFC_MISS:
			return false;
		case NC_LFC_COPIED:
			return true;
		case NC_LFC_ON_DISK:
			break;
	}
	NC_TEST_POINT("lfc-found");
	result = read_cache_place(ref.place, page, find_behind(key, &ref));
	NC_TEST_POINT("lfc-was-read");
	if (result == READ_NO_FILE)
		return false;
	/* an error or a short file says nothing if the place is not what it was */
	*again = !nc_lfc_still(nc_filecache_index, &ref);
	if (*again)
		return false;
	if (result == READ_OK)
		return read_is_page(key, &ref, page);
	nc_stat(NC_COUNTER_LFC_ERRORS, 1);
	nc_lfc_discard(nc_filecache_index, &ref);
	complain(errno != 0 ? errno : EIO);
	return false;
}

bool
nc_filecache_read(const NcRelKey *rel, BlockNumber block, char *page)
{
	NcPageKey	key = {*rel, block};
	bool		again = false;
	bool		hit;

	if (!nc_filecache_usable())
		return false;
	note_order(&key);
	hit = take_behind(&key, page);
	if (!hit)
		hit = read_cached_once(&key, page, &again);
	/* written meanwhile, or moved to another place: it may be there still */
	if (again)
		hit = read_cached_once(&key, page, &again);
	if (hit && !nc_page_is_sound(page, block))
	{
		/* bufmgr would refuse it each time; another copy may be good */
		nc_stat(NC_COUNTER_LFC_DAMAGED, 1);
		nc_filecache_forget(rel, block, block + 1);
		hit = false;
	}
	nc_stat(hit ? NC_COUNTER_LFC_HITS : NC_COUNTER_LFC_MISSES, 1);
	return hit;
}

/* ---- pages that come ---- */

/* What bufmgr would refuse when it is read again does not enter. */
static bool
may_enter(const char *page, BlockNumber block)
{
	if (nc_page_is_sound(page, block))
		return true;
	nc_stat(NC_COUNTER_LFC_DAMAGED, 1);
	return false;
}

static void
put_page(const NcRelKey *rel, BlockNumber block, const char *page, NcCounter counter)
{
	NcPageKey	key = {*rel, block};
	NcLfcNote	note;

	switch (nc_lfc_put(nc_filecache_index, &key, (const uint8_t *) page, &note))
	{
		case NC_LFC_PUT_NEW:
		case NC_LFC_PUT_REPLACED:
			nc_stat(counter, 1);
			break;
		case NC_LFC_PUT_DROPPED:
			nc_stat(NC_COUNTER_LFC_DROPS, 1);
			break;
		case NC_LFC_PUT_OFF:
			return;
	}
	if (note.evicted)
		nc_stat(NC_COUNTER_LFC_EVICTIONS, 1);
	nc_filecache_wake(note.urgent);

	/* at a stop the writer has gone before the last checkpoint */
	if (note.urgent && AmCheckpointerProcess())
		nc_filecache_drain();
}

void
nc_filecache_received(const NcRelKey *rel, BlockNumber block, const char *page)
{
	/* a page in private memory may be read while somebody else changes it in shared buffers */
	if (page >= BufferBlocks && page < BufferBlocks + (Size) NBuffers * BLCKSZ &&
		nc_filecache_usable() && may_enter(page, block))
		put_page(rel, block, page, NC_COUNTER_LFC_FILLS);
}

void
nc_filecache_written(const NcRelKey *rel, BlockNumber block, const char *page)
{
	if (nc_filecache_index == NULL)
		return;
	if (nc_filecache_usable() && may_enter(page, block))
		put_page(rel, block, page, NC_COUNTER_LFC_WRITES);
	else
		nc_filecache_forget(rel, block, block + 1);
}

/* ---- pages that go ---- */

void
nc_filecache_forget(const NcRelKey *rel, BlockNumber from, BlockNumber end)
{
	/* an index that is off is empty, and whatever enters later is read later */
	if (nc_filecache_index == NULL || !nc_lfc_is_on(nc_filecache_index))
		return;
	nc_stat(NC_COUNTER_LFC_INVALIDATIONS,
			nc_lfc_forget_range(nc_filecache_index, rel, from, end));
}

void
nc_filecache_forget_database(Oid db)
{
	if (nc_filecache_index == NULL)
		return;
	nc_stat(NC_COUNTER_LFC_INVALIDATIONS, nc_lfc_forget_database(nc_filecache_index, db));
}
