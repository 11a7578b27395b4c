/*
 * sim_net.c
 *	  The simulated network, and the method of the loop that works on it.
 *
 * Bytes of one connection arrive in their order, those of different connections
 * in any.  Sends are accepted in part, receives return in part, a cancelled
 * operation may still succeed, completions come in any order: whatever a kernel
 * may do.  Rules of nc/io/loop.h are checked: nothing is closed, forgotten or
 * used twice while an operation is started on it.
 */
#include "sim.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>

#include "loop_int.h"

typedef struct SimLoop
{
	NcLoop		base;
	NcOp	   *cancelled[2 * SIM_CONNS_MAX];
	uint32_t	ncancelled;
} SimLoop;

/* ---- bytes ---- */

void
sim_bytes_append(SimBytes *b, const void *data, size_t bytes)
{
	if (b->start == b->end)
		b->start = b->end = 0;
	if (b->end + bytes > b->capacity)
	{
		if (b->start > 0)
			memmove(b->data, b->data + b->start, b->end - b->start);
		b->end -= b->start;
		b->start = 0;
		if (b->end + bytes > b->capacity)
		{
			b->capacity = (b->end + bytes) * 2 + 16384;
			b->data = realloc(b->data, b->capacity);
		}
	}
	if (bytes > 0)
		memcpy(b->data + b->end, data, bytes);
	b->end += bytes;
}

void
sim_bytes_consume(SimBytes *b, size_t bytes)
{
	b->start += bytes;
}

void
sim_bytes_free(SimBytes *b)
{
	/* memory is kept for the next connection in this place */
	b->start = b->end = 0;
}

/* ---- connections ---- */

SimConn *
sim_conn_open(uint32_t server)
{
	for (uint32_t i = 0; i < SIM_CONNS_MAX; i++)
	{
		SimConn    *c = &sim.conns[i];
		SimBytes	keep[3];

		if (c->stage != SIM_CLOSED)
			continue;
		memcpy(keep, (SimBytes[]) {c->pq_in, c->to_client, c->to_server}, sizeof(keep));
		memset(c, 0, offsetof(SimConn, queue));
		c->queue_first = c->queued = 0;
		c->serving = c->held_valid = c->trickles = c->tainted = false;
		c->last_reqid = 0;
		c->pq_in = keep[0];
		c->to_client = keep[1];
		c->to_server = keep[2];
		c->index = i;
		c->serial = ++sim.last_serial;
		c->server = server;
		c->stage = SIM_CONNECTING;
		sim.open_fds++;
		if (i >= sim.conns_high)
			sim.conns_high = i + 1;
		return c;
	}
	sim_fail("descriptors leak: %u are open", sim.open_fds);
}

SimConn *
sim_conn_of(int fd)
{
	uint32_t	i = (uint32_t) (fd - SIM_FD_BASE);

	if (fd < SIM_FD_BASE || i >= SIM_CONNS_MAX || sim.conns[i].stage == SIM_CLOSED)
		return NULL;
	return &sim.conns[i];
}

void
sim_conn_close(SimConn *c)
{
	if (c->in != NULL || c->out != NULL)
		sim_fail("descriptor %u is closed while an operation is started on it", c->index);
	sim_server_conn_closed(c);
	sim_bytes_free(&c->pq_in);
	sim_bytes_free(&c->to_client);
	sim_bytes_free(&c->to_server);
	c->stage = SIM_CLOSED;
	sim.open_fds--;
}

static uint64_t
delay(void)
{
	return sim.delay_us / 2 + sim_below(sim.delay_us);
}

/* Bytes on their way, in pieces, in their order. */
static void
schedule_bytes(SimConn *c, SimEventKind kind, uint64_t *last_us, size_t bytes)
{
	while (bytes > 0)
	{
		size_t		piece = sim_below(8) == 0 ? 1 + sim_below((uint32_t) bytes) : bytes;
		uint64_t	at = sim.now_us + delay();

		if (at < *last_us)
			at = *last_us;
		*last_us = at;
		sim_at(at - sim.now_us, kind, c->index, c->serial, piece);
		bytes -= piece;
	}
}

