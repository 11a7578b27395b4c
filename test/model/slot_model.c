/*
 * slot_model.c
 *	  Exhaustive model of the slot protocol: the search, the properties and the
 *	  command line.
 *
 * Every change of a slot's word goes through the real nc_slot_move() and the
 * real transition table of src/ring/slot.c, and a run of the true protocol
 * fails when the table allows a move that the model never makes: neither can
 * change without the other.
 *
 * The search is breadth first, so the first violation it meets has a shortest
 * trace.  A run exits with 0 when it finds what it should: nothing in the
 * protocol, in a mutant one of the faults listed for it.
 */
#include "slot_model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct
{
	const char *name;
	unsigned	caught;
}			mutants[MUTANT_COUNT] = {
	[MUTANT_NONE] = {"protocol", 0},
#define M(id, name, caught) [id] = {name, caught},
	MODEL_MUTANTS(M)
#undef M
};

NcModelRun	nc_model = {.nslots = 1, .nrounds = 4, .max_cancels = 2, .max_restarts = 1};

/* The successors of the state being looked at. */
static NcModelSuccessor successors[MODEL_SUCCESSORS_MAX];
static int	nsuccessors;

/* Moves of the table that the model has made. */
static bool move_made[NC_SLOT_STATES][NC_SLOT_STATES];

/* The states met so far, in the order of their distance from the start. */
static NcModelState *states;
static uint32_t *parents;
static uint32_t *degrees;		/* edges that lead to a state */
static const char **labels;		/* the step from its parent */
static uint32_t *table;			/* open addressing: index + 1 */
static uint32_t nstates,
			capacity;
static uint64_t ntransitions;

NcModelState *
nc_model_step(const NcModelState *s, const char *what)
{
	NcModelSuccessor *next = &successors[nsuccessors++];

	if (nsuccessors > MODEL_SUCCESSORS_MAX)
		abort();
	next->state = *s;
	next->what = what;
	next->fault = FAULT_NONE;
	next->misfortune = false;
	return &next->state;
}

void
nc_model_violate(NcModelFault fault)
{
	if (successors[nsuccessors - 1].fault == FAULT_NONE)
		successors[nsuccessors - 1].fault = fault;
}

void
nc_model_misfortune(void)
{
	successors[nsuccessors - 1].misfortune = true;
}

bool
nc_model_move(NcModelState *n, int slot, int generation, NcSlotState from, NcSlotState to)
{
	NcSlot		real;
	uint64_t	word;

	if (!nc_slot_move_allowed(from, to))
	{
		nc_model_violate(OWNERSHIP);
		return false;
	}
	atomic_init(&real.word, nc_slot_word(n->slot[slot].generation, n->slot[slot].state));
	if (!nc_slot_move(&real, nc_slot_word((uint64_t) generation, from), to))
		return false;
	move_made[from][to] = true;
	/* nobody reads a text but in DONE: fewer states */
	if (to == NC_SLOT_FREE)
		n->slot[slot].text = 0;
	word = nc_slot_load(&real);
	n->slot[slot].state = (uint8_t) nc_slot_word_state(word);
	if (nc_model.mutant != NO_GENERATION)
		n->slot[slot].generation = (uint8_t) nc_slot_word_generation(word);
	return true;
}

void
nc_model_owner_move(NcModelState *n, int slot, NcSlotState from, NcSlotState to)
{
	if (!nc_model_move(n, slot, n->slot[slot].generation, from, to))
		nc_model_violate(OWNERSHIP);
}

int
nc_model_request_id(const NcModelState *s, int slot)
{
	return s->c_round * nc_model.nslots + slot + 1;
}

void
nc_model_complete(NcModelState *n, int slot, int handle_generation, bool failed)
{
	int			buf = n->c_buf[slot];
	int			id = n->buf[buf].lent;

	if (n->handle[slot].state != H_SUBMITTED || n->handle[slot].generation != handle_generation)
		nc_model_violate(WRONG_COMPLETION);
	if (!failed && (n->buf[buf].half[0] != id || n->buf[buf].half[1] != id))
		nc_model_violate(NOT_FILLED);
	n->handle[slot].state = H_COMPLETING;
	memset(&n->buf[buf], 0, sizeof(n->buf[0]));
}

