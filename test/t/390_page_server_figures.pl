# Every figure of a page server's /metrics is moved by a scripted cause (NeonComm::Figures): one that nothing moves
# fails here, by its name. promtool judges what comes of it.
use strict;
use warnings;

use File::Path qw(remove_tree);
use PostgreSQL::Test::Cluster;
use Test::More;
use NeonComm::Cluster;
use NeonComm::Figures;
use NeonComm::Http qw(ask_http get promtool promtool_says);
use NeonComm::Node qw(conf free_port until_true);
use NeonComm::Pagestream;

my ($port, $no_collector) = map { free_port() } 0, 1;
my $c = NeonComm::Cluster->new(shards => 1, no_start => 1, conf => ['neon_comm.trace_file=traces.json'],
	ps_conf => [ "neon_page_service.metrics_port=$port", "neon_page_service.trace_collector='http://127.0.0.1:$no_collector'", 'hot_standby=on',
		'max_wal_senders=20', 'max_worker_processes=64' ]);
my $dir = $c->{dir};
my ($socket) = map { /^socket_dir=(.*)/ ? $1 : () } do { local @ARGV = ("$dir/neon_dev.conf"); <> };
my $f = NeonComm::Figures->new('neon_page_service');
my @stopped;
sub freeze { push @stopped, @_; kill 'STOP', @_; return }
sub thaw { kill 'CONT', @stopped; @stopped = (); return }
END { local $?; kill 'CONT', @stopped if @stopped }

# ---- a start, alone and with its compute

$c->start('page-server', 0);
$f->begin($port);
$c->start('compute');
$f->moves('a compute comes', qw(identity standing streaming received_position_bytes watch_age_seconds exporter_requests));
$c->sql(q{CREATE TABLE t AS SELECT g AS id, repeat('x', 500) AS f FROM generate_series(1, 20000) g; CHECKPOINT; SELECT sum(id) FROM t; SELECT sum(id) FROM t});
$f->moves('reads', qw(replay_position_bytes demanded_position_bytes requests pages request_wait_seconds request_answer_seconds buffer_hits buffer_reads
	  connections connections_logged_in));
my $rel = $c->sql(q{SELECT 1663 || ' ' || oid || ' ' || pg_relation_filenode('t') FROM pg_database WHERE datname = current_database()});
my ($tenant, $timeline) = map { $c->sql("SHOW neon_comm.$_") } 'tenant_id', 'timeline_id';
$c->allow_log(qr/spans were dropped/);
$c->evict;
$c->sql('SET neon_comm.trace_sample_rate = 1; SELECT sum(id) FROM t');
$f->moves('traced reads, and no collector that takes them', qw(trace_spans trace_spans_dropped));
sub client { return NeonComm::Pagestream->new(port => $c->page_server_port(0)) }

# ---- replay that stands still

sub page_server_sql
{
	my ($sql) = @_;
	my $out = '';
	IPC::Run::run([ 'psql', '-XqAt', '-d', "host=$socket port=@{[ $c->page_server_port(0) ]} dbname=postgres user=postgres", '-c', $sql ],
		'>', \$out, '2>&1') or die $out;
	return;
}
my $s = $c->session;
$s->query('SELECT count(*) FROM t');
page_server_sql('SELECT pg_wal_replay_pause()');
$s->query("UPDATE t SET id = id WHERE id % 100 = 0");
$s->send('SELECT count(*) FROM t');
$f->moves('replay is paused', qw(replay_paused replay_lag_bytes requests_waiting));
page_server_sql('SELECT pg_wal_replay_resume()');
is($s->wait, 20000, 'replay goes on');

# ---- strangers

NeonComm::Pagestream->new(port => $c->page_server_port(0), options => '-c neon_comm_identity=x')->close;
ask_http($port, "nonsense\r\n\r\n");
my $lost = client()->stream(tenant => $tenant, timeline => $timeline);
$lost->ask('getpage', rel => [ 1663, 1, 999999 ], block => 5, nms => 1);
$f->moves('clients that are refused, and requests of what is not there', qw(clients_refused exporter_refused error_answers));
$c->configure({ 'neon_page_service.max_requests_per_second' => 20 }, part => 'page_server_0');
my $hasty = client()->stream(tenant => $tenant, timeline => $timeline);
ok(until_true(sub {
	$hasty->send_requests(map { $hasty->request_body('nblocks', rel => [ split / /, $rel ]) } 1 .. 40);
	$hasty->read_answer foreach 1 .. 40;
	$f->look('a client in haste');
	return $f->{moved}{neon_page_service_throttled};
}), 'a client in haste is slowed down');
$c->configure({ 'neon_page_service.max_requests_per_second' => 0 }, part => 'page_server_0');

# ---- workers that stand still, and one that ends

my @workers = $c->pids_of('page_server_0', qr/neon page service \d/);
kill 'TERM', $workers[0];
$f->moves('a worker ends', 'workers_listening');

# ---- a new compute, that begins from this page server

$s->close;
undef $s;
ok($c->wait_for('SELECT bool_and(apply_lsn >= pg_current_wal_flush_lsn()) FROM neon_comm.page_servers'), 'all is replayed');
$c->kill9('compute');
remove_tree("$dir/compute");
$c->dev('create-compute', '-D', $dir);
is($c->sql('SELECT count(*) FROM t'), 20000, 'a new compute has the rows');
$f->moves('a new compute', qw(boot_images boot_held_seconds));
SKIP:
{
	skip 'promtool is not installed, see scripts/prometheus', 1 unless promtool();
	is(promtool_says(get($port, '/metrics')->{body}), '', 'promtool finds nothing wrong');
}
$c->check_logs;

# ---- a standby of an ordinary server, which may be promoted

my $port2 = free_port();
my $primary = PostgreSQL::Test::Cluster->new('primary');
$primary->init(allows_streaming => 1);
$primary->start;
$primary->backup('b');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'b', has_streaming => 1);
conf($standby, shared_preload_libraries => 'neon_page_service', 'neon_page_service.port' => free_port(), 'neon_page_service.metrics_port' => $port2,
	'neon_page_service.allow_any_primary' => 'on', 'neon_page_service.allow_unsafe' => 'on', max_worker_processes => 16, full_page_writes => 'on');
$standby->start;
$f->begin($port2);
ok(until_true(sub { $f->look('a start')->{neon_page_service_consistent} == 1 }), 'its replay is consistent');
$standby->promote;
$f->moves('a promotion', qw(in_recovery consistent));
$standby->stop;
$primary->stop;
$f->judge;
done_testing();
