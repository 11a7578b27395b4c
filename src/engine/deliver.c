/*
 * deliver.c
 *	  From a verified answer to a completed slot, and the wakes.
 *
 * Runs in the communicator.  A slot's buffers are written only between
 * TAKEN -> COPYING, which fails when the client withdrew, and COPYING -> DONE or,
 * while more pages of a range are to come, TAKEN.  Each page is copied straight from
 * the receive buffer in a window of its own, as it comes.
 *
 * A client that loses to COPYING spins until the window is closed: nothing inside it
 * may fail, wait, log or end the process.
 */
#include "engine_int.h"

#include <stdio.h>
#include <string.h>

/* ---- the end of jobs ---- */

static void
tell_ended(NcEngine *e, const NcJob *job, NcSlotResult result)
{
	NcEnded		ended = {
		.rel = job->rel,
		.block = job->block,
		.nblocks = job->nblocks,
		.kind = job->kind,
		.class = job->class,
		.promoted = job->promoted,
		.cancelled = job->cancelled,
		.result = result,
		.request_lsn = job->request_lsn,
		.not_modified_since = job->not_modified_since,
		.submit_us = job->submit_us,
		/* an answer of this turn is what ended it */
		.ended_us = job->reached_us > e->now_us ? job->reached_us : e->now_us,
		.shards = e->map.shard_count,
		.stripe_blocks = e->map.stripe_blocks
	};

	e->ended(e->ended_ctx, &ended);
}

/* The slot is completed or not ours; result says nothing of a job that was cancelled. */
static void
finish(NcEngine *e, NcJob *job, NcSlotResult result)
{
	NcJob	  **job_of = &e->job_of[(size_t) job->ring * NC_RING_SLOTS + job->slot];

	NC_ASSERT(!job->finished);
	/* the slot may be in its next life already, taken for another job */
	if (*job_of == job)
		*job_of = NULL;
	job->finished = true;
	e->unfinished--;
	if (e->ended != NULL)
		tell_ended(e, job, result);
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

	nc_twin_leave(part);
	nc_store_give(&e->parts, part);
	e->freed = true;
	if (job != NULL && --job->outstanding == 0)
		nc_job_free(e, job);
}

static void
withdrawn(NcEngine *e, NcJob *job)
{
	job->cancelled = true;
	finish(e, job, NC_SLOT_RESULT_OK);
}

/* ---- completing slots ---- */

void
nc_deliver_mark_wake(NcEngine *e, uint32_t ring)
{
	if (e->wake_marked[ring])
		return;
	e->wake_marked[ring] = true;
	e->wake_list[e->nwake++] = ring;
}

/*
 * Is the slot in the life that was taken?  Advice only: the client may withdraw right
 * behind the look, and begin_copying() decides.
 */
