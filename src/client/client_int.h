/*
 * client_int.h
 *	  What the files of src/client know of each other.
 */
#ifndef NC_CLIENT_CLIENT_INT_H
#define NC_CLIENT_CLIENT_INT_H

#include "nc/client/client.h"
#include "nc/shared/transport.h"

/* ---- ring_transport.c ---- */

extern const NcTransport nc_ring_transport;

/* This process's ring; ERROR when it has none. */
extern NcRing *nc_client_attach(void);

/*
 * Ends a slot's life whatever its state; waits out one memcpy when the
 * communicator is at it.  True when it had been submitted and not answered.
 */
extern bool nc_client_withdraw(NcSlot *slot);

/* Waits until a submitted slot of this process, which `ask` is about, is DONE. */
extern void nc_client_await(NcSlot *slot, NcAsk *ask);

/* ---- read.c ---- */

/*
 * Waits until a submitted slot of this process is DONE.  Raises ERROR as a read
 * does (cancel, time-out), and then leaves the slot as it is.
 */
extern void nc_client_wait(NcSlot *slot, const NcRelKey *rel, BlockNumber block);

#endif							/* NC_CLIENT_CLIENT_INT_H */
