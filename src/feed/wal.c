/*
 * wal.c
 *	  How far WAL may be sent, and reading it from pg_wal.
 *
 * Runs in the feed.  Guarantees that no byte leaves which the compute could
 * lose: the flush position bounds it, and in recovery the replay position,
 * because what lies behind it on disk is neither validated nor known to be
 * durable (what recovery replays was synced before it began).  Reading never
 * throws: a connection gets a reason instead.
 */
#include "postgres.h"

#include <fcntl.h>
#include <unistd.h>

#include "access/xlog.h"
#include "access/xlogrecovery.h"
#include "catalog/pg_control.h"
#include "common/controldata_utils.h"
#include "miscadmin.h"

#include "feed_internal.h"
#include "nc/shared/test_point.h"

#define CONTROL_FILE_ATTEMPTS 20
#define CONTROL_FILE_PAUSE_US 10000

/* The compute never promotes, so recovery continues the timeline of the last checkpoint. */
static TimeLineID recovery_timeline = 0;

/* The control file may be half written while we read it; its checksum tells. */
static void
read_control_file(ControlFileData *out)
{
	for (int i = 0; i < CONTROL_FILE_ATTEMPTS; i++)
	{
		bool		crc_ok;
		ControlFileData *control = get_controlfile(DataDir, &crc_ok);

		*out = *control;
		pfree(control);
		if (crc_ok)
			return;
		pg_usleep(CONTROL_FILE_PAUSE_US);
	}
	ereport(ERROR,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("neon_comm could not read the control file: its checksum is wrong")));
}

void
nc_feed_wal_init(void)
{
	ControlFileData control;

	read_control_file(&control);
	recovery_timeline = control.checkPointCopy.ThisTimeLineID;
}

XLogRecPtr
nc_feed_wal_last_redo(void)
{
	ControlFileData control;

	read_control_file(&control);
	return control.checkPointCopy.redo;
}

NcFeedLimit
nc_feed_wal_limit(void)
{
	NcFeedLimit limit = {0};

	limit.in_recovery = RecoveryInProgress();
	if (limit.in_recovery)
	{
		limit.lsn = GetXLogReplayRecPtr(NULL);
		limit.timeline = recovery_timeline;
	}
	else
	{
		limit.lsn = GetFlushRecPtr(NULL);
		limit.timeline = GetWALInsertionTimeLine();
	}
	return limit;
}

/*
 * The record of a switch of segments is flushed, and sent, before the rest of its segment; who has
 * replayed it is at the start of the next one, to which the insert position went first.
 */
bool
nc_feed_wal_beyond(const NcFeedLimit *limit, XLogRecPtr lsn)
{
	if (lsn <= limit->lsn)
		return false;
	return limit->in_recovery || XLogSegmentOffset(lsn, wal_segment_size) != 0 ||
		lsn - limit->lsn > (uint64) wal_segment_size || lsn > GetXLogInsertRecPtr();
}

void
nc_feed_wal_close(NcFeedSegment *seg)
{
	if (seg->fd >= 0)
		close(seg->fd);
	seg->fd = -1;
}

static void
explain_missing(TimeLineID timeline, XLogSegNo number, char *why)
{
	char		name[MAXFNAMELEN];

	XLogFileName(name, timeline, number, wal_segment_size);
	snprintf(why, NC_FEED_WHY_BYTES, "requested WAL segment %s has already been removed", name);
}

static bool
open_wal_segment(NcFeedSegment *seg, TimeLineID timeline, XLogSegNo number, char *why)
{
	char		path[MAXPGPATH];

	if (seg->fd >= 0 && seg->timeline == timeline && seg->number == number)
		return true;
	nc_feed_wal_close(seg);
	XLogFilePath(path, timeline, number, wal_segment_size);
	seg->fd = NC_TEST_FAULT("feed-open-wal") ? -1 : open(path, O_RDONLY | O_CLOEXEC);
	seg->timeline = timeline;
	seg->number = number;
	if (seg->fd >= 0)
		return true;
	if (errno == ENOENT)
		explain_missing(timeline, number, why);
	else
		snprintf(why, NC_FEED_WHY_BYTES, "could not open WAL file \"%s\": %s", path,
				 strerror(errno));
	return false;
}

/* Reads a part that lies within one segment. */
static bool
read_wal_part(NcFeedSegment *seg, XLogRecPtr start, size_t bytes, uint8_t *to, char *why)
{
	off_t		at = (off_t) XLogSegmentOffset(start, wal_segment_size);

	while (bytes > 0)
	{
		ssize_t		got = pread(seg->fd, to, bytes, at);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
		{
			snprintf(why, NC_FEED_WHY_BYTES, "could not read WAL at %X/%X: %s",
					 LSN_FORMAT_ARGS(start), got < 0 ? strerror(errno) : "the file is too short");
			return false;
		}
		to += got;
		at += got;
		bytes -= (size_t) got;
	}
	return true;
}

bool
nc_feed_wal_read(NcFeedSegment *seg, TimeLineID timeline, XLogRecPtr start, size_t bytes,
				 uint8_t *to, char *why)
{
	XLogSegNo	first;

	XLByteToSeg(start, first, wal_segment_size);
	while (bytes > 0)
	{
		XLogSegNo	number;
		size_t		left = wal_segment_size - XLogSegmentOffset(start, wal_segment_size);
		size_t		part = Min(bytes, left);

		XLByteToSeg(start, number, wal_segment_size);
		if (!open_wal_segment(seg, timeline, number, why) ||
			!read_wal_part(seg, start, part, to, why))
			return false;
		start += part;
		to += part;
		bytes -= part;
	}

	/* An open segment may have become a later one under its new name while we read. */
	if (first <= XLogGetLastRemovedSegno())
	{
		nc_feed_wal_close(seg);
		explain_missing(timeline, first, why);
		return false;
	}
	return true;
}

static NcWalRead
read_flushed(void *arg, NcLsn at, size_t bytes, uint8_t *to)
{
	NcFeedSegment *segment = arg;
	char		why[NC_FEED_WHY_BYTES];

	return nc_feed_wal_read(segment, segment->timeline, at, bytes, to, why) ? NC_WAL_OK : NC_WAL_GONE;
}

XLogRecPtr
nc_feed_wal_last_record_from(TimeLineID timeline, XLogRecPtr upto)
{
	NcFeedSegment segment = {.fd = -1, .timeline = timeline};
	NcWalSource source = {read_flushed, &segment, (uint32) wal_segment_size};
	XLogRecPtr	from = nc_wal_last_record_from(&source, upto);

	nc_feed_wal_close(&segment);
	return from;
}

bool
nc_feed_wal_present(TimeLineID timeline, XLogRecPtr lsn)
{
	char		path[MAXPGPATH];
	XLogSegNo	number;

	XLByteToSeg(lsn, number, wal_segment_size);
	if (number <= XLogGetLastRemovedSegno())
		return false;
	XLogFilePath(path, timeline, number, wal_segment_size);
	return access(path, R_OK) == 0;
}
