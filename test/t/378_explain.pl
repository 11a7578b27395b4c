# EXPLAIN (ANALYZE, NEON_COMM) tells by nodes which pages were read and waited for (from PostgreSQL 18 on).
use strict;
use warnings;

use JSON::PP;
use Test::More;
use NeonComm::Cluster;

my ($major) = `$ENV{PG_CONFIG} --version` =~ /(\d+)/;
plan skip_all => "PostgreSQL $major has no options of EXPLAIN for extensions" if $major < 18;

my $c = NeonComm::Cluster->new(
	shards => 1,
	conf => [ 'neon_comm.readahead_blocks=0', 'neon_comm.async_reads=off', 'autovacuum=off', 'max_worker_processes=24' ]);
$c->sql(q{CREATE TABLE self (id int, f text) WITH (fillfactor = 10);
	INSERT INTO self SELECT g, lpad(g::text, 700, '0') FROM generate_series(0, 999) g;
	CREATE TABLE small AS SELECT g AS id FROM generate_series(0, 9) g;
	CREATE FUNCTION explains() RETURNS int LANGUAGE plpgsql AS
		'DECLARE x text; BEGIN FOR x IN EXECUTE ''EXPLAIN (ANALYZE, NEON_COMM) SELECT count(*) FROM small'' LOOP END LOOP; RETURN 1; END';});
$c->sql('VACUUM ANALYZE self; VACUUM ANALYZE small');
my $s = $c->session;
$s->query('SET max_parallel_workers_per_gather = 0; SET jit = off; SELECT count(*) FROM self, small');

