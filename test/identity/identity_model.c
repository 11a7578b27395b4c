/*
 * identity_model.c
 *	  Computes and page servers to which everything happens that identity is for,
 *	  judged by the very code of src/identity.
 *
 * Directories are copied while they run and while they do not, go back to older
 * copies, are adopted; machines go back to a snapshot of their memory; recovery ends
 * early; page servers are rolled back, promoted, lose the end of their WAL but not of their pages, get it
 * back, replay WAL that was put there, and are started again and again before they join; a compute forgets
 * to judge, and removes WAL.  WAL is a row of records.  Each has a number of its own, which is the truth and which no judge
 * sees; what judges see is a header, and headers of different records may be equal.
 *
 * Broken is:
 *	  a compute is served by a page server that has replayed another record than the
 *	    compute has at the same place;
 *	  a compute lets in a page server with such a record;
 *	  two that have parted come together again, while at least one of them remembers;
 *	  a stranger is remembered as parted: a wrong address is no parted history;
 *	  a page server goes on with a lineage that lacks what it followed;
 *	  somebody parts from a page server of the same history that has lost the end of its WAL;
 *	  one whose WAL was never another, and of which each start came to the end of it, is refused for what it
 *	    has lost.
 *
 * What is assumed: after a machine was put back to a snapshot of its memory, records differ
 * in their headers from those written before, unless each page server had a session in between,
 * and no page server is copied or loses the end of its WAL meanwhile; and no directory is copied in its recovery
 * (docs/identity.md, "What remains").  Pages of two histories are mended by images of whole pages when replay
 * has passed the newest one.
 *
 * Each rule taken away must be missed: test/without/identity.txt.  Same seed, same run.
 *
 *	identity_model [--without] [SEEDS]   seeds until something breaks; then the status is 1
 *	identity_model SEEDS SEED            one seed, step by step
 *
 * --without: a rule was taken away; only what mixes histories is broken then.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nc/identity/judge.h"

#define DIRS 3
#define MEMBERS 2
#define RECORDS_MAX 10
#define RECORD_BYTES 64
#define BASE ((NcLsn) 0x100000 + 40)
#define SEGMENT (16 * 1024 * 1024)
#define STEPS 60
#define PLAIN 7					/* the header that different records may share */

typedef struct Record
{
	uint32_t	truth;			/* unique */
	uint32_t	header;
} Record;

typedef struct Wal
{
	uint32_t	n;
	Record		at[RECORDS_MAX];
} Wal;

typedef struct Compute
{
	NcComputeIdentity identity;
	Wal			wal;
	uint32_t	removed;		/* so many records are not in its WAL any more */
	bool		exists;
	bool		running;
	bool		in_recovery;
	bool		distinct;		/* put back, and some member had no session since: records differ */
} Compute;

typedef struct Member
{
	NcMemberIdentity identity;
	uint32_t	timeline;
	Wal			pages;			/* what its pages are made of */
	bool		mixed;			/* and of other records at the same places */
	Wal			wal;			/* what it has of WAL; the first record is the last checkpoint */
	Wal			kept;			/* the same, before its end was lost */
	bool		up;				/* and has replayed all of it */
	NcUnjudged	unjudged;		/* since the start */
	bool		file_there;		/* page_service_unjudged */
	NcUnjudgedWal file;
	NcUnjudgedWal held;			/* the file, before the first record since the start */
	bool		sound;			/* since the last agreement its WAL has only grown, and each start came to the end of it */
	int			follows;		/* the directory of its session, -1 = none */
	bool		refused;		/* its last join did not succeed */
	int			early;			/* the directory that it joined in recovery, with this evidence; -1 = none */
	NcEvidence	evidence;
} Member;

static bool all_hold = true;	/* nothing was taken away */
static Compute computes[DIRS];
static Compute snapshot;
static int	snapshot_of;
static Member members[MEMBERS];
static Member spare[MEMBERS];
static bool spare_there[MEMBERS];
static uint64_t state;
static uint32_t last_record;
static uint32_t last_id;
static const char *broken;
static bool trace;

/* ---- small things ---- */

static uint32_t
below(uint32_t n)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (uint32_t) ((state >> 20) % n);
}

static NcId
new_id(void)
{
	NcId		id = {{1}};

	last_id++;
	memcpy(id.b + 4, &last_id, sizeof(last_id));
	return id;
}

