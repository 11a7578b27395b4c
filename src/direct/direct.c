/*
 * direct.c
 *	  A call in direct mode: which connection each block needs, sending, waiting
 *	  for answers, and what a cancel leaves behind.
 *
 * Runs in any process of the compute.  Nothing is shared between processes: a
 * connection, its back-off and its troubles are this process's.  Requests that
 * were cancelled stay in the order of their connection; their answers are read,
 * compared and thrown away before the next one's.
 *
 * Settings are looked at when a call begins and whenever it has waited, so the
 * startup process follows a reload in the middle of a call and other processes
 * when they process one, between statements.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/latch.h"

#include "nc/base/clock.h"
#include "nc/direct/direct.h"
#include "nc/shard/shard_map.h"
#include "nc/shared/map_settings.h"
#include "nc/shared/settings.h"
#include "nc/shared/shmem.h"
#include "direct_int.h"

/* The call under way. */
typedef struct Call
{
	NcAsk	   *ask;			/* NULL: none */
	uint64		sent;			/* bit per message: on a connection now */
	uint64		was_sent;		/* a later sending is a repetition */
	uint64		answered;
	uint8		refused_by[NC_SLOT_BLOCKS_MAX]; /* by message: bit per host of its shard that cannot answer it */
	bool		failed;			/* an error answer came; ask->error has its text */
	bool		consumed;		/* a set of the latch was taken by our waits */
} Call;

static Call call;

/* The map and the settings that the connections were made with. */
static NcShardMap map;
static char *map_list = NULL;
static int	map_stripe;
static int	map_version;

static NcDirectConn *conns[NC_SHARDS_MAX];
static bool exit_registered = false;

bool
nc_direct_busy(void)
{
	return call.ask != NULL;
}

static void
direct_progress(const NcAsk *ask, char *text, Size bytes)
{
	const char *state = "waiting for an answer";

	for (uint32 i = 0; i < map.shard_count; i++)
		if (conns[i] != NULL && !nc_direct_conn_ready(conns[i]))
			state = "being opened";
	snprintf(text, bytes, "the own connection of process %d is %s", MyProcPid, state);
}

/* ---- settings ---- */

void
nc_direct_close(void)
{
	if (map_list == NULL)
		return;
	for (int i = 0; i < NC_SHARDS_MAX; i++)
	{
		if (conns[i] != NULL)
			nc_direct_conn_free(conns[i]);
		conns[i] = NULL;
	}
	call.sent = 0;
	/* hosts may have other places in the next one */
	memset(call.refused_by, 0, sizeof(call.refused_by));
	free(map_list);
	map_list = NULL;
	map.shard_count = 0;
}

static void
close_on_exit(int code, Datum arg)
{
	nc_direct_close();
}

/*
 * Follows the settings.  A new map ends every connection: what was in flight is
 * routed again.  A list that does not parse, which its check hook refuses
 * before, is as good as none.
 */
