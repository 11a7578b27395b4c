/*
 * test_identity.c
 *	  Identity: its texts, reading WAL, and a test for each rule of docs/identity.md.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "nc/identity/judge.h"

#define SEGMENT (64 * 1024)
#define WAL_BYTES (4 * SEGMENT)
#define FIRST ((NcLsn) SEGMENT)		/* the WAL of the tests begins here */

/* ---- WAL made by hand ---- */

static uint8_t wal[WAL_BYTES];
static NcLsn wal_end;

static void
put_u32(NcLsn at, uint32_t v)
{
	memcpy(&wal[at - FIRST], &v, sizeof(v));
}

static void
put_u64(NcLsn at, uint64_t v)
{
	memcpy(&wal[at - FIRST], &v, sizeof(v));
}

static NcLsn
page_header(NcLsn page, uint32_t remaining)
{
	put_u64(page + 8, page);
	put_u32(page + 16, remaining);
	return page + (page % SEGMENT == 0 ? 40 : 24);
}

static void
reset_wal(void)
{
	memset(wal, 0, sizeof(wal));
	wal_end = FIRST;
}

/* Appends a record of so many bytes, filled with `fill`; its start. */
static NcLsn
append(uint32_t length, uint8_t fill, uint8_t rmgr, uint8_t info)
{
	uint8_t    *record = malloc(length);
	NcLsn		start;
	NcLsn		at = wal_end;
	uint32_t	done = 0;

	if (at % NC_PAGE_BYTES == 0)
		at = page_header(at, 0);
	start = at;
	memset(record, fill, length);
	memcpy(record, &length, 4);
	record[16] = info;
	record[17] = rmgr;
	while (done < length)
	{
		uint32_t	part;

		if (at % NC_PAGE_BYTES == 0)
			at = page_header(at, length - done);
		part = NC_PAGE_BYTES - at % NC_PAGE_BYTES;
		if (part > length - done)
			part = length - done;
		memcpy(&wal[at - FIRST], record + done, part);
		at += part;
		done += part;
	}
	free(record);
	wal_end = (at + 7) & ~(NcLsn) 7;
	if (rmgr == 0 && info == 0x40)
		wal_end += (SEGMENT - wal_end % SEGMENT) % SEGMENT;
	return start;
}

static NcWalRead
read_wal(void *arg, NcLsn at, size_t bytes, uint8_t *to)
{
	NcLsn		gone_before = *(NcLsn *) arg;

	assert_int_equal(at / NC_PAGE_BYTES, (at + bytes - 1) / NC_PAGE_BYTES);
	if (at < FIRST || at < gone_before)
		return NC_WAL_GONE;
	if (at + bytes > FIRST + WAL_BYTES || at >= wal_end)
		return NC_WAL_BEYOND;
	memcpy(to, &wal[at - FIRST], bytes);
	return NC_WAL_OK;
}

static NcLsn gone_before;

static const NcWalSource source = {read_wal, &gone_before, SEGMENT};

static void
test_headers_cross_pages(void **state)
{
	uint8_t		header[NC_WAL_HEADER_BYTES];

	/* Records of 8 bytes more or less, so that a header is cut at every place it can be. */
	for (uint32_t cut = 8; cut <= 40; cut += 8)
	{
		NcLsn		start;

		reset_wal();
		append(NC_PAGE_BYTES - 40 - cut, 1, 1, 0);
		start = append(100, 7, 1, 0);
		assert_int_equal(nc_wal_read_header(&source, start, header), NC_WAL_OK);
		assert_int_equal(header[23], 7);
		assert_int_equal(header[8], 7);
		assert_int_equal(nc_wal_record_end(start, header, SEGMENT), wal_end);
	}
}

static void
test_ends_of_records(void **state)
{
	static const uint32_t lengths[] = {24, 25, 31, 32, 8152, 8153, 8160, 8200, 20000, 70000};
	uint8_t		header[NC_WAL_HEADER_BYTES];

	for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++)
	{
		NcLsn		start;

		reset_wal();
		start = append(lengths[i], 3, 1, 0);
		assert_int_equal(nc_wal_read_header(&source, start, header), NC_WAL_OK);
		assert_int_equal(nc_wal_record_end(start, header, SEGMENT), wal_end);
	}
	reset_wal();
	append(48, 3, 1, 0);
	assert_int_equal(nc_wal_read_header(&source, append(24, 0, 0, 0x40), header), NC_WAL_OK);
	assert_int_equal(nc_wal_record_end(FIRST + 88, header, SEGMENT), FIRST + SEGMENT);
	memset(header, 0, sizeof(header));
	assert_int_equal(nc_wal_record_end(FIRST + 88, header, SEGMENT), 0);
}

static void
test_last_record_is_found(void **state)
{
	static const uint32_t lengths[] = {64, 4000, 4065, 30, 8000, 24, 30000, 100, 8192, 48};
	uint8_t		header[NC_WAL_HEADER_BYTES];
	NcLsn		found;

	reset_wal();
	for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++)
	{
		NcLsn		start = append(lengths[i], (uint8_t) (i + 1), 1, 0);

		assert_int_equal(nc_wal_find_last(&source, wal_end, 8, &found, header), NC_WAL_OK);
		assert_int_equal(found, start);
		assert_int_equal(header[20], i + 1);
	}
	assert_int_equal(nc_wal_find_last(&source, wal_end - 8, 8, &found, header), NC_WAL_GONE);
}

/* ---- texts ---- */

static NcId
id_of(uint8_t n)
{
	NcId		id = {{0}};

	id.b[0] = 0xab;
	id.b[15] = n;
	return id;
}

