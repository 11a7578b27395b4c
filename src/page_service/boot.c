/*
 * boot.c
 *	  Query basebackup: what a new compute begins with.  docs/boot.md.
 *
 * Runs in page service workers.  A session that has asked for an image waits,
 * parked, until replay is where it wants it; then the worker gathers the image into
 * a file without a name (boot_gather.c), and sends that as its client takes it.  The
 * query's message stays in the receive buffer all the while, so nothing else of the
 * session is handled.
 *
 * Never raises: an ERROR on the way is an error of the query.  One file and, with
 * --gzip, a quarter of a megabyte are all that an image costs.
 */
#include "page_service.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "access/xlogrecovery.h"
#include "common/file_perm.h"
#include "miscadmin.h"
#include "replication/walreceiver.h"
#include "storage/fd.h"
#include "utils/memutils.h"

#include "nc/identity/wal_record.h"

/* Replay is looked at so often. */
#define LOOK_US 1000

/* Content of one message; it fits behind what the door lets wait. */
#define CHUNK_BYTES (32 * 1024)

#define ERROR_TEXT_BYTES 1024

#define FILE_NAME "neon_page_service.boot"

typedef enum BootPhase
{
	BOOT_WAITS = 0,				/* for replay; successor SENDS */
	BOOT_SENDS
} BootPhase;

typedef struct NcSvcBoot
{
	BootPhase	phase;
	XLogRecPtr	lsn;			/* replay must be there; 0 = where all is that was received */
	bool		gzip;
	bool		live;			/* a compute that is there is no reason not to */
	NcSvcBootWish wish;
	TimestampTz until;			/* WAITS: then it is refused */
	int			fd;				/* SENDS: the image, of so many bytes; -1 = none */
	off_t		bytes;
	off_t		sent;
	z_stream	zip;			/* SENDS, gzip */
	bool		zipping;
	char		in[CHUNK_BYTES];
} NcSvcBoot;

/* What a chunk is read into before it is compressed has its own room; see above. */
StaticAssertDecl(CHUNK_BYTES + 1024 < NC_SVC_ANSWER_BYTES, "a message of an image fits");

/* Used while an image is gathered. */
static MemoryContext boot_context;

void
nc_svc_boot_init(void)
{
	boot_context = AllocSetContextCreate(TopMemoryContext, "neon boot image", ALLOCSET_DEFAULT_SIZES);
}

void
nc_svc_boot_forget(NcSvcSession *s)
{
	if (s->boot == NULL)
		return;
	if (s->boot->fd >= 0)
		close(s->boot->fd);
	if (s->boot->zipping)
		(void) deflateEnd(&s->boot->zip);
	pfree(s->boot);
	s->boot = NULL;
}

/* ---- the query ---- */

static bool
parse_lsn(const NcSvcWord *word, XLogRecPtr *lsn)
{
	char		text[32];
	uint32		high;
	uint32		low;
	int			n = 0;

	if (word->length >= sizeof(text))
		return false;
	memcpy(text, word->text, word->length);
	text[word->length] = '\0';
	if (strspn(text, "0123456789abcdefABCDEF/") != word->length ||
		sscanf(text, "%8X/%8X%n", &high, &low, &n) != 2 || n != word->length)
		return false;
	*lsn = (XLogRecPtr) high << 32 | low;
	return *lsn != InvalidXLogRecPtr;
}

/* What is wrong with the words behind tenant and timeline, or NULL. */
static const char *
parse_wish(NcSvcBoot *boot, const NcSvcWord *words, int n)
{
	int			i = 0;

	if (n > 0 && words[0].text[0] != '-')
	{
		if (!nc_svc_word_is(&words[0], "latest") && !parse_lsn(&words[0], &boot->lsn))
			return "the third argument of basebackup is an LSN or \"latest\"";
		i = 1;
	}
	for (; i < n; i++)
	{
		if (nc_svc_word_is(&words[i], "--gzip") && !boot->gzip)
			boot->gzip = true;
		else if (nc_svc_word_is(&words[i], "--live") && !boot->live)
			boot->live = true;
		else if (nc_svc_word_is(&words[i], "--wal-from") && boot->wish.wal_from == 0 && i + 1 < n &&
				 parse_lsn(&words[i + 1], &boot->wish.wal_from))
			i++;
		else
			return "basebackup takes a tenant id, a timeline id, an LSN or \"latest\", and then --gzip, "
				"--wal-from LSN and --live, each once";
	}
	return NULL;
}

