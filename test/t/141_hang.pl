# Communicator and WAL feed that hang (SIGSTOP): whoever waits for them can be
# cancelled and terminated, timeouts work, views answer, writers go on; after
# SIGCONT all of it goes on where it stood.  An immediate shutdown ends while
# they hang, a fast one as soon as they go on.  (docs/faults.md, rows 21 and 22;
# 200_contract.pl, 3 and 9.)
use strict;
use warnings;

use Test::More;
use Time::HiRes qw(usleep);
use NeonComm::Cluster;

# Catalog pages stay in buffers, the table does not fit: what waits is the table.
my $c = NeonComm::Cluster->new(buffers => '16MB', conf => ['neon_comm.silence_timeout=1h']);
my %frozen;

$c->sql(q{CREATE TABLE t AS SELECT g AS id, repeat('x', 400) AS f FROM generate_series(1, 20000) g;
	CREATE TABLE fresh (id int, f text); CREATE TABLE small (x int); INSERT INTO small VALUES (1);
	CREATE TABLE other AS SELECT g AS id, repeat('o', 900) AS f FROM generate_series(1, 40000) g});
cmp_ok($c->sql(q{SELECT pg_relation_size('t')}), '>', 8 * 1024 * 1024, 'the table is large');
$c->restart('compute');

sub freeze
{
	foreach my $title (@_)
	{
		my ($pid) = $c->pids_of('compute', qr/neon_comm $title/);
		$frozen{$pid} = kill 'STOP', $pid;
	}
	return;
}
sub thaw { kill 'CONT', keys %frozen; %frozen = (); return }
END { local $?; thaw() }

my $s = $c->session;
my $watch = $c->session;
my $pid = $s->pid;
my $warm = q{SELECT count(*), sum(id), count(*) FILTER (WHERE f = '') FROM t WHERE ctid = '(0,1)'};
my $slots = "SELECT count(*) FROM neon_comm.slots WHERE pid = $pid";
my @views = ($slots, 'SELECT heartbeat_age > $$2s$$ FROM neon_comm.status()', "$slots AND state = 'submitted'",
	'SELECT count(*) > 0 FROM neon_comm.counters', 'SELECT count(*) FROM neon_comm.connections',
	q{SELECT string_agg(state, ',') FROM neon_comm.page_servers}, 'SELECT pg_cancel_backend(0)',
	'SELECT count(*) >= 0 FROM neon_comm.local_blocks()', 'UPDATE small SET x = x + 1');

sub warm
{
	$s->query($warm);
	$s->query(q{SELECT count(*), sum(id) FROM fresh; INSERT INTO fresh VALUES (0, 'warm'); DELETE FROM fresh});
	$watch->query($_) foreach @views, $slots =~ s/count\(\*\)/count(*) > 0/r;
	return;
}

sub until_is
{
	my ($want, $sql, $what) = @_;
	my $got;
	foreach (1 .. 1200)
	{
		$got = $watch->query($sql);
		last if $got eq $want;
		usleep(50_000);
	}
	is($got, $want, $what);
	return;
}

# Each way to end a wait for a page that nobody delivers.
sub ways_out
{
	my ($what, $read) = @_;

	$s->send($read);
	until_is('t', $slots =~ s/count\(\*\)/count(*) > 0/r, "$what: the wait is in the view");
	$watch->query("SELECT pg_cancel_backend($pid)");
	$s->wait;
	like($s->{last_error}, qr/canceling statement due to user request/, "$what: cancel ends it");
	is($watch->query($slots), 0, "$what: no slot is left");
	my (undef, $err) = $s->try("SET statement_timeout = '300ms'; $read");
	like($err, qr/statement timeout/, "$what: statement_timeout ends it");
	(undef, $err) = $s->try("RESET statement_timeout; SET neon_comm.request_timeout = '1s'; $read");
	like($err, qr/no answer from page servers/, "$what: the deadline ends it");
	$s->query('RESET neon_comm.request_timeout');
	is($watch->query($_) ne '', 1, "$what: answers: $_") foreach @views[ 3, 4, 5, 7 ];
	return;
}

