/*
 * explain_none.c
 *	  Before PostgreSQL 18 extensions have no options of EXPLAIN;
 *	  neon_comm.log_min_page_wait tells the same figures of whole statements.
 */
#include "postgres.h"

#include "explain.h"

void
nc_explain_init(void)
{
}
