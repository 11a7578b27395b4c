/*
 * guc.c
 *	  The settings of neon_comm (those of the WAL feed are in src/feed).
 *	  docs/reference.md documents each.
 */
#include "postgres.h"

#include <limits.h>
#include <sched.h>

#include "utils/guc.h"

#include "nc/ext/guc.h"
#include "nc/smgr/rules.h"
#include "nc/shard/shard_map.h"
#include "nc/smgr/shadow.h"

int			nc_guc_mode = NC_MODE_COMMUNICATOR;
char	   *nc_guc_page_servers = "";
int			nc_guc_stripe_size = 2048;
char	   *nc_guc_tenant_id = "";
char	   *nc_guc_timeline_id = "";
int			nc_guc_protocol_version = 3;
int			nc_guc_connections_per_shard = 8;
int			nc_guc_connection_depth = 4;
int			nc_guc_connect_timeout = 5000;
int			nc_guc_spin_time = 0;
int			nc_guc_silence_timeout = 30000;
int			nc_guc_idle_timeout = 120000;
int			nc_guc_request_timeout = 120000;
int			nc_guc_wait_log_period = 10000;
int			nc_guc_io_method = NC_IO_AUTO;
char	   *nc_guc_token_file = "";
int			nc_guc_lwlsn_entries = 131072;
int			nc_guc_local_chunks = 131072;
int			nc_guc_sweep_interval = 5000;
int			nc_guc_verify = NC_VERIFY_OFF;
int			nc_guc_lfc_size = 0;
int			nc_guc_lfc_size_limit = 16777216;
int			nc_guc_lfc_prewarm_workers = 2;
char	   *nc_guc_lfc_path = "";
int			nc_guc_staging_size = 4096;
int			nc_guc_staging_quota = 512;
bool		nc_guc_readahead_yields = true;
int			nc_guc_readahead = 128;
int			nc_guc_client_spin = -1;
bool		nc_guc_allow_unsafe = false;
bool		nc_guc_allow_unknown_server = false;

bool		nc_enabled = false;

/*
 * Looking instead of sleeping, by itself: only where whoever does it takes a processor from
 * nobody, the other side and a page server on the same machine included.
 */
#define SPIN_PROCESSORS 4

static const struct config_enum_entry io_methods[] = {
	{"auto", NC_IO_AUTO, false},
	{"io_uring", NC_IO_URING, false},
	{"epoll", NC_IO_EPOLL, false},
	{NULL, 0, false}
};

static const struct config_enum_entry modes[] = {
	{"communicator", NC_MODE_COMMUNICATOR, false},
	{"direct", NC_MODE_DIRECT, false},
	{NULL, 0, false}
};

static const struct config_enum_entry verify_modes[] = {
	{"off", NC_VERIFY_OFF, false},
	{"shadow", NC_VERIFY_SHADOW, false},
	{NULL, 0, false}
};

/* Does a connection string carry a password, as keyword or within a URI? */
static bool
has_password(const char *value)
{
	static const char keyword[] = "password";
	const char *at;

	for (at = strstr(value, keyword); at != NULL; at = strstr(at + 1, keyword))
	{
		const char *behind = at + strlen(keyword);

		if (behind[strspn(behind, " \t\r\n")] == '=')
			return true;
	}
	for (at = strstr(value, "://"); at != NULL; at = strstr(at + 1, "://"))
	{
		size_t		user = strcspn(at + 3, ":@/?,");

		if (at[3 + user] == ':' && at[3 + user + strcspn(at + 3 + user, "@/?,")] == '@')
			return true;
	}
	return false;
}

static bool
check_page_servers(char **value, void **extra, GucSource source)
{
	static NcShardMap map;
	char		err[256];

	if (has_password(*value))
	{
		/* the server's own message would repeat it */
		GUC_check_errmsg("neon_comm.page_servers may not hold a password");
		GUC_check_errdetail("Members of pg_read_all_settings could see it.");
		GUC_check_errhint("Put the token into a file and its path into neon_comm.token_file.");
		return false;
	}
	if (nc_shard_map_parse(*value, 1, &map, err, sizeof(err)))
		return true;
	GUC_check_errdetail("%s", err);
	GUC_check_errhint("Give one libpq connection string per shard, separated by commas, shard 0 first.");
	return false;
}

static bool
check_id(char **value, void **extra, GucSource source)
{
	if (**value == '\0')
		return true;
	if (strlen(*value) == 32 && strspn(*value, "0123456789abcdefABCDEF") == 32)
		return true;
	GUC_check_errdetail("An id is 32 hexadecimal digits without dashes or a shard suffix.");
	return false;
}

static bool
check_lfc_path(char **value, void **extra, GucSource source)
{
	if (**value != '\0' && strlen(*value) < MAXPGPATH - 32)
		return true;
	GUC_check_errdetail("It names a file, absolute or below the data directory.");
	return false;
}

static void
define_string(const char *name, const char *text, char **var, GucContext context,
			  GucStringCheckHook check)
{
	DefineCustomStringVariable(name, text, NULL, var, "", context,
							   GUC_SUPERUSER_ONLY, check, NULL, NULL);
}

