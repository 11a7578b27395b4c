/*
 * direct_conn.c
 *	  One connection of one process to one shard, in direct mode.
 *
 * Runs in any process of the compute.  libpq opens the connection; then the bytes
 * are moved here, with OpenSSL's object where there is TLS, and parsed as the
 * communicator does: libpq would keep all that a server says, however long it
 * claims to be.  No call blocks but the waits on latch and socket; a connection
 * that fails says so in few lines, is left alone for a while that doubles, and is
 * opened again.
 */
#include "postgres.h"

#include <sys/socket.h>

#include "common/pg_prng.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "storage/latch.h"
#include "utils/memutils.h"

#include "nc/auth/tls.h"
#include "nc/base/bytes.h"
#include "nc/base/clock.h"
#include "nc/compat/server.h"
#include "nc/direct/direct.h"
#include "nc/net/conn.h"
#include "nc/net/handshake.h"
#include "nc/net/late.h"
#include "nc/net/net.h"
#include "nc/net/resolve.h"
#include "nc/shard/shard_map.h"
#include "nc/shared/identity.h"
#include "nc/shared/settings.h"
#include "nc/shared/shmem.h"
#include "nc/shared/test_point.h"
#include "nc/shared/waits.h"
#include "nc/wire/session.h"
#include "direct_int.h"

/* Requests in flight, those of cancelled calls included. When full it is opened anew. */
#define PENDING_MAX 128

/* What was not parsed yet: the longest message allowed, and room behind it. */
#define RECV_BYTES (NC_RESPONSE_BYTES_MAX + 5 + 64 * 1024)

/* Of each request that is not answered at most one copy is unsent. */
#define SEND_BYTES (PENDING_MAX * NC_CONN_REQUEST_BYTES)

/* Records of TLS that are read before the process looks whether it should leave. */
#define TLS_READS_AT_ONCE 64

/* While a host name is being resolved by a thread we look this often. */
#define RESOLVE_SLICE_MS 10

typedef struct Pending
{
	NcPsRequest msg;
	int			index;			/* message of the call under way, -1: nobody waits */
	uint64		sent_us;
} Pending;

struct NcDirectConn
{
	uint32		shard;
	char		shard_conninfo[NC_CONNINFO_BYTES_MAX];
	uint32		host;			/* which of its hosts is asked, counted on without end */
	uint32		nhosts;
	char		conninfo[NC_HOST_CONNINFO_BYTES];	/* of that host alone */
	NcConninfoParts parts;

	/* With several hosts: when one of them is late. */
	NcLate		late;			/* what answers take */
	uint64		patience_us;	/* after one was left: twice as long; 0 after an answer */
	XLogRecPtr	replayed;		/* this host has answered a request that needed so much WAL */

	/* Being opened: handshake without a set. Ready: both. */
	NcHandshake *handshake;
	NcHandshakeStep step;		/* what it waits for */
	WaitEventSet *set;
	bool		holds_fd;		/* AcquireExternalFD() for its socket */
	int			version;
	uint64		opened_us;		/* when the attempt began */
	bool		answered;		/* an answer was verified on it */
	NcResolve  *resolve;		/* of its host, if that is a name */
	uint32		turn;			/* which of its addresses: one more after each that did not answer */

	/* Ready only. */
	int			fd;
	NcTls	   *tls;			/* NULL: the bytes go as they are */
	uint8	   *recv_buffer;	/* [RECV_BYTES]; recv_start..recv_end are unread */
	size_t		recv_start;
	size_t		recv_end;
	uint8	   *send_buffer;	/* [SEND_BYTES]; the first send_bytes are unsent */
	size_t		send_bytes;

	uint64		backoff_us;
	uint64		retry_us;		/* no attempt before */
	uint64		trouble_since_us;
	uint64		log_next_us;
	bool		trouble_logged;

	Pending		pending[PENDING_MAX];	/* circular */
	uint32		first;
	uint32		count;
	uint64		progress_us;	/* when something was sent into silence, or an answer came; bytes alone are none */
};

static uint64 last_reqid = 0;

/* Another host is asked from the next attempt on, if there is one. */
static void
use_host(NcDirectConn *c, uint32 host)
{
	char		err[256];

	c->host = host;
	c->nhosts = nc_conninfo_host(c->shard_conninfo, c->nhosts > 0 ? host % c->nhosts : 0, c->conninfo,
								 sizeof(c->conninfo));
	/* a string that libpq refuses is told when connecting fails */
	if (!nc_conninfo_parts(c->conninfo, &c->parts, err, sizeof(err)))
		strlcpy(c->parts.address, "?", sizeof(c->parts.address));
}

