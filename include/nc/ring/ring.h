/*
 * nc/ring/ring.h
 *	  One request ring per process in one shared area, and the doorbell.
 *
 * The area is carved from memory that the host gives (shared memory in the
 * server, malloc in tests).  Ring i belongs to the process with index i
 * (PGPROC number in the server); slots 0..31 are reserved for demand reads,
 * 32..63 for everything else.  Rings from aio_first on belong to no process but
 * hold the slots of AIO handles (nc/ring/aio.h).
 *
 * Doorbell.  A client that has submitted marks the slot in its ring, then sets
 * its bit in the pending bitmap (state, not events: they cannot be lost or
 * overflow), then, after a full barrier, looks at `asleep`; only when that is
 * set does it write to the eventfd.  The communicator sets `asleep`, then, after a full barrier, looks
 * at the bitmap once more before it sleeps.  Each side stores first and looks
 * second, so at least one of them sees the other.
 *
 * Completion.  The communicator moves the slot to DONE, then, after a full
 * barrier, looks at `client_asleep` of the ring; a client sets it, then, after
 * a full barrier, looks at its slot before it sleeps on its latch.
 */
#ifndef NC_RING_RING_H
#define NC_RING_RING_H

#include "nc/base/trace_id.h"
#include "nc/ring/slot.h"

#define NC_RING_SLOTS 64
#define NC_RING_DEMAND_SLOTS 32
#define NC_RING_DESTS 64
#define NC_RING_ERROR_BYTES 384

/*
 * A destination: high bit set = bounce page index, clear = shared buffer index (from 0).
 * Numbers, never addresses: they are another process's words, and the host checks them
 * against its own bounds before it makes an address of them.
 */
#define NC_DEST_BOUNCE 0x80000000u
#define NC_DEST_STAGING 0x40000000u	/* with this bit: index of a staging page */
#define NC_DEST_NONE 0xffffffffu	/* prefetch: no buffer waits */

#define NC_RING_ASLEEP 1
#define NC_RING_ASLEEP_FOR(slot) ((uint32_t) (slot) + 2)
#define NC_RING_ASLEEP_ON_WORD 0x100	/* with it: on the slot's word, not on the latch */

typedef struct NcRing
{
	/*
	 * Set by the client before it sleeps, cleared after; read by the communicator
	 * after DONE.  0 awake, NC_RING_ASLEEP, or NC_RING_ASLEEP_FOR(slot) when only
	 * the end of that slot is worth a wake, with NC_RING_ASLEEP_ON_WORD or not.  Only the client writes it, so there is
	 * nothing of the communicator's here that could be lost when it ends.
	 */
	_Atomic uint32_t client_asleep;

	/*
	 * Bit i: somebody waits for the read ahead in slot i.  State, not an event: it
	 * holds for the rest of the slot's life, whoever is the communicator.  The client
	 * sets it, rings, and clears it in FILLING of the next life; the communicator looks.
	 * In a ring of handles anybody sets it, and perhaps a life too late (nc/ring/aio.h).
	 */
	_Atomic uint64_t promoted;

	/*
	 * Bit i: slot i was submitted since the communicator looked; says where to look, the
	 * slot's word says what is there.  Clients OR, the communicator takes the whole word.
	 */
	_Atomic uint64_t submitted;

	/* Why slot i failed, empty when it did not say; written in COPYING, read in DONE. */
	char		errors[NC_RING_DEMAND_SLOTS][NC_RING_ERROR_BYTES];

	/*
	 * Written by the client in FILLING of the slot that names them; read by the
	 * communicator before TAKEN.  No two slots on their way may name the same entry.
	 */
	uint32_t	dests[NC_RING_DESTS];

	_Alignas(NC_CACHE_LINE_BYTES) NcSlot slots[NC_RING_SLOTS];
} NcRing;

/* Shared words that all rings use. */
typedef struct NcDoorbell
{
	/*
	 * 1 while the communicator is about to sleep or sleeps; it alone writes it.  A line
	 * of its own: every submit of every process reads it.
	 */
	_Alignas(NC_CACHE_LINE_BYTES) _Atomic uint32_t asleep;

	/* Advanced by each communicator that attaches: lets views and tests see a restart. */
	_Alignas(NC_CACHE_LINE_BYTES) _Atomic uint64_t epoch;

	/* CLOCK_MONOTONIC microseconds of the communicator's last tick; for views, unordered. */
	_Atomic uint64_t heartbeat_us;

	/* Bit i of word i / 64: ring i has something to take. Clients OR, the communicator takes whole words. */
	_Alignas(NC_CACHE_LINE_BYTES) _Atomic uint64_t pending[];
} NcDoorbell;

/*
 * What a traced request has beside its slot; docs/tracing.md.  Ordered by the slot's word as
 * the slot's own fields are: `sampled` to `parent_id` are the client's in FILLING and read by
 * the communicator before TAKEN, the rest are its own in COPYING and read in DONE.
 */
