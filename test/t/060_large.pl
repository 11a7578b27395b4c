# Relations and templates over 2 GB: several segments, a jump over a whole one
# (CREATE DATABASE extends to the last block in one step),
# truncation across a segment border, and a crash after each.
use strict;
use warnings;

use Test::More;

# redo reads each of a hundred thousand pages before it deletes its rows, which takes a busy machine minutes
BEGIN { $ENV{PGCTLTIMEOUT} = 3600 }
use NeonComm::Cluster;

my $c = NeonComm::Cluster->new(buffers => '64MB', stripe => 2048,
	conf => [ 'max_wal_size=4GB', 'neon_comm.request_timeout=10min' ]);
my $blocks = 2 * 131072 + 2000;

# One row a block, and the row names its block.
$c->sql('CREATE DATABASE big');
$c->sql("CREATE TABLE b (n int, f text) WITH (fillfactor = 10, autovacuum_enabled = off);
	ALTER TABLE b ALTER f SET STORAGE PLAIN;
	INSERT INTO b SELECT g, repeat('b', 900) FROM generate_series(0, $blocks - 1) g;", db => 'big');
is($c->sql("SELECT pg_relation_size('b') / 8192", db => 'big'), $blocks, 'more than 2 GB of blocks');

my $probe = join ',', map { "'($_,1)'" } (0, 1, 2047, 2048, 131071, 131072, 131073, 200000,
	262143, 262144, 262145, $blocks - 1);
my $right = "SELECT count(*) FROM b WHERE ctid = ANY (ARRAY[$probe]::tid[]) AND ctid = ('(' || n || ',1)')::tid AND f = repeat('b', 900)";
is($c->sql($right, db => 'big'), 12, 'rows around segment borders');

foreach my $strategy ('wal_log', 'file_copy')
{
	$c->sql("CREATE DATABASE copy TEMPLATE big STRATEGY $strategy");
	is($c->sql("SELECT pg_relation_size('b') / 8192", db => 'copy'), $blocks, "$strategy: length of the copy");
	is($c->sql($right, db => 'copy'), 12, "$strategy: its rows");
	$c->kill9('compute');
	$c->start('compute');
	is($c->sql("SELECT pg_relation_size('b') / 8192", db => 'copy'), $blocks, "$strategy: length after a crash");
	is($c->sql($right, db => 'copy'), 12, "$strategy: rows after a crash");
	$c->sql('DROP DATABASE copy') if $strategy eq 'wal_log';
}

# Cut off two segments and grow again. VACUUM passes by a page that is being written out, and cuts behind it only.
$c->sql('DELETE FROM b WHERE n >= 100000', db => 'copy');
my $length = $blocks;
foreach (1 .. 20)
{
	$c->sql('VACUUM b', db => 'copy');
	$length = $c->sql("SELECT pg_relation_size('b') / 8192", db => 'copy');
	last if $length <= 100000;
}
cmp_ok($length, '<=', 100000, 'truncated across segments');
$c->sql("INSERT INTO b SELECT g, repeat('b', 900) FROM generate_series(100000, 140000) g", db => 'copy');
is($c->sql('SELECT count(*), count(*) FILTER (WHERE f = repeat($$b$$, 900)) FROM b', db => 'copy'),
	'140001|140001', 'and grown again');
$c->kill9('compute');
$c->start('compute');
is($c->sql('SELECT count(*), count(*) FILTER (WHERE f = repeat($$b$$, 900)) FROM b', db => 'copy'),
	'140001|140001', 'after a crash too');
$c->sql('CHECKPOINT; SELECT neon_comm.sweep()');
is($c->sql('SELECT allocated - sequences - empty FROM neon_comm.local_bytes()'), 0, 'and nothing is held locally');
$c->check_logs;
done_testing();
