# Shard maps change under load: addresses, count and stripe in one reload, shards
# that move to another server, maps that name a server twice. Requests in flight
# are routed again; no query fails, no row is wrong. A map that is no map leaves
# the one before in force.
use strict;
use warnings;

use Test::More;
use NeonComm::Cluster;
use NeonComm::Proxy;

# every page server serves every block: it is the compute's map that counts here
my $c = NeonComm::Cluster->new(shards => 3, ps_conf => ['neon_page_service.shard_count=0'],
	conf => [ 'max_parallel_workers_per_gather=0', 'neon_comm.connections_per_shard=2' ]);
my $p = NeonComm::Proxy->new;

$c->sql(q{CREATE TABLE self (id int, v int, f text) WITH (fillfactor = 10);
	INSERT INTO self SELECT g, 0, lpad(g::text, 700, '0') FROM generate_series(0, 1499) g;});
cmp_ok($c->sql(q{SELECT pg_relation_size('self')}), '>', 8 * 1024 * 1024, 'larger than shared buffers');
my @proxied = $c->use_proxy($p, 3);
my @direct = map { $c->page_server_port($_) } 0 .. 2;
$p->cmd('delay * 500');

my $look = q{SELECT count(*), sum(id), count(*) FILTER (WHERE f <> lpad(id::text, 700, '0')) FROM self};
my $right = '1500|1124250|0';
my @s = map { $c->session } 1 .. 4;
my @maps = (
	[ [ @proxied[ 0, 1 ] ], 8 ],		# one shard less
	[ [ @proxied[ 1, 0 ] ], 8 ],		# swapped
	[ [ $direct[2], $proxied[1] ], 8 ],	# one moved
	[ [ @direct ], 1 ],					# all moved, another count and stripe
	[ [ $proxied[2] ], 2048 ],			# one for all
	[ [ @proxied, @direct ], 16 ],		# six
	[ [ @proxied[ 0, 0, 0, 0 ] ], 4 ],	# four times the same
	[ [ @proxied ], 8 ]);
my $changes = $c->counter('map_changes');
my %work = (1 => $look, 2 => $look, 3 => 'UPDATE self SET v = v + 1 WHERE id % 3 = 0');
$s[$_]->send($work{$_}) foreach sort keys %work;

# Whoever is done is judged and begins again.
sub keep_going
{
	foreach my $i (sort keys %work)
	{
		next unless $s[$i]->ready;
		my $out = $s[$i]->wait;
		is($out, $right, 'rows while maps change') if $work{$i} eq $look;
		is($s[$i]->{last_error}, '', 'no error while maps change');
		$s[$i]->send($work{$i});
	}
	return;
}

# Requests go out under this map.
sub under_load
{
	my $asked = $c->counter('requests');
	foreach (1 .. 2000)
	{
		keep_going();
		return 1 if $c->counter('requests') > $asked + 20;
	}
	return 0;
}

foreach my $map (@maps)
{
	my ($ports, $stripe) = @$map;
	my $before = $c->counter('map_changes');

	ok(under_load(), 'there is load');
	$c->configure({ 'neon_comm.page_servers' => $c->page_server_list(@$ports), 'neon_comm.stripe_size' => $stripe });
	ok($c->wait_for("SELECT value > $before FROM neon_comm.counters WHERE name = 'map_changes'"), 'a map is taken over');
	is($c->counter('map_changes'), $before + 1, scalar(@$ports) . " shards with stripe $stripe, in one change");
}
ok(under_load(), 'there is load under the last map');
is($s[$_]->wait, $right, 'rows after the last map') foreach 1 .. 2;
$s[3]->wait;
is($s[3]->{last_error}, '', 'and the update');
is($c->counter('map_changes') - $changes, scalar(@maps), 'each reload was one change');

# A stalled server's requests leave with the map: nothing waits for its timers.
$p->cmd('delay * 0');
my $silent = $p->rule('link=1 tag=getpage silent');
my $deaf = $p->rule('link=1 on=connect silent');
$s[1]->send($look);
foreach (1 .. 1200)
{
	last if $p->fired($silent);
	select(undef, undef, undef, 0.05);
}
cmp_ok($p->fired($silent), '>=', 1, 'a shard stalls');
$c->configure({ 'neon_comm.page_servers' => $c->page_server_list($proxied[0], $direct[1], $proxied[2]) });
is($s[1]->wait, $right, 'a move to another server frees what waits');
$p->clear;

# No map.
my $before = $c->counter('map_changes');
foreach my $bad ('host=127.0.0.1 port=1,,host=127.0.0.1 port=2', 'x' x 300)
{
	my $from = length $c->log_text('compute');

	$c->configure({ 'neon_comm.page_servers' => $bad });
	ok($c->wait_log('compute', qr/invalid value for parameter "neon_comm\.page_servers"/, $from), 'the log says so');
	ok($c->reload_is_over, 'reloaded');
}
is($s[1]->query($look), $right, 'a list that is none changes nothing');
is($c->counter('map_changes'), $before, 'and is no change');

is($c->counter('connections_poisoned'), 0, 'no answer was mixed up');
is($c->sql('SELECT count(*) FROM neon_comm.slots WHERE pid <> pg_backend_pid()'), 0, 'no slot is left behind');
$_->close foreach @s;
$c->check_logs;
done_testing();
