/*
 * model_client.c
 *	  The client of the slot protocol's model: what a backend does with a slot.
 *
 * It fills and submits every slot of its ring, ringing the doorbell for each,
 * then waits for them in turn, then begins the next round with other buffers.
 * At each step of a wait it may decide to cancel.
 */
#include "slot_model.h"

#include <string.h>

/* The buffer is the owner's again: from now on it may hold anything else. */
static void
take_back(NcModelState *n)
{
	memset(&n->buf[n->c_buf[n->c_slot]], 0, sizeof(n->buf[0]));
}

static void
next_wait(NcModelState *n)
{
	n->c_want = n->c_seen = n->c_promoted = 0;
	n->c_pc = C_CHECK;
	if (++n->c_slot < nc_model.nslots)
		return;
	n->c_slot = 0;
	n->c_pc = ++n->c_round < nc_model.nrounds ? C_BEGIN : C_END;
}

static void
next_submit(NcModelState *n)
{
	n->c_saw = 0;
	n->c_pc = C_BEGIN;
	if (++n->c_slot < nc_model.nslots)
		return;
	n->c_slot = 0;
	n->c_pc = C_CHECK;
}

static void
submit(NcModelState *n)
{
	int			buf = n->c_buf[n->c_slot];

	n->buf[buf].lent = (uint8_t) nc_model_request_id(n, n->c_slot);
	nc_model_owner_move(n, n->c_slot, NC_SLOT_FILLING, NC_SLOT_SUBMITTED);
}

static void
client_fill_steps(const NcModelState *s)
{
	NcModelState *n;
	int			slot = s->c_slot;

	if (s->c_pc == C_BEGIN)
	{
		/* any buffer that is not lent, also one that an earlier request used */
		for (int b = 0; b <= nc_model.nslots; b++)
		{
			if (s->buf[b].lent != 0)
				continue;
			n = nc_model_step(s, "client: FREE -> FILLING");
			n->c_buf[slot] = (uint8_t) b;
			n->c_pc = C_FILL_BLOCK;
			/* what was said of the slot's last life */
			n->promoted &= (uint8_t) ~(1 << slot);
			nc_model_owner_move(n, slot, NC_SLOT_FREE, NC_SLOT_FILLING);
		}
		return;
	}
	if (s->cancels < nc_model.max_cancels)
	{
		n = nc_model_step(s, "client: gives up, FILLING -> FREE");
		nc_model_misfortune();
		n->cancels++;
		n->c_pc = C_BEGIN;
		nc_model_owner_move(n, slot, NC_SLOT_FILLING, NC_SLOT_FREE);
	}
	if (s->c_pc == C_FILL_BLOCK)
	{
		n = nc_model_step(s, "client: writes the block");
		n->slot[slot].block = (uint8_t) nc_model_request_id(s, slot);
		n->c_pc = C_FILL_DEST;
	}
	else
	{
		n = nc_model_step(s, "client: writes the destination");
		n->slot[slot].dest_id = (uint8_t) nc_model_request_id(s, slot);
		n->slot[slot].dest = s->c_buf[slot];
		n->c_pc = nc_model.mutant == BELL_BEFORE_SUBMIT || nc_model.mutant == MARK_BEFORE_SUBMIT ? C_MARK : C_SUBMIT;
	}
}

/* SUBMITTED and the doorbell: mark the slot, set the bit, look at `asleep`, write to the eventfd. */
static void
client_submit_steps(const NcModelState *s)
{
	bool		look_first = nc_model.mutant == LOOK_BEFORE_BIT;
	NcModelState *n;

	switch (s->c_pc)
	{
		case C_SUBMIT:
			n = nc_model_step(s, "client: FILLING -> SUBMITTED");
			submit(n);
			n->c_pc = C_MARK;
			if (nc_model.mutant == MARK_AFTER_BIT || nc_model.mutant == MARK_BEFORE_SUBMIT)
				n->c_pc = C_BELL_SET;
			if (nc_model.mutant == BELL_BEFORE_SUBMIT)
				next_submit(n);
			return;
		case C_MARK:
			n = nc_model_step(s, "client: marks the slot");
			n->marks |= (uint8_t) (1 << s->c_slot);
			n->c_pc = look_first ? C_BELL_LOOK : C_BELL_SET;
			if (nc_model.mutant == MARK_AFTER_BIT)
				n->c_pc = C_BELL_LOOK;
			if (nc_model.mutant == MARK_BEFORE_SUBMIT)
				n->c_pc = C_SUBMIT;
			return;
		case C_BELL_SET:
			n = nc_model_step(s, "client: sets its pending bit");
			n->pending = 1;
			n->c_pc = nc_model.mutant == MARK_AFTER_BIT && !s->c_promoted ? C_MARK : C_BELL_LOOK;
			if (!look_first)
				return;
			break;
		case C_BELL_LOOK:
			n = nc_model_step(s, "client: looks whether the communicator sleeps");
			n->c_saw = s->asleep && nc_model.mutant != NO_KICK;
			n->c_pc = C_BELL_SET;
			if (look_first)
				return;
			break;
		case C_PROMOTE:
			n = nc_model_step(s, "client: says that it waits for what it read ahead");
			n->promoted |= (uint8_t) (1 << s->c_slot);
			n->c_promoted = 1;
			n->c_pc = look_first ? C_BELL_LOOK : C_BELL_SET;
			return;
		default:
			n = nc_model_step(s, "client: writes to the eventfd");
			n->eventfd = 1;
			n->c_saw = 0;
			break;
	}
	if (n->c_saw)
		n->c_pc = C_BELL_KICK;
	else if (s->c_promoted)
		n->c_pc = C_CHECK;
	else if (nc_model.mutant == BELL_BEFORE_SUBMIT)
		n->c_pc = C_SUBMIT;
	else
		next_submit(n);
}

