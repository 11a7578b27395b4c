/*
 * nc/filecache/writer.h
 *	  The writer of the file cache as its process runs it
 *	  (src/worker/cache_writer.c); nobody else calls these.
 */
#ifndef NC_FILECACHE_WRITER_H
#define NC_FILECACHE_WRITER_H

#include "postgres.h"

/* Waits until nobody else writes the file, and is the writer until the process ends. */
extern void nc_filecache_writer_begin(void);

/* The configuration was read anew. */
extern void nc_filecache_writer_reloaded(void);

/* Writes some of the outbox; true when there was something. Never an error. */
extern bool nc_filecache_writer_turn(void);

/* Sleeps until there is work or something may have changed; idle: turns without work so far. */
extern void nc_filecache_writer_nap(int idle);

#endif							/* NC_FILECACHE_WRITER_H */
