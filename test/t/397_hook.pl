# A server with a storage-manager hook, or that registers storage managers (18), is entered so: its table stays
# md's, permanent relations are ours and temporary ones the server's; it says which relations are not logged
# before they have an INIT fork, when an index is built without WAL, and what it has logged that passed by shared
# buffers.
use strict;
use warnings;

use Test::More;
use NeonComm::Cluster;
use NeonComm::Node qw(until_true);

my $pg_config = $ENV{PG_CONFIG} // 'pg_config';
my ($bindir, $pkglibdir) = map { my $d = `$pg_config --$_`; chomp $d; $d } qw(bindir pkglibdir);
my ($door) = map { / (smgr_hook|smgrregister)$/ ? $1 : () } `nm -D $bindir/postgres`;
plan skip_all => 'this server has no storage-manager hook: see test/hook.sh' if !$door;
plan skip_all => 'other_smgr is not installed: see test/hook.sh' if !-e "$pkglibdir/other_smgr.so";

# No background writer: while an INIT fork is being made, what another process writes is kept for safety's sake, and counted.
my $c = NeonComm::Cluster->new(shards => 1, conf => [ 'checkpoint_timeout=1h', 'neon_comm.lfc_size=0', 'bgwriter_lru_maxpages=0' ]);
my $way = $door eq 'smgr_hook' ? 'hook' : 'registered';
is($c->sql('SELECT way_in FROM neon_comm.status()'), $way, "it is entered through the front door: $way");
$c->sql(q{
	CREATE FUNCTION table_is_mds() RETURNS bool AS 'other_smgr', 'other_smgr_table_is_mds' LANGUAGE C;
	CREATE FUNCTION ours(regclass) RETURNS bool AS 'other_smgr', 'other_smgr_serves' LANGUAGE C;
	CREATE FUNCTION build(regclass, cstring) RETURNS void AS 'other_smgr', 'other_smgr_build' LANGUAGE C;
	CREATE FUNCTION logged(regclass, int, pg_lsn) RETURNS pg_lsn AS 'other_smgr', 'other_smgr_logged' LANGUAGE C;
});
is($c->sql('SELECT table_is_mds()'), 't', 'the table in memory is as the server has it');
is($c->sql(q{CREATE TABLE p (i int); CREATE UNLOGGED TABLE u (i int); CREATE TEMP TABLE x (i int);
	SELECT ours('p'), ours('u'), ours('x'), ours('pg_class')}), 't|t|f|t', 'whose relations are whose');

# ---- persistence: an index of a table that is not logged gets its INIT fork when it has been built
my $low = 'writes_local_unlogged_build';
$c->sql(q{CREATE UNLOGGED TABLE n AS SELECT g AS id, md5(g::text) AS m FROM generate_series(1, 20000) g; CHECKPOINT});
my $before = $c->counter($low);
my $plain = $c->counter('writes_plain');
$c->sql(q{CREATE INDEX n_m ON n USING spgist (m)});
is($c->counter($low), $before, 'it does not look like a logged one that is being built');
cmp_ok($c->counter('writes_plain'), '>', $plain, 'its pages are written to its file');
is($c->sql(q{SET enable_seqscan = off; SELECT count(*) FROM n WHERE m > 'fff'}), $c->sql(q{SET enable_indexscan = off;
	SET enable_bitmapscan = off; SET enable_indexonlyscan = off; SELECT count(*) FROM n WHERE m > 'fff'}), 'and read from there');

# ---- builds
$c->sql(q{CREATE TABLE b AS SELECT g AS id, repeat('x', 500) AS f FROM generate_series(1, 2000) g; CHECKPOINT});
$before = $c->counter($low);
$c->sql(q{UPDATE b SET id = id WHERE id % 2 = 0; CHECKPOINT});
is($c->counter($low), $before, 'pages whose changes are logged are let go');
my $s = $c->session;
$s->query(q{BEGIN});
$s->query(q{SELECT build('b', 'start')});
$s->query(q{DELETE FROM b WHERE id % 100 = 0});
$c->sql('CHECKPOINT');
cmp_ok($c->counter($low), '>', $before, 'but not while the server says that the relation is being built');
$s->query(q{SELECT build('b', 'complete')});
$s->query(q{SELECT build('b', 'end')});
$s->query(q{DELETE FROM b WHERE id % 100 = 1});
$before = $c->counter($low);
$c->sql('CHECKPOINT');
is($c->counter($low), $before, 'and they are let go again when it is complete');
$s->query(q{ROLLBACK});

