/*
 * prefetch.c
 *	  Pages asked for ahead, and the staging memory they wait in.
 *
 * Runs in every process of the compute that reads ahead.  What it keeps track of
 * is its own memory: nobody else looks at it and nothing is locked.  Staging pages are
 * in shared memory, because the communicator copies into them; chunks of them are
 * lent to one process at a time.
 *
 * Guarantees: a page is handed out only if nothing can have changed it since it was
 * asked for (the caller's not_modified_since of now is not newer than that of then),
 * so a truncation, a drop or an eviction of a newer version makes it useless, not
 * wrong.  Every slot and chunk is given back at the end of the transaction or of
 * the process; a chunk that is not used for long may be taken before, by who needs
 * one, and what is in it is forgotten then.  Nobody waits here but for a page that
 * he needs.
 *
 * Never asks twice: what is lost (an error, a connection that ends, a communicator
 * that forgets) is asked for again by the read that needs it.
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "access/xlogutils.h"
#include "miscadmin.h"
#include "storage/bufpage.h"
#include "storage/ipc.h"
#include "storage/proc.h"
#include "utils/memutils.h"

#include "nc/base/clock.h"
#include "nc/client/client.h"
#include "nc/client/prefetch.h"
#include "nc/compat/page.h"
#include "nc/feed/feed.h"
#include "nc/lsn/request_lsn.h"
#include "nc/shared/settings.h"
#include "nc/shared/shmem.h"
#include "nc/tracing/tracing.h"
#include "client_int.h"

#define CHUNK_PAGES NC_STAGING_CHUNK_PAGES

/* Chunks of one process: the upper limit of neon_comm.staging_quota. */
#define CHUNKS_MAX 64

#define HASH_HEADS 1024
#define NOTHING (-1)

/*
 * Pages that were not read for so long, while others were, are given up when room
 * is needed: after this many reads for each page of the quota, or this much time.
 */
#define OVERDUE_READS 4
#define OVERDUE_US 2000000

/* One page asked for; number i lies on page i % CHUNK_PAGES of chunk i / CHUNK_PAGES. */
typedef struct Staged
{
	NcRelKey	rel;
	BlockNumber block;
	XLogRecPtr	nms;			/* it was asked for with */
	int16		next;			/* of the same hash, or NOTHING */
	int8		slot;			/* that brings it, or NOTHING: it is here */
	uint8		tag;
	bool		live;
} Staged;

/* A chunk of staging memory lent to this process. Pages are given out from its start, once. */
typedef struct Chunk
{
	int			number;			/* in nc_staging, or NOTHING */
	int			given;			/* pages given out */
	int			live;			/* of these, not read and not dropped */
	uint64		reads;			/* clock when the last was given out */
	uint64		at_us;
} Chunk;

/*
 * A chunk is taken from an owner who has not used it for so long, if none is free:
 * a transaction that is idle behind a cursor would hold it until it ends.
 */
#define RECLAIM_US 1000000

/* The high half of a chunk's word in shared memory. */
#define AT_IT (UINT64CONST(1) << 32)
#define TAKER(mine) ((uint64) (mine) << 33)

/* A slot of the upper half of the ring: the run of pages that it brings. */
typedef struct Asked
{
	int			first;			/* NOTHING = the slot is free */
	int			n;
} Asked;

/* Blocks that the executor named and that were not asked for yet. */
typedef struct Named
{
	NcRelKey	rel;
	BlockNumber block;
	int			n;
	XLogRecPtr	nms;
	int			tag;
} Named;

/* Runs of named blocks; a distance of a thousand blocks in the worst order needs more, and loses some. */
#define NAMED_MAX 64

/* With fewer requests under way a named block is asked for at once, else it waits for neighbours. */
#define ASK_AT_ONCE 16

#define SLOT_FIRST NC_RING_DEMAND_SLOTS
#define SLOTS (NC_RING_SLOTS - NC_RING_DEMAND_SLOTS)