/* Is a compute connected? The walreceiver says "streaming" before it has tried. */
static bool
is_streamed_to(void)
{
	bool		streams;

	SpinLockAcquire(&WalRcv->mutex);
	streams = WalRcv->walRcvState == WALRCV_STREAMING && WalRcv->ready_to_display;
	SpinLockRelease(&WalRcv->mutex);
	return streams;
}

/* Why there is no image to be had from this page server now, or NULL. */
static const char *
refusal(const NcSvcBoot *boot, const char **sqlstate, char *room, size_t bytes)
{
	NcSvcJoins	joins;

	*sqlstate = "55000";
	if (!RecoveryInProgress())
		return "this server is not a standby, it has no boot image";
	if (!nc_svc_identity_follows())
		return "this page server follows no compute (neon_page_service.allow_any_primary)";
	if (nc_svc_lazy_replay)
		return "neon_page_service.lazy_replay is on: replay is behind on purpose";
	nc_svc_joins_get(&joins);
	if (joins.standing == NC_SVC_STANDING_ENDED || joins.reason[0] != '\0')
	{
		snprintf(room, bytes, "this page server and its compute have parted, or may have: %s", joins.reason);
		return room;
	}
	*sqlstate = "57P03";
	if (!nc_svc_source_consistent())
	{
		strlcpy(room, "recovery of this page server is not consistent yet: ", bytes);
		nc_svc_source_describe_replay(room + strlen(room), bytes - strlen(room));
		return room;
	}
	*sqlstate = "55006";
	if (!boot->live && is_streamed_to())
		return "a compute is connected to this page server: stop it, or say --live";
	return NULL;
}

static bool
refuse_boot(NcSvcSession *s, const NcSvcBoot *boot)
{
	char		room[NC_JOIN_TEXT_BYTES + 128];
	const char *sqlstate;
	const char *why = refusal(boot, &sqlstate, room, sizeof(room));

	if (why == NULL)
		return false;
	nc_svc_session_refuse(s, sqlstate, why, NULL);
	return true;
}

void
nc_svc_boot_begin(NcSvcSession *s, const NcSvcWord *words, int n, TimestampTz now)
{
	NcSvcBoot	wanted = {.fd = -1};
	const char *wrong;

	if (n < 2)
	{
		nc_svc_session_refuse(s, "XX000", "basebackup takes a tenant id and a timeline id", NULL);
		return;
	}
	if (!nc_svc_session_accepts(s, &words[0], &words[1]))
		return;
	wrong = parse_wish(&wanted, words + 2, n - 2);
	if (wrong != NULL)
	{
		nc_svc_session_refuse(s, "XX000", wrong, NULL);
		return;
	}
	if (refuse_boot(s, &wanted))
		return;
	wanted.until = TimestampTzPlusMilliseconds(now, nc_svc_wait_lsn_timeout);
	s->boot = MemoryContextAllocExtended(TopMemoryContext, sizeof(NcSvcBoot), MCXT_ALLOC_NO_OOM);
	if (s->boot == NULL)
		nc_svc_session_refuse(s, "53200", "out of memory", NULL);
	else
		memcpy(s->boot, &wanted, sizeof(wanted));
}

/* ---- waiting ---- */

static NcWalRead
read_own_wal(void *arg, NcLsn at, size_t bytes, uint8_t *to)
{
	char		path[MAXPGPATH];
	XLogSegNo	segment;
	ssize_t		got;
	int			fd;

	XLByteToSeg(at, segment, wal_segment_size);
	XLogFilePath(path, *(TimeLineID *) arg, segment, wal_segment_size);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return NC_WAL_GONE;
	got = pg_pread(fd, to, bytes, XLogSegmentOffset(at, wal_segment_size));
	close(fd);
	return got == (ssize_t) bytes ? NC_WAL_OK : NC_WAL_GONE;
}

/*
 * Has everything been replayed that was received?  Of a record at the end there may be
 * a part only: then its length says so.
 */
