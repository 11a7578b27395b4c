/*
 * pool.c
 *	  The pools: which connections a host of a shard has, which request goes on which
 *	  of them, and what happens to requests whose connection ended.
 *
 * Runs in the communicator.  A shard has connections for requests that somebody
 * waits for and, once there are others, some for these: a page server answers the
 * requests of a connection one after the other, so whoever waits must not queue
 * behind a scan's readahead; nor behind what of it the scan itself has come to wait
 * for, which goes first among its like.  Requests of one range stay together on one
 * connection while it has room, because page servers answer consecutive reads as a
 * batch.
 */
#include "net_int.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Addresses of a name are asked for again after this long. */
#define RESOLVE_FRESH_US 5000000

/* When all rows are in use, a pool that needs one looks again after this. */
#define NO_ROW_RETRY_US 100000

/* ---- telling about trouble ---- */

uint32_t
nc_pool_queued(const NcPool *pool)
{
	return pool->foreground.count + pool->promoted.count + pool->background.count;
}

static void
remember_reason(char *to, const char *reason)
{
	memset(to, 0, NC_CONN_TEXT_BYTES);
	memcpy(to, reason, strnlen(reason, NC_CONN_TEXT_BYTES - 1));
}

/* Shows the pool's trouble, or its end, in the rows of its connections. */
static void
show_trouble(NcPool *pool)
{
	for (uint32_t i = 0; i < pool->nconns; i++)
	{
		NcConn	   *c = pool->conns[i];

		memcpy(c->last_error, pool->last_error, sizeof(c->last_error));
		c->failures = pool->failures;
		c->row_changed = true;
	}
}

/* Every failure is counted and shown; the log gets a line now and then for all of them. */
static void
trouble(NcPool *pool, const char *what, const char *reason)
{
	NcNet	   *net = pool->net;
	char		line[512];
	uint64_t	now_us = net->now_us;

	if (pool->trouble_since_us == 0)
		pool->trouble_since_us = now_us;
	pool->failures++;
	remember_reason(pool->last_error, reason);
	show_trouble(pool);
	if (now_us < pool->log_next_us)
		return;
	pool->log_next_us = now_us + NC_POOL_LOG_INTERVAL_US;
	pool->trouble_logged = true;
	snprintf(line, sizeof(line),
			 "shard %u (%s): %s: %s; %u requests waiting, %u failures in %.1f s",
			 pool->shard, pool->parts.address, what, reason,
			 nc_pool_queued(pool) + pool->again.count, pool->failures,
			 (double) (now_us - pool->trouble_since_us) / 1e6);
	net->host.log(net->host.ctx, NC_NET_WARNING, line);
}

void
nc_pool_proved(NcPool *pool, bool answered)
{
	NcNet	   *net = pool->net;
	char		line[256];

	pool->again_pause_us = 0;
	if (pool->trouble_since_us == 0)
		return;
	if (pool->trouble_logged)
	{
		snprintf(line, sizeof(line), "shard %u (%s): %s after %u failures in %.1f s",
				 pool->shard, pool->parts.address,
				 answered ? "works again" : "connected again, nothing asked yet,", pool->failures,
				 (double) (net->now_us - pool->trouble_since_us) / 1e6);
		net->host.log(net->host.ctx, NC_NET_INFO, line);
	}
	pool->trouble_logged = false;
	pool->trouble_since_us = 0;
	pool->failures = 0;
	pool->last_error[0] = '\0';
	show_trouble(pool);
}

