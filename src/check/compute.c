/*
 * compute.c
 *	  What this compute itself can tell: its processes, the WAL feed, slots, files,
 *	  settings and counters.
 *
 * Reads shared memory and the file system.  No lock is waited for that a process which
 * hangs may hold.
 */
#include "postgres.h"

#include <sys/stat.h>
#include <sys/statvfs.h>

#include "access/xlog.h"
#include "miscadmin.h"
#include "replication/slot.h"
#include "replication/syncrep.h"
#include "storage/lwlock.h"
#include "storage/spin.h"
#include "utils/guc.h"

#include "nc/auth/jwt.h"
#include "nc/auth/tls.h"
#include "nc/base/clock.h"
#include "nc/base/file.h"
#include "nc/check/scrub.h"
#include "nc/feed/feed.h"
#include "nc/filecache/filecache.h"
#include "nc/shared/map_settings.h"
#include "nc/shared/settings.h"
#include "nc/shared/shmem.h"
#include "nc/smgr/abi.h"

#include "check_int.h"

/* A turn takes milliseconds, and sleeps at most a second. */
#define HEARTBEAT_LATE_US 5000000

static const char *
setting(const char *name)
{
	const char *value = GetConfigOption(name, true, false);

	return value != NULL ? value : "";
}

static uint64
setting_bytes(const char *name, uint64 unit)
{
	return strtoull(setting(name), NULL, 10) * unit;
}

#define MB_BYTES (UINT64CONST(1) << 20)

/* ---- processes ---- */

static void
check_communicator(Report *r)
{
	uint32		pid = atomic_load(&nc_shared->communicator_pid);
	uint64		then_us = atomic_load(&nc_rings.doorbell->heartbeat_us);
	uint64		now_us = nc_clock_us();
	uint64		age_us = now_us > then_us ? now_us - then_us : 0;
	static const char *const remedy = "See docs/operations.md, \"The communicator is stuck\".";

	if (pid == 0)
		nc_check_row(r, "communicator", "compute", NC_CHECK_ERROR, remedy, "none runs");
	else
		nc_check_row(r, "communicator", "compute", age_us > HEARTBEAT_LATE_US ? NC_CHECK_ERROR :
					 NC_CHECK_OK, remedy, "process %u, its last turn was %.1f s ago", pid, age_us / 1e6);
}

/* How the server was entered; another kind of server would not have started. */
static void
check_way_in(Report *r)
{
	nc_check_row(r, "way in", "compute", NC_CHECK_OK, NULL, "by the server's %s", nc_smgr_abi()->way);
}

/* The one who waits longest. */
static void
check_waits(Report *r)
{
	uint64		now_us = nc_clock_us();
	uint64		oldest_us = 0;
	int			pid = 0;
	int			n = 0;

	for (uint32 ring = 0; ring < nc_rings.nrings; ring++)
		for (int i = 0; i < NC_RING_SLOTS; i++)
		{
			NcSlot		slot = nc_rings.rings[ring].slots[i];
			NcSlotState state = nc_slot_word_state(nc_slot_load(&slot));

			if ((state != NC_SLOT_SUBMITTED && state != NC_SLOT_TAKEN) || slot.submit_us >= now_us)
				continue;
			n++;
			if (now_us - slot.submit_us <= oldest_us)
				continue;
			oldest_us = now_us - slot.submit_us;
			pid = nc_ring_owner_pid(ring, i);
		}
	if (oldest_us > (uint64) nc_guc_wait_log_period * 1000)
		nc_check_row(r, "waits", "compute", NC_CHECK_ERROR,
					 "neon_comm.slots says for which pages; the page servers of their shards are where to look.",
					 "process %d has been waiting for a page for %.1f s, %d requests wait", pid,
					 oldest_us / 1e6, n);
	else
		nc_check_row(r, "waits", "compute", NC_CHECK_OK, NULL, "%d requests are under way", n);
}

