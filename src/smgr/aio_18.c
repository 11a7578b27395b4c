/*
 * aio_18.c
 *	  Reads of PostgreSQL 18 that the communicator completes, straight into shared
 *	  buffers (docs/async.md).
 *
 * A read is left to the communicator only when nothing but its answer is missing:
 * all blocks are page servers' alone, WAL is durable, and a backend's stream asks that
 * goes on meanwhile.  Everything else is read at once, by the process itself.
 *
 * Of an answer the communicator takes what is beyond doubt: pages from the first on that
 * are sound, not empty, and of the right LSN.  The rest fails, as the whole does when
 * the read fails, and the owner then reads it at once: so errors, their texts and what is
 * asked again are those of read.c, on every path.  For that a failed read is to its owner
 * a short one that brought nothing: WaitReadBuffers() starts another read of what is missing.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/bufpage.h"
#include "storage/condition_variable.h"
#include "storage/ipc.h"
#include "storage/md.h"
#include "storage/shmem.h"
#include "utils/resowner.h"
#include "utils/wait_event.h"

#include "nc/base/clock.h"
#include "nc/client/client.h"
#include "nc/compat/aio.h"
#include "nc/compat/page.h"
#include "nc/filecache/filecache.h"
#include "nc/lsn/request_lsn.h"
#include "nc/ring/aio.h"
#include "nc/shared/settings.h"
#include "nc/shared/shmem.h"
#include "nc/shared/test_point.h"
#include "nc/shared/transport.h"
#include "nc/shared/waits.h"
#include "nc/smgr/readahead.h"
#include "nc/smgr/shadow.h"
#include "nc/tracing/tracing.h"
#include "aio_18.h"

/* In the result of a failed read: it was ours. The server's errors have no bit so high. */
#define FAILURE_OF_OURS (1 << 16)

/*
 * What is asked in a life of a handle, beside its slot.  Written by the owner while the slot
 * is FILLING; read by who has ended the slot's life and not yet completed the handle, and by
 * the communicator in COPYING.
 */
typedef struct Read
{
	NcRelKey	rel;
	BlockNumber block;
	uint32		nblocks;
	XLogRecPtr	not_modified_since;
	uint32		buffers[NC_SLOT_BLOCKS_MAX];	/* index of each, from 0 */
	XLogRecPtr	exact[NC_SLOT_BLOCKS_MAX];	/* LSN that each must reach, 0 unknown */
} Read;

static Read *reads;				/* [handles] */

/* A read of this process has failed: the next one is read at once. */
static bool read_at_once = false;

/* The last read of its own that this process has waited for in vain. */
static NcAsk gave_up;

/* The last read of its own that this process has waited for. */
typedef struct Waited
{
	uint32		handle;
	uint64		generation;		/* 0: none */
} Waited;

static Waited waited_for;

static void (*stock_report) (PgAioResult result, const PgAioTargetData *td, int elevel);

/* ---- asking ---- */

/* Has this process waited for a read that began with this block until the deadline? */
static bool
is_given_up(const NcRelKey *rel, BlockNumber block)
{
	return gave_up.started_us != 0 && gave_up.block == block && gave_up.rel.spc == rel->spc &&
		gave_up.rel.db == rel->db && gave_up.rel.rel == rel->rel;
}

/* Does this process leave reads to the communicator? */
static bool
may_leave(const PgAioHandle *ioh)
{
	if (!nc_guc_async_reads || nc_guc_mode != NC_MODE_COMMUNICATOR || !IsUnderPostmaster ||
		(ioh->flags & (PGAIO_HF_SYNCHRONOUS | PGAIO_HF_REFERENCES_LOCAL)) != 0)
		return false;

	/* recovery waits without an end; walsenders outlive the communicator */
	if (MyBackendType != B_BACKEND && MyBackendType != B_BG_WORKER &&
		MyBackendType != B_AUTOVAC_WORKER)
		return false;
	return CritSectionCount == 0 && !proc_exit_inprogress && !nc_shadow_on() &&
		!RecoveryInProgress();
}

