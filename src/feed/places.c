/*
 * places.c
 *	  Entries of WalSndCtl are counted before they are taken.
 *
 * Runs in the feed and in each walsender.  The server thinks that there are as many
 * entries as processes for walsenders, and a walsender that finds none free crashes.
 * The feed has entries without such a process (sync.c).  So whoever is going to have
 * an entry takes a place first, of which there are max_wal_senders: the feed when it
 * needs one, a walsender when it has logged in.  What is taken first goes back last,
 * so entries are never more than places.  A crash makes shared memory anew.
 */
#include "postgres.h"

/* The headers of Kerberos need not be here; nothing below looks into what depends on them. */
#undef ENABLE_GSS

#include "libpq/auth.h"
#include "replication/walsender.h"
#include "storage/ipc.h"

#include "feed_internal.h"

static ClientAuthentication_hook_type next_authentication = NULL;

static void
leave_place(int code, Datum arg)
{
	nc_feed_place_give();
}

/* Called before the walsender takes its entry, and its own exit callback before ours. */
static void
on_walsender(Port *port, int status)
{
	if (next_authentication != NULL)
		next_authentication(port, status);
	if (!am_walsender || status != STATUS_OK)
		return;
	if (!nc_feed_place_take())
		ereport(FATAL,
				(errcode(ERRCODE_TOO_MANY_CONNECTIONS),
				 errmsg("number of requested standby connections exceeds max_wal_senders (currently %d)",
						max_wal_senders),
				 errdetail("Each page server that commits may wait for is one of them.")));
	on_shmem_exit(leave_place, (Datum) 0);
}

void
nc_feed_places_init(void)
{
	next_authentication = ClientAuthentication_hook;
	ClientAuthentication_hook = on_walsender;
}
