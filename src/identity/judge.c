/*
 * judge.c
 *	  The rules of docs/identity.md, by number.
 *
 * What is said about a verdict is in texts.c.
 */
#include "nc/identity/judge.h"

#include <stdio.h>
#include <string.h>

static NcVerdict
verdict(NcVerdictKind kind, NcReason reason, NcLsn lsn)
{
	return (NcVerdict) {kind, reason, lsn};
}

static const NcVerdict joined = {NC_JOINED, NC_REASON_NONE, 0};

/* ---- on the compute ---- */

/* Rules 1 and 2, and a timeline that I never gave. */
static NcVerdict
judge_names(const NcComputeView *me, const NcEvidence *e)
{
	bool		fresh = nc_id_is_none(&e->birth);

	if (e->system_identifier != me->system_identifier ||
		(!fresh && !nc_id_equal(&e->birth, &me->identity->birth)))
		return verdict(NC_REFUSED, NC_REASON_STRANGER, 0);
	if (nc_parted_find(&me->identity->parted, &e->member) != NULL)
		return verdict(NC_PARTED, NC_REASON_REMEMBERED, 0);
	if (e->timeline != me->timeline)
		return verdict(NC_PARTED, NC_REASON_PROMOTED, 0);
	return joined;
}

static bool
followed_present(const NcComputeView *me, const NcEvidence *e)
{
	const NcLineage *lineage = &me->identity->lineage;

	return nc_id_equal(&lineage->at[lineage->n - 1].id, &e->incarnation);
}

/* What of my WAL its end needs: a switch of segments ends at the start of the next one. */
static NcLsn
needed(const NcComputeView *me, const NcEvidence *e)
{
	uint32_t	segment = me->wal.segment_bytes;

	if (e->end != nc_wal_record_end(e->start, e->header, segment))
		return e->end;
	return nc_wal_record_needs(e->start, e->header, segment);
}

/* Rules 3 and 4. */
static NcVerdict
judge_life(const NcComputeView *me, const NcEvidence *e)
{
	const NcLineage *lineage = &me->identity->lineage;
	int			index;
	NcLsn		bound;

	if (!nc_id_is_none(&e->incarnation))
	{
		index = nc_lineage_find(lineage, &e->incarnation);
		if (index < 0 && lineage->forgotten && e->end <= lineage->at[0].began)
			return verdict(NC_REFUSED, NC_REASON_FORGOTTEN, 0);
		if (index < 0)
			return verdict(NC_PARTED, NC_REASON_OTHER_LIFE, 0);
		bound = nc_lineage_next_began(lineage, index);
		if (bound != 0 && e->end > bound)
			return verdict(NC_PARTED, NC_REASON_BEYOND_LIFE, bound);
	}
	/* In recovery replay may be far behind what is on disk, where rule 5 looks. */
	if (!me->in_recovery && needed(me, e) > me->end)
		return verdict(NC_PARTED, NC_REASON_BEYOND, me->end);
	return joined;
}

/* Rule 5. */
static NcVerdict
judge_content(const NcComputeView *me, const NcEvidence *e)
{
	uint8_t		mine[NC_WAL_HEADER_BYTES];

	switch (nc_wal_read_header(&me->wal, e->start, mine))
	{
		case NC_WAL_GONE:
			return verdict(NC_REFUSED, NC_REASON_WAL_GONE, e->start);
		case NC_WAL_BEYOND:
			return verdict(NC_PARTED, NC_REASON_BEYOND, me->end);
		case NC_WAL_OK:
			break;
	}
	/* its end may be a later one: pages that are newer than the WAL that was left to it */
	if (memcmp(mine, e->header, NC_WAL_HEADER_BYTES) != 0 ||
		nc_wal_record_end(e->start, mine, me->wal.segment_bytes) > e->end)
		return verdict(NC_PARTED, NC_REASON_OTHER_RECORD, e->start);
	return joined;
}

/* Was it given by a directory that is lost, from whose page server this one was laid? */
static bool
given_before_boot(const NcComputeIdentity *identity, int their_life)
{
	return !nc_id_is_none(&identity->booted) &&
		their_life <= nc_lineage_find(&identity->lineage, &identity->booted);
}

