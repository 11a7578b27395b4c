/*
 * slot.c
 *	  The transition table of slots and the one function that applies it.
 */
#include "nc/ring/slot.h"

/*
 * Row: from; bit: to. The drawing is in slot.h, the reasons in docs/ring.md.  No way leads
 * from COPYING to FREE: a client that could leave there would take its buffer back in the
 * middle of a memcpy.
 */
static const uint8_t allowed[NC_SLOT_STATES] = {
	[NC_SLOT_FREE] = 1 << NC_SLOT_FILLING,
	[NC_SLOT_FILLING] = 1 << NC_SLOT_SUBMITTED | 1 << NC_SLOT_FREE,
	[NC_SLOT_SUBMITTED] = 1 << NC_SLOT_TAKEN | 1 << NC_SLOT_FREE,
	[NC_SLOT_TAKEN] = 1 << NC_SLOT_COPYING | 1 << NC_SLOT_SUBMITTED | 1 << NC_SLOT_FREE,
	[NC_SLOT_COPYING] = 1 << NC_SLOT_DONE | 1 << NC_SLOT_TAKEN,
	[NC_SLOT_DONE] = 1 << NC_SLOT_FREE,
};

bool
nc_slot_move_allowed(NcSlotState from, NcSlotState to)
{
	return (unsigned) from < NC_SLOT_STATES && (unsigned) to < NC_SLOT_STATES &&
		(allowed[from] >> to & 1) != 0;
}

bool
nc_slot_move(NcSlot *slot, uint64_t seen, NcSlotState to)
{
	NcSlotState from = nc_slot_word_state(seen);
	uint64_t	generation = nc_slot_word_generation(seen);

	NC_ASSERT(nc_slot_move_allowed(from, to));
	if (to == NC_SLOT_FREE && from != NC_SLOT_FILLING)
		generation++;

	/*
	 * Release: what the mover wrote, or copied, in the old state comes before the new one.
	 * Acquire: so it is after what the other side did before its last move.  Also when it
	 * fails, since the loser looks again.  Strong, since a false failure would be taken
	 * for a move of the other side.
	 */
	return atomic_compare_exchange_strong_explicit(&slot->word, &seen,
												   nc_slot_word(generation, to),
												   memory_order_acq_rel,
												   memory_order_acquire);
}

const char *
nc_slot_state_name(NcSlotState state)
{
	switch (state)
	{
		case NC_SLOT_FREE:
			return "free";
		case NC_SLOT_FILLING:
			return "filling";
		case NC_SLOT_SUBMITTED:
			return "submitted";
		case NC_SLOT_TAKEN:
			return "taken";
		case NC_SLOT_COPYING:
			return "copying";
		case NC_SLOT_DONE:
			return "done";
	}
	return "invalid";
}

const char *
nc_slot_kind_name(NcSlotKind kind)
{
	switch (kind)
	{
		case NC_SLOT_KIND_GETPAGE:
			return "getpage";
		case NC_SLOT_KIND_EXISTS:
			return "exists";
		case NC_SLOT_KIND_NBLOCKS:
			return "nblocks";
		case NC_SLOT_KIND_DBSIZE:
			return "dbsize";
	}
	return "invalid";
}
