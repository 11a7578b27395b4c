# Test points do what tests rely on (include/nc/shared/test_point.h): they stop,
# fail and answer in every module, only for whom they are armed, and a slot is
# whole whatever a backend does between two of its steps.
use strict;
use warnings;

use Test::More;
use Time::HiRes qw(usleep);
use NeonComm::TestPoint;
use NeonComm::Cluster;

# A page of the transaction that meets a full disk is written by its own session: nobody else does.
my $c = NeonComm::Cluster->new(conf => [ 'bgwriter_lru_maxpages=0', 'checkpoint_timeout=1h' ]);
my $p = NeonComm::TestPoint->new($c);

$c->sql(q{CREATE TABLE t AS SELECT g AS id, repeat('x', 400) AS f FROM generate_series(1, 12000) g;});
cmp_ok($c->sql(q{SELECT pg_relation_size('t')}), '>', 4 * 1024 * 1024, 'the table is larger than shared buffers');
$c->sql('CREATE TABLE u AS SELECT * FROM t');
my $count = q{SELECT count(*) FROM t};
my $s = $c->session;
# its catalog lookups are done: it must not stop at a page that everybody needs
$s->query($count);
$c->evict;

# client: stopped at each step of a slot, cancelled there, and the next read is right
foreach my $point ('client-submit', 'client-submitted', 'client-done', 'smgr-read-remote')
{
	$p->pause($point, pid => $s->pid, times => 1);
	$s->send($count);
	$p->wait($point);
	# not this page: who wants it waits for the one who reads it
	is($c->sql('SELECT count(*) FROM u'), 12000, "$point: others go on");
	$c->sql('SELECT pg_cancel_backend(' . $s->pid . ')');
	is($p->wake($point), 1, "$point: one process was stopped");
	$s->wait;
	like($s->{last_error}, qr/canceling statement/, "$point: then it is cancelled");
	is($c->sql('SELECT count(*) FROM neon_comm.slots WHERE pid = ' . $s->pid), 0, "$point: no slot is left");
	is($s->query($count), 12000, "$point: and the next read is right");
	$p->disarm($point);
}

# an error instead
$p->error('client-submitted', pid => $s->pid, times => 1);
my (undef, $err) = $s->try($count);
like($err, qr/test point "client-submitted" fails/, 'a point can raise an error');
is($p->hits('client-submitted'), 1, 'it was acted on once');
is($s->query($count), 12000, 'and then it is over');
$p->disarm_all;

# the pages that reads into private memory borrow are 192 for all: each error gives its own back
$c->sql(q{CREATE TABLESPACE ts LOCATION ''});
$s->query('SET neon_comm.readahead_blocks = 0; SET neon_comm.client_spin_us = 0');
$p->error('client-submitted', pid => $s->pid, rel => $c->sql(q{SELECT relfilenode FROM pg_class WHERE relname = 'u'}));
my $failed = 0;
foreach (1 .. 193)
{
	(undef, $err) = $s->try('ALTER TABLE u SET TABLESPACE ts');
	$failed++ if $err =~ /test point "client-submitted" fails/;
}
is($failed, 193, 'more reads into private memory fail than there are pages for them');
$p->disarm_all;
my $bounced = $c->counter('reads_to_bounce');
$s->query('ALTER TABLE u SET TABLESPACE ts');
cmp_ok($c->counter('reads_to_bounce') - $bounced, '>', 64, 'and then they work');
is($c->sql('SELECT count(*) FROM u'), 12000, 'with the right pages');

# what this session asks while pages cannot be read is asked before, so that it is in its caches
my $ctl = $p->{session};

# Page servers have all WAL that there is.
sub applied
{
	my $flushed = $c->sql('SELECT pg_current_wal_flush_lsn()');
	return $c->wait_for("SELECT bool_and(coalesce(apply_lsn >= '$flushed', false)) FROM neon_comm.page_servers");
}
my $copying = q{SELECT count(*) FROM neon_comm.slots WHERE state = 'copying' AND waits_for = 'communicator'};
my $waits = q{SELECT bool_or(waits_for = 'WAL') FROM neon_comm.slots WHERE pid = } . $s->pid;
my $cancel = 'SELECT pg_cancel_backend(%d)';
$ctl->query($_) foreach $copying, $waits;
$ctl->query(sprintf($cancel, 0));

# communicator: stopped in the middle of a copy; cancel waits for it and no longer
$p->pause('communicator-dest', times => 1, skip => 1);
$s->send($count);
$p->wait('communicator-dest');
is($ctl->query($copying), 1, 'communicator: a slot is being copied');
$ctl->query(sprintf($cancel, $s->pid));
$p->disarm('communicator-dest');
$s->wait;
like($s->{last_error}, qr/^$|canceling statement/, 'communicator: the reader ends');
is($s->query($count), 12000, 'communicator: and reads on');

