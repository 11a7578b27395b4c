/*
 * shards.c
 *	  What is known about the shard of a block, in words, for errors and the log.
 *
 * Runs in any process.  Looks at settings of this process and at the rows that
 * the communicator shows; asks nobody, so it also works when the communicator
 * does not.  The rows may change meanwhile: the text is for people.
 */
#include "postgres.h"

#include "nc/shard/shard_map.h"
#include "nc/shared/map_settings.h"
#include "nc/shared/shmem.h"

/* Counts of a shard's rows, and one of them. */
typedef struct ShardRows
{
	int			connections;
	int			ready;
	const NcConnRow *row;		/* NULL = none */
} ShardRows;

static ShardRows
rows_of(uint32 shard)
{
	ShardRows	found = {0};

	for (int i = 0; i < NC_CONN_ROWS; i++)
	{
		const NcConnRow *row = &nc_shared->conns[i];
		uint32		state = atomic_load(&row->state);

		if (state == NC_CONN_UNUSED || state == NC_CONN_CLOSING || row->shard != shard)
			continue;
		found.connections++;
		found.ready += state == NC_CONN_READY;
		/* one in trouble tells more */
		if (found.row == NULL || row->last_error[0] != '\0')
			found.row = row;
	}
	return found;
}

void
nc_describe_shard(const NcRelKey *rel, uint32 block, char *text, Size bytes)
{
	static NcShardMap map;
	char		err[128];
	char		address[sizeof(((NcConnRow *) 0)->address)];
	char		reason[sizeof(((NcConnRow *) 0)->last_error)];
	NcMapSettings in_force = nc_map_settings();
	uint32		shard;
	ShardRows	rows;

	if (!nc_shard_map_parse(in_force.page_servers, in_force.stripe_size, &map, err, sizeof(err)) ||
		map.shard_count == 0)
	{
		snprintf(text, bytes, "no page server");
		return;
	}
	shard = nc_shard_of_block(map.shard_count, map.stripe_blocks, rel, block);
	rows = rows_of(shard);
	if (rows.row == NULL)
	{
		snprintf(text, bytes, "shard %u, which has no connection", shard);
		return;
	}
	/* written by another process while we read */
	strlcpy(address, rows.row->address, sizeof(address));
	strlcpy(reason, rows.row->last_error, sizeof(reason));
	snprintf(text, bytes, "shard %u (%s), %d of %d connections ready%s%s", shard, address,
			 rows.ready, rows.connections, reason[0] != '\0' ? "; " : "", reason);
	if (reason[0] != '\0')
		snprintf(text + strlen(text), bytes - strlen(text), " (%u failures)", rows.row->failures);
}
