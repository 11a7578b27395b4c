/*
 * model_aio.c
 *	  Slots of AIO handles in the model: the owner of the handles, who submits them
 *	  in batches and uses them again, and processes that wait for one and may take
 *	  its read away from the communicator.
 *
 * The owner waits as anybody does, and so does one other process, which may have found
 * the handle in a buffer long ago.  Waiting itself is the server's (a condition
 * variable) and taken to be right: whoever waits goes on once the handle is completed
 * or has been used again.  A deadline that passes counts as a cancel.
 */
#include "slot_model.h"

/* ---- whoever waits ---- */

/* Is what it waits for over? */
static bool
is_over(const NcModelState *s, int w)
{
	int			slot = s->waiter[w].slot;

	return s->handle[slot].generation != s->waiter[w].generation ||
		s->handle[slot].state == H_COMPLETED;
}

static void
stop_waiting(NcModelState *n, int w)
{
	n->waiter[w].pc = W_IDLE;
	n->waiter[w].slot = n->waiter[w].generation = 0;
	if (w == 0)
		n->c_pc = A_RECLAIM;
}

static void
go_to(NcModelState *n, int w, int pc)
{
	n->waiter[w].pc = (uint8_t) pc;
	if (pc == W_WAIT || pc == W_LOAD)
		n->waiter[w].word_generation = n->waiter[w].word_state = 0;
}

static void
wait_steps(const NcModelState *s, int w)
{
	NcModelState *n;

	if (is_over(s, w))
	{
		n = nc_model_step(s, w == 0 ? "owner: sees its handle completed" :
						  "other: sees the handle completed or used again");
		stop_waiting(n, w);
		return;
	}
	if (s->cancels >= nc_model.max_cancels)
		return;
	n = nc_model_step(s, w == 0 ? "owner: waits no longer" : "other: waits no longer");
	nc_model_misfortune();
	n->cancels++;
	go_to(n, w, W_LOAD);
}

/*
 * It says that it waits, whatever life the slot has by now: nobody is hurt by a read that
 * goes before others and is waited for by nobody.
 */
static void
promote_steps(const NcModelState *s, int w)
{
	int			slot = s->waiter[w].slot;
	NcModelState *n;

	switch (s->waiter[w].pc)
	{
		case W_PROMOTE:
			n = nc_model_step(s, w == 0 ? "owner: says that it waits" : "other: says that it waits");
			n->promoted |= (uint8_t) (1 << slot);
			go_to(n, w, nc_model.mutant == AIO_PROMOTED_QUIETLY ? W_WAIT : W_BELL_SET);
			break;
		case W_BELL_SET:
			n = nc_model_step(s, w == 0 ? "owner: sets the pending bit" : "other: sets the pending bit");
			n->pending = 1;
			go_to(n, w, W_BELL_LOOK);
			break;
		case W_BELL_LOOK:
			n = nc_model_step(s, w == 0 ? "owner: looks whether the communicator sleeps" :
							  "other: looks whether the communicator sleeps");
			go_to(n, w, s->asleep ? W_BELL_KICK : W_WAIT);
			break;
		case W_BELL_KICK:
			n = nc_model_step(s, w == 0 ? "owner: writes to the eventfd" : "other: writes to the eventfd");
			n->eventfd = 1;
			go_to(n, w, W_WAIT);
			break;
	}
}

/* The word, then whose life it is, then the move on that word: as nc_aio_claim(). */
static void
claim_steps(const NcModelState *s, int w)
{
	int			slot = s->waiter[w].slot;
	NcSlotState state = s->slot[slot].state;
	bool		copying = state == NC_SLOT_COPYING && nc_model.mutant == AIO_CLAIM_COPYING;
	NcModelState *n;

	switch (s->waiter[w].pc)
	{
		case W_LOAD:
			n = nc_model_step(s, w == 0 ? "owner: loads the slot's word" : "other: loads the slot's word");
			go_to(n, w, W_WAIT);
			if (state != NC_SLOT_SUBMITTED && state != NC_SLOT_TAKEN && !copying)
				break;
			n->waiter[w].word_generation = s->slot[slot].generation;
			n->waiter[w].word_state = (uint8_t) state;
			go_to(n, w, W_LOOK);
			break;
		case W_LOOK:
			n = nc_model_step(s, w == 0 ? "owner: looks whose life it is" : "other: looks whose life it is");
			go_to(n, w, W_CLAIM);
			if (s->slot[slot].handle_generation != s->waiter[w].generation &&
				nc_model.mutant != AIO_CLAIM_ANY_LIFE)
				go_to(n, w, W_WAIT);
			break;
		case W_CLAIM:
			n = nc_model_step(s, w == 0 ? "owner: takes the read away" : "other: takes the read away");
			go_to(n, w, W_COMPLETE);
			if (nc_model.mutant == AIO_CLAIM_LOOKS)
				break;
			if (s->waiter[w].word_state == NC_SLOT_COPYING)
			{
				/* only in a mutant: the table has no such move */
				n->slot[slot].state = NC_SLOT_FREE;
				n->slot[slot].generation++;
			}
			else if (!nc_model_move(n, slot, s->waiter[w].word_generation, s->waiter[w].word_state,
									NC_SLOT_FREE))
				go_to(n, w, W_LOAD);
			break;
	}
}

