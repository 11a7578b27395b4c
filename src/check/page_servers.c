/*
 * page_servers.c
 *	  What page servers say of themselves ("show status"), compared with this compute.
 *
 * A value that is not told (Neon's page servers, an older page service) makes the row
 * unknown, never ok.
 */
#include "postgres.h"

#include <limits.h>

#include "access/xlog.h"
#include "miscadmin.h"

#include "nc/identity/files.h"
#include "nc/shared/identity.h"
#include "nc/shared/settings.h"

#include "check_int.h"

static const char *
told(const Asked *a, const char *name)
{
	const char *value = nc_handshake_answer(a->handshake, name);

	return value != NULL ? value : "";
}

/* It has the value; otherwise the row says that it is not told. */
static bool
tells(Report *r, const char *item, const Asked *a, const char *name)
{
	if (nc_handshake_answer(a->handshake, name) != NULL)
		return true;
	nc_check_row(r, item, a->address, NC_CHECK_UNKNOWN,
				 "Install there the version of neon_page_service that belongs to this neon_comm.",
				 "it does not tell its %s", name);
	return false;
}

static bool
is_on(const Asked *a, const char *name)
{
	return strcmp(told(a, name), "on") == 0;
}

static void
check_replay(Report *r, const Asked *a)
{
	const char *why = NULL;

	if (!tells(r, "replay", a, "replay_lsn"))
		return;
	if (!is_on(a, "in_recovery"))
		why = "it is not a standby any more";
	else if (!is_on(a, "consistent"))
		why = "recovery is not consistent yet";
	else if (is_on(a, "replay_paused"))
		why = "replay is paused";
	else if (!is_on(a, "streaming"))
		why = "its walreceiver gets no WAL";
	if (why != NULL)
		nc_check_row(r, "replay", a->address, NC_CHECK_ERROR,
					 "See its log and docs/operations.md, \"A page server is stuck\".",
					 "%s; replayed up to %s, received up to %s", why, told(a, "replay_lsn"),
					 told(a, "received_lsn"));
	else
		nc_check_row(r, "replay", a->address, is_on(a, "lazy") ? NC_CHECK_WARNING : NC_CHECK_OK,
					 "Switch neon_page_service.lazy_replay off: it is a test aid.",
					 "%sreplayed up to %s", is_on(a, "lazy") ? "it replays only what is asked for; " : "",
					 told(a, "replay_lsn"));
}

/* Is the number among "0,2" of "0,2/4"? */
static bool
serves(const char *shard_row, uint32 shard)
{
	for (const char *at = shard_row; *at != '\0' && *at != '/'; at += *at == ',')
	{
		char	   *end;
		unsigned long number = strtoul(at, &end, 10);

		if (end == at)
			return false;
		if (number == shard)
			return true;
		at = end + strspn(end, " ");
		if (*at != ',')
			return false;
	}
	return false;
}

/* The first shard for which the map leads there and which it refuses; -1 = none. */
static int
refused_shard(const AskedAll *all, const Asked *a, const char *row)
{
	for (uint32 i = 0; i < all->map.shard_count; i++)
		if (a->shards[i] && !serves(row, i))
			return (int) i;
	return -1;
}

static void
check_map(Report *r, const AskedAll *all, const Asked *a)
{
	static const char *const remedy = "Make neon_page_service.shard_count, shard_number and stripe_size there and neon_comm.page_servers and stripe_size here say the same.";
	const char *row = told(a, "shard");
	const char *slash = strchr(row, '/');
	int			count = slash != NULL ? atoi(slash + 1) : -1;
	int			stripe = atoi(told(a, "stripe_size"));
	int			refused;

	if (!tells(r, "map", a, "shard") || !tells(r, "map", a, "stripe_size"))
		return;
	if (count == 0)
	{
		nc_check_row(r, "map", a->address, NC_CHECK_OK, NULL, "it serves the blocks of all shards");
		return;
	}
	refused = refused_shard(all, a, row);
	if (count != all->map.shard_count)
		nc_check_row(r, "map", a->address, NC_CHECK_ERROR, remedy, "it knows %d shards, this compute %u",
					 count, all->map.shard_count);
	else if (count > 1 && stripe != all->map.stripe_blocks)
		nc_check_row(r, "map", a->address, NC_CHECK_ERROR, remedy,
					 "its stripe is %d blocks, that of this compute %u", stripe, all->map.stripe_blocks);
	else if (refused >= 0)
		nc_check_row(r, "map", a->address, NC_CHECK_ERROR, remedy,
					 "it serves shard %.*s and is asked for the blocks of shard %d", (int) (slash - row), row,
					 refused);
	else
		nc_check_row(r, "map", a->address, NC_CHECK_OK, NULL, "shard %s, stripe %d blocks", row, stripe);
}