uint32		nc_prefetch_unread[NC_PREFETCH_TAGS];

static NcRing *ring = NULL;		/* NULL: this process never asked ahead */
static Staged *staged;			/* [CHUNKS_MAX * CHUNK_PAGES] */
static int16 heads[HASH_HEADS];
static Chunk chunks[CHUNKS_MAX];
static int	nchunks;			/* lent */
static int	filling = NOTHING;	/* the chunk that pages are given out from */
static Asked asked[SLOTS];
static int	nasked;
static int	nlive;
static int	live_of[NC_PREFETCH_TAGS];	/* of these, by who asked */
static Named named[NAMED_MAX];	/* a queue, the oldest first */
static int	nnamed;
static uint64 reads;			/* calls of nc_prefetch_take: a clock of use */
static bool leaving = false;	/* the process ends: nothing new */

/* ---- pages by name ---- */

static int16 *
head_of(const NcRelKey *rel, BlockNumber block)
{
	NcPageKey	key = {*rel, block};

	return &heads[nc_page_key_hash(&key) % HASH_HEADS];
}

static int
find_asked(const NcRelKey *rel, BlockNumber block)
{
	int			i = *head_of(rel, block);

	while (i != NOTHING && !(staged[i].block == block && nc_rel_key_equal(&staged[i].rel, rel)))
		i = staged[i].next;
	return i;
}

static void
enter(int i, const NcRelKey *rel, BlockNumber block, XLogRecPtr nms, int slot, int tag)
{
	int16	   *head = head_of(rel, block);

	staged[i] = (Staged) {
		.rel = *rel, .block = block, .nms = nms, .next = *head, .slot = slot, .tag = tag,
		.live = true
	};
	*head = i;
	chunks[i / CHUNK_PAGES].live++;
	live_of[tag]++;
	nlive++;
}

/* Forgets a page, read or not. Its slot, if it is on its way, stays as it is. */
static void
leave_ahead(int i)
{
	int16	   *at = head_of(&staged[i].rel, staged[i].block);

	while (*at != i)
		at = &staged[*at].next;
	*at = staged[i].next;
	staged[i].live = false;
	chunks[i / CHUNK_PAGES].live--;
	live_of[staged[i].tag]--;
	nlive--;
}

static void
drop_unread(int i, NcCounter why)
{
	nc_stat(why, 1);
	nc_prefetch_unread[staged[i].tag]++;
	leave_ahead(i);
}

/* ---- slots ---- */

static NcSlot *
slot_at(int s)
{
	return &ring->slots[SLOT_FIRST + s];
}

static bool
is_done(int s)
{
	return nc_slot_word_state(nc_slot_load(slot_at(s))) == NC_SLOT_DONE;
}

/* The slot is free again; its pages that are left are here, or lost when it failed. */
static void
end_slot(int s, bool came, NcCounter why)
{
	for (int i = asked[s].first; i < asked[s].first + asked[s].n; i++)
	{
		if (!staged[i].live || staged[i].slot != s)
			continue;
		staged[i].slot = NOTHING;
		if (!came)
			drop_unread(i, why);
	}
	asked[s].first = NOTHING;
	nasked--;
}

/* A slot that is DONE. */
static void
collect_ahead(int s)
{
	bool		came = slot_at(s)->result == NC_SLOT_RESULT_OK;

	nc_tracing_end((uint32) (ring - nc_rings.rings), (uint32) (SLOT_FIRST + s), 0, false);
	(void) nc_client_withdraw(slot_at(s));
	end_slot(s, came, NC_COUNTER_PREFETCH_FAILED);
}

/* Gives up a request, unless it has ended. */
static void
withdraw(int s)
{
	if (is_done(s))
	{
		collect_ahead(s);
		return;
	}
	if (nc_client_withdraw(slot_at(s)))
		nc_stat(NC_COUNTER_PREFETCH_CANCELLED, 1);
	end_slot(s, false, NC_COUNTER_PREFETCH_WASTED);
}