static bool
still_taken(const NcEngine *e, NcJob *job)
{
	return nc_slot_load(nc_job_slot(e, job)) == job->word;
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

/* In COPYING: why it failed. Who reads ahead asks again and gets a text of his own. */
static void
write_slot_text(NcEngine *e, const NcJob *job, const char *text)
{
	NcRing	   *ring = &e->area.rings[job->ring];
	char	   *to;

	if (job->slot >= NC_RING_DEMAND_SLOTS)
		return;
	to = ring->errors[job->slot];
	to[0] = '\0';
	if (text != NULL)
		nc_text_one_line(to, NC_RING_ERROR_BYTES, text, strlen(text));
}

/* Unless it ends without an answer. */
static void
note_copy(NcEngine *e, const NcJob *job, uint64_t now_us)
{
	if (job->reached_us != 0)
		nc_job_note(e, job, NC_STAGE_COPY, job->reached_us, now_us);
}

/* In COPYING. */
static NC_RARE void
show_trace(NcEngine *e, const NcJob *job, uint64_t now_us)
{
	NcSlotTrace *trace = nc_slot_trace(&e->area, job->ring, job->slot);

	trace->shard = job->shard;
	trace->reqid = job->reqid;
	trace->taken_us = job->taken_us;
	trace->sent_us = job->sent_us;
	trace->received_us = job->received_us;
	trace->reached_us = job->reached_us;
	trace->done_us = now_us;
}

/*
 * COPYING -> DONE -> FREE, then the handle: its owner may use it again while
 * aio_complete() still runs, and must find its slot FREE.  Between the first of these
 * moves and the end nothing may end the process.
 */
static void
complete_handle(NcEngine *e, NcJob *job, NcSlotResult result, const char *text)
{
	NcSlot	   *slot = nc_job_slot(e, job);
	uint64_t	life = nc_slot_word_generation(job->word);
	uint64_t	handle_generation = slot->handle_generation;
	char		line[NC_RING_ERROR_BYTES];
	uint64_t	now_us;
	bool		moved;

	if (text != NULL)
		nc_text_one_line(line, sizeof(line), text, strlen(text));
	now_us = e->host.now_us(e->host.ctx);
	note_copy(e, job, now_us);
	if (job->traced != 0)
	{
		slot->result = (uint16_t) result;
		show_trace(e, job, now_us);
		e->host.traced(e->host.ctx, job->ring, job->slot);
	}
	moved = nc_slot_move(slot, nc_slot_word(life, NC_SLOT_COPYING), NC_SLOT_DONE) &&
		nc_slot_move(slot, nc_slot_word(life, NC_SLOT_DONE), NC_SLOT_FREE);
	NC_ASSERT(moved);
	(void) moved;
	finish(e, job, result);
	e->host.aio_complete(e->host.ctx, nc_aio_handle(&e->area, job->ring, job->slot),
						 handle_generation, result, text != NULL ? line : NULL);
}

/* COPYING -> DONE. text: why it failed, may be NULL. */
static void
end_copying(NcEngine *e, NcJob *job, NcSlotResult result, const char *text)
{
	NcSlot	   *slot = nc_job_slot(e, job);
	uint64_t	word = nc_slot_word(nc_slot_word_generation(job->word), NC_SLOT_COPYING);
	bool		moved;

	if (job->class == NC_SLOT_CLASS_AIO)
	{
		complete_handle(e, job, result, text);
		return;
	}
	/* all of it before the move, whose release shows it to who sees DONE */
	slot->result = (uint16_t) result;
	if (result != NC_SLOT_RESULT_OK)
		write_slot_text(e, job, text);
	if (job->kind == NC_SLOT_KIND_GETPAGE)
	{
		/* for the client, which notes when it runs again */
		slot->value = e->host.now_us(e->host.ctx);
		note_copy(e, job, slot->value);
	}
	if (job->traced != 0)
		show_trace(e, job, e->host.now_us(e->host.ctx));
	moved = nc_slot_move(slot, word, NC_SLOT_DONE);
	/* the table has no way out of COPYING but ours */
	NC_ASSERT(moved);
	(void) moved;
	/* from here on the slot is the client's; the wake comes after DONE, at the end of the turn */
	nc_deliver_mark_wake(e, job->ring);
	finish(e, job, result);
}

void
nc_deliver_result(NcEngine *e, NcJob *job, NcSlotResult result, const char *text)
{
	if (!begin_copying(e, job))
		return;
	end_copying(e, job, result, text);
}

/* Copies one page to where the client wants it; false when that is nowhere it may be. */
static bool
copy_page(NcEngine *e, const NcJob *job, uint32_t index, const uint8_t *page)
{
	uint8_t    *dest;

	if (job->dests[index] == NC_DEST_NONE)
		return true;
	/* asked again, not remembered: no address of a client's memory is kept outside the window */
	dest = e->host.dest_page(e->host.ctx, job->ring, job->dests[index]);
	if (dest == NULL)
		return false;
	memcpy(dest, page, NC_PAGE_BYTES);
	return true;
}

/*
 * One page, in a window of its own.  The client may withdraw between two of a
 * range; what was copied by then is in memory that was lent until then, and nobody
 * reads it.
 */
static void
deliver_page(NcEngine *e, NcJob *job, uint32_t index, const uint8_t *page)
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
	/* a range ends here at its last page; its first error ends it in deliver_error() */
	if (!moved || job->missing == 0)
	{
		end_copying(e, job, moved ? NC_SLOT_RESULT_OK : NC_SLOT_RESULT_BAD_REQUEST, NULL);
		return;
	}
	/* back to TAKEN, so that the client can withdraw while the other pages are on their way */
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
	end_copying(e, job, NC_SLOT_RESULT_OK, NULL);
}