static void
waiter_steps(const NcModelState *s, int w)
{
	NcModelState *n;

	switch (s->waiter[w].pc)
	{
		case W_IDLE:
			break;
		case W_PROMOTE:
		case W_BELL_SET:
		case W_BELL_LOOK:
		case W_BELL_KICK:
			promote_steps(s, w);
			break;
		case W_WAIT:
			wait_steps(s, w);
			break;
		case W_LOAD:
		case W_LOOK:
		case W_CLAIM:
			claim_steps(s, w);
			break;
		case W_COMPLETE:
			n = nc_model_step(s, w == 0 ? "owner: completes the handle, failed" :
							  "other: completes the handle, failed");
			nc_model_complete(n, s->waiter[w].slot, s->waiter[w].generation, true);
			go_to(n, w, W_COMPLETED);
			break;
		case W_COMPLETED:
			n = nc_model_step(s, w == 0 ? "owner: makes the completion known" :
							  "other: makes the completion known");
			nc_model_completed(n, s->waiter[w].slot);
			go_to(n, w, W_WAIT);
			break;
	}
}

static void
begin_waiting(NcModelState *n, int w, int slot)
{
	n->waiter[w].slot = (uint8_t) slot;
	n->waiter[w].generation = n->handle[slot].generation;
	n->waiter[w].pc = nc_model.ahead ? W_PROMOTE : W_WAIT;
}

/* The other process finds a handle in a buffer: once in each of its lives at most. */
static void
other_steps(const NcModelState *s)
{
	if (s->waiter[1].pc != W_IDLE)
	{
		waiter_steps(s, 1);
		return;
	}
	for (int i = 0; i < nc_model.nslots; i++)
	{
		NcModelState *n;

		if (s->handle[i].state != H_SUBMITTED || s->handle[i].generation == s->waited[i])
			continue;
		n = nc_model_step(s, "other: begins to wait for a handle");
		n->waited[i] = s->handle[i].generation;
		begin_waiting(n, 1, i);
		/* it need not happen */
		nc_model_misfortune();
	}
}

/* ---- the owner ---- */

/* The handle is given back: its next life. */
static void
release(NcModelState *n, int slot)
{
	n->handle[slot].generation++;
	n->handle[slot].state = H_IDLE;
}

/* The same for the next handle, or go on. */
static void
next_slot(NcModelState *n, int again, int then)
{
	n->c_pc = (uint8_t) again;
	if (++n->c_slot < nc_model.nslots)
		return;
	n->c_slot = 0;
	n->c_pc = (uint8_t) then;
}

static void
fill_steps(const NcModelState *s)
{
	int			slot = s->c_slot;
	NcModelState *n;

	if (s->c_pc == A_BEGIN && s->slot[slot].state == NC_SLOT_FILLING)
	{
		n = nc_model_step(s, "owner: FILLING -> FREE, what an error left");
		nc_model_owner_move(n, slot, NC_SLOT_FILLING, NC_SLOT_FREE);
		return;
	}
	if (s->c_pc == A_BEGIN)
	{
		for (int b = 0; b <= nc_model.nslots; b++)
		{
			if (s->buf[b].lent != 0)
				continue;
			n = nc_model_step(s, "owner: FREE -> FILLING");
			n->c_buf[slot] = (uint8_t) b;
			n->c_pc = nc_model.ahead && nc_model.mutant != AIO_PROMOTED_LATE ? A_UNPROMOTE : A_FILL_BLOCK;
			nc_model_owner_move(n, slot, NC_SLOT_FREE, NC_SLOT_FILLING);
		}
		return;
	}
	if (s->c_pc == A_UNPROMOTE)
	{
		n = nc_model_step(s, "owner: nobody waits for this life");
		n->promoted &= (uint8_t) ~(1 << slot);
		n->c_pc = A_FILL_BLOCK;
		return;
	}
	if (s->cancels < nc_model.max_cancels)
	{
		n = nc_model_step(s, "owner: an error, the handle is given back");
		nc_model_misfortune();
		n->cancels++;
		release(n, slot);
		n->c_pc = A_BEGIN;
	}
	if (s->c_pc == A_FILL_BLOCK)
	{
		n = nc_model_step(s, "owner: writes the block");
		n->slot[slot].block = (uint8_t) nc_model_request_id(s, slot);
		n->c_pc = A_FILL_DEST;
		return;
	}
	n = nc_model_step(s, "owner: writes the destination and the handle's generation");
	n->slot[slot].dest_id = (uint8_t) nc_model_request_id(s, slot);
	n->slot[slot].dest = s->c_buf[slot];
	n->slot[slot].handle_generation = s->handle[slot].generation;
	/* no error comes between this and its submit: the server stages it */
	n->buf[s->c_buf[slot]].lent = (uint8_t) nc_model_request_id(s, slot);
	next_slot(n, A_BEGIN, nc_model.mutant == AIO_PREPARE_LATE ? A_SUBMIT : A_PREPARE);
}

