/*
 * sql_views.c
 *	  The SQL functions of neon_comm.  They read shared memory only, so that
 *	  they answer when the communicator or the WAL feed is stuck.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "catalog/pg_type_d.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/bitmapset.h"
#include "storage/proc.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/pg_lsn.h"
#include "utils/timestamp.h"

#include "nc/base/clock.h"
#include "nc/compat/pg.h"
#include "nc/feed/feed.h"
#include "nc/feed/lease.h"
#include "nc/metrics/metrics.h"
#include "nc/obs/names.h"
#include "nc/shard/shard_map.h"
#include "nc/shared/identity.h"
#include "nc/shared/settings.h"
#include "nc/shared/shmem.h"
#include "nc/smgr/abi.h"
#include "nc/smgr/local.h"
#include "nc/smgr/skeleton.h"
#include "nc/smgr/sweeper.h"

#include "ext.h"

PG_FUNCTION_INFO_V1(nc_get_connections);
PG_FUNCTION_INFO_V1(nc_get_slots);
PG_FUNCTION_INFO_V1(nc_relation_of);
PG_FUNCTION_INFO_V1(nc_get_page_servers);
PG_FUNCTION_INFO_V1(nc_get_identity);
PG_FUNCTION_INFO_V1(nc_get_members);
PG_FUNCTION_INFO_V1(nc_change_members);
PG_FUNCTION_INFO_V1(nc_get_recording);
PG_FUNCTION_INFO_V1(nc_status);
PG_FUNCTION_INFO_V1(nc_staging_use);
PG_FUNCTION_INFO_V1(nc_local_bytes);
PG_FUNCTION_INFO_V1(nc_local_blocks);
PG_FUNCTION_INFO_V1(nc_sweep_now);
PG_FUNCTION_INFO_V1(nc_restart_communicator);

#define COLUMNS_MAX NC_SQL_COLUMNS_MAX

void
nc_sql_require_preloaded(void)
{
	if (nc_shared == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("neon_comm must be loaded via shared_preload_libraries")));
}

void
nc_sql_require_compute(void)
{
	nc_sql_require_preloaded();
	if (!nc_enabled)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this server is no compute"),
				 errhint("neon_comm.page_servers is empty.")));
}

ReturnSetInfo *
nc_sql_begin_rows(FunctionCallInfo fcinfo)
{
	nc_sql_require_preloaded();
	InitMaterializedSRF(fcinfo, 0);
	return (ReturnSetInfo *) fcinfo->resultinfo;
}

void
nc_sql_put_row(ReturnSetInfo *rsinfo, Datum *values, bool *nulls)
{
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

Datum
nc_interval_of_us(uint64 us)
{
	Interval   *span = palloc0(sizeof(Interval));

	span->time = us;
	return IntervalPGetDatum(span);
}

static Datum
age_since(uint64 then_us)
{
	uint64		now = nc_clock_us();

	return nc_interval_of_us(now > then_us ? now - then_us : 0);
}

/* Text written by another process while we read it: bounded, and never trusted to end. */
static Datum
shared_text(const char *text, Size bytes)
{
	char		copy[128];

	Assert(bytes <= sizeof(copy));
	memcpy(copy, text, bytes);
	copy[bytes - 1] = '\0';
	return CStringGetTextDatum(copy);
}

Datum
nc_get_connections(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = nc_sql_begin_rows(fcinfo);

	for (int i = 0; i < NC_CONN_ROWS; i++)
	{
		NcConnRow  *row = &nc_shared->conns[i];
		uint32		state = atomic_load(&row->state);
		Datum		values[COLUMNS_MAX];
		bool		nulls[COLUMNS_MAX] = {0};

		if (state == NC_CONN_UNUSED)
			continue;
		values[0] = Int32GetDatum(row->shard);
		values[1] = shared_text(row->address, sizeof(row->address));
		values[2] = CStringGetTextDatum(nc_conn_state_name(state));
		values[3] = Int32GetDatum(row->in_flight);
		values[4] = age_since(row->since_us);
		values[5] = Int64GetDatum(row->requests);
		values[6] = shared_text(row->last_error, sizeof(row->last_error));
		nulls[6] = row->last_error[0] == '\0';
		nc_sql_put_row(rsinfo, values, nulls);
	}
	return (Datum) 0;
}

