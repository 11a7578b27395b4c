/*
 * relay.c
 *	  Links, connections, and queues of bytes that leave when they are due.
 */
#include "proxy.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

/* A throttled direction sends this often. */
#define THROTTLE_TICK_US 5000

/* It also reads no further ahead than this. */
#define THROTTLED_QUEUE_BYTES (256 * 1024)

Link		links[LINKS_MAX];
int			nlinks = 0;
static Conn conns[CONNS_MAX];
static int	nconns = 0;			/* used ones are below */
static bool reap_needed = false;

/* ---- links ---- */

Link *
link_find(const char *name)
{
	for (int i = 0; i < nlinks; i++)
		if (strcmp(links[i].name, name) == 0)
			return &links[i];
	return NULL;
}

static void
address(struct sockaddr_in *sa, const char *host, uint16_t port)
{
	memset(sa, 0, sizeof(*sa));
	sa->sin_family = AF_INET;
	sa->sin_port = htons(port);
	if (inet_pton(AF_INET, host, &sa->sin_addr) != 1)
		sa->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
}

const char *
link_up(Link *link)
{
	struct sockaddr_in sa;
	socklen_t	bytes = sizeof(sa);
	int			one = 1;
	int			fd;

	if (link->listen_fd >= 0)
		return NULL;
	fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return "no socket";
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	address(&sa, link->listen_host, link->listen_port);
	if (bind(fd, (struct sockaddr *) &sa, sizeof(sa)) != 0 || listen(fd, 512) != 0 ||
		getsockname(fd, (struct sockaddr *) &sa, &bytes) != 0)
	{
		close(fd);
		return "cannot listen on that port";
	}
	link->listen_fd = fd;
	link->listen_port = ntohs(sa.sin_port);
	event_add(fd, EPOLLIN, link);
	return NULL;
}

void
link_down(Link *link)
{
	if (link->listen_fd >= 0)
		close(link->listen_fd);
	link->listen_fd = -1;
}

const char *
link_add(const char *name, const char *listen_host, uint16_t listen_port, const char *host,
		 uint16_t port)
{
	Link	   *link = &links[nlinks];
	const char *err;

	if (nlinks == LINKS_MAX)
		return "too many links";
	if (link_find(name) != NULL)
		return "there is a link of that name";
	memset(link, 0, sizeof(*link));
	snprintf(link->name, sizeof(link->name), "%s", name);
	snprintf(link->host, sizeof(link->host), "%s", host);
	link->port = port;
	snprintf(link->listen_host, sizeof(link->listen_host), "%s", listen_host);
	link->listen_port = listen_port;
	link->listen_fd = -1;
	err = link_up(link);
	if (err == NULL)
		nlinks++;
	return err;
}

/* ---- connections ---- */

static void
set_options(int fd)
{
	int			one = 1;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

static void
call_server(Conn *c)
{
	struct sockaddr_in sa;
	int			fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	c->held_back = false;
	if (fd < 0)
	{
		conn_close(c, true);
		return;
	}
	set_options(fd);
	address(&sa, c->link->host, c->link->port);
	if (connect(fd, (struct sockaddr *) &sa, sizeof(sa)) != 0 && errno != EINPROGRESS)
	{
		close(fd);
		conn_close(c, true);
		return;
	}
	c->fd[TO_SERVER] = fd;
	c->connecting = true;
	c->interest[TO_SERVER] = EPOLLOUT;
	event_add(fd, EPOLLOUT, (void *) ((uintptr_t) c | TO_SERVER));
}

static Conn *
conn_new(Link *link, int fd)
{
	Conn	   *c = NULL;

	for (int i = 0; i < CONNS_MAX && c == NULL; i++)
	{
		if (conns[i].used)
			continue;
		c = &conns[i];
		if (i >= nconns)
			nconns = i + 1;
	}
	if (c == NULL)
		return NULL;
	memset(c, 0, sizeof(*c));
	c->link = link;
	c->used = true;
	c->fd[TO_CLIENT] = fd;
	c->fd[TO_SERVER] = -1;
	for (int d = 0; d < 2; d++)
	{
		Flow	   *f = &c->flow[d];

		f->conn = c;
		f->direction = (Direction) d;
		f->phase = d == TO_SERVER ? PHASE_STARTUP : PHASE_TYPED;
		f->input = malloc(INPUT_BYTES);
		if (f->input == NULL)
			abort();
	}
	c->number = (uint32_t) ++link->accepted;
	if (++link->open > link->open_most)
		link->open_most = link->open;
	return c;
}

static void
reset_on_close(int fd)
{
	struct linger l = {.l_onoff = 1, .l_linger = 0};

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof(l));
}