void
sim_send_to_client(SimConn *c, const void *data, size_t bytes)
{
	if (c->silent || c->closing || c->reset)
		return;
	sim_bytes_append(&c->to_client, data, bytes);
	if (bytes > 1 && sim_fault(SIM_STALL))
	{
		size_t		first = 1 + sim_below((uint32_t) bytes - 1);

		schedule_bytes(c, SIM_EV_TO_CLIENT, &c->to_client_us, first);
		c->to_client_us += sim_below(4000000);
		bytes -= first;
	}
	schedule_bytes(c, SIM_EV_TO_CLIENT, &c->to_client_us, bytes);
}

/* The page server misbehaves: nothing that it sends from now on may be used. */
void
sim_taint(SimConn *c)
{
	if (!c->tainted)
		sim.tainted_conns++;
	c->tainted = true;
}

void
sim_end_of_stream(SimConn *c)
{
	uint64_t	at = sim.now_us + delay();

	if (c->silent || c->closing)
		return;
	c->closing = true;
	if (at < c->to_client_us)
		at = c->to_client_us;
	sim_at(at - sim.now_us, SIM_EV_TO_CLIENT, c->index, c->serial, 0);
}

/* What has not arrived is lost. */
void
sim_reset(SimConn *c)
{
	if (c->silent || c->stage == SIM_CLOSED)
		return;
	c->reset = true;
	c->to_client.end = c->to_client.start + c->arrived;
	if (c->stage != SIM_STREAM)
	{
		c->refused = true;
		c->ready = true;
	}
}

size_t
sim_accept_from_client(SimConn *c, const void *data, size_t bytes)
{
	if (sim_below(6) == 0)
		bytes = 1 + sim_below((uint32_t) bytes);
	sim.bytes_out += bytes;
	if (c->silent)
		return bytes;
	sim_bytes_append(&c->to_server, data, bytes);
	schedule_bytes(c, SIM_EV_TO_SERVER, &c->to_server_us, bytes);
	if (sim_fault(SIM_NO_READ))
	{
		c->window_closed = true;
		sim_at(1000 + sim_below(3000000), SIM_EV_WINDOW, c->index, c->serial, 0);
	}
	return bytes;
}

size_t
sim_give_to_client(SimConn *c, void *buffer, size_t bytes)
{
	size_t		n = c->arrived < bytes ? c->arrived : bytes;

	if (n > 1 && sim_below(8) == 0)
		n = 1 + sim_below((uint32_t) n);
	memcpy(buffer, c->to_client.data + c->to_client.start, n);
	sim_bytes_consume(&c->to_client, n);
	c->arrived -= n;
	return n;
}

void
sim_conn_event(const SimEvent *event)
{
	SimConn    *c = &sim.conns[event->index];

	if (c->stage == SIM_CLOSED || c->serial != event->serial)
		return;
	switch (event->kind)
	{
		case SIM_EV_HANDSHAKE:
			sim_pq_event(c);
			break;
		case SIM_EV_TO_CLIENT:
			if (c->silent || c->reset)
				break;
			c->arrived += event->bytes;
			if (event->bytes == 0)
				c->eof = true;
			break;
		case SIM_EV_TO_SERVER:
			if (c->silent || c->reset)
				break;
			c->at_server += event->bytes;
			sim_server_receive(c);
			break;
		case SIM_EV_SERVE:
			sim_server_serve(c);
			break;
		case SIM_EV_TRICKLE:
			sim_server_trickle(c);
			break;
		default:
			c->window_closed = false;
			break;
	}
}

/* ---- the loop ---- */

static short
poll_ready(const SimConn *c, short events)
{
	bool		in = c->ready;
	bool		out = c->stage != SIM_CONNECTING || c->ready;

	if (c->stage == SIM_STREAM)
	{
		in = c->arrived > 0 || c->eof || c->reset;
		out = !c->window_closed || c->reset;
	}
	return (short) ((in ? events & POLLIN : 0) | (out ? events & POLLOUT : 0));
}

/* Tries an operation; false when it has to wait. */
static bool
attempt(SimConn *c, const NcOp *op, int *result)
{
	if (op->kind == NC_OP_POLL)
	{
		*result = poll_ready(c, op->events);
		return *result != 0;
	}
	if (sim_fault(SIM_IO_AGAIN))
	{
		*result = sim_below(2) == 0 ? -EINTR : -EAGAIN;
		return true;
	}
	if (sim_fault(SIM_IO_ERROR))
	{
		*result = sim_below(2) == 0 ? -ECONNRESET : -ETIMEDOUT;
		c->tainted = true;
		return true;
	}
	if (op->kind == NC_OP_SEND)
	{
		if (c->reset)
			*result = -EPIPE;
		else if (c->window_closed)
			return false;
		else
		{
			*result = (int) sim_accept_from_client(c, op->buffer, op->bytes);
			sim.sends++;
		}
		return true;
	}
	if (c->arrived > 0)
	{
		*result = (int) sim_give_to_client(c, op->buffer, op->bytes);
		sim.bytes_in += (uint64_t) *result;
		sim.receives++;
	}
	else if (c->reset)
		*result = -ECONNRESET;
	else if (c->eof)
		*result = 0;
	else
		return false;
	return true;
}

