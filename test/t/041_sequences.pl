# Sequences: eviction makes no gap (rule sequence), a clean stop makes no gap,
# and a crash makes no duplicate.
use strict;
use warnings;

use Test::More;
use NeonComm::Cluster;

my $c = NeonComm::Cluster->new;

$c->sql('DO $$ BEGIN FOR i IN 1..40 LOOP EXECUTE format($f$CREATE SEQUENCE s%s$f$, i); END LOOP; END $$');
my $next = join(', ', map { "nextval('s$_')" } 1 .. 40);
my $all = sub { my ($v) = @_; return join('|', ($v) x 40) };

foreach my $v (1 .. 5)
{
	is($c->sql("SELECT $next"), $all->($v), "value $v of 40 sequences");
	$c->sql('CHECKPOINT');
	$c->evict;
}
$c->stop;
$c->start;
is($c->sql("SELECT $next"), $all->(6), 'no gap over a clean stop');
$c->evict;
is($c->sql("SELECT $next"), $all->(7), 'nor after it');

# Crashes, with and without an eviction before, with and without a checkpoint.
my %seen;
my $dup = 0;
foreach my $round (1 .. 4)
{
	foreach (1 .. 10)
	{
		my $v = $c->sql(q{SELECT nextval('s1')});
		$dup++ if $seen{$v}++;
	}
	$c->sql('CHECKPOINT') if $round % 2;
	$c->evict if $round > 2;
	foreach (1 .. 10)
	{
		my $v = $c->sql(q{BEGIN; CREATE TABLE IF NOT EXISTS force_commit (x int); INSERT INTO force_commit VALUES (1);
			SELECT nextval('s1'); COMMIT});
		$dup++ if $seen{$v}++;
	}
	$c->kill9('compute');
	$c->start('compute');
}
is($dup, 0, 'no value twice over crashes');
$c->sql(q{ALTER SEQUENCE s2 RESTART WITH 500; SELECT setval('s3', 900)});
$c->evict;
is($c->sql(q{SELECT nextval('s2'), nextval('s3')}), '500|901', 'RESTART and setval are kept');
$c->sql('CHECKPOINT');
cmp_ok($c->counter($_), '>', 0, "$_ moved") foreach qw(writes_local_sequence);
$c->check_logs;
done_testing();
