/*
 * model_comm.c
 *	  The communicator of the slot protocol's model: takes requests, delivers
 *	  their answers in any order, sleeps, exits and is started again.
 *
 * The page server is part of it: an answer to any request in flight may arrive
 * whenever the communicator is between two pieces of work, or asleep.
 */
#include "slot_model.h"

#include <stdlib.h>
#include <string.h>

/* Its private words that nothing will read again; without this equal states would differ. */
static void
forget(NcModelState *n, int pc)
{
	n->k_generation = n->k_block = n->k_dest_id = n->k_dest = n->k_taken = n->k_saw = n->k_handle = 0;
	n->k_pc = (uint8_t) pc;
}

/* The first slot from k_slot on that is marked. */
static void
scan(NcModelState *n)
{
	forget(n, K_SCAN);
	for (; n->k_slot < nc_model.nslots; n->k_slot++)
		if ((n->k_marks >> n->k_slot & 1) != 0)
			return;
	n->k_slot = n->k_marks = 0;
	n->k_pc = nc_model.mutant == MARKS_LATE ? K_CLEAR_MARKS : nc_model.mutant == CLEAR_LATE ? K_CLEAR : K_TOP;
	if (nc_model.ahead && nc_model.mutant != PROMOTED_BEFORE_TAKE)
		n->k_pc = K_PROMOTE;
}

static void
next_scan(NcModelState *n)
{
	n->k_slot++;
	scan(n);
}

/* The request is now in flight; kept sorted, as their order has no meaning. */
static void
accept_request(NcModelState *n)
{
	int			at = n->ninflight++;

	if (at >= MODEL_INFLIGHT_MAX)
		abort();
	if (n->k_block != n->k_taken || n->k_dest_id != n->k_taken)
		nc_model_violate(TORN);
	for (; at > 0 && n->inflight[at - 1].id > n->k_block; at--)
		n->inflight[at] = n->inflight[at - 1];
	n->inflight[at].promoted = 0;
	n->inflight[at].generation = n->k_generation;
	n->inflight[at].slot_dest = (uint8_t) (n->k_slot << 4 | n->k_dest);
	n->inflight[at].id = n->k_block;
	next_scan(n);
}

/* Has the life of the slot that asked ended? */
static bool
is_over(const NcModelState *s, int i)
{
	return s->slot[s->inflight[i].slot_dest >> 4].generation != s->inflight[i].generation;
}

/* The answer to one request in flight, whichever, is here. */
static void
answer_steps(const NcModelState *s, int pc)
{
	for (int i = 0; i < s->ninflight; i++)
	{
		size_t		behind = (size_t) (s->ninflight - i - 1);
		NcModelState *n;

		/* there are always others to go first */
		if (nc_model.ahead && !s->inflight[i].promoted && !is_over(s, i))
			continue;
		n = nc_model_step(s, "communicator: an answer arrives");
		n->k_generation = s->inflight[i].generation;
		n->k_slot = s->inflight[i].slot_dest >> 4;
		n->k_dest = s->inflight[i].slot_dest & 0xf;
		n->k_block = s->inflight[i].id;
		memmove(&n->inflight[i], &n->inflight[i + 1], behind * sizeof(n->inflight[0]));
		memset(&n->inflight[--n->ninflight], 0, sizeof(n->inflight[0]));
		n->k_pc = (uint8_t) pc;
	}
}

/* Those that are waited for are answered like any other from now on. */
static void
promote(NcModelState *n)
{
	for (int i = 0; i < n->ninflight; i++)
		if ((n->promoted >> (n->inflight[i].slot_dest >> 4) & 1) != 0)
			n->inflight[i].promoted = 1;
	if (nc_model.mutant == PROMOTED_TAKEN)
		n->promoted = 0;
}

