/*
 * gate.c
 *	  Redo functions of the standby, wrapped: the gate, the cut and lazy replay.
 *
 * Two processes meet here.  The startup process runs every record through
 * redo_gated; page service workers enter and leave the gate around each read.
 *
 * Redo drops the buffers of a relation first and removes or shrinks its file
 * afterwards.  A reader between the two steps would load a block that is about
 * to vanish into shared buffers, where it would be found when the number or the
 * block comes back.  So redo of such records runs with the gate closed.  It then
 * moves the generation, at which readers close all their descriptors: a worker
 * without a database receives no invalidation and absorbs no barrier.
 *
 * Covered: truncation, dropped relations of commit, abort and prepared records,
 * database drop, database copy onto an existing directory, tablespaces.  No other
 * redo routine of the server removes or shrinks a relation file; unlogged
 * relations are reset before consistency and after promotion, when nothing is
 * served.
 *
 * A boot image is of one moment between two records: whoever gathers it holds the
 * cut's lock, which startup takes around the redo of each record.
 *
 * No deadlock: startup takes the gate between records, when it holds no buffer,
 * and nobody inside the gate waits for startup.  The lock of the cut comes before
 * those of the gate, for everybody.  An ERROR in redo is FATAL, and
 * the exit of an auxiliary process releases its LWLocks; an ERROR in a worker
 * releases them in page_source.c.  Nothing here ever changes what redo does.
 */
#include "page_service.h"

#include <sys/stat.h>

#include "access/rmgr.h"
#include "access/xact.h"
#include "access/xlog_internal.h"
#include "access/xlogreader.h"
#include "access/xlogrecovery.h"
#include "catalog/storage_xlog.h"
#include "commands/dbcommands_xlog.h"
#include "commands/tablespace.h"
#include "common/relpath.h"
#include "miscadmin.h"
#include "storage/pmsignal.h"
#include "storage/smgr.h"

#include "compat.h"

/* Bounds the delay of SIGHUP and SIGTERM while lazy replay sleeps: they set another latch. */
#define LAZY_WAIT_MS 20

static void (*original_redo[RM_MAX_ID + 1]) (XLogReaderState *record);
static uint64 seen_generation;

/* ---- which records remove or shrink files ---- */

static bool
xact_drops_files(XLogReaderState *record)
{
	uint8		info = XLogRecGetInfo(record);

	if ((info & XLOG_XACT_HAS_INFO) == 0)
		return false;
	switch (info & XLOG_XACT_OPMASK)
	{
		case XLOG_XACT_COMMIT:
		case XLOG_XACT_COMMIT_PREPARED:
			{
				xl_xact_parsed_commit parsed;

				ParseCommitRecord(info, (xl_xact_commit *) XLogRecGetData(record), &parsed);
				return parsed.nrels > 0;
			}
		case XLOG_XACT_ABORT:
		case XLOG_XACT_ABORT_PREPARED:
			{
				xl_xact_parsed_abort parsed;

				ParseAbortRecord(info, (xl_xact_abort *) XLogRecGetData(record), &parsed);
				return parsed.nrels > 0;
			}
		default:
			return false;
	}
}

/*
 * Copying a whole database may take long; it needs the gate only if it starts by
 * removing an existing directory.
 */
static bool
dbase_removes_files(XLogReaderState *record)
{
	uint8		info = XLogRecGetInfo(record) & ~XLR_INFO_MASK;

	if (info == XLOG_DBASE_CREATE_FILE_COPY)
	{
		xl_dbase_create_file_copy_rec *rec =
			(xl_dbase_create_file_copy_rec *) XLogRecGetData(record);
		char	   *path = GetDatabasePath(rec->db_id, rec->tablespace_id);
		struct stat st;
		bool		exists = stat(path, &st) == 0;

		pfree(path);
		return exists;
	}
	return info == XLOG_DBASE_DROP;
}

static bool
removes_files(XLogReaderState *record)
{
	switch (XLogRecGetRmid(record))
	{
		case RM_SMGR_ID:
			return (XLogRecGetInfo(record) & ~XLR_INFO_MASK) == XLOG_SMGR_TRUNCATE;
		case RM_XACT_ID:
			return xact_drops_files(record);
		case RM_DBASE_ID:
			return dbase_removes_files(record);
		case RM_TBLSPC_ID:
			return true;
		default:
			return false;
	}
}

