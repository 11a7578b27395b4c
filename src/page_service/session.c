/*
 * session.c
 *	  One client of the page service: queries and the pagestream (the door has the
 *	  start-up, boot.c the boot image).
 *
 * Runs in page service workers; the door owns the socket and the clock, this file
 * only turns the bytes of the receive buffer into bytes of the send buffer.
 *
 * Guarantees: requests are answered in their order; an answer is started only when
 * the largest one fits, so neither buffer ever grows; a message beyond its bound
 * ends the session before its body is looked at.  Never blocks and never raises.
 */
#include "page_service.h"

#include <ctype.h>
#include <sys/statvfs.h>

#include "access/xlog.h"
#include "access/xlogrecovery.h"
#include "replication/walreceiver.h"
#include "utils/elog.h"
#include "utils/timestamp.h"

#define WORDS_MAX 10
#define ID_DIGITS 32

/* Type and length. */
#define FRAME_HEAD_BYTES 5

typedef enum Outcome
{
	OUTCOME_HANDLED,
	OUTCOME_LSN,				/* it waits for replay */
	OUTCOME_TIME				/* it waits until resume_at */
} Outcome;

void
nc_svc_session_end(NcSvcSession *s, const char *severity, const char *sqlstate,
				   const char *message)
{
	NcRefusal	why = {.sqlstate = sqlstate,.message = message};

	/* its place is free, however long it takes to hear that */
	nc_svc_client_leaves(s);
	nc_svc_client_remove(s);
	nc_visitor_end(&s->v, severity, &why);
}

/* An error after which the session waits for the next query. */
void
nc_svc_session_refuse(NcSvcSession *s, const char *sqlstate, const char *message, const char *hint)
{
	NcWriter	w = nc_visitor_writer(&s->v);

	nc_session_error(&w, "ERROR", sqlstate, message, NULL, hint);
	nc_session_ready(&w);
	nc_visitor_commit(&s->v, &w);
	s->mode = NC_SVC_QUERY;
}

/* ---- queries ---- */

bool
nc_svc_word_is(const NcSvcWord *word, const char *text)
{
	return word->length == strlen(text) && pg_strncasecmp(word->text, text, word->length) == 0;
}

/* Splits at blanks; more words than wanted count as one more. */
static int
split_words(const char *query, NcSvcWord *words)
{
	int			n = 0;

	for (;;)
	{
		while (isspace((unsigned char) *query) || *query == ';')
			query++;
		if (*query == '\0' || n == WORDS_MAX)
			return n;
		words[n].text = query;
		while (*query != '\0' && *query != ';' && !isspace((unsigned char) *query))
			query++;
		words[n].length = query - words[n].text;
		n++;
	}
}

static bool
word_is_id(const NcSvcWord *word)
{
	if (word->length != ID_DIGITS)
		return false;
	for (int i = 0; i < ID_DIGITS; i++)
	{
		if (!isxdigit((unsigned char) word->text[i]))
			return false;
	}
	return true;
}

/*
 * Checks one id against its setting; an empty setting accepts every id.  Answers
 * with the error and returns false if it does not fit.
 */
static bool
accept_id(NcSvcSession *s, const char *what, const NcSvcWord *word, const char *setting)
{
	char		text[512];

	if (!word_is_id(word))
	{
		snprintf(text, sizeof(text), "invalid %s id \"%.*s\": 32 hexadecimal digits are expected, "
				 "without a shard suffix", what, Min(word->length, 64), word->text);
		nc_svc_session_refuse(s, "XX000", text, NULL);
		return false;
	}
	if (setting[0] == '\0' || nc_svc_word_is(word, setting))
		return true;
	/* the remedy first: a compute's log has room for 127 bytes */
	snprintf(text, sizeof(text), "%s \"%.*s\" is not served: set neon_comm.%s_id or "
			 "neon_page_service.%s_id right, this page service serves \"%s\"", what,
			 word->length, word->text, what, what, setting);
	nc_svc_session_refuse(s, "XX000", text, NULL);
	return false;
}

bool
nc_svc_session_accepts(NcSvcSession *s, const NcSvcWord *tenant, const NcSvcWord *timeline)
{
	if (!accept_id(s, "tenant", tenant, nc_svc_tenant_id) ||
		!accept_id(s, "timeline", timeline, nc_svc_timeline_id))
		return false;
	if (s->token_tenant[0] == '\0' || nc_svc_word_is(tenant, s->token_tenant))
		return true;
	nc_svc_session_refuse(s, "42501", "the token is refused: it is for another tenant", NULL);
	return false;
}

