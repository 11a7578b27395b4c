# neon_dev export, backup and restore are killed with SIGKILL, they and the programs that they run, in each step that they
# tell of, at once and a while later, until they come to the end. Each time the cluster answers, or does after the same command was called again; nothing
# that is not whole looks as if it were.
use strict;
use warnings;

use POSIX ();
use Test::More;
use Time::HiRes qw(sleep time);
use NeonComm::Cluster;
use NeonComm::Ordinary;

my $dev = NeonComm::Cluster::neon_dev_path();
my $c = NeonComm::Cluster->new(shards => 2, conf => [ 'max_prepared_transactions=5', 'neon_comm.request_timeout=600s' ]);
my $top = $c->{dir} =~ s{/[^/]*$}{}r;
fill_cluster($c);
my %contents = contents_of($c->conninfo);

# Runs neon_dev as a group of processes of its own, which is killed so many seconds after it has said so many lines: its
# status, or -1 when it was killed.
sub run_until
{
	my ($lines, $seconds, @args) = @_;
	my $pid = fork // die $!;
	if ($pid == 0)
	{
		POSIX::setpgid(0, 0);
		open STDOUT, '>', "$top/said" or die $!;
		open STDERR, '>&', \*STDOUT or die $!;
		exec { $dev } $dev, @args or POSIX::_exit(127);
	}
	my $until;
	while (waitpid($pid, POSIX::WNOHANG()) == 0)
	{
		$until //= time + $seconds if (said() =~ tr/\n//) >= $lines;
		if (defined $until && time >= $until)
		{
			kill 'KILL', -$pid;
			waitpid $pid, 0;
			return -1;
		}
		sleep 0.01;
	}
	return $? >> 8;
}

sub text_of { my ($path) = @_; open my $fh, '<', $path or return ''; local $/; return scalar(<$fh>) // '' }
sub said { return text_of("$top/said") }

# Kills it later and later until it comes to the end; what must hold is asked after each. It may be killed when it has made
# everything and was about to say so.
sub killed_all_over
{
	my ($name, $whole, $holds, @args) = @_;
	my ($kills, $status, %at) = (0, -1);
	for (my $turn = 2; $status == -1; $turn++)
	{
		unlink "$top/said";
		$status = run_until(int($turn / 2), $turn % 2 * 0.3, @args);
		my ($last) = reverse split /\n/, said();
		$at{$last // 'nothing'}++ if $status == -1;
		$kills++ if $status == -1;
		if ($status == -1 && $whole->()) { $status = 0 }
		elsif ($status == -1) { $holds->() }
	}
	is($status, 0, "$name comes to its end after it was killed $kills times") or diag(said());
	cmp_ok($kills, '>', 3, 'more than a few times');
	return note("$name was killed at:\n", map { "  $at{$_}  $_\n" } sort keys %at);
}

# ---- export

my $to = "$top/ordinary";
killed_all_over('export', sub { -e "$to/PG_VERSION" && !-e "$to.neon_export" }, sub { ok(!-e "$to/PG_VERSION" || !-e "$to.neon_export/compute", 'nothing half made has the name') },
	'export', '-D', $c->{dir}, '--to', $to);
ok(!-e "$to.neon_export", 'nothing is left beside it');
is(join(' ', glob "$c->{dir}/copying_*"), '', 'nor in the cluster');
my $server = NeonComm::Ordinary->start($to);
is_deeply({ contents_of($server->conninfo) }, \%contents, 'what it has made is whole');
$server->stop;
is_deeply({ contents_of($c->conninfo) }, \%contents, 'the cluster is as it was');
like($c->dev('status', '-D', $c->{dir}, '--values', '--no-measure'), qr/^page_server_$_\.state=running$/m, "page server $_ runs") foreach 0, 1;

# ---- backup

my $backup = "$top/backup";
killed_all_over('backup', sub { -e "$backup/neon_backup.conf" && !-e "$backup/neon_backup.making" }, sub {
	return if -e "$backup/neon_backup.conf" || !-e "$backup/neon_backup.making";
	my ($ok, $out) = $c->try_dev('restore', '--from', $backup, '--to', "$top/none");
	ok(!$ok && $out =~ /is being made, or that was interrupted/, 'what is not whole is not restored');
}, 'backup', '-D', $c->{dir}, '--to', $backup);
my $about = text_of("$backup/neon_backup.conf");
my ($ok, $out) = $c->try_dev('backup', '-D', $c->{dir}, '--to', $backup);
ok(!$ok && $out =~ /is a backup already/, 'what is whole, and was told, is not made again');
# killed when it was whole and before that was told
open my $making, '>', "$backup/neon_backup.making" or die $!;
close $making;
($ok, $out) = $c->try_dev('backup', '-D', $c->{dir}, '--to', $backup);
ok($ok && $out =~ /^done: \Q$backup\E has everything up to/m, 'what is whole, and was not told, is told by the same command') or diag($out);
is(text_of("$backup/neon_backup.conf"), $about, '... as it was made');
ok(!-e "$backup/neon_backup.making", '... once');
is(join(' ', glob "$c->{dir}/copying_*"), '', 'nothing is left in the cluster');
is_deeply({ contents_of($c->conninfo) }, \%contents, 'which is as it was');

# ---- restore

my $new = bless { dir => "$top/new", allowed => [] }, 'NeonComm::Cluster';
killed_all_over('restore', sub { text_of("$new->{dir}/neon_dev.conf") =~ /^state=made$/m }, sub {
	my ($ok) = $new->try_dev('start', '-D', $new->{dir});
	ok(!$ok, 'what is not whole does not start');
}, 'restore', '--from', $backup, '--to', $new->{dir});
$new->start;
is_deeply({ contents_of($new->conninfo) }, \%contents, 'what it has made is whole');
is_deeply({ contents_of($c->conninfo) }, \%contents, 'beside the original');

$_->check_logs foreach $new, $c;
undef $new;
undef $c;
done_testing();
