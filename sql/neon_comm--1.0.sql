/* neon_comm--1.0.sql: views and functions of neon_comm; see docs/reference.md */

\echo Use "CREATE EXTENSION neon_comm" to load this file. \quit

CREATE SCHEMA neon_comm;

-- ---- views; each function behind one reads shared memory and asks nobody ----

-- The column relation of a view is not the function's: who leaves it out reads no catalog.

CREATE FUNCTION neon_comm.get_counters(OUT name text, OUT value bigint, OUT description text,
	OUT stats_reset timestamptz)
RETURNS SETOF record AS 'MODULE_PATHNAME', 'nc_get_counters' LANGUAGE C STRICT VOLATILE;

CREATE VIEW neon_comm.counters AS SELECT name, value, stats_reset FROM neon_comm.get_counters();
COMMENT ON VIEW neon_comm.counters IS 'what was counted since stats_reset; neon_comm.get_counters() has the meaning of each';
COMMENT ON FUNCTION neon_comm.get_counters() IS 'behind the view neon_comm.counters';
COMMENT ON COLUMN neon_comm.counters.name IS 'of the counter';
COMMENT ON COLUMN neon_comm.counters.value IS 'since stats_reset';
COMMENT ON COLUMN neon_comm.counters.stats_reset IS 'when neon_comm.reset() was last called, or the server started';

CREATE FUNCTION neon_comm.get_connections(OUT shard int, OUT address text, OUT state text,
	OUT in_flight int, OUT age interval, OUT requests bigint, OUT last_error text)
RETURNS SETOF record AS 'MODULE_PATHNAME', 'nc_get_connections' LANGUAGE C STRICT VOLATILE;

CREATE VIEW neon_comm.connections AS SELECT * FROM neon_comm.get_connections();
COMMENT ON VIEW neon_comm.connections IS 'one row per pooled page-server connection';
COMMENT ON FUNCTION neon_comm.get_connections() IS 'behind the view neon_comm.connections';
COMMENT ON COLUMN neon_comm.connections.shard IS 'number of the shard';
COMMENT ON COLUMN neon_comm.connections.address IS 'host:port, or a socket';
COMMENT ON COLUMN neon_comm.connections.state IS 'backoff, connecting, starting, ready, closing';
COMMENT ON COLUMN neon_comm.connections.in_flight IS 'requests sent and not answered';
COMMENT ON COLUMN neon_comm.connections.age IS 'since it entered this state';
COMMENT ON COLUMN neon_comm.connections.requests IS 'sent over its life';
COMMENT ON COLUMN neon_comm.connections.last_error IS 'the present trouble of its shard; NULL when there is none';

CREATE FUNCTION neon_comm.get_slots(OUT pid int, OUT slot int, OUT state text, OUT kind text,
	OUT spc oid, OUT db oid, OUT relfilenode oid, OUT fork int, OUT block bigint, OUT nblocks int,
	OUT not_modified_since pg_lsn, OUT age interval, OUT waits_for text)
RETURNS SETOF record AS 'MODULE_PATHNAME', 'nc_get_slots' LANGUAGE C STRICT VOLATILE;

CREATE FUNCTION neon_comm.relation_of(spc oid, db oid, relfilenode oid) RETURNS regclass
AS 'MODULE_PATHNAME', 'nc_relation_of' LANGUAGE C STRICT STABLE;
COMMENT ON FUNCTION neon_comm.relation_of(oid, oid, oid) IS 'the relation of this database that has these numbers; NULL if there is none. Reads catalogs';

CREATE VIEW neon_comm.slots AS SELECT *, neon_comm.relation_of(spc, db, relfilenode) AS relation
	FROM neon_comm.get_slots();
