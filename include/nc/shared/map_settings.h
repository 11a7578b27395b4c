/*
 * nc/shared/map_settings.h
 *	  The list of page servers and the stripe: two settings that make one map.
 */
#ifndef NC_SHARED_MAP_SETTINGS_H
#define NC_SHARED_MAP_SETTINGS_H

#include "postgres.h"

typedef struct NcMapSettings
{
	const char *page_servers;	/* valid until the next call */
	int			stripe_size;	/* blocks */
} NcMapSettings;

/* In the postmaster: children shall have its pair from their beginning. */
extern void nc_map_settings_init(void);

/*
 * What the shard map is made of: both settings as they are, or, since one of them was refused
 * at a reload, both as they were before.  Cheap; never raises an error.
 */
extern NcMapSettings nc_map_settings(void);

/* Which of the two was refused at the last reload; NULL = none. */
extern const char *nc_map_refused(void);

/* For the check hooks: the list was judged; the stripe was found good. */
extern void nc_map_list_judged(bool good);
extern void nc_map_stripe_judged(void);

#endif							/* NC_SHARED_MAP_SETTINGS_H */
