/*
 * statement.c
 *	  What each statement has read and waited for: differences of its process's figures,
 *	  taken around each call of the executor.  Statements that waited long are logged.
 *
 * A statement is counted from its start to its end, or not at all: if the setting asks for
 * it when it begins, or somebody explains, or in a parallel worker, whose leader may want to know.
 * One that fails is forgotten with its memory.
 */
#include "postgres.h"

#include <limits.h>

#include "access/parallel.h"
#include "executor/executor.h"
#include "lib/stringinfo.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#include "nc/compat/server.h"

#include "statement.h"

typedef struct Statement
{
	struct Statement *outer;	/* that began before it and has not ended */
	const QueryDesc *query;
	const EState *estate;
	NcStatementCounts counts;
	MemoryContextCallback forgotten;
} Statement;

/* Figures before a call of the executor. */
typedef NcStatementCounts Before;

int			nc_statement_wanted = 0;
void		(*nc_statement_on_start) (QueryDesc *query) = NULL;

static int	log_min_page_wait = -1; /* ms; -1 = off */

/* The newest first. */
static Statement *begun = NULL;

static ExecutorStart_hook_type next_start = NULL;
static ExecutorRun_hook_type next_run = NULL;
static ExecutorFinish_hook_type next_finish = NULL;
static ExecutorEnd_hook_type next_end = NULL;

/* ---- counting ---- */

static Statement *
find(const QueryDesc *query)
{
	Statement  *s = begun;

	while (s != NULL && s->query != query)
		s = s->outer;
	return s;
}

bool
nc_statement_counts(const EState *estate, NcStatementCounts *counts)
{
	for (Statement *s = begun; s != NULL; s = s->outer)
		if (s->estate == estate)
		{
			*counts = s->counts;
			return true;
		}
	return false;
}

static void
look(Before *before)
{
	nc_tally_now(&before->own, &before->workers);
}

static void
count_since(NcStatementCounts *counts, const Before *before)
{
	Before		now;

	look(&now);
	nc_tally_add_since(&counts->own, &now.own, &before->own);
	nc_tally_add_since(&counts->workers, &now.workers, &before->workers);
}

static void
forget(void *arg)
{
	for (Statement **at = &begun; *at != NULL; at = &(*at)->outer)
		if (*at == arg)
		{
			*at = (*at)->outer;
			return;
		}
}

/* Its memory goes with the executor's, however that ends. */
static void
begin(QueryDesc *query, const Before *before)
{
	Statement  *s = MemoryContextAllocZero(query->estate->es_query_cxt, sizeof(Statement));

	s->query = query;
	s->estate = query->estate;
	s->outer = begun;
	begun = s;
	s->forgotten = (MemoryContextCallback) {.func = forget, .arg = s};
	MemoryContextRegisterResetCallback(query->estate->es_query_cxt, &s->forgotten);
	count_since(&s->counts, before);
}

/* ---- telling ---- */

static uint64
waited_us(const NcStatementCounts *c)
{
	return c->own.value[NC_TALLY_WAIT_US] + c->workers.value[NC_TALLY_WAIT_US];
}

static void
describe(StringInfo text, const NcTallyCounts *c)
{
	appendStringInfo(text, UINT64_FORMAT " pages: " UINT64_FORMAT " local, " UINT64_FORMAT " cached, "
					 UINT64_FORMAT " ahead, " UINT64_FORMAT " waited for; " UINT64_FORMAT " waits of %.3f ms",
					 nc_tally_pages(c), c->value[NC_TALLY_LOCAL], c->value[NC_TALLY_CACHED],
					 c->value[NC_TALLY_AHEAD], c->value[NC_TALLY_WAITED], c->value[NC_TALLY_WAITS],
					 c->value[NC_TALLY_WAIT_US] / 1000.0);
}

