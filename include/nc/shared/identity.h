/*
 * nc/shared/identity.h
 *	  Who this compute is: birth, incarnation, place; see docs/identity.md.
 *
 * The postmaster checks the place of the data directory before it changes anything,
 * and gives each life of the shared memory an incarnation, which is durable before
 * any process of it runs.  The feed adds where it began and who has parted from it.
 */
#ifndef NC_SHARED_IDENTITY_H
#define NC_SHARED_IDENTITY_H

#include "postgres.h"

#include "access/xlogdefs.h"

#include "nc/identity/files.h"
#include "nc/identity/join.h"

typedef struct NcIdentityShared
{
	NcReaderIdentity reader;	/* birth and incarnation of this life; never changes */
	char		place[NC_PLACE_BYTES];
	uint32		lives;			/* incarnations that are remembered, this one included */
	bool		elsewhere;		/* goes on in place of a directory elsewhere, whose compute may run still */
	XLogRecPtr	shutdown_end;	/* end of the checkpoint of a clean stop; 0 = recovery runs */

	/* Where this incarnation began; 0 = in recovery. Written by the feed, once. */
	_Atomic uint64_t began;
} NcIdentityShared;

/* NULL in a server that is no compute. */
extern NcIdentityShared *nc_identity;

/* What each connection to a page server says of us, as an option of its start-up packet. Any process. */
extern void nc_identity_options(char *to, Size bytes);

#endif							/* NC_SHARED_IDENTITY_H */
