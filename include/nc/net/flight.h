/*
 * nc/net/flight.h
 *	  NcFlight: one pagestream request on its way, and lists of them.
 *
 * Memory of the engine, which embeds it in a larger object.  It is in exactly
 * one list at a time: a queue of a pool, the in-flight list of a connection, or
 * a list that the engine is moving.  The list it is in says who owns it.
 */
#ifndef NC_NET_FLIGHT_H
#define NC_NET_FLIGHT_H

#include "nc/base/check.h"
#include "nc/wire/pagestream.h"

typedef struct NcFlight
{
	struct NcFlight *next;
	NcPsRequest msg;			/* reqid is set anew at each sending, and never used twice */
	uint64_t	group;			/* requests of one range: kept together on a connection */
	uint64_t	first_us;		/* when it was first queued */
	uint64_t	sent_us;		/* when it was last sent */
	uint32_t	refusals;		/* error answers after which it is asked again */
	uint8_t		refused_by;		/* bit per host of its shard that cannot answer it, and will not soon */
	bool		background;		/* nobody waits: served last, dropped with its connection */
	bool		lasting;		/* of the background, and asked again like any other */
	bool		promoted;		/* was background until somebody came to wait: foreground now */
	bool		was_sent;		/* a later sending is a repetition */
	bool		hedged;			/* sent over two connections: what it takes says nothing */
} NcFlight;

typedef struct NcFlightList
{
	NcFlight   *head;
	NcFlight   *tail;
	uint32_t	count;
} NcFlightList;

static inline void
nc_flight_append(NcFlightList *list, NcFlight *flight)
{
	flight->next = NULL;
	if (list->tail != NULL)
		list->tail->next = flight;
	else
		list->head = flight;
	list->tail = flight;
	list->count++;
}

static inline NcFlight *
nc_flight_pop(NcFlightList *list)
{
	NcFlight   *flight = list->head;

	if (flight == NULL)
		return NULL;
	list->head = flight->next;
	if (list->head == NULL)
		list->tail = NULL;
	list->count--;
	flight->next = NULL;
	return flight;
}

/* Moves all of `from` before the first of `list`, in order. */
static inline void
nc_flight_prepend_list(NcFlightList *list, NcFlightList *from)
{
	if (from->head == NULL)
		return;
	from->tail->next = list->head;
	if (list->tail == NULL)
		list->tail = from->tail;
	list->head = from->head;
	list->count += from->count;
	*from = (NcFlightList) {0};
}

/* Moves all of `from` behind the last of `list`, in order. */
static inline void
nc_flight_append_list(NcFlightList *list, NcFlightList *from)
{
	nc_flight_prepend_list(from, list);
	*list = *from;
	*from = (NcFlightList) {0};
}

#endif							/* NC_NET_FLIGHT_H */
