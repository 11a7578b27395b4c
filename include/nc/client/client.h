/*
 * nc/client/client.h
 *	  A process's side of its ring: submit, wait, collect, abandon.
 */
#ifndef NC_CLIENT_CLIENT_H
#define NC_CLIENT_CLIENT_H

#include "nc/compat/pg.h"

#include "access/xlogdefs.h"

#include "nc/shared/settings.h"
#include "nc/shared/transport.h"

/* A read of contiguous blocks; all with the same LSNs. */
typedef struct NcRead
{
	NcRelKey	rel;
	BlockNumber block;
	int			nblocks;		/* 1..NC_SLOT_BLOCKS_MAX */
	char	  **pages;			/* shared buffers or private memory */
	const XLogRecPtr *exact;	/* LSN each answer must reach, 0 unknown */
	XLogRecPtr	request_lsn;
	XLogRecPtr	not_modified_since;
	bool		background;		/* nobody waits for it: leaves bounce pages to others */
} NcRead;

/*
 * Reads the pages or raises ERROR. Waits for its answer, at most
 * neon_comm.request_timeout; heeds interrupts wherever they are not held.  The
 * startup process waits without an end and asks again after an error; a relation
 * that its page server does not know then reads as zeroes.
 * Never leaves a request behind that could write to the pages.
 */
extern void nc_client_read(const NcRead *read);

/*
 * What page servers say of a fork, by shard 0: does it exist (0 or 1), how many blocks has it (an error if
 * it does not exist); or of rel's database, how many bytes.  Raises ERROR and waits as a read does; in
 * recovery it asks until there is an answer.
 */
extern uint64 nc_client_ask(NcSlotKind kind, const NcRelKey *rel, XLogRecPtr not_modified_since);

/* The way that a read of this process goes now. */
extern NcMode nc_client_mode(void);

/* ---- for who waits for a read that he does not make himself ---- */

/* WAL up to the LSN that is asked for becomes durable, and is on its way. */
extern void nc_client_make_available(XLogRecPtr nms);

/* Logs now and then that it goes on. True: the deadline has passed. Raises no error. */
extern bool nc_client_waited_long(NcAsk *ask, NcWaitFor what);

/* A page that came is damaged and will be asked for again: counts it, and logs it now and then. */
extern void nc_client_note_damaged(const NcRelKey *rel, BlockNumber block);

/* The error of a deadline that has passed. */
pg_noreturn extern void nc_client_fail_timeout(const NcAsk *ask);

#endif							/* NC_CLIENT_CLIENT_H */