static void
detach(SimConn *c, NcOp *op)
{
	if (c->in == op)
		c->in = NULL;
	if (c->out == op)
		c->out = NULL;
}

static bool
is_cancelled(const SimLoop *l, const NcOp *op)
{
	for (uint32_t i = 0; i < l->ncancelled; i++)
		if (l->cancelled[i] == op)
			return true;
	return false;
}

static bool
attempt_and_collect(SimLoop *l, SimConn *c, NcOp *op)
{
	int			result;

	if (op == NULL || is_cancelled(l, op) || !attempt(c, op, &result))
		return false;
	detach(c, op);
	nc_loop_collect(&l->base, op, result);
	return true;
}

static void
loop_destroy(NcLoop *loop)
{
	free(loop);
}

static void
loop_adopt(NcLoop *loop, int fd)
{
	if (fd != SIM_EVENT_FD && sim_conn_of(fd) == NULL)
		sim_fail("a descriptor that is not open is adopted");
}

static void
loop_forget(NcLoop *loop, int fd)
{
	SimConn    *c = sim_conn_of(fd);

	if (c != NULL && (c->in != NULL || c->out != NULL))
		sim_fail("descriptor %u is forgotten while an operation is started on it", c->index);
}

static void
loop_start(NcLoop *loop, NcOp *op)
{
	SimLoop    *l = (SimLoop *) loop;
	SimConn    *c = sim_conn_of(op->fd);
	NcOp	  **place;

	sim_poke();
	if (op->fd == SIM_EVENT_FD)
	{
		sim.bell_op = op;
		return;
	}
	if (c == NULL)
	{
		nc_loop_collect(loop, op, -EBADF);
		return;
	}
	place = op->kind == NC_OP_SEND || (op->kind == NC_OP_POLL && (op->events & POLLIN) == 0) ?
		&c->out : &c->in;
	if (*place != NULL)
		sim_fail("two operations of a kind on descriptor %u", c->index);
	*place = op;
	if (sim.eager_send && op->kind == NC_OP_SEND)
		(void) attempt_and_collect(l, c, op);
}

static void
loop_cancel(NcLoop *loop, NcOp *op)
{
	SimLoop    *l = (SimLoop *) loop;
	SimConn    *c = sim_conn_of(op->fd);

	if (is_cancelled(l, op))
		return;
	if (sim.late_cancel)
	{
		l->cancelled[l->ncancelled++] = op;
		return;
	}
	if (sim.bell_op == op)
		sim.bell_op = NULL;
	if (c != NULL)
		detach(c, op);
	nc_loop_collect(loop, op, -ECANCELED);
}

static void
loop_flush(NcLoop *loop)
{
	sim_poke();
}

/* Cancelled operations end, some of them with success. */
static void
end_cancelled(SimLoop *l)
{
	for (uint32_t i = 0; i < l->ncancelled; i++)
	{
		NcOp	   *op = l->cancelled[i];
		SimConn    *c = sim_conn_of(op->fd);
		int			result = -ECANCELED;

		if (sim.bell_op == op)
			sim.bell_op = NULL;
		if (c != NULL)
		{
			if (sim_below(3) == 0 && op->kind == NC_OP_RECV && c->arrived > 0)
				result = (int) sim_give_to_client(c, op->buffer, op->bytes);
			detach(c, op);
		}
		nc_loop_collect(&l->base, op, result);
	}
	l->ncancelled = 0;
}

