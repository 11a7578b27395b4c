# Every figure of a compute's /metrics is moved by a scripted cause (NeonComm::Figures): one that nothing moves fails
# here, by its name. What only a test build can move is moved in 389_figures_of_faults. promtool judges what comes of it.
use strict;
use warnings;

use File::Path qw(remove_tree);
use File::Temp ();
use Test::More;
use NeonComm::Cluster;
use NeonComm::Figures;
use NeonComm::Http qw(ask_http get promtool promtool_says);
use NeonComm::Node qw(free_port until_true);
use NeonComm::Proxy;

my $f = NeonComm::Figures->new('neon_comm');
my $rows = 'SELECT count(*), sum(id) FROM t';
my @stopped;
sub freeze { my @pids = @_; die 'nobody to stop' unless @pids; push @stopped, @pids; kill 'STOP', @pids; return }
sub thaw { kill 'CONT', @stopped; @stopped = (); return }
END { local $?; kill 'CONT', @stopped if @stopped }
my $c;
sub page_servers { return map { my $pm = $c->postmaster_pid("page_server_$_"); ($pm, split ' ', `ps -o pid= --ppid $pm`) } 0, 1 }

# ---- a compute at work

my ($port, $no_collector) = map { free_port() } 0, 1;
$c = NeonComm::Cluster->new(checksums => 1, conf => [ "neon_comm.metrics_port=$port", 'neon_comm.lfc_size=8MB',
		"neon_comm.trace_collector='http://127.0.0.1:$no_collector'", 'max_worker_processes=16',
		'neon_comm.silence_timeout=10min', 'neon_comm.hedged_reads=off', 'neon_comm.connections_per_shard=1', 'neon_comm.connection_depth=2',
		'neon_comm.readahead_blocks=0', 'neon_comm.async_reads=off', 'neon_comm.max_apply_lag=0', 'max_parallel_workers_per_gather=0',
		'neon_comm.sweep_interval=1h', 'synchronous_commit=off', 'wal_writer_delay=10s', 'checkpoint_timeout=1h' ]);
my $dir = $c->{dir};
$f->begin($port);
$c->sql(q{CREATE EXTENSION pg_prewarm; CREATE TABLESPACE ts LOCATION '';
	CREATE TABLE t (id int, v int, f text) WITH (fillfactor = 10);
	INSERT INTO t SELECT g, 0, lpad(g::text, 700, '0') FROM generate_series(0, 999) g; CREATE INDEX ON t (id); VACUUM t;
	CREATE TABLE u AS SELECT g AS id, point(g % 100, g / 100) AS p, repeat('u', 300) AS f FROM generate_series(1, 12000) g;
	CREATE INDEX ON u USING gist (p); CREATE INDEX ON u USING spgist (p); CREATE SEQUENCE s; SELECT nextval('s')});
my $rel = $c->sql(q{SELECT pg_relation_filenode('t')});
$c->sql("$rows; $rows; CHECKPOINT; SELECT neon_comm.sweep()");
$f->look('a compute at work');
$c->sql('BEGIN; ALTER TABLE u SET TABLESPACE ts; SELECT count(*) FROM u; COMMIT');
$f->look('a table that is copied, and read before its WAL is flushed');
my $s = $c->session;
$s->query(q{BEGIN; CREATE TABLE own (v int, f text); INSERT INTO own SELECT g, repeat('o', 300) FROM generate_series(1, 4000) g; UPDATE own SET v = v + 1});
$c->evict;
$c->sql('CHECKPOINT; SELECT count(*) FROM nc_evict');
is($s->query('SELECT sum(v) FROM own; COMMIT'), 8006000, 'rows of a transaction that was evicted');
$c->sql('SELECT txid_current(); SELECT neon_comm.sweep()');
$f->look('pages that are kept for a transaction, and swept');
$s->query("SET neon_comm.mode = direct; $rows; RESET neon_comm.mode");
$f->look('a process that reads directly');
$s->query("SET neon_comm.client_spin_us = 1000000; $rows");
$f->look('a process that looks instead of sleeping');
$c->allow_log(qr/spans were dropped/);
$s->query('SET neon_comm.trace_sample_rate = 1');
# the file cache has not all of it
ok(until_true(sub { $c->evict; $s->query("$rows; SELECT count(*) FROM u"); $f->look('traced reads'); $f->{moved}{neon_comm_trace_spans} }),
	'reads are traced');
