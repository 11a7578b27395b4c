/*
 * door.c
 *	  Accept, turns, room, timers, and the end of visitors.
 *
 * Runs wherever strangers are let in.  The loop is asked for readiness only (polls),
 * never to read or write by itself: buffers are ours all the time, and a visitor
 * whose polls have come back can be freed.  Completions move visitors between
 * lists; messages are handled afterwards, in their turns.
 */
#include "serve_int.h"

#include "nc/serve/http.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What one visitor may do before the others have their turn. */
#define MESSAGES_PER_TURN 64

#define ACCEPTS_PER_TURN 16

/* After running out of descriptors or memory, or whatever lets no accept succeed. */
#define ACCEPT_PAUSE_US 200000

/* Timers are looked at this often. */
#define SWEEP_US 250000

/* Refusals are logged at most this often. */
#define LOG_INTERVAL_US 1000000

/* Of one kind nc_door_limit() looks at so many; limits are far below. */
#define KIND_MAX 256

/* ---- lists ---- */

static void
list_init(NcLink *list)
{
	list->previous = list->next = list;
}

static void
list_remove(NcLink *link)
{
	link->previous->next = link->next;
	link->next->previous = link->previous;
}

static void
list_append(NcLink *list, NcLink *link)
{
	link->previous = list->previous;
	link->next = list;
	list->previous->next = link;
	list->previous = link;
}

static bool
list_is_empty(const NcLink *list)
{
	return list->next == list;
}

/* Moves all of one list, in their order, to the end of another. */
static void
list_move_all(NcLink *from, NcLink *to)
{
	while (!list_is_empty(from))
	{
		NcLink	   *link = from->next;

		list_remove(link);
		list_append(to, link);
	}
}

/* A visitor begins with its link. */
static NcVisitor *
visitor_of(NcLink *link)
{
	return (NcVisitor *) link;
}

static void
put_visitor(NcVisitor *v, NcPlace place)
{
	list_remove(&v->link);
	list_append(&v->door->lists[place], &v->link);
	v->place = place;
}

/* ---- states ---- */

void
nc_visitor_become(NcVisitor *v, NcVisitorState state)
{
	NcDoor	   *door = v->door;

	if (v->state == state || v->state == NC_VISITOR_GONE)
		return;
	door->count[v->state]--;
	door->count[state]++;
	if (state == NC_VISITOR_GONE)
	{
		v->left_from = v->state;
		door->visitors--;
		door->leaving = true;
	}
	if (state == NC_VISITOR_OPEN)
		door->crowded = true;
	if (state == NC_VISITOR_CLOSING)
		v->close_us = door->now_us + door->settings.patience_us;
	v->state = state;
}

bool
nc_visitor_check(const NcVisitor *v)
{
	if (!nc_buffer_sane(&v->channel.in) || !nc_buffer_sane(&v->channel.out))
		return false;
	if ((v->state == NC_VISITOR_GONE) != (v->place == NC_PLACE_GONE))
		return false;
	switch (v->state)
	{
		case NC_VISITOR_STARTUP:
			/* with a TLS object the handshake was made */
			return !v->logged_in && v->channel.secure == (v->channel.tls != NULL) &&
				v->place != NC_PLACE_PARKED;
		case NC_VISITOR_HANDSHAKE:
			return !v->logged_in && v->channel.tls != NULL && !v->channel.secure &&
				v->place != NC_PLACE_PARKED;
		case NC_VISITOR_TOKEN:
			return !v->logged_in && v->place != NC_PLACE_PARKED;
		case NC_VISITOR_OPEN:
			return v->logged_in;
		case NC_VISITOR_CLOSING:
			return v->place != NC_PLACE_PARKED;
		case NC_VISITOR_GONE:
			return v->channel.tls == NULL;
	}
	return false;
}

/* ---- what a host does with a visitor ---- */

void
nc_visitor_wake(NcVisitor *v)
{
	/* READY is also who has his turn now, or will have it in this turn */
	if (v->place != NC_PLACE_GONE && v->place != NC_PLACE_READY)
		put_visitor(v, NC_PLACE_READY);
}

