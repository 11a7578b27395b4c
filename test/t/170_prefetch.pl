# Pages asked for ahead by the executor (smgrprefetch): used when they are the
# pages that a read would bring, joined when they are on their way, asked for
# again when they are lost, given back at the end of a transaction or a process.
# Every counter of prefetch is moved here or in 171.
use strict;
use warnings;

use Test::More;
use NeonComm::Cluster;

my $c = NeonComm::Cluster->new(buffers => '2MB',
	conf => [ 'neon_comm.async_reads=off', 'neon_comm.connections_per_shard=1', 'neon_comm.connection_depth=2',
		'neon_comm.readahead_blocks=0' ]);

$c->sql(q{CREATE EXTENSION pg_prewarm;
	CREATE TABLE self (id int, f text) WITH (fillfactor = 10);
	INSERT INTO self SELECT g, lpad(g::text, 700, '0') FROM generate_series(0, 999) g;
	CREATE INDEX ON self (id);});
$c->sql('VACUUM self');
cmp_ok($c->sql(q{SELECT pg_relation_size('self')}), '>=', 3 * 2 * 1024 * 1024, 'larger than shared buffers');

# The counters that a piece of work moved, in a session of its own that was there before.
my $watch = $c->session;
$watch->query(q{SET plan_cache_mode = force_generic_plan;
	PREPARE counters AS SELECT name, value FROM neon_comm.counters;
	PREPARE lent AS SELECT lent FROM neon_comm.staging();
	PREPARE slots(int) AS SELECT count(*) FROM neon_comm.slots WHERE pid = $1;
	PREPARE status(bigint) AS SELECT epoch > $1 FROM neon_comm.status();
	PREPARE restart AS SELECT neon_comm.restart_communicator();
	PREPARE stop(int) AS SELECT pg_terminate_backend($1, 30000);});
sub counters { return { map { split /\|/ } split /\n/, $watch->query('EXECUTE counters') } }
sub slots { my ($pid) = @_; return $watch->query("EXECUTE slots($pid)") }
sub status { my ($epoch) = @_; return $watch->query("EXECUTE status($epoch)") }
sub moved { my ($b) = @_; my $a = counters(); return { map { $_ => $a->{$_} - $b->{$_} } keys %$a } }
sub lent { return $watch->query('EXECUTE lent') }
sub wait_moved
{
	my ($b, $name, $n) = @_;
	foreach (1 .. 3000)
	{
		return 1 if counters()->{$name} - $b->{$name} >= $n;
		select undef, undef, undef, 0.02;
	}
	return 0;
}

# a session whose catalogs are known, so that it reads nothing but the table
sub reader
{
	my $s = $c->session;
	$s->query(q{SET enable_seqscan = off; SET effective_io_concurrency = 16; SET max_parallel_workers_per_gather = 0;
		PREPARE ahead(int, int) AS SELECT pg_prewarm('self', 'prefetch', 'main', $1, $2);
		PREPARE scattered(int, int) AS SELECT count(pg_prewarm('self', 'prefetch', 'main', b, b)) FROM generate_series($1, $2, 2) b;
		PREPARE one(int) AS SELECT id FROM self WHERE ctid = ('(' || $1 || ',1)')::tid;
		PREPARE wrong AS SELECT count(*) FROM self WHERE id BETWEEN 0 AND 999 AND (ctid::text::point)[0]::int <> id;
		EXECUTE ahead(0, 0); EXECUTE scattered(0, 0); EXECUTE one(0);});
	$s->pid;
	return $s;
}

