# NeonDev::Base - what every part of neon_dev uses: messages, options, running programs.
#
# Everything is loaded before root's rights are given up, as the user who goes on may not be
# able to read this directory: no "require" later. Only what Debian's perl-base has is used.
package NeonDev::Base;

use strict;
use warnings;

use Cwd ();
use Errno ();
use Exporter 'import';
use IO::Handle ();
use POSIX ();

our @EXPORT = qw(%opt fail usage warning progress run run_together json_text end_program absolute slurp write_file user_name
	monotonic pause random_id user_environment clean_environment lsn_number);

our %opt;						# what the command line said, see NeonDev::Options
my %user_environment;
my $program;					# that runs now: a signal ends it first

# A failure: main prints the text and leaves with the status.
sub fail  { die { text => join('', @_), status => 1 } }
sub usage { die { text => join('', @_), status => 2 } }

sub warning  { print STDERR 'neon_dev: ', @_, "\n"; return }
sub progress { return if $opt{quiet}; local $| = 1; print @_, "\n"; return }

# Seconds since some moment, whatever happens to the wall clock.
sub monotonic { return (POSIX::times())[0] / POSIX::sysconf(&POSIX::_SC_CLK_TCK) }
sub pause { my ($seconds) = @_; select(undef, undef, undef, $seconds); return }

