/*
 * guc.c
 *	  Defines and judges the settings of neon_comm (those of the WAL feed are in
 *	  src/feed).  docs/reference.md documents each.
 */
#include "postgres.h"

#include <limits.h>

#include "access/parallel.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"

#include "nc/io/loop.h"
#include "nc/net/handshake.h"
#include "nc/shard/shard_map.h"
#include "nc/shared/map_settings.h"
#include "nc/shared/settings.h"
#include "nc/smgr/shadow.h"

#include "ext.h"

#define COMMAND_BYTES_MAX 4095

static const struct config_enum_entry io_methods[] = {
	{"auto", NC_LOOP_AUTO, false},
	{"io_uring", NC_LOOP_URING, false},
	{"epoll", NC_LOOP_EPOLL, false},
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

/*
 * A connection string may hold a secret, and the server logs statements: that of an error,
 * whoever refuses it and however early, and all by log_statement and log_duration.  So none
 * is logged that may set ours; the view of the same name is hidden with it.  However the
 * name is quoted, its last part is there.
 */
static emit_log_hook_type next_emit_log = NULL;

static bool
names_page_servers(const char *text)
{
	return text != NULL && strcasestr(text, "page_servers") != NULL;
}

static void
forget(char **text)
{
	if (*text != NULL)
		pfree(*text);
	*text = NULL;
}

/*
 * A line about the running statement, with its parameters, or one about a process that
 * crashed, with its statement.  The former ends where the statement begins, in whatever
 * language the words before it are.
 */
static void
cut_told(ErrorData *report)
{
	char	   *message = report->hide_stmt ? report->message : NULL;
	char	   *statement = message == NULL || debug_query_string == NULL ? NULL :
		strstr(message, debug_query_string);

	if (message != NULL)
		*(statement != NULL ? statement : message + strcspn(message, ":")) = '\0';
	forget(&report->detail);
}

static void
hide_page_servers(ErrorData *report)
{
	bool		names = names_page_servers(report->message) || names_page_servers(report->context) ||
		names_page_servers(report->internalquery) || names_page_servers(debug_query_string);

	/* the server itself hides the statement where the line is about it */
	if (report->elevel == LOG && (names_page_servers(report->detail) ||
								  (report->hide_stmt && names_page_servers(report->message))))
		cut_told(report);
	if (names)
	{
		report->hide_stmt = true;
		report->hide_ctx = true;
		forget(&report->internalquery);
		/* it repeats words, or all behind an open quote; who typed them is still told where */
		if (report->elevel == ERROR && report->sqlerrcode == ERRCODE_SYNTAX_ERROR)
			report->message = "syntax error in a statement that names page_servers";
	}
	if (next_emit_log != NULL)
		next_emit_log(report);
}

/* Without the value, which the server's own message would repeat: it may hold a secret. */
static bool
refuse_page_servers(const char *why)
{
	GUC_check_errmsg("invalid value for parameter \"neon_comm.page_servers\"");
	GUC_check_errdetail("%s", why);
	GUC_check_errhint("Give one libpq connection string per shard, separated by commas, shard 0 first.");
	return false;
}

static bool
refuse_password(void)
{
	GUC_check_errmsg("neon_comm.page_servers may not hold a password");
	GUC_check_errdetail("Members of pg_read_all_settings could see it.");
	GUC_check_errhint("Put the token into a file and its path into neon_comm.token_file.");
	return false;
}

/* One string of the list: what libpq would refuse at each connect is refused here, once. */
static bool
check_page_server(uint32 shard, const char *conninfo)
{
	NcConninfoParts parts;
	char		err[256];

	if (!nc_conninfo_check(conninfo, &parts, err, sizeof(err)))
		return refuse_page_servers(psprintf("shard %u: the connection string does not work: %s",
											shard, err));
	return parts.has_password ? refuse_password() : true;
}

/*
 * Whatever is accepted takes the place of a map that works, so it is judged as a
 * whole first.  Every process judges by itself and comes to the same end.
 */
static bool
judge_page_servers(char **value)
{
	static NcShardMap map;
	char		err[256];

	/*
	 * A parallel worker goes through the built-in value to that of its leader, which was judged;
	 * meanwhile the variable points to what has been freed.
	 */
	if (InitializingParallelWorker)
		return true;
	if (!nc_shard_map_parse(*value, 1, &map, err, sizeof(err)))
		return refuse_page_servers(err);
	if (nc_enabled && map.shard_count == 0)
		return refuse_page_servers("The tables of this cluster are on page servers: without any, nothing could be read.");
	/* in force already; each reload judges all settings in all processes */
	if (nc_guc_page_servers != NULL && strcmp(*value, nc_guc_page_servers) == 0)
		return true;
	for (uint32 i = 0; i < map.shard_count; i++)
		if (!check_page_server(i, map.conninfo[i]))
			return false;
	return true;
}

static bool
check_page_servers(char **value, void **extra, GucSource source)
{
	bool		good = judge_page_servers(value);

	nc_map_list_judged(good);
	return good;
}

/* What is out of range does not come here. */
static bool
check_stripe_size(int *value, void **extra, GucSource source)
{
	nc_map_stripe_judged();
	return true;
}

static bool
check_compute_id(char **value, void **extra, GucSource source)
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

static bool
check_record_directory(char **value, void **extra, GucSource source)
{
	if (**value != '\0' && strlen(*value) < NC_RECORD_DIRECTORY_BYTES && strpbrk(*value, "\r\n") == NULL)
		return true;
	GUC_check_errdetail("It names a directory, absolute or below the data directory, in fewer than %d bytes.",
						NC_RECORD_DIRECTORY_BYTES);
	return false;
}

/* A line for a shell, which also has to fit into a log line. */
static bool
check_command(char **value, void **extra, GucSource source)
{
	if (strlen(*value) <= COMMAND_BYTES_MAX && strpbrk(*value, "\r\n") == NULL)
		return true;
	GUC_check_errdetail("It is one line of at most %d bytes.", COMMAND_BYTES_MAX);
	return false;
}

static void
define_string(const char *name, const char *text, const char *more, char **var, GucContext context,
			  GucStringCheckHook check)
{
	DefineCustomStringVariable(name, text, more, var, "", context,
							   GUC_SUPERUSER_ONLY, check, NULL, NULL);
}

static void
define_int(const char *name, const char *text, const char *more, int *var, int min, int max, GucContext context,
		   int flags)
{
	DefineCustomIntVariable(name, text, more, var, *var, min, max, context, flags, NULL, NULL,
							NULL);
}

static void
define_bool(const char *name, const char *text, const char *more, bool *var, GucContext context)
{
	DefineCustomBoolVariable(name, text, more, var, *var, context, 0, NULL, NULL, NULL);
}

/* To save what is left of a table, by whoever looks at it; never for everybody and for good. */
static bool
check_accept_missing(bool *value, void **extra, GucSource source)
{
	if (!*value || source == PGC_S_DEFAULT || source == PGC_S_CLIENT || source == PGC_S_OVERRIDE ||
		source == PGC_S_SESSION)
		return true;
	GUC_check_errdetail("It can be set in a session only.");
	return false;
}

void
nc_guc_init(void)
{
	next_emit_log = emit_log_hook;
	emit_log_hook = hide_page_servers;
	define_bool("neon_comm.allow_takeover",
				"Lets a data directory start that is found at another place than before, where volumes move between machines.",
				"Page servers that have followed a newer start refuse it all the same.",
				&nc_guc_allow_takeover, PGC_POSTMASTER);
	DefineCustomBoolVariable("neon_comm.accept_missing_pages",
							 "Reads blocks that a page server has lost as empty ones, which others then see, too, instead of failing.",
							 "In a session only. To save what is left of a table, in a cluster that nobody else uses and that is restarted afterwards.",
							 &nc_guc_accept_missing_pages, false, PGC_SUSET, 0,
							 check_accept_missing, NULL, NULL);
	define_bool("neon_comm.allow_unknown_server",
				"Starts on a server version that neon_comm was not tested with.",
				"With a warning in the log.",
				&nc_guc_allow_unknown_server, PGC_POSTMASTER);
	define_bool("neon_comm.allow_token_in_clear",
				"Sends the token also to other machines whose certificate is not verified.",
				"For networks that are closed by other means. Each start warns.",
				&nc_guc_allow_token_in_clear, PGC_POSTMASTER);
	define_bool("neon_comm.async_reads",
				"Leaves reads of streams to the communicator, from PostgreSQL 18 on.",
				"Many of them are on their way at once then. No effect before PostgreSQL 18.",
				&nc_guc_async_reads, PGC_SUSET);
	define_bool("neon_comm.allow_unsafe",
				"Allows settings that can lose data (fsync or full_page_writes off), for throw-away clusters.",
				"Each start with such a setting warns. Also lets a directory start after pg_resetwal.",
				&nc_guc_allow_unsafe, PGC_POSTMASTER);
	define_bool("neon_comm.allow_unsafe_backup",
				"Lets files be copied as if they held contents: BASE_BACKUP, pg_backup_start(), pg_read_binary_file().",
				"Files of relations have holes where page servers have the pages: such a copy is no backup.",
				&nc_guc_allow_unsafe_backup, PGC_SUSET);
	define_int("neon_comm.client_spin_us", "Microseconds for which a process looks for its page before it sleeps; 0 = not at all, -1 = by the number of processors.",
			   "Only while waits have lately been shorter than twice that, and never with one processor.",
			   &nc_guc_client_spin, -1, 1000000, PGC_SUSET, 0);
	define_bool("neon_comm.futex_waits",
				"Lets a process that waits for a page sleep on a word of memory instead of its latch, where the kernel can.",
				"A wake then costs one system call on each side. Off is for comparison, and for kernels with faults.",
				&nc_guc_futex_waits, PGC_SUSET);
	define_int("neon_comm.connect_timeout", "Longest time to open a page-server connection.",
			   "The attempt is then given up and made again later, over another host if the shard has several.",
			   &nc_guc_connect_timeout, 100, INT_MAX, PGC_SIGHUP, GUC_UNIT_MS);
	define_int("neon_comm.connection_depth", "Requests in flight per page-server connection.",
			   "What is above it waits in the communicator.",
			   &nc_guc_connection_depth, 1, 1024, PGC_SIGHUP, 0);
	define_int("neon_comm.connections_per_shard", "Largest number of connections to a page-server shard.",
			   "They are opened as they are needed and closed when they are idle.",
			   &nc_guc_connections_per_shard, 1, 64, PGC_SIGHUP, 0);
	define_bool("neon_comm.hedged_reads",
				"Asks over another connection for what a process waits for, when its connection makes no progress.",
				"At most for one request in twenty. With several hosts for a shard, another one is asked.",
				&nc_guc_hedged_reads, PGC_SIGHUP);
	define_int("neon_comm.idle_timeout", "Closes a surplus page-server connection after this idle time.",
			   "The last connection of a shard stays.",
			   &nc_guc_idle_timeout, 1000, INT_MAX, PGC_SIGHUP, GUC_UNIT_MS);
	DefineCustomEnumVariable("neon_comm.io_method", "Event loop of the communicator.",
							 "\"auto\" is io_uring if the kernel allows it, else epoll.",
							 &nc_guc_io_method, NC_LOOP_AUTO, io_methods, PGC_POSTMASTER, 0,
							 NULL, NULL, NULL);
	define_int("neon_comm.last_written_lsn_entries", "Pages whose last-written LSN is remembered.",
			   "40 bytes of shared memory each. For pages that are forgotten newer versions than necessary are asked for.",
			   &nc_guc_lwlsn_entries, 1024, 64 * 1024 * 1024, PGC_POSTMASTER, 0);
	define_string("neon_comm.lfc_list_restore_command", "Shell command that brings the list of the file cache's pages to %p.",
				  "Runs when a compute starts that has no list. One line of at most 4095 bytes; empty: none.",
				  &nc_guc_lfc_list_restore_command, PGC_SIGHUP, check_command);
	define_string("neon_comm.lfc_list_save_command", "Shell command that takes away the list of the file cache's pages, %p.",
				  "Runs every neon_comm.lfc_list_save_interval. One line of at most 4095 bytes; empty: none.",
				  &nc_guc_lfc_list_save_command, PGC_SIGHUP, check_command);
	define_int("neon_comm.lfc_list_save_interval", "How often the list of the file cache's pages goes elsewhere by itself; 0 = never.",
			   "By the command and to page servers.",
			   &nc_guc_lfc_list_save_interval, 0, INT_MAX / 1000, PGC_SIGHUP, GUC_UNIT_S);
	define_bool("neon_comm.lfc_list_to_page_servers",
				"Gives page servers the list of the file cache's pages, for the compute that is made anew from them.",
				"Not without a WAL feed of this compute.",
				&nc_guc_lfc_list_to_page_servers, PGC_SIGHUP);
	DefineCustomStringVariable("neon_comm.lfc_path", "File of the local file cache; its list is beside it.",
							   "Absolute or below the data directory. A file there that is not this cluster's cache is left alone, and the cache stays off.",
							   &nc_guc_lfc_path, nc_guc_lfc_path, PGC_POSTMASTER,
							   GUC_SUPERUSER_ONLY, check_lfc_path, NULL, NULL);
	define_int("neon_comm.lfc_prewarm_workers", "Processes that fill the local file cache from its list after a start; 0 = none.",
			   "Only if the cache could not be taken over from before the start.",
			   &nc_guc_lfc_prewarm_workers, 0, 8, PGC_SIGHUP, 0);
	define_int("neon_comm.lfc_size", "Largest size of the local file cache; 0 switches it off.",
			   "Its index takes 0.48 % of this in shared memory.",
			   &nc_guc_lfc_size, 0, 16777216, PGC_POSTMASTER, GUC_UNIT_MB);
	define_int("neon_comm.lfc_size_limit", "Size of the local file cache now, at most neon_comm.lfc_size.",
			   "Pages beyond it go, and the file gives room back. 0 switches the cache off.",
			   &nc_guc_lfc_size_limit, 0, 16777216, PGC_SIGHUP, GUC_UNIT_MB);
	define_int("neon_comm.local_index_chunks", "Entries of the index of local blocks, 64 blocks each.",
			   "About 90 bytes of shared memory each.",
			   &nc_guc_local_chunks, 1024, 16 * 1024 * 1024, PGC_POSTMASTER, 0);
	DefineCustomEnumVariable("neon_comm.mode",
							 "How processes read from page servers: through the communicator, or each over connections of its own.",
							 "\"communicator\" shares few connections among all processes; \"direct\" has one for each process and shard.",
							 &nc_guc_mode, NC_MODE_COMMUNICATOR, modes, PGC_SUSET, 0,
							 NULL, NULL, NULL);
	define_string("neon_comm.page_servers", "Connection strings of the page servers, one per shard, separated by commas.",
				  "Shard 0 first. Empty at the start: this server is no compute. No passwords; see neon_comm.token_file.",
				  &nc_guc_page_servers, PGC_SIGHUP, check_page_servers);
	define_int("neon_comm.protocol_version", "Version of the pagestream protocol.",
			   "Page servers of ours speak both.",
			   &nc_guc_protocol_version, 2, 3, PGC_SIGHUP, 0);
	define_int("neon_comm.readahead_blocks", "Largest number of blocks read ahead of a sequential or strided read; 0 = none.",
			   "The window grows up to it while pages read ahead are used.",
			   &nc_guc_readahead, 0, 1024, PGC_USERSET, GUC_UNIT_BLOCKS);
	define_bool("neon_comm.readahead_yields",
				"Reads less ahead at a time while pages that processes wait for come later than usual.",
				"What somebody waits for goes before what may be wanted later.",
				&nc_guc_readahead_yields, PGC_SIGHUP);
	define_bool("neon_comm.record", "Records which requests are made of page servers, and how long they take.",
				"Into a file below neon_comm.record_directory, for nc_replay. Requests, not what is in pages.",
				&nc_guc_record, PGC_SIGHUP);
	DefineCustomStringVariable("neon_comm.record_directory", "Directory of recordings, absolute or below the data directory.",
							   "It is made if it is not there. A change begins a new recording.", &nc_guc_record_directory, nc_guc_record_directory, PGC_SIGHUP,
							   GUC_SUPERUSER_ONLY, check_record_directory, NULL, NULL);
	define_int("neon_comm.record_size", "Largest size of all recordings of the directory together.",
			   "A recording ends when it is reached.",
			   &nc_guc_record_size, 1, 1024 * 1024, PGC_SIGHUP, GUC_UNIT_MB);
	define_int("neon_comm.request_timeout", "Longest time a process waits for a page.",
			   "Then the read fails with an error. Recovery waits without an end.",
			   &nc_guc_request_timeout, 1000, INT_MAX, PGC_SUSET, GUC_UNIT_MS);
	define_int("neon_comm.scrub_rate", "Blocks a second that are compared between page servers; 0 = none.",
			   "What they do not have the same of is in neon_comm.scrub_findings, and in the log.",
			   &nc_guc_scrub_rate, 0, 100000, PGC_SIGHUP, 0);
	define_int("neon_comm.silence_timeout", "Abandons a page-server connection that does not answer for this long.",
			   "What was asked for over it is asked for again over another one.",
			   &nc_guc_silence_timeout, 100, INT_MAX, PGC_SIGHUP, GUC_UNIT_MS);
	define_int("neon_comm.spin_time",
			   "How long the communicator looks for work before it sleeps, while that pays; 0 = never.",
			   "In microseconds. Others that want the processor meanwhile get it.",
			   &nc_guc_spin_time, 0, 1000, PGC_SIGHUP, 0);
	define_int("neon_comm.staging_quota", "Staging memory that one process may hold for pages asked for ahead.",
			   "What is above it is not asked for ahead.",
			   &nc_guc_staging_quota, 0, 2048, PGC_SUSET, GUC_UNIT_BLOCKS);
	define_int("neon_comm.staging_size", "Shared memory for pages asked for ahead, of all processes; 0 = no prefetch.",
			   "Lent to processes in pieces, and taken back from those that do not use it.",
			   &nc_guc_staging_size, 0, 1024 * 1024, PGC_POSTMASTER, GUC_UNIT_BLOCKS);
	DefineCustomIntVariable("neon_comm.stripe_size", "Blocks of a relation that stay together on a shard.",
							"As the page servers have it; a wrong one is told by their answers.",
							&nc_guc_stripe_size, nc_guc_stripe_size, 1, INT_MAX, PGC_SIGHUP,
							GUC_UNIT_BLOCKS, check_stripe_size, NULL, NULL);
	define_int("neon_comm.sweep_interval", "Pause between two rounds of the sweeper.",
			   "It gives back blocks that are kept on this server and that nobody needs any more.",
			   &nc_guc_sweep_interval, 100, INT_MAX, PGC_SIGHUP, GUC_UNIT_MS);
	define_string("neon_comm.tenant_id", "Tenant on the page servers, 32 hexadecimal digits.",
				  "Made by neon_dev init; never changes in the life of a cluster.",
				  &nc_guc_tenant_id, PGC_POSTMASTER, check_compute_id);
	define_string("neon_comm.timeline_id", "Timeline on the page servers, 32 hexadecimal digits.",
				  "Made by neon_dev init; never changes in the life of a cluster.",
				  &nc_guc_timeline_id, PGC_POSTMASTER, check_compute_id);
	define_string("neon_comm.token_file", "File with the token for page servers, read at each connect.",
				  "It may be replaced at any time. Empty: none is sent.",
				  &nc_guc_token_file, PGC_SIGHUP, NULL);
	DefineCustomEnumVariable("neon_comm.verify", "Compares every page read with the version that was written.",
							 "\"shadow\" keeps full local files to compare with, for tests.",
							 &nc_guc_verify, NC_VERIFY_OFF, verify_modes, PGC_POSTMASTER, 0,
							 NULL, NULL, NULL);
	define_int("neon_comm.wait_log_period", "Logs a request that waits this long, again and again.",
			   "One process tells for all that wait.",
			   &nc_guc_wait_log_period, 100, INT_MAX, PGC_SUSET, GUC_UNIT_MS);
}

void
nc_guc_check_token(void)
{
	static NcShardMap map;
	NcConninfoParts parts;
	char		err[256];

	if (nc_guc_token_file[0] == '\0' ||
		!nc_shard_map_parse(nc_guc_page_servers, 1, &map, err, sizeof(err)))
		return;
	for (uint32 i = 0; i < map.shard_count; i++)
	{
		if (!nc_conninfo_parts(map.conninfo[i], &parts, err, sizeof(err)) ||
			parts.is_local || parts.verifies)
			continue;
		ereport(nc_guc_allow_token_in_clear ? WARNING : FATAL,
				(errcode(ERRCODE_CONFIG_FILE_ERROR),
				 errmsg("the token would be sent to whoever answers at %s", parts.address),
				 errdetail("neon_comm.page_servers does not verify shard %u, which is not on this machine.", i),
				 errhint("Set sslmode=verify-full and sslrootcert there%s.", nc_guc_allow_token_in_clear ? "" :
						 "; in a network that is closed by other means set neon_comm.allow_token_in_clear")));
		return;
	}
}
