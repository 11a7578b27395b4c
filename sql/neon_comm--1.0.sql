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

CREATE FUNCTION neon_comm.get_scrub(OUT state text, OUT pid int, OUT rounds bigint, OUT round_began timestamptz,
	OUT round_ended timestamptz, OUT relations bigint, OUT relations_all bigint, OUT blocks bigint, OUT blocks_all bigint,
	OUT spc oid, OUT db oid, OUT relfilenode oid, OUT block bigint, OUT compared bigint, OUT found bigint,
	OUT unconfirmed bigint, OUT problem text)
RETURNS record AS 'MODULE_PATHNAME', 'nc_get_scrub' LANGUAGE C STRICT VOLATILE;

CREATE VIEW neon_comm.scrub AS SELECT * FROM neon_comm.get_scrub();
COMMENT ON VIEW neon_comm.scrub IS 'the comparison of page servers that goes on all the time: where it is, what it has come to';
COMMENT ON COLUMN neon_comm.scrub.state IS 'off, running, paused (writers wait for page servers), page server away';
COMMENT ON COLUMN neon_comm.scrub.pid IS 'the process that compares';
COMMENT ON COLUMN neon_comm.scrub.rounds IS 'rounds over all relations that came to their end, since shared memory was made';
COMMENT ON COLUMN neon_comm.scrub.round_began IS 'when this round began, or the last one';
COMMENT ON COLUMN neon_comm.scrub.round_ended IS 'when the last round came to its end';
COMMENT ON COLUMN neon_comm.scrub.relations IS 'relations that this round has done with';
COMMENT ON COLUMN neon_comm.scrub.relations_all IS 'relations that were there when it began';
COMMENT ON COLUMN neon_comm.scrub.blocks IS 'blocks that this round has compared';
COMMENT ON COLUMN neon_comm.scrub.blocks_all IS 'blocks that were there when it began';
COMMENT ON COLUMN neon_comm.scrub.spc IS 'tablespace of the relation that it is at';
COMMENT ON COLUMN neon_comm.scrub.db IS 'database of the relation that it is at; 0 for those that all share';
COMMENT ON COLUMN neon_comm.scrub.relfilenode IS 'number of the files of the relation that it is at';
COMMENT ON COLUMN neon_comm.scrub.block IS 'block that it is at';
COMMENT ON COLUMN neon_comm.scrub.compared IS 'blocks compared since shared memory was made';
COMMENT ON COLUMN neon_comm.scrub.found IS 'differences found, each time that they were; must stay 0';
COMMENT ON COLUMN neon_comm.scrub.unconfirmed IS 'blocks that looked wrong and could not be looked at again in a session';
COMMENT ON COLUMN neon_comm.scrub.problem IS 'why it does not get on';

CREATE FUNCTION neon_comm.get_scrub_findings(OUT database text, OUT relation text, OUT spc oid, OUT db oid,
	OUT relfilenode oid, OUT fork text, OUT block bigint, OUT state text, OUT page_server text, OUT what text,
	OUT times bigint, OUT first_found timestamptz, OUT last_found timestamptz)
RETURNS SETOF record AS 'MODULE_PATHNAME', 'nc_get_scrub_findings' LANGUAGE C STRICT VOLATILE;

CREATE VIEW neon_comm.scrub_findings AS SELECT * FROM neon_comm.get_scrub_findings();
COMMENT ON VIEW neon_comm.scrub_findings IS 'what page servers do not have the same of, the 32 differences that were found last';
COMMENT ON COLUMN neon_comm.scrub_findings.database IS 'name of the database that it was looked at in';
COMMENT ON COLUMN neon_comm.scrub_findings.relation IS 'name of the relation then, with its schema';
COMMENT ON COLUMN neon_comm.scrub_findings.spc IS 'tablespace of the relation';
COMMENT ON COLUMN neon_comm.scrub_findings.db IS 'database of the relation; 0 for those that all share';
COMMENT ON COLUMN neon_comm.scrub_findings.relfilenode IS 'number of the files of the relation';
COMMENT ON COLUMN neon_comm.scrub_findings.fork IS 'its fork: main';
COMMENT ON COLUMN neon_comm.scrub_findings.block IS 'block; NULL where it is about the whole relation';
COMMENT ON COLUMN neon_comm.scrub_findings.state IS 'differs, missing, damaged, future, longer, as neon_comm.verify_relation() says it';
COMMENT ON COLUMN neon_comm.scrub_findings.page_server IS 'address of the page server, of two when they differ';
COMMENT ON COLUMN neon_comm.scrub_findings.what IS 'what it has: LSNs and checksums, the error of a page server';
COMMENT ON COLUMN neon_comm.scrub_findings.times IS 'how often it was found';
COMMENT ON COLUMN neon_comm.scrub_findings.first_found IS 'when it was found for the first time';
COMMENT ON COLUMN neon_comm.scrub_findings.last_found IS 'when it was found last';

CREATE FUNCTION neon_comm.get_latency(OUT stage text, OUT class text, OUT count bigint,
	OUT mean_us float8, OUT p50_us bigint, OUT p90_us bigint, OUT p99_us bigint, OUT p999_us bigint,
	OUT max_us bigint)
RETURNS SETOF record AS 'MODULE_PATHNAME', 'nc_get_latency' LANGUAGE C STRICT VOLATILE;

CREATE VIEW neon_comm.latency AS SELECT * FROM neon_comm.get_latency();
COMMENT ON VIEW neon_comm.latency IS 'how long reads of pages spent in each stage of their way, since server start';

-- ---- functions ----

CREATE FUNCTION neon_comm.status(OUT enabled bool, OUT communicator_pid int, OUT io_method text,
	OUT epoch bigint, OUT heartbeat_age interval,
	OUT local_index_used bigint)
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
	neon_comm.get_scrub(), neon_comm.get_scrub_findings(), neon_comm.status(), neon_comm.staging(), neon_comm.get_latency(),
	neon_comm.local_bytes(), neon_comm.local_blocks(), neon_comm.check(int, int, int) TO pg_monitor;

-- It locks what it reads, as pgstattuple does. Members of pg_monitor are of it.
GRANT USAGE ON SCHEMA neon_comm TO pg_stat_scan_tables;
GRANT EXECUTE ON FUNCTION neon_comm.verify_relation(regclass, bigint, bigint, int) TO pg_stat_scan_tables;

-- ---- the comment that the control file has ----

-- It was put on the extension before this script began. A dump would make it again, which only the owner of
-- the extension may do: whoever owns just the database could not restore it. pg_available_extensions keeps it.
COMMENT ON EXTENSION neon_comm IS NULL;
