# A page server that lies: wrong id, wrong echo, answers swapped, doubled, cut
# off, garbled, lost, other pages in perfect answers. Never a wrong page: the
# connection is dropped and the request asked again, a counter moves, the log
# says why; what no second answer can settle is an error that names the block.
# Without the comparison of answers with requests (src/net/conn.c) the rows come
# back wrong or the backend hangs; without the check of pages in read.c the
# query fails on the first damaged one.
use strict;
use warnings;

use Test::More;
use NeonComm::Cluster;
use NeonComm::Proxy;

my $c = NeonComm::Cluster->new(shards => 2, checksums => 1,
	conf => [ 'neon_comm.silence_timeout=1s', 'neon_comm.connections_per_shard=2',
		'max_parallel_workers_per_gather=0' ]);
my $p = NeonComm::Proxy->new(seed => 11);

# Rows name their own block, so a page in the wrong place is seen.
$c->sql(q{CREATE TABLE self (id int, f text) WITH (fillfactor = 10);
	INSERT INTO self SELECT g, lpad(g::text, 700, '0') FROM generate_series(0, 1199) g;
	CREATE TABLE other (id int, f text) WITH (fillfactor = 10);
	INSERT INTO other SELECT -g, lpad(g::text, 700, 'x') FROM generate_series(0, 1199) g;});
cmp_ok($c->sql(q{SELECT pg_relation_size('self')}), '>', 8 * 1024 * 1024, 'larger than shared buffers');
$c->use_proxy($p, 2);
my $look = q{SELECT count(*), sum(id), count(*) FILTER (WHERE (ctid::text::point)[0]::int <> id OR f <> lpad(id::text, 700, '0')) FROM self};
my $right = '1200|719400|0';
is($c->sql($look), $right, 'rows are right');

# [rule, counters of which one must move, what the log must say].  After a lost answer the
# connection is silent, or the answer to the next request comes, which is a wrong one then.
my @lies = (
	[ 'tag=getpage nth=20 count=3 every=25 wrongid', 'connections_poisoned', 'request id' ],
	[ 'tag=getpage nth=20 count=3 every=25 wrongecho=block', 'connections_poisoned', 'block' ],
	[ 'tag=getpage nth=20 count=3 every=25 wrongecho=rel', 'connections_poisoned', 'relation' ],
	[ 'tag=getpage nth=20 count=3 every=25 wrongecho=lsn', 'connections_poisoned', 'not_modified_since' ],
	[ 'tag=getpage nth=20 count=2 every=25 dup', 'connections_poisoned', 'nobody asked for' ],
	[ 'tag=getpage nth=20 count=2 every=25 corrupt=5', 'connections_poisoned', 'malformed answer' ],
	[ 'tag=getpage nth=20 count=2 every=25 corrupt=1', 'connections_poisoned', 'impossible length' ],
	[ 'tag=getpage nth=20 count=3 every=25 truncate=4000', 'disconnects', 'connection lost' ],
	[ 'tag=getpage nth=20 count=2 every=25 eat', 'connections_silent connections_poisoned', 'no answer in time' ],
	[ 'tag=getpage nth=20 count=3 every=25 rst', 'disconnects', 'connection lost' ],
	[ 'tag=getpage nth=20 count=3 every=25 drop', 'disconnects', 'connection lost' ],
	[ 'tag=getpage nth=20 count=3 every=25 pgerror=57P01', 'disconnects', '57P01' ],
	[ 'tag=getpage nth=20 count=3 every=25 error=LSN_timeout:_injected', 'page_server_errors', 'LSN timeout: injected' ],
	[ 'tag=getpage nth=20 count=3 every=25 error=wrong_shard:_injected', 'page_server_errors', 'wrong shard: injected' ],
	[ 'tag=getpage nth=20 count=3 every=25 corrupt=4000', 'damaged_answers', 'damaged block' ],
	[ 'tag=getpage nth=20 count=3 every=25 lie=other', 'damaged_answers', 'damaged block' ],
	[ 'dir=c2s tag=getpage nth=20 count=2 every=25 eat', 'connections_silent connections_poisoned', 'no answer in time' ],
	[ 'dir=c2s tag=getpage nth=20 count=2 every=25 corrupt=6', 'connections_poisoned', 'request id' ],
);
sub sum_of
{
	my ($names) = @_;
	my $sum = 0;
	$sum += $c->counter($_) foreach split / /, $names;
	return $sum;
}

