/*
 * page_service.h
 *	  Private header of the page service: shared state, settings, sessions.
 *
 * The service consists of N background workers of a standby.  Each runs one
 * loop (worker.c) over its own door (door.c) and sessions (session.c), and reads
 * pages through shared buffers (page_source.c).  The startup process takes part
 * through wrapped redo functions (gate.c), the walreceiver through a wrapped table
 * of its functions (join.c).
 */
#ifndef NC_PAGE_SERVICE_H
#define NC_PAGE_SERVICE_H

#include "postgres.h"

#include "access/xlogdefs.h"
#include "datatype/timestamp.h"
#include "port/atomics.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/spin.h"

#include "nc/base/clock.h"
#include "nc/exporter/exporter.h"
#include "nc/identity/judge.h"
#include "nc/identity/lease.h"
#include "nc/obs/latency.h"
#include "nc/serve/door.h"
#include "nc/wire/pagestream.h"

#define NC_SVC_WORKERS_MAX 16

/* Clients of one worker that have not logged in; one more takes the place of the oldest. */
#define NC_SVC_LOGINS_MAX 64

/* Client addresses that one worker counts. */
#define NC_SVC_CLIENTS 256

/* What timers go by: it never jumps. In the server's type, for its arithmetic. */
static inline TimestampTz
nc_svc_clock(void)
{
	return (TimestampTz) nc_clock_us();
}

/* ---- settings (page_service.c) ---- */

extern char *nc_svc_listen_addresses;
extern int	nc_svc_port;
extern int	nc_svc_workers;
extern int	nc_svc_max_connections;
extern int	nc_svc_max_connections_per_client;	/* 0 = no limit */
extern int	nc_svc_max_requests_per_second; /* of one connection; 0 = no limit */
extern char *nc_svc_ssl_cert_file;
extern char *nc_svc_ssl_key_file;
extern bool nc_svc_require_ssl;
extern bool nc_svc_allow_token_in_clear;
extern bool nc_svc_had_certificate; /* one was set since the start of the server, now or before */
extern char *nc_svc_auth_public_key_file;
extern char *nc_svc_tenant_id;
extern char *nc_svc_timeline_id;
extern bool nc_svc_lazy_replay;
extern int	nc_svc_boot_form;		/* NcSvcBootForm */
extern bool nc_svc_allow_unauthenticated;
extern bool nc_svc_allow_any_primary;
extern bool nc_svc_allow_unsafe;
extern int	nc_svc_wait_lsn_timeout;	/* ms */
extern int	nc_svc_lease_ms;
extern int	nc_svc_idle_timeout;	/* ms */

extern char *nc_svc_metrics_listen_addresses;
extern int	nc_svc_metrics_port;	/* 0 = on none */
extern char *nc_svc_metrics_ssl_cert_file;
extern char *nc_svc_metrics_ssl_key_file;
extern bool nc_svc_metrics_require_ssl;
extern char *nc_svc_metrics_auth_public_key_file;
extern bool nc_svc_metrics_had_certificate;

/* A WARNING when tokens and pages may travel in clear text. */
extern void nc_svc_warn_of_clear_text(void);

/* ---- shards.c ---- */

extern int	nc_svc_shard_count;		/* of the tenant; 0 = every block is served */
extern char *nc_svc_shard_numbers;	/* the list as it was set */
extern int	nc_svc_stripe_size;		/* blocks */

extern void nc_svc_shards_define(void);

/* Do number, count and size belong together? With a count other than 0. */
extern bool nc_svc_shards_fit(void);

/* Are blocks of this shard served? With a count other than 0. */
extern bool nc_svc_shard_is_served(uint32 shard);

/* ---- shared memory ---- */

/* The sessions of one client address in one worker. */
typedef struct NcSvcClient
{
	pg_atomic_uint64 key;		/* 0 = free */
	pg_atomic_uint32 sessions;
} NcSvcClient;

/* Kinds of page requests: NcReqTag. */
#define NC_SVC_CLASSES (NC_REQ_SLRU + 1)

