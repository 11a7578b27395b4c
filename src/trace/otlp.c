/*
 * otlp.c
 *	  See nc/trace/otlp.h.  Ids are hexadecimal, 64-bit numbers are strings: so the
 *	  mapping of OTLP to JSON has it.
 *
 * What is written is numbers and texts of the code: no statement, no name of a user.
 */
#include "nc/trace/otlp.h"

#include <inttypes.h>
#include <stdio.h>

#include "nc/obs/json.h"

/* SpanKind */
#define KIND_SERVER 2
#define KIND_CLIENT 3

/* StatusCode */
#define STATUS_ERROR 2

static void
put_hex(NcJsonWriter *j, const char *name, const uint8_t *bytes, size_t n)
{
	char		text[2 * NC_TRACE_ID_BYTES + 1];

	for (size_t i = 0; i < n; i++)
		snprintf(text + 2 * i, 3, "%02x", bytes[i]);
	nc_json_text(j, name, text);
}

static void
put_time(NcJsonWriter *j, const char *name, uint64_t us, uint64_t ahead_us)
{
	char		text[32];

	snprintf(text, sizeof(text), "%" PRIu64, (us + ahead_us) * 1000);
	nc_json_text(j, name, text);
}

static void
attribute(NcJsonWriter *j, const char *key, const char *type, const char *value)
{
	nc_json_open(j, NULL, '{');
	nc_json_text(j, "key", key);
	nc_json_open(j, "value", '{');
	nc_json_text(j, type, value);
	nc_json_close(j, '}');
	nc_json_close(j, '}');
}

static void
text_attribute(NcJsonWriter *j, const char *key, const char *value)
{
	attribute(j, key, "stringValue", value);
}

static void
number_attribute(NcJsonWriter *j, const char *key, uint64_t value)
{
	char		text[32];

	snprintf(text, sizeof(text), "%" PRIu64, value);
	attribute(j, key, "intValue", text);
}

static const char *
class_name(NcTraceClass class)
{
	switch (class)
	{
		case NC_TRACE_DEMAND:
			return "demand";
		case NC_TRACE_AHEAD:
			return "ahead";
		case NC_TRACE_AIO:
			return "aio";
	}
	return "";
}

static void
put_attributes(NcJsonWriter *j, const NcTraceRecord *r)
{
	char		text[64];

	nc_json_open(j, "attributes", '[');
	/* more than a signed number holds */
	snprintf(text, sizeof(text), "%016" PRIx64, r->reqid);
	text_attribute(j, "neon.request_id", text);
	text_attribute(j, "neon.request", nc_ps_request_name((NcReqTag) r->tag));
	if (r->kind == NC_TRACE_READ)
		text_attribute(j, "neon.class", class_name((NcTraceClass) r->class));
	snprintf(text, sizeof(text), "%u/%u/%u", r->rel.spc, r->rel.db, r->rel.rel);
	text_attribute(j, "neon.relation", text);
	number_attribute(j, "neon.fork", r->rel.fork);
	number_attribute(j, "neon.block", r->block);
	number_attribute(j, "neon.blocks", r->nblocks);
	snprintf(text, sizeof(text), NC_LSN_FMT, NC_LSN_ARGS(r->not_modified_since));
	text_attribute(j, "neon.not_modified_since", text);
	if (r->kind == NC_TRACE_READ)
		number_attribute(j, "neon.shard", r->shard);
	number_attribute(j, "process.pid", r->pid);
	nc_json_close(j, ']');
}

/* The times between the first and the last, which are the span's own. */
static void
put_events(NcJsonWriter *j, const NcTraceRecord *r, uint64_t ahead_us)
{
	static const char *const of_read[NC_TRACE_TIMES] = {
		[NC_TRACE_TAKEN] = "taken",
		[NC_TRACE_SENT] = "sent",
		[NC_TRACE_RECEIVED] = "received",
		[NC_TRACE_REACHED] = "reached",
		[NC_TRACE_DONE] = "done"
	};
	static const char *const of_answer[NC_TRACE_TIMES] = {
		[NC_TRACE_TAKEN] = "replayed"
	};
	const char *const *names = r->kind == NC_TRACE_READ ? of_read : of_answer;

	nc_json_open(j, "events", '[');
	for (int i = 0; i < NC_TRACE_TIMES; i++)
	{
		if (names[i] == NULL || r->time_us[i] == 0)
			continue;
		nc_json_open(j, NULL, '{');
		put_time(j, "timeUnixNano", r->time_us[i], ahead_us);
		nc_json_text(j, "name", names[i]);
		nc_json_close(j, '}');
	}
	nc_json_close(j, ']');
}

static uint64_t
end_us(const NcTraceRecord *r)
{
	uint64_t	end = r->time_us[NC_TRACE_SUBMITTED];

	for (int i = 0; i < NC_TRACE_TIMES; i++)
		if (r->time_us[i] > end)
			end = r->time_us[i];
	return end;
}

static void
put_span(NcJsonWriter *j, const NcTraceRecord *r, uint64_t ahead_us)
{
	static const uint8_t none[NC_SPAN_ID_BYTES];

	nc_json_open(j, NULL, '{');
	put_hex(j, "traceId", r->at.trace_id, NC_TRACE_ID_BYTES);
	put_hex(j, "spanId", r->at.span_id, NC_SPAN_ID_BYTES);
	if (memcmp(r->parent_id, none, NC_SPAN_ID_BYTES) != 0)
		put_hex(j, "parentSpanId", r->parent_id, NC_SPAN_ID_BYTES);
	nc_json_text(j, "name", r->kind == NC_TRACE_READ ? "neon.read" : "neon.answer");
	nc_json_number(j, "kind", r->kind == NC_TRACE_READ ? KIND_CLIENT : KIND_SERVER);
	put_time(j, "startTimeUnixNano", r->time_us[NC_TRACE_SUBMITTED], ahead_us);
	put_time(j, "endTimeUnixNano", end_us(r), ahead_us);
	put_attributes(j, r);
	put_events(j, r, ahead_us);
	nc_json_open(j, "status", '{');
	if (r->failed)
		nc_json_number(j, "code", STATUS_ERROR);
	nc_json_close(j, '}');
	nc_json_close(j, '}');
}

void
nc_otlp_write(NcWriter *w, const char *service, const char *instance, const NcTraceRecord *records,
			  uint32_t n, uint64_t ahead_us)
{
	NcJsonWriter j = {.w = w};

	nc_json_open(&j, NULL, '{');
	nc_json_open(&j, "resourceSpans", '[');
	nc_json_open(&j, NULL, '{');
	nc_json_open(&j, "resource", '{');
	nc_json_open(&j, "attributes", '[');
	text_attribute(&j, "service.name", service);
	text_attribute(&j, "service.instance.id", instance);
	nc_json_close(&j, ']');
	nc_json_close(&j, '}');
	nc_json_open(&j, "scopeSpans", '[');
	nc_json_open(&j, NULL, '{');
	nc_json_open(&j, "scope", '{');
	nc_json_text(&j, "name", service);
	nc_json_close(&j, '}');
	nc_json_open(&j, "spans", '[');
	for (uint32_t i = 0; i < n; i++)
		put_span(&j, &records[i], ahead_us);
	nc_json_close(&j, ']');
	nc_json_close(&j, '}');
	nc_json_close(&j, ']');
	nc_json_close(&j, '}');
	nc_json_close(&j, ']');
	nc_json_close(&j, '}');
}
