/*
 * loop_uring.c
 *	  The loop over io_uring.
 *
 * Each operation is one submission whose user data is the NcOp.  Cancellations
 * carry no user data and their completions are skipped.  Nothing here blocks
 * except the wait itself.
 */
#include "loop_int.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* Submissions that fit before one more system call is made; completions get NC_LOOP_OPS_MAX. */
#define URING_ENTRIES 256

typedef struct UringLoop
{
	NcLoop		base;
	struct io_uring ring;
} UringLoop;

static void
uring_destroy(NcLoop *loop)
{
	UringLoop  *u = (UringLoop *) loop;

	io_uring_queue_exit(&u->ring);
	free(u);
}

static void
uring_adopt(NcLoop *loop, int fd)
{
	int			flags = fcntl(fd, F_GETFL);

	/* With O_NONBLOCK the kernel answers EAGAIN instead of arming a poll of its own. */
	if (flags >= 0)
		(void) fcntl(fd, F_SETFL, flags & ~O_NONBLOCK);
}

static void
uring_forget(NcLoop *loop, int fd)
{
	/* an operation that is not started leaves no trace in the ring */
}

/* A free submission entry; NULL only when the kernel does not take any. */
static struct io_uring_sqe *
uring_entry(UringLoop *u)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&u->ring);

	if (sqe == NULL)
	{
		(void) io_uring_submit(&u->ring);
		sqe = io_uring_get_sqe(&u->ring);
	}
	return sqe;
}

static void
uring_start(NcLoop *loop, NcOp *op)
{
	UringLoop  *u = (UringLoop *) loop;
	struct io_uring_sqe *sqe = uring_entry(u);

	if (sqe == NULL)
	{
		nc_loop_collect(loop, op, -EBUSY);
		return;
	}
	switch (op->kind)
	{
		case NC_OP_POLL:
			io_uring_prep_poll_add(sqe, op->fd, (unsigned) op->events);
			break;
		case NC_OP_RECV:
			io_uring_prep_recv(sqe, op->fd, op->buffer, op->bytes, 0);
			break;
		case NC_OP_READ:
			io_uring_prep_read(sqe, op->fd, op->buffer, (unsigned) op->bytes, 0);
			break;
		case NC_OP_SEND:
			io_uring_prep_send(sqe, op->fd, op->buffer, op->bytes, MSG_NOSIGNAL);
			break;
	}
	io_uring_sqe_set_data(sqe, op);
}

static void
uring_cancel(NcLoop *loop, NcOp *op)
{
	UringLoop  *u = (UringLoop *) loop;
	struct io_uring_sqe *sqe = uring_entry(u);

	/* Without an entry the operation ends when its socket is shut down, only later. */
	if (sqe == NULL)
		return;
	io_uring_prep_cancel(sqe, op, 0);
	io_uring_sqe_set_data(sqe, NULL);
}

static void
uring_flush(NcLoop *loop)
{
	(void) io_uring_submit(&((UringLoop *) loop)->ring);
}

static bool
uring_ready(const NcLoop *loop)
{
	const UringLoop *u = (const UringLoop *) loop;

	/* completed, or waiting for us to enter the kernel and complete it */
	return io_uring_cq_ready(&u->ring) > 0 ||
		(IO_URING_READ_ONCE(*u->ring.sq.kflags) & IORING_SQ_TASKRUN) != 0;
}

static void
uring_wait(NcLoop *loop, uint64_t timeout_us)
{
	UringLoop  *u = (UringLoop *) loop;
	struct __kernel_timespec ts = {
		.tv_sec = (long long) (timeout_us / 1000000),
		.tv_nsec = (long long) (timeout_us % 1000000) * 1000
	};
	struct io_uring_cqe *cqe;
	unsigned	head;
	unsigned	count = 0;

	/* Errors (a signal, the time is over) mean the same: look at what is there. */
	if (timeout_us > 0)
		(void) io_uring_submit_and_wait_timeout(&u->ring, &cqe, 1, &ts, NULL);
	else
		(void) io_uring_submit_and_get_events(&u->ring);

	io_uring_for_each_cqe(&u->ring, head, cqe)
	{
		NcOp	   *op = io_uring_cqe_get_data(cqe);

		if (op != NULL)
			nc_loop_collect(loop, op, cqe->res);
		count++;
	}
	io_uring_cq_advance(&u->ring, count);
}

static const NcLoopVtable uring_vtable = {
	.name = "io_uring",
	.destroy = uring_destroy,
	.adopt = uring_adopt,
	.forget = uring_forget,
	.start = uring_start,
	.cancel = uring_cancel,
	.flush = uring_flush,
	.ready = uring_ready,
	.wait = uring_wait
};

/* The operations used here, asked of the running kernel. */
static bool
uring_supported(struct io_uring *ring)
{
	static const int needed[] = {
		IORING_OP_POLL_ADD, IORING_OP_RECV, IORING_OP_READ, IORING_OP_SEND,
		IORING_OP_ASYNC_CANCEL
	};
	struct io_uring_probe *probe = io_uring_get_probe_ring(ring);
	bool		ok = probe != NULL;

	for (size_t i = 0; ok && i < sizeof(needed) / sizeof(needed[0]); i++)
		ok = io_uring_opcode_supported(probe, needed[i]) != 0;
	if (probe != NULL)
		io_uring_free_probe(probe);
	return ok;
}

NcLoop *
nc_loop_uring_create(char *err, size_t err_bytes)
{
	/* Fewer interruptions of the running thread where the kernel (5.19) can. */
	static const unsigned flags[] = {
		IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG, 0
	};
	UringLoop  *u = calloc(1, sizeof(*u));
	int			rc = -ENOMEM;

	for (size_t i = 0; u != NULL && i < sizeof(flags) / sizeof(flags[0]); i++)
	{
		struct io_uring_params params = {
			.flags = flags[i] | IORING_SETUP_CQSIZE,
			.cq_entries = NC_LOOP_OPS_MAX
		};

		rc = io_uring_queue_init_params(URING_ENTRIES, &u->ring, &params);
		if (rc != -EINVAL)
			break;
	}
	if (rc < 0)
	{
		snprintf(err, err_bytes, "io_uring cannot be set up: %s", strerror(-rc));
		free(u);
		return NULL;
	}
	if ((u->ring.features & IORING_FEAT_EXT_ARG) == 0 ||
		(u->ring.features & IORING_FEAT_NODROP) == 0 || !uring_supported(&u->ring))
	{
		snprintf(err, err_bytes, "this kernel's io_uring lacks an operation that is needed");
		uring_destroy(&u->base);
		return NULL;
	}
	/* A child of this process must not keep the ring, and with it our sockets, open. */
	(void) fcntl(u->ring.ring_fd, F_SETFD, FD_CLOEXEC);
	(void) io_uring_ring_dontfork(&u->ring);
	u->base.vtable = &uring_vtable;
	return &u->base;
}
