/*
 * load.c
 *	  A recording, read and checked.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "nc/base/file.h"
#include "replay.h"

#define ROOM_FIRST 4096

static bool
keep(Recording *recording, const NcRecord *record)
{
	if (recording->count == recording->room)
	{
		uint64_t	room = recording->room == 0 ? ROOM_FIRST : recording->room * 2;
		NcRecord   *more = realloc(recording->records, room * sizeof(NcRecord));

		if (more == NULL)
		{
			say("no memory for %" PRIu64 " requests", room);
			return false;
		}
		recording->records = more;
		recording->room = room;
	}
	recording->records[recording->count++] = *record;
	return true;
}

/* One frame of records; false, said why not. */
static bool
load_records(Recording *recording, const NcRecordFrame *frame, VisitFn visit)
{
	NcRecordReader reader;
	NcRecordMap map;
	NcRecord	record;
	int			rc;

	if (!nc_record_open(&reader, frame, &map))
		rc = -1;
	else
	{
		if (map.shards != recording->map.shards || map.stripe_blocks != recording->map.stripe_blocks)
			recording->maps++;
		recording->map = map;
		while ((rc = nc_record_next(&reader, &record)) == 1)
		{
			if (visit != NULL)
				visit(&record, &map);
			else if (!keep(recording, &record))
				return false;
		}
	}
	if (rc < 0)
		say("the recording is malformed: what wrote it and this program do not fit together");
	return rc == 0;
}

static bool
load_frames(Recording *recording, NcReader *r, VisitFn visit)
{
	NcRecordFrame frame;

	while (nc_record_read_frame(r, &frame) == NC_RECORD_FRAME)
	{
		switch (frame.tag)
		{
			case NC_RECORD_RECORDS:
				if (!load_records(recording, &frame, visit))
					return false;
				break;
			case NC_RECORD_END:
				recording->ended = nc_record_read_end(&frame, &recording->end);
				break;
			default:
				say("the recording has a part that is not known here: it was written by a later neon_comm");
				return false;
		}
	}
	recording->unread = nc_reader_left(r);
	return true;
}

/* The bytes of a file, to be freed; NULL, said why not. */
static uint8_t *
slurp(const char *path, size_t *bytes)
{
	int			fd = nc_file_open(path, O_RDONLY, 0);
	struct stat st;
	uint8_t    *data;
	ssize_t		n = 1;

	if (fd < 0 || fstat(fd, &st) != 0)
	{
		say("could not open \"%s\": %s", path, nc_file_error(errno));
		if (fd >= 0)
			close(fd);
		return NULL;
	}
	data = malloc((size_t) st.st_size + 1);
	*bytes = 0;
	while (data != NULL && n > 0 && *bytes < (size_t) st.st_size)
	{
		n = read(fd, data + *bytes, (size_t) st.st_size - *bytes);
		*bytes += n > 0 ? (size_t) n : 0;
	}
	if (data == NULL || n < 0)
	{
		say("could not read \"%s\": %s", path, strerror(errno));
		free(data);
		data = NULL;
	}
	close(fd);
	return data;
}

bool
load_recording(const char *path, Recording *recording, VisitFn visit)
{
	size_t		bytes;
	uint8_t    *data = slurp(path, &bytes);
	NcReader	r;
	const char *wrong;
	bool		ok;

	memset(recording, 0, sizeof(*recording));
	if (data == NULL)
		return false;
	recording->bytes = bytes;
	r = nc_reader(data, bytes);
	wrong = nc_record_read_header(&r, &recording->header);
	if (wrong != NULL)
		say("\"%s\" cannot be read: %s", path, wrong);
	else if (visit != NULL)
		report_dump_head(recording);
	ok = wrong == NULL && load_frames(recording, &r, visit);
	free(data);
	return ok;
}

static int
compare_start(const void *a, const void *b)
{
	const NcRecord *x = a;
	const NcRecord *y = b;

	return x->start_us < y->start_us ? -1 : x->start_us > y->start_us;
}

void
sort_recording(Recording *recording)
{
	if (recording->count > 0)
		qsort(recording->records, recording->count, sizeof(NcRecord), compare_start);
}