void
nc_model_completed(NcModelState *n, int slot)
{
	n->handle[slot].state = H_COMPLETED;
}

static void
find_successors(const NcModelState *s)
{
	nsuccessors = 0;
	if (nc_model.aio)
		nc_model_aio_steps(s);
	else
		nc_model_client_steps(s);
	nc_model_comm_steps(s);
}

static bool
waiter_rings(const NcModelState *s)
{
	for (int w = 0; w < MODEL_WAITERS; w++)
		if (s->waiter[w].pc >= W_BELL_SET && s->waiter[w].pc <= W_BELL_KICK)
			return true;
	return false;
}

/* Does somebody wait for a handle, and its read is behind those that nobody waits for? */
static bool
is_unknown_to_comm(const NcModelState *s)
{
	for (int w = 0; w < MODEL_WAITERS && nc_model.ahead; w++)
	{
		int			slot = s->waiter[w].slot;

		if (s->waiter[w].pc != W_WAIT || s->handle[slot].state != H_SUBMITTED ||
			s->handle[slot].generation != s->waiter[w].generation)
			continue;
		for (int i = 0; i < s->ninflight; i++)
			if (s->inflight[i].slot_dest >> 4 == slot && !s->inflight[i].promoted &&
				s->inflight[i].generation == s->slot[slot].generation)
				return true;
	}
	return false;
}

/* What must hold in every state; find_successors(s) has just been called. */
static NcModelFault
check_state(const NcModelState *s)
{
	bool		ringing = (s->c_pc >= C_MARK && s->c_pc <= C_PROMOTE) ||
		(s->c_pc >= A_MARK && s->c_pc <= A_BELL_KICK) || waiter_rings(s);
	bool		waking = s->k_owes || s->k_pc == K_WAKE || s->k_pc == K_WAKE_WORD;
	bool		starting = s->k_pc >= K_BOOT;

	if (s->c_pc == C_SLEEP && !s->latch && s->slot[s->c_slot].state == NC_SLOT_DONE &&
		!waking && !starting)
		return LOST_WAKE;
	if (s->k_pc == K_ASLEEP && !s->eventfd && s->pending && !ringing)
		return LOST_WAKE;
	if (s->k_pc == K_ASLEEP && !s->eventfd && !s->pending && is_unknown_to_comm(s))
		return LOST_PROMOTION;
	if (s->c_pc == C_END && s->k_pc == K_ASLEEP && s->ninflight == 0 && s->waiter[1].pc == W_IDLE)
		return FAULT_NONE;
	for (int i = 0; i < nsuccessors; i++)
	{
		if (!successors[i].misfortune)
			return FAULT_NONE;
	}
	return STUCK;
}

static uint32_t
hash_state(const NcModelState *s)
{
	const char *bytes = (const char *) s;
	uint64_t	hash = sizeof(*s);

	for (size_t i = 0; i < sizeof(*s); i += sizeof(uint64_t))
	{
		uint64_t	part = 0;
		size_t		rest = sizeof(*s) - i;

		memcpy(&part, bytes + i, rest < sizeof(part) ? rest : sizeof(part));
		hash = (hash ^ part) * UINT64_C(0x9e3779b97f4a7c15);
		hash ^= hash >> 29;
	}
	return (uint32_t) (hash ^ hash >> 32);
}

/* Where the state is in the table, or the empty place where it belongs. */
static uint32_t *
find_entry(const NcModelState *s)
{
	uint32_t	mask = capacity * 2 - 1;
	uint32_t	at = hash_state(s) & mask;

	while (table[at] != 0 && memcmp(&states[table[at] - 1], s, sizeof(*s)) != 0)
		at = (at + 1) & mask;
	return &table[at];
}

static void *
resized(void *array, size_t item_bytes)
{
	void	   *result = realloc(array, item_bytes * capacity);

	if (result == NULL)
		abort();
	return result;
}

static void
grow(void)
{
	capacity = capacity == 0 ? 1 << 16 : capacity * 2;
	states = resized(states, sizeof(*states));
	parents = resized(parents, sizeof(*parents));
	degrees = resized(degrees, sizeof(*degrees));
	labels = resized(labels, sizeof(*labels));
	free(table);
	table = calloc((size_t) capacity * 2, sizeof(*table));
	if (table == NULL)
		abort();
	for (uint32_t i = 0; i < nstates; i++)
		*find_entry(&states[i]) = i + 1;
}

