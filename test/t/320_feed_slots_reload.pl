# Page servers are registered and removed while the compute runs: neon_comm.wal_feed_slots is taken
# by a reload (docs/wal_feed.md, "Names that come and go").
#
# Three page servers, one shard; those beyond it are copies that nobody reads from, so each may go.
#
# Seen to fail: the setting could be changed by a restart only.
use strict;
use warnings;

use Test::More;
use Time::HiRes qw(usleep);
use NeonComm::Cluster;

my @all = map { "page_server_$_" } 0 .. 2;
my $c = NeonComm::Cluster->new(shards => 1, buffers => '16MB', init => [ '--page-servers', 3 ],
	conf => [ 'min_wal_size=32MB', 'max_wal_size=64MB', 'max_replication_slots=5' ]);
my $feed = join ' ', $c->pids_of('compute', qr/WAL feed/);
my $started = $c->sql('SELECT pg_postmaster_start_time()');
$c->sql('CREATE TABLE t (x text)');

sub names { my (@names) = @_; $c->configure({ 'neon_comm.wal_feed_slots' => join(',', @names) }); return }
sub view { return $c->sql(q{SELECT string_agg(name || ' ' || state, ', ' ORDER BY name) FROM neon_comm.page_servers}) }
sub slots { return $c->sql(q{SELECT string_agg(slot_name || CASE WHEN active THEN ' held' ELSE ' free' END, ', ' ORDER BY slot_name) FROM pg_replication_slots}) }
sub slot_at { my ($n) = @_; return $c->sql("SELECT restart_lsn FROM pg_replication_slots WHERE slot_name = 'page_server_$n'") }
sub view_is { my ($view) = @_; return $c->wait_for(qq{SELECT string_agg(name || ' ' || state, ', ' ORDER BY name) = '$view' FROM neon_comm.page_servers}) }
sub log_size { return length $c->log_text('compute') }

# WAL goes on for some segments, and what no slot keeps is removed.
sub roll
{
	$c->sql("INSERT INTO t SELECT repeat('x', 500) FROM generate_series(1, 2000); SELECT pg_switch_wal(); CHECKPOINT")
	  foreach 1 .. 3;
	return;
}

my $three = join ', ', map { "$_ streaming" } @all;
ok(view_is($three), 'three page servers stream');
$c->wait_for('SELECT count(*) = 3 FROM pg_replication_slots WHERE active');

# ---- one goes

my $from = log_size();
names(@all[0, 2]);
ok(view_is('page_server_0 streaming, page_server_2 streaming'), 'one is removed by a reload: the view has the others');
$c->wait_log('compute', qr/page server "page_server_1" is not in neon_comm.wal_feed_slots any more/, $from);
$c->wait_log('compute', qr/WAL feed refused .*slot "page_server_1" is not registered/, $from);
is(slots(), 'page_server_0 held, page_server_1 free, page_server_2 held', 'nobody holds its slot, which is there');

# what the slot keeps is there as long as it is
my $at = slot_at(1);
my $file = $c->sql("SELECT pg_walfile_name('$at')");
roll();
is(slot_at(1), $at, 'it stands where it stood');
ok(-f "$c->{dir}/compute/pg_wal/$file", 'and keeps WAL');

# ---- it comes back: nothing is lost

names(@all);
ok(view_is($three), 'it is registered again and streams');
ok($c->wait_for("SELECT restart_lsn > '$at' FROM pg_replication_slots WHERE slot_name = 'page_server_1'"), 'its slot moves on');
is(slots(), 'page_server_0 held, page_server_1 held, page_server_2 held', 'and is held');

# ---- who is new needs as much as who is behind

