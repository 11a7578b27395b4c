# Page servers that answer, but not with pages: not ready, wait for WAL, shut
# down, somebody else's. What passes is asked again and no query fails; what
# lasts ends at the deadline with an error that names it and that a client may
# take for a reason to try again. Without asking again the first queries fail.
use strict;
use warnings;

use Test::More;
use NeonComm::Cluster;
use NeonComm::Proxy;
use NeonComm::Stuck;

my $c = NeonComm::Cluster->new(shards => 2, buffers => '8MB', conf => [ 'max_parallel_workers_per_gather=0' ]);
my $p = NeonComm::Proxy->new;

$c->sql(q{CREATE TABLE t AS SELECT g AS id, repeat('x', 400) AS f FROM generate_series(1, 27000) g});
cmp_ok($c->sql(q{SELECT pg_relation_size('t')}), '>', 11 * 1024 * 1024, 'larger than shared buffers');
my $look = 'SELECT count(*), sum(id) FROM t';
my $right = '27000|364513500';
# what was kept while it was made is on the page servers now
$c->sql('CHECKPOINT; SELECT neon_comm.sweep()');
$c->use_proxy($p, 2);
my $s = $c->session;
$s->query($look);
my $stuck = NeonComm::Stuck->new($c, q{SELECT count(*), sum(id) FROM t WHERE ctid = '(0,1)'});

my $refused = q{SELECT coalesce(bool_or(last_error ~ 'is not served'), false) FROM neon_comm.connections WHERE shard = 1};
$stuck->{watch}->query($refused);

foreach my $answer ('error=not_ready:_injected', 'error=LSN_timeout:_injected', 'error=shutdown',
	'error=Not_found:_Timed_out_injected', 'error=wrong_shard:_injected', 'pgerror=08006', 'pgerror=57P01')
{
	my $id = $p->rule("tag=getpage nth=50 every=80 count=6 $answer");
	is($s->query($look), $right, "$answer for a while: rows are right");
	cmp_ok($p->fired($id), '>=', 4, "$answer was given");
	$p->clear;
}

# For ever.
my $id = $p->rule('tag=getpage error=not_ready:_injected');
$stuck->leaves('a server that is not ready', $look);
my (undef, $err) = $s->try("SET neon_comm.request_timeout = '1s'; \\set VERBOSITY verbose\n$look");
like($err, qr/08006.*no answer from page servers for block \d+ of relation \d+\/\d+\/\d+/s,
	'the deadline ends it, and its SQLSTATE says that it is worth another try');
like($err, qr/shard \d \(127\.0\.0\.1:\d+\), \d of \d connections ready; not ready: injected \(\d+ failures\)/,
	'shard, address, cause and attempts are named');
$s->send("RESET neon_comm.request_timeout; $look");
# while it lasts: a line comes five seconds after the last one, which may be about an answer of before
ok($c->wait_log('compute', qr/shard \d \(127\.0\.0\.1:\d+\): cannot answer now: not ready: injected/), 'the log tells it');
$p->clear;
is($s->wait, $right, 'rows once it is ready');
is($s->{last_error}, '', 'and no error');
$stuck->refresh;

# A server of another tenant refuses the stream: it is left and asked again, not believed.
# (Restarted and not reloaded: each of its processes hears of a reload when it comes to it.)
$c->append_conf('page_server_1', "neon_page_service.tenant_id = '0123456789abcdef0123456789abcdef'");
$c->restart('page-server', 1);
ok($stuck->sees($refused),
	'a page server of another tenant is refused, and the view says why');
$stuck->leaves('a server of another tenant', $look);
$c->append_conf('page_server_1', "neon_page_service.tenant_id = ''");
$c->restart('page-server', 1);
is($s->query($look), $right, 'rows once it is ours again');

# A server that believes in another shard map, for ever: an error, after some seconds of doubt.
# Of all these answers it is the one that a query gives up on.
$c->allow_log(qr/could not read block .* from its page server: .*wrong shard: injected/);
$p->rule('tag=getpage error=wrong_shard:_injected');
(undef, $err) = $s->try($look);
like($err, qr/could not read block \d+ of relation .* from its page server: shard \d \(127\.0\.0\.1:\d+\), attempt \d+: wrong shard: injected/,
	'a wrong map that lasts is an error with shard, address and attempts');
$p->clear;
is($s->query($look), $right, 'rows in the end');

is($c->sql('SELECT count(*) FROM neon_comm.slots WHERE pid <> pg_backend_pid()'), 0, 'no slot is left behind');
is($c->counter('connections_poisoned'), 0, 'no answer was mixed up');
$s->close;
$stuck->close;
$c->check_logs;
done_testing();
