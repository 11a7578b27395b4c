/*
 * texts.c
 *	  What is said about a verdict, by the compute, the page server and to readers.
 */
#include "nc/identity/judge.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "text.h"

static const char keep_hint[] =
	"Start the newest copy of the compute's data directory in place of this one. Page servers hold the only content of tables: remove nothing before you have read docs/identity.md.";
static const char anew_hint[] =
	"If this compute is the right one, make the page server anew from another page server; see docs/identity.md, and remove nothing that is the only copy.";

static void
put_text(char *to, const char *format, ...)
{
	char		text[NC_JOIN_TEXT_BYTES];
	va_list		args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	nc_one_line(text, to, NC_JOIN_TEXT_BYTES);
}

#define WHO_BYTES (NC_ID_TEXT + NC_MEMBER_NAME_BYTES + 8)

/* "ps0 (member ab..)" */
static char *
who(const NcEvidence *e, char to[WHO_BYTES])
{
	char		id[NC_ID_TEXT];

	snprintf(to, WHO_BYTES, e->name[0] != '\0' ? "%2$s (%1$s)" : "%1$s",
			 nc_id_text(&e->member, id), e->name);
	return to;
}

static void
say_life(NcJoinAnswer *a, const NcEvidence *e, NcVerdict v)
{
	char		id[WHO_BYTES];

	put_text(a->message, "page server and compute have parted: the page server has followed another life of this compute");
	if (v.reason == NC_REASON_OTHER_SESSION)
		put_text(a->detail, "Page server %s had a session with incarnation %s that this compute did not give: its machine was put back to a snapshot, and both lives went on.",
			who(e, id), nc_id_text(&e->incarnation, (char[NC_ID_TEXT]) {0}));
	else if (v.reason == NC_REASON_OTHER_LIFE)
		put_text(a->detail, "Page server %s followed incarnation %s, which is not in the lineage of this compute: this is an older copy of the one that it followed, or a copy beside it.",
			who(e, id), nc_id_text(&e->incarnation, (char[NC_ID_TEXT]) {0}));
	else
		put_text(a->detail, "Page server %s has WAL up to " NC_LSN_FMT " of an incarnation after which this compute went on from " NC_LSN_FMT ".",
			who(e, id), NC_LSN_ARGS(e->end), NC_LSN_ARGS(v.lsn));
	put_text(a->hint, "%s", keep_hint);
}

static void
say_wal(NcJoinAnswer *a, const NcEvidence *e, NcVerdict v)
{
	char		id[WHO_BYTES];

	if (v.reason == NC_REASON_BEYOND)
	{
		put_text(a->message, "page server and compute have parted: the page server has WAL that this compute does not have");
		put_text(a->detail, "Page server %s has WAL up to " NC_LSN_FMT ", this compute only up to " NC_LSN_FMT ".",
			who(e, id), NC_LSN_ARGS(e->end), NC_LSN_ARGS(v.lsn));
	}
	else
	{
		put_text(a->message, "page server and compute have parted: their WAL differs");
		put_text(a->detail, "The record at " NC_LSN_FMT " that page server %s replayed last is another one here.",
			NC_LSN_ARGS(e->start), who(e, id));
	}
	put_text(a->hint, "%s", keep_hint);
}

static void
say_forgotten(NcJoinAnswer *a, const NcEvidence *e, NcVerdict v)
{
	char		id[WHO_BYTES];

	put_text(a->message, "page server is too old to be compared with this compute");
	if (v.reason == NC_REASON_FORGOTTEN)
		put_text(a->detail, "Page server %s followed an incarnation that is older than the last %d, which this compute remembers.",
			who(e, id), NC_LINEAGE_MAX);
	else
		put_text(a->detail, "The WAL at " NC_LSN_FMT ", where page server %s stopped, is not here any more.",
			NC_LSN_ARGS(v.lsn), who(e, id));
	put_text(a->hint, "Bring the WAL back into pg_wal of the compute, or make the page server anew from another one, and remove nothing that is the only copy.");
}

