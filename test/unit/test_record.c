/*
 * Proves of recordings that what is written is read again, that any damage ends the
 * reading where it is and is noticed, that malformed bodies are refused; and of the
 * recorder that a file holds what was put or counts it as dropped, that it keeps to
 * its size, and that whatever is wrong with the directory only ends the recording.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <dirent.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "nc/record/recorder.h"

#define N 5000

static uint64_t seed = 1;

static uint64_t
draw(uint64_t below)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed % below;
}

static NcRecordHeader
example_header(void)
{
	NcRecordHeader h = {.server_version = 150017, .began_us = UINT64_C(1796000000123456), .protocol_version = 3};

	memset(h.tenant_id, 'a', NC_RECORD_ID_DIGITS);
	memset(h.timeline_id, '7', NC_RECORD_ID_DIGITS);
	return h;
}

/* Mostly as requests are, now and then anything that is allowed. */
static NcRecord
example_record(const NcRecord *last)
{
	NcRecord	r = *last;

	r.start_us += draw(8) == 0 ? (uint64_t) 0 - draw(r.start_us / 2 + 1) : draw(300);
	r.took_us = draw(20) == 0 ? draw(UINT64_MAX) : draw(2000);
	r.kind = draw(10) == 0 ? (uint8_t) draw(NC_REQ_DBSIZE + 1) : NC_REQ_GETPAGE;
	r.class = draw(5) == 0 ? (uint8_t) draw(NC_RECORD_CLASSES) : r.class;
	r.result = draw(50) == 0 ? (uint8_t) draw(NC_RECORD_RESULTS) : NC_RECORD_OK;
	r.nblocks = draw(3) == 0 ? (uint8_t) (1 + draw(NC_RECORD_BLOCKS_MAX)) : 1;
	r.promoted = draw(9) == 0;
	if (draw(4) == 0)
		r.rel = (NcRelKey) {(uint32_t) draw(UINT32_MAX), (uint32_t) draw(9), (uint32_t) draw(UINT32_MAX), (uint32_t) draw(4)};
	r.block = draw(2) == 0 ? last->block + last->nblocks : (uint32_t) draw(UINT32_MAX - NC_RECORD_BLOCKS_MAX);
	if (r.block > UINT32_MAX - r.nblocks)
		r.block = 0;
	if (draw(3) == 0)
		r.not_modified_since += draw(5) == 0 ? (uint64_t) 0 - draw(100000) : draw(100000);
	r.request_lsn = draw(20) == 0 ? draw(UINT64_MAX) : NC_LSN_MAX;
	return r;
}

static bool
equal(const NcRecord *a, const NcRecord *b)
{
	return a->start_us == b->start_us && a->took_us == b->took_us && a->request_lsn == b->request_lsn &&
		a->not_modified_since == b->not_modified_since && nc_rel_key_equal(&a->rel, &b->rel) &&
		a->block == b->block && a->nblocks == b->nblocks && a->kind == b->kind && a->class == b->class &&
		a->result == b->result && a->promoted == b->promoted;
}

/* A whole recording of n records, in frames of at most `each`. Returns its bytes. */
static size_t
write_example(uint8_t *file, size_t room, NcRecord *records, uint32_t n, uint32_t each)
{
	static uint8_t buffer[NC_RECORD_FRAME_BYTES_MAX];
	NcWriter	w = nc_writer(file, room);
	NcRecordHeader header = example_header();
	NcRecordMap map = {.shards = 3, .stripe_blocks = 2048};
	NcRecord	last = {.start_us = 1000000, .nblocks = 1};

	assert_true(nc_record_put_header(&w, &header));
	for (uint32_t done = 0; done < n;)
	{
		NcRecordWriter rw;

		nc_record_begin(&rw, buffer, &map);
		for (; done < n && rw.count < each; done++)
		{
			records[done] = last = example_record(&last);
			if (!nc_record_put(&rw, &last))
				break;
		}
		nc_write_bytes(&w, buffer, nc_record_seal(&rw));
	}
	assert_true(nc_record_put_end(&w, &(NcRecordEnd) {.why = NC_RECORD_FULL, .records = n, .dropped = 7}));
	assert_false(w.failed);
	return nc_writer_bytes(&w);
}

