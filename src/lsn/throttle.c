/*
 * throttle.c
 *	  How long a process that writes WAL has to pause, by how far page servers lag.
 *
 * Pure arithmetic, for any process.
 */
#include "nc/lsn/throttle.h"

/* Bounds within which nothing overflows: 2^30 * 2^24 * 2^8 < 2^64. */
#define WRITTEN_MAX (UINT64_C(1) << 30)
#define DOUBLINGS_MAX 24
#define FRACTIONS 256

/* 2^(excess / step) in units of 1/FRACTIONS, linear between powers of two. */
static uint64_t
weight(uint64_t excess, uint64_t step)
{
	uint64_t	doublings = excess / step;
	uint64_t	fraction;

	if (doublings >= DOUBLINGS_MAX)
		return (UINT64_C(1) << DOUBLINGS_MAX) * FRACTIONS;

	/* the remainder is below step; a step too large to be multiplied loses its low bits */
	fraction = step > UINT64_MAX / FRACTIONS ? excess % step / (step / FRACTIONS)
		: excess % step * FRACTIONS / step;
	if (fraction > FRACTIONS)
		fraction = FRACTIONS;
	return (FRACTIONS + fraction) << doublings;
}

uint64_t
nc_throttle_pause_us(uint64_t written, uint64_t lag, uint64_t limit)
{
	uint64_t	step = limit / NC_THROTTLE_STEPS;

	if (limit == 0 || lag <= limit)
		return 0;
	if (step == 0)
		step = 1;
	if (written > WRITTEN_MAX)
		written = WRITTEN_MAX;
	return written * weight(lag - limit, step) / (FRACTIONS * NC_THROTTLE_BYTES_PER_US);
}
