/*
 * identity.c
 *	  Whose page server this is: page_service_identity, the start, promotion.
 *
 * The file is read at the start, by the postmaster, and written there or by the
 * walreceiver (join.c), never by two at a time; workers read it again whenever it
 * has changed.  What of it is in shared memory is where the last join has led.
 *
 * A directory that is a copy, or was a server of its own for a while, does not
 * start; docs/identity.md has the rules.
 */
#include "page_service.h"

#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "access/xlogrecovery.h"
#include "catalog/pg_control.h"
#include "common/controldata_utils.h"
#include "miscadmin.h"
#include "storage/fd.h"

#include "compat.h"

/* What is said of a page server that must not go on; there may be no other copy of what it holds. */
#define KEEP_HINT \
	"Put a copy of another page server of this compute in its place (docs/operations.md, \"A page " \
	"server is lost\"). Keep this directory: without neon_page_service it still starts as the server " \
	"that it was."

/* Set in the postmaster, inherited by all. */
static bool follows;			/* a WAL feed, so all of this applies */

static NcMemberIdentity identity;

/* ---- the file ---- */

/* False: there is none. Anything that cannot be read is an error of this level. */
static bool
load_member(NcMemberIdentity *into, int elevel)
{
	const char *why = NULL;

	switch (nc_member_identity_load(DataDir, into, &why))
	{
		case NC_FILE_OK:
			return true;
		case NC_FILE_ABSENT:
			return false;
		case NC_FILE_INVALID:
			ereport(elevel,
					(errcode(ERRCODE_DATA_CORRUPTED),
					 errmsg("page service: \"%s\" cannot be understood: %s", NC_MEMBER_IDENTITY, why),
					 errdetail("It says which compute this page server has followed."),
					 errhint("Bring the file back from a copy of the directory, or put another page "
							 "server in its place.")));
			break;
		case NC_FILE_ERROR:
			ereport(elevel,
					(errcode_for_file_access(),
					 errmsg("page service: could not read \"%s\": %m", NC_MEMBER_IDENTITY)));
			break;
	}
	return false;
}

/* In the walreceiver, where nothing is done without it. */
NcMemberIdentity *
nc_svc_identity_load(void)
{
	if (!load_member(&identity, ERROR))
		ereport(ERROR,
				(errmsg("page service: \"%s\" is gone", NC_MEMBER_IDENTITY),
				 errhint("Restart this page server.")));
	return &identity;
}

static void
save_member(const NcMemberIdentity *what, int elevel)
{
	if (!nc_member_identity_save(DataDir, what))
		ereport(elevel,
				(errcode_for_file_access(),
				 errmsg("page service: could not write \"%s\": %m", NC_MEMBER_IDENTITY),
				 errhint("Make sure that its file system has room and that the directory can be written to. Nothing has been changed.")));
}

/* In the walreceiver: durable when it returns. */
void
nc_svc_identity_save(const NcMemberIdentity *what)
{
	save_member(what, ERROR);
}

/* ---- the start ---- */

/* The latest timeline that pg_wal has a history of. */
static TimeLineID
latest_history(void)
{
	TimeLineID	latest = 0;
	DIR		   *dir = AllocateDir(XLOGDIR);
	struct dirent *entry;

	while ((entry = ReadDirExtended(dir, XLOGDIR, LOG)) != NULL)
	{
		if (IsTLHistoryFileName(entry->d_name))
			latest = Max(latest, (TimeLineID) strtoul(entry->d_name, NULL, 16));
	}
	FreeDir(dir);
	return latest;
}

static ControlFileData *
service_control_file(void)
{
	bool		crc_ok;
	ControlFileData *control = get_controlfile(DataDir, &crc_ok);

	if (!crc_ok)
		ereport(FATAL, (errcode(ERRCODE_DATA_CORRUPTED), errmsg("pg_control is damaged")));
	return control;
}

/* The timeline of what is in the directory. */
static TimeLineID
own_timeline(void)
{
	ControlFileData *control = service_control_file();
	TimeLineID	timeline = Max(control->checkPointCopy.ThisTimeLineID, control->minRecoveryPointTLI);

	pfree(control);
	return Max(timeline, latest_history());
}

