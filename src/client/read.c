/*
 * read.c
 *	  A read from its question to its answer, whichever way it goes: which
 *	  transport, how long is waited, whether the answer is good, what is said.
 *
 * Runs in every process of the compute.  The transports are the ring of the process
 * (ring_transport.c) and, with neon_comm.mode = direct, connections of its own
 * (src/direct); they submit, wait and give the answer.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "miscadmin.h"
#include "postmaster/startup.h"
#include "replication/walsender.h"
#include "storage/bufpage.h"
#include "storage/latch.h"
#include "storage/pmsignal.h"

#include "nc/base/clock.h"
#include "nc/client/client.h"
#include "nc/compat/page.h"
#include "nc/compat/server.h"
#include "nc/direct/direct.h"
#include "nc/feed/feed.h"
#include "nc/lsn/request_lsn.h"
#include "nc/shared/settings.h"
#include "nc/shared/shmem.h"
#include "nc/shared/waits.h"
#include "client_int.h"

/* How often a page that is damaged is asked for again before bufmgr may report it. */
#define DAMAGED_RETRIES 3

/* Such pages are told at most this often. */
#define DAMAGED_LOG_PERIOD_US 5000000

/* Pause of recovery before it asks again after an error. */
#define RECOVERY_RETRY_MS 500

/* By neon_comm.mode. */
static const NcTransport *const transports[] = {
	[NC_MODE_COMMUNICATOR] = &nc_ring_transport,
	[NC_MODE_DIRECT] = &nc_direct_transport
};

static const char *
describe_block(const NcRelKey *rel, BlockNumber block)
{
	static char text[160];

	snprintf(text, sizeof(text), "block %u of relation %u/%u/%u", block, rel->spc, rel->db, rel->rel);
	return text;
}

static const char *
describe_ask(const NcAsk *ask)
{
	static char text[160];

	switch (ask->kind)
	{
		case NC_SLOT_KIND_GETPAGE:
			return describe_block(&ask->rel, ask->block);
		case NC_SLOT_KIND_EXISTS:
		case NC_SLOT_KIND_NBLOCKS:
			snprintf(text, sizeof(text), "the length of fork %u of relation %u/%u/%u", ask->rel.fork,
					 ask->rel.spc, ask->rel.db, ask->rel.rel);
			break;
		case NC_SLOT_KIND_DBSIZE:
			snprintf(text, sizeof(text), "the size of database %u", ask->rel.db);
			break;
	}
	return text;
}

/* ---- while it waits ---- */

/*
 * After a crash restart the postmaster starts no background worker until redo
 * has begun, and then does not look again by itself (seen on 15: StartWorkerNeeded
 * was cleared by FatalError).  Recovery waits for the communicator, so it asks.
 */
static void
ask_for_workers(void)
{
	if (atomic_load(&nc_shared->communicator_pid) == 0)
		SendPostmasterSignal(PMSIGNAL_BACKGROUND_WORKER_CHANGE);
}

static void
process_interrupts(void)
{
	if (AmStartupProcess())
	{
		nc_pg_startup_interrupts();
		ask_for_workers();
	}
	else
		nc_pg_storage_interrupts();
}

/* One process tells for all that see the same, hundreds may. Recovery always does. */
static bool
may_log(_Atomic uint64_t *last, uint64 period_us)
{
	uint64		last_us = atomic_load(last);
	uint64		now_us = nc_clock_us();	/* after last_us, which is nobody's future then */

	if (AmStartupProcess())
		return true;
	return now_us - last_us >= period_us &&
		atomic_compare_exchange_strong(last, &last_us, now_us);
}

static void
log_wait(const NcAsk *ask, NcWaitFor what, int waited_s)
{
	char		shard[NC_RING_ERROR_BYTES];
	char		progress[96];

	if (what == NC_WAIT_FOR_MEMORY)
	{
		ereport(LOG,
				(errmsg("still waiting for memory to receive %s", describe_ask(ask)),
				 errdetail("Waited %d s; the %d pages of shared memory for reads into private memory are in use by others.",
						   waited_s, NC_BOUNCE_PAGES),
				 errhidestmt(true)));
		return;
	}
	nc_describe_shard(&ask->rel, ask->block, shard, sizeof(shard));
	ask->over->progress(ask, progress, sizeof(progress));
	ereport(LOG,
			(errmsg("still waiting for page servers: %s", describe_ask(ask)),
			 errdetail("Waited %d s for not_modified_since %X/%X from %s; %s. Others may be waiting too.",
					   waited_s, LSN_FORMAT_ARGS(ask->not_modified_since), shard, progress),
			 errhint("See the views neon_comm.connections, neon_comm.slots and neon_comm.page_servers."),
			 errhidestmt(true)));
}