void
nc_pool_ask_again(NcPool *pool, NcFlight *flight, const char *message)
{
	NcNet	   *net = pool->net;
	NcPool	   *other;

	/* all have, and it is worth another round */
	if (nc_hosts_all_refuse(pool, flight))
		flight->refused_by = 0;
	other = nc_hosts_next(pool, flight);
	flight->refusals++;
	nc_hosts_left(pool);
	/* another host that has not refused is asked at once; this one has, until it answers well */
	if (other != NULL && other->again_pause_us == 0)
	{
		NcFlightList one = {0};

		if (pool->again_pause_us == 0)
			pool->again_pause_us = NC_AGAIN_MIN_US;
		nc_flight_append(&one, flight);
		nc_pool_queue_again(other, &one);
		nc_net_arm(net, net->now_us);
		trouble(pool, "cannot answer now", message);
		return;
	}
	/* one pause for all: whoever joins the list later does not make the first wait longer */
	if (pool->again.head == NULL)
	{
		uint64_t	pause_us = pool->again_pause_us * 2;

		if (pause_us < NC_AGAIN_MIN_US)
			pause_us = NC_AGAIN_MIN_US;
		if (pause_us > NC_AGAIN_MAX_US)
			pause_us = NC_AGAIN_MAX_US;
		pool->again_pause_us = pause_us;
		pool->again_at_us = net->now_us + pause_us;
		nc_net_arm(net, pool->again_at_us);
	}
	nc_flight_append(&pool->again, flight);
	trouble(pool, "cannot answer now", message);
}

static const char *
end_name(NcConnEnd why)
{
	switch (why)
	{
		case NC_CONN_END_CONNECT:
			return "cannot connect";
		case NC_CONN_END_LOST:
			return "connection lost";
		case NC_CONN_END_POISONED:
			return "connection closed because of a wrong answer";
		case NC_CONN_END_SILENT:
			return "connection abandoned";
		case NC_CONN_END_RETIRED:
			break;
	}
	return "connection closed";
}

/* ---- back-off ---- */

static uint64_t
net_random(NcNet *net)
{
	/* xorshift: spreads attempts, nothing depends on its quality */
	net->random ^= net->random << 13;
	net->random ^= net->random >> 7;
	net->random ^= net->random << 17;
	return net->random;
}

static void
back_off(NcPool *pool, NcConn *c, NcConnEnd why)
{
	NcNet	   *net = pool->net;
	uint64_t	delay = pool->backoff_us * 2;

	/* a server that worked gets a quick first try: it may have been restarted */
	if (c->answered || (c->state == NC_CONN_READY && net->now_us - c->since_us >= NC_CONN_STOOD_US))
		delay = 0;
	if (delay < NC_BACKOFF_MIN_US)
		delay = NC_BACKOFF_MIN_US;
	if (why == NC_CONN_END_POISONED && delay < NC_BACKOFF_POISONED_US)
		delay = NC_BACKOFF_POISONED_US;
	if (delay > NC_BACKOFF_MAX_US)
		delay = NC_BACKOFF_MAX_US;
	pool->backoff_us = delay;
	/* half of it random: computes that lost the same server must not come back as one */
	pool->retry_us = net->now_us + delay / 2 + net_random(net) % (delay / 2 + 1);
	nc_net_arm(net, pool->retry_us);
}

/* ---- flights ---- */

NcFlightList *
nc_pool_queue_of(NcPool *pool, const NcFlight *flight)
{
	NcNetHost  *host = &pool->net->host;

	if (!flight->background)
		return &pool->foreground;
	return host->promoted(host->ctx, flight) ? &pool->promoted : &pool->background;
}

/* Each to the front of its queue, in their order: they are older than what is queued. */
void
nc_pool_queue_again(NcPool *pool, NcFlightList *from)
{
	NcFlightList foreground = {0};
	NcFlightList promoted = {0};
	NcFlightList background = {0};
	NcFlight   *flight;

	while ((flight = nc_flight_pop(from)) != NULL)
	{
		const NcFlightList *queue = nc_pool_queue_of(pool, flight);

		nc_flight_append(queue == &pool->foreground ? &foreground :
						 queue == &pool->promoted ? &promoted : &background, flight);
	}
	nc_flight_prepend_list(&pool->foreground, &foreground);
	nc_flight_prepend_list(&pool->promoted, &promoted);
	nc_flight_prepend_list(&pool->background, &background);
}

