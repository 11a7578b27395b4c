/*
 * metrics.c
 *	  The page /metrics: all families, in their order.
 *
 * Runs in the exporter.  families.def has their names; a family whose subject is not
 * there (no feed, no file cache) is announced and has no samples, or zeroes.
 */
#include "postgres.h"

#include "access/xlog.h"

#include "nc/check/scrub.h"
#include "nc/filecache/filecache.h"
#include "nc/obs/exposition.h"
#include "nc/obs/names.h"
#include "nc/shared/identity.h"
#include "nc/shared/settings.h"
#include "nc/shared/shmem.h"
#include "nc/smgr/local.h"
#include "nc/tracing/tracing.h"

#include "metrics_int.h"

typedef enum Family
{
#define NC_FAMILY(id, name, type, unit, help) FAMILY_##id,
#include "families.def"
#undef NC_FAMILY
	FAMILIES
} Family;

static const NcFamily families[FAMILIES] = {
#define NC_FAMILY(id, name, type, unit, help) {name, NC_METRIC_##type, unit, help},
#include "families.def"
#undef NC_FAMILY
};

#define NUMBER_BYTES 24

static void
family(NcExposition *e, Family f)
{
	nc_exposition_family(e, &families[f]);
}

static void
one(NcExposition *e, Family f, uint64 value)
{
	family(e, f);
	nc_sample(e, NULL, value);
}

/* 1 for one of several names, 0 for the others. */
static void
one_of(NcExposition *e, const char *label, const char *const *names, int n, const char *current)
{
	for (int i = 0; i < n; i++)
		nc_sample(e, NC_LABELS({label, names[i]}), strcmp(names[i], current) == 0);
}

/* ---- counters ---- */

/* wait_us counts microseconds: as a metric it is neon_comm_wait_seconds. */
static void
counter(NcExposition *e, NcCounter id)
{
	char		name[80];
	NcFamily	f = {name, NC_METRIC_COUNTER, "", nc_counter_names[id].meaning};
	uint64		value = nc_counter_value(&nc_shared->counters, id);
	size_t		n = snprintf(name, sizeof(name), "neon_comm_%s", nc_counter_names[id].name);

	if (n > 3 && n + 8 < sizeof(name) && strcmp(name + n - 3, "_us") == 0)
	{
		strlcpy(name + n - 2, "seconds", sizeof(name) - n + 2);
		f.unit = "seconds";
		nc_exposition_family(e, &f);
		nc_sample_us(e, NULL, value);
		return;
	}
	nc_exposition_family(e, &f);
	nc_sample(e, NULL, value);
}

static void
counters(NcExposition *e)
{
	for (int i = 0; i < NC_COUNTERS; i++)
		counter(e, i);
}

/* ---- this server ---- */

static void
server(NcExposition *e)
{
	char		birth[NC_ID_TEXT] = "";
	char		incarnation[NC_ID_TEXT] = "";
	uint64		spans;
	uint64		dropped;

	if (nc_identity != NULL)
	{
		nc_id_text(&nc_identity->reader.birth, birth);
		nc_id_text(&nc_identity->reader.incarnation, incarnation);
	}
	family(e, FAMILY_IDENTITY);
	nc_sample(e, NC_LABELS({"birth", birth}, {"incarnation", incarnation}, {"server_version", PG_VERSION}), 1);
	one(e, FAMILY_RECOVERY, RecoveryInProgress());
	one(e, FAMILY_REQUESTS, nc_exporter_requests());
	one(e, FAMILY_REFUSED, nc_exporter_refused());
	nc_tracing_counts(&spans, &dropped);
	one(e, FAMILY_SPANS, spans);
	one(e, FAMILY_SPANS_DROPPED, dropped);
}