/* Collects what is complete; completions of some connections may come a turn later. */
static void
collect(SimLoop *l)
{
	uint32_t	n = sim.conns_high;
	uint32_t	first = sim_below(n);
	bool		lazy = sim_below(4) == 0;

	end_cancelled(l);
	if (sim.bell_op != NULL && sim.bell > 0)
	{
		NcOp	   *op = sim.bell_op;

		sim.bell_op = NULL;
		memcpy(op->buffer, &sim.bell, sizeof(sim.bell));
		sim.bell = 0;
		nc_loop_collect(&l->base, op, (int) sizeof(sim.bell));
	}
	for (uint32_t i = 0; i < n; i++)
	{
		SimConn    *c = &sim.conns[(first + i) % n];

		if (c->stage == SIM_CLOSED || (lazy && sim_below(2) == 0))
			continue;
		(void) attempt_and_collect(l, c, c->out);
		(void) attempt_and_collect(l, c, c->in);
	}
}

/* A look that does not wait; time goes on a little with each. */
static bool
loop_ready(const NcLoop *loop)
{
	sim_poke();
	if (sim_below(8) == 0)
		sim.now_us++;
	while (sim_next_event_us() <= sim.now_us)
		sim_run_event();
	if (sim.bell_op != NULL && sim.bell > 0)
		return true;
	for (uint32_t i = 0; i < sim.conns_high; i++)
		if (sim.conns[i].in != NULL && sim.conns[i].arrived > 0)
			return true;
	return false;
}

static void
loop_wait(NcLoop *loop, uint64_t timeout_us)
{
	SimLoop    *l = (SimLoop *) loop;
	uint64_t	until = sim.now_us + timeout_us;

	if (timeout_us > 0)
		sim_check_sleep();
	for (;;)
	{
		uint64_t	next;

		collect(l);
		/* what was left for later is looked at again, unless the turn does not wait */
		if (l->base.collected_head == NULL && timeout_us > 0)
			collect(l);
		next = sim_next_event_us();
		if (l->base.collected_head != NULL || timeout_us == 0 || next > until)
			break;
		sim_run_event();
	}
	if (l->base.collected_head != NULL || timeout_us == 0)
	{
		/* things go on while the communicator works */
		while (sim_next_event_us() <= sim.now_us)
			sim_run_event();
	}
	else
		sim.now_us = until;
}

static const NcLoopVtable sim_vtable = {
	.name = "simulation",
	.destroy = loop_destroy,
	.adopt = loop_adopt,
	.forget = loop_forget,
	.start = loop_start,
	.cancel = loop_cancel,
	.flush = loop_flush,
	.ready = loop_ready,
	.wait = loop_wait
};

NcLoop *
nc_loop_epoll_create(char *err, size_t err_bytes)
{
	SimLoop    *l = calloc(1, sizeof(*l));

	if (l == NULL)
		abort();
	l->base.vtable = &sim_vtable;
	return &l->base;
}

NcLoop *
nc_loop_uring_create(char *err, size_t err_bytes)
{
	snprintf(err, err_bytes, "not in a simulation");
	return NULL;
}

/* ---- system calls that the core makes itself ---- */

void
sim_bell_ring(void)
{
	sim.bell++;
}

extern ssize_t __wrap_write(int fd, const void *data, size_t bytes);
extern ssize_t __wrap_send(int fd, const void *data, size_t bytes, int flags);
extern int	__wrap_shutdown(int fd, int how);
extern int	__wrap_getpid(void);
extern ssize_t __real_write(int fd, const void *data, size_t bytes);

ssize_t
__wrap_write(int fd, const void *data, size_t bytes)
{
	if (fd != SIM_EVENT_FD)
		return __real_write(fd, data, bytes);
	sim_bell_ring();
	return (ssize_t) bytes;
}

ssize_t
__wrap_send(int fd, const void *data, size_t bytes, int flags)
{
	SimConn    *c = sim_conn_of(fd);

	if (c == NULL || c->out != NULL)
		sim_fail("a send on a descriptor that is not open, or where another one is started");
	errno = EAGAIN;
	if (c->reset)
		errno = EPIPE;
	else if (sim_fault(SIM_IO_ERROR))
	{
		c->tainted = true;
		errno = ECONNRESET;
	}
	else if (!c->window_closed && !sim_fault(SIM_IO_AGAIN))
	{
		sim.sends++;
		return (ssize_t) sim_accept_from_client(c, data, bytes);
	}
	return -1;
}

int
__wrap_shutdown(int fd, int how)
{
	SimConn    *c = sim_conn_of(fd);

	if (c == NULL)
		sim_fail("shutdown of a descriptor that is not open");
	c->tainted = true;
	return 0;
}

int
__wrap_getpid(void)
{
	return 4711;
}
