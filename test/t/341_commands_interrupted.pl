# neon_dev create-compute, takeover, archive, destroy and init --durable are killed in each step that they tell, alone or
# with the programs that they run: the cluster works then, or the same command mends it, and what was acknowledged is
# there. (Others: 318, 322, 327.)
use strict;
use warnings;

use File::Path qw(remove_tree);
use NeonComm::Cluster;
use NeonComm::Members qw(members_known);
use POSIX ();
use Test::More;
use Time::HiRes qw(usleep);

my $dev = NeonComm::Cluster::neon_dev_path();
my $c = NeonComm::Cluster->new(shards => 1, buffers => '64MB',
	init => [ '--durable', '--page-servers', 2, '--write-quorum', 1, '--hosts', 2 ]);
my $dir = $c->{dir};
my $top = $dir =~ s{/[^/]*$}{}r;
$c->allow_log(qr/could not read block .* from its page server|overtaken/);
my %group = (alone => 0, 'with its programs' => 1);

sub text_of { my ($path) = @_; open my $fh, '<', $path or return ''; local $/; return scalar(<$fh>) // '' }

# Kills it when it has said so many lines: what it said last. Undefined: it came to its end.
sub killed_at
{
	my ($lines, $how, @command) = @_;
	unlink "$top/said";
	my $pid = fork // die $!;
	if ($pid == 0)
	{
		POSIX::setpgid(0, 0);
		# a file, not a pipe: servers that it starts would keep a pipe open
		open STDOUT, '>', "$top/said" or POSIX::_exit(126);
		open STDERR, '>&', \*STDOUT or POSIX::_exit(126);
		exec($dev, @command) or POSIX::_exit(127);
	}
	while (waitpid($pid, POSIX::WNOHANG()) == 0)
	{
		my @said = split /\n/, text_of("$top/said"), -1;
		if (@said > $lines)
		{
			kill 'KILL', $group{$how} ? -$pid : $pid;
			waitpid $pid, 0;
			return $said[ $lines - 1 ];
		}
		usleep(1000);
	}
	return;
}

# Kills it in each of its steps; $mend gets the name of each.
sub survives
{
	my ($command, $before, $mend) = @_;
	my $steps = 0;
	foreach my $lines (1 .. 40)
	{
		my $how = $lines % 2 ? 'alone' : 'with its programs';
		$before->();
		my $said = killed_at($lines, $how, @$command) // last;
		$steps++;
		$mend->("$command->[0], killed $how at \"$said\"");
	}
	return cmp_ok($steps, '>', 0, "$command->[0] was killed $steps times");
}

# ---- a lost compute

ok(members_known($c, 2, 0, 1), 'members are known');
my $rows = 0;
$c->sql('CREATE TABLE t (x int)');
sub all_is_there { my ($what) = @_; return is($c->sql('SELECT count(*) FROM t'), $rows, "$what: all is there") }

survives([ 'create-compute', '-D', $dir ],
	sub {
		$c->sql('INSERT INTO t VALUES (' . ++$rows . ')');
		$c->kill9('compute');
		remove_tree("$dir/compute");
	},
	sub {
		my ($what) = @_;
		my ($ok, $out) = $c->try_dev('create-compute', '-D', $dir);
		# made, and killed while it was started, or when it had been
		if (!$ok)
		{
			like($out, qr/the compute runs|\/compute is there: .*Start it/, "$what: it says that the compute is there");
			$c->start('compute');
		}
		all_is_there($what);
		ok(!-e "$dir/compute_new", '... nothing else is');
	});
$c->dev('create-compute', '-D', $dir) unless -e "$dir/compute";
all_is_there('the last one');

# ---- a directory that was moved

survives([ 'takeover', '-D', $dir ],
	sub {
		$c->sql('INSERT INTO t VALUES (' . ++$rows . ')');
		$c->stop('compute');
		system('cp', '-a', '--sparse=always', "$dir/compute", "$dir/copy") == 0 or die 'cp';
		remove_tree("$dir/compute");
		rename "$dir/copy", "$dir/compute" or die $!;
		my ($ok) = $c->try_dev('start', '-D', $dir, '--quiet', '-t', 60, 'compute');
		ok(!$ok, 'a copy does not start');
	},
	sub {
		my ($what) = @_;
		$c->dev('takeover', '-D', $dir);
		$c->start('compute');
		all_is_there($what);
	});
$c->start('compute');
all_is_there('the last one');

# ---- the archive

my @archive = ('archive', '-D', $dir, '--to', "$top/archive");
survives(\@archive,
	sub { $c->dev('archive', '-D', $dir, '--off') if -e "$top/archive" },
	sub {
		my ($what) = @_;
		$c->dev(@archive);
		is(`postgres -C archive_mode -D '$dir/page_server_$_'`, "always\n", "$what: page server $_ archives") foreach 0, 1;
		all_is_there($what);
		ok($c->wait_for("SELECT count(*) = 2 FROM neon_comm.page_servers WHERE state = 'streaming'"), '... both follow');
	});
$c->check_logs;
$c->dev('destroy', '-D', $dir, '--quiet');

# ---- the beginning of a cluster, and its end

# Each call begins with what the one before has left, which it says in its first line.
my $new = bless { dir => "$top/new", allowed => [], started => 0 }, 'NeonComm::Cluster';
my @init = ('init', '-D', $new->{dir}, '--shards', 1, '--page-servers', 2, '--durable', '--write-quorum', 1, '--conf', 'shared_buffers=16MB');
survives(\@init, sub { }, sub { my ($what) = @_; ok(!-e "$new->{dir}/compute/neon_comm.skeleton" || -e "$new->{dir}/neon_dev.conf", $what) });
$new->start;
like($new->sql('SHOW synchronous_standby_names'), qr/^ANY 1 /, 'what init has made in the end works');

foreach my $how ('alone', 'with its programs', 'alone', 'with its programs')
{
	my $said = killed_at(1, $how, 'destroy', '-D', $new->{dir}) // last;
	pass("destroy, killed $how at \"$said\"");
}
$new->dev('destroy', '-D', $new->{dir}, '--quiet') if -e $new->{dir};
ok(!-e $new->{dir}, 'destroy leaves nothing in the end');
done_testing();
