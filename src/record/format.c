/*
 * format.c
 *	  The codec of recordings: encoder and decoder of each frame side by side.
 *
 * A record is told against the one before it in its frame: of a page that follows
 * its neighbour there is little more than when it was asked for and how long it took.
 */
#include "nc/record/format.h"

#include <zlib.h>

/* What a record has in common with the one before it. */
#define SAME_REL 0x01
#define SAME_LSNS 0x02
#define SAME_WHAT 0x04			/* kind, class, result, number of blocks */
#define NEXT_BLOCK 0x08			/* it begins where that one ends */
#define PROMOTED 0x10
#define FLAGS 0x1f

#define KIND_BITS 4

#define VARINT_BYTES_MAX 10

NC_STATIC_ASSERT(1 + 2 + VARINT_BYTES_MAX * 10 <= NC_RECORD_BYTES_MAX,
				 "flags, what, and each number in full");

/* ---- numbers: seven bits a byte, the low ones first ---- */

static void
put_varint(NcWriter *w, uint64_t v)
{
	for (; v >= 0x80; v >>= 7)
		nc_write_u8(w, (uint8_t) (v | 0x80));
	nc_write_u8(w, (uint8_t) v);
}

static uint64_t
read_varint(NcReader *r)
{
	uint64_t	v = 0;

	for (uint32_t shift = 0; shift < 64; shift += 7)
	{
		uint8_t		b = nc_read_u8(r);

		/* the tenth byte has room for one bit */
		if (shift == 63 && b > 1)
			break;
		v |= (uint64_t) (b & 0x7f) << shift;
		if ((b & 0x80) == 0)
			return v;
	}
	r->failed = true;
	return 0;
}

static uint32_t
read_varint32(NcReader *r)
{
	uint64_t	v = read_varint(r);

	if (v > UINT32_MAX)
		r->failed = true;
	return (uint32_t) v;
}

/* A difference, whichever is larger: small ones of both signs are short. Wraps, and unwraps again. */
static void
put_delta(NcWriter *w, uint64_t from, uint64_t to)
{
	uint64_t	d = to - from;

	put_varint(w, d << 1 ^ (UINT64_C(0) - (d >> 63)));
}

static uint64_t
read_delta(NcReader *r, uint64_t from)
{
	uint64_t	v = read_varint(r);

	return from + (v >> 1 ^ (UINT64_C(0) - (v & 1)));
}

/* ---- frames ---- */

static uint32_t
frame_crc(const uint8_t *tag_and_length, const uint8_t *body, size_t bytes)
{
	uLong		crc = crc32(0L, tag_and_length, 5);

	return (uint32_t) crc32(crc, body, (uInt) bytes);
}

static uint8_t *
begin_frame(NcWriter *w, char tag)
{
	uint8_t    *start = w->at;

	nc_write_u8(w, (uint8_t) tag);
	nc_write_u32(w, 0);
	nc_write_u32(w, 0);
	return start;
}

static void
end_frame(NcWriter *w, uint8_t *start)
{
	size_t		bytes;
	NcWriter	patch;

	if (w->failed)
		return;
	bytes = (size_t) (w->at - start) - NC_RECORD_FRAME_HEADER_BYTES;
	patch = nc_writer(start + 1, 8);
	nc_write_u32(&patch, (uint32_t) bytes);
	nc_write_u32(&patch, frame_crc(start, start + NC_RECORD_FRAME_HEADER_BYTES, bytes));
}

NcRecordFound
nc_record_read_frame(NcReader *r, NcRecordFrame *frame)
{
	NcReader	ahead = *r;
	uint32_t	bytes;
	uint32_t	crc;

	if (nc_reader_left(r) == 0)
		return NC_RECORD_NOTHING;
	frame->tag = (char) nc_read_u8(&ahead);
	bytes = nc_read_u32(&ahead);
	crc = nc_read_u32(&ahead);
	if (ahead.failed || bytes > NC_RECORD_BODY_BYTES_MAX)
		return NC_RECORD_TORN;
	frame->body = nc_read_bytes(&ahead, bytes);
	frame->body_bytes = bytes;
	if (frame->body == NULL || frame_crc(r->at, frame->body, bytes) != crc)
		return NC_RECORD_TORN;
	*r = ahead;
	return NC_RECORD_FRAME;
}

/* ---- the header ---- */