#define NC_TRACE_SAMPLED 1
#define NC_TRACE_TELL 2			/* with it: page servers are told */

typedef struct NcSlotTrace
{
	uint32_t	sampled;		/* 0, or NC_TRACE_ flags */
	uint32_t	shard;
	NcTraceContext at;			/* the trace, and the span of this request */
	uint8_t		parent_id[NC_SPAN_ID_BYTES];
	uint64_t	reqid;			/* of the message answered last; this and times: 0 = none was */
	uint64_t	taken_us;
	uint64_t	sent_us;
	uint64_t	received_us;
	uint64_t	reached_us;
	uint64_t	done_us;
} NcSlotTrace;

/* A view of the area: pointers of this process. */
typedef struct NcRingArea
{
	uint32_t	nrings;
	uint32_t	aio_first;		/* the first ring of AIO handles; nrings when there are none */
	NcDoorbell *doorbell;
	NcRing	   *rings;			/* [nrings] */
	int			eventfd;		/* made once by the postmaster, inherited; -1 in a process that only reads */
	NcSlotTrace *traces;		/* [nrings * NC_RING_SLOTS], or NULL: nothing is ever traced */
} NcRingArea;

/* Bytes of the area for nrings rings. */
extern size_t nc_ring_area_bytes(uint32_t nrings);

/*
 * Makes pointers into an area; `init` also clears it.  All zero is what an area is when
 * nothing has happened yet (all slots FREE, generation 0), and what fresh shared memory is.
 * The caller lowers aio_first afterwards when some of the rings are of AIO handles, and
 * sets traces when there are some.
 */
extern void nc_ring_area_attach(NcRingArea *area, void *memory, uint32_t nrings, int eventfd,
								bool init);

/* In an area with traces. */
static inline NcSlotTrace *
nc_slot_trace(const NcRingArea *area, uint32_t ring, uint32_t slot)
{
	return &area->traces[(size_t) ring * NC_RING_SLOTS + slot];
}

/* Client: after slot `slot` is SUBMITTED. Rings the doorbell; returns true when a wake-up was sent. */
extern bool nc_ring_notify(NcRingArea *area, uint32_t ring, uint32_t slot);

/*
 * Its two halves, for who submits in several slots: marks of each that is SUBMITTED, then
 * one look at the sleeper for all of them.
 */
extern void nc_ring_announce(NcRingArea *area, uint32_t ring, uint32_t slot);
extern bool nc_ring_bell(NcRingArea *area);

/*
 * Somebody waits for what slot `slot` of the ring reads ahead, and the communicator is told.
 * Never blocks or fails.
 */
extern void nc_ring_promote(NcRingArea *area, uint32_t ring, uint32_t slot);

/* In FILLING: it was said of the slot's last life. */
extern void nc_ring_unpromote(NcRingArea *area, uint32_t ring, uint32_t slot);

/* Wakes the communicator's loop for another reason (config change, signal). Async-signal-safe. */
extern void nc_ring_kick(NcRingArea *area);

/*
 * Communicator: declares itself asleep; returns false, still awake, when a bit is pending.
 * nc_doorbell_awake() ends it; draining the eventfd is left to the loop.
 */
NC_MUST_USE extern bool nc_doorbell_sleep(NcRingArea *area);
extern void nc_doorbell_awake(NcRingArea *area);

/*
 * Communicator: is a bit pending?  Reads one word for each 64 rings.  A hint, for one that
 * is awake and looks again: only nc_doorbell_sleep() may decide on a sleep.
 */
extern bool nc_doorbell_pending(const NcRingArea *area);

/*
 * Communicator: takes the pending word with this index (exchange with 0).  Before it looks
 * at the slots, never after: a bit that is set meanwhile must survive.
 */
extern uint64_t nc_doorbell_take(NcRingArea *area, uint32_t word_index);

/*
 * Communicator: takes the marks of a ring (exchange with 0).  After the ring's bit was taken
 * and before it looks at the slots: what is submitted meanwhile is marked and rings again.
 */
extern uint64_t nc_ring_take_marks(NcRing *ring);

/* Number of 64-bit words of the pending bitmap. */
static inline uint32_t
nc_doorbell_words(const NcRingArea *area)
{
	return (area->nrings + 63) / 64;
}

/*
 * Communicator: after DONE. True when the client sleeps and what it waits for has ended.
 * One call answers for every DONE before it, so wakes can wait for the end of a turn.
 */
extern bool nc_ring_client_needs_wake(NcRing *ring);

/* Communicator: then. False when the client sleeps on its latch, which is its host's to set. */
NC_MUST_USE extern bool nc_ring_wake_word(const NcRing *ring);

#endif							/* NC_RING_RING_H */
