/*
 * takeover_model.c
 *	  Exhaustive model of takeovers (docs/takeover.md): page servers that promise, follow and
 *	  grant leases, and computes that are lost, overtaken, restarted and change their members.
 *
 * A log is a row of entries, each named by the incarnation that wrote it; a position is an LSN.
 * The first entry of an incarnation is its beginning; two kinds more say which members count from
 * then on.  Messages are steps: a lost or late one is a step that is not taken, or taken later.  A
 * page server that is down takes no step; a page server that starts anew keeps what was durable.
 *
 * `safe` is what was acknowledged, or could be seen by somebody whom a compute had let in.
 * Broken is:
 *	  LOST     safe is no beginning of the log of a compute that acknowledges or lets somebody in,
 *	           or of one that boots although nobody has been promised more
 *	  STALE    a compute answers a read without something that is safe
 *
 *	takeover_model                    each world must show nothing, and each rule taken away
 *	                                  something; the last line is the count
 *	takeover_model --world N [RULE]   one of them, with the steps that lead to a fault
 *	takeover_model --list             worlds and rules
 *
 * The search is by breadth, so a fault is shown in as few steps as there can be.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SERVERS 4
#define COMPUTES 3				/* that live at the same time */
#define LOG_MAX 8
#define CONFIGS 3
#define SUCCESSORS 256

/* Rules: what each of them forbids is at its name in docs/takeover.md. */
#define RULES(R) \
	R(QUORUM, "quorum", 1) \
	R(NEWEST_FIRST, "newest-first", 6) \
	R(ORDERED, "ordered", 1) \
	R(CUT, "cut", 1) \
	R(DURABLE, "durable-promise", 1) \
	R(PARTED, "parted", 6) \
	R(CONFIRM, "confirm", 1) \
	R(RESTART, "restart", 1) \
	R(MEMBER, "member", 3) \
	R(JOINT, "joint", 4) \
	R(JOINT_DURABLE, "joint-durable", 4) \
	R(CONFIG_OF_LOG, "config-of-log", 4) \
	R(BOTH, "both-quorums", 4) \
	R(BACK, "back", 9) \
	R(LEASE, "lease", 5) \
	R(LEASE_QUORUM, "lease-quorum", 5) \
	R(LEASE_WAIT, "lease-wait", 5) \
	R(LEASE_CUT, "lease-cut", 5) \
	R(LEASE_CLOCK, "lease-clock", 5) \
	R(LEASE_DURABLE, "lease-durable", 5)

typedef enum Rule
{
#define R(id, name, world) id,
	RULES(R)
#undef R
	NRULES
} Rule;

static const struct
{
	const char *name;
	int			world;			/* in which its absence is missed */
}			rules[NRULES] = {
#define R(id, name, world) [id] = {name, world},
	RULES(R)
#undef R
};

typedef struct Config
{
	uint8_t		members;		/* a bit each */
	uint8_t		quorum;			/* W */
} Config;

typedef struct World
{
	const char *what;
	int			nservers;
	Config		config[CONFIGS];	/* the first one, and what it may be changed to, in this order */
	int			nconfigs;
	int			incarnations;
	int			own[6];			/* entries that each incarnation may write, its beginning included */
	bool		restarts;		/* computes start again in place */
	bool		crashes;		/* page servers start again */
	bool		leases;
	bool		back;			/* a change of members may be taken back, once in a log */
	int			losses;			/* page servers whose directories are lost and come back empty */
} World;