static bool
fits(const char *theirs, const char *ours)
{
	return theirs[0] == '\0' || pg_strcasecmp(theirs, ours) == 0;
}

static void
check_tenant(Report *r, const Asked *a)
{
	const char *tenant = told(a, "tenant_id");
	const char *timeline = told(a, "timeline_id");

	if (!tells(r, "tenant", a, "tenant_id") || !tells(r, "tenant", a, "timeline_id"))
		return;
	if (!fits(tenant, nc_guc_tenant_id))
		nc_check_row(r, "tenant", a->address, NC_CHECK_ERROR,
					 "Set neon_comm.tenant_id or neon_page_service.tenant_id right.",
					 "it serves tenant %s", tenant);
	else if (!fits(timeline, nc_guc_timeline_id))
		nc_check_row(r, "tenant", a->address, NC_CHECK_ERROR,
					 "Set neon_comm.timeline_id or neon_page_service.timeline_id right.",
					 "it serves timeline %s", timeline);
	else
		nc_check_row(r, "tenant", a->address, NC_CHECK_OK, NULL, "%s",
					 tenant[0] == '\0' ? "it serves any tenant" : "tenant and timeline are those of this compute");
}

/* Whose page server it is, and whether it follows this start of this compute. */
static void
check_identity(Report *r, const Asked *a)
{
	static const char *const remedy = "See docs/operations.md, \"A page server says parted, or was promoted\".";
	const char *standing = told(a, "identity");
	const char *reason = told(a, "identity_reason");
	char		ours[NC_ID_TEXT];

	if (nc_identity == NULL || !tells(r, "identity", a, "identity") || !tells(r, "identity", a, "birth"))
		return;
	if (strcmp(told(a, "system_identifier"), psprintf(UINT64_FORMAT, GetSystemIdentifier())) != 0 &&
		told(a, "system_identifier")[0] != '\0')
		nc_check_row(r, "identity", a->address, NC_CHECK_ERROR, remedy,
					 "it belongs to another cluster: its system identifier is %s",
					 told(a, "system_identifier"));
	else if (strcmp(standing, "promoted") == 0 || strcmp(standing, "refused") == 0)
		nc_check_row(r, "identity", a->address, NC_CHECK_ERROR, remedy, "%s%s%s", standing,
					 reason[0] != '\0' ? ": " : "", reason);
	else if (strcmp(told(a, "birth"), "-") != 0 &&
			 strcmp(told(a, "birth"), nc_id_text(&nc_identity->reader.birth, ours)) != 0)
		nc_check_row(r, "identity", a->address, NC_CHECK_ERROR, remedy,
					 "it follows another compute, born as %s", told(a, "birth"));
	else if (strcmp(standing, "joined") != 0)
		nc_check_row(r, "identity", a->address, NC_CHECK_WARNING, remedy,
					 "it has not joined this compute since it was started (%s)", standing);
	else if (strcmp(told(a, "incarnation"), nc_id_text(&nc_identity->reader.incarnation, ours)) != 0)
		nc_check_row(r, "identity", a->address, NC_CHECK_WARNING, remedy,
					 "it follows another start of this compute, %s", told(a, "incarnation"));
	else
		nc_check_row(r, "identity", a->address, NC_CHECK_OK, NULL, "joined");
}

static void
check_checksums(Report *r, const Asked *a)
{
	bool		same = is_on(a, "data_checksums") == DataChecksumsEnabled();

	if (tells(r, "checksums", a, "data_checksums"))
		nc_check_row(r, "checksums", a->address, same ? NC_CHECK_OK : NC_CHECK_ERROR,
					 "All parts of a cluster have data checksums, or none: undo what pg_checksums has done.",
					 "data checksums are %s%s", told(a, "data_checksums"), same ? "" : " there, and not here");
}

/* Another minor version replays the same WAL, and should not stay. */
static void
check_version(Report *r, const Asked *a)
{
	const char *version = told(a, "server_version");
	NcCheckState state = NC_CHECK_OK;

	if (!tells(r, "version", a, "server_version"))
		return;
	if (atoi(version) != atoi(PG_VERSION))
		state = NC_CHECK_ERROR;
	else if (strcmp(version, PG_VERSION) != 0)
		state = NC_CHECK_WARNING;
	nc_check_row(r, "version", a->address, state, "Update the older one.", "PostgreSQL %s%s%s", version,
				 state == NC_CHECK_OK ? "" : " there, here ", state == NC_CHECK_OK ? "" : PG_VERSION);
}