COMMENT ON VIEW neon_comm.slots IS 'one row per busy request slot';
COMMENT ON FUNCTION neon_comm.get_slots() IS 'behind the view neon_comm.slots';
COMMENT ON COLUMN neon_comm.slots.pid IS 'the process that waits';
COMMENT ON COLUMN neon_comm.slots.slot IS 'number in the ring of this process';
COMMENT ON COLUMN neon_comm.slots.state IS 'filling, submitted, taken, copying, done';
COMMENT ON COLUMN neon_comm.slots.kind IS 'getpage, exists, nblocks, dbsize';
COMMENT ON COLUMN neon_comm.slots.spc IS 'tablespace';
COMMENT ON COLUMN neon_comm.slots.db IS 'database';
COMMENT ON COLUMN neon_comm.slots.relfilenode IS 'number of the relation''s file';
COMMENT ON COLUMN neon_comm.slots.fork IS 'number of the fork: 0 is main';
COMMENT ON COLUMN neon_comm.slots.block IS 'the first one that is asked for';
COMMENT ON COLUMN neon_comm.slots.nblocks IS 'how many are asked for';
COMMENT ON COLUMN neon_comm.slots.not_modified_since IS 'the LSN that the page server must have reached';
COMMENT ON COLUMN neon_comm.slots.age IS 'since it was submitted';
COMMENT ON COLUMN neon_comm.slots.waits_for IS 'who has to act: process, communicator, WAL, page server';
COMMENT ON COLUMN neon_comm.slots.relation IS 'of this database; NULL elsewhere. Reads catalogs, unlike everything else here';

CREATE FUNCTION neon_comm.get_page_servers(OUT name text, OUT address text, OUT state text,
	OUT sent_lsn pg_lsn, OUT write_lsn pg_lsn, OUT flush_lsn pg_lsn, OUT apply_lsn pg_lsn,
	OUT retained_from pg_lsn, OUT write_lag_bytes bigint, OUT flush_lag_bytes bigint,
	OUT lag_bytes bigint, OUT retained_bytes bigint, OUT throttles bool,
	OUT reply_time timestamptz, OUT connected_since timestamptz, OUT reason text,
	OUT sync_priority int, OUT sync_state text)
RETURNS SETOF record AS 'MODULE_PATHNAME', 'nc_get_page_servers' LANGUAGE C STRICT VOLATILE;

CREATE VIEW neon_comm.page_servers AS SELECT * FROM neon_comm.get_page_servers();
COMMENT ON VIEW neon_comm.page_servers IS 'registered page servers as the WAL feed knows them';
COMMENT ON FUNCTION neon_comm.get_page_servers() IS 'behind the view neon_comm.page_servers';
COMMENT ON COLUMN neon_comm.page_servers.name IS 'of its slot, as in neon_comm.wal_feed_slots';
COMMENT ON COLUMN neon_comm.page_servers.address IS 'where it connects from; NULL when absent';
COMMENT ON COLUMN neon_comm.page_servers.state IS 'absent, waiting, catchup, streaming, closing, parted, refused';
COMMENT ON COLUMN neon_comm.page_servers.sent_lsn IS 'as in pg_stat_replication';
COMMENT ON COLUMN neon_comm.page_servers.write_lsn IS 'as in pg_stat_replication';
COMMENT ON COLUMN neon_comm.page_servers.flush_lsn IS 'as in pg_stat_replication';
COMMENT ON COLUMN neon_comm.page_servers.apply_lsn IS 'as replay_lsn in pg_stat_replication';
COMMENT ON COLUMN neon_comm.page_servers.retained_from IS 'WAL from here on is kept for it';
COMMENT ON COLUMN neon_comm.page_servers.write_lag_bytes IS 'from write_lsn to the end of WAL on disk';
COMMENT ON COLUMN neon_comm.page_servers.flush_lag_bytes IS 'from flush_lsn to the end of WAL on disk';
COMMENT ON COLUMN neon_comm.page_servers.lag_bytes IS 'from apply_lsn to the end of WAL on disk';
COMMENT ON COLUMN neon_comm.page_servers.retained_bytes IS 'from retained_from to the end of WAL on disk';
COMMENT ON COLUMN neon_comm.page_servers.throttles IS 'it exceeds a limit: who writes WAL is slowed down because of it';
COMMENT ON COLUMN neon_comm.page_servers.reply_time IS 'when it last sent a status';
COMMENT ON COLUMN neon_comm.page_servers.connected_since IS 'NULL when absent';
COMMENT ON COLUMN neon_comm.page_servers.reason IS 'why it is parted or refused; else NULL';
COMMENT ON COLUMN neon_comm.page_servers.sync_priority IS 'place in synchronous_standby_names; 0 when not listed';
COMMENT ON COLUMN neon_comm.page_servers.sync_state IS 'async, potential, sync, quorum; NULL when absent';

