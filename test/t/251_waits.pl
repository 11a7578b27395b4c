# Nobody holds what others need while he waits. Eight workers of a prewarm, stopped
# with all their pages on the way, leave reads into private memory alone, and come to
# an end however many they are. A wait for memory, or for the cache writer, has the
# deadline, the interrupts and the log line of any wait.
use strict;
use warnings;

use Test::More;
use NeonComm::TestPoint;
use NeonComm::Cluster;

my $c = NeonComm::Cluster->new(shards => 1, conf => [ 'neon_comm.lfc_size=64MB', 'neon_comm.lfc_prewarm_workers=0',
	'neon_comm.sweep_interval=1h', 'max_worker_processes=20', 'neon_comm.wait_log_period=100ms', 'neon_comm.readahead_blocks=0' ]);
my $p = NeonComm::TestPoint->new($c);
my $settled = 'SELECT staged_pages = 0 FROM neon_comm.lfc';

ok($c->wait_for(q{SELECT state = 'on' FROM neon_comm.lfc}), 'the cache is on');
$c->sql(q{CREATE TABLE t (id int, f text); INSERT INTO t SELECT g, repeat('t', 900) FROM generate_series(1, 20000) g;
	CREATE TABLE small AS SELECT * FROM t LIMIT 2000; CREATE TABLESPACE ts LOCATION ''; VACUUM t; VACUUM small;});
cmp_ok($c->sql(q{SELECT pg_relation_size('small')}), '>', 1024 * 1024, 'larger than shared buffers');
my $rel = $c->sql(q{SELECT pg_relation_filenode('t')});

sub empty_cache
{
	foreach my $mb (0, 64)
	{
		$c->sql("ALTER SYSTEM SET neon_comm.lfc_size_limit = $mb; SELECT pg_reload_conf()");
		ok($c->wait_for("SELECT limit_bytes = $mb * 1024 * 1024 AND state <> 'starting' FROM neon_comm.lfc"), "limit $mb MB");
	}
	return;
}
# its outbox holds 64 pages: so many a round, if it does nothing meanwhile
foreach (1 .. 100)
{
	$c->sql('SELECT count(*) FROM t');
	ok($c->wait_for($settled), 'the writer keeps up');
	last if $c->sql('SELECT used_pages FROM neon_comm.lfc') > 2000;
}
cmp_ok($c->sql('SELECT neon_comm.lfc_save()'), '>', 2000, 'a list for eight workers');

# They stop when all that they need is theirs; reads into private memory go on.
$c->evict;
empty_cache();
$p->pause('client-submitted', rel => $rel);
$c->sql('SELECT neon_comm.lfc_prewarm(8)');
$p->wait('client-submitted', 8);
my $bounced = $c->counter('reads_to_bounce');
my (undef, undef, $err) = $c->try_sql('SET statement_timeout = 60000; ALTER TABLE small SET TABLESPACE ts');
is($err, '', 'a table is copied beside them');
cmp_ok($c->counter('reads_to_bounce') - $bounced, '>', 64, 'page after page into private memory');
$p->disarm('client-submitted');
ok($c->wait_for(q{SELECT state = 'done' FROM neon_comm.prewarm_progress}), 'the prewarm ends');
is($c->sql('SELECT failed FROM neon_comm.prewarm_progress'), 0, 'without an error');

# Without test points in its way, round after round.
foreach my $round (1 .. 5)
{
	empty_cache();
	$c->sql('SELECT neon_comm.lfc_prewarm(8)');
	ok($c->wait_for(q{SELECT state <> 'running' FROM neon_comm.prewarm_progress}), "round $round ends");
	is($c->sql('SELECT state, failed FROM neon_comm.prewarm_progress'), 'done|0', 'well');
}

# No memory: the wait is one like any other.
my $s = $c->session;
$s->query('ALTER TABLE small SET TABLESPACE pg_default');
$c->evict;
empty_cache();
$p->true('client-no-bounce', pid => $s->pid);
my $from = length $c->log_text('compute');
# a page of a catalog may take as long on a busy machine: then once more
foreach (1 .. 20)
{
	(undef, $err) = $s->try(q{SET neon_comm.request_timeout = '1s'; ALTER TABLE small SET TABLESPACE ts});
	last if $err !~ /no answer from page servers/;
}
like($err, qr/no memory became free to receive block \d+ of relation/, 'a deadline');
ok($c->wait_log('compute', qr/still waiting for memory to receive block/, $from), 'a line in the log');
(undef, $err) = $s->try(q{RESET neon_comm.request_timeout; SET statement_timeout = '500ms'; ALTER TABLE small SET TABLESPACE ts});
like($err, qr/canceling statement due to statement timeout/, 'and interrupts');
$p->disarm('client-no-bounce');
(undef, $err) = $s->try(q{RESET statement_timeout; ALTER TABLE small SET TABLESPACE ts});
is($err, '', 'and when there is some it goes on');

# The cache writer stands: a prewarm waits for it, says so, and does not wait for ever.
$c->evict;
empty_cache();
$p->pause('lfc-writing');
$c->sql('SELECT count(*) FROM small');
$p->wait('lfc-writing');
# for the prewarm's workers, who give up after five such waits: who stops them has to be there before
$s->query(q{SET neon_comm.request_timeout = '1h'; SELECT neon_comm.lfc_prewarm_stop()});
$c->sql(q{ALTER SYSTEM SET neon_comm.request_timeout = '5s'; SELECT pg_reload_conf()});
$from = length $c->log_text('compute');
$s->query('SELECT neon_comm.lfc_prewarm(2)');
ok($c->wait_log('compute', qr/prewarm: still waiting for the cache writer/, $from), 'a line in the log');
ok($c->wait_log('compute', qr/prewarm: the cache writer does not get on/, $from), 'a deadline');
is($s->query('SELECT neon_comm.lfc_prewarm_stop()'), 't', 'and interrupts');
ok($c->wait_for(q{SELECT state = 'stopped' FROM neon_comm.prewarm_progress}), 'which end it');
$p->disarm('lfc-writing');
$c->sql(q{ALTER SYSTEM RESET neon_comm.request_timeout; SELECT pg_reload_conf()});
ok($c->wait_for($settled), 'the writer goes on');
is($c->sql('SELECT count(*) FROM t'), 20000, 'rows');

$s->close;
$c->check_logs;
undef $c;
done_testing();
