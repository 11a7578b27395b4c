/*
 * writer.c
 *	  What the one process does that writes the cache file (src/worker/cache_writer.c):
 *	  it changes its size, too, and switches the cache off and on.
 *
 * Pages wait in outbox pages in shared memory until it has written them, so no
 * reader and no evictor waits for the file.  It reads no page, needs no page
 * server and no catalog.  Any error of the file switches the cache off, says so
 * at most once a minute, and is tried again later and at each reload; nothing
 * here raises an error.
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"

#include "nc/base/clock.h"
#include "nc/base/file.h"
#include "nc/compat/pg.h"
#include "nc/filecache/filecache.h"
#include "nc/filecache/writer.h"
#include "nc/shared/settings.h"
#include "nc/shared/shmem.h"
#include "nc/shared/test_point.h"
#include "nc/shared/waits.h"

#include "filecache_int.h"

/* Pages written before other things are looked at. */
#define BATCH 64

#define SHORT_NAP_MS 5
#define LONG_NAP_MS 1000

/* Short naps without work before a long one. */
#define SHORT_NAPS 20

/* After an error the file is tried again, and complained about again, after these times. */
#define RETRY_US (30 * UINT64CONST(1000000))
#define WARN_US (60 * UINT64CONST(1000000))

static int	write_fd = -1;
static uint64 retry_at_us = 0;
static uint64 warned_us = 0;

/* ---- who may write ---- */

static bool
claim(void)
{
	uint32		nobody = 0;

	return atomic_compare_exchange_strong(&nc_filecache->owner, &nobody, (uint32) MyProcPid);
}

static void
give_up_claim(void)
{
	uint32		me = (uint32) MyProcPid;

	(void) atomic_compare_exchange_strong(&nc_filecache->owner, &me, 0);
}

/* ---- the file ---- */

static void
close_cache_for_writes(void)
{
	if (write_fd >= 0)
		close(write_fd);
	write_fd = -1;
}

static void
set_state(NcFileCacheState state)
{
	atomic_store(&nc_filecache->state, state);
}

/* Switches the cache off: whatever is wrong with the file, queries go on without it. */
static void
switch_off(const char *why, const char *hint)
{
	uint64		now = nc_clock_us();

	nc_stat(NC_COUNTER_LFC_ERRORS, 1);
	nc_lfc_switch(nc_filecache_index, false);
	/* room for others if the disk is full; fails if the file is the trouble */
	if (write_fd >= 0 && !nc_filecache_cut_to_head(write_fd))
		errno = 0;
	close_cache_for_writes();
	/* the reason first: who sees the state looks for it */
	strlcpy(nc_filecache->last_error, why, sizeof(nc_filecache->last_error));
	set_state(NC_FILECACHE_FAILED);
	/* a test has no half a minute */
	retry_at_us = now + (NC_TEST_TRUE("lfc-retry-soon") ? 0 : RETRY_US);
	if (warned_us != 0 && now - warned_us < WARN_US)
		return;
	warned_us = now;
	ereport(WARNING,
			(errmsg("neon_comm: the local file cache is off: %s", why),
			 errdetail("Pages are read from page servers instead."),
			 errhint("%sIt is tried again every %d s, and when the configuration is reloaded.", hint,
					 (int) (RETRY_US / 1000000))));
}

/* An error of the file. */
static void
fail_cache(int error, const char *what)
{
	char		why[NC_FILECACHE_ERROR_BYTES];

	snprintf(why, sizeof(why), "could not %s \"%.80s\": %s", what, nc_filecache_path(),
			 strerror(error));
	switch_off(why, "");
}

/* Something else stands at the path: it is left as it is. */
static void
refuse_cache_file(const char *reason)
{
	char		why[NC_FILECACHE_ERROR_BYTES];

	Assert(write_fd < 0);
	snprintf(why, sizeof(why), "\"%.80s\" %s", nc_filecache_path(), reason);
	switch_off(why, "Set neon_comm.lfc_path to a name that nobody else uses, or remove the file if nobody needs it. ");
}

/*
 * Cuts the file to the sets in use and gives back the places of ways that are
 * not.  A file system without holes keeps these; they are not used all the same.
 */
