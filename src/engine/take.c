/*
 * take.c
 *	  From a submitted slot to a job: copy, validate, take.
 *
 * Runs in the communicator.  The fields of a slot are another process's memory:
 * they are copied once and only the copy is looked at.  SUBMITTED -> TAKEN on the
 * word read before the copy proves that the copy belongs to this life of the slot.
 */
#include "engine_int.h"

#include <stdio.h>
#include <string.h>

/* What is wrong with a request, or NULL. Dests are checked when the rest is right. */
static const char *
fields_wrong(const NcSlot *copy)
{
	if (copy->kind > NC_SLOT_KIND_DBSIZE)
		return "unknown kind";
	if (copy->class > NC_SLOT_CLASS_BULK)
		return "unknown class";
	if (copy->fork > NC_FORK_INIT)
		return "unknown fork";
	if (copy->kind != NC_SLOT_KIND_GETPAGE)
		return NULL;
	if (copy->nblocks < 1 || copy->nblocks > NC_SLOT_BLOCKS_MAX)
		return "bad number of blocks";
	if (copy->dest_first > NC_RING_DESTS - (copy->class == NC_SLOT_CLASS_PREFETCH ? 1 : copy->nblocks))
		return "destinations out of range";
	/* the highest number is no block */
	if (copy->block > UINT32_MAX - copy->nblocks)
		return "block out of range";
	return NULL;
}

static const char *
dests_wrong(const NcEngine *e, const NcJob *job)
{
	if (job->kind != NC_SLOT_KIND_GETPAGE)
		return NULL;
	for (uint32_t i = 0; i < job->nblocks; i++)
	{
		if (job->dests[i] == NC_DEST_NONE)
		{
			if (job->class != NC_SLOT_CLASS_PREFETCH)
				return "no destination";
		}
		else if (e->host.dest_page(e->host.ctx, job->ring, job->dests[i]) == NULL)
			return "bad destination";
	}
	return NULL;
}

/* A read ahead names the first page of a run, everything else each page. */
static void
copy_dests(NcJob *job, const uint32_t *dests)
{
	uint32_t	first;

	if (job->class != NC_SLOT_CLASS_PREFETCH)
	{
		memcpy(job->dests, dests, job->nblocks * sizeof(job->dests[0]));
		return;
	}
	first = *dests;
	for (uint32_t i = 0; i < job->nblocks; i++)
		job->dests[i] = first == NC_DEST_NONE ? NC_DEST_NONE : first + i;
}

/* Copies request and destinations into the job; returns what is wrong with them. */
static const char *
copy_request(const NcEngine *e, NcJob *job, uint32_t ring, uint32_t index)
{
	const NcRing *r = &e->area.rings[ring];
	NcSlot		copy;
	const char *wrong;

	memset(job, 0, sizeof(*job));
	memcpy(&copy, &r->slots[index], sizeof(copy));
	job->ring = ring;
	job->slot = index;
	job->rel = (NcRelKey) {copy.spc, copy.db, copy.rel, copy.fork};
	job->block = copy.block;
	job->request_lsn = copy.request_lsn;
	job->not_modified_since = copy.not_modified_since;
	job->submit_us = copy.submit_us;
	job->nblocks = 1;
	wrong = fields_wrong(&copy);
	if (wrong != NULL)
		return wrong;
	job->kind = (NcSlotKind) copy.kind;
	job->class = (NcSlotClass) copy.class;
	if (job->kind == NC_SLOT_KIND_GETPAGE)
	{
		job->nblocks = copy.nblocks;
		copy_dests(job, &r->dests[copy.dest_first]);
	}
	return dests_wrong(e, job);
}

/* Memory for all that the job can need, so that nothing of it can fail later. */
static bool
reserve(NcEngine *e, NcJob *job)
{
	if (!nc_store_reserve(&e->parts, job->nblocks))
		return false;
	/* pages read ahead are copied one by one as they come */
	if (job->nblocks == 1 || job->class == NC_SLOT_CLASS_PREFETCH)
		return true;
	if (!nc_store_reserve(&e->pages, job->nblocks))
	{
		nc_store_unreserve(&e->parts, job->nblocks);
		return false;
	}
	job->reserved = job->nblocks;
	return true;
}

/* Gives back what reserve() promised. */
static void
unreserve(NcEngine *e, NcJob *job)
{
	nc_store_unreserve(&e->parts, job->nblocks);
	nc_store_unreserve(&e->pages, job->reserved);
	job->reserved = 0;
}

