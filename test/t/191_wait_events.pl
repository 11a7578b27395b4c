# What pg_stat_activity shows of who waits for us: a reader for a frozen page server, with
# and without the communicator, a writer that backpressure slows down, and on a page server
# replay that nobody demands. From 17 on with names of our own, which pg_wait_events lists,
# too; before as a wait of an extension or for a file (docs/reference.md, "Wait events").
#
# Seen to fail on 18: when what nc_waits_shmem_startup() asks for is not used.
use strict;
use warnings;

use Test::More;
use NeonComm::Cluster;

# Everything fits into shared buffers: a writer needs no page server.
my $c = NeonComm::Cluster->new(buffers => '256MB',
	conf => [ 'neon_comm.silence_timeout=1h', 'neon_comm.max_apply_lag=4MB', 'synchronous_commit=off' ],
	ps_conf => [ 'hot_standby=on', 'max_wal_senders=20', 'max_worker_processes=64' ]);
my ($socket) = map { /^socket_dir=(.*)/ ? $1 : () } do { local @ARGV = ("$c->{dir}/neon_dev.conf"); <> };
my $named = $c->sql('SHOW server_version_num') >= 170000;
my $names = q{SELECT string_agg(name, ' ' ORDER BY name COLLATE "C") FROM pg_wait_events WHERE name LIKE 'Neon%'};

$c->sql(q{CREATE TABLE t AS SELECT g AS id, repeat('x', 400) AS f FROM generate_series(1, 2000) g;
	CREATE TABLE first AS TABLE t; CREATE TABLE w (id int, f text)});
$c->restart('compute');
is($c->sql($names), 'NeonBouncePage NeonCacheList NeonCacheWriterMain NeonChangeMembers NeonConnect NeonExporterMain NeonFeedMain NeonLease NeonLetIn NeonPageRead NeonRecoveryRetry '
	. 'NeonScrubMain NeonSweeperMain NeonThrottle NeonTracerMain', 'names of the compute') if $named;

my @frozen;
sub freeze { push @frozen, @_; kill 'STOP', @_; return }
sub thaw { kill 'CONT', splice @frozen; return }
END { local $?; thaw() }
sub all_of { my ($part) = @_; return ($c->postmaster_pid($part), $c->pids_of($part, qr/./)) }

my $watch = $c->session;
my $shown = q{SELECT wait_event_type || ' ' || wait_event FROM pg_stat_activity WHERE pid = %d};
$watch->query(sprintf $shown, 1);
$watch->query("SELECT pg_cancel_backend(NULL)");

# Waits until it is seen: a process does other things before and between.
sub shows
{
	my ($what, $s, $name, $before) = @_;
	my $wanted = $named ? "Extension $name" : $before;
	my $sql = sprintf $shown, $s->pid;
	ok($watch->wait_for("SELECT '$wanted' IN ($sql)"), "$what: $wanted") or diag($watch->query($sql));
	$watch->query('SELECT pg_cancel_backend(' . $s->pid . ')');
	$s->wait;
	return;
}

# The last one has connections of its own to both page servers already.
my @readers = map { $c->session } 1 .. 3;
my $read = 'SELECT sum(id) FROM t';
$_->query("EXPLAIN $read") foreach @readers;
$_->query('SET neon_comm.mode = direct') foreach @readers[ 1, 2 ];
$readers[2]->query('SELECT sum(id) FROM first');
my $writer = $c->session;
my $insert = q{INSERT INTO w SELECT g, repeat('x', 900) FROM generate_series(1, %d) g};
$writer->query(sprintf $insert, 10);
$watch->query("SELECT '' IN (" . sprintf($shown, 1) . ')');

freeze(map { all_of("page_server_$_") } 0, 1);
$readers[0]->send($read);
shows('who reads', $readers[0], 'NeonPageRead', 'IO DataFileRead');
$readers[1]->send($read);
shows('who connects first', $readers[1], 'NeonConnect', 'IO DataFileRead');
$readers[2]->send($read);
shows('who reads directly', $readers[2], 'NeonPageRead', 'IO DataFileRead');
thaw();
is($c->sql('SELECT sum(id) FROM t'), 2001000, 'rows');

freeze($c->pids_of('page_server_1', qr/startup/));
is(scalar @frozen, 1, 'replay is frozen');
$writer->send(sprintf $insert, 400_000);
shows('who writes', $writer, 'NeonThrottle', 'Extension Extension');
thaw();

# A page server that replays what is asked for only.
sub page_server_sql
{
	my ($sql, $out) = (@_, '');
	IPC::Run::run([ 'psql', '-XqAt', '-d', "host=$socket port=@{[ $c->page_server_port(1) ]} dbname=postgres user=postgres", '-c', $sql ],
		'>', \$out, '2>&1');
	chomp $out;
	return $out;
}
$c->append_conf('page_server_1', 'neon_page_service.lazy_replay = on');
$c->restart('page-server', 1);
is(page_server_sql($names), 'NeonExporterMain NeonLazyReplay NeonPageServiceMain NeonTracerMain', 'names of a page server') if $named;
my $lazily = $named ? 'NeonLazyReplay' : 'Extension';
my $seen = '';
foreach (1 .. 600)
{
	$c->sql('SELECT pg_logical_emit_message(false, \'\', \'\')');
	$seen = page_server_sql(q{SELECT wait_event FROM pg_stat_activity WHERE backend_type = 'startup'});
	last if $seen eq $lazily;
	select(undef, undef, undef, 0.1);
}
is($seen, $lazily, 'replay that nobody demands');
$c->check_logs;
done_testing();