void
nc_pool_take_queues(NcPool *pool, NcFlightList *to)
{
	nc_flight_append_list(to, &pool->foreground);
	nc_flight_append_list(to, &pool->promoted);
	nc_flight_append_list(to, &pool->background);
}

/* Flights of an ended connection: to the front of the queue in their order, or dropped. */
static void
take_back(NcPool *pool, NcFlightList *from, NcConnEnd why, const char *reason)
{
	NcNet	   *net = pool->net;
	NcFlightList again = {0};
	NcFlight   *flight;

	while ((flight = nc_flight_pop(from)) != NULL)
	{
		pool->background_sent -= flight->background ? 1 : 0;
		/* nobody waits: it is not asked again, unless we have only replaced the connection */
		if (flight->background && !flight->lasting && why != NC_CONN_END_RETIRED)
			net->host.dropped(net->host.ctx, flight, reason);
		else
			nc_flight_append(&again, flight);
	}
	nc_pool_queue_again(pool, &again);
}

/* The last one takes its place: who walks the list and may end one walks it backwards. */
static void
detach(NcPool *pool, NcConn *c)
{
	for (uint32_t i = 0; i < pool->nconns; i++)
	{
		if (pool->conns[i] == c)
		{
			pool->conns[i] = pool->conns[--pool->nconns];
			break;
		}
	}
	c->pool = NULL;
}

void
nc_pool_conn_ended(NcPool *pool, NcConn *c, NcConnEnd why, const char *reason)
{
	detach(pool, c);
	take_back(pool, &c->in_flight, why, reason);
	/* our own wish: no failure to be counted, told or waited after */
	if (why == NC_CONN_END_RETIRED)
		return;
	/* whoever answers next may have less WAL */
	pool->replayed = 0;
	nc_hosts_left(pool);
	/* A silent connection says nothing about the next: its requests move at once. */
	if (why != NC_CONN_END_SILENT)
		back_off(pool, c, why);
	trouble(pool, end_name(why), reason);
}

/* ---- choosing and opening connections ---- */

/* Of the connections of a shard so many may be for bulk: a quarter or one, never the only one. */
static uint32_t
bulk_max(const NcPool *pool)
{
	uint32_t	max = pool->net->settings.connections_per_shard_max;

	return max < 2 ? 0 : max < 8 ? 1 : max / 4;
}

static uint32_t
count_ready(const NcPool *pool, bool bulk)
{
	uint32_t	n = 0;

	for (uint32_t i = 0; i < pool->nconns; i++)
		if (pool->conns[i]->bulk == bulk && pool->conns[i]->state == NC_CONN_READY && !pool->conns[i]->stalled)
			n++;
	return n;
}

/*
 * How deep a flight may go on a connection that is not of its kind: half of one for
 * the foreground stays free for who may come and waits, and one for bulk is as good
 * as another for who waits if hardly anything is on it.
 */
static uint32_t
depth_limit(const NcConn *c, const NcFlight *flight)
{
	if (flight->background == c->bulk)
		return c->depth;
	if (flight->background && c->depth > 1)
		return c->depth / 2;
	return c->depth < c->net->settings.depth_max ? c->depth : c->net->settings.depth_max;
}

/* The least loaded connection of a kind with room, if it makes progress. */
static NcConn *
least_loaded(const NcPool *pool, const NcFlight *flight, bool bulk)
{
	NcConn	   *best = NULL;

	for (uint32_t i = 0; i < pool->nconns; i++)
	{
		NcConn	   *c = pool->conns[i];

		if (c->bulk == bulk && !c->stalled && nc_conn_has_room(c, depth_limit(c, flight)) &&
			(best == NULL || c->in_flight.count < best->in_flight.count))
			best = c;
	}
	return best;
}

static NcConn *
choose_conn(NcPool *pool, const NcFlight *flight, NcConn *last, uint64_t last_group)
{
	NcConn	   *c;

	/* the same range: where its neighbours went */
	if (last != NULL && last_group == flight->group &&
		nc_conn_has_room(last, depth_limit(last, flight)))
		return last;
	c = least_loaded(pool, flight, flight->background);
	/* the other kind serves while there is none of the right one */
	if (c == NULL && count_ready(pool, flight->background) == 0)
		c = least_loaded(pool, flight, !flight->background);
	return c;
}