/* Was this session given to the member, or a later one? */
static bool
session_given(const NcComputeView *me, const NcEvidence *e)
{
	const NcComputeIdentity *identity = me->identity;
	const NcSession *mine = nc_session_find(identity, &e->member);
	int			their_life = nc_lineage_find(&identity->lineage, &e->incarnation);
	int			my_life;

	if (mine == NULL)
		return identity->nsessions == NC_SESSIONS_MAX || given_before_boot(identity, their_life);
	my_life = nc_lineage_find(&identity->lineage, &mine->incarnation);
	if (my_life != their_life)
		return my_life > their_life;
	return e->chain.number < mine->chain.number ||
		(e->chain.number == mine->chain.number && e->chain.random == mine->chain.random);
}

/* Rule 6. An earlier session is a page server that was rolled back. */
static NcVerdict
judge_chain(const NcComputeView *me, const NcEvidence *e)
{
	if (e->chain.number == 0 || session_given(me, e) ||
		nc_lineage_find(&me->identity->lineage, &e->incarnation) < 0)
		return joined;
	return verdict(NC_PARTED, NC_REASON_OTHER_SESSION, 0);
}

/*
 * Nobody is parted from an incarnation that he followed: its name is in both
 * histories, and who remembered it as refused would refuse the right one too.
 */
static NcVerdict
spare_the_name(const NcComputeView *me, const NcEvidence *e, NcVerdict v)
{
	if (v.kind == NC_PARTED && followed_present(me, e) && v.reason != NC_REASON_REMEMBERED &&
		v.reason != NC_REASON_PROMOTED)
		return verdict(NC_REFUSED, NC_REASON_RESUMED, v.lsn);
	return v;
}

/* A takeover got its promise, and I am not what came of it. */
static NcVerdict
judge_promise(const NcComputeView *me, const NcEvidence *e)
{
	if (nc_id_is_none(&e->promised) || nc_lineage_find(&me->identity->lineage, &e->promised) >= 0)
		return joined;
	return verdict(NC_REFUSED, NC_REASON_PROMISED, 0);
}

NcVerdict
nc_judge_member(const NcComputeView *me, const NcEvidence *e)
{
	NcVerdict	v = judge_names(me, e);

	if (v.kind == NC_JOINED)
		v = judge_promise(me, e);
	if (v.kind == NC_JOINED)
		v = judge_chain(me, e);
	if (v.kind == NC_JOINED)
		v = judge_life(me, e);
	if (v.kind == NC_JOINED)
		v = judge_content(me, e);
	return spare_the_name(me, e, v);
}

NcVerdict
nc_judge_member_again(const NcComputeView *me, const NcEvidence *e)
{
	/* what it had then is of earlier lives, also where it names the present one */
	return judge_life(me, e);
}

/* ---- on the page server ---- */

static bool
holds_refused(const NcMemberIdentity *me, const NcJoinAnswer *a)
{
	for (uint32_t i = 0; i < a->lineage.n; i++)
	{
		if (nc_parted_find(&me->refused, &a->lineage.at[i].id) != NULL)
			return true;
	}
	return nc_parted_find(&me->refused, &a->present.id) != NULL;
}

bool
nc_promise_allows(const NcMemberIdentity *me, const NcId *promised, const NcJoinAnswer *a)
{
	return nc_id_is_none(promised) || nc_lineage_find(&me->followed, promised) >= 0 ||
		nc_lineage_find(&a->lineage, promised) >= 0;
}

bool
nc_promise_may_give(const NcMemberIdentity *me, const NcId *promised, const NcId *to)
{
	const NcLineage *followed = &me->followed;

	if (nc_id_equal(promised, to))
		return true;
	return (nc_id_is_none(promised) || nc_id_newer(to, promised)) && followed->n > 0 &&
		nc_id_newer(to, &followed->at[followed->n - 1].id);
}

/* Is the newest one that I followed in it? An answer that is full may begin later. */
static bool
continues_mine(const NcMemberIdentity *me, const NcJoinAnswer *a)
{
	return me->followed.n == 0 || a->lineage.n == NC_JOIN_LINEAGE_MAX ||
		nc_lineage_find(&a->lineage, &me->followed.at[me->followed.n - 1].id) >= 0;
}

