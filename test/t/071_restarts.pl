# Page servers killed and restarted under load, the communicator terminated and
# restarted under load, and each way to shut down under load with temporary
# tables open: no transaction fails that the restart itself does not end.
use strict;
use warnings;

use Test::More;
use NeonComm::Cluster;

my $c = NeonComm::Cluster->new;

my ($rc, $out, $err) = $c->pgbench('-i', '-q', '-s', 4);
is($rc, 0, 'pgbench tables') or diag($err);

sub under_load
{
	my ($what, $do, @args) = @_;
	my $text = '';
	my $before = $c->sql('SELECT count(*) FROM pgbench_history');
	my $h = $c->background(\$text, 'pgbench', '-n', '-c', 8, '-j', 1, '-t', 1200,
		$c->conninfo . ' dbname=postgres');
	$c->wait_for("SELECT count(*) > $before + 200 FROM pgbench_history");
	$do->();
	ok($h->finish, "$what: no transaction failed") or diag($text);
	is( $c->sql('SELECT (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(delta) FROM pgbench_history)
			AND (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(bbalance) FROM pgbench_branches)'),
		't', "$what: sums agree");
	return;
}

foreach my $n (0, 1)
{
	under_load("kill -9 of page server $n",
		sub { $c->kill9('page-server', $n); $c->start('page-server', $n); });
}
under_load('fast restart of both page servers',
	sub { $c->restart('page-server', 0); $c->restart('page-server', 1); });

my $pid = $c->sql('SELECT communicator_pid FROM neon_comm.status()');
under_load('SIGTERM of the communicator', sub { is(kill('TERM', $pid), 1, 'it is told to end') });

my $epoch = $c->sql('SELECT epoch FROM neon_comm.status()');
under_load(
	'restarts of the communicator',
	sub {
		foreach (1 .. 5)
		{
			my $e = $c->sql('SELECT epoch FROM neon_comm.status()');
			$c->sql('SELECT neon_comm.restart_communicator()');
			$c->wait_for("SELECT epoch > $e FROM neon_comm.status()");
		}
	});
cmp_ok($c->sql('SELECT epoch FROM neon_comm.status()'), '>=', $epoch + 5, 'it did restart');

# A transaction with 100 subtransactions is open while a page server restarts.
my $s = $c->session;
$s->query('CREATE TABLE subs (x int); BEGIN;');
$s->query("SAVEPOINT s$_; INSERT INTO subs VALUES ($_);") foreach 1 .. 100;
$c->evict;
$c->restart('page-server', 0);
$c->restart('page-server', 1);
is($c->sql('SELECT count(*) FROM pgbench_branches'), 4, 'a restarted page server serves at once');
is($s->query('SELECT count(*) FROM subs; COMMIT;'), 100, 'and the open transaction goes on');
$s->close;

foreach my $mode ('smart', 'fast', 'immediate')
{
	my $text = '';
	my @sessions = map { $c->session } 1 .. 5;
	$_->query('CREATE TEMP TABLE tmp AS SELECT g, repeat($$t$$, 100) f FROM generate_series(1, 5000) g; CREATE INDEX ON tmp (g)')
	  foreach @sessions;
	my $before = $c->sql('SELECT count(*) FROM pgbench_history');
	my $h = $c->background(\$text, 'pgbench', '-n', '-c', 6, '-j', 1, '-T', $mode eq 'smart' ? 5 : 600,
		$c->conninfo . ' dbname=postgres');
	$c->wait_for("SELECT count(*) > $before + 100 FROM pgbench_history");
	if ($mode eq 'smart')
	{
		# smart waits for clients: they leave while it waits
		my $stop = $c->background(\my $stop_out, 'neon_dev', 'stop', '-D', $c->{dir}, 'compute', '--mode', 'smart');
		$h->finish;
		$_->close foreach @sessions;
		ok($stop->finish, 'smart shutdown ends when its clients have left') or diag($stop_out);
	}
	else
	{
		my ($ok, $stop_out) = $c->try_dev('stop', '-D', $c->{dir}, 'compute', '--mode', $mode, '-t', 300);
		ok($ok, "$mode shutdown under load ends") or diag($stop_out);
		eval { $h->finish };
	}
	undef @sessions;
	$c->start('compute');
	is( $c->sql('SELECT (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(delta) FROM pgbench_history)'),
		't', "sums agree after $mode");
}
$c->check_logs;
done_testing();
