/*
 * nc/shared/transport.h
 *	  A question to page servers, and what a way to ask them has to give: only
 *	  submitting, waiting, and the answer.
 *
 * There are two: the ring of this process (src/client/ring_transport.c) and
 * connections of its own (src/direct).  How long is waited, whether an answer is
 * good, and what people are told is src/client/read.c's alone.
 */
#ifndef NC_SHARED_TRANSPORT_H
#define NC_SHARED_TRANSPORT_H

#include "postgres.h"

#include "nc/ring/ring.h"
#include "nc/shared/settings.h"

typedef struct NcAsk NcAsk;

/* What a wait that goes on is for. */
typedef enum NcWaitFor
{
	NC_WAIT_FOR_ANSWER = 0,
	NC_WAIT_FOR_MEMORY			/* that the answer needs; nothing was asked yet */
} NcWaitFor;

typedef struct NcTransport
{
	/*
	 * Asks and waits, for as long as `idle` of the question lets it, which it calls
	 * whenever a wait has ended without the answer, every nc_wait_slice_ms() or sooner.  Every
	 * answer was compared with its request.  OK: all pages are filled in, or `value`.
	 * Else `error` says why, if a page server said so.  After it, by an error too,
	 * nothing will write to the pages any more.
	 */
	NcSlotResult (*ask) (NcAsk *ask);

	/* Where a question that waits for its answer is, for a message: any process, any moment. */
	void		(*progress) (const NcAsk *ask, char *text, Size bytes);
} NcTransport;

struct NcAsk
{
	NcSlotKind	kind;
	NcRelKey	rel;
	uint32		block;
	int			nblocks;		/* GETPAGE: 1..NC_SLOT_BLOCKS_MAX; else 0 */
	char	  **pages;			/* [nblocks], shared buffers or memory of this process */
	bool		background;		/* nobody waits for it: leaves memory to others */
	NcLsn		request_lsn;
	NcLsn		not_modified_since;

	/* Interrupts and deadlines: may raise an error. */
	void		(*idle) (NcAsk *ask, NcWaitFor what);
	uint64		started_us;
	uint64		logged_us;		/* how long it had waited when that was last told */

	const NcTransport *over;
	void	   *at;				/* the transport's own */

	/* Out. */
	uint64		value;			/* not GETPAGE: 0 or 1, blocks, bytes */
	char	   *error;			/* [NC_RING_ERROR_BYTES] */
};

/* How long a transport may sleep at once: deadlines and interrupts are looked at in between. */
static inline int
nc_wait_slice_ms(void)
{
	return Min(1000, Min(nc_guc_request_timeout, nc_guc_wait_log_period));
}

#endif							/* NC_SHARED_TRANSPORT_H */