/* ---- the gate ---- */

/*
 * A held LWLock holds off interrupts.  Redo of a database drop waits for all
 * processes to absorb a barrier, this one included, and would wait for ever; so the
 * gate's own locks are taken out of that count.  Nobody who could be asked to absorb
 * a barrier waits for these locks.
 */
static void
lock_exclusive(int number)
{
	LWLockAcquire(&nc_svc_shared->locks[number].lock, LW_EXCLUSIVE);
	RESUME_INTERRUPTS();
}

static void
unlock_exclusive(int number)
{
	HOLD_INTERRUPTS();
	LWLockRelease(&nc_svc_shared->locks[number].lock);
}

/*
 * The turnstile keeps a busy reader, which gives its lock back and takes it again
 * at once, from overtaking redo for ever.
 */
static void
gate_close(void)
{
	lock_exclusive(NC_SVC_LOCK_TURNSTILE);
	pg_atomic_write_u32(&nc_svc_shared->gate_closing, 1);
	for (int i = 0; i < NC_SVC_WORKERS_MAX; i++)
		lock_exclusive(NC_SVC_LOCK_GATE + i);
}

static void
gate_open(void)
{
	pg_atomic_fetch_add_u64(&nc_svc_shared->generation, 1);
	pg_atomic_write_u32(&nc_svc_shared->gate_closing, 0);
	for (int i = NC_SVC_WORKERS_MAX; i-- > 0;)
		unlock_exclusive(NC_SVC_LOCK_GATE + i);
	unlock_exclusive(NC_SVC_LOCK_TURNSTILE);
}

uint64
nc_svc_gate_enter(void)
{
	LWLock	   *turnstile = &nc_svc_shared->locks[NC_SVC_LOCK_TURNSTILE].lock;
	uint64		generation;

	if (pg_atomic_read_u32(&nc_svc_shared->gate_closing) != 0)
	{
		LWLockAcquire(turnstile, LW_SHARED);
		LWLockRelease(turnstile);
	}
	LWLockAcquire(&nc_svc_shared->locks[NC_SVC_LOCK_GATE + nc_svc_worker_index].lock, LW_SHARED);

	generation = pg_atomic_read_u64(&nc_svc_shared->generation);
	if (generation != seen_generation)
	{
		nc_svc_close_all();
		seen_generation = generation;
	}
	return generation;
}

void
nc_svc_gate_leave(void)
{
	LWLockRelease(&nc_svc_shared->locks[NC_SVC_LOCK_GATE + nc_svc_worker_index].lock);
}

/* ---- the cut ---- */

/*
 * Startup process, around the redo of a record.  Who wants replay to hold is let in
 * before: without the turnstile, replay that is busy would overtake him for ever.
 */
static void
record_begins(void)
{
	if (pg_atomic_read_u32(&nc_svc_shared->cut_wanted) != 0)
	{
		lock_exclusive(NC_SVC_LOCK_CUT_TURNSTILE);
		unlock_exclusive(NC_SVC_LOCK_CUT_TURNSTILE);
	}
	lock_exclusive(NC_SVC_LOCK_CUT);
}

static void
record_ends(void)
{
	unlock_exclusive(NC_SVC_LOCK_CUT);
}

void
nc_svc_cut_begin(void)
{
	LWLockAcquire(&nc_svc_shared->locks[NC_SVC_LOCK_CUT_TURNSTILE].lock, LW_EXCLUSIVE);
	pg_atomic_write_u32(&nc_svc_shared->cut_wanted, 1);
	LWLockAcquire(&nc_svc_shared->locks[NC_SVC_LOCK_CUT].lock, LW_EXCLUSIVE);
}

void
nc_svc_cut_end(void)
{
	LWLockRelease(&nc_svc_shared->locks[NC_SVC_LOCK_CUT].lock);
	pg_atomic_write_u32(&nc_svc_shared->cut_wanted, 0);
	LWLockRelease(&nc_svc_shared->locks[NC_SVC_LOCK_CUT_TURNSTILE].lock);
}

