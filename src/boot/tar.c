/*
 * tar.c
 *	  Headers of a tar, written and read.
 */
#include "nc/boot/tar.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

/* Fields of a ustar header: where they begin, how long they are. */
#define MODE_AT 100
#define OWNER_AT 108
#define GROUP_AT 116
#define BYTES_AT 124
#define BYTES_DIGITS 11
#define TIME_AT 136
#define CHECKSUM_AT 148
#define CHECKSUM_BYTES 8
#define TYPE_AT 156
#define MAGIC_AT 257
#define PREFIX_AT 345

/* ---- names ---- */

static bool
part_is_good(const char *part, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++)
	{
		if (!isalnum((unsigned char) part[i]) && strchr("_-.", part[i]) == NULL)
			return false;
	}
	return bytes > 0 && !(bytes == 1 && part[0] == '.') && !(bytes == 2 && memcmp(part, "..", 2) == 0);
}

bool
nc_tar_name_is_good(const char *name)
{
	for (;;)
	{
		size_t		bytes = strcspn(name, "/");

		if (!part_is_good(name, bytes))
			return false;
		if (name[bytes] == '\0')
			return true;
		name += bytes + 1;
	}
}

/* ---- headers ---- */

/* The sum of all bytes, those of the sum itself taken as blanks. */
static unsigned
tar_checksum(const uint8_t *header)
{
	unsigned	sum = CHECKSUM_BYTES * ' ';

	for (int i = 0; i < NC_TAR_BLOCK_BYTES; i++)
	{
		if (i < CHECKSUM_AT || i >= CHECKSUM_AT + CHECKSUM_BYTES)
			sum += header[i];
	}
	return sum;
}

static void
put_octal(uint8_t *to, int digits, uint64_t value)
{
	for (int i = digits - 1; i >= 0; i--)
	{
		to[i] = (uint8_t) ('0' + (value & 7));
		value >>= 3;
	}
}

bool
nc_tar_header(const NcTarEntry *entry, uint8_t to[NC_TAR_BLOCK_BYTES])
{
	size_t		length = strlen(entry->name);

	if (length + 1 >= NC_TAR_NAME_BYTES || !nc_tar_name_is_good(entry->name) ||
		entry->bytes > (entry->directory ? 0 : NC_TAR_FILE_BYTES_MAX))
		return false;
	memset(to, 0, NC_TAR_BLOCK_BYTES);
	memcpy(to, entry->name, length);
	if (entry->directory)
		to[length] = '/';
	put_octal(to + MODE_AT, 7, entry->directory ? 0700 : 0600);
	put_octal(to + OWNER_AT, 7, 0);
	put_octal(to + GROUP_AT, 7, 0);
	put_octal(to + BYTES_AT, BYTES_DIGITS, entry->bytes);
	put_octal(to + TIME_AT, 11, 0);
	to[TYPE_AT] = entry->directory ? '5' : '0';
	memcpy(to + MAGIC_AT, "ustar\00000", 8);
	put_octal(to + CHECKSUM_AT, 6, tar_checksum(to));
	to[CHECKSUM_AT + 7] = ' ';
	return true;
}

size_t
nc_tar_padding(uint64_t bytes)
{
	return (size_t) (-bytes % NC_TAR_BLOCK_BYTES);
}

/* Octal digits up to a blank or a NUL; false for anything else. */
static bool
get_octal(const uint8_t *from, int digits, uint64_t *value)
{
	*value = 0;
	for (int i = 0; i < digits && from[i] != '\0' && from[i] != ' '; i++)
	{
		if (from[i] < '0' || from[i] > '7')
			return false;
		*value = *value << 3 | (uint64_t) (from[i] - '0');
	}
	return true;
}

