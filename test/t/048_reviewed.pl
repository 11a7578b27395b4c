# Faults found by review, each with the case that showed it.
use strict;
use warnings;

use Test::More;
use NeonComm::Cluster;

my $c = NeonComm::Cluster->new(conf => [ 'neon_comm.sweep_interval=100ms', 'wal_log_hints=on' ]);

# CREATE INDEX CONCURRENTLY has no xid while it builds: the sweeper must see its
# snapshot, or it takes away pages that are not logged yet.
$c->sql(q{CREATE TABLE t (id int, p point, k text, arr int[]);
	INSERT INTO t SELECT g, point(g % 991, g % 353), md5(g::text), ARRAY[g % 100, g % 101, g % 1009]
	FROM generate_series(1, 40000) g;
	CREATE UNLOGGED TABLE ut AS SELECT id, k FROM t;});
my %cic = (
	gin => [ 't USING gin (arr)', 't', 'arr @> ARRAY[42]' ],
	gist => [ 't USING gist (p) WITH (buffering = on)', 't', q{p <@ box '((100,100),(300,300))'} ],
	spgist => [ 't USING spgist (p)', 't', q{p <@ box '((100,100),(300,300))'} ],
	unlogged => [ 'ut USING btree (k)', 'ut', q{k > 'e'} ]);
foreach my $name (sort keys %cic)
{
	my ($on, $table, $where) = @{ $cic{$name} };
	my $q = "SELECT count(*), sum(id) FROM $table WHERE $where";
	my $want = $c->sql($q);
	# a burning session keeps xids standing still: only snapshots move
	$c->sql("CREATE INDEX CONCURRENTLY cic_$name ON $on");
	is($c->sql("SET enable_seqscan = off; $q"), $want, "concurrent build of $name");
	$c->evict;
	$c->sql('SELECT neon_comm.sweep()');
	is($c->sql("SET enable_seqscan = off; $q"), $want, "$name after eviction");
	$c->sql("DROP INDEX cic_$name");
}

# A sequence copied with its database is logged in the middle of its values and
# then not again before the next checkpoint.
$c->sql('CREATE DATABASE tpl');
$c->sql(q{CREATE SEQUENCE s; SELECT nextval('s') FROM generate_series(1, 5)}, db => 'tpl');
$c->sql('CREATE DATABASE copy1 TEMPLATE tpl STRATEGY wal_log');
is($c->sql(q{SELECT nextval('s') FROM generate_series(1, 3)}, db => 'copy1'), "6\n7\n8", 'the copy counts on');
$c->sql('CHECKPOINT');
$c->sql('CREATE DATABASE copy2 TEMPLATE copy1 STRATEGY file_copy');
is($c->sql(q{SELECT nextval('s')}, db => 'copy2'), 9, 'a copy of files keeps the state of a sequence');
$c->sql(q{CREATE TABLESPACE ts LOCATION ''; ALTER DATABASE copy2 SET TABLESPACE ts});
cmp_ok($c->sql(q{SELECT nextval('s')}, db => 'copy2'), '>=', 10, 'and so does a moved database');
$c->kill9('compute');
$c->start('compute');
cmp_ok($c->sql(q{SELECT nextval('s')}, db => 'copy1'), '>=', 9, 'no duplicate after a crash');
$c->sql('ALTER DATABASE copy2 SET TABLESPACE pg_default');
cmp_ok($c->sql(q{SELECT nextval('s')}, db => 'copy2'), '>=', 11, 'nor after moving back');

# DROP DATABASE by somebody who may not changes nothing.
$c->sql('CREATE ROLE joe');
my $before = $c->counter('reads_remote');
my (undef, undef, $err) = $c->try_sql('SET ROLE joe; DROP DATABASE copy1');
like($err, qr/must be owner/, 'a refused DROP DATABASE');
(undef, undef, $err) = $c->try_sql('DROP DATABASE postgres');
like($err, qr/currently open database/, 'another one');

# An unlogged relation's metapages have real LSNs after a crash: a copy of the
# database must keep them although no INIT fork is there yet when they are copied.
$c->sql('CREATE DATABASE ul');
$c->sql(q{CREATE UNLOGGED TABLE u (id int PRIMARY KEY, k text, p point);
	CREATE INDEX u_h ON u USING hash (k); CREATE INDEX u_sp ON u USING spgist (p); CREATE INDEX u_g ON u USING gist (p)},
	db => 'ul');
$c->kill9('compute');
$c->start('compute');
$c->sql(q{INSERT INTO u SELECT g, md5(g::text), point(g % 91, g % 37) FROM generate_series(1, 5000) g}, db => 'ul');
my @ask = ('SELECT count(*), sum(id) FROM u', q{SET enable_seqscan = off; SELECT count(*) FROM u WHERE id BETWEEN 10 AND 4000},
	q{SET enable_seqscan = off; SELECT count(*) FROM u WHERE k = md5('77')},
	q{SET enable_seqscan = off; SELECT count(*) FROM u WHERE p <@ box '((5,5),(30,30))'});
my @want = map { $c->sql($_, db => 'ul') } @ask;
$c->sql('CREATE DATABASE ul2 TEMPLATE ul');
is($c->sql($ask[$_], db => 'ul2'), $want[$_], "unlogged tables in a copied database: question $_") foreach 0 .. $#ask;
$c->sql(q{ALTER TABLE u SET TABLESPACE ts; ALTER INDEX u_g SET TABLESPACE ts; ALTER INDEX u_sp SET TABLESPACE ts; ALTER INDEX u_h SET TABLESPACE ts; ALTER INDEX u_pkey SET TABLESPACE ts}, db => 'ul2');
$c->evict(db => 'ul2');
is($c->sql($ask[$_], db => 'ul2'), $want[$_], "and moved to a tablespace: question $_") foreach 0 .. $#ask;
$c->sql(q{INSERT INTO u SELECT g, md5(g::text), point(g % 91, g % 37) FROM generate_series(5001, 6000) g}, db => 'ul2');
is($c->sql('SELECT count(*) FROM u', db => 'ul2'), 6000, 'and filled further');

# With wal_log_hints on the compute alone all-visible heap pages have another LSN there.
$c->sql(q{CREATE TABLE av AS SELECT g, repeat('v', 300) f FROM generate_series(1, 10000) g; VACUUM av});
$c->evict;
is($c->sql('SELECT count(*) FROM av'), 10000, 'wal_log_hints on the compute alone');

$c->check_logs;
done_testing();
