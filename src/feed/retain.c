/*
 * retain.c
 *	  Keeps WAL for registered page servers by physical replication slots.
 *
 * Runs in the feed.  Guarantees that outside recovery WAL is streamed to a page
 * server only while a slot keeps what it does not have on disk, and that a slot
 * never moves back.  Slots are made when recovery is over: before, the startup
 * process restores those on disk.  They are moved without being acquired, since
 * one process serves all of them.  A slot that somebody drops is noticed within
 * a second and made again where it stood if the WAL is still there; if not, the
 * page server is refused, because it cannot be brought up to date any more.
 */
#include "postgres.h"

#include <sys/statvfs.h>

#include "access/xlog.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "replication/slot.h"
#include "storage/condition_variable.h"
#include "storage/fd.h"
#include "storage/lwlock.h"
#include "storage/spin.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "feed_internal.h"
#include "nc/compat/server.h"

#define CHECK_PERIOD_MS 1000
#define RETRY_PERIOD_MS 10000
#define WARN_PERIOD_MS 60000

/* Moving a slot takes a lock and a look at all slots; WAL is removed by segments anyway. */
#define CONFIRM_PERIOD_MS 100

typedef struct FeedSlot
{
	NcFeedConn *conn;			/* who streams under this name, or NULL */
	bool		ready;			/* the slot exists and keeps WAL */
	XLogRecPtr	kept;			/* its restart_lsn when last seen or set */
	XLogRecPtr	confirmed;		/* the page server has this on disk */
	TimestampTz moved_at;
	TimestampTz failed_at;		/* 0 = the last attempt did not fail */
	TimestampTz warned_at;
	char		problem[NC_FEED_WHY_BYTES];
} FeedSlot;

static FeedSlot slots[NC_FEED_SLOTS_MAX];
static TimestampTz checked_at = 0;

/* What a look at the server's slot found. */
typedef struct SlotLook
{
	bool		exists;
	bool		usable;			/* physical, persistent, not invalidated */
	XLogRecPtr	restart_lsn;
} SlotLook;

/* ---- who streams ---- */

int
nc_feed_slot_find(const char *name)
{
	for (int i = 0; i < nc_feed_nslots; i++)
	{
		if (strcmp(nc_feed_slot_names[i], name) == 0)
			return i;
	}
	return -1;
}

NcFeedConn *
nc_feed_slot_conn(int slot)
{
	return slots[slot].conn;
}

XLogRecPtr
nc_feed_slot_retained_from(int slot)
{
	return slots[slot].kept;
}

/* The older connection's page server is gone or stuck; if it is not, two have the same name. */
void
nc_feed_slot_attach(int slot, NcFeedConn *conn)
{
	NcFeedConn *old = slots[slot].conn;
	char		detail[NC_FEED_WHY_BYTES];

	slots[slot].conn = conn;
	if (old == NULL || old == conn)
		return;
	snprintf(detail, sizeof(detail), "A newer connection from %s streams as \"%s\".",
			 conn->address, nc_feed_slot_names[slot]);
	nc_feed_conn_fatal(old, conn->heard_at, "55006", "replaced by a newer connection", detail,
					   "If this repeats, two page servers use the same primary_slot_name.");
}

void
nc_feed_slot_detach(int slot, NcFeedConn *conn)
{
	if (slots[slot].conn == conn)
		slots[slot].conn = NULL;
}

/* ---- the server's slots ---- */

/* Caller holds ReplicationSlotControlLock, so that the slot cannot go away. */
static void
look_at(ReplicationSlot *slot, SlotLook *look)
{
	SpinLockAcquire(&slot->mutex);
	look->restart_lsn = slot->data.restart_lsn;
	look->usable = !nc_pg_slot_invalidated(slot) && slot->data.database == InvalidOid &&
		slot->data.persistency != RS_TEMPORARY;
	SpinLockRelease(&slot->mutex);
	look->exists = true;
}

static SlotLook
look_up(const char *name)
{
	SlotLook	look = {0};
	ReplicationSlot *slot;

	LWLockAcquire(ReplicationSlotControlLock, LW_SHARED);
	slot = SearchNamedReplicationSlot(name, false);
	if (slot != NULL)
		look_at(slot, &look);
	LWLockRelease(ReplicationSlotControlLock);
	return look;
}

/* Moves restart_lsn forward; the next checkpoint writes it. False when the slot is gone. */
static bool
move_forward(const char *name, XLogRecPtr to)
{
	ReplicationSlot *slot;
	bool		moved = false;

	LWLockAcquire(ReplicationSlotControlLock, LW_SHARED);
	slot = SearchNamedReplicationSlot(name, false);
	if (slot != NULL)
	{
		SpinLockAcquire(&slot->mutex);
		if (slot->data.restart_lsn < to)
		{
			slot->data.restart_lsn = to;
			slot->just_dirtied = true;
			slot->dirty = true;
			moved = true;
		}
		SpinLockRelease(&slot->mutex);
	}
	LWLockRelease(ReplicationSlotControlLock);
	if (moved)
		ReplicationSlotsComputeRequiredLSN();
	return slot != NULL;
}

