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

#include "nc/shared/transport.h"

/*
 * A connection that is lost is made again and its requests are sent again.  One call
 * at a time, see nc_direct_busy().
 */
extern const NcTransport nc_direct_transport;

/*
 * Is a call under way in this process?  Then code that its `idle` runs has to
 * read through the communicator.
 */
extern bool nc_direct_busy(void);

/* Closes this process's connections, if any. Cheap when there are none. */
extern void nc_direct_close(void);

#endif							/* NC_DIRECT_DIRECT_H */
