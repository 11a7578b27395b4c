/*
 * exporter.c
 *	  The background worker "neon_comm exporter": answers by HTTP what shared memory
 *	  says (src/metrics), over src/exporter.
 *
 * Starts with the postmaster, ends as soon as it is told to: nobody needs it to stop.
 */
#include "postgres.h"

#include "postmaster/interrupt.h"
#include "utils/memutils.h"

#include "nc/metrics/metrics.h"
#include "nc/shared/waits.h"
#include "nc/worker/programs.h"

#include "program.h"

PGDLLEXPORT void nc_exporter_main(Datum arg);

static const NcProgram program = {
	.name = "neon_comm exporter",
	.main = "nc_exporter_main",
	.starts = BgWorkerStart_PostmasterStart,
	.kick = nc_exporter_kick
};

void
nc_exporter_register(void)
{
	nc_program_register(&program);
}

void
nc_exporter_main(Datum arg)
{
	nc_exporter_prepare();
	nc_program_begin(&program);
	nc_exporter_begin(&nc_metrics_exporter);
	nc_program_turn_memory(&program);
	while (!ShutdownRequestPending)
	{
		MemoryContextReset(CurrentMemoryContext);
		if (nc_program_reload())
			nc_exporter_reloaded();
		nc_exporter_turn(nc_wait_event(NC_WAIT_EXPORTER_MAIN));
	}
	nc_program_end();
}
