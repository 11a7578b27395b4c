/*
 * environment.c
 *	  See nc/safety/environment.h.
 */
#include "postgres.h"

#include "nc/base/environment.h"
#include "nc/safety/environment.h"

void
nc_environment_forget(const char *detail)
{
	char		removed[512];

	if (nc_environment_clean(removed, sizeof(removed)) > 0)
		ereport(LOG,
				(errmsg("removed from the environment of this server: %s", removed),
				 errdetail_internal("%s", detail)));
}