$s->query('RESET neon_comm.trace_sample_rate');
$f->moves('no collector that takes them', qw(trace_spans_dropped));
my $major = int $c->sql('SHOW server_version_num') / 10000;
$s->query("RESET neon_comm.client_spin_us; SET neon_comm.async_reads = on; SET neon_comm.readahead_blocks = 128");
$c->evict;
$s->query('SELECT count(*) FROM u');
$f->look('reads of AIO handles, and readahead');
$s->query('RESET neon_comm.async_reads');
$c->evict;
$s->query("SELECT id FROM t WHERE ctid = '($_,1)'") foreach 500 .. 650;
$s->query('RESET neon_comm.readahead_blocks');
$f->look('a sequence of reads, each in a transaction of its own');
ask_http($port, "nonsense\r\n\r\n");
$f->look('who asks nonsense of the exporter');

# a VACUUM that does not come to the end of the index
$c->sql(q{CREATE TABLE k (k text, n int) WITH (autovacuum_enabled = off); CREATE INDEX k_k ON k (k);
	INSERT INTO k SELECT md5(g::text) || repeat('k', 60), g FROM generate_series(1, 15000) g; DELETE FROM k WHERE n % 7 = 0});
my ($holder, $vacuum) = ($c->session, $c->session);
$holder->query(q{SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_sort = off;
	BEGIN; DECLARE hold CURSOR FOR SELECT k FROM k WHERE k > 'f' ORDER BY k; FETCH hold});
my $vpid = $vacuum->pid;
$vacuum->send('VACUUM (INDEX_CLEANUP on) k');
ok($c->wait_for("SELECT count(*) = 1 FROM pg_stat_progress_vacuum WHERE pid = $vpid AND phase = 'vacuuming indexes'"), 'VACUUM works on an index');
foreach my $round (1 .. 20)
{
	$c->sql("INSERT INTO k SELECT md5((g * 31 + $round)::text) || repeat('k', 60), 100000 + g FROM generate_series(1, 500) g; CHECKPOINT");
	last if $c->counter('writes_local_vacuum_cycle') > 0;
}
$f->look('splits beside a VACUUM');
$c->sql("SELECT pg_cancel_backend($vpid)");
$vacuum->wait;
$_->close foreach $holder, $vacuum;

# ---- pages asked for ahead, and page servers that stand still

my $watch = $c->session;
sub counter { my ($name) = @_; return $watch->query("EXECUTE counter('$name')") }
$watch->query(q{SET plan_cache_mode = force_generic_plan; PREPARE counter(text) AS SELECT value FROM neon_comm.counters WHERE name = $1;
	PREPARE restart AS SELECT neon_comm.restart_communicator(); PREPARE slots(int) AS SELECT count(*) FROM neon_comm.slots WHERE pid = $1 AND state <> 'done';
	EXECUTE slots(0)});
