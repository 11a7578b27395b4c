/*
 * join.c
 *	  The walreceiver of a page server, wrapped: it joins before it asks for WAL.
 *
 * A stock walreceiver asks from the start of a segment and overwrites what could
 * show that two histories have parted.  So page server and compute exchange who
 * they are on the walreceiver's own connection, each time before START_REPLICATION
 * (NEON_COMM_JOIN, docs/identity.md), and the walreceiver ends when they do not
 * agree.  Against anything that is no WAL feed the command is a syntax error.
 *
 * The place to stand is WalReceiverFunctions, the table that libpqwalreceiver fills
 * when it is loaded: it is loaded early here, by the postmaster, and its table
 * replaced by a copy with three functions of ours.  The walreceiver's load_file finds
 * the library loaded and does not run its _PG_init again.
 *
 * Everything here but the installation runs in the walreceiver; an ERROR ends it, and
 * the startup process starts another one after wal_retrieve_retry_interval.
 */
#include "page_service.h"

#include "access/xlog.h"
#include "access/xlogrecovery.h"
#include "fmgr.h"
#include "libpq-fe.h"
#include "miscadmin.h"
#include "replication/walreceiver.h"
#include "storage/spin.h"
#include "utils/memutils.h"
#include "utils/wait_event.h"

#include "compat.h"
#include "nc/net/handshake.h"

/* Before the WAL in a message: 'w', start, end and clock of the server. */
#define WAL_MESSAGE_HEADER 25

/* Used where wal_receiver_timeout is 0. */
#define ANSWER_TIMEOUT_MS (60 * 1000)

/* What may be said to a question; an answer has some kilobytes, incarnations included. */
#define ANSWER_BYTES_MAX (256 * 1024)

/* A page server that is refused for good need not be told so twice a second. */
#define REFUSED_PAUSE_MS 5000

/* Calls through it are in parentheses: the names are macros, too. */
static WalReceiverFunctionsType *stock;
static WalReceiverFunctionsType wrapped;
static bool joined;				/* of this walreceiver's connection */
static uint64 heard_before;		/* bytes of the connection when the question was asked */

static NcJoinAnswer answer;

/* ---- question and answer ---- */

/* Waits for bytes or the latch; false when the time is up. */
static bool
wait_for_bytes(PGconn *conn, TimestampTz until)
{
	long		left = TimestampDifferenceMilliseconds(nc_svc_clock(), until);
	int			rc;

	if (left <= 0)
		return false;
	rc = WaitLatchOrSocket(MyLatch, WL_EXIT_ON_PM_DEATH | WL_LATCH_SET | WL_TIMEOUT |
						   WL_SOCKET_READABLE, PQsocket(conn), left,
						   WAIT_EVENT_LIBPQWALRECEIVER_RECEIVE);
	if (rc & WL_LATCH_SET)
	{
		ResetLatch(MyLatch);
		nc_svc_walreceiver_interrupts();
	}
	return true;
}

/*
 * libpq keeps what is said besides an answer, or behind it: notifications, parameters,
 * messages as long as they claim to be.  A walreceiver that streamed before has heard much.
 */
static bool
says_too_much(PGconn *conn)
{
	return nc_handshake_heard(PQsocket(conn)) > heard_before + ANSWER_BYTES_MAX;
}

static void
no_answer(const char *why)
{
	ereport(ERROR,
			(errcode(ERRCODE_CONNECTION_FAILURE),
			 errmsg("page service: could not join the compute: %s", why)));
}

static PGresult *
next_result(PGconn *conn, TimestampTz until)
{
	while (PQisBusy(conn))
	{
		if (!wait_for_bytes(conn, until))
			no_answer("no answer in time");
		if (says_too_much(conn))
			no_answer("it said more than 256 kB instead of an answer");
		if (PQconsumeInput(conn) == 0)
			no_answer(pchomp(PQerrorMessage(conn)));
	}
	return PQgetResult(conn);
}

