/*
 * retain.c
 *	  Keeps WAL for registered page servers by physical replication slots.
 *
 * Runs in the feed.  Guarantees that outside recovery WAL is streamed to a page
 * server only while a slot keeps what it does not have on disk, and that a slot
 * never moves back.  Slots are made when recovery is over: before, the startup
 * process restores those on disk.
 *
 * Slots are held: marked as in use, so that nobody else can move, use or drop them
 * ("is active for PID 2147483647").  No process has that number, and that is the point:
 * a slot marked with our own would be dropped when we exit, as if it were temporary,
 * and whoever wants a slot signals its user.  The mark outlives this process.  Where the
 * server would give slots up (max_slot_wal_keep_size, idle_replication_slot_timeout) they
 * are not held, since the checkpointer would wait for them.  What somebody does to a slot that is not held, or
 * before this process runs, is noticed by where it stood: the first account of that is
 * the slot's file, read before anybody can connect.  A slot that was moved on is moved
 * back, one that was dropped is made again, if the WAL is still there; if not, the page
 * server is refused, because it cannot be brought up to date any more.
 */
#include "postgres.h"

#include <limits.h>
#include <signal.h>
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
#include "nc/shared/test_point.h"

#define CHECK_PERIOD_MS 1000
#define RETRY_PERIOD_MS 10000
#define WARN_PERIOD_MS 60000

/* Somebody else may have a slot for a moment; who keeps it is ended. */
#define USER_PATIENCE_MS 200

/* Who holds a slot of ours, for the server: not a process. */
#define HOLDER INT_MAX

/*
 * How long a slot that was just made or moved back is left alone: a checkpoint that
 * has not seen it there would want it.
 */
#define HOLD_AFTER_MS 1000

/* Moving a slot takes a lock and a look at all slots; WAL is removed by segments anyway. */
#define CONFIRM_PERIOD_MS 100

typedef struct FeedSlot
{
	NcFeedConn *conn;			/* who streams under this name, or NULL */
	bool		ready;			/* the slot exists and keeps WAL */
	XLogRecPtr	kept;			/* its restart_lsn when last seen or set */
	XLogRecPtr	confirmed;		/* the page server has this on disk, and joins without what is before */
	XLogRecPtr	whole_from;		/* a segment in which a record begins that it has wholly; 0 = not known */
	bool		held;			/* nobody else can use it, when last looked at */
	TimestampTz hold_from;		/* not before */
	int			user;			/* who has it instead of us, 0 = nobody */
	TimestampTz user_since;
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
	bool		held;			/* nobody else can use it */
	bool		changed;		/* held, or not held any more, since this look */
	int			user;			/* another process that uses it, 0 = none */
	XLogRecPtr	restart_lsn;
} SlotLook;

/* ---- who streams ---- */

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
			 conn->v.address, nc_feed_slot_names[slot]);
	nc_feed_conn_fatal(old, "55006", "replaced by a newer connection", detail,
					   "If this repeats, two page servers use the same primary_slot_name.");
}

void
nc_feed_slot_detach(int slot, NcFeedConn *conn)
{
	if (slots[slot].conn == conn)
		slots[slot].conn = NULL;
}

/* ---- the server's slots ---- */

static bool
may_hold(const FeedSlot *slot, TimestampTz now)
{
	return max_slot_wal_keep_size_mb < 0 && !nc_pg_slots_expire() && now >= slot->hold_from &&
		!NC_TEST_TRUE("feed-lets-go");
}

/* Marks a usable slot as ours or lets go of it.  Its mutex is held. */
static void
mark(ReplicationSlot *slot, bool hold, SlotLook *look)
{
	int			user = slot->active_pid;

	if (user == 0 && hold && look->usable)
		user = HOLDER;
	else if (user == HOLDER && !(hold && look->usable))
		user = 0;
	look->changed = user != slot->active_pid;
	slot->active_pid = user;
	look->user = user == HOLDER ? 0 : user;
	look->held = user == HOLDER;
}

/* Caller holds ReplicationSlotControlLock, so that the slot cannot go away. */
static void
look_at(ReplicationSlot *slot, bool hold, SlotLook *look)
{
	SpinLockAcquire(&slot->mutex);
	look->restart_lsn = slot->data.restart_lsn;
	look->usable = !nc_pg_slot_invalidated(slot) && slot->data.database == InvalidOid &&
		slot->data.persistency != RS_TEMPORARY;
	mark(slot, hold, look);
	SpinLockRelease(&slot->mutex);
	look->exists = true;
}