static void
start_pagestream(NcSvcSession *s, int version, const NcSvcWord *args, int nargs)
{
	NcWriter	w;

	if (nargs != 2)
	{
		nc_svc_session_refuse(s, "XX000", "invalid number of arguments: pagestream takes a tenant id and a "
			   "timeline id", NULL);
		return;
	}
	if (!nc_svc_session_accepts(s, &args[0], &args[1]))
		return;
	if (!RecoveryInProgress())
	{
		nc_svc_session_refuse(s, "XX000", "this server is not a standby, it cannot serve pages",
			   nc_svc_identity_follows() ? NULL : "Start it with standby.signal and primary_conninfo.");
		return;
	}
	w = nc_visitor_writer(&s->v);
	nc_session_copy_both(&w);
	nc_visitor_commit(&s->v, &w);
	s->version = version;
	s->mode = NC_SVC_STREAM;
}

static void status_row(NcWriter *w, const char *name, const char *fmt,...)
			pg_attribute_printf(3, 4);

static void
status_row(NcWriter *w, const char *name, const char *fmt,...)
{
	char		value[512];
	const char *values[2] = {name, value};
	int			lens[2];
	va_list		args;

	va_start(args, fmt);
	vsnprintf(value, sizeof(value), fmt, args);
	va_end(args);
	lens[0] = strlen(name);
	lens[1] = strlen(value);
	nc_session_data_row(w, 2, values, lens);
}

/* The counters of all workers. */
static void
status_totals(NcWriter *w)
{
	NcSvcTotals t;

	nc_svc_totals(&t);
	status_row(w, "connections", "%u", t.sessions);
	status_row(w, "requests_waiting", "%u", t.waiting);
	status_row(w, "pages_served", "%llu", (unsigned long long) t.pages);
	status_row(w, "requests_served", "%llu", (unsigned long long) t.requests);
	status_row(w, "error_answers", "%llu", (unsigned long long) t.errors);
	status_row(w, "clients_refused", "%llu", (unsigned long long) t.refused);
	status_row(w, "throttled", "%llu", (unsigned long long) t.over_rate);
}

static void
status_replay(NcWriter *w)
{
	bool		in_recovery = RecoveryInProgress();

	status_row(w, "in_recovery", "%s", in_recovery ? "on" : "off");
	status_row(w, "consistent", "%s", in_recovery && nc_svc_source_consistent() ? "on" : "off");
	status_row(w, "replay_lsn", NC_LSN_FMT, NC_LSN_ARGS(GetXLogReplayRecPtr(NULL)));
	status_row(w, "received_lsn", NC_LSN_FMT, NC_LSN_ARGS(GetWalRcvFlushRecPtr(NULL, NULL)));
	status_row(w, "demanded_lsn", NC_LSN_FMT,
			   NC_LSN_ARGS(pg_atomic_read_u64(&nc_svc_shared->demanded_lsn)));
	status_row(w, "streaming", "%s", WalRcvStreaming() ? "on" : "off");
	status_row(w, "replay_paused", "%s",
			   GetRecoveryPauseState() == RECOVERY_NOT_PAUSED ? "off" : "on");
	status_row(w, "lazy", "%s", nc_svc_lazy_replay ? "on" : "off");
	status_row(w, "replayed_all", "%s", in_recovery && nc_svc_boot_replayed_all() ? "on" : "off");
	status_row(w, "last_record_lsn", NC_LSN_FMT, NC_LSN_ARGS(nc_svc_evidence_last()));
	status_row(w, "boot_images", "%llu",
			   (unsigned long long) pg_atomic_read_u64(&nc_svc_shared->boot_images));
	status_row(w, "cache_list_bytes", "%llu", (unsigned long long) nc_svc_cache_list_bytes());
	status_row(w, "boot_held_us", "%llu",
			   (unsigned long long) pg_atomic_read_u64(&nc_svc_shared->boot_held_us));
}

const char *
nc_svc_standing_name(const NcSvcJoins *joins)
{
	if (joins->standing == NC_SVC_STANDING_ENDED)
		return "promoted";
	if (joins->reason[0] != '\0')
		return "refused";
	if (joins->standing == NC_SVC_STANDING_JOINED)
		return "joined";
	return nc_svc_identity_follows() ? "new" : "none";
}

