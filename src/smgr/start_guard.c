/*
 * start_guard.c
 *	  What a compute's directory and settings must be before it starts.
 *
 * Runs in the postmaster, from _PG_init, before anything is emptied or replayed.
 * What ends a start says what to do instead, and leaves everything as it was.
 */
#include "postgres.h"

#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

#include "access/xlog.h"
#include "catalog/pg_control.h"
#include "common/controldata_utils.h"
#include "miscadmin.h"
#include "storage/fd.h"

#include "nc/base/file.h"
#include "nc/safety/directory.h"
#include "nc/safety/settings.h"
#include "nc/shared/settings.h"
#include "nc/smgr/skeleton.h"

#define MARKER_FIRST_LINE "neon_comm skeleton 1\n"

/* ---- the marker ---- */

static ControlFileData *
guard_control_file(void)
{
	bool		crc_ok;

	return get_controlfile(DataDir, &crc_ok);
}

static void
check_marker(void)
{
	FILE	   *file = nc_file_fopen(NC_SKELETON_MARKER, "r");
	char		line[128] = "";
	unsigned long long id = 0;

	if (file == NULL && errno != ENOENT)
	{
		const char *why = nc_file_error(errno);

		ereport(FATAL,
				(errcode_for_file_access(),
				 errmsg("could not read file \"%s\": %s", NC_SKELETON_MARKER, why)));
	}
	if (file == NULL)
		ereport(FATAL,
				(errmsg("data directory \"%s\" is not a neon_comm skeleton", DataDir),
				 errdetail("The file \"%s\" is missing: this directory may hold the only copy of its tables, and neon_comm would empty them.",
						   NC_SKELETON_MARKER),
				 errhint("Make a cluster with \"neon_dev init\", or turn this one into one with \"neon_dev adopt\"; to run it as it is, set neon_comm.page_servers = ''.")));
	if (fgets(line, sizeof(line), file) == NULL ||
		strcmp(line, MARKER_FIRST_LINE) != 0 ||
		fscanf(file, "system_identifier=%llu", &id) != 1)
	{
		fclose(file);
		ereport(FATAL,
				(errmsg("file \"%s\" is not understood", NC_SKELETON_MARKER),
				 errdetail("Expected \"%.*s\" and a line \"system_identifier=N\".",
						   (int) strlen(MARKER_FIRST_LINE) - 1, MARKER_FIRST_LINE)));
	}
	fclose(file);
	if (id != guard_control_file()->system_identifier)
		ereport(FATAL,
				(errmsg("file \"%s\" belongs to another cluster", NC_SKELETON_MARKER),
				 errdetail("It names system identifier %llu, this is %llu.", id,
						   (unsigned long long) guard_control_file()->system_identifier)));
}

/* ---- a directory without page servers, or with tablespaces ---- */

void
nc_skeleton_check_absent(void)
{
	if (access(NC_SKELETON_MARKER, F_OK) == 0)
		ereport(FATAL,
				(errmsg("data directory \"%s\" is a neon_comm skeleton, but neon_comm.page_servers is empty or invalid",
						DataDir),
				 errdetail("Its tables are on page servers; the local files hold no content."),
				 errhint("Set neon_comm.page_servers to the connection strings of the page servers.")));
}

/*
 * Page servers of the same host follow the same link: emptying files there would
 * empty theirs.
 */
static void
check_tablespaces(void)
{
	DIR		   *d = opendir("pg_tblspc");
	struct dirent *de;
	char		path[MAXPGPATH];
	struct stat st;

	if (d == NULL)
		return;
	while ((de = readdir(d)) != NULL)
	{
		snprintf(path, sizeof(path), "pg_tblspc/%s", de->d_name);
		if (lstat(path, &st) == 0 && S_ISLNK(st.st_mode))
			ereport(FATAL,
					(errmsg("tablespace %s has a location, which a neon_comm skeleton cannot have",
							de->d_name),
					 errdetail("Page servers replay the same WAL and would use the same directory."),
					 errhint("Move its tables to pg_default before the cluster is adopted.")));
	}
	closedir(d);
}

/* ---- settings ---- */

/* Is neon_comm among these libraries? */
static bool
names_this_library(const char *list)
{
	for (const char *at = strstr(list, "neon_comm"); at != NULL; at = strstr(at + 1, "neon_comm"))
	{
		const char *behind = at + strlen("neon_comm");

		if ((at == list || strchr(", \t\"'/", at[-1]) != NULL) &&
			(*behind == '\0' || strchr(", \t\"'.", *behind) != NULL))
			return true;
	}
	return false;
}

/* Not a risk but a certainty, so nothing allows it. */
static const NcSafeSetting with_hints[] = {
	{"full_page_writes", "on", NULL,
	"With data checksums or wal_log_hints the next version of a page can be one whose hint bits alone have changed: page servers would never have it, and the page could not be read again."},
};

/* Has this list of kinds of files no relations in it? The server's own check knows every word. */
static bool
names_no_data(const char *list)
{
	return strcasestr(list, "data") == NULL;
}

/* Works in no cluster, however little its data are worth. */
static const NcSafeSetting in_any_case[] = {
	{"debug_io_direct", "", names_no_data,
	"Files of relations have marks of a few bytes, which direct I/O does not write: no table could be extended. \"wal\" and \"wal_init\" do no harm."},
};

static const NcSafeSetting settings[] = {
	{"fsync", "on", NULL,
	"After a crash page servers could have WAL that this server has lost."},
	{"full_page_writes", "on", NULL,
	"Page servers recover from their own crashes with the full pages in WAL."},
	{"zero_damaged_pages", "off", NULL,
	"A damaged page would be replaced by an empty one, and what is then written to it goes to the page servers."},
	{"ignore_checksum_failure", "off", NULL,
	"A damaged page would be used, and what is then written to it goes to the page servers."},
	{"ignore_invalid_pages", "off", NULL,
	"Recovery would pass over changes of pages that it did not get."},
	{"data_sync_retry", "off", NULL,
	"What a failed fsync has lost would be taken for written."},
	{"wal_consistency_checking", "", NULL,
	"Recovery would compare pages of relations that were dropped later, which page servers do not have any more, and fail at each start."},
	{"shared_preload_libraries", "", names_this_library,
	"Without neon_comm the server would find empty tables at its next start: their contents are on page servers."},
};

/* ---- all of it ---- */

void
nc_skeleton_check_start(void)
{
	if (!IsPostmasterEnvironment)
		ereport(FATAL,
				(errmsg("a neon_comm skeleton cannot run in single-user mode"),
				 errdetail("Its tables are on page servers, and nobody would fetch their pages."),
				 errhint("Start the server normally.")));
	nc_directory_check_upgrade("compute");
	check_marker();
	nc_directory_check_primary();
	nc_directory_check_reset("compute", nc_guc_allow_unsafe);
	nc_directory_check_checksums("compute", NC_SKELETON_MARKER);
	check_tablespaces();
	if (wal_level == WAL_LEVEL_MINIMAL)
		ereport(FATAL,
				(errmsg("neon_comm needs wal_level \"replica\" or \"logical\""),
				 errdetail("With \"minimal\" the contents of new relations would not be in the WAL that page servers get.")));
	if (XLogHintBitIsNeeded())
		nc_safe_settings(with_hints, lengthof(with_hints), NULL, false);
	nc_safe_settings(in_any_case, lengthof(in_any_case), NULL, false);
	nc_safe_settings(settings, lengthof(settings), "neon_comm.allow_unsafe", nc_guc_allow_unsafe);
}
