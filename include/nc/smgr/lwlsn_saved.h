/*
 * nc/smgr/lwlsn_saved.h
 *	  What the map of last-written LSNs knows, kept over a clean stop.
 */
#ifndef NC_SMGR_LWLSN_SAVED_H
#define NC_SMGR_LWLSN_SAVED_H

#include "nc/cache/lwlsn_map.h"

/* The file, in the data directory. */
#define NC_LWLSN_FILE "neon_comm.versions"

/*
 * In the postmaster, when the map is new: takes over what the last stop has left if
 * the control file is still the one of that stop, takes the file away in any case,
 * and will write it after the next clean stop.
 */
extern void nc_lwlsn_saved_startup(NcLwMap *map);

#endif							/* NC_SMGR_LWLSN_SAVED_H */