/* Segments of 64 kB; a record of 150 kB begins in the first of four. */
static void
test_last_record_is_kept(void **state)
{
	NcLsn		before;
	NcLsn		start;
	NcLsn		end;

	reset_wal();
	append(100, 1, 1, 0);
	before = wal_end;
	start = append(150 * 1024, 2, 1, 0);
	end = wal_end;
	assert_int_equal(nc_wal_last_record_from(&source, before), FIRST);
	for (NcLsn at = before; at < end; at += 4000)
		assert_int_equal(nc_wal_last_record_from(&source, at), FIRST);
	assert_int_equal(nc_wal_last_record_from(&source, end), FIRST);
	assert_in_range(start, FIRST, FIRST + SEGMENT);
	append(100, 3, 1, 0);
	assert_int_equal(nc_wal_last_record_from(&source, wal_end - 8), FIRST);
	assert_int_equal(nc_wal_last_record_from(&source, wal_end), FIRST + 2 * SEGMENT);

	/* a switch ends at the start of a segment, where nothing has begun */
	append(24, 4, 0, 0x40);
	assert_int_equal(wal_end, FIRST + 3 * SEGMENT);
	assert_int_equal(nc_wal_last_record_from(&source, wal_end), FIRST + 2 * SEGMENT);
	append(100, 5, 1, 0);
	assert_int_equal(nc_wal_last_record_from(&source, wal_end - 8), FIRST + 2 * SEGMENT);
	assert_int_equal(nc_wal_last_record_from(&source, wal_end), FIRST + 3 * SEGMENT);

	gone_before = FIRST + SEGMENT;
	assert_int_equal(nc_wal_last_record_from(&source, end), FIRST);
	gone_before = 0;
}

static void
test_ids(void **state)
{
	NcId		a;
	NcId		b;
	char		text[NC_ID_TEXT];

	assert_true(nc_id_make(&a));
	assert_true(nc_id_make(&b));
	assert_false(nc_id_equal(&a, &b));
	assert_true(nc_id_parse(nc_id_text(&a, text), false, &b));
	assert_true(nc_id_equal(&a, &b));
	assert_true(nc_id_parse("-", true, &b));
	assert_true(nc_id_is_none(&b));
	assert_false(nc_id_parse("-", false, &b));
	assert_false(nc_id_parse("00000000000000000000000000000000", true, &b));
	assert_false(nc_id_parse("AB0000000000000000000000000000ff", true, &b));
	assert_false(nc_id_parse("ab0000000000000000000000000000ff ", true, &b));
	assert_false(nc_id_parse("ab", true, &b));
}

static void
test_join_text(void **state)
{
	NcEvidence	in = {.system_identifier = UINT64_MAX, .timeline = 1, .birth = id_of(1),
		.member = id_of(2), .incarnation = id_of(3), .start = 0x100000018, .end = 0x100000058,
	.chain = {7, UINT64_MAX}, .name = "page_server_0"};
	NcEvidence	out;
	char		text[NC_JOIN_BYTES_MAX];
	char		changed[NC_JOIN_BYTES_MAX + 8];
	size_t		bytes;

	memset(in.header, 0x5a, sizeof(in.header));
	bytes = nc_join_write(&in, text);
	assert_int_equal(bytes, strlen(text));
	assert_true(nc_join_parse(text, &out));
	assert_memory_equal(&in, &out, sizeof(in));
	snprintf(changed, sizeof(changed), "%s ", text);
	assert_false(nc_join_parse(changed, &out));
	for (size_t i = 0; i < bytes; i++)
	{
		snprintf(changed, sizeof(changed), "%.*s", (int) i, text);
		assert_false(nc_join_parse(changed, &out) && i < bytes - 13);
		strcpy(changed, text);
		changed[i] = '\n';
		assert_false(nc_join_parse(changed, &out));
	}
}

static void
test_join_answer_text(void **state)
{
	static NcJoinAnswer in;
	static NcJoinAnswer out;
	static char text[NC_JOIN_ANSWER_BYTES_MAX];
	size_t		bytes;

	memset(&in, 0, sizeof(in));
	in.kind = NC_JOINED;
	in.birth = id_of(1);
	in.chain = (NcChain) {1, 2};
	for (int i = 0; i < NC_JOIN_LINEAGE_MAX; i++)
	{
		NcId		id = id_of(0);

		memcpy(id.b + 4, &i, sizeof(i));
		nc_lineage_append(&in.lineage, &id, 0xffffffff00000000 + (NcLsn) i);
	}
	in.present = in.lineage.at[NC_JOIN_LINEAGE_MAX - 1];
	/* and as many members as there can be */
	in.members.now.write_quorum = 1;
	for (uint32_t i = 0; i < NC_MEMBERS_MAX; i++)
	{
		in.members.now.at[i].id = id_of((uint8_t) (i + 1));
		memset(in.members.now.at[i].name, 'n', NC_MEMBER_NAME_BYTES - 1);
		in.members.now.n++;
	}
	in.members.next = in.members.now;
	in.members.change = 0xffffffff;
	bytes = nc_join_answer_write(&in, text, sizeof(text));
	assert_true(bytes > 0);
	assert_true(nc_join_answer_parse(text, bytes, &out));
	assert_memory_equal(&in, &out, sizeof(in));
	assert_false(nc_join_answer_parse(text, bytes - 1, &out));
	assert_int_equal(nc_join_answer_write(&in, text, bytes), 0);

	memset(&in, 0, sizeof(in));
	in.kind = NC_PARTED;
	in.birth = id_of(1);
	in.present.id = id_of(2);
	strcpy(in.message, "they have parted");
	strcpy(in.detail, "Because.");
	strcpy(in.hint, "Do.");
	bytes = nc_join_answer_write(&in, text, sizeof(text));
	assert_true(nc_join_answer_parse(text, bytes, &out));
	assert_memory_equal(&in, &out, sizeof(in));
}

static void
test_reader_text(void **state)
{
	NcReaderIdentity in = {id_of(1), id_of(2)};
	NcReaderIdentity out;
	char		text[NC_READER_TEXT];
	char		options[200];

	assert_int_equal(strlen(nc_reader_text(&in, text)), NC_READER_TEXT - 1);
	assert_true(nc_reader_parse(text, &out));
	snprintf(options, sizeof(options), "-c a=b -c neon_comm_identity=%s -c c=d", text);
	assert_int_equal(nc_reader_from_options(options, &out), 1);
	assert_memory_equal(&in, &out, sizeof(in));
	assert_int_equal(nc_reader_from_options("-c a=b", &out), 0);
	assert_int_equal(nc_reader_from_options("-c neon_comm_identity=ab", &out), -1);
	snprintf(options, sizeof(options), "-c neon_comm_identity=%sx", text);
	assert_int_equal(nc_reader_from_options(options, &out), -1);
}

static NcComputeIdentity mine;
static NcMemberIdentity member;

