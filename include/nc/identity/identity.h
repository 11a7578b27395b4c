/*
 * nc/identity/identity.h
 *	  Who is who: ids, the lineage of a compute, and what they look like as text.
 *
 * docs/identity.md says what they mean.  The module judges whether a compute and
 * a page server are of one history.  It is plain: it is given bytes and values,
 * knows no clock and no server, and the model in test/identity runs it as it is.
 */
#ifndef NC_IDENTITY_IDENTITY_H
#define NC_IDENTITY_IDENTITY_H

#include "nc/base/check.h"
#include "nc/base/units.h"

#define NC_ID_BYTES 16
#define NC_ID_TEXT 33			/* 32 digits and the end */

/*
 * Incarnations that are remembered, and page servers and computes that are remembered as parted; the
 * oldest are forgotten first. The model is built with smaller ones.
 */
#ifndef NC_LINEAGE_MAX
#define NC_LINEAGE_MAX 4096
#define NC_PARTED_MAX 512
#define NC_SESSIONS_MAX 128
#endif

/* A reason, as it stands in files and messages. */
#define NC_REASON_BYTES 200

/* A birth, an incarnation, a member. All zeroes: none. */
typedef struct NcId
{
	uint8_t		b[NC_ID_BYTES];
} NcId;

extern bool nc_id_is_none(const NcId *id);
extern bool nc_id_equal(const NcId *a, const NcId *b);

/* A new id of random bytes; false when the kernel has none to give. */
NC_MUST_USE extern bool nc_id_make(NcId *id);

/* 32 digits in lower case, or "-" for none. Returns to, which has NC_ID_TEXT bytes. */
extern char *nc_id_text(const NcId *id, char *to);

/* The whole text is an id (or "-" where none is allowed). */
NC_MUST_USE extern bool nc_id_parse(const char *text, bool none_allowed, NcId *out);

typedef struct NcIncarnation
{
	NcId		id;
	NcLsn		began;			/* where its own first record may stand; 0 = not known (yet) */
} NcIncarnation;

/* Oldest first. */
typedef struct NcLineage
{
	bool		forgotten;		/* there were older ones */
	uint32_t	n;
	NcIncarnation at[NC_LINEAGE_MAX];
} NcLineage;

/* Its index, or -1. Looks from the end. */
extern int	nc_lineage_find(const NcLineage *lineage, const NcId *id);

/* Appends; forgets the oldest when it is full. */
extern void nc_lineage_append(NcLineage *lineage, const NcId *id, NcLsn began);

/*
 * Where the first of the incarnations after `index` began that wrote anything; one without
 * `began` never sent WAL. 0 = not known yet: recovery has not ended, or there is none after it.
 */
extern NcLsn nc_lineage_next_began(const NcLineage *lineage, int index);

/* Somebody that was refused for good. */
typedef struct NcParted
{
	NcId		id;				/* a member (known to a compute), an incarnation (known to a page server) */
	char		reason[NC_REASON_BYTES];
} NcParted;

typedef struct NcPartedList
{
	uint32_t	n;
	NcParted	at[NC_PARTED_MAX];
} NcPartedList;

/* NULL = not there. */
extern const NcParted *nc_parted_find(const NcPartedList *list, const NcId *id);

/* Appends unless it is there; true when the list has changed. The reason is cut, and made one line. */
extern bool nc_parted_add(NcPartedList *list, const NcId *id, const char *reason);

#endif							/* NC_IDENTITY_IDENTITY_H */