bool
nc_svc_boot_replayed_all(void)
{
	TimeLineID	timeline;
	XLogRecPtr	replayed = GetXLogReplayRecPtr(&timeline);
	XLogRecPtr	received = GetWalRcvFlushRecPtr(NULL, NULL);
	NcWalSource source = {read_own_wal, &timeline, wal_segment_size};
	uint8_t		header[NC_WAL_HEADER_BYTES];
	XLogRecPtr	start = replayed;
	XLogRecPtr	end;

	/* until a walreceiver was asked for, pg_wal has more */
	if (pg_atomic_read_u32(&nc_svc_shared->came_to_end) == 0)
		return false;
	if (replayed >= received)
		return true;
	if (start % XLOG_BLCKSZ == 0)
		start += XLogSegmentOffset(start, wal_segment_size) == 0 ? SizeOfXLogLongPHD : SizeOfXLogShortPHD;
	if (start + NC_WAL_HEADER_BYTES > received ||
		nc_wal_read_header(&source, start, header) != NC_WAL_OK)
		return true;
	end = nc_wal_record_end(start, header, wal_segment_size);
	return end == 0 || end > received;
}

static bool
is_there_yet(const NcSvcBoot *boot)
{
	if (boot->lsn != InvalidXLogRecPtr)
		return GetXLogReplayRecPtr(NULL) >= boot->lsn;
	return nc_svc_boot_replayed_all();
}

static void
refuse_late(NcSvcSession *s)
{
	char		text[ERROR_TEXT_BYTES];

	snprintf(text, sizeof(text), "LSN timeout: waited %d ms for ", nc_svc_wait_lsn_timeout);
	if (s->boot->lsn == InvalidXLogRecPtr)
		strlcat(text, "the end of what was received", sizeof(text));
	else
		snprintf(text + strlen(text), sizeof(text) - strlen(text), NC_LSN_FMT, NC_LSN_ARGS(s->boot->lsn));
	strlcat(text, "; ", sizeof(text));
	nc_svc_source_describe_replay(text + strlen(text), sizeof(text) - strlen(text));
	nc_svc_session_refuse(s, "XX000", text, NULL);
}

/* ---- gathering ---- */

/* A file in the data directory that goes away with its descriptor. */
static int
open_nameless(const char *suffix)
{
	char		name[MAXPGPATH];
	int			fd;

	snprintf(name, sizeof(name), FILE_NAME ".%d%s", nc_svc_worker_index, suffix);
	/* one that a killed worker left is ours */
	(void) unlink(name);
	fd = open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, pg_file_create_mode);
	if (fd < 0 || unlink(name) != 0)
	{
		int			saved = errno;

		if (fd >= 0)
			close(fd);
		errno = saved;
		ereport(ERROR, (errcode_for_file_access(), errmsg("could not make the file of a boot image: %m")));
	}
	return fd;
}

/* True: the image is in the file. Otherwise text says why not. */
static bool
gather_caught(NcSvcBoot *boot, char text[ERROR_TEXT_BYTES])
{
	volatile int forks_fd = -1;
	volatile bool done = false;

	PG_TRY();
	{
		boot->fd = open_nameless("");
		forks_fd = open_nameless(".forks");
		boot->bytes = nc_svc_boot_gather(boot->fd, forks_fd, &boot->wish);
		done = true;
	}
	PG_CATCH();
	{
		nc_svc_source_recover(boot_context, text, ERROR_TEXT_BYTES);
		pg_atomic_write_u32(&nc_svc_shared->cut_wanted, 0);
	}
	PG_END_TRY();
	if (forks_fd >= 0)
		close(forks_fd);
	return done;
}

static bool
gather_image(NcSvcSession *s)
{
	MemoryContext caller = MemoryContextSwitchTo(boot_context);
	char		text[ERROR_TEXT_BYTES] = "";
	bool		done = gather_caught(s->boot, text);

	MemoryContextSwitchTo(caller);
	MemoryContextReset(boot_context);
	if (!done)
		nc_svc_session_refuse(s, "XX000", text, NULL);
	return done;
}

/* ---- sending ---- */