static void
reset_identities(void)
{
	memset(&mine, 0, sizeof(mine));
	memset(&member, 0, sizeof(member));
	mine.birth = id_of(1);
	strcpy(mine.place, "m/1/b2.3");
	nc_lineage_append(&mine.lineage, &(NcId) {{1, 1}}, FIRST + 40);
	for (int i = 0; i < 3; i++)
		nc_session_give(&mine, &(NcId) {{0xab, [15] = 9}}, 4);
	member.member = id_of(9);
	member.birth = id_of(1);
	member.timeline = 1;
	strcpy(member.place, "m/2/b2.3");
	nc_lineage_append(&member.followed, &(NcId) {{1, 1}}, FIRST + 40);
	member.chain = (NcChain) {3, 4};
}

static void
stat_in(const char *directory, const char *name, struct stat *st)
{
	char		path[200];

	snprintf(path, sizeof(path), "%s/%s", directory, name);
	assert_int_equal(stat(path, st), 0);
}

/* ---- what is durable when ---- */

/* Set: the spare file that the next fsync of a directory is to find as it was. */
static const char *watched_spare;
static off_t watched_bytes;
static bool directory_first;

/* The program's own takes the place of the C library's. */
int
fsync(int fd)
{
	struct stat st;
	struct stat spare;

	if (watched_spare != NULL)
	{
		directory_first = fstat(fd, &st) == 0 && S_ISDIR(st.st_mode) &&
			stat(watched_spare, &spare) == 0 && spare.st_size == watched_bytes;
		watched_spare = NULL;
	}
	return (int) syscall(SYS_fsync, fd);
}

/* On disk the spare file may have the name still, until the directory is durable. */
static void
assert_names_are_durable_first(const char *directory)
{
	char		path[200];
	struct stat spare;

	snprintf(path, sizeof(path), "%s/%s.new", directory, NC_COMPUTE_IDENTITY);
	stat_in(directory, NC_COMPUTE_IDENTITY ".new", &spare);
	nc_lineage_append(&mine.lineage, &(NcId) {{4}}, 0);
	watched_bytes = spare.st_size;
	watched_spare = path;
	assert_true(nc_compute_identity_save(directory, &mine));
	assert_null(watched_spare);
	assert_true(directory_first);
}

/* Every text is written to blocks that are there already, as a full disk has no others. */
static void
assert_spare_is_used(const char *directory)
{
	struct stat file;
	struct stat spare;
	struct stat now;
	struct stat spare_now;
	static NcComputeIdentity out;
	const char *why;

	mine.booted = id_of(3);
	assert_true(nc_compute_identity_save(directory, &mine));
	assert_true(nc_compute_identity_save(directory, &mine));
	for (uint8_t life = 0; life < 10; life++)
	{
		stat_in(directory, NC_COMPUTE_IDENTITY, &file);
		stat_in(directory, NC_COMPUTE_IDENTITY ".new", &spare);
		nc_lineage_append(&mine.lineage, &(NcId) {{3, life}}, 0);
		assert_true(nc_compute_identity_save(directory, &mine));
		stat_in(directory, NC_COMPUTE_IDENTITY, &now);
		stat_in(directory, NC_COMPUTE_IDENTITY ".new", &spare_now);
		assert_int_equal(now.st_ino, spare.st_ino);
		assert_int_equal(spare_now.st_ino, file.st_ino);
		assert_true(now.st_blocks <= spare.st_blocks);
		assert_int_equal(nc_compute_identity_load(directory, &out, &why), NC_FILE_OK);
		assert_memory_equal(&out, &mine, sizeof(mine));
	}

	/* a shorter text leaves nothing of a longer one behind it */
	mine.lineage.n = 1;
	for (int i = 0; i < 2; i++)
	{
		assert_true(nc_compute_identity_save(directory, &mine));
		assert_int_equal(nc_compute_identity_load(directory, &out, &why), NC_FILE_OK);
		assert_memory_equal(&out.lineage.n, &mine.lineage.n, sizeof(out.lineage.n));
	}
}

/* What is no file is named, and nobody waits for who would write to it. */
static void
test_no_file(void **state)
{
	static NcComputeIdentity out;
	char		directory[] = "/tmp/nc_identity_XXXXXX";
	char		path[200];
	const char *why = NULL;

	/* who waits is ended */
	alarm(60);
	reset_identities();
	assert_non_null(mkdtemp(directory));
	snprintf(path, sizeof(path), "%s/%s", directory, NC_COMPUTE_IDENTITY);
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_int_equal(nc_compute_identity_load(directory, &out, &why), NC_FILE_INVALID);
	assert_string_equal(why, "it is not a regular file");
	assert_int_equal(unlink(path), 0);
	snprintf(path, sizeof(path), "%s/%s", directory, NC_COMPUTE_TAKEOVER);
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_false(nc_takeover_granted(directory, NC_COMPUTE_TAKEOVER, "word"));
	snprintf(path, sizeof(path), "%s/%s.new", directory, NC_COMPUTE_IDENTITY);
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_true(nc_compute_identity_save(directory, &mine));
	assert_int_equal(nc_compute_identity_load(directory, &out, &why), NC_FILE_OK);
	snprintf(path, sizeof(path), "rm -r %s", directory);
	assert_int_equal(system(path), 0);
	alarm(0);
}

