/*
 * nc/metrics/metrics.h
 *	  What the exporter of a compute says: metrics, whether it is ready, slots and
 *	  connections.
 *
 * All of it comes from shared memory, without locks.  docs/metrics.md has the whole.
 */
#ifndef NC_METRICS_METRICS_H
#define NC_METRICS_METRICS_H

#include "postgres.h"

#include "access/xlogdefs.h"

#include "nc/exporter/exporter.h"
#include "nc/ring/slot.h"

/* Settings; from _PG_init. */
extern void nc_metrics_init(void);

/* Is there an exporter, by the settings? */
extern bool nc_metrics_enabled(void);

extern const NcExporter nc_metrics_exporter;

/* How far every page server that is connected has applied WAL; all ones when none is. */
extern XLogRecPtr nc_metrics_applied_everywhere(void);

/* Who has to act for a slot to go on. */
typedef enum NcSlotWaits
{
	NC_SLOT_WAITS_PROCESS,		/* the one it belongs to */
	NC_SLOT_WAITS_COMMUNICATOR,
	NC_SLOT_WAITS_WAL,
	NC_SLOT_WAITS_PAGE_SERVER
} NcSlotWaits;

#define NC_SLOT_WAITS (NC_SLOT_WAITS_PAGE_SERVER + 1)

extern NcSlotWaits nc_slot_waits_for(const NcSlot *slot, NcSlotState state, XLogRecPtr applied);
extern const char *nc_slot_waits_name(NcSlotWaits who);

#endif							/* NC_METRICS_METRICS_H */
