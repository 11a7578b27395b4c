/*
 * nc/smgr/doors.h
 *	  Ways by which tools of stock servers copy a data directory.
 */
#ifndef NC_SMGR_DOORS_H
#define NC_SMGR_DOORS_H

/*
 * From here on BASE_BACKUP, pg_backup_start() and pg_read_binary_file() of files of
 * tables are errors on this compute unless neon_comm.allow_unsafe_backup is on. In
 * the postmaster, from _PG_init.
 */
extern void nc_doors_init(void);

#endif							/* NC_SMGR_DOORS_H */