static void
put_slot(ReturnSetInfo *rsinfo, uint32 ring, int index, XLogRecPtr applied)
{
	NcSlot		slot = nc_rings.rings[ring].slots[index];
	NcSlotState state = nc_slot_word_state(nc_slot_load(&slot));
	Datum		values[COLUMNS_MAX];
	bool		nulls[COLUMNS_MAX] = {0};

	if (state == NC_SLOT_FREE)
		return;
	values[0] = Int32GetDatum(nc_ring_owner_pid(ring, index));
	values[1] = Int32GetDatum(index);
	values[2] = CStringGetTextDatum(nc_slot_state_name(state));
	values[3] = CStringGetTextDatum(nc_slot_kind_name(slot.kind));
	values[4] = ObjectIdGetDatum(slot.spc);
	values[5] = ObjectIdGetDatum(slot.db);
	values[6] = ObjectIdGetDatum(slot.rel);
	values[7] = Int32GetDatum(slot.fork);
	values[8] = Int64GetDatum(slot.block);
	values[9] = Int32GetDatum(slot.nblocks);
	values[10] = LSNGetDatum(slot.not_modified_since);
	values[11] = age_since(slot.submit_us);
	values[12] = CStringGetTextDatum(nc_slot_waits_name(nc_slot_waits_for(&slot, state, applied)));
	nc_sql_put_row(rsinfo, values, nulls);
}

Datum
nc_get_slots(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = nc_sql_begin_rows(fcinfo);
	XLogRecPtr	applied = nc_metrics_applied_everywhere();

	for (uint32 r = 0; r < nc_rings.nrings; r++)
		for (int s = 0; s < NC_RING_SLOTS; s++)
			put_slot(rsinfo, r, s, applied);
	return (Datum) 0;
}

/* As pg_filenode_relation(), but of a database that may be another one. Reads catalogs. */
Datum
nc_relation_of(PG_FUNCTION_ARGS)
{
	Oid			db = PG_GETARG_OID(1);
	Oid			relation;

	if ((db != MyDatabaseId && db != InvalidOid) || !OidIsValid(PG_GETARG_OID(2)))
		PG_RETURN_NULL();
	relation = NC_RELATION_BY_NUMBER(PG_GETARG_OID(0), PG_GETARG_OID(2));
	if (!OidIsValid(relation))
		PG_RETURN_NULL();
	PG_RETURN_OID(relation);
}

/* Bytes from a position of a page server to the end of durable WAL; NULL when one is not known. */
static void
put_lag(Datum *value, bool *null, XLogRecPtr position, XLogRecPtr end)
{
	*null = position == InvalidXLogRecPtr || end == InvalidXLogRecPtr;
	*value = Int64GetDatum(end > position ? (int64) (end - position) : 0);
}

