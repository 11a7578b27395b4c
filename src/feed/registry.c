/*
 * registry.c
 *	  Which page servers are registered: names and their numbers.
 *
 * Runs in the feed.  neon_comm.wal_feed_slots may change while the server runs.  A page
 * server keeps its number for as long as its name is in the list, so that whatever is known
 * by number stays where it is; the number of a name that has gone is given to the next new
 * one, when everything that was known by it has been forgotten.
 *
 * The rows of the view, in shared memory, say which name has which number: they outlive
 * this process, and what its successor finds there it compares with the setting.
 */
#include "postgres.h"

#include "utils/guc.h"

#include "feed_internal.h"

int			nc_feed_nslots = 0;
char		nc_feed_slot_names[NC_FEED_SLOTS_MAX][NAMEDATALEN];

/* Numbers from here on have never been given. */
static int	end_of_numbers = 0;

int
nc_feed_slot_after(int slot)
{
	do
		slot++;
	while (slot < end_of_numbers && nc_feed_slot_names[slot][0] == '\0');
	return slot < end_of_numbers ? slot : -1;
}

int
nc_feed_slot_find(const char *name)
{
	for (int i = nc_feed_slot_after(-1); i >= 0; i = nc_feed_slot_after(i))
	{
		if (strcmp(nc_feed_slot_names[i], name) == 0)
			return i;
	}
	return -1;
}

static bool
is_in_list(const char *name)
{
	for (int i = 0; i < nc_feed_listed.count; i++)
	{
		if (strcmp(nc_feed_listed.names[i], name) == 0)
			return true;
	}
	return false;
}

static void
strike_out(int slot)
{
	NcFeedPeer	nobody = {0};

	ereport(LOG,
			(errmsg("page server \"%s\" is not in neon_comm.wal_feed_slots any more", nc_feed_slot_names[slot]),
			 errdetail("Nobody holds its replication slot, which goes on keeping WAL."),
			 errhint("Drop the slot with pg_drop_replication_slot when the page server is not to come back.")));
	nc_feed_retain_forget(slot);
	nc_feed_sync_forget(slot);
	nc_feed_join_forget(slot);
	nc_feed_stream_forget(slot);
	nc_feed_lag_forget(slot);
	nc_feed_quorum_forget(slot);
	nc_feed_slot_names[slot][0] = '\0';
	nc_feed_row_write(slot, &nobody);
	nc_feed_nslots--;
}

static void
enter(const char *name)
{
	NcFeedPeer	row = {0};
	int			slot = 0;

	/* as many numbers as names can be in a list, and those that have gone were struck out */
	while (nc_feed_slot_names[slot][0] != '\0')
		slot++;
	Assert(slot < NC_FEED_SLOTS_MAX);
	strlcpy(nc_feed_slot_names[slot], name, NAMEDATALEN);
	end_of_numbers = Max(end_of_numbers, slot + 1);
	nc_feed_nslots++;
	strlcpy(row.name, name, NAMEDATALEN);
	strlcpy(row.state, "absent", NC_FEED_STATE_BYTES);
	nc_feed_row_write(slot, &row);
	ereport(LOG, (errmsg("page server \"%s\" was added to neon_comm.wal_feed_slots", name)));
}

void
nc_feed_registry_reloaded(void)
{
	for (int i = nc_feed_slot_after(-1); i >= 0; i = nc_feed_slot_after(i))
	{
		if (!is_in_list(nc_feed_slot_names[i]))
			strike_out(i);
	}
	for (int i = 0; i < nc_feed_listed.count; i++)
	{
		if (nc_feed_slot_find(nc_feed_listed.names[i]) < 0)
			enter(nc_feed_listed.names[i]);
	}
}

void
nc_feed_registry_init(void)
{
	for (int i = 0; i < NC_FEED_SLOTS_MAX; i++)
	{
		NcFeedPeer	row;

		nc_feed_row_read(i, &row);
		strlcpy(nc_feed_slot_names[i], row.name, NAMEDATALEN);
		if (row.name[0] == '\0')
			continue;
		end_of_numbers = i + 1;
		nc_feed_nslots++;
	}
}
