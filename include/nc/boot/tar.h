/*
 * nc/boot/tar.h
 *	  The tar of a boot image: headers of entries, and a reader that is fed as bytes come.
 *
 * ustar, files and directories only.  Names are relative paths whose parts are letters,
 * digits, "_", "-" and ".", none of them "." or "..": an image is laid under the
 * rights of whoever asked for it, and nothing in it may lead elsewhere.
 */
#ifndef NC_BOOT_TAR_H
#define NC_BOOT_TAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "nc/base/check.h"

#define NC_TAR_BLOCK_BYTES 512
#define NC_TAR_NAME_BYTES 100	/* the end included */

/* Bytes of one entry; larger files than a segment of 1 GB are none. */
#define NC_TAR_FILE_BYTES_MAX ((uint64_t) 1 << 30)

typedef struct NcTarEntry
{
	char		name[NC_TAR_NAME_BYTES];
	bool		directory;
	uint64_t	bytes;			/* 0 of a directory */
} NcTarEntry;

extern bool nc_tar_name_is_good(const char *name);

/* The header of an entry; false when it cannot have one. */
NC_MUST_USE extern bool nc_tar_header(const NcTarEntry *entry, uint8_t to[NC_TAR_BLOCK_BYTES]);

/* Zeroes between the content of an entry and the next header. */
extern size_t nc_tar_padding(uint64_t bytes);

/* So many zeroes end a tar. */
#define NC_TAR_END_BYTES ((size_t) 2 * NC_TAR_BLOCK_BYTES)

/* What a reader does with entries; each returns false to end the reading. */
typedef struct NcTarSink
{
	void	   *arg;
	bool		(*begin) (void *arg, const NcTarEntry *entry);
	bool		(*content) (void *arg, const uint8_t *data, size_t bytes);
	bool		(*end) (void *arg); /* all of the content has come */
} NcTarSink;

typedef enum NcTarState
{
	NC_TAR_HEADER = 0,
	NC_TAR_CONTENT,
	NC_TAR_PADDING,
	NC_TAR_ENDED,				/* the end mark has come */
	NC_TAR_FAILED
} NcTarState;

typedef struct NcTarReader
{
	NcTarState	state;
	const char *why;			/* FAILED: what is wrong; NULL: the sink ended it */
	uint64_t	left;			/* of content or padding */
	NcTarEntry	entry;
	int			zeroes;			/* zero blocks that have come */
	size_t		have;			/* of block */
	uint8_t		block[NC_TAR_BLOCK_BYTES];
} NcTarReader;

/* A zeroed reader begins.  False when it has FAILED. */
NC_MUST_USE extern bool nc_tar_read(NcTarReader *reader, const NcTarSink *sink, const uint8_t *data, size_t bytes);

#endif							/* NC_BOOT_TAR_H */