NcWriter
nc_visitor_writer(NcVisitor *v)
{
	return nc_channel_writer(&v->channel, v->door->host->answer_bytes);
}

bool
nc_visitor_commit(NcVisitor *v, const NcWriter *w)
{
	if (v->state != NC_VISITOR_GONE && nc_channel_commit(&v->channel, w))
		return true;
	nc_visitor_leave(v);
	return false;
}

bool
nc_visitor_flush(NcVisitor *v)
{
	size_t		sent = 0;

	if (v->state == NC_VISITOR_GONE)
		return false;
	if (!nc_channel_flush(&v->channel, &sent))
	{
		nc_visitor_leave(v);
		return false;
	}
	if (sent > 0)
		v->sent_us = v->door->now_us;
	return nc_channel_unsent(&v->channel) == 0;
}

void
nc_visitor_refused(NcVisitor *v, const char *why)
{
	NcDoor	   *door = v->door;
	char		text[NC_PEER_BYTES + 600];
	char		detail[80];

	door->refused++;
	if (door->now_us < door->next_log_us)
	{
		door->unlogged++;
		return;
	}
	snprintf(text, sizeof(text), "%s refused %s: %s", door->host->name, v->address, why);
	snprintf(detail, sizeof(detail), "%u others were refused since the last such message.",
			 door->unlogged);
	door->host->log(door, text, door->unlogged > 0 ? detail : NULL);
	door->unlogged = 0;
	door->next_log_us = door->now_us + LOG_INTERVAL_US;
}

void
nc_visitor_end(NcVisitor *v, const char *severity, const NcRefusal *why)
{
	NcWriter	w;

	if (v->state >= NC_VISITOR_CLOSING)
		return;
	if (v->state != NC_VISITOR_HANDSHAKE)
	{
		w = nc_visitor_writer(v);
		if (v->door->host->pages != NULL)
			nc_http_answer_text(&w, atoi(why->sqlstate), why->message);
		else
			nc_session_error(&w, severity, why->sqlstate, why->message, why->detail, why->hint);
		(void) nc_visitor_commit(v, &w);
	}
	nc_visitor_close(v);
}

void
nc_visitor_refuse(NcVisitor *v, const NcRefusal *why)
{
	nc_visitor_end(v, "FATAL", why);
	nc_visitor_refused(v, why->message);
}

void
nc_visitor_close(NcVisitor *v)
{
	if (v->state >= NC_VISITOR_CLOSING)
		return;
	/* in the middle of the handshake of TLS there is no way to say anything */
	if (v->state == NC_VISITOR_HANDSHAKE)
	{
		nc_visitor_leave(v);
		return;
	}
	nc_visitor_become(v, NC_VISITOR_CLOSING);
	nc_visitor_wake(v);
}

void
nc_visitor_leave(NcVisitor *v)
{
	if (v->state == NC_VISITOR_GONE)
		return;
	nc_visitor_become(v, NC_VISITOR_GONE);
	if (!v->logged_in)
	{
		nc_channel_take(&v->channel, v->channel.in.end - v->channel.in.start);
		nc_channel_wipe(&v->channel);
	}
	nc_channel_cut(&v->channel);
	put_visitor(v, NC_PLACE_GONE);
	nc_loop_cancel(v->door->loop, &v->in);
	nc_loop_cancel(v->door->loop, &v->out);
}

/* ---- the socket ---- */

static void
receive_from(NcVisitor *v)
{
	ssize_t		got = nc_visitor_may_begin_tls(v) ? 0 : nc_channel_receive(&v->channel);

	if (got > 0)
		v->heard_us = v->door->now_us;
	else if (got < 0)
		nc_visitor_leave(v);
	/* our last answer shall not be lost to a reset because he goes on talking */
	if (v->state == NC_VISITOR_CLOSING)
		nc_channel_take(&v->channel, v->channel.in.end - v->channel.in.start);
}

