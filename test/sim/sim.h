/*
 * sim.h
 *	  Deterministic simulation of the core: engine, pools, codec, handshake and
 *	  slots run unchanged and single-threaded against a simulated network, clock,
 *	  libpq and page servers.  Everything that happens follows from one seed.
 *
 * How it plugs in: the core's objects are linked without loop_uring.c,
 * loop_epoll.c, resolve.c and tls.c; sim_net.c is the method of the loop, sim_pq.c
 * stands for libpq and the resolver, and the linker wraps the few system calls
 * that are left (see sim.mk).  docs/simulation.md has the whole picture.
 *
 *	sim_main.c    arguments, seeds, summary
 *	sim_world.c   random numbers, events, versions of pages, histories of maps
 *	sim_net.c     connections and the loop
 *	sim_pq.c      libpq, TLS and name resolution
 *	sim_server.c  page servers and their faults
 *	sim_client.c  processes that ask for pages
 *	sim_aio.c     AIO handles, their owners and who waits for them
 *	sim_check.c   what must hold after every step and at the end
 */
#ifndef SIM_H
#define SIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "engine_int.h"
#include "nc/engine/engine.h"
#include "nc/wire/session.h"

#define SIM_SERVERS_MAX 6
#define SIM_RINGS_MAX 6
#define SIM_CONNS_MAX 1024
/* AIO handles of a seed; they lie SIM_HANDLE_STEP apart, in two rings. */
#define SIM_HANDLES_MAX 24
#define SIM_HANDLE_STEP 5
#define SIM_AIO_RINGS ((SIM_HANDLES_MAX * SIM_HANDLE_STEP + NC_RING_SLOTS - 1) / NC_RING_SLOTS)

/* What they ask is kept, and their pages lie, as if one more ring had asked it. */
#define SIM_AIO_ASKS SIM_RINGS_MAX

#define SIM_RELS 5
#define SIM_BLOCKS 96
#define SIM_DEST_PAGES 96		/* of each ring */
#define SIM_MAPS_MAX 64
#define SIM_QUEUE_MAX 2048		/* requests a page server holds of one connection */
#define SIM_FD_BASE 1000
#define SIM_EVENT_FD 900

/* An error answer says which question it answers. */
#define SIM_ERROR_TEXT "simulated error of relation %u block %u."

/* Before it, when the error is the page server's: each host of the shard must have said so. */
#define SIM_HOST_ERRORS {"Read error: ", "parted: "}

#define SIM_PAGE_WORDS (NC_PAGE_BYTES / sizeof(uint64_t))

/* What can go wrong. Each seed chooses which of them do, and how often. */
#define SIM_FAULTS(F) \
	F(ERROR, "error answer") \
	F(NOT_NOW, "error answer that will pass") \
	F(MISROUTED, "error answer: wrong shard") \
	F(HOST_ERROR, "error answer of a page server about itself") \
	F(PARTED, "page server refuses all") \
	F(STREAM_ERROR, "ErrorResponse in the stream") \
	F(NOTICE, "notice in the stream") \
	F(DROP, "connection reset instead of an answer") \
	F(CLOSE, "connection closed instead of an answer") \
	F(MID_FRAME, "connection ends within an answer") \
	F(TRUNCATED, "answer shorter than its kind") \
	F(CORRUPT, "a byte of the frame or echo changed") \
	F(DUPLICATE, "answer sent twice") \
	F(SWAPPED, "two answers in the wrong order") \
	F(ORPHAN, "answer to nothing") \
	F(WRONG_ID, "answer with another request id") \
	F(WRONG_ECHO, "answer that echoes another field") \
	F(WRONG_TAG, "answer of another kind") \
	F(REPLAY, "answer of an earlier connection to the same question") \
	F(SWALLOWED, "one request never answered") \
	F(HALF_OPEN, "connection falls silent") \
	F(TRICKLE, "notices for ever instead of an answer") \
	F(SLOW, "answer takes long") \
	F(STALL, "answer stalls half-way on its connection") \
	F(LONG_FRAME, "frame with an impossible length") \
	F(GARBAGE, "bytes that are no frame") \
	F(LIE_STALE, "older version than asked for") \
	F(LIE_FUTURE, "version from the future") \
	F(REFUSE, "connection refused") \
	F(HANG_CONNECT, "connecting hangs") \
	F(HANG_AUTH, "authentication hangs") \
	F(HANG_COMMAND, "pagestream command hangs") \
	F(REFUSE_AUTH, "authentication refused") \
	F(REFUSE_COMMAND, "pagestream command refused") \
	F(NOT_COPY, "pagestream command answered as a query") \
	F(EARLY_ANSWER, "answer before any request") \
	F(NO_RESOLVE, "host name without address") \
	F(NO_READ, "page server stops reading") \
	F(DOWN, "page server restarts, connections reset") \
	F(DOWN_SILENT, "page server vanishes, connections silent") \
	F(LAG, "page server's WAL stalls") \
	F(IO_AGAIN, "loop reports EAGAIN or EINTR") \
	F(IO_ERROR, "receive or send fails")

