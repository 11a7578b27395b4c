/*
 * lwlsn_saved.c
 *	  The LSNs that pages must have, kept over a clean stop.
 *
 * The postmaster writes them as its last act, when nobody else is left, and the
 * next start takes them over if the control file says that nothing has happened
 * in between.  They are lower bounds: after that stop a page can only become
 * newer, but for relations and databases that are made anew; so a file that could
 * outlive the state it was written for must not be used.  It is taken away by
 * the start that looks at it, and names the checkpoint of its stop.
 */
#include "postgres.h"

#include <unistd.h>

#include "access/xlog.h"
#include "catalog/pg_control.h"
#include "common/controldata_utils.h"
#include "miscadmin.h"
#include "port/pg_crc32c.h"
#include "storage/fd.h"
#include "storage/ipc.h"

#include "nc/base/file.h"
#include "nc/shared/shmem.h"
#include "nc/smgr/lwlsn_saved.h"

#define MAGIC "ncvers1"

typedef struct Head
{
	char		magic[8];
	uint64		system_id;
	uint64		checkpoint_lsn;
	uint64		checkpoint_time;
	uint64		next_xid;
	uint64		items;
	uint32		items_crc;
	uint32		crc;			/* of all before */
} Head;

typedef struct Item
{
	uint32		spc;
	uint32		db;
	uint32		rel;
	uint32		block;
	uint64		exact;
} Item;

/* Names the stop that the control file tells of; false if it tells of none. */
static bool
describe_versions(Head *head)
{
	bool		crc_ok;
	ControlFileData *control = get_controlfile(DataDir, &crc_ok);
	bool		stopped = crc_ok && control->state == DB_SHUTDOWNED;

	*head = (Head) {
		.magic = MAGIC, .system_id = control->system_identifier,
		.checkpoint_lsn = control->checkPoint,
		.checkpoint_time = (uint64) control->checkPointCopy.time,
		.next_xid = U64FromFullTransactionId(control->checkPointCopy.nextXid)
	};
	pfree(control);
	return stopped;
}

static uint32
head_crc(const Head *head)
{
	pg_crc32c	crc;

	INIT_CRC32C(crc);
	COMP_CRC32C(crc, head, offsetof(Head, crc));
	FIN_CRC32C(crc);
	return crc;
}

/* ---- writing ---- */

/* What is known of this entry's page: 0 when its relation changed since. Nobody else runs. */
static NcLsn
bound_of(const NcLwMap *map, const NcLwEntry *e)
{
	NcPageKey	relation = {e->key.rel, NC_LW_RELATION};
	NcLsn		rel_nms = 0,
				unused = 0,
				nms,
				exact;
	bool		found = nc_lw_map_get(map, &relation, &rel_nms, &unused);

	nc_lw_combine(map, true, e->nms, e->exact, found, rel_nms, &nms, &exact);
	return exact;
}

static bool
write_items(FILE *file, const NcLwMap *map, Head *head)
{
	pg_crc32c	crc;

	INIT_CRC32C(crc);
	for (size_t i = 0; i < (size_t) map->nbuckets * NC_LW_BUCKET_ENTRIES; i++)
	{
		const NcLwEntry *e = &map->entries[i];
		Item		item = {e->key.rel.spc, e->key.rel.db, e->key.rel.rel, e->key.block, 0};

		if (!e->used || e->key.block == NC_LW_RELATION || e->exact == 0)
			continue;
		item.exact = bound_of(map, e);
		if (item.exact == 0)
			continue;
		COMP_CRC32C(crc, &item, sizeof(item));
		head->items++;
		if (fwrite(&item, sizeof(item), 1, file) != 1)
			return false;
	}
	FIN_CRC32C(crc);
	head->items_crc = crc;
	return true;
}

