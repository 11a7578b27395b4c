/*
 * nc/shared/settings.h
 *	  Settings that more than one module reads. Documented in docs/reference.md.
 */
#ifndef NC_SHARED_SETTINGS_H
#define NC_SHARED_SETTINGS_H

#include "postgres.h"

/* How a process reads from page servers. */
typedef enum NcMode
{
	NC_MODE_COMMUNICATOR = 0,	/* through its ring and the communicator */
	NC_MODE_DIRECT				/* over connections of its own, see src/direct */
} NcMode;

extern int	nc_guc_mode;		/* NcMode */
extern char *nc_guc_page_servers;
extern int	nc_guc_stripe_size;	/* blocks */
extern char *nc_guc_tenant_id;
extern char *nc_guc_timeline_id;
extern int	nc_guc_protocol_version;
extern int	nc_guc_connections_per_shard;
extern int	nc_guc_connection_depth;
extern int	nc_guc_connect_timeout;	/* ms */
extern int	nc_guc_spin_time;		/* us */
extern int	nc_guc_silence_timeout; /* ms */
extern int	nc_guc_idle_timeout;	/* ms */
extern int	nc_guc_request_timeout; /* ms */
extern int	nc_guc_wait_log_period; /* ms */
extern bool nc_guc_async_reads;
extern int	nc_guc_io_method;		/* NcLoopMethod */
extern char *nc_guc_token_file;
extern int	nc_guc_lwlsn_entries;
extern int	nc_guc_local_chunks;
extern int	nc_guc_sweep_interval;	/* ms */
extern int	nc_guc_scrub_rate;	/* blocks a second; 0 = off */
extern int	nc_guc_verify;		/* NcVerify */
extern int	nc_guc_lfc_size;	/* MB; 0 = no file cache */
extern int	nc_guc_lfc_size_limit;	/* MB */
extern int	nc_guc_lfc_prewarm_workers;
extern int	nc_guc_lfc_list_save_interval;
extern bool nc_guc_lfc_list_to_page_servers;
extern char *nc_guc_lfc_list_save_command;
extern char *nc_guc_lfc_list_restore_command;
extern char *nc_guc_lfc_path;
extern int	nc_guc_staging_size;	/* pages, all processes together */
extern int	nc_guc_staging_quota;	/* pages of one process */
extern bool nc_guc_futex_waits; /* sleep on the slot's word where the kernel can */
extern int	nc_guc_client_spin;		/* µs, processes that wait; 0 = off, -1 = by processors */
extern bool nc_guc_hedged_reads;	/* who waits on a connection that stalls is asked for on another */
extern bool nc_guc_readahead_yields;	/* less is read ahead while others wait longer than usual */
extern int	nc_guc_readahead;		/* blocks, the longest window; 0 = off */
extern bool nc_guc_record;		/* requests to page servers are recorded, see src/worker/recording.c */
extern char *nc_guc_record_directory;
extern int	nc_guc_record_size;	/* MB, all recordings of the directory together */
extern bool nc_guc_accept_missing_pages;
extern bool nc_guc_allow_unsafe;
extern bool nc_guc_allow_unsafe_backup;
extern bool nc_guc_allow_token_in_clear;
extern bool nc_guc_allow_unknown_server;

/* The longest nc_guc_record_directory, with its NUL. */
#define NC_RECORD_DIRECTORY_BYTES 900

/* True when this server's tables live on page servers: page_servers was set at start. */
extern bool nc_enabled;

/*
 * What a setting of spinning means here, in µs: 0 with one processor; -1 is `by_itself`
 * with enough of them, else 0.
 */
extern int	nc_spin_us(int setting, int by_itself);

#endif							/* NC_SHARED_SETTINGS_H */
