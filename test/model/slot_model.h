/*
 * slot_model.h
 *	  What the parts of the slot protocol's model share: a state, the faults
 *	  and the mutants, and how a part reports its steps.
 *
 * A stand-alone test program.  It visits every state that sequentially
 * consistent interleavings of one client and the communicator can reach, with
 * bounds on requests, cancels and restarts.  docs/ring.md explains the model,
 * its bounds and what each mutant shows.
 *
 * One step is at most one access to memory that both sides use.  Copying a
 * request and copying a page are two steps each, so that a half finished copy
 * is visible to the other side.
 */
#ifndef NC_TEST_SLOT_MODEL_H
#define NC_TEST_SLOT_MODEL_H

#include "nc/ring/slot.h"

#define MODEL_SLOTS_MAX 2
#define MODEL_ROUNDS_MAX 5
#define MODEL_BUFS_MAX (MODEL_SLOTS_MAX + 1)
#define MODEL_INFLIGHT_MAX (MODEL_SLOTS_MAX * MODEL_ROUNDS_MAX)
#define MODEL_SUCCESSORS_MAX 32

/* What can be wrong with a state or a step; bits, because a mutant may show one of several. */
typedef enum NcModelFault
{
	FAULT_NONE = 0,
	WRITE_UNOWNED = 1 << 0,		/* a write to a buffer that its owner has taken back */
	WRITE_FOREIGN = 1 << 1,		/* a page of another request in a buffer */
	TORN = 1 << 2,				/* a copy accepted that is not the request that was taken */
	NOT_FILLED = 1 << 3,		/* a request completed without its page */
	OWNERSHIP = 1 << 4,			/* a move outside the table, or lost by the slot's only owner */
	LOST_WAKE = 1 << 5,			/* one side sleeps, its event has come, nobody will wake it */
	STUCK = 1 << 6,				/* nobody can move and not everything is done */
	ENDLESS = 1 << 7			/* a cycle: some execution never ends */
} NcModelFault;

#define WRONG_WRITE (WRITE_UNOWNED | WRITE_FOREIGN)
#define NO_PROGRESS (LOST_WAKE | STUCK)

/* Identifier, name on the command line, the faults that count as caught. */
#define MODEL_MUTANTS(M) \
	M(CANCEL_IN_FLIGHT, "cancel-in-flight", WRITE_UNOWNED) \
	M(CANCEL_COPYING, "cancel-copying", WRITE_UNOWNED) \
	M(NO_GENERATION, "no-generation", TORN) \
	M(LATE_ANSWER, "late-answer", WRONG_WRITE) \
	M(COPY_AFTER_TAKE, "copy-after-take", TORN) \
	M(NO_COPYING, "no-copying", WRONG_WRITE) \
	M(DONE_EARLY, "done-early", NOT_FILLED) \
	M(CLIENT_NO_RECHECK, "client-no-recheck", NO_PROGRESS) \
	M(COMM_NO_RECHECK, "communicator-no-recheck", NO_PROGRESS) \
	M(NO_CLIENT_WAKE, "no-client-wake", NO_PROGRESS) \
	M(NO_KICK, "no-kick", NO_PROGRESS) \
	M(LOOK_BEFORE_BIT, "look-before-bit", NO_PROGRESS) \
	M(LOOK_BEFORE_DONE, "look-before-done", NO_PROGRESS) \
	M(DRAIN_LATE, "drain-late", NO_PROGRESS) \
	M(CLEAR_LATE, "clear-late", NO_PROGRESS) \
	M(BELL_BEFORE_SUBMIT, "bell-before-submit", NO_PROGRESS) \
	M(RESTART_NO_REQUEUE, "restart-no-requeue", NO_PROGRESS) \
	M(RESTART_NO_BELL, "restart-no-bell", NO_PROGRESS) \
	M(RESTART_NO_WAKE, "restart-no-wake", NO_PROGRESS) \
	M(EXIT_IN_COPYING, "exit-in-copying", NO_PROGRESS)

typedef enum NcModelMutant
{
	MUTANT_NONE = 0,
#define M(id, name, caught) id,
	MODEL_MUTANTS(M)
#undef M
	MUTANT_COUNT
} NcModelMutant;

