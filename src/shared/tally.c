/*
 * tally.c
 *	  See nc/shared/tally.h.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/proc.h"
#include "storage/shmem.h"

#include "nc/compat/pg.h"
#include "nc/shared/tally.h"

NcTally    *nc_my_tally = NULL;

static NcTally *tallies;		/* [NC_PROC_COUNT()], by index of PGPROC */

/* Of who has no PGPROC: the postmaster, a process that has given it back. */
static NcTally unseen;

NcTally *
nc_tally_attach(void)
{
	NcTally    *mine;

	if (MyProc == NULL || tallies == NULL)
		return &unseen;
	mine = &tallies[NC_MY_PROC_INDEX()];
	/* nobody's while an earlier owner's figures are in it */
	atomic_store(&mine->pid, 0);
	for (int i = 0; i < NC_TALLIES; i++)
	{
		atomic_store_explicit(&mine->value[i], 0, memory_order_relaxed);
		atomic_store_explicit(&mine->workers[i], 0, memory_order_relaxed);
	}
	atomic_store(&mine->pid, (uint32) MyProcPid);
	nc_my_tally = mine;
	return mine;
}

static void
copy_counts(NcTallyCounts *to, const _Atomic uint64_t *from)
{
	for (int i = 0; i < NC_TALLIES; i++)
		to->value[i] = atomic_load_explicit(&from[i], memory_order_relaxed);
}

void
nc_tally_now(NcTallyCounts *own, NcTallyCounts *workers)
{
	NcTally    *t = nc_my_tally != NULL ? nc_my_tally : nc_tally_attach();

	copy_counts(own, t->value);
	if (workers != NULL)
		copy_counts(workers, t->workers);
}

void
nc_tally_add_since(NcTallyCounts *sum, const NcTallyCounts *now, const NcTallyCounts *before)
{
	for (int i = 0; i < NC_TALLIES; i++)
		sum->value[i] += now->value[i] - before->value[i];
}

void
nc_tally_give_leader(const NcTallyCounts *since)
{
	PGPROC	   *leader = MyProc->lockGroupLeader;
	NcTally    *t;

	if (leader == NULL || leader == MyProc || tallies == NULL)
		return;
	t = &tallies[leader - ProcGlobal->allProcs];
	/* a leader that has not counted yet would forget it, but it has: it began the query */
	for (int i = 0; i < NC_TALLIES; i++)
		atomic_fetch_add_explicit(&t->workers[i], since->value[i], memory_order_relaxed);
}

int
nc_tally_of(uint32 index, NcTallyCounts *own)
{
	NcTally    *t = &tallies[index];
	int			pid = ProcGlobal->allProcs[index].pid;

	memset(own, 0, sizeof(*own));
	if (pid == 0 || tallies == NULL || (int) atomic_load(&t->pid) != pid)
		return pid;
	copy_counts(own, t->value);
	/* it was zeroed for another owner meanwhile */
	if ((int) atomic_load(&t->pid) != pid)
		memset(own, 0, sizeof(*own));
	return pid;
}

Size
nc_tally_shmem_bytes(void)
{
	return mul_size(NC_PROC_COUNT() + 1, sizeof(NcTally));
}

void
nc_tally_shmem_startup(void)
{
	bool		found;
	void	   *memory = ShmemInitStruct("neon_comm tallies", nc_tally_shmem_bytes(), &found);

	tallies = (NcTally *) TYPEALIGN(NC_CACHE_LINE_BYTES, memory);
	if (!found)
		memset(tallies, 0, NC_PROC_COUNT() * sizeof(NcTally));
}
