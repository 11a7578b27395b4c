/*
 * environment.c
 *	  Takes libpq's variables out of the environment.
 *
 * Runs in the postmaster of a compute and of a page server, at its start.
 */
#include "nc/base/environment.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NAME_BYTES 64

/* By the form of the name: later versions of libpq know more of them. */
static bool
is_of_libpq(const char *variable, char name[NAME_BYTES])
{
	size_t		n = strcspn(variable, "=");

	if (n >= NAME_BYTES || strncmp(variable, "PG", 2) != 0 ||
		strspn(variable, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789") != n)
		return false;
	memcpy(name, variable, n);
	name[n] = '\0';
	return strcmp(name, "PGDATA") != 0 && strcmp(name, "PGLOCALEDIR") != 0;
}

int
nc_environment_clean(char *removed, size_t bytes)
{
	char		name[NAME_BYTES];
	int			count = 0;
	size_t		used = 0;

	removed[0] = '\0';
	for (char **v = environ; v != NULL && *v != NULL;)
	{
		if (!is_of_libpq(*v, name))
		{
			v++;
			continue;
		}
		(void) unsetenv(name);
		/* what was behind it has moved */
		v = environ;
		/* every server sets this one itself when it starts: nothing to tell */
		if (strcmp(name, "PGSYSCONFDIR") == 0)
			continue;
		if (used + strlen(name) + 2 <= bytes)
			used += (size_t) snprintf(removed + used, bytes - used, "%s%s", count > 0 ? " " : "", name);
		count++;
	}
	return count;
}