/* Has it been a server of its own since it followed a compute? pg_control says what it was last. */
static bool
was_primary(void)
{
	ControlFileData *control = service_control_file();
	bool		primary = control->state != DB_IN_ARCHIVE_RECOVERY &&
		control->state != DB_SHUTDOWNED_IN_RECOVERY;

	pfree(control);
	return primary && !nc_id_is_none(&identity.birth);
}

static void
refuse_promoted(void)
{
	TimeLineID	timeline = own_timeline();

	if (!identity.promoted && timeline <= identity.timeline && !was_primary())
		return;
	if (!identity.promoted)
	{
		identity.promoted = true;
		save_member(&identity, FATAL);
	}
	ereport(FATAL,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("this page server was promoted, or started as a server of its own: it is none any more"),
			 errdetail("It has a history that its compute did not write (timeline %u, the compute's was "
					   "timeline %u), and may not answer the compute.", timeline, identity.timeline),
			 errhint(KEEP_HINT)));
}

/* A copy becomes a page server of its own, with what it has followed. */
static void
take_over_place(const char *place)
{
	NcId		original = identity.member;
	char		text[NC_ID_TEXT];

	if (!nc_id_make(&identity.member))
		ereport(FATAL, (errmsg("could not make a random number")));
	strlcpy(identity.place, place, sizeof(identity.place));
	identity.chain = (NcChain) {0};
	save_member(&identity, FATAL);
	(void) unlink(NC_MEMBER_TAKEOVER);
	ereport(LOG,
			(errmsg("page service: takeover of page server %s from another place",
					nc_id_text(&original, text))));
}

/*
 * Whoever has copied the directory here will not use the original any more, and says so: this is the same page server.
 * He knows the place that it had and the inode that it has; a further copy has another one.
 */
static bool
was_moved_here(void)
{
	char		inode[24];
	char		word[NC_TAKEOVER_WORD];
	struct stat st;

	if (stat(DataDir, &st) != 0)
		return false;
	snprintf(inode, sizeof(inode), "%llu", (unsigned long long) st.st_ino);
	return nc_takeover_granted(DataDir, NC_MEMBER_MOVED, nc_takeover_word(identity.place, inode, word));
}

static void
go_on_here(const char *place)
{
	strlcpy(identity.place, place, sizeof(identity.place));
	save_member(&identity, FATAL);
	(void) unlink(NC_MEMBER_MOVED);
	ereport(LOG, (errmsg("page service: this directory was moved here")));
}

static void
check_place(void)
{
	char		place[NC_PLACE_BYTES];
	char		word[NC_TAKEOVER_WORD];

	if (!nc_place_of(DataDir, place))
		ereport(FATAL, (errcode_for_file_access(),
						errmsg("could not find out where \"%s\" is: %m", DataDir)));
	if (strcmp(place, identity.place) == 0)
		return;
	if (was_moved_here())
	{
		go_on_here(place);
		return;
	}
	if (nc_takeover_granted(DataDir, NC_MEMBER_TAKEOVER, nc_takeover_word(identity.place, place, word)))
	{
		take_over_place(place);
		return;
	}
	ereport(FATAL,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("this directory is a copy of a page server, or was moved"),
			 errdetail("The page server was at %s, this is %s. Two that answer to one name would lose "
					   "WAL and confuse their compute.", identity.place, place),
			 errhint("If the original is gone for good, or if this one has a slot name and a port of its own, "
					 "run neon_dev takeover -D DIR page-server N, or write the word %s into the file %s in "
					 "the data directory, and start again.", word, NC_MEMBER_TAKEOVER)));
}

/* ---- a record to show ---- */

/* What a label of a backup says; recovery begins there instead of at the last checkpoint. */
static bool
label_says(const char *key, XLogRecPtr *lsn)
{
	FILE	   *file = AllocateFile(BACKUP_LABEL_FILE, "r");
	char		line[MAXPGPATH];
	unsigned	high;
	unsigned	low;
	bool		found = false;

	if (file == NULL)
		return false;
	while (!found && fgets(line, sizeof(line), file) != NULL)
		found = strncmp(line, key, strlen(key)) == 0 && sscanf(line + strlen(key), ": %X/%X", &high, &low) == 2;
	FreeFile(file);
	if (found)
		*lsn = (XLogRecPtr) high << 32 | low;
	return found;
}