sub user_name { return scalar getpwuid($>) // $> }

sub random_id
{
	open my $fh, '<', '/dev/urandom' or fail "cannot open /dev/urandom: $!";
	read $fh, my $bytes, 16;
	return unpack 'H*', $bytes;
}

# ---- environment

# Servers, and programs that make them, get no variable of libpq: their connections mean what
# their strings say. psql gets the caller's again.
sub clean_environment
{
	%user_environment = %ENV;
	delete @ENV{ grep { /^PG[A-Z]/ } keys %ENV };
	$ENV{LC_ALL} = 'C';
	return;
}

sub user_environment { return %user_environment }

# ---- files

sub absolute
{
	my ($path) = @_;
	my ($tail, $known) = ('', $path =~ m{^/} ? $path : Cwd::getcwd() . "/$path");

	# like realpath -m: what is not there yet is taken as it is written
	while (!defined Cwd::realpath($known) || !-e $known)
	{
		last unless $known =~ s{/+([^/]*)$}{};
		my $name = $1;
		if ($name eq '..') { $known =~ s{/+[^/]*$}{} }
		elsif ($name ne '' && $name ne '.') { $tail = "/$name$tail" }
	}
	my $real = $known eq '' ? '' : Cwd::realpath($known);
	$real = '' if $real eq '/';
	return "$real$tail" || '/';
}

sub slurp
{
	my ($path) = @_;
	open my $fh, '<', $path or return;
	local $/;
	return scalar(<$fh>) // '';
}

# A file is whole or not there: written beside its place, on disk, then renamed.
sub write_file
{
	my ($path, $text, $mode) = @_;
	my $new = sprintf '%s.new.%d', $path, $$;

	sysopen(my $fh, $new, POSIX::O_WRONLY() | POSIX::O_CREAT() | POSIX::O_TRUNC(), $mode // 0600)
	  or fail "cannot write $new: $!";
	(print $fh $text) && $fh->flush && $fh->sync && close($fh) && rename($new, $path)
	  or fail "cannot write $path: $!";
	return;
}

# An open file without a name, holding this text, at its start.
sub temporary
{
	my ($text) = @_;
	open my $fh, '+>', undef or fail "cannot make a temporary file: $!";
	print $fh $text;
	seek $fh, 0, 0 or fail "cannot rewind a temporary file: $!";
	return $fh;
}

# ---- programs

sub exec_or_leave
{
	my (@command) = @_;
	no warnings 'exec';
	exec { $command[0] } @command;
	print STDERR "cannot run $command[0]: $!\n";
	POSIX::_exit(127);
}

# The child's side of run().
sub become_program
{
	my ($how, $out, $err, @command) = @_;
	my $in = defined $how->{input} ? temporary($how->{input}) : undef;

	$SIG{$_} = 'DEFAULT' foreach qw(INT TERM HUP PIPE);
	open STDIN, $in ? '<&' : '<', $in // '/dev/null' or POSIX::_exit(126);
	open STDOUT, '>&', $out or POSIX::_exit(126);
	$how->{shown} || open STDERR, '>&', $err or POSIX::_exit(126);
	%ENV = (%ENV, %{ $how->{env} // {} });
	!defined $how->{cwd} || chdir $how->{cwd} or POSIX::_exit(126);
	return exec_or_leave(@command);
}

# Reads both pipes to their ends; false when the time is over.
sub read_both
{
	my ($until, @pipes) = @_;
	my %text = map { fileno($_) => '' } @pipes;
	my %open = map { fileno($_) => $_ } @pipes;

	while (%open)
	{
		my $bits = '';
		vec($bits, $_, 1) = 1 foreach keys %open;
		my $left = defined $until ? $until - monotonic() : undef;
		return if defined $left && $left <= 0;
		my $n = select($bits, undef, undef, $left);
		next if $n <= 0;
		foreach my $fd (grep { vec($bits, $_, 1) } keys %open)
		{
			my $got = sysread $open{$fd}, $text{$fd}, 65536, length $text{$fd};
			delete $open{$fd} unless $got || (!defined $got && $!{EINTR});
		}
	}
	return map { $text{ fileno($_) } } @pipes;
}

# Runs a program to its end, no shell in between: { status, out, err }. Status as a shell would
# have it; 124 when "seconds" were over. %$how: input (text), env (hash), seconds, cwd,
# shown (what it says to stderr goes to ours).
sub run
{
	my ($how, @command) = @_;
	pipe my $out, my $out_w or fail "cannot make a pipe: $!";
	pipe my $err, my $err_w or fail "cannot make a pipe: $!";
	$program = fork // fail "cannot fork: $!";
	become_program($how, $out_w, $err_w, @command) if !$program;
	close $_ foreach $out_w, $err_w;
	my @text = read_both(defined $how->{seconds} ? monotonic() + $how->{seconds} : undef, $out, $err);
	kill 'KILL', $program unless @text;
	waitpid $program, 0;
	my $status = @text ? ($? & 127 ? 128 + ($? & 127) : $? >> 8) : 124;
	undef $program;
	return { status => $status, out => $text[0] // '', err => $text[1] // '' };
}

# Runs programs ([program, arguments] each) beside each other, to their ends or until "seconds" are over: what
# run() returns, for each. What they say goes to files, so that nobody has to read meanwhile.
sub run_together
{
	my ($how, @commands) = @_;
	my $until = monotonic() + $how->{seconds};
	my @all;
	foreach my $command (@commands)
	{
		my %one = (out => temporary(''), err => temporary(''), status => 124);
		$one{pid} = fork // fail "cannot fork: $!";
		become_program($how, $one{out}, $one{err}, @$command) if !$one{pid};
		push @all, \%one;
	}
	while (my @left = grep { $_->{pid} } @all)
	{
		my $over = monotonic() >= $until;
		foreach my $one (@left)
		{
			kill 'KILL', $one->{pid} if $over;
			waitpid($one->{pid}, $over ? 0 : POSIX::WNOHANG()) == $one->{pid} or next;
			$one->{status} = $? & 127 ? 128 + ($? & 127) : $? >> 8 unless $over;
			$one->{pid} = 0;
		}
		pause(0.01);
	}
	return map { { status => $_->{status}, out => content_of($_->{out}), err => content_of($_->{err}) } } @all;
}

sub content_of
{
	my ($fh) = @_;
	seek $fh, 0, 0;
	local $/;
	return scalar(<$fh>) // '';
}

sub json_text
{
	my ($text) = @_;
	$text =~ s/([\\"])/\\$1/g;
	$text =~ s/([\x00-\x1f])/sprintf '\\u%04x', ord $1/ge;
	return qq{"$text"};
}

sub lsn_number
{
	my ($high, $low) = $_[0] =~ m{^([0-9A-F]+)/([0-9A-F]+)$} or fail "\"$_[0]\" is no LSN";
	return (hex($high) << 32) + hex $low;
}

# Called by the signal handlers of those who clean up.
sub end_program
{
	return unless $program;
	kill 'TERM', $program;
	waitpid $program, 0;
	undef $program;
	return;
}

1;
