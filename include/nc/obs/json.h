/*
 * nc/obs/json.h
 *	  Writing JSON.  Names are ours; of texts what is not ASCII becomes '?'.
 */
#ifndef NC_OBS_JSON_H
#define NC_OBS_JSON_H

#include "nc/base/bytes.h"

typedef struct NcJsonWriter
{
	NcWriter   *w;
	bool		comma;			/* something was written at this level */
} NcJsonWriter;

/* '{' or '['; name is NULL where there is none: in an array, and at the top. */
extern void nc_json_open(NcJsonWriter *j, const char *name, char bracket);
extern void nc_json_close(NcJsonWriter *j, char bracket);
extern void nc_json_text(NcJsonWriter *j, const char *name, const char *text);
extern void nc_json_number(NcJsonWriter *j, const char *name, uint64_t value);
extern void nc_json_bool(NcJsonWriter *j, const char *name, bool value);

/* As seconds. */
extern void nc_json_us(NcJsonWriter *j, const char *name, uint64_t us);

#endif							/* NC_OBS_JSON_H */