NcDirectConn *
nc_direct_conn_make(uint32 shard, const char *conninfo)
{
	NcDirectConn *c = calloc(1, sizeof(*c));

	if (c == NULL)
		return NULL;
	c->shard = shard;
	nc_late_init(&c->late);
	strlcpy(c->shard_conninfo, conninfo, sizeof(c->shard_conninfo));
	use_host(c, 0);
	return c;
}

bool
nc_direct_conn_ready(const NcDirectConn *c)
{
	return c->set != NULL;
}

/* ---- ending ---- */

static void
close_conn(NcDirectConn *c)
{
	if (c->set != NULL)
		FreeWaitEventSet(c->set);
	/* the socket and OpenSSL's object with it */
	if (c->handshake != NULL)
		nc_handshake_free(c->handshake);
	if (c->holds_fd)
		ReleaseExternalFD();
	free(c->recv_buffer);
	free(c->send_buffer);
	c->recv_buffer = c->send_buffer = NULL;
	c->tls = NULL;
	if (c->resolve != NULL)
		nc_resolve_release(c->resolve);
	c->set = NULL;
	c->handshake = NULL;
	c->replayed = InvalidXLogRecPtr;
	c->holds_fd = false;
	c->resolve = NULL;
	while (c->count > 0)
	{
		int			index = c->pending[c->first].index;

		c->first = (c->first + 1) % PENDING_MAX;
		c->count--;
		if (index >= 0)
			nc_direct_lost(index);
	}
}

void
nc_direct_conn_free(NcDirectConn *c)
{
	close_conn(c);
	free(c);
}

void
nc_direct_conn_orphan(NcDirectConn *c)
{
	for (uint32 i = 0; i < c->count; i++)
		c->pending[(c->first + i) % PENDING_MAX].index = -1;
}

static void
log_trouble(NcDirectConn *c, const char *what, const char *reason)
{
	uint64		now_us = nc_clock_us();

	if (c->trouble_since_us == 0)
		c->trouble_since_us = now_us;
	if (now_us < c->log_next_us)
		return;
	c->log_next_us = now_us + NC_POOL_LOG_INTERVAL_US;
	c->trouble_logged = true;
	ereport(LOG,
			(errmsg("shard %u (%s): %s: %s; trouble for %.1f s", c->shard, c->parts.address,
					what, reason, (now_us - c->trouble_since_us) / 1e6),
			 errhidestmt(true)));
}

/* Ends it after a failure, with the delay and the words that the communicator has for that. */
static void
fail_direct(NcDirectConn *c, NcCounter counter, const char *what, const char *why)
{
	char		reason[NC_CONN_ERROR_BYTES];
	uint64		delay_us = c->answered ? 0 : c->backoff_us * 2;

	if (!c->answered)
		c->turn++;
	/* it may be a text of the handshake that is freed below, or a server's */
	nc_text_one_line(reason, sizeof(reason), why, strlen(why));
	nc_stat(c->set != NULL ? NC_COUNTER_DISCONNECTS : NC_COUNTER_CONNECT_FAILURES, 1);
	if (counter != NC_COUNTERS)
		nc_stat(counter, 1);
	delay_us = Max(delay_us, NC_BACKOFF_MIN_US);
	if (counter == NC_COUNTER_POISONED)
		delay_us = Max(delay_us, NC_BACKOFF_POISONED_US);
	delay_us = Min(delay_us, NC_BACKOFF_MAX_US);
	close_conn(c);
	c->backoff_us = delay_us;
	c->retry_us = nc_clock_us() + delay_us / 2 +
		(uint64) (pg_prng_double(&pg_global_prng_state) * (delay_us / 2));
	log_trouble(c, what, reason);
	if (c->nhosts == 1)
		return;
	use_host(c, c->host + 1);
	/* the pause comes when all have had their turn */
	if (c->host % c->nhosts != 0)
		c->retry_us = 0;
}

static void
direct_lost(NcDirectConn *c, const char *why)
{
	fail_direct(c, NC_COUNTERS, "connection lost", why);
}

static void
poison(NcDirectConn *c, const char *reason)
{
	fail_direct(c, NC_COUNTER_POISONED, "connection closed because of a wrong answer", reason);
}