void
nc_visitor_arm(NcVisitor *v)
{
	const NcChannel *c = &v->channel;
	NcLoop	   *loop = v->door->loop;

	if (v->state == NC_VISITOR_GONE)
		return;
	if (v->in.state == NC_OP_IDLE && !c->wants_write && nc_channel_has_room(c))
		nc_loop_poll(loop, &v->in, c->fd, POLLIN);
	if (v->out.state == NC_OP_IDLE && (c->wants_write || nc_channel_unsent(c) > 0))
		nc_loop_poll(loop, &v->out, c->fd, POLLOUT);
}

/* Who waits for the host is not helped by more input, but his end is seen. */
static void
after_event(NcVisitor *v, const NcOp *op)
{
	/* the loop has no room for him, and would say so again at once */
	if (op->result < 0)
		nc_visitor_leave(v);
	else if (v->place == NC_PLACE_PARKED)
		nc_visitor_arm(v);
	else if (v->place == NC_PLACE_IDLE)
		nc_visitor_wake(v);
}

static void
on_readable(NcOp *op)
{
	NcVisitor  *v = op->owner;

	if (v->state == NC_VISITOR_GONE)
		return;
	receive_from(v);
	after_event(v, op);
}

static void
on_writable(NcOp *op)
{
	NcVisitor  *v = op->owner;

	if (v->state == NC_VISITOR_GONE)
		return;
	/* TLS may need to write before it can read on */
	if (v->channel.secure && v->channel.wants_write)
		receive_from(v);
	(void) nc_visitor_flush(v);
	after_event(v, op);
}

/* ---- a turn of one visitor ---- */

static NcStep
one_step(NcVisitor *v)
{
	if (v->state >= NC_VISITOR_CLOSING)
		return NC_STEP_INPUT;
	if (nc_visitor_is_stranger(v))
		return nc_login_step(v);
	if (nc_channel_unsent(&v->channel) >= v->full)
	{
		(void) nc_visitor_flush(v);
		if (v->state == NC_VISITOR_GONE || nc_channel_unsent(&v->channel) >= v->full)
			return NC_STEP_ROOM;
	}
	return v->door->host->message(v);
}

/* Says goodbye once, when all is sent; his own end, or the end of patience, is the rest. */
static void
close_step(NcVisitor *v)
{
	if (nc_channel_unsent(&v->channel) > 0 || v->half_closed)
		return;
	nc_channel_half_close(&v->channel);
	v->half_closed = true;
}

static NcPlace
place_after(const NcVisitor *v, NcStep step)
{
	if (v->state >= NC_VISITOR_CLOSING)
		return NC_PLACE_IDLE;
	if (step == NC_STEP_PARK)
		return NC_PLACE_PARKED;
	if (step == NC_STEP_MORE)
		return NC_PLACE_READY;
	if (step == NC_STEP_ROOM)
		return nc_channel_unsent(&v->channel) == 0 ? NC_PLACE_READY : NC_PLACE_IDLE;
	/* what is inside TLS already no poll tells of */
	return nc_channel_pending(&v->channel) ? NC_PLACE_READY : NC_PLACE_IDLE;
}

static void
run_visitor(NcVisitor *v)
{
	NcStep		step = NC_STEP_MORE;

	if (nc_channel_pending(&v->channel))
		receive_from(v);
	for (int i = 0; i < MESSAGES_PER_TURN && step == NC_STEP_MORE; i++)
		step = one_step(v);
	(void) nc_visitor_flush(v);
	if (v->state == NC_VISITOR_CLOSING)
		close_step(v);
	if (v->state != NC_VISITOR_GONE)
		put_visitor(v, place_after(v, step));
	nc_visitor_arm(v);
	NC_ASSERT(nc_visitor_check(v));
}

static void
run_ready(NcDoor *door)
{
	/* who becomes READY meanwhile has his turn in the next one */
	list_move_all(&door->lists[NC_PLACE_READY], &door->turn);
	while (!list_is_empty(&door->turn))
		run_visitor(visitor_of(door->turn.next));
}

