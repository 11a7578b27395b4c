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
#include "nc/compat/page.h"
#include "nc/filecache/filecache.h"
#include "nc/shared/settings.h"
#include "nc/shared/shmem.h"
#include "nc/shared/test_point.h"
#include "nc/smgr/empty.h"
#include "nc/smgr/local.h"
#include "nc/smgr/lwlsn.h"
#include "nc/smgr/skeleton.h"
#include "nc/worker/cache_list.h"
#include "nc/worker/prewarm.h"

#include "program.h"

/* Pages of one request: private memory goes through bounce pages, which others need too. */
#define RUN_MAX NC_LFC_LIST_GROUP

/* Errors without a success between them that end a prewarm. */
#define ERRORS_MAX 5

/* The writer empties all outbox pages in about this time. */
#define WRITER_PAUSE_US 200

/* CPU time that a page costs page server, communicator and prewarm together, about. */
#define WORK_US 16

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

PGDLLEXPORT void nc_prewarm_main(Datum arg);

static const NcProgram program = {
	.name = "neon_comm prewarm",
	.main = "nc_prewarm_main",
	.starts = BgWorkerStart_RecoveryFinished,
	.once = true,
	.dies = true
};

static Batch batch;
static char *pages_memory;
static int	errors_in_a_row = 0;

/*
 * The fastest read of so many blocks, 0 = none yet; and what the last read took but for
 * the network's delay, which hurts nobody: the work that it was for three processes, and
 * the time it stood in queues, in which others stand as well.
 */
static uint64 fastest_us[RUN_MAX + 1];
static uint64 rest_us = 0;

static NcPrewarm *
prewarm_progress(void)
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
		.pages = pages, .exact = exact, .request_lsn = NC_LSN_MAX, .background = true};

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

/* The same, and how long others have to be given for it. */
static void
timed_read(char **pages)
{
	uint64		began_us = nc_clock_us();
	uint64	   *fastest = &fastest_us[batch.n];
	uint64		work_us = batch.n * WORK_US;
	uint64		workers = Max(atomic_load(&prewarm_progress()->workers), 2);
	uint64		took_us;

	read_batch(pages);
	took_us = nc_clock_us() - began_us;
	if (*fastest == 0 || took_us < *fastest)
		*fastest = took_us;
	/* many together take no more of others' time than two would, each of whom rests as long */
	rest_us = (took_us - (*fastest > work_us ? *fastest - work_us : 0)) * workers / 2;
}

/*
 * The writer is behind: waits for it, others are not to lose outbox pages to us.
 * What is reserved meanwhile is in nobody's way.
 */
static void
wait_for_writer(void)
{
	uint64		began_us = nc_clock_us();
	uint64		logged_us = began_us;

	while (nc_lfc_urgent(nc_filecache_index) && nc_lfc_is_on(nc_filecache_index))
	{
		uint64		now_us;

		nc_filecache_wake(true);
		CHECK_FOR_INTERRUPTS();
		pg_usleep(WRITER_PAUSE_US);
		now_us = nc_clock_us();
		if (now_us - began_us >= (uint64) nc_guc_request_timeout * 1000)
			ereport(ERROR,
					(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
					 errmsg("neon_comm: prewarm: the cache writer does not get on"),
					 errdetail("Waited %d s (neon_comm.request_timeout) for it to write staged pages.",
							   (int) ((now_us - began_us) / 1000000))));
		if (now_us - logged_us < (uint64) nc_guc_wait_log_period * 1000)
			continue;
		logged_us = now_us;
		ereport(LOG,
				(errmsg("neon_comm: prewarm: still waiting for the cache writer"),
				 errdetail("Waited %d s.", (int) ((now_us - began_us) / 1000000))));
	}
}

