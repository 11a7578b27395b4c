# Pages that arrive damaged, more often than they are asked for again: the read
# fails as on a bad disk, and when the link is good again so is every read.  The
# file cache keeps none of them, whoever brought it: a read, a session that
# ignores checksums, a prewarm.
use strict;
use warnings;

use Test::More;
use NeonComm::Cluster;
use NeonComm::Proxy;

my $c = NeonComm::Cluster->new(shards => 1, checksums => 1,
	conf => [ 'neon_comm.allow_unsafe=on', 'neon_comm.lfc_size=64MB', 'neon_comm.readahead_blocks=0', 'max_parallel_workers_per_gather=0',
		'neon_comm.hedged_reads=off', 'neon_comm.lfc_prewarm_workers=0', 'neon_comm.sweep_interval=1h', 'effective_io_concurrency=0' ]);
$c->allow_log(qr/invalid page in block|page verification failed/);
my $p = NeonComm::Proxy->new(seed => 11);
$c->use_proxy($p, 1);

$c->sql(q{CREATE TABLE t (id int, f text) WITH (fillfactor = 10);
	INSERT INTO t SELECT g, lpad(g::text, 700, '0') FROM generate_series(0, 1999) g;});
is($c->sql(q{SELECT pg_relation_size('t') / 8192}), 2000, 'a row in each block');
my $rel = $c->sql(q{SELECT pg_relation_filenode('t')});
my $good = q{SELECT count(*), count(*) FILTER (WHERE f = lpad(id::text, 700, '0')) FROM t};
sub row { return "SELECT id FROM t WHERE ctid = '($_[0],1)'" }

# Neither shared buffers nor the cache hold the table.
sub empty_cache
{
	$c->sql(q{CHECKPOINT; ALTER SYSTEM SET neon_comm.lfc_size_limit = 0; SELECT pg_reload_conf();});
	ok($c->wait_for(q{SELECT used_pages = 0 AND state = 'limit is 0' FROM neon_comm.lfc}), 'the cache is emptied');
	$c->evict;
	$c->sql(q{ALTER SYSTEM RESET neon_comm.lfc_size_limit; SELECT pg_reload_conf();});
	ok($c->wait_for(q{SELECT state = 'on' FROM neon_comm.lfc}), 'and on');
	return;
}

# ---- by a read, in the header and in the content
foreach my $at (60, 8000)
{
	empty_cache();
	my $s = $c->session;
	$s->query(row(1));
	my $bad = $p->rule("tag=getpage rel=$rel block=1000 corrupt=$at");
	my ($out, $err) = $s->try(row(1000));
	like($err, qr/invalid page in block 1000/, "byte $at: an error") or diag($out);
	is($p->fired($bad), 4, "byte $at: after four damaged answers");
	$p->clear;
	is($s->query(row(1000)), 1000, "byte $at: read again, it is right");
	is($c->sql($good), '2000|2000', "byte $at: so is all else");
	$s->close;
}
cmp_ok($c->counter('lfc_damaged'), '>=', 2, 'damaged pages were kept out');
is($c->counter('lfc_mismatches'), 0, 'and none got in');

# ---- by a session that ignores checksums
empty_cache();
my $s = $c->session;
my (undef, $refused) = $s->try('SET ignore_checksum_failure = on');
SKIP:
{
	skip 'no session may ignore checksums', 3 if $refused =~ /ERROR/;
	$s->query(row(1));
	my $bad = $p->rule("tag=getpage rel=$rel block=1200 corrupt=8000");
	my ($out, $err) = $s->try(row(1200));
	is($p->fired($bad), 4, 'the page is asked for again all the same');
	like($err, qr{page verification failed|ignoring checksum failure}, 'it is warned');
	$p->clear;
	$c->evict;
	is($c->sql(row(1200)), 1200, 'another session finds the page as it is');
}
$s->close;

# ---- by a prewarm
foreach (1 .. 100)
{
	is($c->sql($good), '2000|2000', 'all of the table');
	ok($c->wait_for('SELECT staged_pages = 0 FROM neon_comm.lfc'), 'is written to the cache');
	# a writer who does not get on leaves pages out
	last if $c->sql('SELECT used_pages > 1500 FROM neon_comm.lfc') eq 't';
}
my $saved = $c->sql('SELECT neon_comm.lfc_save()');
cmp_ok($saved, '>', 1000, 'and in the list');
empty_cache();
# a session that has read its catalogs before the link goes bad
$s = $c->session;
my $state = 'SELECT state FROM neon_comm.prewarm_progress';
is($s->query($state), 'none', 'no prewarm has run yet');
$s->query('PREPARE p AS SELECT neon_comm.lfc_prewarm(2)');
$s->query('EXPLAIN EXECUTE p');
my $rule = $p->rule('tag=getpage corrupt=8000');
$s->query('EXECUTE p');
foreach (1 .. 1200)
{
	last if $s->query($state) ne 'running';
	select(undef, undef, undef, 0.1);
}
isnt($s->query($state), 'running', 'a prewarm through a bad link ends');
cmp_ok($p->fired($rule), '>', 100, 'which damaged every page');
$p->clear;
is($c->sql('SELECT loaded FROM neon_comm.prewarm_progress'), 0, 'none counts as loaded');
cmp_ok($c->sql('SELECT failed FROM neon_comm.prewarm_progress'), '>', 0, 'but as failed');
$s->close;
is($c->sql($good), '2000|2000', 'the rows are right when the link is');
is($c->counter('lfc_mismatches'), 0, 'nothing damaged was found in the cache');
$c->check_logs;
done_testing();
