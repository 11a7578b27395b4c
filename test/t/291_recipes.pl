# The recipes of docs/operations.md, word for word: the commands are taken from the document. Each on a
# cluster with contents, as the last line says with tokens and TLS as well, and afterwards all rows
# are there and rows can be added. A page server is removed that runs, and one that is lost; after one
# was moved, all are stopped and started.
#
# Fails when a recipe does not work as it stands.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use File::Path qw(rmtree);
use IPC::Run ();
use NeonComm::Cluster;
use NeonComm::Node qw(until_true);
use Test::More;

my $doc = "$FindBin::RealBin/../../docs/operations.md";
open my $fh, '<', $doc or die "$doc: $!";
my ($section, %recipe);
while (my $line = <$fh>)
{
	$section = $1 if $line =~ /^#+ (.*)/;
	next unless $line =~ /^```sh( restore)?$/;
	my $part = $section . ($1 // '');
	while (defined($line = <$fh>) && $line !~ /^```/) { $recipe{$part} .= $line }
}
close $fh;

my ($low, $high) = split /-/, $ENV{NEON_DEV_PORTS} // '20000-31999';
my $bin = NeonComm::Cluster::neon_dev_path() =~ s{/[^/]*$}{}r;
my ($c, $rows, @started, @made);

# Two ports that nobody listens on.
sub free_ports
{
	my %taken = map { /^\s*\d+: [0-9A-F]+:([0-9A-F]{4})/ ? (hex $1 => 1) : () } map { local @ARGV = $_; <> } glob '/proc/net/tcp /proc/net/tcp6';
	my @free = grep { !$taken{$_} } reverse $low .. $high;
	return @free[ 0, 1 ];
}

# Runs a recipe; the test fails with what it said.
sub follow
{
	my ($name, %var) = @_;
	my ($sql_port, $port) = free_ports();
	my $log = "$c->{dir}/log/recipe";

	local %ENV = (%ENV, D => $c->{dir}, SQL_PORT => $sql_port, PORT => $port, PATH => "$bin:$ENV{PATH}", %var);
	ok(defined $recipe{$name}, "\"$name\" has commands");
	my $ok = IPC::Run::run([ 'bash', '-eu', '-o', 'pipefail', '-c', $recipe{$name} ], '<', \undef, '>', $log, '2>&1',
		IPC::Run::timeout(600));
	return ok($ok, "\"$name\" can be followed") || diag(map { local @ARGV = $_; <> } grep { -f } $log, map { "$_.log" } grep { defined } @var{qw(BACKUP COPY)});
}

sub is_whole
{
	my ($name, $at) = @_;
	$at //= $c;
	is($at->sql('SELECT count(*), sum(id) FROM t'), join('|', $rows, $rows * ($rows + 1) / 2), "\"$name\": all rows");
	$at->sql('INSERT INTO t SELECT ' . ++$rows . q{, repeat('n', 400)});
	return;
}

sub streams
{
	my ($n) = @_;
	my $lsn = $c->sql('SELECT pg_current_wal_flush_lsn()');
	return ok($c->wait_for("SELECT count(*) = $n AND bool_and(state = 'streaming' AND apply_lsn >= '$lsn' IS TRUE) FROM neon_comm.page_servers"),
		"$n page servers follow") || diag($c->sql('SELECT * FROM neon_comm.page_servers'));
}

foreach my $security ([], [ '--auth', '--tls' ])
{
	$c = NeonComm::Cluster->new(shards => 2, init => $security, conf => ['max_replication_slots=20']);
	my $top = $c->{dir} =~ s{/[^/]*$}{}r;
	@made = ();
	$rows = 6000;
	$c->sql(q{CREATE TABLESPACE ts LOCATION ''});
	$c->sql(q{CREATE TABLE t TABLESPACE ts AS SELECT g AS id, repeat('t', 400) AS f FROM generate_series(1, 6000) g});

	is(scalar(grep { /^</ } `diff "$c->{dir}/page_server_0/postgresql.conf" "$c->{dir}/page_server_1/postgresql.conf"`), 5,
		'five settings tell page servers apart');

	follow('Adding a page server');
	streams(3);
	is_whole('Adding a page server');
	like($c->sql('SHOW neon_comm.page_servers'), qr/,.*,/s, 'three shards are in use');
	follow('Removing a page server');
	streams(2);
	is_whole('Removing a page server');
	is($c->sql(q{SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'page_server_2'}), '0', 'its slot is gone');

	# one that is lost, with its directory or without
	follow('Adding a page server');
	streams(3);
	system('pg_ctl', 'stop', '-s', '-m', 'immediate', '-D', "$c->{dir}/page_server_2");
	rmtree("$c->{dir}/page_server_2") if @$security;
	follow('Removing a page server');
	streams(2);
	is_whole('Removing a lost page server');
	is($c->sql(q{SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'page_server_2'}), '0', 'and its slot is gone');
	ok(!-e "$c->{dir}/page_server_2", 'and what was left of it');

	# WAL is written while it is down, and kept for it
	my $s = $c->session;
	my $write = q{SELECT pg_logical_emit_message(true, 'x', repeat('x', 100000)) IS NULL};
	$s->query($write);
	$c->kill9('page-server', 1);
	$s->query($write);
	$s->close;
	follow('A page server is lost');
	streams(2);
	is_whole('A page server is lost');

	follow('Both, from backups', BACKUP => "$top/backup", ARCHIVE => "$top/archive");
	streams(2);
	is_whole('Both, from backups');
	# no segment ends by itself: what is archived is known
	$c->configure({ archive_timeout => 0 });
	my $archived = $rows;
	my $segment = $c->sql('SELECT pg_walfile_name(pg_switch_wal())');
	$c->sql(q{SELECT pg_logical_emit_message(true, 'x', 'x')});
	ok(until_true(sub { -e "$top/archive/$segment" }), 'WAL is archived');

	follow('Moving a shard', NEW => "$top/moved");
	push @made, "$top/moved";
	streams(2);
	is_whole('Moving a shard');
	$c->stop;
	$c->start;
	streams(2);
	is_whole('Moving a shard, then a stop and a start of all');
	is(readlink('/proc/' . $c->postmaster_pid('page_server_1') . '/cwd'), "$top/moved", 'which starts the new directory');
	like($c->dev('status', '-D', $c->{dir}, '--values', '--no-measure'), qr/^page_server_1\.state=running$/m, 'and neon_dev knows it');

	# both are lost; what the archive has comes back, what came after it does not
	$c->stop('page-server', $_) foreach 0, 1;
	@made = ();
	$c->kill9('compute');
	my $lost = $c;
	my $new = bless { %$c, dir => "$top/restored", conninfo => undef }, 'NeonComm::Cluster';
	follow('Both, from backups restore', BACKUP => "$top/backup", ARCHIVE => "$top/archive", NEW => "$top/restored");
	$rows = $archived;
	is_whole('Both, from backups', $new);
	$c = $new;
	follow('The compute is lost', COPY => "$top/copy", NEW => "$top/again") if streams(2);
	my $again = bless { %$c, dir => "$top/again", conninfo => undef }, 'NeonComm::Cluster';
	is_whole('The compute is lost', $again);
	$_->check_logs foreach $lost, $new, $again;
	undef $_ foreach $again, $new, $lost, $c;
}

END
{
	local $?;
	system('pg_ctl', 'stop', '-s', '-m', 'immediate', '-D', $_) foreach @made;
}
done_testing();