bool
nc_record_put_header(NcWriter *w, const NcRecordHeader *header)
{
	uint8_t    *start;

	nc_write_bytes(w, NC_RECORD_MAGIC, NC_RECORD_MAGIC_BYTES);
	start = begin_frame(w, NC_RECORD_HEADER);
	nc_write_u16(w, NC_RECORD_VERSION);
	nc_write_u32(w, header->server_version);
	nc_write_u64(w, header->began_us);
	nc_write_u8(w, header->protocol_version);
	nc_write_cstring(w, header->tenant_id);
	nc_write_cstring(w, header->timeline_id);
	end_frame(w, start);
	return !w->failed;
}

/* It goes into a query to a page server. */
static bool
read_id(NcReader *r, char *id)
{
	const char *text = nc_read_cstring(r);

	if (text == NULL || strlen(text) != NC_RECORD_ID_DIGITS ||
		strspn(text, "0123456789abcdefABCDEF") != NC_RECORD_ID_DIGITS)
		return false;
	memcpy(id, text, NC_RECORD_ID_DIGITS + 1);
	return true;
}

const char *
nc_record_read_header(NcReader *r, NcRecordHeader *header)
{
	const uint8_t *magic = nc_read_bytes(r, NC_RECORD_MAGIC_BYTES);
	NcRecordFrame frame;
	NcReader	body;

	memset(header, 0, sizeof(*header));
	if (magic == NULL || memcmp(magic, NC_RECORD_MAGIC, NC_RECORD_MAGIC_BYTES) != 0)
		return "it is no recording of neon_comm";
	if (nc_record_read_frame(r, &frame) != NC_RECORD_FRAME || frame.tag != NC_RECORD_HEADER)
		return "its header is damaged";
	body = nc_reader(frame.body, frame.body_bytes);
	if (nc_read_u16(&body) != NC_RECORD_VERSION)
		return "it was written by another version of neon_comm, whose format is not known here";
	header->server_version = nc_read_u32(&body);
	header->began_us = nc_read_u64(&body);
	header->protocol_version = nc_read_u8(&body);
	if (!read_id(&body, header->tenant_id) || !read_id(&body, header->timeline_id) || body.failed ||
		(header->protocol_version != 2 && header->protocol_version != 3))
		return "its header is malformed";
	return NULL;
}

/* ---- records ---- */

void
nc_record_begin(NcRecordWriter *rw, void *buffer, const NcRecordMap *map)
{
	memset(rw, 0, sizeof(*rw));
	rw->w = nc_writer(buffer, NC_RECORD_FRAME_BYTES_MAX);
	(void) begin_frame(&rw->w, NC_RECORD_RECORDS);
	put_varint(&rw->w, map->shards);
	put_varint(&rw->w, map->stripe_blocks);
}

static uint8_t
flags_of(const NcRecord *last, const NcRecord *record)
{
	uint8_t		flags = record->promoted ? PROMOTED : 0;

	if (nc_rel_key_equal(&last->rel, &record->rel))
		flags |= SAME_REL;
	if (last->request_lsn == record->request_lsn &&
		last->not_modified_since == record->not_modified_since)
		flags |= SAME_LSNS;
	if (last->kind == record->kind && last->class == record->class &&
		last->result == record->result && last->nblocks == record->nblocks)
		flags |= SAME_WHAT;
	if (record->block == last->block + last->nblocks)
		flags |= NEXT_BLOCK;
	return flags;
}

bool
nc_record_put(NcRecordWriter *rw, const NcRecord *record)
{
	NcWriter   *w = &rw->w;
	const NcRecord *last = &rw->last;
	uint8_t		flags = flags_of(last, record);

	if ((size_t) (w->end - w->at) < NC_RECORD_BYTES_MAX)
		return false;
	nc_write_u8(w, flags);
	if ((flags & SAME_WHAT) == 0)
	{
		nc_write_u8(w, (uint8_t) (record->class << KIND_BITS | record->kind));
		nc_write_u8(w, record->result);
		nc_write_u8(w, record->nblocks);
	}
	put_delta(w, last->start_us, record->start_us);
	put_varint(w, record->took_us);
	if ((flags & SAME_REL) == 0)
	{
		put_varint(w, record->rel.spc);
		put_varint(w, record->rel.db);
		put_varint(w, record->rel.rel);
		put_varint(w, record->rel.fork);
	}
	if ((flags & NEXT_BLOCK) == 0)
		put_delta(w, last->block, record->block);
	if ((flags & SAME_LSNS) == 0)
	{
		put_delta(w, last->request_lsn, record->request_lsn);
		put_delta(w, last->not_modified_since, record->not_modified_since);
	}
	rw->last = *record;
	rw->count++;
	return true;
}

