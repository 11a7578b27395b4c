# ProcSignal barriers while reads are stuck on frozen page servers: DROP DATABASE
# and ALTER DATABASE SET TABLESPACE of one database end although backends of
# another one wait for pages, because these absorb the barrier while they wait;
# the stuck reads can be cancelled and go on later.  (docs/faults.md, rows 16 and 21;
# 200_contract.pl, 3 and 9.)
use strict;
use warnings;

use Test::More;
use Time::HiRes qw(usleep);
use NeonComm::Cluster;

# The large table does not fit into buffers, everything else does.
my $c = NeonComm::Cluster->new(buffers => '24MB', conf => [ 'neon_comm.silence_timeout=1h', 'neon_comm.request_timeout=1h' ]);
my @frozen;
END { local $?; kill 'CONT', @frozen if @frozen }
my @readers;

$c->sql(q{CREATE TABLE t (id int PRIMARY KEY, f text);
	INSERT INTO t SELECT g, repeat('x', 900) FROM generate_series(1, 40000) g;
	CREATE TABLESPACE ts LOCATION '';});
cmp_ok($c->sql(q{SELECT pg_relation_size('t')}), '>', 32 * 1024 * 1024, 'the table is large');
$c->sql("CREATE DATABASE $_") foreach 'moved', 'dropped', 'warm';
$c->restart('compute');

# All that the statements below read has been read once.
my $ctl = $c->session;
$ctl->query('ALTER DATABASE warm SET TABLESPACE ts');
$ctl->query('DROP DATABASE warm');
$ctl->query('SELECT count(*) FROM neon_comm.slots');
$ctl->query("SELECT pg_cancel_backend(0)");
@readers = map { $c->session } 1 .. 4;
$_->query(q{SELECT count(*), sum(id) FROM t WHERE ctid = '(0,1)'}) foreach @readers;
$readers[3]->query('SET enable_seqscan = off; SET enable_bitmapscan = off; SELECT count(f) FROM t WHERE id BETWEEN 1 AND 3');
my $pids = join ',', map { $_->pid } @readers;
my $stuck = "SELECT count(*) FROM neon_comm.slots WHERE pid IN ($pids) AND state IN ('submitted', 'taken')";
$ctl->query($stuck);

@frozen = map { ($c->postmaster_pid($_), $c->pids_of($_, qr/./)) } 'page_server_0', 'page_server_1';
kill 'STOP', @frozen;
$readers[$_]->send('SELECT count(*), sum(id) FROM t WHERE f <> $$y$$') foreach 0 .. 2;
$readers[3]->send('SELECT count(f) FROM t WHERE id > 100');

sub until_stuck
{
	my $n = 0;
	foreach (1 .. 600)
	{
		$n = $ctl->query($stuck);
		last if $n > 0;
		usleep(50_000);
	}
	return $n;
}
# synchronized scans share a block: one asks, the others wait for its buffer
cmp_ok(until_stuck(), '>=', 1, 'reads are stuck');

# Ends although the readers never do.
sub ends
{
	my ($sql) = @_;
	$ctl->send($sql);
	my $ready = 0;
	foreach (1 .. 600)
	{
		last if $ready = $ctl->ready;
		usleep(100_000);
	}
	ok($ready, "ends while reads are stuck: $sql") or do { kill 'CONT', @frozen; $ctl->wait; return };
	$ctl->wait;
	is($ctl->{last_error}, '', "and without an error: $sql");
	return;
}
ends('DROP DATABASE dropped');
cmp_ok(until_stuck(), '>=', 1, 'reads are stuck as before');
ends('ALTER DATABASE moved SET TABLESPACE ts');
cmp_ok(until_stuck(), '>=', 1, 'and still');

# A statement that is itself stuck in the move can be cancelled, and the readers too.
$ctl->query('SELECT pg_cancel_backend(' . $readers[0]->pid . ')');
$readers[0]->wait;
like($readers[0]{last_error}, qr/canceling statement due to user request/, 'a reader that absorbed barriers can be cancelled');

kill 'CONT', @frozen;
is($readers[$_]->wait, '40000|800020000', "reader $_ goes on with the right rows") foreach 1, 2;
is($readers[3]->wait, '39900', 'the index scan, too');
is($readers[0]->query('SELECT count(*), sum(id) FROM t'), '40000|800020000', 'and the cancelled one');
is($c->sql(q{SELECT count(*) FROM pg_class WHERE relname = 'pg_class'}, db => 'moved'), 1, 'the moved database works');
is($c->sql(q{SELECT count(*) FROM pg_database WHERE datname = 'dropped'}), 0, 'the dropped one is gone');
is($c->sql('SELECT count(*) FROM neon_comm.slots WHERE pid <> pg_backend_pid()'), 0, 'no slot is left');
$c->check_logs;
done_testing();