/* What is wrong with the header in the reader's block, or NULL: the entry is filled. */
static const char *
parse_header(NcTarReader *r)
{
	NcTarEntry *e = &r->entry;
	uint64_t	sum;
	size_t		length;

	memset(e, 0, sizeof(*e));
	if (!get_octal(r->block + CHECKSUM_AT, CHECKSUM_BYTES, &sum) || sum != tar_checksum(r->block))
		return "a header has a wrong checksum";
	if (memcmp(r->block + MAGIC_AT, "ustar", 5) != 0 || r->block[PREFIX_AT] != '\0')
		return "a header is of another kind of tar";
	/* Neon's page servers say NUL of files */
	if (r->block[TYPE_AT] != '0' && r->block[TYPE_AT] != '5' && r->block[TYPE_AT] != '\0')
		return "an entry is neither a file nor a directory";
	e->directory = r->block[TYPE_AT] == '5';
	memcpy(e->name, r->block, NC_TAR_NAME_BYTES);
	if (e->name[NC_TAR_NAME_BYTES - 1] != '\0')
		return "a name is too long";
	length = strlen(e->name);
	if (e->directory && length > 0 && e->name[length - 1] == '/')
		e->name[length - 1] = '\0';
	if (!nc_tar_name_is_good(e->name))
		return "a name leads elsewhere";
	if (!get_octal(r->block + BYTES_AT, BYTES_DIGITS + 1, &e->bytes) ||
		e->bytes > (e->directory ? 0 : NC_TAR_FILE_BYTES_MAX))
		return "an entry has an impossible size";
	return NULL;
}

/* ---- reading ---- */

static void
fail(NcTarReader *r, const char *why)
{
	r->state = NC_TAR_FAILED;
	r->why = why;
}

static bool
block_is_zero(const uint8_t *block)
{
	return block[0] == 0 && memcmp(block, block + 1, NC_TAR_BLOCK_BYTES - 1) == 0;
}

static void
end_entry(NcTarReader *r, const NcTarSink *sink)
{
	if (!sink->end(sink->arg))
		return fail(r, NULL);
	r->left = nc_tar_padding(r->entry.bytes);
	r->state = r->left > 0 ? NC_TAR_PADDING : NC_TAR_HEADER;
}

static void
take_header(NcTarReader *r, const NcTarSink *sink)
{
	const char *why;

	if (block_is_zero(r->block))
	{
		if (++r->zeroes == 2)
			r->state = NC_TAR_ENDED;
		return;
	}
	why = r->zeroes > 0 ? "something follows the end" : parse_header(r);
	if (why != NULL)
		return fail(r, why);
	if (!sink->begin(sink->arg, &r->entry))
		return fail(r, NULL);
	r->left = r->entry.bytes;
	r->state = NC_TAR_CONTENT;
	if (r->left == 0)
		end_entry(r, sink);
}

/* Takes some of the bytes; how many. */
static size_t
read_some(NcTarReader *r, const NcTarSink *sink, const uint8_t *data, size_t bytes)
{
	size_t		n = bytes;

	if (r->state == NC_TAR_HEADER)
	{
		n = n < NC_TAR_BLOCK_BYTES - r->have ? n : NC_TAR_BLOCK_BYTES - r->have;
		memcpy(r->block + r->have, data, n);
		r->have += n;
		if (r->have < NC_TAR_BLOCK_BYTES)
			return n;
		r->have = 0;
		take_header(r, sink);
		return n;
	}
	if (r->state == NC_TAR_ENDED)
		return n;				/* what fills a record of some tars */
	n = n < r->left ? n : (size_t) r->left;
	r->left -= n;
	if (r->state == NC_TAR_CONTENT)
	{
		if (!sink->content(sink->arg, data, n))
			fail(r, NULL);
		else if (r->left == 0)
			end_entry(r, sink);
	}
	else if (r->left == 0)
		r->state = NC_TAR_HEADER;
	return n;
}

bool
nc_tar_read(NcTarReader *r, const NcTarSink *sink, const uint8_t *data, size_t bytes)
{
	while (bytes > 0 && r->state != NC_TAR_FAILED)
	{
		size_t		n = read_some(r, sink, data, bytes);

		data += n;
		bytes -= n;
	}
	return r->state != NC_TAR_FAILED;
}
