/*
 * writer.c
 *	  The worker "neon_comm cache writer": the one process that writes the cache
 *	  file, changes its size, and switches the cache off and on.
 *
 * Pages wait in staging pages in shared memory until it has written them, so no
 * reader and no evictor waits for the file.  It reads no page, needs no page
 * server and no catalog.  Any error of the file switches the cache off, says so
 * at most once a minute, and is tried again later and at each reload; nothing
 * here raises an error.
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "utils/guc.h"

#include "nc/base/clock.h"
#include "nc/compat/pg.h"
#include "nc/ext/guc.h"
#include "nc/ext/shmem.h"
#include "nc/ext/test_point.h"
#include "nc/filecache/filecache.h"
#include "nc/worker/alone.h"

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
close_file(void)
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
fail(int error, const char *what)
{
	uint64		now = nc_clock_us();

	nc_stat(NC_COUNTER_LFC_ERRORS, 1);
	nc_lfc_switch(nc_filecache_index, false);
	/* room for others if the disk is full; fails if the file is the trouble */
	if (write_fd >= 0 && ftruncate(write_fd, 0) != 0)
		errno = 0;
	close_file();
	set_state(NC_FILECACHE_FAILED);
	snprintf(nc_filecache->last_error, sizeof(nc_filecache->last_error), "could not %s \"%.80s\": %s",
			 what, nc_filecache_path(), strerror(error));
	/* a test has no half a minute */
	retry_at_us = now + (NC_TEST_TRUE("lfc-retry-soon") ? 0 : RETRY_US);
	if (warned_us != 0 && now - warned_us < WARN_US)
		return;
	warned_us = now;
	errno = error;
	ereport(WARNING,
			(errmsg("neon_comm: the local file cache is off: could not %s \"%s\": %m", what,
					nc_filecache_path()),
			 errdetail("Pages are read from page servers instead."),
			 errhint("It is tried again every %d s, and when the configuration is reloaded.",
					 (int) (RETRY_US / 1000000))));
}

/*
 * Cuts the file to the sets in use and gives back the places of ways that are
 * not.  A file system without holes keeps these; they are not used all the same.
 */