static const World worlds[] = {
	{"nothing", 0, {{0, 0}}, 0, 0, {0}, false, false, false, false, 0},
	{"two page servers, W = 1, restarts in place", 2, {{3, 1}}, 1, 3, {0, 2, 1, 1}, true, true, false, false, 0},
	{"three page servers, W = 2, restarts in place", 3, {{7, 2}}, 1, 2, {0, 2, 1}, true, true, false, false, 0},
	{"three page servers, W = 2, one loses its directory", 3, {{7, 2}}, 1, 2, {0, 2, 2}, true, false, false, false, 1},
	{"members 0 and 1, W = 1, change to 2 and 3", 4, {{3, 1}, {12, 1}}, 2, 2, {0, 1, 1}, false, false, false, false, 0},
	{"three page servers, W = 2, leases", 3, {{7, 2}}, 1, 2, {0, 1, 1}, true, true, true, false, 0},
	{"three page servers, W = 2, three computes", 3, {{7, 2}}, 1, 3, {0, 1, 1, 0}, false, false, false, false, 0},
	{"two page servers, W changes from 1 to 2 to 1, restarts in place", 2, {{3, 1}, {3, 2}, {3, 1}}, 3, 2, {0, 1, 1}, true, false, false, false, 0},
	{"members 0 and 1, W = 1, change to 1 and 2, then to 2 and 0", 3, {{3, 1}, {6, 1}, {5, 1}}, 3, 2, {0, 1, 0}, false, false, false, false, 0},
	{"members 0 and 1, W = 1, change to 1 and 2, or back", 3, {{3, 1}, {6, 1}}, 2, 2, {0, 1, 1}, false, false, false, true, 0},
};
#define NWORLDS ((int) (sizeof(worlds) / sizeof(worlds[0])))

/* An entry of a log: who wrote it, and what it says. */
enum
{
	PLAIN = 0, JOINT_TO = 0x10, CONFIG_IS = 0x20	/* the low bits of JOINT_TO and CONFIG_IS are in `to` */
};
#define ENTRY(inc, kind, to) ((uint8_t) ((inc) | (kind) | (to) << 6))
#define ENTRY_INC(e) ((e) & 0x0f)
#define ENTRY_KIND(e) ((e) & 0x30)
#define ENTRY_TO(e) ((e) >> 6)

typedef struct Log
{
	uint8_t		n;
	uint8_t		e[LOG_MAX];
} Log;

typedef struct Server
{
	uint8_t		promised;		/* the newest incarnation it has promised itself to */
	uint8_t		empty;			/* lost its directory: another member under the old name */
	uint8_t		grants;			/* incarnations whose leases it counts, a bit each */
	Log			log;
} Server;

enum
{
	NONE, ASKS, AGAIN, STARTS, OPEN
};

typedef struct Compute
{
	uint8_t		inc;
	uint8_t		old;			/* AGAIN: the incarnation it was */
	uint8_t		state;
	uint8_t		promised;		/* who has promised, a bit each */
	uint8_t		lease;			/* from whom it holds a lease by its own clock, a bit each */
	uint8_t		conf[SERVERS];	/* how much of its log each has confirmed */
	Log			log;
} Compute;

typedef struct State
{
	Server		server[SERVERS];
	Compute		compute[COMPUTES];
	uint8_t		used;			/* incarnations so far */
	uint8_t		losses;
	Log			safe;
} State;

enum
{
	FINE, LOST, STALE
};
static const char *const fault_name[] = {"nothing", "LOST", "STALE"};

static const World *world;
static Rule without = NRULES;

#define HAS(rule) (without != (rule))

static struct
{
	State		state;
	char		what[48];
	int			fault;
}			successors[SUCCESSORS];
static int	nsuccessors;

/* ---- logs and members */

static bool
prefix(const Log *a, const Log *b)
{
	return a->n <= b->n && memcmp(a->e, b->e, a->n) == 0;
}

static bool
better(const Log *a, const Log *b)
{
	int			ia = a->n ? ENTRY_INC(a->e[a->n - 1]) : 0;
	int			ib = b->n ? ENTRY_INC(b->e[b->n - 1]) : 0;

	if (HAS(NEWEST_FIRST) && ia != ib)
		return ia > ib;
	return a->n > b->n;
}

static void
append(Log *log, uint8_t entry)
{
	if (log->n >= LOG_MAX)
		abort();
	log->e[log->n++] = entry;
}

/* The members that count by this log: one set, or two while a change goes on. */
static int
configs_of(const Log *log, Config config[2])
{
	int			now = 0;
	int			next = -1;

	for (int i = 0; i < log->n; i++)
	{
		if (ENTRY_KIND(log->e[i]) == JOINT_TO)
			next = ENTRY_TO(log->e[i]);
		else if (ENTRY_KIND(log->e[i]) == CONFIG_IS)
		{
			now = ENTRY_TO(log->e[i]);
			next = -1;
		}
	}
	config[0] = world->config[now];
	if (next < 0)
		return 1;
	config[1] = world->config[next];
	return 2;
}

