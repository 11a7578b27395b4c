/*
 * fuzz_boot.c
 *	  Any bytes as a boot image: its tar, in pieces, with the texts in it.
 *
 * Checked: a reader that has failed stays so and calls nobody; names are good, content is
 * as long as was said; a description that is accepted is written as the same text; a
 * fork that is accepted has a good path.
 */
#include "nc/boot/image.h"
#include "nc/boot/tar.h"

#include <stdlib.h>
#include <string.h>

int			LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
check(bool fact)
{
	if (!fact)
		abort();
}

typedef struct Seen
{
	uint64_t	left;
	bool		open;
} Seen;

static bool
begin(void *arg, const NcTarEntry *entry)
{
	Seen	   *seen = arg;

	check(!seen->open && nc_tar_name_is_good(entry->name) && (!entry->directory || entry->bytes == 0));
	seen->open = true;
	seen->left = entry->bytes;
	return true;
}

static bool
content(void *arg, const uint8_t *data, size_t bytes)
{
	Seen	   *seen = arg;

	check(seen->open && bytes > 0 && bytes <= seen->left && data != NULL);
	seen->left -= bytes;
	return true;
}

static bool
end(void *arg)
{
	Seen	   *seen = arg;

	check(seen->open && seen->left == 0);
	seen->open = false;
	return true;
}

static void
as_tar(const uint8_t *data, size_t size, size_t piece)
{
	NcTarReader reader = {0};
	Seen		seen = {0};
	NcTarSink	sink = {&seen, begin, content, end};

	for (size_t at = 0; at < size; at += piece)
	{
		if (!nc_tar_read(&reader, &sink, data + at, size - at < piece ? size - at : piece))
			break;
	}
	if (reader.state == NC_TAR_FAILED)
		check(!nc_tar_read(&reader, &sink, data, size));
}

static void
as_description(const char *text, size_t bytes)
{
	static NcBootDescription d;
	static char again[NC_BOOT_DESCRIPTION_BYTES_MAX];

	if (nc_boot_description_parse(text, bytes, &d) != NULL)
		return;
	check(nc_boot_description_write(&d, again, sizeof(again)) == bytes && memcmp(again, text, bytes) == 0);
	check(nc_tar_name_is_good(d.tablespace_directory) && strchr(d.tablespace_directory, '/') == NULL);
}

static bool
one_fork(void *arg, const NcBootFork *fork)
{
	char		path[NC_BOOT_PATH_BYTES];

	check(nc_boot_fork_path(fork, "PG_15_202209061", fork->blocks, path) < sizeof(path));
	check(nc_tar_name_is_good(path));
	return true;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char	   *text = malloc(size + 1);
	NcBootForkReader forks = {0};

	if (text == NULL)
		return 0;
	memcpy(text, data, size);
	text[size] = '\0';
	as_tar(data, size, 1 + size / 3);
	as_tar(data, size, 700);
	as_description(text, size);
	if (nc_boot_fork_read(&forks, text, size, one_fork, NULL))
		(void) nc_boot_fork_read_done(&forks);
	free(text);
	return 0;
}
