/*
 * program.c
 *	  How a process of neon_comm is registered, told to stop or to read its
 *	  settings again, and ends.
 */
#include "postgres.h"

#include <signal.h>

#include "miscadmin.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

#include "nc/safety/workers.h"
#include "nc/shared/alone.h"

#include "program.h"

/* ---- signals ---- */

static void (*kick) (void) = NULL;

static void
program_wake(void)
{
	SetLatch(MyLatch);
	if (kick != NULL)
		kick();
}

static void
on_sigterm(SIGNAL_ARGS)
{
	int			save_errno = errno;

	ShutdownRequestPending = true;
	program_wake();
	errno = save_errno;
}

static void
on_sighup(SIGNAL_ARGS)
{
	int			save_errno = errno;

	ConfigReloadPending = true;
	program_wake();
	errno = save_errno;
}

/* ---- registering ---- */

static BackgroundWorker
program_worker(const NcProgram *program)
{
	BackgroundWorker worker = {
		.bgw_flags = BGWORKER_SHMEM_ACCESS | (program->session ? BGWORKER_BACKEND_DATABASE_CONNECTION : 0),
		.bgw_start_time = program->starts,
		.bgw_restart_time = program->once ? BGW_NEVER_RESTART : 1,
		.bgw_library_name = "neon_comm"
	};

	strlcpy(worker.bgw_name, program->name, sizeof(worker.bgw_name));
	strlcpy(worker.bgw_type, program->name, sizeof(worker.bgw_type));
	strlcpy(worker.bgw_function_name, program->main, sizeof(worker.bgw_function_name));
	return worker;
}

void
nc_program_register(const NcProgram *program)
{
	BackgroundWorker worker = program_worker(program);

	nc_workers_register(&worker);
}

bool
nc_program_start(const NcProgram *program, int arg)
{
	BackgroundWorkerHandle *handle;

	if (!nc_program_start_handle(program, arg, &handle))
		return false;
	pfree(handle);
	return true;
}

bool
nc_program_start_handle(const NcProgram *program, int arg, BackgroundWorkerHandle **handle)
{
	BackgroundWorker worker = program_worker(program);
	MemoryContext before = MemoryContextSwitchTo(TopMemoryContext);
	bool		started;

	worker.bgw_main_arg = Int32GetDatum(arg);
	started = RegisterDynamicBackgroundWorker(&worker, handle);
	MemoryContextSwitchTo(before);
	return started;
}

/* ---- life ---- */

void
nc_program_begin(const NcProgram *program)
{
	kick = program->kick;
	pqsignal(SIGTERM, program->dies ? die : on_sigterm);
	pqsignal(SIGHUP, on_sighup);
	BackgroundWorkerUnblockSignals();
	if (!program->once)
		nc_worker_register_self();
}

void
nc_program_turn_memory(const NcProgram *program)
{
	MemoryContext context = AllocSetContextCreate(TopMemoryContext, "neon_comm program",
												  ALLOCSET_DEFAULT_SIZES);

	MemoryContextSetIdentifier(context, program->name);
	MemoryContextSwitchTo(context);
}

bool
nc_program_reload(void)
{
	if (!ConfigReloadPending)
		return false;
	ConfigReloadPending = false;
	ProcessConfigFile(PGC_SIGHUP);
	return true;
}

void
nc_program_end(void)
{
	/* 0 would make the postmaster forget this worker */
	proc_exit(1);
}
