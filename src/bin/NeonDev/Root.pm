# NeonDev::Root - PostgreSQL refuses to run as root.
#
# Root therefore goes on as the owner of the cluster, or, for a new one, as the user postgres (else
# nobody); only the empty directory is made, and removed, as root.
package NeonDev::Root;

use strict;
use warnings;

use Cwd ();
use Exporter 'import';
use File::Basename qw(dirname basename);
use NeonDev::Base;
use POSIX ();

our @EXPORT = qw(as_right_user);

sub owner_of { my ($path) = @_; my @stat = stat $path or return 0; return $stat[4] }

# The entry of the user to go on as.
sub right_user
{
	my $uid = owner_of($opt{dir}) || (defined $opt{from} ? owner_of($opt{from}) : 0);
	my @user = $uid ? getpwuid $uid : getpwnam 'postgres';
	@user = getpwnam 'nobody' unless @user || $uid;
	@user or fail 'there is no user "', $uid || 'nobody', '" to run PostgreSQL as';
	return @user;
}

sub become
{
	my (@user) = @_;
	my ($name, $uid, $gid, $home) = @user[ 0, 2, 3, 7 ];
	my %groups = ($gid => 1);
	while (my @group = getgrent)
	{
		$groups{ $group[2] } = 1 if grep { $_ eq $name } split ' ', $group[3];
	}
	$) = join ' ', $gid, keys %groups;
	POSIX::setgid($gid) && POSIX::setuid($uid) && $< == $uid && $> == $uid && !POSIX::setuid(0)
	  or fail "cannot drop root's rights for user $name: $!";
	@ENV{qw(HOME USER LOGNAME)} = ($home || '/', $name, $name);
	# by its name: what is above may be root's own, and File::Path goes back by name
	my $here = Cwd::getcwd() // '';
	chdir '/' unless -r $here && -x _;
	return;
}

# ---- init and adopt: the directory

# The topmost directory that was made, or nothing.
sub make_dir
{
	my ($made, $parent);
	if (-e $opt{dir})
	{
		-d _ or fail "$opt{dir} exists and is not a directory";
		opendir my $dh, $opt{dir} or fail "cannot read $opt{dir}: $!";
		fail "$opt{dir} is not empty" if grep { !/^\.\.?$/ } readdir $dh;
		return;
	}
	for ($parent = $opt{dir}; !-e $parent; $parent = dirname($parent)) { $made = $parent }
	my @missing;
	for (my $dir = $opt{dir}; $dir ne $parent; $dir = dirname($dir)) { unshift @missing, $dir }
	foreach (@missing)
	{
		mkdir $_ or fail "cannot make $_: $!";
	}
	return $made;
}

sub unmake_dir
{
	my ($made, $uid, $gid) = @_;
	if (!defined $made)
	{
		chown $uid, $gid, $opt{dir};
		return;
	}
	for (my $dir = $opt{dir}; rmdir $dir; $dir = dirname($dir)) { last if $dir eq $made }
	return;
}

# Runs the command in a child, as the user; its status.
sub run_as
{
	my ($user, $command) = @_;
	my $pid = fork // fail "cannot fork: $!";
	if ($pid == 0)
	{
		become(@$user);
		return (undef, $command->());
	}
	# the child gets a terminal's signals too, and cleans up
	local $SIG{INT} = sub { };
	local @SIG{qw(TERM HUP)} = (sub { kill 'TERM', $pid }) x 2;
	1 while waitpid($pid, 0) < 0 && $!{EINTR};
	return (1, $? & 127 ? 128 + ($? & 127) : $? >> 8);
}

sub check_reach
{
	my ($name) = @_;
	-x dirname($opt{dir})
	  or fail "PostgreSQL cannot run as root, and user $name cannot reach ", dirname($opt{dir}),
	  ": choose a directory outside of root's own, for example /var/tmp/", basename($opt{dir});
	return;
}

sub make_as
{
	my ($user, $command) = @_;
	my ($name, $uid, $gid) = @$user[ 0, 2, 3 ];
	my $made = make_dir();
	my ($old_uid, $old_gid) = (stat $opt{dir})[ 4, 5 ];

	chown($uid, $gid, $opt{dir}) && chmod(0700, $opt{dir}) or fail "cannot hand $opt{dir} over to user $name: $!";
	my ($is_root, $status) = run_as($user, sub {
		check_reach($name);
		progress "running as user $name, since PostgreSQL does not run as root";
		return $command->();
	});
	unmake_dir($made, $old_uid, $old_gid) if $is_root && $status != 0;
	return $status;
}

sub destroy_as
{
	my ($user, $command) = @_;
	my ($is_root, $status) = run_as($user, sub { $opt{for_root} = 1; return $command->() });
	if ($is_root && $status == 0 && -d $opt{dir})
	{
		rmdir $opt{dir} or fail "could not remove $opt{dir}: $!";
	}
	return $status;
}

# Runs a command as the user that PostgreSQL can run as: its status. %$how says "makes" or "removes"
# when DIR itself comes or goes.
sub as_right_user
{
	my ($how, $command) = @_;
	return $command->() if $> != 0;
	my @user = right_user();
	return make_as(\@user, $command) if $how->{makes};
	return destroy_as(\@user, $command) if $how->{removes};
	become(@user);
	return $command->();
}

1;
