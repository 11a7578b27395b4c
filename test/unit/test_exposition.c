/*
 * test_exposition.c
 *	  Figures as text: both formats to the byte, escapes, buckets; JSON; and that text
 *	  which does not fit is told.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "nc/obs/exposition.h"
#include "nc/obs/json.h"
#include "nc/obs/names.h"

static char text[100000];

static const NcFamily reads = {"nc_reads", NC_METRIC_COUNTER, "", "pages \\ and\n\"more\""};
static const NcFamily waited = {"nc_wait_seconds", NC_METRIC_COUNTER, "seconds", "waits"};
static const NcFamily lag = {"nc_lag_bytes", NC_METRIC_GAUGE, "bytes", "lag"};
static const NcFamily who = {"nc_identity", NC_METRIC_INFO, "", "who"};
static const NcFamily stages = {"nc_stage_seconds", NC_METRIC_HISTOGRAM, "seconds", "stages"};

static void
write_all(NcExposition *e)
{
	nc_exposition_family(e, &reads);
	nc_sample(e, NULL, UINT64_MAX);
	nc_exposition_family(e, &waited);
	nc_sample_us(e, NULL, 1500000);
	nc_exposition_family(e, &lag);
	nc_sample(e, NC_LABELS({"shard", "1"}, {"host", "a\"b\\c\nd\xc3\xa4\x01"}), 0);
	nc_exposition_family(e, &who);
	nc_sample(e, NC_LABELS({"birth", ""}), 1);
	nc_exposition_end(e);
}

static void
check(bool openmetrics, const char *expected)
{
	NcWriter	w = nc_writer(text, sizeof(text) - 1);
	NcExposition e = {.w = &w,.openmetrics = openmetrics};

	write_all(&e);
	assert_false(w.failed);
	text[nc_writer_bytes(&w)] = '\0';
	assert_string_equal(text, expected);
}

static void
test_plain(void **state)
{
	check(false,
		  "# HELP nc_reads_total pages \\\\ and\\n\"more\"\n"
		  "# TYPE nc_reads_total counter\n"
		  "nc_reads_total 18446744073709551615\n"
		  "# HELP nc_wait_seconds_total waits\n"
		  "# TYPE nc_wait_seconds_total counter\n"
		  "nc_wait_seconds_total 1.500000\n"
		  "# HELP nc_lag_bytes lag\n"
		  "# TYPE nc_lag_bytes gauge\n"
		  "nc_lag_bytes{shard=\"1\",host=\"a\\\"b\\\\c\\nd???\"} 0\n"
		  "# HELP nc_identity_info who\n"
		  "# TYPE nc_identity_info gauge\n"
		  "nc_identity_info{birth=\"\"} 1\n");
}

static void
test_openmetrics(void **state)
{
	check(true,
		  "# HELP nc_reads pages \\\\ and\\n\\\"more\\\"\n"
		  "# TYPE nc_reads counter\n"
		  "nc_reads_total 18446744073709551615\n"
		  "# HELP nc_wait_seconds waits\n"
		  "# TYPE nc_wait_seconds counter\n"
		  "# UNIT nc_wait_seconds seconds\n"
		  "nc_wait_seconds_total 1.500000\n"
		  "# HELP nc_lag_bytes lag\n"
		  "# TYPE nc_lag_bytes gauge\n"
		  "# UNIT nc_lag_bytes bytes\n"
		  "nc_lag_bytes{shard=\"1\",host=\"a\\\"b\\\\c\\nd???\"} 0\n"
		  "# HELP nc_identity who\n"
		  "# TYPE nc_identity info\n"
		  "nc_identity_info{birth=\"\"} 1\n"
		  "# EOF\n");
}

/* ---- histograms ---- */

static NcLatency latency;

static void
note(uint64_t us)
{
	nc_latency_note(&latency, NC_STAGE_COPY, NC_LATENCY_DEMAND, 0, us);
}

static const char *
histogram(bool openmetrics)
{
	NcWriter	w = nc_writer(text, sizeof(text) - 1);
	NcExposition e = {.w = &w,.openmetrics = openmetrics};
	NcHistogramCounts counts = {0};

	nc_histogram_add(&counts, &latency.of[NC_STAGE_COPY][NC_LATENCY_DEMAND]);
	nc_exposition_family(&e, &stages);
	nc_sample_histogram(&e, NC_LABELS({"stage", "copy"}), &counts);
	assert_false(w.failed);
	text[nc_writer_bytes(&w)] = '\0';
	return text;
}

