/*
 * histogram.h
 *	  Latencies of a load program: buckets that are never wider than 1/32 of
 *	  their value, and the line of JSON that reports them; and the CPU that the program used.
 */
#ifndef BENCH_HISTOGRAM_H
#define BENCH_HISTOGRAM_H

#include <stdint.h>
#include <stdio.h>
#include <sys/resource.h>
#include <time.h>

#define HISTOGRAM_SUB 32
#define HISTOGRAM_BUCKETS (40 * HISTOGRAM_SUB)

typedef struct Histogram
{
	uint64_t	count;
	uint64_t	sum_ns;
	uint64_t	max_ns;
	uint64_t	bucket[HISTOGRAM_BUCKETS];
} Histogram;

static inline uint64_t
clock_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t) ts.tv_sec * 1000000000u + (uint64_t) ts.tv_nsec;
}

static inline uint32_t
histogram_index(uint64_t ns)
{
	uint32_t	shift;

	if (ns < HISTOGRAM_SUB)
		return (uint32_t) ns;
	shift = 63 - (uint32_t) __builtin_clzll(ns) - 5;
	if (shift > 34)
		shift = 34;
	return (shift + 1) * HISTOGRAM_SUB + (uint32_t) (ns >> shift) % HISTOGRAM_SUB;
}

/* Where a bucket begins; `share` of its width further on. */
static inline double
histogram_ns(uint32_t index, double share)
{
	uint32_t	shift = index / HISTOGRAM_SUB;

	if (shift == 0)
		return index;
	return ((double) (HISTOGRAM_SUB + index % HISTOGRAM_SUB) + share) * (double) (UINT64_C(1) << (shift - 1));
}

static inline void
histogram_add(Histogram *h, uint64_t ns)
{
	h->count++;
	h->sum_ns += ns;
	if (ns > h->max_ns)
		h->max_ns = ns;
	h->bucket[histogram_index(ns)]++;
}

static inline void
histogram_merge(Histogram *to, const Histogram *from)
{
	to->count += from->count;
	to->sum_ns += from->sum_ns;
	if (from->max_ns > to->max_ns)
		to->max_ns = from->max_ns;
	for (uint32_t i = 0; i < HISTOGRAM_BUCKETS; i++)
		to->bucket[i] += from->bucket[i];
}

/* Within a bucket as if its values lay evenly there, or ratios of quantiles would come in steps of 1/32. */
static inline double
histogram_quantile_us(const Histogram *h, double q)
{
	uint64_t	left = (uint64_t) ((double) h->count * q);

	for (uint32_t i = 0; i < HISTOGRAM_BUCKETS; i++)
	{
		if (left < h->bucket[i])
			return histogram_ns(i, ((double) left + 0.5) / (double) h->bucket[i]) / 1000;
		left -= h->bucket[i];
	}
	return (double) h->max_ns / 1000;
}

/* Fields of a JSON object, without its braces. */
static inline void
histogram_print(FILE *f, const Histogram *h, double seconds)
{
	fprintf(f, "\"count\": %llu, \"per_second\": %.1f, \"mean_us\": %.2f, \"p50_us\": %.2f, "
			"\"p95_us\": %.2f, \"p99_us\": %.2f, \"p999_us\": %.2f, \"max_us\": %.1f",
			(unsigned long long) h->count, (double) h->count / seconds,
			h->count > 0 ? (double) h->sum_ns / (double) h->count / 1000 : 0.0,
			histogram_quantile_us(h, 0.5), histogram_quantile_us(h, 0.95),
			histogram_quantile_us(h, 0.99), histogram_quantile_us(h, 0.999),
			(double) h->max_ns / 1000);
}

/* Of this process, all threads. */
static inline double
cpu_seconds(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return (double) (u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
		(double) (u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

#endif							/* BENCH_HISTOGRAM_H */
