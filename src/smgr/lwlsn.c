/*
 * lwlsn.c
 *	  The shared map of last-written LSNs with its locks (docs/lsn.md).
 *
 * Every process of the compute reads and raises it, the startup process too:
 * recovery keeps it up so that the first reads after it ask for enough.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "access/xlogrecovery.h"
#include "miscadmin.h"
#include "storage/bufpage.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"

#include "nc/cache/lwlsn_map.h"
#include "nc/feed/feed.h"
#include "nc/lsn/request_lsn.h"
#include "nc/shared/settings.h"
#include "nc/shared/shmem.h"
#include "nc/smgr/keep.h"
#include "nc/smgr/local.h"
#include "nc/smgr/lwlsn.h"
#include "nc/smgr/lwlsn_saved.h"

/* More than there are processors that could meet, few enough to keep small. */
#define LWLSN_LOCKS 128

static NcLwMap *map;
static LWLockPadded *locks;

Size
nc_lwlsn_shmem_bytes(void)
{
	return add_size(MAXALIGN(nc_lw_map_bytes(nc_guc_lwlsn_entries)), NC_CACHE_LINE_BYTES);
}

void
nc_lwlsn_shmem_startup(void)
{
	bool		found;
	char	   *memory = ShmemInitStruct("neon_comm last-written LSNs", nc_lwlsn_shmem_bytes(),
										 &found);

	map = (NcLwMap *) TYPEALIGN(NC_CACHE_LINE_BYTES, memory);
	locks = GetNamedLWLockTranche("neon_comm_lwlsn");
	if (found)
		return;
	nc_lw_map_init(map, nc_guc_lwlsn_entries);
	if (nc_enabled && !IsUnderPostmaster)
		nc_lwlsn_saved_startup(map);
}

static LWLock *
lock_of(const NcPageKey *key)
{
	return &locks[nc_lw_map_bucket(map, key) % LWLSN_LOCKS].lock;
}

static NcPageKey
page_key(const NcRelKey *rel, BlockNumber block)
{
	NcPageKey	key = {*rel, block};

	key.rel.fork = MAIN_FORKNUM;
	return key;
}

XLogRecPtr
nc_lsn_now(void)
{
	XLogRecPtr	lsn;

	if (RecoveryInProgress())
	{
		lsn = GetXLogReplayRecPtr(NULL);
		return lsn > nc_shared->start_lsn ? lsn : nc_shared->start_lsn;
	}
	return nc_lsn_before_page_header(GetXLogInsertRecPtr(), wal_segment_size);
}

static void
set(const NcPageKey *key, XLogRecPtr nms, XLogRecPtr exact)
{
	LWLock	   *lock = lock_of(key);

	LWLockAcquire(lock, LW_EXCLUSIVE);
	nc_lw_map_set(map, key, nms, exact);
	LWLockRelease(lock);
}

static bool
get(const NcPageKey *key, XLogRecPtr *nms, XLogRecPtr *exact)
{
	LWLock	   *lock = lock_of(key);
	bool		found;

	LWLockAcquire(lock, LW_SHARED);
	found = nc_lw_map_get(map, key, nms, exact);
	LWLockRelease(lock);
	return found;
}

void
nc_lwlsn_set_page(const NcRelKey *rel, BlockNumber block, XLogRecPtr nms, XLogRecPtr exact)
{
	NcPageKey	key = page_key(rel, block);

	set(&key, nms, exact);
}

/*
 * Does the record that sets the flag all-visible move the LSN of the heap page on
 * page servers as it does here?  Not here either without checksums and hint bits
 * in WAL.  With checksums on both sides: bundled page servers are copies of this
 * cluster, and of others it is not known.
 */
static bool
all_visible_lsn_counts(void)
{
	return !XLogHintBitIsNeeded() || (DataChecksumsEnabled() && nc_feed_is_configured());
}

