/*
 * client.c
 *	  A process's side of its ring: fill a slot, ring the doorbell, wait, check
 *	  the answer, give the slot back.
 *
 * Runs in every process of the compute.  The slot is given back on every way
 * out, ERROR and FATAL included, before the buffer whose page it asks for can
 * be reused; a late answer then finds another generation.
 *
 * With neon_comm.mode = direct the question goes to src/direct instead; deadlines,
 * the checks of the answer and the words of errors are the same.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "portability/instr_time.h"
#include "postmaster/startup.h"
#include "storage/buf_internals.h"
#include "storage/bufmgr.h"
#include "storage/bufpage.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/pmsignal.h"
#include "storage/proc.h"
#include "storage/s_lock.h"
#include "utils/wait_event.h"

#include "nc/base/clock.h"
#include "nc/client/client.h"
#include "nc/direct/direct.h"
#include "nc/ext/guc.h"
#include "nc/ext/shmem.h"
#include "nc/ext/test_point.h"
#include "nc/feed/feed.h"
#include "nc/lsn/request_lsn.h"
#include "client_int.h"

/* Looking at the slot before sleeping, if the setting leaves it to us: about a round trip in a rack. */
#define SPIN_US 20

/* Looks between two readings of the clock. */
#define SPIN_LOOKS 32

/* How often a waiter looks at its deadline and at interrupts without being woken. */
#define WAIT_SLICE_MS 1000

/* Pause between attempts to get one of the few bounce pages. */
#define BOUNCE_RETRY_US 1000

/* A copy takes a microsecond; after so many looks at it one asks whether anybody is left. */
#define COPY_LOOKS_MAX 10000

/* How often a page that is damaged is asked for again before bufmgr may report it. */
#define DAMAGED_RETRIES 3

/* Such pages are told at most this often. */
#define DAMAGED_LOG_PERIOD_US 5000000

/* Pause of recovery before it asks again after an error. */
#define RECOVERY_RETRY_MS 500

/* A request of this process: its slot and the bounce pages it uses. */
typedef struct Request
{
	NcSlot	   *slot;			/* NULL in direct mode */
	uint64		word;			/* as submitted; changes of the communicator keep its generation */
	uint64		bounce;			/* bit per bounce page held */
	const NcRead *read;			/* NULL for questions without pages */
	NcRelKey	rel;
	BlockNumber block;
	XLogRecPtr	request_lsn;
	XLogRecPtr	not_modified_since;
	uint64		started_us;
	uint64		logged_us;
} Request;

/* A running mean of how long reads waited. */
static uint64 usual_wait_us = 0;

/* This process's ring, once it has used it. */
static NcRing *my_ring = NULL;

/* ---- slots ---- */

/* Ends a slot's life whatever its state. Waits out one memcpy when the communicator is at it. */
bool
nc_client_withdraw(NcSlot *slot)
{
	bool		unanswered;

	for (int looks = 0;; looks++)
	{
		uint64		word = nc_slot_load(slot);

		switch (nc_slot_word_state(word))
		{
			case NC_SLOT_FREE:
				return false;
			case NC_SLOT_COPYING:
				/* whose postmaster has died may wait for a communicator that has, too */
				if (looks > COPY_LOOKS_MAX && !PostmasterIsAlive())
					return true;
				pg_usleep(10);
				break;
			case NC_SLOT_FILLING:
			case NC_SLOT_SUBMITTED:
			case NC_SLOT_TAKEN:
			case NC_SLOT_DONE:
				unanswered = nc_slot_word_state(word) != NC_SLOT_DONE;
				if (nc_slot_move(slot, word, NC_SLOT_FREE))
					return unanswered;
				break;
		}
	}
}

NcRing *
nc_client_attach(void)
{
	if (my_ring != NULL)
		return my_ring;
	if (MyProc == NULL || NC_MY_PROC_INDEX() >= nc_rings.nrings)
		elog(ERROR, "neon_comm: this process has no request ring");

	/* Nothing of an earlier owner may remain; its exit callbacks have seen to that. */
	my_ring = &nc_rings.rings[NC_MY_PROC_INDEX()];
	for (int i = 0; i < NC_RING_SLOTS; i++)
		(void) nc_client_withdraw(&my_ring->slots[i]);
	atomic_store(&my_ring->client_asleep, 0);
	return my_ring;
}

