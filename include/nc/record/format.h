/*
 * nc/record/format.h
 *	  A recording: which requests a compute made of its page servers, when, and
 *	  how long each took.  docs/record.md has the layout, docs/decisions/0042 why.
 *
 * A file is a magic number and frames: one of the header, frames of records, one
 * that says how it ended.  Each frame has a checksum and can be read without those
 * before it, so a file that was cut off is a shorter recording and nothing else.
 *
 * Plain codec: no file, no clock, no memory of its own.  What is read comes from
 * somebody else and is checked, never asserted.
 */
#ifndef NC_RECORD_FORMAT_H
#define NC_RECORD_FORMAT_H

#include "nc/base/bytes.h"
#include "nc/base/check.h"
#include "nc/base/key.h"
#include "nc/base/units.h"
#include "nc/wire/pagestream.h"

#define NC_RECORD_MAGIC "NCRECORD"
#define NC_RECORD_MAGIC_BYTES 8
#define NC_RECORD_VERSION 1

/* Tag, length and checksum; and the longest body of a frame. */
#define NC_RECORD_FRAME_HEADER_BYTES 9
#define NC_RECORD_BODY_BYTES_MAX 65536
#define NC_RECORD_FRAME_BYTES_MAX (NC_RECORD_FRAME_HEADER_BYTES + NC_RECORD_BODY_BYTES_MAX)

/* No record takes more than this. */
#define NC_RECORD_BYTES_MAX 128

/* Blocks of one request: as many as a slot may ask for (nc/ring/slot.h). */
#define NC_RECORD_BLOCKS_MAX 32

/* Tenant and timeline: 32 hexadecimal digits. */
#define NC_RECORD_ID_DIGITS 32

/* Tags of frames. */
#define NC_RECORD_HEADER 'H'
#define NC_RECORD_RECORDS 'R'
#define NC_RECORD_END 'E'

/* Who wanted it.  Numbers of the file. */
typedef enum NcRecordClass
{
	NC_RECORD_FOREGROUND = 0,	/* a process slept until it came */
	NC_RECORD_AHEAD,			/* asked for ahead, by readahead or prefetch */
	NC_RECORD_PREWARM,			/* by a process that fills the file cache */
	NC_RECORD_ASYNC				/* through an AIO handle of the server */
} NcRecordClass;

#define NC_RECORD_CLASSES 4

/* How it ended.  Numbers of the file. */
typedef enum NcRecordResult
{
	NC_RECORD_OK = 0,
	NC_RECORD_PS_ERROR,			/* the page server answered with an error */
	NC_RECORD_UNREACHABLE,		/* the connection was lost, or the page server was not ready */
	NC_RECORD_REFUSED,			/* no page server was asked */
	NC_RECORD_CANCELLED			/* given up before the answer */
} NcRecordResult;

#define NC_RECORD_RESULTS 5

/* One request: of a page server, or of several where its blocks cross a stripe. */
typedef struct NcRecord
{
	uint64_t	start_us;		/* when it was asked, since the recording began */
	uint64_t	took_us;		/* until it ended */
	NcLsn		request_lsn;
	NcLsn		not_modified_since;
	NcRelKey	rel;			/* DBSIZE: db alone */
	uint32_t	block;			/* GETPAGE: the first */
	uint8_t		nblocks;		/* GETPAGE: 1..NC_RECORD_BLOCKS_MAX, else 1 */
	uint8_t		kind;			/* NcReqTag, SLRU never */
	uint8_t		class;			/* NcRecordClass */
	uint8_t		result;			/* NcRecordResult */
	bool		promoted;		/* AHEAD, ASYNC: somebody had come to wait */
} NcRecord;

/* Are its numbers in their ranges? What is not is neither written nor read. */
extern bool nc_record_is_sane(const NcRecord *record);

