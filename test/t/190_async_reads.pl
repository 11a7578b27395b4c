# PostgreSQL 18 starts reads and goes on; with neon_comm.async_reads the communicator completes
# them (docs/async.md). Scans have many on their way; whoever leaves, by cancel, terminate or
# deadline, takes his back; a new communicator takes them over; and what a page server that fails
# or lies gave is asked for again and told, and never used.
use strict;
use warnings;

use Test::More;
use Time::HiRes qw(usleep);
use NeonComm::Cluster;
use NeonComm::Proxy;

my ($major) = `@{[ $ENV{PG_CONFIG} // 'pg_config' ]} --version` =~ /(\d+)/;
plan skip_all => "PostgreSQL $major has no asynchronous reads, 18 is the first" if $major < 18;

# Stripes so small that both shards have pages of whatever a scan has on its way.
my $c = NeonComm::Cluster->new(shards => 2, stripe => 2, buffers => '64MB', checksums => 1, conf => [
	'neon_comm.readahead_blocks=16', 'neon_comm.silence_timeout=1h', 'neon_comm.request_timeout=1h',
	'neon_comm.wait_log_period=1h', 'neon_comm.hedged_reads=off', 'neon_comm.connections_per_shard=2',
	'restart_after_crash=on', 'io_method=worker', 'max_connections=20', 'effective_io_concurrency=12',
	'io_combine_limit=16kB', 'max_parallel_workers_per_gather=0' ]);
my $p = NeonComm::Proxy->new(seed => 18);

# A row a page, which names its block.
$c->sql(q{CREATE EXTENSION pg_buffercache;
	CREATE TABLE self (id int, f text) WITH (fillfactor = 10);
	INSERT INTO self SELECT g, lpad(g::text, 700, '0') FROM generate_series(0, 2399) g;
	CREATE INDEX ON self (id);});
$c->sql('VACUUM (FREEZE, ANALYZE) self');
# what was kept while it was made is on the page servers now
$c->sql('CHECKPOINT; SELECT neon_comm.sweep()');
my $pages = $c->sql(q{SELECT pg_relation_size('self') / 8192});
is($pages, 2400, 'a row a page');
$c->use_proxy($p, 2);
my $rel = $c->sql(q{SELECT pg_relation_filenode('self')});
my $right = '2400|2878800|0';
my %scan = ('sequential scan' => 'EXECUTE sequential', 'bitmap heap scan' => 'EXECUTE bitmap');

# One that watches: its catalogs are known, it reads nothing of the table.
my $watch;
sub begin_watching
{
	$watch = $c->session;
	$watch->query(q{SET plan_cache_mode = force_generic_plan;
		PREPARE counters AS SELECT name, value FROM neon_comm.counters;
		PREPARE cold AS SELECT * FROM pg_buffercache_evict_relation('self');
		PREPARE warm AS SELECT count(*) FROM pg_buffercache WHERE relforknumber = 0 AND relfilenode = pg_relation_filenode('self');
		PREPARE flying(int) AS SELECT count(*), min(off) / 8192 FROM pg_aios WHERE pid = $1 AND state = 'SUBMITTED';
		PREPARE odd(int) AS SELECT * FROM pg_aios WHERE pid = $1 AND state = 'SUBMITTED' AND (operation <> 'readv' OR target <> 'smgr'
			OR f_sync OR f_localmem OR length NOT IN (8192, 16384) OR target_desc !~ ('^blocks? ' || off / 8192 || '\D'));
		PREPARE slots(int) AS SELECT count(*) FROM neon_comm.slots WHERE pid = $1;
		PREPARE waits(int) AS SELECT wait_event FROM pg_stat_get_activity($1);
		PREPARE io AS SELECT sum(reads), sum(read_bytes) FROM pg_stat_io WHERE backend_type = 'client backend' AND object = 'relation';
		PREPARE communicator AS SELECT communicator_pid, epoch FROM neon_comm.status();
		PREPARE restart AS SELECT neon_comm.restart_communicator();
		PREPARE cancel(int) AS SELECT pg_cancel_backend($1);
		PREPARE stop(int) AS SELECT pg_terminate_backend($1);
		EXECUTE counters; EXECUTE cold; EXECUTE warm; EXECUTE flying(0); EXECUTE odd(0); EXECUTE slots(0);
		EXECUTE waits(0); EXECUTE io; EXECUTE communicator; EXECUTE cancel(NULL); EXECUTE stop(NULL);});
	return;
}
sub seen { my ($sql) = @_; return $watch->query("EXECUTE $sql") }
sub wait_seen
{
	my ($sql, $good) = @_;
	foreach (1 .. 3000)
	{
		return 1 if $good->(seen($sql));
		usleep(50_000);
	}
	return 0;
}
sub counters { return { map { split /\|/ } split /\n/, seen('counters') } }
sub moved { my ($b) = @_; my $a = counters(); return { map { $_ => $a->{$_} - $b->{$_} } keys %$a } }

