/*
 * net.c
 *	  The set of pools: settings, addresses, timers and the turn.
 *
 * Runs in the communicator.  What happens to one shard is in pool.c, to one
 * connection in conn.c.  All memory of pools and of the table of connections is
 * taken by nc_net_create().
 */
#include "net_int.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A communicator would have to live for months at full speed to use this many ids up. */
#define REQID_EPOCH_SHIFT 44

static void
set_limits(NcNetSettings *s)
{
	if (s->connections_per_shard_max < 1)
		s->connections_per_shard_max = 1;
	if (s->connections_per_shard_max > NC_POOL_CONNS_MAX)
		s->connections_per_shard_max = NC_POOL_CONNS_MAX;
	if (s->connections_max < 1 || s->connections_max > NC_CONNS_MAX)
		s->connections_max = NC_CONNS_MAX;
	if (s->depth_max < 1)
		s->depth_max = 1;
	if (s->depth_max > NC_CONN_DEPTH_MAX)
		s->depth_max = NC_CONN_DEPTH_MAX;
}

NcNet *
nc_net_create(NcLoop *loop, const NcNetSettings *settings, const NcNetHost *host,
			  NcCounters *counters, int wake_fd, uint64_t epoch)
{
	NcNet	   *net = calloc(1, sizeof(*net));

	if (net == NULL)
		return NULL;
	net->loop = loop;
	net->host = *host;
	net->settings = *settings;
	set_limits(&net->settings);
	net->counters = counters;
	net->wake_fd = wake_fd;
	net->last_reqid = epoch << REQID_EPOCH_SHIFT;
	/* processes that start together must not try together; not 0, which xorshift never leaves */
	net->random = (epoch << 32 ^ (uint64_t) getpid()) * UINT64_C(0x9e3779b97f4a7c15) | 1;
	net->deadline_us = UINT64_MAX;
	for (uint32_t i = 0; i < NC_CONNS_MAX; i++)
	{
		net->conns[i].net = net;
		net->conns[i].fd = -1;
	}
	return net;
}

/* ---- pools ---- */

static void
end_all(NcPool *pool, const char *reason)
{
	/* backwards: an ended connection's place is taken by the last one */
	for (uint32_t i = pool->nconns; i-- > 0;)
		nc_conn_end(pool->conns[i], NC_CONN_END_RETIRED, reason);
}

static NcPool *
make_pool(NcNet *net, const char *conninfo)
{
	NcPool	   *pool = net->store;
	char		err[NC_CONN_ERROR_BYTES];

	/* twice as many as can be in a map: one is free */
	while (pool->used)
		pool++;
	NC_ASSERT(pool < net->store + 2 * NC_NET_POOLS_MAX);
	memset(pool, 0, sizeof(*pool));
	pool->net = net;
	pool->used = true;
	nc_late_init(&pool->late);
	pool->share = NC_SHARE_ALL;
	snprintf(pool->conninfo, sizeof(pool->conninfo), "%s", conninfo);
	/* a string that libpq refuses is told when connecting fails */
	if (!nc_conninfo_parts(pool->conninfo, &pool->parts, err, sizeof(err)))
		snprintf(pool->parts.address, sizeof(pool->parts.address), "?");
	return pool;
}

static void
drop_pool(NcPool *pool)
{
	if (pool->resolve != NULL)
		nc_resolve_release(pool->resolve);
	pool->resolve = NULL;
	pool->used = false;
}

/* Is a host with this string one of a shard's? */
static bool
names_host(const char *shard_conninfo, const char *host_conninfo)
{
	char		one[NC_HOST_CONNINFO_BYTES];
	uint32_t	n = 1;

	for (uint32_t i = 0; i < n; i++)
	{
		n = nc_conninfo_host(shard_conninfo, i, one, sizeof(one));
		if (strcmp(one, host_conninfo) == 0)
			return true;
	}
	return false;
}

/*
 * The pool among `from` for a host's string: the one of the same shard, else any that nobody
 * claims.  By the string, not the number: a map in another order must not cost connections.
 */
