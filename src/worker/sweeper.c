/*
 * sweeper.c
 *	  The background worker "neon_comm sweeper": scrubs after a start the files that
 *	  nobody has used, sweeps every neon_comm.sweep_interval, has the file cache
 *	  filled once after a start, and page servers compared while neon_comm.scrub_rate is set.
 *
 * Reads no page, waits for no page server.  Errors end it; it is started again.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

#include "nc/shared/settings.h"
#include "nc/shared/waits.h"
#include "nc/smgr/skeleton.h"
#include "nc/smgr/stock_trap.h"
#include "nc/smgr/sweeper.h"
#include "nc/worker/cache_list.h"
#include "nc/worker/prewarm.h"
#include "nc/worker/programs.h"
#include "nc/worker/scrub.h"

#include "program.h"

/* After a start it looks so often, so many times, whether the file cache is there to be filled. */
#define EARLY_LOOK_MS 50
#define EARLY_LOOKS 200

PGDLLEXPORT void nc_sweeper_main(Datum arg);

static const NcProgram program = {
	.name = "neon_comm sweeper",
	.main = "nc_sweeper_main",
	.starts = BgWorkerStart_RecoveryFinished,
	.dies = true
};

void
nc_sweeper_register(void)
{
	nc_program_register(&program);
}

void
nc_sweeper_main(Datum arg)
{
	int			early_looks = 0;

	nc_program_begin(&program);
	CurrentResourceOwner = ResourceOwnerCreate(NULL, program.name);
	nc_program_turn_memory(&program);
	nc_stock_trap_set();
	nc_skeleton_scrub_rest();

	for (;;)
	{
		/* the file cache is about to come up, and queries want its pages: that does not wait for a round */
		bool		early = !nc_prewarm_at_start() && early_looks++ < EARLY_LOOKS;
		int			events = WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
									   early ? Min(EARLY_LOOK_MS, nc_guc_sweep_interval) :
									   nc_guc_sweep_interval,
									   nc_wait_event(NC_WAIT_SWEEPER_MAIN));

		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		(void) nc_program_reload();
		nc_scrub_start();
		nc_cache_list_turn();
		if (!early || (events & WL_LATCH_SET) != 0)
			(void) nc_sweep();
		MemoryContextReset(CurrentMemoryContext);
	}
}
