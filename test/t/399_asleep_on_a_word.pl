# Who waits for a page sleeps on its slot's word, or on its latch where that is not possible.
# Sleeps last an hour here, so whatever ends one is not the end of its time: the answer; a cancel
# that comes just before the sleep or during it; a communicator that ended before it woke anybody;
# the end of the postmaster.
use strict;
use warnings;

use Test::More;
use Time::HiRes qw(usleep);
use NeonComm::TestPoint;
use NeonComm::Cluster;
use NeonComm::Proxy;

my $c = NeonComm::Cluster->new(shards => 1, buffers => '8MB', conf => [ 'neon_comm.silence_timeout=1h',
	'neon_comm.request_timeout=1h', 'neon_comm.readahead_blocks=0', 'neon_comm.hedged_reads=off',
	'max_parallel_workers_per_gather=0', 'autovacuum=off' ]);
my $proxy = NeonComm::Proxy->new;

$c->sql(q{CREATE TABLE t AS SELECT g AS id, repeat('x', 400) AS f FROM generate_series(1, 36000) g});
cmp_ok($c->sql(q{SELECT pg_relation_size('t')}), '>', 12 * 1024 * 1024, 'the table is larger than shared buffers');
my $rel = $c->sql(q{SELECT pg_relation_filenode('t')});
$c->use_proxy($proxy, 1);
my $p = NeonComm::TestPoint->new($c);
my $point = q{SELECT count(*) FROM t WHERE ctid = '(%d,1)'};
my $whole = q{SELECT count(*), sum(id) FROM t};
my $rows = '36000|648018000';
my $ctl = $p->{session};

sub session
{
	my ($word) = @_;
	my $s = $c->session;
	$s->query("SET neon_comm.futex_waits = $word; SET neon_comm.client_spin_us = 0; SET neon_comm.async_reads = off");
	$s->query(sprintf $point, 0);
	return $s;
}

# Does it end by itself?  Limits only end a hang.
sub ends
{
	my ($s, $what) = @_;
	foreach (1 .. 1200)
	{
		last if $s->ready;
		usleep(50_000);
	}
	ok($s->ready, $what) or do { $proxy->clear; $proxy->cmd('release *'); };
	return $s->wait;
}

my $waits = q{SELECT bool_or(state = 'taken') FROM neon_comm.slots WHERE pid = %d};
$ctl->query(sprintf $waits, 0);
$ctl->query('SELECT pg_cancel_backend(0)');

foreach my $word ('on', 'off')
{
	my $block = $word eq 'on' ? 700 : 1000;
	my $s = session($word);
	my $pid = $s->pid;
	my @cancel = ("SELECT pg_cancel_backend($pid)");

	$p->true('client-sleeps-long', pid => $pid);
	my $sleeps = $c->counter('client_sleeps');
	is($s->query($whole), $rows, "$word: answers end sleeps");
	cmp_ok($c->counter('client_sleeps') - $sleeps, '>', 100, "$word: there were sleeps");

	# what nobody answers
	my $held = $proxy->rule("tag=getpage rel=$rel hold");
	$p->pause('client-sleep', pid => $pid, rel => $rel, times => 1);
	$s->send(sprintf $point, $block);
	$p->wait('client-sleep');
	$ctl->query(@cancel);
	is($p->wake('client-sleep'), 1, "$word: a process was stopped before its sleep");
	ends($s, "$word: a cancel just before the sleep ends it");
	like($s->{last_error}, qr/canceling statement/, "$word: with an error");
	$p->disarm('client-sleep');

	$s->send(sprintf $point, $block + 1);
	ok($ctl->wait_for(sprintf $waits, $pid), "$word: a process waits");
	$ctl->query(@cancel);
	ends($s, "$word: a cancel ends a sleep");
	like($s->{last_error}, qr/canceling statement/, "$word: with an error, too");
	$proxy->clear;
	$proxy->cmd('release *');

	# its successor wakes whom it has answered
	my $starts = $c->sql('SELECT communicator_pid FROM neon_comm.status()');
	$p->error('communicator-wake', times => 1);
	$s->send(sprintf $point, $block + 2);
	is(ends($s, "$word: a communicator ends before it wakes, and the next one does"), 1, "$word: the row is there");
	cmp_ok($p->hits('communicator-wake'), '>=', 1, "$word: it met the point");
	$p->disarm('communicator-wake');
	ok($c->wait_for("SELECT communicator_pid NOT IN (0, $starts) FROM neon_comm.status()"), "$word: it is another one");

	is($s->query($whole), $rows, "$word: and rows are right");
	$s->close;
}

# The postmaster's end ends them.
my @readers = map { session($_) } 'on', 'off';
my @pids = map { $_->pid } @readers;
$p->true('client-sleeps-long', pid => 0);
$proxy->rule("tag=getpage rel=$rel hold");
$readers[$_]->send(sprintf $point, 1300 + $_) foreach 0, 1;
ok($ctl->wait_for(sprintf $waits, $_), 'a process waits') foreach @pids;
my @children = $c->pids_of('compute', qr/./);
kill 'KILL', $c->postmaster_pid('compute');
my @left = @pids;
foreach (1 .. 1200)
{
	@left = grep { (`ps -o stat= -p $_` || 'Z') !~ /^Z/ } @left;
	last if !@left;
	usleep(50_000);
}
is(scalar(@left), 0, 'who sleeps leaves when the postmaster has ended') or diag(`ps -o pid,stat,args -p @{[ join ',', @left ]}`);
kill 'KILL', grep { kill 0, $_ } @children;
$_->close foreach @readers, $ctl;
$proxy->clear;
$proxy->cmd('release *');
$c->start('compute');
is($c->sql($whole), $rows, 'rows at the end');
$c->allow_log(qr/test point "communicator-wake" fails|was terminated by signal 9|terminating connection/);
$c->check_logs;
done_testing();