/*
 * Lets go of the slot we have just made.  Not ReplicationSlotRelease(): it ends
 * by writing our status flags at our index of the ProcArray, and a worker
 * without a database is in no ProcArray, so that would be another process's.
 */
static void
let_go(void)
{
	ReplicationSlot *slot = MyReplicationSlot;

	SpinLockAcquire(&slot->mutex);
	slot->active_pid = 0;
	SpinLockRelease(&slot->mutex);
	ConditionVariableBroadcast(&slot->active_cv);
	MyReplicationSlot = NULL;
}

/*
 * Creates the slot and makes it keep WAL before anything is written, so that a
 * checkpoint in between cannot take the WAL away.
 */
static void
create_and_reserve(const char *name, XLogRecPtr from)
{
	nc_pg_slot_create(name);
	LWLockAcquire(ReplicationSlotAllocationLock, LW_EXCLUSIVE);
	SpinLockAcquire(&MyReplicationSlot->mutex);
	MyReplicationSlot->data.restart_lsn = from;
	SpinLockRelease(&MyReplicationSlot->mutex);
	ReplicationSlotsComputeRequiredLSN();
	LWLockRelease(ReplicationSlotAllocationLock);
	ReplicationSlotMarkDirty();
	ReplicationSlotSave();
	let_go();
}

/* After an error outside a transaction, as the server's own database-less processes do. */
static void
recover_from_error(char *problem)
{
	ErrorData  *error = CopyErrorData();

	snprintf(problem, NC_FEED_WHY_BYTES, "%s%s%s", error->message,
			 error->hint ? ": " : "", error->hint ? error->hint : "");
	EmitErrorReport();
	FlushErrorState();
	FreeErrorData(error);
	LWLockReleaseAll();
	ConditionVariableCancelSleep();
	pgstat_report_wait_end();
	if (MyReplicationSlot != NULL)
		let_go();
	AtEOXact_Files(false);
}

static bool
create_slot(const char *name, XLogRecPtr from, char *problem)
{
	MemoryContext context = CurrentMemoryContext;
	volatile bool created = false;

	PG_TRY();
	{
		create_and_reserve(name, from);
		created = true;
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		recover_from_error(problem);
	}
	PG_END_TRY();
	return created;
}

static void
drop_slot(const char *name, char *problem)
{
	MemoryContext context = CurrentMemoryContext;

	PG_TRY();
	{
		ReplicationSlotDrop(name, true);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		recover_from_error(problem);
	}
	PG_END_TRY();
}

/* Where WAL must be kept from for a page server of which nothing is known yet. */
static XLogRecPtr
first_position(const FeedSlot *slot, TimeLineID timeline, char *problem)
{
	MemoryContext context = CurrentMemoryContext;
	volatile XLogRecPtr position = GetRedoRecPtr();

	PG_TRY();
	{
		XLogRecPtr	redo = nc_feed_wal_last_redo();

		if (redo < position && nc_feed_wal_present(timeline, redo))
			position = redo;
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		recover_from_error(problem);
	}
	PG_END_TRY();
	if (slot->conn != NULL && slot->conn->flush != InvalidXLogRecPtr &&
		slot->conn->flush < position && nc_feed_wal_present(timeline, slot->conn->flush))
		position = slot->conn->flush;
	return position;
}

static bool
fail(FeedSlot *slot, TimestampTz now)
{
	slot->ready = false;
	slot->failed_at = now;
	if (slot->conn != NULL)
		nc_feed_conn_fatal(slot->conn, now, "55000", "no WAL can be kept for this page server",
						   slot->problem, NULL);
	return false;
}

/* The slot does not exist: makes it, at first or again. */
static bool
make_slot(int index, TimestampTz now)
{
	FeedSlot   *slot = &slots[index];
	const char *name = nc_feed_slot_names[index];
	TimeLineID	timeline = GetWALInsertionTimeLine();
	bool		lost_before = slot->kept != InvalidXLogRecPtr;
	XLogRecPtr	from = lost_before ? slot->kept : first_position(slot, timeline, slot->problem);

	if (!create_slot(name, from, slot->problem))
		return fail(slot, now);

	/* Now that it keeps WAL, see whether all of it was still there. */
	if (!nc_feed_wal_present(timeline, from))
	{
		drop_slot(name, slot->problem);
		snprintf(slot->problem, sizeof(slot->problem),
				 "replication slot \"%s\" was dropped and the WAL from %X/%X on, which the page "
				 "server needs, is gone: make the page server anew and restart the compute",
				 name, LSN_FORMAT_ARGS(from));
		ereport(WARNING, (errmsg("%s", slot->problem)));
		return fail(slot, now);
	}
	if (lost_before)
		ereport(WARNING,
				(errmsg("replication slot \"%s\" of a page server was dropped; made it again at "
						"%X/%X, nothing is lost", name, LSN_FORMAT_ARGS(from)),
				 errhint("To remove a page server, take its name out of "
						 "neon_comm.wal_feed_slots and restart.")));
	else
		ereport(LOG,
				(errmsg("made replication slot \"%s\" for a page server at %X/%X",
						name, LSN_FORMAT_ARGS(from))));
	slot->kept = from;
	slot->ready = true;
	slot->failed_at = 0;
	return true;
}