static void
client_cancels(const NcModelState *s, int pc)
{
	NcModelState *n;

	if (s->cancels >= nc_model.max_cancels || s->c_want)
		return;
	n = nc_model_step(s, "client: decides to cancel");
	nc_model_misfortune();
	n->cancels++;
	n->c_want = 1;
	n->c_pc = (uint8_t) pc;
}

/* It saw SUBMITTED, TAKEN or COPYING and wants to leave. */
static void
client_leaves(const NcModelState *s)
{
	NcSlotState state = s->slot[s->c_slot].state;
	NcModelState *n;

	/* loses to a memcpy: stays here, which is the spin, until DONE */
	if (state == NC_SLOT_COPYING && nc_model.mutant != CANCEL_COPYING)
		return;
	n = nc_model_step(s, "client: sees the slot unfinished, will cancel");
	n->c_seen = (uint8_t) state;
	n->c_pc = C_CANCEL;
	if (nc_model.mutant == CANCEL_IN_FLIGHT)
	{
		take_back(n);
		n->c_pc = C_DRAIN;
	}
}

static void
client_check_steps(const NcModelState *s)
{
	int			slot = s->c_slot;
	int			buf = s->c_buf[slot];
	int			id = nc_model_request_id(s, slot);
	NcModelState *n;

	if (s->slot[slot].state == NC_SLOT_DONE)
	{
		n = nc_model_step(s, "client: sees DONE");
		if (s->buf[buf].half[0] != id || s->buf[buf].half[1] != id)
			nc_model_violate(NOT_FILLED);
		if (s->slot[nc_model.mutant == ONE_TEXT ? 0 : slot].text != id)
			nc_model_violate(WRONG_TEXT);
		take_back(n);
		n->c_pc = C_FREE;
		return;
	}
	if (s->c_want)
	{
		client_leaves(s);
		return;
	}
	n = nc_model_step(s, "client: sees the slot unfinished");
	n->c_pc = nc_model.ahead && !s->c_promoted ? C_PROMOTE : C_FLAG;
	client_cancels(s, C_CHECK);
}

static void
client_cancel_step(const NcModelState *s)
{
	int			slot = s->c_slot;
	NcModelState *n = nc_model_step(s, "client: cancel, -> FREE of the next generation");
	bool		won;

	if (s->c_seen == NC_SLOT_COPYING)
	{
		/* only in a mutant: the table has no such move */
		won = s->slot[slot].state == NC_SLOT_COPYING;
		n->slot[slot].state = won ? NC_SLOT_FREE : s->slot[slot].state;
		n->slot[slot].generation += won;
	}
	else
		won = nc_model_move(n, slot, s->slot[slot].generation, s->c_seen, NC_SLOT_FREE);
	n->c_pc = C_CHECK;
	n->c_seen = 0;
	if (won)
	{
		take_back(n);
		next_wait(n);
	}
}

static void
client_wait_steps(const NcModelState *s)
{
	int			slot = s->c_slot;
	NcModelState *n;

	switch (s->c_pc)
	{
		case C_CHECK:
			client_check_steps(s);
			break;
		case C_FLAG:
			n = nc_model_step(s, "client: sets client_asleep");
			n->client_asleep = nc_model.word ? slot + 1 : 1;
			n->c_pc = nc_model.mutant == CLIENT_NO_RECHECK ? C_SLEEP : C_RECHECK;
			break;
		case C_RECHECK:
			n = nc_model_step(s, "client: looks at its slot again");
			if (s->slot[slot].state == NC_SLOT_DONE)
				n->c_pc = C_UNFLAG;
			else if (!nc_model.word)
				n->c_pc = C_SLEEP;
			else
			{
				n->c_pc = C_COMPARE;
				n->c_seen = s->slot[slot].state;
			}
			break;
		case C_COMPARE:
			/* one step for who changes the word and then wakes */
			n = nc_model_step(s, "client: the kernel compares the word, and lets it sleep or not");
			n->c_pc = s->slot[slot].state == s->c_seen || nc_model.mutant == WORD_NO_COMPARE ? C_SLEEP : C_UNFLAG;
			n->c_seen = 0;
			break;
		case C_SLEEP:
			client_cancels(s, C_UNFLAG);
			if (!s->latch)
				break;
			n = nc_model_step(s, nc_model.word ? "client: wakes" : "client: wakes, resets its latch");
			n->latch = 0;
			n->c_pc = C_UNFLAG;
			break;
		case C_UNFLAG:
			n = nc_model_step(s, "client: clears client_asleep");
			n->client_asleep = 0;
			/* a wake of one sleep is nothing to the next */
			if (nc_model.word)
				n->latch = 0;
			n->c_pc = C_CHECK;
			break;
		case C_CANCEL:
			client_cancel_step(s);
			break;
		case C_DRAIN:
			if (s->slot[slot].state == NC_SLOT_DONE)
				nc_model_step(s, "client: collects what it left in flight")->c_pc = C_FREE;
			break;
		case C_FREE:
			n = nc_model_step(s, "client: DONE -> FREE of the next generation");
			nc_model_owner_move(n, slot, NC_SLOT_DONE, NC_SLOT_FREE);
			next_wait(n);
			break;
	}
}

void
nc_model_client_steps(const NcModelState *s)
{
	if (s->c_pc <= C_FILL_DEST)
		client_fill_steps(s);
	else if (s->c_pc <= C_PROMOTE)
		client_submit_steps(s);
	else
		client_wait_steps(s);
}
