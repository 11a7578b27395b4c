/*
 * text.c
 *	  Strict, bounded reading and writing of the module's texts.
 */
#include "text.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define U64_DIGITS_MAX 20
#define LSN_DIGITS_MAX 8

NcText
nc_text(const char *text, size_t bytes)
{
	return (NcText) {text, text + bytes, false};
}

static size_t
left(const NcText *t)
{
	return t->failed ? 0 : (size_t) (t->end - t->at);
}

bool
nc_text_accept(NcText *t, const char *literal)
{
	size_t		n = strlen(literal);

	if (left(t) < n || memcmp(t->at, literal, n) != 0)
		return false;
	t->at += n;
	return true;
}

void
nc_text_expect(NcText *t, const char *literal)
{
	if (!nc_text_accept(t, literal))
		t->failed = true;
}

static bool
printable(char c, bool blank_too)
{
	unsigned char u = (unsigned char) c;

	return u > ' ' ? u != 0x7f : blank_too && u == ' ';
}

static void
take_text(NcText *t, bool blanks, char *to, size_t room)
{
	size_t		n = 0;

	while (n < left(t) && printable(t->at[n], blanks))
		n++;
	to[0] = '\0';
	if (n == 0 || n >= room)
	{
		t->failed = true;
		return;
	}
	memcpy(to, t->at, n);
	to[n] = '\0';
	t->at += n;
}

void
nc_text_word(NcText *t, char *to, size_t room)
{
	take_text(t, false, to, room);
}

void
nc_text_rest(NcText *t, char *to, size_t room)
{
	take_text(t, true, to, room);
}

uint64_t
nc_text_u64(NcText *t)
{
	uint64_t	v = 0;
	size_t		n = 0;

	for (; n < left(t) && t->at[n] >= '0' && t->at[n] <= '9'; n++)
	{
		uint64_t	digit = (uint64_t) (t->at[n] - '0');

		if (n >= U64_DIGITS_MAX || v > (UINT64_MAX - digit) / 10)
			break;
		v = v * 10 + digit;
	}
	if (n == 0 || (n > 1 && t->at[0] == '0') ||
		(n < left(t) && t->at[n] >= '0' && t->at[n] <= '9'))
		t->failed = true;
	else
		t->at += n;
	return t->failed ? 0 : v;
}

uint32_t
nc_text_u32(NcText *t)
{
	uint64_t	v = nc_text_u64(t);

	if (v > UINT32_MAX)
		t->failed = true;
	return t->failed ? 0 : (uint32_t) v;
}