/* The index of the shared buffer that is there. */
static bool
find_buffer(const void *at, uint32 *index)
{
	const char *page = at;

	if (page < BufferBlocks || page >= BufferBlocks + (Size) NBuffers * BLCKSZ)
		return false;
	*index = (uint32) ((page - BufferBlocks) / BLCKSZ);
	return true;
}

/*
 * Is what a stream can have on its way less than what own readahead has on its way?  Each
 * page of a stream's pins a buffer, readahead has memory of its own.
 */
static bool
is_short(void)
{
	uint32		reach = Min(GetPinLimit(), (uint32) (effective_io_concurrency + 1) * (uint32) io_combine_limit);

	return reach < (uint32) nc_guc_readahead;
}

bool
nc_aio_overlaps(const PgAioHandle *ioh)
{
	return may_leave(ioh) && !is_short();
}

static bool
plan(Read *read, SMgrRelation reln, BlockNumber first, void **buffers, BlockNumber nblocks)
{
	if (nblocks > NC_SLOT_BLOCKS_MAX)
		return false;
	read->rel = nc_reln_key(reln, MAIN_FORKNUM);
	read->block = first;
	read->nblocks = nblocks;
	for (BlockNumber i = 0; i < nblocks; i++)
		if (!find_buffer(buffers[i], &read->buffers[i]))
			return false;
	return nc_smgr_plan_remote(reln, first, (int) nblocks, &read->not_modified_since, read->exact);
}

/* What pg_aios shows as length: the pages, as md's reads have them. Nobody reads by it. */
static int
describe_pages(PgAioHandle *ioh, void **buffers, BlockNumber nblocks)
{
	struct iovec *iov;
	int			n = Min((int) nblocks, pgaio_io_get_iovec(ioh, &iov));

	for (int i = 0; i < n; i++)
		iov[i] = (struct iovec) {.iov_base = buffers[i], .iov_len = BLCKSZ};
	return n;
}

void
nc_aio_stage(PgAioHandle *ioh, SMgrRelation reln, ForkNumber fork, BlockNumber first,
			 void **buffers, BlockNumber nblocks, int fd)
{
	/* executed synchronously it would be by the server, which knows no such descriptor */
	ioh->flags &= ~PGAIO_HF_SYNCHRONOUS;
	pgaio_io_set_target_smgr(ioh, reln, fork, first, (int) nblocks, false);
	pgaio_io_register_callbacks(ioh, PGAIO_HCB_MD_READV, 0);
	pgaio_io_start_readv(ioh, fd, describe_pages(ioh, buffers, nblocks),
						 (uint64) (first % RELSEG_SIZE) * BLCKSZ);
}

bool
nc_aio_start(PgAioHandle *ioh, SMgrRelation reln, BlockNumber first, void **buffers,
			 BlockNumber nblocks)
{
	bool		at_once = read_at_once;
	uint32		handle = (uint32) pgaio_io_get_id(ioh);
	NcAioRead	ask;
	Read		read;

	read_at_once = false;
	if (at_once || !may_leave(ioh) || !plan(&read, reln, first, buffers, nblocks))
		return false;
	/* what follows in a sequence is then found there, and the rest in flight */
	if (is_short())
		nc_readahead_read(&read.rel, first, (int) nblocks, mdnblocks(reln, MAIN_FORKNUM));
	nc_client_make_available(read.not_modified_since);
	NC_TEST_POINT_REL("aio-start", read.rel.rel);
	ask = (NcAioRead) {
		.rel = read.rel,
		.block = first,
		.nblocks = nblocks,
		.request_lsn = NC_LSN_MAX,
		.not_modified_since = read.not_modified_since
	};
	if (!nc_aio_fill(&nc_rings, handle, ioh->generation, &ask))
		elog(ERROR, "neon_comm: the slot of AIO handle %u is in use", handle);
	nc_tracing_begin(nc_aio_ring(&nc_rings, handle), handle % NC_RING_SLOTS);
	reads[handle] = read;
	if (is_given_up(&read.rel, first))
		gave_up.started_us = 0;
	nc_aio_stage(ioh, reln, MAIN_FORKNUM, first, buffers, nblocks, NC_FD_ASKED);
	nc_tally(NC_TALLY_ASKED_AHEAD, nblocks);
	return true;
}