/* Holds the slot while that is right, and tells what it is like. */
static SlotLook
look_up(int index, TimestampTz now)
{
	bool		hold = may_hold(&slots[index], now);
	SlotLook	look = {0};
	ReplicationSlot *slot;

	LWLockAcquire(ReplicationSlotControlLock, LW_SHARED);
	slot = SearchNamedReplicationSlot(nc_feed_slot_names[index], false);
	if (slot != NULL)
		look_at(slot, hold, &look);
	LWLockRelease(ReplicationSlotControlLock);
	if (slot != NULL && look.changed)
		ConditionVariableBroadcast(&slot->active_cv);
	slots[index].held = look.held;
	return look;
}

/* Lets go of the server's slot: what happens to it is somebody else's business from now on. */
static void
let_go_of(const char *name)
{
	SlotLook	look = {0};
	ReplicationSlot *slot;

	LWLockAcquire(ReplicationSlotControlLock, LW_SHARED);
	slot = SearchNamedReplicationSlot(name, false);
	if (slot != NULL)
		look_at(slot, false, &look);
	LWLockRelease(ReplicationSlotControlLock);
	if (look.changed)
		ConditionVariableBroadcast(&slot->active_cv);
}

/* Moves restart_lsn; the next checkpoint writes it. False when the slot is gone. */
static bool
move_to(const char *name, XLogRecPtr to, bool back)
{
	ReplicationSlot *slot;
	bool		moved = false;

	LWLockAcquire(ReplicationSlotControlLock, LW_SHARED);
	slot = SearchNamedReplicationSlot(name, false);
	if (slot != NULL)
	{
		SpinLockAcquire(&slot->mutex);
		if (back ? slot->data.restart_lsn > to : slot->data.restart_lsn < to)
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
recover_slot_error(char *problem)
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
		recover_slot_error(problem);
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
		recover_slot_error(problem);
	}
	PG_END_TRY();
}

/* From where WAL is kept for the one that needs most; all ones when for none. */
static XLogRecPtr
kept_for_all(void)
{
	XLogRecPtr	lowest = PG_UINT64_MAX;

	for (int i = nc_feed_slot_after(-1); i >= 0; i = nc_feed_slot_after(i))
	{
		if (slots[i].kept != InvalidXLogRecPtr)
			lowest = Min(lowest, slots[i].kept);
	}
	return lowest;
}

/* Where the last checkpoint that is over began, if it is before that and its WAL is there. */
static XLogRecPtr
last_checkpoint(TimeLineID timeline, XLogRecPtr position, char *problem)
{
	MemoryContext context = CurrentMemoryContext;
	volatile XLogRecPtr found = position;

	PG_TRY();
	{
		XLogRecPtr	redo = nc_feed_wal_last_redo();

		if (redo < position && nc_feed_wal_present(timeline, redo))
			found = redo;
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		recover_slot_error(problem);
	}
	PG_END_TRY();
	return found;
}

/*
 * Where WAL must be kept from for a page server of which nothing is known yet.  It begins as
 * a copy of another one, and may be as far behind as that is; the first one is a copy of the
 * compute.  Not further back than that: a checkpoint that runs gives up slots for which WAL was
 * not kept when it began.
 */
static XLogRecPtr
first_position(const FeedSlot *slot, TimeLineID timeline, char *problem)
{
	XLogRecPtr	position = GetRedoRecPtr();

	if (kept_for_all() == PG_UINT64_MAX)
		position = last_checkpoint(timeline, position, problem);
	if (slot->conn != NULL && slot->conn->flush != InvalidXLogRecPtr &&
		slot->conn->flush < position && nc_feed_wal_present(timeline, slot->conn->flush))
		position = slot->conn->flush;
	if (kept_for_all() < position && nc_feed_wal_present(timeline, kept_for_all()))
		position = kept_for_all();
	return position;
}

