/*
 * shard_map.c
 *	  Parses the list of page servers and finds the shard of a block.
 *
 * Runs in any process that checks the setting and in the communicator, which
 * routes by it.  It guarantees that a map is replaced as a whole or not at all,
 * and that a block goes where the page servers' own hash puts it.  It never
 * prints an element in an error, because a connection string may hold a
 * password; it names the element's number.
 */
#include "nc/shard/shard_map.h"

#include <stdio.h>
#include <string.h>

/* One element without the blanks around it. */
typedef struct Element
{
	const char *text;
	size_t		bytes;
} Element;

static bool
is_blank(char c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

static const char *
skip_map_blanks(const char *s)
{
	while (is_blank(*s))
		s++;
	return s;
}

/* Does a connection string begin here, with a keyword and its equals sign or as a URI? */
static bool
begins_string(const char *s)
{
	size_t		n = strspn(s, "abcdefghijklmnopqrstuvwxyz_");

	return strncmp(s, "postgresql://", 13) == 0 || strncmp(s, "postgres://", 11) == 0 ||
		(n > 0 && *skip_map_blanks(s + n) == '=');
}

/*
 * The comma behind an element, or the end of the list.  What follows a comma and begins no
 * string goes on with a list of hosts or ports, as libpq's own strings have them; nothing at
 * all is an element that is empty.
 */
static const char *
element_end(const char *start)
{
	const char *comma = strchrnul(start, ',');

	while (*comma == ',' && comma > start)
	{
		const char *next = skip_map_blanks(comma + 1);

		if (*next == ',' || *next == '\0' || begins_string(next))
			break;
		comma = strchrnul(next, ',');
	}
	return comma;
}

/*
 * Takes the next element off the list; false at its end.  The end after a comma
 * is no element, which is what makes one trailing comma harmless.
 */
static bool
next_element(const char **at, Element *e)
{
	const char *start = skip_map_blanks(*at);
	const char *comma = element_end(start);
	const char *end = comma;

	if (*start == '\0')
		return false;
	while (end > start && is_blank(end[-1]))
		end--;
	e->text = start;
	e->bytes = (size_t) (end - start);
	*at = *comma == ',' ? comma + 1 : comma;
	return true;
}

/* Why element number `index` cannot be in a map; true when it can. */
static bool
element_valid(const Element *e, uint32_t index, char *err, size_t err_bytes)
{
	if (index >= NC_SHARDS_MAX)
		snprintf(err, err_bytes, "shard %u: at most %d page servers can be listed", index,
				 NC_SHARDS_MAX);
	else if (e->bytes == 0)
		snprintf(err, err_bytes, "shard %u: its connection string is empty", index);
	else if (e->bytes >= NC_CONNINFO_BYTES_MAX)
		snprintf(err, err_bytes,
				 "shard %u: its connection string has %zu bytes, at most %d are allowed", index,
				 e->bytes, NC_CONNINFO_BYTES_MAX - 1);
	else
		return true;
	return false;
}

/* Checks the whole list before a byte of a map is written; counts its elements. */
static bool
list_valid(const char *list, uint32_t *count, char *err, size_t err_bytes)
{
	Element		e;

	for (*count = 0; next_element(&list, &e); (*count)++)
	{
		if (!element_valid(&e, *count, err, err_bytes))
			return false;
	}
	return true;
}

bool
nc_shard_map_parse(const char *list, uint32_t stripe_blocks, NcShardMap *map, char *err,
				   size_t err_bytes)
{
	uint32_t	count;
	Element		e;

	if (list == NULL)
		list = "";
	if (stripe_blocks == 0)
	{
		snprintf(err, err_bytes, "stripe size: must be at least 1 block");
		return false;
	}
	if (!list_valid(list, &count, err, err_bytes))
		return false;
	memset(map, 0, sizeof(*map));
	map->shard_count = count;
	map->stripe_blocks = stripe_blocks;
	for (uint32_t i = 0; next_element(&list, &e); i++)
		memcpy(map->conninfo[i], e.text, e.bytes);
	return true;
}

/*
 * Only the relation number and the stripe are hashed: CREATE DATABASE copies
 * relations to another database and tablespace, and must stay on its shard.
 */
uint32_t
nc_shard_of_block(uint32_t count, uint32_t stripe_blocks, const NcRelKey *rel, uint32_t block)
{
	NC_ASSERT(count >= 1 && stripe_blocks >= 1);
	if (count <= 1 || rel->fork == NC_FORK_INIT)
		return 0;
	return nc_hash_combine(nc_murmur32(rel->rel), nc_murmur32(block / stripe_blocks)) % count;
}
