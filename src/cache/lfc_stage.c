/*
 * lfc_stage.c
 *	  Staging pages of the file cache: where a page waits until the writer has
 *	  written it, and the writer's side of that.
 *
 * Any process takes one, fills it and gives it to the writer; only the writer
 * frees it then.
 */
#include "lfc_int.h"

/* ---- staging pages ---- */

/* A free staging page, or -1. */
int
nc_lfc_stage_take(NcLfc *c)
{
	for (uint32_t i = 0; i < NC_LFC_STAGE_WORDS; i++)
	{
		uint64_t	bits = atomic_load_explicit(&c->taken[i], memory_order_relaxed);

		while (bits != UINT64_MAX)
		{
			int			b = __builtin_ctzll(~bits);

			if (atomic_compare_exchange_weak_explicit(&c->taken[i], &bits,
													  bits | UINT64_C(1) << b,
													  memory_order_acquire, memory_order_relaxed))
			{
				atomic_fetch_add_explicit(&c->staged, 1, memory_order_relaxed);
				return (int) i * 64 + b;
			}
		}
	}
	return -1;
}

void
nc_lfc_stage_free(NcLfc *c, uint32_t stage)
{
	atomic_fetch_sub_explicit(&c->staged, 1, memory_order_relaxed);
	atomic_fetch_and_explicit(&c->taken[stage / 64], ~(UINT64_C(1) << stage % 64),
							  memory_order_release);
}

void
nc_lfc_stage_queue(NcLfc *c, uint32_t stage, const NcLfcRef *ref)
{
	c->stages[stage].ref = *ref;
	atomic_fetch_or_explicit(&c->queued[stage / 64], UINT64_C(1) << stage % 64,
							 memory_order_release);
}

/* The place has the page of this staging page now. Lock held. */
void
nc_lfc_stage_point(NcLfcEntry *e, uint32_t stage, uint32_t sum)
{
	e->stage = (uint16_t) stage;
	e->sum = sum;
	nc_lfc_set_state(e, NC_LFC_STAGED);
}

/* ---- the writer ---- */

/* Is the staging page still what its place is to have? Else its work is over. */
static bool
is_wanted_still(NcLfc *c, const NcLfcRef *ref)
{
	uint8_t		w;
	NcLfcSet   *set = nc_lfc_set_of_place(c, ref->place, &w);
	bool		same;

	nc_lfc_lock(set);
	same = nc_lfc_word(&set->entries[w]) == ref->word;
	nc_lfc_unlock(set);
	return same;
}

bool
nc_lfc_has_work(const NcLfc *c)
{
	for (uint32_t i = 0; i < NC_LFC_STAGE_WORDS; i++)
		if (atomic_load_explicit(&c->queued[i], memory_order_seq_cst) != 0)
			return true;
	return false;
}

bool
nc_lfc_next(NcLfc *c, NcLfcJob *job)
{
	for (uint32_t i = 0; i < NC_LFC_STAGE_WORDS; i++)
	{
		uint64_t	bits;

		while ((bits = atomic_load_explicit(&c->queued[i], memory_order_acquire)) != 0)
		{
			uint64_t	bit = bits & -bits;

			job->stage = i * 64 + (uint32_t) __builtin_ctzll(bits);
			job->ref = c->stages[job->stage].ref;
			job->page = nc_lfc_stage_page(c, job->stage);
			atomic_fetch_and_explicit(&c->queued[i], ~bit, memory_order_relaxed);
			if (is_wanted_still(c, &job->ref))
				return true;
			nc_lfc_stage_free(c, job->stage);
		}
	}
	return false;
}

void
nc_lfc_done(NcLfc *c, const NcLfcJob *job, bool written)
{
	uint8_t		w;
	NcLfcSet   *set = nc_lfc_set_of_place(c, job->ref.place, &w);

	nc_lfc_lock(set);
	if (nc_lfc_word(&set->entries[w]) == job->ref.word)
	{
		if (written)
			nc_lfc_set_state(&set->entries[w], NC_LFC_VALID);
		else
			nc_lfc_remove(c, set, w);
	}
	nc_lfc_unlock(set);
	nc_lfc_stage_free(c, job->stage);
}
