/*
 * neon_form.c
 *	  See neon_form.h.
 *
 * The only file of neon_boot that knows structs of the server.  Its headers exchange printf() and the like for
 * functions of a library that is not linked here: none of those is called in this file but sscanf().
 */
#include "postgres_fe.h"

#include "access/xlog_internal.h"
#include "access/xlogrecord.h"
#include "catalog/pg_control.h"

#include "neon_form.h"

#define RECORD_BYTES (SizeOfXLogRecord + SizeOfXLogRecordDataHeaderShort + sizeof(CheckPoint))

/* CRC-32C, bit by bit: a kilobyte is all that is ever summed up here. */
#define CRC_POLYNOMIAL 0x82f63b78u

NC_STATIC_ASSERT(sizeof(CheckPoint) <= UINT8_MAX, "a checkpoint has a short data header");
NC_STATIC_ASSERT(RECORD_BYTES <= NEON_RECORD_BYTES_MAX, "room for a record");
NC_STATIC_ASSERT(SizeOfXLogLongPHD <= NEON_HEADER_BYTES_MAX, "room for a page header");
NC_STATIC_ASSERT(PG_CONTROL_FILE_SIZE == NEON_CONTROL_BYTES, "size of the control file");
NC_STATIC_ASSERT(XLOG_BLCKSZ == NEON_WAL_PAGE_BYTES, "size of a page of WAL");

static uint32_t
crc_add(uint32_t crc, const void *data, size_t bytes)
{
	const uint8_t *at = data;

	for (; bytes > 0; bytes--)
	{
		crc ^= *at++;
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (-(crc & 1) & CRC_POLYNOMIAL);
	}
	return crc;
}

/* ---- the control file ---- */

static uint32_t
control_crc(const ControlFileData *control)
{
	return ~crc_add(~0u, control, offsetof(ControlFileData, crc));
}

static size_t
header_bytes(uint32_t segment_bytes, NcLsn page)
{
	return page % segment_bytes == 0 ? SizeOfXLogLongPHD : SizeOfXLogShortPHD;
}

static bool
is_segment_size(uint32_t bytes)
{
	return bytes >= WalSegMinSize && bytes <= WalSegMaxSize && (bytes & (bytes - 1)) == 0;
}

const char *
neon_control_read(const uint8_t file[NEON_CONTROL_BYTES], NeonControl *out)
{
	ControlFileData control;
	const CheckPoint *checkpoint = &control.checkPointCopy;
	NcLsn		page;

	memcpy(&control, file, sizeof(control));
	if (control.pg_control_version != PG_CONTROL_VERSION)
		return "it is of another major version of PostgreSQL than this neon_boot";
	if (control.crc != control_crc(&control))
		return "its control file is damaged";
	if (control.state != DB_SHUTDOWNED || !is_segment_size(control.xlog_seg_size) ||
		control.xlog_blcksz != XLOG_BLCKSZ || control.blcksz != NC_PAGE_BYTES || checkpoint->ThisTimeLineID == 0)
		return "its control file is not that of a cluster that was shut down";
	page = checkpoint->redo - checkpoint->redo % XLOG_BLCKSZ;
	if (checkpoint->redo % MAXIMUM_ALIGNOF != 0 || checkpoint->redo == 0 ||
		checkpoint->redo - page < header_bytes(control.xlog_seg_size, page))
		return "its control file names a place in which no record of WAL can begin";
	*out = (NeonControl) {
		.system_identifier = control.system_identifier,
		.timeline = checkpoint->ThisTimeLineID,
		.segment_bytes = control.xlog_seg_size,
		.checksums = control.data_checksum_version != 0,
		.checkpoint = checkpoint->redo,
		.cut = checkpoint->redo - page == header_bytes(control.xlog_seg_size, page) ? page : checkpoint->redo,
		.next_xid = checkpoint->nextXid.value,
		.oldest_xid = checkpoint->oldestXid,
		.next_multi = checkpoint->nextMulti,
		.oldest_multi = checkpoint->oldestMulti,
		.next_multi_offset = checkpoint->nextMultiOffset
	};
	return NULL;
}

void
neon_control_seal(uint8_t file[NEON_CONTROL_BYTES])
{
	ControlFileData control;

	memcpy(&control, file, sizeof(control));
	control.checkPoint = control.checkPointCopy.redo;
	control.crc = control_crc(&control);
	memcpy(file, &control, sizeof(control));
}

/* ---- WAL ---- */

size_t
neon_checkpoint_record(const uint8_t file[NEON_CONTROL_BYTES], NcLsn prev, uint8_t to[NEON_RECORD_BYTES_MAX])
{
	XLogRecord	header = {.xl_tot_len = RECORD_BYTES, .xl_prev = prev, .xl_rmid = RM_XLOG_ID,
	.xl_info = XLOG_CHECKPOINT_SHUTDOWN};
	uint8_t    *data = to + SizeOfXLogRecord;
	uint32_t	crc;

	data[0] = (uint8_t) XLR_BLOCK_ID_DATA_SHORT;
	data[1] = (uint8_t) sizeof(CheckPoint);
	memcpy(data + SizeOfXLogRecordDataHeaderShort, file + offsetof(ControlFileData, checkPointCopy), sizeof(CheckPoint));
	crc = crc_add(~0u, data, RECORD_BYTES - SizeOfXLogRecord);
	header.xl_crc = ~crc_add(crc, &header, offsetof(XLogRecord, xl_crc));
	memcpy(to, &header, SizeOfXLogRecord);
	return RECORD_BYTES;
}

size_t
neon_page_header(const NeonControl *control, NcLsn page, uint32_t left, uint8_t to[NEON_HEADER_BYTES_MAX])
{
	size_t		bytes = header_bytes(control->segment_bytes, page);
	XLogLongPageHeaderData header = {.std.xlp_magic = XLOG_PAGE_MAGIC, .std.xlp_tli = control->timeline,
	.std.xlp_pageaddr = page, .std.xlp_rem_len = left};

	if (left > 0)
		header.std.xlp_info |= XLP_FIRST_IS_CONTRECORD;
	if (bytes == SizeOfXLogLongPHD)
	{
		header.std.xlp_info |= XLP_LONG_HEADER;
		header.xlp_sysid = control->system_identifier;
		header.xlp_seg_size = control->segment_bytes;
		header.xlp_xlog_blcksz = XLOG_BLCKSZ;
	}
	memcpy(to, &header, bytes);
	return bytes;
}

/* ---- the signal file ---- */

bool
neon_signal_parse(const char *text, NcLsn *prev)
{
	static const char before[] = "PREV LSN: ";
	const char *value = text + strlen(before);
	uint32_t	high;
	uint32_t	low;
	int			n = 0;

	*prev = 0;
	if (strncmp(text, before, strlen(before)) != 0)
		return false;
	if (strcspn(value, "\n") == strlen("none") && strncmp(value, "none", strlen("none")) == 0)
		return true;
	if (strcspn(value, "\n") == strlen("invalid") && strncmp(value, "invalid", strlen("invalid")) == 0)
		return true;
	if (sscanf(value, "%8" SCNx32 "/%8" SCNx32 "%n", &high, &low, &n) != 2 || (value[n] != '\0' && value[n] != '\n'))
		return false;
	*prev = (NcLsn) high << 32 | low;
	return true;
}
