/*
 * yield.c
 *	  Readahead makes room for who waits: additive increase, multiplicative
 *	  decrease by what foreground requests take.
 */
#include "nc/net/yield.h"

/* Longer than this is slow: an eighth more than the least, and what a busy processor costs. */
#define SLOW_US(least_us) ((least_us) + (least_us) / 8 + 100)

/* What a good round trip adds to the limit. */
#define RAISE 4

static uint64_t
least(const NcYield *y)
{
	return y->least_us < y->least_before_us ? y->least_us : y->least_before_us;
}

static void
note_least(NcYield *y, uint64_t now_us, uint64_t took_us)
{
	if (y->last_us == 0)
	{
		y->least_us = y->least_before_us = UINT64_MAX;
		y->window_us = now_us;
		y->limit = NC_YIELD_MAX;
	}
	else if (now_us - y->window_us >= NC_YIELD_WINDOW_US)
	{
		y->least_before_us = y->least_us;
		y->least_us = UINT64_MAX;
		y->window_us = now_us;
	}
	if (took_us < y->least_us)
		y->least_us = took_us;
}

bool
nc_yield_note(NcYield *y, uint64_t now_us, uint64_t took_us)
{
	bool		slow;

	note_least(y, now_us, took_us);
	y->last_us = now_us;
	/* once for each round trip: what was changed has to arrive first */
	if (now_us - y->adjusted_us < took_us)
		return false;
	y->adjusted_us = now_us;
	slow = took_us > SLOW_US(least(y));
	if (slow && y->limit > NC_YIELD_MIN)
	{
		y->limit -= y->limit / 4;
		if (y->limit < NC_YIELD_MIN)
			y->limit = NC_YIELD_MIN;
		return true;
	}
	if (!slow && y->limit < NC_YIELD_MAX)
		y->limit += RAISE;
	return false;
}

uint32_t
nc_yield_limit(const NcYield *y, uint64_t now_us)
{
	if (y->last_us == 0 || now_us - y->last_us > NC_YIELD_FRESH_US)
		return UINT32_MAX;
	return y->limit;
}
