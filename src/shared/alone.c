/*
 * alone.c
 *	  Tells our background workers when nobody is left who needs them.
 *
 * Runs in the communicator and in the WAL feed, once they have been asked to
 * end.  Guarantees that "alone" is said only when every process that can read a
 * page has left the process table; a process that enters it later was forked
 * before the shutdown began and ends at its first check for interrupts.  It
 * takes no lock of any kind, reads no catalog and never waits.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "replication/walsender.h"
#include "replication/walsender_private.h"
#include "storage/ipc.h"
#include "storage/proc.h"
#include "storage/shmem.h"
#include "utils/backend_status.h"

#include "nc/compat/server.h"
#include "nc/shared/alone.h"

/* Five, each perhaps beside a successor whose entry comes first. */
#define OWN_WORKERS_MAX 10

typedef struct OwnWorkers
{
	pg_atomic_uint32 pids[OWN_WORKERS_MAX]; /* 0: free */
} OwnWorkers;

static OwnWorkers *own_workers = NULL;

Size
nc_worker_alone_shmem_bytes(void)
{
	return MAXALIGN(sizeof(OwnWorkers));
}

void
nc_worker_alone_shmem_startup(void)
{
	bool		found;

	own_workers = ShmemInitStruct("neon_comm workers", nc_worker_alone_shmem_bytes(), &found);
	if (found)
		return;
	for (int i = 0; i < OWN_WORKERS_MAX; i++)
		pg_atomic_init_u32(&own_workers->pids[i], 0);
}

static void
forget_self(int code, Datum arg)
{
	for (int i = 0; i < OWN_WORKERS_MAX; i++)
	{
		uint32		mine = (uint32) MyProcPid;

		pg_atomic_compare_exchange_u32(&own_workers->pids[i], &mine, 0);
	}
}

void
nc_worker_register_self(void)
{
	for (int i = 0; i < OWN_WORKERS_MAX; i++)
	{
		uint32		nobody = 0;

		if (pg_atomic_compare_exchange_u32(&own_workers->pids[i], &nobody, (uint32) MyProcPid))
		{
			on_shmem_exit(forget_self, (Datum) 0);
			return;
		}
	}
	elog(FATAL, "neon_comm has more than %d background workers", OWN_WORKERS_MAX);
}

static bool
is_own_worker(int pid)
{
	for (int i = 0; i < OWN_WORKERS_MAX; i++)
	{
		if (pg_atomic_read_u32(&own_workers->pids[i]) == (uint32) pid)
			return true;
	}
	return false;
}

/* One number is read without its lock: no walsender may wait for us, should we be stopped here. */
static bool
is_walsender(int pid)
{
	for (int i = 0; i < max_wal_senders; i++)
	{
		if (((volatile WalSnd *) &WalSndCtl->walsnds[i])->pid == pid)
			return true;
	}
	return false;
}

/*
 * Who uses an entry of the process table, 0 = nobody.  Its pid field does not
 * tell: an exiting backend leaves it as it is (seen on 15), but it always gives
 * up the entry's latch, as the last thing it does.
 */
static int
owner_of(const PGPROC *proc)
{
	return ((const volatile Latch *) &proc->procLatch)->owner_pid;
}

/* The process table does not say which auxiliary process is which; the status array does. */
static bool
startup_process_runs(void)
{
	bool		found = false;
	int			n = pgstat_fetch_stat_numbackends();

	for (int i = 1; i <= n && !found; i++)
	{
		LocalPgBackendStatus *entry = nc_pg_backend_status(i);

		found = entry != NULL && entry->backendStatus.st_backendType == B_STARTUP;
	}
	pgstat_clear_backend_activity_snapshot();
	return found;
}

bool
nc_worker_alone(void)
{
	for (int i = 0; i < MaxBackends; i++)
	{
		int			pid = owner_of(&ProcGlobal->allProcs[i]);

		if (pid == 0 || pid == MyProcPid || is_own_worker(pid) || is_walsender(pid))
			continue;
		return false;
	}
	return !RecoveryInProgress() || !startup_process_runs();
}
