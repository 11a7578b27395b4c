/*
 * nc/feed/turn.h
 *	  The WAL feed as its process runs it (src/worker/feed.c); nobody else calls
 *	  these.
 */
#ifndef NC_FEED_TURN_H
#define NC_FEED_TURN_H

#include "postgres.h"

/* Listens, takes the slots over that there are. FATAL when it cannot listen. */
extern void nc_feed_begin(void);

/* The configuration was read anew. */
extern void nc_feed_reloaded(void);

/*
 * Serves all connections once and waits for more to do; memory is the caller's to
 * reset.  stopping: the server stops.  False: nobody is left who writes WAL, and
 * page servers have it.
 */
extern bool nc_feed_turn(bool stopping);

/* Ends the wait of a turn; in a signal handler. */
extern void nc_feed_doorbell_press(void);

#endif							/* NC_FEED_TURN_H */
