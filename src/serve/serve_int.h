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

#endif							/* NC_SERVE_INT_H */
