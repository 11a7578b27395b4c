/*
 * quorum.c
 *	  Members and write quorum: who counts, when somebody is let in, and when this
 *	  compute has been overtaken (docs/takeover.md).
 *
 * Runs in the feed, but for the hook of logins.  All of it is off while
 * neon_comm.write_quorum is 0.
 *
 * Guarantees that nobody is let in before so many members have joined this start of
 * the compute and have its WAL on disk up to where it began.  Members are the page
 * servers of the slots, by the ids of their directories, as they were when all of
 * them had joined for the first time, and what they were changed to since (members.c);
 * that is in compute_members before any of them hears of it.
 */
#include "postgres.h"

/* The headers of Kerberos need not be here; nothing below looks into what depends on them. */
#undef ENABLE_GSS

#include <signal.h>

#include "libpq/auth.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/timestamp.h"

#include "feed_internal.h"
#include "nc/shared/waits.h"

/* How often who waits for us is told of in the log. */
#define SAY_PERIOD_MS 10000

/* How long a login waits before it is refused, and how often it looks. */
#define LOGIN_PATIENCE_MS 10000
#define LOGIN_LOOK_MS 20

static ClientAuthentication_hook_type next_authentication = NULL;

/* As in compute_members; write_quorum 0: not known yet. */
static NcPromise kept;

/* Who has joined under the name of each slot, until members are known. */
static NcId seen[NC_FEED_SLOTS_MAX];

/* Members that have promised themselves to a compute that is not this one. */
static NcId lost[2 * NC_MEMBERS_MAX];
static uint32 nlost = 0;

/* WAL up to here has to be confirmed; invalid: recovery has not ended. */
static XLogRecPtr own_end = InvalidXLogRecPtr;
static TimestampTz said_at = 0;

static bool
are_known(void)
{
	return kept.members.now.write_quorum != 0;
}

/* ---- the file ---- */

static void
load_members(int elevel)
{
	const char *why = NULL;

	memset(&kept, 0, sizeof(kept));
	switch (nc_promise_load(DataDir, NC_COMPUTE_MEMBERS, &kept, &why))
	{
		case NC_FILE_OK:
		case NC_FILE_ABSENT:
			break;
		case NC_FILE_INVALID:
			ereport(elevel,
					(errcode(ERRCODE_DATA_CORRUPTED),
					 errmsg("file \"%s\" is not understood: %s", NC_COMPUTE_MEMBERS, why)));
			break;
		case NC_FILE_ERROR:
			ereport(elevel,
					(errcode_for_file_access(), errmsg("could not read file \"%s\": %m", NC_COMPUTE_MEMBERS)));
			break;
	}
}

/* In the postmaster, at its start. */
void
nc_feed_quorum_check_settings(void)
{
	if (nc_feed_write_quorum == 0)
		return;
	load_members(FATAL);
	if (!are_known() && nc_feed_write_quorum > nc_feed_listed.count)
		ereport(FATAL,
				(errcode(ERRCODE_CONFIG_FILE_ERROR),
				 errmsg("neon_comm.write_quorum = %d is more than there are page servers (%d)",
						nc_feed_write_quorum, nc_feed_listed.count)));
	if (are_known() && kept.members.now.write_quorum != (uint32) nc_feed_write_quorum)
		ereport(WARNING,
				(errmsg("neon_comm.write_quorum is %d, but the members are %u page servers of which %u confirm: that counts",
						nc_feed_write_quorum, kept.members.now.n, kept.members.now.write_quorum),
				 errhint("Set neon_comm.write_quorum to that. neon_comm.change_members() changes what counts.")));
}

void
nc_feed_quorum_begin(void)
{
	if (nc_feed_write_quorum > 0)
		load_members(ERROR);
}

/* ---- members ---- */

const NcMemberLists *
nc_feed_quorum_lists(void)
{
	return are_known() ? &kept.members : NULL;
}

/* Durable when it returns true; these count from now on. */
bool
nc_feed_quorum_keep(const NcMemberLists *lists)
{
	static NcPromise made;

	memset(&made, 0, sizeof(made));
	made.members = *lists;
	if (!nc_promise_save(DataDir, NC_COMPUTE_MEMBERS, &made))
	{
		ereport(LOG,
				(errcode_for_file_access(),
				 errmsg("WAL feed could not write file \"%s\": %m", NC_COMPUTE_MEMBERS)));
		return false;
	}
	kept = made;
	return true;
}

