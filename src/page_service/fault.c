/*
 * fault.c
 *	  Faults on demand, in test builds (-DNC_TEST_RULES) only: a page server that
 *	  is not ready, is somebody else's, sleeps, or answers before it has the WAL.
 *
 * neon_page_service.fault_rules is a list of rules separated by semicolons, each an action and
 * conditions:
 *
 *	not_ready       error answer "not ready"
 *	wrong_shard     error answer "wrong shard"
 *	error           error answer "Read error"
 *	reconnect       ErrorResponse 08006, and the session ends
 *	impatient       answers with the page as it is now, WAL or not
 *	sleep=MS        the worker stops for that long, all its sessions with it
 *
 *	every=N         of the requests of this worker each N-th (default 1)
 *	count=N         at most so often (default: always)
 *
 * Runs in page service workers; each counts for itself, from the last reload on.
 */
#include "page_service.h"

#ifdef NC_TEST_RULES

#include <limits.h>

#include "miscadmin.h"
#include "utils/guc.h"

#define RULES_MAX 16

typedef struct FaultRule
{
	NcSvcFault	fault;
	int			ms;
	int64		every;
	int64		count;
	int64		seen;
	int64		fired;
} FaultRule;

static char *rules_text = "";
static FaultRule rules[RULES_MAX];
static int	nrules = 0;

static const struct
{
	const char *name;
	NcSvcFault	fault;
}			names[] = {
	{"not_ready", NC_SVC_FAULT_NOT_READY},
	{"wrong_shard", NC_SVC_FAULT_WRONG_SHARD},
	{"error", NC_SVC_FAULT_ERROR},
	{"reconnect", NC_SVC_FAULT_RECONNECT},
	{"impatient", NC_SVC_FAULT_IMPATIENT},
	{"sleep", NC_SVC_FAULT_SLEEP},
};

/* One word of a rule, "name" or "name=number". */
static bool
parse_word(const char *word, FaultRule *rule)
{
	const char *value = strchr(word, '=');
	Size		bytes = value != NULL ? value - word : strlen(word);
	int64		number = value != NULL ? atoll(value + 1) : 0;

	if (value != NULL && number < 1)
		return false;
	if (bytes == 5 && strncmp(word, "every", 5) == 0)
		rule->every = number;
	else if (bytes == 5 && strncmp(word, "count", 5) == 0)
		rule->count = number;
	else
	{
		for (int i = 0; i < lengthof(names); i++)
		{
			if (strlen(names[i].name) != bytes || strncmp(names[i].name, word, bytes) != 0)
				continue;
			rule->fault = names[i].fault;
			rule->ms = (int) Min(number, INT_MAX);
			return true;
		}
		return false;
	}
	return number > 0;
}

static bool
parse_rules(const char *text, FaultRule *out, int *n)
{
	char		copy[1024];
	char	   *at_rule;
	char	   *at_word;

	*n = 0;
	strlcpy(copy, text, sizeof(copy));
	for (char *rule = strtok_r(copy, ";", &at_rule); rule != NULL;
		 rule = strtok_r(NULL, ";", &at_rule))
	{
		FaultRule	r = {.every = 1, .count = PG_INT64_MAX};

		for (char *word = strtok_r(rule, " ", &at_word); word != NULL;
			 word = strtok_r(NULL, " ", &at_word))
			if (!parse_word(word, &r))
				return false;
		if (r.fault == NC_SVC_FAULT_NONE || r.every < 1 || *n == RULES_MAX)
			return false;
		out[(*n)++] = r;
	}
	return true;
}

static bool
check_rules(char **value, void **extra, GucSource source)
{
	FaultRule	scratch[RULES_MAX];
	int			n;

	return parse_rules(*value, scratch, &n);
}

static void
assign_rules(const char *value, void *extra)
{
	(void) parse_rules(value, rules, &nrules);
	/* each process comes to a reload in its own time, and a test waits for those it needs */
	if (IsUnderPostmaster)
		ereport(LOG, (errmsg("fault rules of this process: \"%s\"", value)));
}

void
nc_svc_fault_define(void)
{
	DefineCustomStringVariable("neon_page_service.fault_rules",
							   "Faults of this page server, for tests.",
							   "Test builds only; src/page_service/fault.c has the language.",
							   &rules_text, "",
							   PGC_SIGHUP, GUC_SUPERUSER_ONLY, check_rules, assign_rules, NULL);
}

/* The first rule that fires. */
static const FaultRule *
next_fault(void)
{
	for (int i = 0; i < nrules; i++)
	{
		FaultRule  *r = &rules[i];

		if (r->fired >= r->count || ++r->seen % r->every != 0)
			continue;
		r->fired++;
		return r;
	}
	return NULL;
}

static void
answer_fault(NcSvcSession *s, const NcPsRequest *req, const char *text)
{
	NcWriter	w = nc_visitor_writer(&s->v);
	uint8_t    *length_at = nc_frame_begin(&w, 'd');
	NcPsResponse resp = {
		.tag = NC_RESP_ERROR,
		.reqid = req->reqid,
		.request_lsn = req->request_lsn,
		.not_modified_since = req->not_modified_since,
		.message = text,
		.message_bytes = strlen(text)
	};

	nc_ps_response_encode(&w, s->version, &resp);
	nc_frame_end(&w, length_at);
	nc_visitor_commit(&s->v, &w);
}

NcSvcFault
nc_svc_fault(NcSvcSession *s, const NcPsRequest *req)
{
	const FaultRule *r = next_fault();

	if (r == NULL)
		return NC_SVC_FAULT_NONE;
	switch (r->fault)
	{
		case NC_SVC_FAULT_NOT_READY:
			answer_fault(s, req, "not ready: injected");
			break;
		case NC_SVC_FAULT_WRONG_SHARD:
			answer_fault(s, req, "wrong shard: injected");
			break;
		case NC_SVC_FAULT_ERROR:
			answer_fault(s, req, "Read error: injected");
			break;
		case NC_SVC_FAULT_RECONNECT:
			nc_svc_session_end(s, "ERROR", "08006", "reconnect: injected");
			break;
		case NC_SVC_FAULT_SLEEP:
			pg_usleep(r->ms * 1000L);
			return NC_SVC_FAULT_NONE;
		case NC_SVC_FAULT_IMPATIENT:
		case NC_SVC_FAULT_NONE:
			break;
	}
	return r->fault;
}

#endif							/* NC_TEST_RULES */
