/*
 * sql_check.c
 *	  neon_comm.check(), neon_comm.verify_relation() and the views of the scrub: what
 *	  nc/check finds, as rows.
 */
#include "postgres.h"

#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "nc/check/check.h"
#include "nc/check/scrub.h"
#include "nc/check/verify.h"

#include "ext.h"

PG_FUNCTION_INFO_V1(nc_check);
PG_FUNCTION_INFO_V1(nc_verify_relation_sql);
PG_FUNCTION_INFO_V1(nc_get_scrub);
PG_FUNCTION_INFO_V1(nc_get_scrub_findings);

#define COLUMNS 5
#define SCRUB_COLUMNS 17
#define FINDING_COLUMNS 13
#define SECONDS_MAX 600

static void
put_row(void *arg, const NcCheckRow *row)
{
	ReturnSetInfo *rsinfo = arg;
	Datum		values[COLUMNS];
	bool		nulls[COLUMNS] = {0};

	values[0] = CStringGetTextDatum(row->item);
	values[1] = CStringGetTextDatum(row->subject);
	values[2] = CStringGetTextDatum(nc_check_state_name(row->state));
	values[3] = CStringGetTextDatum(row->what);
	if (row->remedy != NULL)
		values[4] = CStringGetTextDatum(row->remedy);
	nulls[4] = row->remedy == NULL;
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

static int
argument(const char *name, int32 value, int low, int high)
{
	if (value < low || value > high)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s is %d, it must be between %d and %d", name, value, low, high)));
	return value;
}

Datum
nc_check(PG_FUNCTION_ARGS)
{
	NcCheckLimits limits = {
		.seconds = argument("seconds", PG_GETARG_INT32(0), 1, SECONDS_MAX),
		.days = argument("days", PG_GETARG_INT32(1), 0, 36500),
		.free_percent = argument("free_percent", PG_GETARG_INT32(2), 0, 100)
	};

	nc_sql_require_compute();
	InitMaterializedSRF(fcinfo, 0);
	nc_check_run(&limits, put_row, fcinfo->resultinfo);
	return (Datum) 0;
}

static void
put_verified(void *arg, int64 block, const char *page_server, NcVerifyState state, const char *what)
{
	ReturnSetInfo *rsinfo = arg;
	Datum		values[COLUMNS];
	bool		nulls[COLUMNS] = {0};

	values[0] = Int64GetDatum(block);
	nulls[0] = block < 0;
	values[1] = CStringGetTextDatum(page_server);
	values[2] = CStringGetTextDatum(nc_verify_state_name(state));
	values[3] = CStringGetTextDatum(what);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

Datum
nc_verify_relation_sql(PG_FUNCTION_ARGS)
{
	int64		first = PG_GETARG_INT64(1);
	int64		blocks = PG_GETARG_INT64(2);
	int			seconds = argument("seconds", PG_GETARG_INT32(3), 1, SECONDS_MAX);

	if (first < 0 || first > MaxBlockNumber)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("there is no block " INT64_FORMAT, first)));
	nc_sql_require_compute();
	InitMaterializedSRF(fcinfo, 0);
	nc_verify_relation(PG_GETARG_OID(0), (BlockNumber) first, blocks, seconds, put_verified,
					   fcinfo->resultinfo);
	return (Datum) 0;
}

/* Where it is, from values[9] on; nothing before the first round. */
static void
put_place(Datum *values, bool *nulls)
{
	values[9] = ObjectIdGetDatum(atomic_load(&nc_scrub->spc));
	values[10] = ObjectIdGetDatum(atomic_load(&nc_scrub->db));
	values[11] = ObjectIdGetDatum(atomic_load(&nc_scrub->rel));
	values[12] = Int64GetDatum(atomic_load(&nc_scrub->block));
	for (int i = 9; i < 13; i++)
		nulls[i] = atomic_load(&nc_scrub->rel) == 0;
}

/* One row, also while it is off. */
Datum
nc_get_scrub(PG_FUNCTION_ARGS)
{
	Datum		values[SCRUB_COLUMNS];
	bool		nulls[SCRUB_COLUMNS] = {0};
	char		problem[NC_SCRUB_TEXT_BYTES];
	TupleDesc	desc;

	nc_sql_require_compute();
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	/* written by another process while we read it */
	memcpy(problem, nc_scrub->problem, sizeof(problem));
	problem[sizeof(problem) - 1] = '\0';
	values[0] = CStringGetTextDatum(nc_scrub_state_name(atomic_load(&nc_scrub->state)));
	values[1] = Int32GetDatum((int32) atomic_load(&nc_scrub->pid));
	nulls[1] = atomic_load(&nc_scrub->pid) == 0;
	values[2] = Int64GetDatum(atomic_load(&nc_scrub->rounds));
	values[3] = TimestampTzGetDatum(atomic_load(&nc_scrub->round_began));
	nulls[3] = atomic_load(&nc_scrub->round_began) == 0;
	values[4] = TimestampTzGetDatum(atomic_load(&nc_scrub->round_ended));
	nulls[4] = atomic_load(&nc_scrub->round_ended) == 0;
	values[5] = Int64GetDatum(atomic_load(&nc_scrub->relations_done));
	values[6] = Int64GetDatum(atomic_load(&nc_scrub->relations_all));
	values[7] = Int64GetDatum(atomic_load(&nc_scrub->blocks_done));
	values[8] = Int64GetDatum(atomic_load(&nc_scrub->blocks_all));
	put_place(values, nulls);
	values[13] = Int64GetDatum(atomic_load(&nc_scrub->blocks));
	values[14] = Int64GetDatum(atomic_load(&nc_scrub->found));
	values[15] = Int64GetDatum(atomic_load(&nc_scrub->unconfirmed));
	values[16] = CStringGetTextDatum(problem);
	nulls[16] = problem[0] == '\0';
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls));
}

Datum
nc_get_scrub_findings(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	nc_sql_require_compute();
	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < NC_SCRUB_FINDINGS; i++)
	{
		Datum		values[FINDING_COLUMNS];
		bool		nulls[FINDING_COLUMNS] = {0};
		NcScrubFinding f;

		if (!nc_scrub_finding(i, &f))
			continue;
		values[0] = CStringGetTextDatum(f.database);
		values[1] = CStringGetTextDatum(f.relation);
		values[2] = ObjectIdGetDatum(f.rel.spc);
		values[3] = ObjectIdGetDatum(f.rel.db);
		values[4] = ObjectIdGetDatum(f.rel.rel);
		values[5] = CStringGetTextDatum("main");
		values[6] = Int64GetDatum(f.block);
		nulls[6] = f.block < 0;
		values[7] = CStringGetTextDatum(nc_verify_state_name(f.state));
		values[8] = CStringGetTextDatum(f.page_server);
		values[9] = CStringGetTextDatum(f.what);
		values[10] = Int64GetDatum(f.times);
		values[11] = TimestampTzGetDatum(f.first);
		values[12] = TimestampTzGetDatum(f.last);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}
