/*
 * compat.h
 *	  The only place of the page service that asks for the server's version.
 *
 * Each difference between server majors has one inline function or macro here;
 * the other files use the name.  docs/versions.md tells how to add a major.
 */
#ifndef NC_PAGE_SERVICE_COMPAT_H
#define NC_PAGE_SERVICE_COMPAT_H

#include "postgres.h"

#include "access/clog.h"
#include "access/commit_ts.h"
#include "access/multixact.h"
#include "access/slru.h"
#include "access/transam.h"
#include "catalog/pg_control.h"
#include "libpq-fe.h"
#include "miscadmin.h"
#include "postmaster/startup.h"
#include "replication/walreceiver.h"
#if PG_VERSION_NUM >= 180000
#include "storage/aio_internal.h"
#include "storage/aio_subsys.h"
#endif
#include "storage/bufmgr.h"
#include "storage/smgr.h"
#include "utils/wait_event.h"

#include "nc/base/key.h"

#if PG_VERSION_NUM < 150000
#error "neon_page_service needs PostgreSQL 15 or later"
#endif
#if BLCKSZ != 8192 || SLRU_PAGES_PER_SEGMENT != 32
#error "neon_page_service needs a server with 8 kB blocks"
#endif

#if PG_VERSION_NUM >= 160000
typedef RelFileLocator NcSvcRelFile;
#define NC_SVC_REL_FILE(key) \
	((RelFileLocator) {.spcOid = (key)->spc, .dbOid = (key)->db, .relNumber = (key)->rel})
#else
typedef RelFileNode NcSvcRelFile;
#define NC_SVC_REL_FILE(key) \
	((RelFileNode) {.spcNode = (key)->spc, .dbNode = (key)->db, .relNode = (key)->rel})
#endif

#if PG_VERSION_NUM >= 170000
#define NC_SVC_NO_BACKEND INVALID_PROC_NUMBER
#else
#define NC_SVC_NO_BACKEND InvalidBackendId
#endif

/* Servers with a front door (docs/interposition.md) want to know whether the relation is logged; nobody here does. */
#ifdef NC_FRONT_DOOR
#define NC_SVC_SMGROPEN(rel) smgropen(rel, NC_SVC_NO_BACKEND, 0)
#else
#define NC_SVC_SMGROPEN(rel) smgropen(rel, NC_SVC_NO_BACKEND)
#endif

/* The wait event of this name, from 17 on; asked for by the postmaster, which makes shared memory. */
static inline uint32
nc_svc_wait_event(const char *name)
{
#if PG_VERSION_NUM >= 170000
	return WaitEventExtensionNew(name);
#else
	return PG_WAIT_EXTENSION;
#endif
}

/* Closes all relations and forgets them; from 17 on nothing here pins one. */
static inline void
nc_svc_close_all(void)
{
#if PG_VERSION_NUM >= 170000
	smgrdestroyall();
#else
	smgrcloseall();
#endif
}

/*
 * From 18 on another process may be asked to execute a read, with descriptors of its own,
 * which the gate does not close.  Reads of this process are executed by itself.
 */
#if PG_VERSION_NUM >= 180000
static inline bool
nc_svc_always(PgAioHandle *ioh)
{
	return true;
}

static inline void
nc_svc_read_synchronously(void)
{
	static IoMethodOps method;

	method = *pgaio_method_ops;
	method.needs_synchronous_execution = nc_svc_always;
	pgaio_method_ops = &method;
}
#else
static inline void
nc_svc_read_synchronously(void)
{
}
#endif

/*
 * Gives up the buffer I/O in progress after an ERROR; from 16 on the resource owner does
 * it, and from 18 on what was being submitted is submitted first.
 */
static inline void
nc_svc_abort_buffer_io(void)
{
#if PG_VERSION_NUM >= 180000
	pgaio_error_cleanup();
#elif PG_VERSION_NUM < 160000
	AbortBufferIO();
#endif
}

/* What the startup process must heed while it waits. */
static inline void
nc_svc_startup_interrupts(void)
{
#if PG_VERSION_NUM >= 180000
	ProcessStartupProcInterrupts();
#else
	HandleStartupProcInterrupts();
#endif
}

/* What the walreceiver must heed while it waits. */
static inline void
nc_svc_walreceiver_interrupts(void)
{
#if PG_VERSION_NUM >= 180000
	CHECK_FOR_INTERRUPTS();
#else
	ProcessWalRcvInterrupts();
#endif
}

/*
 * The walreceiver's own connection. struct WalReceiverConn is private to
 * libpqwalreceiver.c; its first member is the PGconn, from 10 to 18.
 */
#if PG_VERSION_NUM >= 190000
#error "look at struct WalReceiverConn of this server"
#endif
static inline PGconn *
nc_svc_walreceiver_conn(WalReceiverConn *conn)
{
	return *(PGconn **) conn;
}

/*
 * Attaches to an SLRU of the running server, as a re-executed backend does:
 * under the postmaster SimpleLruInit only looks the memory up.  Names, sizes
 * and locks are those of clog.c and multixact.c; a wrong size is an ERROR there.
 * Kinds are those of nc/wire/pagestream.h, and NC_SVC_SLRU_COMMIT_TS.
 */
#define NC_SVC_CLOG_LSNS_PER_PAGE (BLCKSZ * 4 / 32)

#if PG_VERSION_NUM >= 170000
/* As many as the pages of all transactions that there can be at a time. */
#define NC_SVC_CLOG_BUFFERS_MAX ((int) ((MaxTransactionId / 2 + (BLCKSZ * 4 - 1)) / (BLCKSZ * 4)))

