# Members and promises of page servers (docs/takeover.md): who is told, what a promise ends, that it outlives
# a page server, and a compute that was overtaken: it acknowledges nothing more and stops by itself.
use strict;
use warnings;

use NeonComm::Cluster;
use NeonComm::Members qw(ask status_of promise incarnation number_of members_known);
use NeonComm::Proxy;
use Test::More;
use Time::HiRes qw(usleep);

my $c = NeonComm::Cluster->new(shards => 1, buffers => '64MB',
	init => [ '--durable', '--page-servers', 3, '--write-quorum', 2 ]);
# it is ended while somebody waits
$c->allow_log(qr/could not read block .* from its page server|overtaken/);

sub streams { my ($n, $want) = @_; return $c->wait_for("SELECT (state = 'streaming') = $want FROM neon_comm.page_servers WHERE name = 'page_server_$n'", tries => 300) }

my $proxy = NeonComm::Proxy->new;
$c->use_proxy($proxy, 1);

# ---- members

ok(members_known($c, 3, 0 .. 2), 'each page server is told who the members are');
my $status = status_of($c, 1);
is($status->{write_quorum}, 2, '... and how many confirm');
is($status->{promised}, '-', 'nobody has a promise yet');
is(join(' ', sort map { (split / /)[0] } @{ $status->{'@member_of_quorum'} }), join(' ', sort map { status_of($c, $_)->{member} } 0 .. 2),
	'members are the directories of the page servers');
is($c->sql('SELECT string_agg(name, \' \' ORDER BY name), min(write_quorum), max(write_quorum) FROM neon_comm.members'),
	'page_server_0 page_server_1 page_server_2|2|2', 'the compute knows them, too');
my $first = number_of($status->{incarnation});
cmp_ok($first, '>', 0, 'incarnations are ordered');
ok($c->wait_for(q{SELECT count(*) = 3 FROM neon_comm.page_servers WHERE sync_state = 'quorum'}), 'three count');
$c->sql('CREATE TABLE t (x int); INSERT INTO t VALUES (1)');
$c->restart('compute');
ok($c->wait_for(q{SELECT count(*) = 3 FROM neon_comm.page_servers WHERE sync_state = 'quorum'}), 'three count after a restart');
is(number_of(status_of($c, 1)->{incarnation}), $first + 1, 'a restart is the next incarnation');
like($c->log_text('compute'), qr/page servers have confirmed the WAL of this compute up to .*: connections are let in/,
	'somebody is let in when page servers have confirmed');

# ---- what is refused

my ($out, $err) = promise($c, 2, 'ab' x 16);
like($err, qr/an ordered incarnation/, 'an id without a number is refused');
($out, $err) = promise($c, 2, incarnation($first));
like($err, qr/has promised itself to, or follows, one that is as new/, 'an older incarnation than the one that is followed');
is(status_of($c, 2)->{promised}, '-', '... is promised nothing');
($out, $err) = ask($c, 2, 'takeover ' . 'ab' x 16 . ' ' . 'cd' x 16 . ' ' . incarnation(100));
like($err, qr/is not served/, 'another tenant');

# ---- one promise

# A commit is on its way while page server 1 does not listen: 2 could confirm it, after a takeover has seen its log.
my %frozen;
END { local $?; kill 'CONT', keys %frozen if $c && -d $c->{dir} }
sub freeze { my ($part, $title) = @_; my ($pid) = $c->pids_of($part, $title); $frozen{$pid} = kill 'STOP', $pid; return $pid }
my ($watch, $late) = ($c->session, $c->session);
my $waits = q{SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND pid = } . $late->pid;
my $heard = q{SELECT bool_and(CASE name WHEN 'page_server_0' THEN flush_lsn >= '%1$s'
	WHEN 'page_server_2' THEN state <> 'streaming' OR flush_lsn >= '%1$s' ELSE true END) FROM neon_comm.page_servers};
$watch->query($waits);
$watch->query(sprintf $heard, $watch->query('SELECT pg_current_wal_flush_lsn()'));
my $slow = freeze('page_server_1', qr/walreceiver/);
my $feed = freeze('compute', qr/neon_comm WAL feed/);
$late->send('INSERT INTO t VALUES (2)');
ok($watch->wait_for($waits), 'a commit waits');
my $commit = $watch->query('SELECT pg_current_wal_flush_lsn()');

