/*
 * rules.c
 *	  Fault rules: which of them acts on a message or a connection, and what it
 *	  does.
 *
 * Chance comes from one generator, so the same traffic with the same seed meets
 * the same faults.
 */
#include "proxy.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "nc/base/bytes.h"
#include "nc/wire/pagestream.h"

typedef enum Action
{
	ACT_PASS,
	ACT_REFUSE,
	ACT_DELAY,
	ACT_HOLD,
	ACT_DROP,
	ACT_RST,
	ACT_SILENT,
	ACT_HALFOPEN,
	ACT_TRUNCATE,
	ACT_STALL,
	ACT_CORRUPT,
	ACT_EAT,
	ACT_DUP,
	ACT_SWAP,
	ACT_WRONGID,
	ACT_WRONGECHO,
	ACT_LIE,
	ACT_ERROR,
	ACT_PGERROR,
	ACT_THROTTLE
} Action;

static const struct
{
	const char *name;
	Action		action;
	bool		on_connect;
	bool		on_message;
	char		value;			/* 'n' number, 's' text, ' ' none */
}			actions[] = {
	{"pass", ACT_PASS, true, true, ' '},
	{"refuse", ACT_REFUSE, true, false, ' '},
	{"delay", ACT_DELAY, true, true, 'n'},
	{"hold", ACT_HOLD, false, true, ' '},
	{"drop", ACT_DROP, true, true, ' '},
	{"rst", ACT_RST, true, true, ' '},
	{"silent", ACT_SILENT, true, true, ' '},
	{"halfopen", ACT_HALFOPEN, false, true, ' '},
	{"truncate", ACT_TRUNCATE, false, true, 'n'},
	{"stall", ACT_STALL, false, true, 'n'},
	{"corrupt", ACT_CORRUPT, false, true, 'n'},
	{"eat", ACT_EAT, false, true, ' '},
	{"dup", ACT_DUP, false, true, ' '},
	{"swap", ACT_SWAP, false, true, ' '},
	{"wrongid", ACT_WRONGID, false, true, ' '},
	{"wrongecho", ACT_WRONGECHO, false, true, 's'},
	{"lie", ACT_LIE, false, true, 's'},
	{"error", ACT_ERROR, false, true, 's'},
	{"pgerror", ACT_PGERROR, false, true, 's'},
	{"throttle", ACT_THROTTLE, true, true, 'n'},
};

#define NACTIONS ((int) (sizeof(actions) / sizeof(actions[0])))

typedef struct Rule
{
	int			id;				/* 0 = unused */
	char		link[NAME_BYTES];
	bool		on_connect;
	Direction	direction;
	uint8_t		type;			/* 0 = any */
	int			tag;
	int64_t		rel;			/* -1 = any */
	int64_t		block;			/* -1 = any */
	uint64_t	nth;
	uint64_t	every;
	uint64_t	after;
	double		p;
	uint64_t	count;
	int			action;			/* index of actions[] */
	int64_t		number;
	char		text[64];
	uint64_t	seen;
	uint64_t	fired;
} Rule;

static Rule rules[RULES_MAX];
static int	nrules = 0;			/* used ones are below */
static int	last_id = 0;
static uint64_t random_state = 1;

void
rules_seed(uint64_t seed)
{
	random_state = seed * UINT64_C(0x9e3779b97f4a7c15) | 1;
}

static uint64_t
random_next(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state;
}

static double
random_fraction(void)
{
	return (double) (random_next() >> 11) / 9007199254740992.0;
}

bool
rules_any(void)
{
	return nrules > 0;
}

/* ---- lies: a page that is not the one asked for, in a perfect answer ---- */

#define PAGE_AT (5 + 42)
#define PAGE_BYTES 8192
#define OLD_PAGES 4096

/* The first version seen of some blocks, found by what the answer says of itself. */
typedef struct OldPage
{
	uint8_t		key[17];		/* relation, fork and block as in the answer */
	bool		used;
	uint8_t		page[PAGE_BYTES];
} OldPage;

static OldPage *old_pages = NULL;
static uint8_t last_page[PAGE_BYTES];
static uint8_t last_block[4];	/* its number, as in the answer */
static bool last_known = false;
static bool lies_wanted = false;

/* ---- making them ---- */

static int
tag_named(const char *name)
{
	static const char *const names[] = {"exists", "nblocks", "getpage", "dbsize", "slru"};
	char	   *end;
	long		n = strtol(name, &end, 10);

	if (end != name && *end == '\0')
		return (int) n;
	if (strcmp(name, "startup") == 0)
		return TAG_STARTUP;
	if (strcmp(name, "error") == 0)
		return NC_RESP_ERROR;
	for (int i = 0; i < 5; i++)
		if (strcmp(name, names[i]) == 0)
			return i;
	return TAG_ANY;
}

