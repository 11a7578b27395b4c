/*
 * deliver.c
 *	  From a verified answer to a completed slot, and the wakes.
 *
 * Runs in the communicator.  A slot's buffers are written only between
 * TAKEN -> COPYING, which fails when the client withdrew, and COPYING -> DONE.
 * A single page is copied straight from the receive buffer; pages of a range that
 * a process waits for wait in staging pages until all are here, so that COPYING
 * lasts one run of memcpy.  Pages read ahead have a window each, as they come.
 */
#include "engine_int.h"

#include <stdio.h>
#include <string.h>

/* ---- the end of jobs ---- */

/* Gives back pages; the slot is completed or not ours. */
static void
finish(NcEngine *e, NcJob *job)
{
	NcJob	  **job_of = &e->job_of[(size_t) job->ring * NC_RING_SLOTS + job->slot];

	NC_ASSERT(!job->finished);
	if (*job_of == job)
		*job_of = NULL;
	job->finished = true;
	if (!NC_MUTANT(LEAK_UNFINISHED) || !job->cancelled)
		e->unfinished--;
	if (!NC_MUTANT(LEAK_STAGING))
		nc_store_unreserve(&e->pages, job->reserved);
	job->reserved = 0;
	for (uint32_t i = 0; i < job->nblocks; i++)
	{
		if (job->pages[i] != NULL)
			nc_store_give(&e->pages, job->pages[i]);
		job->pages[i] = NULL;
	}
	e->freed = true;
}

void
nc_job_free(NcEngine *e, NcJob *job)
{
	NC_ASSERT(job->finished && job->outstanding == 0);
	nc_store_give(&e->jobs, job);
	e->freed = true;
}

void
nc_part_free(NcEngine *e, NcPart *part)
{
	NcJob	   *job = part->job;

	nc_store_give(&e->parts, part);
	e->freed = true;
	if (job != NULL && --job->outstanding == 0)
		nc_job_free(e, job);
}

static void
withdrawn(NcEngine *e, NcJob *job)
{
	job->cancelled = true;
	finish(e, job);
}

/* ---- completing slots ---- */

static void
mark_wake(NcEngine *e, uint32_t ring)
{
	if (e->wake_marked[ring] || (NC_MUTANT(LOST_WAKE) && e->nwake > 0))
		return;
	e->wake_marked[ring] = true;
	e->wake_list[e->nwake++] = ring;
}

/* Is the slot in the life that was taken? */
static bool
still_taken(const NcEngine *e, NcJob *job)
{
	uint64_t	now = nc_slot_load(nc_job_slot(e, job));

	if (NC_MUTANT(NO_GENERATION) && nc_slot_word_state(now) == NC_SLOT_TAKEN)
		job->word = now;
	return now == job->word;
}

/* TAKEN -> COPYING. False when the client withdrew; then nothing of the slot may be touched. */
static bool
begin_copying(NcEngine *e, NcJob *job)
{
	if (nc_slot_move(nc_job_slot(e, job), job->word, NC_SLOT_COPYING))
		return true;
	withdrawn(e, job);
	return false;
}

/* COPYING -> DONE. */
static void
end_copying(NcEngine *e, NcJob *job, NcSlotResult result)
{
	NcSlot	   *slot = nc_job_slot(e, job);
	uint64_t	word = nc_slot_word(nc_slot_word_generation(job->word), NC_SLOT_COPYING);
	bool		moved;

	slot->result = (uint16_t) result;
	if (job->kind == NC_SLOT_KIND_GETPAGE)
	{
		/* for the client, which notes when it runs again */
		slot->value = e->host.now_us(e->host.ctx);
		nc_job_note(e, job, NC_STAGE_COPY, job->reached_us, slot->value);
	}
	moved = nc_slot_move(slot, word, NC_SLOT_DONE);
	NC_ASSERT(moved);
	(void) moved;
	mark_wake(e, job->ring);
	finish(e, job);
}

void
nc_deliver_result(NcEngine *e, NcJob *job, NcSlotResult result, const char *text)
{
	NcRing	   *ring = &e->area.rings[job->ring];

	if (!begin_copying(e, job))
		return;
	if (text != NULL)
	{
		nc_text_one_line(ring->error, sizeof(ring->error), text, strlen(text));
		ring->error_slot = job->slot + 1;
	}
	end_copying(e, job, result);
}

