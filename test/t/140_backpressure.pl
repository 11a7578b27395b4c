# Backpressure: who writes WAL is slowed down while a page server is too far
# behind (docs/wal_feed.md).  Replay of one of two page servers is stopped (its
# startup process is frozen): it goes on receiving WAL and applies none.
#
# Without nc_throttle() the lag of the bulk insert goes beyond the bound; the
# test shows that itself, with the limit off.
use strict;
use warnings;

use Test::More;
use Time::HiRes qw(usleep);
use NeonComm::Cluster;

my $limit_mb = 8;

# Everything fits into shared buffers: nobody needs the frozen page server.
my $c = NeonComm::Cluster->new(buffers => '256MB', conf => [ "neon_comm.max_apply_lag=${limit_mb}MB",
	'synchronous_commit=off' ]);

sub replay
{
	my ($n, $signal) = @_;
	my $pm = $c->postmaster_pid("page_server_$n");
	my ($pid) = map { /^\s*(\d+)\s.*startup/ ? $1 : () } split /\n/, `ps -o pid=,args= --ppid $pm`;
	return kill $signal, $pid;
}
END { local $?; replay(1, 'CONT') if $c && -d $c->{dir} }

my $watch = $c->session;
my $lag = q{SELECT coalesce(max(lag_bytes), 0) FROM neon_comm.page_servers};
my $insert = q{INSERT INTO t SELECT g, repeat('x', 900) FROM generate_series(1, %d) g};
$c->sql('CREATE UNLOGGED TABLE warm (id int); INSERT INTO warm VALUES (1)');
$c->sql(q{CREATE TABLE t (id int, f text); CREATE TABLE big (id int, f text); CREATE TABLE seen (x int); INSERT INTO seen VALUES (1)});
my $s = $c->session;
my $pid = $s->pid;
$s->query(sprintf $insert, 10);
$s->query('UPDATE t SET f = f; DELETE FROM t; SELECT count(*) FROM seen');
$watch->query($lag);
$watch->query("SELECT wait_event_type FROM pg_stat_activity WHERE pid = $pid; SELECT pg_cancel_backend(0)");
$watch->query("SELECT name, throttles, write_lag_bytes, retained_bytes FROM neon_comm.page_servers");
sub counter { $watch->query("SELECT value FROM neon_comm.counters WHERE name = '$_[0]'") }

# What a statement does while it cannot end, until a condition holds.
sub until_true
{
	my ($what, $sql) = @_;
	foreach (1 .. 3000)
	{
		return pass($what) if $watch->query($sql) eq 't';
		usleep(20_000);
	}
	return fail($what);
}

until_true('page servers stream', q{SELECT bool_and(state = 'streaming') FROM neon_comm.page_servers});
is(counter('throttles'), 0, 'nobody pauses while page servers keep up');
is(replay(1, 'STOP'), 1, 'one page server stops to replay');

# A single statement, far more WAL than the limit.
$s->send(sprintf $insert, 400_000);
until_true('its writer pauses', q{SELECT value > 100000 FROM neon_comm.counters WHERE name = 'throttle_us'});
until_true('the pause is a wait that one can see',
	"SELECT wait_event_type = 'Extension' FROM pg_stat_activity WHERE pid = $pid");
until_true('the view names the slow one, and only that',
	q{SELECT string_agg(throttles::text, ',' ORDER BY name) = 'false,true' FROM neon_comm.page_servers});
until_true('which goes on receiving: the slowest in replay rules',
	q{SELECT bool_and(write_lag_bytes < lag_bytes) FROM neon_comm.page_servers WHERE throttles});
until_true('a pause of many sleeps', q{SELECT value > 20 FROM neon_comm.counters WHERE name = 'throttles'});
cmp_ok($watch->query($lag), '<', 3 * $limit_mb * 1024 * 1024, 'the lag stays near the limit');

