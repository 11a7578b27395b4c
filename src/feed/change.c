/*
 * change.c
 *	  A change of members, in the process that wants it (docs/takeover.md).
 *
 * The feed says who counts (members.c); here the two entries of the log are written,
 * and waited for.  They are records XLOG_NOOP, which nobody else writes and of which
 * every server's redo takes no notice.  Wherever this is interrupted, the
 * same call goes on: an entry that is there twice says the same.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "access/xloginsert.h"
#include "catalog/pg_control.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/timestamp.h"

#include "feed_internal.h"
#include "nc/shared/waits.h"

#define LOOK_MS 20
#define SAY_PERIOD_MS 10000

void
nc_feed_change_init(NcFeedChange *change)
{
	pg_atomic_init_u32(&change->owner, 0);
	pg_atomic_init_u32(&change->asked, 0);
	pg_atomic_init_u32(&change->answered, 0);
	pg_atomic_init_u64(&change->confirmed, 0);
}

static void
nap(void)
{
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, LOOK_MS,
					 nc_wait_event(NC_WAIT_CHANGE_MEMBERS));
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

/* ---- questions to the feed ---- */

static void
wait_for_answer(NcFeedChange *change)
{
	while (pg_atomic_read_u32(&change->asked) != pg_atomic_read_u32(&change->answered))
		nap();
	pg_read_barrier();
}

/* What was filled in before is asked; the answer. */
static NcFeedStepAnswer
ask_feed(NcFeedChange *change, NcFeedStep step)
{
	change->step = step;
	pg_write_barrier();
	pg_atomic_fetch_add_u32(&change->asked, 1);
	nc_feed_doorbell_press();
	wait_for_answer(change);
	if (change->answer == NC_FEED_STEP_REFUSED)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("members are not changed: %s", change->text)));
	return change->answer;
}

/* As they are written down. */
static void
read_lists(NcMemberLists *lists)
{
	NcPromise  *kept = palloc0(sizeof(NcPromise));
	const char *why = "it is not there";

	if (nc_promise_load(DataDir, NC_COMPUTE_MEMBERS, kept, &why) != NC_FILE_OK)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("could not read file \"%s\": %s", NC_COMPUTE_MEMBERS, why)));
	*lists = kept->members;
	pfree(kept);
}

/* ---- entries ---- */

/* Flushed; where it ends. */
static XLogRecPtr
write_entry(const NcMemberLists *lists)
{
	char	   *text = palloc(NC_PROMISE_BYTES_MAX);
	size_t		bytes = nc_members_write(lists, text, NC_PROMISE_BYTES_MAX);
	XLogRecPtr	end;

	if (bytes == 0)
		elog(ERROR, "members do not fit into an entry");
	XLogBeginInsert();
	XLogRegisterData(text, (uint32) bytes);
	end = XLogInsert(RM_XLOG_ID, XLOG_NOOP);
	XLogFlush(end);
	nc_feed_ring(end);
	pfree(text);
	return end;
}

/* ---- who has not confirmed ---- */

static bool
has_confirmed(const NcFeedPeer *rows, int n, const NcMember *member, XLogRecPtr lsn)
{
	for (int i = 0; i < n; i++)
	{
		if (nc_id_equal(&rows[i].member, &member->id))
			return rows[i].flush >= lsn;
	}
	return false;
}

static void
say_list(const NcFeedPeer *rows, int n, const char *which, const NcMembers *members, XLogRecPtr lsn)
{
	StringInfoData missing;
	uint32		have = 0;

	initStringInfo(&missing);
	for (uint32 i = 0; i < members->n; i++)
	{
		if (has_confirmed(rows, n, &members->at[i], lsn))
			have++;
		else
			appendStringInfo(&missing, "%s%s", missing.len > 0 ? ", " : "", members->at[i].name);
	}
	if (have < members->write_quorum)
		ereport(NOTICE,
				(errmsg("waiting: %u of %u %smembers have confirmed WAL up to " NC_LSN_FMT ", %u have to", have, members->n, which,
						NC_LSN_ARGS(lsn), members->write_quorum),
				 errdetail("Missing: %s.", missing.data)));
	pfree(missing.data);
}

