/*
 * test_slot.c
 *	  The transition table of slots: every pair of states, and what a move does to
 *	  the generation.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "nc/ring/slot.h"

/* The table of slot.h, written down a second time. */
static const char *const allowed_pairs[] = {
	"free>filling",
	"filling>submitted", "filling>free",
	"submitted>taken", "submitted>free",
	"taken>copying", "taken>submitted", "taken>free",
	"copying>done", "copying>taken",
	"done>free"
};

static bool
listed(NcSlotState from, NcSlotState to)
{
	char		pair[64];

	snprintf(pair, sizeof(pair), "%s>%s", nc_slot_state_name(from), nc_slot_state_name(to));
	for (size_t i = 0; i < sizeof(allowed_pairs) / sizeof(allowed_pairs[0]); i++)
		if (strcmp(pair, allowed_pairs[i]) == 0)
			return true;
	return false;
}

static void
test_all_pairs(void **state)
{
	int			found = 0;

	for (int from = 0; from < NC_SLOT_STATES; from++)
	{
		for (int to = 0; to < NC_SLOT_STATES; to++)
		{
			assert_int_equal(nc_slot_move_allowed(from, to), listed(from, to));
			found += listed(from, to) ? 1 : 0;
		}
	}
	assert_int_equal(found, sizeof(allowed_pairs) / sizeof(allowed_pairs[0]));
}

static void
test_states_out_of_range(void **state)
{
	assert_false(nc_slot_move_allowed((NcSlotState) NC_SLOT_STATES, NC_SLOT_FREE));
	assert_false(nc_slot_move_allowed(NC_SLOT_DONE, (NcSlotState) NC_SLOT_STATES));
	assert_false(nc_slot_move_allowed((NcSlotState) 255, (NcSlotState) 255));
	assert_string_equal(nc_slot_state_name((NcSlotState) 77), "invalid");
}

/* Each allowed move: the state changes; the generation advances exactly when a life ends. */
static void
test_generation(void **state)
{
	const uint64_t generation = UINT64_C(0x00ffffff12345678);

	for (int from = 0; from < NC_SLOT_STATES; from++)
	{
		for (int to = 0; to < NC_SLOT_STATES; to++)
		{
			NcSlot		slot;
			uint64_t	seen = nc_slot_word(generation, from);
			bool		ends = to == NC_SLOT_FREE && from != NC_SLOT_FILLING;

			if (!nc_slot_move_allowed(from, to))
				continue;
			memset(&slot, 0, sizeof(slot));
			atomic_init(&slot.word, seen);
			assert_true(nc_slot_move(&slot, seen, to));
			assert_int_equal(nc_slot_word_state(nc_slot_load(&slot)), to);
			assert_true(nc_slot_word_generation(nc_slot_load(&slot)) ==
						generation + (ends ? 1 : 0));
		}
	}
}

/* A word that is no longer the one seen, by state or by generation, is left alone. */
static void
test_stale_word(void **state)
{
	NcSlot		slot;
	uint64_t	now = nc_slot_word(8, NC_SLOT_TAKEN);

	memset(&slot, 0, sizeof(slot));
	atomic_init(&slot.word, now);
	assert_false(nc_slot_move(&slot, nc_slot_word(7, NC_SLOT_TAKEN), NC_SLOT_COPYING));
	assert_false(nc_slot_move(&slot, nc_slot_word(8, NC_SLOT_SUBMITTED), NC_SLOT_TAKEN));
	assert_true(nc_slot_load(&slot) == now);
}

/* The race that the generation is for: cancelled and used again, then a late answer. */
static void
test_late_answer(void **state)
{
	NcSlot		slot;
	uint64_t	taken = nc_slot_word(3, NC_SLOT_TAKEN);

	memset(&slot, 0, sizeof(slot));
	atomic_init(&slot.word, taken);
	assert_true(nc_slot_move(&slot, taken, NC_SLOT_FREE));
	assert_true(nc_slot_move(&slot, nc_slot_load(&slot), NC_SLOT_FILLING));
	assert_true(nc_slot_move(&slot, nc_slot_load(&slot), NC_SLOT_SUBMITTED));
	assert_true(nc_slot_move(&slot, nc_slot_load(&slot), NC_SLOT_TAKEN));
	assert_false(nc_slot_move(&slot, taken, NC_SLOT_COPYING));
	assert_true(nc_slot_load(&slot) == nc_slot_word(4, NC_SLOT_TAKEN));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_all_pairs),
		cmocka_unit_test(test_states_out_of_range),
		cmocka_unit_test(test_generation),
		cmocka_unit_test(test_stale_word),
		cmocka_unit_test(test_late_answer)
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
