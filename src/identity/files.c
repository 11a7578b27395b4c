/*
 * files.c
 *	  compute_identity, page_service_identity and page_service_unjudged as text.
 */
#include "nc/identity/files.h"

#include <string.h>

#include "text.h"

static const char not_understood[] = "it is not a text of this version, or it has been damaged";

/* ---- what both have ---- */

static void
write_lineage(NcOut *out, const NcLineage *lineage)
{
	if (lineage->forgotten)
		nc_out_printf(out, "forgotten\n");
	for (uint32_t i = 0; i < lineage->n; i++)
		nc_out_incarnation(out, "incarnation", &lineage->at[i]);
}

static void
write_parted(NcOut *out, const char *word, const NcPartedList *list)
{
	char		id[NC_ID_TEXT];

	for (uint32_t i = 0; i < list->n; i++)
		nc_out_printf(out, "%s %s %s\n", word, nc_id_text(&list->at[i].id, id),
					  list->at[i].reason);
}

static void
read_lineage(NcText *t, NcLineage *lineage)
{
	lineage->forgotten = nc_text_accept(t, "forgotten\n");
	while (nc_text_accept(t, "incarnation "))
	{
		NcId		id;
		NcLsn		began;

		nc_text_id(t, false, &id);
		nc_text_expect(t, " ");
		began = nc_text_lsn_or_none(t);
		nc_text_expect(t, "\n");
		if (t->failed)
			return;
		nc_lineage_append(lineage, &id, began);
	}
}

static void
read_parted(NcText *t, const char *word, NcPartedList *list)
{
	while (nc_text_accept(t, word))
	{
		NcId		id;
		char		reason[NC_REASON_BYTES];

		nc_text_id(t, false, &id);
		nc_text_expect(t, " ");
		nc_text_rest(t, reason, sizeof(reason));
		nc_text_expect(t, "\n");
		if (t->failed)
			return;
		nc_parted_add(list, &id, reason);
	}
}

static void
read_home_place(NcText *t, char *place)
{
	nc_text_expect(t, "place ");
	nc_text_word(t, place, NC_PLACE_BYTES);
	nc_text_expect(t, "\n");
}

/* ---- a compute ---- */

static void
write_session(NcOut *out, const NcSession *session)
{
	char		member[NC_ID_TEXT];
	char		incarnation[NC_ID_TEXT];

	nc_out_printf(out, "session %s %s %" PRIu64 " %" PRIu64 "\n",
				  nc_id_text(&session->member, member),
				  nc_id_text(&session->incarnation, incarnation),
				  session->chain.number, session->chain.random);
}

static void
read_sessions(NcText *t, NcComputeIdentity *out)
{
	while (nc_text_accept(t, "session "))
	{
		NcSession	session;

		nc_text_id(t, false, &session.member);
		nc_text_expect(t, " ");
		nc_text_id(t, false, &session.incarnation);
		nc_text_expect(t, " ");
		session.chain.number = nc_text_u64(t);
		nc_text_expect(t, " ");
		session.chain.random = nc_text_u64(t);
		nc_text_expect(t, "\n");
		if (t->failed || out->nsessions == NC_SESSIONS_MAX)
		{
			t->failed = true;
			return;
		}
		out->sessions[out->nsessions++] = session;
	}
}

const NcSession *
nc_session_find(const NcComputeIdentity *identity, const NcId *member)
{
	for (uint32_t i = 0; i < identity->nsessions; i++)
		if (nc_id_equal(&identity->sessions[i].member, member))
			return &identity->sessions[i];
	return NULL;
}

/* The last one given stands last; when there is no room the oldest goes. */
NcChain
nc_session_give(NcComputeIdentity *identity, const NcId *member, uint64_t random)
{
	const NcId *present = &identity->lineage.at[identity->lineage.n - 1].id;
	const NcSession *old = nc_session_find(identity, member);
	NcSession	session = {*member, *present, {1, random}};
	uint32_t	at = old != NULL ? (uint32_t) (old - identity->sessions) : 0;

	if (old != NULL && nc_id_equal(&old->incarnation, present))
		session.chain.number = old->chain.number + 1;
	if (old != NULL || identity->nsessions == NC_SESSIONS_MAX)
	{
		identity->nsessions--;
		memmove(&identity->sessions[at], &identity->sessions[at + 1],
				sizeof(NcSession) * (identity->nsessions - at));
	}
	identity->sessions[identity->nsessions++] = session;
	return session.chain;
}

