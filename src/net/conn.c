/*
 * conn.c
 *	  The state machine of one connection: start, hand-over from libpq, checking
 *	  answers, ending.
 *
 * Runs in the communicator.  Ending has one door, nc_conn_end(): it gives the
 * flights back first, then shuts the socket down and waits in CLOSING until the
 * kernel holds neither buffer nor descriptor.  Whoever calls something that may end
 * a connection looks at its state before going on with it.
 */
#include "net_int.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "nc/base/bytes.h"
#include "nc/wire/session.h"

/* Row: from; bit: to. As in conn_row.h. */
static const uint8_t allowed[NC_CONN_STATES] = {
	[NC_CONN_UNUSED] = 1 << NC_CONN_BACKOFF | 1 << NC_CONN_CONNECTING,
	[NC_CONN_BACKOFF] = 1 << NC_CONN_CONNECTING | 1 << NC_CONN_UNUSED,
	[NC_CONN_CONNECTING] = 1 << NC_CONN_STARTING | 1 << NC_CONN_READY | 1 << NC_CONN_CLOSING,
	[NC_CONN_STARTING] = 1 << NC_CONN_READY | 1 << NC_CONN_CLOSING,
	[NC_CONN_READY] = 1 << NC_CONN_CLOSING,
	[NC_CONN_CLOSING] = 1 << NC_CONN_UNUSED,
};

bool
nc_conn_move_allowed(NcConnState from, NcConnState to)
{
	return (unsigned) from < NC_CONN_STATES && (unsigned) to < NC_CONN_STATES &&
		(allowed[from] >> to & 1) != 0;
}

void
nc_conn_set_state(NcConn *c, NcConnState to)
{
	NC_ASSERT(nc_conn_move_allowed(c->state, to));
	c->state = to;
	c->since_us = c->net->now_us;
}

static bool
take_conn_memory(NcConn *c)
{
	/* twice: sent bytes stay until the send is seen complete, which may be after answers to them */
	c->send_capacity = (size_t) 2 * c->depth * NC_CONN_REQUEST_BYTES;
	/* zeroed: valgrind does not see what the kernel writes for io_uring */
	c->recv_buffer = calloc(1, NC_CONN_BUFFER_BYTES);
	c->send_buffer = malloc(c->send_capacity);
	c->recv_start = c->recv_end = 0;
	c->send_start = c->send_end = 0;
	return c->recv_buffer != NULL && c->send_buffer != NULL;
}

/* What the present connection was told; reset for each. */
static void
prepare(NcConn *c)
{
	c->version = c->net->settings.protocol_version;
	c->depth = c->bulk ? NC_CONN_BULK_DEPTH : c->net->settings.depth_max;
	c->fd = -1;
	c->tls = NULL;
	c->answered = false;
	c->refused = false;
	c->stalled = false;
	c->proved = false;
	c->requests = 0;
	c->in_op.complete = nc_stream_in_complete;
	c->in_op.owner = c;
	c->out_op.complete = nc_stream_out_complete;
	c->out_op.owner = c;
}

/* Acts on what libpq wants next. */
static void
handshake_step(NcConn *c)
{
	NcHandshakeStep step = nc_handshake_advance(c->handshake);

	/* libpq tries one address after another, each with a socket of its own */
	c->fd = nc_handshake_socket(c->handshake);
	if (c->state == NC_CONN_CONNECTING && nc_handshake_authenticated(c->handshake))
		nc_conn_set_state(c, NC_CONN_STARTING);
	switch (step)
	{
		case NC_HANDSHAKE_READ:
			nc_loop_poll(c->net->loop, &c->in_op, c->fd, POLLIN);
			return;
		case NC_HANDSHAKE_WRITE:
			nc_loop_poll(c->net->loop, &c->in_op, c->fd, POLLOUT);
			return;
		case NC_HANDSHAKE_READ_WRITE:
			nc_loop_poll(c->net->loop, &c->in_op, c->fd, POLLIN | POLLOUT);
			return;
		case NC_HANDSHAKE_FAILED:
			nc_conn_end(c, NC_CONN_END_CONNECT, nc_handshake_error(c->handshake));
			return;
		case NC_HANDSHAKE_DONE:
			break;
	}
	if (nc_handshake_encrypted(c->handshake) && (c->tls = nc_handshake_take_tls(c->handshake)) == NULL)
	{
		nc_conn_end(c, NC_CONN_END_CONNECT, "libpq's TLS is not OpenSSL's: use sslmode=disable");
		return;
	}
	c->idle_since_us = c->progress_us = c->net->now_us;
	nc_conn_set_state(c, NC_CONN_READY);
	nc_net_arm(c->net, nc_conn_deadline_us(c));
	nc_count(c->net->counters, NC_COUNTER_CONNECTS, 1);
	nc_stream_begin(c);
}

