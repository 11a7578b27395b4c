/*
 * explain.h
 *	  EXPLAIN (ANALYZE, NEON_COMM).  Private to src/ext.
 */
#ifndef EXT_EXPLAIN_H
#define EXT_EXPLAIN_H

/* In a compute, from _PG_init: registers the option, where the server lets extensions have one. */
extern void nc_explain_init(void);

#endif							/* EXT_EXPLAIN_H */
