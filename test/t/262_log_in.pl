# start and status of neon_dev: a part runs when somebody can log in, and what is missing is named.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use NeonComm::Cluster;
use Test::More;

my $c = NeonComm::Cluster->new(shards => 2, conf => [ 'neon_comm.request_timeout=5s' ], no_start => 1);
my ($ok, $out);
$c->allow_log(qr/could not read block|FATAL/);
$c->start;
$c->sql('CREATE TABLE t AS SELECT generate_series(1, 1000) AS x; CHECKPOINT');

# ---- a page server is away

$c->stop('compute');
$c->stop('page-server', 1);
($ok, $out) = $c->try_dev('start', '-D', $c->{dir}, 'compute', '-t', 60);
ok(!$ok, 'start is no success when nobody can log in');
like($out, qr/compute runs, but nobody can log in: /, 'and says so');
like($out, qr/page server 1 does not run/, 'and names what is missing');
ok($c->postmaster_pid('compute'), 'the server was left alone');
($ok, $out) = $c->try_dev('start', '-D', $c->{dir}, 'compute', '-t', 60);
ok(!$ok, 'the same command again is no success either');
like($out, qr/compute runs already\n.*nobody can log in: /s, 'the compute runs, and still nobody can log in');
($ok, $out) = $c->try_dev('status', '-D', $c->{dir}, '--values', '--no-measure');
ok(!$ok, 'status is not 0');
like($out, qr/^compute\.state=unreachable$/m, 'the compute is not said to run');
like($out, qr/^compute\.problem=.*page server 1 does not run/m, 'and why');
($ok, $out) = $c->try_dev('status', '-D', $c->{dir}, '--no-measure');
like($out, qr/^compute +unreachable .*^compute: .*page server 1 does not run/ms, 'for people, too');
$c->start('page-server', 1);
# start goes on for ten seconds only where attempts fail
ok($c->wait_for('SELECT true'), 'somebody can log in');
$c->start;
($ok, $out) = $c->try_dev('status', '-D', $c->{dir}, '--no-measure');
ok($ok, 'all is well again') or diag($out);
is($c->sql('SELECT count(*) FROM t'), 1000, 'and it works');

# ---- all run, but the list of page servers leads elsewhere

$c->stop('compute');
my $conf = "$c->{dir}/compute/postgresql.auto.conf";
open my $fh, '>', $conf or die $!;
print $fh "neon_comm.page_servers = '" . $c->page_server_list($c->page_server_port(0), 1) . "'\n";
close $fh;
($ok, $out) = $c->try_dev('start', '-D', $c->{dir}, 'compute', '-t', 60);
ok(!$ok, 'a shard that nobody serves: start is no success');
like($out, qr/the compute's log: .*shard 1 .*Connection refused/s, 'and the log tells which');
truncate $conf, 0;
kill 'HUP', $c->postmaster_pid('compute');
ok($c->wait_for('SELECT true'), 'somebody can log in again');
$c->start;
is($c->sql('SELECT count(*) FROM t'), 1000, 'with the right list it works');

# ---- the compute refuses neon_dev, or has no views for it: it answers

sub reload_hba
{
	my ($first, @rest) = @_;
	my $from = length $c->log_text('compute');
	open my $file, '>', "$c->{dir}/compute/pg_hba.conf" or die $!;
	print $file "$first\n", @rest;
	close $file or die $!;
	kill 'HUP', $c->postmaster_pid('compute');
	return $c->wait_log('compute', qr/received SIGHUP/, $from) || die 'pg_hba.conf was not read again';
}

sub answers
{
	my ($what, $why) = @_;
	($ok, $out) = $c->try_dev('status', '-D', $c->{dir}, '--values', '--no-measure');
	ok($ok, "$what: status is 0") or diag($out);
	like($out, qr/^compute\.state=running$/m, 'it is said to run');
	like($out, $why, 'and why not more is known');
	($ok, $out) = $c->try_dev('start', '-D', $c->{dir}, 'compute', '-t', 60);
	ok($ok, 'and start is content') or diag($out);
	return;
}

open $fh, '<', "$c->{dir}/compute/pg_hba.conf" or die $!;
my @hba = <$fh>;
close $fh;
my @of_hosts = grep { !/^local/ } @hba;
reload_hba('local all all reject', @of_hosts);
answers('rejected by pg_hba.conf', qr/^compute\.problem=pg_hba\.conf rejects connection/m);
reload_hba('', @of_hosts);
answers('without a line in pg_hba.conf', qr/^compute\.problem=no pg_hba\.conf entry/m);
reload_hba('local all all password', @of_hosts);
answers('asked for a password', qr/^compute\.problem=.*no password supplied/m);
reload_hba('', @hba);
$c->sql('DROP EXTENSION neon_comm');
answers('without the extension', qr/^compute\.problem=.*no extension neon_comm/m);
like($c->dev('status', '-D', $c->{dir}, '--values', '--no-measure'), qr/^compute\.flush_lsn=\w/m, 'the rest is known');
$c->sql('CREATE EXTENSION neon_comm');
($ok, $out) = $c->try_dev('status', '-D', $c->{dir}, '--values', '--no-measure');
unlike($out, qr/problem/, 'all is well again');

# ---- a page server lets nobody in

kill 'STOP', $c->postmaster_pid('page_server_0'), my @workers = $c->pids_of('page_server_0', qr/page service/);
my $started = ($c->try_dev('start', '-D', $c->{dir}, 'page-server', 0))[1];
($ok, $out) = $c->try_dev('status', '-D', $c->{dir}, '--values', '--no-measure');
kill 'CONT', $c->postmaster_pid('page_server_0'), @workers;
ok(!$ok, 'a frozen page server: status is not 0');
like($out, qr/^page_server_0\.state=unreachable$/m, 'it is not said to run');
like($out, qr/^page_server_0\.problem=.*/m, 'and why');
like($started, qr/page server 0 runs already\n.*page server 0 runs, but does not let us in/s, 'start says so, too');
like($out, qr/^page_server_1\.state=running$/m, 'the other one runs');

# ---- no room for processes: without its communicator, or its port, a server would let nobody in

$c->stop;
foreach my $case ([ 'neon_comm', 5, 'compute' ], [ 'neon_page_service', 4, 'page_server_0' ])
{
	my ($library, $needs, $part) = @$case;
	my @part = $part eq 'compute' ? 'compute' : ('page-server', 0);
	foreach my $n (2 .. $needs)
	{
		my $from = length $c->log_text($part);
		open $fh, '>', "$c->{dir}/$part/postgresql.auto.conf" or die $!;
		print $fh "max_worker_processes = $n\n";
		close $fh;
		last if $n == $needs;
		($ok, $out) = $c->try_dev('start', '-D', $c->{dir}, @part, '-t', 10);
		ok(!$ok, "$part with max_worker_processes = $n is not started");
		like(substr($c->log_text($part), $from), qr/FATAL:.*max_worker_processes = $n is too small.*\n.*DETAIL:.*$library.* at least $needs\b/,
			'and says how many are needed');
		$c->stop(@part);
	}
}
$c->start;
is($c->sql('SHOW max_worker_processes; SELECT count(*) FROM t'), "5\n1000", 'with as many they are started');
$c->check_logs;
done_testing();