/* The only result of a command. */
static PGresult *
ask_compute(PGconn *conn, const char *command)
{
	int			limit = wal_receiver_timeout > 0 ? wal_receiver_timeout : ANSWER_TIMEOUT_MS;
	TimestampTz until = TimestampTzPlusMilliseconds(nc_svc_clock(), limit);
	PGresult   *result;
	PGresult   *next;

	heard_before = nc_handshake_heard(PQsocket(conn));
	if (PQsendQuery(conn, command) == 0)
		no_answer(pchomp(PQerrorMessage(conn)));
	result = next_result(conn, until);
	while ((next = next_result(conn, until)) != NULL)
		PQclear(next);
	return result;
}

/* Nobody is answered as long as nothing else is known; `who` is, whatever was known before. */
static void
remember_refusal(const NcMemberIdentity *me, const NcId *who, const char *reason)
{
	NcSvcJoins	joins;

	nc_svc_joins_get(&joins);
	if (me->followed.n > 0 && nc_id_equal(&me->followed.at[me->followed.n - 1].id, who))
		joins.standing = NC_SVC_STANDING_NEW;
	joins.refused = *who;
	strlcpy(joins.reason, reason, sizeof(joins.reason));
	nc_svc_joins_set(&joins);
}

/* Until the time is up, or the other side has gone (another compute may be there then) or talks. */
static void
pause_refused(PGconn *conn)
{
	TimestampTz until = TimestampTzPlusMilliseconds(nc_svc_clock(), REFUSED_PAUSE_MS);

	while (wait_for_bytes(conn, until) && !says_too_much(conn) && PQconsumeInput(conn) != 0)
		;
}

/* Says what the answer says; the walreceiver ends. */
static void
leave_compute(PGconn *conn)
{
	ereport(LOG,
			(errmsg("page service: %s", answer.message),
			 answer.detail[0] != '\0' ? errdetail_internal("%s", answer.detail) : 0,
			 answer.hint[0] != '\0' ? errhint("%s", answer.hint) : 0));
	pause_refused(conn);
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("WAL receiver ends: %s", answer.message)));
}

/* A feed that does not understand us, or that we do not understand. */
static bool
is_other_version(const PGresult *result, const char *said)
{
	return PQresultStatus(result) == PGRES_TUPLES_OK ||
		(said != NULL && strncmp(said, NC_JOIN_MALFORMED, strlen(NC_JOIN_MALFORMED)) == 0);
}

/* What answers knows nothing of joining: a server's own port, not a compute at all, or another version. */
static void
refuse_no_feed(const NcMemberIdentity *me, PGconn *conn, const PGresult *result)
{
	const char *said = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
	bool		other = is_other_version(result, said);
	static const NcId none;

	strlcpy(answer.message, other ? "this page server and its compute are of different versions of neon_comm" :
			"primary_conninfo of this page server does not lead to the WAL feed of a compute",
			sizeof(answer.message));
	snprintf(answer.detail, sizeof(answer.detail), "It was asked whether its history is the same, and answered: %s",
			 said != NULL ? said : "nothing that could be understood");
	strlcpy(answer.hint, other ? "Install the same version on both sides." :
			"Set the port in primary_conninfo to neon_comm.wal_feed_port of the compute. A page server "
			"of an ordinary primary needs neon_page_service.allow_any_primary.", sizeof(answer.hint));
	remember_refusal(me, &none, answer.message);
	leave_compute(conn);
}

/* Syntax error, unknown command: it will not answer later either. Anything else may pass. */
static bool
is_no_feed(const PGresult *result)
{
	const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);

	return PQresultStatus(result) != PGRES_FATAL_ERROR ||
		(state != NULL && (strcmp(state, "42601") == 0 || strcmp(state, "0A000") == 0));
}