CREATE FUNCTION neon_comm.get_identity(OUT birth text, OUT incarnation text, OUT began pg_lsn,
	OUT lives int, OUT place text)
RETURNS record AS 'MODULE_PATHNAME', 'nc_get_identity' LANGUAGE C STRICT VOLATILE;

CREATE VIEW neon_comm.identity AS SELECT * FROM neon_comm.get_identity();
COMMENT ON VIEW neon_comm.identity IS 'who this compute is: its birth, this start of it and where that began, and the place of its directory';
COMMENT ON FUNCTION neon_comm.get_identity() IS 'behind the view neon_comm.identity';
COMMENT ON COLUMN neon_comm.identity.birth IS 'of the cluster';
COMMENT ON COLUMN neon_comm.identity.incarnation IS 'this start, crash restarts counted';
COMMENT ON COLUMN neon_comm.identity.began IS 'where its own WAL begins; NULL in recovery';
COMMENT ON COLUMN neon_comm.identity.lives IS 'starts that are remembered, this one included';
COMMENT ON COLUMN neon_comm.identity.place IS 'where the data directory is: machine, inode, time of birth';

CREATE FUNCTION neon_comm.get_members(OUT name text, OUT member text, OUT write_quorum int, OUT list text,
	OUT flush_lsn pg_lsn, OUT lease_ms int)
RETURNS SETOF record AS 'MODULE_PATHNAME', 'nc_get_members' LANGUAGE C STRICT VOLATILE;

CREATE VIEW neon_comm.members AS SELECT * FROM neon_comm.get_members();
COMMENT ON VIEW neon_comm.members IS 'page servers that count for takeovers, how many of them confirm, and what they have';
COMMENT ON FUNCTION neon_comm.get_members() IS 'behind the view neon_comm.members';
COMMENT ON COLUMN neon_comm.members.name IS 'of its slot';
COMMENT ON COLUMN neon_comm.members.member IS 'id of its directory';
COMMENT ON COLUMN neon_comm.members.write_quorum IS 'so many of its list confirm';
COMMENT ON COLUMN neon_comm.members.list IS 'all; while members change old and new';
COMMENT ON COLUMN neon_comm.members.flush_lsn IS 'what it has on disk; NULL while it does not stream';
COMMENT ON COLUMN neon_comm.members.lease_ms IS 'for so many milliseconds runs what it has granted; 0: nothing';

CREATE FUNCTION neon_comm.change_members(names text[], write_quorum int) RETURNS void
AS 'MODULE_PATHNAME', 'nc_change_members' LANGUAGE C STRICT VOLATILE;
COMMENT ON FUNCTION neon_comm.change_members(text[], int) IS 'makes these page servers the members, of which so many confirm';

CREATE FUNCTION neon_comm.get_lfc(OUT state text, OUT path text, OUT size_bytes bigint,
	OUT limit_bytes bigint, OUT used_pages bigint, OUT staged_pages int, OUT memory_bytes bigint,
	OUT last_error text)
RETURNS record AS 'MODULE_PATHNAME', 'nc_get_lfc' LANGUAGE C STRICT VOLATILE;

