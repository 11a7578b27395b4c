# NeonDev::Copy - a copy of a page server's directory, which has all contents of the cluster.
#
# Of one that runs it is pg_basebackup's, which has to log in; page servers let nobody in (hot_standby is off), so
# one that is to be copied is started again for it, with room for what the compute may have. Of a
# stopped one it is a copy of its files.
package NeonDev::Copy;

use strict;
use warnings;

use Exporter 'import';
use Fcntl qw(:flock);
use NeonDev::Base;
use NeonDev::Cluster;
use NeonDev::Make;
use NeonDev::Parts;
use NeonDev::Processes;
use NeonDev::Settings;

our @EXPORT = qw(check_page_server how_far hold_page_server mend_page_servers begin_copy end_copy let_in as_configured copy_running recovered_to compute_position check_room
	size_of free_space check_target);

# ---- room

# Kilobytes: those of a directory, and those that are free where one is, or will be.
sub size_of
{
	my ($dir) = @_;
	my $result = run({}, 'du', '-sk', '--', "$dir/.");
	return $result->{out} =~ /^(\d+)/ ? $1 : fail "cannot tell the size of $dir: $result->{err}";
}

sub free_space
{
	my ($dir) = @_;
	$dir =~ s{/[^/]*$}{} while $dir ne '' && !-e $dir;
	my $result = run({}, 'df', '-Pk', '--', $dir eq '' ? '/' : $dir);
	return $result->{out} =~ /\n\S.*?\s\d+\s+\d+\s+(\d+)\s+\d+%/ ? $1 : fail "cannot tell the free space of $dir: $result->{err}";
}

# Is there room for copies of $from where $to will be, with some WAL?
sub check_room
{
	my ($from, $to, $copies) = @_;
	my $needed = $copies * (size_of($from) + 32 * 1024);
	my $free = free_space($to);
	$free >= $needed or fail sprintf '%d MB are free where %s shall be, and %d MB are needed', $free / 1024, $to, $needed / 1024;
	return;
}

