/*
 * record.c
 *	  See nc/trace/record.h.
 */
#include "nc/trace/record.h"

bool
nc_trace_put(NcTraceBuffer *b, const NcTraceRecord *record)
{
	uint32_t	i = atomic_fetch_add_explicit(&b->next, 1, memory_order_relaxed) % NC_TRACE_CELLS;
	NcTraceCell *cell = &b->cells[i];
	uint32_t	empty = NC_TRACE_EMPTY;

	if (!atomic_compare_exchange_strong_explicit(&cell->state, &empty, NC_TRACE_WRITING,
												 memory_order_acquire, memory_order_relaxed))
	{
		atomic_fetch_add_explicit(&b->dropped, 1, memory_order_relaxed);
		return false;
	}
	cell->record = *record;
	atomic_store_explicit(&cell->state, NC_TRACE_FULL, memory_order_release);
	atomic_fetch_add_explicit(&b->recorded, 1, memory_order_relaxed);
	return true;
}

uint32_t
nc_trace_take(NcTraceBuffer *b, NcTraceRecord *records, uint32_t max)
{
	/* the cell of the next put is that of the oldest */
	uint32_t	from = atomic_load_explicit(&b->next, memory_order_relaxed);
	uint32_t	n = 0;

	for (uint32_t looked = 0; looked < NC_TRACE_CELLS && n < max; looked++)
	{
		NcTraceCell *cell = &b->cells[(from + looked) % NC_TRACE_CELLS];

		if (atomic_load_explicit(&cell->state, memory_order_acquire) != NC_TRACE_FULL)
			continue;
		records[n++] = cell->record;
		atomic_store_explicit(&cell->state, NC_TRACE_EMPTY, memory_order_release);
	}
	return n;
}
