/*
 * directory.c
 *	  Looks at a data directory before a start: recovery modes, pg_upgrade, pg_resetwal.
 *
 * A compute's directory has lengths and no contents, so whatever takes it for a
 * copy of the cluster, be it a standby, a restore or an upgrade, makes an empty
 * one. The contents are on the page servers, and that is what messages point to.
 */
#include "postgres.h"

#include <fcntl.h>
#include <unistd.h>

#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "access/xlogrecord.h"
#include "catalog/pg_control.h"
#include "common/controldata_utils.h"
#include "miscadmin.h"
#include "storage/fd.h"

#include "nc/base/file.h"
#include "nc/safety/directory.h"

#define COPY_A_PAGE_SERVER \
	"The contents are on the page servers: make another cluster of a copy of one of them (docs/operations.md, \"The compute is lost\")."

static bool
is_there(const char *file)
{
	return access(file, F_OK) == 0;
}

/* ---- recovery modes ---- */

/* Order: as the server itself looks at them. */
static const struct
{
	const char *file;
	const char *what;			/* completes "a neon_comm compute cannot be ..." */
}			modes[] = {
	{STANDBY_SIGNAL_FILE, "a standby"},
	{RECOVERY_SIGNAL_FILE, "recovered from an archive"},
	{BACKUP_LABEL_FILE, "restored from a backup of its directory"},
};

static void
check_files(void)
{
	for (int i = 0; i < lengthof(modes); i++)
	{
		if (is_there(modes[i].file))
			ereport(FATAL,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("a neon_comm compute cannot be %s", modes[i].what),
					 errdetail("There is a file \"%s\" in \"%s\". The files of this directory hold no contents of tables, and page servers could not follow.",
							   modes[i].file, DataDir),
					 errhint(COPY_A_PAGE_SERVER)));
	}
}

/*
 * The label is read once and then renamed: what was begun with it shows in the
 * control file until it is done. "Shut down in recovery" alone says nothing: a stop
 * during crash recovery leaves that, too. But only a standby and a restore have a
 * minimum recovery point.
 */
static void
check_control(void)
{
	bool		crc_ok;
	ControlFileData *control = get_controlfile(DataDir, &crc_ok);

	if (control->state == DB_IN_ARCHIVE_RECOVERY ||
		control->minRecoveryPoint != InvalidXLogRecPtr ||
		control->backupStartPoint != InvalidXLogRecPtr || control->backupEndRequired)
		ereport(FATAL,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("a neon_comm compute cannot be a standby, nor restored from a backup of its directory"),
				 errdetail("The file \"%s\" in \"%s\" says that one or the other was begun here.",
						   XLOG_CONTROL_FILE, DataDir),
				 errhint(COPY_A_PAGE_SERVER)));
	pfree(control);
}

void
nc_directory_check_primary(void)
{
	check_files();
	check_control();
}

void
nc_directory_check_standby(void)
{
	if (is_there(NC_SKELETON_MARKER))
		ereport(FATAL,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("data directory \"%s\" holds files of a neon_comm compute", DataDir),
				 errdetail("There is a file \"%s\": this is a copy of a compute, or pg_rewind has copied from one. Such files have lengths and no contents.",
						   NC_SKELETON_MARKER),
				 errhint("Copy another page server instead (docs/operations.md, \"A page server is lost\").")));
	if (!is_there(STANDBY_SIGNAL_FILE))
		ereport(FATAL,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("data directory \"%s\" is not set up as a standby", DataDir),
				 errdetail("The file \"%s\" is missing. As a primary this server would write WAL of its own and could not be a page server again.",
						   STANDBY_SIGNAL_FILE),
				 errhint("If it was promoted, copy another page server instead (docs/operations.md, \"A page server is lost\"); to make an ordinary server of a copy, take neon_page_service out of shared_preload_libraries there.")));
}

/* ---- tools ---- */

void
nc_directory_check_upgrade(const char *what)
{
	if (IsBinaryUpgrade)
		ereport(FATAL,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("pg_upgrade cannot upgrade a neon_comm %s", what),
				 errdetail("It would take over files that hold no contents of tables, or leave the other servers of the cluster behind."),
				 errhint("Make an ordinary server of a copy of a page server (docs/operations.md, \"The compute is lost\"), upgrade that, and adopt it with \"neon_dev adopt\"; or use pg_dump.")));
}