pg_noreturn static void
raise_timeout(const NcAsk *ask, NcWaitFor what, int waited_s)
{
	char		shard[NC_RING_ERROR_BYTES];

	if (what == NC_WAIT_FOR_MEMORY)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
				 errmsg("no memory became free to receive %s", describe_ask(ask)),
				 errdetail("Waited %d s (neon_comm.request_timeout); the %d pages of shared memory for reads into private memory are in use by others.",
						   waited_s, NC_BOUNCE_PAGES),
				 errhint("Processes that were stopped may hold them; see the view neon_comm.slots.")));
	nc_describe_shard(&ask->rel, ask->block, shard, sizeof(shard));
	ereport(ERROR,
			(errcode(ERRCODE_CONNECTION_FAILURE),
			 errmsg("no answer from page servers for %s", describe_ask(ask)),
			 errdetail("Waited %d s (neon_comm.request_timeout) for request_lsn %X/%X, not_modified_since %X/%X from %s.",
					   waited_s, LSN_FORMAT_ARGS(ask->request_lsn),
					   LSN_FORMAT_ARGS(ask->not_modified_since), shard),
			 errhint("The server's log says what the communicator meets. If a page server has moved, change neon_comm.page_servers in postgresql.conf and run \"pg_ctl reload\", which needs no session; else see the page server's log.")));
}

static int
waited_s(const NcAsk *ask)
{
	return (int) ((nc_clock_us() - ask->started_us) / 1000000);
}

bool
nc_client_waited_long(NcAsk *ask, NcWaitFor what)
{
	uint64		waited_us = nc_clock_us() - ask->started_us;
	uint64		log_us = (uint64) nc_guc_wait_log_period * 1000;

	if (waited_us - ask->logged_us >= log_us)
	{
		ask->logged_us = waited_us;
		if (may_log(&nc_shared->wait_logged_us, log_us))
			log_wait(ask, what, waited_s(ask));
	}
	return waited_us >= (uint64) nc_guc_request_timeout * 1000;
}

void
nc_client_fail_timeout(const NcAsk *ask)
{
	nc_stat(NC_COUNTER_REQUEST_TIMEOUTS, 1);
	raise_timeout(ask, NC_WAIT_FOR_ANSWER, waited_s(ask));
}

/* Raises an error when the deadline has passed, wherever an error may be raised. */
static void
check_deadline(NcAsk *ask, NcWaitFor what)
{
	bool		passed = nc_client_waited_long(ask, what);

	/* Recovery has nobody to report to: it waits until it is told to stop. */
	if (!passed || CritSectionCount > 0 || AmStartupProcess())
		return;
	nc_stat(NC_COUNTER_REQUEST_TIMEOUTS, 1);
	raise_timeout(ask, what, waited_s(ask));
}

static void
idle(NcAsk *ask, NcWaitFor what)
{
	process_interrupts();
	check_deadline(ask, what);
}

static void
begin_wait(NcAsk *ask, const NcTransport *over)
{
	ask->over = over;
	ask->idle = idle;
	ask->started_us = nc_clock_us();
	if (AmStartupProcess())
		ask_for_workers();
}

void
nc_client_wait(NcSlot *slot, const NcRelKey *rel, BlockNumber block)
{
	NcAsk		ask = {
		.rel = *rel, .block = block, .not_modified_since = slot->not_modified_since
	};

	begin_wait(&ask, &nc_ring_transport);
	nc_client_await(slot, &ask);
}

/* ---- asking ---- */

void
nc_client_make_available(XLogRecPtr nms)
{
	if (RecoveryInProgress())
	{
		nc_feed_ring(nms);
		return;
	}
	if (XLogNeedsFlush(nms))
	{
		nc_stat(NC_COUNTER_LSN_FLUSHES, 1);
		XLogFlush(nms);
	}
	nc_feed_ring(nms);
}

/* The error of a finished request, with what the page server said. */
static void
raise_failure(const NcAsk *ask, NcSlotResult result)
{
	switch (result)
	{
		case NC_SLOT_RESULT_NO_SERVER:
			ereport(ERROR,
					(errcode(ERRCODE_CONNECTION_DOES_NOT_EXIST),
					 errmsg("could not read %s: no page server is configured", describe_ask(ask)),
					 errhint("Set neon_comm.page_servers and reload the configuration.")));
			break;
		case NC_SLOT_RESULT_OK:
		case NC_SLOT_RESULT_PS_ERROR:
		case NC_SLOT_RESULT_BAD_REQUEST:
		case NC_SLOT_RESULT_UNREACHABLE:
			ereport(ERROR,
					(errcode(result == NC_SLOT_RESULT_UNREACHABLE ? ERRCODE_CONNECTION_FAILURE :
							 ERRCODE_IO_ERROR),
					 errmsg("could not read %s from its page server: %s", describe_ask(ask),
							ask->error[0] != '\0' ? ask->error : "the request was refused"),
					 errdetail("Asked for request_lsn %X/%X, not_modified_since %X/%X.",
							   LSN_FORMAT_ARGS(ask->request_lsn),
							   LSN_FORMAT_ARGS(ask->not_modified_since))));
			break;
	}
}