counter('requests');
sub reader
{
	my $r = $c->session;
	$r->query(q{SET enable_seqscan = off; SET effective_io_concurrency = 16;
		PREPARE ahead(int, int) AS SELECT pg_prewarm('t', 'prefetch', 'main', $1, $2);
		PREPARE one(int) AS SELECT id FROM t WHERE ctid = ('(' || $1 || ',1)')::tid;
		EXECUTE ahead(0, 0); EXECUTE one(0)});
	$r->pid;
	return $r;
}
$c->sql('ALTER SYSTEM SET neon_comm.lfc_size_limit = 0; SELECT pg_reload_conf()');
$s = reader();
$c->evict;
$s->query('EXECUTE ahead(0, 0); BEGIN; EXECUTE ahead(100, 109)');
until_true(sub { $watch->query('EXECUTE slots(' . $s->pid . ')') == 0 }) or die 'pages did not come';
$f->look('pages asked for ahead are there');
$c->sql("UPDATE t SET v = 1 WHERE ctid = '(103,1)'");
$c->evict;
is($s->query("EXECUTE one($_)"), $_ == 103 ? '' : $_, "page $_") foreach 100 .. 104;
$s->query('COMMIT');
$f->look('one of them has changed, some are not read');
$s->query('BEGIN; EXECUTE ahead(0, 900); COMMIT');
$f->look('more of them than there is room for');
$c->evict;
$s->query('EXECUTE ahead(0, 0)');
freeze(page_servers());
$s->query('BEGIN; EXECUTE ahead(300, 319)');
$s->send('EXECUTE one(319)');
$f->moves('page servers stand still', qw(prefetch_joined prefetch_promoted shard_ready shard_oldest_request_age_seconds slots slots_waiting
	  connection_requests_in_flight staging_pages_lent page_server_silence_seconds));
$watch->query('EXECUTE restart');
$f->moves('a new communicator meanwhile', qw(communicator_starts requeued));
thaw();
is($s->wait, 319, 'its page comes');
$s->query('ROLLBACK');
$s->query('SET neon_comm.client_spin_us = 1000000; EXECUTE ahead(0, 0)');
$s->query("EXECUTE one($_)") foreach 800 .. 830;
freeze(page_servers());
$s->query('BEGIN; EXECUTE ahead(400, 409); COMMIT');
$f->moves('pages asked for ahead and not wanted any more', 'prefetch_cancelled');
my (undef, $err) = $s->try("SET neon_comm.request_timeout = '1s'; EXECUTE one(420)");
like($err, qr/no answer from page servers/, 'a read ends without a page');
$s->query('RESET neon_comm.request_timeout');
(undef, $err) = $s->try("SET statement_timeout = 500; EXECUTE one(430)");
like($err, qr/statement timeout/, 'another one is cancelled');
$s->query('RESET statement_timeout; RESET neon_comm.client_spin_us');
$f->moves('reads that end without a page', qw(request_timeouts request_cancels client_spins_in_vain));
thaw();
is($s->query('EXECUTE one(440)'), 440, 'page servers go on');
$f->moves('answers that nobody waits for any more', 'late_answers');
$f->moves('answers that came later than usual', 'readahead_yields');
$s->query('EXECUTE ahead(0, 0)');
# so that there are connections
$s->query("EXECUTE one($_)") foreach 604 .. 620;
freeze(page_servers());
sub under_way
{
	my $now = $f->look('reads meanwhile');
	my $n = 0;
	$n += $now->{$_} foreach grep { /^neon_comm_connection_requests_in_flight/ } keys %$now;
	return $n;
}
$s->query('BEGIN; EXECUTE ahead(600, 603)');
ok(until_true(sub { under_way() >= 1 }), 'pages asked for ahead are on their way');
$s->send('EXECUTE one(630)');
ok(until_true(sub { under_way() >= 2 }), 'and one that somebody waits for');
$c->kill9('page-server', $_) foreach 0, 1;
@stopped = ();
$f->moves('page servers are killed', qw(connections connection_failures disconnects connect_failures page_server_state));
$c->start;
is($s->wait, 630, 'its page comes');
is($s->query("EXECUTE one($_)"), $_, "page $_") foreach 600 .. 603;
$s->query('COMMIT');
$f->moves('and started', qw(connects resent prefetch_failed feed_connects));
SKIP:
{
	skip 'one processor: the communicator never looks for work', 1 if `nproc` < 2;
	$c->sql('ALTER SYSTEM SET neon_comm.spin_time = 1000; SELECT pg_reload_conf()');
	# many who ask without waiting for one another
	my $script = File::Temp->new;
	print $script "\\set r random(0, 999)\nSET enable_seqscan = off;\nSELECT v FROM t WHERE id = :r;\n";
	close $script;
	until_true(sub { $c->pgbench('-n', '-c', 16, '-j', 2, '-t', 50, '-f', "$script"); $c->counter('spins_won') && $c->counter('spins_lost') });
	$f->moves('a communicator that looks for work', qw(spins_won spins_lost));
	$c->sql('ALTER SYSTEM RESET neon_comm.spin_time; SELECT pg_reload_conf()');
}

