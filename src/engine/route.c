/*
 * route.c
 *	  Which shard a message goes to, and what a new shard map does to messages
 *	  that are on their way.
 *
 * Runs in the communicator.  Each block of a range is routed by itself: a range
 * may cross a stripe.
 */
#include "engine_int.h"

#include <string.h>

uint32_t
nc_route(const NcEngine *e, const NcPsRequest *msg)
{
	const NcShardMap *map = &e->map;

	NC_ASSERT(map->shard_count > 0);
	/* sizes and existence are exact on shard 0 only */
	if (msg->tag != NC_REQ_GETPAGE || map->shard_count == 1)
		return 0;
	return nc_shard_of_block(map->shard_count, map->stripe_blocks, &msg->rel, msg->block);
}

static NcReqTag
tag_of_kind(NcSlotKind kind)
{
	switch (kind)
	{
		case NC_SLOT_KIND_GETPAGE:
			return NC_REQ_GETPAGE;
		case NC_SLOT_KIND_EXISTS:
			return NC_REQ_EXISTS;
		case NC_SLOT_KIND_NBLOCKS:
			return NC_REQ_NBLOCKS;
		case NC_SLOT_KIND_DBSIZE:
			return NC_REQ_DBSIZE;
	}
	return NC_REQ_GETPAGE;
}

static NcPsRequest
message_of(const NcJob *job, uint32_t index)
{
	return (NcPsRequest) {
		.tag = tag_of_kind(job->kind),
		.request_lsn = job->request_lsn,
		.not_modified_since = job->not_modified_since,
		.rel = job->rel,
		.block = job->kind == NC_SLOT_KIND_GETPAGE ? job->block + index : 0,
		.db = job->rel.db,
		/* it is sent only while the job is there: nc_deliver_keep() */
		.trace = (job->traced & NC_TRACE_TELL) != 0 ? &job->trace : NULL
	};
}

uint32_t
nc_route_block(const NcEngine *e, const NcJob *job, uint32_t index)
{
	NcPsRequest msg = message_of(job, index);

	return nc_route(e, &msg);
}

void
nc_route_job(NcEngine *e, NcJob *job)
{
	/* one group: the net keeps a range on one connection, where servers answer it as a batch */
	uint64_t	group = ++e->last_group;

	job->group = group;
	job->missing = job->nblocks;
	job->outstanding = job->nblocks;
	for (uint32_t i = 0; i < job->nblocks; i++)
	{
		NcPart	   *part = nc_store_take_reserved(&e->parts);

		memset(part, 0, sizeof(*part));
		part->job = job;
		part->index = i;
		part->flight.group = group;
		part->flight.first_us = e->now_us;
		part->flight.background = nc_slot_class_ahead(job->class);
		part->flight.lasting = job->class == NC_SLOT_CLASS_AIO;
		part->flight.msg = message_of(job, i);
		nc_net_submit(e->net, nc_route(e, &part->flight.msg), &part->flight);
	}
}

/*
 * A part in flight on a connection that stays, under a new map.  When it belongs
 * elsewhere now, a copy is routed there and the original keeps its place in the
 * order of answers without a job.  False when there is no memory for a copy.
 */
bool
nc_route_again(void *ctx, NcFlight *flight, uint32_t shard)
{
	NcEngine   *e = ctx;
	NcPart	   *part = nc_part_of(flight);
	NcPart	   *copy;

	if (part->job == NULL || nc_route(e, &flight->msg) == shard)
		return true;
	/* one of the two is enough: the other one is looked at in its own place */
	if (part->twin != NULL)
	{
		nc_twin_disown(part);
		return true;
	}
	copy = nc_store_take(&e->parts);
	if (copy == NULL)
		return false;
	/* the job's count of parts stays: one has come, one has become nobody's */
	*copy = *part;
	part->job = NULL;
	nc_flight_append(&e->rerouted, &copy->flight);
	return true;
}

static bool
same_map(const NcShardMap *a, const NcShardMap *b)
{
	if (a->shard_count != b->shard_count || a->stripe_blocks != b->stripe_blocks)
		return false;
	for (uint32_t i = 0; i < a->shard_count; i++)
		if (strcmp(a->conninfo[i], b->conninfo[i]) != 0)
			return false;
	return true;
}

/* One displaced part: to its shard, or nowhere. */
static void
place(NcEngine *e, NcPart *part)
{
	NcJob	   *job = part->job;

	if (job != NULL && e->map.shard_count > 0)
	{
		nc_net_submit(e->net, nc_route(e, &part->flight.msg), &part->flight);
		return;
	}
	if (job != NULL && !job->finished)
		nc_deliver_result(e, job, NC_SLOT_RESULT_NO_SERVER, NULL);
	nc_part_free(e, part);
}

void
nc_engine_set_shard_map(NcEngine *e, const NcShardMap *map)
{
	NcFlightList displaced = {0};
	NcFlight   *flight;

	NC_ASSERT(map->shard_count <= NC_SHARDS_MAX);
	/* a reload that changes something else must not move what is on its way */
	if (same_map(&e->map, map))
	{
		e->map.version = map->version;
		return;
	}
	e->map = *map;
	if (e->map.stripe_blocks == 0)
		e->map.stripe_blocks = 1;
	nc_count(e->counters, NC_COUNTER_MAP_CHANGES, 1);
	/* the map first: the net asks by it where flights belong */
	e->now_us = e->host.now_us(e->host.ctx);
	nc_net_set_addresses(e->net, e->map.shard_count, e->map.conninfo, &displaced, e->now_us);
	/* these were sent before those that were queued */
	nc_flight_prepend_list(&displaced, &e->rerouted);
	while ((flight = nc_flight_pop(&displaced)) != NULL)
		place(e, nc_part_of(flight));
}
