# The local file cache: what it answers is what page servers would; a newer
# version, a truncation, a drop leave nothing old behind; rows are exact under
# concurrent updates with a cache of one megabyte (rules lfc_write, lfc_forget,
# lfc_database).
use strict;
use warnings;

use Test::More;
use NeonComm::Cluster;

my $c = NeonComm::Cluster->new(conf => ['neon_comm.lfc_size=64MB', 'autovacuum=off']);
$c->sql('CREATE EXTENSION amcheck');

sub counters
{
	my %v = map { split /\|/ } split /\n/,
	  $c->sql(q{SELECT name, value FROM neon_comm.counters WHERE name LIKE 'lfc%' OR name = 'reads_remote'});
	return \%v;
}

# Staged pages are written, not only kept in memory.
sub settle { return $c->wait_for('SELECT staged_pages = 0 FROM neon_comm.lfc') }

ok($c->wait_for(q{SELECT state = 'on' FROM neon_comm.lfc}), 'the cache is on');
is($c->sql('SELECT size_bytes = limit_bytes AND size_bytes = 64 * 1024 * 1024 FROM neon_comm.lfc'),
	't', 'of the size that was set');
is($c->sql('SELECT memory_bytes - 600000 <= size_bytes * 0.006 FROM neon_comm.lfc'),
	't', 'its shared memory is small');

# A table read again comes from the cache, page by page.
$c->sql(q{CREATE TABLE t (id int PRIMARY KEY, n int, f text);
	INSERT INTO t SELECT g, 0, repeat('t', 400) FROM generate_series(1, 40000) g; VACUUM t; CHECKPOINT;
	SELECT neon_comm.sweep();});
my $sum = $c->sql('SELECT count(*), sum(n) FROM t');
my $pages = $c->sql(q{SELECT pg_relation_size('t') / 8192});
cmp_ok($pages, '>', 2000, 'the table is larger than shared buffers');
ok(settle(), 'the writer keeps up');
ok($c->into_cache('SELECT sum(n) FROM t'), 't is cached');
# what was dropped at the last read, or left shared buffers since, comes with this one: until all that is there
my ($before, $after);
foreach (1 .. 50)
{
	$before = counters();
	is($c->sql('SELECT count(*), sum(n) FROM t'), $sum, 'the same rows again');
	$after = counters();
	last if $after->{lfc_hits} - $before->{lfc_hits} >= $pages - 128 && $after->{reads_remote} - $before->{reads_remote} < 128;
	settle();
}
cmp_ok($after->{lfc_hits} - $before->{lfc_hits}, '>=', $pages - 128, 'from the cache');
cmp_ok($after->{reads_remote} - $before->{reads_remote}, '<', 128, 'and not from page servers');
cmp_ok($after->{lfc_blocks_written}, '>=', $pages - 128, 'which is in its file');
cmp_ok($after->{lfc_fills} + $after->{lfc_writes}, '>=', $after->{lfc_blocks_written}, 'counted where they came from');
cmp_ok(-s "$c->{dir}/compute/neon_comm.lfc", '>=', 64 * 8192, 'of that name');

# Newer versions.
foreach my $n (1 .. 5)
{
	$c->sql("UPDATE t SET n = n + 1 WHERE id % 7 = 0");
	is($c->sql('SELECT count(*), max(n), sum(n) FROM t'), "40000|$n|" . ($n * 5714), "update $n is read back");
	$c->sql('CHECKPOINT; VACUUM t') if $n == 3;
}
is($c->sql(q{SELECT bt_index_parent_check('t_pkey', true)}), '', 'index is sound');
is($c->sql(q{SELECT count(*) FROM verify_heapam('t')}), 0, 'heap is sound');

# Truncated blocks come back new, dropped relations leave nothing.
$c->sql(q{CREATE TABLE tr (id int, n int, f text);
	INSERT INTO tr SELECT g, 0, repeat('r', 400) FROM generate_series(1, 40000) g});
$c->evict;
foreach my $round (1 .. 3)
{
	# FREEZE: else VACUUM passes by a page that somebody has just pinned to write it, and cuts nothing before it
	$c->sql(q{DELETE FROM tr WHERE id > 1000; VACUUM FREEZE tr;});
	cmp_ok($c->sql(q{SELECT pg_relation_size('tr') / 8192}), '<', 200, "round $round: truncated");
	# extended in one step, by a process that does not write the new pages
	$c->sql("INSERT INTO tr SELECT g, $round, repeat('r', 400) FROM generate_series(1001, 40000) g");
	$c->evict;
	is($c->sql("SELECT count(*), count(*) FILTER (WHERE id > 1000 AND n = $round) FROM tr"),
		'40000|39000', "round $round: blocks come back new");
}
$c->sql('CREATE TABLE gone AS SELECT * FROM t');
ok($c->into_cache('SELECT sum(n) FROM gone'), 'gone is cached');
$before = counters();
my $used = $c->sql('SELECT used_pages FROM neon_comm.lfc');
$c->sql('DROP TABLE gone');
$after = counters();
cmp_ok($after->{lfc_invalidations} - $before->{lfc_invalidations}, '>', 1000, 'a dropped table is forgotten');
cmp_ok($c->sql('SELECT used_pages FROM neon_comm.lfc'), '<', $used - 1000, 'its places are free');