bool
nc_feed_quorum_is_member(const NcId *member)
{
	return nc_feed_write_quorum == 0 || !are_known() || nc_member_of_any(&kept.members, member) != NULL;
}

/* Does what it has on disk count? */
bool
nc_feed_quorum_counts(const NcFeedConn *conn)
{
	return nc_feed_quorum_is_member(&conn->member);
}

/*
 * Never less than what our log has, so that a page server may take what it is told for the members of its own log,
 * which is a part of ours: the second entry is told of as soon as it may be written.
 */
bool
nc_feed_quorum_tell(NcJoinAnswer *answer)
{
	if (nc_feed_write_quorum == 0)
		return false;
	answer->members = kept.members;
	if (kept.members.decided)
		nc_members_second(&answer->members, false);
	return are_known();
}

bool
nc_feed_quorum_known(void)
{
	return are_known();
}

/* False: not all of them have come yet, or one under two names. */
static bool
gather_members(NcMembers *members)
{
	memset(members, 0, sizeof(*members));
	members->write_quorum = nc_feed_write_quorum;
	for (int i = nc_feed_slot_after(-1); i >= 0; i = nc_feed_slot_after(i))
	{
		NcMember   *member = &members->at[members->n];

		if (nc_id_is_none(&seen[i]) || nc_member_find(members, &seen[i]) != NULL)
			return false;
		member->id = seen[i];
		strlcpy(member->name, nc_feed_slot_names[i], sizeof(member->name));
		members->n++;
	}
	return true;
}

/* All are there for the first time: that is who the members are. They join again, to be told. */
static void
make_members(void)
{
	static NcMemberLists made;

	memset(&made, 0, sizeof(made));
	if (!gather_members(&made.now) || !nc_feed_quorum_keep(&made))
		return;
	ereport(LOG,
			(errmsg("WAL feed: %u page servers are members, of which %u confirm", made.now.n,
					made.now.write_quorum)));
	for (int i = nc_feed_slot_after(-1); i >= 0; i = nc_feed_slot_after(i))
	{
		NcFeedConn *conn = nc_feed_slot_conn(i);

		if (conn != NULL && nc_feed_streams(conn))
			nc_feed_conn_fatal(conn, "57P01", "members are known from now on: join again", NULL, NULL);
	}
}

/* Somebody has joined outside recovery. */
void
nc_feed_quorum_joined(const NcEvidence *e)
{
	int			slot = e->name[0] == '\0' ? -1 : nc_feed_slot_find(e->name);

	if (nc_feed_write_quorum == 0 || are_known() || slot < 0)
		return;
	seen[slot] = e->member;
	make_members();
}

/* Its number is given to another one. */
void
nc_feed_quorum_forget(int slot)
{
	memset(&seen[slot], 0, sizeof(seen[slot]));
}

/* ---- overtaken ---- */

/* Those of a list that can confirm are too few. */
static bool
is_lost(const NcMembers *members)
{
	uint32		n = 0;

	for (uint32 i = 0; i < nlost; i++)
		n += nc_member_find(members, &lost[i]) != NULL;
	return members->write_quorum != 0 && n >= nc_members_takeover(members);
}

/*
 * A member belongs to a newer compute. When so many do that W can never be reached again, this one ends,
 * at once: whoever waits for page servers must not be released with a warning.
 */
void
nc_feed_quorum_overtaken(const NcEvidence *e)
{
	char		id[NC_ID_TEXT];

	if (nc_feed_write_quorum == 0 || !are_known() || nc_member_of_any(&kept.members, &e->member) == NULL)
		return;
	for (uint32 i = 0; i < nlost; i++)
	{
		if (nc_id_equal(&lost[i], &e->member))
			return;
	}
	if (nlost == lengthof(lost))
		return;
	lost[nlost++] = e->member;
	if (!is_lost(&kept.members.now) && !is_lost(&kept.members.next))
		return;
	(void) kill(PostmasterPid, SIGQUIT);
	ereport(FATAL,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("this compute was overtaken and stops"),
			 errdetail("%u page servers belong to a newer compute, the last one to incarnation %s.",
					   nlost, nc_id_text(nc_id_is_none(&e->promised) ? &e->incarnation : &e->promised, id)),
			 errhint("It must not be started again; see docs/takeover.md.")));
}

