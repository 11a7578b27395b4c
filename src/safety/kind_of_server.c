/*
 * kind_of_server.c
 *	  See nc/safety/kind_of_server.h.
 */
#include "postgres.h"

#include <dlfcn.h>

#include "storage/smgr.h"

#include "nc/safety/kind_of_server.h"

/* The Makefile has found it in the headers; 18 has a function to register with instead of a hook. */
#ifdef NC_FRONT_DOOR
#define BUILT_WITH_HOOK true
#else
#define BUILT_WITH_HOOK false
#endif

void
nc_kind_of_server_check(const char *library)
{
	bool		has_hook = dlsym(RTLD_DEFAULT, "smgr_hook") != NULL ||
		dlsym(RTLD_DEFAULT, "smgrregister") != NULL;

	if (has_hook == BUILT_WITH_HOOK)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("this %s was built for servers %s a storage-manager hook, and this server has %s", library,
					BUILT_WITH_HOOK ? "with" : "without", has_hook ? "one" : "none"),
			 errhint("Install the %s that was built with the headers of this server.", library)));
}
