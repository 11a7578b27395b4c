/*
 * prewarm.c
 *	  Fills the local file cache from page servers by a saved list, hottest pages
 *	  first.
 *
 * Runs in background workers of its own, which share the runs of the list.  They
 * hold no buffer, so a page may change while they read it: a place is reserved
 * first, and whatever changes the page ends the reservation (docs/lfc.md).  They
 * evict nothing, take no relation lock and read no catalog; a page that is gone
 * is skipped.  While others wait for page servers they rest as long as they read.
 */
#include "postgres.h"

#include <signal.h>
#include <unistd.h>

#include "access/xlog.h"
#include "miscadmin.h"
#include "port/pg_bitutils.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

#include "nc/base/clock.h"
#include "nc/cache/lfc_list.h"
#include "nc/client/client.h"
#include "nc/ext/guc.h"
#include "nc/ext/shmem.h"
#include "nc/ext/test_point.h"
#include "nc/filecache/filecache.h"
#include "nc/smgr/local.h"
#include "nc/smgr/lwlsn.h"
#include "nc/smgr/prewarm.h"
#include "nc/smgr/skeleton.h"

/* Pages of one request: private memory goes through bounce pages, which others need too. */
#define RUN_MAX NC_LFC_LIST_GROUP

/* Errors without a success between them that end a prewarm. */
#define ERRORS_MAX 5

/* The writer empties all staging pages in about this time. */
#define WRITER_PAUSE_US 200

/* The longest rest between two runs while others wait. */
#define REST_MAX_US 100000

/*
 * Blocks that will be read together.  Some between the first and the last may not
 * be wanted: a page too many costs less than a round trip.
 */
typedef struct Batch
{
	NcRelKey	rel;
	BlockNumber first;
	int			n;
	uint32		reserved;		/* bit i: block first + i is wanted, refs[i] its place */
	NcLfcRef	refs[RUN_MAX];
} Batch;

StaticAssertDecl(RUN_MAX <= 32, "a bit for each block of a batch");

static Batch batch;
static char *pages_memory;
static int	errors_in_a_row = 0;
static uint64 last_read_us = 0;

static NcPrewarm *
progress(void)
{
	return &nc_filecache->prewarm;
}

/* ---- one batch ---- */

static NcPageKey
key_of(int i)
{
	return (NcPageKey) {batch.rel, batch.first + i};
}

static bool
is_reserved(int i)
{
	return (batch.reserved >> i & 1) != 0;
}

/* Nothing stays reserved, whatever happens to this process. */
static void
give_up_batch(void)
{
	for (int i = 0; i < batch.n; i++)
		if (is_reserved(i))
			nc_lfc_discard(nc_filecache_index, &batch.refs[i]);
	batch.n = 0;
	batch.reserved = 0;
}

/* Asks for the reserved blocks; raises an error as any read does. */
static void
read_batch(char **pages)
{
	XLogRecPtr	exact[RUN_MAX] = {0};
	NcRead		read = {.rel = batch.rel, .block = batch.first, .nblocks = batch.n,
		.pages = pages, .exact = exact, .request_lsn = NC_LSN_MAX};

	for (int i = 0; i < batch.n; i++)
	{
		XLogRecPtr	nms;

		/* whatever comes for a block that is not wanted is right */
		if (!is_reserved(i))
			continue;
		nc_lwlsn_query(&batch.rel, batch.first + i, &nms, &exact[i]);
		read.not_modified_since = Max(read.not_modified_since, nms);
	}
	NC_TEST_POINT_REL("prewarm-read", batch.rel.rel);
	nc_client_read(&read);
	NC_TEST_POINT_REL("prewarm-was-read", batch.rel.rel);
}