/* ---- lazy replay ---- */

static void
wake_startup(void)
{
	pg_memory_barrier();
	if (pg_atomic_read_u32(&nc_svc_shared->startup_waits) != 0)
		SetLatch(nc_svc_shared->startup_latch);
}

void
nc_svc_demand(XLogRecPtr lsn)
{
	uint64		known = pg_atomic_read_u64(&nc_svc_shared->demanded_lsn);

	while (known < lsn)
	{
		if (pg_atomic_compare_exchange_u64(&nc_svc_shared->demanded_lsn, &known, lsn))
			break;
	}
	wake_startup();
}

void
nc_svc_demand_join(void)
{
	if (pg_atomic_read_u32(&nc_svc_shared->join_wanted) != 0)
		return;
	pg_atomic_write_u32(&nc_svc_shared->join_wanted, 1);
	wake_startup();
}

/* Must the record wait?  Until consistency is reached nothing could demand it. */
static bool
lazy_holds_back(XLogReaderState *record)
{
	return nc_svc_lazy_replay && reachedConsistency && !IsPromoteSignaled() &&
		pg_atomic_read_u32(&nc_svc_shared->join_wanted) == 0 &&
		pg_atomic_read_u64(&nc_svc_shared->demanded_lsn) <= record->ReadRecPtr;
}

static void
lazy_wait(XLogReaderState *record)
{
	nc_svc_shared->startup_latch = MyLatch;
	pg_atomic_write_u32(&nc_svc_shared->startup_waits, 1);
	pg_memory_barrier();
	while (lazy_holds_back(record))
	{
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 LAZY_WAIT_MS, nc_svc_wait_lazy_replay);
		ResetLatch(MyLatch);
		nc_svc_startup_interrupts();
	}
	pg_atomic_write_u32(&nc_svc_shared->startup_waits, 0);
	/* The latch may have been set for somebody else's reason. */
	SetLatch(MyLatch);
}

/*
 * After a crash of some process the postmaster starts no background worker until
 * recovery is over, and a standby's recovery is never over (without hot standby it
 * does not look again even when redo begins).  This makes it look, once, at the first
 * record, when it has left that state.
 */
static void
kick_postmaster(void)
{
	static bool kicked = false;

	if (kicked)
		return;
	kicked = true;
	SendPostmasterSignal(PMSIGNAL_BACKGROUND_WORKER_CHANGE);
}

/* ---- the wrapped redo function of every resource manager ---- */

static void
redo_gated(XLogReaderState *record)
{
	void		(*redo) (XLogReaderState *) = original_redo[XLogRecGetRmid(record)];

	/* Without shared memory (single-user recovery) there is nobody to protect from. */
	if (nc_svc_shared == NULL || !IsUnderPostmaster)
	{
		redo(record);
		return;
	}
	kick_postmaster();
	if (reachedConsistency && pg_atomic_read_u32(&nc_svc_shared->consistent) == 0)
		pg_atomic_write_u32(&nc_svc_shared->consistent, 1);
	if (lazy_holds_back(record))
		lazy_wait(record);
	record_begins();
	nc_svc_evidence_before(record);
	if (removes_files(record))
	{
		gate_close();
		redo(record);
		gate_open();
	}
	else
		redo(record);
	nc_svc_evidence_note(record);
	nc_svc_prepared_note(record);
	record_ends();
	nc_svc_members_note(record);
	nc_svc_file_copy_note(record);
}

void
nc_svc_gate_install(void)
{
	/* run when redo ends, before anything else of the end of recovery; free in this one */
	Assert(RmgrTable[RM_XLOG_ID].rm_cleanup == NULL);
	RmgrTable[RM_XLOG_ID].rm_cleanup = nc_svc_identity_refuse_promotion;
	for (int id = 0; id <= RM_MAX_ID; id++)
	{
		if (RmgrTable[id].rm_name == NULL || RmgrTable[id].rm_redo == NULL)
			continue;
		original_redo[id] = RmgrTable[id].rm_redo;
		RmgrTable[id].rm_redo = redo_gated;
	}
}