foreach my $lie (@lies)
{
	my ($rule, $counter, $text) = @$lie;
	my $before = sum_of($counter);
	my $id = $p->rule($rule);
	my ($name) = $rule =~ /(?:count=\d+ every=\d+ )(.*)/;

	is($c->sql($look), $right, "$name: rows are right");
	cmp_ok($p->fired($id), '>=', 1, "$name: it happened");
	# somebody who was given his page over another connection does not wait for the end of this one
	my $names = join ',', map { "'$_'" } split / /, $counter;
	ok($c->wait_for("SELECT sum(value) > $before FROM neon_comm.counters WHERE name IN ($names)"), "$name: $counter moved");
	$p->clear;
	push @{ $c->{want} }, [ $name, $text ];
}

# Answers are swapped only where two are under way: several readers on one connection.
$c->configure({ 'neon_comm.connections_per_shard' => 1 });
$p->cmd('cut *');
$p->cmd('delay * 500');
my @s = map { $c->session } 1 .. 4;
# asked first: whoever asks reads, too
my $poisoned = $c->counter('connections_poisoned');
my $swap = $p->rule('tag=getpage every=5 count=6 swap');
foreach my $try (1 .. 5)
{
	# each its own part: readers of the same block wait for one of them
	$s[$_]->send(sprintf("SELECT count(*) FILTER (WHERE (ctid::text::point)[0]::int <> id), count(*) FROM self WHERE ctid >= '(%d,0)' AND ctid < '(%d,0)'", 300 * $_, 300 * $_ + 300)) foreach 0 .. 3;
	is($_->wait, '0|300', 'swapped answers: rows are right') foreach @s;
	last if $p->fired($swap);
}
cmp_ok($p->fired($swap), '>=', 1, 'answers were swapped');
# readers may have had their pages over another connection before the end of this one
ok($c->wait_for("SELECT value > $poisoned FROM neon_comm.counters WHERE name = 'connections_poisoned'"), 'which ended the connection');
$p->clear;
$p->cmd('delay * 0');
$_->close foreach @s;

# Lies that no second answer settles are errors that name block and cause.
$c->allow_log(qr/from the future|old version of block|could not read block|invalid page/);
$p->rule('tag=getpage lie=lsn');
my ($rc, $out, $err) = $c->try_sql("SELECT sum(id) FROM self");
isnt($rc, 0, 'a server that has a future is not believed');
like($err, qr/invalid page in block \d+|from the future/, 'and the error says so') or diag($err);
$p->clear;
$p->rule('tag=getpage error=Read_error:_injected');
($rc, $out, $err) = $c->try_sql("SELECT sum(id) FROM other");
like($err, qr/could not read block \d+ of relation \d+\/\d+\/\d+ from its page server: shard \d \(127\.0\.0\.1:\d+\): Read error: injected/,
	'a final error names relation, block, shard, address and cause');
like($err, qr/Asked for request_lsn [0-9A-F]+\/[0-9A-F]+, not_modified_since [0-9A-F]+\/[0-9A-F]+/, 'and LSNs');
$p->clear;

# An old version of a page that was written since: never used.
$p->rule('tag=exists pass');
$p->rule('tag=getpage p=0 lie=old');
$c->sql('SELECT sum(id) FROM self');
$c->sql('UPDATE self SET f = f WHERE id % 4 = 0');
$c->evict;
my $old = $p->rule('tag=getpage lie=old');
($rc, $out, $err) = $c->try_sql($look);
cmp_ok($p->fired($old), '>=', 1, 'an old version was given');
like($err, qr/old version of block \d+ of relation/, 'and refused') or diag("$rc $out");
$p->clear;
cmp_ok($c->counter('stale_answers'), '>=', 1, 'which is counted');
is($c->sql('SELECT count(*), sum(id) FROM self'), '1200|719400', 'the truth afterwards');

is($c->sql('SELECT count(*) FROM neon_comm.slots WHERE pid <> pg_backend_pid()'), 0, 'no slot is left behind');
is($c->sql('SELECT count(*) FROM neon_comm.connections WHERE last_error IS NOT NULL'), 0, 'no trouble is shown that is over');
is($c->counter('found_late'), 0, 'no doorbell was lost');
my $log = $c->log_text('compute');
# lines are rare by design: what happened within five seconds of another trouble may be counted only
my $told = grep { index($log, $_->[1]) >= 0 } @{ $c->{want} };
cmp_ok($told, '>=', 3, 'the log tells causes');
$c->check_logs;
done_testing();
