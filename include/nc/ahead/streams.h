/*
 * nc/ahead/streams.h
 *	  What a process reads next, from the order in which it has read: sequences and
 *	  constant steps, forwards and backwards.
 *
 * Of one process, without a lock.  Says only what to ask for and when; who asks, and
 * whether a block is worth it, is the host's.
 */
#ifndef NC_AHEAD_STREAMS_H
#define NC_AHEAD_STREAMS_H

#include <stdbool.h>
#include <stdint.h>

#include "nc/ahead/runs.h"
#include "nc/base/key.h"

#define NC_AHEAD_STREAMS 16

typedef struct NcAheadStream
{
	NcRelKey	rel;			/* rel.rel = 0: not used */
	uint32_t	last;			/* block read last */
	int32_t		step;			/* between blocks; 0 = one was read so far */
	uint32_t	run;			/* how often in a row that step was made */
	uint32_t	window;			/* how many blocks to ask for next time, 0 = none yet */
	int64_t		ahead;			/* the next block to ask for */
	int64_t		mark;			/* when it is read, more is asked for */
	int64_t		limit;			/* not this block nor one behind it: the end of a parallel chunk */
	uint32_t	unread;			/* what the host's unread[] was when it was looked at */
	uint32_t	wasted;			/* of its pages, as far as looked at */
	uint32_t	asked;			/* blocks asked for */
	uint32_t	quiet;			/* for so many reads nothing is asked for */
	uint64_t	used;			/* clock */
} NcAheadStream;

typedef struct NcAheadHost
{
	/* Asks for those of n neighbouring blocks that are worth it; false: no more can be asked for now. */
	bool		(*ask) (const NcRelKey *rel, uint32_t first, int n, int stream);
	void		(*forget) (int stream); /* what was asked for and not read will not be: drop it */
	void		(*shrunk) (void);	/* a window became smaller */
	const uint32_t *unread;		/* [NC_AHEAD_STREAMS]: pages that were dropped unread, only ever more */
	int			ask_max;		/* blocks of one call of ask() */
} NcAheadHost;

typedef struct NcAhead
{
	const NcAheadHost *host;
	NcAheadStream streams[NC_AHEAD_STREAMS];
	NcAheadRuns runs[NC_AHEAD_RELS];
	uint64_t	reads;			/* a clock */
} NcAhead;

/* One read of neighbouring blocks, of which at least the first was nowhere nearer. */
typedef struct NcAheadRead
{
	NcRelKey	rel;
	uint32_t	block;			/* the first */
	uint32_t	nblocks;
	uint32_t	length;			/* blocks of the fork */
	uint32_t	most;			/* blocks that may be asked for and not read, at least 1 */
	bool		parallel;		/* the reader may be one of those who share a scan */

	/*
	 * So many blocks have to follow each other without a gap before anything is asked for, and
	 * nothing but a sequence counts: where the reader looks ahead himself, and a guess that is
	 * wrong takes the place of what he has named.  0: as soon as it looks like a stream.
	 */
	uint32_t	sure;
} NcAheadRead;

/*
 * Finds out whether the read belongs to a stream, and asks for what comes next: never for
 * what is being read.
 */
extern void nc_ahead_read(NcAhead *ahead, const NcAheadRead *read);

#endif							/* NC_AHEAD_STREAMS_H */
