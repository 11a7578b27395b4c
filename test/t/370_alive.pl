# Rounds of takeovers from a compute that is alive (docs/takeover.md): four page servers of which two confirm. In each
# round a compute runs on, with clients that transfer money, while another one takes its place, as where a machine is
# believed dead because the network parts it from whoever looks. The takeover is held after it has looked at the logs and
# before the new compute starts, and the clients of the old one go on meanwhile: nothing is acknowledged to them that the
# new one does not have, and the old one stops when it is told.
#
# In odd rounds two page servers, as many as confirm, follow the old compute all the time, the other two hear of it when
# the logs have been seen, and it is told when they come; in even rounds none comes to it any more, it answers nothing, and
# asks page servers itself.
# Each page server gets its WAL through a proxy, which parts it and leads it to the one compute or the other.
#
# NEON_TAKEOVER_ROUNDS: how many, default 2.
use strict;
use warnings;

use File::Path qw(remove_tree);
use NeonComm::Cluster;
use NeonComm::Members qw(edit settings_of members_known disown_compute);
use NeonComm::Proxy;
use NeonComm::Transfers;
use Test::More;
use Time::HiRes qw(usleep);

my $rounds = $ENV{NEON_TAKEOVER_ROUNDS} // 2;
my $proxy = NeonComm::Proxy->new;
my $c = NeonComm::Cluster->new(shards => 1, buffers => '16MB',
	init => [ '--durable', '--page-servers', 4, '--hosts', 4, '--write-quorum', 2 ], no_start => 1,
	conf => [ 'neon_comm.silence_timeout=5s' ],
	ps_conf => [ 'wal_receiver_status_interval=1s', 'wal_receiver_timeout=10s', 'wal_retrieve_retry_interval=200ms' ]);
my $dir = $c->{dir};
my $top = $dir =~ s{/[^/]*$}{}r;
$c->allow_log(qr/could not read block .* from its page server|overtaken/);

my $feed = { settings_of($c) }->{wal_feed_port};
foreach my $n (0 .. 3)
{
	my $port = $proxy->link("feed$n", $feed);
	edit("$dir/page_server_$n/postgresql.conf", sub { s/\b$feed\b/$port/ if /^primary_conninfo/ });
}
sub part { my (@which) = @_; foreach (@which) { $proxy->cmd("down feed$_"); $proxy->cmd("cut feed$_") } return }
sub heal { my (@which) = @_; $proxy->cmd("up feed$_") foreach @which; return }

sub lead_to
{
	my ($ports) = @_;
	foreach (0 .. 3) { $proxy->cmd("target feed$_ 127.0.0.1:$ports->{wal_feed_port}"); $proxy->cmd("cut feed$_") }
	return;
}

# create-compute syncs what it has laid, when it has looked at all logs and before it starts the new compute: there it waits.
mkdir "$top/held" or die $!;
open my $sync, '>', "$top/held/sync" or die $!;
print $sync <<"END";
#!/bin/sh
: >$top/held/there
while [ -e $top/held/hold ]; do sleep 0.05; done
PATH=$ENV{PATH}
exec sync "\$@"
END
close $sync or die $!;
chmod 0755, "$top/held/sync" or die $!;

sub hold { open my $fh, '>', "$top/held/hold" or die $!; unlink "$top/held/there"; return close $fh }
sub release { return unlink "$top/held/hold" }

# The pid of create-compute; what it says is in a file.
sub begin_takeover
{
	my ($said) = @_;
	local $ENV{PATH} = "$top/held:$ENV{PATH}";
	hold();
	return $c->dev_alone($said, 'create-compute', '-D', $dir);
}

sub is_held
{
	my ($pid) = @_;
	foreach (1 .. 1800)
	{
		return 1 if -e "$top/held/there";
		return 0 if waitpid($pid, 1) != 0;
		usleep(100_000);
	}
	return 0;
}

# Until the processes have ended.
sub ended
{
	my ($pid) = @_;
	foreach (1 .. ($NeonComm::Session::must_fail ? 100 : 1800)) { return 1 unless kill 0, $pid; usleep(100_000) }
	return 0;
}

my ($old, $takes_over);
END
{
	local $?;
	release() if defined $top;
	kill 'KILL', $takes_over if $takes_over;
	kill 'QUIT', $old if $old;
}

$c->start;
ok(members_known($c, 4, 0 .. 3), 'members are known');
my $transfers = NeonComm::Transfers->new($c);
sub counting { my ($n) = @_; return $c->wait_for("SELECT count(*) = $n FROM neon_comm.page_servers WHERE sync_state = 'quorum'") }

foreach my $round (1 .. $rounds)
{
	ok(counting(4), "round $round: four count");
	my @sessions = map { $c->session } 1 .. 4;
	my $island = $round % 2 == 0;
	my @parted = map { ($_ + $round) % 4 } 1, 2;
	my $watch = $c->session;
	$watch->query('SELECT sum(amount) FROM account');
	foreach my $turn (1 .. 20)
	{
		part(@parted) if $turn == 11;
		$transfers->send($_) foreach @sessions;
		$transfers->judge($_) foreach @sessions;
	}

	$old = $c->postmaster_pid('compute');
	part(0 .. 3) if $island;
	my $from = length $c->log_text('compute');
	my (undef, $after) = disown_compute($c);
	my $said = "$dir/log/takeover_$round.out";
	$takes_over = begin_takeover($said);
	ok(is_held($takes_over), "round $round: another compute is laid by what promises have told") or die do { local @ARGV = $said; <> };

	# the old one goes on, for those whom it reaches
	$transfers->send($_) foreach @sessions;
	if ($island)
	{
		lead_to($after);
		heal(0 .. 3);
		release();
		waitpid $takes_over, 0;
		is($?, 0, 'it starts');
		# nobody says when it asks: it may have stopped
		eval { $watch->send('SELECT sum(amount) FROM account') };
		is($watch->wait, '', 'the one before answers nothing any more');
	}
	else { heal(@parted) }
	my $acknowledged = grep { $transfers->judge($_) } @sessions;
	if (!$island)
	{
		lead_to($after);
		release();
		waitpid $takes_over, 0;
		is($?, 0, 'it starts');
	}
	$takes_over = undef;
	$transfers->check("round $round");
	is($acknowledged, 0, '... and none was acknowledged by the one before when logs had been seen');
	ok($c->wait_log('compute', qr/FATAL: .*this compute was overtaken and stops/, $from), 'which was told so');
	ok(ended($old), '... and has stopped');
	$old = undef;
	remove_tree("$dir/compute_lost");
}
cmp_ok($transfers->acknowledged, '>=', 80 * $rounds, 'transfers were acknowledged');
$c->check_logs;
done_testing();
