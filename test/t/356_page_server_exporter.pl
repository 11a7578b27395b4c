# The exporter of a page server: what it says of itself, what moves when it is read from, and
# that it answers when its workers, replay and the walreceiver are stopped, in recovery that is
# not consistent, and when the compute is gone.
use strict;
use warnings;

use FindBin;
use Test::More;
use NeonComm::Cluster;
use NeonComm::Http qw(get metrics promtool promtool_says);
use NeonComm::Node qw(free_port until_true);

my $port = free_port();
my $c = NeonComm::Cluster->new(shards => 1, conf => ['autovacuum=off']);
$c->append_conf('page_server_0', "neon_page_service.metrics_port = $port");
$c->restart('page-server', 0);
my $openmetrics = 'Accept: application/openmetrics-text';

sub becomes
{
	my ($regex, $what) = @_;
	my $last = '';
	ok(until_true(sub { my $a = get($port, '/readyz') or return; ($last = "$a->{status} $a->{body}") =~ $regex }), $what) or diag($last);
	return;
}
sub value { my ($name) = @_; return metrics($port)->{"neon_page_service_$name"} }

becomes(qr/^200 \{"problems":\[\],"ready":true\}$/, 'ready');
is(get($port, '/healthz')->{body}, '{"alive":true}', 'alive');

my $open = get($port, '/metrics', $openmetrics)->{body};
my @families = $open =~ /^# TYPE (\S+)/mg;
my $docs = do { open my $fh, '<', "$FindBin::RealBin/../../docs/metrics.md" or die $!; local $/; <$fh> };
is_deeply([ sort @families ], [ sort $docs =~ /^\| `(neon_page_service_\w+)`/mg ], 'families are those of docs/metrics.md');
like($open, qr/\n# EOF\n\z/, 'OpenMetrics');
like($open, qr/^neon_page_service_standing\{state="joined"\} 1$/m, 'it has joined');
my $incarnation = $c->sql('SELECT incarnation FROM neon_comm.identity');
like($open, qr/^neon_page_service_identity_info\{[^}]*incarnation="$incarnation"/m, 'the compute that it follows');

SKIP:
{
	skip 'promtool is not installed (package prometheus)', 1 unless promtool();
	is(promtool_says(get($port, '/metrics')->{body}), '', 'promtool finds nothing wrong');
}

# ---- what moves

my $before = metrics($port, $openmetrics);
$c->sql(q{CREATE TABLE t AS SELECT g AS id, repeat('x', 500) AS f FROM generate_series(1, 20000) g;
	CHECKPOINT; SELECT sum(id) FROM t});
my $reads = $c->counter('reads_remote');
$c->evict;
$c->sql('SELECT sum(id) FROM t');
my $now = metrics($port, $openmetrics);
cmp_ok($now->{neon_page_service_pages_total} - $before->{neon_page_service_pages_total}, '>=', 1000, 'pages are counted');
cmp_ok($now->{'neon_page_service_requests_total{class="getpage"}'} // 0, '>=', 1000, 'by class');
is($now->{'neon_page_service_request_answer_seconds_bucket{le="+Inf"}'}, $now->{neon_page_service_request_wait_seconds_count},
	'each request waited and was answered');
cmp_ok($now->{neon_page_service_buffer_hits_total} + $now->{neon_page_service_buffer_reads_total}, '>=', 1000, 'in shared buffers or not');
ok(until_true(sub { value('replay_position_bytes') == value('received_position_bytes') }), 'all is replayed');

# ---- everybody else is stopped

my @frozen = $c->pids_of('page_server_0', qr/neon page service \d|startup|walreceiver/);
END { local $?; kill 'CONT', @frozen if @frozen }
cmp_ok(scalar @frozen, '>=', 4, 'who is stopped');
kill 'STOP', @frozen;
becomes(qr/^503 .*"workers: the first one has made no turn for 5 s"/, 'unready when all others are stopped');
cmp_ok(value('watch_age_seconds'), '>', 5, 'and old figures say so');
kill 'CONT', @frozen;
@frozen = ();
becomes(qr/^200 /, 'ready again');

# ---- the compute is gone, then this server starts without it

$c->stop('compute');
becomes(qr/^503 .*"WAL: it is not streamed"/, 'unready without a compute');
$c->kill9('page-server', 0);
$c->start('page-server', 0);
becomes(qr/^503 .*"identity: it has not joined a compute"/, 'unready before it has joined');
# a walreceiver that tries to connect counts as one that streams, for the moment that this takes
ok(until_true(sub { value('streaming') == 0 }), 'it does not stream');
$c->start('compute');
becomes(qr/^200 /, 'ready');

is($c->sql('SELECT count(*) FROM t'), 20000, 'rows');
$c->allow_log(qr/PANIC|was terminated by signal 9/);
$c->check_logs;
done_testing();
