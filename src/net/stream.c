/*
 * stream.c
 *	  Bytes of a connection in and out, without their meaning.
 *
 * Runs in the communicator.  Without TLS the socket is ours: one receive is
 * started on it; a send is tried at once, which nearly always takes everything,
 * and started only for what is left.  With TLS readiness is awaited, and OpenSSL's
 * object, which libpq has set up, moves the bytes between the socket and the same
 * buffers; so both kinds are parsed by the same code.
 */
#include "net_int.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "nc/base/bytes.h"
#include "nc/wire/session.h"

/* Records of TLS that one connection reads before the others have their turn. */
#define TLS_READS_PER_TURN 64

/* Moves what is unread to the front: the parser left less than the longest frame, so there is room. */
static size_t
make_recv_room(NcConn *c)
{
	if (c->recv_start > 0)
	{
		memmove(c->recv_buffer, c->recv_buffer + c->recv_start, c->recv_end - c->recv_start);
		c->recv_end -= c->recv_start;
		c->recv_start = 0;
	}
	NC_ASSERT(c->recv_end < NC_CONN_BUFFER_BYTES);
	return NC_CONN_BUFFER_BYTES - c->recv_end;
}

static void
receive_bytes(NcConn *c)
{
	size_t		room = make_recv_room(c);

	if (c->tls != NULL)
	{
		nc_loop_poll(c->net->loop, &c->in_op, c->fd, POLLIN);
		return;
	}
	if (room > NC_CONN_RECV_BYTES)
		room = NC_CONN_RECV_BYTES;
	nc_loop_recv(c->net->loop, &c->in_op, c->fd, c->recv_buffer + c->recv_end, room);
}

static void
conn_lost(NcConn *c, const char *doing, int error)
{
	char		reason[NC_CONN_ERROR_BYTES];

	snprintf(reason, sizeof(reason), "%s: %s", doing, strerror(error));
	nc_conn_end(c, NC_CONN_END_LOST, reason);
}

static void
stream_received(NcConn *c, size_t bytes)
{
	c->recv_end += bytes;
	nc_count(c->net->counters, NC_COUNTER_RECEIVES, 1);
	nc_count(c->net->counters, NC_COUNTER_BYTES_RECEIVED, bytes);
}

static void
stream_tls_lost(NcConn *c, const NcTlsFault *fault)
{
	nc_conn_end(c, NC_CONN_END_LOST, fault->text[0] != '\0' ? fault->text :
				"the server closed the connection");
}

/*
 * Reads until the socket has no more.  OpenSSL may hold the rest of a record,
 * which polling the socket does not show, so nothing of it is ever left behind.
 */
static void
stream_tls_receive(NcConn *c)
{
	NcTlsFault	fault;
	bool		wants_write = false;

	for (int reads = 0; reads < TLS_READS_PER_TURN || nc_tls_pending(c->tls); reads++)
	{
		size_t		room = make_recv_room(c);
		ssize_t		n = nc_tls_read(c->tls, c->recv_buffer + c->recv_end, room, &fault);

		if (n < 0)
		{
			stream_tls_lost(c, &fault);
			return;
		}
		if (n == 0)
		{
			/* an answer to a change of keys has to leave first */
			wants_write = nc_tls_wants_write(c->tls);
			break;
		}
		stream_received(c, (size_t) n);
		if (!nc_conn_parse(c))
			return;
	}
	nc_loop_poll(c->net->loop, &c->in_op, c->fd, wants_write ? POLLIN | POLLOUT : POLLIN);
	nc_stream_flush(c);
}

/* Takes bytes that were sent out of the send buffer. It moves: no send may be under way. */
static void
sent_bytes(NcConn *c, size_t bytes)
{
	nc_count(c->net->counters, NC_COUNTER_BYTES_SENT, bytes);
	c->send_start += bytes;
	memmove(c->send_buffer, c->send_buffer + c->send_start, c->send_end - c->send_start);
	c->send_end -= c->send_start;
	c->send_start = 0;
}

