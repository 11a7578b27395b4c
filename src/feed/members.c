/*
 * members.c
 *	  What members have confirmed, and the steps of a change of members (docs/takeover.md).
 *
 * Runs in the feed.  A change is two entries of the log, which the process that wants
 * it writes (change.c); who counts, and when, is decided here.
 *
 * Guarantees that both lists count before the first entry is written and until the
 * second one is flushed; that the second one is written only when both have confirmed
 * the first one; that a change which was taken back has no second entry; and that no
 * page server's entry, by which commits are released, says more than what a write quorum of
 * each list that counts has confirmed.
 */
#include "postgres.h"

#include "feed_internal.h"

/* Confirmed by all lists that counted then: it stays so. */
static NcFeedCap confirmed;

static const NcFeedCap no_cap = {PG_UINT64_MAX, PG_UINT64_MAX, PG_UINT64_MAX};

/* ---- what is confirmed ---- */

const NcFeedCap *
nc_feed_members_cap(void)
{
	return nc_feed_write_quorum == 0 || nc_feed_quorum_lists() == NULL ? &no_cap : &confirmed;
}

static int
newest_first(const void *a, const void *b)
{
	XLogRecPtr	x = *(const XLogRecPtr *) a;
	XLogRecPtr	y = *(const XLogRecPtr *) b;

	return x < y ? 1 : x > y ? -1 : 0;
}

/* What so many of n have. */
static XLogRecPtr
had_by(XLogRecPtr *positions, int n, uint32 quorum)
{
	if ((uint32) n < quorum)
		return InvalidXLogRecPtr;
	qsort(positions, n, sizeof(*positions), newest_first);
	return positions[quorum - 1];
}

static NcFeedCap
confirmed_by(const NcMembers *members, const NcFeedTurn *turn)
{
	XLogRecPtr	write[NC_FEED_SLOTS_MAX];
	XLogRecPtr	flush[NC_FEED_SLOTS_MAX];
	XLogRecPtr	apply[NC_FEED_SLOTS_MAX];
	int			n = 0;

	for (int i = nc_feed_slot_after(-1); i >= 0; i = nc_feed_slot_after(i))
	{
		const NcFeedConn *conn = nc_feed_slot_conn(i);

		if (!nc_feed_sync_joined(conn, turn) || nc_member_find(members, &conn->member) == NULL)
			continue;
		write[n] = conn->write;
		flush[n] = conn->flush;
		apply[n++] = conn->apply;
	}
	return (NcFeedCap) {
		.write = had_by(write, n, members->write_quorum),
		.flush = had_by(flush, n, members->write_quorum),
		.apply = had_by(apply, n, members->write_quorum)
	};
}

static void
find_confirmed(const NcMemberLists *lists, const NcFeedTurn *turn)
{
	NcFeedCap	by = confirmed_by(&lists->now, turn);

	if (nc_members_change(lists))
	{
		NcFeedCap	next = confirmed_by(&lists->next, turn);

		by.write = Min(by.write, next.write);
		by.flush = Min(by.flush, next.flush);
		by.apply = Min(by.apply, next.apply);
	}
	confirmed.write = Max(confirmed.write, by.write);
	confirmed.flush = Max(confirmed.flush, by.flush);
	confirmed.apply = Max(confirmed.apply, by.apply);
}

/* ---- steps of a change ---- */

static NcFeedStepAnswer
refuse_step(NcFeedChange *change, const char *format, ...) pg_attribute_printf(2, 3);

static NcFeedStepAnswer
refuse_step(NcFeedChange *change, const char *format, ...)
{
	va_list		args;

	va_start(args, format);
	vsnprintf(change->text, sizeof(change->text), format, args);
	va_end(args);
	return NC_FEED_STEP_REFUSED;
}

/* NULL: there is none. */
static const NcMember *
find_by_name(const NcMembers *members, const char *name)
{
	for (uint32 i = 0; i < members->n; i++)
	{
		if (strcmp(members->at[i].name, name) == 0)
			return &members->at[i];
	}
	return NULL;
}

/* Who that is: the directory that streams under the name, or while none does, the member of that name. */
static bool
find_named(const NcMemberLists *lists, const char *name, NcMember *found)
{
	int			slot = nc_feed_slot_find(name);
	const NcFeedConn *conn = slot < 0 ? NULL : nc_feed_slot_conn(slot);
	const NcMember *known = find_by_name(&lists->next, name);

	memset(found, 0, sizeof(*found));
	strlcpy(found->name, name, sizeof(found->name));
	if (known == NULL)
		known = find_by_name(&lists->now, name);
	if (conn != NULL && nc_feed_streams(conn) && conn->joined)
		found->id = conn->member;
	else if (slot >= 0 && known != NULL)
		found->id = known->id;
	return !nc_id_is_none(&found->id);
}