/* Written by its worker only, but for displace; read by everyone for the status. */
typedef struct NcSvcWorkerState
{
	pg_atomic_uint64 refused;	/* clients that did not get in */
	pg_atomic_uint64 over_rate; /* times that a connection was over its request rate */
	pg_atomic_uint64 pages;		/* GetPage answers with a page */
	pg_atomic_uint64 requests;	/* all page requests answered */
	pg_atomic_uint64 errors;	/* answers with tag 103 */
	pg_atomic_uint32 sessions;	/* open connections */
	pg_atomic_uint32 logged_in; /* those of them that have logged in and are not asked to leave */
	pg_atomic_uint32 displace;	/* so many of them shall leave; written by every worker */
	pg_atomic_uint32 waiting;	/* connections whose first request waits for an LSN */
	pg_atomic_uint64 by_class[NC_SVC_CLASSES];	/* requests answered, but for those of readers that may not */
	pg_atomic_uint64 buffer_hits;	/* pages found in shared buffers, and not */
	pg_atomic_uint64 buffer_reads;
	NcHistogram wait;			/* how long they waited for WAL, and took to be answered then */
	NcHistogram answer;
	bool		listening;		/* under the listen lock */
	NcSvcClient clients[NC_SVC_CLIENTS];
} NcSvcWorkerState;

/* Whom this page server follows, since the start. */
typedef enum NcSvcStanding
{
	NC_SVC_STANDING_NEW,		/* has not joined yet */
	NC_SVC_STANDING_JOINED,
	NC_SVC_STANDING_ENDED		/* was promoted */
} NcSvcStanding;

/* Where the joins since the start have led. */
typedef struct NcSvcJoins
{
	NcSvcStanding standing;
	/* The last join, if it did not succeed: who was refused (none: nobody that has a name), and why. */
	NcId		refused;
	char		reason[NC_JOIN_TEXT_BYTES]; /* "" = it did succeed */
} NcSvcJoins;

/* What the first worker has found out, for the exporter. */
typedef struct NcSvcPublished
{
	uint64		us;				/* when, by nc_clock_us(); 0 = not yet */
	bool		in_recovery;
	bool		consistent;
	bool		streaming;
	bool		paused;
	XLogRecPtr	replay;
	XLogRecPtr	received;
	char		standing[16];
	char		member[NC_ID_TEXT];
	char		birth[NC_ID_TEXT];
	char		incarnation[NC_ID_TEXT];
	char		promised[NC_ID_TEXT];
} NcSvcPublished;

/* A record that was replayed. */
typedef struct NcSvcReplayed
{
	XLogRecPtr	start;			/* 0 = none since the start */
	XLogRecPtr	end;
	TimeLineID	timeline;
	uint8_t		header[NC_WAL_HEADER_BYTES];
	bool		tail_lost;		/* end is that of the pages, which are newer than the record */
	bool		unjudged;		/* and nobody can tell what they are of */
} NcSvcReplayed;

typedef struct NcSvcShared
{
	/* Moves, with the gate closed, whenever redo removed or shrank a file. */
	pg_atomic_uint64 generation;
	/* Redo wants the gate: readers queue behind it instead of overtaking. */
	pg_atomic_uint32 gate_closing;
	/* Somebody wants replay to hold between two records: it queues behind him. */
	pg_atomic_uint32 cut_wanted;
	/* Set once, when replay has passed the minimum recovery point. */
	pg_atomic_uint32 consistent;
	/* Set once, when all WAL that was in pg_wal at the start has been replayed. */
	pg_atomic_uint32 came_to_end;
	/* The newest LSN any request asked for; what lazy replay goes up to. */
	pg_atomic_uint64 demanded_lsn;
	/*
	 * Somebody waits until this page server has joined.  Only a walreceiver joins, and the startup
	 * process asks for one when it has replayed all there is: lazy replay must not hold it back.
	 */
	pg_atomic_uint32 join_wanted;
	/* The startup process sleeps in lazy replay; wake it through its latch. */
	pg_atomic_uint32 startup_waits;
	Latch	   *startup_latch;	/* valid while startup_waits is set */
	/* The last record; written by the startup process. */
	slock_t		replayed_lock;
	NcSvcReplayed replayed;
	/* Pages are served while replay is not beyond this; 0 = nothing was judged yet. */
	pg_atomic_uint64 judged_lsn;
	/* Was anything beyond it replayed? NcUnjudged; and has page_service_unjudged the last of it? See evidence.c. */
	pg_atomic_uint32 unjudged;
	pg_atomic_uint32 unjudged_kept;
	/* Written by the walreceiver, and by the first worker. */
	slock_t		joins_lock;
	NcSvcJoins	joins;
	/* To which takeover this page server has promised itself; under joins_lock. */
	NcId		promised;
	/* Leases (lease.c), by nc_boot_clock_us(); under joins_lock. */
	NcId		lease_to;		/* who was granted the last one; none: nobody since the start */
	uint64		lease_until;
	uint64		lease_older_until;	/* those of all others have ended by then */
	/* Moves with each promise; what it was when the walreceiver of this pid has joined. */
	pg_atomic_uint32 promises;
	pg_atomic_uint32 joined_under;
	pg_atomic_uint32 joined_pid;
	/* Moves when joins or page_service_identity have changed. */
	pg_atomic_uint32 joins_changes;
	/* Boot images that were gathered, and for how long replay was held for the last one. */
	pg_atomic_uint64 boot_images;
	pg_atomic_uint64 boot_held_us;

	/* The one at published_at is read, the other one written next. */
	NcSvcPublished published[2];
	pg_atomic_uint32 published_at;

	LWLockPadded *locks;		/* see the NC_SVC_LOCK_ names */
	NcSvcWorkerState workers[NC_SVC_WORKERS_MAX];
} NcSvcShared;

