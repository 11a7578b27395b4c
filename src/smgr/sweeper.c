/*
 * sweeper.c
 *	  Drops local blocks that no live transaction needs (docs/local_pages.md).
 *
 * A chunk may go once every transaction below its keep_until has ended: then
 * nobody can look at the command ids of its tuples, and an index build that
 * wrote pages without WAL has either logged them or was rolled back.  Losing
 * such a page is what a crash would do to it, and WAL makes up for that.  A
 * concurrent build has no xid for most of its time, but a snapshot: pages
 * without WAL wait for snapshots too.
 *
 * Works on the files with descriptors of its own under the chunk's exclusive
 * lock, asks for no sync (a file that is dropped meanwhile must not come back
 * into the checkpointer's table), and restores the last-written LSN before the
 * block stops being local.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "miscadmin.h"
#include "storage/bufpage.h"
#include "storage/proc.h"

#include "nc/base/clock.h"
#include "nc/shared/shmem.h"
#include "nc/shared/test_point.h"
#include "nc/smgr/empty.h"
#include "nc/smgr/keep.h"
#include "nc/smgr/local.h"
#include "nc/smgr/lwlsn.h"
#include "nc/smgr/shadow.h"
#include "nc/smgr/skeleton.h"
#include "nc/smgr/sweeper.h"

/* How often a process that finds the index full sweeps by itself. */
#define SWEEP_FOR_ROOM_MS 200

typedef struct Horizon
{
	FullTransactionId oldest;
	bool		vacuum;			/* some VACUUM runs: its cycle ids must stay */
	bool		building;		/* somebody may build an index under an old snapshot */
} Horizon;

/* The blocks of a chunk that may go. */
static uint64
ripe(const NcLocalChunk *c, const Horizon *h)
{
	if (!FullTransactionIdFollowsOrEquals(h->oldest, c->keep_until))
		return 0;
	return c->local & ~c->sequence & ~(h->vacuum ? c->cycle_id : 0) &
		~(h->building ? c->low_lsn : 0);
}

static bool
want_ripe(const NcLocalChunk *c, void *arg)
{
	/* without any block: a write that failed has left it */
	return (c->local | c->empty) == 0 || ripe(c, arg) != 0;
}

/* Drops the ripe blocks of one chunk; returns how many. */
static int
sweep_chunk(const NcLocalKey *key, const Horizon *h)
{
	NcRelKey	rel = {key->spc, key->db, key->rel, MAIN_FORKNUM};
	BlockNumber first = key->chunk * NC_LOCAL_CHUNK_BLOCKS;
	PGAlignedBlock page;
	Horizon		now = *h;
	NcLocalRef	ref;
	uint64		go = 0;
	int			swept = 0;
	bool		punch;

	NC_TEST_POINT_REL("sweeper-chunk", rel.rel);
	nc_local_begin_change_key(key, &ref);

	/*
	 * A VACUUM or a build may have begun since the round did.  Nobody can mark
	 * a block while we hold the lock, so what is marked belongs to one that is
	 * seen now or is over.
	 */
	if (ref.chunk != NULL)
	{
		now.vacuum = ref.chunk->cycle_id != 0 && nc_keep_vacuum_running();
		now.building = ref.chunk->low_lsn != 0 && nc_keep_snapshot_open(ref.chunk->keep_until);
		go = ripe(ref.chunk, &now);
	}
	for (int i = 0; i < NC_LOCAL_CHUNK_BLOCKS && go != 0; i++)
	{
		ref.bit = UINT64CONST(1) << i;
		if ((go & ref.bit) == 0)
			continue;
		if (!nc_skeleton_pread(&rel, first + i, page.data))
			memset(page.data, 0, BLCKSZ);
		/* dates the version that a reader must get from now on */
		nc_lwlsn_page_dropped(&rel, first + i, page.data, nc_lsn_now());
		if (nc_empty_says(page.data, first + i))
		{
			/* never logged, and so its bytes stay and say (empty.c) */
			nc_local_note_empty(&ref, ref.bit);
			swept++;
			continue;
		}
		/* to verify against: WAL has all of the page but what a comparison blanks */
		punch = !nc_shadow_on() || (ref.chunk->low_lsn & ref.bit) != 0;
		nc_local_clear(&ref);
		NC_TEST_POINT_REL("sweeper-punch", rel.rel);
		if (punch)
			nc_skeleton_punch(&rel, first + i, 1);
		swept++;
	}
	ref.bit = 0;
	nc_local_clear(&ref);
	nc_local_end(&ref);
	return swept;
}

uint64
nc_sweep(void)
{
	Horizon		h = {0};
	NcLocalChunk *found;
	uint64		swept = 0;
	int			n;

	if (RecoveryInProgress())
		return 0;
	h.vacuum = nc_keep_vacuum_running();
	h.oldest = nc_keep_horizon();
	found = nc_local_collect(want_ripe, &h, &n);
	for (int i = 0; i < n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		swept += sweep_chunk(&found[i].key, &h);
	}
	pfree(found);
	nc_stat(NC_COUNTER_SWEEPS, 1);
	nc_stat(NC_COUNTER_SWEPT, swept);
	return swept;
}

void
nc_sweep_for_room(void)
{
	static uint64 last = 0;
	uint64		now = nc_clock_us();

	if (CritSectionCount > 0 || (last != 0 && now - last < SWEEP_FOR_ROOM_MS * 1000))
		return;
	last = now;
	(void) nc_sweep();
}