/* A free slot for a demand request; there are more than a process ever waits for at once. */
static int
free_slot(void)
{
	for (int i = 0; i < NC_RING_DEMAND_SLOTS; i++)
		if (nc_slot_word_state(nc_slot_load(&my_ring->slots[i])) == NC_SLOT_FREE)
			return i;
	elog(ERROR, "neon_comm: all request slots of this process are in use");
}

/* ---- bounce pages ---- */

static int
take_bounce(Request *req)
{
	for (;;)
	{
		uint64		taken = atomic_load(&nc_shared->bounce_taken);
		int			page = taken == ~UINT64CONST(0) ? -1 : __builtin_ctzll(~taken);

		if (page >= 0 &&
			atomic_compare_exchange_strong(&nc_shared->bounce_taken, &taken,
										   taken | UINT64CONST(1) << page))
		{
			req->bounce |= UINT64CONST(1) << page;
			return page;
		}
		if (page < 0)
		{
			CHECK_FOR_INTERRUPTS();
			pg_usleep(BOUNCE_RETRY_US);
		}
	}
}

static void
release(Request *req)
{
	if (req->slot != NULL)
		(void) nc_client_withdraw(req->slot);
	req->slot = NULL;
	if (req->bounce != 0)
		atomic_fetch_and(&nc_shared->bounce_taken, ~req->bounce);
	req->bounce = 0;
}

static bool
is_done(const Request *req)
{
	return nc_slot_word_state(nc_slot_load(req->slot)) == NC_SLOT_DONE;
}

static void
release_on_exit(int code, Datum arg)
{
	Request    *req = (Request *) DatumGetPointer(arg);

	if (req->slot != NULL && !is_done(req))
		nc_stat(NC_COUNTER_REQUEST_CANCELS, 1);
	release(req);
}

static bool
is_shared_buffer(const char *page)
{
	return page >= BufferBlocks && page < BufferBlocks + (Size) NBuffers * BLCKSZ;
}

/* ---- waiting ---- */

static const char *
describe(const Request *req)
{
	static char text[160];

	snprintf(text, sizeof(text), "block %u of relation %u/%u/%u", req->block, req->rel.spc,
			 req->rel.db, req->rel.rel);
	return text;
}

/*
 * After a crash restart the postmaster starts no background worker until redo
 * has begun, and then does not look again by itself (seen on 15: StartWorkerNeeded
 * was cleared by FatalError).  Recovery waits for the communicator, so it asks.
 */
static void
ask_for_workers(void)
{
	if (atomic_load(&nc_shared->communicator_pid) == 0)
		SendPostmasterSignal(PMSIGNAL_BACKGROUND_WORKER_CHANGE);
}

static void
process_interrupts(void)
{
	if (AmStartupProcess())
	{
		HandleStartupProcInterrupts();
		ask_for_workers();
	}
	else
		CHECK_FOR_INTERRUPTS();
}

/* Where a request is, for a message about its waiting. */
static const char *
progress(const Request *req)
{
	static char text[96];

	if (req->slot == NULL)
		snprintf(text, sizeof(text), "the own connection of process %d is %s", MyProcPid,
				 nc_direct_state());
	else
		snprintf(text, sizeof(text), "slot %d of process %d is %s",
				 (int) (req->slot - my_ring->slots), MyProcPid,
				 nc_slot_state_name(nc_slot_word_state(nc_slot_load(req->slot))));
	return text;
}

/* One process tells for all that see the same, hundreds may. Recovery always does. */
static bool
may_log(_Atomic uint64_t *last, uint64 period_us)
{
	uint64		now_us = nc_clock_us();
	uint64		last_us = atomic_load(last);

	if (AmStartupProcess())
		return true;
	return now_us - last_us >= period_us &&
		atomic_compare_exchange_strong(last, &last_us, now_us);
}

