/*
 * nc/smgr/skeleton.h
 *	  Sparse local files that hold existence and length, no content.
 */
#ifndef NC_SMGR_SKELETON_H
#define NC_SMGR_SKELETON_H

#include "nc/compat/pg.h"

#include "nc/smgr/local.h"

/*
 * FATAL unless the data directory carries the marker for this system; FATAL on
 * settings that would lose data. In the postmaster, before anything is touched.
 */
extern void nc_skeleton_check_start(void);

/* FATAL when page servers are not configured but the data directory is a skeleton. */
extern void nc_skeleton_check_absent(void);

/*
 * In the postmaster, at each start of shared memory: from now on what is in the files
 * of permanent main forks is void, but for sequences and marks.  Looks at no file,
 * except at the first start of a skeleton that has its content still.
 */
extern void nc_skeleton_startup(void);

/*
 * What is known of a relation, whose file is scrubbed before if nobody has done so since
 * the start: sequences found in it are entered as unverified, marks as such, and the
 * rest is punched.  Any process, before it reads or changes a block of a main
 * fork; takes locks, none of a chunk may be held.  Raises what nc_local_relation() does.
 */
extern NcRelInfo nc_skeleton_relation(SMgrRelation reln);

/*
 * Scrubs what nobody has used since the start, so that its space is given back. Not in
 * recovery. The sweeper, and sessions that cannot wait for it; ends early when the
 * process is to end.
 */
extern void nc_skeleton_scrub_rest(void);

/*
 * Makes the main fork reach up to block; every touched segment will be synced.
 * Of the new ones those of [mark_first, mark_end) get a mark that they were never
 * logged.
 */
extern void nc_skeleton_extend(SMgrRelation reln, BlockNumber block, BlockNumber mark_first,
							   BlockNumber mark_end);

/* Marks one block inside the file as never logged; the caller holds its buffer. */
extern void nc_skeleton_mark(const NcRelKey *rel, BlockNumber block);

/* The first block from this one on that is not in a hole of the file; InvalidBlockNumber if none. */
extern BlockNumber nc_skeleton_next_data(const NcRelKey *rel, BlockNumber block);

/* Name of a segment of a main fork below the data directory; path holds MAXPGPATH bytes. */
extern void nc_skeleton_segment_path(const NcRelKey *rel, BlockNumber segno, char *path);

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
	uint64		empty;			/* of these, marks of blocks that were never logged */
	uint64		files;
	uint64		apparent;		/* length of the files */
} NcLocalBytes;

extern void nc_skeleton_measure(NcLocalBytes *out);

/*
 * All relations that have a permanent main fork now, of all databases, by directory and in no order
 * within; palloc'd.  n = how many, blocks = of all of them together.  Any process.
 */
extern NcRelKey *nc_skeleton_list(uint64 *n, uint64 *blocks);

#endif							/* NC_SMGR_SKELETON_H */
