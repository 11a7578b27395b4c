# A btree page that a split marked with the cycle id of a running VACUUM is kept
# as long as that VACUUM runs: redo of a split zeroes the mark, and VACUUM would
# not follow the split back to an earlier block (rule cycle_id).
use strict;
use warnings;

use Test::More;
use NeonComm::Cluster;

my $c = NeonComm::Cluster->new;

$c->sql(q{CREATE TABLE t (k text, n int) WITH (autovacuum_enabled = off);
	CREATE INDEX t_k ON t (k);
	INSERT INTO t SELECT md5(g::text) || repeat('k', 60), g FROM generate_series(1, 30000) g;
	DELETE FROM t WHERE n % 7 = 0;});
cmp_ok($c->sql(q{SELECT pg_relation_size('t_k')}), '>', 2 * 1024 * 1024, 'index larger than shared buffers');

# A VACUUM that does not come to the end of the index, watched by its progress: an index-only scan
# holds the page at which it stands, and VACUUM wants each page for itself.
my $holder = $c->session;
is($holder->query(q{SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_sort = off;
	BEGIN; DECLARE hold CURSOR FOR SELECT k FROM t WHERE k > 'f' ORDER BY k; FETCH hold;}) =~ /^f/ ? 1 : 0, 1, 'a page of the index is held');
like($holder->query(q{EXPLAIN SELECT k FROM t WHERE k > 'f' ORDER BY k}), qr/Index Only Scan/, 'by an index-only scan');
my $v = $c->session;
my $vpid = $v->pid;
$v->send('VACUUM (INDEX_CLEANUP on) t');
ok($c->wait_for("SELECT count(*) = 1 FROM pg_stat_progress_vacuum WHERE pid = $vpid AND phase = 'vacuuming indexes'"),
	'VACUUM works on the index');
my $kept = 0;
foreach my $round (1 .. 20)
{
	$c->sql("INSERT INTO t SELECT md5((g * 31 + $round)::text) || repeat('k', 60), 100000 + g FROM generate_series(1, 500) g; CHECKPOINT");
	$kept = $c->counter('writes_local_vacuum_cycle');
	last if $kept > 0 || $v->ready;
}
cmp_ok($kept, '>', 0, 'pages split while VACUUM ran were kept');
$c->sql('SELECT neon_comm.sweep()');
cmp_ok($c->sql(q{SELECT count(*) FROM neon_comm.local_blocks() WHERE reason = 'vacuum cycle id'}),
	'>', 0, 'the sweeper leaves them while VACUUM runs');
ok(!$v->ready, 'which it does');
$c->sql("SELECT pg_cancel_backend($vpid)");
$v->wait;
like($v->{last_error}, qr/canceling statement/, 'until it is cancelled');
$holder->close;
$c->sql('SELECT txid_current(); SELECT neon_comm.sweep()');
is($c->sql(q{SELECT count(*) FROM neon_comm.local_blocks() WHERE reason = 'vacuum cycle id'}),
	0, 'and gives them back afterwards');
is( $c->sql(q{SET enable_seqscan = off; SET enable_bitmapscan = off; SELECT count(*), sum(n) FROM t WHERE k > ''}),
	$c->sql(q{SET enable_indexscan = off; SET enable_bitmapscan = off; SET enable_indexonlyscan = off; SELECT count(*), sum(n) FROM t WHERE k > ''}),
	'index and heap agree');
$c->sql('CREATE EXTENSION amcheck');
is($c->sql(q{SELECT bt_index_parent_check('t_k', true)}), '', 'index is sound');
$v->close;
$c->check_logs;
done_testing();
