/*
 * nc/smgr/keep.h
 *	  Decides whether a page must be kept locally, from its bytes and a horizon.
 */
#ifndef NC_SMGR_KEEP_H
#define NC_SMGR_KEEP_H

#include "nc/smgr/local.h"

/*
 * Why this page of a permanent main fork must be kept, or NC_KEEP_NOT.  born:
 * see NcRelInfo.
 * *keep_until is set when it must.  Any process; takes XidGenLock for a moment
 * when the page has tuples with command ids.
 */
extern NcKeep nc_keep_page(const char *page, BlockNumber block, XLogRecPtr born,
						   FullTransactionId *keep_until);

/*
 * Is a page that must be kept for this reason one that the calling process's own
 * transaction has made or changed?  What has no xids in it counts as own for
 * whoever has one, and what was never logged for who extends that relation.
 */
extern bool nc_keep_is_own(const NcRelKey *rel, const char *page, NcKeep why);

/* This process extends a relation, of which it then may be the builder. */
extern void nc_keep_note_extended(const NcRelKey *rel);

/* All transactions before this have ended; conservative. Not in recovery. */
extern FullTransactionId nc_keep_horizon(void);

/*
 * May a process still hold a snapshot from when `until` was the next xid?  CREATE INDEX
 * CONCURRENTLY builds under one, without an xid.  This process's own counts if its
 * transaction may be building something: whoever finds the index full sweeps.
 */
extern bool nc_keep_snapshot_open(FullTransactionId until);

/* Does any VACUUM (lazy, autovacuum or a parallel worker of one) run now? */
extern bool nc_keep_vacuum_running(void);

/* The page is a sequence's. */
extern bool nc_page_is_sequence(const char *page, BlockNumber block);

/*
 * A heap page that is all-visible: its LSN may not move when the flag is set,
 * or move here and not on the page server (wal_log_hints set on one of them).
 */
extern bool nc_page_lsn_may_lag(const char *page);

/* The LSN is none that WAL gives: the page was changed without WAL, or it is empty. */
extern bool nc_page_was_not_logged(const char *page);

/* All bytes are zero. */
extern bool nc_page_is_zero(const char *page);

#endif							/* NC_SMGR_KEEP_H */
