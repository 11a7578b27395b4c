/*
 * guc.c
 *	  Settings of the WAL feed, and the settings of the server that it needs.
 *
 * Runs in the postmaster (_PG_init) and, for reloads, in every process.
 * Guarantees that a server which could lose WAL that a page server still needs
 * does not start.  Never resolves a host name: a listen address is an IP
 * address or the word localhost.
 */
#include "postgres.h"

#include <arpa/inet.h>
#include <limits.h>

#include "access/parallel.h"
#include "access/xlog.h"
#include "miscadmin.h"
#include "replication/slot.h"
#include "utils/guc.h"

#include "feed_internal.h"
#include "nc/compat/server.h"
#include "nc/safety/settings.h"
#include "nc/shared/settings.h"

#define WARN_MB_DEFAULT 1024
#define TIMEOUT_MS_DEFAULT 60000
#define TIMEOUT_MS_MIN 1000

char	   *nc_feed_listen_addresses = NULL;
char	   *nc_feed_ssl_cert_file = NULL;
char	   *nc_feed_ssl_key_file = NULL;
bool		nc_feed_require_ssl = true;
bool		nc_feed_allow_unjoined = false;
bool		nc_feed_had_certificate = false;
char	   *nc_feed_auth_public_key_file = NULL;
int			nc_feed_port = 0;
int			nc_feed_timeout_ms = TIMEOUT_MS_DEFAULT;
int			nc_feed_warn_mb = WARN_MB_DEFAULT;
int			nc_feed_max_lag_mb[NC_LAG_KINDS] = {1024, 1024, 1024, 0};
int			nc_feed_write_quorum = 0;
NcFeedList	nc_feed_listed = {0};

static char *slots_setting = NULL;

/* Copies the next item of a comma list without its blanks; false at the end of the list. */
static bool
next_item(const char **at, char *item, size_t bytes, bool *too_long)
{
	const char *start = *at;
	size_t		span;

	*too_long = false;
	if (*start == '\0')
		return false;
	span = strcspn(start, ",");
	*at = start + span + (start[span] == ',' ? 1 : 0);
	while (span > 0 && isspace((unsigned char) *start))
	{
		start++;
		span--;
	}
	while (span > 0 && isspace((unsigned char) start[span - 1]))
		span--;
	*too_long = span >= bytes;
	memcpy(item, start, *too_long ? 0 : span);
	item[*too_long ? 0 : span] = '\0';
	return true;
}

/* Calls visit for each address of a list; false when one failed. */
static bool
each_address(const char *list, bool (*visit) (const char *address, void *arg), void *arg)
{
	char		item[NC_FEED_ADDRESS_BYTES];
	bool		too_long;

	while (next_item(&list, item, sizeof(item), &too_long))
	{
		if (too_long || item[0] == '\0')
			return false;
		if (strcmp(item, "localhost") == 0)
			strlcpy(item, "127.0.0.1", sizeof(item));
		if (!visit(item, arg))
			return false;
	}
	return true;
}

/*
 * A bad value of a module's setting in postgresql.conf is only warned of and the
 * default used: the module is loaded after the file was read.  Starting with
 * other addresses or slots than were asked for would be worse than not starting.
 */
static bool
judge_setting(const char *name, const char *value, bool good)
{
	if (!good && process_shared_preload_libraries_in_progress)
		ereport(FATAL,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid value for parameter \"%s\": \"%s\"", name, value),
				 GUC_check_errdetail_string ?
				 errdetail_internal("%s", GUC_check_errdetail_string) : 0,
				 GUC_check_errhint_string ? errhint("%s", GUC_check_errhint_string) : 0));
	return good;
}

typedef struct AddressCheck
{
	int			count;
	bool		not_numeric;
	bool		not_loopback;
	char		which[NC_FEED_ADDRESS_BYTES];	/* the last one, or the first that is not loopback */
} AddressCheck;

