/*
 * streams.c
 *	  Streams of reads: a relation and a constant step between the blocks read from
 *	  it last.
 *
 * A window of blocks ahead of a stream is asked for; it doubles while its pages are
 * read and halves when pages were asked for in vain.  Where the runs of a relation have
 * ended early, only as much is asked for as they are likely to have (runs.c).  A read of n
 * blocks is n steps of a sequence: it is told once, when none of them has been read.
 */
#include <stddef.h>

#include "nc/ahead/streams.h"

/* The first window of a stream. */
#define WINDOW_FIRST 4

/* Reads of one step before a stream asks: a plain sequence, anything else. */
#define RUN_SEQUENCE 1
#define RUN_STRIDE 2

/* Below it a stream may be chance. */
#define RUN_ESTABLISHED 2

/* Blocks of a sequence that may be missing, because they were in shared buffers. */
#define GAP_MAX 16

/* The largest step of a strided read. */
#define STRIDE_MAX 4096

/* Reads of a stream for which nothing is asked when the smallest window was in vain. */
#define QUIET_READS 16

/* A stream that was not read for so many reads is nobody's any more. */
#define STREAM_OLD 256

/* A parallel scan deals a table out in chunks like these, as the server's tableam.c does. */
#define PARALLEL_CHUNKS 2048
#define PARALLEL_CHUNK_MAX 8192

static int64_t
larger(int64_t a, int64_t b)
{
	return a > b ? a : b;
}