# ---- bitmap scans ----
{
	my $s = reader();
	$c->evict;
	$s->query('SET enable_indexscan = off; EXECUTE wrong');
	my $b = counters();
	is($s->query('EXECUTE wrong'), 0, 'a bitmap scan reads the right pages');
	my $m = moved($b);
	SKIP:
	{
		skip 'read streams of 18 name no blocks of a sequence', 1 if $c->sql('SHOW server_version_num') >= 180000;
		cmp_ok($m->{prefetch_issued}, '>', 500, 'most pages were asked for ahead');
	}
	cmp_ok($m->{prefetch_hits} + $m->{prefetch_joined}, '>=', 0.95 * $m->{prefetch_issued}, 'and read');
	cmp_ok($m->{prefetch_wasted}, '<=', 0.05 * $m->{prefetch_issued}, 'hardly any in vain');
	cmp_ok($m->{pages_received}, '<=', 1.05 * 1000, 'none was asked for twice');
	is(lent(), 0, 'the memory is given back');

	# a scan that ends early
	$b = counters();
	is($s->query('SELECT id FROM self WHERE id BETWEEN 100 AND 900 LIMIT 1'), 100, 'a scan ends after a row');
	$m = moved($b);
	cmp_ok($m->{prefetch_issued}, '<=', 20, 'it asked for no more than effective_io_concurrency says');
	is($m->{prefetch_issued}, $m->{prefetch_hits} + $m->{prefetch_joined} + $m->{prefetch_wasted} +
		$m->{prefetch_stale} + $m->{prefetch_failed}, 'each page asked for ahead is accounted for');
	is(lent(), 0, 'the memory is given back');

	# sizes of all kinds, and another table right after an abandoned scan
	foreach my $eic (0, 1, 2, 31, 64, 1000)
	{
		$s->query("SET effective_io_concurrency = $eic");
		is($s->query('EXECUTE wrong'), 0, "effective_io_concurrency $eic");
		$s->query("SELECT id FROM self WHERE id BETWEEN $eic AND 990 LIMIT 3");
		is($s->query('SELECT count(*) FROM nc_evict WHERE filler <> repeat(\'x\', 900)'), 0, 'another table is right');
	}
	$b = counters();
	$s->query('BEGIN; EXECUTE ahead(0, 900); COMMIT');
	cmp_ok(moved($b)->{prefetch_refused}, '>', 0, 'more than slots and quota allow is refused');
	is(lent(), 0, 'the memory is given back');
}

# ---- relations that are not on page servers, and blocks that are not there ----
{
	my $s = $c->session;
	$s->query(q{SET enable_seqscan = off; SET enable_indexscan = off; SET effective_io_concurrency = 100; SET temp_buffers = '1MB';
		CREATE TEMP TABLE tt (id int, f text) WITH (fillfactor = 10); CREATE UNLOGGED TABLE ul (LIKE tt) WITH (fillfactor = 10);
		INSERT INTO tt SELECT id, f FROM self; INSERT INTO ul SELECT id, f FROM self; CREATE INDEX ON tt (id); CREATE INDEX ON ul (id);
		SELECT count(*) FROM tt WHERE id BETWEEN 0 AND 999; SELECT count(*) FROM ul WHERE id BETWEEN 0 AND 999;});
	my $b = counters();
	is($s->query('SELECT count(*) FROM tt WHERE id BETWEEN 0 AND 999 AND length(f) = 700'), 1000, 'temporary table');
	is($s->query('SELECT count(*) FROM ul WHERE id BETWEEN 0 AND 999 AND length(f) = 700'), 1000, 'unlogged table');
	is(moved($b)->{prefetch_issued}, 0, 'nothing was asked for ahead of page servers');
	$s->query('DROP TABLE tt, ul');
}

# ---- page servers that stand still: joined, promoted, cancelled, lost ----
my @stopped;
sub stop_servers
{
	# plans and catalogs of all that is asked while they stand still
	counters(); lent(); slots(0); status(0); $watch->query('EXECUTE stop(NULL)');
	my @pids = map { $c->postmaster_pid("page_server_$_") } 0, 1;
	@stopped = map { my $p = $_; ($p, split ' ', `ps -o pid= --ppid $p`) } @pids;
	kill 'STOP', @stopped;
	return;
}
sub go_on { kill 'CONT', @stopped; return }

