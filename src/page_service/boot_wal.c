/*
 * boot_wal.c
 *	  The end of a boot image's WAL: a checkpoint record behind the last record that
 *	  was replayed, and a control file that names it.
 *
 * The image is that of a server that was shut down where replay is, so whoever
 * starts from it replays nothing.  What the checkpoint says comes from shared
 * memory, as the end of recovery would take it; the rest of the control file is
 * this server's own, which follows the compute's.
 *
 * Runs in page service workers.  nc_svc_boot_end() within the cut (gate.c); the
 * others later, since WAL before the cut does not change.
 */
#include "page_service.h"

#include <time.h>
#include <unistd.h>

#include "access/multixact.h"
#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "access/xlogrecord.h"
#include "access/xlogrecovery.h"
#include "catalog/pg_control.h"
#include "common/controldata_utils.h"
#include "miscadmin.h"
#include "port/pg_crc32c.h"
#include "storage/fd.h"

#include "compat.h"

#define RECORD_BYTES (SizeOfXLogRecord + SizeOfXLogRecordDataHeaderShort + sizeof(CheckPoint))

StaticAssertDecl(sizeof(CheckPoint) <= UINT8_MAX, "a checkpoint has a short data header");
StaticAssertDecl(RECORD_BYTES + SizeOfXLogLongPHD < XLOG_BLCKSZ, "pages of a checkpoint record");

/* ---- where replay is ---- */

static void
not_yet(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_CANNOT_CONNECT_NOW),
			 errmsg("recovery of this page server is not consistent yet")));
}

/* The counters of the server, as a checkpoint has them. */
static void
fill_checkpoint(CheckPoint *checkpoint, const NcSvcBootEnd *end)
{
	memset(checkpoint, 0, sizeof(*checkpoint));
	checkpoint->redo = end->checkpoint;
	checkpoint->ThisTimeLineID = end->timeline;
	checkpoint->PrevTimeLineID = end->timeline;
	checkpoint->fullPageWrites = true;
	nc_svc_checkpoint_wal_level(checkpoint, end->control->wal_level);
	LWLockAcquire(XidGenLock, LW_SHARED);
	checkpoint->nextXid = NC_SVC_COUNTERS->nextXid;
	checkpoint->oldestXid = NC_SVC_COUNTERS->oldestXid;
	checkpoint->oldestXidDB = NC_SVC_COUNTERS->oldestXidDB;
	LWLockRelease(XidGenLock);
	LWLockAcquire(CommitTsLock, LW_SHARED);
	checkpoint->oldestCommitTsXid = NC_SVC_COUNTERS->oldestCommitTsXid;
	checkpoint->newestCommitTsXid = NC_SVC_COUNTERS->newestCommitTsXid;
	LWLockRelease(CommitTsLock);
	LWLockAcquire(OidGenLock, LW_SHARED);
	checkpoint->nextOid = NC_SVC_COUNTERS->nextOid + NC_SVC_COUNTERS->oidCount;
	LWLockRelease(OidGenLock);
	MultiXactGetCheckptMulti(true, &checkpoint->nextMulti, &checkpoint->nextMultiOffset,
							 &checkpoint->oldestMulti, &checkpoint->oldestMultiDB);
	checkpoint->oldestActiveXid = InvalidTransactionId;
	checkpoint->time = end->control->time;
}

static void
seal_control(ControlFileData *control)
{
	INIT_CRC32C(control->crc);
	COMP_CRC32C(control->crc, control, offsetof(ControlFileData, crc));
	FIN_CRC32C(control->crc);
}

/* As a shutdown leaves it; nothing in it is of a standby any more. */
static void
fill_control(NcSvcBootEnd *end)
{
	ControlFileData *control = end->control;

	control->state = DB_SHUTDOWNED;
	control->time = (pg_time_t) time(NULL);
	fill_checkpoint(&control->checkPointCopy, end);
	control->checkPoint = end->checkpoint;
	control->minRecoveryPoint = InvalidXLogRecPtr;
	control->minRecoveryPointTLI = 0;
	control->backupStartPoint = InvalidXLogRecPtr;
	control->backupEndPoint = InvalidXLogRecPtr;
	control->backupEndRequired = false;
	seal_control(control);
}