static NcLsn
lsn_of(uint32_t record)
{
	return BASE + (NcLsn) record * RECORD_BYTES;
}

static void
header_of(const Wal *wal, uint32_t i, uint8_t header[NC_WAL_HEADER_BYTES])
{
	uint32_t	length = RECORD_BYTES;
	NcLsn		prev = i == 0 ? 0 : lsn_of(i - 1);

	memset(header, 0, NC_WAL_HEADER_BYTES);
	memcpy(header, &length, 4);
	memcpy(header + 8, &prev, 8);
	header[17] = 1;
	memcpy(header + 20, &wal->at[i].header, 4);
}

static NcWalRead
read_wal(void *arg, NcLsn at, size_t bytes, uint8_t *to)
{
	const Compute *c = arg;
	uint32_t	i = (uint32_t) ((at - BASE) / RECORD_BYTES);

	if (i < c->removed)
		return NC_WAL_GONE;
	if (i >= c->wal.n)
		return NC_WAL_BEYOND;
	header_of(&c->wal, i, to);
	return NC_WAL_OK;
}

/* Has one a record that is another one in the other? */
static bool
same_wal(const Wal *a, const Wal *b)
{
	for (uint32_t i = 0; i < a->n && i < b->n; i++)
		if (a->at[i].truth != b->at[i].truth)
			return false;
	return true;
}

static bool
same_history(const Member *m, const Compute *c)
{
	return !m->mixed && same_wal(&m->pages, &c->wal);
}

/* Are there pages of records that its WAL does not have? */
static bool
tail_lost(const Member *m)
{
	return m->wal.n < m->pages.n;
}

static void
append(Wal *wal, bool distinct)
{
	last_record++;
	if (wal->n < RECORDS_MAX)
		wal->at[wal->n++] = (Record) {last_record,
			!distinct && below(2) == 0 ? PLAIN : last_record + 100};
}

static NcIncarnation *
present(Compute *c)
{
	return &c->identity.lineage.at[c->identity.lineage.n - 1];
}

static void
disconnect(int dir)
{
	for (int p = 0; p < MEMBERS; p++)
		if (members[p].follows == dir)
			members[p].follows = -1;
}

/* ---- who has parted ---- */

/* Does one of the two remember, before they judge? */
static bool
remembered(const Member *m, const Compute *c)
{
	if (nc_parted_find(&c->identity.parted, &m->identity.member) != NULL || m->identity.promoted)
		return true;
	for (uint32_t i = 0; i < c->identity.lineage.n; i++)
		if (nc_parted_find(&m->identity.refused, &c->identity.lineage.at[i].id) != NULL)
			return true;
	return false;
}

/* ---- replay ---- */

static NcWalRecord
record_of(const Member *m, uint32_t i)
{
	NcWalRecord record = {.start = lsn_of(i)};

	header_of(&m->wal, i, record.header);
	return record;
}

/* The file is empty before a record is replayed that was not judged. */
static void
replay(Member *m, uint32_t i)
{
	NcWalRecord record = record_of(m, i);

	if (m->unjudged == NC_UNJUDGED_NONE)
	{
		m->held = m->file;
		m->unjudged = nc_unjudged_begin(m->file_there ? &m->file : NULL);
	}
	m->file_there = true;
	m->file = (NcUnjudgedWal) {0};
	m->mixed |= i < m->pages.n && m->pages.at[i].truth != m->wal.at[i].truth;
	m->pages.at[i] = m->wal.at[i];
	if (i == m->pages.n)
		m->pages.n++;
	if (m->unjudged == NC_UNJUDGED_AHEAD)
		m->unjudged = nc_unjudged_met(&m->held, &record);
}

static void
down(Member *m)
{
	m->up = false;
	m->follows = -1;
}

/* It looks for a compute, also where it finds none. */
static void
keep_last(Member *m)
{
	if (m->unjudged == NC_UNJUDGED_REPLAYED)
		m->file = (NcUnjudgedWal) {.ends = true, .last = record_of(m, m->wal.n - 1)};
}

/* Up to this record, where it is killed if there are more. */
static void
start_member(Member *m, uint32_t until)
{
	down(m);
	m->unjudged = NC_UNJUDGED_NONE;
	for (uint32_t i = 1; i < until; i++)
		replay(m, i);
	m->sound &= until == m->wal.n;
	if (until < m->wal.n)
		return;
	m->up = true;
	m->mixed &= tail_lost(m);
	keep_last(m);
}

