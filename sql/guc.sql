-- bad settings get an error that names the fault and the remedy
\set VERBOSITY default
ALTER SYSTEM SET neon_comm.page_servers = 'host=127.0.0.1 port=1,,host=127.0.0.1 port=2';
ALTER SYSTEM SET neon_comm.page_servers = 'host=127.0.0.1 port=1 password=secret';
ALTER SYSTEM SET neon_comm.page_servers = 'postgresql://user:secret@127.0.0.1/';
ALTER SYSTEM SET neon_comm.tenant_id = 'not an id';
ALTER SYSTEM SET neon_comm.timeline_id = '00112233445566778899aabbccddeeff-0001';
ALTER SYSTEM SET neon_comm.protocol_version = 1;
-- the server's own message, which has had units since 16
\set VERBOSITY sqlstate
ALTER SYSTEM SET neon_comm.stripe_size = 0;
\set VERBOSITY default
ALTER SYSTEM SET neon_comm.connections_per_shard = 0;
ALTER SYSTEM SET neon_comm.io_method = 'select';
SET neon_comm.no_such_setting = 1;
-- as many page servers as there can be shards, and no more
SELECT format('ALTER SYSTEM SET neon_comm.wal_feed_slots = %L', string_agg('s' || i, ',')) FROM generate_series(1, 129) i \gexec
SET neon_comm.tenant_id = '00112233445566778899aabbccddeeff';
SET neon_comm.sweep_interval = '1s';
SET neon_comm.request_timeout = '90s';
SHOW neon_comm.request_timeout;
RESET neon_comm.request_timeout;
-- documented names
\pset format unaligned
\pset tuples_only on
SELECT name, unit, context FROM pg_settings
WHERE name LIKE 'neon\_comm.%' AND name NOT LIKE '%test%' ORDER BY name COLLATE "C";
