/*
 * loop.c
 *	  The half of the loop that does not depend on the method: starting,
 *	  collecting and running operations.
 *
 * Siblings: loop_uring.c and loop_epoll.c, each a table of functions.
 */
#include "loop_int.h"

#include <stdio.h>

/* Without io_uring; err keeps why, but for what epoll has to say. */
static NcLoop *
auto_epoll(char *err, size_t err_bytes)
{
	char		why[256] = "";
	NcLoop	   *loop = nc_loop_epoll_create(why, sizeof(why));

	if (loop == NULL)
		snprintf(err, err_bytes, "%s", why);
	return loop;
}

NcLoop *
nc_loop_create(NcLoopMethod method, char *err, size_t err_bytes)
{
	NcLoop	   *loop;

	err[0] = '\0';
	switch (method)
	{
		case NC_LOOP_AUTO:
			loop = nc_loop_uring_create(err, err_bytes);
			return loop != NULL ? loop : auto_epoll(err, err_bytes);
		case NC_LOOP_URING:
			return nc_loop_uring_create(err, err_bytes);
		case NC_LOOP_EPOLL:
			return nc_loop_epoll_create(err, err_bytes);
	}
	return NULL;
}

void
nc_loop_destroy(NcLoop *loop)
{
	loop->vtable->destroy(loop);
}

const char *
nc_loop_name(const NcLoop *loop)
{
	return loop->vtable->name;
}

void
nc_loop_adopt(NcLoop *loop, int fd)
{
	loop->vtable->adopt(loop, fd);
}

void
nc_loop_forget(NcLoop *loop, int fd)
{
	loop->vtable->forget(loop, fd);
}

static void
start_op(NcLoop *loop, NcOp *op, NcOpKind kind, int fd)
{
	NC_ASSERT(op->state == NC_OP_IDLE);
	NC_ASSERT(op->complete != NULL);
	op->kind = kind;
	op->fd = fd;
	op->state = NC_OP_STARTED;
	loop->started++;
	loop->vtable->start(loop, op);
}

void
nc_loop_poll(NcLoop *loop, NcOp *op, int fd, short events)
{
	op->events = events;
	start_op(loop, op, NC_OP_POLL, fd);
}

void
nc_loop_recv(NcLoop *loop, NcOp *op, int fd, void *buffer, size_t bytes)
{
	NC_ASSERT(bytes > 0);
	op->buffer = buffer;
	op->bytes = bytes;
	start_op(loop, op, NC_OP_RECV, fd);
}

void
nc_loop_read(NcLoop *loop, NcOp *op, int fd, void *buffer, size_t bytes)
{
	NC_ASSERT(bytes > 0);
	op->buffer = buffer;
	op->bytes = bytes;
	start_op(loop, op, NC_OP_READ, fd);
}

void
nc_loop_send(NcLoop *loop, NcOp *op, int fd, const void *buffer, size_t bytes)
{
	NC_ASSERT(bytes > 0);
	/* a sent buffer is only read; NcOp has one pointer for both directions */
	op->buffer = (void *) (uintptr_t) buffer;
	op->bytes = bytes;
	start_op(loop, op, NC_OP_SEND, fd);
}

void
nc_loop_cancel(NcLoop *loop, NcOp *op)
{
	if (op->state == NC_OP_STARTED)
		loop->vtable->cancel(loop, op);
}

void
nc_loop_flush(NcLoop *loop)
{
	loop->vtable->flush(loop);
}

bool
nc_loop_ready(const NcLoop *loop)
{
	return loop->collected_head != NULL || loop->vtable->ready(loop);
}

int
nc_loop_fd(const NcLoop *loop)
{
	return loop->vtable->fd != NULL ? loop->vtable->fd(loop) : -1;
}

void
nc_loop_wait(NcLoop *loop, uint64_t timeout_us)
{
	/* an operation may have completed while it was being started */
	loop->vtable->wait(loop, loop->collected_head != NULL ? 0 : timeout_us);
}

void
nc_loop_collect(NcLoop *loop, NcOp *op, int result)
{
	NC_ASSERT(op->state == NC_OP_STARTED);
	op->state = NC_OP_COLLECTED;
	op->result = result;
	op->next = NULL;
	if (loop->collected_tail != NULL)
		loop->collected_tail->next = op;
	else
		loop->collected_head = op;
	loop->collected_tail = op;
}

uint32_t
nc_loop_run(NcLoop *loop)
{
	NcOp	   *op = loop->collected_head;
	uint32_t	count = 0;

	/* What completes while callbacks start operations belongs to the next run. */
	loop->collected_head = NULL;
	loop->collected_tail = NULL;
	while (op != NULL)
	{
		NcOp	   *next = op->next;

		op->next = NULL;
		op->state = NC_OP_IDLE;
		loop->started--;
		count++;
		op->complete(op);
		op = next;
	}
	return count;
}

uint32_t
nc_loop_started(const NcLoop *loop)
{
	return loop->started;
}
