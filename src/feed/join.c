/*
 * join.c
 *	  Page servers join before they stream: identities are exchanged and judged.
 *
 * Runs in the feed, which alone writes compute_identity while it runs.  The rules
 * are those of the core (nc/identity/judge.h); here are the WAL they look at, what
 * must be durable before anybody acts on it, and what is told.  A join reads a few
 * bytes of pg_wal and writes one small file; they are rare.
 */
#include "postgres.h"

#include <stdatomic.h>
#include <unistd.h>

#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "access/xlogrecovery.h"
#include "miscadmin.h"
#include "port.h"

#include "feed_internal.h"
#include "nc/shared/identity.h"

/* A page server that keeps coming is logged so often. */
#define SAY_PERIOD_MS 60000

/* After the identity file could not be written. */
#define RETRY_PERIOD_MS 1000

#define EARLY_MAX NC_SESSIONS_MAX

static NcComputeIdentity identity;
static bool unsaved = false;	/* somebody parted and the file does not say so yet */
static TimestampTz save_failed_at = 0;

/* Who joined in recovery: judged again when it ends. */
static NcEvidence early[EARLY_MAX];
static int	nearly = 0;

/* Why the page server of each slot was refused last; "" = it was not. */
static NcVerdictKind slot_verdicts[NC_FEED_SLOTS_MAX];
static char slot_reasons[NC_FEED_SLOTS_MAX][NC_FEED_REASON_BYTES];

/* ---- the file ---- */

void
nc_feed_join_init(void)
{
	const char *why = NULL;

	if (nc_compute_identity_load(DataDir, &identity, &why) != NC_FILE_OK)
		ereport(ERROR,
				(errcode_for_file_access(),
				 why != NULL ?
				 errmsg("WAL feed could not read file \"%s\": %s", NC_COMPUTE_IDENTITY, why) :
				 errmsg("WAL feed could not read file \"%s\": %m", NC_COMPUTE_IDENTITY)));
	if (identity.lineage.n == 0 ||
		!nc_id_equal(&identity.lineage.at[identity.lineage.n - 1].id,
					 &nc_identity->reader.incarnation))
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("file \"%s\" was changed while the server runs", NC_COMPUTE_IDENTITY),
				 errhint("Restart the server.")));
}

/* True when the file says what we know. */
static bool
save_join(TimestampTz now)
{
	if (save_failed_at != 0 && !TimestampDifferenceExceeds(save_failed_at, now, RETRY_PERIOD_MS))
		return false;
	if (!nc_compute_identity_save(DataDir, &identity))
	{
		ereport(LOG,
				(errcode_for_file_access(),
				 errmsg("WAL feed could not write file \"%s\": %m", NC_COMPUTE_IDENTITY),
				 errdetail("It is tried again; page servers get no new WAL before.")));
		save_failed_at = now;
		return false;
	}
	save_failed_at = 0;
	unsaved = false;
	return true;
}

/* ---- what is judged ---- */

typedef struct WalHere
{
	const NcFeedLimit *limit;
	NcFeedSegment segment;
} WalHere;

/*
 * There is no file with this WAL, and recovery, which needs all from the last checkpoint
 * on, ends before it. Older WAL has been removed, and a file that
 * cannot be read now says nothing: who is parted is so for good.
 */
static bool
recovery_ends_before(const NcFeedLimit *limit, NcLsn at)
{
	char		path[MAXPGPATH];
	XLogSegNo	number;

	XLByteToSeg(at, number, wal_segment_size);
	XLogFilePath(path, limit->timeline, number, wal_segment_size);
	return access(path, F_OK) != 0 && errno == ENOENT && at >= limit->lsn && at >= nc_feed_wal_last_redo();
}

/* In recovery all of pg_wal counts: what will be replayed is there already. */
static NcWalRead
read_wal_here(void *arg, NcLsn at, size_t bytes, uint8_t *to)
{
	WalHere    *here = arg;
	char		why[NC_FEED_WHY_BYTES];

	if (!here->limit->in_recovery && at + bytes > here->limit->lsn)
		return NC_WAL_BEYOND;
	if (nc_feed_wal_read(&here->segment, here->limit->timeline, at, bytes, to, why))
		return NC_WAL_OK;
	return here->limit->in_recovery && recovery_ends_before(here->limit, at) ? NC_WAL_BEYOND : NC_WAL_GONE;
}

