/*
 * saved.c
 *	  The list of cached pages on disk: written at a clean stop and on request,
 *	  read at a start.
 *
 * At a clean stop the postmaster writes it as its last act, when nobody else is
 * left: the index, the cache file and the control file then belong together.  A
 * start takes the index over if the control file is still the one of that stop:
 * then no page can have changed.  Every block is compared with its checksum when
 * it is read, so the file needs no sync.
 */
#include "postgres.h"

#include <sys/stat.h>
#include <unistd.h>

#include "access/xlog.h"
#include "catalog/pg_control.h"
#include "common/controldata_utils.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/memutils.h"

#include "nc/base/file.h"
#include "nc/cache/lfc_list.h"
#include "nc/filecache/filecache.h"
#include "nc/shared/settings.h"

#include "filecache_int.h"

/* Heat classes of nc_lfc_list(): 0..7. */
#define HEAT_MAX 7

typedef struct Saver
{
	FILE	   *file;
	uint64		items;
	uint64		hash;
	bool		failed;
} Saver;

static void
save_item(Saver *s, const NcLfcItem *item)
{
	uint8		bytes[NC_LFC_LIST_ITEM_BYTES];

	nc_lfc_list_encode_item(item, bytes);
	s->hash = nc_lfc_list_hash(s->hash, bytes, sizeof(bytes));
	s->items++;
	if (fwrite(bytes, 1, sizeof(bytes), s->file) != sizeof(bytes))
		s->failed = true;
}

/* Class by class, so that the list is hottest first without being sorted here. */
static void
save_items(Saver *s)
{
	NcLfcItem	items[NC_LFC_WAYS];

	for (int heat = HEAT_MAX; heat >= 0; heat--)
	{
		for (uint32 set = 0; set < nc_lfc_nsets(nc_filecache_index) && !s->failed; set++)
		{
			uint32		n = nc_lfc_list(nc_filecache_index, set, items);

			for (uint32 i = 0; i < n; i++)
				if (items[i].heat == (uint32) heat)
					save_item(s, &items[i]);
		}
	}
}

/* Names of this cluster, and of the stop that its control file tells of. */
static bool
describe_list(NcLfcListHead *head)
{
	bool		crc_ok;
	ControlFileData *control = get_controlfile(DataDir, &crc_ok);
	bool		stopped = crc_ok && control->state == DB_SHUTDOWNED;

	memset(head, 0, sizeof(*head));
	head->system_id = control->system_identifier;
	strlcpy(head->tenant_id, nc_guc_tenant_id, sizeof(head->tenant_id));
	strlcpy(head->timeline_id, nc_guc_timeline_id, sizeof(head->timeline_id));
	head->checkpoint_lsn = control->checkPoint;
	head->checkpoint_time = (uint64) control->checkPointCopy.time;
	head->next_xid = U64FromFullTransactionId(control->checkPointCopy.nextXid);
	head->nsets = nc_lfc_nsets(nc_filecache_index);
	head->lanes = nc_lfc_lanes(nc_filecache_index);
	head->dev = atomic_load(&nc_filecache->dev);
	head->ino = atomic_load(&nc_filecache->ino);
	pfree(control);
	return stopped;
}

bool
nc_filecache_server_stopped(void)
{
	NcLfcListHead unused;

	return describe_list(&unused);
}

static bool
write_list(FILE *file, NcLfcListHead *head)
{
	Saver		s = {.file = file, .hash = NC_LFC_LIST_HASH_START};
	uint8		bytes[NC_LFC_LIST_HEAD_BYTES] = {0};

	/* the head comes last: until then the file is not a list */
	if (fwrite(bytes, 1, sizeof(bytes), file) != sizeof(bytes))
		return false;
	save_items(&s);
	head->items = s.items;
	head->items_hash = s.hash;
	nc_lfc_list_encode_head(head, bytes);
	return !s.failed && fseek(file, 0, SEEK_SET) == 0 &&
		fwrite(bytes, 1, sizeof(bytes), file) == sizeof(bytes) && fflush(file) == 0;
}

