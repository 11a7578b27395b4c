/*
 * tracer.c
 *	  See nc/tracer/tracer.h.
 */
#include "postgres.h"

#include <time.h>
#include <unistd.h>

#include "miscadmin.h"
#include "postmaster/postmaster.h"
#include "storage/latch.h"
#include "utils/guc.h"

#include "nc/base/clock.h"
#include "nc/base/file.h"
#include "nc/trace/otlp.h"
#include "nc/trace/outlet.h"
#include "nc/tracer/tracer.h"

/* Records written at once. */
#define BATCH 256
#define BATCH_BYTES (BATCH * NC_OTLP_SPAN_BYTES + NC_OTLP_HEAD_BYTES)

/* How often an idle tracer looks. */
#define LOOK_MS 200

/* A post that takes longer does not keep others from the file. */
#define SLOW_POST_US 500000

/* Troubles are told at most this often. */
#define LOG_PERIOD_US 60000000

static const NcTracer *tracer;
static NcTraceUrl url;
static NcTracePost post;
static uint64 post_began_us;
static uint32 post_spans;
static char *bodies[2];			/* one may be on its way */
static int	next_body;
static NcTraceRecord *records;
static uint64 logged_us;
static char instance[256];

bool
nc_tracer_enabled(const NcTracer *t)
{
	return (*t->file)[0] != '\0' || (*t->collector)[0] != '\0';
}

bool
nc_tracer_collector_good(const char *collector)
{
	NcTraceUrl	parsed;
	const char *wrong = collector[0] == '\0' ? NULL : nc_trace_url_parse(collector, &parsed);

	if (wrong == NULL)
		return true;
	GUC_check_errdetail("\"%s\" is no collector: %s. Give http://127.0.0.1:4318/v1/traces or the like; one on another machine is reached through an agent on this one.",
						collector, wrong);
	return false;
}

void
nc_tracer_begin(const NcTracer *t)
{
	char		host[128] = "";

	tracer = t;
	if ((*t->collector)[0] != '\0' && nc_trace_url_parse(*t->collector, &url) != NULL)
		elog(ERROR, "%s: bad collector", t->service);
	bodies[0] = palloc(BATCH_BYTES);
	bodies[1] = palloc(BATCH_BYTES);
	records = palloc(BATCH * sizeof(NcTraceRecord));
	(void) gethostname(host, sizeof(host) - 1);
	snprintf(instance, sizeof(instance), "%s:%d", host, PostPortNumber);
}

static void
dropped(uint32 spans, const char *what, const char *why)
{
	uint64		now_us = nc_clock_us();
	uint64		all = atomic_fetch_add(&(*tracer->buffer)->dropped, spans) + spans;

	if (logged_us != 0 && now_us - logged_us < LOG_PERIOD_US)
		return;
	logged_us = now_us;
	ereport(LOG,
			(errmsg("%s: spans were dropped: %s: %s", tracer->service, what, why),
			 errdetail("%llu were since the server started. Nothing waits for them.",
					   (unsigned long long) all)));
}

static uint64
clock_ahead_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (uint64) ts.tv_sec * 1000000 + (uint64) ts.tv_nsec / 1000 - nc_clock_us();
}

static void
write_file(const char *body, size_t bytes, uint32 spans)
{
	if ((*tracer->file)[0] != '\0' &&
		!nc_trace_file_append(*tracer->file, (uint64) *tracer->file_size_kb * 1024, body, bytes))
		dropped(spans, *tracer->file, nc_file_error(errno));
}

static void
send_body(const char *body, size_t bytes, uint32 spans)
{
	if ((*tracer->collector)[0] == '\0')
		return;
	if (post.state != NC_TRACE_POST_IDLE)
	{
		dropped(spans, *tracer->collector, "the collector is slow");
		return;
	}
	post_began_us = nc_clock_us();
	post_spans = spans;
	if (nc_trace_post_begin(&post, &url, body, bytes, post_began_us))
		next_body = 1 - next_body;
	else
		dropped(spans, *tracer->collector, post.error);
}

static uint32
write_batch(bool collect)
{
	NcWriter	w = nc_writer(bodies[next_body], BATCH_BYTES);
	uint32		n = nc_trace_take(*tracer->buffer, records, BATCH);
	size_t		bytes;

	if (n == 0)
		return 0;
	nc_otlp_write(&w, tracer->service, instance, records, n, clock_ahead_us());
	bytes = nc_writer_bytes(&w);
	nc_write_u8(&w, '\n');
	Assert(!w.failed);
	write_file(bodies[next_body], bytes + 1, n);
	if (collect)
		send_body(bodies[next_body], bytes, n);
	return n;
}

static void
wait_a_moment(uint32 wait_event)
{
	int			events = WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH;

	if (post.state == NC_TRACE_POST_IDLE)
		(void) WaitLatch(MyLatch, events, LOOK_MS, wait_event);
	else
		(void) WaitLatchOrSocket(MyLatch, events | (post.state == NC_TRACE_POST_RECEIVING ?
													WL_SOCKET_READABLE : WL_SOCKET_WRITEABLE),
								 post.fd, LOOK_MS, wait_event);
	ResetLatch(MyLatch);
}

void
nc_tracer_turn(uint32 wait_event)
{
	uint64		now_us = nc_clock_us();
	uint32		n = 0;

	if (nc_trace_post_turn(&post, now_us) && post.error[0] != '\0')
		dropped(post_spans, *tracer->collector, post.error);
	/* one after the other; a collector that hangs gets no more, and does not keep the file from its own */
	if (post.state == NC_TRACE_POST_IDLE || now_us - post_began_us >= SLOW_POST_US)
		n = write_batch(true);
	if (n < BATCH)
		wait_a_moment(wait_event);
}

void
nc_tracer_end(void)
{
	nc_trace_post_end(&post);
	/* bounded: others may go on */
	for (int i = 0; i <= NC_TRACE_CELLS / BATCH; i++)
		if (write_batch(false) == 0)
			break;
}
