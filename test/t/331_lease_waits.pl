# A compute without leases (docs/takeover.md): answers wait, also those from memory, and nobody is stuck; when page
# servers come back they go on. One page server of three is not enough.
use strict;
use warnings;

use NeonComm::Cluster;
use NeonComm::Members qw(members_known);
use Test::More;
use Time::HiRes qw(usleep);

my $c = NeonComm::Cluster->new(shards => 1, buffers => '64MB',
	init => [ '--durable', '--page-servers', 3, '--write-quorum', 2 ], ps_conf => ['neon_page_service.lease=1s']);
ok(members_known($c, 3, 0 .. 2), 'members are known');
$c->sql('CREATE TABLE t (x int); INSERT INTO t VALUES (1)');
my ($reads, $cancelled, $timed, $ended) = map { $c->session } 1 .. 4;
foreach my $s ($reads, $cancelled, $timed, $ended) { is($s->query('SELECT x FROM t'), 1, 'a session has the table in memory') }
$timed->query("SET statement_timeout = '200ms'");

my @frozen;
sub thaw { kill 'CONT', @frozen; @frozen = (); return }
END { local $?; thaw() }

# Two page servers, all of their processes; returns when leases have run out.
sub freeze
{
	my $from = length $c->log_text('compute');
	@frozen = map { ($c->postmaster_pid($_), $c->pids_of($_, qr/./)) } map { "page_server_$_" } 1, 2;
	kill 'STOP', @frozen;
	return $c->wait_log('compute', qr/leases of page servers have run out/, $from);
}

ok(freeze(), 'two of three page servers stop, and the log says that leases have run out');
$_->send('SELECT x FROM t') foreach $reads, $cancelled, $timed, $ended;
is($timed->wait, '', 'statement_timeout ends such a wait');
like($timed->{last_error}, qr/statement timeout/, '... with its own error');
foreach (1 .. 20) { last if $reads->ready; usleep(50_000) }
ok(!$reads->ready, 'nothing is answered from memory');
kill 'INT', $cancelled->pid;
is($cancelled->wait, '', 'a cancel ends it');
like($cancelled->{last_error}, qr/canceling statement due to user request/, '... with its own error');
kill 'TERM', $ended->pid;
is($ended->wait, '', 'terminate ends it');
like($ended->{last_error}, qr/terminating connection due to administrator command/, '... with its own error');
my (undef, undef, $err) = $c->try_sql('SELECT 1');
like($err, qr/page servers have not granted leases to this compute/, 'nobody gets in');
my $from = length $c->log_text('compute');
thaw();
is($reads->wait, 1, 'the answer comes when page servers are back');
is($cancelled->query('SELECT x FROM t'), 1, 'who was cancelled goes on');
ok($c->wait_log('compute', qr/leases of page servers are held again, after \d+ ms/, 0), 'the log says so');

# ---- the end of the server while somebody waits

ok(freeze(), 'once more');
$reads->send('SELECT x FROM t');
my ($ok, $out) = $c->try_dev('stop', '-D', $c->{dir}, 'compute');
ok($ok, 'a server that has no leases stops in order') or diag($out);
thaw();
$c->check_logs;
done_testing();
