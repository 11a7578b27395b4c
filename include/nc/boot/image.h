/*
 * nc/boot/image.h
 *	  What the texts of a boot image say: its description, and the lengths of forks.
 *
 * docs/boot.md has the formats.  What is not understood is refused.
 */
#ifndef NC_BOOT_IMAGE_H
#define NC_BOOT_IMAGE_H

#include "nc/base/check.h"
#include "nc/base/units.h"
#include "nc/identity/identity.h"

#define NC_BOOT_DESCRIPTION "neon_boot"
#define NC_BOOT_FORKS "neon_boot.forks"

/*
 * The list of pages that a compute had in its file cache: where it stands in an image is
 * where a compute with the usual neon_comm.lfc_path looks for it.
 */
#define NC_BOOT_CACHE_LIST "neon_comm.lfc.index"
#define NC_BOOT_CACHE_LIST_BYTES_MAX (16 * 1024 * 1024)

/* Room for any description. */
#define NC_BOOT_DESCRIPTION_BYTES_MAX (512 * 1024)

/* Room for the name of a directory that each tablespace has for a server's major version. */
#define NC_BOOT_DIRECTORY_BYTES 64

typedef struct NcBootDescription
{
	uint64_t	system_identifier;
	uint32_t	timeline;
	uint32_t	segment_bytes;	/* of WAL */
	bool		checksums;
	char		tablespace_directory[NC_BOOT_DIRECTORY_BYTES];
	NcLsn		cut;			/* end of the last record that was replayed */
	NcLsn		checkpoint;		/* start of the record behind it */
	NcId		birth;
	NcLineage	lineage;
} NcBootDescription;

/* The length; 0: does not fit. */
extern size_t nc_boot_description_write(const NcBootDescription *d, char *to, size_t room);

/* text ends with a NUL behind its bytes.  NULL, or what is wrong. */
NC_MUST_USE extern const char *nc_boot_description_parse(const char *text, size_t bytes,
														 NcBootDescription *out);

/* ---- lengths ---- */

/* The main fork of a relation. */
typedef struct NcBootFork
{
	uint32_t	spc;
	uint32_t	db;
	uint32_t	rel;
	uint32_t	blocks;
} NcBootFork;

/* "4294967295 4294967295 4294967295 4294967295\n" and the end. */
#define NC_BOOT_FORK_BYTES 45

/* Returns the length. */
extern size_t nc_boot_fork_write(const NcBootFork *fork, char to[NC_BOOT_FORK_BYTES]);

/* A reader of lines that come in pieces; zeroed at first. */
typedef struct NcBootForkReader
{
	size_t		have;
	char		line[NC_BOOT_FORK_BYTES];
} NcBootForkReader;

/* Calls visit for each line that is complete; false when one is not understood, or visit says so. */
NC_MUST_USE extern bool nc_boot_fork_read(NcBootForkReader *reader, const char *text, size_t bytes,
										  bool (*visit) (void *arg, const NcBootFork *fork), void *arg);

/* Nothing is left over. */
extern bool nc_boot_fork_read_done(const NcBootForkReader *reader);

/* Where segment `segment` of the fork is, relative to the data directory.  The length. */
#define NC_BOOT_PATH_BYTES 128
extern size_t nc_boot_fork_path(const NcBootFork *fork, const char *tablespace_directory,
								uint32_t segment, char to[NC_BOOT_PATH_BYTES]);

#endif							/* NC_BOOT_IMAGE_H */
