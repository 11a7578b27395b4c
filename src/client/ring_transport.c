/*
 * ring_transport.c
 *	  A process's side of its ring: fill a slot, ring the doorbell, wait, fetch
 *	  the answer, give the slot back.
 *
 * Runs in every process of the compute.  The slot is given back on every way
 * out, ERROR and FATAL included, before the buffer whose page it asks for can
 * be reused; a late answer then finds another generation.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "pgstat.h"
#include "port/pg_bitutils.h"
#include "storage/buf_internals.h"
#include "storage/bufmgr.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/pmsignal.h"
#include "storage/proc.h"
#include "storage/s_lock.h"
#include "utils/wait_event.h"

#include "nc/base/clock.h"
#include "nc/base/futex.h"
#include "nc/shared/settings.h"
#include "nc/shared/shmem.h"
#include "nc/shared/test_point.h"
#include "nc/shared/waits.h"
#include "nc/tracing/tracing.h"
#include "client_int.h"

/* Looking at the slot before sleeping, if the setting leaves it to us: about a round trip in a rack. */
#define SPIN_US 20

/* Looks between two readings of the clock. */
#define SPIN_LOOKS 32

/* Pause between attempts to get one of the few bounce pages. */
#define BOUNCE_RETRY_US 1000

/* A copy that is not over after so many looks, half a minute or so, is told. */
#define COPY_LOOKS_LOG 500000

/* A copy takes a microsecond; after so many looks at it one asks whether anybody is left. */
#define COPY_LOOKS_MAX 10000

/* A question of this process: its slot and the bounce pages it uses. */
typedef struct Request
{
	NcAsk	   *ask;
	NcSlot	   *slot;			/* NULL: none yet */
	uint64		bounce;			/* bit per bounce page held, all of one word of the map */
	int			bounce_word;
} Request;

/* A running mean of how long reads waited. */
static uint64 usual_wait_us = 0;

/* This process's ring, once it has used it. */
static NcRing *my_ring = NULL;

/* ---- slots ---- */

/*
 * The one wait without a deadline: who left now would let the communicator write
 * to memory that is somebody else's soon.  It is a memcpy, unless it was stopped in it.
 */
static void
wait_for_copy(int looks)
{
	if (looks > 0 && looks % COPY_LOOKS_LOG == 0)
		ereport(LOG,
				(errmsg("still waiting for the communicator to finish copying a page"),
				 errdetail("Process %u is the communicator; it does not get on.",
						   atomic_load(&nc_shared->communicator_pid)),
				 errhint("If it was stopped (SIGSTOP, a debugger), let it go on."),
				 errhidestmt(true)));
	pg_usleep(10);
}

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
				wait_for_copy(looks);
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
	if (MyProc == NULL || NC_MY_PROC_INDEX() >= nc_rings.aio_first)
		elog(ERROR, "neon_comm: this process has no request ring");

	/* Nothing of an earlier owner may remain; its exit callbacks have seen to that. */
	my_ring = &nc_rings.rings[NC_MY_PROC_INDEX()];
	for (int i = 0; i < NC_RING_SLOTS; i++)
		(void) nc_client_withdraw(&my_ring->slots[i]);
	atomic_store(&my_ring->client_asleep, 0);
	atomic_store(&my_ring->promoted, 0);
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

/* The lowest n pages that are free; 0 when there are not so many. */
static uint64
choose_bounce(uint64 taken, int n)
{
	uint64		left = ~taken;
	uint64		chosen = 0;

	if (pg_popcount64(left) < n)
		return 0;
	for (; n > 0; n--)
	{
		chosen |= left & -left;
		left &= left - 1;
	}
	return chosen;
}

/*
 * All bounce pages of a request at once, or none: nobody holds some while it waits
 * for others.  The first word of the map is not for what nobody waits for.
 */
static bool
try_bounce(Request *req, int n)
{
	if (NC_TEST_TRUE("client-no-bounce"))
		return false;
	for (int w = req->ask->background ? 1 : 0; w < NC_BOUNCE_WORDS; w++)
	{
		uint64		taken = atomic_load(&nc_shared->bounce_taken[w]);
		uint64		chosen;

		while ((chosen = choose_bounce(taken, n)) != 0)
		{
			if (!atomic_compare_exchange_strong(&nc_shared->bounce_taken[w], &taken,
												taken | chosen))
				continue;
			req->bounce = chosen;
			req->bounce_word = w;
			return true;
		}
	}
	return false;
}

/* The next of the pages that it has. */
static uint32
next_bounce(const Request *req, uint64 *left)
{
	int			bit = pg_rightmost_one_pos64(*left);

	*left &= *left - 1;
	return (uint32) (req->bounce_word * 64 + bit);
}

