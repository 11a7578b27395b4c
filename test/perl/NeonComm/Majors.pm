# NeonComm::Majors - servers of other major versions, for tests of upgrades.
package NeonComm::Majors;

use strict;
use warnings;

use Exporter 'import';

our @EXPORT_OK = qw(said_by major_of stand_in pair_of_majors);

sub said_by { my (@command) = @_; open my $fh, '-|', @command or return ''; local $/; my $out = <$fh> // q(); close $fh; return $out =~ s{\n\z}{}r }
sub major_of { my ($pg_config) = @_; return said_by($pg_config, '--version') =~ /PostgreSQL (\d+)/ ? $1 : 0 }

sub write_script
{
	my ($path, @lines) = @_;
	open my $fh, '>', $path or die "$path: $!";
	print $fh map { "$_\n" } '#!/bin/sh', @lines;
	close $fh or die $!;
	chmod 0755, $path or die $!;
	return;
}

# This server again, in a new directory, as one that says it is of another version: the path of its pg_config. A
# program can be given other lines to run; "$real" is what it stands for.
sub stand_in
{
	my ($dir, $version, %lines) = @_;
	my $pg_config = $ENV{PG_CONFIG} // 'pg_config';
	my $bindir = said_by($pg_config, '--bindir');

	mkdir $dir or die "$dir: $!";
	%lines = (postgres => qq([ "\$1" != --version ] || { echo "postgres (PostgreSQL) $version"; exit; }),
		pg_config => qq([ "\$1" != --bindir ] || { echo '$dir'; exit; }), %lines);
	foreach my $path (glob "$bindir/*")
	{
		my $name = $path =~ s{.*/}{}r;
		write_script("$dir/$name", "real='$path'", $lines{$name} // (), 'exec "$real" "$@"') if $name ne 'neon_dev';
	}
	return "$dir/pg_config";
}

sub has_neon_comm
{
	my ($pg_config) = @_;
	return -x $pg_config && -f said_by($pg_config, '--pkglibdir') . '/neon_comm.so'
	  && -f said_by($pg_config, '--pkglibdir') . '/neon_page_service.so' && -x said_by($pg_config, '--bindir') . '/pg_upgrade';
}

# Two servers of this machine with neon_comm, one of them that of PG_CONFIG: the older and the newer one's pg_config.
sub pair_of_majors
{
	my $here = $ENV{PG_CONFIG} // 'pg_config';
	my ($other) = grep { major_of($_) != major_of($here) && has_neon_comm($_) } reverse sort glob '/usr/lib/postgresql/*/bin/pg_config';
	return unless defined $other;
	return sort { major_of($a) <=> major_of($b) } $here, $other;
}

1;
