# The recipes of docs/operations.md, word for word: the commands are taken from the document. Each on a
# cluster with contents, with tokens and TLS as well, and afterwards all rows are there and rows can be
# added.
#
# Fails when a recipe does not work as it stands.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

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

my $bin = NeonComm::Cluster::neon_dev_path() =~ s{/[^/]*$}{}r;
my ($c, $rows);

# Runs a recipe; the test fails with what it said.
sub follow
{
	my ($name, %var) = @_;
	my $log = "$c->{dir}/log/recipe";

	local %ENV = (%ENV, D => $c->{dir}, PATH => "$bin:$ENV{PATH}", %var);
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
	$rows = 6000;
	$c->sql(q{CREATE TABLESPACE ts LOCATION ''});
	$c->sql(q{CREATE TABLE t TABLESPACE ts AS SELECT g AS id, repeat('t', 400) AS f FROM generate_series(1, 6000) g});

	follow('Both, from backups', BACKUP => "$top/backup", ARCHIVE => "$top/archive");
	streams(2);
	is_whole('Both, from backups');
	# no segment ends by itself: what is archived is known
	$c->configure({ archive_timeout => 0 });
	my $archived = $rows;
	my $segment = $c->sql('SELECT pg_walfile_name(pg_switch_wal())');
	$c->sql(q{SELECT pg_logical_emit_message(true, 'x', 'x')});
	ok(until_true(sub { -e "$top/archive/$segment" }), 'WAL is archived');

	# both are lost; what the archive has comes back, what came after it does not
	$c->stop('page-server', $_) foreach 0, 1;
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
done_testing();