/* ---- several hosts ---- */

/*
 * How long the host is waited for: it is left as soon as it is late, but for as long as
 * no host answers later each time, so that all may wait for the same WAL.
 */
static uint64
patience_us(const NcDirectConn *c, uint64 usual_us, int most_ms)
{
	uint64		most_us = (uint64) most_ms * 1000;

	if (c->nhosts < 2 || !nc_guc_hedged_reads)
		return most_us;
	return Min(Max(usual_us, c->patience_us), most_us);
}

static uint64
connect_patience_us(const NcDirectConn *c)
{
	return patience_us(c, NC_LATE_UNKNOWN_US, nc_guc_connect_timeout);
}

/* Of a connection on which something is in flight. */
static uint64
answer_patience_us(const NcDirectConn *c)
{
	uint64		usual_us = nc_late_after_us(&c->late);

	if (c->pending[c->first].msg.not_modified_since > c->replayed)
		usual_us = Max(usual_us, NC_HOST_WAL_US);
	return patience_us(c, usual_us, nc_guc_silence_timeout);
}

/* Ends a connection whose time is over. */
static void
give_up(NcDirectConn *c, uint64 waited_us, NcCounter counter, const char *what, const char *why)
{
	c->patience_us = waited_us * 2;
	fail_direct(c, counter, what, why);
}

/* Milliseconds until then, rounded up, but no more than that. */
static int
wait_ms(uint64 until_us, int most_ms)
{
	uint64		now_us = nc_clock_us();

	if (until_us <= now_us)
		return 0;
	return (int) Min((until_us - now_us) / 1000 + 1, most_ms);
}

/* ---- opening ---- */

/* Address for libpq: false while the name is being resolved, or when it cannot be. */
static bool
resolved(NcDirectConn *c, const char **hostaddr)
{
	*hostaddr = NULL;
	if (c->parts.host[0] == '\0')
		return true;
	if (c->resolve == NULL)
		c->resolve = nc_resolve_start(c->parts.host, -1);
	if (c->resolve == NULL)
		fail_direct(c, NC_COUNTERS, "cannot resolve the host name", "no thread for it");
	else if (!nc_resolve_done(c->resolve))
		return false;
	else if (nc_resolve_count(c->resolve) == 0)
		fail_direct(c, NC_COUNTERS, "cannot resolve the host name", nc_resolve_error(c->resolve));
	else
	{
		/* processes begin with different ones; one that is dead must not be the only one tried */
		*hostaddr = nc_resolve_address(c->resolve, ((uint32) MyProcPid + c->turn) %
									   nc_resolve_count(c->resolve));
		return true;
	}
	return false;
}

static void
start_direct(NcDirectConn *c)
{
	char		options[NC_OPTIONS_BYTES];
	NcHandshakeParams params = {
		.conninfo = c->conninfo,
		.token_file = nc_guc_token_file,
		.options = options,
		.token_in_clear = nc_guc_allow_token_in_clear,
		.protocol_version = nc_guc_protocol_version,
		.tenant_id = nc_guc_tenant_id,
		.timeline_id = nc_guc_timeline_id,
		.user_timeout_ms = nc_guc_silence_timeout
	};

	nc_identity_options(options, sizeof(options));
	c->opened_us = nc_clock_us();
	c->answered = false;
	if (!resolved(c, &params.hostaddr))
		return;
	if (!AcquireExternalFD())
	{
		fail_direct(c, NC_COUNTERS, "cannot connect", "too many open files in this process");
		return;
	}
	c->holds_fd = true;
	c->version = params.protocol_version;
	c->handshake = nc_handshake_start(&params);
	if (c->handshake == NULL)
		fail_direct(c, NC_COUNTERS, "cannot connect", "out of memory");
	else
		c->step = nc_handshake_advance(c->handshake);
}