void
nc_pool_flush(NcPool *pool)
{
	/* backwards: an ended connection's place is taken by the last one, which was flushed already */
	for (uint32_t i = pool->nconns; i-- > 0;)
		nc_stream_flush(pool->conns[i]);
}

/*
 * Has readahead as much on its way as those who wait allow? Its answers end that: with
 * nothing on its way nothing would, so then it is never held back.
 */
static bool
held_back(const NcPool *pool)
{
	return pool->net->settings.readahead_yields && pool->background_sent > 0 &&
		pool->background_sent >= nc_yield_limit(&pool->yield, pool->net->now_us);
}

static void
serve(NcPool *pool, NcFlightList *queue)
{
	NcNetHost  *host = &pool->net->host;
	NcConn	   *c = NULL;
	uint64_t	group = 0;

	while (queue->head != NULL)
	{
		NcFlight   *flight = queue->head;

		/* asked as late as can be: a request whose client has left costs a page server nothing */
		if (!host->keep(host->ctx, flight))
		{
			nc_flight_pop(queue);
			host->unwanted(host->ctx, flight);
			continue;
		}
		if (flight->background && held_back(pool))
			break;
		c = choose_conn(pool, flight, c, group);
		if (c == NULL)
			break;
		group = flight->group;
		nc_flight_pop(queue);
		nc_conn_send(c, flight);
	}
}

/* Without a connection of their own kind, promoted flights would be served when nobody else waits. */
static void
treat_as_foreground(NcPool *pool)
{
	NcFlight   *flight;

	while ((flight = nc_flight_pop(&pool->promoted)) != NULL)
	{
		flight->background = false;
		flight->promoted = true;
		nc_flight_append(&pool->foreground, flight);
	}
}

static void
sweep_queue(NcPool *pool, NcFlightList *queue)
{
	NcNetHost  *host = &pool->net->host;
	NcFlightList kept = {0};
	NcFlight   *flight;

	while ((flight = nc_flight_pop(queue)) != NULL)
	{
		if (host->keep(host->ctx, flight))
			nc_flight_append(&kept, flight);
		else
			host->unwanted(host->ctx, flight);
	}
	*queue = kept;
}

void
nc_pool_sweep(NcPool *pool)
{
	sweep_queue(pool, &pool->foreground);
	sweep_queue(pool, &pool->promoted);
	sweep_queue(pool, &pool->background);
	sweep_queue(pool, &pool->again);
}

static NcConn *
free_row(NcNet *net)
{
	for (uint32_t i = 0; i < net->settings.connections_max; i++)
	{
		/* not CLOSING: the kernel may still write to the buffers of such a one */
		if (net->conns[i].state == NC_CONN_UNUSED)
		{
			if (i >= net->conns_used)
				net->conns_used = i + 1;
			return &net->conns[i];
		}
	}
	return NULL;
}

/* Has any host of the shard a connection? */
static bool
shard_has_conn(const NcNet *net, uint32_t shard)
{
	const NcHosts *hosts = &net->hosts[shard];

	for (uint32_t i = 0; i < hosts->count; i++)
		if (net->pools[hosts->first + i]->nconns > 0)
			return true;
	return false;
}

/* Are there rows beyond one for each shard that has none? A second one is no right. */
static bool
rows_to_spare(const NcNet *net)
{
	uint32_t	unused = 0;
	uint32_t	without = 0;

	for (uint32_t i = 0; i < net->settings.connections_max; i++)
		unused += net->conns[i].state == NC_CONN_UNUSED;
	for (uint32_t i = 0; i < net->nshards; i++)
		without += !shard_has_conn(net, i);
	return unused > without;
}

/*
 * May the pool have one more? With no row to spare a shard has one connection, to
 * the host that was left longest ago.
 */
