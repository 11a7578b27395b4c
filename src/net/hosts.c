/*
 * hosts.c
 *	  A shard may have several hosts, each with all of its blocks: which one is asked.
 *
 * Runs in the communicator.  Each host has a pool of its own, with its connections and all
 * that is known of it.  The first in the list that nothing is held against gets the reads.
 * Something is held against a host whose connection failed, that cannot answer, or is
 * so late that another one was asked for the same: it is left, and what waits there and can
 * not be sent goes to another one.  After a rest it gets a share of the reads that grows
 * step by step: a host that has just come back has cold caches.
 *
 * Guarantees that a shard with one host is served as if this file were not there, and
 * that a request is never kept from a host because of what is held against it when there
 * is no other one; and that an answer by which a host only speaks of itself is an error of
 * the shard only when all hosts gave one.
 */
#include "net_int.h"

bool
nc_host_usable(const NcPool *pool)
{
	for (uint32_t i = 0; i < pool->nconns; i++)
		if (pool->conns[i]->state == NC_CONN_READY && !pool->conns[i]->stalled)
			return true;
	return false;
}

void
nc_hosts_left(NcPool *pool)
{
	uint64_t	now_us = pool->net->now_us;

	/* all its connections fail at once, and that is one reason */
	if (pool->share > 0 || now_us >= pool->share_us)
		pool->rest_us = pool->rest_us * 2;
	if (pool->rest_us < NC_HOST_REST_MIN_US)
		pool->rest_us = NC_HOST_REST_MIN_US;
	if (pool->rest_us > NC_HOST_REST_MAX_US)
		pool->rest_us = NC_HOST_REST_MAX_US;
	pool->share = 0;
	pool->share_us = now_us + pool->rest_us;
}

static void
grow_share(NcPool *pool)
{
	uint64_t	now_us = pool->net->now_us;

	if (pool->share == NC_SHARE_ALL || now_us < pool->share_us)
		return;
	pool->share++;
	pool->share_us = now_us + NC_HOST_STEP_US;
	if (pool->share == NC_SHARE_ALL)
		pool->rest_us = 0;
}

/* Of count, by shares; none is usable: the one of before. */
static uint32_t
choose_host(NcNet *net, const NcHosts *hosts)
{
	uint32_t	best = hosts->count;

	for (uint32_t i = 0; i < hosts->count; i++)
	{
		NcPool	   *pool = net->pools[hosts->first + i];

		if (!nc_host_usable(pool))
			continue;
		grow_share(pool);
		if (pool->share > hosts->turn % NC_SHARE_ALL)
			return i;
		if (best == hosts->count || pool->share > net->pools[hosts->first + best]->share)
			best = i;
	}
	return best < hosts->count ? best : hosts->last;
}

NcPool *
nc_hosts_choose(NcNet *net, uint32_t shard, uint64_t group)
{
	NcHosts    *hosts = &net->hosts[shard];

	/* a range stays together */
	if (hosts->count > 1 && (group != hosts->last_group ||
							 !nc_host_usable(net->pools[hosts->first + hosts->last])))
	{
		hosts->turn++;
		hosts->last = choose_host(net, hosts);
		hosts->last_group = group;
	}
	return net->pools[hosts->first + hosts->last];
}

/* Its place in the list of its shard. */
static uint32_t
place_of(const NcPool *pool)
{
	const NcNet *net = pool->net;
	uint32_t	place = 0;

	while (net->pools[net->hosts[pool->shard].first + place] != pool)
		place++;
	return place;
}

NcPool *
nc_hosts_next(const NcPool *pool, const NcFlight *flight)
{
	const NcNet *net = pool->net;
	const NcHosts *hosts = &net->hosts[pool->shard];
	uint32_t	own = place_of(pool);

	for (uint32_t i = 1; i < hosts->count; i++)
	{
		uint32_t	place = (own + i) % hosts->count;
		NcPool	   *other = net->pools[hosts->first + place];

		if ((flight->refused_by >> place & 1) == 0 && nc_host_usable(other))
			return other;
	}
	return NULL;
}

void
nc_hosts_spread(NcPool *pool, NcFlightList *from)
{
	const NcNet *net = pool->net;
	const NcHosts *hosts = &net->hosts[pool->shard];
	NcFlightList to[NC_HOSTS_MAX] = {0};
	NcFlight   *flight;

	while ((flight = nc_flight_pop(from)) != NULL)
	{
		NcPool	   *next = nc_hosts_next(pool, flight);

		nc_flight_append(&to[place_of(next != NULL ? next : pool)], flight);
	}
	for (uint32_t i = 0; i < hosts->count; i++)
		nc_pool_queue_again(net->pools[hosts->first + i], &to[i]);
}

void
nc_hosts_note_refusal(const NcPool *pool, NcFlight *flight)
{
	flight->refused_by |= 1 << place_of(pool);
}

bool
nc_hosts_all_refuse(const NcPool *pool, const NcFlight *flight)
{
	return flight->refused_by == (1 << pool->net->hosts[pool->shard].count) - 1;
}

NcConn *
nc_hosts_elsewhere(const NcPool *pool, bool *lacks_room)
{
	const NcNet *net = pool->net;
	const NcHosts *hosts = &net->hosts[pool->shard];
	NcConn	   *best = NULL;

	*lacks_room = false;
	for (uint32_t i = 0; i < hosts->count; i++)
	{
		NcPool	   *other = net->pools[hosts->first + i];
		NcConn	   *c = other == pool ? NULL : nc_pool_for_copy(other);

		if (c == NULL && other != pool && nc_host_usable(other))
		{
			*lacks_room = true;
			nc_pool_add_spare(other);
		}
		if (c != NULL && (best == NULL || other->share > best->pool->share))
			best = c;
	}
	return best;
}

/* The usable host of a pool's shard with the largest share, but for itself; NULL = none. */
static NcPool *
best_other(const NcPool *pool)
{
	const NcNet *net = pool->net;
	const NcHosts *hosts = &net->hosts[pool->shard];
	NcPool	   *best = NULL;

	for (uint32_t i = 0; i < hosts->count; i++)
	{
		NcPool	   *other = net->pools[hosts->first + i];

		if (other != pool && nc_host_usable(other) && (best == NULL || other->share > best->share))
			best = other;
	}
	return best;
}

void
nc_hosts_turn(NcNet *net)
{
	for (uint32_t i = 0; i < net->npools; i++)
	{
		NcPool	   *pool = net->pools[i];
		NcFlightList moved = {0};
		NcPool	   *other;

		if (net->hosts[pool->shard].count == 1 || nc_pool_queued(pool) == 0)
			continue;
		other = best_other(pool);
		if (other == NULL || (nc_host_usable(pool) && (pool->share > 0 || other->share == 0)))
			continue;
		nc_pool_take_queues(pool, &moved);
		nc_pool_queue_again(other, &moved);
	}
}
