/*
 * hedge.c
 *	  Requests that somebody waits for and whose connection makes no progress are
 *	  sent a second time over another one of their shard.
 *
 * Runs in the communicator.  The first answer counts; which of the two that is, and
 * that the other one is dropped, is the engine's business (twin.c).  A page server
 * that waits for WAL is late on purpose and would let the copy wait too, so a
 * connection counts as stalled only when that cannot be the reason.  With several hosts
 * another one is asked, and also when that may be the reason: it may have the WAL.
 * docs/decisions/0013 has the whole argument.
 */
#include "net_int.h"

/* The oldest answer has begun to arrive: nothing is waited for but its bytes. */
static bool
has_begun(const NcConn *c)
{
	return c->recv_end > c->recv_start && c->recv_buffer[c->recv_start] == 'd';
}

/* Can the oldest request not be waiting for WAL? */
static bool
needs_no_wal(const NcConn *c)
{
	return has_begun(c) || c->in_flight.head->msg.not_modified_since <= c->pool->replayed;
}

static bool
is_late(const NcConn *c)
{
	return c->in_flight.head != NULL &&
		c->net->now_us - nc_conn_silent_since(c) >= nc_late_after_us(&c->pool->late);
}

NcConn *
nc_pool_for_copy(const NcPool *pool)
{
	uint32_t	depth = pool->net->settings.depth_max;
	NcConn	   *best = NULL;

	for (uint32_t i = 0; i < pool->nconns; i++)
	{
		NcConn	   *c = pool->conns[i];

		if (!c->stalled && !is_late(c) &&
			nc_conn_has_room(c, c->depth < depth ? c->depth : depth) &&
			(best == NULL || c->in_flight.count < best->in_flight.count))
			best = c;
	}
	return best;
}

static bool
is_waited_for(const NcPool *pool, const NcFlight *flight)
{
	return !flight->background || pool->net->host.promoted(pool->net->host.ctx, flight);
}

/*
 * Where a copy goes.  Another host is asked without a budget: the one that is late gets no
 * more than what is on its way there.  NULL: nowhere now.
 */
static NcConn *
elsewhere(NcPool *pool, bool needs_wal, bool *is_paid)
{
	bool		lacks_room;
	NcConn	   *c = nc_hosts_elsewhere(pool, &lacks_room);

	*is_paid = c == NULL;
	if (c != NULL)
		return c;
	if (lacks_room)
		nc_net_arm(pool->net, pool->net->now_us + NC_HOST_RETRY_US);
	if (needs_wal || !nc_late_may_spend(&pool->late))
		return NULL;
	c = nc_pool_for_copy(pool);
	if (c == NULL)
		nc_pool_add_spare(pool);
	return c;
}

/* Sends copies of what has waited for long enough, while the budget lasts. */
static void
ask_elsewhere(NcPool *pool, NcConn *c, uint64_t late_us, bool needs_wal)
{
	NcNet	   *net = pool->net;

	/* the oldest first: those behind the first that is not late are not either */
	for (NcFlight *f = c->in_flight.head; f != NULL && net->now_us - f->sent_us >= late_us; f = f->next)
	{
		NcConn	   *other;
		NcFlight   *copy;
		bool		is_paid;

		/* nobody loses time by it, or it was asked for elsewhere already */
		if (!is_waited_for(pool, f) || !net->host.keep(net->host.ctx, f))
			continue;
		other = elsewhere(pool, needs_wal, &is_paid);
		if (other == NULL)
			return;
		/* it stays in this list: the copy is another flight */
		copy = net->host.twin(net->host.ctx, f);
		if (copy == NULL)
			continue;
		/* paid only when it is sent, not when it was refused */
		if (is_paid)
			nc_late_spend(&pool->late);
		else
			nc_hosts_left(pool);
		nc_count(net->counters, NC_COUNTER_HEDGED, 1);
		nc_conn_send(other, copy);
	}
}

void
nc_pool_hedge(NcPool *pool)
{
	NcNet	   *net = pool->net;
	uint64_t	late_us = nc_late_after_us(&pool->late);

	if (!net->settings.hedged_reads)
		return;
	for (uint32_t i = 0; i < pool->nconns; i++)
	{
		NcConn	   *c = pool->conns[i];

		if (c->state != NC_CONN_READY || c->in_flight.head == NULL)
			continue;
		/* what is usual, known and affordable, and who is free, changes meanwhile */
		nc_net_arm(net, net->now_us + NC_LATE_MIN_US);
		if (!is_late(c))
		{
			nc_net_arm(net, nc_conn_silent_since(c) + late_us);
			continue;
		}
		if (needs_no_wal(c))
		{
			c->stalled = true;
			ask_elsewhere(pool, c, late_us, false);
		}
		else if (net->now_us - nc_conn_silent_since(c) >= NC_HOST_WAL_US)
			ask_elsewhere(pool, c, late_us > NC_HOST_WAL_US ? late_us : NC_HOST_WAL_US, true);
	}
	nc_pool_flush(pool);
}
