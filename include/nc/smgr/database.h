/*
 * nc/smgr/database.h
 *	  Statements that create, move or drop whole databases bypass smgr: what has
 *	  to be done around them (design 3.3).
 */
#ifndef NC_SMGR_DATABASE_H
#define NC_SMGR_DATABASE_H

/* Installs the utility and object-access hooks; called once by _PG_init. */
extern void nc_database_init(void);

#endif							/* NC_SMGR_DATABASE_H */
