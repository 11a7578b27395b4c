# One process of the compute is killed and the postmaster starts over in place:
# shared memory is made anew, the doorbells are not, everybody leaves when told,
# and recovery asks for its workers, which the postmaster would otherwise not start
# before recovery ends.
use strict;
use warnings;

use Test::More;
use Time::HiRes qw(usleep);
use NeonComm::Cluster;

my $c = NeonComm::Cluster->new(conf => ['restart_after_crash=on']);
my ($rc, $out, $err) = $c->pgbench('-i', '-q', '-s', 2);
is($rc, 0, 'tables') or diag($err);

# Waits for it: it may be about to start, or have no title yet.
sub pid_of
{
	my ($what) = @_;
	foreach (1 .. 1200)
	{
		my ($pid) = $c->pids_of('compute', qr/\Q$what\E/);
		return $pid if defined $pid;
		usleep(100_000);
	}
	die "no $what";
}

# The numbers of the eventfds that a process has (none on a kernel that does not tell).
sub doorbells
{
	my ($pid) = @_;
	my %id;
	foreach my $file (glob "/proc/$pid/fdinfo/*")
	{
		open my $fh, '<', $file or next;
		/^eventfd-id:\s*(\d+)/ and $id{$1} = 1 while <$fh>;
	}
	return join ',', sort { $a <=> $b } keys %id;
}

my $doorbells = doorbells($c->postmaster_pid('compute'));
my $agree = 'SELECT (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT coalesce(sum(delta), 0) FROM pgbench_history)';
foreach my $victim ('client', 'neon_comm communicator', 'neon_comm WAL feed', 'neon_comm sweeper',
	'checkpointer', 'client')
{
	my $text = '';
	my $before = $c->sql('SELECT count(*) FROM pgbench_history');
	my $h = $c->background(\$text, 'pgbench', '-n', '-c', 4, '-T', 600, $c->conninfo . ' dbname=postgres');
	$c->wait_for("SELECT count(*) > $before + 100 FROM pgbench_history");
	my $pid = $victim eq 'client' ? $c->sql(q{SELECT pid FROM pg_stat_activity WHERE application_name = 'pgbench' LIMIT 1})
	  : pid_of($victim);
	ok($pid, "$victim found");
	my $start = $c->sql('SELECT pg_postmaster_start_time()');
	my $from = length $c->log_text('compute');
	kill 'KILL', $pid;
	eval { $h->finish };
	ok($c->wait_for('SELECT true'), "$victim killed: the server is back");
	is($c->sql('SELECT pg_postmaster_start_time()'), $start, 'under the same postmaster');
	is($c->sql($agree), 't', 'sums agree');
	is($c->sql('SELECT communicator_pid > 0 FROM neon_comm.status()'), 't', 'the communicator runs');
	unlike(substr($c->log_text('compute'), $from), qr/recalcitrant/, 'everybody had left when he was told to');
	is(doorbells($_), $doorbells, 'with the doorbells of the first start')
	  foreach $c->postmaster_pid('compute'), pid_of('neon_comm communicator');
	ok($c->wait_for(q{SELECT bool_and(state = 'streaming') FROM neon_comm.page_servers}), 'page servers stream again');
}
# each of them also ends and starts by itself
foreach my $worker ('neon_comm communicator', 'neon_comm sweeper')
{
	my $pid = pid_of($worker);
	kill 'TERM', $pid;
	is($c->sql($agree), 't', "$worker told to end: answers go on");
}
$c->allow_log(qr/was terminated by signal 9/);
$c->check_logs;
done_testing();