/* Its slots lie in banks with a lock each. */
static inline void
nc_svc_slru_attach(SlruCtl ctl, int kind)
{
	switch (kind)
	{
		case 0:
			/* the postmaster has put what 0 stands for into the setting */
			SimpleLruInit(ctl, "transaction",
						  Min(Max(16, transaction_buffers), NC_SVC_CLOG_BUFFERS_MAX),
						  NC_SVC_CLOG_LSNS_PER_PAGE, "pg_xact", LWTRANCHE_XACT_BUFFER,
						  LWTRANCHE_XACT_SLRU, SYNC_HANDLER_CLOG, false);
			break;
		case 3:
			SimpleLruInit(ctl, "commit_timestamp",
						  Min(Max(16, commit_timestamp_buffers), SLRU_MAX_ALLOWED_BUFFERS), 0,
						  "pg_commit_ts", LWTRANCHE_COMMITTS_BUFFER, LWTRANCHE_COMMITTS_SLRU,
						  SYNC_HANDLER_COMMIT_TS, false);
			break;
		case 1:
			SimpleLruInit(ctl, "multixact_member", multixact_member_buffers, 0,
						  "pg_multixact/members", LWTRANCHE_MULTIXACTMEMBER_BUFFER,
						  LWTRANCHE_MULTIXACTMEMBER_SLRU, SYNC_HANDLER_MULTIXACT_MEMBER, false);
			break;
		default:
			SimpleLruInit(ctl, "multixact_offset", multixact_offset_buffers, 0,
						  "pg_multixact/offsets", LWTRANCHE_MULTIXACTOFFSET_BUFFER,
						  LWTRANCHE_MULTIXACTOFFSET_SLRU, SYNC_HANDLER_MULTIXACT_OFFSET, false);
			break;
	}
}

static inline LWLock *
nc_svc_slru_lock(SlruCtl ctl, int64 pageno)
{
	return SimpleLruGetBankLock(ctl, pageno);
}
#else
static inline void
nc_svc_slru_attach(SlruCtl ctl, int kind)
{
	switch (kind)
	{
		case 0:
			SimpleLruInit(ctl, "Xact", CLOGShmemBuffers(), NC_SVC_CLOG_LSNS_PER_PAGE,
						  XactSLRULock, "pg_xact", LWTRANCHE_XACT_BUFFER, SYNC_HANDLER_CLOG);
			break;
		case 3:
			SimpleLruInit(ctl, "CommitTs", CommitTsShmemBuffers(), 0, CommitTsSLRULock,
						  "pg_commit_ts", LWTRANCHE_COMMITTS_BUFFER, SYNC_HANDLER_COMMIT_TS);
			break;
		case 1:
			SimpleLruInit(ctl, "MultiXactMember", NUM_MULTIXACTMEMBER_BUFFERS, 0,
						  MultiXactMemberSLRULock, "pg_multixact/members",
						  LWTRANCHE_MULTIXACTMEMBER_BUFFER, SYNC_HANDLER_MULTIXACT_MEMBER);
			break;
		default:
			SimpleLruInit(ctl, "MultiXactOffset", NUM_MULTIXACTOFFSET_BUFFERS, 0,
						  MultiXactOffsetSLRULock, "pg_multixact/offsets",
						  LWTRANCHE_MULTIXACTOFFSET_BUFFER, SYNC_HANDLER_MULTIXACT_OFFSET);
			break;
	}
}

static inline LWLock *
nc_svc_slru_lock(SlruCtl ctl, int64 pageno)
{
	return ctl->shared->ControlLock;
}
#endif

/* Counters of transactions and objects in shared memory. */
#if PG_VERSION_NUM >= 170000
#define NC_SVC_COUNTERS TransamVariables
#else
#define NC_SVC_COUNTERS ShmemVariableCache
#endif

/* From 17 on a checkpoint record says with which wal_level it was written. */
static inline void
nc_svc_checkpoint_wal_level(CheckPoint *checkpoint, int wal_level)
{
#if PG_VERSION_NUM >= 170000
	checkpoint->wal_level = wal_level;
#endif
}

/* The file of a prepared transaction; from 17 on with its epoch. */
#define NC_SVC_TWO_PHASE_BYTES 64

static inline void
nc_svc_two_phase_file(TransactionId xid, char to[NC_SVC_TWO_PHASE_BYTES])
{
#if PG_VERSION_NUM >= 170000
	FullTransactionId next = NC_SVC_COUNTERS->nextXid;
	uint32		epoch = EpochFromFullTransactionId(next);

	if (xid > XidFromFullTransactionId(next))
		epoch--;
	snprintf(to, NC_SVC_TWO_PHASE_BYTES, "pg_twophase/%08X%08X", epoch, xid);
#else
	snprintf(to, NC_SVC_TWO_PHASE_BYTES, "pg_twophase/%08X", xid);
#endif
}

/* How many prepared transactions replay can have. */
#define NC_SVC_PREPARED_MAX max_prepared_xacts

/* Opening of a walreceiver's connection. */
#if PG_VERSION_NUM >= 170000
#define NC_SVC_CONNECT_PARAMETERS const char *conninfo, bool replication, bool logical, \
	bool must_use_password, const char *appname, char **err
#define NC_SVC_CONNECT_ARGUMENTS conninfo, replication, logical, must_use_password, appname, err
#elif PG_VERSION_NUM >= 160000
#define NC_SVC_CONNECT_PARAMETERS const char *conninfo, bool logical, bool must_use_password, \
	const char *appname, char **err
#define NC_SVC_CONNECT_ARGUMENTS conninfo, logical, must_use_password, appname, err
#else
#define NC_SVC_CONNECT_PARAMETERS const char *conninfo, bool logical, const char *appname, char **err
#define NC_SVC_CONNECT_ARGUMENTS conninfo, logical, appname, err
#endif

#endif							/* NC_PAGE_SERVICE_COMPAT_H */