static void
fill_batch(char **pages)
{
	for (int i = 0; i < batch.n; i++)
	{
		NcPageKey	key = key_of(i);

		if (!is_reserved(i))
			continue;
		/* the writer is behind: wait for it, others are not to lose staging pages to us */
		while (nc_lfc_urgent(nc_filecache_index) && nc_lfc_is_on(nc_filecache_index))
		{
			nc_filecache_wake(true);
			CHECK_FOR_INTERRUPTS();
			pg_usleep(WRITER_PAUSE_US);
		}
		if (nc_lfc_fill(nc_filecache_index, &key, &batch.refs[i], (const uint8_t *) pages[i]))
			atomic_fetch_add(&progress()->loaded, 1);
		else
			atomic_fetch_add(&progress()->skipped, 1);
	}
	batch.n = 0;
	batch.reserved = 0;
	nc_filecache_wake(false);
}

/* The error of a batch: said in the log, and the prewarm goes on unless there are many. */
static void
swallow_error(MemoryContext context)
{
	MemoryContextSwitchTo(context);
	HOLD_INTERRUPTS();
	LWLockReleaseAll();
	atomic_fetch_add(&progress()->failed, pg_popcount32(batch.reserved));
	give_up_batch();
	if (atomic_load(&progress()->stop) == 0)
	{
		errors_in_a_row++;
		EmitErrorReport();
	}
	FlushErrorState();
	RESUME_INTERRUPTS();
}

static void
bring_batch(void)
{
	char	   *pages[RUN_MAX];
	uint64		began = nc_clock_us();
	MemoryContext context = CurrentMemoryContext;

	if (batch.n == 0)
		return;
	for (int i = 0; i < batch.n; i++)
		pages[i] = pages_memory + (Size) i * BLCKSZ;
	PG_TRY();
	{
		read_batch(pages);
		fill_batch(pages);
		errors_in_a_row = 0;
	}
	PG_CATCH();
	{
		swallow_error(context);
	}
	PG_END_TRY();
	last_read_us = nc_clock_us() - began;
}

/* ---- runs of the list ---- */

/* After the reservation: is the block remote, and is there one? */
static bool
is_wanted(const NcRelKey *rel, BlockNumber block, BlockNumber length, bool plain)
{
	NcLocalRef	ref;

	if (plain || block >= length)
		return false;
	if (!nc_local_begin_read(rel, block, &ref))
		return true;
	nc_local_end(&ref);
	return false;
}

/* Brings the pages of one run that are not there, with one request. */
static void
bring_run(const NcLfcItem *items, int n)
{
	NcRelKey	rel = {items[0].spc, items[0].db, items[0].rel, NC_FORK_MAIN};
	SMgrRelation reln = smgropen(NC_PGREL_MAKE(&rel), InvalidBackendId);

	batch.rel = rel;
	batch.n = 0;
	batch.reserved = 0;
	for (int i = 0; i < n; i++)
	{
		NcPageKey	key = {rel, items[i].block};
		NcLfcRef	ref;
		bool		reserved = nc_lfc_reserve(nc_filecache_index, &key, &ref);

		/* the length and the rest are looked at after the reservation */
		if (reserved && !is_wanted(&rel, key.block, nc_skeleton_length(&rel),
								   nc_local_relation(reln).unlogged))
		{
			nc_lfc_discard(nc_filecache_index, &ref);
			reserved = false;
		}
		if (!reserved)
		{
			atomic_fetch_add(&progress()->skipped, 1);
			continue;
		}
		if (batch.n == 0)
			batch.first = key.block;
		batch.n = (int) (key.block - batch.first) + 1;
		batch.refs[batch.n - 1] = ref;
		batch.reserved |= UINT32_C(1) << (batch.n - 1);
	}
	bring_batch();
	smgrclose(reln);
}

/* How many items from here on are neighbours; of one heat, since that is how they are sorted. */
static int
run_length(const NcLfcItem *items, uint64 left)
{
	int			n = 1;

	while (n < RUN_MAX && (uint64) n < left && items[n].heat == items[0].heat &&
		   items[n].rel == items[0].rel && items[n].db == items[0].db &&
		   items[n].spc == items[0].spc && items[n].block == items[0].block + n)
		n++;
	return n;
}

