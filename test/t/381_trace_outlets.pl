# Where spans go: a collector that hangs, refuses or is away keeps nobody waiting and costs spans,
# which is counted and told; the file goes on meanwhile and is put aside by its size. Without an
# outlet there is no process; what is no address of a collector is refused.
use strict;
use warnings;

use Test::More;
use JSON::PP ();
use NeonComm::Cluster;
use NeonComm::Collector qw(read_spans spans_of);
use NeonComm::Http qw(metrics);
use NeonComm::Node qw(free_port until_true);

my $collector = NeonComm::Collector->new;
my $refuser = NeonComm::Collector->new(status => '503 Service Unavailable');
my ($port, $their_port) = (free_port(), free_port());
my $c = NeonComm::Cluster->new(
	shards => 1,
	conf => [ 'neon_comm.async_reads=off', 'neon_comm.readahead_blocks=0', "neon_comm.metrics_port=$port" ],
	ps_conf => [ "neon_page_service.metrics_port=$their_port", "neon_page_service.trace_collector='" . $refuser->url . "'" ]);
my $file = "$c->{dir}/compute/traces.json";
$c->allow_log(qr/spans were dropped/);

# ---- none

is(scalar(my @none = $c->pids_of('compute', qr/neon_comm tracer/)), 0, 'no outlet: no process');
is($c->sql(q{SELECT count(*) FROM pg_shmem_allocations WHERE name LIKE '%trace%'}), 0, 'and no memory');
$c->sql('SET neon_comm.trace_sample_rate = 1; SELECT count(*) FROM pg_class');
is(metrics($port)->{neon_comm_trace_spans_total} // metrics($port)->{neon_comm_trace_spans}, 0, 'nothing is traced');

# ---- addresses

sub refuses
{
	my ($value, $regex) = @_;
	my $conf = "$c->{dir}/compute/postgresql.conf";
	my $before = do { local (@ARGV, $/) = $conf; <> };
	my $from = length $c->log_text('compute');
	$c->append_conf('compute', "neon_comm.trace_collector = '$value'");
	my ($started) = $c->try_dev('start', '-D', $c->{dir}, '--quiet', 'compute');
	ok(!$started, "$value: no start");
	like(substr($c->log_text('compute'), $from), $regex, 'and why');
	open my $fh, '>', $conf or die $!;
	print $fh $before;
	close $fh;
	return;
}
$c->allow_log(qr/trace_collector/);
$c->stop('compute');
refuses('http://10.0.0.1:4318/v1/traces', qr/its host is not a loopback address/);
refuses('https://127.0.0.1/v1/traces', qr/it does not begin with http:/);

# ---- a file that is put aside, a collector that hangs

$c->append_conf('compute', "neon_comm.trace_collector = '" . $collector->url . "'");
$c->append_conf('compute', $_) foreach (q{neon_comm.trace_file = 'traces.json'}, 'neon_comm.trace_file_size = 1MB');
$c->start('compute');
is(scalar(my @one = $c->pids_of('compute', qr/neon_comm tracer/)), 1, 'an outlet: a process');
$c->sql(q{CREATE TABLE self (id int, f text) WITH (fillfactor = 10);
	INSERT INTO self SELECT g, lpad(g::text, 700, '0') FROM generate_series(0, 399) g;});
my $s = $c->session;
$s->query('SET max_parallel_workers_per_gather = 0');
$s->query('SET neon_comm.trace_sample_rate = 1');
my $scan = 'SELECT count(*), count(*) FILTER (WHERE (ctid::text::point)[0]::int <> id) FROM self';
sub scan { $c->evict; return $s->query($scan) }
sub counted { my $m = metrics($_[1] // $port); my ($k) = grep { /_trace_${\$_[0]}(?:_total)?\z/ } keys %$m; return $m->{$k} }
sub newest { my @spans = (read_spans($file), -f "$file.1" ? read_spans("$file.1") : ()); my $t = 0; $_->{endTimeUnixNano} > $t and $t = $_->{endTimeUnixNano} foreach @spans; return $t }

is(scan(), '400|0', 'a scan');
ok(until_true(sub { $collector->spans >= 200 }), 'the collector has its spans');
is(counted('spans_dropped'), 0, 'none were dropped');

$collector->freeze;
my $from = length $c->log_text('compute');
foreach (1 .. 4)
{
	my $before = newest();
	is(scan(), '400|0', 'the collector hangs: a scan goes on');
	ok(until_true(sub { newest() > $before }), 'and the file gets its spans');
}
ok(until_true(sub { scan(); counted('spans_dropped') > 0 }), 'what the collector does not take is dropped and counted');
ok($c->wait_log('compute', qr/spans were dropped: .*collector/, $from), 'which the log says');
$collector->thaw;
my $had = $collector->spans;
ok(until_true(sub { scan(); $collector->spans > $had + 100 }), 'it gets spans again when it goes on');

ok(until_true(sub { scan(); -f "$file.1" }), 'the file was put aside');
foreach my $f ($file, "$file.1")
{
	next unless -f $f;
	open my $fh, '<', $f or die $!;
	my @lines = grep { /\n\z/ } <$fh>;
	is(scalar(grep { !eval { spans_of($_) } } @lines), 0, 'each line is JSON by itself');
	cmp_ok(-s $f, '<=', 1024 * 1024, 'no longer than it may be') if @lines > 1;
}

# ---- a collector that is away, one that refuses

kill 'KILL', $collector->{pid};
waitpid $collector->{pid}, 0;
my $n = counted('spans_dropped');
is(scan(), '400|0', 'the collector is gone: a scan goes on');
ok(until_true(sub { counted('spans_dropped') > $n }), 'its spans are dropped');
cmp_ok(counted('spans'), '>', counted('spans_dropped') / 2, 'spans are counted');

ok(until_true(sub { counted('spans', $their_port) > 0 && counted('spans_dropped', $their_port) > 0 }), 'a page server whose collector refuses counts both');
ok($c->wait_log('page_server_0', qr/spans were dropped: .*the collector refused: HTTP\/1\.1 503/), 'and says so');

$c->check_logs;
done_testing();
