/*
 * recorder.c
 *	  Frames in memory, and the thread that writes them.
 *
 * The owner fills one frame after another round the array; a frame is the owner's
 * while it is OPEN and the thread's while it is SEALED.  Nobody takes a lock: each
 * frame's word passes it on, and a semaphore says that there is something to do.
 * The recorder has two holders, owner and thread; whoever lets go last frees it.
 */
#include "nc/record/recorder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "nc/base/file.h"

#define THREAD_STACK_BYTES (256 * 1024)

/* Recordings that one process may begin in one second. */
#define NAMES_MAX 100

/* Room that is kept for the last frame. */
#define END_BYTES 64

/* A recording for which there is less room is not begun. */
#define ROOM_BYTES_MIN (2 * NC_RECORD_FRAME_BYTES_MAX)

/* Looks while nc_recorder_leave() waits. */
#define LEAVE_LOOK_US 2000

typedef enum FrameState
{
	OPEN = 0,					/* the owner's */
	SEALED						/* the thread's */
} FrameState;

typedef struct Frame
{
	_Atomic uint32_t state;		/* FrameState; release by who gives it away, acquire by who takes it */
	uint32_t	bytes;
	uint32_t	records;
	uint8_t		buffer[NC_RECORD_FRAME_BYTES_MAX];
} Frame;

struct NcRecorder
{
	_Atomic int holders;		/* 2 at the start */
	NcRecorderSettings settings;
	sem_t		work;			/* something was sealed, or the end is wanted */
	Frame		frames[NC_RECORDER_FRAMES];

	/* the owner's */
	uint64_t	base_us;
	uint32_t	filling;		/* index of the frame */
	NcRecordWriter writer;		/* of that frame, if begun */
	NcRecordMap map;			/* of that frame */
	bool		begun;
	uint64_t	begun_us;
	bool		stopped;

	/* from owner to thread: why is stored before stop, with release */
	NcRecordWhy why;
	_Atomic uint32_t stop;
	_Atomic uint64_t dropped;

	/* the thread's */
	int			fd;
	uint32_t	writing;		/* index of the frame */
	uint64_t	room;			/* bytes that the file may have */

	/* from thread to owner; the texts are complete before the state that tells of them */
	_Atomic uint32_t state;		/* NcRecorderState */
	NcRecordWhy ended_why;
	_Atomic uint64_t records;
	_Atomic uint64_t bytes;
	char		path[NC_RECORDER_PATH_BYTES];
	char		error[NC_RECORDER_ERROR_BYTES];
};

static void
let_go(NcRecorder *r)
{
	/* pairs with itself, as that of a resolution: what one did comes before the other frees it */
	if (atomic_fetch_sub_explicit(&r->holders, 1, memory_order_acq_rel) != 1)
		return;
	sem_destroy(&r->work);
	free(r);
}

/* ---- the thread ---- */

static void
fail(NcRecorder *r, const char *what, const char *name, int error)
{
	snprintf(r->error, sizeof(r->error), "could not %s \"%.120s\": %s", what, name,
			 nc_file_error(error));
}

/* What is in the directory already; false: it cannot be read, error says why. */
static bool
sum_directory(NcRecorder *r, uint64_t *sum)
{
	const char *directory = r->settings.directory;
	size_t		suffix = strlen(NC_RECORDER_SUFFIX);
	DIR		   *dir;
	struct dirent *entry;
	struct stat st;

	*sum = 0;
	if (mkdir(directory, S_IRWXU) != 0 && errno != EEXIST)
	{
		fail(r, "make directory", directory, errno);
		return false;
	}
	dir = opendir(directory);
	if (dir == NULL)
	{
		fail(r, "read directory", directory, errno);
		return false;
	}
	while ((entry = readdir(dir)) != NULL)
	{
		size_t		n = strlen(entry->d_name);

		if (n > suffix && strcmp(entry->d_name + n - suffix, NC_RECORDER_SUFFIX) == 0 &&
			fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0)
			*sum += (uint64_t) st.st_size;
	}
	closedir(dir);
	return true;
}

