/*
 * take.c
 *	  From a submitted slot to a job: copy, validate, take.
 *
 * Runs in the communicator.  The fields of a slot are another process's memory:
 * they are copied once and only the copy is looked at.  SUBMITTED -> TAKEN on the
 * word read before the copy proves that the copy belongs to this life of the slot.
 *
 * Before that proof the copy may be torn, or of another life.  It is judged all the
 * same, since judging may find that there is no room: every number of it is checked
 * before it is an index, and what was concluded is thrown away if the move fails.
 */
#include "engine_int.h"

#include <stdio.h>
#include <string.h>

/* What is wrong with a request, or NULL. Dests are checked when the rest is right. */
static const char *
fields_wrong(const NcSlot *copy, bool of_handle)
{
	if (copy->kind > NC_SLOT_KIND_DBSIZE)
		return "unknown kind";
	if (copy->class > NC_SLOT_CLASS_AIO || (copy->class == NC_SLOT_CLASS_AIO) != of_handle)
		return "unknown class";
	if (copy->fork > NC_FORK_INIT)
		return "unknown fork";
	if (of_handle && copy->kind != NC_SLOT_KIND_GETPAGE)
		return "no page";
	if (copy->kind != NC_SLOT_KIND_GETPAGE)
		return NULL;
	if (copy->nblocks < 1 || copy->nblocks > NC_SLOT_BLOCKS_MAX)
		return "bad number of blocks";
	if (!of_handle && copy->dest_first > NC_RING_DESTS - (copy->class == NC_SLOT_CLASS_PREFETCH ? 1 : copy->nblocks))
		return "destinations out of range";
	/* the highest number is no block */
	if (copy->block > UINT32_MAX - copy->nblocks)
		return "block out of range";
	return NULL;
}

static const char *
dests_wrong(const NcEngine *e, const NcJob *job)
{
	/* where the pages of a handle go is not known to be its own before COPYING */
	if (job->kind != NC_SLOT_KIND_GETPAGE || job->class == NC_SLOT_CLASS_AIO)
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

/* A read ahead names the first page of a run, an AIO handle none, everything else each page. */
static void
copy_dests(NcJob *job, const uint32_t *dests)
{
	uint32_t	first;

	if (job->class == NC_SLOT_CLASS_AIO)
	{
		for (uint32_t i = 0; i < job->nblocks; i++)
			job->dests[i] = NC_DEST_AIO(job->slot, i);
		return;
	}

	if (job->class != NC_SLOT_CLASS_PREFETCH)
	{
		memcpy(job->dests, dests, job->nblocks * sizeof(job->dests[0]));
		return;
	}
	first = *dests;
	for (uint32_t i = 0; i < job->nblocks; i++)
		job->dests[i] = first == NC_DEST_NONE ? NC_DEST_NONE : first + i;
}

static NC_RARE void
copy_trace(const NcEngine *e, NcJob *job)
{
	const NcSlotTrace *trace = nc_slot_trace(&e->area, job->ring, job->slot);

	job->traced = trace->sampled;
	if (job->traced != 0)
		job->trace = trace->at;
}

/* Copies request and destinations into the job; returns what is wrong with them. */
static const char *
copy_request(const NcEngine *e, NcJob *job, uint32_t ring, uint32_t index)
{
	const NcRing *r = &e->area.rings[ring];
	bool		of_handle = ring >= e->area.aio_first;
	NcSlot		copy;
	const char *wrong;

	memset(job, 0, sizeof(*job));
	/* its word is not used: the caller has read one before, and that is the one to move */
	memcpy(&copy, &r->slots[index], sizeof(copy));
	job->ring = ring;
	job->slot = index;
	job->rel = (NcRelKey) {copy.spc, copy.db, copy.rel, copy.fork};
	job->block = copy.block;
	job->request_lsn = copy.request_lsn;
	job->not_modified_since = copy.not_modified_since;
	job->submit_us = copy.submit_us;
	job->nblocks = 1;
	if (e->area.traces != NULL)
		copy_trace(e, job);
	/* how it ends depends on whose it is, whatever its fields say */
	if (of_handle)
		job->class = NC_SLOT_CLASS_AIO;
	wrong = fields_wrong(&copy, of_handle);
	if (wrong != NULL)
		return wrong;
	job->kind = (NcSlotKind) copy.kind;
	job->class = (NcSlotClass) copy.class;
	if (job->kind == NC_SLOT_KIND_GETPAGE)
	{
		job->nblocks = copy.nblocks;
		copy_dests(job, of_handle ? NULL : &r->dests[copy.dest_first]);
	}
	return dests_wrong(e, job);
}

NC_STATIC_ASSERT(NC_PARTS_MAX / NC_SHARDS_MAX >= 2 * NC_SLOT_BLOCKS_MAX,
				 "a shard that has nothing gets its first range");

/*
 * Each shard has an equal share of the messages, and what nobody waits for half of
 * that: a shard that does not answer fills its own share, and nobody else's.
 */
static bool
has_share(const NcEngine *e, const NcJob *job, uint32_t shard, uint32_t share)
{
	/* as if all of its blocks went there: too high at most by what crosses a stripe */
	uint32_t	messages = nc_net_load(e->net, shard) + job->nblocks;
	bool		waits = !nc_slot_class_ahead(job->class) ||
		(atomic_load(&e->area.rings[job->ring].promoted) >> job->slot & 1) != 0;

	return (waits ? messages : 2 * messages) <= share;
}

/* Is there room for a job, in each shard that it concerns? */
static bool
has_room(const NcEngine *e, const NcJob *job)
{
	uint32_t	used = e->parts.made - e->parts.free_count + e->parts.reserved + job->nblocks;
	uint32_t	share = e->parts.max / (e->map.shard_count > 0 ? e->map.shard_count : 1);
	uint32_t	last = UINT32_MAX;

	/* all of them could be one shard's */
	if (2 * used <= share || e->map.shard_count == 0)
		return true;
	for (uint32_t i = 0; i < job->nblocks; i++)
	{
		uint32_t	shard = nc_route_block(e, job, i);

		if (shard != last && !has_share(e, job, shard, share))
			return false;
		last = shard;
	}
	return true;
}

/* Messages for all blocks of a job, so that nothing of it can fail later. */
static bool
reserve(NcEngine *e, const NcJob *job)
{
	return has_room(e, job) && nc_store_reserve(&e->parts, job->nblocks);
}

static void
begin_job(NcEngine *e, NcJob *job, const char *wrong)
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
	nc_store_unreserve(&e->parts, job->nblocks);
	nc_deliver_result(e, job, wrong != NULL ? NC_SLOT_RESULT_BAD_REQUEST :
					  NC_SLOT_RESULT_NO_SERVER, wrong);
	nc_job_free(e, job);
}

