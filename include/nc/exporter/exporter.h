/*
 * nc/exporter/exporter.h
 *	  A process that answers by HTTP from shared memory: its door, its loop, its
 *	  settings.  In both libraries; what it says is its host's.
 *
 * It is there from the start of the postmaster on, reads no catalog, and calls
 * nothing that takes a lock of the server: whoever else is stopped, it answers.
 */
#ifndef NC_EXPORTER_EXPORTER_H
#define NC_EXPORTER_EXPORTER_H

#include "postgres.h"

#include "nc/serve/http.h"

/* Settings are pointed to, because a reload may change them. */
typedef struct NcExporter
{
	const char *name;			/* for the log: "neon_comm exporter" */
	const char *prefix;			/* of its settings: "neon_comm.metrics_" */
	const char *tenant_setting; /* the name of that of tenant_id */
	char	  **listen_addresses;
	int		   *port;			/* 0 = by the paths of Unix sockets among the addresses alone, if there are any */
	char	  **ssl_cert_file;
	char	  **ssl_key_file;
	bool	   *require_ssl;
	char	  **auth_public_key_file;
	char	  **tenant_id;
	const bool *had_certificate;	/* since the start of the server, now or before */
	const NcHttpPage *pages;
} NcExporter;

/* For the check hook of the addresses: numbers, localhost, paths of Unix sockets. Says what is wrong with it. */
extern bool nc_exporter_addresses_good(const char *addresses);

/* Is there an exporter, by port and addresses? */
extern bool nc_exporter_wanted(const NcExporter *exporter);

/* In the postmaster, at its start: FATAL when figures would be open to everybody, or a file is no good. */
extern void nc_exporter_check(const NcExporter *exporter);

/* In its process: before signals are let through, at the beginning, and then for each turn. */
extern void nc_exporter_prepare(void);
extern void nc_exporter_begin(const NcExporter *exporter);
extern void nc_exporter_turn(uint32 wait_event);
extern void nc_exporter_reloaded(void);

/* Ends its wait; for signal handlers. */
extern void nc_exporter_kick(void);

/* Requests that were let in, and refused, since this process began. */
extern uint64 nc_exporter_requests(void);
extern uint64 nc_exporter_refused(void);

#endif							/* NC_EXPORTER_EXPORTER_H */
