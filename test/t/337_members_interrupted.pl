# neon_dev's commands that change members are killed at their steps (docs/takeover.md): commits go on, and the same
# command ends what was begun.
use strict;
use warnings;

use File::Temp qw(tempdir);
use NeonComm::Cluster;
use NeonComm::Members qw(status_of members_known);
use POSIX ();
use Test::More;
use Time::HiRes qw(usleep);

my $c = NeonComm::Cluster->new(shards => 1, buffers => '64MB',
	init => [ '--durable', '--page-servers', 3, '--write-quorum', 2, '--hosts', 2 ]);
my $elsewhere = tempdir(CLEANUP => 1);
chmod 0777, $elsewhere;
ok(members_known($c, 3, 0 .. 2), 'members are known');
$c->sql('CREATE TABLE t (x int)');
my $rows = 0;

# Killed when it says that; false: it was over before.
sub killed_at
{
	my ($step, @command) = @_;
	my $file = "$elsewhere/said";
	my $pid = $c->dev_alone($file, @command, '-D', $c->{dir});
	my $killed = 0;
	while (waitpid($pid, POSIX::WNOHANG()) == 0)
	{
		my $said = do { local @ARGV = $file; local $/; -f $file ? <> : '' } // '';
		if (!$killed && $said =~ $step) { $killed = kill 'KILL', $pid }
		usleep(1000);
	}
	unlink $file;
	return $killed;
}

# Members are those page servers, as they are now, and so many confirm; settings say so, too.
sub check
{
	my ($what, $quorum, $count) = @_;
	my @all = 0 .. $count - 1;
	is($c->sql(q{SELECT string_agg(DISTINCT list || ' ' || write_quorum, ', '), string_agg(member, ' ' ORDER BY name) FROM neon_comm.members}),
		"all $quorum|" . join(' ', map { status_of($c, $_)->{member} } @all), "$what: members");
	my $names = join ', ', map { "page_server_$_" } @all;
	ok($c->wait_for("SELECT current_setting('synchronous_standby_names') = 'ANY $quorum ($names)' AND current_setting('neon_comm.write_quorum') = '$quorum'"),
		"$what: settings");
	ok($c->wait_for("SELECT count(*) = $count FROM neon_comm.page_servers WHERE sync_state = 'quorum'"), "$what: all count");
	return;
}

my $changing = qr/^changing the members/m;
my $telling = qr/^telling the compute which page servers commits/m;
foreach my $step (
	[ $changing, [ 'add-page-server' ], 2, 4 ],
	[ $telling, [ 'write-quorum', 3 ], 3, 4 ],
	[ $changing, [ 'write-quorum', 2 ], 2, 4 ],
	[ $changing, [ 'remove-page-server', 3 ], 2, 3 ],
	[ qr/^waiting until page server \d+ follows/m, [ 'add-page-server' ], 2, 4 ],
	[ $telling, [ 'remove-page-server', 3 ], 2, 3 ],
	[ qr/^copying page server/m, [ 'replace-page-server', 2 ], 2, 3 ],
	[ $changing, [ 'replace-page-server', 2 ], 2, 3 ],
	[ qr/^copying page server/m, [ 'move-page-server', 2, '--to', "$elsewhere/there" ], 2, 3 ])
{
	my ($at, $command, $quorum, $count) = @$step;
	my $was = status_of($c, 2)->{member};
	my $killed = killed_at($at, @$command) ? 'killed' : 'over before';
	my ($ok, $out) = $c->try_dev(@$command, '-D', $c->{dir}, '--quiet');
	ok($ok || $out =~ /there is no page server|only the last page server/, "@$command ($killed at $at): the same command goes on") or diag($out);
	$c->sql('INSERT INTO t VALUES (' . ++$rows . ')');
	is($c->sql('SELECT count(*) FROM t'), $rows, '... and commits are acknowledged');
	check('... and then', $quorum, $count);
	is(status_of($c, 2)->{member}, $was, '... it is the same member') if $command->[0] eq 'move-page-server';
}
my ($ok, $out) = $c->try_dev('remove-page-server', 2, '-D', $c->{dir});
ok($ok, 'two of three are left, and both have to confirm') or diag($out);
($ok, $out) = $c->try_dev('remove-page-server', 1, '-D', $c->{dir});
like($out, qr/each shard has 2 page servers|commits wait for 2 page servers/, 'fewer than confirm: refused');
$c->restart;
check('after a restart', 2, 2);
is($c->sql('SELECT count(*) FROM t'), $rows, 'and all rows are there');
$c->check_logs;
done_testing();
