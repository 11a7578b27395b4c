/*
 * Proves of a boot image that its tar comes back whatever pieces it comes in, that no
 * name leads out of the directory, that a tar that is cut off or changed is noticed, and
 * that its texts are understood as they were written and not otherwise.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "nc/boot/image.h"
#include "nc/boot/tar.h"

/* ---- a sink that writes down what it is told ---- */

typedef struct Told
{
	char		text[4096];
	bool		refuse;			/* the next entry */
	size_t		content;
} Told;

static bool
told_begin(void *arg, const NcTarEntry *entry)
{
	Told	   *told = arg;
	size_t		used = strlen(told->text);

	snprintf(told->text + used, sizeof(told->text) - used, "%s%s %d:", entry->name,
			 entry->directory ? "/" : "", (int) entry->bytes);
	return !told->refuse;
}

static bool
told_content(void *arg, const uint8_t *data, size_t bytes)
{
	Told	   *told = arg;

	assert_true(bytes > 0);
	strncat(told->text, (const char *) data, bytes < 20 ? bytes : 0);
	told->content += bytes;
	return true;
}

static bool
told_end(void *arg)
{
	strcat(((Told *) arg)->text, ";");
	return true;
}

static NcTarSink
sink_of(Told *told)
{
	memset(told, 0, sizeof(*told));
	return (NcTarSink) {told, told_begin, told_content, told_end};
}

/* Appends an entry; returns the new length. */
static size_t
add(uint8_t *tar, size_t at, const char *name, const char *content)
{
	NcTarEntry	entry = {.directory = content == NULL, .bytes = content == NULL ? 0 : strlen(content)};

	snprintf(entry.name, sizeof(entry.name), "%s", name);
	assert_true(nc_tar_header(&entry, tar + at));
	at += NC_TAR_BLOCK_BYTES;
	if (content == NULL)
		return at;
	memcpy(tar + at, content, entry.bytes);
	memset(tar + at + entry.bytes, 0, nc_tar_padding(entry.bytes));
	return at + entry.bytes + nc_tar_padding(entry.bytes);
}

static uint8_t tar[64 * 1024];

static size_t
example(void)
{
	size_t		n = add(tar, 0, "neon_boot", "words");

	n = add(tar, n, "base", NULL);
	n = add(tar, n, "base/5", NULL);
	n = add(tar, n, "base/5/PG_VERSION", "15\n");
	n = add(tar, n, "empty", "");
	memset(tar + n, 0, NC_TAR_END_BYTES);
	return n + NC_TAR_END_BYTES;
}

static const char *const example_told =
	"neon_boot 5:words;base/ 0:;base/5/ 0:;base/5/PG_VERSION 3:15\n;empty 0:;";

/* ---- tar ---- */

static void
test_tar_in_pieces(void **state)
{
	size_t		bytes = example();

	for (size_t piece = 1; piece < 2000; piece += piece < 20 ? 1 : 97)
	{
		NcTarReader reader = {0};
		Told		told;
		NcTarSink	sink = sink_of(&told);

		for (size_t at = 0; at < bytes; at += piece)
			assert_true(nc_tar_read(&reader, &sink, tar + at, bytes - at < piece ? bytes - at : piece));
		assert_int_equal(reader.state, NC_TAR_ENDED);
		assert_int_equal(told.content, 8);
		if (piece >= 20)
			assert_string_equal(told.text, example_told);
	}
}

static void
test_tar_cut_off(void **state)
{
	size_t		bytes = example();

	for (size_t n = 0; n < bytes - NC_TAR_BLOCK_BYTES; n += 100)
	{
		NcTarReader reader = {0};
		Told		told;
		NcTarSink	sink = sink_of(&told);

		assert_true(nc_tar_read(&reader, &sink, tar, n));
		assert_int_not_equal(reader.state, NC_TAR_ENDED);
	}
}

/* Every changed bit of a header is noticed, or changes nothing that is read. */
static void
test_tar_changed(void **state)
{
	size_t		bytes = example();

	for (int at = 0; at < NC_TAR_BLOCK_BYTES; at++)
	{
		NcTarReader reader = {0};
		Told		told;
		NcTarSink	sink = sink_of(&told);
		bool		ok;

		tar[at] ^= 4;
		ok = nc_tar_read(&reader, &sink, tar, bytes);
		tar[at] ^= 4;
		if (ok)
			assert_string_equal(told.text, example_told);
		else
			assert_non_null(reader.why);
	}
}

static void
test_tar_sink_ends_it(void **state)
{
	size_t		bytes = example();
	NcTarReader reader = {0};
	Told		told;
	NcTarSink	sink = sink_of(&told);

	told.refuse = true;
	assert_false(nc_tar_read(&reader, &sink, tar, bytes));
	assert_null(reader.why);
	assert_string_equal(told.text, "neon_boot 5:");
	assert_false(nc_tar_read(&reader, &sink, tar, bytes));
	assert_string_equal(told.text, "neon_boot 5:");
}