size_t
nc_record_seal(NcRecordWriter *rw)
{
	end_frame(&rw->w, rw->w.start);
	return nc_writer_bytes(&rw->w);
}

bool
nc_record_open(NcRecordReader *rr, const NcRecordFrame *frame, NcRecordMap *map)
{
	memset(rr, 0, sizeof(*rr));
	rr->r = nc_reader(frame->body, frame->body_bytes);
	map->shards = read_varint32(&rr->r);
	map->stripe_blocks = read_varint32(&rr->r);
	return !rr->r.failed;
}

bool
nc_record_is_sane(const NcRecord *record)
{
	return record->kind <= NC_REQ_DBSIZE && record->class < NC_RECORD_CLASSES &&
		record->result < NC_RECORD_RESULTS && record->rel.fork <= NC_FORK_INIT &&
		record->nblocks >= 1 && record->nblocks <= NC_RECORD_BLOCKS_MAX &&
		/* the highest number is no block */
		record->block <= UINT32_MAX - record->nblocks;
}

int
nc_record_next(NcRecordReader *rr, NcRecord *record)
{
	NcReader   *r = &rr->r;
	NcRecord	last = rr->last;
	uint8_t		flags;
	uint64_t	block = last.block + last.nblocks;

	if (!r->failed && nc_reader_left(r) == 0)
		return 0;
	*record = last;
	flags = nc_read_u8(r);
	if ((flags & ~FLAGS) != 0)
		r->failed = true;
	record->promoted = (flags & PROMOTED) != 0;
	if ((flags & SAME_WHAT) == 0)
	{
		uint8_t		what = nc_read_u8(r);

		record->kind = what & ((1 << KIND_BITS) - 1);
		record->class = what >> KIND_BITS;
		record->result = nc_read_u8(r);
		record->nblocks = nc_read_u8(r);
	}
	record->start_us = read_delta(r, last.start_us);
	record->took_us = read_varint(r);
	if ((flags & SAME_REL) == 0)
	{
		record->rel.spc = read_varint32(r);
		record->rel.db = read_varint32(r);
		record->rel.rel = read_varint32(r);
		record->rel.fork = read_varint32(r);
	}
	if ((flags & NEXT_BLOCK) == 0)
		block = read_delta(r, last.block);
	record->block = (uint32_t) block;
	if ((flags & SAME_LSNS) == 0)
	{
		record->request_lsn = read_delta(r, last.request_lsn);
		record->not_modified_since = read_delta(r, last.not_modified_since);
	}
	if (r->failed || block > UINT32_MAX || !nc_record_is_sane(record))
	{
		r->failed = true;
		return -1;
	}
	rr->last = *record;
	return 1;
}

/* ---- the end ---- */

bool
nc_record_put_end(NcWriter *w, const NcRecordEnd *end)
{
	uint8_t    *start = begin_frame(w, NC_RECORD_END);

	nc_write_u8(w, (uint8_t) end->why);
	nc_write_u64(w, end->records);
	nc_write_u64(w, end->dropped);
	end_frame(w, start);
	return !w->failed;
}

bool
nc_record_read_end(const NcRecordFrame *frame, NcRecordEnd *end)
{
	NcReader	r = nc_reader(frame->body, frame->body_bytes);
	uint8_t		why = nc_read_u8(&r);

	end->why = (NcRecordWhy) why;
	end->records = nc_read_u64(&r);
	end->dropped = nc_read_u64(&r);
	return !r.failed && why <= NC_RECORD_EXIT;
}

/* ---- names ---- */

const char *
nc_record_class_name(uint32_t class)
{
	static const char *const names[NC_RECORD_CLASSES] = {"foreground", "ahead", "prewarm", "async"};

	return class < NC_RECORD_CLASSES ? names[class] : "?";
}

const char *
nc_record_result_name(uint32_t result)
{
	static const char *const names[NC_RECORD_RESULTS] = {
		"ok", "page server error", "unreachable", "refused", "cancelled"
	};

	return result < NC_RECORD_RESULTS ? names[result] : "?";
}

const char *
nc_record_why_name(uint32_t why)
{
	static const char *const names[] = {"stopped", "full", "communicator ended"};

	return why < sizeof(names) / sizeof(names[0]) ? names[why] : "?";
}
