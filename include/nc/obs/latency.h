/*
 * nc/obs/latency.h
 *	  How long requests spend in each stage of their way, as histograms in shared
 *	  memory, readable when every worker is stuck.
 *
 * Buckets are powers of two of microseconds, four to each power, so that a
 * percentile is right to a fifth.  Each word is atomic; any process adds, relaxed.
 */
#ifndef NC_OBS_LATENCY_H
#define NC_OBS_LATENCY_H

#include <stdatomic.h>
#include <stdint.h>

typedef enum NcStage
{
	NC_STAGE_QUEUE = 0,			/* submitted .. taken by the communicator */
	NC_STAGE_SEND,				/* taken .. handed to a connection */
	NC_STAGE_SERVER,			/* sent .. the turn in which its answer was received */
	NC_STAGE_RECEIVE,			/* the beginning of that turn .. its answer was reached */
	NC_STAGE_COPY,				/* its answer was reached .. the slot is DONE */
	NC_STAGE_WAKE,				/* DONE .. the process that waited runs again */
	NC_STAGES
} NcStage;

/* Who waits for it. */
typedef enum NcLatencyClass
{
	NC_LATENCY_DEMAND = 0,
	NC_LATENCY_AHEAD,
	NC_LATENCY_CLASSES
} NcLatencyClass;

/* 0..3 µs one each, then four to a power of two; the last is open: from 12 days on. */
#define NC_LATENCY_BUCKETS 156

typedef struct NcHistogram
{
	_Atomic uint64_t sum_us;
	_Atomic uint64_t bucket[NC_LATENCY_BUCKETS];
} NcHistogram;

typedef struct NcLatency
{
	NcHistogram of[NC_STAGES][NC_LATENCY_CLASSES];
} NcLatency;

/* The bucket of a duration. */
static inline uint32_t
nc_latency_bucket(uint64_t us)
{
	uint32_t	power;
	uint32_t	bucket;

	if (us < 4)
		return (uint32_t) us;
	power = 63 - (uint32_t) __builtin_clzll(us);
	bucket = (power - 1) * 4 + (uint32_t) (us >> (power - 2) & 3);
	return bucket < NC_LATENCY_BUCKETS ? bucket : NC_LATENCY_BUCKETS - 1;
}

/* The smallest duration of a bucket, and of the one behind it. */
static inline uint64_t
nc_latency_from_us(uint32_t bucket)
{
	if (bucket < 4)
		return bucket;
	return (uint64_t) (4 + bucket % 4) << (bucket / 4 - 1);
}

static inline void
nc_histogram_note(NcHistogram *h, uint64_t us)
{
	atomic_fetch_add_explicit(&h->bucket[nc_latency_bucket(us)], 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&h->sum_us, us, memory_order_relaxed);
}

static inline void
nc_latency_note(NcLatency *l, NcStage stage, NcLatencyClass class, uint64_t from_us,
				uint64_t until_us)
{
	/* clocks that were read in another order than they are named here */
	nc_histogram_note(&l->of[stage][class], until_us > from_us ? until_us - from_us : 0);
}

#endif							/* NC_OBS_LATENCY_H */