void
nc_lwlsn_page_dropped(const NcRelKey *rel, BlockNumber block, const char *page, XLogRecPtr nms)
{
	NcPageKey	key = page_key(rel, block);
	XLogRecPtr	lsn = PageGetLSN(unconstify(char *, page));

	if (lsn < (XLogRecPtr) wal_segment_size)
	{
		/* zero or never logged: nothing dates it, so it is dated now */
		nc_lwlsn_set_page(rel, block, nc_lsn_now(), InvalidXLogRecPtr);
		return;
	}
	nms = Max(nms, lsn);
	if (nc_page_lsn_may_lag(page))
	{
		XLogRecPtr	unused;

		/* who drops a page holds its buffer, so nobody else dates it meanwhile */
		nms = Max(nms, nc_lsn_now());
		if (!all_visible_lsn_counts() && !get(&key, &unused, &lsn))
			lsn = InvalidXLogRecPtr;
	}
	nc_lwlsn_set_page(rel, block, nms, lsn);
}

void
nc_lwlsn_raise_page(const NcRelKey *rel, BlockNumber block, XLogRecPtr nms)
{
	NcPageKey	key = page_key(rel, block);
	LWLock	   *lock = lock_of(&key);
	XLogRecPtr	unused,
				exact;

	LWLockAcquire(lock, LW_EXCLUSIVE);
	if (!nc_lw_map_get(map, &key, &unused, &exact))
		exact = InvalidXLogRecPtr;
	nc_lw_map_set(map, &key, nms, exact);
	LWLockRelease(lock);
}

void
nc_lwlsn_set_relation(const NcRelKey *rel, XLogRecPtr nms)
{
	NcPageKey	key = page_key(rel, NC_LW_RELATION);

	set(&key, nms, 0);
}

void
nc_lwlsn_raise_all(XLogRecPtr nms)
{
	nc_lw_raise(&map->hard_floor, nms);
}

void
nc_lwlsn_forget_database(Oid db)
{
	for (uint32 bucket = 0; bucket < map->nbuckets; bucket++)
	{
		LWLock	   *lock = &locks[bucket % LWLSN_LOCKS].lock;

		LWLockAcquire(lock, LW_EXCLUSIVE);
		nc_lw_map_forget_database(map, bucket, db);
		LWLockRelease(lock);
	}
}

/*
 * The map of a new start knows only what a clean stop has left or redo has seen:
 * everything may have changed up to now.
 */
static void
make_ready(void)
{
	if (RecoveryInProgress() || atomic_load(&nc_shared->lwlsn_ready) != 0)
		return;
	nc_lwlsn_raise_all(nc_lsn_now());
	if (atomic_exchange(&nc_shared->lwlsn_ready, 1) == 0)
		nc_local_recovery_ended();
}

XLogRecPtr
nc_lwlsn_exact(const NcRelKey *rel, BlockNumber block)
{
	NcPageKey	page = page_key(rel, block);
	NcPageKey	relation = page_key(rel, NC_LW_RELATION);
	XLogRecPtr	nms,
				exact = InvalidXLogRecPtr,
				rel_nms = InvalidXLogRecPtr,
				unused;
	bool		rel_found;

	make_ready();
	/* most pages of a large database are not in the map: then the rest need not be asked */
	if (RecoveryInProgress() || !get(&page, &nms, &exact) || exact == InvalidXLogRecPtr)
		return InvalidXLogRecPtr;
	rel_found = get(&relation, &rel_nms, &unused);
	nc_lw_combine(map, true, nms, exact, rel_found, rel_nms, &nms, &exact);
	return exact;
}

void
nc_lwlsn_fetch(const NcRelKey *rel, BlockNumber block)
{
	static NcPageKey last;
	NcPageKey	page = page_key(rel, block);

	/* who reads in order has fetched it with the block before */
	if (nc_page_key_equal(&page, &last))
		return;
	last = page;
	nc_lw_map_fetch(map, &page);
}

void
nc_lwlsn_query(const NcRelKey *rel, BlockNumber block, XLogRecPtr *nms, XLogRecPtr *exact)
{
	NcPageKey	page = page_key(rel, block);
	NcPageKey	relation = page_key(rel, NC_LW_RELATION);
	XLogRecPtr	page_nms = 0,
				page_exact = 0,
				rel_nms = 0,
				unused;
	bool		page_found,
				rel_found;

	make_ready();
	page_found = get(&page, &page_nms, &page_exact);
	rel_found = get(&relation, &rel_nms, &unused);
	nc_lw_combine(map, page_found, page_nms, page_exact, rel_found, rel_nms, nms, exact);

	/* In recovery replay is the truth: newer pages are fine for redo. */
	if (RecoveryInProgress())
	{
		*nms = nc_lsn_now();
		*exact = 0;
	}
}
