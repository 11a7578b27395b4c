/*
 * net_int.h
 *	  What conn.c, stream.c and pool.c share.  Private to src/net.
 */
#ifndef NC_NET_NET_INT_H
#define NC_NET_NET_INT_H

#include "nc/net/late.h"
#include "nc/net/net.h"
#include "nc/net/resolve.h"
#include "nc/net/yield.h"

/* Why a connection ends: chooses the counter, the back-off and the wording. */
typedef enum NcConnEnd
{
	NC_CONN_END_CONNECT,		/* an attempt failed */
	NC_CONN_END_LOST,			/* closed by the other side, or an error of the socket */
	NC_CONN_END_POISONED,		/* an answer did not match */
	NC_CONN_END_SILENT,			/* no answer in time */
	NC_CONN_END_RETIRED			/* not needed any more, or replaced */
} NcConnEnd;

/*
 * Requests and connections of one host of a shard.  Of the communicator alone, as all of the
 * net; only `resolve` is shared, with its thread (resolve.c).
 */
struct NcPool
{
	NcNet	   *net;
	uint32_t	shard;
	char		conninfo[NC_HOST_CONNINFO_BYTES];	/* of this host alone */

	/* With several hosts (hosts.c): of NC_SHARE_ALL reads so many are for this one. */
	uint32_t	share;
	uint64_t	share_us;		/* it grows from then on */
	uint64_t	rest_us;		/* the last rest; 0 after it had all again */
	NcConninfoParts parts;

	NcFlightList foreground;	/* somebody waits */
	NcFlightList promoted;		/* somebody came to wait for what was read ahead */
	NcFlightList background;	/* nobody waits */
	uint32_t	background_sent;	/* of these, in flight on its connections */
	NcYield		yield;			/* how many that may be */
	NcLate		late;			/* when answers are, and how many may be asked for twice */
	NcLsn		replayed;		/* the page server has answered a request that needed so much WAL;
								 * 0 after a failure: who answers next may be another one */
	NcFlightList again;			/* answered "not now": asked again from again_at_us on */
	uint64_t	again_at_us;
	uint64_t	again_pause_us; /* the last pause; 0 after a good answer */

	NcConn	   *conns[NC_POOL_CONNS_MAX];
	uint32_t	nconns;
	bool		waiting;		/* some of them may be in BACKOFF */
	bool		used;			/* this object of the store is taken */

	/* Connecting: no attempt before retry_us. */
	uint64_t	retry_us;
	uint64_t	backoff_us;		/* the last delay; 0 after a success */
	NcResolve  *resolve;		/* running or fresh; its addresses are used in turn */
	uint64_t	resolved_us;	/* when it was seen done, 0 = not yet */
	uint32_t	attempts;		/* connections started, chooses the address */

	/* Trouble, told in few lines. */
	uint64_t	trouble_since_us;	/* 0 = none */
	uint32_t	failures;		/* since then */
	uint64_t	log_next_us;
	bool		trouble_logged;
	char		last_error[NC_CONN_TEXT_BYTES];
};

/* The hosts of one shard. */
typedef struct NcHosts
{
	uint32_t	first;			/* index of the first one's pool */
	uint32_t	count;
	uint32_t	last;			/* which one was chosen last, of count */
	uint64_t	last_group;		/* for this range */
	uint32_t	turn;			/* counts choices, for shares */
} NcHosts;

struct NcNet
{
	NcLoop	   *loop;
	NcNetHost	host;
	NcNetSettings settings;
	NcCounters *counters;
	int			wake_fd;
	bool		closing;		/* nc_net_close() was called: nothing is opened any more */
	uint64_t	now_us;
	uint64_t	deadline_us;	/* next time that timers need a look */
	uint64_t	last_reqid;
	uint64_t	random;

	NcPool	   *pools[NC_NET_POOLS_MAX];	/* the hosts of shard 0, those of shard 1, ...; point into the store */
	uint32_t	npools;
	NcHosts		hosts[NC_NET_SHARDS_MAX];	/* by shard */
	uint32_t	nshards;
	/* while addresses are swapped both sets exist */
	NcPool		store[2 * NC_NET_POOLS_MAX];

	uint32_t	conns_used;
	NcConn		conns[NC_CONNS_MAX];
};

/* A connection that stood for this long counts as a success even if nothing was asked. */
#define NC_CONN_STOOD_US 1000000

/* ---- conn.c ---- */

/* The one place that changes a state; checks the table of conn_row.h. */
extern void nc_conn_set_state(NcConn *c, NcConnState to);

/* BACKOFF -> CONNECTING. hostaddr may be NULL. Failures are told to the pool. */
extern void nc_conn_start(NcConn *c, const char *hostaddr);

/* Ends a connection in whatever state; its flights go to its pool. */
extern void nc_conn_end(NcConn *c, NcConnEnd why, const char *reason);

/* Puts a flight on a READY connection with room. */
extern void nc_conn_send(NcConn *c, NcFlight *flight);

