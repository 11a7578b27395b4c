/*
 * exposition.c
 *	  See nc/obs/exposition.h.
 *
 * Runs in the exporters.  Nothing allocates; what does not fit makes the writer fail,
 * which whoever sends it looks at.
 */
#include "nc/obs/exposition.h"

#include <inttypes.h>
#include <stdio.h>

/* Upper ends of a histogram's buckets: 16 microseconds to 67 seconds. */
#define FIRST_POWER 4
#define LAST_POWER 26

#define US_PER_SECOND UINT64_C(1000000)

#define NUMBER_BYTES 32

static void
put(NcWriter *w, const char *text)
{
	nc_write_bytes(w, text, strlen(text));
}

/* Backslash, newline and, in labels, the quote are escaped. */
static void
put_escaped(NcWriter *w, const char *text, bool label)
{
	for (; *text != '\0'; text++)
	{
		unsigned char c = (unsigned char) *text;

		if (c == '\\')
			put(w, "\\\\");
		else if (c == '\n')
			put(w, "\\n");
		else if (c == '"' && label)
			put(w, "\\\"");
		else
			nc_write_u8(w, c < ' ' || c >= 0x7f ? '?' : c);
	}
}

static void
format_seconds(char text[NUMBER_BYTES], uint64_t us)
{
	snprintf(text, NUMBER_BYTES, "%" PRIu64 ".%06" PRIu64, us / US_PER_SECOND, us % US_PER_SECOND);
}

/* ---- families ---- */

static const char *
type_name(NcMetricType type, bool openmetrics)
{
	switch (type)
	{
		case NC_METRIC_COUNTER:
			return "counter";
		case NC_METRIC_GAUGE:
			return "gauge";
		case NC_METRIC_HISTOGRAM:
			return "histogram";
		case NC_METRIC_INFO:
			return openmetrics ? "info" : "gauge";
	}
	return "unknown";
}

/* What the samples of a type have at the end of their name. */
static const char *
end_of_name(NcMetricType type)
{
	return type == NC_METRIC_COUNTER ? "_total" : type == NC_METRIC_INFO ? "_info" : "";
}

/* In OpenMetrics a family has its bare name, in the older format that of its samples. */
static void
put_about(NcExposition *e, const char *what, const char *text)
{
	put(e->w, what);
	put(e->w, e->family->name);
	if (!e->openmetrics)
		put(e->w, end_of_name(e->family->type));
	put(e->w, " ");
	put_escaped(e->w, text, e->openmetrics);
	put(e->w, "\n");
}

void
nc_exposition_family(NcExposition *e, const NcFamily *family)
{
	e->family = family;
	put_about(e, "# HELP ", family->help);
	put_about(e, "# TYPE ", type_name(family->type, e->openmetrics));
	if (e->openmetrics && family->unit[0] != '\0')
		put_about(e, "# UNIT ", family->unit);
}

/* ---- samples ---- */

static void
put_label(NcWriter *w, const char *name, const char *value, bool *first)
{
	put(w, *first ? "{" : ",");
	put(w, name);
	put(w, "=\"");
	put_escaped(w, value, true);
	put(w, "\"");
	*first = false;
}

/* le: one more label, or NULL. */
static void
put_sample(NcExposition *e, const char *end, const NcLabel *labels, const char *le, const char *value)
{
	bool		first = true;

	put(e->w, e->family->name);
	put(e->w, end);
	for (; labels != NULL && labels->name != NULL; labels++)
		put_label(e->w, labels->name, labels->value, &first);
	if (le != NULL)
		put_label(e->w, "le", le, &first);
	put(e->w, first ? " " : "} ");
	put(e->w, value);
	put(e->w, "\n");
}

void
nc_sample(NcExposition *e, const NcLabel *labels, uint64_t value)
{
	char		text[NUMBER_BYTES];

	snprintf(text, sizeof(text), "%" PRIu64, value);
	put_sample(e, end_of_name(e->family->type), labels, NULL, text);
}

void
nc_sample_us(NcExposition *e, const NcLabel *labels, uint64_t us)
{
	char		text[NUMBER_BYTES];

	format_seconds(text, us);
	put_sample(e, end_of_name(e->family->type), labels, NULL, text);
}

/* ---- histograms ---- */

void
nc_histogram_add(NcHistogramCounts *to, NcHistogram *from)
{
	to->sum_us += atomic_load_explicit(&from->sum_us, memory_order_relaxed);
	for (int i = 0; i < NC_LATENCY_BUCKETS; i++)
	{
		uint64_t	n = atomic_load_explicit(&from->bucket[i], memory_order_relaxed);

		to->bucket[i] += n;
		to->total += n;
	}
}

/* Whole microseconds are rounded down: what is below an end by them is not above it. */
void
nc_sample_histogram(NcExposition *e, const NcLabel *labels, const NcHistogramCounts *counts)
{
	uint64_t	below = 0;
	uint32_t	next = 0;
	char		le[NUMBER_BYTES];
	char		value[NUMBER_BYTES];

	for (int power = FIRST_POWER; power <= LAST_POWER; power++)
	{
		while (next < nc_latency_bucket(UINT64_C(1) << power))
			below += counts->bucket[next++];
		format_seconds(le, UINT64_C(1) << power);
		snprintf(value, sizeof(value), "%" PRIu64, below);
		put_sample(e, "_bucket", labels, le, value);
	}
	snprintf(value, sizeof(value), "%" PRIu64, counts->total);
	put_sample(e, "_bucket", labels, "+Inf", value);
	put_sample(e, "_count", labels, NULL, value);
	format_seconds(value, counts->sum_us);
	put_sample(e, "_sum", labels, NULL, value);
}

void
nc_exposition_end(NcExposition *e)
{
	if (e->openmetrics)
		put(e->w, "# EOF\n");
}
