/*
 * nc/direct/direct.h
 *	  neon_comm.mode = direct: a process asks page servers over connections of
 *	  its own, one for each shard, and waits for each answer.
 *
 * The architecture that the communicator replaces: the baseline of every figure
 * and the mode to fall back to.  Runs in any process of the compute that has a
 * PGPROC; never in the communicator.
 */
#ifndef NC_DIRECT_DIRECT_H
#define NC_DIRECT_DIRECT_H

#include "nc/compat/pg.h"
#include "nc/ring/ring.h"

/* The most blocks that one call may ask for. */
#define NC_DIRECT_BLOCKS_MAX NC_SLOT_BLOCKS_MAX

typedef struct NcDirectAsk
{
	NcRelKey	rel;
	uint32		block;
	int			nblocks;		/* 1..NC_DIRECT_BLOCKS_MAX, or 0: does the relation exist? */
	char	  **pages;			/* [nblocks], any memory of this process */
	NcLsn		request_lsn;
	NcLsn		not_modified_since;

	/*
	 * Called whenever a wait ended without the answer, at least once a second:
	 * interrupts and deadlines.  May raise an error; the call is then over.
	 */
	void		(*idle) (void *arg);
	void	   *idle_arg;
	int			slice_ms;		/* call it at least this often */

	/* Out. */
	bool		exists;
	char		error[NC_RING_ERROR_BYTES]; /* the page server's, for RESULT_PS_ERROR */
} NcDirectAsk;

/*
 * Asks and waits.  A connection that is lost is made again and its requests are
 * sent again, for as long as `idle` lets us.  Every answer was compared with
 * its request.  OK: all pages are filled in.  PS_ERROR and NO_SERVER as in slots.
 * After an error out of `idle` nothing will write to the pages any more.
 */
extern NcSlotResult nc_direct_ask(NcDirectAsk *ask);

/*
 * Is a call under way in this process?  Then code that its `idle` runs has to
 * read through the communicator.
 */
extern bool nc_direct_busy(void);

/* Closes this process's connections, if any. Cheap when there are none. */
extern void nc_direct_close(void);

/* What the call that is under way waits for: a static text for messages. */
extern const char *nc_direct_state(void);

#endif							/* NC_DIRECT_DIRECT_H */