static bool
may_have_row(const NcPool *pool)
{
	const NcNet *net = pool->net;
	const NcHosts *hosts = &net->hosts[pool->shard];

	if (rows_to_spare(net))
		return true;
	if (shard_has_conn(net, pool->shard))
		return false;
	for (uint32_t i = 0; i < hosts->count; i++)
		if (net->pools[hosts->first + i]->share_us < pool->share_us)
			return false;
	return true;
}

/* Gives the pool one more connection object; it is started by start_waiting(). */
static bool
add_conn(NcPool *pool, bool bulk)
{
	NcNet	   *net = pool->net;
	NcConn	   *c = free_row(net);

	if (c == NULL)
	{
		nc_net_arm(net, net->now_us + NO_ROW_RETRY_US);
		return false;
	}
	c->net = net;
	c->pool = pool;
	c->shard = pool->shard;
	c->bulk = bulk;
	memcpy(c->address, pool->parts.address, sizeof(c->address));
	memcpy(c->last_error, pool->last_error, sizeof(c->last_error));
	c->failures = pool->failures;
	c->row_changed = true;
	nc_conn_set_state(c, NC_CONN_BACKOFF);
	pool->conns[pool->nconns++] = c;
	pool->waiting = true;
	return true;
}

void
nc_pool_add_spare(NcPool *pool)
{
	if (pool->net->closing || pool->nconns >= pool->net->settings.connections_per_shard_max || !rows_to_spare(pool->net))
		return;
	/* one is coming already, and a copy can go there */
	for (uint32_t i = 0; i < pool->nconns; i++)
		if (pool->conns[i]->state != NC_CONN_READY)
			return;
	(void) add_conn(pool, false);
}

/*
 * Address to connect to: *hostaddr is NULL when libpq needs none.  False while
 * the name is being resolved, or when it cannot be.
 */
static bool
pool_address(NcPool *pool, const char **hostaddr)
{
	NcNet	   *net = pool->net;

	*hostaddr = NULL;
	if (pool->parts.host[0] == '\0')
		return true;
	if (pool->resolve != NULL && pool->resolved_us == 0 && nc_resolve_done(pool->resolve))
		pool->resolved_us = net->now_us;
	if (pool->resolve != NULL && pool->resolved_us != 0 &&
		net->now_us - pool->resolved_us > RESOLVE_FRESH_US)
	{
		nc_resolve_release(pool->resolve);
		pool->resolve = NULL;
	}
	if (pool->resolve == NULL)
	{
		pool->resolved_us = 0;
		/* its end writes to the eventfd, so the turn that finds it done comes by itself */
		pool->resolve = nc_resolve_start(pool->parts.host, net->wake_fd);
		return false;
	}
	if (pool->resolved_us == 0 || nc_resolve_count(pool->resolve) == 0)
		return false;
	/* in turn: an address that is dead must not be the only one tried */
	*hostaddr = nc_resolve_address(pool->resolve,
								   pool->attempts % nc_resolve_count(pool->resolve));
	return true;
}

/* A finished resolution without an address is a failed attempt; the next one asks again. */
static void
check_resolution(NcPool *pool)
{
	char		reason[NC_CONN_TEXT_BYTES];
	NcNet	   *net = pool->net;

	if (pool->resolve != NULL && (pool->resolved_us == 0 || nc_resolve_count(pool->resolve) > 0))
		return;
	snprintf(reason, sizeof(reason), "%s", pool->resolve != NULL ?
			 nc_resolve_error(pool->resolve) : "no thread for it");
	if (pool->resolve != NULL)
		nc_resolve_release(pool->resolve);
	pool->resolve = NULL;
	pool->backoff_us = pool->backoff_us == 0 ? NC_BACKOFF_MAX_US / 8 : NC_BACKOFF_MAX_US;
	pool->retry_us = net->now_us + pool->backoff_us / 2 +
		net_random(net) % (pool->backoff_us / 2);
	nc_net_arm(net, pool->retry_us);
	nc_count(net->counters, NC_COUNTER_CONNECT_FAILURES, 1);
	trouble(pool, "cannot resolve the host name", reason);
}