static int
free_slot(void)
{
	if (nasked == SLOTS)
		for (int s = 0; s < SLOTS; s++)
			if (is_done(s))
				collect_ahead(s);
	for (int s = 0; s < SLOTS; s++)
		if (asked[s].first == NOTHING)
			return s;
	return NOTHING;
}

/* ---- chunks ---- */

static uint32
my_number(void)
{
	return (uint32) (ring - nc_rings.rings) + 1;
}

/* This process has it no longer. */
static void
drop_chunk(int c)
{
	chunks[c].number = NOTHING;
	nchunks--;
	if (filling == c)
		filling = NOTHING;
}

/* Gives it back, unless somebody has taken it; who is just about to finds it free. */
static void
return_chunk(int c)
{
	_Atomic uint64_t *owner = &nc_staging.owner[chunks[c].number];
	uint64		word = atomic_load(owner);

	Assert(chunks[c].live == 0);
	while ((uint32) word == my_number() && !atomic_compare_exchange_weak(owner, &word, 0))
		;
	drop_chunk(c);
}

/* Drops all that is in a chunk, whatever its state. */
static void
empty_chunk(int c)
{
	for (int s = 0; s < SLOTS; s++)
		if (asked[s].first != NOTHING && asked[s].first / CHUNK_PAGES == c)
			withdraw(s);
	for (int i = c * CHUNK_PAGES; i < c * CHUNK_PAGES + chunks[c].given; i++)
		if (staged[i].live)
			drop_unread(i, NC_COUNTER_PREFETCH_WASTED);
	chunks[c].given = 0;
}

/*
 * The owner is at the chunk: nobody takes it.  False: somebody has, or is about to; then all
 * that was in it is forgotten.
 */
static bool
enter_chunk(int c)
{
	uint64		word = my_number();

	if (atomic_compare_exchange_strong(&nc_staging.owner[chunks[c].number], &word, word | AT_IT))
	{
		atomic_store_explicit(&nc_staging.used_us[chunks[c].number], nc_clock_us(),
							  memory_order_relaxed);
		return true;
	}
	empty_chunk(c);
	return_chunk(c);
	return false;
}

static void
leave_chunk(int c)
{
	atomic_store(&nc_staging.owner[chunks[c].number], my_number());
}

/* May a chunk be given out from its start again? Not while a slot could write there. */
static bool
is_reusable(int c)
{
	if (chunks[c].number == NOTHING || chunks[c].live > 0)
		return false;
	for (int s = 0; s < SLOTS; s++)
	{
		if (asked[s].first == NOTHING || asked[s].first / CHUNK_PAGES != c)
			continue;
		if (!is_done(s))
			return false;
		collect_ahead(s);
	}
	return true;
}

static bool
is_overdue(const Chunk *c)
{
	return c->number != NOTHING &&
		(reads - c->reads > (uint64) OVERDUE_READS * nc_guc_staging_quota ||
		 nc_clock_us() - c->at_us > OVERDUE_US);
}

/*
 * The chunk was taken from this process, given back, and is to be lent to it again: what
 * it remembers of the first time is gone, and must not be looked for in the second.
 */
static void
forget_lost(uint32 number)
{
	for (int c = 0; c < CHUNKS_MAX; c++)
	{
		if (chunks[c].number != (int) number)
			continue;
		empty_chunk(c);
		drop_chunk(c);
	}
}

static void
borrowed(int c, uint32 number)
{
	forget_lost(number);
	chunks[c] = (Chunk) {.number = (int) number};
	atomic_store(&nc_staging.used_us[number], nc_clock_us());
	nchunks++;
}

/*
 * May the communicator still write to a chunk that this process owns?  It cannot ask
 * for more meanwhile: the chunk is being taken.
 */