static void
comm_take_steps(const NcModelState *s)
{
	int			slot = s->k_slot;
	bool		late = nc_model.mutant == COPY_AFTER_TAKE;
	NcModelState *n;

	switch (s->k_pc)
	{
		case K_MARKS:
			n = nc_model_step(s, "communicator: takes the marks of the ring");
			n->k_marks = s->marks;
			if (nc_model.mutant != MARKS_LATE)
				n->marks = 0;
			if (nc_model.mutant == MARKS_BEFORE_BIT)
				n->k_pc = K_TAKE_BIT;
			else
				scan(n);
			break;
		case K_TAKE_BIT:
			n = nc_model_step(s, "communicator: takes the bitmap behind the marks");
			n->pending = 0;
			scan(n);
			break;
		case K_CLEAR_MARKS:
			n = nc_model_step(s, "communicator: clears the marks after its scan");
			n->marks = 0;
			n->k_pc = K_TOP;
			break;
		case K_SCAN:
			n = nc_model_step(s, "communicator: loads a slot's word");
			n->k_generation = s->slot[slot].generation;
			n->k_pc = late ? K_TAKE : K_COPY_BLOCK;
			if (s->slot[slot].state != NC_SLOT_SUBMITTED)
				next_scan(n);
			break;
		case K_COPY_BLOCK:
			n = nc_model_step(s, "communicator: copies the block");
			n->k_block = s->slot[slot].block;
			n->k_pc = K_COPY_DEST;
			break;
		case K_COPY_DEST:
			n = nc_model_step(s, "communicator: copies the destination");
			n->k_dest_id = s->slot[slot].dest_id;
			n->k_dest = s->slot[slot].dest;
			n->k_pc = K_TAKE;
			if (late)
				accept_request(n);
			break;
		case K_TAKE:
			n = nc_model_step(s, "communicator: SUBMITTED -> TAKEN");
			n->k_taken = (uint8_t) nc_model_request_id(s, slot);
			n->k_pc = K_COPY_BLOCK;
			if (!nc_model_move(n, slot, s->k_generation, NC_SLOT_SUBMITTED, NC_SLOT_TAKEN))
				next_scan(n);
			else if (!late)
				accept_request(n);
			break;
		case K_PROMOTE:
			n = nc_model_step(s, "communicator: looks who waits for what was read ahead");
			promote(n);
			n->k_pc = nc_model.mutant == CLEAR_LATE ? K_CLEAR :
				nc_model.mutant == PROMOTED_BEFORE_TAKE ? K_MARKS : K_TOP;
			break;
		case K_CLEAR:
			n = nc_model_step(s, "communicator: clears the bitmap after its scan");
			n->pending = 0;
			n->k_pc = K_TOP;
			break;
	}
}

static void
write_half(NcModelState *n, int half)
{
	if (n->buf[n->k_dest].lent != n->k_block)
		nc_model_violate(n->buf[n->k_dest].lent == 0 ? WRITE_UNOWNED : WRITE_FOREIGN);
	n->buf[n->k_dest].half[half] = n->k_block;
}

/*
 * The end of a delivery, also of one that came too late.  Wakes may be put off
 * until the end of the turn, never beyond it.
 */
static void
delivered(NcModelState *n)
{
	forget(n, n->k_owes ? K_LOOK : K_TOP);
	n->k_slot = 0;
}

/* Opens the copying window, if the slot still lives the life that asked. */
static bool
begin_copying(NcModelState *n)
{
	int			generation = n->slot[n->k_slot].generation;

	/* the mutant only looks, and moves when the page is written */
	if (nc_model.mutant == NO_COPYING)
		return n->slot[n->k_slot].state == NC_SLOT_TAKEN && generation == n->k_generation;
	if (nc_model.mutant != LATE_ANSWER)
		generation = n->k_generation;
	return nc_model_move(n, n->k_slot, generation, NC_SLOT_TAKEN, NC_SLOT_COPYING);
}

