/*
 * feed_internal.h
 *	  What the parts of the WAL feed know of each other.
 *
 *	  guc.c      settings and the checks at server start
 *	  shared.c   shared memory, doorbell, rows of the view
 *	  feed.c     the worker: loop and life
 *	  listen.c   listening sockets
 *	  conn.c     one connection: bytes in, bytes out, end
 *	  login.c    TLS, startup packet, token
 *	  session.c  commands
 *	  command.c  the text of a replication command
 *	  stream.c   a connection while it streams
 *	  wal.c      how far WAL may be sent, and reading it
 *	  retain.c   replication slots of page servers
 *	  lag.c      how far page servers are behind, for backpressure
 *	  throttle.c writers of WAL pause while they are too far behind
 */
#ifndef NC_FEED_INTERNAL_H
#define NC_FEED_INTERNAL_H

#include "postgres.h"

#include "access/xlogdefs.h"
#include "access/xlog_internal.h"
#include "datatype/timestamp.h"

#include "nc/auth/guard.h"
#include "nc/base/clock.h"
#include "nc/feed/feed.h"
#include "nc/wire/session.h"

/* Page servers that can be registered. */
#define NC_FEED_SLOTS_MAX 64

/* Connections above the registered ones: being set up, or being replaced. */
#define NC_FEED_SPARE_CONNS 8

/* As a walsender: at most 16 WAL pages in one message. */
#define NC_FEED_WAL_BYTES (16 * XLOG_BLCKSZ)

/* Tag, length, 'w', start, end and time in front of the WAL. */
#define NC_FEED_WAL_HEADER_BYTES (1 + 4 + 1 + 8 + 8 + 8)

/* A history file is a few lines; a larger one is refused. */
#define NC_FEED_HISTORY_BYTES_MAX (48 * 1024)

/* Room behind a WAL message for answers; in front of none, one whole answer fits. */
#define NC_FEED_CONTROL_BYTES (64 * 1024)
#define NC_FEED_OUT_BYTES (NC_FEED_WAL_HEADER_BYTES + NC_FEED_WAL_BYTES + NC_FEED_CONTROL_BYTES)

/* Holds the largest startup packet and any message that we take. */
#define NC_FEED_IN_BYTES (16 * 1024)

#define NC_FEED_WHY_BYTES 256

/* How a page server can be behind; each kind has a limit of its own. */
typedef enum NcLagKind
{
	NC_LAG_WRITE,				/* has not received */
	NC_LAG_FLUSH,				/* has not on disk */
	NC_LAG_APPLY,				/* has not replayed */
	NC_LAG_RETAINED,			/* WAL kept for it here, also while it is away */
	NC_LAG_KINDS
} NcLagKind;

/* ---- settings (guc.c) ---- */

extern int	nc_feed_port;
extern int	nc_feed_timeout_ms;
extern int	nc_feed_warn_mb;
extern int	nc_feed_max_lag_mb[NC_LAG_KINDS];
extern int	nc_feed_nslots;
extern char nc_feed_slot_names[NC_FEED_SLOTS_MAX][NAMEDATALEN];

/* Calls visit for each address of neon_comm.wal_feed_listen_addresses; false when one failed. */
extern bool nc_feed_each_address(const char *list, bool (*visit) (const char *address, void *arg),
								 void *arg);
extern char *nc_feed_listen_addresses;
extern char *nc_feed_ssl_cert_file;
extern char *nc_feed_ssl_key_file;
extern bool nc_feed_require_ssl;
extern char *nc_feed_auth_public_key_file;

/* Can only this machine reach the feed? */
extern bool nc_feed_listens_on_loopback(void);

extern void nc_feed_guc_init(void);
extern void nc_feed_check_settings(int elevel);

/* FATAL when strangers could connect; in the postmaster, at its start. */
extern void nc_feed_check_network(void);

/* ---- shared memory and doorbell (shared.c) ---- */

/*
 * Any process: position of the slowest page server that counts, all ones when
 * none does, and the limit in bytes as the feed has it, 0 = none.  The feed's
 * and not our own setting: a reload must reach a statement that runs.
 */
extern XLogRecPtr nc_feed_lowest(NcLagKind kind, uint64 *limit);


extern void nc_feed_doorbell_create(void);
extern int	nc_feed_doorbell(void);
extern void nc_feed_doorbell_press(void);
extern void nc_feed_doorbell_answer(void);
extern bool nc_feed_sleep_begin(void);
extern void nc_feed_sleep_end(void);
extern void nc_feed_publish_sent(XLogRecPtr lsn);
extern void nc_feed_publish_lowest(NcLagKind kind, XLogRecPtr lsn, uint64 limit);
extern void nc_feed_row_read(int index, NcFeedPeer *row);
extern void nc_feed_row_write(int index, const NcFeedPeer *row);

