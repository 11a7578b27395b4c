/*
 * nc/base/key.h
 *	  NcRelKey and NcPageKey: the only names of a relation fork and of a page.
 */
#ifndef NC_BASE_KEY_H
#define NC_BASE_KEY_H

#include <stdbool.h>
#include <stdint.h>

typedef enum NcFork
{
	NC_FORK_MAIN = 0,
	NC_FORK_FSM = 1,
	NC_FORK_VM = 2,
	NC_FORK_INIT = 3
} NcFork;

/* A relation fork: tablespace, database, relfilenumber, fork. */
typedef struct NcRelKey
{
	uint32_t	spc;
	uint32_t	db;
	uint32_t	rel;
	uint32_t	fork;			/* an NcFork; 32 bits so that the struct has no padding */
} NcRelKey;

/* One page of a relation fork. */
typedef struct NcPageKey
{
	NcRelKey	rel;
	uint32_t	block;
} NcPageKey;

static inline bool
nc_rel_key_equal(const NcRelKey *a, const NcRelKey *b)
{
	return a->spc == b->spc && a->db == b->db && a->rel == b->rel && a->fork == b->fork;
}

static inline bool
nc_page_key_equal(const NcPageKey *a, const NcPageKey *b)
{
	return a->block == b->block && nc_rel_key_equal(&a->rel, &b->rel);
}

/* The 32-bit finaliser of MurmurHash3, as PostgreSQL's murmurhash32() and Neon's shard hash use it. */
static inline uint32_t
nc_murmur32(uint32_t h)
{
	h ^= h >> 16;
	h *= 0x85ebca6bU;
	h ^= h >> 13;
	h *= 0xc2b2ae35U;
	h ^= h >> 16;
	return h;
}

static inline uint32_t
nc_hash_combine(uint32_t a, uint32_t b)
{
	return a ^ (b + 0x9e3779b9U + (a << 6) + (a >> 2));
}

static inline uint32_t
nc_rel_key_hash(const NcRelKey *k)
{
	uint32_t	h = nc_murmur32(k->rel);

	h = nc_hash_combine(h, nc_murmur32(k->db));
	return nc_hash_combine(h, nc_murmur32(k->spc ^ (k->fork << 28)));
}

static inline uint32_t
nc_page_key_hash(const NcPageKey *k)
{
	return nc_hash_combine(nc_rel_key_hash(&k->rel), nc_murmur32(k->block));
}

#endif							/* NC_BASE_KEY_H */