static uint64_t
bucket(const char *at, const char *le)
{
	char		line[120];

	snprintf(line, sizeof(line), "\nnc_stage_seconds_bucket{stage=\"copy\",le=\"%s\"} ", le);
	at = strstr(at, line);
	if (at == NULL)
		fail_msg("no bucket %s", le);
	return strtoull(at + strlen(line), NULL, 10);
}

static void
test_buckets(void **state)
{
	const char *t;
	const char *at;
	uint64_t	last = 0;
	int			n = 0;

	memset(&latency, 0, sizeof(latency));
	note(0);
	note(15);
	note(16);
	note(1000);
	note(1023);
	note(1024);
	note(UINT64_C(67108863));
	note(UINT64_C(67108864));
	note(UINT64_C(1) << 50);
	t = histogram(true);
	assert_int_equal(bucket(t, "0.000016"), 2);
	assert_int_equal(bucket(t, "0.000032"), 3);
	assert_int_equal(bucket(t, "0.000512"), 3);
	assert_int_equal(bucket(t, "0.001024"), 5);
	assert_int_equal(bucket(t, "0.002048"), 6);
	assert_int_equal(bucket(t, "67.108864"), 7);
	assert_int_equal(bucket(t, "+Inf"), 9);
	assert_non_null(strstr(t, "\nnc_stage_seconds_count{stage=\"copy\"} 9\n"));
	assert_non_null(strstr(t, "\nnc_stage_seconds_sum{stage=\"copy\"} 1125900041.063429\n"));
	for (at = t; (at = strstr(at, "_bucket{")) != NULL; at++, n++)
	{
		uint64_t	value = strtoull(strstr(at, "} ") + 2, NULL, 10);

		assert_true(value >= last);
		last = value;
	}
	assert_int_equal(n, 24);
}

/* Several are added up. */
static void
test_histograms_are_added(void **state)
{
	NcHistogramCounts counts = {0};

	memset(&latency, 0, sizeof(latency));
	note(5);
	nc_histogram_add(&counts, &latency.of[NC_STAGE_COPY][NC_LATENCY_DEMAND]);
	nc_histogram_add(&counts, &latency.of[NC_STAGE_COPY][NC_LATENCY_DEMAND]);
	assert_int_equal(counts.total, 2);
	assert_int_equal(counts.sum_us, 10);
}

/* ---- the rest ---- */

static void
test_no_room(void **state)
{
	for (size_t room = 0; room < 200; room++)
	{
		NcWriter	w = nc_writer(text, room);
		NcExposition e = {.w = &w};

		text[room] = 'x';
		write_all(&e);
		assert_true(w.failed);
		assert_int_equal(text[room], 'x');
	}
}

static void
test_json(void **state)
{
	NcWriter	w = nc_writer(text, sizeof(text) - 1);
	NcJsonWriter j = {.w = &w};

	nc_json_open(&j, NULL, '{');
	nc_json_bool(&j, "ready", false);
	nc_json_open(&j, "problems", '[');
	nc_json_text(&j, NULL, "a\"b\\c\n\x01\xc3\xa4");
	nc_json_text(&j, NULL, "");
	nc_json_close(&j, ']');
	nc_json_open(&j, "none", '[');
	nc_json_close(&j, ']');
	nc_json_open(&j, "in", '{');
	nc_json_number(&j, "n", UINT64_MAX);
	nc_json_us(&j, "age", 1000002);
	nc_json_close(&j, '}');
	nc_json_close(&j, '}');
	text[nc_writer_bytes(&w)] = '\0';
	assert_string_equal(text, "{\"ready\":false,\"problems\":[\"a\\\"b\\\\c\\u000a\\u0001??\",\"\"],\"none\":[],"
						"\"in\":{\"n\":18446744073709551615,\"age\":1.000002}}");
}

/* A counter's name is a part of a metric's; one in microseconds becomes one in seconds. */
static void
test_names(void **state)
{
	for (int i = 0; i < NC_COUNTERS; i++)
	{
		assert_int_equal(strspn(nc_counter_names[i].name, "abcdefghijklmnopqrstuvwxyz_"),
						 strlen(nc_counter_names[i].name));
		assert_true(nc_counter_names[i].meaning[0] != '\0');
	}
	for (int i = 0; i < NC_CONN_STATES; i++)
		assert_string_not_equal(nc_conn_state_name((NcConnState) i), "invalid");
	for (int i = 0; i < NC_STAGES; i++)
		assert_string_not_equal(nc_stage_name((NcStage) i), "invalid");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_plain),
		cmocka_unit_test(test_openmetrics),
		cmocka_unit_test(test_buckets),
		cmocka_unit_test(test_histograms_are_added),
		cmocka_unit_test(test_no_room),
		cmocka_unit_test(test_json),
		cmocka_unit_test(test_names)
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
