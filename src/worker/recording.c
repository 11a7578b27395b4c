/*
 * recording.c
 *	  Begins and ends recordings, and tells the recorder of each request.
 *
 * Runs in the communicator.  While nothing is recorded the engine tells nobody, so it
 * costs nothing.  Files are touched by the recorder's own thread alone; how it fares is
 * looked at from time to time, and shown in neon_comm.recording.
 */
#include "postgres.h"

#include "utils/timestamp.h"

#include "nc/base/clock.h"
#include "nc/record/recorder.h"
#include "nc/shared/settings.h"
#include "nc/shared/shmem.h"

#include "recording.h"

StaticAssertDecl(NC_RECORD_DIRECTORY_BYTES + 64 <= NC_RECORDER_PATH_BYTES, "room for the name of a file");
StaticAssertDecl(NC_RECORD_BLOCKS_MAX == NC_SLOT_BLOCKS_MAX, "the blocks of one request");
StaticAssertDecl(NC_RECORDING_PATH_BYTES == NC_RECORDER_PATH_BYTES &&
				 NC_RECORDING_ERROR_BYTES == NC_RECORDER_ERROR_BYTES, "the row holds what a status does");

/* How often the recorder is looked at. */
#define LOOK_US 100000

/* How long the end of this process may wait for the disk. */
#define LEAVE_MS 1000

static NcRecorder *recorder = NULL;
static uint64_t looked_us = 0;

/* What the recording was begun with, and whether it is the last one until they change. */
static char directory[NC_RECORD_DIRECTORY_BYTES] = "";
static int	size_mb = 0;
static bool spent = false;

/* ---- the row ---- */

static void
set_row(NcRecordingState state)
{
	/* texts come before it: who sees the state sees them */
	atomic_store_explicit(&nc_shared->recording.state, state, memory_order_release);
}

static void
show(const NcRecorderStatus *status)
{
	NcRecordingRow *row = &nc_shared->recording;

	atomic_store(&row->requests, status->records);
	atomic_store(&row->dropped, status->dropped);
	atomic_store(&row->bytes, status->bytes);
	memcpy(row->path, status->path, sizeof(row->path));
	memcpy(row->error, status->error, sizeof(row->error));
}

/* ---- requests ---- */

static const uint8_t kinds[] = {
	[NC_SLOT_KIND_GETPAGE] = NC_REQ_GETPAGE,
	[NC_SLOT_KIND_EXISTS] = NC_REQ_EXISTS,
	[NC_SLOT_KIND_NBLOCKS] = NC_REQ_NBLOCKS,
	[NC_SLOT_KIND_DBSIZE] = NC_REQ_DBSIZE
};

static const uint8_t classes[] = {
	[NC_SLOT_CLASS_DEMAND] = NC_RECORD_FOREGROUND,
	[NC_SLOT_CLASS_PREFETCH] = NC_RECORD_AHEAD,
	[NC_SLOT_CLASS_BULK] = NC_RECORD_PREWARM,
	[NC_SLOT_CLASS_AIO] = NC_RECORD_ASYNC
};

static const uint8_t results[] = {
	[NC_SLOT_RESULT_OK] = NC_RECORD_OK,
	[NC_SLOT_RESULT_PS_ERROR] = NC_RECORD_PS_ERROR,
	[NC_SLOT_RESULT_BAD_REQUEST] = NC_RECORD_REFUSED,
	[NC_SLOT_RESULT_NO_SERVER] = NC_RECORD_REFUSED,
	[NC_SLOT_RESULT_UNREACHABLE] = NC_RECORD_UNREACHABLE
};

/* NcEndedFn: its numbers are the engine's, checked but for those of a request that it refused. */
static void
note(void *ctx, const NcEnded *ended)
{
	NcRecordMap map = {.shards = ended->shards, .stripe_blocks = ended->stripe_blocks};
	NcRecord	record = {
		.start_us = ended->submit_us,
		.took_us = ended->ended_us > ended->submit_us ? ended->ended_us - ended->submit_us : 0,
		.request_lsn = ended->request_lsn,
		.not_modified_since = ended->not_modified_since,
		.rel = ended->rel,
		.block = ended->kind == NC_SLOT_KIND_GETPAGE ? ended->block : 0,
		.nblocks = (uint8_t) ended->nblocks,
		.kind = kinds[ended->kind],
		.class = classes[ended->class],
		.result = ended->cancelled ? NC_RECORD_CANCELLED : results[ended->result],
		.promoted = ended->promoted
	};

	nc_recorder_put(recorder, &map, &record, ended->ended_us);
}

/* ---- begin and end ---- */

