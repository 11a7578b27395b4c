#!/usr/bin/env perl
#
# What can be taken away, and the test that must fail then.  Applies to a copy.
#
#   test/without/catalogue.pl list [WHAT...]     an entry and test a line: name, test, rows, what is missing then,
#                                                the first major version that has it
#   test/without/catalogue.pl apply NAME COPY    takes it away in the copy; what was there stays beside it as
#                                                FILE.whole
#   test/without/catalogue.pl apply NAME NEW FROM    what FROM has to be then, without the rest, in a new directory
#   test/without/catalogue.pl restore COPY       puts back what lies beside
#   test/without/catalogue.pl check              says what is wrong with the catalogue or its table in the docs
#   test/without/catalogue.pl mend               writes that table, and the new path of a function that moved
#
# WHAT is a name, a row of docs/faults.md ("By number"), a word of "test:", or nothing for all.
#
# The catalogue is test/without/*.txt.  An entry is a paragraph:
#
#   name: 27_jitter
#   rows: 27
#   without: ...                  what is missing then
#   since: 17                     with servers before it nothing is missing
#   test: unit test_engine_net    or: tap NAME, rule NAME, simulation, identity; each must fail
#   file: src/net/pool.c
#   function: back_off            without it the lines are looked for in the whole file
#    a line that stays, where one is needed to tell the place
#   -a line that goes
#   +a line that comes instead
#
# Lines that stay and go stand together, as they are, exactly once in the function (with its comment).
# Another "function:" or "file:" begins another replacement.
use strict;
use warnings;

use File::Basename qw(dirname);
use File::Copy qw(move);
use File::Find qw(find);
use File::Path qw(make_path);

my $dir = dirname($0);
my $top = "$dir/../..";
my $table = 'docs/faults.md';
my %kind = (unit => 'test/unit/%s.c', tap => 'test/t/%s.pl', rule => 'test/t/%s.pl', simulation => '', identity => '');

sub read_lines
{
	my ($file) = @_;
	open my $fh, '<', $file or die "catalogue: $file: $!\n";
	return map { chomp; $_ } <$fh>;
}

sub write_lines
{
	my ($file, @lines) = @_;
	open my $fh, '>', $file or die "catalogue: $file: $!\n";
	print $fh map { "$_\n" } @lines;
	close $fh or die "catalogue: $file: $!\n";
	return;
}

# ---- the catalogue

# One word and what it says, or a line of a replacement, into the entry.
sub parse_line
{
	my ($e, $line) = @_;
	my $parts = $e->{parts};

	if (my ($mark, $text) = $line =~ /^([ +-])(.*)/)
	{
		die "a line before any file\n" unless @$parts;
		push @{ $parts->[-1]{lines} }, [ $mark, $text ];
	}
	elsif (my ($word, $value) = $line =~ /^(name|rows|without|since|test|file|function): (.+)/)
	{
		if    ($word eq 'test') { push @{ $e->{test} }, $value }
		elsif ($word eq 'file') { push @$parts, { file => $value, lines => [] } }
		elsif ($word ne 'function') { $e->{$word} = $value }
		else
		{
			die "a function before any file\n" unless @$parts;
			push @$parts, { file => $parts->[-1]{file}, lines => [] } if defined $parts->[-1]{function} || @{ $parts->[-1]{lines} };
			$parts->[-1]{function} = $value;
		}
	}
	else { die "\"$line\" means nothing\n" }
	return;
}