# ---- the communicator hangs
warm();
freeze('communicator');
ways_out('communicator', 'SELECT sum(id) FROM t');
$watch->query('UPDATE small SET x = x + 1');
$s->send('SELECT sum(id) FROM t');
until_is('t', "$slots AND state = 'submitted'" =~ s/count\(\*\)/count(*) > 0/r, 'communicator: nobody takes the request');
until_is('t', $views[1], 'communicator: its heartbeat shows it');
thaw();
is($s->wait, '200010000', 'communicator: goes on and answers');

# terminate, with the same
$c->restart('compute');
$s = $c->session;
$watch = $c->session;
$pid = $s->pid;
$slots = "SELECT count(*) FROM neon_comm.slots WHERE pid = $pid";
$watch->query($slots);
$watch->query('SELECT pg_terminate_backend(0)');
warm();
freeze('communicator');
$s->send('SELECT sum(id) FROM t');
until_is('t', $slots =~ s/count\(\*\)/count(*) > 0/r, 'communicator: another wait');
$watch->query("SELECT pg_terminate_backend($pid)");
$s->wait;
like($s->{last_error}, qr/terminating connection due to administrator command/, 'communicator: terminate ends it');
until_is(0, $slots, 'communicator: no slot is left');
thaw();
is($c->sql('SELECT count(*), sum(id) FROM t'), '20000|200010000', 'communicator: rows');

# ---- the feed hangs: page servers get no WAL, so that fresh pages cannot be had
$s = $c->session;
$pid = $s->pid;
$slots = "SELECT count(*) FROM neon_comm.slots WHERE pid = $pid";
$watch->query($slots);
warm();
until_is('streaming,streaming', $views[5], 'feed: page servers stream');
freeze('WAL feed');
$s->query(q{INSERT INTO fresh SELECT g, repeat('f', 900) FROM generate_series(1, 40000) g});
pass('feed: writers commit');
ways_out('feed', 'SELECT count(*), sum(id) FROM fresh');
$s->send('SELECT count(*), sum(id) FROM fresh');
until_is('t', $slots =~ s/count\(\*\)/count(*) > 0/r, 'feed: a reader waits for WAL to arrive');
thaw();
is($s->wait, '40000|800020000', 'feed: goes on and the reader gets fresh pages');

# ---- told to end while others are there: the feed stays for them, the communicator comes back
my @feed = $c->pids_of('compute', qr/neon_comm WAL feed/);
kill 'TERM', $c->pids_of('compute', qr/neon_comm (communicator|WAL feed)/);
$s->query(q{UPDATE fresh SET id = id + 1 WHERE id % 100 = 0; SELECT count(*), sum(id) FROM t});
is($s->query('SELECT count(*), sum(id) FROM fresh'), '40000|800020400', 'told to end: fresh pages are read');
is(join(',', $c->pids_of('compute', qr/neon_comm WAL feed/)), join(',', @feed),
	'told to end: the feed stays for those who need it');
is($watch->query('SELECT communicator_pid > 0 FROM neon_comm.status()'), 't', 'told to end: a communicator runs');

# ---- shutdown
$s->query($warm);
freeze('communicator', 'WAL feed');
my ($ok, $out) = $c->try_dev('stop', '-D', $c->{dir}, 'compute', '--mode', 'immediate', '-t', 300);
ok($ok, 'immediate shutdown ends while communicator and feed hang') or diag($out);
%frozen = ();
$c->start('compute');
is($c->sql('SELECT count(*), sum(id) FROM fresh'), '40000|800020400', 'nothing is lost');

$s = $c->session;
$s->query($warm);
freeze('communicator', 'WAL feed');
my $from = length $c->log_text('compute');
my $stop = $c->background(\$out, 'neon_dev', 'stop', '-D', $c->{dir}, 'compute', '--mode', 'fast', '-t', 300);
ok($c->wait_log('compute', qr/received fast shutdown request/, $from), 'a fast shutdown begins while they hang');
thaw();
ok($stop->finish, 'fast shutdown ends when they go on') or diag($out);
$c->start('compute');
is($c->sql('SELECT count(*), sum(id) FROM t'), '20000|200010000', 'rows at the end');
is($c->counter('found_late'), 0, 'no doorbell was lost');
$c->check_logs;
done_testing();
