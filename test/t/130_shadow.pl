# neon_comm.verify = shadow: every page that comes back from a page server is
# compared with the bytes that were written; ordinary work shows no difference,
# a changed byte is found and both pages are kept.
use strict;
use warnings;

use Test::More;
use NeonComm::Cluster;

my $c = NeonComm::Cluster->new(checksums => 1, conf => ['neon_comm.verify=shadow'],
	ps_conf => ['neon_page_service.lazy_replay=on']);

# every access method of core, with what changes pages without WAL: hint bits,
# dead index items, prunable and all-visible pages
$c->sql(q{
	CREATE TABLE t (id int PRIMARY KEY, k int, p point, a int[], s text, d date);
	INSERT INTO t SELECT g, g % 97, point(g % 100, g / 100), ARRAY[g % 7, g % 11], 'row ' || g,
		date '2020-01-01' + g % 500 FROM generate_series(1, 12000) g;
	CREATE INDEX ON t USING hash (k);
	CREATE INDEX ON t USING gist (p);
	CREATE INDEX ON t USING gin (a);
	CREATE INDEX ON t USING spgist (s);
	CREATE INDEX ON t USING brin (d);});
foreach my $round (1 .. 3)
{
	$c->sql("UPDATE t SET k = k + 1, p = point(k, id), s = 'round $round ' || id WHERE id % 3 = $round - 1");
	$c->sql('DELETE FROM t WHERE id % 50 = ' . $round);
	$c->evict;
	$c->sql(q{SET enable_seqscan = off; SELECT count(*) FROM t WHERE k = 5; SELECT count(*) FROM t WHERE a @> '{3}';
		SELECT count(*) FROM t WHERE p <@ box '(0,0),(50,50)'; SELECT count(*) FROM t WHERE s LIKE 'round 1%';
		SELECT count(*) FROM t WHERE id BETWEEN 100 AND 3000; SELECT count(*) FROM t WHERE d < '2020-03-01';});
	$c->sql('VACUUM t');
	$c->evict;
	is($c->sql('SELECT count(*) FROM t'), 12000 - 240 * $round, "round $round: rows are right");
}
# blocks that were kept for a live transaction and given back
my $s = $c->session;
$s->query(q{BEGIN; CREATE TABLE own (v int, f text);
	INSERT INTO own SELECT g, repeat('o', 300) FROM generate_series(1, 4000) g;
	UPDATE own SET v = v + 1;});
$c->evict;
$s->query('COMMIT');
$s->close;
ok($c->wait_for(q{SELECT neon_comm.sweep() IS NOT NULL}), 'swept');
$c->evict;
is($c->sql('SELECT sum(v) FROM own'), 4000 * 4001 / 2 + 4000, 'rows of a transaction that was evicted');
cmp_ok($c->counter('verify_pages'), '>', 1000, 'pages were compared');
is($c->counter('verify_mismatches'), 0, 'none differed');

# after a crash everything is learned anew
$c->kill9('compute');
$c->start('compute');
is($c->sql('SELECT count(*) FROM t'), 11280, 'after a crash');
$c->evict;
is($c->sql('SELECT count(*) FROM t WHERE k IS NOT NULL'), 11280, 'and after evictions');
is($c->counter('verify_mismatches'), 0, 'none differed after a crash');

# a byte of the kept version is changed: the page read does not agree with it
$c->sql(q{CREATE TABLE victim (v int, f text); INSERT INTO victim SELECT g, repeat('v', 500) FROM generate_series(1, 2000) g; CHECKPOINT;});
$c->evict;
my $path = "$c->{dir}/compute/" . $c->sql(q{SELECT pg_relation_filepath('victim')});
is($c->sql('SELECT count(*) FROM victim'), 2000, 'the victim is read');
$c->evict;
open my $fh, '+<:raw', $path or die "$path: $!";
seek $fh, 3 * 8192 + 8000, 0 or die $!;
print $fh 'w';
close $fh or die $!;
my ($rc, undef, $err) = $c->try_sql('SELECT count(*) FROM victim');
isnt($rc, 0, 'the difference is an error');
$c->allow_log(qr/verification failed: block 3 of/);
like($err, qr/verification failed: block 3 of relation \S+ differs from the version that was written/, 'which names the block');
is($c->counter('verify_mismatches'), 1, 'and is counted');
my @dumps = glob "$c->{dir}/compute/neon_comm_mismatch/*";
is(scalar @dumps, 2, 'both pages are kept');
is(-s $_, 8192, 'a whole page') foreach @dumps;
is($c->sql('SELECT count(*) FROM t'), 11280, 'other tables go on');

cmp_ok($c->counter($_), '>', 0, "$_ moved") foreach qw(verify_learned);
$c->check_logs;
done_testing();
