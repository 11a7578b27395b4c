/*
 * nc/safety/settings.h
 *	  Settings of the server that must have, and keep, one value.
 */
#ifndef NC_SAFETY_SETTINGS_H
#define NC_SAFETY_SETTINGS_H

#include "postgres.h"

typedef struct NcSafeSetting
{
	const char *name;			/* a setting that this server version has not is passed over */
	const char *safe;			/* "on", "off", a number; for a string the exact value */
	bool		(*is_safe) (const char *value); /* for a string, instead of comparing; or NULL */
	const char *why;			/* errdetail: what another value would do */
} NcSafeSetting;

/*
 * Checks the values that are in force, and from then on refuses every other one
 * wherever it comes from: SET, ALTER SYSTEM, ALTER ROLE, a reload, a command line;
 * in this process and in all that it forks. In the postmaster, while libraries are
 * preloaded; the array must stay. FATAL for a value in force that is not safe.
 *
 * "escape" is the name of the setting which allows everything. When it is on, a
 * value that is not safe is a WARNING, and nothing is refused. NULL: nothing allows it.
 */
extern void nc_safe_settings(const NcSafeSetting *settings, int n, const char *escape, bool allowed);

#endif							/* NC_SAFETY_SETTINGS_H */