static void
get_join_answer(const NcMemberIdentity *me, PGconn *conn, const char *command)
{
	PGresult   *result = ask_compute(conn, command);

	if (PQresultStatus(result) != PGRES_TUPLES_OK || PQntuples(result) != 1 ||
		PQnfields(result) != 1 || PQgetisnull(result, 0, 0) ||
		!nc_join_answer_parse(PQgetvalue(result, 0, 0), PQgetlength(result, 0, 0), &answer))
	{
		if (PQstatus(conn) != CONNECTION_OK || !is_no_feed(result))
			no_answer(pchomp(PQresultErrorMessage(result)));
		refuse_no_feed(me, conn, result);
	}
	PQclear(result);
}

/* ---- the verdict ---- */

/* True: its pages are of WAL that nobody can judge any more. */
static bool
collect_evidence(const NcMemberIdentity *me, NcEvidence *evidence)
{
	NcSvcReplayed last;

	nc_svc_evidence_get(&last);
	if (last.tail_lost)
		ereport(LOG,
				(errmsg("page service: the end of WAL was lost here: pages may be as new as " NC_LSN_FMT
						", the last record in pg_wal starts at " NC_LSN_FMT,
						NC_LSN_ARGS(last.end), NC_LSN_ARGS(last.start)),
				 errdetail("If the compute still has that record and what follows, it is received again; nothing "
						   "is served before.")));
	memset(evidence, 0, sizeof(*evidence));
	evidence->system_identifier = GetSystemIdentifier();
	evidence->timeline = last.timeline;
	evidence->birth = me->birth;
	evidence->member = me->member;
	if (me->followed.n > 0)
		evidence->incarnation = me->followed.at[me->followed.n - 1].id;
	evidence->start = last.start;
	evidence->end = last.end;
	memcpy(evidence->header, last.header, sizeof(evidence->header));
	evidence->chain = me->chain;
	strlcpy(evidence->name, PrimarySlotName, sizeof(evidence->name));
	evidence->promised = nc_svc_promised();
	if (nc_lineage_find(&me->followed, &evidence->promised) >= 0)
		memset(&evidence->promised, 0, sizeof(evidence->promised));
	return last.unjudged;
}

/* What this side found wrong with a compute that would take it. */
static void
explain(const NcMemberIdentity *me, NcVerdict verdict)
{
	char		id[NC_ID_TEXT];

	switch (verdict.reason)
	{
		case NC_REASON_STRANGER:
			snprintf(answer.message, sizeof(answer.message),
					 "this page server belongs to another compute");
			snprintf(answer.detail, sizeof(answer.detail), "It has followed the compute of birth %s.",
					 nc_id_text(&me->birth, id));
			break;
		case NC_REASON_PROMOTED:
			snprintf(answer.message, sizeof(answer.message),
					 "this page server has a timeline that its compute did not give it");
			break;
		case NC_REASON_UNJUDGED:
		case NC_REASON_PROMISED:
			(void) nc_member_verdict_fill(&answer, verdict);
			return;
		default:
			snprintf(answer.message, sizeof(answer.message),
					 "the compute is older than this page server, or of another history");
			snprintf(answer.detail, sizeof(answer.detail),
					 "Incarnation %s of the compute does not go on where this page server is, or was refused before.",
					 nc_id_text(&answer.present.id, id));
			break;
	}
	snprintf(answer.hint, sizeof(answer.hint),
			 "Look for the compute that this page server has followed: it may have transactions "
			 "that this one lacks.");
}

static void
refuse_compute(NcMemberIdentity *me, PGconn *conn, NcVerdict verdict)
{
	if (answer.kind == NC_JOINED || verdict.reason == NC_REASON_PROMISED)
		explain(me, verdict);
	/* readers are judged by the promise, and it goes on giving images */
	if (verdict.reason == NC_REASON_PROMISED)
		leave_compute(conn);
	if (verdict.kind == NC_PARTED && nc_member_refuse(me, &answer))
		nc_svc_identity_save(me);
	remember_refusal(me, &answer.present.id, answer.message);
	leave_compute(conn);
}