static void
fill_batch(char **pages)
{
	for (int i = 0; i < batch.n; i++)
	{
		NcPageKey	key = key_of(i);

		if (!is_reserved(i))
			continue;
		wait_for_writer();
		/* damaged four times over, or lost by its page server: not what was asked for */
		if (!nc_page_is_sound(pages[i], key.block) ||
			!nc_empty_may_be(&batch.rel, key.block, pages[i]))
		{
			nc_lfc_discard(nc_filecache_index, &batch.refs[i]);
			atomic_fetch_add(&prewarm_progress()->failed, 1);
			continue;
		}
		if (nc_lfc_fill(nc_filecache_index, &key, &batch.refs[i], (const uint8_t *) pages[i]))
			atomic_fetch_add(&prewarm_progress()->loaded, 1);
		else
			atomic_fetch_add(&prewarm_progress()->skipped, 1);
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
	atomic_fetch_add(&prewarm_progress()->failed, pg_popcount32(batch.reserved));
	give_up_batch();
	if (atomic_load(&prewarm_progress()->stop) == 0)
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
	MemoryContext context = CurrentMemoryContext;

	if (batch.n == 0)
		return;
	for (int i = 0; i < batch.n; i++)
		pages[i] = pages_memory + (Size) i * BLCKSZ;
	PG_TRY();
	{
		timed_read(pages);
		fill_batch(pages);
		errors_in_a_row = 0;
	}
	PG_CATCH();
	{
		swallow_error(context);
	}
	PG_END_TRY();
}

/* ---- runs of the list ---- */

/* After the reservation: is the block remote, and is there one? */
static bool
prewarm_wants(const NcRelKey *rel, BlockNumber block, BlockNumber length, bool plain)
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
	SMgrRelation reln = NC_PG_SMGROPEN(NC_PGREL_MAKE(&rel));

	batch.rel = rel;
	batch.n = 0;
	batch.reserved = 0;
	for (int i = 0; i < n; i++)
	{
		NcPageKey	key = {rel, items[i].block};
		NcLfcRef	ref;
		bool		reserved = nc_lfc_reserve(nc_filecache_index, &key, &ref);

		/* the length and the rest are looked at after the reservation */
		if (reserved && !prewarm_wants(&rel, key.block, nc_skeleton_length(&rel),
								   nc_skeleton_relation(reln).unlogged))
		{
			nc_lfc_discard(nc_filecache_index, &ref);
			reserved = false;
		}
		if (!reserved)
		{
			atomic_fetch_add(&prewarm_progress()->skipped, 1);
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
		for (int s = 0; s < (r < nc_rings.aio_first ? NC_RING_DEMAND_SLOTS : NC_RING_SLOTS); s++)
		{
			NcSlotState state = nc_slot_word_state(nc_slot_load(&nc_rings.rings[r].slots[s]));
			int			pid;

			if (state != NC_SLOT_SUBMITTED && state != NC_SLOT_TAKEN)
				continue;
			pid = nc_ring_owner_pid(r, s);
			for (int w = 0; w < NC_PREWARM_WORKERS_MAX; w++)
				if ((uint32) pid == atomic_load(&prewarm_progress()->pids[w]))
					pid = 0;
			if (pid != 0)
				return true;
		}
	}
	return false;
}

/* Gives back what the last read took of others' time, if they need it. */
static void
rest(void)
{
	uint64		us = Min(rest_us, REST_MAX_US);

	rest_us = 0;
	if (us == 0 || !others_wait())
		return;
	atomic_fetch_add(&prewarm_progress()->paused_us, us);
	pg_usleep((long) us);
}

static void
bring_list(const NcLfcItem *items, uint64 n)
{
	uint64		run = 0;
	uint64		mine = atomic_fetch_add(&prewarm_progress()->next_run, 1);
	int			length;

	for (uint64 at = 0; at < n; at += length, run++)
	{
		length = run_length(&items[at], n - at);
		if (run < mine)
			continue;
		if (atomic_load(&prewarm_progress()->stop) != 0 || errors_in_a_row >= ERRORS_MAX ||
			!nc_lfc_is_on(nc_filecache_index))
			return;
		/* a cancel that means this prewarm is seen at the top of the next round */
		if (ProcDiePending)
			CHECK_FOR_INTERRUPTS();
		bring_run(&items[at], length);
		rest();
		mine = atomic_fetch_add(&prewarm_progress()->next_run, 1);
	}
}

/* ---- the worker ---- */

/* The last one to leave says how it ended. */
static void
leave_prewarm(int failed)
{
	uint32		running = NC_PREWARM_RUNNING;
	uint32		end = atomic_load(&prewarm_progress()->stop) != 0 ? NC_PREWARM_STOPPED : NC_PREWARM_DONE;

	if (failed && atomic_load(&prewarm_progress()->stop) == 0)
		atomic_store(&prewarm_progress()->trouble, 1);
	if (atomic_load(&prewarm_progress()->trouble) != 0)
		end = NC_PREWARM_FAILED;
	if (atomic_fetch_sub(&prewarm_progress()->workers, 1) != 1)
		return;
	atomic_store(&prewarm_progress()->ended_us, nc_clock_us());
	(void) atomic_compare_exchange_strong(&prewarm_progress()->state, &running, end);
}

static void
prewarm_leave(int code, Datum arg)
{
	give_up_batch();
	atomic_store(&prewarm_progress()->pids[DatumGetInt32(arg)], 0);
	leave_prewarm(code != 0);
}

void
nc_prewarm_main(Datum arg)
{
	char		err[NC_FILECACHE_ERROR_BYTES + MAXPGPATH];
	NcLfcItem  *items;
	uint64		n = 0;

	pqsignal(SIGINT, StatementCancelHandler);
	nc_program_begin(&program);
	CurrentResourceOwner = ResourceOwnerCreate(NULL, program.name);
	nc_program_turn_memory(&program);
	atomic_store(&prewarm_progress()->pids[DatumGetInt32(arg)], (uint32) MyProcPid);
	before_shmem_exit(prewarm_leave, arg);

	items = nc_filecache_load(&n, err, sizeof(err));
	if (items == NULL)
	{
		ereport(LOG, (errmsg("neon_comm: prewarm: %s", err)));
		proc_exit(1);
	}
	atomic_store(&prewarm_progress()->total, n);
	pages_memory = palloc((Size) RUN_MAX * BLCKSZ);
	bring_list(items, n);
	proc_exit(errors_in_a_row >= ERRORS_MAX ? 1 : 0);
}

/* ---- starting and stopping ---- */

static bool
begin_prewarm(char *err, size_t err_bytes)
{
	uint32		state = atomic_load(&prewarm_progress()->state);
	NcPrewarm  *p = prewarm_progress();

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
	int			started = 0;

	if (!begin_prewarm(err, err_bytes))
		return false;
	workers = Max(1, Min(workers, NC_PREWARM_WORKERS_MAX));
	atomic_store(&prewarm_progress()->workers, workers);
	for (int i = 0; i < workers; i++)
	{
		if (nc_program_start(&program, i))
			started++;
		else
			leave_prewarm(started == 0 && i == workers - 1);
	}
	if (started == 0)
		snprintf(err, err_bytes, "no background worker is free; see max_worker_processes");
	return started > 0;
}

bool
nc_prewarm_at_start(void)
{
	char		err[NC_FILECACHE_ERROR_BYTES + MAXPGPATH];

	if (nc_filecache == NULL || atomic_load(&prewarm_progress()->at_start) != 0)
		return true;
	if (nc_guc_lfc_prewarm_workers == 0 || !nc_filecache_usable())
		return false;
	if (atomic_exchange(&prewarm_progress()->at_start, 1) != 0)
		return true;
	/* the file itself came back */
	if (atomic_load(&nc_filecache->adopted) != 0)
		return true;
	if (access(nc_filecache_list_path(), F_OK) != 0)
	{
		/* there may be one elsewhere; who fetches it goes on from there */
		(void) nc_cache_list_fetch();
		return true;
	}
	if (!nc_prewarm_start(nc_guc_lfc_prewarm_workers, err, sizeof(err)))
		ereport(LOG, (errmsg("neon_comm: no prewarm at start: %s", err)));
	return true;
}

bool
nc_prewarm_stop(void)
{
	if (atomic_load(&prewarm_progress()->state) != NC_PREWARM_RUNNING)
		return false;
	atomic_store(&prewarm_progress()->stop, 1);
	for (int i = 0; i < NC_PREWARM_WORKERS_MAX; i++)
	{
		uint32		pid = atomic_load(&prewarm_progress()->pids[i]);

		/* ends a wait for a page server */
		if (pid != 0)
			(void) kill((pid_t) pid, SIGINT);
	}
	return true;
}
