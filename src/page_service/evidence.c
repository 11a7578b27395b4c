/*
 * evidence.c
 *	  What this page server has replayed, and up to where that was judged.
 *
 * The startup process notes every record after its redo; the walreceiver tells
 * the compute's feed of the last one (join.c), so that two histories are told
 * apart by records before a byte of one reaches the other. LSNs do not say
 * enough: another history has other records at the same ones.
 *
 * The judged LSN is the end of what the compute agreed on and of what its feed has
 * sent since. WAL that came by another way, such as a file copied into pg_wal,
 * raises replay beyond it; then no page leaves until the next agreement.
 *
 * Before the first record beyond the judged LSN is replayed a file says so, until the next
 * agreement. Pages may turn out to be newer than the WAL that is left (its end was lost); where
 * all that was replayed had been agreed on they are of this history all the same. So they are where
 * replay has come to an end, the file holds the last record since, and a later start finds it again:
 * whatever that one shows answers for all of it.
 */
#include "page_service.h"

#include <fcntl.h>
#include <unistd.h>

#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "access/xlogreader.h"
#include "access/xlogrecovery.h"
#include "catalog/pg_control.h"
#include "common/controldata_utils.h"
#include "miscadmin.h"
#include "storage/fd.h"

#include "compat.h"

StaticAssertDecl(SizeOfXLogRecord == NC_WAL_HEADER_BYTES, "header of a WAL record");

/* ---- WAL that nobody has judged ---- */

/* In the startup process: what the file held before the first of it since the start. */
static NcUnjudgedWal held;

/* False: it is not there. */
static bool
load_unjudged(NcUnjudgedWal *wal)
{
	const char *why = NULL;

	switch (nc_unjudged_load(DataDir, wal, &why))
	{
		case NC_FILE_OK:
			return true;
		case NC_FILE_ABSENT:
			return false;
		case NC_FILE_INVALID:
			ereport(ERROR,
					(errcode(ERRCODE_DATA_CORRUPTED),
					 errmsg("page service: \"%s\" cannot be understood: %s", NC_MEMBER_UNJUDGED, why),
					 errdetail("It says what this page server has replayed that no compute has agreed to."),
					 errhint("Make it an empty file; do not remove it.")));
			break;
		case NC_FILE_ERROR:
			ereport(ERROR,
					(errcode_for_file_access(),
					 errmsg("page service: could not read \"%s\": %m", NC_MEMBER_UNJUDGED)));
			break;
	}
	return false;
}

/* Durable when it returns; ERROR, which in the startup process ends the server. */
static void
empty_unjudged_file(void)
{
	if (!nc_unjudged_save(DataDir, &(NcUnjudgedWal) {0}))
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("page service: could not write \"%s\": %m", NC_MEMBER_UNJUDGED)));
}

static NcUnjudged
unjudged_state(void)
{
	return (NcUnjudged) pg_atomic_read_u32(&nc_svc_shared->unjudged);
}

static NcWalRecord
record_of(const NcSvcReplayed *replayed)
{
	NcWalRecord record = {.start = replayed->start};

	memcpy(record.header, replayed->header, NC_WAL_HEADER_BYTES);
	return record;
}

/* In the startup process, before a record is replayed. */
void
nc_svc_evidence_before(XLogReaderState *record)
{
	NcUnjudged	state = unjudged_state();
	bool		there;

	if ((state != NC_UNJUDGED_NONE && pg_atomic_read_u32(&nc_svc_shared->unjudged_kept) == 0) ||
		nc_svc_judged_covers(record->EndRecPtr))
		return;
	if (state == NC_UNJUDGED_NONE)
	{
		there = load_unjudged(&held);
		state = nc_unjudged_begin(there ? &held : NULL);
	}
	empty_unjudged_file();
	pg_atomic_write_u32(&nc_svc_shared->unjudged_kept, 0);
	pg_atomic_write_u32(&nc_svc_shared->unjudged, state);
}

/*
 * In the walreceiver, before it connects: the file gets the last record.  The startup process asks for
 * a walreceiver when it has replayed all there is, and replays nothing until that streams or has ended.
 * Without it less is known after the next start; no reason not to connect.
 */
void
nc_svc_evidence_keep(void)
{
	NcUnjudgedWal wal = {.ends = true};

	if (unjudged_state() != NC_UNJUDGED_REPLAYED || pg_atomic_read_u32(&nc_svc_shared->unjudged_kept) != 0)
		return;
	wal.last = record_of(&nc_svc_shared->replayed);
	if (!nc_unjudged_save(DataDir, &wal))
		ereport(LOG,
				(errcode_for_file_access(),
				 errmsg("page service: could not write \"%s\": %m", NC_MEMBER_UNJUDGED)));
	else
		pg_atomic_write_u32(&nc_svc_shared->unjudged_kept, 1);
}

/* In the walreceiver, when the compute has agreed to the evidence. */
void
nc_svc_evidence_agreed(void)
{
	(void) durable_unlink(NC_MEMBER_UNJUDGED, DEBUG1);
	pg_atomic_write_u32(&nc_svc_shared->unjudged_kept, 0);
	pg_atomic_write_u32(&nc_svc_shared->unjudged, NC_UNJUDGED_NONE);
}

/* Does the last record not answer for the pages? They are newer, and may come from WAL of others. */
static bool
pages_unjudged(const NcSvcReplayed *last)
{
	NcWalRecord record = record_of(last);
	NcUnjudgedWal wal;
	bool		there = load_unjudged(&wal);

	return !nc_unjudged_answered(unjudged_state(), there ? &wal : NULL, &record);
}

