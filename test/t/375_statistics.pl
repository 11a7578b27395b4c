# What each process reads is in neon_comm.backends, where the pages came from included; and
# neon_comm.reset() lets the views begin anew, while metrics go on.
use strict;
use warnings;

use Test::More;
use NeonComm::Cluster;
use NeonComm::Http qw(metrics);
use NeonComm::Node qw(free_port);

my $port = free_port();

my $c = NeonComm::Cluster->new(
	shards => 1,
	conf => [
		'neon_comm.async_reads=off', 'neon_comm.readahead_blocks=0', 'neon_comm.lfc_size=64MB', "neon_comm.metrics_port=$port",
		'autovacuum=off'
	]);
my ($major) = $c->sql('SHOW server_version_num') =~ /^(\d\d)/;

$c->sql(q{CREATE TABLE self (id int, f text) WITH (fillfactor = 10);
	INSERT INTO self SELECT g, lpad(g::text, 700, '0') FROM generate_series(0, 999) g;});
$c->sql('VACUUM self');
my $s = $c->session;
$s->query('SET max_parallel_workers_per_gather = 0');
my $pid = $s->query('SELECT pg_backend_pid()');
my @columns = qw(pages pages_local pages_cached pages_ahead pages_waited waits wait_us asked_ahead writes_dropped writes_kept);