#define NC_SVC_LOCK_TURNSTILE 0
#define NC_SVC_LOCK_LISTEN 1
#define NC_SVC_LOCK_CUT_TURNSTILE 2
#define NC_SVC_LOCK_CUT 3		/* held around the redo of each record */
#define NC_SVC_LOCK_PROMISE 4	/* held while page_service_promise is written, and while a join is agreed on */
#define NC_SVC_LOCK_GATE 5		/* one per worker from here */
#define NC_SVC_LOCKS (NC_SVC_LOCK_GATE + NC_SVC_WORKERS_MAX)

extern NcSvcShared *nc_svc_shared;
extern int	nc_svc_worker_index;	/* which worker this process is */

/* What our waits show as, see page_service.c. */
extern uint32 nc_svc_wait_main;
extern uint32 nc_svc_wait_lazy_replay;
extern uint32 nc_svc_wait_exporter;
extern uint32 nc_svc_wait_tracer;

static inline NcSvcWorkerState *
nc_svc_self(void)
{
	return &nc_svc_shared->workers[nc_svc_worker_index];
}

/* A counter with one writer needs no locked instruction. */
static inline void
nc_svc_count(pg_atomic_uint64 *counter)
{
	pg_atomic_write_u64(counter, pg_atomic_read_u64(counter) + 1);
}

/* ---- gate.c ---- */

/* Wraps the redo functions; call once, in the postmaster, while libraries are preloaded. */
extern void nc_svc_gate_install(void);

/*
 * Between enter and leave no file is removed or shrunk by redo.  enter closes
 * every descriptor of this process if that happened since the last time, and
 * returns the generation that holds until leave.  Not reentrant.  After an
 * ERROR in between, LWLockReleaseAll leaves the gate.
 */
extern uint64 nc_svc_gate_enter(void);
extern void nc_svc_gate_leave(void);

/*
 * Between begin and end nothing is replayed: replay is between two records.  Workers
 * only, outside the gate; begin waits for the record that is being replayed.  After an
 * ERROR in between LWLockReleaseAll ends it.
 */
extern void nc_svc_cut_begin(void);
extern void nc_svc_cut_end(void);

/* Some request needs replay up to here. */
extern void nc_svc_demand(XLogRecPtr lsn);

/* Some request waits for a join; until there is one, replay goes on. */
extern void nc_svc_demand_join(void);

/* ---- file_copy.c ---- */

struct XLogReaderState;

/*
 * Startup process, after the redo of each record.  Behind a database that was copied file
 * by file it waits for a restartpoint; ERROR, that is the end of the server, if that fails.
 */
extern void nc_svc_file_copy_note(struct XLogReaderState *record);

/* ---- prepared.c ---- */

/* A prepared transaction of which a record was replayed since the start. */
typedef struct NcSvcPrepared
{
	TransactionId xid;
	XLogRecPtr	at;				/* start of its PREPARE record */
} NcSvcPrepared;

extern Size nc_svc_prepared_shmem_bytes(void);
extern void nc_svc_prepared_shmem_init(void);

/* Startup process, after the redo of each record. */
extern void nc_svc_prepared_note(struct XLogReaderState *record);

