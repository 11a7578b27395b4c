/*
 * nc/obs/exposition.h
 *	  Figures as text: the format of Prometheus (0.0.4) and OpenMetrics (1.0).
 *
 * A family is announced once, then come its samples.  Names are of what is written
 * here; the ends that a type demands (_total, _info, _bucket) are added.  Text of
 * others is only in labels, where it is escaped; what is not ASCII becomes '?'.
 */
#ifndef NC_OBS_EXPOSITION_H
#define NC_OBS_EXPOSITION_H

#include "nc/base/bytes.h"
#include "nc/obs/latency.h"

typedef enum NcMetricType
{
	NC_METRIC_COUNTER,
	NC_METRIC_GAUGE,
	NC_METRIC_HISTOGRAM,
	NC_METRIC_INFO				/* always 1: its labels are what it says */
} NcMetricType;

typedef struct NcFamily
{
	const char *name;			/* ends in its unit, if it has one */
	NcMetricType type;
	const char *unit;			/* "" = none */
	const char *help;
} NcFamily;

typedef struct NcLabel
{
	const char *name;			/* NULL = the end */
	const char *value;
} NcLabel;

#define NC_LABELS(...) ((const NcLabel[]) {__VA_ARGS__, {NULL, NULL}})

typedef struct NcExposition
{
	NcWriter   *w;
	bool		openmetrics;
	const NcFamily *family;		/* whose samples come */
} NcExposition;

extern void nc_exposition_family(NcExposition *e, const NcFamily *family);

/* Samples of it; labels may be NULL. */
extern void nc_sample(NcExposition *e, const NcLabel *labels, uint64_t value);

/* Of a family in seconds. */
extern void nc_sample_us(NcExposition *e, const NcLabel *labels, uint64_t us);

/* What histograms say, read once and added up. */
typedef struct NcHistogramCounts
{
	uint64_t	sum_us;
	uint64_t	total;
	uint64_t	bucket[NC_LATENCY_BUCKETS];
} NcHistogramCounts;

extern void nc_histogram_add(NcHistogramCounts *to, NcHistogram *from);

/* By powers of two of a microsecond, from 16 on; in seconds. */
extern void nc_sample_histogram(NcExposition *e, const NcLabel *labels,
								const NcHistogramCounts *counts);

extern void nc_exposition_end(NcExposition *e);

#endif							/* NC_OBS_EXPOSITION_H */
