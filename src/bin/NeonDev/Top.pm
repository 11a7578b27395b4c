# NeonDev::Top - one screen of a cluster, again and again.
#
# What is shown is asked of exporters; names of relations of the compute, which takes a session, when nothing is wrong
# anywhere. On a terminal the screen is another one than the shell's, which comes back however this ends.
package NeonDev::Top;

use strict;
use warnings;

use Exporter 'import';
use NeonDev::Base;
use NeonDev::Cluster;
use NeonDev::Figures;
use NeonDev::Parts;
use NeonDev::Sample;
use NeonDev::Screen;
use POSIX ();

our @EXPORT = qw(top open_record look_often);

use constant {
	ANSWER_SECONDS => 1,		# for exporters; what has not come then is shown as such
	NAME_SECONDS => 1,			# for names of relations
	FORGET_SECONDS => 30,		# names change, with DROP and TRUNCATE
};

# ---- names of relations

my %names;						# database => relation => [name or undef, when it was asked for]
my $no_names_until = 0;

# Rows of a query without waiting longer than for names; after a failure nobody is asked for a while.
sub name_rows
{
	my ($db, $sql) = @_;
	return if monotonic() < $no_names_until;
	my $result = run({ seconds => NAME_SECONDS, env => { PGCONNECT_TIMEOUT => NAME_SECONDS } }, compute_question($sql, $db));
	return split /\n/, $result->{out} if $result->{status} == 0;
	$no_names_until = monotonic() + FORGET_SECONDS;
	return;
}