/* How many records can be read, which must be the first of these; *ended: the last frame was there. */
static uint32_t
read_back(const uint8_t *file, size_t bytes, const NcRecord *records, bool *ended, bool *torn)
{
	NcReader	r = nc_reader(file, bytes);
	NcRecordHeader header;
	NcRecordFrame frame;
	NcRecordFound found;
	uint32_t	n = 0;

	*ended = *torn = false;
	if (nc_record_read_header(&r, &header) != NULL)
	{
		*torn = true;
		return 0;
	}
	while ((found = nc_record_read_frame(&r, &frame)) == NC_RECORD_FRAME)
	{
		NcRecordReader rr;
		NcRecordMap map;
		NcRecord	record;
		int			rc;

		if (frame.tag == NC_RECORD_END)
		{
			NcRecordEnd end;

			assert_true(nc_record_read_end(&frame, &end));
			assert_int_equal(end.records, n);
			*ended = true;
			continue;
		}
		assert_int_equal(frame.tag, NC_RECORD_RECORDS);
		assert_true(nc_record_open(&rr, &frame, &map));
		assert_int_equal(map.shards, 3);
		assert_int_equal(map.stripe_blocks, 2048);
		while ((rc = nc_record_next(&rr, &record)) == 1)
		{
			assert_true(equal(&record, &records[n]));
			n++;
		}
		assert_int_equal(rc, 0);
	}
	*torn = found == NC_RECORD_TORN;
	return n;
}

static void
test_what_is_written_is_read(void **state)
{
	size_t		room = N * NC_RECORD_BYTES_MAX;
	uint8_t    *file = malloc(room);
	NcRecord   *records = calloc(N, sizeof(*records));
	NcRecordHeader wrote = example_header();
	NcRecordHeader header;
	NcReader	r;
	bool		ended;
	bool		torn;

	for (uint32_t each = 1; each <= N; each *= 50)
	{
		size_t		bytes = write_example(file, room, records, N, each);

		assert_int_equal(read_back(file, bytes, records, &ended, &torn), N);
		assert_true(ended && !torn);
		r = nc_reader(file, bytes);
		assert_null(nc_record_read_header(&r, &header));
		assert_int_equal(header.server_version, wrote.server_version);
		assert_int_equal(header.began_us, wrote.began_us);
		assert_int_equal(header.protocol_version, wrote.protocol_version);
		assert_string_equal(header.tenant_id, wrote.tenant_id);
		assert_string_equal(header.timeline_id, wrote.timeline_id);
	}
	free(records);
	free(file);
}

/* Neighbours of a scan, each a little later: what most of a recording is. */
static void
test_a_scan_is_short(void **state)
{
	static uint8_t buffer[NC_RECORD_FRAME_BYTES_MAX];
	NcRecordWriter rw;
	NcRecord	record = {.request_lsn = NC_LSN_MAX, .not_modified_since = 0x3000028, .rel = {1663, 5, 16384, 0},
	.nblocks = 1, .kind = NC_REQ_GETPAGE};
	size_t		before;

	nc_record_begin(&rw, buffer, &(NcRecordMap) {1, 2048});
	assert_true(nc_record_put(&rw, &record));
	before = nc_writer_bytes(&rw.w);
	for (uint32_t i = 0; i < 100; i++)
	{
		record.block++;
		record.start_us += 60;
		record.took_us = 100 + i;
		assert_true(nc_record_put(&rw, &record));
	}
	assert_true(nc_writer_bytes(&rw.w) - before <= 500);
}

static void
test_cut_anywhere_it_is_a_shorter_recording(void **state)
{
	static uint8_t file[64 * 1024];
	static NcRecord records[60];
	size_t		bytes = write_example(file, sizeof(file), records, 60, 7);
	uint32_t	most = 0;
	bool		ended;
	bool		torn;

	for (size_t cut = 0; cut < bytes; cut++)
	{
		uint32_t	n = read_back(file, cut, records, &ended, &torn);

		assert_false(ended);
		assert_true(n >= most);
		most = n;
	}
	assert_int_equal(most, 60);
}

static void
test_any_damage_is_noticed(void **state)
{
	static uint8_t file[64 * 1024];
	static NcRecord records[60];
	size_t		bytes = write_example(file, sizeof(file), records, 60, 7);
	bool		ended;
	bool		torn;

	for (size_t at = 0; at < bytes; at++)
		for (int bit = 0; bit < 8; bit++)
		{
			file[at] ^= (uint8_t) (1 << bit);
			/* a prefix, which read_back() compares */
			(void) read_back(file, bytes, records, &ended, &torn);
			assert_true(torn);
			file[at] ^= (uint8_t) (1 << bit);
		}
}

/* Reads a body of records, whatever it is; the last answer. */
static int
read_body(const uint8_t *body, size_t bytes)
{
	NcRecordFrame frame = {NC_RECORD_RECORDS, body, bytes};
	NcRecordReader rr;
	NcRecordMap map;
	NcRecord	record;
	int			rc;

	if (!nc_record_open(&rr, &frame, &map))
		return -1;
	while ((rc = nc_record_next(&rr, &record)) == 1)
		;
	/* and stays so */
	assert_int_equal(nc_record_next(&rr, &record), rc);
	return rc;
}

