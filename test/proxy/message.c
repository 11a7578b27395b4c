/*
 * message.c
 *	  Cuts libpq messages out of a direction's bytes and lets rules see them.
 *
 * Whole messages only: a message is passed on when its last byte is here.
 * Messages that no rule touches are passed on together.
 */
#include "proxy.h"

#include <stdlib.h>
#include <string.h>

#include "nc/base/bytes.h"
#include "nc/wire/pagestream.h"

#define CODE_SSL 80877103u
#define CODE_GSS 80877104u
#define CODE_CANCEL 80877102u

static uint32_t
u32_at(const uint8_t *p)
{
	NcReader	r = nc_reader(p, 4);

	return nc_read_u32(&r);
}

/* The next message; its length, 0 when it is not all here, -1 when it is none. */
static long
next_message(const Flow *f, Message *m)
{
	const uint8_t *at = f->input + f->input_start;
	size_t		left = f->input_end - f->input_start;
	size_t		header = f->phase == PHASE_STARTUP ? 0 : 1;
	uint32_t	length;

	if (left < header + 4)
		return 0;
	length = u32_at(at + header);
	if (length < 4 || length > MESSAGE_BYTES_MAX)
		return -1;
	if (left < header + length)
		return 0;
	m->type = header ? at[0] : 0;
	m->data = at;
	m->bytes = header + length;
	m->tag = f->phase == PHASE_STARTUP ? TAG_STARTUP : TAG_OTHER;
	if (m->type == 'd' && f->conn->version != 0 && length > 4)
		m->tag = at[5];
	return (long) m->bytes;
}

/* What a message means for the connection's state. */
static void
learn(Flow *f, const Message *m)
{
	static const char command[] = "pagestream_v";
	Conn	   *c = f->conn;
	Flow	   *back = &c->flow[TO_CLIENT];

	if (f->phase == PHASE_STARTUP)
	{
		uint32_t	code = m->bytes >= 8 ? u32_at(m->data + 4) : 0;

		if (code == CODE_SSL || code == CODE_GSS)
			back->single_bytes++;
		else if (code == CODE_CANCEL)
			f->phase = back->phase = PHASE_RAW;
		else
			f->phase = PHASE_TYPED;
		return;
	}
	if (f->direction == TO_SERVER && m->type == 'Q' && m->bytes > 5 + sizeof(command) &&
		memcmp(m->data + 5, command, sizeof(command) - 1) == 0)
		c->version = m->data[5 + sizeof(command) - 1] - '0';
	if (c->version == 0 || m->type != 'd')
		return;
	if (f->direction == TO_SERVER)
		c->outstanding++;
	else if (c->outstanding > 0)
		c->outstanding--;
}

static void
pass(Flow *f, size_t bytes)
{
	flow_put(f, f->input + f->input_start, bytes, 0);
	f->input_start += bytes;
}

/* The one byte that answers SSLRequest; 'S' makes the rest unreadable. */
static void
cut_single_byte(Flow *f)
{
	Conn	   *c = f->conn;

	f->single_bytes--;
	if (f->input[f->input_start] == 'S')
		c->flow[0].phase = c->flow[1].phase = PHASE_RAW;
	/* an ErrorResponse instead of the one byte is read as a message */
	if (f->input[f->input_start] != 'E')
		pass(f, 1);
}

/* Sends an answer that was held back for a swap. */
static void
release_held(Flow *f)
{
	if (f->held == NULL)
		return;
	flow_put(f, f->held, f->held_bytes, 0);
	free(f->held);
	f->held = NULL;
}

/* Passes messages until one is incomplete. */
static void
cut_messages(Flow *f)
{
	Conn	   *c = f->conn;
	bool		look = rules_any();

	while (f->input_start < f->input_end && f->phase != PHASE_RAW)
	{
		size_t		pending = 0;	/* passed, not yet copied */
		Message		m;
		long		n;

		if (f->single_bytes > 0)
		{
			cut_single_byte(f);
			continue;
		}
		n = next_message(f, &m);
		if (n == 0)
			return;
		if (n < 0)
		{
			f->phase = PHASE_RAW;
			return;
		}
		c->link->messages[f->direction]++;
		learn(f, &m);
		if (look && rules_on_message(f, &m))
		{
			if (c->silent || f->ended || (c->fd[0] < 0 && c->fd[1] < 0))
			{
				f->input_start = f->input_end;
				return;
			}
			f->input_start += m.bytes;
			continue;
		}
		pending += m.bytes;
		/* without rules, all that is complete goes at once */
		while (!look && f->held == NULL && f->phase == PHASE_TYPED && f->single_bytes == 0)
		{
			f->input_start += pending;
			n = next_message(f, &m);
			f->input_start -= pending;
			if (n <= 0)
				break;
			c->link->messages[f->direction]++;
			learn(f, &m);
			pending += m.bytes;
		}
		pass(f, pending);
		if (m.type == 'd')
			release_held(f);
	}
}

void
flow_cut(Flow *f)
{
	cut_messages(f);
	if (f->phase == PHASE_RAW && f->input_end > f->input_start)
		pass(f, f->input_end - f->input_start);
}