void
nc_svc_boot_forget_checkpoint(NcSvcBootEnd *end)
{
	end->control->checkPoint = InvalidXLogRecPtr;
	seal_control(end->control);
}

size_t
nc_svc_boot_page_header_bytes(XLogRecPtr page)
{
	return XLogSegmentOffset(page, wal_segment_size) == 0 ? SizeOfXLogLongPHD : SizeOfXLogShortPHD;
}

/*
 * The last record.  Once recovery has been consistent what was replayed is all that pages know of; the minimum
 * recovery point may have the end of the record already that waits for its redo.
 */
static void
last_record(NcSvcReplayed *last)
{
	SpinLockAcquire(&nc_svc_shared->replayed_lock);
	*last = nc_svc_shared->replayed;
	SpinLockRelease(&nc_svc_shared->replayed_lock);
	(void) GetXLogReplayRecPtr(&last->timeline);
	if (last->start != InvalidXLogRecPtr)
		return;
	/* none since the start: the checkpoint that replay begins with, if it begins behind that */
	nc_svc_evidence_get(last);
	if (last->tail_lost || last->end != GetXLogReplayRecPtr(NULL))
		not_yet();
}

void
nc_svc_boot_end(NcSvcBootEnd *end)
{
	NcSvcReplayed last;
	bool		crc_ok;

	if (!nc_svc_source_consistent())
		not_yet();
	/* nobody writes the control file meanwhile */
	LWLockAcquire(ControlFileLock, LW_SHARED);
	last_record(&last);
	end->control = get_controlfile(DataDir, &crc_ok);
	LWLockRelease(ControlFileLock);
	if (!crc_ok)
		ereport(ERROR, (errcode(ERRCODE_DATA_CORRUPTED), errmsg("pg_control is damaged")));
	end->timeline = last.timeline;
	end->last = last.start;
	end->cut = last.end;
	end->checkpoint = end->cut;
	if (end->cut % XLOG_BLCKSZ == 0)
		end->checkpoint += nc_svc_boot_page_header_bytes(end->cut);
	fill_control(end);
}

/* ---- the record ---- */

/* As the server's own, without a backup block. */
static void
make_record(const NcSvcBootEnd *end, char to[RECORD_BYTES])
{
	XLogRecord	header = {.xl_tot_len = RECORD_BYTES, .xl_prev = end->last, .xl_rmid = RM_XLOG_ID,
	.xl_info = XLOG_CHECKPOINT_SHUTDOWN};
	char	   *data = to + SizeOfXLogRecord;
	pg_crc32c	crc;

	data[0] = (char) XLR_BLOCK_ID_DATA_SHORT;
	data[1] = (char) sizeof(CheckPoint);
	memcpy(data + SizeOfXLogRecordDataHeaderShort, &end->control->checkPointCopy, sizeof(CheckPoint));
	INIT_CRC32C(crc);
	COMP_CRC32C(crc, data, RECORD_BYTES - SizeOfXLogRecord);
	COMP_CRC32C(crc, &header, offsetof(XLogRecord, xl_crc));
	FIN_CRC32C(crc);
	header.xl_crc = crc;
	memcpy(to, &header, SizeOfXLogRecord);
}

