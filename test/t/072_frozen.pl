# A page server that is frozen (SIGSTOP): cancel and terminate work, statement
# timeouts work, the deadline ends a wait, shutdown works, views answer; and
# nothing is lost when it goes on.
use strict;
use warnings;

use Test::More;
use NeonComm::Cluster;

# Large scans use a small ring of buffers, so catalog pages, once read, stay:
# what waits is then the table and nothing else.
# A line about waiting would heed interrupts, too.
my $c = NeonComm::Cluster->new(buffers => '16MB', conf => ['neon_comm.silence_timeout=1h', 'neon_comm.wait_log_period=1h']);

$c->sql(q{CREATE TABLE t AS SELECT g AS id, repeat('x', 400) AS f FROM generate_series(1, 20000) g;});
cmp_ok($c->sql(q{SELECT pg_relation_size('t')}), '>', 8 * 1024 * 1024, 'the table is large');
$c->restart('compute');
my $warm = q{SELECT count(*), sum(id), count(*) FILTER (WHERE f = '') FROM t WHERE ctid = '(0,1)'};

sub ps_pids
{
	my ($n) = @_;
	my $pm = $c->postmaster_pid("page_server_$n");
	my @pids = ($pm, split(/\s+/, `ps -o pid= --ppid $pm`));
	return grep { /^\d+$/ } @pids;
}
sub freeze { kill 'STOP', ps_pids(0), ps_pids(1); return }
END { local $?; thaw() if $c && -d $c->{dir} }
sub thaw   { kill 'CONT', ps_pids(0), ps_pids(1); return }

# Cancel and terminate while a backend waits.
my $s = $c->session;
my $pid = $s->pid;
$s->query($warm);
my $watch = $c->session;
$watch->query('SELECT count(*) FROM neon_comm.slots');    # its catalog pages are cached
$watch->query("SELECT count(*) FROM neon_comm.slots WHERE pid = $pid AND state IN ('taken', 'submitted')");
$watch->query("EXPLAIN SELECT pg_cancel_backend(1), pg_terminate_backend(1)");
freeze();
$s->send('SELECT sum(id) FROM t');
my $waiting = 0;
foreach (1 .. 600)
{
	($waiting) = $watch->query("SELECT count(*) FROM neon_comm.slots WHERE pid = $pid AND state IN ('taken', 'submitted')");
	last if $waiting;
	select(undef, undef, undef, 0.05);
}
cmp_ok($waiting, '>=', 1, 'the waiting request is in the view');
$watch->query("SELECT pg_cancel_backend($pid)");
$s->wait;
like($s->{last_error}, qr/canceling statement due to user request/, 'cancel ends the wait');
is($watch->query("SELECT count(*) FROM neon_comm.slots WHERE pid = $pid"), 0, 'and its slot is free');

my ($out, $err) = $s->try("SET statement_timeout = '300ms'; SELECT sum(id) FROM t");
like($err, qr/statement timeout/, 'statement_timeout ends the wait');

($out, $err) = $s->try("RESET statement_timeout; SET neon_comm.request_timeout = '1s'; SELECT sum(id) FROM t");
like($err, qr/no answer from page servers for block \d+ of relation/, 'the deadline ends the wait');
like($err, qr/neon_comm\.request_timeout/, 'and names its setting');

$s->send("RESET neon_comm.request_timeout; SELECT sum(id) FROM t");
foreach (1 .. 600)
{
	last if $watch->query("SELECT count(*) FROM neon_comm.slots WHERE pid = $pid") >= 1;
	select(undef, undef, undef, 0.05);
}
$watch->query("SELECT pg_terminate_backend($pid)");
$s->wait;
like($s->{last_error}, qr/terminating connection due to administrator command/, 'terminate ends the wait');
# asked by a process that was there before: a new one would take the place of the one that is gone
is($watch->query("SELECT count(*) FROM neon_comm.slots WHERE pid = $pid"), 0, 'and gives its slot back');

# It goes on where it stood.
thaw();
is($c->sql('SELECT count(*), sum(id) FROM t'), '20000|200010000', 'everything is there afterwards');

# Shutdown while a backend waits.
$c->restart('compute');
my $s3 = $c->session;
$s3->query($warm);
freeze();
$s3->send('SELECT sum(id) FROM t');
my ($ok, $text) = $c->try_dev('stop', '-D', $c->{dir}, 'compute', '--mode', 'fast', '-t', 300);
ok($ok, 'fast shutdown ends while page servers are frozen') or diag($text);
thaw();
undef $s3;
$c->start('compute');
is($c->sql('SELECT count(*), sum(id) FROM t'), '20000|200010000', 'rows after the restart');

# A cancel storm: whatever is cancelled, no later page is wrong.
my @storm = map { $c->session } 1 .. 6;
foreach my $round (1 .. 25)
{
	$_->send("SELECT count(*) FILTER (WHERE f = repeat('x', 400)) FROM t WHERE id > 0") foreach @storm;
	$c->sql(q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE '%FILTER (WHERE f%' AND pid <> pg_backend_pid()});
	$_->wait foreach @storm;
}
is($storm[$_]->query("SELECT count(*), sum(id), count(*) FILTER (WHERE f = repeat('x', 400)) FROM t"),
	'20000|200010000|20000', "session $_ after a storm of cancels") foreach 0 .. $#storm;
$_->close foreach @storm;
is($c->sql('SELECT count(*) FROM neon_comm.slots WHERE pid <> pg_backend_pid()'), 0, 'no slot is left behind');
is($c->counter('found_late'), 0, 'no doorbell was lost');
$c->check_logs;
done_testing();
