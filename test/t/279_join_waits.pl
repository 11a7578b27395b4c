# A compute is restarted while replay is paused on its page server: the
# page server joins when that is replayed, and until then its log says what a compute waits for, how far replay is
# and what holds it up. Then the compute goes on.
#
# Seen to fail without: what is said (65_join_unsaid).
use strict;
use warnings;

use Test::More;
use NeonComm::Cluster;

my $c = NeonComm::Cluster->new(
	shards => 1,
	conf => ['neon_comm.request_timeout=120s'],
	ps_conf => [ 'hot_standby=on', 'max_wal_senders=20', 'max_worker_processes=64' ]);
my $dir = $c->{dir};
my ($socket) = map { /^socket_dir=(.*)/ ? $1 : () } do { local @ARGV = ("$dir/neon_dev.conf"); <> };

sub page_server_sql
{
	my ($sql, $out) = (@_, '');
	IPC::Run::run([ 'psql', '-XqAt', '-d', "host=$socket port=@{[ $c->page_server_port(0) ]} dbname=postgres user=postgres", '-c', $sql ],
		'>', \$out, '2>&1');
	chomp $out;
	return $out;
}

$c->sql(q{CREATE TABLE t AS SELECT g AS id, repeat('f', 300) AS f FROM generate_series(1, 10000) g});
ok($c->wait_for(q{SELECT apply_lsn >= pg_current_wal_flush_lsn() FROM neon_comm.page_servers}), 'all is replayed');
is(page_server_sql('SELECT pg_wal_replay_pause() IS NULL'), 'f', 'replay is paused');
$c->conninfo;
$c->stop('compute', '--mode', 'immediate');
my $from = length $c->log_text('page_server_0');
system('pg_ctl', '-s', '-w', '-t', 60, '-D', "$dir/compute", '-l', $c->log_file('compute'), 'start') == 0 or die 'pg_ctl';
# recovery had full pages in WAL; who reads waits
my $read = '';
my $reader = IPC::Run::start([ 'psql', '-XqAt', '-d', $c->conninfo, '-c', 'SELECT count(*) FROM t' ], '>', \$read, '2>&1');
ok($c->wait_log('page_server_0', qr{a compute is joined when all WAL that is here has been replayed: replay is at [0-9A-F]+/[0-9A-F]+, .*replay is paused}, $from),
	'the page server says what a compute waits for');
is(page_server_sql('SELECT pg_wal_replay_resume() IS NULL'), 'f', 'replay goes on');
IPC::Run::finish($reader);
is($read, "10000\n", 'and the compute is served');

$c->check_logs;
done_testing();
