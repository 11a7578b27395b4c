/*
 * nc/feed/feed.h
 *	  The WAL feed: a background worker of the compute that streams its WAL to
 *	  the page servers, in every phase of the compute's life.
 *
 * It speaks the server side of physical replication to stock walreceivers,
 * reads pg_wal, and never a catalog: an ordinary walsender must read pg_authid
 * for the login, and that page may be the one a page server waits for.
 */
#ifndef NC_FEED_FEED_H
#define NC_FEED_FEED_H

#include "postgres.h"

#include "access/xlogdefs.h"
#include "datatype/timestamp.h"

#include "nc/identity/identity.h"

#define NC_FEED_ADDRESS_BYTES 64
#define NC_FEED_STATE_BYTES 16
#define NC_FEED_REASON_BYTES 600

/* A registered page server, as the view neon_comm.page_servers shows it. */
typedef struct NcFeedPeer
{
	char		name[NAMEDATALEN];	/* its slot in neon_comm.wal_feed_slots */
	char		address[NC_FEED_ADDRESS_BYTES]; /* "" = not connected */

	/*
	 * "absent": not connected.  "waiting": has more WAL than recovery has
	 * replayed so far, gets none until recovery has passed it or ended.  "catchup": behind.  "streaming": has been sent
	 * everything.  "closing": its connection is being ended.  "parted": its history is not ours, for
	 * good.  "refused": it came and was not let in, which may pass.
	 */
	char		state[NC_FEED_STATE_BYTES];
	char		reason[NC_FEED_REASON_BYTES];	/* parted, refused: why; otherwise "" */

	/* Invalid when not known. While absent, the last ones reported. */
	XLogRecPtr	sent;
	XLogRecPtr	write;
	XLogRecPtr	flush;
	XLogRecPtr	apply;
	XLogRecPtr	retained_from;	/* WAL from here on is kept for it */
	bool		throttles;		/* writers of WAL wait for it */

	/* Its place in synchronous_standby_names, 0 = none, and as what it counts, as pg_stat_replication says it. */
	int			sync_priority;
	char		sync_state[NC_FEED_STATE_BYTES];	/* "" when absent */
	NcId		member;			/* who streams; none when absent */
	uint64		asked_us;		/* connected, and has not answered since it was asked then, by nc_clock_us(); 0 = it has */
	TimestampTz reply_time;		/* of the last status update, by our clock; 0 = none */
	TimestampTz connected_since;	/* 0 when absent */
} NcFeedPeer;

/* Does this server have a WAL feed, by its settings? */
extern bool nc_feed_enabled(void);

/* Are incarnations ordered, for takeovers (neon_comm.write_quorum)? */
extern bool nc_feed_is_ordered(void);

/* From _PG_init: settings, their checks and the doorbell. */
extern void nc_feed_init(void);

/* From the shared memory hooks; the startup function runs with AddinShmemInitLock held. */
extern Size nc_feed_shmem_bytes(void);
extern void nc_feed_shmem_startup(void);

/*
 * Any process: somebody waits until page servers have the WAL up to lsn, which
 * has been flushed (in recovery: replayed) before the call.  Costs two shared
 * reads when it was sent already or when the feed is awake.  Never blocks,
 * never fails, may be called in a critical section.
 */
extern void nc_feed_ring(XLogRecPtr lsn);

/* Do page servers get their WAL from here?  Then they are standbys of this cluster. */
extern bool nc_feed_is_configured(void);

/* How the feed fares; zeroes before its first turn, and without one. */
typedef struct NcFeedHealth
{
	uint64		heartbeat_us;	/* of its last turn, by nc_clock_us() */
	XLogRecPtr	end;			/* page servers may have WAL up to here: flushed, in recovery replayed */
	bool		in_recovery;
	bool		let_in;			/* logins go on */
} NcFeedHealth;

extern NcFeedHealth nc_feed_health(void);
/*
 * The page servers of these slots become the members, of which so many confirm (docs/takeover.md); or a change to
 * them that was interrupted goes on.  Returns when they have confirmed that; throws, and may be interrupted at any time.
 */
extern void nc_feed_change_members(const char *const *names, int n, int write_quorum);

/* Copies up to max rows, one for each registered page server; returns how many. */
extern int	nc_feed_peers(NcFeedPeer *rows, int max);

#endif							/* NC_FEED_FEED_H */