static void
test_files(void **state)
{
	static NcComputeIdentity compute_out;
	static NcMemberIdentity member_out;
	char		directory[] = "/tmp/nc_identity_XXXXXX";
	char		place[NC_PLACE_BYTES];
	char		again[NC_PLACE_BYTES];
	char		word[NC_TAKEOVER_WORD];
	char		path[200];
	const char *why;
	FILE	   *file;

	reset_identities();
	mine.lineage.forgotten = true;
	nc_lineage_append(&mine.lineage, &(NcId) {{1, 2}}, 0);
	assert_true(nc_parted_add(&mine.parted, &(NcId) {{7}}, " a\nreason \n"));
	assert_false(nc_parted_add(&mine.parted, &(NcId) {{7}}, "another"));
	assert_string_equal(mine.parted.at[0].reason, "a reason");
	nc_parted_add(&member.refused, &(NcId) {{1, 5}}, "");
	member.promoted = true;

	assert_non_null(mkdtemp(directory));
	assert_int_equal(nc_compute_identity_load(directory, &compute_out, &why), NC_FILE_ABSENT);
	assert_true(nc_compute_identity_save(directory, &mine));
	assert_true(nc_member_identity_save(directory, &member));
	assert_int_equal(nc_compute_identity_load(directory, &compute_out, &why), NC_FILE_OK);
	assert_memory_equal(&compute_out, &mine, sizeof(mine));
	assert_int_equal(nc_member_identity_load(directory, &member_out, &why), NC_FILE_OK);
	assert_memory_equal(&member_out, &member, sizeof(member));

	assert_spare_is_used(directory);
	assert_names_are_durable_first(directory);

	assert_true(nc_place_of(directory, place));
	assert_true(nc_place_of(directory, again));
	assert_string_equal(place, again);
	assert_true(nc_place_of("/", again));
	assert_string_not_equal(place, again);

	nc_takeover_word("kept", place, word);
	assert_false(nc_takeover_granted(directory, NC_COMPUTE_TAKEOVER, word));
	snprintf(path, sizeof(path), "%s/%s", directory, NC_COMPUTE_TAKEOVER);
	file = fopen(path, "w");
	fprintf(file, "%s\n", word);
	fclose(file);
	assert_true(nc_takeover_granted(directory, NC_COMPUTE_TAKEOVER, word));
	assert_false(nc_takeover_granted(directory, NC_COMPUTE_TAKEOVER,
									 nc_takeover_word("kept", again, word)));
	assert_true(nc_takeover_done(directory, NC_COMPUTE_TAKEOVER));
	assert_int_not_equal(access(path, F_OK), 0);

	snprintf(path, sizeof(path), "%s/%s", directory, NC_COMPUTE_IDENTITY);
	file = fopen(path, "a");
	fprintf(file, "something\n");
	fclose(file);
	assert_int_equal(nc_compute_identity_load(directory, &compute_out, &why), NC_FILE_INVALID);
	assert_non_null(why);
	snprintf(path, sizeof(path), "rm -r %s", directory);
	assert_int_equal(system(path), 0);
}

static void
test_lineage_is_bounded(void **state)
{
	static NcLineage lineage;

	for (int i = 1; i <= NC_LINEAGE_MAX + 2; i++)
	{
		NcId		id = {{0}};

		memcpy(id.b, &i, sizeof(i));
		nc_lineage_append(&lineage, &id, (NcLsn) i);
	}
	assert_int_equal(lineage.n, NC_LINEAGE_MAX);
	assert_true(lineage.forgotten);
	assert_int_equal(lineage.at[0].began, 3);
	assert_int_equal(nc_lineage_next_began(&lineage, 0), 4);
	lineage.at[1].began = 0;
	assert_int_equal(nc_lineage_next_began(&lineage, 0), 5);
	assert_int_equal(nc_lineage_next_began(&lineage, NC_LINEAGE_MAX - 1), 0);
}

/* A compute that does not get out of recovery is started more often than there is room. */
static void
test_lineage_keeps_what_began(void **state)
{
	static NcLineage lineage;
	NcId		first = id_of(1);

	nc_lineage_append(&lineage, &first, 100);
	for (int i = 2; i <= 2 * NC_LINEAGE_MAX; i++)
	{
		NcId		id = {{0}};

		memcpy(&id.b[4], &i, sizeof(i));
		nc_lineage_append(&lineage, &id, 0);
	}
	assert_int_equal(lineage.n, NC_LINEAGE_MAX);
	assert_true(lineage.forgotten);
	assert_int_equal(nc_lineage_find(&lineage, &first), 0);
	assert_int_equal(lineage.at[0].began, 100);
	nc_lineage_append(&lineage, &first, 200);
	assert_int_equal(nc_lineage_next_began(&lineage, 0), 200);
}

/* ---- rules of the compute ---- */

static NcComputeView me;
static NcEvidence e;

/*
 * A compute in its second life, and a page server that replayed all of the first:
 * two records, then the second life began.
 */
static int
set_up(void **state)
{
	NcLsn		start;

	gone_before = 0;
	reset_wal();
	reset_identities();
	append(64, 1, 1, 0);
	start = append(64, 2, 1, 0);
	memset(&e, 0, sizeof(e));
	e = (NcEvidence) {.system_identifier = 5, .timeline = 1, .birth = id_of(1),
		.member = id_of(9), .incarnation = {{1, 1}}, .start = start, .end = wal_end,
	.chain = {3, 4}};
	assert_int_equal(nc_wal_read_header(&source, start, e.header), NC_WAL_OK);
	nc_lineage_append(&mine.lineage, &(NcId) {{1, 2}}, wal_end);
	append(64, 3, 1, 0);
	me = (NcComputeView) {.system_identifier = 5, .timeline = 1, .identity = &mine,
		.end = wal_end, .wal = source};
	return 0;
}

static void
expect(NcVerdictKind kind, NcReason reason)
{
	NcVerdict	v = nc_judge_member(&me, &e);

	assert_int_equal(v.reason, reason);
	assert_int_equal(v.kind, kind);
}

/* A second evidence: of the record that the running incarnation wrote. */
static void
follow_present(void)
{
	e.incarnation = (NcId) {{1, 2}};
	e.start = e.end;
	e.end = wal_end;
	assert_int_equal(nc_wal_read_header(&source, e.start, e.header), NC_WAL_OK);
	for (uint64_t i = 0; i < e.chain.number; i++)
		nc_session_give(&mine, &e.member, e.chain.random);
}

static void
test_agreement(void **state)
{
	expect(NC_JOINED, NC_REASON_NONE);
	follow_present();
	expect(NC_JOINED, NC_REASON_NONE);
}

static void
test_rule_1_birth(void **state)
{
	e.birth = id_of(2);
	expect(NC_REFUSED, NC_REASON_STRANGER);
	e.birth = id_of(1);
	e.system_identifier = 6;
	expect(NC_REFUSED, NC_REASON_STRANGER);
	e.system_identifier = 5;
	memset(&e.birth, 0, sizeof(e.birth));
	memset(&e.incarnation, 0, sizeof(e.incarnation));
	expect(NC_JOINED, NC_REASON_NONE);
	e.header[20] ^= 1;
	expect(NC_PARTED, NC_REASON_OTHER_RECORD);
}

static void
test_rule_2_remembered(void **state)
{
	nc_parted_add(&mine.parted, &e.member, "once");
	expect(NC_PARTED, NC_REASON_REMEMBERED);
	follow_present();
	expect(NC_PARTED, NC_REASON_REMEMBERED);
}