static NcPool *
claim_pool(NcPool **from, uint32_t nfrom, uint32_t shard, uint32_t count, const char *host_conninfo,
		   const char (*conninfo)[256])
{
	uint32_t	found = nfrom;
	NcPool	   *pool;

	for (uint32_t i = 0; i < nfrom; i++)
	{
		if (from[i] == NULL || strcmp(from[i]->conninfo, host_conninfo) != 0)
			continue;
		if (from[i]->shard == shard)
		{
			found = i;
			break;
		}
		/* somebody else's own place is not taken away from him */
		if (from[i]->shard >= count || !names_host(conninfo[from[i]->shard], host_conninfo))
			found = i;
	}
	if (found == nfrom)
		return NULL;
	pool = from[found];
	from[found] = NULL;
	return pool;
}

/* A new map ends every pause. */
static void
take_queues(NcPool *pool, NcFlightList *displaced)
{
	nc_flight_append_list(displaced, &pool->again);
	nc_pool_take_queues(pool, displaced);
}

/* A pool that stays: its queue is routed again, what is in flight is asked about. */
static void
keep_pool(NcPool *pool, uint32_t shard, NcFlightList *displaced)
{
	NcNetHost  *host = &pool->net->host;

	pool->shard = shard;
	/* backwards: an ended connection's place is taken by the last one */
	for (uint32_t i = pool->nconns; i-- > 0;)
	{
		NcConn	   *c = pool->conns[i];
		NcFlight   *f = c->in_flight.head;

		c->shard = shard;
		/* a flight that belongs elsewhere stays in the list: answers are matched by their order */
		while (f != NULL && host->rerouted(host->ctx, f, shard))
		{
			/* hosts may have other places now */
			f->refused_by = 0;
			f = f->next;
		}
		if (f != NULL)
			nc_conn_end(c, NC_CONN_END_RETIRED, "the shard map changed");
	}
	take_queues(pool, displaced);
}

static void
remove_pool(NcPool *pool, NcFlightList *displaced)
{
	end_all(pool, "its address left the shard map");
	take_queues(pool, displaced);
	drop_pool(pool);
}

/* A shard's hosts under the new map, behind the pools that are in it already. */
static void
set_hosts(NcNet *net, NcPool **from, uint32_t nfrom, uint32_t shard, uint32_t count,
		  const char (*conninfo)[256], NcFlightList *displaced)
{
	NcHosts    *hosts = &net->hosts[shard];
	char		one[NC_HOST_CONNINFO_BYTES];

	*hosts = (NcHosts) {.first = net->npools, .count = 1};
	for (uint32_t i = 0; i < hosts->count; i++)
	{
		NcPool	   *pool;

		hosts->count = nc_conninfo_host(conninfo[shard], i, one, sizeof(one));
		pool = claim_pool(from, nfrom, shard, count, one, conninfo);
		if (pool != NULL)
			keep_pool(pool, shard, displaced);
		else
			pool = make_pool(net, one);
		pool->shard = shard;
		net->pools[net->npools++] = pool;
	}
}

void
nc_net_set_addresses(NcNet *net, uint32_t count, const char (*conninfo)[256],
					 NcFlightList *displaced, uint64_t now_us)
{
	NcPool	   *from[NC_NET_POOLS_MAX];
	uint32_t	nfrom = net->npools;

	NC_ASSERT(count <= NC_NET_SHARDS_MAX);
	net->now_us = now_us;
	memcpy(from, net->pools, sizeof(from));
	net->npools = 0;
	net->nshards = count;
	for (uint32_t i = 0; i < count; i++)
		set_hosts(net, from, nfrom, i, count, conninfo, displaced);
	/* behind all claims: a pool without a claim is in nobody's map any more */
	for (uint32_t i = 0; i < nfrom; i++)
		if (from[i] != NULL)
			remove_pool(from[i], displaced);
	nc_net_arm(net, now_us);
}

void
nc_net_configure(NcNet *net, const NcNetSettings *settings, uint64_t now_us)
{
	NcNetSettings *s = &net->settings;
	bool		replace = s->protocol_version != settings->protocol_version ||
		strcmp(s->tenant_id, settings->tenant_id) != 0 ||
		strcmp(s->timeline_id, settings->timeline_id) != 0;

	net->now_us = now_us;
	*s = *settings;
	set_limits(s);
	for (uint32_t i = 0; replace && i < net->npools; i++)
	{
		end_all(net->pools[i], "settings changed");
		/* another timeline, perhaps: what was replayed says nothing about it */
		net->pools[i]->replayed = 0;
	}
	nc_net_arm(net, now_us);
}