/* A request's tag as that of its answer. */
static int
answer_tag(int tag)
{
	switch (tag)
	{
		case NC_REQ_DBSIZE:
			return NC_RESP_DBSIZE;
		case NC_REQ_SLRU:
			return NC_RESP_SLRU;
		default:
			return tag >= 0 && tag <= NC_REQ_GETPAGE ? tag + 100 : tag;
	}
}

static const char *
set_action(Rule *r, const char *key, const char *value)
{
	char	   *end = NULL;

	for (int i = 0; i < NACTIONS; i++)
	{
		if (strcmp(actions[i].name, key) != 0)
			continue;
		if ((actions[i].value == ' ') != (value == NULL))
			return value == NULL ? "that action needs a value" : "that action takes no value";
		r->action = i;
		if (actions[i].value == 'n')
		{
			r->number = strtoll(value, &end, 10);
			if (end == value || *end != '\0')
				return "that action needs a number";
		}
		if (actions[i].value == 's')
			snprintf(r->text, sizeof(r->text), "%s", value);
		return NULL;
	}
	return "unknown condition or action";
}

static const char *
set_word(Rule *r, char *word)
{
	char	   *value = strchr(word, '=');

	if (value != NULL)
		*value++ = '\0';
	if (value != NULL && strcmp(word, "link") == 0)
		snprintf(r->link, sizeof(r->link), "%s", value);
	else if (value != NULL && strcmp(word, "on") == 0)
		r->on_connect = strcmp(value, "connect") == 0;
	else if (value != NULL && strcmp(word, "dir") == 0)
		r->direction = strcmp(value, "c2s") == 0 ? TO_SERVER : TO_CLIENT;
	else if (value != NULL && strcmp(word, "type") == 0)
		r->type = (uint8_t) value[0];
	else if (value != NULL && strcmp(word, "tag") == 0)
	{
		r->tag = tag_named(value);
		if (r->tag == TAG_ANY)
			return "unknown tag";
	}
	else if (value != NULL && (strcmp(word, "rel") == 0 || strcmp(word, "block") == 0))
	{
		char	   *end;
		long long	n = strtoll(value, &end, 10);

		if (end == value || *end != '\0' || n < 0 || n > UINT32_MAX)
			return "that condition needs a number";
		*(word[0] == 'r' ? &r->rel : &r->block) = n;
	}
	else if (value != NULL && strcmp(word, "nth") == 0)
		r->nth = strtoull(value, NULL, 10);
	else if (value != NULL && strcmp(word, "every") == 0)
		r->every = strtoull(value, NULL, 10);
	else if (value != NULL && strcmp(word, "after") == 0)
		r->after = strtoull(value, NULL, 10);
	else if (value != NULL && strcmp(word, "p") == 0)
		r->p = strtod(value, NULL);
	else if (value != NULL && strcmp(word, "count") == 0)
		r->count = strtoull(value, NULL, 10);
	else
		return set_action(r, word, value);
	return NULL;
}

const char *
rule_add(char **words, int nwords, int *id)
{
	Rule		r = {.direction = TO_CLIENT, .tag = TAG_ANY, .rel = -1, .block = -1, .nth = 1, .every = 1,
		.p = 1, .count = UINT64_MAX, .action = -1};
	const char *err = NULL;
	int			at = 0;

	for (int i = 0; i < nwords && err == NULL; i++)
		err = set_word(&r, words[i]);
	if (err != NULL)
		return err;
	if (r.action < 0)
		return "a rule needs an action";
	if (!(r.on_connect ? actions[r.action].on_connect : actions[r.action].on_message))
		return "that action does not go with what it acts on";
	if (r.every == 0)
		r.every = 1;
	if (r.direction == TO_CLIENT)
		r.tag = answer_tag(r.tag);
	while (at < nrules && rules[at].id != 0)
		at++;
	if (at == RULES_MAX)
		return "too many rules";
	if (actions[r.action].action == ACT_LIE && !lies_wanted)
	{
		old_pages = calloc(OLD_PAGES, sizeof(*old_pages));
		if (old_pages == NULL)
			return "no memory";
		lies_wanted = true;
	}
	r.id = *id = ++last_id;
	rules[at] = r;
	if (at == nrules)
		nrules++;
	return NULL;
}

