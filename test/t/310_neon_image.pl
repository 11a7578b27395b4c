# A compute that begins from an image in Neon's form: no relation has a file until somebody uses it (docs/boot.md,
# "Neon's form"; docs/local_pages.md, "Lengths that are asked for").
#
# The same rows, lengths and maps as before; DDL, DML, copies of databases, kill -9, a page server that is away.
use strict;
use warnings;

use File::Path qw(remove_tree);
use IPC::Run ();
use Test::More;
use NeonComm::Cluster;

my $c = NeonComm::Cluster->new(
	shards => 2,
	conf => [ 'max_wal_size=1GB', 'max_prepared_transactions=10' ],
	ps_conf => [ 'neon_page_service.boot_image=neon' ]);
my $dir = $c->{dir};
my %conf = do { open my $fh, '<', "$dir/neon_dev.conf" or die $!; map { /^(\w+)=(.*)$/ ? ($1 => $2) : () } <$fh> };

# ---- helpers

sub replayed { return $c->wait_for(q{SELECT bool_and(apply_lsn >= pg_current_wal_flush_lsn()) AND count(*) = 2 FROM neon_comm.page_servers}) }

sub lose_and_make
{
	$c->kill9('compute');
	remove_tree("$dir/compute");
	return $c->try_dev('create-compute', '-D', $dir);
}

# Files of relations below the directory of a database, INIT forks and what begins as them apart.
sub relation_files
{
	my ($where) = @_;
	opendir my $d, "$dir/compute/$where" or die "$where: $!";
	my @names = readdir $d;
	my %unlogged = map { /^(\d+)_init$/ ? ($1 => 1) : () } @names;
	my @files = sort grep { /^(\d+)(?:_(?:fsm|vm))?(?:\.\d+)?$/ && !$unlogged{$1} } @names;
	return @files;
}

sub file_of { my ($rel, %o) = @_; return "$dir/compute/" . $c->sql("SELECT pg_relation_filepath('$rel')", %o) }

sub heap_fetches
{
	my $plan = $c->sql(q{SET enable_seqscan = off; SET enable_bitmapscan = off;
		EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) SELECT count(*) FROM t WHERE v BETWEEN 'value 3' AND 'value 8'});
	return $plan =~ /Index Only Scan.*Heap Fetches: (\d+)/s ? $1 : die $plan;
}

my $same = q{
	SELECT 't', count(*), md5(string_agg(id || v || md5(big), ',' ORDER BY id)) FROM t;
	SELECT 'by index', count(*) FROM t WHERE v = 'value 77';
	SELECT 'gin', count(*) FROM words WHERE w @> ARRAY[7];
	SELECT 'class', count(*), md5(string_agg(concat(oid, relname, relkind, relnatts), ',' ORDER BY oid)) FROM pg_class WHERE oid >= 16384;
	SELECT 'empty', count(*) FROM empty;
	SELECT 'prepared', gid, database FROM pg_prepared_xacts ORDER BY gid;
	SELECT 'length', relname, pg_relation_size(oid) FROM pg_class WHERE relname IN ('t', 'empty', 'cut', 'words') ORDER BY 2;
	SELECT 'index', pg_relation_size('t_pkey'), pg_indexes_size('cut'), pg_relation_size('unseen') };
sub content { return $c->sql($same) . "\n" . $c->sql('SELECT count(*), sum(n) FROM u', db => 'second') }

sub sound
{
	my ($what) = @_;
	cmp_ok($c->sql(q{SELECT count(*) FROM (SELECT bt_index_check(c.oid, true) FROM pg_class c JOIN pg_am a ON a.oid = c.relam
		WHERE a.amname = 'btree' AND c.relkind = 'i' AND c.relpersistence = 'p' OFFSET 0) x}), '>', 100, "$what: indexes are sound");
	is($c->sql(q{SELECT c.relname, v.* FROM pg_class c, LATERAL verify_heapam(c.oid) v
		WHERE c.relkind IN ('r', 't') AND c.relpersistence = 'p'}), '', "$what: and tables");
	return;
}

# ---- what there is before

