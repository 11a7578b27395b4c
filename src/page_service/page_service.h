/*
 * page_service.h
 *	  Private header of the page service: shared state, settings, sessions.
 *
 * The service consists of N background workers of a standby.  Each runs one
 * event loop (worker.c) over its own sockets (listener.c) and sessions
 * (session.c), and reads pages through shared buffers (page_source.c).  The
 * startup process takes part through wrapped redo functions (gate.c).
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

#include "nc/wire/pagestream.h"
#include "nc/wire/session.h"

#define NC_SVC_WORKERS_MAX 16
#define NC_SVC_LISTENERS_MAX 8

/* ---- settings (page_service.c) ---- */

extern char *nc_svc_listen_addresses;
extern int	nc_svc_port;
extern int	nc_svc_workers;
extern int	nc_svc_max_connections;
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

/* Written by its worker only, read by everyone for the status. */
typedef struct NcSvcWorkerState
{
	pg_atomic_uint64 pages;		/* GetPage answers with a page */
	pg_atomic_uint64 requests;	/* all page requests answered */
	pg_atomic_uint64 errors;	/* answers with tag 103 */
	pg_atomic_uint32 sessions;	/* open connections */
	pg_atomic_uint32 waiting;	/* connections whose first request waits for an LSN */
	bool		listening;		/* under the listen lock */
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
	NC_SVC_SESSION_STARTUP,		/* startup packets; successor QUERY */
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
	NC_SVC_STEP_MORE			/* only its next turn */
} NcSvcStep;

/* One message of the largest size fits, so an incomplete one never fills the buffer. */
#define NC_SVC_IN_BYTES (NC_CLIENT_MESSAGE_BYTES_MAX + 1024)

/* Output is sent from this much on; a client that does not take it gets no further answers. */
#define NC_SVC_FLUSH_BYTES (64 * 1024)
#define NC_SVC_OUT_BYTES (NC_SVC_FLUSH_BYTES + NC_RESPONSE_BYTES_MAX + 4096)

typedef struct NcSvcSession
{
	dlist_node	link;			/* in exactly one list of the worker */
	NcSvcSessionState state;
	int			fd;
	uint32		events;			/* what epoll is asked for */
	int			version;		/* STREAM: 2 or 3 */
	bool		surplus;		/* beyond max_connections: refused after its startup packet */
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

extern void nc_svc_session_init(NcSvcSession *s, int fd, bool surplus, TimestampTz now);

/* Handles as many messages as one turn allows. */
extern NcSvcStep nc_svc_session_step(NcSvcSession *s, TimestampTz now);

/* Queues an error and lets the session end once it is sent. */
extern void nc_svc_session_end(NcSvcSession *s, const char *severity, const char *sqlstate,
							   const char *message);

/* ---- listener.c ---- */

/* Opens the listening sockets; returns how many, 0 (logged) when an address failed. */
extern int	nc_svc_listener_open(int *fds);

/* True if every configured address is a loopback address. */
extern bool nc_svc_listener_is_loopback(const char *addresses);

/* Accepts one connection; -1 with errno when there is none. */
extern int	nc_svc_listener_accept(int listen_fd);

/* ---- worker.c ---- */

extern PGDLLEXPORT void nc_svc_worker_main(Datum arg);

#endif							/* NC_PAGE_SERVICE_H */