/* Does any process but the prewarm's wait for a page server? */
static bool
others_wait(void)
{
	for (uint32 r = 0; r < nc_rings.nrings; r++)
	{
		for (int s = 0; s < NC_RING_DEMAND_SLOTS; s++)
		{
			NcSlotState state = nc_slot_word_state(nc_slot_load(&nc_rings.rings[r].slots[s]));
			int			pid;

			if (state != NC_SLOT_SUBMITTED && state != NC_SLOT_TAKEN)
				continue;
			pid = ProcGlobal->allProcs[r].pid;
			for (int w = 0; w < NC_PREWARM_WORKERS_MAX; w++)
				if ((uint32) pid == atomic_load(&progress()->pids[w]))
					pid = 0;
			if (pid != 0)
				return true;
		}
	}
	return false;
}

/* Lets others have half of the time if they need it. */
static void
rest(void)
{
	uint64		us = Min(last_read_us, REST_MAX_US);

	if (us == 0 || !others_wait())
		return;
	atomic_fetch_add(&progress()->paused_us, us);
	pg_usleep((long) us);
}

static void
bring_list(const NcLfcItem *items, uint64 n)
{
	uint64		run = 0;
	uint64		mine = atomic_fetch_add(&progress()->next_run, 1);
	int			length;

	for (uint64 at = 0; at < n; at += length, run++)
	{
		length = run_length(&items[at], n - at);
		if (run < mine)
			continue;
		if (atomic_load(&progress()->stop) != 0 || errors_in_a_row >= ERRORS_MAX ||
			!nc_lfc_is_on(nc_filecache_index))
			return;
		/* a cancel that means this prewarm is seen at the top of the next round */
		if (ProcDiePending)
			CHECK_FOR_INTERRUPTS();
		bring_run(&items[at], length);
		rest();
		mine = atomic_fetch_add(&progress()->next_run, 1);
	}
}

/* ---- the worker ---- */

/* The last one to leave says how it ended. */
static void
leave(int failed)
{
	uint32		running = NC_PREWARM_RUNNING;
	uint32		end = atomic_load(&progress()->stop) != 0 ? NC_PREWARM_STOPPED : NC_PREWARM_DONE;

	if (failed && atomic_load(&progress()->stop) == 0)
		atomic_store(&progress()->trouble, 1);
	if (atomic_load(&progress()->trouble) != 0)
		end = NC_PREWARM_FAILED;
	if (atomic_fetch_sub(&progress()->workers, 1) != 1)
		return;
	atomic_store(&progress()->ended_us, nc_clock_us());
	(void) atomic_compare_exchange_strong(&progress()->state, &running, end);
}

static void
on_exit_leave(int code, Datum arg)
{
	give_up_batch();
	atomic_store(&progress()->pids[DatumGetInt32(arg)], 0);
	leave(code != 0);
}

void
nc_prewarm_main(Datum arg)
{
	char		err[NC_FILECACHE_ERROR_BYTES + MAXPGPATH];
	NcLfcItem  *items;
	uint64		n = 0;

	pqsignal(SIGTERM, die);
	pqsignal(SIGINT, StatementCancelHandler);
	BackgroundWorkerUnblockSignals();
	CurrentResourceOwner = ResourceOwnerCreate(NULL, "neon_comm prewarm");
	MemoryContextSwitchTo(AllocSetContextCreate(TopMemoryContext, "neon_comm prewarm",
												ALLOCSET_DEFAULT_SIZES));
	atomic_store(&progress()->pids[DatumGetInt32(arg)], (uint32) MyProcPid);
	before_shmem_exit(on_exit_leave, arg);

	items = nc_filecache_load(&n, err, sizeof(err));
	if (items == NULL)
	{
		ereport(LOG, (errmsg("neon_comm: prewarm: %s", err)));
		proc_exit(1);
	}
	atomic_store(&progress()->total, n);
	pages_memory = palloc((Size) RUN_MAX * BLCKSZ);
	bring_list(items, n);
	proc_exit(errors_in_a_row >= ERRORS_MAX ? 1 : 0);
}