static void
test_malformed_bodies_are_refused(void **state)
{
	static uint8_t buffer[NC_RECORD_FRAME_BYTES_MAX];
	uint8_t    *body = buffer + NC_RECORD_FRAME_HEADER_BYTES;
	NcRecord	good = {.nblocks = 1, .kind = NC_REQ_GETPAGE, .rel = {1, 2, 3, 0}, .block = 4};
	NcRecordWriter rw;
	size_t		bytes;
	static const NcRecord wrong[] = {
		{.nblocks = 0, .kind = NC_REQ_GETPAGE},
		{.nblocks = NC_RECORD_BLOCKS_MAX + 1, .kind = NC_REQ_GETPAGE},
		{.nblocks = 1, .kind = NC_REQ_SLRU},
		{.nblocks = 1, .class = NC_RECORD_CLASSES},
		{.nblocks = 1, .result = NC_RECORD_RESULTS},
		{.nblocks = 1, .rel.fork = NC_FORK_INIT + 1},
		{.nblocks = 1, .block = UINT32_MAX},
		{.nblocks = 32, .block = UINT32_MAX - 31},
	};

	nc_record_begin(&rw, buffer, &(NcRecordMap) {1, 2048});
	assert_true(nc_record_put(&rw, &good));
	bytes = nc_record_seal(&rw) - NC_RECORD_FRAME_HEADER_BYTES;
	assert_int_equal(read_body(body, bytes), 0);
	/* the map alone is whole; anything else that is cut is not */
	for (size_t cut = 0; cut < bytes; cut++)
		assert_int_equal(read_body(body, cut), cut == 3 ? 0 : -1);
	/* a flag that there is not */
	body[3] |= 0x80;
	assert_int_equal(read_body(body, bytes), -1);
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
	{
		assert_false(nc_record_is_sane(&wrong[i]));
		nc_record_begin(&rw, buffer, &(NcRecordMap) {1, 2048});
		assert_true(nc_record_put(&rw, &wrong[i]));
		bytes = nc_record_seal(&rw) - NC_RECORD_FRAME_HEADER_BYTES;
		assert_int_equal(read_body(body, bytes), -1);
	}
	/* a number that is longer than any */
	memset(body, 0xff, 12);
	assert_int_equal(read_body(body, 12), -1);
}

static void
test_headers_of_others_are_refused(void **state)
{
	uint8_t		file[256];
	NcRecordHeader header = example_header();
	NcRecordHeader back;
	NcWriter	w = nc_writer(file, sizeof(file));
	NcReader	r;

	header.tenant_id[3] = '\'';
	assert_true(nc_record_put_header(&w, &header));
	r = nc_reader(file, nc_writer_bytes(&w));
	assert_string_equal(nc_record_read_header(&r, &back), "its header is malformed");
	r = nc_reader("PGDMP...........", 16);
	assert_string_equal(nc_record_read_header(&r, &back), "it is no recording of neon_comm");
	header = example_header();
	header.protocol_version = 4;
	w = nc_writer(file, sizeof(file));
	assert_true(nc_record_put_header(&w, &header));
	r = nc_reader(file, nc_writer_bytes(&w));
	assert_string_equal(nc_record_read_header(&r, &back), "its header is malformed");
}

/* ---- the recorder ---- */

static char top[64];

static NcRecorderSettings
settings_for(const char *name, uint64_t size_bytes)
{
	NcRecorderSettings s = {.size_bytes = size_bytes, .header = example_header()};

	snprintf(s.directory, sizeof(s.directory), "%s/%s", top, name);
	return s;
}

/* Waits until it has ended, one way or the other. */
static NcRecorderStatus
wait_for_end(NcRecorder *r)
{
	NcRecorderStatus status;

	for (;;)
	{
		nc_recorder_look(r, &status);
		if (status.state == NC_RECORDER_ENDED || status.state == NC_RECORDER_FAILED)
			return status;
		usleep(1000);
	}
}