/* ---- room ---- */

typedef struct Kind
{
	bool		(*belongs) (const NcVisitor *v);
	uint32_t	n;				/* how many there are; the first KIND_MAX are in v */
	NcVisitor  *v[KIND_MAX];
} Kind;

static void
collect_kind(NcVisitor *v, void *arg)
{
	Kind	   *kind = arg;

	if (!kind->belongs(v))
		return;
	if (kind->n < KIND_MAX)
		kind->v[kind->n] = v;
	kind->n++;
}

static uint32_t
siblings(const Kind *kind, uint32_t n, const NcVisitor *v)
{
	uint32_t	count = 0;

	for (uint32_t i = 0; i < n; i++)
		count += kind->v[i]->state != NC_VISITOR_GONE && kind->v[i]->machine == v->machine;
	return count;
}

static bool
sooner(const Kind *kind, uint32_t n, const NcVisitor *a, const NcVisitor *b)
{
	uint32_t	of_a = siblings(kind, n, a);
	uint32_t	of_b = siblings(kind, n, b);

	if ((a->state == NC_VISITOR_CLOSING) != (b->state == NC_VISITOR_CLOSING))
		return a->state == NC_VISITOR_CLOSING;
	if (of_a != of_b)
		return of_a > of_b;
	return a->came_us < b->came_us;
}

void
nc_door_limit(NcDoor *door, bool (*belongs) (const NcVisitor *v), uint32_t max, const char *why)
{
	Kind		kind = {.belongs = belongs};
	uint32_t	n;

	nc_door_each(door, collect_kind, &kind);
	n = kind.n < KIND_MAX ? kind.n : KIND_MAX;
	for (; kind.n > max; kind.n--)
	{
		NcVisitor  *leaves = NULL;

		for (uint32_t i = 0; i < n; i++)
		{
			NcVisitor  *v = kind.v[i];

			if (v->state != NC_VISITOR_GONE && (leaves == NULL || sooner(&kind, n, v, leaves)))
				leaves = v;
		}
		if (leaves == NULL)
			return;
		if (leaves->state != NC_VISITOR_CLOSING)
			nc_visitor_refused(leaves, why);
		nc_visitor_leave(leaves);
	}
}

/* Also whose refusal is on its way. */
static bool
has_not_logged_in(const NcVisitor *v)
{
	return !v->logged_in;
}

/* Who was let in and is told his end: he has no place of the host's any more. */
static bool
is_leaving(const NcVisitor *v)
{
	return v->logged_in && v->state == NC_VISITOR_CLOSING;
}

static void
limit_strangers(NcDoor *door)
{
	/* at most so many: most of the time there is nothing to look for */
	if (door->visitors - door->count[NC_VISITOR_OPEN] > door->settings.strangers_max)
		nc_door_limit(door, has_not_logged_in, door->settings.strangers_max,
					  "it did not log in, and made room for a newer connection");
	if (door->count[NC_VISITOR_CLOSING] > door->settings.strangers_max)
		nc_door_limit(door, is_leaving, door->settings.strangers_max, "it was told to leave");
}

/* ---- accept ---- */

static NcVisitor *
make_visitor(NcDoor *door, int fd, const struct sockaddr_storage *peer)
{
	const NcDoorHost *host = door->host;
	uint8_t    *memory = malloc(host->visitor_bytes + host->in_bytes + host->out_bytes);
	NcVisitor  *v = (NcVisitor *) memory;

	if (v == NULL)
		return NULL;
	/* the buffers stay as they are: clearing them would touch every page of them */
	memset(v, 0, host->visitor_bytes);
	v->door = door;
	v->in = (NcOp) {.complete = on_readable,.owner = v};
	v->out = (NcOp) {.complete = on_writable,.owner = v};
	v->machine = nc_peer_machine(peer);
	v->by_path = peer->ss_family == AF_UNIX;
	v->came_us = v->heard_us = v->sent_us = door->now_us;
	v->full = host->full;
	nc_peer_text(peer, v->address);
	nc_channel_open(&v->channel, fd, memory + host->visitor_bytes, host->in_bytes,
					memory + host->visitor_bytes + host->in_bytes, host->out_bytes);
	return v;
}

