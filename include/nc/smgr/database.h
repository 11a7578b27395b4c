/*
 * nc/smgr/database.h
 *	  Statements that create, move or drop whole databases bypass smgr: what has
 *	  to be done around them (docs/local_pages.md).
 */
#ifndef NC_SMGR_DATABASE_H
#define NC_SMGR_DATABASE_H

#include "postgres.h"

/* Installs the utility and object-access hooks; called once by _PG_init. */
extern void nc_database_init(void);

/* Is this process in such a statement?  Then what it adds to new relations is logged block by block. */
extern bool nc_database_copies(void);

/* Is it in COMMIT PREPARED or ROLLBACK PREPARED? */
extern bool nc_database_finishes_prepared(void);

#endif							/* NC_SMGR_DATABASE_H */
