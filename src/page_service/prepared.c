/*
 * prepared.c
 *	  Which prepared transactions a boot image must look for in WAL.
 *
 * The state of a prepared transaction is a file in pg_twophase if its record lies
 * before the last restartpoint, otherwise only the record in pg_wal; the server
 * keeps which ones there are in structs of its own.  So the startup process notes
 * where records lie.  After a start the list is empty: replay begins at the
 * restartpoint, and what was prepared before is a file.
 *
 * Written by the startup process during redo, read within the cut (gate.c), so
 * never at the same time.
 */
#include "page_service.h"

#include "access/twophase.h"
#include "access/xact.h"
#include "access/xlogreader.h"
#include "storage/shmem.h"

#include "compat.h"

typedef struct PreparedList
{
	int			n;
	bool		overflowed;		/* more than replay can have: never */
	NcSvcPrepared at[FLEXIBLE_ARRAY_MEMBER];
} PreparedList;

static PreparedList *list;

Size
nc_svc_prepared_shmem_bytes(void)
{
	return add_size(offsetof(PreparedList, at), mul_size(sizeof(NcSvcPrepared), NC_SVC_PREPARED_MAX));
}

void
nc_svc_prepared_shmem_init(void)
{
	bool		found;

	list = ShmemInitStruct("neon_page_service prepared", nc_svc_prepared_shmem_bytes(), &found);
	if (!found)
		memset(list, 0, nc_svc_prepared_shmem_bytes());
}

static void
forget_prepared(TransactionId xid)
{
	for (int i = 0; i < list->n; i++)
	{
		if (list->at[i].xid != xid)
			continue;
		list->at[i] = list->at[--list->n];
		return;
	}
}

static void
remember_prepared(TransactionId xid, XLogRecPtr at)
{
	forget_prepared(xid);
	if (list->n == NC_SVC_PREPARED_MAX)
		list->overflowed = true;
	else
		list->at[list->n++] = (NcSvcPrepared) {xid, at};
}

void
nc_svc_prepared_note(XLogReaderState *record)
{
	uint8		info = XLogRecGetInfo(record);
	xl_xact_parsed_commit commit;
	xl_xact_parsed_abort abort;

	if (XLogRecGetRmid(record) != RM_XACT_ID)
		return;
	switch (info & XLOG_XACT_OPMASK)
	{
		case XLOG_XACT_PREPARE:
			remember_prepared(((xl_xact_prepare *) XLogRecGetData(record))->xid, record->ReadRecPtr);
			break;
		case XLOG_XACT_COMMIT_PREPARED:
			ParseCommitRecord(info, (xl_xact_commit *) XLogRecGetData(record), &commit);
			forget_prepared(commit.twophase_xid);
			break;
		case XLOG_XACT_ABORT_PREPARED:
			ParseAbortRecord(info, (xl_xact_abort *) XLogRecGetData(record), &abort);
			forget_prepared(abort.twophase_xid);
			break;
		default:
			break;
	}
}

NcSvcPrepared *
nc_svc_prepared_get(int *n)
{
	NcSvcPrepared *copy = palloc(sizeof(NcSvcPrepared) * Max(list->n, 1));

	if (list->overflowed)
		ereport(ERROR, (errmsg("more prepared transactions were replayed than max_prepared_transactions allows")));
	*n = list->n;
	memcpy(copy, list->at, sizeof(NcSvcPrepared) * list->n);
	return copy;
}