# Databases: a move there and back, with changes between; the same oid again.
$c->sql('CREATE DATABASE d STRATEGY file_copy');
$c->sql(q{CREATE TABLE x (i int); INSERT INTO x SELECT generate_series(1, 100000);}, db => 'd');
$c->sql(q{CREATE TABLESPACE ts LOCATION ''});
my $total = $c->sql('SELECT sum(i) FROM x', db => 'd');
$c->evict;
foreach my $round (1 .. 2)
{
	is($c->sql('SELECT sum(i) FROM x', db => 'd'), $total, "round $round: at home");
	$c->sql('ALTER DATABASE d SET TABLESPACE ts');
	$c->sql('UPDATE x SET i = i + 1', db => 'd');
	$total += 100000;
	is($c->sql('SELECT sum(i) FROM x', db => 'd'), $total, "round $round: there");
	$c->sql('ALTER DATABASE d SET TABLESPACE pg_default');
}
my $oid = $c->sql(q{SELECT oid FROM pg_database WHERE datname = 'd'});
my $file = $c->sql(q{SELECT pg_relation_filepath('x')}, db => 'd');
$c->sql('SELECT sum(i) FROM x', db => 'd');
$c->sql(qq{CREATE DATABASE e STRATEGY file_copy TEMPLATE d; DROP DATABASE d;});
$c->sql('UPDATE x SET i = -i', db => 'e');
$c->sql("CREATE DATABASE d OID $oid STRATEGY file_copy TEMPLATE e");
is($c->sql(q{SELECT pg_relation_filepath('x')}, db => 'd'), $file, 'the same file names again');
is($c->sql('SELECT sum(i) FROM x', db => 'd'), -$total, 'with the content of the new database');

is($c->counter('lfc_stale'), 0, 'nothing old was found');
is($c->counter('lfc_mismatches'), 0, 'nothing broken was found');
is($c->counter('lfc_errors'), 0, 'no trouble with the file');
is($c->counter('stale_answers'), 0, 'no answer was old');

# The rights of the view and the functions.
$c->sql('CREATE ROLE joe');
foreach my $q ('SELECT * FROM neon_comm.lfc', 'SELECT neon_comm.lfc_save()')
{
	my ($rc, undef, $err) = $c->try_sql("SET ROLE joe; $q");
	like($err, qr/permission denied/, "not for PUBLIC: $q");
}
$c->check_logs;
undef $c;

# One megabyte, sixteen sessions, random updates: every page comes and goes.
$c = NeonComm::Cluster->new(conf => ['neon_comm.lfc_size=1MB', 'max_connections=60', 'neon_comm.verify=shadow']);
ok($c->wait_for(q{SELECT state = 'on' FROM neon_comm.lfc}), 'a cache of one megabyte is on');
$c->sql(q{CREATE TABLE a (id int PRIMARY KEY, n bigint, f text) WITH (fillfactor = 10);
	INSERT INTO a SELECT g, 0, repeat('a', 200) FROM generate_series(1, 10000) g;});
my $script = "$c->{dir}/update.sql";
open my $fh, '>', $script or die $!;
print $fh "\\set id random(1, 10000)\nUPDATE a SET n = n + 1 WHERE id = :id;\n";
close $fh;
my ($rc, $out, $err) = $c->pgbench('-n', '-c', 16, '-j', 2, '-t', 400, '-f', $script);
is($rc, 0, 'sixteen sessions update') or diag($err);
is($c->sql('SELECT count(*), sum(n) FROM a'), '10000|6400', 'the sum is exact');
is($c->sql('SET enable_seqscan = off; SET enable_bitmapscan = off; SELECT count(*), sum(n) FROM a WHERE id > 0'),
	'10000|6400', 'through the index too');
cmp_ok($c->counter('lfc_hits'),      '>', 100,  'the cache was used');
cmp_ok($c->counter('lfc_evictions'), '>', 1000, 'and too small');
cmp_ok(-s "$c->{dir}/compute/neon_comm.lfc", '<=', 1024 * 1024 + 8192, 'its file has its size');
is($c->counter('lfc_stale'), 0, 'nothing old was found');
cmp_ok($c->counter($_), '>', 0, "$_ moved") foreach qw(lfc_misses);
$c->check_logs;
undef $c;
done_testing();
