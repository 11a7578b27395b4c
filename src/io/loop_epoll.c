/*
 * loop_epoll.c
 *	  The loop over epoll: the twin of loop_uring.c for kernels and containers
 *	  in which io_uring is not allowed.
 *
 * A receive waits until epoll tells that there is something, then calls recv; a
 * send is tried at once.  The registration of a descriptor is brought up to date
 * lazily, before a wait and only for descriptors whose operations changed: a
 * connection that receives again and again costs no epoll_ctl.
 */
#include "loop_int.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* Events taken from the kernel at once; what is left comes with the next wait. */
#define EPOLL_BATCH 128

/* The table of descriptors starts with this many and doubles. */
#define EPOLL_FDS_INITIAL 1024

/* What the loop knows of one descriptor. */
typedef struct EpollFd
{
	NcOp	   *in;				/* RECV, or POLL for input */
	NcOp	   *out;			/* SEND, or POLL for output */
	uint32_t	registered;		/* events that the kernel knows */
	bool		known;			/* added to the epoll set */
	bool		dirty;			/* in the list of descriptors to bring up to date */
} EpollFd;

typedef struct EpollLoop
{
	NcLoop		base;
	int			epoll_fd;
	EpollFd    *fds;			/* [nfds], by descriptor number */
	int		   *dirty;			/* [nfds], ndirty used */
	int			nfds;
	int			ndirty;
	bool		milliseconds;	/* the kernel cannot wait for less */
} EpollLoop;

static void
epoll_destroy(NcLoop *loop)
{
	EpollLoop  *e = (EpollLoop *) loop;

	close(e->epoll_fd);
	free(e->fds);
	free(e->dirty);
	free(e);
}

static void
epoll_adopt(NcLoop *loop, int fd)
{
	int			flags = fcntl(fd, F_GETFL);

	if (flags >= 0)
		(void) fcntl(fd, F_SETFL, flags | O_NONBLOCK);
}

/* Makes room for a descriptor number. Happens when connections are opened only. */
static bool
epoll_grow(EpollLoop *e, int fd)
{
	int			nfds = e->nfds;
	EpollFd    *fds;
	int		   *dirty;

	if (fd < 0)
		return false;
	if (fd < e->nfds)
		return true;
	while (nfds <= fd)
		nfds *= 2;
	fds = realloc(e->fds, (size_t) nfds * sizeof(*fds));
	if (fds == NULL)
		return false;
	e->fds = fds;
	dirty = realloc(e->dirty, (size_t) nfds * sizeof(*dirty));
	if (dirty == NULL)
		return false;
	e->dirty = dirty;
	memset(fds + e->nfds, 0, (size_t) (nfds - e->nfds) * sizeof(*fds));
	e->nfds = nfds;
	return true;
}

static void
epoll_mark(EpollLoop *e, int fd)
{
	if (!e->fds[fd].dirty)
	{
		e->fds[fd].dirty = true;
		e->dirty[e->ndirty++] = fd;
	}
}

static void
epoll_forget(NcLoop *loop, int fd)
{
	EpollLoop  *e = (EpollLoop *) loop;
	struct epoll_event unused = {0};

	if (fd < 0 || fd >= e->nfds || !e->fds[fd].known)
		return;
	NC_ASSERT(e->fds[fd].in == NULL && e->fds[fd].out == NULL);
	(void) epoll_ctl(e->epoll_fd, EPOLL_CTL_DEL, fd, &unused);
	e->fds[fd].known = false;
	e->fds[fd].registered = 0;
}

