/*
 * database.c
 *	  CREATE, ALTER .. SET TABLESPACE and DROP DATABASE bypass smgr, and a
 *	  database can come back under the same names (docs/local_pages.md).
 *
 * At the PRE_COMMIT of every commit inside such a statement and after the
 * statement, on the error path too, the floor of all last-written LSNs is
 * raised and everything keyed by the database is dropped.  Before a made or
 * moved database becomes visible its copied files, which hold dense zeroes and
 * leftovers, are made sparse again; never later, when others use it.
 *
 * COMMIT PREPARED drops relations inside a transaction of its own, when nothing may fail any more; so it is
 * known when a process is in it (lengths.c).
 *
 * A statement that was refused before it touched a database does nothing here:
 * it is known by the object-access hook, which fires after the permission checks.
 */
#include "postgres.h"

#include <sys/stat.h>
#include <unistd.h>

#include "access/xact.h"
#include "access/xlog.h"
#include "access/xloginsert.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_database.h"
#include "commands/dbcommands_xlog.h"
#include "commands/tablespace.h"
#include "common/relpath.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "tcop/utility.h"
#include "utils/syscache.h"

#include "nc/filecache/filecache.h"
#include "nc/shared/settings.h"
#include "nc/shared/test_point.h"
#include "nc/smgr/database.h"
#include "nc/smgr/local.h"
#include "nc/smgr/lwlsn.h"
#include "nc/smgr/skeleton.h"

static ProcessUtility_hook_type next_utility = NULL;
static object_access_hook_type next_object_access = NULL;

/* Depth of database statements in this process (0 or 1), and the database it is about. */
static int	inside = 0;
static Oid	database = InvalidOid;
static bool copied = false;

/* In COMMIT PREPARED or ROLLBACK PREPARED. */
static bool finishes_prepared = false;

static void
settle(void)
{
	if (!OidIsValid(database))
		return;
	nc_lwlsn_raise_all(nc_lsn_now());
	nc_lwlsn_forget_database(database);
	nc_local_forget_database(database);
	nc_filecache_forget_database(database);
}

/* Makes copied files sparse, once, while nobody can see the database yet. */
static void
scrub_copy(void)
{
	if (copied)
		nc_skeleton_scrub_database(database);
	copied = false;
}

static void
at_xact_event(XactEvent event, void *arg)
{
	if (inside > 0 && event == XACT_EVENT_COMMIT)
		NC_TEST_POINT("database-committed");
	if (inside == 0 || event != XACT_EVENT_PRE_COMMIT)
		return;
	settle();
	scrub_copy();
}

/*
 * A DROP DATABASE that was killed after it removed the directory and before its
 * WAL was durable has left the directory on page servers.  The server logs a
 * removal only where it finds a directory; so the second DROP is logged here.
 */
static void
log_drop_again(Oid db)
{
	HeapTuple	tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(db));
	xl_dbase_drop_rec rec = {.db_id = db, .ntablespaces = 1};
	Oid			spc;
	char	   *path;

	if (!HeapTupleIsValid(tuple))
		return;
	spc = ((Form_pg_database) GETSTRUCT(tuple))->dattablespace;
	ReleaseSysCache(tuple);
	path = GetDatabasePath(db, spc);
	if (access(path, F_OK) != 0 && errno == ENOENT)
	{
		XLogBeginInsert();
		XLogRegisterData((char *) &rec, MinSizeOfDbaseDropRec);
		XLogRegisterData((char *) &spc, sizeof(Oid));
		(void) XLogInsert(RM_DBASE_ID, XLOG_DBASE_DROP | XLR_SPECIAL_REL_UPDATE);
	}
	pfree(path);
}

