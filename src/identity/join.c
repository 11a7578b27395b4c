/*
 * join.c
 *	  NEON_COMM_JOIN, its answer, and what a reader's connection says.
 */
#include "nc/identity/join.h"

#include <string.h>

#include "text.h"

static const char *const verdict_words[] = {
	[NC_JOINED] = "joined", [NC_PARTED] = "parted", [NC_REFUSED] = "refused"
};

/* ---- the command ---- */

static void
out_id(NcOut *out, const NcId *id)
{
	char		text[NC_ID_TEXT];

	nc_out_printf(out, " %s", nc_id_text(id, text));
}

size_t
nc_join_write(const NcEvidence *e, char *to)
{
	NcOut		out = nc_out(to, NC_JOIN_BYTES_MAX);

	nc_out_printf(&out, NC_JOIN_COMMAND " 1 %" PRIu64 " %" PRIu32, e->system_identifier,
				  e->timeline);
	out_id(&out, &e->birth);
	out_id(&out, &e->member);
	out_id(&out, &e->incarnation);
	nc_out_printf(&out, " " NC_LSN_FMT " " NC_LSN_FMT " ", NC_LSN_ARGS(e->start),
				  NC_LSN_ARGS(e->end));
	nc_out_hex(&out, e->header, NC_WAL_HEADER_BYTES);
	nc_out_printf(&out, " %" PRIu64 " %" PRIu64 " %s", e->chain.number, e->chain.random,
				  e->name[0] != '\0' ? e->name : "-");
	if (!nc_id_is_none(&e->promised))
		out_id(&out, &e->promised);
	return nc_out_done(&out);
}

bool
nc_join_parse(const char *text, NcEvidence *e)
{
	NcText		t = nc_text(text, strlen(text));

	memset(e, 0, sizeof(*e));
	nc_text_expect(&t, NC_JOIN_COMMAND " 1 ");
	e->system_identifier = nc_text_u64(&t);
	nc_text_expect(&t, " ");
	e->timeline = nc_text_u32(&t);
	nc_text_expect(&t, " ");
	nc_text_id(&t, true, &e->birth);
	nc_text_expect(&t, " ");
	nc_text_id(&t, false, &e->member);
	nc_text_expect(&t, " ");
	nc_text_id(&t, true, &e->incarnation);
	nc_text_expect(&t, " ");
	e->start = nc_text_lsn(&t);
	nc_text_expect(&t, " ");
	e->end = nc_text_lsn(&t);
	nc_text_expect(&t, " ");
	nc_text_hex(&t, e->header, NC_WAL_HEADER_BYTES);
	nc_text_expect(&t, " ");
	e->chain.number = nc_text_u64(&t);
	nc_text_expect(&t, " ");
	e->chain.random = nc_text_u64(&t);
	nc_text_expect(&t, " ");
	nc_text_word(&t, e->name, sizeof(e->name));
	if (strcmp(e->name, "-") == 0)
		e->name[0] = '\0';
	if (nc_text_accept(&t, " "))
		nc_text_id(&t, false, &e->promised);
	return nc_text_done(&t) && e->timeline != 0 && e->start != 0 && e->start % 8 == 0 &&
		e->end > e->start && nc_id_is_none(&e->birth) == nc_id_is_none(&e->incarnation);
}

/* ---- the answer ---- */

size_t
nc_join_answer_write(const NcJoinAnswer *a, char *to, size_t room)
{
	NcOut		out = nc_out(to, room);
	char		id[NC_ID_TEXT];

	nc_out_printf(&out, "%s 1\nbirth %s\n", verdict_words[a->kind], nc_id_text(&a->birth, id));
	nc_out_incarnation(&out, "present", &a->present);
	if (a->kind == NC_JOINED)
	{
		nc_out_printf(&out, "chain %" PRIu64 " %" PRIu64 "\n", a->chain.number, a->chain.random);
		for (uint32_t i = 0; i < a->lineage.n; i++)
			nc_out_incarnation(&out, "incarnation", &a->lineage.at[i]);
		nc_out_members(&out, &a->members);
	}
	else
		nc_out_printf(&out, "message %s\ndetail %s\nhint %s\n", a->message, a->detail, a->hint);
	return nc_out_done(&out);
}