/* Same directories and write quorum? The order of names is of no importance. */
static bool
same_members(const NcMembers *a, const NcMembers *b)
{
	if (a->write_quorum != b->write_quorum || a->n != b->n)
		return false;
	for (uint32 i = 0; i < a->n; i++)
	{
		if (nc_member_find(b, &a->at[i].id) == NULL)
			return false;
	}
	return true;
}

/* False: the answer says why. */
static bool
read_wish(NcFeedChange *change, const NcMemberLists *lists, NcMembers *wish)
{
	memset(wish, 0, sizeof(*wish));
	wish->write_quorum = change->write_quorum;
	for (int i = 0; i < change->names.count; i++)
	{
		NcMember   *member = &wish->at[wish->n];

		if (!find_named(lists, change->names.names[i], member))
		{
			(void) refuse_step(change, "page server \"%s\" does not stream, so nobody knows whose directory it is", member->name);
			return false;
		}
		if (nc_member_find(wish, &member->id) != NULL)
		{
			(void) refuse_step(change, "page server \"%s\" is named twice", member->name);
			return false;
		}
		wish->n++;
	}
	return true;
}

static NcFeedStepAnswer
keep(NcFeedChange *change, const NcMemberLists *lists, NcFeedStepAnswer done)
{
	return nc_feed_quorum_keep(lists) ? done :
		refuse_step(change, "the members could not be written down: the log says why");
}

static NcFeedStepAnswer
go_back(NcFeedChange *change, NcMemberLists *lists)
{
	if (lists->decided)
		return refuse_step(change, "the change that goes on is confirmed by old and new members and cannot be taken back: end it first");
	nc_members_second(lists, true);
	ereport(LOG, (errmsg("WAL feed: a change of members is taken back")));
	return keep(change, lists, NC_FEED_STEP_BACK);
}

static NcFeedStepAnswer
begin_change(NcFeedChange *change, NcMemberLists *lists)
{
	static NcMembers wish;

	if (!read_wish(change, lists, &wish))
		return NC_FEED_STEP_REFUSED;
	if (!nc_members_change(lists))
	{
		if (same_members(&wish, &lists->now))
			return NC_FEED_STEP_NOTHING;
		nc_members_first(lists, &wish);
		ereport(LOG,
				(errmsg("WAL feed: %u members of which %u confirm change to %u of which %u do: both count", lists->now.n,
						lists->now.write_quorum, wish.n, wish.write_quorum)));
		return keep(change, lists, NC_FEED_STEP_CHANGE);
	}
	if (same_members(&wish, &lists->next))
		return NC_FEED_STEP_CHANGE;
	if (same_members(&wish, &lists->now))
		return go_back(change, lists);
	return refuse_step(change, "another change of members goes on: end it, or take it back, first (see neon_comm.members)");
}

static NcFeedStepAnswer
take_step(NcFeedChange *change)
{
	static NcMemberLists lists;

	if (nc_feed_write_quorum == 0)
		return refuse_step(change, "this compute keeps no members (neon_comm.write_quorum is 0)");
	if (nc_feed_quorum_lists() == NULL)
		return refuse_step(change, "members are not known yet: they are when all page servers have joined");
	lists = *nc_feed_quorum_lists();
	if (change->step == NC_FEED_STEP_BEGIN)
		return begin_change(change, &lists);
	if (!nc_members_change(&lists))
		return refuse_step(change, "no change of members goes on");
	if (change->step == NC_FEED_STEP_DECIDE)
	{
		if (change->entry > confirmed.flush)
			return refuse_step(change, "the change of members is not confirmed by old and new ones");
		lists.decided = 1;
		return keep(change, &lists, NC_FEED_STEP_DONE);
	}
	if (!lists.decided)
		return refuse_step(change, "the change of members has not been decided");
	nc_members_second(&lists, false);
	ereport(LOG,
			(errmsg("WAL feed: %u page servers are members now, of which %u confirm", lists.now.n, lists.now.write_quorum)));
	return keep(change, &lists, NC_FEED_STEP_DONE);
}

/* ---- the feed's turn ---- */

void
nc_feed_members_tick(const NcFeedTurn *turn)
{
	NcFeedChange *change = nc_feed_change();
	uint32		asked = pg_atomic_read_u32(&change->asked);

	if (nc_feed_quorum_lists() != NULL)
		find_confirmed(nc_feed_quorum_lists(), turn);
	pg_atomic_write_u64(&change->confirmed, confirmed.flush);
	if (asked == pg_atomic_read_u32(&change->answered))
		return;
	pg_read_barrier();
	change->answer = take_step(change);
	pg_write_barrier();
	pg_atomic_write_u32(&change->answered, asked);
}
