# Commits that wait for page servers, where a moment matters: a page server that is behind does not
# count, a feed that ends with an error, a process that is stopped with the lock in its hands (docs/wal_feed.md, "Commits that wait").
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use NeonComm::TestPoint;
use NeonComm::Cluster;
use Test::More;

my $c = NeonComm::Cluster->new(shards => 2, buffers => '128MB',
	conf => [ 'synchronous_standby_names=ANY 1 (page_server_0, page_server_1)', 'neon_comm.wal_feed_timeout=1h' ]);
my $p = NeonComm::TestPoint->new($c);
my $watch = $c->session;
my $s = $c->session;
my $view = 'neon_comm.page_servers';
my $waiting = q{SELECT wait_event = 'SyncRep' FROM pg_stat_activity WHERE pid = } . $s->pid;
my $n = 0;

sub feed { my ($pid) = $c->pids_of('compute', qr/neon_comm WAL feed/); return $pid }
sub insert { $n++; $s->send("INSERT INTO t VALUES ($n)"); return }
sub two_count { return $watch->wait_for("SELECT count(*) = 2 FROM $view WHERE sync_state = 'quorum'") }

$c->sql('CREATE TABLE t (id int); INSERT INTO t VALUES (0)');
$s->query('SELECT count(*) FROM t');
ok(two_count(), 'two count');
$watch->query($_) foreach ($waiting, "SELECT pg_cancel_backend(0)", "SELECT count(*) FROM $view WHERE sync_state = 'potential'",
	"SELECT bool_and(state = 'catchup' AND sync_state = 'potential') FROM $view", 'SELECT count(*) FROM t');

# ---- a feed that ends with an error while commits wait, and another one comes
$p->true('feed-withhold', pid => feed());
insert();
ok($watch->wait_for($waiting), 'nothing is sent: a commit waits');
my $before = feed();
$p->error('feed-turn', pid => $before, times => 1);
$p->disarm('feed-withhold');
$s->wait;
is($s->{last_error}, '', 'the feed has ended with an error: the next one goes on');
isnt(feed(), $before, 'which is another process');
ok(two_count(), 'two count');
is($watch->query('SELECT count(*) FROM pg_stat_get_wal_senders()'), 2, 'the entries of the first one are gone');

# ---- who is behind does not count, although it is connected and has told its positions
$p->true('feed-withhold', pid => feed());
$s->query('SET synchronous_commit = local; INSERT INTO t VALUES (-1); SET synchronous_commit = on');
$c->restart('page-server', $_) foreach 0, 1;
ok($watch->wait_for("SELECT bool_and(state = 'catchup' AND sync_state = 'potential') FROM $view"), 'page servers that came back and are behind');
insert();
ok($watch->wait_for($waiting), 'a commit waits');
$p->disarm('feed-withhold');
$s->wait;
is($s->{last_error}, '', 'they catch up: it ends');
ok(two_count(), 'two count');

# ---- a process is stopped with the lock of those who wait: the feed goes on sending
$p->true('feed-sync-locked', pid => feed());
insert();
ok($watch->wait_for($waiting), 'somebody has the lock: a commit waits');
ok($watch->wait_for("SELECT bool_and(flush_lsn >= pg_current_wal_flush_lsn()) FROM $view"), '  though page servers have it');
$p->disarm('feed-sync-locked');
$s->wait;
is($s->{last_error}, '', '  until the lock is free');

# ---- recovery: who was let in while it lasted counts when it is over
$c->kill9('compute');
$c->start('compute');
is($c->sql('SELECT count(*) FROM t WHERE id > 0'), $n, 'after a crash all is there');
$c->sql('INSERT INTO t VALUES (1000)');

$c->check_logs;
done_testing();