/* Tries the operation once; false when it has to wait. */
static bool
epoll_attempt(EpollLoop *e, NcOp *op)
{
	ssize_t		n;

	if (op->kind == NC_OP_RECV)
		n = recv(op->fd, op->buffer, op->bytes, MSG_DONTWAIT);
	else if (op->kind == NC_OP_READ)
		n = read(op->fd, op->buffer, op->bytes);
	else
		n = send(op->fd, op->buffer, op->bytes, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
		return false;
	nc_loop_collect(&e->base, op, n < 0 ? -errno : (int) n);
	return true;
}

static void
epoll_start(NcLoop *loop, NcOp *op)
{
	EpollLoop  *e = (EpollLoop *) loop;
	EpollFd    *f;

	if (op->kind == NC_OP_SEND && epoll_attempt(e, op))
		return;
	if (!epoll_grow(e, op->fd))
	{
		nc_loop_collect(loop, op, op->fd < 0 ? -EBADF : -ENOMEM);
		return;
	}
	f = &e->fds[op->fd];
	if (op->kind == NC_OP_SEND || (op->kind == NC_OP_POLL && (op->events & POLLIN) == 0))
	{
		NC_ASSERT(f->out == NULL);
		f->out = op;
	}
	else
	{
		NC_ASSERT(f->in == NULL);
		f->in = op;
	}
	epoll_mark(e, op->fd);
}

static void
epoll_detach(EpollLoop *e, NcOp *op)
{
	EpollFd    *f = &e->fds[op->fd];

	if (f->in == op)
		f->in = NULL;
	if (f->out == op)
		f->out = NULL;
	epoll_mark(e, op->fd);
}

static void
epoll_cancel(NcLoop *loop, NcOp *op)
{
	EpollLoop  *e = (EpollLoop *) loop;

	epoll_detach(e, op);
	nc_loop_collect(loop, op, -ECANCELED);
}

static uint32_t
epoll_wanted(const EpollFd *f)
{
	uint32_t	events = 0;

	if (f->in != NULL)
		events |= EPOLLIN;
	if (f->in != NULL && f->in->kind == NC_OP_POLL && (f->in->events & POLLOUT) != 0)
		events |= EPOLLOUT;
	if (f->out != NULL)
		events |= EPOLLOUT;
	return events;
}

/* A descriptor that the kernel refuses: its operations end with the reason. */
static void
epoll_refuse(EpollLoop *e, EpollFd *f, int error)
{
	NcOp	   *in = f->in;
	NcOp	   *out = f->out;

	f->in = NULL;
	f->out = NULL;
	if (in != NULL)
		nc_loop_collect(&e->base, in, -error);
	if (out != NULL)
		nc_loop_collect(&e->base, out, -error);
}

/* Tells the kernel about one descriptor, when what it knows is no longer right. */
static void
epoll_update(EpollLoop *e, int fd)
{
	EpollFd    *f = &e->fds[fd];
	struct epoll_event event = {.events = epoll_wanted(f), .data.fd = fd};
	int			rc;

	f->dirty = false;
	if (f->known ? event.events == f->registered : event.events == 0)
		return;
	if (event.events == 0)
	{
		/* not "no events": the kernel would still tell about a hang-up, for ever */
		epoll_forget(&e->base, fd);
		return;
	}
	rc = epoll_ctl(e->epoll_fd, f->known ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &event);
	/* somebody closed the number and opened it again, or we were told too late */
	if (rc < 0 && errno == ENOENT)
		rc = epoll_ctl(e->epoll_fd, EPOLL_CTL_ADD, fd, &event);
	else if (rc < 0 && errno == EEXIST)
		rc = epoll_ctl(e->epoll_fd, EPOLL_CTL_MOD, fd, &event);
	if (rc < 0)
	{
		int			error = errno;

		f->known = false;
		f->registered = 0;
		epoll_refuse(e, f, error);
		return;
	}
	f->known = true;
	f->registered = event.events;
}

static void
epoll_ready(EpollLoop *e, NcOp *op, uint32_t events)
{
	if (op->kind == NC_OP_POLL)
	{
		short		ready = 0;

		if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0)
			ready |= op->events & POLLIN;
		if ((events & (EPOLLOUT | EPOLLHUP | EPOLLERR)) != 0)
			ready |= op->events & POLLOUT;
		if (ready == 0)
			return;
		epoll_detach(e, op);
		nc_loop_collect(&e->base, op, ready);
	}
	else if (epoll_attempt(e, op))
		epoll_detach(e, op);
}

