# Quiet load: pgbench at a low rate for PROM_QUIET_MINUTES (2) while a real Prometheus scrapes the compute and its
# page servers. No alarm fires, nor comes near to it, with times divided by 20: rules are stricter so. promtool finds
# nothing wrong with what is scraped, and each query of the dashboard has data.
#
# test/prometheus.sh runs this.
use strict;
use warnings;

use FindBin;
use JSON::PP ();
use Test::More;
use NeonComm::Cluster;
use NeonComm::Http qw(get promtool_says);
use NeonComm::Node qw(free_port until_true);
use NeonComm::Prometheus;

plan(skip_all => 'prometheus is not installed, see scripts/prometheus') unless NeonComm::Prometheus::available();

my $minutes = $ENV{PROM_QUIET_MINUTES} || 2;
my ($port, @ps_ports) = map { free_port() } 0 .. 2;
my $c = NeonComm::Cluster->new(no_start => 1, buffers => '4MB', autovacuum => 'on',
	conf => [ "neon_comm.metrics_port=$port", 'neon_comm.lfc_size=16MB' ]);
my $dir = $c->{dir};
$c->append_conf("page_server_$_", "neon_page_service.metrics_port = $ps_ports[$_]") foreach 0, 1;
$c->start;
is(($c->pgbench('-i', '-s', '5', '-q'))[0], 0, 'pgbench has its tables');
my $prom = NeonComm::Prometheus->new("$dir/prometheus", factor => 20, neon_comm => [$port], neon_page_service => \@ps_ports);
ok(until_true(sub { $prom->value('count(up == 1)') == 3 }), 'Prometheus scrapes all three');
my $then = $prom->now;
my ($rc, $out, $err) = $c->pgbench('-n', '-c', '4', '-R', '50', '-T', 60 * $minutes);
is($rc, 0, "$minutes minutes of pgbench") or diag($err);
note($out);
is(join(' ', $prom->fired_since($then), $prom->pending), '', 'no alarm fires, nor is about to');
cmp_ok($prom->value("min(count_over_time(up[${minutes}m]))"), '>', 30 * $minutes, 'and there were scrapes');
is($prom->value("min(min_over_time(up[${minutes}m]))"), 1, 'all of which had an answer');

# ---- what is scraped, and the dashboard

is(promtool_says(get($_, '/metrics')->{body}), '', 'promtool finds nothing wrong') foreach $port, $ps_ports[0];

my $file = "$FindBin::RealBin/../../contrib/grafana/dashboard.json";
my $board = JSON::PP::decode_json(do { open my $fh, '<', $file or die "$file: $!"; local $/; <$fh> });
my @targets = map { my $panel = $_; map { [ $panel->{title}, $_->{expr} ] } @{ $panel->{targets} // [] } } @{ $board->{panels} };
cmp_ok(scalar @targets, '>', 20, 'the dashboard has queries');
foreach my $target (@targets)
{
	my ($title, $expr) = @$target;
	# as Grafana would: the variables that the dashboard has, and the window of a panel
	$expr =~ s/\$__rate_interval/1m/g;
	$expr =~ s/\$\w+/.*/g;
	my @series = eval { $prom->query($expr) };
	ok(@series > 0 && !grep({ $_->[1] =~ /NaN/ } @series), "$title has data") or diag($expr, $@);
}
$prom->stop;
$c->check_logs;
done_testing();
