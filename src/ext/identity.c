/*
 * identity.c
 *	  Who this compute is: checked and made durable by the postmaster.
 *
 * Nothing is written before the shared memory is made: by then the lock file is
 * ours and nobody else uses the directory.
 */
#include "postgres.h"

#include <fcntl.h>
#include <unistd.h>

#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "catalog/pg_control.h"
#include "common/controldata_utils.h"
#include "miscadmin.h"
#include "storage/shmem.h"
#include "utils/memutils.h"

#include "nc/feed/feed.h"
#include "nc/identity/judge.h"
#include "nc/shared/identity.h"

#include "ext.h"

bool		nc_guc_allow_takeover = false;

/* The postmaster's: what the file says, and whether the place in it is to be replaced. */
static NcComputeIdentity *kept = NULL;
static bool takes_over = false;
static bool elsewhere = false;	/* it was, at the start of this postmaster */
static char place[NC_PLACE_BYTES];

/* ---- before a start ---- */

static void
refuse_copy(const char *word)
{
	ereport(FATAL,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("data directory \"%s\" is not where this compute ran last: it is a copy", DataDir),
			 errdetail("Two computes that go on from one directory write two histories, and page servers can follow one of them only. It ran at %s, this is %s.",
					   kept->place, place),
			 errhint("Start the original. If it is gone for good, this directory goes on in its place with \"neon_dev takeover\", or by a file \"%s\" in it that holds the word %s: what the original wrote after the copy was made is given up.",
					 NC_COMPUTE_TAKEOVER, word)));
}

static void
judge_place(void)
{
	char		word[NC_TAKEOVER_WORD];

	takes_over = elsewhere = strcmp(kept->place, place) != 0;
	if (!takes_over)
		return;
	nc_takeover_word(kept->place, place, word);
	if (!nc_guc_allow_takeover && !nc_takeover_granted(DataDir, NC_COMPUTE_TAKEOVER, word))
		refuse_copy(word);
	ereport(LOG,
			(errmsg("this copy of a compute goes on in place of the original"),
			 errdetail("The original ran at %s and must not be started again.", kept->place)));
}

static void
make_identity(void)
{
	strlcpy(kept->place, place, sizeof(kept->place));
	if (!nc_id_make(&kept->birth))
		ereport(FATAL, (errmsg("neon_comm: the system has no random bytes: %m")));
}

void
nc_identity_check_start(void)
{
	const char *why;

	kept = MemoryContextAllocZero(TopMemoryContext, sizeof(*kept));
	if (!nc_place_of(DataDir, place))
		ereport(FATAL,
				(errcode_for_file_access(),
				 errmsg("could not find out where data directory \"%s\" is: %m", DataDir)));
	switch (nc_compute_identity_load(DataDir, kept, &why))
	{
		case NC_FILE_OK:
			judge_place();
			break;
		case NC_FILE_ABSENT:
			make_identity();
			break;
		case NC_FILE_INVALID:
			ereport(FATAL,
					(errcode(ERRCODE_DATA_CORRUPTED),
					 errmsg("file \"%s\" is not understood: %s", NC_COMPUTE_IDENTITY, why),
					 errhint("Bring the file back from a backup of this directory. Without it page servers would take this compute for another one.")));
			break;
		case NC_FILE_ERROR:
			ereport(FATAL,
					(errcode_for_file_access(),
					 errmsg("could not read file \"%s\": %m", NC_COMPUTE_IDENTITY)));
	}
}

/* ---- a new life ---- */

/* From one WAL segment. */
static NcWalRead
read_segment(void *arg, NcLsn at, size_t bytes, uint8_t *to)
{
	const ControlFileData *control = arg;
	char		path[MAXPGPATH];
	XLogSegNo	number;
	ssize_t		got;
	int			fd;

	XLByteToSeg(at, number, control->xlog_seg_size);
	XLogFilePath(path, control->checkPointCopy.ThisTimeLineID, number, control->xlog_seg_size);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return NC_WAL_GONE;
	got = pread(fd, to, bytes, (off_t) XLogSegmentOffset(at, control->xlog_seg_size));
	close(fd);
	return got == (ssize_t) bytes ? NC_WAL_OK : NC_WAL_GONE;
}

