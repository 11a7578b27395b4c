# Rounds of takeovers under load (docs/takeover.md): three page servers of which two confirm, all of them hosts of the
# one shard. In each round the compute is killed while clients transfer money, its directory is taken away and it is
# replaced; in a third of the rounds one page server is down meanwhile, in a third the network parts one of them while
# the clients work, and another one while the compute is replaced; in a third one gets no WAL for a while, and who has
# it is lost. In half of the rounds the old directory is started again beside the new compute: it lets nobody in.
# Every transfer that was acknowledged is there, none that was refused, sums are exact, indexes are sound.
#
# Page servers are in network namespaces of their own. Where user namespaces are forbidden those that shall be parted
# are frozen.
#
# NEON_TAKEOVER_ROUNDS: how many, default 3.
use strict;
use warnings;

use File::Path qw(remove_tree);
use IPC::Run ();
use POSIX qw(WNOHANG);
use NeonComm::Cluster;
use NeonComm::Members qw(members_known);
use NeonComm::Nets;
use NeonComm::Ports qw(free_port);
use NeonComm::Transfers;
use Test::More;
use Time::HiRes qw(usleep);

my $nets = NeonComm::Nets->enter;
note($nets ? 'page servers are in network namespaces' : 'user namespaces are forbidden: who shall be parted is frozen');
my $rounds = $ENV{NEON_TAKEOVER_ROUNDS} // 3;
my $c = NeonComm::Cluster->new(shards => 1, buffers => '16MB',
	init => [ '--durable', '--page-servers', 3, '--hosts', 3, '--write-quorum', 2 ], no_start => 1,
	conf => [ 'neon_comm.wal_feed_timeout=5s', 'neon_comm.silence_timeout=5s' ],
	ps_conf => [ 'wal_receiver_status_interval=1s', 'wal_receiver_timeout=10s' ]);
my $dir = $c->{dir};
my $bindir = `@{[ $ENV{PG_CONFIG} // 'pg_config' ]} --bindir`;
chomp $bindir;
my %conf = do { open my $fh, '<', "$dir/neon_dev.conf" or die $!; map { /^(\w+)=(.*)$/ ? ($1 => $2) : () } <$fh> };
my (%frozen, $old);
END
{
	local $?;
	kill 'CONT', keys %frozen if $c && -d $c->{dir};
	kill 'QUIT', $old if $old;
}
$c->allow_log(qr/could not read block .* from its page server|overtaken/);

if ($nets) { $nets->add($_, [ $c->page_server_port($_) ], [ $conf{wal_feed_port} ]) foreach 0 .. 2 }

sub start_page_server
{
	my ($n) = @_;
	return $c->start('page-server', $n) unless $nets;
	$c->{started} = 1;
	my $out = '';
	my $file = File::Temp->new;
	IPC::Run::run([ $nets->inside($n), NeonComm::Cluster::neon_dev_path(), 'start', '-D', $dir, '--quiet', 'page-server', $n ],
		'<', \undef, '>', "$file", '2>&1') or die "page server $n does not start: ", do { local @ARGV = ("$file"); <> };
	return;
}

# The network to a page server is gone, and is there again.
sub part
{
	my ($n) = @_;
	return $nets->part($n) if $nets;
	my $postmaster = $c->postmaster_pid("page_server_$n");
	$frozen{$_} = kill 'STOP', $_ foreach $postmaster, $c->pids_of("page_server_$n", qr/./);
	return;
}
sub heal { my ($n) = @_; return $nets ? $nets->heal($n) : thaw() }

start_page_server($_) foreach 0 .. 2;
$c->start('compute');

sub counting { my ($n) = @_; return $c->wait_for("SELECT count(*) >= $n FROM neon_comm.page_servers WHERE sync_state = 'quorum'") }

ok(members_known($c, 3, 0 .. 2), 'members are known');
my $transfers = NeonComm::Transfers->new($c);

sub thaw { kill 'CONT', keys %frozen; %frozen = (); return }