/* Within the cut: those whose state may not be in pg_twophase yet, palloc'd.  ERROR if some are not known. */
extern NcSvcPrepared *nc_svc_prepared_get(int *n);

/* ---- evidence.c ---- */

extern void nc_svc_evidence_before(struct XLogReaderState *record);
extern void nc_svc_evidence_note(struct XLogReaderState *record);
extern void nc_svc_evidence_keep(void);
extern void nc_svc_evidence_agreed(void);
extern void nc_svc_evidence_get(NcSvcReplayed *out);
/* Where the last record starts that was replayed; 0 = not known now. */
extern XLogRecPtr nc_svc_evidence_last(void);
extern void nc_svc_judged_raise(XLogRecPtr lsn);
extern bool nc_svc_judged_covers(XLogRecPtr lsn);

/* ---- join.c ---- */

/* Wraps the walreceiver; call once, in the postmaster, while libraries are preloaded. */
extern void nc_svc_join_install(void);

/*
 * Would this string send a token to a machine that is not verified?  Raises elevel then,
 * or a WARNING where that is allowed; says nothing of the string but its address.
 */
extern void nc_svc_check_primary_conninfo(const char *conninfo, int elevel);

/* ---- page_source.c ---- */

typedef enum NcSvcReadiness
{
	NC_SVC_READY,				/* answer now */
	NC_SVC_WAIT					/* ask again later */
} NcSvcReadiness;

/* Prepares this process for reading; call once per worker. */
extern void nc_svc_source_init(void);

/* True from the moment replay passed the minimum recovery point. */
extern bool nc_svc_source_consistent(void);

/* Can the request be answered (with a page or an error) without waiting for replay? */
extern NcSvcReadiness nc_svc_source_readiness(const NcPsRequest *req);

/* Appends the answer as one CopyData; never raises, errors become answer 103. */
extern void nc_svc_source_answer(const NcPsRequest *req, int version, NcWriter *w);

/* Appends the answer to a request whose LSN did not arrive in time. */
extern void nc_svc_source_answer_timeout(const NcPsRequest *req, int version, NcWriter *w);

/* Appends the answer to a request of a reader that may not have pages. */
extern void nc_svc_source_answer_parted(const NcPsRequest *req, int version, const char *reason,
										NcWriter *w);

/*
 * The cleanup after an ERROR caught in a worker: takes its message, logs it, releases all that was held and closes
 * all descriptors.  The current memory context becomes `context`.
 */
extern void nc_svc_source_recover(MemoryContext context, char *text, size_t bytes);

/* One line about how far replay is and what holds it up, for messages. */
extern void nc_svc_source_describe_replay(char *text, size_t bytes);

/* ---- slru_source.c ---- */

/*
 * Copies the pages of a segment, newest state, into pages (room for
 * NC_SLRU_SEGMENT_BLOCKS); returns how many there are, 0 for an unknown segment.
 */
extern uint32 nc_svc_slru_read_segment(int kind, uint32 segno, uint8_t *pages);

/* One more kind than those of the pagestream. */
#define NC_SVC_SLRU_COMMIT_TS (NC_SLRU_MULTIXACT_OFFSETS + 1)
#define NC_SVC_SLRU_KINDS (NC_SVC_SLRU_COMMIT_TS + 1)

/* Where its segments are, relative to the data directory. */
extern const char *nc_svc_slru_directory(int kind);

/*
 * The numbers of all segments, in files or only in buffers, sorted and palloc'd.  Within the cut: nobody adds
 * or removes any.
 */
extern uint32 *nc_svc_slru_segments(int kind, int *n);

/* ---- session.c ---- */

/* What an OPEN session does. */
typedef enum NcSvcMode
{
	NC_SVC_QUERY = 0,			/* simple queries; successors STREAM, SKIP */
	NC_SVC_SKIP,				/* after an extended-protocol error, until Sync; successor QUERY */
	NC_SVC_STREAM,				/* pagestream; successor QUERY */
	NC_SVC_CACHE_LIST_COMES		/* a list of cached pages; successor QUERY */
} NcSvcMode;

/* One message of the largest size fits, so an incomplete one never fills the buffer. */
#define NC_SVC_IN_BYTES (NC_CLIENT_MESSAGE_BYTES_MAX + 1024)

