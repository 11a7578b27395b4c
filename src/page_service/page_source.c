/*
 * page_source.c
 *	  Answers page requests from the standby's shared buffers.
 *
 * Runs in page service workers.  Waiting for replay is not done here: readiness
 * says whether a request may be answered now, and the worker asks again later.
 *
 * Guarantees: nothing is answered before replay has passed the minimum recovery
 * point, so that no page of an inconsistent data directory leaves the server; a
 * page is copied under its content lock and inside the gate (gate.c); an ERROR of
 * the server becomes an error answer and everything the read held is released.
 *
 * Never takes a relation lock or a snapshot, never reads the catalog, never
 * extends a relation and never dirties a page.
 */
#include "page_service.h"

#include <sys/stat.h>

#include "access/xlog.h"
#include "access/xlogrecovery.h"
#include "catalog/pg_control.h"
#include "catalog/pg_tablespace_d.h"
#include "common/controldata_utils.h"
#include "common/relpath.h"
#include "miscadmin.h"
#include "replication/walreceiver.h"
#include "storage/bufmgr.h"
#include "storage/bufpage.h"
#include "storage/condition_variable.h"
#include "storage/fd.h"
#include "storage/smgr.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "nc/shard/shard_map.h"

#define ERROR_TEXT_BYTES 1024

/* pg_control is read at most this often while consistency is awaited. */
#define CONTROL_FILE_INTERVAL_MS 20

/* Descriptors and relation entries of this process are dropped after so many reads. */
#define READS_PER_CLOSE 100000

/* An answer being made: the request, its protocol version and the place for it. */
typedef struct Answer
{
	const NcPsRequest *req;
	int			version;
	NcWriter   *w;
	NcPsResponse resp;
} Answer;

/*
 * Length of the fork read last.  A fork only shrinks when the generation moves,
 * so below this length nothing needs to be asked.
 */
static struct
{
	bool		valid;
	NcRelKey	rel;
	uint64		generation;
	BlockNumber nblocks;
} last_fork;

static MemoryContext read_context;
static uint32 reads_since_close;
static uint8_t slru_pages[NC_SLRU_SEGMENT_BLOCKS * NC_PAGE_BYTES];
static const uint8_t zero_page[NC_PAGE_BYTES];

void
nc_svc_source_init(void)
{
	read_context = AllocSetContextCreate(TopMemoryContext, "neon page service read",
										 ALLOCSET_DEFAULT_SIZES);
	CreateAuxProcessResourceOwner();
	CurrentResourceOwner = AuxProcessResourceOwner;
	nc_svc_read_synchronously();
}

/* ---- consistency and replay ---- */

/*
 * The same three conditions as the server's own, read from pg_control, because
 * the startup process tells nobody as long as no record arrives.  A control file
 * that startup has not adopted yet has another state; a torn one another checksum.
 */
static bool
control_file_passed(XLogRecPtr replayed)
{
	bool		crc_ok;
	ControlFileData *control = get_controlfile(DataDir, &crc_ok);
	bool		passed = crc_ok &&
		control->state == DB_IN_ARCHIVE_RECOVERY &&
		!XLogRecPtrIsInvalid(control->minRecoveryPoint) &&
		control->minRecoveryPoint <= replayed &&
		XLogRecPtrIsInvalid(control->backupStartPoint) &&
		!control->backupEndRequired;

	pfree(control);
	return passed;
}

bool
nc_svc_source_consistent(void)
{
	static TimestampTz next_check = 0;
	TimestampTz now;
	XLogRecPtr	replayed;

	if (pg_atomic_read_u32(&nc_svc_shared->consistent) != 0)
		return true;
	now = nc_svc_clock();
	if (now < next_check)
		return false;
	next_check = TimestampTzPlusMilliseconds(now, CONTROL_FILE_INTERVAL_MS);

	replayed = GetXLogReplayRecPtr(NULL);
	if (XLogRecPtrIsInvalid(replayed) || !control_file_passed(replayed))
		return false;
	pg_atomic_write_u32(&nc_svc_shared->consistent, 1);
	return true;
}

