/*
 * shared.c
 *	  Shared memory of the WAL feed: the doorbell and the rows of its view.
 *
 * The feed writes, any process reads.  Guarantees that a ring is not lost: the
 * feed announces that it sleeps and then looks at the wish once more, a backend
 * says what it wants and then looks whether the feed sleeps, each with a full
 * barrier in between.  Nobody ever waits here: a reader of a row that the feed left half
 * written takes it as it is after a bounded number of looks.
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "port/atomics.h"
#include "replication/slot.h"
#include "replication/walsender.h"
#include "storage/shmem.h"

#include "feed_internal.h"
#include "nc/base/clock.h"
#include "nc/shared/shmem.h"

#define ROW_READ_ATTEMPTS 1000

/* As replication/slot.c writes a slot: magic, checksum, version, length, then what persists. */
#define SLOT_FILE_MAGIC 0x1051CA1
#define SLOT_FILE_HEAD 4

typedef struct FeedRow
{
	pg_atomic_uint32 version;	/* odd while the feed writes */
	NcFeedPeer	peer;
} FeedRow;

typedef struct FeedShared
{
	pg_atomic_uint32 sleeping;

	/* Every streaming page server has been sent WAL up to here; all ones when none streams. */
	pg_atomic_uint64 sent;

	/* The furthest position that somebody rang for. */
	pg_atomic_uint64 wanted;

	/* Positions of the slowest page servers, by kind of lag; all ones when none counts. */
	pg_atomic_uint64 lowest[NC_LAG_KINDS];
	pg_atomic_uint64 limit[NC_LAG_KINDS];	/* bytes, 0 = none */

	/* Of the feed's last turn: when it was, and how far WAL may be sent. */
	pg_atomic_uint64 heartbeat_us;
	pg_atomic_uint64 end;
	pg_atomic_uint32 in_recovery;

	/* Taken of max_wal_senders. */
	pg_atomic_uint32 places;

	/* Logins go on; until then so many page servers have confirmed WAL up to there. */
	pg_atomic_uint32 let_in;
	pg_atomic_uint32 confirmed;
	pg_atomic_uint32 needed;
	pg_atomic_uint64 confirmed_end;
	NcFeedChange change;
	int			nrows;
	FeedRow		rows[FLEXIBLE_ARRAY_MEMBER];
} FeedShared;

static FeedShared *shared = NULL;

/* Made once by the postmaster and inherited by all, also by those after a crash restart. */
static int	doorbell = -1;

void
nc_feed_doorbell_create(void)
{
	if (doorbell >= 0)
		return;
	doorbell = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (doorbell < 0)
		ereport(FATAL,
				(errcode_for_file_access(),
				 errmsg("neon_comm could not create the doorbell of its WAL feed: %m")));
}

int
nc_feed_doorbell(void)
{
	return doorbell;
}

/* Also for the worker's signal handlers: write() is safe there. */
void
nc_feed_doorbell_press(void)
{
	uint64		one = 1;
	int			saved_errno = errno;
	ssize_t		written pg_attribute_unused() = write(doorbell, &one, sizeof(one));

	errno = saved_errno;
}

void
nc_feed_doorbell_answer(void)
{
	uint64		count;
	ssize_t		got pg_attribute_unused() = read(doorbell, &count, sizeof(count));
}

/* Page servers may be added while the server runs. */
static int
rows_wanted(void)
{
	return nc_feed_port == 0 ? 0 : NC_FEED_SLOTS_MAX;
}

Size
nc_feed_shmem_bytes(void)
{
	return MAXALIGN(offsetof(FeedShared, rows) + rows_wanted() * sizeof(FeedRow));
}

/*
 * Where the slot stands that the server is going to restore, 0 = there is none.  The
 * startup process judges the file; a wrong answer here is at worst a position too
 * early, whose WAL is looked for before anything is done.
 */