# A session that reads nothing but the table.
sub reader
{
	my $s = $c->session;
	my $what = q{count(*), sum(id), count(*) FILTER (WHERE (ctid::text::point)[0]::int <> id OR f <> lpad(id::text, 700, '0'))};
	$s->query(qq{SET plan_cache_mode = force_generic_plan; SET enable_indexscan = off; SET enable_indexonlyscan = off;
		SET synchronize_seqscans = off; SET enable_bitmapscan = off; PREPARE sequential AS SELECT $what FROM self; EXECUTE sequential;
		SET enable_bitmapscan = on; SET enable_seqscan = off;
		PREPARE bitmap AS SELECT $what FROM self WHERE id BETWEEN 0 AND 9999; EXECUTE bitmap;
		PREPARE one(int) AS SELECT id FROM self WHERE ctid = ('(' || \$1 || ',1)')::tid; EXECUTE one(0);
		PREPARE counted AS SELECT pg_stat_force_next_flush(); EXECUTE counted;});
	return $s;
}

# Nothing of the table is in shared buffers.
sub cold
{
	wait_seen('cold; EXECUTE warm', sub { $_[0] =~ /(\d+)$/ && $1 == 0 }) or die 'the table stays in shared buffers';
	return;
}

# A cold scan that comes to blocks whose answers are held back, all that it has on its way then.
sub in_flight
{
	my ($s, $what, $sql) = @_;
	cold();
	freeze();
	$s->send($sql);
	# at most 12; a few may be of blocks before, whose answers were under way
	my ($last, $same) = ('', 0);
	ok(wait_seen('flying(' . $s->pid . ')', sub { $same = $_[0] eq $last ? $same + 1 : 0; $last = $_[0]; return $same >= 3 && $last =~ /^(\d+)/ && $1 >= 8 }),
		"$what: many reads are in flight") or diag($last, $s->{err});
	return;
}
sub freeze { $p->rule("tag=getpage rel=$rel block=$_ hold") foreach 600 .. 639; return }
sub let_go { $p->clear; $p->cmd('release *'); return }

sub leaves_nothing
{
	my ($pid, $what) = @_;
	is(seen("flying($pid)"), '0|', "$what: no handle is left in flight");
	is(seen("slots($pid)"), 0, "$what: and no slot");
	return;
}

# ---- they are asynchronous, and many at once ----

sub is_asynchronous
{
	my ($s, $what, $sql) = @_;
	my $one = $c->session;
	$one->query(q{SET plan_cache_mode = force_generic_plan; PREPARE one(int) AS SELECT id FROM self WHERE ctid = ('(' || $1 || ',1)')::tid; EXECUTE one(0)});
	cold();
	$s->query('EXECUTE counted');
	my ($b, @io) = (counters(), split /\|/, seen('io'));
	is($s->query($sql), $right, "$what: rows");
	$s->query('EXECUTE counted');
	my ($m, @now) = (moved($b), split /\|/, seen('io'));
	cmp_ok($m->{reads_async}, '>=', 0.9 * $pages / 2, "$what: the communicator completes its reads");
	cmp_ok($m->{reads_to_shared_buffer}, '>=', $pages, "$what: straight into shared buffers");
	cmp_ok($m->{pages_received}, '<=', 1.1 * $pages, "$what: hardly a page was asked for twice");
	cmp_ok($now[0] - $io[0], '>=', $m->{reads_async}, "$what: pg_stat_io has these reads");
	cmp_ok($now[1] - $io[1], '>=', $pages * 8192, "$what: and all of their bytes");

	in_flight($s, $what, $sql);
	is(seen('odd(' . $s->pid . ')'), '', "$what: pg_aios says what they are");
	# on the connection for others' pages nothing of it stands in the way
	is($one->query('EXECUTE one(1900)'), 1900, "$what: a page that another session waits for comes");
	$one->close;
	cmp_ok(seen('slots(' . $s->pid . ')'), '>=', 8, "$what: neon_comm.slots has them");
	is(seen('waits(' . $s->pid . ')'), 'NeonPageRead', "$what: the wait has its name");
	let_go();
	is($s->wait, $right, "$what: rows after it was held up");
	cmp_ok(moved($b)->{wait_us}, '>', 0, "$what: the wait is counted");
	leaves_nothing($s->pid, $what);
	return;
}