static void
log_wait(Request *req, uint64 waited_us)
{
	char		shard[NC_RING_ERROR_BYTES];

	req->logged_us = waited_us;
	if (!may_log(&nc_shared->wait_logged_us, (uint64) nc_guc_wait_log_period * 1000))
		return;
	nc_describe_shard(&req->rel, req->block, shard, sizeof(shard));
	ereport(LOG,
			(errmsg("still waiting for page servers: %s", describe(req)),
			 errdetail("Waited %d s for not_modified_since %X/%X from %s; %s. Others may be waiting too.",
					   (int) (waited_us / 1000000), LSN_FORMAT_ARGS(req->not_modified_since),
					   shard, progress(req)),
			 errhint("See the views neon_comm.connections, neon_comm.slots and neon_comm.page_servers."),
			 errhidestmt(true)));
}

/* Raises an error when the deadline has passed, wherever an error may be raised. */
static void
check_deadline(Request *req)
{
	uint64		waited_us = nc_clock_us() - req->started_us;
	char		shard[NC_RING_ERROR_BYTES];

	if (waited_us - req->logged_us >= (uint64) nc_guc_wait_log_period * 1000)
		log_wait(req, waited_us);

	/* Recovery has nobody to report to: it waits until it is told to stop. */
	if (CritSectionCount > 0 || AmStartupProcess() ||
		waited_us < (uint64) nc_guc_request_timeout * 1000)
		return;
	nc_stat(NC_COUNTER_REQUEST_TIMEOUTS, 1);
	nc_describe_shard(&req->rel, req->block, shard, sizeof(shard));
	ereport(ERROR,
			(errcode(ERRCODE_CONNECTION_FAILURE),
			 errmsg("no answer from page servers for %s", describe(req)),
			 errdetail("Waited %d s (neon_comm.request_timeout) for request_lsn %X/%X, not_modified_since %X/%X from %s.",
					   (int) (waited_us / 1000000),
					   LSN_FORMAT_ARGS(req->request_lsn),
					   LSN_FORMAT_ARGS(req->not_modified_since), shard),
			 errhint("See the views neon_comm.connections and neon_comm.page_servers, and the page server's log.")));
}

/* One sleep on the latch; returns whether it consumed a set of the latch. */
static bool
sleep_once(Request *req)
{
	int			events = 0;

	/* pairs with nc_ring_client_needs_wake(): say "asleep", full barrier, look at the slot */
	atomic_store_explicit(&my_ring->client_asleep,
						  NC_RING_ASLEEP_FOR(req->slot - my_ring->slots), memory_order_seq_cst);
	atomic_thread_fence(memory_order_seq_cst);
	if (!is_done(req))
	{
		nc_stat(NC_COUNTER_CLIENT_SLEEPS, 1);
		events = WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						   Min(WAIT_SLICE_MS, Min(nc_guc_request_timeout, nc_guc_wait_log_period)),
						   WAIT_EVENT_DATA_FILE_READ);
	}
	atomic_store_explicit(&my_ring->client_asleep, 0, memory_order_seq_cst);
	if ((events & WL_LATCH_SET) != 0)
		ResetLatch(MyLatch);
	return (events & WL_LATCH_SET) != 0;
}

/* Looks at the slot for a moment, if waits have been so short lately that this may do. */
static bool
spin(const Request *req)
{
	uint64		most = nc_spin_us(nc_guc_client_spin, SPIN_US);

	if (most == 0 || usual_wait_us > 2 * most)
		return false;
	do
	{
		for (int i = 0; i < SPIN_LOOKS; i++)
		{
			if (is_done(req))
			{
				nc_stat(NC_COUNTER_CLIENT_SPINS, 1);
				return true;
			}
			SPIN_DELAY();
		}
	} while (nc_clock_us() - req->started_us < most);
	nc_stat(NC_COUNTER_CLIENT_SPINS_VAIN, 1);
	return false;
}

/* What the wait tells: for the next one, and for the view. */
static void
note_wait(const Request *req)
{
	uint64		now_us = nc_clock_us();
	uint64		waited_us = now_us - req->started_us;

	nc_stat(NC_COUNTER_WAIT_US, waited_us);
	usual_wait_us = (usual_wait_us * 7 + waited_us) / 8;
	if (req->slot->kind == NC_SLOT_KIND_GETPAGE && req->slot->value != 0)
		nc_latency_note(&nc_shared->latency, NC_STAGE_WAKE,
						req->slot->class == NC_SLOT_CLASS_PREFETCH ? NC_LATENCY_AHEAD :
						NC_LATENCY_DEMAND, req->slot->value, now_us);
}