static void
communicator(NcExposition *e)
{
	family(e, FAMILY_COMMUNICATOR);
	nc_sample(e, NC_LABELS({"io_method", atomic_load(&nc_shared->io_uring_in_use) ? "io_uring" : "epoll"}), 1);
	one(e, FAMILY_COMMUNICATOR_UP, atomic_load(&nc_shared->communicator_pid) != 0);
	family(e, FAMILY_COMMUNICATOR_AGE);
	if (atomic_load(&nc_rings.doorbell->heartbeat_us) != 0)
		nc_sample_us(e, NULL, nc_metrics_age(atomic_load(&nc_rings.doorbell->heartbeat_us)));
	one(e, FAMILY_COMMUNICATOR_STARTS, atomic_load(&nc_rings.doorbell->epoch));
}

static void
latency(NcExposition *e)
{
	family(e, FAMILY_LATENCY);
	for (int stage = 0; stage < NC_STAGES; stage++)
	{
		for (int class = 0; class < NC_LATENCY_CLASSES; class++)
		{
			NcHistogramCounts counts = {0};

			nc_histogram_add(&counts, &nc_shared->latency.of[stage][class]);
			nc_sample_histogram(e, NC_LABELS({"stage", nc_stage_name(stage)}, {"class", nc_latency_class_name(class)}),
								&counts);
		}
	}
}

/* ---- shards and their hosts ---- */

static const char *
number(char text[NUMBER_BYTES], uint32 n)
{
	snprintf(text, NUMBER_BYTES, "%u", n);
	return text;
}

static void
shards(NcExposition *e, const NcLook *look)
{
	char		text[NUMBER_BYTES];
	const NcHostLook *trouble;

	one(e, FAMILY_SHARDS, look->nshards);
	family(e, FAMILY_SHARD_READY);
	for (uint32 i = 0; i < look->nshards; i++)
		nc_sample(e, NC_LABELS({"shard", number(text, i)}), nc_metrics_shard_ready(look, i, &trouble));
	family(e, FAMILY_SHARD_AGE);
	for (uint32 i = 0; i < look->nshards; i++)
		nc_sample_us(e, NC_LABELS({"shard", number(text, i)}), look->oldest_us[i]);
}

static void
hosts(NcExposition *e, const NcLook *look)
{
	char		text[NUMBER_BYTES];

	family(e, FAMILY_CONNECTIONS);
	for (int i = 0; i < look->nhosts; i++)
	{
		const NcHostLook *h = &look->hosts[i];

		for (int state = NC_CONN_BACKOFF; state < NC_CONN_STATES; state++)
			nc_sample(e, NC_LABELS({"shard", number(text, h->shard)}, {"host", h->address},
								   {"state", nc_conn_state_name(state)}), h->by_state[state]);
	}
	family(e, FAMILY_IN_FLIGHT);
	for (int i = 0; i < look->nhosts; i++)
		nc_sample(e, NC_LABELS({"shard", number(text, look->hosts[i].shard)}, {"host", look->hosts[i].address}),
				  look->hosts[i].in_flight);
	family(e, FAMILY_FAILURES);
	for (int i = 0; i < look->nhosts; i++)
		nc_sample(e, NC_LABELS({"shard", number(text, look->hosts[i].shard)}, {"host", look->hosts[i].address}),
				  look->hosts[i].failures);
}

static void
slots(NcExposition *e, const NcLook *look)
{
	family(e, FAMILY_SLOTS);
	for (int state = NC_SLOT_FILLING; state < NC_SLOT_STATES; state++)
		nc_sample(e, NC_LABELS({"state", nc_slot_state_name(state)}), look->slots[state]);
	family(e, FAMILY_SLOTS_WAITING);
	for (int who = 0; who < NC_SLOT_WAITS; who++)
		nc_sample(e, NC_LABELS({"for", nc_slot_waits_name(who)}), look->waiting[who]);
}

static void
memory(NcExposition *e)
{
	uint64		lent = 0;

	for (uint32 i = 0; i < nc_staging.nchunks; i++)
		lent += (uint32) atomic_load(&nc_staging.owner[i]) != 0;
	one(e, FAMILY_STAGING, (uint64) nc_staging.nchunks * NC_STAGING_CHUNK_PAGES);
	one(e, FAMILY_STAGING_LENT, lent * NC_STAGING_CHUNK_PAGES);
	one(e, FAMILY_LOCAL_INDEX, nc_enabled ? nc_local_chunks_used() : 0);
	one(e, FAMILY_LOCAL_INDEX_MAX, nc_enabled ? nc_guc_local_chunks : 0);
}