static void
test_rule_3_lineage(void **state)
{
	e.incarnation = (NcId) {{1, 7}};
	expect(NC_PARTED, NC_REASON_OTHER_LIFE);
	mine.lineage.forgotten = true;
	expect(NC_PARTED, NC_REASON_OTHER_LIFE);
	mine.lineage.at[0].began = e.end;
	expect(NC_REFUSED, NC_REASON_FORGOTTEN);
}

static void
test_rule_4_end(void **state)
{
	mine.lineage.at[1].began = e.end - 8;
	expect(NC_PARTED, NC_REASON_BEYOND_LIFE);
	mine.lineage.at[1].began = e.end;
	expect(NC_JOINED, NC_REASON_NONE);

	/* The last life has no next one. */
	me.end = e.end - 8;
	expect(NC_PARTED, NC_REASON_BEYOND);
	follow_present();
	expect(NC_REFUSED, NC_REASON_RESUMED);
	me.end = e.end;
	expect(NC_JOINED, NC_REASON_NONE);
}

/* A switch is on disk, and replayed, before the rest of its segment. */
static void
test_rule_4_switch(void **state)
{
	NcLsn		start = append(NC_WAL_HEADER_BYTES, 4, 0, 0x40);
	NcLsn		end = wal_end;

	e.incarnation = (NcId) {{1, 2}};
	e.chain.number = 0;
	e.start = start;
	e.end = end;
	assert_int_equal(nc_wal_read_header(&source, start, e.header), NC_WAL_OK);
	assert_int_equal(end % SEGMENT, 0);
	me.end = start + NC_WAL_HEADER_BYTES;
	expect(NC_JOINED, NC_REASON_NONE);
	/* also one that has not followed anybody yet, who would be parted for good */
	memset(&e.birth, 0, sizeof(e.birth));
	memset(&e.incarnation, 0, sizeof(e.incarnation));
	expect(NC_JOINED, NC_REASON_NONE);

	/* not the record itself, not more than it, and no other one there */
	me.end--;
	expect(NC_PARTED, NC_REASON_BEYOND);
	me.end++;
	e.end = end + 8;
	expect(NC_PARTED, NC_REASON_BEYOND);
	e.end = end;
	e.header[8] ^= 1;
	expect(NC_PARTED, NC_REASON_OTHER_RECORD);
}

static void
test_rule_4_in_recovery(void **state)
{
	mine.lineage.at[1].began = 0;
	me.in_recovery = true;
	me.end = FIRST + 40;
	expect(NC_JOINED, NC_REASON_NONE);

	/* Recovery ended earlier than the page server's end. */
	me.in_recovery = false;
	me.end = wal_end;
	mine.lineage.at[1].began = e.end - 64;
	assert_int_equal(nc_judge_member_again(&me, &e).reason, NC_REASON_BEYOND_LIFE);
	mine.lineage.at[1].began = e.end;
	assert_int_equal(nc_judge_member_again(&me, &e).kind, NC_JOINED);
}

static void
test_rule_5_record(void **state)
{
	e.header[23] ^= 1;
	expect(NC_PARTED, NC_REASON_OTHER_RECORD);
	follow_present();
	e.header[8] ^= 1;
	expect(NC_REFUSED, NC_REASON_RESUMED);
	e.header[8] ^= 1;
	gone_before = e.start + 8;
	expect(NC_REFUSED, NC_REASON_WAL_GONE);
	gone_before = 0;
	wal_end = e.start;
	expect(NC_REFUSED, NC_REASON_RESUMED);
}

/* It has lost the end of its WAL, not of its pages: less of the same is no other history. */
static void
test_rule_5_lost_tail(void **state)
{
	NcLsn		end = e.end;

	append(64, 4, 1, 0);
	append(64, 5, 1, 0);
	mine.lineage.at[1].began = me.end = wal_end;
	e.end = wal_end - 64;
	expect(NC_JOINED, NC_REASON_NONE);
	e.header[20] ^= 1;
	expect(NC_PARTED, NC_REASON_OTHER_RECORD);
	e.header[20] ^= 1;

	/* the end of its pages counts for the life that wrote them */
	mine.lineage.at[1].began = e.end - 64;
	expect(NC_PARTED, NC_REASON_BEYOND_LIFE);
	mine.lineage.at[1].began = e.end;
	expect(NC_JOINED, NC_REASON_NONE);

	/* a record that ends behind its end is no record that it has replayed */
	e.end = end - 8;
	expect(NC_PARTED, NC_REASON_OTHER_RECORD);
}

static void
test_rule_6_chain(void **state)
{
	/* of an earlier life */
	mine.sessions[0].chain.number = 2;
	expect(NC_PARTED, NC_REASON_OTHER_SESSION);
	mine.sessions[0].chain = (NcChain) {3, 5};
	expect(NC_PARTED, NC_REASON_OTHER_SESSION);
	mine.nsessions = 0;
	expect(NC_PARTED, NC_REASON_OTHER_SESSION);
	mine.nsessions = NC_SESSIONS_MAX;
	mine.sessions[0].member = id_of(77);
	expect(NC_JOINED, NC_REASON_NONE);
	mine.nsessions = 0;

	/* given by a directory that is lost: up to the life that the new one was laid in */
	mine.booted = mine.lineage.at[1].id;
	expect(NC_JOINED, NC_REASON_NONE);
	mine.booted = mine.lineage.at[0].id;
	expect(NC_JOINED, NC_REASON_NONE);
	e.incarnation = mine.lineage.at[1].id;
	expect(NC_REFUSED, NC_REASON_RESUMED);
	e.incarnation = mine.lineage.at[0].id;
	mine.booted = id_of(78);
	expect(NC_PARTED, NC_REASON_OTHER_SESSION);
	memset(&mine.booted, 0, sizeof(mine.booted));

	/* of the present one */
	follow_present();
	expect(NC_JOINED, NC_REASON_NONE);
	e.chain.number = 4;
	expect(NC_REFUSED, NC_REASON_RESUMED);
	e.chain = (NcChain) {3, 5};
	expect(NC_REFUSED, NC_REASON_RESUMED);
	e.chain.number = 2;
	expect(NC_JOINED, NC_REASON_NONE);

	/* a page server made anew from another one has had none */
	e.member = id_of(50);
	e.chain = (NcChain) {0, 0};
	expect(NC_JOINED, NC_REASON_NONE);
}