/* False when there is no room: the slot stays as it is. */
static bool
take_slot(NcEngine *e, uint32_t ring, uint32_t index)
{
	NcSlot	   *slot = &e->area.rings[ring].slots[index];
	uint64_t	word = nc_slot_load(slot);
	NcJob	   *job;
	const char *wrong;

	/* cancelled already, or marked by a predecessor's end */
	if (nc_slot_word_state(word) != NC_SLOT_SUBMITTED)
		return true;
	job = nc_store_take(&e->jobs);
	if (job == NULL)
		return false;
	/* copy, then take: the other way round the client could cancel and refill in between */
	wrong = copy_request(e, job, ring, index);
	if (!reserve(e, job))
	{
		nc_store_give(&e->jobs, job);
		return false;
	}
	if (!nc_slot_move(slot, word, NC_SLOT_TAKEN))
	{
		/* cancelled meanwhile; the copy may be torn and is discarded */
		nc_store_unreserve(&e->parts, job->nblocks);
		nc_store_give(&e->jobs, job);
		return true;
	}
	job->word = nc_slot_word(nc_slot_word_generation(word), NC_SLOT_TAKEN);
	begin_job(e, job, wrong);
	return true;
}

/* A read ahead goes before those that nobody waits for. */
void
nc_take_promote(NcEngine *e, NcJob *job)
{
	if (job->promoted || !nc_slot_class_ahead(job->class))
		return;
	job->promoted = true;
	if (nc_net_promote(e->net, job->group) > 0)
		nc_count(e->counters, NC_COUNTER_PREFETCH_PROMOTED, 1);
}

/*
 * After slots were taken: somebody may have come to wait before his slot was, or
 * before this communicator was there.  In the other order a bit would be looked at
 * while its slot has no job, then the slot taken, and nobody would look again.  A bit
 * of a life that is over promotes at most what nobody waits for any more.
 *
 * The word is the client's: nothing is cleared here.  He sets a bit and then rings, so
 * who has taken the ring's bit from the doorbell sees it.
 */
