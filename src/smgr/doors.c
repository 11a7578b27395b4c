/*
 * doors.c
 *	  Refuses what would copy a compute's files and call them a backup.
 *
 * Functions of SQL are built in, which no hook of the server sees: their entries in
 * its table, which is exported, are changed. BASE_BACKUP has no hook either, but its
 * first answer passes through a table of functions that each process may replace: by
 * then the server has made a checkpoint and sent no byte of any file.
 */
#include "postgres.h"

/* The headers of Kerberos need not be here; nothing below looks into what depends on them. */
#undef ENABLE_GSS

#include "fmgr.h"
#include "libpq/auth.h"
#include "libpq/libpq.h"
#include "miscadmin.h"
#include "replication/walsender.h"
#include "replication/walsender_private.h"
#include "utils/builtins.h"
#include "utils/fmgrtab.h"

#include "nc/compat/server.h"
#include "nc/shared/settings.h"
#include "nc/smgr/abi.h"
#include "nc/smgr/doors.h"

static ClientAuthentication_hook_type next_authentication = NULL;
static const PQcommMethods *their_methods = NULL;
static PQcommMethods our_methods;

static void
refuse_backup(void)
{
	if (nc_guc_allow_unsafe_backup)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("a backup of the files of a neon_comm compute would hold no contents of tables"),
			 errdetail("The contents are on the page servers; the files here have lengths only."),
			 errhint("Back up a page server (docs/operations.md, \"Both, from backups\"), or use pg_dump. A superuser who wants the files as they are sets neon_comm.allow_unsafe_backup.")));
}

/* ---- functions of SQL ---- */

/* Digits, and perhaps a dot and digits: the main fork of a relation, whoever it belongs to. */
static bool
is_main_fork(const char *name)
{
	size_t		digits = strspn(name, "0123456789");
	const char *rest = name + digits;

	return digits > 0 &&
		(*rest == '\0' || (*rest == '.' && rest[1 + strspn(rest + 1, "0123456789")] == '\0'));
}

/*
 * pg_control belongs to them: a tool that reads it by SQL is about to read the rest, and
 * has changed nothing yet.
 */
static bool
is_for_copies(char *path)
{
	const char *name;

	canonicalize_path(path);
	if (strncmp(path, DataDir, strlen(DataDir)) == 0 && path[strlen(DataDir)] == '/')
		path += strlen(DataDir) + 1;
	if (strcmp(path, "global/pg_control") == 0)
		return true;
	name = last_dir_separator(path);
	return name != NULL && is_main_fork(name + 1) &&
		(strncmp(path, "base/", 5) == 0 || strncmp(path, "global/", 7) == 0 ||
		 strncmp(path, "pg_tblspc/", 10) == 0);
}

static void
refuse_file(FunctionCallInfo fcinfo)
{
	char	   *path;

	if (nc_guc_allow_unsafe_backup || PG_NARGS() == 0 || PG_ARGISNULL(0))
		return;
	path = text_to_cstring(PG_GETARG_TEXT_PP(0));
	if (is_for_copies(path))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("file \"%s\" of a neon_comm compute is of no use elsewhere", path),
				 errdetail("Contents of tables are on the page servers; the files here have lengths only."),
				 errhint("Copy a page server instead. A superuser who wants the file as it is sets neon_comm.allow_unsafe_backup.")));
	pfree(path);
}

static PGFunction their_backup_start;

static Datum
backup_start(PG_FUNCTION_ARGS)
{
	refuse_backup();
	return their_backup_start(fcinfo);
}

#define READ_FILE(name, builtin) \
static PGFunction their_##name; \
static Datum door_##name(PG_FUNCTION_ARGS) { refuse_file(fcinfo); return their_##name(fcinfo); }
NC_PG_EACH_READ_BINARY_FILE(READ_FILE)

void
nc_replace_builtin(const char *name, PGFunction ours, PGFunction *theirs)
{
	for (int i = 0; i < fmgr_nbuiltins; i++)
	{
		if (strcmp(fmgr_builtins[i].funcName, name) != 0)
			continue;
		*theirs = fmgr_builtins[i].func;
		nc_relro_write((void *) &fmgr_builtins[i].func, &ours, sizeof(ours));
		return;
	}
	elog(FATAL, "neon_comm: the server has no built-in function %s", name);
}

/* ---- BASE_BACKUP ---- */

/* The description of a row is the first that BASE_BACKUP sends. */
static int
put_message(char type, const char *body, size_t bytes)
{
	if (type == 'T' && MyWalSnd != NULL && MyWalSnd->state == WALSNDSTATE_BACKUP)
		refuse_backup();
	return their_methods->putmessage(type, body, bytes);
}

static void
on_authentication(Port *port, int status)
{
	if (next_authentication != NULL)
		next_authentication(port, status);
	if (!am_walsender)
		return;
	their_methods = PqCommMethods;
	our_methods = *their_methods;
	our_methods.putmessage = put_message;
	PqCommMethods = &our_methods;
}

void
nc_doors_init(void)
{
	nc_replace_builtin("pg_backup_start", backup_start, &their_backup_start);
#define REPLACE(name, builtin) nc_replace_builtin(builtin, door_##name, &their_##name);
	NC_PG_EACH_READ_BINARY_FILE(REPLACE)
	next_authentication = ClientAuthentication_hook;
	ClientAuthentication_hook = on_authentication;
}
