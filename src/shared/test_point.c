/*
 * test_point.c
 *	  The table of test points in shared memory, what happens at one, and the
 *	  SQL functions that arm them.  Empty in a release build.
 *
 * Every process looks here.  A stopped process sleeps in short naps, heeds no
 * interrupt and holds what it holds, until it is woken or the postmaster dies.
 * Tests wait for "n processes are stopped here", never for time to pass.
 */
#include "postgres.h"

#include "nc/shared/test_point.h"

#ifdef NC_TEST_RULES

#include <signal.h>
#include <unistd.h>

#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lwlock.h"
#include "storage/pmsignal.h"
#include "storage/shmem.h"
#include "storage/spin.h"
#include "utils/builtins.h"
#include "utils/guc.h"

#include "nc/compat/server.h"

#define POINTS_MAX 64
#define NAP_US 1000

typedef enum Action
{
	ACTION_NONE,
	ACTION_PAUSE,				/* until woken */
	ACTION_ERROR,				/* ereport(ERROR); in a critical section that is a PANIC */
	ACTION_ERRNO,				/* NC_TEST_FAULT says true and sets errno */
	ACTION_TRUE,				/* NC_TEST_TRUE says true */
	ACTION_KILL					/* SIGKILL of this process */
} Action;

static const char *const action_names[] = {"none", "pause", "error", "errno", "true", "kill"};

/* An entry is never given to another name, so that a late waiter counts itself out here. */
typedef struct Point
{
	char		name[NAMEDATALEN];	/* empty: not used yet */
	Action		action;
	int			arg;			/* errno */
	int			pid;			/* only this process; 0 all */
	uint32		rel;			/* only this relation; 0 all */
	int64		skip;			/* visits to let pass before */
	int64		times;			/* visits still to act on; -1 all */
	int64		hits;			/* visits acted on since it was armed */
	uint64		wakes;			/* changes when those who wait are to go on */
	int			waiting;		/* processes stopped here */
} Point;

typedef struct PointTable
{
	slock_t		lock;
	volatile int armed;			/* looked at without the lock: most visits end there */
	Point		points[POINTS_MAX];
} PointTable;

static PointTable *table = NULL;
static char *guc_text = "";

/* ---- the table ---- */

static Point *
find_point(const char *name)
{
	for (int i = 0; i < POINTS_MAX && table->points[i].name[0] != '\0'; i++)
		if (strcmp(table->points[i].name, name) == 0)
			return &table->points[i];
	return NULL;
}

/* With the lock held; NULL when the table is full. */
static Point *
enter_test_point(const char *name)
{
	Point	   *point = find_point(name);

	for (int i = 0; point == NULL && i < POINTS_MAX; i++)
	{
		if (table->points[i].name[0] != '\0')
			continue;
		point = &table->points[i];
		strlcpy(point->name, name, sizeof(point->name));
	}
	return point;
}

static void
count_armed(void)
{
	int			n = 0;

	for (int i = 0; i < POINTS_MAX; i++)
		n += table->points[i].action != ACTION_NONE;
	table->armed = n;
}

static bool
arm(const char *name, Action action, int arg, int64 times, int64 skip, int pid,
	uint32 rel)
{
	Point	   *point;

	SpinLockAcquire(&table->lock);
	point = enter_test_point(name);
	if (point != NULL)
	{
		point->action = action;
		point->arg = arg;
		point->times = times;
		point->skip = skip;
		point->pid = pid;
		point->rel = rel;
		point->hits = 0;
		point->wakes++;
		count_armed();
	}
	SpinLockRelease(&table->lock);
	return point != NULL;
}

static void
disarm_all(void)
{
	SpinLockAcquire(&table->lock);
	for (int i = 0; i < POINTS_MAX; i++)
	{
		table->points[i].action = ACTION_NONE;
		table->points[i].wakes++;
	}
	table->armed = 0;
	SpinLockRelease(&table->lock);
}

/* ---- at a point ---- */

/* What this visit has to do; a pause is counted in before the lock is let go. */
static Action
visit(const char *name, uint32 rel, Point **point, uint64 *wakes, int *arg)
{
	Action		action = ACTION_NONE;

	SpinLockAcquire(&table->lock);
	*point = find_point(name);
	if (*point != NULL && (*point)->action != ACTION_NONE && (*point)->times != 0 &&
		((*point)->pid == 0 || (*point)->pid == MyProcPid) &&
		((*point)->rel == 0 || (*point)->rel == rel))
	{
		if ((*point)->skip > 0)
			(*point)->skip--;
		else
		{
			action = (*point)->action;
			*arg = (*point)->arg;
			*wakes = (*point)->wakes;
			(*point)->hits++;
			if ((*point)->times > 0)
				(*point)->times--;
			if (action == ACTION_PAUSE)
				(*point)->waiting++;
		}
	}
	SpinLockRelease(&table->lock);
	return action;
}

