/*
 * nc/ahead/runs.h
 *	  How long the runs of a relation were that this process has read: what is to be
 *	  expected of the next one.
 */
#ifndef NC_AHEAD_RUNS_H
#define NC_AHEAD_RUNS_H

#include <stdbool.h>
#include <stdint.h>

#include "nc/base/key.h"

/* Relations that are remembered. */
#define NC_AHEAD_RELS 8

/* A run that came so far is a long one, and nothing is told about its end. */
#define NC_AHEAD_RUN_LONG 32

typedef enum NcAheadRunKind
{
	NC_AHEAD_NEIGHBOURS,		/* each block follows the one before, or precedes it */
	NC_AHEAD_STEPS,				/* with a larger step */
	NC_AHEAD_RUN_KINDS
} NcAheadRunKind;

typedef struct NcAheadRuns
{
	NcRelKey	rel;			/* rel.rel = 0: not used */
	uint64_t	used;			/* clock */
	uint32_t	most;			/* blocks to ask for at a time, by what became of those asked for */
	uint32_t	unasked;		/* runs that ended while it was 0 */

	/* [n]: how many of the last runs had n blocks or more, n from 1 on; the older, the less they count */
	uint8_t		reached[NC_AHEAD_RUN_KINDS][NC_AHEAD_RUN_LONG + 1];
} NcAheadRuns;

/* What is remembered of a relation, or NULL. */
extern NcAheadRuns *nc_ahead_runs_find(NcAheadRuns *all, const NcRelKey *rel);

/*
 * A run has ended after `length` blocks; of the `asked` ones that were asked for ahead,
 * `unread` were never read.  The relation not used for longest gives way to a new one.
 */
extern void nc_ahead_runs_ended(NcAheadRuns *all, const NcRelKey *rel, uint64_t now, NcAheadRunKind kind,
								uint32_t length, uint32_t asked, uint32_t unread);

/*
 * How many blocks a run is likely to have that has come to `length` of them: as many as at least
 * half of those had that came so far.  NC_AHEAD_RUN_LONG: that, or nothing is known.
 */
extern uint32_t nc_ahead_runs_expect(const NcAheadRuns *runs, NcAheadRunKind kind, uint32_t length);

#endif							/* NC_AHEAD_RUNS_H */
