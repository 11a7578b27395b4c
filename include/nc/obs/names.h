/*
 * nc/obs/names.h
 *	  Names of what is counted and shown, as views and metrics have them.
 */
#ifndef NC_OBS_NAMES_H
#define NC_OBS_NAMES_H

#include "nc/obs/conn_row.h"
#include "nc/obs/counters.h"
#include "nc/obs/latency.h"

typedef struct NcCounterName
{
	const char *name;
	const char *meaning;
} NcCounterName;

extern const NcCounterName nc_counter_names[NC_COUNTERS];

extern const char *nc_conn_state_name(NcConnState state);
extern const char *nc_stage_name(NcStage stage);
extern const char *nc_latency_class_name(NcLatencyClass class);

#endif							/* NC_OBS_NAMES_H */