static void
submit_steps(const NcModelState *s)
{
	bool		late = nc_model.mutant == AIO_PREPARE_LATE;
	int			slot = s->c_slot;
	NcModelState *n;

	switch (s->c_pc)
	{
		case A_PREPARE:
			n = nc_model_step(s, "owner: the server knows the handle as submitted");
			n->handle[slot].state = H_SUBMITTED;
			n->c_pc = nc_model.mutant == AIO_PROMOTED_LATE ? A_UNPROMOTE_LATE : A_SUBMIT;
			if (late)
				next_slot(n, A_SUBMIT, A_BELL_SET);
			break;
		case A_UNPROMOTE_LATE:
			n = nc_model_step(s, "owner: nobody waits for this life, it thinks");
			n->promoted &= (uint8_t) ~(1 << slot);
			n->c_pc = A_SUBMIT;
			break;
		case A_SUBMIT:
			n = nc_model_step(s, "owner: FILLING -> SUBMITTED");
			nc_model_owner_move(n, slot, NC_SLOT_FILLING, NC_SLOT_SUBMITTED);
			n->c_pc = A_MARK;
			break;
		case A_MARK:
			n = nc_model_step(s, "owner: marks the slot");
			n->marks |= (uint8_t) (1 << slot);
			if (late)
				n->c_pc = A_PREPARE;
			else if (nc_model.mutant == AIO_BELL_FIRST && slot == 0)
				n->c_pc = A_BELL_SET;
			else
				next_slot(n, A_PREPARE, nc_model.mutant == AIO_BELL_FIRST ? A_WAIT : A_BELL_SET);
			break;
	}
}

/* After the last of the batch; in a mutant after the first. */
static void
bell_rung(NcModelState *n)
{
	n->c_saw = 0;
	n->c_pc = A_WAIT;
	if (nc_model.mutant == AIO_BELL_FIRST)
		next_slot(n, A_PREPARE, A_WAIT);
}

static void
bell_steps(const NcModelState *s)
{
	NcModelState *n;

	switch (s->c_pc)
	{
		case A_BELL_SET:
			n = nc_model_step(s, "owner: sets the pending bit");
			n->pending = 1;
			n->c_pc = A_BELL_LOOK;
			break;
		case A_BELL_LOOK:
			n = nc_model_step(s, "owner: looks whether the communicator sleeps");
			n->c_pc = A_BELL_KICK;
			if (!s->asleep || nc_model.mutant == NO_KICK)
				bell_rung(n);
			break;
		case A_BELL_KICK:
			n = nc_model_step(s, "owner: writes to the eventfd");
			n->eventfd = 1;
			bell_rung(n);
			break;
	}
}

static void
owner_wait_steps(const NcModelState *s)
{
	NcModelState *n;

	if (s->c_pc == A_RECLAIM)
	{
		n = nc_model_step(s, "owner: the handle is its own again");
		release(n, s->c_slot);
		next_slot(n, A_WAIT, A_BEGIN);
		if (n->c_pc == A_BEGIN && ++n->c_round == nc_model.nrounds)
			n->c_pc = C_END;
		return;
	}
	if (s->waiter[0].pc != W_IDLE)
	{
		waiter_steps(s, 0);
		return;
	}
	n = nc_model_step(s, "owner: begins to wait for its handle");
	begin_waiting(n, 0, s->c_slot);
	if (nc_model.mutant == AIO_OWNER_LEAVES)
	{
		n = nc_model_step(s, "owner: ends, another process gets the handle");
		n->c_pc = A_RECLAIM;
	}
}

void
nc_model_aio_steps(const NcModelState *s)
{
	if (s->c_pc == C_END)
		;
	else if (s->c_pc <= A_FILL_DEST)
		fill_steps(s);
	else if (s->c_pc <= A_MARK)
		submit_steps(s);
	else if (s->c_pc <= A_BELL_KICK)
		bell_steps(s);
	else
		owner_wait_steps(s);
	other_steps(s);
}