static void
visit(const NcModelState *s, uint32_t parent, const char *what)
{
	uint32_t   *entry = find_entry(s);

	ntransitions++;
	if (*entry != 0)
	{
		degrees[*entry - 1]++;
		return;
	}
	*entry = nstates + 1;
	states[nstates] = *s;
	parents[nstates] = parent;
	degrees[nstates] = 1;
	labels[nstates] = what;
	if (++nstates == capacity)
		grow();
}

/*
 * Visits everything, or stops at the first violation: then *last is the state
 * that shows it, or, when *final_step is set, the state before that step.
 */
static NcModelFault
explore(uint32_t *last, const char **final_step)
{
	for (uint32_t i = 0; i < nstates; i++)
	{
		NcModelState now = states[i];	/* the array may move */
		NcModelFault fault;

		find_successors(&now);
		*last = i;
		fault = check_state(&now);
		if (fault != FAULT_NONE)
			return fault;
		for (int j = 0; j < nsuccessors; j++)
		{
			*final_step = successors[j].what;
			if (successors[j].fault != FAULT_NONE)
				return successors[j].fault;
			visit(&successors[j].state, i, successors[j].what);
		}
		*final_step = NULL;
	}
	return FAULT_NONE;
}

static void
make_start(void)
{
	NcModelState start;

	memset(&start, 0, sizeof(start));
	start.k_pc = K_TOP;
	for (int i = 0; i < nc_model.nslots; i++)
		start.slot[i].generation = 1;
	for (int i = 0; i < nc_model.nslots && nc_model.aio; i++)
		start.handle[i].generation = 1;
	if (nc_model.aio)
		start.c_pc = A_BEGIN;
	grow();
	visit(&start, UINT32_MAX, "start");
	degrees[0] = ntransitions = 0;
}

/*
 * With no dead end (STUCK) and no cycle every execution ends, and ends with
 * everything done: progress, without any assumption of fairness.  States are
 * removed when the last edge that leads to them is; a cycle remains.
 */
static NcModelFault
check_cycles(void)
{
	uint32_t   *queue = malloc(sizeof(uint32_t) * nstates);
	uint32_t	count = 1;

	if (queue == NULL)
		abort();
	queue[0] = 0;
	for (uint32_t i = 0; i < count; i++)
	{
		find_successors(&states[queue[i]]);
		for (int j = 0; j < nsuccessors; j++)
		{
			uint32_t	next = *find_entry(&successors[j].state) - 1;

			if (--degrees[next] == 0)
				queue[count++] = next;
		}
	}
	free(queue);
	return count == nstates ? FAULT_NONE : ENDLESS;
}

/* The steps from the start to a state; returns their number. */
static int
follow_trace(uint32_t at, bool print)
{
	int			length;

	if (parents[at] == UINT32_MAX)
		return 0;
	length = follow_trace(parents[at], print) + 1;
	if (print)
		printf("  %3d  %s\n", length, labels[at]);
	return length;
}

static const char *
fault_name(NcModelFault fault)
{
	switch (fault)
	{
		case FAULT_NONE:
			return "nothing";
		case WRITE_UNOWNED:
			return "write to a buffer that its owner has taken back";
		case WRITE_FOREIGN:
			return "page of another request in a buffer";
		case TORN:
			return "request accepted that was not submitted so";
		case NOT_FILLED:
			return "request completed without its page";
		case OWNERSHIP:
			return "move that is not allowed, or lost by the owner";
		case LOST_WAKE:
			return "lost wake-up";
		case STUCK:
			return "stuck state";
		case ENDLESS:
			return "execution without an end";
		case WRONG_TEXT:
			return "text of another request";
		case WRONG_COMPLETION:
			return "handle completed twice, or in another life";
		case LOST_PROMOTION:
			return "somebody waits, and the communicator does not know";
	}
	return "invalid";
}