# ---- writers that are slowed down

freeze($c->pids_of('page_server_1', qr/startup/));
$c->sql(q{CREATE TABLE w AS SELECT g, repeat('w', 900) AS f FROM generate_series(1, 3000) g; ALTER SYSTEM SET neon_comm.max_apply_lag = '1MB'; SELECT pg_reload_conf()});
$f->moves('a page server that does not replay', 'page_server_throttles');
$watch->query('SELECT pg_logical_emit_message(false, $$x$$, $$x$$)') foreach 1 .. 20;
$f->moves('writers while it does not', qw(throttles throttle_seconds));
thaw();
$c->sql('ALTER SYSTEM RESET neon_comm.max_apply_lag; SELECT pg_reload_conf()');

# ---- a proxy before page servers: what they may do wrong

my $p = NeonComm::Proxy->new(seed => 3);
$c->use_proxy($p, 2);
$c->sql(q{ALTER SYSTEM SET neon_comm.silence_timeout = '1s'; SELECT pg_reload_conf()});
foreach my $wrong ([ 'corrupt=4000', 'damaged_answers' ], [ 'wrongid', 'connections_poisoned' ], [ 'error=LSN_timeout:_injected', 'page_server_errors' ],
	[ 'eat', 'connections_silent' ])
{
	$c->evict;
	$p->rule("tag=getpage rel=$rel count=1 $wrong->[0]");
	$s->query('SELECT count(*) FROM t');
	$f->moves("answers with $wrong->[0]", $wrong->[1]);
	$p->clear;
}
$c->allow_log(qr/from the future|old version of block|could not read block|invalid page|missing|gave an empty/);
$p->rule("tag=getpage p=0 lie=old");
$c->sql('SELECT sum(id) FROM t; UPDATE t SET v = 2 WHERE id % 3 = 0');
foreach my $lie ([ 'old', 'stale_answers' ])
{
	$c->evict;
	$p->rule("tag=getpage rel=$rel lie=$lie->[0]");
	(undef, $err) = $s->try('SELECT count(*) FROM t');
	isnt($err, '', "lie=$lie->[0]: an error");
	$f->moves("answers with lie=$lie->[0]", $lie->[1]);
	$p->clear;
}
$c->sql(q{ALTER SYSTEM SET neon_comm.silence_timeout = '1h'; ALTER SYSTEM SET neon_comm.hedged_reads = on; ALTER SYSTEM SET neon_comm.connections_per_shard = 4; SELECT pg_reload_conf()});
$s->query('SELECT count(*) FROM t');
$c->evict;
$p->rule("tag=getpage rel=$rel block=700 count=1 stall=-1");
is($s->query('EXECUTE one(700)'), 700, 'a read behind an answer that stalls');
$p->cmd('release *');
$f->moves('an answer that stalls', qw(hedged_reads hedged_late map_changes));
$p->clear;

# ---- a local file cache

