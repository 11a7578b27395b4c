/*
 * nc/identity/lease.h
 *	  Leases, as compute and page server write them on a stream of WAL (docs/takeover.md).
 *
 * The compute asks in a CopyData of its own kind, with the time of its asking; the page
 * server answers with the same time, and how long it grants, counted from then on.  Each
 * counts by CLOCK_BOOTTIME of its own machine; the times of the other one mean nothing to it.
 */
#ifndef NC_IDENTITY_LEASE_H
#define NC_IDENTITY_LEASE_H

#include <stdint.h>

/*
 * First byte of both messages.  Behind it: the time of asking (64 bits); in the answer also
 * milliseconds that are granted (32 bits, 0 = nothing is) and for how long what was granted
 * to other incarnations may still run (32 bits).
 */
#define NC_LEASE_MESSAGE 'l'

/* Milliseconds that a page server may be set to grant. */
#define NC_LEASE_MIN_MS 1000
#define NC_LEASE_MAX_MS 60000
#define NC_LEASE_DEFAULT_MS 3000

/* How much longer who has granted it counts: two clocks may go apart by a hundredth. */
static inline uint64_t
nc_lease_counted_us(uint32_t granted_ms)
{
	return (uint64_t) granted_ms * 1010 + 1000;
}

#endif							/* NC_IDENTITY_LEASE_H */
