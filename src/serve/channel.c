/*
 * channel.c
 *	  One socket, clear or inside TLS, and its two buffers.
 *
 * Runs wherever strangers are let in.
 */
#include "nc/serve/channel.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

/* ---- buffers ---- */

static NcBuffer
make_buffer(void *bytes, size_t size)
{
	return (NcBuffer) {.bytes = bytes, .size = size};
}

static void
to_front(NcBuffer *b)
{
	if (b->start == 0)
		return;
	memmove(b->bytes, b->bytes + b->start, b->end - b->start);
	b->end -= b->start;
	b->start = 0;
	NC_ASSERT(nc_buffer_sane(b));
}

static void
grew(NcBuffer *b, size_t bytes)
{
	b->end += bytes;
	if (b->high < b->end)
		b->high = b->end;
	NC_ASSERT(nc_buffer_sane(b));
}

static void
shrank(NcBuffer *b, size_t bytes)
{
	b->start += bytes;
	NC_ASSERT(nc_buffer_sane(b));
	if (b->start == b->end)
		b->start = b->end = 0;
}

/* ---- the socket ---- */

void
nc_channel_open(NcChannel *c, int fd, void *in, size_t in_bytes, void *out, size_t out_bytes)
{
	*c = (NcChannel) {.fd = fd};
	c->in = make_buffer(in, in_bytes);
	c->out = make_buffer(out, out_bytes);
}

static bool
would_block(void)
{
	return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
}

/* Bytes, 0 = not now, -1 = the peer is gone. */
static ssize_t
read_some(NcChannel *c, void *to, size_t room)
{
	NcTlsFault	fault;
	ssize_t		got;

	if (!c->secure)
	{
		got = recv(c->fd, to, room, MSG_DONTWAIT);
		if (got < 0)
			return would_block() ? 0 : -1;
		return got == 0 ? -1 : got;
	}
	got = nc_tls_read(c->tls, to, room, &fault);
	c->wants_write = got == 0 && nc_tls_wants_write(c->tls);
	return got;
}

static ssize_t
channel_write_some(NcChannel *c, const void *from, size_t bytes)
{
	NcTlsFault	fault;
	ssize_t		sent;

	if (c->secure)
		return nc_tls_write(c->tls, from, bytes, &fault);
	sent = send(c->fd, from, bytes, MSG_DONTWAIT | MSG_NOSIGNAL);
	return sent >= 0 ? sent : would_block() ? 0 : -1;
}

ssize_t
nc_channel_receive(NcChannel *c)
{
	ssize_t		got;

	/* what arrives during the handshake is for TLS alone */
	if ((c->tls != NULL && !c->secure) || !nc_channel_has_room(c))
		return 0;
	to_front(&c->in);
	got = read_some(c, c->in.bytes + c->in.end, c->in.size - c->in.end);
	if (got > 0)
		grew(&c->in, (size_t) got);
	return got;
}

int
nc_channel_peek(const NcChannel *c)
{
	uint8_t		byte;
	ssize_t		got = recv(c->fd, &byte, 1, MSG_DONTWAIT | MSG_PEEK);

	if (got < 0)
		return would_block() ? NC_CHANNEL_NOTHING : NC_CHANNEL_ENDED;
	return got == 0 ? NC_CHANNEL_ENDED : byte;
}

bool
nc_channel_flush(NcChannel *c, size_t *sent)
{
	/* the answer that announces TLS is the last thing that leaves in clear text */
	while (nc_channel_unsent(c) > 0)
	{
		ssize_t		n = channel_write_some(c, c->out.bytes + c->out.start, nc_channel_unsent(c));

		if (n <= 0)
			return n == 0;
		shrank(&c->out, (size_t) n);
		*sent += (size_t) n;
	}
	return true;
}

void
nc_channel_take(NcChannel *c, size_t bytes)
{
	shrank(&c->in, bytes);
}

NcWriter
nc_channel_writer(NcChannel *c, size_t answer)
{
	if (c->out.size - c->out.end < answer)
		to_front(&c->out);
	return nc_writer(c->out.bytes + c->out.end, c->out.size - c->out.end);
}

bool
nc_channel_commit(NcChannel *c, const NcWriter *w)
{
	if (w->failed)
		return false;
	grew(&c->out, nc_writer_bytes(w));
	return true;
}

void
nc_channel_drop_output(NcChannel *c)
{
	c->out.start = c->out.end = 0;
}

/* ---- TLS ---- */

bool
nc_channel_start_tls(NcChannel *c, NcTlsContext *context)
{
	NC_ASSERT(c->tls == NULL);
	c->tls = nc_tls_start(context, c->fd);
	return c->tls != NULL;
}

int
nc_channel_handshake(NcChannel *c, NcTlsFault *fault)
{
	int			rc = nc_tls_handshake(c->tls, fault);

	c->wants_write = rc == 0 && nc_tls_wants_write(c->tls);
	c->secure = rc > 0;
	return rc;
}

bool
nc_channel_pending(const NcChannel *c)
{
	return c->secure && nc_channel_has_room(c) && nc_tls_pending(c->tls);
}

/* ---- the end ---- */

void
nc_channel_wipe(NcChannel *c)
{
	explicit_bzero(c->in.bytes, c->in.start);
	explicit_bzero(c->in.bytes + c->in.end, c->in.high - c->in.end);
	c->in.high = c->in.end;
}

void
nc_channel_half_close(NcChannel *c)
{
	nc_tls_goodbye(c->tls);
	(void) shutdown(c->fd, SHUT_WR);
}

void
nc_channel_cut(NcChannel *c)
{
	nc_tls_end(c->tls);
	c->tls = NULL;
	c->secure = false;
	(void) shutdown(c->fd, SHUT_RDWR);
}

void
nc_channel_close(NcChannel *c)
{
	nc_tls_end(c->tls);
	close(c->fd);
	*c = (NcChannel) {.fd = -1};
}