void
nc_conn_start(NcConn *c, const char *hostaddr)
{
	const NcNetSettings *s = &c->net->settings;
	NcHandshakeParams params = {
		.conninfo = c->pool->conninfo,
		.hostaddr = hostaddr,
		.token_file = s->token_file,
		.options = s->options,
		.token_in_clear = s->token_in_clear,
		.protocol_version = s->protocol_version,
		.tenant_id = s->tenant_id,
		.timeline_id = s->timeline_id,
		.user_timeout_ms = s->silence_timeout_ms
	};

	prepare(c);
	nc_conn_set_state(c, NC_CONN_CONNECTING);
	nc_net_arm(c->net, c->net->now_us + NC_MS_US(s->connect_timeout_ms));
	c->handshake = take_conn_memory(c) ? nc_handshake_start(&params) : NULL;
	if (c->handshake == NULL)
		nc_conn_end(c, NC_CONN_END_CONNECT, "out of memory");
	else
		handshake_step(c);
}

void
nc_conn_handshake_event(NcConn *c)
{
	/* libpq may now close this descriptor and open another with the same number */
	nc_loop_forget(c->net->loop, c->fd);
	handshake_step(c);
}

static void
release_conn(NcConn *c)
{
	if (c->fd >= 0)
		nc_loop_forget(c->net->loop, c->fd);
	c->tls = NULL;
	if (c->handshake != NULL)
		nc_handshake_free(c->handshake);
	free(c->recv_buffer);
	free(c->send_buffer);
	c->handshake = NULL;
	c->recv_buffer = NULL;
	c->send_buffer = NULL;
	c->fd = -1;
	nc_conn_set_state(c, NC_CONN_UNUSED);
}

void
nc_conn_closing_event(NcConn *c)
{
	NC_ASSERT(c->state == NC_CONN_CLOSING);
	if (c->in_op.state == NC_OP_IDLE && c->out_op.state == NC_OP_IDLE)
		release_conn(c);
}

static void
count_end(NcConn *c, NcConnEnd why)
{
	NcCounters *counters = c->net->counters;

	if (c->state == NC_CONN_READY && why != NC_CONN_END_RETIRED)
		nc_count(counters, NC_COUNTER_DISCONNECTS, 1);
	if (c->state != NC_CONN_READY && why != NC_CONN_END_RETIRED)
		nc_count(counters, NC_COUNTER_CONNECT_FAILURES, 1);
	if (why == NC_CONN_END_POISONED)
		nc_count(counters, NC_COUNTER_POISONED, 1);
	if (why == NC_CONN_END_SILENT)
		nc_count(counters, NC_COUNTER_SILENT, 1);
}

void
nc_conn_end(NcConn *c, NcConnEnd why, const char *reason)
{
	char		text[NC_CONN_TEXT_BYTES];
	NcPool	   *pool = c->pool;

	/* the reason may be a text of the handshake that is freed below */
	nc_text_one_line(text, sizeof(text), reason, strlen(reason));
	memcpy(c->last_error, text, sizeof(text));
	if (c->state == NC_CONN_BACKOFF)
	{
		nc_conn_set_state(c, NC_CONN_UNUSED);
		nc_pool_conn_ended(pool, c, why, text);
		return;
	}
	NC_ASSERT(nc_conn_open(c));
	count_end(c, why);
	/* still in its old state, which says what its end means for the next attempt */
	nc_pool_conn_ended(pool, c, why, text);
	NC_ASSERT(c->pool == NULL && c->in_flight.count == 0);
	nc_conn_set_state(c, NC_CONN_CLOSING);
	/* not closed yet: operations under way name it by its number, which could be another's then */
	if (c->fd >= 0)
		(void) shutdown(c->fd, SHUT_RDWR);
	nc_loop_cancel(c->net->loop, &c->in_op);
	nc_loop_cancel(c->net->loop, &c->out_op);
	nc_conn_closing_event(c);
}

