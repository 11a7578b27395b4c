/*
 * readahead.c
 *	  Asks for blocks before they are read: those that the executor names, and those
 *	  that follow from the order in which a process reads.
 *
 * A stock server leaves the second to the kernel's readahead, which a network does
 * not have.  What to ask for then is said by the streams of ahead/streams.c, of which
 * each process has its own.
 *
 * Runs in every process of the compute, in its own memory, without a lock of its own.
 * It only ever asks; whether a page may be used is decided when it is read (prefetch.c).
 */
#include "postgres.h"

#include "access/xact.h"
#include "storage/buf_internals.h"
#include "storage/md.h"

#include "nc/ahead/streams.h"
#include "nc/client/prefetch.h"
#include "nc/filecache/filecache.h"
#include "nc/shared/settings.h"
#include "nc/shared/shmem.h"
#include "nc/smgr/abi.h"
#include "nc/smgr/local.h"
#include "nc/smgr/lwlsn.h"
#include "nc/smgr/readahead.h"

StaticAssertDecl(NC_PREFETCH_TAGS == NC_AHEAD_STREAMS + 2,
				 "a tag for each stream, the executor's and that of the server's read streams");

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

/*
 * A read stream of the server has a buffer for what it names, which is to be filled.  Other
 * executors have none, and a short view ahead of what they read.
 */
static bool
names_as_stream(const NcRelKey *rel, BlockNumber first)
{
	return nc_smgr_abi()->has_read_streams && is_buffered(rel, first);
}

void
nc_readahead_asked(SMgrRelation reln, const NcRelKey *rel, BlockNumber first, int nblocks)
{
	BlockNumber length;
	int			tag;
	bool		named = false;

	if (!nc_prefetch_possible())
		return;
	tag = names_as_stream(rel, first) ? NC_PREFETCH_READ_STREAM : NC_PREFETCH_EXECUTOR;
	length = mdnblocks(reln, MAIN_FORKNUM);
	for (BlockNumber block = first; block < length && block - first < nblocks; block++)
	{
		XLogRecPtr	nms,
					exact;

		/* the caller found it not in shared buffers */
		if (!readahead_wants(rel, block, false))
			continue;
		nc_lwlsn_query(rel, block, &nms, &exact);
		nc_prefetch_name(rel, block, nms, tag);
		named = true;
	}
	if (named)
		nc_prefetch_ask_named();
}

/* ---- streams ---- */

/* A sequence of so many blocks is one also where reads of any order are in flight. */
#define SURE_BLOCKS 6

static bool
ask_for_stream(const NcRelKey *rel, uint32 first, int n, int stream)
{
	return ask_ahead(rel, first, n, stream + 1, true);
}

static void
forget_stream(int stream)
{
	nc_prefetch_forget(stream + 1);
}

static void
window_shrunk(void)
{
	nc_stat(NC_COUNTER_READAHEAD_SHRUNK, 1);
}

void
nc_readahead_read(const NcRelKey *rel, BlockNumber first, int nblocks, BlockNumber length)
{
	static const NcAheadHost host = {
		.ask = ask_for_stream,
		.forget = forget_stream,
		.shrunk = window_shrunk,
		.unread = &nc_prefetch_unread[1],
		.ask_max = NC_STAGING_CHUNK_PAGES
	};
	static NcAhead ahead = {.host = &host};

	/* who jumps by himself and names where to looks ahead by himself, too */
	if (nc_guc_readahead == 0 || !nc_prefetch_possible() ||
		nc_prefetch_known_by(rel, first, NC_PREFETCH_READ_STREAM))
		return;
	nc_ahead_read(&ahead, &(NcAheadRead) {
				  .rel = *rel, .block = first, .nblocks = nblocks, .length = length,
				  .most = nc_guc_readahead, .parallel = IsInParallelMode(),
				  .sure = nc_smgr_abi()->aio != NULL && nc_guc_async_reads ? SURE_BLOCKS : 0
	});
}
