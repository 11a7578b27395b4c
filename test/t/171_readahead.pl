# Readahead finds sequential and strided reads, forwards and backwards, asks for
# what is read and for little else, and leaves results as they are.
use strict;
use warnings;

use Test::More;
use NeonComm::Cluster;

# nothing is asked for twice because a machine is slow: what is asked for is counted
my $c = NeonComm::Cluster->new(buffers => '2MB', conf => [ 'neon_comm.async_reads=off', 'neon_comm.hedged_reads=off' ]);

$c->sql(q{CREATE EXTENSION pg_prewarm;
	CREATE TABLE self (id int, f text) WITH (fillfactor = 10);
	INSERT INTO self SELECT g, lpad(g::text, 700, '0') FROM generate_series(0, 2999) g;
	CREATE INDEX self_id ON self (id);});
$c->sql('VACUUM self');
my $blocks = $c->sql(q{SELECT pg_relation_size('self') / 8192});
is($blocks, 3000, 'a row in each block');

my $watch = $c->session;
sub counters { return { map { split /\|/ } split /\n/, $watch->query('SELECT name, value FROM neon_comm.counters') } }
sub moved { my ($b) = @_; my $a = counters(); return { map { $_ => $a->{$_} - $b->{$_} } keys %$a } }
counters();

my $wrong = 'SELECT count(*), count(*) FILTER (WHERE (ctid::text::point)[0]::int <> id) FROM self';

# ---- a sequential scan, with and without ----
my %served;
foreach my $window (0, 1, 2, 32, 128, 1024)
{
	my $s = $c->session;
	$s->query("SET neon_comm.readahead_blocks = $window; SET max_parallel_workers_per_gather = 0; SET synchronize_seqscans = off");
	$s->query($wrong);
	$c->evict;
	my $b = counters();
	is($s->query($wrong), "$blocks|0", "window $window: a scan reads the right pages");
	my $m = $served{$window} = moved($b);
	cmp_ok($m->{pages_received}, '<=', 1.01 * $blocks + 20, "window $window: each is asked for once");
}
is($served{0}{readahead_pages}, 0, 'off is off');
foreach my $window (32, 128, 1024)
{
	my $m = $served{$window};
	cmp_ok($m->{readahead_pages}, '>=', 0.9 * $blocks, "window $window: nearly all was read ahead");
	cmp_ok($m->{prefetch_wasted}, '<=', 0.05 * $blocks, "window $window: hardly any in vain");
	cmp_ok($m->{wakes}, '<=', $m->{reads_remote} / 8, "window $window: few wakes");
	cmp_ok($m->{requests}, '<', $m->{reads_remote} / 8, "window $window: few requests");
}
cmp_ok($served{0}{requests}, '>=', 0.9 * $blocks, 'one request a page without it');

# ---- 18: a stream that can pin only a few of these buffers has readahead's memory, too ----
if ($c->sql('SHOW server_version_num') >= 180000)
{
	my $s = $c->session;
	$s->query('SET neon_comm.async_reads = on; SET max_parallel_workers_per_gather = 0; SET synchronize_seqscans = off');
	$s->query($wrong);
	$c->evict;
	my $b = counters();
	is($s->query($wrong), "$blocks|0", 'asynchronous reads, few buffers: a scan reads the right pages');
	my $m = moved($b);
	cmp_ok($m->{readahead_pages}, '>=', 0.9 * $blocks, 'asynchronous reads, few buffers: nearly all was read ahead');
	cmp_ok($m->{pages_received}, '<=', 1.01 * $blocks + 20, 'asynchronous reads, few buffers: each is asked for once');

	# every eighth block by chance, neighbours among them: the stream names them all
	my $bitmap = q{SELECT count(f) FROM self WHERE id = ANY (ARRAY(SELECT g FROM generate_series(0, 2999) g WHERE hashint4(g) % 8 = 0))};
	my $expected = $c->sql('SELECT count(*) FROM generate_series(0, 2999) g WHERE hashint4(g) % 8 = 0');
	$s->query('SET enable_seqscan = off; SET enable_indexscan = off; SET enable_indexonlyscan = off');
	like($s->query("EXPLAIN (COSTS off) $bitmap"), qr/Bitmap Heap Scan/, 'a bitmap heap scan');
	$s->query($bitmap);
	$c->evict;
	$b = counters();
	is($s->query($bitmap), $expected, 'asynchronous reads, few buffers: its rows');
	$m = moved($b);
	is($m->{readahead_pages}, 0, 'asynchronous reads, few buffers: and what it does not name is not asked for');
	cmp_ok($m->{reads_async}, '>=', 0.9 * $expected, 'asynchronous reads, few buffers: it is in flight');
}

