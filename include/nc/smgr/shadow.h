/*
 * nc/smgr/shadow.h
 *	  neon_comm.verify = shadow: every page that comes back is compared with the
 *	  one that was let go.
 */
#ifndef NC_SMGR_SHADOW_H
#define NC_SMGR_SHADOW_H

#include "nc/compat/pg.h"

/* Values of neon_comm.verify. */
typedef enum NcVerify
{
	NC_VERIFY_OFF,
	NC_VERIFY_SHADOW
} NcVerify;

/* True when pages are verified; fixed at the start of the server. */
extern bool nc_shadow_on(void);

/*
 * Keeps the bytes of a page that page servers hold from now on; NULL: the
 * block became a page of zeroes, nothing is known of it.  Any process that may
 * write pages; ERROR when the file cannot be written.  The chunk's lock is held
 * exclusive.
 */
extern void nc_shadow_write(SMgrRelation reln, BlockNumber block, const char *page);

/*
 * Compares a page that came from anywhere but the skeleton file with the bytes
 * kept.  A difference is an ERROR (data_corrupted) after both pages were written
 * to files below neon_comm_mismatch in the data directory.  What is not known
 * yet is learned.  The block is not local, its buffer is being read.
 */
extern void nc_shadow_check(SMgrRelation reln, BlockNumber block, const char *page);

/* Blanks in a copy of a page all that WAL does not carry. False: not a valid page. */
extern bool nc_shadow_mask(char *page, BlockNumber block);

#endif							/* NC_SMGR_SHADOW_H */
