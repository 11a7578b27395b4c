/*
 * runs.c
 *	  What is remembered of the runs of a relation: how many of the last ones came how far,
 *	  and how much of what was asked for ahead of them was read.
 *
 * Of one process, without a lock.  It is told of runs that are over, by whom else's
 * blocks are read; so it learns also where nothing is asked for ahead.
 */
#include <stddef.h>
#include <string.h>

#include "nc/ahead/runs.h"

/* With fewer runs that came so far nothing is known about how they go on. */
#define RUNS_KNOWN 4

/* The first ones began when nothing was known, and what was asked for says nothing. */
#define RUNS_JUDGED 24

/* After so many runs all count half. */
#define RUNS_COUNTED 64

/* So many runs end before one block is tried again in a relation where all was in vain. */
#define RUNS_UNASKED 64

NcAheadRuns *
nc_ahead_runs_find(NcAheadRuns *all, const NcRelKey *rel)
{
	for (int i = 0; i < NC_AHEAD_RELS; i++)
		if (all[i].rel.rel == rel->rel && nc_rel_key_equal(&all[i].rel, rel))
			return &all[i];
	return NULL;
}

static NcAheadRuns *
find_or_begin(NcAheadRuns *all, const NcRelKey *rel)
{
	NcAheadRuns *r = nc_ahead_runs_find(all, rel);

	if (r != NULL)
		return r;
	r = &all[0];
	for (int i = 1; i < NC_AHEAD_RELS; i++)
		if (all[i].used < r->used)
			r = &all[i];
	*r = (NcAheadRuns) {.rel = *rel, .most = NC_AHEAD_RUN_LONG};
	return r;
}

/*
 * Half of what was asked for in vain halves what is asked for, down to nothing; nothing in vain
 * doubles it.  After nothing one is tried, now and then.
 */
static void
judge(NcAheadRuns *r, uint32_t asked, uint32_t unread)
{
	if (r->most == 0)
	{
		r->unasked++;
		r->most = r->unasked % RUNS_UNASKED == 0 ? 1 : 0;
	}
	else if (asked > 0 && unread >= asked - unread)
		r->most /= 2;
	else if (asked > 0 && unread == 0 && r->most < NC_AHEAD_RUN_LONG)
		r->most *= 2;
}

void
nc_ahead_runs_ended(NcAheadRuns *all, const NcRelKey *rel, uint64_t now, NcAheadRunKind kind,
					uint32_t length, uint32_t asked, uint32_t unread)
{
	NcAheadRuns *r = find_or_begin(all, rel);
	uint8_t    *reached = r->reached[kind];

	r->used = now;
	if (reached[1] >= RUNS_JUDGED)
		judge(r, asked, unread);
	if (reached[1] == RUNS_COUNTED)
		for (int n = 1; n <= NC_AHEAD_RUN_LONG; n++)
			reached[n] /= 2;
	for (uint32_t n = 1; n <= length && n <= NC_AHEAD_RUN_LONG; n++)
		reached[n]++;
}

uint32_t
nc_ahead_runs_expect(const NcAheadRuns *r, NcAheadRunKind kind, uint32_t length)
{
	const uint8_t *reached = r->reached[kind];
	uint32_t	n = length;

	if (length >= NC_AHEAD_RUN_LONG || reached[length] < RUNS_KNOWN)
		return NC_AHEAD_RUN_LONG;
	while (n < NC_AHEAD_RUN_LONG && reached[n + 1] * 2 >= reached[length])
		n++;
	return n;
}
