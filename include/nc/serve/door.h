/*
 * nc/serve/door.h
 *	  The door: who comes to one of our ports is a stranger until he has logged in,
 *	  then the host's visitor, and leaves again.  docs/serve.md has the whole.
 *
 * Runs in a process with one thread, over the loop that the host gives.  A visitor
 * is in exactly one list of the door, by what he waits for, and in exactly one
 * state, by what he is; nc_visitor_check() says which go together.  The host's own
 * memory of a visitor begins with NcVisitor and lives from came() to gone().
 *
 * Nothing a visitor does can block, starve or end the others: sockets are never
 * waited for, buffers and turns are bounded, and every failure ends that visitor
 * only.  Until he has logged in he costs us his buffers for login_us, as one of
 * strangers_max, and nothing else.
 */
#ifndef NC_SERVE_DOOR_H
#define NC_SERVE_DOOR_H

#include "nc/auth/guard.h"
#include "nc/io/loop.h"
#include "nc/serve/channel.h"
#include "nc/serve/listener.h"
#include "nc/wire/session.h"

typedef struct NcDoor NcDoor;
typedef struct NcHttpPage NcHttpPage;
typedef struct NcVisitor NcVisitor;

/* ---- visitors ---- */

/* What a visitor is; in this order but for STARTUP after HANDSHAKE. */
typedef enum NcVisitorState
{
	NC_VISITOR_STARTUP = 0,		/* a start-up packet, or a request for encryption */
	NC_VISITOR_HANDSHAKE,		/* the handshake of TLS; then STARTUP again */
	NC_VISITOR_TOKEN,			/* a token, as password */
	NC_VISITOR_OPEN,			/* has logged in: the host's */
	NC_VISITOR_CLOSING,			/* our last word is on its way; what he says is thrown away */
	NC_VISITOR_GONE				/* the kernel gives his operations back; then gone() and free */
} NcVisitorState;

#define NC_VISITOR_STATES (NC_VISITOR_GONE + 1)

/* What a visitor waits for: each is a list of the door. */
typedef enum NcPlace
{
	NC_PLACE_READY = 0,			/* his next turn */
	NC_PLACE_IDLE,				/* his socket */
	NC_PLACE_PARKED,			/* the host: nc_visitor_wake(); OPEN only */
	NC_PLACE_GONE				/* the loop; GONE only */
} NcPlace;

#define NC_PLACES (NC_PLACE_GONE + 1)

/* What came of a look at the input. */
typedef enum NcStep
{
	NC_STEP_MORE,				/* a message was handled, there may be another */
	NC_STEP_INPUT,				/* it is not complete */
	NC_STEP_ROOM,				/* he has to take what was answered before */
	NC_STEP_PARK				/* it stays in the buffer until the host says so */
} NcStep;

typedef struct NcLink
{
	struct NcLink *previous;
	struct NcLink *next;
} NcLink;

struct NcVisitor
{
	NcLink		link;			/* in the list of `place`; first, see door.c */
	NcDoor	   *door;
	NcVisitorState state;		/* changed by nc_visitor_become() alone */
	NcVisitorState left_from;	/* GONE: what he was before */
	NcPlace		place;
	NcChannel	channel;
	NcOp		in;				/* polls of the socket */
	NcOp		out;
	char		address[NC_PEER_BYTES];
	uint64_t	machine;		/* nc_peer_machine() */
	bool		by_path;		/* came by a Unix socket, where TLS protects nothing */
	uint64_t	came_us;		/* these by the host's clock */
	uint64_t	heard_us;		/* the last byte from him */
	uint64_t	sent_us;		/* the last byte that he took */
	uint64_t	close_us;		/* CLOSING: when patience ends */
	size_t		full;			/* no message is handled while so many bytes are not sent */
	int			negotiations;	/* requests for encryption so far */
	bool		logged_in;
	bool		half_closed;
	bool		told;			/* GONE: gone() was called */
};

/* ---- what the host gives ---- */

/* Why somebody is not let in. Texts that live as long as the visitor. */
typedef struct NcRefusal
{
	const char *sqlstate;
	const char *message;
	const char *detail;			/* NULL = none */
	const char *hint;
} NcRefusal;