/* After a clean stop nothing is recovered: WAL goes on behind the last checkpoint. */
static XLogRecPtr
shutdown_end(void)
{
	bool		crc_ok;
	ControlFileData *control = get_controlfile(DataDir, &crc_ok);
	NcWalSource source = {read_segment, control, control->xlog_seg_size};
	uint8_t		header[NC_WAL_HEADER_BYTES];
	XLogRecPtr	end = InvalidXLogRecPtr;

	if (crc_ok && control->state == DB_SHUTDOWNED &&
		nc_wal_read_header(&source, control->checkPoint, header) == NC_WAL_OK)
		end = nc_wal_record_end(control->checkPoint, header, control->xlog_seg_size);
	pfree(control);
	return end;
}

/* The lineage may have grown since we read it: the feed writes, too. */
static void
reload(void)
{
	const char *why;

	switch (nc_compute_identity_load(DataDir, kept, &why))
	{
		case NC_FILE_OK:
		case NC_FILE_ABSENT:
			return;
		case NC_FILE_INVALID:
		case NC_FILE_ERROR:
			ereport(FATAL,
					(errcode_for_file_access(),
					 why != NULL ?
					 errmsg("could not read file \"%s\" again: %s", NC_COMPUTE_IDENTITY, why) :
					 errmsg("could not read file \"%s\" again: %m", NC_COMPUTE_IDENTITY)));
	}
}

/* One more than the last one of this directory, in a cluster with a write quorum. */
static bool
make_incarnation(NcId *incarnation)
{
	const NcLineage *lineage = &kept->lineage;
	uint32_t	number = 0;

	if (!nc_feed_is_ordered())
		return nc_id_make(incarnation);
	if (lineage->n > 0 && !nc_id_number(&lineage->at[lineage->n - 1].id, &number))
		ereport(FATAL,
				(errcode(ERRCODE_CONFIG_FILE_ERROR),
				 errmsg("neon_comm.write_quorum is set in a compute that was started without it before"),
				 errdetail("Its earlier starts have no order by which page servers could tell which is newer.")));
	return nc_id_make_numbered(incarnation, number + 1);
}

static void
begin_life(void)
{
	NcId		incarnation;

	reload();
	strlcpy(kept->place, place, sizeof(kept->place));
	if (!make_incarnation(&incarnation))
		ereport(FATAL, (errmsg("neon_comm: the system has no random bytes: %m")));
	nc_lineage_append(&kept->lineage, &incarnation, 0);
	if (!nc_compute_identity_save(DataDir, kept))
		ereport(FATAL,
				(errcode_for_file_access(),
				 errmsg("could not write file \"%s\": %m", NC_COMPUTE_IDENTITY),
				 errhint("It is written at each start, and after each crash. Make sure that its file system has room and that the directory can be written to, and start the server again: nothing has been changed.")));
	if (takes_over)
		nc_takeover_done(DataDir, NC_COMPUTE_TAKEOVER);
	takes_over = false;
	nc_identity->reader = (NcReaderIdentity) {kept->birth, incarnation};
	nc_identity->elsewhere = elsewhere;
	nc_identity->lives = kept->lineage.n;
	nc_identity->shutdown_end = shutdown_end();
	strlcpy(nc_identity->place, place, sizeof(nc_identity->place));
}

Size
nc_identity_shmem_bytes(void)
{
	return MAXALIGN(sizeof(NcIdentityShared));
}

void
nc_identity_shmem_startup(void)
{
	bool		found;

	if (kept == NULL)
		return;
	nc_identity = ShmemInitStruct("neon_comm identity", nc_identity_shmem_bytes(), &found);
	if (found)
		return;
	memset(nc_identity, 0, sizeof(*nc_identity));
	begin_life();
}
