/*
 * feed_internal.h
 *	  What the parts of the WAL feed know of each other.
 *
 *	  guc.c      settings and the checks at server start
 *	  registry.c which page servers are registered, by names and numbers
 *	  shared.c   shared memory, doorbell, rows of the view
 *	  feed.c     the worker: loop and life
 *	  door.c     the host of its door: who comes in, where messages go
 *	  session.c  commands
 *	  command.c  the text of a replication command
 *	  join.c     who may stream: identities are exchanged and judged
 *	  stream.c   a connection while it streams
 *	  wal.c      how far WAL may be sent, and reading it
 *	  retain.c   replication slots of page servers
 *	  sync.c     page servers that commits wait for
 *	  quorum.c   members, who is let in, being overtaken
 *	  members.c  what members have confirmed, and steps of a change of members
 *	  change.c   a change of members, in the process that wants it
 *	  lease.c    leases of page servers
 *	  answers.c  nothing is answered without them
 *	  places.c   entries of walsenders are counted before they are taken
 *	  lag.c      how far page servers are behind, for backpressure
 *	  throttle.c writers of WAL pause while they are too far behind
 */
#ifndef NC_FEED_INTERNAL_H
#define NC_FEED_INTERNAL_H

#include "postgres.h"

#include "access/xlogdefs.h"
#include "access/xlog_internal.h"
#include "datatype/timestamp.h"
#include "port/atomics.h"

#include "nc/base/clock.h"
#include "nc/feed/feed.h"
#include "nc/feed/turn.h"
#include "nc/identity/judge.h"
#include "nc/shard/shard_map.h"
#include "nc/serve/door.h"

/* Page servers that can be registered: one for each shard. */
#define NC_FEED_SLOTS_MAX NC_SHARDS_MAX

/*
 * Connections that stream to nobody.  Strangers have not logged in; guests have, and
 * are about to stream or are being replaced: NC_FEED_GUESTS more than page servers.
 */
#define NC_FEED_STRANGERS 64
#define NC_FEED_GUESTS 8

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
extern int	nc_feed_write_quorum;	/* page servers that have to confirm; 0 = members are not kept */

/* neon_comm.wal_feed_slots as this process has read it. */
typedef struct NcFeedList
{
	int			count;
	char		names[NC_FEED_SLOTS_MAX][NAMEDATALEN];
} NcFeedList;

extern NcFeedList nc_feed_listed;

extern char *nc_feed_listen_addresses;
extern char *nc_feed_ssl_cert_file;
extern char *nc_feed_ssl_key_file;
extern bool nc_feed_require_ssl;
extern bool nc_feed_allow_unjoined;
extern char *nc_feed_auth_public_key_file;

/* Was a certificate set since the start of the server, now or before? */
extern bool nc_feed_had_certificate;

extern void nc_feed_guc_init(void);
/*
 * What to do when histories differ: neither side may be thrown away before somebody
 * has decided, since contents are on page servers only.
 */
#define NC_FEED_KEEP_BOTH \
	"Keep the directories of both until you have decided which one is right: contents are on " \
	"page servers only. See docs/operations.md, \"An answer was refused\"."

extern void nc_feed_check_settings(void);

/* FATAL when strangers could connect; in the postmaster, at its start. */
extern void nc_feed_check_network(void);

/* A WARNING when tokens and WAL may travel in clear text. */
extern void nc_feed_warn_of_clear_text(void);

/* ---- who is registered (registry.c) ---- */

/* How many, and the name that has a number; "" = none. */
extern int	nc_feed_nslots;
extern char nc_feed_slot_names[NC_FEED_SLOTS_MAX][NAMEDATALEN];

/* The next number that a page server has; -1 behind the last one. The first: of -1. */
extern int	nc_feed_slot_after(int slot);

/* The number of a name, or -1. */
extern int	nc_feed_slot_find(const char *name);

