# The contract of the storage layer, clause by clause: what every user of it may
# rely on whatever page servers, connections and other processes do.  Each
# subtest is named after its clause; docs/faults.md lists the rest of the tests
# that belong to it.
use strict;
use warnings;

use Test::More;
use Time::HiRes qw(time usleep);
use NeonComm::Cluster;
use NeonComm::Proxy;

# page servers hold every block, and here they may be asked for any
my $c = NeonComm::Cluster->new(shards => 2, ps_conf => ['neon_page_service.shard_count=0'], conf => [ 'log_checkpoints=off', 'max_connections=40',
		'synchronize_seqscans=off', 'neon_comm.silence_timeout=1h', 'neon_comm.lfc_size=64MB', 'neon_comm.lfc_size_limit=0' ]);
my $p = NeonComm::Proxy->new(seed => 11);

# Rows that know their block: 8 to a page.  A row elsewhere is a wrong page.
$c->sql(q{CREATE TABLE t AS SELECT g AS id, (g - 1) / 8 AS blk, 0 AS v, repeat('x', 890) AS f
	FROM generate_series(1, 4000) g;
	CREATE INDEX ON t (id);});
my $wrong = q{SELECT count(*) FILTER (WHERE (ctid::text::point)[0]::int <> blk), count(*) FROM t};
is($c->sql($wrong), '0|4000', 'the rows are where they say');
cmp_ok($c->sql(q{SELECT pg_relation_size('t')}), '>', 3 * 1024 * 1024, 'and the table is larger than shared buffers');
$c->use_proxy($p, 2);

# A block in the middle: a scan reads it from a page server each time, for what a scan leaves in
# shared buffers is its end. With it a rule means one request, whoever else asks for what.
my $rel = $c->sql(q{SELECT pg_relation_filenode('t')});
my $block = 300;
my $held = "tag=getpage rel=$rel block=$block hold";
my $asks = qq{SELECT count(*) %s 0 FROM neon_comm.slots WHERE state = 'taken' AND pid = %d AND relfilenode = $rel AND block = $block};
# It sees what the others wait for, and needs no page itself.
my $watch = $c->session;

sub waits { my ($pid) = @_; return $watch->wait_for(sprintf($asks, '>', $pid)) }
sub waits_no_more { my ($pid) = @_; return $watch->wait_for(sprintf($asks, '=', $pid)) }

# An answer has come as far as the rule: who waits for it may be slower than the page server, or faster.
sub acted
{
	my ($rule) = @_;
	foreach (1 .. 6000) { last if $p->fired($rule) > 0; usleep(20_000) }
	return cmp_ok($p->fired($rule), '>', 0, 'its answer is held back');
}

# Answers that were held back come, and no more are.
sub release { $p->clear; $p->cmd('release *'); return }

sub idle
{
	return $c->wait_for(q{SELECT (SELECT count(*) FROM neon_comm.slots WHERE pid <> pg_backend_pid()) = 0
		AND (SELECT coalesce(sum(in_flight), 0) FROM neon_comm.connections) = 0});
}

subtest 'contract 01: an answer must match its request in every part, or its connection is dropped' => sub {
	foreach my $fault ('wrongid', 'wrongecho=lsn', 'wrongecho=rel', 'wrongecho=block', 'dup', 'corrupt=6')
	{
		my $before = $c->counter('connections_poisoned');
		my $rule = $p->rule("tag=getpage nth=30 every=100 count=3 $fault");
		is($c->sql($wrong), '0|4000', "$fault: every row is right");
		cmp_ok($p->fired($rule), '>', 0, "$fault: it happened");
		# it may have come after the page, which was asked for over two connections
		ok($c->wait_for("SELECT value > $before FROM neon_comm.counters WHERE name = 'connections_poisoned'"), "$fault: and was noticed");
		$p->clear;
	}
};