static bool
is_awaited(uint32 owner, uint32 number)
{
	NcRing	   *of = &nc_rings.rings[owner - 1];

	for (int s = SLOT_FIRST; s < NC_RING_SLOTS; s++)
	{
		switch (nc_slot_word_state(nc_slot_load(&of->slots[s])))
		{
			case NC_SLOT_FREE:
			case NC_SLOT_DONE:
				break;
			case NC_SLOT_FILLING:
				return true;
			case NC_SLOT_SUBMITTED:
			case NC_SLOT_TAKEN:
			case NC_SLOT_COPYING:
				if ((of->dests[s] & ~NC_DEST_STAGING) / CHUNK_PAGES == number)
					return true;
				break;
		}
	}
	return false;
}

/*
 * Takes the chunk from an owner who does not use it.  First the mark, with which the
 * owner can neither read from it nor have more written to it; then the look at what
 * is on its way.  The owner may give it back at any moment, and then it is free.
 */
static bool
take_chunk(uint32 number, uint32 owner)
{
	_Atomic uint64_t *at = &nc_staging.owner[number];
	uint64		word = owner;
	uint64		marked = owner | TAKER(my_number());
	bool		taken;

	if (is_awaited(owner, number) || !atomic_compare_exchange_strong(at, &word, marked))
		return false;
	taken = !is_awaited(owner, number);
	word = marked;
	return atomic_compare_exchange_strong(at, &word, taken ? my_number() : owner) && taken;
}

/* None is free: one that nobody has used for long. */
static bool
reclaim_chunk(int c)
{
	uint64		now = nc_clock_us();

	for (uint32 number = 0; number < nc_staging.nchunks; number++)
	{
		uint64		word = atomic_load(&nc_staging.owner[number]);
		uint64		used = atomic_load(&nc_staging.used_us[number]);

		if (word == 0 || word > UINT32_MAX || word == my_number() || used + RECLAIM_US > now ||
			!take_chunk(number, (uint32) word))
			continue;
		nc_stat(NC_COUNTER_STAGING_RECLAIMED, 1);
		borrowed(c, number);
		return true;
	}
	return false;
}

static bool
borrow_chunk(int c)
{
	uint32		mine = my_number();

	/* each process begins to look at another place */
	for (uint32 k = 0; k < nc_staging.nchunks; k++)
	{
		uint32		number = (k + mine * 7) % nc_staging.nchunks;
		uint64		nobody = 0;

		if (atomic_load_explicit(&nc_staging.owner[number], memory_order_relaxed) == 0 &&
			atomic_compare_exchange_strong(&nc_staging.owner[number], &nobody, mine))
		{
			borrowed(c, number);
			return true;
		}
	}
	return reclaim_chunk(c);
}

/* A chunk to give out from: one that was read, a new one, or one that nobody reads. */
static int
next_chunk(void)
{
	int			most = Min(nc_guc_staging_quota / CHUNK_PAGES, CHUNKS_MAX);
	int			vacant = NOTHING;

	for (int c = 0; c < CHUNKS_MAX; c++)
	{
		if (is_reusable(c))
		{
			chunks[c].given = 0;
			return c;
		}
		if (chunks[c].number == NOTHING && vacant == NOTHING)
			vacant = c;
	}
	if (nchunks < most && vacant != NOTHING && borrow_chunk(vacant))
		return vacant;
	for (int c = 0; c < CHUNKS_MAX; c++)
	{
		if (!is_overdue(&chunks[c]))
			continue;
		empty_chunk(c);
		return c;
	}
	return NOTHING;
}

/*
 * n neighbouring pages of staging memory: the number of the first, or NOTHING.  The caller
 * leaves their chunk when he has asked for them.
 */
static int
give_pages(int n)
{
	int			first;

	if (filling == NOTHING || chunks[filling].given + n > CHUNK_PAGES)
		filling = next_chunk();
	if (filling == NOTHING || !enter_chunk(filling))
		return NOTHING;
	first = filling * CHUNK_PAGES + chunks[filling].given;
	chunks[filling].given += n;
	chunks[filling].reads = reads;
	chunks[filling].at_us = nc_clock_us();
	return first;
}

/* ---- the end of what was asked for ---- */