/* ---- joining ---- */

static NcEvidence
evidence_of(const Member *m)
{
	const NcMemberIdentity *id = &m->identity;
	uint32_t	last = m->wal.n - 1;
	NcEvidence	e = {.system_identifier = 1, .timeline = m->timeline, .birth = id->birth,
	.member = id->member, .chain = id->chain};

	if (id->followed.n > 0)
		e.incarnation = id->followed.at[id->followed.n - 1].id;
	e.start = lsn_of(last);
	e.end = lsn_of(m->pages.n);
	header_of(&m->wal, last, e.header);
	return e;
}

static NcComputeView
view_of(Compute *c)
{
	return (NcComputeView) {.system_identifier = 1, .timeline = 1, .identity = &c->identity,
		.in_recovery = c->in_recovery, .end = lsn_of(c->wal.n), .wal = {read_wal, c, SEGMENT}};
}

static void
part(Member *m, Compute *c, NcVerdict v)
{
	if (v.kind != NC_PARTED)
		return;
	if (!nc_id_is_none(&m->identity.birth) &&
		!nc_id_equal(&m->identity.birth, &c->identity.birth))
		broken = "a stranger is remembered as parted";
	nc_parted_add(&c->identity.parted, &m->identity.member, "parted");
}

static void
join(int p, int dir, bool careless)
{
	static NcJoinAnswer answer;
	Member	   *m = &members[p];
	Compute    *c = &computes[dir];
	NcEvidence	e;
	NcComputeView me = view_of(c);
	bool		parted = remembered(m, c);
	NcChain		chain = {0, 0};
	NcVerdict	v;
	NcWalRecord last;
	bool		careful;		/* the page server is to see it itself */

	if (!m->up)
		start_member(m, m->wal.n);
	keep_last(m);
	e = evidence_of(m);
	v = nc_judge_member(&me, &e);
	last = record_of(m, m->wal.n - 1);
	careful = tail_lost(m) && !nc_unjudged_answered(m->unjudged, m->file_there ? &m->file : NULL, &last);
	m->follows = -1;
	if (v.kind == NC_JOINED && !same_history(m, c) && !careful)
		broken = "a page server of another history is let in";
	if (v.kind == NC_PARTED && v.reason == NC_REASON_OTHER_RECORD && tail_lost(m) && same_history(m, c) && all_hold)
		broken = "somebody parts from one that has less of the same";
	if (careful && m->sound && all_hold)
		broken = "one that has less of the same is refused for it";
	/* a compute that does not look at lineages: the page server must */
	if (careless && v.reason == NC_REASON_OTHER_LIFE)
		v = (NcVerdict) {NC_JOINED, NC_REASON_NONE, 0};
	part(m, c, v);
	if (v.kind == NC_JOINED)
		chain = nc_session_give(&c->identity, &m->identity.member, below(1000000));
	nc_join_answer_fill(&answer, &me, &e, v, chain);
	v = nc_judge_compute(&m->identity, m->timeline, careful, &answer);
	m->refused = v.kind != NC_JOINED;
	if (v.kind == NC_PARTED)
		nc_member_refuse(&m->identity, &answer);
	if (v.kind != NC_JOINED)
		return;
	if (!same_history(m, c))
		broken = "a page server of another history follows";
	if (parted)
		broken = "parted, and together again";
	if (m->identity.followed.n > 0 &&
		nc_lineage_find(&c->identity.lineage,
						&m->identity.followed.at[m->identity.followed.n - 1].id) < 0)
		broken = "a page server goes on with a lineage that lacks what it followed";
	nc_member_adopt(&m->identity, &answer);
	m->identity.timeline = m->timeline;
	m->follows = dir;
	m->unjudged = NC_UNJUDGED_NONE;
	m->file_there = false;
	m->file = (NcUnjudgedWal) {0};
	m->kept.n = 0;
	m->sound = true;
	if (c->in_recovery && m->early != dir)
	{
		m->early = dir;
		m->evidence = e;
	}
}

/* ---- what happens to computes ---- */