static void
say_who_is_missing(const NcMemberLists *lists, XLogRecPtr lsn)
{
	NcFeedPeer *rows = palloc(sizeof(NcFeedPeer) * NC_FEED_SLOTS_MAX);
	int			n = nc_feed_peers(rows, NC_FEED_SLOTS_MAX);

	say_list(rows, n, nc_members_change(lists) ? "old " : "", &lists->now, lsn);
	if (nc_members_change(lists))
		say_list(rows, n, "new ", &lists->next, lsn);
	pfree(rows);
}

/* Until what counts has confirmed WAL up to here. */
static void
wait_until_confirmed(NcFeedChange *change, const NcMemberLists *lists, XLogRecPtr lsn)
{
	TimestampTz said_at = nc_feed_clock() - (SAY_PERIOD_MS - 1000) * (TimestampTz) 1000;

	while (pg_atomic_read_u64(&change->confirmed) < lsn)
	{
		nap();
		if (!TimestampDifferenceExceeds(said_at, nc_feed_clock(), SAY_PERIOD_MS))
			continue;
		said_at = nc_feed_clock();
		say_who_is_missing(lists, lsn);
	}
}

/* ---- the change ---- */

static void
change_to_end(NcFeedChange *change)
{
	NcMemberLists *lists = palloc(sizeof(NcMemberLists));
	XLogRecPtr	end;

	read_lists(lists);
	lists->decided = 0;
	change->entry = write_entry(lists);
	ereport(NOTICE, (errmsg("old and new members count: waiting until both have confirmed that")));
	wait_until_confirmed(change, lists, change->entry);
	(void) ask_feed(change, NC_FEED_STEP_DECIDE);
	nc_members_second(lists, false);
	end = write_entry(lists);
	(void) ask_feed(change, NC_FEED_STEP_END);
	ereport(NOTICE, (errmsg("the new members count: waiting until they have confirmed that")));
	wait_until_confirmed(change, lists, end);
	pfree(lists);
}

/* The last entry once more: nobody knows whether it was confirmed. */
static void
confirm_again(NcFeedChange *change)
{
	NcMemberLists *lists = palloc(sizeof(NcMemberLists));

	read_lists(lists);
	wait_until_confirmed(change, lists, write_entry(lists));
	pfree(lists);
}

static void
change_members(NcFeedChange *change, const char *const *names, int n, int write_quorum)
{
	wait_for_answer(change);
	change->names.count = n;
	for (int i = 0; i < n; i++)
		strlcpy(change->names.names[i], names[i], NAMEDATALEN);
	change->write_quorum = (uint32) write_quorum;
	switch (ask_feed(change, NC_FEED_STEP_BEGIN))
	{
		case NC_FEED_STEP_CHANGE:
			change_to_end(change);
			break;
		case NC_FEED_STEP_BACK:
			ereport(NOTICE, (errmsg("the change that went on is taken back")));
			confirm_again(change);
			break;
		default:
			ereport(NOTICE, (errmsg("these are the members already")));
			confirm_again(change);
			break;
	}
}

/* One after the other: who comes later may want the same, or take it back. */
static void
become_owner(NcFeedChange *change)
{
	uint32		owner = 0;
	uint32		told = 0;

	while (!pg_atomic_compare_exchange_u32(&change->owner, &owner, (uint32) MyProcPid))
	{
		if (owner != told)
			ereport(NOTICE, (errmsg("waiting: process %u changes members", owner)));
		told = owner;
		owner = 0;
		nap();
	}
}

static void
leave_change(int code, Datum arg)
{
	pg_atomic_write_u32(&((NcFeedChange *) DatumGetPointer(arg))->owner, 0);
}

void
nc_feed_change_members(const char *const *names, int n, int write_quorum)
{
	NcFeedChange *change = nc_feed_change();

	if (change == NULL || RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this server has no WAL feed, and no members")));
	if (n > NC_FEED_SLOTS_MAX || write_quorum < 1 || write_quorum > n)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the write quorum has to be from 1 to the number of members, which is %d and at most %d", n, NC_FEED_SLOTS_MAX)));
	become_owner(change);
	PG_ENSURE_ERROR_CLEANUP(leave_change, PointerGetDatum(change));
	{
		change_members(change, names, n, write_quorum);
	}
	PG_END_ENSURE_ERROR_CLEANUP(leave_change, PointerGetDatum(change));
	leave_change(0, PointerGetDatum(change));
}
