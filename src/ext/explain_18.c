/*
 * explain_18.c
 *	  EXPLAIN (ANALYZE, NEON_COMM): what each node of a plan has read and waited for.
 *
 * The figures of this process are looked at before and after each call of a node, by a
 * function that stands in its place (ExecProcNodeReal) in a plan that is explained so, and in
 * no other.  As with BUFFERS a node's figures contain those of its children.
 *
 * Nodes that return no rows but a whole (Hash, the bitmap ones) are not called so.  Of Hash
 * its child is shown, since it reads nothing itself; the bitmap ones have no figures, and Bitmap Heap
 * Scan contains theirs.  Nor do parallel workers tell by nodes: what they did is in sums only.
 */
#include "postgres.h"

#include "commands/defrem.h"
#include "commands/explain.h"
#include "commands/explain_format.h"
#include "commands/explain_state.h"
#include "executor/executor.h"
#include "nodes/nodeFuncs.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "nc/shared/tally.h"

#include "explain.h"
#include "statement.h"

/* A node of a plan that is counted. */
typedef struct CountedNode
{
	const PlanState *state;		/* hash key */
	ExecProcNodeMtd real;		/* what stood there */
	NcTallyCounts counts;
} CountedNode;

/* A plan that is counted, until its executor's memory goes. */
typedef struct CountedPlan
{
	struct CountedPlan *next;
	const EState *estate;
	HTAB	   *nodes;
	MemoryContextCallback forgotten;
} CountedPlan;

/* Of an EXPLAIN with the option. */
typedef struct Option
{
	bool		on;
	bool		whole;			/* sums are known */
	NcStatementCounts sums;
	MemoryContextCallback ended;
} Option;

static CountedPlan *plans = NULL;
static int	extension_id;

static explain_validate_options_hook_type next_validate = NULL;
static explain_per_node_hook_type next_per_node = NULL;
static explain_per_plan_hook_type next_per_plan = NULL;

/* ---- counting by nodes ---- */

static CountedNode *
find_node(const PlanState *state)
{
	CountedPlan	   *p = plans;

	while (p != NULL && p->estate != state->state)
		p = p->next;
	return p == NULL ? NULL : hash_search(p->nodes, &state, HASH_FIND, NULL);
}

static TupleTableSlot *
run_counted(PlanState *state)
{
	CountedNode	   *node = find_node(state);
	NcTallyCounts before;
	NcTallyCounts after;
	TupleTableSlot *slot;

	nc_tally_now(&before, NULL);
	slot = node->real(state);
	nc_tally_now(&after, NULL);
	nc_tally_add_since(&node->counts, &after, &before);
	return slot;
}

static bool
wrap(PlanState *state, void *arg)
{
	CountedPlan	   *plan = arg;
	bool		found;
	CountedNode	   *node;

	if (state == NULL)
		return false;
	node = hash_search(plan->nodes, &state, HASH_ENTER, &found);
	if (!found)
	{
		node->real = state->ExecProcNodeReal;
		memset(&node->counts, 0, sizeof(node->counts));
		state->ExecProcNodeReal = run_counted;
	}
	return planstate_tree_walker(state, wrap, plan);
}

static void
forget_plan(void *arg)
{
	for (CountedPlan **at = &plans; *at != NULL; at = &(*at)->next)
		if (*at == arg)
		{
			*at = (*at)->next;
			return;
		}
}

static void
count_plan(QueryDesc *query)
{
	MemoryContext context = query->estate->es_query_cxt;
	HASHCTL		ctl = {.keysize = sizeof(PlanState *), .entrysize = sizeof(CountedNode), .hcxt = context};
	CountedPlan	   *plan;

	/* what runs meanwhile is not explained, as a rule */
	if (query->instrument_options == 0)
		return;
	plan = MemoryContextAllocZero(context, sizeof(CountedPlan));
	plan->estate = query->estate;
	plan->nodes = hash_create("neon_comm nodes", 32, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	plan->next = plans;
	plans = plan;
	plan->forgotten = (MemoryContextCallback) {.func = forget_plan, .arg = plan};
	MemoryContextRegisterResetCallback(context, &plan->forgotten);
	(void) wrap(query->planstate, plan);
}

/* ---- the option ---- */

static Option *
option_of(ExplainState *es)
{
	Option	   *option = GetExplainExtensionState(es, extension_id);

	return option != NULL && option->on ? option : NULL;
}

static void
explain_ended(void *arg)
{
	if (((Option *) arg)->on)
		nc_statement_wanted--;
}

static void
take_option(ExplainState *es, DefElem *opt, ParseState *pstate)
{
	Option	   *option = GetExplainExtensionState(es, extension_id);
	bool		on = defGetBoolean(opt);

	if (option == NULL)
	{
		option = palloc0(sizeof(Option));
		SetExplainExtensionState(es, extension_id, option);
		/* the memory of the command, which goes with it, after an error, too */
		option->ended = (MemoryContextCallback) {.func = explain_ended, .arg = option};
		MemoryContextRegisterResetCallback(CurrentMemoryContext, &option->ended);
	}
	nc_statement_wanted += (int) on - (int) option->on;
	option->on = on;
}

static void
validate(ExplainState *es, List *options, ParseState *pstate)
{
	if (next_validate != NULL)
		next_validate(es, options, pstate);
	if (option_of(es) != NULL && !es->analyze)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("EXPLAIN option %s requires ANALYZE", "NEON_COMM")));
}

/* ---- printing ---- */

static bool
is_nothing(const NcTallyCounts *c)
{
	return nc_tally_pages(c) == 0 && c->value[NC_TALLY_WAITS] == 0 &&
		c->value[NC_TALLY_ASKED_AHEAD] == 0;
}