static void
wait_done(Request *req)
{
	bool		consumed = false;

	req->started_us = nc_clock_us();
	req->logged_us = 0;
	if (AmStartupProcess())
		ask_for_workers();
	if (!is_done(req))
		(void) spin(req);
	while (!is_done(req))
	{
		consumed |= sleep_once(req);
		if (is_done(req))
			break;
		process_interrupts();
		check_deadline(req);
	}
	/* Others wait on the same latch for their own reasons: pass on what was taken. */
	if (consumed)
		SetLatch(MyLatch);
	note_wait(req);
}

void
nc_client_wait(NcSlot *slot, const NcRelKey *rel, BlockNumber block)
{
	Request		req = {
		.slot = slot, .rel = *rel, .block = block,
		.not_modified_since = slot->not_modified_since
	};

	wait_done(&req);
}

/* ---- a request from start to end ---- */

/* WAL up to the LSN we ask for must be durable, and on its way. */
static void
make_lsn_available(XLogRecPtr nms)
{
	if (RecoveryInProgress())
	{
		nc_feed_ring(nms);
		return;
	}
	if (XLogNeedsFlush(nms))
	{
		nc_stat(NC_COUNTER_LSN_FLUSHES, 1);
		XLogFlush(nms);
	}
	nc_feed_ring(nms);
}

static void
fill_slot(Request *req, NcSlotKind kind, XLogRecPtr request_lsn, XLogRecPtr nms)
{
	NcSlot	   *slot = req->slot;

	slot->spc = req->rel.spc;
	slot->db = req->rel.db;
	slot->rel = req->rel.rel;
	slot->fork = req->rel.fork;
	slot->kind = kind;
	slot->class = NC_SLOT_CLASS_DEMAND;
	slot->nblocks = req->read != NULL ? req->read->nblocks : 1;
	slot->block = req->block;
	slot->dest_first = 0;
	slot->result = NC_SLOT_RESULT_OK;
	slot->request_lsn = request_lsn;
	slot->not_modified_since = nms;
	slot->submit_us = nc_clock_us();
	slot->value = 0;
	if (req->read == NULL)
		return;
	for (int i = 0; i < req->read->nblocks; i++)
	{
		char	   *page = req->read->pages[i];

		my_ring->dests[i] = is_shared_buffer(page) ? (page - BufferBlocks) / BLCKSZ
			: NC_DEST_BOUNCE | take_bounce(req);
	}
}

static void
submit_and_wait(Request *req, NcSlotKind kind, XLogRecPtr request_lsn, XLogRecPtr nms)
{
	int			index = free_slot();
	uint64		word;

	req->request_lsn = request_lsn;
	req->not_modified_since = nms;
	req->slot = &my_ring->slots[index];
	word = nc_slot_load(req->slot);
	if (!nc_slot_move(req->slot, word, NC_SLOT_FILLING))
		elog(ERROR, "neon_comm: a request slot of this process changed by itself");
	fill_slot(req, kind, request_lsn, nms);
	NC_TEST_POINT_REL("client-submit", req->rel.rel);
	word = nc_slot_load(req->slot);
	if (!nc_slot_move(req->slot, word, NC_SLOT_SUBMITTED))
		elog(ERROR, "neon_comm: a request slot of this process changed by itself");
	(void) nc_ring_notify(&nc_rings, NC_MY_PROC_INDEX());
	NC_TEST_POINT_REL("client-submitted", req->rel.rel);
	wait_done(req);
	NC_TEST_POINT_REL("client-done", req->rel.rel);
}