size_t
nc_compute_identity_write(const NcComputeIdentity *identity, char *to, size_t room)
{
	NcOut		out = nc_out(to, room);
	char		id[NC_ID_TEXT];

	nc_out_printf(&out, "neon_comm identity 1\nbirth %s\nplace %s\n",
				  nc_id_text(&identity->birth, id), identity->place);
	write_lineage(&out, &identity->lineage);
	if (!nc_id_is_none(&identity->booted))
		nc_out_printf(&out, "booted %s\n", nc_id_text(&identity->booted, id));
	write_parted(&out, "parted", &identity->parted);
	for (uint32_t i = 0; i < identity->nsessions; i++)
		write_session(&out, &identity->sessions[i]);
	return nc_out_done(&out);
}

const char *
nc_compute_identity_parse(const char *text, size_t bytes, NcComputeIdentity *out)
{
	NcText		t = nc_text(text, bytes);

	memset(out, 0, sizeof(*out));
	nc_text_expect(&t, "neon_comm identity 1\nbirth ");
	nc_text_id(&t, false, &out->birth);
	nc_text_expect(&t, "\n");
	read_home_place(&t, out->place);
	read_lineage(&t, &out->lineage);
	if (nc_text_accept(&t, "booted "))
	{
		nc_text_id(&t, false, &out->booted);
		nc_text_expect(&t, "\n");
	}
	read_parted(&t, "parted ", &out->parted);
	read_sessions(&t, out);
	return nc_text_done(&t) ? NULL : not_understood;
}

/* ---- a page server ---- */

size_t
nc_member_identity_write(const NcMemberIdentity *identity, char *to, size_t room)
{
	NcOut		out = nc_out(to, room);
	char		id[NC_ID_TEXT];

	nc_out_printf(&out, "neon_page_service identity 1\nmember %s\nplace %s\n",
				  nc_id_text(&identity->member, id), identity->place);
	nc_out_printf(&out, "birth %s\ntimeline %" PRIu32 "\n", nc_id_text(&identity->birth, id),
				  identity->timeline);
	write_lineage(&out, &identity->followed);
	nc_out_printf(&out, "chain %" PRIu64 " %" PRIu64 "\n", identity->chain.number,
				  identity->chain.random);
	write_parted(&out, "refused", &identity->refused);
	if (identity->promoted)
		nc_out_printf(&out, "promoted\n");
	return nc_out_done(&out);
}

const char *
nc_member_identity_parse(const char *text, size_t bytes, NcMemberIdentity *out)
{
	NcText		t = nc_text(text, bytes);

	memset(out, 0, sizeof(*out));
	nc_text_expect(&t, "neon_page_service identity 1\nmember ");
	nc_text_id(&t, false, &out->member);
	nc_text_expect(&t, "\n");
	read_home_place(&t, out->place);
	nc_text_expect(&t, "birth ");
	nc_text_id(&t, true, &out->birth);
	nc_text_expect(&t, "\ntimeline ");
	out->timeline = nc_text_u32(&t);
	nc_text_expect(&t, "\n");
	read_lineage(&t, &out->followed);
	nc_text_expect(&t, "chain ");
	out->chain.number = nc_text_u64(&t);
	nc_text_expect(&t, " ");
	out->chain.random = nc_text_u64(&t);
	nc_text_expect(&t, "\n");
	read_parted(&t, "refused ", &out->refused);
	out->promoted = nc_text_accept(&t, "promoted\n");
	return nc_text_done(&t) ? NULL : not_understood;
}

/* ---- what a page server replayed that no compute agreed to ---- */

size_t
nc_unjudged_write(const NcUnjudgedWal *wal, char to[NC_UNJUDGED_BYTES_MAX])
{
	NcOut		out = nc_out(to, NC_UNJUDGED_BYTES_MAX);

	if (!wal->ends)
		return 0;
	nc_out_printf(&out, "neon_page_service unjudged 1\nlast " NC_LSN_FMT " ", NC_LSN_ARGS(wal->last.start));
	nc_out_hex(&out, wal->last.header, NC_WAL_HEADER_BYTES);
	nc_out_printf(&out, "\n");
	return nc_out_done(&out);
}

const char *
nc_unjudged_parse(const char *text, size_t bytes, NcUnjudgedWal *out)
{
	NcText		t = nc_text(text, bytes);

	memset(out, 0, sizeof(*out));
	if (bytes == 0)
		return NULL;
	nc_text_expect(&t, "neon_page_service unjudged 1\nlast ");
	out->last.start = nc_text_lsn(&t);
	nc_text_expect(&t, " ");
	nc_text_hex(&t, out->last.header, NC_WAL_HEADER_BYTES);
	nc_text_expect(&t, "\n");
	out->ends = true;
	return nc_text_done(&t) ? NULL : not_understood;
}