static bool
fail_slot(FeedSlot *slot, TimestampTz now)
{
	slot->ready = false;
	slot->failed_at = now;
	if (slot->conn != NULL)
		nc_feed_conn_fatal(slot->conn, "55000", "no WAL can be kept for this page server",
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
		return fail_slot(slot, now);

	/* Now that it keeps WAL, see whether all of it was still there. */
	if (!nc_feed_wal_present(timeline, from))
	{
		drop_slot(name, slot->problem);
		snprintf(slot->problem, sizeof(slot->problem),
				 "replication slot \"%s\" was dropped and the WAL from %X/%X on, which the page "
				 "server needs, is gone: put a copy of another one in its place and restart the compute",
				 name, LSN_FORMAT_ARGS(from));
		ereport(WARNING, (errmsg("%s", slot->problem)));
		return fail_slot(slot, now);
	}
	if (lost_before)
		ereport(WARNING,
				(errmsg("replication slot \"%s\" of a page server was dropped; made it again at "
						"%X/%X, nothing is lost", name, LSN_FORMAT_ARGS(from)),
				 errhint("To remove a page server, take its name out of "
						 "neon_comm.wal_feed_slots and reload.")));
	else
		ereport(LOG,
				(errmsg("made replication slot \"%s\" for a page server at %X/%X",
						name, LSN_FORMAT_ARGS(from))));
	slot->kept = from;
	slot->ready = true;
	slot->failed_at = 0;
	slot->hold_from = TimestampTzPlusMilliseconds(now, HOLD_AFTER_MS);
	return true;
}

/*
 * Somebody else uses the slot.  He may have begun before it was held, or have made
 * it, as his own for one session.  He is ended, or WAL would not be kept.
 */
static void
end_user(int index, int user, TimestampTz now)
{
	FeedSlot   *slot = &slots[index];

	if (user != slot->user)
		slot->user_since = now;
	slot->user = user;
	if (user == 0 || !may_hold(slot, now) ||
		!TimestampDifferenceExceeds(slot->user_since, now, USER_PATIENCE_MS))
		return;
	ereport(WARNING,
			(errmsg("ending process %d, which uses replication slot \"%s\"", user,
					nc_feed_slot_names[index]),
			 errdetail("It is the slot of a page server, for which it keeps WAL.")));
	(void) kill(user, SIGTERM);
	slot->user_since = now;
}

/* The slot stands where we have not moved it to. */
static void
move_back(int index, XLogRecPtr from, TimestampTz now)
{
	FeedSlot   *slot = &slots[index];
	const char *name = nc_feed_slot_names[index];

	slot->hold_from = TimestampTzPlusMilliseconds(now, HOLD_AFTER_MS);
	(void) look_up(index, now);
	(void) move_to(name, slot->kept, true);

	/* Now that it keeps WAL again, see whether all of it is still there. */
	if (nc_feed_wal_present(GetWALInsertionTimeLine(), slot->kept))
	{
		ereport(WARNING,
				(errmsg("replication slot \"%s\" of a page server was moved to %X/%X by somebody "
						"else; moved it back to %X/%X, nothing is lost", name,
						LSN_FORMAT_ARGS(from), LSN_FORMAT_ARGS(slot->kept)),
				 errhint("To remove a page server, take its name out of "
						 "neon_comm.wal_feed_slots and reload.")));
		return;
	}
	ereport(WARNING,
			(errmsg("replication slot \"%s\" of a page server was moved to %X/%X by somebody else, "
					"and WAL from %X/%X on is gone", name, LSN_FORMAT_ARGS(from),
					LSN_FORMAT_ARGS(slot->kept)),
			 errdetail("If the page server does not have it, it cannot be brought up to date."),
			 errhint("If it is refused, make it anew from another page server, and remove nothing that "
					 "is the only copy (docs/operations.md, \"A page server is lost\").")));
	slot->kept = from;
	(void) move_to(name, from, false);
}

static bool
adopt_slot(int index, const SlotLook *look, TimestampTz now)
{
	FeedSlot   *slot = &slots[index];
	const char *name = nc_feed_slot_names[index];
	bool		was_ready = slot->ready;

	end_user(index, look->user, now);
	if (!look->usable)
	{
		if (slot->failed_at == 0)
			ereport(WARNING,
					(errmsg("replication slot \"%s\" cannot keep WAL for a page server", name),
					 errdetail("It is logical, temporary or invalidated."),
					 errhint("Drop it with pg_drop_replication_slot; the feed makes another one.")));
		snprintf(slot->problem, sizeof(slot->problem),
				 "replication slot \"%s\" is logical, temporary or invalidated", name);
		return fail_slot(slot, now);
	}
	if (look->restart_lsn == InvalidXLogRecPtr)
	{
		/* Made by hand without reserving WAL. */
		if (slot->kept == InvalidXLogRecPtr)
			slot->kept = first_position(slot, GetWALInsertionTimeLine(), slot->problem);
		(void) move_to(name, slot->kept, false);
	}
	else if (slot->kept == InvalidXLogRecPtr)
		slot->kept = look->restart_lsn;
	else if (look->restart_lsn > slot->kept)
		move_back(index, look->restart_lsn, now);
	else
		(void) move_to(name, slot->kept, false);
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
	SlotLook	look = look_up(slot, now);

	*why = slots[slot].problem;
	if (look.exists)
		return adopt_slot(slot, &look, now);
	if (slots[slot].failed_at != 0 &&
		!TimestampDifferenceExceeds(slots[slot].failed_at, now, RETRY_PERIOD_MS))
		return false;
	return make_slot(slot, now);
}

/*
 * A copy of another page server comes in the place of one that had more, or one that lost the
 * end of its WAL: what was confirmed does not hold any more, and what it needs is kept from now on.
 */
bool
nc_feed_slot_needs(int index, XLogRecPtr start, const NcFeedTurn *turn)
{
	FeedSlot   *slot = &slots[index];
	XLogRecPtr	kept = slot->kept;

	if (turn->limit.in_recovery || kept == InvalidXLogRecPtr ||
		start >= kept - XLogSegmentOffset(kept, wal_segment_size))
		return true;
	slot->kept = start;
	slot->confirmed = InvalidXLogRecPtr;
	slot->whole_from = InvalidXLogRecPtr;
	slot->hold_from = TimestampTzPlusMilliseconds(turn->now, HOLD_AFTER_MS);
	(void) look_up(index, turn->now);
	(void) move_to(nc_feed_slot_names[index], start, true);
	ereport(LOG,
			(errmsg("page server \"%s\" has less than it had: WAL is kept for it from %X/%X on, not %X/%X",
					nc_feed_slot_names[index], LSN_FORMAT_ARGS(start), LSN_FORMAT_ARGS(kept))));

	/* a checkpoint may have removed it before the slot was moved */
	return nc_feed_wal_present(turn->limit.timeline, start);
}

/* ---- progress ---- */

/*
 * When it joins again the last record that it has wholly is compared with ours, so
 * that must be here still. It begins in an earlier segment than it ends in at times: a
 * switch of segments always, and a record may be longer than several segments.
 */
static XLogRecPtr
compared_from(FeedSlot *slot, XLogRecPtr flush, const NcFeedTurn *turn)
{
	XLogRecPtr	segment = flush - XLogSegmentOffset(flush, wal_segment_size);

	if (slot->whole_from != segment)
		slot->whole_from = nc_feed_wal_last_record_from(turn->limit.timeline, flush);
	return slot->whole_from == segment ? flush : slot->whole_from;
}

void
nc_feed_slot_confirm(int slot, XLogRecPtr flush, const NcFeedTurn *turn)
{
	XLogRecPtr	from = compared_from(&slots[slot], flush, turn);

	slots[slot].confirmed = Max(slots[slot].confirmed, from);
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
	if (move_to(nc_feed_slot_names[index], slot->confirmed, false))
		nc_pg_slot_moved(nc_feed_slot_names[index]);
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
					   " MB of free space.", slot->conn->v.address, wal_space_mb()) :
			 errdetail("It is not connected; pg_wal has " INT64_FORMAT " MB of free space.",
					   wal_space_mb()),
			 errhint("pg_wal grows until the page server catches up or is taken out of "
					 "neon_comm.wal_feed_slots; neon_comm.max_retained_wal would slow writers "
					 "down before the disk is full.")));
}

