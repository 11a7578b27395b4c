# A compute is killed and made anew at once, before a page server has read what it was sent (docs/boot.md): create-compute
# waits until it has, and begins with all of it. Else that page server would have more than the new compute, for good.
use strict;
use warnings;

use NeonComm::Cluster;
use POSIX qw(WNOHANG);
use Test::More;
use Time::HiRes qw(usleep);

my $c = NeonComm::Cluster->new(shards => 2);
my (@frozen, $creates);
END { local $?; kill 'CONT', @frozen if @frozen; if ($creates) { kill 'KILL', $creates; waitpid $creates, 0 } }
$c->sql('CREATE TABLE t (x int)');
# it has in its memory what it will need
my $s = $c->session;
my $sent = q{SELECT min(sent_lsn) >= pg_current_wal_flush_lsn() FROM neon_comm.page_servers WHERE name = 'page_server_1'};
$s->query($sent);
$s->query('INSERT INTO t VALUES (1)');
ok($c->wait_for(q{SELECT count(*) = 2 FROM neon_comm.page_servers WHERE state = 'streaming' AND flush_lsn >= pg_current_wal_flush_lsn()}), 'page servers have all of it');

# what is sent from now on stays in the socket of one, and the other one gets none of it
@frozen = $c->pids_of('page_server_1', qr/walreceiver/);
is(scalar @frozen, 1, 'a walreceiver is stopped');
kill 'STOP', @frozen;
$c->kill9('page-server', 0);
$s->query('INSERT INTO t VALUES (2)');
ok($s->wait_for($sent), 'a commit is on its way to its page server');
$c->kill9('compute');
system('rm', '-rf', "$c->{dir}/compute") == 0 or die 'rm';
$c->start('page-server', 0);

my $said = "$c->{dir}/log/create.out";
$creates = $c->dev_alone($said, 'create-compute', '-D', $c->{dir});
my $ended = 0;
foreach (1 .. 30) { last if -e "$c->{dir}/compute" || ($ended = waitpid $creates, WNOHANG); usleep(100_000) }
my $waits = !$ended && !-e "$c->{dir}/compute";
kill 'CONT', @frozen;
@frozen = ();
waitpid $creates, 0 if !$ended;
$creates = undef;
my $status = $?;
ok($waits, 'create-compute waits, and has made nothing yet');
is($status, 0, 'it goes on') or diag do { local (@ARGV, $/) = $said; <> };
is($c->sql('SELECT count(*) FROM t'), 2, '... with what was on its way');
$c->check_logs;
done_testing();
