/*
 * nc/identity/judge.h
 *	  Are a compute and a page server of one history?  The rules of docs/identity.md.
 *
 * Both judges are pure: what they know is in their arguments, WAL comes by a
 * callback.  Remembering a verdict is the caller's, before anybody hears of it.
 */
#ifndef NC_IDENTITY_JUDGE_H
#define NC_IDENTITY_JUDGE_H

#include "nc/identity/files.h"

typedef enum NcReason
{
	NC_REASON_NONE,
	NC_REASON_STRANGER,			/* another birth or system identifier */
	NC_REASON_REMEMBERED,		/* was parted before */
	NC_REASON_OTHER_LIFE,		/* followed an incarnation that is not in the lineage */
	NC_REASON_FORGOTTEN,		/* the same, but the lineage has been shortened */
	NC_REASON_BEYOND_LIFE,		/* its end is behind the end of the incarnation that it followed */
	NC_REASON_BEYOND,			/* it has WAL that the compute does not have */
	NC_REASON_OTHER_RECORD,		/* another record at the same place */
	NC_REASON_WAL_GONE,			/* cannot be compared */
	NC_REASON_OTHER_SESSION,	/* had a session that the compute has not given */
	NC_REASON_RESUMED,			/* the compute came back from a snapshot of its memory */
	NC_REASON_PROMOTED,			/* the page server has another timeline */
	NC_REASON_NOT_MINE,			/* the lineage lacks the page server's incarnation, or holds a refused one */
	NC_REASON_OVERTAKEN,		/* a newer incarnation has been followed */
	NC_REASON_PROMISED,			/* the page server has promised itself to a newer incarnation */
	NC_REASON_UNJUDGED			/* pages beyond the last record came from WAL that nobody judged */
} NcReason;

typedef struct NcVerdict
{
	NcVerdictKind kind;
	NcReason	reason;
	NcLsn		lsn;			/* the LSN that the reason is about, or 0 */
} NcVerdict;

/* ---- on the compute: rules 1 to 6 ---- */

/* What the compute knows when it judges. */
typedef struct NcComputeView
{
	uint64_t	system_identifier;
	uint32_t	timeline;
	const NcComputeIdentity *identity;
	bool		in_recovery;
	NcLsn		end;			/* flush position; in recovery: replayed so far */
	NcWalSource wal;
} NcComputeView;

extern NcVerdict nc_judge_member(const NcComputeView *me, const NcEvidence *evidence);

/*
 * Recovery has ended: once more about evidence that was judged while it ran. WAL was compared then
 * and may have gone since.
 */
extern NcVerdict nc_judge_member_again(const NcComputeView *me, const NcEvidence *evidence);

/* Fills the answer for a verdict: joined with lineage and chain, else with texts. */
extern void nc_join_answer_fill(NcJoinAnswer *answer, const NcComputeView *me,
								const NcEvidence *evidence, NcVerdict verdict, NcChain chain);

/* ---- on the page server: rules 7 to 10 ---- */

/*
 * About an answer to JOIN.  NC_JOINED: take it over with nc_member_adopt() and make that durable
 * before WAL is asked for.  NC_PARTED: remember answer->present.id with nc_member_refuse(), durably.  NC_REFUSED: serve
 * nobody until a later join succeeds.
 *
 * unjudged: pages are newer than the last record that is left, and it does not answer for them
 * (nc_unjudged_answered()).
 */
extern NcVerdict nc_judge_compute(const NcMemberIdentity *me, uint32_t timeline, bool unjudged,
								  const NcJoinAnswer *answer);

/* WAL that was replayed since the last agreement, beyond what was judged then. */
typedef enum NcUnjudged
{
	NC_UNJUDGED_NONE,			/* none since the start, or the agreement */
	NC_UNJUDGED_AHEAD,			/* some before the start, up to a record that replay has not come to yet */
	NC_UNJUDGED_REPLAYED,		/* all of it has been replayed since the start */
	NC_UNJUDGED_OTHER			/* some before the start, and it may have been other WAL */
} NcUnjudged;

/*
 * The first of it since the start, or the agreement, is to be replayed; `file` is what page_service_unjudged
 * holds, NULL = it is not there.  The file must be empty, durably, before that.
 */
extern NcUnjudged nc_unjudged_begin(const NcUnjudgedWal *file);

/* NC_UNJUDGED_AHEAD: a record has been replayed. */
extern NcUnjudged nc_unjudged_met(const NcUnjudgedWal *file, const NcWalRecord *record);

/* Is this the compute of the promise, or a later one? False: it is an older one, or another. */
NC_MUST_USE extern bool nc_promise_allows(const NcMemberIdentity *me, const NcId *promised,
										  const NcJoinAnswer *answer);

/* May a takeover have the promise: is it newer than all that I followed and promised, or the same one again? */
NC_MUST_USE extern bool nc_promise_may_give(const NcMemberIdentity *me, const NcId *promised,
											const NcId *to);

/*
 * Does the last record answer for all that was replayed, although the end of WAL behind it was lost?
 * `file` is used while nothing was replayed since the start.
 */
extern bool nc_unjudged_answered(NcUnjudged state, const NcUnjudgedWal *file, const NcWalRecord *last);

/* Puts texts for our own verdict into the answer; false when those of the compute stand. */
extern bool nc_member_verdict_fill(NcJoinAnswer *answer, NcVerdict verdict);

/* A lineage that was joined becomes what this page server has followed; its session, the last. */
extern void nc_member_adopt(NcMemberIdentity *me, const NcJoinAnswer *answer);

/*
 * Remembers a compute as one of another history; never one that was followed, whose name two computes may then
 * share. True when there is something new to be written.
 */
extern bool nc_member_refuse(NcMemberIdentity *me, const NcJoinAnswer *answer);

/* ---- on the page server: a reader, by what its connection says ---- */

typedef enum NcAccess
{
	NC_ACCESS_SERVE,
	NC_ACCESS_WAIT,				/* unknown so far: until the walreceiver has joined it, or it is refused */
	NC_ACCESS_END				/* never again: end the connection with the reason */
} NcAccess;

/* reason (NC_REASON_BYTES): why not, one sentence without an end. */
extern NcAccess nc_judge_reader(const NcMemberIdentity *me, const NcReaderIdentity *reader,
								char *reason);

#endif							/* NC_IDENTITY_JUDGE_H */