$c->sql('ALTER SYSTEM RESET neon_comm.lfc_size_limit; SELECT pg_reload_conf()');
$c->into_cache($rows);
$c->evict;
$c->sql("$rows; CREATE TABLE v AS SELECT g AS id, repeat('v', 900) AS f FROM generate_series(1, 12000) g; SELECT count(*) FROM v; SELECT count(*) FROM v; DROP TABLE v");
$f->look('a file cache');
my $bad = $p->rule("tag=getpage rel=$rel block=900 corrupt=8000");
$c->sql('ALTER SYSTEM SET neon_comm.lfc_size_limit = 0; SELECT pg_reload_conf()');
ok($c->wait_for('SELECT limit_bytes = 0 FROM neon_comm.lfc'), 'an empty cache');
$c->sql('ALTER SYSTEM RESET neon_comm.lfc_size_limit; SELECT pg_reload_conf()');
ok($c->wait_for('SELECT limit_bytes > 0 FROM neon_comm.lfc'), 'which may have pages again');
$c->evict;
(undef, $err) = $s->try('EXECUTE one(900)');
like($err, qr/invalid page in block 900/, 'a page that is damaged each time');
$p->clear;
$f->moves('a damaged page that may not enter', 'lfc_damaged');
$c->into_cache($rows);
$c->evict;
{
	open my $fh, '+<:raw', "$dir/compute/neon_comm.lfc" or die $!;
	my $size = -s $fh;
	for (my $at = 0; $at < $size; $at += 8192) { seek $fh, $at + 4000, 0; print $fh 'not what was written' }
	close $fh;
}
$c->sql($rows);
$f->moves('a file with other content', 'lfc_mismatches');
freeze($c->pids_of('compute', qr/neon_comm cache writer/));
$c->sql("$rows; SELECT count(*) FROM u");
$f->moves('a writer that is stopped', qw(lfc_pages_staged lfc_drops));
thaw();
$c->into_cache($rows);
$c->sql('SELECT neon_comm.lfc_save(); SELECT neon_comm.lfc_prewarm(2)');
$f->moves('a prewarm', qw(prewarm_state prewarm_pages));
rename "$dir/compute/neon_comm.lfc", "$dir/away" or die $!;
mkdir "$dir/compute/neon_comm.lfc" or die $!;
$c->restart('compute');
$f->moves('no file for the cache, and a clean start', qw(lfc_errors lfc_state versions_restored identity));
rmdir "$dir/compute/neon_comm.lfc" or die $!;

# ---- a server with other settings

my $settings = { 'neon_comm.local_index_chunks' => 2048, 'neon_comm.staging_size' => 256, 'neon_comm.staging_quota' => 128, 'neon_comm.lfc_size' => '16MB',
	'neon_comm.lfc_size_limit' => 0, 'neon_comm.io_method' => 'epoll', 'neon_comm.verify' => 'shadow', 'neon_comm.readahead_blocks' => 64 };
$c->append_conf('compute', "$_ = '$settings->{$_}'") foreach sort keys %$settings;
$c->sql('ALTER SYSTEM RESET ALL');
$c->restart('compute');
$f->moves('other settings', qw(staging_pages local_index_entries_max lfc_size_bytes lfc_limit_bytes));
$c->sql(q{CREATE TABLE victim AS SELECT g AS id, repeat('v', 500) AS f FROM generate_series(1, 2000) g; CHECKPOINT});
$c->evict;
# those that were kept for its transaction would be read from here
$c->sql('SELECT txid_current(); SELECT neon_comm.sweep()');
is($c->sql('SELECT count(*) FROM victim'), 2000, 'pages are compared');
$c->evict;
{
	open my $fh, '+<:raw', "$dir/compute/" . $c->sql(q{SELECT pg_relation_filepath('victim')}) or die $!;
	seek $fh, 3 * 8192 + 8000, 0;
	print $fh 'w';
	close $fh or die $!;
}
$c->allow_log(qr/verification failed/);
(undef, undef, $err) = $c->try_sql('SELECT count(*) FROM victim');
like($err, qr/verification failed: block 3 /, 'a version that differs');
$f->moves('neon_comm.verify', qw(verify_pages verify_learned verify_mismatches));
my @idle = map { my $i = $c->session; $i->query('BEGIN; DECLARE k NO SCROLL CURSOR FOR SELECT id FROM u'); $i->query('MOVE 3000 IN k'); $i } 1 .. 10;
ok(until_true(sub { $c->sql('SELECT count(*) FROM u'); $f->look('idle cursors that have staging memory'); $f->{moved}{neon_comm_staging_reclaimed} }),
	'memory of idle cursors is taken');