sub parse_file
{
	my ($file) = @_;
	my (@entries, $e);
	my $n = 0;

	foreach my $line (read_lines($file))
	{
		$n++;
		if ($line eq '') { $e = undef }
		elsif ($line !~ /^#/)
		{
			push @entries, $e = { at => "$file:$n", test => [], parts => [] } unless $e;
			eval { parse_line($e, $line); 1 } or die "$file:$n: $@";
		}
	}
	return @entries;
}

sub entries { return map { parse_file($_) } sort glob "$dir/*.txt" }

sub is_wanted
{
	my ($e, $what) = @_;
	return 1 if $what eq $e->{name} || grep { $_ eq $what } split ' ', $e->{rows} // '';
	return grep { /^\Q$what\E( |$)/ } @{ $e->{test} };
}

sub wanted
{
	my @what = @_;
	my @all = entries();

	foreach my $what (@what)
	{
		die "catalogue: there is no entry \"$what\"\n" unless defined $kind{$what} || grep { is_wanted($_, $what) } @all;
	}
	return grep { my $e = $_; !@what || grep { is_wanted($e, $_) } @what } @all;
}

sub entry
{
	my ($name) = @_;
	my ($e) = grep { $_->{name} eq $name } entries();
	return $e // die "catalogue: there is no entry \"$name\"\n";
}

# ---- where lines stand

# First and last line of the function whose name stands in this one, or nothing; with the paragraph above it.
sub function_at
{
	my ($lines, $i) = @_;
	my $begin = $i;
	my $end = $i;

	$begin-- while $begin > 0 && $lines->[ $begin - 1 ] ne '' && $lines->[ $begin - 1 ] !~ /^\}/;
	if ($lines->[$i] !~ /^sub |^[a-z_]+\(\) \{/)
	{
		# a declaration ends before a body begins
		$end++ while $end < $#$lines && $lines->[$end] !~ /^\{|;\s*$/;
		return if $lines->[$end] !~ /^\{/;
	}
	elsif ($lines->[$i] =~ /\}$/) { return ($begin, $i) }
	$end++ while $end < $#$lines && $lines->[$end] !~ /^\}/;
	return ($begin, $end);
}

# Pairs of first and last line: of the functions of that name, or of all.
sub ranges
{
	my ($lines, $function) = @_;
	return [ 0, $#$lines ] unless defined $function;
	return map { my @r = function_at($lines, $_); @r ? [@r] : () }
	  grep { $lines->[$_] =~ /^(?:sub )?\Q$function\E(?:\(| *$| *\{)/ } 0 .. $#$lines;
}

# Where these lines stand, one under the other.
sub places
{
	my ($lines, $function, @old) = @_;
	my @found;

	foreach my $r (ranges($lines, $function))
	{
	  PLACE: foreach my $i ($r->[0] .. $r->[1] - $#old)
		{
			foreach my $k (0 .. $#old) { next PLACE if $lines->[ $i + $k ] ne $old[$k] }
			push @found, $i;
		}
	}
	return @found;
}

# The file that has the function now: the one that is named, or the only other one.
sub file_of
{
	my ($root, $part) = @_;
	my ($file, $function) = @$part{qw(file function)};
	my @found;

	return $file if -f "$root/$file" && (!defined $function || ranges([ read_lines("$root/$file") ], $function));
	die "there is no $file\n" unless defined $function;
	find(
		{
			no_chdir => 1,
			wanted => sub {
				push @found, $_ if /\.(?:c|h|pm)$/ && -f && ranges([ read_lines($_) ], $function);
			}
		},
		map { "$root/$_" } qw(src include));
	die "$file has no function $function, and " . (@found ? 'several others have' : 'no other file has') . " one\n" unless @found == 1;
	return substr $found[0], length("$root/");
}

# ---- replacing

# File => its lines with everything replaced; dies where a place is not there exactly once.
sub replaced
{
	my ($root, $e) = @_;
	my (%lines, %edits);

	foreach my $part (@{ $e->{parts} })
	{
		my $file = file_of($root, $part);
		my @old = map { $_->[0] ne '+' ? $_->[1] : () } @{ $part->{lines} };
		my @new = map { $_->[0] ne '-' ? $_->[1] : () } @{ $part->{lines} };
		my $where = defined $part->{function} ? "$part->{function} in $file" : $file;

		die "nothing to find in $where\n" unless @old;
		die "nothing to change in $where\n" unless grep { $_->[0] ne ' ' } @{ $part->{lines} };
		$lines{$file} //= [ read_lines("$root/$file") ];
		my @at = places($lines{$file}, $part->{function}, @old);
		die "not there in $where: $old[0]\n" unless @at;
		die scalar(@at) . " times in $where: $old[0]\n" if @at > 1;
		push @{ $edits{$file} }, [ $at[0], scalar @old, \@new ];
	}
	foreach my $file (keys %edits)
	{
		my $end = @{ $lines{$file} };
		foreach my $edit (sort { $b->[0] <=> $a->[0] } @{ $edits{$file} })
		{
			die "two replacements in one place of $file\n" if $edit->[0] + $edit->[1] > $end;
			splice @{ $lines{$file} }, $edit->[0], $edit->[1], @{ $edit->[2] };
			$end = $edit->[0];
		}
	}
	return \%lines;
}

sub apply
{
	my ($name, $copy, $from) = @_;
	my $new = eval { replaced($from // $copy, entry($name)) } or die "catalogue: $name: $@";

	foreach my $file (sort keys %$new)
	{
		make_path(dirname("$copy/$file"));
		if (-e "$copy/$file" && !defined $from)
		{
			my $mode = (stat _)[2] & 07777;
			move("$copy/$file", "$copy/$file.whole") or die "catalogue: $file: $!\n";
			write_lines("$copy/$file", @{ $new->{$file} });
			chmod $mode, "$copy/$file";
		}
		else { write_lines("$copy/$file", @{ $new->{$file} }) }
	}
	return;
}

# With the time of now: what was made of the other is older.
sub restore
{
	my ($copy) = @_;
	find(
		sub {
			return unless /^(.+)\.whole$/;
			move($_, $1) or die "catalogue: $_: $!\n";
			utime undef, undef, $1;
		},
		$copy);
	return;
}

# ---- the table of the documentation

# Row => what its last column says.
sub proofs
{
	my %of;
	my %word = (rule => 'rule ', simulation => 'mutant ', identity => 'identity ');

	foreach my $k ([ 'unit', 'tap' ], ['rule'], ['simulation'], ['identity'])
	{
		foreach my $e (sort { $a->{name} cmp $b->{name} } entries())
		{
			my ($is) = map { /^(\w+)/ } @{ $e->{test} };
			next unless grep { $_ eq $is } @$k;
			push @{ $of{$_} }, ($word{$is} // '') . "`$e->{name}`" foreach split ' ', $e->{rows} // '';
		}
	}
	return map { $_ => join ', ', @{ $of{$_} } } keys %of;
}

# The lines of the document as they should be.
sub table
{
	my %proof = proofs();
	my $on = 0;

	return map {
		$on = /^## By number/ if /^## /;
		my $line = $_;
		if ($on && $line =~ /^\| (\d+) \|/ && defined $proof{$1})
		{
			my $n = $1;
			$line =~ s/^(.* \| ).*? \|$/$1$proof{$n} |/;
		}
		$line;
	} read_lines("$top/$table");
}

# ---- what is wrong

sub wrong_with
{
	my ($e) = @_;
	my @wrong;

	foreach my $test (@{ $e->{test} })
	{
		my ($kind, $name) = split ' ', $test, 2;
		push @wrong, "there is no test \"$test\""
		  unless defined $kind{$kind} && ($kind{$kind} eq '' ? !defined $name : -f "$top/" . sprintf $kind{$kind}, $name // '');
	}
	push @wrong, 'names no test' unless @{ $e->{test} };
	push @wrong, 'does not say what is missing then' unless defined $e->{without};
	push @wrong, "\"since: $e->{since}\" is no major version" unless ($e->{since} // 0) =~ /^\d+$/;
	push @wrong, 'replaces nothing' unless @{ $e->{parts} };
	eval { replaced($top, $e); 1 } or push @wrong, $@ =~ s/\n//r;
	foreach my $part (@{ $e->{parts} })
	{
		my $now = eval { file_of($top, $part) } // next;
		push @wrong, "$part->{function} is in $now now (test/without/catalogue.pl mend)" if $now ne $part->{file};
	}
	return @wrong;
}

sub check
{
	my (%seen, @wrong);
	my @now = read_lines("$top/$table");
	my @should = table();
	my %rows = map { /^\| (\d+) \|/ ? ($1 => $_) : () } @now;
	my %proof = proofs();

	foreach my $e (entries())
	{
		$e->{name} //= '';
		push @wrong, "$e->{at}: $_" foreach wrong_with($e);
		push @wrong, "$e->{at}: a second $e->{name}, or none" if $e->{name} !~ /^\w+$/ || $seen{ $e->{name} }++;
		push @wrong, map { "$e->{at}: there is no row $_ in $table" } grep { !$rows{$_} } split ' ', $e->{rows} // '';
	}
	push @wrong, map { "$table: row $_ names a proof that the catalogue does not have" }
	  grep { !$proof{$_} && $rows{$_} !~ /\| (?:—|nothing)[^|]* \|$/ } sort { $a <=> $b } keys %rows;
	push @wrong, map { "$_: nobody reads this" } grep { !/\.txt$/ && $_ ne $0 } glob "$dir/*";
	foreach my $i (0 .. $#now)
	{
		push @wrong, "$table:" . ($i + 1) . ': the last column is not what the catalogue says (test/without/catalogue.pl mend)'
		  if $now[$i] ne $should[$i];
	}
	print map { s/^\Q$top\E\///r . "\n" } @wrong;
	return @wrong == 0;
}

sub mend
{
	foreach my $file (glob "$dir/*.txt")
	{
		my @lines = read_lines($file);
		my %moved;

		foreach my $e (parse_file($file))
		{
			foreach my $part (@{ $e->{parts} })
			{
				my $now = eval { file_of($top, $part) } // next;
				$moved{ $e->{name} }{ $part->{file} } = $now if $now ne $part->{file};
			}
		}
		next unless %moved;
		my $name = '';
		foreach my $line (@lines)
		{
			$name = $1 if $line =~ /^name: (.*)/;
			$line = "file: $moved{$name}{$1}" if $line =~ /^file: (.*)/ && $moved{$name}{$1};
		}
		write_lines($file, @lines);
	}
	write_lines("$top/$table", table());
	return 1;
}

my ($command, @args) = @ARGV;
$command //= '';
if ($command eq 'list')
{
	foreach my $e (wanted(@args))
	{
		print join("\t", $e->{name}, $_, $e->{rows} // '-', $e->{without} // '', $e->{since} // 0), "\n" foreach @{ $e->{test} };
	}
}
elsif ($command eq 'apply' && (@args == 2 || @args == 3)) { apply(@args) }
elsif ($command eq 'restore' && @args == 1) { restore(@args) }
elsif ($command eq 'check' && !@args) { exit(check() ? 0 : 1) }
elsif ($command eq 'mend' && !@args) { mend() }
else
{
	print STDERR map { s/^# ?//r . "\n" } grep { /^#( |$)/ } (read_lines($0))[ 2 .. 37 ];
	exit 2;
}