# A page server that does not start again until its directory is whole.
sub lose
{
	my ($n) = @_;
	$c->kill9('page-server', $n);
	rename "$dir/page_server_$n/global", "$dir/page_server_$n/away" or die $!;
	$nets->close_ports($n) if $nets;
	return;
}

# The old directory, with ports of its own, until it has let nobody in.
my ($port_beside, $feed_beside) = map { free_port() } 0, 1;
sub start_beside
{
	my ($round) = @_;
	my ($port, $feed) = ($port_beside, $feed_beside);
	my $log = "$dir/log/old_$round.out";
	$old = fork // die $!;
	if ($old == 0)
	{
		open STDOUT, '>', $log;
		open STDERR, '>&', \*STDOUT;
		exec "$bindir/postgres", '-D', "$dir/compute_lost", '-p', $port, '-c', "neon_comm.wal_feed_port=$feed", '-c', "unix_socket_directories=$dir/compute_lost"
		  or die;
	}
	my ($out, $error) = ('', '');
	foreach (1 .. 600)
	{
		IPC::Run::run([ 'psql', '-XqAtw', '-d', "host=127.0.0.1 port=$port dbname=postgres user=postgres", '-c', 'SELECT count(*) FROM transfer' ],
			'<', \undef, '>', \$out, '2>', \$error);
		# it may have ended, refused before a port was open
		last unless $error =~ /starting up|not yet accepting|Connection refused/ && waitpid($old, WNOHANG) == 0;
		usleep(100_000);
	}
	is($out, '', "round $round: the old directory, started again beside the new compute, lets nobody in");
	my $said = do { local @ARGV = ($log); join '', <> };
	like($error . $said, qr/this compute was overtaken/, '... and is told why');
	kill 'QUIT', $old if waitpid($old, WNOHANG) == 0;
	waitpid $old, 0;
	$old = undef;
	remove_tree("$dir/compute_lost");
	return;
}

foreach my $round (1 .. $rounds)
{
	ok(counting(3), "round $round: three count");
	my @sessions = map { $c->session } 1 .. 4;
	my $mode = $round % 3;
	my ($away, $down) = ($round % 3, ($round + 1 + int($round / 3) % 2) % 3);
	foreach my $turn (1 .. 30)
	{
		$transfers->send($_) foreach @sessions;
		$transfers->judge($_) foreach @sessions;
		if ($turn == 10)
		{
			if ($mode == 1) { $c->kill9('page-server', $away) }
			elsif ($mode == 2) { part($away) }
			else { $frozen{$_} = kill 'STOP', $_ foreach $c->pids_of("page_server_$away", qr/walreceiver/) }
		}
		if ($turn == 20 && $mode == 1) { start_page_server($away) }
		if ($turn == 20 && $mode == 2) { heal($away) }
		# from now on the one that was away has to confirm
		lose($down) if $turn == 25 && $mode == 1;
		part($down) if $turn == 25 && $mode == 2;
	}
	if ($mode != 0)
	{
		$transfers->send($_) foreach @sessions;
		$c->kill9('compute');
		$transfers->judge($_) foreach @sessions;
	}
	else
	{
		# who has the newest commits is lost, too, but for one; who lacks them is back, without what was on its way
		$c->kill9('compute');
		lose($down);
		$c->kill9('page-server', $away);
		%frozen = ();
		start_page_server($away);
	}
	my $beside = $round % 2 == 0;
	if ($beside) { rename "$dir/compute", "$dir/compute_lost" or die $! }
	else { remove_tree("$dir/compute") }
	my ($ok, $out) = $c->try_dev('create-compute', '-D', $dir);
	ok($ok, "round $round: replaced by two") or diag($out);
	start_beside($round) if $beside;
	if ($mode == 2) { heal($down) }
	else
	{
		rename "$dir/page_server_$down/away", "$dir/page_server_$down/global" or die $!;
		$nets->open_ports($down) if $nets;
		start_page_server($down);
	}
	$transfers->check("round $round");
}
cmp_ok($transfers->acknowledged, '>=', 120 * $rounds - 4 * $rounds, 'transfers were acknowledged');
$c->check_logs;
done_testing();
