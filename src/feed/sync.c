/*
 * sync.c
 *	  Page servers that commits wait for (synchronous_standby_names).
 *
 * Runs in the feed.  A page server that the setting lists and that streams has an
 * entry of WalSndCtl, filled as its walsender would fill it; the server's own
 * functions, called as if they ran in that walsender, say what its place in the
 * setting is and release who waits (docs/decisions/0027).
 *
 * Guarantees that nobody has an entry who has not joined, was not judged outside
 * recovery, or is not listed, and that a process that was stopped with the lock of
 * those who wait in its hands does not stop the feed.
 *
 * An entry lives in shared memory and is this process's: whoever ends the feed in
 * order gives it back, a crash makes shared memory anew.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "replication/syncrep.h"
#include "replication/walsender.h"
#include "replication/walsender_private.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/spin.h"
#include "utils/guc.h"
#include "utils/timestamp.h"

#include "feed_internal.h"
#include "nc/compat/server.h"
#include "nc/shared/test_point.h"

#define WARN_PERIOD_MS 60000

/* How often the lock is looked at before others have their turn. */
#define LOCK_ATTEMPTS 10

/* How a page server counts, as pg_stat_replication says it. */
static const char *const async = "async";
static const char *const potential = "potential";
static const char *const in_force[] = {
	[SYNC_REP_PRIORITY] = "sync",
	[SYNC_REP_QUORUM] = "quorum"
};

typedef struct SyncPeer
{
	int			priority;		/* its place in the setting, 0 = not listed */
	WalSnd	   *entry;			/* NULL: does not count */
	const char *state;
	bool		announced;		/* its state in_force was logged */
	TimestampTz warned_at;
} SyncPeer;

static SyncPeer peers[NC_FEED_SLOTS_MAX];

/* Entries that we have. */
static int	nentries = 0;

/* Positions have moved since waiters were released. */
static bool owed = false;

/* ---- what a walsender does ---- */

static void
as_walsender(WalSnd *entry, const char *name, void (*act) (void))
{
	char	   *ours = application_name;

	MyWalSnd = entry;
	application_name = unconstify(char *, name);
	act();
	application_name = ours;
	MyWalSnd = NULL;
}

/* The place of a name in the setting. */
static int
priority_of(const char *name)
{
	WalSnd		nobody = {.sync_standby_priority = -1};

	SpinLockInit(&nobody.mutex);
	as_walsender(&nobody, name, SyncRepInitConfig);
	return nobody.sync_standby_priority;
}

/* The server logs once that the one in whose name it releases counts now: from here on again. */
static void
announce_next(void)
{
	WalSnd		nobody = {.sync_standby_priority = 0};

	as_walsender(&nobody, "", SyncRepReleaseWaiters);
}

/* ---- entries ---- */

/* There is one, since a place was taken for it (places.c). */
static WalSnd *
claim_entry(void)
{
	for (int i = 0; i < max_wal_senders; i++)
	{
		WalSnd	   *entry = &WalSndCtl->walsnds[i];
		bool		mine;

		SpinLockAcquire(&entry->mutex);
		mine = entry->pid == 0;
		if (mine)
		{
			entry->pid = MyProcPid;
			entry->state = WALSNDSTATE_STARTUP;
			entry->needreload = false;
			entry->writeLag = entry->flushLag = entry->applyLag = -1;
			entry->sync_standby_priority = 0;
			nc_pg_walsnd_set_latch(entry, MyLatch);
		}
		SpinLockRelease(&entry->mutex);
		if (mine)
			return entry;
	}
	elog(ERROR, "WAL feed found no entry of a walsender");
}

static void
release_entry(WalSnd *entry)
{
	SpinLockAcquire(&entry->mutex);
	nc_pg_walsnd_set_latch(entry, NULL);
	entry->pid = 0;
	SpinLockRelease(&entry->mutex);
}

static void
warn_of_room(int slot, TimestampTz now)
{
	SyncPeer   *peer = &peers[slot];

	if (!TimestampDifferenceExceeds(peer->warned_at, now, WARN_PERIOD_MS))
		return;
	peer->warned_at = now;
	ereport(WARNING,
			(errmsg("page server \"%s\" does not count in synchronous_standby_names",
					nc_feed_slot_names[slot]),
			 errdetail("All of max_wal_senders = %d are taken.", max_wal_senders),
			 errhint("A page server for which commits may wait is one of them, beside each standby "
					 "and backup. Commits wait while too few count.")));
}

/* False: there is no room. */
static bool
take(int slot, TimestampTz now)
{
	if (!nc_feed_place_take())
	{
		warn_of_room(slot, now);
		return false;
	}
	peers[slot].entry = claim_entry();
	nentries++;
	return true;
}

/* True when it had one. */
static bool
give_back(int slot)
{
	SyncPeer   *peer = &peers[slot];

	if (peer->entry == NULL)
		return false;
	release_entry(peer->entry);
	nc_feed_place_give();
	peer->entry = NULL;
	nentries--;
	return true;
}

static void
give_all_back(int code, Datum arg)
{
	for (int i = nc_feed_slot_after(-1); i >= 0; i = nc_feed_slot_after(i))
		(void) give_back(i);
}

/* Called also before the setting was looked at for the first time. */
void
nc_feed_sync_forget(int slot)
{
	(void) give_back(slot);
	peers[slot] = (SyncPeer) {.state = async};
}