/* ---- WAL (wal.c) ---- */

/* How far WAL may be sent now, and on which timeline. */
typedef struct NcFeedLimit
{
	bool		in_recovery;
	XLogRecPtr	lsn;			/* 0 = not known yet */
	TimeLineID	timeline;
} NcFeedLimit;

/* One open WAL segment of a connection. */
typedef struct NcFeedSegment
{
	int			fd;				/* -1 = none */
	TimeLineID	timeline;
	XLogSegNo	number;
} NcFeedSegment;

extern void nc_feed_wal_init(void);
extern NcFeedLimit nc_feed_wal_limit(void);
extern bool nc_feed_wal_read(NcFeedSegment *seg, TimeLineID timeline, XLogRecPtr start,
							 size_t bytes, uint8_t *to, char *why);
extern void nc_feed_wal_close(NcFeedSegment *seg);

/* True when the segment that holds lsn is still in pg_wal. */
extern bool nc_feed_wal_present(TimeLineID timeline, XLogRecPtr lsn);

/* Where redo of the last completed checkpoint starts, by the control file. May throw. */
extern XLogRecPtr nc_feed_wal_last_redo(void);

/* ---- connections (conn.c) ---- */

typedef enum NcFeedConnState
{
	NC_FEED_STARTUP,			/* no startup packet yet */
	NC_FEED_TLS,				/* the handshake of TLS; then STARTUP again */
	NC_FEED_PASSWORD,			/* a token is expected */
	NC_FEED_COMMAND,			/* ready for a command */
	NC_FEED_STREAMING,			/* in COPY BOTH */
	NC_FEED_CLOSING				/* the last answer is on its way */
} NcFeedConnState;

typedef struct NcFeedConn
{
	int			fd;
	NcFeedConnState state;
	bool		dead;			/* to be freed at the end of this turn */
	bool		half_closed;	/* we have said our last; waiting for the peer's end */
	bool		logged_in;
	int			negotiations;	/* requests for encryption so far */
	NcTls	   *tls;			/* NULL = clear text */
	bool		tls_wants_write;	/* its last read or handshake needs room in the socket */
	uint32		interest;		/* what epoll watches now */
	char		address[NC_FEED_ADDRESS_BYTES];
	TimestampTz connected_at;	/* these by nc_feed_clock() */
	TimestampTz heard_at;
	TimestampTz close_by;		/* CLOSING: when patience ends */
	TimestampTz connected_since;	/* by the wall clock, for the view */

	/* Streaming. */
	int			slot;			/* index of its name, -1 = none yet */
	bool		from_recovery;	/* began in recovery: checked again when that ends */
	TimeLineID	timeline;
	bool		greeted;		/* has told its positions on this connection */
	bool		keepalive_owed;
	bool		ping_sent;
	XLogRecPtr	sent;
	XLogRecPtr	write;
	XLogRecPtr	flush;
	XLogRecPtr	apply;
	TimestampTz replied_at;		/* by nc_feed_clock() */
	TimestampTz reply_time;		/* by the wall clock, for the view */
	NcFeedSegment segment;

	size_t		in_bytes;
	size_t		out_at;
	size_t		out_end;
	uint8_t		in[NC_FEED_IN_BYTES];
	uint8_t		out[NC_FEED_OUT_BYTES];
} NcFeedConn;

/*
 * What timers go by: it never jumps, and 0 is long ago.  In the server's type, for
 * its arithmetic.
 */
static inline TimestampTz
nc_feed_clock(void)
{
	return (TimestampTz) nc_clock_us() + USECS_PER_DAY;
}

/* What one turn of the loop works with. */
typedef struct NcFeedTurn
{
	TimestampTz now;			/* by nc_feed_clock() */
	TimestampTz wall;			/* by the wall clock: to be sent and shown, nothing else */
	NcFeedLimit limit;
} NcFeedTurn;

static inline bool
nc_feed_conn_drained(const NcFeedConn *conn)
{
	return conn->out_at == conn->out_end;
}

/* Takes the socket over; NULL when there is no memory, then the socket stays the caller's. */
extern NcFeedConn *nc_feed_conn_create(int fd, const char *address, TimestampTz now);
extern void nc_feed_conn_free(NcFeedConn *conn);

/* Reads what is there. */
extern void nc_feed_conn_receive(NcFeedConn *conn, const NcFeedTurn *turn);

/* Sends what is pending; true when all of it is gone. */
extern bool nc_feed_conn_flush(NcFeedConn *conn);

/* One turn of one connection; true when it could do more at once. */
extern bool nc_feed_conn_pump(NcFeedConn *conn, const NcFeedTurn *turn);