CREATE VIEW neon_comm.lfc AS SELECT * FROM neon_comm.get_lfc();
COMMENT ON VIEW neon_comm.lfc IS 'state of the local file cache';
COMMENT ON FUNCTION neon_comm.get_lfc() IS 'behind the view neon_comm.lfc';
COMMENT ON COLUMN neon_comm.lfc.state IS 'off, starting, on, limit is 0, failed';
COMMENT ON COLUMN neon_comm.lfc.path IS 'of its file';
COMMENT ON COLUMN neon_comm.lfc.size_bytes IS 'largest size';
COMMENT ON COLUMN neon_comm.lfc.limit_bytes IS 'size allowed now';
COMMENT ON COLUMN neon_comm.lfc.used_pages IS 'pages in it, those not written yet included';
COMMENT ON COLUMN neon_comm.lfc.staged_pages IS 'of these, waiting to be written';
COMMENT ON COLUMN neon_comm.lfc.memory_bytes IS 'its shared memory';
COMMENT ON COLUMN neon_comm.lfc.last_error IS 'why it failed; NULL when it is on';

CREATE FUNCTION neon_comm.get_prewarm_progress(OUT state text, OUT workers int, OUT total bigint,
	OUT loaded bigint, OUT skipped bigint, OUT failed bigint, OUT elapsed interval,
	OUT paused interval)
RETURNS record AS 'MODULE_PATHNAME', 'nc_get_prewarm_progress' LANGUAGE C STRICT VOLATILE;

CREATE VIEW neon_comm.prewarm_progress AS SELECT * FROM neon_comm.get_prewarm_progress();
COMMENT ON VIEW neon_comm.prewarm_progress IS 'the last prewarm of the local file cache';
COMMENT ON FUNCTION neon_comm.get_prewarm_progress() IS 'behind the view neon_comm.prewarm_progress';
COMMENT ON COLUMN neon_comm.prewarm_progress.state IS 'none, running, done, stopped, failed';
COMMENT ON COLUMN neon_comm.prewarm_progress.workers IS 'processes at work';
COMMENT ON COLUMN neon_comm.prewarm_progress.total IS 'pages of the list';
COMMENT ON COLUMN neon_comm.prewarm_progress.loaded IS 'pages brought';
COMMENT ON COLUMN neon_comm.prewarm_progress.skipped IS 'there already, gone, local or no room';
COMMENT ON COLUMN neon_comm.prewarm_progress.failed IS 'pages with errors';
COMMENT ON COLUMN neon_comm.prewarm_progress.elapsed IS 'since its start, or how long it took';
COMMENT ON COLUMN neon_comm.prewarm_progress.paused IS 'of this, time spent resting, of all workers together';

CREATE FUNCTION neon_comm.get_scrub(OUT state text, OUT pid int, OUT rounds bigint, OUT round_began timestamptz,
	OUT round_ended timestamptz, OUT relations bigint, OUT relations_all bigint, OUT blocks bigint, OUT blocks_all bigint,
	OUT spc oid, OUT db oid, OUT relfilenode oid, OUT block bigint, OUT compared bigint, OUT found bigint,
	OUT unconfirmed bigint, OUT problem text)
RETURNS record AS 'MODULE_PATHNAME', 'nc_get_scrub' LANGUAGE C STRICT VOLATILE;

CREATE VIEW neon_comm.scrub AS SELECT * FROM neon_comm.get_scrub();
COMMENT ON VIEW neon_comm.scrub IS 'the comparison of page servers that goes on all the time: where it is, what it has come to';
COMMENT ON FUNCTION neon_comm.get_scrub() IS 'behind the view neon_comm.scrub';
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
COMMENT ON FUNCTION neon_comm.get_scrub_findings() IS 'behind the view neon_comm.scrub_findings';
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
	OUT max_us bigint, OUT sum_us bigint, OUT stats_reset timestamptz)
RETURNS SETOF record AS 'MODULE_PATHNAME', 'nc_get_latency' LANGUAGE C STRICT VOLATILE;

