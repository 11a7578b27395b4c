/*
 * members.c
 *	  Members, promises and the order of incarnations; see nc/identity/members.h.
 */
#include "nc/identity/members.h"

#include <string.h>

#include "text.h"

/* An ordered id: two zero bytes, the number with its highest byte first, random bytes. */
#define NUMBER_AT 2
#define RANDOM_AT 6

bool
nc_id_number(const NcId *id, uint32_t *number)
{
	uint32_t	n = 0;

	for (int i = NUMBER_AT; i < RANDOM_AT; i++)
		n = n << 8 | id->b[i];
	*number = n;
	return id->b[0] == 0 && id->b[1] == 0 && n != 0;
}

bool
nc_id_make_numbered(NcId *id, uint32_t number)
{
	if (!nc_id_make(id))
		return false;
	memset(id->b, 0, NUMBER_AT);
	for (int i = 0; i < RANDOM_AT - NUMBER_AT; i++)
		id->b[NUMBER_AT + i] = (uint8_t) (number >> (24 - 8 * i));
	return true;
}

bool
nc_id_newer(const NcId *a, const NcId *b)
{
	uint32_t	na;
	uint32_t	nb;

	return nc_id_number(a, &na) && nc_id_number(b, &nb) && memcmp(a->b, b->b, NC_ID_BYTES) > 0;
}

const NcMember *
nc_member_find(const NcMembers *members, const NcId *id)
{
	for (uint32_t i = 0; i < members->n; i++)
	{
		if (nc_id_equal(&members->at[i].id, id))
			return &members->at[i];
	}
	return NULL;
}

const NcMember *
nc_member_of_any(const NcMemberLists *lists, const NcId *id)
{
	const NcMember *found = nc_member_find(&lists->now, id);

	return found != NULL ? found : nc_member_find(&lists->next, id);
}

void
nc_members_first(NcMemberLists *lists, const NcMembers *next)
{
	lists->next = *next;
	lists->change++;
}

void
nc_members_second(NcMemberLists *lists, bool back)
{
	if (!back)
		lists->now = lists->next;
	memset(&lists->next, 0, sizeof(lists->next));
	lists->decided = 0;
	lists->change++;
}

/* ---- text ---- */

size_t
nc_members_write(const NcMemberLists *lists, char *to, size_t room)
{
	NcOut		out = nc_out(to, room);

	nc_out_printf(&out, NC_MEMBERS_ENTRY);
	nc_out_members(&out, lists);
	return nc_out_done(&out);
}

bool
nc_members_parse(const char *text, size_t bytes, NcMemberLists *lists)
{
	NcText		t = nc_text(text, bytes);

	memset(lists, 0, sizeof(*lists));
	nc_text_expect(&t, NC_MEMBERS_ENTRY);
	nc_text_members(&t, lists);
	return nc_text_done(&t) && lists->now.write_quorum != 0;
}

size_t
nc_promise_write(const NcPromise *promise, char *to, size_t room)
{
	NcOut		out = nc_out(to, room);
	char		id[NC_ID_TEXT];

	nc_out_printf(&out, "neon_comm promise 1\npromised %s\n", nc_id_text(&promise->promised, id));
	nc_out_members(&out, &promise->members);
	return nc_out_done(&out);
}

const char *
nc_promise_parse(const char *text, size_t bytes, NcPromise *out)
{
	NcText		t = nc_text(text, bytes);

	memset(out, 0, sizeof(*out));
	nc_text_expect(&t, "neon_comm promise 1\npromised ");
	nc_text_id(&t, true, &out->promised);
	nc_text_expect(&t, "\n");
	nc_text_members(&t, &out->members);
	return nc_text_done(&t) ? NULL : "it is not a text of this version, or it has been damaged";
}