static void
test_names(void **state)
{
	static const char *const good[] = {"a", "base/5/1259_fsm.1", "pg_wal/00000001", "a..b", ".a", "a-b"};
	static const char *const bad[] = {"", "/a", "a/", "a//b", "..", "../a", "a/../b", "a/.", "./a", "a\\b", "a b", "a\nb", "\xc3\xa4"};
	NcTarEntry	entry = {.directory = true};
	uint8_t		block[NC_TAR_BLOCK_BYTES];

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		assert_true(nc_tar_name_is_good(good[i]));
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_false(nc_tar_name_is_good(bad[i]));
	strcpy(entry.name, "../a");
	assert_false(nc_tar_header(&entry, block));
	memset(entry.name, 'a', NC_TAR_NAME_BYTES - 1);
	assert_false(nc_tar_header(&entry, block));
	entry.name[NC_TAR_NAME_BYTES - 2] = '\0';
	assert_true(nc_tar_header(&entry, block));
	entry.directory = false;
	entry.bytes = NC_TAR_FILE_BYTES_MAX;
	assert_true(nc_tar_header(&entry, block));
	entry.bytes++;
	assert_false(nc_tar_header(&entry, block));
}

/* A header that is right in itself, with another name or kind. */
static void
expect_refused(int at, const char *text, const char *why)
{
	NcTarReader reader = {0};
	Told		told;
	NcTarSink	sink = sink_of(&told);
	unsigned	sum = 8 * ' ';
	char		digits[8];

	(void) example();
	memcpy(tar + at, text, strlen(text));
	for (int i = 0; i < NC_TAR_BLOCK_BYTES; i++)
		sum += i >= 148 && i < 156 ? 0 : tar[i];
	snprintf(digits, sizeof(digits), "%06o", sum);
	memcpy(tar + 148, digits, 7);
	assert_false(nc_tar_read(&reader, &sink, tar, NC_TAR_BLOCK_BYTES));
	assert_string_equal(reader.why, why);
	assert_string_equal(told.text, "");
}

static void
test_tar_hostile(void **state)
{
	expect_refused(0, "../../etc", "a name leads elsewhere");
	expect_refused(0, "/", "a name leads elsewhere");
	expect_refused(156, "2", "an entry is neither a file nor a directory");
	expect_refused(156, "1", "an entry is neither a file nor a directory");
	expect_refused(156, "x", "an entry is neither a file nor a directory");
	expect_refused(345, "prefix", "a header is of another kind of tar");
	expect_refused(257, "other", "a header is of another kind of tar");
	expect_refused(124, "77777777777", "an entry has an impossible size");
	expect_refused(124, "9", "an entry has an impossible size");
}

/* ---- the description ---- */

static NcBootDescription d;
static NcBootDescription back;
static char text[NC_BOOT_DESCRIPTION_BYTES_MAX];

static void
describe(uint32_t lives)
{
	memset(&d, 0, sizeof(d));
	d.system_identifier = UINT64_C(7291234567890123456);
	d.timeline = 1;
	d.segment_bytes = 16 * 1024 * 1024;
	d.checksums = true;
	strcpy(d.tablespace_directory, "PG_15_202209061");
	d.cut = UINT64_C(0x1A00000028);
	d.checkpoint = UINT64_C(0x1A00000028);
	memset(d.birth.b, 0xb1, NC_ID_BYTES);
	for (uint32_t i = 0; i < lives; i++)
	{
		NcId		id = {{0x33, (uint8_t) (i >> 8), (uint8_t) i}};

		nc_lineage_append(&d.lineage, &id, i % 7 == 0 ? 0 : UINT64_C(0x100000000) * i + 16);
	}
}

static void
test_description_round_trip(void **state)
{
	static const uint32_t lives[] = {0, 1, 2, 100, NC_LINEAGE_MAX};

	for (size_t i = 0; i < sizeof(lives) / sizeof(lives[0]); i++)
	{
		size_t		bytes;

		describe(lives[i]);
		d.lineage.forgotten = i % 2 == 0;
		bytes = nc_boot_description_write(&d, text, sizeof(text));
		assert_true(bytes > 0);
		assert_null(nc_boot_description_parse(text, bytes, &back));
		assert_memory_equal(&back, &d, sizeof(d));
	}
}

static void
test_description_changed(void **state)
{
	size_t		bytes;

	describe(3);
	bytes = nc_boot_description_write(&d, text, sizeof(text));
	for (size_t n = 0; n < bytes; n++)
	{
		char		was = text[n];

		text[n] = '\0';
		assert_non_null(nc_boot_description_parse(text, n, &back));
		text[n] = '\n' == was ? ' ' : '\n';
		assert_non_null(nc_boot_description_parse(text, bytes, &back));
		text[n] = was;
	}
	strcat(text, "end\n");
	assert_non_null(nc_boot_description_parse(text, strlen(text), &back));
	assert_int_equal(nc_boot_description_write(&d, text, bytes), 0);
	assert_int_equal(nc_boot_description_write(&d, text, bytes + 1), bytes);
}

