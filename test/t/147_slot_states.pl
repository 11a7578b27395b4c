# The communicator is restarted, and killed, while a request is in each state of
# its slot: a restart is a pause and no error; after a kill the server recovers
# by itself and reads the same rows.  (docs/faults.md, rows 18 to 20, 51 and 64;
# 200_contract.pl, 2 and 12.)
use strict;
use warnings;

use Test::More;
use Time::HiRes qw(usleep);
use NeonComm::TestPoint;
use NeonComm::Cluster;

# Catalog pages stay in buffers, the tables do not fit.
my $c = NeonComm::Cluster->new(buffers => '8MB',
	conf => [ 'restart_after_crash=on', 'neon_comm.silence_timeout=1h', 'neon_comm.request_timeout=1h' ]);
my @frozen;
END { local $?; kill 'CONT', @frozen if @frozen }

$c->sql(q{CREATE TABLE t AS SELECT g AS id, repeat('x', 400) AS f FROM generate_series(1, 20000) g;
	CREATE TABLE u AS SELECT g AS id, repeat('u', 400) AS f FROM generate_series(1, 20000) g;});
# what was kept while they were made is on the page servers now
$c->sql('CHECKPOINT; SELECT neon_comm.sweep()');
cmp_ok($c->sql(q{SELECT pg_relation_size('t')}), '>', 8 * 1024 * 1024, 'the table is larger than shared buffers');
my $read = 'SELECT count(*), sum(id) FROM t';
my $rows = '20000|200010000';
my ($p, $ctl, $s, $slots);

# Sessions whose catalog lookups are done, and a table that is not in buffers.
sub fresh
{
	$p = NeonComm::TestPoint->new($c);
	$s = $c->session;
	$ctl = $c->session;
	$s->query($read);
	$slots = 'SELECT string_agg(state, $$,$$) FROM neon_comm.slots WHERE pid = ' . $s->pid;
	$ctl->query($_) foreach $slots, 'SELECT epoch, communicator_pid IS NULL FROM neon_comm.status()',
	  q{SELECT value FROM neon_comm.counters WHERE name = 'requeued'}, 'SELECT pg_cancel_backend(0)';
	$p->pause('client-done', pid => 1, times => 1);
	$p->disarm('client-done');
	$ctl->query('SELECT count(*), sum(id) FROM u');
	return;
}

sub until_is
{
	my ($want, $sql, $what) = @_;
	my $got;
	foreach (1 .. 6000)
	{
		$got = $ctl->query($sql);
		last if $got eq $want;
		usleep(20_000);
	}
	is($got, $want, $what);
	return;
}

sub restart
{
	my $epoch = $ctl->query('SELECT epoch FROM neon_comm.status()');
	$ctl->query('SELECT neon_comm.restart_communicator()');
	return $epoch + 1;
}
sub freeze_page_servers
{
	@frozen = map { ($c->postmaster_pid($_), $c->pids_of($_, qr/./)) } 'page_server_0', 'page_server_1';
	kill 'STOP', @frozen;
	return;
}
sub thaw { kill 'CONT', @frozen; @frozen = (); return }

# How a request gets into each state and stays there, and how it goes on.
my %state = (
	filling => [ sub { $p->pause('client-submit', pid => $s->pid, times => 1); $s->send($read); $p->wait('client-submit') },
		sub { $p->disarm('client-submit') } ],
	taken => [ sub { freeze_page_servers(); $s->send($read) }, \&thaw ],
	copying => [ sub { $p->pause('communicator-dest', times => 1, skip => 1); $s->send($read); $p->wait('communicator-dest') },
		sub { $p->disarm('communicator-dest') } ],
	done => [ sub { $p->pause('client-done', pid => $s->pid, times => 1); $s->send($read); $p->wait('client-done') },
		sub { $p->disarm('client-done') } ]);

fresh();
$ctl->query('SELECT neon_comm.restart_communicator()');
until_is('t', 'SELECT communicator_pid > 0 AND epoch > 1 FROM neon_comm.status()', 'it comes back');

# ---- restarted
foreach my $name (sort keys %state)
{
	my ($enter, $leave) = @{ $state{$name} };
	$ctl->query('SELECT count(*), sum(id) FROM u');
	my $requeued = $ctl->query(q{SELECT value FROM neon_comm.counters WHERE name = 'requeued'});
	$enter->();
	until_is($name, $slots, "restart: a slot is $name");
	my $epoch = restart();
	$leave->() if $name eq 'copying';    # it is inside a turn, and restarts after it
	until_is($epoch, 'SELECT epoch FROM neon_comm.status()', "restart: another communicator ($name)");
	$leave->() if $name ne 'copying';
	is($s->wait, $rows, "restart: the request goes on ($name)");
	cmp_ok($ctl->query(q{SELECT value FROM neon_comm.counters WHERE name = 'requeued'}), '>', $requeued,
		"restart: it was taken over ($name)") if $name eq 'taken';
}

# Another one starts after a second; who looks too late tries again.
sub until_none_runs
{
	my ($what) = @_;
	foreach (1 .. 60)
	{
		my $next = restart();
		while (1)
		{
			my ($epoch, $none) = split /\|/, $ctl->query('SELECT epoch, communicator_pid IS NULL FROM neon_comm.status()');
			return pass($what) if $none eq 't';
			last if $epoch >= $next;
			usleep(20_000);
		}
	}
	return fail($what);
}