typedef enum SimFault
{
#define F(id, text) SIM_##id,
	SIM_FAULTS(F)
#undef F
	SIM_FAULT_COUNT
} SimFault;

typedef enum SimEventKind
{
	SIM_EV_HANDSHAKE,			/* a connection's handshake goes one step */
	SIM_EV_TO_SERVER,			/* bytes reach the page server */
	SIM_EV_TO_CLIENT,			/* bytes reach the engine's socket */
	SIM_EV_SERVE,				/* the page server answers its next request */
	SIM_EV_WINDOW,				/* the page server reads again */
	SIM_EV_TRICKLE,				/* the page server sends another notice */
	SIM_EV_CLIENT,				/* a ring's process acts */
	SIM_EV_APPLY,				/* a page server replays WAL */
	SIM_EV_SERVER,				/* a page server goes down or comes up */
	SIM_EV_RESOLVED,
	SIM_EV_ADMIN				/* map, settings, restart of the communicator */
} SimEventKind;

typedef struct SimEvent
{
	uint64_t	at_us;
	uint64_t	order;
	SimEventKind kind;
	uint32_t	index;			/* connection, ring or server */
	uint64_t	serial;			/* the connection it was meant for */
	uint64_t	bytes;
} SimEvent;

typedef enum SimStage
{
	SIM_CLOSED = 0,
	SIM_CONNECTING,
	SIM_AUTHENTICATING,
	SIM_COMMANDED,
	SIM_STREAM
} SimStage;

typedef struct SimBytes
{
	uint8_t    *data;
	size_t		start;
	size_t		end;
	size_t		capacity;
} SimBytes;

typedef struct SimConn
{
	SimStage	stage;
	uint64_t	serial;
	uint32_t	index;
	uint32_t	server;
	int			version;
	bool		tls;

	/* the engine's side */
	bool		ready;			/* handshake: the next step can be made */
	bool		hangs;			/* handshake: it never will */
	bool		refused;		/* handshake: it fails */
	bool		not_copy;
	bool		early;
	NcOp	   *in;
	NcOp	   *out;
	SimBytes	pq_in;			/* TLS: inside OpenSSL */

	/* between */
	SimBytes	to_client;
	size_t		arrived;		/* of to_client */
	uint64_t	to_client_us;	/* when the last of it arrives */
	SimBytes	to_server;
	size_t		at_server;		/* of to_server */
	uint64_t	to_server_us;
	bool		window_closed;
	bool		silent;			/* nothing gets through any more */
	bool		closing;		/* the end of stream follows the last byte */
	bool		eof;
	bool		reset;

	/* the page server's side */
	NcPsRequest queue[SIM_QUEUE_MAX];
	uint32_t	queue_first;
	uint32_t	queued;
	bool		serving;
	uint64_t	last_reqid;
	bool		held_valid;		/* SWAPPED: an answer waits for the next one */
	NcPsRequest held;
	bool		trickles;		/* sends notices and answers nothing any more */
	bool		tainted;		/* it has misbehaved: nothing of it may be used any more */
} SimConn;