static bool
check_address(const char *address, void *arg)
{
	AddressCheck *check = arg;
	struct in6_addr any;

	check->count++;
	check->not_numeric = inet_pton(AF_INET, address, &any) != 1 &&
		inet_pton(AF_INET6, address, &any) != 1;
	if (!check->not_loopback)
		strlcpy(check->which, address, sizeof(check->which));
	check->not_loopback = check->not_loopback || !nc_listen_address_is_loopback(address);
	return !check->not_numeric;
}

static bool
check_feed_addresses(char **newval, void **extra, GucSource source)
{
	AddressCheck check = {0};
	bool		good = each_address(*newval, check_address, &check);

	if (good && check.count > 0)
		return true;
	if (check.not_numeric)
		GUC_check_errdetail("\"%s\" is neither an IP address nor localhost.", check.which);
	else
		GUC_check_errdetail("The list must hold at least one address and no empty item.");
	return judge_setting("neon_comm.wal_feed_listen_addresses", *newval, false);
}

/*
 * Whoever is let in can read all WAL and can let the server forget WAL.  Where
 * nobody proves who he is, only this machine may connect.
 */
void
nc_feed_check_network(void)
{
	AddressCheck check = {0};
	bool		asks = nc_feed_auth_public_key_file[0] != '\0';

	(void) each_address(nc_feed_listen_addresses, check_address, &check);
	if (asks && nc_guc_tenant_id[0] == '\0')
		ereport(FATAL,
				(errcode(ERRCODE_CONFIG_FILE_ERROR),
				 errmsg("neon_comm.wal_feed_auth_public_key_file needs neon_comm.tenant_id"),
				 errdetail("Otherwise the token of every tenant would do.")));
	if (!check.not_loopback)
		return;
	if (!asks)
		ereport(FATAL,
				(errcode(ERRCODE_CONFIG_FILE_ERROR),
				 errmsg("the WAL feed would send all WAL to everybody who reaches \"%s\"",
						check.which),
				 errdetail("\"%s\" is not a loopback address, and clients are not authenticated.",
						   check.which),
				 errhint("Set neon_comm.wal_feed_auth_public_key_file, or "
						 "neon_comm.wal_feed_listen_addresses to 127.0.0.1.")));
	nc_feed_warn_of_clear_text();
}

void
nc_feed_warn_of_clear_text(void)
{
	AddressCheck check = {0};

	(void) each_address(nc_feed_listen_addresses, check_address, &check);
	if (check.not_loopback && (!nc_feed_had_certificate || !nc_feed_require_ssl))
		ereport(WARNING,
				(errmsg("the WAL feed does not insist on TLS: WAL and tokens can be read on the way "
						"to \"%s\"", check.which),
				 errhint("Set neon_comm.wal_feed_ssl_cert_file, neon_comm.wal_feed_ssl_key_file and "
						 "neon_comm.wal_feed_require_ssl.")));
}

/* Also runs in the postmaster, whose memory every later process begins with. */
static void
assign_feed_cert_file(const char *newval, void *extra)
{
	nc_feed_had_certificate = nc_feed_had_certificate || newval[0] != '\0';
}

/* The server's own rule for slot names; its function has moved between minor versions. */
static bool
slot_name_is_valid(const char *name)
{
	return name[0] != '\0' &&
		strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_") == strlen(name);
}

static bool
slot_name_is_known(const NcFeedList *names, const char *name)
{
	for (int i = 0; i < names->count; i++)
	{
		if (strcmp(names->names[i], name) == 0)
			return true;
	}
	return false;
}