static void
status_identity(NcWriter *w)
{
	const NcMemberIdentity *identity = nc_svc_identity_current();
	static const NcId none;
	char		id[NC_ID_TEXT];
	uint32		n = identity != NULL ? identity->followed.n : 0;
	NcSvcJoins	joins;

	nc_svc_joins_get(&joins);

	status_row(w, "member", "%s", nc_id_text(identity != NULL ? &identity->member : &none, id));
	status_row(w, "birth", "%s", nc_id_text(identity != NULL ? &identity->birth : &none, id));
	status_row(w, "incarnation", "%s", nc_id_text(n > 0 ? &identity->followed.at[n - 1].id : &none, id));
	status_row(w, "incarnation_began", NC_LSN_FMT,
			   NC_LSN_ARGS(n > 0 ? identity->followed.at[n - 1].began : InvalidXLogRecPtr));
	status_row(w, "identity", "%s", nc_svc_standing_name(&joins));
	status_row(w, "identity_reason", "%s", joins.reason);
	status_row(w, "judged_lsn", NC_LSN_FMT,
			   NC_LSN_ARGS(pg_atomic_read_u64(&nc_svc_shared->judged_lsn)));
}

static void
put_status(void *arg, const char *name, const char *value)
{
	status_row(arg, name, "%s", value);
}

/* What a compute compares with its own, and what must not be on for long. */
static void
status_server(NcWriter *w)
{
	const struct
	{
		const char *name;
		bool		on;
	}			unsafe[] = {
		{"allow_any_primary", nc_svc_allow_any_primary},
		{"allow_token_in_clear", nc_svc_allow_token_in_clear},
		{"allow_unauthenticated", nc_svc_allow_unauthenticated},
		{"allow_unsafe", nc_svc_allow_unsafe},
	};
	char		names[256] = "";
	struct statvfs fs;

	status_row(w, "server_version", "%s", PG_VERSION);
	status_row(w, "system_identifier", "%llu", (unsigned long long) GetSystemIdentifier());
	status_row(w, "data_checksums", "%s", DataChecksumsEnabled() ? "on" : "off");
	for (int i = 0; i < lengthof(unsafe); i++)
		if (unsafe[i].on)
			snprintf(names + strlen(names), sizeof(names) - strlen(names), "%s%s",
					 names[0] != '\0' ? ", " : "", unsafe[i].name);
	status_row(w, "unsafe", "%s", names);
	/* of the data directory, which is where the process is */
	if (statvfs(".", &fs) != 0)
		return;
	status_row(w, "disk_bytes", "%llu", (unsigned long long) fs.f_blocks * fs.f_frsize);
	status_row(w, "disk_free_bytes", "%llu", (unsigned long long) fs.f_bavail * fs.f_frsize);
}

static void
show_status(NcSvcSession *s)
{
	static const NcColumn columns[] = {{"name", 25, -1}, {"value", 25, -1}};
	NcWriter	w = nc_visitor_writer(&s->v);

	nc_session_row_description(&w, columns, 2);
	status_replay(&w);
	status_totals(&w);
	status_identity(&w);
	nc_svc_promise_status(put_status, &w);
	nc_svc_lease_status(put_status, &w);
	status_row(&w, "workers", "%d", nc_svc_workers);
	status_row(&w, "shard", "%s/%d", nc_svc_shard_numbers, nc_svc_shard_count);
	status_row(&w, "stripe_size", "%d", nc_svc_stripe_size);
	status_row(&w, "tenant_id", "%s", nc_svc_tenant_id);
	status_row(&w, "timeline_id", "%s", nc_svc_timeline_id);
	status_server(&w);
	nc_session_command_complete(&w, "SHOW");
	nc_session_ready(&w);
	nc_visitor_commit(&s->v, &w);
}

static void
accept_set(NcSvcSession *s)
{
	NcWriter	w = nc_visitor_writer(&s->v);

	nc_session_command_complete(&w, "SELECT 1");
	nc_session_ready(&w);
	nc_visitor_commit(&s->v, &w);
}

static void
run_query(NcSvcSession *s, const char *query, TimestampTz now)
{
	NcSvcWord	words[WORDS_MAX];
	int			n = split_words(query, words);
	char		text[256];

	if (n > 0 && nc_svc_word_is(&words[0], "pagestream_v3"))
		start_pagestream(s, 3, words + 1, n - 1);
	else if (n > 0 && nc_svc_word_is(&words[0], "pagestream_v2"))
		start_pagestream(s, 2, words + 1, n - 1);
	else if (n > 1 && nc_svc_word_is(&words[0], "set"))
		accept_set(s);
	else if (n == 2 && nc_svc_word_is(&words[0], "show") && nc_svc_word_is(&words[1], "status"))
		show_status(s);
	else if (n > 0 && nc_svc_word_is(&words[0], "basebackup"))
		nc_svc_boot_begin(s, words + 1, n - 1, now);
	else if (n > 0 && nc_svc_word_is(&words[0], "cache_list"))
		nc_svc_cache_list_begin(s, words + 1, n - 1);
	else if (n > 0 && nc_svc_word_is(&words[0], "takeover"))
		nc_svc_takeover_begin(s, words + 1, n - 1, now);
	else
	{
		snprintf(text, sizeof(text), "unknown command \"%.*s\"", n > 0 ? Min(words[0].length, 64) : 0,
				 n > 0 ? words[0].text : "");
		nc_svc_session_refuse(s, "XX000", text, "The page service knows pagestream_v2, pagestream_v3, basebackup, "
			   "cache_list, takeover, set and show status.");
	}
}