/* Learns which database a statement makes, moves or drops; names are resolved by the server. */
static void
on_object_access(ObjectAccessType access, Oid class_id, Oid object_id, int sub_id, void *arg)
{
	if (next_object_access != NULL)
		next_object_access(access, class_id, object_id, sub_id, arg);
	if (inside == 0 || class_id != DatabaseRelationId || sub_id != 0)
		return;
	if (access == OAT_POST_CREATE || access == OAT_POST_ALTER || access == OAT_DROP)
		database = object_id;
	if (access == OAT_DROP)
		log_drop_again(object_id);
	/* a move fires after it has copied, and scrubs at the commit that follows */
	if (access == OAT_POST_CREATE || access == OAT_POST_ALTER)
		copied = true;
}

static bool
moves_database(const Node *stmt)
{
	ListCell   *lc;

	if (!IsA(stmt, AlterDatabaseStmt))
		return false;
	foreach(lc, ((const AlterDatabaseStmt *) stmt)->options)
		if (strcmp(lfirst_node(DefElem, lc)->defname, "tablespace") == 0)
			return true;
	return false;
}

/*
 * Page servers of the same host would share a tablespace directory with us.  A
 * location that is no directory is left to the server, which names that fault, and
 * so is a user without the right: he must not learn which paths exist.
 */
static void
check_tablespace(const Node *stmt)
{
	const CreateTableSpaceStmt *create = (const CreateTableSpaceStmt *) stmt;
	struct stat st;

	if (IsA(stmt, CreateTableSpaceStmt) && superuser() && is_absolute_path(create->location) &&
		stat(create->location, &st) == 0 && S_ISDIR(st.st_mode))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("tablespaces with a location are not supported on a neon_comm compute"),
				 errdetail("Page servers replay the same WAL and would use the same directory."),
				 errhint("Use allow_in_place_tablespaces and an empty location for tests; otherwise keep tables in pg_default.")));
}

static bool
is_finish_prepared(const Node *stmt)
{
	const TransactionStmt *transaction = (const TransactionStmt *) stmt;

	return IsA(stmt, TransactionStmt) &&
		(transaction->kind == TRANS_STMT_COMMIT_PREPARED || transaction->kind == TRANS_STMT_ROLLBACK_PREPARED);
}

static void
finish_prepared(PlannedStmt *pstmt, const char *query, bool read_only, ProcessUtilityContext context,
				ParamListInfo params, QueryEnvironment *env, DestReceiver *dest, QueryCompletion *qc)
{
	finishes_prepared = true;
	PG_TRY();
	{
		next_utility(pstmt, query, read_only, context, params, env, dest, qc);
	}
	PG_FINALLY();
	{
		finishes_prepared = false;
	}
	PG_END_TRY();
}

static void
on_database_utility(PlannedStmt *pstmt, const char *query, bool read_only,
					ProcessUtilityContext context, ParamListInfo params, QueryEnvironment *env,
					DestReceiver *dest, QueryCompletion *qc)
{
	Node	   *stmt = pstmt->utilityStmt;

	check_tablespace(stmt);
	if (is_finish_prepared(stmt))
	{
		finish_prepared(pstmt, query, read_only, context, params, env, dest, qc);
		return;
	}
	if (!IsA(stmt, CreatedbStmt) && !IsA(stmt, DropdbStmt) && !moves_database(stmt))
	{
		next_utility(pstmt, query, read_only, context, params, env, dest, qc);
		return;
	}

	inside++;
	database = InvalidOid;
	copied = false;
	PG_TRY();
	{
		next_utility(pstmt, query, read_only, context, params, env, dest, qc);
		/* CREATE DATABASE commits after us, a move has committed and done this */
		scrub_copy();
	}
	PG_FINALLY();
	{
		inside--;
		settle();
		database = InvalidOid;
	}
	PG_END_TRY();
	NC_TEST_POINT("database-done");
}

bool
nc_database_copies(void)
{
	return inside > 0;
}

bool
nc_database_finishes_prepared(void)
{
	return finishes_prepared;
}

void
nc_database_init(void)
{
	next_utility = ProcessUtility_hook != NULL ? ProcessUtility_hook : standard_ProcessUtility;
	ProcessUtility_hook = on_database_utility;
	next_object_access = object_access_hook;
	object_access_hook = on_object_access;
	RegisterXactCallback(at_xact_event, NULL);
}
