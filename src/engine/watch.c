/*
 * watch.c
 *	  Once a second: requests that nobody waits for any more leave the queues,
 *	  slots that no doorbell announced are found, those for which there was no
 *	  memory are tried again, and old reads of AIO handles are promoted.
 *
 * Runs in the communicator.  A slot counts as found late only when it was
 * submitted with the same word a second ago: a client may be between its store
 * of the word and the setting of its bit right now.
 *
 * Nothing depends on this for progress: the model of the protocol has no watchdog,
 * and NC_COUNTER_FOUND_LATE must stay 0.  It is here for what nobody has thought of.
 */
#include "engine_int.h"

static bool
is_deferred(const NcEngine *e, uint32_t ring)
{
	return (e->deferred[ring / 64] >> (ring % 64) & 1) != 0;
}

/* True when a slot of the ring was found late. */
static bool
scan_ring(NcEngine *e, uint32_t ring)
{
	uint64_t   *seen = &e->seen[(size_t) ring * NC_RING_SLOTS];
	bool		late = false;

	for (uint32_t i = 0; i < NC_RING_SLOTS; i++)
	{
		uint64_t	word = nc_slot_load(&e->area.rings[ring].slots[i]);

		/* 0 is FREE in generation 0: no word that is SUBMITTED */
		if (nc_slot_word_state(word) != NC_SLOT_SUBMITTED)
			word = 0;
		else if (word == seen[i])
		{
			nc_count(e->counters, NC_COUNTER_FOUND_LATE, 1);
			late = true;
			word = 0;
		}
		seen[i] = word;
	}
	return late;
}

/*
 * Who has come to wait for a handle before it was submitted sleeps where nobody asks him to
 * say so.  So after a while somebody is taken to wait.
 */
static void
promote_old(NcEngine *e, uint32_t ring)
{
	for (uint32_t i = 0; i < NC_RING_SLOTS; i++)
	{
		NcJob	   *job = e->job_of[(size_t) ring * NC_RING_SLOTS + i];

		if (job != NULL && e->now_us - job->taken_us >= NC_WATCH_INTERVAL_US)
			nc_take_promote(e, job);
	}
}

void
nc_watch(NcEngine *e)
{
	nc_net_sweep(e->net);
	/* what the system refused it may give now, and nobody tells */
	if (e->any_deferred)
		e->freed = true;
	for (uint32_t r = 0; r < e->area.nrings; r++)
	{
		if (r >= e->area.aio_first)
			promote_old(e, r);
		/* known, and waiting for memory */
		if (is_deferred(e, r))
			continue;
		if (scan_ring(e, r))
			nc_take_ring(e, r, UINT64_MAX);
	}
}
