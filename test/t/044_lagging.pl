# A page server that applies WAL only when it is asked to: every missed
# last-written LSN then shows as an old page (rules all_visible, page_lsn,
# database).
use strict;
use warnings;

use Test::More;
use NeonComm::Cluster;

my $c = NeonComm::Cluster->new(ps_conf => ['neon_page_service.lazy_replay=on'],
	conf => ['neon_comm.last_written_lsn_entries=1024']);

$c->sql('CREATE EXTENSION pg_visibility; CREATE EXTENSION amcheck;');

# VACUUM sets all-visible without moving the LSN of the heap page.
foreach my $round (1 .. 3)
{
	$c->sql(q{DROP TABLE IF EXISTS av; CREATE TABLE av (id int PRIMARY KEY, v int, f text);
		INSERT INTO av SELECT g, 0, repeat('v', 200) FROM generate_series(1, 12000) g;});
	$c->evict;
	$c->sql('VACUUM av');
	$c->evict;
	# an update of a page that came back without its flag would leave the map's bit set
	$c->sql('UPDATE av SET v = v + 1 WHERE id % 50 = 0; DELETE FROM av WHERE id % 70 = 0;');
	$c->evict;
	is($c->sql(q{SELECT count(*) FROM pg_check_visible('av')}), 0, "round $round: visibility map agrees");
	is($c->sql(q{SELECT count(*) FROM pg_check_frozen('av')}), 0, "round $round: frozen bits agree");
	is( $c->sql(q{SET enable_seqscan = off; SET enable_bitmapscan = off; SELECT count(*) FROM av WHERE id > 0}),
		$c->sql(q{SET enable_indexscan = off; SET enable_indexonlyscan = off; SET enable_bitmapscan = off; SELECT count(*) FROM av WHERE id > 0}),
		"round $round: index-only scan counts the same");
}

# Updates read back at once, far more pages than the map remembers.
$c->sql(q{CREATE TABLE up (id int PRIMARY KEY, n int, f text) WITH (fillfactor = 60);
	INSERT INTO up SELECT g, 0, repeat('u', 300) FROM generate_series(1, 20000) g;});
foreach my $n (1 .. 4)
{
	$c->sql('UPDATE up SET n = n + 1');
	is($c->sql('SELECT count(*), min(n), max(n) FROM up'), "20000|$n|$n", "update $n is read back");
}
is($c->sql(q{SELECT bt_index_parent_check('up_pkey', true)}), '', 'index is sound');
is($c->sql(q{SELECT count(*) FROM verify_heapam('up')}), 0, 'heap is sound');

# Truncate, reuse of blocks, drop and create.
foreach my $round (1 .. 5)
{
	$c->sql(q{DELETE FROM up WHERE id > 1000; VACUUM up;});
	$c->sql("INSERT INTO up SELECT g, $round, 'r' || g FROM generate_series(1001, 9000) g");
	$c->evict;
	is($c->sql('SELECT count(*), count(*) FILTER (WHERE id > 1000 AND n = ' . $round . ') FROM up'),
		'9000|8000', "round $round: truncated blocks come back new");
	$c->sql('TRUNCATE up');
	$c->sql(q{INSERT INTO up SELECT g, 0, 't' FROM generate_series(1, 1500) g});
	$c->evict;
	is($c->sql('SELECT count(*) FROM up'), 1500, "round $round: after TRUNCATE");
}

# Databases, both strategies, there and back.
foreach my $strategy ('wal_log', 'file_copy')
{
	$c->sql("CREATE DATABASE src_$strategy");
	$c->sql(q{CREATE TABLE d (x int); INSERT INTO d SELECT generate_series(1, 20000);
		CREATE SEQUENCE sq; SELECT nextval('sq')}, db => "src_$strategy");
	$c->sql("CREATE DATABASE copy_$strategy TEMPLATE src_$strategy STRATEGY $strategy");
	is($c->sql('SELECT count(*), sum(x) FROM d', db => "copy_$strategy"),
		'20000|200010000', "$strategy: the copy has the rows");
	$c->sql('UPDATE d SET x = x + 1', db => "copy_$strategy");
	$c->evict(db => "copy_$strategy");
	is($c->sql('SELECT sum(x) FROM d', db => "copy_$strategy"), '200030000', "$strategy: and changes them");
	is($c->sql('SELECT sum(x) FROM d', db => "src_$strategy"), '200010000', "$strategy: alone");
}
$c->sql(q{CREATE TABLESPACE ts LOCATION '';});
foreach my $round (1 .. 2)
{
	$c->sql('ALTER DATABASE copy_file_copy SET TABLESPACE ts');
	is($c->sql('SELECT count(*) FROM d', db => 'copy_file_copy'), 20000, "round $round: moved there");
	$c->sql("UPDATE d SET x = x + $round", db => 'copy_file_copy');
	my $sum = $c->sql('SELECT sum(x) FROM d', db => 'copy_file_copy');
	$c->sql('ALTER DATABASE copy_file_copy SET TABLESPACE pg_default');
	is($c->sql('SELECT sum(x) FROM d', db => 'copy_file_copy'), $sum, "round $round: and back");
	$c->sql('DELETE FROM d WHERE x % 10 = 0; VACUUM d', db => 'copy_file_copy');
	$c->sql('INSERT INTO d SELECT 10 * g FROM generate_series(1, 20000 - (SELECT count(*)::int FROM d)) g', db => 'copy_file_copy');
}

# The same database oid again.
my $oid = $c->sql(q{SELECT oid FROM pg_database WHERE datname = 'copy_wal_log'});
foreach my $strategy ('file_copy', 'wal_log')
{
	$c->sql('DROP DATABASE copy_wal_log');
	$c->sql("CREATE DATABASE copy_wal_log OID $oid TEMPLATE src_wal_log STRATEGY $strategy");
	is($c->sql('SELECT count(*), sum(x) FROM d', db => 'copy_wal_log'),
		'20000|200010000', "the same oid again by $strategy");
	$c->sql('UPDATE d SET x = -x', db => 'copy_wal_log');
	$c->evict(db => 'copy_wal_log');
}
is($c->counter('stale_answers'), 0, 'no answer was old');
cmp_ok($c->counter('feed_rings'), '>', 0, 'who waited for WAL woke the feed');
$c->check_logs;
done_testing();
