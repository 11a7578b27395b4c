# A page server joins while its compute recovers, and asks for WAL when recovery has ended (docs/takeover.md): it joins
# again, or it would never learn where the incarnation began whose WAL it gets. A takeover that it promises itself to
# would take its log for one of the life before.
use strict;
use warnings;

use NeonComm::Cluster;
use NeonComm::Members qw(status_of promise incarnation number_of members_known settings_of edit);
use NeonComm::Node qw(until_true);
use NeonComm::Proxy;
use Test::More;

my $proxy = NeonComm::Proxy->new;
my $c = NeonComm::Cluster->new(shards => 1, no_start => 1,
	init => [ '--durable', '--page-servers', 3, '--write-quorum', 2 ], ps_conf => ['wal_retrieve_retry_interval=200ms']);
my $dir = $c->{dir};
my $feed = { settings_of($c) }->{wal_feed_port};
my $link = $proxy->link('feed2', $feed);
edit("$dir/page_server_2/postgresql.conf", sub { s/\b$feed\b/$link/ if /^primary_conninfo/ });
$c->start;
$c->use_proxy($proxy, 1);
ok(members_known($c, 3, 0 .. 2), 'members are known');
$c->sql('CREATE TABLE t (x int, f text); INSERT INTO t SELECT 1, repeat($$f$$, 1000) FROM generate_series(1, 1200); CHECKPOINT');
# more than shared buffers have room for, and again: what has left them recovery has to read. All of it in one segment of WAL,
# or the page server would ask for one that recovery has not come to, and join again while it waits.
$c->sql('UPDATE t SET x = 2; UPDATE t SET x = 3');
my $before = number_of(status_of($c, 2)->{incarnation});

# ---- it has joined, and nothing comes of its START_REPLICATION; recovery waits for a page

$c->kill9('compute');
$proxy->cmd('down 0');
$proxy->cmd('cut 0');
# behind its join and IDENTIFY_SYSTEM
my $held = $proxy->rule('link=feed2 dir=c2s type=Q nth=3 count=1 hold');
my $starts = $c->dev_alone("$dir/log/start.out", 'start', '-D', $dir, 'compute');
my $over = 0;
END { local $?; kill 'KILL', $starts if $starts && !$over }
ok(until_true(sub { $proxy->fired($held) == 1 }), 'a page server joins, and asks for WAL');
ok(scalar $c->pids_of('compute', qr/startup/), 'while the compute recovers');
is(number_of(status_of($c, 2)->{incarnation}), $before + 1, 'it knows the incarnation');

# ---- recovery ends; only then the feed hears that it shall stream

my $from = length $c->log_text('compute');
$proxy->cmd('up 0');
waitpid $starts, 0;
$over = 1;
is($?, 0, 'the others are enough to let somebody in');
is($c->sql('SELECT sum(x) FROM t'), 3600, 'all is there');
$proxy->cmd('release feed2');
ok($c->wait_log('compute', qr/WAL feed streams to page_server_2 /, $from), 'it is streamed to');
ok($c->wait_for(q{SELECT count(*) = 3 FROM neon_comm.page_servers WHERE sync_state = 'quorum'}), '... and counts, as the others do');
$c->sql('INSERT INTO t VALUES (3)');
my $lsn = $c->sql('SELECT pg_current_wal_flush_lsn()');
ok($c->wait_for("SELECT flush_lsn >= '$lsn' FROM neon_comm.page_servers WHERE name = 'page_server_2'"), '... with the WAL of this life');
my ($out, $err) = promise($c, 2, incarnation($before + 10));
is($err, '', 'it promises itself to a takeover');
my ($present) = reverse $out =~ /^incarnation\|(.*)$/mg;
like($present, qr{^0000\w+ [0-9A-F]+/[0-9A-F]+$}, '... and tells what it has followed');
is(number_of($present), $before + 1, '... last this life');
unlike($present, qr{ 0/0+$}, '... and where that began');
$c->check_logs;
done_testing();