begin_watching();
is($c->sql('SHOW io_method'), 'worker', 'io_method is worker');
my $s = reader();
is_asynchronous($s, $_, $scan{$_}) foreach sort keys %scan;

# ---- page servers that fail or lie ----

# [rule, counter, what the log says]
my @lies = (
	[ 'corrupt=4000', 'damaged_answers', 'page server gave a damaged block' ],
	[ 'lie=other', 'damaged_answers', '' ],
	[ 'wrongid', 'connections_poisoned', 'request id' ],
	[ 'drop', 'disconnects', '' ],
	[ 'error=LSN_timeout:_injected', 'page_server_errors', 'LSN timeout: injected' ],
);
foreach my $name (sort keys %scan)
{
	foreach my $lie (@lies)
	{
		my ($rule, $counter, $text) = @$lie;
		my $from = length $c->log_text('compute');
		cold();
		my $b = counters();
		my $id = $p->rule("tag=getpage rel=$rel nth=300 count=3 every=200 $rule");
		is($s->query($scan{$name}), $right, "$name, $rule: rows");
		my $m = moved($b);
		cmp_ok($p->fired($id), '>=', 1, "$name, $rule: it happened");
		cmp_ok($m->{$counter}, '>=', 1, "$name, $rule: $counter moved");
		cmp_ok($m->{reads_async}, '>=', 0.8 * $pages / 2, "$name, $rule: most reads are asynchronous all the same");
		$p->clear;
		push @{ $c->{told} }, $text if $text ne '' && index($c->log_text('compute'), $text, $from) >= 0;
	}
}
# lines are rare by design
my %told = map { $_ => 1 } @{ $c->{told} };
ok($told{'page server gave a damaged block'}, 'the log tells of damaged pages');
cmp_ok(scalar(keys %told), '>=', 2, 'and of other causes');

# What no second answer settles is an error that names block, shard, address and cause.
$c->allow_log(qr/could not read block \d+ of relation|old version of block \d+|page verification failed/);
foreach my $name (sort keys %scan)
{
	cold();
	$p->rule("tag=getpage rel=$rel nth=300 error=Read_error:_injected");
	my (undef, $err) = $s->try($scan{$name});
	like($err, qr/could not read block \d+ of relation \d+\/\d+\/$rel from its page server: shard [01] \(127\.0\.0\.1:\d+\): Read error: injected/,
		"$name: a final error names block, shard, address and cause");
	leaves_nothing($s->pid, "$name, final error");
	$p->clear;
	cold();
	$p->rule("tag=getpage rel=$rel nth=300 lie=other");
	(undef, $err) = $s->try($scan{$name});
	like($err, qr/invalid pages? (?:in block|among blocks) \d+|old version of block \d+/, "$name: another page is never used");
	$p->clear;
	is($s->query($scan{$name}), $right, "$name: rows afterwards");
}

# ---- whoever leaves takes his reads back ----

my $other = reader();
foreach my $name (sort keys %scan)
{
	my $what = "$name, cancelled";
	in_flight($s, $what, $scan{$name});
	$other->send('EXECUTE one(600)');
	ok(wait_seen('waits(' . $other->pid . ')', sub { $_[0] =~ /NeonPageRead|BufferIo/ }), "$what: another session waits for one of its pages");
	my $cancels = counters()->{request_cancels};
	seen('cancel(' . $s->pid . ')');
	$s->wait;
	like($s->{last_error}, qr/canceling statement due to user request/, "$what: the wait ends");
	leaves_nothing($s->pid, $what);
	cmp_ok(counters()->{request_cancels}, '>', $cancels, "$what: which is counted");
	let_go();
	is($other->wait, 600, "$what: the other session reads the page itself");
	is($s->query($scan{$name}), $right, "$what: rows after answers that nobody wanted");
}