/* ---- answers ---- */

static void
deliver_error(NcEngine *e, NcJob *job, const NcFlight *flight, const NcConn *conn,
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
			deliver_page(e, job, part->index, resp->page);
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
			deliver_error(e, job, &part->flight, conn, resp);
			break;
		case NC_RESP_SLRU:
			/* never asked, so never matched */
			break;
	}
}

/*
 * An error that will pass while somebody waits: the waiting process has a deadline,
 * so nothing here counts attempts.  Only who is told that he is in the wrong place
 * does not go on for long: a map change takes seconds, a wrong setting lasts.  What only
 * this host cannot do is asked of the others.
 */
static bool
worth_asking_again(const NcEngine *e, const NcConn *conn, const NcFlight *flight,
				   const NcPsResponse *resp)
{
	if (resp->tag != NC_RESP_ERROR || (flight->background && !flight->lasting))
		return false;
	switch (nc_ps_error_kind(resp->message, resp->message_bytes))
	{
		case NC_ERROR_TRANSIENT:
			return true;
		case NC_ERROR_MISROUTED:
			return e->now_us - flight->first_us < NC_MISROUTED_US ||
				!nc_net_refused_by_all(conn, flight);
		case NC_ERROR_HOST:
			return !nc_net_refused_by_all(conn, flight);
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
	/* a clock is read for what somebody waits for only: a scan has too many pages */
	if (nc_slot_class_ahead(job->class))
		return;
	job->reached_us = e->host.now_us(e->host.ctx);
	nc_job_note(e, job, NC_STAGE_RECEIVE, e->now_us, job->reached_us);
}

static NC_RARE void
note_trace(const NcEngine *e, NcJob *job, const NcFlight *flight, const NcConn *conn)
{
	job->shard = conn->shard;
	job->reqid = flight->msg.reqid;
	job->sent_us = flight->sent_us;
	job->received_us = e->now_us;
}

/* Does somebody still wait? */
static bool
part_is_wanted(NcEngine *e, const NcPart *part)
{
	NcJob	   *job = part->job;

	if (job == NULL || job->finished)
		return false;
	if (still_taken(e, job))
		return true;
	withdrawn(e, job);
	return false;
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
		if (job->traced != 0)
			note_trace(e, job, flight, conn);
		if (part_is_wanted(e, part))
		{
			if (worth_asking_again(e, conn, flight, resp))
				return false;
			nc_twin_answered(part);
			answer_job(e, job, part, conn, resp);
		}
		else if (job->cancelled)
			nc_count(e->counters, NC_COUNTER_LATE_ANSWERS, 1);
	}
	else if (part->beaten)
		nc_count(e->counters, NC_COUNTER_HEDGED_LATE, 1);
	nc_part_free(e, part);
	return true;
}

bool
nc_deliver_keep(void *ctx, const NcFlight *flight)
{
	const NcPart *part = (const NcPart *) flight;

	/* one whose twin is on its way need not be sent */
	return part->twin == NULL && part_is_wanted(ctx, part);
}

bool
nc_deliver_promoted(void *ctx, const NcFlight *flight)
{
	const NcJob *job = ((const NcPart *) flight)->job;

	return job != NULL && job->promoted;
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

	if (part->job != NULL && !part->job->finished && part->twin == NULL && e->map.shard_count > 0)
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
