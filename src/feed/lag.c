/*
 * lag.c
 *	  How far page servers are behind: what writers of WAL are slowed down by.
 *
 * Runs in the feed.  Publishes one position for each kind of lag, that of the
 * slowest page server, so that a writer needs to look at four words.  A page
 * server that is away or has not told its positions counts for none but
 * retention: a dead one must not stop the writers, unless
 * neon_comm.max_retained_wal says so.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "utils/timestamp.h"

#include "feed_internal.h"

#define WARN_PERIOD_MS 60000

static const char *const limit_names[NC_LAG_KINDS] = {
	"neon_comm.max_write_lag", "neon_comm.max_flush_lag", "neon_comm.max_apply_lag",
	"neon_comm.max_retained_wal"
};

static TimestampTz warned_at[NC_FEED_SLOTS_MAX];

/* What writers compare with: the end of WAL, flushed or not; 0 in recovery. */
static XLogRecPtr end_of_wal = InvalidXLogRecPtr;

/* All ones: this page server does not count. */
static XLogRecPtr
position(int slot, NcLagKind kind)
{
	NcFeedConn *conn = nc_feed_slot_conn(slot);
	XLogRecPtr	lsn = InvalidXLogRecPtr;

	if (kind == NC_LAG_RETAINED)
		lsn = nc_feed_slot_retained_from(slot);
	else if (conn != NULL && nc_feed_streams(conn) && conn->greeted)
		lsn = kind == NC_LAG_WRITE ? conn->write : kind == NC_LAG_FLUSH ? conn->flush : conn->apply;
	return lsn == InvalidXLogRecPtr ? PG_UINT64_MAX : lsn;
}

static uint64
lag_mb(int slot, NcLagKind kind)
{
	XLogRecPtr	lsn = position(slot, kind);

	return end_of_wal > lsn ? (end_of_wal - lsn) / (1024 * 1024) : 0;
}

/* The first limit that a page server exceeds, or NC_LAG_KINDS. */
static NcLagKind
exceeded(int slot)
{
	NcLagKind	kind = NC_LAG_WRITE;

	while (kind < NC_LAG_KINDS &&
		   (nc_feed_max_lag_mb[kind] == 0 ||
			lag_mb(slot, kind) < (uint64) nc_feed_max_lag_mb[kind]))
		kind++;
	return kind;
}

bool
nc_feed_lag_exceeded(int slot)
{
	return exceeded(slot) < NC_LAG_KINDS;
}

static void
warn(int slot, const NcFeedTurn *turn)
{
	NcLagKind	kind = exceeded(slot);

	if (kind == NC_LAG_KINDS ||
		!TimestampDifferenceExceeds(warned_at[slot], turn->now, WARN_PERIOD_MS))
		return;
	warned_at[slot] = turn->now;
	ereport(WARNING,
			(errmsg("page server \"%s\" is " UINT64_FORMAT " MB behind, writers are slowed down",
					nc_feed_slot_names[slot], lag_mb(slot, kind)),
			 errdetail("%s is %d MB.", limit_names[kind], nc_feed_max_lag_mb[kind]),
			 errhint("Look at the page server's load, disk and log. To let writers go on "
					 "regardless set %s = 0 and reload.", limit_names[kind])));
}

void
nc_feed_lag_tick(const NcFeedTurn *turn)
{
	end_of_wal = turn->limit.in_recovery ? InvalidXLogRecPtr : GetXLogInsertRecPtr();
	for (int kind = 0; kind < NC_LAG_KINDS; kind++)
	{
		XLogRecPtr	lowest = PG_UINT64_MAX;

		for (int i = nc_feed_slot_after(-1); i >= 0 && !turn->limit.in_recovery; i = nc_feed_slot_after(i))
			lowest = Min(lowest, position(i, kind));
		nc_feed_publish_lowest(kind, lowest, (uint64) nc_feed_max_lag_mb[kind] * 1024 * 1024);
	}
	for (int i = nc_feed_slot_after(-1); i >= 0; i = nc_feed_slot_after(i))
		warn(i, turn);
}

void
nc_feed_lag_forget(int slot)
{
	warned_at[slot] = 0;
}
