/*
 * aio.c
 *	  What processes of the server do with the slots of AIO handles.
 *
 * The other side is the engine: it takes them as it takes any slot and completes
 * their handles (complete_handle() of src/engine/deliver.c).
 */
#include "nc/ring/aio.h"

/*
 * A waiter looks at two of the fields while they may belong to a later life, which its
 * move then tells; plain stores of the rest come before SUBMITTED.
 */
static inline uint64_t
look(const uint64_t *field)
{
	return __atomic_load_n(field, __ATOMIC_RELAXED);
}

static inline void
put(uint64_t *field, uint64_t value)
{
	__atomic_store_n(field, value, __ATOMIC_RELAXED);
}

bool
nc_aio_fill(NcRingArea *area, uint32_t handle, uint64_t handle_generation, const NcAioRead *read)
{
	NcSlot	   *slot = nc_aio_slot(area, handle);
	uint64_t	word = nc_slot_load(slot);

	/* an error between this and the submit of an earlier life */
	if (nc_slot_word_state(word) == NC_SLOT_FILLING && nc_slot_move(slot, word, NC_SLOT_FREE))
		word = nc_slot_load(slot);
	if (nc_slot_word_state(word) != NC_SLOT_FREE || !nc_slot_move(slot, word, NC_SLOT_FILLING))
		return false;
	/* now: who waits for this life can find it only after it was staged */
	nc_ring_unpromote(area, nc_aio_ring(area, handle), handle % NC_RING_SLOTS);
	slot->spc = read->rel.spc;
	slot->db = read->rel.db;
	slot->rel = read->rel.rel;
	slot->fork = (uint8_t) read->rel.fork;
	slot->kind = NC_SLOT_KIND_GETPAGE;
	slot->class = NC_SLOT_CLASS_AIO;
	slot->nblocks = (uint8_t) read->nblocks;
	slot->block = read->block;
	slot->request_lsn = read->request_lsn;
	slot->not_modified_since = read->not_modified_since;
	put(&slot->handle_generation, handle_generation);
	return true;
}

void
nc_aio_submit(NcRingArea *area, uint32_t handle, uint64_t now_us)
{
	NcSlot	   *slot = nc_aio_slot(area, handle);
	uint64_t	word = nc_slot_load(slot);
	bool		moved;

	put(&slot->submit_us, now_us);
	moved = nc_slot_word_state(word) == NC_SLOT_FILLING && nc_slot_move(slot, word, NC_SLOT_SUBMITTED);
	NC_ASSERT(moved);
	(void) moved;
	nc_ring_announce(area, nc_aio_ring(area, handle), handle % NC_RING_SLOTS);
}

bool
nc_aio_is_ours(const NcRingArea *area, uint32_t handle, uint64_t handle_generation)
{
	return look(&nc_aio_slot(area, handle)->handle_generation) == handle_generation;
}

void
nc_aio_promote(NcRingArea *area, uint32_t handle, uint64_t handle_generation)
{
	if (nc_aio_is_ours(area, handle, handle_generation))
		nc_ring_promote(area, nc_aio_ring(area, handle), handle % NC_RING_SLOTS);
}

bool
nc_aio_claim(NcRingArea *area, uint32_t handle, uint64_t handle_generation,
			 uint64_t submitted_until_us)
{
	NcSlot	   *slot = nc_aio_slot(area, handle);

	/* each failed move has seen the slot go on: forwards, or back once for each communicator */
	for (;;)
	{
		uint64_t	word = nc_slot_load(slot);
		NcSlotState state = nc_slot_word_state(word);

		if (state != NC_SLOT_SUBMITTED && state != NC_SLOT_TAKEN)
			return false;
		/* looked at between the word and its move, so that they are of the life that is moved */
		if (look(&slot->handle_generation) != handle_generation || look(&slot->submit_us) > submitted_until_us)
			return false;
		if (nc_slot_move(slot, word, NC_SLOT_FREE))
			return true;
	}
}
