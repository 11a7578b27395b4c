# A page that was asked for ahead and that another process changes before it is
# read must be read anew (rule staged_lsn; without it the old row comes back).
use strict;
use warnings;

use Test::More;
use NeonComm::Cluster;

my $c = NeonComm::Cluster->new(conf => [ 'neon_comm.async_reads=off', 'neon_comm.readahead_blocks=0' ]);

$c->sql(q{CREATE EXTENSION pg_prewarm;
	CREATE TABLE t (id int PRIMARY KEY, v int, f text) WITH (fillfactor = 50);
	INSERT INTO t SELECT g, 0, lpad(g::text, 700, '0') FROM generate_series(0, 1999) g;});
$c->sql('VACUUM t');

my $watch = $c->session;
sub counter { my ($name) = @_; return $watch->query("SELECT value FROM neon_comm.counters WHERE name = '$name'") }
counter('requests');

sub reader
{
	my $s = $c->session;
	$s->query(q{SET enable_indexscan = off; SET enable_bitmapscan = off;
		PREPARE ahead(int, int) AS SELECT pg_prewarm('t', 'prefetch', 'main', $1, $2);
		PREPARE one(int) AS SELECT id || ':' || v FROM t WHERE ctid = ('(' || $1 || ',1)')::tid;
		PREPARE block(int) AS SELECT count(*), sum(v) FROM t WHERE ctid >= ('(' || $1 || ',0)')::tid AND ctid < ('(' || $1 + 1 || ',0)')::tid;
		EXECUTE ahead(0, 0); EXECUTE one(0); EXECUTE block(0);});
	$s->pid;
	return $s;
}

# Asks ahead in an open transaction and waits until the pages are here.
sub ask_ahead
{
	my ($s, $first, $last) = @_;
	$c->evict;
	$s->query('EXECUTE ahead(0, 0)');
	my $n = $last - $first + 1;
	my $issued = counter('prefetch_issued');
	$s->query("BEGIN; EXECUTE ahead($first, $last)");
	is(counter('prefetch_issued') - $issued, $n, 'pages are asked for ahead');
	my $pid = $s->pid;
	$watch->query('SELECT 1')
	  until $watch->query("SELECT count(*) FROM neon_comm.slots WHERE pid = $pid AND state <> 'done'") == 0;
	return;
}

# The control: nothing changes, the pages are used.
my $s = reader();
ask_ahead($s, 100, 109);
my $hits = counter('prefetch_hits');
like($s->query("EXECUTE one($_)"), qr/:0$/, "block $_") foreach 100 .. 109;
is(counter('prefetch_hits') - $hits, 10, 'unchanged pages are used');
$s->query('COMMIT');

# Another process changes a page and evicts it.
foreach my $round (1 .. 3)
{
	my $first = 100 + 20 * $round;
	ask_ahead($s, $first, $first + 9);
	my $stale = counter('prefetch_stale');
	my $block = $first + 3;
	$c->sql("UPDATE t SET v = $round WHERE ctid >= '($block,0)' AND ctid < '(@{[ $block + 1 ]},0)'");
	$c->evict;
	my ($n, $sum) = split /\|/, $s->query("EXECUTE block($block)");
	is($sum, $n * $round, "round $round: a page changed since is read anew");
	cmp_ok(counter('prefetch_stale') - $stale, '>=', 1, 'and not taken from staging memory');
	$s->query('COMMIT');
}

# Truncated, and filled again with other rows.
{
	my $last = $c->sql(q{SELECT pg_relation_size('t') / 8192 - 1});
	my $first = $last - 9;
	ask_ahead($s, $first, $last);
	$c->sql("DELETE FROM t WHERE ctid >= '($first,0)'");
	# it passes by a page that somebody has just pinned to write it, and cuts nothing before that
	my $size = q{SELECT pg_relation_size('t') / 8192 - 1};
	for (my $n = 0; $n < 50 && $c->sql($size) >= $first; $n++) { $c->sql('VACUUM t') }
	cmp_ok($c->sql($size), '<', $first, 'the blocks are gone');
	$c->sql(q{INSERT INTO t SELECT g, 77, lpad(g::text, 700, '0') FROM generate_series(10000, 10199) g});
	$c->evict;
	my ($n, $sum) = split /\|/, $s->query("EXECUTE block($last)");
	is($sum, $n * 77, 'blocks that were truncated and come again are read anew');
	$s->query('COMMIT');
}

# Hint bits and all-visible flags alone: rows deleted and vacuumed away under it.
{
	ask_ahead($s, 300, 309);
	$c->sql("DELETE FROM t WHERE ctid >= '(305,0)' AND ctid < '(306,0)'");
	$c->sql('VACUUM t');
	$c->evict;
	is($s->query('EXECUTE block(305)'), '0|', 'a page that was vacuumed is read anew');
	$s->query('COMMIT');
}
is($c->sql('SET enable_seqscan = off; SELECT count(*) FROM t WHERE id >= 0'),
	$c->sql('SET enable_indexscan = off; SET enable_bitmapscan = off; SET enable_indexonlyscan = off; SELECT count(*) FROM t WHERE id >= 0'),
	'index and table agree');
is($c->counter($_), 0, "$_ is 0") foreach ('found_late', 'stale_answers', 'future_answers', 'connections_poisoned');
$c->check_logs;
done_testing();
