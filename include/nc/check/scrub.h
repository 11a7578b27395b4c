/*
 * nc/check/scrub.h
 *	  The slow comparison of page servers that goes on all the time: what it has come to,
 *	  in shared memory, and its work.
 *
 * One process compares all relations by their files, without a catalog and without locks.  What
 * looks wrong to it is looked at again by a second one, in a session of the relation's database
 * that holds the relation's lock; only what that finds too is told (docs/decisions/0044).
 */
#ifndef NC_CHECK_SCRUB_H
#define NC_CHECK_SCRUB_H

#include "postgres.h"

#include <stdatomic.h>

#include "datatype/timestamp.h"

#include "nc/base/key.h"
#include "nc/check/verify.h"

typedef enum NcScrubState
{
	NC_SCRUB_OFF = 0,			/* no process: neon_comm.scrub_rate is 0, or it is about to start */
	NC_SCRUB_RUNNING,
	NC_SCRUB_PAUSED,			/* writers of WAL wait for page servers */
	NC_SCRUB_AWAY				/* a page server does not answer; problem says which */
} NcScrubState;

#define NC_SCRUB_STATES (NC_SCRUB_AWAY + 1)

extern const char *nc_scrub_state_name(NcScrubState state);

#define NC_SCRUB_FINDINGS 32
#define NC_SCRUB_SUSPECTS 64
#define NC_SCRUB_TEXT_BYTES 320

/* What is wrong with a block, or (block -1) with a relation. */
typedef struct NcScrubFinding
{
	NcRelKey	rel;
	int64		block;
	NcVerifyState state;
	uint64		times;			/* how often it was found */
	TimestampTz first;
	TimestampTz last;
	char		database[NAMEDATALEN];
	char		relation[2 * NAMEDATALEN + 8];	/* with schema, quoted */
	char		page_server[NC_SCRUB_TEXT_BYTES];
	char		what[NC_SCRUB_TEXT_BYTES];
} NcScrubFinding;

/* One of them in shared memory: odd while it is written. */
typedef struct NcScrubPlace
{
	_Atomic uint64 version;
	NcScrubFinding finding;
} NcScrubPlace;

typedef struct NcScrub
{
	_Atomic uint32 pid;			/* of the process that compares; 0 = none */
	_Atomic uint32 session_pid; /* of the one that looks again */
	_Atomic uint32 state;

	/* since shared memory was made */
	_Atomic uint64 rounds;		/* that came to their end */
	_Atomic uint64 blocks;		/* compared */
	_Atomic uint64 found;		/* findings, each time that they were found */
	_Atomic uint64 unconfirmed; /* could not be looked at again */

	/* this round, or the last one */
	_Atomic int64 round_began;	/* TimestampTz; 0 = never */
	_Atomic int64 round_ended;	/* the last one that did */
	_Atomic uint64 relations_done;
	_Atomic uint64 relations_all;
	_Atomic uint64 blocks_done;
	_Atomic uint64 blocks_all;	/* when it began */

	/* where it is */
	_Atomic uint32 spc;
	_Atomic uint32 db;
	_Atomic uint32 rel;
	_Atomic uint32 block;
	char		problem[NC_SCRUB_TEXT_BYTES];	/* may be torn */

	/* for the process that looks again; one relation's */
	NcRelKey	suspect_rel;
	int			suspects;
	int64		suspect[NC_SCRUB_SUSPECTS];
	_Atomic uint32 looked_at;	/* how many of them have been */
	_Atomic uint32 passed_by;	/* the relation is gone, or somebody's: not in this round */

	/* written by the process that looks again alone */
	_Atomic uint64 places_used;
	NcScrubPlace places[NC_SCRUB_FINDINGS];
} NcScrub;

extern NcScrub *nc_scrub;		/* NULL in a server that is no compute */

extern Size nc_scrub_shmem_bytes(void);
extern void nc_scrub_shmem_startup(void);

/* The i-th finding, from 0 on; false when there is none, or it is being written all the time. */
extern bool nc_scrub_finding(int i, NcScrubFinding *out);

/* ---- work; processes of src/worker ---- */

/*
 * Looks again at what is suspected of suspect_rel, in a database where that is, or in none whether that database
 * is there at all; ends by an error when it cannot.  In no transaction.
 */
extern void nc_scrub_look_again(void);

/* What who compares needs of its process. */
typedef struct NcScrubHost
{
	/* Waits so long (ms) or until something happens; true when settings were read again. May end the process. */
	bool		(*rest) (long ms);

	/* Has suspects looked at in this database, and waits for it. */
	void		(*look_again) (Oid db);
} NcScrubHost;

/* One round over all relations; returns early, counting none, when they are off. Raises errors. */
extern void nc_scrub_round(const NcScrubHost *host);

#endif							/* NC_CHECK_SCRUB_H */