bool
rule_remove(int id)
{
	bool		found = id == 0;

	for (int i = 0; i < nrules; i++)
	{
		if (id != 0 && rules[i].id != id)
			continue;
		found = true;
		rules[i].id = 0;
	}
	while (nrules > 0 && rules[nrules - 1].id == 0)
		nrules--;
	return found;
}

int
rules_describe(char *out, size_t bytes)
{
	size_t		at = 0;

	for (int i = 0; i < nrules && at < bytes - 256; i++)
		if (rules[i].id != 0)
			at += (size_t) snprintf(out + at, bytes - at, "rule=%d action=%s seen=%llu fired=%llu\n",
									rules[i].id, actions[rules[i].action].name,
									(unsigned long long) rules[i].seen,
									(unsigned long long) rules[i].fired);
	return (int) at;
}

/* ---- choosing one ---- */

/* A rule whose conditions about the object hold: counts, and decides whether it fires. */
static bool
fires(Rule *r)
{
	r->seen++;
	if (r->fired >= r->count || r->seen < r->nth || (r->seen - r->nth) % r->every != 0)
		return false;
	return r->p >= 1 || random_fraction() < r->p;
}

static bool
concerns(const Rule *r, const Link *link, bool on_connect)
{
	return r->id != 0 && r->on_connect == on_connect &&
		(r->link[0] == '\0' || strcmp(r->link, link->name) == 0);
}

/* ---- on connections ---- */

bool
rules_on_connect(Conn *c)
{
	Rule	   *r = NULL;

	for (int i = 0; i < nrules && r == NULL; i++)
		if (concerns(&rules[i], c->link, true) && fires(&rules[i]))
			r = &rules[i];
	if (r == NULL)
		return true;
	r->fired++;
	trace("rule %d: %s on connection %u of %s", r->id, actions[r->action].name, c->number,
		  c->link->name);
	switch (actions[r->action].action)
	{
		case ACT_REFUSE:
		case ACT_RST:
			conn_close(c, true);
			return false;
		case ACT_DROP:
			conn_close(c, false);
			return false;
		case ACT_SILENT:
			c->silent = true;
			return false;
		case ACT_DELAY:
			c->held_back = true;
			c->start_us = now_us() + (uint64_t) r->number * 1000;
			break;
		case ACT_THROTTLE:
			c->flow[TO_SERVER].rate = c->flow[TO_CLIENT].rate = (uint64_t) r->number;
			break;
		default:
			break;
	}
	return true;
}

/* ---- on messages ---- */

/* A copy of the message that may be changed. */
static uint8_t *
copy_of(const Message *m, size_t more)
{
	uint8_t    *copy = malloc(m->bytes + more);

	if (copy == NULL)
		abort();
	memcpy(copy, m->data, m->bytes);
	return copy;
}

static void
put_changed(Flow *f, const Message *m, size_t at, uint8_t mask)
{
	uint8_t    *copy = copy_of(m, 0);

	if (at < m->bytes)
		copy[at] ^= mask;
	flow_put(f, copy, m->bytes, 0);
	free(copy);
}

/* The last byte of a field of a v3 answer, counted from the message's type byte. */
static size_t
echo_offset(const char *field)
{
	if (strcmp(field, "lsn") == 0)
		return 5 + 24;			/* of not_modified_since */
	if (strcmp(field, "rel") == 0)
		return 5 + 36;
	return 5 + 41;				/* the block of GetPage */
}

static void
put_error(Flow *f, const Message *m, const char *text)
{
	uint8_t		buffer[256];
	NcWriter	w = nc_writer(buffer, sizeof(buffer));
	uint8_t    *length_at;
	char		message[64];

	snprintf(message, sizeof(message), "%s", text);
	for (char *p = message; *p != '\0'; p++)
		if (*p == '_')
			*p = ' ';
	nc_write_u8(&w, 'd');
	length_at = nc_write_space(&w, 4);
	nc_write_u8(&w, NC_RESP_ERROR);
	if (f->conn->version >= 3)
		nc_write_bytes(&w, m->data + 6, NC_RESP_V3_HEADER_BYTES - 1);
	nc_write_cstring(&w, message);
	nc_write_length_at(&w, length_at);
	flow_put(f, buffer, nc_writer_bytes(&w), 0);
}