/* ---- requests ---- */

bool
nc_conn_has_room(const NcConn *c, uint32_t limit)
{
	return c->state == NC_CONN_READY && c->in_flight.count < limit &&
		c->send_capacity - c->send_end >= NC_CONN_REQUEST_BYTES;
}

void
nc_conn_send(NcConn *c, NcFlight *flight)
{
	NcNet	   *net = c->net;
	/* behind what the kernel may be sending: bytes in front of send_end are not moved meanwhile */
	NcWriter	w = nc_writer(c->send_buffer + c->send_end, c->send_capacity - c->send_end);
	uint8_t    *length_at;
	bool		encoded;

	flight->msg.reqid = ++net->last_reqid;
	length_at = nc_frame_begin(&w, 'd');
	encoded = nc_ps_request_encode(&w, c->version, &flight->msg);
	nc_frame_end(&w, length_at);
	NC_ASSERT(encoded && !w.failed);
	(void) encoded;
	c->send_end += nc_writer_bytes(&w);

	if (flight->was_sent)
		nc_count(net->counters, NC_COUNTER_RESENT, 1);
	if (flight->msg.tag == NC_REQ_GETPAGE)
		nc_count(net->counters, NC_COUNTER_PAGES_REQUESTED, 1);
	if (!flight->background && !flight->was_sent && !flight->hedged)
		nc_late_earn(&c->pool->late);
	flight->was_sent = true;
	flight->sent_us = net->now_us;
	nc_flight_append(&c->in_flight, flight);
	c->pool->background_sent += flight->background ? 1 : 0;
	c->requests++;
	/* timers look at the oldest request only, and there is one already */
	if (c->in_flight.count > 1)
		return;
	nc_net_arm(net, net->now_us + NC_MS_US(net->settings.silence_timeout_ms));
	if (net->settings.hedged_reads)
		nc_net_arm(net, net->now_us + NC_LATE_MIN_US);
}

/* CopyBoth proves nothing: a good answer does, or, while nothing is asked, that nobody closed it for a while. */
static void
prove(NcConn *c, bool answered)
{
	if (c->proved && c->pool->trouble_since_us == 0)
		return;
	c->proved = true;
	nc_pool_proved(c->pool, answered);
}

/* What a request took that somebody waits for, and did so from the beginning. */
static void
note_time(NcPool *pool, const NcFlight *flight)
{
	NcNet	   *net = pool->net;

	uint64_t	took_us = net->now_us - flight->sent_us;

	if (flight->background)
	{
		pool->background_sent--;
		return;
	}
	if (flight->hedged)
		return;
	/* or it may have waited for WAL */
	if (flight->msg.not_modified_since <= pool->replayed)
		nc_late_note(&pool->late, took_us);
	if (net->settings.readahead_yields && !flight->promoted &&
			 nc_yield_note(&pool->yield, net->now_us, took_us))
		nc_count(net->counters, NC_COUNTER_YIELDS, 1);
}

/* An error that is the host's says nothing about the request: another host may have the answer. */
static void
note_refusal(NcConn *c, NcFlight *flight, const NcPsResponse *resp)
{
	NcErrorKind kind = nc_ps_error_kind(resp->message, resp->message_bytes);

	if (kind == NC_ERROR_HOST || kind == NC_ERROR_MISROUTED)
		nc_hosts_note_refusal(c->pool, flight);
}

