/*
 * members.c
 *	  Entries of the log that say who the members are (docs/takeover.md).
 *
 * Runs in the startup process.  An entry is a record XLOG_NOOP, of which redo takes no
 * notice; what it says is in page_service_promise, durably, before the record counts as
 * replayed.  So a page server whose log was told to a takeover tells the members of
 * that log, or newer ones that its compute told it when it joined.
 *
 * What is replayed is never cut off: a page server with WAL that no compute goes on
 * from is parted.  What a compute told is replaced by what the next one tells.
 */
#include "page_service.h"

#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "access/xlogreader.h"
#include "catalog/pg_control.h"

/* NULL: it is no entry. */
static const char *
entry_text(XLogReaderState *record, size_t *bytes)
{
	*bytes = XLogRecGetDataLen(record);
	if (XLogRecGetRmid(record) != RM_XLOG_ID || (XLogRecGetInfo(record) & ~XLR_INFO_MASK) != XLOG_NOOP ||
		*bytes < strlen(NC_MEMBERS_ENTRY) ||
		memcmp(XLogRecGetData(record), NC_MEMBERS_ENTRY, strlen(NC_MEMBERS_ENTRY)) != 0)
		return NULL;
	return XLogRecGetData(record);
}

/* Behind the redo of a record, in no lock; ERROR, which ends the server, if it cannot be kept. */
void
nc_svc_members_note(XLogReaderState *record)
{
	static NcMemberLists lists;
	size_t		bytes;
	const char *text = entry_text(record, &bytes);

	if (text == NULL || !nc_svc_identity_follows())
		return;
	if (!nc_members_parse(text, bytes, &lists))
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("page service: members in WAL at " NC_LSN_FMT " are not understood", NC_LSN_ARGS(record->ReadRecPtr)),
				 errhint("Page server and compute need the same version of neon_comm.")));
	nc_svc_promise_members(&lists);
}