static void
drop_all(void)
{
	nnamed = 0;
	for (int c = 0; c < CHUNKS_MAX; c++)
	{
		if (chunks[c].number == NOTHING)
			continue;
		empty_chunk(c);
		return_chunk(c);
	}
	Assert(nlive == 0 && nasked == 0 && nchunks == 0);
}

static void
at_transaction_end(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_PARALLEL_COMMIT:
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PARALLEL_ABORT:
		case XACT_EVENT_PREPARE:
			if (nchunks > 0 || nasked > 0 || nnamed > 0)
				drop_all();
			break;
		case XACT_EVENT_PRE_COMMIT:
		case XACT_EVENT_PARALLEL_PRE_COMMIT:
		case XACT_EVENT_PRE_PREPARE:
			break;
	}
}

static void
at_exit(int code, Datum arg)
{
	leaving = true;
	drop_all();
}

void
nc_prefetch_forget(int tag)
{
	for (int c = 0; c < CHUNKS_MAX && live_of[tag] > 0; c++)
	{
		if (chunks[c].number == NOTHING)
			continue;
		for (int i = c * CHUNK_PAGES; i < c * CHUNK_PAGES + chunks[c].given; i++)
			if (staged[i].live && staged[i].tag == tag)
				drop_unread(i, NC_COUNTER_PREFETCH_WASTED);
	}
}

/* ---- asking ---- */

static bool
start_prefetch(void)
{
	if (CritSectionCount > 0)
		return false;
	staged = MemoryContextAllocExtended(TopMemoryContext,
										CHUNKS_MAX * CHUNK_PAGES * sizeof(Staged),
										MCXT_ALLOC_NO_OOM | MCXT_ALLOC_ZERO);
	if (staged == NULL)
		return false;
	memset(heads, 0xff, sizeof(heads));
	for (int c = 0; c < CHUNKS_MAX; c++)
		chunks[c].number = NOTHING;
	for (int s = 0; s < SLOTS; s++)
		asked[s].first = NOTHING;
	ring = nc_client_attach();

	/*
	 * After all callbacks that may read pages, before the process gives its PGPROC back:
	 * so no chunk has this ring's number yet.  Who ends without callbacks ends the server.
	 */
	on_shmem_exit(at_exit, 0);
	RegisterXactCallback(at_transaction_end, NULL);
	return true;
}

bool
nc_prefetch_possible(void)
{
	/* a transaction's end is what returns memory, and recovery has its own order of things */
	return nc_client_mode() == NC_MODE_COMMUNICATOR && nc_staging.nchunks > 0 && nc_guc_staging_quota >= CHUNK_PAGES && !leaving &&
		IsTransactionState() && !InRecovery && (ring != NULL || start_prefetch());
}

/* The run of named blocks that holds this one, or NOTHING. */
static int
find_named(const NcRelKey *rel, BlockNumber block)
{
	for (int k = 0; k < nnamed; k++)
		if (block - named[k].block < (BlockNumber) named[k].n &&
			nc_rel_key_equal(&named[k].rel, rel))
			return k;
	return NOTHING;
}

bool
nc_prefetch_known(const NcRelKey *rel, BlockNumber block)
{
	return (nlive > 0 && find_asked(rel, block) != NOTHING) || find_named(rel, block) != NOTHING;
}

int
nc_prefetch_live(void)
{
	return nlive + nnamed;
}