static int
count(unsigned bits)
{
	return __builtin_popcount(bits);
}

/* Has each set of members W among these (write), or N - W + 1 (takeover)? */
static bool
enough(const Log *log, unsigned who, bool takeover)
{
	Config		config[2];
	int			n = configs_of(log, config);

	if (takeover && !HAS(CONFIG_OF_LOG))
	{
		config[0] = world->config[0];
		n = 1;
	}
	if (!HAS(BOTH))
		n = 1;
	for (int i = 0; i < n; i++)
	{
		int			need = takeover ? count(config[i].members) - config[i].quorum + (HAS(QUORUM) ? 1 : 0) : config[i].quorum;

		if (count(who & config[i].members) < need)
			return false;
	}
	return true;
}

static unsigned
members_of(const Log *log)
{
	Config		config[2];
	unsigned	members = 0;

	for (int i = configs_of(log, config) - 1; i >= 0; i--)
		members |= config[i].members;
	return members;
}

/* So much of its log has a write quorum confirmed. */
static int
durable(const Compute *c)
{
	for (int len = c->log.n; len > 0; len--)
	{
		unsigned	who = 0;

		for (int i = 0; i < world->nservers; i++)
			who |= (c->conf[i] >= len) << i;
		if (enough(&c->log, who, false))
			return len;
	}
	return 0;
}

static int
written(const Compute *c)
{
	int			n = 0;

	for (int i = 0; i < c->log.n; i++)
		n += ENTRY_INC(c->log.e[i]) == c->inc && ENTRY_KIND(c->log.e[i]) == PLAIN;
	return n;
}

/* The members before the last change, and has one been taken back? */
static int
members_before(const Log *log, bool *taken_back)
{
	int			now = 0;
	int			before = 0;
	int			next = -1;

	*taken_back = false;
	for (int i = 0; i < log->n; i++)
	{
		if (ENTRY_KIND(log->e[i]) == JOINT_TO)
		{
			before = now;
			next = ENTRY_TO(log->e[i]);
		}
		else if (ENTRY_KIND(log->e[i]) == CONFIG_IS)
		{
			now = ENTRY_TO(log->e[i]);
			*taken_back |= now != next;
		}
	}
	return before;
}

static int
last_change(const Log *log)
{
	for (int i = log->n - 1; i >= 0; i--)
	{
		if (ENTRY_KIND(log->e[i]) != PLAIN)
			return i;
	}
	return -1;
}

/* ---- steps */

static State *
step(const State *s, const char *what, int who, int where)
{
	if (nsuccessors >= SUCCESSORS)
		abort();
	successors[nsuccessors].state = *s;
	successors[nsuccessors].fault = FINE;
	snprintf(successors[nsuccessors].what, sizeof(successors[0].what), where >= 0 ? "%d %s %d" : "%d %s", who, what, where);
	return &successors[nsuccessors++].state;
}

static void
broken(int fault)
{
	successors[nsuccessors - 1].fault = fault;
}

/* From now on this is safe. */
static void
seen(State *t, const Log *log, int n)
{
	Log			part = {0};

	part.n = (uint8_t) n;
	memcpy(part.e, log->e, (size_t) n);
	if (prefix(&part, &t->safe))
		return;
	if (!prefix(&t->safe, &part))
		broken(LOST);
	t->safe = part;
}

static void
begin(Compute *c)
{
	append(&c->log, ENTRY(c->inc, PLAIN, 0));
	memset(c->conf, 0, sizeof(c->conf));
	c->state = STARTS;
}

static bool
counts(const State *s, int i)
{
	return !s->server[i].empty || !HAS(MEMBER);
}