/* In text what is 0 is left out, as with buffers. */
static void
put_text(ExplainState *es, const char *label, const NcTallyCounts *c)
{
	static const struct
	{
		NcTallyId	id;
		const char *word;
	}			words[] = {
		{NC_TALLY_LOCAL, "local"}, {NC_TALLY_CACHED, "cached"}, {NC_TALLY_AHEAD, "ahead"},
		{NC_TALLY_WAITED, "waited"}, {NC_TALLY_ASKED_AHEAD, "asked"}, {NC_TALLY_WAITS, "waits"}
	};

	if (is_nothing(c))
		return;
	ExplainIndentText(es);
	appendStringInfo(es->str, "%s: pages=" UINT64_FORMAT, label, nc_tally_pages(c));
	for (int i = 0; i < lengthof(words); i++)
		if (c->value[words[i].id] > 0)
			appendStringInfo(es->str, " %s=" UINT64_FORMAT, words[i].word, c->value[words[i].id]);
	if (c->value[NC_TALLY_WAITS] > 0)
		appendStringInfo(es->str, " time=%.3f", c->value[NC_TALLY_WAIT_US] / 1000.0);
	appendStringInfoChar(es->str, '\n');
}

static void
put_properties(ExplainState *es, const NcTallyCounts *c)
{
	ExplainPropertyUInteger("Neon Pages", NULL, nc_tally_pages(c), es);
	ExplainPropertyUInteger("Neon Local Pages", NULL, c->value[NC_TALLY_LOCAL], es);
	ExplainPropertyUInteger("Neon Cached Pages", NULL, c->value[NC_TALLY_CACHED], es);
	ExplainPropertyUInteger("Neon Ahead Pages", NULL, c->value[NC_TALLY_AHEAD], es);
	ExplainPropertyUInteger("Neon Waited Pages", NULL, c->value[NC_TALLY_WAITED], es);
	ExplainPropertyUInteger("Neon Asked Ahead Pages", NULL, c->value[NC_TALLY_ASKED_AHEAD], es);
	ExplainPropertyUInteger("Neon Waits", NULL, c->value[NC_TALLY_WAITS], es);
	ExplainPropertyFloat("Neon Wait Time", "ms", c->value[NC_TALLY_WAIT_US] / 1000.0, 3, es);
}

static void
add(NcTallyCounts *to, const NcTallyCounts *counts)
{
	static const NcTallyCounts nothing;

	nc_tally_add_since(to, counts, &nothing);
}

/* What the node has read, its children included; false: it cannot be told. */
static bool
counts_of(const PlanState *state, NcTallyCounts *counts)
{
	const CountedNode *node = state == NULL ? NULL : find_node(state);

	memset(counts, 0, sizeof(*counts));
	if (node == NULL)
		return false;
	switch (nodeTag(state))
	{
		case T_BitmapIndexScanState:
		case T_BitmapAndState:
		case T_BitmapOrState:
			return false;
		case T_HashState:
			return counts_of(outerPlanState(state), counts);
		default:
			break;
	}
	*counts = node->counts;
	/* a hash join made parallel is called past us, and reads nothing itself but through its children */
	if (state->ExecProcNodeReal != run_counted)
	{
		NcTallyCounts child;

		if (counts_of(outerPlanState(state), &child))
			add(counts, &child);
		if (counts_of(innerPlanState(state), &child))
			add(counts, &child);
	}
	return true;
}

static void
per_node(PlanState *state, List *ancestors, const char *relationship, const char *plan_name,
		 ExplainState *es)
{
	Option	   *option = option_of(es);
	NcTallyCounts counts;

	if (next_per_node != NULL)
		next_per_node(state, ancestors, relationship, plan_name, es);
	if (option == NULL)
		return;
	/* the executor may be gone when the plan is over */
	if (nc_statement_counts(state->state, &option->sums))
		option->whole = true;
	if (!counts_of(state, &counts))
		return;
	if (es->format == EXPLAIN_FORMAT_TEXT)
		put_text(es, "Neon", &counts);
	else
		put_properties(es, &counts);
}

static void
put_sums(ExplainState *es, const char *group, const char *label, const NcTallyCounts *counts)
{
	if (es->format == EXPLAIN_FORMAT_TEXT)
	{
		put_text(es, label, counts);
		return;
	}
	ExplainOpenGroup(group, group, true, es);
	put_properties(es, counts);
	ExplainCloseGroup(group, group, true, es);
}

/* Sums of the whole, with what belongs to no node: triggers, the executor's start. */
static void
per_plan(PlannedStmt *plannedstmt, IntoClause *into, ExplainState *es, const char *queryString,
		 ParamListInfo params, QueryEnvironment *queryEnv)
{
	Option	   *option = option_of(es);

	if (next_per_plan != NULL)
		next_per_plan(plannedstmt, into, es, queryString, params, queryEnv);
	if (option == NULL || !option->whole)
		return;
	option->whole = false;
	put_sums(es, "Neon", "Neon Total", &option->sums.own);
	put_sums(es, "Neon Workers", "Neon Parallel Workers", &option->sums.workers);
}

void
nc_explain_init(void)
{
	extension_id = GetExplainExtensionId("neon_comm");
	RegisterExtensionExplainOption("neon_comm", take_option);
	nc_statement_on_start = count_plan;
	next_validate = explain_validate_options_hook;
	explain_validate_options_hook = validate;
	next_per_node = explain_per_node_hook;
	explain_per_node_hook = per_node;
	next_per_plan = explain_per_plan_hook;
	explain_per_plan_hook = per_plan;
}