typedef struct SimServer
{
	bool		down;
	bool		down_silent;
	bool		lagging;
	bool		parted;			/* answers all with an error about itself */
	NcLsn		applied;
	uint64_t	refused_us[SIM_RELS + 1][SIM_BLOCKS];	/* the last error about itself; the last row is of sizes */
	uint64_t	failed_us;		/* last failed attempt to connect that was reported */
	uint32_t	failed_map;
	NcPsRequest lost[8];		/* requests of connections that ended, for REPLAY */
	uint32_t	nlost;
} SimServer;

/* One version of a page. */
typedef struct SimVersion
{
	NcLsn		lsn;
	uint32_t	older;			/* index + 1, 0 = none */
} SimVersion;

/* What a process asked with one slot. */
typedef struct SimAsk
{
	bool		active;
	NcSlotKind	kind;
	NcSlotClass class;
	bool		wrong;			/* its fields are not acceptable */
	NcRelKey	rel;
	uint32_t	block;
	uint32_t	nblocks;
	uint32_t	dest_first;
	uint32_t	dests[NC_SLOT_BLOCKS_MAX];
	NcLsn		exact[NC_SLOT_BLOCKS_MAX];
	uint64_t	submitted_us;
	uint64_t	deadline_us;
	uint32_t	map;			/* in force when it was submitted */
	uint64_t	number;
	uint64_t	refused_us;		/* found no room, with page servers that have nothing to do, since then */
	bool		joined;			/* a read ahead that its process has come to wait for */
} SimAsk;

typedef struct SimRing
{
	bool		asleep;
	uint32_t	asleep_for;		/* only this slot's end wakes it; NC_RING_SLOTS = any */
	bool		woken;
	uint32_t	active;
	uint64_t	dest_entries;	/* bitmap of the ring's dests in use */
	bool		dest_used[SIM_DEST_PAGES];
	SimAsk		asks[NC_RING_SLOTS];
} SimRing;

/* A handle as the server sees it. */
typedef struct SimHandle
{
	uint64_t	generation;
	bool		submitted;
	uint64_t	waited;			/* a life of it that somebody waits for, or waited */
} SimHandle;

