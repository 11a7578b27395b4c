# Page servers count in synchronous_standby_names: commits wait for them as on a stock server for
# standbys (docs/wal_feed.md, "Commits that wait").
#
# A page server is kept from confirming by stopping its walreceiver, from replaying by stopping its
# startup process; its page service answers all the while. What is read fits into shared buffers.
#
# Seen to fail: before page servers had entries of walsenders every commit waited for ever.
use strict;
use warnings;

use Test::More;
use Time::HiRes qw(usleep);
use NeonComm::Cluster;

my $three = 'page_server_0, page_server_1, page_server_2';
# neon_dev needs no commit to start; max_wal_senders: three page servers and one more
my $c = NeonComm::Cluster->new(shards => 3, buffers => '128MB',
	conf => [ "synchronous_standby_names=ANY 2 ($three)", 'max_wal_senders=4', 'max_prepared_transactions=5' ]);
my %stopped;

sub processes
{
	my ($n, $title) = @_;
	return $c->pids_of("page_server_$n", $title);
}

# The process is there some time after its page server.
sub freeze
{
	my ($title, @page_servers) = @_;
	foreach my $n (@page_servers)
	{
		my @pids;
		foreach (1 .. 600) { @pids = processes($n, $title) and last; usleep(100_000) }
		is(kill('STOP', @pids), 1, "$title of page server $n stops");
		$stopped{$_} = 1 foreach @pids;
	}
	return;
}

sub thaw { kill 'CONT', keys %stopped; %stopped = (); return }
END { local $?; thaw() if $c && -d $c->{dir} }

my $walreceiver = qr/walreceiver/;
my $replay = qr/startup/;

# Everything that is used while page servers are away has been read before.
my $watch = $c->session;
my $writer = $c->session;
my $n = 0;
my $view = 'neon_comm.page_servers';
sub states { return $watch->query("SELECT string_agg(coalesce(sync_state, '-') || sync_priority, ' ' ORDER BY name) FROM $view") }
sub waits { my ($s) = @_; return $watch->wait_for("SELECT wait_event = 'SyncRep' FROM pg_stat_activity WHERE pid = " . $s->pid) }
sub row { my ($id) = @_; return $watch->query("SELECT count(*) FROM t WHERE id = $id") }

sub names
{
	my ($names) = @_;
	$watch->query("ALTER SYSTEM SET synchronous_standby_names = '$names'");
	return $watch->query('SELECT pg_reload_conf()');
}

sub insert { my ($s, $level) = @_; $n++; $s->send("SET synchronous_commit = $level; INSERT INTO t VALUES ($n)"); return $n }

# A commit that waits, until it is told to stop.
sub waits_until_cancelled
{
	my ($what, $sql) = @_;
	my $s = $c->session;
	$s->query('SET client_min_messages = warning');
	$s->send($sql);
	ok(waits($s), "$what waits");
	$watch->query('SELECT pg_cancel_backend(' . $s->pid . ')');
	$s->wait;
	like($s->{last_error}, qr/WARNING:  canceling wait for synchronous replication due to user request/, '  cancel ends it with a warning');
	$s->close;
	return;
}

ok($watch->wait_for("SELECT count(*) = 3 FROM $view WHERE sync_state = 'quorum' AND state = 'streaming'"), 'three count')
  or BAIL_OUT('every commit would wait for ever');
$c->sql(q{CREATE TABLE t (id int); INSERT INTO t VALUES (0)});
is(states(), 'quorum1 quorum1 quorum1', 'in a quorum');
$watch->query($_) foreach ("SELECT wait_event = 'SyncRep' FROM pg_stat_activity WHERE pid = 1", 'SELECT pg_cancel_backend(0)',
	'SELECT pg_terminate_backend(0)', 'SELECT count(*) FROM t WHERE id = 1', "SELECT count(*) FROM pg_prepared_xacts",
	"SELECT datname FROM pg_database");

foreach my $level (qw(on remote_write remote_apply local off))
{
	my $id = insert($writer, $level);
	$writer->wait;
	is($writer->{last_error}, '', "$level: committed");
	is(row($id), 1, '  and there');
}
foreach my $part (0 .. 2)
{
	my @lines = $c->log_text('compute') =~ /standby "page_server_$part" is now a candidate for quorum/g;
	is(scalar @lines, 1, "page server $part is announced once, as the server does it");
}

# ---- ANY 2 of 3
freeze($walreceiver, 2);
insert($writer, 'remote_apply');
$writer->wait;
is($writer->{last_error}, '', 'one confirms nothing: two are enough');
freeze($walreceiver, 1);
foreach my $level (qw(remote_write on remote_apply))
{
	my $id = $n + 1;
	waits_until_cancelled($level, "SET synchronous_commit = $level; INSERT INTO t VALUES ($id)");
	is(row($id), 1, '  committed it is');
	$n = $id;
}
foreach my $level (qw(local off))
{
	insert($writer, $level);
	$writer->wait;
	is($writer->{last_error}, '', "$level waits for nobody");
}
waits_until_cancelled('PREPARE TRANSACTION', "BEGIN; INSERT INTO t VALUES (1001); PREPARE TRANSACTION 'p'");
is($watch->query('SELECT count(*) FROM pg_prepared_xacts'), 1, '  prepared it is');
waits_until_cancelled('COMMIT PREPARED', "COMMIT PREPARED 'p'");
is(row(1001), 1, '  committed it is');