static void
test_rule_9_on_the_compute(void **state)
{
	e.timeline = 2;
	expect(NC_PARTED, NC_REASON_PROMOTED);
}

static void
test_every_verdict_has_texts(void **state)
{
	static NcJoinAnswer a;
	static NcJoinAnswer back;
	static char text[NC_JOIN_ANSWER_BYTES_MAX];

	for (int reason = NC_REASON_STRANGER; reason <= NC_REASON_UNJUDGED; reason++)
	{
		size_t		bytes;

		nc_join_answer_fill(&a, &me, &e, (NcVerdict) {NC_PARTED, (NcReason) reason, 77},
							(NcChain) {0, 0});
		bytes = nc_join_answer_write(&a, text, sizeof(text));
		assert_true(bytes > 0);
		assert_true(nc_join_answer_parse(text, bytes, &back));
		assert_memory_equal(&a, &back, sizeof(a));
		assert_null(strchr(a.message, '%'));
	}
}

/* ---- rules of the page server ---- */

static NcJoinAnswer answer;

static void
fill_joined(void)
{
	nc_join_answer_fill(&answer, &me, &e, nc_judge_member(&me, &e), (NcChain) {1, 11});
	assert_int_equal(answer.kind, NC_JOINED);
}

static void
test_rule_7_not_mine(void **state)
{
	fill_joined();
	assert_int_equal(nc_judge_compute(&member, 1, false, &answer).kind, NC_JOINED);
	answer.birth = id_of(2);
	assert_int_equal(nc_judge_compute(&member, 1, false, &answer).reason, NC_REASON_STRANGER);
	answer.birth = id_of(1);
	nc_lineage_append(&member.followed, &(NcId) {{1, 8}}, wal_end);
	assert_int_equal(nc_judge_compute(&member, 1, false, &answer).reason, NC_REASON_NOT_MINE);
	assert_true(nc_member_verdict_fill(&answer, nc_judge_compute(&member, 1, false, &answer)));
	assert_true(nc_member_refuse(&member, &answer));
	assert_false(nc_member_refuse(&member, &answer));
	member.followed.n--;
	assert_int_equal(nc_judge_compute(&member, 1, false, &answer).reason, NC_REASON_REMEMBERED);
	answer.kind = NC_REFUSED;
	assert_int_equal(nc_judge_compute(&member, 1, false, &answer).kind, NC_PARTED);
	member.refused.n = 0;
	assert_int_equal(nc_judge_compute(&member, 1, false, &answer).kind, NC_REFUSED);
}

static NcAccess
reader(uint8_t birth, uint8_t incarnation)
{
	NcReaderIdentity r = {id_of(birth), {{1, incarnation}}};
	char		reason[NC_REASON_BYTES];
	NcAccess	access = nc_judge_reader(&member, &r, reason);

	assert_int_equal(reason[0] != '\0', access == NC_ACCESS_END);
	return access;
}

static void
test_rule_8_newer_is_taken_over(void **state)
{
	assert_int_equal(reader(1, 1), NC_ACCESS_SERVE);
	assert_int_equal(reader(1, 2), NC_ACCESS_WAIT);
	fill_joined();
	nc_member_adopt(&member, &answer);
	assert_int_equal(member.followed.n, 2);
	assert_int_equal(member.chain.random, 11);
	assert_int_equal(reader(1, 2), NC_ACCESS_SERVE);
	assert_int_equal(reader(1, 1), NC_ACCESS_END);
	assert_int_equal(reader(2, 2), NC_ACCESS_END);

	/* A pending incarnation is completed by the next join, and not doubled. */
	member.followed.at[1].began = 0;
	nc_member_adopt(&member, &answer);
	assert_int_equal(member.followed.n, 2);
	assert_int_equal(member.followed.at[1].began, mine.lineage.at[1].began);
}

static void
test_rule_8_refused_is_not_served(void **state)
{
	memset(&answer, 0, sizeof(answer));
	answer.kind = NC_PARTED;
	answer.birth = id_of(1);
	answer.present.id = (NcId) {{1, 3}};
	strcpy(answer.message, "parted");
	assert_int_equal(nc_judge_compute(&member, 1, false, &answer).kind, NC_PARTED);
	assert_true(nc_member_refuse(&member, &answer));
	assert_int_equal(reader(1, 3), NC_ACCESS_END);

	/* One that was followed shares its name with the right one. */
	answer.present.id = (NcId) {{1, 1}};
	assert_false(nc_member_refuse(&member, &answer));
	assert_int_equal(reader(1, 1), NC_ACCESS_SERVE);
}

/* ---- promises ---- */

static NcId
numbered(uint32_t number, uint8_t random)
{
	NcId		id = {{0}};

	id.b[4] = (uint8_t) (number >> 8);
	id.b[5] = (uint8_t) number;
	id.b[15] = random;
	return id;
}

static void
test_order_of_incarnations(void **state)
{
	NcId		id;
	NcId		plain = id_of(1);
	NcId		a = numbered(255, 9);
	NcId		b = numbered(256, 1);
	NcId		c = numbered(256, 2);
	uint32_t	number;

	assert_true(nc_id_make_numbered(&id, 0x01020304));
	assert_true(nc_id_number(&id, &number));
	assert_int_equal(number, 0x01020304);
	assert_false(nc_id_number(&(NcId) {{0}}, &number));
	assert_false(nc_id_number(&plain, &number));
	assert_true(nc_id_newer(&b, &a));
	assert_false(nc_id_newer(&a, &b));
	assert_true(nc_id_newer(&c, &b));
	assert_false(nc_id_newer(&b, &b));
	assert_false(nc_id_newer(&b, &plain));
	assert_false(nc_id_newer(&plain, &a));
}