# communicator: stopped before it wakes somebody; it holds nothing that others need to go on,
# to end a transaction that has a number, or to be cancelled
my $number = 'SELECT pg_current_xact_id() IS NOT NULL';
my $other = $c->session;
$_->query($number) foreach $other, $ctl;
$ctl->query('SELECT count(*) FROM u');
$p->pause('communicator-wake', times => 1);
$s->send($count);
$p->wait('communicator-wake');
$other->send("$number; BEGIN; $number; ROLLBACK");
$ctl->query(sprintf($cancel, $s->pid));
foreach my $who ([ $other, 'another process' ], [ $s, 'one that is cancelled' ])
{
	my $ended = 0;
	foreach (1 .. 1200)
	{
		last if $ended = $who->[0]->ready;
		usleep(20_000);
	}
	ok($ended, "communicator: $who->[1] does not wait for it");
}
is($other->wait, "t\nt", 'communicator: transactions end');
$p->disarm('communicator-wake');
$s->wait;
like($s->{last_error}, qr/canceling statement/, 'communicator: a cancel works');
is($s->query($count), 12000, 'communicator: and all goes on');
$other->close;

# feed: it stops; it withholds WAL, and a reader that needs it waits
$p->pause('feed-turn', times => 1);
$c->sql('INSERT INTO t SELECT 1, $$y$$ FROM generate_series(1, 10)');
$p->wait('feed-turn');
$p->disarm('feed-turn');
is($c->sql($count), 12010, 'feed: goes on');
# what the update reads must not wait for WAL from before
ok(applied(), 'feed: page servers have followed');
$p->true('feed-withhold');
$c->sql('UPDATE t SET f = $$z$$ WHERE id % 1000 = 0');
my $lag = $c->sql('SELECT pg_current_wal_flush_lsn()');
is($ctl->query("SELECT count(*) FROM neon_comm.page_servers WHERE sent_lsn >= '$lag'"), 0,
	'feed: no page server has the newest WAL');
my $for = '';
foreach (1 .. 100)
{
	$s->send('SELECT count(*) FROM t WHERE f = $$z$$');
	$for = $ctl->query($waits) until $s->ready || $for eq 't';
	last if $for eq 't';
	# it found all that was changed in shared buffers: others push that out
	is($s->wait, 12, 'feed: what is in memory needs no WAL');
	$c->sql('SELECT count(*) FROM u');
}
is($for, 't', 'feed: a reader waits for it');
$p->disarm('feed-withhold');
is($s->wait, 12, 'feed: the reader gets what it should');
$p->fail('feed-open-wal', 'EIO', times => 1);
$c->sql('SELECT pg_switch_wal(); INSERT INTO t VALUES (2, $$w$$); SELECT pg_switch_wal(); INSERT INTO t VALUES (2, $$w$$)');
$c->evict;
is($c->sql(q{SELECT count(*) FROM t WHERE f = 'w'}), 2, 'feed: a failed open of WAL is got over');
ok(applied(), 'feed: page servers get all of it');
cmp_ok($p->hits('feed-open-wal'), '>', 0, 'feed: and it did fail');

# smgr: a failed write of a page that must stay is an error and nothing else
$p->fail('smgr-keep-write', 'ENOSPC', pid => $s->pid, times => 1);
$s->query('BEGIN; INSERT INTO t SELECT 3, repeat($$k$$, 400) FROM generate_series(1, 10)');
(undef, $err) = $s->try('INSERT INTO t SELECT 3, repeat($$k$$, 400) FROM generate_series(1, 12000)');
like($err, qr/No space left on device/, 'smgr: a full disk is an error');
is($p->hits('smgr-keep-write'), 1, 'smgr: once');
$p->disarm_all;
$s->query('ROLLBACK');
is($c->sql($count), 12012, 'smgr: nothing is lost');

# the setting, for what happens before SQL works
$p->close;
$s->close;
$c->stop('compute');
$c->append_conf('compute', q{neon_comm.test_points = 'communicator-turn=pause:0:1'});
my $text = '';
my $start = $c->background(\$text, 'neon_dev', 'start', '-D', $c->{dir}, 'compute');
ok($c->wait_log('compute', qr/test point "communicator-turn": process \d+ stops/),
	'the setting arms a point before SQL works');
$c->append_conf('compute', q{neon_comm.test_points = ''});
kill 'HUP', $c->postmaster_pid('compute');
ok($start->finish, 'and a reload disarms it') or diag($text);
is($c->sql($count), 12012, 'and all goes on');
$c->check_logs;
done_testing();