int64
nc_filecache_save(bool final, char *err, size_t err_bytes)
{
	char		temporary[MAXPGPATH];
	NcLfcListHead head;
	bool		stopped = describe_list(&head);
	FILE	   *file;
	const char *why;
	bool		ok;

	if (!nc_filecache_list_is_ours(&why))
	{
		snprintf(err, err_bytes, "\"%.90s\" %s and is left alone", nc_filecache_list_path(), why);
		return -1;
	}
	head.final = final && stopped;
	snprintf(temporary, sizeof(temporary), "%s.%d.tmp", nc_filecache_list_path(), MyProcPid);
	file = nc_file_fopen(temporary, "wb");
	ok = file != NULL && write_list(file, &head);
	if (!ok)
		snprintf(err, err_bytes, "could not write \"%s\": %s", temporary, nc_file_error(errno));
	if (file != NULL && fclose(file) != 0 && ok)
	{
		snprintf(err, err_bytes, "could not write \"%s\": %s", temporary, strerror(errno));
		ok = false;
	}
	if (ok && rename(temporary, nc_filecache_list_path()) != 0)
	{
		snprintf(err, err_bytes, "could not rename \"%s\": %s", temporary, strerror(errno));
		ok = false;
	}
	if (!ok)
		(void) unlink(temporary);
	return ok ? (int64) head.items : -1;
}

/* ---- reading ---- */

/* The head, with the file behind it; NULL and a reason. */
static FILE *
open_list(const char *path, NcLfcListHead *head, char *err, size_t err_bytes)
{
	FILE	   *file = nc_file_fopen(path, "rb");
	uint8		bytes[NC_LFC_LIST_HEAD_BYTES];
	struct stat st;

	if (file == NULL)
	{
		snprintf(err, err_bytes, "could not open \"%s\": %s", path, nc_file_error(errno));
		return NULL;
	}
	if (fread(bytes, 1, sizeof(bytes), file) == sizeof(bytes) &&
		nc_lfc_list_decode_head(bytes, head) && fstat(fileno(file), &st) == 0 &&
		head->items < MaxAllocHugeSize / sizeof(NcLfcItem) &&
		(uint64) st.st_size == sizeof(bytes) + head->items * NC_LFC_LIST_ITEM_BYTES)
		return file;
	snprintf(err, err_bytes, "\"%s\" is no list of cached pages, or damaged", path);
	fclose(file);
	return NULL;
}

/* All items, palloc'd; NULL when they are not what the head says. */
static NcLfcItem *
read_cache_items(FILE *file, const NcLfcListHead *head)
{
	NcLfcItem  *items = MemoryContextAllocExtended(CurrentMemoryContext,
												   Max(head->items, 1) * sizeof(NcLfcItem),
												   MCXT_ALLOC_HUGE | MCXT_ALLOC_NO_OOM);
	uint64		hash = NC_LFC_LIST_HASH_START;
	uint8		bytes[NC_LFC_LIST_ITEM_BYTES];
	uint64		i = 0;

	for (; items != NULL && i < head->items; i++)
	{
		if (fread(bytes, 1, sizeof(bytes), file) != sizeof(bytes))
			break;
		hash = nc_lfc_list_hash(hash, bytes, sizeof(bytes));
		nc_lfc_list_decode_item(bytes, &items[i]);
	}
	if (items != NULL && i == head->items && hash == head->items_hash)
		return items;
	if (items != NULL)
		pfree(items);
	return NULL;
}

/* Of this cluster, whatever its page servers are called. */
static bool
same_cluster(const NcLfcListHead *a, const NcLfcListHead *b)
{
	return a->system_id == b->system_id && strcmp(a->tenant_id, b->tenant_id) == 0 &&
		strcmp(a->timeline_id, b->timeline_id) == 0;
}

/* The items of a list of this cluster as they stand there, palloc'd; NULL and a reason. */
static NcLfcItem *
load_list(const char *path, uint64 *n, char *err, size_t err_bytes)
{
	NcLfcListHead head,
				here;
	FILE	   *file = open_list(path, &head, err, err_bytes);
	NcLfcItem  *items = NULL;

	if (file == NULL)
		return NULL;
	(void) describe_list(&here);
	if (!same_cluster(&head, &here))
		snprintf(err, err_bytes, "\"%s\" is the list of another cluster", path);
	else
	{
		items = read_cache_items(file, &head);
		if (items == NULL)
			snprintf(err, err_bytes, "\"%s\" is damaged", path);
	}
	fclose(file);
	*n = head.items;
	return items;
}

