-- the extension is there, its schema is a part of it, and tables larger than shared buffers work
CREATE EXTENSION IF NOT EXISTS neon_comm;
SELECT classid::regclass FROM pg_depend WHERE objid = 'neon_comm'::regnamespace AND deptype = 'e';
ALTER EXTENSION neon_comm SET SCHEMA public;
SELECT enabled, communicator_pid > 0 AS communicator, io_method IN ('io_uring', 'epoll') AS io FROM neon_comm.status();
CREATE TABLE nc_t (id int PRIMARY KEY, v int, f text);
INSERT INTO nc_t SELECT g, g % 10, repeat('f', 200) FROM generate_series(1, 20000) g;
SELECT count(*), sum(v), min(length(f)) FROM nc_t;
UPDATE nc_t SET v = v + 1 WHERE id % 2 = 0;
SELECT count(*), sum(v) FROM nc_t;
-- parallel workers take every setting over, by way of its default
-- (which is forced by the one name up to 15, by the other from 16 on)
SELECT set_config(name, 'on', false) AS parallel FROM pg_settings WHERE name IN ('force_parallel_mode', 'debug_parallel_query');
SELECT count(*) FROM nc_t;
SELECT set_config(name, 'off', false) AS parallel FROM pg_settings WHERE name IN ('force_parallel_mode', 'debug_parallel_query');
DELETE FROM nc_t WHERE id > 10000;
VACUUM nc_t;
SELECT count(*), sum(v) FROM nc_t;
SELECT pg_relation_size('nc_t') > 0 AS has_length;
TRUNCATE nc_t;
SELECT count(*), pg_relation_size('nc_t') FROM nc_t;
DROP TABLE nc_t;
-- counters of things that must not happen
SELECT name, value FROM neon_comm.counters
WHERE name IN ('found_late', 'stale_answers', 'future_answers', 'connections_poisoned') ORDER BY name;
SELECT name, value > 0 AS moved FROM neon_comm.counters
WHERE name IN ('reads_remote', 'requests', 'pages_received', 'writes_dropped', 'extends', 'wakes') ORDER BY name;
