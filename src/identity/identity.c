/*
 * identity.c
 *	  Ids, lineages, and lists of who is refused for good.
 */
#include "nc/identity/identity.h"

#include <string.h>
#include <sys/random.h>

#include "text.h"

bool
nc_id_is_none(const NcId *id)
{
	static const NcId none;

	return nc_id_equal(id, &none);
}

bool
nc_id_equal(const NcId *a, const NcId *b)
{
	return memcmp(a->b, b->b, NC_ID_BYTES) == 0;
}

bool
nc_id_make(NcId *id)
{
	do
	{
		if (getrandom(id->b, NC_ID_BYTES, 0) != NC_ID_BYTES)
			return false;
	} while (nc_id_is_none(id));
	return true;
}

char *
nc_id_text(const NcId *id, char *to)
{
	static const char digits[] = "0123456789abcdef";

	if (nc_id_is_none(id))
		return strcpy(to, "-");
	for (int i = 0; i < NC_ID_BYTES; i++)
	{
		to[i * 2] = digits[id->b[i] >> 4];
		to[i * 2 + 1] = digits[id->b[i] & 15];
	}
	to[NC_ID_TEXT - 1] = '\0';
	return to;
}

bool
nc_id_parse(const char *text, bool none_allowed, NcId *out)
{
	NcText		t = nc_text(text, strlen(text));

	nc_text_id(&t, none_allowed, out);
	return nc_text_done(&t);
}

int
nc_lineage_find(const NcLineage *lineage, const NcId *id)
{
	for (int i = (int) lineage->n - 1; i >= 0; i--)
	{
		if (nc_id_equal(&lineage->at[i].id, id))
			return i;
	}
	return -1;
}

/*
 * The oldest that never began, if there is one: it sent no WAL of its own. A compute
 * that is started again and again and gets no further than recovery, because a
 * page server is away, must not forget what that one followed.
 */
static void
forget_one(NcLineage *lineage)
{
	uint32_t	gone = 0;

	while (gone < lineage->n && lineage->at[gone].began != 0)
		gone++;
	if (gone == lineage->n)
		gone = 0;
	lineage->n--;
	memmove(&lineage->at[gone], &lineage->at[gone + 1], sizeof(lineage->at[0]) * (lineage->n - gone));
	lineage->forgotten = true;
}

void
nc_lineage_append(NcLineage *lineage, const NcId *id, NcLsn began)
{
	if (lineage->n == NC_LINEAGE_MAX)
		forget_one(lineage);
	lineage->at[lineage->n++] = (NcIncarnation) {*id, began};
}

NcLsn
nc_lineage_next_began(const NcLineage *lineage, int index)
{
	for (uint32_t i = (uint32_t) index + 1; i < lineage->n; i++)
	{
		if (lineage->at[i].began != 0)
			return lineage->at[i].began;
	}
	return 0;
}

const NcParted *
nc_parted_find(const NcPartedList *list, const NcId *id)
{
	for (uint32_t i = 0; i < list->n; i++)
	{
		if (nc_id_equal(&list->at[i].id, id))
			return &list->at[i];
	}
	return NULL;
}

bool
nc_parted_add(NcPartedList *list, const NcId *id, const char *reason)
{
	NcParted   *parted;

	if (nc_parted_find(list, id) != NULL)
		return false;
	if (list->n == NC_PARTED_MAX)
	{
		memmove(&list->at[0], &list->at[1], sizeof(list->at[0]) * (NC_PARTED_MAX - 1));
		list->n--;
	}
	parted = &list->at[list->n++];
	parted->id = *id;
	nc_one_line(reason, parted->reason, sizeof(parted->reason));
	if (parted->reason[0] == '\0')
		strcpy(parted->reason, "parted");
	return true;
}
