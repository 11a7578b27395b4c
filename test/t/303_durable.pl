# neon_dev init --durable: commits wait for page servers (docs/neon_dev.md).
use strict;
use warnings;

use File::Temp qw(tempdir);
use NeonComm::Cluster;
use Test::More;

my $top = tempdir('nc_XXXXXX', TMPDIR => 1, CLEANUP => 1);
my $none = bless { dir => "$top/x", allowed => [] }, 'NeonComm::Cluster';

foreach my $bad (
	[ qr/--write-quorum is of use with --durable only/, '--write-quorum', 1 ],
	[ qr/--write-quorum 3 is more than there are page servers \(2\)/, '--durable', '--write-quorum', 3 ],
	[ qr/--write-quorum must be between 1 and 128/, '--durable', '--write-quorum', 0 ],
	[ qr/--durable writes synchronous_standby_names/, '--durable', '--conf', 'synchronous_standby_names=*' ],
	[ qr/with synchronous_commit = local no commit is durable elsewhere/, '--durable', '--conf', 'synchronous_commit=local' ],
	[ qr/with synchronous_commit = off no commit/, '--durable', '--conf', "synchronous_commit='off'" ],
	[ qr/--page-servers 1 is fewer than one for each of 2 shards/, '--page-servers', 1 ],
	[ qr/max_replication_slots = 2: each of 3/, '--page-servers', 3, '--conf', 'max_replication_slots=2' ],
	[ qr/max_wal_senders = 1 is too small/, '--durable', '--conf', 'max_wal_senders=1' ],
	[ qr/page servers confirm nothing/, '--durable', '--ps-conf', 'wal_receiver_status_interval=0s' ])
{
	my ($says, @options) = @$bad;
	my ($ok, $out) = $none->try_dev('init', '-D', $none->{dir}, @options);
	ok(!$ok, "refused: @options");
	like($out, $says, '  and says why');
	ok(!-e $none->{dir}, '  nothing left behind');
}

my $c = NeonComm::Cluster->new(shards => 1, buffers => '64MB', init => [ '--durable', '--page-servers', 3 ]);
is($c->sql('SHOW synchronous_standby_names'), 'ANY 2 (page_server_0, page_server_1, page_server_2)', 'more than half');
my $status = $c->dev('status', '-D', $c->{dir}, '--values', '--no-measure');
like($status, qr/^cluster\.$_$/m, "status: $_") foreach qw(shards=1 page_servers=3 write_quorum=2);
like($status, qr/^page_server_$_\.state=running$/m, "page server $_ runs") foreach 0 .. 2;
unlike($c->sql('SHOW neon_comm.page_servers'), qr/,/, 'one of them is read from');
ok($c->wait_for(q{SELECT count(*) = 3 FROM neon_comm.page_servers WHERE sync_state = 'quorum'}), 'three count');
like($c->sql('SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0; SET enable_indexonlyscan = off; EXPLAIN (ANALYZE) SELECT count(*) FROM pg_proc'),
	qr/Workers Launched: [1-9]/, 'parallel workers take the settings');
$c->sql('CREATE TABLE t (x int); INSERT INTO t VALUES (1)');
my $s = $c->session;
$s->query('INSERT INTO t VALUES (2)');
$c->stop('page-server', 2);
$s->query('INSERT INTO t VALUES (3)');
is($s->query('SELECT count(*) FROM t'), 3, 'one may be away');
$c->kill9('compute');
$c->start;
is($c->sql('SELECT count(*) FROM t'), 3, 'after a crash of the compute all is there');
$c->sql('INSERT INTO t VALUES (4)');
$c->restart;
is($c->sql('SELECT count(*) FROM t'), 4, 'and after a restart of all');

my $two = NeonComm::Cluster->new(shards => 2, no_start => 1, init => [ '--durable', '--write-quorum', 1 ]);
open my $fh, '<', "$two->{dir}/compute/postgresql.conf" or die $!;
like(join('', <$fh>), qr/^synchronous_standby_names = 'ANY 1 \(page_server_0, page_server_1\)'$/m, 'as many as one says');

$c->check_logs;
done_testing();
