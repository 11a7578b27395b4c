/*
 * filecache_int.h
 *	  What the files of the file cache share.
 *
 *	  filecache.c	every process: lookups, pages that come and go
 *	  writer.c		the one process that writes the file, and its switching off and on
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

/* Is this descriptor the file that the index is about? */
extern bool nc_filecache_is_file(int fd);

#endif							/* FILECACHE_INT_H */