/* What is wrong with the LSNs of a request, or NULL. */
static const char *
bad_lsns(const NcPsRequest *req)
{
	if (req->request_lsn == NC_LSN_INVALID)
		return "Bad request: request_lsn is 0";
	if (req->request_lsn < req->not_modified_since)
		return "Bad request: request_lsn is older than not_modified_since";
	if (req->not_modified_since == NC_LSN_MAX)
		return "Bad request: not_modified_since must be a real LSN";
	return NULL;
}

NcSvcReadiness
nc_svc_source_readiness(const NcPsRequest *req)
{
	XLogRecPtr	replayed;

	if (bad_lsns(req) != NULL || !RecoveryInProgress())
		return NC_SVC_READY;	/* for an error answer */
	nc_svc_demand(req->not_modified_since);
	if (!nc_svc_source_consistent())
		return NC_SVC_WAIT;
	replayed = GetXLogReplayRecPtr(NULL);
	return replayed >= req->not_modified_since && nc_svc_judged_covers(replayed) ?
		NC_SVC_READY : NC_SVC_WAIT;
}

void
nc_svc_source_describe_replay(char *text, size_t bytes)
{
	XLogRecPtr	replayed = GetXLogReplayRecPtr(NULL);
	XLogRecPtr	received = GetWalRcvFlushRecPtr(NULL, NULL);

	bool		joins_later = pg_atomic_read_u32(&nc_svc_shared->join_wanted) != 0 && !WalRcvStreaming();

	/* the reason first: a compute's log has room for 127 bytes */
	snprintf(text, bytes, "%sreplay is at " NC_LSN_FMT ", WAL is received up to " NC_LSN_FMT
			 "%s%s%s%s%s", joins_later ? "a compute is joined when all WAL that is here has been replayed: " : "",
			 NC_LSN_ARGS(replayed), NC_LSN_ARGS(received),
			 WalRcvStreaming() ? "" : ", the WAL receiver is not streaming",
			 GetRecoveryPauseState() == RECOVERY_NOT_PAUSED ? "" : ", replay is paused",
			 nc_svc_lazy_replay ? ", lazy replay is on" : "",
			 nc_svc_source_consistent() ? "" : ", recovery is not consistent yet",
			 nc_svc_judged_covers(replayed) ? "" : ", beyond what was judged with the compute");
}

/* ---- building answers ---- */

static void
answer_begin(Answer *a, const NcPsRequest *req, int version, NcWriter *w)
{
	*a = (Answer) {.req = req, .version = version, .w = w};
	a->resp.reqid = req->reqid;
	a->resp.request_lsn = req->request_lsn;
	a->resp.not_modified_since = req->not_modified_since;
	a->resp.rel = req->rel;
	a->resp.block = req->block;
	a->resp.db = req->db;
	a->resp.slru_kind = req->slru_kind;
	a->resp.slru_segno = req->slru_segno;
}

/* The caller made sure of the room (NC_SVC_OUT_BYTES); the session checks the writer. */
static void
answer_send(Answer *a, NcRespTag tag)
{
	uint8_t    *length_at = nc_frame_begin(a->w, 'd');

	a->resp.tag = tag;
	if (!nc_ps_response_encode(a->w, a->version, &a->resp))
		a->w->failed = true;
	nc_frame_end(a->w, length_at);
}

static void
answer_send_error(Answer *a, const char *text)
{
	a->resp.message = text;
	a->resp.message_bytes = strlen(text);
	answer_send(a, NC_RESP_ERROR);
	nc_svc_count(&nc_svc_self()->errors);
}

static void answer_page_error(Answer *a, const char *fmt,...) pg_attribute_printf(2, 3);

static void
answer_page_error(Answer *a, const char *fmt,...)
{
	char		text[ERROR_TEXT_BYTES];
	va_list		args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	answer_send_error(a, text);
}

#define REL_FMT "%u/%u/%u fork %u"
#define REL_ARGS(r) (r)->spc, (r)->db, (r)->rel, (r)->fork

static void
answer_not_found(Answer *a)
{
	answer_page_error(a, "relation not found: " REL_FMT, REL_ARGS(&a->req->rel));
}

