# What top and report are made of, without a cluster: JSON, the text format, what two samples say, the lines of a screen,
# axes of plots.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../../src/bin";

use JSON::PP ();
use NeonDev::Base qw(%opt);
use NeonDev::Cluster;
use NeonDev::Exposition;
use NeonDev::Figures;
use NeonDev::Http;
use NeonDev::Json;
use NeonDev::Plot;
use NeonDev::Screen;
use IO::Socket::INET;
use Test::More;

# ---- JSON

foreach my $text ('{"a":[1,-2.5,1e3,"x",null,true,false,{}],"b":{"c":[]}}', '[]', ' { "x" : "\\u00e4\\n\\"\\\\\\/\\ud83d\\ude00" } ', '0', "\"\xc3\xa4\"")
{
	my $theirs = JSON::PP->new->utf8->allow_nonref->decode($text);
	my $plain = JSON::PP->new->utf8->canonical->allow_nonref->convert_blessed(0);
	my $wanted = $plain->encode($theirs) =~ s/\btrue\b/1/gr =~ s/\bfalse\b/0/gr;
	my $ours = json_decode($text);
	# ours are bytes
	is(JSON::PP->new->canonical->allow_nonref->encode($ours), $wanted, "$text is read");
}
is(json_decode($_), undef, s/\n/\\n/gr . ' is no JSON') foreach '', '{', '{"a"}', '[1,]', '{"a":1,}', '01', '"a', "\"\n\"", '1 2', 'nul', '"\\q"', '[' x 100 . ']' x 100, '-';
is(json_encode({ b => [ 1, '2', '03', 'x"y', undef, \1, \0, 1.5e-7 ], a => {}, name => '12' }, { name => 1 }),
	'{"a":{},"b":[1,2,"03","x\\"y",null,true,false,' . 1.5e-7 . '],"name":"12"}', 'and written');

# ---- the text format

my $s = parse_exposition(<<'END');
# HELP a_total what it is
# TYPE a_total counter
a_total 12
a_total{x="1",y="p\"q\\r\n,}"} 3.5e2 1700000000000
 indented 1
