/*
 * nc/compat/server.h
 *	  Calls into the server whose names or arguments differ between the versions
 *	  we know.  For the workers; storage code needs nc/compat/pg.h only.
 */
#ifndef NC_COMPAT_SERVER_H
#define NC_COMPAT_SERVER_H

#include "postgres.h"

#include "access/transam.h"
#include "miscadmin.h"
#include "postmaster/bgworker_internals.h"
#include "postmaster/startup.h"
#include "replication/slot.h"
#include "replication/walsender_private.h"
#include "storage/condition_variable.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "utils/backend_status.h"
#include "utils/guc_tables.h"
#include "utils/memutils.h"
#include "utils/wait_event.h"
#if PG_VERSION_NUM >= 160000
#include "utils/relfilenumbermap.h"
#else
#include "utils/relfilenodemap.h"
#endif

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

/* The relation of this database with these files; InvalidOid when there is none. In a transaction. */
static inline Oid
nc_pg_relation_of_file(Oid spc, Oid rel)
{
#if PG_VERSION_NUM >= 160000
	return RelidByRelfilenumber(spc, rel);
#else
	return RelidByRelfilenode(spc, rel);
#endif
}

/* How many background workers have been registered; in the postmaster. */
static inline int
nc_pg_workers_registered(void)
{
	int			n = 0;
#if PG_VERSION_NUM >= 180000
	dlist_iter	it;

	dlist_foreach(it, &BackgroundWorkerList)
		n++;
#else
	slist_iter	it;

	slist_foreach(it, &BackgroundWorkerList)
		n++;
#endif
	return n;
}