static void
handle_query(NcSvcSession *s, const NcFrame *frame, TimestampTz now)
{
	NcReader	r = nc_reader(frame->body, frame->body_bytes);
	const char *query = nc_read_cstring(&r);

	if (query == NULL || nc_reader_left(&r) != 0)
		nc_svc_session_refuse(s, "08P01", "malformed query message", NULL);
	else
		run_query(s, query, now);
}

/* The extended protocol is refused as a whole, up to its Sync. */
static void
refuse_extended(NcSvcSession *s)
{
	NcWriter	w = nc_visitor_writer(&s->v);

	nc_session_error(&w, "ERROR", "0A000",
					 "the page service speaks the simple query protocol only", NULL, NULL);
	nc_visitor_commit(&s->v, &w);
	s->mode = NC_SVC_SKIP;
}

/* A message outside the stream. */
static void
handle_message(NcSvcSession *s, const NcFrame *frame, TimestampTz now)
{
	NcWriter	w;

	switch (frame->type)
	{
		case 'X':
			nc_visitor_leave(&s->v);
			break;
		case 'S':
			w = nc_visitor_writer(&s->v);
			nc_session_ready(&w);
			nc_visitor_commit(&s->v, &w);
			s->mode = NC_SVC_QUERY;
			break;
		case 'Q':
			if (s->mode != NC_SVC_SKIP)
				handle_query(s, frame, now);
			break;
		case 'P':
		case 'B':
		case 'D':
		case 'E':
		case 'C':
			if (s->mode != NC_SVC_SKIP)
				refuse_extended(s);
			break;
		case 'd':
		case 'c':
		case 'f':
			break;				/* what the client sent before it saw the stream's end */
		default:
			nc_svc_session_end(s, "FATAL", "08P01", "invalid message type");
			break;
	}
}

/* ---- the stream ---- */

/*
 * Has the connection used up its request rate?  A tenth of a second of it may come
 * at once, so that a batch is not torn apart.
 */
static bool
over_rate(NcSvcSession *s, TimestampTz now)
{
	double		rate = nc_svc_max_requests_per_second;
	double		burst = Max(rate / 10, 1);

	if (rate <= 0)
		return false;
	if (s->allowance_at == 0)
		s->allowance = burst;
	else if (now > s->allowance_at)
		s->allowance = Min(burst, s->allowance + rate * (now - s->allowance_at) / USECS_PER_SEC);
	s->allowance_at = now;
	if (s->allowance >= 1)
	{
		s->allowance -= 1;
		return false;
	}
	s->resume_at = now + (TimestampTz) ((1 - s->allowance) / rate * USECS_PER_SEC) + 1;
	nc_svc_count(&nc_svc_self()->over_rate);
	return true;
}

/* Can it be answered now?  Whatever keeps it waiting is asked for. */
static bool
is_ready(const NcPsRequest *req, NcAccess access)
{
	if (access != NC_ACCESS_SERVE || !nc_svc_judged_covers(GetXLogReplayRecPtr(NULL)))
		nc_svc_demand_join();
	return nc_svc_source_readiness(req) == NC_SVC_READY && access == NC_ACCESS_SERVE;
}

bool
nc_svc_session_may_go(NcSvcSession *s)
{
	char		reason[NC_REASON_BYTES];
	NcAccess	access = nc_svc_identity_access(s, reason);

	return access == NC_ACCESS_END || is_ready(&s->waiting_for, access);
}

static uint64
waited(const NcSvcSession *s, TimestampTz now)
{
	return s->wait_since != 0 && now > s->wait_since ? (uint64) (now - s->wait_since) : 0;
}

/* Of what was written: a frame, whose body begins with the tag. */
static bool
answer_is_error(const NcWriter *w)
{
	return nc_writer_bytes(w) > FRAME_HEAD_BYTES && w->start[FRAME_HEAD_BYTES] == NC_RESP_ERROR;
}