static void
tell(const QueryDesc *query, const NcStatementCounts *c)
{
	StringInfoData text;

	initStringInfo(&text);
	describe(&text, &c->own);
	if (nc_tally_pages(&c->workers) > 0 || c->workers.value[NC_TALLY_WAITS] > 0)
	{
		appendStringInfoString(&text, "; parallel workers: ");
		describe(&text, &c->workers);
	}
	/* the text is in the detail, which is left out when it may hold a secret (guc.c) */
	ereport(LOG,
			(errmsg("statement waited %.3f ms for pages, %s", waited_us(c) / 1000.0, text.data),
			 errdetail("Statement: %s", query->sourceText),
			 errhidestmt(true)));
	pfree(text.data);
}

/* ---- the executor's hooks ---- */

static bool
is_wanted(int eflags)
{
	return (eflags & EXEC_FLAG_EXPLAIN_ONLY) == 0 &&
		(log_min_page_wait >= 0 || nc_statement_wanted > 0 || IsParallelWorker());
}

static void
on_start(QueryDesc *query, int eflags)
{
	bool		wanted = is_wanted(eflags);
	Before		before;

	if (wanted)
		look(&before);
	if (next_start != NULL)
		next_start(query, eflags);
	else
		standard_ExecutorStart(query, eflags);
	if (!wanted)
		return;
	begin(query, &before);
	if (nc_statement_wanted > 0 && nc_statement_on_start != NULL)
		nc_statement_on_start(query);
}

static void
on_run(NC_PG_EXECUTOR_RUN_PARAMETERS)
{
	Statement  *s = find(query);
	Before		before;

	if (s != NULL)
		look(&before);
	if (next_run != NULL)
		next_run(NC_PG_EXECUTOR_RUN_ARGUMENTS);
	else
		standard_ExecutorRun(NC_PG_EXECUTOR_RUN_ARGUMENTS);
	if (s != NULL)
		count_since(&s->counts, &before);
}

static void
on_finish(QueryDesc *query)
{
	Statement  *s = find(query);
	Before		before;

	if (s != NULL)
		look(&before);
	if (next_finish != NULL)
		next_finish(query);
	else
		standard_ExecutorFinish(query);
	if (s != NULL)
		count_since(&s->counts, &before);
}

static void
run_end(QueryDesc *query)
{
	if (next_end != NULL)
		next_end(query);
	else
		standard_ExecutorEnd(query);
}

static void
on_end(QueryDesc *query)
{
	Statement  *s = find(query);
	NcStatementCounts counts;
	bool		outermost;
	Before		before;

	if (s == NULL)
	{
		run_end(query);
		return;
	}
	counts = s->counts;			/* the end frees it */
	outermost = s->outer == NULL;
	look(&before);
	run_end(query);
	count_since(&counts, &before);
	/* what it ran inside is in it */
	if (IsParallelWorker())
	{
		if (outermost)
			nc_tally_give_leader(&counts.own);
	}
	else if (log_min_page_wait >= 0 && waited_us(&counts) > 0 &&
			 waited_us(&counts) >= (uint64) log_min_page_wait * 1000)
		tell(query, &counts);
}

void
nc_statement_guc_init(void)
{
	DefineCustomIntVariable("neon_comm.log_min_page_wait",
							"Logs statements that waited so long for pages of page servers, with what they read.",
							"Its parallel workers' waits are added. -1 logs none, 0 each that waited at all.",
							&log_min_page_wait, -1, -1, INT_MAX, PGC_SUSET, GUC_UNIT_MS,
							NULL, NULL, NULL);
}

void
nc_statement_init(void)
{
	next_start = ExecutorStart_hook;
	ExecutorStart_hook = on_start;
	next_run = ExecutorRun_hook;
	ExecutorRun_hook = on_run;
	next_finish = ExecutorFinish_hook;
	ExecutorFinish_hook = on_finish;
	next_end = ExecutorEnd_hook;
	ExecutorEnd_hook = on_end;
}