bool
nc_door_admit(NcDoor *door, int fd, const struct sockaddr_storage *peer)
{
	NcVisitor  *v = make_visitor(door, fd, peer);

	if (v == NULL || (door->host->came != NULL && !door->host->came(v)))
	{
		close(fd);
		free(v);
		return false;
	}
	list_append(&door->lists[NC_PLACE_IDLE], &v->link);
	v->place = NC_PLACE_IDLE;
	door->visitors++;
	door->count[NC_VISITOR_STARTUP]++;
	door->crowded = true;
	nc_visitor_arm(v);
	limit_strangers(door);
	return true;
}

static void
pause_accepting(NcDoor *door, int error)
{
	char		text[200];

	snprintf(text, sizeof(text), "%s: could not accept a connection: %s", door->host->name,
			 strerror(error));
	door->host->log(door, text, NULL);
	door->accept_us = door->now_us + ACCEPT_PAUSE_US;
}

static void
on_listener(NcOp *op)
{
	NcDoor	   *door = op->owner;

	if (op->result == -ECANCELED)
		return;
	if (op->result < 0)
	{
		pause_accepting(door, -op->result);
		return;
	}
	for (int i = 0; i < ACCEPTS_PER_TURN; i++)
	{
		struct sockaddr_storage peer;
		int			fd = nc_listen_accept(op->fd, &peer);

		if (fd >= 0)
			(void) nc_door_admit(door, fd, &peer);
		else if (errno == EAGAIN || errno == EWOULDBLOCK)
			return;
		else if (errno != EINTR && errno != ECONNABORTED)
		{
			/* they stay readable: do not come back at once */
			pause_accepting(door, errno);
			return;
		}
	}
}

static void
arm_listeners(NcDoor *door)
{
	if (door->now_us < door->accept_us)
		return;
	door->accept_us = 0;
	for (int i = 0; i < door->nlisteners; i++)
	{
		if (door->listeners[i].op.state == NC_OP_IDLE)
			nc_loop_poll(door->loop, &door->listeners[i].op, door->listeners[i].fd, POLLIN);
	}
}

void
nc_door_listen(NcDoor *door, const int *fds, int nfds)
{
	NC_ASSERT(door->nlisteners + nfds <= NC_LISTENERS_MAX);
	for (int i = 0; i < nfds; i++)
	{
		door->listeners[door->nlisteners].fd = fds[i];
		door->listeners[door->nlisteners].op = (NcOp) {.complete = on_listener,.owner = door};
		door->nlisteners++;
	}
	arm_listeners(door);
}

/* ---- timers ---- */

/* Bytes do not count before the login: who trickles them is not there yet. */
static void
check_time(NcVisitor *v, void *arg)
{
	NcDoor	   *door = v->door;
	const NcDoorSettings *s = &door->settings;

	if (v->state == NC_VISITOR_CLOSING)
	{
		if (door->now_us >= v->close_us)
			nc_visitor_leave(v);
	}
	else if (!v->logged_in)
	{
		if (door->now_us < v->came_us + s->login_us)
			return;
		nc_visitor_refused(v, "it did not log in within authentication_timeout");
		nc_visitor_leave(v);
	}
	else if (s->silence_us > 0 && door->now_us >= v->heard_us + s->silence_us &&
			 door->host->silent(v))
		nc_visitor_leave(v);
}

static void
sweep(NcDoor *door)
{
	if (door->now_us < door->next_sweep_us)
		return;
	door->next_sweep_us = door->now_us + SWEEP_US;
	nc_door_each(door, check_time, NULL);
}

/* ---- the end of visitors ---- */