static void
check_map(Report *r)
{
	const char *refused = nc_map_refused();

	nc_check_row(r, "map", "compute", refused == NULL ? NC_CHECK_OK : NC_CHECK_ERROR,
				 "Correct it in the configuration file and reload; the log of the reload says what is wrong.",
				 "%s%s", refused != NULL ? refused : "the map in force is what the settings say",
				 refused != NULL ? " was refused at the last reload, and the map before is in force" : "");
}

static void
check_file_cache(Report *r)
{
	char		error[NC_FILECACHE_ERROR_BYTES];
	struct stat st;
	struct statvfs fs;
	uint64		limit;
	uint64		has;

	if (nc_filecache == NULL)
		return;
	memcpy(error, nc_filecache->last_error, sizeof(error));
	error[sizeof(error) - 1] = '\0';
	if (atomic_load(&nc_filecache->state) == NC_FILECACHE_FAILED)
	{
		nc_check_row(r, "file cache", nc_filecache_path(), NC_CHECK_WARNING,
					 "See docs/operations.md, \"The local file cache is off, or useless\".", "it is off: %s", error);
		return;
	}
	nc_check_row(r, "file cache", nc_filecache_path(), NC_CHECK_OK, NULL, "it has not failed");
	limit = nc_filecache_limit_bytes();
	has = stat(nc_filecache_path(), &st) == 0 ? (uint64) st.st_blocks * 512 : 0;
	if (has > 0 && statvfs(nc_filecache_path(), &fs) == 0)
		nc_check_room(r, nc_filecache_path(), (uint64) fs.f_bavail * fs.f_frsize,
					  (uint64) fs.f_blocks * fs.f_frsize, limit > has ? limit - has : 0);
}

/* ---- WAL ---- */

static void
check_peer(Report *r, const NcFeedPeer *p, XLogRecPtr end, uint64 warn_bytes)
{
	bool		well = strcmp(p->state, "streaming") == 0 || strcmp(p->state, "catchup") == 0 ||
		strcmp(p->state, "waiting") == 0;
	uint64		held = p->retained_from != InvalidXLogRecPtr && end > p->retained_from ?
		end - p->retained_from : 0;
	NcCheckState state = NC_CHECK_OK;

	if (p->throttles || (warn_bytes > 0 && held > warn_bytes))
		state = NC_CHECK_WARNING;
	if (!well)
		state = NC_CHECK_ERROR;
	nc_check_row(r, "wal feed", p->name, state,
				 "Bring it back, replace it, or take its name out of neon_comm.wal_feed_slots (docs/operations.md).",
				 "%s%s%s%s; %llu MB of WAL are kept for it", p->state, p->reason[0] != '\0' ? ": " : "",
				 p->reason, p->throttles ? ", writers are slowed down because of it" : "",
				 (unsigned long long) (held >> 20));
}

/* Fewer page servers count than commits wait for. Other standbys that count are not known here. */
static void
check_commits(Report *r, const NcFeedPeer *peers, int n)
{
	int			wanted = SyncRepConfig != NULL ? SyncRepConfig->num_sync : 0;
	int			listed = 0;
	int			there = 0;

	for (int i = 0; i < n; i++)
	{
		listed += peers[i].sync_priority > 0;
		there += strcmp(peers[i].sync_state, "sync") == 0 || strcmp(peers[i].sync_state, "quorum") == 0;
	}
	if (listed == 0)
		nc_check_row(r, "commits", "compute", NC_CHECK_OK, NULL,
					 "they wait for no page server: with the disk of the compute the last ones would be lost");
	else
		nc_check_row(r, "commits", "compute", there >= wanted ? NC_CHECK_OK : listed < wanted ?
					 NC_CHECK_UNKNOWN : NC_CHECK_ERROR, "See docs/operations.md, \"Commits wait\".",
					 "%d of %d page servers of synchronous_standby_names count, commits wait for %d",
					 there, listed, wanted);
}

static bool
is_registered(const char *name, const NcFeedPeer *peers, int n)
{
	for (int i = 0; i < n; i++)
		if (strcmp(peers[i].name, name) == 0)
			return true;
	return false;
}

