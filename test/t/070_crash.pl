# The compute is killed again and again under a mixed load.  Afterwards sums
# hold, indexes and heaps are sound, and a page server, opened as a server of
# its own, has the same contents.
use strict;
use warnings;

use Test::More;
use NeonComm::Cluster;
use File::Copy;

my $rounds = $ENV{NEON_CRASH_ROUNDS} // 20;
my $c = NeonComm::Cluster->new(
	conf => [ 'checkpoint_timeout=30s', 'max_prepared_transactions=10', 'restart_after_crash=on' ]);

$c->sql(q{CREATE EXTENSION amcheck;
	CREATE TABLE acc (id int PRIMARY KEY, bal bigint, block_note text) WITH (fillfactor = 40);
	INSERT INTO acc SELECT g, 1000, repeat('n', 200) FROM generate_series(1, 10000) g;
	CREATE TABLE hist (id bigserial PRIMARY KEY, a int, b int, d int, note text);
	CREATE INDEX ON hist (a); CREATE INDEX ON acc USING hash (id);
	CREATE TABLE doc (id int, ts tsvector); CREATE INDEX ON doc USING gin (ts);
	CREATE TABLE geo (p point); CREATE INDEX ON geo USING gist (p);});
my $script = "$c->{dir}/mixed.sql";
open my $fh, '>', $script or die $!;
print $fh q{\set a random(1, 10000)
\set b random(1, 10000)
\set d random(1, 50)
BEGIN;
UPDATE acc SET bal = bal - :d WHERE id = :a;
UPDATE acc SET bal = bal + :d WHERE id = :b;
INSERT INTO hist (a, b, d, note) VALUES (:a, :b, :d, repeat('h', 100));
INSERT INTO doc VALUES (:a, to_tsvector('simple', md5(:a::text)));
INSERT INTO geo VALUES (point(:a, :b));
COMMIT;
};
close $fh;
my $reader = "$c->{dir}/reader.sql";
open $fh, '>', $reader or die $!;
print $fh q{\set a random(1, 10000)
SELECT bal FROM acc WHERE id = :a;
SELECT count(*) FROM hist WHERE a = :a;
CREATE TEMP TABLE tt AS SELECT * FROM acc WHERE id < 20; DROP TABLE tt;
};
close $fh;

my $progress = 0;
foreach my $round (1 .. $rounds)
{
	my $before = $c->sql('SELECT count(*) FROM hist');
	my ($out1, $out2) = ('', '');
	my $load = $c->background(\$out1, 'pgbench', '-n', '-c', 6, '-j', 1, '-T', 600, '-f', $script,
		$c->conninfo . ' dbname=postgres');
	my $read = $c->background(\$out2, 'pgbench', '-n', '-c', 3, '-j', 1, '-T', 600, '-f', $reader,
		$c->conninfo . ' dbname=postgres');
	# killed once the load has done something, at a place that differs each time
	$c->wait_for("SELECT count(*) > $before + " . (20 + 13 * $round) . ' FROM hist');
	$c->sql('CHECKPOINT') if $round % 4 == 0;
	$c->kill9('compute');
	foreach my $h ($load, $read) { eval { $h->finish } }
	$c->start('compute');
	my $after = $c->sql('SELECT count(*) FROM hist');
	$progress++ if $after > $before;
	is($c->sql('SELECT sum(bal), count(*) FROM acc'), '10000000|10000', "round $round: sums hold");
	is( $c->sql('SELECT (SELECT count(*) FROM hist) = (SELECT count(*) FROM doc) AND (SELECT count(*) FROM hist) = (SELECT count(*) FROM geo)'),
		't', "round $round: transactions are whole");
}
is($progress, $rounds, 'each round committed something');

