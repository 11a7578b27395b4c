/*
 * map_settings.c
 *	  Holds list and stripe together: when a reload refuses one, it takes neither.
 *
 * The server takes each setting by itself, so a typing error in the list leaves
 * the old list beside a new stripe, which no page server serves.  Each process
 * therefore keeps the pair that was good, and looks at each reload for which of
 * the two is refused: the list by its check hook, the stripe by a hook that is
 * not called, since a number that cannot be is refused before any hook runs.
 *
 * Runs in every process, in the postmaster within a signal handler too; children
 * inherit its pair.  A parallel worker stays with that: the settings that it gets from
 * its leader may be those of a reload that was refused and has been put right since.
 */
#include "postgres.h"

#include <pthread.h>

#include "access/parallel.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "nc/compat/server.h"
#include "nc/shared/map_settings.h"
#include "nc/shared/settings.h"

static char *good_list = NULL;
static int	good_stripe;

static bool list_refused = false;	/* until it is judged good: a line that is lost is judged once */
static bool stripe_refused = false;
static TimestampTz judged_after = 0;	/* the reload before the one that was judged last */

/* Is a reload under way?  The start, ALTER SYSTEM and pg_file_settings have settings judged, too. */
static bool
is_reload(void)
{
	return strcmp(CurrentMemoryContext->name, "config file processing") == 0;
}

static bool
is_in_file(const char *name)
{
	int			n;
	struct config_generic **all = nc_pg_settings(&n);

	for (int i = 0; i < n; i++)
		if (strcmp(all[i]->name, name) == 0)
			return (all[i]->status & GUC_IS_IN_FILE) != 0;
	return false;
}

/* Without memory it stays as it was, until the next time. */
static void
take_both(void)
{
	if (list_refused || stripe_refused || IsParallelWorker())
		return;
	if (good_list == NULL || strcmp(good_list, nc_guc_page_servers) != 0)
	{
		char	   *copy = strdup(nc_guc_page_servers);

		if (copy == NULL)
			return;
		free(good_list);
		good_list = copy;
	}
	good_stripe = nc_guc_stripe_size;
}

void
nc_map_settings_init(void)
{
	if (pthread_atfork(take_both, NULL, NULL) != 0)
		ereport(FATAL, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
}

/* Before a reload changes anything: what is in force now is kept. */
static bool
begin_judging(void)
{
	if (!is_reload())
		return false;
	if (judged_after == PgReloadTime)
		return true;
	take_both();
	judged_after = PgReloadTime;
	stripe_refused = is_in_file("neon_comm.stripe_size");
	return true;
}

void
nc_map_list_judged(bool good)
{
	if (begin_judging())
		list_refused = !good;
}

void
nc_map_stripe_judged(void)
{
	if (begin_judging())
		stripe_refused = false;
}

const char *
nc_map_refused(void)
{
	return list_refused ? "neon_comm.page_servers" : stripe_refused ? "neon_comm.stripe_size" : NULL;
}

NcMapSettings
nc_map_settings(void)
{
	take_both();
	return (NcMapSettings) {good_list != NULL ? good_list : "", good_stripe};
}
