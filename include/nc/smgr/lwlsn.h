/*
 * nc/smgr/lwlsn.h
 *	  Last-written LSNs as storage operations see them: the shared map with its
 *	  locks, and "where WAL is now".
 */
#ifndef NC_SMGR_LWLSN_H
#define NC_SMGR_LWLSN_H

#include "nc/compat/pg.h"

#include "access/xlogdefs.h"

extern Size nc_lwlsn_shmem_bytes(void);
extern void nc_lwlsn_shmem_startup(void);

/*
 * Where WAL is now: the insert position, moved before a page header, or the
 * replay position in recovery. Every change made so far is at or before it.
 */
extern XLogRecPtr nc_lsn_now(void);

/*
 * A page leaves this server: remembers which version a later read must get.  nms
 * is what a request must ask for at least, 0 if the page's LSN will do.
 */
extern void nc_lwlsn_page_dropped(const NcRelKey *rel, BlockNumber block, const char *page,
								  XLogRecPtr nms);

/* The block has changed up to nms, and has at least the LSN `exact` (0: nothing is known). */
extern void nc_lwlsn_set_page(const NcRelKey *rel, BlockNumber block, XLogRecPtr nms,
							  XLogRecPtr exact);

/* The block has changed up to nms; what it has at least stays what is known. Cannot fail. */
extern void nc_lwlsn_raise_page(const NcRelKey *rel, BlockNumber block, XLogRecPtr nms);

/* The relation as a whole changed (created, truncated, dropped). Cannot fail. */
extern void nc_lwlsn_set_relation(const NcRelKey *rel, XLogRecPtr nms);

/* Whole databases changed: every later request asks for at least this. */
extern void nc_lwlsn_raise_all(XLogRecPtr nms);

/* The files of a database were copied or removed: its pages may have any LSN. */
extern void nc_lwlsn_forget_database(Oid db);

/*
 * The LSN that a copy of this block made here must have reached, 0 if unknown: a
 * page of the file cache is compared with it.  Any process.
 */
extern XLogRecPtr nc_lwlsn_exact(const NcRelKey *rel, BlockNumber block);

/* Has the CPU bring what nc_lwlsn_exact() will look at for this block.  Any process, no lock. */
extern void nc_lwlsn_fetch(const NcRelKey *rel, BlockNumber block);

/* What to ask with for this block, and the LSN its answer must reach (0 unknown). */
extern void nc_lwlsn_query(const NcRelKey *rel, BlockNumber block, XLogRecPtr *nms,
						   XLogRecPtr *exact);

#endif							/* NC_SMGR_LWLSN_H */
