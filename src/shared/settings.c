/*
 * settings.c
 *	  The variables behind the settings, with their defaults; src/ext/guc.c defines
 *	  the settings.  And what processors there are to spin on.
 */
#include "postgres.h"

#include <sched.h>

#include "nc/shared/settings.h"

int			nc_guc_mode = NC_MODE_COMMUNICATOR;
char	   *nc_guc_page_servers = "";
int			nc_guc_stripe_size = 2048;
char	   *nc_guc_tenant_id = "";
char	   *nc_guc_timeline_id = "";
int			nc_guc_protocol_version = 3;
int			nc_guc_connections_per_shard = 8;
int			nc_guc_connection_depth = 4;
int			nc_guc_connect_timeout = 5000;
int			nc_guc_spin_time = 100;
int			nc_guc_silence_timeout = 30000;
int			nc_guc_idle_timeout = 120000;
int			nc_guc_request_timeout = 120000;
int			nc_guc_wait_log_period = 10000;
int			nc_guc_io_method = 0;
char	   *nc_guc_token_file = "";
int			nc_guc_lwlsn_entries = 131072;
int			nc_guc_local_chunks = 131072;
int			nc_guc_sweep_interval = 5000;
int			nc_guc_scrub_rate = 0;
int			nc_guc_verify = 0;
int			nc_guc_lfc_size = 0;
int			nc_guc_lfc_size_limit = 16777216;
int			nc_guc_lfc_prewarm_workers = 4;
int			nc_guc_lfc_list_save_interval = 300;
bool		nc_guc_lfc_list_to_page_servers = true;
char	   *nc_guc_lfc_list_save_command = "";
char	   *nc_guc_lfc_list_restore_command = "";
char	   *nc_guc_lfc_path = "neon_comm.lfc";
int			nc_guc_staging_size = 4096;
int			nc_guc_staging_quota = 512;
bool		nc_guc_readahead_yields = true;
bool		nc_guc_hedged_reads = true;
int			nc_guc_readahead = 128;
int			nc_guc_client_spin = -1;
bool		nc_guc_futex_waits = true;
bool		nc_guc_record = false;
char	   *nc_guc_record_directory = "neon_recordings";
int			nc_guc_record_size = 64;
bool		nc_guc_accept_missing_pages = false;
bool		nc_guc_allow_unsafe = false;
bool		nc_guc_allow_unsafe_backup = false;
bool		nc_guc_allow_token_in_clear = false;
bool		nc_guc_async_reads = true;
bool		nc_guc_allow_unknown_server = false;

bool		nc_enabled = false;

/*
 * Looking instead of sleeping, by itself: only where whoever does it takes a processor from
 * nobody, the other side and a page server on the same machine included.
 */
#define SPIN_PROCESSORS 4

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
