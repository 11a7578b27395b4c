/*
 * fuzz_shard_map.c
 *	  Four bytes as the stripe size, the rest as the list of page servers.
 *
 * Checked: a map that is accepted is within its bounds and routes every block
 * to one of its shards; a list that is refused has a reason and changes nothing.
 */
#include "nc/base/bytes.h"
#include "nc/shard/shard_map.h"

#include <stdlib.h>

int			LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
check(bool fact)
{
	if (!fact)
		abort();
}

static void
check_routes(const NcShardMap *map, uint32_t seed)
{
	for (uint32_t i = 0; i < 16; i++)
	{
		NcRelKey	rel = {seed, seed >> 8, nc_murmur32(seed + i), i % 4};
		uint32_t	block = nc_murmur32(seed ^ i);
		uint32_t	shard = nc_shard_of_block(map->shard_count, map->stripe_blocks, &rel, block);

		check(shard < map->shard_count);
		check(rel.fork != NC_FORK_INIT || shard == 0);
	}
}

static void
check_map(const NcShardMap *map, uint32_t stripe)
{
	static NcShardMap one;
	char		err[80];

	check(map->shard_count <= NC_SHARDS_MAX);
	check(stripe >= 1 && map->stripe_blocks == stripe);
	for (uint32_t i = 0; i < map->shard_count; i++)
	{
		size_t		bytes = strnlen(map->conninfo[i], NC_CONNINFO_BYTES_MAX);

		check(bytes > 0 && bytes < NC_CONNINFO_BYTES_MAX);
		/* a string of the list is a list of one */
		check(nc_shard_map_parse(map->conninfo[i], stripe, &one, err, sizeof(err)));
		check(one.shard_count == 1 && strcmp(one.conninfo[0], map->conninfo[i]) == 0);
	}
	if (map->shard_count > 0)
		check_routes(map, stripe);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static NcShardMap map;
	static NcShardMap before;
	NcReader	r = nc_reader(data, size);
	uint32_t	stripe = nc_read_u32(&r);
	char	   *list = strndup((const char *) r.at, nc_reader_left(&r));
	char		err[80] = "";

	before = map;
	if (nc_shard_map_parse(list, stripe, &map, err, sizeof(err)))
		check_map(&map, stripe);
	else
	{
		check(err[0] != '\0' && strnlen(err, sizeof(err)) < sizeof(err));
		check(memcmp(&map, &before, sizeof(map)) == 0);
	}
	free(list);
	return 0;
}
