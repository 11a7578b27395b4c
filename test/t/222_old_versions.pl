# A page server that has lost WAL, or lies, gives an old version of a page that the
# compute has changed.  It is refused wherever the compute can know better: pages
# that are all-visible, pages written before a clean stop, pages that redo has made
# after a crash, and none of it forgotten because other objects changed.  What a
# stop has left is used by the next start only, and only if nothing happened
# in between.
use strict;
use warnings;

use File::Copy qw(copy);
use Test::More;
use NeonComm::Cluster;

my $checksums = ($ENV{NEON_TEST_CHECKSUMS} // 0) + 0;
my $c = NeonComm::Cluster->new(shards => 1, checksums => $checksums,
	conf => [ 'max_parallel_workers_per_gather=0', 'neon_comm.request_timeout=20s' ]);
$c->allow_log(qr/old version of block/);
my $saved = "$c->{dir}/compute/neon_comm.versions";
my @tables = qw(visible noisy stopped crashed);

$c->sql(qq{CREATE TABLE $_ (id int, v int, f text) WITH (fillfactor = 10);
	INSERT INTO $_ SELECT g, 0, repeat('f', 700) FROM generate_series(1, 300) g;}) foreach @tables;
my %file = map { $_ => $c->sql(q{SELECT 'base/' || (SELECT oid FROM pg_database WHERE datname = 'postgres') || '/' ||} . qq{ pg_relation_filenode('$_')}) } @tables;

# Stops the page server once it has all that is in WAL on its disk; runs something; starts it.
sub with_page_server_down
{
	my ($do) = @_;
	$c->sql('CHECKPOINT');
	my $lsn = $c->sql('SELECT pg_current_wal_lsn()');
	ok($c->wait_for(qq{SELECT min(apply_lsn) >= '$lsn' FROM neon_comm.page_servers}), 'the page server has it all');
	$c->stop('page-server', 0);
	$do->();
	$c->start('page-server', 0);
	return;
}
with_page_server_down(sub { copy("$c->{dir}/page_server_0/$file{$_}", "$c->{dir}/$_") or die $! foreach @tables });

# Puts the old version of a table in its place on the page server, where it is not read any more from.
sub lose
{
	my ($table) = @_;
	$c->evict;
	with_page_server_down(sub {
		my $path = "$c->{dir}/page_server_0/$file{$table}";
		open my $in, '<:raw', "$c->{dir}/$table" or die $!;
		open my $out, '+<:raw', $path or die $!;
		local $/;
		my $old = <$in>;
		print $out $old or die $!;
		close $out or die $!;
	});
	return;
}

sub refused
{
	my ($table, $what) = @_;
	my $before = $c->counter('stale_answers');
	my ($rc, $out, $err) = $c->try_sql("SELECT count(*), sum(v) FROM $table");
	like($err, qr/old version of block \d+ of relation/, "$what: refused") or diag("$out");
	cmp_ok($c->counter('stale_answers'), '>', $before, "$what: counted");
	return;
}

# VACUUM sets the flag without moving the page's LSN (without checksums).
$c->sql('UPDATE visible SET v = 1');
$c->sql('VACUUM visible');
is($c->sql(q{CREATE EXTENSION pg_visibility; SELECT count(*) > 250 FROM pg_visibility_map('visible') WHERE all_visible}), 't', 'pages are all-visible');
lose('visible');
refused('visible', 'all-visible pages');

# Databases come and go, and other tables fill and leave the map.
$c->sql('UPDATE noisy SET v = 1');
$c->evict;
$c->sql('CREATE DATABASE other');
$c->sql('DROP DATABASE other');
lose('noisy');
refused('noisy', 'pages of other databases');

# Over a clean stop.
$c->sql('UPDATE stopped SET v = 1');
ok(!-e $saved, 'nothing is saved while the server runs');
$c->stop('compute');
cmp_ok(-s $saved, '>', 300 * 24, 'a clean stop saves what is known');
copy($saved, "$c->{dir}/stale") or die $!;
$c->start('compute');
ok(!-e $saved, 'which the next start takes away');
cmp_ok($c->counter('versions_restored'), '>=', 300, 'and takes over');
lose('stopped');
refused('stopped', 'pages written before a stop');

# Over a crash.  The file of the stop before, if it came back, would not be used.
$c->sql('CHECKPOINT');
$c->sql('UPDATE crashed SET v = 1');
$c->kill9('compute');
copy("$c->{dir}/stale", $saved) or die $!;
$c->start('compute');
is($c->counter('versions_restored'), 0, 'after a crash nothing is taken over');
ok(!-e $saved, 'and what was there is gone');
lose('crashed');
refused('crashed', 'pages made by redo');

# A file that is damaged, or of another stop.
$c->stop('compute');
open my $fh, '+<:raw', $saved or die $!;
seek $fh, 200, 0;
print $fh "\xff\xff\xff";
close $fh;
$c->start('compute');
is($c->counter('versions_restored'), 0, 'a damaged file is not used');
$c->stop('compute');
copy("$c->{dir}/stale", $saved) or die $!;
$c->start('compute');
is($c->counter('versions_restored'), 0, 'nor that of another stop');

# What is made anew after a stop is not held to what was there before.
$c->sql(q{CREATE TABLE anew (id int, f text); INSERT INTO anew SELECT g, repeat('a', 700) FROM generate_series(1, 300) g;
	CREATE DATABASE mine; CHECKPOINT;});
$c->evict;
$c->restart('compute');
cmp_ok($c->counter('versions_restored'), '>', 30, 'taken over');
$c->sql(q{TRUNCATE anew; INSERT INTO anew VALUES (1, 'x'); DELETE FROM anew; VACUUM anew;});
my $oid = $c->sql(q{SELECT oid FROM pg_database WHERE datname = 'mine'});
$c->sql('DROP DATABASE mine');
$c->sql("CREATE DATABASE mine OID $oid STRATEGY file_copy TEMPLATE template0");
is($c->sql('SELECT count(*) FROM pg_class WHERE relname = $$pg_class$$', db => 'mine'), 1, 'a database under an old number');
$c->kill9('compute');
$c->start('compute');
is($c->sql('SELECT count(*) FROM pg_class WHERE relname = $$pg_class$$', db => 'mine'), 1, 'and after a crash');
is($c->sql('SELECT count(*) FROM anew'), 0, 'a truncated table');

$c->check_logs;
done_testing();
