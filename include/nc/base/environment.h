/*
 * nc/base/environment.h
 *	  The environment of a server: what libpq would read there is not meant for it.
 *
 * Variables of the shell that starts a server (PGHOSTADDR, PGSSLMODE, PGPASSFILE,
 * PGOPTIONS...) fill in what a connection string leaves open.  Connections of ours
 * mean what their strings say, on every machine and from every shell.
 */
#ifndef NC_BASE_ENVIRONMENT_H
#define NC_BASE_ENVIRONMENT_H

#include "nc/base/check.h"

/*
 * Removes every variable whose name is PG and letters or digits, except PGDATA and
 * PGLOCALEDIR, which libpq does not connect by.  Their names, separated by blanks, go
 * to `removed`, as many as fit; returns how many there were.  For the postmaster, before
 * it has children or threads.
 */
extern int	nc_environment_clean(char *removed, size_t bytes);

#endif							/* NC_BASE_ENVIRONMENT_H */
