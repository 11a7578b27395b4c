/*
 * metrics_int.h
 *	  What the files of metrics share.  Private to src/metrics.
 */
#ifndef METRICS_INT_H
#define METRICS_INT_H

#include "nc/feed/feed.h"
#include "nc/metrics/metrics.h"
#include "nc/obs/conn_row.h"
#include "nc/obs/json.h"
#include "nc/ring/slot.h"
#include "nc/shard/shard_map.h"

/* ---- guc.c ---- */

extern int	nc_metrics_ready_timeout;	/* ms */

/* ---- look.c: what is there now, in memory of this process that the next look overwrites ---- */

/* The connections to one host of a shard. */
typedef struct NcHostLook
{
	uint32		shard;
	char		address[sizeof(((NcConnRow *) NULL)->address)];
	char		last_error[sizeof(((NcConnRow *) NULL)->last_error)];	/* of one in trouble; "" = all is well */
	uint32		by_state[NC_CONN_STATES];
	uint64		in_flight;
	uint32		failures;
	bool		good;			/* one of them can be asked, and answers well */
} NcHostLook;

typedef struct NcLook
{
	uint64		now_us;
	uint32		nshards;		/* 0 = none are configured */
	uint64		oldest_us[NC_SHARDS_MAX];	/* age of the oldest request; 0 = none */
	uint32		slots[NC_SLOT_STATES];
	uint32		waiting[NC_SLOT_WAITS];
	int			nhosts;
	NcHostLook	hosts[NC_CONN_ROWS];
	int			npeers;
	NcFeedPeer	peers[NC_SHARDS_MAX];
} NcLook;

extern NcLook *nc_metrics_look(void);

/* Since then, by the clock that never jumps. */
extern uint64 nc_metrics_age(uint64 then_us);

/* Since the feed has asked a page server that has not answered, in microseconds; 0 = it has. */
extern uint64 nc_metrics_silence(const NcFeedPeer *peer);

/* Has somebody of this shard answered lately, or could be asked?  Else the host that is in trouble, or NULL. */
extern bool nc_metrics_shard_ready(const NcLook *look, uint32 shard, const NcHostLook **trouble);

/* Text that another process may write meanwhile. */
extern void nc_metrics_text(char *to, const char *from, Size bytes);

/* ---- the pages ---- */

extern int	nc_metrics_write(NcWriter *w, bool openmetrics);
extern int	nc_metrics_write_health(NcWriter *w, bool openmetrics);
extern int	nc_metrics_write_ready(NcWriter *w, bool openmetrics);
extern int	nc_metrics_write_slots(NcWriter *w, bool openmetrics);
extern int	nc_metrics_write_connections(NcWriter *w, bool openmetrics);

#endif							/* METRICS_INT_H */
