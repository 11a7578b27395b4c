/*
 * neon_form.h
 *	  What an image in the form of Neon's page servers lacks: a checkpoint, and a control file that
 *	  names it.  docs/boot.md, "Neon's form".
 *
 * Bytes only.  Control file and WAL are those of the server that neon_boot was built for.
 */
#ifndef NEON_BOOT_NEON_FORM_H
#define NEON_BOOT_NEON_FORM_H

#include <stddef.h>
#include <stdint.h>

#include "nc/base/check.h"
#include "nc/base/units.h"

#define NEON_CONTROL_BYTES 8192
#define NEON_WAL_PAGE_BYTES 8192

/* Room for a checkpoint record, and for the header of a page of WAL. */
#define NEON_RECORD_BYTES_MAX 512
#define NEON_HEADER_BYTES_MAX 64

/* What the control file of an image says. */
typedef struct NeonControl
{
	uint64_t	system_identifier;
	uint32_t	timeline;
	uint32_t	segment_bytes;
	bool		checksums;
	NcLsn		checkpoint;		/* where the record begins that is missing */
	NcLsn		cut;			/* where the one before it ends */
	uint64_t	next_xid;
	uint32_t	oldest_xid;
	uint32_t	next_multi;
	uint32_t	oldest_multi;
	uint32_t	next_multi_offset;
} NeonControl;

/* NULL, or what is wrong with the file. */
NC_MUST_USE extern const char *neon_control_read(const uint8_t file[NEON_CONTROL_BYTES], NeonControl *out);

/* The file names the record now. */
extern void neon_control_seal(uint8_t file[NEON_CONTROL_BYTES]);

/* The record of the control file's checkpoint; prev: where the record before it begins, 0 = not known. Its length. */
extern size_t neon_checkpoint_record(const uint8_t file[NEON_CONTROL_BYTES], NcLsn prev,
									 uint8_t to[NEON_RECORD_BYTES_MAX]);

/* The header of a page that so many bytes of an earlier page's record go on in. Its length. */
extern size_t neon_page_header(const NeonControl *control, NcLsn page, uint32_t left,
							   uint8_t to[NEON_HEADER_BYTES_MAX]);

/*
 * "PREV LSN: " and an LSN, "none" or "invalid", with or without an end of line.  False: something else.
 * none and invalid are 0.
 */
NC_MUST_USE extern bool neon_signal_parse(const char *text, NcLsn *prev);

#endif							/* NEON_BOOT_NEON_FORM_H */