/* Output is sent from this much on; a client that does not take it gets no further answers. */
#define NC_SVC_FLUSH_BYTES (64 * 1024)
#define NC_SVC_ANSWER_BYTES (NC_RESPONSE_BYTES_MAX + 4096)
#define NC_SVC_OUT_BYTES (NC_SVC_FLUSH_BYTES + NC_SVC_ANSWER_BYTES)

typedef struct NcSvcSession
{
	NcVisitor	v;				/* first, see nc/serve/door.h; its clock is nc_svc_clock() */
	NcSvcMode	mode;
	int			version;		/* STREAM: 2 or 3 */
	bool		counted;		/* among logged_in of its worker */
	bool		has_reader;		/* it said which start of which compute it is */
	NcReaderIdentity reader;
	NcAccess	access;			/* as judged when joins_changes + 1 was access_seen */
	uint32		access_seen;
	char		token_tenant[NC_JWT_TENANT_DIGITS + 1]; /* "" = every tenant */
	uint64		client;			/* key of its machine; 0 = not counted */
	double		allowance;		/* requests that its rate allows now */
	TimestampTz allowance_at;
	/* PARKED: until when its rate allows nothing, or since when its first request waits for an LSN. */
	TimestampTz resume_at;
	TimestampTz wait_since;		/* 0 = it does not */
	bool		wait_logged;
	NcPsRequest waiting_for;	/* valid while wait_since is set */
	NcId		takeover;		/* has the promise, and waits for the log; none = it does not */
	TimestampTz takeover_until;
	struct NcSvcBoot *boot;		/* the image that is being made for it or sent to it, or NULL */
} NcSvcSession;

/* Where the joins have led, in a word. */
extern const char *nc_svc_standing_name(const NcSvcJoins *joins);

/* Can the request that the session waits with be handled now? */
extern bool nc_svc_session_may_go(NcSvcSession *s);

/* Handles one message, or says what it waits for. */
extern NcStep nc_svc_session_message(NcSvcSession *s, TimestampTz now);

/* Queues an error and lets the session end once it is sent. */
extern void nc_svc_session_end(NcSvcSession *s, const char *severity, const char *sqlstate,
							   const char *message);

/* Queues an error after which the session waits for the next query; hint may be NULL. */
extern void nc_svc_session_refuse(NcSvcSession *s, const char *sqlstate, const char *message,
								  const char *hint);

/* One word of a query, not terminated. */
typedef struct NcSvcWord
{
	const char *text;
	int			length;
} NcSvcWord;

extern bool nc_svc_word_is(const NcSvcWord *word, const char *text);

/* May this client have pages of this tenant and timeline?  Otherwise it has been told why not. */
extern bool nc_svc_session_accepts(NcSvcSession *s, const NcSvcWord *tenant, const NcSvcWord *timeline);

/* ---- boot.c ---- */

/* Call once per worker. */
extern void nc_svc_boot_init(void);

/* Query basebackup, with the words behind that: begins, or refuses. */
extern void nc_svc_boot_begin(NcSvcSession *s, const NcSvcWord *words, int n, TimestampTz now);

/* Goes on with it; the session has none any more when it is over. */
extern NcStep nc_svc_boot_step(NcSvcSession *s, TimestampTz now);

/* Has everything been replayed that was received? In any worker. */
extern bool nc_svc_boot_replayed_all(void);

/* The session leaves. */
extern void nc_svc_boot_forget(NcSvcSession *s);

/* ---- trace.c ---- */

extern void nc_svc_trace_define(void);
extern Size nc_svc_trace_shmem_bytes(void);
extern void nc_svc_trace_shmem_init(void);
extern void nc_svc_trace_register(void);

/* Since shared memory was made; zeroes when nothing is traced. */
extern void nc_svc_trace_counts(uint64 *recorded, uint64 *dropped);

/*
 * A request was answered; recorded if it is traced and there is an outlet.  By nc_clock_us(): when
 * it was first looked at, when its WAL was there (0: never), when its answer was in the send buffer.
 */
extern void nc_svc_trace_answer(const NcPsRequest *req, uint64 came_us, uint64 began_us, uint64 ended_us,
								bool failed);

/* ---- cache_list.c ---- */

/* The list that is kept, in the data directory. */
#define NC_SVC_CACHE_LIST "page_service_cache_list"

