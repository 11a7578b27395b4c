# PostgreSQL 18 with smgrregister(): whatever another library does that has registered a storage manager, before
# neon_comm or behind it, no relation is silently another's: what is not neon_comm's to serve ends the start.
# Asynchronous reads go the way that they go on a stock server, and I/O workers open files through neon_comm.
use strict;
use warnings;

use Test::More;
use NeonComm::Cluster;
use NeonComm::Node qw(until_true);

my $pg_config = $ENV{PG_CONFIG} // 'pg_config';
my ($bindir, $pkglibdir) = map { my $d = `$pg_config --$_`; chomp $d; $d } qw(bindir pkglibdir);
plan skip_all => 'this server registers no storage managers: see test/hook.sh' if !grep { / smgrregister$/ } `nm -D $bindir/postgres`;
plan skip_all => 'other_smgr is not installed: see test/hook.sh' if !-e "$pkglibdir/other_smgr.so";

my $rows = 20000;
my $right = "$rows|" . $rows * ($rows + 1) / 2;
my $c = NeonComm::Cluster->new(shards => 1, buffers => '16MB', conf => [ 'checkpoint_timeout=1h', 'neon_comm.lfc_size=0', 'io_method=worker',
	'neon_comm.async_reads=on', 'neon_comm.readahead_blocks=0', 'effective_io_concurrency=100', 'max_parallel_workers_per_gather=0' ]);
$c->sql(qq{CREATE EXTENSION pg_buffercache;
	CREATE TABLE t AS SELECT g AS id, repeat('x', 400) AS f FROM generate_series(1, $rows) g;
	CREATE UNLOGGED TABLE u AS TABLE t;
	CREATE FUNCTION asked() RETURNS bigint AS 'other_smgr', 'other_smgr_asked' LANGUAGE C;
	CREATE FUNCTION own(regclass) RETURNS bool AS 'other_smgr', 'other_smgr_serves' LANGUAGE C});
$c->sql('VACUUM (FREEZE, ANALYZE) t');
$c->sql('CHECKPOINT; SELECT neon_comm.sweep()');
my $libraries = $c->sql('SHOW shared_preload_libraries');

sub cold
{
	my ($table) = @_;
	ok(until_true(sub {
		$c->sql("SELECT pg_buffercache_evict_relation('$table')");
		return $c->sql(qq{SELECT count(*) FROM pg_buffercache WHERE relforknumber = 0 AND relfilenode = pg_relation_filenode('$table')}) eq '0';
	}), "$table is not in memory");
	return;
}

# ---- asynchronous reads
sub reads_go_their_way
{
	my ($when) = @_;
	cold('t');
	my $before = $c->counter('reads_async');
	is($c->sql('SELECT count(*), sum(id) FROM t'), $right, "$when: rows of a logged table");
	cmp_ok($c->counter('reads_async'), '>', $before, "$when: the communicator has completed reads of it");
	cold('u');
	is($c->sql('SELECT count(*), sum(id) FROM u'), $right, "$when: rows of a table that is not logged");
	return;
}
is($c->sql('SELECT way_in FROM neon_comm.status()'), 'registered', 'neon_comm has registered');
reads_go_their_way('alone');

# who writes a page by its tag does not know whether the relation is logged: nothing of it comes to lie in a file
my $held = 'SELECT allocated - sequences - empty FROM neon_comm.local_bytes()';
$c->sql('UPDATE t SET id = id; VACUUM t; DROP TABLE u');
ok(until_true(sub { $c->sql('CHECKPOINT; SELECT neon_comm.sweep()'); return $c->sql($held) eq '0' }), 'all is on page servers');
$c->kill9('compute');
$c->start('compute');
is($c->sql('SELECT count(*), sum(id) FROM t'), $right, 'rows after a crash');
$c->sql('CREATE UNLOGGED TABLE u AS TABLE t; CHECKPOINT');

# ---- another library
sub started_with
{
	my ($list, $mode) = @_;
	$c->stop('compute');
	$c->append_conf('compute', "shared_preload_libraries = '$list'");
	$c->append_conf('compute', "other_smgr.mode = '$mode'");
	my $from = length $c->log_text('compute');
	$c->try_dev('start', '-D', $c->{dir}, 'compute');
	return ($? == 0, substr $c->log_text('compute'), $from);
}

foreach my $case ([ 'behind', "$libraries,other_smgr" ], [ 'before', "other_smgr,$libraries" ])
{
	my ($where, $list) = @$case;
	my ($ok, $log) = started_with($list, 'pass');
	ok($ok, "$where neon_comm, and owns nothing: it starts") or diag($log);
	is($c->sql('SELECT way_in FROM neon_comm.status()'), 'registered', 'neon_comm is there');
	is($c->sql(q{CREATE TEMP TABLE x (i int); SELECT own('t'), own('u'), own('x')}), 't|t|f', 'whose relations are whose');
	is($c->sql('SELECT count(*) > 0 FROM t; SELECT asked() > 0'), "t\nt", 'the other library was asked, too') if $where eq 'behind';
	reads_go_their_way($where);
}

my ($ok, $log) = started_with("$libraries,other_smgr", 'take');
ok(!$ok, 'it is asked first, and owns everything: it does not start');
like($log, qr/FATAL: +neon_comm: another library has registered a storage manager that takes what is neon_comm's/, 'which is said');
like($log, qr/HINT: +Exchange the two in shared_preload_libraries/, 'with what to do');
unlike($log, qr/redo starts|ready to accept/, 'nothing was begun');

($ok, $log) = started_with("other_smgr,$libraries", 'take');
ok($ok, 'it is asked behind neon_comm, and owns everything: it starts') or diag($log);
is($c->sql(q{CREATE TEMP TABLE x AS SELECT g AS i FROM generate_series(1, 2000) g; SELECT own('x'), count(*) FROM x}), 't|2000',
	'what neon_comm leaves to others is its');
reads_go_their_way('in front of one that takes all');

($ok, $log) = started_with($libraries, 'pass');
ok($ok, 'without it: it starts') or diag($log);
is($c->sql('SELECT count(*), sum(id) FROM t'), $right, 'rows at last');
$c->check_logs;
done_testing();
