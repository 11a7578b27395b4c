/*
 * nc/client/prefetch.h
 *	  Pages asked for ahead: they wait in staging memory of this process until it
 *	  reads them, or until nobody will.
 */
#ifndef NC_CLIENT_PREFETCH_H
#define NC_CLIENT_PREFETCH_H

#include "nc/compat/pg.h"

#include "access/xlogdefs.h"

/*
 * Who asked: 0 the executor, through smgrprefetch; from 1 a readahead stream,
 * which learns here how many of its pages were dropped unread; the last one a read
 * stream of the server, through smgrprefetch, too.
 */
#define NC_PREFETCH_TAGS 18
#define NC_PREFETCH_EXECUTOR 0
#define NC_PREFETCH_READ_STREAM (NC_PREFETCH_TAGS - 1)
extern uint32 nc_prefetch_unread[NC_PREFETCH_TAGS];

/* May this process ask ahead now, for as much as one page? Cheap. */
extern bool nc_prefetch_possible(void);

/* Asked for already, and neither read nor dropped? */
extern bool nc_prefetch_known(const NcRelKey *rel, BlockNumber block);

/*
 * Asks for a run of blocks, none of which is known; all were last changed at
 * not_modified_since or before, as far as was known when the caller looked.
 * Only a hint: false, and nothing done, without a free slot or staging memory or when that LSN is
 * not durable.  Never waits, never fails.
 */
extern bool nc_prefetch_ask(const NcRelKey *rel, BlockNumber block, int nblocks,
							XLogRecPtr not_modified_since, int tag);

/*
 * For a block that the executor will read: asked for by nc_prefetch_ask_named() or, while
 * many requests are under way, together with its neighbours when there is room.
 */
extern void nc_prefetch_name(const NcRelKey *rel, BlockNumber block,
							 XLogRecPtr not_modified_since, int tag);
extern void nc_prefetch_ask_named(void);

/* Was it named or asked for under this tag, and neither read nor dropped since? */
extern bool nc_prefetch_known_by(const NcRelKey *rel, BlockNumber block, int tag);

/*
 * The page, if it was asked for ahead and is of use: nothing can have changed it
 * since it was asked for (not_modified_since is what a request would say *now*,
 * exact what its answer would have to reach).  Waits when it is on its way, as a
 * read does.  False: ask for it.
 */
extern bool nc_prefetch_take(const NcRelKey *rel, BlockNumber block,
							 XLogRecPtr not_modified_since, XLogRecPtr exact, char *page);

/* Nobody will read what was asked for under this tag: drops it. */
extern void nc_prefetch_forget(int tag);

/* Pages of this process that wait or are on their way; for limits. */
extern int	nc_prefetch_live(void);

#endif							/* NC_CLIENT_PREFETCH_H */