# one that fails does not say so: its transaction's end is the end
$s->query(q{BEGIN});
$s->query(q{SELECT build('b', 'start')});
$s->query(q{UPDATE b SET id = id WHERE id % 3 = 0});
$s->query(q{ROLLBACK});
$before = $c->counter($low);
$c->sql(q{UPDATE b SET id = id WHERE id % 5 = 0; CHECKPOINT});
is($c->counter($low), $before, 'nor is anything kept for a build that has failed');
$c->evict;
is($c->sql('SELECT count(*), sum(id) FROM b'), '2000|2001000', 'rows');

$c->sql(q{CREATE TABLE k AS SELECT g AS id, ARRAY[g % 500, g % 77] AS arr, point(g % 991, g % 317) AS p, md5(g::text) AS m FROM generate_series(1, 20000) g});
my %kinds = (gin => [ 'gin (arr)', 'arr @> ARRAY[42]' ], gist => [ 'gist (p) WITH (buffering = on)', q{p <@ box '((50,50),(90,90))'} ],
	spgist => [ 'spgist (m)', q{m > 'fff'} ]);
foreach my $kind (sort keys %kinds)
{
	my ($index, $where) = @{ $kinds{$kind} };
	my $want = $c->sql("SELECT count(*), sum(id) FROM k WHERE $where");
	$c->sql("CREATE INDEX k_$kind ON k USING $index");
	$c->evict;
	is($c->sql("SET enable_seqscan = off; SELECT count(*), sum(id) FROM k WHERE $where"), $want, "$kind: an index is built, and found");
}

# ---- LSNs: a read asks for what the server has said
$c->sql(q{CREATE TABLE l AS SELECT g AS id, repeat('x', 500) AS f FROM generate_series(1, 2000) g; CHECKPOINT});
$c->sql('VACUUM l; CHECKPOINT');
$c->evict;
my $lsn = $c->sql('SELECT pg_current_wal_lsn()');
is($c->sql("SELECT logged('l', 7, '$lsn')"), $lsn, 'the server tells of a page that it has logged');
my ($watch, $reader) = ($c->session, $c->session);
# what these need besides is in memory then
my $asked = 'SELECT count(*) > 0 FROM neon_comm.slots WHERE block = 7';
my $newer = qq{SELECT DISTINCT not_modified_since >= '$lsn' FROM neon_comm.slots WHERE block = 7};
$watch->query($_) foreach $asked, $newer;
$reader->query(q{SELECT count(*) FROM l WHERE ctid = '(90,1)'});
my @pids = $c->pids_of('page_server_0', qr/./);
kill 'STOP', @pids;
$reader->send(q{SELECT count(*) FROM l WHERE ctid = '(7,1)'});
ok(until_true(sub { $watch->query($asked) eq 't' }), 'it is read');
is($watch->query($newer), 't', 'in no older version than that');
kill 'CONT', @pids;
$reader->wait;
is($c->sql('SELECT count(*) FROM l'), 2000, 'rows');

# ---- sizes
cmp_ok($c->sql('SELECT pg_database_size(current_database())'), '>', 1_000_000, 'the size of a database');
is($c->sql('SELECT pg_database_size(current_database()) = pg_database_size(oid) FROM pg_database WHERE datname = current_database()'), 't', 'both ways to ask');

# ---- after a crash
$c->kill9('compute');
$c->start('compute');
is($c->sql('SELECT (SELECT count(*) FROM b), (SELECT count(*) FROM n), (SELECT count(*) FROM k)'), '2000|0|20000', 'a crash: logged rows are there, unlogged ones are not');
is($c->sql('SELECT table_is_mds()'), 't', 'the table in memory is as ever');
$c->check_logs;
done_testing();