# ---- LIMIT 1 reads a page, not a window ----
{
	my $s = $c->session;
	$s->query('SET enable_indexscan = off; SELECT id FROM self LIMIT 1');
	$c->evict;
	my $b = counters();
	$s->query('SELECT id FROM self LIMIT 1');
	cmp_ok(moved($b)->{pages_received}, '<=', 12, 'LIMIT 1 asks for little');
}

# ---- strides, backwards, and order without order ----
sub walk
{
	my ($name, $from, $to, $by, $least, $most) = @_;
	my $s = $c->session;
	my $do = sub {
		return $s->query(qq{DO \$\$ DECLARE got int; b int; BEGIN
			FOR b IN SELECT g FROM generate_series($from, $to, $by) g LOOP
				SELECT id INTO got FROM self WHERE ctid = ('(' || b || ',1)')::tid;
				IF got <> b THEN RAISE EXCEPTION 'block % holds row %', b, got; END IF;
			END LOOP; END \$\$});
	};
	$s->query(q{SELECT id FROM self WHERE ctid = '(0,1)'});
	$c->evict;
	my $b = counters();
	$do->();
	my $m = moved($b);
	cmp_ok($m->{readahead_pages}, '>=', $least, "$name: read ahead");
	cmp_ok($m->{prefetch_wasted}, '<=', $most, "$name: not much in vain");
	return;
}
walk('forwards', 100, 900, 1, 700, 130);
walk('backwards', 2900, 2100, -1, 700, 130);
walk('every seventh block', 0, 2999, 7, 350, 130);
walk('every hundredth block, backwards', 2950, 0, -100, 15, 60);

# ---- pages that nobody reads make the window smaller ----
{
	my $s = $c->session;
	my $b = counters();
	foreach my $first (map { 40 * $_ } 0 .. 29)
	{
		$s->query(join(';', 'BEGIN', (map { "SELECT id FROM self WHERE ctid = '(@{[ $first + $_ ]},1)'" } 0 .. 5), 'COMMIT'));
	}
	my $m = moved($b);
	cmp_ok($m->{prefetch_wasted}, '>', 0, 'reads that stop early waste pages');
	cmp_ok($m->{prefetch_wasted}, '<=', 30 * 12, 'but few');
	is($watch->query('SELECT lent FROM neon_comm.staging()'), 0, 'the memory is given back');

	# one transaction a block: what was asked for ahead is dropped at each end
	$b = counters();
	foreach my $block (1500 .. 1599)
	{
		$s->query("SELECT id FROM self WHERE ctid = '($block,1)'");
	}
	$m = moved($b);
	cmp_ok($m->{readahead_shrunk}, '>', 0, 'a window whose pages are not read shrinks');
	cmp_ok($m->{prefetch_wasted}, '<=', 250, 'so that little is wasted');
}

