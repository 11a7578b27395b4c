/*
 * channel.c
 *	  Bytes of a session in and out, in clear text or inside TLS.
 *
 * Runs in page service workers.  Never blocks; every failure means that the
 * client is gone.  Bytes may be inside OpenSSL that epoll does not show: the
 * worker asks nc_svc_channel_pending() before a session sleeps.
 */
#include "page_service.h"

#include <sys/socket.h>
#include <unistd.h>

/* Is what is sent and received now inside TLS? */
static bool
encrypted(const NcSvcSession *s)
{
	return s->tls != NULL && s->state != NC_SVC_SESSION_TLS;
}

static bool
would_block(void)
{
	return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
}

/* Bytes, 0 = not now, -1 = the client is gone. */
static ssize_t
read_some(NcSvcSession *s, void *to, size_t room)
{
	NcTlsFault	fault;
	ssize_t		got;

	if (!encrypted(s))
	{
		got = recv(s->fd, to, room, MSG_DONTWAIT);
		if (got < 0)
			return would_block() ? 0 : -1;
		return got == 0 ? -1 : got;
	}
	got = nc_tls_read(s->tls, to, room, &fault);
	s->tls_wants_write = got == 0 && nc_tls_wants_write(s->tls);
	return got;
}

static ssize_t
write_some(NcSvcSession *s, const void *from, size_t bytes)
{
	NcTlsFault	fault;
	ssize_t		sent;

	if (encrypted(s))
		return nc_tls_write(s->tls, from, bytes, &fault);
	sent = send(s->fd, from, bytes, MSG_DONTWAIT | MSG_NOSIGNAL);
	return sent >= 0 ? sent : would_block() ? 0 : -1;
}

/* Reads what is there, once; false if the client is gone. */
bool
nc_svc_channel_receive(NcSvcSession *s, TimestampTz now)
{
	ssize_t		got;

	if (s->state == NC_SVC_SESSION_TLS)
		return true;
	if (s->in_start > 0)
	{
		memmove(s->in, s->in + s->in_start, s->in_end - s->in_start);
		s->in_end -= s->in_start;
		s->in_start = 0;
	}
	if (s->in_end == NC_SVC_IN_BYTES)
		return true;
	got = read_some(s, s->in + s->in_end, NC_SVC_IN_BYTES - s->in_end);
	if (got > 0)
	{
		s->in_end += got;
		s->active = now;
	}
	return got >= 0;
}

/* Sends what the socket takes; false if the client is gone. */
bool
nc_svc_channel_send(NcSvcSession *s, TimestampTz now)
{
	while (s->out_start < s->out_end)
	{
		ssize_t		sent = write_some(s, s->out + s->out_start, s->out_end - s->out_start);

		if (sent <= 0)
			return sent == 0;
		s->out_start += sent;
		s->active = now;
	}
	s->out_start = s->out_end = 0;
	return true;
}

bool
nc_svc_channel_pending(const NcSvcSession *s)
{
	return encrypted(s) && nc_tls_pending(s->tls);
}

/* Goes on with the handshake of TLS; false, with the reason logged, if it failed. */
bool
nc_svc_channel_handshake(NcSvcSession *s, TimestampTz now)
{
	NcTlsFault	fault;
	int			rc = nc_tls_handshake(s->tls, &fault);

	s->tls_wants_write = rc == 0 && nc_tls_wants_write(s->tls);
	if (rc > 0)
		s->state = NC_SVC_SESSION_STARTUP;
	if (rc < 0 && fault.text[0] != '\0')
		nc_svc_login_refused(s, now, fault.text);
	return rc >= 0;
}

void
nc_svc_channel_close(NcSvcSession *s)
{
	nc_tls_end(s->tls);
	s->tls = NULL;
	close(s->fd);
}