$c->sql(q{
	CREATE EXTENSION amcheck;
	CREATE TABLE t (id int PRIMARY KEY, v text, big text);
	INSERT INTO t SELECT g, 'value ' || g % 1000, CASE WHEN g % 50 = 0 THEN repeat(md5(g::text), 200) ELSE md5(g::text) END FROM generate_series(1, 20000) g;
	CREATE INDEX t_v ON t (v);
	CREATE TABLE words (w int[]);
	INSERT INTO words SELECT ARRAY[g % 10, g % 77] FROM generate_series(1, 3000) g;
	CREATE INDEX words_w ON words USING gin (w);
	CREATE TABLE empty (x int);
	CREATE TABLE cut AS SELECT g FROM generate_series(1, 5000) g;
	CREATE INDEX cut_g ON cut (g);
	DELETE FROM cut WHERE g > 100;
	CREATE TABLE unseen AS SELECT g FROM generate_series(1, 4000) g;
	CREATE SEQUENCE s;
	CREATE UNLOGGED TABLE un (id int PRIMARY KEY, x text);
	INSERT INTO un SELECT g, 'u' FROM generate_series(1, 1000) g;
	VACUUM t, cut, words;
});
$c->sql('CREATE DATABASE second');
$c->sql('CREATE DATABASE quiet');
$c->sql("CREATE TABLE $_ AS SELECT g FROM generate_series(1, 3000) g", db => 'quiet') foreach qw(dropped dropped_later shortened late away direct prepared);
$c->sql('CREATE TABLE u AS SELECT g AS n FROM generate_series(1, 3000) g; CREATE INDEX ON u (n); CREATE TABLE copied AS SELECT 1 AS x', db => 'second');
$c->sql('VACUUM FULL pg_class; VACUUM FULL pg_database');
my $given = $c->sql(q{SELECT max(nextval('s')) FROM generate_series(1, 100)});
$c->sql(q{BEGIN; INSERT INTO empty VALUES (1); PREPARE TRANSACTION 'p'});
# a map without a bit is in no WAL, and who runs beside may keep bits from being set
foreach (1 .. 100)
{
	last if $c->sql(q{SELECT relallvisible > 0 FROM pg_class WHERE relname = 't'}) eq 't';
	$c->sql('VACUUM t');
}
my $fetches = heap_fetches();
my $before = content();
my $size = $c->sql('SELECT pg_database_size(current_database())');
ok(replayed(), 'page servers have it');

# ---- made anew

my ($ok, $said) = lose_and_make();
ok($ok, 'a compute is made') or BAIL_OUT($said . $c->log_tail);
open my $marker, '<', "$dir/compute/neon_comm.skeleton" or die $!;
like(join('', <$marker>), qr/^lengths=asked$/m, 'the directory says that lengths are asked for');
my $second = $c->sql(q{SELECT oid FROM pg_database WHERE datname = 'second'});
is(join(' ', relation_files("base/$second")), '', 'a database that nobody has used has no files');
my @global = relation_files('global');
cmp_ok(scalar(@global), '>', 5, 'one that somebody has logged in to has them');
my $unseen = file_of('unseen');
ok(!-e $unseen, 'a table that nobody has read has none');
is(content(), $before, 'everything is as before');
ok(-e $unseen, 'a table whose length was asked has a file');
is((stat $unseen)[12], 0, '... without content');
is(heap_fetches(), $fetches, 'an index-only scan looks up as many rows as before');
cmp_ok($c->sql('SELECT pg_database_size(current_database())'), '>', $size * 0.9, 'the size of a database is that of all of it');
is($c->sql('SELECT count(*) FROM un'), 0, 'an unlogged table is empty');
cmp_ok($c->sql(q{SELECT nextval('s')}), '>', $given, 'a sequence gives no value twice');
cmp_ok($c->counter('lengths_asked'), '>', 50, 'it is counted');
sound('booted');

# ---- it goes on

$c->sql(q{
	COMMIT PREPARED 'p';
	INSERT INTO un SELECT g, 'u' FROM generate_series(1, 100) g;
	INSERT INTO t SELECT g, 'value ' || g % 1000, 'new' FROM generate_series(20001, 30000) g;
	UPDATE t SET v = 'changed' WHERE id % 100 = 0;
	CREATE TABLE fresh AS SELECT g FROM generate_series(1, 5000) g;
	CREATE INDEX ON fresh (g);
	CREATE TEMP TABLE temporary AS SELECT g FROM generate_series(1, 100) g;
	SELECT count(*) FROM temporary;
	VACUUM t;
});
$c->sql('TRUNCATE shortened; INSERT INTO shortened SELECT 1', db => 'quiet');
my $dropped = file_of('dropped', db => 'quiet');
ok(!-e $dropped, 'a table that was never used has no file');
$c->sql('DROP TABLE dropped', db => 'quiet');
ok(-e $dropped && -s $dropped == 0, 'its number stays taken when it is dropped');
$c->sql('CHECKPOINT');
ok(!-e $dropped, '... until the next checkpoint');
is($c->sql('SELECT count(*) FROM shortened', db => 'quiet'), 1, 'a table was truncated without having been read');

