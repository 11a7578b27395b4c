# Crash recovery with page servers far behind the redo point, exactly at it and
# ahead of it; without any, when it waits, says so and can be stopped in each
# way; and crashes during recovery, again and again.  Recovery runs with 1 MB of
# shared buffers, so that it needs pages; everything else with enough for the
# tables, so that it does not.  (docs/faults.md, rows 51 and 53.)
use strict;
use warnings;

use Test::More;
use Time::HiRes qw(usleep);
use NeonComm::Cluster;

my $c = NeonComm::Cluster->new(buffers => '64MB',
	conf => [ 'neon_comm.wait_log_period=1s', 'checkpoint_timeout=1h', 'max_wal_size=1GB', 'restart_after_crash=on' ]);
my @frozen;
END { local $?; kill 'CONT', @frozen if @frozen }

$c->sql(q{CREATE EXTENSION amcheck;
	CREATE TABLE acc (id int PRIMARY KEY, n int, f text) WITH (fillfactor = 40);
	INSERT INTO acc SELECT g, 0, repeat('x', 300) FROM generate_series(1, 20000) g;
	CREATE TABLE log (n int, id int); CREATE INDEX ON log (id)});
cmp_ok($c->sql(q{SELECT pg_relation_size('acc')}), '>', 8 * 1024 * 1024, 'the table is larger than the buffers of recovery');
my $n = 0;

# The session that works, whose catalog lookups are done before page servers go away.
my $w;

# Three changes of each page, the first with its full image, in an order that comes back to each.
sub work
{
	foreach (1 .. 3)
	{
		$n++;
		$w->query("UPDATE acc SET n = n + 1; INSERT INTO log SELECT $n, g FROM generate_series(1, 2000) g");
	}
	return;
}

my $behind = q{SELECT bool_and((apply_lsn < redo_lsn) IS TRUE) FROM neon_comm.page_servers, pg_control_checkpoint()};
my $applied = q{SELECT bool_and((apply_lsn = pg_current_wal_lsn()) IS TRUE) FROM neon_comm.page_servers};
my $at_redo = q{SELECT bool_and((apply_lsn = redo_lsn) IS TRUE) FROM neon_comm.page_servers, pg_control_checkpoint()};
sub warm
{
	$w = $c->session;
	work();
	$w->query($_) foreach $behind, $applied, $at_redo, 'SELECT count(n), max(id), count(f) FROM acc', 'CHECKPOINT';
	return;
}

sub until_applied
{
	my ($what) = @_;
	foreach (1 .. 600)
	{
		return pass("$what: all is applied") if $w->query($applied) eq 't';
		usleep(100_000);
	}
	return fail("$what: all is applied");
}

sub right
{
	my ($what) = @_;
	is($c->sql('SELECT count(*), min(n), max(n) FROM acc'), "20000|$n|$n", "$what: rows");
	is($c->sql('SELECT count(*), count(DISTINCT n) FROM log'), 2000 * $n . "|$n", "$what: all commits");
	is($c->sql(q{SELECT bt_index_check('acc_pkey', true), bt_index_check('log_id_idx', true)}), '|', "$what: indexes");
	return;
}

sub buffers { $c->append_conf('compute', "shared_buffers = $_[0]"); return }

# Starts the compute in the background and waits until its recovery waits for a page.
sub start_waiting
{
	my ($what) = @_;
	my $out = '';
	my $from = length $c->log_text('compute');
	my $h = $c->background(\$out, 'neon_dev', 'start', '-D', $c->{dir}, '--quiet', 'compute', '-t', 300);
	ok($c->wait_log('compute', qr/startup LOG:  still waiting for page servers: block \d+ of relation/, $from),
		"$what: recovery waits for page servers and says so");
	return ($h, $from);
}

sub back_to_normal
{
	undef $w;
	buffers('64MB');
	$c->restart('compute');
	warm();
	return;
}

# ---- far behind: page servers are away for two checkpoints
warm();
$c->stop('page-server', $_) foreach 0, 1;
work();
$w->query('CHECKPOINT');
work();
$w->query('CHECKPOINT');
work();
is($w->query($behind), 't', 'far behind: page servers are');
$c->kill9('compute');
buffers('1MB');

# ... and unreachable: it has no deadline, and each way to stop works
$c->append_conf('compute', "neon_comm.request_timeout = '1s'");
foreach my $mode ('fast', 'immediate', 'smart')
{
	my ($h, $from) = start_waiting("unreachable, $mode");
	ok($c->wait_log('compute', qr/Waited [3-9] s for not_modified_since/, $from), 'unreachable: it waits on after request_timeout')
	  if $mode eq 'fast';
	my ($ok, $out) = $c->try_dev('stop', '-D', $c->{dir}, 'compute', '--mode', $mode, '-t', 300);
	ok($ok, "unreachable: $mode stop ends a recovery that waits") or diag($out);
	eval { $h->finish };
}
$c->append_conf('compute', "neon_comm.request_timeout = '2min'");

