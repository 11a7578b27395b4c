/*
 * workers.c
 *	  See nc/safety/workers.h.
 */
#include "postgres.h"

#include "miscadmin.h"

#include "nc/compat/server.h"
#include "nc/safety/workers.h"

static int	without_room = 0;

void
nc_workers_register(BackgroundWorker *worker)
{
	int			before = nc_pg_workers_registered();

	RegisterBackgroundWorker(worker);
	if (nc_pg_workers_registered() == before)
		without_room++;
}

void
nc_workers_check(const char *library)
{
	/* in single-user mode there are none */
	if (without_room == 0 || !IsPostmasterEnvironment)
		return;
	ereport(FATAL,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("max_worker_processes = %d is too small", max_worker_processes),
			 errdetail("With those of %s there are at least %d background workers at all times.",
					   library, nc_pg_workers_registered() + without_room),
			 errhint("Set max_worker_processes to that and as many more as parallel queries and "
					 "other libraries need.")));
}