# databases are copied both ways, with tables that nobody has read here
$c->sql("CREATE DATABASE logged TEMPLATE second STRATEGY wal_log");
$c->sql("CREATE DATABASE files TEMPLATE second STRATEGY file_copy");
is($c->sql('SELECT sum(n), (SELECT count(*) FROM copied) FROM u', db => $_), '4501500|1', "a copy of a database: $_") foreach qw(logged files);
$c->sql('DROP DATABASE logged');
$c->sql('DROP DATABASE second');
is($c->sql('SELECT sum(n) FROM u', db => 'files'), '4501500', 'a copy outlives what it was made of');
sound('gone on');

# ---- kill -9: what was never used is right afterwards too

my $later = file_of('dropped_later', db => 'quiet');
$c->sql('CHECKPOINT');
$c->sql(q{INSERT INTO fresh SELECT g FROM generate_series(5001, 6000) g});
$c->sql(q{DROP TABLE dropped_later; DELETE FROM late WHERE g = 1}, db => 'quiet');
my $content = $c->sql($same);
my $taken = file_of('late', db => 'quiet');
my $length = -s $taken;
$c->kill9('compute');
# as if the machine had lost the name with its power; redo has records of it
unlink $taken or die $!;
# which would ask before
$c->append_conf('compute', 'recovery_prefetch = off');
$c->start('compute');
is(-s $taken, $length, 'redo of a table without a file asks for its length');
is($c->sql($same), $content, 'after kill -9 everything is there');
is($c->sql('SELECT count(*), sum(g) FROM fresh'), '6000|18003000', 'a table made since');
is($c->sql('SELECT count(*) FROM late', db => 'quiet'), 2999, 'a table first used since the checkpoint');
is($c->sql('SELECT sum(n) FROM u', db => 'files'), '4501500', 'a database copied since');
$c->sql('CHECKPOINT');
ok(!-e $later, 'what was dropped is not there');
sound('after kill -9');
$c->restart('compute');
is($c->sql($same), $content, 'and after a clean stop');

# ---- again, from that one: many sessions come at once, and then a page server is away

ok(replayed(), 'page servers have it all');
($ok, $said) = lose_and_make();
ok($ok, 'another compute is made') or diag($said);
my @sessions = map { $c->session } 1 .. 8;
$_->send('SELECT count(*), sum(id) FROM t') foreach @sessions;
is($_->wait, '30000|450015000', 'sessions that come first together') foreach @sessions;
my $waits = $c->session(db => 'quiet');
$waits->query(q{SET statement_timeout = '2s'; SELECT count(*) FROM late});
is($c->sql('SET neon_comm.mode = direct; SELECT count(*) FROM direct', db => 'quiet'), 3000, 'a length is asked for without the communicator');
$c->stop('page-server', 0);
like(($waits->try('SELECT count(*) FROM away'))[1], qr/canceling statement due to statement timeout/, 'without a page server the length is waited for');
$waits->send('SET statement_timeout = 0; SELECT count(*) FROM away');
$c->start('page-server', 0);
is($waits->wait, '3000', '... and it is there when that comes');
is($c->sql($same), $content, 'everything is the same');

# the end of a transaction that drops what nobody has used asks nobody: it must not fail
my $drops = $c->session(db => 'quiet');
my $away = file_of('shortened', db => 'quiet');
ok(!-e $away, 'a table has no file');
$drops->query('BEGIN');
$drops->query('DROP TABLE prepared');
$drops->query(q{PREPARE TRANSACTION 'drop'});
$drops->query('BEGIN');
$drops->query('DROP TABLE shortened');
$c->stop('page-server', 0);
is(($drops->try('COMMIT'))[1], '', 'without a page server it is dropped');
is(($drops->try(q{COMMIT PREPARED 'drop'}))[1], '', '... and so is what a prepared transaction drops');
$c->start('page-server', 0);
is($c->sql(q{SELECT count(*) FROM pg_class WHERE relname IN ('shortened', 'prepared')}, db => 'quiet'), 0, '... and gone');
$c->check_logs;
done_testing();