static void
check_settings(Report *r, const Asked *a)
{
	const char *names = told(a, "unsafe");

	if (tells(r, "settings", a, "unsafe"))
		nc_check_row(r, "settings", a->address, names[0] == '\0' ? NC_CHECK_OK : NC_CHECK_WARNING,
					 "They are for clusters that may be lost, and networks that are closed by other means.",
					 "%s%s", names[0] == '\0' ? "none that is dangerous" : "on there, of neon_page_service: ", names);
}

static void
check_disk(Report *r, const Asked *a)
{
	if (tells(r, "disk", a, "disk_bytes") && tells(r, "disk", a, "disk_free_bytes"))
		nc_check_room(r, a->address, strtoull(told(a, "disk_free_bytes"), NULL, 10),
					  strtoull(told(a, "disk_bytes"), NULL, 10), 0);
}

static void
check_certificate(Report *r, const Asked *a)
{
	int64_t		until_s;

	if (nc_handshake_certificate_until(a->handshake, &until_s))
		nc_check_until(r, "certificate", a->address, until_s,
					   "Replace neon_page_service.ssl_cert_file there and reload.");
}

static const char *
shards_text(const AskedAll *all, const Asked *a)
{
	char	   *text = pstrdup("");

	for (uint32 i = 0; i < all->map.shard_count; i++)
		if (a->shards[i])
			text = psprintf("%s%s%u", text, text[0] != '\0' ? ", " : "", i);
	return text;
}

static void
check_page_server(Report *r, const AskedAll *all, const Asked *a)
{
	static const char *const others[] = {
		"replay", "map", "tenant", "identity", "checksums", "version", "settings", "disk"
	};

	if (!a->answered)
	{
		nc_check_row(r, "page server", a->address, NC_CHECK_ERROR,
					 "See docs/operations.md, \"A page server is down\".", "of shard %s: %s",
					 shards_text(all, a), a->error);
		for (int i = 0; i < lengthof(others); i++)
			nc_check_row(r, others[i], a->address, NC_CHECK_UNKNOWN, NULL, "it did not answer");
		return;
	}
	nc_check_row(r, "page server", a->address, NC_CHECK_OK, NULL, "of shard %s: it answers",
				 shards_text(all, a));
	check_replay(r, a);
	check_map(r, all, a);
	check_tenant(r, a);
	check_identity(r, a);
	check_checksums(r, a);
	check_version(r, a);
	check_settings(r, a);
	check_disk(r, a);
	check_certificate(r, a);
}

/* ---- who counts for takeovers ---- */

static bool
is_there(const AskedAll *all, const NcId *member)
{
	char		id[NC_ID_TEXT];

	nc_id_text(member, id);
	for (uint32 i = 0; i < all->n; i++)
		if (all->at[i].answered && strcmp(told(&all->at[i], "member"), id) == 0)
			return true;
	return false;
}

/*
 * Page servers that nobody reads from are not in the map and cannot be asked, so only more
 * than are asked for tell that something is wrong.
 */
static void
check_list(Report *r, const AskedAll *all, const char *subject, const NcMembers *members)
{
	uint32		there = 0;

	for (uint32 i = 0; i < members->n; i++)
		there += is_there(all, &members->at[i].id);
	nc_check_row(r, "members", subject, there >= members->write_quorum ? NC_CHECK_OK :
				 all->n < members->n ? NC_CHECK_UNKNOWN : NC_CHECK_ERROR,
				 "Bring page servers back: fewer than the write quorum confirm no start and no commit.",
				 "%u of %u members answer, the write quorum is %u", there, members->n, members->write_quorum);
}

static void
check_members(Report *r, const AskedAll *all)
{
	NcPromise  *kept = palloc0(sizeof(NcPromise));
	const char *why = NULL;
	NcFileResult result = nc_promise_load(DataDir, NC_COMPUTE_MEMBERS, kept, &why);

	if (result == NC_FILE_ABSENT)
		return;
	if (result != NC_FILE_OK)
	{
		nc_check_row(r, "members", NC_COMPUTE_MEMBERS, NC_CHECK_ERROR,
					 "Bring the file back from a backup of this directory.", "cannot read it: %s",
					 why != NULL ? why : strerror(errno));
		return;
	}
	check_list(r, all, nc_members_change(&kept->members) ? "old members" : NC_COMPUTE_MEMBERS, &kept->members.now);
	if (nc_members_change(&kept->members))
		check_list(r, all, "new members", &kept->members.next);
}

void
nc_check_page_servers(Report *r, AskedAll *all)
{
	for (uint32 i = 0; i < all->n; i++)
		check_page_server(r, all, &all->at[i]);
	check_members(r, all);
}