static bool
cut_file(void)
{
	struct stat st;
	NcLfcFile	file = nc_lfc_file(nc_filecache_index);
	off_t		blocks = file.stretches == 0 ? 0 :
		(off_t) (file.stretches - 1) * file.blocks + file.used;
	off_t		length = (blocks + 1) * BLCKSZ;

	if (fstat(write_fd, &st) != 0 || (st.st_size > length && ftruncate(write_fd, length) != 0))
		return false;
	if ((uint64) st.st_blocks * 512 <= nc_filecache_limit_bytes() + BLCKSZ)
		return true;
	for (uint32 s = 0; s < file.stretches && file.used < file.blocks; s++)
	{
		if (fallocate(write_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
					  nc_filecache_offset(s * file.blocks + file.used),
					  (off_t) (file.blocks - file.used) * BLCKSZ) != 0)
			break;
	}
	return true;
}

/* A file that the index knows nothing of: starts empty. */
static bool
begin_file(void)
{
	struct stat st;

	nc_lfc_switch(nc_filecache_index, false);
	if (!nc_filecache_cut_to_head(write_fd) || fstat(write_fd, &st) != 0)
		return false;
	atomic_store(&nc_filecache->dev, (uint64) st.st_dev);
	atomic_store(&nc_filecache->ino, (uint64) st.st_ino);
	atomic_fetch_add(&nc_filecache->generation, 1);
	return true;
}

/* Opens the file, makes it if it is missing, and switches the cache on. */
static void
start_file(void)
{
	uint32		state = atomic_load(&nc_filecache->state);
	const char *why;

	write_fd = nc_filecache_open_ours(&why);
	if (write_fd < 0)
	{
		if (why != NULL)
			refuse_cache_file(why);
		else
			fail_cache(errno, "open");
		return;
	}
	if ((state != NC_FILECACHE_ON || !nc_filecache_is_file(write_fd)) && !begin_file())
	{
		fail_cache(errno, "empty");
		return;
	}
	if (!cut_file())
	{
		fail_cache(errno, "truncate");
		return;
	}
	nc_lfc_switch(nc_filecache_index, true);
	nc_filecache->last_error[0] = '\0';
	if (state == NC_FILECACHE_FAILED)
		ereport(LOG, (errmsg("neon_comm: the local file cache is on again")));
	set_state(NC_FILECACHE_ON);
}

/* Makes limit, file and state agree with the settings. */
static void
apply_limit(void)
{
	uint64		blocks = nc_filecache_limit_setting();

	if (blocks == 0)
	{
		nc_lfc_switch(nc_filecache_index, false);
		if (write_fd >= 0 && !nc_filecache_cut_to_head(write_fd))
			nc_stat(NC_COUNTER_LFC_ERRORS, 1);
		close_cache_for_writes();
		nc_lfc_set_limit(nc_filecache_index, 0);
		set_state(NC_FILECACHE_LIMIT_ZERO);
		return;
	}
	nc_lfc_set_limit(nc_filecache_index, blocks);
	if (atomic_load(&nc_filecache->state) == NC_FILECACHE_LIMIT_ZERO)
		set_state(NC_FILECACHE_STARTING);
	if (write_fd >= 0 && !cut_file())
		fail_cache(errno, "truncate");
}

/* A reader met trouble: is the file still where it was? */
static void
hear_complaint(int error)
{
	int			fd;
	bool		same;

	if (write_fd < 0)
		return;
	fd = nc_file_open(nc_filecache_path(), O_RDONLY, 0);
	same = fd >= 0 && nc_filecache_is_file(fd);
	if (fd >= 0)
		close(fd);
	/* a name that leads elsewhere is no trouble of the disk: begin there */
	if (!same)
	{
		nc_lfc_switch(nc_filecache_index, false);
		close_cache_for_writes();
		set_state(NC_FILECACHE_STARTING);
		start_file();
		return;
	}
	if (error != ESTALE)
		fail_cache(error, "read");
}

/* ---- writing ---- */

static bool
write_page(const NcLfcJob *job)
{
	ssize_t		put = NC_TEST_FAULT("lfc-write") ? -1 :
		pg_pwrite(write_fd, job->page, BLCKSZ, nc_filecache_offset(job->ref.place));

	if (put >= 0 && put < BLCKSZ)
		errno = ENOSPC;
	return put == BLCKSZ;
}

/* Writes at most `most` pages of the outbox; returns how many were taken. */
static int
write_outbox(int most)
{
	NcLfcJob	job;
	int			n = 0;

	for (; n < most && nc_lfc_next(nc_filecache_index, &job); n++)
	{
		bool		ok = write_fd >= 0;
		int			error = 0;

		NC_TEST_POINT("lfc-writing");
		if (ok && !write_page(&job))
		{
			error = errno;
			ok = false;
		}
		nc_lfc_done(nc_filecache_index, &job, ok);
		if (ok)
			nc_stat(NC_COUNTER_LFC_BLOCKS_WRITTEN, 1);
		else if (error != 0)
			fail_cache(error, "write");
	}
	return n;
}