static void
ask_steps(const State *s, int k)
{
	const Compute *c = &s->compute[k];
	unsigned	known = world->config[0].members | members_of(&c->log);
	Compute    *n;
	State	   *t;

	for (int i = 0; i < world->nservers; i++)
	{
		const Server *v = &s->server[i];

		if ((c->promised >> i & 1) || !(known >> i & 1) || !counts(s, i))
			continue;
		if (c->inc <= v->promised && HAS(ORDERED))
			continue;
		if (c->state == AGAIN && v->promised > c->old && HAS(RESTART))
			continue;
		t = step(s, "is promised by", c->inc, i);
		n = &t->compute[k];
		n->promised |= (uint8_t) (1 << i);
		t->server[i].promised = c->inc;
		if (c->state == ASKS && better(&v->log, &n->log))
			n->log = v->log;
	}
	if (c->state == ASKS && enough(&c->log, c->promised, true))
	{
		bool		newest = true;

		for (int i = 0; i < world->nservers; i++)
			newest &= !(c->promised >> i & 1) || s->server[i].promised == c->inc;
		t = step(s, "boots", c->inc, -1);
		if (newest && !prefix(&s->safe, &c->log))
			broken(LOST);
		begin(&t->compute[k]);
	}
	if (c->state == AGAIN && (enough(&c->log, c->promised, false) || !HAS(RESTART)))
	{
		t = step(s, "begins again", c->inc, -1);
		begin(&t->compute[k]);
	}
}

static void
run_steps(const State *s, int k)
{
	const Compute *c = &s->compute[k];
	unsigned	members = members_of(&c->log);
	int			safe_to = durable(c);
	int			change = last_change(&c->log);
	bool		joint = change >= 0 && ENTRY_KIND(c->log.e[change]) == JOINT_TO;
	Compute    *n;
	State	   *t;

	for (int i = 0; i < world->nservers; i++)
	{
		const Server *v = &s->server[i];
		bool		follows = prefix(&v->log, &c->log) || !HAS(PARTED);

		if (!(members >> i & 1) || !counts(s, i) || (v->promised > c->inc && HAS(CUT)))
			continue;
		if (v->log.n < c->log.n && follows)
		{
			t = step(s, "streams to", c->inc, i);
			append(&t->server[i].log, c->log.e[v->log.n]);
			if (v->promised < c->inc)
				t->server[i].promised = c->inc;
		}
		if (c->conf[i] < v->log.n && v->log.n <= c->log.n && follows)
		{
			t = step(s, "is confirmed by", c->inc, i);
			t->compute[k].conf[i] = v->log.n;
		}
	}
	if (c->state == STARTS && (safe_to >= c->log.n || !HAS(CONFIRM)))
	{
		bool		leased = false;

		for (int i = 0; i < world->nservers; i++)
			leased |= (c->promised >> i & 1) && (s->server[i].grants & ((1 << c->inc) - 1)) != 0;
		if (!leased || !HAS(LEASE_WAIT))
		{
			t = step(s, "lets somebody in", c->inc, -1);
			n = &t->compute[k];
			n->state = OPEN;
			n->promised = 0;
			seen(t, &c->log, c->log.n);
		}
	}
	if (c->state == OPEN)
	{
		if (written(c) < world->own[c->inc])
		{
			t = step(s, "writes", c->inc, -1);
			append(&t->compute[k].log, ENTRY(c->inc, PLAIN, 0));
		}
		if (safe_to > 0 && (safe_to > s->safe.n || memcmp(s->safe.e, c->log.e, (size_t) safe_to) != 0))
		{
			t = step(s, "acknowledges", c->inc, -1);
			seen(t, &c->log, safe_to);
		}
		/* members change in two entries, the second one when the first one is durable by both quorums */
		if (!joint)
		{
			int			to = change < 0 ? 1 : ENTRY_TO(c->log.e[change]) + 1;

			if (to < world->nconfigs && (change < safe_to))
			{
				t = step(s, "changes members to", c->inc, to);
				append(&t->compute[k].log, ENTRY(c->inc, HAS(JOINT) ? JOINT_TO : CONFIG_IS, to));
			}
		}
	}
	/* or the old ones alone, at once, while nothing says that the new ones do */
	if (c->state == OPEN && world->back && change >= 0 && (joint || !HAS(BACK)))
	{
		bool		once;
		int			before = members_before(&c->log, &once);

		if (!once)
		{
			t = step(s, "takes back a change, to members", c->inc, before);
			append(&t->compute[k].log, ENTRY(c->inc, CONFIG_IS, before));
		}
	}
	if (c->state == OPEN && joint && (safe_to > change || !HAS(JOINT_DURABLE)))
	{
		t = step(s, "has changed members to", c->inc, ENTRY_TO(c->log.e[change]));
		append(&t->compute[k].log, ENTRY(c->inc, CONFIG_IS, ENTRY_TO(c->log.e[change])));
	}
}

