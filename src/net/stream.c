/*
 * stream.c
 *	  Bytes of a connection in and out, without their meaning.
 *
 * Runs in the communicator.  Without TLS the socket is ours: one receive and at
 * most one send are started on it.  With TLS libpq moves the bytes and only
 * readiness is awaited here; what it hands out is put into the receive buffer
 * with a frame header again, so that both kinds are parsed by the same code.
 */
#include "net_int.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "nc/base/bytes.h"
#include "nc/wire/session.h"

/* A record of TLS is at most this long, and libpq reads at least half of it at a time. */
#define TLS_EMPTY_READS 2

static void
receive(NcConn *c)
{
	size_t		room;

	if (c->recv_start > 0)
	{
		memmove(c->recv_buffer, c->recv_buffer + c->recv_start, c->recv_end - c->recv_start);
		c->recv_end -= c->recv_start;
		c->recv_start = 0;
	}
	if (c->tls)
	{
		nc_loop_poll(c->net->loop, &c->in_op, c->fd, POLLIN);
		return;
	}
	/* the parser left less than the longest frame, so there is room */
	room = NC_CONN_BUFFER_BYTES - c->recv_end;
	NC_ASSERT(room > 0);
	if (room > NC_CONN_RECV_BYTES)
		room = NC_CONN_RECV_BYTES;
	nc_loop_recv(c->net->loop, &c->in_op, c->fd, c->recv_buffer + c->recv_end, room);
}

static void
lost(NcConn *c, const char *doing, int error)
{
	char		reason[NC_CONN_ERROR_BYTES];

	snprintf(reason, sizeof(reason), "%s: %s", doing, strerror(error));
	nc_conn_end(c, NC_CONN_END_LOST, reason);
}

static void
received(NcConn *c, size_t bytes)
{
	c->recv_end += bytes;
	c->progress_us = c->net->now_us;
	nc_count(c->net->counters, NC_COUNTER_RECEIVES, 1);
	nc_count(c->net->counters, NC_COUNTER_BYTES_RECEIVED, bytes);
}

/* Appends one CopyData body as a frame; false when it cannot be one of ours. */
static bool
tls_append(NcConn *c, const char *body, size_t bytes)
{
	NcWriter	w = nc_writer(c->recv_buffer + c->recv_end, NC_CONN_BUFFER_BYTES - c->recv_end);
	uint8_t    *length_at = nc_frame_begin(&w, 'd');

	nc_write_bytes(&w, body, bytes);
	nc_frame_end(&w, length_at);
	if (w.failed)
		return false;
	received(c, nc_writer_bytes(&w));
	return true;
}

/* Handles the bodies that libpq has; their number, or -1 when the connection ended. */
static int
tls_take_rows(NcConn *c)
{
	char	   *body;
	int			rows = 0;
	int			rc;

	while ((rc = nc_handshake_get(c->handshake, &body)) > 0)
	{
		bool		fits = tls_append(c, body, (size_t) rc);

		nc_handshake_release(body);
		if (!fits)
		{
			nc_conn_end(c, NC_CONN_END_POISONED, "an answer is longer than any can be");
			return -1;
		}
		if (!nc_conn_parse(c))
			return -1;
		/* whole frames only: all of it was consumed */
		c->recv_start = c->recv_end = 0;
		rows++;
	}
	if (rc < 0)
	{
		nc_conn_end(c, NC_CONN_END_LOST, nc_handshake_error(c->handshake));
		return -1;
	}
	return rows;
}

/*
 * Reads until neither the socket nor OpenSSL has more.  OpenSSL may hold the rest
 * of a record that polling does not show, so one read that completes no row is not
 * the end.
 */
static void
tls_receive(NcConn *c)
{
	int			empty = 0;

	while (empty < TLS_EMPTY_READS)
	{
		int			rows;

		if (nc_handshake_consume(c->handshake) < 0)
		{
			nc_conn_end(c, NC_CONN_END_LOST, nc_handshake_error(c->handshake));
			return;
		}
		rows = tls_take_rows(c);
		if (rows < 0)
			return;
		empty = rows == 0 ? empty + 1 : 0;
	}
	receive(c);
	/* what libpq could not send may be able to leave now */
	nc_stream_flush(c);
}

/* Hands unsent frames to libpq one by one. */
static void
tls_flush(NcConn *c)
{
	NcFrame		frame;
	int			rc = 1;

	while (rc > 0 && nc_frame_parse(c->send_buffer + c->send_start, c->send_end - c->send_start,
									NC_REQUEST_BYTES_MAX, &frame) == NC_FRAME_OK)
	{
		rc = nc_handshake_put(c->handshake, frame.body, frame.body_bytes);
		if (rc > 0)
		{
			c->send_start += frame.consumed;
			nc_count(c->net->counters, NC_COUNTER_BYTES_SENT, frame.consumed);
		}
	}
	if (c->send_start == c->send_end)
		c->send_start = c->send_end = 0;
	if (rc >= 0)
		rc = nc_handshake_flush(c->handshake);
	nc_count(c->net->counters, NC_COUNTER_SENDS, 1);
	if (rc < 0)
		nc_conn_end(c, NC_CONN_END_LOST, nc_handshake_error(c->handshake));
	else if (rc == 0 || c->send_start < c->send_end)
		nc_loop_poll(c->net->loop, &c->out_op, c->fd, POLLOUT);
}

void
nc_stream_flush(NcConn *c)
{
	if (c->state != NC_CONN_READY || c->out_op.state != NC_OP_IDLE ||
		c->send_start == c->send_end)
		return;
	if (c->tls)
		tls_flush(c);
	else
		nc_loop_send(c->net->loop, &c->out_op, c->fd, c->send_buffer + c->send_start,
					 c->send_end - c->send_start);
}

static void
sent(NcConn *c, size_t bytes)
{
	nc_count(c->net->counters, NC_COUNTER_SENDS, 1);
	nc_count(c->net->counters, NC_COUNTER_BYTES_SENT, bytes);
	c->send_start += bytes;
	if (c->send_start == c->send_end)
		c->send_start = c->send_end = 0;
	else
	{
		memmove(c->send_buffer, c->send_buffer + c->send_start, c->send_end - c->send_start);
		c->send_end -= c->send_start;
		c->send_start = 0;
	}
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
	else if (c->tls)
		tls_receive(c);
	else if (op->result == 0)
		nc_conn_end(c, NC_CONN_END_LOST, "the server closed the connection");
	else if (op->result == -EINTR || op->result == -EAGAIN)
		receive(c);
	else if (op->result < 0)
		lost(c, "receiving", -op->result);
	else
	{
		received(c, (size_t) op->result);
		if (nc_conn_parse(c))
			receive(c);
	}
}

void
nc_stream_out_complete(NcOp *op)
{
	NcConn	   *c = op->owner;

	if (c->state == NC_CONN_CLOSING)
		nc_conn_closing_event(c);
	else if (c->tls)
		tls_flush(c);
	else if (op->result == -EINTR || op->result == -EAGAIN)
		nc_stream_flush(c);
	else if (op->result < 0)
		lost(c, "sending", -op->result);
	else
		sent(c, (size_t) op->result);
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
	if (!c->tls)
		nc_loop_adopt(c->net->loop, c->fd);
	receive(c);
}