/* Takes over what an earlier feed has left in shared memory. */
extern void nc_feed_registry_init(void);

/* The list may be another one: what is known of those who have gone is forgotten, who is new gets a number. */
extern void nc_feed_registry_reloaded(void);

/* ---- shared memory and doorbell (shared.c) ---- */

/*
 * Any process: position of the slowest page server that counts, all ones when
 * none does, and the limit in bytes as the feed has it, 0 = none.  The feed's
 * and not our own setting: a reload must reach a statement that runs.
 */
extern XLogRecPtr nc_feed_lowest(NcLagKind kind, uint64 *limit);


extern void nc_feed_doorbell_create(void);
extern int	nc_feed_doorbell(void);
extern void nc_feed_doorbell_answer(void);
extern bool nc_feed_sleep_begin(void);
extern void nc_feed_sleep_end(void);
extern void nc_feed_publish_sent(XLogRecPtr lsn);
extern void nc_feed_publish_lowest(NcLagKind kind, XLogRecPtr lsn, uint64 limit);
/* One of max_wal_senders; false: none is left. Any process. */
extern bool nc_feed_place_take(void);
extern void nc_feed_place_give(void);

/* May logins go on?  How many page servers have confirmed, have to, and what; NULL: not of interest. */
extern bool nc_feed_let_in(int *confirmed, int *needed, XLogRecPtr *end);
extern void nc_feed_let_in_set(int confirmed, int needed, XLogRecPtr end, bool in);
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

/* shared.c: what others see of a turn. */
extern void nc_feed_publish_turn(const NcFeedLimit *limit);

/* One open WAL segment of a connection. */
typedef struct NcFeedSegment
{
	int			fd;				/* -1 = none */
	TimeLineID	timeline;
	XLogSegNo	number;
} NcFeedSegment;

extern void nc_feed_wal_init(void);
extern NcFeedLimit nc_feed_wal_limit(void);

/* Is this a position that nobody has who has the WAL of this compute? */
extern bool nc_feed_wal_beyond(const NcFeedLimit *limit, XLogRecPtr lsn);
extern bool nc_feed_wal_read(NcFeedSegment *seg, TimeLineID timeline, XLogRecPtr start,
							 size_t bytes, uint8_t *to, char *why);
extern void nc_feed_wal_close(NcFeedSegment *seg);

/* nc_wal_last_record_from() of our pg_wal; upto is flushed. Reads two pages' headers a segment. */
extern XLogRecPtr nc_feed_wal_last_record_from(TimeLineID timeline, XLogRecPtr upto);

/* True when the segment that holds lsn is still in pg_wal. */
extern bool nc_feed_wal_present(TimeLineID timeline, XLogRecPtr lsn);

/* Where redo of the last completed checkpoint starts, by the control file. May throw. */
extern XLogRecPtr nc_feed_wal_last_redo(void);

/* ---- connections (door.c) ---- */

typedef struct NcFeedConn
{
	NcVisitor	v;				/* first, see nc/serve/door.h; its clock is nc_feed_clock() */
	bool		joined;			/* on this connection, as `member` */
	NcId		member;
	bool		joined_early;	/* in recovery */
	bool		told;			/* who the members are, when it joined */
	TimestampTz connected_since;	/* by the wall clock, for the view */

	/* Streaming. */
	bool		streaming;		/* in COPY BOTH; while it is OPEN, see nc_feed_streams() */
	int			slot;			/* index of its name, -1 = none yet */
	bool		from_recovery;	/* began in recovery: checked again when that ends */
	TimeLineID	timeline;
	bool		greeted;		/* has told its positions on this connection */
	bool		caught_up;		/* has been sent all there was, once outside recovery */
	TimestampTz stuck_since;	/* its replay stands where this directory was laid; 0 = it does not */
	bool		keepalive_owed;
	bool		ping_sent;		/* asked, and nothing heard since */
	TimestampTz pinged_at;		/* when, by our clock that never jumps */
	bool		lease_asked;	/* and not answered yet */
	TimestampTz lease_asked_at; /* 0 = never on this connection */
	XLogRecPtr	sent;
	XLogRecPtr	write;
	XLogRecPtr	flush;
	XLogRecPtr	apply;
	TimestampTz replied_at;		/* by nc_feed_clock() */
	TimestampTz reply_time;		/* by the wall clock, for the view */
	NcFeedSegment segment;
} NcFeedConn;