/* Takes the stream out of libpq's hands. False when the connection ended by it. */
static bool
take_stream(NcDirectConn *c)
{
	char	   *body;
	int			rc = nc_handshake_get(c->handshake, &body);

	/* nothing was asked yet: only a goodbye can be there, and part of a message makes garbage of the rest */
	if (rc > 0)
	{
		nc_handshake_release(body);
		poison(c, "an answer came before any request");
		return false;
	}
	if (rc < 0)
	{
		direct_lost(c, nc_handshake_error(c->handshake));
		return false;
	}
	c->fd = nc_handshake_socket(c->handshake);
	if (nc_handshake_encrypted(c->handshake) &&
		(c->tls = nc_handshake_take_tls(c->handshake)) == NULL)
	{
		fail_direct(c, NC_COUNTERS, "cannot connect", "libpq's TLS is not OpenSSL's: use sslmode=disable");
		return false;
	}
	/* an attempt that an error ended has left them */
	if (c->recv_buffer == NULL)
		c->recv_buffer = malloc(RECV_BYTES);
	if (c->send_buffer == NULL)
		c->send_buffer = malloc(SEND_BYTES);
	c->recv_start = c->recv_end = c->send_bytes = 0;
	if (c->recv_buffer != NULL && c->send_buffer != NULL)
		return true;
	fail_direct(c, NC_COUNTERS, "cannot connect", "out of memory");
	return false;
}

