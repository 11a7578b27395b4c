/*
 * nc/safety/directory.h
 *	  What the data directory of a compute or a page server must not be.
 *
 * For the postmaster, while libraries are preloaded: before anything is read,
 * emptied or replayed. Everything is a FATAL that says what to do instead.
 */
#ifndef NC_SAFETY_DIRECTORY_H
#define NC_SAFETY_DIRECTORY_H

#include "postgres.h"

/* Name of the file in the data directory that allows a server to be a compute. */
#define NC_SKELETON_MARKER "neon_comm.skeleton"

/*
 * FATAL when the server would come up as something else than a primary that
 * goes on where it stopped: as a standby, from an archive, from a backup. Again
 * when the postmaster starts over after a crash: so the startup process does.
 */
extern void nc_directory_check_primary(void);

/* FATAL unless the server will be a standby, and one that was not made of a compute's files. Again likewise. */
extern void nc_directory_check_standby(void);

/* FATAL in pg_upgrade's mode. "what" names the server for the message: "compute", "page server". */
extern void nc_directory_check_upgrade(const char *what);

/* FATAL (WARNING if allowed) when pg_resetwal has thrown WAL away since the server ran. */
extern void nc_directory_check_reset(const char *what, bool allowed);

/*
 * FATAL when data checksums were switched on or off (pg_checksums) since the file
 * "note" was told; tells it if it does not know. pg_checksums changes the files of
 * one server: a compute's hold nothing, and the pages of the others stay as they are.
 */
extern void nc_directory_check_checksums(const char *what, const char *note);

#endif							/* NC_SAFETY_DIRECTORY_H */
