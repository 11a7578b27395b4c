# Each hook by which a server tells of last-written LSNs is heard: the next read of what it is about asks for no older
# version, and a read of anything else for what it would have asked before.
use strict;
use warnings;

use Test::More;
use NeonComm::Cluster;
use NeonComm::Node qw(until_true);

my $pg_config = $ENV{PG_CONFIG} // 'pg_config';
my ($bindir, $pkglibdir) = map { my $d = `$pg_config --$_`; chomp $d; $d } qw(bindir pkglibdir);
plan skip_all => 'this server has no storage-manager hook: see test/hook.sh' if !grep { / smgr_hook$/ } `nm -D $bindir/postgres`;
plan skip_all => 'other_smgr is not installed: see test/hook.sh' if !-e "$pkglibdir/other_smgr.so";

my $c = NeonComm::Cluster->new(shards => 1, conf => [ 'checkpoint_timeout=1h', 'autovacuum=off', 'neon_comm.lfc_size=0' ]);
my %stopped;
END { local $?; kill 'CONT', keys %stopped if %stopped }

$c->sql(q{CREATE FUNCTION tell(cstring, regclass, int, int, pg_lsn) RETURNS pg_lsn AS 'other_smgr', 'other_smgr_tell' LANGUAGE C STRICT});
# 14 rows a page
$c->sql("CREATE TABLE $_ AS SELECT g AS id, repeat('x', 500) AS f FROM generate_series(1, 3000) g") foreach qw(l m);
$c->sql('VACUUM; CHECKPOINT');
$c->evict;

# What a read of this block asks for: no version before that LSN.
my ($watch, $reader) = ($c->session, $c->session);
# what these need besides is in memory then
my $slot = q{SELECT max(not_modified_since) FROM neon_comm.slots WHERE state IN ('submitted', 'taken') AND relfilenode = %d AND block = %d};
$watch->query(sprintf $slot, 0, 0);
my %node = map { $_ => $c->sql("SELECT pg_relation_filenode('$_')") } qw(l m);
sub asked_for
{
	my ($table, $block) = @_;
	$reader->query("SELECT count(*) FROM $table WHERE ctid = '(0,1)'");
	%stopped = map { $_ => 1 } $c->pids_of('page_server_0', qr/./);
	kill 'STOP', keys %stopped;
	$reader->send("SELECT count(*) FROM $table WHERE ctid = '($block,1)'");
	my $lsn = '';
	ok(until_true(sub { ($lsn = $watch->query(sprintf $slot, $node{$table}, $block)) ne '' }), "block $block of $table is asked for");
	kill 'CONT', keys %stopped;
	%stopped = ();
	$reader->wait;
	return $lsn;
}

# An LSN behind all that anybody knows of, and WAL behind it that is flushed: page servers get there.
sub now
{
	$c->sql(q{SELECT pg_logical_emit_message(false, 'x', 'x')});
	my $lsn = $c->sql('SELECT pg_current_wal_insert_lsn()');
	$c->sql(q{SELECT pg_logical_emit_message(true, 'x', 'x')});
	return $lsn;
}
sub at_least { my ($table, $block, $lsn, $what) = @_; return is($c->sql("SELECT '" . asked_for($table, $block) . "'::pg_lsn >= '$lsn'"), 't', $what) }
sub older { my ($table, $block, $lsn, $what) = @_; return is($c->sql("SELECT '" . asked_for($table, $block) . "'::pg_lsn < '$lsn'"), 't', $what) }
sub server_tells
{
	my ($what, $table, $from, $n, $lsn) = @_;
	is($c->sql("SELECT tell('$what', '$table', $from, $n, '$lsn')"), $lsn, "the server tells by $what");
	return;
}

my $lsn = now();
server_tells('block', 'l', 7, 1, $lsn);
at_least('l', 7, $lsn, 'block: that block');
older('l', 8, $lsn, 'and no other one');

$lsn = now();
server_tells('v', 'l', 20, 2, $lsn);
older('l', 20, $lsn, 'v: each block by its own LSN');
at_least('l', 21, $lsn, 'the second one by the second');
older('l', 22, $lsn, 'and no other one');

$lsn = now();
server_tells('range', 'l', 30, 2, $lsn);
older('l', 29, $lsn, 'range: no block before it');
at_least('l', 30, $lsn, 'the first');
at_least('l', 31, $lsn, 'the last');
older('l', 32, $lsn, 'none behind it');

$lsn = now();
server_tells('range', 'l', 40, 100, $lsn);
at_least('l', 150, $lsn, 'a range that is long: all of the relation');
older('m', 50, $lsn, 'and no other one');

$lsn = now();
server_tells('relation', 'l', 0, 1, $lsn);
at_least('l', 151, $lsn, 'relation: all of it');
older('m', 51, $lsn, 'and no other one');

foreach my $what (qw(db max))
{
	my $block = $what eq 'db' ? 60 : 61;
	$lsn = now();
	server_tells($what, 'l', 0, 1, $lsn);
	at_least('m', $block, $lsn, "$what: everything");
}

is($c->sql('SELECT (SELECT count(*) FROM l), (SELECT count(*) FROM m)'), '3000|3000', 'rows');
$c->check_logs;
done_testing();