# What is made may not be inside of the cluster, nor around it.
sub check_target
{
	my ($to) = @_;
	"$to/" !~ m{^\Q$opt{dir}\E/} && "$opt{dir}/" !~ m{^\Q$to\E/} or fail "$to may not be inside of $opt{dir}, nor around it";
	$to !~ m{['"\\\n]} or fail 'the path may not contain quotes, backslashes or line ends';
	return;
}

# ---- the page server to be copied

# The one that was asked for must be one of them.
sub check_page_server
{
	my $n = $opt{from_page_server} // return;
	$n < page_servers() or fail "there is no page server $n: the cluster has ", scalar(page_servers()), ' of them';
	return;
}

# How far a page server is: what it says, or what its files do.
sub how_far
{
	my ($n) = @_;
	if (part_pid($n))
	{
		my $result = page_server_query($n);
		my ($lsn) = $result->{out} =~ /^replay_lsn\|(.*)$/m;
		return $lsn if $result->{status} == 0 && defined $lsn;
		fail part_name($n), ' cannot be asked: ', why_not($result, 10);
	}
	return recovered_to($n);
}

# How far its directory goes by itself: what is copied has at least this.
sub recovered_to { my ($n) = @_; return control_value(part_data($n), 'Minimum recovery ending location') || '0/0' }

# One copy at a time is made of a page server, since it is started again before and after.
sub lock_page_server
{
	my ($n) = @_;
	open my $fh, '<', part_data($n) or fail 'cannot open ', part_data($n), ": $!";
	return flock($fh, LOCK_EX | LOCK_NB) ? $fh : undef;
}

sub hold_page_server { my ($n) = @_; return lock_page_server($n) // fail part_name($n), ' is being copied by another neon_dev' }

# While it may not be as it was: a file with its number.
sub marker { my ($n) = @_; return "$opt{dir}/copying_$n" }
sub begin_copy { my ($n) = @_; write_file(marker($n), "Written by neon_dev while page server $n is copied.\n"); return }

# Page servers that a copy left otherwise because it was killed become what they were.
sub mend_page_servers
{
	foreach my $n (grep { -e marker($_) } page_servers())
	{
		my $lock = lock_page_server($n) // next;
		as_configured($n);
		part_pid($n) || !part_pid('compute') || start_part($n) or fail part_name($n), ' did not start';
		end_copy($n);
	}
	return;
}

sub end_copy
{
	my ($n) = @_;
	!-e marker($n) || unlink marker($n) or fail 'cannot remove ', marker($n), ": $!";
	return;
}

sub hba_file { return "$opt{dir}/copy_hba.conf" }

sub conninfo_of
{
	my ($n) = @_;
	return join ' ', map { "$_->[0]=" . conninfo_value($_->[1]) } [ host => $cluster{socket_dir} ], [ port => part_port($n) ],
	  [ user => $cluster{superuser} ], [ dbname => 'postgres' ];
}

sub ask
{
	my ($n, $sql) = @_;
	return run({ seconds => 60, env => { PGCONNECT_TIMEOUT => 10 } }, program_of('psql'), '-XqAtw', '-d', conninfo_of($n), '-c', $sql);
}

# A standby that lets sessions in needs as much room as the compute has, or its replay stands still.
my %room = (max_connections => 'max_connections setting', max_worker_processes => 'max_worker_processes setting',
	max_wal_senders => 'max_wal_senders setting', max_prepared_transactions => 'max_prepared_xacts setting',
	max_locks_per_transaction => 'max_locks_per_xact setting');

sub arguments_to_let_in
{
	my ($n) = @_;
	my @arguments = ('-c', 'hot_standby=on', '-c', 'hba_file=' . hba_file());
	foreach my $name (sort keys %room)
	{
		my @at_least = (configured($n, $name), map { control_value(part_data($_), $room{$name}) || 0 }
			$n, -d part_data('compute') ? 'compute' : ());
		push @at_least, configured('compute', $name) if -d part_data('compute');
		push @at_least, 10 if $name eq 'max_wal_senders';
		push @arguments, '-c', "$name=" . (sort { $b <=> $a } @at_least)[0];
	}
	return @arguments;
}

# Is it one that was started to be copied?
sub is_let_in { my ($n) = @_; return (slurp(part_data($n) . '/postmaster.opts') // '') =~ /hba_file=\S*copy_hba\.conf/ }

# Makes a page server one that a session can log in to. The reads of its shard wait while it starts again.
sub let_in
{
	my ($n) = @_;
	my $until = monotonic() + $opt{timeout};

	return if part_pid($n) && ask($n, 'SELECT 1')->{status} == 0;
	begin_copy($n);
	write_file(hba_file(), "# Written by neon_dev: for a page server while it is copied.\nlocal all all trust\nlocal replication all trust\n");
	local $opt{mode} = 'fast';
	if (part_pid($n))
	{
		progress part_name($n), ' is started again, as one that can be copied';
		local $opt{quiet} = 1;
		stop_part($n) or fail part_name($n), ' did not stop';
	}
	start_part($n, arguments_to_let_in($n)) or fail part_name($n), ' did not start';
	while (1)
	{
		my $result = ask($n, 'SELECT 1');
		return if $result->{status} == 0;
		monotonic() < $until && part_pid($n) or fail part_name($n), ' cannot be copied: ', why_not($result, 60);
		pause(0.1);
	}
}

# After the copy, or after one that was killed.
sub as_configured
{
	my ($n) = @_;
	return unless part_pid($n) && is_let_in($n);
	local $opt{mode} = 'fast';
	local $opt{quiet} = 1;
	stop_part($n) && start_part($n) ? end_copy($n)
	  : warning part_name($n), " did not start again: \"neon_dev start -D $opt{dir}\"";
	return;
}

# ---- what a copy shall have

# Where the compute's WAL ends, with everything that is committed now.
sub compute_position
{
	my $result = compute_query(q{SET synchronous_commit = local; SELECT pg_logical_emit_message(true, 'neon_dev', 'copy')}, $opt{timeout});
	$result = compute_query('SELECT pg_current_wal_flush_lsn()', $opt{timeout}) if $result->{status} == 0;
	$result->{status} == 0 or fail 'the compute cannot be asked for the end of its WAL: ', why_not($result, $opt{timeout});
	return $result->{out} =~ s/\s//gr;
}

# Waits until the page server's directory goes that far: then a copy of it does, too.
sub wait_recovered
{
	my ($n, $lsn) = @_;
	my $until = monotonic() + $opt{timeout};
	while (1)
	{
		my $result = ask($n, 'CHECKPOINT');
		$result->{status} == 0 or fail part_name($n), ' cannot be asked: ', why_not($result, 60);
		my $at = recovered_to($n);
		return if lsn_number($at) >= lsn_number($lsn);
		monotonic() < $until or fail part_name($n), " is at $at after $opt{timeout} s, and the compute at $lsn";
		pause(0.1);
	}
}

# A base backup of a page server that lets us in, with everything up to an LSN if one is given.
sub copy_running
{
	my ($n, $to, $cwd, $lsn) = @_;
	my $program = program_of('pg_basebackup');

	-x $program or fail "there is no $program: install the client programs of the server";
	wait_recovered($n, $lsn) if defined $lsn;
	progress 'copying ', part_name($n), ' ...';
	my $shown = !$opt{quiet} && -t STDERR;
	my $result = run({ cwd => $cwd, shown => $shown }, $program, '-d', conninfo_of($n), '-D', $to, '-X', 'stream', '-c', 'fast', '--no-sync',
		'--manifest-checksums=SHA256', '-l', 'neon_dev', $shown ? '-P' : ());
	return if $result->{status} == 0;
	show_end($result->{err});
	return fail 'pg_basebackup failed';
}

1;
