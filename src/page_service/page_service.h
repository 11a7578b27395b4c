/*
 * page_service.h
 *	  Private header of the page service: shared state, settings, sessions.
 *
 * The service consists of N background workers of a standby.  Each runs one
 * event loop (worker.c) over its own sockets (listener.c) and sessions
 * (session.c; login.c for their beginning, channel.c for their bytes), and reads
 * pages through shared buffers (page_source.c).  The startup process takes part
 * through wrapped redo functions (gate.c).
 */
#ifndef NC_PAGE_SERVICE_H
#define NC_PAGE_SERVICE_H

#include "postgres.h"

#include "access/xlogdefs.h"
#include "datatype/timestamp.h"
#include "lib/ilist.h"
#include "port/atomics.h"
#include "storage/latch.h"
#include "storage/lwlock.h"

#include "nc/auth/guard.h"
#include "nc/base/clock.h"
#include "nc/wire/pagestream.h"
#include "nc/wire/session.h"

#define NC_SVC_WORKERS_MAX 16
#define NC_SVC_LISTENERS_MAX 8

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
extern char *nc_svc_auth_public_key_file;
extern char *nc_svc_tenant_id;
extern char *nc_svc_timeline_id;
extern bool nc_svc_lazy_replay;
extern bool nc_svc_allow_unauthenticated;
extern int	nc_svc_wait_lsn_timeout;	/* ms */
extern int	nc_svc_idle_timeout;	/* ms */
extern int	nc_svc_shard_count;
extern int	nc_svc_shard_number;
extern int	nc_svc_stripe_size;

/* ---- shared memory ---- */

/* The sessions of one client address in one worker. */
typedef struct NcSvcClient
{
	pg_atomic_uint64 key;		/* 0 = free */
	pg_atomic_uint32 sessions;
} NcSvcClient;

/* Written by its worker only, read by everyone for the status. */
typedef struct NcSvcWorkerState
{
	pg_atomic_uint64 refused;	/* clients that did not get in */
	pg_atomic_uint64 throttled; /* times that a connection was over its request rate */
	pg_atomic_uint64 pages;		/* GetPage answers with a page */
	pg_atomic_uint64 requests;	/* all page requests answered */
	pg_atomic_uint64 errors;	/* answers with tag 103 */
	pg_atomic_uint32 sessions;	/* open connections */
	pg_atomic_uint32 waiting;	/* connections whose first request waits for an LSN */
	bool		listening;		/* under the listen lock */
	NcSvcClient clients[NC_SVC_CLIENTS];
} NcSvcWorkerState;

typedef struct NcSvcShared
{
	/* Moves, with the gate closed, whenever redo removed or shrank a file. */
	pg_atomic_uint64 generation;
	/* Redo wants the gate: readers queue behind it instead of overtaking. */
	pg_atomic_uint32 gate_closing;
	/* Set once, when replay has passed the minimum recovery point. */
	pg_atomic_uint32 consistent;
	/* The newest LSN any request asked for; what lazy replay goes up to. */
	pg_atomic_uint64 demanded_lsn;
	/* The startup process sleeps in lazy replay; wake it through its latch. */
	pg_atomic_uint32 startup_waits;
	Latch	   *startup_latch;	/* valid while startup_waits is set */

	LWLockPadded *locks;		/* see the NC_SVC_LOCK_ names */
	NcSvcWorkerState workers[NC_SVC_WORKERS_MAX];
} NcSvcShared;

#define NC_SVC_LOCK_TURNSTILE 0
#define NC_SVC_LOCK_LISTEN 1
#define NC_SVC_LOCK_GATE 2		/* one per worker from here */
#define NC_SVC_LOCKS (NC_SVC_LOCK_GATE + NC_SVC_WORKERS_MAX)

extern NcSvcShared *nc_svc_shared;
extern int	nc_svc_worker_index;	/* which worker this process is */

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

/* Some request needs replay up to here. */
extern void nc_svc_demand(XLogRecPtr lsn);

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

/* One line about how far replay is and what holds it up, for messages. */
extern void nc_svc_source_describe_replay(char *text, size_t bytes);

/* ---- slru_source.c ---- */

/*
 * Copies the pages of a segment, newest state, into pages (room for
 * NC_SLRU_SEGMENT_BLOCKS); returns how many there are, 0 for an unknown segment.
 */
extern uint32 nc_svc_slru_read_segment(int kind, uint32 segno, uint8_t *pages);

/* ---- session.c ---- */

typedef enum NcSvcSessionState
{
	NC_SVC_SESSION_STARTUP,		/* startup packets; successors TLS, PASSWORD, QUERY */
	NC_SVC_SESSION_TLS,			/* the handshake of TLS; successor STARTUP */
	NC_SVC_SESSION_PASSWORD,	/* the token; successor QUERY */
	NC_SVC_SESSION_QUERY,		/* simple queries; successors STREAM, SKIP */
	NC_SVC_SESSION_SKIP,		/* after an extended-protocol error, until Sync; successor QUERY */
	NC_SVC_SESSION_STREAM,		/* pagestream; successor QUERY */
	NC_SVC_SESSION_CLOSING		/* sends what is left, reads nothing; from every state */
} NcSvcSessionState;

/* What a session needs next. */
typedef enum NcSvcStep
{
	NC_SVC_STEP_INPUT,			/* more bytes from the client */
	NC_SVC_STEP_ROOM,			/* its output sent */
	NC_SVC_STEP_LSN,			/* replay */
	NC_SVC_STEP_TIME,			/* its request rate allows no more until resume_at */
	NC_SVC_STEP_MORE			/* only its next turn */
} NcSvcStep;

