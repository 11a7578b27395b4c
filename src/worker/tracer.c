/*
 * tracer.c
 *	  The background worker "neon_comm tracer": writes traced requests out (docs/tracing.md),
 *	  over src/tracer.
 *
 * Only there when it has an outlet.  Ends as soon as it is told to: nobody needs it to stop.
 */
#include "postgres.h"

#include "postmaster/interrupt.h"

#include "nc/shared/waits.h"
#include "nc/tracer/tracer.h"
#include "nc/tracing/tracing.h"
#include "nc/worker/programs.h"

#include "program.h"

PGDLLEXPORT void nc_tracer_main(Datum arg);

static const NcProgram program = {
	.name = "neon_comm tracer",
	.main = "nc_tracer_main",
	.starts = BgWorkerStart_PostmasterStart
};

void
nc_tracer_register(void)
{
	if (nc_tracing_enabled())
		nc_program_register(&program);
}

void
nc_tracer_main(Datum arg)
{
	nc_program_begin(&program);
	nc_program_turn_memory(&program);
	nc_tracer_begin(&nc_tracing_tracer);
	while (!ShutdownRequestPending)
	{
		(void) nc_program_reload();
		nc_tracer_turn(nc_wait_event(NC_WAIT_TRACER_MAIN));
	}
	nc_tracer_end();
	nc_program_end();
}
