/*
 * nc/record/recorder.h
 *	  NcRecorder: writes a recording while its owner must not wait for a disk.
 *
 * The owner, one thread, puts records into frames in memory.  A thread of the
 * recorder's own makes the file and writes what is full.  When the disk is slower
 * than requests come, records are dropped and counted; whatever is wrong with the
 * file ends the recording and nothing else.
 *
 * No call here waits, but for nc_recorder_leave(), which says how long.
 */
#ifndef NC_RECORD_RECORDER_H
#define NC_RECORD_RECORDER_H

#include "nc/record/format.h"

/* How files of recordings end; those in the directory share the size that is allowed. */
#define NC_RECORDER_SUFFIX ".ncrec"

#define NC_RECORDER_PATH_BYTES 1024
#define NC_RECORDER_ERROR_BYTES 256

/* Frames between owner and thread; what they hold is all that can wait for the disk. */
#define NC_RECORDER_FRAMES 16

/* What has been in memory for so long is handed to the thread, full or not. */
#define NC_RECORDER_HOLD_US 1000000

typedef struct NcRecorder NcRecorder;

typedef struct NcRecorderSettings
{
	char		directory[NC_RECORDER_PATH_BYTES];	/* is made if it is missing, what is above it is not */
	uint64_t	size_bytes;		/* of all recordings in it together */
	NcRecordHeader header;
} NcRecorderSettings;

typedef enum NcRecorderState
{
	NC_RECORDER_STARTING = 0,
	NC_RECORDER_RUNNING,
	NC_RECORDER_ENDED,			/* the file is complete */
	NC_RECORDER_FAILED			/* error says why; what was written until then can be read */
} NcRecorderState;

typedef struct NcRecorderStatus
{
	NcRecorderState state;
	NcRecordWhy why;			/* ENDED */
	uint64_t	records;		/* in the file */
	uint64_t	dropped;
	uint64_t	bytes;			/* of the file */
	char		path[NC_RECORDER_PATH_BYTES];	/* empty until there is one */
	char		error[NC_RECORDER_ERROR_BYTES]; /* FAILED */
} NcRecorderStatus;

/* Begins a recording; times of records count from now_us.  NULL: no memory, or no thread. */
NC_MUST_USE extern NcRecorder *nc_recorder_start(const NcRecorderSettings *settings, uint64_t now_us);

/*
 * One request; its start_us is of the same clock as now_us above.  What was asked before
 * the recording began is left out, and so is what is not sane.
 */
extern void nc_recorder_put(NcRecorder *r, const NcRecordMap *map, const NcRecord *record,
							uint64_t now_us);

/* From time to time, at least once a second. */
extern void nc_recorder_turn(NcRecorder *r, uint64_t now_us);

/* No more records; the file is completed by the thread.  A second call does nothing. */
extern void nc_recorder_stop(NcRecorder *r, NcRecordWhy why);

/* How it is.  ENDED and FAILED stay. */
extern void nc_recorder_look(const NcRecorder *r, NcRecorderStatus *status);

/*
 * The owner's hold ends: at once with wait_ms 0, else after the thread has ended or so many
 * milliseconds.  A thread that still waits for a disk then ends by itself.
 */
extern void nc_recorder_leave(NcRecorder *r, uint32_t wait_ms);

#endif							/* NC_RECORD_RECORDER_H */