/*
 * What a port is, and what the door asks of its host.  All are called in the
 * host's own thread, within nc_door_turn(); none may block.  Only those marked so
 * may be NULL.
 */
typedef struct NcDoorHost
{
	const char *name;			/* for the log: "page service" */
	size_t		visitor_bytes;	/* of the host's struct that begins with NcVisitor; zeroed */
	size_t		in_bytes;		/* holds the largest start-up packet, token and message */
	size_t		out_bytes;
	size_t		answer_bytes;	/* room that a writer has, if the host asks for it in time */
	size_t		full;			/* what `full` of a visitor is at first */
	NcJwtScope	scope;			/* of tokens that open every tenant */
	const char *const (*parameters)[2]; /* said at the login; ends with a NULL */

	/*
	 * He speaks HTTP (nc/serve/http.h): his request is his login, and what he gets is one of
	 * these; message is nc_http_message, startup and parameters are not used, and the sqlstate
	 * of a refusal is a status.  NULL: he speaks as libpq does.
	 */
	const NcHttpPage *pages;

	NcRefusal	tls_wanted;		/* said to who should have come with TLS */

	/* Microseconds that never jump; seconds since 1970, for tokens that expire. */
	uint64_t	(*now_us) (void);
	uint64_t	(*unix_s) (void);

	/* One line for the log; detail may be NULL. */
	void		(*log) (NcDoor *door, const char *text, const char *detail);

	/*
	 * Somebody has connected; false: there is no place for him, he gets no answer and
	 * no gone().  May be NULL.
	 */
	bool		(*came) (NcVisitor *v);

	/*
	 * May he come in who sends these parameters (which point into his packet)?  TLS is
	 * judged before, his token afterwards.  False with the reason.
	 */
	bool		(*startup) (NcVisitor *v, const NcStartup *packet, NcRefusal *no);

	/*
	 * He has shown all that is asked for: is there a place for him?  False with the reason.
	 * May be NULL.
	 */
	bool		(*place) (NcVisitor *v, NcRefusal *no);

	/* He is OPEN; token is NULL if none was asked for.  May be NULL. */
	void		(*opened) (NcVisitor *v, const NcJwt *token);

	/* Looks at the input of an OPEN visitor: handles one message, or says what it needs. */
	NcStep		(*message) (NcVisitor *v);

	/*
	 * Somebody has come, or come in, in this turn: whoever is one too many leaves by
	 * nc_door_limit().  May be NULL.
	 */
	void		(*room) (NcDoor *door);

	/*
	 * An OPEN visitor was not heard for silence_us.  True: he is dropped at once.  Asked
	 * again until he is heard, or has another state.
	 */
	bool		(*silent) (NcVisitor *v);

	/* He is GONE; his memory is freed afterwards.  left_from says what he was.  May be NULL. */
	void		(*gone) (NcVisitor *v);
} NcDoorHost;

/* What a reload may change; texts are the host's and stay until the next nc_door_set(). */
typedef struct NcDoorSettings
{
	bool		require_ssl;
	const char *tenant_id;		/* whose tokens open; "" = nobody's */
	uint64_t	login_us;		/* a login may take so long */
	uint64_t	silence_us;		/* 0 = for ever */
	uint64_t	patience_us;	/* for a last word to be taken */
	uint32_t	strangers_max;	/* who have not logged in; as many who have, and are CLOSING */
} NcDoorSettings;

/* ---- the door ---- */

struct NcDoor
{
	const NcDoorHost *host;
	NcDoorSettings settings;
	NcLoop	   *loop;
	NcGuard	   *guard;
	void	   *owner;			/* the host's */
	uint64_t	now_us;			/* of this turn */

	/* Counted since the start; the host may read them. */
	uint64_t	refused;		/* who did not get in, and who had to leave for others */
	uint32_t	visitors;		/* not GONE */
	uint32_t	count[NC_VISITOR_STATES];