# While none runs: submitted, and given up by a cancel.
$ctl->query('SELECT count(*), sum(id) FROM u');
until_none_runs('none runs');
$s->send($read);
is($s->wait, $rows, 'a request made while none runs is answered by the next');
$ctl->query('SELECT count(*), sum(id) FROM u');
freeze_page_servers();
$s->send($read);
until_is('taken', $slots, 'taken by one that will be gone');
until_none_runs('it is gone');
$ctl->query('SELECT pg_cancel_backend(' . $s->pid . ')');
$s->wait;
like($s->{last_error}, qr/canceling statement/, 'its request can be cancelled while none runs');
thaw();
is($s->query($read), $rows, 'and the next read is right');
is($ctl->query('SELECT count(*) FROM neon_comm.slots WHERE pid <> pg_backend_pid()'), 0, 'no slot is left');
is($ctl->query(q{SELECT value FROM neon_comm.counters WHERE name = 'connections_poisoned'}), 0, 'no answer was mixed up');

# ---- an error that nobody expected ends the process, not the server; so of the feed
$ctl->query($_) foreach 'SELECT min(retained_from) FROM neon_comm.page_servers',
  q{SELECT bool_and(state = 'streaming') FROM neon_comm.page_servers}, 'CHECKPOINT', 'UPDATE u SET f = f WHERE id = 1';
foreach my $worker ([ 'communicator-turn', 'communicator' ], [ 'feed-turn', 'WAL feed' ])
{
	my ($point, $name) = @$worker;
	my ($pid) = $c->pids_of('compute', qr/neon_comm $name/);
	my $kept = $ctl->query('SELECT min(retained_from) FROM neon_comm.page_servers');
	$ctl->query('UPDATE u SET f = f WHERE id = 1; SELECT count(*), sum(id) FROM u');
	$p->error($point, times => 1);
	is($s->query($read), $rows, "$name fails: reads go on");
	foreach (1 .. 600)
	{
		my ($now) = $c->pids_of('compute', qr/neon_comm $name/);
		last if $now && $now != $pid;
		usleep(50_000);
	}
	isnt(($c->pids_of('compute', qr/neon_comm $name/))[0], $pid, "$name fails: another one is started");
	$ctl->query('UPDATE u SET f = f WHERE id = 1; SELECT count(*), sum(id) FROM u');
	until_is('t', q{SELECT bool_and(state = 'streaming') FROM neon_comm.page_servers}, "$name fails: page servers stream");
	is($ctl->query("SELECT min(retained_from) >= '$kept' FROM neon_comm.page_servers"), 't',
		"$name fails: what page servers have is not forgotten");
}

# ---- killed: as any process with shared memory, a crash of the server
foreach my $name (sort keys %state)
{
	my ($enter, $leave) = @{ $state{$name} };
	$enter->();
	until_is($name, $slots, "kill: a slot is $name");
	my ($pid) = $c->pids_of('compute', qr/neon_comm communicator/);
	my $from = length $c->log_text('compute');
	kill 'KILL', $pid;
	thaw() if @frozen;
	$_->close foreach $s, $ctl, $p->{session};
	ok($c->wait_log('compute', qr/all server processes terminated; reinitializing/, $from), "kill: the server starts over ($name)");
	ok($c->wait_for("SELECT ($read) IS NOT NULL" =~ s/count\(\*\), //r), "kill: it is back ($name)");
	is($c->sql($read), $rows, "kill: rows ($name)");
	fresh();
}
is($s->query($read), $rows, 'rows after all kills');

# ---- a process that heeds no interrupts delays a barrier; who waits for it can be cancelled
$c->sql('CREATE DATABASE gone');
$p->pause('client-submitted', pid => $s->pid, times => 1);
$ctl->query('SELECT count(*), sum(id) FROM u');
$s->send($read);
$p->wait('client-submitted');
my $dropper = $c->session;
my $waits = "SELECT wait_event = 'ProcSignalBarrier' FROM pg_stat_activity WHERE pid = " . $dropper->pid;
$dropper->send('DROP DATABASE gone');
until_is('t', $waits, 'DROP DATABASE waits for the barrier');
$ctl->query('SELECT pg_cancel_backend(' . $dropper->pid . ')');
$dropper->wait;
like($dropper->{last_error}, qr/canceling statement/, 'and can be cancelled');
$dropper->send('DROP DATABASE gone');
until_is('t', $waits, 'DROP DATABASE, again, waits');
$p->disarm('client-submitted');
$dropper->wait;
is($dropper->{last_error}, '', 'and ends when the process goes on');
is($s->wait, $rows, 'which reads the right rows');

# ---- postmaster and communicator die in the middle of a copy that a cancelled process waits for
$ctl->query('SELECT count(*), sum(id) FROM u');
$state{copying}[0]->();
until_is('copying', $slots, 'a slot is copied');
$ctl->query('SELECT pg_cancel_backend(' . $s->pid . ')');
my ($communicator) = $c->pids_of('compute', qr/neon_comm communicator/);
my @children = $c->pids_of('compute', qr/./);
kill 'KILL', $c->postmaster_pid('compute'), $communicator;
my @left = @children;
foreach (1 .. 600)
{
	@left = grep { (`ps -o stat= -p $_` || 'Z') !~ /^Z/ } @left;
	last if !@left;
	usleep(100_000);
}
is(scalar(@left), 0, 'everybody leaves') or diag(`ps -o pid,stat,args -p @{[ join ',', @left ]}`);
kill 'KILL', @left;
$_->close foreach $s, $ctl, $dropper, $p->{session};
$c->start('compute');
is($c->sql($read), $rows, 'rows at the end');
$c->allow_log(qr/was terminated by signal 9/);
$c->check_logs;
done_testing();
