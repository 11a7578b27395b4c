/*
 * nc/serve/channel.h
 *	  Bytes of one visitor in and out: a socket, in clear text or inside TLS, and
 *	  two buffers that never grow.
 *
 * Never blocks.  A buffer has three cursors, start <= end <= high <= size: bytes
 * before start are done with, those up to end are not yet taken (or not yet sent),
 * and beyond high the memory has never held anything, so that it needs no wiping
 * and its pages no memory.  nc_buffer_sane() says just that, and is asserted after
 * every step.
 *
 * Bytes may be inside TLS that a poll of the socket does not show: whoever goes to
 * sleep asks nc_channel_pending() before.
 */
#ifndef NC_SERVE_CHANNEL_H
#define NC_SERVE_CHANNEL_H

#include <sys/types.h>

#include "nc/auth/tls.h"
#include "nc/base/bytes.h"

typedef struct NcBuffer
{
	uint8_t    *bytes;
	size_t		size;
	size_t		start;
	size_t		end;
	size_t		high;
} NcBuffer;

typedef struct NcChannel
{
	int			fd;
	NcTls	   *tls;			/* NULL = clear text */
	bool		secure;			/* the handshake is done: all bytes go through tls */
	bool		wants_write;	/* the last read or handshake needs room in the socket */
	NcBuffer	in;
	NcBuffer	out;
} NcChannel;

static inline bool
nc_buffer_sane(const NcBuffer *b)
{
	return b->start <= b->end && b->end <= b->high && b->high <= b->size;
}

/* Takes the socket over, which must not block; both buffers are the caller's memory. */
extern void nc_channel_open(NcChannel *c, int fd, void *in, size_t in_bytes, void *out,
							size_t out_bytes);

/* Reads once what is there: bytes, 0 = nothing now (or no room), -1 = the peer is gone. */
NC_MUST_USE extern ssize_t nc_channel_receive(NcChannel *c);

/* Sends what the socket takes; false if the peer is gone.  Adds what was sent to *sent. */
NC_MUST_USE extern bool nc_channel_flush(NcChannel *c, size_t *sent);

/* What was received and not taken; moves with the next receive. */
static inline const uint8_t *
nc_channel_input(const NcChannel *c, size_t *bytes)
{
	*bytes = c->in.end - c->in.start;
	return c->in.bytes + c->in.start;
}

extern void nc_channel_take(NcChannel *c, size_t bytes);

/* The next byte in the socket, which stays there; NC_CHANNEL_NOTHING, or NC_CHANNEL_ENDED. */
#define NC_CHANNEL_NOTHING (-1)
#define NC_CHANNEL_ENDED (-2)
extern int	nc_channel_peek(const NcChannel *c);

/* Is there room for input? */
static inline bool
nc_channel_has_room(const NcChannel *c)
{
	return c->in.end - c->in.start < c->in.size;
}

/* Bytes that wait to be sent. */
static inline size_t
nc_channel_unsent(const NcChannel *c)
{
	return c->out.end - c->out.start;
}

/*
 * A cursor over the free end of the output; with less than `answer` bytes of it,
 * what is not sent yet moves to the front first.
 */
NC_MUST_USE extern NcWriter nc_channel_writer(NcChannel *c, size_t answer);

/* Takes what was written; false, with nothing taken, if it did not fit. */
NC_MUST_USE extern bool nc_channel_commit(NcChannel *c, const NcWriter *w);

/* Forgets what was not sent. */
extern void nc_channel_drop_output(NcChannel *c);

/* From here on TLS, as the server; false when there is no memory. */
NC_MUST_USE extern bool nc_channel_start_tls(NcChannel *c, NcTlsContext *context);

/* As nc_tls_handshake(); the channel is secure when it is done. */
NC_MUST_USE extern int nc_channel_handshake(NcChannel *c, NcTlsFault *fault);

/* Can bytes be received although the socket does not say so? */
extern bool nc_channel_pending(const NcChannel *c);

/* Overwrites all input but what is not taken yet: a token was among it. */
extern void nc_channel_wipe(NcChannel *c);

/* We have said our last; the peer may go on. */
extern void nc_channel_half_close(NcChannel *c);

/* Both directions end; the descriptor stays until nc_channel_close(). */
extern void nc_channel_cut(NcChannel *c);

extern void nc_channel_close(NcChannel *c);

#endif							/* NC_SERVE_CHANNEL_H */
