/*
 * nc/io/loop.h
 *	  The loop: operations on descriptors that complete later, over io_uring or
 *	  epoll.
 *
 * Runs in the communicator, one thread.  An operation (NcOp) is memory of its
 * owner; the loop links it and never allocates for it.  Between nc_loop_recv()
 * or its siblings and the call of `complete`, the operation, its buffer and its
 * descriptor belong to the kernel: the owner neither frees, reuses nor closes
 * them.  nc_loop_cancel() shortens that time but does not end it; `complete` is
 * called exactly once for each operation started, cancelled or not.
 *
 * Events are collected first (nc_loop_wait) and acted on afterwards
 * (nc_loop_run): no callback runs while completions are being collected.
 *
 * loop.c holds what both methods share, loop_uring.c and loop_epoll.c the
 * methods.
 */
#ifndef NC_IO_LOOP_H
#define NC_IO_LOOP_H

#include "nc/base/check.h"

typedef enum NcLoopMethod
{
	NC_LOOP_AUTO = 0,			/* io_uring where it works, else epoll */
	NC_LOOP_URING,
	NC_LOOP_EPOLL
} NcLoopMethod;

typedef enum NcOpKind
{
	NC_OP_POLL = 0,				/* result: the events that are ready */
	NC_OP_RECV,					/* result: bytes, 0 = end of stream */
	NC_OP_READ,					/* the same of a descriptor that is no socket: an eventfd */
	NC_OP_SEND					/* result: bytes, may be fewer than asked */
} NcOpKind;

typedef enum NcOpState
{
	NC_OP_IDLE = 0,				/* the owner's; may be started */
	NC_OP_STARTED,				/* the kernel's */
	NC_OP_COLLECTED				/* done, `complete` not called yet */
} NcOpState;

typedef struct NcOp
{
	/* Set by the owner before the first start and kept. Called with the state IDLE again. */
	void		(*complete) (struct NcOp *op);
	void	   *owner;

	/* Set by the call that starts it. */
	NcOpKind	kind;
	int			fd;
	short		events;			/* POLL: POLLIN, POLLOUT */
	void	   *buffer;
	size_t		bytes;

	/* Set by the loop. */
	NcOpState	state;
	int			result;			/* as told at the kind, or a negative errno */
	struct NcOp *next;			/* in the list of collected operations */
} NcOp;

typedef struct NcLoop NcLoop;

/* Operations that one loop can have started at a time; io_uring's queues are sized by it. */
#define NC_LOOP_OPS_MAX 2048

/*
 * Makes a loop after probing that the method works here.  NULL and a reason on
 * failure.  AUTO that comes to epoll says why in err, too; else err is then empty.
 */
NC_MUST_USE extern NcLoop *nc_loop_create(NcLoopMethod method, char *err, size_t err_bytes);

/*
 * Frees the loop.  Buffers of operations still started may be written by the
 * kernel for a moment longer: wait until nc_loop_started() is 0 before.
 */
extern void nc_loop_destroy(NcLoop *loop);

/* "io_uring" or "epoll". */
extern const char *nc_loop_name(const NcLoop *loop);

/*
 * A descriptor is about to be used with recv, read and send, or with poll alone, from
 * now on: sets its blocking mode as the method needs it.  Each method needs the
 * other one: io_uring answers EAGAIN at once for a non-blocking one.
 */
extern void nc_loop_adopt(NcLoop *loop, int fd);

/*
 * Call before a descriptor is closed, or handed to a library that may close it
 * and open another with the same number.  No operation may be started on it.
 */
extern void nc_loop_forget(NcLoop *loop, int fd);

/* Start an operation; at most one that reads and one that writes for a descriptor. */
extern void nc_loop_poll(NcLoop *loop, NcOp *op, int fd, short events);
extern void nc_loop_recv(NcLoop *loop, NcOp *op, int fd, void *buffer, size_t bytes);
extern void nc_loop_read(NcLoop *loop, NcOp *op, int fd, void *buffer, size_t bytes);
extern void nc_loop_send(NcLoop *loop, NcOp *op, int fd, const void *buffer, size_t bytes);

/* Asks for an early end; `complete` still comes, with -ECANCELED or a result. */
extern void nc_loop_cancel(NcLoop *loop, NcOp *op);

/* Hands what was started to the kernel without waiting or collecting. */
extern void nc_loop_flush(NcLoop *loop);

/*
 * Would nc_loop_wait() find something without waiting?  Cheap enough to be asked again and
 * again: two reads of memory with io_uring, one short system call with epoll.
 */
extern bool nc_loop_ready(const NcLoop *loop);

/*
 * With epoll a descriptor that is readable while nc_loop_wait() would find something in the
 * kernel, for who waits for more than this loop; what was started is flushed before, and
 * nc_loop_ready() asked.  -1 with io_uring.
 */
extern int	nc_loop_fd(const NcLoop *loop);

/*
 * Hands what was started to the kernel, waits until something completes, at
 * most timeout_us (0 = do not wait), and collects.  A signal ends the wait.
 */
extern void nc_loop_wait(NcLoop *loop, uint64_t timeout_us);

/* Calls `complete` of all that was collected; returns how many there were. */
extern uint32_t nc_loop_run(NcLoop *loop);

/* Operations started or collected, not yet run. */
extern uint32_t nc_loop_started(const NcLoop *loop);

#endif							/* NC_IO_LOOP_H */
