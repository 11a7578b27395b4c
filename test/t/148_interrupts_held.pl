# A process that waits for a page while it holds an LWLock, here the lock of an
# inner page of an SP-GiST index, heeds neither cancel nor terminate, as with any
# read from a disk: neon_comm.request_timeout ends its wait, and a barrier that
# waited for it goes on.  (Issue's item 4: a deadline ends the wait; failure mode 16.)
use strict;
use warnings;

use Test::More;
use Time::HiRes qw(usleep);
use NeonComm::Cluster;

my $c = NeonComm::Cluster->new(buffers => '16MB', conf => [ 'neon_comm.silence_timeout=1h', 'neon_comm.request_timeout=1h' ]);
my @frozen;
END { local $?; kill 'CONT', @frozen if @frozen }

$c->sql(q{CREATE TABLE p (x point); ALTER TABLE p SET (autovacuum_enabled = off);
	INSERT INTO p SELECT point(random() * 1000, random() * 1000) FROM generate_series(1, 120000);
	CREATE INDEX ON p USING spgist (x); CREATE DATABASE dropped; CREATE DATABASE warm;});
cmp_ok($c->sql(q{SELECT pg_relation_size('p_x_idx')}), '>', 4 * 1024 * 1024, 'the index is large');
$c->restart('compute');

my $ctl = $c->session;
my $s = $c->session;
my $pid = $s->pid;
my $slots = "SELECT count(*) FROM neon_comm.slots WHERE pid = $pid";
$ctl->query('DROP DATABASE warm');
$ctl->query($_) foreach $slots, 'SELECT pg_cancel_backend(0)', 'SELECT pg_terminate_backend(0)',
  "SELECT state = 'active' FROM pg_stat_activity WHERE pid = $pid";
# the way from the root down to some leaves is in buffers, most leaves are not
$s->query(q{INSERT INTO p VALUES (point(500, 500)); INSERT INTO p VALUES (point(random() * 1000, random() * 1000))});
$s->query(q{SET neon_comm.request_timeout = '1h'; SET enable_seqscan = off; SELECT count(*) FROM p WHERE x <@ box '((499,499),(501,501))'});
my $dropper = $c->session;
$ctl->query("SELECT relfilenode, block, state FROM neon_comm.slots WHERE pid = $pid");
note($ctl->query("SELECT pg_relation_filenode('p_x_idx'), pg_relation_filenode('p')"));

@frozen = map { ($c->postmaster_pid($_), $c->pids_of($_, qr/./)) } 'page_server_0', 'page_server_1';
kill 'STOP', @frozen;

# Points near and nearer to what is cached, until an insert waits for a page.
my ($deadlined, $cancelled, $dropping) = (0, 0, 0);
foreach my $try (1 .. 12)
{
	$s->send("SET neon_comm.request_timeout = '4s'; INSERT INTO p VALUES (point(random() * 1000, random() * 1000))");
	my $waits = 0;
	foreach (1 .. 600)
	{
		last if $s->ready;
		last if $waits = $ctl->query($slots);
		usleep(10_000);
	}
	if (!$waits) { $s->wait; next }
	note($ctl->query("SELECT relfilenode, block, state FROM neon_comm.slots WHERE pid = $pid"));
	$ctl->query("SELECT pg_cancel_backend($pid)");
	if (!$dropping++)
	{
		$dropper->send('DROP DATABASE dropped');
	}
	$s->wait;
	note($s->{last_error});
	$deadlined++ if $s->{last_error} =~ /no answer from page servers/;
	$cancelled++ if $s->{last_error} =~ /canceling statement/;
	is($ctl->query($slots), 0, "try $try: no slot is left") or last;
	last if $deadlined >= 2;
}
note("$deadlined ended by the deadline, $cancelled by the cancel");
cmp_ok($deadlined + $cancelled, '>', 0, 'inserts waited for pages and came to an end');
cmp_ok($deadlined, '>', 0, 'the deadline ends a wait that a cancel does not reach');
$dropper->wait;
is($dropper->{last_error}, '', 'and DROP DATABASE, whose barrier such a process delays, ends, too');
kill 'CONT', @frozen;
@frozen = ();
$s->query("RESET neon_comm.request_timeout; INSERT INTO p VALUES (point(1, 1))");
is($c->sql(q{SELECT count(*) >= 120002 FROM p}), 't', 'rows');
is( $c->sql(q{SET enable_seqscan = off; SELECT count(*) FROM p WHERE x <@ box '((0,0),(1000,1000))'}),
	$c->sql(q{SET enable_indexscan = off; SET enable_indexonlyscan = off; SET enable_bitmapscan = off; SELECT count(*) FROM p}),
	'the index agrees with the table');
$c->check_logs;
done_testing();
