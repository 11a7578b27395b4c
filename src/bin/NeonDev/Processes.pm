# NeonDev::Processes - processes, shared memory and ports of the parts of a cluster.
package NeonDev::Processes;

use strict;
use warnings;

use Exporter 'import';
use NeonDev::Base;
use NeonDev::Cluster;

our @EXPORT = qw(part_processes standing_still end_processes_below end_upgrade_processes part_pid part_state pidfile_line remove_shared_memory clear_zombie_locks
	check_port_free choose_ports listening_ports);

# Where a data directory is: the part may have been moved, with a link in its place.
sub working_directory { return absolute(part_data($_[0])) }

# All processes of a data directory: every one of them has it as its working directory. This
# finds orphans of a killed postmaster too.
sub part_processes
{
	my ($part) = @_;
	my $data = working_directory($part);
	my @found;

	opendir my $dir, '/proc' or fail "cannot read /proc: $!";
	foreach my $pid (grep { /^\d+$/ } readdir $dir)
	{
		next unless (readlink("/proc/$pid/cwd") // '') eq $data;
		push @found, $pid if (slurp("/proc/$pid/comm") // '') =~ /^postgres/;
	}
	return @found;
}

# Processes of a part that a signal has stopped, or a debugger.
sub standing_still
{
	my ($part) = @_;
	return grep { (slurp("/proc/$_/stat") // '') =~ /\) [Tt] [^)]*$/ } part_processes($part);
}

# PostgreSQL's programs, and copying ones, that work in a directory or below it.
sub processes_below
{
	my ($dir) = @_;
	my @found;

	opendir my $proc, '/proc' or fail "cannot read /proc: $!";
	foreach my $pid (grep { /^\d+$/ } readdir $proc)
	{
		next unless (readlink("/proc/$pid/cwd") // '') =~ m{^\Q$dir\E(?:/|$)} && !is_zombie($pid);
		push @found, $pid if (slurp("/proc/$pid/comm") // '') =~ /^(?:postgres|initdb|psql|pg_\w+|cp)\b/;
	}
	return @found;
}

# A server that is about to start another one may do so between the look and the kill.
sub end_processes_below
{
	my $dir = absolute($_[0]);
	foreach my $round (0 .. 999)
	{
		my @pids = processes_below($dir) or return;
		kill 'KILL', @pids;
		pause(0.02);
	}
	return fail "processes that work below $dir do not end";
}

# Whatever is at work for an upgrade, with the shared memory that its servers leave when they are killed.
sub end_upgrade_processes
{
	my ($dir) = @_;
	return unless -d $dir;
	end_processes_below($dir);
	foreach my $parts ("$dir/ordinary", "$dir/new")
	{
		local $opt{parts} = $parts;
		remove_shared_memory($_) foreach 'compute', page_servers();
	}
	return;
}

sub pidfile_line
{
	my ($part, $number) = @_;
	my @lines = split /\n/, slurp(part_data($part) . '/postmaster.pid') // '';
	return $lines[ $number - 1 ] // '';
}

sub is_zombie
{
	my ($pid) = @_;
	return (slurp("/proc/$pid/stat") // '') =~ /\) Z [^)]*$/;
}

# The postmaster's process id, or nothing.
sub part_pid
{
	my ($part) = @_;
	my ($pid) = pidfile_line($part, 1) =~ /^(\d+)$/ or return;
	return unless (readlink("/proc/$pid/cwd") // '') eq working_directory($part);
	return if is_zombie($pid);
	return $pid;
}

# What its files say: running, starting, stopping, crashed, stopped.
sub part_state
{
	my ($part) = @_;
	if (!part_pid($part))
	{
		return -e part_data($part) . '/postmaster.pid' ? 'crashed' : 'stopped';
	}
	my ($word) = pidfile_line($part, 8) =~ /^(\w+)/;
	return !defined $word ? 'starting' : $word =~ /^(?:ready|standby)$/ ? 'running' : $word;
}

# ---- what killed servers leave

# The segment that a killed server left, if it is still that one and nobody has it.
sub remove_shared_memory
{
	my ($part) = @_;
	my ($key, $id) = pidfile_line($part, 7) =~ /^\s*(\d+)\s+(\d+)\s*$/ or return;
	my $about = '';

	# struct shmid64_ds of 64-bit Linux: the key comes first, shm_nattch at byte 88
	shmctl($id, 2, $about) or return;
	return unless length $about >= 96 && unpack('L', $about) == $key && unpack('x88 Q', $about) == 0;
	shmctl($id, 0, 0);
	return;
}

# A killed postmaster stays a zombie until its parent collects it, for ever in a container whose
# first process does not; the server would take the zombie for an owner of its lock files.
sub clear_zombie_locks
{
	my ($part) = @_;
	return if part_processes($part);
	# the socket's lock outlives a data directory that is made anew
	my $socket = "$cluster{socket_dir}/.s.PGSQL." . part_port($part);
	my ($owner) = (slurp("$socket.lock") // '') =~ /^(\d+)\n/;
	unlink "$socket.lock", $socket if defined $owner && is_zombie($owner);
	my ($pid) = pidfile_line($part, 1) =~ /^(\d+)$/ or return;
	return if !is_zombie($pid);
	remove_shared_memory($part);
	unlink part_data($part) . '/postmaster.pid';
	return;
}

# ---- ports

# Ports that some process of this machine listens on.
sub listening_ports
{
	my %ports;
	foreach my $file ('/proc/net/tcp', '/proc/net/tcp6')
	{
		foreach (split /\n/, slurp($file) // '')
		{
			$ports{ hex $1 } = 1 if /^\s*\d+: [0-9A-F]+:([0-9A-F]{4}) \S+ 0A /;
		}
	}
	return \%ports;
}

sub check_port_free
{
	my ($port, $what) = @_;
	fail "port $port ($what) is taken by another process" if listening_ports()->{$port};
	return;
}

# Ports below the range that the kernel gives to outgoing connections, so that none is taken by
# one meanwhile.
sub choose_ports
{
	my ($count) = @_;
	my ($low, $high) = ($ENV{NEON_DEV_PORTS} || '20000-31999') =~ /^(\d{4,5})-(\d{4,5})$/;
	defined $low && $low < $high && $high <= 65535
	  or fail "NEON_DEV_PORTS=\"$ENV{NEON_DEV_PORTS}\" is not LOW-HIGH, two ports";
	my $taken = listening_ports();
	my $port = $opt{port} // $low + int rand($high - $low + 1);
	my @ports;

	fail "port $opt{port} is taken by another process" if $opt{port} && $taken->{ $opt{port} };
	$high = 65535 if $opt{port};
	foreach (0 .. $high - $low + 1)
	{
		last if @ports == $count;
		$port = $low if $port > $high;
		push @ports, $port unless $taken->{$port};
		$port++;
	}
	@ports == $count or fail "there are no $count free ports between $low and $high";
	return @ports;
}

1;
