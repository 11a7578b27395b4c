/*
 * serve_int.h
 *	  What door.c and login.c know of each other.
 */
#ifndef NC_SERVE_INT_H
#define NC_SERVE_INT_H

#include "nc/serve/door.h"

/* The only place where a state changes. */
extern void nc_visitor_become(NcVisitor *v, NcVisitorState state);

/* One step of a visitor who has not logged in. */
extern NcStep nc_login_step(NcVisitor *v);

static inline bool
nc_visitor_is_stranger(const NcVisitor *v)
{
	return v->state < NC_VISITOR_OPEN;
}

/*
 * Who speaks HTTP may begin with TLS.  Until it is seen whether he does nothing is taken from his
 * socket: what TLS needs must still be there.
 */
static inline bool
nc_visitor_may_begin_tls(const NcVisitor *v)
{
	return v->door->host->pages != NULL && v->state == NC_VISITOR_STARTUP && !v->channel.secure &&
		v->channel.in.high == 0;
}

#endif							/* NC_SERVE_INT_H */
