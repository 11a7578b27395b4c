/*
 * nc/compat/server.h
 *	  Calls into the server whose names or arguments differ between the versions
 *	  we know.  For the workers; storage code needs nc/compat/pg.h only.
 */
#ifndef NC_COMPAT_SERVER_H
#define NC_COMPAT_SERVER_H

#include "postgres.h"

#include "replication/slot.h"
#include "utils/backend_status.h"

/* A process's status entry, counted from 1; NULL when it is gone. */
static inline LocalPgBackendStatus *
nc_pg_backend_status(int index)
{
#if PG_VERSION_NUM >= 160000
	return pgstat_get_local_beentry_by_index(index);
#else
	return pgstat_fetch_stat_local_beentry(index);
#endif
}

/* Makes a persistent physical slot; it is then this process's own. */
static inline void
nc_pg_slot_create(const char *name)
{
#if PG_VERSION_NUM >= 170000
	ReplicationSlotCreate(name, false, RS_PERSISTENT, false, false, false);
#else
	ReplicationSlotCreate(name, false, RS_PERSISTENT, false);
#endif
}

/* Does the slot keep no WAL any more? Its mutex is held. */
static inline bool
nc_pg_slot_invalidated(const ReplicationSlot *slot)
{
#if PG_VERSION_NUM >= 160000
	return slot->data.invalidated != RS_INVAL_NONE;
#else
	return slot->data.invalidated_at != InvalidXLogRecPtr &&
		slot->data.restart_lsn == InvalidXLogRecPtr;
#endif
}

/* Would the server invalidate slots that nobody uses for a while? */
static inline bool
nc_pg_idle_slots_time_out(void)
{
#if PG_VERSION_NUM >= 180000
	return idle_replication_slot_timeout_secs != 0;
#else
	return false;
#endif
}

#endif							/* NC_COMPAT_SERVER_H */