static void
test_promise_text(void **state)
{
	static NcPromise in;
	static NcPromise out;
	static NcMembers members;
	static NcMemberLists lists;
	static char text[NC_PROMISE_BYTES_MAX];
	size_t		bytes;

	memset(&in, 0, sizeof(in));
	bytes = nc_promise_write(&in, text, sizeof(text));
	assert_null(nc_promise_parse(text, bytes, &out));
	assert_memory_equal(&in, &out, sizeof(in));
	in.promised = numbered(7, 1);
	in.members.now.write_quorum = 65;
	for (uint32_t i = 0; i < NC_MEMBERS_MAX; i++)
	{
		in.members.now.at[i].id = numbered(1000 + i, 1);
		snprintf(in.members.now.at[i].name, NC_MEMBER_NAME_BYTES, "page_server_%u", i);
		in.members.now.n++;
	}
	bytes = nc_promise_write(&in, text, sizeof(text));
	assert_true(bytes > 0);
	assert_null(nc_promise_parse(text, bytes, &out));
	assert_memory_equal(&in, &out, sizeof(in));
	assert_int_equal(nc_members_takeover(&out.members.now), NC_MEMBERS_MAX - 65 + 1);
	assert_ptr_equal(nc_member_find(&out.members.now, &in.members.now.at[3].id), &out.members.now.at[3]);
	assert_null(nc_member_find(&out.members.now, &in.promised));
	for (size_t i = 0; i < bytes; i += 7)
		assert_true(nc_promise_parse(text, i, &out) != NULL || i == 0 || text[i - 1] == '\n');
	assert_int_equal(nc_promise_write(&in, text, bytes), 0);

	/* a change of members: an entry as it stands in a log, and the file of a compute */
	members = in.members.now;
	members.at[3].id = numbered(7777, 1);
	nc_members_first(&in.members, &members);
	assert_true(nc_members_change(&in.members));
	assert_ptr_equal(nc_member_of_any(&in.members, &members.at[3].id), &in.members.next.at[3]);
	assert_ptr_equal(nc_member_of_any(&in.members, &in.members.now.at[3].id), &in.members.now.at[3]);
	bytes = nc_members_write(&in.members, text, sizeof(text));
	assert_true(bytes > 0);
	assert_true(nc_members_parse(text, bytes, &lists));
	assert_memory_equal(&in.members, &lists, sizeof(lists));
	assert_false(nc_members_parse(text, bytes - 1, &lists));
	assert_false(nc_members_parse(text + 1, bytes - 1, &lists));
	assert_false(nc_members_parse(NC_MEMBERS_ENTRY, strlen(NC_MEMBERS_ENTRY), &lists));
	in.members.decided = 1;
	bytes = nc_promise_write(&in, text, sizeof(text));
	assert_null(nc_promise_parse(text, bytes, &out));
	assert_memory_equal(&in, &out, sizeof(in));
	lists = in.members;
	nc_members_second(&lists, true);
	assert_memory_equal(&lists.now, &in.members.now, sizeof(lists.now));
	nc_members_second(&in.members, false);
	assert_memory_equal(&in.members.now, &members, sizeof(members));
	assert_false(nc_members_change(&in.members));
	assert_int_equal(in.members.change, 2);
	bytes = nc_promise_write(&in, text, sizeof(text));
	assert_null(nc_promise_parse(text, bytes, &out));
	assert_memory_equal(&in, &out, sizeof(in));

	/* fewer members than have to confirm */
	in.members.now.n = 64;
	bytes = nc_promise_write(&in, text, sizeof(text));
	assert_non_null(nc_promise_parse(text, bytes, &out));
}

/* The compute goes on only if the promise is of its lineage. */
static void
test_promise_on_the_compute(void **state)
{
	char		text[NC_JOIN_BYTES_MAX];
	NcEvidence	back;

	e.promised = numbered(7, 1);
	expect(NC_REFUSED, NC_REASON_PROMISED);
	(void) nc_join_write(&e, text);
	assert_true(nc_join_parse(text, &back));
	assert_true(nc_id_equal(&back.promised, &e.promised));
	nc_lineage_append(&mine.lineage, &e.promised, wal_end);
	expect(NC_JOINED, NC_REASON_NONE);
}

static void
test_promise_on_the_page_server(void **state)
{
	NcId		none = {{0}};
	NcId		old = numbered(3, 1);
	NcId		promised = numbered(5, 1);
	NcId		newer = numbered(5, 2);
	char		reason[NC_REASON_BYTES];

	/* given to newer ones only, and again to the same */
	nc_lineage_append(&member.followed, &old, wal_end);
	assert_true(nc_promise_may_give(&member, &none, &promised));
	assert_false(nc_promise_may_give(&member, &none, &old));
	assert_true(nc_promise_may_give(&member, &promised, &promised));
	assert_true(nc_promise_may_give(&member, &promised, &newer));
	assert_false(nc_promise_may_give(&member, &newer, &promised));
	assert_false(nc_promise_may_give(&member, &none, &(NcId) {{1, 1}}));

	/* a lineage without it is that of an older compute, or of another */
	memset(&answer, 0, sizeof(answer));
	answer.kind = NC_JOINED;
	nc_lineage_append(&answer.lineage, &old, 8);
	assert_true(nc_promise_allows(&member, &none, &answer));
	assert_false(nc_promise_allows(&member, &promised, &answer));
	nc_lineage_append(&answer.lineage, &promised, 16);
	assert_true(nc_promise_allows(&member, &promised, &answer));
	/* also later, when lineages begin behind it */
	nc_lineage_append(&member.followed, &promised, 16);
	answer.lineage.n = 0;
	assert_true(nc_promise_allows(&member, &promised, &answer));
	assert_true(nc_member_verdict_fill(&answer, (NcVerdict) {NC_REFUSED, NC_REASON_PROMISED, 0}));
	/* a reader that was never followed, and is older than who is */
	assert_int_equal(nc_judge_reader(&member, &(NcReaderIdentity) {id_of(1), numbered(4, 1)}, reason), NC_ACCESS_END);
	assert_int_equal(nc_judge_reader(&member, &(NcReaderIdentity) {id_of(1), numbered(6, 1)}, reason), NC_ACCESS_WAIT);
}

static void
test_rule_10_unjudged(void **state)
{
	fill_joined();
	assert_int_equal(nc_judge_compute(&member, 1, true, &answer).kind, NC_REFUSED);
	assert_true(nc_member_verdict_fill(&answer, nc_judge_compute(&member, 1, true, &answer)));
	answer.kind = NC_PARTED;
	assert_int_equal(nc_judge_compute(&member, 1, true, &answer).kind, NC_PARTED);
}

