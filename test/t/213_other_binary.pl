# A server whose program is not one that neon_comm knows: another minor version, a table of the storage manager
# in another order, a table that the server does not use. It does not start, and says why, before anything is
# changed; neon_comm.allow_unknown_server lets another minor version through, with a warning. And of the
# server that there is: nothing in it goes past the table to an entry that we replace.
#
# Programs are copies of the server's own in which a few bytes are changed.
use strict;
use warnings;

use FindBin;

use Cwd qw(abs_path);
use File::Basename qw(dirname);
use File::Copy qw(copy);
use File::Path qw(make_path);
use File::Temp qw(tempdir);
use IPC::Run ();
use Test::More;
use NeonComm::Cluster;

my $pg_config = $ENV{PG_CONFIG} // 'pg_config';
my %dir = map { my $d = `$pg_config --$_`; chomp $d; ($_ => $d) } qw(bindir pkglibdir sharedir);
my ($major) = `$dir{bindir}/postgres --version` =~ /(\d+)/;
my $top = abs_path(tempdir('nc_XXXXXX', TMPDIR => 1, CLEANUP => 1));

# ---- the program: where functions are, in memory and in the file

my $program = do { local (@ARGV, $/) = ("$dir{bindir}/postgres"); binmode STDIN; <> };
my %address = map { /^([0-9a-f]+) T (\w+)/ ? ($2 => hex $1) : () } `nm -D $dir{bindir}/postgres`;

# Program headers of a 64-bit ELF file: [type, offset, address, bytes].
sub segments
{
	my ($from, $bytes, $n) = (unpack('x32 Q<', $program), unpack('x54 S< S<', $program));
	return map { [ unpack 'L< x4 Q< Q< x8 Q<', substr $program, $from + $_ * $bytes, $bytes ] } 0 .. $n - 1;
}

sub in_file
{
	my ($at) = @_;
	my ($s) = grep { $_->[0] == 1 && $at >= $_->[2] && $at < $_->[2] + $_->[3] } segments();
	return $s->[1] + $at - $s->[2];
}

# Where these bytes stand, which they do once.
sub place_of
{
	my ($bytes, $what) = @_;
	my @at;
	for (my $at = -1; ($at = index $program, $bytes, $at + 1) >= 0;) { push @at, $at }
	is(scalar @at, 1, "$what is in the program once") or BAIL_OUT('unknown program');
	return $at[0];
}

# A copy that finds its libraries as the original does; bytes that are changed as [place, new bytes].
sub other_program
{
	my ($name, @changes) = @_;
	my $text = $program;
	substr($text, $_->[0], length $_->[1]) = $_->[1] foreach @changes;
	foreach my $to (@dir{qw(pkglibdir sharedir)})
	{
		make_path(dirname("$top/$name$to"));
		symlink $to, "$top/$name$to" or die $!;
	}
	make_path("$top/$name$dir{bindir}");
	my $path = "$top/$name$dir{bindir}/postgres";
	open my $fh, '>:raw', $path or die $!;
	print $fh $text;
	close $fh or die $!;
	chmod 0755, $path or die $!;
	return $path;
}

# ---- starts

my $c = NeonComm::Cluster->new(shards => 1);
my $data = "$c->{dir}/compute";
$c->sql(q{CREATE TABLE t AS SELECT g AS id, repeat('x', 400) AS f FROM generate_series(1, 5000) g});
my $version = $c->sql('SHOW server_version_num');
is($c->sql('SHOW data_checksums'), 'off', q{checksums are ours to choose, not the server's initdb's});
$c->stop('compute');

sub start
{
	my ($path, @options) = @_;
	my $from = length $c->log_text('compute');
	my $ok = IPC::Run::run([ "$dir{bindir}/pg_ctl", 'start', '-w', '-s', '-D', $data, '-p', $path, '-l', $c->log_file('compute'),
			@options ? ('-o', "@options") : () ], '<', \undef, '>', '/dev/null', '2>', '/dev/null');
	return ($ok, substr $c->log_text('compute'), $from);
}