static void
start(int dir)
{
	Compute    *c = &computes[dir];
	NcId		id = new_id();

	if (!c->exists || c->running)
		return;
	nc_lineage_append(&c->identity.lineage, &id, 0);
	c->running = c->in_recovery = true;
	for (int p = 0; p < MEMBERS; p++)
		if (members[p].early == dir)
			members[p].early = -1;
	c->distinct = false;
}

/* Where the last one began that did: it made a checkpoint there. */
static NcLsn
last_began(const Compute *c)
{
	NcLsn		began = 0;

	for (uint32_t i = 0; i < c->identity.lineage.n; i++)
		if (c->identity.lineage.at[i].began != 0)
			began = c->identity.lineage.at[i].began;
	return began;
}

/* Recovery ends; now and then earlier than what is on disk. */
static void
recovered(int dir)
{
	Compute    *c = &computes[dir];

	if (!c->running || !c->in_recovery)
		return;
	if (below(3) == 0 && c->wal.n > 1 && lsn_of(c->wal.n) > last_began(c))
		c->wal.n--;
	c->in_recovery = false;
	present(c)->began = lsn_of(c->wal.n);
	for (int p = 0; p < MEMBERS; p++)
	{
		Member	   *m = &members[p];
		NcComputeView me = view_of(c);
		NcVerdict	v;

		if (m->early != dir)
			continue;
		m->early = -1;
		v = nc_judge_member_again(&me, &m->evidence);
		if (v.kind == NC_PARTED)
			nc_parted_add(&c->identity.parted, &m->identity.member, "parted");
		/* its connection ends; it comes back before anything is asked of it */
		if (v.kind != NC_JOINED && m->follows == dir)
			join(p, dir, false);
	}
}

static void
stop(int dir)
{
	computes[dir].running = computes[dir].in_recovery = false;
	disconnect(dir);
}

/* Also of a directory in use, as a snapshot of storage is. */
static void
copy(int from, int to, bool adopted)
{
	if (!computes[from].exists || computes[to].running || from == to || computes[from].in_recovery)
		return;
	computes[to] = computes[from];
	computes[to].running = computes[to].in_recovery = false;
	if (adopted)
	{
		memset(&computes[to].identity, 0, sizeof(computes[to].identity));
		computes[to].identity.birth = new_id();
	}
}

/* Had the member a session since the snapshot? */
static bool
session_since(const NcMemberIdentity *m)
{
	const NcSession *s = nc_session_find(&snapshot.identity, &m->member);

	return s == NULL ? m->chain.number != 0 :
		s->chain.number != m->chain.number || s->chain.random != m->chain.random;
}

static void
put_back(void)
{
	int			dir = snapshot_of;

	if (dir < 0 || !computes[dir].running)
		return;
	/* sessions since then give both lives away; to who had none, their records must */
	snapshot.distinct = false;
	for (int p = 0; p < MEMBERS; p++)
		snapshot.distinct |= !session_since(&members[p].identity);
	computes[dir] = snapshot;
	disconnect(dir);
}

static void
take_snapshot(int dir)
{
	if (!computes[dir].running || computes[dir].in_recovery)
		return;
	snapshot = computes[dir];
	snapshot_of = dir;
}

/* ---- what happens to page servers ---- */

static void
deliver(int p)
{
	Member	   *m = &members[p];
	Compute    *c;

	if (m->follows < 0)
		return;
	c = &computes[m->follows];
	if (c->in_recovery || m->wal.n >= c->wal.n)
		return;
	m->wal.at[m->wal.n] = m->pages.at[m->wal.n] = c->wal.at[m->wal.n];
	m->wal.n++;
	if (m->pages.n < m->wal.n)
		m->pages.n++;
}

static void
roll_back(int p)
{
	if (!spare_there[p])
		return;
	members[p] = spare[p];
	down(&members[p]);
}

/* A file was put into its WAL. */
static void
put_foreign(int p)
{
	Member	   *m = &members[p];

	if (m->wal.n == RECORDS_MAX)
		return;
	append(&m->wal, true);
	m->sound = false;
	m->follows = -1;
	if (m->up)
		replay(m, m->wal.n - 1);
}

static void
lose_tail(int p)
{
	Member	   *m = &members[p];

	if (snapshot_of >= 0)
		return;					/* assumed, see the head: what is lost could be of the other life */
	if (m->kept.n < m->wal.n)
		m->kept = m->wal;
	m->wal.n -= below(m->wal.n);
	m->sound &= !m->file_there;
	down(m);
}

