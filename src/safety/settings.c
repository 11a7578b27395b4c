/*
 * settings.c
 *	  Holds settings of the server at the value that they must have.
 *
 * The server lets only the owner of a setting check its values. So the records
 * of others are looked up in the server's table, which is exported, and our check
 * goes before the one that is there. Checks see every route by which a value can
 * come, and run where a value can still be refused. They get no hint which setting
 * they are called for; hence one function per place in our list.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/guc.h"
#include "utils/guc_tables.h"

#include "nc/compat/server.h"
#include "nc/safety/settings.h"

/* As many as there are functions below. */
#define PLACES 24
#define EACH_PLACE(X) \
	X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) \
	X(12) X(13) X(14) X(15) X(16) X(17) X(18) X(19) X(20) X(21) X(22) X(23)

typedef struct Place
{
	const NcSafeSetting *setting;
	const char *escape;
	union
	{
		GucBoolCheckHook of_bool;
		GucIntCheckHook of_int;
		GucStringCheckHook of_string;
	}			theirs;			/* NULL if there was none */
} Place;

static Place places[PLACES];
static int	nplaces = 0;

/* ---- judging a value ---- */

static bool
bool_is_safe(const NcSafeSetting *setting, bool value)
{
	return value == (strcmp(setting->safe, "on") == 0);
}

static bool
int_is_safe(const NcSafeSetting *setting, int value)
{
	return value == atoi(setting->safe);
}

static bool
string_is_safe(const NcSafeSetting *setting, const char *value)
{
	if (value == NULL)
		value = "";
	return setting->is_safe != NULL ? setting->is_safe(value) : strcmp(value, setting->safe) == 0;
}

static bool
refuse_setting(const Place *place)
{
	GUC_check_errdetail("%s", place->setting->why);
	if (place->escape != NULL)
		GUC_check_errhint("Only %s = on, set before the server starts, allows it: for a cluster whose data may be lost.",
						  place->escape);
	return false;
}

static bool
check_bool(const Place *place, bool *value, void **extra, GucSource source)
{
	if (!bool_is_safe(place->setting, *value))
		return refuse_setting(place);
	return place->theirs.of_bool == NULL || place->theirs.of_bool(value, extra, source);
}

static bool
check_int(const Place *place, int *value, void **extra, GucSource source)
{
	if (!int_is_safe(place->setting, *value))
		return refuse_setting(place);
	return place->theirs.of_int == NULL || place->theirs.of_int(value, extra, source);
}

static bool
check_string(const Place *place, char **value, void **extra, GucSource source)
{
	if (!string_is_safe(place->setting, *value))
		return refuse_setting(place);
	return place->theirs.of_string == NULL || place->theirs.of_string(value, extra, source);
}

/* ---- the functions that the server calls ---- */

#define CHECKS_OF(i) \
static bool check_bool_##i(bool *v, void **e, GucSource s) { return check_bool(&places[i], v, e, s); } \
static bool check_int_##i(int *v, void **e, GucSource s) { return check_int(&places[i], v, e, s); } \
static bool check_string_##i(char **v, void **e, GucSource s) { return check_string(&places[i], v, e, s); }
EACH_PLACE(CHECKS_OF)

#define BOOL_NAME(i) check_bool_##i,
#define INT_NAME(i) check_int_##i,
#define STRING_NAME(i) check_string_##i,
static const GucBoolCheckHook bool_checks[PLACES] = {EACH_PLACE(BOOL_NAME)};
static const GucIntCheckHook int_checks[PLACES] = {EACH_PLACE(INT_NAME)};
static const GucStringCheckHook string_checks[PLACES] = {EACH_PLACE(STRING_NAME)};

/* ---- at the start ---- */

static struct config_generic *
find_record(const char *name)
{
	int			n;
	struct config_generic **all = nc_pg_settings(&n);

	for (int i = 0; i < n; i++)
	{
		if (strcmp(all[i]->name, name) == 0)
			return all[i];
	}
	return NULL;
}

static bool
value_in_force_is_safe(const NcSafeSetting *setting, const struct config_generic *record)
{
	switch (record->vartype)
	{
		case PGC_BOOL:
			return bool_is_safe(setting, *((const struct config_bool *) record)->variable);
		case PGC_INT:
			return int_is_safe(setting, *((const struct config_int *) record)->variable);
		case PGC_STRING:
			return string_is_safe(setting, *((const struct config_string *) record)->variable);
		default:
			elog(FATAL, "setting \"%s\" has an unexpected type", setting->name);
	}
	return false;
}

static void
check_value_in_force(const NcSafeSetting *setting, const struct config_generic *record,
					 const char *escape, bool allowed)
{
	if (value_in_force_is_safe(setting, record))
		return;
	ereport(allowed ? WARNING : FATAL,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("neon_comm does not work with %s = %s", setting->name,
					GetConfigOptionByName(setting->name, NULL, false)),
			 errdetail("%s", setting->why),
			 escape == NULL ? errhint("Change the setting.") :
			 errhint("Change the setting, or set %s = on for a cluster whose data may be lost.", escape)));
}

static void
go_before(struct config_generic *record, int i)
{
	switch (record->vartype)
	{
		case PGC_BOOL:
			places[i].theirs.of_bool = ((struct config_bool *) record)->check_hook;
			((struct config_bool *) record)->check_hook = bool_checks[i];
			break;
		case PGC_INT:
			places[i].theirs.of_int = ((struct config_int *) record)->check_hook;
			((struct config_int *) record)->check_hook = int_checks[i];
			break;
		default:
			places[i].theirs.of_string = ((struct config_string *) record)->check_hook;
			((struct config_string *) record)->check_hook = string_checks[i];
			break;
	}
}

void
nc_safe_settings(const NcSafeSetting *settings, int n, const char *escape, bool allowed)
{
	for (int i = 0; i < n; i++)
	{
		struct config_generic *record = find_record(settings[i].name);

		if (record == NULL)
			continue;
		check_value_in_force(&settings[i], record, escape, allowed);
		if (allowed)
			continue;
		if (nplaces == PLACES)
			elog(FATAL, "too many settings to hold");
		places[nplaces].setting = &settings[i];
		places[nplaces].escape = escape;
		go_before(record, nplaces++);
	}
}