/* ---- the last record ---- */

/* In the startup process, between two records; no syscall, it runs for each of them. */
void
nc_svc_evidence_note(XLogReaderState *record)
{
	NcSvcReplayed *last = &nc_svc_shared->replayed;

	SpinLockAcquire(&nc_svc_shared->replayed_lock);
	last->start = record->ReadRecPtr;
	last->end = record->EndRecPtr;
	memcpy(last->header, &record->record->header, SizeOfXLogRecord);
	SpinLockRelease(&nc_svc_shared->replayed_lock);
	if (unjudged_state() == NC_UNJUDGED_AHEAD)
	{
		NcWalRecord met = record_of(last);

		pg_atomic_write_u32(&nc_svc_shared->unjudged, nc_unjudged_met(&held, &met));
	}
}

/* ---- when nothing was replayed since the start ---- */

/*
 * Not by WALRead(), which from 18 on counts a read of WAL in pg_stat_io: there is no such
 * counter of a walreceiver, and a server with assertions says so.
 */
static int
read_page(XLogReaderState *state, XLogRecPtr page, int wanted, XLogRecPtr target, char *to)
{
	int			segment_bytes = state->segcxt.ws_segsize;
	XLogSegNo	segment;
	char		path[MAXPGPATH];
	int			fd;
	ssize_t		got;

	state->seg.ws_tli = *(TimeLineID *) state->private_data;
	XLByteToSeg(page, segment, segment_bytes);
	XLogFilePath(path, state->seg.ws_tli, segment, segment_bytes);
	fd = BasicOpenFile(path, O_RDONLY | PG_BINARY);
	if (fd < 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("page service: could not open \"%s\": %m", path),
				 errdetail("It holds the last record that this page server is known to have replayed, "
						   "by which the compute tells whether their histories are the same."),
				 errhint("Bring the file back into pg_wal.")));
	got = pread(fd, to, XLOG_BLCKSZ, XLogSegmentOffset(page, segment_bytes));
	close(fd);
	return got == XLOG_BLCKSZ ? XLOG_BLCKSZ : -1;
}

static void
read_checkpoint_record(XLogRecPtr at, TimeLineID timeline, NcSvcReplayed *out)
{
	char	   *why = NULL;
	XLogReaderState *reader = XLogReaderAllocate(wal_segment_size, NULL,
												 XL_ROUTINE(.page_read = read_page), &timeline);

	if (reader == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	XLogBeginRead(reader, at);
	if (XLogReadRecord(reader, &why) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("page service: could not read the checkpoint record at " NC_LSN_FMT
						" in pg_wal: %s", NC_LSN_ARGS(at), why != NULL ? why : "the file is too short")));
	out->start = reader->ReadRecPtr;
	out->end = reader->EndRecPtr;
	memcpy(out->header, &reader->record->header, SizeOfXLogRecord);
	XLogReaderFree(reader);
}

/*
 * The last record replayed, for the walreceiver. Its end is raised to the minimum
 * recovery point: pages may be that new although their WAL was not found again (the
 * end of pg_wal was lost). ERROR if there is nothing to show.
 */
void
nc_svc_evidence_get(NcSvcReplayed *out)
{
	bool		crc_ok;
	ControlFileData *control = get_controlfile(DataDir, &crc_ok);

	SpinLockAcquire(&nc_svc_shared->replayed_lock);
	*out = nc_svc_shared->replayed;
	SpinLockRelease(&nc_svc_shared->replayed_lock);
	(void) GetXLogReplayRecPtr(&out->timeline);
	if (!crc_ok)
		ereport(ERROR, (errmsg("page service: pg_control is being written")));
	if (XLogRecPtrIsInvalid(out->start))
		read_checkpoint_record(control->checkPoint, control->checkPointCopy.ThisTimeLineID, out);
	out->tail_lost = out->end < control->minRecoveryPoint;
	out->unjudged = out->tail_lost && pages_unjudged(out);
	out->end = Max(out->end, control->minRecoveryPoint);
	pfree(control);
}

/* For the status: when nothing was replayed since the start, the checkpoint that replay began with. */
XLogRecPtr
nc_svc_evidence_last(void)
{
	XLogRecPtr	start;
	ControlFileData *control;
	bool		crc_ok;

	SpinLockAcquire(&nc_svc_shared->replayed_lock);
	start = nc_svc_shared->replayed.start;
	SpinLockRelease(&nc_svc_shared->replayed_lock);
	if (start != InvalidXLogRecPtr)
		return start;
	control = get_controlfile(DataDir, &crc_ok);
	if (crc_ok)
		start = control->checkPoint;
	pfree(control);
	return start;
}

/* ---- the judged LSN ---- */

/* By the walreceiver only: what it has from the feed up to here may be served. */
void
nc_svc_judged_raise(XLogRecPtr lsn)
{
	if (pg_atomic_read_u64(&nc_svc_shared->judged_lsn) < lsn)
		pg_atomic_write_u64(&nc_svc_shared->judged_lsn, lsn);
}

/* Was everything up to here judged? Where no feed is followed nothing is. */
bool
nc_svc_judged_covers(XLogRecPtr lsn)
{
	return !nc_svc_identity_follows() || lsn <= pg_atomic_read_u64(&nc_svc_shared->judged_lsn);
}