bool
nc_feed_retain_holds_all(void)
{
	for (int i = nc_feed_slot_after(-1); i >= 0; i = nc_feed_slot_after(i))
	{
		if (!slots[i].held)
			return false;
	}
	return true;
}

/* A restarted feed goes on from what its predecessor knew. */
void
nc_feed_retain_init(void)
{
	for (int i = nc_feed_slot_after(-1); i >= 0; i = nc_feed_slot_after(i))
	{
		NcFeedPeer	row;

		nc_feed_row_read(i, &row);
		slots[i].kept = row.retained_from;
	}
}

/* Its connection ends, its slot stays with the WAL that it keeps. */
void
nc_feed_retain_forget(int slot)
{
	NcFeedConn *conn = slots[slot].conn;

	if (conn != NULL)
	{
		nc_feed_conn_fatal(conn, "57P01", "this page server was removed",
						   "Its name is not in neon_comm.wal_feed_slots any more.", NULL);
		conn->slot = -1;
		conn->streaming = false;
	}
	let_go_of(nc_feed_slot_names[slot]);
	slots[slot] = (FeedSlot) {0};
}

void
nc_feed_retain_tick(const NcFeedTurn *turn)
{
	bool		check = TimestampDifferenceExceeds(checked_at, turn->now, CHECK_PERIOD_MS);

	for (int i = nc_feed_slot_after(-1); i >= 0; i = nc_feed_slot_after(i))
	{
		const char *why;

		/* what is on disk is restored before recovery begins; nothing more is done until it ends */
		if (turn->limit.in_recovery)
		{
			if (!slots[i].held)
				(void) look_up(i, turn->now);
			continue;
		}
		if (check || (!slots[i].held && slots[i].ready && slots[i].user != 0))
			(void) nc_feed_slot_ensure(i, turn->now, &why);
		move_slot(i, turn->now);
		warn_of_growth(i, turn);
	}
	if (check && !turn->limit.in_recovery)
		checked_at = turn->now;
}
