/*
 * nc/net/net.h
 *	  NcNet: the pools of all shards and their connections, as the engine sees
 *	  them.
 *
 * The engine submits flights to a shard; it gets each of them back exactly
 * once, through one of the calls in NcNetHost.  Time is told by the engine in
 * each call, nothing here reads a clock.
 *
 * Bounds: NC_CONNS_MAX connections; a connection takes NC_CONN_BUFFER_BYTES and
 * 2 * depth * NC_CONN_REQUEST_BYTES when it is opened; queues hold the
 * flights of the engine and have its bound.
 */
#ifndef NC_NET_NET_H
#define NC_NET_NET_H

#include "nc/net/conn.h"
#include "nc/net/settings.h"

#define NC_NET_SHARDS_MAX 128

/* Each shard may have several hosts. */
#define NC_NET_POOLS_MAX (NC_NET_SHARDS_MAX * NC_HOSTS_MAX)

/* Connections of one shard: the upper limit of the setting. */
#define NC_POOL_CONNS_MAX 64

/* Delay before an attempt to connect: doubles from the first to the second, half of it random. */
#define NC_BACKOFF_MIN_US 1000
#define NC_BACKOFF_MAX_US 1000000

/* Pause before requests are asked again that were answered "not now", as above. */
#define NC_AGAIN_MIN_US 10000
#define NC_AGAIN_MAX_US 1000000

/* After a wrong answer a server is left alone for at least this long. */
#define NC_BACKOFF_POISONED_US 100000

/* Troubles of one shard are told at most this often. */
#define NC_POOL_LOG_INTERVAL_US 5000000

typedef enum NcNetLevel
{
	NC_NET_INFO,
	NC_NET_WARNING
} NcNetLevel;

typedef struct NcNetHost
{
	void	   *ctx;

	/*
	 * The answer to a flight, verified.  Pages point into the receive buffer and
	 * are gone after the call.  True: the flight is the engine's again.  False,
	 * for an error answer only: it is to be asked again after a while.  Must not
	 * call back into the net.
	 */
	bool		(*answer) (void *ctx, NcConn *conn, NcFlight *flight, const NcPsResponse *resp);

	/* Is it still of use?  Asked just before it is sent.  If not, it is handed back as unwanted. */
	bool		(*keep) (void *ctx, const NcFlight *flight);
	void		(*unwanted) (void *ctx, NcFlight *flight);

	/* Has somebody come to wait for this background flight? */
	bool		(*promoted) (void *ctx, const NcFlight *flight);

	/*
	 * A second flight that asks the same, to be sent over another connection; the
	 * first answer counts.  NULL: it is not wanted, is being asked twice already, or
	 * there is no memory.
	 */
	NcFlight   *(*twin) (void *ctx, NcFlight *flight);

	/* A background flight was lost with its connection; it is the engine's again. */
	void		(*dropped) (void *ctx, NcFlight *flight, const char *reason);

	/*
	 * New addresses: does the flight, in flight on a connection that stays, belong
	 * there still?  If not, the engine makes a copy to route again and the
	 * original stays until its answer, which the engine then ignores.  False when
	 * there is no memory for the copy: then the connection ends, and all that was
	 * in flight on it is routed again.
	 */
	bool		(*rerouted) (void *ctx, NcFlight *flight, uint32_t shard);

	void		(*log) (void *ctx, NcNetLevel level, const char *message);
} NcNetHost;

/*
 * wake_fd: an eventfd that ends a wait of the loop, for name resolution.  epoch:
 * goes into the high bits of request ids, so that a server's log tells
 * communicators apart.  NULL = no memory.
 */
extern NcNet *nc_net_create(NcLoop *loop, const NcNetSettings *settings, const NcNetHost *host,
							NcCounters *counters, int wake_fd, uint64_t epoch);

/* New settings; connections that speak for other ids or another version are replaced. */
extern void nc_net_configure(NcNet *net, const NcNetSettings *settings, uint64_t now_us);

/*
 * New addresses, one string for each shard.  Hosts whose string did not change keep
 * their connections, wherever they are in the list.  All flights that are
 * queued, or in flight on connections that end, come back in `displaced`.
 */
extern void nc_net_set_addresses(NcNet *net, uint32_t count,
								 const char (*conninfo)[256], NcFlightList *displaced,
								 uint64_t now_us);

/* Flights of a shard that are queued or in flight. */
extern uint32_t nc_net_load(const NcNet *net, uint32_t shard);

/* Within NcNetHost.answer: is the host the last of its shard to say that it cannot answer this? */
extern bool nc_net_refused_by_all(const NcConn *conn, const NcFlight *flight);

/* Queues a flight for a shard. */
extern void nc_net_submit(NcNet *net, uint32_t shard, NcFlight *flight);

/*
 * NcNetHost.promoted has become true for the flights of this group: those that are
 * queued go before those that nobody waits for.  Returns how many did.
 */
extern uint32_t nc_net_promote(NcNet *net, uint64_t group);

/* Takes out of the queues what NcNetHost.keep refuses. */
extern void nc_net_sweep(NcNet *net);

/* Sends what can be sent, opens connections that are needed, minds timers. */
extern void nc_net_turn(NcNet *net, uint64_t now_us);

/* Told before completions are run, so that what they start is stamped rightly. */
extern void nc_net_set_now(NcNet *net, uint64_t now_us);

/* When nc_net_turn() has to be called again at the latest. */
extern uint64_t nc_net_deadline_us(const NcNet *net);

/* Connection with this index (< NC_CONNS_MAX); for rows. */
extern NcConn *nc_net_conn(NcNet *net, uint32_t index);

/* Connections ever used: indexes below this. */
extern uint32_t nc_net_conns_used(const NcNet *net);

/* "host:port" of a shard, for messages; of several hosts the one that was chosen last. */
extern const char *nc_net_address(const NcNet *net, uint32_t shard);

/*
 * Ends all connections; flights are forgotten, not given back.  Then the caller
 * runs the loop until nothing is started, then frees.
 */
extern void nc_net_close(NcNet *net, uint64_t now_us);
extern void nc_net_free(NcNet *net);

#endif							/* NC_NET_NET_H */