static void
lease_steps(const State *s, int k)
{
	const Compute *c = &s->compute[k];
	unsigned	members = members_of(&c->log);
	State	   *t;

	for (int i = 0; i < world->nservers; i++)
	{
		const Server *v = &s->server[i];

		if (c->state == OPEN && (members >> i & 1) && counts(s, i) && !(c->lease >> i & 1) &&
			(v->promised <= c->inc || !HAS(LEASE_CUT)))
		{
			t = step(s, "gets a lease from", c->inc, i);
			t->compute[k].lease |= (uint8_t) (1 << i);
			t->server[i].grants |= (uint8_t) (1 << c->inc);
			if (v->promised < c->inc)
				t->server[i].promised = c->inc;
		}
		if (c->lease >> i & 1)
		{
			t = step(s, "has no lease any more from", c->inc, i);
			t->compute[k].lease &= (uint8_t) ~(1 << i);
		}
	}
	if (c->state == OPEN &&
		(enough(&c->log, c->lease, false) || (!HAS(LEASE_QUORUM) && c->lease != 0) || !HAS(LEASE)))
	{
		step(s, "answers a read", c->inc, -1);
		if (!prefix(&s->safe, &c->log))
			broken(STALE);
	}
}

static bool
holds_lease(const State *s, int inc, int i)
{
	for (int k = 0; k < COMPUTES; k++)
	{
		if (s->compute[k].state != NONE && s->compute[k].inc == inc && (s->compute[k].lease >> i & 1))
			return true;
	}
	return false;
}

static void
server_steps(const State *s, int i)
{
	const Server *v = &s->server[i];
	State	   *t;

	for (int inc = 1; inc <= s->used; inc++)
	{
		/* a page server counts from when it answers, a compute from when it asked: the former ends later */
		if ((v->grants >> inc & 1) && (!holds_lease(s, inc, i) || !HAS(LEASE_CLOCK)))
		{
			t = step(s, "counts no lease any more of", i, inc);
			t->server[i].grants &= (uint8_t) ~(1 << inc);
		}
	}
	/* starting again changes nothing, but without what is durable */
	if (world->crashes && !HAS(DURABLE) && v->promised > (v->log.n ? ENTRY_INC(v->log.e[v->log.n - 1]) : 0))
	{
		t = step(s, "(page server) forgets its promise", i, -1);
		t->server[i].promised = v->log.n ? ENTRY_INC(v->log.e[v->log.n - 1]) : 0;
	}
	if (world->crashes && !HAS(LEASE_DURABLE) && v->grants != 0)
	{
		t = step(s, "(page server) forgets its leases", i, -1);
		t->server[i].grants = 0;
	}
	if (s->losses < world->losses && !v->empty)
	{
		t = step(s, "(page server) loses its directory", i, -1);
		memset(&t->server[i], 0, sizeof(Server));
		t->server[i].empty = 1;
		t->losses++;
	}
	/* one that is no member yet gets its copy from another */
	for (int j = 0; j < world->nservers; j++)
	{
		if ((world->config[0].members >> i & 1) || j == i || v->log.n > 0 || s->server[j].log.n == 0 || s->server[j].empty)
			continue;
		t = step(s, "(page server) is copied from", i, j);
		t->server[i].log = s->server[j].log;
	}
}