static void
comm_write_steps(const NcModelState *s)
{
	NcModelState *n;

	switch (s->k_pc)
	{
		case K_DELIVER:
			n = nc_model_step(s, "communicator: TAKEN -> COPYING");
			n->k_pc = nc_model.mutant == DONE_EARLY ? K_DONE : K_WRITE_0;
			if (!begin_copying(n))
				delivered(n);
			break;
		case K_WRITE_0:
			n = nc_model_step(s, "communicator: writes half of the page");
			write_half(n, 0);
			n->k_pc = K_WRITE_1;
			if (nc_model.mutant == NO_COPYING || nc_model.mutant == DONE_EARLY)
				break;
			/* or the halves are pages of a range read ahead, each with its own window */
			n = nc_model_step(s, "communicator: writes half, COPYING -> TAKEN");
			write_half(n, 0);
			nc_model_owner_move(n, n->k_slot, NC_SLOT_COPYING, NC_SLOT_TAKEN);
			n->k_pc = K_PAUSED;
			break;
		case K_PAUSED:
			n = nc_model_step(s, "communicator: TAKEN -> COPYING for the rest");
			n->k_pc = K_WRITE_1;
			if (!begin_copying(n))
				delivered(n);
			break;
		case K_WRITE_1:
			n = nc_model_step(s, "communicator: writes the rest of the page");
			write_half(n, 1);
			n->slot[nc_model.mutant == ONE_TEXT ? 0 : n->k_slot].text = n->k_block;
			n->k_pc = K_DONE;
			if (nc_model.mutant == LOOK_BEFORE_DONE || nc_model.mutant == DONE_EARLY)
				n->k_pc = K_LOOK;
			break;
	}
}

static void
comm_done_step(const NcModelState *s)
{
	NcModelState *n = nc_model_step(s, "communicator: COPYING -> DONE");
	bool		saw = s->k_saw;

	if (nc_model.mutant == NO_COPYING)
		nc_model_owner_move(n, s->k_slot, NC_SLOT_TAKEN, NC_SLOT_COPYING);
	nc_model_owner_move(n, s->k_slot, NC_SLOT_COPYING, NC_SLOT_DONE);
	if (nc_model.aio)
	{
		n->k_handle = s->slot[s->k_slot].handle_generation;
		n->k_pc = nc_model.mutant == AIO_COMPLETE_FIRST ? K_COMPLETE : K_FREE;
		return;
	}
	if (nc_model.mutant == DONE_EARLY)
	{
		n->k_pc = K_WRITE_0;
		return;
	}
	n->k_owes = nc_model.mutant != NO_CLIENT_WAKE && nc_model.mutant != LOOK_BEFORE_DONE;
	delivered(n);
	if (saw)
		n->k_pc = K_WAKE;
}

/* What the communicator does for the owner of a handle. */
static void
comm_complete_steps(const NcModelState *s)
{
	bool		first = nc_model.mutant == AIO_COMPLETE_FIRST;
	NcModelState *n;

	switch (s->k_pc)
	{
		case K_FREE:
			n = nc_model_step(s, "communicator: DONE -> FREE of the next generation");
			nc_model_owner_move(n, s->k_slot, NC_SLOT_DONE, NC_SLOT_FREE);
			n->k_pc = K_COMPLETE;
			if (first)
				delivered(n);
			break;
		case K_COMPLETE:
			n = nc_model_step(s, "communicator: completes the handle");
			nc_model_complete(n, s->k_slot, s->k_handle, false);
			n->k_pc = K_COMPLETED;
			break;
		case K_COMPLETED:
			n = nc_model_step(s, "communicator: makes the completion known");
			nc_model_completed(n, s->k_slot);
			if (first)
				n->k_pc = K_FREE;
			else
				delivered(n);
			break;
	}
}

/* --word: a wake reaches who sleeps on that word now, and is nothing to anybody else. */
static void
wake_word(NcModelState *n)
{
	if (n->c_pc == C_SLEEP && n->c_slot + 1 == n->k_saw)
		n->latch = 1;
	n->k_saw = 0;
}