/* Of slots: what is in use, by name and where it keeps WAL from. */
static int
copy_slots(NameData *names, XLogRecPtr *from)
{
	int			n = 0;

	for (int i = 0; i < max_replication_slots; i++)
	{
		ReplicationSlot *slot = &ReplicationSlotCtl->replication_slots[i];

		if (!slot->in_use)
			continue;
		SpinLockAcquire(&slot->mutex);
		names[n] = slot->data.name;
		from[n++] = slot->data.restart_lsn;
		SpinLockRelease(&slot->mutex);
	}
	return n;
}

static void
check_slots(Report *r, const NcFeedPeer *peers, int npeers, XLogRecPtr end, uint64 warn_bytes)
{
	NameData   *names = palloc0((max_replication_slots + 1) * sizeof(NameData));
	XLogRecPtr *from = palloc0((max_replication_slots + 1) * sizeof(XLogRecPtr));
	int			n;

	if (!LWLockConditionalAcquire(ReplicationSlotControlLock, LW_SHARED))
	{
		nc_check_row(r, "slots", "compute", NC_CHECK_UNKNOWN, NULL, "somebody is changing them");
		return;
	}
	n = copy_slots(names, from);
	LWLockRelease(ReplicationSlotControlLock);
	for (int i = 0; i < n; i++)
	{
		uint64		held = from[i] != InvalidXLogRecPtr && end > from[i] ? end - from[i] : 0;

		if (!is_registered(NameStr(names[i]), peers, npeers))
			nc_check_row(r, "slots", NameStr(names[i]), warn_bytes > 0 && held > warn_bytes ?
						 NC_CHECK_WARNING : NC_CHECK_OK,
						 "Drop the slot if nobody comes for it: pg_drop_replication_slot().",
						 "not of a page server; %llu MB of WAL are kept for it", (unsigned long long) (held >> 20));
	}
	for (int i = 0; i < npeers; i++)
	{
		bool		found = false;

		for (int k = 0; k < n && !found; k++)
			found = strcmp(NameStr(names[k]), peers[i].name) == 0;
		nc_check_row(r, "slots", peers[i].name, found ? NC_CHECK_OK : NC_CHECK_ERROR,
					 "The feed makes it again within a second, if the WAL is there; its log says why not.",
					 "%s", found ? "there" : "the slot of this page server is missing");
	}
}

static void
check_wal(Report *r)
{
	NcFeedPeer *peers = palloc0(NC_SHARDS_MAX * sizeof(NcFeedPeer));
	int			n = nc_feed_peers(peers, NC_SHARDS_MAX);
	XLogRecPtr	end = RecoveryInProgress() ? InvalidXLogRecPtr : GetFlushRecPtr(NULL);
	uint64		warn_bytes = setting_bytes("neon_comm.wal_feed_warn", MB_BYTES);

	if (!nc_feed_enabled())
		nc_check_row(r, "wal feed", "compute", NC_CHECK_OK, NULL, "it is off: page servers get WAL elsewhere");
	for (int i = 0; i < n; i++)
		check_peer(r, &peers[i], end, warn_bytes);
	check_slots(r, peers, n, end, warn_bytes);
	if (nc_feed_enabled())
		check_commits(r, peers, n);
}

/* ---- what ends ---- */

/* The first line of a small file; false and a reason. */
static bool
read_line(const char *path, char *line, Size bytes, const char **why)
{
	FILE	   *file = nc_file_fopen(path, "r");
	bool		got = file != NULL && fgets(line, (int) bytes, file) != NULL;

	*why = file == NULL ? nc_file_error(errno) : "it is empty";
	if (file != NULL)
		fclose(file);
	if (got)
		line[strcspn(line, "\r\n")] = '\0';
	return got;
}

