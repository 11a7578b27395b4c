# The histograms of latency count each read in each stage, and looking for work
# instead of sleeping is counted and can be switched off.
use strict;
use warnings;

use Test::More;
use NeonComm::Cluster;

my $c = NeonComm::Cluster->new(shards => 1, conf => [ 'neon_comm.async_reads=off', 'neon_comm.hedged_reads=off', 'neon_comm.readahead_blocks=0', 'neon_comm.spin_time=0', 'neon_comm.client_spin_us=0' ]);

$c->sql(q{CREATE TABLE self (id int, f text) WITH (fillfactor = 10);
	INSERT INTO self SELECT g, lpad(g::text, 700, '0') FROM generate_series(0, 999) g;});
$c->sql('VACUUM self');
my $s = $c->session;
$s->query('SET max_parallel_workers_per_gather = 0');

sub latency
{
	my %r;
	foreach my $row (split /\n/, $s->query(q{SELECT stage, class, count, coalesce(mean_us, -1), coalesce(p50_us, -1),
		coalesce(p99_us, -1), coalesce(max_us, -1) FROM neon_comm.latency}))
	{
		my ($stage, $class, @v) = split /\|/, $row;
		$r{"$stage $class"} = \@v;
	}
	return \%r;
}
sub counters { return { map { split /\|/ } split /\n/, $s->query('SELECT name, value FROM neon_comm.counters') } }
sub scan { is($s->query('SELECT count(*), count(*) FILTER (WHERE (ctid::text::point)[0]::int <> id) FROM self'), '1000|0', $_[0]) }

scan('warm');
latency(); counters();
$c->evict;
my ($l1, $b) = (latency(), counters());
scan('a scan without readahead');
my ($l2, $a) = (latency(), counters());
my $n = $a->{reads_remote} - $b->{reads_remote};
cmp_ok($n, '>=', 900, 'it read from the page server');
foreach my $stage ('queue', 'send', 'server', 'receive', 'copy', 'wake')
{
	my ($from, $to) = ($l1->{"$stage demand"}, $l2->{"$stage demand"});
	# other processes read a little, too
	cmp_ok($to->[0] - $from->[0], '>=', $n, "$stage: each read counts");
	cmp_ok($to->[0] - $from->[0], '<=', $n + 200, "$stage: hardly anything else does");
	cmp_ok($to->[2], '<=', $to->[3], "$stage: the median is not above the 99th percentile");
	cmp_ok($to->[3], '<=', $to->[4], "$stage: which is not above the maximum");
}
is($a->{spins_won} + $a->{spins_lost} + $a->{client_spins} + $a->{client_spins_in_vain}, 0, 'nobody looked instead of sleeping');
is($l2->{'server ahead'}[0], 0, 'nothing was read ahead');

$s->query('SET neon_comm.readahead_blocks = 128');
$c->evict;
$l2 = latency();
scan('a scan with readahead');
my $l3 = latency();
cmp_ok($l3->{'server ahead'}[0] - $l2->{'server ahead'}[0], '>=', 900, 'pages read ahead count apart');
cmp_ok($l3->{'server demand'}[0] - $l2->{'server demand'}[0], '<=', 200, 'from those that somebody waits for');

# looking instead of sleeping: on machines with more than one processor
my $cpus = `nproc`;
SKIP:
{
	skip 'one processor', 4 if $cpus < 2;
	$s->query('SET neon_comm.readahead_blocks = 0; SET neon_comm.client_spin_us = 1000000');
	$c->evict;
	my ($before, $after) = (counters());
	scan('a scan that looks for its pages');
	$after = counters();
	# many are there at its first look, when others had its processor meanwhile: then it neither looks on nor sleeps
	cmp_ok($after->{reads_remote} - $before->{reads_remote}, '>=', 900, 'which are on page servers');
	cmp_ok($after->{client_sleeps} - $before->{client_sleeps}, '<', 100, 'hardly ever sleeps when it may look for a second');
	cmp_ok($after->{client_spins}, '>', 0, 'and finds pages by looking');
}
is($c->counter($_), 0, "$_ is 0") foreach ('found_late', 'stale_answers', 'future_answers', 'connections_poisoned');
$c->check_logs;
done_testing();
