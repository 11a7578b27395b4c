/*
 * report.c
 *	  What came of it, as text or JSON; and a recording as text.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "nc/obs/json.h"
#include "replay.h"

#define JSON_BYTES (64 * 1024)

static const double parts[] = {0.5, 0.9, 0.99};

#define PARTS (sizeof(parts) / sizeof(parts[0]))

static const char *const part_names[PARTS] = {"p50_us", "p90_us", "p99_us"};

static const char *const trouble_names[TROUBLES] = {
	[TROUBLE_ERROR] = "error",
	[TROUBLE_NOT_NOW] = "not now",
	[TROUBLE_MISROUTED] = "wrong shard",
	[TROUBLE_HOST] = "not by this host",
	[TROUBLE_LOST] = "connection lost"
};

static const NcReqTag kind_order[KINDS] = {NC_REQ_GETPAGE, NC_REQ_NBLOCKS, NC_REQ_EXISTS, NC_REQ_DBSIZE};

static const char *
kind_name(uint32_t kind)
{
	static const char *const names[KINDS] = {
		[NC_REQ_EXISTS] = "exists", [NC_REQ_NBLOCKS] = "nblocks", [NC_REQ_GETPAGE] = "getpage",
		[NC_REQ_DBSIZE] = "dbsize"
	};

	return kind < KINDS ? names[kind] : "?";
}

/* The upper end of the bucket that `part` of the durations are in or below, and no more than the largest. */
static uint64_t
percentile(const Durations *d, double part)
{
	uint64_t	seen = 0;

	for (uint32_t i = 0; i < NC_LATENCY_BUCKETS - 1; i++)
	{
		seen += d->bucket[i];
		if (seen > 0 && (double) seen >= (double) d->count * part)
			return nc_latency_from_us(i + 1) - 1 < d->max_us ? nc_latency_from_us(i + 1) - 1 : d->max_us;
	}
	return d->max_us;
}

static uint64_t
requests_of(const ClassResult *of)
{
	uint64_t	n = 0;

	for (int k = 0; k < KINDS; k++)
		n += of->requests[k];
	return n;
}

static double
per_second(uint64_t n, uint64_t us)
{
	return us == 0 ? 0 : (double) n * 1e6 / (double) us;
}

static uint64_t
recorded_us(const Recording *r)
{
	return r->count == 0 ? 0 : r->records[r->count - 1].start_us - r->records[0].start_us;
}

static const char *
utc(uint64_t us, char *text, size_t bytes)
{
	time_t		s = (time_t) (us / 1000000);
	struct tm	tm;

	if (gmtime_r(&s, &tm) == NULL || strftime(text, bytes, "%Y-%m-%d %H:%M:%S UTC", &tm) == 0)
		snprintf(text, bytes, "?");
	return text;
}

/* ---- text ---- */

static void
print_durations(const Durations *d)
{
	for (size_t i = 0; i < PARTS; i++)
		if (d->count == 0)
			printf(" %9s", "-");
		else
			printf(" %9" PRIu64, percentile(d, parts[i]));
	if (d->count == 0)
		printf(" %9s", "-");
	else
		printf(" %9" PRIu64, d->max_us);
}

static void
print_class(uint32_t class, const ClassResult *of)
{
	if (requests_of(of) == 0)
		return;
	printf("%-10s played  ", nc_record_class_name(class));
	print_durations(&of->played);
	printf("\n%-10s recorded", "");
	print_durations(&of->recorded);
	printf("\n");
}

static void
print_counts(uint32_t class, const ClassResult *of)
{
	uint64_t	requests = requests_of(of);

	if (requests == 0)
		return;
	printf("%-10s %10" PRIu64 " %10" PRIu64 " %10" PRIu64 " %10" PRIu64 "  ", nc_record_class_name(class), requests,
		   requests - of->answered, of->blocks, of->blocks_answered);
	for (int i = 0; i < KINDS; i++)
		if (of->requests[kind_order[i]] > 0)
			printf(" %s %" PRIu64, kind_name(kind_order[i]), of->requests[kind_order[i]]);
	printf("\n");
}

void
report_text(const Options *o, const Recording *r, const Result *result)
{
	uint64_t	requests = 0;
	uint64_t	blocks = 0;
	char		when[64];

	printf("recording   %s, of %s, %.3f s%s\n", o->file, utc(r->header.began_us, when, sizeof(when)),
		   (double) recorded_us(r) / 1e6, r->ended ? "" : ", incomplete");
	for (uint32_t c = 0; c < NC_RECORD_CLASSES; c++)
	{
		requests += requests_of(&result->of[c]);
		blocks += result->of[c].blocks_answered;
	}
	printf("played      in %.3f s, %s", (double) result->took_us / 1e6, o->speed == 0 ? "as fast as answers came" : "");
	if (o->speed != 0)
		printf("at speed %g, at most %.3f ms behind its time", o->speed, (double) result->late_us / 1e3);
	printf("\nthroughput  %.0f requests/s, %.0f pages/s, %.1f MB/s of pages\n\n", per_second(requests, result->took_us),
		   per_second(blocks, result->took_us), per_second(blocks, result->took_us) * NC_PAGE_BYTES / 1048576);
	printf("%-10s %10s %10s %10s %10s   %s\n", "class", "requests", "failed", "blocks", "answered", "of these");
	for (uint32_t c = 0; c < NC_RECORD_CLASSES; c++)
		print_counts(c, &result->of[c]);
	printf("\n%-19s %9s %9s %9s %9s   microseconds\n", "latency", "p50", "p90", "p99", "max");
	for (uint32_t c = 0; c < NC_RECORD_CLASSES; c++)
		print_class(c, &result->of[c]);
	for (int t = 0; t < TROUBLES; t++)
		if (result->trouble[t] > 0)
			printf("\n%s: %" PRIu64 " messages, the first: %s\n", trouble_names[t], result->trouble[t],
				   result->example[t]);
	if (result->why[0] != '\0')
		printf("\nbroken off: %s; %" PRIu64 " requests were on their way, %" PRIu64 " not sent\n", result->why,
			   result->unanswered, result->unsent);
}

