/*
 * nc/smgr/skeleton.h
 *	  Sparse local files that hold existence and length, no content.
 */
#ifndef NC_SMGR_SKELETON_H
#define NC_SMGR_SKELETON_H

#include "nc/compat/pg.h"

/* Name of the file in the data directory that allows this server to be a skeleton. */
#define NC_SKELETON_MARKER "neon_comm.skeleton"

/*
 * FATAL unless the data directory carries the marker for this system; FATAL on
 * settings that would lose data. In the postmaster, before anything is touched.
 */
extern void nc_skeleton_check_start(void);

/* FATAL when page servers are not configured but the data directory is a skeleton. */
extern void nc_skeleton_check_absent(void);

/*
 * In the postmaster, at each start of shared memory: enters the sequences found
 * in the files as unverified and punches every other content of permanent main
 * forks.
 */
extern void nc_skeleton_startup(void);

/* Makes the main fork reach up to block; every touched segment will be synced. */
extern void nc_skeleton_extend(SMgrRelation reln, BlockNumber block);

/* Gives back the space of nblocks blocks; a missing file is fine. Never throws. */
extern void nc_skeleton_punch(const NcRelKey *rel, BlockNumber block, BlockNumber nblocks);

/* Reads one block of the file with a descriptor of its own. False when there is none. */
extern bool nc_skeleton_pread(const NcRelKey *rel, BlockNumber block, char *page);

/* Blocks of the file of a main fork by its segments' sizes; 0 when there is none. Never throws. */
extern BlockNumber nc_skeleton_length(const NcRelKey *rel);

/* Punches what the index does not name in all main forks of a database (FILE_COPY made dense zeros). */
extern void nc_skeleton_scrub_database(Oid db);

/* Bytes allocated by permanent main forks, sequences' blocks apart. */
typedef struct NcLocalBytes
{
	uint64		allocated;		/* st_blocks of all permanent main forks */
	uint64		sequences;		/* of these, blocks of known sequences */
	uint64		files;
	uint64		apparent;		/* length of the files */
} NcLocalBytes;

extern void nc_skeleton_measure(NcLocalBytes *out);

#endif							/* NC_SMGR_SKELETON_H */
