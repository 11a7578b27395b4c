/*
 * trace.c
 *	  Traced requests of a page server, and the worker that writes them out.  See
 *	  docs/tracing.md.
 *
 * A compute says with a request that it is traced.  Records are made by page service
 * workers when they have answered; "neon page service tracer" is there only when it has
 * an outlet, and without it there is no memory for records.
 */
#include "page_service.h"

#include "common/pg_prng.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/shmem.h"
#include "utils/guc.h"

#include "nc/safety/workers.h"
#include "nc/tracer/tracer.h"

#define TRACER "neon page service tracer"

static char *trace_file;
static int	trace_file_size;
static char *collector;
static NcTraceBuffer *buffer = NULL;

static const NcTracer tracer = {
	.service = "neon_page_service",
	.file = &trace_file,
	.file_size_kb = &trace_file_size,
	.collector = &collector,
	.buffer = &buffer
};

extern PGDLLEXPORT void nc_svc_tracer_main(Datum arg);

/* ---- settings and memory ---- */

static bool
check_collector(char **newval, void **extra, GucSource source)
{
	return nc_tracer_collector_good(*newval);
}

void
nc_svc_trace_define(void)
{
	DefineCustomStringVariable("neon_page_service.trace_collector",
							   "Collector on this machine that gets traced requests, as http://127.0.0.1:4318/v1/traces.",
							   "Empty: none.", &collector, "", PGC_POSTMASTER, 0,
							   check_collector, NULL, NULL);
	DefineCustomStringVariable("neon_page_service.trace_file", "File that traced requests are written to.",
							   "Empty: none.", &trace_file, "", PGC_POSTMASTER, GUC_SUPERUSER_ONLY,
							   NULL, NULL, NULL);
	DefineCustomIntVariable("neon_page_service.trace_file_size",
							"Size at which the file of traced requests is put aside; one older one is kept.",
							"With neon_page_service.trace_file.", &trace_file_size, 16 * 1024, 1024, MAX_KILOBYTES, PGC_SIGHUP,
							GUC_UNIT_KB, NULL, NULL, NULL);
}

Size
nc_svc_trace_shmem_bytes(void)
{
	return nc_tracer_enabled(&tracer) ? MAXALIGN(sizeof(NcTraceBuffer)) : 0;
}

void
nc_svc_trace_shmem_init(void)
{
	bool		found;

	if (!nc_tracer_enabled(&tracer))
		return;
	buffer = ShmemInitStruct("neon_page_service trace buffer", sizeof(NcTraceBuffer), &found);
	if (!found)
		memset(buffer, 0, sizeof(NcTraceBuffer));
}

void
nc_svc_trace_counts(uint64 *recorded, uint64 *dropped)
{
	*recorded = buffer != NULL ? atomic_load(&buffer->recorded) : 0;
	*dropped = buffer != NULL ? atomic_load(&buffer->dropped) : 0;
}

/* ---- records ---- */

static void
new_span_id(uint8 *id)
{
	static pg_prng_state state;
	static bool seeded = false;
	uint64		value;

	if (!seeded)
	{
		if (!pg_prng_strong_seed(&state))
			pg_prng_seed(&state, nc_clock_us() ^ ((uint64) MyProcPid << 40));
		seeded = true;
	}
	value = pg_prng_uint64(&state) | 1;
	memcpy(id, &value, NC_SPAN_ID_BYTES);
}

void
nc_svc_trace_answer(const NcPsRequest *req, uint64 came_us, uint64 began_us, uint64 ended_us, bool failed)
{
	NcTraceRecord record;

	if (buffer == NULL || req->trace == NULL)
		return;
	record = (NcTraceRecord) {
		.at = *req->trace,
		.kind = NC_TRACE_ANSWER,
		.failed = failed,
		.tag = (uint8) req->tag,
		.time_us = {
			[NC_TRACE_SUBMITTED] = came_us,
			[NC_TRACE_TAKEN] = began_us,
			[NC_TRACE_SENT] = ended_us
		},
		.reqid = req->reqid,
		.not_modified_since = req->not_modified_since,
		.rel = req->rel,
		.block = req->block,
		.nblocks = req->tag == NC_REQ_GETPAGE ? 1 : 0,
		.pid = (uint32) MyProcPid
	};
	memcpy(record.parent_id, req->trace->span_id, NC_SPAN_ID_BYTES);
	new_span_id(record.at.span_id);
	(void) nc_trace_put(buffer, &record);
}

/* ---- the worker ---- */

void
nc_svc_trace_register(void)
{
	BackgroundWorker worker = {
		.bgw_flags = BGWORKER_SHMEM_ACCESS,
		.bgw_start_time = BgWorkerStart_PostmasterStart,
		.bgw_restart_time = 1,
	};

	if (!nc_tracer_enabled(&tracer))
		return;
	strlcpy(worker.bgw_library_name, "neon_page_service", BGW_MAXLEN);
	strlcpy(worker.bgw_function_name, "nc_svc_tracer_main", BGW_MAXLEN);
	strlcpy(worker.bgw_type, TRACER, BGW_MAXLEN);
	strlcpy(worker.bgw_name, TRACER, BGW_MAXLEN);
	nc_workers_register(&worker);
}

void
nc_svc_tracer_main(Datum arg)
{
	pqsignal(SIGTERM, SignalHandlerForShutdownRequest);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	BackgroundWorkerUnblockSignals();
	nc_tracer_begin(&tracer);
	while (!ShutdownRequestPending)
	{
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
		nc_tracer_turn(nc_svc_wait_tracer);
	}
	nc_tracer_end();
	/* code 0 would keep the postmaster from ever starting it again */
	proc_exit(1);
}
