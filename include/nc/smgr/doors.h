/*
 * nc/smgr/doors.h
 *	  Ways by which tools of stock servers copy a data directory.
 */
#ifndef NC_SMGR_DOORS_H
#define NC_SMGR_DOORS_H

#include "postgres.h"

#include "fmgr.h"

/*
 * From here on BASE_BACKUP, pg_backup_start() and pg_read_binary_file() of files of
 * tables are errors on this compute unless neon_comm.allow_unsafe_backup is on. In
 * the postmaster, from _PG_init.
 */
extern void nc_doors_init(void);

/* A function of SQL that is built in becomes ours; *theirs is what it was. In the postmaster, from _PG_init; FATAL. */
extern void nc_replace_builtin(const char *name, PGFunction ours, PGFunction *theirs);

#endif							/* NC_SMGR_DOORS_H */