/* The stream stands. Raises an error when there is no descriptor for the set. */
static void
finish_opening(NcDirectConn *c)
{
	WaitEventSet *set;

	if (!take_stream(c))
		return;
	NC_TEST_POINT("direct-set");
	set = nc_pg_wait_event_set(3);
	AddWaitEventToSet(set, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
	AddWaitEventToSet(set, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
	AddWaitEventToSet(set, WL_SOCKET_READABLE, c->fd, NULL, NULL);
	c->set = set;
	if (c->resolve != NULL)
		nc_resolve_release(c->resolve);
	c->resolve = NULL;
	nc_stat(NC_COUNTER_CONNECTS, 1);
	if (c->trouble_logged)
		ereport(LOG,
				(errmsg("shard %u (%s): connected again after %.1f s", c->shard,
						c->parts.address, (nc_clock_us() - c->trouble_since_us) / 1e6),
				 errhidestmt(true)));
	c->trouble_logged = false;
	c->trouble_since_us = 0;
}

static uint32
wait_latch(long timeout_ms)
{
	return WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, timeout_ms,
					 nc_wait_event(NC_WAIT_CONNECT));
}

uint32
nc_direct_conn_open(NcDirectConn *c, int slice_ms)
{
	uint32		wanted = WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH;
	uint32		events;
	uint64		limit_us;

	if (c->handshake == NULL && nc_clock_us() < c->retry_us)
		return wait_latch(Min(slice_ms, (long) (c->retry_us - nc_clock_us()) / 1000 + 1));
	if (c->handshake == NULL)
		start_direct(c);
	if (c->handshake == NULL)
		return c->resolve != NULL ? wait_latch(RESOLVE_SLICE_MS) : 0;
	switch (c->step)
	{
		case NC_HANDSHAKE_READ:
			wanted |= WL_SOCKET_READABLE;
			break;
		case NC_HANDSHAKE_WRITE:
			wanted |= WL_SOCKET_WRITEABLE;
			break;
		case NC_HANDSHAKE_READ_WRITE:
			wanted |= WL_SOCKET_READABLE | WL_SOCKET_WRITEABLE;
			break;
		case NC_HANDSHAKE_FAILED:
			fail_direct(c, NC_COUNTERS, "cannot connect", nc_handshake_error(c->handshake));
			return 0;
		case NC_HANDSHAKE_DONE:
			finish_opening(c);
			return 0;
	}
	limit_us = connect_patience_us(c);
	events = WaitLatchOrSocket(MyLatch, wanted, nc_handshake_socket(c->handshake),
							   wait_ms(c->opened_us + limit_us, slice_ms), nc_wait_event(NC_WAIT_CONNECT));
	if ((events & (WL_SOCKET_READABLE | WL_SOCKET_WRITEABLE)) != 0)
		c->step = nc_handshake_advance(c->handshake);
	else if (nc_clock_us() - c->opened_us >= limit_us)
		give_up(c, limit_us, NC_COUNTERS, "cannot connect", "timed out while connecting");
	return events;
}

/* ---- sending ---- */

static void
tls_lost(NcDirectConn *c, const NcTlsFault *fault)
{
	direct_lost(c, fault->text[0] != '\0' ? fault->text : "the server closed the connection");
}

/* What was sent of the buffer: 0 = the socket takes no more now, -1 = the connection ended. */
static ssize_t
send_some(NcDirectConn *c)
{
	NcTlsFault	fault;
	ssize_t		n;

	if (c->tls != NULL)
	{
		n = nc_tls_write(c->tls, c->send_buffer, c->send_bytes, &fault);
		if (n < 0)
			tls_lost(c, &fault);
		return n;
	}
	n = send(c->fd, c->send_buffer, c->send_bytes, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (n >= 0)
		return n;
	if (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)
		return 0;
	direct_lost(c, strerror(errno));
	return -1;
}

/* Sends what the socket takes. False when the connection ended. */
static bool
flush(NcDirectConn *c)
{
	while (c->send_bytes > 0)
	{
		ssize_t		n = send_some(c);

		if (n <= 0)
			return n == 0;
		c->send_bytes -= n;
		memmove(c->send_buffer, c->send_buffer + n, c->send_bytes);
	}
	return true;
}

bool
nc_direct_conn_send(NcDirectConn *c, NcPsRequest *msg, int index)
{
	NcWriter	w = nc_writer(c->send_buffer + c->send_bytes, SEND_BYTES - c->send_bytes);
	uint8	   *length_at;

	if (c->count == PENDING_MAX)
	{
		/* cancelled ones only: nobody misses their answers */
		close_conn(c);
		return false;
	}
	/* tells processes apart in a server's log */
	msg->reqid = (uint64) MyProcPid << 32 | ++last_reqid;
	length_at = nc_frame_begin(&w, 'd');
	if (!nc_ps_request_encode(&w, c->version, msg))
		elog(ERROR, "neon_comm: a request cannot be encoded");
	nc_frame_end(&w, length_at);
	Assert(!w.failed);
	c->send_bytes += nc_writer_bytes(&w);
	if (!flush(c))
		return false;
	nc_stat(NC_COUNTER_SENDS, 1);
	nc_stat(NC_COUNTER_BYTES_SENT, nc_writer_bytes(&w));
	if (msg->tag == NC_REQ_GETPAGE)
		nc_stat(NC_COUNTER_PAGES_REQUESTED, 1);
	if (c->count == 0)
		c->progress_us = nc_clock_us();
	c->pending[(c->first + c->count) % PENDING_MAX] = (Pending) {
		.msg = *msg, .index = index, .sent_us = nc_clock_us()
	};
	c->count++;
	return true;
}

/* ---- answers ---- */

static void
note_answer(NcDirectConn *c, const Pending *p, const NcPsResponse *resp)
{
	uint64		now_us = nc_clock_us();

	/* or it may have waited for WAL */
	if (p->msg.not_modified_since <= c->replayed)
		nc_late_note(&c->late, now_us - Max(p->sent_us, c->progress_us));
	c->progress_us = now_us;
	c->patience_us = 0;
	c->answered = true;
	c->backoff_us = 0;
	if (resp->tag != NC_RESP_GETPAGE)
		return;
	nc_stat(NC_COUNTER_PAGES_RECEIVED, 1);
	c->replayed = Max(c->replayed, p->msg.not_modified_since);
}

/* The answer to the oldest request. False when the connection ended by it. */
static bool
handle_answer(NcDirectConn *c, const uint8 *body, size_t bytes)
{
	Pending    *p = &c->pending[c->first];
	NcPsResponse resp;
	const char *wrong;
	char		reason[NC_CONN_TEXT_BYTES];

	if (!nc_ps_response_decode(body, bytes, c->version, &resp))
	{
		poison(c, "a malformed answer");
		return false;
	}
	if (c->count == 0)
	{
		poison(c, "an answer that nobody asked for");
		return false;
	}
	wrong = nc_ps_response_mismatch(&resp, &p->msg, c->version);
	if (wrong != NULL)
	{
		snprintf(reason, sizeof(reason), "an answer does not match its request: %s", wrong);
		poison(c, reason);
		return false;
	}
	c->first = (c->first + 1) % PENDING_MAX;
	c->count--;
	if (resp.tag == NC_RESP_ERROR)
		nc_stat(NC_COUNTER_PS_ERRORS, 1);
	if (resp.tag == NC_RESP_ERROR && p->index >= 0 &&
		nc_direct_refused(p->index, c->host % c->nhosts, c->nhosts, &resp))
	{
		/* not answered: what is asked in vain is asked less and less often */
		nc_text_one_line(reason, sizeof(reason), resp.message, resp.message_bytes);
		nc_direct_lost(p->index);
		fail_direct(c, NC_COUNTERS, "cannot answer now", reason);
		return false;
	}
	note_answer(c, p, &resp);
	if (p->index >= 0)
		nc_direct_answer(p->index, &resp, c->shard, c->parts.address);
	else
		nc_stat(NC_COUNTER_LATE_ANSWERS, 1);
	return true;
}

/* False when the connection ended by it. */
static bool
handle_frame(NcDirectConn *c, const NcFrame *frame)
{
	char		reason[NC_CONN_ERROR_BYTES];

	switch (frame->type)
	{
		case 'd':
			return handle_answer(c, frame->body, frame->body_bytes);
		case 'N':
			return true;
		case 'E':
			nc_conn_goodbye(frame, reason, sizeof(reason));
			direct_lost(c, reason);
			return false;
		default:
			direct_lost(c, "the server left the stream");
			return false;
	}
}

/* Handles the messages that are whole. False when the connection ended. */
static bool
parse(NcDirectConn *c)
{
	for (;;)
	{
		NcFrame		frame;

		switch (nc_frame_parse(c->recv_buffer + c->recv_start, c->recv_end - c->recv_start,
							   NC_RESPONSE_BYTES_MAX, &frame))
		{
			case NC_FRAME_INCOMPLETE:
				return true;
			case NC_FRAME_INVALID:
				poison(c, "a message with an impossible length");
				return false;
			case NC_FRAME_OK:
				break;
		}
		c->recv_start += frame.consumed;
		if (!handle_frame(c, &frame))
			return false;
	}
}

/* Moves what is unread to the front. The parser left less than the longest message: there is room. */
static size_t
make_room(NcDirectConn *c)
{
	c->recv_end -= c->recv_start;
	memmove(c->recv_buffer, c->recv_buffer + c->recv_start, c->recv_end);
	c->recv_start = 0;
	Assert(c->recv_end < RECV_BYTES);
	return RECV_BYTES - c->recv_end;
}

/* False when the connection ended. */
static bool
received(NcDirectConn *c, size_t bytes)
{
	c->recv_end += bytes;
	nc_stat(NC_COUNTER_BYTES_RECEIVED, bytes);
	return parse(c);
}

/*
 * Reads what is there.  OpenSSL may hold the rest of a record that polling does
 * not show, so nothing of it is left behind.
 */
static bool
tls_receive(NcDirectConn *c)
{
	NcTlsFault	fault;

	for (int reads = 0; reads < TLS_READS_AT_ONCE || nc_tls_pending(c->tls); reads++)
	{
		size_t		room = make_room(c);
		ssize_t		n = nc_tls_read(c->tls, c->recv_buffer + c->recv_end, room, &fault);

		if (n < 0)
			tls_lost(c, &fault);
		if (n <= 0)
			return n == 0;
		if (!received(c, n))
			return false;
	}
	return true;
}

static bool
plain_receive(NcDirectConn *c)
{
	size_t		room = make_room(c);
	ssize_t		n = recv(c->fd, c->recv_buffer + c->recv_end, room, MSG_DONTWAIT);

	if (n > 0)
		return received(c, n);
	if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
		return true;
	direct_lost(c, n == 0 ? "the server closed the connection" : strerror(errno));
	return false;
}

/* What to wait for: input, and room for what is unsent or what OpenSSL has to say first. */
static uint32
wanted(const NcDirectConn *c)
{
	bool		output = c->send_bytes > 0 || (c->tls != NULL && nc_tls_wants_write(c->tls));

	return WL_SOCKET_READABLE | (output ? WL_SOCKET_WRITEABLE : 0);
}

uint32
nc_direct_conn_receive(NcDirectConn *c, int slice_ms)
{
	WaitEvent	event;
	uint64		limit_us;

	if (!flush(c))
		return 0;
	limit_us = answer_patience_us(c);
	ModifyWaitEvent(c->set, 2, wanted(c), NULL);
	nc_stat(NC_COUNTER_CLIENT_SLEEPS, 1);
	if (WaitEventSetWait(c->set, wait_ms(c->progress_us + limit_us, slice_ms), &event, 1,
						 nc_wait_event(NC_WAIT_PAGE_READ)) == 0)
		event.events = WL_TIMEOUT;
	if ((event.events & (WL_SOCKET_READABLE | WL_SOCKET_WRITEABLE)) != 0)
	{
		nc_stat(NC_COUNTER_RECEIVES, 1);
		if (!(c->tls != NULL ? tls_receive(c) : plain_receive(c)))
			return event.events;
	}
	if (c->count > 0 && nc_clock_us() - c->progress_us >= limit_us)
		give_up(c, limit_us, NC_COUNTER_SILENT, "connection abandoned", "no answer in time");
	return event.events;
}