/* A walsender that decodes may want pages when the communicator has gone. */
NcMode
nc_client_mode(void)
{
	return am_walsender && atomic_load(&nc_shared->communicator_leaves) != 0 ? NC_MODE_DIRECT :
		(NcMode) nc_guc_mode;
}

static const NcTransport *
choose_transport(void)
{
	NcMode		mode = nc_client_mode();

	/* an interrupt handler reads within a call: that way is not free */
	if (nc_direct_busy())
		return &nc_ring_transport;
	if (mode != NC_MODE_DIRECT)
		nc_direct_close();
	return transports[mode];
}

/* False: an error answer, in recovery, which has nobody to report to. */
static bool
ask_page_servers(NcAsk *ask)
{
	const NcTransport *over;
	NcSlotResult result;

	(void) nc_client_attach();
	over = choose_transport();
	nc_client_make_available(ask->not_modified_since);
	begin_wait(ask, over);
	result = over->ask(ask);
	if (result == NC_SLOT_RESULT_OK)
		return true;
	if (!AmStartupProcess())
		raise_failure(ask, result);
	return false;
}

/* ---- judging the answer ---- */

void
nc_client_note_damaged(const NcRelKey *rel, BlockNumber block)
{
	char		shard[NC_RING_ERROR_BYTES];

	nc_stat(NC_COUNTER_DAMAGED_ANSWERS, 1);
	if (!may_log(&nc_shared->damaged_logged_us, DAMAGED_LOG_PERIOD_US))
		return;
	nc_describe_shard(rel, block, shard, sizeof(shard));
	ereport(LOG,
			(errmsg("page server gave a damaged block %u of relation %u/%u/%u, asking again", block,
					rel->spc, rel->db, rel->rel),
			 errdetail("It came from %s. %lld damaged pages came so far.", shard,
					   (long long) nc_counter_value(&nc_shared->counters, NC_COUNTER_DAMAGED_ANSWERS)),
			 errhidestmt(true)));
}

/*
 * A page that bufmgr would refuse was damaged on its way or by a faulty server,
 * and another answer may be good.  Without checksums only its header can tell.
 */
static bool
is_damaged(const NcRead *read, int i)
{
	if (nc_page_is_sound(read->pages[i], read->block + i))
		return false;
	nc_client_note_damaged(&read->rel, read->block + i);
	return true;
}

static void
check_page(const NcRead *read, int i, XLogRecPtr flush)
{
	XLogRecPtr	lsn = PageIsNew(read->pages[i]) ? 0 : PageGetLSN(read->pages[i]);

	switch (nc_answer_verdict(lsn, read->exact[i], flush))
	{
		case NC_ANSWER_OK:
			return;
		case NC_ANSWER_STALE:
			nc_stat(NC_COUNTER_STALE_ANSWERS, 1);
			ereport(ERROR,
					(errcode(ERRCODE_DATA_CORRUPTED),
					 errmsg("page server gave an old version of block %u of relation %u/%u/%u",
							read->block + i, read->rel.spc, read->rel.db, read->rel.rel),
					 errdetail("The page has LSN %X/%X, but %X/%X was written here; asked for not_modified_since %X/%X.",
							   LSN_FORMAT_ARGS(lsn), LSN_FORMAT_ARGS(read->exact[i]),
							   LSN_FORMAT_ARGS(read->not_modified_since)),
					 errhint("The page was not used. The page server has lost or not applied WAL; see its log.")));
			break;
		case NC_ANSWER_FUTURE:
			nc_stat(NC_COUNTER_FUTURE_ANSWERS, 1);
			ereport(ERROR,
					(errcode(ERRCODE_DATA_CORRUPTED),
					 errmsg("page server gave a version of block %u of relation %u/%u/%u from the future",
							read->block + i, read->rel.spc, read->rel.db, read->rel.rel),
					 errdetail("The page has LSN %X/%X, but this server's WAL ends at %X/%X.",
							   LSN_FORMAT_ARGS(lsn), LSN_FORMAT_ARGS(flush)),
					 errhint("The page was not used. That page server has WAL which this server does not have. Keep the directories of both and see docs/operations.md, \"An answer was refused\".")));
			break;
	}
}

