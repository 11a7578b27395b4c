# Members of a cluster change (docs/takeover.md): while they do, old and new ones have to confirm, and a compute that is lost
# in the middle of it is replaced by what the best log says. W changes up and down.
use strict;
use warnings;

use NeonComm::Cluster;
use NeonComm::Members qw(status_of members_known);
use Test::More;
use Time::HiRes qw(usleep);

my $c = NeonComm::Cluster->new(shards => 1, buffers => '64MB',
	init => [ '--durable', '--page-servers', 4, '--write-quorum', 3 ]);
my $dir = $c->{dir};
$c->allow_log(qr/could not read block .* from its page server|overtaken/);
my %frozen;
END { local $?; kill 'CONT', keys %frozen if $c && -d $c->{dir} }
sub freeze { my ($pid) = @_; $frozen{$pid} = kill 'STOP', $pid; return }
sub thaw { my ($pid) = @_; kill 'CONT', $pid; delete $frozen{$pid}; return }
sub receiver { my ($n) = @_; my ($pid) = $c->pids_of("page_server_$n", qr/walreceiver/); return $pid }
sub change { my ($quorum, @members) = @_; return 'SELECT neon_comm.change_members(ARRAY[' . join(',', map { "'page_server_$_'" } @members) . "], $quorum)" }
my $lists = q{SELECT string_agg(DISTINCT list || ' ' || write_quorum, ', '), count(*) FROM neon_comm.members};
sub create { return $c->try_dev('create-compute', '-D', $dir) }
sub lose { $c->kill9('compute'); rename "$dir/compute", "$dir/lost" or die $!; system 'rm', '-rf', "$dir/lost"; return }
# read from the disk of a compute that is not let in yet as well
sub rows { return $c->sql('SELECT string_agg(x::text, \' \' ORDER BY x) FROM t') }

