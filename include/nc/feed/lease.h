/*
 * nc/feed/lease.h
 *	  Leases of a compute: until when it may answer (docs/takeover.md).
 *
 * The feed collects them; any process may look.
 */
#ifndef NC_FEED_LEASE_H
#define NC_FEED_LEASE_H

#include "postgres.h"

#include "nc/identity/identity.h"

extern Size nc_lease_shmem_bytes(void);
extern void nc_lease_shmem_startup(void);

/*
 * Has this compute leases from a write quorum now?  True says: no other compute had let anybody
 * in before the call.  Always without neon_comm.write_quorum.  Costs a look at the clock.
 */
extern bool nc_lease_holds(void);

/* Milliseconds for which the lease of a member still runs, 0 = it has none. */
extern int	nc_lease_left_ms(const NcId *member);

#endif							/* NC_FEED_LEASE_H */