/*
 * The WAL of a compute that was laid from a boot image is another one from its cut on than that
 * of the compute before, of which a part of a record may have been received.  The server remembers
 * how far it has received for as long as it runs, and would take what the files hold there for
 * WAL of this compute.
 */
static void
forget_received(const NcEvidence *evidence)
{
	int			own = nc_lineage_find(&answer.lineage, &evidence->incarnation);
	XLogRecPtr	other_from = own < 0 ? InvalidXLogRecPtr : nc_lineage_next_began(&answer.lineage, own);

	if (other_from == InvalidXLogRecPtr)
		return;
	SpinLockAcquire(&WalRcv->mutex);
	WalRcv->flushedUpto = Min(WalRcv->flushedUpto, other_from);
	WalRcv->latestChunkStart = Min(WalRcv->latestChunkStart, other_from);
	SpinLockRelease(&WalRcv->mutex);
}

/*
 * Judges once more under the lock, since a promise may have come meanwhile, and adopts the compute: what it is
 * about to send is taken under the promises that there are now.
 */
static NcVerdict
agree(NcMemberIdentity *me, const NcEvidence *evidence, bool unjudged)
{
	NcVerdict	verdict;
	NcId		promised;

	LWLockAcquire(nc_svc_promise_lock(), LW_EXCLUSIVE);
	promised = nc_svc_promised();
	verdict = nc_judge_compute(me, evidence->timeline, unjudged, &answer);
	if (!nc_promise_allows(me, &promised, &answer))
		verdict = (NcVerdict) {.kind = NC_REFUSED,.reason = NC_REASON_PROMISED};
	if (verdict.kind == NC_JOINED)
	{
		nc_member_adopt(me, &answer);
		nc_svc_identity_save(me);
		nc_svc_promise_joined(&answer.members);
	}
	LWLockRelease(nc_svc_promise_lock());
	return verdict;
}

static void
join_compute(WalReceiverConn *wrconn)
{
	NcMemberIdentity *me = nc_svc_identity_load();
	PGconn	   *conn = nc_svc_walreceiver_conn(wrconn);
	char		command[NC_JOIN_BYTES_MAX];
	NcEvidence	evidence;
	NcVerdict	verdict;
	bool		unjudged;

	joined = false;
	unjudged = collect_evidence(me, &evidence);
	(void) nc_join_write(&evidence, command);
	get_join_answer(me, conn, command);
	verdict = agree(me, &evidence, unjudged);
	if (verdict.kind != NC_JOINED)
		refuse_compute(me, conn, verdict);
	forget_received(&evidence);
	nc_svc_judged_raise(evidence.end);
	nc_svc_evidence_agreed();
	nc_svc_joins_set(&(NcSvcJoins) {.standing = NC_SVC_STANDING_JOINED});
	pg_atomic_write_u32(&nc_svc_shared->join_wanted, 0);
	joined = true;
}

/* ---- the table ---- */

/* The first thing that a walreceiver asks, each time before it starts to stream. */
static char *
receiver_identify_system(WalReceiverConn *conn, TimeLineID *timeline)
{
	if (nc_svc_identity_follows() && AmWalReceiverProcess())
		join_compute(conn);
	return (stock->walrcv_identify_system) (conn, timeline);
}

/* What the compute asks on the stream is answered here: a stock walreceiver knows nothing of it. */
static int
receive_message(WalReceiverConn *conn, char **buffer, pgsocket *wait_fd)
{
	char		lease[NC_SVC_LEASE_ANSWER_BYTES];
	int			bytes;

	while ((bytes = (stock->walrcv_receive) (conn, buffer, wait_fd)) > 0 && joined)
	{
		nc_svc_promise_check_stream();
		if (!nc_svc_lease_answer(&answer.present.id, *buffer, bytes, lease))
			break;
		(stock->walrcv_send) (conn, lease, sizeof(lease));
	}
	return bytes;
}

