# Prewarm: the list of cached pages, saved on request or at a stop, fills the
# cache from page servers: after a crash by itself, and by functions; beside
# changes, without page servers, and for tables that are gone.
use strict;
use warnings;

use Test::More;
use NeonComm::Cluster;

my $c = NeonComm::Cluster->new(shards => 1, conf => ['neon_comm.lfc_size=64MB', 'autovacuum=off', 'neon_comm.sweep_interval=1h',
	# or the list is saved once more, for page servers
	'neon_comm.lfc_list_to_page_servers=off']);
my $rows = 'SELECT count(*), sum(n) FROM t';
my $done = q{SELECT state <> 'running' FROM neon_comm.prewarm_progress};

sub progress
{
	my %p;
	@p{qw(state workers total loaded skipped failed)} = split /\|/,
	  $c->sql('SELECT state, workers, total, loaded, skipped, failed FROM neon_comm.prewarm_progress');
	return \%p;
}

# a server takes queries before its cache has a file, and then it is that which is told
ok($c->wait_for(q{SELECT state = 'on' FROM neon_comm.lfc}), 'the cache is on');
is(progress()->{state}, 'none', 'no prewarm at the first start');
my (undef, undef, $err) = $c->try_sql('SELECT neon_comm.lfc_prewarm()');
like($err, qr/there is no list of pages/, 'without a list none can be started');
$c->sql(q{CREATE TABLE t (id int, n int, f text); CREATE TABLE gone (id int, n int, f text);
	INSERT INTO t SELECT g, 0, repeat('t', 400) FROM generate_series(1, 30000) g;
	INSERT INTO gone SELECT g, 0, repeat('g', 400) FROM generate_series(1, 10000) g;
});
ok($c->into_cache('SELECT count(*) FROM gone; SELECT count(*) FROM t'), 'both tables are cached');
my $saved = $c->sql('SELECT neon_comm.lfc_save()');
cmp_ok($saved, '>', 1500, 'the list is saved');

# After a crash the cache is filled by itself.
$c->kill9('compute');
$c->start('compute');
ok($c->wait_for(q{SELECT state = 'done' FROM neon_comm.prewarm_progress}), 'a prewarm runs after a crash');
my $p = progress();
is($p->{total}, $saved, 'of the saved list');
is($p->{loaded} + $p->{skipped}, $p->{total}, 'each page is loaded or skipped');
cmp_ok($p->{loaded}, '>', $saved * 0.8, 'nearly all are loaded');
is($p->{failed}, 0, 'none failed');
is($p->{workers}, 0, 'its workers have gone');
ok($c->wait_for('SELECT staged_pages = 0 FROM neon_comm.lfc'), 'all are written');
my $hits = $c->counter('lfc_hits');
my $remote = $c->counter('reads_remote');
is($c->sql($rows), '30000|0', 'rows');
cmp_ok($c->counter('lfc_hits') - $hits, '>', 1000, 'come from the cache');
# but for what was not loaded, what was not on the list, and catalogs
cmp_ok($c->counter('reads_remote') - $remote, '<', $p->{skipped} + 400, 'and not from page servers');

# After a clean stop the file itself is there, and nothing is to be done.
$c->restart('compute');
ok($c->wait_for(q{SELECT state = 'on' FROM neon_comm.lfc}), 'on');
is($c->sql($rows), '30000|0', 'rows');
is(progress()->{state}, 'none', 'no prewarm after a clean stop');

# Again, beside updates; a table of the list is dropped, another one truncated.
$c->sql('SELECT neon_comm.lfc_save()');
foreach my $round (1 .. 2)
{
	$c->sql(q{ALTER SYSTEM SET neon_comm.lfc_size_limit = 0; SELECT pg_reload_conf();});
	ok($c->wait_for(q{SELECT used_pages = 0 AND state = 'limit is 0' FROM neon_comm.lfc}), 'the cache is emptied');
	$c->sql(q{ALTER SYSTEM RESET neon_comm.lfc_size_limit; SELECT pg_reload_conf();});
	ok($c->wait_for(q{SELECT state = 'on' FROM neon_comm.lfc}), 'and on');
	$c->sql('DROP TABLE IF EXISTS gone') if $round == 2;
	$c->sql('SELECT neon_comm.lfc_prewarm(4)');
	$c->sql("UPDATE t SET n = n + 1 WHERE id % 3 = $round");
	$c->sql('DELETE FROM gone WHERE id > 100; VACUUM gone') if $round == 1;
	ok($c->wait_for($done), "round $round: prewarm ends");
	$p = progress();
	is($p->{state}, 'done', 'well');
	is($p->{loaded} + $p->{skipped} + $p->{failed}, $p->{total}, 'each page is accounted for');
	cmp_ok($p->{skipped}, '>', 300, 'pages that are gone are skipped') if $round == 2;
	is($p->{failed}, 0, 'and are no error');
	is($c->sql($rows), '30000|' . 10000 * $round, 'rows are exact');
}
is($c->counter('lfc_stale'), 0, 'nothing old was found');

# Without page servers it waits; one at a time; it can be stopped.
$c->sql(q{ALTER SYSTEM SET neon_comm.lfc_size_limit = 0; SELECT pg_reload_conf();});
ok($c->wait_for(q{SELECT used_pages = 0 AND state = 'limit is 0' FROM neon_comm.lfc}), 'emptied');
$c->sql(q{ALTER SYSTEM RESET neon_comm.lfc_size_limit; SELECT pg_reload_conf();});
ok($c->wait_for(q{SELECT state = 'on' FROM neon_comm.lfc}), 'and on');
my $s = $c->session;
my $state = 'SELECT state FROM neon_comm.prewarm_progress';
# what this session needs of catalogs is in its caches before the page server is gone
$s->query($_) foreach ($state, 'SELECT neon_comm.lfc_prewarm_stop()', 'EXPLAIN SELECT neon_comm.lfc_prewarm(2)');
$c->stop('page-server', 0);
$s->query('SELECT neon_comm.lfc_prewarm(2)');
is($s->query($state), 'running', 'without page servers it waits');
(undef, $err) = $s->try('SELECT neon_comm.lfc_prewarm(2)');
like($err, qr/a prewarm is running/, 'a second one is refused');
is($s->query('SELECT neon_comm.lfc_prewarm_stop()'), 't', 'it can be stopped');
foreach (1 .. 600)
{
	last if $s->query($state) ne 'running';
	select undef, undef, undef, 0.1;
}
is($s->query($state), 'stopped', 'while it waits');
$c->start('page-server', 0);
$c->sql('SELECT neon_comm.lfc_prewarm()');
ok($c->wait_for($done), 'and started again');
is(progress()->{state}, 'done', 'to its end');
is($c->sql('SELECT neon_comm.lfc_prewarm_stop()'), 'f', 'nothing is left to stop');
is($c->sql($rows), '30000|20000', 'rows');

$c->sql('CREATE ROLE joe; CREATE ROLE mon IN ROLE pg_monitor');
foreach my $q ('SELECT neon_comm.lfc_prewarm()', 'SELECT neon_comm.lfc_prewarm_stop()', 'SELECT neon_comm.lfc_save()')
{
	foreach my $role ('joe', 'mon')
	{
		(undef, undef, $err) = $c->try_sql("SET ROLE $role; $q");
		like($err, qr/permission denied/, "not for $role: $q");
	}
}
is($c->sql('SET ROLE mon; SELECT count(*) FROM neon_comm.prewarm_progress'), 1, 'pg_monitor may look');
is($c->counter('stale_answers'), 0, 'no answer was old');
$c->check_logs;
undef $c;
done_testing();
