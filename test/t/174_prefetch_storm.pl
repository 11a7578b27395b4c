# Scans of all kinds with prefetch and readahead beside updates, VACUUM and
# reloads, with staging memory for less than all of them: rows are right, sums
# exact, and nothing is held in the end.
use strict;
use warnings;

use Test::More;
use NeonComm::Cluster;

my $c = NeonComm::Cluster->new(autovacuum => 'on',
	conf => [ 'neon_comm.async_reads=off', 'neon_comm.staging_size=256', 'neon_comm.staging_quota=64', 'neon_comm.connections_per_shard=3',
		'autovacuum_naptime=1s', 'autovacuum_vacuum_threshold=200', 'autovacuum_vacuum_scale_factor=0',
		'max_parallel_workers_per_gather=2', 'parallel_setup_cost=0', 'parallel_tuple_cost=0', 'min_parallel_table_scan_size=0' ]);

$c->sql(q{CREATE TABLE self (id int, f text) WITH (fillfactor = 10);
	INSERT INTO self SELECT g, lpad(g::text, 700, '0') FROM generate_series(0, 1499) g;
	CREATE INDEX self_id ON self (id); CREATE INDEX self_mod ON self ((id % 10));
	CREATE TABLE acc (id int PRIMARY KEY, v bigint, f text) WITH (fillfactor = 40);
	INSERT INTO acc SELECT g, 0, repeat('a', 300) FROM generate_series(0, 3999) g;});
$c->sql('VACUUM self');
$c->sql('ANALYZE');

my %script = (
	# a division by zero ends the client: a wrong row is an error
	bitmap => q{\set eic random(0, 64)
\set n random(0, 9)
\set limit random(1, 150)
SET effective_io_concurrency = :eic;
SET enable_seqscan = off;
SELECT 1 / (CASE WHEN count(*) FILTER (WHERE (ctid::text::point)[0]::int <> id) = 0 THEN 1 ELSE 0 END)
	FROM (SELECT ctid, id FROM self WHERE id % 10 = :n LIMIT :limit) x;
},
	scan => q{\set window random(0, 64)
\set limit random(1, 1500)
SET neon_comm.readahead_blocks = :window;
SET max_parallel_workers_per_gather = 0;
SELECT 1 / (CASE WHEN count(*) FILTER (WHERE (ctid::text::point)[0]::int <> id) = 0 THEN 1 ELSE 0 END)
	FROM (SELECT ctid, id FROM self LIMIT :limit) x;
SELECT 1 / (CASE WHEN sum(v) = 0 THEN 1 ELSE 0 END) FROM acc;
},
	parallel => q{SELECT 1 / (CASE WHEN count(*) = 1500 AND count(*) FILTER (WHERE (ctid::text::point)[0]::int <> id) = 0 THEN 1 ELSE 0 END) FROM self;
},
	transfer => q{\set a random(0, 3999)
\set b random(0, 3999)
\set lo least(:a, :b)
\set hi greatest(:a, :b)
BEGIN;
UPDATE acc SET v = v + 1 WHERE id = :lo;
UPDATE acc SET v = v - 1 WHERE id = :hi;
END;
});
my %clients = (bitmap => 3, scan => 2, parallel => 1, transfer => 2);
foreach my $name (sort keys %script)
{
	open my $fh, '>', "$c->{dir}/$name.sql" or die $!;
	print $fh $script{$name};
	close $fh;
}
my $s = $c->session;
my $reloads = 0;

sub storm
{
	my (%run, %text);
	foreach my $name (sort keys %script)
	{
		$text{$name} = '';
		$run{$name} = $c->background(\$text{$name}, 'pgbench', '-n', '-c', $clients{$name}, '-j', 1, '-T', $ENV{NEON_STORM_SECONDS} // 8,
			'-f', "$c->{dir}/$name.sql", $c->conninfo . ' dbname=postgres');
	}
	while (grep { $_->pumpable } values %run)
	{
		eval { $_->pump_nb if $_->pumpable } foreach values %run;
		$s->query('SELECT pg_reload_conf()');
		$reloads++;
		select undef, undef, undef, 0.02;
	}
	ok($run{$_}->finish, "$_: every row was right") or diag($text{$_}) foreach sort keys %run;
	return;
}

# Until all that it is about has happened: on a slow machine that takes more than one.
my %least = (prefetch_stale => 0, prefetch_refused => 0, prefetch_hits => 500);
foreach (1 .. 10)
{
	storm();
	last if $reloads > 50 && !grep { $c->counter($_) <= $least{$_} } keys %least;
}
cmp_ok($reloads, '>', 50, 'reloads went on beside them');
is($s->query('SELECT sum(v), count(*) FROM acc'), '0|4000', 'sums are exact');
is($s->query('SELECT count(*), count(*) FILTER (WHERE (ctid::text::point)[0]::int <> id) FROM self'), '1500|0', 'each row is in its block');
ok($c->wait_for('SELECT lent = 0 FROM neon_comm.staging()'), 'no staging memory is held');
ok($c->wait_for('SELECT count(*) = 0 FROM neon_comm.slots WHERE slot >= 32'), 'nor a slot');
cmp_ok($c->counter('prefetch_stale'), '>', $least{prefetch_stale}, 'pages changed under readers');
cmp_ok($c->counter('prefetch_refused'), '>', $least{prefetch_refused}, 'memory was short');
cmp_ok($c->counter('prefetch_hits'), '>', $least{prefetch_hits}, 'and much was of use');
is($c->counter($_), 0, "$_ is 0") foreach ('found_late', 'stale_answers', 'future_answers', 'connections_poisoned');
$c->check_logs;
done_testing();
