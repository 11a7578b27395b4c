# A shard has two hosts: page servers are killed, frozen and held back in their replay, one after
# the other, under load. No error reaches a client, and what is read is right
# (docs/communicator.md, "Several hosts for a shard").
#
# A request that nobody asks for elsewhere would end with an error: silent connections are not given
# up in the time of this test, requests are.
use strict;
use warnings;

use Test::More;
use Time::HiRes qw(usleep);
use NeonComm::Cluster;

my $c = NeonComm::Cluster->new(shards => 2, init => [ '--page-servers', 2, '--hosts', 2, @ARGV ],
	conf => [ 'neon_comm.silence_timeout=30min', 'neon_comm.request_timeout=60s', 'neon_comm.connect_timeout=30s' ]);
my %stopped;
sub thaw { kill 'CONT', keys %stopped; %stopped = (); return }
END { local $?; thaw() if $c && -d $c->{dir} }

is($c->sql('SHOW neon_comm.page_servers') =~ tr/,//, 5, 'each shard has two hosts with two ports');
$c->sql('CREATE TABLE rows (id int PRIMARY KEY, says text);
	INSERT INTO rows SELECT g, md5(g::text) FROM generate_series(1, 40000) g');
cmp_ok($c->sql("SELECT pg_relation_size('rows')"), '>', 2 * 1024 * 1024, 'the table is larger than shared buffers');
is(($c->pgbench('-i', '-s', '2', '-q'))[0], 0, 'pgbench has its tables');

# the load: ends with an error if any statement of it does
my $seconds = 100_000;
my $said = '';
my $load = $c->background(\$said, 'pgbench', '-n', '-c', '4', '-T', $seconds, $c->conninfo . ' dbname=postgres');

# Everything that is used while page servers are away has been read before.
my $reader = $c->session;
my $watch = $c->session;
sub reads
{
	my ($what) = @_;
	foreach my $round (1 .. 2)
	{
		my $out = $reader->query(q{SELECT count(*), count(*) FILTER (WHERE says <> md5(id::text)) FROM rows});
		is($out, '40000|0', "$what: all rows are there and right");
	}
	my $before = $watch->query(q{SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()});
	ok($watch->wait_for("SELECT xact_commit > $before + 50 FROM pg_stat_database WHERE datname = current_database()"),
		"$what: the load goes on");
	return;
}

sub back
{
	ok($watch->wait_for(q{SELECT count(*) = 2 FROM neon_comm.page_servers WHERE state = 'streaming' AND lag_bytes < 1000000}), 'both follow');
	return;
}

reads('at first');
foreach my $n (0, 1)
{
	# dead
	$c->kill9('page-server', $n);
	reads("page server $n is dead");
	$c->start('page-server', $n);
	back();

	# frozen: connections stand, and nothing comes
	my @all = ($c->postmaster_pid("page_server_$n"), $c->pids_of("page_server_$n", qr/./));
	$stopped{$_} = 1 foreach @all;
	kill 'STOP', @all;
	reads("page server $n is frozen");
	thaw();
	back();

	# answers what it has, and gets no further
	my @replay = $c->pids_of("page_server_$n", qr/startup/);
	is(scalar(@replay), 1, "page server $n replays");
	$stopped{$replay[0]} = 1;
	kill 'STOP', @replay;
	$watch->query('UPDATE rows SET says = says WHERE id % 100 = 1');
	reads("page server $n is behind");
	thaw();
	back();
}

# ---- who comes back gets reads again
ok($watch->wait_for(q{SELECT count(DISTINCT address) = 2 FROM neon_comm.connections WHERE shard = 0 AND state = 'ready'}),
	'both hosts of a shard are connected');
cmp_ok($c->counter('hedged_reads'), '>', 0, 'requests were asked for elsewhere');

# ---- a process that reads directly
foreach my $n (0, 1)
{
	$c->kill9('page-server', $n);
	is($c->sql(q{SET neon_comm.mode = 'direct'; SELECT count(*), count(*) FILTER (WHERE says <> md5(id::text)) FROM rows}) =~ s/^SET\n//r,
		'40000|0', "direct mode, page server $n is dead: all rows are there");
	$c->start('page-server', $n);
	back();
}

# ---- the load has seen no error
$load->signal('INT');
$load->finish;
my $log = $c->log_text('compute');
unlike($log, qr/ERROR:(?!  canceling statement due to user request)/, 'no statement failed');
is($c->sql(q{SELECT (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT coalesce(sum(delta), 0) FROM pgbench_history)
	AND (SELECT sum(bbalance) FROM pgbench_branches) = (SELECT coalesce(sum(delta), 0) FROM pgbench_history)}), 't', 'sums are exact');

$c->check_logs;
done_testing();
