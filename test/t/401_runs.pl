# Runs of a few blocks at random places, all in one transaction: readahead learns how long
# they are, serves what is left of each, asks for little in vain, and has its memory back.
use strict;
use warnings;

use Test::More;
use NeonComm::Cluster;

# nothing is asked for twice because a machine is slow: what is asked for is counted
my $c = NeonComm::Cluster->new(buffers => '2MB', conf => [ 'neon_comm.async_reads=off', 'neon_comm.hedged_reads=off', 'neon_comm.lfc_size_limit=0' ]);
my $blocks = 15000;

$c->sql(qq{CREATE TABLE self (id int, f text) WITH (fillfactor = 10);
	INSERT INTO self SELECT g, repeat('x', 700) FROM generate_series(0, $blocks - 1) g});
$c->sql('VACUUM (FREEZE) self');
is($c->sql(q{SELECT pg_relation_size('self') / 8192}), $blocks, 'a row in each block');

my $watch = $c->session;
sub counters { return { map { split /\|/ } split /\n/, $watch->query('SELECT name, value FROM neon_comm.counters') } }
sub moved { my ($b) = @_; my $a = counters(); return { map { $_ => $a->{$_} - $b->{$_} } keys %$a } }
counters();

# Every place once, each far from the one before: the table is read piece by piece.
my $places = $blocks / 50;
my @places = map { 50 * ($_ * 113 % $places) } 0 .. $places - 1;

# Reads these blocks in this order in one transaction of a new session; what that has moved.
sub walk
{
	my ($name, @order) = @_;
	my $s = $c->session;
	$s->query("SELECT id FROM self WHERE ctid = '(0,1)'; SELECT count(*) FROM neon_comm.staging()");
	$c->evict;
	my $b = counters();
	is($s->query('BEGIN; DO $$ DECLARE got int; b int; BEGIN FOREACH b IN ARRAY ARRAY[' . join(',', @order) . q{] LOOP
			SELECT id INTO got FROM self WHERE ctid = ('(' || b || ',1)')::tid;
			IF got <> b THEN RAISE EXCEPTION 'block % holds row %', b, got; END IF;
		END LOOP; END $$}), '', "$name: the right rows");
	my $m = moved($b);
	$s->query('COMMIT');
	cmp_ok($m->{reads_remote}, '>=', 0.9 * @order, "$name: they are remote");
	return $m;
}

# Pages asked of page servers for each one read.
sub asked_for { my ($m) = @_; return $m->{pages_requested} / $m->{reads_remote} }

sub told
{
	my ($m) = @_;
	return diag(join ' ', map { "$_=$m->{$_}" } grep { $m->{$_} != 0 } sort keys %$m);
}

# ---- runs of nine ----
my $m = walk('runs of nine', map { my $p = $_; map { $p + $_ } 0 .. 8 } @places);
cmp_ok($m->{reads_from_staging}, '>=', 0.6 * $m->{reads_remote}, 'runs of nine: readahead serves most of it') or told($m);
cmp_ok(asked_for($m), '<=', 1.2, 'runs of nine: little in vain') or told($m);
# where page servers are slow a process may have all of its slots on their way for a moment
cmp_ok($m->{prefetch_refused}, '<=', @places, 'runs of nine: there is room') or told($m);

# ---- the same, backwards ----
$m = walk('backwards', map { my $p = $_; map { $p + 20 - $_ } 0 .. 8 } @places);
cmp_ok($m->{reads_from_staging}, '>=', 0.6 * $m->{reads_remote}, 'backwards: readahead serves most of it') or told($m);
cmp_ok(asked_for($m), '<=', 1.2, 'backwards: little in vain') or told($m);

# ---- pairs ----
$m = walk('pairs', map { ($_ + 30, $_ + 31) } @places, map { $_ + 17 } @places);
cmp_ok(asked_for($m), '<=', 1.2, 'pairs: little in vain') or told($m);

# ---- blocks here and there, which look like a sequence with gaps ----
$m = walk('here and there', map { ($_, $_ + 1, $_ + 14, $_ + 28) } @places);
cmp_ok(asked_for($m), '<=', 1.3, 'here and there: little in vain') or told($m);

# ---- after pairs a scan is a scan ----
{
	my $s = $c->session;
	my $scan = 'SELECT count(*), count(*) FILTER (WHERE (ctid::text::point)[0]::int <> id) FROM self';
	$s->query('SET max_parallel_workers_per_gather = 0; SET synchronize_seqscans = off');
	$s->query("EXPLAIN $scan");
	$s->query('DO $$ DECLARE got int; BEGIN FOR i IN 0 .. 99 LOOP FOR k IN 0 .. 1 LOOP
		SELECT id INTO got FROM self WHERE ctid = (\'(\' || (i * 113 % 300 * 50 + k) || \',1)\')::tid; END LOOP; END LOOP; END $$');
	$c->evict;
	my $b = counters();
	is($s->query($scan), "$blocks|0", 'a scan: the right rows');
	$m = moved($b);
	cmp_ok($m->{reads_from_staging}, '>=', 0.95 * $blocks, 'a scan: nearly all was read ahead') or told($m);
	cmp_ok($m->{pages_received}, '<=', 1.02 * $blocks, 'a scan: each page is asked for once') or told($m);
}

is($watch->query('SELECT lent FROM neon_comm.staging()'), 0, 'the memory is given back');
is($c->counter($_), 0, "$_ is 0") foreach ('found_late', 'stale_answers', 'future_answers', 'connections_poisoned');
$c->check_logs;
done_testing();