/* ---- forks ---- */

/*
 * Names that cannot exist are kept away from the buffer manager: with a database
 * beside the global tablespace one file would get two identities there.
 */
static bool
fork_is_possible(const NcRelKey *rel)
{
	return (rel->spc == GLOBALTABLESPACE_OID) == (rel->db == InvalidOid) &&
		rel->spc != InvalidOid;
}

/*
 * Length of a fork, false if there is none.  Inside the gate an open file is an
 * existing file, so smgrexists, which opens the file anew each time, is asked only
 * for others.
 */
static bool
fork_length(const NcRelKey *rel, BlockNumber *nblocks)
{
	SMgrRelation reln;

	*nblocks = 0;
	if (!fork_is_possible(rel))
		return false;
	reln = NC_SVC_SMGROPEN(NC_SVC_REL_FILE(rel));
	if (reln->md_num_open_segs[rel->fork] == 0 && !smgrexists(reln, rel->fork))
		return false;
	*nblocks = smgrnblocks(reln, rel->fork);
	return true;
}

static bool
fork_is_map(const NcRelKey *rel)
{
	return rel->fork == NC_FORK_FSM || rel->fork == NC_FORK_VM;
}

/* As fork_length, with the answer of the last call where it is good enough. */
static bool
fork_has_block(const NcRelKey *rel, BlockNumber block, uint64 generation, bool *exists)
{
	BlockNumber nblocks;

	*exists = true;
	if (last_fork.valid && last_fork.generation == generation &&
		nc_rel_key_equal(&last_fork.rel, rel) && block < last_fork.nblocks)
		return true;

	*exists = fork_length(rel, &nblocks);
	last_fork.valid = *exists;
	last_fork.rel = *rel;
	last_fork.generation = generation;
	last_fork.nblocks = nblocks;
	return *exists && block < nblocks;
}

/* ---- GetPage ---- */

static bool
shard_refuses(Answer *a)
{
	uint32		shard;

	if (nc_svc_shard_count <= 0)
		return false;
	if (!nc_svc_shards_fit())
	{
		answer_page_error(a, "wrong shard: neon_page_service.shard_number, shard_count and stripe_size "
					 "(%s, %d, %d) of this page server do not fit together",
					 nc_svc_shard_numbers, nc_svc_shard_count, nc_svc_stripe_size);
		return true;
	}
	shard = nc_shard_of_block(nc_svc_shard_count, Max(nc_svc_stripe_size, 1), &a->req->rel,
							  a->req->block);
	if (nc_svc_shard_is_served(shard))
		return false;
	answer_page_error(a, "wrong shard: block %u of " REL_FMT " belongs to shard %u, this page server is "
				 "shard %s of %d", a->req->block, REL_ARGS(&a->req->rel), shard,
				 nc_svc_shard_numbers, nc_svc_shard_count);
	return true;
}

/* The page is locked and may be of any age; the answer is made from it. */
static void
answer_from_page(Answer *a, Page page)
{
	static PGAlignedBlock copy;
	XLogRecPtr	lsn = PageGetLSN(page);

	if (!nc_svc_judged_covers(lsn))
	{
		answer_page_error(a, "Read error: block %u of " REL_FMT " is at " NC_LSN_FMT ", beyond what was judged "
					 "with the compute", a->req->block, REL_ARGS(&a->req->rel), NC_LSN_ARGS(lsn));
		return;
	}
	if (a->req->request_lsn != NC_LSN_MAX && lsn > a->req->request_lsn)
	{
		answer_page_error(a, "block %u of " REL_FMT " is at " NC_LSN_FMT ", newer than the requested "
					 NC_LSN_FMT ": this page server serves only the newest version",
					 a->req->block, REL_ARGS(&a->req->rel), NC_LSN_ARGS(lsn),
					 NC_LSN_ARGS(a->req->request_lsn));
		return;
	}
	a->resp.page = (const uint8_t *) page;
	if (DataChecksumsEnabled())
	{
		memcpy(copy.data, page, BLCKSZ);
		PageSetChecksumInplace((Page) copy.data, a->req->block);
		a->resp.page = (const uint8_t *) copy.data;
	}
	answer_send(a, NC_RESP_GETPAGE);
	nc_svc_count(&nc_svc_self()->pages);
}