/* When its request was looked at first. */
static uint64
came(const NcSvcSession *s, TimestampTz now)
{
	return (uint64) (s->wait_since != 0 ? s->wait_since : now);
}

/* Answers the request or says that it must wait; a waiting one stays in the buffer. */
static Outcome
handle_request(NcSvcSession *s, const NcPsRequest *req, TimestampTz now)
{
	NcWriter	w;
	NcSvcFault	fault = s->wait_since == 0 ? nc_svc_fault(s, req) : NC_SVC_FAULT_NONE;
	char		reason[NC_REASON_BYTES];
	NcAccess	access = nc_svc_identity_access(s, reason);

	if (fault > NC_SVC_FAULT_IMPATIENT)
		return OUTCOME_HANDLED;
	if (access == NC_ACCESS_END)
	{
		w = nc_visitor_writer(&s->v);
		nc_svc_source_answer_parted(req, s->version, reason, &w);
	}
	else if (fault == NC_SVC_FAULT_IMPATIENT || is_ready(req, access))
	{
		uint64		began = nc_clock_us();
		uint64		ended;

		w = nc_visitor_writer(&s->v);
		nc_svc_source_answer(req, s->version, &w);
		ended = nc_clock_us();
		nc_svc_note_request(req, waited(s, now), ended - began);
		nc_svc_trace_answer(req, came(s, now), began, ended, answer_is_error(&w));
	}
	else if (s->wait_since != 0 &&
			 now >= TimestampTzPlusMilliseconds(s->wait_since, nc_svc_wait_lsn_timeout))
	{
		w = nc_visitor_writer(&s->v);
		nc_svc_source_answer_timeout(req, s->version, &w);
		nc_svc_note_request(req, waited(s, now), 0);
		nc_svc_trace_answer(req, came(s, now), 0, nc_clock_us(), true);
	}
	else
	{
		if (s->wait_since == 0)
			s->wait_since = now;
		s->waiting_for = *req;
		s->waiting_for.trace = NULL;	/* of a body that may move; it is read again */
		return OUTCOME_LSN;
	}
	nc_visitor_commit(&s->v, &w);
	s->wait_since = 0;
	s->wait_logged = false;
	return OUTCOME_HANDLED;
}

static Outcome
handle_stream_message(NcSvcSession *s, const NcFrame *frame, TimestampTz now)
{
	NcPsRequest req;
	char		text[128];

	if (frame->type == 'X')
	{
		nc_visitor_leave(&s->v);
		return OUTCOME_HANDLED;
	}
	if (frame->type != 'd')
	{
		snprintf(text, sizeof(text), "unexpected message type %d inside a pagestream",
				 (int) frame->type);
		nc_svc_session_refuse(s, "XX000", text, NULL);
		return OUTCOME_HANDLED;
	}
	if (!nc_ps_request_decode(frame->body, frame->body_bytes, s->version, &req))
	{
		snprintf(text, sizeof(text), "malformed pagestream request of %zu bytes (version %d)",
				 frame->body_bytes, s->version);
		nc_svc_session_refuse(s, "XX000", text, NULL);
		return OUTCOME_HANDLED;
	}
	if (s->wait_since == 0 && over_rate(s, now))
		return OUTCOME_TIME;
	return handle_request(s, &req, now);
}

/* ---- a message ---- */

NcStep
nc_svc_session_message(NcSvcSession *s, TimestampTz now)
{
	size_t		bytes;
	const uint8_t *input = nc_channel_input(&s->v.channel, &bytes);
	NcFrame		frame;
	Outcome		outcome = OUTCOME_HANDLED;

	if (s->boot != NULL)
		return nc_svc_boot_step(s, now);
	if (!nc_id_is_none(&s->takeover))
		return nc_svc_takeover_step(s, now);
	switch (nc_frame_parse(input, bytes, NC_CLIENT_MESSAGE_BYTES_MAX, &frame))
	{
		case NC_FRAME_INCOMPLETE:
			return NC_STEP_INPUT;
		case NC_FRAME_INVALID:
			nc_svc_session_end(s, "FATAL", "08P01", "invalid message length");
			return NC_STEP_MORE;
		case NC_FRAME_OK:
			break;
	}
	if (s->mode == NC_SVC_STREAM)
		outcome = handle_stream_message(s, &frame, now);
	else if (s->mode == NC_SVC_CACHE_LIST_COMES)
		nc_svc_cache_list_message(s, &frame);
	else
		handle_message(s, &frame, now);
	if (outcome != OUTCOME_HANDLED)
		return NC_STEP_PARK;
	nc_channel_take(&s->v.channel, frame.consumed);
	return NC_STEP_MORE;
}
