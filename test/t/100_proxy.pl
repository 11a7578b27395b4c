# The fault proxy itself: passes everything, delays without serialising, does
# what its rules say as often as they say, and its commands refuse nonsense.
# Guards the instrument of the tests behind it.
use strict;
use warnings;

use Test::More;
use Time::HiRes qw(time usleep);
use NeonComm::Cluster;
use NeonComm::Proxy;

# (a copy over another connection would not be held back any more when the rule is gone)
my $c = NeonComm::Cluster->new(shards => 2, conf => ['neon_comm.hedged_reads=off']);
my $p = NeonComm::Proxy->new(seed => 3);

$c->sql(q{CREATE TABLE t AS SELECT g AS id, repeat('x', 400) AS f FROM generate_series(1, 20000) g});
cmp_ok($c->sql(q{SELECT pg_relation_size('t')}), '>', 8 * 1024 * 1024, 'the table is larger than shared buffers');
# what was kept while it was made is on the page servers now
$c->sql('CHECKPOINT; SELECT neon_comm.sweep()');
$c->use_proxy($p, 2);

is($c->sql('SELECT count(*), sum(id) FROM t'), '20000|200010000', 'everything passes');
cmp_ok($p->stat($_, 'messages_c2s'), '>', 400, "link $_ carried requests") foreach 0, 1;

# A delay is a lower bound for every request that has to wait for the one before.
my $read = $c->counter('reads_remote');
$p->cmd('delay * 2000');
my $began = time;
is($c->sql(q{SELECT sum(id) FROM t WHERE ctid < '(200,1)'}), $c->sql(q{SELECT sum(id) FROM t WHERE ctid < '(200,1)'}),
	'rows with 2 ms each way');
cmp_ok($c->counter('reads_remote') - $read, '>', 200, 'pages were read');
cmp_ok(time - $began, '>', 0.4, 'and each took its time');
$p->cmd('delay * 0');

# A rule acts as often as it says, not more.
my $id = $p->rule('tag=getpage nth=5 count=3 pass');
my $all = $p->rule('dir=c2s link=0 tag=getpage pass');
$c->sql('SELECT sum(id) FROM t');
is($p->fired($id), 3, 'a rule with a count');
cmp_ok($p->fired($all), '>', 100, 'a rule without');
$p->unrule($all);
is($p->fired($all), undef, 'a rule that was removed');
$p->clear;

# A rule about one block acts on that one alone, over whichever connection, asked for or answered;
# what is held back comes when it is told to, and not before.
my $rel = $c->sql(q{SELECT pg_relation_filenode('t')});
my ($asked, $answered, $other, $whole) = map { $p->rule("$_ pass") } "dir=c2s tag=getpage rel=$rel block=700",
  "tag=getpage rel=$rel block=701", "rel=$rel block=100000", "dir=c2s rel=$rel";
my $watch = $c->session;
my $under_way = "SELECT count(*) > 0 FROM neon_comm.slots WHERE relfilenode = $rel AND block + nblocks > 702";
my $s = $c->session;
my $end = q{SET enable_seqscan = off; SELECT count(*) FROM t WHERE ctid >= '(700,0)'};
$c->evict;
my $rows = $s->query($end);
cmp_ok($rows, '>', 100, 'rows behind a block');
cmp_ok($p->fired($_), '>=', 1, 'a rule about a block that was read') foreach $asked, $answered;
is($p->fired($other), 0, 'about one that was not');
cmp_ok($p->fired($whole), '>', 100 * $p->fired($asked), 'about all of a relation');
$p->clear;
$watch->query($under_way);
$id = $p->rule("tag=getpage rel=$rel block=702 hold");
$s->send($end);
ok($watch->wait_for($under_way), 'a block is waited for');
usleep(20_000) until $p->fired($id) > 0 || $s->ready;
is($watch->query($under_way), 't', 'and held back');
$p->clear;
ok(!$s->ready, 'also without the rule');
$p->cmd('release *');
is($s->wait, $rows, 'until it is released');

foreach my $bad ('release nobody', 'rule block=x drop', 'rule rel=-1 drop', 'rule', 'rule tag=getpage', 'rule drop=1', 'rule tag=none drop', 'rule on=connect dup',
	'link 0 0 127.0.0.1:1', 'link x 0 nowhere', 'down nobody', 'explode')
{
	ok(!eval { $p->cmd($bad); 1 }, "refused: $bad");
}
like(`@{[ NeonComm::Proxy::binary() ]} --help`, qr/wrongecho=lsn/, '--help names actions');

is($c->counter('connections_poisoned'), 0, 'no answer was mixed up');
$c->check_logs;
done_testing();