static NcComputeView
view(const NcFeedTurn *turn, WalHere *here)
{
	*here = (WalHere) {.limit = &turn->limit, .segment.fd = -1};
	return (NcComputeView) {
		.system_identifier = GetSystemIdentifier(),
		.timeline = turn->limit.timeline,
		.identity = &identity,
		.in_recovery = turn->limit.in_recovery,
		.end = turn->limit.lsn,
		.wal = {read_wal_here, here, (uint32) wal_segment_size}
	};
}

/* Durable before the member hears of it; false: it cannot be made so now. */
static bool
give_session(const NcId *member, NcChain *chain, TimestampTz now)
{
	uint64		random;

	if (!pg_strong_random(&random, sizeof(random)))
		return false;
	*chain = nc_session_give(&identity, member, random);
	unsaved = true;
	return save_join(now);
}

/* ---- what is remembered and told ---- */

const char *
nc_feed_join_reason(int slot, const char **state)
{
	*state = slot_verdicts[slot] == NC_PARTED ? "parted" : "refused";
	return slot_reasons[slot];
}

void
nc_feed_join_forget(int slot)
{
	slot_reasons[slot][0] = '\0';
}

static void
note_slot(const NcEvidence *e, const NcJoinAnswer *a)
{
	int			slot = e->name[0] == '\0' ? -1 : nc_feed_slot_find(e->name);

	if (slot < 0)
		return;
	slot_verdicts[slot] = a->kind;
	snprintf(slot_reasons[slot], sizeof(slot_reasons[slot]), "%s%s%s", a->message,
			 a->detail[0] != '\0' ? ". " : "", a->detail);
}

static void
tell(const char *address, const NcEvidence *e, const NcJoinAnswer *a, TimestampTz now)
{
	static NcId last_member;
	static char last_message[NC_JOIN_TEXT_BYTES];
	static TimestampTz said_at = 0;

	if (said_at != 0 && nc_id_equal(&last_member, &e->member) &&
		strcmp(last_message, a->message) == 0 &&
		!TimestampDifferenceExceeds(said_at, now, SAY_PERIOD_MS))
		return;
	last_member = e->member;
	strlcpy(last_message, a->message, sizeof(last_message));
	said_at = now;
	ereport(LOG,
			(errmsg("WAL feed refused %s%s%s: %s", e->name, e->name[0] != '\0' ? " at " : "", address,
					a->message),
			 errdetail_internal("%s", a->detail), errhint("%s", a->hint)));
}

/* A verdict for good is in the file before anybody hears of it; if it cannot be, it is tried again. */
static void
remember_join(const NcEvidence *e, NcVerdict verdict, const NcJoinAnswer *a, TimestampTz now)
{
	char		reason[NC_JOIN_TEXT_BYTES];

	if (verdict.kind != NC_PARTED || verdict.reason == NC_REASON_REMEMBERED)
		return;
	snprintf(reason, sizeof(reason), "%s", a->message);
	unsaved |= nc_parted_add(&identity.parted, &e->member, reason);
	(void) save_join(now);
}

static void
remember_early(const NcEvidence *e)
{
	for (int i = 0; i < nearly; i++)
	{
		if (nc_id_equal(&early[i].member, &e->member))
			return;
	}
	if (nearly < EARLY_MAX)
		early[nearly++] = *e;
}

/* It has promised itself to a newer compute, or follows one already. */
static bool
belongs_to_newer(const NcEvidence *e, NcVerdict verdict)
{
	return verdict.reason == NC_REASON_PROMISED ||
		(verdict.reason == NC_REASON_OTHER_LIFE && nc_id_newer(&e->incarnation, &nc_identity->reader.incarnation));
}

