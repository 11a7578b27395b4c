/*
 * pages.c
 *	  The pages in JSON: is it alive, is it ready, who waits, which connections there
 *	  are.
 */
#include "postgres.h"

#include "access/xlog.h"

#include "nc/obs/names.h"
#include "nc/shared/settings.h"
#include "nc/shared/shmem.h"

#include "metrics_int.h"

/* Slots that are listed; of more only the number is told. */
#define SLOTS_MAX 1000

/* A page server that has not answered the feed for so long hangs, or its disk does. */
#define SILENT_US 1000000

/* That somebody answers is the whole answer. */
int
nc_metrics_write_health(NcWriter *w, bool openmetrics)
{
	NcJsonWriter j = {.w = w};

	nc_json_open(&j, NULL, '{');
	nc_json_bool(&j, "alive", true);
	nc_json_close(&j, '}');
	return 200;
}

/* ---- ready ---- */

/* Of a compute that is ready there are none. */
typedef struct Problems
{
	NcJsonWriter j;
	int			n;
} Problems;

static void problem(Problems *p, const char *fmt,...) pg_attribute_printf(2, 3);

static void
problem(Problems *p, const char *fmt,...)
{
	char		text[600];
	va_list		args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	nc_json_text(&p->j, NULL, text);
	p->n++;
}

static double
seconds(uint64 us)
{
	return us / 1000000.0;
}

static bool
is_late(uint64 heartbeat_us)
{
	return nc_metrics_age(heartbeat_us) > (uint64) nc_metrics_ready_timeout * 1000;
}

static void
judge_communicator(Problems *p)
{
	uint64		heartbeat = atomic_load(&nc_rings.doorbell->heartbeat_us);

	if (atomic_load(&nc_shared->communicator_pid) == 0)
		problem(p, "communicator: it does not run");
	else if (is_late(heartbeat))
		problem(p, "communicator: it has made no turn for %.1f s", seconds(nc_metrics_age(heartbeat)));
}

static void
judge_shard(Problems *p, const NcLook *look, uint32 shard)
{
	const NcHostLook *trouble;

	if (nc_metrics_shard_ready(look, shard, &trouble))
		return;
	if (look->oldest_us[shard] > (uint64) nc_metrics_ready_timeout * 1000)
		problem(p, "shard %u: a request has waited for %.1f s", shard, seconds(look->oldest_us[shard]));
	if (trouble != NULL)
		problem(p, "shard %u: host %s is not connected, or does not answer as it should%s%s", shard,
				trouble->address, trouble->last_error[0] != '\0' ? ": " : "", trouble->last_error);
	else if (look->oldest_us[shard] == 0)
		problem(p, "shard %u: there is no connection", shard);
}

static bool
streams(const NcFeedPeer *p)
{
	return strcmp(p->state, "streaming") == 0 || strcmp(p->state, "catchup") == 0;
}

/* Asked by the feed, which does so when nothing was heard for a second, and no answer for as long. */
static bool
is_silent(const NcFeedPeer *p)
{
	return streams(p) && nc_metrics_silence(p) > SILENT_US;
}

/*
 * One page server that is away is a problem if its pages are wanted, which is seen by the requests; a
 * feed that nobody listens to is one in any case.
 */
static void
judge_feed(Problems *p, const NcLook *look)
{
	NcFeedHealth feed = nc_feed_health();
	int			n = 0;

	if (!nc_feed_enabled())
		return;
	if (is_late(feed.heartbeat_us))
		problem(p, "WAL feed: it has made no turn for %.1f s", seconds(nc_metrics_age(feed.heartbeat_us)));
	for (int i = 0; i < look->npeers; i++)
		n += streams(&look->peers[i]) && !is_silent(&look->peers[i]);
	if (n == 0 && look->npeers > 0)
		problem(p, "WAL feed: no page server streams and answers");
	if (nc_feed_is_ordered() && !feed.let_in)
		problem(p, "WAL feed: logins wait until page servers have confirmed");
}

/* Who is away, although that alone does not make it unready. */
static void
list_absent(NcJsonWriter *j, const NcLook *look)
{
	char		text[NAMEDATALEN + NC_FEED_STATE_BYTES + 60];

	nc_json_open(j, "page_servers_away", '[');
	for (int i = 0; i < look->npeers; i++)
	{
		const NcFeedPeer *peer = &look->peers[i];

		if (streams(peer) && !is_silent(peer))
			continue;
		if (is_silent(peer))
			snprintf(text, sizeof(text), "%s has not answered for %.1f s", peer->name,
					 seconds(nc_metrics_silence(peer)));
		else
			snprintf(text, sizeof(text), "%s is %s", peer->name, peer->state);
		nc_json_text(j, NULL, text);
	}
	nc_json_close(j, ']');
}