/* Does the true protocol make every move that the table allows? */
static bool
table_is_covered(void)
{
	bool		covered = true;

	for (int from = 0; from < NC_SLOT_STATES; from++)
		for (int to = 0; to < NC_SLOT_STATES; to++)
		{
			if (!nc_slot_move_allowed(from, to) || move_made[from][to])
				continue;
			printf("  the table allows %s -> %s, which the model never makes\n",
				   nc_slot_state_name(from), nc_slot_state_name(to));
			covered = false;
		}
	return covered;
}

static int
number_option(const char *text, int low, int high)
{
	char	   *end;
	long		value = strtol(text, &end, 10);

	if (end != text && *end == '\0' && value >= low && value <= high)
		return (int) value;
	fprintf(stderr, "slot_model: \"%s\" is not a number from %d to %d\n", text, low, high);
	exit(2);
}

static NcModelMutant
mutant_option(const char *name)
{
	for (int i = 0; i < MUTANT_COUNT; i++)
		if (strcmp(mutants[i].name, name) == 0)
			return (NcModelMutant) i;
	fprintf(stderr, "slot_model: no mutant \"%s\"\n", name);
	exit(2);
}

static void
list_mutants(void)
{
	for (int i = MUTANT_NONE + 1; i < MUTANT_COUNT; i++)
		puts(mutants[i].name);
	exit(0);
}

/* Returns whether the trace is wanted. */
static bool
read_options(int argc, char **argv)
{
	bool		trace = false;

	for (int i = 1; i < argc; i++)
	{
		const char *sign = strchr(argv[i], '=');
		const char *value = sign == NULL ? "" : sign + 1;

		if (strncmp(argv[i], "--slots=", 8) == 0)
			nc_model.nslots = number_option(value, 1, MODEL_SLOTS_MAX);
		else if (strncmp(argv[i], "--rounds=", 9) == 0)
			nc_model.nrounds = number_option(value, 1, MODEL_ROUNDS_MAX);
		else if (strncmp(argv[i], "--cancels=", 10) == 0)
			nc_model.max_cancels = number_option(value, 0, 9);
		else if (strncmp(argv[i], "--restarts=", 11) == 0)
			nc_model.max_restarts = number_option(value, 0, 9);
		else if (strncmp(argv[i], "--mutant=", 9) == 0)
			nc_model.mutant = mutant_option(value);
		else if (strcmp(argv[i], "--ahead") == 0)
			nc_model.ahead = true;
		else if (strcmp(argv[i], "--aio") == 0)
			nc_model.aio = true;
		else if (strcmp(argv[i], "--word") == 0)
			nc_model.word = true;
		else if (strcmp(argv[i], "--trace") == 0)
			trace = true;
		else if (strcmp(argv[i], "--list") == 0)
			list_mutants();
		else
		{
			fprintf(stderr, "slot_model: unknown option %s\n", argv[i]);
			exit(2);
		}
	}
	return trace;
}

int
main(int argc, char **argv)
{
	bool		trace = read_options(argc, argv);
	const char *final_step = NULL;
	uint32_t	last = 0;
	NcModelFault fault;
	int			length;

	make_start();
	fault = explore(&last, &final_step);
	if (fault == FAULT_NONE)
		fault = check_cycles();
	printf("%s%s (slots %d, requests in each %d, cancels %d, restarts %d): "
		   "%u states, %llu transitions\n",
		   mutants[nc_model.mutant].name, nc_model.aio ? " of AIO handles" : nc_model.word ? " asleep on a word" : "", nc_model.nslots, nc_model.nrounds, nc_model.max_cancels,
		   nc_model.max_restarts, nstates, (unsigned long long) ntransitions);
	printf("  shows: %s", fault_name(fault));
	if (fault != FAULT_NONE && fault != ENDLESS)
	{
		if (trace)
			putchar('\n');
		length = follow_trace(last, trace);
		if (final_step != NULL && trace)
			printf("  %3d  %s\n", length + 1, final_step);
		printf("%s after %d steps", trace ? " " : ",", length + (final_step != NULL));
	}
	putchar('\n');
	if (nc_model.mutant == MUTANT_NONE)
		return fault == FAULT_NONE && table_is_covered() ? 0 : 1;
	return (fault & mutants[nc_model.mutant].caught) != 0 ? 0 : 1;
}