/* The error of a finished request, with what the page server said. */
static void
raise_failure(const Request *req, NcSlotResult result, const char *text)
{
	XLogRecPtr	nms = req->not_modified_since;
	XLogRecPtr	lsn = req->request_lsn;

	switch (result)
	{
		case NC_SLOT_RESULT_NO_SERVER:
			ereport(ERROR,
					(errcode(ERRCODE_CONNECTION_DOES_NOT_EXIST),
					 errmsg("could not read %s: no page server is configured", describe(req)),
					 errhint("Set neon_comm.page_servers and reload the configuration.")));
			break;
		case NC_SLOT_RESULT_OK:
		case NC_SLOT_RESULT_PS_ERROR:
		case NC_SLOT_RESULT_BAD_REQUEST:
		case NC_SLOT_RESULT_UNREACHABLE:
			ereport(ERROR,
					(errcode(result == NC_SLOT_RESULT_UNREACHABLE ? ERRCODE_CONNECTION_FAILURE :
							 ERRCODE_IO_ERROR),
					 errmsg("could not read %s from its page server: %s", describe(req),
							text[0] != '\0' ? text : "the request was refused"),
					 errdetail("Asked for request_lsn %X/%X, not_modified_since %X/%X.",
							   LSN_FORMAT_ARGS(lsn), LSN_FORMAT_ARGS(nms))));
			break;
	}
}

static void
report_failure(Request *req)
{
	char		text[NC_RING_ERROR_BYTES] = "";

	if (my_ring->error_slot == (uint32) (req->slot - my_ring->slots) + 1)
		strlcpy(text, my_ring->error, sizeof(text));
	raise_failure(req, req->slot->result, text);
}

/* What came of one attempt to read. */
typedef enum Attempt
{
	ATTEMPT_OK,
	ATTEMPT_REFUSED,			/* an error answer, in recovery, which has nobody to report to */
	ATTEMPT_DAMAGED				/* a page whose checksum or header is wrong */
} Attempt;

/*
 * A page that bufmgr would refuse was damaged on its way or by a faulty server,
 * and another answer may be good.  Without checksums only its header can tell.
 */
static bool
is_damaged(const NcRead *read, int i)
{
	char		shard[NC_RING_ERROR_BYTES];

	if (PageIsVerifiedExtended(read->pages[i], read->block + i, 0))
		return false;
	nc_stat(NC_COUNTER_DAMAGED_ANSWERS, 1);
	if (!may_log(&nc_shared->damaged_logged_us, DAMAGED_LOG_PERIOD_US))
		return true;
	nc_describe_shard(&read->rel, read->block + i, shard, sizeof(shard));
	ereport(LOG,
			(errmsg("page server gave a damaged block %u of relation %u/%u/%u, asking again",
					read->block + i, read->rel.spc, read->rel.db, read->rel.rel),
			 errdetail("It came from %s. %lld damaged pages came so far.", shard,
					   (long long) nc_counter_value(&nc_shared->counters, NC_COUNTER_DAMAGED_ANSWERS)),
			 errhidestmt(true)));
	return true;
}

static void
check_page(const NcRead *read, int i, XLogRecPtr flush)
{
	XLogRecPtr	lsn = PageIsNew(read->pages[i]) ? 0 : PageGetLSN(read->pages[i]);

	switch (nc_answer_verdict(lsn, read->exact[i], flush))
	{
		case NC_ANSWER_OK:
			return;
		case NC_ANSWER_STALE:
			nc_stat(NC_COUNTER_STALE_ANSWERS, 1);
			ereport(ERROR,
					(errcode(ERRCODE_DATA_CORRUPTED),
					 errmsg("page server gave an old version of block %u of relation %u/%u/%u",
							read->block + i, read->rel.spc, read->rel.db, read->rel.rel),
					 errdetail("The page has LSN %X/%X, but %X/%X was written here; asked for not_modified_since %X/%X.",
							   LSN_FORMAT_ARGS(lsn), LSN_FORMAT_ARGS(read->exact[i]),
							   LSN_FORMAT_ARGS(read->not_modified_since)),
					 errhint("The page was not used. The page server has lost or not applied WAL; see its log.")));
			break;
		case NC_ANSWER_FUTURE:
			nc_stat(NC_COUNTER_FUTURE_ANSWERS, 1);
			ereport(ERROR,
					(errcode(ERRCODE_DATA_CORRUPTED),
					 errmsg("page server gave a version of block %u of relation %u/%u/%u from the future",
							read->block + i, read->rel.spc, read->rel.db, read->rel.rel),
					 errdetail("The page has LSN %X/%X, but this server's WAL ends at %X/%X.",
							   LSN_FORMAT_ARGS(lsn), LSN_FORMAT_ARGS(flush)),
					 errhint("The page was not used. That page server has WAL which this server does not have; it must be rebuilt from this timeline.")));
			break;
	}
}

