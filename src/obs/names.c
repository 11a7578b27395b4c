/*
 * names.c
 *	  See nc/obs/names.h.
 */
#include "nc/obs/names.h"

const NcCounterName nc_counter_names[NC_COUNTERS] = {
#define NC_COUNTER(id, name, meaning) {name, meaning},
#include "nc/obs/counters.def"
#undef NC_COUNTER
};

const char *
nc_conn_state_name(NcConnState state)
{
	switch (state)
	{
		case NC_CONN_UNUSED:
			return "unused";
		case NC_CONN_BACKOFF:
			return "backoff";
		case NC_CONN_CONNECTING:
			return "connecting";
		case NC_CONN_STARTING:
			return "starting";
		case NC_CONN_READY:
			return "ready";
		case NC_CONN_CLOSING:
			return "closing";
	}
	return "invalid";
}

const char *
nc_stage_name(NcStage stage)
{
	switch (stage)
	{
		case NC_STAGE_QUEUE:
			return "queue";
		case NC_STAGE_SEND:
			return "send";
		case NC_STAGE_SERVER:
			return "server";
		case NC_STAGE_RECEIVE:
			return "receive";
		case NC_STAGE_COPY:
			return "copy";
		case NC_STAGE_WAKE:
			return "wake";
		case NC_STAGES:
			break;
	}
	return "invalid";
}

const char *
nc_latency_class_name(NcLatencyClass class)
{
	return class == NC_LATENCY_DEMAND ? "demand" : "ahead";
}
