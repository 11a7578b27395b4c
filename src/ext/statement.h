/*
 * statement.h
 *	  What a statement has read and waited for, while it runs.  Private to src/ext.
 */
#ifndef EXT_STATEMENT_H
#define EXT_STATEMENT_H

#include "postgres.h"

#include "executor/execdesc.h"

#include "nc/shared/tally.h"

/* Of one statement, those that it runs inside included. */
typedef struct NcStatementCounts
{
	NcTallyCounts own;			/* of this process */
	NcTallyCounts workers;		/* of its parallel workers that have ended */
} NcStatementCounts;

/* Statements are counted although no setting says so, while it is more than 0. This process's. */
extern int	nc_statement_wanted;

/*
 * Called when a statement that is counted has been made ready to run and is more than
 * explained; NULL: nobody wants to know.
 */
extern void (*nc_statement_on_start) (QueryDesc *query);

/* The counts of a running statement; false: it is not counted. */
extern bool nc_statement_counts(const EState *estate, NcStatementCounts *counts);

/* Defines neon_comm.log_min_page_wait; called by _PG_init. */
extern void nc_statement_guc_init(void);

/* In a compute, from _PG_init: hooks of the executor. */
extern void nc_statement_init(void);

#endif							/* EXT_STATEMENT_H */
