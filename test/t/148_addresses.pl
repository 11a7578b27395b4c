# Addresses of page servers that cannot work: a port that refuses, a host that does
# not resolve, a server that accepts and never speaks, one that is no page server.
# Readers wait and can be cancelled, the log says why, and the right addresses
# revive who waits, in the same session.  And those that libpq would not even try (an
# unknown key, nonsense), a password, and none at all: refused, the map stays, and no
# password is shown.
use strict;
use warnings;

use IO::Socket::INET;
use Test::More;
use Time::HiRes qw(usleep);
use NeonComm::Cluster;

my $c = NeonComm::Cluster->new(buffers => '16MB', conf => [ 'neon_comm.connect_timeout=1s', 'neon_comm.request_timeout=1h' ]);

$c->sql(q{CREATE TABLE t AS SELECT g AS id, repeat('x', 900) AS f FROM generate_series(1, 40000) g});
cmp_ok($c->sql(q{SELECT pg_relation_size('t')}), '>', 32 * 1024 * 1024, 'the table is large');
my $right = $c->sql('SHOW neon_comm.page_servers');
my $read = q{SELECT count(*), sum(id) FROM t WHERE f <> ''};
my $rows = '40000|800020000';
$c->restart('compute');
my $s = $c->session;
my $watch = $c->session;
my $pid = $s->pid;
my $slots = "SELECT count(*) FROM neon_comm.slots WHERE pid = $pid";
my $map_changes = q{SELECT value FROM neon_comm.counters WHERE name = 'map_changes'};
my $mute = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 5) or die $!;
my $free = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 1) or die $!;
my ($mute_port, $refused_port) = ($mute->sockport, $free->sockport);
my $sql_port = ($c->conninfo =~ /port=(\d+)/)[0];
$free->close;

sub use_servers
{
	my ($list) = @_;
	open my $fh, '>', "$c->{dir}/compute/postgresql.auto.conf" or die $!;
	print $fh "neon_comm.page_servers = '$list'\n";
	close $fh;
	kill 'HUP', $c->postmaster_pid('compute');
	return;
}

# Those are taken, and the communicator works with them: a reader might be done with the others before.
sub take_servers
{
	my ($list, $what) = @_;
	my $before = $watch->query($map_changes);

	use_servers($list);
	ok($watch->wait_for("SELECT ($map_changes) > $before"), "$what: the addresses are in use");
	return;
}

sub until_waits
{
	foreach (1 .. 1200)
	{
		return 1 if $watch->query($slots) > 0;
		usleep(50_000);
	}
	return 0;
}

$s->query($read);
$watch->query($_) foreach $slots, $map_changes, "SELECT ($map_changes) > 0", 'SELECT pg_cancel_backend(0)';

foreach my $case (
	[ 'refused', "host=127.0.0.1 port=$refused_port", qr/cannot connect.*refused/i ],
	[ 'no such host', 'host=no-such-host.invalid port=5432', qr/no-such-host\.invalid/ ],
	[ 'mute', "host=127.0.0.1 port=$mute_port", qr/timed out|no answer/ ],
	[ 'no page server', "host=127.0.0.1 port=$sql_port user=postgres dbname=postgres", qr/communicator: warning: shard/ ])
{
	my ($what, $string, $says) = @$case;
	my $from = length $c->log_text('compute');

	take_servers("$string,$string", $what);
	$s->send($read);
	ok(until_waits(), "$what: a reader waits");
	ok($c->wait_log('compute', $says, $from), "$what: the log says why");
	$watch->query("SELECT pg_cancel_backend($pid)");
	$s->wait;
	like($s->{last_error}, qr/canceling statement due to user request/, "$what: cancel ends it");
	$s->send($read);
	ok(until_waits(), "$what: another one waits");
	take_servers($right, "$what, right again");
	is($s->wait, $rows, "$what: and goes on by itself when the addresses are right again");
	my @lines = grep { /communicator|still waiting/ } split /\n/, substr($c->log_text('compute'), $from);
	cmp_ok(scalar(@lines), '<', 60, "$what: no flood of lines");
}
# ---- a password does not belong there: it is refused, not told, and nothing changes
my $from = length $c->log_text('compute');
use_servers("host=127.0.0.1 port=$refused_port password=sesame");
ok($c->wait_log('compute', qr/may not hold a password/, $from), 'a password is refused');
is($s->query($read), $rows, 'and the addresses are as before');
unlike(substr($c->log_text('compute'), $from), qr/sesame/, 'it is not told');
use_servers($right);

# ---- what cannot work at all is not taken, and none neither
foreach my $case ([ 'unknown key', "host=127.0.0.1 port=$sql_port no_such_key=1" ], [ 'nonsense', 'nonsense' ], [ 'none', '' ])
{
	my ($what, $string) = @$case;
	my $from = length $c->log_text('compute');
	my $changes = $watch->query($map_changes);

	use_servers($string);
	ok($c->wait_log('compute', qr/LOG:  (invalid value for parameter "neon_comm\.page_servers"|parameter "neon_comm\.page_servers" )/, $from), "$what: refused");
	is($s->query($read), $rows, "$what: and the addresses are as before");
	is($watch->query($map_changes), $changes, "$what: the map has not changed");
	use_servers($right);
}
is($c->sql('SELECT count(*) FROM neon_comm.slots WHERE pid <> pg_backend_pid()'), 0, 'no slot is left');
$c->check_logs;
done_testing();
