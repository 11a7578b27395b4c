# pg_rewind with a stopped compute as its target: it ends with an error before it has
# written anything, and the compute is none the worse.
#
# Seen to fail: it put the files of an ordinary server that was made of a page server over
# those of the compute, and left the holes.
use strict;
use warnings;

use IPC::Run ();
use NeonComm::Cluster;
use Test::More;

my $c = NeonComm::Cluster->new(shards => 1, checksums => 1);
my ($compute, $page_server, $source) = ("$c->{dir}/compute", "$c->{dir}/page_server_0", "$c->{dir}/source");
my $bindir = `@{[ $ENV{PG_CONFIG} // 'pg_config' ]} --bindir`;
chomp $bindir;

sub run_tool
{
	my ($tool, @args) = @_;
	my $out = '';
	IPC::Run::run([ "$bindir/$tool", @args ], '<', \undef, '>', \$out, '2>&1');
	return ($? >> 8, $out);
}

$c->sql(q{CREATE TABLE t AS SELECT g AS id, repeat('x', 200) AS f FROM generate_series(1, 5000) g; CHECKPOINT});
ok($c->wait_for(q{SELECT bool_and((flush_lsn >= pg_current_wal_flush_lsn()) IS TRUE) FROM neon_comm.page_servers}), 'the page server has it');

# An ordinary server, made of a page server, whose history parts from the compute's.
$c->stop('page-server', 0);
system('cp', '-a', $page_server, $source) == 0 or die 'cp';
$c->start('page-server', 0);
unlink "$source/page_service_identity";
my @start = ('start', '-w', '-s', '-D', $source, '-l', $c->log_file('source'), '-o', join ' ', q{-c shared_preload_libraries='' -c primary_conninfo=''},
	q{-c listen_addresses=''}, "-c unix_socket_directories='$c->{dir}' -c max_worker_processes=64 -c max_wal_senders=64");
my ($rc, $out) = run_tool('pg_ctl', @start);
is($rc, 0, 'a copy of it is an ordinary server') or diag($out . $c->log_text('source'));
is((run_tool('pg_ctl', 'promote', '-w', '-s', '-D', $source))[0], 0, 'and is promoted');
is((run_tool('pg_ctl', 'stop', '-w', '-s', '-D', $source))[0], 0, 'and stopped');

$c->sql('INSERT INTO t SELECT g, repeat($$y$$, 200) FROM generate_series(5001, 6000) g; CHECKPOINT');
$c->stop('compute');
my $sum = "cd '$compute' && find . -type f | sort | xargs cksum";
my $before = `$sum`;
($rc, $out) = run_tool('pg_rewind', '--no-sync', '-D', $compute, '--source-pgdata', $source);
isnt($rc, 0, 'pg_rewind of the compute: an error');
like($out, qr/file "pg_snapshots" is of different type in source and target/, 'by a link');
is(`$sum`, $before, 'before anything was written');

# a start makes the link again, of a copy with its links resolved, too, and one that was killed in between is made up for
unlink "$compute/pg_snapshots" or die $!;
mkdir "$compute/pg_snapshots" or die $!;
for my $of (qw(pg_snapshots pg_snapshots.neon_comm))
{
	open my $fh, '>', "$compute/$of/00000003-0000001B-1" or die $!;
	close $fh;
}
$c->start('compute');
ok(-l "$compute/pg_snapshots" && -d "$compute/pg_snapshots/.", 'directories with what an earlier life has exported are no hindrance');
$c->stop('compute');
unlink "$compute/pg_snapshots.neon_comm/00000003-0000001B-1" or die $!;
rmdir "$compute/pg_snapshots.neon_comm" or die $!;
$c->start('compute');
ok(-d "$compute/pg_snapshots/.", 'nor is a link to an empty directory that a copy left out');
$c->stop('compute');
unlink "$compute/pg_snapshots" or die $!;
$c->start('compute');
ok(-l "$compute/pg_snapshots" && -d "$compute/pg_snapshots/.", 'the link is made at a start');
is($c->sql('SELECT count(*), sum(id) FROM t'), '6000|18003000', 'the compute goes on');
my $s = $c->session;
my $snapshot = $s->query('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT pg_export_snapshot()');
is($c->sql("BEGIN ISOLATION LEVEL REPEATABLE READ; SET TRANSACTION SNAPSHOT '$snapshot'; SELECT count(*) FROM t"), 6000, 'snapshots are exported');
$c->check_logs;
done_testing();
