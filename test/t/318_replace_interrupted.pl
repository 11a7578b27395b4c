# replace-compute is killed at its steps (docs/takeover.md): the cluster works then, or the same command mends it, and
# what was acknowledged is there.
use strict;
use warnings;

use NeonComm::Cluster;
use NeonComm::Members qw(status_of members_known);
use POSIX ();
use Test::More;
use Time::HiRes qw(usleep);

my $c = NeonComm::Cluster->new(shards => 1, buffers => '64MB',
	init => [ '--durable', '--page-servers', 3, '--write-quorum', 2 ]);
my $dir = $c->{dir};
$c->allow_log(qr/could not read block .* from its page server|overtaken/);
ok(members_known($c, 3, 0 .. 2), 'members are known');
$c->sql('CREATE TABLE t (x int)');

# Starts the command, kills it as soon as the condition holds; true when that was before its end.
sub kill_when
{
	my ($condition) = @_;
	my $pid = fork // die $!;
	if ($pid == 0)
	{
		open STDOUT, '>', '/dev/null';
		open STDERR, '>', "$dir/log/replace.err";
		exec NeonComm::Cluster::neon_dev_path(), 'replace-compute', '-D', $dir or die;
	}
	while (waitpid($pid, POSIX::WNOHANG()) == 0)
	{
		if ($condition->())
		{
			kill 'KILL', $pid;
			waitpid $pid, 0;
			return 1;
		}
		usleep(1000);
	}
	return 0;
}

my $promised;
my $rows = 0;
foreach my $step (
	[ 'when the old one has stopped', sub { !defined $c->postmaster_pid('compute') } ],
	[ 'when promises were given', sub { (status_of($c, 2)->{promised} // '-') ne $promised } ],
	[ 'while the new one is laid', sub { -e "$dir/compute_new.neon_boot" || -e "$dir/compute_new" } ],
	[ 'when the new one is laid', sub { -e "$dir/compute_new/compute_members" } ],
	[ 'when the old one has another name', sub { -e "$dir/compute_replaced" } ])
{
	my ($what, $condition) = @$step;
	$promised = status_of($c, 2)->{promised};
	$c->sql('INSERT INTO t VALUES (' . ++$rows . ')');
	my $was = kill_when($condition) ? 'killed' : 'over before';
	my ($ok, $out) = $c->try_dev('replace-compute', '-D', $dir);
	ok($ok, "$what ($was): the same command goes on") or diag($out);
	is($c->sql('SELECT count(*) FROM t'), $rows, '... and all is there');
	ok(!-e "$dir/compute_new" && !-e "$dir/compute_replaced", '... nothing else is');
}
ok($c->wait_for(q{SELECT count(*) = 3 FROM neon_comm.page_servers WHERE sync_state = 'quorum'}), 'three count');
$c->check_logs;
done_testing();