/* One message of the largest size fits, so an incomplete one never fills the buffer. */
#define NC_SVC_IN_BYTES (NC_CLIENT_MESSAGE_BYTES_MAX + 1024)

/* Output is sent from this much on; a client that does not take it gets no further answers. */
#define NC_SVC_FLUSH_BYTES (64 * 1024)
#define NC_SVC_OUT_BYTES (NC_SVC_FLUSH_BYTES + NC_RESPONSE_BYTES_MAX + 4096)

/* Why a session is refused after its startup packet. */
typedef enum NcSvcSurplus
{
	NC_SVC_SURPLUS_NO,
	NC_SVC_SURPLUS_TOTAL,		/* beyond max_connections */
	NC_SVC_SURPLUS_CLIENT		/* beyond max_connections_per_client */
} NcSvcSurplus;

typedef struct NcSvcSession
{
	dlist_node	link;			/* in exactly one list of the worker */
	NcSvcSessionState state;
	int			fd;
	uint32		events;			/* what epoll is asked for */
	int			version;		/* STREAM: 2 or 3 */
	NcSvcSurplus surplus;
	bool		logged_in;
	int			negotiations;	/* requests for encryption so far */
	NcTls	   *tls;			/* NULL = clear text */
	bool		tls_wants_write;	/* its last read or handshake needs room in the socket */
	char		token_tenant[NC_JWT_TENANT_DIGITS + 1]; /* "" = every tenant */
	char		address[64];	/* of the client, for the log */
	uint64		client;			/* key of its address; 0 = not counted */
	double		allowance;		/* requests that its rate allows now */
	TimestampTz allowance_at;
	TimestampTz resume_at;		/* STEP_TIME: until when */
	bool		wait_logged;
	TimestampTz wait_since;		/* first request waits for an LSN since; 0 = it does not */
	NcPsRequest waiting_for;	/* valid while wait_since is set */
	TimestampTz opened;
	TimestampTz active;			/* a byte was received or taken */
	uint32		in_start;		/* unread input is in[in_start .. in_end) */
	uint32		in_end;
	uint32		out_start;		/* unsent output is out[out_start .. out_end) */
	uint32		out_end;
	uint8_t		in[NC_SVC_IN_BYTES];
	uint8_t		out[NC_SVC_OUT_BYTES];
} NcSvcSession;

extern void nc_svc_session_init(NcSvcSession *s, int fd, TimestampTz now);

/* Handles as many messages as one turn allows. */
extern NcSvcStep nc_svc_session_step(NcSvcSession *s, TimestampTz now);

/* Queues an error and lets the session end once it is sent. */
extern void nc_svc_session_end(NcSvcSession *s, const char *severity, const char *sqlstate,
							   const char *message);

/* A cursor over the free end of the send buffer, with room for the largest answer. */
extern NcWriter nc_svc_session_writer(NcSvcSession *s);

/* Keeps what was written; if it did not fit the stream would be broken, so the session ends. */
extern void nc_svc_session_commit(NcSvcSession *s, const NcWriter *w);

/* ---- login.c ---- */

extern NcGuard nc_svc_guard;	/* of this worker */

/* FATAL when certificate or keys cannot be used; in the postmaster, at its start. */
extern void nc_svc_guard_check_files(void);

/* Loads certificate and keys; what cannot be loaded again stays as it is, which is logged. */
extern void nc_svc_guard_load(bool again);

/* Handle what is in the receive buffer of a session in these states; false = read more. */
extern bool nc_svc_login_startup(NcSvcSession *s, TimestampTz now);
extern bool nc_svc_login_password(NcSvcSession *s, TimestampTz now);

/* Counts a client that is not let in, and logs it unless one was logged just now. */
extern void nc_svc_login_refused(NcSvcSession *s, TimestampTz now, const char *reason);

/* ---- channel.c ---- */

/* False: the client is gone. */
extern bool nc_svc_channel_receive(NcSvcSession *s, TimestampTz now);
extern bool nc_svc_channel_send(NcSvcSession *s, TimestampTz now);
extern bool nc_svc_channel_handshake(NcSvcSession *s, TimestampTz now);

/* Can bytes be received although epoll does not say so? */
extern bool nc_svc_channel_pending(const NcSvcSession *s);
extern void nc_svc_channel_close(NcSvcSession *s);

/* ---- clients.c ---- */

/* Sets address and client of a session. */
extern void nc_svc_client_identify(NcSvcSession *s);
extern uint32 nc_svc_client_sessions(uint64 client);
extern void nc_svc_client_add(NcSvcSession *s);
extern void nc_svc_client_remove(NcSvcSession *s);
extern void nc_svc_client_forget_all(void);

/* ---- listener.c ---- */

/* Opens the listening sockets; returns how many, 0 (logged) when an address failed. */
extern int	nc_svc_listener_open(int *fds);

/* True if every configured address is a loopback address. */
extern bool nc_svc_listener_is_loopback(const char *addresses);

/* Accepts one connection; -1 with errno when there is none. */
extern int	nc_svc_listener_accept(int listen_fd);

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

/* ---- worker.c ---- */

extern PGDLLEXPORT void nc_svc_worker_main(Datum arg);

#endif							/* NC_PAGE_SERVICE_H */
