/*
 * tracing.c
 *	  See nc/tracing/tracing.h.
 *
 * The process that asks decides, when it fills its slot, and makes the record, when the
 * slot is DONE; for AIO handles, whose owner does not come to look, the communicator does.
 * Nothing here allocates, waits or raises.
 */
#include "postgres.h"

#include <limits.h>

#include "access/xact.h"
#include "common/pg_prng.h"
#include "miscadmin.h"
#include "replication/walsender.h"
#include "storage/ipc.h"
#include "storage/proc.h"
#include "storage/shmem.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"

#include "nc/base/clock.h"
#include "nc/compat/aio.h"
#include "nc/compat/pg.h"
#include "nc/ring/aio.h"
#include "nc/shared/settings.h"
#include "nc/trace/parent.h"
#include "nc/trace/record.h"
#include "nc/tracer/tracer.h"
#include "nc/tracing/tracing.h"

static double sample_rate = 0;
static bool tell_page_servers = true;
static char *trace_file = NULL;
static int	trace_file_size = 16 * 1024;
static char *collector = NULL;

static NcTraceBuffer *buffer = NULL;

const NcTracer nc_tracing_tracer = {
	.service = "neon_comm",
	.file = &trace_file,
	.file_size_kb = &trace_file_size,
	.collector = &collector,
	.buffer = &buffer
};

/* ---- settings ---- */

/* At the start a bad value would only be warned of, and nothing traced. */
static bool
check_collector(char **newval, void **extra, GucSource source)
{
	bool		good = nc_tracer_collector_good(*newval);

	if (!good && process_shared_preload_libraries_in_progress)
		ereport(FATAL,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid value for parameter \"neon_comm.trace_collector\": \"%s\"", *newval),
				 errdetail_internal("%s", GUC_check_errdetail_string)));
	return good;
}