static bool
write_file(const char *path, const NcLwMap *map, Head *head)
{
	FILE	   *file = nc_file_fopen(path, "wb");
	Head		none = {.magic = ""};
	bool		ok = file != NULL;

	/* the head comes last: until then the file is nothing */
	ok = ok && fwrite(&none, sizeof(none), 1, file) == 1 && write_items(file, map, head);
	head->crc = head_crc(head);
	ok = ok && fseek(file, 0, SEEK_SET) == 0 && fwrite(head, sizeof(*head), 1, file) == 1;
	if (file != NULL && fclose(file) != 0)
		ok = false;
	return ok;
}

static void
save_lsns_at_stop(int code, Datum map)
{
	const char *temporary = NC_LWLSN_FILE ".new";
	Head		head;

	/* not after a crash; an immediate stop exits with 0 too, and then the control file tells */
	if (code != 0 || atomic_load(&nc_shared->lwlsn_ready) == 0 || !describe_versions(&head))
		return;
	if (write_file(temporary, (NcLwMap *) DatumGetPointer(map), &head) &&
		rename(temporary, NC_LWLSN_FILE) == 0)
		return;
	ereport(LOG,
			(errcode_for_file_access(),
			 errmsg("could not write file \"%s\": %m", temporary),
			 errdetail("The next start does not know how new pages must be.")));
	(void) unlink(temporary);
}

/* ---- reading ---- */

/* Goes over the items twice: first their checksum, then the map. */
static bool
read_lsn_items(FILE *file, const Head *head, NcLwMap *map)
{
	pg_crc32c	crc;
	Item		item;

	INIT_CRC32C(crc);
	for (uint64 i = 0; i < head->items; i++)
	{
		NcPageKey	key;

		if (fread(&item, sizeof(item), 1, file) != 1)
			return false;
		COMP_CRC32C(crc, &item, sizeof(item));
		key = (NcPageKey) {{item.spc, item.db, item.rel, NC_FORK_MAIN}, item.block};
		if (map != NULL)
			nc_lw_map_set(map, &key, item.exact, item.exact);
	}
	FIN_CRC32C(crc);
	return crc == head->items_crc;
}

/* Is the server about to go on exactly where that stop left it? */
static bool
lsns_are_unchanged(const Head *head)
{
	Head		now;

	return describe_versions(&now) && head->system_id == now.system_id &&
		head->checkpoint_lsn == now.checkpoint_lsn &&
		head->checkpoint_time == now.checkpoint_time && head->next_xid == now.next_xid &&
		access(RECOVERY_SIGNAL_FILE, F_OK) != 0 && access(STANDBY_SIGNAL_FILE, F_OK) != 0 &&
		access(BACKUP_LABEL_FILE, F_OK) != 0;
}

static void
take_over_lsns(FILE *file, NcLwMap *map)
{
	Head		head;

	if (fread(&head, sizeof(head), 1, file) != 1 ||
		memcmp(head.magic, MAGIC, sizeof(head.magic)) != 0 || head.crc != head_crc(&head) ||
		!lsns_are_unchanged(&head) || !read_lsn_items(file, &head, NULL) ||
		fseek(file, sizeof(head), SEEK_SET) != 0 || !read_lsn_items(file, &head, map))
		return;
	nc_stat(NC_COUNTER_VERSIONS_RESTORED, head.items);
}

void
nc_lwlsn_saved_startup(NcLwMap *map)
{
	static bool started_before = false;
	FILE	   *file = nc_file_fopen(NC_LWLSN_FILE, "rb");

	/* first: whatever happens from here on, this file is used once */
	if (file != NULL && unlink(NC_LWLSN_FILE) != 0)
		ereport(FATAL,
				(errcode_for_file_access(),
				 errmsg("could not remove file \"%s\": %m", NC_LWLSN_FILE)));
	if (file != NULL && !started_before)
		take_over_lsns(file, map);
	if (file != NULL)
		fclose(file);
	started_before = true;
	on_shmem_exit(save_lsns_at_stop, PointerGetDatum(map));
}