static void
find_successors(const State *s)
{
	nsuccessors = 0;
	for (int k = 0; k < COMPUTES; k++)
	{
		const Compute *c = &s->compute[k];
		State	   *t;

		if (c->state == NONE)
		{
			/* a takeover, or the first start, which is one of empty page servers */
			if (s->used < world->incarnations && (k == 0 || s->compute[k - 1].state != NONE))
			{
				t = step(s, "takes over", s->used + 1, -1);
				t->compute[k].inc = ++t->used;
				t->compute[k].state = ASKS;
			}
			continue;
		}
		t = step(s, "is lost", c->inc, -1);
		memset(&t->compute[k], 0, sizeof(Compute));
		if (c->state == ASKS || c->state == AGAIN)
			ask_steps(s, k);
		else
			run_steps(s, k);
		if (world->leases)
			lease_steps(s, k);
		if (world->restarts && (c->state == STARTS || c->state == OPEN) && s->used < world->incarnations)
		{
			t = step(s, "is killed and starts again as", c->inc, s->used + 1);
			t->compute[k] = (Compute) {.inc = ++t->used, .old = c->inc, .state = AGAIN, .log = c->log};
		}
	}
	for (int i = 0; i < world->nservers; i++)
		server_steps(s, i);
}

/* ---- the same state by another name: computes in order, page servers that are alike in any */

static void
swap_servers(State *s, int a, int b)
{
	Server		v = s->server[a];

	s->server[a] = s->server[b];
	s->server[b] = v;
	for (int k = 0; k < COMPUTES; k++)
	{
		Compute    *c = &s->compute[k];
		uint8_t		conf = c->conf[a];
		unsigned	flip;

		c->conf[a] = c->conf[b];
		c->conf[b] = conf;
		flip = ((c->promised >> a ^ c->promised >> b) & 1) * (1u << a | 1u << b);
		c->promised ^= (uint8_t) flip;
		flip = ((c->lease >> a ^ c->lease >> b) & 1) * (1u << a | 1u << b);
		c->lease ^= (uint8_t) flip;
	}
}

static bool
alike(int a, int b)
{
	for (int i = 0; i < world->nconfigs; i++)
	{
		if ((world->config[i].members >> a & 1) != (world->config[i].members >> b & 1))
			return false;
	}
	return true;
}

static void
plain(State *s)
{
	/* the youngest first; those that are gone last */
	for (int i = 1; i < COMPUTES; i++)
	{
		for (int k = i; k > 0 && s->compute[k - 1].inc < s->compute[k].inc; k--)
		{
			Compute		c = s->compute[k];

			s->compute[k] = s->compute[k - 1];
			s->compute[k - 1] = c;
		}
	}
	for (bool moved = true; moved;)
	{
		moved = false;
		for (int a = 0; a < world->nservers; a++)
		{
			for (int b = a + 1; b < world->nservers; b++)
			{
				State		t = *s;

				if (!alike(a, b))
					continue;
				swap_servers(&t, a, b);
				if (memcmp(&t, s, sizeof(State)) < 0)
				{
					*s = t;
					moved = true;
				}
			}
		}
	}
}

/* ---- the search */

static State *states;
static uint32_t *parents;
static uint32_t *table;			/* open addressing: index + 1 */
static uint32_t nstates,
			capacity,
			table_size;

static uint32_t
hash(const State *s)
{
	const unsigned char *p = (const unsigned char *) s;
	uint64_t	h = 1469598103934665603u;

	for (size_t i = 0; i < sizeof(State); i++)
		h = (h ^ p[i]) * 1099511628211u;
	return (uint32_t) (h ^ h >> 32);
}

static uint32_t *
find(const State *s)
{
	uint32_t	at = hash(s) & (table_size - 1);

	while (table[at] != 0 && memcmp(&states[table[at] - 1], s, sizeof(State)) != 0)
		at = (at + 1) & (table_size - 1);
	return &table[at];
}

static void *
resize(void *p, size_t size)
{
	p = realloc(p, size);
	if (p == NULL)
	{
		fprintf(stderr, "takeover_model: out of memory\n");
		exit(2);
	}
	return p;
}

static bool
add(const State *s, uint32_t parent)
{
	uint32_t   *at;

	if (nstates == capacity)
	{
		capacity = capacity ? capacity * 2 : 1 << 16;
		states = resize(states, capacity * sizeof(State));
		parents = resize(parents, capacity * sizeof(uint32_t));
		free(table);
		table_size = capacity * 2;
		table = calloc(table_size, sizeof(uint32_t));
		if (table == NULL)
			exit(2);
		for (uint32_t i = 0; i < nstates; i++)
			*find(&states[i]) = i + 1;
	}
	at = find(s);
	if (*at != 0)
		return false;
	states[nstates] = *s;
	parents[nstates] = parent;
	*at = ++nstates;
	return true;
}