/* All of it, or the beginning. */
static void
get_back(int p)
{
	Member	   *m = &members[p];

	if (m->kept.n == 0)
		return;
	m->wal = m->kept;
	m->wal.n -= below(m->wal.n);
	m->sound = false;
	down(m);
}

static void
start_again(int p)
{
	Member	   *m = &members[p];

	start_member(m, below(4) == 0 ? 1 + below(m->wal.n) : m->wal.n);
}

/* One thing after the other to its WAL, before it joins. */
static void
trouble(int p)
{
	for (uint32_t left = 1 + below(8); left > 0; left--)
	{
		uint32_t	what = below(6);

		if (what < 3)
			start_again(p);
		else if (what == 3)
			lose_tail(p);
		else if (what == 4)
			get_back(p);
		else
			put_foreign(p);
	}
}

/* It writes something itself. */
static void
promote(int p)
{
	if (below(4) != 0)
		return;
	members[p].timeline = 2;
	members[p].identity.promoted = true;
	append(&members[p].wal, false);
	members[p].pages = members[p].wal;
	down(&members[p]);
}

static void
rebuild(int p)
{
	Member	   *other = &members[(p + 1) % MEMBERS];
	NcMemberIdentity fresh = {.member = new_id()};

	if (snapshot_of >= 0)
		return;					/* assumed, see the head: a copy takes no session along */
	/* from another page server: what it followed goes along, but not its name */
	members[p] = *other;
	fresh.birth = other->identity.birth;
	fresh.timeline = other->identity.timeline;
	fresh.followed = other->identity.followed;
	fresh.refused = other->identity.refused;
	fresh.promoted = other->identity.promoted;
	members[p].identity = fresh;
	down(&members[p]);
	spare_there[p] = false;
}

/* ---- reading ---- */

static void
read_page(int p, int dir)
{
	Member	   *m = &members[p];
	Compute    *c = &computes[dir];
	NcReaderIdentity reader;
	char		reason[NC_REASON_BYTES];

	/* not consistent, or beyond what was judged: nothing is served until it has joined again */
	if (!c->running || !m->up || m->refused || tail_lost(m) || m->unjudged != NC_UNJUDGED_NONE)
		return;
	reader = (NcReaderIdentity) {c->identity.birth, present(c)->id};
	if (nc_judge_reader(&m->identity, &reader, reason) != NC_ACCESS_SERVE)
		return;
	/* in recovery the page server may have what recovery will not find: then it is judged again */
	if (!c->in_recovery && !same_history(m, c) && m->follows == dir)
		broken = "a compute is served pages of another history by one that follows it";
	else if (!c->in_recovery && !same_history(m, c) && snapshot_of != dir)
		broken = "a compute is served pages of another history";
}

/* ---- a run ---- */

/* All follow the first compute, and have what it writes. */
static void
go_on_together(uint32_t records)
{
	start(0);
	computes[0].in_recovery = false;
	present(&computes[0])->began = lsn_of(computes[0].wal.n);
	for (int p = 0; p < MEMBERS; p++)
		join(p, 0, false);
	for (; records > 0; records--)
	{
		append(&computes[0].wal, true);
		for (int p = 0; p < MEMBERS; p++)
			deliver(p);
	}
}

static void
begin(uint64_t seed)
{
	memset(computes, 0, sizeof(computes));
	memset(members, 0, sizeof(members));
	memset(spare_there, 0, sizeof(spare_there));
	snapshot_of = -1;
	state = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
	last_record = last_id = 0;
	broken = NULL;
	computes[0].exists = true;
	computes[0].identity.birth = new_id();
	append(&computes[0].wal, true);
	for (int p = 0; p < MEMBERS; p++)
	{
		members[p].identity.member = new_id();
		members[p].timeline = 1;
		members[p].pages = members[p].wal = computes[0].wal;
		members[p].up = members[p].sound = true;
		members[p].follows = members[p].early = -1;
	}
	if (below(2) == 0)
		go_on_together(below(5));
}

static void
show_wal(const Wal *wal)
{
	for (uint32_t i = 0; i < wal->n; i++)
		printf(" %u%s", wal->at[i].truth, wal->at[i].header == PLAIN ? "p" : "");
}

