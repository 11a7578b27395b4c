# Slots of page servers are the feed's: nobody else moves, uses or drops them, and what
# is done to them in a moment when the feed does not hold them is noticed and undone.
#
# page_server_1 is registered and never came, so every byte of WAL from its slot on has to
# stay. Seen to fail: a role with REPLICATION moved a slot to the end of WAL and
# the segments before were gone at the next checkpoint, without a word in the log.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use File::Temp qw(tempdir);
use IPC::Run ();
use NeonComm::TestPoint;
use NeonComm::Cluster;
use Test::More;
use Time::HiRes qw(usleep);

my $c = NeonComm::Cluster->new(shards => 1, buffers => '16MB', conf => [ 'min_wal_size=32MB', 'max_wal_size=64MB',
	'neon_comm.wal_feed_slots=page_server_0,page_server_1', 'max_wal_senders=6' ]);
my $received = tempdir(CLEANUP => 1);
$c->sql('CREATE ROLE repl LOGIN REPLICATION; CREATE TABLE t (x text)');
my $slot = 'page_server_1';
my $where = "SELECT restart_lsn FROM pg_replication_slots WHERE slot_name = '$slot'";

sub log_text { return $c->log_text('compute') }

# Until the condition holds; a deadlock guard, not a measure.
sub until_true
{
	my ($sub) = @_;
	foreach (1 .. ($NeonComm::Session::must_fail ? 200 : 1200))
	{
		return 1 if eval { $sub->() };
		usleep(100_000);
	}
	return 0;
}

sub held
{
	return $c->wait_for(q{SELECT count(*) = 2 FROM pg_replication_slots
		WHERE slot_name LIKE 'page_server_%' AND slot_type = 'physical' AND NOT temporary AND active});
}

# Output of a statement of the role that has nothing but REPLICATION.
sub repl
{
	my ($sql, $more) = @_;
	my $out = '';
	IPC::Run::run([ 'psql', '-XAt', '-d', $c->conninfo . ' dbname=postgres user=repl ' . ($more // ''), '-c', $sql ],
		'<', \undef, '>', \$out, '2>&1');
	return $out;
}

my $advance = "SELECT pg_replication_slot_advance('$slot', pg_current_wal_lsn())";
my $drop = "SELECT pg_drop_replication_slot('$slot')";

# WAL goes on for some segments, and what no slot keeps is removed.
sub roll
{
	$c->sql("INSERT INTO t SELECT repeat('x', 500) FROM generate_series(1, 2000); SELECT pg_switch_wal(); CHECKPOINT")
	  foreach 1 .. 3;
	return;
}

ok(held(), 'slots are made and held');
my $at = $c->sql($where);
my $file = $c->sql("SELECT pg_walfile_name('$at')");

sub nothing_lost
{
	my ($name) = @_;
	ok(until_true(sub { $c->sql($where) eq $at }), "$name: the slot stands where it stood");
	roll();
	ok(-f "$c->{dir}/compute/pg_wal/$file", "$name: WAL is kept");
	return;
}

# ---- while the feed runs

my $active = qr/replication slot "$slot" is active for PID/;
like(repl($advance), $active, 'a role with REPLICATION does not move it');
like(repl($drop), $active, 'nor drop it');
like(repl("DROP_REPLICATION_SLOT $slot", 'replication=true'), $active, 'nor by a walsender');
like(repl("START_REPLICATION SLOT $slot PHYSICAL $at", 'replication=true'), $active, 'nor stream from it');
my $out = '';
IPC::Run::run([ 'pg_receivewal', '-n', '-D', $received, '-S', $slot, '-d', $c->conninfo . ' dbname=postgres user=repl' ],
	'<', \undef, '>', \$out, '2>&1');
like($out, $active, 'pg_receivewal neither');
isnt(($c->try_sql($advance))[0], 0, 'a superuser neither');
nothing_lost('while the feed runs');

# ---- restarts: held before anybody can connect

foreach my $mode (qw(fast immediate))
{
	$mode eq 'fast' ? $c->stop('compute') : $c->kill9('compute');
	$c->start('compute');
	like(repl($advance), $active, "after a stop ($mode) it is held");
	nothing_lost("stop ($mode)");
}

# ---- moments in which the feed does not hold them

sub let_go
{
	my ($yes) = @_;
	$c->configure({ 'neon_comm.test_points' => $yes ? 'feed-lets-go=true' : '' });
	return;
}

# Lets the statement happen; offset into the log of what follows.
sub in_between
{
	my ($sql, $name) = @_;
	my $from = length log_text();
	let_go(1);
	ok(until_true(sub { repl($sql) !~ /$active|does not exist/ }), "$name is possible for a moment");
	let_go(0);
	return $from;
}

sub logged
{
	my ($from, $regex, $name) = @_;
	ok(until_true(sub { substr(log_text(), $from) =~ $regex }), $name);
	return;
}

my $from = in_between($advance, 'moving it on');
logged($from, qr/slot "$slot" of a page server was moved to \S+ by somebody else; moved it back to \Q$at\E, nothing is lost/,
	'which is noticed');
nothing_lost('moved');
$from = in_between($drop, 'dropping it');
logged($from, qr/slot "$slot" of a page server was dropped; made it again at \Q$at\E, nothing is lost/, 'which is noticed');
nothing_lost('dropped');

# the server stops meanwhile: it restores what the slot's file says
$from = in_between("$advance; SELECT 1", 'moving it on before a crash');
$c->kill9('compute');
$c->start('compute');
ok(held(), 'held after the crash');
nothing_lost('moved, and a crash');

# a slot of the same name that belongs to a session: the session ends
$from = length log_text();
let_go(1);
ok(until_true(sub { repl($drop) !~ /$active/ }), 'dropped once more');
my $squatter = IPC::Run::start([ 'psql', '-X', '-d', $c->conninfo . ' dbname=postgres user=repl', '-c',
		"SELECT pg_create_physical_replication_slot('$slot', true, true)", '-c', 'SELECT pg_sleep(600)' ],
	'<', \undef, '>', \my $ignored, '2>&1');
let_go(0);
ok(held(), 'the slot is made again, with or without a session that has made its own');
$squatter->kill_kill(grace => 1);
nothing_lost('a slot of a session');

# who streams from it is ended, too
$from = length log_text();
let_go(1);
# it tries again by itself; who is connected only may be too late, so it is the slot that tells
my $receiver = IPC::Run::start([ 'pg_receivewal', '-D', $received, '-S', $slot, '-d', $c->conninfo . ' dbname=postgres user=repl' ],
	'<', \undef, '>', \$out, '2>&1');
ok($c->wait_for("SELECT count(*) = 1 FROM pg_replication_slots s JOIN pg_stat_replication r ON s.active_pid = r.pid
		WHERE slot_name = '$slot' AND application_name = 'pg_receivewal'"), 'pg_receivewal gets it');
let_go(0);
logged($from, qr/ending process \d+, which uses replication slot "$slot"/, 'and is told to end');
ok($c->wait_for("SELECT count(*) = 0 FROM pg_replication_slots s JOIN pg_stat_replication r ON s.active_pid = r.pid"),
	'which it does; coming again it does not get the slot');
ok(held(), 'the feed holds it');
$receiver->kill_kill(grace => 1);
nothing_lost('pg_receivewal');

# ---- the checkpointer does not wait for ever for a slot that it gives up

$c->configure({ 'max_slot_wal_keep_size' => '1MB' });
$c->try_sql('CHECKPOINT') foreach 1 .. 2;
ok(1, 'a checkpoint ends also with a limit that somebody set');

$c->check_logs;
done_testing();