static void
pause_at(Point *point, uint64 wakes)
{
	bool		woken = false;

	ereport(LOG, (errmsg("test point \"%s\": process %d stops", point->name, MyProcPid),
				  errhidestmt(true)));
	while (!woken)
	{
		pg_usleep(NAP_US);
		if (!PostmasterIsAlive())
			_exit(1);
		SpinLockAcquire(&table->lock);
		woken = point->wakes != wakes;
		if (woken)
			point->waiting--;
		SpinLockRelease(&table->lock);
	}
}

NcTestFound
nc_test_point_reached(const char *name, uint32 rel)
{
	Point	   *point;
	uint64		wakes = 0;
	int			arg = 0;

	if (table == NULL || table->armed == 0)
		return NC_TEST_FOUND_NOTHING;
	switch (visit(name, rel, &point, &wakes, &arg))
	{
		case ACTION_NONE:
			break;
		case ACTION_PAUSE:
			pause_at(point, wakes);
			break;
		case ACTION_ERROR:
			ereport(ERROR, (errmsg("test point \"%s\" fails", name)));
			break;
		case ACTION_ERRNO:
			errno = arg;
			return NC_TEST_FOUND_ERRNO;
		case ACTION_TRUE:
			return NC_TEST_FOUND_TRUE;
		case ACTION_KILL:
			ereport(LOG, (errmsg("test point \"%s\": process %d ends itself", name, MyProcPid)));
			kill(MyProcPid, SIGKILL);
			for (;;)
				pg_usleep(NAP_US);
	}
	return NC_TEST_FOUND_NOTHING;
}

/* ---- the setting ---- */

static bool
parse_action(const char *text, Action *action)
{
	for (int i = 0; i < lengthof(action_names); i++)
	{
		*action = i;
		if (strcmp(action_names[i], text) == 0)
			return true;
	}
	return false;
}

/* One "point=action:arg:times:skip:pid:rel"; what is left out is 0, -1, 0, 0, 0. */
static bool
take_test_word(char *word, bool apply)
{
	char	   *eq = strchr(word, '=');
	char	   *colon;
	long		numbers[5] = {0, -1, 0, 0, 0};
	Action		action;

	if (eq == NULL || eq == word || eq - word >= NAMEDATALEN)
		return false;
	*eq = '\0';
	colon = strchr(eq + 1, ':');
	for (int i = 0; i < lengthof(numbers) && colon != NULL; i++)
	{
		*colon = '\0';
		numbers[i] = strtol(colon + 1, &colon, 10);
		if (*colon == '\0')
			colon = NULL;
		else if (*colon != ':')
			return false;
	}
	if (!parse_action(eq + 1, &action))
		return false;
	return !apply || arm(word, action, numbers[0], numbers[1], numbers[2], numbers[3],
						 numbers[4]);
}

static bool
take_list(const char *list, bool apply)
{
	char		copy[1024];
	char	   *rest;

	strlcpy(copy, list, sizeof(copy));
	for (char *word = strtok_r(copy, " ", &rest); word != NULL; word = strtok_r(NULL, " ", &rest))
		if (!take_test_word(word, apply))
			return false;
	return true;
}

static bool
check_points(char **value, void **extra, GucSource source)
{
	return take_list(*value, false);
}

/* The postmaster alone arms: a value that changes is the whole of what is armed from then on. */
static void
assign_points(const char *value, void *extra)
{
	if (table == NULL || IsUnderPostmaster)
		return;
	disarm_all();
	(void) take_list(value, true);
}

void
nc_test_point_guc_init(void)
{
	DefineCustomStringVariable("neon_comm.test_points",
							   "Test points that are armed before SQL works.",
							   "Test builds only: name=action:arg:times:skip:pid:rel, separated by blanks.",
							   &guc_text, "", PGC_SIGHUP, GUC_SUPERUSER_ONLY,
							   check_points, assign_points, NULL);
}

Size
nc_test_point_shmem_bytes(void)
{
	return MAXALIGN(sizeof(PointTable));
}