static bool
start_sending(NcSvcSession *s)
{
	NcSvcBoot  *boot = s->boot;
	NcWriter	w;

	if (boot->gzip)
	{
		/* 16: with gzip's head and tail */
		boot->zipping = deflateInit2(&boot->zip, Z_BEST_SPEED, Z_DEFLATED, MAX_WBITS + 16, 8,
									 Z_DEFAULT_STRATEGY) == Z_OK;
		if (!boot->zipping)
		{
			nc_svc_session_refuse(s, "53200", "out of memory", NULL);
			return false;
		}
	}
	w = nc_visitor_writer(&s->v);
	nc_session_copy_out(&w);
	nc_visitor_commit(&s->v, &w);
	boot->phase = BOOT_SENDS;
	return true;
}

/* The next bytes of the file; false when it cannot be read. */
static bool
read_chunk(NcSvcBoot *boot, size_t *bytes)
{
	*bytes = Min((off_t) sizeof(boot->in), boot->bytes - boot->sent);
	if (pg_pread(boot->fd, boot->in, *bytes, boot->sent) != *bytes)
		return false;
	boot->sent += *bytes;
	return true;
}

/* What zlib has to say now goes into the message; true when that was the last of it. */
static bool
zip_chunk(NcSvcBoot *boot, NcWriter *w, size_t room)
{
	uint8_t    *to = w->at;
	int			flush = boot->sent == boot->bytes ? Z_FINISH : Z_NO_FLUSH;
	int			rc;

	boot->zip.next_out = to;
	boot->zip.avail_out = room;
	rc = deflate(&boot->zip, flush);
	(void) nc_write_space(w, room - boot->zip.avail_out);
	return rc == Z_STREAM_END;
}

/* One message; true when nothing is left to send.  False in *ok: the file cannot be read. */
static bool
send_chunk(NcSvcSession *s, bool *ok)
{
	NcSvcBoot  *boot = s->boot;
	NcWriter	w = nc_visitor_writer(&s->v);
	uint8_t    *start = w.at;
	uint8_t    *length_at = nc_frame_begin(&w, 'd');
	size_t		bytes = 0;
	bool		last;

	*ok = true;
	if (!boot->gzip || boot->zip.avail_in == 0)
		*ok = read_chunk(boot, &bytes);
	if (!boot->gzip)
	{
		nc_write_bytes(&w, boot->in, bytes);
		last = boot->sent == boot->bytes;
	}
	else
	{
		if (bytes > 0)
		{
			boot->zip.next_in = (Bytef *) boot->in;
			boot->zip.avail_in = bytes;
		}
		last = zip_chunk(boot, &w, CHUNK_BYTES);
	}
	nc_frame_end(&w, length_at);
	/* zlib may keep what it got: no message without content */
	if (*ok && w.at > start + 5)
		nc_visitor_commit(&s->v, &w);
	return last;
}

static void
say_sent(NcSvcSession *s)
{
	NcWriter	w = nc_visitor_writer(&s->v);

	nc_session_copy_done(&w);
	nc_session_command_complete(&w, "SELECT 1");
	nc_session_ready(&w);
	nc_visitor_commit(&s->v, &w);
}

/* ---- a step ---- */

/* True when the session has nothing more to do with it. */
static bool
send_step(NcSvcSession *s)
{
	bool		ok;
	bool		last = send_chunk(s, &ok);

	if (!ok)
		nc_svc_session_refuse(s, "58030", "the file of the boot image could not be read", NULL);
	else if (last)
		say_sent(s);
	return !ok || last;
}

static bool
wait_step(NcSvcSession *s, TimestampTz now, NcStep *step)
{
	if (refuse_boot(s, s->boot))
		return true;
	if (is_there_yet(s->boot))
		return !gather_image(s) || !start_sending(s);
	if (now >= s->boot->until)
	{
		refuse_late(s);
		return true;
	}
	s->resume_at = now + LOOK_US;
	*step = NC_STEP_PARK;
	return false;
}

NcStep
nc_svc_boot_step(NcSvcSession *s, TimestampTz now)
{
	NcStep		step = NC_STEP_MORE;
	bool		over = s->boot->phase == BOOT_SENDS ? send_step(s) : wait_step(s, now, &step);

	if (over)
		nc_svc_boot_forget(s);
	return step;
}