static void
say(NcJoinAnswer *a, const NcComputeView *me, const NcEvidence *e, NcVerdict v)
{
	const NcParted *parted = nc_parted_find(&me->identity->parted, &e->member);
	char		id[WHO_BYTES];

	who(e, id);
	switch (v.reason)
	{
		case NC_REASON_STRANGER:
			put_text(a->message, "page server belongs to another compute");
			put_text(a->detail, "Page server %s is of another cluster, or was adopted from the same original by another one.", id);
			put_text(a->hint, "Correct primary_conninfo of the page server, or neon_comm.page_servers of the compute.");
			break;
		case NC_REASON_REMEMBERED:
			put_text(a->message, "page server and compute have parted before");
			put_text(a->detail, "Of page server %s is remembered: %s.", id,
				parted != NULL ? parted->reason : "it was refused");
			put_text(a->hint, "%s", keep_hint);
			break;
		case NC_REASON_OTHER_SESSION:
		case NC_REASON_OTHER_LIFE:
		case NC_REASON_BEYOND_LIFE:
			say_life(a, e, v);
			break;
		case NC_REASON_BEYOND:
		case NC_REASON_OTHER_RECORD:
			say_wal(a, e, v);
			break;
		case NC_REASON_FORGOTTEN:
		case NC_REASON_WAL_GONE:
			say_forgotten(a, e, v);
			break;
		case NC_REASON_RESUMED:
			put_text(a->message, "this compute has gone back in time while it ran and must be restarted");
			put_text(a->detail, "Page server %s followed this very start of the compute further than, or otherwise than, the compute remembers: its machine was resumed from a snapshot.", id);
			put_text(a->hint, "Stop this compute. If its original still runs, that one may go on and this one must not be started again; otherwise start it.");
			break;
		case NC_REASON_PROMOTED:
			put_text(a->message, "page server has been promoted");
			put_text(a->detail, "Page server %s is on timeline %u, this compute on timeline %u: what it wrote itself is in no compute.", id, e->timeline, me->timeline);
			put_text(a->hint, "%s", anew_hint);
			break;
		case NC_REASON_PROMISED:
			put_text(a->message, "this compute was overtaken: a page server has promised itself to a newer one");
			put_text(a->detail, "Page server %s takes WAL of incarnation %s and what follows it only, which is no part of this compute.", id,
				nc_id_text(&e->promised, (char[NC_ID_TEXT]) {0}));
			put_text(a->hint, "A new compute was made of page servers, or will be (docs/takeover.md). This one must not go on.");
			break;
		case NC_REASON_NONE:
		case NC_REASON_NOT_MINE:
		case NC_REASON_OVERTAKEN:
		case NC_REASON_UNJUDGED:
			put_text(a->message, "page server is refused");
			put_text(a->detail, "Page server %s.", id);
			put_text(a->hint, "%s", anew_hint);
			break;
	}
}

void
nc_join_answer_fill(NcJoinAnswer *a, const NcComputeView *me, const NcEvidence *e, NcVerdict v,
					NcChain chain)
{
	const NcLineage *lineage = &me->identity->lineage;
	int			from = nc_id_is_none(&e->incarnation) ? 0 :
		nc_lineage_find(lineage, &e->incarnation);

	memset(a, 0, sizeof(*a));
	a->kind = v.kind;
	a->birth = me->identity->birth;
	a->present = lineage->at[lineage->n - 1];
	if (v.kind != NC_JOINED)
	{
		say(a, me, e, v);
		return;
	}
	a->chain = chain;
	if (from < 0)
		from = (int) lineage->n - 1;
	if ((int) lineage->n - from > NC_JOIN_LINEAGE_MAX)
		from = (int) lineage->n - NC_JOIN_LINEAGE_MAX;
	for (int i = from; i < (int) lineage->n; i++)
		nc_lineage_append(&a->lineage, &lineage->at[i].id, lineage->at[i].began);
}

bool
nc_member_verdict_fill(NcJoinAnswer *a, NcVerdict v)
{
	switch (v.reason)
	{
		case NC_REASON_STRANGER:
			put_text(a->message, "this page server belongs to another compute");
			put_text(a->detail, "It followed a compute that was made apart from this one.");
			put_text(a->hint, "Correct primary_conninfo of the page server.");
			return true;
		case NC_REASON_REMEMBERED:
		case NC_REASON_NOT_MINE:
			put_text(a->message, "page server and compute have parted: this page server has followed another life of this compute");
			put_text(a->detail, "The lineage of this compute does not go on from what this page server has followed, or it was refused before.");
			put_text(a->hint, "%s", keep_hint);
			return true;
		case NC_REASON_PROMOTED:
			put_text(a->message, "this page server has been promoted");
			put_text(a->detail, "It has a timeline that no compute gave to it.");
			put_text(a->hint, "%s", anew_hint);
			return true;
		case NC_REASON_PROMISED:
			put_text(a->message, "this page server has promised itself to a newer compute");
			put_text(a->detail, "A takeover has its promise: it takes nothing from, and grants nothing to the compute that it followed before.");
			put_text(a->hint, "The new compute comes to it, or the takeover has to be done again (docs/takeover.md).");
			return true;
		case NC_REASON_UNJUDGED:
			put_text(a->message, "this page server has lost the end of its WAL, and some of what it replayed before has never been compared");
			put_text(a->detail, "Its pages are newer than the last record in pg_wal, and nobody can tell whether they are of this compute.");
			put_text(a->hint, "Bring the missing WAL back into pg_wal of this page server, or put a copy of another page server in its place.");
			return true;
		default:
			return false;
	}
}