# ---- parallel scans, VACUUM, index scans, ANALYZE ----
{
	my $s = $c->session;
	$s->query(q{SET max_parallel_workers_per_gather = 2; SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0;
		SET min_parallel_table_scan_size = 0; SET parallel_leader_participation = on});
	like($s->query("EXPLAIN $wrong"), qr/Parallel Seq Scan/, 'a parallel plan');
	$s->query($wrong);
	$c->evict;
	my $b = counters();
	is($s->query($wrong), "$blocks|0", 'a parallel scan reads the right pages');
	my $m = moved($b);
	cmp_ok($m->{pages_received}, '<=', 1.15 * $blocks + 200, 'and hardly any twice');

	$c->evict;
	$b = counters();
	$s->query('SET enable_seqscan = off; SET enable_bitmapscan = off; SET max_parallel_workers_per_gather = 0');
	is($s->query('SELECT count(*) FROM (SELECT f FROM self WHERE id >= 0 ORDER BY id OFFSET 0) x WHERE length(f) = 700'), $blocks, 'an index scan');
	cmp_ok(moved($b)->{pages_received}, '<=', 1.15 * $blocks + 200, 'asks for each page once');

	$s->query(q{UPDATE self SET f = f WHERE id % 3 = 0});
	$c->evict;
	$b = counters();
	$s->query('VACUUM (INDEX_CLEANUP on) self');
	$m = moved($b);
	# one that is still on its way is joined
	cmp_ok($m->{prefetch_hits} + $m->{prefetch_joined}, '>', $blocks / 4, 'VACUUM reads ahead');
	$c->evict;
	$b = counters();
	$s->query('ANALYZE self');
	$m = moved($b);
	cmp_ok($m->{prefetch_hits} + $m->{prefetch_joined}, '>', $blocks / 4, 'ANALYZE reads ahead');
	is($s->query('SELECT count(*) FROM self'), $blocks, 'all rows are there');
}

