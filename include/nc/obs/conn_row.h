/*
 * nc/obs/conn_row.h
 *	  The row of a page-server connection in shared memory, and its states.
 *
 *	state       holds                                   successors
 *	UNUSED      nothing                                 BACKOFF, CONNECTING
 *	BACKOFF     a place in its pool                     CONNECTING, UNUSED
 *	CONNECTING  libpq connection, one poll operation    STARTING, READY, CLOSING
 *	STARTING    the same                                READY, CLOSING
 *	READY       socket, buffers, requests in flight     CLOSING
 *	CLOSING     what the kernel may still touch         UNUSED
 */
#ifndef NC_OBS_CONN_ROW_H
#define NC_OBS_CONN_ROW_H

#include <stdatomic.h>
#include <stdint.h>

typedef enum NcConnState
{
	NC_CONN_UNUSED = 0,			/* row free */
	NC_CONN_BACKOFF,			/* waiting for the next attempt, or for its host name */
	NC_CONN_CONNECTING,			/* libpq handshake */
	NC_CONN_STARTING,			/* pagestream command sent, waiting for CopyBoth */
	NC_CONN_READY,				/* streaming */
	NC_CONN_CLOSING				/* waits until the kernel holds no operation on it */
} NcConnState;

#define NC_CONN_STATES 6

/* One row of neon_comm.connections; the engine writes, anyone reads, torn reads are tolerated. */
typedef struct NcConnRow
{
	_Atomic uint32_t state;		/* NcConnState */
	uint32_t	shard;
	uint32_t	in_flight;
	uint64_t	since_us;		/* when it entered this state */
	uint64_t	requests;		/* sent over its life */
	uint32_t	failures;		/* of its shard since the present trouble began */
	char		address[128];	/* host:port, never a password */
	char		last_error[128];
} NcConnRow;

/* As many as there can be connections. */
#define NC_CONN_ROWS 512

#endif							/* NC_OBS_CONN_ROW_H */
