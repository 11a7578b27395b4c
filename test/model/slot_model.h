/*
 * slot_model.h
 *	  What the parts of the slot protocol's model share: a state, the faults
 *	  and the mutants, and how a part reports its steps.
 *
 * A stand-alone test program.  It visits every state that sequentially
 * consistent interleavings of one client and the communicator can reach, with
 * bounds on requests, cancels and restarts.  docs/ring.md explains the model,
 * its bounds and what each mutant shows.  With --aio slots are those of AIO handles
 * and another process waits for them too: docs/async.md.  With --word the client sleeps on
 * its slot's word instead of its latch.
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
	ENDLESS = 1 << 7,			/* a cycle: some execution never ends */
	WRONG_TEXT = 1 << 8,		/* a request completed with the text of another */
	WRONG_COMPLETION = 1 << 9,	/* a handle completed twice, or in another life */
	LOST_PROMOTION = 1 << 10	/* somebody has said that he waits, and the communicator sleeps without knowing */
} NcModelFault;

#define WRONG_WRITE (WRITE_UNOWNED | WRITE_FOREIGN)
#define NO_PROGRESS (LOST_WAKE | STUCK | LOST_PROMOTION)

/* Identifier, name on the command line, the faults that count as caught. */
#define MODEL_MUTANTS(M) \
	M(CANCEL_IN_FLIGHT, "cancel-in-flight", WRITE_UNOWNED) \
	M(CANCEL_COPYING, "cancel-copying", WRITE_UNOWNED) \
	M(NO_GENERATION, "no-generation", TORN | WRONG_COMPLETION) \
	M(LATE_ANSWER, "late-answer", WRONG_WRITE) \
	M(COPY_AFTER_TAKE, "copy-after-take", TORN) \
	M(NO_COPYING, "no-copying", WRONG_WRITE) \
	M(DONE_EARLY, "done-early", NOT_FILLED) \
	M(CLIENT_NO_RECHECK, "client-no-recheck", NO_PROGRESS) \
	M(COMM_NO_RECHECK, "communicator-no-recheck", NO_PROGRESS) \
	M(NO_CLIENT_WAKE, "no-client-wake", NO_PROGRESS) \
	M(NO_KICK, "no-kick", NO_PROGRESS) \
	M(WORD_NO_COMPARE, "word-no-compare", NO_PROGRESS) \
	M(LOOK_BEFORE_BIT, "look-before-bit", NO_PROGRESS) \
	M(LOOK_BEFORE_DONE, "look-before-done", NO_PROGRESS) \
	M(DRAIN_LATE, "drain-late", NO_PROGRESS) \
	M(CLEAR_LATE, "clear-late", NO_PROGRESS) \
	M(BELL_BEFORE_SUBMIT, "bell-before-submit", NO_PROGRESS) \
	M(MARK_BEFORE_SUBMIT, "mark-before-submit", NO_PROGRESS) \
	M(MARK_AFTER_BIT, "mark-after-bit", NO_PROGRESS) \
	M(MARKS_BEFORE_BIT, "marks-before-bit", NO_PROGRESS) \
	M(MARKS_LATE, "marks-late", NO_PROGRESS) \
	M(RESTART_NO_MARKS, "restart-no-marks", NO_PROGRESS) \
	M(RESTART_NO_REQUEUE, "restart-no-requeue", NO_PROGRESS) \
	M(RESTART_NO_BELL, "restart-no-bell", NO_PROGRESS) \
	M(RESTART_NO_WAKE, "restart-no-wake", NO_PROGRESS) \
	M(EXIT_IN_COPYING, "exit-in-copying", NO_PROGRESS) \
	M(ONE_TEXT, "one-text", WRONG_TEXT) \
	M(PROMOTED_TAKEN, "promoted-taken", NO_PROGRESS) \
	M(PROMOTED_BEFORE_TAKE, "promoted-before-take", NO_PROGRESS) \
	M(AIO_CLAIM_LOOKS, "aio-claim-looks", WRONG_COMPLETION | OWNERSHIP) \
	M(AIO_CLAIM_ANY_LIFE, "aio-claim-any-life", WRONG_COMPLETION) \
	M(AIO_CLAIM_COPYING, "aio-claim-copying", WRITE_UNOWNED | OWNERSHIP) \
	M(AIO_COMPLETE_FIRST, "aio-complete-first", OWNERSHIP) \
	M(AIO_PREPARE_LATE, "aio-prepare-late", WRONG_COMPLETION) \
	M(AIO_OWNER_LEAVES, "aio-owner-leaves", OWNERSHIP) \
	M(AIO_EXIT_IN_COMPLETION, "aio-exit-in-completion", NO_PROGRESS) \
	M(AIO_BELL_FIRST, "aio-bell-first", NO_PROGRESS) \
	M(AIO_PROMOTED_LATE, "aio-promoted-late", LOST_PROMOTION) \
	M(AIO_PROMOTED_QUIETLY, "aio-promoted-quietly", NO_PROGRESS)

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
	C_BEGIN, C_FILL_BLOCK, C_FILL_DEST, C_SUBMIT, C_MARK,
	C_BELL_SET, C_BELL_LOOK, C_BELL_KICK, C_PROMOTE,
	C_CHECK, C_FLAG, C_RECHECK, C_COMPARE, C_SLEEP, C_UNFLAG, C_CANCEL, C_DRAIN, C_FREE,
	C_END
};