my $id = incarnation($first + 10);
($out, $err) = promise($c, 2, $id);
is($err, '', 'a newer one has the promise');
kill 'CONT', $feed;
ok($watch->wait_for(sprintf $heard, $commit), 'the commit has been sent to all who take it');
foreach (1 .. 20) { last if $late->ready; usleep(50_000) }
ok(!$late->ready, 'and is not acknowledged by one of them that has promised: a takeover would lose it');
kill 'CONT', $slow;
%frozen = ();
$late->wait;
is($late->{last_error}, '', 'it is by the others');
like($out, qr/^promised\|$id$/m, 'which is told');
like($out, qr/^end\|[0-9A-F]+\/[0-9A-F]+$/m, 'with the end of its WAL');
like($out, qr/^incarnation\|\S+ [0-9A-F]+\/[0-9A-F]+$/m, '... what it has followed');
is(scalar(() = $out =~ /^member\|/mg), 3, '... and the members');
my ($end) = $out =~ /^end\|(.*)$/m;
ok(streams(2, 'false'), 'its stream is cut');
is($c->sql('SELECT count(*) FROM t'), 2, 'the others are enough for a commit');
($out, $err) = promise($c, 2, $id);
like($out, qr/^end\|\Q$end\E$/m, 'asked again: the same promise, and nothing was taken since');
($out, $err) = promise($c, 2, incarnation($first + 9));
like($err, qr/has promised itself to, or follows/, 'an older one than that is refused');

# ---- it outlives the page server

$c->kill9('page-server', 2);
$c->start('page-server', 2);
is(status_of($c, 2)->{promised}, $id, 'killed and started again, it keeps the promise');
ok($c->wait_log('page_server_2', qr/this page server has promised itself to a newer compute/), 'and says so to its compute');
ok($c->wait_for(q{SELECT state = 'refused' AND reason LIKE '%overtaken%' FROM neon_comm.page_servers WHERE name = 'page_server_2'}),
	'which is told');
is($c->sql('SELECT count(*) FROM t'), 2, 'one is not enough to overtake it');

# ---- so many that nothing can be confirmed any more

my $s = $c->session;
$s->query('INSERT INTO t VALUES (3)');
# they come and tell it: it has nobody to ask
$proxy->cmd('down 0');
$proxy->cmd('cut 0');
$feed = freeze('compute', qr/neon_comm WAL feed/);
$s->send('INSERT INTO t VALUES (99)');
($out, $err) = promise($c, 1, incarnation($first + 10, 'b'));
is($err, '', 'another one promises');
kill 'CONT', $feed;
%frozen = ();
$s->wait;
like($s->{last_error}, qr/server closed|terminat|connection/, 'what was not confirmed then is not acknowledged');
ok($c->wait_log('compute', qr/FATAL: .*this compute was overtaken and stops/), 'the compute says why');
my $gone = 0;
foreach (1 .. 600) { $gone = !defined $c->postmaster_pid('compute'); last if $gone; usleep(100_000) }
ok($gone, 'and stops by itself');

# ---- its directory

my $ok;
($ok, $out) = $c->try_dev('start', '-D', $c->{dir}, 'compute');
ok(!$ok, 'it is not started again');
like($out, qr/this compute was overtaken: page server 1, page server 2 belong to a newer one/, '... with the reason');
ok(!defined $c->postmaster_pid('compute'), '... before its port opens');
($ok, $out) = $c->try_dev('create-compute', '-D', $c->{dir});
like($out, qr/is there: .*replace-compute/, 'create-compute is for a directory that is lost');
($ok, $out) = $c->try_dev('replace-compute', '-D', $c->{dir}, '--keep');
ok($ok, 'it is replaced') or diag($out);
is($c->sql('SELECT string_agg(x::text, \' \' ORDER BY x) FROM t WHERE x < 99'), '1 2 3', 'all that was acknowledged is there');
$c->sql('INSERT INTO t VALUES (4)');
ok($c->wait_for(q{SELECT count(*) = 3 FROM neon_comm.page_servers WHERE sync_state = 'quorum'}), 'all page servers follow the new one');
cmp_ok(number_of(status_of($c, 0)->{incarnation}), '>', $first + 10, 'which is newer than all promises');
ok(-d "$c->{dir}/compute_replaced", 'the old directory was kept');
$c->restart;
is($c->sql('SELECT count(*) FROM t WHERE x < 99'), 4, 'after a restart of all');

$c->check_logs;
done_testing();