static void
define_int(const char *name, const char *text, int *var, int min, int max, GucContext context,
		   int flags)
{
	DefineCustomIntVariable(name, text, NULL, var, *var, min, max, context, flags, NULL, NULL,
							NULL);
}

static void
define_bool(const char *name, const char *text, bool *var, GucContext context)
{
	DefineCustomBoolVariable(name, text, NULL, var, *var, context, 0, NULL, NULL, NULL);
}

#ifdef NC_TEST_RULES
unsigned	nc_rules_off = 0;
static char *rules_off_text = "";

/* Bits of the rules named in a blank-separated list; false when one is unknown. */
static bool
parse_rules(const char *list, unsigned *bits)
{
	static const char *const names[] = {
#define NC_RULE_NAME(id, name) name,
		NC_RULES(NC_RULE_NAME)
#undef NC_RULE_NAME
	};
	char		copy[512];

	*bits = 0;
	strlcpy(copy, list, sizeof(copy));
	for (char *word = strtok(copy, " "); word != NULL; word = strtok(NULL, " "))
	{
		int			i = 0;

		while (i < lengthof(names) && strcmp(names[i], word) != 0)
			i++;
		if (i == lengthof(names))
			return false;
		*bits |= 1u << i;
	}
	return true;
}

static bool
check_rules_off(char **value, void **extra, GucSource source)
{
	unsigned	bits;

	return parse_rules(*value, &bits);
}

static void
assign_rules_off(const char *value, void *extra)
{
	(void) parse_rules(value, &nc_rules_off);
}

static void
define_test_rules(void)
{
	DefineCustomStringVariable("neon_comm.test_rules_off",
							   "Rules of the storage layer to ignore, for tests of tests.", NULL,
							   &rules_off_text, "", PGC_SIGHUP, GUC_SUPERUSER_ONLY,
							   check_rules_off, assign_rules_off, NULL);
}
#else
static void
define_test_rules(void)
{
}
#endif

