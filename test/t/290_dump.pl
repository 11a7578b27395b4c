# A database of a compute is dumped and restored, into another one of the same compute and
# whole, in one transaction; and the extension goes and comes back with all it made.
#
# Fails when the schema neon_comm is not a member of the extension: a dump then makes it again,
# which a new database has from template1, and DROP EXTENSION leaves it. And when the extension
# has a comment, which none but its owner may make again.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use IPC::Run ();
use NeonComm::Cluster;
use Test::More;

my $c = NeonComm::Cluster->new(shards => 2);
my $dump = "$c->{dir}/log/dump";
my ($port) = $c->conninfo =~ /port=(\d+)/;
my @to = ('-h', '127.0.0.1', '-p', $port, '-U', 'postgres');

sub run_ok
{
	my ($name, @command) = @_;
	my $err = '';
	my $ok = IPC::Run::run(\@command, '<', \undef, '>', '/dev/null', '2>', \$err);

	return ok($ok && $err eq '', $name) || diag($err);
}

$c->sql(q{CREATE DATABASE shop});
$c->sql(q{CREATE SCHEMA s; CREATE TABLE s.t AS SELECT g AS id, md5(g::text) AS v FROM generate_series(1, 20000) g;
	CREATE INDEX ON s.t (id); CREATE SEQUENCE s.q; SELECT nextval('s.q') \g /dev/null
	 CREATE UNLOGGED TABLE s.u AS SELECT 1 AS x;
	CREATE VIEW s.w AS SELECT count(*) FROM s.t}, db => 'shop');
my $sum = q{SELECT count(*), sum(hashtext(v)::bigint), (SELECT count FROM s.w), (SELECT last_value FROM s.q), (SELECT x FROM s.u) FROM s.t};
my $before = $c->sql($sum, db => 'shop');

foreach my $format ('c', 'd')
{
	run_ok("pg_dump -F$format", 'pg_dump', @to, "-F$format", '-f', "$dump.$format", 'shop');
	$c->sql("CREATE DATABASE back_$format");
	run_ok("pg_restore -1 of it into a new database", 'pg_restore', @to, '-1', '-d', "back_$format", "$dump.$format");
	is($c->sql($sum, db => "back_$format"), $before, 'holds the same');
}
run_ok('pg_restore --create', 'pg_restore', @to, '--clean', '--if-exists', '--create', '-d', 'postgres', "$dump.c");
is($c->sql($sum, db => 'shop'), $before, 'holds the same');
is($c->sql(q{SELECT count(*) > 0 FROM neon_comm.counters}, db => 'shop'), 't', 'and has the views');

# ---- the owner of a database, who is no superuser

my @owner = (@to[ 0 .. 4 ], 'keeper');
$c->sql('CREATE ROLE keeper LOGIN');
$c->sql("CREATE DATABASE $_ OWNER keeper") foreach 'kept', 'back_kept';
$c->sql('SET ROLE keeper; CREATE TABLE t AS SELECT generate_series(1, 1000) AS x', db => 'kept');
run_ok('pg_dump by the owner', 'pg_dump', @owner, '-Fc', '-f', "$dump.kept", 'kept');
run_ok('pg_restore -1 by the owner into a new database', 'pg_restore', @owner, '-1', '-d', 'back_kept', "$dump.kept");
is(($c->try_sql('SELECT count(*), sum(x) FROM t', db => 'back_kept'))[1], '1000|500500', 'holds the same');
isnt($c->sql(q{SELECT comment FROM pg_available_extensions WHERE name = 'neon_comm'}), '', 'the extension is described where it is on offer');

unlike(`pg_dump -s @to shop`, qr/SCHEMA neon_comm/, 'a dump does not make the schema of the extension');

# ---- the extension goes and comes back

$c->sql('DROP EXTENSION neon_comm', db => 'shop');
is($c->sql(q{SELECT count(*) FROM pg_namespace WHERE nspname = 'neon_comm'}, db => 'shop'), '0', 'the schema goes with the extension');
is($c->sql(q{SELECT count(*) FROM s.t}, db => 'shop'), '20000', 'tables are read without it');
$c->sql('CREATE EXTENSION neon_comm', db => 'shop');
is($c->sql(q{SELECT count(*) > 0 FROM neon_comm.counters}, db => 'shop'), 't', 'it comes back');

$c->check_logs;
done_testing();