/* ---- starting and stopping ---- */

static bool
begin(char *err, size_t err_bytes)
{
	uint32		state = atomic_load(&progress()->state);
	NcPrewarm  *p = progress();

	if (!nc_filecache_usable())
	{
		snprintf(err, err_bytes, "the local file cache is not on");
		return false;
	}
	if (access(nc_filecache_list_path(), R_OK) != 0)
	{
		snprintf(err, err_bytes, "there is no list of pages \"%s\"", nc_filecache_list_path());
		return false;
	}
	if (state == NC_PREWARM_RUNNING ||
		!atomic_compare_exchange_strong(&p->state, &state, NC_PREWARM_RUNNING))
	{
		snprintf(err, err_bytes, "a prewarm is running");
		return false;
	}
	atomic_store(&p->stop, 0);
	atomic_store(&p->trouble, 0);
	atomic_store(&p->next_run, 0);
	atomic_store(&p->total, 0);
	atomic_store(&p->loaded, 0);
	atomic_store(&p->skipped, 0);
	atomic_store(&p->failed, 0);
	atomic_store(&p->paused_us, 0);
	atomic_store(&p->ended_us, 0);
	atomic_store(&p->started_us, nc_clock_us());
	return true;
}

bool
nc_prewarm_start(int workers, char *err, size_t err_bytes)
{
	BackgroundWorker worker = {
		.bgw_name = "neon_comm prewarm",
		.bgw_type = "neon_comm prewarm",
		.bgw_flags = BGWORKER_SHMEM_ACCESS,
		.bgw_start_time = BgWorkerStart_RecoveryFinished,
		.bgw_restart_time = BGW_NEVER_RESTART,
		.bgw_library_name = "neon_comm",
		.bgw_function_name = "nc_prewarm_main"
	};
	int			started = 0;

	if (!begin(err, err_bytes))
		return false;
	workers = Max(1, Min(workers, NC_PREWARM_WORKERS_MAX));
	atomic_store(&progress()->workers, workers);
	for (int i = 0; i < workers; i++)
	{
		worker.bgw_main_arg = Int32GetDatum(i);
		if (RegisterDynamicBackgroundWorker(&worker, NULL))
			started++;
		else
			leave(started == 0 && i == workers - 1);
	}
	if (started == 0)
		snprintf(err, err_bytes, "no background worker is free; see max_worker_processes");
	return started > 0;
}

bool
nc_prewarm_at_start(void)
{
	char		err[NC_FILECACHE_ERROR_BYTES + MAXPGPATH];

	if (nc_filecache == NULL || atomic_load(&progress()->at_start) != 0)
		return true;
	if (nc_guc_lfc_prewarm_workers == 0 || !nc_filecache_usable())
		return false;
	if (atomic_exchange(&progress()->at_start, 1) != 0)
		return true;
	/* the file itself came back, or there has never been a list */
	if (atomic_load(&nc_filecache->adopted) != 0 || access(nc_filecache_list_path(), F_OK) != 0)
		return true;
	if (!nc_prewarm_start(nc_guc_lfc_prewarm_workers, err, sizeof(err)))
		ereport(LOG, (errmsg("neon_comm: no prewarm at start: %s", err)));
	return true;
}

bool
nc_prewarm_stop(void)
{
	if (atomic_load(&progress()->state) != NC_PREWARM_RUNNING)
		return false;
	atomic_store(&progress()->stop, 1);
	for (int i = 0; i < NC_PREWARM_WORKERS_MAX; i++)
	{
		uint32		pid = atomic_load(&progress()->pids[i]);

		/* ends a wait for a page server */
		if (pid != 0)
			(void) kill((pid_t) pid, SIGINT);
	}
	return true;
}