/* One CopyData: the answer to the oldest request, or the end of this connection. */
static void
conn_handle_answer(NcConn *c, const NcFrame *frame)
{
	NcNet	   *net = c->net;
	NcFlight   *flight = c->in_flight.head;
	NcPsResponse resp;
	const char *wrong;
	char		reason[NC_CONN_TEXT_BYTES];

	/*
	 * Answers come in the order of requests.  So one that does not match puts all behind
	 * it in doubt too: the connection ends, and everything on it is asked anew elsewhere.
	 */
	if (!nc_ps_response_decode(frame->body, frame->body_bytes, c->version, &resp))
	{
		nc_conn_end(c, NC_CONN_END_POISONED, "a malformed answer");
		return;
	}
	if (flight == NULL)
	{
		nc_conn_end(c, NC_CONN_END_POISONED, "an answer that nobody asked for");
		return;
	}
	wrong = nc_ps_response_mismatch(&resp, &flight->msg, c->version);
	if (wrong != NULL)
	{
		snprintf(reason, sizeof(reason), "an answer does not match its request: %s", wrong);
		nc_conn_end(c, NC_CONN_END_POISONED, reason);
		return;
	}
	/* all that the connection has to know of it, before the engine may free it */
	nc_flight_pop(&c->in_flight);
	note_time(c->pool, flight);
	c->progress_us = net->now_us;
	c->stalled = false;
	c->answered = true;
	c->pool->backoff_us = 0;
	if (c->in_flight.count == 0)
	{
		c->idle_since_us = net->now_us;
		nc_net_arm(net, net->now_us + NC_MS_US(net->settings.idle_timeout_ms));
	}
	if (resp.tag == NC_RESP_GETPAGE)
	{
		nc_count(net->counters, NC_COUNTER_PAGES_RECEIVED, 1);
		/* a page is answered only when its WAL is there: who needs no more does not wait for WAL */
		if (flight->msg.not_modified_since > c->pool->replayed)
			c->pool->replayed = flight->msg.not_modified_since;
	}
	if (resp.tag == NC_RESP_ERROR)
	{
		nc_count(net->counters, NC_COUNTER_PS_ERRORS, 1);
		note_refusal(c, flight, &resp);
	}
	else
		prove(c, true);
	if (!net->host.answer(net->host.ctx, c, flight, &resp))
	{
		c->refused = true;
		nc_text_one_line(reason, sizeof(reason), resp.message, resp.message_bytes);
		nc_pool_ask_again(c->pool, flight, reason);
	}
}

/* What Neon's page servers mean by two words that say little to who reads the log. */
static const char *
meaning_of(const char *message, const char *sqlstate)
{
	bool		moved = strcmp(sqlstate, "08006") == 0 && strcmp(message, "reconnect") == 0;

	return moved || strcmp(message, "not found") == 0 ?
		": this tenant or shard is not, or no longer, on this page server" : "";
}

void
nc_conn_goodbye(const NcFrame *frame, char *reason, size_t bytes)
{
	NcReader	r = nc_reader(frame->body, frame->body_bytes);
	const char *message = "no message";
	const char *sqlstate = "?";
	uint8_t		field;

	while ((field = nc_read_u8(&r)) != 0)
	{
		const char *value = nc_read_cstring(&r);

		if (value == NULL)
			break;
		if (field == 'M')
			message = value;
		if (field == 'C')
			sqlstate = value;
	}
	snprintf(reason, bytes, "the server ended the stream: %.120s (SQLSTATE %.5s)%.70s", message,
			 sqlstate, meaning_of(message, sqlstate));
}

static void
conn_handle_error(NcConn *c, const NcFrame *frame)
{
	char		reason[NC_CONN_ERROR_BYTES];

	nc_conn_goodbye(frame, reason, sizeof(reason));
	nc_conn_end(c, NC_CONN_END_LOST, reason);
}

static void
conn_handle_frame(NcConn *c, const NcFrame *frame)
{
	switch (frame->type)
	{
		case 'd':
			conn_handle_answer(c, frame);
			break;
		case 'N':
			break;
		case 'E':
			conn_handle_error(c, frame);
			break;
		default:
			nc_conn_end(c, NC_CONN_END_LOST, "the server left the stream");
			break;
	}
}