static void
print_log(const Log *log)
{
	putchar('[');
	for (int i = 0; i < log->n; i++)
	{
		int			kind = ENTRY_KIND(log->e[i]);

		printf("%s%d", i ? " " : "", ENTRY_INC(log->e[i]));
		if (kind != PLAIN)
			printf(kind == JOINT_TO ? ">%d" : "=%d", ENTRY_TO(log->e[i]));
	}
	putchar(']');
}

/* The steps that lead to the state, by looking again for the one that leads from each to the next. */
static void
print_way(uint32_t to)
{
	if (to != 0)
	{
		print_way(parents[to]);
		find_successors(&states[parents[to]]);
		for (int i = 0; i < nsuccessors; i++)
		{
			plain(&successors[i].state);
			if (memcmp(&successors[i].state, &states[to], sizeof(State)) == 0)
			{
				printf("    %-44s", successors[i].what);
				break;
			}
		}
		for (int i = 0; i < world->nservers; i++)
		{
			printf(" %d:", states[to].server[i].promised);
			print_log(&states[to].server[i].log);
		}
		printf("  safe ");
		print_log(&states[to].safe);
		putchar('\n');
	}
}

static int
search(bool show)
{
	State		first = {0};

	nstates = 0;
	if (table)
		memset(table, 0, table_size * sizeof(uint32_t));
	add(&first, 0);
	for (uint32_t at = 0; at < nstates; at++)
	{
		find_successors(&states[at]);
		for (int i = 0; i < nsuccessors; i++)
		{
			if (successors[i].fault != FINE)
			{
				int			fault = successors[i].fault;

				if (show)
				{
					char		what[48];

					memcpy(what, successors[i].what, sizeof(what));
					print_way(at);
					printf("    %s: %s\n", what, fault_name[fault]);
				}
				return fault;
			}
		}
		for (int i = 0; i < nsuccessors; i++)
		{
			plain(&successors[i].state);
			add(&successors[i].state, at);
		}
	}
	return FINE;
}

int
main(int argc, char **argv)
{
	int			passed = 0;
	int			failed = 0;

	if (argc == 2 && strcmp(argv[1], "--list") == 0)
	{
		for (int i = 1; i < NWORLDS; i++)
			printf("world %d: %s\n", i, worlds[i].what);
		for (int i = 0; i < NRULES; i++)
			printf("rule %s: world %d\n", rules[i].name, rules[i].world);
		return 0;
	}
	if (argc >= 3 && strcmp(argv[1], "--world") == 0)
	{
		int			w = atoi(argv[2]);
		int			fault;

		if (w < 1 || w >= NWORLDS)
			return 2;
		world = &worlds[w];
		for (int i = 0; argc > 3 && i < NRULES; i++)
		{
			if (strcmp(argv[3], rules[i].name) == 0)
				without = (Rule) i;
		}
		if (argc > 3 && without == NRULES)
			return 2;
		fault = search(true);
		printf("%s: %u states, %s\n", world->what, nstates, fault_name[fault]);
		return fault != FINE;
	}
	for (int i = 1; i < NWORLDS; i++)
	{
		int			fault;

		world = &worlds[i];
		fault = search(true);
		printf("%-8s%s: %u states, %s\n", fault == FINE ? "ok" : "not ok", world->what, nstates, fault_name[fault]);
		if (fault == FINE)
			passed++;
		else
			failed++;
		fflush(stdout);
	}
	for (int i = 0; i < NRULES; i++)
	{
		int			fault;

		world = &worlds[rules[i].world];
		without = (Rule) i;
		fault = search(false);
		printf("%-8swithout %s: %s after %u states\n", fault != FINE ? "ok" : "not ok", rules[i].name, fault_name[fault], nstates);
		if (fault != FINE)
			passed++;
		else
			failed++;
		fflush(stdout);
	}
	printf("%d passed, %d failed\n", passed, failed);
	return failed != 0;
}
