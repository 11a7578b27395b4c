/*
 * late.c
 *	  A running estimate of what answers take, and the budget of requests that
 *	  are sent twice.
 */
#include "nc/net/late.h"

/* Weights of what is new: mean, distance. Those of TCP's retransmission timer. */
#define MEAN_SHARE 8
#define AWAY_SHARE 4

void
nc_late_init(NcLate *l)
{
	*l = (NcLate) {.credit = NC_LATE_BURST * NC_LATE_PRICE};
}

void
nc_late_note(NcLate *l, uint64_t took_us)
{
	uint64_t	away_us;

	/* one that was stuck must not make all that follow patient */
	if (took_us > NC_LATE_MAX_US)
		took_us = NC_LATE_MAX_US;
	if (took_us == 0)
		took_us = 1;
	if (l->mean_us == 0)
	{
		l->mean_us = took_us;
		l->away_us = took_us / 2;
		return;
	}
	away_us = took_us > l->mean_us ? took_us - l->mean_us : l->mean_us - took_us;
	l->away_us = (l->away_us * (AWAY_SHARE - 1) + away_us) / AWAY_SHARE;
	/* rounded up: 0 would mean that nothing is known */
	l->mean_us = (l->mean_us * (MEAN_SHARE - 1) + took_us + MEAN_SHARE - 1) / MEAN_SHARE;
}

uint64_t
nc_late_after_us(const NcLate *l)
{
	uint64_t	us = NC_LATE_TIMES * (l->mean_us + l->away_us);

	if (l->mean_us == 0)
		return NC_LATE_UNKNOWN_US;
	return us < NC_LATE_MIN_US ? NC_LATE_MIN_US : us > NC_LATE_MAX_US ? NC_LATE_MAX_US : us;
}

/* Bounded, or a long good time would pay for a flood of copies in the first bad one. */
void
nc_late_earn(NcLate *l)
{
	if (l->credit < NC_LATE_BURST * NC_LATE_PRICE)
		l->credit++;
}

bool
nc_late_may_spend(const NcLate *l)
{
	return l->credit >= NC_LATE_PRICE;
}

void
nc_late_spend(NcLate *l)
{
	l->credit -= NC_LATE_PRICE;
}
