# A compute is lost behind the commits that it has acknowledged: two of three page servers have them
# (docs/wal_feed.md, "Commits that wait"). The feed dies and hangs while commits wait.
#
# What a page server has is told by the commit records in its pg_wal, transaction by transaction.
use strict;
use warnings;

use Test::More;
use Time::HiRes qw(usleep);
use NeonComm::Cluster;

my $rounds = 3;
my $c = NeonComm::Cluster->new(shards => 3, buffers => '64MB',
	conf => ['synchronous_standby_names=ANY 2 (page_server_0, page_server_1, page_server_2)']);
my %frozen;
END { local $?; kill 'CONT', keys %frozen if $c && -d $c->{dir} }

sub stop_process { my ($part, $title) = @_; my ($pid) = $c->pids_of($part, $title); $frozen{$pid} = kill 'STOP', $pid; return $pid }

# Transactions with a commit record in the page server's WAL from $lsn on.
sub commits
{
	my ($page_server, $lsn) = @_;
	my $dir = "$c->{dir}/page_server_$page_server/pg_wal";
	my %found;
	foreach (`pg_waldump -p $dir -s $lsn -r Transaction 2>/dev/null`)
	{
		$found{$1} = 1 if /tx:\s+(\d+),.*\bdesc: COMMIT /;
	}
	return \%found;
}

$c->sql('CREATE TABLE t (id serial, round int)');
foreach my $round (1 .. $rounds)
{
	ok($c->wait_for(q{SELECT count(*) = 3 FROM neon_comm.page_servers WHERE sync_state = 'quorum'}), "round $round: three count");
	my $lsn = $c->sql('SELECT pg_current_wal_lsn()');
	my @sessions = map { $c->session } 1 .. 4;
	# one of them takes part at times only
	my $slow = stop_process("page_server_$_", qr/walreceiver/) foreach $round % 3;
	my @acknowledged;
	foreach (1 .. 60)
	{
		$_->send("INSERT INTO t (round) VALUES ($round) RETURNING pg_current_xact_id()") foreach @sessions;
		push @acknowledged, map { $_->wait } @sessions;
	}
	$c->kill9('compute');
	kill 'CONT', keys %frozen;
	%frozen = ();
	is(scalar(grep { /^\d+$/ } @acknowledged), 240, 'all were acknowledged');
	my @has = map { commits($_, $lsn) } 0 .. 2;
	my @lost = grep { my $xid = $_; 2 > grep { $_->{$xid} } @has } @acknowledged;
	is("@lost", '', 'each is on two page servers');
	cmp_ok(scalar(keys %{ $has[ ($round + 1) % 3 ] }), '>=', 240, 'by their commit records');
	$c->start('compute');
	is($c->sql("SELECT count(*) FROM t WHERE round = $round"), 240, 'and here, after recovery');
}

# ---- a feed that hangs, and one that is killed
my $watch = $c->session;
my $s = $c->session;
my $waiting = q{SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND pid = } . $s->pid;
$s->query('INSERT INTO t (round) VALUES (0)');
$watch->query($waiting);
my $feed = stop_process('compute', qr/neon_comm WAL feed/);
$s->send('INSERT INTO t (round) VALUES (99)');
ok($watch->wait_for($waiting), 'the feed hangs: a commit waits');
$watch->query('SELECT pg_cancel_backend(' . $s->pid . ')');
$s->wait;
like($s->{last_error}, qr/canceling wait for synchronous replication/, 'and can be cancelled');
$s->send('INSERT INTO t (round) VALUES (98)');
ok($watch->wait_for($waiting), 'another one waits');
kill 'CONT', $feed;
$s->wait;
is($s->{last_error}, '', 'until the feed goes on');

stop_process('compute', qr/neon_comm WAL feed/);
$s->send('INSERT INTO t (round) VALUES (97)');
ok($watch->wait_for($waiting), 'one waits');
kill 'KILL', $feed;
$s->wait;
like($s->{last_error}, qr/WARNING|server closed the connection|terminating/, 'the feed is killed: it is not acknowledged');
ok($c->wait_for(q{SELECT count(*) = 3 FROM neon_comm.page_servers WHERE sync_state = 'quorum'}), 'three count again');
$c->sql('INSERT INTO t (round) VALUES (96)');
is($c->sql('SELECT count(*) FROM t WHERE round IN (96, 97, 98, 99)'), 4, 'all are there');

$c->check_logs;
done_testing();
