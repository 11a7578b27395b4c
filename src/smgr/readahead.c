/*
 * readahead.c
 *	  Asks for blocks before they are read: those that the executor names, and those
 *	  that follow from the order in which a process reads.
 *
 * A stock server leaves the second to the kernel's readahead, which a network does
 * not have.  Each process keeps a few streams: a relation and a constant step between
 * the blocks read from it last.  A window of blocks ahead of a stream is asked for; it
 * doubles while its pages are read and halves when pages were asked for in vain.
 *
 * Runs in every process of the compute, in its own memory, without a lock of its own.
 * It only ever asks; whether a page may be used is decided when it is read (prefetch.c).
 */
#include "postgres.h"

#include "access/parallel.h"
#include "access/xact.h"
#include "port/pg_bitutils.h"
#include "storage/buf_internals.h"
#include "storage/md.h"

#include "nc/client/prefetch.h"
#include "nc/filecache/filecache.h"
#include "nc/shared/settings.h"
#include "nc/shared/shmem.h"
#include "nc/smgr/local.h"
#include "nc/smgr/lwlsn.h"
#include "nc/smgr/readahead.h"

#define STREAMS (NC_PREFETCH_TAGS - 1)

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

/* A stream that was not read for so many reads is nobody's any more. */
#define STREAM_OLD 256

/* A parallel scan deals a table out in chunks like these, as the server's tableam.c does. */
#define PARALLEL_CHUNKS 2048
#define PARALLEL_CHUNK_MAX 8192

typedef struct Stream
{
	NcRelKey	rel;			/* rel.rel = 0: not used */
	BlockNumber last;			/* read last */
	int32		step;			/* between blocks; 0 = one was read so far */
	uint32		run;			/* how often in a row that step was made */
	uint32		window;			/* how many blocks to ask for next time, 0 = none yet */
	int64		ahead;			/* the next block to ask for */
	int64		mark;			/* when it is read, more is asked for */
	int64		limit;			/* not this block nor one behind it: the end of a parallel chunk */
	uint32		unread;			/* what nc_prefetch_unread[] was when it was looked at */
	uint64		used;			/* clock */
} Stream;

static Stream streams[STREAMS];
static uint64 clock_reads;

/* ---- asking ---- */

static bool
block_is_local(const NcRelKey *rel, BlockNumber block)
{
	NcLocalRef	ref;

	if (!nc_local_begin_read(rel, block, &ref))
		return false;
	nc_local_end(&ref);
	return true;
}

static bool
is_buffered(const NcRelKey *rel, BlockNumber block)
{
	BufferTag	tag;
	uint32		hash;
	LWLock	   *lock;
	bool		found;
	NcPgRel		pgrel = NC_PGREL_MAKE(rel);

	NC_BUFFER_TAG(tag, pgrel, MAIN_FORKNUM, block);
	hash = BufTableHashCode(&tag);
	lock = BufMappingPartitionLock(hash);
	LWLockAcquire(lock, LW_SHARED);
	found = BufTableLookup(&tag, hash) >= 0;
	LWLockRelease(lock);
	return found;
}

static bool
is_cached(const NcRelKey *rel, BlockNumber block)
{
	NcPageKey	key = {*rel, block};

	return nc_filecache_usable() && nc_lfc_has(nc_filecache_index, &key);
}

/* Is it worth asking for? */
static bool
readahead_wants(const NcRelKey *rel, BlockNumber block, bool look_at_buffers)
{
	return !nc_prefetch_known(rel, block) && !block_is_local(rel, block) &&
		!is_cached(rel, block) && !(look_at_buffers && is_buffered(rel, block));
}

/*
 * Asks for the wanted ones of n neighbouring blocks, in runs; false when a run
 * was refused.
 */
static bool
ask_ahead(const NcRelKey *rel, BlockNumber first, int n, int tag, bool look_at_buffers)
{
	XLogRecPtr	newest = InvalidXLogRecPtr;
	int			run = 0;

	for (int i = 0; i <= n; i++)
	{
		XLogRecPtr	nms,
					exact;
		bool		wanted = i < n && readahead_wants(rel, first + i, look_at_buffers);

		if (run > 0 && (!wanted || run == NC_STAGING_CHUNK_PAGES))
		{
			if (!nc_prefetch_ask(rel, first + i - run, run, newest, tag))
				return false;
			nc_stat(NC_COUNTER_READAHEAD_PAGES, run);
			run = 0;
			newest = InvalidXLogRecPtr;
		}
		if (!wanted)
			continue;
		nc_lwlsn_query(rel, first + i, &nms, &exact);
		newest = Max(newest, nms);
		run++;
	}
	return true;
}