sub plan_of
{
	my ($sql) = @_;
	$c->evict;
	return decode_json($s->query("EXPLAIN (ANALYZE, NEON_COMM, FORMAT JSON) $sql"))->[0];
}
sub nodes { my ($n) = @_; return ($n, map { nodes($_) } @{ $n->{Plans} // [] }) }
sub node { my ($plan, $type) = @_; return (grep { $_->{'Node Type'} eq $type } nodes($plan->{Plan}))[0] }

my $p = plan_of('SELECT count(*) FROM self');
my ($agg, $scan) = (node($p, 'Aggregate'), node($p, 'Seq Scan'));
cmp_ok($scan->{'Neon Pages'}, '>=', 900, 'the scan read pages');
cmp_ok($scan->{'Neon Waited Pages'}, '>=', 900, 'and waited for them');
cmp_ok($scan->{'Neon Waits'}, '>', 0, 'times');
cmp_ok($scan->{'Neon Wait Time'}, '>', 0, 'milliseconds');
is($scan->{'Neon Pages'}, $scan->{'Neon Local Pages'} + $scan->{'Neon Cached Pages'} + $scan->{'Neon Ahead Pages'}
	+ $scan->{'Neon Waited Pages'}, 'each in one figure');
is($agg->{'Neon Pages'}, $scan->{'Neon Pages'}, 'a node has what its children have');
cmp_ok($p->{Neon}{'Neon Pages'}, '>=', $agg->{'Neon Pages'}, 'and the total all of it');
is($p->{'Neon Workers'}{'Neon Pages'}, 0, 'no workers');
cmp_ok($p->{Neon}{'Neon Wait Time'}, '<=', $p->{'Execution Time'} + $p->{'Planning Time'} + 1000, 'waits within the time');

# readahead and asynchronous reads
foreach my $way ('neon_comm.readahead_blocks = 128', 'neon_comm.async_reads = on')
{
	$s->query("SET $way");
	$p = plan_of('SELECT count(*) FROM self');
	$scan = node($p, 'Seq Scan');
	cmp_ok($scan->{'Neon Pages'}, '>=', 900, "$way: pages of the scan");
	cmp_ok($scan->{'Neon Pages'}, '<=', 1200, "$way: each counts once");
	cmp_ok($scan->{'Neon Asked Ahead Pages'}, '>', 100, "$way: asked for ahead");
	cmp_ok($scan->{'Neon Ahead Pages'} + $scan->{'Neon Waited Pages'}, '>=', 900, "$way: and read");
}
$s->query('SET neon_comm.readahead_blocks = 0; SET neon_comm.async_reads = off');

# who read what
$s->query('SET enable_mergejoin = off; SET enable_nestloop = off');
$p = plan_of('SELECT count(*) FROM self JOIN small USING (id)');
my $hash = node($p, 'Hash');
my %of = map { $_->{'Relation Name'} => $_ } grep { $_->{'Relation Name'} } nodes($p->{Plan});
cmp_ok($of{self}{'Neon Pages'}, '>=', 900, 'a join: pages of one table');
cmp_ok($of{small}{'Neon Pages'}, '<', 10, 'hardly any of the other');
is($hash->{'Neon Pages'}, $hash->{Plans}[0]{'Neon Pages'}, 'Hash has what its child has');
$s->query('RESET enable_mergejoin; RESET enable_nestloop');

$c->sql('CREATE INDEX self_id ON self (id)');
$s->query('SET enable_seqscan = off; SET enable_indexscan = off; SET enable_indexonlyscan = off');
$p = plan_of('SELECT count(f) FROM self WHERE id < 500');
my ($heap, $index) = (node($p, 'Bitmap Heap Scan'), node($p, 'Bitmap Index Scan'));
cmp_ok($heap->{'Neon Pages'}, '>=', 400, 'a bitmap heap scan');
ok(!exists $index->{'Neon Pages'}, 'an index scan for a bitmap cannot be told apart');
$s->query('RESET enable_seqscan; RESET enable_indexscan; RESET enable_indexonlyscan; DROP INDEX self_id');

# a subplan, a rescan, a node that runs not at all
$p = plan_of('SELECT (SELECT count(*) FROM self WHERE self.id >= small.id) FROM small WHERE id < 2');
cmp_ok($p->{Plan}{'Neon Pages'}, '>=', 900, 'subplans count in their node');
$p = plan_of('SELECT * FROM small JOIN self USING (id) WHERE small.id < 0');
ok(defined $p->{Plan}{'Neon Pages'}, 'what is never executed has zeroes');

# text
$c->evict;
my $text = $s->query('EXPLAIN (ANALYZE, NEON_COMM, TIMING off) SELECT count(*) FROM self');
like($text, qr/Seq Scan on self.*\n +(?:Buffers.*\n +)?Neon: pages=\d+ waited=\d+ waits=\d+ time=[0-9.]+\n/, 'as text');
like($text, qr/^Neon Total: pages=\d+/m, 'with a total');
unlike($s->query('EXPLAIN (ANALYZE) SELECT count(*) FROM self'), qr/Neon/, 'without the option nothing');
unlike($s->query('EXPLAIN (ANALYZE, NEON_COMM off) SELECT count(*) FROM self'), qr/Neon/, 'nor switched off');
unlike($s->query('EXPLAIN (ANALYZE, NEON_COMM) SELECT 1'), qr/Neon/, 'nor where nothing was read');

# parallel
$s->query('SET max_parallel_workers_per_gather = 2; SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET seq_page_cost = 0;
	SET min_parallel_table_scan_size = 0; SET parallel_leader_participation = off');
$p = plan_of('SELECT count(*) FROM self');
cmp_ok($p->{'Neon Workers'}{'Neon Pages'}, '>=', 900, 'parallel workers are in a sum');
cmp_ok($p->{Plan}{'Neon Pages'}, '<', 300, 'not in nodes');
$s->query('RESET parallel_leader_participation; RESET seq_page_cost; SET enable_mergejoin = off; SET enable_nestloop = off');
$p = plan_of('SELECT count(*) FROM self a JOIN self b USING (id)');
cmp_ok($p->{Plan}{'Neon Pages'} + $p->{'Neon Workers'}{'Neon Pages'}, '>=', 900, 'a parallel hash join');
$s->query('SET max_parallel_workers_per_gather = 0');

# errors
foreach my $bad (['NEON_COMM', qr/EXPLAIN option NEON_COMM requires ANALYZE/], ['ANALYZE, NEON_COMM maybe', qr/requires a Boolean value/])
{
	like(($s->try("EXPLAIN ($bad->[0]) SELECT count(*) FROM self"))[1], $bad->[1], "EXPLAIN ($bad->[0])");
}
like(($s->try('EXPLAIN (ANALYZE, NEON_COMM) SELECT 1 / (id - 5) FROM small'))[1], qr/division by zero/, 'one that fails');
$p = plan_of('SELECT count(*) FROM self');
cmp_ok($p->{Plan}{'Neon Pages'}, '>=', 900, 'and the next one');

# EXECUTE, a change, an explain within an explain
$s->query('PREPARE all_of AS SELECT count(*) FROM self');
$p = plan_of('EXECUTE all_of');
cmp_ok($p->{Plan}{'Neon Pages'}, '>=', 900, 'EXECUTE');
$p = plan_of(q{UPDATE self SET f = f WHERE id < 20});
cmp_ok($p->{Neon}{'Neon Pages'}, '>', 0, 'a change');
$p = plan_of('SELECT explains(), count(*) FROM self');
cmp_ok(node($p, 'Seq Scan')->{'Neon Pages'}, '>=', 900, 'an explain within an explained statement');
$c->check_logs;
done_testing();