static void
bury(NcDoor *door)
{
	NcLink	   *next;

	door->leaving = false;
	for (NcLink *link = door->lists[NC_PLACE_GONE].next; link != &door->lists[NC_PLACE_GONE];
		 link = next)
	{
		NcVisitor  *v = visitor_of(link);

		next = link->next;
		if (!v->told && door->host->gone != NULL)
			door->host->gone(v);
		v->told = true;
		if (v->in.state != NC_OP_IDLE || v->out.state != NC_OP_IDLE)
			continue;
		list_remove(link);
		door->count[NC_VISITOR_GONE]--;
		nc_loop_forget(door->loop, v->channel.fd);
		nc_channel_close(&v->channel);
		free(v);
	}
}

/* ---- the door ---- */

void
nc_door_init(NcDoor *door, const NcDoorHost *host, NcLoop *loop, NcGuard *guard,
			 const NcDoorSettings *settings)
{
	*door = (NcDoor) {.host = host,.loop = loop,.guard = guard,.settings = *settings};
	for (int i = 0; i < NC_PLACES; i++)
		list_init(&door->lists[i]);
	list_init(&door->turn);
	door->now_us = host->now_us();
}

void
nc_door_set(NcDoor *door, const NcDoorSettings *settings)
{
	door->settings = *settings;
}

void
nc_door_events(NcDoor *door)
{
	door->now_us = door->host->now_us();
	(void) nc_loop_run(door->loop);
}

void
nc_door_turn(NcDoor *door)
{
	nc_door_events(door);
	run_ready(door);
	if (door->crowded && door->host->room != NULL)
		door->host->room(door);
	door->crowded = false;
	sweep(door);
	arm_listeners(door);
	bury(door);
}

uint64_t
nc_door_sleep_us(const NcDoor *door)
{
	uint64_t	until = UINT64_MAX;

	if (!list_is_empty(&door->lists[NC_PLACE_READY]) || door->leaving)
		return 0;
	if (door->visitors > 0)
		until = door->next_sweep_us;
	if (door->accept_us != 0 && door->accept_us < until)
		until = door->accept_us;
	if (until == UINT64_MAX)
		return until;
	return until > door->now_us ? until - door->now_us : 0;
}

static void
each_of(NcLink *list, void (*visit) (NcVisitor *v, void *arg), void *arg)
{
	NcLink	   *next;

	for (NcLink *link = list->next; link != list; link = next)
	{
		/* visit may move this one, and no other */
		next = link->next;
		visit(visitor_of(link), arg);
	}
}

void
nc_door_each(NcDoor *door, void (*visit) (NcVisitor *v, void *arg), void *arg)
{
	/* who is moved by visit becomes READY or GONE: nobody is visited twice */
	each_of(&door->lists[NC_PLACE_READY], visit, arg);
	each_of(&door->turn, visit, arg);
	each_of(&door->lists[NC_PLACE_IDLE], visit, arg);
	each_of(&door->lists[NC_PLACE_PARKED], visit, arg);
}

void
nc_door_each_at(NcDoor *door, NcPlace place, void (*visit) (NcVisitor *v, void *arg), void *arg)
{
	each_of(&door->lists[place], visit, arg);
}

static void
cut_off(NcVisitor *v, void *arg)
{
	nc_visitor_leave(v);
}

void
nc_door_shut(NcDoor *door)
{
	nc_door_each(door, cut_off, NULL);
	for (int i = 0; i < door->nlisteners; i++)
		nc_loop_cancel(door->loop, &door->listeners[i].op);
	bury(door);
	while (door->count[NC_VISITOR_GONE] > 0 || nc_loop_started(door->loop) > 0)
	{
		nc_loop_wait(door->loop, SWEEP_US);
		(void) nc_loop_run(door->loop);
		/* a listener may have had somebody before it was told to stop */
		nc_door_each(door, cut_off, NULL);
		bury(door);
	}
	for (int i = 0; i < door->nlisteners; i++)
	{
		nc_loop_forget(door->loop, door->listeners[i].fd);
		close(door->listeners[i].fd);
	}
	door->nlisteners = 0;
}