void
nc_guc_init(void)
{
	define_test_rules();
	define_bool("neon_comm.allow_unknown_server",
				"Starts on a server version that neon_comm was not tested with.",
				&nc_guc_allow_unknown_server, PGC_POSTMASTER);
	define_bool("neon_comm.allow_unsafe",
				"Allows settings that can lose data (fsync or full_page_writes off), for throw-away clusters.",
				&nc_guc_allow_unsafe, PGC_POSTMASTER);
	define_int("neon_comm.client_spin_us", "Microseconds for which a process looks for its page before it sleeps; 0 = not at all, -1 = by the number of processors.",
			   &nc_guc_client_spin, -1, 1000000, PGC_SUSET, 0);
	define_int("neon_comm.connect_timeout", "Longest time to open a page-server connection.",
			   &nc_guc_connect_timeout, 100, INT_MAX, PGC_SIGHUP, GUC_UNIT_MS);
	define_int("neon_comm.connection_depth", "Requests in flight per page-server connection.",
			   &nc_guc_connection_depth, 1, 1024, PGC_SIGHUP, 0);
	define_int("neon_comm.connections_per_shard", "Largest number of connections to a page-server shard.",
			   &nc_guc_connections_per_shard, 1, 64, PGC_SIGHUP, 0);
	define_int("neon_comm.idle_timeout", "Closes a surplus page-server connection after this idle time.",
			   &nc_guc_idle_timeout, 1000, INT_MAX, PGC_SIGHUP, GUC_UNIT_MS);
	DefineCustomEnumVariable("neon_comm.io_method", "Event loop of the communicator.", NULL,
							 &nc_guc_io_method, NC_IO_AUTO, io_methods, PGC_POSTMASTER, 0,
							 NULL, NULL, NULL);
	define_int("neon_comm.last_written_lsn_entries", "Pages whose last-written LSN is remembered.",
			   &nc_guc_lwlsn_entries, 1024, 64 * 1024 * 1024, PGC_POSTMASTER, 0);
	DefineCustomStringVariable("neon_comm.lfc_path", "File of the local file cache; its list is beside it.",
							   NULL, &nc_guc_lfc_path, "neon_comm.lfc", PGC_POSTMASTER,
							   GUC_SUPERUSER_ONLY, check_lfc_path, NULL, NULL);
	define_int("neon_comm.lfc_prewarm_workers", "Processes that fill the local file cache from its list after a start; 0 = none.",
			   &nc_guc_lfc_prewarm_workers, 0, 8, PGC_SIGHUP, 0);
	define_int("neon_comm.lfc_size", "Largest size of the local file cache; 0 switches it off.",
			   &nc_guc_lfc_size, 0, 16777216, PGC_POSTMASTER, GUC_UNIT_MB);
	define_int("neon_comm.lfc_size_limit", "Size of the local file cache now, at most neon_comm.lfc_size.",
			   &nc_guc_lfc_size_limit, 0, 16777216, PGC_SIGHUP, GUC_UNIT_MB);
	define_int("neon_comm.local_index_chunks", "Entries of the index of local blocks, 64 blocks each.",
			   &nc_guc_local_chunks, 1024, 16 * 1024 * 1024, PGC_POSTMASTER, 0);
	DefineCustomEnumVariable("neon_comm.mode",
							 "How processes read from page servers: through the communicator, or each over connections of its own.",
							 NULL, &nc_guc_mode, NC_MODE_COMMUNICATOR, modes, PGC_SUSET, 0,
							 NULL, NULL, NULL);
	define_string("neon_comm.page_servers", "Connection strings of the page servers, one per shard, separated by commas.",
				  &nc_guc_page_servers, PGC_SIGHUP, check_page_servers);
	define_int("neon_comm.protocol_version", "Version of the pagestream protocol.",
			   &nc_guc_protocol_version, 2, 3, PGC_SIGHUP, 0);
	define_int("neon_comm.readahead_blocks", "Largest number of blocks read ahead of a sequential or strided read; 0 = none.",
			   &nc_guc_readahead, 0, 1024, PGC_USERSET, GUC_UNIT_BLOCKS);
	define_bool("neon_comm.readahead_yields",
				"Reads less ahead at a time while pages that processes wait for come later than usual.",
				&nc_guc_readahead_yields, PGC_SIGHUP);
	define_int("neon_comm.request_timeout", "Longest time a process waits for a page.",
			   &nc_guc_request_timeout, 1000, INT_MAX, PGC_SUSET, GUC_UNIT_MS);
	define_int("neon_comm.silence_timeout", "Abandons a page-server connection that does not answer for this long.",
			   &nc_guc_silence_timeout, 100, INT_MAX, PGC_SIGHUP, GUC_UNIT_MS);
	define_int("neon_comm.spin_time",
			   "How long the communicator looks for work before it sleeps, while that pays; 0 = never.",
			   &nc_guc_spin_time, 0, 1000, PGC_SIGHUP, 0);
	define_int("neon_comm.staging_quota", "Staging memory that one process may hold for pages asked for ahead.",
			   &nc_guc_staging_quota, 0, 2048, PGC_SUSET, GUC_UNIT_BLOCKS);
	define_int("neon_comm.staging_size", "Shared memory for pages asked for ahead, of all processes; 0 = no prefetch.",
			   &nc_guc_staging_size, 0, 1024 * 1024, PGC_POSTMASTER, GUC_UNIT_BLOCKS);
	define_int("neon_comm.stripe_size", "Blocks of a relation that stay together on a shard.",
			   &nc_guc_stripe_size, 1, INT_MAX, PGC_SIGHUP, GUC_UNIT_BLOCKS);
	define_int("neon_comm.sweep_interval", "Pause between two rounds of the sweeper.",
			   &nc_guc_sweep_interval, 100, INT_MAX, PGC_SIGHUP, GUC_UNIT_MS);
	define_string("neon_comm.tenant_id", "Tenant on the page servers, 32 hexadecimal digits.",
				  &nc_guc_tenant_id, PGC_POSTMASTER, check_id);
	define_string("neon_comm.timeline_id", "Timeline on the page servers, 32 hexadecimal digits.",
				  &nc_guc_timeline_id, PGC_POSTMASTER, check_id);
	define_string("neon_comm.token_file", "File with the token for page servers, read at each connect.",
				  &nc_guc_token_file, PGC_SIGHUP, NULL);
	DefineCustomEnumVariable("neon_comm.verify", "Compares every page read with the version that was written.",
							 NULL, &nc_guc_verify, NC_VERIFY_OFF, verify_modes, PGC_POSTMASTER, 0,
							 NULL, NULL, NULL);
	define_int("neon_comm.wait_log_period", "Logs a request that waits this long, again and again.",
			   &nc_guc_wait_log_period, 100, INT_MAX, PGC_SUSET, GUC_UNIT_MS);
}

static int
processors(void)
{
	static int	n = 0;
	cpu_set_t	set;

	if (n == 0)
		n = sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;
	return n;
}

/* With one processor, what is looked for cannot come meanwhile. */
int
nc_spin_us(int setting, int by_itself)
{
	if (setting >= 0)
		return processors() > 1 ? setting : 0;
	return processors() >= SPIN_PROCESSORS ? by_itself : 0;
}

void
nc_guc_engine_config(NcEngineConfig *config)
{
	memset(config, 0, sizeof(*config));
	config->protocol_version = nc_guc_protocol_version;
	strlcpy(config->tenant_id, nc_guc_tenant_id, sizeof(config->tenant_id));
	strlcpy(config->timeline_id, nc_guc_timeline_id, sizeof(config->timeline_id));
	config->connections_per_shard_max = nc_guc_connections_per_shard;
	config->depth_max = nc_guc_connection_depth;
	config->spin_us = nc_spin_us(nc_guc_spin_time, 0);
	config->connect_timeout_ms = nc_guc_connect_timeout;
	config->silence_timeout_ms = nc_guc_silence_timeout;
	config->idle_timeout_ms = nc_guc_idle_timeout;
	config->readahead_yields = nc_guc_readahead_yields;
	strlcpy(config->token_file, nc_guc_token_file, sizeof(config->token_file));
}