static NcWalRecord
some_record(NcLsn start, uint8_t crc)
{
	NcWalRecord record = {.start = start};

	record.header[NC_WAL_HEADER_BYTES - 1] = crc;
	return record;
}

static void
test_rule_10_started_again(void **state)
{
	NcUnjudgedWal midway = {0};
	NcUnjudgedWal file = {.ends = true, .last = some_record(0x1000, 1)};
	NcWalRecord before = some_record(0xff0, 1);
	NcWalRecord other = some_record(0x1000, 2);
	NcWalRecord behind = some_record(0x1010, 1);

	/* the first start; a second one, after which it ended midway, or came to the end */
	assert_int_equal(nc_unjudged_begin(NULL), NC_UNJUDGED_REPLAYED);
	assert_int_equal(nc_unjudged_begin(&midway), NC_UNJUDGED_OTHER);
	assert_int_equal(nc_unjudged_begin(&file), NC_UNJUDGED_AHEAD);

	assert_int_equal(nc_unjudged_met(&file, &before), NC_UNJUDGED_AHEAD);
	assert_int_equal(nc_unjudged_met(&file, &file.last), NC_UNJUDGED_REPLAYED);
	assert_int_equal(nc_unjudged_met(&file, &other), NC_UNJUDGED_OTHER);
	assert_int_equal(nc_unjudged_met(&file, &behind), NC_UNJUDGED_OTHER);

	assert_true(nc_unjudged_answered(NC_UNJUDGED_REPLAYED, &midway, &before));
	assert_false(nc_unjudged_answered(NC_UNJUDGED_AHEAD, &midway, &before));
	assert_false(nc_unjudged_answered(NC_UNJUDGED_OTHER, &midway, &behind));

	/* nothing was replayed since the start */
	assert_true(nc_unjudged_answered(NC_UNJUDGED_NONE, NULL, &before));
	assert_false(nc_unjudged_answered(NC_UNJUDGED_NONE, &midway, &before));
	assert_true(nc_unjudged_answered(NC_UNJUDGED_NONE, &file, &file.last));
	assert_false(nc_unjudged_answered(NC_UNJUDGED_NONE, &file, &other));
}

/* Its first version was an empty file. */
static void
test_unjudged_file(void **state)
{
	char		directory[] = "/tmp/nc_identity_XXXXXX";
	char		command[200];
	NcUnjudgedWal wal = {.ends = true, .last = some_record(0x1234567890, 7)};
	NcUnjudgedWal out;
	const char *why;
	FILE	   *file;

	assert_non_null(mkdtemp(directory));
	assert_int_equal(nc_unjudged_load(directory, &out, &why), NC_FILE_ABSENT);
	assert_true(nc_unjudged_save(directory, &wal));
	assert_int_equal(nc_unjudged_load(directory, &out, &why), NC_FILE_OK);
	assert_true(out.ends);
	assert_int_equal(out.last.start, wal.last.start);
	assert_memory_equal(out.last.header, wal.last.header, NC_WAL_HEADER_BYTES);
	assert_true(nc_unjudged_save(directory, &(NcUnjudgedWal) {0}));
	assert_int_equal(nc_unjudged_load(directory, &out, &why), NC_FILE_OK);
	assert_false(out.ends);
	snprintf(command, sizeof(command), "%s/%s", directory, NC_MEMBER_UNJUDGED);
	file = fopen(command, "w");
	assert_non_null(file);
	fprintf(file, "neon_page_service unjudged 2\n");
	fclose(file);
	assert_int_equal(nc_unjudged_load(directory, &out, &why), NC_FILE_INVALID);
	snprintf(command, sizeof(command), "rm -r %s", directory);
	assert_int_equal(system(command), 0);
}

static void
test_rule_9_promoted(void **state)
{
	fill_joined();
	assert_int_equal(nc_judge_compute(&member, 2, false, &answer).reason, NC_REASON_PROMOTED);
	member.promoted = true;
	assert_int_equal(nc_judge_compute(&member, 1, false, &answer).reason, NC_REASON_PROMOTED);
	assert_int_equal(reader(1, 1), NC_ACCESS_END);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_headers_cross_pages),
		cmocka_unit_test(test_ends_of_records),
		cmocka_unit_test(test_last_record_is_found),
		cmocka_unit_test(test_last_record_is_kept),
		cmocka_unit_test(test_ids),
		cmocka_unit_test(test_join_text),
		cmocka_unit_test(test_join_answer_text),
		cmocka_unit_test(test_reader_text),
		cmocka_unit_test(test_files),
		cmocka_unit_test(test_no_file),
		cmocka_unit_test(test_lineage_is_bounded),
		cmocka_unit_test(test_lineage_keeps_what_began),
		cmocka_unit_test_setup(test_agreement, set_up),
		cmocka_unit_test_setup(test_rule_1_birth, set_up),
		cmocka_unit_test_setup(test_rule_2_remembered, set_up),
		cmocka_unit_test_setup(test_rule_3_lineage, set_up),
		cmocka_unit_test_setup(test_rule_4_end, set_up),
		cmocka_unit_test_setup(test_rule_4_switch, set_up),
		cmocka_unit_test_setup(test_rule_4_in_recovery, set_up),
		cmocka_unit_test_setup(test_rule_5_record, set_up),
		cmocka_unit_test_setup(test_rule_5_lost_tail, set_up),
		cmocka_unit_test_setup(test_rule_6_chain, set_up),
		cmocka_unit_test_setup(test_rule_7_not_mine, set_up),
		cmocka_unit_test_setup(test_rule_8_newer_is_taken_over, set_up),
		cmocka_unit_test_setup(test_rule_8_refused_is_not_served, set_up),
		cmocka_unit_test_setup(test_rule_9_on_the_compute, set_up),
		cmocka_unit_test_setup(test_rule_9_promoted, set_up),
		cmocka_unit_test_setup(test_rule_10_unjudged, set_up),
		cmocka_unit_test(test_rule_10_started_again),
		cmocka_unit_test(test_order_of_incarnations),
		cmocka_unit_test(test_promise_text),
		cmocka_unit_test_setup(test_promise_on_the_compute, set_up),
		cmocka_unit_test_setup(test_promise_on_the_page_server, set_up),
		cmocka_unit_test(test_unjudged_file),
		cmocka_unit_test_setup(test_every_verdict_has_texts, set_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