/* A writer behind what is pending; commit takes what was written, or ends the connection. */
extern NcWriter nc_feed_conn_writer(NcFeedConn *conn);
extern bool nc_feed_conn_commit(NcFeedConn *conn, const NcWriter *w);

/* An ErrorResponse; the connection lives on. */
extern void nc_feed_conn_error(NcFeedConn *conn, const char *sqlstate, const char *message,
							   const char *detail, const char *hint);

/* The same with FATAL, logged, and the end of the connection. */
extern void nc_feed_conn_fatal(NcFeedConn *conn, TimestampTz now, const char *sqlstate,
							   const char *message, const char *detail, const char *hint);

/* Ends the connection once what is pending has been sent. */
extern void nc_feed_conn_close(NcFeedConn *conn, TimestampTz now);

/* Takes one message or packet off the input; returns the bytes it took, 0 = read more. */
extern size_t nc_feed_login_startup(NcFeedConn *conn, const NcFeedTurn *turn);
extern size_t nc_feed_login_password(NcFeedConn *conn, const NcFeedTurn *turn);
extern size_t nc_feed_session_command(NcFeedConn *conn, const NcFeedTurn *turn);
extern size_t nc_feed_stream_message(NcFeedConn *conn, const NcFeedTurn *turn);

/* ---- the door (login.c) ---- */

/* FATAL when certificate or keys cannot be used; in the postmaster, at its start. */
extern void nc_feed_guard_check_files(void);

/* Loads certificate and keys; what cannot be loaded again stays as it is, which is logged. */
extern void nc_feed_guard_load(bool again);

/* Logs that somebody was not let in, unless that was said just now. */
extern void nc_feed_login_refused(const NcFeedConn *conn, TimestampTz now, const char *reason);

/* ---- streaming (stream.c) ---- */

extern void nc_feed_stream_begin(NcFeedConn *conn, const NcFeedTurn *turn, int slot,
								 XLogRecPtr start);
extern bool nc_feed_stream_recheck(NcFeedConn *conn, const NcFeedTurn *turn);
extern bool nc_feed_stream_fill(NcFeedConn *conn, const NcFeedTurn *turn);
extern void nc_feed_stream_keepalive(NcFeedConn *conn, const NcFeedTurn *turn);
extern void nc_feed_stream_finish(NcFeedConn *conn, TimestampTz now);
extern XLogRecPtr nc_feed_stream_theirs(const NcFeedConn *conn);
extern const char *nc_feed_stream_state(const NcFeedConn *conn, const NcFeedLimit *limit);

/* ---- commands (command.c) ---- */

typedef enum NcFeedCommandKind
{
	NC_FEED_CMD_UNKNOWN,
	NC_FEED_CMD_MALFORMED,
	NC_FEED_CMD_EMPTY,
	NC_FEED_CMD_IDENTIFY,
	NC_FEED_CMD_START,
	NC_FEED_CMD_START_LOGICAL,
	NC_FEED_CMD_HISTORY,
	NC_FEED_CMD_SHOW
} NcFeedCommandKind;

typedef struct NcFeedCommand
{
	NcFeedCommandKind kind;
	char		name[NAMEDATALEN];	/* slot, setting, or the first word of an unknown command */
	XLogRecPtr	start;
	TimeLineID	timeline;		/* 0 = not given */
} NcFeedCommand;

extern void nc_feed_command_parse(const char *text, NcFeedCommand *out);

/* ---- retention (retain.c) ---- */

extern int	nc_feed_slot_find(const char *name);
extern NcFeedConn *nc_feed_slot_conn(int slot);
extern void nc_feed_slot_attach(int slot, NcFeedConn *conn);
extern void nc_feed_slot_detach(int slot, NcFeedConn *conn);

/* True when WAL is kept for the page server; otherwise why says what to do. */
extern bool nc_feed_slot_ensure(int slot, TimestampTz now, const char **why);
extern void nc_feed_slot_confirm(int slot, XLogRecPtr flush);
extern void nc_feed_retain_init(void);
extern void nc_feed_retain_tick(const NcFeedTurn *turn);
extern XLogRecPtr nc_feed_slot_retained_from(int slot);

/* ---- lag (lag.c) ---- */

/* Publishes the positions of the slowest page servers and warns; once a turn. */
extern void nc_feed_lag_tick(const NcFeedTurn *turn);

/* True when writers of WAL have to wait for this page server, by the last turn. */
extern bool nc_feed_lag_exceeded(int slot);

/* ---- listening (listen.c) ---- */

extern int	nc_feed_listen(int *fds, int max);
extern NcFeedConn *nc_feed_accept(int listener, TimestampTz now);

#endif							/* NC_FEED_INTERNAL_H */
