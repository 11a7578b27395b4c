/*
 * ext.h
 *	  What the files of ext share: parts of the start-up.  Private to src/ext.
 */
#ifndef EXT_H
#define EXT_H

#include "postgres.h"

#include "fmgr.h"
#include "nodes/execnodes.h"

/* ---- guc.c ---- */

/* Defines all settings; called by _PG_init. */
extern void nc_guc_init(void);

/* FATAL, or a WARNING where that is allowed, when a token would leave in clear; at the start. */
extern void nc_guc_check_token(void);

/* ---- identity.c ---- */

extern bool nc_guc_allow_takeover;

/* Postmaster, from _PG_init: FATAL when the directory is a copy that nobody has allowed to go on. */
extern void nc_identity_check_start(void);

/* Shared memory; the startup function writes the file, in the postmaster. */
extern Size nc_identity_shmem_bytes(void);
extern void nc_identity_shmem_startup(void);

/* ---- sql_views.c ---- */

#define NC_SQL_COLUMNS_MAX 18

/* An error unless neon_comm was loaded at the start, whose shared memory there is then. */
extern void nc_sql_require_preloaded(void);

/* The beginning of a function that returns rows, and a row of it. */
extern ReturnSetInfo *nc_sql_begin_rows(FunctionCallInfo fcinfo);
extern void nc_sql_put_row(ReturnSetInfo *rsinfo, Datum *values, bool *nulls);

/* An error unless this server is a compute. */
extern void nc_sql_require_compute(void);

/* An interval of SQL. */
extern Datum nc_interval_of_us(uint64 us);

#endif							/* EXT_H */
