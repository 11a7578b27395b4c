# Whoever builds an index without an xid, as CREATE INDEX CONCURRENTLY and REINDEX
# CONCURRENTLY do, has pages that no WAL can rebuild yet. With the index of local
# blocks full the builder is told at once, like any transaction that fills it; it
# neither sweeps its own pages away nor uses up what is reserved for others. With
# room every kind of index is built as on a stock server.
use strict;
use warnings;

use Test::More;
use NeonComm::Cluster;
use NeonComm::Session;

my $c = NeonComm::Cluster->new(shards => 1, conf => [ 'neon_comm.local_index_chunks=1024', 'neon_comm.sweep_interval=1h',
	'checkpoint_timeout=1h', 'maintenance_work_mem=1MB', 'max_parallel_maintenance_workers=0' ]);

$c->sql(q{CREATE TABLE t AS SELECT g AS id, ARRAY[g % 5000, (g * 7) % 4999, g % 1009, 100000 + g] AS arr,
	point(g % 991, g % 317) AS p, md5(g::text) AS k FROM generate_series(1, 50000) g;});
my %kinds = (
	gin => [ 'gin (arr) WITH (fastupdate = off)', 'arr @> ARRAY[42]' ],
	gist => [ 'gist (p) WITH (buffering = on)', q{p <@ box '((50,50),(90,90))'} ],
	spgist => [ 'spgist (k)', q{k > 'fff'} ],
	hash => [ 'hash (k)', q{k = md5('4711')} ],
	brin => [ 'brin (id) WITH (pages_per_range = 1)', 'id BETWEEN 100 AND 200' ],
	btree => [ 'btree (k, id)', q{k > 'fff'} ]);
my %want = map { $_ => $c->sql("SELECT count(*), sum(id) FROM t WHERE $kinds{$_}[1]") } keys %kinds;

sub used { return $c->sql('SELECT local_index_used FROM neon_comm.status()') }

# Ends by itself, not by any of our limits.
sub told
{
	my ($what, $statement) = @_;
	my $s = $c->session;
	$s->send($statement);
	foreach (1 .. ($NeonComm::Session::must_fail ? 900 : 6000))
	{
		last if $s->ready;
		select undef, undef, undef, 0.1;
	}
	ok($s->ready, "$what: an end");
	return unless $s->ready;
	$s->wait;
	my $error = $s->{last_error};
	$s->close;
	return $error;
}
sub right
{
	my ($kind, $what) = @_;
	is($c->sql("SET enable_seqscan = off; SELECT count(*), sum(id) FROM t WHERE $kinds{$kind}[1]"), $want{$kind}, "$kind: $what");
	return;
}

# Sweeps in the middle of a build leave its pages alone, also those that the builder makes himself.
$c->sql(q{CREATE FUNCTION same(x anyelement, id int) RETURNS anyelement IMMUTABLE LANGUAGE plpgsql AS $$
	BEGIN IF id % 10000 = 0 THEN PERFORM neon_comm.sweep(); END IF; RETURN x; END $$});
my %swept = (gin => [ 'same(arr, id)', '@> ARRAY[42]' ], gist => [ 'same(p, id)', q{<@ box '((50,50),(90,90))'} ],
	spgist => [ 'same(k, id)', q{> 'fff'} ]);
foreach my $kind (sort keys %swept)
{
	my ($what, $is) = @{ $swept{$kind} };
	is(told("$kind, swept", "CREATE INDEX CONCURRENTLY s_$kind ON t USING $kind ($what)" . ($kind eq 'gist' ? ' WITH (buffering = on)' : '')),
		'', "$kind: built beside sweeps");
	is($c->sql("SET enable_seqscan = off; SELECT count(*), sum(id) FROM t WHERE $what $is"), $want{$kind}, "$kind: rows, built beside sweeps");
	$c->sql("DROP INDEX s_$kind");
}

# Sequences have an entry each for good.
my $made = 0;
sub fill
{
	my ($to) = @_;
	my $last = -1;
	while (used() < $to && used() != $last)
	{
		$last = used();
		my $n = $to - $last > 60 ? 50 : 2;
		$c->sql("DO \$\$ BEGIN FOR i IN $made .. $made + $n - 1 LOOP EXECUTE 'CREATE SEQUENCE sq_' || i; END LOOP; END \$\$");
		$made += $n;
		$c->sql('CHECKPOINT; SELECT neon_comm.sweep()');
	}
	return;
}
fill(892);
my $full = used();
cmp_ok($full, '>=', 890, 'the index is nearly full');

foreach my $kind ('gin', 'gist', 'spgist', 'btree', 'hash', 'brin')
{
	my $error = told($kind, "CREATE INDEX CONCURRENTLY i_$kind ON t USING $kinds{$kind}[0]");
	my $valid = $c->sql("SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('i_$kind')");
	if ($kind eq 'gin' || $kind eq 'gist' || $kind eq 'spgist')
	{
		like($error, qr/the index of local blocks is full/, "$kind: its builder is told");
		is($valid, 'f', "$kind: and the index is not valid");
		cmp_ok(used(), '<=', 900, "$kind: what is reserved for others is not used up");
		$c->sql('CHECKPOINT');
		pass("$kind: checkpoints go on");
	}
	else
	{
		like($error, qr/^$|the index of local blocks is full/, "$kind: built, or told");
		right($kind, 'rows') if $valid eq 't';
	}
	$c->sql("DROP INDEX i_$kind; SELECT neon_comm.sweep()");
}
is($c->sql('SELECT count(*) FROM t'), 50000, 'others go on');

# With room: built, and built again.
$c->sql("DO \$\$ BEGIN FOR i IN 0 .. 399 LOOP EXECUTE 'DROP SEQUENCE sq_' || i; END LOOP; END \$\$");
$c->sql('CHECKPOINT; SELECT neon_comm.sweep()');
foreach my $kind (sort keys %kinds)
{
	is(told($kind, "CREATE INDEX CONCURRENTLY i_$kind ON t USING $kinds{$kind}[0]"), '', "$kind: built with room");
	right($kind, 'rows with room');
}
$c->sql('CHECKPOINT; SELECT neon_comm.sweep()');
fill(892);
like(told('gin again', 'REINDEX INDEX CONCURRENTLY i_gin'), qr/the index of local blocks is full/, 'REINDEX CONCURRENTLY is told, too');
right('gin', 'the old index still serves');
$c->sql('DROP INDEX IF EXISTS i_gin_ccnew; CHECKPOINT; SELECT neon_comm.sweep()');
$c->sql("DO \$\$ BEGIN FOR i IN 400 .. 799 LOOP EXECUTE 'DROP SEQUENCE sq_' || i; END LOOP; END \$\$");
$c->sql('CHECKPOINT; SELECT neon_comm.sweep()');
foreach my $kind (sort keys %kinds)
{
	is(told($kind, "REINDEX INDEX CONCURRENTLY i_$kind"), '', "$kind: built again");
	right($kind, 'rows after it');
}
is($c->counter('stale_answers'), 0, 'no answer was old');
$c->check_logs;
undef $c;
done_testing();
