/*
 * sql_check.c
 *	  neon_comm.check() and neon_comm.verify_relation(): what nc/check finds, as rows.
 */
#include "postgres.h"

#include "funcapi.h"
#include "utils/builtins.h"

#include "nc/check/check.h"
#include "nc/check/verify.h"

#include "ext.h"

PG_FUNCTION_INFO_V1(nc_check);
PG_FUNCTION_INFO_V1(nc_verify_relation_sql);

#define COLUMNS 5
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