CREATE VIEW neon_comm.latency AS SELECT * FROM neon_comm.get_latency();
COMMENT ON VIEW neon_comm.latency IS 'how long reads of pages spent in each stage of their way, since stats_reset';
COMMENT ON FUNCTION neon_comm.get_latency() IS 'behind the view neon_comm.latency';
COMMENT ON COLUMN neon_comm.latency.stage IS 'queue, send, server, receive, copy, wake';
COMMENT ON COLUMN neon_comm.latency.class IS 'demand: somebody waited from the beginning; ahead: read ahead';
COMMENT ON COLUMN neon_comm.latency.count IS 'requests (queue, copy, wake) or pages since stats_reset';
COMMENT ON COLUMN neon_comm.latency.mean_us IS 'mean in microseconds; NULL when nothing was counted';
COMMENT ON COLUMN neon_comm.latency.p50_us IS 'median in microseconds, as the upper end of its bucket';
COMMENT ON COLUMN neon_comm.latency.p90_us IS '90 % took no longer, in microseconds';
COMMENT ON COLUMN neon_comm.latency.p99_us IS '99 % took no longer, in microseconds';
COMMENT ON COLUMN neon_comm.latency.p999_us IS '99.9 % took no longer, in microseconds';
COMMENT ON COLUMN neon_comm.latency.max_us IS 'upper end of the highest bucket that has any';
COMMENT ON COLUMN neon_comm.latency.sum_us IS 'microseconds of all together';
COMMENT ON COLUMN neon_comm.latency.stats_reset IS 'when neon_comm.reset() was last called, or the server started';

CREATE FUNCTION neon_comm.get_latency_buckets(OUT stage text, OUT class text, OUT until_us bigint,
	OUT count bigint, OUT stats_reset timestamptz)
RETURNS SETOF record AS 'MODULE_PATHNAME', 'nc_get_latency_buckets' LANGUAGE C STRICT VOLATILE;

CREATE VIEW neon_comm.latency_buckets AS SELECT * FROM neon_comm.get_latency_buckets();
COMMENT ON VIEW neon_comm.latency_buckets IS 'the histograms behind neon_comm.latency; always the same rows';
COMMENT ON FUNCTION neon_comm.get_latency_buckets() IS 'behind the view neon_comm.latency_buckets';
COMMENT ON COLUMN neon_comm.latency_buckets.stage IS 'as in neon_comm.latency';
COMMENT ON COLUMN neon_comm.latency_buckets.class IS 'as in neon_comm.latency';
COMMENT ON COLUMN neon_comm.latency_buckets.until_us IS 'upper end of the bucket in microseconds, included; NULL: it has none';
COMMENT ON COLUMN neon_comm.latency_buckets.count IS 'how many took no longer, those of all buckets below included';
COMMENT ON COLUMN neon_comm.latency_buckets.stats_reset IS 'when neon_comm.reset() was last called, or the server started';

CREATE FUNCTION neon_comm.get_backends(OUT pid int, OUT pages bigint, OUT pages_local bigint,
	OUT pages_cached bigint, OUT pages_ahead bigint, OUT pages_waited bigint, OUT waits bigint,
	OUT wait_us bigint, OUT asked_ahead bigint, OUT writes_dropped bigint, OUT writes_kept bigint)
RETURNS SETOF record AS 'MODULE_PATHNAME', 'nc_get_backends' LANGUAGE C STRICT VOLATILE;

