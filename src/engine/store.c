/*
 * store.c
 *	  Free lists of equal objects over slabs of memory.
 */
#include "store.h"

#include <stdlib.h>
#include <string.h>

/* Room for the link of a slab; its first object is aligned to a cache line. */
#define SLAB_HEADER_BYTES NC_CACHE_LINE_BYTES

void
nc_store_init(NcStore *s, size_t object_bytes, uint32_t slab_objects, uint32_t max)
{
	memset(s, 0, sizeof(*s));
	s->object_bytes = (object_bytes + sizeof(void *) - 1) / sizeof(void *) * sizeof(void *);
	s->slab_objects = slab_objects;
	s->max = max;
}

void
nc_store_destroy(NcStore *s)
{
	while (s->slabs != NULL)
	{
		void	   *slab = s->slabs;

		memcpy(&s->slabs, slab, sizeof(void *));
		free(slab);
	}
}

static bool
grow_store(NcStore *s)
{
	uint32_t	n = s->slab_objects;
	size_t		bytes;
	char	   *slab;

	if (n > s->max - s->made)
		n = s->max - s->made;
	if (n == 0)
		return false;
	bytes = SLAB_HEADER_BYTES + n * s->object_bytes;
	bytes = (bytes + NC_CACHE_LINE_BYTES - 1) / NC_CACHE_LINE_BYTES * NC_CACHE_LINE_BYTES;
	slab = aligned_alloc(NC_CACHE_LINE_BYTES, bytes);
	if (slab == NULL)
		return false;
	memcpy(slab, &s->slabs, sizeof(void *));
	s->slabs = slab;
	s->made += n;
	for (uint32_t i = 0; i < n; i++)
		nc_store_give(s, slab + SLAB_HEADER_BYTES + i * s->object_bytes);
	return true;
}

/* What a failed attempt has allocated stays, for the next one. */
bool
nc_store_reserve(NcStore *s, uint32_t n)
{
	while (s->free_count - s->reserved < n)
		if (!grow_store(s))
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
	/* not from the free list at once: what is free may be promised */
	if (!nc_store_reserve(s, 1))
		return NULL;
	return nc_store_take_reserved(s);
}

void
nc_store_give(NcStore *s, void *object)
{
	/* last in, first out: it is still in the processor's cache */
	memcpy(object, &s->free_list, sizeof(void *));
	s->free_list = object;
	s->free_count++;
}