static bool
adopt_slot(int index, const SlotLook *look, TimestampTz now)
{
	FeedSlot   *slot = &slots[index];
	const char *name = nc_feed_slot_names[index];
	bool		was_ready = slot->ready;

	if (!look->usable)
	{
		if (slot->failed_at == 0)
			ereport(WARNING,
					(errmsg("replication slot \"%s\" cannot keep WAL for a page server", name),
					 errdetail("It is logical, temporary or invalidated."),
					 errhint("Drop it with pg_drop_replication_slot; it is then made anew.")));
		snprintf(slot->problem, sizeof(slot->problem),
				 "replication slot \"%s\" is logical, temporary or invalidated", name);
		return fail(slot, now);
	}
	if (look->restart_lsn == InvalidXLogRecPtr)
	{
		/* Made by hand without reserving WAL. */
		if (slot->kept == InvalidXLogRecPtr)
			slot->kept = first_position(slot, GetWALInsertionTimeLine(), slot->problem);
		move_forward(name, slot->kept);
	}
	else
		slot->kept = look->restart_lsn;
	slot->ready = true;
	slot->failed_at = 0;
	if (!was_ready)
		ereport(DEBUG1, (errmsg_internal("replication slot \"%s\" keeps WAL from %X/%X", name,
										 LSN_FORMAT_ARGS(slot->kept))));
	return true;
}

bool
nc_feed_slot_ensure(int slot, TimestampTz now, const char **why)
{
	SlotLook	look = look_up(nc_feed_slot_names[slot]);

	*why = slots[slot].problem;
	if (look.exists)
		return adopt_slot(slot, &look, now);
	if (slots[slot].failed_at != 0 &&
		!TimestampDifferenceExceeds(slots[slot].failed_at, now, RETRY_PERIOD_MS))
		return false;
	return make_slot(slot, now);
}

/* ---- progress ---- */

void
nc_feed_slot_confirm(int slot, XLogRecPtr flush)
{
	slots[slot].confirmed = Max(slots[slot].confirmed, flush);
}

static void
move_slot(int index, TimestampTz now)
{
	FeedSlot   *slot = &slots[index];

	if (!slot->ready || slot->confirmed <= slot->kept ||
		!TimestampDifferenceExceeds(slot->moved_at, now, CONFIRM_PERIOD_MS))
		return;
	slot->moved_at = now;

	/* Remembered even if the slot has just been dropped: it will be made again there. */
	slot->kept = slot->confirmed;
	(void) move_forward(nc_feed_slot_names[index], slot->confirmed);
}

/* Free space where WAL is, in MB; -1 when it cannot be told. */
static int64
wal_space_mb(void)
{
	struct statvfs fs;

	return statvfs(XLOGDIR, &fs) != 0 ? -1 : (int64) fs.f_bavail * fs.f_frsize / (1024 * 1024);
}

static void
warn_of_growth(int index, const NcFeedTurn *turn)
{
	FeedSlot   *slot = &slots[index];
	uint64		held_mb = turn->limit.lsn > slot->kept ?
		(turn->limit.lsn - slot->kept) / (1024 * 1024) : 0;

	if (nc_feed_warn_mb == 0 || !slot->ready || held_mb < (uint64) nc_feed_warn_mb ||
		!TimestampDifferenceExceeds(slot->warned_at, turn->now, WARN_PERIOD_MS))
		return;
	slot->warned_at = turn->now;
	ereport(WARNING,
			(errmsg("page server \"%s\" holds back " UINT64_FORMAT " MB of WAL",
					nc_feed_slot_names[index], held_mb),
			 slot->conn != NULL ?
			 errdetail("It is connected from %s but has not stored it; pg_wal has " INT64_FORMAT
					   " MB of free space.", slot->conn->address, wal_space_mb()) :
			 errdetail("It is not connected; pg_wal has " INT64_FORMAT " MB of free space.",
					   wal_space_mb()),
			 errhint("pg_wal grows until the page server catches up or is taken out of "
					 "neon_comm.wal_feed_slots; neon_comm.max_retained_wal would slow writers "
					 "down before the disk is full.")));
}

/* A restarted feed goes on from what its predecessor knew. */
void
nc_feed_retain_init(void)
{
	for (int i = 0; i < nc_feed_nslots; i++)
	{
		NcFeedPeer	row;

		nc_feed_row_read(i, &row);
		slots[i].kept = row.retained_from;
	}
}

void
nc_feed_retain_tick(const NcFeedTurn *turn)
{
	bool		check = TimestampDifferenceExceeds(checked_at, turn->now, CHECK_PERIOD_MS);

	if (turn->limit.in_recovery)
		return;
	for (int i = 0; i < nc_feed_nslots; i++)
	{
		const char *why;

		if (check)
			(void) nc_feed_slot_ensure(i, turn->now, &why);
		move_slot(i, turn->now);
		warn_of_growth(i, turn);
	}
	if (check)
		checked_at = turn->now;
}