NcVerdict
nc_judge_compute(const NcMemberIdentity *me, uint32_t timeline, bool unjudged,
				 const NcJoinAnswer *a)
{
	if (me->promoted || (me->timeline != 0 && timeline != me->timeline))
		return verdict(NC_PARTED, NC_REASON_PROMOTED, 0);
	if (!nc_id_is_none(&me->birth) && !nc_id_equal(&me->birth, &a->birth))
		return verdict(NC_REFUSED, NC_REASON_STRANGER, 0);
	if (holds_refused(me, a))
		return verdict(NC_PARTED, NC_REASON_REMEMBERED, 0);
	if (a->kind != NC_JOINED)
		return verdict(a->kind, NC_REASON_NONE, 0);
	if (!continues_mine(me, a))
		return verdict(NC_PARTED, NC_REASON_NOT_MINE, 0);
	if (unjudged)
		return verdict(NC_REFUSED, NC_REASON_UNJUDGED, 0);
	return joined;
}

/* ---- WAL that nobody has judged ---- */

static bool
same_record(const NcWalRecord *a, const NcWalRecord *b)
{
	return a->start == b->start && memcmp(a->header, b->header, NC_WAL_HEADER_BYTES) == 0;
}

NcUnjudged
nc_unjudged_begin(const NcUnjudgedWal *file)
{
	if (file == NULL)
		return NC_UNJUDGED_REPLAYED;
	return file->ends ? NC_UNJUDGED_AHEAD : NC_UNJUDGED_OTHER;
}

NcUnjudged
nc_unjudged_met(const NcUnjudgedWal *file, const NcWalRecord *record)
{
	if (record->start < file->last.start)
		return NC_UNJUDGED_AHEAD;
	return same_record(record, &file->last) ? NC_UNJUDGED_REPLAYED : NC_UNJUDGED_OTHER;
}

bool
nc_unjudged_answered(NcUnjudged state, const NcUnjudgedWal *file, const NcWalRecord *last)
{
	if (state == NC_UNJUDGED_NONE)
		return file == NULL || (file->ends && same_record(last, &file->last));
	return state == NC_UNJUDGED_REPLAYED;
}

/* ---- what was followed, and what is refused ---- */

/* What is known of one that stands in both lists: where it began, if that was not known. */
void
nc_member_adopt(NcMemberIdentity *me, const NcJoinAnswer *a)
{
	me->birth = a->birth;
	me->chain = a->chain;
	for (uint32_t i = 0; i < a->lineage.n; i++)
	{
		int			known = nc_lineage_find(&me->followed, &a->lineage.at[i].id);

		if (known < 0)
			nc_lineage_append(&me->followed, &a->lineage.at[i].id, a->lineage.at[i].began);
		else if (a->lineage.at[i].began != 0)
			me->followed.at[known].began = a->lineage.at[i].began;
	}
}

bool
nc_member_refuse(NcMemberIdentity *me, const NcJoinAnswer *a)
{
	if (nc_lineage_find(&me->followed, &a->present.id) >= 0)
		return false;
	return nc_parted_add(&me->refused, &a->present.id,
						 a->message[0] != '\0' ? a->message : "the compute is of another history");
}

/* ---- readers ---- */

NcAccess
nc_judge_reader(const NcMemberIdentity *me, const NcReaderIdentity *reader, char *reason)
{
	const NcParted *parted = nc_parted_find(&me->refused, &reader->incarnation);
	int			index = nc_lineage_find(&me->followed, &reader->incarnation);

	reason[0] = '\0';
	if (me->promoted)
	{
		snprintf(reason, NC_REASON_BYTES, "this page server has been promoted");
		return NC_ACCESS_END;
	}
	if (!nc_id_is_none(&me->birth) && !nc_id_equal(&me->birth, &reader->birth))
	{
		snprintf(reason, NC_REASON_BYTES, "this page server belongs to another compute");
		return NC_ACCESS_END;
	}
	if (parted != NULL)
	{
		snprintf(reason, NC_REASON_BYTES, "%s", parted->reason);
		return NC_ACCESS_END;
	}
	if (index < 0 && me->followed.n > 0 &&
		nc_id_newer(&me->followed.at[me->followed.n - 1].id, &reader->incarnation))
	{
		snprintf(reason, NC_REASON_BYTES, "this compute was overtaken: the page server follows a newer one");
		return NC_ACCESS_END;
	}
	if (index >= 0 && index + 1 < (int) me->followed.n)
	{
		snprintf(reason, NC_REASON_BYTES,
				 "this page server follows a later start of this compute, or a copy of it that was started since");
		return NC_ACCESS_END;
	}
	return index >= 0 ? NC_ACCESS_SERVE : NC_ACCESS_WAIT;
}