static void
put_pgerror(Flow *f, const char *code)
{
	uint8_t		buffer[256];
	NcWriter	w = nc_writer(buffer, sizeof(buffer));
	uint8_t    *length_at;

	nc_write_u8(&w, 'E');
	length_at = nc_write_space(&w, 4);
	nc_write_u8(&w, 'S');
	nc_write_cstring(&w, "ERROR");
	nc_write_u8(&w, 'C');
	nc_write_cstring(&w, code);
	nc_write_u8(&w, 'M');
	nc_write_cstring(&w, "injected by the fault proxy");
	nc_write_u8(&w, 0);
	nc_write_length_at(&w, length_at);
	flow_put(f, buffer, nc_writer_bytes(&w), 0);
}

/* ---- lying ---- */

static bool
is_page(const Flow *f, const Message *m)
{
	return f->direction == TO_CLIENT && m->tag == NC_RESP_GETPAGE && f->conn->version == 3 &&
		m->bytes == PAGE_AT + PAGE_BYTES;
}

static OldPage *
old_page(const Message *m)
{
	const uint8_t *key = m->data + 5 + NC_RESP_V3_HEADER_BYTES;
	uint32_t	hash = 0;

	for (int i = 0; i < 17; i++)
		hash = hash * 31 + key[i];
	return &old_pages[hash % OLD_PAGES];
}

static bool
has_older(const Message *m)
{
	const OldPage *old = old_page(m);

	return old->used && memcmp(old->key, m->data + 5 + NC_RESP_V3_HEADER_BYTES, 17) == 0 &&
		memcmp(old->page, m->data + PAGE_AT, PAGE_BYTES) != 0;
}

/* Remembers pages once there is a rule that lies. */
static void
remember_page(const Message *m)
{
	OldPage    *old = old_page(m);

	if (!old->used)
	{
		memcpy(old->key, m->data + 5 + NC_RESP_V3_HEADER_BYTES, sizeof(old->key));
		memcpy(old->page, m->data + PAGE_AT, PAGE_BYTES);
		old->used = true;
	}
	memcpy(last_page, m->data + PAGE_AT, PAGE_BYTES);
	memcpy(last_block, m->data + PAGE_AT - sizeof(last_block), sizeof(last_block));
	last_known = true;
}

/*
 * A page names no relation: one of the same block of another relation has a right
 * checksum, and no client in the world can tell it.  Such a lie proves nothing.
 */
static bool
has_other(const Message *m)
{
	return last_known &&
		memcmp(last_block, m->data + PAGE_AT - sizeof(last_block), sizeof(last_block)) != 0;
}

static void
put_lie(Flow *f, const Message *m, const char *kind)
{
	uint8_t    *copy = copy_of(m, 0);
	uint8_t    *page = copy + PAGE_AT;

	if (strcmp(kind, "zero") == 0)
		memset(page, 0, PAGE_BYTES);
	else if (strcmp(kind, "other") == 0)
		memcpy(page, last_page, PAGE_BYTES);
	else if (strcmp(kind, "old") == 0)
		memcpy(page, old_page(m)->page, PAGE_BYTES);
	else
		/* the high half of the page's LSN, as the little-endian machines store it */
		page[0] += 1;
	flow_put(f, copy, m->bytes, 0);
	free(copy);
}

/* What is queued leaves, then both sides are closed. */
static void
end_after_queue(Flow *f)
{
	Conn	   *c = f->conn;

	f->ended = true;
	if (c->fd[!f->direction] >= 0)
		close(c->fd[!f->direction]);
	c->fd[!f->direction] = -1;
	c->flow[!f->direction].ended = c->flow[!f->direction].end_sent = true;
}

/* Can the rule's action be done to this message? What cannot is not counted as fired. */
static bool
applicable(const Rule *r, const Flow *f, const Message *m)
{
	bool		answer = f->direction == TO_CLIENT && m->type == 'd' && f->conn->version != 0;

	switch (actions[r->action].action)
	{
		case ACT_SWAP:
			/* learn() has counted this one off */
			return answer && f->held == NULL && f->conn->outstanding > 0;
		case ACT_WRONGID:
		case ACT_WRONGECHO:
			return answer && f->conn->version >= 3 && m->bytes > 5 + 46;
		case ACT_LIE:
			return is_page(f, m) && (strcmp(r->text, "old") != 0 || has_older(m)) &&
				(strcmp(r->text, "other") != 0 || has_other(m));
		case ACT_ERROR:
			return answer && m->bytes >= 5 + NC_RESP_V3_HEADER_BYTES;
		default:
			return true;
	}
}

/* Where requests and answers of v3 name relation and block, counted from the message's type byte. */
#define REL_AT (5 + NC_RESP_V3_HEADER_BYTES + 8)
#define FORK_AT (REL_AT + 4)
#define BLOCK_AT (FORK_AT + 1)