uint8 *
nc_filecache_list_bytes(size_t max, size_t *bytes, char *err, size_t err_bytes)
{
	NcLfcListHead head;
	FILE	   *file = open_list(nc_filecache_list_path(), &head, err, err_bytes);
	size_t		item_bytes;
	uint8	   *list;

	if (file == NULL)
		return NULL;
	head.items = Min(head.items, (max - NC_LFC_LIST_HEAD_BYTES) / NC_LFC_LIST_ITEM_BYTES);
	item_bytes = head.items * NC_LFC_LIST_ITEM_BYTES;
	*bytes = NC_LFC_LIST_HEAD_BYTES + item_bytes;
	list = palloc(*bytes);
	if (fread(list + NC_LFC_LIST_HEAD_BYTES, 1, item_bytes, file) != item_bytes)
	{
		snprintf(err, err_bytes, "could not read \"%s\": %s", nc_filecache_list_path(), nc_file_error(errno));
		fclose(file);
		pfree(list);
		return NULL;
	}
	fclose(file);
	head.final = false;
	head.items_hash = nc_lfc_list_hash(NC_LFC_LIST_HASH_START, list + NC_LFC_LIST_HEAD_BYTES, item_bytes);
	nc_lfc_list_encode_head(&head, list);
	return list;
}

NcLfcItem *
nc_filecache_load(uint64 *n, char *err, size_t err_bytes)
{
	NcLfcItem  *items = load_list(nc_filecache_list_path(), n, err, err_bytes);

	if (items != NULL)
		nc_lfc_list_sort(items, *n);
	return items;
}

bool
nc_filecache_take_list(const char *path, char *err, size_t err_bytes)
{
	uint64		n;
	NcLfcItem  *items = load_list(path, &n, err, err_bytes);

	if (items == NULL)
		return false;
	pfree(items);
	if (rename(path, nc_filecache_list_path()) == 0)
		return true;
	snprintf(err, err_bytes, "could not rename \"%s\": %s", path, strerror(errno));
	return false;
}

/* Is the server about to go on exactly where that stop left it? */
static bool
cache_is_unchanged(const NcLfcListHead *head)
{
	NcLfcListHead now;

	if (!describe_list(&now) || !head->final || !same_cluster(head, &now) ||
		head->checkpoint_lsn != now.checkpoint_lsn ||
		head->checkpoint_time != now.checkpoint_time || head->next_xid != now.next_xid ||
		head->nsets != now.nsets || head->lanes != now.lanes)
		return false;
	/* replay of an archive or a backup would change pages without a trace in the control file */
	return access(RECOVERY_SIGNAL_FILE, F_OK) != 0 && access(STANDBY_SIGNAL_FILE, F_OK) != 0 &&
		access(BACKUP_LABEL_FILE, F_OK) != 0;
}

static bool
is_cache_file(const NcLfcListHead *head)
{
	struct stat st;

	return stat(nc_filecache_path(), &st) == 0 && (uint64) st.st_dev == head->dev &&
		(uint64) st.st_ino == head->ino;
}

bool
nc_filecache_adopt(void)
{
	char		err[NC_FILECACHE_ERROR_BYTES];
	NcLfcListHead head;
	FILE	   *file = open_list(nc_filecache_list_path(), &head, err, sizeof(err));
	NcLfcItem  *items = NULL;
	uint64		taken = 0;

	if (file == NULL)
		return false;
	if (cache_is_unchanged(&head) && is_cache_file(&head))
		items = read_cache_items(file, &head);
	fclose(file);
	if (items == NULL)
	{
		ereport(LOG,
				(errmsg("neon_comm: the file cache starts empty"),
				 errdetail("Its list is not of the last clean stop with the same file and size.")));
		return false;
	}
	for (uint64 i = 0; i < head.items; i++)
		taken += nc_lfc_adopt(nc_filecache_index, &items[i]) ? 1 : 0;
	pfree(items);
	atomic_store(&nc_filecache->dev, head.dev);
	atomic_store(&nc_filecache->ino, head.ino);
	atomic_store(&nc_filecache->generation, 1);
	atomic_store(&nc_filecache->adopted, 1);
	nc_lfc_switch(nc_filecache_index, true);
	ereport(LOG, (errmsg("neon_comm: the file cache goes on with " UINT64_FORMAT " pages of the last stop",
						 taken)));
	return true;
}
