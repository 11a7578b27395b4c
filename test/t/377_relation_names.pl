# Beside the numbers of a relation its name, in the database that it is in; and whoever leaves the
# name out reads no catalog.
use strict;
use warnings;

use Test::More;
use NeonComm::Cluster;
use NeonComm::Proxy;

my $c = NeonComm::Cluster->new(shards => 1, conf => [ 'neon_comm.async_reads=off', 'neon_comm.readahead_blocks=0', 'autovacuum=off' ]);
my $p = NeonComm::Proxy->new(seed => 1);
$c->use_proxy($p, 1);
$c->sql(q{CREATE SCHEMA other; CREATE TABLE other.self (id int, f text) WITH (fillfactor = 10);
	INSERT INTO other.self SELECT g, lpad(g::text, 700, '0') FROM generate_series(0, 999) g;});
$c->sql('VACUUM other.self');
$c->sql('CREATE DATABASE elsewhere');

my $rel = $c->sql(q{SELECT pg_relation_filenode('other.self')});
my ($watch, $away, $s) = ($c->session, $c->session(db => 'elsewhere'), $c->session);
my $row = 'SELECT relation, relfilenode FROM neon_comm.slots WHERE block <= 700 AND block + nblocks > 700 AND pid = ' . $s->pid;
my $numbers = 'SELECT count(*) = 1 FROM neon_comm.slots WHERE block <= 700 AND block + nblocks > 700 AND relfilenode = ' . $rel . ' AND pid = ' . $s->pid;
# so that what they need of catalogs is known
$away->query('CREATE EXTENSION IF NOT EXISTS neon_comm');
$_->query($row), $_->query($numbers) foreach $watch, $away;
is($watch->query("SELECT neon_comm.relation_of((SELECT oid FROM pg_tablespace WHERE spcname = 'pg_default'),
	(SELECT oid FROM pg_database WHERE datname = 'postgres'), $rel)"), 'other.self', 'by its numbers');
is($away->query("SELECT neon_comm.relation_of((SELECT oid FROM pg_tablespace WHERE spcname = 'pg_default'),
	(SELECT oid FROM pg_database WHERE datname = 'postgres'), $rel)"), '', 'not in another database');
is($watch->query(q{SELECT neon_comm.relation_of((SELECT oid FROM pg_tablespace WHERE spcname = 'pg_global'), 0,
	pg_relation_filenode('pg_database'))}), 'pg_database', 'a relation of all databases');
is($watch->query(q{SELECT neon_comm.relation_of(1663, 1, 424242)}), '', 'one that is nowhere');

unlike($watch->query('EXPLAIN (VERBOSE) SELECT pid, relfilenode, block FROM neon_comm.slots'), qr/relation_of/,
	'who does not ask for the name does not look for it');
$s->query('SET max_parallel_workers_per_gather = 0; SELECT count(*) FROM other.self');
$c->evict;
$_->query($row), $_->query($numbers) foreach $watch, $away;
$watch->query("SELECT neon_comm.relation_of(0, 0, 1), neon_comm.relation_of(1663, (SELECT oid FROM pg_database WHERE datname = 'postgres'), $rel)");
$p->rule("tag=getpage rel=$rel block=700 hold");
$s->send('SELECT count(*) FROM other.self');
ok($watch->wait_for($numbers), 'it waits for a page');
is($watch->query($row), "other.self|$rel", 'the view names its relation');
is($away->query($row), "|$rel", 'not in another database');
$p->clear;
$p->cmd('release *');
is($s->wait, 1000, 'it goes on');
$c->check_logs;
done_testing();