void
nc_tracing_init(void)
{
	DefineCustomStringVariable("neon_comm.trace_collector",
							   "Collector on this machine that gets traced requests, as http://127.0.0.1:4318/v1/traces.",
							   "Empty: none.", &collector, "", PGC_POSTMASTER, 0,
							   check_collector, NULL, NULL);
	DefineCustomStringVariable("neon_comm.trace_file",
							   "File that traced requests are written to.",
							   "Empty: none.", &trace_file, "", PGC_POSTMASTER, GUC_SUPERUSER_ONLY,
							   NULL, NULL, NULL);
	DefineCustomIntVariable("neon_comm.trace_file_size",
							"Size at which the file of traced requests is put aside; one older one is kept.",
							"With neon_comm.trace_file.", &trace_file_size, trace_file_size, 1024, MAX_KILOBYTES, PGC_SIGHUP,
							GUC_UNIT_KB, NULL, NULL, NULL);
	DefineCustomBoolVariable("neon_comm.trace_page_servers",
							 "Page servers are told which requests are traced.",
							 "By 25 bytes behind the request. Those of neon_page_service then trace it, too; others ignore them.", &tell_page_servers, true, PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomRealVariable("neon_comm.trace_sample_rate",
							 "Fraction of the requests to page servers that is traced.",
							 "Of statements with a traceparent its flag decides.",
							 &sample_rate, 0, 0, 1, PGC_SUSET, 0, NULL, NULL, NULL);
}

bool
nc_tracing_enabled(void)
{
	return nc_enabled && nc_tracer_enabled(&nc_tracing_tracer);
}

/* ---- shared memory ---- */

static Size
traces_bytes(uint32 nrings)
{
	return (Size) nrings * NC_RING_SLOTS * sizeof(NcSlotTrace);
}

Size
nc_tracing_shmem_bytes(void)
{
	if (!nc_tracing_enabled())
		return 0;
	return MAXALIGN(sizeof(NcTraceBuffer)) +
		MAXALIGN(traces_bytes(NC_PROC_COUNT() + nc_aio_rings(nc_pg_aio_handles_max())));
}

/* Behind the rings. */
void
nc_tracing_shmem_startup(void)
{
	bool		found;

	if (!nc_tracing_enabled())
		return;
	buffer = ShmemInitStruct("neon_comm trace buffer", sizeof(NcTraceBuffer), &found);
	if (!found)
		memset(buffer, 0, sizeof(NcTraceBuffer));
	/* not cleared: fresh memory is zero */
	nc_rings.traces = ShmemInitStruct("neon_comm traces", traces_bytes(nc_rings.nrings), &found);
}

void
nc_tracing_counts(uint64 *recorded, uint64 *dropped)
{
	*recorded = buffer != NULL ? atomic_load(&buffer->recorded) : 0;
	*dropped = buffer != NULL ? atomic_load(&buffer->dropped) : 0;
}

/* ---- which ---- */

static void
random_bytes(uint8 *to, Size bytes)
{
	static pg_prng_state state;
	static bool seeded = false;

	if (!seeded)
	{
		/* not that of the server's random(), whose values a user may have fixed */
		if (!pg_prng_strong_seed(&state))
			pg_prng_seed(&state, nc_clock_us() ^ ((uint64) MyProcPid << 40));
		seeded = true;
	}
	for (Size at = 0; at < bytes; at += sizeof(uint64))
	{
		uint64		value = pg_prng_uint64(&state);

		memcpy(to + at, &value, Min(bytes - at, sizeof(value)));
	}
}

static bool
by_chance(void)
{
	uint64		value;

	if (sample_rate <= 0)
		return false;
	random_bytes((uint8 *) &value, sizeof(value));
	/* 53 bits, as many as a double has */
	return (double) (value >> 11) / (double) (UINT64_C(1) << 53) < sample_rate;
}

typedef struct Parent
{
	bool		found;
	bool		sampled;
	NcTraceContext at;
} Parent;

/*
 * Of the statement that the client has sent.  Its text is looked at once: the same address with
 * the same time of its start is the same statement.
 * Whoever exits may have lost the memory that it is in.
 */
static const Parent *
statement_parent(void)
{
	static Parent parent;
	static const char *seen = NULL;
	static TimestampTz seen_at = 0;
	const char *text = am_walsender || proc_exit_inprogress ? NULL : debug_query_string;
	TimestampTz at = GetCurrentStatementStartTimestamp();

	if (text == seen && at == seen_at)
		return &parent;
	parent.found = text != NULL && nc_trace_parent_find(text, &parent.at, &parent.sampled);
	seen = text;
	seen_at = at;
	return &parent;
}

void
nc_tracing_choose(NcSlotTrace *trace)
{
	const Parent *parent = statement_parent();

	if (parent->found ? !parent->sampled : !by_chance())
	{
		trace->sampled = 0;
		return;
	}
	memset(trace, 0, sizeof(*trace));
	trace->sampled = NC_TRACE_SAMPLED | (tell_page_servers ? NC_TRACE_TELL : 0);
	random_bytes(trace->at.trace_id, NC_TRACE_ID_BYTES);
	random_bytes(trace->at.span_id, NC_SPAN_ID_BYTES);
	/* neither may be all zero */
	trace->at.trace_id[0] |= 1;
	trace->at.span_id[0] |= 1;
	if (parent->found)
	{
		memcpy(trace->at.trace_id, parent->at.trace_id, NC_TRACE_ID_BYTES);
		memcpy(trace->parent_id, parent->at.span_id, NC_SPAN_ID_BYTES);
	}
}

/* ---- records ---- */

static uint8
class_of(const NcSlot *slot)
{
	switch ((NcSlotClass) slot->class)
	{
		case NC_SLOT_CLASS_DEMAND:
		case NC_SLOT_CLASS_BULK:
			return NC_TRACE_DEMAND;
		case NC_SLOT_CLASS_PREFETCH:
			return NC_TRACE_AHEAD;
		case NC_SLOT_CLASS_AIO:
			return NC_TRACE_AIO;
	}
	return NC_TRACE_DEMAND;
}

static uint8
tag_of(const NcSlot *slot)
{
	switch ((NcSlotKind) slot->kind)
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

/*
 * The caller's is the slot: in DONE, in COPYING of a handle, or FREE after he has withdrawn it.
 * What the communicator knows of it is zero if it never came to tell.
 */
void
nc_tracing_record(uint32 ring, uint32 index, uint64 woken_us, bool unanswered)
{
	const NcSlotTrace *trace = nc_slot_trace(&nc_rings, ring, index);
	const NcSlot *slot = &nc_rings.rings[ring].slots[index];
	NcTraceRecord record = {
		.at = trace->at,
		.kind = NC_TRACE_READ,
		.failed = unanswered || slot->result != NC_SLOT_RESULT_OK,
		.tag = tag_of(slot),
		.class = class_of(slot),
		.time_us = {
			[NC_TRACE_SUBMITTED] = slot->submit_us,
			[NC_TRACE_TAKEN] = trace->taken_us,
			[NC_TRACE_SENT] = trace->sent_us,
			[NC_TRACE_RECEIVED] = trace->received_us,
			[NC_TRACE_REACHED] = trace->reached_us,
			[NC_TRACE_DONE] = trace->done_us,
			[NC_TRACE_WOKEN] = woken_us
		},
		.reqid = trace->reqid,
		.not_modified_since = slot->not_modified_since,
		.rel = {slot->spc, slot->db, slot->rel, slot->fork},
		.block = slot->block,
		.nblocks = slot->nblocks,
		.shard = trace->shard,
		.pid = (uint32) nc_ring_owner_pid(ring, index)
	};

	memcpy(record.parent_id, trace->parent_id, NC_SPAN_ID_BYTES);
	(void) nc_trace_put(buffer, &record);
}