void
nc_test_point_shmem_startup(void)
{
	bool		found;
	PointTable *memory = ShmemInitStruct("neon_comm test points", sizeof(PointTable), &found);

	if (!found)
	{
		memset(memory, 0, sizeof(PointTable));
		SpinLockInit(&memory->lock);
	}
	table = memory;
	if (!found)
		(void) take_list(guc_text, true);
}

/* ---- SQL ---- */

PG_FUNCTION_INFO_V1(nc_test_arm);
PG_FUNCTION_INFO_V1(nc_test_wake);
PG_FUNCTION_INFO_V1(nc_test_wait);
PG_FUNCTION_INFO_V1(nc_test_waiting);
PG_FUNCTION_INFO_V1(nc_test_hits);
PG_FUNCTION_INFO_V1(nc_test_disarm_all);
PG_FUNCTION_INFO_V1(nc_test_set_next_oid);

static void
require_table(void)
{
	if (!superuser())
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
						errmsg("test points are for superusers")));
	if (table == NULL)
		ereport(ERROR, (errmsg("neon_comm must be loaded via shared_preload_libraries")));
}

static int64
read_point(const char *name, bool hits)
{
	Point	   *point;
	int64		value;

	SpinLockAcquire(&table->lock);
	point = find_point(name);
	value = point == NULL ? 0 : hits ? point->hits : point->waiting;
	SpinLockRelease(&table->lock);
	return value;
}

/* arm(point text, action text, arg int, times bigint, skip bigint, pid int, rel oid); "none" disarms and wakes. */
Datum
nc_test_arm(PG_FUNCTION_ARGS)
{
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	char	   *action_name = text_to_cstring(PG_GETARG_TEXT_PP(1));
	Action		action;

	require_table();
	if (strlen(name) >= NAMEDATALEN || !parse_action(action_name, &action))
		ereport(ERROR, (errmsg("unknown action \"%s\" or name too long", action_name)));
	if (!arm(name, action, PG_GETARG_INT32(2), PG_GETARG_INT64(3), PG_GETARG_INT64(4),
			 PG_GETARG_INT32(5), PG_GETARG_OID(6)))
		ereport(ERROR, (errmsg("too many test points")));
	PG_RETURN_VOID();
}

/* Lets those go on who wait now; the point stays armed. Returns how many. */
Datum
nc_test_wake(PG_FUNCTION_ARGS)
{
	Point	   *point;
	int			n = 0;

	require_table();
	SpinLockAcquire(&table->lock);
	point = find_point(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	if (point != NULL)
	{
		n = point->waiting;
		point->wakes++;
	}
	SpinLockRelease(&table->lock);
	PG_RETURN_INT32(n);
}

/* Waits until n processes are stopped there; an error after so many ms ends a hang. */
Datum
nc_test_wait(PG_FUNCTION_ARGS)
{
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	int			n = PG_GETARG_INT32(1);
	int64		naps = (int64) PG_GETARG_INT32(2) * 1000 / NAP_US;

	require_table();
	while (read_point(name, false) < n)
	{
		CHECK_FOR_INTERRUPTS();
		if (naps-- <= 0)
			ereport(ERROR,
					(errmsg("%d processes are stopped at test point \"%s\", not %d",
							(int) read_point(name, false), name, n)));
		pg_usleep(NAP_US);
	}
	PG_RETURN_VOID();
}

Datum
nc_test_waiting(PG_FUNCTION_ARGS)
{
	require_table();
	PG_RETURN_INT64(read_point(text_to_cstring(PG_GETARG_TEXT_PP(0)), false));
}

Datum
nc_test_hits(PG_FUNCTION_ARGS)
{
	require_table();
	PG_RETURN_INT64(read_point(text_to_cstring(PG_GETARG_TEXT_PP(0)), true));
}

Datum
nc_test_disarm_all(PG_FUNCTION_ARGS)
{
	require_table();
	disarm_all();
	PG_RETURN_VOID();
}

/* The next number that is given out, so that one of a dropped relation comes again. */
Datum
nc_test_set_next_oid(PG_FUNCTION_ARGS)
{
	require_table();
	LWLockAcquire(OidGenLock, LW_EXCLUSIVE);
	nc_pg_set_next_oid(PG_GETARG_OID(0));
	LWLockRelease(OidGenLock);
	PG_RETURN_VOID();
}

#endif							/* NC_TEST_RULES */