typedef struct Sim
{
	/* over all seeds */
	bool		trace;
	uint64_t	fault_count[SIM_FAULT_COUNT];
	uint64_t	total_requests;
	uint64_t	total_pages;
	uint64_t	total_cancels;
	uint64_t	total_host_errors;	/* of page servers about themselves that reached a process */
	uint64_t	total_refused;	/* answers that the LSN check refused */
	uint64_t	total_errors;
	uint64_t	total_restarts;
	uint64_t	total_hedged;
	uint64_t	total_hedged_late;
	uint64_t	total_elsewhere;	/* of those sent twice: to another host of the shard */
	uint64_t	total_other_host;	/* sent for the first time to another host than the first in the list */
	uint64_t	total_exits;	/* of these, within a turn */
	uint64_t	total_maps;
	uint64_t	total_connects;
	uint64_t	total_handles;	/* reads of AIO handles that were completed by the communicator */
	uint64_t	total_claims;	/* and those that were taken away from it */
	uint64_t	total_promoted; /* times that somebody came to wait for one */

	/* the seed's choices */
	uint64_t	seed;
	uint64_t	random;
	uint32_t	rate[SIM_FAULT_COUNT];	/* of 65536 */
	bool		quiet;			/* no fault at all */
	uint32_t	nrings;
	uint32_t	nservers;
	uint32_t	requests_max;
	uint32_t	poke_rate;		/* of 1024 */
	uint32_t	cancel_rate;
	uint32_t	write_rate;
	uint32_t	active_max;
	uint32_t	delay_us;
	uint32_t	foreign;		/* what a page server does with a block that is not its own */
	bool		eager_send;		/* like epoll: a send is tried when it is started */
	bool		late_cancel;	/* like io_uring: a cancelled operation ends later */
	bool		tls;
	bool		names;			/* page servers are named, not numbered */
	bool		same_address;	/* one page server may hold two shards */
	bool		hosts;			/* a shard may have several hosts, a page server be one of several shards */
	bool		small_stores;	/* the engine's memory is at its bound all the time */
	uint32_t	admin_mean_us;	/* 0 = never */
	uint32_t	nhandles;		/* 0 = as before PostgreSQL 18 */
	uint32_t	exit_rate;		/* of 65536: the communicator ends within a turn */

	/* time and events */
	uint64_t	now_us;
	uint64_t	order;
	SimEvent   *events;
	uint32_t	nevents;
	uint32_t	events_max;
	uint64_t	steps;
	uint64_t	hash;
	uint64_t	stuck_turns;	/* turns without time or events going on */
	bool		healed;			/* nothing new goes wrong, nothing new is asked */
	bool		in_client;
	bool		in_turn;
	bool		admin_due;

	/* the world */
	NcLsn		lsn;
	SimVersion *versions;
	uint32_t	nversions;
	uint32_t	versions_max;
	uint32_t	newest[SIM_RELS][SIM_BLOCKS];
	NcShardMap	maps[SIM_MAPS_MAX];
	uint32_t	nmaps;
	SimServer	servers[SIM_SERVERS_MAX];
	SimConn		conns[SIM_CONNS_MAX];
	uint32_t	conns_high;
	uint64_t	last_serial;
	uint32_t	open_fds;
	uint32_t	resolving;
	uint64_t	bell;			/* counter of the eventfd */
	NcOp	   *bell_op;

	/* processes */
	SimRing		rings[SIM_RINGS_MAX + 1];
	SimHandle	handles[SIM_HANDLES_MAX];
	uint8_t    *pages;			/* [SIM_RINGS_MAX + 1][SIM_DEST_PAGES] */
	uint64_t	asked;
	uint64_t	pending;

	/* the core under test */
	NcEngine   *engine;
	NcNetSettings config;
	NcRingArea	area;
	void	   *area_memory;
	NcCounters	counters;
	NcConnRow	rows[NC_CONN_ROWS];

	/* counted by the simulation, compared with the engine's counters */
	uint64_t	taken;
	uint64_t	requeued;
	uint64_t	wakes;
	uint64_t	bytes_in;
	uint64_t	bytes_out;
	uint64_t	receives;
	uint64_t	sends;
	uint64_t	page_requests;
	uint64_t	foreground;		/* requests sent for the first time that somebody waits for */
	uint64_t	hedged;
	uint64_t	elsewhere;		/* of these, to another host */
	uint64_t	waits_behind_us[NC_CONN_ROWS];	/* check_stalled() */
	uint64_t	left_alone_us[NC_CONN_ROWS];
	uint64_t	late_us[2 * NC_NET_POOLS_MAX];	/* when another host was asked instead of this one; 0 = never */
	uint64_t	queued_since_us[2 * NC_NET_POOLS_MAX];	/* check_hosts(), by the pool in the engine's store */
	uint32_t	share_seen[2 * NC_NET_POOLS_MAX];
	uint64_t	share_seen_us[2 * NC_NET_POOLS_MAX];	/* 0 = not seen under this map */
	uint64_t	sent_again;
	uint64_t	tainted_conns;
	uint64_t	streams;		/* handshakes that ended in CopyBoth */
	uint64_t	map_changes;
} Sim;

extern Sim	sim;

/* ---- sim_world.c ---- */
extern uint64_t sim_random(void);
extern uint32_t sim_below(uint32_t n);
extern bool sim_chance(uint32_t of_65536);
extern bool sim_fault(SimFault fault);
extern const char *sim_fault_name(SimFault fault);
extern void sim_at(uint64_t delay_us, SimEventKind kind, uint32_t index, uint64_t serial,
				   uint64_t bytes);
extern uint64_t sim_next_event_us(void);
extern void sim_run_event(void);
extern void sim_note(uint64_t what);
extern NcRelKey sim_rel(uint32_t r);
extern uint32_t sim_rel_index(const NcRelKey *rel);
extern void sim_write(uint32_t r, uint32_t block);
extern NcLsn sim_newest(uint32_t r, uint32_t block);
extern NcLsn sim_version_at(uint32_t r, uint32_t block, NcLsn lsn);
extern void sim_new_map(void);
extern uint32_t sim_owner(uint32_t map, const NcRelKey *rel, uint32_t block);
extern bool sim_owns(uint32_t server, uint32_t map, const NcRelKey *rel, uint32_t block);
extern uint32_t sim_server_of(const char *conninfo);
extern bool sim_is_host(const char *conninfo, uint32_t server);
extern bool sim_all_hosts_refused(const NcRelKey *rel, uint32_t block, bool is_page, uint32_t first_map, uint64_t since_us);
extern void sim_page_fill(uint64_t *page, const NcRelKey *rel, uint32_t block, NcLsn lsn,
						  uint32_t server, bool poison);