/* ---- who counts ---- */

bool
nc_feed_sync_joined(const NcFeedConn *conn, const NcFeedTurn *turn)
{
	return conn != NULL && nc_feed_streams(conn) && conn->joined && !conn->from_recovery &&
		!turn->limit.in_recovery;
}

static bool
may_count(const NcFeedConn *conn, const NcFeedTurn *turn)
{
	return nc_feed_sync_joined(conn, turn) && nc_feed_quorum_counts(conn);
}

/*
 * True when something of it is new. It says no more than what members have confirmed (members.c), whatever the
 * setting lists. Who else writes an entry writes nothing that is looked at here.
 */
static bool
fill_entry(WalSnd *entry, int priority, const NcFeedConn *conn)
{
	const NcFeedCap *cap = nc_feed_members_cap();
	XLogRecPtr	write = Min(conn->write, cap->write);
	XLogRecPtr	flush = Min(conn->flush, cap->flush);
	XLogRecPtr	apply = Min(conn->apply, cap->apply);
	WalSndState state = conn->caught_up ? WALSNDSTATE_STREAMING : WALSNDSTATE_CATCHUP;
	bool		same = entry->state == state && entry->sync_standby_priority == priority &&
		entry->write == write && entry->flush == flush && entry->apply == apply;

	if (same && entry->sentPtr == conn->sent && entry->replyTime == conn->reply_time)
		return false;
	SpinLockAcquire(&entry->mutex);
	entry->state = state;
	entry->sentPtr = conn->sent;
	entry->write = write;
	entry->flush = flush;
	entry->apply = apply;
	entry->sync_standby_priority = priority;
	entry->replyTime = conn->reply_time;
	SpinLockRelease(&entry->mutex);
	return !same;
}

static bool
look_at(int slot, const NcFeedTurn *turn)
{
	NcFeedConn *conn = nc_feed_slot_conn(slot);
	SyncPeer   *peer = &peers[slot];

	if (peer->priority == 0 || !may_count(conn, turn))
		return give_back(slot);
	if (peer->entry == NULL && !take(slot, turn->now))
		return false;
	return fill_entry(peer->entry, peer->priority, conn);
}

static bool
counts(const SyncPeer *peer)
{
	return peer->state != async && peer->state != potential;
}

/*
 * Finds out as what each counts; true when somebody counts who did not before.  Others may take
 * part in that, so it is asked in each turn.
 */
static bool
find_states(void)
{
	SyncRepStandbyData *candidates;
	int			n = SyncRepGetCandidateStandbys(&candidates);
	bool		news = false;

	for (int slot = nc_feed_slot_after(-1); slot >= 0; slot = nc_feed_slot_after(slot))
	{
		SyncPeer   *peer = &peers[slot];

		peer->state = peer->entry != NULL ? potential : async;
		for (int i = 0; i < n && peer->entry != NULL; i++)
		{
			if (peer->entry == &WalSndCtl->walsnds[candidates[i].walsnd_index])
				peer->state = in_force[SyncRepConfig->syncrep_method];
		}
		peer->announced &= counts(peer);
		news |= counts(peer) && !peer->announced;
	}
	pfree(candidates);
	return news;
}

/* ---- who waits ---- */

static bool
lock_is_free(void)
{
	if (NC_TEST_TRUE("feed-sync-locked"))
		return false;
	for (int i = 0; i < LOCK_ATTEMPTS; i++)
	{
		if (LWLockConditionalAcquire(SyncRepLock, LW_EXCLUSIVE))
		{
			LWLockRelease(SyncRepLock);
			return true;
		}
	}
	return false;
}

/*
 * Releases who waits for no more than what page servers and standbys have.  Whose name is lent
 * matters for the log only, so that it is done once, but for those who are new.
 */
static void
release_waiters(void)
{
	bool		released = false;

	for (int slot = nc_feed_slot_after(-1); slot >= 0; slot = nc_feed_slot_after(slot))
	{
		SyncPeer   *peer = &peers[slot];

		if (!counts(peer) || (released && peer->announced))
			continue;
		if (!peer->announced)
			announce_next();
		as_walsender(peer->entry, nc_feed_slot_names[slot], SyncRepReleaseWaiters);
		peer->announced = true;
		released = true;
	}
}

/* ---- the feed's turn ---- */

void
nc_feed_sync_tick(const NcFeedTurn *turn)
{
	for (int slot = nc_feed_slot_after(-1); slot >= 0; slot = nc_feed_slot_after(slot))
		owed |= look_at(slot, turn);
	owed |= find_states();
	if (owed && lock_is_free())
	{
		release_waiters();
		owed = false;
	}
}

bool
nc_feed_sync_awaited(void)
{
	return nentries > 0;
}

bool
nc_feed_sync_owed(void)
{
	return owed;
}

int
nc_feed_sync_priority(int slot)
{
	return peers[slot].priority;
}

const char *
nc_feed_sync_state(int slot)
{
	return peers[slot].state;
}

void
nc_feed_sync_reloaded(void)
{
	for (int slot = nc_feed_slot_after(-1); slot >= 0; slot = nc_feed_slot_after(slot))
	{
		peers[slot].priority = priority_of(nc_feed_slot_names[slot]);
		peers[slot].state = async;
	}
}

void
nc_feed_sync_init(void)
{
	nc_feed_sync_reloaded();
	on_shmem_exit(give_all_back, (Datum) 0);
}
