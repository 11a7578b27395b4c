/*
 * nc/shared/waits.h
 *	  What processes of the compute wait for, as pg_stat_activity shows it.
 *
 * The names are in waits.c.
 */
#ifndef NC_SHARED_WAITS_H
#define NC_SHARED_WAITS_H

#include "postgres.h"

typedef enum NcWait
{
	NC_WAIT_PAGE_READ,			/* the answer of a page server */
	NC_WAIT_CONNECT,			/* a connection of this process's own to a page server */
	NC_WAIT_RECOVERY_RETRY,		/* recovery, after an error of a page server */
	NC_WAIT_BOUNCE_PAGE,		/* memory for an answer that does not go to shared buffers */
	NC_WAIT_THROTTLE,			/* backpressure */
	NC_WAIT_LET_IN,				/* a login, for page servers to confirm */
	NC_WAIT_CHANGE_MEMBERS,		/* a change of members, for page servers to confirm */
	NC_WAIT_LEASE,				/* an answer, until page servers have granted leases */
	NC_WAIT_FEED_MAIN,			/* workers that have nothing to do */
	NC_WAIT_SWEEPER_MAIN,
	NC_WAIT_SCRUB_MAIN,
	NC_WAIT_CACHE_LIST,
	NC_WAIT_CACHE_WRITER_MAIN,
	NC_WAIT_EXPORTER_MAIN,
	NC_WAIT_TRACER_MAIN
} NcWait;

#define NC_WAITS (NC_WAIT_TRACER_MAIN + 1)

/* For WaitLatch and its like; may be called anywhere. */
extern uint32 nc_wait_event(NcWait wait);

extern void nc_waits_shmem_startup(void);

#endif							/* NC_SHARED_WAITS_H */
