/*
 * replay.h
 *	  What the files of nc_replay share.  docs/record.md.
 *
 *	nc_replay.c	the command line, and what is done
 *	load.c		a recording, read and checked
 *	play.c		requests to page servers, over the communicator's own pools
 *	report.c	what came of it, as text or JSON
 */
#ifndef REPLAY_H
#define REPLAY_H

#include "nc/obs/latency.h"
#include "nc/record/format.h"
#include "nc/shard/shard_map.h"

/* NcReqTag of what can be recorded. */
#define KINDS 4

typedef struct Options
{
	const char *file;
	const char *conninfo;		/* one string for each shard, with commas between */
	const char *tenant;			/* NULL = the recording's */
	const char *timeline;
	const char *token_file;		/* "" = none */
	double		speed;			/* 0 = as fast as answers come */
	uint32_t	connections;	/* for each shard */
	uint32_t	depth;			/* requests on a connection */
	bool		lsn_recorded;	/* else the newest version there is */
	bool		classes[NC_RECORD_CLASSES];	/* of these */
	uint32_t	wait_s;			/* for page servers, at the beginning */
	uint32_t	timeout_s;		/* without any answer */
	bool		token_in_clear;
	bool		json;
	bool		dump;
	bool		quiet;
} Options;

/* ---- a recording in memory, in the order in which requests were made ---- */
typedef struct Recording
{
	NcRecordHeader header;
	NcRecordMap map;			/* of the last frame */
	uint32_t	maps;			/* different ones, one after the other */
	NcRecord   *records;
	uint64_t	count;
	uint64_t	room;
	bool		ended;			/* its last frame is there */
	NcRecordEnd end;
	uint64_t	bytes;
	uint64_t	unread;			/* bytes behind the last frame that is whole */
} Recording;

/* Told of each record in the order of the file, with the map that it was routed by; may be NULL. */
typedef void (*VisitFn) (const NcRecord *record, const NcRecordMap *map);

/* Reads a file; false, said why not.  A torn end is no failure. */
extern bool load_recording(const char *path, Recording *recording, VisitFn visit);

/* By the time at which they were made. */
extern void sort_recording(Recording *recording);

/* ---- what came of it ---- */

/* Durations: buckets as of nc/obs/latency.h. */
typedef struct Durations
{
	uint64_t	count;
	uint64_t	max_us;
	uint64_t	bucket[NC_LATENCY_BUCKETS];
} Durations;

static inline void
note_duration(Durations *d, uint64_t us)
{
	d->count++;
	d->bucket[nc_latency_bucket(us)]++;
	if (us > d->max_us)
		d->max_us = us;
}

typedef enum Trouble
{
	TROUBLE_ERROR = 0,			/* error answers, by what they mean for whoever asked */
	TROUBLE_NOT_NOW,
	TROUBLE_MISROUTED,
	TROUBLE_HOST,
	TROUBLE_LOST,				/* with its connection */
	TROUBLES
} Trouble;

typedef struct ClassResult
{
	uint64_t	requests[KINDS];	/* played */
	uint64_t	answered;		/* of them, wholly and without an error */
	uint64_t	blocks;			/* asked for */
	uint64_t	blocks_answered;
	Durations	played;			/* of those that were answered */
	Durations	recorded;		/* of those that had been, when they were recorded */
} ClassResult;

typedef struct Result
{
	ClassResult of[NC_RECORD_CLASSES];
	uint64_t	trouble[TROUBLES];	/* messages, not requests */
	char		example[TROUBLES][256]; /* the first text of each */
	uint64_t	messages;		/* sent */
	uint64_t	took_us;
	uint64_t	late_us;		/* the most that a request was sent behind its time */
	uint64_t	unsent;			/* requests that were left when it was broken off */
	uint64_t	unanswered;		/* requests on their way then */
	char		why[512];		/* why it was broken off; empty = it was not */
} Result;

/* Plays it; false: no page server could be reached, and why says so. */
extern bool play(const Options *o, const Recording *recording, const NcShardMap *map, Result *result);

/* A signal has come: what is on its way is given up. */
extern volatile int play_broken_off;

extern void report_text(const Options *o, const Recording *recording, const Result *result);

/* False: it does not fit, which cannot be. */
extern bool report_json(const Options *o, const Recording *recording, const Result *result);
extern void report_dump_head(const Recording *recording);
extern void report_dump(const NcRecord *record, const NcRecordMap *map);
extern void report_dump_tail(const Recording *recording);

/* ---- messages, to stderr ---- */
extern void say(const char *fmt,...) NC_PRINTF(1, 2);

/* The same, but not with --quiet. */
extern void tell(const char *fmt,...) NC_PRINTF(1, 2);

#endif							/* REPLAY_H */