void
nc_readahead_asked(SMgrRelation reln, const NcRelKey *rel, BlockNumber first, int nblocks)
{
	BlockNumber length;

	if (!nc_prefetch_possible())
		return;
	length = mdnblocks(reln, MAIN_FORKNUM);
	for (BlockNumber block = first; block < length && block - first < nblocks; block++)
	{
		XLogRecPtr	nms,
					exact;

		/* the caller found it not in shared buffers */
		if (!readahead_wants(rel, block, false))
			continue;
		nc_lwlsn_query(rel, block, &nms, &exact);
		nc_prefetch_name(rel, block, nms);
	}
}

/* ---- streams ---- */

/* Does a read of this block continue the stream? */
static bool
continues(const Stream *s, BlockNumber block)
{
	int64		delta = (int64) block - s->last;

	if (s->step == 0)
		return delta != 0 && delta >= -STRIDE_MAX && delta <= STRIDE_MAX;
	if (s->step == 1)
		return delta >= 1 && delta <= GAP_MAX;
	if (s->step == -1)
		return delta <= -1 && delta >= -GAP_MAX;
	return delta == s->step;
}

/* The stream that a block belongs to: one that is established before one that began. */
static Stream *
find_stream(const NcRelKey *rel, BlockNumber block)
{
	Stream	   *best = NULL;

	for (int i = 0; i < STREAMS; i++)
	{
		Stream	   *s = &streams[i];

		if (s->rel.rel != rel->rel || !nc_rel_key_equal(&s->rel, rel) || !continues(s, block))
			continue;
		if (best == NULL || s->run > best->run)
			best = s;
	}
	return best;
}

/* A parallel scan goes on with another chunk: the stream of the relation that reads chunks. */
static Stream *
find_parallel(const NcRelKey *rel, BlockNumber block)
{
	for (int i = 0; i < STREAMS; i++)
	{
		Stream	   *s = &streams[i];

		if (s->rel.rel == rel->rel && nc_rel_key_equal(&s->rel, rel) && s->limit > 0 &&
			s->run >= RUN_SEQUENCE && block > s->last)
			return s;
	}
	return NULL;
}

/* The place for a new stream: unused, else nobody's, else begun and not established, oldest first. */
static Stream *
vacant_stream(void)
{
	Stream	   *worst = &streams[0];

	for (int i = 0; i < STREAMS; i++)
	{
		Stream	   *s = &streams[i];
		bool		weak = s->run < RUN_ESTABLISHED || clock_reads - s->used > STREAM_OLD;
		bool		worst_weak = worst->run < RUN_ESTABLISHED ||
			clock_reads - worst->used > STREAM_OLD;

		if (s->rel.rel == 0)
			return s;
		if (weak != worst_weak ? weak : s->used < worst->used)
			worst = s;
	}
	return worst;
}

static int
tag_of_stream(const Stream *s)
{
	return (int) (s - streams) + 1;
}

/* Blocks of one chunk of a parallel sequential scan of this table. */
static int64
parallel_chunk(BlockNumber length)
{
	return Min(pg_nextpower2_32(Max(length / PARALLEL_CHUNKS, 1)), PARALLEL_CHUNK_MAX);
}

static void
begin_stream(const NcRelKey *rel, BlockNumber block)
{
	Stream	   *s = vacant_stream();

	*s = (Stream) {
		.rel = *rel, .last = block, .used = clock_reads,
		.unread = nc_prefetch_unread[tag_of_stream(s)]
	};
}

static void
begin_window(Stream *s, BlockNumber block)
{
	s->window = WINDOW_FIRST;
	s->ahead = (int64) block + s->step;
	s->mark = block;
}

