/*
 * store.c
 *	  Free lists of equal objects over chunks of memory.
 */
#include "store.h"

#include <stdlib.h>
#include <string.h>

/* Room for the link of a chunk; keeps its objects aligned to a cache line. */
#define CHUNK_HEADER_BYTES NC_CACHE_LINE_BYTES

void
nc_store_init(NcStore *s, size_t object_bytes, uint32_t chunk_objects, uint32_t max)
{
	memset(s, 0, sizeof(*s));
	s->object_bytes = (object_bytes + sizeof(void *) - 1) / sizeof(void *) * sizeof(void *);
	s->chunk_objects = chunk_objects;
	s->max = max;
}

void
nc_store_destroy(NcStore *s)
{
	while (s->chunks != NULL)
	{
		void	   *chunk = s->chunks;

		memcpy(&s->chunks, chunk, sizeof(void *));
		free(chunk);
	}
}

static bool
grow(NcStore *s)
{
	uint32_t	n = s->chunk_objects;
	size_t		bytes;
	char	   *chunk;

	if (n > s->max - s->made)
		n = s->max - s->made;
	if (n == 0)
		return false;
	bytes = CHUNK_HEADER_BYTES + n * s->object_bytes;
	bytes = (bytes + NC_CACHE_LINE_BYTES - 1) / NC_CACHE_LINE_BYTES * NC_CACHE_LINE_BYTES;
	chunk = aligned_alloc(NC_CACHE_LINE_BYTES, bytes);
	if (chunk == NULL)
		return false;
	memcpy(chunk, &s->chunks, sizeof(void *));
	s->chunks = chunk;
	s->made += n;
	for (uint32_t i = 0; i < n; i++)
		nc_store_give(s, chunk + CHUNK_HEADER_BYTES + i * s->object_bytes);
	return true;
}

bool
nc_store_reserve(NcStore *s, uint32_t n)
{
	while (s->free_count - s->reserved < n)
		if (!grow(s))
			return false;
	s->reserved += n;
	return true;
}

void
nc_store_unreserve(NcStore *s, uint32_t n)
{
	NC_ASSERT(s->reserved >= n);
	s->reserved -= n;
}

static void *
pop(NcStore *s)
{
	void	   *object = s->free_list;

	NC_ASSERT(object != NULL);
	memcpy(&s->free_list, object, sizeof(void *));
	s->free_count--;
	return object;
}

void *
nc_store_take_reserved(NcStore *s)
{
	NC_ASSERT(s->reserved > 0);
	s->reserved--;
	return pop(s);
}

void *
nc_store_take(NcStore *s)
{
	if (!nc_store_reserve(s, 1))
		return NULL;
	return nc_store_take_reserved(s);
}

void
nc_store_give(NcStore *s, void *object)
{
	memcpy(object, &s->free_list, sizeof(void *));
	s->free_list = object;
	s->free_count++;
}
