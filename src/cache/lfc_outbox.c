/*
 * lfc_outbox.c
 *	  Outbox pages of the file cache: where a page waits until the writer has
 *	  written it, and the writer's side of that.
 *
 * Any process takes one, fills it and gives it to the writer; only the writer
 * frees it then.
 */
#include "lfc_int.h"

/* ---- outbox pages ---- */

/* A free outbox page, or -1. */
int
nc_lfc_outbox_take(NcLfc *c)
{
	for (uint32_t i = 0; i < NC_LFC_OUTBOX_WORDS; i++)
	{
		uint64_t	bits = atomic_load_explicit(&c->taken[i], memory_order_relaxed);

		while (bits != UINT64_MAX)
		{
			int			b = __builtin_ctzll(~bits);

			/* acquire pairs with nc_lfc_outbox_free(): we write behind its last reader */
			if (atomic_compare_exchange_weak_explicit(&c->taken[i], &bits,
													  bits | UINT64_C(1) << b,
													  memory_order_acquire, memory_order_relaxed))
			{
				atomic_fetch_add_explicit(&c->outbox_used, 1, memory_order_relaxed);
				return (int) i * 64 + b;
			}
		}
	}
	return -1;
}

void
nc_lfc_outbox_free(NcLfc *c, uint32_t box)
{
	atomic_fetch_sub_explicit(&c->outbox_used, 1, memory_order_relaxed);
	atomic_fetch_and_explicit(&c->taken[box / 64], ~(UINT64_C(1) << box % 64),
							  memory_order_release);
}

void
nc_lfc_outbox_post(NcLfc *c, uint32_t box, const NcLfcRef *ref)
{
	c->outbox[box].ref = *ref;
	/* release pairs with next_of_word(): the writer sees ref and page */
	atomic_fetch_or_explicit(&c->queued[box / 64], UINT64_C(1) << box % 64,
							 memory_order_release);
}

/* The place has the page of this outbox page now. Lock held. */
void
nc_lfc_outbox_point(NcLfcEntry *e, uint32_t box, uint32_t sum)
{
	e->box = (uint16_t) box;
	e->sum = sum;
	nc_lfc_set_state(e, NC_LFC_OUTBOX);
}

/* ---- the writer ---- */

/*
 * Is the outbox page still what its place is to have?  Else its work is over.
 * That cannot be known while somebody holds the lock and does not get on: he may
 * be copying from the outbox page, so it stays as it is.
 */
typedef enum Wanted
{
	NOT_WANTED,
	WANTED,
	NOT_KNOWN
} Wanted;

static Wanted
is_wanted_still(NcLfc *c, const NcLfcRef *ref)
{
	uint8_t		w;
	NcLfcSet   *set = nc_lfc_set_of_place(c, ref->place, &w);
	Wanted		wanted;

	if (!nc_lfc_lock(c, set, NC_LFC_PATIENCE_NONE))
		return NOT_KNOWN;
	/* whoever copies from the outbox page holds the lock, so now nobody does any more */
	wanted = nc_lfc_word(&set->entries[w]) == ref->word ? WANTED : NOT_WANTED;
	nc_lfc_unlock(set);
	return wanted;
}

bool
nc_lfc_has_work(const NcLfc *c)
{
	/*
	 * For a writer that is about to sleep: it says so, full barrier, looks here.  Who has
	 * queued a page: full barrier, looks how deep the writer sleeps (nc_filecache_wake()).
	 */
	for (uint32_t i = 0; i < NC_LFC_OUTBOX_WORDS; i++)
		if (atomic_load_explicit(&c->queued[i], memory_order_seq_cst) != 0)
			return true;
	return false;
}

/* The next of one word of the queue that can be written. */
static bool
next_of_word(NcLfc *c, uint32_t i, NcLfcJob *job)
{
	uint64_t	bits = atomic_load_explicit(&c->queued[i], memory_order_acquire);

	for (; bits != 0; bits &= bits - 1)
	{
		uint64_t	bit = bits & -bits;
		Wanted		wanted;

		job->box = i * 64 + (uint32_t) __builtin_ctzll(bits);
		job->ref = c->outbox[job->box].ref;
		job->page = nc_lfc_outbox_page(c, job->box);
		wanted = is_wanted_still(c, &job->ref);
		if (wanted == NOT_KNOWN)
			continue;
		/* relaxed: the page is still taken, so nobody queues it again before it is freed */
		atomic_fetch_and_explicit(&c->queued[i], ~bit, memory_order_relaxed);
		if (wanted == WANTED)
			return true;
		nc_lfc_outbox_free(c, job->box);
	}
	return false;
}

bool
nc_lfc_next(NcLfc *c, NcLfcJob *job)
{
	for (uint32_t i = 0; i < NC_LFC_OUTBOX_WORDS; i++)
		if (next_of_word(c, i, job))
			return true;
	return false;
}

void
nc_lfc_done(NcLfc *c, const NcLfcJob *job, bool written)
{
	uint8_t		w;
	NcLfcSet   *set = nc_lfc_set_of_place(c, job->ref.place, &w);

	if (!nc_lfc_lock(c, set, NC_LFC_PATIENCE_NONE))
	{
		/* once more, later; what could not be written is void at once */
		if (!written)
			nc_lfc_void(set);
		nc_lfc_outbox_post(c, job->box, &job->ref);
		return;
	}
	/* else a newer version has come: it has its own outbox page, and is written after this */
	if (nc_lfc_word(&set->entries[w]) == job->ref.word)
	{
		if (written)
			nc_lfc_set_state(&set->entries[w], NC_LFC_VALID);
		else
			nc_lfc_remove(c, set, w);
	}
	nc_lfc_unlock(set);
	nc_lfc_outbox_free(c, job->box);
}
