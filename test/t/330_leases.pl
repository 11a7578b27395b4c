# Leases (docs/takeover.md): a compute that is stopped, replaced elsewhere meanwhile, and wakes up answers nothing from
# its memory, and then stops by itself; whoever takes over waits for what was granted.
use strict;
use warnings;

use NeonComm::Cluster;
use NeonComm::Members qw(status_of members_known edit disown_compute);
use NeonComm::Proxy;
use Test::More;
use Time::HiRes qw(usleep);

my $c = NeonComm::Cluster->new(shards => 1, buffers => '64MB',
	init => [ '--durable', '--page-servers', 3, '--write-quorum', 2 ], ps_conf => ['neon_page_service.lease=10s']);
my $dir = $c->{dir};
$c->allow_log(qr/could not read block .* from its page server|overtaken/);
ok(members_known($c, 3, 0 .. 2), 'members are known');
my $proxy = NeonComm::Proxy->new;
$c->use_proxy($proxy, 1);
ok($c->wait_for('SELECT count(*) = 3 FROM neon_comm.members WHERE lease_ms > 0'), 'each member grants leases');
is($c->sql('SELECT max(lease_ms) <= 10000 FROM neon_comm.members'), 't', '... not longer than it is set to');
my $incarnation = $c->sql('SELECT incarnation FROM neon_comm.identity');
my $status = status_of($c, 0);
is($status->{lease_to}, $incarnation, 'a page server tells to whom');
cmp_ok($status->{lease_ms}, '>', 0, '... and for how long');
$c->sql('CREATE TABLE t (x int); INSERT INTO t VALUES (1)');

# ---- a compute is stopped, all of it, with its table in memory

my @old = map { $c->session } 1 .. 2;
foreach my $s (@old) { is($s->query('SELECT sum(x) FROM t'), 1, 'a session reads the table') }
my $postmaster = $c->postmaster_pid('compute');
my @stopped = ($postmaster, $c->pids_of('compute', qr/./));
END { local $?; kill 'CONT', @stopped if @stopped }
kill 'STOP', @stopped;
# asked while it sleeps: what it answers, it answers later
$old[0]->send('SELECT sum(x) FROM t');

# ---- somebody takes over, as another machine would: another directory, other ports

my ($before, $after) = disown_compute($c);

# Page servers get WAL from another port.
sub follow
{
	my ($from, $to) = map { $_->{wal_feed_port} } @_;
	foreach my $n (0 .. 2)
	{
		edit("$dir/page_server_$n/postgresql.conf", sub { s/\b$from\b/$to/ });
		kill 'HUP', $c->postmaster_pid("page_server_$n");
	}
	return;
}
follow($before, $after);
my ($ok, $out) = $c->try_dev('create-compute', '-D', $dir);
ok($ok, 'another compute takes over') or die $out;
like($out, qr/waiting \d\.\d s for the leases of the compute before/, '... when the leases of the one before have ended');
$c->sql('UPDATE t SET x = 2');

# ---- it wakes up, and has nobody to ask

$proxy->cmd('down 0');
$proxy->cmd('cut 0');
kill 'CONT', @stopped;
$old[1]->send('SELECT sum(x) FROM t');
foreach (1 .. 40) { last if grep { $_->ready } @old; usleep(50_000) }
ok(!(grep { $_->ready } @old), 'the one before answers nothing');
follow($after, $before);
my @said = map { $_->wait } @old;
is_deeply(\@said, [ '', '' ], '... and will not');
ok($c->wait_log('compute', qr/FATAL: .*this compute was overtaken and stops/), 'it is told that it was overtaken');
foreach (1 .. 600) { last unless kill 0, $postmaster; usleep(50_000) }
ok(!kill(0, $postmaster), '... and stops');
@stopped = ();
follow($before, $after);
is($c->sql('SELECT sum(x) FROM t'), 2, 'the other one goes on');

# ---- who sees the compute end does not wait: leases were its own

($ok, $out) = $c->try_dev('replace-compute', '-D', $dir);
ok($ok, 'a compute is replaced by whoever stops it') or die $out;
unlike($out, qr/waiting .* for the leases/, '... without a wait for its leases');
is($c->sql('SELECT sum(x) FROM t'), 2, '... and has all');

# ---- a page server that starts counts as if it had granted a lease just before

$c->stop('compute');
$c->restart('page-server', 0);
$status = status_of($c, 0);
is($status->{lease_to}, '-', 'a page server that has started has granted nothing yet');
cmp_ok($status->{lease_ms}, '>', 0, '... and does not know what it had granted before');
$c->check_logs;
done_testing();
