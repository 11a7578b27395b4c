/* neon_comm--1.0.sql: views and functions of neon_comm; see docs/reference.md */

\echo Use "CREATE EXTENSION neon_comm" to load this file. \quit

CREATE SCHEMA neon_comm;

-- ---- views; each function behind one reads shared memory and asks nobody ----

CREATE FUNCTION neon_comm.get_counters(OUT name text, OUT value bigint, OUT description text)
RETURNS SETOF record AS 'MODULE_PATHNAME', 'nc_get_counters' LANGUAGE C STRICT VOLATILE;

CREATE VIEW neon_comm.counters AS SELECT name, value FROM neon_comm.get_counters();
COMMENT ON VIEW neon_comm.counters IS 'counters since server start; neon_comm.get_counters() has their meaning';

CREATE FUNCTION neon_comm.get_connections(OUT shard int, OUT address text, OUT state text,
	OUT in_flight int, OUT age interval, OUT requests bigint, OUT last_error text)
RETURNS SETOF record AS 'MODULE_PATHNAME', 'nc_get_connections' LANGUAGE C STRICT VOLATILE;

CREATE VIEW neon_comm.connections AS SELECT * FROM neon_comm.get_connections();
COMMENT ON VIEW neon_comm.connections IS 'one row per pooled page-server connection';

CREATE FUNCTION neon_comm.get_slots(OUT pid int, OUT slot int, OUT state text, OUT kind text,
	OUT spc oid, OUT db oid, OUT relfilenode oid, OUT fork int, OUT block bigint, OUT nblocks int,
	OUT not_modified_since pg_lsn, OUT age interval, OUT waits_for text)
RETURNS SETOF record AS 'MODULE_PATHNAME', 'nc_get_slots' LANGUAGE C STRICT VOLATILE;

CREATE VIEW neon_comm.slots AS SELECT * FROM neon_comm.get_slots();
COMMENT ON VIEW neon_comm.slots IS 'one row per busy request slot';

CREATE FUNCTION neon_comm.get_page_servers(OUT name text, OUT address text, OUT state text,
	OUT sent_lsn pg_lsn, OUT write_lsn pg_lsn, OUT flush_lsn pg_lsn, OUT apply_lsn pg_lsn,
	OUT retained_from pg_lsn, OUT write_lag_bytes bigint, OUT flush_lag_bytes bigint,
	OUT lag_bytes bigint, OUT retained_bytes bigint, OUT throttles bool,
	OUT reply_time timestamptz, OUT connected_since timestamptz, OUT reason text,
	OUT sync_priority int, OUT sync_state text)
RETURNS SETOF record AS 'MODULE_PATHNAME', 'nc_get_page_servers' LANGUAGE C STRICT VOLATILE;

CREATE VIEW neon_comm.page_servers AS SELECT * FROM neon_comm.get_page_servers();
COMMENT ON VIEW neon_comm.page_servers IS 'registered page servers as the WAL feed knows them';

CREATE FUNCTION neon_comm.get_identity(OUT birth text, OUT incarnation text, OUT began pg_lsn,
	OUT lives int, OUT place text)
RETURNS record AS 'MODULE_PATHNAME', 'nc_get_identity' LANGUAGE C STRICT VOLATILE;

CREATE VIEW neon_comm.identity AS SELECT * FROM neon_comm.get_identity();
COMMENT ON VIEW neon_comm.identity IS 'who this compute is: its birth, this start of it and where that began, and the place of its directory';

CREATE FUNCTION neon_comm.get_members(OUT name text, OUT member text, OUT write_quorum int, OUT list text,
	OUT flush_lsn pg_lsn, OUT lease_ms int)
RETURNS SETOF record AS 'MODULE_PATHNAME', 'nc_get_members' LANGUAGE C STRICT VOLATILE;

CREATE VIEW neon_comm.members AS SELECT * FROM neon_comm.get_members();
COMMENT ON VIEW neon_comm.members IS 'page servers that count for takeovers, how many of them confirm, and what they have';

