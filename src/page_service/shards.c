/*
 * shards.c
 *	  Which shards this page server serves: neon_page_service.shard_count, shard_number
 *	  and stripe_size.
 *
 * One node may serve several shards of a tenant, as Neon's do after a split.  Any
 * process; the list is read whenever the setting is.
 */
#include "page_service.h"

#include "utils/guc.h"

#include "nc/shard/shard_map.h"

int			nc_svc_shard_count;
int			nc_svc_stripe_size;
char	   *nc_svc_shard_numbers;

/* Of nc_svc_shard_numbers. */
static bool served[NC_SHARDS_MAX];

/* A list of numbers below NC_SHARDS_MAX; false when it is none. */
static bool
parse_numbers(const char *text, bool into[NC_SHARDS_MAX])
{
	memset(into, 0, NC_SHARDS_MAX * sizeof(bool));
	for (;;)
	{
		unsigned long number;
		char	   *end;

		text += strspn(text, " \t");
		if (*text < '0' || *text > '9')
			return false;
		errno = 0;
		number = strtoul(text, &end, 10);
		if (errno != 0 || number >= NC_SHARDS_MAX)
			return false;
		into[number] = true;
		text = end + strspn(end, " \t");
		if (*text == '\0')
			return true;
		if (*text++ != ',')
			return false;
	}
}

static bool
check_numbers(char **newval, void **extra, GucSource source)
{
	bool		numbers[NC_SHARDS_MAX];

	if (parse_numbers(*newval, numbers))
		return true;
	GUC_check_errdetail("It is a number from 0 to %d, or several with commas between them.", NC_SHARDS_MAX - 1);
	return false;
}

static void
assign_numbers(const char *newval, void *extra)
{
	(void) parse_numbers(newval, served);
}

void
nc_svc_shards_define(void)
{
	DefineCustomIntVariable("neon_page_service.shard_count", "Number of shards of the tenant.",
							"0 serves every block.", &nc_svc_shard_count, 0, 0, NC_SHARDS_MAX, PGC_SIGHUP, 0,
							NULL, NULL, NULL);
	DefineCustomStringVariable("neon_page_service.shard_number", "Which shard is served, or which, with commas.",
							   "From 0 on. Blocks of others are refused.",
							   &nc_svc_shard_numbers, "0", PGC_SIGHUP, 0,
							   check_numbers, assign_numbers, NULL);
	DefineCustomIntVariable("neon_page_service.stripe_size", "Blocks per stripe, if there are shards.",
							"As the compute has it. Needed if there is more than one shard.",
							&nc_svc_stripe_size, 0, 0, INT_MAX, PGC_SIGHUP, 0,
							NULL, NULL, NULL);
}

bool
nc_svc_shards_fit(void)
{
	for (int i = nc_svc_shard_count; i < NC_SHARDS_MAX; i++)
		if (served[i])
			return false;
	return nc_svc_shard_count <= 1 || nc_svc_stripe_size > 0;
}

bool
nc_svc_shard_is_served(uint32 shard)
{
	return shard < NC_SHARDS_MAX && served[shard];
}
