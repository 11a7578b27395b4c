/*
 * stock_trap.c
 *	  A file that keeps a server without neon_comm from starting on a compute's directory.
 *
 * Nothing of ours runs in a server that does not load us, and it would take the
 * holes in our files for empty tables. But every server since 12 refuses to start
 * while there is a file recovery.conf, which served another purpose before, and does
 * nothing else with it; tools copy it along. The startup process looks for it, so it
 * must be away while that begins. docs/decisions/0010 has the alternatives.
 */
#include "postgres.h"

#include <sys/stat.h>
#include <unistd.h>

#include "storage/fd.h"

#include "nc/base/file.h"
#include "nc/smgr/stock_trap.h"

#define TRAP "recovery.conf"
#define TRAP_NEW "recovery.conf.neon_comm"

/* A directory of the server's that is empty at a start. */
#define SNAPSHOTS "pg_snapshots"
#define OUR_SNAPSHOTS "pg_snapshots.neon_comm"

#define FIRST_LINE "# neon_comm: do not remove this file.\n"

static const char notice[] =
FIRST_LINE
"#\n"
"# The tables of this cluster are on page servers. The files here have their lengths and no contents.\n"
"# PostgreSQL does not start while this file is here, and that is its purpose: without neon_comm in\n"
"# shared_preload_libraries a server would find empty tables. neon_comm takes the file away at each\n"
"# start and puts it back when recovery is over.\n"
"#\n"
"# To get at the contents see docs/operations.md of neon_comm, \"The compute is lost\".\n";

/* Is the file there, and ours? Somebody else's is left to the server's own message. */
static bool
is_ours(void)
{
	FILE	   *file = nc_file_fopen(TRAP, "r");
	char		line[sizeof(FIRST_LINE)] = "";
	bool		ours;

	if (file == NULL)
		return false;
	ours = fgets(line, sizeof(line), file) != NULL && strcmp(line, FIRST_LINE) == 0;
	fclose(file);
	return ours;
}

/*
 * pg_rewind with a stopped compute as its target would remove what says what this
 * directory is, and leave the holes.  It ends before it writes when a name is a link
 * here and a directory there: so one that the server has in every directory, and that
 * backups take for a directory even if it is a link, is one.  What is in it was exported
 * by a life that is over.  (It is not renamed: file systems of layers cannot always.)
 */
static void
make_link(void)
{
	struct stat st;
	bool		there = lstat(SNAPSHOTS, &st) == 0;
	bool		made = (there || errno == ENOENT) &&
		(MakePGDirectory(OUR_SNAPSHOTS) == 0 || errno == EEXIST);

	if (made && there && !S_ISDIR(st.st_mode))
		return;
	if (made && there)
		made = rmtree(SNAPSHOTS, true);
	if (!made || symlink(OUR_SNAPSHOTS, SNAPSHOTS) != 0)
		ereport(FATAL,
				(errcode_for_file_access(),
				 errmsg("could not put a link to \"%s\" in the place of directory \"%s\": %m",
						OUR_SNAPSHOTS, SNAPSHOTS)));
}

void
nc_stock_trap_open(void)
{
	make_link();
	if (is_ours() && unlink(TRAP) != 0)
		ereport(FATAL,
				(errcode_for_file_access(),
				 errmsg("could not remove file \"%s\": %m", TRAP),
				 errdetail("While it is there no server starts on the directory of a neon_comm compute.")));
}

static bool
write_trap_text(void)
{
	FILE	   *file = nc_file_fopen(TRAP_NEW, "w");
	bool		written;

	if (file == NULL)
		return false;
	written = fputs(notice, file) >= 0 && fflush(file) == 0;
	return fclose(file) == 0 && written;
}

void
nc_stock_trap_set(void)
{
	if (access(TRAP, F_OK) == 0)
		return;
	if (!write_trap_text())
		ereport(LOG,
				(errcode_for_file_access(),
				 errmsg("could not write file \"%s\": %m", TRAP_NEW)));
	else
		(void) durable_rename(TRAP_NEW, TRAP, LOG);
}
