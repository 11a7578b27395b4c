# Races and faults of the local file cache, arranged by test points: a place
# that changes between lookup and read, a page that changes while the writer or
# a prewarm is at it, errors of the disk.
use strict;
use warnings;

use Test::More;
use NeonComm::TestPoint;
use NeonComm::Cluster;

my $c = NeonComm::Cluster->new(shards => 1,
	conf => ['neon_comm.lfc_size=32MB', 'autovacuum=off', 'neon_comm.lfc_prewarm_workers=0']);
my $p = NeonComm::TestPoint->new($c);
my $rows = 'SELECT count(*), sum(n) FROM t';

ok($c->wait_for(q{SELECT state = 'on' FROM neon_comm.lfc}), 'the cache is on');
$c->sql(q{CREATE TABLE t (id int, n int, f text);
	INSERT INTO t SELECT g, 0, repeat('t', 400) FROM generate_series(1, 10000) g;
	CREATE TABLE u AS SELECT * FROM t; VACUUM t;});
$c->sql($rows);
my $settled = 'SELECT staged_pages = 0 FROM neon_comm.lfc';
ok($c->wait_for($settled), 'the writer keeps up');

sub limit
{
	my ($mb) = @_;
	$c->sql("ALTER SYSTEM SET neon_comm.lfc_size_limit = $mb; SELECT pg_reload_conf()");
	ok($c->wait_for("SELECT limit_bytes = $mb * 1024 * 1024 FROM neon_comm.lfc"), "limit $mb MB");
	# the limit is told before there is a file
	ok($c->wait_for(q{SELECT state = 'on' FROM neon_comm.lfc}), 'the cache is on') if $mb > 0;
	return;
}

# A reader stops between lookup and read, and after it; meanwhile all places get other pages.
my $s = $c->session;
$s->query($rows);
foreach my $point ('lfc-found', 'lfc-was-read')
{
	$c->evict;
	# a page that is staged still is copied, and nobody reads the file for it
	ok($c->wait_for($settled), "$point: pages are in the file");
	$p->pause($point, pid => $s->pid, times => 1);
	$s->send($rows);
	$p->wait($point);
	limit(0);
	limit(32);
	$c->sql('SELECT count(*), sum(n) FROM u') foreach 1 .. 2;
	ok($c->wait_for($settled), "$point: other pages are in the file");
	is($p->wake($point), 1, "$point: a reader was stopped");
	is($s->wait, '10000|0', "$point: its rows are right");
	$p->disarm($point);
}
is($c->counter('lfc_mismatches'), 0, 'a place that has changed meanwhile is not taken for damage');

# The writer stops with a page in its hands; a newer version of it is evicted.
$c->sql($rows);
ok($c->wait_for($settled), 'the writer keeps up');
$p->pause('lfc-writing', times => 1);
$c->sql('UPDATE t SET n = n + 1 WHERE id <= 2000; CHECKPOINT; SELECT neon_comm.sweep();');
$c->evict;
$p->wait('lfc-writing');
foreach my $n (2 .. 4)
{
	$c->sql('UPDATE t SET n = n + 1 WHERE id <= 2000; CHECKPOINT; SELECT neon_comm.sweep();');
	$c->evict;
	is($c->sql($rows), '10000|' . 2000 * $n, "the writer stands: update $n is read back");
}
cmp_ok($c->counter('lfc_drops'), '>', 0, 'pages were dropped, nobody waited');
$p->wake('lfc-writing');
$p->disarm('lfc-writing');
ok($c->wait_for($settled), 'the writer goes on');
is($c->sql($rows), '10000|8000', 'and rows are right');