CREATE FUNCTION neon_comm.change_members(names text[], write_quorum int) RETURNS void
AS 'MODULE_PATHNAME', 'nc_change_members' LANGUAGE C STRICT VOLATILE;
COMMENT ON FUNCTION neon_comm.change_members(text[], int) IS 'makes these page servers the members, of which so many confirm';

CREATE FUNCTION neon_comm.get_lfc(OUT state text, OUT path text, OUT size_bytes bigint,
	OUT limit_bytes bigint, OUT used_pages bigint, OUT staged_pages int, OUT memory_bytes bigint,
	OUT last_error text)
RETURNS record AS 'MODULE_PATHNAME', 'nc_get_lfc' LANGUAGE C STRICT VOLATILE;

CREATE VIEW neon_comm.lfc AS SELECT * FROM neon_comm.get_lfc();
COMMENT ON VIEW neon_comm.lfc IS 'state of the local file cache';

CREATE FUNCTION neon_comm.get_prewarm_progress(OUT state text, OUT workers int, OUT total bigint,
	OUT loaded bigint, OUT skipped bigint, OUT failed bigint, OUT elapsed interval,
	OUT paused interval)
RETURNS record AS 'MODULE_PATHNAME', 'nc_get_prewarm_progress' LANGUAGE C STRICT VOLATILE;

CREATE VIEW neon_comm.prewarm_progress AS SELECT * FROM neon_comm.get_prewarm_progress();
COMMENT ON VIEW neon_comm.prewarm_progress IS 'the last prewarm of the local file cache';

CREATE FUNCTION neon_comm.get_latency(OUT stage text, OUT class text, OUT count bigint,
	OUT mean_us float8, OUT p50_us bigint, OUT p90_us bigint, OUT p99_us bigint, OUT p999_us bigint,
	OUT max_us bigint)
RETURNS SETOF record AS 'MODULE_PATHNAME', 'nc_get_latency' LANGUAGE C STRICT VOLATILE;

CREATE VIEW neon_comm.latency AS SELECT * FROM neon_comm.get_latency();
COMMENT ON VIEW neon_comm.latency IS 'how long reads of pages spent in each stage of their way, since server start';

-- ---- functions ----

CREATE FUNCTION neon_comm.status(OUT enabled bool, OUT communicator_pid int, OUT io_method text,
	OUT epoch bigint, OUT heartbeat_age interval,
	OUT local_index_used bigint, OUT way_in text)
RETURNS record AS 'MODULE_PATHNAME', 'nc_status' LANGUAGE C STRICT VOLATILE;
COMMENT ON FUNCTION neon_comm.status() IS 'the communicator: pid, event loop, how often it was started, time since its last turn';

CREATE FUNCTION neon_comm.staging(OUT pages int, OUT lent int, OUT processes int)
RETURNS record AS 'MODULE_PATHNAME', 'nc_staging_use' LANGUAGE C STRICT VOLATILE;
COMMENT ON FUNCTION neon_comm.staging() IS 'staging memory for pages asked for ahead: size, pages lent to processes, number of these';

CREATE FUNCTION neon_comm.local_bytes(OUT allocated bigint, OUT sequences bigint,
	OUT apparent bigint, OUT files bigint, OUT empty bigint)
RETURNS record AS 'MODULE_PATHNAME', 'nc_local_bytes' LANGUAGE C STRICT VOLATILE;
COMMENT ON FUNCTION neon_comm.local_bytes() IS 'disk space held by permanent main forks on this server, measured by allocated blocks';

CREATE FUNCTION neon_comm.local_blocks(OUT spc oid, OUT db oid, OUT relfilenode oid,
	OUT block bigint, OUT reason text)
RETURNS SETOF record AS 'MODULE_PATHNAME', 'nc_local_blocks' LANGUAGE C STRICT VOLATILE;
COMMENT ON FUNCTION neon_comm.local_blocks() IS 'pages of permanent main forks that are kept on this server, and why';