/* left: bytes of a record that begins on an earlier page, 0 = none. */
static void
make_page_header(const NcSvcBootEnd *end, XLogRecPtr page, uint32 left, char *to)
{
	XLogLongPageHeaderData header = {.std.xlp_magic = XLOG_PAGE_MAGIC, .std.xlp_tli = end->timeline,
	.std.xlp_pageaddr = page, .std.xlp_rem_len = left};

	if (left > 0)
		header.std.xlp_info |= XLP_FIRST_IS_CONTRECORD;
	if (nc_svc_boot_page_header_bytes(page) == SizeOfXLogLongPHD)
	{
		header.std.xlp_info |= XLP_LONG_HEADER;
		header.xlp_sysid = end->control->system_identifier;
		header.xlp_seg_size = wal_segment_size;
		header.xlp_xlog_blcksz = XLOG_BLCKSZ;
	}
	memcpy(to, &header, nc_svc_boot_page_header_bytes(page));
}

void
nc_svc_boot_empty_page(const NcSvcBootEnd *end, XLogRecPtr page, uint32 left, char to[XLOG_BLCKSZ])
{
	memset(to, 0, XLOG_BLCKSZ);
	make_page_header(end, page, left, to);
}

/* What the page of the cut holds before the cut. */
static void
read_wal(const NcSvcBootEnd *end, XLogRecPtr from, uint32 bytes, char *to)
{
	char		path[MAXPGPATH];
	XLogSegNo	segment;
	int			fd;
	ssize_t		got;

	XLByteToSeg(from, segment, wal_segment_size);
	XLogFilePath(path, end->timeline, segment, wal_segment_size);
	fd = OpenTransientFile(path, O_RDONLY | PG_BINARY);
	if (fd < 0)
		ereport(ERROR, (errcode_for_file_access(), errmsg("could not open file \"%s\": %m", path)));
	got = pg_pread(fd, to, bytes, XLogSegmentOffset(from, wal_segment_size));
	if (got != bytes)
		ereport(ERROR, (errcode_for_file_access(), errmsg("could not read file \"%s\"", path)));
	CloseTransientFile(fd);
}

int
nc_svc_boot_tail(const NcSvcBootEnd *end, char to[NC_SVC_BOOT_TAIL_PAGES * XLOG_BLCKSZ])
{
	char		record[RECORD_BYTES];
	XLogRecPtr	first = end->cut - end->cut % XLOG_BLCKSZ;
	XLogRecPtr	at = end->cut;
	uint32		done = 0;

	memset(to, 0, NC_SVC_BOOT_TAIL_PAGES * XLOG_BLCKSZ);
	make_record(end, record);
	if (at > first)
		read_wal(end, first, at - first, to);
	while (done < RECORD_BYTES)
	{
		uint32		n;

		if (at % XLOG_BLCKSZ == 0)
		{
			make_page_header(end, at, done > 0 ? RECORD_BYTES - done : 0, to + (at - first));
			at += nc_svc_boot_page_header_bytes(at);
		}
		n = Min(RECORD_BYTES - done, XLOG_BLCKSZ - at % XLOG_BLCKSZ);
		memcpy(to + (at - first), record + done, n);
		at += n;
		done += n;
	}
	return (at - first + XLOG_BLCKSZ - 1) / XLOG_BLCKSZ;
}

/* ---- what precedes it ---- */

void
nc_svc_boot_wal_copy(TimeLineID timeline, XLogSegNo segment, uint32 bytes,
					 void (*put) (void *arg, const void *data, size_t bytes), void *arg)
{
	char		path[MAXPGPATH];
	PGAlignedXLogBlock block;
	int			fd;

	XLogFilePath(path, timeline, segment, wal_segment_size);
	fd = OpenTransientFile(path, O_RDONLY | PG_BINARY);
	if (fd < 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not open file \"%s\": %m", path),
				 errdetail("The image was asked for with WAL that this page server does not have any more.")));
	for (uint32 done = 0; done < bytes; done += XLOG_BLCKSZ)
	{
		if (pg_pread(fd, block.data, XLOG_BLCKSZ, done) != XLOG_BLCKSZ)
			ereport(ERROR, (errcode_for_file_access(), errmsg("could not read file \"%s\"", path)));
		put(arg, block.data, XLOG_BLCKSZ);
	}
	CloseTransientFile(fd);
}