static void
epoll_dispatch(EpollLoop *e, const struct epoll_event *event)
{
	EpollFd    *f = &e->fds[event->data.fd];
	NcOp	   *in = f->in;
	NcOp	   *out = f->out;

	/* Nobody waits for this: the registration is behind and gets corrected. */
	if (in == NULL && out == NULL)
		epoll_mark(e, event->data.fd);
	if (in != NULL)
		epoll_ready(e, in, event->events);
	if (out != NULL && (event->events & (EPOLLOUT | EPOLLHUP | EPOLLERR)) != 0)
		epoll_ready(e, out, event->events);
}

static void
epoll_flush(NcLoop *loop)
{
	EpollLoop  *e = (EpollLoop *) loop;

	/* a send was tried when it was started; what is left is to be told of */
	while (e->ndirty > 0)
		epoll_update(e, e->dirty[--e->ndirty]);
}

static bool
epoll_loop_ready(const NcLoop *loop)
{
	const EpollLoop *e = (const EpollLoop *) loop;
	struct epoll_event event;

	return epoll_wait(e->epoll_fd, &event, 1, 0) > 0;
}

static int
epoll_loop_fd(const NcLoop *loop)
{
	return ((const EpollLoop *) loop)->epoll_fd;
}

/* Kernels before 5.11 count in milliseconds, as does a system call filter that is older. */
static int
epoll_sleep(EpollLoop *e, struct epoll_event *events, uint64_t timeout_us)
{
	struct timespec ts;

	if (timeout_us > UINT64_C(1000000000))
		timeout_us = UINT64_C(1000000000);
	ts.tv_sec = (time_t) (timeout_us / 1000000);
	ts.tv_nsec = (long) (timeout_us % 1000000) * 1000;
	if (!e->milliseconds && timeout_us % 1000 != 0)
	{
		int			n = epoll_pwait2(e->epoll_fd, events, EPOLL_BATCH, &ts, NULL);

		if (n >= 0 || (errno != ENOSYS && errno != EPERM))
			return n;
		e->milliseconds = true;
	}
	/* rounded up: to wake before a deadline would mean to wake twice */
	return epoll_wait(e->epoll_fd, events, EPOLL_BATCH, (int) ((timeout_us + 999) / 1000));
}

static void
epoll_loop_wait(NcLoop *loop, uint64_t timeout_us)
{
	EpollLoop  *e = (EpollLoop *) loop;
	struct epoll_event events[EPOLL_BATCH];
	int			n;

	epoll_flush(loop);
	if (e->base.collected_head != NULL)
		timeout_us = 0;
	n = epoll_sleep(e, events, timeout_us);
	for (int i = 0; i < n; i++)
		epoll_dispatch(e, &events[i]);
}

static const NcLoopVtable epoll_vtable = {
	.name = "epoll",
	.destroy = epoll_destroy,
	.adopt = epoll_adopt,
	.forget = epoll_forget,
	.start = epoll_start,
	.cancel = epoll_cancel,
	.flush = epoll_flush,
	.ready = epoll_loop_ready,
	.fd = epoll_loop_fd,
	.wait = epoll_loop_wait
};

NcLoop *
nc_loop_epoll_create(char *err, size_t err_bytes)
{
	EpollLoop  *e = calloc(1, sizeof(*e));

	if (e != NULL)
	{
		e->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
		e->nfds = EPOLL_FDS_INITIAL;
		e->fds = calloc(EPOLL_FDS_INITIAL, sizeof(*e->fds));
		e->dirty = calloc(EPOLL_FDS_INITIAL, sizeof(*e->dirty));
	}
	if (e == NULL || e->epoll_fd < 0 || e->fds == NULL || e->dirty == NULL)
	{
		snprintf(err, err_bytes, "epoll cannot be set up: %s", strerror(errno));
		if (e != NULL)
		{
			if (e->epoll_fd >= 0)
				close(e->epoll_fd);
			free(e->fds);
			free(e->dirty);
			free(e);
		}
		return NULL;
	}
	e->base.vtable = &epoll_vtable;
	return &e->base;
}