/* Moves bounced pages to where they belong, then checks every page. False: one is damaged. */
static bool
collect(Request *req, bool last)
{
	const NcRead *read = req->read;
	XLogRecPtr	flush = RecoveryInProgress() ? InvalidXLogRecPtr : GetFlushRecPtr(NULL);

	for (int i = 0; i < read->nblocks; i++)
	{
		uint32		dest = my_ring->dests[i];

		if ((dest & NC_DEST_BOUNCE) != 0)
		{
			memcpy(read->pages[i], nc_bounce + (Size) (dest & ~NC_DEST_BOUNCE) * BLCKSZ, BLCKSZ);
			nc_stat(NC_COUNTER_READS_BOUNCE, 1);
		}
		else
			nc_stat(NC_COUNTER_READS_SHARED_BUFFER, 1);
		if (!last && is_damaged(read, i))
			return false;
		check_page(read, i, flush);
	}
	nc_stat(NC_COUNTER_READS_REMOTE, read->nblocks);
	return true;
}

/* ---- direct mode ---- */

static bool
is_direct(void)
{
	if (nc_guc_mode == NC_MODE_DIRECT)
		return !nc_direct_busy();
	if (!nc_direct_busy())
		nc_direct_close();
	return false;
}

static void
direct_idle(void *arg)
{
	process_interrupts();
	check_deadline(arg);
}

/* As read_once (nblocks > 0) and exists_once (0), over the process's own connection. */
static bool
ask_direct(Request *req, NcDirectAsk *ask)
{
	NcSlotResult result;

	make_lsn_available(ask->not_modified_since);
	req->request_lsn = ask->request_lsn;
	req->not_modified_since = ask->not_modified_since;
	req->started_us = nc_clock_us();
	ask->idle = direct_idle;
	ask->idle_arg = req;
	ask->slice_ms = Min(WAIT_SLICE_MS, Min(nc_guc_request_timeout, nc_guc_wait_log_period));
	result = nc_direct_ask(ask);
	nc_stat(NC_COUNTER_WAIT_US, nc_clock_us() - req->started_us);
	if (result == NC_SLOT_RESULT_OK)
		return true;
	if (!AmStartupProcess())
		raise_failure(req, result, ask->error);
	/* pause_recovery() tells it from there */
	strlcpy(my_ring->error, ask->error, sizeof(my_ring->error));
	return false;
}

static Attempt
read_direct(const NcRead *read, bool last)
{
	Request		req = {.read = read, .rel = read->rel, .block = read->block};
	XLogRecPtr	flush;
	NcDirectAsk ask = {
		.rel = read->rel,
		.block = read->block,
		.nblocks = read->nblocks,
		.pages = read->pages,
		.request_lsn = read->request_lsn,
		.not_modified_since = read->not_modified_since
	};

	if (!ask_direct(&req, &ask))
		return ATTEMPT_REFUSED;
	flush = RecoveryInProgress() ? InvalidXLogRecPtr : GetFlushRecPtr(NULL);
	for (int i = 0; i < read->nblocks; i++)
	{
		if (!last && is_damaged(read, i))
			return ATTEMPT_DAMAGED;
		check_page(read, i, flush);
	}
	nc_stat(NC_COUNTER_READS_REMOTE, read->nblocks);
	nc_stat(NC_COUNTER_READS_DIRECT, read->nblocks);
	return ATTEMPT_OK;
}

static bool
exists_direct(const NcRelKey *rel, XLogRecPtr request_lsn, XLogRecPtr not_modified_since,
			  bool *exists)
{
	Request		req = {.rel = *rel};
	NcDirectAsk ask = {
		.rel = *rel,
		.request_lsn = request_lsn,
		.not_modified_since = not_modified_since
	};

	if (!ask_direct(&req, &ask))
		return false;
	*exists = ask.exists;
	return true;
}