sub ask_for_names
{
	my ($db, @slots) = @_;
	my $oid = $db =~ /^\d+$/ ? $db : return;
	my ($name) = $oid ? name_rows('postgres', "SELECT datname FROM pg_database WHERE oid = $oid") : 'postgres';
	return unless defined $name;
	my %wanted = map { ("$_->{spc}/$_->{relfilenode}" => $_) } grep { "$_->{spc}/$_->{relfilenode}" =~ m{^\d+/\d+$} } @slots;
	my @values = map { "('$_', $wanted{$_}{spc}::oid, $wanted{$_}{relfilenode}::oid)" } sort keys %wanted or return;
	my @rows = name_rows($name, 'SELECT k, pg_filenode_relation(s, r)::regclass FROM (VALUES ' . join(', ', @values) . ') v (k, s, r)');
	my %found = map { split /\|/, $_, 2 } @rows;
	$names{$db}{$_} = [ ($found{$_} // '') eq '' ? undef : $oid ? "$name: $found{$_}" : $found{$_}, monotonic() ] foreach keys %wanted;
	return;
}

sub name_slots
{
	my ($figures) = @_;
	my $compute = $figures->{compute};
	return if @{ $figures->{problems} } || !@{ $compute->{longest} // [] };
	my %unknown;
	foreach my $slot (@{ $compute->{longest} })
	{
		next if grep { !defined } @$slot{qw(spc db relfilenode)};
		my $known = $names{ $slot->{db} }{"$slot->{spc}/$slot->{relfilenode}"};
		push @{ $unknown{ $slot->{db} } }, $slot unless $known && $known->[1] > monotonic() - FORGET_SECONDS;
	}
	ask_for_names($_, @{ $unknown{$_} }) foreach sort keys %unknown;
	foreach my $slot (grep { defined $_->{db} && defined $_->{spc} && defined $_->{relfilenode} } @{ $compute->{longest} })
	{
		my $known = $names{ $slot->{db} }{"$slot->{spc}/$slot->{relfilenode}"} or next;
		$slot->{relation} = $known->[0] if defined $known->[0];
	}
	return;
}

# ---- the terminal

my ($termios, $was_echo);		# of standard input, while the other screen is shown
my $resized = 1;
my ($height, $width) = (24, 80);

sub is_screen { return -t STDIN && -t STDOUT && ($ENV{TERM} // 'dumb') ne 'dumb' && $opt{format} eq 'text' && !$opt{once} && !$opt{iterations} }

# What stty says; without it what the shell said.
sub look_at_size
{
	$resized = 0;
	my $result = run({ seconds => 2 }, 'stty', '-F', '/dev/tty', 'size');
	($height, $width) = $result->{out} =~ /^([1-9]\d*) ([1-9]\d*)$/ ? ($1, $2) : ($ENV{LINES} // 24, $ENV{COLUMNS} // 80);
	return;
}

sub enter_screen
{
	$termios = POSIX::Termios->new;
	$termios->getattr(0) or undef $termios;
	if ($termios)
	{
		$was_echo = $termios->getlflag;
		$termios->setlflag($was_echo & ~(POSIX::ECHO() | POSIX::ICANON()));
		$termios->setattr(0, POSIX::TCSANOW());
	}
	# another screen, no cursor, no lines that go on in the next one
	print "\e[?1049h\e[?25l\e[?7l";
	$resized = 1;
	return;
}

sub leave_screen
{
	print "\e[?7h\e[?25h\e[?1049l";
	return unless $termios;
	$termios->setlflag($was_echo);
	$termios->setattr(0, POSIX::TCSANOW());
	return;
}

# As it was for whoever has the terminal meanwhile.
sub be_stopped
{
	leave_screen();
	kill 'STOP', $$;
	enter_screen();
	return;
}

sub draw
{
	my (@lines) = @_;
	my $text = "\e[H";
	foreach my $i (0 .. $#lines)
	{
		my ($line, $on, $off) = ($lines[$i], '', '');
		($on, $off) = $line =~ /^! / ? ("\e[1;31m", "\e[0m") : $i == 0 || $line =~ /^[A-Z]{2}[A-Z]* / ? ("\e[1m", "\e[0m") : ('', '');
		utf8::encode($line);
		$text .= "$on$line$off\e[K" . ($i < $#lines ? "\n" : '');
	}
	print $text, "\e[J";
	return;
}

# Until the next look, or a key: true when it is that for the end.
sub wait_for_key
{
	my ($until) = @_;
	while ((my $left = $until - monotonic()) > 0)
	{
		return if $resized;
		my $bits = '';
		vec($bits, 0, 1) = 1;
		select($bits, undef, undef, $left) > 0 or next;
		my $n = sysread STDIN, my $keys, 64;
		return 1 if defined $n && ($n == 0 || $keys =~ /[qQ\x03\x04]/);
		return if defined $n;
	}
	return;
}

# ---- records

# Before root's rights are gone: the file is the caller's.
sub open_record
{
	return unless defined $opt{record};
	open $opt{record_file}, '>>', $opt{record} or fail "cannot write $opt{record}: $!";
	return;
}

sub record_figures
{
	my ($figures) = @_;
	my $fh = $opt{record_file} // return;
	(print $fh figures_json($figures)) && $fh->flush or fail "cannot write $opt{record}: $!";
	return;
}

# ---- looking

# The next figures. Only the first look of two that make one screen is waited for by who does not answer.
sub look
{
	my ($before, $known) = @_;
	my $sample = take_sample(ANSWER_SECONDS, $known);
	return ($sample, figures_between($before, $sample));
}

sub silent_parts
{
	my ($sample) = @_;
	return { map { defined $sample->{parts}{$_}{error} ? ($_ => $sample->{parts}{$_}) : () } all_parts() };
}

sub print_figures
{
	my ($figures) = @_;
	if ($opt{format} eq 'json') { print figures_json($figures) }
	else
	{
		my $text = join '', map { "$_\n" } screen_of($figures, '');
		utf8::encode($text);
		print $text, $opt{once} ? '' : "\n";
	}
	STDOUT->flush or fail "cannot write: $!";
	return;
}

# Calls a function with the figures of each look: so many times, without a number until somebody ends it.
sub look_often
{
	my ($rounds, $every, $with) = @_;
	my $sample = take_sample(ANSWER_SECONDS);
	my ($next, $known) = ($sample->{at} + $every, silent_parts($sample));
	for (my $round = 1; !defined $rounds || $round <= $rounds; $round++)
	{
		my $left = $next - monotonic();
		pause($left) if $left > 0;
		my $before = $sample;
		($sample, my $figures) = look($before, $known);
		($next, $known) = ($sample->{at} + $every, undef);
		name_slots($figures);
		$with->($figures);
	}
	return 0;
}

sub top_in_lines
{
	my ($rounds) = @_;
	return look_often($rounds, $opt{interval} // 1, sub {
		my ($figures) = @_;
		record_figures($figures);
		print_figures($figures);
	});
}

sub top_on_screen
{
	my $every = $opt{interval} // 1;
	my $before;
	while (1)
	{
		my ($sample, $figures) = look($before);
		name_slots($figures);
		record_figures($figures) if $before;
		$before = $sample;
		my $until = $sample->{at} + $every;
		do
		{
			look_at_size() if $resized;
			draw(screen_of($figures, sprintf('  every %d s, q ends', $every), $height, $width));
			return 0 if wait_for_key($until);
		} while ($resized);
	}
}

my %status_of = (INT => 130, TERM => 143, HUP => 129);

sub ended_by { my ($signal) = @_; NeonDev::Base::end_program(); die { text => "ended by SIG$signal", status => $status_of{$signal}, quiet => $signal eq 'INT' } }

sub top
{
	load_cluster();
	local @SIG{ keys %status_of } = (\&ended_by) x keys %status_of;
	local $SIG{PIPE} = 'DEFAULT';
	return top_in_lines($opt{once} ? 1 : $opt{iterations}) unless is_screen();
	local $| = 1;
	local $SIG{WINCH} = sub { $resized = 1 };
	local $SIG{TSTP} = \&be_stopped;
	enter_screen();
	my $status = eval { top_on_screen() };
	my $failure = $@;
	leave_screen();
	return $status if defined $status;
	return 130 if ref $failure && $failure->{quiet};
	die $failure;
}

1;
