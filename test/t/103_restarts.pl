# Page servers that come and go: restarted again and again under readers that
# know what they must see, then one that is down for a while under load. No
# query fails, whoever waits may leave, and the log stays short: lines are
# bounded by the time that passed, not by the requests that waited.
use strict;
use warnings;

use Test::More;
use Time::HiRes qw(time);
use NeonComm::Cluster;
use NeonComm::Proxy;
use NeonComm::Stuck;

my $c = NeonComm::Cluster->new(shards => 2, buffers => '8MB', conf => [
	'neon_comm.wait_log_period=2s', 'neon_comm.request_timeout=1h', 'max_parallel_workers_per_gather=0' ]);
my $p = NeonComm::Proxy->new;

$c->sql(q{CREATE TABLE self (id int, f text) WITH (fillfactor = 10);
	INSERT INTO self SELECT g, lpad(g::text, 700, '0') FROM generate_series(0, 1499) g;});
cmp_ok($c->sql(q{SELECT pg_relation_size('self')}), '>', 11 * 1024 * 1024, 'larger than shared buffers');
my $look = q{SELECT count(*), sum(id), count(*) FILTER (WHERE (ctid::text::point)[0]::int <> id OR f <> lpad(id::text, 700, '0')) FROM self};
my $right = '1500|1124250|0';
$c->use_proxy($p, 2);
my $failures = q{SELECT value FROM neon_comm.counters WHERE name = 'connect_failures'};
my $waiters = q{SELECT count(DISTINCT pid) > 4 FROM neon_comm.slots};
my $trouble = q{SELECT min(state), count(*), max(last_error) FROM neon_comm.connections WHERE shard = 1};

# Restarts in a loop.
my @s = map { $c->session } 1 .. 4;
$_->send($look) foreach @s;
my $connects = $c->counter('connects');
foreach my $round (1 .. 2)
{
	foreach my $n (0, 1)
	{
		$round == 1 ? $c->restart('page-server', $n) : ($c->kill9('page-server', $n), $c->start('page-server', $n));
		foreach my $s (@s)
		{
			next unless $s->ready;
			is($s->wait, $right, "rows while page servers restart");
			$s->send($look);
		}
	}
}
is($_->wait, $right, 'rows after page servers restarted') foreach @s;
is($_->{last_error}, '', 'and no error') foreach @s;
cmp_ok($c->counter('connects'), '>', $connects, 'they had to connect again');

# The communicator is terminated by hand, which is not the end of the server: another one
# takes over what is in flight.
foreach my $round (1 .. 2)
{
	my ($pid, $epoch) = split /\|/, $c->sql('SELECT communicator_pid, epoch FROM neon_comm.status()');
	$_->send($look) foreach @s;
	kill 'TERM', $pid;
	is($_->wait, $right, 'rows while the communicator is terminated') foreach @s;
	ok($c->wait_for("SELECT epoch = $epoch + 1 AND communicator_pid <> $pid FROM neon_comm.status()"),
		'another communicator runs');
}

# Down for a while, and nobody is spared. Scans of several sessions side by side have left any number of
# pages in buffers, which nobody would wait for.
$_->close foreach @s;
$c->restart('compute');
my $stuck = NeonComm::Stuck->new($c, q{SELECT count(*), sum(id) FROM self WHERE ctid = '(0,1)'});
my $watch = $stuck->{watch};
$watch->query($_) foreach $failures, $trouble, $waiters, 'SELECT (' . $failures . ') > 100';
@s = map { $c->session } 1 .. 4;
$_->query("$look WHERE ctid = '(0,1)'") foreach @s;
# Who waits for the same page waits for one of them: these wait for pages of their own.
my @part = map { $c->session } 0 .. 6;
my $part = sub { my ($i) = @_; return sprintf("SELECT sum(id) FROM self WHERE ctid >= '(%d,0)' AND ctid < '(%d,0)'", 64 * $i, 64 * $i + 64) };
$_->query("SELECT sum(id) FROM self WHERE ctid >= '(0,0)' AND ctid < '(1,0)'") foreach @part;
my ($communicator) = $c->pids_of('compute', qr/neon_comm communicator/);
my $log = length $c->log_text('compute');
my $began = time;
$p->cmd('down 1');
$p->cmd('cut 1');
$_->send($look) foreach @s;
$part[$_]->send($part->($_)) foreach 0 .. $#part;
ok($stuck->sees($waiters), 'several processes wait for pages of their own');
$stuck->leaves('a page server that is down', 'SELECT sum(id) FROM self');
# long enough for lines to come again, if they are not held back
my $refused = $watch->query($failures);
ok($stuck->sees("SELECT ($failures) > " . ($refused + 8)), 'the communicator goes on trying');
# a line comes five seconds after the last one, and that one may have told of the lost connections
ok($c->wait_log('compute', qr/shard 1 .*: cannot connect: .*refused/, $log), 'and says why');
my $row = $watch->query($trouble);
like($row, qr/refused/, 'the view shows what is wrong') or diag($row);
$p->cmd('up 1');
is($_->wait, $right, 'rows once it is back') foreach @s;
is($part[$_]->wait, 64 * 64 * $_ + 2016, 'rows of a part once it is back') foreach 0 .. $#part;
is(join(',', $c->pids_of('compute', qr/neon_comm communicator/)), $communicator, 'the communicator was not troubled by it');
my $seconds = time - $began;
my $text = substr($c->log_text('compute'), $log);
my $warnings = () = $text =~ /communicator: warning: shard 1/g;
my $waits = () = $text =~ /still waiting for page servers/g;
cmp_ok($warnings, '>=', 1, 'the log names the shard');
like($text, qr/shard 1 \(127\.0\.0\.1:\d+\): cannot connect: .*refused.*; \d+ requests waiting, \d+ failures in/,
	'with address, cause, and how many wait');
cmp_ok($warnings, '<=', 2 + $seconds / 5, "in few lines ($warnings in $seconds s)");
cmp_ok($waits, '<=', 1 + $seconds / 2, "and waiting processes speak through one ($waits)");
like($c->log_text('compute'), qr/shard 1 \(127\.0\.0\.1:\d+\): works again after \d+ failures/, 'and says when it is over');
is($c->sql('SELECT count(*) FROM neon_comm.connections WHERE last_error IS NOT NULL'), 0, 'and shows no trouble any more');

is($c->sql('SELECT count(*) FROM neon_comm.slots WHERE pid <> pg_backend_pid()'), 0, 'no slot is left behind');
$_->close foreach @s, @part;
$stuck->close;
$c->check_logs;
done_testing();
