/*
 * metrics.c
 *	  What the exporter of a page server says (docs/metrics.md), and its worker.
 *
 * Runs in the worker "neon page service exporter".  It takes no lock, and what the server
 * keeps behind one the first page service worker publishes (publish.c): it answers when
 * startup, walreceiver and workers are stopped.
 */
#include "page_service.h"

#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "utils/guc.h"

#include "nc/obs/exposition.h"
#include "nc/obs/json.h"

/* The first worker publishes every second: if it has not for so long, it is stuck. */
#define PUBLISHED_LATE_US (5 * UINT64CONST(1000000))

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

/* By NcReqTag. */
static const char *const classes[NC_SVC_CLASSES] = {"exists", "nblocks", "getpage", "dbsize", "slru"};

static const char *const standings[] = {"none", "new", "joined", "refused", "promoted"};

/* ---- what the workers have told ---- */

static NcSvcPublished
published(void)
{
	NcSvcPublished p = nc_svc_shared->published[pg_atomic_read_u32(&nc_svc_shared->published_at) & 1];

	p.standing[sizeof(p.standing) - 1] = '\0';
	p.member[sizeof(p.member) - 1] = p.birth[sizeof(p.birth) - 1] = '\0';
	p.incarnation[sizeof(p.incarnation) - 1] = p.promised[sizeof(p.promised) - 1] = '\0';
	return p;
}

/* ---- sums of all workers, also for the status ---- */

void
nc_svc_totals(NcSvcTotals *t)
{
	*t = (NcSvcTotals) {0};
	for (int i = 0; i < nc_svc_workers; i++)
	{
		NcSvcWorkerState *worker = &nc_svc_shared->workers[i];

		t->pages += pg_atomic_read_u64(&worker->pages);
		t->requests += pg_atomic_read_u64(&worker->requests);
		t->errors += pg_atomic_read_u64(&worker->errors);
		t->refused += pg_atomic_read_u64(&worker->refused);
		t->over_rate += pg_atomic_read_u64(&worker->over_rate);
		t->sessions += pg_atomic_read_u32(&worker->sessions);
		t->logged_in += pg_atomic_read_u32(&worker->logged_in);
		t->waiting += pg_atomic_read_u32(&worker->waiting);
		t->listening += worker->listening;
		t->buffer_hits += pg_atomic_read_u64(&worker->buffer_hits);
		t->buffer_reads += pg_atomic_read_u64(&worker->buffer_reads);
		for (int k = 0; k < NC_SVC_CLASSES; k++)
			t->by_class[k] += pg_atomic_read_u64(&worker->by_class[k]);
	}
}

/* ---- /metrics ---- */

static uint64
age(uint64 then_us)
{
	uint64		now = nc_clock_us();

	return now > then_us ? now - then_us : 0;
}

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

static void
one_us(NcExposition *e, Family f, uint64 us)
{
	family(e, f);
	nc_sample_us(e, NULL, us);
}

/* An LSN that is not known has no sample. */
static void
position(NcExposition *e, Family f, XLogRecPtr lsn)
{
	family(e, f);
	if (lsn != InvalidXLogRecPtr)
		nc_sample(e, NULL, lsn);
}

static void
who(NcExposition *e, const NcSvcPublished *p)
{
	uint64		spans;
	uint64		dropped;

	family(e, FAMILY_IDENTITY);
	nc_sample(e, NC_LABELS({"member", p->member}, {"birth", p->birth}, {"incarnation", p->incarnation},
						   {"promised", p->promised}, {"shards", nc_svc_shard_numbers},
						   {"server_version", PG_VERSION}), 1);
	family(e, FAMILY_STANDING);
	for (int i = 0; i < lengthof(standings); i++)
		nc_sample(e, NC_LABELS({"state", standings[i]}), strcmp(standings[i], p->standing) == 0);
	one(e, FAMILY_EXPORTER_REQUESTS, nc_exporter_requests());
	one(e, FAMILY_EXPORTER_REFUSED, nc_exporter_refused());
	nc_svc_trace_counts(&spans, &dropped);
	one(e, FAMILY_SPANS, spans);
	one(e, FAMILY_SPANS_DROPPED, dropped);
}

static void
replay(NcExposition *e, const NcSvcPublished *p)
{
	family(e, FAMILY_WATCH_AGE);
	if (p->us != 0)
		nc_sample_us(e, NULL, age(p->us));
	one(e, FAMILY_RECOVERY, p->in_recovery);
	one(e, FAMILY_CONSISTENT, p->consistent);
	one(e, FAMILY_STREAMING, p->streaming);
	one(e, FAMILY_PAUSED, p->paused);
	position(e, FAMILY_REPLAY, p->replay);
	position(e, FAMILY_RECEIVED, p->received);
	position(e, FAMILY_DEMANDED, pg_atomic_read_u64(&nc_svc_shared->demanded_lsn));
	one(e, FAMILY_LAG, p->received > p->replay ? p->received - p->replay : 0);
}

static void
clients(NcExposition *e, const NcSvcTotals *t)
{
	one(e, FAMILY_LISTENING, t->listening);
	one(e, FAMILY_CONNECTIONS, t->sessions);
	one(e, FAMILY_LOGGED_IN, t->logged_in);
	one(e, FAMILY_WAITING, t->waiting);
	family(e, FAMILY_REQUESTS);
	for (int i = 0; i < NC_SVC_CLASSES; i++)
		nc_sample(e, NC_LABELS({"class", classes[i]}), t->by_class[i]);
	one(e, FAMILY_PAGES, t->pages);
	one(e, FAMILY_ERRORS, t->errors);
	one(e, FAMILY_REFUSED, t->refused);
	one(e, FAMILY_THROTTLED, t->over_rate);
}

