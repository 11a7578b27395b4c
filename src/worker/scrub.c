/*
 * scrub.c
 *	  The background workers "neon_comm scrub", which compares page servers slowly while
 *	  neon_comm.scrub_rate is not 0, and "neon_comm scrub session", which looks again at what
 *	  looked wrong to it (src/check/scrub.c).
 *
 * The sweeper starts the first, so that there is none while it is off; that starts the second
 * and waits for it.  Errors end either; the sweeper starts the first again.
 */
#include "postgres.h"

#include "catalog/pg_database.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

#include "nc/check/scrub.h"
#include "nc/compat/server.h"
#include "nc/shared/settings.h"
#include "nc/shared/waits.h"
#include "nc/worker/scrub.h"

#include "program.h"

/* Between two rounds, at the least: a small cluster has them all the time. */
#define ROUND_PAUSE_MS 1000

/* So often the first looks whether the second has ended. */
#define SESSION_LOOK_MS 100

PGDLLEXPORT void nc_scrub_main(Datum arg);
PGDLLEXPORT void nc_scrub_session_main(Datum arg);

static const NcProgram program = {
	.name = "neon_comm scrub",
	.main = "nc_scrub_main",
	.starts = BgWorkerStart_RecoveryFinished,
	.once = true,
	.dies = true
};

static const NcProgram session_program = {
	.name = "neon_comm scrub session",
	.main = "nc_scrub_session_main",
	.starts = BgWorkerStart_RecoveryFinished,
	.once = true,
	.dies = true,
	.session = true
};

/* ---- the one that compares ---- */

static void
scrub_wait(long ms)
{
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, ms,
					 nc_wait_event(NC_WAIT_SCRUB_MAIN));
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

static bool
scrub_rest(long ms)
{
	scrub_wait(ms);
	return nc_program_reload();
}

static void
look_again_in(Oid db)
{
	BackgroundWorkerHandle *handle;
	pid_t		pid;

	if (!nc_program_start_handle(&session_program, (int) db, &handle))
		return;
	while (GetBackgroundWorkerPid(handle, &pid) != BGWH_STOPPED)
		scrub_wait(SESSION_LOOK_MS);
	pfree(handle);
}

/* In no database at first, to see whether that is there. What all share can be seen from each; template1 is always there. */
static void
scrub_look_again(Oid db)
{
	if (OidIsValid(db))
		look_again_in(InvalidOid);
	if (atomic_load(&nc_scrub->passed_by) == 0)
		look_again_in(OidIsValid(db) ? db : Template1DbOid);
}

static void
scrub_leave(int code, Datum arg)
{
	atomic_store(&nc_scrub->state, NC_SCRUB_OFF);
	atomic_store(&nc_scrub->pid, 0);
}

void
nc_scrub_main(Datum arg)
{
	static const NcScrubHost host = {.rest = scrub_rest,.look_again = scrub_look_again};

	nc_program_begin(&program);
	CurrentResourceOwner = ResourceOwnerCreate(NULL, program.name);
	nc_program_turn_memory(&program);
	atomic_store(&nc_scrub->pid, (uint32) MyProcPid);
	before_shmem_exit(scrub_leave, 0);
	while (nc_guc_scrub_rate > 0)
	{
		nc_scrub_round(&host);
		MemoryContextReset(CurrentMemoryContext);
		(void) scrub_rest(ROUND_PAUSE_MS);
	}
	proc_exit(0);
}

/* ---- the one that looks again ---- */

static void
session_leave(int code, Datum arg)
{
	atomic_store(&nc_scrub->session_pid, 0);
}

void
nc_scrub_session_main(Datum arg)
{
	uint32		nobody = 0;

	nc_program_begin(&session_program);
	/* one whose asker was ended may be there still */
	if (!atomic_compare_exchange_strong(&nc_scrub->session_pid, &nobody, (uint32) MyProcPid))
		proc_exit(0);
	before_shmem_exit(session_leave, 0);
	BackgroundWorkerInitializeConnectionByOid((Oid) DatumGetInt32(arg), InvalidOid, BGWORKER_BYPASS_ALLOWCONN);
	nc_scrub_look_again();
	proc_exit(0);
}

/* ---- starting ---- */

void
nc_scrub_start(void)
{
	static BackgroundWorkerHandle *handle = NULL;
	static bool told = false;
	pid_t		pid;

	/* who started it before may have been another sweeper */
	if (nc_guc_scrub_rate == 0 || atomic_load(&nc_scrub->pid) != 0 ||
		(handle != NULL && GetBackgroundWorkerPid(handle, &pid) != BGWH_STOPPED))
		return;
	if (handle != NULL)
		pfree(handle);
	handle = NULL;
	if (nc_program_start_handle(&program, 0, &handle))
		told = false;
	else if (!told)
		ereport(LOG,
				(errmsg("neon_comm scrub was not started: no background worker is free"),
				 errhint("Raise max_worker_processes. It is tried again.")));
	told = handle == NULL;
}
