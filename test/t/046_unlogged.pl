# Unlogged relations live on the compute alone: evicted and read back, kept over
# a clean stop, emptied by a crash, and switched to logged and back (rule
# unlogged).  Their fake LSNs look like any other once they have grown.
use strict;
use warnings;

use Test::More;
use NeonComm::Cluster;

my $c = NeonComm::Cluster->new;

$c->sql(q{CREATE UNLOGGED TABLE u (id int PRIMARY KEY, p point, k text, arr int[]);
	CREATE INDEX u_p ON u USING gist (p);
	CREATE INDEX u_sp ON u USING spgist (k);
	CREATE INDEX u_gin ON u USING gin (arr);
	CREATE INDEX u_h ON u USING hash (k);
	CREATE UNLOGGED SEQUENCE us;
	INSERT INTO u SELECT g, point(g % 991, g % 317), md5(g::text), ARRAY[g % 50, g % 77]
	FROM generate_series(1, 20000) g;});
my @questions = (
	'SELECT count(*), sum(id) FROM u',
	q{SET enable_seqscan = off; SELECT count(*), sum(id) FROM u WHERE p <@ box '((50,50),(200,200))'},
	q{SET enable_seqscan = off; SELECT count(*), sum(id) FROM u WHERE k > 'd'},
	q{SET enable_seqscan = off; SELECT count(*), sum(id) FROM u WHERE arr @> ARRAY[7]},
	q{SET enable_seqscan = off; SELECT count(*), sum(id) FROM u WHERE k = md5('4711')});
my @want = map { $c->sql($_) } @questions;

sub same
{
	my ($what) = @_;
	is($c->sql($questions[$_]), $want[$_], "$what: question $_") foreach 0 .. $#questions;
	return;
}
$c->evict;
same('evicted');
$c->sql('CHECKPOINT; SELECT neon_comm.sweep()');
$c->evict;
same('swept');
$c->sql('UPDATE u SET arr = arr || 9999 WHERE id % 3 = 0');
$c->evict;
is($c->sql('SET enable_seqscan = off; SELECT count(*) FROM u WHERE arr @> ARRAY[9999]'), 6666, 'updated and evicted');
$c->restart;
same('after a clean stop');

$c->sql('CREATE TABLE keep AS SELECT * FROM u; ALTER TABLE u SET LOGGED');
$c->evict;
same('set logged');
$c->kill9('compute');
$c->start('compute');
same('logged, after a crash');
$c->sql('ALTER TABLE u SET UNLOGGED');
$c->evict;
same('set unlogged');
$c->kill9('compute');
$c->start('compute');
is($c->sql('SELECT count(*) FROM u'), 0, 'a crash empties it');
$c->sql('INSERT INTO u SELECT * FROM keep');
$c->evict;
same('filled again');
$c->check_logs;
done_testing();