foreach my $index (qw(acc_pkey hist_pkey hist_a_idx))
{
	is($c->sql("SELECT bt_index_parent_check('$index', true)"), '', "$index is sound");
}
foreach my $table (qw(acc hist doc geo))
{
	is($c->sql("SELECT count(*) FROM verify_heapam('$table')"), 0, "$table is sound");
}
is($c->sql('SELECT count(*) = count(DISTINCT id) FROM hist'), 't', 'no sequence value twice');
my $agree = 'SELECT count(*) FROM geo WHERE p <@ box $$((0,0),(5000,5000))$$';
is($c->sql("SET enable_seqscan = off; $agree"), $c->sql("SET enable_bitmapscan = off; SET enable_indexscan = off; SET enable_indexonlyscan = off; $agree"),
	'gist agrees with the heap');

# A kill between a drop's commit record and its unlink: many drops, no checkpoint.
foreach my $round (1 .. 3)
{
	my $out = '';
	my $drops = "$c->{dir}/drops.sql";
	open $fh, '>', $drops or die $!;
	print $fh "CREATE TABLE dr_:client_id AS SELECT g, repeat('d', 100) f FROM generate_series(1, 2000) g;\n"
	  . "INSERT INTO dr_:client_id SELECT * FROM dr_:client_id LIMIT 100;\nDROP TABLE dr_:client_id;\n";
	close $fh;
	my $n = $c->sql(q{SELECT value FROM neon_comm.counters WHERE name = 'extends'});
	my $h = $c->background(\$out, 'pgbench', '-n', '-c', 4, '-T', 600, '-f', $drops,
		$c->conninfo . ' dbname=postgres');
	$c->wait_for("SELECT value > $n + 600 FROM neon_comm.counters WHERE name = 'extends'");
	$c->kill9('compute');
	eval { $h->finish };
	$c->start('compute');
	is($c->sql('SELECT sum(bal) FROM acc'), '10000000', "drops, round $round: recovers");
	$c->sql(q{DO $$ DECLARE r record; BEGIN FOR r IN SELECT relname FROM pg_class WHERE relname LIKE 'dr\_%' LOOP EXECUTE 'DROP TABLE ' || r.relname; END LOOP; END $$});
}

# The dump of the compute equals that of its page servers.
my $dump = sub {
	my ($conninfo, $file) = @_;
	system("pg_dumpall --no-role-passwords -d '$conninfo' 2>$file.err | grep -v '^.\\(un\\)\\?restrict' | grep -v '^-- \\(Started\\|Completed\\)' | grep -v 'pg_catalog.setval' > $file") == 0 or diag(`cat $file.err`);
	return;
};
$dump->($c->conninfo . ' dbname=postgres', "$c->{dir}/compute.dump");
cmp_ok(-s "$c->{dir}/compute.dump", '>', 100_000, 'the dump has contents');
ok($c->wait_for(q{SELECT bool_and(coalesce(lag_bytes = 0, false)) FROM neon_comm.page_servers}), 'page servers have followed');
$c->stop;
foreach my $n (0 .. 1)
{
	my $copy = "$c->{dir}/opened_$n";
	system('cp', '-a', "$c->{dir}/page_server_$n", $copy) == 0 or die;
	unlink "$copy/standby.signal", "$copy/postmaster.pid";
	open my $conf, '>>', "$copy/postgresql.auto.conf" or die $!;
	print $conf "shared_preload_libraries = ''\nunix_socket_directories = '$c->{dir}'\nport = 6543\nlisten_addresses = ''\nhot_standby = on\nlogging_collector = off\n";
	close $conf;
	system('pg_ctl', '-s', '-w', '-D', $copy, '-l', "$c->{dir}/opened_$n.log", 'start') == 0
	  or diag(`tail -20 $c->{dir}/opened_$n.log`);
	$dump->("host=$c->{dir} port=6543 dbname=postgres user=postgres", "$c->{dir}/opened_$n.dump");
	system('pg_ctl', '-s', '-w', '-m', 'fast', '-D', $copy, 'stop');
	is(system('cmp', "$c->{dir}/compute.dump", "$c->{dir}/opened_$n.dump"), 0,
		"page server $n, opened on its own, dumps the same")
	  or diag(`diff $c->{dir}/compute.dump $c->{dir}/opened_$n.dump | head -20`);
}
$c->check_logs;
done_testing();