# Waits until the logs of these have this change of members.
sub logged
{
	my ($change, @page_servers) = @_;
	foreach my $n (@page_servers)
	{
		foreach (1 .. 600) { last if (status_of($c, $n)->{change_of_members} // -1) == $change; usleep(50_000) }
		return 0 if status_of($c, $n)->{change_of_members} != $change;
	}
	return 1;
}

ok(members_known($c, 4, 0 .. 3), 'members are known');
$c->sql('CREATE TABLE t (x int); INSERT INTO t VALUES (1)');

# ---- what is refused

$c->sql('CREATE ROLE anybody LOGIN');
my ($rc, $out, $err) = $c->try_sql('SET ROLE anybody; ' . change(3, 0 .. 3));
like($err, qr/permission denied for schema neon_comm|permission denied for function/, 'not everybody changes members');
foreach my $bad ([ 0, 0 .. 3 ], [ 5, 0 .. 3 ])
{
	($rc, $out, $err) = $c->try_sql(change(@$bad));
	like($err, qr/write quorum has to be from 1 to the number of members, which is 4/, "W = $bad->[0]: refused");
}
($rc, $out, $err) = $c->try_sql(change(3, 0 .. 4));
like($err, qr/members are not changed: page server "page_server_4" does not stream/, 'a stranger: refused');
($rc, $out, $err) = $c->try_sql(change(3, 0, 1, 1, 2));
like($err, qr/page server "page_server_1" is named twice/, 'named twice: refused');
($rc, $out, $err) = $c->try_sql(change(3, 0 .. 3));
like($err, qr/these are the members already/, 'no change: says so');
is($c->sql($lists), 'all 3|4', '... and does nothing');
($rc, $out, $err) = $c->try_sql(q{SELECT pg_logical_emit_message(false, 'neon_comm', E'neon_comm members 1\nwrite_quorum 1\nmember } . 'ab' x 16 . q{ x\nchange 9\n')});
is($rc, 0, 'somebody writes what looks like an entry');

# ---- both have to confirm: W = 3 becomes 4 while one does not listen

my ($watch, $changes, $late) = map { $c->session } 1 .. 3;
my $slow = receiver(3);
my $confirms = q{SELECT bool_and(flush_lsn >= '%s') FROM neon_comm.members WHERE name IN (%s)};
my $frees = 'SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = \'SyncRep\' AND pid = ' . $late->pid;
$watch->query($_) foreach $frees, $lists, sprintf($confirms, '0/0', q{'page_server_0'}), 'SELECT pg_current_wal_flush_lsn()';
freeze($slow);
$changes->send(change(4, 0 .. 3));
ok($watch->wait_for("SELECT count(*) = 8 FROM neon_comm.members"), 'both lists count');
is($watch->query($lists), 'new 4, old 3|8', '... with the write quorum of each');
$late->send('INSERT INTO t VALUES (2)');
ok($watch->wait_for($frees), 'a commit waits');
my $lsn = $watch->query('SELECT pg_current_wal_flush_lsn()');
ok($watch->wait_for(sprintf $confirms, $lsn, q{'page_server_0', 'page_server_1', 'page_server_2'}), 'three have it, which was enough before');
foreach (1 .. 20) { last if $late->ready; usleep(50_000) }
ok(!$late->ready, 'and now is not');
ok(!$changes->ready, 'the change waits, too');
$watch->query('SELECT pg_cancel_backend(' . $changes->pid . ')');
$changes->wait;
like($changes->{last_error}, qr/canceling statement/, 'it may be interrupted');
$changes->send(change(2, 0 .. 2));
$changes->wait;
like($changes->{last_error}, qr/another change of members goes on/, 'another one is refused meanwhile');
$changes->send(change(3, 0 .. 3));
$changes->wait;
like($changes->{last_error}, qr/the change that went on is taken back/, 'it is taken back');
$late->wait;
is($late->{last_error}, '', '... and the commit is acknowledged');
is($watch->query($lists), 'all 3|4', '... by the old members alone');
thaw($slow);

# ---- lost in the middle: the first entry is in logs and not confirmed by both

ok(logged(2, 0 .. 3), 'all logs say so');
freeze($slow);
$changes->send(change(4, 0 .. 3));
ok(logged(3, 0 .. 2), 'once more: in the logs of three');
$c->kill9('page-server', 3);
%frozen = ();
lose();
my $ok;
($ok, $out) = create();
ok($ok, 'a compute is made of them') or diag($out);
is(rows(), '1 2', 'all that was acknowledged is there');
is($c->sql($lists), 'new 4, old 3|8', 'and both lists count in it');
$c->sql(change(4, 0 .. 3));
is($c->sql($lists), 'all 4|4', 'the change is ended there');
$c->sql('INSERT INTO t VALUES (3)');
$c->sql(change(3, 0 .. 3));
is($c->sql($lists), 'all 3|4', 'W = 4 becomes 3');

# ---- the members of the best log count: page server 1 has never heard of the change

$c->stop('page-server', 1);
$c->sql(change(2, 0, 2, 3));
is($c->sql($lists), 'all 2|3', 'members are others');
$c->configure({ synchronous_standby_names => 'ANY 2 (page_server_0, page_server_2, page_server_3)' });
ok($c->reload_is_over, '... for the setting, too');
$c->stop('page-server', 2);
$c->sql('INSERT INTO t VALUES (4)');
sub hide { my ($n) = @_; $c->kill9('page-server', $n); rename "$dir/page_server_$n/global", "$dir/page_server_$n/away" or die $!; return }
sub show { my ($n) = @_; rename "$dir/page_server_$n/away", "$dir/page_server_$n/global" or die $!; return }
lose();
hide($_) foreach 0, 3;
($ok, $out) = create();
ok(!$ok, 'two page servers are enough by the members that one of them knows, and not by the others');
like($out, qr/promises of 2 of 3 page servers are needed.*there is 1.*Those that were given stand/s, '... which is told');
show(0);
($ok, $out) = create();
ok($ok, 'with one more of the members a compute is made') or diag($out);
is(rows(), '1 2 3 4', 'and nothing is lost');
show(3);
$c->start('page-server', 3);

# ---- lost in the middle: the second entry is written and nobody has it

$watch = $c->session;
$changes = $c->session;
$watch->query($_) foreach $lists, sprintf($confirms, '0/0', q{'page_server_0'}), 'SELECT pg_current_wal_flush_lsn()';
ok($watch->wait_for(q{SELECT count(*) = 4 FROM neon_comm.page_servers WHERE state = 'streaming'}), 'all follow');
$slow = receiver(3);
freeze($slow);
$changes->send(change(4, 0 .. 3));
ok($watch->wait_for("SELECT count(*) = 7 FROM neon_comm.members"), 'three members change to four');
ok(logged(9, 0 .. 2), '... as the first entry says');
$lsn = $watch->query('SELECT pg_current_wal_flush_lsn()');
freeze($changes->pid);
thaw($slow);
ok($watch->wait_for(sprintf $confirms, $lsn, join ', ', map { "'page_server_$_'" } 0 .. 3), 'all have confirmed it');
freeze(receiver($_)) foreach 0 .. 3;
thaw($changes->pid);
ok($watch->wait_for("SELECT count(*) = 4 FROM neon_comm.members"), 'the new members alone count');
lose();
$c->kill9('page-server', $_) foreach 0 .. 3;
%frozen = ();
($ok, $out) = create();
ok($ok, 'a compute is made of logs that do not say so') or diag($out);
is(rows(), '1 2 3 4', 'all that was acknowledged is there');
is($c->sql($lists), 'new 4, old 2|7', 'both lists count there');
$c->sql(change(2, 0, 2, 3));
is($c->sql($lists), 'all 2|3', 'and it can be taken back there');
$c->sql('INSERT INTO t VALUES (5)');
$c->restart;
is($c->sql($lists), 'all 2|3', 'after a restart of all they are the same');
like($c->log_text('compute'), qr/WARNING: .*neon_comm\.write_quorum is 3, but the members are 3 page servers of which 2 confirm: that counts/,
	'the setting that differs is told of');
is(rows(), '1 2 3 4 5', 'and all rows are there');

$c->check_logs;
done_testing();