static void
begin(NcEngine *e, NcJob *job, const char *wrong)
{
	nc_count(e->counters, NC_COUNTER_REQUESTS, 1);
	e->unfinished++;
	job->taken_us = e->now_us;
	nc_job_note(e, job, NC_STAGE_QUEUE, job->submit_us, e->now_us);
	e->job_of[(size_t) job->ring * NC_RING_SLOTS + job->slot] = job;
	if (wrong == NULL && e->map.shard_count > 0)
	{
		/* each slot its own messages: docs/decisions/0008 says why nothing is joined here */
		nc_route_job(e, job);
		return;
	}
	unreserve(e, job);
	nc_deliver_result(e, job, wrong != NULL ? NC_SLOT_RESULT_BAD_REQUEST :
					  NC_SLOT_RESULT_NO_SERVER, wrong);
	nc_job_free(e, job);
}

/* False when memory is at its bound: the slot stays as it is. */
static bool
take_slot(NcEngine *e, uint32_t ring, uint32_t index)
{
	NcSlot	   *slot = &e->area.rings[ring].slots[index];
	uint64_t	word = nc_slot_load(slot);
	NcJob	   *job;
	const char *wrong;

	if (nc_slot_word_state(word) != NC_SLOT_SUBMITTED)
		return true;
	job = nc_store_take(&e->jobs);
	if (job == NULL)
		return false;
	wrong = copy_request(e, job, ring, index);
	if (!reserve(e, job))
	{
		nc_store_give(&e->jobs, job);
		return false;
	}
	if (!nc_slot_move(slot, word, NC_SLOT_TAKEN))
	{
		/* cancelled meanwhile; the copy may be torn and is discarded */
		unreserve(e, job);
		nc_store_give(&e->jobs, job);
		return true;
	}
	job->word = nc_slot_word(nc_slot_word_generation(word), NC_SLOT_TAKEN);
	begin(e, job, wrong);
	return true;
}

/* Reads ahead that somebody has come to wait for go before those that nobody waits for. */
static void
promote(NcEngine *e, uint32_t ring)
{
	_Atomic uint64_t *word = &e->area.rings[ring].promoted;
	uint64_t	bits;

	if (atomic_load_explicit(word, memory_order_relaxed) == 0)
		return;
	bits = atomic_exchange_explicit(word, 0, memory_order_seq_cst);
	for (; bits != 0; bits &= bits - 1)
	{
		NcJob	   *job = e->job_of[(size_t) ring * NC_RING_SLOTS +
									(uint32_t) __builtin_ctzll(bits)];

		/* a bit of a life that is over promotes at most a read ahead too early */
		if (job != NULL && job->class == NC_SLOT_CLASS_PREFETCH &&
			nc_net_promote(e->net, job->group) > 0)
			nc_count(e->counters, NC_COUNTER_PREFETCH_PROMOTED, 1);
	}
}

void
nc_take_ring(NcEngine *e, uint32_t ring)
{
	uint64_t	bit = UINT64_C(1) << (ring % 64);
	bool		complete = true;

	for (uint32_t i = 0; i < NC_RING_SLOTS; i += NC_MUTANT(BIT_LOST) ? 2 : 1)
		complete = take_slot(e, ring, i) && complete;
	promote(e, ring);
	if (complete)
		e->deferred[ring / 64] &= ~bit;
	else
	{
		e->deferred[ring / 64] |= bit;
		e->any_deferred = true;
	}
}

void
nc_take_all(NcEngine *e)
{
	uint32_t	words = nc_doorbell_words(&e->area);
	bool		again = e->any_deferred && e->freed;

	if (again)
	{
		e->any_deferred = false;
		e->freed = false;
		/* who had to wait last time is not last again */
		e->take_first++;
	}
	for (uint32_t i = 0; i < words; i++)
	{
		uint32_t	w = (i + e->take_first) % words;
		uint64_t	bits = nc_doorbell_take(&e->area, w);

		if (again)
			bits |= e->deferred[w];
		while (bits != 0)
		{
			uint32_t	ring = w * 64 + (uint32_t) __builtin_ctzll(bits);

			bits &= bits - 1;
			/* bits beyond the last ring are nobody's */
			if (ring < e->area.nrings)
				nc_take_ring(e, ring);
		}
	}
}

void
nc_take_over(NcEngine *e)
{
	for (uint32_t r = 0; r < e->area.nrings; r++)
	{
		bool		submitted = false;

		for (uint32_t s = 0; s < NC_RING_SLOTS; s++)
		{
			NcSlot	   *slot = &e->area.rings[r].slots[s];
			uint64_t	word = nc_slot_load(slot);

			if (nc_slot_word_state(word) == NC_SLOT_TAKEN && !NC_MUTANT(NO_ADOPTION) &&
				nc_slot_move(slot, word, NC_SLOT_SUBMITTED))
			{
				nc_count(e->counters, NC_COUNTER_REQUEUED, 1);
				submitted = true;
			}
			else if (nc_slot_word_state(word) == NC_SLOT_SUBMITTED)
				submitted = true;
		}
		/* the predecessor may have taken the bit and ended before the slot */
		if (submitted)
			atomic_fetch_or_explicit(&e->area.doorbell->pending[r / 64], UINT64_C(1) << (r % 64),
									 memory_order_seq_cst);
	}
}