/* Of the whole recording. */
typedef struct NcRecordHeader
{
	uint32_t	server_version; /* as PG_VERSION_NUM */
	uint64_t	began_us;		/* since 1970 */
	uint8_t		protocol_version;	/* of pagestream, 2 or 3 */
	char		tenant_id[NC_RECORD_ID_DIGITS + 1];
	char		timeline_id[NC_RECORD_ID_DIGITS + 1];
} NcRecordHeader;

/* The map by which the records of one frame were routed; 0 shards = there was none. */
typedef struct NcRecordMap
{
	uint32_t	shards;
	uint32_t	stripe_blocks;
} NcRecordMap;

/* Why a recording ended.  Numbers of the file. */
typedef enum NcRecordWhy
{
	NC_RECORD_STOPPED = 0,		/* by the setting */
	NC_RECORD_FULL,				/* neon_comm.record_size was reached */
	NC_RECORD_EXIT				/* the communicator ended */
} NcRecordWhy;

typedef struct NcRecordEnd
{
	NcRecordWhy why;
	uint64_t	records;		/* in the file */
	uint64_t	dropped;		/* not in it, because the disk was slower than they came */
} NcRecordEnd;

/* ---- writing: the body of a frame of records grows in a buffer of the caller's ---- */

typedef struct NcRecordWriter
{
	NcWriter	w;				/* of a whole frame */
	NcRecord	last;			/* what the next one is told against */
	uint32_t	count;
} NcRecordWriter;

/* Writes magic and header frame; false when there is no room. */
NC_MUST_USE extern bool nc_record_put_header(NcWriter *w, const NcRecordHeader *header);

/* Begins a frame of records in a buffer of at least NC_RECORD_FRAME_BYTES_MAX. */
extern void nc_record_begin(NcRecordWriter *rw, void *buffer, const NcRecordMap *map);

/* False, and nothing is written, when the frame has no room: it is sealed, and another begun. */
NC_MUST_USE extern bool nc_record_put(NcRecordWriter *rw, const NcRecord *record);

/* Completes the frame; its bytes from the start of the buffer. */
extern size_t nc_record_seal(NcRecordWriter *rw);

/* Writes the frame of the end; false when there is no room. */
NC_MUST_USE extern bool nc_record_put_end(NcWriter *w, const NcRecordEnd *end);

/* ---- reading ---- */

typedef enum NcRecordFound
{
	NC_RECORD_FRAME,			/* a frame that is whole */
	NC_RECORD_NOTHING,			/* the end of the bytes, between two frames */
	NC_RECORD_TORN				/* what is left is no frame, or only a part of one */
} NcRecordFound;

typedef struct NcRecordFrame
{
	char		tag;
	const uint8_t *body;		/* points into the bytes that are read */
	size_t		body_bytes;
} NcRecordFrame;

/* Reads magic and header; NULL when it can, else a static text why not. */
NC_MUST_USE extern const char *nc_record_read_header(NcReader *r, NcRecordHeader *header);

/* The next frame.  TORN leaves the reader where the damage begins. */
NC_MUST_USE extern NcRecordFound nc_record_read_frame(NcReader *r, NcRecordFrame *frame);

typedef struct NcRecordReader
{
	NcReader	r;
	NcRecord	last;
} NcRecordReader;

/* Begins to read a frame of records; false when its body is malformed. */
NC_MUST_USE extern bool nc_record_open(NcRecordReader *rr, const NcRecordFrame *frame,
									   NcRecordMap *map);

/* 1 = a record, 0 = no more, -1 = the body is malformed: a writer's fault, its checksum was right. */
NC_MUST_USE extern int nc_record_next(NcRecordReader *rr, NcRecord *record);

/* False when the body is malformed. */
NC_MUST_USE extern bool nc_record_read_end(const NcRecordFrame *frame, NcRecordEnd *end);

/* ---- names: static texts; "?" for a number that has none ---- */
extern const char *nc_record_class_name(uint32_t class);
extern const char *nc_record_result_name(uint32_t result);
extern const char *nc_record_why_name(uint32_t why);

#endif							/* NC_RECORD_FORMAT_H */