void
nc_aio_hand_over(PgAioHandle *ioh)
{
	/* each later than the one before it: they are taken in this order */
	static uint64 last_us = 0;

	last_us = Max(nc_clock_us(), last_us + 1);
	/* SUBMITTED for the server first: from the next line on it may be completed */
	pgaio_io_prepare_submit(ioh);
	nc_aio_submit(&nc_rings, (uint32) pgaio_io_get_id(ioh), last_us);
}

/* ---- completing ---- */

static char *
page_of(const Read *read, uint32 index)
{
	return BufferBlocks + (Size) read->buffers[index] * BLCKSZ;
}

static uint8_t *
dest_page(uint32 handle, uint32 index)
{
	const Read *read = &reads[handle];

	/* in COPYING, so of the life that is being answered */
	return index < read->nblocks && read->buffers[index] < (uint32) NBuffers ?
		(uint8_t *) page_of(read, index) : NULL;
}

/* A page that came is used, or left to its owner, who asks again, judges and tells. */
typedef enum Doubt
{
	DOUBT_NONE,
	DOUBT_UNKNOWN,				/* the owner may know what to make of it */
	DOUBT_DAMAGED
} Doubt;

static Doubt
doubt_of(const Read *read, uint32 i, XLogRecPtr flush)
{
	char	   *page = page_of(read, i);

	/* an empty page may be one that was never logged */
	if (PageIsNew(page))
		return DOUBT_UNKNOWN;
	if (!nc_page_is_sound(page, read->block + i))
		return DOUBT_DAMAGED;
	return nc_answer_verdict(PageGetLSN(page), read->exact[i], flush) == NC_ANSWER_OK ?
		DOUBT_NONE : DOUBT_UNKNOWN;
}

/* How many pages from the first on are good, and what is the matter with the next. */
static uint32
take_pages(const Read *read, Doubt *doubt)
{
	XLogRecPtr	flush = GetFlushRecPtr(NULL);
	uint32		n;

	for (n = 0; n < read->nblocks && (*doubt = doubt_of(read, n, flush)) == DOUBT_NONE; n++)
		nc_filecache_received(&read->rel, read->block + n, page_of(read, n));
	nc_stat(NC_COUNTER_READS_REMOTE, n);
	nc_stat(NC_COUNTER_READS_SHARED_BUFFER, n);
	nc_stat(NC_COUNTER_READS_ASYNC, n > 0 ? 1 : 0);
	return n;
}

/*
 * In the communicator.  The slot is FREE, so nobody else completes the handle, and its owner
 * cannot use either before that.
 */
static void
complete(uint32 handle, uint64 generation, bool answered)
{
	PgAioHandle *ioh = &pgaio_ctl->io_handles[handle];
	NcRelKey	rel = reads[handle].rel;
	BlockNumber block = reads[handle].block;
	Doubt		doubt = DOUBT_NONE;
	uint32		n;

	START_CRIT_SECTION();
	Assert(ioh->generation == generation && ioh->state == PGAIO_HS_SUBMITTED);
	n = answered ? take_pages(&reads[handle], &doubt) : 0;
	pgaio_io_process_completion(ioh, n > 0 ? (int) n * BLCKSZ : -(FAILURE_OF_OURS | EIO));
	END_CRIT_SECTION();
	/* here, since the owner's own read may bring a good one */
	if (doubt == DOUBT_DAMAGED)
		nc_client_note_damaged(&rel, block + n);
}

/* ---- waiting ---- */

static bool
is_on_its_way(PgAioHandle *ioh, uint64 generation)
{
	PgAioHandleState state;

	return !pgaio_io_was_recycled(ioh, generation, &state) && state == PGAIO_HS_SUBMITTED;
}

static void
describe_progress(const NcAsk *ask, char *text, Size bytes)
{
	snprintf(text, bytes, "process %d waits for a read ahead", MyProcPid);
}

static const NcTransport handles = {.progress = describe_progress};

/* Takes the read from the communicator if it was submitted until then. */
static bool
take_away(PgAioHandle *ioh, uint64 generation, uint64 submitted_until_us)
{
	if (!nc_aio_claim(&nc_rings, (uint32) pgaio_io_get_id(ioh), generation, submitted_until_us))
		return false;
	START_CRIT_SECTION();
	pgaio_io_process_completion(ioh, -(FAILURE_OF_OURS | ETIMEDOUT));
	END_CRIT_SECTION();
	return true;
}

