/*
 * file_copy.c
 *	  A database that was copied file by file must not be copied a second time.
 *
 * Redo of CREATE DATABASE .. STRATEGY file_copy and of ALTER DATABASE .. SET
 * TABLESPACE removes what stands in the new directory and copies the old one. A
 * standby that crashes begins before that record again, when the old directory may
 * be gone, or changed, and what it held is nowhere else: an empty directory, or
 * pages of later, would take the place of the database. A primary makes a
 * checkpoint behind the copy for that reason, before anybody can change or remove
 * what was copied. So a restartpoint is made here as soon as that checkpoint's
 * record has been replayed, before any record behind it is. A crash before is
 * harmless, since until then nothing has touched the source.
 *
 * Runs in the startup process, between two records. It waits for the checkpointer,
 * which needs nothing that is held here; an error there is one here, and ends the
 * server, which begins before the copy again.
 */
#include "page_service.h"

#include "access/rmgr.h"
#include "access/xlog.h"
#include "access/xlogreader.h"
#include "catalog/pg_control.h"
#include "commands/dbcommands_xlog.h"
#include "common/controldata_utils.h"
#include "miscadmin.h"
#include "postmaster/bgwriter.h"
#include "storage/lwlock.h"

/* End of the last copy that a crash would repeat; none: invalid. */
static XLogRecPtr copied = InvalidXLogRecPtr;

/* Where redo would begin after a crash. */
static XLogRecPtr
restartpoint(void)
{
	ControlFileData *control;
	XLogRecPtr	redo;
	bool		crc_ok;

	LWLockAcquire(ControlFileLock, LW_SHARED);
	control = get_controlfile(DataDir, &crc_ok);
	LWLockRelease(ControlFileLock);
	redo = crc_ok ? control->checkPointCopy.redo : InvalidXLogRecPtr;
	pfree(control);
	return redo;
}

/* Of a checkpoint that begins behind the copy; one that was under way does not. */
static bool
is_checkpoint_behind(XLogReaderState *record, XLogRecPtr lsn)
{
	uint8		info = XLogRecGetInfo(record) & ~XLR_INFO_MASK;
	CheckPoint	checkpoint;

	if (XLogRecGetRmid(record) != RM_XLOG_ID ||
		(info != XLOG_CHECKPOINT_ONLINE && info != XLOG_CHECKPOINT_SHUTDOWN))
		return false;
	memcpy(&checkpoint, XLogRecGetData(record), sizeof(checkpoint));
	return checkpoint.redo >= lsn;
}

/*
 * Called with each record after its redo. With pages missing, before consistency, the
 * server makes no restartpoint; the next checkpoint then is the next occasion.
 */
void
nc_svc_file_copy_note(XLogReaderState *record)
{
	if (XLogRecGetRmid(record) == RM_DBASE_ID)
	{
		if ((XLogRecGetInfo(record) & ~XLR_INFO_MASK) == XLOG_DBASE_CREATE_FILE_COPY)
			copied = record->EndRecPtr;
		return;
	}
	if (copied == InvalidXLogRecPtr || !is_checkpoint_behind(record, copied))
		return;
	RequestCheckpoint(CHECKPOINT_IMMEDIATE | CHECKPOINT_FORCE | CHECKPOINT_WAIT);
	if (restartpoint() >= copied)
		copied = InvalidXLogRecPtr;
}