# Whoever writes nothing is not slowed down.
my $reader = $c->session;
$reader->query('SELECT count(*) FROM seen');
my $before = counter('throttles');
is($watch->query("SELECT pg_cancel_backend($pid)"), 't', 'cancel');
$s->wait;
like($s->{last_error}, qr/canceling statement due to user request/, 'a pause can be cancelled');
$before = counter('throttles');
$reader->query('SELECT count(*) FROM seen') foreach 1 .. 20;
is(counter('throttles'), $before, 'readers do not pause');

# Each way to write has a place where it pauses.
my $rows = "$c->{dir}/rows";
open my $fh, '>', $rows or die $!;
print $fh "$_\t" . ('y' x 900) . "\n" foreach 1 .. 60_000;
close $fh;
foreach my $case (
	[ 'INSERT', sprintf $insert, 400_000 ],
	[ 'INSERT in a CTE', "WITH i AS ($insert RETURNING 1) SELECT count(*) FROM i" =~ s/%d/400000/r ],
	[ 'UPDATE of what is cached', q{DO $$BEGIN LOOP UPDATE seen SET x = x + 1; END LOOP; END$$} ],
	[ 'INSERT, row after row', q{DO $$BEGIN LOOP INSERT INTO t VALUES (1, repeat('z', 2000)); END LOOP; END$$} ],
	[ 'COPY', join(';', ("COPY big FROM '$rows'") x 30) ],
	[ 'CREATE TABLE AS', q{CREATE TABLE cta AS SELECT g, repeat('x', 900) FROM generate_series(1, 400000) g} ])
{
	my ($what, $sql) = @$case;
	my $n = counter('throttles');
	my $err;
	# once more with more time: it may have got no processor before it had written anything
	foreach my $ms (1500, 30_000)
	{
		(undef, $err) = $s->try("BEGIN; SET LOCAL statement_timeout = '${ms}ms'; $sql; ROLLBACK;");
		last if counter('throttles') > $n;
	}
	like($err, qr/statement timeout/, "$what: statement_timeout ends it");
	cmp_ok(counter('throttles'), '>', $n, "$what: it pauses");
	cmp_ok($watch->query($lag), '<', 4 * $limit_mb * 1024 * 1024, "$what: the lag stays near the limit");
}

# Slow is not stopped: small transactions end although replay does not move at all.
my $n = counter('throttles');
$s->query("INSERT INTO seen VALUES ($_)") foreach 1 .. 5;
is($s->query('SELECT count(*) FROM seen'), 6, 'small transactions go on');
is($watch->query(q{SELECT bool_or(throttles) FROM neon_comm.page_servers}), 't', 'while the limit is exceeded');

my $terminated = $c->session;
my $tpid = $terminated->pid;
$terminated->send(sprintf $insert, 400_000);
until_true('another writer pauses',
	"SELECT wait_event_type = 'Extension' FROM pg_stat_activity WHERE pid = $tpid");
$watch->query("SELECT pg_terminate_backend($tpid)");
$terminated->wait;
like($terminated->{last_error}, qr/terminating connection/, 'a pause ends with its backend');

# With the limit off the same load goes far beyond it; a reload reaches a statement that runs.
$s->send(sprintf $insert, 400_000);
until_true('a statement pauses',
	"SELECT wait_event_type = 'Extension' FROM pg_stat_activity WHERE pid = $pid");
$watch->query('ALTER SYSTEM SET neon_comm.max_apply_lag = 0');
$watch->query('SELECT pg_reload_conf()');
until_true('without a limit the lag grows',
	'SELECT max(lag_bytes) > ' . 6 * $limit_mb * 1024 * 1024 . ' FROM neon_comm.page_servers');
$watch->query("SELECT pg_cancel_backend($pid)");
$s->wait;

# A page server that catches up lets writers go on, without WAL that would make it tell where it is.
$watch->query('ALTER SYSTEM RESET neon_comm.max_apply_lag');
$watch->query('SELECT pg_reload_conf()');
until_true('the limit is back', q{SELECT bool_or(throttles) FROM neon_comm.page_servers});
replay(1, 'CONT');
until_true('and the page server catches up', q{SELECT NOT bool_or(throttles) FROM neon_comm.page_servers});
$s->query('TRUNCATE t');
$s->query(sprintf $insert, 2000);
is($c->sql('SELECT count(*), sum(id) FROM t'), '2000|2001000', 'rows');
like($c->log_text('compute'), qr/page server "page_server_1" is \d+ MB behind, writers are slowed down/,
	'the log says so');

