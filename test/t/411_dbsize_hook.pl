# The hook for sizes of databases, of a server that has it: a compute whose relations have no files until they are used
# says how large they are all the same, both ways to ask, and who may not know does not learn it.
use strict;
use warnings;

use File::Path qw(remove_tree);
use Test::More;
use NeonComm::Cluster;

my $pg_config = $ENV{PG_CONFIG} // 'pg_config';
my $bindir = `$pg_config --bindir` =~ s/\n//r;
plan skip_all => 'this server has no storage-manager hook: see test/hook.sh' if !grep { / smgr_hook$/ } `nm -D $bindir/postgres`;

my $c = NeonComm::Cluster->new(shards => 1, ps_conf => [ 'neon_page_service.boot_image=neon' ]);
$c->sql('CREATE DATABASE large');
$c->sql(q{CREATE TABLE t AS SELECT g AS id, repeat('x', 500) AS f FROM generate_series(1, 20000) g}, db => 'large');
$c->sql('CREATE ROLE stranger; REVOKE CONNECT ON DATABASE large FROM PUBLIC');
my $size = $c->sql(q{SELECT pg_database_size('large')});
cmp_ok($size, '>', 10_000_000, 'the size of a database');
ok($c->wait_for(q{SELECT bool_and(apply_lsn >= pg_current_wal_flush_lsn()) AND count(*) = 1 FROM neon_comm.page_servers}), 'page servers have it');

$c->kill9('compute');
remove_tree("$c->{dir}/compute");
my ($ok, $said) = $c->try_dev('create-compute', '-D', $c->{dir});
ok($ok, 'a compute is made') or BAIL_OUT($said . $c->log_tail);
is($c->sql('SELECT way_in FROM neon_comm.status()'), 'hook', 'it is entered through the hook');
my $oid = $c->sql(q{SELECT oid FROM pg_database WHERE datname = 'large'});
my @files = grep { m{/\d+$} } glob "$c->{dir}/compute/base/$oid/*";
is(scalar @files, 0, 'a database that nobody has used has no files');
cmp_ok($c->sql(q{SELECT pg_database_size('large')}), '>', $size * 0.9, 'its size is that of all of it');
is($c->sql(qq{SELECT pg_database_size('large') = pg_database_size($oid)}), 't', 'by name and by number');
my ($rc, undef, $err) = $c->try_sql(q{SET ROLE stranger; SELECT pg_database_size('large')});
isnt($rc, 0, 'who may not know');
like($err, qr/permission denied for database large/, 'is refused');
cmp_ok($c->sql(q{SELECT pg_database_size('large')}), '>', $size * 0.9, 'and the hook is there as before');
is($c->sql('SELECT count(*) FROM t', db => 'large'), 20000, 'rows');
$c->check_logs;
done_testing();
