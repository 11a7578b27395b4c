/*
 * direct_int.h
 *	  What direct.c and direct_conn.c share.  Private to src/direct.
 */
#ifndef NC_DIRECT_DIRECT_INT_H
#define NC_DIRECT_DIRECT_INT_H

#include "nc/wire/pagestream.h"

/*
 * A process's own connection to one shard: closed, being opened, or ready.
 * Holds the requests in flight, oldest first, of this call and of cancelled ones.
 */
typedef struct NcDirectConn NcDirectConn;

/* NULL = no memory. */
extern NcDirectConn *nc_direct_conn_make(uint32 shard, const char *conninfo);
extern void nc_direct_conn_free(NcDirectConn *c);

extern bool nc_direct_conn_ready(const NcDirectConn *c);

/*
 * One step of opening, or of waiting until it may be tried again; waits at most
 * slice_ms.  Returns the events of the wait, WL_LATCH_SET among them; the latch
 * is not reset.
 */
extern uint32 nc_direct_conn_open(NcDirectConn *c, int slice_ms);

/* Sends a request of the call under way; false when the connection was lost by it. */
extern bool nc_direct_conn_send(NcDirectConn *c, NcPsRequest *msg, int index);

/*
 * Waits for input, at most slice_ms, and handles what came through
 * nc_direct_answer() and nc_direct_lost().  Returns the events of the wait.
 */
extern uint32 nc_direct_conn_receive(NcDirectConn *c, int slice_ms);

/* Nobody waits any more for what is in flight. */
extern void nc_direct_conn_orphan(NcDirectConn *c);

/* ---- direct.c: called by the connection, about messages of the call under way ---- */
extern void nc_direct_answer(int index, const NcPsResponse *resp, uint32 shard,
							 const char *address);
extern void nc_direct_lost(int index);

/* A host, of so many, gave an error answer: is the message to be asked again? */
extern bool nc_direct_refused(int index, uint32 host, uint32 nhosts, const NcPsResponse *resp);

#endif							/* NC_DIRECT_DIRECT_INT_H */