static int
hex_digit(char c, bool upper_too)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (upper_too && c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

static uint32_t
hex_u32(NcText *t)
{
	uint32_t	v = 0;
	size_t		n = 0;

	while (n < left(t) && n < LSN_DIGITS_MAX && hex_digit(t->at[n], true) >= 0)
		v = v << 4 | (uint32_t) hex_digit(t->at[n++], true);
	if (n == 0)
		t->failed = true;
	t->at += n;
	return v;
}

NcLsn
nc_text_lsn(NcText *t)
{
	uint32_t	high = hex_u32(t);
	uint32_t	low;

	nc_text_expect(t, "/");
	low = hex_u32(t);
	return t->failed ? 0 : (NcLsn) high << 32 | low;
}

NcLsn
nc_text_lsn_or_none(NcText *t)
{
	NcLsn		lsn;

	if (nc_text_accept(t, "-"))
		return 0;
	lsn = nc_text_lsn(t);
	if (lsn == 0)
		t->failed = true;
	return lsn;
}

void
nc_text_hex(NcText *t, uint8_t *to, size_t bytes)
{
	memset(to, 0, bytes);
	if (left(t) < bytes * 2)
	{
		t->failed = true;
		return;
	}
	for (size_t i = 0; i < bytes && !t->failed; i++)
	{
		int			high = hex_digit(t->at[i * 2], false);
		int			low = hex_digit(t->at[i * 2 + 1], false);

		if (high < 0 || low < 0)
			t->failed = true;
		else
			to[i] = (uint8_t) (high << 4 | low);
	}
	t->at += bytes * 2;
}

void
nc_text_id(NcText *t, bool none_allowed, NcId *out)
{
	memset(out, 0, sizeof(*out));
	if (none_allowed && nc_text_accept(t, "-"))
		return;
	nc_text_hex(t, out->b, NC_ID_BYTES);
	if (nc_id_is_none(out))
		t->failed = true;
}

bool
nc_text_done(const NcText *t)
{
	return !t->failed && t->at == t->end;
}

/* ---- writing ---- */

NcOut
nc_out(char *to, size_t room)
{
	return (NcOut) {to, 0, room, room == 0};
}

void
nc_out_printf(NcOut *out, const char *format, ...)
{
	va_list		args;
	int			n;

	if (out->failed)
		return;
	va_start(args, format);
	n = vsnprintf(out->start + out->used, out->room - out->used, format, args);
	va_end(args);
	if (n < 0 || (size_t) n >= out->room - out->used)
		out->failed = true;
	else
		out->used += (size_t) n;
}

void
nc_out_hex(NcOut *out, const uint8_t *bytes, size_t n)
{
	for (size_t i = 0; i < n; i++)
		nc_out_printf(out, "%02x", bytes[i]);
}

void
nc_out_incarnation(NcOut *out, const char *word, const NcIncarnation *in)
{
	char		id[NC_ID_TEXT];

	if (in->began == 0)
		nc_out_printf(out, "%s %s -\n", word, nc_id_text(&in->id, id));
	else
		nc_out_printf(out, "%s %s " NC_LSN_FMT "\n", word, nc_id_text(&in->id, id),
					  NC_LSN_ARGS(in->began));
}

size_t
nc_out_done(const NcOut *out)
{
	return out->failed ? 0 : out->used;
}

void
nc_one_line(const char *from, char *to, size_t room)
{
	size_t		n = 0;

	while (*from == ' ')
		from++;
	for (; *from != '\0' && n + 1 < room; from++)
		to[n++] = printable(*from, true) ? *from : ' ';
	to[n] = '\0';
	while (n > 0 && to[n - 1] == ' ')
		to[--n] = '\0';
}

/* ---- members ---- */

static void
out_list(NcOut *out, const char *prefix, const NcMembers *members)
{
	char		id[NC_ID_TEXT];

	nc_out_printf(out, "%swrite_quorum %" PRIu32 "\n", prefix, members->write_quorum);
	for (uint32_t i = 0; i < members->n; i++)
		nc_out_printf(out, "%smember %s %s\n", prefix, nc_id_text(&members->at[i].id, id), members->at[i].name);
}

void
nc_out_members(NcOut *out, const NcMemberLists *lists)
{
	if (lists->now.write_quorum == 0)
		return;
	out_list(out, "", &lists->now);
	if (lists->change != 0)
		nc_out_printf(out, "change %" PRIu32 "\n", lists->change);
	if (!nc_members_change(lists))
		return;
	out_list(out, "next_", &lists->next);
	if (lists->decided)
		nc_out_printf(out, "decided\n");
}

/* False: it is not there. */
static bool
text_list(NcText *t, const char *quorum, const char *member, NcMembers *members)
{
	if (!nc_text_accept(t, quorum))
		return false;
	members->write_quorum = nc_text_u32(t);
	nc_text_expect(t, "\n");
	while (!t->failed && nc_text_accept(t, member))
	{
		NcMember	m = {0};	/* compared as bytes */

		nc_text_id(t, false, &m.id);
		nc_text_expect(t, " ");
		nc_text_word(t, m.name, sizeof(m.name));
		nc_text_expect(t, "\n");
		if (members->n == NC_MEMBERS_MAX || t->failed)
			t->failed = true;
		else
			members->at[members->n++] = m;
	}
	if (members->write_quorum == 0 || members->write_quorum > members->n)
		t->failed = true;
	return true;
}

void
nc_text_members(NcText *t, NcMemberLists *lists)
{
	if (!text_list(t, "write_quorum ", "member ", &lists->now))
		return;
	if (nc_text_accept(t, "change "))
	{
		lists->change = nc_text_u32(t);
		nc_text_expect(t, "\n");
		if (lists->change == 0)
			t->failed = true;
	}
	if (lists->change != 0 && text_list(t, "next_write_quorum ", "next_member ", &lists->next))
		lists->decided = nc_text_accept(t, "decided\n");
}