/* ---- flights ---- */

uint32_t
nc_net_load(const NcNet *net, uint32_t shard)
{
	const NcHosts *hosts = &net->hosts[shard];
	uint32_t	n = 0;

	NC_ASSERT(shard < net->nshards);
	for (uint32_t h = 0; h < hosts->count; h++)
	{
		const NcPool *pool = net->pools[hosts->first + h];

		n += nc_pool_queued(pool) + pool->again.count;
		for (uint32_t i = 0; i < pool->nconns; i++)
			n += pool->conns[i]->in_flight.count;
	}
	return n;
}

void
nc_net_submit(NcNet *net, uint32_t shard, NcFlight *flight)
{
	NcPool	   *pool;

	NC_ASSERT(shard < net->nshards);
	pool = nc_hosts_choose(net, shard, flight->group);
	flight->refused_by = 0;
	nc_flight_append(nc_pool_queue_of(pool, flight), flight);
}

bool
nc_net_refused_by_all(const NcConn *conn, const NcFlight *flight)
{
	return nc_hosts_all_refuse(conn->pool, flight);
}

uint32_t
nc_net_promote(NcNet *net, uint64_t group)
{
	uint32_t	n = 0;

	for (uint32_t i = 0; i < net->npools; i++)
	{
		NcPool	   *pool = net->pools[i];
		NcFlightList rest = {0};
		NcFlight   *flight;

		if (pool->background.count == 0)
			continue;
		while ((flight = nc_flight_pop(&pool->background)) != NULL)
		{
			bool		found = flight->group == group;

			n += found ? 1 : 0;
			nc_flight_append(found ? &pool->promoted : &rest, flight);
		}
		pool->background = rest;
	}
	return n;
}

void
nc_net_sweep(NcNet *net)
{
	for (uint32_t i = 0; i < net->npools; i++)
		nc_pool_sweep(net->pools[i]);
}

/* ---- the turn ---- */

static void
check_timers(NcNet *net)
{
	net->deadline_us = UINT64_MAX;
	for (uint32_t p = 0; p < net->npools; p++)
	{
		NcPool	   *pool = net->pools[p];

		/* backwards: an ended connection's place is taken by the last one */
		for (uint32_t i = pool->nconns; i-- > 0;)
			nc_conn_check_time(pool->conns[i]);
		/* arming is only ever earlier, so the whole is computed anew from those that are left */
		for (uint32_t i = 0; i < pool->nconns; i++)
			nc_net_arm(net, nc_conn_deadline_us(pool->conns[i]));
		if (pool->again.head != NULL)
			nc_net_arm(net, pool->again_at_us);
		nc_pool_hedge(pool);
	}
}

void
nc_net_set_now(NcNet *net, uint64_t now_us)
{
	net->now_us = now_us;
}

void
nc_net_turn(NcNet *net, uint64_t now_us)
{
	net->now_us = now_us;
	if (now_us >= net->deadline_us)
		check_timers(net);
	nc_hosts_turn(net);
	for (uint32_t i = 0; i < net->npools; i++)
		nc_pool_turn(net->pools[i]);
}

uint64_t
nc_net_deadline_us(const NcNet *net)
{
	return net->deadline_us;
}

NcConn *
nc_net_conn(NcNet *net, uint32_t index)
{
	NC_ASSERT(index < NC_CONNS_MAX);
	return &net->conns[index];
}

uint32_t
nc_net_conns_used(const NcNet *net)
{
	return net->conns_used;
}

const char *
nc_net_address(const NcNet *net, uint32_t shard)
{
	const NcHosts *hosts = &net->hosts[shard];

	return shard < net->nshards ? net->pools[hosts->first + hosts->last]->parts.address : "?";
}

/* ---- the end ---- */

void
nc_net_close(NcNet *net, uint64_t now_us)
{
	net->now_us = now_us;
	net->closing = true;
	for (uint32_t i = 0; i < net->npools; i++)
		end_all(net->pools[i], "the communicator ends");
}

void
nc_net_free(NcNet *net)
{
	for (uint32_t i = 0; i < net->npools; i++)
		drop_pool(net->pools[i]);
	free(net);
}