Datum
nc_get_page_servers(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = nc_sql_begin_rows(fcinfo);
	NcFeedPeer *peers = palloc0(NC_SHARDS_MAX * sizeof(NcFeedPeer));
	int			n = nc_feed_peers(peers, NC_SHARDS_MAX);
	XLogRecPtr	end = RecoveryInProgress() ? InvalidXLogRecPtr : GetFlushRecPtr(NULL);

	for (int i = 0; i < n; i++)
	{
		NcFeedPeer *p = &peers[i];
		XLogRecPtr	lsns[] = {p->sent, p->write, p->flush, p->apply, p->retained_from};
		XLogRecPtr	lags[] = {p->write, p->flush, p->apply, p->retained_from};
		Datum		values[COLUMNS_MAX];
		bool		nulls[COLUMNS_MAX] = {0};

		values[0] = CStringGetTextDatum(p->name);
		values[1] = CStringGetTextDatum(p->address);
		nulls[1] = p->address[0] == '\0';
		values[2] = CStringGetTextDatum(p->state);
		for (int k = 0; k < lengthof(lsns); k++)
		{
			values[3 + k] = LSNGetDatum(lsns[k]);
			nulls[3 + k] = lsns[k] == InvalidXLogRecPtr;
		}
		for (int k = 0; k < lengthof(lags); k++)
			put_lag(&values[8 + k], &nulls[8 + k], lags[k], end);
		values[12] = BoolGetDatum(p->throttles);
		values[13] = TimestampTzGetDatum(p->reply_time);
		nulls[13] = p->reply_time == 0;
		values[14] = TimestampTzGetDatum(p->connected_since);
		nulls[14] = p->connected_since == 0;
		values[15] = CStringGetTextDatum(p->reason);
		nulls[15] = p->reason[0] == '\0';
		values[16] = Int32GetDatum(p->sync_priority);
		values[17] = CStringGetTextDatum(p->sync_state);
		nulls[17] = p->sync_state[0] == '\0';
		nc_sql_put_row(rsinfo, values, nulls);
	}
	return (Datum) 0;
}

static Datum
one_row(FunctionCallInfo fcinfo, Datum *values, bool *nulls)
{
	TupleDesc	desc;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls));
}

/* One row of NULLs in a server that is no compute. */
Datum
nc_get_identity(PG_FUNCTION_ARGS)
{
	Datum		values[5] = {0};
	bool		nulls[5] = {true, true, true, true, true};
	char		text[NC_ID_TEXT];

	nc_sql_require_preloaded();
	if (nc_identity != NULL)
	{
		XLogRecPtr	began = atomic_load(&nc_identity->began);

		values[0] = CStringGetTextDatum(nc_id_text(&nc_identity->reader.birth, text));
		values[1] = CStringGetTextDatum(nc_id_text(&nc_identity->reader.incarnation, text));
		values[2] = LSNGetDatum(began);
		values[3] = Int32GetDatum((int32) nc_identity->lives);
		values[4] = CStringGetTextDatum(nc_identity->place);
		memset(nulls, 0, sizeof(nulls));
		nulls[2] = began == InvalidXLogRecPtr;
	}
	return one_row(fcinfo, values, nulls);
}

/* Up to where this directory has WAL on disk; false: it is not here. */
static bool
member_flush(const NcFeedPeer *peers, int n, const NcId *id, XLogRecPtr *flush)
{
	for (int i = 0; i < n; i++)
	{
		*flush = peers[i].flush;
		if (nc_id_equal(&peers[i].member, id))
			return *flush != InvalidXLogRecPtr;
	}
	return false;
}

static void
put_members(ReturnSetInfo *rsinfo, const char *list, const NcMembers *members)
{
	NcFeedPeer *peers = palloc(sizeof(NcFeedPeer) * NC_SHARDS_MAX);
	int			n = nc_feed_peers(peers, NC_SHARDS_MAX);
	char		id[NC_ID_TEXT];

	for (uint32 i = 0; i < members->n; i++)
	{
		Datum		values[6];
		bool		nulls[6] = {0};
		XLogRecPtr	flush = InvalidXLogRecPtr;

		nulls[4] = !member_flush(peers, n, &members->at[i].id, &flush);
		values[0] = CStringGetTextDatum(members->at[i].name);
		values[1] = CStringGetTextDatum(nc_id_text(&members->at[i].id, id));
		values[2] = Int32GetDatum((int32) members->write_quorum);
		values[3] = CStringGetTextDatum(list);
		values[4] = LSNGetDatum(flush);
		values[5] = Int32GetDatum(nc_lease_left_ms(&members->at[i].id));
		nc_sql_put_row(rsinfo, values, nulls);
	}
	pfree(peers);
}