static void
check_token(Report *r)
{
	static const char *const remedy = "Put a new token into the file; nobody has to be told.";
	char		token[NC_TOKEN_BYTES_MAX];
	const char *why;
	NcJwt		jwt;

	if (nc_guc_token_file[0] == '\0')
		return;
	if (!read_line(nc_guc_token_file, token, sizeof(token), &why))
	{
		nc_check_row(r, "token", nc_guc_token_file, NC_CHECK_ERROR, remedy, "cannot read it: %s", why);
		return;
	}
	why = nc_jwt_parse(token, strlen(token), &jwt);
	explicit_bzero(token, sizeof(token));
	if (why != NULL)
		nc_check_row(r, "token", nc_guc_token_file, NC_CHECK_UNKNOWN, NULL, "it is not understood: %s", why);
	else if (!jwt.has_exp)
		nc_check_row(r, "token", nc_guc_token_file, NC_CHECK_OK, NULL, "it has no end");
	else
		nc_check_until(r, "token", nc_guc_token_file, (int64) jwt.exp, remedy);
}

static void
check_certificate(Report *r, const char *name)
{
	static const char *const remedy = "Replace the file and reload.";
	const char *path = setting(name);
	int64_t		until_s;
	char		err[256];

	if (path[0] == '\0')
		return;
	if (nc_tls_file_until(path, &until_s, err, sizeof(err)))
		nc_check_until(r, "certificate", path, until_s, remedy);
	else
		nc_check_row(r, "certificate", path, NC_CHECK_ERROR, remedy, "%s", err);
}

/* ---- disks ---- */

static void
check_directory(Report *r, const char *path, uint64 wanted)
{
	struct statvfs fs;

	if (statvfs(path, &fs) == 0)
		nc_check_room(r, path, (uint64) fs.f_bavail * fs.f_frsize, (uint64) fs.f_blocks * fs.f_frsize,
					  wanted);
	else
		nc_check_row(r, "disk", path, NC_CHECK_UNKNOWN, NULL, "cannot ask for its room: %s", strerror(errno));
}

static void
check_disks(Report *r)
{
	check_directory(r, ".", 0);
	check_directory(r, "pg_wal", setting_bytes("max_wal_size", MB_BYTES));
}

/* ---- settings and counters ---- */

typedef struct Danger
{
	const char *name;
	const char *value;			/* that is dangerous */
	NcCheckState state;
	const char *what;
} Danger;

static const Danger dangers[] = {
	{"neon_comm.allow_unsafe", "on", NC_CHECK_WARNING, "settings that lose data are allowed"},
	{"neon_comm.allow_unsafe_backup", "on", NC_CHECK_WARNING, "copies of files that have no contents are allowed"},
	{"neon_comm.allow_token_in_clear", "on", NC_CHECK_WARNING, "the token goes to servers that are not verified"},
	{"neon_comm.allow_takeover", "on", NC_CHECK_WARNING, "a copy of this directory would start"},
	{"neon_comm.allow_unknown_server", "on", NC_CHECK_WARNING, "server versions that were not tested are allowed"},
	{"neon_comm.wal_feed_allow_unjoined", "on", NC_CHECK_WARNING, "WAL goes to standbys whose history nobody compares"},
	{"neon_comm.accept_missing_pages", "on", NC_CHECK_ERROR, "lost blocks are read as empty ones"},
	{"fsync", "off", NC_CHECK_ERROR, "a crash loses WAL that page servers have"},
	{"full_page_writes", "off", NC_CHECK_ERROR, "page servers cannot recover from their own crashes"},
	{"zero_damaged_pages", "on", NC_CHECK_ERROR, "damaged pages are read as empty ones"},
	{"ignore_checksum_failure", "on", NC_CHECK_ERROR, "damaged pages are used"},
	{"data_sync_retry", "on", NC_CHECK_ERROR, "what a failed fsync has lost is taken for written"},
};

