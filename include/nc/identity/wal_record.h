/*
 * nc/identity/wal_record.h
 *	  The header of a WAL record, read out of WAL pages.
 */
#ifndef NC_IDENTITY_WAL_RECORD_H
#define NC_IDENTITY_WAL_RECORD_H

#include "nc/base/check.h"
#include "nc/base/units.h"

/* struct XLogRecord: length, xid, prev, info, rmgr, two bytes of padding, CRC. */
#define NC_WAL_HEADER_BYTES 24

typedef enum NcWalRead
{
	NC_WAL_OK,
	NC_WAL_GONE,				/* was here once, or cannot be read now */
	NC_WAL_BEYOND				/* lies behind the end of the WAL that is here */
} NcWalRead;

/* Reads bytes of WAL, which lie within one WAL page. */
typedef NcWalRead (*NcWalReader) (void *arg, NcLsn at, size_t bytes, uint8_t *to);

typedef struct NcWalSource
{
	NcWalReader read;
	void	   *arg;
	uint32_t	segment_bytes;	/* wal_segment_size; pages have NC_PAGE_BYTES */
} NcWalSource;

/* The header of the record that starts at `start`, also when it crosses into the next page. */
NC_MUST_USE extern NcWalRead nc_wal_read_header(const NcWalSource *source, NcLsn start,
												uint8_t header[NC_WAL_HEADER_BYTES]);

/*
 * Where the record ends that starts at `start` and has this header: as EndRecPtr of the server's
 * reader. 0: the header is none.
 */
extern NcLsn nc_wal_record_end(NcLsn start, const uint8_t header[NC_WAL_HEADER_BYTES],
							   uint32_t segment_bytes);

/*
 * Up to where there must be WAL for who has replayed it: the end of its bytes. The rest of the segment
 * behind a switch is written, and made durable, after the record.
 */
extern NcLsn nc_wal_record_needs(NcLsn start, const uint8_t header[NC_WAL_HEADER_BYTES],
								 uint32_t segment_bytes);

/*
 * The record that ends at `end`: its start and header, found by walking from the start of the
 * page before it, or of up to `pages` pages further back, where one record fills several.
 * NC_WAL_GONE when there is none such.
 */
NC_MUST_USE extern NcWalRead nc_wal_find_last(const NcWalSource *source, NcLsn end, uint32_t pages,
											  NcLsn *start, uint8_t header[NC_WAL_HEADER_BYTES]);

/*
 * The start of a segment, such that the last of the records that have ended at `upto` starts behind it. Records may be
 * longer than a segment. Where WAL that would have to be looked at is gone: the start of the segment that is.
 */
extern NcLsn nc_wal_last_record_from(const NcWalSource *source, NcLsn upto);

#endif							/* NC_IDENTITY_WAL_RECORD_H */