my $victim = $c->session;
insert($victim, 'on');
ok(waits($victim), 'a commit waits');
$watch->query('SELECT pg_terminate_backend(' . $victim->pid . ')');
$victim->wait;
like($victim->{last_error}, qr/canceling the wait for synchronous replication and terminating connection/, 'terminate ends it with a warning');
is(row($n), 1, '  committed it is');

# Many wait, and go on together.
my @many = map { $c->session } 1 .. 5;
insert($_, 'on') foreach @many;
ok(waits($_), 'waits') foreach @many;
$c->configure({ 'log_checkpoints' => 'on' });
ok(!$_->ready, 'and goes on waiting') foreach @many;
thaw();
$_->wait foreach @many;
is(join('', map { $_->{last_error} } @many), '', 'when page servers go on so do they');

# ---- what the levels mean
ok($watch->wait_for("SELECT count(*) = 3 FROM $view WHERE lag_bytes = 0"), 'all have replayed everything');
freeze($replay, 0 .. 2);
insert($writer, 'on');
$writer->wait;
is($writer->{last_error}, '', 'on: stored, not replayed, is enough');
insert($writer, 'remote_apply');
ok(waits($writer), 'remote_apply waits for replay');
thaw();
$writer->wait;
is($writer->{last_error}, '', '  and for no more than that');

# ---- the setting changes under who waits
freeze($walreceiver, 1, 2);
insert($writer, 'on');
ok(waits($writer), 'a commit waits for two');
names('FIRST 1 ("PAGE_server_0", *)');
$writer->wait;
is($writer->{last_error}, '', 'a reload wants one: it ends');
ok($watch->wait_for("SELECT sync_state = 'sync' FROM $view WHERE name = 'page_server_0'"), 'which is the first');
is(states(), 'sync1 potential2 potential2', 'the others could take its place');
names('FIRST 1 (page_server_1, page_server_0)');
ok($watch->wait_for("SELECT sync_state = 'sync' FROM $view WHERE name = 'page_server_1'"), 'another one is first');
is(states(), 'potential2 sync1 async0', 'one is not listed');
insert($writer, 'on');
ok(waits($writer), 'which confirms nothing');
$c->kill9('page-server', 1);
$writer->wait;
is($writer->{last_error}, '', 'the next one stands in');
is($watch->query("SELECT state || ' ' || coalesce(sync_state, '-') || sync_priority FROM $view WHERE name = 'page_server_1'"),
	'absent -1', 'who is absent does not count');
names('ANY 1 (nobody)');
ok($watch->wait_for("SELECT sync_priority = 0 FROM $view WHERE name = 'page_server_0'"), 'a list of others');
insert($writer, 'on');
ok(waits($writer), 'a commit waits for others');
names('');
$writer->wait;
is($writer->{last_error}, '', 'an empty list ends it');
is(states(), 'async0 -0 async0', 'nobody counts');
thaw();
%stopped = ();
$c->start('page-server', 1);

# ---- walsenders: entries are there for all, or refused
sub walsender { return NeonComm::Session->new($c->conninfo . ' dbname=postgres replication=database') }
my @senders = map { walsender() } 1 .. 4;
names("ANY 1 ($three)");
ok($c->wait_log('compute', qr/page server "page_server_0" does not count in synchronous_standby_names/), 'no place for page servers');
insert($writer, 'on');
ok(waits($writer), 'so that a commit waits');
ok(!eval { walsender(); 1 }, 'nor for one more walsender');
$_->close foreach @senders;
$writer->wait;
is($writer->{last_error}, '', 'walsenders leave: it ends');
ok($watch->wait_for("SELECT count(*) = 3 FROM $view WHERE sync_state = 'quorum'"), 'three count');
my $sender = walsender();
ok(!eval { walsender(); 1 }, 'a walsender too many is refused');
like($c->log_text('compute'), qr/FATAL:  number of requested standby connections exceeds max_wal_senders \(currently 4\)/, '  which is said');
is($sender->query('SELECT 1'), 1, '  the others go on');
$sender->close;

# ---- databases
$c->sql('CREATE DATABASE other');
freeze($walreceiver, 0 .. 2);
waits_until_cancelled('DROP DATABASE', 'DROP DATABASE other');
# behind it pages of catalogs are asked for with its LSN
thaw();
is($watch->query("SELECT count(*) FROM pg_database WHERE datname = 'other'"), 0, '  dropped it is');

# ---- a stop does not wait for ever
$c->sql('CREATE TABLE last (x int)');
$watch->query("SELECT wait_event = 'SyncRep' FROM pg_stat_activity WHERE pid = 1");
insert($writer, 'local');
$writer->wait;
freeze($walreceiver, 0 .. 2);
insert($writer, 'on');
ok(waits($writer), 'a commit waits');
$c->stop('compute');
$writer->wait;
like($writer->{last_error}, qr/canceling the wait for synchronous replication and terminating connection/, 'a stop ends it with a warning');
thaw();
$c->start('compute');
is($c->sql('SELECT count(*), max(id) FROM t WHERE id < 1000'), ($n + 1) . "|$n", 'nothing is missing');
$c->sql('INSERT INTO t VALUES (2000)');

$c->check_logs;
done_testing();