static inline bool
nc_feed_streams(const NcFeedConn *conn)
{
	return conn->streaming && conn->v.state == NC_VISITOR_OPEN;
}

/*
 * What timers go by: it never jumps, and 0 is long ago.  In the server's type, for
 * its arithmetic.
 */
static inline TimestampTz
nc_feed_clock(void)
{
	return (TimestampTz) nc_clock_us() + USECS_PER_DAY;
}

/* The same moment by nc_clock_us(). */
static inline uint64
nc_feed_clock_us(TimestampTz at)
{
	return (uint64) (at - USECS_PER_DAY);
}

/* What one turn of the loop works with. */
typedef struct NcFeedTurn
{
	TimestampTz now;			/* by nc_feed_clock() */
	TimestampTz wall;			/* by the wall clock: to be sent and shown, nothing else */
	NcFeedLimit limit;
} NcFeedTurn;

/* FATAL when certificate or keys cannot be used; in the postmaster, at its start. */
extern void nc_feed_door_check_files(void);

/* Loads certificate and keys and opens the port; FATAL when an address cannot be had. */
extern NcDoor *nc_feed_door_open(NcLoop *loop);

/* Loads them anew; what cannot be loaded again stays as it is, which is logged. */
extern void nc_feed_door_reload(void);

/* The door's turn within one of the feed. */
extern void nc_feed_door_turn(const NcFeedTurn *turn);

/* Ends the connections of a member that has parted. */
extern void nc_feed_end_member(const NcId *member, const NcJoinAnswer *answer);

/* An ErrorResponse; the connection lives on. */
extern void nc_feed_conn_error(NcFeedConn *conn, const char *sqlstate, const char *message,
							   const char *detail, const char *hint);

/* The same with FATAL, logged, and the end of the connection. */
extern void nc_feed_conn_fatal(NcFeedConn *conn, const char *sqlstate, const char *message,
							   const char *detail, const char *hint);

/* Handle one message. */
extern void nc_feed_session_command(NcFeedConn *conn, const NcFeedTurn *turn,
									const NcFrame *frame);
extern void nc_feed_stream_message(NcFeedConn *conn, const NcFeedTurn *turn,
								   const NcFrame *frame);

/* ---- streaming (stream.c) ---- */

extern void nc_feed_stream_begin(NcFeedConn *conn, const NcFeedTurn *turn, int slot,
								 XLogRecPtr start);

/* Sends WAL and what else is due to who streams; true when it could send more at once. */
extern bool nc_feed_stream_turn(NcFeedConn *conn, const NcFeedTurn *turn);
extern void nc_feed_stream_finish(NcFeedConn *conn);
extern void nc_feed_stream_forget(int slot);
extern XLogRecPtr nc_feed_stream_theirs(const NcFeedConn *conn);
extern const char *nc_feed_stream_state(const NcFeedConn *conn, const NcFeedLimit *limit);

/* ---- joining (join.c) ---- */

/* Reads the identity file; throws. */
extern void nc_feed_join_init(void);
extern void nc_feed_join_forget(int slot);

/* Answers NEON_COMM_JOIN. */
extern void nc_feed_join(NcFeedConn *conn, const NcFeedTurn *turn, const char *text);

/* False: it has not joined, which has been answered. True: nothing is held against the slot any more. */
extern bool nc_feed_join_may_stream(NcFeedConn *conn, int slot);

