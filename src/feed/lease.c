/*
 * lease.c
 *	  Leases of this compute: asked for in the feed, looked at by whoever answers (answers.c).
 *
 * The feed asks each page server that has joined and streams, several times within a
 * lease, and counts from when it asked (docs/takeover.md).  What all processes see is one time:
 * until then a write quorum of members has granted leases to this incarnation.
 *
 * Guarantees that this time is never later than what members have granted, and that a
 * compute which goes on in place of one elsewhere has none before the leases of that one have
 * ended, as far as its members granted them.
 */
#include "postgres.h"

#include "port/atomics.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"

#include "feed_internal.h"
#include "nc/feed/lease.h"
#include "nc/identity/lease.h"
#include "nc/shared/identity.h"
#include "nc/shared/test_point.h"

/* How often page servers are asked within a lease, and before anything is known of it. */
#define ASKS_IN_A_LEASE 6
#define FIRST_PERIOD_MS 100

typedef struct LeaseOfMember
{
	NcId		member;
	pg_atomic_uint64 until;		/* by nc_boot_clock_us() */
} LeaseOfMember;

typedef struct LeaseShared
{
	/* Of a write quorum; 0 = there was none yet. */
	pg_atomic_uint64 until;

	/* Those that have granted any; only the feed adds one. */
	pg_atomic_uint32 n;
	LeaseOfMember of[NC_MEMBERS_MAX];
} LeaseShared;

static LeaseShared *shared = NULL;

/* The shortest lease that was granted: so often somebody is asked. */
static int	shortest_ms = 0;

/* Before then nothing is answered: a compute elsewhere may have leases. */
static uint64 others_until = 0;

/* Lost since, for the log; 0 = they are held, or were not had yet. */
static uint64 lost_since = 0;
static bool had = false;

/* ---- shared memory ---- */

Size
nc_lease_shmem_bytes(void)
{
	return MAXALIGN(sizeof(LeaseShared));
}

void
nc_lease_shmem_startup(void)
{
	bool		found;

	shared = ShmemInitStruct("neon_comm leases", nc_lease_shmem_bytes(), &found);
	if (found)
		return;
	memset(shared, 0, sizeof(*shared));
	pg_atomic_init_u64(&shared->until, 0);
	pg_atomic_init_u32(&shared->n, 0);
	for (int i = 0; i < NC_MEMBERS_MAX; i++)
		pg_atomic_init_u64(&shared->of[i].until, 0);
}

bool
nc_lease_holds(void)
{
	return nc_feed_write_quorum == 0 || nc_boot_clock_us() < pg_atomic_read_u64(&shared->until);
}

static LeaseOfMember *
find(const NcId *member)
{
	uint32		n = pg_atomic_read_u32(&shared->n);

	pg_read_barrier();
	for (uint32 i = 0; i < n; i++)
	{
		if (nc_id_equal(&shared->of[i].member, member))
			return &shared->of[i];
	}
	return NULL;
}

int
nc_lease_left_ms(const NcId *member)
{
	LeaseOfMember *of = shared == NULL ? NULL : find(member);
	uint64		until = of == NULL ? 0 : pg_atomic_read_u64(&of->until);
	uint64		now = nc_boot_clock_us();

	return until <= now ? 0 : (int) ((until - now) / 1000);
}

/* ---- what is held, in the feed ---- */

/* A new place, or that of one who is no member any more; NULL: there is none, which members alone cannot take. */
static LeaseOfMember *
add(const NcId *member)
{
	uint32		n = pg_atomic_read_u32(&shared->n);

	for (uint32 i = 0; i < n; i++)
	{
		if (nc_feed_quorum_is_member(&shared->of[i].member))
			continue;
		pg_atomic_write_u64(&shared->of[i].until, 0);
		shared->of[i].member = *member;
		return &shared->of[i];
	}
	if (n == NC_MEMBERS_MAX)
		return NULL;
	shared->of[n].member = *member;
	pg_write_barrier();
	pg_atomic_write_u32(&shared->n, n + 1);
	return &shared->of[n];
}

static int
later_first(const void *a, const void *b)
{
	uint64		x = *(const uint64 *) a;
	uint64		y = *(const uint64 *) b;

	return x > y ? -1 : x < y;
}

/* Until when leases of so many of these run (NULL: of whoever is asked); 0 = so many have not granted any. */
static uint64
until_of_list(const NcMembers *members, int needed)
{
	uint64		until[NC_MEMBERS_MAX];
	int			n = 0;

	for (uint32 i = 0; i < pg_atomic_read_u32(&shared->n); i++)
	{
		if (members == NULL || nc_member_find(members, &shared->of[i].member) != NULL)
			until[n++] = pg_atomic_read_u64(&shared->of[i].until);
	}
	qsort(until, n, sizeof(until[0]), later_first);
	return n < needed ? 0 : until[needed - 1];
}