static void
release_request(Request *req)
{
	if (req->slot != NULL)
		(void) nc_client_withdraw(req->slot);
	req->slot = NULL;
	if (req->bounce != 0)
		atomic_fetch_and(&nc_shared->bounce_taken[req->bounce_word], ~req->bounce);
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

	NcSlot	   *unanswered = NULL;

	if (req->slot != NULL && !is_done(req))
	{
		nc_stat(NC_COUNTER_REQUEST_CANCELS, 1);
		unanswered = req->slot;
	}
	release_request(req);
	if (unanswered != NULL)
		nc_tracing_end(NC_MY_PROC_INDEX(), (uint32) (unanswered - my_ring->slots), nc_clock_us(), true);
}

static bool
is_shared_buffer(const char *page)
{
	return page >= BufferBlocks && page < BufferBlocks + (Size) NBuffers * BLCKSZ;
}

/* ---- waiting ---- */

/* A test has it longer, to see that nothing waits for the end of it. */
static int
sleep_ms(void)
{
	return NC_TEST_TRUE("client-sleeps-long") ? 3600 * 1000 : nc_wait_slice_ms();
}

/* Can this process sleep on its slot's word? */
static bool
can_sleep_on_word(void)
{
	static int	can = -1;

	if (can < 0)
		can = nc_futex_can();
	return can > 0 && nc_guc_futex_waits;
}

/*
 * Until the slot's word is not `word` any more and the communicator says so, or a signal has
 * come.  Handlers set the latch, which is compared as the word is: one that runs just before
 * the sleep prevents it.  Who sets the latch from another process wakes nobody here, and need
 * not: what is for now comes with a signal.
 */
static void
sleep_on_word(const Request *req, uint64 word)
{
	const NcFutexWord words[] = {
		{.word = nc_slot_futex(req->slot),.seen = (uint32) word,.shared = true},
		{.word = &MyLatch->is_set,.seen = 0},
		{.word = &postmaster_possibly_dead,.seen = 0}
	};

	StaticAssertStmt(sizeof(sig_atomic_t) == sizeof(uint32), "the kernel compares 32 bits");
	pgstat_report_wait_start(nc_wait_event(NC_WAIT_PAGE_READ));
	nc_futex_sleep(words, lengthof(words), nc_clock_us() + (uint64) sleep_ms() * 1000);
	pgstat_report_wait_end();
	/* as WL_EXIT_ON_PM_DEATH does */
	if (!PostmasterIsAlive())
		proc_exit(1);
}

static void
sleep_on_latch(void)
{
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, sleep_ms(),
					 nc_wait_event(NC_WAIT_PAGE_READ));
}

/* One sleep; returns whether it consumed a set of the latch. */
static bool
sleep_once(Request *req)
{
	bool		on_word = can_sleep_on_word();
	uint64		word;
	bool		consumes;

	/* pairs with nc_ring_client_needs_wake(): say "asleep", full barrier, look at the slot */
	atomic_store_explicit(&my_ring->client_asleep,
						  NC_RING_ASLEEP_FOR(req->slot - my_ring->slots) |
						  (on_word ? NC_RING_ASLEEP_ON_WORD : 0), memory_order_seq_cst);
	atomic_thread_fence(memory_order_seq_cst);
	word = nc_slot_load(req->slot);
	if (nc_slot_word_state(word) != NC_SLOT_DONE)
	{
		nc_stat(NC_COUNTER_CLIENT_SLEEPS, 1);
		NC_TEST_POINT_REL("client-sleep", req->ask->rel.rel);
		if (on_word)
			sleep_on_word(req, word);
		else
			sleep_on_latch();
	}
	atomic_store_explicit(&my_ring->client_asleep, 0, memory_order_seq_cst);
	consumes = MyLatch->is_set;
	if (consumes)
		ResetLatch(MyLatch);
	return consumes;
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
	} while (nc_clock_us() - req->ask->started_us < most);
	nc_stat(NC_COUNTER_CLIENT_SPINS_VAIN, 1);
	return false;
}

/* What the wait tells: for the next one, and for the view. */
static void
note_wait(const Request *req)
{
	uint64		now_us = nc_clock_us();
	uint64		waited_us = now_us - req->ask->started_us;

	nc_stat(NC_COUNTER_WAIT_US, waited_us);
	nc_tally(NC_TALLY_WAITS, 1);
	nc_tally(NC_TALLY_WAIT_US, waited_us);
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

	if (!is_done(req))
		(void) spin(req);
	while (!is_done(req))
	{
		consumed |= sleep_once(req);
		if (is_done(req))
			break;
		req->ask->idle(req->ask, NC_WAIT_FOR_ANSWER);
	}
	/* Others wait on the same latch for their own reasons: pass on what was taken. */
	if (consumed)
		SetLatch(MyLatch);
	note_wait(req);
}

void
nc_client_await(NcSlot *slot, NcAsk *ask)
{
	Request		req = {.ask = ask, .slot = slot};

	ask->at = &req;
	wait_done(&req);
}

static void
ring_progress(const NcAsk *ask, char *text, Size bytes)
{
	const Request *req = ask->at;

	snprintf(text, bytes, "slot %d of process %d is %s", (int) (req->slot - my_ring->slots),
			 MyProcPid, nc_slot_state_name(nc_slot_word_state(nc_slot_load(req->slot))));
}