b{le="+Inf"} +Inf
b{le="1"} NaN
c{broken="1} 2
c 7 # not ours
d{x="1",} 8
END
is_deeply($s->{a_total}, [ [ {}, 12 ], [ { x => '1', y => "p\"q\\r\n,}" }, 350 ] ], 'labels with escapes, and a time behind');
is(value_of($s, 'a_total', x => '1'), 350, 'by label');
is(value_of($s, 'a_total', x => '2'), undef, 'there is none');
is(value_of($s, 'b', le => '+Inf'), 9**9**9, 'infinite');
is(value_of($s, 'd', x => '1'), 8, 'a comma behind the last label');
is_deeply([ sort keys %$s ], [qw(a_total b d)], 'lines that are none are left out');

sub histogram { my (@n) = @_; my $sum = 0; return parse_exposition(join '', map({ $sum += $n[$_]; sprintf "h_bucket{le=\"%s\"} %d\n", (0.001, 0.002, 0.004, '+Inf')[$_], $sum } 0 .. 3), "h_count $sum\nh_sum 1.5\n") }
my $h = histogram_between(histogram(10, 0, 0, 0), histogram(10, 50, 50, 0), 'h');
is_deeply($h, { count => 100, sum => 0, buckets => [ [ 0.001, 0 ], [ 0.002, 50 ], [ 0.004, 50 ], [ 9**9**9, 0 ] ] }, 'what a histogram got');
is(sprintf('%.4f %.4f %.4f', map { quantile($h, $_) } 0.25, 0.5, 0.75), '0.0015 0.0020 0.0030', 'its quantiles');
is(quantile(histogram_between(undef, histogram(0, 0, 0, 5), 'h'), 0.5), 0.004, 'beyond the last bound only that is known');
is(quantile(histogram_between(histogram(1, 1, 1, 1), histogram(1, 1, 1, 1), 'h'), 0.5), undef, 'of nothing there is none');
is(histogram_between(histogram(100, 0, 0, 0), histogram(1, 2, 0, 0), 'h')->{count}, 3, 'one that began anew is taken since then');
is(histogram_between(undef, {}, 'h'), undef, 'and none is none');

# ---- what is asked at once

my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => 0, Listen => 5) or die $!;
my $silent = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => 0, Listen => 5) or die $!;
my $free = do { my $l = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => 0, Listen => 1); $l->sockport };
my $server = fork // die $!;
if (!$server)
{
	foreach my $answer ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nyes", "HTTP/1.1 503 No\r\nContent-Length: 3\r\n\r\nye", 'nothing of the kind')
	{
		my $c = $listener->accept;
		1 while defined($_ = <$c>) && /\S/;
		print $c $answer;
		close $c;
	}
	exit 0;
}
my @pages = map { { port => $listener->sockport, path => '/x' } } 1 .. 3;
my @answers = get_together(2, @pages, { port => $silent->sockport, path => '/' }, { port => $free, path => '/' });
waitpid $server, 0;
is_deeply([ sort map { $_->{body} // $_->{error} } @answers[ 0 .. 2 ] ], [ 'its answer was cut off', 'what answers there is no exporter', 'yes' ], 'answers of all kinds');
is_deeply([ map { $_->{error} } @answers[ 3, 4 ] ], [ 'no answer in 2 s', 'Connection refused' ], 'and why there is none');

# ---- what two samples say

%opt = (dir => '/d');
%cluster = (shards => 1, page_servers => 2);
sub compute_text
{
	my (%v) = @_;
	return parse_exposition(join '', map { "$_\n" } "neon_comm_reads_remote_total $v{remote}", "neon_comm_prefetch_hits_total $v{ahead}", 'neon_comm_prefetch_joined_total 0',
		"neon_comm_lfc_hits_total $v{hits}", "neon_comm_lfc_misses_total $v{misses}", 'neon_comm_lfc_state{state="on"} 1', 'neon_comm_lfc_state{state="off"} 0', 'neon_comm_lfc_pages 10',
		'neon_comm_lfc_limit_bytes 163840', "neon_comm_wait_seconds_total $v{wait}", 'neon_comm_stale_answers_total ' . ($v{stale} // 0),
		'neon_comm_shard_ready{shard="0"} 1', 'neon_comm_connection_requests_in_flight{shard="0",host="h:1"} 4', 'neon_comm_connections{shard="0",host="h:1",state="ready"} 2',
		'neon_comm_connections{shard="0",host="h:1",state="backoff"} 1', 'neon_comm_page_server_state{page_server="page_server_1",state="streaming"} 1',
		'neon_comm_page_server_lag_bytes{page_server="page_server_1",position="apply"} 4096', 'neon_comm_page_server_throttles{page_server="page_server_1"} ' . ($v{throttles} // 0),
		"neon_comm_feed_position_bytes $v{feed}");
}
sub sample
{
	my ($at, %v) = @_;
	return { at => $at, time => 1_700_000_000 + $at, parts => { compute => { state => 'running', metrics => compute_text(%v), readyz => { ready => 1, problems => [] }, slots => { slots => $v{slots} // [], busy => 3 } },
			0 => { state => 'running', error => 'no answer in 1 s', still => [ 5, 6 ] }, 1 => { state => 'crashed' } } };
}
my $first = sample(10, remote => 1000, ahead => 100, hits => 50, misses => 50, wait => 1, feed => 0);
my $second = sample(12, remote => 1300, ahead => 300, hits => 350, misses => 150, wait => 7, feed => 2048, stale => 2, throttles => 1,
	slots => [ map { { pid => $_, age => $_ / 10, kind => 'getpage', spc => 1663, db => 5, relfilenode => 77, fork => 0, block => 9, waits_for => $_ == 28 ? 'process' : 'page server' } } 1 .. 30 ]);
my $f = figures_between($first, $second);
my $r = $f->{compute}{reads};
is_deeply({ map { ($_ => $r->{$_}{per_second}) } keys %$r }, { page_server => 50, ahead => 100, cache => 150, local => 0 }, 'pages a second, each counted once');
is($r->{cache}{share}, 0.5, 'shares');
is($f->{compute}{cache}{hit_rate}, 0.75, 'hit rate of the time between');
is($f->{compute}{processes_waiting}, 3, 'processes that wait');
is($f->{compute}{wal_per_second}, 1024, 'WAL');
is_deeply($f->{compute}{shards}[0]{hosts}, [ { host => 'h:1', connections => 3, connected => 2, in_flight => 4, failures => undef } ], 'hosts');
is(join(' ', map { $_->{pid} } @{ $f->{compute}{longest} }[ 0 .. 2 ], $f->{compute}{longest}[-1]), '30 29 27 10', 'the longest waits first, so many and no more, none that waits for itself');
is($f->{page_servers}[1]{lag_apply}, 4096, 'lag as the feed knows it, of a page server that does not answer');
is_deeply($f->{problems}, [ 'page server 0: stopped by a signal: processes 5 6', 'page server 1 is crashed', 'writers of WAL are slowed down because of page_server_1', 'stale_answers is 2, and must stay 0' ], 'what is wrong');
is(figures_between(undef, $second)->{compute}{reads}{cache}{per_second}, undef, 'of one sample there are no rates');
my $again = figures_between(sample(12, remote => 9000, ahead => 0, hits => 0, misses => 0, wait => 0, feed => 0), sample(13, remote => 40, ahead => 0, hits => 0, misses => 0, wait => 0, feed => 0));
is($again->{compute}{reads}{page_server}{per_second}, 40, 'a counter that began anew has grown from 0');
my $json = JSON::PP->new->utf8->decode(figures_json($f));
is($json->{compute}{answers}, JSON::PP::true(), 'as JSON: booleans');
is(scalar(() = figures_json($f) =~ /\n/g), 1, 'one line');
my $dead = figures_between(undef, { at => 1, time => 1, parts => { compute => { state => 'stopped' }, 0 => { state => 'running', no_exporter => 1 }, 1 => { state => 'running', error => 'x' } } });
is_deeply($dead->{problems}, [ 'compute is stopped', 'page server 0 has no exporter: its setting metrics_port is 0', 'page server 1: its exporter: x' ], 'nobody answers');

# ---- the screen

my @all = screen_of($f, '');
is(scalar(grep { /^! / } @all), 4, 'what is wrong begins with "! "');
like(join("\n", @all), qr{^page server +30 +1663/5/77 +9 +3\.0 s$}m, 'who waits longest');
foreach my $height (24, 20, 16)
{
	my @fit = screen_of($f, '', $height, 80);
	cmp_ok(scalar @fit, '<=', $height, "$height lines");
	is(scalar(grep { length > 80 } @fit), 0, 'of 80 characters');
	like(join("\n", @fit), qr/^READS FROM.*^SHARD.*^PAGE SERVER.*^WAITS FOR/ms, 'with all sections') if $height >= 20;
	like(join("\n", @fit), qr/^(?:! )?\.\.\. and \d+ more/m, 'what there is no room for is counted');
}
ok(!grep({ length > 80 } screen_of($dead, '', 24, 80)), 'a screen of nobody');
local $f->{compute}{longest}[0]{relation} = "evil\e[2J\x07\xc3\xa4";
my ($evil) = grep { /evil/ } screen_of($f, '');
like($evil, qr/evil\?\[2J\?\xe4 /, 'names do nothing to a terminal');
is(join(' ', human_bytes(0), human_bytes(1023), human_bytes(1024), human_bytes(150 << 20), human_bytes(undef)), '0 B 1023 B 1.0 kB 150 MB -', 'bytes');
is(join(' ', human_time(0), human_time(999), human_time(1000), human_time(250_000), human_time(61_000_000)), '0 us 999 us 1.0 ms 250 ms 61.0 s', 'times');
is(join(' ', human_count(0.3), human_count(3), human_count(123456), human_count(12345678)), '0.3 3 123k 12M', 'counts');

# ---- plots

sub ticks { my (%p) = @_; return join ' ', @{ NeonDev::Plot::axis({ series => [ [ 'x', delete $p{values} ] ], %p })->{ticks} } }
is(ticks(values => [ 3, undef, 7 ]), '0 2 4 6 8', 'an axis from 0');
is(ticks(values => []), '0 0.5 1', 'of nothing');
is(ticks(values => [ 0, 0 ]), '0 0.5 1', 'of zeroes');
is(ticks(values => [30], top => 100), '0 50 100', 'of percents');
is(ticks(values => [ 3 << 20 ], bytes => 1), join(' ', map { $_ << 20 } 0 .. 3), 'in bytes');
is(ticks(values => [ 20, 9000 ], log => 1), '10 100 1000 10000', 'in powers of ten');
is(ticks(values => [ 0, 100 ], log => 1), '100 1000', 'where there is no 0');
my $svg = line_plot({ title => 'a <b>', format => sub { $_[0] // '-' }, labels => [ 'x', 'y', 'z' ], series => [ [ '<one>', [ 1, undef, 2 ] ], [ 'two', [ 1, 2, 3 ] ] ] });
is(scalar(() = $svg =~ /<polyline/g), 1, 'a gap is a gap');
is(scalar(() = $svg =~ /<circle/g), 2, 'and what stands alone is a point');
unlike($svg, qr/<one>|<b>/, 'names are text');
unlike($svg, qr/NaN|inf|undef/i, 'numbers are numbers');
done_testing();