/* What the WAL feed has written down; nothing before all page servers have joined. */
Datum
nc_get_members(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = nc_sql_begin_rows(fcinfo);
	NcPromise  *kept = palloc0(sizeof(NcPromise));
	const char *why = NULL;
	NcFileResult result = nc_promise_load(DataDir, NC_COMPUTE_MEMBERS, kept, &why);
	bool		joint = result == NC_FILE_OK && nc_members_change(&kept->members);

	if (result != NC_FILE_OK && result != NC_FILE_ABSENT)
		ereport(ERROR,
				(errcode_for_file_access(),
				 why != NULL ? errmsg("could not read file \"%s\": %s", NC_COMPUTE_MEMBERS, why) :
				 errmsg("could not read file \"%s\": %m", NC_COMPUTE_MEMBERS)));
	if (result == NC_FILE_OK)
		put_members(rsinfo, joint ? "old" : "all", &kept->members.now);
	if (joint)
		put_members(rsinfo, "new", &kept->members.next);
	return (Datum) 0;
}

/* Waits until old and new members have confirmed it. */
Datum
nc_change_members(PG_FUNCTION_ARGS)
{
	Datum	   *elements;
	bool	   *nulls;
	const char **names;
	int			n;

	nc_sql_require_preloaded();
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(0), TEXTOID, -1, false, TYPALIGN_INT, &elements, &nulls, &n);
	names = palloc0(sizeof(char *) * Max(n, 1));
	for (int i = 0; i < n; i++)
	{
		if (nulls[i])
			ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("a page server has no name")));
		names[i] = TextDatumGetCString(elements[i]);
	}
	nc_feed_change_members(names, n, PG_GETARG_INT32(1));
	PG_RETURN_VOID();
}

/* The present recording, or the last one. */
Datum
nc_get_recording(PG_FUNCTION_ARGS)
{
	static const char *const states[] = {
		[NC_RECORDING_OFF] = "off",
		[NC_RECORDING_STARTING] = "starting",
		[NC_RECORDING_ON] = "recording",
		[NC_RECORDING_FULL] = "full",
		[NC_RECORDING_FAILED] = "failed"
	};
	NcRecordingRow row;
	Datum		values[6];
	bool		nulls[6] = {0};

	nc_sql_require_preloaded();
	/* the state before the texts that it tells of */
	values[0] = CStringGetTextDatum(states[atomic_load(&nc_shared->recording.state)]);
	memcpy(row.path, nc_shared->recording.path, sizeof(row.path));
	memcpy(row.error, nc_shared->recording.error, sizeof(row.error));
	/* half of a change has an end, too */
	row.path[sizeof(row.path) - 1] = row.error[sizeof(row.error) - 1] = '\0';
	values[1] = CStringGetTextDatum(row.path);
	nulls[1] = row.path[0] == '\0';
	values[2] = Int64GetDatum(atomic_load(&nc_shared->recording.requests));
	values[3] = Int64GetDatum(atomic_load(&nc_shared->recording.dropped));
	values[4] = Int64GetDatum(atomic_load(&nc_shared->recording.bytes));
	values[5] = CStringGetTextDatum(row.error);
	nulls[5] = row.error[0] == '\0';
	return one_row(fcinfo, values, nulls);
}

Datum
nc_status(PG_FUNCTION_ARGS)
{
	Datum		values[COLUMNS_MAX];
	bool		nulls[COLUMNS_MAX] = {0};
	uint32		pid;

	nc_sql_require_preloaded();
	pid = atomic_load(&nc_shared->communicator_pid);
	values[0] = BoolGetDatum(nc_enabled);
	values[1] = Int32GetDatum(pid);
	nulls[1] = nulls[2] = pid == 0;
	values[2] = CStringGetTextDatum(atomic_load(&nc_shared->io_uring_in_use) ? "io_uring"
									: "epoll");
	values[3] = Int64GetDatum(atomic_load(&nc_rings.doorbell->epoch));
	values[4] = age_since(atomic_load(&nc_rings.doorbell->heartbeat_us));
	nulls[4] = pid == 0;
	values[5] = Int64GetDatum(nc_enabled ? nc_local_chunks_used() : 0);
	values[6] = CStringGetTextDatum(nc_smgr_abi()->way);
	nulls[6] = !nc_enabled;
	return one_row(fcinfo, values, nulls);
}

