# neon_dev export: an ordinary PostgreSQL of what the cluster has, from a running, a stopped, a killed and a lost
# compute. What it holds is compared table by table, and by a dump; it runs where neither of our libraries can be found.
# Page server 1, of which it is made then, lacks WAL that only the compute's directory has.
use strict;
use warnings;

use File::Temp qw(tempdir);
use IPC::Run ();
use Test::More;
use NeonComm::Cluster;
use NeonComm::Ordinary;

my $c = NeonComm::Cluster->new(
	shards => 2,
	checksums => 1,
	init => [ split ' ', $ENV{NEON_TEST_INIT} // '--auth --tls' ],
	conf => [ 'max_prepared_transactions=5', 'max_connections=130', 'work_mem=7MB', 'archive_timeout=1h', 'neon_comm.lfc_size=2MB' ]);
my $top = $c->{dir} =~ s{/[^/]*$}{}r;
my $to = "$top/ordinary";

fill_cluster($c);
my %before = contents_of($c->conninfo);

sub export_ok
{
	my ($when, @args) = @_;
	my ($ok, $out) = $c->try_dev('export', '-D', $c->{dir}, '--to', $to, @args);
	ok($ok, "export $when") or diag($out);
	ok(!-e "$to.neon_export", 'nothing is left beside it');
	return $out;
}

sub is_ordinary
{
	my ($when) = @_;
	my $server = NeonComm::Ordinary->start($to);
	my %after = contents_of($server->conninfo);
	is_deeply(\%after, \%before, "$when: the contents are those of the cluster");
	is($server->sql(q{SELECT count(*) FROM pg_extension WHERE extname = 'neon_comm'}), 0, 'without our extension');
	is($server->sql('SHOW work_mem'), '7MB', 'with a setting of the compute');
	is($server->sql('SHOW archive_timeout'), '0', 'and none that reaches out');
	is($server->sql(q{SELECT count(*) FROM pg_replication_slots}), 0, 'no slots');
	is($server->sql(q{SELECT gid FROM pg_prepared_xacts}), 'in doubt', 'the prepared transaction is there');
	$server->sql(q{COMMIT PREPARED 'in doubt'});
	is($server->sql(q{SELECT count(*) FROM accounts WHERE id = -1}), 1, 'and can be committed');
	is($server->sql('SELECT count(*) FROM nothing_logged'), 0, 'unlogged tables are empty');
	$server->sql('INSERT INTO nothing_logged VALUES (1); CREATE EXTENSION IF NOT EXISTS amcheck');
	is($server->sql(q{SELECT count(bt_index_check(indexrelid, true)) > 100 FROM pg_index JOIN pg_class c ON c.oid = indexrelid
		WHERE c.relam = 403 AND c.relpersistence = 'p'}), 't', 'btrees are whole');
	$server->stop;
	my @ours = grep { !/\.conf$/ } split /\n/, `cd '$to' && find . -name '*neon*' -o -name 'page_service*' -o -name 'compute_*' -o -name '*.signal'`;
	is("@ours", '', 'no file of ours is in it');
	unlike($server->text_of('postgresql.conf') . $server->text_of('postgresql.auto.conf'), qr/neon/, 'nor in its settings');
	system('rm', '-rf', $to) == 0 or die;
	return;
}

# ---- refused

foreach my $case (
	[ 'no target', qr/--to PGDATA is missing/ ],
	[ 'inside of the cluster', qr/may not be inside/, '--to', "$c->{dir}/x" ],
	[ 'around it', qr/may not be inside/, '--to', $top ],
	[ 'no such page server', qr/there is no page server 7/, '--to', $to, '--from', 'page-server', 7 ])
{
	my ($what, $reason, @args) = @$case;
	my ($ok, $out) = $c->try_dev('export', '-D', $c->{dir}, @args);
	ok(!$ok, "refused: $what");
	like($out, $reason, 'and why');
}
mkdir $to or die $!;
open my $fh, '>', "$to/mine" or die $!;
close $fh;
my ($ok, $out) = $c->try_dev('export', '-D', $c->{dir}, '--to', $to);
ok(!$ok && $out =~ /is not empty/, 'refused: a directory that is not empty');
ok(-e "$to/mine", 'which is left as it is');
unlink "$to/mine";

# ---- the compute runs

# A transaction that is open is not there, what was committed at the last moment is.
my $s = $c->session;
$s->query('BEGIN; INSERT INTO accounts SELECT g, 0 FROM generate_series(-5000, -4000) g');
export_ok('of a cluster that runs');
is($c->sql('SELECT count(*) FROM accounts'), 3000, 'which goes on');
unlike(`cat $c->{dir}/page_server_*/postmaster.opts`, qr/hot_standby/, 'its page servers as they were');
$s->query('ROLLBACK');
$s->close;
is_ordinary('of a cluster that runs');

# ---- stopped, killed, lost

$c->stop;
export_ok('of a stopped cluster');
is_ordinary('of a stopped cluster');
$c->start;
# what it writes is left on the compute alone: page server 1 is away, and reads of its shard would wait
my $warm = $c->session;
$warm->query('SET synchronous_commit = on; SELECT count(*), sum(balance) FROM accounts; UPDATE accounts SET balance = balance + 1 WHERE id = 1;
	SELECT balance FROM accounts WHERE id = 1');
$c->kill9('page-server', 1);
$warm->query('UPDATE accounts SET balance = balance + 1 WHERE id = 1');
$before{balance} = $warm->query('SELECT balance FROM accounts WHERE id = 1');
$warm->close;
$c->kill9('compute');
export_ok('of a killed compute', '--from', 'page-server', 1);
{
	my $server = NeonComm::Ordinary->start($to);
	is($server->sql('SELECT balance FROM accounts WHERE id = 1'), delete $before{balance}, 'what only the compute had is there');
	$server->stop;
	system('rm', '-rf', $to) == 0 or die;
}
$c->start;
is($c->sql('SELECT count(*) FROM accounts'), 3000, 'the cluster goes on');
%before = contents_of($c->conninfo);
$c->stop;
rename "$c->{dir}/compute", "$top/lost" or die $!;
export_ok('of a lost compute');
is_ordinary('of a lost compute');

$c->check_logs;
done_testing();
