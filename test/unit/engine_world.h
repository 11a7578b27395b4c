/*
 * engine_world.h
 *	  An engine, page servers and clients in one thread, with a clock that the
 *	  test moves: the bench of the engine's tests.
 */
#ifndef ENGINE_WORLD_H
#define ENGINE_WORLD_H

#include "mock_ps.h"
#include "nc/engine/engine.h"

#define WORLD_SERVERS_MAX 8
#define WORLD_DEST_PAGES 8192
#define WORLD_TURNS_MAX 20000

/* What the clock advances by in each turn. */
#define WORLD_TURN_US 100

#define WORLD_HANDLES_MAX 128

/* How the handle's last read was completed by the engine. */
typedef struct WorldHandle
{
	uint32_t	completed;		/* how often, in all */
	uint64_t	generation;
	NcSlotResult result;
	char		text[NC_RING_ERROR_BYTES];
} WorldHandle;

typedef struct World
{
	NcLoopMethod	io;
	NcRingArea	area;
	void	   *area_memory;
	NcCounters	counters;
	NcLatency	latency;
	NcConnRow	rows[NC_CONN_ROWS];
	NcNetSettings config;
	NcShardMap	map;
	NcEngine   *engine;
	MockPs	   *servers[WORLD_SERVERS_MAX];
	uint32_t	nservers;
	uint64_t	now_us;
	uint64_t	clock_step_us;	/* that passes with each reading of the clock */
	uint8_t    *dest;			/* [WORLD_DEST_PAGES] pages, shared by all rings */
	uint32_t	wakes;
	WorldHandle handles[WORLD_HANDLES_MAX];
	bool		no_handle_pages;	/* the host does not know where they go */
	NcSlotTrace *traces;		/* of world_trace() */
	uint32_t	traced;			/* handles whose trace the host was told of */
	int			extra_fds[4];	/* descriptors to watch, before the start */
	int			nextra_fds;
	char		log[8192];		/* all lines */
	int			wait_ms;		/* real waiting in a turn, for tests with a thread */
} World;

/* A test with each method of the loop; the file has the two set-ups. */
#define BOTH(test) \
	cmocka_unit_test_setup(test, use_uring), \
	cmocka_unit_test_setup(test, use_epoll)

/* One read as a client makes it. */
typedef struct WorldRead
{
	uint32_t	ring;
	uint32_t	slot;
	NcSlotKind	kind;
	NcSlotClass class;
	uint32_t	rel;
	uint32_t	block;
	uint32_t	nblocks;
	uint32_t	dest;			/* the first of nblocks pages in `dest` */
} WorldRead;

extern World *world_open(NcLoopMethod io, uint32_t nrings, uint32_t nservers);
extern void world_close(World *w);

/* With rings of AIO handles behind those of processes. */
extern World *world_open_aio(NcLoopMethod io, uint32_t nrings, uint32_t nhandles, uint32_t nservers);

/* Where block `index` of a handle's read goes. */
extern uint8_t *world_handle_page(World *w, uint32_t handle, uint32_t index);

/* What the engine needs of its host: the test's clock, its pages, its log. */
extern NcHost world_host(World *w);

/* Gives the area traces; before the start. */
extern void world_trace(World *w);

/* (Re)starts the engine with w->config and w->map. */
extern void world_start(World *w);
extern void world_stop(World *w);

/* A map over the first n servers. */
extern void world_map(World *w, uint32_t n, uint32_t stripe);

/* One turn of everybody. */
extern void world_turn(World *w);

/* Turns until the slot is DONE; fails the test when that does not come. */
extern void world_wait(World *w, uint32_t ring, uint32_t slot);

/* Turns until a counter reaches a value. */
extern void world_wait_counter(World *w, NcCounter id, uint64_t value);

/* n turns. */
extern void world_turns(World *w, uint32_t n);

extern void world_submit(World *w, const WorldRead *r);
extern void world_submit_quietly(World *w, const WorldRead *r); /* without the doorbell */
extern NcSlot *world_slot(World *w, uint32_t ring, uint32_t slot);
extern NcSlotState world_state(World *w, uint32_t ring, uint32_t slot);

/* DONE -> FREE; returns the result. */
extern NcSlotResult world_collect(World *w, uint32_t ring, uint32_t slot);

/* SUBMITTED or TAKEN -> FREE; false when it was too late. */
extern bool world_cancel(World *w, uint32_t ring, uint32_t slot);

/* Are the pages of a read all there, each from the server that the map names? */
extern bool world_pages_right(World *w, const WorldRead *r);

extern NcRelKey world_rel(uint32_t rel);
extern uint64_t world_counter(World *w, NcCounter id);
extern uint32_t world_rows_in(World *w, NcConnState state);

#endif							/* ENGINE_WORLD_H */
