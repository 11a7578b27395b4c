/*
 * twin.c
 *	  Messages that were sent twice: the first answer counts, the other one is
 *	  dropped.
 *
 * Runs in the communicator.  Two parts of one job that know each other; each is in
 * its own list of the net.  The first that is answered takes the job from the
 * other, whose answer then concerns nobody.  A part that loses its connection while
 * its twin is on the way is not sent again.
 */
#include "engine_int.h"

void
nc_twin_leave(NcPart *part)
{
	if (part->twin == NULL)
		return;
	part->twin->twin = NULL;
	part->twin = NULL;
}

void
nc_twin_disown(NcPart *part)
{
	/* the twin is one of them, so the job is not left without parts, and is not freed here */
	NC_ASSERT(part->job->outstanding > 1);
	nc_twin_leave(part);
	part->job->outstanding--;
	part->job = NULL;
}

void
nc_twin_answered(NcPart *part)
{
	NcPart	   *twin = part->twin;

	if (twin == NULL)
		return;
	nc_twin_disown(twin);
	twin->beaten = true;
}

NcFlight *
nc_twin_make(void *ctx, NcFlight *flight)
{
	NcEngine   *e = ctx;
	NcPart	   *part = nc_part_of(flight);
	NcPart	   *twin;

	if (part->job == NULL || !nc_deliver_keep(e, flight))
		return NULL;
	twin = nc_store_take(&e->parts);
	if (twin == NULL)
		return NULL;
	/* both: neither says any more what an answer takes */
	part->flight.hedged = true;
	*twin = *part;
	twin->flight.next = NULL;
	/* somebody waits for it, or it would not be asked twice: it goes as his */
	twin->flight.promoted = flight->promoted || flight->background;
	twin->flight.background = false;
	twin->flight.was_sent = false;
	twin->twin = part;
	part->twin = twin;
	part->job->outstanding++;
	return &twin->flight;
}
