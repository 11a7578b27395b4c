# One outage for each alarm of contrib/prometheus, seen by a real Prometheus that scrapes a compute and two page
# servers once a second (NeonComm::Prometheus): exactly that alarm fires, and those that its cause implies, which
# stand beside it. Times of the rules are divided by 20 (contrib/prometheus/scale_rules), thresholds are as they are.
#
# A rule without an outage fails. test/prometheus.sh runs this; PROM_OUTAGES="ALARM ..." only these.
use strict;
use warnings;

use FindBin;
use Test::More;
use Time::HiRes qw(usleep);
use NeonComm::Cluster;
use NeonComm::Node qw(free_port until_true);
use NeonComm::Prometheus;
use NeonComm::Proxy;

plan(skip_all => 'prometheus is not installed, see scripts/prometheus') unless NeonComm::Prometheus::available();

my $factor = 20;
my ($port, @ps_ports) = map { free_port() } 0 .. 2;
my $c = NeonComm::Cluster->new(no_start => 1, init => [ '--shards', 1, '--page-servers', 2, '--hosts', 2 ],
	conf => [ "neon_comm.metrics_port=$port", 'neon_comm.lfc_size=8MB', 'neon_comm.local_index_chunks=1024',
		'neon_comm.max_apply_lag=0', 'neon_comm.max_write_lag=0', 'neon_comm.max_flush_lag=0', 'neon_comm.wal_feed_timeout=10min', 'neon_comm.silence_timeout=2s', 'neon_comm.request_timeout=20s',
		'neon_comm.readahead_blocks=0', 'wal_recycle=off', 'wal_sender_timeout=10min', 'checkpoint_timeout=1h' ],
	ps_conf => [ 'hot_standby=on', 'max_wal_senders=20', 'max_worker_processes=64', 'wal_receiver_timeout=10min', 'wal_recycle=off' ]);
my $dir = $c->{dir};
my ($socket) = map { /^socket_dir=(.*)/ ? $1 : () } do { local @ARGV = ("$dir/neon_dev.conf"); <> };
mkdir "$dir/cache" or die $!;
$c->append_conf('compute', "neon_comm.lfc_path = '$dir/cache/pages'");
$c->append_conf("page_server_$_", "neon_page_service.metrics_port = $ps_ports[$_]") foreach 0, 1;
$c->start;

# What outages need is made, and read once, before there are any.
my $proxy = NeonComm::Proxy->new(seed => 5);
my $rows = 'SELECT count(*), sum(id) FROM t';
$c->sql(q{CREATE TABLE t AS SELECT g AS id, repeat('x', 800) AS f FROM generate_series(1, 4000) g;
	CREATE TABLE w (id int, f text); INSERT INTO w VALUES (0, 'w'); VACUUM t; CHECKPOINT});
my $rel = $c->sql(q{SELECT pg_relation_filenode('t')});

# A block that is not the same on both page servers. Nobody reads it.
$c->sql(q{CREATE TABLE differs AS SELECT generate_series(1, 1000) AS id; CHECKPOINT});
my $path = $c->sql(q{SELECT pg_relation_filepath('differs')});
my $end = $c->sql('SELECT pg_current_wal_flush_lsn()');
$c->wait_for("SELECT bool_and(apply_lsn >= '$end') FROM neon_comm.page_servers") or die 'page servers lag';
$c->stop('page-server', 1);
{
	open my $fh, '+<:raw', "$dir/page_server_1/$path" or die "$path: $!";
	seek $fh, 8192 + 8000, 0 or die $!;
	print $fh 'changed';
	close $fh or die $!;
}
$c->start('page-server', 1);
my @links = map { $proxy->link($_, $c->page_server_port($_)) } 0, 1;
my $map_changes = $c->counter('map_changes');
$c->configure({ 'neon_comm.page_servers' => "host=127.0.0.1,127.0.0.1 port=$links[0],$links[1]" });
$c->wait_for("SELECT value > $map_changes FROM neon_comm.counters WHERE name = 'map_changes'") or die 'page servers were not taken over';
is($c->sql($rows), '4000|8002000', 'rows');
my $prom = NeonComm::Prometheus->new("$dir/prometheus", factor => $factor, neon_comm => [$port], neon_page_service => \@ps_ports);
ok(until_true(sub { $prom->value('count(up == 1)') == 3 }), 'Prometheus scrapes all three');

