/*
 * store.h
 *	  NcStore: objects of one size, given out and taken back without malloc.
 *
 * Grows by slabs up to a bound and never shrinks: after the first burst of
 * work the engine allocates nothing.  Private to src/engine.
 *
 * A promise (reserve) is made before a slot is taken, because from then on nothing
 * may fail: a job with half of its messages could neither be answered nor given back.
 */
#ifndef NC_ENGINE_STORE_H
#define NC_ENGINE_STORE_H

#include "nc/base/check.h"

typedef struct NcStore
{
	size_t		object_bytes;
	uint32_t	slab_objects;
	uint32_t	max;			/* bound of made */
	uint32_t	made;
	uint32_t	free_count;
	uint32_t	reserved;		/* of the free ones, promised */
	void	   *free_list;		/* linked through their first word */
	void	   *slabs;			/* linked through their first word */
} NcStore;

extern void nc_store_init(NcStore *s, size_t object_bytes, uint32_t slab_objects, uint32_t max);
extern void nc_store_destroy(NcStore *s);

/* Promises n objects: that many nc_store_take_reserved() will succeed. */
NC_MUST_USE extern bool nc_store_reserve(NcStore *s, uint32_t n);
extern void nc_store_unreserve(NcStore *s, uint32_t n);
extern void *nc_store_take_reserved(NcStore *s);

/* One object with undefined contents, or NULL at the bound. */
extern void *nc_store_take(NcStore *s);
extern void nc_store_give(NcStore *s, void *object);

#endif							/* NC_ENGINE_STORE_H */
