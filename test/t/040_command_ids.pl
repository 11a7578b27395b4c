# Statements that look at their own transaction's changes behave as in stock
# PostgreSQL although the pages they look at were evicted in between: heap WAL
# carries no command ids, so such pages must be kept (docs/local_pages.md,
# rule command_id).  Each case works on a table several times larger than shared
# buffers, so that every page is written and read back within the statement.
use strict;
use warnings;

use Test::More;
use NeonComm::Cluster;

my $c = NeonComm::Cluster->new(conf => ["max_prepared_transactions=5"]);

sub big_table
{
	my ($name) = @_;
	$c->sql("DROP TABLE IF EXISTS $name;
		CREATE TABLE $name (id int PRIMARY KEY, v int, filler text) WITH (fillfactor = 50);
		INSERT INTO $name SELECT g, 0, repeat('f', 400) FROM generate_series(1, 8000) g;");
	cmp_ok($c->sql("SELECT pg_relation_size('$name')"),
		'>', 3 * 1024 * 1024, "$name is larger than shared buffers");
	return;
}

# A cursor opened before an update of the same transaction does not see it.
big_table('cur');
is( $c->sql(q{
	BEGIN;
	INSERT INTO cur SELECT g, 0, repeat('n', 400) FROM generate_series(8001, 10000) g;
	DECLARE k CURSOR FOR SELECT sum(v), count(*) FROM cur;
	UPDATE cur SET v = v + 1;
	INSERT INTO cur SELECT g, 5, repeat('m', 400) FROM generate_series(10001, 12000) g;
	FETCH k;
	COMMIT;}),
	'0|10000', 'a cursor does not see later changes of its own transaction');
cmp_ok($c->counter('reads_local'), '>', 0, 'its pages came back from local blocks');
is($c->sql('SELECT sum(v), count(*) FROM cur'), '20000|12000', 'and they are there afterwards');

# INSERT .. SELECT from the same table ends.
big_table('self');
is( $c->sql(q{BEGIN;
	SET LOCAL statement_timeout = '120s';
	INSERT INTO self SELECT id + 100000, v, filler FROM self;
	INSERT INTO self SELECT id + 200000, v, filler FROM self;
	SELECT count(*) FROM self; COMMIT;}),
	32000, 'INSERT .. SELECT from itself inserts each row once');

# FOR UPDATE and then update: no row is lost.
big_table('lck');
is( $c->sql(q{BEGIN;
	INSERT INTO lck SELECT g, 0, repeat('l', 400) FROM generate_series(8001, 9000) g;
	SELECT count(*) FROM (SELECT * FROM lck FOR UPDATE) x;
	UPDATE lck SET v = v + 1;
	SELECT count(*) FROM (SELECT * FROM lck WHERE v = 1 FOR UPDATE) x;
	UPDATE lck SET v = v + 1 WHERE v = 1;
	SELECT count(*), min(v), max(v) FROM lck;
	COMMIT;}),
	"9000\n9000\n9000|2|2", 'FOR UPDATE followed by UPDATE reaches every row');

# Savepoints: combo command ids of rolled back and kept subtransactions.
big_table('svp');
is( $c->sql(q{BEGIN;
	UPDATE svp SET v = 1;
	SAVEPOINT a;
	UPDATE svp SET v = 2;
	DELETE FROM svp WHERE id % 2 = 0;
	ROLLBACK TO a;
	SELECT count(*), sum(v) FROM svp;
	SAVEPOINT b;
	UPDATE svp SET v = v + 10;
	RELEASE b;
	UPDATE svp SET v = v + 100;
	SELECT count(*), sum(v) FROM svp;
	COMMIT;}),
	"8000|8000\n8000|888000", 'savepoints see what they should');
is($c->sql('SELECT count(*), sum(v) FROM svp'), '8000|888000', 'and so does everyone after commit');

# ON CONFLICT in several sessions: speculative insertions are never seen twice.
$c->sql('CREATE TABLE upsert (k int PRIMARY KEY, n int, filler text);');
my $script = "$c->{dir}/upsert.sql";
open my $fh, '>', $script or die $!;
print $fh q{\set k random(1, 3000)
INSERT INTO upsert VALUES (:k, 1, repeat('u', 600)) ON CONFLICT (k) DO UPDATE SET n = upsert.n + 1;
};
close $fh;
my ($rc, $out, $err) = $c->pgbench('-n', '-c', 8, '-j', 2, '-t', 1500, '-f', $script);
is($rc, 0, 'ON CONFLICT under load') or diag($err);
is($c->sql('SELECT sum(n) FROM upsert'), 12000, 'every upsert counted once');
is($c->sql('SELECT count(*) = count(DISTINCT k) FROM upsert'), 't', 'no key twice');

cmp_ok($c->counter('writes_local_command_id'), '>', 0, 'pages were kept for their command ids');
$c->sql('SELECT neon_comm.sweep()');
is($c->sql(q{SELECT count(*) FROM neon_comm.local_blocks() WHERE reason = 'command id'}),
	0, 'and given back when nobody needs them');

# A prepared transaction survives a checkpoint and a stop; it needs nothing local.
big_table('prep');
$c->sql(q{BEGIN; UPDATE prep SET v = 7; INSERT INTO prep SELECT g, 7, 'p' FROM generate_series(8001, 8100) g;
	PREPARE TRANSACTION 'pt'; CHECKPOINT;});
$c->stop;
$c->start;
$c->sql("COMMIT PREPARED 'pt'");
is($c->sql('SELECT count(*), sum(v) FROM prep'), '8100|56700',
	'a prepared transaction over a checkpoint and a stop');

$c->check_logs;
done_testing();