/* The same for one that this process has started and does not wait for any more. */
static bool
give_up(PgAioHandle *ioh)
{
	if (!take_away(ioh, ioh->generation, UINT64_MAX))
		return false;
	nc_stat(NC_COUNTER_REQUEST_CANCELS, 1);
	return true;
}

/*
 * A process that has failed or was cancelled waits for none of its reads any more.  On a disk
 * they would be over soon; ours may be on their way until a page server is back, and each
 * pins its buffers.  So they are taken away as soon as nobody's resource owner has them.
 */
static void
take_back(void)
{
	dlist_mutable_iter it;

	dclist_foreach_modify(it, &pgaio_my_backend->in_flight_ios)
	{
		PgAioHandle *ioh = dclist_container(PgAioHandle, node, it.cur);

		if (ioh->resowner == NULL)
			(void) give_up(ioh);
	}
}

/* Called after the server has let go of the handles of a resource owner. */
static void
on_release(ResourceReleasePhase phase, bool is_commit, bool is_top, void *arg)
{
	if (phase == RESOURCE_RELEASE_BEFORE_LOCKS && !is_commit && pgaio_my_backend != NULL)
		take_back();
}

static void
wait_ours(PgAioHandle *ioh, uint64 generation)
{
	/* of a later life perhaps: for messages only */
	const Read *read = &reads[pgaio_io_get_id(ioh)];
	NcAsk		ask = {
		.rel = read->rel,
		.block = read->block,
		.not_modified_since = read->not_modified_since,
		.request_lsn = NC_LSN_MAX,
		.over = &handles,
		.started_us = nc_clock_us()
	};
	bool		own = ioh->owner_procno == MyProcNumber;
	uint64		waited_us;

	if (own && proc_exit_inprogress && give_up(ioh))
		return;
	/* from here on it is not like those that nobody waits for */
	nc_aio_promote(&nc_rings, (uint32) pgaio_io_get_id(ioh), generation);
	ConditionVariablePrepareToSleep(&ioh->cv);
	while (is_on_its_way(ioh, generation))
	{
		uint64		timeout_us = (uint64) nc_guc_request_timeout * 1000;

		/* who does not own it tries to read it himself then */
		if (nc_client_waited_long(&ask, NC_WAIT_FOR_ANSWER) &&
			take_away(ioh, generation, nc_clock_us() - timeout_us))
		{
			if (own)
				gave_up = ask;
			break;
		}
		nc_stat(NC_COUNTER_CLIENT_SLEEPS, 1);
		(void) ConditionVariableTimedSleep(&ioh->cv, nc_wait_slice_ms(),
										   nc_wait_event(NC_WAIT_PAGE_READ));
	}
	ConditionVariableCancelSleep();
	waited_us = nc_clock_us() - ask.started_us;
	nc_stat(NC_COUNTER_WAIT_US, waited_us);
	nc_tally(NC_TALLY_WAITS, 1);
	nc_tally(NC_TALLY_WAIT_US, waited_us);
	if (own)
		waited_for = (Waited) {(uint32) pgaio_io_get_id(ioh), generation};
}

void
nc_aio_wait(PgAioHandle *ioh, uint64 generation,
			void (*theirs) (PgAioHandle *ioh, uint64 generation))
{
	if (nc_aio_is_ours(&nc_rings, (uint32) pgaio_io_get_id(ioh), generation))
	{
		wait_ours(ioh, generation);
		return;
	}
	if (theirs != NULL)
	{
		theirs(ioh, generation);
		return;
	}
	ConditionVariablePrepareToSleep(&ioh->cv);
	while (is_on_its_way(ioh, generation))
		ConditionVariableSleep(&ioh->cv, WAIT_EVENT_AIO_IO_COMPLETION);
	ConditionVariableCancelSleep();
}

/* ---- failures ---- */

