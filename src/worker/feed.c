/*
 * feed.c
 *	  The background worker "neon_comm WAL feed": src/feed in a process of its own.
 *
 * Starts with the postmaster, because recovery needs page servers and these need
 * WAL.  SIGTERM does not end it at once: processes that exit still read pages, and
 * what is flushed should still reach the page servers.
 */
#include "postgres.h"

#include "postmaster/interrupt.h"
#include "utils/memutils.h"

#include "nc/feed/turn.h"
#include "nc/worker/overtaken.h"
#include "nc/worker/programs.h"

#include "program.h"

PGDLLEXPORT void nc_feed_main(Datum arg);

static const NcProgram program = {
	.name = "neon_comm WAL feed",
	.main = "nc_feed_main",
	.starts = BgWorkerStart_PostmasterStart,
	.kick = nc_feed_doorbell_press
};

void
nc_feed_register(void)
{
	nc_program_register(&program);
}

void
nc_feed_main(Datum arg)
{
	nc_program_begin(&program);
	nc_feed_begin();
	nc_program_turn_memory(&program);
	do
	{
		MemoryContextReset(CurrentMemoryContext);
		if (nc_program_reload())
			nc_feed_reloaded();
		if (!ShutdownRequestPending)
			nc_overtaken_turn();
	} while (nc_feed_turn(ShutdownRequestPending));
	nc_program_end();
}
