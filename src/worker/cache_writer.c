/*
 * cache_writer.c
 *	  The background worker "neon_comm cache writer": src/filecache/writer.c in a
 *	  process of its own.
 *
 * At a stop it empties the outbox and ends; what comes later the checkpointer
 * and the postmaster write (nc_filecache_drain).
 */
#include "postgres.h"

#include "postmaster/interrupt.h"

#include "nc/filecache/writer.h"
#include "nc/shared/settings.h"
#include "nc/worker/programs.h"

#include "program.h"

PGDLLEXPORT void nc_filecache_writer_main(Datum arg);

static const NcProgram program = {
	.name = "neon_comm cache writer",
	.main = "nc_filecache_writer_main",
	.starts = BgWorkerStart_RecoveryFinished
};

void
nc_filecache_writer_register(void)
{
	if (nc_guc_lfc_size > 0)
		nc_program_register(&program);
}

void
nc_filecache_writer_main(Datum arg)
{
	int			idle = 0;

	nc_program_begin(&program);
	nc_filecache_writer_begin();
	for (;;)
	{
		if (nc_program_reload())
			nc_filecache_writer_reloaded();
		if (nc_filecache_writer_turn())
			idle = 0;
		else if (ShutdownRequestPending)
			nc_program_end();
		else
			idle++;
		if (!ShutdownRequestPending)
			nc_filecache_writer_nap(idle);
	}
}