	/* Private. */
	NcLink		lists[NC_PLACES];
	NcLink		turn;			/* who is READY in this turn */
	uint64_t	next_sweep_us;
	uint64_t	next_log_us;
	uint32_t	unlogged;		/* refusals since the last line */
	int			nlisteners;
	uint64_t	accept_us;		/* not before, after a failure; 0 = at once */
	bool		leaving;		/* somebody is GONE since the last turn */
	bool		crowded;		/* somebody came, or came in, in this turn */
	struct
	{
		int			fd;
		NcOp		op;
	}			listeners[NC_LISTENERS_MAX];
};

/* The host's struct, loop and guard live longer than the door. */
extern void nc_door_init(NcDoor *door, const NcDoorHost *host, NcLoop *loop, NcGuard *guard,
						 const NcDoorSettings *settings);

extern void nc_door_set(NcDoor *door, const NcDoorSettings *settings);

/* Lets in who comes at these sockets, which are the door's from now on. */
extern void nc_door_listen(NcDoor *door, const int *fds, int nfds);

/* Somebody who is connected already; false, with the socket closed, if he was not taken. */
extern bool nc_door_admit(NcDoor *door, int fd, const struct sockaddr_storage *peer);

/*
 * After nc_loop_wait(): runs the loop's completions, the host's own among them.  A host
 * whose signal handlers ring looks at what they have noted after this, not before.
 */
extern void nc_door_events(NcDoor *door);

/* One turn: events, then everybody who is READY, then timers; frees who is gone. */
extern void nc_door_turn(NcDoor *door);

/* Microseconds until the next turn is needed whatever happens: 0 = at once, UINT64_MAX = never. */
extern uint64_t nc_door_sleep_us(const NcDoor *door);

/* Calls visit for all who are not GONE; it may end any of them, and no other call frees one. */
extern void nc_door_each(NcDoor *door, void (*visit) (NcVisitor *v, void *arg), void *arg);

/* The same for one list, outside a turn; not for READY while visit wakes. */
extern void nc_door_each_at(NcDoor *door, NcPlace place, void (*visit) (NcVisitor *v, void *arg),
							void *arg);

/*
 * While more than max visitors belong, one of them leaves: who is CLOSING anyway,
 * then of the machine that has most, who came first.  So the newest never does,
 * and who floods displaces himself.  `why` is logged.
 */
extern void nc_door_limit(NcDoor *door, bool (*belongs) (const NcVisitor *v), uint32_t max,
						  const char *why);

/* Everybody is cut off and freed, listeners are closed; waits for the kernel.  For tests. */
extern void nc_door_shut(NcDoor *door);

/* ---- what a host does with a visitor ---- */

/* He has something to do: a turn comes. For who is PARKED, or was written to outside a turn. */
extern void nc_visitor_wake(NcVisitor *v);

/* A writer behind what is not sent; commit takes what was written, or ends him: a flood. */
NC_MUST_USE extern NcWriter nc_visitor_writer(NcVisitor *v);
extern bool nc_visitor_commit(NcVisitor *v, const NcWriter *w);

/* Sends what his socket takes; true when nothing is left. */
extern bool nc_visitor_flush(NcVisitor *v);

/* Asks the loop for what he waits for; after writes outside message() that wake nobody. */
extern void nc_visitor_arm(NcVisitor *v);

/* An ErrorResponse, then the end once it has left.  No line in the log. */
extern void nc_visitor_end(NcVisitor *v, const char *severity, const NcRefusal *why);

/* The same with FATAL for who is not let in: counted, and logged unless one was just now. */
extern void nc_visitor_refuse(NcVisitor *v, const NcRefusal *why);

/* Counted and logged as above; the caller ends him. */
extern void nc_visitor_refused(NcVisitor *v, const char *why);

/* The end once what was written has left. */
extern void nc_visitor_close(NcVisitor *v);

/* The end, now. */
extern void nc_visitor_leave(NcVisitor *v);

/* Do state, place and buffers of a visitor go together? Asserted after each turn. */
extern bool nc_visitor_check(const NcVisitor *v);

#endif							/* NC_SERVE_DOOR_H */