/* A name that nobody has; false: error says why not. */
static bool
make_file(NcRecorder *r)
{
	time_t		now = (time_t) (r->settings.header.began_us / 1000000);
	struct tm	utc;
	char		when[32];
	char		more[16] = "";
	int			n;

	gmtime_r(&now, &utc);
	strftime(when, sizeof(when), "%Y%m%dT%H%M%SZ", &utc);
	for (int i = 2; i < NAMES_MAX; i++)
	{
		n = snprintf(r->path, sizeof(r->path), "%s/%s-%d%s%s", r->settings.directory, when, (int) getpid(),
					 more, NC_RECORDER_SUFFIX);
		if (n >= (int) sizeof(r->path))
			errno = ENAMETOOLONG;
		else
			r->fd = nc_file_open(r->path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, S_IRUSR | S_IWUSR);
		if (r->fd >= 0 || errno != EEXIST)
			break;
		snprintf(more, sizeof(more), "-%d", i);
	}
	if (r->fd >= 0)
		return true;
	fail(r, "make", r->path, errno);
	r->path[0] = '\0';
	return false;
}

static bool
write_all(NcRecorder *r, const uint8_t *data, size_t bytes)
{
	uint64_t	before = atomic_load_explicit(&r->bytes, memory_order_relaxed);

	for (size_t done = 0; done < bytes;)
	{
		ssize_t		n = write(r->fd, data + done, bytes - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
		{
			fail(r, "write", r->path, n < 0 ? errno : ENOSPC);
			/* half a frame is read as the end all the same: what cannot be cut off may stay */
			if (ftruncate(r->fd, (off_t) before) != 0)
				errno = 0;
			return false;
		}
		done += (size_t) n;
	}
	atomic_store_explicit(&r->bytes, before + bytes, memory_order_relaxed);
	return true;
}

static bool
begin_file(NcRecorder *r)
{
	uint8_t		bytes[256];
	NcWriter	w = nc_writer(bytes, sizeof(bytes));
	uint64_t	used;

	if (!sum_directory(r, &used))
		return false;
	if (used + ROOM_BYTES_MIN > r->settings.size_bytes)
	{
		snprintf(r->error, sizeof(r->error), "recordings in \"%.120s\" have all of the room that they may take",
				 r->settings.directory);
		return false;
	}
	r->room = r->settings.size_bytes - used;
	if (!make_file(r))
		return false;
	if (!nc_record_put_header(&w, &r->settings.header))
	{
		snprintf(r->error, sizeof(r->error), "tenant or timeline id is too long");
		return false;
	}
	return write_all(r, bytes, nc_writer_bytes(&w));
}

static bool
end_file(NcRecorder *r, NcRecordWhy why)
{
	uint8_t		bytes[END_BYTES];
	NcWriter	w = nc_writer(bytes, sizeof(bytes));
	NcRecordEnd end = {
		.why = why,
		.records = atomic_load_explicit(&r->records, memory_order_relaxed),
		.dropped = atomic_load_explicit(&r->dropped, memory_order_relaxed)
	};

	r->ended_why = why;
	return nc_record_put_end(&w, &end) && write_all(r, bytes, nc_writer_bytes(&w));
}

/* Until the end is wanted, or there is no room, or something fails; false: error says what. */
static bool
write_frames(NcRecorder *r)
{
	for (;;)
	{
		Frame	   *f = &r->frames[r->writing];
		/* before the frame is looked at: what was sealed before the stop is seen behind it */
		bool		stop = atomic_load_explicit(&r->stop, memory_order_acquire) != 0;

		if (atomic_load_explicit(&f->state, memory_order_acquire) == SEALED)
		{
			if (atomic_load_explicit(&r->bytes, memory_order_relaxed) + f->bytes + END_BYTES > r->room)
				return end_file(r, NC_RECORD_FULL);
			if (!write_all(r, f->buffer, f->bytes))
				return false;
			atomic_fetch_add_explicit(&r->records, f->records, memory_order_relaxed);
			atomic_store_explicit(&f->state, OPEN, memory_order_release);
			r->writing = (r->writing + 1) % NC_RECORDER_FRAMES;
		}
		else if (stop)
			return end_file(r, r->why);
		else
			while (sem_wait(&r->work) != 0 && errno == EINTR)
				;
	}
}

static void *
recorder_main(void *arg)
{
	NcRecorder *r = arg;
	bool		ok = begin_file(r);

	if (ok)
	{
		atomic_store_explicit(&r->state, NC_RECORDER_RUNNING, memory_order_release);
		ok = write_frames(r);
	}
	if (r->fd >= 0 && close(r->fd) != 0 && ok)
	{
		fail(r, "write", r->path, errno);
		ok = false;
	}
	atomic_store_explicit(&r->state, ok ? NC_RECORDER_ENDED : NC_RECORDER_FAILED, memory_order_release);
	let_go(r);
	return NULL;
}

/* The thread inherits the mask: no signal handler of the process may run in it. */
static bool
spawn(NcRecorder *r)
{
	pthread_attr_t attr;
	pthread_t	thread;
	sigset_t	all;
	sigset_t	saved;
	int			rc;

	if (pthread_attr_init(&attr) != 0)
		return false;
	(void) pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	(void) pthread_attr_setstacksize(&attr, THREAD_STACK_BYTES);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &saved);
	rc = pthread_create(&thread, &attr, recorder_main, r);
	pthread_sigmask(SIG_SETMASK, &saved, NULL);
	pthread_attr_destroy(&attr);
	return rc == 0;
}