static int64_t
smaller(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

/* ---- finding ---- */

static uint32_t
last_of(const NcAheadRead *read)
{
	return read->block + read->nblocks - 1;
}

/* Does this read continue the stream? One of several blocks goes forwards, block by block. */
static bool
continues(const NcAheadStream *s, const NcAheadRead *read)
{
	int64_t		delta = (int64_t) read->block - s->last;

	if (s->run < read->sure)
		return (s->step == 0 || s->step == 1) && delta == 1;
	if (read->nblocks > 1)
		return (s->step == 0 || s->step == 1) && delta >= 1 && delta <= GAP_MAX;
	if (s->step == 0)
		return delta != 0 && delta >= -STRIDE_MAX && delta <= STRIDE_MAX;
	if (s->step == 1)
		return delta >= 1 && delta <= GAP_MAX;
	if (s->step == -1)
		return delta <= -1 && delta >= -GAP_MAX;
	return delta == s->step;
}

static bool
is_of(const NcAheadStream *s, const NcRelKey *rel)
{
	return s->rel.rel == rel->rel && nc_rel_key_equal(&s->rel, rel);
}

/* The stream that a block belongs to: one that is established before one that began. */
static NcAheadStream *
find_stream(NcAhead *a, const NcAheadRead *read)
{
	NcAheadStream *best = NULL;

	for (int i = 0; i < NC_AHEAD_STREAMS; i++)
	{
		NcAheadStream *s = &a->streams[i];

		if (is_of(s, &read->rel) && continues(s, read) && (best == NULL || s->run > best->run))
			best = s;
	}
	return best;
}

/* A parallel scan goes on with another chunk: the stream of the relation that reads chunks. */
static NcAheadStream *
find_parallel(NcAhead *a, const NcAheadRead *read)
{
	for (int i = 0; i < NC_AHEAD_STREAMS; i++)
	{
		NcAheadStream *s = &a->streams[i];

		if (is_of(s, &read->rel) && s->limit > 0 && s->run >= larger(RUN_SEQUENCE, read->sure) &&
			read->block > s->last)
			return s;
	}
	return NULL;
}

/* Begun and not established, or nobody's. */
static bool
is_weak(const NcAhead *a, const NcAheadStream *s)
{
	return s->run < RUN_ESTABLISHED || a->reads - s->used > STREAM_OLD;
}

/* The place for a new stream: unused, else nobody's, else begun and not established, oldest first. */
static NcAheadStream *
vacant_stream(NcAhead *a)
{
	NcAheadStream *worst = &a->streams[0];

	for (int i = 0; i < NC_AHEAD_STREAMS; i++)
	{
		NcAheadStream *s = &a->streams[i];
		bool		weak = is_weak(a, s);

		if (s->rel.rel == 0)
			return s;
		if (weak != is_weak(a, worst) ? weak : s->used < worst->used)
			worst = s;
	}
	return worst;
}

static int
number_of(const NcAhead *a, const NcAheadStream *s)
{
	return (int) (s - a->streams);
}

/* ---- moving ---- */

/* Blocks of one chunk of a parallel sequential scan of this table. */
static int64_t
parallel_chunk(uint32_t length)
{
	uint32_t	least = length / PARALLEL_CHUNKS;
	int64_t		chunk = 1;

	while (chunk < least && chunk < PARALLEL_CHUNK_MAX)
		chunk *= 2;
	return chunk;
}

/* A reader of a parallel scan does not ask beyond the chunk that it was given, which begins there. */
static void
limit_to_chunk(NcAheadStream *s, int64_t chunk_first, uint32_t length)
{
	int64_t		chunk = parallel_chunk(length);

	if (s->limit == 0)
		s->limit = chunk_first + chunk;
	while (s->limit <= s->last)
		s->limit += chunk;
}

static void
begin_window(NcAhead *a, NcAheadStream *s)
{
	const NcAheadRuns *runs = nc_ahead_runs_find(a->runs, &s->rel);

	s->window = runs == NULL ? WINDOW_FIRST : (uint32_t) larger(smaller(WINDOW_FIRST, runs->most), 1);
	if (runs != NULL && runs->most == 0)
		s->quiet = QUIET_READS;
	s->ahead = (int64_t) s->last + s->step;
	s->mark = s->last;
}

static NcAheadRunKind
kind_of(const NcAheadStream *s)
{
	return s->step == 1 || s->step == -1 ? NC_AHEAD_NEIGHBOURS : NC_AHEAD_STEPS;
}

/* In the stream's direction. */
static bool
is_before(const NcAheadStream *s, int64_t block, int64_t other)
{
	return s->step > 0 ? block < other : block > other;
}

/* Of blocks that were read: one with many gaps is short. */
static uint32_t
length_of(const NcAheadStream *s)
{
	return s->run + 1;
}

/*
 * Another one takes its place.  What is left of its pages is dropped: they would fill the
 * memory of this process, and those of the other one would find no room.
 */
static void
end_stream(NcAhead *a, const NcAheadStream *s)
{
	int			number = number_of(a, s);

	if (s->window == 0)
		return;
	a->host->forget(number);
	/* a parallel chunk's end is nothing of the relation's */
	if (s->limit == 0)
		nc_ahead_runs_ended(a->runs, &s->rel, a->reads, kind_of(s), length_of(s), s->asked,
							s->wasted + (a->host->unread[number] - s->unread));
}

/* A read of several blocks is a sequence from the start. */
static NcAheadStream *
begin_stream(NcAhead *a, const NcAheadRead *read)
{
	NcAheadStream *s = vacant_stream(a);

	end_stream(a, s);
	*s = (NcAheadStream) {
		.rel = read->rel, .last = last_of(read), .used = a->reads,
		.unread = a->host->unread[number_of(a, s)]
	};
	if (read->nblocks == 1)
		return s;
	s->step = 1;
	s->run = read->nblocks - 1;
	if (s->run >= read->sure)
		begin_window(a, s);
	if (read->parallel)
		limit_to_chunk(s, read->block, read->length);
	return s;
}

/* Notes that the stream has come to these blocks. */
static void
advance(NcAhead *a, NcAheadStream *s, const NcAheadRead *read)
{
	int64_t		delta = (int64_t) read->block - s->last;

	s->used = a->reads;
	s->last = last_of(read);
	if (s->step == 0)
		s->step = read->nblocks > 1 ? 1 : (int32_t) delta;
	s->run += read->nblocks;
	if (s->window == 0 && s->run >= larger(s->step == 1 || s->step == -1 ? RUN_SEQUENCE : RUN_STRIDE, read->sure))
		begin_window(a, s);
	if (read->parallel && s->step == 1)
		limit_to_chunk(s, (int64_t) read->block - 1, read->length);
	else
		s->limit = 0;
}

/* A parallel worker was given another chunk. */
static void
next_scan_chunk(NcAhead *a, NcAheadStream *s, const NcAheadRead *read)
{
	s->used = a->reads;
	s->last = last_of(read);
	s->run += read->nblocks;
	s->limit = 0;
	limit_to_chunk(s, read->block, read->length);
	s->ahead = (int64_t) s->last + 1;
	s->mark = s->last;
}

/* ---- asking ---- */

/* Two windows are asked for at most: one that is being read and one behind it. */
static uint32_t
window_max(const NcAheadRead *read)
{
	return (uint32_t) larger(read->most / 2, 1);
}

/*
 * Halves the window when pages were asked for in vain; after one that cannot be halved nothing is
 * asked for, for a while.  Tells how many pages it were.
 */
static uint32_t
shrink(NcAhead *a, NcAheadStream *s)
{
	uint32_t	unread = a->host->unread[number_of(a, s)];
	uint32_t	wasted = unread - s->unread;

	s->unread = unread;
	s->wasted += wasted;
	if (wasted < larger(s->window / 2, 1))
		return wasted;
	if (s->window == 1)
		s->quiet = QUIET_READS;
	s->window = (uint32_t) larger(s->window / 2, 1);
	a->host->shrunk();
	return wasted;
}

/* Asks for neighbouring blocks up to `until`, in the stream's direction. */
static void
ask_sequence(NcAhead *a, NcAheadStream *s, int64_t until, uint32_t length)
{
	int64_t		first = s->step > 0 ? s->ahead : until + 1;
	int64_t		end = s->step > 0 ? until : s->ahead + 1;

	first = larger(first, 0);
	end = smaller(end, length);
	while (first < end)
	{
		int			n = (int) smaller(end - first, a->host->ask_max);

		if (!a->host->ask(&s->rel, (uint32_t) first, n, number_of(a, s)))
			break;
		s->asked += n;
		first += n;
	}
	s->ahead = s->step > 0 ? first : until;
}

static void
ask_strided(NcAhead *a, NcAheadStream *s, int64_t until, uint32_t length)
{
	while (s->step > 0 ? s->ahead < until : s->ahead > until)
	{
		if (s->ahead < 0 || s->ahead >= length ||
			!a->host->ask(&s->rel, (uint32_t) s->ahead, 1, number_of(a, s)))
			return;
		s->asked++;
		s->ahead += s->step;
	}
}

/*
 * The read went past all that was asked for, or nothing was.  What was passed over will not be
 * read.  A window is not smaller than the reads, unless it has become so.
 */
static void
catch_up(NcAhead *a, NcAheadStream *s, const NcAheadRead *read)
{
	if (!is_before(s, read->block, s->ahead))
		a->host->forget(number_of(a, s));
	s->ahead = (int64_t) s->last + s->step;
	s->mark = s->last;
	if (a->host->unread[number_of(a, s)] == s->unread)
		s->window = (uint32_t) smaller(larger(s->window, read->nblocks), window_max(read));
}

/* Where the run is likely to end, the first block behind it; false: nothing is known of its end. */
static bool
expect_end(const NcAheadStream *s, const NcAheadRuns *runs, int64_t *end)
{
	uint32_t	length = runs == NULL || s->limit > 0 ? NC_AHEAD_RUN_LONG :
		nc_ahead_runs_expect(runs, kind_of(s), length_of(s));

	*end = s->last + ((int64_t) length - length_of(s) + 1) * s->step;
	return length < NC_AHEAD_RUN_LONG;
}

static void
ask_until(NcAhead *a, NcAheadStream *s, int64_t until, uint32_t length)
{
	if (!is_before(s, s->ahead, until))
		return;
	if (kind_of(s) == NC_AHEAD_NEIGHBOURS)
		ask_sequence(a, s, until, length);
	else
		ask_strided(a, s, until, length);
}

/*
 * Asks for the next window when the first block of the last one is being read, so
 * that one is on its way while the one before it is read; or for what is left of a run.
 * The window grows while its pages are read.
 */
static void
look_ahead(NcAhead *a, NcAheadStream *s, const NcAheadRead *read)
{
	const NcAheadRuns *runs;
	uint32_t	most = window_max(read);
	int64_t		until;
	int64_t		end;
	bool		wasted;

	if (!is_before(s, s->last, s->ahead))
		catch_up(a, s, read);
	if (is_before(s, s->last, s->mark))
		return;
	wasted = shrink(a, s) > 0;
	if (s->quiet > 0)
	{
		s->quiet--;
		return;
	}
	s->mark = s->ahead;
	runs = nc_ahead_runs_find(a->runs, &s->rel);
	if (expect_end(s, runs, &end))
	{
		until = s->ahead + smaller(runs->most, most) * s->step;
		ask_until(a, s, is_before(s, end, until) ? end : until, read->length);
		return;
	}
	until = s->ahead + (int64_t) s->window * s->step;
	if (s->limit > 0)
		until = smaller(until, s->limit);
	ask_until(a, s, until, read->length);
	if (!wasted)
		s->window = (uint32_t) smaller((int64_t) s->window * 2, most);
}

void
nc_ahead_read(NcAhead *a, const NcAheadRead *read)
{
	NcAheadStream *s;

	a->reads++;
	s = find_stream(a, read);
	if (s != NULL)
		advance(a, s, read);
	else if (read->parallel && (s = find_parallel(a, read)) != NULL)
		next_scan_chunk(a, s, read);
	else
		s = begin_stream(a, read);
	s->window = (uint32_t) smaller(s->window, window_max(read));
	if (s->window > 0)
		look_ahead(a, s, read);
}
