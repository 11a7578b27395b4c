/*
 * ring.c
 *	  Carves the shared area and implements both directions of the wake-up
 *	  handshake described in ring.h.
 */
#include "nc/ring/ring.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "nc/base/futex.h"

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

	/* the same in each process: what they share is found by arithmetic, not by pointers in it */
	area->nrings = nrings;
	area->aio_first = nrings;
	area->doorbell = (NcDoorbell *) start;
	area->rings = (NcRing *) (start + doorbell_bytes(nrings));
	area->eventfd = eventfd;
	area->traces = NULL;

	if (init)
		memset((void *) start, 0, doorbell_bytes(nrings) + (size_t) nrings * sizeof(NcRing));
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

static void
set_pending(NcRingArea *area, uint32_t ring)
{
	NC_ASSERT(ring < area->nrings);
	/*
	 * Pairs with nc_doorbell_sleep(): set the bit, full barrier, look at asleep.  The OR
	 * also pairs with the exchange in nc_doorbell_take(): who takes the bit sees the marks.
	 */
	atomic_fetch_or_explicit(&area->doorbell->pending[ring / 64], UINT64_C(1) << (ring % 64),
							 memory_order_seq_cst);
}

void
nc_ring_announce(NcRingArea *area, uint32_t ring, uint32_t slot)
{
	NC_ASSERT(ring < area->nrings && slot < NC_RING_SLOTS);
	/* pairs with the exchange in nc_ring_take_marks(): who takes the mark sees SUBMITTED */
	atomic_fetch_or_explicit(&area->rings[ring].submitted, UINT64_C(1) << slot, memory_order_seq_cst);
	set_pending(area, ring);
}

bool
nc_ring_bell(NcRingArea *area)
{
	/* pairs with nc_doorbell_sleep(): the bits are set, full barrier, look at asleep */
	atomic_thread_fence(memory_order_seq_cst);
	if (atomic_load_explicit(&area->doorbell->asleep, memory_order_seq_cst) == 0)
		return false;
	nc_ring_kick(area);
	return true;
}

bool
nc_ring_notify(NcRingArea *area, uint32_t ring, uint32_t slot)
{
	nc_ring_announce(area, ring, slot);
	return nc_ring_bell(area);
}

void
nc_ring_promote(NcRingArea *area, uint32_t ring, uint32_t slot)
{
	/* state before event: who takes the ring's bit sees it */
	atomic_fetch_or_explicit(&area->rings[ring].promoted, UINT64_C(1) << slot, memory_order_seq_cst);
	set_pending(area, ring);
	(void) nc_ring_bell(area);
}

void
nc_ring_unpromote(NcRingArea *area, uint32_t ring, uint32_t slot)
{
	_Atomic uint64_t *word = &area->rings[ring].promoted;
	uint64_t	bit = UINT64_C(1) << slot;

	/* mostly nobody has said so */
	if ((atomic_load_explicit(word, memory_order_relaxed) & bit) != 0)
		atomic_fetch_and_explicit(word, ~bit, memory_order_seq_cst);
}

bool
nc_doorbell_sleep(NcRingArea *area)
{
	NcDoorbell *bell = area->doorbell;

	/*
	 * Pairs with nc_ring_notify(): set asleep, full barrier, look at the bits.  Release and
	 * acquire would not do: a store may then be overtaken by the load behind it, on both
	 * sides, and the communicator sleeps on a request that nobody announces.
	 */
	atomic_store_explicit(&bell->asleep, 1, memory_order_seq_cst);
	atomic_thread_fence(memory_order_seq_cst);
	for (uint32_t w = 0; w < nc_doorbell_words(area); w++)
	{
		if (atomic_load_explicit(&bell->pending[w], memory_order_seq_cst) != 0)
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
	/* relaxed: a bit that is missed here is seen by the next look, or before the sleep */
	for (uint32_t w = 0; w < nc_doorbell_words(area); w++)
		if (atomic_load_explicit(&area->doorbell->pending[w], memory_order_relaxed) != 0)
			return true;
	return false;
}

void
nc_doorbell_awake(NcRingArea *area)
{
	/* pairs with nothing: who still sees 1 writes to the eventfd, and one sleep is short */
	atomic_store_explicit(&area->doorbell->asleep, 0, memory_order_seq_cst);
}

uint64_t
nc_doorbell_take(NcRingArea *area, uint32_t word_index)
{
	_Atomic uint64_t *word = &area->doorbell->pending[word_index];

	NC_ASSERT(word_index < nc_doorbell_words(area));
	/* most words are 0 most of the time: no line is taken from the clients for these */
	if (atomic_load_explicit(word, memory_order_relaxed) == 0)
		return 0;
	/* pairs with the OR in nc_ring_notify(): the bit came after the mark */
	return atomic_exchange_explicit(word, 0, memory_order_seq_cst);
}

uint64_t
nc_ring_take_marks(NcRing *ring)
{
	return atomic_exchange_explicit(&ring->submitted, 0, memory_order_seq_cst);
}

bool
nc_ring_client_needs_wake(NcRing *ring)
{
	uint32_t	asleep;

	/*
	 * Pairs with the fence of a client that is about to sleep (sleep_once() of
	 * src/client/client.c): DONE, full barrier, look at the flag, against flag, full
	 * barrier, look at the slot.  Whoever comes second sees the other.
	 */
	atomic_thread_fence(memory_order_seq_cst);
	asleep = atomic_load_explicit(&ring->client_asleep, memory_order_seq_cst) &
		~(uint32_t) NC_RING_ASLEEP_ON_WORD;

	/* a number that is no slot's is the client's mistake, and costs a wake at most */
	if (asleep < NC_RING_ASLEEP_FOR(0) || asleep >= NC_RING_ASLEEP_FOR(NC_RING_SLOTS))
		return asleep != 0;

	/* not ended: its end will come here again */
	switch (nc_slot_word_state(nc_slot_load(&ring->slots[asleep - NC_RING_ASLEEP_FOR(0)])))
	{
		case NC_SLOT_SUBMITTED:
		case NC_SLOT_TAKEN:
		case NC_SLOT_COPYING:
			return false;
			/* free or beyond: the client is awake already, and a latch set in vain is harmless */
		case NC_SLOT_FREE:
		case NC_SLOT_FILLING:
		case NC_SLOT_DONE:
			break;
	}
	return true;
}

bool
nc_ring_wake_word(const NcRing *ring)
{
	uint32_t	asleep = atomic_load_explicit(&ring->client_asleep, memory_order_seq_cst);
	uint32_t	slot = (asleep & ~(uint32_t) NC_RING_ASLEEP_ON_WORD) - NC_RING_ASLEEP_FOR(0);

	/* awake by now, as whoever sleeps again is who has looked again */
	if (asleep == 0)
		return true;
	if ((asleep & NC_RING_ASLEEP_ON_WORD) == 0 || slot >= NC_RING_SLOTS)
		return false;
	nc_futex_wake(nc_slot_futex(&ring->slots[slot]));
	return true;
}
