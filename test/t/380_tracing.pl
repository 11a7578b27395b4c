# Traced requests: which are, what their spans say, that those of a page server belong to those
# of the compute, that a statement's traceparent is the parent, and that no statement is in them.
use strict;
use warnings;

use Test::More;
use NeonComm::Cluster;
use NeonComm::Collector qw(attributes read_spans);
use NeonComm::Http qw(metrics);
use NeonComm::Node qw(free_port until_true);

my $collector = NeonComm::Collector->new;
my ($port, $their_port) = (free_port(), free_port());
my $c = NeonComm::Cluster->new(
	shards => 1,
	conf => [ "neon_comm.trace_collector='" . $collector->url . "'", 'neon_comm.trace_file=traces.json', 'neon_comm.async_reads=off', 'neon_comm.readahead_blocks=0',
		'neon_comm.hedged_reads=off', "neon_comm.metrics_port=$port" ],
	ps_conf => [ 'neon_page_service.trace_file=traces.json', "neon_page_service.metrics_port=$their_port" ]);
my ($mine, $theirs) = map { "$c->{dir}/$_/traces.json" } qw(compute page_server_0);

$c->sql(q{CREATE TABLE self (id int, f text) WITH (fillfactor = 10);
	INSERT INTO self SELECT g, lpad(g::text, 700, '0') FROM generate_series(0, 199) g;});
$c->sql('VACUUM self');
my $rel = $c->sql(q{SELECT pg_relation_filenode('self')});
my $s = $c->session;
$s->query('SET max_parallel_workers_per_gather = 0');
my $scan = 'SELECT count(*), count(*) FILTER (WHERE (ctid::text::point)[0]::int <> id) FROM self';