static void
need_segment(const ControlFileData *control, XLogRecPtr lsn)
{
	char		path[MAXPGPATH];
	XLogSegNo	number;

	XLByteToSeg(lsn, number, control->xlog_seg_size);
	XLogFilePath(path, control->checkPointCopy.ThisTimeLineID, number, control->xlog_seg_size);
	if (access(path, F_OK) == 0 || errno != ENOENT)
		return;
	ereport(FATAL,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("this page server has no WAL by which a compute could tell whether it is of the same history"),
			 errdetail("The record of its last checkpoint is to be in \"%s\", which is not there: it is a backup "
					   "without WAL, or WAL was removed.", path),
			 errhint("Copy that file and those after it from the server that the backup was made of, or make the backup "
					 "with pg_basebackup -X stream. With restore_command the file may come from an archive.")));
}

/* The walreceiver would ask for WAL before anything is replayed, and have nothing to show (evidence.c). */
static void
need_evidence(void)
{
	ControlFileData *control = service_control_file();
	XLogRecPtr	lsn = control->checkPoint;

	if (recoveryRestoreCommand == NULL || recoveryRestoreCommand[0] == '\0')
	{
		(void) label_says("CHECKPOINT LOCATION", &lsn);
		need_segment(control, lsn);
		if (label_says("START WAL LOCATION", &lsn))
			need_segment(control, lsn);
	}
	pfree(control);
}

static void
become_member(void)
{
	memset(&identity, 0, sizeof(identity));
	if (!nc_id_make(&identity.member))
		ereport(FATAL, (errmsg("could not make a random number")));
	if (!nc_place_of(DataDir, identity.place))
		ereport(FATAL, (errcode_for_file_access(),
						errmsg("could not find out where \"%s\" is: %m", DataDir)));
	identity.timeline = own_timeline();
	save_member(&identity, FATAL);
}

/* It would serve pages of a history that nobody has compared with the compute's. */
static void
refuse_any_primary(void)
{
	ereport(FATAL,
			(errcode(ERRCODE_CONFIG_FILE_ERROR),
			 errmsg("a page server that has followed a compute follows nothing else"),
			 errdetail("neon_page_service.allow_any_primary is on."),
			 errhint("Remove the setting.")));
}

/*
 * In the postmaster, while libraries are preloaded, of what will be a standby: FATAL if this
 * directory must not start as a page server. Makes the file where there is none.
 */
void
nc_svc_identity_start(void)
{
	bool		known = load_member(&identity, FATAL);

	if (known && !nc_id_is_none(&identity.birth) && nc_svc_allow_any_primary)
		refuse_any_primary();
	follows = !nc_svc_allow_any_primary;
	if (!follows)
		return;
	if (known)
		refuse_promoted();
	need_evidence();
	if (known)
		check_place();
	else
		become_member();
}

bool
nc_svc_identity_follows(void)
{
	return follows;
}

/* ---- promotion ---- */

/*
 * In the startup process, when redo ends: for a page server that is the beginning of a
 * promotion, and nothing of it has happened yet. The server stops; started again it is
 * what it was.
 */
void
nc_svc_identity_refuse_promotion(void)
{
	if (!follows)
		return;
	ereport(FATAL,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("a page server cannot be promoted"),
			 errdetail("Its history would part from the compute's here, at " NC_LSN_FMT ". Nothing has "
					   "been changed.", NC_LSN_ARGS(GetXLogReplayRecPtr(NULL))),
			 errhint("Start it again, and it goes on as a page server. To make an ordinary server of a copy of it, "
					 "take neon_page_service out of shared_preload_libraries there.")));
}

/* In the first worker, now and then: it was promoted all the same. */
void
nc_svc_identity_watch(void)
{
	static bool noted;
	NcSvcJoins	joins = {0};

	if (noted || !follows || nc_svc_worker_index != 0 || RecoveryInProgress())
		return;
	noted = true;
	if (!load_member(&identity, LOG))
		return;
	identity.promoted = true;
	save_member(&identity, LOG);
	joins.standing = NC_SVC_STANDING_ENDED;
	strlcpy(joins.reason, "this page server was promoted", sizeof(joins.reason));
	nc_svc_joins_set(&joins);
	ereport(LOG,
			(errmsg("this page server was promoted: it serves no pages any more"),
			 errdetail("It has a history of its own from now on."), errhint(KEEP_HINT)));
}