# A page server that is away stops nobody, but is warned of, until a limit says otherwise.
# (its queries have run once: their catalog pages may be its own)
$watch->query($_) foreach q{SELECT retained_bytes > 16 * 1024 * 1024 FROM neon_comm.page_servers WHERE name = 'page_server_1'},
  q{SELECT throttles FROM neon_comm.page_servers WHERE name = 'page_server_1'},
  q{SELECT state = 'absent' FROM neon_comm.page_servers WHERE name = 'page_server_1'}, 'SELECT pg_switch_wal()';
$c->stop('page-server', 1);
until_true('page server 1 is away', q{SELECT state = 'absent' FROM neon_comm.page_servers WHERE name = 'page_server_1'});
$watch->query("ALTER SYSTEM SET neon_comm.$_") foreach 'max_apply_lag = 0', 'wal_feed_warn = 16', 'max_retained_wal = 1';
$watch->query('SELECT pg_reload_conf()');
$s->query('TRUNCATE t');
# It is the feed that has to know them, or the other page server may be too far behind for the old limit.
# More than a segment is kept: so it shows that it has them, and then that it has let go of the last one.
foreach (1 .. 2)
{
	$s->query('INSERT INTO seen VALUES (0)');
	$watch->query('SELECT pg_switch_wal()');
}
until_true('settings are in force', q{SELECT throttles FROM neon_comm.page_servers WHERE name = 'page_server_1'});
$watch->query('ALTER SYSTEM RESET neon_comm.max_retained_wal');
$watch->query('SELECT pg_reload_conf()');
until_true('and this one is not any more', q{SELECT NOT throttles FROM neon_comm.page_servers WHERE name = 'page_server_1'});
$before = counter('throttles');
$s->query(sprintf $insert, 24_000);
until_true('WAL is kept for it',
	q{SELECT retained_bytes > 16 * 1024 * 1024 FROM neon_comm.page_servers WHERE name = 'page_server_1'});
is(counter('throttles'), $before, 'and nobody waits for it');
foreach (1 .. 600)
{
	last if $c->log_text('compute') =~ /"page_server_1" holds back \d+ MB of WAL/;
	usleep(100_000);
}
like($c->log_text('compute'),
	qr/page server "page_server_1" holds back \d+ MB of WAL.*\n.*It is not connected; pg_wal has \d+ MB of free space/,
	'the log warns of what it holds back');
$watch->query('ALTER SYSTEM SET neon_comm.max_retained_wal = 16');
$watch->query('SELECT pg_reload_conf()');
until_true('max_retained_wal counts it', q{SELECT throttles FROM neon_comm.page_servers WHERE name = 'page_server_1'});
my ($out, $err) = $s->try("SET statement_timeout = '2s'; " . sprintf($insert, 400_000));
like($err, qr/statement timeout/, 'then writers are slowed down');
cmp_ok(counter('throttles'), '>', $before, 'by pauses');
$c->start('page-server', 1);
until_true('until it is back', q{SELECT NOT bool_or(throttles) FROM neon_comm.page_servers});
$s->query('RESET statement_timeout; TRUNCATE t');
$s->query(sprintf $insert, 1000);
is($c->sql('SELECT count(*), sum(id) FROM t'), '1000|500500', 'rows at the end');

# A rule's statement is the query and at the same time one of its auxiliary nodes.
is($c->sql(q{SET statement_timeout = '30s'; CREATE TABLE rt (a int); CREATE VIEW rv AS SELECT * FROM rt;
	CREATE RULE r1 AS ON INSERT TO rv DO INSTEAD INSERT INTO rt VALUES (NEW.a);
	CREATE RULE r2 AS ON INSERT TO rv DO ALSO INSERT INTO rt SELECT NEW.a + 100;
	INSERT INTO rv VALUES (1), (2); SELECT count(*), sum(a) FROM rt}), '4|206', 'rules insert what they should');
$c->check_logs;
done_testing();
