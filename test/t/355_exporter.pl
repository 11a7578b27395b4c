# The exporter of a compute answers by HTTP in each of the states in which SQL cannot: the
# server full, the communicator stopped, a page server that hangs, page servers gone, recovery
# that waits for them. /readyz says in which. Strangers that are slow or many do not keep
# others out. Families are those of docs/metrics.md; 388_figures moves each.
use strict;
use warnings;

use FindBin;
use Test::More;
use Time::HiRes qw(usleep);
use NeonComm::Cluster;
use NeonComm::Http qw(connect_http ask_http get metrics promtool promtool_says);
use NeonComm::Node qw(free_port until_true);

my $port = free_port();
my $c = NeonComm::Cluster->new(conf => [ "neon_comm.metrics_port=$port", 'neon_comm.metrics_ready_timeout=2s',
		'max_connections=12', 'superuser_reserved_connections=0', 'autovacuum=off', 'max_wal_senders=4',
		'neon_comm.lfc_size=8MB', 'neon_comm.async_reads=off' ]);
my $openmetrics = 'Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5';

sub ready { my $a = get($port, '/readyz'); return $a && "$a->{status} $a->{body}" }
sub becomes
{
	my ($regex, $what) = @_;
	my $last = '';
	ok(until_true(sub { ($last = ready() // 'nothing') =~ $regex }), $what) or diag($last);
	return;
}

# ---- the pages

becomes(qr/^200 .*"problems":\[\],"page_servers_away":\[\],"ready":true\}$/, 'ready');
is(get($port, '/healthz')->{body}, '{"alive":true}', 'alive');
is(get($port, '/nowhere')->{status}, 404, 'no such page');
is(ask_http($port, "POST /metrics HTTP/1.1\r\n\r\n")->{status}, 405, 'GET only');
is(ask_http($port, "\0\0\0\x08\x04\xd2\x16\x2f")->{status}, 400, 'a client of PostgreSQL');
is(ask_http($port, "HEAD /metrics HTTP/1.1\r\n\r\n")->{body}, '', 'HEAD');

my $plain = get($port, '/metrics');
my $open = get($port, '/metrics', $openmetrics);
like($plain->{head}, qr{^Content-Type: text/plain; version=0\.0\.4}m, 'plain text');
like($open->{head}, qr{^Content-Type: application/openmetrics-text; version=1\.0\.0}m, 'OpenMetrics');
like($open->{body}, qr/\n# EOF\n\z/, 'which has an end');
unlike($plain->{body}, qr/# EOF/, 'the other has none');
is($plain->{head} =~ /^Content-Length: (\d+)/m && $1 + 0, length $plain->{body}, 'the length is right');

SKIP:
{
	skip 'promtool is not installed (package prometheus)', 1 unless promtool();
	is(promtool_says(get($port, '/metrics')->{body}), '', 'promtool finds nothing wrong');
}

# ---- families are documented, and as views have them

sub families { return map { /^# TYPE (\S+) / ? $1 : () } split /\n/, $_[0] }
sub slurp { my ($f) = @_; open my $fh, '<', $f or die "$f: $!"; local $/; return <$fh> }
my %seen;
my @twice = grep { $seen{$_}++ } families($open->{body});
is("@twice", '', 'no family comes twice');
my %counters = map { $_ => 1 } split /\n/, $c->sql(q{SELECT 'neon_comm_' || regexp_replace(name, '_us$', '_seconds') FROM neon_comm.counters});
my $docs = slurp("$FindBin::RealBin/../../docs/metrics.md");
$docs =~ s/.*^## Families of a compute\n(.*?)(?=^## |\z).*/$1/ms;
my @documented = $docs =~ /^\| `(neon_comm_\w+)`/mg;
is_deeply([ sort grep { !$counters{$_} } keys %seen ], [ sort @documented ], 'families are those of docs/metrics.md');
is(scalar(grep { !$seen{$_} } keys %counters), 0, 'and each counter is one');

# ---- a compute at work

sub figures { return metrics($port, $openmetrics) }
my $before = figures();
$c->sql(q{CREATE TABLE t AS SELECT g AS id, repeat('x', 500) AS f FROM generate_series(1, 20000) g;
	CREATE SEQUENCE s; SELECT nextval('s'); CHECKPOINT; UPDATE t SET id = id + 1; UPDATE t SET id = id - 1; SELECT neon_comm.sweep();
	SELECT sum(id) FROM t; SELECT sum(id) FROM t; SELECT neon_comm.restart_communicator()});
my $starts = 'neon_comm_communicator_starts_total';
ok(until_true(sub { metrics($port, $openmetrics)->{$starts} > $before->{$starts} }), 'another communicator is counted');
my $now = figures();
is($now->{neon_comm_reads_remote_total} > $before->{neon_comm_reads_remote_total}, 1, 'reads are counted');
is($now->{'neon_comm_request_stage_seconds_count{stage="server",class="demand"}'},
	$now->{'neon_comm_request_stage_seconds_bucket{stage="server",class="demand",le="+Inf"}'}, 'the last bucket has all');

# ---- the server is full

my @sessions;
my $full = 0;
foreach (1 .. 20)
{
	my $s = eval { $c->session } or do { $full = 1; last };
	push @sessions, $s;
	eval { $s->query('SELECT 1'); 1 } or do { $full = 1; last };
}
is($full, 1, 'nobody gets in any more');
is(get($port, '/metrics')->{status}, 200, 'metrics while the server is full');
like(ready(), qr/^200 /, 'which is ready');

# ---- the communicator is stopped

my ($reader) = @sessions;
$reader->query("EXPLAIN SELECT sum(id) FROM t");
my ($communicator) = $c->pids_of('compute', qr/communicator/);
kill 'STOP', $communicator;
$reader->send('SELECT sum(id) FROM t');
becomes(qr/^503 .*"communicator: it has made no turn for [\d.]+ s"/, 'unready when the communicator is stopped');
like(get($port, '/slots')->{body}, qr/"state":"submitted",.*"waits_for":"communicator"/, 'who waits is listed');
my $frozen = figures();
cmp_ok($frozen->{neon_comm_communicator_heartbeat_age_seconds}, '>', 2, 'the heartbeat is old');
kill 'CONT', $communicator;
like($reader->wait, qr/^\d+$/, 'the reader goes on');
becomes(qr/^200 /, 'ready again');

# ---- a page server hangs

my @frozen = ($c->postmaster_pid('page_server_1'), $c->pids_of('page_server_1', qr/./));
END { local $?; kill 'CONT', @frozen if @frozen }
kill 'STOP', @frozen;
$reader->send('SELECT sum(id) FROM t');
becomes(qr/^503 .*"shard 1: a request has waited for [\d.]+ s"/, 'unready when a page server hangs and its pages are wanted');
my $hangs = figures();
is($hangs->{'neon_comm_shard_ready{shard="1"}'} . $hangs->{'neon_comm_shard_ready{shard="0"}'}, '01', 'one shard is not ready');
kill 'CONT', @frozen;
@frozen = ();
like($reader->wait, qr/^\d+$/, 'the reader goes on');
becomes(qr/^200 /, 'ready again');

# ---- page servers are away

@sessions = ($reader);
my $wal = q{SELECT pg_logical_emit_message(true, '', repeat('x', 2000))};
$reader->query($wal);
$c->stop('page-server', 1);
$reader->query($wal);
ok(until_true(sub { figures()->{'neon_comm_page_server_lag_bytes{page_server="page_server_1",position="apply"}'} > 2000 }),
	'its lag grows');
$reader->send('SELECT sum(id) FROM t');
becomes(qr/^503 .*"shard 1: host 127\.0\.0\.1:\d+ is not connected.*"page_servers_away":\["page_server_1 is absent"\]/,
	'unready when a shard is away');
$c->stop('page-server', 0);
becomes(qr/"WAL feed: no page server streams and answers"/, 'and when nobody streams');
like(get($port, '/connections')->{body}, qr/"state":"backoff".*"last_error":"[^"]/, 'connections and what is wrong with them');

# ---- and recovery waits for them

$c->kill9('compute');
undef $reader;
@sessions = ();
my $said = '';
my $start = $c->background(\$said, 'neon_dev', 'start', '-D', $c->{dir}, '--quiet', 'compute', '-t', 300);
becomes(qr/^503 .*"recovery: it is not over"/, 'unready in recovery');
is(metrics($port)->{neon_comm_in_recovery}, 1, 'metrics in recovery');
$c->start('page-server', 0);
$c->start('page-server', 1);
ok($start->finish, 'it has started') or diag($said);
becomes(qr/^200 /, 'ready when page servers are back');
is($c->sql('SELECT count(*) FROM t'), 20000, 'rows');

# ---- strangers

my $refused = metrics($port)->{neon_comm_exporter_refused_total};
my @idle = map { connect_http($port) } 1 .. 100;
print {$_} "GET /metr" foreach grep { defined } @idle;
$_->flush foreach grep { defined } @idle;
ok(until_true(sub { (get($port, '/metrics') // {})->{status} }), 'answers between a hundred who ask for nothing');
ok(until_true(sub { metrics($port)->{neon_comm_exporter_refused_total} - $refused >= 84 }), 'most of which had to go');
@idle = ();

# Who does not take what he gets.
my @greedy = map { connect_http($port) } 1 .. 40;
foreach my $s (grep { defined } @greedy)
{
	print $s "GET /metrics HTTP/1.1\r\n\r\n";
	$s->flush;
}
ok(until_true(sub { (get($port, '/healthz') // {})->{status} }), 'answers between forty who take nothing');
@greedy = ();

# ---- it starts again, and ends with the server

my ($exporter) = $c->pids_of('compute', qr/neon_comm exporter/);
kill 'TERM', $exporter;
ok(until_true(sub { my ($new) = $c->pids_of('compute', qr/neon_comm exporter/); $new && $new != $exporter && get($port, '/healthz') }),
	'another one answers after its end');
$c->allow_log(qr/PANIC|was terminated by signal 9/);
$c->stop('compute');
is(connect_http($port), undef, 'nobody listens after a stop');
$c->check_logs;
done_testing();