/* ---- waiting for bounce pages ---- */

/* Before the slot is filled: whoever waits here holds nothing. */
static void
take_bounce(Request *req)
{
	NcAsk	   *ask = req->ask;
	int			n = 0;

	for (int i = 0; i < ask->nblocks; i++)
		n += is_shared_buffer(ask->pages[i]) ? 0 : 1;
	while (n > 0 && !try_bounce(req, n))
	{
		pgstat_report_wait_start(nc_wait_event(NC_WAIT_BOUNCE_PAGE));
		pg_usleep(BOUNCE_RETRY_US);
		pgstat_report_wait_end();
		ask->idle(ask, NC_WAIT_FOR_MEMORY);
	}
}

/* ---- a request from start to end ---- */

static void
fill_slot(Request *req)
{
	const NcAsk *ask = req->ask;
	NcSlot	   *slot = req->slot;
	uint64		bounce = req->bounce;

	slot->spc = ask->rel.spc;
	slot->db = ask->rel.db;
	slot->rel = ask->rel.rel;
	slot->fork = ask->rel.fork;
	slot->kind = ask->kind;
	slot->class = ask->background ? NC_SLOT_CLASS_BULK : NC_SLOT_CLASS_DEMAND;
	slot->nblocks = Max(ask->nblocks, 1);
	slot->block = ask->block;
	slot->dest_first = 0;
	slot->result = NC_SLOT_RESULT_OK;
	slot->request_lsn = ask->request_lsn;
	slot->not_modified_since = ask->not_modified_since;
	slot->submit_us = nc_clock_us();
	slot->value = 0;
	for (int i = 0; i < ask->nblocks; i++)
	{
		char	   *page = ask->pages[i];

		my_ring->dests[i] = is_shared_buffer(page) ? (page - BufferBlocks) / BLCKSZ
			: NC_DEST_BOUNCE | next_bounce(req, &bounce);
	}
}

static void
submit_and_wait(Request *req)
{
	uint64		word;

	take_bounce(req);
	req->slot = &my_ring->slots[free_slot()];
	word = nc_slot_load(req->slot);
	if (!nc_slot_move(req->slot, word, NC_SLOT_FILLING))
		elog(ERROR, "neon_comm: a request slot of this process changed by itself");
	fill_slot(req);
	nc_tracing_begin(NC_MY_PROC_INDEX(), (uint32) (req->slot - my_ring->slots));
	NC_TEST_POINT_REL("client-submit", req->ask->rel.rel);
	word = nc_slot_load(req->slot);
	if (!nc_slot_move(req->slot, word, NC_SLOT_SUBMITTED))
		elog(ERROR, "neon_comm: a request slot of this process changed by itself");
	if (!NC_TEST_TRUE("client-no-ring"))
		(void) nc_ring_notify(&nc_rings, NC_MY_PROC_INDEX(), (uint32) (req->slot - my_ring->slots));
	NC_TEST_POINT_REL("client-submitted", req->ask->rel.rel);
	wait_done(req);
	nc_tracing_end(NC_MY_PROC_INDEX(), (uint32) (req->slot - my_ring->slots), nc_clock_us(), false);
	NC_TEST_POINT_REL("client-done", req->ask->rel.rel);
}

/* Out of a slot in DONE, before it is given back. Moves bounced pages to where they belong. */
static NcSlotResult
fetch_answer(Request *req)
{
	NcAsk	   *ask = req->ask;
	NcSlotResult result = req->slot->result;

	if (result != NC_SLOT_RESULT_OK)
	{
		strlcpy(ask->error, my_ring->errors[req->slot - my_ring->slots], NC_RING_ERROR_BYTES);
		return result;
	}
	ask->value = req->slot->value;
	for (int i = 0; i < ask->nblocks; i++)
	{
		uint32		dest = my_ring->dests[i];

		if ((dest & NC_DEST_BOUNCE) != 0)
		{
			memcpy(ask->pages[i], nc_bounce + (Size) (dest & ~NC_DEST_BOUNCE) * BLCKSZ, BLCKSZ);
			nc_stat(NC_COUNTER_READS_BOUNCE, 1);
		}
		else
			nc_stat(NC_COUNTER_READS_SHARED_BUFFER, 1);
	}
	return result;
}

static NcSlotResult
ask_ring(NcAsk *ask)
{
	Request		req = {.ask = ask};
	NcSlotResult result;

	ask->at = &req;
	PG_ENSURE_ERROR_CLEANUP(release_on_exit, PointerGetDatum(&req));
	{
		submit_and_wait(&req);
	}
	PG_END_ENSURE_ERROR_CLEANUP(release_on_exit, PointerGetDatum(&req));
	result = fetch_answer(&req);
	release_request(&req);
	return result;
}

const NcTransport nc_ring_transport = {
	.ask = ask_ring,
	.progress = ring_progress
};
