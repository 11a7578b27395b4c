/*
 * filecache_int.h
 *	  What the files of the file cache share.
 *
 *	  filecache.c	every process: lookups, pages that come and go
 *	  writer.c		the one process that writes the file, and its switching off and on
 *	  owner.c		whose file it is
 *	  saved.c		the list of pages on disk
 */
#ifndef FILECACHE_INT_H
#define FILECACHE_INT_H

#include "postgres.h"

/* How deep the writer sleeps: who must wake it. */
typedef enum NcNap
{
	NC_NAP_AWAKE = 0,
	NC_NAP_SHORT,				/* looks again in some milliseconds; only urgent work wakes it */
	NC_NAP_LONG					/* any work wakes it */
} NcNap;

/* Blocks that the present size limit allows. */
extern uint64 nc_filecache_limit_setting(void);

/* The file begins with a block that says whose it is; then come the places. */
static inline off_t
nc_filecache_offset(uint32 place)
{
	return ((off_t) place + 1) * BLCKSZ;
}

/*
 * Opens the file to write it, and makes it if it is missing.  -1: with *why, it is not ours
 * or in use; without, errno tells.  The lock on it is held until it is closed.
 */
extern int	nc_filecache_open_ours(const char **why);

/* Is what was opened our cluster's file? */
extern bool nc_filecache_is_ours(int fd);

/* Empties a file that is ours, but for the block that says so. */
extern bool nc_filecache_cut_to_head(int fd);

/* May the list be replaced: is it ours, or not there? */
extern bool nc_filecache_list_is_ours(const char **why);

/* Is this descriptor the file that the index is about? */
extern bool nc_filecache_is_file(int fd);

#endif							/* FILECACHE_INT_H */
