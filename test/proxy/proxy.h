/*
 * proxy.h
 *	  A fault proxy between a compute and its page servers, for tests.
 *
 * One process, one thread, epoll.  Each link is a port that is forwarded to a
 * target.  Bytes pass in order, each direction delayed by a constant of the
 * link (all that is under way overlaps: a delay costs latency, not bandwidth);
 * libpq messages are cut so that rules can act on them.  Files by subject:
 *
 *	main.c    options, the loop
 *	control.c commands, from the command line and from a unix socket
 *	relay.c   links, connections, queues of bytes
 *	message.c cutting messages, what they are
 *	rules.c   which rule acts, and how
 *
 * Bounds: CONNS_MAX connections, QUEUE_BYTES_MAX of delayed bytes per direction
 * (then it stops reading), MESSAGE_BYTES_MAX of one message (a longer one makes
 * the connection pass unseen).
 */
#ifndef NC_TEST_PROXY_H
#define NC_TEST_PROXY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LINKS_MAX 130
#define CONNS_MAX 1024
#define RULES_MAX 128
#define NAME_BYTES 32
#define HOST_BYTES 64
#define MESSAGE_BYTES_MAX (512 * 1024)
#define INPUT_BYTES (MESSAGE_BYTES_MAX + 256 * 1024)
#define QUEUE_BYTES_MAX (64 * 1024 * 1024)
#define SEGMENT_BYTES (64 * 1024)
#define NEVER_US UINT64_MAX

typedef enum Direction
{
	TO_SERVER,
	TO_CLIENT
} Direction;

/* What a message is, for rules: pagestream's tags, or one of these. */
#define TAG_ANY (-1)
#define TAG_OTHER 1000
#define TAG_STARTUP 1001

/* Bytes that leave at a time. */
typedef struct Segment
{
	struct Segment *next;
	uint64_t	due_us;
	size_t		start;
	size_t		end;
	size_t		capacity;
	uint8_t		data[];
} Segment;

typedef enum Phase
{
	PHASE_STARTUP,				/* client only: messages without a type byte */
	PHASE_TYPED,
	PHASE_RAW					/* TLS, or nothing we know */
} Phase;

/* One direction of a connection. */
typedef struct Flow
{
	struct Conn *conn;
	Direction	direction;
	Phase		phase;
	uint32_t	single_bytes;	/* answers to SSLRequest that are expected: one byte each */
	uint8_t    *input;			/* INPUT_BYTES */
	size_t		input_start;
	size_t		input_end;
	Segment    *head;
	Segment    *tail;
	size_t		queued;
	uint64_t	last_due_us;	/* order is kept: nothing leaves before what came before it */
	uint64_t	bytes;			/* read, ever */
	uint64_t	rate;			/* bytes per second, 0 = all */
	uint64_t	rate_next_us;	/* nothing leaves before */
	uint8_t    *held;			/* an answer that waits to be swapped */
	size_t		held_bytes;
	bool		blocked;		/* the socket took less than offered */
	bool		ended;			/* end of input seen */
	bool		end_sent;
} Flow;

typedef struct Conn
{
	struct Link *link;
	uint32_t	number;			/* of its link, from 1 */
	int			fd[2];			/* [TO_SERVER] = server's socket, [TO_CLIENT] = client's */
	uint32_t	interest[2];
	bool		used;
	bool		connecting;
	bool		held_back;		/* the server is not called before start_us */
	bool		silent;			/* everything read is thrown away */
	int			version;		/* of pagestream, 0 = not known to be one */
	uint32_t	outstanding;	/* requests without an answer */
	uint64_t	start_us;
	Flow		flow[2];
} Conn;

typedef struct Link
{
	char		name[NAME_BYTES];
	char		host[HOST_BYTES];	/* target */
	uint16_t	port;
	char		listen_host[HOST_BYTES];
	uint16_t	listen_port;
	int			listen_fd;		/* -1: down */
	uint64_t	delay_us[2];
	uint64_t	accepted;
	uint32_t	open;
	uint32_t	open_most;
	uint64_t	bytes[2];
	uint64_t	messages[2];
} Link;

/* A message that rules look at; body without type and length. */
typedef struct Message
{
	uint8_t		type;			/* 0: startup packet */
	int			tag;
	const uint8_t *data;		/* the whole of it */
	size_t		bytes;
} Message;

/* ---- main.c ---- */
extern uint64_t now_us(void);
extern int	epoll_fd;
extern bool quit_requested;
extern void event_add(int fd, uint32_t events, void *tag);
extern void trace(const char *format,...) __attribute__((format(printf, 1, 2)));

/* ---- relay.c ---- */
extern Link links[LINKS_MAX];
extern int	nlinks;
extern Link *link_find(const char *name);
extern const char *link_add(const char *name, const char *listen_host, uint16_t listen_port,
								const char *host, uint16_t port);
extern const char *link_up(Link *link);
extern void link_down(Link *link);
extern void link_cut(Link *link, bool reset);	/* NULL: all */
extern void link_release(Link *link);
extern void link_accept(Link *link);
extern void relay_event(Conn *c, int fd, uint32_t events);
extern uint64_t relay_turn(void);	/* sends what is due; when to come again */
extern void relay_reap(void);
extern void conn_close(Conn *c, bool reset);
extern void flow_put(Flow *f, const void *data, size_t bytes, uint64_t extra_us);

/* ---- message.c ---- */
extern void flow_cut(Flow *f);	/* input -> queue, message by message */

/* ---- rules.c ---- */
extern const char *rule_add(char **words, int nwords, int *id);
extern bool rule_remove(int id);	/* 0: all */
extern void rules_seed(uint64_t seed);
extern int	rules_describe(char *out, size_t bytes);
extern bool rules_any(void);

/* A rule acts on a connection that was just accepted. False: it is gone. */
extern bool rules_on_connect(Conn *c);

/* A rule acts on a message instead of passing it. False: none did, or none that replaces it. */
extern bool rules_on_message(Flow *f, const Message *m);

/* ---- control.c ---- */
extern const char *control_listen(const char *path);
extern void control_event(int index);
extern bool control_command(char *line, char *out, size_t bytes);

#endif							/* NC_TEST_PROXY_H */