/* Notes that the stream has come to this block. */
static void
advance(Stream *s, BlockNumber block, BlockNumber length)
{
	int64		delta = (int64) block - s->last;

	s->used = clock_reads;
	s->last = block;
	if (s->step == 0)
	{
		s->step = delta;
		s->run = 1;
	}
	else
		s->run++;
	if (s->window == 0 && s->run >= (s->step == 1 || s->step == -1 ? RUN_SEQUENCE : RUN_STRIDE))
		begin_window(s, block);
	if (IsInParallelMode() && s->step == 1)
	{
		int64		chunk = parallel_chunk(length);

		if (s->limit == 0)
			s->limit = (int64) block - 1 + chunk;
		while (s->limit <= block)
			s->limit += chunk;
	}
	else
		s->limit = 0;
}

/* A parallel worker was given another chunk. */
static void
next_scan_chunk(Stream *s, BlockNumber block, BlockNumber length)
{
	s->used = clock_reads;
	s->last = block;
	s->run++;
	s->limit = (int64) block + parallel_chunk(length);
	s->ahead = (int64) block + 1;
	s->mark = block;
}

/* Two windows are asked for at most: one that is being read and one behind it. */
static uint32
window_max(void)
{
	return Max(nc_guc_readahead / 2, 1);
}

/* Grows the window, unless pages were asked for in vain: then it shrinks. */
static void
resize(Stream *s)
{
	uint32		unread = nc_prefetch_unread[tag_of_stream(s)];
	uint32		wasted = unread - s->unread;

	s->unread = unread;
	if (wasted >= Max(s->window / 2, 1))
	{
		s->window = Max(s->window / 2, 1);
		nc_stat(NC_COUNTER_READAHEAD_SHRUNK, 1);
	}
	else if (wasted == 0)
		s->window = Min(s->window * 2, window_max());
}

static bool
in_fork(int64 block, BlockNumber length)
{
	return block >= 0 && block < (int64) length;
}

/* Asks for neighbouring blocks up to `until`, in the stream's direction. */
static void
ask_sequence(Stream *s, int64 until, BlockNumber length)
{
	int64		first = s->step > 0 ? s->ahead : until + 1;
	int64		end = s->step > 0 ? until : s->ahead + 1;

	first = Max(first, 0);
	end = Min(end, (int64) length);
	while (first < end)
	{
		int			n = Min(end - first, NC_STAGING_CHUNK_PAGES);

		if (!ask_ahead(&s->rel, first, n, tag_of_stream(s), true))
			break;
		first += n;
	}
	s->ahead = s->step > 0 ? first : until;
}

static void
ask_strided(Stream *s, int64 until, BlockNumber length)
{
	while (s->step > 0 ? s->ahead < until : s->ahead > until)
	{
		if (!in_fork(s->ahead, length) || !ask_ahead(&s->rel, s->ahead, 1, tag_of_stream(s), true))
			return;
		s->ahead += s->step;
	}
}

/*
 * Asks for the next window when the first block of the last one is being read, so
 * that one is on its way while the one before it is read.
 */
static void
read_ahead(Stream *s, BlockNumber block, BlockNumber length)
{
	int64		until;

	/* it jumped over what was asked for, or nothing was */
	if (s->step > 0 ? s->ahead <= block : s->ahead >= block)
	{
		s->ahead = (int64) block + s->step;
		s->mark = block;
	}
	if (s->step > 0 ? block < s->mark : block > s->mark)
		return;
	until = s->ahead + (int64) s->window * s->step;
	if (s->limit > 0)
		until = Min(until, s->limit);
	s->mark = s->ahead;
	if (s->step == 1 || s->step == -1)
		ask_sequence(s, until, length);
	else
		ask_strided(s, until, length);
	resize(s);
}

void
nc_readahead_read(const NcRelKey *rel, BlockNumber block, BlockNumber length)
{
	Stream	   *s;

	if (nc_guc_readahead == 0 || !nc_prefetch_possible())
		return;
	clock_reads++;
	s = find_stream(rel, block);
	if (s != NULL)
		advance(s, block, length);
	else if (IsInParallelMode() && (s = find_parallel(rel, block)) != NULL)
		next_scan_chunk(s, block, length);
	else
	{
		begin_stream(rel, block);
		return;
	}
	s->window = Min(s->window, window_max());
	if (s->window > 0)
		read_ahead(s, block, length);
}
