/*
 * nc/smgr/empty.h
 *	  Blocks that were never logged: page servers have nothing of them, and an
 *	  empty page is the right answer.  For every other block inside a relation's
 *	  length it is a loss (docs/local_pages.md, "Blocks that nobody logged").
 */
#ifndef NC_SMGR_EMPTY_H
#define NC_SMGR_EMPTY_H

#include "nc/compat/pg.h"

/* A mark stands in the last bytes of its block, so that writing it makes the file as long as the block ends. */
#define NC_EMPTY_MARK_BYTES 16
#define NC_EMPTY_MARK_AT (BLCKSZ - NC_EMPTY_MARK_BYTES)

extern void nc_empty_make_mark(BlockNumber block, char mark[NC_EMPTY_MARK_BYTES]);

/* Is this block of a skeleton file a mark and nothing else? */
extern bool nc_empty_is_mark(const char *content, BlockNumber block);

/*
 * Does this block of a skeleton file, which the index of local blocks does not
 * name, say that it was never logged: a mark, or a page kept without an LSN?
 */
extern bool nc_empty_says(const char *content, BlockNumber block);

/*
 * May page servers have nothing of this block?  Reads the file.  The caller may
 * read the block, so nobody writes it meanwhile.
 */
extern bool nc_empty_known(const NcRelKey *rel, BlockNumber block);

/*
 * Judges a page that came for a block inside the relation's length: ERROR when it
 * is empty and the block was logged.  A page that has content ends the mark of its
 * block.  Not in recovery, which reads what later records drop.
 */
extern void nc_empty_check(const NcRelKey *rel, BlockNumber block, const char *page,
						   bool may_have_mark);

/* As nc_empty_check, asking only: is the page what it may be? */
extern bool nc_empty_may_be(const NcRelKey *rel, BlockNumber block, const char *page);

/* The relation has got an INIT fork: its file is read as it is from now on. */
extern void nc_empty_wipe(const NcRelKey *rel);

#endif							/* NC_SMGR_EMPTY_H */
