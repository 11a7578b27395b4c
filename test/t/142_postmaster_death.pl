# The postmaster is killed alone: every process of the compute leaves by itself,
# whatever it waits for, and the next start finds everything (docs/faults.md, row 23).
use strict;
use warnings;

use Test::More;
use Time::HiRes qw(usleep);
use NeonComm::Cluster;

# No other end of a wait comes first.
my $c = NeonComm::Cluster->new(buffers => '8MB', conf => [ 'neon_comm.silence_timeout=1h', 'neon_comm.request_timeout=1h',
	'neon_comm.wait_log_period=1s' ]);
my ($rc, undef, $err) = $c->pgbench('-i', '-q', '-s', 2);
is($rc, 0, 'tables') or diag($err);
my $agree = q{SELECT (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT coalesce(sum(delta), 0) FROM pgbench_history)};
my @frozen;
END { local $?; kill 'CONT', @frozen if @frozen }

sub freeze_page_servers
{
	@frozen = map { ($c->postmaster_pid($_), $c->pids_of($_, qr/./)) } 'page_server_0', 'page_server_1';
	kill 'STOP', @frozen;
	return;
}

# Kills the postmaster; true when all of its children have left.
sub behead
{
	my ($what) = @_;
	my $pm = $c->postmaster_pid('compute');
	my @children = $c->pids_of('compute', qr/./);
	my @left = @children;

	cmp_ok(scalar(@children), '>', 4, "$what: processes of the compute");
	kill 'KILL', $pm;
	foreach (1 .. 600)
	{
		# a zombie has left: whoever started it here does not reap
		@left = map { /^\s*(\d+)\s+[^Z]/ ? $1 : () } split /\n/, `ps -o pid=,stat= -p @{[ join ',', @left ]}`;
		last if !@left;
		usleep(100_000);
	}
	is(scalar(@left), 0, "$what: all of them leave") or diag(`ps -o pid,stat,args -p @{[ join ',', @left ]}`);
	kill 'KILL', @left;
	return;
}

# ---- under load
my $text = '';
my $h = $c->background(\$text, 'pgbench', '-n', '-c', 6, '-j', 1, '-T', 600, $c->conninfo . ' dbname=postgres');
ok($c->wait_for('SELECT count(*) > 200 FROM pgbench_history'), 'load');
behead('under load');
eval { $h->finish };
$c->start('compute');
is($c->sql($agree), 't', 'under load: sums agree');

# ---- while reads are stuck, some with interrupts held, and a drop waits for locks
my @stuck = map { $c->session } 1 .. 6;
$_->query('SET statement_timeout = 0') foreach @stuck;    # nothing else ends their wait
$_->query('SELECT count(*) FROM pgbench_accounts WHERE ctid = $$(0,1)$$; SELECT abalance FROM pgbench_accounts WHERE aid = 1')
  foreach @stuck;
$stuck[5]->query('UPDATE pgbench_accounts SET abalance = abalance WHERE aid = 1');
freeze_page_servers();
# page servers that are slow under load may have been waited for as well
my $from = length $c->log_text('compute');
$stuck[$_]->send('SELECT sum(abalance) FROM pgbench_accounts') foreach 0 .. 2;
$stuck[$_]->send("SELECT abalance FROM pgbench_accounts WHERE aid > 100000 * $_ - 90000 ORDER BY aid LIMIT 20000") foreach 3 .. 4;
$stuck[5]->send('UPDATE pgbench_accounts SET abalance = abalance');
ok($c->wait_log('compute', qr/still waiting for page servers/, $from), 'reads are stuck');
behead('reads stuck');
kill 'CONT', @frozen;
undef @stuck;
$c->start('compute');
is($c->sql($agree), 't', 'reads stuck: sums agree');

# ---- in recovery, which waits for page servers
$c->sql('CHECKPOINT; UPDATE pgbench_accounts SET abalance = abalance WHERE aid % 7 = 0');
$c->evict;
$c->kill9('compute');
freeze_page_servers();
my $out = '';
$from = length $c->log_text('compute');
my $start = $c->background(\$out, 'neon_dev', 'start', '-D', $c->{dir}, '--quiet', 'compute', '-t', 120);
ok($c->wait_log('compute', qr/still waiting for page servers/, $from), 'recovery waits for page servers');
behead('recovery');
eval { $start->finish };
kill 'CONT', @frozen;
$c->start('compute');
is($c->sql($agree), 't', 'recovery: sums agree');
ok($c->wait_for(q{SELECT bool_and(state = 'streaming') FROM neon_comm.page_servers}), 'page servers stream');
$c->check_logs;
done_testing();
