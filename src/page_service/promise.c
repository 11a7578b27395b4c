/*
 * promise.c
 *	  Promises to takeovers, and the members that a compute has given (docs/takeover.md).
 *
 * Both are in page_service_promise, which page service workers and the walreceiver write,
 * under NC_SVC_LOCK_PROMISE.  A copy of the promise is in shared memory, and a count that
 * moves with it: a walreceiver that joined under an earlier count neither takes WAL nor
 * confirms any.
 *
 * Guarantees that a promise is durable before it is told, that a stream of an older
 * incarnation has ended before the log is told, and that what the log says has been
 * replayed.
 */
#include "page_service.h"

#include <signal.h>

#include "access/xlog.h"
#include "access/xlogrecovery.h"
#include "miscadmin.h"
#include "replication/walreceiver.h"

#include "compat.h"

/* How often a takeover looks whether the stream has ended and all is replayed. */
#define LOOK_US 5000

/* ---- the file ---- */

static bool
load_promise(NcPromise *into, int elevel)
{
	const char *why = NULL;

	switch (nc_promise_load(DataDir, NC_MEMBER_PROMISE, into, &why))
	{
		case NC_FILE_OK:
			return true;
		case NC_FILE_ABSENT:
			memset(into, 0, sizeof(*into));
			return true;
		case NC_FILE_INVALID:
			ereport(elevel,
					(errcode(ERRCODE_DATA_CORRUPTED),
					 errmsg("page service: \"%s\" cannot be understood: %s", NC_MEMBER_PROMISE, why),
					 errdetail("It says to which takeover this page server has promised itself."),
					 errhint("Put another page server in the place of this one.")));
			break;
		case NC_FILE_ERROR:
			ereport(elevel,
					(errcode_for_file_access(),
					 errmsg("page service: could not read \"%s\": %m", NC_MEMBER_PROMISE)));
			break;
	}
	return false;
}

static bool
save_promise(const NcPromise *what, int elevel)
{
	if (nc_promise_save(DataDir, NC_MEMBER_PROMISE, what))
		return true;
	ereport(elevel,
			(errcode_for_file_access(),
			 errmsg("page service: could not write \"%s\": %m", NC_MEMBER_PROMISE),
			 errhint("Make sure that its file system has room and that the directory can be written to. Nothing has been changed.")));
	return false;
}

/* In the postmaster, whenever shared memory is made: FATAL if the file cannot be read. */
void
nc_svc_promise_start(void)
{
	NcPromise	kept;

	(void) load_promise(&kept, FATAL);
	SpinLockAcquire(&nc_svc_shared->joins_lock);
	nc_svc_shared->promised = kept.promised;
	SpinLockRelease(&nc_svc_shared->joins_lock);
}

/* None: no promise was given. Any process. */
NcId
nc_svc_promised(void)
{
	NcId		promised;

	SpinLockAcquire(&nc_svc_shared->joins_lock);
	promised = nc_svc_shared->promised;
	SpinLockRelease(&nc_svc_shared->joins_lock);
	return promised;
}

/* ---- the walreceiver ---- */

LWLock *
nc_svc_promise_lock(void)
{
	return &nc_svc_shared->locks[NC_SVC_LOCK_PROMISE].lock;
}

/*
 * It has joined a compute that the promise allows; under the lock. Keeps the members that it was told, which are no
 * older than those of the log here.
 */
void
nc_svc_promise_joined(const NcMemberLists *members)
{
	static NcPromise kept;

	(void) load_promise(&kept, ERROR);
	if (members->now.write_quorum != 0 && memcmp(members, &kept.members, sizeof(*members)) != 0)
	{
		kept.members = *members;
		(void) save_promise(&kept, ERROR);
	}
	pg_atomic_write_u32(&nc_svc_shared->joined_under, pg_atomic_read_u32(&nc_svc_shared->promises));
	pg_atomic_write_u32(&nc_svc_shared->joined_pid, MyProcPid);
	/* who promises reads the identity anew */
	pg_atomic_fetch_add_u32(&nc_svc_shared->joins_changes, 1);
}

void
nc_svc_promise_members(const NcMemberLists *members)
{
	static NcPromise kept;

	LWLockAcquire(nc_svc_promise_lock(), LW_EXCLUSIVE);
	(void) load_promise(&kept, ERROR);
	if (members->change > kept.members.change)
	{
		kept.members = *members;
		(void) save_promise(&kept, ERROR);
	}
	LWLockRelease(nc_svc_promise_lock());
}

/* Has there been no promise since the walreceiver has joined? */
bool
nc_svc_promise_stream_holds(void)
{
	return pg_atomic_read_u32(&nc_svc_shared->joined_under) == pg_atomic_read_u32(&nc_svc_shared->promises);
}

/* In a walreceiver that has joined, before it takes or confirms anything. */
void
nc_svc_promise_check_stream(void)
{
	if (nc_svc_promise_stream_holds())
		return;
	ereport(FATAL,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("WAL receiver ends: this page server has promised itself to a newer compute")));
}

