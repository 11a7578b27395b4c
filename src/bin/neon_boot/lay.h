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
	bool		has_forks;
	bool		has_version;
	bool		has_control;

	/* The entry that is coming. */
	NcTarEntry	entry;
	int			fd;				/* -1 = it is read here */
	int			also;			/* the main fork beside an INIT fork, or -1 */
	char	   *text;			/* the description */
	size_t		text_bytes;
	NcBootForkReader forks;

	uint64_t	relations;
	uint64_t	bytes;			/* of content, without holes */
	char		why[LAY_WHY_BYTES];	/* what is wrong */
} Lay;

/* These return false with `why`. */

/* Makes the partial directory; removes one that an earlier call left. */
extern bool lay_begin(Lay *lay, const char *pgdata);

/* What a reader of the tar gives its entries to. */
extern NcTarSink lay_sink(Lay *lay);

/* The whole image has come: what is not in it is added, and the directory gets its name. */
extern bool lay_finish(Lay *lay);

/* Removes what was made. */
extern void lay_abandon(Lay *lay);

#endif							/* NC_BIN_LAY_H */