/* Checks every page. False: one is damaged. */
static bool
check_answer(const NcRead *read, bool last)
{
	XLogRecPtr	flush = RecoveryInProgress() ? InvalidXLogRecPtr : GetFlushRecPtr(NULL);

	for (int i = 0; i < read->nblocks; i++)
	{
		if (!last && is_damaged(read, i))
			return false;
		check_page(read, i, flush);
	}
	return true;
}

/* ---- a read from start to end ---- */

/* What came of one attempt to read. */
typedef enum Attempt
{
	ATTEMPT_OK,
	ATTEMPT_REFUSED,			/* an error answer, in recovery */
	ATTEMPT_DAMAGED				/* a page whose checksum or header is wrong */
} Attempt;

/* Asks once for the pages. `last`: damaged ones are left for bufmgr to report. */
static Attempt
read_once(const NcRead *read, bool last, char *error)
{
	NcAsk		ask = {
		.rel = read->rel,
		.block = read->block,
		.nblocks = read->nblocks,
		.pages = read->pages,
		.background = read->background,
		.request_lsn = read->request_lsn,
		.not_modified_since = read->not_modified_since,
		.error = error
	};

	error[0] = '\0';
	if (!ask_page_servers(&ask))
		return ATTEMPT_REFUSED;
	if (!check_answer(read, last))
		return ATTEMPT_DAMAGED;
	nc_stat(NC_COUNTER_READS_REMOTE, read->nblocks);
	nc_tally(NC_TALLY_WAITED, read->nblocks);
	if (ask.over == &nc_direct_transport)
		nc_stat(NC_COUNTER_READS_DIRECT, read->nblocks);
	return ATTEMPT_OK;
}

/* As read_once, for a question without pages: true when the answer is that there is no such relation. */
static bool
is_gone(const NcRead *read)
{
	char		error[NC_RING_ERROR_BYTES] = "";
	NcAsk		ask = {
		.kind = NC_SLOT_KIND_EXISTS,
		.rel = read->rel,
		.request_lsn = read->request_lsn,
		.not_modified_since = read->not_modified_since,
		.error = error
	};

	return ask_page_servers(&ask) && ask.value == 0;
}

/* Recovery waits: a moment's pause, and a line in the log now and then. */
static void
pause_recovery(const char *what, const char *error, uint64 *logged_us)
{
	if (nc_clock_us() - *logged_us >= (uint64) nc_guc_wait_log_period * 1000)
	{
		*logged_us = nc_clock_us();
		ereport(LOG,
				(errmsg("recovery waits for %s: its page server answers with an error", what),
				 errdetail("%s", error),
				 errhint("Recovery goes on as soon as the page server answers.")));
	}
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					 RECOVERY_RETRY_MS, nc_wait_event(NC_WAIT_RECOVERY_RETRY));
	ResetLatch(MyLatch);
	process_interrupts();
}

void
nc_client_read(const NcRead *read)
{
	char		error[NC_RING_ERROR_BYTES];
	uint64		logged_us = 0;
	int			damaged = 0;
	Attempt		attempt;

	Assert(read->nblocks >= 1 && read->nblocks <= NC_SLOT_BLOCKS_MAX);
	while ((attempt = read_once(read, damaged == DAMAGED_RETRIES, error)) != ATTEMPT_OK)
	{
		if (attempt == ATTEMPT_DAMAGED)
		{
			damaged++;
			continue;
		}

		/*
		 * Redo of a relation that a later record drops asks for pages the page
		 * server does not have any more; zeroes let the redo routine do the
		 * right thing.
		 */
		if (is_gone(read))
		{
			for (int i = 0; i < read->nblocks; i++)
				memset(read->pages[i], 0, BLCKSZ);
			nc_stat(NC_COUNTER_READS_ZERO_RECOVERY, read->nblocks);
			return;
		}
		pause_recovery(describe_block(&read->rel, read->block), error, &logged_us);
	}
}

/* ---- what has no pages ---- */

uint64
nc_client_ask(NcSlotKind kind, const NcRelKey *rel, XLogRecPtr not_modified_since)
{
	char		error[NC_RING_ERROR_BYTES];
	uint64		logged_us = 0;

	for (;;)
	{
		NcAsk		ask = {
			.kind = kind,
			.rel = *rel,
			.request_lsn = NC_LSN_MAX,
			.not_modified_since = not_modified_since,
			.error = error
		};

		error[0] = '\0';
		if (ask_page_servers(&ask))
			return ask.value;
		pause_recovery(describe_ask(&ask), error, &logged_us);
	}
}