extern uint64_t sim_value(NcSlotKind kind, const NcRelKey *rel);
extern void sim_choose(uint64_t seed);

#define SIM_TRACE(...) do { if (sim.trace) sim_trace(__VA_ARGS__); } while (0)
extern void sim_trace(const char *fmt, ...) NC_PRINTF(1, 2);

/* Ends the run: this seed broke an invariant. */
extern void sim_fail(const char *fmt, ...) NC_PRINTF(1, 2) __attribute__((noreturn));

/* ---- sim_net.c ---- */
extern SimConn *sim_conn_open(uint32_t server);
extern void sim_conn_close(SimConn *c);
extern SimConn *sim_conn_of(int fd);
extern void sim_conn_event(const SimEvent *event);
extern void sim_send_to_client(SimConn *c, const void *data, size_t bytes);
extern void sim_taint(SimConn *c);
extern void sim_end_of_stream(SimConn *c);
extern void sim_reset(SimConn *c);
extern size_t sim_accept_from_client(SimConn *c, const void *data, size_t bytes);
extern size_t sim_give_to_client(SimConn *c, void *buffer, size_t bytes);
extern void sim_bytes_append(SimBytes *b, const void *data, size_t bytes);
extern void sim_bytes_consume(SimBytes *b, size_t bytes);
extern void sim_bytes_free(SimBytes *b);
extern void sim_bell_ring(void);

/* ---- sim_pq.c ---- */
extern void sim_pq_event(SimConn *c);
extern void sim_resolve_event(uint64_t serial);

/* ---- sim_server.c ---- */
extern void sim_server_receive(SimConn *c);
extern void sim_server_serve(SimConn *c);
extern void sim_server_trickle(SimConn *c);
extern void sim_server_apply(uint32_t server);
extern void sim_server_toggle(uint32_t server);
extern void sim_server_heal(void);
extern void sim_server_conn_closed(SimConn *c);

/* ---- sim_client.c ---- */
extern void sim_client_act(uint32_t ring, bool periodic);
extern void sim_client_wake(uint32_t ring);
extern void sim_client_give_up_all(void);
extern uint64_t *sim_dest(uint32_t ring, uint32_t page);
extern uint64_t sim_canary(uint32_t ring, uint32_t page);
extern void sim_poke(void);

/* Shared with sim_aio.c: pages, what is asked for them, and what is wrong with what comes. */
extern void sim_give_dest(uint32_t ring, uint32_t page);
extern uint32_t sim_take_dest(uint32_t ring);
extern void sim_check_page(uint32_t ring, uint32_t slot, const SimAsk *a, uint32_t i);
extern void sim_check_error(uint32_t ring, uint32_t index, const SimAsk *a, const char *text);

/* ---- sim_aio.c ---- */
extern void sim_aio_act(void);
extern uint8_t *sim_aio_page(uint32_t ring, uint32_t dest);
extern void sim_aio_complete(void *ctx, uint32_t handle, uint64_t generation, NcSlotResult result,
							 const char *text);
extern void sim_aio_check(void);

/* What the handle of a job asks. */
extern const SimAsk *sim_aio_ask(const NcJob *job);

/* ---- sim_check.c ---- */
extern void sim_check_step(void);

/* Another map or another engine: pools are others. */
extern void sim_check_forget_pools(void);
/* Is nothing queued or in flight? */
extern bool sim_at_rest(void);
extern void sim_check_idle(void);
extern void sim_check_end(void);
extern void sim_check_sleep(void);

/* ---- sim_main.c ---- */

/* The communicator's process ends here, within its turn: all that it knew is lost. Does not return. */
extern void sim_exit_turn(void) __attribute__((noreturn));

#endif							/* SIM_H */