/* Of a write quorum; of both lists while members change. */
static uint64
until_of_quorum(void)
{
	const NcMemberLists *lists = nc_feed_quorum_lists();
	uint64		until;

	if (lists == NULL)
		return until_of_list(NULL, nc_feed_write_quorum);
	until = until_of_list(&lists->now, (int) lists->now.write_quorum);
	if (nc_members_change(lists))
		until = Min(until, until_of_list(&lists->next, (int) lists->next.write_quorum));
	return until;
}

static void
publish(void)
{
	uint64		until = until_of_quorum();

	if (nc_boot_clock_us() < others_until)
		until = 0;
	if (pg_atomic_read_u64(&shared->until) != until)
		pg_atomic_write_u64(&shared->until, until);
}

/* ---- asking ---- */

static int
period_ms(void)
{
	return shortest_ms == 0 ? FIRST_PERIOD_MS : shortest_ms / ASKS_IN_A_LEASE;
}

/* One question at a time: a second one would only stand behind the first. */
void
nc_feed_lease_ask(NcFeedConn *conn, const NcFeedTurn *turn)
{
	NcWriter	w;
	uint8_t    *length_at;

	if (nc_feed_write_quorum == 0 || !conn->joined || conn->lease_asked ||
		!TimestampDifferenceExceeds(conn->lease_asked_at, turn->now, conn->lease_asked_at == 0 ? 0 : period_ms()))
		return;
	w = nc_visitor_writer(&conn->v);
	length_at = nc_frame_begin(&w, 'd');
	nc_write_u8(&w, NC_LEASE_MESSAGE);
	nc_write_u64(&w, nc_boot_clock_us());
	nc_frame_end(&w, length_at);
	/* no room behind what is pending: in a later turn */
	if (w.failed)
		return;
	nc_visitor_commit(&conn->v, &w);
	conn->lease_asked = true;
	conn->lease_asked_at = turn->now;
}

/* The answer. */
void
nc_feed_lease_take(NcFeedConn *conn, NcReader *r)
{
	uint64		asked = nc_read_u64(r);
	uint32		granted_ms = nc_read_u32(r);
	uint32		older_ms = nc_read_u32(r);
	uint64		now = nc_boot_clock_us();
	LeaseOfMember *of;

	if (r->failed || asked > now || granted_ms > NC_LEASE_MAX_MS || !conn->lease_asked)
	{
		nc_feed_conn_fatal(conn, "08P01", "answer about a lease that was not asked for", NULL,
						   "Page server and compute need the same version of neon_comm.");
		return;
	}
	conn->lease_asked = false;
	if (granted_ms == 0 || !nc_feed_quorum_is_member(&conn->member))
		return;
	if (nc_identity->elsewhere)
		others_until = Max(others_until, now + (uint64) older_ms * 1000);
	of = find(&conn->member);
	if (of == NULL)
		of = add(&conn->member);
	if (of == NULL)
		return;
	shortest_ms = shortest_ms == 0 ? (int) granted_ms : Min(shortest_ms, (int) granted_ms);
	pg_atomic_write_u64(&of->until, Max(pg_atomic_read_u64(&of->until), asked + (uint64) granted_ms * 1000));
	publish();
}

/* How long a turn may sleep at most. */
int
nc_feed_lease_sleep_ms(void)
{
	return nc_feed_write_quorum == 0 ? INT_MAX : period_ms();
}

/* ---- the log ---- */

static void
tell_lost(void)
{
	ereport(LOG,
			(errmsg("leases of page servers have run out: nothing is answered"),
			 errdetail("%d of them have to grant leases to this compute, so that it knows that no other one has taken its place.",
					   nc_feed_write_quorum)));
}

/* Behind the streams of a turn. */
void
nc_feed_lease_tick(const NcFeedTurn *turn)
{
	uint64		now = nc_boot_clock_us();
	bool		holds;

	if (nc_feed_write_quorum == 0 || turn->limit.in_recovery)
		return;
	publish();
	holds = nc_lease_holds();
	if (holds && lost_since != 0)
		ereport(LOG,
				(errmsg("leases of page servers are held again, after " UINT64_FORMAT " ms: answers go on",
						(now - lost_since) / 1000)));
	else if (!holds && had && lost_since == 0)
		tell_lost();
	had |= holds;
	if (holds || !had)
		lost_since = 0;
	else if (lost_since == 0)
		lost_since = now;
}
