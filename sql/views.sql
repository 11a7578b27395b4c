-- shape of the views, and who may use what
SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod)
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
WHERE relnamespace = 'neon_comm'::regnamespace AND relkind = 'v' AND attnum > 0
ORDER BY relname COLLATE "C", attnum;
SELECT count(DISTINCT shard) > 0 AS connected FROM neon_comm.connections WHERE state = 'ready';
SELECT count(*) > 0 AS known, bool_and(state <> '') AS have_state FROM neon_comm.page_servers;
SELECT count(*) FROM neon_comm.slots WHERE pid = pg_backend_pid();
SELECT count(*) = count(DISTINCT name) AS names_unique, bool_and(value >= 0) AS sane FROM neon_comm.counters;
SELECT bool_and(description <> '') AS all_described FROM neon_comm.get_counters();
CREATE ROLE nc_nobody;
CREATE ROLE nc_monitor IN ROLE pg_monitor;
SET ROLE nc_nobody;
SELECT count(*) FROM neon_comm.counters;
SELECT neon_comm.sweep();
RESET ROLE;
SET ROLE nc_monitor;
SELECT count(*) > 0 AS may_look FROM neon_comm.counters;
SELECT count(*) >= 0 AS may_look FROM neon_comm.local_blocks();
SELECT allocated >= 0 AS may_look FROM neon_comm.local_bytes();
SELECT neon_comm.sweep();
SELECT neon_comm.restart_communicator();
RESET ROLE;
DROP ROLE nc_nobody, nc_monitor;
SELECT p.proname, has_function_privilege('pg_monitor', p.oid, 'EXECUTE') AS monitor,
	has_function_privilege('public', p.oid, 'EXECUTE') AS public
FROM pg_proc p WHERE pronamespace = 'neon_comm'::regnamespace ORDER BY proname COLLATE "C";