static bool
parse_slot_names(const char *list, NcFeedList *out)
{
	char		item[NAMEDATALEN];
	bool		too_long;

	out->count = 0;
	while (next_item(&list, item, sizeof(item), &too_long))
	{
		if (too_long || !slot_name_is_valid(item))
		{
			GUC_check_errdetail("Item %d of the list is not a replication slot name.",
								out->count + 1);
			GUC_check_errhint("Slot names have 1 to %d lower case letters, digits and "
							  "underscores, such as page_server_0,page_server_1.",
							  NAMEDATALEN - 1);
			return false;
		}
		if (slot_name_is_known(out, item))
		{
			GUC_check_errdetail("\"%s\" is given twice; each page server has its own name.", item);
			return false;
		}
		if (out->count == NC_FEED_SLOTS_MAX)
		{
			GUC_check_errdetail("More than %d page servers.", NC_FEED_SLOTS_MAX);
			return false;
		}
		strlcpy(out->names[out->count++], item, NAMEDATALEN);
	}
	return true;
}

/* At the start nc_feed_check_settings() looks: another library may come and raise it. */
static bool
slots_have_room(const NcFeedList *names)
{
	if (process_shared_preload_libraries_in_progress || nc_feed_port == 0 ||
		names->count <= max_replication_slots)
		return true;
	GUC_check_errdetail("max_replication_slots = %d is too small for %d page servers.",
						max_replication_slots, names->count);
	return false;
}

static bool
check_slots(char **newval, void **extra, GucSource source)
{
	NcFeedList *names = nc_pg_guc_malloc(sizeof(NcFeedList));

	if (names == NULL)
		return false;
	if (!judge_setting("neon_comm.wal_feed_slots", *newval,
					   parse_slot_names(*newval, names) && slots_have_room(names)))
	{
		nc_pg_guc_free(names);
		return false;
	}
	*extra = names;
	return true;
}

static void
assign_slots(const char *newval, void *extra)
{
	NcFeedList *names = extra;

	if (names != NULL)
		nc_feed_listed = *names;
}

/* Members are kept, or not, for as long as the server runs. A parallel worker begins with the default. */
static bool
check_write_quorum(int *newval, void **extra, GucSource source)
{
	if (process_shared_preload_libraries_in_progress || InitializingParallelWorker || (*newval == 0) == (nc_feed_write_quorum == 0))
		return true;
	GUC_check_errdetail("A server has to be restarted to keep members, or to keep none any more.");
	return false;
}

/* A limit of lag, in MB. */
static void
feed_define_int(const char *name, const char *text, NcLagKind kind)
{
	DefineCustomIntVariable(name, text, "Writers of WAL are slowed down above it; 0 never.",
							&nc_feed_max_lag_mb[kind], nc_feed_max_lag_mb[kind], 0, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_MB, NULL, NULL, NULL);
}

