/*
 * lay.h
 *	  Lays a data directory from the entries of a boot image.
 *
 * Everything is made in PGDATA.neon_boot and gets its name last, so nothing that
 * could be started is ever at PGDATA but the whole.  docs/boot.md, "What is laid".
 */
#ifndef NC_BIN_LAY_H
#define NC_BIN_LAY_H

#include <limits.h>

#include "nc/boot/image.h"
#include "nc/boot/tar.h"

#define LAY_WHY_BYTES 1024

typedef struct Lay
{
	NcId		life;			/* the incarnation that begins at the cut; none: one is made */
	const NcId *unbegun;		/* incarnations that are known to have written nothing, oldest first */
	int			nunbegun;
	char		target[PATH_MAX];
	char		partial[PATH_MAX];	/* "" = nothing was made */
	int			dir;			/* of the partial directory; -1 = none */
	NcBootDescription description;
	bool		described;		/* the description has come; it is the first entry */
	bool		neon;			/* there is none: an image in Neon's form */
	bool		has_forks;
	bool		has_version;
	bool		has_control;
	bool		has_signal;		/* in Neon's form */
	NcLsn		prev;			/* of that: where the last record begins; 0 = not known */

	/* Given: the directory of a page server of ours that runs here, or NULL, and where WAL is to begin, or 0. */
	const char *beside;
	NcLsn		wal_from;

	/* The entry that is coming. */
	NcTarEntry	entry;
	int			fd;				/* -1 = it is read here */
	int			also;			/* the main fork beside an INIT fork, or -1 */
	bool		skipped;		/* it is of no use here */
	char	   *text;			/* the description, or a signal file in Neon's form */
	size_t		text_bytes;
	NcBootForkReader forks;

	uint64_t	relations;
	uint64_t	bytes;			/* of content, without holes */
	char		why[LAY_WHY_BYTES];	/* what is wrong */
} Lay;

/* These return false with `why`. */

/* Says what is wrong. */
extern bool lay_complain(Lay *lay, const char *fmt,...) __attribute__((format(printf, 2, 3)));

/* Makes the partial directory; removes one that an earlier call left. */
extern bool lay_begin(Lay *lay, const char *pgdata);

/* What a reader of the tar gives its entries to. */
extern NcTarSink lay_sink(Lay *lay);

/* The whole image has come: what is not in it is added, and the directory gets its name. */
extern bool lay_finish(Lay *lay);

/* In Neon's form, when all entries have come: what they say, and the checkpoint that they lack (lay_neon.c). */
extern bool lay_neon_describe(Lay *lay);
extern bool lay_neon_checkpoint(Lay *lay);

/* A segment of transaction states that the image does not have; its file goes to `name` in the directory. */
typedef struct LaySlru
{
	uint8_t		kind;			/* NcSlruKind */
	uint32_t	segno;
	char		name[NC_TAR_NAME_BYTES];
	NcLsn		lsn;			/* of the image */
} LaySlru;

/* In Neon's form, before lay_finish(): has each missing one fetched, which calls lay_neon_put(). */
extern bool lay_neon_complete(Lay *lay, bool (*fetch) (void *arg, const LaySlru *slru), void *arg);
extern bool lay_neon_put(Lay *lay, const LaySlru *slru, const void *pages, size_t bytes);

/* Removes what was made. */
extern void lay_abandon(Lay *lay);

#endif							/* NC_BIN_LAY_H */