# ---- one table grows while another session reads it, and shrinks ----
{
	my $s = $c->session;
	$s->query('CREATE TABLE ups (id int, f text) WITH (fillfactor = 10)');
	foreach my $round (1 .. 6)
	{
		$s->query("INSERT INTO ups SELECT g, lpad('$round', 700, 'x') FROM generate_series(1, 400) g");
		$c->evict;
		is($c->sql("SELECT count(*), count(*) FILTER (WHERE f = lpad('$round', 700, 'x')) FROM ups"), "400|400", "round $round: new blocks");
		$s->query('DELETE FROM ups WHERE id > 5');
		$c->evict if $round % 2;
		$c->sql('VACUUM ups');
		$s->query('DELETE FROM ups');
	}
}
# ---- reads of several blocks, with buffers enough that a stream may pin as many ----
SKIP:
{
	my $version = $c->sql('SHOW server_version_num');
	skip "PostgreSQL $version reads block by block; io_combine_limit came with 17", 1 if $version < 170000;
	my $v = NeonComm::Cluster->new(buffers => '32MB', conf => [ 'neon_comm.async_reads=off', 'neon_comm.hedged_reads=off', 'max_connections=20' ]);
	$v->sql(q{CREATE EXTENSION pg_prewarm; CREATE TABLE runs (id int, f text) WITH (fillfactor = 10);
		INSERT INTO runs SELECT g, lpad(g::text, 700, '0') FROM generate_series(0, 899) g});
	$v->sql('VACUUM runs');
	my ($n, $buffers) = (900, 4096);
	is($v->sql(q{SELECT pg_relation_size('runs') / 8192}), $n, 'a row in each block');
	cmp_ok($n, '<', $buffers / 4, 'not so many that a scan has a small ring of buffers');
	my $all = 'SELECT count(*), sum(id) FROM runs';
	# what a cold scan by these settings has moved
	my $cold = sub {
		my ($name, $settings, $sql) = @_;
		$v->restart('compute');
		my ($look, $scan) = ($v->session, $v->session);
		$scan->query("$settings; SET max_parallel_workers_per_gather = 0");
		# catalogs are read, the table is not
		$scan->query("EXPLAIN $all");
		$scan->query(q{SELECT count(*), sum(attnum) FROM pg_attribute; DO $$ DECLARE got int; BEGIN
			SELECT reltuples INTO got FROM pg_class WHERE ctid = ('(' || 0 || ',1)')::tid; END $$});
		my $count = sub { return { map { split /\|/ } split /\n/, $look->query('SELECT name, value FROM neon_comm.counters') } };
		$count->();
		my $b = $count->();
		is($scan->query($sql), "$n|404550", "$name: all is there");
		my $a = $count->();
		my %m = map { $_ => $a->{$_} - $b->{$_} } keys %$a;
		cmp_ok($m{reads_remote}, '>=', $n, "$name: a cold scan");
		cmp_ok($m{pages_received} - $m{reads_remote}, '<=', 8, "$name: asks for no page twice")
			or diag(join ' ', map { "$_=$m{$_}" } grep { $m{$_} != 0 } sort keys %m);
		return \%m;
	};
	foreach my $case (map { my $limit = $_; map { [ $limit, $_ ] } 0, 128 } '128kB', '256kB')
	{
		my ($limit, $window) = @$case;
		my $name = "io_combine_limit $limit, window $window";
		my $m = $cold->($name, "SET io_combine_limit = '$limit'; SET neon_comm.readahead_blocks = $window", $all);
		cmp_ok($m->{requests}, '<=', $n / 6, "$name: and for many at a time");
		cmp_ok($m->{readahead_pages}, '>=', 0.8 * $n, "$name: nearly all ahead") if $window > 0;
	}
	# a stream that begins with the largest reads that there are
	my $m = $cold->('pg_prewarm', q{SET io_combine_limit = '256kB'}, "SELECT pg_prewarm('runs'), 404550");
	cmp_ok($m->{readahead_pages}, '>=', 0.8 * $n, 'pg_prewarm: nearly all ahead');
	# every seventh block has been asked for when a scan comes by for which nothing is read ahead
	my $sevenths = q{DO $$ DECLARE got int; BEGIN FOR b IN 0 .. 20 LOOP
		SELECT id INTO got FROM runs WHERE ctid = ('(' || 7 * b || ',1)')::tid; END LOOP; END $$};
	$m = $cold->('a scan among what was asked for', q{SET io_combine_limit = '128kB'},
		"BEGIN; $sevenths; SET neon_comm.readahead_blocks = 0; $all; COMMIT");
	cmp_ok($m->{prefetch_hits} + $m->{prefetch_joined}, '>=', 30, 'what was asked for is used');
	# streams whose reads the communicator completes look ahead themselves, and only they
	if ($version >= 180000)
	{
		# a window that their pins reach
		my $on = 'SET neon_comm.async_reads = on; SET neon_comm.readahead_blocks = 32';
		$m = $cold->('asynchronous reads', $on, $all);
		cmp_ok($m->{readahead_pages}, '<=', 16, 'asynchronous reads of a stream: nothing is read ahead for them');
		$m = $cold->('asynchronous reads among what was asked for', $on, "BEGIN; $sevenths; $all; COMMIT");
		cmp_ok($m->{readahead_pages}, '<=', 120, 'nor where they meet what was asked for');
		$m = $cold->('single buffers', $on, qq{DO \$\$ DECLARE got int; BEGIN FOR b IN 0 .. $n - 1 LOOP
			SELECT id INTO got FROM runs WHERE ctid = ('(' || b || ',1)')::tid;
			IF got <> b THEN RAISE EXCEPTION 'block % holds row %', b, got; END IF; END LOOP; END \$\$; $all});
		cmp_ok($m->{readahead_pages}, '>=', 0.8 * $n, 'single buffers: read ahead as without');
	}
	$v->check_logs;
}
is($c->counter($_), 0, "$_ is 0") foreach ('found_late', 'stale_answers', 'future_answers', 'connections_poisoned');
$c->check_logs;
done_testing();