/* ---- JSON ---- */

static void
json_durations(NcJsonWriter *j, const char *name, const Durations *d)
{
	nc_json_open(j, name, '{');
	nc_json_number(j, "count", d->count);
	for (size_t i = 0; i < PARTS; i++)
		nc_json_number(j, part_names[i], percentile(d, parts[i]));
	nc_json_number(j, "max_us", d->max_us);
	nc_json_close(j, '}');
}

static void
json_class(NcJsonWriter *j, uint32_t class, const ClassResult *of)
{
	nc_json_open(j, nc_record_class_name(class), '{');
	nc_json_number(j, "requests", requests_of(of));
	for (int i = 0; i < KINDS; i++)
		nc_json_number(j, kind_name(kind_order[i]), of->requests[kind_order[i]]);
	nc_json_number(j, "answered", of->answered);
	nc_json_number(j, "blocks", of->blocks);
	nc_json_number(j, "blocks_answered", of->blocks_answered);
	json_durations(j, "played", &of->played);
	json_durations(j, "recorded", &of->recorded);
	nc_json_close(j, '}');
}

bool
report_json(const Options *o, const Recording *r, const Result *result)
{
	static uint8_t text[JSON_BYTES];
	NcWriter	w = nc_writer(text, sizeof(text));
	NcJsonWriter j = {.w = &w};

	nc_json_open(&j, NULL, '{');
	nc_json_text(&j, "file", o->file);
	nc_json_bool(&j, "complete", r->ended);
	nc_json_number(&j, "recorded", r->count);
	nc_json_number(&j, "dropped", r->ended ? r->end.dropped : 0);
	nc_json_us(&j, "recorded_seconds", recorded_us(r));
	nc_json_us(&j, "seconds", result->took_us);
	nc_json_number(&j, "late_us", result->late_us);
	nc_json_number(&j, "messages", result->messages);
	nc_json_open(&j, "classes", '{');
	for (uint32_t c = 0; c < NC_RECORD_CLASSES; c++)
		json_class(&j, c, &result->of[c]);
	nc_json_close(&j, '}');
	nc_json_open(&j, "errors", '{');
	for (int t = 0; t < TROUBLES; t++)
		nc_json_number(&j, trouble_names[t], result->trouble[t]);
	nc_json_close(&j, '}');
	nc_json_open(&j, "texts", '{');
	for (int t = 0; t < TROUBLES; t++)
		if (result->trouble[t] > 0)
			nc_json_text(&j, trouble_names[t], result->example[t]);
	nc_json_close(&j, '}');
	nc_json_text(&j, "broken_off", result->why);
	nc_json_number(&j, "unanswered", result->unanswered);
	nc_json_number(&j, "unsent", result->unsent);
	nc_json_close(&j, '}');
	if (w.failed)
		return false;
	printf("%.*s\n", (int) nc_writer_bytes(&w), (char *) text);
	return true;
}

/* ---- a recording as text ---- */

void
report_dump_head(const Recording *r)
{
	char		when[64];

	printf("# tenant %s timeline %s\n# server %u pagestream %u began %s\n"
		   "# seconds class kind shard relation fork block blocks request_lsn not_modified_since result "
		   "microseconds\n", r->header.tenant_id, r->header.timeline_id, r->header.server_version,
		   r->header.protocol_version, utc(r->header.began_us, when, sizeof(when)));
}

void
report_dump(const NcRecord *record, const NcRecordMap *map)
{
	uint32_t	shard = 0;
	char		lsn[32] = "newest";

	if (record->kind == NC_REQ_GETPAGE && map->shards > 0 && map->stripe_blocks > 0)
		shard = nc_shard_of_block(map->shards, map->stripe_blocks, &record->rel, record->block);
	if (record->request_lsn != NC_LSN_MAX)
		snprintf(lsn, sizeof(lsn), NC_LSN_FMT, NC_LSN_ARGS(record->request_lsn));
	printf("%" PRIu64 ".%06" PRIu64 " %s%s %s %u %u/%u/%u %u %u %u %s " NC_LSN_FMT " %s %" PRIu64 "\n",
		   record->start_us / 1000000, record->start_us % 1000000, nc_record_class_name(record->class),
		   record->promoted ? "+" : "", kind_name(record->kind), shard, record->rel.spc, record->rel.db,
		   record->rel.rel, record->rel.fork, record->block, record->nblocks, lsn,
		   NC_LSN_ARGS(record->not_modified_since), nc_record_result_name(record->result), record->took_us);
}

void
report_dump_tail(const Recording *r)
{
	if (r->ended)
		printf("# ended: %s, %" PRIu64 " requests, %" PRIu64 " dropped\n", nc_record_why_name(r->end.why),
			   r->end.records, r->end.dropped);
	else
		printf("# incomplete, %" PRIu64 " bytes unread\n", r->unread);
}