static void
show(uint32_t what, int dir, int p)
{
	printf("what %u, directory %d, page server %d\n", what, dir, p);
	for (int i = 0; i < DIRS; i++)
	{
		Compute    *c = &computes[i];

		printf("  compute %d%s%s:", i, c->running ? " runs" : "", c->in_recovery ? " in recovery" : "");
		for (uint32_t k = 0; k < c->identity.lineage.n; k++)
			printf(" %u@%u", c->identity.lineage.at[k].id.b[4],
				   (uint32_t) ((c->identity.lineage.at[k].began - BASE) / RECORD_BYTES));
		printf(" |");
		show_wal(&c->wal);
		printf(" |");
		for (uint32_t k = 0; k < c->identity.nsessions; k++)
			printf(" %u:%u/%u", c->identity.sessions[k].member.b[4], c->identity.sessions[k].incarnation.b[4],
				   (unsigned) c->identity.sessions[k].chain.number);
		printf("\n");
	}
	for (int i = 0; i < MEMBERS; i++)
	{
		Member	   *m = &members[i];

		printf("  page server %d follows %d:", i, m->follows);
		for (uint32_t k = 0; k < m->identity.followed.n; k++)
			printf(" %u", m->identity.followed.at[k].id.b[4]);
		printf(" |");
		show_wal(&m->wal);
		printf(" | pages");
		show_wal(&m->pages);
		printf(" | unjudged %d%s%s%s%s", m->unjudged, m->file_there ? ", file" : "",
			   m->file.ends ? " with the last record" : "", m->up ? ", up" : "", m->sound ? ", sound" : "");
		printf(" | session %u\n", (unsigned) m->identity.chain.number);
	}
}

static void
step(void)
{
	int			dir = (int) below(DIRS);
	int			p = (int) below(MEMBERS);
	uint32_t	what = below(36);

	if (what < 4)
		start(dir);
	else if (what < 8)
		recovered(dir);
	else if (what < 12 && computes[dir].running && !computes[dir].in_recovery)
		append(&computes[dir].wal, computes[dir].distinct);
	else if (what == 12)
		stop(dir);
	else if (what == 13)
		copy((int) below(DIRS), dir, below(8) == 0);
	else if (what == 14)
		take_snapshot(dir);
	else if (what == 15)
		put_back();
	else if (what == 16)
	{
		spare[p] = members[p];
		spare_there[p] = true;
	}
	else if (what == 17)
		roll_back(p);
	else if (what == 18)
		promote(p);
	else if (what == 19 && below(3) == 0)
		rebuild(p);
	else if (what < 24 && computes[dir].running)
		join(p, dir, below(4) == 0);
	else if (what < 28)
		deliver(p);
	else if (what < 32)
		read_page(p, dir);
	else if (what == 32)
	{
		if (below(2) == 0)
			lose_tail(p);
		else
			start_again(p);
	}
	else if (what == 33 && below(6) == 0)
		put_foreign(p);
	else if (what == 34 && below(3) == 0 && computes[dir].removed + 1 < computes[dir].wal.n)
		computes[dir].removed++;
	else if (what == 35)
		trouble(p);
	if (trace)
		show(what, dir, p);
}

/* NULL when nothing broke. */
static const char *
run(uint64_t seed)
{
	begin(seed);
	for (int i = 0; i < STEPS && broken == NULL; i++)
		step();
	return broken;
}

/* The first seed that shows something, or -1. */
static int64_t
explore(uint64_t seeds)
{
	for (uint64_t seed = 1; seed <= seeds; seed++)
		if (run(seed) != NULL)
			return (int64_t) seed;
	return -1;
}

int
main(int argc, char **argv)
{
	uint64_t	seeds;
	int64_t		seed;

	if (argc > 1 && strcmp(argv[1], "--without") == 0)
	{
		all_hold = false;
		argv++;
		argc--;
	}
	seeds = argc > 1 ? strtoull(argv[1], NULL, 10) : 1000000;
	if (argc > 2)
	{
		trace = true;
		return run(strtoull(argv[2], NULL, 10)) != NULL ? (puts(broken), 1) : 0;
	}
	seed = explore(seeds);
	if (seed >= 0)
		printf("seed %lld: broken: %s\n", (long long) seed, broken);
	else
		printf("%llu seeds, nothing broke\n", (unsigned long long) seeds);
	return seed >= 0 ? 1 : 0;
}