bool
nc_conn_parse(NcConn *c)
{
	while (c->state == NC_CONN_READY)
	{
		NcFrame		frame;
		NcFrameResult result = nc_frame_parse(c->recv_buffer + c->recv_start,
											  c->recv_end - c->recv_start,
											  NC_RESPONSE_BYTES_MAX, &frame);

		if (result == NC_FRAME_INCOMPLETE)
			return true;
		if (result == NC_FRAME_INVALID)
		{
			nc_conn_end(c, NC_CONN_END_POISONED, "a message with an impossible length");
			return false;
		}
		c->recv_start += frame.consumed;
		conn_handle_frame(c, &frame);
	}
	return false;
}

/* ---- time ---- */

/* The one before it had to be answered first: the later of its sending and of that answer. */
uint64_t
nc_conn_silent_since(const NcConn *c)
{
	uint64_t	sent_us = c->in_flight.head->sent_us;

	return sent_us > c->progress_us ? sent_us : c->progress_us;
}

static uint64_t
earlier(uint64_t a_us, uint64_t b_us)
{
	return a_us < b_us ? a_us : b_us;
}

/* When a READY connection is silent for too long, or idle. */
static uint64_t
ready_deadline_us(const NcConn *c)
{
	const NcNetSettings *s = &c->net->settings;

	if (c->in_flight.count > 0)
		return nc_conn_silent_since(c) + NC_MS_US(s->silence_timeout_ms);
	/* the last one of a shard is kept */
	return c->pool->nconns > 1 ? c->idle_since_us + NC_MS_US(s->idle_timeout_ms) : UINT64_MAX;
}

/* Does the shard owe an answer, over whichever connection, or after a pause? */
static bool
is_asked(const NcPool *pool)
{
	for (uint32_t i = 0; i < pool->nconns; i++)
		if (pool->conns[i]->in_flight.count > 0)
			return true;
	return pool->again.head != NULL;
}

/*
 * Connected, nothing asked: time will tell.  Who has been asked must answer first, and who
 * has refused must answer well.
 */
static bool
stands_unproved(const NcConn *c)
{
	return c->state == NC_CONN_READY && !c->proved && !c->refused && !is_asked(c->pool);
}

uint64_t
nc_conn_deadline_us(const NcConn *c)
{
	const NcNetSettings *s = &c->net->settings;

	if (stands_unproved(c))
		return earlier(ready_deadline_us(c), c->since_us + NC_CONN_STOOD_US);
	switch (c->state)
	{
		case NC_CONN_CONNECTING:
		case NC_CONN_STARTING:
			/* each of the two may take that long */
			return c->since_us + NC_MS_US(s->connect_timeout_ms);
		case NC_CONN_READY:
			return ready_deadline_us(c);
		case NC_CONN_BACKOFF:
			/* past it, the name is being resolved and that end wakes the loop */
			if (c->pool->retry_us > c->net->now_us)
				return c->pool->retry_us;
			break;
		case NC_CONN_UNUSED:
		case NC_CONN_CLOSING:
			break;
	}
	return UINT64_MAX;
}

void
nc_conn_check_time(NcConn *c)
{
	uint64_t	now_us = c->net->now_us;

	if (stands_unproved(c) && now_us - c->since_us >= NC_CONN_STOOD_US)
		prove(c, false);
	if (now_us < nc_conn_deadline_us(c))
		return;
	if (c->state == NC_CONN_CONNECTING)
		nc_conn_end(c, NC_CONN_END_CONNECT, "timed out while connecting");
	else if (c->state == NC_CONN_STARTING)
		nc_conn_end(c, NC_CONN_END_CONNECT, "timed out waiting for the stream to start");
	else if (c->state == NC_CONN_READY && c->in_flight.count > 0)
		nc_conn_end(c, NC_CONN_END_SILENT, "no answer in time");
	else if (c->state == NC_CONN_READY)
		nc_conn_end(c, NC_CONN_END_RETIRED, "idle");
}
