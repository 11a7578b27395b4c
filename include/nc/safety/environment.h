/*
 * nc/safety/environment.h
 *	  A server does not connect by what the shell that starts it has set.
 */
#ifndef NC_SAFETY_ENVIRONMENT_H
#define NC_SAFETY_ENVIRONMENT_H

/*
 * Takes libpq's variables out of the environment (nc/base/environment.h) and logs which
 * there were, with `detail`.  In the postmaster, while libraries are preloaded.
 */
extern void nc_environment_forget(const char *detail);

#endif							/* NC_SAFETY_ENVIRONMENT_H */
