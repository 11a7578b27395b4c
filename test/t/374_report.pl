# neon_dev report: one page of HTML, of what top has recorded, of a cluster it looks at itself, or of a bench. How it looks
# is for test/browser.sh.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use File::Temp qw(tempdir);
use IPC::Run ();
use Test::More;
use NeonComm::Cluster;

my $dev = NeonComm::Cluster::neon_dev_path();
my $top = tempdir('nc_XXXXXX', TMPDIR => 1, CLEANUP => 1);
my $bench = "$FindBin::RealBin/../browser/results.json";

sub slurp { my ($f) = @_; open my $fh, '<', $f or return; local $/; return <$fh> // '' }
sub write_text { my ($f, $text) = @_; open my $fh, '>', $f or die $!; print $fh $text; close $fh or die $!; return $f }

# (status, what it prints, errors)
sub report
{
	my (@words) = @_;
	my ($out, $err) = ('', '');
	local %ENV = %ENV;
	delete $ENV{NEON_DEV_DIR};
	IPC::Run::run([ $dev, 'report', @words ], '<', \undef, '>', \$out, '2>', \$err);
	return ($? >> 8, $out, $err);
}

# A page is too long to be shown when it is not as it should be.
sub has     { my ($text, $regex, $name) = @_; return ok($text =~ $regex, $name) }
sub has_not { my ($text, $regex, $name) = @_; return ok($text !~ $regex, $name) }

# What every page must be.
sub whole
{
	my ($page, $plots, $what) = @_;
	has($page, qr{\A<!DOCTYPE html>\n<html lang="en">.*</html>\n\z}s, "$what: a page");
	has($page, qr/default-src 'none'/, "$what: which forbids itself the network");
	has_not($page, qr{(?:https?:)?//|\bsrc=|\@import|url\(}, "$what: and needs none");
	has_not($page, qr/\bNaN\b|\binf\b|HASH\(|ARRAY\(|SCALAR\(/i, "$what: with values that are some");
	my %count;
	$count{$1}++ while $page =~ m{<(/?[a-z0-9]+)[\s>]}g;
	my @open = grep { ($count{$_} // 0) != ($count{"/$_"} // 0) && $page !~ m{<$_\b[^>]*/>} } grep { !m{^/|^(?:meta|link)$} } sort keys %count;
	is("@open", '', "$what: what is opened is closed");
	is(scalar(() = $page =~ /<figure class="plot">/g), $plots, "$what: $plots plots");
	is(scalar(() = $page =~ m{<figure class="plot"><h3>[^<]*</h3><svg(?:(?!</figure>).)*<table class="numbers">}gs), $plots, "$what: each with its numbers in a table");
	return;
}

# ---- a bench

my ($status, $out, $err) = report('-o', "$top/bench.html", '--bench', $bench);
is($status, 0, 'a page of a bench needs no cluster') or diag($err);
my $page = slurp("$top/bench.html");
whole($page, 5, 'bench');
has($page, qr/one client, random page, no delay.*MISSED.*16, 64, 200 clients &amp; &lt;others&gt;.*met.*CPU of the communicator.*not measured/s, 'its rows, as text');
has_not($page, qr/ceiling of the page service/, 'but those without a number');
has($page, qr/1 x 1.*4 x 64/s, 'figures by connections and depth');
# the sample is what test/bench writes: so its own program reads it
my ($python) = grep { -x } map { "$_/python3" } split /:/, $ENV{PATH};
SKIP:
{
	skip 'python3 is not installed', 1 unless defined $python;
	is(scalar `cd '$FindBin::RealBin/../bench' && '$python' -B -c 'import bench_docs, json, sys; r = json.load(open(sys.argv[1])); print(len(bench_docs.plots(r["series"])), bench_docs.tables(r)[0][:5])' '$bench' 2>&1`, "5 Taken\n", 'the sample has the form of test/bench');
}

# ---- what is refused changes nothing

sub refused
{
	my ($regex, $wanted, $what, @words) = @_;
	my ($code, undef, $said) = report('-o', "$top/bench.html", @words);
	is($code, $wanted, "$what: refused");
	like($said, $regex, "$what: it says why");
	is(slurp("$top/bench.html"), $page, "$what: what was there is there");
	return;
}
refused(qr/no result of test\/bench/, 1, 'no JSON', '--bench', write_text("$top/x", 'x'));
refused(qr/no result of test\/bench/, 1, 'other JSON', '--bench', write_text("$top/x", '{"rows":[],"meta":{},"series":{}}'));
refused(qr/line 2 of .*x is none of/, 1, 'no record', '--record', write_text("$top/x", qq({"time":1,"cluster":"/c","compute":{},"page_servers":[],"problems":[]}\n{"time":"x"}\n)));
refused(qr/has no looks/, 1, 'an empty record', '--record', write_text("$top/x", ''));
refused(qr/several clusters: \/c, \/d/, 1, 'two clusters', '--record', write_text("$top/x", join '', map { qq({"time":1,"cluster":"/$_","compute":{},"page_servers":[],"problems":[]}\n) } 'c', 'd'));
refused(qr/cannot read .*nowhere/, 1, 'no file', '--record', "$top/nowhere");
refused(qr/--bench and --record are two things/, 2, 'both', '--record', $bench, '--bench', $bench);
refused(qr/--seconds is of use without/, 2, 'seconds of a record', '--record', $bench, '--seconds', 5);
refused(qr/-D DIR is missing/, 2, 'nothing to report');
is((report('--bench', $bench))[0], 2, 'nowhere to write');
like((report('--bench', $bench, '-o', "$top/none/x"))[2], qr/cannot write .*none\/x/, 'or where nobody can');

# ---- records

my $look = '{"time":%d,"cluster":"/c","seconds":1,"compute":{"reads":{"cache":{"pages":%d,"per_second":%d}},"latency":{"demand":{"p99_us":%s}},"longest":[{"pid":7,"age":%s,"kind":"getpage","spc":1,"db":2,"relfilenode":3,"block":4,"relation":"<b>\"x\"","waits_for":"WAL"}]},"page_servers":[],"problems":[%s]}';
my @looks = map { sprintf $look, 1_700_000_000 + $_, $_, $_, $_ == 5 ? 'null' : 100 * $_, $_ / 1000, $_ > 990 ? qq("page server <1>: waited for $_ s") : '' } 1 .. 1000;
($status, $out, $err) = report('-o', '-', '--record', write_text("$top/x", join("\n", @looks) . "\n" . '{"time":1,"cl'));
is($status, 0, 'a record, the last line of which is still written') or diag($err);
whole($out, 9, 'record');
has($out, qr{<td>22:29:51</td><td>22:30:00</td><td>10</td><td>page server &lt;1&gt;: waited for 1000 s</td>}, 'a problem once, with when it was seen');
is(scalar(() = $out =~ m{<td>&lt;b&gt;&quot;x&quot;</td>}g), 1, 'a wait once, too');
has($out, qr{<dd>10 of 1000</dd>}, 'so many looks');
cmp_ok(length $out, '<', 400_000, 'a long record does not make a large page');
has($out, qr{Each row is the largest of 5 looks}, 'looks are put together');
has($out, qr{page server</td><td>-</td><td>-</td><td>-</td>}, 'what a look does not have is no 0');

# ---- a cluster

my $c = NeonComm::Cluster->new(shards => 1);
$c->sql(q{CREATE TABLE t AS SELECT g AS id, repeat('x', 700) AS f FROM generate_series(1, 20000) g; CHECKPOINT});
my $said = '';
my $report = IPC::Run::start([ $dev, 'report', '-D', $c->{dir}, '-o', "$top/c.html", '--seconds', 4 ], '<', \undef, '>', \$said, '2>&1');
do { $c->sql('SELECT sum(id) FROM t'); $report->pump_nb } while $report->pumpable;
ok($report->finish, 'of a cluster') or diag($said);
like($said, qr/^2 of 4 s\n3 of 4 s\n4 of 4 s\nwritten: /m, 'progress');
$page = slurp("$top/c.html");
whole($page, 9, 'cluster');
has($page, qr{ UTC, 4 looks</p>}, 'so many looks');
my ($pages) = $page =~ m{<dt>pages read</dt><dd>([\d.]+)k?</dd>};
cmp_ok($pages // 0, '>', 0, 'which saw reads');
$c->kill9('page-server', 0);
($status, $out) = report('-D', $c->{dir}, '-o', '-', '--seconds', 1);
has($out, qr{<td>1</td><td>page server 0 is crashed</td>}, 'and what is wrong');
$c->check_logs;
done_testing();
