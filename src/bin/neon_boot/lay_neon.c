/*
 * lay_neon.c
 *	  An image in the form of Neon's page servers: what it lacks.  docs/boot.md, "Neon's form".
 *
 * Its control file is that of a cluster that was shut down, and names no checkpoint; its one segment of WAL has no
 * record.  The checkpoint record is written where the control file says that redo begins, from the checkpoint
 * that the control file has a copy of.
 *
 * Who it is, and WAL before that place, come from the directory of a page server of ours, if one is given.
 * Else the compute is a new one, and its WAL begins there: safekeepers have what was before.
 */
#include "lay.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "nc/identity/files.h"
#include "nc/wire/pagestream.h"
#include "neon_form.h"

#define CONTROL "global/pg_control"

#define COPY_BYTES (256 * 1024)

/* ---- files of the directory that is being laid ---- */

static bool
read_control(Lay *lay, uint8_t file[NEON_CONTROL_BYTES])
{
	int			fd = openat(lay->dir, CONTROL, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	ssize_t		got = fd < 0 ? -1 : read(fd, file, NEON_CONTROL_BYTES);

	if (fd >= 0)
		close(fd);
	return got == NEON_CONTROL_BYTES || lay_complain(lay, "the image cannot be used: its control file is too short");
}

/* Reads the control file and what is needed of it. */
static bool
know_control(Lay *lay, uint8_t file[NEON_CONTROL_BYTES], NeonControl *control)
{
	const char *wrong;

	if (!read_control(lay, file))
		return false;
	wrong = neon_control_read(file, control);
	return wrong == NULL || lay_complain(lay, "the image cannot be used: %s", wrong);
}

static bool
write_at(Lay *lay, const char *name, int fd, const void *data, size_t bytes, off_t at)
{
	ssize_t		n = pwrite(fd, data, bytes, at);

	if (n == (ssize_t) bytes)
		return true;
	return lay_complain(lay, "could not write %s/%s: %s", lay->partial, name, strerror(n < 0 ? errno : ENOSPC));
}

static void
segment_name(const Lay *lay, NcLsn lsn, char name[64])
{
	uint64_t	number = lsn / lay->description.segment_bytes;
	uint64_t	each = UINT64_C(0x100000000) / lay->description.segment_bytes;

	snprintf(name, 64, "pg_wal/%08" PRIX32 "%08" PRIX32 "%08" PRIX32, lay->description.timeline,
			 (uint32_t) (number / each), (uint32_t) (number % each));
}

/* Bytes of WAL, all of one segment, which is made if it is not there. */
static bool
write_wal(Lay *lay, NcLsn at, const void *data, size_t bytes)
{
	char		name[64];
	int			fd;
	bool		ok;

	segment_name(lay, at, name);
	fd = openat(lay->dir, name, O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0 || ftruncate(fd, lay->description.segment_bytes) != 0)
		ok = lay_complain(lay, "could not make %s/%s: %s", lay->partial, name, strerror(errno));
	else
		ok = write_at(lay, name, fd, data, bytes, (off_t) (at % lay->description.segment_bytes));
	if (fd >= 0)
		close(fd);
	return ok;
}

/* ---- who it is ---- */

static bool
describe_new(Lay *lay)
{
	return nc_id_make(&lay->description.birth) || lay_complain(lay, "the system has no random bytes");
}

static bool
describe_from_page_server(Lay *lay)
{
	static NcMemberIdentity member;
	const char *why = NULL;

	switch (nc_member_identity_load(lay->beside, &member, &why))
	{
		case NC_FILE_OK:
			break;
		case NC_FILE_ABSENT:
			return lay_complain(lay, "%s has no file %s: it is no page server", lay->beside, NC_MEMBER_IDENTITY);
		case NC_FILE_INVALID:
			return lay_complain(lay, "%s/%s cannot be used: %s", lay->beside, NC_MEMBER_IDENTITY, why);
		case NC_FILE_ERROR:
			return lay_complain(lay, "could not read %s/%s: %s", lay->beside, NC_MEMBER_IDENTITY, strerror(errno));
	}
	if (nc_id_is_none(&member.birth) || member.followed.n == 0)
		return lay_complain(lay, "the page server in %s has followed no compute", lay->beside);
	lay->description.birth = member.birth;
	lay->description.lineage = member.followed;
	return true;
}

bool
lay_neon_describe(Lay *lay)
{
	uint8_t		file[NEON_CONTROL_BYTES];
	NeonControl control;

	if (!know_control(lay, file, &control))
		return false;
	lay->description.system_identifier = control.system_identifier;
	lay->description.timeline = control.timeline;
	lay->description.segment_bytes = control.segment_bytes;
	lay->description.checksums = control.checksums;
	lay->description.cut = control.cut;
	lay->description.checkpoint = control.checkpoint;
	return lay->beside != NULL ? describe_from_page_server(lay) : describe_new(lay);
}

/* ---- states of transactions that are not in the image ---- */

#define XIDS_PER_SEGMENT (UINT32_C(32) * NC_PAGE_BYTES * 4)
#define OFFSETS_PER_PAGE (NC_PAGE_BYTES / 4)
#define OFFSETS_PER_SEGMENT (UINT32_C(32) * OFFSETS_PER_PAGE)

/* Of members: groups of four with a word of flags. */
#define MEMBERS_PER_SEGMENT (UINT32_C(32) * (NC_PAGE_BYTES / 20 * 4))

typedef struct Completion
{
	Lay		   *lay;
	NcLsn		lsn;
	bool		(*fetch) (void *arg, const LaySlru *slru);
	void	   *arg;
} Completion;

static const char *
slru_directory(uint8_t kind)
{
	return kind == NC_SLRU_CLOG ? "pg_xact" : kind == NC_SLRU_MULTIXACT_MEMBERS ? "pg_multixact/members" :
		"pg_multixact/offsets";
}

static bool
complete_segment(const Completion *c, uint8_t kind, uint32_t segno)
{
	LaySlru		slru = {.kind = kind, .segno = segno, .lsn = c->lsn};
	struct stat st;

	snprintf(slru.name, sizeof(slru.name), "%s/%04" PRIX32, slru_directory(kind), segno);
	return fstatat(c->lay->dir, slru.name, &st, AT_SYMLINK_NOFOLLOW) == 0 || c->fetch(c->arg, &slru);
}

/* Those that hold numbers from the first one to the last one, which may be behind the end of the circle. */
static bool
complete_range(const Completion *c, uint8_t kind, uint32_t first, uint32_t last, uint32_t per_segment)
{
	uint32_t	count = UINT32_MAX / per_segment + 1;
	uint32_t	segno = first / per_segment;

	while (complete_segment(c, kind, segno))
	{
		if (segno == last / per_segment)
			return true;
		segno = (segno + 1) % count;
	}
	return false;
}

/* Where the members of a multixact begin. */
static bool
read_offset(Lay *lay, uint32_t multi, uint32_t *offset)
{
	char		name[NC_TAR_NAME_BYTES];
	int			fd;
	ssize_t		got;

	snprintf(name, sizeof(name), "pg_multixact/offsets/%04" PRIX32, multi / OFFSETS_PER_SEGMENT);
	fd = openat(lay->dir, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	got = fd < 0 ? -1 : pread(fd, offset, sizeof(*offset), (off_t) (multi % OFFSETS_PER_SEGMENT) * 4);
	if (fd >= 0)
		close(fd);
	return got == sizeof(*offset) || lay_complain(lay, "%s/%s does not have multixact %" PRIu32, lay->partial, name, multi);
}

/* Without multixacts a server looks at the page of the next one, unless that page begins with it. */
static bool
complete_offsets(const Completion *c, const NeonControl *control)
{
	uint32_t	last = control->next_multi;

	if (control->oldest_multi != last)
		last--;
	else if (last % OFFSETS_PER_PAGE == 0)
		return true;
	return complete_range(c, NC_SLRU_MULTIXACT_OFFSETS, control->oldest_multi, last, OFFSETS_PER_SEGMENT);
}

static bool
complete_members(const Completion *c, const NeonControl *control)
{
	uint32_t	first;

	if (control->oldest_multi == control->next_multi)
		return true;
	if (!read_offset(c->lay, control->oldest_multi, &first))
		return false;
	return first == control->next_multi_offset ||
		complete_range(c, NC_SLRU_MULTIXACT_MEMBERS, first, control->next_multi_offset - 1, MEMBERS_PER_SEGMENT);
}

bool
lay_neon_complete(Lay *lay, bool (*fetch) (void *arg, const LaySlru *slru), void *arg)
{
	uint8_t		file[NEON_CONTROL_BYTES];
	NeonControl control;
	Completion	c = {lay, 0, fetch, arg};

	if (!lay->has_control)
		return lay_complain(lay, "the image lacks something that a compute needs");
	if (!know_control(lay, file, &control))
		return false;
	c.lsn = control.cut;
	return complete_range(&c, NC_SLRU_CLOG, control.oldest_xid, (uint32_t) control.next_xid - 1, XIDS_PER_SEGMENT) &&
		complete_offsets(&c, &control) && complete_members(&c, &control);
}

bool
lay_neon_put(Lay *lay, const LaySlru *slru, const void *pages, size_t bytes)
{
	int			fd = openat(lay->dir, slru->name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	bool		ok = fd >= 0 ? write_at(lay, slru->name, fd, pages, bytes, 0) :
		lay_complain(lay, "could not make %s/%s: %s", lay->partial, slru->name, strerror(errno));

	if (fd >= 0)
		close(fd);
	return ok;
}

/* ---- WAL before the checkpoint ---- */

/* WAL of one segment from the page server's file. */
static bool
copy_segment(Lay *lay, NcLsn from, NcLsn upto)
{
	static char buffer[COPY_BYTES];
	char		name[64];
	char		path[PATH_MAX + 64];
	int			fd;
	bool		ok = true;

	segment_name(lay, from, name);
	snprintf(path, sizeof(path), "%s/%s", lay->beside, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return lay_complain(lay, "could not open %s: %s", path, strerror(errno));
	while (ok && from < upto)
	{
		size_t		n = upto - from < sizeof(buffer) ? (size_t) (upto - from) : sizeof(buffer);

		if (pread(fd, buffer, n, (off_t) (from % lay->description.segment_bytes)) != (ssize_t) n)
			ok = lay_complain(lay, "could not read %s", path);
		else
			ok = write_wal(lay, from, buffer, n);
		from += n;
	}
	close(fd);
	return ok;
}

/* Page servers of ours ask from the beginning of a segment. */
static bool
copy_wal(Lay *lay)
{
	NcLsn		cut = lay->description.cut;
	NcLsn		from = lay->wal_from != 0 && lay->wal_from < cut ? lay->wal_from : cut;

	from -= from % lay->description.segment_bytes;
	while (from < cut)
	{
		NcLsn		end = from + lay->description.segment_bytes;

		if (!copy_segment(lay, from, end < cut ? end : cut))
			return false;
		from = end;
	}
	return true;
}

/* ---- the checkpoint ---- */

static bool
write_record(Lay *lay, const NeonControl *control, const uint8_t *record, size_t bytes)
{
	NcLsn		at = control->checkpoint;
	size_t		done = 0;

	while (done < bytes)
	{
		uint8_t		header[NEON_HEADER_BYTES_MAX];
		size_t		n = NEON_WAL_PAGE_BYTES - at % NEON_WAL_PAGE_BYTES;

		if (at % NEON_WAL_PAGE_BYTES == 0)
		{
			n = neon_page_header(control, at, (uint32_t) (bytes - done), header);
			if (!write_wal(lay, at, header, n))
				return false;
			at += n;
			n = NEON_WAL_PAGE_BYTES - n;
		}
		n = n < bytes - done ? n : bytes - done;
		if (!write_wal(lay, at, record + done, n))
			return false;
		at += n;
		done += n;
	}
	return true;
}

static bool
write_control(Lay *lay, const uint8_t file[NEON_CONTROL_BYTES])
{
	int			fd = openat(lay->dir, CONTROL, O_WRONLY | O_NOFOLLOW | O_CLOEXEC);
	bool		ok = fd >= 0 ? write_at(lay, CONTROL, fd, file, NEON_CONTROL_BYTES, 0) :
		lay_complain(lay, "could not open %s/%s: %s", lay->partial, CONTROL, strerror(errno));

	if (fd >= 0)
		close(fd);
	return ok;
}

bool
lay_neon_checkpoint(Lay *lay)
{
	uint8_t		file[NEON_CONTROL_BYTES];
	uint8_t		record[NEON_RECORD_BYTES_MAX];
	NeonControl control;
	size_t		bytes;

	if (!know_control(lay, file, &control))
		return false;
	if (lay->beside != NULL && !copy_wal(lay))
		return false;
	bytes = neon_checkpoint_record(file, lay->prev, record);
	neon_control_seal(file);
	return write_record(lay, &control, record, bytes) && write_control(lay, file);
}