static bool
names(const Message *m, size_t at, int64_t wanted)
{
	NcReader	r;

	if (wanted < 0)
		return true;
	if (m->bytes < at + 4)
		return false;
	r = nc_reader(m->data + at, 4);
	return nc_read_u32(&r) == wanted;
}

/* Is the message about the relation and the block of the rule? Blocks are those of the main fork. */
static bool
is_about(const Rule *r, const Flow *f, const Message *m)
{
	int			tag = answer_tag(m->tag);

	if (r->rel < 0 && r->block < 0)
		return true;
	if (f->conn->version != 3 || m->type != 'd' || !names(m, REL_AT, r->rel))
		return false;
	if (r->block < 0)
		return tag == NC_RESP_GETPAGE || tag == NC_RESP_EXISTS || tag == NC_RESP_NBLOCKS;
	return tag == NC_RESP_GETPAGE && m->data[FORK_AT] == 0 && names(m, BLOCK_AT, r->block);
}

static bool
matches(const Rule *r, const Flow *f, const Message *m)
{
	return concerns(r, f->conn->link, false) && r->direction == f->direction &&
		(r->type == 0 || r->type == m->type) && (r->tag == TAG_ANY || r->tag == m->tag) &&
		is_about(r, f, m) && f->bytes >= r->after && applicable(r, f, m);
}

/* True when the message is not to be passed on as it is. */
static bool
act(const Rule *r, Flow *f, const Message *m)
{
	Conn	   *c = f->conn;
	size_t		at;

	switch (actions[r->action].action)
	{
		case ACT_PASS:
		case ACT_REFUSE:
			return false;
		case ACT_THROTTLE:
			f->rate = (uint64_t) r->number;
			return false;
		case ACT_DELAY:
			flow_put(f, m->data, m->bytes, (uint64_t) r->number * 1000);
			return true;
		case ACT_HOLD:
			flow_put(f, m->data, m->bytes, NEVER_US);
			return true;
		case ACT_DROP:
			conn_close(c, false);
			return true;
		case ACT_RST:
			conn_close(c, true);
			return true;
		case ACT_HALFOPEN:
			if (c->fd[TO_SERVER] >= 0)
				close(c->fd[TO_SERVER]);
			c->fd[TO_SERVER] = -1;
			c->silent = true;
			return true;
		case ACT_SILENT:
			c->silent = true;
			return true;
		case ACT_TRUNCATE:
			flow_put(f, m->data, (size_t) r->number < m->bytes ? (size_t) r->number : m->bytes, 0);
			end_after_queue(f);
			return true;
		case ACT_STALL:
			flow_put(f, m->data, m->bytes / 2, 0);
			flow_put(f, m->data + m->bytes / 2, m->bytes - m->bytes / 2,
					 r->number < 0 ? NEVER_US : (uint64_t) r->number * 1000);
			return true;
		case ACT_CORRUPT:
			at = r->number >= 0 || m->bytes <= 5 ? (size_t) r->number :
				5 + random_next() % (m->bytes - 5);
			put_changed(f, m, at, 0xff);
			return true;
		case ACT_EAT:
			return true;
		case ACT_DUP:
			flow_put(f, m->data, m->bytes, 0);
			flow_put(f, m->data, m->bytes, 0);
			return true;
		case ACT_SWAP:
			f->held = copy_of(m, 0);
			f->held_bytes = m->bytes;
			return true;
		case ACT_WRONGID:
			put_changed(f, m, 5 + 8, 1);
			return true;
		case ACT_WRONGECHO:
			put_changed(f, m, echo_offset(r->text), 1);
			return true;
		case ACT_LIE:
			put_lie(f, m, r->text);
			return true;
		case ACT_ERROR:
			put_error(f, m, r->text);
			return true;
		case ACT_PGERROR:
			put_pgerror(f, r->text);
			end_after_queue(f);
			return true;
	}
	return false;
}

bool
rules_on_message(Flow *f, const Message *m)
{
	bool		page = lies_wanted && is_page(f, m);

	for (int i = 0; i < nrules; i++)
	{
		Rule	   *r = &rules[i];

		if (!matches(r, f, m) || !fires(r))
			continue;
		r->fired++;
		trace("rule %d: %s on %c/%d of connection %u of %s", r->id, actions[r->action].name,
			  m->type != 0 ? m->type : '0', m->tag, f->conn->number, f->conn->link->name);
		return act(r, f, m);
	}
	if (page)
		remember_page(m);
	return false;
}