# What is read ahead is neither asked for again nor given up by its reader, nor is what was asked for twice: not here.
$c->configure({ 'neon_comm.readahead_blocks' => 0, 'neon_comm.hedged_reads' => 'off' });
ok($c->wait_for(q{SELECT setting = '0' FROM pg_settings WHERE name = 'neon_comm.readahead_blocks'}), 'nothing is read ahead');

subtest 'contract 02: a lost connection takes nothing with it, and what was asked on it is asked again' => sub {
	foreach my $fault ('drop', 'rst', 'truncate=3000')
	{
		my ($lost, $again) = map { $c->counter($_) } 'disconnects', 'resent';
		my $rule = $p->rule("tag=getpage nth=50 every=200 count=5 $fault");
		is($c->sql($wrong), '0|4000', "$fault: every row is right, no error");
		cmp_ok($p->fired($rule), '>', 0, "$fault: it happened");
		cmp_ok($c->counter('disconnects'), '>', $lost, "$fault: connections were lost");
		cmp_ok($c->counter('resent'), '>', $again, "$fault: requests were sent again");
		$p->clear;
		ok(idle(), "$fault: nothing is left of them");
	}
};

$c->configure({ 'neon_comm.hedged_reads' => 'on' });

subtest 'contract 03: cancel, terminate and exit at any wait; a late answer is thrown away' => sub {
	my $s = $c->session;
	my $pid = $s->pid;
	my $late = $c->counter('late_answers');
	my $cancels = $c->counter('request_cancels');

	waits_no_more($pid);
	$watch->query("EXPLAIN SELECT pg_cancel_backend($pid), pg_terminate_backend($pid)");
	my $rule = $p->rule($held);
	$s->query('SET max_parallel_workers_per_gather = 0');
	$s->send($wrong);
	ok(waits($pid), 'it waits');
	acted($rule);
	$watch->query("SELECT pg_cancel_backend($pid)");
	$s->wait;
	like($s->{last_error} // '', qr/canceling statement/, 'cancel ends it');
	# which comes while the next statement reads into the same buffers
	$s->send($wrong);
	release();
	is(($s->wait)[0], '0|4000', 'and the next statement is right');
	ok($c->wait_for("SELECT value > $late FROM neon_comm.counters WHERE name = 'late_answers'"), 'the late answer is thrown away');
	$late = $c->counter('late_answers');
	# terminate: with a temporary table, whose removal at exit goes through the storage manager
	$s->query('CREATE TEMP TABLE tt AS SELECT * FROM t LIMIT 2000');
	$rule = $p->rule($held);
	$s->send($wrong);
	ok(waits($pid), 'it waits again');
	acted($rule);
	$watch->query("SELECT pg_terminate_backend($pid)");
	ok(waits_no_more($pid), 'terminate ends the wait');
	release();
	ok($c->wait_for("SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $pid"), 'and the process');
	ok($c->wait_for(q{SELECT count(*) = 0 FROM pg_class WHERE relname = 'tt'}), 'and its temporary table is gone');
	ok($c->wait_for("SELECT value > $late FROM neon_comm.counters WHERE name = 'late_answers'"), 'this late answer, too');
	ok(idle(), 'no slot and no request is left of them');
	is($c->sql($wrong), '0|4000', 'every row is right');
	cmp_ok($c->counter('request_cancels'), '>=', $cancels + 2, 'requests were given up');
};

$c->configure({ 'neon_comm.readahead_blocks' => 128 });
ok($c->wait_for(q{SELECT setting = '128' FROM pg_settings WHERE name = 'neon_comm.readahead_blocks'}), 'pages are read ahead again');

subtest 'contract 04: a page is used only if it is no older than the version that was let go' => sub {
	my $stale = $c->counter('stale_answers');
	$c->sql(q{CREATE TABLE u AS SELECT g AS id, 0 AS v, repeat('u', 200) AS f FROM generate_series(1, 4000) g});
	foreach my $round (1 .. 3)
	{
		$c->sql("UPDATE u SET v = $round");
		$c->evict;
		is($c->sql('SELECT count(*), min(v), max(v) FROM u'), "4000|$round|$round", "round $round is read back");
	}
	$c->sql('DROP TABLE u');
	is($c->counter('stale_answers'), $stale, 'page servers sent no old version');
};

subtest 'contract 05: the version asked for is durable before it is asked for' => sub {
	my $before = $c->counter('lsn_flushes');
	# asynchronous commits leave WAL unflushed; extended blocks are dated by where WAL is inserted
	$c->sql(q{SET synchronous_commit = off; CREATE TABLE ahead (v int, f text);
		INSERT INTO ahead SELECT g, repeat('a', 900) FROM generate_series(1, 4000) g;
		SELECT count(*) FROM ahead; SELECT count(*) FROM t; SELECT count(*) FROM ahead;});
	is($c->sql('SELECT count(*), sum(v) FROM ahead'), '4000|8002000', 'what was not flushed is read back');
	cmp_ok($c->counter('lsn_flushes'), '>=', $before, 'flushes are counted');
	is($c->counter('future_answers'), 0, 'no answer was ahead of this server');
	$c->sql('DROP TABLE ahead');
};

subtest 'contract 06: write, extend, truncate, drop, create and unlogged builds leave nothing behind' => sub {
	foreach my $round (1 .. 3)
	{
		$c->sql(qq{CREATE TABLE w AS SELECT g AS id, $round AS r, repeat('w', 700) AS f FROM generate_series(1, 3000) g;
			CREATE INDEX w_i ON w (id); CREATE INDEX w_g ON w USING gin ((ARRAY[id % 10]));});
		$c->evict;
		is($c->sql('SELECT count(*), min(r), max(r) FROM w'), "3000|$round|$round", "round $round: created");
		$c->sql('DELETE FROM w WHERE id > 500; VACUUM w;');
		$c->sql("INSERT INTO w SELECT g, 10 + $round, 'again' FROM generate_series(501, 2000) g");
		$c->evict;
		is($c->sql('SELECT count(*), count(*) FILTER (WHERE r > 10) FROM w'), '2000|1500', "round $round: truncated and grown");
		is($c->sql('SET enable_seqscan = off; SELECT count(*) FROM w WHERE id BETWEEN 400 AND 600'), 201, "round $round: index agrees");
		$c->sql('TRUNCATE w');
		$c->evict;
		is($c->sql('SELECT count(*) FROM w'), 0, "round $round: emptied");
		$c->sql('DROP TABLE w');
	}
};

subtest 'contract 07: trouble of the file cache is no error and no wrong page; what it holds is whole' => sub {
	my $file = "$c->{dir}/compute/neon_comm.lfc";
	my $state = q{SELECT state = 'on' FROM neon_comm.lfc};

	$c->configure({ 'neon_comm.lfc_size_limit' => '64MB' });
	ok($c->wait_for($state), 'the cache is on');
	is($c->sql($wrong), '0|4000', 'read into the cache');
	ok($c->wait_for('SELECT staged_pages = 0 FROM neon_comm.lfc'), 'all is written');
	my $hits = $c->counter('lfc_hits');
	is($c->sql($wrong), '0|4000', 'and read from it');
	cmp_ok($c->counter('lfc_hits'), '>', $hits, 'with hits');
	# somebody writes into the file, and then cuts it
	my $bad = $c->counter('lfc_mismatches');
	open my $fh, '+<:raw', $file or die $!;
	for (my $at = 4000; $at < -s $file; $at += 8192) { seek $fh, $at, 0; print $fh 'garbage'; }
	close $fh;
	is($c->sql($wrong), '0|4000', 'damaged blocks are not used');
	cmp_ok($c->counter('lfc_mismatches'), '>', $bad, 'and counted');
	is($c->sql($wrong), '0|4000', 'again');
	truncate $file, 8192 or die $!;
	is($c->sql($wrong), '0|4000', 'a file that was cut');
	foreach my $limit ('1MB', '0', '64MB')
	{
		$c->configure({ 'neon_comm.lfc_size_limit' => $limit });
		is($c->sql($wrong), '0|4000', "limit $limit");
	}
	ok($c->wait_for($state), 'the cache is on again');
	$c->configure({ 'neon_comm.lfc_size_limit' => 0 });
	ok($c->wait_for(q{SELECT state <> 'on' FROM neon_comm.lfc}), 'the cache is off again');
};

subtest 'contract 08: shard count, stripe size and addresses change as one, with requests in flight' => sub {
	my $s = $c->session;
	my @ports = map { $p->link("new$_", $c->page_server_port($_)) } 0, 1;
	my $old = $c->sql('SHOW neon_comm.page_servers');
	my $changes = $c->counter('map_changes');

	my $taken = q{SELECT value >= %d FROM neon_comm.counters WHERE name = 'map_changes'};

	$watch->query(sprintf($taken, 0));
	$p->cmd('delay * 500');
	foreach my $round (1 .. 4)
	{
		my ($list, $stripe) = $round % 2 ? ($c->page_server_list(@ports[ 0 .. ($round > 2 ? 0 : 1) ]), 4) : ($old, 8);
		my $rule = $p->rule($held);
		$s->send($wrong);
		# read ahead or waited for: it is under way when the map changes
		usleep(20_000) until $p->fired($rule) > 0 || $s->ready;
		$c->configure({ 'neon_comm.page_servers' => $list, 'neon_comm.stripe_size' => $stripe });
		ok($watch->wait_for(sprintf($taken, $changes + $round)), "change $round is taken over");
		ok(!$s->ready, "change $round: while a request was under way");
		release();
		is(($s->wait)[0], '0|4000', "change $round: every row is right");
	}
	is($c->sql($wrong), '0|4000', 'and after the last one');
	$p->cmd('delay * 0');
	cmp_ok($p->stat('new0', 'accepted'), '>', 0, 'the other addresses were used');
};

subtest 'contract 09: a wait is interruptible, does not spin, and ends when it should' => sub {
	my $s = $c->session;
	$s->query('SET max_parallel_workers_per_gather = 0');
	$s->query($wrong);
	my ($turns, $sleeps) = map { $c->counter($_) } 'loop_turns', 'client_sleeps';
	$p->rule('tag=getpage silent');
	my (undef, $err) = $s->try(q{SET statement_timeout = '2s'; SELECT sum(id) FROM t});
	like($err, qr/statement timeout/, 'statement_timeout ends it');
	(undef, $err) = $s->try(q{SET statement_timeout = 0; SET neon_comm.request_timeout = '1s'; SELECT sum(id) FROM t});
	like($err, qr/no answer from page servers for block \d+ of relation/, 'the deadline ends it and says what for');
	$p->clear;
	$p->cmd('cut *');
	is(($s->query("RESET neon_comm.request_timeout; $wrong"))[0], '0|4000', 'and then all is well');
	ok(idle(), 'nothing is left');
	# two waits of seconds and one scan of 500 pages: a turn each would be some thousands
	cmp_ok($c->counter('loop_turns') - $turns, '<', 50_000, 'the communicator did not spin');
	cmp_ok($c->counter('client_sleeps') - $sleeps, '<', 10_000, 'nor did the process');
	is($c->counter('found_late'), 0, 'no doorbell was lost');
};

subtest 'contract 10: trouble with connections is tried again, a refusal is not; a new address ends the wait' => sub {
	my ($before, $twice) = map { $c->counter($_) } 'page_server_errors', 'hedged_reads';
	my $s = $c->session;
	# what is refused to readahead, or to a read that nobody waits for yet, is asked for again by who needs it
	$s->query('SET max_parallel_workers_per_gather = 0; SET neon_comm.readahead_blocks = 0; SET neon_comm.async_reads = off');
	my $rule = $p->rule("tag=getpage rel=$rel block=$block error=relation_is_corrupt_beyond_repair");
	my (undef, $err) = $s->try('SELECT sum(id) FROM t');
	like($err, qr/ERROR: .*relation.is.corrupt.beyond.repair/, 'a refusal ends the statement with what the page server said');
	$twice = $c->counter('hedged_reads') - $twice;
	my $asked = $p->fired($rule);
	ok($asked == 1 || ($asked == 2 && $twice > 0), 'and it was asked once, or over two connections at once')
	  or diag("$asked times, $twice requests sent twice");
	cmp_ok($c->counter('page_server_errors'), '>', $before, 'and counted');
	$p->clear;
	# nobody answers: it is tried again, not in a tight loop, and a new address is used at once
	$s->query("RESET neon_comm.readahead_blocks; RESET neon_comm.async_reads; $wrong");
	$rule = $p->rule('on=connect link=0 refuse');
	$p->rule('on=connect link=1 refuse');
	$p->cmd('cut *');
	$s->send($wrong);
	my $began = time;
	# no SQL here: the catalog's pages come from page servers too
	usleep(20_000) until $p->fired($rule) >= 5 || time - $began > 300;
	cmp_ok($p->fired($rule), '>=', 5, 'it keeps trying');
	my $sooner = $p->fired($rule);
	cmp_ok($sooner, '<', 200 + 100 * (time - $began), 'with pauses');
	my @ports = map { $p->link("third$_", $c->page_server_port($_)) } 0, 1;
	$c->configure({ 'neon_comm.page_servers' => $c->page_server_list(@ports) });
	is(($s->wait)[0], '0|4000', 'the statement that waited goes on over the new address') or diag($s->{last_error});
	$p->clear;
};

subtest 'contract 11: every kind of process reads and is counted' => sub {
	my $before = $c->counter('reads_remote');
	my @s = map { $c->session } 1 .. 20;
	$_->query('SET max_parallel_workers_per_gather = 2; SET min_parallel_table_scan_size = 0; SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0')
	  foreach @s;
	$_->send($wrong) foreach @s;
	is(($_->wait)[0], '0|4000', 'one of twenty sessions with parallel workers') foreach @s;
	$c->sql('VACUUM ANALYZE t; CHECKPOINT;');
	cmp_ok($c->counter('reads_remote'), '>', $before + 500, 'pages were counted');
	# truncation ends in a critical section and must not need a page server
	is($c->sql(q{SELECT count(*) FROM pg_stat_activity WHERE backend_xmin IS NOT NULL AND pid <> pg_backend_pid()}), 0, 'no old snapshot');
	$c->sql('CREATE TABLE cut AS SELECT * FROM t ORDER BY id; DELETE FROM cut WHERE id > 100');
	# FREEZE: else VACUUM passes by a page that somebody has just pinned to write it, and cuts nothing before it
	$c->sql('VACUUM FREEZE cut');
	is($c->sql(q{SELECT count(*), pg_relation_size('cut') < 1000000 FROM cut}), '100|t', 'VACUUM truncates');
};

subtest 'contract 12: the death of the communicator ends in a defined state, without loss' => sub {
	$c->sql('CREATE TABLE acked (v int)');
	foreach my $round (1 .. 2)
	{
		$c->sql("INSERT INTO acked SELECT $round FROM generate_series(1, 120)");
		my $pid = $c->sql('SELECT communicator_pid FROM neon_comm.status()');
		kill 'KILL', $pid;
		ok($c->wait_for("SELECT communicator_pid NOT IN (0, $pid) FROM neon_comm.status()"),
			"round $round: the server has one again");
		is($c->sql($wrong), '0|4000', "round $round: every row is right");
		is($c->sql('SELECT count(*) FROM acked WHERE v = ' . $round), 120, "round $round: nothing committed is lost");
	}
};

$c->allow_log(qr/relation.is.corrupt.beyond.repair/);
$c->check_logs;
done_testing();