/* Ends the stream of an older incarnation; true when there is none. */
static bool
cut_stream(void)
{
	pid_t		pid;

	if (nc_svc_promise_stream_holds())
		return true;
	SpinLockAcquire(&WalRcv->mutex);
	pid = WalRcv->pid;
	SpinLockRelease(&WalRcv->mutex);
	/* one that has not joined takes nothing, and will not */
	if (pid == 0 || pid != (pid_t) pg_atomic_read_u32(&nc_svc_shared->joined_pid))
		return true;
	(void) kill(pid, SIGTERM);
	return false;
}

/* ---- the command ---- */

static bool
parse_newer(const NcSvcWord *word, NcId *to)
{
	char		text[NC_ID_TEXT];
	uint32_t	number;

	if (word->length != NC_ID_TEXT - 1)
		return false;
	memcpy(text, word->text, word->length);
	text[word->length] = '\0';
	return nc_id_parse(text, false, to) && nc_id_number(to, &number);
}

/* Why there is no promise to be had, or NULL. */
static const char *
promise_refusal(void)
{
	NcSvcJoins	joins;

	if (!RecoveryInProgress())
		return "this server is not a standby, it promises nothing";
	if (!nc_svc_identity_follows())
		return "this page server follows no compute (neon_page_service.allow_any_primary)";
	nc_svc_joins_get(&joins);
	if (joins.standing == NC_SVC_STANDING_ENDED)
		return "this page server was promoted";
	return NULL;
}

/* Makes it durable, then known; false: text says why not. */
static bool
give_promise(const NcId *to, char *text, size_t bytes)
{
	static NcPromise kept;
	const NcMemberIdentity *me = nc_svc_identity_current();
	char		id[NC_ID_TEXT];
	bool		given = false;

	if (me == NULL || !load_promise(&kept, LOG))
		strlcpy(text, "the identity of this page server cannot be read, its log says why", bytes);
	else if (kept.members.now.write_quorum == 0)
		strlcpy(text, "no compute has told this page server who the members are (neon_comm.write_quorum)", bytes);
	else if (!nc_promise_may_give(me, &kept.promised, to))
		snprintf(text, bytes, "this page server has promised itself to, or follows, one that is as new: %s",
				 nc_id_text(nc_id_is_none(&kept.promised) ? &me->followed.at[me->followed.n - 1].id : &kept.promised, id));
	else
	{
		given = true;
		if (!nc_id_equal(&kept.promised, to))
		{
			kept.promised = *to;
			given = save_promise(&kept, LOG);
			if (!given)
				strlcpy(text, "the promise could not be written down, the log says why", bytes);
		}
	}
	return given;
}

static void
publish_promise(const NcId *to)
{
	NcId		before = nc_svc_promised();
	char		id[NC_ID_TEXT];

	if (nc_id_equal(&before, to))
		return;
	SpinLockAcquire(&nc_svc_shared->joins_lock);
	nc_svc_shared->promised = *to;
	SpinLockRelease(&nc_svc_shared->joins_lock);
	pg_atomic_fetch_add_u32(&nc_svc_shared->promises, 1);
	pg_atomic_fetch_add_u32(&nc_svc_shared->joins_changes, 1);
	ereport(LOG,
			(errmsg("page service: promised to incarnation %s: nothing is taken from, or granted to older ones any more",
					nc_id_text(to, id))));
}

void
nc_svc_takeover_begin(NcSvcSession *s, const NcSvcWord *words, int n, TimestampTz now)
{
	char		text[512];
	const char *why;
	NcId		to;
	bool		given;

	if (n != 3 || !parse_newer(&words[2], &to))
	{
		nc_svc_session_refuse(s, "XX000", "takeover takes a tenant id, a timeline id and an ordered incarnation", NULL);
		return;
	}
	if (!nc_svc_session_accepts(s, &words[0], &words[1]))
		return;
	why = promise_refusal();
	if (why != NULL)
	{
		nc_svc_session_refuse(s, "55000", why, NULL);
		return;
	}
	LWLockAcquire(nc_svc_promise_lock(), LW_EXCLUSIVE);
	given = give_promise(&to, text, sizeof(text));
	if (given)
		publish_promise(&to);
	LWLockRelease(nc_svc_promise_lock());
	if (!given)
	{
		nc_svc_session_refuse(s, "55000", text, NULL);
		return;
	}
	s->takeover = to;
	s->takeover_until = TimestampTzPlusMilliseconds(now, nc_svc_wait_lsn_timeout);
}

static void
row(NcWriter *w, const char *name, const char *value)
{
	const char *values[2] = {name, value};
	int			lens[2] = {strlen(name), strlen(value)};

	nc_session_data_row(w, 2, values, lens);
}

static void
put_row(void *w, const char *name, const char *value)
{
	row(w, name, value);
}

typedef void (*PutValue) (void *arg, const char *name, const char *value);