/* ---- page servers, as the feed knows them ---- */

static const char *const peer_states[] = {
	"absent", "waiting", "catchup", "streaming", "closing", "parted", "refused"
};

static const char *const sync_states[] = {"async", "potential", "sync", "quorum"};

#define PEER_POSITIONS 5

typedef struct PeerPosition
{
	const char *name;
	XLogRecPtr	lsn;
} PeerPosition;

static void
positions(const NcFeedPeer *p, PeerPosition out[PEER_POSITIONS])
{
	out[0] = (PeerPosition) {"sent", p->sent};
	out[1] = (PeerPosition) {"write", p->write};
	out[2] = (PeerPosition) {"flush", p->flush};
	out[3] = (PeerPosition) {"apply", p->apply};
	out[4] = (PeerPosition) {"retained", p->retained_from};
}

static void
names_of_peer(NcExposition *e, const NcLook *look, Family f, const char *label, const char *const *names, int n)
{
	family(e, f);
	for (int i = 0; i < look->npeers; i++)
	{
		const NcFeedPeer *p = &look->peers[i];
		const char *current = f == FAMILY_PS_STATE ? p->state : p->sync_state;

		for (int k = 0; k < n; k++)
			nc_sample(e, NC_LABELS({"page_server", p->name}, {label, names[k]}), strcmp(names[k], current) == 0);
	}
}

static void
positions_of_peers(NcExposition *e, const NcLook *look, const NcFeedHealth *feed)
{
	bool		lag = feed != NULL;

	family(e, lag ? FAMILY_PS_LAG : FAMILY_PS_POSITION);
	for (int i = 0; i < look->npeers; i++)
	{
		PeerPosition at[PEER_POSITIONS];

		positions(&look->peers[i], at);
		for (int k = 0; k < PEER_POSITIONS; k++)
		{
			uint64		value = at[k].lsn;

			if (at[k].lsn == InvalidXLogRecPtr)
				continue;
			if (lag)
				value = feed->end > at[k].lsn ? feed->end - at[k].lsn : 0;
			nc_sample(e, NC_LABELS({"page_server", look->peers[i].name}, {"position", at[k].name}), value);
		}
	}
}

static void
page_servers(NcExposition *e, const NcLook *look)
{
	NcFeedHealth feed = nc_feed_health();
	static const NcLook nobody;	/* in recovery lag is not known */

	family(e, FAMILY_FEED_AGE);
	if (feed.heartbeat_us != 0)
		nc_sample_us(e, NULL, nc_metrics_age(feed.heartbeat_us));
	family(e, FAMILY_FEED_POSITION);
	if (feed.end != InvalidXLogRecPtr)
		nc_sample(e, NULL, feed.end);
	one(e, FAMILY_FEED_LET_IN, feed.let_in);
	names_of_peer(e, look, FAMILY_PS_STATE, "state", peer_states, lengthof(peer_states));
	positions_of_peers(e, look, NULL);
	positions_of_peers(e, feed.in_recovery || feed.end == InvalidXLogRecPtr ? &nobody : look, &feed);
	family(e, FAMILY_PS_SILENCE);
	for (int i = 0; i < look->npeers; i++)
		nc_sample_us(e, NC_LABELS({"page_server", look->peers[i].name}), nc_metrics_silence(&look->peers[i]));
	family(e, FAMILY_PS_THROTTLES);
	for (int i = 0; i < look->npeers; i++)
		nc_sample(e, NC_LABELS({"page_server", look->peers[i].name}), look->peers[i].throttles);
	family(e, FAMILY_PS_PRIORITY);
	for (int i = 0; i < look->npeers; i++)
		nc_sample(e, NC_LABELS({"page_server", look->peers[i].name}), look->peers[i].sync_priority);
	names_of_peer(e, look, FAMILY_PS_SYNC, "state", sync_states, lengthof(sync_states));
}