CREATE FUNCTION neon_comm.sweep() RETURNS bigint
AS 'MODULE_PATHNAME', 'nc_sweep_now' LANGUAGE C STRICT VOLATILE;
COMMENT ON FUNCTION neon_comm.sweep() IS 'gives back local blocks that nobody needs any more; returns their number';

CREATE FUNCTION neon_comm.restart_communicator() RETURNS void
AS 'MODULE_PATHNAME', 'nc_restart_communicator' LANGUAGE C STRICT VOLATILE;
COMMENT ON FUNCTION neon_comm.restart_communicator() IS 'ends the communicator between two turns; the postmaster starts it again and requests go on';

CREATE FUNCTION neon_comm.lfc_save() RETURNS bigint
AS 'MODULE_PATHNAME', 'nc_lfc_save_now' LANGUAGE C STRICT VOLATILE;
COMMENT ON FUNCTION neon_comm.lfc_save() IS 'writes the list of cached pages; returns their number';

CREATE FUNCTION neon_comm.lfc_prewarm(workers int DEFAULT 2) RETURNS void
AS 'MODULE_PATHNAME', 'nc_lfc_prewarm_now' LANGUAGE C STRICT VOLATILE;
COMMENT ON FUNCTION neon_comm.lfc_prewarm(int) IS 'starts to fill the local file cache by its saved list; see neon_comm.prewarm_progress';

CREATE FUNCTION neon_comm.lfc_prewarm_stop() RETURNS bool
AS 'MODULE_PATHNAME', 'nc_lfc_prewarm_stop' LANGUAGE C STRICT VOLATILE;
COMMENT ON FUNCTION neon_comm.lfc_prewarm_stop() IS 'ends a running prewarm; false when none runs';

CREATE FUNCTION neon_comm.check(seconds int DEFAULT 3, days int DEFAULT 30, free_percent int DEFAULT 10,
	OUT item text, OUT subject text, OUT state text, OUT what text, OUT remedy text)
RETURNS SETOF record AS 'MODULE_PATHNAME', 'nc_check' LANGUAGE C STRICT VOLATILE;
COMMENT ON FUNCTION neon_comm.check(int, int, int) IS 'whether this compute and its page servers are well and fit together; asks each page server';

CREATE FUNCTION neon_comm.verify_relation(relation regclass, first bigint DEFAULT 0, blocks bigint DEFAULT -1,
	seconds int DEFAULT 30, OUT block bigint, OUT page_server text, OUT state text, OUT what text)
RETURNS SETOF record AS 'MODULE_PATHNAME', 'nc_verify_relation_sql' LANGUAGE C STRICT VOLATILE;
COMMENT ON FUNCTION neon_comm.verify_relation(regclass, bigint, bigint, int) IS 'compares what page servers have of a relation; a row for each block that differs, none when all is the same';

-- ---- who may use them ----

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA neon_comm FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA neon_comm FROM PUBLIC;
GRANT USAGE ON SCHEMA neon_comm TO pg_monitor;
GRANT SELECT ON ALL TABLES IN SCHEMA neon_comm TO pg_monitor;
GRANT EXECUTE ON FUNCTION neon_comm.get_counters(), neon_comm.get_connections(),
	neon_comm.get_slots(), neon_comm.get_page_servers(), neon_comm.get_identity(), neon_comm.get_members(), neon_comm.get_lfc(), neon_comm.get_prewarm_progress(),
	neon_comm.status(), neon_comm.staging(), neon_comm.get_latency(),
	neon_comm.local_bytes(), neon_comm.local_blocks(), neon_comm.check(int, int, int) TO pg_monitor;

-- ---- the comment that the control file has ----

-- It was put on the extension before this script began. A dump would make it again, which only the owner of
-- the extension may do: whoever owns just the database could not restore it. pg_available_extensions keeps it.
COMMENT ON EXTENSION neon_comm IS NULL;
