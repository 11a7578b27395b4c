# A library for the other kind of server: one with a storage-manager hook, where structs and arguments differ
# and the loader sees no difference. It does not start, and says what to install; no file changes. Both
# libraries, compute's and page server's.
#
# The server here is this one with a library before all others that has the hook's name, or that of the function to
# register with.
use strict;
use warnings;

use Cwd qw(abs_path);
use File::Temp qw(tempdir);
use IPC::Run ();
use Test::More;
use NeonComm::Cluster;

my $pg_config = $ENV{PG_CONFIG} // 'pg_config';
my $bindir = `$pg_config --bindir`;
chomp $bindir;
plan skip_all => 'this server has a storage-manager hook: test/hook.sh tries the other one'
	if grep { / (?:smgr_hook|smgrregister)$/ } `nm -D $bindir/postgres`;

my $top = abs_path(tempdir('nc_XXXXXX', TMPDIR => 1, CLEANUP => 1));
my @doors = ('smgr_hook', 'smgrregister');
foreach my $door (@doors)
{
	open my $fh, '>', "$top/$door.c" or die $!;
	print $fh "void *$door;\n";
	close $fh or die $!;
	IPC::Run::run([ 'cc', '-shared', '-fPIC', '-o', "$top/$door.so", "$top/$door.c" ]) or die 'cc failed';
}

my $c = NeonComm::Cluster->new(shards => 1);
$c->sql(q{CREATE TABLE t AS SELECT g AS id FROM generate_series(1, 5000) g});
is($c->sql('SELECT way_in FROM neon_comm.status()'), 'table', 'a server without a hook is entered by its table');
$c->stop;

sub files
{
	my ($data) = @_;
	return join '', `cd $data && find . -type f ! -name postmaster.opts ! -name postmaster.pid | sort | xargs cksum`;
}

sub start
{
	my ($part, $door) = @_;
	my $from = length $c->log_text($part);
	local $ENV{LD_PRELOAD} = "$top/$door.so";
	my $ok = IPC::Run::run([ "$bindir/pg_ctl", 'start', '-w', '-s', '-D', "$c->{dir}/$part", '-l', $c->log_file($part) ],
		'<', \undef, '>', '/dev/null', '2>', '/dev/null');
	IPC::Run::run([ "$bindir/pg_ctl", 'stop', '-w', '-s', '-m', 'fast', '-D', "$c->{dir}/$part" ]) if $ok;
	return ($ok, substr $c->log_text($part), $from);
}

foreach my $case (map { my $door = $_; ([ $door, 'compute', 'neon_comm' ], [ $door, 'page_server_0', 'neon_page_service' ]) } @doors)
{
	my ($door, $part, $library) = @$case;
	my $before = files("$c->{dir}/$part");
	my ($ok, $log) = start($part, $door);
	ok(!$ok, "$door: $part does not start");
	like($log, qr/FATAL: +this $library was built for servers without a storage-manager hook, and this server has one\n.*HINT: +Install the $library that/,
		"$door: $part says why");
	unlike($log, qr/redo starts|ready to accept|terminated by signal/, "$door: $part: nothing was begun");
	is(files("$c->{dir}/$part"), $before, "$door: $part: no file has changed");
}

$c->start;
is($c->sql('SELECT count(*), sum(id) FROM t'), '5000|12502500', 'rows at last');
$c->check_logs;
done_testing();