static void
answer_zero_page(Answer *a)
{
	a->resp.page = zero_page;
	answer_send(a, NC_RESP_GETPAGE);
	nc_svc_count(&nc_svc_self()->pages);
}

/* The maps are not fully logged: the server itself reads a broken page of theirs as empty. */
static void
answer_block(Answer *a)
{
	const NcRelKey *rel = &a->req->rel;
	Buffer		buffer = ReadBufferWithoutRelcache(NC_SVC_REL_FILE(rel), rel->fork, a->req->block,
												   fork_is_map(rel) ? RBM_ZERO_ON_ERROR : RBM_NORMAL,
												   NULL, true);

	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	answer_from_page(a, BufferGetPage(buffer));
	UnlockReleaseBuffer(buffer);
}

static void
answer_getpage(Answer *a)
{
	bool		exists;
	uint64		generation;

	if (shard_refuses(a))
		return;
	generation = nc_svc_gate_enter();
	if (fork_has_block(&a->req->rel, a->req->block, generation, &exists))
		answer_block(a);
	else if (exists || fork_is_map(&a->req->rel))
		answer_zero_page(a);
	else
		answer_not_found(a);
	nc_svc_gate_leave();
}

/* ---- sizes ---- */

static void
answer_exists(Answer *a)
{
	BlockNumber nblocks;

	nc_svc_gate_enter();
	a->resp.exists = fork_length(&a->req->rel, &nblocks);
	nc_svc_gate_leave();
	answer_send(a, NC_RESP_EXISTS);
}

static void
answer_nblocks(Answer *a)
{
	bool		exists;

	nc_svc_gate_enter();
	exists = fork_length(&a->req->rel, &a->resp.nblocks);
	nc_svc_gate_leave();
	if (exists || fork_is_map(&a->req->rel))
		answer_send(a, NC_RESP_NBLOCKS);
	else
		answer_not_found(a);
}

/* Size of one directory entry if it is a segment of a relation fork, else 0. */
static int64
relation_file_bytes(const char *dir, const char *name)
{
	char		path[MAXPGPATH];
	struct stat st;

	/* "123", "123_fsm", "123.1": all begin with a number that is not 0; temporary files with t. */
	if (name[0] < '1' || name[0] > '9')
		return 0;
	snprintf(path, sizeof(path), "%s/%s", dir, name);
	if (stat(path, &st) != 0 || !S_ISREG(st.st_mode))
		return 0;				/* removed in the meantime */
	return st.st_size / BLCKSZ * BLCKSZ;
}

static void
answer_dbsize(Answer *a)
{
	char	   *path = GetDatabasePath(a->req->db, DEFAULTTABLESPACE_OID);
	DIR		   *dir = AllocateDir(path);
	struct dirent *entry;

	if (dir == NULL && errno == ENOENT)
	{
		answer_page_error(a, "database not found: %u", a->req->db);
		return;
	}
	/* ReadDir reports any other failure of AllocateDir. */
	while ((entry = ReadDir(dir, path)) != NULL)
		a->resp.db_bytes += relation_file_bytes(path, entry->d_name);
	FreeDir(dir);
	answer_send(a, NC_RESP_DBSIZE);
}

static void
answer_slru(Answer *a)
{
	if (a->req->slru_kind > NC_SLRU_MULTIXACT_OFFSETS)
	{
		answer_page_error(a, "Bad request: unknown SLRU kind %u", a->req->slru_kind);
		return;
	}
	a->resp.nblocks = nc_svc_slru_read_segment(a->req->slru_kind, a->req->slru_segno, slru_pages);
	a->resp.page = slru_pages;
	if (a->resp.nblocks > 0)
		answer_send(a, NC_RESP_SLRU);
	else
		answer_page_error(a, "SLRU segment not found: kind %u segment %04X", a->req->slru_kind,
					 a->req->slru_segno);
}

/* ---- one request ---- */