void
link_accept(Link *link)
{
	int			fd;

	while (link->listen_fd >= 0 &&
		   (fd = accept4(link->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0)
	{
		Conn	   *c = conn_new(link, fd);

		if (c == NULL)
		{
			reset_on_close(fd);
			close(fd);
			continue;
		}
		set_options(fd);
		event_add(fd, 0, (void *) ((uintptr_t) c | TO_CLIENT));
		if (rules_on_connect(c) && !c->held_back)
			call_server(c);
	}
}

static void
close_socket(Conn *c, Direction d, bool reset)
{
	if (c->fd[d] < 0)
		return;
	if (reset)
		reset_on_close(c->fd[d]);
	close(c->fd[d]);
	c->fd[d] = -1;
}

void
conn_close(Conn *c, bool reset)
{
	close_socket(c, TO_SERVER, reset);
	close_socket(c, TO_CLIENT, reset);
	reap_needed = true;
}

/* Connections whose sockets are both closed give their memory back. */
void
relay_reap(void)
{
	if (!reap_needed)
		return;
	reap_needed = false;
	for (int i = 0; i < nconns; i++)
	{
		Conn	   *c = &conns[i];

		if (!c->used || c->fd[0] >= 0 || c->fd[1] >= 0)
			continue;
		for (int d = 0; d < 2; d++)
		{
			Flow	   *f = &c->flow[d];

			while (f->head != NULL)
			{
				Segment    *s = f->head;

				f->head = s->next;
				free(s);
			}
			free(f->input);
			free(f->held);
		}
		c->link->open--;
		c->used = false;
	}
	while (nconns > 0 && !conns[nconns - 1].used)
		nconns--;
}

void
link_cut(Link *link, bool reset)
{
	for (int i = 0; i < nconns; i++)
		if (conns[i].used && (link == NULL || conns[i].link == link))
			conn_close(&conns[i], reset);
}

/* ---- queues ---- */

static Segment *
new_segment(Flow *f, size_t bytes, uint64_t due_us)
{
	size_t		capacity = bytes > SEGMENT_BYTES ? bytes : SEGMENT_BYTES;
	Segment    *s = malloc(sizeof(*s) + capacity);

	if (s == NULL)
		abort();
	s->next = NULL;
	s->due_us = due_us;
	s->start = s->end = 0;
	s->capacity = capacity;
	if (f->tail != NULL)
		f->tail->next = s;
	else
		f->head = s;
	f->tail = s;
	return s;
}

/* extra_us: NEVER_US until it is released, and so what comes behind it */
void
flow_put(Flow *f, const void *data, size_t bytes, uint64_t extra_us)
{
	uint64_t	delay_us = f->conn->link->delay_us[f->direction] + extra_us;
	uint64_t	due_us = extra_us == NEVER_US ? NEVER_US : delay_us > 0 ? now_us() + delay_us : 0;
	Segment    *s = f->tail;

	/* an empty segment would never leave, and what is behind it neither */
	if (bytes == 0)
		return;
	if (due_us < f->last_due_us)
		due_us = f->last_due_us;
	f->last_due_us = due_us;
	if (s == NULL || s->due_us != due_us || s->capacity - s->end < bytes)
		s = new_segment(f, bytes, due_us);
	memcpy(s->data + s->end, data, bytes);
	s->end += bytes;
	f->queued += bytes;
}

static void
flow_release(Flow *f)
{
	for (Segment *s = f->head; s != NULL; s = s->next)
		if (s->due_us == NEVER_US)
			s->due_us = 0;
	if (f->last_due_us == NEVER_US)
		f->last_due_us = 0;
}

/* What rules hold back leaves. */
void
link_release(Link *link)
{
	for (int i = 0; i < nconns; i++)
		for (int d = 0; d < 2 && conns[i].used && conns[i].link == link; d++)
			flow_release(&conns[i].flow[d]);
}

/* How many bytes may leave now. */
static size_t
allowance(Flow *f, uint64_t now, size_t wanted)
{
	size_t		n;

	if (f->rate == 0)
		return wanted;
	if (now < f->rate_next_us)
		return 0;
	n = (size_t) (f->rate * THROTTLE_TICK_US / 1000000);
	f->rate_next_us = now + THROTTLE_TICK_US;
	if (n == 0)
	{
		n = 1;
		f->rate_next_us = now + 1000000 / f->rate;
	}
	return n < wanted ? n : wanted;
}

/* Sends what is due; returns when there is something to do again. */
static uint64_t
flow_send(Flow *f, uint64_t now)
{
	Conn	   *c = f->conn;
	int			fd = c->fd[f->direction];

	if (fd < 0 || c->connecting || f->blocked)
		return NEVER_US;
	while (f->head != NULL)
	{
		Segment    *s = f->head;
		size_t		n;
		ssize_t		sent;

		if (s->due_us > now)
			return s->due_us;
		n = allowance(f, now, s->end - s->start);
		if (n == 0)
			return f->rate_next_us;
		sent = send(fd, s->data + s->start, n, MSG_NOSIGNAL);
		if (sent < 0 && (errno == EAGAIN || errno == EINTR))
		{
			f->blocked = true;
			return NEVER_US;
		}
		if (sent < 0)
		{
			conn_close(c, true);
			return NEVER_US;
		}
		s->start += (size_t) sent;
		f->queued -= (size_t) sent;
		if (s->start < s->end)
			continue;
		f->head = s->next;
		if (f->head == NULL)
			f->tail = NULL;
		free(s);
	}
	if (f->ended && !f->end_sent)
	{
		shutdown(fd, SHUT_WR);
		f->end_sent = true;
		if (c->flow[TO_SERVER].end_sent && c->flow[TO_CLIENT].end_sent)
			conn_close(c, false);
	}
	return NEVER_US;
}

/* ---- sockets ---- */

/* The flow that is read from a socket goes the other way. */
static Flow *
flow_from(Conn *c, Direction socket)
{
	return &c->flow[socket == TO_CLIENT ? TO_SERVER : TO_CLIENT];
}

static bool
wants_input(const Conn *c, const Flow *f)
{
	return !f->ended &&
		(c->silent || f->queued < (f->rate > 0 ? THROTTLED_QUEUE_BYTES : QUEUE_BYTES_MAX));
}

static void
set_interest(Conn *c, Direction d)
{
	uint32_t	want = 0;
	struct epoll_event ev = {.data.ptr = (void *) ((uintptr_t) c | d)};

	if (c->fd[d] < 0)
		return;
	if (d == TO_SERVER && c->connecting)
		want = EPOLLOUT;
	else
	{
		if (wants_input(c, flow_from(c, d)))
			want |= EPOLLIN;
		if (c->flow[d].blocked)
			want |= EPOLLOUT;
	}
	if (want == c->interest[d])
		return;
	c->interest[d] = want;
	ev.events = want;
	epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd[d], &ev);
}

/* A silent connection takes what comes and keeps nothing; a side that closes ends it. */
static void
swallow(Conn *c, Flow *f, int fd)
{
	ssize_t		n;

	while ((n = recv(fd, f->input, INPUT_BYTES, 0)) > 0)
		;
	if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
		conn_close(c, false);
}

static void
read_some(Conn *c, Direction socket)
{
	Flow	   *f = flow_from(c, socket);
	ssize_t		n;

	if (c->silent)
	{
		swallow(c, f, c->fd[socket]);
		return;
	}
	if (f->input_start > 0)
	{
		memmove(f->input, f->input + f->input_start, f->input_end - f->input_start);
		f->input_end -= f->input_start;
		f->input_start = 0;
	}
	n = recv(c->fd[socket], f->input + f->input_end, INPUT_BYTES - f->input_end, 0);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n < 0)
	{
		conn_close(c, true);
		return;
	}
	if (n == 0)
	{
		/* what is left is no whole message; the other side shall see it all the same */
		flow_put(f, f->input + f->input_start, f->input_end - f->input_start, 0);
		f->input_start = f->input_end;
		f->ended = true;
		return;
	}
	f->input_end += (size_t) n;
	f->bytes += (uint64_t) n;
	c->link->bytes[f->direction] += (uint64_t) n;
	flow_cut(f);
}

