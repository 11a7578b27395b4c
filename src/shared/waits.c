/*
 * waits.c
 *	  Names of our waits.
 *
 * From 17 on the server has names in its shared memory.  The postmaster asks for ours
 * while that is made, and again after a crash, when it is made anew; children inherit
 * the numbers.  So whoever waits takes no lock for it and cannot fail, which he must
 * not in a critical section or with a buffer in his hands.
 */
#include "postgres.h"

#include "nc/compat/server.h"
#include "nc/shared/waits.h"

/* Without a name it is shown as what it is most like. */
static struct
{
	const char *name;
	uint32		event;
}			waits[NC_WAITS] = {
	[NC_WAIT_PAGE_READ] = {"NeonPageRead", WAIT_EVENT_DATA_FILE_READ},
	[NC_WAIT_CONNECT] = {"NeonConnect", WAIT_EVENT_DATA_FILE_READ},
	[NC_WAIT_RECOVERY_RETRY] = {"NeonRecoveryRetry", WAIT_EVENT_DATA_FILE_READ},
	[NC_WAIT_BOUNCE_PAGE] = {"NeonBouncePage", PG_WAIT_EXTENSION},
	[NC_WAIT_THROTTLE] = {"NeonThrottle", PG_WAIT_EXTENSION},
	[NC_WAIT_LET_IN] = {"NeonLetIn", PG_WAIT_EXTENSION},
	[NC_WAIT_CHANGE_MEMBERS] = {"NeonChangeMembers", PG_WAIT_EXTENSION},
	[NC_WAIT_LEASE] = {"NeonLease", PG_WAIT_EXTENSION},
	[NC_WAIT_FEED_MAIN] = {"NeonFeedMain", PG_WAIT_EXTENSION},
	[NC_WAIT_SWEEPER_MAIN] = {"NeonSweeperMain", PG_WAIT_EXTENSION},
	[NC_WAIT_SCRUB_MAIN] = {"NeonScrubMain", PG_WAIT_EXTENSION},
	[NC_WAIT_CACHE_LIST] = {"NeonCacheList", PG_WAIT_EXTENSION},
	[NC_WAIT_CACHE_WRITER_MAIN] = {"NeonCacheWriterMain", PG_WAIT_EXTENSION},
	[NC_WAIT_EXPORTER_MAIN] = {"NeonExporterMain", PG_WAIT_EXTENSION},
	[NC_WAIT_TRACER_MAIN] = {"NeonTracerMain", PG_WAIT_EXTENSION},
};

uint32
nc_wait_event(NcWait wait)
{
	return waits[wait].event;
}

/* In the postmaster. */
void
nc_waits_shmem_startup(void)
{
	for (int i = 0; i < NC_WAITS; i++)
		waits[i].event = nc_pg_wait_event(waits[i].name, waits[i].event);
}