sub stop { return IPC::Run::run([ "$dir{bindir}/pg_ctl", 'stop', '-w', '-s', '-m', 'fast', '-D', $data ]) }

sub files { return join '', `cd $data && find . -type f ! -name postmaster.opts ! -name postmaster.pid | sort | xargs cksum` }

sub refused
{
	my ($name, $path, $says) = @_;
	my $before = files();
	my ($ok, $log) = start($path);
	like($log, qr/FATAL:.*$says.*\n(.*\n)*?.*HINT:/, "$name: the start ends, and says why");
	unlike($log, qr/ready to accept|redo starts|terminated by signal/, "$name: nothing was begun");
	is(files(), $before, "$name: no file has changed");
	stop() if $ok && $log =~ /ready to accept/;
	return;
}

sub works
{
	my ($name, $path, $warning, @options) = @_;
	my ($ok, $log) = start($path, @options);
	ok($ok, "$name: it starts") or diag($log);
	$warning ? like($log, $warning, "$name: with a warning") : unlike($log, qr/WARNING/, "$name: without a warning");
	is($c->sql('SELECT count(*), sum(id) FROM t'), '5000|12502500', "$name: rows");
	ok(stop(), "$name: it stops");
	return;
}

works('a copy that nothing was changed in', other_program('same'));

my $minor = $version + 60;
my $at = place_of(pack('l<3', ($version) x 3), 'the number of the version');
my $later = other_program('minor', [ $at, pack('l<3', ($minor) x 3) ]);
refused('another minor version', $later, "built for server version \\d+ and is not tested with $minor");
works('another minor version, allowed', $later, qr/WARNING:.*is not tested with $minor/, '-c neon_comm.allow_unknown_server=on');

# Relocations make the table: addresses are in what they add. Two neighbours change places.
my %relocation = map { $_ => place_of(pack('Q<q<', 8, $address{$_}), "the relocation for $_") } 'mdnblocks', 'mdtruncate';
refused('a table in another order', other_program('order', [ $relocation{mdnblocks} + 8, pack('q<', $address{mdtruncate}) ],
		[ $relocation{mdtruncate} + 8, pack('q<', $address{mdnblocks}) ]),
	q{found the server's storage-manager table 0 times, expected once});

# One whose smgrclose() returns at once, as if it had called md's close directly.
refused('a table that is not used', other_program('unused', [ in_file($address{smgrclose}), "\xc3" ]),
	'the storage-manager table was changed but the server does not use it');

$c->start('compute');
is($c->sql('SELECT count(*), sum(id) FROM t'), '5000|12502500', 'rows at last');

# ---- calls past the table

# Entries that are not md's any more, of abi_NN.c.
my $source = do { local (@ARGV, $/) = ("$FindBin::RealBin/../../src/smgr/abi_$major.c"); <> };
my %row = map { my $a = $_; $source =~ /^static void \*$a\[\] = \{\n(.*?)\n\};/ms or die "no $a"; ($a => [ split /,\s*/, $1 =~ s/^\s+//r ]) } 'theirs', 'ours';
my @replaced = map { $row{theirs}[$_] ne $row{ours}[$_] ? $row{theirs}[$_] : () } 0 .. $#{ $row{theirs} };
cmp_ok(scalar @replaced, '>=', 9, 'entries that we replace');

# Functions of md.c stand together and call each other; names are those that libraries see.
my (%calls, $function);
open my $fh, '-|', "objdump -d --no-show-raw-insn $dir{bindir}/postgres" or die $!;
while (<$fh>)
{
	if (/^[0-9a-f]+ <(\w+)/) { $function = $1 }
	elsif (/\b(?:call|jmp) .*<(\w+)(?:@@\w+)?>/ && $1 ne $function) { $calls{$1}{$function}++ }
}
close $fh;
cmp_ok(scalar keys %{ $calls{smgropen} // {} }, '>', 10, 'calls between functions are seen');
ok($calls{mdinit}{smgrinit}, 'and one that goes past the table');
foreach my $name (@replaced)
{
	is(join(' ', grep { !/^md/ } sort keys %{ $calls{$name} // {} }), '', "$name is called through the table only");
}
$c->check_logs;
done_testing();