void
nc_filecache_drain(void)
{
	if (atomic_load(&nc_filecache->state) != NC_FILECACHE_ON || !claim())
		return;
	if (write_fd < 0)
		write_fd = nc_file_open(nc_filecache_path(), O_RDWR, 0);
	if (write_fd >= 0 && (!nc_filecache_is_file(write_fd) || !nc_filecache_is_ours(write_fd)))
		close_cache_for_writes();
	(void) write_outbox(INT_MAX);
	give_up_claim();
}

/* ---- the process ---- */

static void
cache_writer_leave(int code, Datum arg)
{
	atomic_store(&nc_filecache->worker, 0);
	atomic_store(&nc_filecache->nap, NC_NAP_AWAKE);
	give_up_claim();
}

/* Sleeps until there is work, or something may have changed. */
static void
nap(bool shortly)
{
	atomic_store(&nc_filecache->nap, shortly ? NC_NAP_SHORT : NC_NAP_LONG);
	/* pairs with nc_filecache_wake() */
	atomic_thread_fence(memory_order_seq_cst);
	if (!nc_lfc_has_work(nc_filecache_index) || (shortly && !nc_lfc_urgent(nc_filecache_index)))
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 shortly ? SHORT_NAP_MS : LONG_NAP_MS,
						 nc_wait_event(NC_WAIT_CACHE_WRITER_MAIN));
	atomic_store(&nc_filecache->nap, NC_NAP_AWAKE);
	ResetLatch(MyLatch);
}

/* Somebody was stopped while he held the lock of a set: nobody waits for him, but it is told. */
static void
tell_given_up(void)
{
	static uint32 told = 0;
	static uint64 told_us = 0;
	uint32		now = nc_lfc_given_up(nc_filecache_index);
	uint32		more = now - told + NC_TEST_TRUE("lfc-given-up");

	if (more == 0)
		return;
	nc_stat(NC_COUNTER_LFC_GIVEN_UP, more);
	told = now;
	if (told_us != 0 && nc_clock_us() - told_us < WARN_US)
		return;
	told_us = nc_clock_us();
	ereport(LOG,
			(errmsg("neon_comm: a process holds a part of the local file cache's index and does not get on"),
			 errdetail("Others go without that part: they read its pages from page servers, and forget it where they change one."),
			 errhint("Look for a process that was stopped (SIGSTOP, a debugger).")));
}

/* What is not writing: complaints, another try. */
static void
look_at_cache_file(void)
{
	uint32		error = atomic_exchange(&nc_filecache->complaint, 0);

	tell_given_up();
	if (error != 0)
		hear_complaint((int) error);
	if (write_fd < 0 && atomic_load(&nc_filecache->state) != NC_FILECACHE_LIMIT_ZERO &&
		nc_clock_us() >= retry_at_us)
		start_file();
}

/* The checkpointer may be at it, if a predecessor has just gone. */
static void
wait_for_claim(void)
{
	uint64		logged_us = nc_clock_us();

	while (!claim())
	{
		CHECK_FOR_INTERRUPTS();
		if (ShutdownRequestPending)
			proc_exit(1);
		pg_usleep(10000);
		if (nc_clock_us() - logged_us < (uint64) nc_guc_wait_log_period * 1000)
			continue;
		logged_us = nc_clock_us();
		ereport(LOG,
				(errmsg("neon_comm: the cache writer waits for process %u, which writes the cache's file",
						atomic_load(&nc_filecache->owner))));
	}
}

void
nc_filecache_writer_begin(void)
{
	before_shmem_exit(cache_writer_leave, 0);
	wait_for_claim();
	atomic_store(&nc_filecache->worker, NC_MY_PROC_INDEX() + 1);
	apply_limit();
}

void
nc_filecache_writer_reloaded(void)
{
	retry_at_us = 0;
	apply_limit();
}

bool
nc_filecache_writer_turn(void)
{
	look_at_cache_file();
	return write_outbox(BATCH) > 0;
}

void
nc_filecache_writer_nap(int idle)
{
	/* work that is left although none could be done is behind a lock that somebody keeps: soon, not at once */
	nap(idle < SHORT_NAPS || nc_lfc_has_work(nc_filecache_index));
}