static void
latency(NcExposition *e)
{
	NcHistogramCounts wait = {0};
	NcHistogramCounts answer = {0};

	for (int i = 0; i < nc_svc_workers; i++)
	{
		nc_histogram_add(&wait, &nc_svc_shared->workers[i].wait);
		nc_histogram_add(&answer, &nc_svc_shared->workers[i].answer);
	}
	family(e, FAMILY_WAIT);
	nc_sample_histogram(e, NULL, &wait);
	family(e, FAMILY_ANSWER);
	nc_sample_histogram(e, NULL, &answer);
}

static int
write_metrics(NcWriter *w, bool openmetrics)
{
	NcExposition e = {.w = w,.openmetrics = openmetrics};
	NcSvcPublished p = published();
	NcSvcTotals totals;

	nc_svc_totals(&totals);
	who(&e, &p);
	replay(&e, &p);
	clients(&e, &totals);
	latency(&e);
	one(&e, FAMILY_HITS, totals.buffer_hits);
	one(&e, FAMILY_READS, totals.buffer_reads);
	one(&e, FAMILY_BOOT_IMAGES, pg_atomic_read_u64(&nc_svc_shared->boot_images));
	one_us(&e, FAMILY_BOOT_HELD, pg_atomic_read_u64(&nc_svc_shared->boot_held_us));
	nc_exposition_end(&e);
	return 200;
}

/* ---- the others ---- */

static int
write_health(NcWriter *w, bool openmetrics)
{
	NcJsonWriter j = {.w = w};

	nc_json_open(&j, NULL, '{');
	nc_json_bool(&j, "alive", true);
	nc_json_close(&j, '}');
	return 200;
}

/* Says it if it is so; how many problems that makes. */
static int
problem(NcJsonWriter *j, bool is_so, const char *text)
{
	if (is_so)
		nc_json_text(j, NULL, text);
	return is_so;
}

static int
write_ready(NcWriter *w, bool openmetrics)
{
	NcJsonWriter j = {.w = w};
	NcSvcPublished p = published();
	NcSvcTotals totals;
	int			n = 0;

	nc_svc_totals(&totals);
	nc_json_open(&j, NULL, '{');
	nc_json_open(&j, "problems", '[');
	n += problem(&j, totals.listening < nc_svc_workers, "workers: not all of them listen");
	n += problem(&j, age(p.us) > PUBLISHED_LATE_US, "workers: the first one has made no turn for 5 s");
	n += problem(&j, !p.in_recovery, "recovery: this is no standby");
	n += problem(&j, p.in_recovery && !p.consistent, "recovery: it is not consistent yet");
	n += problem(&j, p.paused, "recovery: replay is paused");
	n += problem(&j, !p.streaming, "WAL: it is not streamed");
	n += problem(&j, strcmp(p.standing, "joined") != 0 && strcmp(p.standing, "none") != 0,
				 "identity: it has not joined a compute");
	nc_json_close(&j, ']');
	nc_json_bool(&j, "ready", n == 0);
	nc_json_close(&j, '}');
	return n == 0 ? 200 : 503;
}

/* ---- the worker ---- */

static const NcHttpPage pages[] = {
	{"/metrics", true, write_metrics},
	{"/healthz", false, write_health},
	{"/readyz", false, write_ready},
	{NULL, false, NULL}
};

const NcExporter nc_svc_exporter = {
	.name = "neon page service exporter",
	.prefix = "neon_page_service.metrics_",
	.tenant_setting = "neon_page_service.tenant_id",
	.listen_addresses = &nc_svc_metrics_listen_addresses,
	.port = &nc_svc_metrics_port,
	.ssl_cert_file = &nc_svc_metrics_ssl_cert_file,
	.ssl_key_file = &nc_svc_metrics_ssl_key_file,
	.require_ssl = &nc_svc_metrics_require_ssl,
	.auth_public_key_file = &nc_svc_metrics_auth_public_key_file,
	.tenant_id = &nc_svc_tenant_id,
	.had_certificate = &nc_svc_metrics_had_certificate,
	.pages = pages
};

static void
exporter_sigterm(SIGNAL_ARGS)
{
	int			save_errno = errno;

	ShutdownRequestPending = true;
	nc_exporter_kick();
	errno = save_errno;
}

static void
exporter_sighup(SIGNAL_ARGS)
{
	int			save_errno = errno;

	ConfigReloadPending = true;
	nc_exporter_kick();
	errno = save_errno;
}

void
nc_svc_exporter_main(Datum arg)
{
	nc_exporter_prepare();
	pqsignal(SIGTERM, exporter_sigterm);
	pqsignal(SIGHUP, exporter_sighup);
	BackgroundWorkerUnblockSignals();
	nc_exporter_begin(&nc_svc_exporter);
	while (!ShutdownRequestPending)
	{
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
			nc_exporter_reloaded();
		}
		nc_exporter_turn(nc_svc_wait_exporter);
	}
	/* code 0 would keep the postmaster from ever starting it again */
	proc_exit(1);
}
