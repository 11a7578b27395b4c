# The rules of contrib/prometheus name metrics that there are, have all a case in their tests,
# and pass them, where promtool is installed.
use strict;
use warnings;

use FindBin;
use IPC::Run ();
use Test::More;
use NeonComm::Http qw(promtool);

my $top = "$FindBin::RealBin/../..";
my $rules = "$top/contrib/prometheus/neon_comm.rules.yml";
my $tests = "$top/contrib/prometheus/neon_comm.rules_test.yml";
sub slurp { my ($f) = @_; open my $fh, '<', $f or die "$f: $!"; local $/; return <$fh> }

my %there = map { $_ => 1 } map { ($_, "${_}_total", "${_}_info") } slurp("$top/docs/metrics.md") =~ /^\| `(neon_\w+)`/mg;
$there{ 'neon_comm_' . s/_us$/_seconds/r . '_total' } = 1
  foreach slurp("$top/include/nc/obs/counters.def") =~ /^NC_COUNTER\(\w+, "(\w+)"/mg;
my @used = slurp($rules) =~ /\b(neon_(?:comm|page_service)_\w+)/g;
cmp_ok(scalar @used, '>', 15, 'metrics that rules use');
is(join(' ', grep { !$there{$_} } @used), '', 'each of them exists');

my @alerts = slurp($rules) =~ /^ +- alert: (\w+)/mg;
my %tested = map { $_ => 1 } slurp($tests) =~ /alertname="(\w+)"/g;
is(join(' ', grep { !$tested{$_} } @alerts), '', 'each alarm is tested');

SKIP:
{
	skip 'promtool is not installed (package prometheus)', 1 unless promtool();
	my $said = '';
	ok(IPC::Run::run([ promtool(), 'test', 'rules', $tests ], '<', \undef, '>&', \$said), 'promtool test rules') or diag($said);
}
done_testing();