/* May one more flight be put on it? limit: how deep. */
extern bool nc_conn_has_room(const NcConn *c, uint32_t limit);

/* Next time that this connection needs a look. */
extern uint64_t nc_conn_deadline_us(const NcConn *c);

/* Looks at its timers. */
extern void nc_conn_check_time(NcConn *c);

/* stream.c has unread bytes: splits frames and handles them. False when the connection ended. */
extern bool nc_conn_parse(NcConn *c);

/* Since when the oldest request has been the next to be answered. */
extern uint64_t nc_conn_silent_since(const NcConn *c);

/* The state machine answers a finished poll of the handshake. */
extern void nc_conn_handshake_event(NcConn *c);

/* CLOSING: lets go of everything once no operation is left. */
extern void nc_conn_closing_event(NcConn *c);

/* ---- stream.c ---- */

/* The handshake is done: starts to receive. */
extern void nc_stream_begin(NcConn *c);

/* Sends unsent bytes unless a send is under way. */
extern void nc_stream_flush(NcConn *c);

/* Completions of in_op and out_op in any state. */
extern void nc_stream_in_complete(NcOp *op);
extern void nc_stream_out_complete(NcOp *op);

/* ---- pool.c ---- */

/* Takes back the flights of a connection that ended, and remembers why. */
extern void nc_pool_conn_ended(NcPool *pool, NcConn *c, NcConnEnd why, const char *reason);

/* A connection proved that the server works: trouble is over. */
extern void nc_pool_proved(NcPool *pool, bool answered);

/* The server cannot answer: the flight is asked again, of another host or after a pause. */
extern void nc_pool_ask_again(NcPool *pool, NcFlight *flight, const char *message);

/* Sends what can be sent and opens what is needed; in a turn, after timers. */
extern void nc_pool_turn(NcPool *pool);

/* Where a flight that is to be sent has to stand. */
extern NcFlightList *nc_pool_queue_of(NcPool *pool, const NcFlight *flight);

/* Flights to the front of a pool's queues, in their order. */
extern void nc_pool_queue_again(NcPool *pool, NcFlightList *from);

/* All that is queued, but what is asked again after a pause; and how much that is. */
extern void nc_pool_take_queues(NcPool *pool, NcFlightList *to);
extern uint32_t nc_pool_queued(const NcPool *pool);

/* Hands sent bytes to the loop. A connection may end by it, and another take its place. */
extern void nc_pool_flush(NcPool *pool);

/* One more connection for the foreground, within the caps, unless one is coming. */
extern void nc_pool_add_spare(NcPool *pool);

/* The least loaded connection of a pool on which a copy may go, or NULL; never one that is late itself. */
extern NcConn *nc_pool_for_copy(const NcPool *pool);

/* Takes what is not wanted any more out of its queues. */
extern void nc_pool_sweep(NcPool *pool);

/* ---- hosts.c ---- */

/* Of so many reads a host gets its share; what it has when nothing is held against it. */
#define NC_SHARE_ALL 16

/*
 * A host that was left gets nothing for so long, twice as long each time, while there is
 * another; then one share more in each of the steps.
 */
#define NC_HOST_REST_MIN_US 500000
#define NC_HOST_REST_MAX_US 16000000
#define NC_HOST_STEP_US 200000

/* Who could not be asked elsewhere for want of room has another try after this. */
#define NC_HOST_RETRY_US 5000

/* The pool of a shard that a flight goes to. */
extern NcPool *nc_hosts_choose(NcNet *net, uint32_t shard, uint64_t group);

/* Something is held against this host. */
extern void nc_hosts_left(NcPool *pool);

/* Has it a connection that makes progress? */
extern bool nc_host_usable(const NcPool *pool);

/*
 * The next host of the same shard, behind it and round again, that is usable and has not
 * refused the flight; NULL = none.
 */
extern NcPool *nc_hosts_next(const NcPool *pool, const NcFlight *flight);

/* Flights whose pause is over: with several hosts they are asked in turn. */
extern void nc_hosts_spread(NcPool *pool, NcFlightList *from);

/* This host has refused the flight; have all of its shard? */
extern void nc_hosts_note_refusal(const NcPool *pool, NcFlight *flight);
extern bool nc_hosts_all_refuse(const NcPool *pool, const NcFlight *flight);

/* The connection of another host of the same shard on which a copy can go now; *lacks_room: there is one, full. */
extern NcConn *nc_hosts_elsewhere(const NcPool *pool, bool *lacks_room);

/* What is queued for a host that was left, or to which nothing can be sent, goes to another one. */
extern void nc_hosts_turn(NcNet *net);

/* ---- hedge.c ---- */

/* With the timers: what makes no progress is asked for elsewhere. */
extern void nc_pool_hedge(NcPool *pool);

/* Timers need a look at this time. */
static inline void
nc_net_arm(NcNet *net, uint64_t at_us)
{
	if (at_us < net->deadline_us)
		net->deadline_us = at_us;
}

#endif							/* NC_NET_NET_INT_H */