# A prewarm has read pages; before it fills they are changed, truncated, dropped.
foreach my $how ('changed', 'truncated', 'dropped')
{
	$c->sql('CREATE TABLE v AS SELECT g AS id, 0 AS n, repeat($$v$$, 1500) AS f FROM generate_series(1, 60) g; VACUUM v;');
	$c->evict;
	# a page that comes while the writer is behind is dropped, and is not in the list then
	ok($c->wait_for($settled), 'the writer keeps up');
	$c->sql('SELECT count(*) FROM v');
	ok($c->wait_for($settled), 'the writer keeps up with what is to be saved');
	$c->sql('SELECT neon_comm.lfc_save()');
	limit(0);
	limit(32);
	my $skipped = q{SELECT skipped FROM neon_comm.prewarm_progress};
	# only pages of v: they are in its hands
	$p->pause('prewarm-was-read', rel => $c->sql(q{SELECT pg_relation_filenode('v')}));
	$c->sql('SELECT neon_comm.lfc_prewarm(1)');
	$p->wait('prewarm-was-read');
	$c->sql('UPDATE v SET n = n + 1; CHECKPOINT; SELECT neon_comm.sweep();') if $how eq 'changed';
	$c->sql('DELETE FROM v WHERE id > 2; VACUUM v; INSERT INTO v SELECT g, 7, $$new$$ FROM generate_series(3, 60) g;') if $how eq 'truncated';
	$c->sql('DROP TABLE v') if $how eq 'dropped';
	my $before = $c->sql($skipped);
	$p->disarm('prewarm-was-read');
	ok($c->wait_for(q{SELECT state = 'done' FROM neon_comm.prewarm_progress}), "$how: the prewarm ends");
	cmp_ok($c->sql($skipped), '>', $before, "$how: what it had read was not taken");
	$c->sql('SELECT neon_comm.sweep()');
	$c->evict;
	my $want = $how eq 'changed' ? '60|60' : '60|406';
	is($c->sql('SELECT count(*), sum(n) FROM v'), $want, "$how: rows are right") if $how ne 'dropped';
	$c->sql('DROP TABLE IF EXISTS v');
	is($c->sql($rows), '10000|8000', "$how: others too");
}
is($c->counter('lfc_stale'), 0, 'nothing old was found');

# Faults of the disk.
foreach my $fault ([ 'lfc-write', 'ENOSPC' ], [ 'lfc-write', 'EIO' ], [ 'lfc-read', 'EIO' ])
{
	my ($point, $errno) = @$fault;
	my $errors = $c->counter('lfc_errors');
	$c->sql($rows);
	ok($c->wait_for($settled), 'the writer keeps up');
	$p->fail($point, $errno);
	$c->sql('UPDATE u SET n = n + 1');
	is($c->sql($rows), '10000|8000', "$point $errno: rows are right");
	ok($c->wait_for(q{SELECT state = 'failed' FROM neon_comm.lfc}), "$point $errno: the cache is off");
	cmp_ok($c->counter('lfc_errors'), '>', $errors, 'the error is counted');
	cmp_ok(-s "$c->{dir}/compute/neon_comm.lfc", '<=', 8192, 'its room is given back, but for the block that names its owner');
	is($c->sql($rows), '10000|8000', "$point $errno: rows without it");
	$p->disarm($point);
	$c->sql('SELECT pg_reload_conf()');
	ok($c->wait_for(q{SELECT state = 'on' FROM neon_comm.lfc}), 'on again after a reload');
	# pages that come while the writer is behind are dropped, and come when they are read again
	my $found = 0;
	foreach (1 .. 100)
	{
		my $hits = $c->counter('lfc_hits');
		is($c->sql($rows), '10000|8000', 'rows');
		last if ($found = $c->counter('lfc_hits') - $hits) > 100;
		$c->wait_for($settled);
	}
	cmp_ok($found, '>', 100, 'from the cache');
}
# It is tried again without a reload too; here not after half a minute, but soon.
my $from = length $c->log_text('compute');
$p->true('lfc-retry-soon');
$p->fail('lfc-write', 'ENOSPC', times => 1);
$c->sql('UPDATE u SET n = n + 1');
ok($c->wait_log('compute', qr/the local file cache is on again/, $from), 'on again by itself');
is($c->sql($rows), '10000|8000', 'rows');

# A process that has no descriptor left goes without, and others do not mind.
$p->fail('lfc-open', 'EMFILE');
is($c->sql($rows), '10000|8000', 'no descriptor: rows are right');
is($c->sql('SELECT state FROM neon_comm.lfc'), 'on', 'the cache stays on');
$p->disarm_all;
$c->check_logs;
undef $c;
done_testing();