/* ---- letting in ---- */

static bool
confirms(const NcFeedConn *conn)
{
	return conn != NULL && nc_feed_streams(conn) && conn->joined && !conn->from_recovery &&
		conn->greeted && conn->flush >= own_end;
}

/*
 * How many have confirmed our WAL: of one list, or of all while members are not known (NULL).  Who
 * is no member counts nowhere.
 */
static int
confirmed_by(const NcMembers *members)
{
	int			n = 0;

	for (int i = nc_feed_slot_after(-1); i >= 0; i = nc_feed_slot_after(i))
	{
		const NcFeedConn *conn = nc_feed_slot_conn(i);

		n += confirms(conn) && (members == NULL || nc_member_find(members, &conn->member) != NULL);
	}
	return n;
}

static void
let_in(int confirmed, int needed, const NcFeedTurn *turn)
{
	if (confirmed >= needed)
	{
		nc_feed_let_in_set(confirmed, needed, own_end, true);
		ereport(LOG,
				(errmsg("%d page servers have confirmed the WAL of this compute up to " NC_LSN_FMT
						": connections are let in", confirmed, NC_LSN_ARGS(own_end))));
		return;
	}
	nc_feed_let_in_set(confirmed, needed, own_end, false);
	if (said_at == 0)
		said_at = turn->now;
	if (!TimestampDifferenceExceeds(said_at, turn->now, SAY_PERIOD_MS))
		return;
	said_at = turn->now;
	ereport(LOG,
			(errmsg("nobody is let in yet: %d of %d page servers have confirmed the WAL of this compute up to "
					NC_LSN_FMT, confirmed, needed, NC_LSN_ARGS(own_end)),
			 errhint("Start page servers, or see why they are refused (neon_comm.write_quorum).")));
}

/* Behind the streams of a turn. */
void
nc_feed_quorum_tick(const NcFeedTurn *turn)
{
	const NcMembers *now = are_known() ? &kept.members.now : NULL;
	int			needed = now != NULL ? (int) now->write_quorum : nc_feed_write_quorum;
	int			confirmed;

	if (nc_feed_write_quorum == 0 || turn->limit.in_recovery || nc_feed_let_in(NULL, NULL, NULL))
		return;
	if (own_end == InvalidXLogRecPtr)
		own_end = turn->limit.lsn;
	confirmed = confirmed_by(now);
	/* while members change both lists have to, and the one that lacks some is told of */
	if (confirmed >= needed && nc_members_change(&kept.members))
	{
		needed = (int) kept.members.next.write_quorum;
		confirmed = confirmed_by(&kept.members.next);
	}
	let_in(confirmed, needed, turn);
}

/* In each backend, and walsender, that has proved who it is. */
static void
wait_to_be_let_in(Port *port, int status)
{
	XLogRecPtr	end;
	int			confirmed;
	int			needed;

	if (next_authentication != NULL)
		next_authentication(port, status);
	if (status != STATUS_OK)
		return;
	for (int waited = 0; !nc_feed_let_in(&confirmed, &needed, &end); waited += LOGIN_LOOK_MS)
	{
		if (waited >= LOGIN_PATIENCE_MS)
			ereport(FATAL,
					(errcode(ERRCODE_CANNOT_CONNECT_NOW),
					 errmsg("nobody is let in yet: %d of %d page servers have confirmed the WAL of this compute",
							confirmed, needed),
					 errdetail("WAL up to " NC_LSN_FMT " has to be on so many, so that nobody sees what a takeover could lose.",
							   NC_LSN_ARGS(end))));
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, LOGIN_LOOK_MS,
						 nc_wait_event(NC_WAIT_LET_IN));
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	nc_feed_answers_begin();
}

/* From _PG_init. */
void
nc_feed_quorum_init(void)
{
	if (nc_feed_write_quorum == 0)
		return;
	next_authentication = ClientAuthentication_hook;
	ClientAuthentication_hook = wait_to_be_let_in;
}
