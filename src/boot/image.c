/*
 * image.c
 *	  The texts of a boot image.
 *
 * Parsing is lenient in its steps and strict as a whole: what was read is written
 * again and must be the same text.
 */
#include "nc/boot/image.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GLOBAL_SPACE 1664
#define DEFAULT_SPACE 1663

/* ---- the description ---- */

typedef struct Out
{
	char	   *to;
	size_t		room;
	size_t		used;			/* > room: did not fit */
} Out;

static void say(Out *out, const char *fmt,...) __attribute__((format(printf, 2, 3)));

static void
say(Out *out, const char *fmt,...)
{
	va_list		args;
	int			n;

	if (out->used >= out->room)
		return;
	va_start(args, fmt);
	n = vsnprintf(out->to + out->used, out->room - out->used, fmt, args);
	va_end(args);
	out->used += n < 0 ? out->room : (size_t) n;
}

size_t
nc_boot_description_write(const NcBootDescription *d, char *to, size_t room)
{
	Out			out = {to, room, 0};
	char		id[NC_ID_TEXT];

	say(&out, "neon_boot image 1\nsystem_identifier %" PRIu64 "\ntimeline %" PRIu32 "\n",
		d->system_identifier, d->timeline);
	say(&out, "segment_bytes %" PRIu32 "\ndata_checksums %s\ntablespace_directory %s\n", d->segment_bytes,
		d->checksums ? "on" : "off", d->tablespace_directory);
	say(&out, "cut " NC_LSN_FMT "\ncheckpoint " NC_LSN_FMT "\n", NC_LSN_ARGS(d->cut),
		NC_LSN_ARGS(d->checkpoint));
	say(&out, "birth %s\n%s", nc_id_text(&d->birth, id), d->lineage.forgotten ? "forgotten\n" : "");
	for (uint32_t i = 0; i < d->lineage.n; i++)
	{
		const NcIncarnation *life = &d->lineage.at[i];

		say(&out, "incarnation %s ", nc_id_text(&life->id, id));
		if (life->began == 0)
			say(&out, "-\n");
		else
			say(&out, NC_LSN_FMT "\n", NC_LSN_ARGS(life->began));
	}
	say(&out, "end\n");
	return out.used < room ? out.used : 0;
}

static NcLsn
lsn_of(uint32_t high, uint32_t low)
{
	return (NcLsn) high << 32 | low;
}

/* The lines before the lineage; where that begins, or NULL. */
static const char *
parse_head(const char *text, NcBootDescription *d)
{
	char		checksums[4];
	char		birth[NC_ID_TEXT];
	uint32_t	lsn[4];
	int			n = 0;

	(void) sscanf(text, "neon_boot image 1 system_identifier %" SCNu64 " timeline %" SCNu32
				  " segment_bytes %" SCNu32 " data_checksums %3s tablespace_directory %63s cut %" SCNx32 "/%" SCNx32
				  " checkpoint %" SCNx32 "/%" SCNx32 " birth %32s%n",
				  &d->system_identifier, &d->timeline, &d->segment_bytes, checksums, d->tablespace_directory,
				  &lsn[0], &lsn[1], &lsn[2], &lsn[3], birth, &n);
	if (n == 0 || text[n] != '\n' || !nc_id_parse(birth, false, &d->birth))
		return NULL;
	d->checksums = strcmp(checksums, "on") == 0;
	d->cut = lsn_of(lsn[0], lsn[1]);
	d->checkpoint = lsn_of(lsn[2], lsn[3]);
	return text + n + 1;
}

/* One line of the lineage; where the next one begins, or NULL. */
static const char *
parse_life(const char *at, NcLineage *lineage)
{
	char		text[NC_ID_TEXT];
	NcIncarnation life = {0};
	uint32_t	high;
	uint32_t	low;
	int			n = 0;

	if (lineage->n == NC_LINEAGE_MAX || sscanf(at, "incarnation %32s %n", text, &n) != 1 || n == 0 ||
		!nc_id_parse(text, false, &life.id))
		return NULL;
	at += n;
	if (strncmp(at, "-\n", 2) == 0)
		at += 2;
	else
	{
		n = 0;
		(void) sscanf(at, "%" SCNx32 "/%" SCNx32 "%n", &high, &low, &n);
		if (n == 0 || at[n] != '\n')
			return NULL;
		life.began = lsn_of(high, low);
		at += n + 1;
	}
	nc_lineage_append(lineage, &life.id, life.began);
	return at;
}

