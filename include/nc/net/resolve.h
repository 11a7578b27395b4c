/*
 * nc/net/resolve.h
 *	  Host name to addresses without blocking the loop.
 *
 * getaddrinfo() may wait for seconds, so it runs in a detached thread of its
 * own, one for each resolution, with all signals blocked.  The thread touches
 * nothing but its NcResolve and never calls anything of the process it runs in.
 */
#ifndef NC_NET_RESOLVE_H
#define NC_NET_RESOLVE_H

#include "nc/base/check.h"

/* Addresses kept of one name; more are ignored. */
#define NC_RESOLVE_ADDRESSES_MAX 16
#define NC_RESOLVE_ADDRESS_BYTES 64

typedef struct NcResolve NcResolve;

/*
 * Starts a resolution.  An eventfd to be written at the end is duplicated, so
 * it may be closed before; -1 for none.  NULL when no thread can be made.
 */
extern NcResolve *nc_resolve_start(const char *host, int wake_fd);

extern bool nc_resolve_done(NcResolve *r);

/* After done: number of addresses; 0 = failed, nc_resolve_error() tells why. */
extern uint32_t nc_resolve_count(const NcResolve *r);
extern const char *nc_resolve_error(const NcResolve *r);

/* After done: numeric text of the address with this index (< count). */
extern const char *nc_resolve_address(const NcResolve *r, uint32_t index);

/* Done or not: the caller's hold ends; a running thread frees it later. */
extern void nc_resolve_release(NcResolve *r);

/* True for a text that needs no resolution: an address, a socket path or nothing. */
extern bool nc_resolve_is_literal(const char *host);

#endif							/* NC_NET_RESOLVE_H */
