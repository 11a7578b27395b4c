# Who is let in, and who counts (docs/takeover.md): after each start, and after a crash of a process, nobody gets in
# before so many members have confirmed; a page server with another directory is none.
use strict;
use warnings;

use NeonComm::Cluster;
use NeonComm::Members qw(status_of members_known);
use Test::More;

my $c = NeonComm::Cluster->new(shards => 1, buffers => '64MB',
	init => [ '--durable', '--page-servers', 3, '--write-quorum', 2 ]);
my $dir = $c->{dir};
$c->allow_log(qr/terminated by signal 9|terminating connection because of crash|nobody is let in yet/);
ok(members_known($c, 3, 0 .. 2), 'members are known');
$c->sql('CREATE TABLE t (x int); INSERT INTO t VALUES (1)');

# ---- after a start

$c->stop;
$c->start('page-server', 0);
my ($ok, $out) = $c->try_dev('start', '-D', $dir, 'compute', '-t', 20);
ok(!$ok, 'with one page server nobody is let in');
like($out, qr/nobody is let in yet: [01] of 2 page servers have confirmed/, '... and is told');
ok($c->wait_log('compute', qr/LOG: .*nobody is let in yet: 1 of 2 page servers have confirmed the WAL of this compute up to [0-9A-F]+\/[0-9A-F]+/),
	'the log says how far it is');
$c->start('page-server', 1);
is($c->sql('SELECT count(*) FROM t'), 1, 'with two somebody is');

# ---- after a crash of a process

my $s = $c->session;
my $from = length $c->log_text('compute');
$c->stop('page-server', 1);
kill 'KILL', $s->pid;
ok($c->wait_log('compute', qr/nobody is let in yet: 1 of 2/, $from), 'after a crash of a process they confirm again');
my ($rc, undef, $err) = $c->try_sql('SELECT 1');
like($err, qr/nobody is let in yet: 1 of 2/, 'nobody gets in meanwhile');

# ---- another directory under the name of a member

$c->start('page-server', 2);
is($c->sql('SELECT count(*) FROM t'), 1, 'any two will do');
$c->stop('page-server', 2);
unlink "$dir/page_server_2/page_service_identity" or die $!;
$from = length $c->log_text('page_server_2');
$c->start('page-server', 2);
ok($c->wait_log('page_server_2', qr/started streaming WAL from primary/, $from), 'a page server that is another directory follows');
$c->stop('compute');
($ok, $out) = $c->try_dev('start', '-D', $dir, 'compute', '-t', 20);
ok(!$ok, '... and nobody is let in for it');
like($out, qr/nobody is let in yet: [01] of 2/, '... who is told');
$c->stop('compute');
($ok, $out) = $c->try_dev('replace-compute', '-D', $dir);
ok($ok, 'with a third one, a member, a takeover is possible') or diag($out);
is($c->sql('SELECT count(*) FROM t'), 1, 'and all is there');
$c->kill9('page-server', 1);
rename "$dir/page_server_1/global", "$dir/page_server_1/away" or die $!;
($ok, $out) = $c->try_dev('replace-compute', '-D', $dir);
ok(!$ok, 'without it none is');
like($out, qr/page server 2: is no member: its directory is another one/, '... since another directory promises nothing that counts');
ok($c->postmaster_pid('compute'), '... and the compute was not touched');
rename "$dir/page_server_1/away", "$dir/page_server_1/global" or die $!;
$c->start('page-server', 1);
is($c->sql('SELECT count(*) FROM t'), 1, 'it goes on');

$c->check_logs;
done_testing();
