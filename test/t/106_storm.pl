# Many at once with little to spare: 120 backends that all read at their first
# breath meet the cap on connections, counted on the page servers' side of the
# proxy; and a compute that has few descriptors opens what it can, goes on with
# what it has, and says so. It also has one processor there, and nobody looks for
# what cannot come meanwhile. Rows name their own block.
use strict;
use warnings;

use Test::More;
use NeonComm::Cluster;
use NeonComm::Proxy;
use NeonComm::Stuck;

my $c = NeonComm::Cluster->new(shards => 3, conf => [
	'max_connections=150', 'neon_comm.connections_per_shard=4', 'neon_comm.connection_depth=2',
	'shared_buffers=8MB', 'max_parallel_workers_per_gather=0',
	# or the proxy may count those that were given up beside those in their place
	'neon_comm.connect_timeout=1h', 'neon_comm.silence_timeout=1h' ]);
my $p = NeonComm::Proxy->new;

$c->sql(q{CREATE TABLE self (id int, f text) WITH (fillfactor = 10);
	INSERT INTO self SELECT g, lpad(g::text, 700, '0') FROM generate_series(0, 2999) g;});
cmp_ok($c->sql(q{SELECT pg_relation_size('self')}), '>', 16 * 1024 * 1024, 'larger than shared buffers');
$c->use_proxy($p, 3);
# connections take a while, so everybody is there before the first one stands
$p->rule('on=connect delay=300');
$p->cmd('delay * 300');
$p->cmd('cut *');

my $script = "$c->{dir}/one.sql";
open my $fh, '>', $script or die $!;
print $fh q{\set id random(0, 2999)
SELECT 1 / (CASE WHEN id = :id AND f = lpad(:id::text, 700, '0') THEN 1 ELSE 0 END) FROM self WHERE ctid = ('(' || :id || ',1)')::tid;
};
close $fh;
my ($rc, $out, $err) = $c->pgbench('-n', '-c', 120, '-j', 2, '-t', 15, '-f', $script);
is($rc, 0, '120 clients at once got right rows') or diag("$out$err");
like($out, qr/number of transactions actually processed: 1800\/1800/, 'all of them');
foreach my $n (0 .. 2)
{
	cmp_ok($p->stat($n, 'most'), '>=', 2, "shard $n: several connections");
	cmp_ok($p->stat($n, 'most'), '<=', 4, "shard $n: never more than the cap");
}
is($c->counter('connections_poisoned'), 0, 'no answer was mixed up');
$p->clear;
$p->cmd('delay * 0');

# Few descriptors, and a cap that asks for more; one processor, and settings that ask to spin.
$c->configure({ 'neon_comm.connections_per_shard' => 64, 'neon_comm.connection_depth' => 1,
	'neon_comm.spin_time' => 100, 'neon_comm.client_spin_us' => 1000 });
$c->stop('compute');
my $limited = "$c->{dir}/limited.sh";
open $fh, '>', $limited or die $!;
my ($processor) = `taskset -cp $$` =~ /: (\d+)/;
print $fh qq{ulimit -Sn 88\nulimit -Hn 88\nexec taskset -c $processor "\$@"\n};
close $fh;
{
	my $dev = NeonComm::Cluster::neon_dev_path();
	system("sh $limited $dev start -D $c->{dir} --quiet compute > $c->{dir}/limited.log 2>&1 < /dev/null");
}
is($? >> 8, 0, 'the compute starts with 88 descriptors');
# so slow that nearly all of them wait at the same time, which is more than there are descriptors
$p->cmd('delay * 20000');
($rc, $out, $err) = $c->pgbench('-n', '-c', 80, '-j', 1, '-t', 20, '-f', $script);
is($rc, 0, 'clients got right rows') or diag("$out$err");
$p->cmd('delay * 1000');
my $pid = $c->sql('SELECT communicator_pid FROM neon_comm.status()');
is($c->counter($_), 0, "one processor: nothing moves $_") foreach qw(spins_won spins_lost client_spins client_spins_in_vain);
my $fds = () = glob "/proc/$pid/fd/*";
cmp_ok($fds, '<', 88, "the communicator keeps some descriptors free ($fds)");
cmp_ok($p->stat($_, 'most'), '>=', 1, "shard $_ is connected") foreach 0 .. 2;
unlike($c->log_text('compute'), qr/Too many open files/, 'nothing failed for want of descriptors');
like($c->log_text('compute'), qr/at most \d+ page-server connections/, 'and the log says how many there can be');
my $stuck = NeonComm::Stuck->new($c, q{SELECT count(*) FROM self WHERE ctid = '(0,1)'});
$p->rule('tag=getpage silent');
$p->rule('on=connect silent');
$stuck->leaves('few descriptors and silent servers', 'SELECT sum(id) FROM self');
$p->clear;
$p->cmd('cut *');
is($c->sql('SELECT count(*), sum(id) FROM self'), '3000|4498500', 'all rows');

is($c->sql('SELECT count(*) FROM neon_comm.slots WHERE pid <> pg_backend_pid()'), 0, 'no slot is left behind');
$stuck->close;
$c->check_logs;
done_testing();
