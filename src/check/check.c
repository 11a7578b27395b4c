/*
 * check.c
 *	  The rows of a check, what several items judge alike, and the order of all.
 */
#include "postgres.h"

#include <time.h>

#include "check_int.h"

#define DAY_S 86400

const char *
nc_check_state_name(NcCheckState state)
{
	switch (state)
	{
		case NC_CHECK_OK:
			return "ok";
		case NC_CHECK_WARNING:
			return "warning";
		case NC_CHECK_ERROR:
			return "error";
		case NC_CHECK_UNKNOWN:
			break;
	}
	return "unknown";
}

void
nc_check_row(Report *r, const char *item, const char *subject, NcCheckState state,
			 const char *remedy, const char *fmt,...)
{
	NcCheckRow	row = {.item = item, .subject = subject, .state = state};
	char		what[1024];
	va_list		args;

	va_start(args, fmt);
	vsnprintf(what, sizeof(what), fmt, args);
	va_end(args);
	row.what = what;
	row.remedy = state == NC_CHECK_OK ? NULL : remedy;
	r->put(r->arg, &row);
}

int64
nc_check_now(void)
{
	return (int64) time(NULL);
}

void
nc_check_until(Report *r, const char *item, const char *subject, int64 until_s, const char *remedy)
{
	int64		left = until_s - nc_check_now();

	if (left <= 0)
		nc_check_row(r, item, subject, NC_CHECK_ERROR, remedy, "it ended %lld days ago",
					 (long long) (-left / DAY_S));
	else
		nc_check_row(r, item, subject, left < (int64) r->limits->days * DAY_S ? NC_CHECK_WARNING :
					 NC_CHECK_OK, remedy, "it is good for %lld days more",
					 (long long) (left / DAY_S));
}

void
nc_check_room(Report *r, const char *subject, uint64 free_bytes, uint64 bytes, uint64 wanted)
{
	uint64		percent = bytes > 0 ? free_bytes * 100 / bytes : 0;
	NcCheckState state = NC_CHECK_OK;

	if (percent < r->limits->free_percent || free_bytes < wanted)
		state = NC_CHECK_WARNING;
	if (percent < r->limits->free_percent / 5 || free_bytes < wanted / 5)
		state = NC_CHECK_ERROR;
	nc_check_row(r, "disk", subject, state, "Make room, or find out what fills it (docs/operations.md, \"The disk fills with WAL\").",
				 "%llu MB free, %llu %%%s", (unsigned long long) (free_bytes >> 20),
				 (unsigned long long) percent,
				 free_bytes < wanted ? psprintf("; %llu MB may be written there", (unsigned long long) (wanted >> 20)) : "");
}

void
nc_check_run(const NcCheckLimits *limits, NcCheckPut put, void *arg)
{
	Report		r = {.limits = limits, .put = put, .arg = arg};
	AskedAll   *all = palloc0(sizeof(AskedAll));
	char		err[256];

	nc_check_compute(&r);
	if (!nc_ask_collect(all, err, sizeof(err)))
	{
		nc_check_row(&r, "page server", "neon_comm.page_servers", NC_CHECK_ERROR,
					 "Set neon_comm.page_servers.", "%s", err);
		return;
	}
	PG_TRY();
	{
		nc_ask(all, "show status", limits->seconds);
		nc_check_page_servers(&r, all);
	}
	PG_FINALLY();
	{
		nc_ask_end(all);
	}
	PG_END_TRY();
}