static XLogRecPtr
slot_on_disk(const char *name)
{
	struct
	{
		uint32		head[SLOT_FILE_HEAD];
		ReplicationSlotPersistentData data;
	}			file;
	char		path[MAXPGPATH];
	ssize_t		got;
	int			fd;

	snprintf(path, sizeof(path), "pg_replslot/%s/state", name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return InvalidXLogRecPtr;
	got = read(fd, &file, sizeof(file));
	close(fd);
	if (got != sizeof(file) || file.head[0] != SLOT_FILE_MAGIC ||
		strncmp(NameStr(file.data.name), name, NAMEDATALEN) != 0 ||
		file.data.database != InvalidOid || file.data.persistency != RS_PERSISTENT)
		return InvalidXLogRecPtr;
	return file.data.restart_lsn;
}

void
nc_feed_shmem_startup(void)
{
	bool		found;

	shared = ShmemInitStruct("neon_comm WAL feed", nc_feed_shmem_bytes(), &found);
	if (found)
		return;
	memset(shared, 0, nc_feed_shmem_bytes());
	pg_atomic_init_u32(&shared->sleeping, 0);
	pg_atomic_init_u64(&shared->sent, PG_UINT64_MAX);
	pg_atomic_init_u64(&shared->wanted, 0);
	for (int i = 0; i < NC_LAG_KINDS; i++)
	{
		pg_atomic_init_u64(&shared->lowest[i], PG_UINT64_MAX);
		pg_atomic_init_u64(&shared->limit[i], 0);
	}
	pg_atomic_init_u64(&shared->heartbeat_us, 0);
	pg_atomic_init_u64(&shared->end, 0);
	pg_atomic_init_u32(&shared->in_recovery, 0);
	pg_atomic_init_u32(&shared->places, 0);
	pg_atomic_init_u32(&shared->let_in, 0);
	pg_atomic_init_u32(&shared->confirmed, 0);
	pg_atomic_init_u32(&shared->needed, 0);
	nc_feed_change_init(&shared->change);
	pg_atomic_init_u64(&shared->confirmed_end, 0);
	shared->nrows = rows_wanted();
	for (int i = 0; i < shared->nrows; i++)
		pg_atomic_init_u32(&shared->rows[i].version, 0);
	for (int i = 0; i < Min(nc_feed_listed.count, shared->nrows); i++)
	{
		NcFeedPeer *peer = &shared->rows[i].peer;

		strlcpy(peer->name, nc_feed_listed.names[i], NAMEDATALEN);
		strlcpy(peer->state, "absent", NC_FEED_STATE_BYTES);
		peer->retained_from = slot_on_disk(peer->name);
	}
}

/* No wish may hide a further one. */
static void
raise_wanted(XLogRecPtr lsn)
{
	uint64		wanted = pg_atomic_read_u64(&shared->wanted);

	while (wanted < lsn &&
		   !pg_atomic_compare_exchange_u64(&shared->wanted, &wanted, lsn))
		;
	pg_memory_barrier();
}

void
nc_feed_ring(XLogRecPtr lsn)
{
	if (shared == NULL || lsn <= pg_atomic_read_u64(&shared->sent))
		return;
	raise_wanted(lsn);
	if (pg_atomic_read_u32(&shared->sleeping) != 0 &&
		pg_atomic_exchange_u32(&shared->sleeping, 0) != 0)
	{
		nc_stat(NC_COUNTER_FEED_RINGS, 1);
		nc_feed_doorbell_press();
	}
}

/* Says that the feed sleeps from now on; true when somebody wants more than was sent. */
bool
nc_feed_sleep_begin(void)
{
	pg_atomic_write_u32(&shared->sleeping, 1);
	pg_memory_barrier();
	return pg_atomic_read_u64(&shared->wanted) > pg_atomic_read_u64(&shared->sent);
}

void
nc_feed_sleep_end(void)
{
	pg_atomic_write_u32(&shared->sleeping, 0);
}

void
nc_feed_publish_turn(const NcFeedLimit *limit)
{
	pg_atomic_write_u64(&shared->heartbeat_us, nc_clock_us());
	pg_atomic_write_u64(&shared->end, limit->lsn);
	pg_atomic_write_u32(&shared->in_recovery, limit->in_recovery);
}

NcFeedHealth
nc_feed_health(void)
{
	if (shared == NULL)
		return (NcFeedHealth) {0};
	return (NcFeedHealth)
	{
		.heartbeat_us = pg_atomic_read_u64(&shared->heartbeat_us),
		.end = pg_atomic_read_u64(&shared->end),
		.in_recovery = pg_atomic_read_u32(&shared->in_recovery) != 0,
		.let_in = pg_atomic_read_u32(&shared->let_in) != 0
	};
}

void
nc_feed_publish_sent(XLogRecPtr lsn)
{
	if (pg_atomic_read_u64(&shared->sent) != lsn)
		pg_atomic_write_u64(&shared->sent, lsn);
}

void
nc_feed_publish_lowest(NcLagKind kind, XLogRecPtr lsn, uint64 limit)
{
	if (pg_atomic_read_u64(&shared->limit[kind]) != limit)
		pg_atomic_write_u64(&shared->limit[kind], limit);
	if (pg_atomic_read_u64(&shared->lowest[kind]) != lsn)
		pg_atomic_write_u64(&shared->lowest[kind], lsn);
}

XLogRecPtr
nc_feed_lowest(NcLagKind kind, uint64 *limit)
{
	*limit = shared == NULL ? 0 : pg_atomic_read_u64(&shared->limit[kind]);
	return shared == NULL ? PG_UINT64_MAX : pg_atomic_read_u64(&shared->lowest[kind]);
}

bool
nc_feed_place_take(void)
{
	if (pg_atomic_fetch_add_u32(&shared->places, 1) < (uint32) max_wal_senders)
		return true;
	nc_feed_place_give();
	return false;
}

void
nc_feed_place_give(void)
{
	pg_atomic_fetch_sub_u32(&shared->places, 1);
}

/* NULL: there is no feed. */
NcFeedChange *
nc_feed_change(void)
{
	return nc_feed_port == 0 || shared == NULL ? NULL : &shared->change;
}

bool
nc_feed_let_in(int *confirmed, int *needed, XLogRecPtr *end)
{
	if (needed != NULL)
		*needed = (int) pg_atomic_read_u32(&shared->needed);
	if (confirmed != NULL)
		*confirmed = (int) pg_atomic_read_u32(&shared->confirmed);
	if (end != NULL)
		*end = pg_atomic_read_u64(&shared->confirmed_end);
	return pg_atomic_read_u32(&shared->let_in) != 0;
}

void
nc_feed_let_in_set(int confirmed, int needed, XLogRecPtr end, bool in)
{
	pg_atomic_write_u32(&shared->needed, needed);
	pg_atomic_write_u32(&shared->confirmed, confirmed);
	pg_atomic_write_u64(&shared->confirmed_end, end);
	if (in)
		pg_atomic_write_u32(&shared->let_in, 1);
}

void
nc_feed_row_read(int index, NcFeedPeer *row)
{
	FeedRow    *source = &shared->rows[index];

	for (int i = 0; i < ROW_READ_ATTEMPTS; i++)
	{
		uint32		before = pg_atomic_read_u32(&source->version);

		pg_read_barrier();
		memcpy(row, &source->peer, sizeof(*row));
		pg_read_barrier();
		if ((before & 1) == 0 && pg_atomic_read_u32(&source->version) == before)
			break;
	}
	/* A torn row must still hold strings. */
	row->name[sizeof(row->name) - 1] = '\0';
	row->address[sizeof(row->address) - 1] = '\0';
	row->state[sizeof(row->state) - 1] = '\0';
	row->reason[sizeof(row->reason) - 1] = '\0';
}

/* Only the feed writes. A version left odd by a feed that died is evened out by the next. */
void
nc_feed_row_write(int index, const NcFeedPeer *row)
{
	FeedRow    *target = &shared->rows[index];
	uint32		version = pg_atomic_read_u32(&target->version) | 1;

	if (memcmp(&target->peer, row, sizeof(*row)) == 0 &&
		(pg_atomic_read_u32(&target->version) & 1) == 0)
		return;
	pg_atomic_write_u32(&target->version, version);
	pg_write_barrier();
	memcpy(&target->peer, row, sizeof(*row));
	pg_write_barrier();
	pg_atomic_write_u32(&target->version, version + 1);
}

int
nc_feed_peers(NcFeedPeer *rows, int max)
{
	int			n = 0;

	/* a row without a name is of nobody */
	for (int i = 0; shared != NULL && i < shared->nrows && n < max; i++)
	{
		nc_feed_row_read(i, &rows[n]);
		n += rows[n].name[0] != '\0';
	}
	return n;
}
