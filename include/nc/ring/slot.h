/*
 * nc/ring/slot.h
 *	  NcSlot: one request from a process to the communicator, in shared memory.
 *
 * The word of a slot holds {generation, state} and is the whole interface
 * between the two sides.  Every change of it is one compare-and-swap made by
 * nc_slot_move(); nothing else stores it.
 *
 *	state      owner         valid fields         successors (by whom)
 *	FREE       client        none                 FILLING (client)
 *	FILLING    client        being written        SUBMITTED (client), FREE (client)
 *	SUBMITTED  shared        request, dests       TAKEN (communicator), FREE+1 (client cancels)
 *	TAKEN      shared        request, dests       COPYING (communicator), FREE+1 (client cancels),
 *	                                              SUBMITTED (a new communicator re-queues)
 *	COPYING    communicator  dests, result        DONE (communicator), TAKEN (communicator: more
 *	                                              pages of this range are to come)
 *	DONE       client        result, error text   FREE+1 (client)
 *
 * "FREE+1" is FREE with the generation advanced: every life of a slot ends by
 * advancing it, so a late answer for an earlier life finds another word and
 * its compare-and-swap fails.
 *
 * Take: the communicator copies the request first and only then moves
 * SUBMITTED -> TAKEN on the generation it read before; success proves that the
 * copy is of this life.  Deliver: answers arrive in the communicator's own
 * memory; TAKEN -> COPYING; memcpy; DONE.  Cancel: the client moves
 * SUBMITTED|TAKEN -> FREE+1; if it wins nobody will write to its buffers any
 * more, if it loses the state is COPYING or DONE and it waits one memcpy.
 * A range has a window of its own for each page, as it
 * arrives: TAKEN -> COPYING -> TAKEN, the last one ends in DONE.
 *
 * SUBMITTED and TAKEN order memory by acquire/release on the word.  The slot of
 * an AIO handle (nc/ring/aio.h) has the same states: the communicator makes
 * DONE -> FREE+1 itself, and whoever waits may cancel.
 *
 * The model in test/model/ explores this table exhaustively.
 */
#ifndef NC_RING_SLOT_H
#define NC_RING_SLOT_H

#include <stdatomic.h>

#include "nc/base/check.h"
#include "nc/base/key.h"
#include "nc/base/units.h"

typedef enum NcSlotState
{
	NC_SLOT_FREE = 0,
	NC_SLOT_FILLING,
	NC_SLOT_SUBMITTED,
	NC_SLOT_TAKEN,
	NC_SLOT_COPYING,
	NC_SLOT_DONE
} NcSlotState;

#define NC_SLOT_STATES 6

/* What is asked. */
typedef enum NcSlotKind
{
	NC_SLOT_KIND_GETPAGE = 0,	/* nblocks pages from `block`; dests say where they go */
	NC_SLOT_KIND_EXISTS,		/* answer: value 0 or 1 */
	NC_SLOT_KIND_NBLOCKS,		/* answer: value */
	NC_SLOT_KIND_DBSIZE			/* answer: value in bytes; rel.db names the database */
} NcSlotKind;

/* Who waits: chooses the connection pool and what happens when a connection is lost. */
typedef enum NcSlotClass
{
	NC_SLOT_CLASS_DEMAND = 0,	/* a process sleeps on it; re-sent after a lost connection */
	NC_SLOT_CLASS_PREFETCH,		/* nobody waits; ends with an error when its connection does */
	NC_SLOT_CLASS_BULK,			/* as DEMAND, by a process that fills the file cache */
	NC_SLOT_CLASS_AIO			/* of an AIO handle: nobody waits yet; completed by the communicator
								 * itself, re-sent after a lost connection */
} NcSlotClass;

/* Does nobody wait for it when it is submitted? He may say so later: NcRing.promoted. */
static inline bool
nc_slot_class_ahead(NcSlotClass class)
{
	return class == NC_SLOT_CLASS_PREFETCH || class == NC_SLOT_CLASS_AIO;
}