static void
refresh_map(void)
{
	NcMapSettings in_force = nc_map_settings();
	char		err[256];
	char	   *copy;

	if (map_list != NULL && map_stripe == in_force.stripe_size &&
		map_version == nc_guc_protocol_version && strcmp(map_list, in_force.page_servers) == 0)
		return;
	copy = strdup(in_force.page_servers);
	if (copy == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	nc_direct_close();
	map_list = copy;
	map_stripe = in_force.stripe_size;
	map_version = nc_guc_protocol_version;
	if (!nc_shard_map_parse(map_list, map_stripe, &map, err, sizeof(err)))
		elog(LOG, "neon_comm.page_servers is not usable: %s", err);
	if (!exit_registered)
		on_proc_exit(close_on_exit, (Datum) 0);
	exit_registered = true;
}

/* ---- what connections tell us ---- */

void
nc_direct_lost(int index)
{
	call.sent &= ~(UINT64CONST(1) << index);
}

bool
nc_direct_refused(int index, uint32 host, uint32 nhosts, const NcPsResponse *resp)
{
	switch (nc_ps_error_kind(resp->message, resp->message_bytes))
	{
		case NC_ERROR_TRANSIENT:
			return true;
		case NC_ERROR_MISROUTED:
		case NC_ERROR_HOST:
			call.refused_by[index] |= 1 << host;
			return call.refused_by[index] != (1 << nhosts) - 1;
		case NC_ERROR_FINAL:
			break;
	}
	return false;
}

void
nc_direct_answer(int index, const NcPsResponse *resp, uint32 shard, const char *address)
{
	NcAsk	   *ask = call.ask;

	call.sent &= ~(UINT64CONST(1) << index);
	call.answered |= UINT64CONST(1) << index;
	switch (resp->tag)
	{
		case NC_RESP_GETPAGE:
			memcpy(ask->pages[index], resp->page, NC_PAGE_BYTES);
			break;
		case NC_RESP_EXISTS:
			ask->value = resp->exists ? 1 : 0;
			break;
		case NC_RESP_NBLOCKS:
			ask->value = resp->nblocks;
			break;
		case NC_RESP_DBSIZE:
			ask->value = (uint64) resp->db_bytes;
			break;
		case NC_RESP_ERROR:
			snprintf(ask->error, NC_RING_ERROR_BYTES, "shard %u (%s): %.*s", shard, address,
					 (int) Min(resp->message_bytes, NC_RING_ERROR_BYTES), resp->message);
			call.failed = true;
			break;
		case NC_RESP_SLRU:
			/* never asked, so never matched */
			break;
	}
}

/* ---- the call ---- */

static NcReqTag
tag_of_kind(NcSlotKind kind)
{
	switch (kind)
	{
		case NC_SLOT_KIND_GETPAGE:
			return NC_REQ_GETPAGE;
		case NC_SLOT_KIND_EXISTS:
			return NC_REQ_EXISTS;
		case NC_SLOT_KIND_NBLOCKS:
			return NC_REQ_NBLOCKS;
		case NC_SLOT_KIND_DBSIZE:
			return NC_REQ_DBSIZE;
	}
	return NC_REQ_GETPAGE;
}

static NcPsRequest
direct_message(const NcAsk *ask, int index)
{
	return (NcPsRequest) {
		.tag = tag_of_kind(ask->kind),
		.request_lsn = ask->request_lsn,
		.not_modified_since = ask->not_modified_since,
		.rel = ask->rel,
		.block = ask->nblocks > 0 ? ask->block + index : 0,
		.db = ask->rel.db
	};
}

static uint32
shard_of(const NcPsRequest *msg)
{
	/* existence and sizes are exact on shard 0 only */
	if (msg->tag != NC_REQ_GETPAGE || map.shard_count == 1)
		return 0;
	return nc_shard_of_block(map.shard_count, map.stripe_blocks, &msg->rel, msg->block);
}

static NcDirectConn *
conn_of(uint32 shard)
{
	if (conns[shard] == NULL)
	{
		conns[shard] = nc_direct_conn_make(shard, map.conninfo[shard]);
		if (conns[shard] == NULL)
			ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	}
	return conns[shard];
}

/* Something may have happened outside: interrupts, deadline, settings. */
static void
idle(uint32 events)
{
	if ((events & WL_LATCH_SET) != 0)
	{
		ResetLatch(MyLatch);
		call.consumed = true;
	}
	call.ask->idle(call.ask, NC_WAIT_FOR_ANSWER);
	refresh_map();
}

/*
 * One message as far as it goes: opens its connection, sends it, waits for its
 * answer.  Returns when it was answered, or was lost, or the map changed.
 */
static void
send_message(int index)
{
	NcPsRequest msg = direct_message(call.ask, index);
	uint64		bit = UINT64CONST(1) << index;
	NcDirectConn *c = conn_of(shard_of(&msg));

	if (!nc_direct_conn_ready(c))
	{
		/* it may be another connection after the wait: the caller looks again */
		idle(nc_direct_conn_open(c, nc_wait_slice_ms()));
		return;
	}
	if (!nc_direct_conn_send(c, &msg, index))
		return;
	if ((call.was_sent & bit) != 0)
		nc_stat(NC_COUNTER_RESENT, 1);
	call.sent |= bit;
	call.was_sent |= bit;
}

static void
await_answer(int index)
{
	NcPsRequest msg = direct_message(call.ask, index);
	uint64		bit = UINT64CONST(1) << index;

	while ((call.sent & bit) != 0)
	{
		uint32		events = nc_direct_conn_receive(conn_of(shard_of(&msg)), nc_wait_slice_ms());

		if ((call.sent & bit) != 0)
			idle(events);
	}
}

static void
abandon(int code, Datum arg)
{
	if (call.sent != 0)
	{
		nc_stat(NC_COUNTER_REQUEST_CANCELS, 1);
		for (uint32 i = 0; i < map.shard_count; i++)
			if (conns[i] != NULL)
				nc_direct_conn_orphan(conns[i]);
	}
	call.ask = NULL;
	call.sent = 0;
}

static void
run_direct(uint64 all)
{
	while (call.answered != all && map.shard_count > 0)
	{
		for (int i = 0; (all >> i & 1) != 0; i++)
			while ((call.answered >> i & 1) == 0 && (call.sent >> i & 1) == 0 &&
				   map.shard_count > 0)
				send_message(i);
		for (int i = 0; (all >> i & 1) != 0; i++)
			await_answer(i);
	}
}

static NcSlotResult
ask_directly(NcAsk *ask)
{
	int			messages = ask->nblocks > 0 ? ask->nblocks : 1;
	uint64		all = (UINT64CONST(1) << messages) - 1;
	uint64		waited_us;

	Assert(ask->nblocks >= 0 && ask->nblocks <= NC_SLOT_BLOCKS_MAX);
	Assert(call.ask == NULL);
	refresh_map();
	memset(&call, 0, sizeof(call));
	call.ask = ask;
	PG_ENSURE_ERROR_CLEANUP(abandon, (Datum) 0);
	{
		run_direct(all);
	}
	PG_END_ENSURE_ERROR_CLEANUP(abandon, (Datum) 0);
	call.ask = NULL;
	/* Others wait on the same latch for their own reasons: pass on what was taken. */
	if (call.consumed)
		SetLatch(MyLatch);
	waited_us = nc_clock_us() - ask->started_us;
	nc_stat(NC_COUNTER_WAIT_US, waited_us);
	nc_tally(NC_TALLY_WAITS, 1);
	nc_tally(NC_TALLY_WAIT_US, waited_us);
	if (call.answered != all)
		return NC_SLOT_RESULT_NO_SERVER;
	return call.failed ? NC_SLOT_RESULT_PS_ERROR : NC_SLOT_RESULT_OK;
}

const NcTransport nc_direct_transport = {
	.ask = ask_directly,
	.progress = direct_progress
};
