# Every figure of a compute's /metrics is moved by a scripted cause (NeonComm::Figures): one that nothing moves fails
# here, by its name. What only a test build can move is moved in 389_figures_of_faults. promtool judges what comes of it.
use strict;
use warnings;

use File::Path qw(remove_tree);
use Test::More;
use NeonComm::Cluster;
use NeonComm::Figures;
use NeonComm::Http qw(get promtool promtool_says);
use NeonComm::Node qw(free_port until_true);
use NeonComm::Proxy;

my $f = NeonComm::Figures->new('neon_comm');
my $rows = 'SELECT count(*), sum(id) FROM t';
my @stopped;
sub freeze { my @pids = @_; die 'nobody to stop' unless @pids; push @stopped, @pids; kill 'STOP', @pids; return }
sub thaw { kill 'CONT', @stopped; @stopped = (); return }
END { local $?; kill 'CONT', @stopped if @stopped }
my $c;
sub page_servers { return map { my $pm = $c->postmaster_pid("page_server_$_"); ($pm, split ' ', `ps -o pid= --ppid $pm`) } 0, 1 }
sub restart_with
{
	my ($settings, $what) = @_;
	$c->append_conf('compute', "$_ = '$settings->{$_}'") foreach keys %$settings;
	$c->restart('compute');
	return;
}

# ---- a compute at work

my $port = free_port();
$c = NeonComm::Cluster->new(checksums => 1, conf => [ "neon_comm.metrics_port=$port", 'neon_comm.lfc_size=8MB',
		'neon_comm.silence_timeout=1s', 'neon_comm.hedged_reads=off', 'neon_comm.connections_per_shard=1', 'neon_comm.connection_depth=2', 'neon_comm.readahead_blocks=16',
		'neon_comm.max_apply_lag=0', 'max_parallel_workers_per_gather=0', 'neon_comm.sweep_interval=1h', 'synchronous_commit=off',
		'max_wal_senders=10' ]);
my $dir = $c->{dir};
$f->begin($port);
$c->sql(q{CREATE EXTENSION pg_prewarm; CREATE TABLESPACE ts LOCATION '';
	CREATE TABLE t (id int, f text) WITH (fillfactor = 10);
	INSERT INTO t SELECT g, lpad(g::text, 700, '0') FROM generate_series(1, 1000) g; CREATE INDEX ON t (id); VACUUM t;
	CREATE TABLE u AS SELECT g AS id, point(g % 100, g / 100) AS p, repeat('u', 300) AS f FROM generate_series(1, 12000) g;
	CREATE INDEX ON u USING gist (p); CREATE SEQUENCE s; SELECT nextval('s')});
my $rel = $c->sql(q{SELECT pg_relation_filenode('t')});
$c->sql("$rows; $rows; CHECKPOINT; SELECT neon_comm.sweep()");
$c->sql('SET neon_comm.readahead_blocks = 0; ALTER TABLE u SET TABLESPACE ts; SELECT count(*) FROM u');
my $s = $c->session;
$s->query(q{BEGIN; CREATE TABLE own (v int, f text); INSERT INTO own SELECT g, repeat('o', 300) FROM generate_series(1, 4000) g; UPDATE own SET v = v + 1});
$c->evict;
$c->sql('CHECKPOINT');
$s->query('COMMIT');
$c->sql('SELECT txid_current(); SELECT neon_comm.sweep()');
$f->moves('work', qw(reads_remote reads_to_shared_buffer reads_to_bounce writes_dropped writes_local_command_id writes_local_unlogged_build
	  writes_local_sequence writes_plain extends swept_pages sweeps wait_seconds client_sleeps requests pages_requested pages_received bytes_sent
	  bytes_received receives sends loop_turns wakes feed_bytes feed_position_bytes page_server_position_bytes page_server_lag_bytes
	  request_stage_seconds local_index_entries reads_local lsn_flushes feed_rings));
$s->query('SET neon_comm.mode = direct; SELECT count(*) FROM t');
$f->moves('a process that reads directly', 'reads_direct');
$s->query('RESET neon_comm.mode');

# ---- a local file cache

$c->into_cache($rows);
$c->evict;
$c->sql("$rows; DROP TABLE own; CREATE TABLE v AS SELECT g AS id, repeat('v', 900) AS f FROM generate_series(1, 20000) g; SELECT count(*) FROM v; SELECT count(*) FROM v");
$f->moves('a file cache', qw(lfc_hits lfc_misses lfc_fills lfc_writes lfc_blocks_written lfc_evictions lfc_invalidations lfc_pages lfc_state));
freeze($c->pids_of('compute', qr/neon_comm.*cache/));
$c->sql('SELECT count(*) FROM v; SELECT count(*) FROM t; SELECT count(*) FROM u');
$f->moves('its writer is stopped', qw(lfc_pages_staged lfc_drops));
thaw();
$c->into_cache($rows);
$c->sql('SELECT neon_comm.lfc_save(); SELECT neon_comm.lfc_prewarm(2)');
$f->moves('a prewarm', qw(prewarm_state prewarm_pages));

done_testing();