/* Said before it is written, so that replay is never ahead of what was judged. */
static int
receive_wal(WalReceiverConn *conn, char **buffer, pgsocket *wait_fd)
{
	int			bytes = receive_message(conn, buffer, wait_fd);

	if (joined)
		nc_svc_promise_check_stream();
	if (joined && bytes > WAL_MESSAGE_HEADER && (*buffer)[0] == 'w')
	{
		NcReader	r = nc_reader((const uint8_t *) *buffer + 1, sizeof(uint64));

		nc_svc_judged_raise(nc_read_u64(&r) + bytes - WAL_MESSAGE_HEADER);
	}
	return bytes;
}

/* What it confirms. */
static void
send_report(WalReceiverConn *conn, const char *buffer, int bytes)
{
	if (joined)
		nc_svc_promise_check_stream();
	(stock->walrcv_send) (conn, buffer, bytes);
}

/* ---- the token ---- */

void
nc_svc_check_primary_conninfo(const char *conninfo, int elevel)
{
	NcConninfoParts parts = {0};
	char		reason[256];
	char		passfile[MAXPGPATH];

	/* a string that libpq does not take leads nowhere, and its parts are empty */
	if (conninfo != NULL && !nc_conninfo_parts(conninfo, &parts, reason, sizeof(reason)))
		ereport(DEBUG1, (errmsg_internal("primary_conninfo: %s", reason)));
	/* it could bring in a host and a password that nobody judges */
	if (parts.has_service)
		ereport(elevel,
				(errcode(ERRCODE_CONFIG_FILE_ERROR),
				 errmsg("primary_conninfo names a service"),
				 errhint("Say in primary_conninfo itself what the service would.")));
	if (parts.is_local || parts.verifies || parts.address[0] == '\0' ||
		!(parts.sends_password || nc_conninfo_home_passfile(passfile, sizeof(passfile))))
		return;
	/* for people, without its port */
	*strrchr(parts.address, ':') = '\0';
	ereport(nc_svc_allow_token_in_clear ? WARNING : elevel,
			(errcode(ERRCODE_CONFIG_FILE_ERROR),
			 errmsg("primary_conninfo would send the token to whoever answers at \"%s\"",
					parts.address),
			 parts.sends_password ? errdetail("It does not verify the compute, which is not on this machine.") :
			 errdetail("It does not verify the compute, which is not on this machine, and passwords are looked for in \"%s\".",
					   passfile),
			 errhint("Set sslmode=verify-full and sslrootcert in primary_conninfo%s.",
					 nc_svc_allow_token_in_clear ? "" : "; in a network that is closed by other means "
					 "set neon_page_service.allow_token_in_clear")));
}

/* primary_conninfo can be changed by a reload: so it is judged where it is used. */
static WalReceiverConn *
connect_compute(NC_SVC_CONNECT_PARAMETERS)
{
	if (AmWalReceiverProcess())
	{
		/* it was asked for when all that was there had been replayed */
		pg_atomic_write_u32(&nc_svc_shared->came_to_end, 1);
		nc_svc_evidence_keep();
	}
	nc_svc_check_primary_conninfo(conninfo, ERROR);
	return (stock->walrcv_connect) (NC_SVC_CONNECT_ARGUMENTS);
}

/* In the postmaster, while libraries are preloaded. */
void
nc_svc_join_install(void)
{
	load_file("libpqwalreceiver", false);
	if (WalReceiverFunctions == NULL)
		ereport(FATAL, (errmsg("page service: libpqwalreceiver did not initialize")));
	stock = WalReceiverFunctions;
	wrapped = *stock;
	wrapped.walrcv_connect = connect_compute;
	wrapped.walrcv_identify_system = receiver_identify_system;
	wrapped.walrcv_receive = receive_wal;
	wrapped.walrcv_send = send_report;
	WalReceiverFunctions = &wrapped;
}