/* Query cache_list, with the words behind that: begins, or refuses. */
extern void nc_svc_cache_list_begin(NcSvcSession *s, const NcSvcWord *words, int n);
extern void nc_svc_cache_list_message(NcSvcSession *s, const NcFrame *frame);

/* The session leaves. */
extern void nc_svc_cache_list_forget(NcSvcSession *s);
extern uint64 nc_svc_cache_list_bytes(void);

/* ---- promise.c ---- */

extern void nc_svc_promise_start(void);
extern NcId nc_svc_promised(void);
extern LWLock *nc_svc_promise_lock(void);
extern void nc_svc_promise_joined(const NcMemberLists *members);

/* Those of an entry of the log, if they are newer; durable when it returns. */
extern void nc_svc_promise_members(const NcMemberLists *members);
extern bool nc_svc_promise_stream_holds(void);
extern void nc_svc_promise_check_stream(void);

/* Query takeover, with the words behind that: promises, or refuses. */
extern void nc_svc_takeover_begin(NcSvcSession *s, const NcSvcWord *words, int n, TimestampTz now);

/* Goes on with it; s->takeover is none when it is over. */
extern NcStep nc_svc_takeover_step(NcSvcSession *s, TimestampTz now);
extern void nc_svc_promise_status(void (*put) (void *arg, const char *name, const char *value), void *arg);

/* ---- members.c ---- */

/* In the startup process, when a record has been replayed. */
extern void nc_svc_members_note(struct XLogReaderState *record);

/* ---- lease.c ---- */

extern void nc_svc_lease_start(void);

/* In a walreceiver that has joined: is this message of the compute ours?  Its answer, then. */
#define NC_SVC_LEASE_ANSWER_BYTES 17
extern bool nc_svc_lease_answer(const NcId *incarnation, const char *message, int bytes,
								char answer[NC_SVC_LEASE_ANSWER_BYTES]);

/* Milliseconds until all that was granted has ended. */
extern uint32 nc_svc_lease_left_ms(void);
extern void nc_svc_lease_status(void (*put) (void *arg, const char *name, const char *value), void *arg);

/* ---- boot_gather.c ---- */

/* How an image looks (docs/boot.md); the values are those of the setting boot_image. */
typedef enum NcSvcBootForm
{
	NC_SVC_BOOT_OWN,
	NC_SVC_BOOT_NEON			/* as Neon's page servers send it */
} NcSvcBootForm;

/* What an image is asked to have. */
typedef struct NcSvcBootWish
{
	XLogRecPtr	wal_from;		/* WAL from the segment of this on, if that is more; 0 = not */
} NcSvcBootWish;

/*
 * Gathers an image into the file: its bytes.  Both files are empty; the second one is of no use afterwards. Replay
 * is held meanwhile.  ERROR if it cannot be.
 */
extern off_t nc_svc_boot_gather(int fd, int forks_fd, const NcSvcBootWish *wish);

/* ---- boot_wal.c ---- */

struct ControlFileData;

/* Where the image's WAL ends, and what its last pages are. */
#define NC_SVC_BOOT_TAIL_PAGES 3

typedef struct NcSvcBootEnd
{
	TimeLineID	timeline;
	XLogRecPtr	last;			/* start of the last record that was replayed */
	XLogRecPtr	cut;			/* its end */
	XLogRecPtr	checkpoint;		/* start of the checkpoint record behind it */
	struct ControlFileData *control; /* of a server that was shut down with that record; palloc'd */
} NcSvcBootEnd;

/* Where replay is.  Within the cut; ERROR when there is nothing to begin with yet. */
extern void nc_svc_boot_end(NcSvcBootEnd *end);

/*
 * The pages of WAL from that of the cut on, the checkpoint record in them: as many as it needs, the rest is zero.
 * The first one begins at the page boundary at or before the cut.
 */
extern int	nc_svc_boot_tail(const NcSvcBootEnd *end, char to[NC_SVC_BOOT_TAIL_PAGES * XLOG_BLCKSZ]);

/* For an image in Neon's form: no checkpoint record is named. */
extern void nc_svc_boot_forget_checkpoint(NcSvcBootEnd *end);

/*
 * The header of a page of WAL, and zeroes; left: so many bytes of a record that begins on an earlier page.
 */
extern void nc_svc_boot_empty_page(const NcSvcBootEnd *end, XLogRecPtr page, uint32 left, char to[XLOG_BLCKSZ]);

