/*
 * sql_statistics.c
 *	  The SQL functions of neon_comm that show what is counted, and the one that lets
 *	  counting begin anew.  They read shared memory only, without a lock.
 */
#include "postgres.h"

#include "funcapi.h"
#include "miscadmin.h"
#include "storage/proc.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "nc/compat/pg.h"
#include "nc/obs/exposition.h"
#include "nc/obs/names.h"
#include "nc/shared/shmem.h"
#include "nc/shared/tally.h"

#include "ext.h"

PG_FUNCTION_INFO_V1(nc_get_counters);
PG_FUNCTION_INFO_V1(nc_get_latency);
PG_FUNCTION_INFO_V1(nc_get_latency_buckets);
PG_FUNCTION_INFO_V1(nc_get_backends);
PG_FUNCTION_INFO_V1(nc_reset);

/* ---- since the last reset ---- */

static Datum
reset_at(void)
{
	return TimestampTzGetDatum((TimestampTz) atomic_load(&nc_shared->baseline.at));
}

/* The baseline first, see NcBaseline. */
static uint64
word_since(const _Atomic uint64_t *base, const _Atomic uint64_t *now)
{
	uint64		from = atomic_load_explicit(base, memory_order_acquire);

	return atomic_load_explicit(now, memory_order_relaxed) - from;
}

static void
histogram_since(int stage, int class, NcHistogramCounts *counts)
{
	const NcHistogram *base = &nc_shared->baseline.latency.of[stage][class];
	const NcHistogram *now = &nc_shared->latency.of[stage][class];

	memset(counts, 0, sizeof(*counts));
	counts->sum_us = word_since(&base->sum_us, &now->sum_us);
	for (int i = 0; i < NC_LATENCY_BUCKETS; i++)
	{
		counts->bucket[i] = word_since(&base->bucket[i], &now->bucket[i]);
		counts->total += counts->bucket[i];
	}
}

static void
reset_words(_Atomic uint64_t *base, const _Atomic uint64_t *now, Size bytes)
{
	for (Size i = 0; i < bytes / sizeof(uint64); i++)
		atomic_store_explicit(&base[i], atomic_load_explicit(&now[i], memory_order_relaxed),
							  memory_order_release);
}

StaticAssertDecl(sizeof(_Atomic uint64_t) == sizeof(uint64) &&
				 sizeof(NcHistogram) == (1 + NC_LATENCY_BUCKETS) * sizeof(uint64),
				 "counters and histograms are nothing but words");

/*
 * Of two that do it at once either may be the last for a word; what was counted between them
 * is then in some figures and not in others, as it may be in any view.
 */
Datum
nc_reset(PG_FUNCTION_ARGS)
{
	NcBaseline *base;

	nc_sql_require_preloaded();
	base = &nc_shared->baseline;
	reset_words(base->counters.value, nc_shared->counters.value, sizeof(NcCounters));
	reset_words((_Atomic uint64_t *) &base->latency, (_Atomic uint64_t *) &nc_shared->latency,
				sizeof(NcLatency));
	atomic_store(&base->at, GetCurrentTimestamp());
	PG_RETURN_VOID();
}

/* ---- counters ---- */

Datum
nc_get_counters(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = nc_sql_begin_rows(fcinfo);

	for (int i = 0; i < NC_COUNTERS; i++)
	{
		Datum		values[NC_SQL_COLUMNS_MAX];
		bool		nulls[NC_SQL_COLUMNS_MAX] = {0};

		values[0] = CStringGetTextDatum(nc_counter_names[i].name);
		values[1] = Int64GetDatum(word_since(&nc_shared->baseline.counters.value[i],
											 &nc_shared->counters.value[i]));
		values[2] = CStringGetTextDatum(nc_counter_names[i].meaning);
		values[3] = reset_at();
		nc_sql_put_row(rsinfo, values, nulls);
	}
	return (Datum) 0;
}

/* ---- processes ---- */