static bool
parse_all(const char *text, NcBootDescription *out)
{
	const char *at = parse_head(text, out);

	if (at == NULL)
		return false;
	if (strncmp(at, "forgotten\n", strlen("forgotten\n")) == 0)
	{
		out->lineage.forgotten = true;
		at += strlen("forgotten\n");
	}
	while (strcmp(at, "end\n") != 0)
	{
		at = parse_life(at, &out->lineage);
		if (at == NULL)
			return false;
	}
	return true;
}

static bool
is_written_so(const NcBootDescription *d, const char *text, size_t bytes)
{
	char	   *again = malloc(NC_BOOT_DESCRIPTION_BYTES_MAX);
	bool		same = again != NULL &&
		nc_boot_description_write(d, again, NC_BOOT_DESCRIPTION_BYTES_MAX) == bytes &&
		memcmp(again, text, bytes) == 0;

	free(again);
	return same;
}

/* It becomes a part of paths. */
static bool
is_directory_name(const char *name)
{
	return strncmp(name, "PG_", 3) == 0 && name[3 + strspn(name + 3, "0123456789_")] == '\0';
}

const char *
nc_boot_description_parse(const char *text, size_t bytes, NcBootDescription *out)
{
	memset(out, 0, sizeof(*out));
	if (strlen(text) != bytes || !parse_all(text, out) || !is_written_so(out, text, bytes))
		return "its description is not of this version, or it has been damaged";
	if (out->segment_bytes < 1024 * 1024 || out->segment_bytes > 1024 * 1024 * 1024 ||
		(out->segment_bytes & (out->segment_bytes - 1)) != 0 || out->cut == 0 ||
		out->checkpoint < out->cut || out->timeline == 0 || !is_directory_name(out->tablespace_directory))
		return "its description says what cannot be";
	return NULL;
}

/* ---- lengths ---- */

size_t
nc_boot_fork_write(const NcBootFork *f, char to[NC_BOOT_FORK_BYTES])
{
	return (size_t) snprintf(to, NC_BOOT_FORK_BYTES, "%" PRIu32 " %" PRIu32 " %" PRIu32 " %" PRIu32 "\n",
							 f->spc, f->db, f->rel, f->blocks);
}

static bool
parse_fork(const char *line, size_t bytes, NcBootFork *f)
{
	char		again[NC_BOOT_FORK_BYTES];

	if (sscanf(line, "%" SCNu32 " %" SCNu32 " %" SCNu32 " %" SCNu32, &f->spc, &f->db, &f->rel, &f->blocks) != 4)
		return false;
	return nc_boot_fork_write(f, again) == bytes && memcmp(again, line, bytes) == 0 && f->rel != 0 &&
		f->spc != 0 && (f->spc == GLOBAL_SPACE) == (f->db == 0);
}

bool
nc_boot_fork_read(NcBootForkReader *r, const char *text, size_t bytes,
				  bool (*visit) (void *arg, const NcBootFork *fork), void *arg)
{
	NcBootFork	fork;

	for (; bytes > 0; text++, bytes--)
	{
		if (r->have == NC_BOOT_FORK_BYTES - 1)
			return false;
		r->line[r->have++] = *text;
		if (*text != '\n')
			continue;
		r->line[r->have] = '\0';
		if (!parse_fork(r->line, r->have, &fork) || !visit(arg, &fork))
			return false;
		r->have = 0;
	}
	return true;
}

bool
nc_boot_fork_read_done(const NcBootForkReader *r)
{
	return r->have == 0;
}

size_t
nc_boot_fork_path(const NcBootFork *f, const char *tablespace_directory, uint32_t segment,
				  char to[NC_BOOT_PATH_BYTES])
{
	char		suffix[16] = "";

	if (segment > 0)
		snprintf(suffix, sizeof(suffix), ".%" PRIu32, segment);
	if (f->spc == GLOBAL_SPACE)
		return (size_t) snprintf(to, NC_BOOT_PATH_BYTES, "global/%" PRIu32 "%s", f->rel, suffix);
	if (f->spc == DEFAULT_SPACE)
		return (size_t) snprintf(to, NC_BOOT_PATH_BYTES, "base/%" PRIu32 "/%" PRIu32 "%s", f->db, f->rel, suffix);
	return (size_t) snprintf(to, NC_BOOT_PATH_BYTES, "pg_tblspc/%" PRIu32 "/%.*s/%" PRIu32 "/%" PRIu32 "%s", f->spc,
							 NC_BOOT_DIRECTORY_BYTES - 1, tablespace_directory, f->db, f->rel, suffix);
}