# ---- tools of the outages

my @stopped;
sub freeze { my @pids = @_; die 'nobody to stop' unless @pids; push @stopped, @pids; kill 'STOP', @pids; return }
sub thaw { kill 'CONT', @stopped; @stopped = (); return }
END { local $?; kill 'CONT', @stopped if @stopped }

sub page_server_sql
{
	my ($n, $sql) = @_;
	my $out = '';
	IPC::Run::run([ 'psql', '-XqAt', '-d', "host=$socket port=@{[ $c->page_server_port($n) ]} dbname=postgres user=postgres", '-c', $sql ],
		'>', \$out, '2>&1') or die $out;
	return;
}

# Pages of t come from page servers again: nothing of it is in buffers, nor in the file cache.
sub forget_cached { $c->configure({ 'neon_comm.lfc_size_limit' => 0 }); $c->reload_is_over; $c->evict; return }
sub cache_again { $c->configure({ 'neon_comm.lfc_size_limit' => '8MB' }); $c->reload_is_over; return }

sub feed_of { my ($cluster) = @_; return $cluster->sql('SHOW neon_comm.wal_feed_port') }
my $other = NeonComm::Cluster->new(shards => 1);
my $conninfo;

# Where page server 1 gets its WAL from.
sub wal_from
{
	my ($port_there) = @_;
	($conninfo) = map { /^primary_conninfo = '(.*)'/ ? $1 : () }
	  do { local @ARGV = ("$dir/page_server_1/postgresql.conf", glob("$dir/page_server_1/postgresql.auto.conf")); <> }
	  unless defined $conninfo;
	$c->configure({ primary_conninfo => defined $port_there ? $conninfo =~ s/port=\d+/port=$port_there/r : $conninfo },
		part => 'page_server_1');
	return;
}

# The compute of an older copy of its directory starts where page servers know more.
sub older_compute
{
	$c->stop('compute');
	system('cp', '-a', '--sparse=always', "$dir/compute", "$dir/older") == 0 or die 'cp';
	$c->start('compute');
	$c->sql('UPDATE w SET id = id + 1; CHECKPOINT; UPDATE w SET id = id + 1; SELECT pg_switch_wal()');
	$c->wait_for(q{SELECT bool_and((apply_lsn = pg_current_wal_lsn()) IS TRUE) FROM neon_comm.page_servers}) or die 'page servers lag';
	$c->stop('compute');
	rename "$dir/compute", "$dir/newer" or die $!;
	rename "$dir/older", "$dir/compute" or die $!;
	$c->append_conf('compute', 'neon_comm.allow_takeover = on');
	return;
}

