/*
 * ring.c
 *	  Carves the shared area and implements both directions of the wake-up
 *	  handshake described in ring.h.
 */
#include "nc/ring/ring.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "nc/base/mutant.h"

static size_t
doorbell_bytes(uint32_t nrings)
{
	size_t		bytes = sizeof(NcDoorbell) + ((size_t) nrings + 63) / 64 * sizeof(uint64_t);

	return (bytes + NC_CACHE_LINE_BYTES - 1) / NC_CACHE_LINE_BYTES * NC_CACHE_LINE_BYTES;
}

size_t
nc_ring_area_bytes(uint32_t nrings)
{
	/* one line more, so that the caller's memory needs no alignment */
	return NC_CACHE_LINE_BYTES + doorbell_bytes(nrings) + (size_t) nrings * sizeof(NcRing);
}

void
nc_ring_area_attach(NcRingArea *area, void *memory, uint32_t nrings, int eventfd, bool init)
{
	uintptr_t	start = ((uintptr_t) memory + NC_CACHE_LINE_BYTES - 1) &
		~(uintptr_t) (NC_CACHE_LINE_BYTES - 1);

	area->nrings = nrings;
	area->doorbell = (NcDoorbell *) start;
	area->rings = (NcRing *) (start + doorbell_bytes(nrings));
	area->eventfd = eventfd;

	if (!init)
		return;
	memset((void *) start, 0, doorbell_bytes(nrings) + (size_t) nrings * sizeof(NcRing));
	for (uint32_t r = 0; r < nrings; r++)
		for (uint32_t s = 0; s < NC_RING_SLOTS; s++)
			atomic_init(&area->rings[r].slots[s].word, nc_slot_word(1, NC_SLOT_FREE));
}

void
nc_ring_kick(NcRingArea *area)
{
	uint64_t	one = 1;
	int			saved_errno = errno;

	/*
	 * The only failure possible is a saturated counter (EAGAIN), and then the
	 * descriptor is readable anyway.
	 */
	if (area->eventfd >= 0 && write(area->eventfd, &one, sizeof(one)) < 0)
		errno = saved_errno;
	errno = saved_errno;
}

bool
nc_ring_notify(NcRingArea *area, uint32_t ring)
{
	NcDoorbell *bell = area->doorbell;

	NC_ASSERT(ring < area->nrings);
	/* pairs with nc_doorbell_sleep(): set the bit, full barrier, look at asleep */
	atomic_fetch_or_explicit(&bell->pending[ring / 64], UINT64_C(1) << (ring % 64),
							 memory_order_seq_cst);
	atomic_thread_fence(memory_order_seq_cst);
	if (atomic_load_explicit(&bell->asleep, memory_order_seq_cst) == 0)
		return false;
	nc_ring_kick(area);
	return true;
}

bool
nc_doorbell_sleep(NcRingArea *area)
{
	NcDoorbell *bell = area->doorbell;

	/* pairs with nc_ring_notify(): set asleep, full barrier, look at the bits */
	atomic_store_explicit(&bell->asleep, 1, memory_order_seq_cst);
	atomic_thread_fence(memory_order_seq_cst);
	for (uint32_t w = 0; w < nc_doorbell_words(area); w++)
	{
		if (atomic_load_explicit(&bell->pending[w], memory_order_seq_cst) != 0 &&
			!NC_MUTANT(LOST_DOORBELL))
		{
			nc_doorbell_awake(area);
			return false;
		}
	}
	return true;
}

bool
nc_doorbell_pending(const NcRingArea *area)
{
	for (uint32_t w = 0; w < nc_doorbell_words(area); w++)
		if (atomic_load_explicit(&area->doorbell->pending[w], memory_order_relaxed) != 0)
			return true;
	return false;
}

void
nc_doorbell_awake(NcRingArea *area)
{
	atomic_store_explicit(&area->doorbell->asleep, 0, memory_order_seq_cst);
}

uint64_t
nc_doorbell_take(NcRingArea *area, uint32_t word_index)
{
	_Atomic uint64_t *word = &area->doorbell->pending[word_index];

	NC_ASSERT(word_index < nc_doorbell_words(area));
	if (atomic_load_explicit(word, memory_order_relaxed) == 0)
		return 0;
	return atomic_exchange_explicit(word, 0, memory_order_seq_cst);
}

bool
nc_ring_client_needs_wake(NcRing *ring)
{
	uint32_t	asleep;

	atomic_thread_fence(memory_order_seq_cst);
	asleep = atomic_load_explicit(&ring->client_asleep, memory_order_seq_cst);
	if (asleep < NC_RING_ASLEEP_FOR(0) || asleep >= NC_RING_ASLEEP_FOR(NC_RING_SLOTS))
		return asleep != 0;

	/* not ended: its end will come here again */
	switch (nc_slot_word_state(nc_slot_load(&ring->slots[asleep - NC_RING_ASLEEP_FOR(0)])))
	{
		case NC_SLOT_SUBMITTED:
		case NC_SLOT_TAKEN:
		case NC_SLOT_COPYING:
			return false;
		case NC_SLOT_FREE:
		case NC_SLOT_FILLING:
		case NC_SLOT_DONE:
			break;
	}
	return true;
}