/* In the order of nc/obs/tally.def, behind the pid and the sum of the pages. */
Datum
nc_get_backends(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = nc_sql_begin_rows(fcinfo);

	for (uint32 p = 0; p < NC_PROC_COUNT(); p++)
	{
		NcTallyCounts counts;
		int			pid = nc_tally_of(p, &counts);
		Datum		values[NC_SQL_COLUMNS_MAX];
		bool		nulls[NC_SQL_COLUMNS_MAX] = {0};

		if (pid == 0)
			continue;
		values[0] = Int32GetDatum(pid);
		values[1] = Int64GetDatum(nc_tally_pages(&counts));
		for (int i = 0; i < NC_TALLIES; i++)
			values[2 + i] = Int64GetDatum(counts.value[i]);
		nc_sql_put_row(rsinfo, values, nulls);
	}
	return (Datum) 0;
}

/* ---- latency ---- */

/* The largest duration of a bucket. */
static int64
until_us(int bucket)
{
	return nc_latency_from_us(bucket + 1) - 1;
}

/* The smallest duration that `part` of the durations do not exceed, by buckets. */
static int64
percentile(const NcHistogramCounts *counts, double part)
{
	double		want = counts->total * part;
	uint64		seen = 0;

	for (int i = 0; i < NC_LATENCY_BUCKETS; i++)
	{
		seen += counts->bucket[i];
		if (seen > 0 && seen >= want)
			return until_us(i);
	}
	return 0;
}

Datum
nc_get_latency(PG_FUNCTION_ARGS)
{
	static const double parts[] = {0.5, 0.9, 0.99, 0.999, 1.0};
	ReturnSetInfo *rsinfo = nc_sql_begin_rows(fcinfo);

	for (int k = 0; k < NC_STAGES * NC_LATENCY_CLASSES; k++)
	{
		NcHistogramCounts counts;
		Datum		values[NC_SQL_COLUMNS_MAX];
		bool		nulls[NC_SQL_COLUMNS_MAX] = {0};

		histogram_since(k / NC_LATENCY_CLASSES, k % NC_LATENCY_CLASSES, &counts);
		values[0] = CStringGetTextDatum(nc_stage_name(k / NC_LATENCY_CLASSES));
		values[1] = CStringGetTextDatum(nc_latency_class_name(k % NC_LATENCY_CLASSES));
		values[2] = Int64GetDatum(counts.total);
		values[3] = Float8GetDatum(counts.total == 0 ? 0 : (double) counts.sum_us / counts.total);
		nulls[3] = counts.total == 0;
		for (int i = 0; i < lengthof(parts); i++)
		{
			values[4 + i] = Int64GetDatum(percentile(&counts, parts[i]));
			nulls[4 + i] = counts.total == 0;
		}
		values[9] = Int64GetDatum(counts.sum_us);
		values[10] = reset_at();
		nc_sql_put_row(rsinfo, values, nulls);
	}
	return (Datum) 0;
}

static void
put_buckets(ReturnSetInfo *rsinfo, int stage, int class)
{
	NcHistogramCounts counts;
	uint64		seen = 0;

	histogram_since(stage, class, &counts);
	for (int i = 0; i < NC_LATENCY_BUCKETS; i++)
	{
		Datum		values[NC_SQL_COLUMNS_MAX];
		bool		nulls[NC_SQL_COLUMNS_MAX] = {0};

		seen += counts.bucket[i];
		values[0] = CStringGetTextDatum(nc_stage_name(stage));
		values[1] = CStringGetTextDatum(nc_latency_class_name(class));
		values[2] = Int64GetDatum(until_us(i));
		nulls[2] = i == NC_LATENCY_BUCKETS - 1;
		values[3] = Int64GetDatum(seen);
		values[4] = reset_at();
		nc_sql_put_row(rsinfo, values, nulls);
	}
}

/* Always the same rows, so that two looks can be joined. */
Datum
nc_get_latency_buckets(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = nc_sql_begin_rows(fcinfo);

	for (int k = 0; k < NC_STAGES * NC_LATENCY_CLASSES; k++)
		put_buckets(rsinfo, k / NC_LATENCY_CLASSES, k % NC_LATENCY_CLASSES);
	return (Datum) 0;
}
