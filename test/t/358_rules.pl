# The rules of contrib/prometheus are the alarms of docs/operations.md, name metrics that there are, have all a case
# in their tests, and pass them, where promtool is installed; their times can be divided. The dashboard of
# contrib/grafana is what its list of panels makes, as Grafana wants it, and asks for metrics that there are.
use strict;
use warnings;

use File::Temp ();
use FindBin;
use IPC::Run ();
use JSON::PP ();
use Test::More;
use NeonComm::Http qw(promtool);

my $top = "$FindBin::RealBin/../..";
my $rules = "$top/contrib/prometheus/neon_comm.rules.yml";
my $tests = "$top/contrib/prometheus/neon_comm.rules_test.yml";
sub slurp { my ($f) = @_; open my $fh, '<', $f or die "$f: $!"; local $/; return <$fh> }

my %there = map { $_ => 1 } map { ($_, "${_}_total", "${_}_info") } slurp("$top/docs/metrics.md") =~ /^\| `(neon_\w+)`/mg;
$there{ 'neon_comm_' . s/_us$/_seconds/r . '_total' } = 1
  foreach slurp("$top/include/nc/obs/counters.def") =~ /^NC_COUNTER\(\w+, "(\w+)"/mg;
# names in a query: not those in quotes
sub used { return map { s/"[^"]*"//gr =~ /\b(neon_(?:comm|page_service)_\w+)/g } @_ }
my %histogram = map { $_ => 1 } slurp("$top/docs/metrics.md") =~ /^\| `(neon_\w+)` \| histogram/mg;
sub is_there { my ($name) = @_; return $there{$name} || $name =~ /^(.*)_(?:bucket|sum|count)$/ && $histogram{$1} }

my @used = used(map { s/^\s*- alert: \w+//mgr } slurp($rules) =~ /(^ +expr: .*?)(?=^ +(?:for|labels):)/msg);
cmp_ok(scalar @used, '>', 15, 'metrics that rules use');
is(join(' ', grep { !is_there($_) } @used), '', 'each of them exists');

my @alerts = slurp($rules) =~ /^ +- alert: (\w+)/mg;
my %tested = map { $_ => 1 } slurp($tests) =~ /alertname="(\w+)"/g;
is(join(' ', grep { !$tested{$_} } @alerts), '', 'each alarm is tested');
my ($section) = slurp("$top/docs/operations.md") =~ /^### Alarms\n(.*?)^##/ms;
is(join(' ', $section =~ /^\| `(\w+)` \|/mg), "@alerts", 'alarms of docs/operations.md are the rules, in their order');

# ---- times divided

sub run_it
{
	my ($said, $err) = ('', '');
	my $ok = IPC::Run::run([@_], '<', \undef, '>', \$said, '2>', \$err);
	return ($ok, $said, $err);
}
my (undef, $scaled) = run_it("$top/contrib/prometheus/scale_rules", 20);
my @times = slurp($rules) =~ /(?:^ +for: |\[)(\d+[sm])\b/mg;
my %ms = (s => 1000, m => 60_000);
is(join(' ', $scaled =~ /(?:^ +for: |\[)(\d+ms)\b/mg), join(' ', map { /(\d+)(.)/; $1 * $ms{$2} / 20 . 'ms' } @times), 'all times are divided');
cmp_ok(scalar @times, '>', 10, 'of which there are some');
is($scaled =~ s/\d+ms/T/gr, slurp($rules) =~ s/((?:^ +for: |\[))\d+[sm]\b/$1T/gmr, 'and nothing else is changed');
foreach my $bad ('0', '0.5', 'x', '')
{
	my ($ok, undef, $err) = run_it("$top/contrib/prometheus/scale_rules", $bad);
	ok(!$ok && $err =~ /"\Q$bad\E" is no factor/, "factor \"$bad\" is refused");
}

# ---- the dashboard

my $grafana = "$top/contrib/grafana";
my ($made, $json, $why) = run_it("$grafana/make_dashboard");
ok($made, 'the dashboard is made') or diag($why);
ok($json eq slurp("$grafana/dashboard.json"), 'dashboard.json is what panels.list makes: contrib/grafana/make_dashboard >contrib/grafana/dashboard.json');
my $board = JSON::PP::decode_json($json);
is($board->{uid}, 'neon_comm', 'it has a name that stays');
my @panels = @{ $board->{panels} };
my (%ids, %titles);
is(scalar(grep { $ids{ $_->{id} }++ || $titles{ $_->{title} }++ } @panels), 0, 'ids and titles of panels are their own');
is(scalar(grep { $_->{type} ne 'row' && !@{ $_->{targets} } } @panels), 0, 'each panel has a query');
my %taken;
my $overlap = 0;
foreach my $at (map { $_->{gridPos} } @panels)
{
	foreach my $x ($at->{x} .. $at->{x} + $at->{w} - 1) { $overlap += $x > 23 || $taken{"$x $_"}++ foreach $at->{y} .. $at->{y} + $at->{h} - 1 }
}
is($overlap, 0, 'no panel lies on another one, nor beside the grid');
my @exprs = map { map { $_->{expr} } @{ $_->{targets} // [] } } @panels;
my %variables = map { $_->{name} => 1 } @{ $board->{templating}{list} };
is(join(' ', grep { !$variables{$_} && $_ ne '__rate_interval' } map { /\$(\w+)/g } @exprs), '', 'variables of queries are there');
is(join(' ', grep { !is_there($_) } used(@exprs, map { $_->{definition} // () } @{ $board->{templating}{list} })), '', 'so are the metrics');
foreach my $bad ("Title | pie | short\n", "  legend | query\n", "Title | stat | short\n", "nonsense\n")
{
	my $file = File::Temp->new;
	print $file $bad;
	close $file;
	my ($ok, undef, $err) = run_it("$grafana/make_dashboard", "$file");
	ok(!$ok && $err =~ /^make_dashboard: .*\S/, 'a wrong list is refused: ' . $bad =~ s/\n//r) or diag($err);
}

SKIP:
{
	skip 'promtool is not installed (package prometheus)', 1 unless promtool();
	my $said = '';
	ok(IPC::Run::run([ promtool(), 'test', 'rules', $tests ], '<', \undef, '>&', \$said), 'promtool test rules') or diag($said);
}
done_testing();