$c->stop('page-server', 2);
ok(view_is('page_server_0 streaming, page_server_1 streaming, page_server_2 absent'), 'one is away');
$at = slot_at(2);
roll();
is(slot_at(2), $at, 'WAL is kept for it');
names(@all, 'newcomer');
ok($c->wait_for(q{SELECT count(*) = 1 FROM pg_replication_slots WHERE slot_name = 'newcomer' AND active}), 'a new one gets a slot');
ok($c->sql("SELECT restart_lsn <= '$at' FROM pg_replication_slots WHERE slot_name = 'newcomer'") eq 't',
	'which begins where WAL is kept for the one that is behind, whose copy it may be');

# the slot of the removed one may be dropped; those of others keep what they need
names(@all);
ok($c->wait_for(q{SELECT count(*) = 1 FROM pg_replication_slots WHERE slot_name = 'newcomer' AND NOT active}), 'it is removed');
is($c->sql(q{SELECT pg_drop_replication_slot('newcomer')}), '', 'its slot can be dropped');
roll();
$c->start('page-server', 2);
ok(view_is($three), 'who was away catches up');

# ---- commits do not wait for who has gone

$c->configure({ 'synchronous_standby_names' => 'ANY 2 (page_server_0, page_server_1, page_server_2)' });
ok($c->wait_for(q{SELECT count(*) = 3 FROM neon_comm.page_servers WHERE sync_state = 'quorum'}), 'three count');
names(@all[0, 1]);
ok($c->wait_for(q{SELECT count(*) = 2 FROM neon_comm.page_servers WHERE sync_state = 'quorum'}), 'two count');
$c->sql('INSERT INTO t VALUES (1)');
names($all[0]);
my $s = $c->session;
$s->query('SELECT 1');
ok($c->wait_for(q{SELECT count(*) = 1 FROM neon_comm.page_servers}), 'one is left');
$s->send('INSERT INTO t VALUES (2)');
ok($c->wait_for("SELECT wait_event = 'SyncRep' FROM pg_stat_activity WHERE pid = " . $s->pid), 'too few count: a commit waits');
names(@all);
is(($s->wait)[0], '', 'until they are back');
ok(view_is($three), 'all stream again');
$c->configure({ 'synchronous_standby_names' => '' });

# ---- a list that cannot be is not taken

$from = log_size();
foreach my $bad ('page_server_0,page_server_0', 'Page', join(',', map { "p$_" } 1 .. 6))
{
	$c->append_conf('compute', "neon_comm.wal_feed_slots = '$bad'");
	my ($rc, undef, $err) = $c->try_sql("ALTER SYSTEM SET neon_comm.wal_feed_slots = '$bad'");
	isnt($rc, 0, "\"$bad\" is refused");
}
like(($c->try_sql("ALTER SYSTEM SET neon_comm.wal_feed_slots = 'a,b,c,d,e,f'"))[2], qr/max_replication_slots = 5 is too small for 6/,
	'with the reason');
is(view(), $three, 'nothing has changed');

# ---- numbers are given again; restarts of the server go by the list

$c->append_conf('compute', "neon_comm.wal_feed_slots = '" . join(',', @all) . "'");
names(@all[2, 0]);
ok(view_is('page_server_0 streaming, page_server_2 streaming'), 'one is removed');
names(@all[2, 0, 1]);
ok(view_is($three), 'and back');
is(join(' ', $c->pids_of('compute', qr/WAL feed/)), $feed, 'the feed is the one that it was');
is($c->sql('SELECT pg_postmaster_start_time()'), $started, 'and so is the server');
names(@all[0, 1]);
ok(view_is('page_server_0 streaming, page_server_1 streaming'), 'one is removed');
$c->kill9('compute');
$c->start('compute');
ok(view_is('page_server_0 streaming, page_server_1 streaming'), 'after a crash the list holds');
is($c->sql(q{SELECT active FROM pg_replication_slots WHERE slot_name = 'page_server_2'}), 'f', 'the slot of the removed one is nobody\'s');
names(@all);
ok(view_is($three), 'it comes back after that, too');
is($c->sql('SELECT count(*) >= 18002 FROM t'), 't', 'rows are there');

$c->check_logs;
done_testing();
