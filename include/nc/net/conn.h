/*
 * nc/net/conn.h
 *	  NcConn: one connection to a page server, and the table that all of them
 *	  live in.
 *
 * Runs in the communicator.  conn.c changes states (table in conn_row.h) and
 * starts and ends connections, stream.c moves bytes, pool.c decides which
 * connections there are and what is sent on them.
 *
 * Guarantees: an answer is handed on only after it was checked against the
 * oldest request of its connection; anything else closes the connection and
 * gives its requests back to the pool.  A connection object and its buffers are
 * used again only when the kernel holds no operation on them.
 */
#ifndef NC_NET_CONN_H
#define NC_NET_CONN_H

#include "nc/io/loop.h"
#include "nc/net/flight.h"
#include "nc/net/handshake.h"
#include "nc/obs/conn_row.h"
#include "nc/obs/counters.h"
#include "nc/wire/session.h"

/* Connections of one engine; also the number of its rows in shared memory. */
#define NC_CONNS_MAX 512

/* Asked of the kernel with one receive: measured best between 64 and 256 kB. */
#define NC_CONN_RECV_BYTES (128 * 1024)

/* The receive buffer: the longest frame allowed and room for half a receive behind it. */
#define NC_CONN_BUFFER_BYTES (NC_RESPONSE_BYTES_MAX + 5 + NC_CONN_RECV_BYTES / 2)

/* One request with its frame header. */
#define NC_CONN_REQUEST_BYTES (NC_REQUEST_BYTES_MAX + 5)

/*
 * Requests in flight on a connection that carries what nobody waits for: enough to
 * keep a page server busy over a round trip, and few sends and receives for many pages.
 */
#define NC_CONN_BULK_DEPTH 64

/* Requests in flight on one connection: the upper limit of the setting. */
#define NC_CONN_DEPTH_MAX 1024

#define NC_CONN_TEXT_BYTES 128
#define NC_CONN_ERROR_BYTES 256

typedef struct NcNet NcNet;
typedef struct NcPool NcPool;

/*
 * Memory of the communicator, one thread: nothing of it is shared but with the kernel,
 * which may hold recv_buffer while in_op is started and send_buffer while out_op is.  What
 * others see of a connection is its row (nc/obs/conn_row.h), a copy.
 */
typedef struct NcConn
{
	NcConnState state;
	NcNet	   *net;
	NcPool	   *pool;			/* NULL in UNUSED and CLOSING */
	uint32_t	shard;			/* of its pool, kept for the row */

	uint64_t	since_us;		/* when it entered this state */
	uint64_t	idle_since_us;	/* READY: when it last had something in flight */
	uint64_t	progress_us;	/* READY: when the last answer arrived; bytes alone are none */
	uint64_t	requests;		/* sent over the life of this row's present connection */
	bool		answered;		/* READY: an answer was verified */
	bool		refused;		/* READY: "not now" was answered */
	bool		stalled;		/* READY: late, and not because of WAL; nothing is put on it */
	bool		proved;			/* READY: a good answer came, or it stood for a while */
	bool		row_changed;	/* texts of its row are to be shown anew */

	/* Fixed when the connection is started: what is on its way must not change its meaning. */
	int			version;
	uint32_t	depth;
	bool		bulk;			/* for requests that nobody waits for, see pool.c */

	NcHandshake *handshake;		/* CONNECTING .. CLOSING */
	int			fd;
	NcTls	   *tls;			/* NULL = the bytes go as they are */
	NcOp		in_op;			/* handshake poll, receive, or poll for input under TLS */
	NcOp		out_op;			/* send, or poll for output under TLS */

	uint8_t    *recv_buffer;	/* [NC_CONN_BUFFER_BYTES]; bytes recv_start..recv_end are unread */
	size_t		recv_start;
	size_t		recv_end;
	uint8_t    *send_buffer;	/* [send_capacity]; bytes send_start..send_end are unsent */
	size_t		send_start;
	size_t		send_end;
	size_t		send_capacity;

	NcFlightList in_flight;		/* sent, not answered, oldest first */

	char		address[NC_CONN_TEXT_BYTES];
	char		last_error[NC_CONN_TEXT_BYTES]; /* the shard's present trouble, empty when it is over */
	uint32_t	failures;		/* of the shard since its trouble began */
} NcConn;

/* The words of an ErrorResponse that ends a stream: its message and SQLSTATE. Not one line yet. */
extern void nc_conn_goodbye(const NcFrame *frame, char *reason, size_t bytes);

/* May a connection go from one state to the other?  The table of conn_row.h. */
extern bool nc_conn_move_allowed(NcConnState from, NcConnState to);

static inline bool
nc_conn_open(const NcConn *c)
{
	return c->state == NC_CONN_CONNECTING || c->state == NC_CONN_STARTING ||
		c->state == NC_CONN_READY;
}

#endif							/* NC_NET_CONN_H */
