/*
 * nc/net/conn_state.h
 *	  States of a page-server connection, as its row in shared memory shows them.
 *
 *	state       holds                                   successors
 *	UNUSED      nothing                                 BACKOFF, CONNECTING
 *	BACKOFF     a place in its pool                     CONNECTING, UNUSED
 *	CONNECTING  libpq connection, one poll operation    STARTING, READY, CLOSING
 *	STARTING    the same                                READY, CLOSING
 *	READY       socket, buffers, requests in flight     CLOSING
 *	CLOSING     what the kernel may still touch         UNUSED
 */
#ifndef NC_NET_CONN_STATE_H
#define NC_NET_CONN_STATE_H

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

#endif							/* NC_NET_CONN_STATE_H */
