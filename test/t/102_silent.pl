# Connections that stand and say nothing: silent, half-open, hanging in the
# handshake, and one stalled shard of several. Other shards go on; whoever waits
# may leave; after silence_timeout (connect_timeout) the requests move to another
# connection and the rows are right. Without the silence timer the queries of the
# second half never end.
use strict;
use warnings;

use Test::More;
use NeonComm::Cluster;
use NeonComm::Proxy;
use NeonComm::Stuck;

my $c = NeonComm::Cluster->new(shards => 3, buffers => '8MB', conf => [
	'neon_comm.hedged_reads=off', 'neon_comm.silence_timeout=1h', 'neon_comm.connect_timeout=1h', 'neon_comm.request_timeout=1h',
	'max_parallel_workers_per_gather=0', 'neon_comm.connections_per_shard=3' ]);
my $p = NeonComm::Proxy->new;

$c->sql(q{CREATE TABLE t AS SELECT g AS id, repeat('x', 400) AS f FROM generate_series(1, 27000) g});
cmp_ok($c->sql(q{SELECT pg_relation_size('t')}), '>', 11 * 1024 * 1024, 'larger than shared buffers');
my $right = '27000|364513500';
my $look = 'SELECT count(*), sum(id) FROM t';
# what was kept while it was made is on the page servers now
$c->sql('CHECKPOINT; SELECT neon_comm.sweep()');
$c->use_proxy($p, 3);
my $s = $c->session;
my $stuck = NeonComm::Stuck->new($c, q{SELECT count(*), sum(id) FROM t WHERE ctid = '(0,1)'});

# Whose are the stripes? A block that is read for the first time shows it.
is($s->query($look), $right, 'rows are right');
$c->evict;
$s->query('SET neon_comm.readahead_blocks = 0');
my %shard;
foreach my $stripe (20 .. 60)
{
	my @before = map { $p->stat($_, 'messages_c2s') } 0 .. 2;
	$s->query(sprintf("SELECT count(*) FROM t WHERE ctid = '(%d,1)'", $stripe * 8));
	my @moved = grep { $p->stat($_, 'messages_c2s') > $before[$_] } 0 .. 2;
	$shard{$stripe} = $moved[0] if @moved == 1;
}
$s->query('RESET neon_comm.readahead_blocks');
my @mine = grep { defined $shard{$_} && $shard{$_} == 1 } keys %shard;
my @others = grep { defined $shard{$_} && $shard{$_} != 1 } keys %shard;
cmp_ok(scalar(@mine), '>=', 3, 'some stripes are on shard 1');
cmp_ok(scalar(@others), '>=', 6, 'some are not');

# One stalled shard.
my $quiet = $p->rule('link=1 tag=getpage silent');
my $deaf = $p->rule('link=1 on=connect silent');
my $blocked = sprintf("SELECT count(*) FROM t WHERE ctid = '(%d,1)'", $mine[0] * 8 + 1);
my $waiter = $c->session;
$waiter->query('SELECT 1');
$waiter->send("SELECT count(*), sum(id) FROM t WHERE ctid = '(" . ($mine[1] * 8 + 2) . ",1)'");
ok($stuck->waits($waiter), 'a process waits for the stalled shard');
my $n = 0;
foreach my $stripe (@others)
{
	my $block = $stripe * 8 + 3;
	$n += $s->query("SELECT count(*) FROM t WHERE ctid = '($block,1)'");
}
is($n, scalar(@others), 'other shards go on');
$stuck->leaves('a stalled shard', $blocked);
ok(!$waiter->ready, 'and the first one still waits');
cmp_ok($p->fired($quiet), '>=', 1, 'a connection fell silent');

# The deadline names who does not answer.
my (undef, $err) = $s->try("SET neon_comm.request_timeout = '1s'; \\set VERBOSITY verbose\n$blocked");
like($err, qr/08006.*no answer from page servers for block \d+ of relation \d+\/\d+\/\d+/s, 'deadline: SQLSTATE, block');
like($err, qr/not_modified_since [0-9A-F]+\/[0-9A-F]+ from shard 1 \(127\.0\.0\.1:\d+\), \d of \d connections ready/,
	'and LSN, shard, address, state');
$s->query('RESET neon_comm.request_timeout');

# Timers that are shortened work for what waits already: the silent ones are left.
$p->clear;
$c->configure({ 'neon_comm.silence_timeout' => '1s', 'neon_comm.connect_timeout' => '1s' });
is($waiter->wait, '1|' . $c->sql("SELECT id FROM t WHERE ctid = '(" . ($mine[1] * 8 + 2) . ",1)'"),
	'who waited gets his row');
cmp_ok($c->counter('connections_silent'), '>=', 1, 'connections were abandoned');
is($s->query($look), $right, 'all rows');

# Half-open: the server's side is gone, ours is not told.
my $before = $c->counter('connections_silent');
my $half = $p->rule('tag=getpage nth=30 every=200 count=4 halfopen');
is($s->query($look), $right, 'rows over half-open connections');
cmp_ok($p->fired($half), '>=', 2, 'there were some');
cmp_ok($c->counter('connections_silent'), '>', $before, 'which were abandoned');
$p->clear;

# Hanging in the handshake.
$before = $c->counter('connect_failures');
my $hang = $p->rule('on=connect count=4 silent');
$p->cmd('cut *');
is($s->query($look), $right, 'rows after connections that hang in the handshake');
cmp_ok($p->fired($hang), '>=', 2, 'some hung');
# others may have stood before these were
ok($c->wait_for("SELECT value > $before FROM neon_comm.counters WHERE name = 'connect_failures'"), 'and were given up');

is($c->sql('SELECT count(*) FROM neon_comm.slots WHERE pid <> pg_backend_pid()'), 0, 'no slot is left behind');
is($c->counter('found_late'), 0, 'no doorbell was lost');
$_->close foreach $s, $waiter;
$stuck->close;
$c->check_logs;
done_testing();