# A deadline, which names who does not answer.
$s->query("SET neon_comm.request_timeout = '1s'");
cold();
freeze();
$s->send($scan{'sequential scan'});
$s->wait;
like($s->{last_error}, qr/no answer from page servers for block \d+ of relation \d+\/\d+\/$rel/, 'deadline: ends the wait');
like($s->{last_error}, qr/from shard [01] \(127\.0\.0\.1:\d+\), \d of \d connections ready/, 'deadline: names shard and address');
leaves_nothing($s->pid, 'deadline');
let_go();
$s->query('RESET neon_comm.request_timeout');

foreach my $name (sort keys %scan)
{
	my $what = "$name, terminated";
	my $victim = reader();
	in_flight($victim, $what, $scan{$name});
	seen('stop(' . $victim->pid . ')');
	$victim->wait;
	like($victim->{last_error}, qr/terminating connection due to administrator command/, "$what: it goes away");
	leaves_nothing($victim->pid, $what);
	let_go();
	is($s->query($scan{$name}), $right, "$what: rows for others");
}

# ---- a communicator that ends ----

foreach my $how ('terminated', 'restarted')
{
	foreach my $name (sort keys %scan)
	{
		my $what = "$name, communicator $how";
		in_flight($s, $what, $scan{$name});
		my ($pid, $epoch) = split /\|/, seen('communicator');
		my $requeued = counters()->{requeued};
		$how eq 'terminated' ? kill('TERM', $pid) : seen('restart');
		ok(wait_seen('communicator', sub { $_[0] =~ /^\d+\|(\d+)$/ && $1 > $epoch }), "$what: there is a new one");
		ok(wait_seen('counters', sub { $_[0] =~ /^requeued\|(\d+)$/m && $1 >= $requeued + 8 }), "$what: which takes the reads over");
		let_go();
		is($s->wait, $right, "$what: rows");
		leaves_nothing($s->pid, $what);
	}
}

# Killed, it takes all sessions with it, and the server begins anew.
my $start = $c->sql('SELECT pg_postmaster_start_time()');
my $killed = (split /\|/, seen('communicator'))[0];
in_flight($s, 'communicator killed', $scan{'sequential scan'});
$c->allow_log(qr/was terminated by signal 9/);
kill 'KILL', $killed;
$s->wait;
let_go();
ok($c->wait_for("SELECT pg_postmaster_start_time() = '$start' AND communicator_pid <> $killed FROM neon_comm.status()"),
	'communicator killed: the server is back');
$_->close foreach $s, $other, $watch;
begin_watching();
$s = reader();
is_asynchronous($s, "$_, after that", $scan{$_}) foreach sort keys %scan;

$_->close foreach $s, $watch;

# ---- the other methods ----

foreach my $method ('io_uring', 'sync')
{
	if ($method eq 'io_uring' && $c->sql('SELECT io_method FROM neon_comm.status()') ne 'io_uring')
	{
	  SKIP: { skip 'no io_uring here', 1 }
		next;
	}
	$c->append_conf('compute', "io_method = $method");
	$c->restart('compute');
	is($c->sql('SHOW io_method'), $method, "io_method is $method");
	begin_watching();
	$s = reader();
	foreach my $name (sort keys %scan)
	{
		if ($method ne 'sync')
		{
			is_asynchronous($s, "$name, $method", $scan{$name});
			next;
		}
		# the server starts none, and own readahead has many on their way
		cold();
		my $b = counters();
		is($s->query($scan{$name}), $right, "$name, $method: rows");
		is(moved($b)->{reads_async}, 0, "$name, $method: no read is asynchronous");
	}
	$_->close foreach $s, $watch;
}

is($c->sql('SELECT count(*) FROM neon_comm.slots WHERE pid <> pg_backend_pid()'), 0, 'no slot is left behind');
is($c->counter('found_late'), 0, 'no doorbell was lost');
$c->check_logs;
done_testing();