static void
tell_list(const NcMembers *members, const char *prefix, const char *what, PutValue put, void *arg)
{
	char		name[NAMEDATALEN];
	char		value[NC_ID_TEXT + NC_MEMBER_NAME_BYTES];
	char		id[NC_ID_TEXT];

	snprintf(name, sizeof(name), "%swrite_quorum", prefix);
	snprintf(value, sizeof(value), "%u", members->write_quorum);
	put(arg, name, value);
	snprintf(name, sizeof(name), "%s%s", prefix, what);
	for (uint32 i = 0; i < members->n; i++)
	{
		snprintf(value, sizeof(value), "%s %s", nc_id_text(&members->at[i].id, id), members->at[i].name);
		put(arg, name, value);
	}
}

/* While members change, those that are to be as well. */
static void
tell_members(const NcMemberLists *lists, const char *what, PutValue put, void *arg)
{
	char		value[16];

	tell_list(&lists->now, "", what, put, arg);
	snprintf(value, sizeof(value), "%u", lists->change);
	put(arg, "change_of_members", value);
	if (nc_members_change(lists))
		tell_list(&lists->next, "next_", what, put, arg);
}

/* Incarnations that an answer has room for; older ones say nothing new. */
#define LOG_INCARNATIONS_MAX 64

static void
answer_log(NcSvcSession *s, const NcMemberIdentity *me, const NcPromise *kept)
{
	static const NcColumn columns[] = {{"name", 25, -1}, {"value", 25, -1}};
	NcWriter	w = nc_visitor_writer(&s->v);
	char		value[NC_ID_TEXT + NC_MEMBER_NAME_BYTES + 32];
	char		id[NC_ID_TEXT];
	uint32		from = me->followed.n > LOG_INCARNATIONS_MAX ? me->followed.n - LOG_INCARNATIONS_MAX : 0;

	nc_session_row_description(&w, columns, 2);
	row(&w, "promised", nc_id_text(&s->takeover, id));
	row(&w, "self", nc_id_text(&me->member, id));
	for (uint32 i = from; i < me->followed.n; i++)
	{
		snprintf(value, sizeof(value), "%s " NC_LSN_FMT, nc_id_text(&me->followed.at[i].id, id),
				 NC_LSN_ARGS(me->followed.at[i].began));
		row(&w, "incarnation", value);
	}
	snprintf(value, sizeof(value), NC_LSN_FMT, NC_LSN_ARGS(GetXLogReplayRecPtr(NULL)));
	row(&w, "end", value);
	snprintf(value, sizeof(value), NC_LSN_FMT, NC_LSN_ARGS(nc_svc_evidence_last()));
	row(&w, "last_record", value);
	snprintf(value, sizeof(value), "%u", nc_svc_lease_left_ms());
	row(&w, "lease_ms", value);
	tell_members(&kept->members, "member", put_row, &w);
	nc_session_command_complete(&w, "TAKEOVER");
	nc_session_ready(&w);
	nc_visitor_commit(&s->v, &w);
}

/* Stream cut, everything replayed: the log is told. */
static bool
step_over(NcSvcSession *s, TimestampTz now)
{
	static NcPromise kept;
	const NcMemberIdentity *me;
	NcId		promised = nc_svc_promised();

	if (!nc_id_equal(&promised, &s->takeover))
	{
		nc_svc_session_refuse(s, "55000", "a newer takeover has got the promise of this page server", NULL);
		return true;
	}
	if (cut_stream() && nc_svc_source_consistent() && nc_svc_boot_replayed_all())
	{
		me = nc_svc_identity_current();
		if (me == NULL || !load_promise(&kept, LOG))
			nc_svc_session_refuse(s, "58030", "the identity of this page server cannot be read, its log says why", NULL);
		else
			answer_log(s, me, &kept);
		return true;
	}
	if (now < s->takeover_until)
		return false;
	nc_svc_session_refuse(s, "57P03", "promised, but replay has not come to the end of what was received in time", NULL);
	return true;
}

NcStep
nc_svc_takeover_step(NcSvcSession *s, TimestampTz now)
{
	if (step_over(s, now))
	{
		memset(&s->takeover, 0, sizeof(s->takeover));
		return NC_STEP_MORE;
	}
	s->resume_at = now + LOOK_US;
	return NC_STEP_PARK;
}

/* ---- the status ---- */

void
nc_svc_promise_status(void (*put) (void *arg, const char *name, const char *value), void *arg)
{
	static NcPromise kept;
	NcId		promised = nc_svc_promised();
	char		id[NC_ID_TEXT];

	put(arg, "promised", nc_id_text(&promised, id));
	LWLockAcquire(nc_svc_promise_lock(), LW_SHARED);
	if (!load_promise(&kept, LOG))
		memset(&kept, 0, sizeof(kept));
	LWLockRelease(nc_svc_promise_lock());
	tell_members(&kept.members, "member_of_quorum", put, arg);
}