/* Copies one page to where the client wants it; false when that is nowhere it may be. */
static bool
copy_page(NcEngine *e, const NcJob *job, uint32_t index, const uint8_t *page)
{
	uint8_t    *dest;

	if (job->dests[index] == NC_DEST_NONE)
		return true;
	dest = e->host.dest_page(e->host.ctx, job->ring, job->dests[index]);
	if (dest == NULL)
		return false;
	memcpy(dest, page, NC_PAGE_BYTES);
	return true;
}

/* In COPYING: pages to where the client waits for them. */
static NcSlotResult
copy_pages(NcEngine *e, const NcJob *job, const uint8_t *const *pages)
{
	NcSlotResult result = NC_SLOT_RESULT_OK;

	for (uint32_t i = 0; i < job->nblocks; i++)
	{
		if (!copy_page(e, job, i, pages[i]))
			result = NC_SLOT_RESULT_BAD_REQUEST;
	}
	return result;
}

/* Copies pages and completes the slot. */
static void
deliver_pages(NcEngine *e, NcJob *job, const uint8_t *const *pages)
{
	if (NC_MUTANT(COPY_EARLY))
		(void) copy_pages(e, job, pages);
	if (!begin_copying(e, job))
	{
		nc_count(e->counters, NC_COUNTER_LATE_ANSWERS, 1);
		return;
	}
	end_copying(e, job, copy_pages(e, job, pages));
}

/*
 * One page of a range read ahead, in a window of its own.  The client may
 * withdraw between two of them; what was copied by then is in memory that was
 * lent until then, and nobody reads it.
 */
static void
deliver_part(NcEngine *e, NcJob *job, uint32_t index, const uint8_t *page)
{
	uint64_t	copying = nc_slot_word(nc_slot_word_generation(job->word), NC_SLOT_COPYING);
	bool		moved;

	if (!begin_copying(e, job))
	{
		nc_count(e->counters, NC_COUNTER_LATE_ANSWERS, 1);
		return;
	}
	moved = copy_page(e, job, index, page);
	job->missing--;
	if (!moved || job->missing == 0)
	{
		end_copying(e, job, moved ? NC_SLOT_RESULT_OK : NC_SLOT_RESULT_BAD_REQUEST);
		return;
	}
	moved = nc_slot_move(nc_job_slot(e, job), copying, NC_SLOT_TAKEN);
	NC_ASSERT(moved);
	(void) moved;
}

static void
deliver_value(NcEngine *e, NcJob *job, uint64_t value)
{
	if (!begin_copying(e, job))
	{
		nc_count(e->counters, NC_COUNTER_LATE_ANSWERS, 1);
		return;
	}
	nc_job_slot(e, job)->value = value;
	end_copying(e, job, NC_SLOT_RESULT_OK);
}

/* ---- answers ---- */

static void
answer_page(NcEngine *e, NcJob *job, uint32_t index, const uint8_t *page)
{
	if (job->nblocks == 1)
	{
		deliver_pages(e, job, &page);
		return;
	}
	if (job->class == NC_SLOT_CLASS_PREFETCH)
	{
		deliver_part(e, job, index, page);
		return;
	}
	NC_ASSERT(index < job->nblocks && job->pages[index] == NULL && job->reserved > 0);
	job->pages[index] = nc_store_take_reserved(&e->pages);
	job->reserved--;
	memcpy(job->pages[index], page, NC_PAGE_BYTES);
	if (--job->missing == 0)
		deliver_pages(e, job, (const uint8_t *const *) job->pages);
}

static void
answer_error(NcEngine *e, NcJob *job, const NcFlight *flight, const NcConn *conn,
			 const NcPsResponse *resp)
{
	char		text[NC_RING_ERROR_BYTES];
	char		attempts[32] = "";
	int			bytes = resp->message_bytes < sizeof(text) ? (int) resp->message_bytes :
		(int) sizeof(text);
	NcErrorKind kind = nc_ps_error_kind(resp->message, resp->message_bytes);

	if (flight->refusals > 0)
		snprintf(attempts, sizeof(attempts), ", attempt %u", flight->refusals + 1);
	snprintf(text, sizeof(text), "shard %u (%s)%s: %.*s", conn->shard, conn->address, attempts,
			 bytes, resp->message);
	nc_deliver_result(e, job, kind == NC_ERROR_TRANSIENT ? NC_SLOT_RESULT_UNREACHABLE :
					  NC_SLOT_RESULT_PS_ERROR, text);
}