static uint64_t
since_1970_us(void)
{
	return (uint64_t) (GetCurrentTimestamp() +
					   (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * SECS_PER_DAY * USECS_PER_SEC);
}

static void
begin(NcEngine *engine)
{
	NcRecorderSettings settings = {
		.size_bytes = (uint64_t) nc_guc_record_size * 1024 * 1024,
		.header.server_version = PG_VERSION_NUM,
		.header.began_us = since_1970_us(),
		.header.protocol_version = (uint8_t) nc_guc_protocol_version
	};
	NcRecorderStatus none = {0};

	strlcpy(directory, nc_guc_record_directory, sizeof(directory));
	size_mb = nc_guc_record_size;
	strlcpy(settings.directory, directory, sizeof(settings.directory));
	strlcpy(settings.header.tenant_id, nc_guc_tenant_id, sizeof(settings.header.tenant_id));
	strlcpy(settings.header.timeline_id, nc_guc_timeline_id, sizeof(settings.header.timeline_id));
	recorder = nc_recorder_start(&settings, nc_clock_us());
	looked_us = 0;
	if (recorder == NULL)
	{
		strlcpy(none.error, "no memory or no thread for it", sizeof(none.error));
		show(&none);
		set_row(NC_RECORDING_FAILED);
		ereport(WARNING,
				(errmsg("neon_comm: requests are not recorded: %s", none.error),
				 errhint("It is tried again when the configuration is reloaded.")));
		return;
	}
	show(&none);
	set_row(NC_RECORDING_STARTING);
	nc_engine_tell_ends(engine, note, NULL);
	if (nc_guc_mode == NC_MODE_DIRECT)
		ereport(WARNING,
				(errmsg("neon_comm: reads of processes in direct mode are not recorded"),
				 errhint("Set neon_comm.mode = communicator while you record.")));
}

static void
tell_started(const NcRecorderStatus *status)
{
	set_row(NC_RECORDING_ON);
	ereport(LOG, (errmsg("neon_comm: requests to page servers are recorded in \"%s\"", status->path)));
}

/* The recorder has ended, by itself or because it was told to. */
static void
tell_ended(const NcRecorderStatus *status)
{
	if (status->state == NC_RECORDER_FAILED)
	{
		set_row(NC_RECORDING_FAILED);
		ereport(WARNING,
				(errmsg("neon_comm: requests are not recorded any more: %s", status->error),
				 errdetail("The server goes on without a recording."),
				 errhint("Look after neon_comm.record_directory and neon_comm.record_size and reload the configuration, or set neon_comm.record to off.")));
		return;
	}
	set_row(status->why == NC_RECORD_FULL ? NC_RECORDING_FULL : NC_RECORDING_OFF);
	ereport(LOG,
			(errmsg("neon_comm: the recording \"%s\" has ended: %s", status->path,
					nc_record_why_name(status->why)),
			 errdetail("It has %llu requests in %llu bytes; %llu were dropped because the disk was slow.",
					   (unsigned long long) status->records, (unsigned long long) status->bytes,
					   (unsigned long long) status->dropped)));
}

static bool
has_changed(void)
{
	return strcmp(directory, nc_guc_record_directory) != 0 || size_mb != nc_guc_record_size;
}

/* One recorder at a time: while one ends, the next one has to wait. */
static void
consider(NcEngine *engine)
{
	if (recorder != NULL && (!nc_guc_record || has_changed()))
	{
		nc_recorder_stop(recorder, NC_RECORD_STOPPED);
		nc_engine_tell_ends(engine, NULL, NULL);
	}
	if (!nc_guc_record || has_changed())
		spent = false;
	if (recorder == NULL && nc_guc_record && !spent)
		begin(engine);
}

void
nc_recording_apply(NcEngine *engine)
{
	/* what failed is tried again; what is full is not, until it is asked for anew */
	if (atomic_load(&nc_shared->recording.state) == NC_RECORDING_FAILED)
		spent = false;
	consider(engine);
	if (!nc_guc_record && recorder == NULL)
		set_row(NC_RECORDING_OFF);
}

static void
look(NcEngine *engine)
{
	NcRecorderStatus status;
	bool		starting = atomic_load(&nc_shared->recording.state) == NC_RECORDING_STARTING;

	nc_recorder_look(recorder, &status);
	show(&status);
	if (starting && status.path[0] != '\0')
		tell_started(&status);
	if (status.state != NC_RECORDER_ENDED && status.state != NC_RECORDER_FAILED)
		return;
	nc_engine_tell_ends(engine, NULL, NULL);
	nc_recorder_leave(recorder, 0);
	recorder = NULL;
	tell_ended(&status);
	/* what was stopped for another one makes room for it; what ended by itself has not */
	spent = status.state == NC_RECORDER_FAILED || status.why != NC_RECORD_STOPPED;
	consider(engine);
}

void
nc_recording_turn(NcEngine *engine)
{
	uint64_t	now_us;

	if (recorder == NULL)
		return;
	now_us = nc_clock_us();
	nc_recorder_turn(recorder, now_us);
	if (now_us - looked_us < LOOK_US)
		return;
	looked_us = now_us;
	look(engine);
}

void
nc_recording_end(NcEngine *engine)
{
	if (recorder == NULL)
		return;
	nc_engine_tell_ends(engine, NULL, NULL);
	nc_recorder_leave(recorder, LEAVE_MS);
	recorder = NULL;
	set_row(NC_RECORDING_OFF);
}