/* Does the request name a fork, and if so one that can be named? */
static const char *
bad_relation(const NcPsRequest *req)
{
	if (req->tag != NC_REQ_GETPAGE && req->tag != NC_REQ_NBLOCKS && req->tag != NC_REQ_EXISTS)
		return NULL;
	if (req->rel.rel == InvalidOid)
		return "Read error: the relation number is 0";
	if (req->rel.fork > NC_FORK_INIT)
		return "Bad request: unknown fork number";
	return NULL;
}

static void
answer_request(Answer *a)
{
	const char *bad = bad_lsns(a->req);

	if (bad == NULL)
		bad = bad_relation(a->req);
	if (bad == NULL && !RecoveryInProgress())
		bad = "Read error: this page server is not a standby in recovery, it cannot serve pages";
	if (bad != NULL)
	{
		answer_send_error(a, bad);
		return;
	}
	switch (a->req->tag)
	{
		case NC_REQ_GETPAGE:
			answer_getpage(a);
			break;
		case NC_REQ_EXISTS:
			answer_exists(a);
			break;
		case NC_REQ_NBLOCKS:
			answer_nblocks(a);
			break;
		case NC_REQ_DBSIZE:
			answer_dbsize(a);
			break;
		case NC_REQ_SLRU:
			answer_slru(a);
			break;
	}
}

/*
 * The cleanup of a process without transactions, as the server's own auxiliary
 * processes do it; also leaves the gate and closes all descriptors.
 */
void
nc_svc_source_recover(MemoryContext context, char *text, size_t bytes)
{
	ErrorData  *error;

	HOLD_INTERRUPTS();
	MemoryContextSwitchTo(context);
	error = CopyErrorData();
	strlcpy(text, error->message, bytes);
	EmitErrorReport();

	LWLockReleaseAll();
	ConditionVariableCancelSleep();
	nc_svc_abort_buffer_io();
	UnlockBuffers();
	ReleaseAuxProcessResources(false);
	CurrentResourceOwner = AuxProcessResourceOwner;
	AtEOXact_Buffers(false);
	AtEOXact_SMgr();
	AtEOXact_Files(false);
	AtEOXact_HashTables(false);
	last_fork.valid = false;

	FlushErrorState();
	RESUME_INTERRUPTS();
}

/* Bounds what a process that reads all relations of a server keeps open. */
static void
close_now_and_then(void)
{
	if (++reads_since_close < READS_PER_CLOSE)
		return;
	reads_since_close = 0;
	nc_svc_close_all();
	MemoryContextReset(read_context);
}

void
nc_svc_source_answer(const NcPsRequest *req, int version, NcWriter *w)
{
	MemoryContext caller_context = MemoryContextSwitchTo(read_context);
	uint8_t    *mark = w->at;
	Answer		a;

	answer_begin(&a, req, version, w);
	PG_TRY();
	{
		answer_request(&a);
	}
	PG_CATCH();
	{
		char		text[ERROR_TEXT_BYTES] = "Read error: ";
		size_t		used = strlen(text);

		nc_svc_source_recover(read_context, text + used, sizeof(text) - used);
		w->at = mark;
		w->failed = false;
		answer_send_error(&a, text);
		MemoryContextReset(read_context);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(caller_context);
	nc_svc_count(&nc_svc_self()->requests);
	close_now_and_then();
}

void
nc_svc_source_answer_parted(const NcPsRequest *req, int version, const char *reason, NcWriter *w)
{
	Answer		a;

	answer_begin(&a, req, version, w);
	answer_page_error(&a, "parted: %s", reason);
	nc_svc_count(&nc_svc_self()->requests);
}

void
nc_svc_source_answer_timeout(const NcPsRequest *req, int version, NcWriter *w)
{
	Answer		a;
	char		replay[512];

	answer_begin(&a, req, version, w);
	nc_svc_source_describe_replay(replay, sizeof(replay));
	answer_page_error(&a, "LSN timeout: waited %d ms for " NC_LSN_FMT "; %s", nc_svc_wait_lsn_timeout,
				 NC_LSN_ARGS(req->not_modified_since), replay);
	nc_svc_count(&nc_svc_self()->requests);
}