/* The next OID; OidGenLock is held. For tests. */
static inline void
nc_pg_set_next_oid(Oid next)
{
#if PG_VERSION_NUM >= 170000
	TransamVariables->nextOid = next;
	TransamVariables->oidCount = 0;
#else
	ShmemVariableCache->nextOid = next;
	ShmemVariableCache->oidCount = 0;
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

/* Would the server give up slots that nobody has used for a while? */
static inline bool
nc_pg_slots_expire(void)
{
#if PG_VERSION_NUM >= 180000
	return idle_replication_slot_timeout_secs != 0;
#else
	return false;
#endif
}

/* The slot has moved on: who sends decoded changes may wait for that (synchronized_standby_slots). */
static inline void
nc_pg_slot_moved(const char *name)
{
#if PG_VERSION_NUM >= 170000
	if (SlotExistsInSyncStandbySlots(name))
		ConditionVariableBroadcast(&WalSndCtl->wal_confirm_rcv_cv);
#endif
}

/* Whose latch who flushes WAL sets; NULL is nobody's. The entry's mutex is held. */
static inline void
nc_pg_walsnd_set_latch(WalSnd *entry, Latch *latch)
{
#if PG_VERSION_NUM >= 160000
	entry->kind = REPLICATION_KIND_PHYSICAL;
#endif
#if PG_VERSION_NUM < 180000
	entry->latch = latch;
#endif
}

/* From here on who flushes WAL sets this process's latch. Before 16 he always does, see above. */
static inline void
nc_pg_wal_flush_expect(void)
{
#if PG_VERSION_NUM >= 160000
	ConditionVariablePrepareToSleep(&WalSndCtl->wal_flush_cv);
#endif
}

static inline void
nc_pg_wal_flush_expected(void)
{
#if PG_VERSION_NUM >= 160000
	ConditionVariableCancelSleep();
#endif
}

/* The server's table of settings and how many there are. */
static inline struct config_generic **
nc_pg_settings(int *n)
{
#if PG_VERSION_NUM >= 160000
	return get_guc_variables(n);
#else
	*n = GetNumConfigOptions();
	return get_guc_variables();
#endif
}

/* What a check hook of a setting hands on as its extra; NULL when there is no memory. */
static inline void *
nc_pg_guc_malloc(size_t bytes)
{
#if PG_VERSION_NUM >= 160000
	return guc_malloc(LOG, bytes);
#else
	return malloc(bytes);
#endif
}

static inline void
nc_pg_guc_free(void *extra)
{
#if PG_VERSION_NUM >= 160000
	guc_free(extra);
#else
	free(extra);
#endif
}

/* Does this process run no transactions: checkpointer, startup and their like? */
static inline bool
nc_pg_is_auxiliary(void)
{
#if PG_VERSION_NUM >= 170000
	return MyBackendType >= B_ARCHIVER;
#else
	return MyAuxProcType != NotAnAuxProcess;
#endif
}

/* What the startup process must heed while it waits. */
static inline void
nc_pg_startup_interrupts(void)
{
#if PG_VERSION_NUM >= 180000
	ProcessStartupProcInterrupts();
#else
	HandleStartupProcInterrupts();
#endif
}

/*
 * Could an interrupt be served inside an operation of the storage manager?  From 18 on
 * the server's smgr.c holds interrupts off around each of them, because closing all
 * files amid md's work would confuse md.  We wait outside md's functions: where that is
 * the only thing that holds them off, they may be served, as on servers before.
 */
static inline bool
nc_pg_storage_may_interrupt(void)
{
#if PG_VERSION_NUM >= 180000
	return InterruptHoldoffCount == 1 && QueryCancelHoldoffCount == 0 && CritSectionCount == 0;
#else
	return INTERRUPTS_CAN_BE_PROCESSED();
#endif
}

/* CHECK_FOR_INTERRUPTS for whoever waits there. */
static inline void
nc_pg_storage_interrupts(void)
{
#if PG_VERSION_NUM >= 180000
	if (INTERRUPTS_PENDING_CONDITION() && nc_pg_storage_may_interrupt())
	{
		RESUME_INTERRUPTS();
		CHECK_FOR_INTERRUPTS();
		HOLD_INTERRUPTS();
		return;
	}
#endif
	CHECK_FOR_INTERRUPTS();
}

/* A wait event set that lives as long as the process. */
static inline WaitEventSet *
nc_pg_wait_event_set(int nevents)
{
#if PG_VERSION_NUM >= 170000
	return CreateWaitEventSet(NULL, nevents);
#else
	return CreateWaitEventSet(TopMemoryContext, nevents);
#endif
}

/*
 * The wait event that has a name of its own, from 17 on; it takes a lock and may raise an
 * error.  Before there are no such names: it stays the one it was.
 */
static inline uint32
nc_pg_wait_event(const char *name, uint32 event)
{
#if PG_VERSION_NUM >= 170000
	return WaitEventExtensionNew(name);
#else
	return event;
#endif
}

/* A name of ours and the name as a built-in function, of each form of pg_read_binary_file(). */
#if PG_VERSION_NUM >= 160000
#define NC_PG_EACH_READ_BINARY_FILE(X) \
	X(read_all, "pg_read_binary_file_all") \
	X(read_all_missing, "pg_read_binary_file_all_missing") \
	X(read_part, "pg_read_binary_file_off_len") \
	X(read_part_missing, "pg_read_binary_file_off_len_missing")
#else
#define NC_PG_EACH_READ_BINARY_FILE(X) \
	X(read_all, "pg_read_binary_file_all") \
	X(read_part, "pg_read_binary_file_off_len") \
	X(read_part_missing, "pg_read_binary_file")
#endif

/* What ExecutorRun_hook is called with. */
#if PG_VERSION_NUM >= 180000
#define NC_PG_EXECUTOR_RUN_PARAMETERS QueryDesc *query, ScanDirection direction, uint64 count
#define NC_PG_EXECUTOR_RUN_ARGUMENTS query, direction, count
#else
#define NC_PG_EXECUTOR_RUN_PARAMETERS QueryDesc *query, ScanDirection direction, uint64 count, \
	bool once
#define NC_PG_EXECUTOR_RUN_ARGUMENTS query, direction, count, once
#endif

#endif							/* NC_COMPAT_SERVER_H */