/* ---- once, in either mode ---- */

/* Asks once for the pages. `last`: damaged ones are left for bufmgr to report. */
static Attempt
read_once(const NcRead *read, bool last)
{
	Request		req = {.read = read, .rel = read->rel, .block = read->block};
	volatile Attempt attempt = ATTEMPT_OK;

	(void) nc_client_attach();
	if (is_direct())
		return read_direct(read, last);
	make_lsn_available(read->not_modified_since);
	PG_ENSURE_ERROR_CLEANUP(release_on_exit, PointerGetDatum(&req));
	{
		submit_and_wait(&req, NC_SLOT_KIND_GETPAGE, read->request_lsn, read->not_modified_since);
		if (req.slot->result == NC_SLOT_RESULT_OK)
		{
			if (!collect(&req, last))
				attempt = ATTEMPT_DAMAGED;
		}
		else if (AmStartupProcess())
			attempt = ATTEMPT_REFUSED;
		else
			report_failure(&req);
	}
	PG_END_ENSURE_ERROR_CLEANUP(release_on_exit, PointerGetDatum(&req));
	release(&req);
	return attempt;
}

/* As read_once, for a question without pages. */
static bool
exists_once(const NcRelKey *rel, XLogRecPtr request_lsn, XLogRecPtr not_modified_since,
			bool *exists)
{
	Request		req = {.rel = *rel};
	volatile bool ok = true;

	(void) nc_client_attach();
	if (is_direct())
		return exists_direct(rel, request_lsn, not_modified_since, exists);
	make_lsn_available(not_modified_since);
	PG_ENSURE_ERROR_CLEANUP(release_on_exit, PointerGetDatum(&req));
	{
		submit_and_wait(&req, NC_SLOT_KIND_EXISTS, request_lsn, not_modified_since);
		if (req.slot->result == NC_SLOT_RESULT_OK)
			*exists = req.slot->value != 0;
		else if (AmStartupProcess())
			ok = false;
		else
			report_failure(&req);
	}
	PG_END_ENSURE_ERROR_CLEANUP(release_on_exit, PointerGetDatum(&req));
	release(&req);
	return ok;
}

/* Recovery waits: a moment's pause, and a line in the log now and then. */
static void
pause_recovery(const NcRead *read, uint64 *logged_us)
{
	if (nc_clock_us() - *logged_us >= (uint64) nc_guc_wait_log_period * 1000)
	{
		*logged_us = nc_clock_us();
		ereport(LOG,
				(errmsg("recovery waits for block %u of relation %u/%u/%u: its page server answers with an error",
						read->block, read->rel.spc, read->rel.db, read->rel.rel),
				 errdetail("%s", my_ring->error),
				 errhint("Recovery goes on as soon as the page server answers.")));
	}
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					 RECOVERY_RETRY_MS, WAIT_EVENT_DATA_FILE_READ);
	ResetLatch(MyLatch);
	process_interrupts();
}

void
nc_client_read(const NcRead *read)
{
	uint64		logged_us = 0;
	int			damaged = 0;
	Attempt		attempt;

	Assert(read->nblocks >= 1 && read->nblocks <= NC_SLOT_BLOCKS_MAX);
	while ((attempt = read_once(read, damaged == DAMAGED_RETRIES)) != ATTEMPT_OK)
	{
		bool		exists;

		if (attempt == ATTEMPT_DAMAGED)
		{
			damaged++;
			continue;
		}

		/*
		 * Redo of a relation that a later record drops asks for pages the page
		 * server does not have any more; zeroes let the redo routine do the
		 * right thing.
		 */
		if (exists_once(&read->rel, read->request_lsn, read->not_modified_since, &exists) &&
			!exists)
		{
			for (int i = 0; i < read->nblocks; i++)
				memset(read->pages[i], 0, BLCKSZ);
			nc_stat(NC_COUNTER_READS_ZERO_RECOVERY, read->nblocks);
			return;
		}
		pause_recovery(read, &logged_us);
	}
}