Datum
nc_staging_use(PG_FUNCTION_ARGS)
{
	Datum		values[COLUMNS_MAX];
	bool		nulls[COLUMNS_MAX] = {0};
	Bitmapset  *holders = NULL;
	int			lent = 0;

	nc_sql_require_preloaded();
	for (uint32 i = 0; i < nc_staging.nchunks; i++)
	{
		uint32		owner = (uint32) atomic_load(&nc_staging.owner[i]);

		if (owner == 0)
			continue;
		lent++;
		holders = bms_add_member(holders, owner);
	}
	values[0] = Int32GetDatum(nc_staging.nchunks * NC_STAGING_CHUNK_PAGES);
	values[1] = Int32GetDatum(lent * NC_STAGING_CHUNK_PAGES);
	values[2] = Int32GetDatum(bms_num_members(holders));
	return one_row(fcinfo, values, nulls);
}

Datum
nc_local_bytes(PG_FUNCTION_ARGS)
{
	NcLocalBytes bytes;
	Datum		values[COLUMNS_MAX];
	bool		nulls[COLUMNS_MAX] = {0};

	nc_sql_require_preloaded();
	nc_skeleton_measure(&bytes);
	values[0] = Int64GetDatum(bytes.allocated);
	values[1] = Int64GetDatum(bytes.sequences);
	values[2] = Int64GetDatum(bytes.apparent);
	values[3] = Int64GetDatum(bytes.files);
	values[4] = Int64GetDatum(bytes.empty);
	return one_row(fcinfo, values, nulls);
}

static bool
want_all(const NcLocalChunk *c, void *arg)
{
	return true;
}

static const char *
reason_of(const NcLocalChunk *c, uint64 bit)
{
	if ((c->sequence & bit) != 0)
		return "sequence";
	if ((c->command_id & bit) != 0)
		return "command id";
	if ((c->cycle_id & bit) != 0)
		return "vacuum cycle id";
	return "not logged";
}

Datum
nc_local_blocks(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = nc_sql_begin_rows(fcinfo);
	int			n;
	NcLocalChunk *found = nc_local_collect(want_all, NULL, &n);

	for (int i = 0; i < n; i++)
	{
		for (int b = 0; b < NC_LOCAL_CHUNK_BLOCKS; b++)
		{
			uint64		bit = UINT64CONST(1) << b;
			Datum		values[COLUMNS_MAX];
			bool		nulls[COLUMNS_MAX] = {0};

			if ((found[i].local & bit) == 0)
				continue;
			values[0] = ObjectIdGetDatum(found[i].key.spc);
			values[1] = ObjectIdGetDatum(found[i].key.db);
			values[2] = ObjectIdGetDatum(found[i].key.rel);
			values[3] = Int64GetDatum((int64) found[i].key.chunk * NC_LOCAL_CHUNK_BLOCKS + b);
			values[4] = CStringGetTextDatum(reason_of(&found[i], bit));
			nc_sql_put_row(rsinfo, values, nulls);
		}
	}
	pfree(found);
	return (Datum) 0;
}

Datum
nc_sweep_now(PG_FUNCTION_ARGS)
{
	nc_sql_require_preloaded();
	if (!nc_enabled)
		PG_RETURN_INT64(0);
	nc_skeleton_scrub_rest();
	CHECK_FOR_INTERRUPTS();
	PG_RETURN_INT64(nc_sweep());
}

Datum
nc_restart_communicator(PG_FUNCTION_ARGS)
{
	nc_sql_require_preloaded();
	if (!nc_enabled)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("no communicator runs on this server"),
				 errhint("neon_comm.page_servers is empty.")));
	atomic_store(&nc_shared->restart_requested, 1);
	nc_ring_kick(&nc_rings);
	PG_RETURN_VOID();
}