void
nc_feed_guc_init(void)
{
	feed_define_int("neon_comm.max_write_lag",
					"WAL that a connected page server may not have received.", NC_LAG_WRITE);
	feed_define_int("neon_comm.max_flush_lag",
					"WAL that a connected page server may not have on disk.", NC_LAG_FLUSH);
	feed_define_int("neon_comm.max_apply_lag",
					"WAL that a connected page server may not have replayed.", NC_LAG_APPLY);
	feed_define_int("neon_comm.max_retained_wal",
					"WAL that may be kept for a page server, connected or not.", NC_LAG_RETAINED);
	DefineCustomStringVariable("neon_comm.wal_feed_auth_public_key_file",
							   "Ed25519 public keys (PEM) of who issues tokens.",
							   "Empty: page servers are not authenticated.",
							   &nc_feed_auth_public_key_file, "",
							   PGC_SIGHUP, GUC_SUPERUSER_ONLY, NULL, NULL, NULL);
	DefineCustomBoolVariable("neon_comm.wal_feed_allow_unjoined",
							 "Sends WAL also to standbys and archives that do not say whose history they have.",
							 "Nothing then tells whether their history is that of this compute.",
							 &nc_feed_allow_unjoined, false, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomBoolVariable("neon_comm.wal_feed_require_ssl",
							 "Refuses page servers without TLS, if there is a certificate.",
							 "Without a certificate it has no effect.",
							 &nc_feed_require_ssl, true,
							 PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomStringVariable("neon_comm.wal_feed_ssl_cert_file",
							   "Certificate (chain) that the WAL feed shows.",
							   "Empty: TLS is not offered.", &nc_feed_ssl_cert_file, "",
							   PGC_SIGHUP, GUC_SUPERUSER_ONLY, NULL, assign_feed_cert_file, NULL);
	DefineCustomStringVariable("neon_comm.wal_feed_ssl_key_file",
							   "Private key of the certificate of the WAL feed.",
							   "Without a passphrase, mode 0600 (0640 if it belongs to root).",
							   &nc_feed_ssl_key_file, "",
							   PGC_SIGHUP, GUC_SUPERUSER_ONLY, NULL, NULL, NULL);
	DefineCustomStringVariable("neon_comm.wal_feed_listen_addresses",
							   "Addresses on which page servers fetch WAL.",
							   "IP addresses or localhost, separated by commas. One that is not loopback needs neon_comm.wal_feed_auth_public_key_file.",
							   &nc_feed_listen_addresses, "127.0.0.1",
							   PGC_POSTMASTER, 0, check_feed_addresses, NULL, NULL);
	DefineCustomIntVariable("neon_comm.wal_feed_port",
							"TCP port on which page servers fetch WAL; 0 turns the feed off.",
							"Page servers fetch WAL there instead of from the server's own port.",
							&nc_feed_port, 0, 0, 65535,
							PGC_POSTMASTER, 0, NULL, NULL, NULL);
	DefineCustomStringVariable("neon_comm.wal_feed_slots",
							   "Replication slot names of the registered page servers.",
							   "WAL is kept until each of them has it on disk.",
							   &slots_setting, "",
							   PGC_SIGHUP, 0, check_slots, assign_slots, NULL);
	DefineCustomIntVariable("neon_comm.write_quorum",
							"Page servers that have to confirm WAL before anybody is let in.",
							"They keep the list of members for takeovers. 0 keeps none.",
							&nc_feed_write_quorum, 0, 0, NC_FEED_SLOTS_MAX,
							PGC_SIGHUP, 0, check_write_quorum, NULL, NULL);
	DefineCustomIntVariable("neon_comm.wal_feed_timeout",
							"Time after which a silent page server is disconnected.",
							"It connects again by itself.",
							&nc_feed_timeout_ms, TIMEOUT_MS_DEFAULT,
							TIMEOUT_MS_MIN, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("neon_comm.wal_feed_warn",
							"WAL kept for one page server above which the log warns; 0 never.",
							"Once a minute.",
							&nc_feed_warn_mb, WARN_MB_DEFAULT, 0, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_MB, NULL, NULL, NULL);
}

static const NcSafeSetting settings[] = {
	{"max_slot_wal_keep_size", "-1", NULL,
	"The server could drop WAL that a page server still needs. Pages exist nowhere else: a page server without that WAL cannot serve them again."},
	{"idle_replication_slot_timeout", "0", NULL,
	"The server could drop WAL that a page server still needs."},
};

/* FATAL on settings under which the server may drop WAL or slots that page servers need. */
void
nc_feed_check_settings(void)
{
	if (wal_level < WAL_LEVEL_REPLICA)
		ereport(FATAL,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("neon_comm cannot feed page servers with wal_level = minimal"),
				 errhint("Set wal_level = replica.")));
	if (max_replication_slots < nc_feed_listed.count)
		ereport(FATAL,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("max_replication_slots = %d is too small for the %d page servers in "
						"neon_comm.wal_feed_slots", max_replication_slots, nc_feed_listed.count),
				 errhint("Set max_replication_slots to %d or more: one for each page server and "
						 "each other slot.", nc_feed_listed.count)));
	nc_safe_settings(settings, lengthof(settings), "neon_comm.allow_unsafe", nc_guc_allow_unsafe);
}

bool
nc_feed_is_ordered(void)
{
	return nc_feed_port != 0 && nc_feed_write_quorum > 0;
}

bool
nc_feed_is_configured(void)
{
	return nc_feed_port != 0;
}
