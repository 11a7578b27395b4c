# Slow, not broken: a page server that sends little at a time, and page servers
# that get WAL late or not at all, so that every answer about a page just written
# has to wait. Rows are right and new, whoever waits may leave, and the views say
# who is behind.
use strict;
use warnings;

use Test::More;
use Time::HiRes qw(usleep);
use NeonComm::Cluster;
use NeonComm::Proxy;
use NeonComm::Stuck;

my $c = NeonComm::Cluster->new(shards => 2, buffers => '8MB', conf => [
	'neon_comm.silence_timeout=1h', 'max_parallel_workers_per_gather=0' ],
	ps_conf => [ 'wal_retrieve_retry_interval=200ms' ]);
my $p = NeonComm::Proxy->new;

$c->sql(q{CREATE TABLE self (id int, v int, f text) WITH (fillfactor = 10);
	INSERT INTO self SELECT g, 0, lpad(g::text, 700, '0') FROM generate_series(0, 1999) g;});
cmp_ok($c->sql(q{SELECT pg_relation_size('self')}), '>', 14 * 1024 * 1024, 'larger than shared buffers');
$c->use_proxy($p, 2);
my $look = q{SELECT count(*), sum(v), count(*) FILTER (WHERE f <> lpad(id::text, 700, '0')) FROM self};
my $s = $c->session;
my $stuck = NeonComm::Stuck->new($c, q{SELECT count(*) FROM self WHERE ctid = '(0,1)'});

# Half a page in a breath; frames arrive in pieces.
my $slow = $p->rule('link=0 tag=getpage throttle=400000');
is($s->query(q{SELECT count(*) FROM self WHERE ctid < '(60,0)' AND f = lpad(id::text, 700, '0')}), 60, 'rows from a slow server');
cmp_ok($p->fired($slow), '>=', 1, 'it was slow');
$p->clear;
$p->rule('link=0 tag=getpage throttle=2000');
$stuck->leaves('a server that is too slow', $look);
$p->clear;
$p->cmd('cut 0');
is($s->query($look), '2000|0|0', 'all rows');
$stuck->refresh;

# WAL comes through the proxy from here on.
my ($feed) = map { /^wal_feed_port=(\d+)/ ? $1 : () } do { local @ARGV = ("$c->{dir}/neon_dev.conf"); <> };
my $port = $p->link('wal', $feed);
$c->configure({ primary_conninfo => "host=127.0.0.1 port=$port application_name=page_server_$_" }, part => "page_server_$_")
  foreach 0, 1;
# until the reload has happened there they stream as before, which the view cannot tell from this
foreach (1 .. 1200)
{
	last if $p->stat('wal', 'open') == 2;
	usleep(100_000);
}
is($p->stat('wal', 'open'), 2, 'page servers are connected through the proxy');
ok($c->wait_for('SELECT count(*) = 2 FROM neon_comm.page_servers WHERE state = \'streaming\' AND lag_bytes = 0'),
	'and stream') or diag($c->sql('SELECT * FROM neon_comm.page_servers'));

# WAL is late: every read of what was just evicted waits for it, and sees the newest.
$p->cmd('delay wal 0 30000');
my $sum = 0;
foreach my $round (1 .. 3)
{
	$s->query('UPDATE self SET v = v + 1');
	$sum += 2000;
	is($s->query($look), "2000|$sum|0", "round $round: newest rows although WAL is late");
}
$p->cmd('delay wal 0');

# WAL does not come.
$c->sql('CHECKPOINT');
$s->query('SELECT 1');
# the update itself needs none of what is held back
ok($c->wait_for('SELECT bool_and((apply_lsn >= pg_current_wal_lsn()) IS TRUE) FROM neon_comm.page_servers'), 'page servers have all');
my $hold = $p->rule('link=wal type=d hold');
my $lsn = $c->sql('SELECT pg_current_wal_lsn()');
$s->query('UPDATE self SET v = v + 1');
$sum += 2000;
cmp_ok($c->sql(q{SELECT max(lag_bytes) FROM neon_comm.page_servers}), '>', 1024 * 1024, 'page servers are behind, the view says so')
  or diag($c->sql('SELECT name, lag_bytes FROM neon_comm.page_servers'));
$stuck->leaves('WAL that does not come', $look);
my (undef, $err) = $s->try("SET neon_comm.request_timeout = '1s'; $look");
like($err, qr/no answer from page servers for block \d+ .*not_modified_since [0-9A-F]+\/[0-9A-F]+ from shard \d \(127\.0\.0\.1:\d+\)/s,
	'the deadline names the LSN that did not come, and the shard') or diag($err);
$p->clear;
$p->cmd('cut wal');
is($s->query("RESET neon_comm.request_timeout; $look"), "2000|$sum|0", 'newest rows once WAL comes again');

is($c->sql('SELECT count(*) FROM neon_comm.slots WHERE pid <> pg_backend_pid()'), 0, 'no slot is left behind');
is($c->counter('stale_answers'), 0, 'no old version came');
$s->close;
$stuck->close;
$c->check_logs;
done_testing();