static uint8_t *
slurp(const char *path, size_t *bytes)
{
	FILE	   *f = fopen(path, "r");
	struct stat st;
	uint8_t    *data;

	assert_non_null(f);
	assert_int_equal(fstat(fileno(f), &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	data = malloc((size_t) st.st_size + 1);
	*bytes = fread(data, 1, (size_t) st.st_size, f);
	assert_int_equal(*bytes, st.st_size);
	fclose(f);
	return data;
}

/* Counts what a file has; its last frame must be there. */
static uint64_t
count_file(const char *path, NcRecordEnd *end)
{
	size_t		bytes;
	uint8_t    *data = slurp(path, &bytes);
	NcReader	r = nc_reader(data, bytes);
	NcRecordHeader header;
	NcRecordFrame frame;
	uint64_t	n = 0;
	bool		ended = false;

	assert_null(nc_record_read_header(&r, &header));
	while (nc_record_read_frame(&r, &frame) == NC_RECORD_FRAME)
	{
		NcRecordReader rr;
		NcRecordMap map;
		NcRecord	record;

		ended = frame.tag == NC_RECORD_END && nc_record_read_end(&frame, end);
		if (ended)
			continue;
		assert_true(nc_record_open(&rr, &frame, &map));
		while (nc_record_next(&rr, &record) == 1)
			n++;
	}
	assert_true(ended);
	assert_int_equal(nc_reader_left(&r), 0);
	free(data);
	return n;
}

static void
put_some(NcRecorder *r, uint32_t n)
{
	NcRecord	record = {.start_us = 5000, .nblocks = 1, .kind = NC_REQ_GETPAGE};

	for (uint32_t i = 0; i < n; i++)
	{
		record = example_record(&record);
		/* nothing of before its beginning */
		record.start_us = 5000 + i;
		nc_recorder_put(r, &(NcRecordMap) {1 + i / 1000, 2048}, &record, 5000 + i);
	}
}

static void
test_a_recording_is_complete(void **state)
{
	NcRecorderSettings s = settings_for("complete", 64 << 20);
	NcRecorder *r = nc_recorder_start(&s, 5000);
	NcRecorderStatus status;
	NcRecordEnd end;

	assert_non_null(r);
	/* before it began, and one that no slot would ask */
	nc_recorder_put(r, &(NcRecordMap) {1, 1}, &(NcRecord) {.start_us = 4999, .nblocks = 1}, 6000);
	nc_recorder_put(r, &(NcRecordMap) {1, 1}, &(NcRecord) {.start_us = 5001, .nblocks = 40}, 6000);
	put_some(r, 3000);
	nc_recorder_stop(r, NC_RECORD_STOPPED);
	nc_recorder_put(r, &(NcRecordMap) {1, 1}, &(NcRecord) {.start_us = 5001, .nblocks = 1}, 6000);
	status = wait_for_end(r);
	assert_int_equal(status.state, NC_RECORDER_ENDED);
	assert_int_equal(status.why, NC_RECORD_STOPPED);
	assert_int_equal(status.records, 3000);
	assert_int_equal(status.dropped, 0);
	assert_int_equal(count_file(status.path, &end), 3000);
	assert_int_equal(end.records, 3000);
	assert_int_equal(end.why, NC_RECORD_STOPPED);
	nc_recorder_leave(r, 0);
}

/* A frame that is not full goes out, too: who dies takes a second with him, no more. */
static void
test_what_is_held_goes_out(void **state)
{
	NcRecorderSettings s = settings_for("held", 64 << 20);
	NcRecorder *r = nc_recorder_start(&s, 5000);
	NcRecorderStatus status;

	put_some(r, 1);
	nc_recorder_turn(r, 5000 + NC_RECORDER_HOLD_US - 1);
	nc_recorder_turn(r, 5000 + NC_RECORDER_HOLD_US);
	for (int i = 0; i < 30000 && (nc_recorder_look(r, &status), status.records == 0); i++)
		usleep(1000);
	assert_int_equal(status.records, 1);
	assert_int_equal(status.state, NC_RECORDER_RUNNING);
	nc_recorder_leave(r, 60000);
}

/* As fast as it goes: whatever the disk does, each record is in the file or counted. */
static void
test_nothing_is_lost_uncounted(void **state)
{
	NcRecorderSettings s = settings_for("fast", 256 << 20);
	NcRecorder *r = nc_recorder_start(&s, 5000);
	NcRecorderStatus status;
	NcRecordEnd end;

	put_some(r, 400000);
	nc_recorder_stop(r, NC_RECORD_STOPPED);
	status = wait_for_end(r);
	assert_int_equal(status.state, NC_RECORDER_ENDED);
	assert_int_equal(status.records + status.dropped, 400000);
	assert_int_equal(count_file(status.path, &end), status.records);
	assert_int_equal(end.dropped, status.dropped);
	nc_recorder_leave(r, 0);
}

static uint64_t
directory_bytes(const char *directory)
{
	DIR		   *dir = opendir(directory);
	struct dirent *entry;
	struct stat st;
	uint64_t	sum = 0;

	assert_non_null(dir);
	while ((entry = readdir(dir)) != NULL)
		if (entry->d_name[0] != '.' && fstatat(dirfd(dir), entry->d_name, &st, 0) == 0)
			sum += (uint64_t) st.st_size;
	closedir(dir);
	return sum;
}

static void
test_the_size_holds_for_all(void **state)
{
	NcRecorderSettings s = settings_for("bounded", 600000);
	NcRecorderStatus status;
	NcRecordEnd end;
	uint32_t	files = 0;

	for (;;)
	{
		NcRecorder *r = nc_recorder_start(&s, 5000);
		uint32_t	rounds = 0;

		do
		{
			put_some(r, 2000);
			nc_recorder_look(r, &status);
			/* a file that goes beyond the size is seen when it is ten times that */
			assert_true(status.bytes < 10 * s.size_bytes && ++rounds < 100000);
		} while (status.state <= NC_RECORDER_RUNNING);
		nc_recorder_leave(r, 0);
		if (status.state == NC_RECORDER_FAILED)
			break;
		assert_true(++files < 10);
		assert_int_equal(status.why, NC_RECORD_FULL);
		assert_int_equal(count_file(status.path, &end), status.records);
		assert_true(directory_bytes(s.directory) <= s.size_bytes);
	}
	assert_true(files >= 1);
	assert_non_null(strstr(status.error, "all of the room"));
}

static void
test_a_bad_directory_is_named(void **state)
{
	NcRecorderSettings s = settings_for("complete/nothing/there", 64 << 20);
	NcRecorder *r = nc_recorder_start(&s, 5000);
	NcRecorderStatus status;

	put_some(r, 100);
	status = wait_for_end(r);
	assert_int_equal(status.state, NC_RECORDER_FAILED);
	assert_non_null(strstr(status.error, "could not make directory"));
	assert_non_null(strstr(status.error, "complete/nothing/there"));
	assert_non_null(strstr(status.error, "No such file or directory"));
	assert_string_equal(status.path, "");
	/* more of them are nothing */
	put_some(r, 100000);
	nc_recorder_turn(r, 1 << 30);
	nc_recorder_leave(r, 0);
}

/* The disk is full: what was written until then can be read. */
static void
test_a_full_disk_leaves_a_shorter_recording(void **state)
{
	NcRecorderSettings s = settings_for("disk", 64 << 20);
	struct rlimit saved;
	struct rlimit small;
	NcRecorder *r;
	NcRecorderStatus status;
	size_t		bytes;
	uint8_t    *data;
	NcReader	reader;
	NcRecordHeader header;
	NcRecordFrame frame;

	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &saved), 0);
	small = saved;
	small.rlim_cur = 150000;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	r = nc_recorder_start(&s, 5000);
	do
	{
		put_some(r, 2000);
		nc_recorder_look(r, &status);
	} while (status.state <= NC_RECORDER_RUNNING);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &saved), 0);
	assert_int_equal(status.state, NC_RECORDER_FAILED);
	assert_non_null(strstr(status.error, "could not write"));
	data = slurp(status.path, &bytes);
	assert_int_equal(bytes, status.bytes);
	reader = nc_reader(data, bytes);
	assert_null(nc_record_read_header(&reader, &header));
	while (nc_record_read_frame(&reader, &frame) == NC_RECORD_FRAME)
		;
	assert_int_equal(nc_reader_left(&reader), 0);
	free(data);
	nc_recorder_leave(r, 0);
}

static int
make_top(void **state)
{
	snprintf(top, sizeof(top), "/tmp/nc_record.XXXXXX");
	return mkdtemp(top) == NULL;
}

static int
remove_top(void **state)
{
	char		command[128];

	snprintf(command, sizeof(command), "rm -rf '%s'", top);
	return system(command);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_is_written_is_read),
		cmocka_unit_test(test_a_scan_is_short),
		cmocka_unit_test(test_cut_anywhere_it_is_a_shorter_recording),
		cmocka_unit_test(test_any_damage_is_noticed),
		cmocka_unit_test(test_malformed_bodies_are_refused),
		cmocka_unit_test(test_headers_of_others_are_refused),
		cmocka_unit_test(test_a_recording_is_complete),
		cmocka_unit_test(test_what_is_held_goes_out),
		cmocka_unit_test(test_nothing_is_lost_uncounted),
		cmocka_unit_test(test_the_size_holds_for_all),
		cmocka_unit_test(test_a_bad_directory_is_named),
		cmocka_unit_test(test_a_full_disk_leaves_a_shorter_recording),
	};

	return cmocka_run_group_tests(tests, make_top, remove_top);
}
