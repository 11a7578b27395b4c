/*
 * fuzz_record.c
 *	  Any bytes as a recording, and as the body of one of its frames.
 *
 * The checksum of a frame keeps nearly all input from the decoder of records, so the
 * input is read as such a body, too.  What is accepted is sane, and is the same after
 * it was written and read again.
 */
#include "nc/record/format.h"

#include <stdlib.h>

int			LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
check(bool fact)
{
	if (!fact)
		abort();
}

static bool
same(const NcRecord *a, const NcRecord *b)
{
	return a->start_us == b->start_us && a->took_us == b->took_us && a->request_lsn == b->request_lsn &&
		a->not_modified_since == b->not_modified_since && nc_rel_key_equal(&a->rel, &b->rel) &&
		a->block == b->block && a->nblocks == b->nblocks && a->kind == b->kind && a->class == b->class &&
		a->result == b->result && a->promoted == b->promoted;
}

static void
write_again(NcRecordWriter *rw, uint8_t *buffer, const NcRecordMap *map, const NcRecord *record)
{
	NcReader	r;
	NcRecordFrame frame;
	NcRecordReader rr;
	NcRecordMap map_again;
	NcRecord	again;
	NcRecord	last = {0};

	nc_record_begin(rw, buffer, map);
	check(nc_record_put(rw, record) && nc_record_put(rw, record));
	r = nc_reader(buffer, nc_record_seal(rw));
	check(nc_record_read_frame(&r, &frame) == NC_RECORD_FRAME && nc_reader_left(&r) == 0);
	check(nc_record_open(&rr, &frame, &map_again) && map_again.shards == map->shards);
	while (nc_record_next(&rr, &again) == 1)
	{
		check(same(&again, record));
		last = again;
	}
	check(same(&last, record));
}

static void
read_body(const uint8_t *body, size_t bytes)
{
	static uint8_t buffer[NC_RECORD_FRAME_BYTES_MAX];
	NcRecordFrame frame = {NC_RECORD_RECORDS, body, bytes};
	NcRecordReader rr;
	NcRecordWriter rw;
	NcRecordMap map;
	NcRecord	record;
	NcRecordEnd end;

	(void) nc_record_read_end(&frame, &end);
	if (!nc_record_open(&rr, &frame, &map))
		return;
	while (nc_record_next(&rr, &record) == 1)
	{
		check(nc_record_is_sane(&record));
		write_again(&rw, buffer, &map, &record);
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	NcReader	r = nc_reader(data, size);
	NcRecordHeader header;
	NcRecordFrame frame;

	read_body(data, size);
	if (nc_record_read_header(&r, &header) != NULL)
		return 0;
	check(strlen(header.tenant_id) == NC_RECORD_ID_DIGITS);
	while (nc_record_read_frame(&r, &frame) == NC_RECORD_FRAME)
		read_body(frame.body, frame.body_bytes);
	return 0;
}