static bool
cut_file(void)
{
	struct stat st;
	uint32		nsets,
				ways;
	off_t		length = (off_t) nc_lfc_file_blocks(nc_filecache_index, &nsets, &ways) * BLCKSZ;

	if (fstat(write_fd, &st) != 0 || (st.st_size > length && ftruncate(write_fd, length) != 0))
		return false;
	if ((uint64) st.st_blocks * 512 <= nc_filecache_limit_bytes())
		return true;
	for (uint32 s = 0; s < nsets && ways < NC_LFC_WAYS; s++)
	{
		if (fallocate(write_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
					  ((off_t) s * NC_LFC_WAYS + ways) * BLCKSZ,
					  (off_t) (NC_LFC_WAYS - ways) * BLCKSZ) != 0)
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
	if (ftruncate(write_fd, 0) != 0 || fstat(write_fd, &st) != 0)
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

	write_fd = open(nc_filecache_path(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (write_fd < 0)
	{
		fail(errno, "open");
		return;
	}
	/* two servers with the same path would only spoil each other's pages */
	if (flock(write_fd, LOCK_EX | LOCK_NB) != 0)
	{
		fail(errno, "lock");
		return;
	}
	if ((state != NC_FILECACHE_ON || !nc_filecache_is_file(write_fd)) && !begin_file())
	{
		fail(errno, "empty");
		return;
	}
	if (!cut_file())
	{
		fail(errno, "truncate");
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
		if (write_fd >= 0 && ftruncate(write_fd, 0) != 0)
			nc_stat(NC_COUNTER_LFC_ERRORS, 1);
		close_file();
		nc_lfc_set_limit(nc_filecache_index, 0);
		set_state(NC_FILECACHE_LIMIT_ZERO);
		return;
	}
	nc_lfc_set_limit(nc_filecache_index, blocks);
	if (atomic_load(&nc_filecache->state) == NC_FILECACHE_LIMIT_ZERO)
		set_state(NC_FILECACHE_STARTING);
	if (write_fd >= 0 && !cut_file())
		fail(errno, "truncate");
}

/* A reader met trouble: is the file still where it was? */
static void
hear_complaint(int error)
{
	int			fd;
	bool		same;

	if (write_fd < 0)
		return;
	fd = open(nc_filecache_path(), O_RDONLY | O_CLOEXEC);
	same = fd >= 0 && nc_filecache_is_file(fd);
	if (fd >= 0)
		close(fd);
	/* a name that leads elsewhere is no trouble of the disk: begin there */
	if (!same)
	{
		nc_lfc_switch(nc_filecache_index, false);
		close_file();
		set_state(NC_FILECACHE_STARTING);
		start_file();
		return;
	}
	if (error != ESTALE)
		fail(error, "read");
}

/* ---- writing ---- */

static bool
write_page(const NcLfcJob *job)
{
	ssize_t		put = NC_TEST_FAULT("lfc-write") ? -1 :
		pg_pwrite(write_fd, job->page, BLCKSZ, (off_t) job->ref.place * BLCKSZ);

	if (put >= 0 && put < BLCKSZ)
		errno = ENOSPC;
	return put == BLCKSZ;
}

/* Writes at most `most` staged pages; returns how many were taken. */
static int
write_some(int most)
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
			fail(error, "write");
	}
	return n;
}

void
nc_filecache_drain(void)
{
	if (atomic_load(&nc_filecache->state) != NC_FILECACHE_ON || !claim())
		return;
	if (write_fd < 0)
		write_fd = open(nc_filecache_path(), O_RDWR | O_CLOEXEC);
	if (write_fd >= 0 && !nc_filecache_is_file(write_fd))
		close_file();
	(void) write_some(INT_MAX);
	give_up_claim();
}

/* ---- the worker ---- */

void
nc_filecache_writer_register(void)
{
	BackgroundWorker worker = {
		.bgw_name = "neon_comm cache writer",
		.bgw_type = "neon_comm cache writer",
		.bgw_flags = BGWORKER_SHMEM_ACCESS,
		.bgw_start_time = BgWorkerStart_RecoveryFinished,
		.bgw_restart_time = 1,
		.bgw_library_name = "neon_comm",
		.bgw_function_name = "nc_filecache_writer_main"
	};

	if (nc_guc_lfc_size > 0)
		RegisterBackgroundWorker(&worker);
}

static void
on_exit_leave(int code, Datum arg)
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
						 shortly ? SHORT_NAP_MS : LONG_NAP_MS, PG_WAIT_EXTENSION);
	atomic_store(&nc_filecache->nap, NC_NAP_AWAKE);
	ResetLatch(MyLatch);
}

/* What is not writing: settings, complaints, another try. */
static void
look_around(void)
{
	uint32		error = atomic_exchange(&nc_filecache->complaint, 0);

	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
		retry_at_us = 0;
		apply_limit();
	}
	if (error != 0)
		hear_complaint((int) error);
	if (write_fd < 0 && atomic_load(&nc_filecache->state) != NC_FILECACHE_LIMIT_ZERO &&
		nc_clock_us() >= retry_at_us)
		start_file();
}

void
nc_filecache_writer_main(Datum arg)
{
	int			idle = 0;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, SignalHandlerForShutdownRequest);
	BackgroundWorkerUnblockSignals();
	nc_worker_register_self();
	before_shmem_exit(on_exit_leave, 0);
	/* the checkpointer may be at it, if a predecessor has just gone */
	while (!claim())
	{
		CHECK_FOR_INTERRUPTS();
		if (ShutdownRequestPending)
			proc_exit(1);
		pg_usleep(10000);
	}
	atomic_store(&nc_filecache->worker, NC_MY_PROC_INDEX() + 1);
	apply_limit();

	for (;;)
	{
		look_around();
		if (write_some(BATCH) > 0)
			idle = 0;
		else if (ShutdownRequestPending)
			proc_exit(1);
		else
			idle++;
		if (!ShutdownRequestPending)
			nap(idle < SHORT_NAPS);
	}
}
