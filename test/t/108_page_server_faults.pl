# The page service's own fault rules, in a test build: servers that are not ready,
# not ours, that sleep, and one that answers before it has the WAL: what it gives
# then is refused when it is older than what was written here, never used.
use strict;
use warnings;

use Test::More;
use NeonComm::TestPoint;
use NeonComm::Cluster;

my $c = NeonComm::Cluster->new(shards => 2, conf => [ 'max_parallel_workers_per_gather=0' ],
	ps_conf => [ 'wal_retrieve_retry_interval=200ms' ]);

$c->sql(q{CREATE TABLE self (id int, v int, f text) WITH (fillfactor = 10);
	INSERT INTO self SELECT g, 0, lpad(g::text, 700, '0') FROM generate_series(0, 999) g;});
cmp_ok($c->sql(q{SELECT pg_relation_size('self')}), '>', 6 * 1024 * 1024, 'larger than shared buffers');
my $look = q{SELECT count(*), sum(v), count(*) FILTER (WHERE f <> lpad(id::text, 700, '0')) FROM self};

# Rules that are in force in every worker of both servers.
sub faults
{
	my ($rules) = @_;
	foreach my $part ('page_server_0', 'page_server_1')
	{
		my $log = length $c->log_text($part);
		my @workers = $c->pids_of($part, qr/neon page service \d/);
		is(scalar(@workers), 2, "$part: workers");
		$c->configure({ 'neon_page_service.fault_rules' => $rules }, part => $part);
		ok($c->wait_log($part, qr/\[$_\] .*fault rules of this process: "\Q$rules\E"/, $log), "$part: a worker has the rules \"$rules\"") foreach @workers;
	}
	return;
}

foreach my $rule ('not_ready every=40 count=5', 'wrong_shard every=40 count=5', 'sleep=200 every=100 count=3')
{
	my $errors = $c->counter('page_server_errors');
	faults($rule);
	is($c->sql($look), '1000|0|0', "$rule: rows are right");
	cmp_ok($c->counter('page_server_errors'), '>', $errors, "$rule: it was said") unless $rule =~ /sleep/;
}
my $lost = $c->counter('disconnects');
faults('reconnect every=60 count=3');
is($c->sql($look), '1000|0|0', 'reconnect: rows are right');
cmp_ok($c->counter('disconnects'), '>', $lost, 'reconnect: connections ended');

# Without its wait for WAL a server gives pages that are too old. WAL is held back by freezing
# the walreceivers, so that they are old for certain.
faults('');
my @receivers = map { chomp; $_ } map { my $pm = $c->postmaster_pid("page_server_$_"); `pgrep -P $pm -f walreceiver` } 0, 1;
is(scalar(@receivers), 2, 'two WAL receivers');
my $s = $c->session;
$s->query($look);
kill 'STOP', @receivers;
END { local $?; kill 'CONT', @receivers if @receivers }
faults('impatient');
$s->query('UPDATE self SET v = v + 1');
my ($out, $err) = $s->try($look);
like($err, qr/old version of block \d+ of relation/, 'an old page is refused') or diag($out);
kill 'CONT', @receivers;
faults('');
is($s->query($look), '1000|1000|0', 'the newest rows afterwards');
cmp_ok($c->counter('stale_answers'), '>=', 1, 'the refusal was counted');
$s->close;
$c->allow_log(qr/old version of block/);
$c->check_logs;
done_testing();