/* With --aio: where the owner of the handles is; C_END is its end too. */
enum
{
	A_BEGIN = C_END + 1, A_UNPROMOTE, A_FILL_BLOCK, A_FILL_DEST, A_PREPARE, A_UNPROMOTE_LATE, A_SUBMIT, A_MARK,
	A_BELL_SET, A_BELL_LOOK, A_BELL_KICK, A_WAIT, A_RECLAIM
};

/* Where a process is that waits for a handle. */
enum
{
	W_IDLE, W_PROMOTE, W_BELL_SET, W_BELL_LOOK, W_BELL_KICK,
	W_WAIT, W_LOAD, W_LOOK, W_CLAIM, W_COMPLETE, W_COMPLETED
};

/* What the server knows of a handle. */
enum
{
	H_IDLE, H_SUBMITTED, H_COMPLETING, H_COMPLETED
};

/* Waiting processes: the owner and another one. */
#define MODEL_WAITERS 2

/* Where the communicator is. The K_BOOT_* steps are what a new one does before its first tick. */
enum
{
	K_MARKS, K_SCAN, K_COPY_BLOCK, K_COPY_DEST, K_TAKE, K_PROMOTE, K_TAKE_BIT, K_CLEAR_MARKS, K_CLEAR,
	K_DELIVER, K_WRITE_0, K_PAUSED, K_WRITE_1, K_DONE, K_FREE, K_COMPLETE, K_COMPLETED, K_LOOK, K_WAKE, K_WAKE_WORD,
	K_TOP, K_SLEEP_FLAG, K_SLEEP_LOOK, K_DRAIN_LATE, K_ASLEEP, K_AWAKE, K_DRAIN,
	K_BOOT, K_BOOT_LOAD, K_BOOT_REQUEUE, K_BOOT_MARK, K_BOOT_BELL, K_BOOT_LOOK, K_BOOT_WAKE,
	K_BOOT_WAKE_WORD
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
		uint8_t		text;		/* the request that it speaks of; written in COPYING */
		uint8_t		handle_generation;
	}			slot[MODEL_SLOTS_MAX];

	/* --aio, shared: the handle of each slot */
	struct
	{
		uint8_t		generation,
					state;
	}			handle[MODEL_SLOTS_MAX];

	/* --aio: processes that wait; 0 is the owner, whose slot is c_slot */
	struct
	{
		uint8_t		pc,
					slot;
		uint8_t		generation; /* of the handle, that it waits for */
		uint8_t		word_generation,
					word_state;
	}			waiter[MODEL_WAITERS];
	uint8_t		waited[MODEL_SLOTS_MAX];	/* for the other's end: it waits once for each life */

	/* shared: bit per slot, somebody waits for what it reads ahead */
	uint8_t		promoted;

	/* shared: bit per slot, it was submitted since the communicator looked */
	uint8_t		marks;

	/*
	 * shared: doorbell and completion flag, with --word 0 or the slot and 1; in the kernel: the
	 * eventfd and the client's latch, with --word that its sleep is over
	 */
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
				c_want,			/* it has decided to cancel */
				c_promoted;		/* it has said that it waits for this slot */
	uint8_t		c_buf[MODEL_SLOTS_MAX];

	/* the communicator's own: lost in a restart */
	uint8_t		k_pc,
				k_slot,
				k_marks,		/* the slots that it has to look at */
				k_generation,
				k_block,
				k_dest_id,
				k_dest,
				k_taken,		/* only for checking: the request that the slot held at TAKEN */
				k_saw,			/* the flag it looked at */
				k_handle,		/* --aio: the generation of the handle that it completes */
				k_owes;			/* it has moved a slot to DONE and not yet looked for sleepers */
	uint8_t		ninflight;
	struct
	{
		uint8_t		generation,
					slot_dest;	/* slot << 4 | dest */
		uint8_t		id;
		uint8_t		promoted;	/* before that an answer need never come: others go first */
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
	bool		aio;			/* slots are those of AIO handles */
	bool		ahead;			/* requests are reads ahead: answered when somebody is known to wait */
	NcModelMutant mutant;
	bool		word;			/* the client sleeps on its slot's word, not on its latch */
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

/*
 * A handle is completed, by whom ever: its buffer is lent no more.  The second half
 * makes it known; from there on its owner may use it again.
 */
extern void nc_model_complete(NcModelState *n, int slot, int handle_generation, bool failed);
extern void nc_model_completed(NcModelState *n, int slot);

/* ---- model_client.c, model_aio.c, model_comm.c: every step that one of them can make ---- */
extern void nc_model_client_steps(const NcModelState *s);
extern void nc_model_aio_steps(const NcModelState *s);
extern void nc_model_comm_steps(const NcModelState *s);

#endif							/* NC_TEST_SLOT_MODEL_H */