/* Starts the connections that wait in BACKOFF, when their time has come. */
static void
start_waiting(NcPool *pool)
{
	const char *hostaddr;
	bool		waiting = false;

	for (uint32_t i = 0; i < pool->nconns && !waiting;)
	{
		NcConn	   *c = pool->conns[i];

		if (c->state != NC_CONN_BACKOFF)
		{
			i++;
			continue;
		}
		if (pool->net->now_us < pool->retry_us)
		{
			nc_net_arm(pool->net, pool->retry_us);
			waiting = true;
			continue;
		}
		if (!pool_address(pool, &hostaddr))
		{
			check_resolution(pool);
			waiting = true;
			continue;
		}
		pool->attempts++;
		nc_conn_start(c, hostaddr);
		/* it may have failed at once and left the pool; then look at its place again */
		if (i < pool->nconns && pool->conns[i] == c)
			i++;
	}
	pool->waiting = waiting;
}

/* Connections of a kind, and room that those under way will give. */
static uint32_t
count_kind(const NcPool *pool, bool bulk, uint32_t *coming_room)
{
	uint32_t	depth = bulk ? NC_CONN_BULK_DEPTH : pool->net->settings.depth_max;
	uint32_t	n = 0;

	*coming_room = 0;
	for (uint32_t i = 0; i < pool->nconns; i++)
	{
		if (pool->conns[i]->bulk != bulk)
			continue;
		n++;
		if (pool->conns[i]->state != NC_CONN_READY)
			*coming_room += depth;
	}
	return n;
}

/*
 * The first connection is kept open always, so that the first query of a quiet
 * server finds it.  More come when requests of their kind are left over after
 * all that stand are full, as many as those requests fill.
 */
static void
grow_pool_kind(NcPool *pool, bool bulk, uint32_t most)
{
	uint32_t	queued = bulk ? pool->promoted.count + pool->background.count : pool->foreground.count;
	uint32_t	coming;
	uint32_t	n = count_kind(pool, bulk, &coming);

	while (n < most && pool->nconns < pool->net->settings.connections_per_shard_max &&
		   (pool->nconns == 0 || queued > coming))
	{
		if (!may_have_row(pool) || !add_conn(pool, bulk))
			return;
		n++;
		coming += bulk ? NC_CONN_BULK_DEPTH : pool->net->settings.depth_max;
	}
}

static void
grow_pool(NcPool *pool)
{
	uint32_t	bulk = bulk_max(pool);

	if (pool->net->closing)
		return;
	grow_pool_kind(pool, false, pool->net->settings.connections_per_shard_max - bulk);
	/* a cap of one connection: it serves both */
	if (!held_back(pool))
		grow_pool_kind(pool, true, bulk);
}

void
nc_pool_turn(NcPool *pool)
{
	if (pool->again.head != NULL && pool->net->now_us >= pool->again_at_us)
	{
		nc_hosts_spread(pool, &pool->again);
		nc_net_arm(pool->net, pool->net->now_us);
	}
	if (nc_pool_queued(pool) > 0)
	{
		if (pool->promoted.head != NULL && count_ready(pool, true) == 0)
			treat_as_foreground(pool);
		serve(pool, &pool->foreground);
		serve(pool, &pool->promoted);
		/* while somebody waits for room, what nobody waits for takes none */
		if (pool->foreground.head == NULL && pool->promoted.head == NULL)
			serve(pool, &pool->background);
		/* one send for all that a connection got in this turn */
		nc_pool_flush(pool);
	}
	if (pool->nconns == 0 || nc_pool_queued(pool) > 0)
		grow_pool(pool);
	if (pool->waiting)
		start_waiting(pool);
	/* an attempt may fail at once; the next one is seen to wait for its time */
	if (pool->nconns == 0)
		grow_pool(pool);
}
