/*
 * nc/shard/shard_map.h
 *	  Parsed shard map {count, stripe, addresses} and key -> shard.
 *
 * A map is a value: it is parsed as a whole, swapped as a whole, and carries a
 * version so that requests routed by an older map can be told apart.
 */
#ifndef NC_SHARD_SHARD_MAP_H
#define NC_SHARD_SHARD_MAP_H

#include "nc/base/check.h"
#include "nc/base/key.h"

#define NC_SHARDS_MAX 128
#define NC_CONNINFO_BYTES_MAX 256	/* with its NUL, as in the reference */

typedef struct NcShardMap
{
	uint32_t	version;		/* set by whoever publishes the map */
	uint32_t	shard_count;	/* >= 1 in a valid map, 0 = no page server configured */
	uint32_t	stripe_blocks;	/* >= 1 */
	char		conninfo[NC_SHARDS_MAX][NC_CONNINFO_BYTES_MAX];
} NcShardMap;

/*
 * Parses a comma-separated list of conninfo strings; the index is the shard
 * number, one trailing comma is ignored, blanks around an element too.  A comma
 * behind which no string begins (keyword= or a URI) belongs to the string: it may
 * name several hosts.  An empty list gives shard_count 0.  On failure returns false, writes a reason
 * that names the element into err, and leaves *map untouched.
 */
NC_MUST_USE extern bool nc_shard_map_parse(const char *list, uint32_t stripe_blocks,
										   NcShardMap *map, char *err, size_t err_bytes);

/*
 * Shard of a block: hash_combine(murmur32(rel), murmur32(block / stripe)) mod count.
 * INIT fork blocks belong to shard 0.  Tablespace, database and fork are not hashed.
 * Precondition: count >= 1, stripe_blocks >= 1.
 */
extern uint32_t nc_shard_of_block(uint32_t count, uint32_t stripe_blocks, const NcRelKey *rel,
								  uint32_t block);

#endif							/* NC_SHARD_SHARD_MAP_H */
