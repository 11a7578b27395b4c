/*
 * nc/ring/aio.h
 *	  Slots of AIO handles (PostgreSQL 18): reads that the communicator completes
 *	  straight into shared buffers, without their owner.  docs/async.md has the
 *	  whole picture.
 *
 * Handle h has the slot h % 64 of ring aio_first + h / 64, for ever: whoever has the
 * handle can submit, so a submit never fails and never waits.  The states are those
 * of nc/ring/slot.h; what differs is who makes the moves:
 *
 *	FREE -> FILLING -> SUBMITTED	the process that was given the handle
 *	SUBMITTED -> TAKEN -> COPYING -> DONE -> FREE+1		the communicator
 *	SUBMITTED | TAKEN -> FREE+1		any process that waits and will wait no longer
 *
 * Of the two ways to FREE+1 exactly one happens in a life, since both are moves of one
 * word.  Whoever makes it, and nobody else, completes the handle, and does so after
 * it: the handle, and with it the slot, can be used again from then on only.
 */
#ifndef NC_RING_AIO_H
#define NC_RING_AIO_H

#include "nc/ring/ring.h"

/* In a ring of handles, for NcHost.dest_page: block `index` of the read in `slot`. */
#define NC_DEST_AIO(slot, index) ((uint32_t) (slot) * NC_SLOT_BLOCKS_MAX + (uint32_t) (index))
#define NC_DEST_AIO_SLOT(dest) ((dest) / NC_SLOT_BLOCKS_MAX)
#define NC_DEST_AIO_INDEX(dest) ((dest) % NC_SLOT_BLOCKS_MAX)

/* What to read. */
typedef struct NcAioRead
{
	NcRelKey	rel;
	uint32_t	block;
	uint32_t	nblocks;		/* 1..NC_SLOT_BLOCKS_MAX */
	NcLsn		request_lsn;
	NcLsn		not_modified_since;
} NcAioRead;

/* Rings that so many handles need. */
static inline uint32_t
nc_aio_rings(uint32_t nhandles)
{
	return (nhandles + NC_RING_SLOTS - 1) / NC_RING_SLOTS;
}

static inline uint32_t
nc_aio_handle(const NcRingArea *area, uint32_t ring, uint32_t slot)
{
	return (ring - area->aio_first) * NC_RING_SLOTS + slot;
}

static inline uint32_t
nc_aio_ring(const NcRingArea *area, uint32_t handle)
{
	return area->aio_first + handle / NC_RING_SLOTS;
}

static inline NcSlot *
nc_aio_slot(const NcRingArea *area, uint32_t handle)
{
	return &area->rings[nc_aio_ring(area, handle)].slots[handle % NC_RING_SLOTS];
}

/*
 * Who was given the handle: writes the request.  May raise errors afterwards and never
 * submit; the next read of the handle begins again.  False when an earlier life has not
 * ended, which is a fault of this project.
 */
NC_MUST_USE extern bool nc_aio_fill(NcRingArea *area, uint32_t handle, uint64_t handle_generation,
									const NcAioRead *read);

/*
 * FILLING -> SUBMITTED and the bit of its ring.  From here on the handle may be completed
 * at any moment, so the server must know it as submitted.  The caller calls nc_ring_bell()
 * once, after the last handle of a batch.  Never blocks or fails.
 */
extern void nc_aio_submit(NcRingArea *area, uint32_t handle, uint64_t now_us);

/* Is this life of the handle a read of ours?  Asked while it lasts. */
extern bool nc_aio_is_ours(const NcRingArea *area, uint32_t handle, uint64_t handle_generation);

/*
 * Any process that waits for this life of the handle: until then nobody did.  Who comes when
 * it is over has, at worst, said so of the next life, which then goes before reads that
 * nobody waits for.  Never blocks or fails.
 */
extern void nc_aio_promote(NcRingArea *area, uint32_t handle, uint64_t handle_generation);

/*
 * Any process that waits: takes the read away from the communicator if it is of this life of
 * the handle and was submitted no later than that.  True: nobody will write to its buffers any
 * more and the caller has to complete the handle.  False: it is not so old, or somebody else
 * completes it or has done so.
 */
NC_MUST_USE extern bool nc_aio_claim(NcRingArea *area, uint32_t handle, uint64_t handle_generation,
									 uint64_t submitted_until_us);

#endif							/* NC_RING_AIO_H */