/* ---- the local file cache ---- */

static void
file_cache(NcExposition *e)
{
	static const char *states[NC_FILECACHE_FAILED + 1];
	uint32		state = nc_filecache == NULL ? NC_FILECACHE_OFF : atomic_load(&nc_filecache->state);
	bool		is_there = nc_filecache != NULL;

	for (int i = 0; i < lengthof(states); i++)
		states[i] = nc_filecache_state_name(i);
	family(e, FAMILY_LFC_STATE);
	one_of(e, "state", states, lengthof(states), nc_filecache_state_name(state));
	one(e, FAMILY_LFC_SIZE, is_there ? (uint64) nc_lfc_nsets(nc_filecache_index) * NC_LFC_WAYS * BLCKSZ : 0);
	one(e, FAMILY_LFC_LIMIT, is_there ? nc_filecache_limit_bytes() : 0);
	one(e, FAMILY_LFC_USED, is_there ? nc_lfc_used(nc_filecache_index) : 0);
	one(e, FAMILY_LFC_STAGED, is_there ? nc_lfc_outbox_used(nc_filecache_index) : 0);
}

static void
prewarm(NcExposition *e)
{
	static NcPrewarm none;
	NcPrewarm  *p = nc_filecache != NULL ? &nc_filecache->prewarm : &none;
	const char *states[NC_PREWARM_FAILED + 1];

	for (int i = 0; i < lengthof(states); i++)
		states[i] = nc_prewarm_state_name(i);
	family(e, FAMILY_PREWARM_STATE);
	one_of(e, "state", states, lengthof(states), nc_prewarm_state_name(atomic_load(&p->state)));
	one(e, FAMILY_PREWARM_WORKERS, atomic_load(&p->workers));
	family(e, FAMILY_PREWARM_PAGES);
	nc_sample(e, NC_LABELS({"result", "listed"}), atomic_load(&p->total));
	nc_sample(e, NC_LABELS({"result", "loaded"}), atomic_load(&p->loaded));
	nc_sample(e, NC_LABELS({"result", "skipped"}), atomic_load(&p->skipped));
	nc_sample(e, NC_LABELS({"result", "failed"}), atomic_load(&p->failed));
}

/* ---- the comparison of page servers ---- */

static void
scrub(NcExposition *e)
{
	static NcScrub none;
	NcScrub    *s = nc_scrub != NULL ? nc_scrub : &none;
	const char *states[NC_SCRUB_STATES];

	for (int i = 0; i < lengthof(states); i++)
		states[i] = nc_scrub_state_name(i);
	family(e, FAMILY_SCRUB_STATE);
	one_of(e, "state", states, lengthof(states), nc_scrub_state_name(atomic_load(&s->state)));
	one(e, FAMILY_SCRUB_ROUNDS, atomic_load(&s->rounds));
	one(e, FAMILY_SCRUB_BLOCKS, atomic_load(&s->blocks));
	one(e, FAMILY_SCRUB_FOUND, atomic_load(&s->found));
	one(e, FAMILY_SCRUB_UNCONFIRMED, atomic_load(&s->unconfirmed));
	family(e, FAMILY_SCRUB_LEFT);
	nc_sample(e, NC_LABELS({"of", "all"}), atomic_load(&s->blocks_all));
	nc_sample(e, NC_LABELS({"of", "compared"}), atomic_load(&s->blocks_done));
}

int
nc_metrics_write(NcWriter *w, bool openmetrics)
{
	NcExposition e = {.w = w,.openmetrics = openmetrics};
	const NcLook *look = nc_metrics_look();

	server(&e);
	communicator(&e);
	counters(&e);
	latency(&e);
	shards(&e, look);
	hosts(&e, look);
	slots(&e, look);
	memory(&e);
	page_servers(&e, look);
	file_cache(&e);
	prewarm(&e);
	scrub(&e);
	nc_exposition_end(&e);
	return 200;
}