/* ---- where the joins have led ---- */

/* What it rests on is durable already. */
void
nc_svc_joins_set(const NcSvcJoins *joins)
{
	SpinLockAcquire(&nc_svc_shared->joins_lock);
	nc_svc_shared->joins = *joins;
	SpinLockRelease(&nc_svc_shared->joins_lock);
	pg_atomic_fetch_add_u32(&nc_svc_shared->joins_changes, 1);
}

void
nc_svc_joins_get(NcSvcJoins *joins)
{
	SpinLockAcquire(&nc_svc_shared->joins_lock);
	*joins = nc_svc_shared->joins;
	SpinLockRelease(&nc_svc_shared->joins_lock);
}

/* ---- readers, in the workers ---- */

static uint32
changes_now(void)
{
	return pg_atomic_read_u32(&nc_svc_shared->joins_changes) + 1;
}

/* The identity as it is now; NULL: none, or it cannot be read. */
const NcMemberIdentity *
nc_svc_identity_current(void)
{
	static uint32 seen;
	static bool valid;
	uint32		changes = changes_now();

	if (changes != seen)
	{
		valid = follows && load_member(&identity, LOG);
		seen = changes;
	}
	return valid ? &identity : NULL;
}

/* One that is known by name, because it joined or was refused; others wait. */
static NcAccess
judge_named(const NcReaderIdentity *reader, const NcSvcJoins *joins, char *reason)
{
	const NcMemberIdentity *me = nc_svc_identity_current();
	NcId		promised = nc_svc_promised();
	NcAccess	access = NC_ACCESS_WAIT;

	if (me != NULL && !nc_id_is_none(&promised) && nc_lineage_find(&me->followed, &promised) < 0 &&
		nc_lineage_find(&me->followed, &reader->incarnation) >= 0)
	{
		strlcpy(reason, "this compute was overtaken: the page server has promised itself to a newer one",
				NC_REASON_BYTES);
		return NC_ACCESS_END;
	}
	if (me != NULL)
		access = nc_judge_reader(me, reader, reason);
	if (access != NC_ACCESS_END && joins->reason[0] != '\0' &&
		nc_id_equal(&reader->incarnation, &joins->refused))
	{
		strlcpy(reason, joins->reason, NC_REASON_BYTES);
		return NC_ACCESS_END;
	}
	return access;
}

/* May this reader have pages? reader NULL: a client that does not say who it is. */
static NcAccess
judge_reader(const NcReaderIdentity *reader, char *reason)
{
	NcSvcJoins	joins;
	NcAccess	access = NC_ACCESS_SERVE;

	if (!follows)
	{
		strlcpy(reason, "this page server follows no WAL feed (neon_page_service.allow_any_primary)",
				NC_REASON_BYTES);
		return reader == NULL ? NC_ACCESS_SERVE : NC_ACCESS_END;
	}
	nc_svc_joins_get(&joins);
	if (reader != NULL)
		access = judge_named(reader, &joins, reason);
	if (access == NC_ACCESS_END || joins.standing == NC_SVC_STANDING_JOINED)
		return access;
	strlcpy(reason, joins.reason, NC_REASON_BYTES);
	if (joins.standing == NC_SVC_STANDING_ENDED ||
		(joins.reason[0] != '\0' && (reader == NULL || nc_id_is_none(&joins.refused))))
		return NC_ACCESS_END;
	return NC_ACCESS_WAIT;
}

/* The same for a session, judged again when something has changed. */
NcAccess
nc_svc_identity_access(NcSvcSession *s, char reason[NC_REASON_BYTES])
{
	uint32		changes = changes_now();

	reason[0] = '\0';
	if (s->access_seen != changes || s->access == NC_ACCESS_END)
	{
		s->access = judge_reader(s->has_reader ? &s->reader : NULL, reason);
		s->access_seen = changes;
	}
	return s->access;
}
