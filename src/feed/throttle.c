/*
 * throttle.c
 *	  The producers' side of backpressure: who writes WAL pauses while page
 *	  servers lag.
 *
 * Runs in every process that writes WAL.  A stock server has no hook where it
 * looks for interrupts, so the places are: the start of a statement that the
 * executor runs, of a utility statement, each row that INSERT, UPDATE, DELETE
 * and MERGE take from their plan, and in the storage layer each extension of a
 * table (COPY, CREATE INDEX, rewrites) and each read from a page server (VACUUM).
 *
 * Guarantees that a process never pauses where interrupts are held, that a
 * pause can be cancelled, and that COMMIT and ROLLBACK are never delayed: they
 * give locks back.  A process that writes no WAL is never throttled.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "executor/executor.h"
#include "executor/instrument.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "tcop/utility.h"
#include "utils/memutils.h"

#include "feed_internal.h"
#include "nc/base/clock.h"
#include "nc/compat/server.h"
#include "nc/feed/throttle.h"
#include "nc/lsn/throttle.h"
#include "nc/shared/shmem.h"
#include "nc/shared/waits.h"

/* Less than this is owed until more comes together: a sleep has its own price. */
#define PAUSE_MIN_US 1000

#define PAUSE_MAX_US 1000000
#define PAUSE_STORAGE_MAX_US 100000

/* A plan node below a ModifyTable, through which we see each row. */
typedef struct WatchedNode
{
	struct WatchedNode *next;
	PlanState  *node;
	ExecProcNodeMtd run;
	MemoryContextCallback forget;
} WatchedNode;

static WatchedNode *watched = NULL;

static uint64 seen_bytes = 0;
static uint64 owed_us = 0;

static ExecutorStart_hook_type next_start = NULL;
static ExecutorRun_hook_type next_run = NULL;
static ProcessUtility_hook_type next_utility = NULL;

/* ---- the pause ---- */

static bool
may_pause(NcThrottlePlace place)
{
	bool		may_interrupt = place == NC_THROTTLE_STORAGE ? nc_pg_storage_may_interrupt() :
		INTERRUPTS_CAN_BE_PROCESSED();

	return may_interrupt && MyProc != NULL &&
		!nc_pg_is_auxiliary() &&
		!proc_exit_inprogress;
}

/* The pause for what was written, by the limit that is exceeded most. */
static uint64
pause_for(uint64 written)
{
	uint64		longest = 0;

	for (int kind = 0; kind < NC_LAG_KINDS; kind++)
	{
		uint64		limit;
		XLogRecPtr	position = nc_feed_lowest(kind, &limit);

		if (ProcLastRecPtr > position)
			longest = Max(longest, nc_throttle_pause_us(written, ProcLastRecPtr - position, limit));
	}
	return longest;
}

static void
sleep_for(uint64 us)
{
	uint64		start = nc_clock_us();
	uint64		gone = 0;
	bool		consumed = false;

	nc_stat(NC_COUNTER_THROTTLES, 1);
	while (gone < us)
	{
		int			events;
		uint64		now;

		nc_pg_storage_interrupts();
		events = WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						   (long) ((us - gone + 999) / 1000), nc_wait_event(NC_WAIT_THROTTLE));
		now = nc_clock_us() - start;
		nc_stat(NC_COUNTER_THROTTLE_US, now - gone);
		gone = now;
		if ((events & WL_LATCH_SET) != 0)
		{
			consumed = true;
			ResetLatch(MyLatch);
		}
	}
	/* Others wait on the same latch for their own reasons: pass on what was taken. */
	if (consumed)
		SetLatch(MyLatch);
}

void
nc_throttle(NcThrottlePlace place)
{
	uint64		now_bytes = pgWalUsage.wal_bytes;
	uint64		us;

	if (now_bytes == seen_bytes || !may_pause(place))
		return;
	us = pause_for(now_bytes - seen_bytes);
	seen_bytes = now_bytes;
	if (us == 0)
	{
		owed_us = 0;
		return;
	}
	owed_us = Min(owed_us + us, PAUSE_MAX_US);
	if (owed_us < PAUSE_MIN_US)
		return;
	us = place == NC_THROTTLE_STORAGE ? Min(owed_us, PAUSE_STORAGE_MAX_US) : owed_us;
	owed_us -= us;
	sleep_for(us);
}

/* ---- rows ---- */

static TupleTableSlot *
run_watched(PlanState *node)
{
	WatchedNode *w = watched;

	while (w->node != node)
		w = w->next;
	nc_throttle(NC_THROTTLE_STATEMENT);
	return w->run(node);
}

/* Its query's memory goes away, after an error too. */
static void
forget_node(void *arg)
{
	for (WatchedNode **w = &watched; *w != NULL; w = &(*w)->next)
	{
		if (*w == arg)
		{
			*w = (*w)->next;
			return;
		}
	}
}

static void
watch_rows(QueryDesc *query, ModifyTableState *modify)
{
	WatchedNode *w;

	/* what a DO ALSO rule added is both the statement's own and an auxiliary one */
	if (outerPlanState(modify) == NULL ||
		outerPlanState(modify)->ExecProcNodeReal == run_watched)
		return;
	w = MemoryContextAlloc(query->estate->es_query_cxt, sizeof(WatchedNode));
	w->node = outerPlanState(modify);
	w->run = w->node->ExecProcNodeReal;
	w->forget.func = forget_node;
	w->forget.arg = w;
	MemoryContextRegisterResetCallback(query->estate->es_query_cxt, &w->forget);
	w->next = watched;
	watched = w;
	w->node->ExecProcNodeReal = run_watched;
}

/* ---- hooks ---- */

static void
on_executor_start(QueryDesc *query, int eflags)
{
	ListCell   *lc;

	if (next_start != NULL)
		next_start(query, eflags);
	else
		standard_ExecutorStart(query, eflags);
	if ((eflags & EXEC_FLAG_EXPLAIN_ONLY) != 0)
		return;
	if (IsA(query->planstate, ModifyTableState))
		watch_rows(query, castNode(ModifyTableState, query->planstate));
	foreach(lc, query->estate->es_auxmodifytables)
		watch_rows(query, lfirst_node(ModifyTableState, lc));
}

static void
on_executor_run(NC_PG_EXECUTOR_RUN_PARAMETERS)
{
	nc_throttle(NC_THROTTLE_STATEMENT);
	if (next_run != NULL)
		next_run(NC_PG_EXECUTOR_RUN_ARGUMENTS);
	else
		standard_ExecutorRun(NC_PG_EXECUTOR_RUN_ARGUMENTS);
}

static void
on_throttled_utility(PlannedStmt *pstmt, const char *text, bool read_only,
					 ProcessUtilityContext context, ParamListInfo params, QueryEnvironment *env,
					 DestReceiver *dest, QueryCompletion *qc)
{
	if (!IsA(pstmt->utilityStmt, TransactionStmt))
		nc_throttle(NC_THROTTLE_STATEMENT);
	if (next_utility != NULL)
		next_utility(pstmt, text, read_only, context, params, env, dest, qc);
	else
		standard_ProcessUtility(pstmt, text, read_only, context, params, env, dest, qc);
}

void
nc_throttle_init(void)
{
	next_start = ExecutorStart_hook;
	ExecutorStart_hook = on_executor_start;
	next_run = ExecutorRun_hook;
	ExecutorRun_hook = on_executor_run;
	next_utility = ProcessUtility_hook;
	ProcessUtility_hook = on_throttled_utility;
}
