/*
 * wal_record.c
 *	  The header of a WAL record, read out of WAL pages.
 *
 * A WAL page begins with a header of its own, which is longer at the start of a
 * segment; a record goes on behind it.  Records begin at multiples of eight.
 */
#include "nc/identity/wal_record.h"

#include <string.h>

#define SHORT_PAGE_HEADER 24
#define LONG_PAGE_HEADER 40

/* In a record's header. */
#define INFO_OFFSET 16
#define RMGR_OFFSET 17
#define RMGR_XLOG 0
#define INFO_SWITCH 0x40

/* In a page header. */
#define ADDRESS_OFFSET 8
#define REMAINING_OFFSET 16

static uint32_t
native_u32(const uint8_t *p)
{
	uint32_t	v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static uint64_t
native_u64(const uint8_t *p)
{
	uint64_t	v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static uint32_t
page_header_bytes(NcLsn page, uint32_t segment_bytes)
{
	return page % segment_bytes == 0 ? LONG_PAGE_HEADER : SHORT_PAGE_HEADER;
}

static NcLsn
align8(NcLsn lsn)
{
	return (lsn + 7) & ~(NcLsn) 7;
}

NcWalRead
nc_wal_read_header(const NcWalSource *source, NcLsn start, uint8_t header[NC_WAL_HEADER_BYTES])
{
	size_t		have = 0;
	NcLsn		at = start;

	memset(header, 0, NC_WAL_HEADER_BYTES);
	while (have < NC_WAL_HEADER_BYTES)
	{
		size_t		part;
		NcWalRead	got;

		if (at % NC_PAGE_BYTES == 0)
			at += page_header_bytes(at, source->segment_bytes);
		part = NC_PAGE_BYTES - at % NC_PAGE_BYTES;
		if (part > NC_WAL_HEADER_BYTES - have)
			part = NC_WAL_HEADER_BYTES - have;
		got = source->read(source->arg, at, part, header + have);
		if (got != NC_WAL_OK)
			return got;
		have += part;
		at += part;
	}
	return NC_WAL_OK;
}

static uint32_t
record_length(const uint8_t *header)
{
	return native_u32(header);
}

static bool
is_switch(const uint8_t *header)
{
	return header[RMGR_OFFSET] == RMGR_XLOG && (header[INFO_OFFSET] & 0xf0) == INFO_SWITCH;
}

/* The end of so many bytes of a record that go on at `at`. */
static NcLsn
end_of_bytes(NcLsn at, uint32_t length, uint32_t segment_bytes)
{
	uint32_t	room = NC_PAGE_BYTES - at % NC_PAGE_BYTES;

	while (length > room)
	{
		at += room;
		length -= room;
		at += page_header_bytes(at, segment_bytes);
		room = NC_PAGE_BYTES - at % NC_PAGE_BYTES;
	}
	return align8(at + length);
}

NcLsn
nc_wal_record_needs(NcLsn start, const uint8_t header[NC_WAL_HEADER_BYTES], uint32_t segment_bytes)
{
	if (record_length(header) < NC_WAL_HEADER_BYTES)
		return 0;
	return end_of_bytes(start, record_length(header), segment_bytes);
}

NcLsn
nc_wal_record_end(NcLsn start, const uint8_t header[NC_WAL_HEADER_BYTES], uint32_t segment_bytes)
{
	NcLsn		at = nc_wal_record_needs(start, header, segment_bytes);

	if (at != 0 && is_switch(header))
		at += (segment_bytes - at % segment_bytes) % segment_bytes;
	return at;
}

/* Where the first record of a page starts; 0 when none starts there. */
static NcWalRead
first_on_page(const NcWalSource *source, NcLsn page, NcLsn *first)
{
	uint8_t		header[SHORT_PAGE_HEADER];
	uint32_t	size = page_header_bytes(page, source->segment_bytes);
	uint32_t	remaining;
	NcWalRead	got = source->read(source->arg, page, sizeof(header), header);

	*first = 0;
	if (got != NC_WAL_OK)
		return got;
	if (native_u64(header + ADDRESS_OFFSET) != page)
		return NC_WAL_GONE;
	remaining = native_u32(header + REMAINING_OFFSET);
	if (align8(size + (NcLsn) remaining) < NC_PAGE_BYTES)
		*first = align8(page + size + remaining);
	return NC_WAL_OK;
}

/* Walks records from `at`; GONE when none of them ends at `end`. */
static NcWalRead
walk_to(const NcWalSource *source, NcLsn at, NcLsn end, NcLsn *start,
		uint8_t header[NC_WAL_HEADER_BYTES])
{
	while (at < end)
	{
		NcWalRead	got;
		NcLsn		next;

		if (at % NC_PAGE_BYTES == 0)
			at += page_header_bytes(at, source->segment_bytes);
		got = nc_wal_read_header(source, at, header);
		if (got != NC_WAL_OK)
			return got;
		next = nc_wal_record_end(at, header, source->segment_bytes);
		if (next == 0)
			return NC_WAL_GONE;
		if (next == end)
		{
			*start = at;
			return NC_WAL_OK;
		}
		at = next;
	}
	return NC_WAL_GONE;
}

NcWalRead
nc_wal_find_last(const NcWalSource *source, NcLsn end, uint32_t pages, NcLsn *start,
				 uint8_t header[NC_WAL_HEADER_BYTES])
{
	NcLsn		page = (end - 1) - (end - 1) % NC_PAGE_BYTES;

	for (uint32_t i = 0; i <= pages; i++, page -= NC_PAGE_BYTES)
	{
		NcLsn		first;
		NcWalRead	got = first_on_page(source, page, &first);

		if (got != NC_WAL_OK)
			return got;
		if (first != 0 && first < end)
		{
			got = walk_to(source, first, end, start, header);
			if (got != NC_WAL_GONE)
				return got;
		}
		if (page < NC_PAGE_BYTES)
			break;
	}
	return NC_WAL_GONE;
}

/* Has a record ended at `upto` that starts in this segment? GONE: cannot be read. */
static NcWalRead
one_is_whole(const NcWalSource *source, NcLsn segment, NcLsn upto, bool *whole)
{
	uint8_t		header[NC_WAL_HEADER_BYTES];
	NcWalRead	got = source->read(source->arg, segment, SHORT_PAGE_HEADER, header);
	NcLsn		at;

	*whole = false;
	if (got != NC_WAL_OK)
		return got;
	if (native_u64(header + ADDRESS_OFFSET) != segment)
		return NC_WAL_GONE;
	at = end_of_bytes(segment + LONG_PAGE_HEADER, native_u32(header + REMAINING_OFFSET),
					  source->segment_bytes);
	if (at % NC_PAGE_BYTES == 0)
		at += page_header_bytes(at, source->segment_bytes);
	if (at >= segment + source->segment_bytes || at + NC_WAL_HEADER_BYTES > upto)
		return NC_WAL_OK;
	got = nc_wal_read_header(source, at, header);
	at = nc_wal_record_end(at, header, source->segment_bytes);
	*whole = got == NC_WAL_OK && at != 0 && at <= upto;
	return got;
}

NcLsn
nc_wal_last_record_from(const NcWalSource *source, NcLsn upto)
{
	NcLsn		segment = upto - upto % source->segment_bytes;
	bool		whole;

	if (upto == segment && segment > 0)
		segment -= source->segment_bytes;
	while (one_is_whole(source, segment, upto, &whole) == NC_WAL_OK && !whole &&
		   segment >= source->segment_bytes)
		segment -= source->segment_bytes;
	return segment;
}
