# The fault proxy itself: passes everything, delays without serialising, does
# what its rules say as often as they say, and its commands refuse nonsense.
# Guards the instrument of the tests behind it.
use strict;
use warnings;

use Test::More;
use Time::HiRes qw(time);
use NeonComm::Cluster;
use NeonComm::Proxy;

my $c = NeonComm::Cluster->new(shards => 2);
my $p = NeonComm::Proxy->new(seed => 3);

$c->sql(q{CREATE TABLE t AS SELECT g AS id, repeat('x', 400) AS f FROM generate_series(1, 20000) g});
cmp_ok($c->sql(q{SELECT pg_relation_size('t')}), '>', 8 * 1024 * 1024, 'the table is larger than shared buffers');
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

foreach my $bad ('rule', 'rule tag=getpage', 'rule drop=1', 'rule tag=none drop', 'rule on=connect dup',
	'link 0 0 127.0.0.1:1', 'link x 0 nowhere', 'down nobody', 'explode')
{
	ok(!eval { $p->cmd($bad); 1 }, "refused: $bad");
}
like(`@{[ NeonComm::Proxy::binary() ]} --help`, qr/wrongecho=lsn/, '--help names actions');

is($c->counter('connections_poisoned'), 0, 'no answer was mixed up');
$c->check_logs;
done_testing();
