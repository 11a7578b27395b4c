/*
 * guc.c
 *	  Settings of the exporter of a compute, and what it serves.
 */
#include "postgres.h"

#include <limits.h>

#include "miscadmin.h"
#include "utils/guc.h"

#include "nc/shared/settings.h"

#include "metrics_int.h"

static char *listen_addresses = NULL;
static int	port = 0;
static char *ssl_cert_file = NULL;
static char *ssl_key_file = NULL;
static bool require_ssl = true;
static char *auth_public_key_file = NULL;
static bool had_certificate = false;

int			nc_metrics_ready_timeout = 5000;

static const NcHttpPage pages[] = {
	{"/metrics", true, nc_metrics_write},
	{"/healthz", false, nc_metrics_write_health},
	{"/readyz", false, nc_metrics_write_ready},
	{"/slots", false, nc_metrics_write_slots},
	{"/connections", false, nc_metrics_write_connections},
	{NULL, false, NULL}
};

const NcExporter nc_metrics_exporter = {
	.name = "neon_comm exporter",
	.prefix = "neon_comm.metrics_",
	.tenant_setting = "neon_comm.tenant_id",
	.listen_addresses = &listen_addresses,
	.port = &port,
	.ssl_cert_file = &ssl_cert_file,
	.ssl_key_file = &ssl_key_file,
	.require_ssl = &require_ssl,
	.auth_public_key_file = &auth_public_key_file,
	.tenant_id = &nc_guc_tenant_id,
	.had_certificate = &had_certificate,
	.pages = pages
};

/*
 * At the start a bad value would only be warned of, and the default used: the module is loaded
 * after the file was read.
 */
static bool
check_metrics_addresses(char **newval, void **extra, GucSource source)
{
	bool		good = nc_exporter_addresses_good(*newval);

	if (!good && process_shared_preload_libraries_in_progress)
		ereport(FATAL,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid value for parameter \"neon_comm.metrics_listen_addresses\": \"%s\"", *newval),
				 errdetail_internal("%s", GUC_check_errdetail_string)));
	return good;
}

/* Also runs in the postmaster, whose memory every later process begins with. */
static void
assign_metrics_cert_file(const char *newval, void *extra)
{
	had_certificate = had_certificate || newval[0] != '\0';
}

static void
define_metrics_settings(void)
{
	DefineCustomStringVariable("neon_comm.metrics_auth_public_key_file",
							   "Ed25519 public keys (PEM) of who issues tokens.",
							   "Empty: who asks for metrics is not authenticated.",
							   &auth_public_key_file, "", PGC_SIGHUP, GUC_SUPERUSER_ONLY,
							   NULL, NULL, NULL);
	DefineCustomStringVariable("neon_comm.metrics_listen_addresses",
							   "Addresses on which the exporter answers, and paths of Unix sockets.",
							   "IP addresses, localhost or absolute paths, separated by commas. One that is neither loopback nor a path needs neon_comm.metrics_auth_public_key_file.",
							   &listen_addresses, "127.0.0.1", PGC_POSTMASTER, 0,
							   check_metrics_addresses, NULL, NULL);
	DefineCustomIntVariable("neon_comm.metrics_port",
							"TCP port on which the exporter answers; 0 = on none.",
							"It is a background worker: count it in max_worker_processes.",
							&port, 0, 0, 65535, PGC_POSTMASTER, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("neon_comm.metrics_ready_timeout",
							"A request that has waited longer, or a process that has made no turn for longer, is not ready.",
							"/readyz then says so.",
							&nc_metrics_ready_timeout, nc_metrics_ready_timeout, 2000, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomBoolVariable("neon_comm.metrics_require_ssl",
							 "Refuses to answer without TLS, if there is a certificate.",
							 "Without a certificate it has no effect.",
							 &require_ssl, true, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomStringVariable("neon_comm.metrics_ssl_cert_file",
							   "Certificate (chain) that the exporter shows.",
							   "Empty: TLS is not offered.", &ssl_cert_file, "",
							   PGC_SIGHUP, GUC_SUPERUSER_ONLY, NULL, assign_metrics_cert_file, NULL);
	DefineCustomStringVariable("neon_comm.metrics_ssl_key_file",
							   "Private key of the certificate of the exporter.",
							   "Without a passphrase, mode 0600 (0640 if it belongs to root).",
							   &ssl_key_file, "", PGC_SIGHUP, GUC_SUPERUSER_ONLY,
							   NULL, NULL, NULL);
}

void
nc_metrics_init(void)
{
	define_metrics_settings();
	nc_exporter_check(&nc_metrics_exporter);
}

bool
nc_metrics_enabled(void)
{
	return nc_exporter_wanted(&nc_metrics_exporter);
}