static void
connected(Conn *c)
{
	int			error = 0;
	socklen_t	bytes = sizeof(error);

	getsockopt(c->fd[TO_SERVER], SOL_SOCKET, SO_ERROR, &error, &bytes);
	if (error != 0)
	{
		conn_close(c, true);
		return;
	}
	c->connecting = false;
}

void
relay_event(Conn *c, int socket, uint32_t events)
{
	Direction	d = (Direction) socket;

	if (!c->used || c->fd[d] < 0)
		return;
	if (d == TO_SERVER && c->connecting)
	{
		if ((events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) != 0)
			connected(c);
		return;
	}
	if ((events & EPOLLERR) != 0)
	{
		conn_close(c, true);
		return;
	}
	if ((events & EPOLLOUT) != 0)
		c->flow[d].blocked = false;
	if ((events & (EPOLLIN | EPOLLHUP)) != 0 && !flow_from(c, d)->ended)
		read_some(c, d);
	else if ((events & EPOLLHUP) != 0)
		/* both directions of this socket are over */
		conn_close(c, false);
}

uint64_t
relay_turn(void)
{
	uint64_t	next = NEVER_US;

	for (int i = 0; i < nconns; i++)
	{
		Conn	   *c = &conns[i];
		uint64_t	now;

		if (!c->used || (c->fd[0] < 0 && c->fd[1] < 0))
			continue;
		now = now_us();
		if (c->held_back && now >= c->start_us)
			call_server(c);
		if (c->held_back && c->start_us < next)
			next = c->start_us;
		for (int d = 0; d < 2 && !c->silent; d++)
		{
			uint64_t	at = flow_send(&c->flow[d], now);

			if (at < next)
				next = at;
		}
		set_interest(c, TO_SERVER);
		set_interest(c, TO_CLIENT);
	}
	relay_reap();
	return next;
}