static void
answer_job(NcEngine *e, NcJob *job, const NcPart *part, const NcConn *conn,
		   const NcPsResponse *resp)
{
	switch (resp->tag)
	{
		case NC_RESP_GETPAGE:
			answer_page(e, job, part->index, resp->page);
			break;
		case NC_RESP_EXISTS:
			deliver_value(e, job, resp->exists ? 1 : 0);
			break;
		case NC_RESP_NBLOCKS:
			deliver_value(e, job, resp->nblocks);
			break;
		case NC_RESP_DBSIZE:
			deliver_value(e, job, (uint64_t) resp->db_bytes);
			break;
		case NC_RESP_ERROR:
			answer_error(e, job, &part->flight, conn, resp);
			break;
		case NC_RESP_SLRU:
			/* never asked, so never matched */
			break;
	}
}

/*
 * An error that will pass while somebody waits: the waiting process has a deadline,
 * so nothing here counts attempts.  Only who is told that he is in the wrong place
 * does not go on for long: a map change takes seconds, a wrong setting lasts.
 */
static bool
worth_asking_again(const NcEngine *e, const NcFlight *flight, const NcPsResponse *resp)
{
	if (resp->tag != NC_RESP_ERROR || flight->background)
		return false;
	switch (nc_ps_error_kind(resp->message, resp->message_bytes))
	{
		case NC_ERROR_TRANSIENT:
			return true;
		case NC_ERROR_MISROUTED:
			return e->now_us - flight->first_us < NC_MISROUTED_US;
		case NC_ERROR_FINAL:
			break;
	}
	return false;
}

/* The stages that end with an answer. */
static void
note_answer(NcEngine *e, NcJob *job, const NcFlight *flight)
{
	nc_job_note(e, job, NC_STAGE_SEND, job->taken_us, flight->sent_us);
	nc_job_note(e, job, NC_STAGE_SERVER, flight->sent_us, e->now_us);
	job->reached_us = e->now_us;
	if (job->class == NC_SLOT_CLASS_PREFETCH)
		return;
	job->reached_us = e->host.now_us(e->host.ctx);
	nc_job_note(e, job, NC_STAGE_RECEIVE, e->now_us, job->reached_us);
}

bool
nc_deliver_answer(void *ctx, NcConn *conn, NcFlight *flight, const NcPsResponse *resp)
{
	NcEngine   *e = ctx;
	NcPart	   *part = nc_part_of(flight);
	NcJob	   *job = part->job;

	if (job != NULL)
	{
		note_answer(e, job, flight);
		if (nc_deliver_keep(e, flight))
		{
			if (worth_asking_again(e, flight, resp))
				return false;
			answer_job(e, job, part, conn, resp);
		}
		else if (job->cancelled)
			nc_count(e->counters, NC_COUNTER_LATE_ANSWERS, 1);
	}
	nc_part_free(e, part);
	return true;
}

bool
nc_deliver_keep(void *ctx, const NcFlight *flight)
{
	NcEngine   *e = ctx;
	NcJob	   *job = ((const NcPart *) flight)->job;

	if (job == NULL || job->finished)
		return false;
	if (still_taken(e, job))
		return true;
	withdrawn(e, job);
	return false;
}

void
nc_deliver_unwanted(void *ctx, NcFlight *flight)
{
	nc_part_free(ctx, nc_part_of(flight));
}

void
nc_deliver_dropped(void *ctx, NcFlight *flight, const char *reason)
{
	NcEngine   *e = ctx;
	NcPart	   *part = nc_part_of(flight);
	char		text[NC_RING_ERROR_BYTES];
	uint32_t	shard;

	if (part->job != NULL && !part->job->finished && e->map.shard_count > 0)
	{
		shard = nc_route(e, &flight->msg);
		snprintf(text, sizeof(text), "shard %u (%s): connection lost: %s", shard,
				 nc_net_address(e->net, shard), reason);
		nc_deliver_result(e, part->job, NC_SLOT_RESULT_UNREACHABLE, text);
	}
	nc_part_free(e, part);
}

void
nc_deliver_wakes(NcEngine *e)
{
	for (uint32_t i = 0; i < e->nwake; i++)
	{
		uint32_t	ring = e->wake_list[i];

		e->wake_marked[ring] = false;
		if (!nc_ring_client_needs_wake(&e->area.rings[ring]))
			continue;
		nc_count(e->counters, NC_COUNTER_WAKES, 1);
		e->host.wake(e->host.ctx, ring);
	}
	e->nwake = 0;
}
