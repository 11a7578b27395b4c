# Rounds of takeovers under load (docs/takeover.md): three page servers of which two confirm. In each round the compute
# is killed while clients transfer money, its directory is removed and it is replaced; in a third of the rounds one page
# server is down meanwhile, in a third one does not hear of anything for a while. Every transfer that was acknowledged
# is there, sums are exact, indexes are sound.
#
# NEON_TAKEOVER_ROUNDS: how many, default 3.
use strict;
use warnings;

use File::Path qw(remove_tree);
use NeonComm::Cluster;
use NeonComm::Members qw(members_known);
use Test::More;

my $rounds = $ENV{NEON_TAKEOVER_ROUNDS} // 3;
my $accounts = 50;
my $c = NeonComm::Cluster->new(shards => 1, buffers => '16MB',
	init => [ '--durable', '--page-servers', 3, '--write-quorum', 2 ]);
my $dir = $c->{dir};
my %frozen;
END { local $?; kill 'CONT', keys %frozen if $c && -d $c->{dir} }
$c->allow_log(qr/could not read block .* from its page server|overtaken/);

sub counting { my ($n) = @_; return $c->wait_for("SELECT count(*) >= $n FROM neon_comm.page_servers WHERE sync_state = 'quorum'") }

ok(members_known($c, 3, 0 .. 2), 'members are known');
$c->sql(qq{CREATE EXTENSION amcheck;
	CREATE TABLE account (id int PRIMARY KEY, amount int);
	INSERT INTO account SELECT g, 1000 FROM generate_series(1, $accounts) g;
	CREATE TABLE transfer (id int PRIMARY KEY, a int, b int, n int)});

my $sent = 0;
my %acknowledged;

# A transfer has a number; what comes back without a warning is acknowledged.
sub transfer
{
	my ($s) = @_;
	my ($a, $b, $n) = (1 + $sent * 7 % $accounts, 1 + $sent * 13 % $accounts, $sent % 10);
	$s->{transfer} = ++$sent;
	($a, $b) = ($b, $a) if $a > $b;
	$s->send("BEGIN; UPDATE account SET amount = amount - $n WHERE id = $a; UPDATE account SET amount = amount + $n WHERE id = $b;
		INSERT INTO transfer VALUES ($sent, $a, $b, $n); COMMIT; SELECT 'done $sent'");
	return;
}

sub judge { my ($s) = @_; $acknowledged{ $s->{transfer} } = 1 if $s->wait =~ /^done $s->{transfer}$/m && $s->{last_error} eq ''; return }

sub thaw { kill 'CONT', keys %frozen; %frozen = (); return }

# A page server that does not start again until its directory is whole.
sub lose
{
	my ($n) = @_;
	$c->kill9('page-server', $n);
	rename "$dir/page_server_$n/global", "$dir/page_server_$n/away" or die $!;
	return;
}

foreach my $round (1 .. $rounds)
{
	ok(counting(3), "round $round: three count");
	my @sessions = map { $c->session } 1 .. 4;
	my $mode = $round % 3;
	# page server 0 is the one that is read from
	my ($away, $down) = $round % 2 ? (1, 2) : (2, 1);
	foreach my $turn (1 .. 30)
	{
		transfer($_) foreach @sessions;
		judge($_) foreach @sessions;
		if ($turn == 10)
		{
			if ($mode == 1) { $c->kill9('page-server', $away) }
			else { $frozen{$_} = kill 'STOP', $_ foreach $c->pids_of("page_server_$away", qr/walreceiver/) }
		}
		if ($turn == 20 && $mode == 1) { $c->start('page-server', $away) }
		if ($turn == 20 && $mode == 2) { thaw() }
		# from now on the one that was away has to confirm
		lose($down) if $turn == 25 && $mode != 0;
	}
	if ($mode != 0)
	{
		transfer($_) foreach @sessions;
		$c->kill9('compute');
		judge($_) foreach @sessions;
	}
	else
	{
		# who has the newest commits is lost, too, but for one; who lacks them is back
		$c->kill9('compute');
		lose($down);
		thaw();
	}
	remove_tree("$dir/compute");
	my ($ok, $out) = $c->try_dev('create-compute', '-D', $dir);
	ok($ok, "round $round: replaced by two") or diag($out);
	rename "$dir/page_server_$down/away", "$dir/page_server_$down/global" or die $!;
	$c->start;
	my %there = map { ($_ => 1) } split /\n/, $c->sql('SELECT id FROM transfer');
	my @lost = grep { !$there{$_} } sort { $a <=> $b } keys %acknowledged;
	is("@lost", '', "round $round: every acknowledged transfer is there (" . keys(%acknowledged) . ')');
	is($c->sql('SELECT sum(amount) FROM account'), 1000 * $accounts, '... no money is lost or made');
	is($c->sql(q{SELECT count(*) FROM account x WHERE amount <> 1000 - (SELECT coalesce(sum(n), 0) FROM transfer WHERE a = x.id)
		+ (SELECT coalesce(sum(n), 0) FROM transfer WHERE b = x.id)}), 0, '... and each account is what its transfers say');
	is($c->sql(q{SELECT count(*) FROM (SELECT bt_index_check(i::regclass, true) FROM unnest(ARRAY['account_pkey', 'transfer_pkey']) i OFFSET 0) x}),
		2, '... indexes are sound');
}
cmp_ok(scalar(keys %acknowledged), '>=', 120 * $rounds - 4 * $rounds, 'transfers were acknowledged');
$c->check_logs;
done_testing();
