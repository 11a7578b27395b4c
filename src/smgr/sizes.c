/*
 * sizes.c
 *	  Functions of SQL that tell sizes by looking at files, where files may be still to come
 *	  (lengths.c): the files of what they are asked about are laid before.
 *
 * Sizes of whole databases come from page servers, unless there is more in the directory.
 * Runs in sessions.
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/table.h"
#include "catalog/pg_class.h"
#include "catalog/pg_database.h"
#include "commands/dbcommands.h"
#include "fmgr.h"
#include "nodes/pg_list.h"
#include "utils/rel.h"
#include "utils/relcache.h"

#include "nc/cache/lwlsn_map.h"
#include "nc/client/client.h"
#include "nc/shared/shmem.h"
#include "nc/smgr/abi.h"
#include "nc/smgr/doors.h"
#include "nc/smgr/lengths.h"
#include "nc/smgr/lwlsn.h"

static PGFunction their_relation_size;
static PGFunction their_table_size;
static PGFunction their_indexes_size;
static PGFunction their_total_relation_size;
static PGFunction their_database_size_oid;
static PGFunction their_database_size_name;

static void
lay_forks(Relation rel)
{
	if (!RELKIND_HAS_STORAGE(rel->rd_rel->relkind))
		return;
	for (ForkNumber fork = MAIN_FORKNUM; fork <= VISIBILITYMAP_FORKNUM; fork++)
		nc_lengths_ensure(RelationGetSmgr(rel), fork);
}

static void
lay_one(Oid oid)
{
	Relation	rel = try_relation_open(oid, AccessShareLock);

	if (rel == NULL)
		return;
	lay_forks(rel);
	relation_close(rel, AccessShareLock);
}

static void
lay_indexes(Relation rel)
{
	List	   *indexes = rel->rd_rel->relhasindex ? RelationGetIndexList(rel) : NIL;
	ListCell   *lc;

	foreach(lc, indexes)
		lay_one(lfirst_oid(lc));
	list_free(indexes);
}

/* The relation, its indexes, and the same of what holds its large values. */
static void
lay_all(Oid oid)
{
	Relation	rel = try_relation_open(oid, AccessShareLock);
	Oid			toast;

	if (rel == NULL)
		return;
	toast = rel->rd_rel->reltoastrelid;
	lay_forks(rel);
	lay_indexes(rel);
	relation_close(rel, AccessShareLock);
	if (OidIsValid(toast))
		lay_all(toast);
}

static Datum
relation_size(PG_FUNCTION_ARGS)
{
	if (nc_shared->lengths_asked != 0)
		lay_one(PG_GETARG_OID(0));
	return their_relation_size(fcinfo);
}

#define SIZE_OF_ALL(name) \
static Datum name(PG_FUNCTION_ARGS) \
{ \
	if (nc_shared->lengths_asked != 0) \
		lay_all(PG_GETARG_OID(0)); \
	return their_##name(fcinfo); \
}
SIZE_OF_ALL(table_size)
SIZE_OF_ALL(indexes_size)
SIZE_OF_ALL(total_relation_size)

int64
nc_sizes_of_database(Oid db, int64 here)
{
	NcRelKey	rel = {.db = db};
	XLogRecPtr	nms;
	XLogRecPtr	exact;
	int64		there;

	if (nc_shared->lengths_asked == 0)
		return here;
	nc_lwlsn_query(&rel, NC_LW_RELATION, &nms, &exact);
	there = (int64) nc_client_ask(NC_SLOT_KIND_DBSIZE, &rel, nms);
	return Max(here, there);
}

static Datum
larger_size(FunctionCallInfo fcinfo, PGFunction theirs, Oid db)
{
	Datum		here = theirs(fcinfo);

	/* the function has looked whether the caller may know */
	return fcinfo->isnull ? here : Int64GetDatum(nc_sizes_of_database(db, DatumGetInt64(here)));
}

static Datum
database_size_oid(PG_FUNCTION_ARGS)
{
	return larger_size(fcinfo, their_database_size_oid, PG_GETARG_OID(0));
}

static Datum
database_size_name(PG_FUNCTION_ARGS)
{
	return larger_size(fcinfo, their_database_size_name,
					   get_database_oid(NameStr(*PG_GETARG_NAME(0)), false));
}

void
nc_sizes_init(void)
{
	nc_replace_builtin("pg_relation_size", relation_size, &their_relation_size);
	nc_replace_builtin("pg_table_size", table_size, &their_table_size);
	nc_replace_builtin("pg_indexes_size", indexes_size, &their_indexes_size);
	nc_replace_builtin("pg_total_relation_size", total_relation_size, &their_total_relation_size);
	/* servers with a hook ask it */
	if (nc_smgr_abi()->enter != NULL)
		return;
	nc_replace_builtin("pg_database_size_oid", database_size_oid, &their_database_size_oid);
	nc_replace_builtin("pg_database_size_name", database_size_name, &their_database_size_name);
}