static void
stream_tls_flush(NcConn *c)
{
	NcTlsFault	fault;
	ssize_t		n = 1;

	nc_count(c->net->counters, NC_COUNTER_SENDS, 1);
	while (n > 0 && c->send_start < c->send_end)
	{
		n = nc_tls_write(c->tls, c->send_buffer + c->send_start, c->send_end - c->send_start,
						 &fault);
		if (n > 0)
			sent_bytes(c, (size_t) n);
	}
	if (n < 0)
		stream_tls_lost(c, &fault);
	else if (n == 0)
		nc_loop_poll(c->net->loop, &c->out_op, c->fd, POLLOUT);
}

/*
 * Requests are short and the socket has room, so a call of our own costs less
 * than an operation of the loop, whose completion would end its next wait.
 */
static void
plain_flush(NcConn *c)
{
	size_t		bytes = c->send_end - c->send_start;
	ssize_t		n = send(c->fd, c->send_buffer + c->send_start, bytes, MSG_DONTWAIT | MSG_NOSIGNAL);

	if (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)
	{
		conn_lost(c, "sending", errno);
		return;
	}
	if (n > 0)
	{
		nc_count(c->net->counters, NC_COUNTER_SENDS, 1);
		sent_bytes(c, (size_t) n);
	}
	if (c->send_start < c->send_end)
		nc_loop_send(c->net->loop, &c->out_op, c->fd, c->send_buffer + c->send_start,
					 c->send_end - c->send_start);
}

void
nc_stream_flush(NcConn *c)
{
	/* a send under way holds the buffer, and goes on with what was appended when it is complete */
	if (c->state != NC_CONN_READY || c->out_op.state != NC_OP_IDLE ||
		c->send_start == c->send_end)
		return;
	if (c->tls != NULL)
		stream_tls_flush(c);
	else
		plain_flush(c);
}

static void
stream_sent(NcConn *c, size_t bytes)
{
	nc_count(c->net->counters, NC_COUNTER_SENDS, 1);
	sent_bytes(c, bytes);
	nc_stream_flush(c);
}

void
nc_stream_in_complete(NcOp *op)
{
	NcConn	   *c = op->owner;

	if (c->state == NC_CONN_CLOSING)
		nc_conn_closing_event(c);
	else if (c->state != NC_CONN_READY)
		nc_conn_handshake_event(c);
	else if (c->tls != NULL)
		stream_tls_receive(c);
	else if (op->result == 0)
		nc_conn_end(c, NC_CONN_END_LOST, "the server closed the connection");
	else if (op->result == -EINTR || op->result == -EAGAIN)
		receive_bytes(c);
	else if (op->result < 0)
		conn_lost(c, "receiving", -op->result);
	else
	{
		stream_received(c, (size_t) op->result);
		if (nc_conn_parse(c))
			receive_bytes(c);
	}
}

void
nc_stream_out_complete(NcOp *op)
{
	NcConn	   *c = op->owner;

	if (c->state == NC_CONN_CLOSING)
		nc_conn_closing_event(c);
	else if (c->tls != NULL)
		stream_tls_flush(c);
	else if (op->result == -EINTR || op->result == -EAGAIN)
		nc_stream_flush(c);
	else if (op->result < 0)
		conn_lost(c, "sending", -op->result);
	else
		stream_sent(c, (size_t) op->result);
}

/*
 * libpq may have read past CopyBoth.  Nothing was asked yet, so nothing can be there but
 * the server's goodbye; should a part of a message be left inside libpq, the
 * rest of it is no frame and the connection ends as any that sends garbage.
 */
static bool
drain_libpq(NcConn *c)
{
	char	   *body;
	int			rc = nc_handshake_get(c->handshake, &body);

	if (rc > 0)
	{
		nc_handshake_release(body);
		nc_conn_end(c, NC_CONN_END_POISONED, "an answer came before any request");
		return false;
	}
	if (rc < 0)
	{
		nc_conn_end(c, NC_CONN_END_LOST, nc_handshake_error(c->handshake));
		return false;
	}
	return true;
}

void
nc_stream_begin(NcConn *c)
{
	NC_ASSERT(c->state == NC_CONN_READY);
	if (!drain_libpq(c))
		return;
	if (c->tls == NULL)
		nc_loop_adopt(c->net->loop, c->fd);
	receive_bytes(c);
}