/* Where the client is. */
enum
{
	C_BEGIN, C_FILL_BLOCK, C_FILL_DEST, C_SUBMIT,
	C_BELL_SET, C_BELL_LOOK, C_BELL_KICK,
	C_CHECK, C_FLAG, C_RECHECK, C_SLEEP, C_UNFLAG, C_CANCEL, C_DRAIN, C_FREE,
	C_END
};

/* Where the communicator is. The K_BOOT_* steps are what a new one does before its first tick. */
enum
{
	K_SCAN, K_COPY_BLOCK, K_COPY_DEST, K_TAKE, K_CLEAR,
	K_DELIVER, K_WRITE_0, K_PAUSED, K_WRITE_1, K_DONE, K_LOOK, K_WAKE,
	K_TOP, K_SLEEP_FLAG, K_SLEEP_LOOK, K_DRAIN_LATE, K_ASLEEP, K_AWAKE, K_DRAIN,
	K_BOOT, K_BOOT_LOAD, K_BOOT_REQUEUE, K_BOOT_BELL, K_BOOT_LOOK, K_BOOT_WAKE
};

/*
 * One state; bytes only, so that comparing and hashing see no padding.
 * Requests have ids from 1; an id stands for the block asked for, and for its
 * page.
 */
typedef struct NcModelState
{
	/* shared: the slots; `block` is one half of a request, dest_id and dest are the other */
	struct
	{
		uint8_t		generation,
					state;
		uint8_t		block;
		uint8_t		dest_id,
					dest;
	}			slot[MODEL_SLOTS_MAX];

	/* shared: doorbell and completion flag; in the kernel: the eventfd and the client's latch */
	uint8_t		pending,
				asleep,
				eventfd,
				client_asleep,
				latch;

	/* shared: a buffer, the request that may write there (0: nobody), and its two halves */
	struct
	{
		uint8_t		lent;
		uint8_t		half[2];
	}			buf[MODEL_BUFS_MAX];

	/* the client's own */
	uint8_t		c_pc,
				c_slot,
				c_round,
				c_seen,			/* state seen before cancelling */
				c_saw,			/* the flag it looked at */
				c_want;			/* it has decided to cancel */
	uint8_t		c_buf[MODEL_SLOTS_MAX];

	/* the communicator's own: lost in a restart */
	uint8_t		k_pc,
				k_slot,
				k_generation,
				k_block,
				k_dest_id,
				k_dest,
				k_taken,		/* only for checking: the request that the slot held at TAKEN */
				k_saw,			/* the flag it looked at */
				k_owes;			/* it has moved a slot to DONE and not yet looked for sleepers */
	uint8_t		ninflight;
	struct
	{
		uint8_t		generation,
					slot_dest;	/* slot << 4 | dest */
		uint8_t		id;
	}			inflight[MODEL_INFLIGHT_MAX];

	uint8_t		cancels,
				restarts;
} NcModelState;

typedef struct NcModelSuccessor
{
	NcModelState state;
	const char *what;
	NcModelFault fault;
	bool		misfortune;		/* a cancel or a restart: allowed, but progress may not need it */
} NcModelSuccessor;

/* The bounds and the protocol of this run. */
typedef struct NcModelRun
{
	int			nslots;
	int			nrounds;
	int			max_cancels;
	int			max_restarts;
	NcModelMutant mutant;
} NcModelRun;

extern NcModelRun nc_model;

/* ---- slot_model.c: for the two processes ---- */

/* Adds a successor that equals s; the caller changes what the step changes. */
extern NcModelState *nc_model_step(const NcModelState *s, const char *what);

/* Marks the successor added last. */
extern void nc_model_violate(NcModelFault fault);
extern void nc_model_misfortune(void);

/* Compare-and-swap of a slot's word, made by the real nc_slot_move(). */
extern bool nc_model_move(NcModelState *n, int slot, int generation, NcSlotState from,
						  NcSlotState to);

/* A move that only the owner of the slot can make and that therefore succeeds. */
extern void nc_model_owner_move(NcModelState *n, int slot, NcSlotState from, NcSlotState to);

/* The id of the request that the client has, or will have, in this slot. */
extern int	nc_model_request_id(const NcModelState *s, int slot);

/* ---- model_client.c, model_comm.c: every step that one of them can make ---- */
extern void nc_model_client_steps(const NcModelState *s);
extern void nc_model_comm_steps(const NcModelState *s);

#endif							/* NC_TEST_SLOT_MODEL_H */