/* --word: on which one?  Whoever does not sleep any more needs no wake. */
static NcModelState *
look_which_word(const NcModelState *s, int wake)
{
	NcModelState *n = nc_model_step(s, "communicator: looks on which word the client sleeps");

	n->k_saw = s->client_asleep;
	n->k_pc = (uint8_t) wake;
	return n->k_saw == 0 ? n : NULL;
}

static void
comm_wake_steps(const NcModelState *s)
{
	NcModelState *n;

	if (s->k_pc == K_WAKE && nc_model.word)
	{
		n = look_which_word(s, K_WAKE_WORD);
		if (n != NULL)
			delivered(n);
		return;
	}
	if (s->k_pc == K_WAKE_WORD)
	{
		n = nc_model_step(s, "communicator: wakes who sleeps on the word");
		wake_word(n);
		delivered(n);
		return;
	}
	if (s->k_pc == K_WAKE)
	{
		n = nc_model_step(s, "communicator: sets the client's latch");
		n->latch = 1;
		delivered(n);
		return;
	}
	n = nc_model_step(s, "communicator: looks whether the client sleeps");
	if (nc_model.mutant == LOOK_BEFORE_DONE)
	{
		n->k_saw = s->client_asleep;
		n->k_pc = K_DONE;
		return;
	}
	n->k_owes = 0;
	delivered(n);
	if (s->client_asleep)
		n->k_pc = K_WAKE;
	/* the turn may go on with another answer first */
	answer_steps(s, K_DELIVER);
}

static void
comm_loop_steps(const NcModelState *s)
{
	NcModelState *n;

	switch (s->k_pc)
	{
		case K_TOP:
			n = nc_model_step(s, s->pending ? "communicator: takes the bitmap"
							  : "communicator: finds the bitmap empty");
			n->k_pc = s->pending ? K_MARKS : K_SLEEP_FLAG;
			if (s->pending && nc_model.ahead && nc_model.mutant == PROMOTED_BEFORE_TAKE)
				n->k_pc = K_PROMOTE;
			if (nc_model.mutant != CLEAR_LATE && nc_model.mutant != MARKS_BEFORE_BIT)
				n->pending = 0;
			answer_steps(s, K_DELIVER);
			break;
		case K_SLEEP_FLAG:
			n = nc_model_step(s, "communicator: sets asleep");
			n->asleep = 1;
			n->k_pc = nc_model.mutant == COMM_NO_RECHECK ? K_ASLEEP : K_SLEEP_LOOK;
			break;
		case K_SLEEP_LOOK:
			n = nc_model_step(s, "communicator: looks at the bitmap again");
			n->k_pc = s->pending ? K_AWAKE : K_ASLEEP;
			if (nc_model.mutant == DRAIN_LATE && !s->pending)
				n->k_pc = K_DRAIN_LATE;
			break;
		case K_DRAIN_LATE:
			n = nc_model_step(s, "communicator: drains the eventfd before it sleeps");
			n->eventfd = 0;
			n->k_pc = K_ASLEEP;
			break;
		case K_ASLEEP:
			answer_steps(s, K_AWAKE);
			if (s->eventfd)
				nc_model_step(s, "communicator: the eventfd wakes it")->k_pc = K_AWAKE;
			break;
		case K_AWAKE:
			n = nc_model_step(s, "communicator: clears asleep");
			n->asleep = 0;
			n->k_pc = K_DRAIN;
			break;
		case K_DRAIN:
			n = nc_model_step(s, "communicator: drains the eventfd");
			n->eventfd = 0;
			n->k_pc = s->k_block != 0 ? K_DELIVER : K_TOP;
			break;
	}
}

static void
next_boot(NcModelState *n)
{
	forget(n, K_BOOT_LOAD);
	if (++n->k_slot < nc_model.nslots)
		return;
	n->k_slot = 0;
	n->k_pc = K_BOOT_MARK;
}

