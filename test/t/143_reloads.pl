# Storms of reloads under load, with page_servers rewritten but equal, and with
# page_servers changed to other addresses of the same servers: no transaction
# fails, the communicator stays the same process, and neither connections nor
# descriptors accumulate.  (docs/faults.md, rows 29, 32 and 54.)
use strict;
use warnings;

use Test::More;
use NeonComm::Cluster;

my $rounds = $ENV{NEON_RELOADS} // 120;
my $c = NeonComm::Cluster->new(conf => [ 'neon_comm.connections_per_shard=4', 'neon_comm.idle_timeout=1s' ]);
my ($rc, undef, $err) = $c->pgbench('-i', '-q', '-s', 4);
is($rc, 0, 'tables') or diag($err);
my $agree = q{SELECT (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(delta) FROM pgbench_history)};
my ($communicator) = $c->pids_of('compute', qr/neon_comm communicator/);
my ($feed) = $c->pids_of('compute', qr/neon_comm WAL feed/);
my $pm = $c->postmaster_pid('compute');
my $servers = $c->sql('SHOW neon_comm.page_servers');
like($servers, qr/127\.0\.0\.1/, 'page servers have an address');

# The same servers by other strings: blanks, another name of this machine, both.
my @equal = ($servers, $servers =~ s/host/ host/gr, $servers =~ s/ port/  port/gr);
my @other = ($servers, $servers =~ s/127\.0\.0\.1/localhost/gr);

sub descriptors { my @fds = glob("/proc/$_[0]/fd/*"); return scalar @fds }

sub storm
{
	my ($what, $times, $strings, $extra) = @_;
	my $text = '';
	my $before = $c->sql('SELECT count(*) FROM pgbench_history');
	my $h = $c->background(\$text, 'pgbench', '-n', '-c', 6, '-j', 1, '-t', 400, $c->conninfo . ' dbname=postgres');
	ok($c->wait_for("SELECT count(*) > $before + 50 FROM pgbench_history"), "$what: load");
	my $s = $c->session;
	my $most = 0;
	foreach my $i (0 .. $times - 1)
	{
		$s->query("ALTER SYSTEM SET neon_comm.page_servers = '$strings->[ $i % @$strings ]'");
		$s->query($extra->($i)) if $extra;
		$s->query('SELECT pg_reload_conf()');
		my $n = $s->query('SELECT coalesce(max(n), 0) FROM (SELECT count(*) AS n FROM neon_comm.connections GROUP BY shard) x');
		$most = $n if $n > $most;
	}
	ok($h->finish, "$what: no transaction failed") or diag($text);
	is($c->sql($agree), 't', "$what: sums agree");
	# those of an old map may still drain beside those of the new one
	cmp_ok($most, '<=', 3 * 4, "$what: connections of a shard stay bounded");
	is(join(',', $c->pids_of('compute', qr/neon_comm (communicator|WAL feed)/)), "$communicator,$feed",
		"$what: communicator and feed stay");
	return;
}

$c->evict;
my $fds = descriptors($communicator);
cmp_ok($fds, '>', 5, 'descriptors of the communicator are seen');
storm('the same', $rounds, [$servers]);
my $changes = $c->counter('map_changes');
storm('equal', $rounds, \@equal);
storm('changed', $rounds / 2, \@other);
cmp_ok($c->counter('map_changes'), '>', $changes, 'changed: the map did change');
storm('everything', $rounds / 2, \@other, sub {
	my ($i) = @_;
	return sprintf('ALTER SYSTEM SET neon_comm.%s',
		('connections_per_shard = 2', 'connection_depth = 1', 'protocol_version = 2', 'sweep_interval = 200',
		'connections_per_shard = 4', 'connection_depth = 8', 'protocol_version = 3', 'wal_feed_timeout = 30000')[ $i % 8 ]);
});

# A burst of signals, without a pause, while a scan runs.
my $s = $c->session;
$s->send('SELECT count(*) FROM pgbench_accounts a JOIN pgbench_accounts b USING (aid)');
kill 'HUP', $pm foreach 1 .. 1000;
is($s->wait, 400_000, 'a scan through a burst of signals');

# What was opened is closed again: idle connections go after a second.
$c->sql("ALTER SYSTEM SET neon_comm.page_servers = '$servers'");
$c->sql('SELECT pg_reload_conf()');
ok($c->wait_for('SELECT count(*) <= 2 FROM neon_comm.connections'), 'idle connections are closed');
foreach (1 .. 600)
{
	last if descriptors($communicator) <= $fds + 4;
	select undef, undef, undef, 0.1;
}
cmp_ok(descriptors($communicator), '<=', $fds + 4, 'descriptors are back where they were');
$c->evict;
is($c->sql('SELECT count(*) FROM pgbench_accounts'), 400_000, 'all is read at the end');
is($c->sql('SELECT count(*) FROM neon_comm.slots WHERE pid <> pg_backend_pid()'), 0, 'no slot is left');
is($c->counter('connections_poisoned'), 0, 'no answer was mixed up');
is($c->counter('found_late'), 0, 'no doorbell was lost');
$c->check_logs;
done_testing();