static void
submit(int s, const NcRelKey *rel, BlockNumber block, int n, XLogRecPtr nms, uint32 page)
{
	NcSlot	   *slot = slot_at(s);
	uint32		my_ring = (uint32) (ring - nc_rings.rings);
	bool		moved = nc_slot_move(slot, nc_slot_load(slot), NC_SLOT_FILLING);

	nc_ring_unpromote(&nc_rings, my_ring, (uint32) (SLOT_FIRST + s));
	slot->spc = rel->spc;
	slot->db = rel->db;
	slot->rel = rel->rel;
	slot->fork = rel->fork;
	slot->kind = NC_SLOT_KIND_GETPAGE;
	slot->class = NC_SLOT_CLASS_PREFETCH;
	slot->nblocks = n;
	slot->block = block;
	slot->dest_first = SLOT_FIRST + s;
	slot->result = NC_SLOT_RESULT_OK;
	slot->request_lsn = NC_LSN_MAX;
	slot->not_modified_since = nms;
	slot->submit_us = nc_clock_us();
	slot->value = 0;
	ring->dests[SLOT_FIRST + s] = NC_DEST_STAGING | page;
	nc_tracing_begin(my_ring, (uint32) (SLOT_FIRST + s));
	moved = moved && nc_slot_move(slot, nc_slot_load(slot), NC_SLOT_SUBMITTED);
	Assert(moved);
	(void) moved;
	(void) nc_ring_notify(&nc_rings, my_ring, (uint32) (SLOT_FIRST + s));
}

bool
nc_prefetch_ask(const NcRelKey *rel, BlockNumber block, int nblocks, XLogRecPtr nms, int tag)
{
	int			s;
	int			first = NOTHING;

	Assert(nblocks >= 1 && nblocks <= CHUNK_PAGES && tag < NC_PREFETCH_TAGS);
	s = XLogNeedsFlush(nms) ? NOTHING : free_slot();
	if (s != NOTHING)
		first = give_pages(nblocks);
	if (first == NOTHING)
	{
		nc_stat(NC_COUNTER_PREFETCH_REFUSED, nblocks);
		return false;
	}
	nc_feed_ring(nms);
	asked[s].first = first;
	asked[s].n = nblocks;
	nasked++;
	for (int i = 0; i < nblocks; i++)
		enter(first + i, rel, block + i, nms, s, tag);
	submit(s, rel, block, nblocks, nms,
		   chunks[first / CHUNK_PAGES].number * CHUNK_PAGES + first % CHUNK_PAGES);
	leave_chunk(first / CHUNK_PAGES);
	nc_stat(NC_COUNTER_PREFETCH_ISSUED, nblocks);
	nc_tally(NC_TALLY_ASKED_AHEAD, nblocks);
	return true;
}

/* ---- blocks that the executor named ---- */

static void
remove_named(int k)
{
	nnamed--;
	memmove(&named[k], &named[k + 1], (nnamed - k) * sizeof(Named));
}

/* Asks for named blocks, oldest first, while there is room; the last run may still grow. */
static void
ask_named(void)
{
	while (nnamed > 0 && (nasked < ASK_AT_ONCE || nnamed > 1 || named[0].n == CHUNK_PAGES))
	{
		Named		run = named[0];

		if (nasked == SLOTS && free_slot() == NOTHING)
			return;
		remove_named(0);
		(void) nc_prefetch_ask(&run.rel, run.block, run.n, run.nms, run.tag);
	}
}

void
nc_prefetch_name(const NcRelKey *rel, BlockNumber block, XLogRecPtr nms, int tag)
{
	Named	   *last = nnamed > 0 ? &named[nnamed - 1] : NULL;

	if (last != NULL && last->block + last->n == block && last->n < CHUNK_PAGES &&
		last->tag == tag && nc_rel_key_equal(&last->rel, rel))
	{
		last->n++;
		last->nms = Max(last->nms, nms);
	}
	else if (nnamed < NAMED_MAX)
		named[nnamed++] = (Named) {.rel = *rel, .block = block, .n = 1, .nms = nms, .tag = tag};
	else
		nc_stat(NC_COUNTER_PREFETCH_REFUSED, 1);
}

void
nc_prefetch_ask_named(void)
{
	ask_named();
}

bool
nc_prefetch_known_by(const NcRelKey *rel, BlockNumber block, int tag)
{
	int			i = nlive > 0 ? find_asked(rel, block) : NOTHING;
	int			k = i == NOTHING ? find_named(rel, block) : NOTHING;

	return i != NOTHING ? staged[i].tag == tag : k != NOTHING && named[k].tag == tag;
}