int
nc_metrics_write_ready(NcWriter *w, bool openmetrics)
{
	const NcLook *look = nc_metrics_look();
	Problems	p = {.j = {.w = w}};

	nc_json_open(&p.j, NULL, '{');
	nc_json_open(&p.j, "problems", '[');
	if (RecoveryInProgress())
		problem(&p, "recovery: it is not over");
	if (nc_enabled)
		judge_communicator(&p);
	for (uint32 i = 0; i < look->nshards; i++)
		judge_shard(&p, look, i);
	judge_feed(&p, look);
	nc_json_close(&p.j, ']');
	list_absent(&p.j, look);
	nc_json_bool(&p.j, "ready", p.n == 0);
	nc_json_close(&p.j, '}');
	return p.n == 0 ? 200 : 503;
}

/* ---- slots ---- */

static void
write_slot(NcJsonWriter *j, uint32 ring, int index, const NcSlot *slot, XLogRecPtr applied)
{
	NcSlotState state = nc_slot_word_state(nc_slot_load(slot));
	char		lsn[32];

	snprintf(lsn, sizeof(lsn), "%X/%X", LSN_FORMAT_ARGS(slot->not_modified_since));
	nc_json_open(j, NULL, '{');
	nc_json_number(j, "pid", (uint64) nc_ring_owner_pid(ring, index));
	nc_json_number(j, "slot", index);
	nc_json_text(j, "state", nc_slot_state_name(state));
	nc_json_text(j, "kind", nc_slot_kind_name(slot->kind));
	nc_json_number(j, "spc", slot->spc);
	nc_json_number(j, "db", slot->db);
	nc_json_number(j, "relfilenode", slot->rel);
	nc_json_number(j, "fork", slot->fork);
	nc_json_number(j, "block", slot->block);
	nc_json_number(j, "nblocks", slot->nblocks);
	nc_json_text(j, "not_modified_since", lsn);
	nc_json_us(j, "age", nc_metrics_age(slot->submit_us));
	nc_json_text(j, "waits_for", nc_slot_waits_name(nc_slot_waits_for(slot, state, applied)));
	nc_json_close(j, '}');
}

int
nc_metrics_write_slots(NcWriter *w, bool openmetrics)
{
	NcJsonWriter j = {.w = w};
	XLogRecPtr	applied = nc_metrics_applied_everywhere();
	uint64		n = 0;

	nc_json_open(&j, NULL, '{');
	nc_json_open(&j, "slots", '[');
	for (uint32 r = 0; r < nc_rings.nrings; r++)
	{
		for (int s = 0; s < NC_RING_SLOTS; s++)
		{
			NcSlot		slot = nc_rings.rings[r].slots[s];

			if (nc_slot_word_state(nc_slot_load(&slot)) == NC_SLOT_FREE)
				continue;
			if (n++ < SLOTS_MAX)
				write_slot(&j, r, s, &slot, applied);
		}
	}
	nc_json_close(&j, ']');
	nc_json_number(&j, "busy", n);
	nc_json_bool(&j, "all", n <= SLOTS_MAX);
	nc_json_close(&j, '}');
	return 200;
}

/* ---- connections ---- */

static void
write_connection(NcJsonWriter *j, NcConnRow *row, uint32 state)
{
	char		text[sizeof(row->last_error)];

	nc_json_open(j, NULL, '{');
	nc_json_number(j, "shard", row->shard);
	nc_metrics_text(text, row->address, sizeof(row->address));
	nc_json_text(j, "host", text);
	nc_json_text(j, "state", nc_conn_state_name(state));
	nc_json_number(j, "in_flight", row->in_flight);
	nc_json_us(j, "age", nc_metrics_age(row->since_us));
	nc_json_number(j, "requests", row->requests);
	nc_metrics_text(text, row->last_error, sizeof(row->last_error));
	nc_json_text(j, "last_error", text);
	nc_json_close(j, '}');
}

int
nc_metrics_write_connections(NcWriter *w, bool openmetrics)
{
	NcJsonWriter j = {.w = w};

	nc_json_open(&j, NULL, '{');
	nc_json_open(&j, "connections", '[');
	for (int i = 0; i < NC_CONN_ROWS; i++)
	{
		uint32		state = atomic_load(&nc_shared->conns[i].state);

		if (state != NC_CONN_UNUSED)
			write_connection(&j, &nc_shared->conns[i], state);
	}
	nc_json_close(&j, ']');
	nc_json_close(&j, '}');
	return 200;
}