/* At the beginning of a turn; lowers its limit while nothing of this incarnation may be sent. */
extern void nc_feed_join_tick(NcFeedTurn *turn);

/* Where a page server's boot image ended, of which this directory was laid; invalid if it was not. */
extern XLogRecPtr nc_feed_join_laid_at(void);

/* Why the page server of a slot was refused last, "" = it was not; state is one word. */
extern const char *nc_feed_join_reason(int slot, const char **state);

/* ---- commands (session.c, command.c) ---- */

/* Answers with one row of one text column. */
extern void nc_feed_answer_text(NcFeedConn *conn, const char *column, const char *text, int bytes,
								const char *tag);

typedef enum NcFeedCommandKind
{
	NC_FEED_CMD_UNKNOWN,
	NC_FEED_CMD_MALFORMED,
	NC_FEED_CMD_EMPTY,
	NC_FEED_CMD_IDENTIFY,
	NC_FEED_CMD_JOIN,			/* its text is read by the core, as a whole */
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

extern NcFeedConn *nc_feed_slot_conn(int slot);
extern void nc_feed_slot_attach(int slot, NcFeedConn *conn);
extern void nc_feed_slot_detach(int slot, NcFeedConn *conn);

/* True when WAL is kept for the page server; otherwise why says what to do. */
extern bool nc_feed_slot_ensure(int slot, TimestampTz now, const char **why);
/* It begins to stream here, with all that follows still to come. False: that is not kept any more. */
extern bool nc_feed_slot_needs(int slot, XLogRecPtr start, const NcFeedTurn *turn);
extern void nc_feed_slot_confirm(int slot, XLogRecPtr flush, const NcFeedTurn *turn);
extern void nc_feed_retain_init(void);
extern void nc_feed_retain_forget(int slot);

/* Can nobody else use any slot of a page server? */
extern bool nc_feed_retain_holds_all(void);
extern void nc_feed_retain_tick(const NcFeedTurn *turn);
extern XLogRecPtr nc_feed_slot_retained_from(int slot);

/* ---- commits that wait (sync.c) ---- */

extern void nc_feed_sync_init(void);
extern void nc_feed_sync_forget(int slot);

/* synchronous_standby_names may have changed. */
extern void nc_feed_sync_reloaded(void);

/* Who counts, with which positions; releases who waits for them. Behind stream and door of a turn. */
extern void nc_feed_sync_tick(const NcFeedTurn *turn);

/* May a commit wait for a page server that streams?  Then each flush wakes this process. */
extern bool nc_feed_sync_awaited(void);

/* Somebody has to be released who could not be in this turn. */
extern bool nc_feed_sync_owed(void);

/* Its place in synchronous_standby_names, 0 = none, and what it counts as now. */
extern int	nc_feed_sync_priority(int slot);
extern const char *nc_feed_sync_state(int slot);

/* ---- members (quorum.c) ---- */

extern void nc_feed_quorum_init(void);
extern void nc_feed_quorum_check_settings(void);
extern void nc_feed_quorum_begin(void);

/* Puts the members into the answer of a join; true if they are known. */
extern bool nc_feed_quorum_tell(NcJoinAnswer *answer);
extern bool nc_feed_quorum_known(void);

/* Somebody has joined who will be told so; may end connections. */
extern void nc_feed_quorum_joined(const NcEvidence *e);
extern void nc_feed_quorum_forget(int slot);

/* Somebody was refused since he belongs to a newer compute; may end this server. */
extern void nc_feed_quorum_overtaken(const NcEvidence *e);

/* Does what it has on disk count for commits, and for letting in? */
extern bool nc_feed_quorum_counts(const NcFeedConn *conn);

/* The same of a page server that has joined. */
extern bool nc_feed_quorum_is_member(const NcId *member);

/* Behind the streams of a turn. */
extern void nc_feed_quorum_tick(const NcFeedTurn *turn);

/* NULL: not known, or not kept. */
extern const NcMemberLists *nc_feed_quorum_lists(void);

/* False: they could not be written down, and nothing has changed. */
extern bool nc_feed_quorum_keep(const NcMemberLists *lists);

/* ---- changes of members (members.c in the feed, change.c in who wants one) ---- */

typedef enum NcFeedStep
{
	NC_FEED_STEP_BEGIN,			/* both lists count from now on */
	NC_FEED_STEP_DECIDE,		/* the first entry is confirmed by both: there is no way back */
	NC_FEED_STEP_END			/* the second one is flushed: the new list alone counts */
} NcFeedStep;

typedef enum NcFeedStepAnswer
{
	NC_FEED_STEP_REFUSED,
	NC_FEED_STEP_NOTHING,		/* BEGIN: they are the members */
	NC_FEED_STEP_CHANGE,		/* BEGIN: a change goes on */
	NC_FEED_STEP_BACK,			/* BEGIN: it was taken back */
	NC_FEED_STEP_DONE
} NcFeedStepAnswer;

#define NC_FEED_STEP_TEXT_BYTES 256

/*
 * One process at a time asks for steps, the feed answers.  A question is there when asked is not answered; who has
 * asked leaves everything as it is until then.
 */
typedef struct NcFeedChange
{
	pg_atomic_uint32 owner;		/* process id; 0 = nobody changes members */
	pg_atomic_uint32 asked;
	pg_atomic_uint32 answered;
	pg_atomic_uint64 confirmed;	/* WAL up to here has what counts confirmed; moved by each turn of the feed */

	/* the question */
	NcFeedStep	step;
	XLogRecPtr	entry;			/* DECIDE: the first entry ends here */
	uint32		write_quorum;	/* BEGIN */
	NcFeedList	names;			/* BEGIN: slots */

	/* the answer */
	NcFeedStepAnswer answer;
	char		text[NC_FEED_STEP_TEXT_BYTES];	/* REFUSED: why */
} NcFeedChange;

extern NcFeedChange *nc_feed_change(void);
extern void nc_feed_change_init(NcFeedChange *change);

/* WAL that a page server's entry may say it has, since what counts has confirmed it; all ones: members are not kept. */
typedef struct NcFeedCap
{
	XLogRecPtr	write;
	XLogRecPtr	flush;
	XLogRecPtr	apply;
} NcFeedCap;

/* Behind the streams of a turn, before commits are released. */
extern void nc_feed_members_tick(const NcFeedTurn *turn);
extern const NcFeedCap *nc_feed_members_cap(void);

/* Could this connection count for commits, were it of a member? (sync.c) */
extern bool nc_feed_sync_joined(const NcFeedConn *conn, const NcFeedTurn *turn);
/* ---- leases (lease.c, answers.c) ---- */

/* Asks who streams, when it is time. */
extern void nc_feed_lease_ask(NcFeedConn *conn, const NcFeedTurn *turn);

/* What it says to that, behind the first byte. */
extern void nc_feed_lease_take(NcFeedConn *conn, NcReader *r);
extern int	nc_feed_lease_sleep_ms(void);

/* Behind the streams of a turn. */
extern void nc_feed_lease_tick(const NcFeedTurn *turn);

/* In a backend that has been let in: waits for leases, and answers nothing without them from then on. */
extern void nc_feed_answers_begin(void);

/* ---- places (places.c) ---- */

/* From _PG_init: walsenders take places, too. */
extern void nc_feed_places_init(void);

/* ---- lag (lag.c) ---- */

/* Publishes the positions of the slowest page servers and warns; once a turn. */
extern void nc_feed_lag_tick(const NcFeedTurn *turn);

/* True when writers of WAL have to wait for this page server, by the last turn. */
extern bool nc_feed_lag_exceeded(int slot);
extern void nc_feed_lag_forget(int slot);

#endif							/* NC_FEED_INTERNAL_H */