/* The header of the record at this position of pg_wal; false if it cannot be read. */
static bool
read_record_header(const ControlFileData *control, XLogRecord *record)
{
	char		path[MAXPGPATH];
	char		file[MAXFNAMELEN];
	XLogSegNo	segno;
	int			fd;
	ssize_t		got;

	XLByteToSeg(control->checkPoint, segno, control->xlog_seg_size);
	XLogFileName(file, control->checkPointCopy.ThisTimeLineID, segno, control->xlog_seg_size);
	snprintf(path, sizeof(path), XLOGDIR "/%s", file);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	got = pg_pread(fd, record, sizeof(*record),
				   XLogSegmentOffset(control->checkPoint, control->xlog_seg_size));
	close(fd);
	return got == sizeof(*record);
}

/*
 * pg_resetwal begins WAL anew with a checkpoint that nothing precedes. So does
 * initdb, but nobody gets to see that one: a server has run and stopped before
 * its directory becomes a compute or a page server.
 */
void
nc_directory_check_reset(const char *what, bool allowed)
{
	bool		crc_ok;
	ControlFileData *control = get_controlfile(DataDir, &crc_ok);
	XLogRecord	record;

	if (XLogSegmentOffset(control->checkPoint, control->xlog_seg_size) == SizeOfXLogLongPHD &&
		read_record_header(control, &record) && record.xl_prev == InvalidXLogRecPtr)
		ereport(allowed ? WARNING : FATAL,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("pg_resetwal has thrown away WAL of this %s", what),
				 errdetail("No WAL precedes the last checkpoint, at %X/%X. Compute and page servers belong together by their WAL, and each may have changes that the other one has not.",
						   LSN_FORMAT_ARGS(control->checkPoint)),
				 errhint("If this is the compute: %s If it is a page server, copy another one (\"A page server is lost\").",
						 COPY_A_PAGE_SERVER)));
	pfree(control);
}

/* ---- data checksums ---- */

/* "on", "off", or empty if the file does not say. */
static void
noted_checksums(const char *note, char word[8])
{
	FILE	   *file = nc_file_fopen(note, "r");
	char		line[128];

	word[0] = '\0';
	while (file != NULL && fgets(line, sizeof(line), file) != NULL)
	{
		/* a line that is not whole was being written when the disk was full */
		if (strcmp(line, "data_checksums=on\n") == 0)
			strcpy(word, "on");
		else if (strcmp(line, "data_checksums=off\n") == 0)
			strcpy(word, "off");
	}
	if (file != NULL)
		fclose(file);
}

/* What a directory has at its first start is right. */
static void
note_checksums(const char *note, const char *word)
{
	FILE	   *file = nc_file_fopen(note, "a");

	if (file == NULL || fprintf(file, "data_checksums=%s\n", word) < 0 || fflush(file) != 0 ||
		pg_fsync(fileno(file)) != 0)
	{
		const char *why = nc_file_error(errno);

		ereport(LOG,
				(errcode_for_file_access(),
				 errmsg("could not write file \"%s\": %s", note, why)));
	}
	if (file != NULL)
		fclose(file);
}

void
nc_directory_check_checksums(const char *what, const char *note)
{
	bool		crc_ok;
	ControlFileData *control = get_controlfile(DataDir, &crc_ok);
	const char *now = control->data_checksum_version != 0 ? "on" : "off";
	char		noted[8];

	pfree(control);
	noted_checksums(note, noted);
	if (noted[0] == '\0')
		note_checksums(note, now);
	else if (strcmp(noted, now) != 0)
		ereport(FATAL,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("data checksums of this neon_comm %s were switched %s", what, now),
				 errdetail("Compute and page servers exchange pages, and all of them have data checksums %s.", noted),
				 errhint("Undo it: pg_checksums --%s -D \"%s\"",
						 strcmp(noted, "on") == 0 ? "enable" : "disable", DataDir)));
}
