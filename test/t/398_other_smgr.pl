# Another library that sets the storage-manager hook of a server that has one: behind neon_comm, one that asks
# whom it found works, and one that asks nobody is refused; before neon_comm it is refused by its name.
use strict;
use warnings;

use Test::More;
use NeonComm::Cluster;

my $pg_config = $ENV{PG_CONFIG} // 'pg_config';
my ($bindir, $pkglibdir) = map { my $d = `$pg_config --$_`; chomp $d; $d } qw(bindir pkglibdir);
plan skip_all => 'this server has no storage-manager hook (18: 409_registered): see test/hook.sh' if !grep { / smgr_hook$/ } `nm -D $bindir/postgres`;
plan skip_all => 'other_smgr is not installed: see test/hook.sh' if !-e "$pkglibdir/other_smgr.so";

my $c = NeonComm::Cluster->new(shards => 1);
$c->sql(q{CREATE TABLE t AS SELECT g AS id, repeat('x', 400) AS f FROM generate_series(1, 5000) g;
	CREATE FUNCTION asked() RETURNS bigint AS 'other_smgr', 'other_smgr_asked' LANGUAGE C});
my $libraries = $c->sql('SHOW shared_preload_libraries');

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

my ($ok, $log) = started_with("$libraries,other_smgr", 'pass');
ok($ok, 'behind neon_comm, and asks the hook that it found: it starts') or diag($log);
is($c->sql('SELECT way_in FROM neon_comm.status()'), 'hook', 'neon_comm is there');
is($c->sql('SELECT count(*), sum(id) FROM t'), '5000|12502500', 'rows');
is($c->sql('SELECT count(*) > 0 FROM t; SELECT asked() > 0'), "t\nt", 'the other library was asked, too');

($ok, $log) = started_with("$libraries,other_smgr", 'take');
ok(!$ok, 'behind neon_comm, and asks nobody: it does not start');
like($log, qr/FATAL: +neon_comm: another library has set the storage-manager hook and does not ask neon_comm/, 'which is said');
unlike($log, qr/redo starts|ready to accept/, 'nothing was begun');

($ok, $log) = started_with("other_smgr,$libraries", 'pass');
ok(!$ok, 'before neon_comm: it does not start');
like($log, qr/FATAL: +neon_comm: another library has set the storage-manager hook before\n.*DETAIL: +It is ".*other_smgr[^"]*"/, 'by name');
like($log, qr/HINT: +Put neon_comm before it in shared_preload_libraries/, 'with what to do');

($ok, $log) = started_with($libraries, 'pass');
ok($ok, 'without it: it starts') or diag($log);
is($c->sql('SELECT count(*), sum(id) FROM t'), '5000|12502500', 'rows at last');
$c->check_logs;
done_testing();