/* The buffer manager's, that waits for this handle; NULL: somebody else reads, with a result of his own. */
static ReadBuffersOperation *
operation_of(PgAioHandle *ioh)
{
	ReadBuffersOperation *operation;
	const PgAioWaitRef *wref;

	if (ioh->report_return == NULL)
		return NULL;
	operation = (ReadBuffersOperation *)
		((char *) ioh->report_return - offsetof(ReadBuffersOperation, io_return));
	wref = &operation->io_wref;
	return wref->aio_index == (uint32) pgaio_io_get_id(ioh) &&
		wref->generation_upper == (uint32) (ioh->generation >> 32) &&
		wref->generation_lower == (uint32) ioh->generation ? operation : NULL;
}

/* In the owner, once for each read: pages count where they were wanted. */
static void
count_pages(const PgAioHandle *ioh, PgAioResult result)
{
	uint32		handle = (uint32) pgaio_io_get_id((PgAioHandle *) ioh);
	bool		waited = waited_for.generation == ioh->generation && waited_for.handle == handle;

	if (result.status != PGAIO_RS_ERROR && nc_aio_is_ours(&nc_rings, handle, ioh->generation))
		nc_tally(waited ? NC_TALLY_WAITED : NC_TALLY_AHEAD, result.result);
}

/*
 * In the owner, before who waits gets the result.  The server reads the rest of a short read,
 * and asserts that it brought something.  So a failure of ours has brought one block, which
 * is taken off those that are done first.
 */
static PgAioResult
make_short(PgAioHandle *ioh, PgAioResult result, uint8 cb_data)
{
	ReadBuffersOperation *operation;

	count_pages(ioh, result);
	if (result.status != PGAIO_RS_ERROR || result.id != PGAIO_HCB_MD_READV ||
		(result.error_data & FAILURE_OF_OURS) == 0 || (operation = operation_of(ioh)) == NULL)
		return result;
	operation->nblocks_done--;
	result.status = PGAIO_RS_PARTIAL;
	result.result = 1;
	return result;
}

static void
report(PgAioResult result, const PgAioTargetData *td, int elevel)
{
	NcRelKey	rel = {
		td->smgr.rlocator.spcOid, td->smgr.rlocator.dbOid, td->smgr.rlocator.relNumber, MAIN_FORKNUM
	};
	bool		given_up = is_given_up(&rel, td->smgr.blockNum);
	NcAsk		ask = gave_up;

	/* what is missing of a part was in doubt, or failed */
	read_at_once = read_at_once || (result.status == PGAIO_RS_PARTIAL && elevel < LOG);
	if ((result.error_data & FAILURE_OF_OURS) == 0 || result.id != PGAIO_HCB_MD_READV)
	{
		stock_report(result, td, elevel);
		return;
	}
	/* who completes it tells nobody */
	if (result.status == PGAIO_RS_ERROR && elevel < ERROR)
		return;
	gave_up.started_us = 0;
	if (given_up)
	{
		read_at_once = false;
		nc_client_fail_timeout(&ask);
	}
	if (result.status == PGAIO_RS_ERROR)
		elog(ERROR, "could not read block %u of relation %u/%u/%u", td->smgr.blockNum, rel.spc,
			 rel.db, rel.rel);
}

/* ---- start ---- */

static Size
shmem_bytes(void)
{
	return mul_size(nc_pg_aio_handles_max(), sizeof(Read));
}

static void
shmem_startup(void)
{
	bool		found;

	/* not cleared: what was not written is not read */
	reads = ShmemInitStruct("neon_comm AIO reads", mul_size(nc_pg_aio_handles(), sizeof(Read)),
							&found);
}

void
nc_aio_install(void)
{
	PgAioHandleCallbacks ours = aio_md_readv_cb;

	if (ours.complete_local != NULL)
		elog(FATAL, "neon_comm: the storage manager looks itself at results of its reads");
	RegisterResourceReleaseCallback(on_release, NULL);
	stock_report = ours.report;
	ours.complete_local = make_short;
	ours.report = report;
	nc_relro_write(unconstify(void *, (const void *) &aio_md_readv_cb), &ours, sizeof(ours));
}

const NcSmgrAio nc_smgr_aio = {
	.shmem_bytes = shmem_bytes,
	.shmem_startup = shmem_startup,
	.dest_page = dest_page,
	.complete = complete
};