static void
promote(NcEngine *e, uint32_t ring)
{
	_Atomic uint64_t *word = &e->area.rings[ring].promoted;
	uint64_t	bits = atomic_load_explicit(word, memory_order_seq_cst);

	for (; bits != 0; bits &= bits - 1)
	{
		NcJob	   *job = e->job_of[(size_t) ring * NC_RING_SLOTS +
									(uint32_t) __builtin_ctzll(bits)];

		if (job != NULL)
			nc_take_promote(e, job);
	}
}

/*
 * Those slots of a ring of handles that are submitted, in the order of their submits: handles
 * are used in any order, and what is asked for last would else be answered first.  Advice only.
 */
static uint32_t
order_handles(const NcEngine *e, uint32_t ring, uint64_t marks, uint32_t *order)
{
	const NcSlot *slots = e->area.rings[ring].slots;
	uint64_t	at_us[NC_RING_SLOTS];
	uint32_t	n = 0;

	for (; marks != 0; marks &= marks - 1)
	{
		uint32_t	i = (uint32_t) __builtin_ctzll(marks);
		uint64_t	us;
		uint32_t	at = n;

		if (nc_slot_word_state(nc_slot_load(&slots[i])) != NC_SLOT_SUBMITTED)
			continue;
		us = __atomic_load_n(&slots[i].submit_us, __ATOMIC_RELAXED);
		for (; at > 0 && at_us[at - 1] > us; at--)
		{
			at_us[at] = at_us[at - 1];
			order[at] = order[at - 1];
		}
		at_us[at] = us;
		order[at] = i;
		n++;
	}
	return n;
}

static bool
take_slots(NcEngine *e, uint32_t ring, uint64_t marks)
{
	bool		complete = true;

	if (ring >= e->area.aio_first)
	{
		uint32_t	order[NC_RING_SLOTS];
		uint32_t	n = order_handles(e, ring, marks, order);

		for (uint32_t i = 0; i < n; i++)
			complete = take_slot(e, ring, order[i]) && complete;
		return complete;
	}
	for (; marks != 0; marks &= marks - 1)
		complete = take_slot(e, ring, (uint32_t) __builtin_ctzll(marks)) && complete;
	return complete;
}

void
nc_take_ring(NcEngine *e, uint32_t ring, uint64_t marks)
{
	uint64_t	bit = UINT64_C(1) << (ring % 64);
	bool		complete;

	marks |= nc_ring_take_marks(&e->area.rings[ring]);
	/* what there was no room for is marked no more */
	if ((e->deferred[ring / 64] & bit) != 0)
		marks = UINT64_MAX;
	complete = take_slots(e, ring, marks);
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
	bool		again = e->any_deferred && e->freed && e->now_us >= e->retry_us;

	if (again)
	{
		e->any_deferred = false;
		e->freed = false;
		e->retry_us = e->now_us + NC_DEFERRED_RETRY_US;
		/* who had to wait last time is not last again */
		e->take_first++;
	}
	/* a word is cleared before its rings are scanned: what comes behind the scan sets it again */
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
				nc_take_ring(e, ring, 0);
		}
	}
}

void
nc_take_over(NcEngine *e)
{
	for (uint32_t r = 0; r < e->area.nrings; r++)
	{
		uint64_t	submitted = 0;

		for (uint32_t s = 0; s < NC_RING_SLOTS; s++)
		{
			NcSlot	   *slot = &e->area.rings[r].slots[s];
			uint64_t	word = nc_slot_load(slot);

			/* a move that fails: the client has cancelled just now, and nothing is left to do */
			if (nc_slot_word_state(word) == NC_SLOT_TAKEN && nc_slot_move(slot, word, NC_SLOT_SUBMITTED))
			{
				nc_count(e->counters, NC_COUNTER_REQUEUED, 1);
				submitted |= UINT64_C(1) << s;
			}
			else if (nc_slot_word_state(word) == NC_SLOT_SUBMITTED)
				submitted |= UINT64_C(1) << s;
		}
		/* or between DONE and the wake */
		nc_deliver_mark_wake(e, r);
		/* the predecessor may have taken marks and bit and ended before the slots */
		for (; submitted != 0; submitted &= submitted - 1)
			nc_ring_announce(&e->area, r, (uint32_t) __builtin_ctzll(submitted));
	}
	nc_deliver_wakes(e);
}