# [ alarm, what is done, how it ends, alarms that the cause implies ]
my @outages = (
	[ NeonConnectionsPoisoned => sub { forget_cached(); $proxy->rule("tag=getpage rel=$rel count=1 wrongid"); $c->sql($rows) },
		sub { $proxy->clear; cache_again() } ],
	# the counter begins again with the server
	[ NeonPageServersDiffer => sub { $c->configure({ 'neon_comm.scrub_rate' => 100_000 }) },
		sub { $c->configure({ 'neon_comm.scrub_rate' => 0 }); $c->restart('compute') } ],
	[ NeonCommunicatorStuck => sub { freeze($c->pids_of('compute', qr/communicator/)) }, \&thaw ],
	[ NeonFeedStuck => sub { freeze($c->pids_of('compute', qr/WAL feed/)) }, \&thaw ],
	[ NeonShardNotReady => sub { $proxy->cmd('down *'); $proxy->cmd('cut *') }, sub { $proxy->cmd('up *') } ],
	# it says so itself
	[ NeonPageServerNotStreaming => sub { wal_from(1) }, sub { wal_from() }, 'NeonPageServerWithoutWal' ],
	[ NeonPageServerWithoutWal => sub { page_server_sql(1, 'SELECT pg_wal_replay_pause()') },
		sub { page_server_sql(1, 'SELECT pg_wal_replay_resume()') } ],
	[ NeonWritersThrottled => sub {
			freeze($c->pids_of('page_server_1', qr/startup/));
			$c->sql(q{INSERT INTO w SELECT g, repeat('w', 900) FROM generate_series(1, 12000) g});
			$c->configure({ 'neon_comm.max_apply_lag' => '8MB' }) },
		sub { thaw(); $c->configure({ 'neon_comm.max_apply_lag' => 0 }) } ],
	[ NeonLocalIndexFull => sub {
			$c->sql("DO \$\$BEGIN FOR i IN $_ * 100 .. $_ * 100 + 99 LOOP EXECUTE 'CREATE SEQUENCE s' || i; END LOOP; END\$\$") foreach 0 .. 8;
			$c->sql('CHECKPOINT') },
		sub { $c->sql("DO \$\$BEGIN FOR i IN $_ * 100 .. $_ * 100 + 99 LOOP EXECUTE 'DROP SEQUENCE s' || i; END LOOP; END\$\$") foreach 0 .. 8;
			$c->sql('CHECKPOINT') } ],
	[ NeonFileCacheFailed => sub {
			rename "$dir/cache", "$dir/cache.away" or die $!;
			until_true(sub { $c->evict; $c->sql($rows); $c->sql(q{SELECT state = 'failed' FROM neon_comm.lfc}) eq 't' }) or die 'the cache is on' },
		sub { rename "$dir/cache.away", "$dir/cache" or die $!; $c->sql('SELECT pg_reload_conf()') } ],
	[ NeonPageServerWorkerStuck => sub { freeze($c->pids_of('page_server_1', qr/neon page service 0|neon page service 1/)) }, \&thaw ],
	[ NeonExporterSilent => sub { freeze($c->pids_of('page_server_1', qr/neon page service exporter/)) }, \&thaw ],
	# which takes no WAL meanwhile: its state is catchup
	[ NeonRetainedWalGrows => sub {
			freeze($c->pids_of('page_server_1', qr/walreceiver/));
			$c->sql('SELECT pg_logical_emit_message(false, $$x$$, $$x$$); SELECT pg_switch_wal()') foreach 1 .. 70 },
		\&thaw, 'NeonPageServerNotStreaming', sub { $c->sql('SELECT pg_logical_emit_message(false, $$x$$, $$x$$); SELECT pg_switch_wal()') } ],
	[ NeonPageServerRefused => sub { wal_from(feed_of($other)) }, sub { wal_from() },
		'NeonPageServerNotStreaming NeonPageServerWithoutWal' ],
	[ NeonWrongAnswers => sub { forget_cached(); $proxy->rule("tag=getpage rel=$rel lie=zero"); $c->try_sql($rows) },
		sub { $proxy->clear; $c->restart('compute'); cache_again() } ],
	[ NeonPageServerParted => sub { older_compute(); $c->background(\my $said, 'neon_dev', 'start', '-D', $dir, '--quiet', 'compute', '-t', 300) },
		sub {
			$c->stop('compute', '--mode', 'immediate');
			rename "$dir/compute", "$dir/older" or die $!;
			rename "$dir/newer", "$dir/compute" or die $!;
			$c->start('compute') },
		'NeonPageServerRefused NeonPageServerNotStreaming NeonPageServerWithoutWal NeonShardNotReady' ],
);

# ---- each

$c->allow_log(qr/could not read block|old version of block|from the future|missing|parted|was terminated by signal 9|verification failed|page servers do not have the same/);
my @alarms = do { local @ARGV = ("$FindBin::RealBin/../../contrib/prometheus/neon_comm.rules.yml"); map { /- alert: (\w+)/ ? $1 : () } <> };
# what needs a test build has its outage there
my %elsewhere = (NeonFoundLate => '389_figures_of_faults');
foreach my $alarm (keys %elsewhere)
{
	my $script = do { local (@ARGV, $/) = "$FindBin::RealBin/../t/$elsewhere{$alarm}.pl"; <> };
	like($script, qr/outage\('$alarm'/, "$alarm has its outage in $elsewhere{$alarm}");
}
my %has_outage = map { $_ => 1 } keys %elsewhere, map { $_->[0] } @outages;
my @wanted = grep { !$ENV{PROM_OUTAGES} || " $ENV{PROM_OUTAGES} " =~ / $_->[0] / } @outages;

$prom->outage(@$_) foreach @wanted;
is($c->sql('SELECT count(*), sum(id) FROM t'), '4000|8002000', 'rows at the end');
$prom->stop;
$c->check_logs;
is(join(' ', grep { !$has_outage{$_} } @alarms), '', 'each alarm has an outage');
done_testing();