static void
check_settings(Report *r)
{
	int			found = 0;

	for (int i = 0; i < lengthof(dangers); i++)
	{
		if (strcmp(setting(dangers[i].name), dangers[i].value) != 0)
			continue;
		found++;
		nc_check_row(r, "settings", dangers[i].name, dangers[i].state,
					 "Set it back when what it was needed for is over.", "%s: %s", dangers[i].value,
					 dangers[i].what);
	}
	if (found == 0)
		nc_check_row(r, "settings", "compute", NC_CHECK_OK, NULL, "none that is dangerous");
}

typedef struct MustBeZero
{
	NcCounter	id;
	const char *name;
	NcCheckState state;
	const char *what;
} MustBeZero;

static const MustBeZero zeros[] = {
	{NC_COUNTER_STALE_ANSWERS, "stale_answers", NC_CHECK_ERROR, "old versions of pages were refused"},
	{NC_COUNTER_FUTURE_ANSWERS, "future_answers", NC_CHECK_ERROR, "pages newer than our WAL were refused"},
	{NC_COUNTER_MISSING_ANSWERS, "missing_answers", NC_CHECK_ERROR, "page servers have lost blocks"},
	{NC_COUNTER_VERIFY_MISMATCHES, "verify_mismatches", NC_CHECK_ERROR, "pages were not those that were written"},
	{NC_COUNTER_LFC_STALE, "lfc_stale", NC_CHECK_ERROR, "the file cache had old versions of pages"},
	{NC_COUNTER_DAMAGED_ANSWERS, "damaged_answers", NC_CHECK_WARNING, "damaged pages came from page servers"},
	{NC_COUNTER_LFC_MISMATCHES, "lfc_mismatches", NC_CHECK_WARNING, "the file cache gave back something else than was written"},
	{NC_COUNTER_POISONED, "connections_poisoned", NC_CHECK_WARNING, "answers did not match their requests"},
	{NC_COUNTER_FOUND_LATE, "found_late", NC_CHECK_WARNING, "requests were found by the watchdog"},
};

static void
check_counters(Report *r)
{
	int			found = 0;

	for (int i = 0; i < lengthof(zeros); i++)
	{
		uint64		value = nc_counter_value(&nc_shared->counters, zeros[i].id);

		if (value == 0)
			continue;
		found++;
		nc_check_row(r, "counters", zeros[i].name, zeros[i].state,
					 "See docs/operations.md, \"An answer was refused\"; it counts from the start of the server.",
					 "%llu: %s", (unsigned long long) value, zeros[i].what);
	}
	if (found == 0)
		nc_check_row(r, "counters", "compute", NC_CHECK_OK, NULL, "those that must stay 0 are 0");
}

static void
check_scrub(Report *r)
{
	uint64		found = atomic_load(&nc_scrub->found);
	uint64		unconfirmed = atomic_load(&nc_scrub->unconfirmed);
	NcScrubState state = atomic_load(&nc_scrub->state);

	if (found > 0)
		nc_check_row(r, "scrub", "page servers", NC_CHECK_ERROR, "See neon_comm.scrub_findings and docs/operations.md, \"Page servers do not have the same\".",
					 "%llu differences were found, with those that were found again", (unsigned long long) found);
	else if (unconfirmed > 0)
		nc_check_row(r, "scrub", "page servers", NC_CHECK_WARNING, "Call neon_comm.verify_relation() for the relations that the log names.",
					 "%llu blocks looked wrong, and no session could look again", (unsigned long long) unconfirmed);
	else
		nc_check_row(r, "scrub", "page servers", NC_CHECK_OK, NULL, "%s; no difference in %llu blocks",
					 nc_scrub_state_name(state), (unsigned long long) atomic_load(&nc_scrub->blocks));
}

void
nc_check_compute(Report *r)
{
	check_communicator(r);
	check_way_in(r);
	check_waits(r);
	check_map(r);
	check_wal(r);
	check_token(r);
	check_certificate(r, "neon_comm.wal_feed_ssl_cert_file");
	check_certificate(r, "neon_comm.metrics_ssl_cert_file");
	check_disks(r);
	check_file_cache(r);
	check_settings(r);
	check_counters(r);
	check_scrub(r);
}