/* Bytes of the header of that page. */
extern size_t nc_svc_boot_page_header_bytes(XLogRecPtr page);

/* Bytes of a segment of pg_wal, from its beginning on, to the callback; ERROR when the file is not there. */
extern void nc_svc_boot_wal_copy(TimeLineID timeline, XLogSegNo segment, uint32 bytes,
								 void (*put) (void *arg, const void *data, size_t bytes), void *arg);

/* ---- identity.c ---- */

extern void nc_svc_identity_start(void);
extern bool nc_svc_identity_follows(void);
extern NcMemberIdentity *nc_svc_identity_load(void);
extern void nc_svc_identity_save(const NcMemberIdentity *what);
extern void nc_svc_identity_refuse_promotion(void);
extern void nc_svc_identity_watch(void);
extern const NcMemberIdentity *nc_svc_identity_current(void);
extern void nc_svc_joins_set(const NcSvcJoins *joins);
extern void nc_svc_joins_get(NcSvcJoins *joins);
extern NcAccess nc_svc_identity_access(NcSvcSession *s, char reason[NC_REASON_BYTES]);

/* ---- door.c ---- */

extern NcDoor nc_svc_door;		/* of this worker */

/* FATAL when certificate or keys cannot be used; in the postmaster, at its start. */
extern void nc_svc_door_check_files(void);

/* Loads certificate and keys; the door lets nobody in until it listens. */
extern void nc_svc_door_init(NcLoop *loop);

/* Opens the listening sockets; false, logged, when an address failed. */
extern bool nc_svc_door_listen(void);

/* Loads certificate and keys anew; what cannot be loaded again stays as it is, which is logged. */
extern void nc_svc_door_reload(void);

/* A turn of the door, and what others see of it. */
extern void nc_svc_door_turn(void);

/* ---- clients.c ---- */

extern uint32 nc_svc_client_sessions(uint64 client);
extern uint32 nc_svc_client_most(void);
extern void nc_svc_client_logged_in(NcSvcSession *s);
extern void nc_svc_client_leaves(NcSvcSession *s);
extern void nc_svc_client_add(NcSvcSession *s);
extern void nc_svc_client_remove(NcSvcSession *s);
extern void nc_svc_client_forget_all(void);

/* ---- fault.c ---- */

/* What a test wants instead of an answer. */
typedef enum NcSvcFault
{
	NC_SVC_FAULT_NONE,
	NC_SVC_FAULT_IMPATIENT,		/* answer now, whatever the request waits for */
	NC_SVC_FAULT_NOT_READY,		/* this and all below were answered */
	NC_SVC_FAULT_WRONG_SHARD,
	NC_SVC_FAULT_ERROR,
	NC_SVC_FAULT_RECONNECT,
	NC_SVC_FAULT_SLEEP
} NcSvcFault;

#ifdef NC_TEST_RULES
extern void nc_svc_fault_define(void);
extern NcSvcFault nc_svc_fault(NcSvcSession *s, const NcPsRequest *req);
#else
#define nc_svc_fault_define() ((void) 0)
#define nc_svc_fault(s, req) NC_SVC_FAULT_NONE
#endif

/* ---- metrics.c ---- */

extern const NcExporter nc_svc_exporter;

typedef struct NcSvcTotals
{
	uint64		pages;
	uint64		requests;
	uint64		errors;
	uint64		refused;
	uint64		over_rate;
	uint64		buffer_hits;
	uint64		buffer_reads;
	uint64		by_class[NC_SVC_CLASSES];
	uint32		sessions;
	uint32		logged_in;
	uint32		waiting;
	int			listening;
} NcSvcTotals;

/* Of all workers. */
extern void nc_svc_totals(NcSvcTotals *totals);

extern PGDLLEXPORT void nc_svc_exporter_main(Datum arg);

/* ---- publish.c ---- */

/* A request was answered; it waited for WAL, and then took so long. */
extern void nc_svc_note_request(const NcPsRequest *req, uint64 waited_us, uint64 answered_us);

/* In every worker, each turn; in the first one, every second. */
extern void nc_svc_publish_buffers(void);
extern void nc_svc_publish(void);

/* ---- worker.c ---- */

extern PGDLLEXPORT void nc_svc_worker_main(Datum arg);

#endif							/* NC_PAGE_SERVICE_H */