CREATE VIEW neon_comm.backends AS SELECT * FROM neon_comm.get_backends();
COMMENT ON VIEW neon_comm.backends IS 'what each process has read, waited for and written since it began; pid as in pg_stat_activity';
COMMENT ON FUNCTION neon_comm.get_backends() IS 'behind the view neon_comm.backends';
COMMENT ON COLUMN neon_comm.backends.pid IS 'of the process, as in pg_stat_activity';
COMMENT ON COLUMN neon_comm.backends.pages IS 'pages of permanent relations that shared buffers did not have: the sum of the next four';
COMMENT ON COLUMN neon_comm.backends.pages_local IS 'of these, kept on this server';
COMMENT ON COLUMN neon_comm.backends.pages_cached IS 'of these, found in the local file cache';
COMMENT ON COLUMN neon_comm.backends.pages_ahead IS 'of these, asked for ahead and there when they were wanted';
COMMENT ON COLUMN neon_comm.backends.pages_waited IS 'of these, waited for';
COMMENT ON COLUMN neon_comm.backends.waits IS 'times that it waited for page servers';
COMMENT ON COLUMN neon_comm.backends.wait_us IS 'microseconds of these waits';
COMMENT ON COLUMN neon_comm.backends.asked_ahead IS 'pages that it asked for ahead';
COMMENT ON COLUMN neon_comm.backends.writes_dropped IS 'pages it wrote that page servers can rebuild';
COMMENT ON COLUMN neon_comm.backends.writes_kept IS 'pages it wrote that had to stay on this server';

CREATE FUNCTION neon_comm.get_recording(OUT state text, OUT path text, OUT requests bigint, OUT dropped bigint,
	OUT bytes bigint, OUT last_error text)
RETURNS record AS 'MODULE_PATHNAME', 'nc_get_recording' LANGUAGE C STRICT VOLATILE;

CREATE VIEW neon_comm.recording AS SELECT * FROM neon_comm.get_recording();
COMMENT ON VIEW neon_comm.recording IS 'the recording of requests to page servers that neon_comm.record asks for, or the last one';
COMMENT ON FUNCTION neon_comm.get_recording() IS 'behind the view neon_comm.recording';
COMMENT ON COLUMN neon_comm.recording.state IS 'off, starting, on; full: it reached its size; failed: see last_error';
COMMENT ON COLUMN neon_comm.recording.path IS 'its file';
COMMENT ON COLUMN neon_comm.recording.requests IS 'requests that are in it';
COMMENT ON COLUMN neon_comm.recording.dropped IS 'requests that came faster than the disk took them, and are not in it';
COMMENT ON COLUMN neon_comm.recording.bytes IS 'bytes written';
COMMENT ON COLUMN neon_comm.recording.last_error IS 'why it ended, if it failed';

-- ---- functions ----

CREATE FUNCTION neon_comm.status(OUT enabled bool, OUT communicator_pid int, OUT io_method text,
	OUT epoch bigint, OUT heartbeat_age interval,
	OUT local_index_used bigint, OUT way_in text)
RETURNS record AS 'MODULE_PATHNAME', 'nc_status' LANGUAGE C STRICT VOLATILE;
COMMENT ON FUNCTION neon_comm.status() IS 'the communicator: pid, event loop, how often it was started, time since its last turn';

CREATE FUNCTION neon_comm.reset() RETURNS void
AS 'MODULE_PATHNAME', 'nc_reset' LANGUAGE C STRICT VOLATILE;
COMMENT ON FUNCTION neon_comm.reset() IS 'lets counters and histograms of latency begin at 0 in the views; metrics go on';

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
	neon_comm.relation_of(oid, oid, oid), neon_comm.status(), neon_comm.staging(), neon_comm.get_latency(), neon_comm.get_latency_buckets(), neon_comm.get_backends(),
	neon_comm.get_recording(),
	neon_comm.get_scrub(), neon_comm.get_scrub_findings(),
	neon_comm.local_bytes(), neon_comm.local_blocks(), neon_comm.check(int, int, int) TO pg_monitor;

-- It locks what it reads, as pgstattuple does. Members of pg_monitor are of it.
GRANT USAGE ON SCHEMA neon_comm TO pg_stat_scan_tables;
GRANT EXECUTE ON FUNCTION neon_comm.verify_relation(regclass, bigint, bigint, int) TO pg_stat_scan_tables;

-- ---- the comment that the control file has ----

-- It was put on the extension before this script began. A dump would make it again, which only the owner of
-- the extension may do: whoever owns just the database could not restore it. pg_available_extensions keeps it.
COMMENT ON EXTENSION neon_comm IS NULL;