static void
comm_boot_steps(const NcModelState *s)
{
	int			slot = s->k_slot;
	NcModelState *n;

	switch (s->k_pc)
	{
		case K_BOOT:
			n = nc_model_step(s, "new communicator: starts, clears asleep");
			n->asleep = 0;
			n->k_pc = K_BOOT_LOAD;
			break;
		case K_BOOT_LOAD:
			n = nc_model_step(s, "new communicator: loads a slot's word");
			n->k_generation = s->slot[slot].generation;
			n->k_pc = K_BOOT_REQUEUE;
			if (s->slot[slot].state == NC_SLOT_SUBMITTED)
				n->k_marks |= (uint8_t) (1 << slot);
			if (s->slot[slot].state != NC_SLOT_TAKEN || nc_model.mutant == RESTART_NO_REQUEUE)
				next_boot(n);
			break;
		case K_BOOT_REQUEUE:
			n = nc_model_step(s, "new communicator: TAKEN -> SUBMITTED");
			/* it fails when the client has cancelled, and then there is nothing to do */
			if (nc_model_move(n, slot, s->k_generation, NC_SLOT_TAKEN, NC_SLOT_SUBMITTED))
				n->k_marks |= (uint8_t) (1 << slot);
			next_boot(n);
			break;
		case K_BOOT_MARK:
			n = nc_model_step(s, "new communicator: marks what is submitted");
			if (nc_model.mutant != RESTART_NO_MARKS)
				n->marks |= s->k_marks;
			n->k_marks = 0;
			n->k_pc = nc_model.mutant == RESTART_NO_BELL ? K_BOOT_LOOK : K_BOOT_BELL;
			break;
		case K_BOOT_BELL:
			n = nc_model_step(s, "new communicator: sets every pending bit");
			n->pending = 1;
			n->k_pc = K_BOOT_LOOK;
			break;
		case K_BOOT_LOOK:
			n = nc_model_step(s, "new communicator: looks whether the client sleeps");
			n->k_pc = s->client_asleep && nc_model.mutant != RESTART_NO_WAKE ? K_BOOT_WAKE : K_TOP;
			break;
		case K_BOOT_WAKE_WORD:
			n = nc_model_step(s, "new communicator: wakes who sleeps on the word");
			wake_word(n);
			n->k_pc = K_TOP;
			break;
		case K_BOOT_WAKE:
			if (nc_model.word)
			{
				n = look_which_word(s, K_BOOT_WAKE_WORD);
				if (n != NULL)
					n->k_pc = K_TOP;
				break;
			}
			n = nc_model_step(s, "new communicator: sets the client's latch");
			n->latch = 1;
			n->k_pc = K_TOP;
			break;
	}
}

/* The communicator ends between any two steps outside COPYING and a completion; what it knew is gone. */
static void
restart_step(const NcModelState *s)
{
	NcModelState *n;

	if (s->restarts >= nc_model.max_restarts)
		return;
	for (int i = 0; i < nc_model.nslots; i++)
	{
		if (s->slot[i].state == NC_SLOT_COPYING && nc_model.mutant != EXIT_IN_COPYING)
			return;
	}
	if (s->k_pc >= K_FREE && s->k_pc <= K_COMPLETED && nc_model.mutant != AIO_EXIT_IN_COMPLETION)
		return;
	n = nc_model_step(s, "communicator: exits, its memory is lost");
	nc_model_misfortune();
	n->restarts++;
	n->ninflight = n->k_slot = n->k_marks = n->k_owes = 0;
	memset(n->inflight, 0, sizeof(n->inflight));
	forget(n, K_BOOT);
}

void
nc_model_comm_steps(const NcModelState *s)
{
	if (s->k_pc <= K_CLEAR)
		comm_take_steps(s);
	else if (s->k_pc <= K_WRITE_1)
		comm_write_steps(s);
	else if (s->k_pc == K_DONE)
		comm_done_step(s);
	else if (s->k_pc <= K_COMPLETED)
		comm_complete_steps(s);
	else if (s->k_pc <= K_WAKE_WORD)
		comm_wake_steps(s);
	else if (s->k_pc <= K_DRAIN)
		comm_loop_steps(s);
	else
		comm_boot_steps(s);
	restart_step(s);
}