/* A named block is read now: its run must not wait any longer, or leaves it out. */
static void
read_named(const NcRelKey *rel, BlockNumber block)
{
	int			k = find_named(rel, block);
	Named		run;

	if (k != NOTHING)
	{
		run = named[k];
		remove_named(k);
		if (nasked < SLOTS || free_slot() != NOTHING)
			(void) nc_prefetch_ask(&run.rel, run.block, run.n, run.nms, run.tag);
		else
			nc_stat(NC_COUNTER_PREFETCH_REFUSED, run.n);
	}
	ask_named();
}

/* ---- using ---- */

/* Somebody waits now: the communicator puts it before what nobody waits for. */
static void
join(int s, const NcRelKey *rel, BlockNumber block)
{
	nc_stat(NC_COUNTER_PREFETCH_JOINED, 1);
	nc_ring_promote(&nc_rings, (uint32) (ring - nc_rings.rings), (uint32) (SLOT_FIRST + s));
	nc_client_wait(slot_at(s), rel, block);
}

/* Copies the page out, unless it is not what a request would bring now. The chunk is entered. */
static bool
copy_out(int i, XLogRecPtr nms, XLogRecPtr exact, char *page)
{
	Chunk	   *c = &chunks[i / CHUNK_PAGES];
	const char *from = nc_staging.pages +
		((Size) c->number * CHUNK_PAGES + i % CHUNK_PAGES) * BLCKSZ;
	XLogRecPtr	lsn = PageIsNew((Page) from) ? 0 : PageGetLSN((Page) from);

	/* one that bufmgr would refuse: another answer may be good */
	if (!nc_page_is_sound(from, staged[i].block))
	{
		nc_stat(NC_COUNTER_DAMAGED_ANSWERS, 1);
		drop_unread(i, NC_COUNTER_PREFETCH_FAILED);
		return false;
	}
	/* a lie of the page server is told by the read that follows */
	if (nms > staged[i].nms ||
		nc_answer_verdict(lsn, exact, GetFlushRecPtr(NULL)) != NC_ANSWER_OK)
	{
		drop_unread(i, NC_COUNTER_PREFETCH_STALE);
		return false;
	}
	memcpy(page, from, BLCKSZ);
	leave_ahead(i);
	return true;
}

static bool
use(int i, XLogRecPtr nms, XLogRecPtr exact, char *page)
{
	int			c = i / CHUNK_PAGES;
	bool		used;

	if (!enter_chunk(c))
		return false;
	used = copy_out(i, nms, exact, page);
	leave_chunk(c);
	return used;
}

bool
nc_prefetch_take(const NcRelKey *rel, BlockNumber block, XLogRecPtr nms, XLogRecPtr exact,
				 char *page)
{
	bool		waited = false;
	int			i;

	reads++;
	if (nnamed > 0)
		read_named(rel, block);
	if (nlive == 0 || (i = find_asked(rel, block)) == NOTHING)
		return false;
	if (staged[i].slot != NOTHING && nms <= staged[i].nms)
	{
		int			s = staged[i].slot;

		waited = !is_done(s);
		if (waited)
			join(s, rel, block);
		collect_ahead(s);
		i = find_asked(rel, block);
		if (i == NOTHING)
			return false;
	}
	/* changed since: what is on its way is of no use, but nobody waits for it either */
	if (staged[i].slot != NOTHING)
	{
		drop_unread(i, NC_COUNTER_PREFETCH_STALE);
		return false;
	}
	if (!use(i, nms, exact, page))
		return false;
	if (!waited)
		nc_stat(NC_COUNTER_PREFETCH_HITS, 1);
	nc_tally(waited ? NC_TALLY_WAITED : NC_TALLY_AHEAD, 1);
	nc_stat(NC_COUNTER_READS_REMOTE, 1);
	nc_stat(NC_COUNTER_READS_STAGED, 1);
	return true;
}
