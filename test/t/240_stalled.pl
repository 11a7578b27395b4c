# An answer stalls half-way on one of several connections. Who waits for it gets his
# page over another one long before silence_timeout (which is an hour here), the
# late answer is dropped and counted, nothing new is put on the stalled connection.
# Without hedging the first read ends with request_timeout. That nothing is asked
# twice while a page server waits for WAL, and not more than one request in twenty
# otherwise, is for the unit tests and the simulation.
use strict;
use warnings;

use Test::More;
use NeonComm::Cluster;
use NeonComm::Proxy;

my $c = NeonComm::Cluster->new(shards => 1, buffers => '1MB', conf => [
	'neon_comm.silence_timeout=1h', 'neon_comm.request_timeout=60s', 'max_parallel_workers_per_gather=0', 'neon_comm.readahead_blocks=0',
	'neon_comm.connections_per_shard=4', 'autovacuum=off' ]);
my $p = NeonComm::Proxy->new;

$c->sql(q{CREATE TABLE t AS SELECT g AS id, 0 AS n, repeat('x', 400) AS f FROM generate_series(1, 9000) g; CHECKPOINT});
cmp_ok($c->sql(q{SELECT pg_relation_size('t')}), '>', 2 * 1024 * 1024, 'larger than shared buffers');
my $point = 'SELECT count(*), sum(n) FROM t WHERE ctid = \'(%d,1)\'';
my $look = 'SELECT count(*), sum(id), sum(n) FROM t';
$c->use_proxy($p, 1);
my $s = $c->session;

sub counter { my ($name) = @_; return $c->counter($name) }

# reads from here on find the engine's idea of what is usual
is($s->query($look), '9000|40504500|0', 'rows are right');
is($s->query(sprintf($point, 3)), '1|0', 'a point too');
$c->evict;

# One answer, half of it at once; the rest never comes.
my $rel = $c->sql(q{SELECT pg_relation_filenode('t')});
my $stall = $p->rule("tag=getpage rel=$rel block=11 count=1 stall=-1");
is($s->query(sprintf($point, 11)), '1|0', 'a point read behind an answer that stalls');
is($p->fired($stall), 1, 'it did');
cmp_ok(counter('hedged_reads'), '>=', 1, 'it was asked for a second time');
is(counter('connections_silent'), 0, 'its connection still stands');
is($s->query(sprintf($point, 100 + $_)), '1|0', "nothing waits behind it ($_)") foreach (1 .. 5);
is($p->fired($stall), 1, 'one connection has stalled');

# The same, but it comes in the end: what comes late is dropped.
$p->cmd('cut *');
my $short = $p->rule("tag=getpage rel=$rel block=12 count=1 stall=-1");
$c->evict;
my $dropped = counter('hedged_late');
is($s->query(sprintf($point, 12)), '1|0', 'another answer that stalls');
is($p->fired($short), 1, 'it did');
$p->cmd('release *');
ok($c->wait_for("SELECT value > $dropped FROM neon_comm.counters WHERE name = 'hedged_late'"), 'it comes, and is dropped');
is($c->counter('late_answers'), 0, 'nobody had gone');
$p->cmd('cut *');
is($s->query($look), '9000|40504500|0', 'rows are right');

is(counter('found_late'), 0, 'no doorbell was lost');
$c->check_logs;
done_testing();