# its own row, as seen by itself: looking costs no page once it has looked
sub row
{
	my ($of) = @_;
	my %r;
	my $list = join(', ', @columns);
	@r{@columns} = split /\|/, $s->query("SELECT $list FROM neon_comm.backends WHERE pid = " . ($of // $pid));
	return \%r;
}
sub since { my ($from, $to) = @_; return { map { $_ => $to->{$_} - $from->{$_} } @columns } }
sub scan { is($s->query('SELECT count(*) FROM self'), 1000, $_[0]) }

scan('warm');
row();
$c->evict;
row();
my $from = row();
scan('a scan without readahead');
my $d = since($from, row());
cmp_ok($d->{pages_waited} + $d->{pages_cached}, '>=', 900, 'each page counts');
is($d->{pages}, $d->{pages_local} + $d->{pages_cached} + $d->{pages_ahead} + $d->{pages_waited}, 'in one column');
is($d->{pages_ahead} + $d->{asked_ahead}, 0, 'none was asked for ahead');

$c->into_cache('SELECT count(*) FROM self');
$c->evict;
row();
$from = row();
scan('a scan from the local file cache');
$d = since($from, row());
cmp_ok($d->{pages_cached}, '>=', 900, 'counts as cached');
cmp_ok($d->{pages_waited}, '<', 100, 'and not as waited for');

# the cache away: from page servers
$c->sql('ALTER SYSTEM SET neon_comm.lfc_size_limit = 0; SELECT pg_reload_conf()');
$c->wait_for("SELECT state = 'limit is 0' FROM neon_comm.lfc");
$c->evict;
row();
$from = row();
scan('a scan from page servers');
$d = since($from, row());
cmp_ok($d->{pages_waited}, '>=', 900, 'counts as waited for');
cmp_ok($d->{waits}, '>=', $major >= 17 ? 30 : 900, 'so do the waits');
cmp_ok($d->{wait_us}, '>', $d->{waits}, 'and their time');

$s->query('SET neon_comm.readahead_blocks = 128');
$c->evict;
row();
$from = row();
scan('a scan with readahead');
$d = since($from, row());
cmp_ok($d->{asked_ahead}, '>=', 900, 'asks ahead');
cmp_ok($d->{pages_ahead} + $d->{pages_waited}, '>=', 900, 'and uses what it has asked for');

# who else is there
is($s->query(q{SELECT count(*) FROM pg_stat_activity a LEFT JOIN neon_comm.backends b USING (pid)
	WHERE b.pid IS NULL AND a.backend_type <> 'client backend'}), 0, 'a row for each process that pg_stat_activity has');
my $other = $c->session;
my $other_pid = $other->query('SELECT pg_backend_pid()');
$from = row($other_pid);
cmp_ok($other->query('SELECT count(*) FROM pg_proc'), '>', 1000, 'another session reads');
$c->evict;
cmp_ok($other->query('SELECT count(*) FROM self'), '==', 1000, 'and reads');
$d = since($from, row($other_pid));
cmp_ok($d->{pages}, '>=', 900, 'which is seen from outside');
$other->close;
$c->wait_for("SELECT count(*) = 0 FROM neon_comm.backends WHERE pid = $other_pid");
pass('its row goes with it');

# ---- reset ----
sub of { my ($name) = @_; return $s->query("SELECT value FROM neon_comm.counters WHERE name = '$name'") }
my $family = 'neon_comm_reads_remote_total';
my $before = of('reads_remote');
my $scraped = metrics($port)->{$family};
cmp_ok($scraped, '>=', $before, 'metrics have it, too');
my $reset = $s->query('SELECT DISTINCT stats_reset FROM neon_comm.counters');
is($s->query(q{SELECT stats_reset BETWEEN pg_postmaster_start_time() - interval '1 minute' AND now() FROM neon_comm.latency LIMIT 1}),
	't', 'stats_reset is the start at first');
cmp_ok($before, '>=', 900, 'the counter counts');
$from = row();
$s->query('SELECT neon_comm.reset()');
cmp_ok(of('reads_remote'), '<', $before / 2, 'reset() lets it begin anew');
is($s->query("SELECT count(DISTINCT stats_reset) || ' ' || bool_and(stats_reset > '$reset')
	FROM (SELECT stats_reset FROM neon_comm.counters UNION ALL SELECT stats_reset FROM neon_comm.latency
		UNION ALL SELECT stats_reset FROM neon_comm.latency_buckets) v"), '1 true', 'and says when, in each view');
cmp_ok(metrics($port)->{$family}, '>=', $scraped, 'but not in metrics');
cmp_ok($s->query(q{SELECT sum(count) FROM neon_comm.latency WHERE stage = 'server'}), '<', 100, 'histograms, too');
cmp_ok(row()->{pages}, '>=', $from->{pages}, 'processes keep what they have counted');
$c->evict;
scan('another scan');
cmp_ok(of('reads_remote'), '>=', 900, 'and it counts again');
is($s->query('SELECT count(*) FROM neon_comm.counters WHERE value < 0'), 0, 'nothing is negative');

# many at once, beside counting
my @many = map { $c->session } 1 .. 3;
foreach my $round (1 .. 20)
{
	$_->send('SELECT neon_comm.reset() FROM generate_series(1, 50)') foreach @many[0, 1];
	$many[2]->send('SELECT count(*) FROM self a, self b WHERE a.id = b.id');
	$_->wait foreach @many;
	my $bad = $s->query('SELECT (SELECT count(*) FROM neon_comm.counters WHERE value NOT BETWEEN 0 AND 1e12) +
		(SELECT count(*) FROM neon_comm.latency_buckets WHERE count NOT BETWEEN 0 AND 1e12)');
	next if $bad == 0;
	fail("round $round: no figure is negative");
	last;
}
pass('two that reset at once while others count leave no figure below 0');

# ---- windows ----
my $window = q{SELECT coalesce(sum(abs(n)), 0) FROM (
	SELECT count - lag(count) OVER (PARTITION BY stage, class ORDER BY until_us NULLS LAST) AS n FROM neon_comm.latency_buckets) d WHERE n < 0};
is($s->query($window), 0, 'buckets are cumulative');
is($s->query(q{SELECT count(*) FROM neon_comm.latency_buckets}), 12 * 156, 'and always the same');
$s->query('CREATE TEMP TABLE was AS SELECT * FROM neon_comm.latency_buckets; CREATE TEMP TABLE was_sum AS SELECT * FROM neon_comm.latency');
$s->query('SET neon_comm.readahead_blocks = 0');
$c->evict;
scan('a scan in a window');
cmp_ok($s->query(q{SELECT n.count - w.count FROM neon_comm.latency_buckets n JOIN was w USING (stage, class)
	WHERE stage = 'server' AND class = 'demand' AND n.until_us IS NULL AND w.until_us IS NULL}), '>=', 900, 'the last bucket has them all');
is($s->query(q{SELECT n.sum_us > w.sum_us AND (n.sum_us - w.sum_us) / (n.count - w.count) < 10000000
	FROM neon_comm.latency n JOIN was_sum w USING (stage, class) WHERE stage = 'server' AND class = 'demand'}), 't',
	'a mean of the window');
my $q = q{SELECT min(n.until_us) FROM neon_comm.latency_buckets n JOIN was w USING (stage, class, until_us)
	WHERE stage = 'server' AND class = 'demand' AND n.count - w.count >= 0.5 * (SELECT n.count - w.count
		FROM neon_comm.latency n JOIN was_sum w USING (stage, class) WHERE stage = 'server' AND class = 'demand')};
cmp_ok($s->query($q), '>', 0, 'and a median');

is($c->counter($_), 0, "$_ is 0") foreach ('found_late', 'stale_answers', 'future_answers', 'connections_poisoned');
$c->check_logs;
done_testing();