$_->close foreach @idle;

# ---- page servers that say what cannot be, to a server that knows less

$c->append_conf('compute', "neon_comm.verify = off\nneon_comm.io_method = auto\nneon_comm.lfc_size_limit = 4MB");
# Recovery changes more pages than its buffers hold, and comes back to each: the second time the record has no image.
$c->sql($_) foreach 'CHECKPOINT', ('UPDATE t SET v = v + 1') x 2, 'SELECT pg_switch_wal()';
$c->stop('page-server', $_) foreach 0, 1;
$c->kill9('compute');
my $said = '';
my $start = $c->background(\$said, 'neon_dev', 'start', '-D', $dir, '--quiet', 'compute', '-t', 300);
$f->moves('recovery that waits for page servers', qw(communicator in_recovery));
$c->start('page-server', $_) foreach 0, 1;
ok($start->finish, 'it has started') or diag($said);
$c->append_conf('compute', 'neon_comm.request_timeout = 10s');
$c->reload_is_over;
$rel = $c->sql(q{SELECT pg_relation_filenode('u')});
$c->evict;
foreach my $lie ([ 'zero', 'missing_answers' ], [ 'lsn', 'future_answers' ])
{
	$p->rule("tag=getpage rel=$rel lie=$lie->[0]");
	(undef, undef, $err) = $c->try_sql('SET neon_comm.readahead_blocks = 0; SELECT count(*) FROM u');
	isnt($err, '', "lie=$lie->[0]: an error");
	$f->moves("answers with lie=$lie->[0]", $lie->[1]);
	$p->clear;
}
$c->configure({ 'neon_comm.page_servers' => $c->page_server_list($c->page_server_port(0)) });
$f->moves('one shard', 'shards');
$c->configure({ 'neon_comm.page_servers' => $c->page_server_list(map { $c->page_server_port($_) } 0, 1) });
is($c->sql('SELECT count(*) FROM u'), 12000, 'two again');

# ---- prewarm after a crash, with page servers that stand still; then a new compute that has no lengths

my $w = $c->session;
$w->query('SELECT neon_comm.lfc_save(); SELECT neon_comm.lfc_prewarm(2)');
ok($c->wait_for(q{SELECT state = 'done' FROM neon_comm.prewarm_progress}), 'a prewarm');
foreach my $limit (0, 4)
{
	$c->configure({ 'neon_comm.lfc_size_limit' => $limit });
	ok($c->wait_for("SELECT limit_bytes = $limit * 1024 * 1024 FROM neon_comm.lfc"), "$limit MB of cache");
}
freeze(page_servers());
$w->query('SELECT neon_comm.lfc_prewarm(2)');
$f->moves('a prewarm that gets no pages', 'prewarm_workers');
thaw();
$w->close;
$c->sql('ALTER TABLE u SET TABLESPACE pg_default');
$c->sql('DROP TABLESPACE ts');
$c->configure({ 'neon_page_service.boot_image' => 'neon' }, part => "page_server_$_") foreach 0, 1;
ok($c->wait_for('SELECT bool_and(apply_lsn >= pg_current_wal_flush_lsn()) FROM neon_comm.page_servers'), 'all is replayed');
$c->kill9('compute');
remove_tree("$dir/compute");
$c->dev('create-compute', '-D', $dir);
$c->sql('SELECT count(*) FROM u');
$f->begin($port);
$c->sql('SELECT count(*) FROM k; SELECT count(*) FROM t');
$f->moves('a compute that has no lengths', 'lengths_asked');