/* How it ended, valid in DONE. */
typedef enum NcSlotResult
{
	NC_SLOT_RESULT_OK = 0,
	NC_SLOT_RESULT_PS_ERROR,	/* the page server answered with an error; its text is in the ring */
	NC_SLOT_RESULT_BAD_REQUEST,	/* the communicator refused the slot's fields or destinations */
	NC_SLOT_RESULT_NO_SERVER,	/* no page server is configured */
	NC_SLOT_RESULT_UNREACHABLE	/* connection lost or server not ready; worth another try */
} NcSlotResult;

/* The longest contiguous range of one slot. */
#define NC_SLOT_BLOCKS_MAX 32

typedef struct NcSlot
{
	/*
	 * generation << 8 | state; see the table above for who may change it.  56 bits of
	 * generation: a million lives a second use them up in two thousand years, so an
	 * old copy never meets its own word again.
	 */
	_Atomic uint64_t word;

	/*
	 * The request: written by the client in FILLING, read by the communicator before TAKEN.
	 * Plain fields: the word orders them.  A copy that races with the next life may be
	 * torn, and then the move to TAKEN fails and nobody acts on it.
	 */
	uint32_t	spc;
	uint32_t	db;
	uint32_t	rel;
	uint8_t		fork;
	uint8_t		kind;			/* NcSlotKind */
	uint8_t		class;			/* NcSlotClass */
	uint8_t		nblocks;		/* 1..NC_SLOT_BLOCKS_MAX for GETPAGE */
	uint32_t	block;
	uint16_t	dest_first;		/* in the ring's dests: the first of nblocks entries; for
								 * PREFETCH the one entry, which names the first page of a run */

	/* Written by the communicator in COPYING, read by the client in DONE. */
	uint16_t	result;			/* NcSlotResult */

	NcLsn		request_lsn;
	NcLsn		not_modified_since;
	uint64_t	submit_us;		/* CLOCK_MONOTONIC, for views */

	union
	{
		/*
		 * By the communicator in COPYING, 0 from FILLING on.  EXISTS, NBLOCKS, DBSIZE: the
		 * answer.  GETPAGE: when it was done, so that the client knows how long its wake took.
		 */
		uint64_t	value;

		/* AIO: which life of the handle this is, by its owner in FILLING. */
		uint64_t	handle_generation;
	};
} NcSlot;

NC_STATIC_ASSERT(sizeof(NcSlot) == NC_CACHE_LINE_BYTES, "a slot is one cache line");

static inline NcSlotState
nc_slot_word_state(uint64_t word)
{
	return (NcSlotState) (word & 0xff);
}

static inline uint64_t
nc_slot_word_generation(uint64_t word)
{
	return word >> 8;
}

static inline uint64_t
nc_slot_word(uint64_t generation, NcSlotState state)
{
	return generation << 8 | (uint64_t) state;
}

/*
 * The word now, ordered before later reads of the slot's fields.  Pairs with the release
 * half of nc_slot_move(): who sees SUBMITTED sees the request, who sees DONE the pages.
 */
static inline uint64_t
nc_slot_load(const NcSlot *slot)
{
	return atomic_load_explicit(&slot->word, memory_order_acquire);
}

/* The half of the word that has the state, for who sleeps on it. */
static inline const volatile void *
nc_slot_futex(const NcSlot *slot)
{
	return (const volatile char *) &slot->word + (__BYTE_ORDER__ == __ORDER_BIG_ENDIAN__ ? 4 : 0);
}

/* May a slot go from one state to the other?  The table of the head comment. */
extern bool nc_slot_move_allowed(NcSlotState from, NcSlotState to);

/*
 * The only function that changes a slot's word: compare-and-swap from `seen`
 * to {generation, to}, where the generation advances exactly when `to` is FREE
 * (except FILLING -> FREE, which nobody else has seen).  Returns false when
 * the word was no longer `seen`.  Any process; never blocks.
 */
NC_MUST_USE extern bool nc_slot_move(NcSlot *slot, uint64_t seen, NcSlotState to);

/* "free", "submitted", ...: a static text. */
extern const char *nc_slot_state_name(NcSlotState state);
extern const char *nc_slot_kind_name(NcSlotKind kind);

#endif							/* NC_RING_SLOT_H */
