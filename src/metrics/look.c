/*
 * look.c
 *	  One look at what is there now: slots, connections, page servers.
 *
 * Runs in the exporter; the functions about slots in views, too.  Others write
 * meanwhile: a slot that has changed while it was copied is left out, a row of a
 * connection may be torn, and its texts are bounded.
 */
#include "postgres.h"

#include "nc/base/clock.h"
#include "nc/shared/map_settings.h"
#include "nc/shared/settings.h"
#include "nc/shared/shmem.h"

#include "metrics_int.h"

static NcLook look;

uint64
nc_metrics_age(uint64 then_us)
{
	uint64		now = nc_clock_us();

	return now > then_us ? now - then_us : 0;
}

uint64
nc_metrics_silence(const NcFeedPeer *peer)
{
	return peer->asked_us == 0 ? 0 : nc_metrics_age(peer->asked_us);
}

void
nc_metrics_text(char *to, const char *from, Size bytes)
{
	memcpy(to, from, bytes);
	to[bytes - 1] = '\0';
}

/* ---- slots ---- */

XLogRecPtr
nc_metrics_applied_everywhere(void)
{
	static NcFeedPeer peers[NC_SHARDS_MAX];
	int			n = nc_feed_peers(peers, NC_SHARDS_MAX);
	XLogRecPtr	applied = PG_UINT64_MAX;

	for (int i = 0; i < n; i++)
		if (peers[i].address[0] != '\0')
			applied = Min(applied, peers[i].apply);
	return applied;
}

NcSlotWaits
nc_slot_waits_for(const NcSlot *slot, NcSlotState state, XLogRecPtr applied)
{
	switch (state)
	{
		case NC_SLOT_SUBMITTED:
		case NC_SLOT_COPYING:
			return NC_SLOT_WAITS_COMMUNICATOR;
		case NC_SLOT_TAKEN:
			return slot->not_modified_since > applied ? NC_SLOT_WAITS_WAL : NC_SLOT_WAITS_PAGE_SERVER;
		case NC_SLOT_FREE:
		case NC_SLOT_FILLING:
		case NC_SLOT_DONE:
			break;
	}
	return NC_SLOT_WAITS_PROCESS;
}

const char *
nc_slot_waits_name(NcSlotWaits who)
{
	switch (who)
	{
		case NC_SLOT_WAITS_PROCESS:
			return "process";
		case NC_SLOT_WAITS_COMMUNICATOR:
			return "communicator";
		case NC_SLOT_WAITS_WAL:
			return "WAL";
		case NC_SLOT_WAITS_PAGE_SERVER:
			return "page server";
	}
	return "invalid";
}

/*
 * A request that nobody waits for says nothing of whom it was sent to: it may be left for later.  Who
 * has come to wait for a read ahead has said so.
 */
static bool
somebody_may_wait(const NcSlot *slot, NcSlotState state, bool promoted)
{
	return (state == NC_SLOT_SUBMITTED || state == NC_SLOT_TAKEN) &&
		(promoted || slot->class != NC_SLOT_CLASS_PREFETCH);
}

static void
look_at_slot(NcRing *ring, int at, const NcShardMap *map, XLogRecPtr applied)
{
	const NcSlot *source = &ring->slots[at];
	bool		promoted = (atomic_load(&ring->promoted) >> at & 1) != 0;
	NcSlot		slot = *source;
	uint64		word = nc_slot_load(&slot);
	NcSlotState state = nc_slot_word_state(word);
	NcRelKey	rel = {slot.spc, slot.db, slot.rel, slot.fork};
	uint32		shard;

	if (state == NC_SLOT_FREE || state >= NC_SLOT_STATES || nc_slot_load(source) != word)
		return;
	look.slots[state]++;
	look.waiting[nc_slot_waits_for(&slot, state, applied)]++;
	if (map->shard_count == 0 || !somebody_may_wait(&slot, state, promoted))
		return;
	shard = nc_shard_of_block(map->shard_count, map->stripe_blocks, &rel, slot.block);
	/* of this very moment is older than none */
	look.oldest_us[shard] = Max(look.oldest_us[shard],
								look.now_us > slot.submit_us ? look.now_us - slot.submit_us : 1);
}

static void
look_at_slots(const NcShardMap *map)
{
	XLogRecPtr	applied = nc_metrics_applied_everywhere();

	memset(look.oldest_us, 0, sizeof(look.oldest_us));
	memset(look.slots, 0, sizeof(look.slots));
	memset(look.waiting, 0, sizeof(look.waiting));
	for (uint32 r = 0; r < nc_rings.nrings; r++)
		for (int s = 0; s < NC_RING_SLOTS; s++)
			look_at_slot(&nc_rings.rings[r], s, map, applied);
}

/* ---- connections ---- */

static NcHostLook *
host_of(uint32 shard, const char *address)
{
	NcHostLook *h;

	for (int i = 0; i < look.nhosts; i++)
	{
		if (look.hosts[i].shard == shard && strcmp(look.hosts[i].address, address) == 0)
			return &look.hosts[i];
	}
	h = &look.hosts[look.nhosts++];
	memset(h, 0, sizeof(*h));
	h->shard = shard;
	strlcpy(h->address, address, sizeof(h->address));
	return h;
}

static void
look_at_connection(NcConnRow *row)
{
	uint32		state = atomic_load(&row->state);
	char		address[sizeof(row->address)];
	char		error[sizeof(row->last_error)];
	NcHostLook *h;

	if (state == NC_CONN_UNUSED || state >= NC_CONN_STATES)
		return;
	nc_metrics_text(address, row->address, sizeof(address));
	nc_metrics_text(error, row->last_error, sizeof(error));
	h = host_of(row->shard, address);
	h->by_state[state]++;
	h->in_flight += row->in_flight;
	h->failures = Max(h->failures, row->failures);
	h->good = h->good || (state == NC_CONN_READY && error[0] == '\0');
	if (error[0] != '\0')
		strlcpy(h->last_error, error, sizeof(h->last_error));
}

bool
nc_metrics_shard_ready(const NcLook *of, uint32 shard, const NcHostLook **trouble)
{
	bool		good = false;

	*trouble = NULL;
	for (int i = 0; i < of->nhosts; i++)
	{
		if (of->hosts[i].shard != shard)
			continue;
		good = good || of->hosts[i].good;
		if (!of->hosts[i].good)
			*trouble = &of->hosts[i];
	}
	return good && of->oldest_us[shard] <= (uint64) nc_metrics_ready_timeout * 1000;
}

/* ---- all ---- */

NcLook *
nc_metrics_look(void)
{
	static NcShardMap map;
	NcMapSettings settings = nc_map_settings();
	char		err[256];

	/* what cannot be parsed was refused when it was set: the map stays */
	if (!nc_enabled || !nc_shard_map_parse(settings.page_servers, (uint32) settings.stripe_size, &map, err, sizeof(err)))
		map.shard_count = nc_enabled ? map.shard_count : 0;
	look.now_us = nc_clock_us();
	look.nshards = map.shard_count;
	look_at_slots(&map);
	look.nhosts = 0;
	for (int i = 0; i < NC_CONN_ROWS; i++)
		look_at_connection(&nc_shared->conns[i]);
	look.npeers = nc_feed_peers(look.peers, NC_SHARDS_MAX);
	return &look;
}