{
	my $s = reader();
	$c->evict;
	$s->query('EXECUTE ahead(0, 0)');
	my $b = counters();
	stop_servers();
	$s->query('BEGIN; EXECUTE ahead(300, 329)');
	$s->send('EXECUTE one(329)');
	ok(wait_moved($b, 'prefetch_joined', 1), 'a read joins what is on its way');
	ok(wait_moved($b, 'prefetch_promoted', 1), 'and goes before what nobody waits for');
	go_on();
	is($s->wait, 329, 'its page comes');
	is($s->query('EXECUTE one(300)'), 300, 'as do the others');
	$s->query('ROLLBACK');
	is(lent(), 0, 'the memory is given back');

	foreach my $end ('COMMIT', 'ROLLBACK')
	{
		$c->evict;
		$s->query('EXECUTE ahead(0, 0)');
		$b = counters();
		stop_servers();
		$s->query('BEGIN; EXECUTE ahead(400, 419)');
		cmp_ok(slots($s->pid), '>=', 16, 'requests are on their way');
		$s->query($end);
		is(slots($s->pid), 0, "$end withdraws them");
		cmp_ok(moved($b)->{prefetch_cancelled}, '>=', 16, 'which counts');
		is(lent(), 0, 'the memory is given back');
		go_on();
		is($s->query('EXECUTE one(401)'), 401, 'the slots work again');
	}

	# cancelled while it waits for a page asked for ahead
	$c->evict;
	$s->query('EXECUTE ahead(0, 0)');
	stop_servers();
	$s->query('BEGIN; EXECUTE ahead(500, 509); SET LOCAL statement_timeout = 500');
	my (undef, $err) = $s->try('EXECUTE one(505)');
	like($err, qr/statement timeout/, 'a wait for such a page is cancelled');
	$s->query('ROLLBACK');
	go_on();
	is($s->query('EXECUTE one(505)'), 505, 'and the page can be read');

	# as much as a process may have on its way leaves room for what it waits for itself
	$c->evict;
	$s->query('EXECUTE ahead(0, 0)');
	$b = counters();
	stop_servers();
	$s->query('BEGIN; EXECUTE scattered(0, 200)');
	cmp_ok(moved($b)->{prefetch_issued}, '>=', 32, 'all its slots for pages ahead are in use');
	$s->send('EXECUTE one(951)');
	go_on();
	is($s->wait, 951, 'and a read finds one') or diag($s->{last_error});
	$s->query('COMMIT');

	# lost with its connection; where it was to come lies a page of another block, newer than it
	$c->evict;
	$s->query('BEGIN; EXECUTE ahead(900, 903)');
	is($s->query("EXECUTE one($_)"), $_, "page $_") foreach 900 .. 903;
	$s->query('COMMIT');
	$b = counters();
	stop_servers();
	$s->query('BEGIN; EXECUTE ahead(600, 603)');
	$c->kill9('page-server', $_) foreach 0, 1;
	$c->start;
	is($s->query("EXECUTE one($_)"), $_, "page $_, if it was lost, is asked for again") foreach 600 .. 603;
	$s->query('COMMIT');
	cmp_ok(moved($b)->{prefetch_failed}, '>', 0, 'which counts');

	# a communicator that ends between question and answer
	$c->evict;
	$s->query('EXECUTE ahead(0, 0)');
	my $epoch = $watch->query('SELECT epoch FROM neon_comm.status()');
	stop_servers();
	$s->query('BEGIN; EXECUTE ahead(700, 703)');
	$watch->query('EXECUTE restart');
	select undef, undef, undef, 0.05 until status($epoch) eq 't';
	go_on();
	is($s->query('EXECUTE one(702)'), 702, 'its successor takes the request over');
	$s->query('COMMIT');

	# a process that ends
	$c->evict;
	$s->query('EXECUTE ahead(0, 0)');
	stop_servers();
	$s->query('BEGIN; EXECUTE ahead(800, 819)');
	my $pid = $s->pid;
	$watch->query("EXECUTE stop($pid)");
	is(lent(), 0, 'a terminated process gives its memory back');
	is(slots($pid), 0, 'and its slots');
	go_on();
}

my $s = reader();
is($s->query('EXECUTE wrong'), 0, 'all pages are right in the end');
foreach my $name ('found_late', 'stale_answers', 'future_answers', 'connections_poisoned')
{
	is($c->counter($name), 0, "$name is 0");
}
cmp_ok($c->counter($_), '>', 0, "$_ moved") foreach qw(reads_from_staging);
$c->check_logs;
done_testing();