static NcVerdictKind
read_verdict(NcText *t)
{
	for (int i = 0; i < (int) (sizeof(verdict_words) / sizeof(verdict_words[0])); i++)
	{
		if (nc_text_accept(t, verdict_words[i]))
			return (NcVerdictKind) i;
	}
	t->failed = true;
	return NC_REFUSED;
}

static void
read_incarnation(NcText *t, NcIncarnation *in)
{
	nc_text_id(t, false, &in->id);
	nc_text_expect(t, " ");
	in->began = nc_text_lsn_or_none(t);
	nc_text_expect(t, "\n");
}

static void
read_joined(NcText *t, NcJoinAnswer *a)
{
	nc_text_expect(t, "chain ");
	a->chain.number = nc_text_u64(t);
	nc_text_expect(t, " ");
	a->chain.random = nc_text_u64(t);
	nc_text_expect(t, "\n");
	while (nc_text_accept(t, "incarnation "))
	{
		NcIncarnation in;

		read_incarnation(t, &in);
		if (t->failed || a->lineage.n == NC_JOIN_LINEAGE_MAX)
		{
			t->failed = true;
			return;
		}
		nc_lineage_append(&a->lineage, &in.id, in.began);
	}
	nc_text_members(t, &a->members);
}

static void
read_join_text(NcText *t, const char *word, char *to)
{
	nc_text_expect(t, word);
	nc_text_rest(t, to, NC_JOIN_TEXT_BYTES);
	nc_text_expect(t, "\n");
}

/* The lineage ends with the present incarnation, and what began earlier stands earlier. */
static bool
lineage_in_order(const NcJoinAnswer *a)
{
	NcLsn		began = 0;

	for (uint32_t i = 0; i < a->lineage.n; i++)
	{
		if (a->lineage.at[i].began != 0 && a->lineage.at[i].began < began)
			return false;
		began = a->lineage.at[i].began != 0 ? a->lineage.at[i].began : began;
	}
	return a->lineage.n > 0 &&
		nc_id_equal(&a->lineage.at[a->lineage.n - 1].id, &a->present.id);
}

bool
nc_join_answer_parse(const char *text, size_t bytes, NcJoinAnswer *a)
{
	NcText		t = nc_text(text, bytes);

	memset(a, 0, sizeof(*a));
	a->kind = read_verdict(&t);
	nc_text_expect(&t, " 1\nbirth ");
	nc_text_id(&t, false, &a->birth);
	nc_text_expect(&t, "\npresent ");
	read_incarnation(&t, &a->present);
	if (a->kind == NC_JOINED)
	{
		read_joined(&t, a);
		return nc_text_done(&t) && a->chain.number != 0 && lineage_in_order(a);
	}
	read_join_text(&t, "message ", a->message);
	read_join_text(&t, "detail ", a->detail);
	read_join_text(&t, "hint ", a->hint);
	return nc_text_done(&t);
}

/* ---- readers ---- */

char *
nc_reader_text(const NcReaderIdentity *reader, char *to)
{
	nc_id_text(&reader->birth, to);
	to[NC_ID_TEXT - 1] = '.';
	nc_id_text(&reader->incarnation, to + NC_ID_TEXT);
	return to;
}

bool
nc_reader_parse(const char *text, NcReaderIdentity *out)
{
	NcText		t = nc_text(text, strlen(text));

	nc_text_id(&t, false, &out->birth);
	nc_text_expect(&t, ".");
	nc_text_id(&t, false, &out->incarnation);
	return nc_text_done(&t);
}

int
nc_reader_from_options(const char *options, NcReaderIdentity *out)
{
	static const char key[] = NC_READER_SETTING "=";
	const char *found = strstr(options, key);
	char		value[NC_READER_TEXT];
	size_t		n;

	if (found == NULL)
		return 0;
	found += sizeof(key) - 1;
	n = strcspn(found, " ");
	if (n != NC_READER_TEXT - 1 || strstr(found, key) != NULL)
		return -1;
	memcpy(value, found, n);
	value[n] = '\0';
	return nc_reader_parse(value, out) ? 1 : -1;
}
