# Transactions that are idle behind a cursor hold staging memory. Who needs some and
# finds none free takes what was not used for a second, and reads ahead; the cursors go
# on afterwards, with the right rows, also those whose pages were on their way, and those
# whose memory was given back by who had taken it, and lent to them a second time.
use strict;
use warnings;

use Test::More;
use NeonComm::Cluster;
use NeonComm::Proxy;

my $c = NeonComm::Cluster->new(shards => 1, conf => [ 'neon_comm.async_reads=off', 'neon_comm.staging_size=256', 'neon_comm.staging_quota=128',
	'neon_comm.readahead_blocks=64', 'neon_comm.readahead_yields=off', 'max_parallel_workers_per_gather=0', 'synchronize_seqscans=off' ]);
my $p = NeonComm::Proxy->new;

$c->sql(q{CREATE TABLE t AS SELECT g AS id, repeat('t', 900) AS f FROM generate_series(1, 20000) g; VACUUM t});
cmp_ok($c->sql(q{SELECT pg_relation_size('t')}), '>', 16 * 1024 * 1024, 'larger than shared buffers');
$c->use_proxy($p, 1);
my $rows = 'SELECT count(*), sum(id) FROM t';
my $right = '20000|200010000';
my $all_lent = 'SELECT s::text FROM neon_comm.staging() s';
# it borrows none: a new session that reads its catalogs does, for a moment
my $watch = $c->session;
$watch->query('SET neon_comm.readahead_blocks = 0; SET effective_io_concurrency = 0');
my ($pages) = $watch->query($all_lent) =~ /\((\d+),/;
is($pages, 256, 'eight chunks');

sub hoard
{
	my ($n, $fetched) = @_;
	my @s;
	foreach my $i (1 .. $n)
	{
		my $s = $c->session;
		$s->query('BEGIN; DECLARE k NO SCROLL CURSOR FOR SELECT id FROM t');
		$s->query("MOVE $fetched IN k");
		push @s, $s;
	}
	return @s;
}
sub lent { return ($watch->query($all_lent) =~ /,(\d+),/)[0] }

my @idle = hoard(6, 3000);
# who is slow loses some to those who come later
push @idle, hoard(1, 3000) while lent() < 256 && @idle < 30;
is(lent(), 256, 'idle transactions hold all of it');
my ($staged, $taken) = (0, $c->counter('staging_reclaimed'));
foreach (1 .. 100)
{
	my $before = $c->counter('reads_from_staging');
	is($c->sql($rows), $right, 'rows of somebody else') or last;
	$staged = $c->counter('reads_from_staging') - $before;
	last if $staged > 1500;
}
cmp_ok($staged, '>', 1500, 'who reads them ahead');
cmp_ok($c->counter('staging_reclaimed'), '>', $taken, 'into memory that nobody used');
foreach my $s (@idle)
{
	is($s->query('SELECT 1'), 1, 'an idle transaction goes on');
	is($s->query(q{FETCH 1 FROM k}), 3001, 'where its cursor was');
	is(scalar(split /\n/, $s->query('FETCH ALL FROM k')), 16999, 'to its end');
	$s->query('COMMIT');
	$s->close;
}

# Taken, given back, and lent again to who has not noticed: what he had in it is not looked for there.
sub all_back { return ok($c->wait_for('SELECT s::text = $$(256,0,0)$$ FROM neon_comm.staging() s'), 'all is given back') }

all_back();
my ($owner, $taker) = ($c->session, $c->session);
$owner->query('SET neon_comm.staging_quota = 1024; SET neon_comm.readahead_blocks = 512; BEGIN');
$owner->query("DECLARE k NO SCROLL CURSOR FOR SELECT id FROM t; DECLARE l NO SCROLL CURSOR FOR SELECT id FROM t WHERE ctid >= '(1500,0)'");
my $at = 0;
do { $owner->query('MOVE 500 IN k'); $at += 500 } while (lent() < 256 && $at < 10000);
is($watch->query($all_lent), '(256,256,1)', 'one idle transaction has all of it');
$taker->query('SET neon_comm.staging_quota = 256; SET neon_comm.readahead_blocks = 256');
foreach (1 .. 100)
{
	is($taker->query($rows), $right, 'rows of who takes it') or last;
	last if lent() <= 128;
}
$taker->close;
my $left = lent();
cmp_ok($left, '<=', 128, 'and has given it back');
my $there = 12000;
do { $owner->query('MOVE 500 IN l'); $there += 500 } while (lent() <= $left && $there < 18000);
cmp_ok(lent(), '>', $left, 'the owner reads something else ahead, into memory that is lent to him once more');
$owner->query('MOVE 500 IN l');
is($owner->query('FETCH ALL FROM k'), join("\n", $at + 1 .. 20000), 'what he had read ahead before');
is($owner->query('FETCH ALL FROM l'), join("\n", $there + 501 .. 20000), 'what he reads ahead now');
$owner->close;

# Many at once, each with a little, all the time: everybody's rows are right.
@idle = hoard(4, 3000);
my @busy = map { $c->session } 1 .. 4;
foreach my $round (1 .. 4)
{
	$_->send($rows) foreach @busy;
	my $id = 3000 + $round;
	is($_->query('FETCH 1 FROM k'), $id, 'a cursor beside scans') foreach @idle;
	is($_->wait, $right, 'a scan beside cursors') foreach @busy;
}
$_->close foreach @busy;

# What is still on its way is not taken: the page server is silent.
my $rule = $p->rule('link=0 tag=getpage silent');
my $s = $idle[0];
$s->send('FETCH ALL FROM k');
foreach (1 .. 3600)
{
	last if $p->fired($rule);
	select undef, undef, undef, 0.05;
}
cmp_ok($p->fired($rule), '>=', 1, 'pages are asked for, and do not come');
select undef, undef, undef, 1.5;
$p->clear;
is(scalar(split /\n/, $s->wait), 20000 - 3004, 'they come in the end');
is($c->sql($rows), $right, 'rows');
$_->close foreach @idle;
all_back();
$watch->close;
is($c->counter('stale_answers'), 0, 'no answer was old');
$c->check_logs;
undef $c;
done_testing();