static void
refuses_description(void)
{
	size_t		bytes = nc_boot_description_write(&d, text, sizeof(text));

	assert_non_null(nc_boot_description_parse(text, bytes, &back));
}

static void
test_description_impossible(void **state)
{
	describe(1);
	d.segment_bytes = 16 * 1024 * 1024 + 1;
	refuses_description();
	describe(1);
	d.checkpoint = d.cut - 8;
	refuses_description();
	describe(1);
	d.cut = 0;
	refuses_description();
	describe(1);
	d.timeline = 0;
	refuses_description();
	describe(1);
	memset(&d.birth, 0, sizeof(d.birth));
	refuses_description();

	/* a part of paths that leads elsewhere */
	describe(1);
	strcpy(d.tablespace_directory, "PG_15/../../..");
	refuses_description();
	strcpy(d.tablespace_directory, "..");
	refuses_description();
	strcpy(d.tablespace_directory, "PG_18_202506291");
	assert_null(nc_boot_description_parse(text, nc_boot_description_write(&d, text, sizeof(text)), &back));
}

/* ---- lengths ---- */

static bool
sum_fork(void *arg, const NcBootFork *fork)
{
	*(uint64_t *) arg += fork->blocks;
	return fork->rel != 99;
}

static void
test_forks(void **state)
{
	static const NcBootFork forks[] = {{1663, 5, 1259, 14}, {1664, 0, 1262, 0},
	{UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX}};
	char		all[200] = "";
	char		line[NC_BOOT_FORK_BYTES];
	size_t		bytes = 0;

	for (int i = 0; i < 3; i++)
	{
		bytes += nc_boot_fork_write(&forks[i], line);
		strcat(all, line);
	}
	assert_int_equal(bytes, strlen(all));
	for (size_t piece = 1; piece <= bytes; piece++)
	{
		NcBootForkReader reader = {0};
		uint64_t	sum = 0;

		for (size_t at = 0; at < bytes; at += piece)
			assert_true(nc_boot_fork_read(&reader, all + at, bytes - at < piece ? bytes - at : piece, sum_fork, &sum));
		assert_true(nc_boot_fork_read_done(&reader));
		assert_int_equal(sum, (uint64_t) UINT32_MAX + 14);
	}
}

static void
test_forks_refused(void **state)
{
	static const char *const bad[] = {"1663 5 0 1\n", "1664 5 1262 1\n", "1663 0 1262 1\n", "0 5 1262 1\n", "\n",
		"1663 5 1259\n", "1663 5 1259 1 \n", "01663 5 1259 1\n", "1663  5 1259 1\n", "1663 5 1259 -1\n",
		"1663 5 1259 4294967296\n", "1663 5 99 1\n", "x\n",
	"1111111111111111111111111111111111111111111111111111111111111"};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
	{
		NcBootForkReader reader = {0};
		uint64_t	sum = 0;

		assert_false(nc_boot_fork_read(&reader, bad[i], strlen(bad[i]), sum_fork, &sum));
	}
	{
		NcBootForkReader reader = {0};
		uint64_t	sum = 0;

		assert_true(nc_boot_fork_read(&reader, "1663 5 1259 1", 13, sum_fork, &sum));
		assert_false(nc_boot_fork_read_done(&reader));
	}
}

static void
expect_path(NcBootFork fork, uint32_t segment, const char *expected)
{
	char		path[NC_BOOT_PATH_BYTES];

	assert_int_equal(nc_boot_fork_path(&fork, "PG_15_202209061", segment, path), strlen(expected));
	assert_string_equal(path, expected);
}

static void
test_fork_paths(void **state)
{
	expect_path((NcBootFork) {1664, 0, 1262, 1}, 0, "global/1262");
	expect_path((NcBootFork) {1663, 5, 16384, 1}, 0, "base/5/16384");
	expect_path((NcBootFork) {1663, 5, 16384, 1}, 3, "base/5/16384.3");
	expect_path((NcBootFork) {20000, 5, 16384, 1}, 1, "pg_tblspc/20000/PG_15_202209061/5/16384.1");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_tar_in_pieces),
		cmocka_unit_test(test_tar_cut_off),
		cmocka_unit_test(test_tar_changed),
		cmocka_unit_test(test_tar_sink_ends_it),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_tar_hostile),
		cmocka_unit_test(test_description_round_trip),
		cmocka_unit_test(test_description_changed),
		cmocka_unit_test(test_description_impossible),
		cmocka_unit_test(test_forks),
		cmocka_unit_test(test_forks_refused),
		cmocka_unit_test(test_fork_paths),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