void
nc_feed_join(NcFeedConn *conn, const NcFeedTurn *turn, const char *text)
{
	static NcJoinAnswer answer;
	static char row[NC_JOIN_ANSWER_BYTES_MAX];
	NcEvidence	e;
	WalHere		here;
	NcComputeView me;
	NcVerdict	verdict;
	NcChain		chain = {0, 0};
	size_t		bytes;

	if (!nc_join_parse(text, &e))
	{
		nc_feed_conn_error(conn, "42601", NC_JOIN_MALFORMED, NULL,
						   "Page server and compute need the same version of neon_comm.");
		return;
	}
	me = view(turn, &here);
	verdict = nc_judge_member(&me, &e);
	nc_feed_wal_close(&here.segment);
	if (verdict.kind == NC_JOINED && !give_session(&e.member, &chain, turn->now))
	{
		nc_feed_conn_error(conn, "58030", "this compute cannot write down who joins", NULL,
						   "The compute's log says more.");
		return;
	}
	conn->joined = verdict.kind == NC_JOINED;
	conn->member = e.member;
	conn->joined_early = turn->limit.in_recovery;
	if (conn->joined && !turn->limit.in_recovery)
		nc_feed_quorum_joined(&e);
	nc_join_answer_fill(&answer, &me, &e, verdict, chain);
	conn->told = nc_feed_quorum_tell(&answer);
	if (conn->joined)
	{
		if (turn->limit.in_recovery)
			remember_early(&e);
	}
	else
	{
		remember_join(&e, verdict, &answer, turn->now);
		note_slot(&e, &answer);
		tell(conn->v.address, &e, &answer, turn->now);
	}
	bytes = nc_join_answer_write(&answer, row, sizeof(row));
	nc_feed_answer_text(conn, "answer", row, (int) bytes, NC_JOIN_COMMAND);
	if (belongs_to_newer(&e, verdict))
		nc_feed_quorum_overtaken(&e);
}

bool
nc_feed_join_may_stream(NcFeedConn *conn, int slot)
{
	if (!conn->joined && !nc_feed_allow_unjoined)
	{
		nc_feed_conn_error(conn, "55000", "this page server has not joined",
						   "Nobody knows whether its WAL is that of this compute.",
						   "Page servers need neon_page_service of this version in shared_preload_libraries; for a standby or an archive that serves no pages see neon_comm.wal_feed_allow_unjoined.");
		return false;
	}
	if (!conn->told && nc_feed_write_quorum > 0 && conn->joined && nc_feed_quorum_known())
	{
		nc_feed_conn_error(conn, "57P01", "members are known from now on: join again", NULL, NULL);
		return false;
	}
	slot_reasons[slot][0] = '\0';
	return true;
}

/* ---- the end of recovery ---- */

/* One who joined in recovery has more than recovery found: his connection ends. */
static void
part_early(const NcEvidence *e, NcVerdict verdict, const NcComputeView *me, const NcFeedTurn *turn)
{
	static NcJoinAnswer answer;

	nc_join_answer_fill(&answer, me, e, verdict, (NcChain) {0, 0});
	remember_join(e, verdict, &answer, turn->now);
	note_slot(e, &answer);
	tell("the end of recovery", e, &answer, turn->now);
	nc_feed_end_member(&e->member, &answer);
}

static void
judge_early(const NcFeedTurn *turn)
{
	for (int i = 0; i < nearly; i++)
	{
		WalHere		here;
		NcComputeView me = view(turn, &here);
		NcVerdict	verdict = nc_judge_member_again(&me, &early[i]);

		if (verdict.kind != NC_JOINED)
			part_early(&early[i], verdict, &me, turn);
	}
	nearly = 0;
}

XLogRecPtr
nc_feed_join_laid_at(void)
{
	int			before = nc_id_is_none(&identity.booted) ? -1 : nc_lineage_find(&identity.lineage, &identity.booted);

	return before < 0 ? InvalidXLogRecPtr : nc_lineage_next_began(&identity.lineage, before);
}

static XLogRecPtr
where_we_began(const NcFeedLimit *limit)
{
	XLogRecPtr	replayed = GetXLogReplayRecPtr(NULL);

	if (replayed != InvalidXLogRecPtr)
		return replayed;
	return nc_identity->shutdown_end != InvalidXLogRecPtr ? nc_identity->shutdown_end : limit->lsn;
}

/*
 * Writes where this incarnation began as soon as that is known. While it is not
 * durable, no more may be sent than what earlier ones have written.
 */
static void
begin_join(NcFeedTurn *turn)
{
	XLogRecPtr	began = where_we_began(&turn->limit);

	identity.lineage.at[identity.lineage.n - 1].began = began;
	if (!save_join(turn->now))
	{
		identity.lineage.at[identity.lineage.n - 1].began = 0;
		turn->limit.in_recovery = true;
		turn->limit.lsn = Min(turn->limit.lsn, began);
		return;
	}
	atomic_store(&nc_identity->began, began);
	judge_early(turn);
}

void
nc_feed_join_tick(NcFeedTurn *turn)
{
	if (!turn->limit.in_recovery && atomic_load(&nc_identity->began) == 0)
		begin_join(turn);
	if (unsaved)
		(void) save_join(turn->now);
}