/* ---- the owner ---- */

NcRecorder *
nc_recorder_start(const NcRecorderSettings *settings, uint64_t now_us)
{
	NcRecorder *r = calloc(1, sizeof(*r));

	if (r == NULL)
		return NULL;
	atomic_init(&r->holders, 2);
	r->settings = *settings;
	r->base_us = now_us;
	r->fd = -1;
	sem_init(&r->work, 0, 0);
	if (spawn(r))
		return r;
	sem_destroy(&r->work);
	free(r);
	return NULL;
}

static void
seal(NcRecorder *r)
{
	Frame	   *f = &r->frames[r->filling];

	f->bytes = (uint32_t) nc_record_seal(&r->writer);
	f->records = r->writer.count;
	r->begun = false;
	r->filling = (r->filling + 1) % NC_RECORDER_FRAMES;
	/* pairs with the thread's look */
	atomic_store_explicit(&f->state, SEALED, memory_order_release);
	sem_post(&r->work);
}

/* Is there a frame with this map to put into?  False: all wait for the disk. */
static bool
have_frame(NcRecorder *r, const NcRecordMap *map, uint64_t now_us)
{
	Frame	   *f;

	if (r->begun && (r->map.shards != map->shards || r->map.stripe_blocks != map->stripe_blocks))
		seal(r);
	if (r->begun)
		return true;
	f = &r->frames[r->filling];
	/* pairs with the thread's store: what it wrote out may be overwritten */
	if (atomic_load_explicit(&f->state, memory_order_acquire) != OPEN)
		return false;
	nc_record_begin(&r->writer, f->buffer, map);
	r->map = *map;
	r->begun = true;
	r->begun_us = now_us;
	return true;
}

void
nc_recorder_put(NcRecorder *r, const NcRecordMap *map, const NcRecord *record, uint64_t now_us)
{
	NcRecord	told = *record;

	if (r->stopped || record->start_us < r->base_us || !nc_record_is_sane(record))
		return;
	told.start_us -= r->base_us;
	if (have_frame(r, map, now_us))
	{
		if (nc_record_put(&r->writer, &told))
			return;
		seal(r);
		if (have_frame(r, map, now_us) && nc_record_put(&r->writer, &told))
			return;
	}
	atomic_fetch_add_explicit(&r->dropped, 1, memory_order_relaxed);
}

void
nc_recorder_turn(NcRecorder *r, uint64_t now_us)
{
	if (r->begun && now_us - r->begun_us >= NC_RECORDER_HOLD_US)
		seal(r);
}

void
nc_recorder_stop(NcRecorder *r, NcRecordWhy why)
{
	if (r->stopped)
		return;
	if (r->begun)
		seal(r);
	r->stopped = true;
	r->why = why;
	atomic_store_explicit(&r->stop, 1, memory_order_release);
	sem_post(&r->work);
}

void
nc_recorder_look(const NcRecorder *r, NcRecorderStatus *status)
{
	memset(status, 0, sizeof(*status));
	/* pairs with the thread's stores: texts are complete behind it */
	status->state = (NcRecorderState) atomic_load_explicit(&r->state, memory_order_acquire);
	status->records = atomic_load_explicit(&r->records, memory_order_relaxed);
	status->dropped = atomic_load_explicit(&r->dropped, memory_order_relaxed);
	status->bytes = atomic_load_explicit(&r->bytes, memory_order_relaxed);
	if (status->state == NC_RECORDER_STARTING)
		return;
	memcpy(status->path, r->path, sizeof(status->path));
	if (status->state == NC_RECORDER_ENDED)
		status->why = r->ended_why;
	else if (status->state == NC_RECORDER_FAILED)
		memcpy(status->error, r->error, sizeof(status->error));
}

void
nc_recorder_leave(NcRecorder *r, uint32_t wait_ms)
{
	nc_recorder_stop(r, NC_RECORD_EXIT);
	for (uint64_t waited = 0; waited < (uint64_t) wait_ms * 1000; waited += LEAVE_LOOK_US)
	{
		if (atomic_load_explicit(&r->state, memory_order_acquire) >= NC_RECORDER_ENDED)
			break;
		usleep(LEAVE_LOOK_US);
	}
	let_go(r);
}
