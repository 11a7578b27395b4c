# neon_dev upgrade from one major version to a later one, with everything in the old cluster that could get lost:
# with and without tokens, TLS and page checksums. And the way back.
#
# Needs two majors with neon_comm in one system, that of PG_CONFIG and another one below /usr/lib/postgresql.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use Cwd qw(abs_path);
use IPC::Run ();
use NeonComm::Cluster;
use NeonComm::Majors qw(major_of pair_of_majors);
use Test::More;

my ($older, $newer) = pair_of_majors();
plan skip_all => 'no second major version with neon_comm below /usr/lib/postgresql' unless defined $newer;
my ($from, $to) = (major_of($older), major_of($newer));

sub text_of { my ($path) = @_; open my $fh, '<', $path or return ''; local $/; return scalar(<$fh>) // '' }

# All that SQL says of the contents: rows with their text, objects by their names and OIDs.
sub everything
{
	my ($c) = @_;
	return $c->sql(q{
		SELECT 't', count(*), md5(string_agg(t::text, ',' ORDER BY id)) FROM t;
		SELECT 'toast', md5(string_agg(v, ',')) FROM big;
		SELECT 'parts', tableoid::regclass, count(*) FROM parts GROUP BY 1, 2 ORDER BY 2::text;
		SELECT 'lo', convert_from(lo_get(oid), 'UTF8') FROM pg_largeobject_metadata;
		SELECT 'class', oid, relname, relkind FROM pg_class WHERE oid >= 16384 AND relname !~ '^pg_toast' ORDER BY oid;
		SELECT 'roles', a.rolname, a.rolpassword, r.rolconfig FROM pg_authid a JOIN pg_roles r ON r.oid = a.oid WHERE a.rolname ~ '^(reader|writer)$' ORDER BY 2;
		SELECT 'grants', has_table_privilege('reader', 't', 'SELECT'), has_table_privilege('reader', 't', 'UPDATE'), has_table_privilege('writer', 't', 'SELECT');
		SELECT 'dbs', datname, pg_encoding_to_char(encoding), datcollate, datctype FROM pg_database WHERE datname !~ 'template' ORDER BY 2;
		SELECT 'generated', g FROM generated ORDER BY 2; SELECT 'view', v FROM names;
		SELECT 'key', conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE oid >= 16384 AND contype <> 'n' ORDER BY 2}) . $c->sql(q{SELECT * FROM latin ORDER BY 1}, db => 'latin');
}

foreach my $security ([], [ '--auth', '--tls', '--checksums' ])
{
	my $name = @$security ? 'with tokens, TLS and checksums' : 'plain';
	my $c = NeonComm::Cluster->new(shards => 2, init => [ '--pg-config', $older, @$security, '--initdb', '--wal-segsize=4' ], conf => ['max_locks_per_transaction=80']);
	my $dir = $c->{dir} = abs_path($c->{dir});
	$c->sql(q{CREATE TABLE t AS SELECT g AS id, repeat('t', 300) AS f, now() + g * interval '1 s' AS at FROM generate_series(1, 5000) g;
		ALTER TABLE t ADD PRIMARY KEY (id); CREATE INDEX ON t USING hash (f); CREATE INDEX ON t USING brin (at); ALTER TABLE t DROP COLUMN at;
		DELETE FROM t WHERE id % 7 = 0; UPDATE t SET f = 'short' WHERE id % 5 = 0;
		CREATE TABLE big AS SELECT string_agg(md5(g::text), '') AS v FROM generate_series(1, 3000) g;
		CREATE TABLE parts (a int REFERENCES t) PARTITION BY RANGE (a); CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (100);
		CREATE TABLE parts_2 PARTITION OF parts DEFAULT; INSERT INTO parts SELECT id FROM t WHERE id % 50 = 1;
		CREATE SEQUENCE s; SELECT nextval('s') FROM generate_series(1, 40); CREATE TABLE generated (g int GENERATED ALWAYS AS IDENTITY); INSERT INTO generated DEFAULT VALUES;
		CREATE UNLOGGED TABLE u AS SELECT 1 AS x; SELECT lo_from_bytea(0, 'large object');
		CREATE ROLE reader LOGIN PASSWORD 'secret'; CREATE ROLE writer; ALTER ROLE reader SET work_mem = '5MB'; GRANT SELECT ON t TO reader;
		CREATE VIEW names AS SELECT string_agg(name, ',' ORDER BY name) AS v FROM neon_comm.counters;
		ALTER SYSTEM SET work_mem = '9MB'});
	$c->sql(q{CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'});
	$c->sql(q{CREATE TABLE latin AS SELECT chr(228) AS x, g FROM generate_series(1, 10) g}, db => 'latin');
	$c->evict;
	my $before = everything($c);
	my $checksums = $c->sql('SHOW data_checksums');

	# what the new major does not know is for it to say
	my $conf = text_of("$dir/compute/postgresql.conf");
	open my $fh, '>>', "$dir/compute/postgresql.conf" or die $!;
	print $fh "no_such_setting = 1\n";
	close $fh;
	my ($ok, $out) = $c->try_dev('upgrade', '-D', $dir, '--to', $to, '--pg-config', $newer);
	ok(!$ok, "$name: a setting that is not known");
	like($out, qr/PostgreSQL $to does not take the settings of compute: .*"no_such_setting"/, 'is refused');
	open $fh, '>', "$dir/compute/postgresql.conf" or die $!;
	print $fh $conf;
	close $fh;

	$c->dev('upgrade', '-D', $dir, '--to', $to, '--pg-config', $newer);
	$c->start;
	like($c->sql('SELECT version()'), qr/^PostgreSQL $to\b/, "$name: $from is $to");
	is(everything($c), $before, 'with all that there was');
	is($c->sql('SHOW data_checksums'), $checksums, 'checksums as they were');
	is($c->sql('SHOW wal_segment_size'), '4MB', 'and segments of WAL');
	is($c->sql('SHOW work_mem'), '9MB', 'settings');
	is($c->sql('SELECT count(*) FROM u'), 0, 'unlogged tables are empty');
	cmp_ok($c->sql(q{SELECT nextval('s')}), '>', 40, 'sequences go on');
	$c->sql(q{INSERT INTO generated DEFAULT VALUES; INSERT INTO t VALUES (0, 'new'); INSERT INTO u VALUES (1);});
	ok($c->wait_for(q{SELECT count(*) = 2 AND bool_and(state = 'streaming') FROM neon_comm.page_servers}), 'page servers follow');
	is($c->sql('CREATE EXTENSION IF NOT EXISTS amcheck; SELECT sum(CASE WHEN bt_index_check(c.oid, true) IS NULL THEN 0 ELSE 0 END) FROM pg_class c JOIN pg_am a ON a.oid = relam
		WHERE amname = \'btree\' AND relpersistence = \'p\' AND relkind = \'i\''), 0, 'indexes are sound');
	$c->kill9('compute');
	$c->start;
	is($c->sql('SELECT count(*) FROM t'), 5000 - 714 + 1, 'after a crash, too');
	$c->check_logs;

	my ($recipe) = text_of("$FindBin::RealBin/../../docs/upgrade.md") =~ /^```sh\n(.*?)^```$/ms;
	local %ENV = (%ENV, D => $dir, OLD => $from, NEW => $to, PATH => (NeonComm::Cluster::neon_dev_path() =~ s{/[^/]*$}{}r) . ":$ENV{PATH}");
	ok(IPC::Run::run([ 'bash', '-eu', '-c', $recipe ], '<', \undef, '>', "$dir/log/said", '2>&1'), 'the way back');
	like($c->sql('SELECT version()'), qr/^PostgreSQL $from\b/, "is $from again");
	is(everything($c), $before, 'with what it had');
	is($c->sql('SELECT count(*) FROM u'), 1, 'unlogged tables, too');
	$c->check_logs;
}
done_testing();