# ---- commits that page servers confirm

my $port2 = free_port();
my $first = $c;
$c = NeonComm::Cluster->new(init => [ '--shards', 1, '--page-servers', 1, '--durable', '--write-quorum', 1 ], conf => ["neon_comm.metrics_port=$port2"]);
$f->begin($port2);
$c->stop('page-server', 0);
$f->moves('a page server that counts is stopped', 'page_server_sync_state');
$c->kill9('compute');
$start = $c->background(\$said, 'neon_dev', 'start', '-D', $c->{dir}, '--quiet', 'compute', '-t', 300);
$f->moves('a start that waits for page servers', 'feed_let_in');
$c->start('page-server', 0);
ok($start->finish, 'it has started') or diag($said);
$c->sql(q{ALTER SYSTEM SET synchronous_standby_names = ''; SELECT pg_reload_conf()});
$f->moves('no page server counts', 'page_server_sync_priority');

# ---- page servers that are compared, and differ

my $port3 = free_port();
my $second = $c;
$c = NeonComm::Cluster->new(shards => 2, init => [ '--hosts', 2 ], conf => [ "neon_comm.metrics_port=$port3", 'neon_comm.sweep_interval=200ms' ]);
$f->begin($port3);
$c->configure({ 'neon_comm.scrub_rate' => 100_000 });
$f->moves('page servers are compared', qw(scrub_state scrub_rounds scrub_blocks scrub_round_blocks));
$c->configure({ 'neon_comm.scrub_rate' => 0 });
ok($c->wait_for(q{SELECT state = 'off' FROM neon_comm.scrub}), 'and then not');
$c->sql('CREATE DATABASE more');
$c->sql('CREATE TABLE d AS SELECT g FROM generate_series(1, 1000) g; CHECKPOINT', db => 'more');
my $path = $c->sql(q{SELECT pg_relation_filepath('d')}, db => 'more');
my $end = $c->sql('SELECT pg_current_wal_flush_lsn()');
ok($c->wait_for("SELECT bool_and(apply_lsn >= '$end') FROM neon_comm.page_servers"), 'all is replayed');
$c->stop('page-server', 1);
{
	open my $fh, '+<:raw', "$c->{dir}/page_server_1/$path" or die "$path: $!";
	seek $fh, 8192 + 8000, 0;
	print $fh 'changed';
	close $fh or die $!;
}
$c->start('page-server', 1);
# nobody enters a database while it is renamed, and who would look again is ended
my $renames = $c->session;
$renames->query('BEGIN; ALTER DATABASE more RENAME TO less');
$c->allow_log(qr/page servers (?:may not|do not) have the same|terminating background worker/);
$c->configure({ 'neon_comm.scrub_rate' => 100_000 });
my $waits = q{FROM pg_locks WHERE NOT granted AND classid = 'pg_database'::regclass};
ok($c->wait_for("SELECT count(*) > 0 $waits"), 'a session to look again waits for the database');
is($c->sql("SELECT bool_and(pg_terminate_backend(pid)) $waits"), 't', 'it is ended');
$f->moves('a block that could not be looked at again', 'scrub_unconfirmed');
$renames->query('ROLLBACK');
$f->moves('a block that differs', 'scrub_found');

# ---- all

SKIP:
{
	skip 'promtool is not installed, see scripts/prometheus', 1 unless promtool();
	is(promtool_says(get($_, '/metrics')->{body}), '', 'promtool finds nothing wrong') foreach $port, $port2, $port3;
}
my @except = @NeonComm::Figures::BY_TEST_POINTS;
push @except, 'neon_comm_reads_async' if $major < 18;    # there are none
push @except, 'neon_comm_spins_won', 'neon_comm_spins_lost' if `nproc` < 2;
$f->judge(except => \@except);
$_->check_logs foreach $first, $second, $c;
done_testing();
