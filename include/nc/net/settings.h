/*
 * nc/net/settings.h
 *	  The settings of the communicator's side of the network, of net and engine
 *	  alike.  A value: whoever owns an engine fills it in as a whole, and it may
 *	  change as a whole while the engine runs.
 */
#ifndef NC_NET_SETTINGS_H
#define NC_NET_SETTINGS_H

#include <stdbool.h>
#include <stdint.h>

/* Room for what is told in the options of each start-up packet. */
#define NC_OPTIONS_BYTES 128

/* Numbers out of range are taken as the nearest bound. */
typedef struct NcNetSettings
{
	int			protocol_version;	/* 2 or 3 */
	char		tenant_id[33];	/* 32 hex digits */
	char		timeline_id[33];
	uint32_t	connections_per_shard_max;	/* 1..NC_POOL_CONNS_MAX */
	uint32_t	connections_max;	/* of all shards: descriptors that there are; 1..NC_CONNS_MAX,
									 * 0 = as many as there can be */
	uint32_t	depth_max;		/* requests in flight per connection, 1..NC_CONN_DEPTH_MAX */
	uint32_t	spin_us;		/* look for work this long before a sleep, 0 = sleep at once */
	uint32_t	connect_timeout_ms;
	uint32_t	silence_timeout_ms; /* oldest request of a connection unanswered for this long:
									 * abandon the connection, move its requests */
	uint32_t	idle_timeout_ms;	/* close an idle connection that is not the last of its shard */
	bool		readahead_yields;	/* what nobody waits for makes room for what somebody does, see yield.h */
	bool		hedged_reads;	/* who waits on a connection that stalls is asked for on another */
	char		token_file[1024];	/* token read at each connect; empty = none */
	char		options[NC_OPTIONS_BYTES];	/* said at each connect, behind the options of the string */
	bool		token_in_clear; /* also to other machines that are not verified */
} NcNetSettings;

#endif							/* NC_NET_SETTINGS_H */