# Spans of reads of that table among those that came since.
sub of_table { return grep { my $a = attributes($_); $a->{'neon.relation'} =~ m{/$rel\z} && $a->{'neon.request'} eq 'GetPage' } @_ }
my %seen = (mine => 0, theirs => 0, sent => 0);
sub fresh
{
	my %all = (mine => [ read_spans($mine) ], theirs => [ read_spans($theirs) ], sent => [ $collector->spans ]);
	return { map { my $n = $seen{$_}; my @a = @{ $all{$_} }; $_ => [ of_table(@a[ $n .. $#a ]) ] } keys %all };
}
sub mark { %seen = (mine => scalar(my @a = read_spans($mine)), theirs => scalar(my @b = read_spans($theirs)), sent => scalar(my @d = $collector->spans)); return }

# All that was recorded is where it should be; the page server records before it answers.
sub recorded { my $m = metrics($_[0]); my ($k) = grep { /_trace_spans_total\z/ } keys %$m; return $m->{$k} }
sub everything_has_come
{
	return until_true(sub { my $n = recorded($port); $n == read_spans($mine) && $n == $collector->spans })
	  && until_true(sub { recorded($their_port) == read_spans($theirs) });
}
sub scan { my ($sql) = @_; $c->evict; return $s->query($sql // $scan) }

# ---- rate 0, and what is unwanted by its parent

is(scan(), '200|0', 'a scan with rate 0');
ok(everything_has_come(), 'has come');
is(scalar @{ fresh()->{mine} }, 0, 'nothing of it is traced');
$s->query('SET neon_comm.trace_sample_rate = 1');
scan();
$s->query('SET neon_comm.trace_sample_rate = 0');
ok(everything_has_come(), 'a scan with rate 1 has come everywhere');
my $got = fresh();
my $n = @{ $got->{mine} };
cmp_ok($n, '>=', 100, 'every read is traced that shared buffers did not answer');
cmp_ok($n, '<=', 200, 'once, and with rate 0 none');
is(scalar @{ $got->{sent} }, $n, 'the collector has the same');
is(scalar @{ $got->{theirs} }, $n, 'and the page server has answered each');

# ---- what a span says

my ($head, $body) = @{ ($collector->requests)[0] };
like($head, qr{^POST /v1/traces HTTP/1\.1\|Host: 127\.0\.0\.1:$collector->{port}\|Content-Type: application/json\|}, 'the request');
my $resource = JSON::PP::decode_json($body)->{resourceSpans}[0]{resource};
is(attributes($resource)->{'service.name'}, 'neon_comm', 'whose spans they are');
my (%ids, @wrong);
foreach my $span (@{ $got->{mine} })
{
	my $a = attributes($span);
	my @times = map { $_->{timeUnixNano} } @{ $span->{events} };
	my $at = join ' ', map { $_->{name} } @{ $span->{events} };
	push @wrong, 'ids' unless $span->{traceId} =~ /^[0-9a-f]{32}\z/ && $span->{spanId} =~ /^[0-9a-f]{16}\z/ && !$ids{ $span->{spanId} }++;
	push @wrong, 'times are nanoseconds in strings' if grep { !/^1\d{18}\z/ } @times, $span->{startTimeUnixNano}, $span->{endTimeUnixNano};
	push @wrong, "events: $at" unless $at eq 'taken sent received reached done';
	my @order = ($span->{startTimeUnixNano}, @times, $span->{endTimeUnixNano});
	push @wrong, "order: @order" if grep { $order[$_] < $order[ $_ - 1 ] } 1 .. $#order;
	push @wrong, 'kind' unless $span->{kind} == 3 && $span->{name} eq 'neon.read';
	push @wrong, 'attributes' unless $a->{'neon.class'} eq 'demand' && $a->{'neon.request'} eq 'GetPage' && $a->{'neon.blocks'} eq '1' && $a->{'neon.request_id'} =~ /^[0-9a-f]{16}\z/;
	push @wrong, 'it has a parent' if defined $span->{parentSpanId};
	push @wrong, 'it failed' if %{ $span->{status} };
}
is("@wrong", '', 'ids, times, kinds and attributes are as they should be');
my %blocks = map { attributes($_)->{'neon.block'} => 1 } @{ $got->{mine} };
is(scalar keys %blocks, $n, 'each block has one');
my %pids = map { attributes($_)->{'process.pid'} => 1 } @{ $got->{mine} };
is(join(' ', keys %pids), $s->pid, 'and the process that asked');

# ---- both sides are one trace

my %asked = map { attributes($_)->{'neon.request_id'} => $_ } @{ $got->{mine} };
@wrong = ();
foreach my $span (@{ $got->{theirs} })
{
	my $a = attributes($span);
	my $of = $asked{ $a->{'neon.request_id'} };
	push @wrong, 'nobody asked' and next unless $of;
	push @wrong, 'another trace' unless $span->{traceId} eq $of->{traceId} && $span->{parentSpanId} eq $of->{spanId};
	push @wrong, 'its own span' if $span->{spanId} eq $of->{spanId};
	push @wrong, 'another block' unless $a->{'neon.block'} eq attributes($of)->{'neon.block'};
	push @wrong, 'kind' unless $span->{kind} == 2 && $span->{name} eq 'neon.answer';
	push @wrong, 'times' unless $span->{startTimeUnixNano} <= $span->{events}[0]{timeUnixNano} && $span->{events}[0]{timeUnixNano} <= $span->{endTimeUnixNano};
}
is("@wrong", '', 'a span of the page server is a child of the one that asked, with its request id');

# ---- parents

my ($trace, $span) = ('4bf92f3577b34da6a3ce929d0e0e4736', '00f067aa0ba902b7');
mark();
scan("$scan /*action='x',traceparent='00-$trace-$span-01'*/");
ok(everything_has_come(), 'a statement with a parent');
my $parented = fresh();
cmp_ok(scalar @{ $parented->{mine} }, '>=', 100, 'rate 0: it is traced');
is(scalar(grep { $_->{traceId} ne $trace || ($_->{parentSpanId} // '') ne $span } @{ $parented->{mine} }), 0, 'all as its children');
is(scalar(grep { $_->{traceId} eq $trace } @{ $parented->{theirs} }), scalar @{ $parented->{mine} }, 'the page server is in the same trace');
mark();
$s->query('SET neon_comm.trace_sample_rate = 1');
scan("$scan /*traceparent='00-$trace-$span-00'*/");
$s->query('SET neon_comm.trace_sample_rate = 0');
scan("$scan /*traceparent='00-$trace-0000000000000000-01'*/");
ok(everything_has_come(), 'statements with parents that do not count');
is(scalar @{ fresh()->{mine} }, 0, 'not sampled, malformed: nothing is traced');

# ---- page servers are not told

mark();
$s->query('SET neon_comm.trace_page_servers = off');
$s->query('SET neon_comm.trace_sample_rate = 1');
scan();
$s->query('SET neon_comm.trace_sample_rate = 0');
$s->query('RESET neon_comm.trace_page_servers');
ok(everything_has_come(), 'a scan of which page servers are not told');
my $untold = fresh();
cmp_ok(scalar @{ $untold->{mine} }, '>=', 100, 'it is traced here');
is(scalar @{ $untold->{theirs} }, 0, 'and not there');

# ---- read ahead

mark();
$s->query('SET neon_comm.readahead_blocks = 128');
$s->query('SET neon_comm.trace_sample_rate = 1');
scan();
$s->query('SET neon_comm.readahead_blocks = 0');
$s->query('SET neon_comm.trace_sample_rate = 0');
ok(everything_has_come(), 'a scan that reads ahead');
my @ahead = grep { attributes($_)->{'neon.class'} eq 'ahead' } @{ fresh()->{mine} };
cmp_ok(scalar @ahead, '>', 0, 'what was read ahead is traced');
is(scalar(grep { (join ' ', map { $_->{name} } @{ $_->{events} }) ne 'taken sent received reached done' } @ahead), 0, 'with the same times');
my $blocks = 0;
$blocks += attributes($_)->{'neon.blocks'} foreach @ahead;
cmp_ok($blocks, '>', scalar @ahead, 'several blocks each');

# ---- who may not

is($c->sql('CREATE ROLE somebody LOGIN') // '', '', 'a role');
my ($rc, undef, $err) = $c->try_sql('SET ROLE somebody; SET neon_comm.trace_sample_rate = 1');
isnt($rc, 0, 'not everybody sets the rate');
($rc) = $c->try_sql('SET ROLE somebody; SHOW neon_comm.trace_file');
isnt($rc, 0, 'nor sees where the file is');

# ---- nothing of a statement

my $text = join '', map { local (@ARGV, $/) = $_; <> } $mine, $theirs, $collector->{file};
cmp_ok(length $text, '>', 100_000, 'something was written');
unlike($text, qr/SELECT|ctid|action|somebody/, 'no text of a statement');
is((stat $mine)[2] & 077, 0, 'nobody else reads the file');

$c->check_logs;
done_testing();
