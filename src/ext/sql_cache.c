/*
 * sql_cache.c
 *	  The SQL functions of the local file cache.
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "nc/base/clock.h"
#include "nc/filecache/filecache.h"
#include "nc/shared/settings.h"
#include "nc/shared/shmem.h"
#include "nc/worker/cache_list.h"
#include "nc/worker/prewarm.h"

#include "ext.h"

PG_FUNCTION_INFO_V1(nc_get_lfc);
PG_FUNCTION_INFO_V1(nc_lfc_save_now);
PG_FUNCTION_INFO_V1(nc_lfc_prewarm_now);
PG_FUNCTION_INFO_V1(nc_lfc_prewarm_stop);
PG_FUNCTION_INFO_V1(nc_get_prewarm_progress);

#define LFC_COLUMNS 8
#define PREWARM_COLUMNS 8

static void
require_cache(void)
{
	if (nc_filecache == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this server has no local file cache"),
				 errhint("Set neon_comm.lfc_size and restart the server.")));
}

/* One row, also without a cache. */
Datum
nc_get_lfc(PG_FUNCTION_ARGS)
{
	Datum		values[LFC_COLUMNS] = {0};
	bool		nulls[LFC_COLUMNS];
	char		error[NC_FILECACHE_ERROR_BYTES];
	TupleDesc	desc;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	memset(nulls, true, sizeof(nulls));
	values[0] = CStringGetTextDatum(nc_filecache_state_name(nc_filecache == NULL ? NC_FILECACHE_OFF :
															atomic_load(&nc_filecache->state)));
	nulls[0] = false;
	if (nc_filecache != NULL)
	{
		values[1] = CStringGetTextDatum(nc_filecache_path());
		values[2] = Int64GetDatum((int64) nc_lfc_nsets(nc_filecache_index) * NC_LFC_WAYS * BLCKSZ);
		values[3] = Int64GetDatum(nc_filecache_limit_bytes());
		values[4] = Int64GetDatum(nc_lfc_used(nc_filecache_index));
		values[5] = Int32GetDatum(nc_lfc_outbox_used(nc_filecache_index));
		values[6] = Int64GetDatum(nc_filecache_shmem_bytes());
		/* written by another process while we read it */
		memcpy(error, nc_filecache->last_error, sizeof(error));
		error[sizeof(error) - 1] = '\0';
		values[7] = CStringGetTextDatum(error);
		memset(nulls, false, sizeof(nulls));
		nulls[7] = error[0] == '\0';
	}
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls));
}

Datum
nc_lfc_save_now(PG_FUNCTION_ARGS)
{
	char		err[NC_FILECACHE_ERROR_BYTES];
	int64		n;

	require_cache();
	n = nc_filecache_save(false, err, sizeof(err));
	if (n < 0)
		ereport(ERROR,
				(errcode(ERRCODE_IO_ERROR),
				 errmsg("the list of cached pages was not saved: %s", err)));
	nc_cache_list_send();
	PG_RETURN_INT64(n);
}

Datum
nc_lfc_prewarm_now(PG_FUNCTION_ARGS)
{
	char		err[NC_FILECACHE_ERROR_BYTES + MAXPGPATH];

	require_cache();
	if (!nc_prewarm_start(PG_GETARG_INT32(0), err, sizeof(err)))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("prewarm was not started: %s", err)));
	PG_RETURN_VOID();
}

Datum
nc_lfc_prewarm_stop(PG_FUNCTION_ARGS)
{
	require_cache();
	PG_RETURN_BOOL(nc_prewarm_stop());
}

/* One row, also without a cache. */
Datum
nc_get_prewarm_progress(PG_FUNCTION_ARGS)
{
	static NcPrewarm none;
	NcPrewarm  *p = nc_filecache != NULL ? &nc_filecache->prewarm : &none;
	Datum		values[PREWARM_COLUMNS];
	bool		nulls[PREWARM_COLUMNS] = {0};
	uint64		started = atomic_load(&p->started_us);
	uint64		ended = atomic_load(&p->ended_us);
	TupleDesc	desc;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	values[0] = CStringGetTextDatum(nc_prewarm_state_name(atomic_load(&p->state)));
	values[1] = Int32GetDatum(atomic_load(&p->workers));
	values[2] = Int64GetDatum(atomic_load(&p->total));
	values[3] = Int64GetDatum(atomic_load(&p->loaded));
	values[4] = Int64GetDatum(atomic_load(&p->skipped));
	values[5] = Int64GetDatum(atomic_load(&p->failed));
	values[6] = nc_interval_of_us((ended != 0 ? ended : nc_clock_us()) - started);
	nulls[6] = started == 0;
	values[7] = nc_interval_of_us(atomic_load(&p->paused_us));
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls));
}
