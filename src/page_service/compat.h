/*
 * compat.h
 *	  The only place of the page service that asks for the server's version.
 *
 * Each difference between server majors has one inline function or macro here;
 * the other files use the name.  15 is what is built and tested.
 */
#ifndef NC_PAGE_SERVICE_COMPAT_H
#define NC_PAGE_SERVICE_COMPAT_H

#include "postgres.h"

#include "access/clog.h"
#include "access/multixact.h"
#include "access/slru.h"
#include "postmaster/startup.h"
#include "storage/bufmgr.h"
#include "storage/smgr.h"

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

/* Gives up the buffer I/O in progress after an ERROR; from 16 on the resource owner does it. */
static inline void
nc_svc_abort_buffer_io(void)
{
#if PG_VERSION_NUM < 160000
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

#if PG_VERSION_NUM < 170000
/*
 * Attaches to an SLRU of the running server, as a re-executed backend does:
 * under the postmaster SimpleLruInit only looks the memory up.  Names, sizes
 * and locks are those of clog.c and multixact.c; a wrong size is an ERROR there.
 */
#define NC_SVC_CLOG_LSNS_PER_PAGE (BLCKSZ * 4 / 32)

static inline void
nc_svc_slru_attach(SlruCtl ctl, int kind)
{
	switch (kind)
	{
		case 0:
			SimpleLruInit(ctl, "Xact", CLOGShmemBuffers(), NC_SVC_CLOG_LSNS_PER_PAGE,
						  XactSLRULock, "pg_xact", LWTRANCHE_XACT_BUFFER, SYNC_HANDLER_CLOG);
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
#define NC_SVC_HAVE_SLRU 1
#else
/* From 17 on SLRU slots live in banks with own locks; not written yet, answered as an error. */
#define NC_SVC_HAVE_SLRU 0
#endif

#endif							/* NC_PAGE_SERVICE_COMPAT_H */
