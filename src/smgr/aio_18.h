/*
 * aio_18.h
 *	  What abi_18.c and aio_18.c know of each other.  Private to src/smgr.
 */
#ifndef NC_SMGR_AIO_18_H
#define NC_SMGR_AIO_18_H

#include "postgres.h"

#include "storage/aio.h"
#include "storage/aio_internal.h"

#include "nc/smgr/abi.h"

/* Descriptors of our handles; the server has none below zero. */
#define NC_FD_ANSWERED (-17071) /* all pages are there before it is submitted */
#define NC_FD_ASKED (-17072)	/* the communicator brings them */

/* The members of NcSmgrAbi.aio. */
extern const NcSmgrAio nc_smgr_aio;

/*
 * Asks the communicator for the pages of a permanent main fork, if it can be left alone with
 * that: the handle is then staged, perhaps submitted.  False, and nothing done: read them now.
 */
extern bool nc_aio_start(PgAioHandle *ioh, SMgrRelation reln, BlockNumber first, void **buffers,
						 BlockNumber nblocks);

/* Is it one of the reads of which a stream keeps enough in flight, with us? */
extern bool nc_aio_overlaps(const PgAioHandle *ioh);

/* Stages the handle of a read of ours. */
extern void nc_aio_stage(PgAioHandle *ioh, SMgrRelation reln, ForkNumber fork, BlockNumber first,
						 void **buffers, BlockNumber nblocks, int fd);

/* Hands such a handle to the communicator; the caller rings the bell. In a critical section. */
extern void nc_aio_hand_over(PgAioHandle *ioh);

/* IoMethodOps.wait_one for all handles; theirs: that of the server's method, or NULL. */
extern void nc_aio_wait(PgAioHandle *ioh, uint64 generation,
						void (*theirs) (PgAioHandle *ioh, uint64 generation));

/* In the postmaster, at the start: how failures of ours are told. */
extern void nc_aio_install(void);

#endif							/* NC_SMGR_AIO_18_H */