# ... the process crashes: recovery begins again, under the same postmaster or another
my ($h, $from) = start_waiting('crash');
my $pm = $c->postmaster_pid('compute');
foreach my $victim ('communicator', 'WAL feed')
{
	my $pid;
	# recovery may wait before all whom it waits for have been started
	foreach (1 .. 1200)
	{
		last if ($pid) = $c->pids_of('compute', qr/neon_comm $victim/);
		usleep(50_000);
	}
	$from = length $c->log_text('compute');
	kill 'KILL', $pid;
	ok($c->wait_log('compute', qr/all server processes terminated; reinitializing/, $from), "$victim killed in recovery");
	ok($c->wait_log('compute', qr/startup LOG:  still waiting for page servers/, $from), "$victim killed: recovery waits again");
	is($c->postmaster_pid('compute'), $pm, "$victim killed: under the same postmaster");
}
# told to end, the feed stays and a communicator comes back: recovery needs them
my @feed = $c->pids_of('compute', qr/neon_comm WAL feed/);
$from = length $c->log_text('compute');
kill 'TERM', $c->pids_of('compute', qr/neon_comm (communicator|WAL feed)/);
ok($c->wait_log('compute', qr/communicator: started/, $from), 'told to end in recovery: a communicator comes back');
$from = length $c->log_text('compute');
ok($c->wait_log('compute', qr/startup LOG:  still waiting for page servers/, $from), 'told to end in recovery: it goes on');
is(join(',', $c->pids_of('compute', qr/neon_comm WAL feed/)), join(',', @feed), 'told to end in recovery: the feed stays');
# reloads meanwhile
kill 'HUP', $pm foreach 1 .. 20;
$c->kill9('compute');
eval { $h->finish };
($h, $from) = start_waiting('killed in recovery');

# only one page server comes, then the other
$c->start('page-server', 0);
$c->start('page-server', 1);
ok($h->finish, 'far behind: recovery ends when page servers are there');
right('far behind');

# ---- killed while it replays, again and again
sub to_recover
{
	back_to_normal();
	work() foreach 1 .. 2;
	$c->kill9('compute');
	buffers('1MB');
	return;
}
to_recover();
my $interrupted = 0;
foreach my $round (1 .. 20)
{
	my $out = '';
	last if $round > 4 && $interrupted > 0;
	# who was too late each time finds nothing to replay any more
	if ($round > 4)
	{
		$c->start('compute');
		to_recover();
	}
	$from = length $c->log_text('compute');
	$h = $c->background(\$out, 'neon_dev', 'start', '-D', $c->{dir}, '--quiet', 'compute', '-t', 300);
	ok($c->wait_log('compute', qr/redo starts at|ready to accept connections/, $from), "round $round: redo starts");
	usleep(30_000 * ($round % 5));
	# at once; neon_dev takes a while and makes sure
	kill 'KILL', $c->postmaster_pid('compute'), $c->pids_of('compute', qr/./);
	$c->kill9('compute');
	$interrupted++ if substr($c->log_text('compute'), $from) !~ /ready to accept connections/;
	eval { $h->finish };
}
cmp_ok($interrupted, '>', 0, 'recovery was interrupted');
$c->start('compute');
right('killed while it replays');

# ---- exactly at the redo point: replay of page servers stops before the checkpoint
back_to_normal();
work();
# somebody may write WAL in between, as the background writer does about running transactions: then once more
foreach (1 .. 20)
{
	until_applied('exactly at');
	@frozen = map { $c->pids_of($_, qr/startup/) } 'page_server_0', 'page_server_1';
	is(kill('STOP', @frozen), 2, 'exactly at: replay stops');
	$w->query('CHECKPOINT');
	last if $w->query($at_redo) eq 't';
	kill 'CONT', @frozen;
}
is($w->query($at_redo), 't', 'exactly at: page servers are at the redo point');
work();
$c->kill9('compute');
kill 'CONT', @frozen;
@frozen = ();
buffers('1MB');
$c->start('compute');
right('exactly at');

# ---- ahead: page servers have applied all there is, recovery starts long before
back_to_normal();
work();
# page servers do not have this one any more when its WAL is replayed
$w->query($_) foreach q{CREATE TABLE gone AS SELECT g, repeat('x', 400) AS f FROM generate_series(1, 8000) g},
  'UPDATE gone SET g = g + 1', 'UPDATE gone SET g = g + 1', 'DROP TABLE gone';
until_applied('ahead');
$c->kill9('compute');
buffers('1MB');
$c->start('compute');
right('ahead');
cmp_ok($c->counter('reads_zero_recovery'), '>', 0, 'ahead: pages of a table that is gone are zeroes to redo');
ok($c->wait_for(q{SELECT bool_and(state = 'streaming') FROM neon_comm.page_servers}), 'page servers stream at the end');
is($c->counter('stale_answers') + $c->counter('future_answers'), 0, 'no answer was refused');
$c->allow_log(qr/was terminated by signal 9/);
$c->check_logs;
done_testing();
